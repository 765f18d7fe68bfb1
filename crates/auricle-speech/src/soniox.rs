//! Soniox: sixty languages, mixed as people mix them; words with times and speakers.
//!
//! Owns: its first message, its tokens, its languages. Leaves to others: the connection (`cloud`).
//! Source: Soniox's WebSocket API reference, and its pages on manual finalization, endpoint detection, keepalive and errors.

mod messages;

use std::time::Duration;

use serde_json::json;

use self::messages::Tokens;
use crate::cloud::{
    self, Adapter, ApiKey, Close, CloudEngine, Pace, Provider, Refusal, Request, Said, by_status, closed,
    endpoint,
};
use crate::{EngineError, StreamSpec};

const NAME: &str = "soniox";
/// It closes after twenty seconds without audio or this. Bursts that go on may make it close.
const PACE: Pace = Pace { keep_alive_every: Duration::from_secs(8), speed_max: Some(2.0) };

/// What it hears. Source: listen-protocol 2.6.
const LANGUAGES: [&str; 60] = [
    "en", "af", "sq", "ar", "az", "eu", "be", "bn", "bs", "bg", "ca", "zh", "hr", "cs", "da", "nl", "et",
    "fi", "fr", "gl", "de", "el", "gu", "he", "hi", "hu", "id", "it", "ja", "kn", "kk", "ko", "lv", "lt",
    "mk", "ms", "ml", "mr", "no", "fa", "pl", "pt", "pa", "ro", "ru", "sr", "sk", "sl", "es", "sw", "sv",
    "tl", "ta", "te", "th", "tr", "uk", "ur", "vi", "cy",
];

/// Settings of Soniox.
#[derive(Clone, Debug)]
pub struct SonioxConfig {
    /// `wss://…`; `/transcribe-websocket` is added if there is no path.
    pub url: String,
    /// What lets us in.
    pub key: Option<ApiKey>,
    /// Which of its models.
    pub model: String,
    /// Let it hear the language that the client names, and no other.
    pub single_language: bool,
}

impl Default for SonioxConfig {
    fn default() -> Self {
        Self {
            url: "wss://stt-rt.soniox.com".to_owned(),
            key: None,
            model: "stt-rt-v5".to_owned(),
            single_language: false,
        }
    }
}

/// The engine.
pub type Soniox = CloudEngine<SonioxConfig>;

impl Provider for SonioxConfig {
    const NAME: &'static str = NAME;

    fn adapter(&self, spec: &StreamSpec) -> Result<Box<dyn Adapter>, EngineError> {
        Ok(Box::new(SonioxAdapter::new(self, spec)?))
    }

    fn about(&self) -> String {
        format!("{} at {}", self.model, self.url)
    }
}

/// The language that is expected; none: any.
///
/// A region counts for nothing (`en-GB` is `en`). Errors: it does not hear `language`.
fn expected(language: &str) -> Result<Option<&str>, EngineError> {
    let base = language.split('-').next().unwrap_or_default();
    match base {
        "multi" | "auto" => Ok(None),
        _ => LANGUAGES.iter().find(|known| **known == base).map(|known| Some(*known)).ok_or_else(|| {
            EngineError::Refused(format!(
                "soniox does not hear `{language}`; choose another engine or send transcripts"
            ))
        }),
    }
}

/// One stream.
pub struct SonioxAdapter {
    request: Request,
    key: ApiKey,
    begin: String,
    tokens: Tokens,
}

