//! Bad input is a 4xx that says what is wrong; trouble of our own tells the client nothing but a reference.

use auricle_server::rest::ROUTES;
use auricle_store::Store;
use axum::body::Body;
use axum::http::{Request, header};
use serde_json::{Value, json};

use crate::rest::rig::Rig;

#[tokio::test]
async fn parameters_out_of_range_are_refused_with_their_range() {
    let rig = Rig::new().await;
    for path in [
        "/v1/conversations?limit=0",
        "/v1/conversations?limit=201",
        "/v1/conversations?limit=-1",
        "/v1/conversations?limit=many",
        "/v1/conversations?offset=1000001",
        "/v1/conversations?offset=18446744073709551616",
        "/v1/conversations?statuses=completed,done",
        "/v1/conversations?include_discarded=perhaps",
        "/v1/search",
        "/v1/search?q=",
        "/v1/search?q=%20",
        "/v1/search?q=a&limit=0",
        "/v1/jobs?state=lost",
        "/v1/jobs?limit=1000",
    ] {
        let (status, body) = rig.get("ana", path).await;
        assert_eq!(status, 422, "{path}: {body}");
        assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{path}: {body}");
    }
    let long = format!("/v1/search?q={}", "a".repeat(1_001));
    assert_eq!(rig.get("ana", &long).await.0, 422);
}

#[tokio::test]
async fn wrong_bodies_are_refused_and_never_a_500() {
    let rig = Rig::new().await;
    let id = rig.completed("ana", "Made", &["Words."]).await;
    let title = format!("/v1/conversations/{id}/title");
    let odd =
        ["nonsense", "[]", "7", "null", "{", "{\"title\":7}", "{\"title\":null}", "{\"query\":[]}", "\u{0}"];
    for (method, path) in
        [("POST", "/v1/conversations/search"), ("PATCH", title.as_str()), ("PUT", "/v1/users/me/time-zone")]
    {
        for text in odd.iter().chain(&[""]) {
            let (status, body) = rig.call_text("ana", method, path, (*text).to_owned()).await;
            assert_eq!(status, 422, "{method} {path} {text:?}: {body}");
            assert!(body["detail"].is_string());
        }
    }
    for (method, path, body) in [
        ("POST", "/v1/conversations", json!({ "conversation_id": 7 })),
        ("POST", "/v1/conversations/search", json!({ "query": "a", "page": 0 })),
        ("POST", "/v1/conversations/search", json!({ "query": "a", "per_page": 0 })),
        ("POST", "/v1/conversations/search", json!({ "query": "a", "page": -1 })),
        ("POST", "/v1/conversations/search", json!({ "query": "a", "page": u64::MAX })),
        ("POST", "/v1/conversations/search", json!({ "query": "" })),
        ("PATCH", &title, json!({ "title": "  " })),
        ("PATCH", &title, json!({ "title": "x".repeat(201) })),
        ("PATCH", &title, json!({ "title": "two\nlines" })),
        ("PUT", "/v1/users/me/time-zone", json!({ "time_zone": "Mars/Olympus" })),
        ("PUT", "/v1/users/me/time-zone", json!({ "time_zone": "../../etc/passwd" })),
    ] {
        assert_eq!(rig.call("ana", method, path, Some(body.clone())).await.0, 422, "{method} {path} {body}");
    }
    assert_eq!(rig.read("ana", &id).await["structured"]["title"], "Made");
}

#[tokio::test]
async fn odd_ids_name_nothing() {
    let rig = Rig::new().await;
    for id in [
        "x".repeat(5_000),
        "%00".to_owned(),
        "%2E%2E%2F".to_owned(),
        "'%20OR%201=1".to_owned(),
        "%F0%9F%8E%A7".to_owned(),
    ] {
        for (method, template) in ROUTES.iter().filter(|(_, path)| path.contains("{id}")) {
            let body = match *template {
                "/v1/webhooks/{id}" => Some(json!({ "name": "T" })),
                // Good for whichever of the others takes one.
                _ => Some(json!({
                    "title": "T", "description": "D", "text": "T", "name": "N",
                    "model": "m", "vector": [1.0], "seconds": 1.0,
                    "segment_ids": ["s"], "assign_type": "is_user", "value": "true",
                })),
            };
            let path = template.replace("{id}", &id);
            assert_eq!(rig.call("ana", &method.to_uppercase(), &path, body).await.0, 404, "{method} {path}");
        }
    }
    let (status, body) = rig.get("ana", "/v1/conversations/%FF").await;
    assert!(status == 400 && body["detail"].is_string(), "{status} {body}");
}

#[tokio::test]
async fn a_body_beyond_its_bound_is_refused() {
    let rig = Rig::with_limits(|limits| limits.request_body_bytes_max = 1_000).await;
    let asked = json!({ "query": "x".repeat(2_000) }).to_string();
    let (status, body) = rig.call_text("ana", "POST", "/v1/conversations/search", asked).await;
    assert!(status == 413 && body["detail"].is_string(), "{status} {body}");
}

#[tokio::test]
async fn unknown_routes_and_methods_answer_in_the_same_form() {
    let rig = Rig::new().await;
    assert_eq!(rig.get("ana", "/v1/nothing").await, (404, json!({ "detail": "Not Found" })));
    let (status, body) = rig.call("ana", "PUT", "/v1/conversations", None).await;
    assert_eq!((status, body), (405, json!({ "detail": "Method Not Allowed" })));
}

#[tokio::test]
async fn a_store_that_is_busy_says_when_to_come_back() {
    let rig = Rig::new().await;
    rig.store.close().await;
    let request = Request::builder().uri("/v1/conversations").body(Body::empty()).unwrap();
    let response = rig.send(request).await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    let (_, body): (_, Value) = rig.get("ana", "/v1/conversations").await;
    assert_eq!(body["detail"], "The store is busy or full; try again later");
}
