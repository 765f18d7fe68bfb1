//! What answers are worth, without a server.

use auricle_core::{
    Category, ConversationStatus, Photo, Revision, Segment, Source, Speaker, Structured, UnixMicros,
};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::answer::{Answer, read};
use super::*;

fn micros(text: &str) -> UnixMicros {
    UnixMicros(text.parse::<Timestamp>().unwrap().as_microsecond())
}

fn conversation(texts: &[&str]) -> Conversation {
    let segments = texts.iter().enumerate().map(|(at, text)| Segment {
        id: format!("s{at}").as_str().into(),
        text: (*text).into(),
        speaker: Some(Speaker::from_voice(at as u32 % 2)),
        is_user: false,
        person_id: None,
        start: at as f64,
        end: at as f64 + 1.0,
        translations: Vec::new(),
        speech_profile_processed: true,
        stt_provider: None,
    });
    Conversation {
        id: "c1".into(),
        user: "ann".into(),
        created_at: micros("2026-03-30T08:00:00Z"),
        started_at: micros("2026-03-30T08:00:00Z"),
        finished_at: micros("2026-03-30T08:01:00Z"),
        source: Source::Omi,
        language: Some("en".into()),
        status: ConversationStatus::Processing,
        revision: Revision(1),
        structured: Structured::default(),
        provenance: None,
        discarded: None,
        finalise_reason: None,
        failure: None,
        user_title: None,
        client_conversation_id: None,
        call_id: None,
        geolocation: None,
        starred: false,
        segments: segments.collect(),
        photos: Vec::new(),
        gaps: Vec::new(),
    }
}

fn request(conversation: &Conversation) -> Request<'_> {
    Request {
        conversation,
        time_zone: TimeZone::get("Europe/Madrid").unwrap(),
        now: micros("2026-03-30T09:00:00Z"),
        open_items: &[],
    }
}

fn record() -> Value {
    json!({
        "discard": false, "title": "A title", "overview": "What was said.", "emoji": "📅", "category": "work",
        "action_items": [], "events": [],
    })
}

fn completion(content: &str) -> Vec<u8> {
    json!({ "choices": [{ "message": { "content": content }, "finish_reason": "stop" }] })
        .to_string()
        .into_bytes()
}

fn answered(record: &Value) -> Result<Answer, Failure> {
    let conversation = conversation(&["hello"]);
    read(&completion(&record.to_string()), &request(&conversation), true)
}

