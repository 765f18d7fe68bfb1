//! The webhook on a real store, against a real receiver that misbehaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use auricle_core::{ConversationStatus, EffectState, JobState, Limits, Trigger, UnixMicros};
use auricle_process::{Clock, Local, Outbox, Worker};
use auricle_store::conformance::{Ground, at};
use auricle_store::{ClaimRule, NewTarget, SqliteOptions, SqliteStore, TargetSettings};
use auricle_testkit::{SinkDelivery, SinkMode, WebhookSink};
use auricle_wire::signature;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::outgoing::reach::Reach;

/// Longest that anything here may take: only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(30);
const SAID: &str = "I will send the quarterly report to the board tomorrow morning";
const SECRET: &str = "the operator's";
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
    wake: Arc<Notify>,
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
        let store: Arc<dyn Store> = SqliteStore::open(&file, SqliteOptions::from(&limits)).unwrap();
        let ground = Ground { other: Arc::clone(&store), store, keep: Box::new(folder) };
        ground.announce().await;
        ground.ended("c1", SAID).await;
        let clock = Arc::new(TestClock(AtomicI64::new(at(10).0)));
        let outgoing = Outgoing::new(reach, &limits, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        let (limits, url, wake) = (Arc::new(limits), url.parse().unwrap(), Arc::default());
        Self { ground, clock, limits, sink, outgoing, url, wake }
    }

    /// Gives `ann` a target at the sink, or at `url`.
    async fn target(&self, id: &str, kind: TargetKind, url: Option<&str>) {
        let url: Url = url.unwrap_or(self.url.as_str()).parse().unwrap();
        let new = NewTarget {
            id: id.into(),
            user: "ann".into(),
            kind,
            settings: TargetSettings {
                name: "mine".into(),
                triggers: vec![Trigger::Conversation, Trigger::DaySummary],
                host: crate::outgoing::host(&url),
                url: Sensitive::new(url.as_str()),
                audio_secs: 5,
            },
            secret: Sensitive::new(format!("secret of {id}")),
            now: at(0),
        };
        self.ground.store.add_target(new).await.unwrap();
    }

    /// With one conversation that has ended, and targets that may be on this machine.
    async fn for_targets(limits: Limits) -> Self {
        let sink = WebhookSink::start().await.unwrap();
        let url = format!("{}/hook?key=1&uid=eve", sink.url());
        Self::with(limits, sink, &url, Reach::new(true)).await
    }

    /// What arrived at the sink for targets.
    fn told(&self) -> Vec<SinkDelivery> {
        let is_ours = |delivery: &SinkDelivery| {
            delivery.key.as_ref().is_some_and(|key| !key.ends_with("memory_created"))
        };
        self.sink.deliveries().into_iter().filter(is_ours).collect()
    }

    async fn read(&self, id: &str) -> auricle_store::Target {
        self.ground.store.target(&"ann".into(), &id.into()).await.unwrap().unwrap()
    }

    async fn messages(&self) -> Vec<auricle_store::Message> {
        self.ground.store.messages(&"ann".into(), 10, 0).await.unwrap()
    }

    /// The effect for a target once it is as it `should` be; the clock goes to each time that it waits for.
    async fn target_effect_when(&self, id: &str, should: impl Fn(&Effect) -> bool) -> Effect {
        let name = format!("target:{id}");
        eventually(&name, async || {
            let effects = self.ground.store.effects(&"c1".into()).await.unwrap();
            let effect = effects.into_iter().find(|effect| effect.key.name == name)?;
            if should(&effect) {
                return Some(effect);
            }
            if effect.state == EffectState::Pending {
                self.clock.0.fetch_max(effect.run_at.0, Ordering::SeqCst);
                self.wake.notify_one();
            }
            None
        })
        .await
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
            secret: Some(Sensitive::new(SECRET)),
        };
        let targets = Targets {
            store: Arc::clone(&self.ground.store),
            outgoing: Arc::clone(&self.outgoing),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            answer_bytes_max: self.limits.webhook_answer_bytes_max,
        };
        let outbox = Arc::new(Outbox::new(
            Arc::clone(&self.ground.store),
            vec![Arc::new(webhook), Arc::new(targets)],
            Arc::clone(&self.limits),
            process.into(),
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            Arc::clone(&self.wake),
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
    assert_eq!(delivery.headers["x-auricle-trigger"], "memory_created");
    let signed = delivery.headers[signature::HEADER].to_str().unwrap();
    let at_secs = at(10).0 / 1_000_000;
    assert_eq!(signature::verify(SECRET, signed, &delivery.body, at_secs, Duration::ZERO), Ok(()));
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
        secret: None,
    };
    assert_eq!(webhook.deliver(&effect).await, Delivery::Skipped);
    assert_eq!(rig.sink.requests(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_target_is_told_by_its_own_contract_and_with_its_own_signature() {
    let rig = Rig::for_targets(Limits::default()).await;
    rig.target("t1", TargetKind::Developer, None).await;
    rig.target("t2", TargetKind::App, None).await;
    rig.complete().await;
    rig.sink.set(SinkMode::Status(204));
    let _outbox = rig.deliver("p1");
    rig.target_effect_when("t1", |effect| effect.state == EffectState::Delivered).await;
    let refused = rig.target_effect_when("t2", |effect| effect.attempts >= 2).await;
    assert!(refused.last_error.unwrap().contains("HTTP 204; an app takes a delivery with 200"));
    rig.sink.set(SinkMode::Ok);
    rig.target_effect_when("t2", |effect| effect.state == EffectState::Delivered).await;
    let now_secs = Clock::wall(&*rig.clock).0 / 1_000_000;
    for delivery in rig.told() {
        assert_eq!(delivery.query, "key=1&uid=ann", "whoever else the address names");
        assert_eq!(delivery.headers["x-auricle-trigger"], "memory_created");
        let id = delivery.key.as_deref().unwrap().rsplit(':').next().unwrap().to_owned();
        let signed = delivery.headers[signature::HEADER].to_str().unwrap();
        let by = |secret: &str| {
            signature::verify(secret, signed, &delivery.body, now_secs, Duration::from_secs(86_400))
        };
        assert_eq!(by(&format!("secret of {id}")), Ok(()));
        assert!(by(SECRET).is_err());
        let body: Value = serde_json::from_slice(&delivery.body).unwrap();
        assert_eq!(body["transcript_segments"][0]["text"], SAID);
    }
    let app = rig.read("t2").await;
    assert!(app.delivered == 1 && app.failed >= 2 && app.health == Default::default(), "{app:?}");
    assert!(app.last_delivery_at.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d09_what_an_app_answers_twice_is_one_message() {
    let rig = Rig::for_targets(Limits::default()).await;
    rig.target("t1", TargetKind::App, None).await;
    rig.target("t2", TargetKind::Developer, None).await;
    rig.complete().await;
    rig.sink.say(r#"{"message": "Well said.", "notification": {"prompt": "x"}}"#);
    let _outbox = rig.deliver("p1");
    let told = rig.target_effect_when("t1", |effect| effect.state == EffectState::Delivered).await;
    rig.target_effect_when("t2", |effect| effect.state == EffectState::Delivered).await;
    rig.sink.say(r#"{"message": "Well said again."}"#);
    let now = Clock::wall(&*rig.clock);
    rig.ground.store.replay(&"ann".into(), &"t1".into(), Some(&told.id), now, 1).await.unwrap();
    rig.target_effect_when("t1", |effect| effect.epoch.0 > 2 && effect.state == EffectState::Delivered).await;
    assert_eq!(
        rig.told().iter().filter(|delivery| delivery.key == Some(told.key.idempotency_key())).count(),
        2
    );
    let messages = rig.messages().await;
    assert_eq!(messages.len(), 1, "and none of the developer's: {messages:?}");
    assert_eq!((messages[0].text.as_str(), messages[0].sender.as_str()), ("Well said.", "mine"));
    assert_eq!(messages[0].conversation, Some("c1".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_too_long_or_no_object_says_nothing() {
    for answer in ["", "[]", "no json", r#"{"message": 7}"#, r#"{"message": "  "}"#, &"x".repeat(100_000)] {
        let rig = Rig::for_targets(Limits::default()).await;
        rig.target("t1", TargetKind::App, None).await;
        rig.complete().await;
        rig.sink.say(answer);
        let _outbox = rig.deliver("p1");
        rig.target_effect_when("t1", |effect| effect.state == EffectState::Delivered).await;
        assert!(rig.messages().await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_is_told_in_omis_shape() {
    let rig = Rig::for_targets(Limits::default()).await;
    rig.target("t1", TargetKind::Developer, None).await;
    let payload = r#"{"summary": "A day.", "summary_json": {"items": []}}"#;
    let ann = UserId::from("ann");
    assert_eq!(rig.ground.store.record_day_effects(&ann, "2026-11-25", payload, at(9)).await.unwrap(), 1);
    let _outbox = rig.deliver("p1");
    rig.sink.arrived(1).await;
    let delivery = rig.sink.deliveries().remove(0);
    assert_eq!(delivery.key.as_deref(), Some("day:2026-11-25:target:t1"));
    assert_eq!(delivery.headers["x-auricle-trigger"], "day_summary");
    let body: Value = serde_json::from_slice(&delivery.body).unwrap();
    let expected = serde_json::json!({
        "summary": "A day.", "summary_json": {"items": []}, "uid": "ann",
        "created_at": convert::time(at(9)).to_string(),
    });
    assert_eq!(body, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_cannot_have_deliveries_go_inside() {
    let sink = WebhookSink::start().await.unwrap();
    let url = format!("{}/hook", sink.url());
    let rig = Rig::with(Limits::default(), sink, &url, Reach::new(false)).await;
    rig.target("t1", TargetKind::Developer, None).await;
    rig.complete().await;
    let _outbox = rig.deliver("p1");
    let refused = rig.target_effect_when("t1", |effect| effect.state == EffectState::Failed).await;
    assert!(refused.last_error.unwrap().contains("webhooks.allow_private"));
    assert!(rig.told().is_empty(), "while the operator's own, at the same address, may be here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_fails_for_three_days_is_switched_off_and_told_of() {
    let limits = Limits {
        effect_age_max: Duration::from_secs(10 * 86_400),
        // Its times are the machine's.
        webhook_breaker_failures: 10_000,
        ..Limits::default()
    };
    let rig = Rig::for_targets(limits).await;
    rig.target("t1", TargetKind::Developer, None).await;
    rig.complete().await;
    rig.sink.set(SinkMode::Status(500));
    let begun = Clock::wall(&*rig.clock);
    let _outbox = rig.deliver("p1");
    let last = rig.target_effect_when("t1", |effect| effect.state == EffectState::Failed).await;
    let target = rig.read("t1").await;
    assert_eq!(target.state, TargetState::Off);
    let after = target.off_at.unwrap().saturating_since(begun);
    let promised = rig.limits.target_off_after;
    assert!(after >= promised && after < promised + rig.limits.effect_backoff_max * 2, "{after:?}");
    assert!(last.last_error.unwrap().contains("HTTP 500") || last.ended_at.is_some());
    let told: Vec<String> = rig.messages().await.into_iter().map(|message| message.text).collect();
    assert!(told.len() == 2 && told[0].contains("switched off") && told[1].contains("24 h"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_a_hundred_receivers_hangs_and_the_others_feel_nothing() {
    let limits = Limits { targets_per_user_max: 200, ..Limits::default() };
    let rig = Rig::for_targets(limits).await;
    let mut sinks = Vec::new();
    for number in 0..100 {
        let sink = WebhookSink::start().await.unwrap();
        let id = format!("t{number}");
        rig.target(&id, TargetKind::Developer, Some(&format!("{}/hook", sink.url()))).await;
        sinks.push(sink);
    }
    sinks[0].set(SinkMode::TakeThenHang);
    for number in 2..=10 {
        rig.ground.ended(&format!("c{number}"), SAID).await;
    }
    rig.complete().await;
    let _outbox = rig.deliver("p1");
    let others = futures_util::future::join_all(sinks[1..].iter().map(|sink| sink.arrived(1)));
    // Less than one delivery to the one that hangs takes.
    let normal = rig.limits.effect_attempt_max / 2;
    assert!(tokio::time::timeout(normal, others).await.is_ok(), "all others in their normal time");
    assert!(sinks[0].deliveries().len() <= rig.limits.effects_per_host_max);
    assert_eq!(rig.read("t0").await.delivered, 0);
}
