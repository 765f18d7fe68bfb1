//! A language model that answers, hangs, refuses and talks nonsense: what becomes of conversations.

use std::sync::Arc;
use std::time::Duration;

use auricle_core::{ConversationStatus, DiscardReason, JobState, Limits};
use auricle_process::openai::OpenAiConfig;
use auricle_process::{Clock, OpenAi, Understand};
use auricle_testkit::{LlmMode, LlmStandIn, schemas};

use crate::rig::{Loop, Rig};

const KEY: &str = "sk-very-secret-0123";
const SAID: &str = "I will send the quarterly report to Bo";

/// Limits under which waiting is short. The breaker stays closed unless a test is about it.
fn quick() -> Limits {
    Limits {
        llm_call_max: Duration::from_millis(300),
        llm_breaker_failures: 1_000,
        drain_max: Duration::from_millis(400),
        ..Limits::default()
    }
}

fn model(rig: &Rig, url: &str) -> Arc<dyn Understand> {
    model_with(rig, OpenAiConfig { key: Some(KEY.into()), ..OpenAiConfig::new(url, "m1") })
}

fn model_with(rig: &Rig, config: OpenAiConfig) -> Arc<dyn Understand> {
    let clock = Arc::clone(&rig.clock) as Arc<dyn Clock>;
    Arc::new(OpenAi::new(&config, Arc::clone(&rig.limits), clock).unwrap())
}

fn work(rig: &Rig, process: &str, url: &str) -> Loop {
    rig.work_with(process, model(rig, url))
}

