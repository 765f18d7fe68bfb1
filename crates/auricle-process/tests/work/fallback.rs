//! A model that stays away: rules stand in, say so, and are replaced.

use std::sync::Arc;
use std::time::Duration;

use auricle_core::{JobState, Limits};
use auricle_process::openai::OpenAiConfig;
use auricle_process::{Clock, OpenAi, Understand};
use auricle_testkit::{LlmMode, LlmStandIn};

use crate::rig::{PATIENCE, Receiver, Rig, until};

const SAID: &str = "I will send the quarterly report to Bo";

async fn ground() -> (Rig, LlmStandIn, Arc<dyn Understand>) {
    let limits = Limits {
        llm_call_max: Duration::from_millis(300),
        llm_breaker_failures: 1,
        llm_breaker_open_for: Duration::from_millis(50),
        drain_max: Duration::from_millis(400),
        ..Limits::default()
    };
    let mut rig = Rig::new(limits).await;
    rig.fallback_after = Some(rig.limits.llm_fallback_after);
    let llm = LlmStandIn::start().await.unwrap();
    let config = OpenAiConfig::new(llm.url(), "m1");
    let clock = Arc::clone(&rig.clock) as Arc<dyn Clock>;
    let model = OpenAi::new(&config, Arc::clone(&rig.limits), clock).unwrap();
    (rig, llm, Arc::new(model))
}

async fn version(rig: &Rig, id: &str) -> (String, String) {
    let record = rig.ground.store.conversation(&"ann".into(), &id.into()).await.unwrap().unwrap();
    let provenance = record.provenance.unwrap();
    (provenance.provider, provenance.version)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_stand_in_after_a_while_and_the_model_makes_the_record_anew() {
    let (rig, llm, model) = ground().await;
    let receiver = Arc::new(Receiver::default());
    let outbox = rig.deliver(&receiver);
    llm.set(LlmMode::Status(503));
    rig.ground.ended("c1", SAID).await;
    let worker = rig.work_with("p1", Arc::clone(&model));
    let waiting = rig.is_away("c1", 1).await;
    assert!(model.is_away());
    rig.clock.forward(rig.limits.llm_fallback_after);
    rig.go_on(&waiting);
    rig.reaches("c1", JobState::Completed).await;
    assert_eq!(version(&rig, "c1").await, ("local".into(), "1/fallback".into()));
    until("its device is told", || receiver.keys.lock().unwrap().len() == 1).await;
    rig.ground.store.rename(&"ann".into(), &"c1".into(), "Mine", rig.clock.wall()).await.unwrap();
    // The model is back, which a conversation finds that comes now.
    llm.set(LlmMode::Answer);
    rig.ground.ended("c2", SAID).await;
    rig.reaches("c2", JobState::Completed).await;
    let anew = async {
        while version(&rig, "c1").await.0 != "llm" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, anew).await.unwrap();
    let record = rig.ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    assert_eq!((record.title(), record.revision.0), ("Mine", 2), "the user's title stays");
    assert_eq!(record.structured.title, "I will send the quarterly report");
    until("all is told", || receiver.keys.lock().unwrap().len() == 2).await;
    assert_eq!(rig.ground.store.effects(&"c1".into()).await.unwrap().len(), 1, "once, for the first record");
    assert_eq!(rig.ground.store.stand_ins(10).await.unwrap(), []);
    worker.stop().await;
    outbox.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_the_model_cannot_make_anew_stays_as_it_is() {
    let (rig, llm, model) = ground().await;
    llm.set(LlmMode::Status(503));
    // The model is back some day, and makes no sense of this one.
    llm.script("c1", serde_json::json!({ "title": "" }));
    rig.ground.ended("c1", SAID).await;
    let worker = rig.work_with("p1", model);
    let waiting = rig.is_away("c1", 1).await;
    rig.clock.forward(rig.limits.llm_fallback_after);
    rig.go_on(&waiting);
    rig.reaches("c1", JobState::Completed).await;
    llm.set(LlmMode::Answer);
    rig.ground.ended("c2", SAID).await;
    rig.reaches("c2", JobState::Completed).await;
    let given_up = async {
        loop {
            let jobs = rig.ground.store.jobs(None, None, 10).await.unwrap();
            let again = jobs.iter().find(|job| job.conversation == "c1".into() && job.revision.0 == 2);
            match again.map(|job| job.state) {
                Some(JobState::Completed) => break,
                Some(JobState::Queued) => rig.go_on(again.unwrap()),
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, given_up).await.unwrap();
    assert_eq!(version(&rig, "c1").await, ("local".into(), "1".into()), "and is not tried for ever");
    assert_eq!(rig.ground.store.stand_ins(10).await.unwrap(), []);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stands_in_before_its_time_or_unless_it_may() {
    let (mut rig, llm, model) = ground().await;
    llm.set(LlmMode::Status(503));
    rig.ground.ended("c1", SAID).await;
    let worker = rig.work_with("p1", Arc::clone(&model));
    let first = rig.is_away("c1", 1).await;
    rig.clock.forward(rig.limits.llm_fallback_after - Duration::from_secs(1));
    rig.go_on(&first);
    rig.is_away("c1", 2).await;
    worker.stop().await;
    rig.fallback_after = None;
    rig.clock.forward(rig.limits.llm_fallback_after * 2);
    let patient = rig.work_with("p1", model);
    rig.is_away("c1", 3).await;
    llm.set(LlmMode::Answer);
    rig.reaches("c1", JobState::Completed).await;
    assert_eq!(version(&rig, "c1").await, ("llm".into(), "m1/prompt-1".into()));
    patient.stop().await;
}
