//! The scripted server, the faulty network and the client, against each other.

use std::collections::HashMap;
use std::time::Duration;

use auricle_testkit::{Act, Connect, ConnectError, Fault, FaultyProxy, Received, ScriptedServer};
use auricle_wire::event::ServerMessage;

const WAIT: Duration = Duration::from_secs(10);
const SEGMENTS: &str = r#"[{"id":"a","text":"Hello.","is_user":false,"start":0.0,"end":0.5}]"#;

#[tokio::test]
async fn a_client_sends_collects_answers_pings_and_sees_the_close() {
    let script = vec![
        Act::Say("ping".into()),
        Act::Hear(2),
        Act::Say(SEGMENTS.into()),
        Act::Say("no message".into()),
        Act::Close(1012, "going away"),
    ];
    let server = ScriptedServer::start(vec![script], HashMap::new()).await.unwrap();
    let base = server.url().replacen("http", "ws", 1);
    let mut client = Connect::new(&base).param("codec", "pcm16").token("secret").open().await.unwrap();
    assert!(client.send_audio(vec![1, 2, 3]).await);
    let (messages, found) = client.until(WAIT, Received::is_segments).await;
    assert!(found && messages.last().unwrap().segments()[0].text == "Hello.");
    assert_eq!(client.next(WAIT).await, Some(Received::Strange("no message".into())));
    assert_eq!(client.next(WAIT).await, Some(Received::Closed { code: 1012, reason: "going away".into() }));
    assert_eq!(client.pings(), 1);
    let heard = &server.sessions()[0];
    assert!(heard.head.starts_with("GET /v4/listen?codec=pcm16 ") && heard.head.contains("Bearer secret"));
    assert!(heard.binary.contains(&vec![1, 2, 3]) && heard.binary.contains(&vec![0x8A, 0x00]));
}

#[tokio::test]
async fn a_lost_connection_and_a_missing_script_are_told_apart_from_a_close() {
    let server = ScriptedServer::start(vec![vec![Act::Vanish]], HashMap::new()).await.unwrap();
    let base = server.url().replacen("http", "ws", 1);
    let mut client = Connect::new(&base).open().await.unwrap();
    assert_eq!(client.next(WAIT).await, Some(Received::Lost));
    assert!(matches!(Connect::new(&base).open().await, Err(ConnectError::Failed(_))));
}

#[tokio::test]
async fn waiting_ends_without_a_message() {
    let server = ScriptedServer::start(vec![vec![Act::Stay]], HashMap::new()).await.unwrap();
    let mut client = Connect::new(&server.url().replacen("http", "ws", 1)).web().open().await.unwrap();
    assert!(client.authenticate("t").await);
    let wait = Duration::from_millis(20);
    let (messages, found) =
        client.until(wait, |message| matches!(message, Received::Message(ServerMessage::Ping))).await;
    assert!(messages.is_empty() && !found);
}

#[tokio::test]
async fn a_faulty_network_does_what_it_is_told_to_connections_old_and_new() {
    let script = || vec![Act::Say(SEGMENTS.into()), Act::Hear(1), Act::Say(SEGMENTS.into()), Act::Stay];
    let server = ScriptedServer::start(vec![script(), script(), script()], HashMap::new()).await.unwrap();
    let target = server.url().trim_start_matches("http://").parse().unwrap();
    let network = FaultyProxy::start(target).await.unwrap();
    let connect = Connect::new(&format!("ws://{}", network.address()));
    let moment = Duration::from_millis(100);

    let mut client = connect.open().await.unwrap();
    assert!(client.next(WAIT).await.unwrap().is_segments());
    // Half-open: what is sent goes nowhere, and nobody says so.
    network.set(Fault::HalfOpen);
    assert!(client.send_audio(vec![1; 100]).await);
    assert_eq!(client.next(moment).await, None);
    network.set(Fault::None);
    assert!(client.send_audio(vec![2; 100]).await);
    assert!(client.next(WAIT).await.unwrap().is_segments());
    assert_eq!(server.sessions()[0].binary, [vec![2; 100]]);
    network.set(Fault::Refuse);
    assert_eq!(client.next(WAIT).await, Some(Received::Lost));
    assert!(connect.open().await.is_err());

    // A black hole: connected, but no answer to the upgrade, until it is gone.
    network.set(Fault::BlackHole);
    let mut late = Box::pin(connect.open());
    assert!(tokio::time::timeout(moment, &mut late).await.is_err());
    network.set(Fault::None);
    let mut client = late.await.unwrap();
    assert!(client.next(WAIT).await.unwrap().is_segments());
    network.set(Fault::ResetAfter(150));
    let _ = client.send_audio(vec![3; 1_000]).await;
    assert_eq!(client.next(WAIT).await, Some(Received::Lost));
    assert_eq!(server.sessions()[1].binary, Vec::<Vec<u8>>::new(), "a frame that was cut is none");

    network.set(Fault::Flap { up: moment, down: moment });
    assert_eq!(
        connect.open().await.unwrap().until(WAIT, Received::is_end).await.0.last(),
        Some(&Received::Lost)
    );
    assert!(network.connections() >= 4);
}
