//! Speechmatics: some fifty languages, one for each stream; words with times and speakers.
//!
//! Owns: its first message, its messages, its languages. Leaves to others: the connection (`cloud`).
//! Source: Speechmatics' realtime API reference (AsyncAPI), its pages on limits, turn detection and languages.

mod languages;
mod messages;

use std::time::Duration;

use serde_json::{Value, json};

use self::messages::Transcript;
use crate::cloud::{
    self, Adapter, ApiKey, Close, CloudEngine, Pace, Provider, Refusal, Request, Said, by_status, endpoint,
};
use crate::{EngineError, StreamSpec};

const NAME: &str = "speechmatics";
/// It needs none beside pings, by which it waits three minutes; it may refuse to buffer bursts.
const PACE: Pace = Pace { keep_alive_every: Duration::from_secs(60), speed_max: Some(2.0) };
/// Until a word is decided, in seconds: 0.7 to 4. Longer is a little more accurate.
const MAX_DELAY_SECS: f64 = 1.5;
/// Silence that ends an utterance, in seconds; less than the above.
const SILENCE_SECS: f64 = 0.7;

/// Settings of Speechmatics.
#[derive(Clone, Debug)]
pub struct SpeechmaticsConfig {
    /// `wss://…`, of the region that is wanted; `/v2` is added if there is no path.
    pub url: String,
    /// What lets us in.
    pub key: Option<ApiKey>,
    /// `standard` or `enhanced`.
    pub operating_point: String,
    /// What it hears of clients that name no language (`multi`): it hears one.
    pub language: String,
}

impl Default for SpeechmaticsConfig {
    fn default() -> Self {
        Self {
            url: "wss://eu2.rt.speechmatics.com".to_owned(),
            key: None,
            operating_point: "enhanced".to_owned(),
            language: "en".to_owned(),
        }
    }
}

/// The engine.
pub type Speechmatics = CloudEngine<SpeechmaticsConfig>;

impl Provider for SpeechmaticsConfig {
    const NAME: &'static str = NAME;

    fn adapter(&self, spec: &StreamSpec) -> Result<Box<dyn Adapter>, EngineError> {
        Ok(Box::new(SpeechmaticsAdapter::new(self, spec)?))
    }

    fn about(&self) -> String {
        format!("{} at {}", self.operating_point, self.url)
    }
}

/// One stream.
pub struct SpeechmaticsAdapter {
    request: Request,
    key: ApiKey,
    begin: String,
    transcript: Transcript,
    audio_messages: u64,
}

impl SpeechmaticsAdapter {
    /// Errors: [`EngineError::Unavailable`] without a key, [`EngineError::Refused`] for a language that it does not hear.
    pub fn new(config: &SpeechmaticsConfig, spec: &StreamSpec) -> Result<Self, EngineError> {
        let Some(key) = config.key.clone() else {
            return Err(EngineError::Unavailable(
                "speechmatics has no key: set speech.speechmatics_key (AURICLE_SPEECH_SPEECHMATICS_KEY)"
                    .to_owned(),
            ));
        };
        let (language, locale) = languages::choose(&spec.language, &config.language)?;
        let mut transcription = json!({
            "language": language,
            "operating_point": config.operating_point,
            "diarization": "speaker",
            "enable_partials": spec.interim,
            "max_delay": MAX_DELAY_SECS,
            "conversation_config": { "end_of_utterance_silence_trigger": SILENCE_SECS },
            "additional_vocab": cloud::key_terms(&spec.key_terms),
        });
        if let Some(locale) = locale {
            transcription["output_locale"] = Value::from(locale);
        }
        let begin = json!({
            "message": "StartRecognition",
            "audio_format": { "type": "raw", "encoding": "pcm_s16le", "sample_rate": spec.sample_rate_hz },
            "transcription_config": transcription,
        });
        let request = Request {
            url: endpoint(&config.url, "/v2"),
            headers: vec![("authorization", format!("Bearer {}", key.expose()))],
        };
        let transcript = Transcript::new(spec.interim);
        Ok(Self { request, key, begin: begin.to_string(), transcript, audio_messages: 0 })
    }
}

