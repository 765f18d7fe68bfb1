//! What it sends: tokens, which are pieces of words; a leading space begins a word.

use serde::Deserialize;

use super::NAME;
use crate::EngineError;
use crate::cloud::{ApiKey, Said, Utterance, by_status, unreadable, word};

/// Ends an utterance that was found, and one that was asked for.
const END: &str = "<end>";
const FLUSHED: &str = "<fin>";

#[derive(Default, Deserialize)]
struct Message {
    #[serde(default)]
    tokens: Vec<Token>,
    final_audio_proc_ms: Option<f64>,
    #[serde(default)]
    finished: bool,
    error_code: Option<u16>,
    error_type: Option<String>,
    #[serde(alias = "message")]
    error_message: Option<String>,
}

#[derive(Deserialize)]
struct Token {
    text: String,
    #[serde(default)]
    is_final: bool,
    start_ms: Option<f64>,
    end_ms: Option<f64>,
    /// `1` and up.
    speaker: Option<Label>,
    confidence: Option<f64>,
}

/// Its documents write strings; numbers were seen.
#[derive(Deserialize)]
#[serde(untagged)]
enum Label {
    Text(String),
    Number(u32),
}

impl Label {
    /// From 0.
    fn index(&self) -> u32 {
        let number = match self {
            Self::Text(text) => text.parse().unwrap_or(1),
            Self::Number(number) => *number,
        };
        number.saturating_sub(1)
    }
}

/// The code and the sentence of an error, whichever kind of answer it stands in.
pub(super) fn error_of(body: &str) -> (Option<String>, Option<String>) {
    let message: Message = serde_json::from_str(body).unwrap_or_default();
    (message.error_type, message.error_message)
}

/// Words that are being put together.
pub(super) struct Tokens {
    utterance: Utterance,
    /// Of the last token, for one that has no time.
    end: f64,
    /// Words that may still change are told.
    interim: bool,
}

impl Tokens {
    pub(super) fn new(interim: bool) -> Self {
        Self { utterance: Utterance::default(), end: 0.0, interim }
    }

    pub(super) fn read(&mut self, text: &str, key: &ApiKey, said: &mut Vec<Said>) -> Result<(), EngineError> {
        let message: Message = serde_json::from_str(text).map_err(|error| unreadable(NAME, &error))?;
        let mut flushed = false;
        for token in message.tokens.iter().filter(|token| token.is_final) {
            match token.text.as_str() {
                END => self.utterance.end(said),
                FLUSHED => {
                    self.utterance.end(said);
                    flushed = true;
                }
                _ => add(&mut self.utterance, &mut self.end, token, said),
            }
        }
        if message.finished {
            self.utterance.end(said);
        }
        if let Some(ms) = message.final_audio_proc_ms {
            said.push(self.utterance.covered(ms / 1_000.0));
        }
        if self.interim && message.error_code.is_none() {
            let mut end = self.end;
            said.push(self.utterance.interim(|utterance, said| {
                let changing = message.tokens.iter().filter(|token| !token.is_final);
                for token in changing.filter(|token| ![END, FLUSHED].contains(&token.text.as_str())) {
                    add(utterance, &mut end, token, said);
                }
            }));
        }
        if flushed {
            said.push(Said::Flushed);
        }
        if let Some(code) = message.error_code {
            let told = (message.error_type.as_deref(), message.error_message.as_deref());
            return Err(by_status(NAME, key, code, told, None));
        }
        if message.finished {
            said.push(Said::Finished);
        }
        Ok(())
    }
}

/// Adds a token's words. `end`: of the token before it.
fn add(utterance: &mut Utterance, end: &mut f64, token: &Token, said: &mut Vec<Said>) {
    let start = token.start_ms.map_or(*end, |ms| ms / 1_000.0);
    *end = token.end_ms.map_or(start, |ms| ms / 1_000.0);
    let speaker = match &token.speaker {
        Some(label) => label.index(),
        None => utterance.speaker().unwrap_or(0),
    };
    // A token may hold several words.
    for (index, piece) in token.text.split_inclusive(char::is_whitespace).enumerate() {
        let begins = index > 0 || token.text.starts_with(char::is_whitespace);
        let Some(piece) = word(piece, start, *end, speaker, token.confidence) else { continue };
        if begins {
            utterance.add(piece, said);
        } else {
            utterance.extend(piece, said);
        }
    }
}
