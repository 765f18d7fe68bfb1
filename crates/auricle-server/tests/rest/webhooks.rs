//! Webhooks and apps: what is taken, what is shown, and a test that arrives.

use auricle_core::ids::random_uuid;
use auricle_server::clock::SystemClock;
use auricle_testkit::{SinkMode, WebhookSink};
use auricle_wire::signature;
use serde_json::{Value, json};

use crate::rest::rig::Rig;

async fn added(rig: &Rig, body: Value) -> Value {
    let (status, webhook) = rig.post("ana", "/v1/webhooks", Some(body)).await;
    assert_eq!(status, 201, "{webhook}");
    webhook
}

fn path(webhook: &Value, rest: &str) -> String {
    format!("/v1/webhooks/{}{rest}", webhook["id"].as_str().unwrap())
}

#[tokio::test]
async fn a_secret_is_shown_once() {
    let rig = Rig::new().await;
    let made = added(&rig, json!({ "url": "http://127.0.0.1:9/hook" })).await;
    let secret = made["secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_") && secret.len() == 70, "256 bits");
    assert_eq!((made["kind"].as_str(), made["name"].as_str()), (Some("developer"), Some("127.0.0.1:9")));
    assert_eq!((&made["triggers"], made["state"].as_str()), (&json!(["memory_created"]), Some("on")));
    let read = rig.get("ana", &path(&made, "")).await.1;
    assert!(read.get("secret").is_none(), "{read}");
    let listed = rig.get("ana", "/v1/webhooks").await.1;
    assert!(!listed.to_string().contains("whsec_"), "{listed}");
    let changed = rig.call("ana", "PATCH", &path(&made, ""), Some(json!({ "name": "Mine" }))).await.1;
    assert_eq!((changed["name"].as_str(), changed.get("secret")), (Some("Mine"), None));
    let rotated = rig.post("ana", &path(&made, "/rotate"), None).await.1;
    assert!(rotated["secret"].as_str().is_some_and(|new| new != secret));
}

#[tokio::test]
async fn what_cannot_be_a_webhook_is_refused_with_its_reason() {
    let rig = Rig::new().await;
    let long = format!("http://127.0.0.1/{}", "x".repeat(3_000));
    for (body, reason) in [
        (json!({ "url": "ftp://a/x" }), "http"),
        (json!({ "url": "nonsense" }), "http"),
        (json!({ "url": "http://user:pass@127.0.0.1/" }), "user name"),
        (json!({ "url": long }), "longer"),
        (json!({ "url": "http://127.0.0.1/", "kind": "robot" }), "developer and app"),
        (json!({ "url": "http://127.0.0.1/", "triggers": [] }), "At least one"),
        (json!({ "url": "http://127.0.0.1/", "triggers": ["everything"] }), "memory_created"),
        (json!({ "url": "http://127.0.0.1/", "kind": "app", "triggers": ["day_summary"] }), "developers"),
        (json!({ "url": "http://127.0.0.1/", "audio_seconds": 0 }), "1 to 60"),
        (json!({ "url": "http://127.0.0.1/", "name": "\u{7}" }), "printable"),
    ] {
        let (status, answer) = rig.post("ana", "/v1/webhooks", Some(body.clone())).await;
        let detail = answer["detail"].as_str().unwrap();
        assert!(status == 422 && detail.contains(reason), "{body}: {status} {detail}");
        assert!(!detail.contains(":pass@"), "{detail}");
    }
    assert_eq!(rig.get("ana", "/v1/webhooks").await.1, json!([]));
}

#[tokio::test]
async fn a_webhook_may_not_lead_inside() {
    let rig = Rig::public_only().await;
    for url in ["http://127.0.0.1:9/", "http://10.0.0.1/", "http://localhost:9/", "http://[::1]/"] {
        let (status, answer) = rig.post("ana", "/v1/webhooks", Some(json!({ "url": url }))).await;
        let detail = answer["detail"].as_str().unwrap();
        assert!(status == 422 && detail.contains("webhooks.allow_private"), "{url}: {detail}");
    }
    let made = added(&rig, json!({ "url": "https://1.1.1.1/hook" })).await;
    let change = Some(json!({ "url": "http://169.254.169.254/latest" }));
    assert_eq!(rig.call("ana", "PATCH", &path(&made, ""), change).await.0, 422);
}

