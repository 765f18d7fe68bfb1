//! Jobs: leases, epochs, attempts, completion.

use auricle_core::{
    ConversationStatus, DiscardReason, EffectState, FinaliseReason, JobState, ProcessId, Revision, UserId,
};

use super::{Ground, LEASE, at, completion, segment};
use crate::store::{AttemptOutcome, ClaimRule, InsertRecovered, StoreError};
use std::time::Duration;

fn fenced<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::Fenced(_))), "{result:?}");
}

async fn nothing_due(ground: &Ground, secs: i64) {
    assert!(
        ground.store.claim_job(&"p1".into(), at(secs), LEASE, ClaimRule::default()).await.unwrap().is_none()
    );
}

async fn status(ground: &Ground, id: &str) -> ConversationStatus {
    ground.store.conversation(&"ann".into(), &id.into()).await.unwrap().unwrap().status
}

fn retry(secs: i64) -> AttemptOutcome {
    AttemptOutcome::Retry { at: at(secs), error: "understand: timed out".into() }
}

pub async fn a_job_is_claimed_once(ground: Ground) {
    ground.ended("c1", "hello").await;
    nothing_due(&ground, 1).await;
    let claimed = ground.claim("p1", 2).await;
    assert_eq!((claimed.job.attempts, claimed.job.state), (1, JobState::Leased));
    assert_eq!(claimed.job.leased_by, Some("p1".into()));
    assert_eq!(claimed.job.lease_expires_at, Some(at(17)));
    assert_eq!((claimed.lease.conversation.as_str(), claimed.lease.revision), ("c1", Revision(1)));
    nothing_due(&ground, 16).await;
}

