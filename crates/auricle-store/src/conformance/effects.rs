//! Effects: keyed, held by one, delivered at least once.

use auricle_core::{EffectState, Epoch, ProcessId};

use super::{Ground, LEASE, at, completion};
use crate::store::{Effect, EffectOutcome, StoreError};

async fn take(ground: &Ground, process: &str, secs: i64) -> Vec<Effect> {
    ground.store.claim_effects(&process.into(), at(secs), LEASE, 10, &["notify"]).await.unwrap()
}

pub async fn effects_are_recorded_with_the_completion(ground: Ground) {
    let id = ground.completed("c1", "hello", "Greeting").await;
    let found = ground.other.effects(&id).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].key.idempotency_key(), "conversation:c1:finalization:1:notify:memory_created");
    assert_eq!((found[0].state, found[0].attempts, found[0].user.as_str()), (EffectState::Pending, 0, "ann"));
    assert_eq!(ground.store.job_counts(at(10)).await.unwrap().effects_pending, 1);
}

pub async fn d09_an_effect_is_held_by_one_deliverer(ground: Ground) {
    ground.completed("c1", "hello", "Greeting").await;
    let (p1, p2) = ("p1".into(), "p2".into());
    let (one, two) = tokio::join!(
        ground.store.claim_effects(&p1, at(10), LEASE, 10, &["notify"]),
        ground.other.claim_effects(&p2, at(10), LEASE, 10, &["notify"]),
    );
    let taken: Vec<_> = one.unwrap().into_iter().chain(two.unwrap()).collect();
    assert_eq!(taken.len(), 1);
    assert_eq!((taken[0].state, taken[0].attempts), (EffectState::Leased, 1));
    assert!(take(&ground, "p1", 24).await.is_empty());
}

pub async fn d16_an_effect_is_delivered_again_after_a_crash(ground: Ground) {
    ground.completed("c1", "hello", "Greeting").await;
    let lost = take(&ground, "p1", 10).await.remove(0);
    let again = take(&ground, "p2", 25).await.remove(0);
    assert_eq!((again.attempts, again.key), (2, lost.key));
    let late = ground.store.end_effect(&lost.id, lost.epoch, EffectOutcome::Delivered, at(26)).await;
    assert!(matches!(late, Err(StoreError::Fenced(_))));
    ground.store.end_effect(&again.id, again.epoch, EffectOutcome::Delivered, at(27)).await.unwrap();
    assert!(take(&ground, "p1", 999).await.is_empty());
}

pub async fn d10_a_key_is_recorded_once(ground: Ground) {
    let id = ground.ended("c1", "hello").await;
    let claimed = ground.claim("p1", 3).await;
    let mut done = completion(&claimed.lease, "Greeting", 4);
    let mut twin = done.effects[0].clone();
    twin.id = "twin".into();
    done.effects.push(twin);
    ground.store.complete_job(done.clone()).await.unwrap();
    ground.store.complete_job(done).await.unwrap();
    assert_eq!(ground.store.effects(&id).await.unwrap().len(), 1);
}

pub async fn retries_wait_for_their_time(ground: Ground) {
    let id = ground.completed("c1", "hello", "Greeting").await;
    let taken = take(&ground, "p1", 10).await.remove(0);
    let retry = EffectOutcome::Retry { at: at(40), error: "502".into() };
    for _ in 0..2 {
        ground.store.end_effect(&taken.id, taken.epoch, retry.clone(), at(11)).await.unwrap();
    }
    assert!(take(&ground, "p1", 39).await.is_empty());
    let found = ground.store.effects(&id).await.unwrap().remove(0);
    assert_eq!((found.state, found.run_at), (EffectState::Pending, at(40)));
    assert_eq!(found.last_error.as_deref(), Some("502"));
    assert_eq!(take(&ground, "p1", 40).await.len(), 1);
}

