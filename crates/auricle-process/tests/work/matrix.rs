//! What a server of a language model can do wrong or lack, and what the client makes of it.

use std::sync::Arc;
use std::time::Duration;

use auricle_core::{JobState, Limits};
use auricle_process::openai::{OpenAiConfig, Output};
use auricle_process::{Clock, OpenAi, Understand};
use auricle_testkit::{LlmMode, LlmStandIn, schemas};

use crate::rig::{PATIENCE, Receiver, Rig, until};

const SAID: &str = "I will send the quarterly report to Bo";
const IDS: [&str; 3] = ["c1", "c2", "c3"];

fn quick() -> Limits {
    Limits {
        llm_call_max: Duration::from_millis(300),
        llm_breaker_failures: 4,
        llm_breaker_open_for: Duration::from_millis(100),
        drain_max: Duration::from_millis(400),
        ..Limits::default()
    }
}

/// Only what hangs is given up soon.
fn within(fault: LlmMode) -> Limits {
    match fault {
        LlmMode::Hang(_) | LlmMode::Slow(_) => quick(),
        _ => Limits { llm_call_max: Duration::from_secs(20), ..quick() },
    }
}

fn model(rig: &Rig, config: OpenAiConfig) -> Arc<dyn Understand> {
    let clock = Arc::clone(&rig.clock) as Arc<dyn Clock>;
    Arc::new(OpenAi::new(&config, Arc::clone(&rig.limits), clock).unwrap())
}

async fn ground(limits: Limits) -> (Rig, LlmStandIn) {
    (Rig::new(limits).await, LlmStandIn::start().await.unwrap())
}

