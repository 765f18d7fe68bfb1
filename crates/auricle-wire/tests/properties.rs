//! What holds for every input: readers answer and never panic, and what is written is read again as it was.

use auricle_wire::client;
use auricle_wire::conversation::{Conversation, Segment, Translation};
use auricle_wire::event::{self, Event, ServerMessage};
use auricle_wire::params::{Endpoint, ListenParams};
use auricle_wire::pusher::{self, Frame, ProcessRequest, ProcessResult, SpeakerSample, Transcript};
use auricle_wire::time::WireTime;
use proptest::option;
use proptest::prelude::*;
use serde_json::Value;

/// Any JSON, to some depth, with the numbers that readers trip over.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(Value::from("SPEAKER_99999999999")),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(field(), inner, 0..6).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// The names that readers look for, and any other.
fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(
            &[
                "segments",
                "text",
                "speaker",
                "is_user",
                "start",
                "end",
                "id",
                "index",
                "total",
                "data",
                "speaker_id",
                "person_id",
                "person_name",
                "segment_ids",
                "reason",
                "token",
                "translations",
                "stt_provider",
                "memory",
                "conversation_id",
                "language",
                "byok_keys",
                "memory_id",
                "structured",
                "created_at",
                "status",
            ][..]
        )
        .prop_map(str::to_owned),
        "[a-z]{0,6}",
    ]
}

/// A message of a known type whose fields are anything.
fn message() -> impl Strategy<Value = String> {
    let kinds = prop::sample::select(
        &[
            "image_chunk",
            "speaker_assigned",
            "suggested_transcript",
            "skip_question",
            "start_onboarding",
            "finalization_reason",
            "auth",
            "service_status",
            "memory_created",
            "conversation_session",
            "translating",
            "segments_deleted",
            "photo_described",
            "onboarding_complete",
        ][..],
    );
    (kinds, prop::collection::btree_map(field(), json(), 0..8)).prop_map(|(kind, fields)| {
        let mut object: serde_json::Map<String, Value> = fields.into_iter().collect();
        object.insert("type".into(), kind.into());
        Value::from(object).to_string()
    })
}

fn segment() -> impl Strategy<Value = Segment> {
    let words =
        ("\\PC{0,40}", option::of("SPEAKER_[0-9]{1,3}"), any::<bool>(), option::of("[a-z0-9-]{1,36}"));
    let times = (-1e6..1e9f64, -1e6..1e9f64);
    let rest = (
        prop::collection::vec(("[a-z]{2}", "\\PC{0,20}"), 0..3),
        any::<bool>(),
        option::of("[a-zA-Z]{1,12}"),
        any::<u32>(),
    );
    ("[0-9a-f-]{36}", words, times, rest).prop_map(|(id, words, (start, end), rest)| {
        let (text, speaker, is_user, person_id) = words;
        let (translations, speech_profile_processed, stt_provider, speaker_id) = rest;
        let translations = translations.into_iter().map(|(lang, text)| Translation { lang, text }).collect();
        Segment {
            id,
            text,
            speaker,
            speaker_id,
            is_user,
            person_id,
            start,
            end,
            translations,
            speech_profile_processed,
            stt_provider,
        }
    })
}

/// Microseconds of the years 1 to 9999, as far as the calendar of the wire goes.
fn time() -> impl Strategy<Value = WireTime> {
    (-62_135_596_800_000_000..253_402_207_200_000_000i64).prop_map(WireTime)
}

