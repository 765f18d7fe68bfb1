//! Everybody sees only their own.

use axum::body::Body;
use axum::http::{Request, header};
use serde_json::{Value, json};

use crate::rest::rig::Rig;
use auricle_server::rest::ROUTES;

/// A body that the route would accept, so that nothing but the user stands in the way.
fn body(path: &str) -> Option<Value> {
    match path {
        "/v1/action-items/{id}" => Some(json!({ "description": "Taken" })),
        "/v1/memories/{id}" => Some(json!({ "text": "Taken" })),
        "/v1/users/people/{id}/name" => Some(json!({ "name": "Taken" })),
        "/v1/users/people/{id}/voices" => Some(json!({ "model": "m", "vector": [1.0], "seconds": 1.0 })),
        "/v1/conversations/{id}/segments/assign-bulk" => {
            Some(json!({ "segment_ids": ["x"], "assign_type": "is_user", "value": "true" }))
        }
        "/v1/conversations/{id}/segments/{idx}/assign"
        | "/v1/conversations/{id}/assign-speaker/{speaker_id}" => {
            Some(json!({ "assign_type": "is_user", "value": "true" }))
        }
        "/v1/webhooks/{id}" => Some(json!({ "name": "Taken", "state": "off" })),
        _ => path.ends_with("/title").then(|| json!({ "title": "Taken" })),
    }
}

/// A path whose numbers are some.
fn plain(template: &str) -> String {
    template.replace("{idx}", "0").replace("{speaker_id}", "0")
}

#[tokio::test]
async fn every_route_with_an_id_answers_another_user_as_if_it_did_not_exist() {
    let rig = Rig::new().await;
    let done = rig.ended("ana", &["Words."]).await;
    rig.process_next_job_with("Hers", &["Call Bob"], &["Has a dog"]).await.unwrap();
    let first = async |path| rig.get("ana", path).await.1[0]["id"].as_str().unwrap().to_owned();
    let (item, memory) = (first("/v1/action-items").await, first("/v1/memories").await);
    let failed = rig.ended("ana", &["Words."]).await;
    rig.fail_next_job().await;
    let job = rig.get("ana", "/v1/jobs?state=failed").await.1[0]["id"].as_str().unwrap().to_owned();
    let new = json!({ "url": "http://127.0.0.1:9/hook" });
    let hook = rig.post("ana", "/v1/webhooks", Some(new)).await.1["id"].as_str().unwrap().to_owned();
    let person = rig.post("ana", "/v1/users/people", Some(json!({ "name": "Bob" }))).await.1;
    let person = person["id"].as_str().unwrap().to_owned();
    let people = rig.get("ana", "/v1/users/people").await;
    let hooks = rig.get("ana", "/v1/webhooks").await;
    let before = (rig.stored("ana", &done).await, rig.stored("ana", &failed).await);
    let mut tried = 0;
    let (_, upload) = rig.post("ana", "/v1/uploads", Some(json!({ "no": "audio" }))).await;
    let upload = upload["id"].as_str().unwrap().to_owned();
    for (method, template) in ROUTES.iter().filter(|(_, path)| path.contains("{id}")) {
        let ids = match template.split('/').nth(2) {
            Some("jobs") => vec![job.as_str()],
            Some("action-items") => vec![item.as_str()],
            Some("memories") => vec![memory.as_str()],
            Some("webhooks") => vec![hook.as_str()],
            Some("uploads") => vec![upload.as_str()],
            Some("users") => vec![person.as_str()],
            _ => vec![done.as_str(), failed.as_str()],
        };
        for id in ids {
            let call = |id: &str| (method.to_uppercase(), plain(&template.replace("{id}", id)));
            let (verb, path) = call(id);
            let (_, nowhere) = call("no-such-thing");
            let hers = rig.call("eve", &verb, &path, body(template)).await;
            assert_eq!(hers.0, 404, "{verb} {path}");
            assert_eq!(hers, rig.call("eve", &verb, &nowhere, body(template)).await, "{verb} {path}");
            tried += 1;
        }
    }
    assert!(tried >= 25, "{tried}");
    let text = async |path: String, key: &str| rig.get("ana", &path).await.1[key].clone();
    assert_eq!(text(format!("/v1/action-items/{item}"), "description").await, "Call Bob");
    assert_eq!(text(format!("/v1/memories/{memory}"), "text").await, "Has a dog");
    assert_eq!(rig.get("ana", "/v1/webhooks").await, hooks);
    assert_eq!(rig.get("ana", "/v1/users/people").await, people);
    assert_eq!((rig.stored("ana", &done).await, rig.stored("ana", &failed).await), before, "nothing changed");
}

#[tokio::test]
async fn another_users_conversation_cannot_be_finalised() {
    let rig = Rig::new().await;
    let id = rig.heard("ana", &["Words."]).await;
    rig.left("ana", &id).await;
    for (path, body) in [
        (format!("/v1/conversations?conversation_id={id}"), None),
        ("/v1/conversations".to_owned(), Some(json!({ "conversation_id": id.as_str() }))),
        ("/v1/conversations".to_owned(), None),
    ] {
        assert_eq!(rig.post("eve", &path, body).await.0, 404, "{path}");
    }
    assert_eq!(rig.read("ana", &id).await["status"], "in_progress");
}

#[tokio::test]
async fn listings_and_searches_hold_only_ones_own() {
    let rig = Rig::new().await;
    let id = rig.ended("ana", &["A zebra."]).await;
    rig.process_next_job_with("Zebra", &["Feed the zebra"], &["Has a zebra"]).await.unwrap();
    let of = [format!("/v1/action-items?conversation_id={id}"), format!("/v1/memories?conversation_id={id}")];
    rig.post("ana", "/v1/webhooks", Some(json!({ "url": "http://127.0.0.1:9/hook" }))).await;
    rig.post("ana", "/v1/users/people", Some(json!({ "name": "Bob" }))).await;
    for path in [
        "/v1/conversations",
        "/v1/jobs",
        "/v1/webhooks",
        "/v1/messages",
        "/v1/users/people",
        "/v1/action-items",
        "/v1/action-items/export",
        "/v1/memories",
        "/v1/memories/export",
        &of[0],
        &of[1],
    ] {
        assert_eq!(rig.get("eve", path).await, (200, json!([])), "{path}");
    }
    assert_eq!(rig.get("eve", "/v1/search?q=zebra").await.1["results"], json!([]));
    let asked = Some(json!({ "query": "zebra" }));
    assert_eq!(rig.post("eve", "/v1/conversations/search", asked).await.1["items"], json!([]));
}

#[tokio::test]
async fn every_route_but_the_public_ones_needs_a_credential() {
    let rig = Rig::new().await;
    for (method, template) in ROUTES {
        let path = plain(&template.replace("{id}", "x"));
        let request = Request::builder()
            .method(method.to_uppercase().as_str())
            .uri(&path)
            .header(header::AUTHORIZATION, "Bearer not-a-token")
            .body(Body::from("not json"))
            .unwrap();
        let status = rig.send(request).await.status().as_u16();
        let public = ["/health", "/v1/health", "/openapi.json"].contains(template);
        assert_eq!(status, if public { 200 } else { 401 }, "{method} {path}");
    }
}

#[tokio::test]
async fn a_page_of_another_site_cannot_read_the_local_users_records() {
    let rig = Rig::new().await;
    let request = Request::builder()
        .uri("/v1/conversations")
        .header(header::HOST, "127.0.0.1:8080")
        .header(header::ORIGIN, "https://example.org");
    let response = rig.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), 403);
    assert!(response.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_none());
}
