//! The webhook on a real store, against a real receiver that misbehaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use auricle_core::{ConversationStatus, EffectState, JobState, Limits, UnixMicros};
use auricle_process::{Clock, Local, Outbox, Worker};
use auricle_store::conformance::{Ground, at};
use auricle_store::{ClaimRule, SqliteStore};
use auricle_testkit::{SinkMode, WebhookSink};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::outgoing::reach::Reach;

/// Longest that anything here may take: only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(30);
const SAID: &str = "I will send the quarterly report to the board tomorrow morning";
const KEY: &str = "conversation:c1:finalization:1:webhook:memory_created";

/// A wall clock that stands still unless it is moved.
struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn wall(&self) -> UnixMicros {
        UnixMicros(self.0.load(Ordering::SeqCst))
    }

    fn now(&self) -> Instant {
        crate::clock::monotonic()
    }
}

struct Rig {
    ground: Ground,
    clock: Arc<TestClock>,
    limits: Arc<Limits>,
    sink: WebhookSink,
    outgoing: Arc<Outgoing>,
    url: Url,
}

/// Something that runs until it is killed, as by `kill -9`: at whatever await it is.
struct Loop(JoinHandle<()>);

impl Loop {
    async fn kill(self) {
        self.0.abort();
        assert!(self.0.await.unwrap_err().is_cancelled());
    }
}

impl Rig {
    /// With one conversation that has ended.
    async fn new(limits: Limits) -> Self {
        let sink = WebhookSink::start().await.unwrap();
        let url = format!("{}/hook?key=1", sink.url());
        Self::with(limits, sink, &url, Reach::new(false)).await
    }

    async fn with(limits: Limits, sink: WebhookSink, url: &str, reach: Reach) -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("auricle.db");
        let store: Arc<dyn Store> = SqliteStore::open(&file, Default::default()).unwrap();
        let ground = Ground { other: Arc::clone(&store), store, keep: Box::new(folder) };
        ground.announce().await;
        ground.ended("c1", SAID).await;
        let clock = Arc::new(TestClock(AtomicI64::new(at(10).0)));
        let outgoing = Outgoing::new(reach, &limits, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        Self { ground, clock, limits: Arc::new(limits), sink, outgoing, url: url.parse().unwrap() }
    }

    /// Completes the job, by a worker that is then killed.
    async fn complete(&self) {
        let worker = Arc::new(Worker {
            store: Arc::clone(&self.ground.store),
            understand: Arc::new(Local),
            limits: Arc::clone(&self.limits),
            process: "p1".into(),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            time_zone: jiff::tz::TimeZone::UTC,
            wake: Arc::default(),
            effects: Arc::default(),
            records: vec![MEMORY_CREATED],
            fallback_after: None,
            rule: Arc::new(ClaimRule::default),
        });
        let worker = Loop(tokio::spawn(worker.run(CancellationToken::new(), Arc::new(|| {}))));
        let done = async || {
            let job = self.ground.store.job(None, &"job-c1".into()).await.unwrap().unwrap();
            (job.state == JobState::Completed).then_some(())
        };
        eventually("the job is completed", done).await;
        worker.kill().await;
    }

    fn deliver(&self, process: &str) -> Loop {
        let webhook = Webhook {
            store: Arc::clone(&self.ground.store),
            outgoing: Arc::clone(&self.outgoing),
            url: self.url.clone(),
        };
        let outbox = Arc::new(Outbox::new(
            Arc::clone(&self.ground.store),
            vec![Arc::new(webhook)],
            Arc::clone(&self.limits),
            process.into(),
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            Arc::default(),
        ));
        Loop(tokio::spawn(outbox.run(CancellationToken::new(), Arc::new(|| {}))))
    }

    async fn effect(&self) -> Effect {
        self.ground.store.effects(&"c1".into()).await.unwrap().remove(0)
    }

