//! Text messages from clients. Source: listen-protocol 1.5 and 3.
//!
//! Nothing here panics or allocates more than the message itself: hostile JSON is an answer, not an error.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::conversation::Translation;

/// A client's text message, read.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientMessage {
    /// A slice of a picture's base64 text.
    ImageChunk(ImageChunk),
    /// Who a speaker is.
    SpeakerAssigned(SpeakerAssigned),
    /// What the client itself heard.
    SuggestedTranscript(SuggestedTranscript),
    /// Onboarding: skip the question.
    SkipQuestion,
    /// Onboarding: begin.
    StartOnboarding,
    /// Why the recording ended; any text.
    FinalizationReason(String),
    /// A type that means nothing here.
    Unknown,
}

/// Why a text message was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Not JSON, not an object, or without a text `type`: ignore it.
    NotAMessage,
    /// A known type whose fields are wrong: ignore it.
    WrongFields,
    /// An image chunk that cannot be: close with 1008 (generations B and C).
    ImageChunk,
}

/// Source: listen-protocol 3.1.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ImageChunk {
    /// The client's id of the picture.
    pub id: String,
    /// From 0.
    pub index: u32,
    /// The same in each chunk of a picture.
    pub total: u32,
    /// Slice of the base64 text.
    pub data: String,
}

/// Source: listen-protocol 3.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeakerAssigned {
    /// Number of the speaker's label.
    pub speaker_id: u32,
    /// A person's id, or `user` for the owner.
    pub person_id: String,
    /// The person's name.
    pub person_name: String,
    /// Segments to assign.
    pub segment_ids: Vec<String>,
}

/// Source: listen-protocol 3.3.
#[derive(Clone, Debug, PartialEq)]
pub struct SuggestedTranscript {
    /// Copied onto each segment.
    pub stt_provider: Option<String>,
    /// In seconds of this connection's media.
    pub segments: Vec<SuggestedSegment>,
}

/// One segment that the client heard.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct SuggestedSegment {
    /// Empty if absent.
    #[serde(default, deserialize_with = "text_or_default")]
    pub id: String,
    /// What was said.
    pub text: String,
    /// `SPEAKER_00` if absent; `None` if null.
    #[serde(default = "default_speaker")]
    pub speaker: Option<String>,
    /// Whether the owner said it; false if absent, where Omi drops the whole message.
    #[serde(default)]
    pub is_user: bool,
    /// A known person.
    #[serde(default)]
    pub person_id: Option<String>,
    /// Seconds.
    pub start: f64,
    /// Seconds.
    pub end: f64,
    /// In other languages.
    #[serde(default, deserialize_with = "none_if_null")]
    pub translations: Vec<Translation>,
}

fn none_if_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Translation>, D::Error> {
    Ok(Option::<Vec<Translation>>::deserialize(deserializer)?.unwrap_or_default())
}

fn default_speaker() -> Option<String> {
    Some("SPEAKER_00".into())
}

fn text_or_default<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(borrow, rename = "type")]
    kind: std::borrow::Cow<'a, str>,
}

#[derive(Deserialize)]
struct SpeakerAssignedFields {
    speaker_id: Option<i64>,
    person_id: Option<String>,
    person_name: Option<String>,
    #[serde(default)]
    segment_ids: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct SuggestedFields<'a> {
    #[serde(default)]
    stt_provider: Option<String>,
    #[serde(borrow)]
    segments: Vec<&'a RawValue>,
}

/// Reads a text message.
///
/// `segments_max`: a `suggested_transcript` with more is [`Malformed::WrongFields`].
pub fn parse(text: &str, segments_max: usize) -> Result<ClientMessage, Malformed> {
    let typed: Typed<'_> = serde_json::from_str(text).map_err(|_| Malformed::NotAMessage)?;
    match &*typed.kind {
        "image_chunk" => image_chunk(text),
        "speaker_assigned" => speaker_assigned(text),
        "suggested_transcript" => suggested(text, segments_max),
        "skip_question" => Ok(ClientMessage::SkipQuestion),
        "start_onboarding" => Ok(ClientMessage::StartOnboarding),
        "finalization_reason" => {
            #[derive(Deserialize)]
            struct Fields {
                reason: String,
            }
            let fields: Fields = serde_json::from_str(text).map_err(|_| Malformed::WrongFields)?;
            Ok(ClientMessage::FinalizationReason(fields.reason))
        }
        _ => Ok(ClientMessage::Unknown),
    }
}

