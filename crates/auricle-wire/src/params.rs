//! Query parameters of `/v4/listen` and `/v4/web/listen`. Source: listen-protocol 1.2.

use percent_encoding::percent_decode_str;

/// Which socket the parameters are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v4/listen`.
    V4,
    /// `/v4/web/listen`: the same without some parameters, which are then ignored.
    Web,
}

/// How audio is encoded. Any unknown name means PCM16 (listen-protocol 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Unsigned 8-bit PCM (generations B and C).
    Pcm8,
    /// Signed 16-bit little-endian PCM.
    Pcm16,
    /// Opus, one packet a message.
    Opus,
    /// Opus, 20 ms packets.
    OpusFs320,
    /// AAC with ADTS headers.
    Aac,
    /// LC3, 10 ms frames of 30 bytes.
    Lc3Fs1030,
}

impl Codec {
    /// Never fails: see the type.
    pub fn from_name(name: &str) -> Self {
        match name {
            "pcm8" => Self::Pcm8,
            "opus" => Self::Opus,
            "opus_fs320" => Self::OpusFs320,
            "aac" => Self::Aac,
            // Upstream's decoder cannot be made for the bare name; its only sensible meaning is this one.
            "lc3_fs1030" | "lc3" => Self::Lc3Fs1030,
            _ => Self::Pcm16,
        }
    }
}

/// What a client asked for, with defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenParams {
    /// After normalisation: `auto` is `multi`.
    pub language: String,
    /// Hz of the decoded audio, 1 to 192,000.
    pub sample_rate: u32,
    /// Encoding.
    pub codec: Codec,
    /// As asked; two or more mean channel framing.
    pub channels: u32,
    /// Whether the owner's voice profile may be used.
    pub include_speech_profile: bool,
    /// Any text; kept for logs only.
    pub stt_service: Option<String>,
    /// Seconds, as asked.
    pub conversation_timeout: Option<i64>,
    /// As asked.
    pub source: Option<String>,
    /// Whether the client transcribes.
    pub custom_stt: bool,
    /// Whether the question flow runs.
    pub onboarding: bool,
    /// Whether suggestions may name a person.
    pub speaker_auto_assign: bool,
    /// Whether a self-introduction may create a person.
    pub create_speakers: bool,
    /// `enabled` or `disabled` override the server's own choice.
    pub vad_gate: Option<bool>,
    /// Phone call.
    pub call_id: Option<String>,
    /// The client's own id of the recording: a UUID in canonical form.
    pub client_conversation_id: Option<String>,
}

/// A value that is not of its parameter's type. The connection is closed with 1008.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is `{value}`; it takes {expected}")]
pub struct ParamError {
    /// Which parameter.
    pub name: &'static str,
    /// What was given, at most 40 characters of it.
    pub value: String,
    /// What it takes.
    pub expected: &'static str,
}

impl Default for ListenParams {
    fn default() -> Self {
        Self {
            language: "en".into(),
            sample_rate: 8_000,
            codec: Codec::Pcm8,
            channels: 1,
            include_speech_profile: true,
            stt_service: None,
            conversation_timeout: None,
            source: None,
            custom_stt: false,
            onboarding: false,
            speaker_auto_assign: false,
            create_speakers: true,
            vad_gate: None,
            call_id: None,
            client_conversation_id: None,
        }
    }
}

impl ListenParams {
    /// Reads a raw query string. Unknown parameters are ignored; of a repeated one the last counts.
    pub fn parse(query: &str, endpoint: Endpoint) -> Result<Self, ParamError> {
        let mut params = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            params.set(&decode(name), decode(value), endpoint)?;
        }
        Ok(params)
    }

    fn set(&mut self, name: &str, value: String, endpoint: Endpoint) -> Result<(), ParamError> {
        let v4 = endpoint == Endpoint::V4;
        match name {
            "language" => self.language = language(value),
            "sample_rate" => self.sample_rate = int("sample_rate", &value, 1, 192_000)?,
            "codec" => self.codec = Codec::from_name(&value),
            "channels" => self.channels = int("channels", &value, 0, 255)?,
            "include_speech_profile" => {
                self.include_speech_profile = boolean("include_speech_profile", &value)?
            }
            "stt_service" if v4 => self.stt_service = some(value),
            "conversation_timeout" => {
                let secs = value
                    .trim()
                    .parse()
                    .map_err(|_| error("conversation_timeout", &value, "a whole number of seconds"))?;
                self.conversation_timeout = Some(secs);
            }
            "source" => self.source = some(value),
            "custom_stt" => self.custom_stt = value == "enabled",
            "onboarding" => self.onboarding = value == "enabled",
            "speaker_auto_assign" if v4 => self.speaker_auto_assign = value == "enabled",
            "create_speakers" if v4 => self.create_speakers = boolean("create_speakers", &value)?,
            "vad_gate" if v4 => {
                self.vad_gate = match value.as_str() {
                    "enabled" => Some(true),
                    "disabled" => Some(false),
                    _ => None,
                }
            }
            "call_id" => self.call_id = some(value),
            "client_conversation_id" => {
                let id = uuid::Uuid::try_parse(value.trim()).ok();
                self.client_conversation_id = id.map(|id| id.hyphenated().to_string());
            }
            _ => {}
        }
        Ok(())
    }
}

