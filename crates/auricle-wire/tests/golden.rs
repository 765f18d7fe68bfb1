//! The documented examples, both ways. A fixture is never changed once a client speaks it: new forms get new files.

use auricle_wire::event::{self, Event, ServerMessage};
use auricle_wire::pusher::{self, Frame, ProcessRequest, ProcessResult, SpeakerSample, Transcript};
use serde_json::Value;

/// Source: listen-protocol 4.2.
const SEGMENTS: &str = include_str!("fixtures/segments.json");
/// Source: listen-protocol 7.5. Its values are invented, its shape follows Omi's models.
const MEMORY_CREATED: &str = include_str!("fixtures/memory_created.json");
/// Source: pusher-and-processing 1.2.
const PUSHER_FRAMES: &str = include_str!("fixtures/pusher_frames.txt");

/// Ours: docs/degraded-speech.md.
const STT: &str = include_str!("fixtures/stt.jsonl");

/// What the server adds to Omi's conversation, after all of Omi's own fields.
const OURS: [&str; 7] =
    ["call_id", "provenance", "failure", "discard_reason", "finalization_reason", "revision", "gaps"];

#[test]
fn a_transcript_array_is_written_as_it_was_read() {
    let Ok(ServerMessage::Segments(segments)) = event::parse(SEGMENTS.trim()) else { panic!("not read") };
    let written = event::segments_text(&segments);
    assert_eq!(parsed(&written), parsed(SEGMENTS));
    assert_eq!(top_level_keys(&written[1..]), top_level_keys(SEGMENTS.trim().trim_start_matches('[')));
    assert!(written.contains(r#""start":0.0,"end":2.48"#), "seconds always have a decimal point: {written}");
}

#[test]
fn words_that_are_late_and_come_again_are_told_as_documented() {
    for (text, named) in STT.lines().zip([true, false, true]) {
        let Ok(ServerMessage::Event(event)) = event::parse(text) else { panic!("not read: {text}") };
        assert_eq!(event.to_text(), text);
        let (Event::SttDegraded { engine, .. } | Event::SttRecovered { engine, .. }) = event else {
            panic!("another event: {text}")
        };
        assert_eq!(engine.is_some(), named);
    }
    // As servers wrote it before there were chains.
    for text in [r#"{"type":"stt_degraded","reason":"busy"}"#, r#"{"type":"stt_recovered"}"#] {
        assert!(event::parse(text).is_ok(), "{text}");
    }
}

#[test]
fn memory_created_keeps_every_field_of_omi_and_adds_only_ours() {
    let Ok(ServerMessage::Event(event)) = event::parse(MEMORY_CREATED) else { panic!("not read") };
    let mut written = parsed(&event.to_text());
    let memory = written["memory"].as_object_mut().expect("an object");
    for name in OURS {
        assert!(memory.remove(name).is_some(), "`{name}` is missing");
    }
    assert_eq!(
        written.as_object_mut().and_then(|event| event.remove("recording_session_id")),
        Some(Value::Null)
    );
    let mut documented = parsed(MEMORY_CREATED);
    // Times are written with all six digits; the example has one without.
    let due = &mut documented["memory"]["structured"]["action_items"][0]["due_at"];
    assert_eq!(*due, "2026-01-16T17:00:00Z");
    *due = "2026-01-16T17:00:00.000000Z".into();
    let start = &mut documented["memory"]["structured"]["events"][0]["start"];
    *start = "2026-01-19T15:00:00.000000Z".into();
    assert_eq!(written, documented);
}

#[test]
fn a_conversation_is_written_in_the_documented_order_with_ours_last() {
    let Ok(ServerMessage::Event(Event::MemoryCreated { memory, .. })) = event::parse(MEMORY_CREATED) else {
        panic!("not read")
    };
    let written = top_level_keys(&serde_json::to_string(&memory).expect("plain data"));
    let example = &MEMORY_CREATED[MEMORY_CREATED.find(r#""memory": "#).expect("has one") + 10..];
    let mut documented = top_level_keys(example);
    documented.extend(OURS.map(str::to_owned));
    assert_eq!(written, documented);
}

#[test]
fn service_status_has_the_forms_of_generations_a_and_c() {
    for (text, status) in [
        (r#"{"type":"service_status","status":"initiating","status_text":"Service Starting"}"#, "initiating"),
        (r#"{"type":"service_status","status":"ready","status_text":null}"#, "ready"),
    ] {
        let Ok(ServerMessage::Event(event)) = event::parse(text) else { panic!("not read: {text}") };
        assert!(matches!(&event, Event::ServiceStatus { status: read, .. } if read == status));
        assert_eq!(event.to_text(), text);
    }
    let terminal = r#"{"type":"service_status","status":"stt_failed","status_text":"Transcription temporarily unavailable",
        "outcome":"upstream_error","retryable":true,"reason":"reconnect_budget","retry_after":30}"#;
    let Ok(ServerMessage::Event(Event::ServiceStatus { status, .. })) = event::parse(terminal) else {
        panic!("generation C's form is not read")
    };
    assert_eq!(status, "stt_failed");
    // Generation C leaves nulls out.
    assert!(event::parse(r#"{"type":"service_status","status":"ready"}"#).is_ok());
}

#[test]
fn every_documented_pusher_frame_is_read_and_written() {
    let conversation_id = || "c1".to_owned();
    let expected = [
        Frame::Heartbeat,
        Frame::Audio { first_sample_at: 1_774_500_000.25, pcm: &[0, 0, 1, 0, 255, 255, 0, 1] },
        Frame::Transcript(Transcript { segments: Vec::new(), memory_id: Some(conversation_id()) }),
        Frame::ConversationId("c1"),
        Frame::ProcessRequest(ProcessRequest {
            conversation_id: conversation_id(),
            language: "en".into(),
            byok_keys: None,
            finalization_job_id: None,
            dispatch_generation: None,
            finalization_result_protocol: None,
        }),
        Frame::SpeakerSample(SpeakerSample {
            person_id: "p1".into(),
            conversation_id: conversation_id(),
            segment_ids: vec!["s1".into()],
        }),
        Frame::ProcessResult(ProcessResult {
            conversation_id: conversation_id(),
            success: Some(true),
            ..ProcessResult::default()
        }),
        Frame::ProcessResult(ProcessResult {
            conversation_id: conversation_id(),
            error: Some("conversation_not_found".into()),
            ..ProcessResult::default()
        }),
    ];
    let frames: Vec<Vec<u8>> = PUSHER_FRAMES
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()))
        .map(hex)
        .collect();
    assert_eq!(frames.len(), expected.len());
    for (bytes, expected) in frames.iter().zip(&expected) {
        assert_eq!(&pusher::decode(bytes).expect("documented"), expected);
        let mut written = Vec::new();
        expected.encode(&mut written);
        assert_eq!(written[..4], bytes[..4], "the type");
        match serde_json::from_slice::<Value>(&bytes[4..]) {
            // Python's separators are not copied.
            Ok(body) => assert_eq!(serde_json::from_slice::<Value>(&written[4..]).expect("JSON"), body),
            Err(_) => assert_eq!(&written, bytes),
        }
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("the fixture is JSON")
}

/// The line's hexadecimal pairs: what stands between its code and its remark.
fn hex(line: &str) -> Vec<u8> {
    let mut words = line.split_whitespace().skip(1).filter(|word| *word != "|");
    std::iter::from_fn(|| words.next().filter(|word| word.len() == 2))
        .map_while(|word| u8::from_str_radix(word, 16).ok())
        .collect()
}

/// The names of the first object's members, in the order of the text.
fn top_level_keys(text: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut stream = text.char_indices().peekable();
    let (mut depth, mut expects_key) = (0, false);
    while let Some((at, c)) = stream.next() {
        match c {
            '{' | '[' => {
                depth += 1;
                expects_key = depth == 1;
            }
            '}' | ']' => depth -= 1,
            ',' => expects_key = depth == 1,
            '"' => {
                let mut escaped = false;
                let end = stream
                    .find(|&(_, c)| {
                        let closes = c == '"' && !escaped;
                        escaped = c == '\\' && !escaped;
                        closes
                    })
                    .expect("strings end")
                    .0;
                if depth == 1 && expects_key {
                    keys.push(text[at + 1..end].to_owned());
                    expects_key = false;
                }
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    keys
}
