//! Frames of the link between listening and processing halves. Source: pusher-and-processing 1.2 and 1.3.
//!
//! One WebSocket binary message is one frame: `u32` type, little-endian, then the payload.

use serde::{Deserialize, Serialize};

/// One frame, borrowing from the message it was read from.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame<'a> {
    /// 100: empty.
    Heartbeat,
    /// 101. A device may split its audio within a sample, so `pcm` may have an odd length: join before counting samples.
    Audio {
        /// Seconds since 1970; finite.
        first_sample_at: f64,
        /// PCM16 little-endian, mono, at the connection's sample rate.
        pcm: &'a [u8],
    },
    /// 102: JSON.
    Transcript(Transcript),
    /// 103: the id as it is.
    ConversationId(&'a str),
    /// 104: JSON.
    ProcessRequest(ProcessRequest),
    /// 105: JSON.
    SpeakerSample(SpeakerSample),
    /// 201: JSON.
    ProcessResult(ProcessResult),
}

/// Body of 102.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transcript {
    /// Dumps of segments; kept as they are, since revisions add keys.
    #[serde(default)]
    pub segments: Vec<serde_json::Value>,
    /// The conversation they are of.
    pub memory_id: Option<String>,
}

/// Body of 104. `byok_keys` are secrets: never log or store them.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessRequest {
    /// Which conversation has ended. Empty: ignore the frame.
    pub conversation_id: String,
    /// The session's.
    #[serde(default = "english")]
    pub language: String,
    /// The user's own keys by provider (late R2 and on).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub byok_keys: Option<serde_json::Map<String, serde_json::Value>>,
    /// The job's row (R3 and on).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finalization_job_id: Option<String>,
    /// Must equal the job's; 1 or more (R3 and on).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatch_generation: Option<u64>,
    /// `2`: the sender understands stale answers that name their generation (R4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finalization_result_protocol: Option<u32>,
}

impl std::fmt::Debug for ProcessRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessRequest")
            .field("conversation_id", &self.conversation_id)
            .field("language", &self.language)
            .field("byok_keys", &self.byok_keys.as_ref().map(|_| "***"))
            .field("finalization_job_id", &self.finalization_job_id)
            .field("dispatch_generation", &self.dispatch_generation)
            .finish_non_exhaustive()
    }
}

fn english() -> String {
    "en".into()
}

/// Body of 105. Ignored unless all three have content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpeakerSample {
    /// Whose voice.
    pub person_id: String,
    /// Where it was heard.
    pub conversation_id: String,
    /// In which segments.
    pub segment_ids: Vec<String>,
}

/// Body of 201. What each answer asks of the listening side: pusher-and-processing 1.3.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessResult {
    /// Of which request.
    pub conversation_id: String,
    /// The record is ready to be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<bool>,
    /// E.g. `conversation_not_found`, `processing_failed`, `job_leased`; R2 sends an exception's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Another owner has the conversation (R3 and on).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced: Option<bool>,
    /// Never ask again (R3 and on).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<bool>,
    /// The job's current generation, with `job_stale_generation` (R4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatch_generation: Option<u64>,
}

/// A frame that cannot be read. Skip it and keep the link.
///
/// Generation R2 of Omi's pusher ends the session at most of these and ignores [`FrameError::Code`]; R4 refuses them all.
/// Source: pusher-and-processing 1.4.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FrameError {
    /// Without a whole type.
    #[error("frame of {0} bytes; it takes at least 4 for its type")]
    Short(usize),
    /// Without a whole time.
    #[error("audio frame of {0} bytes; it takes at least 12 for type and time")]
    ShortAudio(usize),
    /// Perhaps of a newer revision.
    #[error("frame type {0} is unknown")]
    Code(u32),
    /// A time that is not finite.
    #[error("audio frame whose time is {0}; it takes seconds since 1970")]
    Time(f64),
    /// The parser's own words are left out: they quote the body, which may hold a transcript or keys.
    #[error("frame type {code} is not the JSON it should be: {problem} in column {column} of its body")]
    Json {
        /// The frame's type.
        code: u32,
        /// `syntax`, `wrong field` or `cut short`.
        problem: &'static str,
        /// Counted from 1.
        column: usize,
    },
    /// The body of 103 is not text.
    #[error("conversation id is not UTF-8")]
    Utf8,
}

