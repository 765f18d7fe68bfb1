//! The door of each service: its words, and nothing else.

use std::fmt;
use std::time::Duration;

use auricle_core::Word;

use crate::{EngineError, StreamSpec};

/// What lets us in. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(Box<str>);

impl ApiKey {
    /// Wraps a key.
    pub fn new(key: impl Into<Box<str>>) -> Self {
        Self(key.into())
    }

    /// The key itself: for sending.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("********")
    }
}

/// What opens a connection.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// `ws://` or `wss://`, with its query.
    pub url: String,
    /// May hold the key.
    pub headers: Vec<(&'static str, String)>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Request").field("url", &self.url).field("headers", &names).finish()
    }
}

/// A message to the service.
#[derive(Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// Of its protocol. May hold the key.
    Text(String),
    /// 16-bit little-endian samples.
    Audio(Vec<u8>),
    /// A WebSocket ping: whoever lives answers it.
    Ping,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text of {} bytes", text.len()),
            Self::Audio(bytes) => write!(f, "Audio of {} bytes", bytes.len()),
            Self::Ping => f.write_str("Ping"),
        }
    }
}

/// What a message of the service means. Times are seconds of the audio that it was sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// Final words of one utterance, in order.
    Words(Vec<Word>),
    /// What is heard behind the last final words and may still change; none: nothing any more. Only if a stream asked for it.
    Interim(Vec<Word>),
    /// Everything before this is decided.
    Covered(f64),
    /// Everything that was sent before the last flush is decided.
    Flushed,
    /// Everything is decided; the service will say no more.
    Finished,
}

/// An answer to the upgrade that was not 101.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// Of `Retry-After`, if that is a number of seconds.
    pub retry_after: Option<Duration>,
    /// The first bytes of the body; a header that repeats it if there is no body.
    pub body: String,
}

/// The service's close frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// 1000 and up.
    pub code: u16,
    /// As it was sent.
    pub reason: String,
}

/// How a service wants to be sent to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Without audio for this long, [`Adapter::keep_alive`] is sent.
    pub keep_alive_every: Duration,
    /// How fast audio that has waited may be sent, in seconds of audio a second; none: as fast as it is taken.
    pub speed_max: Option<f64>,
}

/// One stream's half of a service's protocol. Pure: no I/O, no clock.
///
/// Messages come in the order in which the service sent them. After an error or [`Said::Finished`] none follows.
pub trait Adapter: Send + Sync {
    /// How the connection is opened.
    fn request(&self) -> &Request;
    /// The first message, once it is open.
    fn begin(&mut self) -> Option<String> {
        None
    }
    /// Whether audio may be sent now.
    fn is_ready(&self) -> bool {
        true
    }
    /// How it wants to be sent to.
    fn pace(&self) -> Pace;
    /// A message of audio has been sent.
    fn on_audio_sent(&mut self) {}
    /// What says that we are still here.
    fn keep_alive(&self) -> Option<&'static str>;
    /// What makes it decide all that was sent, `at_secs` of audio.
    fn flush(&mut self, at_secs: f64) -> String;
    /// What says that no more audio follows.
    fn finish(&mut self) -> String;
    /// Reads a message. Adds to `said` what it means; an unknown kind of message means nothing.
    ///
    /// Errors: the service says that it cannot go on, or what it sent is not of its protocol.
    fn on_text(&mut self, text: &str, said: &mut Vec<Said>) -> Result<(), EngineError>;
    /// The connection has ended, with this close frame or without one. `finished`: [`Adapter::finish`] had been sent.
    ///
    /// Errors: not everything was said.
    fn on_close(&mut self, close: Option<&Close>, finished: bool) -> Result<(), EngineError>;
    /// What an answer to the upgrade means.
    fn on_refusal(&self, refusal: &Refusal) -> EngineError;
}

/// A service, as it is configured.
pub trait Provider: Send + Sync + 'static {
    /// The engine's name.
    const NAME: &'static str;
    /// A stream's adapter.
    ///
    /// Errors: [`EngineError::Unavailable`] without a key, [`EngineError::Refused`] for a language that it does not hear.
    fn adapter(&self, spec: &StreamSpec) -> Result<Box<dyn Adapter>, EngineError>;
    /// What is asked where, for people. Holds no key.
    fn about(&self) -> String;
}
