//! Deepgram, and whatever speaks its live protocol: words with times, speakers, punctuation.
//!
//! Owns: its request, its messages, which of its models hears which language (`languages`). Leaves to others: the connection
//! (`cloud`). Source: Deepgram's live audio reference, and its pages on `KeepAlive`, `Finalize`, `CloseStream` and errors;
//! options as Omi sets them: listen-protocol 2.6.

mod languages;
mod messages;

use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

pub use self::languages::{Choice, choose};
use crate::cloud::{
    self, Adapter, ApiKey, Close, CloudEngine, Pace, Provider, Refusal, Request, Said, broken, by_status,
    closed, endpoint,
};
use crate::{EngineError, StreamSpec};

const NAME: &str = "deepgram";
/// Half of the ten seconds after which it closes with NET-0001. Source: its page on `KeepAlive`.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);
/// It hears at 1.25 times real time and makes what comes faster wait itself; so does the connection.
const PACE: Pace = Pace { keep_alive_every: KEEP_ALIVE_EVERY, speed_max: None };
/// Silence that ends an utterance, in milliseconds. Source: listen-protocol 2.6.
const ENDPOINTING_MS: u32 = 300;
/// Stands in a query as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Settings of Deepgram.
#[derive(Clone, Debug)]
pub struct DeepgramConfig {
    /// `wss://…`, or `ws://…` of one that runs here; `/v1/listen` is added if there is no path.
    pub url: String,
    /// What lets us in.
    pub key: Option<ApiKey>,
    /// Models in order of preference: the first that hears a stream's language is asked.
    pub models: Vec<String>,
    /// Let it hear the language that the client names, never several.
    pub single_language: bool,
}

impl Default for DeepgramConfig {
    fn default() -> Self {
        Self {
            url: "wss://api.deepgram.com".to_owned(),
            key: None,
            models: vec!["nova-3".to_owned()],
            single_language: false,
        }
    }
}

/// The engine.
pub type Deepgram = CloudEngine<DeepgramConfig>;

impl Provider for DeepgramConfig {
    const NAME: &'static str = NAME;

    fn adapter(&self, spec: &StreamSpec) -> Result<Box<dyn Adapter>, EngineError> {
        Ok(Box::new(DeepgramAdapter::new(self, spec)?))
    }

    fn about(&self) -> String {
        format!("{} at {}", self.models.join(", "), self.url)
    }
}

/// One stream.
pub struct DeepgramAdapter {
    request: Request,
    key: ApiKey,
    interim: bool,
}

impl DeepgramAdapter {
    /// Errors: [`EngineError::Unavailable`] without a key.
    pub fn new(config: &DeepgramConfig, spec: &StreamSpec) -> Result<Self, EngineError> {
        let Some(key) = config.key.clone() else {
            return Err(EngineError::Unavailable(
                "deepgram has no key: set speech.deepgram_key (AURICLE_SPEECH_DEEPGRAM_KEY)".to_owned(),
            ));
        };
        let choice = choose(&config.models, &spec.language, !config.single_language);
        let rate = spec.sample_rate_hz.to_string();
        let endpointing = ENDPOINTING_MS.to_string();
        let mut query: Vec<(&str, &str)> = vec![
            ("model", &choice.model),
            ("language", &choice.language),
            ("encoding", "linear16"),
            ("sample_rate", &rate),
            ("channels", "1"),
            ("punctuate", "true"),
            ("smart_format", "true"),
            ("no_delay", "true"),
            ("endpointing", &endpointing),
            ("interim_results", if spec.interim { "true" } else { "false" }),
            ("profanity_filter", "false"),
            ("diarize", "true"),
            ("filler_words", "false"),
        ];
        // What follows a colon in `keywords` is an intensifier, or refused.
        let terms = cloud::key_terms(&spec.key_terms).into_iter().map(|term| match choice.terms {
            "keywords" => term.replace(':', " "),
            _ => term.to_owned(),
        });
        let terms: Vec<String> = terms.collect();
        query.extend(terms.iter().map(|term| (choice.terms, term.as_str())));
        let query: Vec<String> = query
            .into_iter()
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, PLAIN)))
            .collect();
        let url = endpoint(&config.url, "/v1/listen");
        let joint = if url.contains('?') { '&' } else { '?' };
        let request = Request {
            url: format!("{url}{joint}{}", query.join("&")),
            headers: vec![("authorization", format!("Token {}", key.expose()))],
        };
        Ok(Self { request, key, interim: spec.interim })
    }
}