/// Reads one binary message.
pub fn decode(message: &[u8]) -> Result<Frame<'_>, FrameError> {
    let (code, payload) = message.split_first_chunk::<4>().ok_or(FrameError::Short(message.len()))?;
    let code = u32::from_le_bytes(*code);
    match code {
        100 => Ok(Frame::Heartbeat),
        101 => {
            let (at, pcm) = payload.split_first_chunk::<8>().ok_or(FrameError::ShortAudio(message.len()))?;
            let first_sample_at = f64::from_le_bytes(*at);
            if !first_sample_at.is_finite() {
                return Err(FrameError::Time(first_sample_at));
            }
            Ok(Frame::Audio { first_sample_at, pcm })
        }
        102 => json(code, payload).map(Frame::Transcript),
        103 => std::str::from_utf8(payload).map(Frame::ConversationId).map_err(|_| FrameError::Utf8),
        104 => json(code, payload).map(Frame::ProcessRequest),
        105 => json(code, payload).map(Frame::SpeakerSample),
        201 => json(code, payload).map(Frame::ProcessResult),
        _ => Err(FrameError::Code(code)),
    }
}

fn json<'a, T: Deserialize<'a>>(code: u32, payload: &'a [u8]) -> Result<T, FrameError> {
    use serde_json::error::Category;
    serde_json::from_slice(payload).map_err(|error| {
        let problem = match error.classify() {
            Category::Data => "wrong field",
            Category::Eof => "cut short",
            Category::Syntax | Category::Io => "syntax",
        };
        FrameError::Json { code, problem, column: error.column() }
    })
}

impl Frame<'_> {
    /// Appends the frame's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut json = |code: u32, body: Result<Vec<u8>, serde_json::Error>| {
            out.extend(code.to_le_bytes());
            out.extend(body.expect("plain data with text keys"));
        };
        match self {
            Self::Heartbeat => out.extend(100_u32.to_le_bytes()),
            Self::Audio { first_sample_at, pcm } => {
                out.extend(101_u32.to_le_bytes());
                out.extend(first_sample_at.to_le_bytes());
                out.extend_from_slice(pcm);
            }
            Self::Transcript(body) => json(102, serde_json::to_vec(body)),
            Self::ConversationId(id) => {
                out.extend(103_u32.to_le_bytes());
                out.extend_from_slice(id.as_bytes());
            }
            Self::ProcessRequest(body) => json(104, serde_json::to_vec(body)),
            Self::SpeakerSample(body) => json(105, serde_json::to_vec(body)),
            Self::ProcessResult(body) => json(201, serde_json::to_vec(body)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_process_request_takes_its_fields_of_every_revision_and_hides_its_keys() {
        let mut message = 104_u32.to_le_bytes().to_vec();
        message.extend(br#"{"conversation_id": "c1", "byok_keys": {"openai": "sk-secret"}, "dispatch_generation": 3, "new": 1}"#);
        let Ok(Frame::ProcessRequest(request)) = decode(&message) else { panic!("not read") };
        assert_eq!((request.language.as_str(), request.dispatch_generation), ("en", Some(3)));
        assert!(!format!("{request:?}").contains("secret"));
    }

    #[test]
    fn bad_frames_are_values() {
        assert!(matches!(decode(&[1, 2]), Err(FrameError::Short(2))));
        assert!(matches!(decode(&[101, 0, 0, 0, 1]), Err(FrameError::ShortAudio(5))));
        assert!(matches!(decode(&[9, 0, 0, 0]), Err(FrameError::Code(9))));
        assert!(matches!(decode(&[104, 0, 0, 0, b'{']), Err(FrameError::Json { code: 104, .. })));
        assert_eq!(decode(&[103, 0, 0, 0, 0xff]), Err(FrameError::Utf8));
        let mut timeless = vec![101, 0, 0, 0];
        timeless.extend(f64::NAN.to_le_bytes());
        assert!(matches!(decode(&timeless), Err(FrameError::Time(at)) if at.is_nan()));
    }

    #[test]
    fn an_error_does_not_quote_the_body() {
        let mut message = 104_u32.to_le_bytes().to_vec();
        message.extend(br#"{"conversation_id": "c1", "byok_keys": "sk-secret"}"#);
        let error = decode(&message).unwrap_err();
        assert!(matches!(error, FrameError::Json { problem: "wrong field", .. }));
        assert!(!format!("{error} {error:?}").contains("sk-secret"));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(at in -1e12..1e12f64, pcm in prop::collection::vec(any::<u8>(), 0..64), id in "\\PC{0,20}") {
            for frame in [
                Frame::Audio { first_sample_at: at, pcm: &pcm },
                Frame::ConversationId(&id),
                Frame::SpeakerSample(SpeakerSample { person_id: id.clone(), conversation_id: "c".into(), segment_ids: vec![id.clone()] }),
            ] {
                let mut out = Vec::new();
                frame.encode(&mut out);
                prop_assert_eq!(decode(&out).unwrap(), frame);
            }
        }

        #[test]
        fn no_bytes_panic(message in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode(&message);
        }
    }
}
