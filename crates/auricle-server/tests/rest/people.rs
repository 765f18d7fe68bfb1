//! People, their voices, and who said what.

use auricle_core::{Assignee, ConversationId};
use serde_json::{Value, json};

use crate::rest::rig::Rig;

async fn person(rig: &Rig, user: &str, name: &str) -> String {
    let (status, made) = rig.post(user, "/v1/users/people", Some(json!({ "name": name }))).await;
    assert_eq!((status, made["name"].as_str(), &made["speech_samples"]), (200, Some(name), &json!([])));
    made["id"].as_str().unwrap().to_owned()
}

async fn assign(rig: &Rig, user: &str, path: String, body: Value) -> (u16, Value) {
    rig.call(user, "PATCH", &path, Some(body)).await
}

fn whom(conversation: &Value) -> Vec<(bool, Option<&str>)> {
    let segments = conversation["transcript_segments"].as_array().unwrap().iter();
    segments.map(|s| (s["is_user"].as_bool().unwrap(), s["person_id"].as_str())).collect()
}

#[tokio::test]
async fn people_are_added_once_renamed_listed_and_deleted() {
    let rig = Rig::new().await;
    let ada = person(&rig, "ana", "Ada").await;
    let (_, again) = rig.post("ana", "/v1/users/people", Some(json!({ "name": " ADA " }))).await;
    assert_eq!(again["id"], ada.as_str());
    let (_, listed) = rig.get("ana", "/v1/users/people?include_speech_samples=true").await;
    assert_eq!(listed.as_array().unwrap().len(), 1);
    // In the query, as Omi's app, and in the body, as its web page.
    let path = format!("/v1/users/people/{ada}/name");
    assert_eq!(rig.call("ana", "PATCH", &format!("{path}?value=Ada%20L."), None).await.0, 200);
    assert_eq!(rig.get("ana", &format!("/v1/users/people/{ada}")).await.1["name"], "Ada L.");
    assert_eq!(assign(&rig, "ana", path.clone(), json!({ "name": "Lady Ada" })).await.0, 200);
    person(&rig, "ana", "Bea").await;
    let (status, taken) = assign(&rig, "ana", path, json!({ "name": "bea" })).await;
    assert_eq!((status, taken["detail"].as_str()), (409, Some("Another person has this name")));
    assert_eq!(rig.call("ana", "DELETE", &format!("/v1/users/people/{ada}"), None).await, (204, Value::Null));
    assert_eq!(rig.get("ana", &format!("/v1/users/people/{ada}")).await.0, 404);
    for bad in
        [json!({ "name": " " }), json!({ "name": "a".repeat(101) }), json!({ "name": "a\nb" }), json!({})]
    {
        assert_eq!(rig.post("ana", "/v1/users/people", Some(bad.clone())).await.0, 422, "{bad}");
    }
}

#[tokio::test]
async fn segments_are_assigned_and_unassigned_one_by_one_by_speaker_and_by_ids() {
    let rig = Rig::new().await;
    let ada = person(&rig, "ana", "Ada").await;
    // Its first segment is the owner's; speakers alternate.
    let id = rig.completed("ana", "Talk", &["One.", "Two.", "Three.", "Four."]).await;
    let of = |rest: &str| format!("/v1/conversations/{id}{rest}");
    // As Omi's app asks.
    let path =
        of(&format!("/segments/1/assign?assign_type=person_id&value={ada}&use_for_speech_training=true"));
    let (status, answer) = rig.call("ana", "PATCH", &path, None).await;
    assert_eq!(status, 200, "{answer}");
    let theirs = Some(ada.as_str());
    assert_eq!(whom(&answer), [(true, None), (false, theirs), (false, None), (false, None)]);
    let path = of(&format!("/assign-speaker/0?assign_type=person_id&value={ada}"));
    let (_, answer) = rig.call("ana", "PATCH", &path, None).await;
    assert_eq!(whom(&answer), [(false, theirs), (false, theirs), (false, theirs), (false, None)]);
    let segment = |n: usize| answer["transcript_segments"][n]["id"].clone();
    let body = json!({ "segment_ids": [segment(2), segment(3)], "assign_type": "is_user", "value": "true" });
    let (_, answer) = assign(&rig, "ana", of("/segments/assign-bulk"), body).await;
    assert_eq!(whom(&answer), [(false, theirs), (false, theirs), (true, None), (true, None)]);
    for (path, body) in [
        (of("/segments/0/assign"), json!({ "assign_type": "person_id", "value": null })),
        (of("/segments/1/assign"), json!({ "assign_type": "person_id", "value": "null" })),
        (of("/segments/2/assign"), json!({ "assign_type": "is_user", "value": "false" })),
        (of("/segments/3/assign"), json!({ "assign_type": "is_user" })),
    ] {
        assert_eq!(assign(&rig, "ana", path, body).await.0, 200);
    }
    assert_eq!(whom(&rig.read("ana", &id).await), [(false, None); 4]);
    assert_eq!(rig.read("ana", &id).await["structured"]["title"], "Talk");
    let told = rig.live.told();
    assert_eq!(told.len(), 7);
    assert_eq!(told[1], (2, Assignee::Person(ada.as_str().into()), Some((0, "Ada".into()))));
}