fn image_chunk(text: &str) -> Result<ClientMessage, Malformed> {
    let chunk: ImageChunk = serde_json::from_str(text).map_err(|_| Malformed::ImageChunk)?;
    Ok(ClientMessage::ImageChunk(chunk))
}

fn speaker_assigned(text: &str) -> Result<ClientMessage, Malformed> {
    let fields: SpeakerAssignedFields = serde_json::from_str(text).map_err(|_| Malformed::WrongFields)?;
    let (Some(speaker_id), Some(person_id), Some(person_name)) =
        (fields.speaker_id, fields.person_id, fields.person_name)
    else {
        return Err(Malformed::WrongFields);
    };
    Ok(ClientMessage::SpeakerAssigned(SpeakerAssigned {
        speaker_id: u32::try_from(speaker_id).map_err(|_| Malformed::WrongFields)?,
        person_id,
        person_name,
        segment_ids: fields.segment_ids.unwrap_or_default(),
    }))
}

fn suggested(text: &str, segments_max: usize) -> Result<ClientMessage, Malformed> {
    let fields: SuggestedFields<'_> = serde_json::from_str(text).map_err(|_| Malformed::WrongFields)?;
    if fields.segments.len() > segments_max {
        return Err(Malformed::WrongFields);
    }
    let segments: Result<Vec<SuggestedSegment>, _> =
        fields.segments.iter().map(|raw| serde_json::from_str(raw.get())).collect();
    let segments = segments.map_err(|_| Malformed::WrongFields)?;
    let in_range = |secs: f64| (-1e9..=1e9).contains(&secs);
    if segments.iter().any(|s| !in_range(s.start) || !in_range(s.end)) {
        return Err(Malformed::WrongFields);
    }
    Ok(ClientMessage::SuggestedTranscript(SuggestedTranscript {
        stt_provider: fields.stt_provider,
        segments,
    }))
}

/// Why the first message of `/v4/web/listen` does not authenticate. Closes with 1008 and [`WebAuthFailure::reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebAuthFailure {
    /// Nothing came in time.
    Timeout,
    /// A binary message.
    NotText,
    /// Not JSON.
    InvalidJson,
    /// Another `type`.
    NotAuth,
    /// `token` is empty or missing.
    MissingToken,
    /// A token that nobody accepts; also one that is no text.
    InvalidToken,
    /// Anything else.
    Other,
}

impl WebAuthFailure {
    /// The close frame's reason. Source: listen-protocol 1.5.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Timeout => "Auth timeout",
            Self::NotText => "Expected JSON auth message",
            Self::InvalidJson => "Invalid JSON",
            Self::NotAuth => "First message must be auth",
            Self::MissingToken => "Missing token",
            Self::InvalidToken => "Invalid token",
            Self::Other => "Auth error",
        }
    }

    /// Whether an `auth_response` is sent before the close.
    pub fn answers(self) -> bool {
        matches!(self, Self::InvalidToken | Self::Other)
    }
}

