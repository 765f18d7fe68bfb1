//! Everything a user has, in one file.

use std::collections::BTreeMap;
use std::io::Read as _;

use auricle_store::Store as _;
use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use serde_json::Value;

use crate::rest::rig::{ADMIN_KEY, Rig};

async fn ask(rig: &Rig, user: &str) -> axum::http::Response<Body> {
    let request = Request::get("/v1/users/me/export")
        .header(header::AUTHORIZATION, format!("Bearer {ADMIN_KEY}{user}"))
        .body(Body::empty());
    rig.send(request.unwrap()).await
}

/// The files of a user's export, by name.
pub(crate) async fn exported(rig: &Rig, user: &str) -> BTreeMap<String, String> {
    let answer = ask(rig, user).await;
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/zip");
    let bytes = to_bytes(answer.into_body(), 16 << 20).await.unwrap();
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
    let mut files = BTreeMap::new();
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        let name = file.name().unwrap().into_owned();
        files.insert(name, text);
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_has_everything_of_its_user_and_nothing_of_others() {
    let rig = Rig::new().await;
    let done = rig.completed("ana", "The zebra", &["A zebra ran by.", "Twice."]).await;
    let open = rig.heard("ana", &["Still going."]).await;
    rig.completed("eve", "Hers", &["A secret."]).await;
    rig.call("ana", "PUT", "/v1/users/me/time-zone", Some(serde_json::json!({"time_zone": "Europe/Madrid"})))
        .await;
    rig.call("ana", "PUT", "/v1/users/me/language", Some(serde_json::json!({"language": "es"}))).await;
    let said = rig.read("ana", &open).await["transcript_segments"][0].clone();
    let said = |field: &str| said[field].as_str().unwrap().to_owned();
    let spanish = auricle_core::Translation { lang: "es".into(), text: "Sigue.".into() };
    let translations = vec![(said("id").into(), said("text"), spanish)];
    let translated = rig.store.translate_segments(&"ana".into(), &open.as_str().into(), translations).await;
    assert_eq!(translated.unwrap().len(), 1);
    for (user, text) in [("ana", "Feed the zebra"), ("eve", "Keep the secret")] {
        let item = serde_json::json!({ "description": text });
        rig.call(user, "POST", "/v1/action-items", Some(item)).await;
        rig.call(user, "POST", "/v1/memories", Some(serde_json::json!({ "text": text }))).await;
    }
    let hook = serde_json::json!({ "name": "mine", "url": "http://203.0.113.9/hook" });
    let hook = rig.call("ana", "POST", "/v1/webhooks", Some(hook)).await.1;
    let message = auricle_store::NewMessage {
        user: "ana".into(),
        target: hook["id"].as_str().unwrap().into(),
        conversation: None,
        key: "k".into(),
        text: "Well said".into(),
        now: rig.now(),
    };
    assert!(rig.store.add_message(message).await.unwrap());
    let date = rig.read("ana", &done).await["started_at"].as_str().unwrap()[..10].to_owned();
    assert_eq!(rig.post("ana", &format!("/v1/days/{date}/summarise"), None).await.0, 202);
    for (user, name) in [("ana", "Zoe"), ("eve", "Mallory")] {
        let person =
            rig.call(user, "POST", "/v1/users/people", Some(serde_json::json!({ "name": name }))).await.1;
        let path = format!("/v1/users/people/{}/voices", person["id"].as_str().unwrap());
        let voice = serde_json::json!({ "model": format!("of-{name}"), "vector": [1.0], "seconds": 2.0 });
        assert_eq!(rig.call(user, "POST", &path, Some(voice)).await.0, 201);
    }
    let files = exported(&rig, "ana").await;
    assert!(files["people.json"].contains("Zoe") && !files["people.json"].contains("Mallory"));
    assert!(files["voices.json"].contains("of-Zoe") && !files["voices.json"].contains("Mallory"));
    for id in [&done, &open] {
        for form in ["json", "md", "srt", "vtt"] {
            assert!(
                files.contains_key(&format!("conversations/{id}.{form}")),
                "{id} {form}: {:?}",
                files.keys()
            );
        }
    }
    let json: Value = serde_json::from_str(&files[&format!("conversations/{done}.json")]).unwrap();
    assert_eq!(json, rig.read("ana", &done).await);
    assert!(files[&format!("conversations/{done}.md")].contains("A zebra ran by."));
    assert!(files[&format!("conversations/{done}.srt")].starts_with("1\n00:00:0"));
    assert!(files[&format!("conversations/{done}.vtt")].starts_with("WEBVTT\n\n00:00:0"));
    let json: Value = serde_json::from_str(&files[&format!("conversations/{open}.json")]).unwrap();
    assert_eq!(json["transcript_segments"][0]["translations"][0]["text"], "Sigue.");
    let user: Value = serde_json::from_str(&files["user.json"]).unwrap();
    assert_eq!(user["language"], "es");
    assert_eq!((&user["uid"], &user["time_zone"]), (&"ana".into(), &"Europe/Madrid".into()));
    assert_eq!(serde_json::from_str::<Value>(&files["jobs.json"]).unwrap().as_array().unwrap().len(), 1);
    for (name, field, text) in [
        ("action_items.json", "description", "Feed the zebra"),
        ("memories.json", "text", "Feed the zebra"),
        ("messages.json", "text", "Well said"),
        ("days.json", "state", "queued"),
        ("webhooks.json", "url", "http://203.0.113.9/hook"),
    ] {
        let records: Value = serde_json::from_str(&files[name]).unwrap();
        assert_eq!(records.as_array().map(Vec::len), Some(1), "{name}");
        assert_eq!(records[0][field], text, "{name}");
    }
    assert!(!files["webhooks.json"].contains(hook["secret"].as_str().unwrap()));
    assert_eq!(files.len(), 8 + 10);
    assert!(files.values().all(|text| !text.contains("A secret") && !text.contains("Keep the secret")));
    assert_eq!(exported(&rig, "nobody").await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn l33_what_cannot_be_read_is_named_and_the_rest_is_there() {
    let rig = Rig::new().await;
    let good = rig.completed("ana", "Good", &["Words."]).await;
    let bad = rig.completed("ana", "Bad", &["Words."]).await;
    rig.spoil(&bad);
    let files = exported(&rig, "ana").await;
    assert!(files.contains_key(&format!("conversations/{good}.json")));
    let errors: Value = serde_json::from_str(&files["errors.json"]).unwrap();
    assert_eq!(errors[0]["conversation_id"], bad.as_str());
    assert!(!files.contains_key(&format!("conversations/{bad}.json")));
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_at_once_are_bounded_and_a_client_that_leaves_frees_its_place() {
    let rig = Rig::with_limits(|limits| limits.exports_running_max = 1).await;
    // Long enough that it cannot be made without somebody who reads.
    let line = (0..40_000).map(|n| format!("{n} ")).collect::<String>();
    for number in 0..6 {
        rig.completed("ana", &format!("{number}"), &[&format!("{line}{number}")]).await;
    }
    let first = ask(&rig, "ana").await;
    assert_eq!(ask(&rig, "ana").await.status(), 503);
    drop(first);
    while ask(&rig, "ana").await.status() != 200 {
        tokio::task::yield_now().await;
    }
}