pub async fn ended_effects_stay_ended(ground: Ground) {
    for (id, outcome, state) in [
        ("c1", EffectOutcome::Skipped, EffectState::Skipped),
        ("c2", EffectOutcome::Failed { error: "410".into() }, EffectState::Failed),
    ] {
        let conversation = ground.completed(id, "hello", id).await;
        let taken = take(&ground, "p1", 10).await.remove(0);
        for _ in 0..2 {
            ground.store.end_effect(&taken.id, taken.epoch, outcome.clone(), at(11)).await.unwrap();
        }
        let stale = ground.store.end_effect(&taken.id, Epoch(0), EffectOutcome::Delivered, at(12)).await;
        assert!(matches!(stale, Err(StoreError::Fenced(_))));
        assert_eq!(ground.store.effects(&conversation).await.unwrap()[0].state, state);
        assert!(take(&ground, "p1", 9_999).await.is_empty());
    }
    assert_eq!(ground.store.job_counts(at(20)).await.unwrap().effects_failed, 1);
    let none = ground.store.end_effect(&"none".into(), Epoch(1), EffectOutcome::Delivered, at(1)).await;
    assert!(matches!(none, Err(StoreError::NotFound(_))));
}

pub async fn attempts_end_some_time(ground: Ground) {
    let id = ground.completed("c1", "hello", "Greeting").await;
    let mut attempts = 0;
    for round in 0..100 {
        attempts += take(&ground, "p1", 10 + round * 15).await.len();
    }
    assert!((1..100).contains(&attempts), "{attempts}");
    assert_eq!(ground.store.effects(&id).await.unwrap()[0].state, EffectState::Failed);
}

pub async fn effects_are_claimed_by_kind(ground: Ground) {
    ground.completed("c1", "hello", "Title").await;
    let p1 = ProcessId::from("p1");
    let claim = |kinds: &'static [&'static str]| ground.store.claim_effects(&p1, at(10), LEASE, 10, kinds);
    assert!(claim(&["webhook", "notif", "memory_created"]).await.unwrap().is_empty());
    assert_eq!(claim(&["webhook", "notify"]).await.unwrap().len(), 1);
}

pub async fn a_postponed_delivery_waits_and_is_not_counted(ground: Ground) {
    let id = ground.completed("c1", "hello", "Greeting").await;
    for (round, since) in [(1, 10), (2, 40)] {
        let taken = take(&ground, "p1", since).await.remove(0);
        assert_eq!((taken.attempts, taken.postponed), (1, round - 1));
        let away = EffectOutcome::Postponed { at: at(since + 30), error: "away".into() };
        for _ in 0..2 {
            ground.store.end_effect(&taken.id, taken.epoch, away.clone(), at(since + 1)).await.unwrap();
        }
        assert!(take(&ground, "p1", since + 29).await.is_empty());
        let found = ground.store.effects(&id).await.unwrap().remove(0);
        assert_eq!((found.state, found.attempts), (EffectState::Pending, 0));
        assert_eq!((found.postponed, found.away_since), (round, Some(at(11))), "since the first");
        assert_eq!(found.last_error.as_deref(), Some("away"));
    }
    let taken = take(&ground, "p1", 70).await.remove(0);
    let retry = EffectOutcome::Retry { at: at(80), error: "odd".into() };
    ground.store.end_effect(&taken.id, taken.epoch, retry, at(71)).await.unwrap();
    let found = ground.store.effects(&id).await.unwrap().remove(0);
    assert_eq!((found.attempts, found.postponed, found.away_since), (1, 0, None), "who answers is back");
}

pub async fn failed_effects_are_revived_under_their_keys(ground: Ground) {
    let mut keys = Vec::new();
    for id in ["c1", "c2"] {
        ground.completed(id, "hello", id).await;
        let taken = take(&ground, "p1", 10).await.remove(0);
        let failed = EffectOutcome::Failed { error: "410".into() };
        ground.store.end_effect(&taken.id, taken.epoch, failed, at(11)).await.unwrap();
        keys.push(taken.key);
    }
    assert_eq!(ground.store.retry_failed_effects(Some(&"eve".into()), at(20), 10).await.unwrap(), 0);
    assert_eq!(ground.store.retry_failed_effects(Some(&"ann".into()), at(20), 1).await.unwrap(), 1);
    assert_eq!(ground.store.retry_failed_effects(None, at(20), 10).await.unwrap(), 1);
    assert_eq!(ground.store.retry_failed_effects(None, at(20), 10).await.unwrap(), 0);
    let again = take(&ground, "p1", 20).await;
    assert_eq!(again.iter().map(|effect| effect.attempts).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(again.into_iter().map(|effect| effect.key).collect::<Vec<_>>(), keys);
}
