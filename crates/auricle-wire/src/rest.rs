//! Bodies of the REST interface; Omi's shapes where Omi has them.

use serde::{Deserialize, Serialize};

use crate::conversation::Conversation;
use crate::time::WireTime;

/// Every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// What went wrong and what to do.
    pub detail: String,
}

/// The answer to "finalise now".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FinaliseResponse {
    /// The record; its `status` is `processing` if it is not ready yet.
    pub memory: Conversation,
    /// Chat messages about it.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub messages: Vec<serde_json::Value>,
}

/// A new title.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RenameRequest {
    /// 1 to 200 characters.
    pub title: String,
}

/// `{"status":"Ok"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    pub status: String,
}

/// A search, in Omi's form. `page` counts from 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SearchRequest {
    pub query: String,
    #[serde(default = "one")]
    pub page: usize,
    #[serde(default = "ten")]
    pub per_page: usize,
}

fn one() -> usize {
    1
}

fn ten() -> usize {
    10
}

/// Omi's answer to a search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SearchPage {
    pub items: Vec<Conversation>,
    pub current_page: usize,
    /// At least this many.
    pub total_pages: usize,
    pub per_page: usize,
}

/// Our answer to a search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SearchResponse {
    pub query: String,
    /// Whether it was also searched by meaning: `on`; `off`: no embedding server is configured; `away`: it did not answer.
    pub meaning: String,
    pub results: Vec<SearchResult>,
}

/// Something that matched, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SearchResult {
    /// `conversation`, `action_item` or `memory`: which of the following three is there.
    pub kind: String,
    /// Without its transcript.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<Conversation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_item: Option<ActionItem>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    pub snippets: Vec<Snippet>,
    /// Greater is better.
    pub score: f64,
    /// Why it is here: `words`, `meaning` or both.
    pub matched: Vec<String>,
    /// Its place by words alone, from 1.
    pub words_rank: Option<usize>,
    /// Its place by meaning alone, from 1.
    pub meaning_rank: Option<usize>,
    /// Cosine of its nearest text with the query.
    pub similarity: Option<f64>,
}

/// A piece of text that matched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Snippet {
    pub text: String,
    /// `[from, to)` in characters of `text`.
    pub highlights: Vec<(usize, usize)>,
    /// The segment it stands in; null for title or overview.
    pub segment_id: Option<String>,
    /// That segment's start in seconds.
    pub start: Option<f64>,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ActionItem {
    pub id: String,
    pub description: String,
    pub completed: bool,
    pub created_at: WireTime,
    pub updated_at: WireTime,
    pub due_at: Option<WireTime>,
    pub completed_at: Option<WireTime>,
    /// Where it was heard; null for what was made by hand, or if the conversation was deleted.
    pub conversation_id: Option<String>,
    /// Whether its words or its time are the user's own.
    pub edited: bool,
}

/// A new action item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewActionItem {
    /// 1 to 1,000 characters.
    pub description: String,
    #[serde(default)]
    pub due_at: Option<WireTime>,
    /// One of the user's conversations.
    #[serde(default)]
    pub conversation_id: Option<String>,
}

/// What to change; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ActionItemChange {
    /// 1 to 1,000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<bool>,
    /// Null takes the time away.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<WireTime>))]
    pub due_at: Option<Option<WireTime>>,
}

/// A value that is there, be it null.
fn present<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// A lasting fact about the user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Memory {
    pub id: String,
    pub text: String,
    pub created_at: WireTime,
    pub updated_at: WireTime,
    /// Where it was heard; null for what was made by hand, or if the conversation was deleted.
    pub conversation_id: Option<String>,
    /// Whether its words are the user's own.
    pub edited: bool,
}

/// A new memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewMemory {
    /// 1 to 1,000 characters.
    pub text: String,
    /// One of the user's conversations.
    #[serde(default)]
    pub conversation_id: Option<String>,
}

/// Other words for a memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MemoryChange {
    /// 1 to 1,000 characters.
    pub text: String,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Job {
    pub id: String,
    pub conversation_id: String,
    pub revision: u32,
    pub reason: String,
    /// `queued`, `leased`, `completed` or `failed`.
    pub state: String,
    pub attempts: u32,
    pub attempts_max: u32,
    pub run_at: WireTime,
    pub created_at: WireTime,
    pub updated_at: WireTime,
    pub last_error: Option<String>,
    pub leased_by: Option<String>,
    pub lease_expires_at: Option<WireTime>,
}

/// What was revived.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Revived {
    /// How many.
    pub revived: usize,
}

/// The user who asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct User {
    pub uid: String,
    /// IANA name; null means the server's.
    pub time_zone: Option<String>,
}

/// A new time zone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TimeZoneRequest {
    /// IANA name, e.g. `Europe/Madrid`.
    pub time_zone: String,
}