#[tokio::test]
async fn a_test_arrives_signed_and_marked_and_its_answer_is_shown() {
    let rig = Rig::new().await;
    let sink = WebhookSink::start().await.unwrap();
    sink.say(r#"{"message": "I hear you"}"#);
    for (trigger, kind) in
        [("memory_created", "app"), ("realtime_transcript", "developer"), ("audio_bytes", "app")]
    {
        let new = json!({ "url": format!("{}/hook?key=1", sink.url()), "kind": kind, "triggers": [trigger] });
        let made = added(&rig, new).await;
        let (status, tested) = rig.post("ana", &path(&made, "/test"), None).await;
        assert_eq!(
            (status, tested["taken"].as_bool(), tested["status"].as_u64()),
            (200, Some(true), Some(200))
        );
        assert_eq!(tested["answer"], r#"{"message": "I hear you"}"#);
        let delivery = sink.take().remove(0);
        assert!(delivery.query.contains("uid=ana") && delivery.query.contains("test=true"));
        assert_eq!(delivery.headers["x-auricle-trigger"], trigger);
        assert!(delivery.key.unwrap().starts_with("test:"));
        let signed = delivery.headers[signature::HEADER].to_str().unwrap();
        let now = SystemClock.wall().0 / 1_000_000;
        let secret = made["secret"].as_str().unwrap();
        assert_eq!(signature::verify(secret, signed, &delivery.body, now, signature::TOLERANCE), Ok(()));
        let read = rig.get("ana", &path(&made, "")).await.1;
        assert_eq!((read["delivered"].as_u64(), read["failed"].as_u64()), (Some(0), Some(0)), "no delivery");
    }
    sink.set(SinkMode::Status(500));
    let made = added(&rig, json!({ "url": sink.url() })).await;
    let tested = rig.post("ana", &path(&made, "/test"), None).await.1;
    assert_eq!((tested["taken"].as_bool(), tested["status"].as_u64()), (Some(false), Some(500)));
    assert!(rig.get("ana", "/v1/messages").await.1.as_array().unwrap().is_empty());
}

#[tokio::test]
async fn deliveries_are_seen_held_and_replayed() {
    let rig = Rig::new().await;
    let made = added(&rig, json!({ "url": "http://127.0.0.1:9/hook" })).await;
    let id = rig.completed("ana", "Hers", &["Words."]).await;
    let seen = rig.get("ana", &path(&made, "/deliveries")).await.1;
    assert_eq!((seen.as_array().unwrap().len(), seen[0]["state"].as_str()), (1, Some("pending")));
    assert_eq!(seen[0]["conversation_id"], id.as_str());
    let key = format!("conversation:{id}:finalization:1:target:{}", made["id"].as_str().unwrap());
    assert_eq!(seen[0]["idempotency_key"], key);
    let set = async |state: &str| {
        rig.call("ana", "PATCH", &path(&made, ""), Some(json!({ "state": state }))).await.1
    };
    assert_eq!(
        (&set("paused").await["state"], &set("paused").await["waiting"]),
        (&json!("paused"), &json!(1))
    );
    assert_eq!(set("off").await["waiting"], 0);
    assert_eq!(rig.get("ana", &path(&made, "/deliveries")).await.1[0]["state"], "failed");
    assert_eq!(rig.post("ana", &path(&made, "/replay"), None).await.0, 409);
    set("on").await;
    assert_eq!(rig.post("ana", &path(&made, "/replay"), None).await, (200, json!({ "replayed": 1 })));
    let one = Some(json!({ "delivery_id": seen[0]["id"] }));
    assert_eq!(rig.post("ana", &path(&made, "/replay"), one).await, (200, json!({ "replayed": 1 })));
    let none = Some(json!({ "delivery_id": random_uuid(&mut rand::rng()) }));
    assert_eq!(rig.post("ana", &path(&made, "/replay"), none).await.0, 404);
}
