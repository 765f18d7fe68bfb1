//! What it plays.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

/// One step of a recorded session. `fixtures/speech/README.md` says what each does.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the README beside the fixtures has them")]
pub enum Step {
    Refuse(StepRefusal),
    Await(StepAwait),
    Send(Value),
    SendRaw(String),
    Close(StepClose),
    Drop {},
    Hang {},
}

/// An answer to the upgrade.
#[derive(Clone, Debug, Deserialize)]
pub struct StepRefusal {
    /// The HTTP status.
    pub status: u16,
    /// By name.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// JSON.
    pub body: Value,
}

/// What is waited for.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StepAwait {
    /// Audio in all.
    AudioSecs(f64),
    /// A text message by its `type` or `message`.
    Message(String),
    /// A text message by a field.
    First(String),
}

/// A close frame.
#[derive(Clone, Debug, Deserialize)]
pub struct StepClose {
    /// 1000 and up.
    pub code: u16,
    /// As it is sent.
    pub reason: String,
}

/// Why a recorded session cannot be played.
#[derive(Debug, thiserror::Error)]
#[error("{file}, line {line}: {what}")]
pub struct SpeechScriptError {
    file: String,
    line: usize,
    what: String,
}

/// What a connection meets.
#[derive(Clone, Debug)]
pub enum SpeechScript {
    /// A recorded session.
    Session(Vec<Step>),
    /// As Deepgram: a word `w0.`, `w1.`, … every so many seconds of audio, `word_secs` long, the first at `first_secs`, each an
    /// utterance of its own, said once its audio has come.
    Words {
        /// From one word's beginning to the next one's.
        every_secs: f64,
        /// The first word's beginning.
        first_secs: f64,
        /// A word's length.
        word_secs: f64,
    },
    /// The connection is taken, and the upgrade never answered.
    BlackHole,
    /// The upgrade is answered; after that nothing is read and nothing said.
    Deaf,
}

impl SpeechScript {
    /// Reads a recorded session: one step a line.
    pub fn read(file: &Path) -> Result<Self, SpeechScriptError> {
        let error = |line, what: String| SpeechScriptError { file: file.display().to_string(), line, what };
        let text = std::fs::read_to_string(file).map_err(|e| error(0, e.to_string()))?;
        let steps = text.lines().enumerate().map(|(index, line)| {
            serde_json::from_str(line).map_err(|e: serde_json::Error| error(index + 1, e.to_string()))
        });
        Ok(Self::Session(steps.collect::<Result<_, _>>()?))
    }
}
