//! Segments and conversations as JSON. Source: listen-protocol 4.2 and 7; fields of our own come after Omi's.

use serde::{Deserialize, Serialize, Serializer};

use crate::time::WireTime;

/// A translation of a segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Translation {
    /// Target language code.
    pub lang: String,
    /// The translated text.
    pub text: String,
}

/// One transcript segment. Clients upsert by `id`. `start` and `end` are seconds from the conversation's `started_at`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Segment {
    /// Stable; a UUID.
    pub id: String,
    /// What was said.
    pub text: String,
    /// `SPEAKER_<n>`; null counts as number 0.
    #[serde(default)]
    pub speaker: Option<String>,
    /// The digits after the label's last `_`, else 0.
    #[serde(default)]
    pub speaker_id: u32,
    /// Whether the device's owner said it.
    pub is_user: bool,
    /// The person it was assigned to.
    #[serde(default)]
    pub person_id: Option<String>,
    /// Seconds.
    #[serde(serialize_with = "finite")]
    pub start: f64,
    /// Seconds.
    #[serde(serialize_with = "finite")]
    pub end: f64,
    /// In other languages.
    #[serde(default)]
    pub translations: Vec<Translation>,
    /// Whether the owner's voice profile had been applied.
    #[serde(default = "yes")]
    pub speech_profile_processed: bool,
    /// Which recogniser made it, where the source said so.
    #[serde(default)]
    pub stt_provider: Option<String>,
}

fn yes() -> bool {
    true
}

/// JSON has no NaN, and clients expect a number.
fn finite<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(if number.is_finite() { *number } else { 0.0 })
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ActionItem {
    /// What to do.
    pub description: String,
    /// Whether it is done.
    #[serde(default)]
    pub completed: bool,
    /// When the item was made.
    #[serde(default)]
    pub created_at: Option<WireTime>,
    /// When it was last changed.
    #[serde(default)]
    pub updated_at: Option<WireTime>,
    /// When it is due.
    #[serde(default)]
    pub due_at: Option<WireTime>,
    /// When it was completed.
    #[serde(default)]
    pub completed_at: Option<WireTime>,
    /// Where it was said.
    #[serde(default)]
    pub conversation_id: Option<String>,
}

/// Something that will happen. `duration` is minutes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Short name.
    pub title: String,
    /// More about it, or empty.
    #[serde(default)]
    pub description: String,
    /// When it begins.
    pub start: WireTime,
    /// Minutes.
    #[serde(default = "half_an_hour")]
    pub duration: u32,
    /// Whether it was put into a calendar.
    #[serde(default)]
    pub created: bool,
}

fn half_an_hour() -> u32 {
    30
}

/// A part of a record, resting on what was said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Section {
    /// What it is about.
    pub heading: String,
    /// Markdown.
    #[serde(default)]
    pub body_markdown: String,
    /// Where it was said.
    #[serde(default)]
    pub source_segment_ids: Vec<String>,
    /// `main` or `side_notes`.
    #[serde(default)]
    pub kind: String,
}

/// What understanding made of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Structured {
    /// Empty means discarded.
    pub title: String,
    /// A few sentences.
    pub overview: String,
    /// One emoji.
    pub emoji: String,
    /// One of listen-protocol 7.3.
    pub category: String,
    /// What is to be done.
    pub action_items: Vec<ActionItem>,
    /// What will happen.
    pub events: Vec<Event>,
    /// The record in parts; left out if there are none, as before they existed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sections: Vec<Section>,
}

impl Default for Structured {
    /// Source: listen-protocol 7.2.
    fn default() -> Self {
        Self {
            title: String::new(),
            overview: String::new(),
            emoji: "🧠".into(),
            category: "other".into(),
            action_items: Vec::new(),
            events: Vec::new(),
            sections: Vec::new(),
        }
    }
}

/// Where a conversation took place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Geolocation {
    /// Google's id of the place.
    #[serde(default)]
    pub google_place_id: Option<String>,
    /// Degrees, -90 to 90.
    #[serde(serialize_with = "finite")]
    pub latitude: f64,
    /// Degrees, -180 to 180.
    #[serde(serialize_with = "finite")]
    pub longitude: f64,
    /// Postal address.
    #[serde(default)]
    pub address: Option<String>,
    /// Kind of place.
    #[serde(default)]
    pub location_type: Option<String>,
}

