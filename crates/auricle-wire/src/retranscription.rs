//! Conversations that are heard again, and their revisions.

use serde::{Deserialize, Serialize};

use crate::conversation::Segment;
use crate::time::WireTime;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetranscribeRequest {
    /// One of the configured engines; the preferred one if absent.
    #[serde(default)]
    pub engine: Option<String>,
}

/// The work of hearing a conversation again: the latest of the conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Retranscription {
    pub id: String,
    pub conversation_id: String,
    pub engine: String,
    /// `queued`, `transcribing`, `done` or `failed`.
    pub status: String,
    pub attempts: u32,
    /// Why it failed, or what the last attempt ended with. The transcript is as it was.
    pub error: Option<String>,
    /// Seconds of audio that are transcribed.
    pub heard_secs: f64,
    /// The revision that came of it, once it is done. Its record follows.
    pub revision: Option<u32>,
    pub created_at: WireTime,
    pub updated_at: WireTime,
}

/// A transcript of a conversation, in short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RevisionSummary {
    pub revision: u32,
    /// Whether it is the present one, which the conversation shows.
    pub current: bool,
    /// Engines that heard it.
    pub engines: Vec<String>,
    /// How many segments it has.
    pub segments: u64,
    /// When it was replaced; null for the present one.
    pub replaced_at: Option<WireTime>,
}

/// A transcript and what was understood of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Revision {
    pub conversation_id: String,
    pub revision: u32,
    /// Whether it is the present one, which the conversation shows.
    pub current: bool,
    /// Engines that heard it.
    pub engines: Vec<String>,
    /// When it was replaced; null for the present one.
    pub replaced_at: Option<WireTime>,
    /// The zero of its segments' times.
    pub started_at: WireTime,
    /// Empty if no record was made of it.
    pub title: String,
    pub overview: String,
    pub transcript_segments: Vec<Segment>,
}
