//! What it sends.

use std::time::Duration;

use serde::Deserialize;

use super::NAME;
use crate::EngineError;
use crate::cloud::{Close, Said, Utterance, broken, closed, unreadable, word};

/// It asks to be left alone for five to ten seconds. Source: its page on client retry.
const RETRY_AFTER: Duration = Duration::from_secs(10);

#[derive(Default, Deserialize)]
struct Message {
    #[serde(default)]
    message: String,
    /// Of an `Error`.
    #[serde(rename = "type")]
    kind: Option<String>,
    metadata: Option<Metadata>,
    #[serde(default)]
    results: Vec<Heard>,
}

#[derive(Deserialize)]
struct Metadata {
    end_time: Option<f64>,
}

#[derive(Deserialize)]
struct Heard {
    #[serde(rename = "type")]
    kind: String,
    start_time: f64,
    end_time: f64,
    attaches_to: Option<String>,
    #[serde(default)]
    is_eos: bool,
    #[serde(default)]
    alternatives: Vec<Alternative>,
}

#[derive(Deserialize)]
struct Alternative {
    content: String,
    /// `S1` and up; `UU` if it cannot tell.
    speaker: Option<String>,
    confidence: Option<f64>,
}

/// Words that are being put together.
#[derive(Default)]
pub(super) struct Transcript {
    utterance: Utterance,
    started: bool,
    /// Words that may still change are told.
    interim: bool,
}

impl Transcript {
    pub(super) fn new(interim: bool) -> Self {
        Self { interim, ..Self::default() }
    }

    pub(super) fn is_started(&self) -> bool {
        self.started
    }

    pub(super) fn read(&mut self, text: &str, said: &mut Vec<Said>) -> Result<(), EngineError> {
        let message: Message = serde_json::from_str(text).map_err(|error| unreadable(NAME, &error))?;
        let end = message.metadata.as_ref().and_then(|metadata| metadata.end_time);
        match message.message.as_str() {
            "RecognitionStarted" => self.started = true,
            "AddTranscript" => {
                for heard in &message.results {
                    add(&mut self.utterance, heard, said);
                }
                said.extend(end.map(|secs| self.utterance.covered(secs)));
            }
            "AddPartialTranscript" if self.interim => said.push(self.utterance.interim(|utterance, said| {
                for heard in &message.results {
                    add(utterance, heard, said);
                }
            })),
            "EndOfUtterance" => {
                self.utterance.end(said);
                said.extend(end.map(Said::Covered));
            }
            "EndOfTranscript" => {
                self.utterance.end(said);
                said.push(Said::Finished);
            }
            "Error" => return Err(of_type(message.kind.as_deref().unwrap_or_default())),
            // AudioAdded, Info, Warning, partial results that nobody asked for, and what is newer than this.
            _ => {}
        }
        Ok(())
    }
}

fn add(utterance: &mut Utterance, heard: &Heard, said: &mut Vec<Said>) {
    let Some(best) = heard.alternatives.first() else { return };
    let attaches = heard.attaches_to.as_deref().unwrap_or("none");
    if heard.kind == "punctuation" && attaches != "next" {
        utterance.attach(&best.content);
    } else {
        let last = utterance.speaker().unwrap_or(0);
        let speaker = best.speaker.as_deref().and_then(speaker).unwrap_or(last);
        if let Some(word) = word(&best.content, heard.start_time, heard.end_time, speaker, best.confidence) {
            utterance.add(word, said);
        }
    }
    if heard.is_eos {
        utterance.end(said);
    }
}

/// From 0.
fn speaker(label: &str) -> Option<u32> {
    label.strip_prefix('S')?.parse::<u32>().ok()?.checked_sub(1)
}

/// By the type of an in-band error, or the reason of a close, which repeats it.
fn of_type(kind: &str) -> EngineError {
    match kind {
        "not_authorised" => EngineError::Refused(format!(
            "{NAME} refused the key ({kind}); set speech.speechmatics_key to one that may use what is asked for"
        )),
        "not_allowed"
        | "invalid_model"
        | "invalid_config"
        | "invalid_audio_type"
        | "invalid_output_format" => {
            EngineError::Refused(format!("{NAME} refused what was asked for ({kind})"))
        }
        "insufficient_funds" | "timelimit_exceeded" => {
            EngineError::Limited { text: format!("{NAME} has no credit left ({kind})"), retry_after: None }
        }
        "quota_exceeded" => EngineError::Limited {
            text: format!("{NAME} is asked too much by this account ({kind})"),
            retry_after: Some(RETRY_AFTER),
        },
        // Its other types, spelled as a type is.
        kind if !kind.is_empty()
            && kind.len() <= 40
            && kind.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') =>
        {
            broken(NAME, &format!("said that it cannot go on ({kind})"))
        }
        _ => broken(NAME, "said that it cannot go on"),
    }
}

pub(super) fn of_close(close: Option<&Close>) -> EngineError {
    match close {
        Some(Close { code: 4005, .. }) => of_type("quota_exceeded"),
        Some(Close { reason, .. }) if is_of_account(reason) => of_type(reason),
        close => closed(NAME, close),
    }
}

fn is_of_account(reason: &str) -> bool {
    [
        "not_authorised",
        "not_allowed",
        "invalid_model",
        "insufficient_funds",
        "timelimit_exceeded",
        "quota_exceeded",
    ]
    .contains(&reason)
}

/// The name and the sentence of a refusal.
pub(super) fn error_of(body: &str) -> (Option<String>, Option<String>) {
    #[derive(Default, Deserialize)]
    struct Body {
        #[serde(alias = "error")]
        r#type: Option<String>,
        #[serde(alias = "detail")]
        reason: Option<String>,
    }
    let body: Body = serde_json::from_str(body).unwrap_or_default();
    (body.r#type, body.reason)
}
