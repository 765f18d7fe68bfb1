//! The interface of whatever understands a transcript.

use async_trait::async_trait;
use auricle_core::{Conversation, DiscardReason, Provenance, Structured, UnixMicros};

/// What understanding is given.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// With segments and photos.
    pub conversation: &'a Conversation,
    /// The user's time zone, in which "tomorrow at five" is resolved.
    pub time_zone: jiff::tz::TimeZone,
    /// The time of processing.
    pub now: UnixMicros,
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
}

/// Why it could not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnderstandError {
    /// Worth another attempt.
    #[error("{0}")]
    Transient(String),
    /// Will fail in the same way again.
    #[error("{0}")]
    Permanent(String),
}

/// Turns a transcript into a record.
#[async_trait]
pub trait Understand: Send + Sync + 'static {
    /// Its name in configuration, metrics and provenance.
    fn name(&self) -> &'static str;
    /// Never invents: what it returns rests on the transcript. May run for as long as the attempt's deadline allows.
    async fn understand(&self, request: Request<'_>) -> Result<Understanding, UnderstandError>;
}
