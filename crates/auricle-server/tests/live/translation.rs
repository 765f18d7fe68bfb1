//! Translations while people speak, and that they are in nobody's way.

use std::time::Duration;

use auricle_testkit::{LlmMode, LlmStandIn};
use auricle_wire::conversation::Segment;
use auricle_wire::event::Event;
use reqwest::Method;
use serde_json::json;

use crate::rig::{Device, Rig, eventually, texts};

async fn rig(llm: &LlmStandIn, more: &[(&str, &str)]) -> Rig {
    let url = llm.url();
    let mut settings = vec![("llm.url", url.as_str()), ("limits.translation_quiet", "50ms")];
    settings.extend_from_slice(more);
    Rig::start(&settings).await
}

async fn device(rig: &Rig, language: &str) -> Device {
    rig.device_as(rig.connect().param("language", language)).await
}

/// Waits for a translation of the segments that hold `word`.
async fn translated(device: &mut Device, word: &str) -> Vec<Segment> {
    let holds = |event: &Event| match event {
        Event::Translating { segments } => texts(segments).contains(word),
        _ => false,
    };
    match device.event("translating", holds).await {
        Event::Translating { segments } => segments,
        other => panic!("{other:?}"),
    }
}

/// How often a line of metrics was counted so far.
async fn count(rig: &Rig, line: &str) -> u64 {
    let metrics = rig.metrics().await;
    let found = metrics.lines().find_map(|known| known.strip_prefix(line));
    found.map_or(0, |number| number.trim().parse().unwrap())
}

async fn counted_beyond(rig: &Rig, line: &str, before: u64) {
    eventually(line, async || (count(rig, line).await > before).then_some(())).await;
}

fn nothing_translated(device: &Device) -> bool {
    let is_translation = |event: &Event| matches!(event, Event::Translating { .. });
    device.shown().iter().all(|segment| segment.translations.is_empty())
        && !device.seen.iter().any(|received| received.event().is_some_and(is_translation))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_is_translated_stored_and_then_shown() {
    let llm = LlmStandIn::start().await.unwrap();
    let rig = rig(&llm, &[("translation.when", "always")]).await;
    let mut device = device(&rig, "es").await;
    device.speak(2.5).await;
    device.texts_up_to("report").await;
    let shown = translated(&mut device, "report").await;
    assert_eq!(shown[0].translations[0].lang, "es");
    assert!(shown[0].translations[0].text.starts_with("es Please send the report"), "{shown:?}");
    let id = device.conversation().await;
    let (_, record) = rig.get(&format!("/v1/conversations/{id}")).await;
    let stored = &record["transcript_segments"][0];
    assert_eq!(stored["translations"][0]["text"], json!(shown[0].translations[0].text));
    assert_eq!(stored["id"], json!(shown[0].id));
    // The next one brings it along as it is, and asks for itself alone.
    device.speak(2.0).await;
    device.texts_up_to("tomorrow").await;
    assert_eq!(device.shown()[0], shown[0]);
    assert!(!texts(&translated(&mut device, "tomorrow").await).contains("report"));
    assert_eq!(llm.calls(), 2);
    let (_, record) = rig.get(&format!("/v1/conversations/{id}")).await;
    for (at, word) in ["es Please send", "es I will send"].into_iter().enumerate() {
        let text = record["transcript_segments"][at]["translations"][0]["text"].as_str().unwrap();
        assert!(text.starts_with(word), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_more_than_one_language_the_readers_own_is_the_target_from_when_they_say_it() {
    let llm = LlmStandIn::start().await.unwrap();
    let settings = [("translation.when", "multi"), ("limits.translation_pause_max", "50ms")];
    let rig = rig(&llm, &settings).await;
    let mut named = rig.device_as(rig.connect().param("language", "es").param("source", "phone")).await;
    named.speak(2.5).await;
    named.texts_up_to("report").await;
    let mut reader = device(&rig, "auto").await;
    reader.speak(2.5).await;
    reader.texts_up_to("report").await;
    counted_beyond(&rig, "auricle_translation_drops_total{reason=\"no_language\"}", 0).await;
    assert_eq!(llm.calls(), 0, "neither without a language nor of one language");
    let (status, _) = rig.call(Method::PUT, "/v1/users/me/language", json!({ "language": "de" })).await;
    assert_eq!(status, 200);
    assert_eq!(rig.get("/v1/users/me").await.1["language"], "de");
    reader.speak(2.0).await;
    assert_eq!(translated(&mut reader, "tomorrow").await[0].translations[0].lang, "de");
    assert!(nothing_translated(&named));
    let (status, _) =
        rig.call(Method::PUT, "/v1/users/me/language", json!({ "language": "spoken words" })).await;
    assert_eq!(status, 422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_model_that_hangs_or_is_mad_costs_translations_and_no_word() {
    let llm = LlmStandIn::start().await.unwrap();
    let settings = [
        ("translation.when", "always"),
        ("limits.translation_call_max", "300ms"),
        ("limits.translation_pause_max", "1ms"),
        ("limits.llm_breaker_failures", "1000"),
    ];
    let rig = rig(&llm, &settings).await;
    for (mode, outcome, source) in [
        (LlmMode::Hang(Duration::from_secs(600)), "late", "omi"),
        (LlmMode::Garbage, "senseless", "friend"),
        (LlmMode::Prose, "senseless", "phone"),
        (LlmMode::Status(500), "away", "desktop"),
    ] {
        llm.set(mode);
        let outcome = format!("auricle_translation_calls_total{{outcome=\"{outcome}\"}}");
        let failed = "auricle_translation_drops_total{reason=\"failed\"}";
        let before = (count(&rig, &outcome).await, count(&rig, failed).await);
        let mut device = rig.device_as(rig.connect().param("language", "es").param("source", source)).await;
        device.speak(2.5).await;
        device.texts_up_to("report").await;
        counted_beyond(&rig, &outcome, before.0).await;
        counted_beyond(&rig, failed, before.1).await;
        // The words go on meanwhile, and so do translations once it is well again.
        device.speak(2.0).await;
        device.texts_up_to("tomorrow").await;
        assert!(nothing_translated(&device), "{mode:?}");
        llm.set(LlmMode::Answer);
        device.speak(5.0).await;
        device.texts_up_to("meet").await;
        translated(&mut device, "meet").await;
        device.client.close().await;
    }
    rig.still_serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_translation_is_sealed_at_rest_and_goes_with_its_user() {
    let llm = LlmStandIn::start().await.unwrap();
    let key = "5a".repeat(32);
    let rig = rig(&llm, &[("translation.when", "always"), ("protection.key", key.as_str())]).await;
    let mut device = device(&rig, "es").await;
    device.speak(2.5).await;
    translated(&mut device, "report").await;
    let id = device.conversation().await;
    let (_, record) = rig.get(&format!("/v1/conversations/{id}")).await;
    let text = record["transcript_segments"][0]["translations"][0]["text"].as_str().unwrap().to_owned();
    for file in std::fs::read_dir(rig.data()).unwrap().map(|file| file.unwrap().path()) {
        // Its folders hold audio.
        let Ok(bytes) = std::fs::read(&file) else { continue };
        let found = bytes.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(!found, "{}", file.display());
    }
    device.client.close().await;
    assert!(rig.delete("/v1/users/me?confirm=local").await < 300);
    eventually("it is gone", async || {
        (rig.get(&format!("/v1/conversations/{id}")).await.0 == 404).then_some(())
    })
    .await;
}
