//! What becomes of attempts.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use auricle_core::{ConversationStatus, DiscardReason, JobState, Limits, UnixMicros};

use auricle_process::Clock;
use auricle_store::conformance::{at, completion};
use auricle_store::{ActionItemEdit, ClaimRule, NewActionItem};

use crate::rig::{Act, Rig, Script, until};

fn script(acts: impl IntoIterator<Item = Act>) -> Arc<Script> {
    Arc::new(Script { acts: Mutex::new(acts.into_iter().collect()), ..Script::default() })
}

fn gated() -> Arc<Script> {
    Arc::new(Script { gate: Some(tokio::sync::Semaphore::new(0)), ..Script::default() })
}

/// Limits under which waiting is short.
fn quick() -> Limits {
    Limits {
        job_attempt_max: Duration::from_millis(200),
        lease_renew_every: Duration::from_millis(50),
        drain_max: Duration::from_millis(400),
        ..Limits::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s04_every_kind_of_trouble_ends_in_a_record_or_a_visible_failure() {
    let rig = Rig::new(quick()).await;
    rig.ground.ended("c1", "hello").await;
    let script = script([Act::Fail("no quota"), Act::Panic, Act::Hang, Act::Fail("again")]);
    let worker = rig.work("p1", &script);
    let job = rig.reaches("c1", JobState::Completed).await;
    assert_eq!((job.attempts, rig.title("c1").await.as_str()), (5, "Done"));
    assert_eq!(script.calls.load(Ordering::SeqCst), 5);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s01_attempts_end_and_the_failure_says_why_and_keeps_everything() {
    let rig = Rig::new(quick()).await;
    rig.ground.ended("c1", "hello").await;
    let max = rig.limits.job_attempts_max as usize;
    let script = script((0..max).map(|_| Act::Fail("the model answered 503")));
    let worker = rig.work("p1", &script);
    let job = rig.reaches("c1", JobState::Failed).await;
    assert_eq!(job.attempts as usize, max);
    assert!(job.last_error.as_deref().unwrap().contains("the model answered 503"), "{job:?}");
    let record = rig.ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    assert_eq!(record.status, ConversationStatus::Failed);
    assert_eq!((record.discarded, record.segments.len()), (None, 1), "a failure never discards");
    // A person asks again, and the model is back.
    rig.ground.store.retry_job(None, &job.id, rig.clock.wall()).await.unwrap();
    rig.reaches("c1", JobState::Completed).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permanent_error_is_not_tried_again() {
    let rig = Rig::new(quick()).await;
    rig.ground.ended("c1", "hello").await;
    rig.ground.ended("c2", "hello").await;
    let script = script([Act::Refuse("no such model"), Act::NoTitle]);
    let worker = rig.work("p1", &script);
    let (one, two) = (rig.reaches("c1", JobState::Failed).await, rig.reaches("c2", JobState::Failed).await);
    let errors = [one.last_error.unwrap(), two.last_error.unwrap()];
    assert!(errors.iter().any(|error| error.contains("no such model")), "{errors:?}");
    assert!(
        errors.iter().any(|error| error.contains("title")),
        "l14: an empty title is a failure: {errors:?}"
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l14_a_discarded_record_keeps_its_words() {
    let rig = Rig::new(quick()).await;
    rig.ground.ended("c1", "um").await;
    let worker = rig.work("p1", &script([Act::Discard]));
    rig.reaches("c1", JobState::Completed).await;
    let record = rig.ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    assert_eq!(record.discarded, Some(DiscardReason::Trivial));
    assert_eq!(record.segments[0].text, "um");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_worker_killed_after_its_step_leaves_only_the_completion_to_the_next() {
    let rig = Rig::new(quick()).await;
    rig.ground.ended("c1", "hello").await;
    // An attempt as far as its recorded step, and then its process is gone.
    let claimed = rig.ground.claim("p2", 10).await;
    let first = script([]);
    let recorded = serde_json::json!({
        "title": "Recorded", "overview": "", "emoji": "", "category": "other", "action_items": [], "events": [],
        "provider": "script", "version": "1", "discarded": null,
    });
    let lease = &claimed.lease;
    rig.ground.store.record_step(lease, "understand", &recorded.to_string(), rig.clock.wall()).await.unwrap();
    rig.clock.forward(Duration::from_secs(60));
    let worker = rig.work("p1", &first);
    rig.reaches("c1", JobState::Completed).await;
    assert_eq!(first.calls.load(Ordering::SeqCst), 0, "a finished step is never done again");
    assert_eq!(rig.title("c1").await, "Recorded");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l10_s03_a_killed_workers_job_is_taken_over_when_its_lease_has_run_out() {
    let rig = Rig::new(quick()).await;
    rig.ground.ended("c1", "hello").await;
    let (stuck, well) = (gated(), script([]));
    let killed = rig.work("p2", &stuck);
    until("the first worker is in the middle", || stuck.running.load(Ordering::SeqCst) == 1).await;
    killed.kill().await;
    let worker = rig.work("p1", &well);
    let job = rig.reaches("c1", JobState::Leased).await;
    assert_eq!(well.calls.load(Ordering::SeqCst), 0, "not before: {job:?}");
    rig.clock.forward(rig.limits.lease + Duration::from_secs(1));
    rig.reaches("c1", JobState::Completed).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d07_d14_a_worker_that_lost_its_lease_writes_nothing() {
    // Its process was stopped: it renews nothing.
    let stopped = Limits {
        job_attempt_max: Duration::from_secs(600),
        lease_renew_every: Duration::from_secs(600),
        ..quick()
    };
    let rig = Rig::new(stopped).await;
    rig.ground.ended("c1", "hello").await;
    let late = gated();
    let worker = rig.work("p2", &late);
    until("it is in the middle", || late.running.load(Ordering::SeqCst) == 1).await;
    rig.clock.forward(rig.limits.lease + Duration::from_secs(1));
    let claimed = rig
        .ground
        .other
        .claim_job(&"p1".into(), rig.clock.wall(), rig.limits.lease, ClaimRule::default())
        .await;
    let done = completion(&claimed.unwrap().unwrap().lease, "Others", 100);
    rig.ground.other.complete_job(done).await.unwrap();
    late.gate.as_ref().unwrap().add_permits(1);
    until("the late worker ends", || late.running.load(Ordering::SeqCst) == 0).await;
    worker.stop().await;
    assert_eq!(rig.title("c1").await, "Others");
    let effects = rig.ground.store.effects(&"c1".into()).await.unwrap();
    assert_eq!(effects.len(), 1, "{effects:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s03_a_worker_that_is_stopped_gives_its_job_back_at_once() {
    let rig = Rig::new(Limits { job_attempt_max: Duration::from_secs(60), ..quick() }).await;
    rig.ground.ended("c1", "hello").await;
    let stuck = gated();
    let worker = rig.work("p2", &stuck);
    until("it is in the middle", || stuck.running.load(Ordering::SeqCst) == 1).await;
    worker.stop().await;
    let job = rig.job("c1").await;
    assert_eq!((job.state, job.attempts), (JobState::Queued, 0), "given back, and not counted: {job:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_no_more_jobs_run_at_once_than_the_limit_says() {
    let limits = Limits { jobs_running_max: 3, job_attempt_max: Duration::from_secs(60), ..quick() };
    let rig = Rig::new(limits).await;
    for number in 0..12 {
        rig.ground.ended(&format!("c{number}"), "hello").await;
    }
    let gated = gated();
    let worker = rig.work("p1", &gated);
    until("three run", || gated.running.load(Ordering::SeqCst) == 3).await;
    gated.gate.as_ref().unwrap().add_permits(12);
    for number in 0..12 {
        rig.reaches(&format!("c{number}"), JobState::Completed).await;
    }
    assert_eq!(gated.most.load(Ordering::SeqCst), 3);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d01_d06_two_workers_understand_each_conversation_once() {
    let rig = Rig::new(quick()).await;
    for number in 0..20 {
        rig.ground.ended(&format!("c{number}"), "hello").await;
    }
    let script = script([]);
    let (one, two) = (rig.work("p1", &script), rig.work("p2", &script));
    for number in 0..20 {
        rig.reaches(&format!("c{number}"), JobState::Completed).await;
    }
    assert_eq!(script.calls.load(Ordering::SeqCst), 20);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l35_a_conversation_deleted_while_it_is_understood_stays_deleted() {
    let rig = Rig::new(Limits { job_attempt_max: Duration::from_secs(60), ..quick() }).await;
    rig.ground.ended("c1", "hello").await;
    let gated = gated();
    let worker = rig.work("p1", &gated);
    until("it is in the middle", || gated.running.load(Ordering::SeqCst) == 1).await;
    rig.ground.store.delete(&"ann".into(), &"c1".into()).await.unwrap();
    gated.gate.as_ref().unwrap().add_permits(1);
    until("it ends", || gated.running.load(Ordering::SeqCst) == 0).await;
    worker.stop().await;
    assert_eq!(rig.ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap(), None);
    assert!(rig.ground.store.effects(&"c1".into()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l38_l39_an_ending_of_which_nobody_was_told_is_taken_up_all_the_same() {
    let rig = Rig::new(quick()).await;
    // The process that ended it died right after its transaction: no hint, no request, no session.
    rig.ground.ended("c1", "hello").await;
    rig.ground.other.process_gone(&"p1".into(), rig.clock.wall()).await.unwrap();
    let script = script([]);
    let worker = rig.work("p2", &script);
    rig.reaches("c1", JobState::Completed).await;
    assert_eq!(script.calls.load(Ordering::SeqCst), 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s05_a_job_that_always_fails_holds_up_no_other() {
    let rig = Rig::new(Limits { jobs_running_max: 1, ..quick() }).await;
    rig.ground.ended("c0", "hello").await;
    let worker = rig.work("p1", &script((0..3).map(|_| Act::Panic)));
    for number in 1..6 {
        rig.ground.ended(&format!("c{number}"), "hello").await;
    }
    for number in (0..6).rev() {
        rig.reaches(&format!("c{number}"), JobState::Completed).await;
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_an_attempt_that_lost_its_lease_ends_when_its_user_gets_another() {
    // It renews nothing, as after a long sleep: its lease runs out while it works.
    let asleep = Limits {
        jobs_running_max: 4,
        job_attempt_max: Duration::from_secs(600),
        lease_renew_every: Duration::from_secs(600),
        ..quick()
    };
    let rig = Rig::new(asleep).await;
    rig.ground.ended("c1", "hello").await;
    let gated = gated();
    let worker =
        rig.work_by("p1", Arc::clone(&gated) as _, ClaimRule { one_per_user: true, ..ClaimRule::default() });
    until("the first runs", || gated.running.load(Ordering::SeqCst) == 1).await;
    rig.ground.ended("c2", "hello").await;
    rig.clock.forward(rig.limits.lease + Duration::from_secs(1));
    // Both are due now; whichever is claimed, the user's older attempt goes.
    until("another was claimed", || gated.calls.load(Ordering::SeqCst) >= 2).await;
    until("one runs", || gated.running.load(Ordering::SeqCst) == 1).await;
    gated.gate.as_ref().unwrap().add_permits(10);
    for id in ["c1", "c2"] {
        rig.reaches(id, JobState::Completed).await;
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn understanding_is_told_what_is_open_of_late_and_not_what_it_makes_again() {
    let rig = Rig::new(Limits::default()).await;
    let (ann, store) = ("ann".into(), &rig.ground.store);
    rig.ground.ended("c1", "hello").await;
    let now = at(10).0;
    let day = 86_400_000_000;
    let add = |id: &str, of: Option<&str>, age: i64| NewActionItem {
        id: id.into(),
        description: format!("item {id}"),
        due_at: None,
        conversation: of.map(Into::into),
        now: UnixMicros(now - age),
    };
    for new in [add("own", Some("c1"), 3), add("old", None, 3 * day), add("a", None, 2), add("b", None, 1)] {
        store.add_action_item(&ann, new).await.unwrap();
    }
    store.add_action_item(&ann, add("done", None, 0)).await.unwrap();
    let done = ActionItemEdit { completed: Some(true), ..Default::default() };
    store.edit_action_item(&ann, &"done".into(), done, at(10)).await.unwrap();
    store.add_action_item(&"bob".into(), add("bobs", None, 0)).await.unwrap();
    let script = Arc::new(Script::default());
    let worker = rig.work("p1", &script);
    rig.reaches("c1", JobState::Completed).await;
    assert_eq!(*script.told.lock().unwrap(), [["item b", "item a"]]);
    worker.stop().await;
}