fn kept(record: &Value) -> Structured {
    match answered(record) {
        Ok(Answer::Keep(structured)) => structured,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_becomes_a_record_with_everything_bounded() {
    let mut long = record();
    long["title"] = "one two three four five six seven eight nine ten eleven".into();
    long["overview"] = format!("a\u{0}b {}", "x".repeat(10_000)).into();
    long["action_items"] =
        (0..99).map(|_| json!({ "description": "y".repeat(9_000), "due_at": null })).collect();
    let structured = kept(&long);
    assert_eq!(structured.title, "one two three four five six seven eight nine ten");
    assert!(structured.overview.starts_with("a b x") && structured.overview.len() == 4_000);
    assert_eq!((structured.action_items.len(), structured.action_items[0].description.len()), (50, 500));
    assert_eq!((structured.emoji.as_str(), structured.category), ("📅", Category::Work));
}

#[test]
fn what_is_not_known_is_other_and_plain() {
    let mut strange = record();
    (strange["category"], strange["emoji"]) = ("romance novels".into(), "smile".into());
    let structured = kept(&strange);
    assert_eq!((structured.category, structured.emoji.as_str()), (Category::Other, "🧠"));
    strange["emoji"] = "👩‍💻 and more".into();
    assert_eq!(kept(&strange).emoji, "👩‍💻");
}

#[test]
fn dates_are_of_the_users_zone_and_old_ones_are_cleared() {
    let mut dated = record();
    // In Madrid it is two hours later than in UTC then.
    let cases = [
        (json!("2026-03-31T17:00"), Some("2026-03-31T15:00:00Z")),
        (json!("2026-03-31T17:00:00+05:00"), Some("2026-03-31T12:00:00Z")),
        (json!("2026-03-31T17:00:00Z"), Some("2026-03-31T17:00:00Z")),
        (json!("2026-03-31"), Some("2026-03-31T21:59:00Z")),
        (json!("2026-03-29T12:00"), Some("2026-03-29T10:00:00Z")),
        (json!("2026-03-28T12:00"), None),
        (json!("tomorrow"), None),
        (json!(""), None),
        (Value::Null, None),
    ];
    dated["action_items"] =
        cases.iter().map(|(due, _)| json!({ "description": "Call", "due_at": due })).collect();
    let due: Vec<_> = kept(&dated).action_items.into_iter().map(|item| item.due_at).collect();
    assert_eq!(due, cases.map(|(_, expected)| expected.map(micros)));
}

#[test]
fn an_event_has_a_time_of_day_and_a_sane_length() {
    let mut busy = record();
    busy["events"] = json!([
        { "title": "Review", "description": "", "start": "2026-04-01T10:00", "duration_minutes": 600 },
        { "title": "Some day", "description": "", "start": "2026-04-01", "duration_minutes": 30 },
        { "title": "", "description": "", "start": "2026-04-01T10:00", "duration_minutes": 30 },
        { "title": "Call", "description": "With Bo", "start": "2026-04-01T11:00", "duration_minutes": null },
    ]);
    let events = kept(&busy).events;
    let shown: Vec<_> = events.iter().map(|event| (event.title.as_str(), event.duration_minutes)).collect();
    assert_eq!(shown, [("Review", 180), ("Call", 30)]);
    assert_eq!(events[0].start, micros("2026-04-01T08:00:00Z"));
}

#[test]
fn l14_no_title_is_a_failure_unless_it_is_discarded() {
    let mut untitled = record();
    untitled["title"] = " \n".into();
    assert_eq!(answered(&untitled).unwrap_err().label(), "senseless");
    untitled["discard"] = true.into();
    assert_eq!(answered(&untitled).unwrap(), Answer::Discard);
    // Who was not asked cannot discard.
    let conversation = conversation(&["hello"]);
    let body = completion(&untitled.to_string());
    assert_eq!(read(&body, &request(&conversation), false).unwrap_err().label(), "senseless");
}

#[test]
fn an_answer_that_is_not_what_was_asked_for_is_told_without_its_words() {
    let secret = "Ann said the PIN is 1234";
    let mut typed = record();
    typed["overview"] = json!({ "text": secret });
    typed["title"] = secret.into();
    let cut =
        json!({ "choices": [{ "message": { "content": "{\"title\":\"1234" }, "finish_reason": "length" }] });
    let bodies = [
        secret.as_bytes().to_vec(),
        b"\xff\xfe1234".to_vec(),
        completion(secret),
        completion(&typed.to_string()),
        completion(""),
        json!({ "choices": [], "x": secret }).to_string().into_bytes(),
        cut.to_string().into_bytes(),
    ];
    let conversation = conversation(&["hello"]);
    for body in bodies {
        let failure = read(&body, &request(&conversation), true).unwrap_err();
        let UnderstandError::Transient { reason, .. } = UnderstandError::from(failure) else {
            panic!("another attempt may bring it")
        };
        assert!(!reason.contains("1234") && reason.contains("language model"), "{reason}");
    }
    let fenced = completion(&format!("```json\n{}\n```", record()));
    assert!(matches!(read(&fenced, &request(&conversation), true), Ok(Answer::Keep(_))));
    let declined = json!({ "choices": [{ "message": { "content": null, "refusal": secret } }] }).to_string();
    let declined = read(declined.as_bytes(), &request(&conversation), true).unwrap_err();
    assert!(matches!(declined.into(), UnderstandError::Permanent(reason) if !reason.contains("1234")));
}

#[test]
fn long_talk_is_kept_and_silence_set_aside_without_asking() {
    let hundred = "word ".repeat(100);
    assert_eq!(worth(&conversation(&[&hundred])), Worth::Unclear);
    assert_eq!(worth(&conversation(&[&hundred, "more"])), Worth::Kept);
    assert_eq!(worth(&conversation(&[" ", ""])), Worth::Nothing);
    let mut seen = conversation(&[]);
    assert_eq!(worth(&seen), Worth::Nothing);
    seen.photos.push(Photo {
        id: "p1".into(),
        base64: String::new(),
        description: Some("A whiteboard".into()),
        created_at: UnixMicros(0),
        discarded: false,
    });
    assert_eq!(worth(&seen), Worth::Unclear);
}

#[test]
fn an_address_may_name_the_version_or_not() {
    for (url, endpoint) in [
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434/v1/chat/completions"),
        ("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1/chat/completions"),
        ("https://example.org/openai/", "https://example.org/openai/v1/chat/completions"),
    ] {
        assert_eq!(super::endpoint(url).unwrap().as_str(), endpoint);
    }
    assert!(super::endpoint("localhost:80").is_none() && super::endpoint("ftp://example.org").is_none());
}

#[test]
fn the_model_is_told_zone_time_and_who_spoke() {
    let conversation = conversation(&["Shall we meet?", "Tomorrow\nat ten."]);
    let body: Value =
        serde_json::from_str(&prompt::body(&request(&conversation), "m1", true, 1_000)).unwrap();
    let material = body["messages"][1]["content"].as_str().unwrap();
    assert!(material.contains("Time zone: Europe/Madrid"), "{material}");
    assert!(material.contains("Monday 2026-03-30T10:00+02:00"), "{material}");
    assert!(
        material.ends_with("Transcript:\nSpeaker 0: Shall we meet?\nSpeaker 1: Tomorrow at ten.\n"),
        "{material}"
    );
    assert_eq!(body["model"], "m1");
    assert_eq!(body["response_format"]["json_schema"]["strict"], true);
    // A week later "tomorrow" is another day, which the model must know.
    let late = Request { now: micros("2026-05-01T09:00:00Z"), ..request(&conversation) };
    assert!(prompt::body(&late, "m1", true, 1_000).contains("Friday 2026-05-01T11:00+02:00"));
}
