//! The life of a conversation: ended by request, by silence, by leaving; once.

use auricle_testkit::Received;
use auricle_wire::event::Event;
use serde_json::Value;

use crate::rig::{Device, Rig, eventually, texts_of};

/// A silence that ends conversations in a test's time.
const SHORT: (&str, &str) = ("limits.conversation_timeout_min", "1s");

async fn created(device: &mut Device, id: &str) -> Box<auricle_wire::conversation::Conversation> {
    let about = |event: &Event| matches!(event, Event::MemoryCreated { memory, .. } if memory.id == id);
    match device.event("memory_created", about).await {
        Event::MemoryCreated { memory, .. } => memory,
        other => panic!("{other:?}"),
    }
}

async fn conversations(rig: &Rig) -> Vec<Value> {
    rig.get("/v1/conversations?include_discarded=true").await.1.as_array().unwrap().clone()
}

#[tokio::test]
async fn finalise_now_answers_with_the_record_and_the_client_hears_both_events() {
    let rig = Rig::start(&[]).await;
    let mut device = rig.device().await;
    let id = device.conversation().await;
    device.speak(4.0).await;
    device.texts_up_to("tomorrow").await;
    let (code, answer) = rig.post("/v1/conversations").await;
    assert_eq!(code, 200, "{answer}");
    let memory = &answer["memory"];
    assert_eq!((memory["id"].as_str(), memory["status"].as_str()), (Some(id.as_str()), Some("completed")));
    assert_ne!(memory["structured"]["title"], "");
    assert_eq!(memory["finalization_reason"], "requested");
    created(&mut device, &id).await;
    let started = device.seen.iter().position(|received| {
        matches!(received.event(), Some(Event::MemoryProcessingStarted { memory, .. }) if memory.id == id)
    });
    assert!(started.is_some(), "{:#?}", device.seen);
}

#[tokio::test]
async fn silence_ends_a_conversation_and_its_record_reaches_the_client_in_the_next_one() {
    let rig = Rig::start(&[SHORT]).await;
    let mut device = rig.device().await;
    let first = device.conversation().await;
    device.speak(4.0).await;
    device.texts_up_to("tomorrow").await;
    let next = device
        .event("the next conversation", |event| {
            matches!(event, Event::ConversationSession { conversation_id, .. } if *conversation_id != first)
        })
        .await;
    let Event::ConversationSession { conversation_id: next, .. } = next else { unreachable!() };
    let memory = created(&mut device, &first).await;
    assert_eq!(memory.status.as_deref(), Some("completed"));
    assert_eq!(rig.conversation_when(&first, "completed").await["finalization_reason"], "silence");
    // The script's next words begin the new conversation's clock.
    device.speak(6.0).await;
    device.until("more words", |r| r.segments().iter().any(|s| s.text.contains("Monday"))).await;
    let (_, second) = rig.get(&format!("/v1/conversations/{next}")).await;
    assert!(texts_of(&second).starts_with("Let us meet"), "{second}");
    assert_eq!(second["transcript_segments"][0]["start"], 0.0);
}

#[tokio::test]
async fn l07_a_client_that_vanishes_has_its_conversation_finalised_by_the_sweeper() {
    let rig = Rig::start(&[SHORT]).await;
    let mut device = rig.device().await;
    let id = device.conversation().await;
    device.speak(4.0).await;
    let shown = device.texts_up_to("tomorrow").await;
    drop(device);
    let record = rig.conversation_when(&id, "completed").await;
    assert_eq!(texts_of(&record), shown);
    let (_, jobs) = rig.get("/v1/jobs").await;
    let about: Vec<_> = jobs.as_array().unwrap().iter().filter(|job| job["conversation_id"] == *id).collect();
    assert_eq!(about.len(), 1, "{jobs}");
}

#[tokio::test]
async fn a_conversation_without_words_leaves_nothing_behind() {
    let rig = Rig::start(&[SHORT, ("speech.engine", "none")]).await;
    let mut device = rig.device_as(rig.connect().param("custom_stt", "enabled")).await;
    let id = device.conversation().await;
    device.speak(1.0).await;
    device.client.close().await;
    eventually("its deletion", async || {
        (rig.get(&format!("/v1/conversations/{id}")).await.0 == 404).then_some(())
    })
    .await;
    assert_eq!(conversations(&rig).await, Vec::<Value>::new());
}

