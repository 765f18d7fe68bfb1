//! Bodies about people, their voices, and who said what; Omi's shapes where Omi has them.

use serde::{Deserialize, Serialize};

use crate::time::WireTime;

/// Somebody the user knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Person {
    pub id: String,
    pub name: String,
    pub created_at: WireTime,
    pub updated_at: WireTime,
    /// Recordings of them, in Omi's shape. No audio is kept of people: always empty.
    #[serde(default)]
    pub speech_samples: Vec<String>,
    /// How many of their voices are kept.
    #[serde(default)]
    pub voices: u64,
}

/// A new person, or another name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PersonName {
    /// 1 to 100 characters.
    pub name: String,
}

/// How somebody sounds, to one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewVoice {
    /// The voice model's name, 1 to 100 characters: only vectors of one model are compared.
    pub model: String,
    /// As the model gives it: finite numbers, not all 0.
    pub vector: Vec<f32>,
    /// Of speech behind it, more than 0.
    pub seconds: f64,
}

/// A voice that is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Voice {
    pub id: String,
    pub person_id: String,
    pub model: String,
    pub vector: Vec<f32>,
    /// Of speech behind it.
    pub seconds: f64,
    pub kept_at: WireTime,
}

/// Whose voice is it?
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MatchRequest {
    /// The voice model's name.
    pub model: String,
    /// As the model gives it.
    pub vector: Vec<f32>,
    /// Least cosine similarity, -1 to 1; 0.65 if absent. Models differ.
    #[serde(default)]
    pub similarity_min: Option<f32>,
    /// How much nearer than the next person at least, 0 to 2; 0.05 if absent.
    #[serde(default)]
    pub margin_min: Option<f32>,
}

/// Whose voice it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MatchResponse {
    /// Null if nobody is near enough, or two are about as near.
    pub person: Option<Person>,
    /// Cosine similarity of the nearest person, certain or not; null if no voice of this model and length is kept.
    pub similarity: Option<f32>,
    /// The same of the next person.
    pub runner_up: Option<f32>,
}

/// Whom segments are assigned to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AssignRequest {
    /// `is_user` or `person_id`.
    pub assign_type: String,
    /// For `is_user`: `true`, or `false` to assign nobody. For `person_id`: the person; null or `null` for nobody.
    #[serde(default)]
    pub value: Option<String>,
}

/// The same for segments by their ids.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BulkAssignRequest {
    /// Those that are not of the conversation are passed over.
    pub segment_ids: Vec<String>,
    /// `is_user` or `person_id`.
    pub assign_type: String,
    /// As with one segment.
    #[serde(default)]
    pub value: Option<String>,
}
