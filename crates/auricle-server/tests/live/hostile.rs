//! Bad input of every kind, after each of which the server still serves.

use std::time::Duration;

use auricle_testkit::Received;
use auricle_wire::event::Event;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::{Device, PATIENCE, Rig};

/// A raw connection after a WebSocket upgrade, to send what no client library would.
async fn raw(rig: &Rig) -> TcpStream {
    let mut socket = TcpStream::connect(rig.public()).await.unwrap();
    let request = format!(
        "GET /v4/listen?codec=pcm16&sample_rate=16000&source=desktop HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        rig.public()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    socket
}

/// A masked frame's head: opcode, and a length that need not be true.
fn head(opcode: u8, length: u64) -> Vec<u8> {
    let mut head = vec![0x80 | opcode, 0x80 | 127];
    head.extend(length.to_be_bytes());
    head.extend([0; 4]);
    head
}

/// The code of the close frame that ends what the server sends, if there is one.
async fn close_code(mut socket: TcpStream) -> Option<u16> {
    let mut all = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut all)).await.unwrap();
    let at = all.windows(2).rposition(|pair| pair[0] == 0x88 && pair[1] >= 2)?;
    Some(u16::from_be_bytes([*all.get(at + 2)?, *all.get(at + 3)?]))
}

#[tokio::test]
async fn garbage_frames_of_audio_do_not_end_a_session() {
    for codec in ["pcm8", "pcm16", "opus", "opus_fs320", "aac", "lc3_fs1030"] {
        let rig = Rig::start(&[]).await;
        let connect = auricle_testkit::Connect::new(&format!("ws://{}", rig.public()))
            .param("codec", codec)
            .param("sample_rate", 16_000);
        let mut device = rig.device_as(connect).await;
        for length in [0_usize, 1, 2, 3, 7, 30, 125, 126, 640, 5_000, 70_000] {
            let frame: Vec<u8> = (0..length).map(|i| (i * 131 + length * 7) as u8).collect();
            assert!(device.client.send_audio(frame).await, "{codec} {length}");
        }
        // Still there: it answers to what it knows.
        let words = json!({"type": "suggested_transcript", "segments": [{"text": "Still here.", "start": 0.0, "end": 1.0}]});
        assert!(device.client.send_text(words.to_string()).await);
        rig.still_serves().await;
    }
}

#[tokio::test]
async fn wrong_json_is_ignored_and_the_session_goes_on() {
    let rig = Rig::start(&[]).await;
    let mut device = rig.device().await;
    let deep = "[".repeat(100_000);
    let long =
        json!({"type": "speaker_assigned", "speaker_id": 1, "person_id": "p".repeat(200_000)}).to_string();
    for text in [
        "",
        "{",
        "null",
        "[]",
        "42",
        "\"ping\"",
        "{}",
        r#"{"type": 7}"#,
        r#"{"type": "nobody_knows"}"#,
        r#"{"type": "suggested_transcript", "segments": "none"}"#,
        r#"{"type": "suggested_transcript", "segments": [{"text": 5, "start": "x"}]}"#,
        r#"{"type": "suggested_transcript", "segments": [{"text": "t", "start": 1e308, "end": -1e308}]}"#,
        r#"{"type": "speaker_assigned", "speaker_id": -1}"#,
        r#"{"type": "speaker_assigned", "speaker_id": 1e99, "segment_ids": [null, {}, []]}"#,
        r#"{"type": "skip_question"}"#,
        &deep,
        &long,
    ] {
        assert!(device.client.send_text(text).await, "{text:.60}");
    }
    device.speak(2.0).await;
    device.texts_up_to("report").await;
    rig.still_serves().await;
}

#[tokio::test]
async fn a_message_of_100_mb_is_closed_with_1009_before_it_is_kept() {
    let rig = Rig::start(&[]).await;
    let mut socket = raw(&rig).await;
    socket.write_all(&head(2, 100_000_000)).await.unwrap();
    // Send on as a real client would; the server may cut the connection at any time.
    let (mut read, mut write) = socket.split();
    let chunk = vec![0_u8; 64 * 1024];
    let sending = async {
        for _ in 0..1_600 {
            if write.write_all(&chunk).await.is_err() {
                break;
            }
        }
    };
    let mut all = Vec::new();
    let reading = async {
        let _ = read.read_to_end(&mut all).await;
    };
    tokio::time::timeout(PATIENCE, async {
        tokio::select! { () = reading => {}, () = async { sending.await; std::future::pending::<()>().await } => {} }
    })
    .await
    .unwrap();
    let at = all.windows(2).rposition(|pair| pair[0] == 0x88 && pair[1] >= 2).expect("a close frame");
    assert_eq!(u16::from_be_bytes([all[at + 2], all[at + 3]]), 1009);
    rig.still_serves().await;
}

