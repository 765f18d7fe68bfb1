//! Twelve conversations, different in kind, through the real client: what a model answers becomes the right record.
//!
//! `RENEW=1` writes the expected records anew: read every line of the difference.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use auricle_core::{
    Conversation, ConversationStatus, Limits, Photo, Revision, Segment, Source, Speaker, Structured,
    UnixMicros,
};
use auricle_process::openai::{OpenAiConfig, Output};
use auricle_process::{Clock, NoSteps, OpenAi, Request, Understand, Understanding};
use auricle_testkit::{LlmStandIn, schemas};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::rig::Rig;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/conversations")
}

fn fixtures() -> Vec<(String, Value)> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let read = |name: &std::ffi::OsString| {
        let text = std::fs::read_to_string(folder().join(name)).unwrap();
        (name.to_string_lossy().into_owned(), serde_json::from_str(&text).unwrap())
    };
    names.iter().map(read).collect()
}

fn micros(text: &Value) -> UnixMicros {
    UnixMicros(text.as_str().unwrap().parse::<Timestamp>().unwrap().as_microsecond())
}

fn shown(at: UnixMicros) -> String {
    Timestamp::from_microsecond(at.0).unwrap().to_string()
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn conversation(id: &str, fixture: &Value) -> Conversation {
    let started_at = micros(&fixture["started_at"]);
    let seconds = fixture["seconds"].as_i64().unwrap();
    let lines = fixture["lines"].as_array().unwrap();
    let segments = lines.iter().enumerate().map(|(at, line)| Segment {
        id: format!("s{}", at + 1).as_str().into(),
        text: line["text"].as_str().unwrap().into(),
        speaker: Some(Speaker::from_voice(line["speaker"].as_str().unwrap().parse().unwrap_or(0))),
        is_user: line["speaker"] == "User",
        person_id: None,
        start: at as f64,
        end: at as f64 + 1.0,
        translations: Vec::new(),
        speech_profile_processed: true,
        stt_provider: None,
    });
    let photos = texts(&fixture["photos"]).into_iter().enumerate().map(|(at, description)| Photo {
        id: format!("p{at}").as_str().into(),
        base64: String::new(),
        description: Some(description),
        created_at: started_at,
        discarded: false,
    });
    Conversation {
        id: id.into(),
        user: "ann".into(),
        created_at: started_at,
        started_at,
        finished_at: UnixMicros(started_at.0 + seconds * 1_000_000),
        source: Source::Omi,
        language: fixture["language"].as_str().map(Into::into),
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
        photos: photos.collect(),
        gaps: Vec::new(),
    }
}

/// A record as its reader sees it.
fn record(understanding: &Understanding) -> Value {
    let Understanding { structured, discarded, memories, .. } = understanding;
    let items = structured.action_items.iter();
    let items: Vec<_> =
        items.map(|i| json!({ "description": i.description, "due_at": i.due_at.map(shown) })).collect();
    let events = structured.events.iter().map(|event| {
        json!({
            "title": event.title, "description": event.description, "start": shown(event.start),
            "duration_minutes": event.duration_minutes,
        })
    });
    let sections = structured.sections.iter().map(|section| {
        let segments: Vec<_> = section.segments.iter().map(ToString::to_string).collect();
        json!({ "heading": section.heading, "body": section.body, "kind": section.kind.as_str(), "segments": segments })
    });
    json!({
        "discarded": discarded.map(|reason| reason.as_str()),
        "title": structured.title, "overview": structured.overview, "emoji": structured.emoji,
        "category": structured.category.as_str(),
        "events": events.collect::<Vec<_>>(), "sections": sections.collect::<Vec<_>>(), "action_items": items,
        "memories": memories,
    })
}

async fn understood(llm: &LlmStandIn, name: &str, fixture: &Value, output: Option<Output>) -> Value {
    let rig = Rig::new(Limits::default()).await;
    let config = OpenAiConfig { output, ..OpenAiConfig::new(llm.url(), "m1") };
    let clock = Arc::clone(&rig.clock) as Arc<dyn Clock>;
    let model = OpenAi::new(&config, Arc::clone(&rig.limits), clock).unwrap();
    let conversation = conversation(name, fixture);
    let open_items = texts(&fixture["open_items"]);
    let request = Request {
        conversation: &conversation,
        time_zone: TimeZone::get(fixture["time_zone"].as_str().unwrap()).unwrap(),
        now: if fixture["now"].is_null() { conversation.finished_at } else { micros(&fixture["now"]) },
        open_items: &open_items,
        steps: &NoSteps,
    };
    let understanding = model.understand(request).await.unwrap();
    assert_eq!(understanding.provenance.version, "m1/prompt-1");
    record(&understanding)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_conversations_come_out_right_in_every_form_of_output() {
    let llm = LlmStandIn::start().await.unwrap();
    let fixtures = fixtures();
    assert_eq!(fixtures.len(), 12);
    let renew = std::env::var_os("RENEW").is_some();
    for (name, mut fixture) in fixtures {
        llm.script(&name, fixture["answer"].clone());
        for output in [None, Some(Output::JsonObject), Some(Output::Text)] {
            let record = understood(&llm, &name, &fixture, output).await;
            if renew {
                fixture["expected"] = record.clone();
            }
            assert_eq!(record, fixture["expected"], "{name} {output:?}");
        }
        assert_eq!(llm.calls_for(&name), 3, "{name}: one call each");
        if renew {
            std::fs::write(folder().join(&name), format!("{fixture:#}\n")).unwrap();
        }
    }
    let requests = llm.requests();
    assert_eq!(requests.len(), 36);
    for request in requests {
        assert_eq!(schemas::chat_completion(&request), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_was_talked_into_it_still_sends_nobody_anywhere() {
    let llm = LlmStandIn::start().await.unwrap();
    for (name, fixture) in fixtures().into_iter().filter(|(name, _)| name.contains("injection")) {
        llm.script(&name, fixture["answer"].clone());
        let record = understood(&llm, &name, &fixture, None).await.to_string();
        for trace in ["evil.test", "](", "<", "1234", "\u{202e}", "\u{200b}"] {
            assert!(!record.contains(trace), "{name}: {trace} in {record}");
        }
        let asked = llm.requests().pop().unwrap();
        let instructions = asked["messages"][0]["content"].as_str().unwrap();
        assert!(!instructions.contains("Mallory") && !instructions.contains("maintenance"), "{instructions}");
        let material = asked["messages"][1]["content"].as_str().unwrap();
        for tag in
            ["<transcript>", "</transcript>", "<photos>", "</photos>", "<open_items>", "<system>", "<|"]
        {
            assert!(material.matches(tag).count() <= 1, "{tag} in {material}");
        }
        let said = material.split_once("<transcript>\n").unwrap().1;
        let lines = said.lines().take_while(|line| *line != "</transcript>");
        assert_eq!(lines.count(), fixture["lines"].as_array().unwrap().len(), "no line of its own");
    }
}

/// Tokens by the estimate of docs/llm.md.
pub(crate) fn tokens(text: &str) -> usize {
    let ascii = text.chars().filter(char::is_ascii).count();
    ascii.div_ceil(3) + text.chars().count() - ascii
}

/// What is sent for a conversation that fits the window is its transcript, a tenth of it, and a fixed part.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_is_sent_once_and_little_else_with_it() {
    const FIXED: usize = 1_100;
    let llm = LlmStandIn::start().await.unwrap();
    for (name, fixture) in fixtures() {
        llm.script(&name, fixture["answer"].clone());
        understood(&llm, &name, &fixture, None).await;
        let asked = llm.requests().pop().unwrap();
        let sent = ["/messages/0/content", "/messages/1/content"]
            .map(|at| tokens(asked.pointer(at).unwrap().as_str().unwrap()));
        let schema = tokens(&asked["response_format"]["json_schema"]["schema"].to_string());
        let all = sent.iter().sum::<usize>() + schema;
        let lines = fixture["lines"].as_array().unwrap().iter();
        let said: usize =
            lines.map(|line| tokens(&format!("Speaker 1: {}\n", line["text"].as_str().unwrap()))).sum();
        assert!(all * 10 <= said * 11 + FIXED * 10, "{name}: {all} tokens for {said}");
        assert_eq!(llm.calls_for(&name), 1);
    }
}
