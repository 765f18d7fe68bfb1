//! Everybody comes at once: limits hold exactly, what is refused costs nothing, and who is there feels nothing.

use std::net::SocketAddr;

use auricle_testkit::{Client, Connect, ConnectError};
use futures_util::StreamExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::{Rig, eventually};

const KEY: &str = "a-key-for-tests:";
/// Sockets that race at once: fewer than a usual process may have open, on both sides.
const AT_ONCE: usize = 256;

/// Pace that nobody feels, and room for every connection.
fn unpaced(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let mut settings =
        vec![("auth.admin_key", KEY), ("limits.accept_rate", "1000000"), ("limits.accept_burst", "1000000")];
    settings.extend(more);
    settings
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_lost_all_at_once_part_one_after_the_other_and_their_places_are_free_again() {
    let rig =
        Rig::start(&unpaced(&[("limits.partings_at_once_max", "1"), ("limits.sessions_max", "201")])).await;
    let (sessions, refused) = race(&rig, 200, |index| format!("u{index}")).await;
    assert_eq!((sessions.len(), refused), (200, 0));
    let mut device = rig.device_as(rig.connect().token(&format!("{KEY}stays"))).await;
    assert_eq!(refusal(rig.connect().token(&format!("{KEY}late"))).await, 503);
    for socket in &sessions {
        socket.set_zero_linger().unwrap();
    }
    drop(sessions);
    device.speak(2.5).await;
    device.texts_up_to("report").await;
    eventually("all have parted", async || {
        rig.metrics().await.contains("auricle_sessions_closed_total 200").then_some(())
    })
    .await;
    let (again, refused) = race(&rig, 200, |index| format!("u{index}")).await;
    assert_eq!((again.len(), refused), (200, 0));
}

/// The head of an upgrade's answer, and its socket.
async fn upgrade(address: SocketAddr, headers: &str) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /v4/listen?codec=pcm16&sample_rate=16000 HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut head, mut piece) = (Vec::new(), [0; 1_024]);
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let read = stream.read(&mut piece).await.expect("an answer to every upgrade");
        assert!(read > 0, "no answer to an upgrade");
        head.extend(&piece[..read]);
    }
    (String::from_utf8_lossy(&head).to_ascii_lowercase(), stream)
}

