//! Deepgram's streaming protocol, from the server's side: the query of `/v1/listen`, a client's control messages, our answers.
//!
//! What an engine does not tell is a constant: a `confidence` of 0.0 says "not known". Parameters that ask for
//! something optional that no engine here does (`numerals` …) are taken and have no effect; those that a caller relies on for
//! privacy or delivery (`redact`, `callback`) are refused.
//! Source: Deepgram's documentation of live streaming and its SDKs' types.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

/// Longest value that is looked at, in bytes.
const VALUE_BYTES_MAX: usize = 8 * 1024;

/// How audio is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Signed 16-bit little-endian PCM.
    Linear16,
    /// G.711 µ-law.
    Mulaw,
    /// G.711 A-law.
    Alaw,
    /// Opus: in Ogg pages or WebM, or one packet a message.
    Opus,
}

/// What a client asked for, with defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenQuery {
    /// `None`: the audio says it itself (a WAV header, Ogg, WebM).
    pub encoding: Option<Encoding>,
    /// Hz; always there with an encoding other than Opus.
    pub sample_rate: Option<u32>,
    /// Channels of the audio, from 1.
    pub channels: u16,
    /// Each channel is heard apart.
    pub multichannel: bool,
    /// As asked; `en` if not.
    pub language: String,
    /// As asked; names nothing here.
    pub model: Option<String>,
    /// Whether words carry their voice's number.
    pub diarize: bool,
    /// Whether transcripts have punctuation and capitals.
    pub punctuate: bool,
    /// Whether words that may still change are sent.
    pub interim_results: bool,
    /// Whether `SpeechStarted` is sent.
    pub vad_events: bool,
    /// Silence after which `UtteranceEnd` is sent, in milliseconds.
    pub utterance_end_ms: Option<u32>,
    /// Words to expect, each once, in the order in which they were asked for.
    pub key_terms: Vec<String>,
    /// A token in the query, for clients that cannot set headers.
    pub token: Option<String>,
}

/// What a query may ask for at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenBounds {
    /// Channels that can be heard apart.
    pub channels_max: usize,
    /// Words to expect.
    pub key_terms_max: usize,
    /// Bytes of all of them.
    pub key_terms_bytes_max: usize,
    /// Characters of each.
    pub key_term_chars_max: usize,
}

/// A query that cannot be served. Goes into the body of a 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct QueryError(String);

fn decoded(text: &str) -> Result<String, QueryError> {
    if text.len() > VALUE_BYTES_MAX {
        return Err(QueryError(format!(
            "A parameter of {} bytes is too long; {VALUE_BYTES_MAX} is the limit",
            text.len()
        )));
    }
    Ok(percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned())
}

fn flag(name: &str, value: &str) -> Result<bool, QueryError> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(QueryError(format!("{name} is true or false"))),
    }
}

fn whole(name: &str, value: &str, least: u32, most: u32) -> Result<u32, QueryError> {
    let number = value.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| QueryError(format!("{name} is a whole number from {least} to {most}")))
}

fn encoding(value: &str) -> Result<Encoding, QueryError> {
    match value {
        "linear16" => Ok(Encoding::Linear16),
        "mulaw" => Ok(Encoding::Mulaw),
        "alaw" => Ok(Encoding::Alaw),
        "opus" | "ogg-opus" => Ok(Encoding::Opus),
        _ => Err(QueryError(
            "This encoding is not supported; use linear16, mulaw, alaw, opus or ogg-opus, or send WAV, Ogg \
             Opus or WebM with Opus without naming one"
                .into(),
        )),
    }
}

/// The word of `word` or `word:intensifier`. None of one that shall be heard less often: no engine here can be told that.
fn keyword(value: &str) -> Result<Option<&str>, QueryError> {
    let Some((word, intensifier)) = value.rsplit_once(':') else { return Ok(Some(value)) };
    match intensifier.trim().parse::<f64>() {
        Ok(strength) if strength.is_finite() => Ok((strength > 0.0).then_some(word)),
        _ => Err(QueryError(
            "keywords is word or word:intensifier, of which the intensifier is a number".into(),
        )),
    }
}