/// No text is no language, so the default stands.
fn language(value: String) -> String {
    match value.as_str() {
        "" => ListenParams::default().language,
        "auto" => "multi".into(),
        _ => value,
    }
}

fn some(value: String) -> Option<String> {
    (!value.is_empty()).then_some(value)
}

fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

fn int(name: &'static str, value: &str, min: u32, max: u32) -> Result<u32, ParamError> {
    let number = value.trim().parse::<u32>().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| {
        error(
            name,
            value,
            if max == 255 { "a whole number up to 255" } else { "a whole number of Hz, 1 to 192000" },
        )
    })
}

fn boolean(name: &'static str, value: &str) -> Result<bool, ParamError> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" | "t" | "y" => Ok(true),
        "false" | "0" | "no" | "off" | "f" | "n" => Ok(false),
        _ => Err(error(name, value, "true or false")),
    }
}

fn error(name: &'static str, value: &str, expected: &'static str) -> ParamError {
    // It goes into a close frame and perhaps a log: short, and on one line.
    let value = value.chars().take(40).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    ParamError { name, value, expected }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v4(query: &str) -> ListenParams {
        ListenParams::parse(query, Endpoint::V4).expect("valid")
    }

    #[test]
    fn an_empty_query_gives_the_documented_defaults() {
        assert_eq!(v4(""), ListenParams::default());
    }

    #[test]
    fn the_mobile_apps_query_is_understood_and_its_uid_ignored() {
        let params = v4(
            "language=auto&sample_rate=16000&codec=opus_fs320&uid=someone&include_speech_profile=True&stt_service=soniox\
             &conversation_timeout=-1&source=phone&custom_stt=enabled&speaker_auto_assign=enabled&capture_protocol=9",
        );
        assert_eq!(params.language, "multi");
        assert_eq!((params.sample_rate, params.codec), (16_000, Codec::OpusFs320));
        assert_eq!(params.conversation_timeout, Some(-1));
        assert!(params.custom_stt && params.speaker_auto_assign && params.include_speech_profile);
    }

    #[test]
    fn of_a_repeated_parameter_the_last_counts_and_escapes_are_undone() {
        let params = v4("codec=aac&codec=opus&stt_service=a%2Bb%26c+d&call_id=%ff&source=%zz&language=");
        assert_eq!(params.codec, Codec::Opus);
        assert_eq!(params.stt_service.as_deref(), Some("a+b&c d"));
        assert_eq!(params.call_id.as_deref(), Some("\u{fffd}"));
        assert_eq!(params.source.as_deref(), Some("%zz"));
        assert_eq!(params.language, "en");
    }

    #[test]
    fn an_error_repeats_little_of_the_value_and_on_one_line() {
        let query = format!("sample_rate=1%0a2{}", "9".repeat(500));
        let error = ListenParams::parse(&query, Endpoint::V4).unwrap_err();
        assert_eq!(error.value.chars().count(), 40);
        assert!(error.value.starts_with("1\u{fffd}2"));
    }

    #[test]
    fn the_sample_rate_is_bounded() {
        for (rate, fits) in [("0", false), ("1", true), ("192000", true), ("192001", false), ("", false)] {
            let read = ListenParams::parse(&format!("sample_rate={rate}"), Endpoint::V4);
            assert_eq!(read.is_ok(), fits, "{rate}");
        }
    }

    #[test]
    fn unknown_codecs_are_pcm16() {
        for name in ["linear16", "mulaw8", "", "OPUS"] {
            assert_eq!(Codec::from_name(name), Codec::Pcm16, "{name}");
        }
    }

    #[test]
    fn a_client_id_is_trimmed_and_must_be_a_uuid() {
        let id = "6F1F5F0A-1B1C-4A8E-8F0B-0C7F4D1F2A90";
        assert_eq!(
            v4(&format!("client_conversation_id=%20{id}+")).client_conversation_id,
            Some(id.to_lowercase())
        );
        assert_eq!(v4("client_conversation_id=mine").client_conversation_id, None);
    }

    #[test]
    fn booleans_take_the_usual_spellings() {
        for (text, value) in [("yes", true), ("ON", true), ("0", false), ("False", false)] {
            assert_eq!(v4(&format!("create_speakers={text}")).create_speakers, value);
        }
    }

    #[test]
    fn a_wrong_type_names_parameter_value_and_form() {
        let error = ListenParams::parse("sample_rate=fast", Endpoint::V4).unwrap_err();
        assert_eq!(error.to_string(), "`sample_rate` is `fast`; it takes a whole number of Hz, 1 to 192000");
        assert!(ListenParams::parse("channels=-1", Endpoint::Web).is_err());
    }

    #[test]
    fn the_web_socket_ignores_what_it_does_not_declare() {
        let params =
            ListenParams::parse("speaker_auto_assign=enabled&create_speakers=maybe", Endpoint::Web).unwrap();
        assert_eq!(params, ListenParams::default());
    }

    proptest! {
        #[test]
        fn no_query_panics(query in ".{0,200}") {
            let _ = ListenParams::parse(&query, Endpoint::V4);
        }
    }
}
