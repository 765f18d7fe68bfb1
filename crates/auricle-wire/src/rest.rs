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
    /// `record`: a record is made of an ended conversation. `retranscription`: its kept audio is heard again.
    #[serde(default = "record")]
    pub kind: String,
    pub conversation_id: String,
    /// Of a retranscription: the revision that came of it, 0 until it is done.
    pub revision: u32,
    pub reason: String,
    /// Of a retranscription: which engine hears it.
    #[serde(default)]
    pub engine: Option<String>,
    /// Of a retranscription: seconds of audio that are transcribed.
    #[serde(default)]
    pub heard_secs: Option<f64>,
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

/// What jobs were before there were other kinds.
fn record() -> String {
    "record".to_owned()
}

/// What was revived.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Revived {
    /// How many.
    pub revived: usize,
}

/// A day, and its summary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Day {
    /// YYYY-MM-DD in `time_zone`.
    pub date: String,
    pub time_zone: String,
    /// `queued`, `leased` (it is being made), `completed` or `failed`.
    pub state: String,
    /// The overview; null until it was first made. It stays while it is made anew.
    pub summary: Option<String>,
    /// As webhooks hear it: `date`, `headline`, `overview`, `day_emoji`, `stats`, `highlights`, `action_items`.
    pub summary_json: Option<serde_json::Value>,
    /// How many it rests on.
    pub conversations: u32,
    /// `llm` or `local`.
    pub provider: Option<String>,
    pub provider_version: Option<String>,
    pub made_at: Option<WireTime>,
    /// How often it was asked for again.
    pub revision: u32,
    pub last_error: Option<String>,
}

/// The user who asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct User {
    pub uid: String,
    /// IANA name; null means the server's.
    pub time_zone: Option<String>,
    /// The language that the user reads, e.g. `es`; null means the server's.
    pub language: Option<String>,
}

/// The language that the user reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LanguageRequest {
    /// A language's code, e.g. `es` or `pt-BR`; null forgets it.
    pub language: Option<String>,
}

/// A new time zone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TimeZoneRequest {
    /// IANA name, e.g. `Europe/Madrid`.
    pub time_zone: String,
}

/// What an app, or the server about the user's webhooks, said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Message {
    pub id: String,
    /// Whose it is; null if it was removed.
    pub webhook_id: Option<String>,
    /// Its name at that time.
    pub sender: String,
    pub conversation_id: Option<String>,
    pub text: String,
    pub created_at: WireTime,
    /// When a connected client was told.
    pub delivered_at: Option<WireTime>,
}

/// A webhook or app to add.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewWebhook {
    /// Where deliveries are posted; `uid` is added to its query.
    pub url: String,
    /// `developer`, also if absent: any 2xx takes a delivery. `app`: 200 does, and the answer may hold a `message`.
    #[serde(default)]
    pub kind: Option<String>,
    /// 1 to 100 characters; the address's host if absent.
    #[serde(default)]
    pub name: Option<String>,
    /// Of `memory_created` (also if absent), `realtime_transcript`, `audio_bytes` and, for developers, `day_summary`.
    #[serde(default)]
    pub triggers: Option<Vec<String>>,
    /// Seconds of audio in one delivery, 1 to 60; 5 if absent.
    #[serde(default)]
    pub audio_seconds: Option<u32>,
}

/// What is to be another; the rest stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct WebhookChange {
    pub url: Option<String>,
    pub name: Option<String>,
    pub triggers: Option<Vec<String>>,
    pub audio_seconds: Option<u32>,
    /// `on`, `paused` or `off`.
    pub state: Option<String>,
}

/// A webhook or app.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Webhook {
    pub id: String,
    /// `developer` or `app`.
    pub kind: String,
    pub name: String,
    pub url: String,
    pub triggers: Vec<String>,
    pub audio_seconds: u32,
    /// `on`, `paused` or `off`.
    pub state: String,
    pub created_at: WireTime,
    /// When the first failure since the last success was.
    pub failing_since: Option<WireTime>,
    /// When failures switched it off.
    pub off_at: Option<WireTime>,
    /// The last success.
    pub last_delivery_at: Option<WireTime>,
    pub last_error: Option<String>,
    /// Tries that were taken, and that were not; realtime ones included.
    pub delivered: u64,
    pub failed: u64,
    /// Deliveries that wait.
    pub waiting: u64,
    /// By which deliveries are signed. Only in the answer that makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

impl std::fmt::Debug for Webhook {
    /// Without address and secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("id", &self.id).field("state", &self.state).finish_non_exhaustive()
    }
}

/// How a test went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tested {
    /// What the sample told of.
    pub trigger: String,
    pub taken: bool,
    /// The answer's, if there was one.
    pub status: Option<u16>,
    /// Until the answer.
    pub latency_ms: u64,
    /// Its first bytes.
    pub answer: String,
    pub error: Option<String>,
}

/// One delivery of a webhook or app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Delivery {
    pub id: String,
    /// As receivers see it.
    pub idempotency_key: String,
    /// What it is about; null if that is no conversation.
    pub conversation_id: Option<String>,
    /// `pending`, `leased` (under way), `delivered`, `skipped` (there was nothing to tell) or `failed`.
    pub state: String,
    /// Tries that count; those at a receiver that is away do not.
    pub attempts: u32,
    pub created_at: WireTime,
    /// When it is tried next, or was due last.
    pub run_at: WireTime,
    pub ended_at: Option<WireTime>,
    pub last_error: Option<String>,
}

/// Which delivery to repeat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Replay {
    /// All that have failed if absent.
    pub delivery_id: Option<String>,
}

/// What is delivered again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Replayed {
    /// How many.
    pub replayed: usize,
}