pub async fn d01_two_processes_never_hold_one_job(ground: Ground) {
    for number in 0..10 {
        ground.ended(&format!("c{number}"), "hello").await;
    }
    let mut tasks = Vec::new();
    for worker in 0..8 {
        let store = if worker % 2 == 0 { ground.store.clone() } else { ground.other.clone() };
        tasks.push(tokio::spawn(async move {
            let mut mine = Vec::new();
            while let Some(claimed) = store
                .claim_job(&format!("w{worker}").into(), at(5), LEASE, ClaimRule::default())
                .await
                .unwrap()
            {
                mine.push(claimed.job.id);
            }
            mine
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    all.sort();
    let claims = all.len();
    all.dedup();
    assert_eq!((claims, all.len()), (10, 10));
}

pub async fn claims_take_the_most_overdue(ground: Ground) {
    ground.ended("c1", "hello").await;
    ground.ended("c2", "hello").await;
    let first = ground.claim("p1", 3).await;
    assert_eq!(first.job.conversation, "c1".into());
    ground.store.end_attempt(&first.lease, retry(8), at(4)).await.unwrap();
    assert_eq!(ground.claim("p1", 9).await.job.conversation, "c2".into());
    assert_eq!(ground.claim("p1", 9).await.job.conversation, "c1".into());
}

pub async fn s03_an_expired_lease_is_claimed_by_another(ground: Ground) {
    ground.ended("c1", "hello").await;
    let first = ground.claim("p1", 2).await;
    let second =
        ground.other.claim_job(&"p2".into(), at(17), LEASE, ClaimRule::default()).await.unwrap().unwrap();
    assert_eq!((second.job.attempts, second.job.leased_by), (2, Some("p2".into())));
    assert!(second.lease.epoch > first.lease.epoch);
}

pub async fn d14_a_worker_that_wakes_late_changes_nothing(ground: Ground) {
    ground.ended("c1", "hello").await;
    let late = ground.claim("p1", 2).await.lease;
    let owner = ground
        .other
        .claim_job(&"p2".into(), at(17), LEASE, ClaimRule::default())
        .await
        .unwrap()
        .unwrap()
        .lease;
    fenced(ground.store.renew_job(&late, at(99)).await);
    fenced(ground.store.record_step(&late, "understand", "old", at(18)).await);
    fenced(ground.store.complete_job(completion(&late, "Old", 18)).await);
    fenced(ground.store.end_attempt(&late, retry(20), at(18)).await);
    fenced(ground.store.end_attempt(&late, AttemptOutcome::Failed { error: "old".into() }, at(18)).await);
    fenced(ground.store.end_attempt(&late, AttemptOutcome::Released, at(18)).await);
    assert_eq!(status(&ground, "c1").await, ConversationStatus::Processing);
    assert!(ground.store.steps(&"c1".into(), Revision(1)).await.unwrap().is_empty());
    ground.other.complete_job(completion(&owner, "New", 19)).await.unwrap();
    fenced(ground.store.complete_job(completion(&late, "Old", 20)).await);
    let found = ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    assert_eq!(found.title(), "New");
    assert_eq!(ground.store.effects(&"c1".into()).await.unwrap().len(), 1);
}

pub async fn renewing_keeps_the_lease(ground: Ground) {
    ground.ended("c1", "hello").await;
    let claimed = ground.claim("p1", 2).await;
    ground.store.renew_job(&claimed.lease, at(30)).await.unwrap();
    nothing_due(&ground, 29).await;
    assert_eq!(ground.claim("p2", 30).await.job.attempts, 2);
}

pub async fn steps_are_recorded_once_and_resumed(ground: Ground) {
    let id = ground.ended("c1", "hello").await;
    let first = ground.claim("p1", 2).await.lease;
    ground.store.record_step(&first, "understand", "paid for", at(3)).await.unwrap();
    ground.store.record_step(&first, "understand", "again", at(4)).await.unwrap();
    ground.store.record_step(&first, "embed", "vector", at(5)).await.unwrap();
    let second = ground.claim("p2", 17).await.lease;
    let steps = ground.other.steps(&id, second.revision).await.unwrap();
    let seen: Vec<_> = steps.iter().map(|each| (each.step.as_str(), each.result.as_str(), each.at)).collect();
    assert_eq!(seen, [("understand", "paid for", at(3)), ("embed", "vector", at(5))]);
    assert!(ground.store.steps(&id, Revision(2)).await.unwrap().is_empty());
}

pub async fn d04_completing_twice_is_one_completion(ground: Ground) {
    let id = ground.ended("c1", "hello").await;
    let lease = ground.claim("p1", 2).await.lease;
    ground.store.complete_job(completion(&lease, "First", 3)).await.unwrap();
    ground.store.complete_job(completion(&lease, "Second", 4)).await.unwrap();
    let found = ground.store.conversation(&"ann".into(), &id).await.unwrap().unwrap();
    assert_eq!((found.title(), found.status), ("First", ConversationStatus::Completed));
    assert_eq!(found.provenance.unwrap().provider, "local");
    assert_eq!(ground.store.effects(&id).await.unwrap().len(), 1);
    nothing_due(&ground, 9_999).await;
    let opened = ground.store.open_conversation(super::opening(crate::Choice::New, "c2")).await.unwrap();
    assert_eq!(opened.last_completed, Some(id));
}

pub async fn l35_completion_keeps_late_segments_and_the_users_title(ground: Ground) {
    let id = ground.ended("c1", "hello").await;
    let ann = UserId::from("ann");
    let lease = ground.claim("p1", 2).await.lease;
    ground.store.rename(&ann, &id, "Mine", at(3)).await.unwrap();
    ground.store.assign_segments(&ann, &id, &["s1".into()], false, Some("carla")).await.unwrap();
    let late = InsertRecovered {
        conversation: id.clone(),
        run: "r".into(),
        until_sample: 1,
        zero_at: at(9),
        segments: vec![segment("late", 0.0, "late words")],
        gap: None,
    };
    ground.store.insert_recovered(late).await.unwrap();
    ground.store.complete_job(completion(&lease, "Made", 4)).await.unwrap();
    let found = ground.store.conversation(&ann, &id).await.unwrap().unwrap();
    assert_eq!((found.title(), found.structured.title.as_str()), ("Mine", "Made"));
    assert_eq!(found.segments.len(), 2);
    assert_eq!(found.segments[0].person_id, Some("carla".into()));
}

pub async fn l35_completion_never_makes_a_row(ground: Ground) {
    let id = ground.ended("c1", "hello").await;
    let lease = ground.claim("p1", 2).await.lease;
    ground.store.delete(&"ann".into(), &id).await.unwrap();
    let gone = ground.store.complete_job(completion(&lease, "Ghost", 3)).await;
    assert!(matches!(gone, Err(StoreError::NotFound(_))), "{gone:?}");
    assert!(ground.store.conversation(&"ann".into(), &id).await.unwrap().is_none());
    nothing_due(&ground, 9_999).await;
}

pub async fn a_retry_waits_for_its_time(ground: Ground) {
    ground.ended("c1", "hello").await;
    let lease = ground.claim("p1", 2).await.lease;
    for _ in 0..2 {
        ground.store.end_attempt(&lease, retry(30), at(3)).await.unwrap();
    }
    let job = ground.store.job(None, &lease.job).await.unwrap().unwrap();
    assert_eq!((job.state, job.run_at, job.attempts), (JobState::Queued, at(30), 1));
    assert_eq!(job.last_error.as_deref(), Some("understand: timed out"));
    nothing_due(&ground, 29).await;
    assert_eq!(ground.claim("p1", 30).await.job.attempts, 2);
}

pub async fn a_released_attempt_is_not_counted(ground: Ground) {
    ground.ended("c1", "hello").await;
    let lease = ground.claim("p1", 2).await.lease;
    for _ in 0..2 {
        ground.store.end_attempt(&lease, AttemptOutcome::Released, at(3)).await.unwrap();
    }
    fenced(ground.store.complete_job(completion(&lease, "Late", 3)).await);
    assert_eq!(ground.claim("p2", 3).await.job.attempts, 1);
}

pub async fn a_postponed_attempt_waits_and_is_not_counted(ground: Ground) {
    ground.ended("c1", "hello").await;
    let lease = ground.claim("p1", 2).await.lease;
    for _ in 0..2 {
        let outcome = AttemptOutcome::Postponed { at: at(30), error: "understand: the model is away".into() };
        ground.store.end_attempt(&lease, outcome, at(3)).await.unwrap();
    }
    fenced(ground.store.complete_job(completion(&lease, "Late", 3)).await);
    nothing_due(&ground, 29).await;
    let claimed = ground.claim("p2", 30).await;
    let job = &claimed.job;
    assert_eq!((job.attempts, job.last_error.as_deref()), (1, Some("understand: the model is away")));
    assert_eq!((job.postponed, job.away_since), (1, Some(at(3))));
    let again = AttemptOutcome::Postponed { at: at(60), error: "understand: the model is away".into() };
    ground.store.end_attempt(&claimed.lease, again, at(31)).await.unwrap();
    let claimed = ground.claim("p2", 60).await;
    assert_eq!((claimed.job.attempts, claimed.job.postponed, claimed.job.away_since), (1, 2, Some(at(3))));
    // Whoever answers is back, whatever the answer is worth.
    ground.store.end_attempt(&claimed.lease, retry(90), at(61)).await.unwrap();
    let job = ground.claim("p2", 90).await.job;
    assert_eq!((job.attempts, job.postponed, job.away_since), (2, 0, None));
}

pub async fn s04_failure_is_of_job_and_conversation_together(ground: Ground) {
    let id = ground.ended("c1", "hello").await;
    let lease = ground.claim("p1", 2).await.lease;
    let outcome = AttemptOutcome::Failed { error: "understand: refused".into() };
    for _ in 0..2 {
        ground.store.end_attempt(&lease, outcome.clone(), at(3)).await.unwrap();
    }
    let found = ground.store.conversation(&"ann".into(), &id).await.unwrap().unwrap();
    assert_eq!(found.status, ConversationStatus::Failed);
    assert_eq!(found.failure.as_deref(), Some("understand: refused"));
    assert_eq!((found.segments.len(), found.discarded), (1, None));
    assert_eq!(ground.store.job(None, &lease.job).await.unwrap().unwrap().state, JobState::Failed);
    nothing_due(&ground, 9_999).await;
}

pub async fn s01_spent_attempts_fail_visibly(ground: Ground) {
    ground.ended("c1", "hello").await;
    let mut now = 2;
    let mut attempts = 0;
    while let Some(claimed) =
        ground.store.claim_job(&"p1".into(), at(now), LEASE, ClaimRule::default()).await.unwrap()
    {
        attempts += 1;
        assert_eq!((claimed.job.attempts, attempts <= claimed.job.attempts_max), (attempts, true));
        now += 15;
    }
    assert!(attempts > 1);
    let found = ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    assert_eq!((found.status, found.failure.is_some()), (ConversationStatus::Failed, true));
}

pub async fn all_failed_jobs_are_revived_at_once(ground: Ground) {
    let refused = AttemptOutcome::Failed { error: "refused".into() };
    for id in ["c1", "c2", "c3"] {
        ground.ended(id, "hello").await;
        let dead = ground.claim("p1", 2).await.lease;
        ground.store.end_attempt(&dead, refused.clone(), at(3)).await.unwrap();
    }
    ground.completed("c4", "hello", "Fine").await;
    assert_eq!(ground.store.retry_failed_jobs(Some(&"eve".into()), at(9), 100).await.unwrap(), 0);
    assert_eq!(ground.store.retry_failed_jobs(Some(&"ann".into()), at(9), 2).await.unwrap(), 2);
    assert_eq!(ground.store.retry_failed_jobs(None, at(9), 100).await.unwrap(), 1);
    assert_eq!(ground.store.retry_failed_jobs(None, at(9), 100).await.unwrap(), 0, "none is left");
    for id in ["c1", "c2", "c3"] {
        let found = ground.store.conversation(&"ann".into(), &id.into()).await.unwrap().unwrap();
        assert_eq!((found.status, found.failure), (ConversationStatus::Processing, None));
        assert_eq!(ground.claim("p2", 9).await.job.attempts, 1);
    }
}

pub async fn a_failed_job_is_revived(ground: Ground) {
    ground.ended("c1", "hello").await;
    let early = ground.store.retry_job(None, &"job-c1".into(), at(3)).await;
    assert!(matches!(early, Err(StoreError::Conflict(_))));
    let dead = ground.claim("p1", 2).await.lease;
    let outcome = AttemptOutcome::Failed { error: "refused".into() };
    ground.store.end_attempt(&dead, outcome, at(3)).await.unwrap();
    ground.store.retry_job(Some(&"ann".into()), &dead.job, at(9)).await.unwrap();
    let found = ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    assert_eq!((found.status, found.failure), (ConversationStatus::Processing, None));
    fenced(ground.store.complete_job(completion(&dead, "Old", 9)).await);
    let claimed = ground.claim("p2", 9).await;
    assert_eq!(claimed.job.attempts, 1);
    ground.store.complete_job(completion(&claimed.lease, "Revived", 10)).await.unwrap();
    assert_eq!(status(&ground, "c1").await, ConversationStatus::Completed);
    let none = ground.store.retry_job(None, &"none".into(), at(9)).await;
    assert!(matches!(none, Err(StoreError::NotFound(_))));
}

pub async fn l14_a_discarded_record_keeps_its_transcript(ground: Ground) {
    let id = ground.ended("c1", "hello").await;
    let lease = ground.claim("p1", 2).await.lease;
    let mut done = completion(&lease, "", 3);
    done.discarded = Some(DiscardReason::Trivial);
    ground.store.complete_job(done).await.unwrap();
    let found = ground.store.conversation(&"ann".into(), &id).await.unwrap().unwrap();
    assert_eq!(
        (found.status, found.discarded),
        (ConversationStatus::Completed, Some(DiscardReason::Trivial))
    );
    assert_eq!(found.segments.len(), 1);
}

pub async fn d15_an_older_revisions_worker_changes_nothing(ground: Ground) {
    let (ann, id) = (UserId::from("ann"), ground.ended("c1", "hello").await);
    let old = ground.claim("p1", 2).await.lease;
    ground.store.end_attempt(&old, AttemptOutcome::Failed { error: "x".into() }, at(3)).await.unwrap();
    ground.store.reprocess(&ann, &id, "j2".into(), at(4)).await.unwrap();
    fenced(ground.store.complete_job(completion(&old, "Old", 5)).await);
    let conflict = ground.store.retry_job(None, &old.job, at(5)).await;
    assert!(matches!(conflict, Err(StoreError::Conflict(_))));
    let new = ground.claim("p1", 6).await;
    assert_eq!((new.lease.revision, new.job.reason), (Revision(2), FinaliseReason::Reprocess));
    assert_eq!(status(&ground, "c1").await, ConversationStatus::Processing);
}

pub async fn jobs_are_listed_by_user_and_state(ground: Ground) {
    ground.ended("c1", "hello").await;
    ground.ended("c2", "hello").await;
    ground.claim("p1", 2).await;
    let ann = UserId::from("ann");
    assert_eq!(ground.store.jobs(Some(&ann), None, 10).await.unwrap().len(), 2);
    assert_eq!(ground.store.jobs(None, None, 1).await.unwrap().len(), 1);
    let leased = ground.store.jobs(Some(&ann), Some(JobState::Leased), 10).await.unwrap();
    assert_eq!(leased.len(), 1);
    assert_eq!(leased[0].conversation, "c1".into());
    assert!(ground.store.jobs(Some(&"bob".into()), None, 10).await.unwrap().is_empty());
}

pub async fn counts_tell_the_truth(ground: Ground) {
    assert_eq!(ground.store.job_counts(at(0)).await.unwrap(), crate::JobCounts::default());
    ground.ended("c1", "hello").await;
    ground.ended("c2", "hello").await;
    ground.ended("c3", "hello").await;
    let failed = ground.claim("p1", 3).await.lease;
    ground.store.end_attempt(&failed, AttemptOutcome::Failed { error: "x".into() }, at(3)).await.unwrap();
    let done = ground.claim("p1", 3).await.lease;
    ground.store.complete_job(completion(&done, "Done", 4)).await.unwrap();
    let counts = ground.store.job_counts(at(12)).await.unwrap();
    assert_eq!((counts.queued, counts.leased, counts.failed), (1, 0, 1));
    assert_eq!(counts.oldest_unclaimed.as_secs(), 10);
    assert_eq!((counts.effects_pending, counts.oldest_effect.as_secs()), (1, 8));
}

pub async fn s03_process_gone_frees_its_leases(ground: Ground) {
    ground.completed("c1", "hello", "Done").await;
    ground.ended("c2", "hello").await;
    let held = ground.claim("p1", 3).await.lease;
    ground.store.claim_effects(&"p1".into(), at(5), LEASE, 10, &["notify"]).await.unwrap();
    ground.store.process_gone(&ProcessId::from("p1"), at(6)).await.unwrap();
    fenced(ground.store.complete_job(completion(&held, "Late", 6)).await);
    assert_eq!(ground.claim("p2", 6).await.job.id, held.job);
    let effects = ground.other.claim_effects(&"p2".into(), at(6), LEASE, 10, &["notify"]).await.unwrap();
    assert_eq!((effects.len(), effects[0].state), (1, EffectState::Leased));
}

pub async fn a_claim_may_leave_the_first_chance_to_others(ground: Ground) {
    ground.ended("c1", "hello").await;
    let rule = ClaimRule { waited: Duration::from_secs(5), ..ClaimRule::default() };
    let p1 = ProcessId::from("p1");
    let claim = |secs| ground.store.claim_job(&p1, at(secs), LEASE, rule);
    assert!(claim(6).await.unwrap().is_none(), "queued at 2: not yet");
    let claimed = claim(7).await.unwrap().unwrap();
    // A lease that has run out is nobody's first chance any more, but waits as long.
    assert!(claim(7 + 15 + 4).await.unwrap().is_none());
    let again = claim(7 + 15 + 5).await.unwrap().unwrap();
    assert_eq!(again.lease.job, claimed.lease.job);
}

pub async fn a_claim_may_be_for_one_of_each_user(ground: Ground) {
    ground.ended("c1", "hello").await;
    ground.ended("c2", "hello").await;
    let rule = ClaimRule { one_per_user: true, ..ClaimRule::default() };
    let claim = |process: &'static str, secs| {
        let store = ground.store.clone();
        async move { store.claim_job(&process.into(), at(secs), LEASE, rule).await.unwrap() }
    };
    let first = claim("p1", 5).await.unwrap();
    assert!(claim("p1", 5).await.is_none(), "the process has one of this user");
    assert!(claim("p2", 5).await.is_some(), "another process has not");
    ground.store.complete_job(completion(&first.lease, "Title", 6)).await.unwrap();
    ground.ended("c3", "hello").await;
    assert!(claim("p1", 7).await.is_some(), "and then the next");
}
