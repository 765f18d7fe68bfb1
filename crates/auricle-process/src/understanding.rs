//! The interface of whatever understands a transcript.

use std::time::Duration;

use async_trait::async_trait;
use auricle_core::{Conversation, DiscardReason, Provenance, Structured, UnixMicros};

/// More space-separated words than this are always kept. Source: pusher-and-processing 4.1.
pub(crate) const KEEP_WORDS: usize = 100;
/// Shown with a record that was set aside, and where nothing fits. Source: listen-protocol 6.4.
pub(crate) const PLAIN_EMOJI: &str = "🧠";

/// What understanding is given.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// With segments and photos.
    pub conversation: &'a Conversation,
    /// The user's time zone, in which "tomorrow at five" is resolved.
    pub time_zone: jiff::tz::TimeZone,
    /// The time of processing.
    pub now: UnixMicros,
    /// What the user has open already, newest first: a new action item does not repeat one.
    pub open_items: &'a [String],
    /// Keeps what finished calls brought, where one understanding takes several.
    pub steps: &'a dyn Steps,
}

/// Where results of finished calls are kept for the next attempt: a crash repeats none.
#[async_trait]
pub trait Steps: Send + Sync + std::fmt::Debug {
    /// What this or an earlier attempt recorded under `name`.
    fn recorded(&self, name: &str) -> Option<String>;
    /// Records `result` durably before it returns. An error ends the attempt.
    async fn record(&self, name: &str, result: &str) -> Result<(), UnderstandError>;
}

/// Keeps nothing: for understanding outside a job.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSteps;

#[async_trait]
impl Steps for NoSteps {
    fn recorded(&self, _name: &str) -> Option<String> {
        None
    }

    async fn record(&self, _name: &str, _result: &str) -> Result<(), UnderstandError> {
        Ok(())
    }
}

/// What it makes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Understanding {
    /// Title (empty exactly if discarded), overview, emoji, category, action items, events.
    pub structured: Structured,
    /// Which one made it.
    pub provenance: Provenance,
    /// Set if the conversation is not worth keeping in view.
    pub discarded: Option<DiscardReason>,
    /// Lasting facts about the user, one sentence each.
    pub memories: Vec<String>,
}

/// Why it could not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnderstandError {
    /// Worth another attempt: it may be the transcript's fault.
    #[error("{reason}")]
    Transient {
        /// Why, for the conversation's user: without transcript text, secrets or advice for operators, as all reasons.
        reason: String,
        /// Not sooner than this, if whoever was asked said so.
        after: Option<Duration>,
    },
    /// What it needs is away or too busy, tried or known: it says nothing about the transcript. The attempt is not counted.
    #[error("{reason}")]
    Away {
        /// Why.
        reason: String,
        /// Not sooner than this.
        after: Duration,
    },
    /// Will fail in the same way again.
    #[error("{0}")]
    Permanent(String),
}

impl UnderstandError {
    /// Worth another attempt, at the usual time.
    pub fn transient(reason: impl Into<String>) -> Self {
        Self::Transient { reason: reason.into(), after: None }
    }
}

/// Turns a transcript into a record.
#[async_trait]
pub trait Understand: Send + Sync + 'static {
    /// Its name in configuration, metrics and provenance.
    fn name(&self) -> &'static str;
    /// Never invents: what it returns rests on the transcript. May run for as long as the attempt's deadline allows.
    async fn understand(&self, request: Request<'_>) -> Result<Understanding, UnderstandError>;
    /// Whether it is known to be away: workers then look for jobs slowly, which it would only give back.
    fn is_away(&self) -> bool {
        false
    }
    /// Whether it answered when it was last asked: then what stands in for its records may be made anew.
    fn has_answered(&self) -> bool {
        false
    }
}
