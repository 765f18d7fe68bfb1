//! Words: heard, stored, then shown; brought by clients; of two channels; pictures beside them.

use auricle_testkit::Connect;
use auricle_wire::event::Event;
use serde_json::json;

use crate::rig::{Rig, eventually, texts, texts_of};

#[tokio::test]
async fn p5_what_a_client_is_shown_is_already_stored() {
    let rig = Rig::start(&[]).await;
    let mut device = rig.device().await;
    let id = device.conversation().await;
    device.speak(4.0).await;
    let shown = device.texts_up_to("tomorrow").await;
    assert_eq!(shown, "Please send the report before Friday. I will send it tomorrow morning.");
    let (_, stored) = rig.get(&format!("/v1/conversations/{id}")).await;
    assert_eq!(texts_of(&stored), shown);
    assert_eq!(stored["status"], "in_progress");
    let speakers: Vec<_> = device.shown().iter().map(|segment| segment.speaker.clone().unwrap()).collect();
    assert_eq!(speakers, ["SPEAKER_0", "SPEAKER_1"]);
}

#[tokio::test]
async fn times_count_from_the_first_word_of_the_conversation() {
    let rig = Rig::start(&[]).await;
    let mut device = rig.device().await;
    device.speak(12.5).await;
    device.texts_up_to("fine").await;
    let times: Vec<_> = device.shown().iter().map(|segment| (segment.start, segment.end)).collect();
    assert_eq!(times, [(0.0, 1.6), (1.8, 3.2), (7.8, 9.2), (9.8, 11.0)]);
}

#[tokio::test]
async fn a_client_may_bring_its_own_words_and_needs_no_audio() {
    let rig = Rig::start(&[("speech.engine", "none")]).await;
    let mut device = rig.device_as(rig.connect().param("custom_stt", "enabled")).await;
    let words = json!({"type": "suggested_transcript", "stt_provider": "on-device", "segments": [
        {"text": "Call the plumber on Tuesday.", "speaker": "SPEAKER_00", "start": 0.0, "end": 2.0},
        {"text": "I will do that.", "speaker": "SPEAKER_01", "start": 2.5, "end": 3.5},
    ]});
    assert!(device.client.send_text(words.to_string()).await);
    let shown = device.texts_up_to("do that").await;
    assert_eq!(shown, "Call the plumber on Tuesday. I will do that.");
    let id = device.conversation().await;
    let (code, answer) = rig.post("/v1/conversations").await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!(answer["memory"]["id"], id.as_str());
    assert_eq!(answer["memory"]["status"], "completed");
}

#[tokio::test]
async fn two_channels_are_two_people_each_heard_on_its_own() {
    let rig = Rig::start(&[]).await;
    let connect = Connect::new(&format!("ws://{}", rig.public()))
        .param("codec", "pcm16")
        .param("sample_rate", 48_000)
        .param("channels", 2)
        .param("source", "phone_call");
    let mut device = rig.device_as(connect).await;
    // Each frame begins with its channel's byte: 20 ms at 48 kHz.
    for _ in 0..125 {
        for channel in [1, 2] {
            let mut frame = vec![channel];
            frame.extend([1_u8; 1_920]);
            assert!(device.client.send_audio(frame).await);
        }
    }
    device
        .until("both channels", |received| {
            received.segments().iter().any(|segment| !segment.is_user && segment.text.contains("report"))
        })
        .await;
    let shown = device.shown();
    let mut people: Vec<_> =
        shown.iter().map(|segment| (segment.speaker.clone().unwrap(), segment.is_user)).collect();
    people.sort();
    people.dedup();
    assert_eq!(people, [("SPEAKER_00".to_owned(), true), ("SPEAKER_01".to_owned(), false)]);
}

#[tokio::test]
async fn a_picture_in_chunks_is_put_together_and_kept() {
    let rig = Rig::start(&[]).await;
    let mut device = rig.device().await;
    let id = device.conversation().await;
    for (index, data) in ["/9j/4AAQ", "SkZJRgAB", "AQ=="].iter().enumerate() {
        let chunk =
            json!({"type": "image_chunk", "id": "picture-1", "index": index, "total": 3, "data": data});
        assert!(device.client.send_text(chunk.to_string()).await);
    }
    let taken = device.event("photo_processing", |e| matches!(e, Event::PhotoProcessing { .. })).await;
    let Event::PhotoProcessing { temp_id, photo_id } = taken else { unreachable!() };
    assert_eq!(temp_id, "picture-1");
    let path = format!("/v1/conversations/{id}");
    let photo = eventually("the photo", async || {
        let (_, conversation) = rig.get(&path).await;
        conversation["photos"].as_array().and_then(|photos| photos.first().cloned())
    })
    .await;
    assert_eq!(photo["id"], photo_id.as_str());
    assert_eq!(photo["base64"], "/9j/4AAQSkZJRgABAQ==");
}

#[tokio::test]
async fn a_client_back_in_time_goes_on_with_its_conversation() {
    let rig = Rig::start(&[]).await;
    let mut device = rig.device().await;
    let id = device.conversation().await;
    device.speak(2.0).await;
    device.texts_up_to("report").await;
    let before = device.shown();
    drop(device);
    let mut device = rig.device().await;
    assert_eq!(device.conversation().await, id);
    device.speak(4.0).await;
    device.texts_up_to("tomorrow").await;
    let (_, stored) = rig.get(&format!("/v1/conversations/{id}")).await;
    let stored = texts_of(&stored);
    assert!(stored.starts_with(&texts(&before)), "{stored}");
    assert!(stored.ends_with(&texts(&device.shown())), "{stored}");
}

#[tokio::test]
async fn words_survive_an_orderly_restart() {
    let mut rig = Rig::start(&[]).await;
    let mut device = rig.device().await;
    let id = device.conversation().await;
    device.speak(4.0).await;
    let shown = device.texts_up_to("tomorrow").await;
    rig.restart().await;
    assert_eq!(device.closed().await.0, 1012);
    let (_, stored) = rig.get(&format!("/v1/conversations/{id}")).await;
    assert_eq!(texts_of(&stored), shown);
    let mut device = rig.device().await;
    assert_eq!(device.conversation().await, id);
}
