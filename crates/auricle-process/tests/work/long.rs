//! Four hours of talk and a small window: read in parts, each once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use auricle_core::{JobState, Limits};
use auricle_process::openai::OpenAiConfig;
use auricle_process::{Clock, OpenAi, Understand};
use auricle_store::conformance::{batch, ending, segment};
use auricle_testkit::{LlmMode, LlmStandIn, schemas};
use serde_json::Value;

use crate::conversations::tokens;
use crate::rig::{PATIENCE, Rig};

const WINDOW: usize = 16_384;
/// Four hours at 150 words a minute, in segments of 20 words.
const SEGMENTS: usize = 4 * 60 * 150 / 20;
/// What a call leaves for its answer, at least.
const ANSWER: usize = WINDOW / 4;

fn said(at: usize) -> String {
    let words = ["budget", "harbour", "winter", "engine", "letter", "garden", "protocol"];
    let word = |step: usize| words[(at * step + step) % words.len()];
    format!(
        "In minute {} we came to the {} and the {}, which nobody had expected, and agreed to look at the {} once more.",
        at / 8,
        word(3),
        word(5),
        word(2)
    )
}

/// `c1` has ended after four hours; its job waits.
async fn four_hours(rig: &Rig) {
    let owner = rig.ground.live("c1").await;
    let segments: Vec<_> =
        (0..SEGMENTS).map(|at| segment(&format!("s{at}"), at as f64 * 8.0, &said(at))).collect();
    for (at, part) in segments.chunks(500).enumerate() {
        rig.ground.store.append_segments(batch(&owner, at as i64 + 1, part)).await.unwrap();
    }
    rig.ground.store.finalise(ending(&owner.conversation, Some(&owner), "job-c1", 5)).await.unwrap();
}

fn model(rig: &Rig, llm: &LlmStandIn) -> Arc<dyn Understand> {
    let config = OpenAiConfig {
        window_tokens: WINDOW,
        model_long: Some("m2".into()),
        ..OpenAiConfig::new(llm.url(), "m1")
    };
    let clock = Arc::clone(&rig.clock) as Arc<dyn Clock>;
    Arc::new(OpenAi::new(&config, Arc::clone(&rig.limits), clock).unwrap())
}

async fn ground(limits: Limits) -> (Rig, LlmStandIn) {
    let rig = Rig::new(limits).await;
    four_hours(&rig).await;
    (rig, LlmStandIn::start().await.unwrap())
}

fn of(requests: &[Value], model: &str) -> Vec<Value> {
    requests.iter().filter(|request| request["model"] == model).cloned().collect()
}

/// Finished calls whose results are kept.
async fn recorded(rig: &Rig) -> usize {
    let job = rig.job("c1").await;
    rig.ground.store.steps(&"c1".into(), job.revision).await.unwrap().len()
}

/// What the parts of the transcript held: each line's text by its number.
fn covered(requests: &[Value]) -> BTreeMap<usize, String> {
    let mut covered = BTreeMap::new();
    for request in requests {
        let material = request["messages"][1]["content"].as_str().unwrap();
        let Some((_, block)) = material.split_once("<transcript>\n") else { continue };
        for line in block.lines().take_while(|line| *line != "</transcript>") {
            let (number, said) = line.split_once(' ').unwrap();
            let before = covered.insert(number.parse().unwrap(), said.to_owned());
            assert_eq!(before, None, "line {number} comes once");
        }
    }
    covered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_hours_are_read_in_parts_that_fit_and_nothing_is_left_out() {
    let (rig, llm) = ground(Limits::default()).await;
    let worker = rig.work_with("p1", model(&rig, &llm));
    let done = rig.reaches("c1", JobState::Completed).await;
    assert_eq!(done.attempts, 1);
    let requests = llm.requests();
    for request in &requests {
        assert_eq!(schemas::chat_completion(request), [""; 0]);
        let messages = request["messages"].as_array().unwrap().iter();
        let text: usize = messages.map(|message| tokens(message["content"].as_str().unwrap())).sum();
        let sent = text + tokens(&request["response_format"].to_string());
        assert!(sent + ANSWER <= WINDOW, "{sent} tokens of {WINDOW}");
    }
    let calls = of(&requests, "m2");
    assert_eq!((of(&requests, "m1").len(), requests.len()), (1, calls.len() + 1), "one makes the record");
    let is_of_notes = |call: &&Value| call["messages"][1]["content"].as_str().unwrap().contains("<notes>");
    let again = calls.iter().filter(is_of_notes).count();
    assert!(again > 0 && calls.len() - again > 4, "{again} of {} are notes of notes", calls.len());
    let covered = covered(&calls);
    assert_eq!(covered.len(), SEGMENTS);
    for (number, text) in covered {
        assert!(text.ends_with(&said(number - 1)), "{number}: {text}");
    }
    let last = llm.requests().pop().unwrap();
    assert!(
        last["messages"][1]["content"].as_str().unwrap().contains("<notes>\n1 In minute 0"),
        "made from notes"
    );
    let record = rig.ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    assert!(record.structured.title.starts_with("In minute 0"), "{:?}", record.structured.title);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_crash_between_two_parts_repeats_no_finished_call() {
    let (rig, llm) = ground(Limits::default()).await;
    llm.set(LlmMode::Slow(Duration::from_millis(100)));
    let first = rig.work_with("p2", model(&rig, &llm));
    let some = async {
        while recorded(&rig).await < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, some).await.unwrap();
    first.kill().await;
    // Writes are done in their order: whatever the dead one had under way is decided after this.
    rig.ground.announce().await;
    let (before, kept) = (llm.calls(), recorded(&rig).await);
    assert!(kept >= 2 && before <= kept + 1, "one was under way: {before} calls, {kept} kept");
    llm.set(LlmMode::Answer);
    rig.clock.forward(rig.limits.lease + Duration::from_secs(1));
    let second = rig.work_with("p1", model(&rig, &llm));
    rig.reaches("c1", JobState::Completed).await;
    // A job's steps are its parts and the record.
    let finished = recorded(&rig).await;
    assert_eq!(llm.calls() - before, finished - kept, "what was finished is not asked again");
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_comes_between_two_parts_costs_no_attempt() {
    // There is time for one call in each attempt.
    let (call, attempt) = (Duration::from_secs(10), Duration::from_secs(20));
    let (rig, llm) =
        ground(Limits { llm_call_max: call, job_attempt_max: attempt, ..Limits::default() }).await;
    let worker = rig.work_with("p1", model(&rig, &llm));
    let done = rig.reaches("c1", JobState::Completed).await;
    assert_eq!(done.attempts, 1);
    assert_eq!(llm.calls(), recorded(&rig).await, "each part once");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_hours_in_one_call_cost_a_tenth_more_than_what_was_said_at_most() {
    let (rig, llm) = ground(Limits::default()).await;
    let config = OpenAiConfig::new(llm.url(), "m1");
    let clock = Arc::clone(&rig.clock) as Arc<dyn Clock>;
    let worker = rig.work_with("p1", Arc::new(OpenAi::new(&config, Arc::clone(&rig.limits), clock).unwrap()));
    rig.reaches("c1", JobState::Completed).await;
    assert_eq!(llm.calls(), 1);
    let request = llm.requests().pop().unwrap();
    let said: usize = (0..SEGMENTS).map(|at| tokens(&format!("Speaker 1: {}\n", said(at)))).sum();
    let sent = tokens(&request.to_string());
    assert!(sent * 10 <= said * 11, "{sent} tokens for {said}");
    worker.stop().await;
}
