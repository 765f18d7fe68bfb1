//! Messages from the server to clients. Source: listen-protocol 4. All are text frames.

use serde::{Deserialize, Serialize};

use crate::conversation::{Conversation, Segment};
use crate::time::WireTime;

/// The heartbeat: these four characters, unquoted.
pub const PING: &str = "ping";

/// What a client that answers a ping sends (binary): the mobile app's own bytes.
pub const PONG: [u8; 2] = [0x8A, 0x00];

/// A message with a `type`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// Source: listen-protocol 4.4.
    ServiceStatus {
        /// `initiating`, `in_progress_conversations_processing`, `stt_initiating`, `ready`; generation C also `stt_failed`.
        status: String,
        /// For people; null with `ready`.
        status_text: Option<String>,
    },
    /// The newest completed conversation.
    LastMemory {
        /// Its id.
        memory_id: String,
    },
    /// A conversation was made or resumed (generation B).
    ConversationSession {
        /// Its id.
        conversation_id: String,
        /// `in_progress`.
        status: String,
        /// The client's own id of the recording.
        recording_session_id: Option<String>,
    },
    /// A conversation has ended.
    MemoryProcessingStarted {
        /// As it stands.
        memory: Box<Conversation>,
        /// Empty.
        messages: Vec<serde_json::Value>,
        /// The client's own id of the recording (generation B).
        recording_session_id: Option<String>,
    },
    /// A conversation's record is ready, or was set aside.
    MemoryCreated {
        /// The record.
        memory: Box<Conversation>,
        /// Chat messages about it.
        messages: Vec<serde_json::Value>,
        /// The client's own id of the recording (generation B).
        recording_session_id: Option<String>,
    },
    /// Translations are ready.
    Translating {
        /// Whole segments with their translations.
        segments: Vec<Segment>,
    },
    /// Merging absorbed segments that were shown.
    SegmentsDeleted {
        /// Theirs.
        segment_ids: Vec<String>,
    },
    /// Who a speaker may be.
    SpeakerLabelSuggestion {
        /// Number of the label.
        speaker_id: u32,
        /// May be empty.
        person_id: String,
        /// The person's name.
        person_name: String,
        /// Where it was noticed.
        segment_id: String,
    },
    /// A picture is whole.
    PhotoProcessing {
        /// The client's id.
        temp_id: String,
        /// The server's id.
        photo_id: String,
    },
    /// A picture was looked at.
    PhotoDescribed {
        /// The server's id.
        photo_id: String,
        /// What is on it.
        description: String,
        /// Whether it was set aside.
        discarded: bool,
    },
    /// Both forms that clients read: the fields, and the same as JSON text.
    FreemiumThresholdReached {
        /// Of credit.
        remaining_seconds: i64,
        /// `setup_on_device_stt` or `none`.
        action: String,
        /// The two above as JSON text: see [`Event::freemium_threshold_reached`].
        status_text: Option<String>,
    },
    /// Source for this and the next three: listen-protocol 3.5.
    OnboardingQuestion {
        /// Its text.
        question: String,
        /// From 0.
        question_index: usize,
        /// How many there are.
        total_questions: usize,
    },
    /// The current question has an answer.
    QuestionAnswered {
        /// From 0.
        question_index: usize,
        /// True.
        answered: bool,
    },
    /// The client skipped a question.
    QuestionSkipped {
        /// From 0.
        question_index: usize,
    },
    /// No question is left.
    OnboardingComplete {
        /// How many were answered.
        answers_count: usize,
    },
    /// Source: listen-protocol 1.5.
    AuthResponse {
        /// Whether the token was accepted.
        success: bool,
    },
    /// Ours: recognition waits or is down; audio is kept.
    SttDegraded {
        /// Which engine failed; null if it is not about one.
        #[serde(default)]
        engine: Option<String>,
        /// Safe to show.
        reason: String,
        /// When words stopped.
        #[serde(default)]
        since: Option<WireTime>,
        /// Which engine is asked next; null while there is none.
        #[serde(default)]
        next: Option<String>,
    },
    /// Ours: recognition goes on.
    SttRecovered {
        /// Which engine hears now; null if it is not known.
        #[serde(default)]
        engine: Option<String>,
        /// When words had stopped.
        #[serde(default)]
        since: Option<WireTime>,
    },
    /// Ours: words cannot be stored at the moment, and so are not shown.
    StorageDegraded,
    /// Ours: words are stored again.
    StorageRecovered,
    /// Ours: an app, or the server about the user's webhooks, says something; `GET /v1/messages` has it too. Omi tells such
    /// things by push alone, and its clients pass an unknown type over.
    AppMessage {
        /// What.
        message: Box<crate::rest::Message>,
    },
    /// A type that this version does not know.
    #[serde(other)]
    Unknown,
}

impl Event {
    /// Both forms of [`Event::FreemiumThresholdReached`]. Source: listen-protocol 4.3, client mismatches.
    pub fn freemium_threshold_reached(remaining_seconds: i64, action: &str) -> Self {
        let fields = serde_json::json!({ "remaining_seconds": remaining_seconds, "action": action });
        Self::FreemiumThresholdReached {
            remaining_seconds,
            action: action.to_owned(),
            status_text: Some(fields.to_string()),
        }
    }

    /// As JSON text.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("plain data with text keys")
    }
}

/// A transcript array as JSON text.
pub fn segments_text(segments: &[Segment]) -> String {
    serde_json::to_string(segments).expect("plain data with text keys")
}

/// Any message of the server, as a client reads it.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerMessage {
    /// The heartbeat.
    Ping,
    /// Segments added or changed.
    Segments(Vec<Segment>),
    /// All else.
    Event(Event),
}

/// Reads a server's text frame. The error says what it is instead.
pub fn parse(text: &str) -> Result<ServerMessage, serde_json::Error> {
    if text == PING {
        return Ok(ServerMessage::Ping);
    }
    if text.starts_with('[') {
        return serde_json::from_str(text).map(ServerMessage::Segments);
    }
    serde_json::from_str(text).map(ServerMessage::Event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_credit_warning_has_both_forms() {
        let text = Event::freemium_threshold_reached(180, "none").to_text();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["remaining_seconds"], 180);
        let inner: serde_json::Value = serde_json::from_str(value["status_text"].as_str().unwrap()).unwrap();
        assert_eq!(inner, serde_json::json!({"remaining_seconds": 180, "action": "none"}));
    }

    #[test]
    fn unknown_types_are_no_ops() {
        assert_eq!(parse(r#"{"type":"new_thing","a":1}"#).unwrap(), ServerMessage::Event(Event::Unknown));
        assert!(parse("not json").is_err());
        assert!(parse(&"[".repeat(100_000)).is_err());
    }
}
