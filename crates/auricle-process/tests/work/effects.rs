//! What becomes of deliveries.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use auricle_core::{EffectState, Limits};
use auricle_process::Delivery;
use auricle_store::Effect;

use crate::rig::{Receiver, Rig, until};

async fn effect(rig: &Rig) -> Effect {
    rig.ground.store.effects(&"c1".into()).await.unwrap().remove(0)
}

async fn ends(rig: &Rig, state: EffectState) -> Effect {
    let ended = async {
        loop {
            let effect = effect(rig).await;
            if effect.state == state {
                return effect;
            }
            if effect.state == EffectState::Pending {
                rig.go_to(effect.run_at);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::rig::PATIENCE, ended).await.unwrap()
}

fn receiver(answers: impl IntoIterator<Item = Delivery>) -> Arc<Receiver> {
    Arc::new(Receiver { answers: Mutex::new(answers.into_iter().collect()), ..Receiver::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d16_an_effect_is_tried_until_it_is_taken_and_always_under_one_key() {
    let rig = Rig::new(Limits::default()).await;
    rig.ground.completed("c1", "hello", "Title").await;
    let receiver = receiver([Delivery::Retry("503".into()), Delivery::Retry("timeout".into())]);
    let outbox = rig.deliver(&receiver);
    ends(&rig, EffectState::Delivered).await;
    outbox.stop().await;
    let keys = receiver.keys.lock().unwrap().clone();
    assert_eq!(keys, vec!["conversation:c1:finalization:1:notify:memory_created"; 3]);
    // And not once more, however long the clock goes on.
    rig.clock.forward(Duration::from_secs(86_400));
    let outbox = rig.deliver(&receiver);
    rig.ground.ended("c2", "more").await;
    outbox.stop().await;
    assert_eq!(receiver.keys.lock().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_that_is_never_taken_fails_visibly() {
    let rig = Rig::new(Limits { effect_attempts_max: 4, ..Limits::default() }).await;
    rig.ground.completed("c1", "hello", "Title").await;
    let receiver = receiver((0..20).map(|_| Delivery::Retry("503".into())));
    let outbox = rig.deliver(&receiver);
    let failed = ends(&rig, EffectState::Failed).await;
    outbox.stop().await;
    assert_eq!(receiver.keys.lock().unwrap().len(), 4);
    assert!(failed.last_error.unwrap().contains("503; gave up after 4 attempts"));
}

fn away(after: u64) -> Delivery {
    Delivery::Away { reason: "503".into(), after: Duration::from_secs(after) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l12_a_receiver_that_is_away_for_hours_loses_nothing() {
    let rig = Rig::new(Limits::default()).await;
    rig.ground.completed("c1", "hello", "Title").await;
    let receiver = receiver((0..30).map(|_| away(0)));
    let begun = auricle_process::Clock::wall(&*rig.clock);
    let outbox = rig.deliver(&receiver);
    let delivered = ends(&rig, EffectState::Delivered).await;
    outbox.stop().await;
    assert_eq!((delivered.attempts, receiver.keys.lock().unwrap().len()), (1, 31));
    let waited = delivered.run_at.saturating_since(begun);
    assert!(waited > Duration::from_secs(6 * 3_600), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_never_comes_back_is_given_up_and_its_effects_can_be_revived() {
    let rig = Rig::new(Limits { effect_age_max: Duration::from_secs(3_600), ..Limits::default() }).await;
    rig.ground.completed("c1", "hello", "Title").await;
    let receiver = receiver((0..60).map(|_| away(600)));
    let outbox = rig.deliver(&receiver);
    let failed = ends(&rig, EffectState::Failed).await;
    let error = failed.last_error.unwrap();
    assert!(error.contains("503; waited for") && error.contains("limits.effect_age_max"), "{error}");
    receiver.answers.lock().unwrap().clear();
    let now = auricle_process::Clock::wall(&*rig.clock);
    assert_eq!(rig.ground.store.retry_failed_effects(None, now, 10).await.unwrap(), 1);
    ends(&rig, EffectState::Delivered).await;
    outbox.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d09_two_outboxes_deliver_once() {
    let rig = Rig::new(Limits::default()).await;
    rig.ground.completed("c1", "hello", "Title").await;
    let receiver = receiver([]);
    let (one, two) = (rig.deliver(&receiver), rig.deliver(&receiver));
    ends(&rig, EffectState::Delivered).await;
    until("both looked", || !receiver.keys.lock().unwrap().is_empty()).await;
    one.stop().await;
    two.stop().await;
    assert_eq!(receiver.keys.lock().unwrap().len(), 1);
}