#[tokio::test]
async fn d12_two_requests_to_finalise_at_once_make_one_record_and_one_event() {
    let rig = Rig::start(&[]).await;
    let mut device = rig.device().await;
    let id = device.conversation().await;
    device.speak(4.0).await;
    device.texts_up_to("tomorrow").await;
    let (one, two) = tokio::join!(rig.post("/v1/conversations"), rig.post("/v1/conversations"));
    let done: Vec<_> = [one, two]
        .into_iter()
        .filter(|(code, answer)| *code == 200 && answer["memory"]["id"] == *id)
        .collect();
    assert!(!done.is_empty());
    rig.conversation_when(&id, "completed").await;
    let (_, jobs) = rig.get("/v1/jobs").await;
    assert_eq!(jobs.as_array().unwrap().len(), 1, "{jobs}");
    let events = device.client.until(std::time::Duration::from_millis(500), |_| false).await.0;
    let records = device.seen.iter().chain(&events).filter(
        |received| matches!(received.event(), Some(Event::MemoryCreated { memory, .. }) if memory.id == id),
    );
    assert_eq!(records.count(), 1);
}

#[tokio::test]
async fn a_second_connection_takes_the_conversation_over_and_the_first_stays_open() {
    let rig = Rig::start(&[]).await;
    let mut first = rig.device().await;
    let id = first.conversation().await;
    first.speak(2.0).await;
    first.texts_up_to("report").await;
    let mut second = rig.device().await;
    assert_eq!(second.conversation().await, id);
    second.speak(2.0).await;
    second.texts_up_to("report").await;
    // The first connection is not closed, and none of its later words reaches a conversation that it no longer owns.
    first.speak(2.0).await;
    let (received, _) = first.client.until(std::time::Duration::from_millis(300), |_| false).await;
    assert!(!received.iter().any(Received::is_end), "{received:?}");
}

#[tokio::test]
async fn l35_a_deleted_conversation_stays_deleted_while_its_client_talks_on() {
    let rig = Rig::start(&[]).await;
    let mut device = rig.device().await;
    let id = device.conversation().await;
    device.speak(2.0).await;
    device.texts_up_to("report").await;
    assert_eq!(rig.delete(&format!("/v1/conversations/{id}")).await, 204);
    device.speak(10.0).await;
    device.texts_up_to("fine").await;
    assert_eq!(rig.get(&format!("/v1/conversations/{id}")).await.0, 404);
    let left = conversations(&rig).await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert_ne!(left[0]["id"], id.as_str());
}

#[tokio::test]
async fn m05_two_devices_of_one_user_have_a_conversation_each() {
    let rig = Rig::start(&[]).await;
    let mut pendant = rig.device_as(rig.connect().param("source", "omi")).await;
    let mut desktop = rig.device_as(rig.connect().param("source", "desktop")).await;
    let (of_pendant, of_desktop) = (pendant.conversation().await, desktop.conversation().await);
    assert_ne!(of_pendant, of_desktop);
    pendant.speak(2.0).await;
    let said = pendant.texts_up_to("report").await;
    desktop.speak(4.0).await;
    let more = desktop.texts_up_to("tomorrow").await;
    for (id, text) in [(&of_pendant, &said), (&of_desktop, &more)] {
        let (_, stored) = rig.get(&format!("/v1/conversations/{id}")).await;
        assert_eq!(&texts_of(&stored), text);
    }
}