#[tokio::test]
async fn what_cannot_be_assigned_is_refused_and_changes_nothing() {
    let rig = Rig::new().await;
    let (ada, hers) = (person(&rig, "ana", "Ada").await, person(&rig, "eve", "Bea").await);
    let id = rig.completed("ana", "Talk", &["One.", "Two."]).await;
    let before = rig.stored("ana", &id).await;
    let of = |id: &ConversationId, rest: &str| format!("/v1/conversations/{id}{rest}");
    let to = |person: &str| json!({ "assign_type": "person_id", "value": person });
    for (user, rest, body, expected) in [
        ("ana", "/segments/2/assign", to(&ada), (404, "Segment not found")),
        ("ana", "/segments/-1/assign", to(&ada), (404, "Segment not found")),
        ("ana", "/assign-speaker/7", to(&ada), (404, "Segment not found")),
        ("ana", "/segments/0/assign", to(&hers), (404, "Person not found")),
        ("ana", "/segments/0/assign", to("x"), (404, "Person not found")),
        ("eve", "/segments/0/assign", to(&hers), (404, "Conversation not found")),
        (
            "ana",
            "/segments/0/assign",
            json!({ "assign_type": "x" }),
            (400, "`assign_type` is `is_user` or `person_id`"),
        ),
        (
            "ana",
            "/segments/0/assign",
            json!({ "assign_type": "is_user", "value": "maybe" }),
            (400, "The value of `is_user` is `true` or `false`"),
        ),
    ] {
        let (status, answer) = assign(&rig, user, of(&id, rest), body).await;
        assert_eq!((status, answer["detail"].as_str()), (expected.0, Some(expected.1)), "{rest}");
    }
    assert_eq!(rig.stored("ana", &id).await, before);
}

#[tokio::test]
async fn a_conversation_that_is_heard_or_processed_is_assigned_too() {
    let rig = Rig::new().await;
    let ada = person(&rig, "ana", "Ada").await;
    let body = || json!({ "assign_type": "person_id", "value": ada });
    let live = rig.heard("ana", &["One.", "Two."]).await;
    let ended = rig.ended("ana", &["One.", "Two."]).await;
    for (id, status) in [(&live, "in_progress"), (&ended, "processing")] {
        let (code, answer) =
            assign(&rig, "ana", format!("/v1/conversations/{id}/assign-speaker/1"), body()).await;
        assert_eq!((code, answer["status"].as_str()), (200, Some(status)));
        assert_eq!(whom(&answer), [(true, None), (false, Some(ada.as_str()))]);
    }
    rig.process_next_job("Done").await.unwrap();
    let done = rig.read("ana", &ended).await;
    assert_eq!(whom(&done), [(true, None), (false, Some(ada.as_str()))]);
    rig.call("ana", "DELETE", &format!("/v1/users/people/{ada}"), None).await;
    for id in [&live, &ended] {
        assert_eq!(whom(&rig.read("ana", id).await), [(true, None), (false, None)]);
    }
}

#[tokio::test]
async fn a_voice_is_matched_with_the_nearest_person_of_its_model() {
    let rig = Rig::new().await;
    let (ada, bea) = (person(&rig, "ana", "Ada").await, person(&rig, "ana", "Bea").await);
    let keep = async |person: &str, model: &str, vector: [f32; 2]| {
        let voice = json!({ "model": model, "vector": vector, "seconds": 4.5 });
        let (status, kept) = rig.post("ana", &format!("/v1/users/people/{person}/voices"), Some(voice)).await;
        assert_eq!((status, kept["person_id"].as_str()), (201, Some(person)));
    };
    keep(&ada, "m", [1.0, 0.0]).await;
    keep(&bea, "m", [0.0, 1.0]).await;
    keep(&bea, "other", [1.0, 0.0]).await;
    let ask = async |user: &str, body: Value| rig.post(user, "/v1/users/people/match", Some(body)).await;
    let (_, found) = ask("ana", json!({ "model": "m", "vector": [1.0, 0.1] })).await;
    assert_eq!(
        (found["person"]["name"].as_str(), found["person"]["voices"].as_u64()),
        (Some("Ada"), Some(1))
    );
    assert!(found["similarity"].as_f64().unwrap() > 0.99 && found["runner_up"].as_f64().unwrap() < 0.2);
    let between = json!({ "model": "m", "vector": [1.0, 0.99] });
    assert_eq!(ask("ana", between).await.1["person"], Value::Null, "two are about as near");
    let lax = json!({ "model": "m", "vector": [1.0, 0.99], "margin_min": 0.0 });
    assert_eq!(ask("ana", lax).await.1["person"]["name"], "Ada");
    let strict = json!({ "model": "m", "vector": [1.0, 0.1], "similarity_min": 0.9999 });
    assert_eq!(ask("ana", strict).await.1["person"], Value::Null);
    for (user, model) in [("eve", "m"), ("ana", "unheard-of")] {
        let (_, nobody) = ask(user, json!({ "model": model, "vector": [1.0, 0.0] })).await;
        assert_eq!(nobody, json!({ "person": null, "similarity": null, "runner_up": null }));
    }
    for bad in [
        json!({ "model": "m", "vector": [] }),
        json!({ "model": "m", "vector": [0.0, 0.0] }),
        json!({ "model": "m", "vector": vec![1.0; 2_049] }),
        json!({ "model": "", "vector": [1.0] }),
        json!({ "model": "m", "vector": [1e39] }),
        json!({ "model": "m", "vector": [1.0], "similarity_min": 2.0 }),
    ] {
        assert_eq!(ask("ana", bad.clone()).await.0, 422);
    }
}