/// A picture taken during a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Photo {
    /// The server's id.
    #[serde(default)]
    pub id: Option<String>,
    /// The image as the client sent it.
    pub base64: String,
    /// What is on it, once described.
    #[serde(default)]
    pub description: Option<String>,
    /// When it was received whole.
    pub created_at: WireTime,
    /// Whether it was set aside.
    #[serde(default)]
    pub discarded: bool,
    /// Omi's; null here.
    #[serde(default)]
    pub data_protection_level: Option<String>,
}

/// What an app made of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AppResult {
    /// Which app.
    #[serde(default)]
    pub app_id: Option<String>,
    /// Its words.
    pub content: String,
}

/// The same under its old name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PluginResult {
    /// Which app.
    #[serde(default)]
    pub plugin_id: Option<String>,
    /// Its words.
    pub content: String,
}

/// Which understanding made the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Provenance {
    /// `local`, or the provider's name.
    pub provider: String,
    /// The rules' version, or the model's name.
    pub version: String,
}

/// A stretch whose words could not be recovered, in seconds from `started_at`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Gap {
    /// First moment without words.
    #[serde(serialize_with = "finite")]
    pub start: f64,
    /// First moment with words again.
    #[serde(serialize_with = "finite")]
    pub end: f64,
}

/// A conversation. Omi's fields in Omi's order, nulls included; then ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Conversation {
    /// A UUID when Omi or we made it.
    pub id: String,
    /// When the record was made.
    pub created_at: WireTime,
    /// Zero of the transcript clock.
    #[serde(default)]
    pub started_at: Option<WireTime>,
    /// When the last speech or photo was stored.
    #[serde(default)]
    pub finished_at: Option<WireTime>,
    /// One of listen-protocol 7.4.
    #[serde(default)]
    pub source: Option<String>,
    /// The connection's, after normalisation.
    #[serde(default)]
    pub language: Option<String>,
    /// What understanding made of it.
    #[serde(default)]
    pub structured: Structured,
    /// In order of `start`; empty in listings.
    #[serde(default)]
    pub transcript_segments: Vec<Segment>,
    /// Omi's storage form.
    #[serde(default)]
    pub transcript_segments_compressed: Option<bool>,
    /// Where it took place.
    #[serde(default)]
    pub geolocation: Option<Geolocation>,
    /// In order of arrival; empty in listings.
    #[serde(default)]
    pub photos: Vec<Photo>,
    /// Kept audio files; none are kept by this server.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub audio_files: Vec<serde_json::Value>,
    /// Whether recordings are kept.
    #[serde(default)]
    pub private_cloud_sync_enabled: bool,
    /// What apps made of it.
    #[serde(default)]
    pub apps_results: Vec<AppResult>,
    /// Ids of apps that could summarise it.
    #[serde(default)]
    pub suggested_summarization_apps: Vec<String>,
    /// Always a copy of `apps_results`, for old apps.
    #[serde(default)]
    pub plugins_results: Vec<PluginResult>,
    /// What an integration attached.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub external_data: Option<serde_json::Value>,
    /// The app that made it.
    #[serde(default)]
    pub app_id: Option<String>,
    /// Whether it was set aside.
    #[serde(default)]
    pub discarded: bool,
    /// `private`, `shared` or `public`.
    #[serde(default = "private")]
    pub visibility: String,
    /// Marked by the user.
    #[serde(default)]
    pub starred: bool,
    /// Copy of the next field.
    #[serde(default)]
    pub processing_memory_id: Option<String>,
    /// Omi's; null here.
    #[serde(default)]
    pub processing_conversation_id: Option<String>,
    /// One of listen-protocol 6.1.
    #[serde(default)]
    pub status: Option<String>,
    /// Omi's; false here.
    #[serde(default)]
    pub is_locked: bool,
    /// Omi's; null here.
    #[serde(default)]
    pub data_protection_level: Option<String>,
    /// Omi's; null here.
    #[serde(default)]
    pub folder_id: Option<String>,
    /// Phone call (generation B).
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
