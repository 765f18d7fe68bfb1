//! A language model and a receiver of webhooks, behind the whole server.

use std::sync::Arc;
use std::time::Duration;

use auricle_server::config::Shape;
use auricle_testkit::{EmbeddingsMode, EmbeddingsStandIn, LlmMode, LlmStandIn, SinkMode, WebhookSink};
use auricle_wire::event::Event;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::rig::{Device, PATIENCE, Rig, eventually};

/// Says the script's first sentence and ends the conversation; its id.
async fn said(rig: &Rig) -> String {
    let mut device = rig.device().await;
    device.speak(2.5).await;
    device.texts_up_to("report").await;
    let id = device.conversation().await;
    let (status, _) = rig.post("/v1/conversations").await;
    assert_eq!(status, 200);
    device.client.close().await;
    id
}

async fn delivered(sink: &WebhookSink, id: &str) {
    tokio::time::timeout(PATIENCE, sink.arrived(1)).await.unwrap();
    let deliveries = sink.deliveries();
    assert_eq!(deliveries.len(), 1, "once");
    assert_eq!(deliveries[0].query, "uid=local");
    let key = format!("conversation:{id}:finalization:1:webhook:memory_created");
    assert_eq!(deliveries[0].key.as_deref(), Some(key.as_str()));
    let body: Value = serde_json::from_slice(&deliveries[0].body).unwrap();
    assert_eq!((body["id"].as_str(), body["status"].as_str()), (Some(id), Some("completed")));
    assert_eq!(body["provenance"]["provider"], "llm");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_made_by_the_model_and_told_to_device_and_webhook() {
    let (llm, sink) = (LlmStandIn::start().await.unwrap(), WebhookSink::start().await.unwrap());
    let settings = [
        ("llm.url", llm.url()),
        ("llm.model", "m1".into()),
        ("llm.key", "sk-very-secret".into()),
        ("webhooks.conversation", format!("{}/hook", sink.url())),
    ];
    let settings = settings.each_ref().map(|(key, value)| (*key, value.as_str()));
    let rig = Rig::start(&settings).await;
    let mut device = rig.device().await;
    device.speak(2.5).await;
    device.texts_up_to("report").await;
    let id = device.conversation().await;
    assert_eq!(rig.post("/v1/conversations").await.0, 200);
    device.event("memory_created", |event| matches!(event, Event::MemoryCreated { .. })).await;
    let record = rig.conversation_when(&id, "completed").await;
    assert_eq!(record["structured"]["title"], "Please send the report before Friday.");
    assert_eq!(record["provenance"]["version"], "m1/prompt-1");
    delivered(&sink, &id).await;
    assert_eq!(llm.calls_for(&id), 1);
    let (_, ready) = rig.probe("/readyz").await;
    assert_eq!(ready["dependencies"]["llm"]["breaker"], "closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_model_that_hangs_keeps_nobody_from_talking() {
    let llm = LlmStandIn::start().await.unwrap();
    llm.set(LlmMode::Hang(Duration::from_secs(600)));
    let url = llm.url();
    let mut rig = Rig::start(&[("llm.url", &url), ("limits.record_wait", "100ms")]).await;
    let id = said(&rig).await;
    tokio::time::timeout(PATIENCE, llm.called(1)).await.unwrap();
    rig.still_serves().await;
    assert_eq!(rig.probe("/livez").await.0, 200);
    // The drain gives the job back; the next process makes the record.
    llm.set(LlmMode::Answer);
    rig.restart().await;
    rig.conversation_when(&id, "completed").await;
    assert_eq!(llm.calls_for(&id), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pusher_asks_the_model_and_tells_the_webhook() {
    let (llm, sink) = (LlmStandIn::start().await.unwrap(), WebhookSink::start().await.unwrap());
    let (url, hook) = (llm.url(), sink.url());
    let dir = Arc::new(TempDir::new().unwrap());
    let settings = [("llm.url", url.as_str()), ("webhooks.conversation", hook.as_str())];
    let _pusher = Rig::start_as(Shape::Pusher, Arc::clone(&dir), &settings).await;
    let listen = Rig::start_as(Shape::Listen, dir, &[("limits.fallback_after", "10m")]).await;
    let id = said(&listen).await;
    delivered(&sink, &id).await;
    eventually("the record is there", async || {
        let record = listen.get(&format!("/v1/conversations/{id}")).await.1;
        (record["status"] == "completed").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pusher_posts_words_and_audio_while_people_speak() {
    let (words, sound) = (WebhookSink::start().await.unwrap(), WebhookSink::start().await.unwrap());
    let (words_url, sound_url) = (format!("{}/words?key=1", words.url()), sound.url());
    let dir = Arc::new(TempDir::new().unwrap());
    let settings = [("webhooks.transcript", words_url.as_str()), ("webhooks.audio", sound_url.as_str())];
    let pusher = Rig::start_as(Shape::Pusher, Arc::clone(&dir), &settings).await;
    let url = format!("http://{}", pusher.public());
    let listening =
        [("pusher.url", url.as_str()), ("pusher.audio", "true"), ("limits.link_flush_every", "50ms")];
    let listen = Rig::start_as(Shape::Listen, dir, &listening).await;
    let mut device = listen.device().await;
    device.speak(6.0).await;
    device.texts_up_to("report").await;
    tokio::time::timeout(PATIENCE, words.arrived(1)).await.unwrap();
    tokio::time::timeout(PATIENCE, sound.arrived(1)).await.unwrap();
    let posted = &words.deliveries()[0];
    assert_eq!((posted.path.as_str(), posted.query.as_str()), ("/words", "key=1&uid=local"));
    let body: Value = serde_json::from_slice(&posted.body).unwrap();
    assert_eq!(body["session_id"], "local");
    assert!(body["segments"][0]["text"].as_str().unwrap().contains("report"), "{body}");
    assert_eq!(sound.deliveries()[0].query, "sample_rate=16000&uid=local");
    assert_eq!(sound.deliveries()[0].headers["content-type"], "application/octet-stream");
}

/// A device of a kind of its own that has said something; its conversation's id.
async fn spoken(rig: &Rig, source: &str) -> (Device, String) {
    let mut device = rig.device_as(rig.connect().param("source", source)).await;
    device.speak(2.5).await;
    device.texts_up_to("report").await;
    let id = device.conversation().await;
    (device, id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_those_who_wait_for_a_record_leave_room_for_others() {
    let llm = LlmStandIn::start().await.unwrap();
    llm.set(LlmMode::Hang(Duration::from_secs(600)));
    let url = llm.url();
    let rig = Arc::new(
        Rig::start(&[
            ("llm.url", &url),
            ("limits.requests_running_max", "2"),
            ("limits.records_awaited_max", "1"),
        ])
        .await,
    );
    let (_first, first_id) = spoken(&rig, "phone").await;
    let (_second, second_id) = spoken(&rig, "desktop").await;
    let path = |id: &str| format!("/v1/conversations?conversation_id={id}");
    let waiting = tokio::spawn({
        let (rig, path) = (Arc::clone(&rig), path(&first_id));
        async move { rig.post(&path).await }
    });
    rig.conversation_when(&first_id, "processing").await;
    let begun = tokio::time::Instant::now();
    let (status, answer) = rig.post(&path(&second_id)).await;
    assert!(begun.elapsed() < PATIENCE / 2, "it did not wait for `limits.record_wait`");
    assert_eq!(status, 200);
    assert!(
        ["in_progress", "processing"].contains(&answer["memory"]["status"].as_str().unwrap()),
        "{answer}"
    );
    rig.conversation_when(&second_id, "processing").await;
    assert!(!waiting.is_finished(), "the first waits on");
    waiting.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_client_that_leaves_frees_its_requests_place() {
    let llm = LlmStandIn::start().await.unwrap();
    llm.set(LlmMode::Hang(Duration::from_secs(600)));
    let url = llm.url();
    let rig = Arc::new(
        Rig::start(&[
            ("llm.url", &url),
            ("limits.requests_running_max", "1"),
            ("limits.record_wait", "10m"),
            ("limits.request_max", "20m"),
        ])
        .await,
    );
    let (_device, id) = spoken(&rig, "phone").await;
    let waiting = tokio::spawn({
        let (rig, path) = (Arc::clone(&rig), format!("/v1/conversations?conversation_id={id}"));
        async move { rig.post(&path).await }
    });
    tokio::time::timeout(PATIENCE, llm.called(1)).await.unwrap();
    assert_eq!(rig.get("/v1/conversations").await.0, 503, "its place is the only one");
    waiting.abort();
    eventually("the place is free", async || (rig.get("/v1/conversations").await.0 == 200).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_is_found_by_meaning_once_the_embedding_server_is_there() {
    let server = EmbeddingsStandIn::start().await.unwrap();
    server.set(EmbeddingsMode::Hang(Duration::from_secs(600)));
    let url = server.url();
    let settings = [("embeddings.url", url.as_str()), ("limits.search_meaning_wait", "100ms")];
    let mut rig = Rig::start(&settings).await;
    let id = said(&rig).await;
    // No record waits for it, no session, no search.
    rig.conversation_when(&id, "completed").await;
    tokio::time::timeout(PATIENCE, server.called(1)).await.unwrap();
    rig.still_serves().await;
    let found = rig.get("/v1/search?query=report").await.1;
    assert_eq!(
        (found["meaning"].as_str(), found["results"][0]["conversation"]["id"].as_str()),
        (Some("away"), Some(id.as_str()))
    );
    // The drain gives its work back; the next process embeds it.
    server.set(EmbeddingsMode::Answer);
    rig.restart().await;
    eventually("it is found by meaning", async || {
        let found = rig.get("/v1/search?query=some%20report%20of%20mine").await.1;
        let hit = &found["results"][0];
        (hit["conversation"]["id"] == id.as_str() && hit["matched"] == serde_json::json!(["meaning"]))
            .then_some(())
    })
    .await;
    let (_, ready) = rig.probe("/readyz").await;
    assert_eq!(ready["dependencies"]["embeddings"]["breaker"], "closed");
    assert!(rig.metrics().await.contains("auricle_embeddings{state=\"pending\"}"));
}

/// A webhook or app of the local user; its id.
async fn added(rig: &Rig, url: &str, kind: &str, trigger: &str) -> String {
    let new = json!({ "url": url, "kind": kind, "triggers": [trigger], "audio_seconds": 1, "name": "mine" });
    let (status, made) = rig.call(Method::POST, "/v1/webhooks", new).await;
    assert_eq!(status, 201, "{made}");
    made["id"].as_str().unwrap().to_owned()
}

async fn set(rig: &Rig, id: &str, state: &str) {
    let (status, _) = rig.call(Method::PATCH, &format!("/v1/webhooks/{id}"), json!({ "state": state })).await;
    assert_eq!(status, 200);
}

const INSIDE: (&str, &str) = ("webhooks.allow_private", "true");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_and_audio_reach_the_operator_and_the_user_without_a_pusher() {
    let sinks = [
        WebhookSink::start().await.unwrap(),
        WebhookSink::start().await.unwrap(),
        WebhookSink::start().await.unwrap(),
    ];
    let operators = [INSIDE, ("webhooks.transcript", &sinks[0].url())];
    let rig = Rig::start(&operators).await;
    added(&rig, &sinks[1].url(), "developer", "realtime_transcript").await;
    added(&rig, &sinks[2].url(), "app", "audio_bytes").await;
    let mut device = rig.device().await;
    device.speak(2.5).await;
    device.texts_up_to("report").await;
    for sink in &sinks {
        tokio::time::timeout(PATIENCE, sink.arrived(1)).await.unwrap();
    }
    for sink in &sinks[..2] {
        let delivery = &sink.deliveries()[0];
        let body: Value = serde_json::from_slice(&delivery.body).unwrap();
        assert!(body["segments"][0]["text"].as_str().unwrap().contains("report"), "{body}");
        assert_eq!((body["session_id"].as_str(), delivery.query.as_str()), (Some("local"), "uid=local"));
        assert_eq!(delivery.headers["x-auricle-trigger"], "realtime_transcript");
    }
    assert!(sinks[1].deliveries()[0].headers.contains_key("x-auricle-signature"));
    let audio = &sinks[2].deliveries()[0];
    assert_eq!((audio.body.len(), audio.query.as_str()), (32_000, "sample_rate=16000&uid=local"));
    eventually("it is noted", async || {
        let (_, all) = rig.get("/v1/webhooks").await;
        let noted = |webhook: &Value| webhook["delivered"].as_u64().unwrap() > 0;
        all.as_array().unwrap().iter().all(noted).then_some(())
    })
    .await;
    device.client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m07_a_webhook_that_is_added_or_paused_counts_in_a_session_that_lives() {
    let sink = WebhookSink::start().await.unwrap();
    let rig = Rig::start(&[INSIDE, ("limits.target_settings_age_max", "50ms")]).await;
    let mut device = rig.device().await;
    device.speak(0.1).await;
    let id = added(&rig, &sink.url(), "developer", "audio_bytes").await;
    // Audio goes on until somebody hears of it.
    eventually("audio arrives", async || {
        device.speak(1.0).await;
        (sink.requests() > 0).then_some(())
    })
    .await;
    set(&rig, &id, "paused").await;
    let silent = |before: usize| before == sink.requests();
    eventually("it is left alone", async || {
        let before = sink.requests();
        device.speak(2.0).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        silent(before).then_some(())
    })
    .await;
    device.client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_app_answers_to_words_or_a_record_is_told_to_the_client_and_kept() {
    let (live, records) = (WebhookSink::start().await.unwrap(), WebhookSink::start().await.unwrap());
    live.say(r#"{"message": "You said Friday."}"#);
    records.say(r#"{"message": "Noted."}"#);
    let rig = Rig::start(&[INSIDE]).await;
    added(&rig, &live.url(), "app", "realtime_transcript").await;
    added(&rig, &records.url(), "app", "memory_created").await;
    let mut device = rig.device().await;
    device.speak(2.5).await;
    let says = |wanted: &'static str| {
        move |event: &Event| match event {
            Event::AppMessage { message } => message.text == wanted,
            _ => false,
        }
    };
    let told = device.event("the app's answer", says("You said Friday.")).await;
    let Event::AppMessage { message } = told else { panic!("{told:?}") };
    assert_eq!(
        (message.sender.as_str(), message.conversation_id),
        ("mine", Some(device.conversation().await))
    );
    assert_eq!(rig.post("/v1/conversations").await.0, 200);
    device.event("the other app's", says("Noted.")).await;
    let kept = eventually("both were told", async || {
        let kept = rig.get("/v1/messages").await.1;
        let kept = kept.as_array().unwrap().clone();
        let noted = kept.iter().find(|message| message["text"] == "Noted.")?;
        (!noted["delivered_at"].is_null()).then_some(kept)
    })
    .await;
    assert!(kept.iter().any(|message| message["text"] == "You said Friday."), "{kept:?}");
    device.client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l23_a_users_receiver_that_hangs_holds_up_neither_the_session_nor_the_others() {
    let (hung, well) = (WebhookSink::start().await.unwrap(), WebhookSink::start().await.unwrap());
    hung.set(SinkMode::Hang(PATIENCE * 10));
    let rig = Rig::start(&[INSIDE]).await;
    added(&rig, &hung.url(), "developer", "audio_bytes").await;
    added(&rig, &well.url(), "developer", "audio_bytes").await;
    let mut device = rig.device().await;
    for second in 1..=4 {
        device.speak(1.0).await;
        tokio::time::timeout(PATIENCE, well.arrived(second)).await.unwrap();
    }
    assert_eq!((hung.requests(), hung.deliveries().len()), (1, 0), "one at a time, and it still hangs");
    device.texts_up_to("report").await;
    device.client.close().await;
}
