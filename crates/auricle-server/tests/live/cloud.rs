//! Words of a speech service, over its real protocol, up to the client.

use std::path::Path;
use std::time::Duration;

use auricle_testkit::{SpeechScript, SpeechStandIn};
use auricle_wire::event::Event;

use crate::rig::{Device, PATIENCE, Rig, eventually, texts_of};

fn session(engine: &str, name: &str) -> SpeechScript {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/speech");
    SpeechScript::read(&fixtures.join(engine).join(format!("{name}.jsonl"))).unwrap()
}

/// A word every second of audio, from 0.2 s on.
const WORDS: SpeechScript = SpeechScript::Words { every_secs: 1.0, first_secs: 0.2, word_secs: 0.5 };

async fn start(engine: &str, script: SpeechScript, settings: &[(&str, &str)]) -> (SpeechStandIn, Rig) {
    let service = SpeechStandIn::start(script).await.unwrap();
    let (url, key) = (format!("speech.{engine}_url"), format!("speech.{engine}_key"));
    let address = service.url();
    // The tests' audio is no speech: the gate would keep it from the service.
    let gate = ("speech.gate", "off");
    let mut all = vec![("speech.engine", engine), gate, (&url, &address), (&key, "secret-key-1")];
    all.extend(settings);
    let rig = Rig::start(&all).await;
    (service, rig)
}

/// What the client is told of the engine's trouble.
async fn trouble(device: &mut Device) -> String {
    format!("{:?}", device.event("trouble", |event| matches!(event, Event::SttDegraded { .. })).await)
}

#[tokio::test]
async fn two_people_are_heard_with_their_times() {
    for engine in ["deepgram", "soniox", "speechmatics"] {
        let (service, rig) = start(engine, session(engine, "success"), &[]).await;
        let mut device = rig.device().await;
        device.speak(5.0).await;
        device.texts_up_to("report").await;
        if engine == "deepgram" {
            device.texts_up_to("tomorrow").await;
        }
        let id = device.conversation().await;
        drop(device);
        // The rest is said when the stream is finished.
        let wanted = "Please send the report. I will tomorrow.";
        eventually("both sentences", async || {
            let (_, stored) = rig.get(&format!("/v1/conversations/{id}")).await;
            (texts_of(&stored) == wanted).then_some(stored)
        })
        .await;
        let (_, stored) = rig.get(&format!("/v1/conversations/{id}")).await;
        let people: Vec<_> = stored["transcript_segments"]
            .as_array()
            .unwrap()
            .iter()
            .map(|segment| {
                let time = |name: &str| segment[name].as_f64().unwrap();
                (segment["speaker"].as_str().unwrap().to_owned(), time("start"), time("end"))
            })
            .collect();
        let wanted = [("SPEAKER_0".to_owned(), 0.0, 1.2), ("SPEAKER_1".to_owned(), 1.8, 2.8)];
        for ((speaker, start, end), (other, from, until)) in people.iter().zip(&wanted) {
            let near = (start - from).abs() < 1e-6 && (end - until).abs() < 1e-6;
            assert!(speaker == other && near, "{engine}: {people:?}");
        }
        assert_eq!(service.sessions().len(), 1, "{engine}");
        assert!(!rig.metrics().await.contains("secret-key-1"));
    }
}

#[tokio::test]
async fn each_channel_has_a_stream_of_its_own() {
    let (service, rig) = start("deepgram", WORDS, &[]).await;
    let connect = rig.connect().param("channels", 2).param("source", "phone_call");
    let mut device = rig.device_as(connect).await;
    for _ in 0..100 {
        for channel in [1, 2] {
            let mut frame = vec![channel];
            frame.extend([1_u8; 640]);
            assert!(device.client.send_audio(frame).await);
        }
    }
    let sessions =
        service.when(|sessions| sessions.len() == 2 && sessions.iter().all(|s| s.audio_bytes > 32_000)).await;
    assert!(sessions.iter().all(|session| session.target.contains("sample_rate=16000")));
    device.until("both people", |received| received.segments().iter().any(|segment| !segment.is_user)).await;
}

