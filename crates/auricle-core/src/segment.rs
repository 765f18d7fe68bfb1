//! Words as an engine hears them and segments as a client sees them.

use crate::ids::{PersonId, SegmentId};

/// One recognised word. Times are seconds of media from the first audio of the stream it was heard in.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    /// As it should be shown, with punctuation and capitals if the engine gives them. Never empty.
    pub text: String,
    /// Seconds, at or after 0.
    pub start: f64,
    /// Seconds, at or after `start`.
    pub end: f64,
    /// Which voice, as the engine numbers them from 0.
    pub speaker: u32,
    /// How sure the engine is, from 0 to 1, if it tells. Not stored.
    pub confidence: Option<f32>,
}

/// A speaker label, e.g. `SPEAKER_0`. Its number is the digits after the last `_`, or 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Speaker(Box<str>);

impl Speaker {
    /// The label used where none was given.
    pub const DEFAULT: &str = "SPEAKER_00";

    /// Keeps the label as the engine or client gave it.
    pub fn new(label: impl Into<Box<str>>) -> Self {
        Self(label.into())
    }

    /// The label an engine's voice number gets: `SPEAKER_<n>`, not zero-padded.
    /// Source: listen-protocol 2.6.
    pub fn from_voice(number: u32) -> Self {
        Self(format!("SPEAKER_{number}").into())
    }

    /// The label's text.
    pub fn label(&self) -> &str {
        &self.0
    }

    /// `speaker_id` on the wire: the digits after the last `_`, else 0. Never fails.
    pub fn number(&self) -> u32 {
        self.0.rsplit_once('_').and_then(|(_, digits)| digits.parse().ok()).unwrap_or(0)
    }
}

impl Default for Speaker {
    fn default() -> Self {
        Self::new(Self::DEFAULT)
    }
}

/// A segment's text in another language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Target language code.
    pub lang: String,
    /// The translated text.
    pub text: String,
}

/// Whom a segment is assigned to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignee {
    /// The device's owner.
    Owner,
    /// One of the people they know.
    Person(PersonId),
    /// Nobody, as if it had never been assigned.
    Nobody,
}

impl Assignee {
    /// As a segment has it: whether it is the owner, and which person.
    pub fn parts(&self) -> (bool, Option<&PersonId>) {
        match self {
            Self::Owner => (true, None),
            Self::Person(person) => (false, Some(person)),
            Self::Nobody => (false, None),
        }
    }
}

/// A stretch of one voice's speech: the unit that is stored, shown and upserted by id.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// Stable identity.
    pub id: SegmentId,
    /// What was said.
    pub text: String,
    /// Who said it; `None` counts as number 0.
    pub speaker: Option<Speaker>,
    /// Whether the device's owner said it.
    pub is_user: bool,
    /// The person it was assigned to.
    pub person_id: Option<PersonId>,
    /// Seconds from the conversation's `started_at`.
    pub start: f64,
    /// Seconds from the conversation's `started_at`.
    pub end: f64,
    /// Translations shown with it.
    pub translations: Vec<Translation>,
    /// Whether the owner's voice profile had been applied. True unless a generation-A source says otherwise.
    pub speech_profile_processed: bool,
    /// Which engine made it, where the source said so.
    pub stt_provider: Option<String>,
}

impl Segment {
    /// The number of the speaker's label; 0 without one.
    pub fn speaker_number(&self) -> u32 {
        self.speaker.as_ref().map_or(0, Speaker::number)
    }
}