impl ListenQuery {
    /// Reads a query string.
    pub fn parse(query: &str, bounds: ListenBounds) -> Result<Self, QueryError> {
        let mut asked = Self {
            encoding: None,
            sample_rate: None,
            channels: 1,
            multichannel: false,
            language: "en".into(),
            model: None,
            diarize: false,
            punctuate: false,
            interim_results: false,
            vad_events: false,
            utterance_end_ms: None,
            key_terms: Vec::new(),
            token: None,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value)?;
            asked.take(&decoded(name)?, value, bounds)?;
        }
        if asked.encoding.is_some_and(|encoding| encoding != Encoding::Opus) && asked.sample_rate.is_none() {
            return Err(QueryError("sample_rate is needed with this encoding".into()));
        }
        if asked.multichannel && usize::from(asked.channels) > bounds.channels_max {
            return Err(QueryError(format!(
                "multichannel takes at most {} channels, not {}",
                bounds.channels_max, asked.channels
            )));
        }
        Ok(asked)
    }

    fn take(&mut self, name: &str, value: String, bounds: ListenBounds) -> Result<(), QueryError> {
        match name {
            "encoding" => self.encoding = Some(encoding(&value)?),
            "sample_rate" => self.sample_rate = Some(whole(name, &value, 1_000, 192_000)?),
            "channels" => self.channels = whole(name, &value, 1, 32)? as u16,
            "multichannel" => self.multichannel = flag(name, &value)?,
            "language" if !value.is_empty() => self.language = value,
            "model" => self.model = Some(value),
            "diarize" => self.diarize = flag(name, &value)?,
            "diarize_model" => self.diarize = !value.is_empty(),
            "punctuate" | "smart_format" => self.punctuate |= flag(name, &value)?,
            "interim_results" => self.interim_results = flag(name, &value)?,
            "vad_events" => self.vad_events = flag(name, &value)?,
            "utterance_end_ms" if !value.is_empty() && value != "false" => {
                self.utterance_end_ms = Some(whole(name, &value, 1, 60_000)?);
            }
            "keyterm" => self.expect(&value, bounds)?,
            "keywords" => {
                if let Some(word) = keyword(&value)? {
                    self.expect(word, bounds)?;
                }
            }
            "token" | "access_token" => self.token = Some(value),
            "redact" if value != "false" => {
                return Err(QueryError("redact is not supported: nothing here would be redacted".into()));
            }
            "callback" => {
                return Err(QueryError("callback is not supported: results come on this connection".into()));
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds a word to expect. Bounded while it is read: a query is longer than what it may ask for.
    fn expect(&mut self, term: &str, bounds: ListenBounds) -> Result<(), QueryError> {
        let term = term.trim();
        if term.is_empty() || self.key_terms.iter().any(|known| known == term) {
            return Ok(());
        }
        let (count, chars) = (self.key_terms.len() + 1, term.chars().count());
        let bytes = self.key_terms.iter().map(String::len).sum::<usize>() + term.len();
        for (what, asked, most) in [
            ("terms of keyterm and keywords", count, bounds.key_terms_max),
            ("characters of a keyterm or keyword", chars, bounds.key_term_chars_max),
            ("bytes of keyterm and keywords together", bytes, bounds.key_terms_bytes_max),
        ] {
            if asked > most {
                return Err(QueryError(format!("{asked} {what} are too many; {most} is the limit")));
            }
        }
        self.key_terms.push(term.to_owned());
        Ok(())
    }
}

/// What a client says beside audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// It lives, and has no audio at the moment.
    KeepAlive,
    /// Decide what was heard so far.
    Finalize,
    /// No audio follows.
    CloseStream,
    /// Something newer than this server.
    Unknown,
}

impl Control {
    /// Reads a text message; `None` if it is no JSON object with a `type`.
    pub fn parse(text: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Typed {
            r#type: String,
        }
        let typed: Typed = serde_json::from_str(text).ok()?;
        Some(match typed.r#type.as_str() {
            "KeepAlive" => Self::KeepAlive,
            "Finalize" => Self::Finalize,
            "CloseStream" => Self::CloseStream,
            _ => Self::Unknown,
        })
    }
}

/// A word. Times are seconds from the stream's first sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// Lower case, without punctuation.
    pub word: String,
    pub start: f64,
    pub end: f64,
    pub confidence: f64,
    /// As the engine writes it, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub punctuated_word: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub speaker: Option<u32>,
}

/// A reading of what was said; there is always one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alternative {
    pub transcript: String,
    pub confidence: f64,
    pub words: Vec<Word>,
}

/// One channel's readings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Channel {
    pub alternatives: Vec<Alternative>,
}

/// What hears.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    pub name: String,
    pub version: String,
    pub arch: String,
}

/// Whose result it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultsMetadata {
    pub request_id: String,
    pub model_info: ModelInfo,
    pub model_uuid: String,
}

/// A stretch of one channel that is decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Which channel, of how many.
    pub channel_index: [u16; 2],
    /// Seconds.
    pub duration: f64,
    /// Seconds from the stream's first sample.
    pub start: f64,
    pub is_final: bool,
    pub speech_final: bool,
    pub from_finalize: bool,
    pub channel: Channel,
    pub metadata: ResultsMetadata,
}

/// What the server says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Message {
    Results(Results),
    /// The last message of a stream.
    Metadata {
        transaction_key: String,
        request_id: String,
        /// Of the audio as it came.
        sha256: String,
        created: String,
        /// Seconds of audio.
        duration: f64,
        channels: u16,
        models: Vec<String>,
        model_info: BTreeMap<String, ModelInfo>,
    },
    UtteranceEnd {
        channel: [u16; 2],
        last_word_end: f64,
    },
    SpeechStarted {
        channel: [u16; 2],
        timestamp: f64,
    },
    Error {
        variant: String,
        description: String,
        message: String,
    },
}