/// The token of `{"type":"auth","token":"…"}`.
pub fn web_auth_token(text: &str) -> Result<String, WebAuthFailure> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|_| WebAuthFailure::InvalidJson)?;
    let Some(object) = value.as_object() else { return Err(WebAuthFailure::Other) };
    if object.get("type").and_then(|kind| kind.as_str()) != Some("auth") {
        return Err(WebAuthFailure::NotAuth);
    }
    match object.get("token") {
        Some(serde_json::Value::String(token)) if !token.is_empty() => Ok(token.clone()),
        None | Some(serde_json::Value::Null | serde_json::Value::String(_)) => {
            Err(WebAuthFailure::MissingToken)
        }
        Some(_) => Err(WebAuthFailure::InvalidToken),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_suggested_transcript_is_read_with_its_optional_fields_absent() {
        let text = r#"{"type":"suggested_transcript","stt_provider":"deepgramLive","segments":[
            {"text":"Hello.","speaker":"SPEAKER_0","is_user":false,"person_id":null,"start":0,"end":0.9,
             "speech_profile_processed":true,"translations":[{"lang":"es","text":"Hola."}]},
            {"text":"Hi.","is_user":true,"start":1.0,"end":1.5,"speaker":null}]}"#;
        let Ok(ClientMessage::SuggestedTranscript(transcript)) = parse(text, 10) else { panic!("not read") };
        assert_eq!(transcript.stt_provider.as_deref(), Some("deepgramLive"));
        assert_eq!(transcript.segments[0].start, 0.0);
        assert_eq!(transcript.segments[0].id, "");
        assert_eq!(transcript.segments[0].translations[0].lang, "es");
        assert_eq!(transcript.segments[1].speaker, None);
        assert_eq!(parse(text, 1), Err(Malformed::WrongFields));
    }

    #[test]
    fn a_segment_without_its_speaker_has_the_default_one() {
        let text =
            r#"{"type":"suggested_transcript","segments":[{"text":"a","is_user":false,"start":0,"end":1}]}"#;
        let Ok(ClientMessage::SuggestedTranscript(transcript)) = parse(text, 10) else { panic!("not read") };
        assert_eq!(transcript.segments[0].speaker.as_deref(), Some("SPEAKER_00"));
    }

    #[test]
    fn hostile_messages_are_answers() {
        let deep = format!("{{\"type\":\"x\",\"a\":{}1{}}}", "[".repeat(5_000), "]".repeat(5_000));
        for (text, expected) in [
            ("", Err(Malformed::NotAMessage)),
            ("[1,2]", Err(Malformed::NotAMessage)),
            ("null", Err(Malformed::NotAMessage)),
            (r#"{"type":7}"#, Err(Malformed::NotAMessage)),
            // What is not asked for is skipped without recursion.
            (deep.as_str(), Ok(ClientMessage::Unknown)),
            (r#"{"type":"something"}"#, Ok(ClientMessage::Unknown)),
            (r#"{"type":"suggested_transcript","segments":7}"#, Err(Malformed::WrongFields)),
            (
                r#"{"type":"suggested_transcript","segments":[{"text":"a","is_user":"x","start":0,"end":1}]}"#,
                Err(Malformed::WrongFields),
            ),
            (
                r#"{"type":"suggested_transcript","segments":[{"text":"a","is_user":true,"start":1e300,"end":1}]}"#,
                Err(Malformed::WrongFields),
            ),
            (
                r#"{"type":"speaker_assigned","speaker_id":-4,"person_id":"p","person_name":"n"}"#,
                Err(Malformed::WrongFields),
            ),
            (
                r#"{"type":"speaker_assigned","speaker_id":1,"person_id":null,"person_name":"n"}"#,
                Err(Malformed::WrongFields),
            ),
            (
                r#"{"type":"image_chunk","id":"a","index":"0","total":1,"data":"x"}"#,
                Err(Malformed::ImageChunk),
            ),
            (
                r#"{"type":"image_chunk","id":"a","index":-1,"total":1,"data":"x"}"#,
                Err(Malformed::ImageChunk),
            ),
        ] {
            assert_eq!(parse(text, 10), expected, "{}", &text[..text.len().min(80)]);
        }
    }

    #[test]
    fn a_speaker_assignment_is_read() {
        let text = r#"{"type":"speaker_assigned","speaker_id":1,"person_id":"user","person_name":"Ana","segment_ids":["s"]}"#;
        let Ok(ClientMessage::SpeakerAssigned(assigned)) = parse(text, 10) else { panic!("not read") };
        assert_eq!((assigned.speaker_id, assigned.person_id.as_str()), (1, "user"));
        assert_eq!(assigned.segment_ids, ["s"]);
    }

    #[test]
    fn web_authentication_follows_the_table() {
        assert_eq!(web_auth_token(r#"{"type":"auth","token":"t"}"#), Ok("t".into()));
        assert_eq!(web_auth_token("{"), Err(WebAuthFailure::InvalidJson));
        assert_eq!(web_auth_token(r#"{"type":"hello"}"#), Err(WebAuthFailure::NotAuth));
        assert_eq!(web_auth_token(r#"{"type":"auth","token":""}"#), Err(WebAuthFailure::MissingToken));
        assert_eq!(web_auth_token(r#"{"type":"auth"}"#), Err(WebAuthFailure::MissingToken));
        assert_eq!(web_auth_token("[]"), Err(WebAuthFailure::Other));
        assert_eq!(web_auth_token(r#"{"type":"auth","token":7}"#), Err(WebAuthFailure::InvalidToken));
        assert_eq!(web_auth_token(&"[".repeat(100_000)), Err(WebAuthFailure::InvalidJson));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,300}") {
            let _ = parse(&text, 10);
            let _ = web_auth_token(&text);
        }
    }
}
