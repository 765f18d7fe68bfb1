//! People a user knows and their voices: the values that go in and out.

use auricle_core::{PersonId, SegmentId, UnixMicros};

/// Somebody a user knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    pub id: PersonId,
    pub name: String,
    pub created_at: UnixMicros,
    pub updated_at: UnixMicros,
    /// How many of their voices are kept.
    pub voices: u64,
}

/// How somebody sounds, to one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Voice {
    /// The caller's, so that a repeated write is the same voice.
    pub id: String,
    pub person: PersonId,
    pub model: String,
    /// As the model gave it.
    pub vector: Vec<f32>,
    /// Of speech behind it.
    pub seconds: f64,
    pub kept_at: UnixMicros,
}

/// Segments of one conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentChoice {
    /// Those of these ids that there are.
    Ids(Vec<SegmentId>),
    /// The one at this place, from 0 in order of start.
    At(usize),
    /// All of the speaker whose label has this number.
    Speaker(u32),
}
