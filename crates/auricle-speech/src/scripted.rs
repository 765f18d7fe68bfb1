//! An engine that hears what a script says, whatever the audio is: for tests, load and demonstrations.
//!
//! The script is a JSON array of `{"text", "start", "end", "speaker"}`, in order, times in seconds of audio; or an object
//! of that array as `"words"`, and either of `"repeat_every_secs"`, after which it begins again, and `"hangs_after_secs"`, after
//! which a stream says nothing more, as a recogniser that is stuck. A text of several words is spread over
//! its time. An utterance ends where a silence of 0.6 s follows or at `"final": true`; its words are sent when the audio has
//! passed its end.
//!
//! Owns: the script, the stream's place in it, simulated trouble. Leaves to others: sound.
//! Invariants: no thread and no clock: everything happens on the pushing thread in audio time; while a session has no room
//! for events the script waits.

mod script;
mod stream;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::script::Script;
pub use self::script::ScriptError;
use self::stream::ScriptedStream;
use crate::engine::{Engine, EngineError, EventSender, Stream, StreamSpec};

/// What goes wrong with a scripted stream. All times are audio time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Every utterance comes this much later.
    pub delay: Duration,
    /// The stream fails after this much audio.
    pub fail_after: Option<Duration>,
    /// The stream says nothing more after this much audio, not even that it has finished.
    pub hang_after: Option<Duration>,
    /// Between these times the stream is busy: it says so, then catches up.
    pub busy: Option<(Duration, Duration)>,
    /// No stream can be opened.
    pub unavailable: bool,
}

/// The engine. Streams share the script.
pub struct Scripted {
    script: Arc<Script>,
    trouble: Trouble,
}

impl Scripted {
    /// Reads the script; without a file, a built-in exchange of ten sentences that repeats every 45 s.
    pub fn open(file: Option<&Path>, trouble: Trouble) -> Result<Self, EngineError> {
        let script = match file {
            None => Script::built_in(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| error.to_string())
                .and_then(|json| Script::from_json(&json).map_err(|error| error.to_string()))
                .map_err(|error| {
                    EngineError::Unavailable(format!("the script {}: {error}", path.display()))
                })?,
        };
        Ok(Self::of(script, trouble))
    }

    fn of(script: Script, trouble: Trouble) -> Self {
        let hang_after = trouble.hang_after.or(script.hangs_after());
        Self { script: Arc::new(script), trouble: Trouble { hang_after, ..trouble } }
    }

    /// As [`Self::open`], of the JSON itself.
    pub fn from_json(json: &str, trouble: Trouble) -> Result<Self, ScriptError> {
        Ok(Self::of(Script::from_json(json)?, trouble))
    }
}

impl Engine for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn open(&self, spec: StreamSpec, events: EventSender) -> Result<Box<dyn Stream>, EngineError> {
        if self.trouble.unavailable {
            return Err(EngineError::Unavailable(
                "the scripted engine was told to be unavailable".to_owned(),
            ));
        }
        Ok(Box::new(ScriptedStream::new(
            Arc::clone(&self.script),
            &self.trouble,
            spec.sample_rate_hz,
            events,
        )))
    }

    fn check(&self) -> Result<String, EngineError> {
        Ok(format!("scripted words, not the audio's: {} utterances", self.script.utterances()))
    }
}

#[cfg(test)]
mod tests;