impl Adapter for SpeechmaticsAdapter {
    fn request(&self) -> &Request {
        &self.request
    }

    fn begin(&mut self) -> Option<String> {
        Some(std::mem::take(&mut self.begin))
    }

    /// Audio before `RecognitionStarted` is an error.
    fn is_ready(&self) -> bool {
        self.transcript.is_started()
    }

    fn pace(&self) -> Pace {
        PACE
    }

    fn on_audio_sent(&mut self) {
        self.audio_messages += 1;
    }

    fn keep_alive(&self) -> Option<&'static str> {
        None
    }

    fn flush(&mut self, at_secs: f64) -> String {
        json!({ "message": "ForceEndOfUtterance", "timestamp": at_secs }).to_string()
    }

    fn finish(&mut self) -> String {
        json!({ "message": "EndOfStream", "last_seq_no": self.audio_messages }).to_string()
    }

    fn on_text(&mut self, text: &str, said: &mut Vec<Said>) -> Result<(), EngineError> {
        self.transcript.read(text, said)
    }

    /// It says that the transcript has ended before it closes.
    fn on_close(&mut self, close: Option<&Close>, _: bool) -> Result<(), EngineError> {
        Err(messages::of_close(close))
    }

    fn on_refusal(&self, refusal: &Refusal) -> EngineError {
        let (code, detail) = messages::error_of(&refusal.body);
        by_status(NAME, &self.key, refusal.status, (code.as_deref(), detail.as_deref()), refusal.retry_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(language: &str) -> Value {
        let config = SpeechmaticsConfig { key: Some(ApiKey::new("sm-key")), ..SpeechmaticsConfig::default() };
        let spec = StreamSpec {
            sample_rate_hz: 16_000,
            language: language.to_owned(),
            label: String::new(),
            key_terms: Vec::new(),
            interim: false,
        };
        let mut adapter = SpeechmaticsAdapter::new(&config, &spec).unwrap();
        assert_eq!(adapter.request().url, "wss://eu2.rt.speechmatics.com/v2");
        assert_eq!(adapter.request().headers, [("authorization", "Bearer sm-key".to_owned())]);
        assert!(!adapter.is_ready(), "not before RecognitionStarted");
        serde_json::from_str(&adapter.begin().unwrap()).unwrap()
    }

    #[test]
    fn the_first_message_asks_for_raw_audio_and_speakers() {
        let transcription = json!({
            "language": "en", "output_locale": "en-GB", "operating_point": "enhanced", "diarization": "speaker",
            "enable_partials": false, "max_delay": 1.5,
            "conversation_config": { "end_of_utterance_silence_trigger": 0.7 }, "additional_vocab": ["Omi"],
        });
        let audio = json!({ "type": "raw", "encoding": "pcm_s16le", "sample_rate": 16_000 });
        let whole = json!({
            "message": "StartRecognition", "audio_format": audio, "transcription_config": transcription
        });
        assert_eq!(begin("en-GB"), whole);
        assert_eq!(begin("multi")["transcription_config"]["language"], "en");
    }

    #[test]
    fn the_end_names_the_last_message_of_audio() {
        let config = SpeechmaticsConfig { key: Some(ApiKey::new("sm-key")), ..SpeechmaticsConfig::default() };
        let spec = StreamSpec {
            sample_rate_hz: 16_000,
            language: "en".to_owned(),
            label: String::new(),
            key_terms: Vec::new(),
            interim: false,
        };
        let mut adapter = SpeechmaticsAdapter::new(&config, &spec).unwrap();
        adapter.on_audio_sent();
        adapter.on_audio_sent();
        assert_eq!(adapter.finish(), r#"{"last_seq_no":2,"message":"EndOfStream"}"#);
        assert_eq!(adapter.flush(1.5), r#"{"message":"ForceEndOfUtterance","timestamp":1.5}"#);
    }
}
