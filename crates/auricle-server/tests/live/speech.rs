//! `/v1/listen`: Deepgram's streaming protocol over the scripted engine.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message, http};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use auricle_testkit::{SpeechScript, SpeechStandIn};

use crate::rig::{PATIENCE, Rig, eventually};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A file of the repository.
fn repository(path: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

const LINEAR: &str = "encoding=linear16&sample_rate=16000";

async fn try_open(
    rig: &Rig,
    query: &str,
    headers: &[(&'static str, &str)],
) -> Result<(Socket, http::Response<Option<Vec<u8>>>), Error> {
    let mut request = format!("ws://{}/v1/listen?{query}", rig.public()).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    tokio_tungstenite::connect_async(request).await
}

async fn open(rig: &Rig, query: &str) -> Socket {
    try_open(rig, query, &[]).await.unwrap().0
}

/// The answer that is no upgrade.
async fn refused(rig: &Rig, query: &str, headers: &[(&'static str, &str)]) -> (u16, Value, http::HeaderMap) {
    match try_open(rig, query, headers).await {
        Err(Error::Http(response)) => {
            let (parts, body) = response.into_parts();
            let body = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or(Value::Null);
            (parts.status.as_u16(), body, parts.headers)
        }
        Err(error) => panic!("{query}: {error}"),
        Ok(_) => panic!("{query}: was let in"),
    }
}

/// Sends `secs` of sound, `channels` wide.
async fn speak(socket: &mut Socket, secs: f64, channels: usize) {
    for _ in 0..(secs * 10.0).round() as usize {
        socket.send(Message::binary(vec![1; 3_200 * channels])).await.unwrap();
    }
}

async fn say(socket: &mut Socket, kind: &str) {
    socket.send(Message::text(json!({ "type": kind }).to_string())).await.unwrap();
}

/// Everything that still comes, and how it ends.
async fn rest(mut socket: Socket) -> (Vec<Value>, u16, String) {
    let mut messages = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, socket.next()).await.expect("it ends") {
            Some(Ok(Message::Text(text))) => messages.push(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Close(Some(frame)))) => {
                return (messages, frame.code.into(), frame.reason.as_str().to_owned());
            }
            Some(Ok(_)) => {}
            other => panic!("no close frame but {other:?}; before it {messages:#?}"),
        }
    }
}

/// Transcripts of one channel, without the silence.
fn transcripts(messages: &[Value], channel: u64) -> Vec<&str> {
    let results = messages.iter().filter(|m| m["type"] == "Results" && m["channel_index"][0] == channel);
    let texts = results.map(|m| m["channel"]["alternatives"][0]["transcript"].as_str().unwrap());
    texts.filter(|text| !text.is_empty()).collect()
}

#[tokio::test]
async fn words_come_with_their_times_and_nothing_is_kept() {
    let rig = Rig::start(&[]).await;
    let query = format!(
        "{LINEAR}&punctuate=true&diarize=true&interim_results=false&utterance_end_ms=1000&model=nova-3"
    );
    let mut socket = open(&rig, &query).await;
    speak(&mut socket, 7.0, 1).await;
    say(&mut socket, "KeepAlive").await;
    say(&mut socket, "CloseStream").await;
    let (messages, code, _) = rest(socket).await;
    assert_eq!(code, 1000);
    assert_eq!(
        transcripts(&messages, 0),
        ["Please send the report before Friday.", "I will send it tomorrow morning."]
    );
    let mut until = 0.0;
    for result in messages.iter().filter(|m| m["type"] == "Results") {
        let (start, duration) = (result["start"].as_f64().unwrap(), result["duration"].as_f64().unwrap());
        assert!((start - until).abs() < 0.01, "a gap at {until}: {result}");
        until = start + duration;
        assert_eq!((&result["is_final"], &result["from_finalize"]), (&json!(true), &json!(false)));
    }
    assert!((until - 7.0).abs() < 0.01, "{until}");
    let word = &messages[0]["channel"]["alternatives"][0]["words"][0];
    assert_eq!((&word["word"], &word["punctuated_word"]), (&json!("please"), &json!("Please")));
    let speakers: Vec<_> = messages
        .iter()
        .filter_map(|m| m["channel"]["alternatives"][0]["words"][0]["speaker"].as_u64())
        .collect();
    assert_eq!(speakers, [0, 1]);
    assert!(messages.iter().any(|m| m["type"] == "UtteranceEnd"), "{messages:#?}");
    let last = messages.last().unwrap();
    assert_eq!(
        (&last["type"], &last["duration"], &last["channels"]),
        (&json!("Metadata"), &json!(7.0), &json!(1))
    );
    assert_eq!(rig.get("/v1/conversations").await, (200, json!([])));
}

#[tokio::test]
async fn a_finalize_is_answered_and_the_stream_goes_on() {
    let rig = Rig::start(&[]).await;
    let mut socket = open(&rig, LINEAR).await;
    speak(&mut socket, 2.5, 1).await;
    say(&mut socket, "Finalize").await;
    let finalized = async {
        loop {
            let message = socket.next().await.unwrap().unwrap();
            let message: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
            if message["from_finalize"] == true {
                return message;
            }
        }
    };
    tokio::time::timeout(PATIENCE, finalized).await.expect("a result says from_finalize");
    speak(&mut socket, 8.0, 1).await;
    say(&mut socket, "CloseStream").await;
    let (messages, code, _) = rest(socket).await;
    assert_eq!(code, 1000);
    assert!(transcripts(&messages, 0).concat().contains("monday"), "{messages:#?}");
}

#[tokio::test]
async fn channels_are_heard_apart_or_together_as_asked() {
    let rig = Rig::start(&[]).await;
    let mut socket = open(&rig, &format!("{LINEAR}&channels=2&multichannel=true")).await;
    speak(&mut socket, 4.0, 2).await;
    say(&mut socket, "CloseStream").await;
    let (messages, _, _) = rest(socket).await;
    assert_eq!((transcripts(&messages, 0).len(), transcripts(&messages, 1).len()), (2, 2));
    assert!(messages.iter().all(|m| m["type"] != "Results" || m["channel_index"][1] == 2));
    let mut socket = open(&rig, &format!("{LINEAR}&channels=2")).await;
    speak(&mut socket, 4.0, 2).await;
    // An empty message is an old way to say that no audio follows.
    socket.send(Message::binary(Vec::new())).await.unwrap();
    let (messages, _, _) = rest(socket).await;
    assert_eq!((transcripts(&messages, 0).len(), transcripts(&messages, 1).len()), (2, 0));
    assert_eq!(messages.last().unwrap()["duration"], 4.0);
}

#[tokio::test]
async fn a_stream_without_audio_ends_unless_it_says_that_it_lives() {
    let rig = Rig::start(&[("limits.speech_idle_max", "1s")]).await;
    let mut socket = open(&rig, LINEAR).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..15 {
        ticks.tick().await;
        say(&mut socket, "KeepAlive").await;
    }
    let (messages, code, reason) = rest(socket).await;
    assert_eq!(code, 1011);
    assert!(reason.starts_with("NET-0001"), "{reason}");
    let error = messages.last().unwrap();
    assert_eq!((&error["type"], &error["variant"]), (&json!("Error"), &json!("NET-0001")));
}

#[tokio::test]
async fn what_cannot_be_heard_says_why_and_the_server_serves_on() {
    let rig = Rig::start(&[("limits.client_message_bytes_max", "1KiB")]).await;
    for (query, first, code, word) in [
        ("", Message::binary(b"hello, this is no audio".to_vec()), 1008, "DATA-0000"),
        (
            "encoding=opus",
            Message::binary(b"OggS\0\x02aaaaaaaaaaaaaaaaaaaa\x01\x04bbbbcccccc".to_vec()),
            1008,
            "DATA-0000",
        ),
        ("", Message::binary([b"RIFF\0\0\0\0WAVEjunk".as_slice(), &[0xff; 20]].concat()), 1008, "DATA-0000"),
        (LINEAR, Message::text("not json"), 1008, "DATA-0002"),
        (LINEAR, Message::text("[]"), 1008, "DATA-0002"),
        (LINEAR, Message::text(r#"{"type":7}"#), 1008, "DATA-0002"),
        (LINEAR, Message::binary(vec![0; 2_000]), 1009, "DATA-0001"),
    ] {
        let mut socket = open(&rig, query).await;
        socket.send(first).await.unwrap();
        let (_, closed, reason) = rest(socket).await;
        assert_eq!(closed, code, "{query}: {reason}");
        assert!(reason.starts_with(word), "{query}: {reason}");
    }
    // Packets that are none are silence; a stream without audio has its last word too.
    let mut socket = open(&rig, "encoding=opus").await;
    for length in [1, 2, 100, 900] {
        socket.send(Message::binary(vec![0xfc; length])).await.unwrap();
    }
    say(&mut socket, "SomethingNew").await;
    say(&mut socket, "CloseStream").await;
    let (messages, code, _) = rest(socket).await;
    assert_eq!((code, &messages.last().unwrap()["type"]), (1000, &json!("Metadata")));
    rig.still_serves().await;
}

#[tokio::test]
async fn who_may_not_is_refused_in_deepgrams_words() {
    let key = "a-key-of-at-least-some-length:";
    let rig =
        Rig::start(&[("auth.admin_key", key), ("limits.sessions_max", "1"), ("limits.accept_burst", "50")])
            .await;
    let (code, body, headers) = refused(&rig, "encoding=speex", &[]).await;
    assert_eq!((code, &body["err_code"]), (400, &json!("Bad Request")));
    assert!(body["err_msg"].as_str().unwrap().contains("linear16"));
    assert_eq!(headers["dg-request-id"].to_str().unwrap(), body["request_id"].as_str().unwrap());
    assert!(headers.contains_key("dg-error"));
    for headers in [
        [("authorization", "Token wrong")],
        [("sec-websocket-protocol", "token, wrong")],
        [("authorization", "nonsense")],
    ] {
        let (code, body, _) = refused(&rig, LINEAR, &headers).await;
        assert_eq!((code, &body["err_code"]), (401, &json!("INVALID_AUTH")), "{headers:?}");
    }
    let mine = format!("{key}ann");
    let bearer = format!("Bearer {mine}");
    let protocol = format!("token, {mine}");
    let query = format!("{LINEAR}&token={mine}");
    for (query, headers) in [
        (LINEAR, vec![("authorization", bearer.as_str())]),
        (LINEAR, vec![("sec-websocket-protocol", protocol.as_str())]),
        (query.as_str(), vec![]),
    ] {
        let (socket, response) = try_open(&rig, query, &headers).await.unwrap();
        let chosen = response.headers().get("sec-websocket-protocol").map(|name| name.to_str().unwrap());
        assert_eq!(chosen, headers.iter().any(|(name, _)| name.starts_with("sec")).then_some("token"));
        let (code, body, headers) = refused(&rig, LINEAR, &[]).await;
        assert_eq!((code, &body["err_code"]), (503, &json!("TOO_BUSY")), "one session is the limit");
        assert!(headers.contains_key("retry-after"));
        drop(socket);
        eventually("the place is free", async || {
            (rig.probe("/readyz").await.1["sessions"] == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_drain_tells_what_was_heard_and_the_end_of_a_user_ends_it() {
    let mut rig = Rig::start(&[]).await;
    let mut socket = open(&rig, LINEAR).await;
    speak(&mut socket, 2.5, 1).await;
    let first = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
    assert!(first.to_text().unwrap().contains("please send the report before friday"), "{first}");
    let ((), (messages, code, _)) = tokio::join!(rig.stop(), rest(socket));
    assert_eq!(code, 1012);
    assert_eq!(messages.last().unwrap()["type"], "Metadata");
    let rig = Rig::start(&[]).await;
    let mut socket = open(&rig, LINEAR).await;
    speak(&mut socket, 0.1, 1).await;
    // The user exists once something is theirs.
    rig.call(reqwest::Method::PUT, "/v1/users/me/time-zone", json!({ "time_zone": "Europe/Madrid" })).await;
    assert_eq!(rig.delete("/v1/users/me?confirm=local").await, 202);
    let (_, code, reason) = rest(socket).await;
    assert_eq!((code, reason.as_str()), (1008, "user deleted"));
}

#[tokio::test]
async fn an_engine_that_fails_or_hangs_is_told() {
    let rig = Rig::start(&[("speech.engine", "none")]).await;
    let mut socket = open(&rig, LINEAR).await;
    speak(&mut socket, 0.1, 1).await;
    let (messages, code, _) = rest(socket).await;
    assert_eq!((code, &messages[0]["variant"]), (1011, &json!("ENGINE")));
}

#[tokio::test]
async fn words_to_expect_reach_the_service_through_gate_and_chain() {
    let service = SpeechStandIn::start(SpeechScript::Deaf).await.unwrap();
    let url = service.url();
    let settings = [
        ("speech.engine", "deepgram,scripted"),
        ("speech.deepgram_url", url.as_str()),
        ("speech.deepgram_key", "secret-key-1"),
        ("speech.gate", "on"),
        ("speech.key_terms", "Configured"),
    ];
    let rig = Rig::start(&settings).await;
    let terms = "keyterm=Ada%20Okonkwo&keywords=snuffleupagus:1.5&keyterm=Omi&keywords=cat:-2";
    let mut socket = open(&rig, terms).await;
    // The gate lets speech through alone.
    let recording = std::fs::read(repository("fixtures/two-voices/conversation.wav")).unwrap();
    for piece in recording[..400_000].chunks(3_200) {
        socket.send(Message::binary(piece.to_vec())).await.unwrap();
    }
    let sessions = service.when(|all| all.iter().any(|session| !session.target.is_empty())).await;
    let asked: Vec<_> = sessions[0].target.split('&').filter(|part| part.starts_with("key")).collect();
    assert_eq!(
        asked,
        ["keyterm=Ada%20Okonkwo", "keyterm=snuffleupagus", "keyterm=Omi", "keyterm=Configured"]
    );
    assert!(!rig.metrics().await.contains("Okonkwo"));
}

#[tokio::test]
async fn too_many_words_to_expect_are_refused_before_the_upgrade() {
    let rig =
        Rig::start(&[("limits.speech_key_terms_max", "2"), ("limits.speech_key_terms_bytes_max", "90")])
            .await;
    let long = "x".repeat(61);
    let two = format!("keyterm={}&keyterm={}", "y".repeat(50), "z".repeat(50));
    for (terms, said) in [
        ("keyterm=a&keywords=b&keyterm=c", "3 terms of keyterm and keywords are too many; 2 is the limit"),
        (&format!("keyterm={long}"), "61 characters of a keyterm or keyword are too many; 60 is the limit"),
        (&two, "100 bytes of keyterm and keywords together are too many; 90 is the limit"),
        ("keywords=a:loud", "the intensifier is a number"),
    ] {
        let (code, body, _) = refused(&rig, &format!("{LINEAR}&{terms}"), &[]).await;
        assert_eq!((code, &body["err_code"]), (400, &json!("Bad Request")), "{terms}");
        assert!(body["err_msg"].as_str().unwrap().contains(said), "{body}");
    }
    // An engine that takes none hears all the same.
    let mut socket = open(&rig, &format!("{LINEAR}&keyterm=report&keyterm=friday")).await;
    speak(&mut socket, 1.9, 1).await;
    say(&mut socket, "CloseStream").await;
    let (messages, code, _) = rest(socket).await;
    assert_eq!((code, transcripts(&messages, 0)), (1000, vec!["please send the report before friday"]));
}

/// What ffmpeg makes of `fixtures/two-voices`, as a browser would have recorded it, with these options.
fn recorded_as(options: &[&str]) -> Vec<u8> {
    let made = std::process::Command::new("ffmpeg")
        .args(["-nostdin", "-loglevel", "error", "-i"])
        .arg(repository("fixtures/two-voices/conversation.wav"))
        .args(["-t", "4"])
        .args(options)
        .arg("pipe:1")
        .output()
        .expect("ffmpeg is installed: see scripts/setup");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    made.stdout
}

#[tokio::test]
async fn webm_as_a_browser_records_it_is_heard_without_naming_it() {
    let rig = Rig::start(&[]).await;
    let live = ["-c:a", "libopus", "-b:a", "24k", "-f", "webm", "-live", "1", "-cluster_time_limit", "250"];
    let bytes = recorded_as(&live);
    // A browser sends a piece each time its timer says so, wherever that cuts.
    for piece in [1, 333, bytes.len()] {
        let mut socket = open(&rig, "model=nova-3&punctuate=true").await;
        for piece in bytes.chunks(piece) {
            socket.feed(Message::binary(piece.to_vec())).await.unwrap();
        }
        socket.flush().await.unwrap();
        say(&mut socket, "CloseStream").await;
        let (messages, code, _) = rest(socket).await;
        assert_eq!(code, 1000);
        assert_eq!(
            transcripts(&messages, 0),
            ["Please send the report before Friday.", "I will send it tomorrow morning."]
        );
        let secs = messages.last().unwrap()["duration"].as_f64().unwrap();
        assert!((4.0..4.05).contains(&secs), "{secs} s of 4");
    }
    let mut socket = open(&rig, "").await;
    let other = recorded_as(&["-c:a", "libvorbis", "-ac", "2", "-f", "webm"]);
    socket.send(Message::binary(other)).await.unwrap();
    let (_, code, reason) = rest(socket).await;
    assert_eq!(code, 1008);
    assert!(reason.starts_with("DATA-0000") && reason.contains("A_VORBIS, not Opus"), "{reason}");
    rig.still_serves().await;
}

/// What the record of a device that spoke for `secs` holds, once it was shown `last`: each segment's text and times.
async fn recorded(rig: &Rig, secs: f64, last: &str) -> Vec<(String, f64, f64)> {
    let mut device = rig.device().await;
    device.speak(secs).await;
    // It stays until then: what was not read yet is lost with its connection.
    device.texts_up_to(last).await;
    let id = device.conversation().await;
    let (_, record) = rig.get(&format!("/v1/conversations/{id}")).await;
    let segments = record["transcript_segments"].as_array().unwrap().iter();
    let of = |segment: &Value, name: &str| segment[name].as_f64().unwrap();
    segments
        .map(|segment| {
            (segment["text"].as_str().unwrap().to_owned(), of(segment, "start"), of(segment, "end"))
        })
        .collect()
}

/// A server whose engine is another one's `/v1/listen`, by our own Deepgram client; and that other one.
async fn behind_our_own_client() -> (Rig, Rig) {
    const KEY: &str = "a-key-for-this-test-only:";
    let server = Rig::start(&[("auth.admin_key", KEY)]).await;
    let (url, key) = (format!("http://{}", server.public()), format!("{KEY}listener"));
    let settings = [
        ("speech.engine", "deepgram"),
        ("speech.deepgram_url", url.as_str()),
        ("speech.deepgram_key", key.as_str()),
        // The tests' audio is no speech.
        ("speech.gate", "off"),
    ];
    (Rig::start(&settings).await, server)
}

#[tokio::test]
async fn our_own_client_hears_from_our_own_endpoint_what_the_engine_behind_it_says() {
    let (rig, _server) = behind_our_own_client().await;
    let heard = recorded(&rig, 7.0, "morning").await;
    let said = recorded(&Rig::start(&[]).await, 7.0, "morning").await;
    assert_eq!(heard.len(), said.len(), "{heard:?} of {said:?}");
    for ((heard, from, until), (said, start, end)) in heard.iter().zip(&said) {
        let near = (from - start).abs() < 0.05 && (until - end).abs() < 0.05;
        assert!(heard == said && near, "{heard} {from} to {until} of {said} {start} to {end}");
    }
}

/// Transcripts of all results with words, `…` behind those that may still change.
fn transcripts_as_they_came(messages: &[Value]) -> Vec<String> {
    let results = messages.iter().filter(|m| m["type"] == "Results");
    let texts = results.map(|m| {
        let text = m["channel"]["alternatives"][0]["transcript"].as_str().unwrap();
        let ends = if m["is_final"] == true { "" } else { "…" };
        format!("{text}{ends}")
    });
    texts.filter(|text| !text.is_empty()).collect()
}

async fn messages_of(rig: &Rig, query: &str, secs: f64) -> Vec<Value> {
    let mut socket = open(rig, query).await;
    speak(&mut socket, secs, 1).await;
    say(&mut socket, "CloseStream").await;
    let (messages, code, _) = rest(socket).await;
    assert_eq!(code, 1000);
    messages
}

#[tokio::test]
async fn interim_results_grow_into_the_final_one_and_change_nothing_else() {
    let rig = Rig::start(&[]).await;
    let query = format!("{LINEAR}&punctuate=true&utterance_end_ms=1000");
    let with = messages_of(&rig, &format!("{query}&interim_results=true"), 7.0).await;
    let came = transcripts_as_they_came(&with);
    let sentence = "Please send the report before Friday.";
    let first: Vec<_> = came.iter().take_while(|text| *text != sentence).collect();
    assert!(first.len() > 1 && came.contains(&sentence.to_owned()), "{came:?}");
    for (shorter, longer) in first.iter().zip(&first[1..]) {
        assert!(
            longer.starts_with(shorter.trim_end_matches('…'))
                && sentence.starts_with(longer.trim_end_matches('…'))
        );
    }
    for result in with.iter().filter(|m| m["is_final"] == false) {
        assert_eq!((&result["speech_final"], &result["from_finalize"]), (&json!(false), &json!(false)));
    }
    let finals = |messages: &[Value]| -> Vec<Value> {
        let kept = messages.iter().filter(|m| m["type"] != "Metadata" && m["is_final"] != false);
        let mut kept: Vec<_> = kept.cloned().collect();
        kept.iter_mut().for_each(|m| m["metadata"] = Value::Null);
        kept
    };
    let without = messages_of(&rig, &query, 7.0).await;
    assert!(without.iter().all(|m| m["is_final"] != false), "{without:#?}");
    assert_eq!(finals(&with), finals(&without));
}

#[tokio::test]
async fn interim_results_pass_from_our_own_endpoint_through_our_own_client() {
    let (rig, _server) = behind_our_own_client().await;
    let query = format!("{LINEAR}&punctuate=true");
    let with = messages_of(&rig, &format!("{query}&interim_results=true"), 4.0).await;
    let came = transcripts_as_they_came(&with);
    let finals: Vec<_> = came.iter().filter(|text| !text.ends_with('…')).collect();
    assert_eq!(finals, ["Please send the report before Friday.", "I will send it tomorrow morning."]);
    let sentence = came.iter().position(|text| text == finals[0]).unwrap();
    assert!(sentence > 0, "{came:?}");
    let text = came[0].trim_end_matches('…');
    assert!(finals[0].starts_with(text) && !text.is_empty(), "{came:?}");
    let without = messages_of(&rig, &query, 4.0).await;
    assert!(without.iter().all(|m| m["is_final"] != false), "{without:#?}");
    // A conversation shows what is stored, and nothing else (P5).
    let mut device = rig.device().await;
    device.speak(4.0).await;
    device.texts_up_to("morning").await;
    let stored = ["Please send the report before Friday.", "I will send it tomorrow morning."];
    for segment in device.seen.iter().flat_map(|received| received.segments()) {
        let ends = stored.iter().any(|sentence| segment.text.ends_with(sentence));
        assert!(ends, "{}", segment.text);
    }
}

#[tokio::test]
async fn confidence_is_what_the_service_tells() {
    let words = SpeechScript::Words { every_secs: 1.0, first_secs: 0.2, word_secs: 0.5 };
    let service = SpeechStandIn::start(words).await.unwrap();
    let url = service.url();
    let settings = [
        ("speech.engine", "deepgram"),
        ("speech.deepgram_url", url.as_str()),
        ("speech.deepgram_key", "secret-key-1"),
        ("speech.gate", "off"),
    ];
    let messages = messages_of(&Rig::start(&settings).await, LINEAR, 2.0).await;
    let reading = &messages[0]["channel"]["alternatives"][0];
    assert_eq!((&reading["confidence"], &reading["words"][0]["confidence"]), (&json!(0.99), &json!(0.99)));
    let scripted = messages_of(&Rig::start(&[]).await, LINEAR, 2.0).await;
    let reading = &scripted[0]["channel"]["alternatives"][0];
    assert_eq!((&reading["confidence"], &reading["words"][0]["confidence"]), (&json!(0.0), &json!(0.0)));
}
