//! An engine that hears what a script says, whatever the audio is: for tests, load and demonstrations.
//!
//! The script is a JSON array of `{"text", "start", "end", "speaker"}`, in order, times in seconds of audio; or an object
//! of that array as `"words"`, and either of `"repeat_every_secs"`, after which it begins again, and `"hangs_after_secs"`, after
//! which a stream says nothing more, as a recogniser that is stuck; or `{"hears": "tones"}`: then the words are in the audio
//! itself ([`tones`]). An object's `"trouble_file"` names a file that switches trouble on and off ([`Mode`]). A text of several words is spread over
//! its time. An utterance ends where a silence of 0.6 s follows or at `"final": true`; its words are sent when the audio has
//! passed its end.
//!
//! Owns: the script, the stream's place in it, simulated trouble. Leaves to others: sound.
//! Invariants: no thread and no clock: everything happens on the pushing thread in audio time; while a session has no room
//! for events the script waits.

mod hearing;
mod script;
mod stream;
mod switch;
pub mod tones;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::hearing::TonesStream;
use self::script::Script;
pub use self::script::ScriptError;
use self::stream::ScriptedStream;
use self::switch::Switched;
pub use self::switch::{Mode, Switch};
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
    switch: Switch,
    name: &'static str,
}

/// How late the words of a slow stream are.
const SLOW: Duration = Duration::from_secs(5);

impl Scripted {
    /// Reads the script; without a file, a built-in exchange of ten sentences that repeats every 45 s.
    pub fn open(file: Option<&Path>, trouble: Trouble) -> Result<Self, EngineError> {
        let script = read(file)?;
        let trouble_file = script.trouble_file.clone();
        let scripted = Self::of(script, trouble);
        if let Some(file) = trouble_file {
            let failed = |error| EngineError::Unavailable(format!("the script's trouble file: {error}"));
            scripted.switch.follow(file).map_err(failed)?;
        }
        Ok(scripted)
    }

    /// The same words without trouble, under the name `scripted_spare`.
    pub fn spare(file: Option<&Path>) -> Result<Self, EngineError> {
        Ok(Self::of(read(file)?, Trouble::default()).named("scripted_spare"))
    }

    /// What switches trouble on and off while streams live.
    pub fn switch(&self) -> Switch {
        self.switch.clone()
    }

    /// Under another name, so that a chain can have several.
    #[must_use]
    pub fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    fn of(script: Script, trouble: Trouble) -> Self {
        let hang_after = trouble.hang_after.or(script.hangs_after());
        let trouble = Trouble { hang_after, ..trouble };
        Self { script: Arc::new(script), trouble, switch: Switch::default(), name: "scripted" }
    }

    /// As [`Self::open`], of the JSON itself.
    pub fn from_json(json: &str, trouble: Trouble) -> Result<Self, ScriptError> {
        Ok(Self::of(Script::from_json(json)?, trouble))
    }
}

fn read(file: Option<&Path>) -> Result<Script, EngineError> {
    let Some(path) = file else { return Ok(Script::built_in()) };
    std::fs::read_to_string(path)
        .map_err(|error| error.to_string())
        .and_then(|json| Script::from_json(&json).map_err(|error| error.to_string()))
        .map_err(|error| EngineError::Unavailable(format!("the script {}: {error}", path.display())))
}

impl Engine for Scripted {
    fn name(&self) -> &'static str {
        self.name
    }

    fn open(&self, spec: StreamSpec, events: EventSender) -> Result<Box<dyn Stream>, EngineError> {
        if self.trouble.unavailable {
            return Err(EngineError::Unavailable(
                "the scripted engine was told to be unavailable".to_owned(),
            ));
        }
        let trouble = match Switched::is_slow(&self.switch) {
            true => &Trouble { delay: self.trouble.delay + SLOW, ..self.trouble.clone() },
            false => &self.trouble,
        };
        let (rate_hz, to) = (spec.sample_rate_hz, events.clone());
        let stream: Box<dyn Stream> = if self.script.tones {
            Box::new(TonesStream::new(rate_hz, trouble.delay, to)?)
        } else {
            Box::new(ScriptedStream::new(Arc::clone(&self.script), trouble, &spec, to))
        };
        Ok(Box::new(Switched::new(self.switch.clone(), rate_hz, events, stream)))
    }

    fn check(&self) -> Result<String, EngineError> {
        if self.script.tones {
            return Ok("words of tones in the audio, not speech".to_owned());
        }
        Ok(format!("scripted words, not the audio's: {} utterances", self.script.utterances()))
    }
}

#[cfg(test)]
mod tests;
