//! `kill -9` in the middle of a conversation.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use auricle_audio::{Codec, Encoder};
use auricle_speech::wer::WordErrors;
use auricle_testkit::Connect;
use serde_json::Value;

use crate::rig::{PATIENCE, Server, auricle, eventually, file, text};

/// How much of the conversation is streamed in real time.
const PART_SECS: usize = 25;

/// What the spool writes beside each frame.
const SPOOL_RECORD_BYTES: u64 = 12;

/// What is said in the conversation's first `secs` seconds.
fn truth(secs: f64) -> String {
    let text = std::fs::read_to_string(file("fixtures/two-voices/truth.json")).unwrap();
    let turns: Vec<Value> = serde_json::from_str(&text).unwrap();
    let said = turns.iter().filter(|turn| turn["end"].as_f64().unwrap() < secs);
    said.map(|turn| turn["text"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

fn conversation() -> Vec<i16> {
    let wav = std::fs::File::open(file("fixtures/two-voices/conversation.wav")).unwrap();
    auricle_audio::file::read(BufReader::new(wav), 16_000).unwrap()
}

/// 16 kHz mono.
fn wav(pcm: &[i16]) -> Vec<u8> {
    let data = u32::try_from(pcm.len() * 2).unwrap();
    let mut wav = Vec::from(*b"RIFF");
    wav.extend((data + 36).to_le_bytes());
    wav.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    wav.extend(16_000_u32.to_le_bytes());
    wav.extend(32_000_u32.to_le_bytes());
    wav.extend(b"\x02\0\x10\0data");
    wav.extend(data.to_le_bytes());
    wav.extend(pcm.iter().flat_map(|sample| sample.to_le_bytes()));
    wav
}

fn texts(segments: &Value) -> String {
    let segments = segments.as_array().unwrap().iter();
    segments.map(|segment| segment["text"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn l06_after_kill_9_the_client_reconnects_the_conversation_resumes_and_all_that_was_shown_is_there() {
    let mut server = Server::start(&[]);
    let saved = server.folder.path().join("result.json");
    // In real time, since a resumed conversation's clock is the wall's; so only the first part.
    let part = server.folder.path().join("part.wav");
    std::fs::write(&part, wav(&conversation()[..16_000 * PART_SECS])).unwrap();
    let mut stream = auricle()
        .arg("stream")
        .arg(&part)
        .args(["--wait", "--url", &server.url(), "--save"])
        .arg(&saved)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // A line is printed once another segment follows it: words are then on their way at every stage.
    let mut lines = BufReader::new(stream.stdout.take().unwrap()).lines();
    let printed: Vec<String> = lines.by_ref().take(1).map(Result::unwrap).collect();
    assert_eq!(printed.len(), 1, "{printed:?}");
    server.kill();
    server.start_again();
    for _ in lines {}
    assert!(stream.wait().unwrap().success());
    let result: Value = serde_json::from_str(&std::fs::read_to_string(&saved).unwrap()).unwrap();
    assert_eq!(result["timings"]["reconnects"], 1, "{result}");
    assert_eq!(result["conversation"]["status"], "completed");
    let id = result["conversation_id"].as_str().unwrap();
    let stored = server.ask_json(&["conversations", "show", id]);
    let stored: HashMap<&str, &str> = stored["transcript_segments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|segment| (segment["id"].as_str().unwrap(), segment["text"].as_str().unwrap()))
        .collect();
    for shown in result["segments"].as_array().unwrap() {
        let (id, text) = (shown["id"].as_str().unwrap(), shown["text"].as_str().unwrap());
        assert!(stored.get(id).is_some_and(|stored| stored.contains(text)), "{text:?} was shown and is gone");
    }
    let jobs = server.ask_json(&["jobs", "list"]);
    let finalised = jobs.as_array().unwrap().iter().filter(|job| job["conversation_id"] == id).count();
    assert_eq!(finalised, 1, "{jobs}");
    let errors =
        WordErrors::between(&truth(PART_SECS as f64), &texts(&result["conversation"]["transcript_segments"]));
    assert!(errors.rate() < 0.2, "{} of {} words", errors.mistakes, errors.words);
}

fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_below(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

#[tokio::test]
async fn l06_words_of_audio_that_was_not_transcribed_before_kill_9_appear_afterwards() {
    // One recogniser, and a client that sends a minute at once and vanishes: almost nothing is transcribed in time.
    let mut server = Server::start(&[
        ("SPEECH_DECODERS", "1"),
        ("LIMITS_LEASE", "2s"),
        ("LIMITS_LEASE_RENEW_EVERY", "500ms"),
    ]);
    let frames = Encoder::new(Codec::OpusFs320, 16_000).unwrap().encode_all(&conversation()).unwrap();
    let connect = Connect::new(&format!("ws://{}", server.address))
        .param("codec", "opus_fs320")
        .param("sample_rate", 16_000);
    let sent = frames.iter().map(|frame| frame.len() as u64 + SPOOL_RECORD_BYTES).sum::<u64>();
    let mut client = connect.open().await.unwrap();
    let (_, ready) = client
        .until(PATIENCE, |received| {
            received.event().is_some_and(|event| format!("{event:?}").contains("\"ready\""))
        })
        .await;
    assert!(ready);
    for frame in frames {
        assert!(client.send_audio(frame).await);
    }
    let spool = server.data().join("spool");
    tokio::task::spawn_blocking(move || {
        // What was received is on disk soon after; what the system's buffers still hold was not received.
        eventually("all of it in the spool", || (bytes_below(&spool) >= sent).then_some(()));
        server.kill();
        server.start_again();
        let conversation = || server.ask_json(&["conversations", "list"])[0].clone();
        let id = conversation()["id"].as_str().unwrap().to_owned();
        let before = texts(&server.ask_json(&["conversations", "show", &id])["transcript_segments"]);
        assert!(before.split_whitespace().count() < 90, "all was transcribed before: this proves nothing");
        eventually("an empty spool", || (bytes_below(&spool) == 0).then_some(()));
        let after = server.ask_json(&["conversations", "show", &id]);
        let heard = texts(&after["transcript_segments"]);
        let errors = WordErrors::between(&truth(f64::INFINITY), &heard);
        assert!(errors.rate() < 0.2, "{} of {} words: {heard}", errors.mistakes, errors.words);
        assert_eq!(after["gaps"].as_array().map_or(0, Vec::len), 0, "{after}");
    })
    .await
    .unwrap();
    drop(client);
}

#[tokio::test]
async fn what_a_busy_engine_could_not_take_is_heard_later_and_once() {
    // Two minutes and a half at once: more than the engine keeps for a session.
    let server = Server::start(&[("SPEECH_DECODERS", "1"), ("LIMITS_ENGINE_BACKLOG_SECS_MAX", "30")]);
    let pcm = conversation().repeat(2);
    let frames = Encoder::new(Codec::OpusFs320, 16_000).unwrap().encode_all(&pcm).unwrap();
    let connect = Connect::new(&format!("ws://{}", server.address))
        .param("codec", "opus_fs320")
        .param("sample_rate", 16_000);
    let mut client = connect.open().await.unwrap();
    for frame in frames {
        assert!(client.send_audio(frame).await);
    }
    // Silence in real time follows, so that the engine takes audio again and the session lives on.
    let spool = server.data().join("spool");
    let heard = tokio::task::spawn_blocking(move || {
        eventually("all words", || {
            let all = server.ask_json(&["conversations", "list"]);
            let id = all[0]["id"].as_str()?.to_owned();
            let conversation = server.ask_json(&["conversations", "show", &id]);
            let mut segments = conversation["transcript_segments"].as_array().unwrap().clone();
            segments.sort_by(|a, b| a["start"].as_f64().unwrap().total_cmp(&b["start"].as_f64().unwrap()));
            let heard = texts(&Value::Array(segments));
            (heard.matches("good day").count() >= 2 && bytes_below(&spool) < 20_000).then_some(heard)
        })
    });
    let silence = Encoder::new(Codec::OpusFs320, 16_000).unwrap().encode_all(&vec![0; 16_000]).unwrap();
    let mut every = tokio::time::interval(std::time::Duration::from_millis(20));
    let mut at = 0;
    let heard = tokio::task::spawn(heard);
    while !heard.is_finished() {
        every.tick().await;
        client.send_audio(silence[at % silence.len()].clone()).await;
        at += 1;
    }
    let heard = heard.await.unwrap().unwrap();
    let truth = format!("{0} {0}", truth(f64::INFINITY));
    let errors = WordErrors::between(&truth, &heard);
    assert!(errors.rate() < 0.2, "{} of {} words: {heard}", errors.mistakes, errors.words);
}

#[test]
fn a_user_who_was_being_deleted_at_kill_9_is_gone_after_the_next_start() {
    let mut server = Server::start(&[("SPEECH", "scripted"), ("LIMITS_ERASE_ROWS_MAX", "1")]);
    let audio = file("fixtures/two-voices/conversation.wav");
    server.ask_json(&["stream", audio.to_str().unwrap(), "--speed", "0", "--wait"]);
    let refused = auricle().args(["users", "delete", "local", "--url", &server.url()]).output().unwrap();
    assert!(!refused.status.success() && text(&refused.stderr).contains("--yes"));
    server.ask(&["users", "delete", "local", "--yes"]);
    server.kill();
    server.start_again();
    eventually("no conversation is left", || {
        let listed = server.ask_json(&["conversations", "list"]);
        listed.as_array().unwrap().is_empty().then_some(())
    });
    let found = server.ask_json(&["jobs", "list"]);
    assert!(found.as_array().unwrap().is_empty(), "{found}");
}