/// The body of an answer that is no upgrade.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Refusal {
    /// For programs.
    pub err_code: String,
    /// What went wrong and what to do.
    pub err_msg: String,
    pub request_id: String,
}

/// A word as Deepgram's `word` has it: lower case, without the punctuation around it.
pub fn bare(word: &str) -> String {
    word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<ListenQuery, QueryError> {
        let bounds = ListenBounds {
            channels_max: 4,
            key_terms_max: 3,
            key_terms_bytes_max: 24,
            key_term_chars_max: 10,
        };
        ListenQuery::parse(query, bounds)
    }

    #[test]
    fn a_query_as_the_sdks_send_it() {
        let asked = parse(
            "model=nova-3&encoding=linear16&sample_rate=16000&channels=2&multichannel=true&language=en-US&smart_format=true\
             &interim_results=true&utterance_end_ms=1000&vad_events=true&endpointing=300&keyterm=a%20b&tag=x",
        )
        .unwrap();
        assert_eq!(
            (asked.encoding, asked.sample_rate, asked.channels),
            (Some(Encoding::Linear16), Some(16_000), 2)
        );
        assert!(
            asked.multichannel
                && asked.punctuate
                && asked.interim_results
                && asked.vad_events
                && !asked.diarize
        );
        assert_eq!((asked.language.as_str(), asked.utterance_end_ms), ("en-US", Some(1_000)));
        assert_eq!(asked.key_terms, ["a b"]);
        assert_eq!(parse("").unwrap().language, "en");
    }

    #[test]
    fn words_to_expect_come_from_both_parameters_each_once() {
        let terms = |query| parse(query).unwrap().key_terms;
        assert_eq!(
            terms("keyterm=Omi&keywords=Auricle:2&keyterm=Dr.+Who&keyterm=%20Omi%20"),
            ["Omi", "Auricle", "Dr. Who"]
        );
        assert_eq!(
            terms("keywords=snuffle&keywords=less:-3&keywords=none:0&keywords=a:b:1.5&keyterm="),
            ["snuffle", "a:b"]
        );
        assert_eq!(terms("keyterm=nine:15"), ["nine:15"], "a keyterm has no intensifier");
    }

    #[test]
    fn too_many_words_to_expect_are_refused_with_how_many_and_the_limit() {
        for (query, words) in [
            ("keyterm=a&keywords=b:1&keyterm=c&keyterm=d", ["4 terms", "3 is"]),
            ("keyterm=elevenchars", ["11 characters", "10 is"]),
            (
                "keyterm=%C3%84%C3%84%C3%84%C3%84%C3%84%C3%84%C3%84&keyterm=%C3%84%C3%84%C3%84%C3%84%C3%84%C3%84",
                ["26 bytes", "24 is"],
            ),
            ("keywords=a:loud", ["intensifier", "number"]),
            ("keywords=a:inf", ["intensifier", "number"]),
        ] {
            let refused = parse(query).unwrap_err().to_string();
            assert!(words.iter().all(|word| refused.contains(word)), "{query}: {refused}");
        }
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_what_can() {
        for (query, word) in [
            ("encoding=speex", "linear16"),
            ("encoding=linear16", "sample_rate"),
            ("sample_rate=1", "1000"),
            ("channels=0", "channels"),
            ("channels=5&multichannel=true", "4"),
            ("punctuate=maybe", "punctuate"),
            ("redact=pci", "redact"),
            ("callback=http%3A%2F%2Fx", "callback"),
            ("utterance_end_ms=soon", "utterance_end_ms"),
        ] {
            let refused = parse(query).unwrap_err().to_string();
            assert!(refused.contains(word), "{query}: {refused}");
        }
        assert!(parse(&format!("tag={}", "x".repeat(9_000))).is_err());
    }

    #[test]
    fn control_messages_are_told_apart() {
        assert_eq!(Control::parse(r#"{"type":"KeepAlive"}"#), Some(Control::KeepAlive));
        assert_eq!(Control::parse(r#"{"type":"Finalize","channel":0}"#), Some(Control::Finalize));
        assert_eq!(Control::parse(r#"{"type":"Configure"}"#), Some(Control::Unknown));
        for text in ["", "{}", "[]", "KeepAlive", r#"{"type":7}"#] {
            assert_eq!(Control::parse(text), None, "{text}");
        }
    }

    #[test]
    fn messages_name_their_type() {
        let ended = Message::UtteranceEnd { channel: [0, 1], last_word_end: 1.5 };
        assert_eq!(
            serde_json::to_string(&ended).unwrap(),
            r#"{"type":"UtteranceEnd","channel":[0,1],"last_word_end":1.5}"#
        );
        assert_eq!(
            (bare("Friday."), bare("don't"), bare("?")),
            ("friday".into(), "don't".into(), String::new())
        );
    }
}
