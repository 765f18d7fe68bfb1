//! The door of every engine.

use std::time::Duration;

use auricle_audio::packets::{Frame, Packets};
use auricle_core::Word;
use tokio::sync::mpsc;

/// What a session wants heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSpec {
    /// Of the PCM that will be pushed: mono, signed 16-bit. 8,000 to 48,000.
    pub sample_rate_hz: u32,
    /// As the client named it, after normalisation (`multi` for any).
    pub language: String,
    /// Names the stream in logs.
    pub label: String,
    /// Words to expect: names, products. Engines that take none ignore them; others take the first hundred.
    pub key_terms: Vec<String>,
    /// Whether words that may still change are told, as [`Event::Interim`]. Services are asked for them only then.
    pub interim: bool,
}

/// What an engine tells about a stream. Positions are samples of pushed audio (at the stream's rate) from its first.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Final words of one utterance, in order. Word times are seconds from the stream's first sample. Never empty.
    Words(Vec<Word>),
    /// What is heard at the moment and may still change, if that was asked for: all words behind the last final ones, or none any
    /// more. Replaces the one before; what waits to be taken is replaced too.
    Interim(Vec<Word>),
    /// Everything before this position is decided: its words have been sent, or there were none. Grows.
    Covered { until_sample: u64 },
    /// All recognisers are taken: audio waits. Sent once, when waiting begins.
    Busy { waiting: Duration },
    /// Waiting has ended.
    Resumed,
    /// `samples` of audio were not heard, since the backlog was full. Sent once, when there is room again: what follows is
    /// heard. Repair may hear them from the spool.
    Skipped { from_sample: u64, samples: u64 },
    /// An engine of a chain failed (see [`crate::chain`]). The stream goes on: with `next`, or it waits for one.
    Degraded {
        /// Which failed.
        engine: &'static str,
        /// Why. Safe to show.
        reason: String,
        /// How long it had decided nothing.
        silent_for: Duration,
        /// Which is asked next; `None` while there is none.
        next: Option<&'static str>,
    },
    /// After [`Event::Degraded`], or first of all: something was decided, so this engine hears.
    Recovered {
        /// Which.
        engine: &'static str,
    },
    /// Words that follow come from this engine of a chain.
    Serving {
        /// Which.
        engine: &'static str,
    },
    /// The engine can do no more for this stream. No event follows.
    Failed(EngineError),
    /// All that was pushed before [`Stream::finish`] is decided. No event follows.
    Finished,
}

/// What went wrong with an engine. The text is safe to show to a client and in logs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// Not installed or not configured; the text says how to mend it.
    #[error("{0}")]
    Unavailable(String),
    /// It refused: credentials, language, what was asked for (400, 401, 403). The same again will be refused again.
    #[error("{0}")]
    Refused(String),
    /// The account has no credit or too many streams (402, 429).
    #[error("{text}")]
    Limited {
        /// What happened.
        text: String,
        /// Not to be tried again sooner, as the service says.
        retry_after: Option<Duration>,
    },
    /// It broke: a connection that could not be made or was dropped, a time that ran out, an answer that makes no sense.
    #[error("{0}")]
    Broken(String),
}

/// Where a stream's events go. Bounded: an engine that finds it full waits on its own threads.
pub type EventSender = mpsc::Sender<Event>;

/// A way of turning speech into words.
pub trait Engine: Send + Sync + 'static {
    /// The name in configuration, metrics and `stt_provider`.
    fn name(&self) -> &'static str;
    /// Opens a stream. Does not block; trouble found later comes as [`Event::Failed`].
    fn open(&self, spec: StreamSpec, events: EventSender) -> Result<Box<dyn Stream>, EngineError>;
    /// How long a stream may decide nothing while somebody speaks before it counts as hung, if that is longer than
    /// `limits.speech_silent_max`: for engines that gather long stretches before they decide.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }
    /// Whether it can work now, for `doctor` and `/readyz` detail. May block for seconds: call it off the session threads.
    fn check(&self) -> Result<String, EngineError>;
    /// Whether each second of audio that is sent costs money: silence is then kept from it (`speech.gate = auto`).
    fn is_paid(&self) -> bool {
        false
    }
}

/// One session's audio going in. Dropping it abandons what is undecided.
pub trait Stream: Send {
    /// Hands over PCM, copying it. Does not block. False when the bounded backlog is full: this audio will not be heard (the
    /// caller may have it heard later, from the spool), and [`Event::Skipped`] follows when there is room again.
    fn push(&mut self, pcm: &[i16]) -> bool;
    /// As [`Self::push`], of a message as it was received, for those who keep audio.
    fn push_frame(&mut self, frame: &mut Frame<'_>) -> bool {
        self.push(frame.pcm())
    }
    /// As [`Self::push`], of audio that was kept; before any other.
    fn push_kept(&mut self, kept: Packets) -> bool {
        self.push(&kept.pcm())
    }
    /// Whether frames pushed now should come with their samples. If not they may be asked for all the same.
    fn wants_samples(&self) -> bool {
        true
    }
    /// No more audio follows: decide what is left, then send [`Event::Finished`].
    fn finish(&mut self);
    /// Decide what has been heard so far as if a pause followed, and go on (before a conversation is finalised).
    fn flush(&mut self);
}