async fn ground(limits: Limits) -> (Rig, LlmStandIn) {
    let rig = Rig::new(limits).await;
    rig.ground.ended("c1", SAID).await;
    (rig, LlmStandIn::start().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_the_models_and_says_so() {
    let (rig, llm) = ground(quick()).await;
    let worker = work(&rig, "p1", &llm.url());
    rig.reaches("c1", JobState::Completed).await;
    let record = rig.ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    assert_eq!(record.structured.title, "I will send the quarterly report");
    assert_eq!(record.structured.action_items[0].description, SAID);
    let provenance = record.provenance.unwrap();
    assert_eq!((provenance.provider.as_str(), provenance.version.as_str()), ("llm", "m1/prompt-1"));
    let (headers, body) = llm.last().unwrap();
    assert_eq!(headers["authorization"], format!("Bearer {KEY}").as_str());
    assert_eq!(body["model"], "m1");
    assert_eq!(llm.calls_for("c1"), 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s04_whatever_a_model_does_wrong_it_is_asked_again() {
    // Only what may be the transcript's fault costs an attempt.
    let modes = [
        (LlmMode::Hang(Duration::from_secs(60)), 0, 1),
        (LlmMode::Slow(Duration::from_secs(60)), 0, 1),
        (LlmMode::Status(503), 0, 1),
        (LlmMode::Status(408), 0, 1),
        (LlmMode::Status(409), 0, 1),
        (LlmMode::Busy(1), 0, 1),
        (LlmMode::Garbage, 1, 1),
        (LlmMode::Huge(10 << 20), 1, 1),
        (LlmMode::Reset, 0, 1),
        // An answer that makes no sense is shown to the model once before the attempt fails.
        (LlmMode::Prose, 1, 2),
        (LlmMode::Malformed, 1, 2),
        (LlmMode::WrongSchema, 1, 2),
    ];
    for (mode, spent, calls) in modes {
        // Only what hangs is given up soon.
        let hangs = matches!(mode, LlmMode::Hang(_) | LlmMode::Slow(_));
        let llm_call_max = if hangs { quick().llm_call_max } else { Duration::from_secs(20) };
        let (rig, llm) = ground(Limits { llm_call_max, ..quick() }).await;
        llm.set(mode);
        let worker = work(&rig, "p1", &llm.url());
        let failed = rig.fails("c1", spent).await;
        assert_eq!(failed.postponed, 1 - spent, "{mode:?}");
        let error = failed.last_error.unwrap();
        assert!(error.starts_with("understand: "), "{mode:?}: {error}");
        assert!(!error.contains("report") && !error.contains(KEY), "{mode:?}: {error}");
        assert!(!error.contains("127.0.0.1") && !error.contains("limits."), "for users: {mode:?}: {error}");
        llm.set(LlmMode::Answer);
        let done = rig.reaches("c1", JobState::Completed).await;
        assert_eq!((done.attempts, llm.calls_for("c1")), (spent + 1, calls + 1), "{mode:?}");
        for request in llm.requests() {
            assert_eq!(schemas::chat_completion(&request), [""; 0], "{mode:?}");
        }
        worker.stop().await;
    }
}

/// A server that is away: connections are refused, and its port is kept from other tests' servers, which would answer.
async fn goes(llm: LlmStandIn) -> tokio::net::TcpSocket {
    let address = llm.address();
    drop(llm);
    loop {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        // Its task lets go of the port a moment later.
        if socket.bind(address).is_ok() {
            return socket;
        }
        tokio::task::yield_now().await;
    }
}

async fn comes_back(nobody: tokio::net::TcpSocket) -> LlmStandIn {
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    loop {
        // Another test may have the port for a moment.
        if let Ok(llm) = LlmStandIn::start_at(address).await {
            return llm;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_not_there_yet_is_found_when_it_is() {
    let (rig, llm) = ground(quick()).await;
    let nobody = goes(llm).await;
    let address = nobody.local_addr().unwrap();
    let worker = work(&rig, "p1", &format!("http://{address}"));
    let error = rig.is_away("c1", 1).await.last_error.unwrap();
    assert_eq!(error, "understand: the language model cannot be reached");
    let llm = comes_back(nobody).await;
    rig.reaches("c1", JobState::Completed).await;
    assert_eq!(llm.calls(), 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_asks_for_time_is_given_it() {
    let (rig, llm) = ground(quick()).await;
    llm.set(LlmMode::Busy(333));
    let begun = rig.clock.wall();
    let worker = work(&rig, "p1", &llm.url());
    let failed = rig.is_away("c1", 1).await;
    assert!(failed.run_at >= begun + Duration::from_secs(333), "{failed:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_fails_at_once_and_its_user_is_told_no_advice_for_operators() {
    for (status, advice) in
        [(401, "AURICLE_LLM_KEY"), (403, "AURICLE_LLM_KEY"), (404, "llm.model"), (400, "llm.model")]
    {
        let (rig, llm) = ground(quick()).await;
        llm.set(LlmMode::Status(status));
        let worker = work(&rig, "p1", &llm.url());
        let error = rig.reaches("c1", JobState::Failed).await.last_error.unwrap();
        assert!(error.contains(&format!("HTTP {status}, as_told")), "{error}");
        assert!(!error.contains(advice) && !error.contains("127.0.0.1"), "{error}");
        assert!(!error.contains("report") && !error.contains(KEY), "{error}");
        assert_eq!(llm.calls(), 1);
        let record = rig.ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
        assert_eq!((record.status, record.segments.len()), (ConversationStatus::Failed, 1));
        assert_eq!(record.failure.unwrap(), error);
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let (rig, llm) = ground(Limits { llm_answer_bytes_max: 64, ..quick() }).await;
    let worker = work(&rig, "p1", &llm.url());
    let error = rig.fails("c1", 1).await.last_error.unwrap();
    assert!(error.ends_with("the language model's answer is too long"), "{error}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l14_an_empty_title_is_a_failed_step_not_a_discard() {
    let (rig, llm) = ground(quick()).await;
    llm.set(LlmMode::EmptyTitle);
    let worker = work(&rig, "p1", &llm.url());
    let failed = rig.reaches("c1", JobState::Failed).await;
    assert_eq!(failed.attempts, rig.limits.job_attempts_max);
    assert!(failed.last_error.unwrap().contains("no title"));
    let record = rig.ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    assert_eq!((record.status, record.discarded), (ConversationStatus::Failed, None));
    assert_eq!(record.segments[0].text, SAID);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_decides_on_few_words_and_nobody_on_none() {
    let (rig, llm) = ground(quick()).await;
    rig.ground.ended("c2", " ").await;
    llm.set(LlmMode::Discard);
    let worker = work(&rig, "p1", &llm.url());
    for (id, reason, calls) in [("c1", DiscardReason::Trivial, 1), ("c2", DiscardReason::Empty, 0)] {
        rig.reaches(id, JobState::Completed).await;
        let record = rig.ground.store.conversation(&"ann".into(), &id.into()).await.unwrap().unwrap();
        assert_eq!((record.discarded, record.segments.len()), (Some(reason), 1));
        assert_eq!(llm.calls_for(id), calls);
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_away_is_not_hammered_and_costs_no_attempts() {
    let limits =
        Limits { llm_breaker_failures: 3, llm_breaker_open_for: Duration::from_secs(600), ..quick() };
    let (rig, llm) = ground(limits).await;
    llm.set(LlmMode::Status(503));
    let model = model(&rig, &llm.url());
    let worker = rig.work_with("p1", Arc::clone(&model));
    for failures in 1..=3 {
        let failed = rig.is_away("c1", failures).await;
        rig.go_on(&failed);
    }
    // The fourth finds the breaker open: given back uncounted, for when it is worth looking again.
    let waiting =
        rig.until_job("c1", |job| job.last_error.as_deref().is_some_and(|e| e.contains("not asked"))).await;
    assert_eq!((waiting.state, waiting.attempts, llm.calls()), (JobState::Queued, 0, 3));
    assert!(waiting.run_at > rig.clock.wall() + Duration::from_secs(500));
    assert!(model.is_away(), "so that workers look slowly");
    rig.ground.ended("c2", SAID).await;
    let other = rig.until_job("c2", |job| job.last_error.is_some()).await;
    assert_eq!((other.attempts, llm.calls()), (0, 3), "{other:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_came_back_is_found_by_one_probe() {
    let limits =
        Limits { llm_breaker_failures: 1, llm_breaker_open_for: Duration::from_millis(100), ..quick() };
    let (rig, llm) = ground(limits).await;
    llm.set(LlmMode::Status(503));
    let worker = work(&rig, "p1", &llm.url());
    rig.is_away("c1", 1).await;
    llm.set(LlmMode::Answer);
    let done = rig.reaches("c1", JobState::Completed).await;
    assert_eq!((done.attempts, llm.calls()), (1, 2), "what it waited for was not counted");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s01_an_outage_of_hours_fails_no_conversation() {
    let open_for = Duration::from_millis(1);
    let limits = Limits { llm_breaker_failures: 5, llm_breaker_open_for: open_for, ..quick() };
    let (rig, llm) = ground(limits).await;
    let nobody = goes(llm).await;
    let address = nobody.local_addr().unwrap();
    let begun = rig.clock.wall();
    let worker = work(&rig, "p1", &format!("http://{address}"));
    let mut waited = Vec::new();
    // More than all its attempts, half-open probes among them.
    for postponed in 1..=3 * rig.limits.job_attempts_max {
        let waiting = rig.is_away("c1", postponed).await;
        assert_eq!(waiting.attempts, 0, "{waiting:?}");
        assert!(waiting.last_error.as_deref().is_some_and(|error| error.contains("language model")));
        waited.push(waiting.run_at.saturating_since(rig.clock.wall()));
        rig.go_on(&waiting);
    }
    assert!(rig.clock.wall() > begun + Duration::from_secs(3_600), "{waited:?}");
    let longest = rig.limits.job_backoff_max.mul_f64(1.25);
    assert!(waited[0] < waited[6] && waited.iter().all(|wait| *wait <= longest), "{waited:?}");
    let llm = comes_back(nobody).await;
    let done = rig.reaches("c1", JobState::Completed).await;
    assert_eq!((done.attempts, llm.calls()), (1, 1));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s01_a_transcript_that_no_model_answers_in_time_ends_as_failed_some_day() {
    let (rig, llm) = ground(Limits { llm_call_max: Duration::from_millis(50), ..quick() }).await;
    llm.set(LlmMode::Hang(Duration::from_secs(60)));
    let worker = work(&rig, "p1", &llm.url());
    let first = rig.is_away("c1", 1).await;
    rig.clock.forward(rig.limits.job_away_max - Duration::from_secs(1));
    rig.go_on(&first);
    rig.is_away("c1", 2).await;
    rig.clock.forward(rig.limits.job_backoff_max * 2);
    let failed = rig.reaches("c1", JobState::Failed).await;
    let error = failed.last_error.unwrap();
    assert!(error.contains("did not answer in time") && error.contains("waited"), "{error}");
    // A person asks again: it has as long as at first.
    rig.ground.store.retry_job(None, &failed.id, rig.clock.wall()).await.unwrap();
    rig.is_away("c1", 1).await;
    llm.set(LlmMode::Answer);
    rig.reaches("c1", JobState::Completed).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_worker_killed_while_the_model_thinks_leaves_the_job_to_the_next() {
    let (rig, llm) = ground(Limits { llm_call_max: Duration::from_secs(60), ..quick() }).await;
    llm.set(LlmMode::Hang(Duration::from_secs(60)));
    let killed = work(&rig, "p2", &llm.url());
    llm.called(1).await;
    killed.kill().await;
    llm.set(LlmMode::Answer);
    rig.clock.forward(rig.limits.lease + Duration::from_secs(1));
    let worker = work(&rig, "p1", &llm.url());
    rig.reaches("c1", JobState::Completed).await;
    assert_eq!(llm.calls_for("c1"), 2);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_is_paid_once_though_the_completing_write_fails_and_the_worker_dies() {
    let (rig, llm) = ground(quick()).await;
    rig.refuse_completions(true);
    let first = work(&rig, "p2", &llm.url());
    let failed = rig.fails("c1", 1).await;
    assert!(failed.last_error.as_deref().unwrap().starts_with("complete: "), "{failed:?}");
    first.kill().await;
    rig.refuse_completions(false);
    let second = work(&rig, "p1", &llm.url());
    let done = rig.reaches("c1", JobState::Completed).await;
    assert_eq!((done.attempts, llm.calls_for("c1")), (2, 1), "a recorded step is never paid twice");
    assert_eq!(rig.title("c1").await, "I will send the quarterly report");
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_a_drain_does_not_wait_for_a_model_that_hangs() {
    let (rig, llm) = ground(Limits { llm_call_max: Duration::from_secs(60), ..quick() }).await;
    llm.set(LlmMode::Hang(Duration::from_secs(60)));
    let worker = work(&rig, "p1", &llm.url());
    llm.called(1).await;
    worker.stop().await;
    let job = rig.job("c1").await;
    assert_eq!((job.state, job.attempts), (JobState::Queued, 0), "given back, uncounted: {job:?}");
}
