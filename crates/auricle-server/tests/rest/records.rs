//! Action items and memories: made, listed, changed, exported, and in step with their conversation.

use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use serde_json::{Value, json};

use crate::rest::rig::Rig;

async fn items(rig: &Rig, query: &str) -> Vec<Value> {
    let (status, body) = rig.get("ana", &format!("/v1/action-items{query}")).await;
    assert_eq!(status, 200, "{body}");
    body.as_array().unwrap().clone()
}

fn texts(found: &[Value], key: &str) -> Vec<String> {
    found.iter().map(|each| each[key].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_completed_action_item_shows_in_its_conversation_and_survives_reprocessing() {
    let rig = Rig::new().await;
    let id = rig.ended("ana", &["I will call Bob and buy milk."]).await;
    rig.process_next_job_with("Plans", &["Call Bob", "Buy milk"], &["Has a dog"]).await.unwrap();
    let found = items(&rig, &format!("?conversation_id={id}")).await;
    assert_eq!(texts(&found, "description"), ["Buy milk", "Call Bob"]);
    let path = format!("/v1/action-items/{}", found[1]["id"].as_str().unwrap());
    let (status, done) = rig.call("ana", "PATCH", &path, Some(json!({ "completed": true }))).await;
    assert_eq!(
        (status, done["completed"].as_bool(), done["completed_at"].is_string()),
        (200, Some(true), true)
    );
    let shown = rig.read("ana", &id).await["structured"]["action_items"].clone();
    assert_eq!(
        (shown[0]["description"].as_str(), shown[0]["completed"].as_bool()),
        (Some("Call Bob"), Some(true))
    );
    assert_eq!(shown[0]["completed_at"], done["completed_at"]);

    rig.post("ana", &format!("/v1/conversations/{id}/reprocess"), None).await;
    rig.process_next_job_with("Plans", &["call Bob"], &[]).await.unwrap();
    let left = items(&rig, "").await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(
        (left[0]["id"].as_str(), left[0]["completed"].as_bool()),
        (found[1]["id"].as_str(), Some(true))
    );
    assert_eq!(rig.get("ana", "/v1/memories").await.1, json!([]));
}

#[tokio::test]
async fn an_action_item_is_made_reworded_timed_and_deleted_by_hand() {
    let rig = Rig::new().await;
    let new = json!({ "description": "  Call Bob ", "due_at": "2026-02-01T09:00:00Z" });
    let (status, made) = rig.post("ana", "/v1/action-items", Some(new)).await;
    assert_eq!(
        (status, made["description"].as_str(), made["edited"].as_bool()),
        (201, Some("Call Bob"), Some(true))
    );
    assert_eq!(made["due_at"], "2026-02-01T09:00:00.000000Z");
    let path = format!("/v1/action-items/{}", made["id"].as_str().unwrap());
    let change = async |body: Value| rig.call("ana", "PATCH", &path, Some(body)).await.1;
    assert_eq!(change(json!({ "description": "Ring Bob" })).await["description"], "Ring Bob");
    assert_eq!(change(json!({})).await["due_at"], "2026-02-01T09:00:00.000000Z", "what is absent stays");
    assert_eq!(change(json!({ "due_at": null })).await["due_at"], Value::Null);
    assert_eq!(rig.call("ana", "DELETE", &path, None).await, (204, Value::Null));
    assert_eq!(rig.get("ana", &path).await.0, 404);
    for (body, wrong) in [
        (json!({ "description": " " }), "empty"),
        (json!({ "description": "a\u{7}b" }), "not printable"),
        (json!({ "description": "a".repeat(1_001) }), "too long"),
        (json!({ "description": "x", "due_at": "soon" }), "no time"),
        (json!({}), "missing"),
    ] {
        assert_eq!(rig.post("ana", "/v1/action-items", Some(body)).await.0, 422, "{wrong}");
    }
}

#[tokio::test]
async fn action_items_are_listed_by_state_and_time_in_pages() {
    let rig = Rig::new().await;
    for (text, due) in [("One", "2026-02-01T00:00:00Z"), ("Two", "2026-02-02T00:00:00Z")] {
        rig.post("ana", "/v1/action-items", Some(json!({ "description": text, "due_at": due }))).await;
    }
    rig.post("ana", "/v1/action-items", Some(json!({ "description": "Three" }))).await;
    let one = items(&rig, "?due_before=2026-02-02T00:00:00Z").await;
    assert_eq!(texts(&one, "description"), ["One"]);
    let path = format!("/v1/action-items/{}", one[0]["id"].as_str().unwrap());
    rig.call("ana", "PATCH", &path, Some(json!({ "completed": true }))).await;
    assert_eq!(texts(&items(&rig, "?completed=true").await, "description"), ["One"]);
    assert_eq!(texts(&items(&rig, "?completed=false").await, "description"), ["Three", "Two"]);
    assert_eq!(texts(&items(&rig, "?due_from=2026-02-02T00:00:00Z").await, "description"), ["Two"]);
    assert_eq!(texts(&items(&rig, "?limit=1&offset=1").await, "description"), ["Two"]);
    for query in ["?completed=maybe", "?due_from=soon", "?limit=0", "?limit=201"] {
        assert_eq!(rig.get("ana", &format!("/v1/action-items{query}")).await.0, 422, "{query}");
    }
}

#[tokio::test]
async fn a_memory_is_made_reworded_and_deleted() {
    let rig = Rig::new().await;
    let (status, made) = rig.post("ana", "/v1/memories", Some(json!({ "text": "Has a dog" }))).await;
    assert_eq!((status, made["text"].as_str()), (201, Some("Has a dog")));
    let path = format!("/v1/memories/{}", made["id"].as_str().unwrap());
    let (status, changed) = rig.call("ana", "PATCH", &path, Some(json!({ "text": "Has two dogs" }))).await;
    assert_eq!((status, changed["text"].as_str()), (200, Some("Has two dogs")));
    assert_eq!(rig.get("ana", &path).await.1, changed);
    assert_eq!(texts(rig.get("ana", "/v1/memories").await.1.as_array().unwrap(), "text"), ["Has two dogs"]);
    assert_eq!(rig.call("ana", "DELETE", &path, None).await.0, 204);
    assert_eq!(rig.get("ana", "/v1/memories").await.1, json!([]));
}

#[tokio::test]
async fn records_are_exported_in_each_form() {
    let rig = Rig::new().await;
    rig.post("ana", "/v1/action-items", Some(json!({ "description": "Call \"Bob\", now" }))).await;
    rig.post("ana", "/v1/memories", Some(json!({ "text": "Has a dog" }))).await;
    let export = async |path: &str| {
        let request = Request::builder().uri(path).header(header::AUTHORIZATION, Rig::bearer("ana"));
        let response = rig.send(request.body(Body::empty()).unwrap()).await;
        let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (kind, String::from_utf8(bytes.to_vec()).unwrap())
    };
    let (kind, page) = export("/v1/action-items/export?format=markdown").await;
    assert_eq!(
        (kind.as_str(), page.as_str()),
        ("text/markdown; charset=utf-8", "# Action items\n\n- [ ] Call \"Bob\", now\n")
    );
    let (kind, table) = export("/v1/action-items/export?format=csv").await;
    assert!(kind.starts_with("text/csv") && table.contains("\"Call \"\"Bob\"\", now\",false,"), "{table}");
    let (kind, json) = export("/v1/action-items/export").await;
    let read: Vec<auricle_wire::rest::ActionItem> = serde_json::from_str(&json).unwrap();
    assert_eq!((kind.as_str(), read[0].description.as_str()), ("application/json", "Call \"Bob\", now"));
    assert_eq!(export("/v1/memories/export?format=markdown").await.1, "# Memories\n\n- Has a dog\n");
    assert!(export("/v1/memories/export").await.1.contains("Has a dog"));
    assert_eq!(rig.get("ana", "/v1/memories/export?format=csv").await.0, 422, "it has no columns");
}