#[tokio::test]
async fn a_refused_key_or_an_account_without_credit_is_told_and_ends_no_session() {
    for (name, said) in [
        ("auth_error", "deepgram refused the key (401 INVALID_AUTH)"),
        ("rate_limit", "deepgram is asked too much by this account (429 TOO_MANY_REQUESTS)"),
        ("server_error", "deepgram is in trouble (503 SERVICE_UNAVAILABLE)"),
    ] {
        // Else it is asked again after minutes, or once its audio fits into memory no more.
        let settings = [
            ("limits.engine_reopen_first", "100ms"),
            ("limits.engine_reopen_max", "100ms"),
            ("limits.speech_refused_for", "200ms"),
            ("limits.speech_limited_for", "200ms"),
            // What a session that leaves still hears is not looked at here.
            ("limits.drain_max", "100ms"),
        ];
        let (service, rig) = start("deepgram", session("deepgram", name), &settings).await;
        let mut device = rig.device().await;
        device.speak(2.0).await;
        let told = trouble(&mut device).await;
        assert!(told.contains(said) && !told.contains("secret-key-1"), "{told}");
        // It comes back, and the same session is heard.
        service.set(WORDS);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while device.shown().is_empty() {
            assert!(tokio::time::Instant::now() < deadline, "never heard again");
            device.speak(0.5).await;
            let (received, _) = device.client.until(Duration::from_millis(100), |_| false).await;
            device.seen.extend(received);
        }
    }
}

#[tokio::test]
async fn a_black_hole_costs_its_session_words_and_nobody_anything_else() {
    let settings = [("limits.engine_connect_max", "200ms"), ("limits.engine_backlog_secs_max", "30")];
    let (_service, rig) = start("deepgram", SpeechScript::BlackHole, &settings).await;
    let mut device = rig.device().await;
    device.speak(3.0).await;
    assert!(trouble(&mut device).await.contains("did not answer the connection within 200ms"));
    assert_eq!(rig.probe("/livez").await.0, 200);
    assert_eq!(rig.probe("/readyz").await.0, 200);
    // The session lives: it still takes audio, and its conversation is there.
    device.speak(1.0).await;
    let id = device.conversation().await;
    assert_eq!(rig.get(&format!("/v1/conversations/{id}")).await.0, 200);
}

#[tokio::test]
async fn garbage_and_half_open_connections_are_told_and_end_nothing() {
    let settings = [("limits.engine_silent_max", "500ms")];
    let (service, rig) = start("deepgram", session("deepgram", "garbage"), &settings).await;
    let mut device = rig.device().await;
    device.speak(2.0).await;
    assert!(trouble(&mut device).await.contains("deepgram sent a message that is not JSON"));
    // What was said before is shown, once it is stored.
    assert_eq!(device.texts_up_to("report").await, "Please send the report.");
    service.set(SpeechScript::Deaf);
    let connect = rig.connect().param("source", "phone");
    let mut other = rig.device_as(connect).await;
    other.speak(1.0).await;
    assert!(trouble(&mut other).await.contains("deepgram has said nothing for 500ms"));
    let metrics = rig.metrics().await;
    for reason in ["said", "silent"] {
        let line = format!("auricle_cloud_failures_total{{engine=\"deepgram\",reason=\"{reason}\"}}");
        assert!(metrics.contains(&line), "{line}");
    }
}

#[tokio::test]
async fn what_a_failed_service_did_not_hear_is_heard_by_repair() {
    let settings = [
        ("limits.engine_reopen_first", "20s"),
        ("limits.engine_reopen_max", "20s"),
        ("limits.spool_flush_every", "50ms"),
    ];
    let (service, rig) = start("deepgram", session("deepgram", "mid_word_close"), &settings).await;
    let mut device = rig.device().await;
    device.speak(4.0).await;
    assert!(trouble(&mut device).await.contains("(1011 NET-0000)"));
    let id = device.conversation().await;
    service.set(WORDS);
    drop(device);
    let stored = eventually("repaired words", async || {
        let (_, stored) = rig.get(&format!("/v1/conversations/{id}")).await;
        texts_of(&stored).contains("w0.").then_some(stored)
    })
    .await;
    assert!(texts_of(&stored).starts_with("Please send the report."), "{stored}");
}
