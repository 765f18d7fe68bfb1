//! Who gets in, and what the others are told.

use auricle_testkit::{Connect, ConnectError};
use auricle_wire::event::Event;
use serde_json::json;

use crate::rig::{Device, Rig, eventually};

const KEY: &str = "a-key-for-tests:";

async fn device(connect: Connect) -> Device {
    Device { client: connect.open().await.unwrap(), seen: Vec::new() }
}

#[tokio::test]
async fn a_wrong_token_is_closed_after_the_upgrade_with_the_code_that_clients_read() {
    let rig = Rig::start(&[("auth.api_keys", "true")]).await;
    for _ in 0..2 {
        let device = device(rig.connect().token("auk_nobody-has-this-key")).await;
        assert_eq!(device.closed().await, (1008, "Invalid authorization token".into()));
    }
}

#[tokio::test]
async fn the_browser_endpoint_takes_its_token_from_the_first_message() {
    let rig = Rig::start(&[("auth.api_keys", "true"), ("limits.web_auth_wait", "200ms")]).await;
    let url = format!("ws://{}", rig.public());
    let web = || Connect::new(&url).web().param("codec", "pcm16").param("sample_rate", 16_000);
    let mut wrong = device(web()).await;
    wrong.client.authenticate("auk_nobody-has-this-key").await;
    wrong.event("auth_response", |e| matches!(e, Event::AuthResponse { success: false })).await;
    assert_eq!(wrong.closed().await.0, 1008);
    let silent = device(web()).await;
    assert_eq!(silent.closed().await, (1008, "Auth timeout".into()));
    let mut chatty = device(web()).await;
    chatty.client.send_text(json!({"type": "hello"}).to_string()).await;
    assert_eq!(chatty.closed().await.0, 1008);
}

#[tokio::test]
async fn pages_of_other_sites_cannot_listen_as_the_local_user() {
    let rig = Rig::start(&[]).await;
    let url = format!("ws://{}", rig.public());
    let foreign = device(rig.connect().origin("https://elsewhere.example")).await;
    assert_eq!(foreign.closed().await.0, 1008);
    let web = |origin: &str| Connect::new(&url).web().param("codec", "pcm16").origin(origin);
    let mut foreign = device(web("https://elsewhere.example")).await;
    foreign.client.authenticate("anything").await;
    foreign.event("auth_response", |e| matches!(e, Event::AuthResponse { success: false })).await;
    assert_eq!(foreign.closed().await.0, 1008);
    let mut own = device(web(&format!("http://{}", rig.public()))).await;
    own.client.authenticate("anything").await;
    own.event("auth_response", |e| matches!(e, Event::AuthResponse { success: true })).await;
}

#[tokio::test]
async fn a_full_house_answers_503_before_the_upgrade_and_has_room_again_later() {
    let rig = Rig::start(&[("limits.sessions_max", "2")]).await;
    let first = rig.device().await;
    let second = rig.device_as(rig.connect().param("source", "phone")).await;
    match rig.connect().open().await {
        Err(ConnectError::Refused { status: 503, retry_after, .. }) => assert!(retry_after.is_some()),
        other => panic!("expected a refusal: {:?}", other.map(|_| "a session")),
    }
    assert_eq!(rig.probe("/readyz").await.0, 503);
    assert_eq!(rig.probe("/livez").await.0, 200);
    first.client.close().await;
    second.client.close().await;
    eventually("room", async || rig.connect().open().await.ok().map(drop)).await;
}

#[tokio::test]
async fn wrong_parameters_are_closed_with_what_is_wrong() {
    let rig = Rig::start(&[]).await;
    let device = device(rig.connect().param("conversation_timeout", "soon")).await;
    let (code, reason) = device.closed().await;
    assert_eq!(code, 1008);
    assert!(reason.contains("conversation_timeout"), "{reason}");
}

#[tokio::test]
async fn an_unknown_codec_is_taken_as_pcm16() {
    let rig = Rig::start(&[]).await;
    let connect =
        Connect::new(&format!("ws://{}", rig.public())).param("codec", "newer").param("sample_rate", 16_000);
    let mut device = rig.device_as(connect).await;
    device.speak(2.0).await;
    device.texts_up_to("report").await;
}

#[tokio::test]
async fn each_user_sees_only_their_own() {
    let rig = Rig::start(&[("auth.admin_key", KEY)]).await;
    let mut anne = rig.device_as(rig.connect().token(&format!("{KEY}anne"))).await;
    let id = anne.conversation().await;
    anne.speak(2.0).await;
    anne.texts_up_to("report").await;
    let ask = |user: &'static str, path: String| {
        let url = format!("http://{}{path}", rig.public());
        let request = reqwest::Client::builder().no_proxy().build().unwrap().get(url);
        async move { request.bearer_auth(format!("{KEY}{user}")).send().await.unwrap().status().as_u16() }
    };
    assert_eq!(ask("anne", format!("/v1/conversations/{id}")).await, 200);
    assert_eq!(ask("bert", format!("/v1/conversations/{id}")).await, 404);
    // The other cannot take it over by its name either.
    let bert = rig.connect().token(&format!("{KEY}bert")).param("client_conversation_id", &id);
    let mut bert = rig.device_as(bert).await;
    assert_ne!(bert.conversation().await, id);
    anne.speak(4.0).await;
    anne.texts_up_to("tomorrow").await;
}

#[tokio::test]
async fn a_draining_server_says_so_and_refuses_what_is_new() {
    let mut rig = Rig::start(&[]).await;
    let device = rig.device().await;
    let (stopped, closed) = tokio::join!(rig.stop(), device.closed());
    let () = stopped;
    assert_eq!(closed.0, 1012);
}