#[tokio::test]
async fn invalid_utf8_is_closed_and_nobody_else_notices() {
    let rig = Rig::start(&[]).await;
    let mut other = rig.device().await;
    let mut socket = raw(&rig).await;
    socket.write_all(&[0x81, 0x84, 0, 0, 0, 0, 0xff, 0xfe, 0xc3, 0x28]).await.unwrap();
    let code = close_code(socket).await;
    assert!(matches!(code, Some(1002 | 1007) | None), "{code:?}");
    other.speak(2.0).await;
    other.texts_up_to("report").await;
}

#[tokio::test]
async fn frames_that_break_the_websocket_protocol_end_only_their_connection() {
    let rig = Rig::start(&[]).await;
    for bytes in [
        vec![0xff; 64],                                    // reserved bits and opcode
        vec![0x82, 0x05, 1, 2, 3, 4, 5],                   // not masked
        [vec![0x89, 0xfe, 0, 126], vec![0; 130]].concat(), // a ping longer than 125 bytes
        vec![0x80, 0x80, 0, 0, 0, 0],                      // a continuation of nothing
    ] {
        let mut socket = raw(&rig).await;
        socket.write_all(&bytes).await.unwrap();
        close_code(socket).await;
    }
    rig.still_serves().await;
}

#[tokio::test]
async fn half_open_sockets_cost_a_session_only_until_they_are_silent_too_long() {
    let rig = Rig::start(&[
        ("limits.sessions_max", "3"),
        ("limits.sessions_per_user_max", "3"),
        ("limits.client_silent_max", "500ms"),
        ("limits.ping_every", "100ms"),
    ])
    .await;
    // Never read, never written, never closed.
    let half_open = [raw(&rig).await, raw(&rig).await, raw(&rig).await];
    let room = async || rig.connect().open().await.ok();
    let mut client = crate::rig::eventually("room", room).await;
    let is_ready = |received: &Received| matches!(received.event(), Some(Event::ServiceStatus { status, .. }) if status == "ready");
    assert!(client.until(PATIENCE, is_ready).await.1, "it is served");
    drop(half_open);
}

#[tokio::test]
async fn slowloris_holds_no_connection_longer_than_its_head_may_take() {
    let rig = Rig::start(&[("limits.request_head_wait", "300ms"), ("limits.connections_max", "20")]).await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut socket = TcpStream::connect(rig.public()).await.unwrap();
        let _ = socket.write_all(b"GET /v4/listen HTTP/1.1\r\nHost: ").await;
        slow.push(socket);
    }
    for mut socket in slow {
        let mut rest = Vec::new();
        // Ends, or is reset: either way it is let go while nothing was finished.
        let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut rest)).await.unwrap();
    }
    rig.still_serves().await;
}

#[tokio::test]
async fn a_huge_head_is_refused() {
    let rig = Rig::start(&[]).await;
    let mut socket = TcpStream::connect(rig.public()).await.unwrap();
    let _ = socket.write_all(b"GET / HTTP/1.1\r\n").await;
    for index in 0..700 {
        if socket.write_all(format!("x-{index}: {}\r\n", "y".repeat(100)).as_bytes()).await.is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await.unwrap();
    rig.still_serves().await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_let_go_and_its_words_are_kept() {
    let rig =
        Rig::start(&[("limits.client_outbox_bytes_max", "64KiB"), ("limits.conversation_timeout_min", "1s")])
            .await;
    let mut device: Device = rig.device_as(rig.connect().param("custom_stt", "enabled")).await;
    let id = device.conversation().await;
    // Long words, sent back whole each time, until neither the kernel's buffers nor the outbox have room.
    let text = "We meet at noon in the big hall. ".repeat(450);
    let mut sent = 0;
    for index in 0..700 {
        let start = f64::from(index) * 10.0;
        let words = json!({"type": "suggested_transcript", "segments": [
            {"text": format!("{text}{index}."), "speaker": format!("SPEAKER_0{}", index % 2), "start": start, "end": start + 5.0}]});
        let sending = device.client.send_text(words.to_string());
        match tokio::time::timeout(Duration::from_secs(5), sending).await {
            Ok(true) => sent += 1,
            _ => break,
        }
    }
    assert!(sent > 10);
    drop(device);
    let record = rig.conversation_when(&id, "completed").await;
    assert!(record["transcript_segments"].as_array().unwrap().len() > 10);
    rig.still_serves().await;
}