impl Adapter for DeepgramAdapter {
    fn request(&self) -> &Request {
        &self.request
    }

    fn pace(&self) -> Pace {
        PACE
    }

    fn keep_alive(&self) -> Option<&'static str> {
        Some(r#"{"type":"KeepAlive"}"#)
    }

    fn flush(&mut self, _: f64) -> String {
        r#"{"type":"Finalize"}"#.to_owned()
    }

    fn finish(&mut self) -> String {
        r#"{"type":"CloseStream"}"#.to_owned()
    }

    fn on_text(&mut self, text: &str, said: &mut Vec<Said>) -> Result<(), EngineError> {
        messages::read(text, self.interim, said)
    }

    fn on_close(&mut self, close: Option<&Close>, finished: bool) -> Result<(), EngineError> {
        match close {
            // It says everything before it closes after CloseStream.
            Some(Close { code: 1000, .. }) if finished => Ok(()),
            Some(Close { code: 1002 | 1008, .. }) => {
                Err(broken(NAME, "could not read the audio (DATA-0000)"))
            }
            close => Err(closed(NAME, close)),
        }
    }

    fn on_refusal(&self, refusal: &Refusal) -> EngineError {
        /// Both of its forms.
        #[derive(Default, Deserialize)]
        struct Body {
            #[serde(alias = "category")]
            err_code: Option<String>,
            #[serde(alias = "details")]
            err_msg: Option<String>,
        }
        let body: Body = serde_json::from_str(&refusal.body).unwrap_or_default();
        let said = (body.err_code.as_deref(), body.err_msg.as_deref());
        by_status(NAME, &self.key, refusal.status, said, refusal.retry_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(language: &str) -> StreamSpec {
        StreamSpec {
            sample_rate_hz: 8_000,
            language: language.to_owned(),
            label: String::new(),
            key_terms: vec!["Ångström & Co".to_owned()],
            interim: false,
        }
    }

    fn config(models: &[&str]) -> DeepgramConfig {
        let models = models.iter().map(|model| (*model).to_owned()).collect();
        DeepgramConfig { key: Some(ApiKey::new("dg-key")), models, ..DeepgramConfig::default() }
    }

    #[test]
    fn the_request_asks_as_omi_asks() {
        let adapter = DeepgramAdapter::new(&config(&["nova-3"]), &spec("en")).unwrap();
        assert_eq!(
            adapter.request().url,
            "wss://api.deepgram.com/v1/listen?model=nova-3&language=multi&encoding=linear16&sample_rate=8000&channels=1\
             &punctuate=true&smart_format=true&no_delay=true&endpointing=300&interim_results=false&profanity_filter=false\
             &diarize=true&filler_words=false&keyterm=%C3%85ngstr%C3%B6m%20%26%20Co&keyterm=Omi"
        );
        assert_eq!(adapter.request().headers, [("authorization", "Token dg-key".to_owned())]);
        let live = StreamSpec { interim: true, ..spec("en") };
        let live = DeepgramAdapter::new(&config(&["nova-3"]), &live).unwrap();
        assert!(live.request().url.contains("&interim_results=true&"));
        let older = DeepgramAdapter::new(&config(&["nova-2"]), &spec("zh")).unwrap();
        assert!(older.request().url.contains("?model=nova-2-general&language=zh&"));
        assert!(older.request().url.ends_with("&keywords=%C3%85ngstr%C3%B6m%20%26%20Co&keywords=Omi"));
        let timed = StreamSpec { key_terms: vec!["nine:15".to_owned()], ..spec("zh") };
        let older = DeepgramAdapter::new(&config(&["nova-2"]), &timed).unwrap();
        assert!(older.request().url.ends_with("&keywords=nine%2015&keywords=Omi"));
    }

    #[test]
    fn a_key_is_needed_and_never_shown() {
        let without = DeepgramConfig::default();
        assert!(matches!(DeepgramAdapter::new(&without, &spec("en")), Err(EngineError::Unavailable(_))));
        let adapter = DeepgramAdapter::new(&config(&["nova-3"]), &spec("en")).unwrap();
        let shown = format!("{:?} {:?}", adapter.request(), config(&["nova-3"]));
        assert!(!shown.contains("dg-key"), "{shown}");
    }
}
