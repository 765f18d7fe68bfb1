//! The scripted server, the faulty network and the client, against each other.

#![allow(clippy::unwrap_used, reason = "what a test stands on must hold")]

use std::collections::HashMap;
use std::time::Duration;

use auricle_testkit::{
    Act, Connect, ConnectError, Fault, FaultyProxy, LlmMode, LlmStandIn, Received, ScriptedServer, SinkMode,
    WebhookSink,
};
use auricle_wire::event::ServerMessage;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

/// What comes back for a POST until the other end closes, or for a moment.
async fn post(address: std::net::SocketAddr, path: &str, headers: &str, body: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_millis(300), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn the_stand_in_for_a_model_does_as_it_is_told_and_counts() {
    let llm = LlmStandIn::start().await.unwrap();
    let prompt = r#"{"messages":[{},{"content":"<transcript>\n1 S0: I will call Bo\n</transcript>"}]}"#;
    let ask = || {
        let id = "x-client-request-id: conversation:c1:understand:1\r\n";
        post(llm.address(), "/v1/chat/completions", id, prompt)
    };
    let answer = ask().await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("I will call Bo"), "{answer}");
    llm.set(LlmMode::Busy(7));
    assert!(ask().await.contains("retry-after: 7"));
    llm.set(LlmMode::Hang(WAIT));
    assert_eq!(ask().await, "");
    llm.set(LlmMode::Reset);
    let cut = ask().await;
    assert!(cut.starts_with("HTTP/1.1 200") && !cut.ends_with("0\r\n\r\n"), "{cut}");
    assert_eq!((llm.calls(), llm.calls_for("c1"), llm.calls_for("c2")), (4, 4, 0));
}

#[tokio::test]
async fn the_sink_keeps_what_arrived_in_its_order_and_nothing_else() {
    let sink = WebhookSink::start().await.unwrap();
    let send = |body: &'static str| post(sink.address(), "/hook?uid=ann", "idempotency-key: k1\r\n", body);
    assert!(send("one").await.starts_with("HTTP/1.1 200"));
    sink.set(SinkMode::Hang(WAIT));
    assert_eq!(send("two").await, "");
    sink.set(SinkMode::TakeThenHang);
    assert_eq!(send("three").await, "");
    sink.set(SinkMode::Status(410));
    assert!(send("four").await.starts_with("HTTP/1.1 410"));
    let taken = sink.take();
    let bodies: Vec<_> = taken.iter().map(|delivery| delivery.body.as_ref()).collect();
    assert_eq!(bodies, [&b"one"[..], b"three", b"four"]);
    assert_eq!((taken[0].path.as_str(), taken[0].query.as_str()), ("/hook", "uid=ann"));
    assert_eq!((taken[0].key.as_deref(), sink.requests(), sink.deliveries().len()), (Some("k1"), 4, 0));
}
