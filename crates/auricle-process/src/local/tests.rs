//! Judged by reading: each transcript under `tests/transcripts` has its reviewed outcome under `tests/expected`.
//! `RENEW=1 cargo test -p auricle-process` writes them anew; read every line of the difference.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use auricle_core::{Conversation, ConversationStatus, Revision, Segment, Source, Speaker, UnixMicros};
use jiff::tz::TimeZone;

use super::*;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// Lines of `A: text`; one segment each, said on Thursday 2026-01-15 at 18:00 in Madrid.
pub(crate) fn conversation(transcript: &str) -> Conversation {
    let started_at = UnixMicros("2026-01-15T17:00:00Z".parse::<jiff::Timestamp>().unwrap().as_microsecond());
    let lines = transcript.lines().filter_map(|line| line.split_once(": ")).enumerate();
    let segments = lines.map(|(index, (speaker, text))| Segment {
        id: format!("s{index}").as_str().into(),
        text: text.to_owned(),
        speaker: Some(Speaker::new(if speaker == "A" { "SPEAKER_0" } else { "SPEAKER_1" })),
        is_user: speaker == "A",
        person_id: None,
        start: index as f64 * 4.0,
        end: index as f64 * 4.0 + 3.0,
        translations: Vec::new(),
        speech_profile_processed: true,
        stt_provider: None,
    });
    Conversation {
        id: "c".into(),
        user: "u".into(),
        created_at: started_at,
        started_at,
        finished_at: started_at,
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

fn understood(conversation: &Conversation) -> Understanding {
    let zone = TimeZone::get("Europe/Madrid").unwrap();
    understand(&Request {
        conversation,
        time_zone: zone,
        now: conversation.started_at,
        open_items: &[],
        steps: &crate::NoSteps,
    })
}

fn shown(understanding: &Understanding) -> String {
    let local = |at: UnixMicros| {
        let zone = TimeZone::get("Europe/Madrid").unwrap();
        let at = jiff::Timestamp::from_microsecond(at.0).unwrap().to_zoned_datetime(zone);
        at.strftime("%a %Y-%m-%d %H:%M").to_string()
    };
    let s = &understanding.structured;
    let mut text = format!(
        "title: {}\nemoji: {}\ncategory: {}\noverview: {}\n",
        s.title,
        s.emoji,
        s.category.as_str(),
        s.overview
    );
    for item in &s.action_items {
        text += &format!(
            "do: {}{}\n",
            item.description,
            item.due_at.map(|at| format!(" [{}]", local(at))).unwrap_or_default()
        );
    }
    for event in &s.events {
        text += &format!("event: {} [{}]\n", event.title, local(event.start));
    }
    if let Some(reason) = understanding.discarded {
        text += &format!("discarded: {}\n", reason.as_str());
    }
    text
}

fn transcripts() -> Vec<(String, String)> {
    let mut found: Vec<_> = std::fs::read_dir(folder("transcripts"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (path.file_stem().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(path).unwrap())
        })
        .collect();
    found.sort();
    found
}

#[test]
fn the_fixtures_come_out_as_reviewed() {
    let transcripts = transcripts();
    assert!(transcripts.len() >= 10, "ten varied transcripts are kept");
    let mut wrong = Vec::new();
    for (name, transcript) in transcripts {
        let made = shown(&understood(&conversation(&transcript)));
        let path = folder("expected").join(format!("{name}.txt"));
        if std::env::var_os("RENEW").is_some() {
            std::fs::write(&path, &made).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if made != expected {
            wrong.push(format!("--- {name}: expected\n{expected}--- made\n{made}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_invented() {
    for (name, transcript) in transcripts() {
        let conversation = conversation(&transcript);
        let said: HashSet<String> = conversation.segments.iter().flat_map(|s| text::words(&s.text)).collect();
        let made = understood(&conversation).structured;
        let items = made.action_items.iter().map(|item| &item.description);
        let texts = [&made.title, &made.overview]
            .into_iter()
            .chain(items)
            .chain(made.events.iter().map(|e| &e.title));
        for text in texts {
            for word in text::words(text) {
                assert!(said.contains(&word) || word == "and", "{name}: `{word}` of `{text}` was never said");
            }
        }
    }
}

#[test]
fn a_title_is_there_exactly_if_the_conversation_is_kept() {
    for (name, transcript) in transcripts() {
        let made = understood(&conversation(&transcript));
        assert_eq!(made.structured.title.is_empty(), made.discarded.is_some(), "{name}");
        assert!(made.structured.title.split(' ').count() <= 10, "{name}");
    }
}

#[test]
fn hostile_transcripts_are_only_words() {
    for text in [
        "",
        "A: ",
        "A: ?!.",
        "A: \u{202e}\u{0}\u{feff}",
        "A: 9999999999999999999999 of may in 99999 weeks at 99:99",
    ] {
        understood(&conversation(text));
    }
    let long = format!("A: {}", "word ".repeat(40_000));
    understood(&conversation(&long));
}
