//! Messages from the server to clients. Source: listen-protocol 4. All are text frames.

use serde::{Deserialize, Serialize};

use crate::conversation::{Conversation, Segment};

/// The heartbeat: these four characters, unquoted.
pub const PING: &str = "ping";

/// What a client that answers a ping sends (binary): the mobile app's own bytes.
pub const PONG: [u8; 2] = [0x8A, 0x00];

/// A message with a `type`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    ServiceStatus {
        status: String,
        status_text: Option<String>,
    },
    LastMemory {
        memory_id: String,
    },
    ConversationSession {
        conversation_id: String,
        status: String,
        recording_session_id: Option<String>,
    },
    MemoryProcessingStarted {
        memory: Box<Conversation>,
        messages: Vec<serde_json::Value>,
        recording_session_id: Option<String>,
    },
    MemoryCreated {
        memory: Box<Conversation>,
        messages: Vec<serde_json::Value>,
        recording_session_id: Option<String>,
    },
    Translating {
        segments: Vec<Segment>,
    },
    SegmentsDeleted {
        segment_ids: Vec<String>,
    },
    SpeakerLabelSuggestion {
        speaker_id: u32,
        person_id: String,
        person_name: String,
        segment_id: String,
    },
    PhotoProcessing {
        temp_id: String,
        photo_id: String,
    },
    PhotoDescribed {
        photo_id: String,
        description: String,
        discarded: bool,
    },
    /// Both forms that clients read: the fields, and the same as JSON text.
    FreemiumThresholdReached {
        remaining_seconds: i64,
        action: String,
        status_text: Option<String>,
    },
    OnboardingQuestion {
        question: String,
        question_index: usize,
        total_questions: usize,
    },
    QuestionAnswered {
        question_index: usize,
        answered: bool,
    },
    QuestionSkipped {
        question_index: usize,
    },
    OnboardingComplete {
        answers_count: usize,
    },
    AuthResponse {
        success: bool,
    },
    /// Ours: recognition waits or is down; audio is kept.
    SttDegraded {
        reason: String,
    },
    /// Ours: recognition goes on.
    SttRecovered,
    /// Ours: words cannot be stored at the moment, and so are not shown.
    StorageDegraded,
    /// Ours: words are stored again.
    StorageRecovered,
    /// A type that this version does not know.
    #[serde(other, skip_serializing)]
    Unknown,
}

impl Event {
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
    Ping,
    Segments(Vec<Segment>),
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
    fn statuses_have_generation_a_s_form() {
        let event = Event::ServiceStatus { status: "ready".into(), status_text: None };
        assert_eq!(event.to_text(), r#"{"type":"service_status","status":"ready","status_text":null}"#);
    }

    #[test]
    fn the_array_of_section_4_2_goes_both_ways() {
        let text = r#"[{"id":"0f6c2c1e-6a0b-4a53-9d0e-3a7e5f3a9b11","text":"Let's meet on Monday.","speaker":"SPEAKER_0","speaker_id":0,"is_user":false,"person_id":null,"start":0.0,"end":2.48,"translations":[],"speech_profile_processed":true,"stt_provider":null}]"#;
        let Ok(ServerMessage::Segments(segments)) = parse(text) else { panic!("not read") };
        assert_eq!(segments_text(&segments), text);
    }

    #[test]
    fn unknown_types_are_no_ops() {
        assert_eq!(parse(r#"{"type":"new_thing","a":1}"#).unwrap(), ServerMessage::Event(Event::Unknown));
        assert!(parse("not json").is_err());
    }
}