impl SonioxAdapter {
    /// Errors: [`EngineError::Unavailable`] without a key, [`EngineError::Refused`] for a language that it does not hear.
    pub fn new(config: &SonioxConfig, spec: &StreamSpec) -> Result<Self, EngineError> {
        let Some(key) = config.key.clone() else {
            return Err(EngineError::Unavailable(
                "soniox has no key: set speech.soniox_key (AURICLE_SPEECH_SONIOX_KEY)".to_owned(),
            ));
        };
        let expected = expected(&spec.language)?;
        let single = config.single_language && expected.is_some();
        let begin = json!({
            "api_key": key.expose(),
            "model": config.model,
            "audio_format": "pcm_s16le",
            "sample_rate": spec.sample_rate_hz,
            "num_channels": 1,
            // A hint is expected, and others are heard all the same unless it is strict.
            "language_hints": expected.into_iter().collect::<Vec<_>>(),
            "language_hints_strict": single,
            "enable_speaker_diarization": true,
            "enable_language_identification": !single,
            "enable_endpoint_detection": true,
            "context": { "terms": cloud::key_terms(&spec.key_terms) },
        });
        let request = Request { url: endpoint(&config.url, "/transcribe-websocket"), headers: Vec::new() };
        Ok(Self { request, key, begin: begin.to_string(), tokens: Tokens::new(spec.interim) })
    }
}

impl Adapter for SonioxAdapter {
    fn request(&self) -> &Request {
        &self.request
    }

    fn begin(&mut self) -> Option<String> {
        Some(std::mem::take(&mut self.begin))
    }

    fn pace(&self) -> Pace {
        PACE
    }

    fn keep_alive(&self) -> Option<&'static str> {
        Some(r#"{"type":"keepalive"}"#)
    }

    fn flush(&mut self, _: f64) -> String {
        r#"{"type":"finalize"}"#.to_owned()
    }

    /// An empty message.
    fn finish(&mut self) -> String {
        String::new()
    }

    fn on_text(&mut self, text: &str, said: &mut Vec<Said>) -> Result<(), EngineError> {
        self.tokens.read(text, &self.key, said)
    }

    /// It says that it has finished before it closes.
    fn on_close(&mut self, close: Option<&Close>, _: bool) -> Result<(), EngineError> {
        Err(closed(NAME, close))
    }

    fn on_refusal(&self, refusal: &Refusal) -> EngineError {
        let (code, detail) = messages::error_of(&refusal.body);
        by_status(NAME, &self.key, refusal.status, (code.as_deref(), detail.as_deref()), refusal.retry_after)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn begin(language: &str, single_language: bool) -> Result<Value, EngineError> {
        let key = Some(ApiKey::new("sx-key"));
        let config = SonioxConfig { key, single_language, ..SonioxConfig::default() };
        let spec = StreamSpec {
            sample_rate_hz: 16_000,
            language: language.to_owned(),
            label: String::new(),
            key_terms: vec!["Auricle".to_owned()],
            interim: false,
        };
        let mut adapter = SonioxAdapter::new(&config, &spec)?;
        assert_eq!(adapter.request().url, "wss://stt-rt.soniox.com/transcribe-websocket");
        Ok(serde_json::from_str(&adapter.begin().unwrap()).unwrap())
    }

    #[test]
    fn the_first_message_asks_for_raw_audio_speakers_and_endpoints() {
        assert_eq!(
            begin("en-GB", false).unwrap(),
            json!({
                "api_key": "sx-key", "model": "stt-rt-v5", "audio_format": "pcm_s16le", "sample_rate": 16_000,
                "num_channels": 1, "language_hints": ["en"], "language_hints_strict": false,
                "enable_speaker_diarization": true, "enable_language_identification": true,
                "enable_endpoint_detection": true, "context": { "terms": ["Auricle", "Omi"] },
            })
        );
    }

    #[test]
    fn sixty_languages_are_heard_and_any_mixture_of_them() {
        for language in LANGUAGES {
            assert_eq!(begin(language, true).unwrap()["language_hints"], json!([language]));
            assert_eq!(begin(language, true).unwrap()["language_hints_strict"], true);
        }
        for language in ["multi", "auto"] {
            assert_eq!(begin(language, true).unwrap()["language_hints"], json!([]));
            assert_eq!(begin(language, true).unwrap()["language_hints_strict"], false);
        }
        let Err(EngineError::Refused(text)) = begin("tlh", false) else { panic!("heard") };
        assert!(text.contains("`tlh`"), "{text}");
    }
}
