//! OpenAI's transcription interface, from the server's side: forms of an answer, and its errors.
//!
//! What an engine here does not know is a constant: `avg_logprob`, `compression_ratio`, `no_speech_prob` and `temperature` are
//! 0.0, `tokens` is empty. Source: OpenAI's API reference, "Create transcription".

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// In which form the transcript is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Json,
    Text,
    Srt,
    VerboseJson,
    Vtt,
}

impl Format {
    /// By its name in `response_format`.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "json" => Self::Json,
            "text" => Self::Text,
            "srt" => Self::Srt,
            "verbose_json" => Self::VerboseJson,
            "vtt" => Self::Vtt,
            _ => return None,
        })
    }
}

/// What a request is billed by: here only seconds of audio, for those who count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    pub r#type: String,
    /// Rounded up.
    pub seconds: u64,
}

/// The answer in `json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Transcription {
    pub text: String,
    pub usage: Usage,
}

/// A word with its times, in seconds of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TimedWord {
    pub word: String,
    pub start: f64,
    pub end: f64,
}

/// A stretch of speech.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TimedSegment {
    pub id: usize,
    pub seek: u64,
    pub start: f64,
    pub end: f64,
    pub text: String,
    pub tokens: Vec<u32>,
    pub temperature: f64,
    pub avg_logprob: f64,
    pub compression_ratio: f64,
    pub no_speech_prob: f64,
}

impl TimedSegment {
    /// A segment of which only words and times are known.
    pub fn new(id: usize, start: f64, end: f64, text: String) -> Self {
        Self {
            id,
            seek: 0,
            start,
            end,
            text,
            tokens: Vec::new(),
            temperature: 0.0,
            avg_logprob: 0.0,
            compression_ratio: 0.0,
            no_speech_prob: 0.0,
        }
    }
}

/// The answer in `verbose_json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VerboseTranscription {
    pub task: String,
    pub language: String,
    /// Seconds.
    pub duration: f64,
    pub text: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub segments: Option<Vec<TimedSegment>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub words: Option<Vec<TimedWord>>,
    pub usage: Usage,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    pub error: ErrorDetail,
}

/// What went wrong, in OpenAI's shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorDetail {
    /// What went wrong and what to do.
    pub message: String,
    /// `invalid_request_error`, `authentication_error`, `rate_limit_error` or `server_error`.
    pub r#type: String,
    /// The field that is wrong.
    pub param: Option<String>,
    pub code: Option<String>,
}

/// Subtitles for players.
pub fn srt(segments: &[TimedSegment]) -> String {
    let mut text = String::new();
    for (index, segment) in segments.iter().enumerate() {
        let _ = write!(
            text,
            "{}\n{} --> {}\n{}\n\n",
            index + 1,
            clock(segment.start, ','),
            clock(segment.end, ','),
            cue(&segment.text)
        );
    }
    text
}

/// Subtitles for the web.
pub fn vtt(segments: &[TimedSegment]) -> String {
    let mut text = String::from("WEBVTT\n\n");
    for segment in segments {
        let escaped = cue(&segment.text).replace('&', "&amp;").replace('<', "&lt;");
        let _ = write!(text, "{} --> {}\n{escaped}\n\n", clock(segment.start, '.'), clock(segment.end, '.'));
    }
    text
}

/// One line: an empty one would end the cue, and an arrow would begin another.
fn cue(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace("-->", "->")
}

fn clock(seconds: f64, point: char) -> String {
    let millis = (seconds.max(0.0) * 1_000.0).round() as u64;
    let (secs, millis) = (millis / 1_000, millis % 1_000);
    format!("{:02}:{:02}:{:02}{point}{millis:03}", secs / 3_600, secs / 60 % 60, secs % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments() -> Vec<TimedSegment> {
        vec![
            TimedSegment::new(0, 0.2, 1.8, "Please send\n\nit.".into()),
            TimedSegment::new(1, 3_661.000_5, 3_662.25, "a <b> --> c".into()),
        ]
    }

    #[test]
    fn subtitles_in_both_forms() {
        assert_eq!(
            srt(&segments()),
            "1\n00:00:00,200 --> 00:00:01,800\nPlease send it.\n\n2\n01:01:01,001 --> 01:01:02,250\na <b> -> c\n\n"
        );
        assert_eq!(
            vtt(&segments()),
            "WEBVTT\n\n00:00:00.200 --> 00:00:01.800\nPlease send it.\n\n01:01:01.001 --> 01:01:02.250\na &lt;b> -> c\n\n"
        );
        assert_eq!((srt(&[]), vtt(&[])), (String::new(), "WEBVTT\n\n".into()));
    }

    #[test]
    fn forms_have_names() {
        assert_eq!(Format::parse("verbose_json"), Some(Format::VerboseJson));
        assert_eq!(Format::parse("diarized_json"), None);
    }
}