/// Whatever happens meanwhile: once the server is well, every conversation has its record and was told of once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_of_a_server_loses_a_conversation_or_leaves_one_stuck() {
    // What may be the transcript's fault costs an attempt; all else costs none.
    let faults = [
        (LlmMode::Hang(Duration::from_secs(60)), 0),
        (LlmMode::Slow(Duration::from_secs(60)), 0),
        (LlmMode::Busy(1), 0),
        (LlmMode::Status(500), 0),
        (LlmMode::Status(503), 0),
        (LlmMode::Reset, 0),
        (LlmMode::Garbage, 1),
        (LlmMode::Prose, 1),
        (LlmMode::Malformed, 1),
        (LlmMode::WrongSchema, 1),
        (LlmMode::EmptyTitle, 1),
        (LlmMode::Huge(10 << 20), 1),
    ];
    for (fault, spent) in faults {
        let (rig, llm) = ground(within(fault)).await;
        for id in IDS {
            rig.ground.ended(id, SAID).await;
        }
        llm.set(fault);
        let receiver = Arc::new(Receiver::default());
        let outbox = rig.deliver(&receiver);
        let worker = rig.work_with("p1", model(&rig, OpenAiConfig::new(llm.url(), "m1")));
        for id in IDS {
            let tried = rig.until_job(id, |job| job.last_error.is_some()).await;
            assert_eq!((tried.state, tried.attempts), (JobState::Queued, spent), "{fault:?} {tried:?}");
        }
        llm.set(LlmMode::Answer);
        for id in IDS {
            let done = rig.reaches(id, JobState::Completed).await;
            assert_eq!(done.attempts, spent + 1, "{fault:?} {id}");
            assert_eq!(rig.title(id).await, "I will send the quarterly report", "{fault:?}");
        }
        until("each is told of", || receiver.keys.lock().unwrap().len() >= IDS.len()).await;
        outbox.stop().await;
        worker.stop().await;
        let mut keys = receiver.keys.lock().unwrap().clone();
        keys.sort();
        assert_eq!(keys, IDS.map(|id| format!("conversation:{id}:finalization:1:notify:memory_created")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plainer_form_of_output_is_found_once_and_remembered() {
    for (mode, asked) in [(LlmMode::NoSchema, 2), (LlmMode::NoFormat, 3)] {
        let (rig, llm) = ground(quick()).await;
        llm.set(mode);
        let worker = rig.work_with("p1", model(&rig, OpenAiConfig::new(llm.url(), "m1")));
        for (id, calls) in [("c1", asked), ("c2", 1)] {
            rig.ground.ended(id, SAID).await;
            let done = rig.reaches(id, JobState::Completed).await;
            assert_eq!((done.attempts, llm.calls_for(id)), (1, calls), "{mode:?}");
            assert_eq!(rig.title(id).await, "I will send the quarterly report");
        }
        for request in llm.requests() {
            assert_eq!(schemas::chat_completion(&request), [""; 0]);
            // JSON mode is refused by some servers unless the prompt speaks of JSON.
            let system = request["messages"][0]["content"].as_str().unwrap();
            let described = system.contains("JSON") && system.contains(r#""additionalProperties":false"#);
            assert_eq!(described, request["response_format"]["type"] != "json_schema");
        }
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_that_was_configured_is_the_only_one() {
    let (rig, llm) = ground(quick()).await;
    llm.set(LlmMode::NoSchema);
    rig.ground.ended("c1", SAID).await;
    let config = OpenAiConfig { output: Some(Output::JsonSchema), ..OpenAiConfig::new(llm.url(), "m1") };
    let worker = rig.work_with("p1", model(&rig, config));
    let failed = rig.reaches("c1", JobState::Failed).await;
    assert!(failed.last_error.unwrap().contains("lacks JSON output (HTTP 400, invalid_request_error)"));
    assert_eq!(llm.calls(), 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_makes_no_sense_is_shown_to_the_model_once() {
    let (rig, llm) = ground(quick()).await;
    llm.set(LlmMode::Mended);
    rig.ground.ended("c1", SAID).await;
    let worker = rig.work_with("p1", model(&rig, OpenAiConfig::new(llm.url(), "m1")));
    let done = rig.reaches("c1", JobState::Completed).await;
    assert_eq!((done.attempts, llm.calls()), (1, 2));
    let (_, second) = llm.last().unwrap();
    assert_eq!(schemas::chat_completion(&second), [""; 0]);
    assert_eq!(second["messages"][2]["role"], "assistant");
    assert_eq!(second["messages"][2]["content"], r#"{"summary":["of","sorts"]}"#);
    let wrong = second["messages"][3]["content"].as_str().unwrap();
    assert!(wrong.contains("missing field") && wrong.contains(r#""action_items""#), "{wrong}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tokens_of_a_minute_are_spent_and_not_more() {
    let (rig, llm) = ground(Limits { llm_kilotokens_per_minute: 1, ..quick() }).await;
    rig.ground.ended("c1", SAID).await;
    let worker = rig.work_with("p1", model(&rig, OpenAiConfig::new(llm.url(), "m1")));
    rig.reaches("c1", JobState::Completed).await;
    rig.ground.ended("c2", SAID).await;
    let waiting = rig.is_away("c2", 1).await;
    assert!(waiting.last_error.unwrap().ends_with("the tokens of this minute are spent"));
    assert_eq!((waiting.attempts, llm.calls()), (0, 1));
    assert!(waiting.run_at > rig.clock.wall() + Duration::from_secs(10));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_at_once_are_bounded_and_who_waits_in_vain_is_given_back() {
    let limits = Limits { llm_calls_running_max: 1, jobs_running_max: 2, ..quick() };
    let (rig, llm) = ground(Limits { llm_call_max: Duration::from_secs(2), ..limits }).await;
    llm.set(LlmMode::Hang(Duration::from_secs(60)));
    for id in ["c1", "c2"] {
        rig.ground.ended(id, SAID).await;
    }
    let worker = rig.work_with("p1", model(&rig, OpenAiConfig::new(llm.url(), "m1")));
    tokio::time::timeout(PATIENCE, llm.called(1)).await.unwrap();
    // Both end without an answer, one without having been asked.
    for id in ["c1", "c2"] {
        let waiting = rig.until_job(id, |job| job.postponed == 1).await;
        assert_eq!(waiting.attempts, 0, "{waiting:?}");
    }
    llm.set(LlmMode::Answer);
    for id in ["c1", "c2"] {
        assert_eq!(rig.reaches(id, JobState::Completed).await.attempts, 1);
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_goes_into_the_header_that_its_server_looks_at() {
    for (header, sent) in [("authorization", "Bearer sk-0123456789"), ("api-key", "sk-0123456789")] {
        let (rig, llm) = ground(quick()).await;
        rig.ground.ended("c1", SAID).await;
        let config = OpenAiConfig {
            key: Some("sk-0123456789".into()),
            key_header: header.into(),
            ..OpenAiConfig::new(llm.url(), "m1")
        };
        let worker = rig.work_with("p1", model(&rig, config));
        rig.reaches("c1", JobState::Completed).await;
        let (headers, _) = llm.last().unwrap();
        assert_eq!(headers[header], sent);
        assert_eq!(headers.contains_key("authorization"), header == "authorization");
        worker.stop().await;
    }
}
