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
                rig.clock.forward_to(effect.run_at);
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