    /// The effect once it is as it `should` be. The clock goes to each time that it waits for, if `on`.
    async fn effect_when(&self, what: &str, on: bool, should: impl Fn(&Effect) -> bool) -> Effect {
        eventually(what, async || {
            let effect = self.effect().await;
            if should(&effect) {
                return Some(effect);
            }
            if on && effect.state == EffectState::Pending {
                self.clock.0.fetch_max(effect.run_at.0, Ordering::SeqCst);
            }
            None
        })
        .await
    }

    async fn ends(&self, state: EffectState) -> Effect {
        self.effect_when("the effect ends", true, |effect| effect.state == state).await
    }
}

async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asked = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("never: {what}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_posted_in_omis_shape_once() {
    let rig = Rig::new(Limits::default()).await;
    rig.complete().await;
    let _outbox = rig.deliver("p1");
    rig.ends(EffectState::Delivered).await;
    let deliveries = rig.sink.deliveries();
    assert_eq!(deliveries.len(), 1);
    let delivery = &deliveries[0];
    assert_eq!((delivery.path.as_str(), delivery.query.as_str()), ("/hook", "key=1&uid=ann"));
    assert_eq!(delivery.key.as_deref(), Some(KEY));
    assert_eq!(delivery.headers["content-type"], "application/json");
    let body: Value = serde_json::from_slice(&delivery.body).unwrap();
    assert_eq!((body["id"].as_str(), body["status"].as_str()), (Some("c1"), Some("completed")));
    assert_eq!(body["transcript_segments"][0]["text"], SAID);
    assert!(!body["structured"]["title"].as_str().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d09_a_webhook_that_timed_out_but_arrived_comes_again_with_the_same_key() {
    let limits = Limits { effect_attempt_max: Duration::from_millis(500), ..Limits::default() };
    let rig = Rig::new(limits).await;
    rig.complete().await;
    rig.sink.set(SinkMode::TakeThenHang);
    let _outbox = rig.deliver("p1");
    rig.sink.arrived(1).await;
    let late = rig.effect_when("it is late", false, |effect| effect.last_error.is_some()).await;
    assert!(late.last_error.unwrap().contains("did not answer within"));
    rig.sink.set(SinkMode::Ok);
    rig.ends(EffectState::Delivered).await;
    assert_eq!(rig.sink.keys(), [KEY, KEY], "at least once, and the receiver can tell");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d16_a_crash_between_delivery_and_its_record_repeats_it_under_one_key() {
    let rig = Rig::new(Limits::default()).await;
    rig.complete().await;
    rig.sink.set(SinkMode::TakeThenHang);
    let killed = rig.deliver("p1");
    rig.sink.arrived(1).await;
    killed.kill().await;
    assert_eq!(rig.effect().await.state, EffectState::Leased, "nobody could say how it went");
    rig.sink.set(SinkMode::Ok);
    // Its lease runs out.
    rig.clock.0.fetch_add(120_000_000, Ordering::SeqCst);
    let _outbox = rig.deliver("p2");
    rig.ends(EffectState::Delivered).await;
    assert_eq!(rig.sink.keys(), [KEY, KEY]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l16_effects_outlive_the_process_that_completed_the_record() {
    let rig = Rig::new(Limits::default()).await;
    // Completed by a process that dies before it delivers anything.
    rig.complete().await;
    assert_eq!((rig.effect().await.state, rig.sink.requests()), (EffectState::Pending, 0));
    let _other = rig.deliver("p2");
    rig.ends(EffectState::Delivered).await;
    assert_eq!(rig.sink.keys(), [KEY]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l12_a_failing_effect_never_hides_the_record() {
    for (mode, attempts) in [(SinkMode::Status(410), 1), (SinkMode::Status(302), 3)] {
        let rig = Rig::new(Limits { effect_attempts_max: 3, ..Limits::default() }).await;
        rig.complete().await;
        rig.sink.set(mode);
        let _outbox = rig.deliver("p1");
        let failed = rig.ends(EffectState::Failed).await;
        assert_eq!((failed.attempts, rig.sink.requests()), (attempts, attempts as usize));
        let error = failed.last_error.unwrap();
        assert!(error.contains("HTTP") && !error.contains("report"), "{error}");
        assert!(!error.contains("key=1"), "an address's query may be a secret: {error}");
        let record = rig.ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
        assert_eq!((record.status, record.discarded), (ConversationStatus::Completed, None));
        assert!(!record.structured.title.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_passing_is_tried_again() {
    let limits = Limits {
        effect_attempt_max: Duration::from_millis(500),
        webhook_breaker_failures: 100,
        ..Limits::default()
    };
    let rig = Rig::new(limits).await;
    rig.complete().await;
    let long = Duration::from_secs(60);
    let modes = [
        SinkMode::Status(503),
        SinkMode::Status(429),
        SinkMode::Status(302),
        SinkMode::Hang(long),
        SinkMode::Slow(long),
    ];
    rig.sink.set(modes[0]);
    let _outbox = rig.deliver("p1");
    for (failures, mode) in modes.into_iter().enumerate() {
        rig.sink.set(mode);
        let waits =
            |effect: &Effect| effect.state == EffectState::Pending && rig.sink.requests() == failures + 1;
        let failed = rig.effect_when("it failed", false, waits).await;
        rig.sink.set(modes.get(failures + 1).copied().unwrap_or(SinkMode::Ok));
        rig.clock.0.fetch_max(failed.run_at.0, Ordering::SeqCst);
    }
    let delivered = rig.ends(EffectState::Delivered).await;
    // Only who answered that it lives elsewhere was there.
    assert_eq!((delivered.attempts, rig.sink.requests()), (2, modes.len() + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_its_status_and_its_body_is_not_waited_for() {
    let rig = Rig::new(Limits::default()).await;
    rig.complete().await;
    rig.sink.set(SinkMode::Reset);
    let _outbox = rig.deliver("p1");
    rig.ends(EffectState::Delivered).await;
    assert_eq!(rig.sink.keys(), [KEY]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_fails_again_and_again_is_not_connected_to() {
    let limits = Limits {
        webhook_breaker_failures: 2,
        webhook_breaker_open_for: Duration::from_secs(600),
        ..Limits::default()
    };
    let rig = Rig::new(limits).await;
    rig.complete().await;
    rig.sink.set(SinkMode::Status(500));
    let _outbox = rig.deliver("p1");
    let waiting = rig
        .effect_when("the breaker is open", true, |effect| {
            effect.last_error.as_deref().is_some_and(|error| error.contains("not tried for now"))
        })
        .await;
    assert_eq!((waiting.attempts, rig.sink.requests()), (0, 2), "what was not tried is not counted");
    assert!(waiting.postponed >= 3);
    let longest = Duration::from_secs(600).mul_f64(1.25);
    assert!(waiting.run_at <= at(10) + rig.limits.effect_backoff_max + longest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_leads_inside_is_not_connected_to_unless_it_may() {
    for (anywhere, requests) in [(false, 0), (true, 1)] {
        let sink = WebhookSink::start().await.unwrap();
        let url = format!("http://hooks.example:{}/hook", sink.address().port());
        let reach = Reach::scripted(anywhere, &[&["127.0.0.1"]]);
        let rig = Rig::with(Limits::default(), sink, &url, reach).await;
        rig.complete().await;
        let _outbox = rig.deliver("p1");
        let tried = rig
            .effect_when("it was tried", false, |effect| {
                effect.last_error.is_some() || effect.state == EffectState::Delivered
            })
            .await;
        assert_eq!(rig.sink.requests(), requests);
        if !anywhere {
            let error = tried.last_error.unwrap();
            assert!(error.contains("loopback") && error.contains("webhooks.allow_private"), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_conversation_is_told_to_nobody() {
    let rig = Rig::new(Limits::default()).await;
    rig.complete().await;
    let effect = rig.effect().await;
    rig.ground.store.delete(&"ann".into(), &"c1".into()).await.unwrap();
    let webhook = Webhook {
        store: Arc::clone(&rig.ground.store),
        outgoing: Arc::clone(&rig.outgoing),
        url: rig.url.clone(),
    };
    assert_eq!(webhook.deliver(&effect).await, Delivery::Skipped);
    assert_eq!(rig.sink.requests(), 0);
}