/// Races `count` upgrades; the sockets of those that were let in, which stay open, and how many were refused properly.
async fn race(rig: &Rig, count: usize, user: impl Fn(usize) -> String) -> (Vec<TcpStream>, usize) {
    let upgrades = (0..count).map(|index| {
        let headers = format!("Authorization: Bearer {KEY}{}\r\n", user(index));
        let address = rig.public();
        async move { upgrade(address, &headers).await }
    });
    let mut upgrades = futures_util::stream::iter(upgrades).buffer_unordered(AT_ONCE);
    let (mut sessions, mut refused) = (Vec::new(), 0);
    while let Some((head, stream)) = upgrades.next().await {
        if head.starts_with("http/1.1 101") {
            sessions.push(stream);
        } else {
            assert!(head.starts_with("http/1.1 503") && head.contains("\r\nretry-after: "), "{head}");
            refused += 1;
        }
    }
    (sessions, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_racing_upgrades_never_exceed_the_limit_by_one() {
    let rig = Rig::start(&unpaced(&[("limits.sessions_max", "40")])).await;
    let (sessions, refused) = race(&rig, 10_000, |index| format!("user-{index}")).await;
    assert_eq!((sessions.len(), refused), (40, 9_960));
    let (code, ready) = rig.probe("/readyz").await;
    assert_eq!((code, ready["sessions"].as_u64()), (503, Some(40)), "{ready}");
    let metrics = rig.metrics().await;
    assert!(metrics.contains("auricle_sessions_refused_total{reason=\"full\"} 9960"), "{metrics}");
    assert!(metrics.contains("auricle_sessions_opened_total 40"), "{metrics}");
    drop(sessions);
    eventually("ready", async || (rig.probe("/readyz").await.0 == 200).then_some(())).await;
    rig.still_serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_upgrades_of_one_user_never_exceed_theirs_and_leave_room_for_others() {
    let rig = Rig::start(&unpaced(&[("limits.sessions_per_user_max", "7")])).await;
    let (sessions, refused) = race(&rig, 500, |_| "anne".to_owned()).await;
    assert_eq!((sessions.len(), refused), (7, 493));
    assert_eq!(rig.probe("/readyz").await.1["sessions"], 7, "who was refused holds nothing");
    assert!(rig.metrics().await.contains("auricle_sessions_refused_total{reason=\"user_full\"} 493"));
    let mut bert = rig.device_as(rig.connect().token(&format!("{KEY}bert"))).await;
    bert.speak(2.0).await;
    bert.texts_up_to("report").await;
    drop(sessions);
}

#[tokio::test]
async fn a_refusal_waits_for_no_body_looks_at_no_token_and_ends_the_connection() {
    let rig = Rig::start(&[("auth.api_keys", "true"), ("limits.sessions_max", "1")]).await;
    let _device = rig.device().await;
    let attempts = async || {
        rig.metrics().await.lines().filter(|l| l.contains("auth_attempts_total")).collect::<String>()
    };
    let before = attempts().await;
    let headers = "Authorization: Bearer auk_nobody-has-this-key\r\nContent-Length: 1000000\r\n";
    let (head, mut stream) = upgrade(rig.public(), headers).await;
    assert!(head.starts_with("http/1.1 503") && head.contains("\r\nconnection: close\r\n"), "{head}");
    let mut body = Vec::new();
    // The server closes with the body that it never got unread, which may reset the connection.
    let _ = stream.read_to_end(&mut body).await;
    assert_eq!(attempts().await, before, "nobody asked who it was");
}

async fn refusal(connect: Connect) -> u16 {
    match connect.open().await {
        Err(ConnectError::Refused { status, retry_after, .. }) => {
            let secs: u64 = retry_after.expect("Retry-After").parse().expect("whole seconds");
            assert!((1..=10).contains(&secs), "{secs}");
            status
        }
        other => panic!("expected a refusal: {:?}", other.map(|_| "a session")),
    }
}

#[tokio::test]
async fn newcomers_beyond_the_pace_wait_for_their_turn_and_all_are_served() {
    let settings =
        [("limits.accept_rate", "20"), ("limits.accept_burst", "1"), ("limits.accept_wait_max", "20s")];
    let rig = Rig::start(&settings).await;
    let opening = (0..20).map(|index| rig.connect().param("source", ["omi", "phone"][index % 2]));
    let opened: Vec<_> =
        futures_util::future::join_all(opening.map(|connect| async move { connect.open().await })).await;
    let sessions: Vec<Client> = opened.into_iter().map(|client| client.expect("its turn came")).collect();
    assert_eq!(sessions.len(), 20);
    assert!(!rig.metrics().await.contains("auricle_sessions_refused_total"));
    assert_eq!(rig.probe("/readyz").await.0, 200);
}

#[tokio::test]
async fn who_would_wait_too_long_is_refused_and_readiness_turns_while_that_lasts() {
    let settings =
        [("limits.accept_rate", "1"), ("limits.accept_burst", "1"), ("limits.accept_wait_max", "1ms")];
    let rig = Rig::start(&settings).await;
    let mut device = rig.device().await;
    // Clients that do not listen to what they are told.
    let (code, ready) = eventually("not ready", async || {
        let refused = rig.connect().open().await.is_err();
        let answer = rig.probe("/readyz").await;
        (refused && answer.0 == 503).then_some(answer)
    })
    .await;
    assert_eq!(code, 503);
    assert!(ready["reasons"][0].as_str().unwrap().contains("limits.accept_rate"), "{ready}");
    assert_eq!(rig.probe("/livez").await.0, 200);
    assert!(rig.metrics().await.contains("auricle_sessions_refused_total{reason=\"pace\"}"));
    device.speak(2.0).await;
    device.texts_up_to("report").await;
    eventually("ready once they stop", async || (rig.probe("/readyz").await.0 == 200).then_some(())).await;
}

#[tokio::test]
async fn who_waits_for_its_turn_when_the_server_drains_is_told_so_at_once() {
    let settings =
        [("limits.accept_rate", "1"), ("limits.accept_burst", "1"), ("limits.accept_wait_max", "5m")];
    let mut rig = Rig::start(&settings).await;
    // The last would wait for four minutes.
    let waiting: Vec<_> = (0..240)
        .map(|_| {
            let connect = rig.connect();
            tokio::spawn(async move { connect.open().await.map(drop) })
        })
        .collect();
    eventually("all are counted", async || {
        let (_, ready) = rig.probe("/readyz").await;
        // Those whose turn has come have left again.
        (ready["sessions"].as_u64().unwrap() > 200).then_some(())
    })
    .await;
    rig.stop().await;
    let mut refused = 0;
    for upgrade in waiting {
        if let Err(ConnectError::Refused { status: 503, retry_after, .. }) = upgrade.await.unwrap() {
            assert_eq!(retry_after.as_deref(), Some("1"));
            refused += 1;
        }
    }
    assert!(refused > 100, "{refused}");
}

#[tokio::test]
async fn who_gives_up_while_waiting_frees_its_place_at_once() {
    let settings =
        [("limits.accept_rate", "1"), ("limits.accept_burst", "1"), ("limits.accept_wait_max", "5m")];
    let rig = Rig::start(&settings).await;
    let sessions = async || rig.probe("/readyz").await.1["sessions"].as_u64().unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..240 {
        let connect = rig.connect();
        waiting.spawn(async move { connect.open().await });
    }
    eventually("all are counted", async || (sessions().await > 200).then_some(())).await;
    waiting.shutdown().await;
    eventually("none is left", async || (sessions().await == 0).then_some(())).await;
}

#[tokio::test]
async fn memory_held_for_clients_turns_readiness_then_refuses_newcomers_and_leaves_the_others_alone() {
    let rig = Rig::start(&[("limits.bytes_in_flight_max", "100000"), ("limits.accept_burst", "100")]).await;
    let mut live = rig.device_as(rig.connect().param("source", "phone")).await;
    let mut hoarder = rig.device().await;
    let piece = |index: usize, bytes: usize| {
        json!({"type": "image_chunk", "id": "never-whole", "index": index, "total": 9, "data": "A".repeat(bytes)})
            .to_string()
    };
    assert!(hoarder.client.send_text(piece(0, 85_000)).await);
    let ready = eventually("not ready", async || {
        let (code, ready) = rig.probe("/readyz").await;
        (code == 503).then_some(ready)
    })
    .await;
    assert!(ready["reasons"][0].as_str().unwrap().contains("bytes_in_flight_max"), "{ready}");
    drop(rig.connect().param("source", "desktop").open().await.expect("not ready is not full"));
    assert!(hoarder.client.send_text(piece(1, 20_000)).await);
    eventually("no room", async || rig.connect().open().await.is_err().then_some(())).await;
    assert_eq!(refusal(rig.connect()).await, 503);
    let metrics = rig.metrics().await;
    assert!(metrics.contains("auricle_sessions_refused_total{reason=\"bytes\"}"), "{metrics}");
    assert!(metrics.contains("auricle_bytes_in_flight 10"), "{metrics}");
    live.speak(2.0).await;
    live.texts_up_to("report").await;
    drop(hoarder);
    eventually("ready", async || (rig.probe("/readyz").await.0 == 200).then_some(())).await;
    rig.still_serves().await;
    // What all hold is given back when they are gone.
    drop(live);
    eventually("nothing is held", async || {
        (rig.probe("/readyz").await.1["bytes_in_flight"] == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_token_just_refused_is_refused_again_without_a_look_however_often_it_returns() {
    let rig = Rig::start(&[("auth.api_keys", "true")]).await;
    for _ in 0..30 {
        let mut denied = rig.connect().token("auk_nobody-has-this-key").open().await.unwrap();
        let (_, closed) = denied.until(crate::rig::PATIENCE, auricle_testkit::Received::is_end).await;
        assert!(closed);
    }
    let metrics = rig.metrics().await;
    assert!(metrics.contains("auricle_auth_repeats_refused_total 29"), "{metrics}");
    assert!(metrics.contains("auricle_auth_attempts_total{outcome=\"invalid\"} 30"), "{metrics}");
}