#[tokio::test]
async fn l37_a_conversation_that_its_client_named_keeps_that_name_to_its_record() {
    const ID: &str = "b3b0b0b7-2d35-4a55-8f5e-5a0f1f0f7c02";
    let rig = Rig::start(&[]).await;
    let mut device = rig.device_as(rig.connect().param("client_conversation_id", ID)).await;
    assert_eq!(device.conversation().await, ID);
    device.speak(4.0).await;
    device.texts_up_to("tomorrow").await;
    let path = format!("/v1/conversations?conversation_id={ID}");
    for _ in 0..2 {
        // Asked again, as a client does that has not heard the answer: the same conversation, the same record.
        let (code, answer) = rig.post(&path).await;
        assert_eq!((code, answer["memory"]["id"].as_str()), (200, Some(ID)), "{answer}");
        assert_eq!(answer["memory"]["status"], "completed");
    }
    assert_eq!(rig.get("/v1/jobs").await.1.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn s06_a_desktops_conversation_is_processed_like_any_other_when_it_closes() {
    let rig = Rig::start(&[]).await;
    let mut device = rig.device_as(rig.connect().param("source", "desktop")).await;
    let id = device.conversation().await;
    device.speak(4.0).await;
    let shown = device.texts_up_to("tomorrow").await;
    device.client.close().await;
    assert_eq!(texts_of(&rig.conversation_when(&id, "completed").await), shown);
}

#[tokio::test]
async fn l26_what_both_channels_said_last_is_in_the_record() {
    let rig = Rig::start(&[]).await;
    let call = rig.connect().param("channels", 2).param("source", "phone_call");
    let mut device = rig.device_as(call).await;
    let id = device.conversation().await;
    for _ in 0..175 {
        for channel in [1, 2] {
            let frame = [&[channel][..], &[1; 640]].concat();
            assert!(device.client.send_audio(frame).await);
        }
    }
    // Hung up before anything was shown.
    device.client.close().await;
    let record = rig.conversation_when(&id, "completed").await;
    let said = texts_of(&record);
    assert_eq!((said.matches("report").count(), said.matches("tomorrow").count()), (2, 2), "{said}");
}

#[tokio::test]
async fn m07_a_setting_that_changes_during_a_conversation_counts_at_its_end() {
    let rig = Rig::start(&[]).await;
    let mut device = rig.device().await;
    let id = device.conversation().await;
    device.speak(12.0).await;
    device.texts_up_to("fine").await;
    let url = format!("http://{}/v1/users/me/time-zone", rig.public());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let zone = serde_json::json!({"time_zone": "Pacific/Auckland"});
    assert_eq!(client.put(url).json(&zone).send().await.unwrap().status().as_u16(), 200);
    rig.post("/v1/conversations").await;
    let record = rig.conversation_when(&id, "completed").await;
    let due = record["structured"]["action_items"][0]["due_at"].as_str().expect("a due date").to_owned();
    // The last minute of a day in Auckland is noon of that day in UTC; of one in Madrid it is late in the evening.
    assert!(due.contains("T10:59") || due.contains("T11:59"), "{record}");
}

#[tokio::test]
async fn s02_a_conversation_that_failed_is_listed_with_its_transcript_and_its_reason() {
    use auricle_store::{AttemptOutcome, ClaimRule, Store};
    let rig = Rig::start(&[("limits.job_attempts_max", "1")]).await;
    let mut device = rig.device().await;
    let id = device.conversation().await;
    device.speak(4.0).await;
    let shown = device.texts_up_to("tomorrow").await;
    rig.post("/v1/conversations").await;
    rig.conversation_when(&id, "completed").await;
    // A second revision, whose worker gives up.
    let store = rig.running().store();
    let (user, job) = ("local".into(), "again".into());
    let when = auricle_core::UnixMicros(i64::MAX / 4);
    store.reprocess(&user, &id.as_str().into(), job, when).await.unwrap();
    let (worker, minute) = ("p".into(), std::time::Duration::from_secs(60));
    let claimed = store.claim_job(&worker, when, minute, ClaimRule::default());
    let lease = claimed.await.unwrap().unwrap().lease;
    let (_, processing) = rig.get(&format!("/v1/conversations/{id}")).await;
    assert_eq!((processing["status"].as_str(), texts_of(&processing)), (Some("processing"), shown.clone()));
    let error = "the model answered 503".into();
    store.end_attempt(&lease, AttemptOutcome::Failed { error }, when).await.unwrap();
    let (_, failed) = rig.get(&format!("/v1/conversations/{id}")).await;
    assert_eq!((failed["status"].as_str(), texts_of(&failed)), (Some("failed"), shown));
    let listed = conversations(&rig).await;
    let listed = listed.iter().find(|listed| listed["id"] == *id).expect("it is listed");
    assert_eq!(listed["status"], "failed");
}

#[tokio::test]
async fn p4_a_conversation_that_its_process_owns_and_no_session_has_is_given_up_and_ended() {
    use auricle_core::{Segment, Source, UnixMicros};
    use auricle_store::{AppendSegments, Choice, OpenConversation, Store};
    let rig = Rig::start(&[("limits.stray_after", "300ms")]).await;
    let now = UnixMicros(wall_now());
    let store = rig.running().store();
    // As if the answer to a session that was leaving had been lost.
    let opened = store
        .open_conversation(OpenConversation {
            user: "local".into(),
            process: rig.running().process().clone(),
            source: Source::Omi,
            language: None,
            timeout: std::time::Duration::from_secs(1),
            choice: Choice::New,
            fresh_id: "stray".into(),
            call_id: None,
            now,
        })
        .await
        .unwrap();
    let words = Segment {
        id: "s1".into(),
        text: "Please send the report before Friday.".into(),
        speaker: None,
        is_user: false,
        person_id: None,
        start: 0.0,
        end: 1.0,
        translations: Vec::new(),
        speech_profile_processed: true,
        stt_provider: None,
    };
    let append = AppendSegments {
        ownership: opened.ownership,
        upsert: vec![words],
        delete: Vec::new(),
        started_at: None,
        now,
    };
    store.append_segments(append).await.unwrap();
    let mut live = rig.device_as(rig.connect().param("source", "desktop")).await;
    let held = live.conversation().await;
    rig.conversation_when("stray", "completed").await;
    // What a session has is left alone.
    assert_eq!(rig.get(&format!("/v1/conversations/{held}")).await.1["status"], "in_progress");
}

#[expect(clippy::disallowed_methods, reason = "the clock that the server reads")]
fn wall_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_micros()).unwrap()
}
