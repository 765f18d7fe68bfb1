//! Frames of the link between listening and processing halves. Source: pusher-and-processing 1.2 and 1.3.
//!
//! One WebSocket binary message is one frame: `u32` type, little-endian, then the payload.

use serde::{Deserialize, Serialize};

/// One frame, borrowing from the message it was read from.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame<'a> {
    /// 100: empty.
    Heartbeat,
    /// 101: seconds since 1970 of the first sample, then PCM16 little-endian, mono.
    Audio { first_sample_at: f64, pcm: &'a [u8] },
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
    pub segments: Vec<serde_json::Value>,
    pub memory_id: Option<String>,
}

/// Body of 104. `byok_keys` are secrets: never log or store them.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessRequest {
    pub conversation_id: String,
    #[serde(default = "english")]
    pub language: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub byok_keys: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finalization_job_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatch_generation: Option<u64>,
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

/// Body of 105.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpeakerSample {
    pub person_id: String,
    pub conversation_id: String,
    pub segment_ids: Vec<String>,
}

/// Body of 201.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessResult {
    pub conversation_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatch_generation: Option<u64>,
}

/// A frame that cannot be read. Skip it and keep the link.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("frame of {0} bytes; it takes at least 4 for its type")]
    Short(usize),
    #[error("audio frame of {0} bytes; it takes at least 12 for type and time")]
    ShortAudio(usize),
    #[error("frame type {0} is unknown")]
    Code(u32),
    #[error("frame type {code} is not the JSON it should be: {source}")]
    Json { code: u32, source: serde_json::Error },
    #[error("conversation id is not UTF-8")]
    Utf8(#[from] std::str::Utf8Error),
}

/// Reads one binary message.
pub fn decode(message: &[u8]) -> Result<Frame<'_>, FrameError> {
    let (code, payload) = message.split_first_chunk::<4>().ok_or(FrameError::Short(message.len()))?;
    let code = u32::from_le_bytes(*code);
    match code {
        100 => Ok(Frame::Heartbeat),
        101 => {
            let (at, pcm) = payload.split_first_chunk::<8>().ok_or(FrameError::ShortAudio(message.len()))?;
            Ok(Frame::Audio { first_sample_at: f64::from_le_bytes(*at), pcm })
        }
        102 => json(code, payload).map(Frame::Transcript),
        103 => Ok(Frame::ConversationId(std::str::from_utf8(payload)?)),
        104 => json(code, payload).map(Frame::ProcessRequest),
        105 => json(code, payload).map(Frame::SpeakerSample),
        201 => json(code, payload).map(Frame::ProcessResult),
        _ => Err(FrameError::Code(code)),
    }
}

fn json<'a, T: Deserialize<'a>>(code: u32, payload: &'a [u8]) -> Result<T, FrameError> {
    serde_json::from_slice(payload).map_err(|source| FrameError::Json { code, source })
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

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn the_golden_frames_of_section_1_2_are_read() {
        assert_eq!(decode(&bytes("64 00 00 00")).unwrap(), Frame::Heartbeat);
        let audio = bytes("65 00 00 00 00 00 10 28 2e 71 da 41 00 00 01 00 ff ff 00 01");
        assert_eq!(
            decode(&audio).unwrap(),
            Frame::Audio { first_sample_at: 1_774_500_000.25, pcm: &[0, 0, 1, 0, 255, 255, 0, 1] }
        );
        let transcript = bytes(
            "66 00 00 00 7b 22 73 65 67 6d 65 6e 74 73 22 3a 20 5b 5d 2c 20 22 6d 65 6d 6f 72 79 5f 69 64 22 3a 20 22 63 31 22 7d",
        );
        let expected = Transcript { segments: Vec::new(), memory_id: Some("c1".into()) };
        assert_eq!(decode(&transcript).unwrap(), Frame::Transcript(expected));
        assert_eq!(decode(&bytes("67 00 00 00 63 31")).unwrap(), Frame::ConversationId("c1"));
        let result = bytes(
            "c9 00 00 00 7b 22 63 6f 6e 76 65 72 73 61 74 69 6f 6e 5f 69 64 22 3a 20 22 63 31 22 2c 20 22 73 75 63 63 65 73 73 22 3a 20 74 72 75 65 7d",
        );
        let expected =
            ProcessResult { conversation_id: "c1".into(), success: Some(true), ..ProcessResult::default() };
        assert_eq!(decode(&result).unwrap(), Frame::ProcessResult(expected));
    }

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
        assert!(matches!(decode(&[103, 0, 0, 0, 0xff]), Err(FrameError::Utf8(_))));
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
