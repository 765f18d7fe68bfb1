//! Segments and conversations as JSON. Source: listen-protocol 4.2 and 7; fields of our own come after Omi's.

use serde::{Deserialize, Serialize};

use crate::time::WireTime;

/// A translation of a segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Translation {
    pub lang: String,
    pub text: String,
}

/// One transcript segment. Clients upsert by `id`. `start` and `end` are seconds from the conversation's `started_at`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Segment {
    pub id: String,
    pub text: String,
    pub speaker: Option<String>,
    pub speaker_id: u32,
    pub is_user: bool,
    pub person_id: Option<String>,
    pub start: f64,
    pub end: f64,
    #[serde(default)]
    pub translations: Vec<Translation>,
    #[serde(default = "yes")]
    pub speech_profile_processed: bool,
    #[serde(default)]
    pub stt_provider: Option<String>,
}

fn yes() -> bool {
    true
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ActionItem {
    pub description: String,
    #[serde(default)]
    pub completed: bool,
    #[serde(default)]
    pub created_at: Option<WireTime>,
    #[serde(default)]
    pub updated_at: Option<WireTime>,
    #[serde(default)]
    pub due_at: Option<WireTime>,
    #[serde(default)]
    pub completed_at: Option<WireTime>,
    #[serde(default)]
    pub conversation_id: Option<String>,
}

/// Something that will happen. `duration` is minutes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    pub title: String,
    #[serde(default)]
    pub description: String,
    pub start: WireTime,
    #[serde(default = "half_an_hour")]
    pub duration: u32,
    #[serde(default)]
    pub created: bool,
}

fn half_an_hour() -> u32 {
    30
}

/// What understanding made of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Structured {
    pub title: String,
    pub overview: String,
    pub emoji: String,
    pub category: String,
    pub action_items: Vec<ActionItem>,
    pub events: Vec<Event>,
}

/// Where a conversation took place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Geolocation {
    #[serde(default)]
    pub google_place_id: Option<String>,
    pub latitude: f64,
    pub longitude: f64,
    #[serde(default)]
    pub address: Option<String>,
    #[serde(default)]
    pub location_type: Option<String>,
}

/// A picture taken during a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Photo {
    pub id: Option<String>,
    pub base64: String,
    #[serde(default)]
    pub description: Option<String>,
    pub created_at: WireTime,
    #[serde(default)]
    pub discarded: bool,
    #[serde(default)]
    pub data_protection_level: Option<String>,
}

/// What an app made of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AppResult {
    pub app_id: Option<String>,
    pub content: String,
}

/// The same under its old name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PluginResult {
    pub plugin_id: Option<String>,
    pub content: String,
}

/// Which understanding made the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Provenance {
    /// `local`, or the provider's name.
    pub provider: String,
    pub version: String,
}

/// A stretch whose words could not be recovered, in seconds from `started_at`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Gap {
    pub start: f64,
    pub end: f64,
}

/// A conversation. Omi's fields in Omi's order, nulls included; then ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Conversation {
    pub id: String,
    pub created_at: WireTime,
    #[serde(default)]
    pub started_at: Option<WireTime>,
    #[serde(default)]
    pub finished_at: Option<WireTime>,
    #[serde(default)]
    pub source: Option<String>,
    #[serde(default)]
    pub language: Option<String>,
    pub structured: Structured,
    #[serde(default)]
    pub transcript_segments: Vec<Segment>,
    #[serde(default)]
    pub transcript_segments_compressed: Option<bool>,
    #[serde(default)]
    pub geolocation: Option<Geolocation>,
    #[serde(default)]
    pub photos: Vec<Photo>,
    /// Kept audio files; none are kept by this server.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub audio_files: Vec<serde_json::Value>,
    #[serde(default)]
    pub private_cloud_sync_enabled: bool,
    #[serde(default)]
    pub apps_results: Vec<AppResult>,
    #[serde(default)]
    pub suggested_summarization_apps: Vec<String>,
    /// Always a copy of `apps_results`, for old apps.
    #[serde(default)]
    pub plugins_results: Vec<PluginResult>,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub external_data: Option<serde_json::Value>,
    #[serde(default)]
    pub app_id: Option<String>,
    #[serde(default)]
    pub discarded: bool,
    #[serde(default = "private")]
    pub visibility: String,
    #[serde(default)]
    pub starred: bool,
    /// Copy of the next field.
    #[serde(default)]
    pub processing_memory_id: Option<String>,
    #[serde(default)]
    pub processing_conversation_id: Option<String>,
    #[serde(default)]
    pub status: Option<String>,
    #[serde(default)]
    pub is_locked: bool,
    #[serde(default)]
    pub data_protection_level: Option<String>,
    #[serde(default)]
    pub folder_id: Option<String>,
    #[serde(default)]
    pub call_id: Option<String>,
    /// Which understanding made the record; null until one has.
    #[serde(default)]
    pub provenance: Option<Provenance>,
    /// Why processing gave up.
    #[serde(default)]
    pub failure: Option<String>,
    /// Why it was set aside.
    #[serde(default)]
    pub discard_reason: Option<String>,
    /// Why it ended.
    #[serde(default)]
    pub finalization_reason: Option<String>,
    /// How often it was finalised.
    #[serde(default)]
    pub revision: u32,
    /// Words that could not be recovered.
    #[serde(default)]
    pub gaps: Vec<Gap>,
}

fn private() -> String {
    "private".into()
}