proptest! {
    #[test]
    fn any_text_is_answered(text in ".{0,300}", segments_max in 0..20usize) {
        let _ = client::parse(&text, segments_max);
        let _ = client::web_auth_token(&text);
        let _ = event::parse(&text);
        let _ = ListenParams::parse(&text, Endpoint::V4);
        let _ = ListenParams::parse(&text, Endpoint::Web);
    }

    #[test]
    fn any_message_of_a_known_type_is_answered(text in message()) {
        let _ = client::parse(&text, 10);
        let _ = client::web_auth_token(&text);
        let _ = event::parse(&text);
    }

    #[test]
    fn any_bytes_are_answered(
        code in prop_oneof![prop::sample::select(&[100, 101, 102, 103, 104, 105, 201][..]), any::<u32>()],
        body in prop_oneof![prop::collection::vec(any::<u8>(), 0..80), json().prop_map(|v| v.to_string().into_bytes())],
        cut in 0..84usize,
    ) {
        let mut message = code.to_le_bytes().to_vec();
        message.extend(body);
        let _ = pusher::decode(&message);
        let _ = pusher::decode(&message[..cut.min(message.len())]);
    }

    #[test]
    fn a_query_that_is_read_is_within_its_bounds(
        rate in prop_oneof![any::<i64>().prop_map(|n| n.to_string()), "\\PC{0,8}"],
        id in "\\PC{0,40}",
    ) {
        let query = format!("sample_rate={rate}&client_conversation_id={id}");
        if let Ok(params) = ListenParams::parse(&query, Endpoint::V4) {
            prop_assert!((1..=192_000).contains(&params.sample_rate));
            prop_assert!(params.client_conversation_id.is_none_or(|id| id.len() == 36 && id == id.to_lowercase()));
        }
    }

    #[test]
    fn segments_are_read_as_they_were_written(segments in prop::collection::vec(segment(), 0..5)) {
        let text = event::segments_text(&segments);
        prop_assert_eq!(event::parse(&text).unwrap(), ServerMessage::Segments(segments));
    }

    #[test]
    fn a_suggested_transcript_takes_our_own_segments(segments in prop::collection::vec(segment(), 0..5)) {
        let text = format!(
            r#"{{"type":"suggested_transcript","segments":{}}}"#,
            event::segments_text(&segments)
        );
        let Ok(client::ClientMessage::SuggestedTranscript(read)) = client::parse(&text, 10) else {
            return Err(TestCaseError::fail("not read"));
        };
        for (read, sent) in read.segments.iter().zip(&segments) {
            prop_assert_eq!((&read.id, &read.text, &read.speaker), (&sent.id, &sent.text, &sent.speaker));
            prop_assert_eq!((read.start, read.end, &read.translations), (sent.start, sent.end, &sent.translations));
        }
        prop_assert_eq!(read.segments.len(), segments.len());
    }

    #[test]
    fn times_are_read_as_they_were_written(at in time()) {
        let text = serde_json::to_string(&at).unwrap();
        prop_assert_eq!(text.len(), r#""2026-01-15T17:03:11.204518Z""#.len());
        prop_assert_eq!(serde_json::from_str::<WireTime>(&text).unwrap(), at);
    }

    #[test]
    fn a_record_is_read_as_it_was_written(segments in prop::collection::vec(segment(), 0..3), at in time(), text in "\\PC{0,30}") {
        let least = format!(r#"{{"id":"c1","created_at":{}}}"#, serde_json::to_string(&at).unwrap());
        let mut memory: Conversation = serde_json::from_str(&least).unwrap();
        memory.transcript_segments = segments;
        memory.finished_at = Some(at);
        memory.structured.title = text.clone();
        memory.failure = Some(text);
        let event = Event::MemoryCreated { memory: Box::new(memory), messages: Vec::new(), recording_session_id: None };
        prop_assert_eq!(event::parse(&event.to_text()).unwrap(), ServerMessage::Event(event));
    }

    #[test]
    fn frames_are_read_as_they_were_written(
        at in -1e12..1e12f64,
        pcm in prop::collection::vec(any::<u8>(), 0..64),
        text in "\\PC{0,20}",
        flag in option::of(any::<bool>()),
        generation in option::of(any::<u64>()),
        keys in option::of(prop::collection::btree_map("[a-z]{1,8}", "\\PC{0,12}", 0..3)),
    ) {
        let id = || text.clone();
        for frame in [
            Frame::Heartbeat,
            Frame::Audio { first_sample_at: at, pcm: &pcm },
            Frame::Transcript(Transcript { segments: vec![Value::from(id())], memory_id: flag.map(|_| id()) }),
            Frame::ConversationId(&text),
            Frame::ProcessRequest(ProcessRequest {
                conversation_id: id(),
                language: id(),
                byok_keys: keys.map(|keys| keys.into_iter().map(|(name, key)| (name, key.into())).collect()),
                finalization_job_id: flag.map(|_| id()),
                dispatch_generation: generation,
                finalization_result_protocol: flag.map(u32::from),
            }),
            Frame::SpeakerSample(SpeakerSample { person_id: id(), conversation_id: id(), segment_ids: vec![id()] }),
            Frame::ProcessResult(ProcessResult {
                conversation_id: id(),
                success: flag,
                error: flag.map(|_| id()),
                fenced: flag,
                terminal: flag,
                dispatch_generation: generation,
            }),
        ] {
            let mut message = Vec::new();
            frame.encode(&mut message);
            prop_assert_eq!(pusher::decode(&message).unwrap(), frame);
        }
    }
}

#[test]
fn numbers_that_json_lacks_are_written_as_zero() {
    let text = r#"[{"id":"s","text":"a","speaker":null,"is_user":false,"start":5,"end":1}]"#;
    let Ok(ServerMessage::Segments(mut segments)) = event::parse(text) else { panic!("not read") };
    segments[0].end = f64::NAN;
    let written = event::segments_text(&segments);
    assert!(written.contains(r#""start":5.0,"end":0.0"#), "{written}");
}
