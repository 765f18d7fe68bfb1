//! A store without room: nothing is acknowledged that is not stored, and all of it is once there is room again.

use auricle_wire::event::Event;
use serde_json::json;

use crate::rig::{Rig, eventually, texts_of};

#[tokio::test]
async fn a_full_store_tells_sessions_turns_readiness_keeps_words_and_recovers_by_itself() {
    let rig = Rig::start(&[("limits.store_bytes_max", "1MiB"), ("limits.store_retry_every", "100ms")]).await;
    let stt = |source: &str| rig.connect().param("custom_stt", "enabled").param("source", source);
    let words = |text: &str, start: f64| {
        json!({"type": "suggested_transcript", "segments": [
            {"text": text, "speaker": "SPEAKER_00", "start": start, "end": start + 1.0}]})
        .to_string()
    };
    // One device fills the store until it is told that there is no room.
    let mut glutton = rig.device_as(stt("desktop")).await;
    let glut = glutton.conversation().await;
    let long = "filling words ".repeat(1_300);
    for index in 0..60 {
        assert!(glutton.client.send_text(words(&format!("{long}{index}."), f64::from(index) * 10.0)).await);
    }
    glutton.event("storage_degraded", |event| *event == Event::StorageDegraded).await;
    eventually("not ready", async || (rig.probe("/readyz").await.0 == 503).then_some(())).await;
    assert_eq!(rig.probe("/livez").await.0, 200);
    // What it shows is stored; the rest waits with the session.
    let shown = auricle_testkit::Received::segments;
    let shown: usize = glutton.seen.iter().map(|received| shown(received).len()).sum();
    assert!(shown < 60, "{shown} of 60 were acknowledged by a store without room for them");
    // Room is made.
    glutton.client.close().await;
    assert_eq!(rig.delete(&format!("/v1/conversations/{glut}")).await, 204);
    eventually("ready", async || (rig.probe("/readyz").await.0 == 200).then_some(())).await;
    let mut device = rig.device_as(stt("phone")).await;
    let id = device.conversation().await;
    assert!(device.client.send_text(words("There is room again.", 0.0)).await);
    device.texts_up_to("room").await;
    let (_, stored) = rig.get(&format!("/v1/conversations/{id}")).await;
    assert_eq!(texts_of(&stored), "There is room again.");
}
