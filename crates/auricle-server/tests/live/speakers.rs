//! Who speakers are, over a real server: introductions, assignments, reconnects.

use auricle_testkit::Connect;
use auricle_wire::event::Event;
use serde_json::{Value, json};

use crate::rig::{Device, Rig, eventually};

/// A client that transcribes, so that a test chooses the words.
fn talks(rig: &Rig) -> Connect {
    rig.connect().param("custom_stt", "enabled").param("speaker_auto_assign", "enabled")
}

/// Has this said by a speaker; gives the id of the segment that holds it.
async fn say(device: &mut Device, speaker: u32, start: f64, text: &str) -> String {
    let segment = json!({
        "text": text, "speaker": format!("SPEAKER_{speaker}"), "is_user": false, "start": start, "end": start + 1.0,
    });
    let message = json!({ "type": "suggested_transcript", "segments": [segment] });
    assert!(device.client.send_text(message.to_string()).await);
    let shown = device.until(text, |got| got.segments().iter().any(|s| s.text.contains(text))).await;
    shown.segments().iter().find(|s| s.text.contains(text)).unwrap().id.clone()
}

/// The suggestion about a segment: person and name.
async fn suggested(device: &mut Device, segment: &str) -> (String, String) {
    let about = |event: &Event| matches!(event, Event::SpeakerLabelSuggestion { segment_id, .. } if segment_id == segment);
    if let Some(Event::SpeakerLabelSuggestion { person_id, person_name, .. }) =
        device.seen.iter().filter_map(|received| received.event()).find(|event| about(event))
    {
        return (person_id.clone(), person_name.clone());
    }
    match device.event("a suggestion", about).await {
        Event::SpeakerLabelSuggestion { person_id, person_name, .. } => (person_id, person_name),
        other => panic!("{other:?}"),
    }
}

async fn people(rig: &Rig) -> Vec<Value> {
    rig.get("/v1/users/people").await.1.as_array().unwrap().clone()
}

#[tokio::test]
async fn who_introduces_themselves_becomes_a_person_and_is_suggested() {
    let rig = Rig::start(&[]).await;
    let mut device = rig.device_as(talks(&rig)).await;
    let first = say(&mut device, 1, 0.0, "Hello, my name is Ana.").await;
    let (id, name) = suggested(&mut device, &first).await;
    let known = people(&rig).await;
    assert_eq!((known.len(), known[0]["id"].as_str(), name.as_str()), (1, Some(id.as_str()), "Ana"));
    let later = say(&mut device, 1, 20.0, "Let us begin.").await;
    assert_eq!(suggested(&mut device, &later).await, (id.clone(), name));
    // Another device, another speaker, the same name: the same person.
    let mut other = rig.device_as(talks(&rig).param("source", "phone")).await;
    let again = say(&mut other, 0, 0.0, "This is Ana speaking.").await;
    assert_eq!(suggested(&mut other, &again).await.0, id);
    assert_eq!(people(&rig).await.len(), 1);
    assert!(rig.metrics().await.contains("auricle_introductions_total{outcome=\"created\"}"));
}

#[tokio::test]
async fn without_leave_nobody_is_made_and_no_id_is_told() {
    let rig = Rig::start(&[]).await;
    let mut device = rig.device_as(talks(&rig).param("create_speakers", "false")).await;
    let first = say(&mut device, 1, 0.0, "My name is Ana.").await;
    assert_eq!(suggested(&mut device, &first).await, (String::new(), "Ana".into()));
    assert!(people(&rig).await.is_empty());
    let connect = rig.connect().param("custom_stt", "enabled").param("source", "phone");
    let mut plain = rig.device_as(connect).await;
    let first = say(&mut plain, 1, 0.0, "My name is Ana.").await;
    assert_eq!(suggested(&mut plain, &first).await, (String::new(), "Ana".into()));
    assert_eq!(people(&rig).await.len(), 1, "made, and not named");
}

async fn assigned_to(rig: &Rig, conversation: &str, segment: &str, person: &Value) {
    eventually("the assignment", async || {
        let (_, found) = rig.get(&format!("/v1/conversations/{conversation}")).await;
        let segments = found["transcript_segments"].as_array()?;
        segments.iter().any(|s| s["id"] == segment && s["person_id"] == *person).then_some(())
    })
    .await;
}

#[tokio::test]
async fn assignments_by_socket_and_by_rest_outlive_a_reconnect() {
    let rig = Rig::start(&[]).await;
    let add = async |name: &str| {
        rig.call(reqwest::Method::POST, "/v1/users/people", json!({ "name": name })).await.1["id"].clone()
    };
    let (ada, bea) = (add("Ada").await, add("Bea").await);
    let mut device = rig.device_as(talks(&rig)).await;
    let conversation = device.conversation().await;
    let one = say(&mut device, 1, 0.0, "First voice.").await;
    let two = say(&mut device, 2, 10.0, "Second voice.").await;
    let message = json!({
        "type": "speaker_assigned", "speaker_id": 1, "person_id": ada, "person_name": "Ada", "segment_ids": [one],
    });
    assert!(device.client.send_text(message.to_string()).await);
    assigned_to(&rig, &conversation, &one, &ada).await;
    let path = format!("/v1/conversations/{conversation}/assign-speaker/2");
    let body = json!({ "assign_type": "person_id", "value": bea });
    assert_eq!(rig.call(reqwest::Method::PATCH, &path, body).await.0, 200);
    // The session learns of it at once, and what it stores later keeps it.
    let more = say(&mut device, 2, 12.0, "Still the second").await;
    assert_eq!(more, two, "merged into what was assigned");
    assigned_to(&rig, &conversation, &two, &bea).await;
    let three = say(&mut device, 2, 30.0, "The second again.").await;
    assert_eq!(suggested(&mut device, &three).await, (bea.as_str().unwrap().into(), "Bea".into()));
    drop(device);
    let mut device = rig.device_as(talks(&rig)).await;
    assert_eq!(device.conversation().await, conversation);
    for (speaker, start, person, name) in [(1, 5.0, &ada, "Ada"), (2, 15.0, &bea, "Bea")] {
        let segment = say(&mut device, speaker, start, &format!("Back, says {name}.")).await;
        assert_eq!(suggested(&mut device, &segment).await, (person.as_str().unwrap().into(), name.into()));
    }
}
