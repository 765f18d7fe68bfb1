//! Settings of the speech engines that are services of others, and the rules between them.

use auricle_core::Limits;
use auricle_speech::cloud::{ApiKey, CloudConfig, CloudNumbers};
use auricle_speech::{DeepgramConfig, SonioxConfig, SpeechmaticsConfig};

use super::value::{List, Secret, without_secrets, words};

/// How much Speechmatics takes care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpeechmaticsPoint {
    /// Faster.
    Standard,
    /// More accurate.
    Enhanced,
}

words!(SpeechmaticsPoint { Standard = "standard", Enhanced = "enhanced" });

/// Where they are, what lets us in and what they are asked for.
#[derive(Clone, Debug)]
pub struct CloudSpeechConfig {
    /// Words to expect in every session.
    pub key_terms: List,
    /// Hear the language that a client names, never several.
    pub single_language: bool,
    /// Deepgram, or a server that speaks its protocol.
    pub deepgram_url: String,
    /// What lets us in.
    pub deepgram_key: Option<Secret>,
    /// Its models, in order of preference.
    pub deepgram_models: List,
    /// Soniox.
    pub soniox_url: String,
    /// What lets us in.
    pub soniox_key: Option<Secret>,
    /// Its model.
    pub soniox_model: String,
    /// Speechmatics, in the region that is wanted.
    pub speechmatics_url: String,
    /// What lets us in.
    pub speechmatics_key: Option<Secret>,
    /// How much care it shall take.
    pub speechmatics_operating_point: SpeechmaticsPoint,
    /// What it hears of clients that name no language.
    pub speechmatics_language: String,
}

impl Default for CloudSpeechConfig {
    fn default() -> Self {
        let (deepgram, soniox) = (DeepgramConfig::default(), SonioxConfig::default());
        let speechmatics = SpeechmaticsConfig::default();
        Self {
            key_terms: List::default(),
            single_language: false,
            deepgram_url: deepgram.url,
            deepgram_key: None,
            deepgram_models: List(deepgram.models),
            soniox_url: soniox.url,
            soniox_key: None,
            soniox_model: soniox.model,
            speechmatics_url: speechmatics.url,
            speechmatics_key: None,
            speechmatics_operating_point: SpeechmaticsPoint::Enhanced,
            speechmatics_language: speechmatics.language,
        }
    }
}

impl CloudSpeechConfig {
    /// As the engines take it.
    pub(crate) fn deepgram(&self) -> DeepgramConfig {
        DeepgramConfig {
            url: self.deepgram_url.clone(),
            key: key(&self.deepgram_key),
            models: self.deepgram_models.0.clone(),
            single_language: self.single_language,
        }
    }

    /// As [`Self::deepgram`].
    pub(crate) fn soniox(&self) -> SonioxConfig {
        SonioxConfig {
            url: self.soniox_url.clone(),
            key: key(&self.soniox_key),
            model: self.soniox_model.clone(),
            single_language: self.single_language,
        }
    }

    /// As [`Self::deepgram`].
    pub(crate) fn speechmatics(&self) -> SpeechmaticsConfig {
        SpeechmaticsConfig {
            url: self.speechmatics_url.clone(),
            key: key(&self.speechmatics_key),
            operating_point: self.speechmatics_operating_point.as_str().to_owned(),
            language: self.speechmatics_language.clone(),
        }
    }

    /// What they have in common.
    pub(crate) fn common(&self, limits: &Limits) -> CloudConfig {
        let numbers = CloudNumbers {
            backlog_secs_max: limits.engine_backlog_secs_max,
            connect_max: limits.engine_connect_max,
            silent_max: limits.engine_silent_max,
            finish_max: limits.engine_drain_max,
        };
        CloudConfig { numbers, key_terms: self.key_terms.0.clone() }
    }

    /// Services whose key would travel in the clear beyond this machine.
    pub fn in_the_clear(&self) -> impl Iterator<Item = &'static str> {
        let services = [
            ("speech.deepgram_url", &self.deepgram_url, &self.deepgram_key),
            ("speech.soniox_url", &self.soniox_url, &self.soniox_key),
            ("speech.speechmatics_url", &self.speechmatics_url, &self.speechmatics_key),
        ];
        let clear = services.into_iter().filter(|(_, url, key)| {
            let url = reqwest::Url::parse(url).ok().filter(|url| matches!(url.scheme(), "ws" | "http"));
            let host = url.as_ref().and_then(reqwest::Url::host_str);
            key.is_some() && host.is_some_and(|host| !crate::auth::is_loopback_host(host))
        });
        clear.map(|(name, ..)| name).collect::<Vec<_>>().into_iter()
    }
}

fn key(secret: &Option<Secret>) -> Option<ApiKey> {
    secret.as_ref().map(|secret| ApiKey::new(secret.expose()))
}

/// Adds a mistake for every rule that is broken.
pub(super) fn rules(ours: &CloudSpeechConfig, broken: &mut impl FnMut(&str, String, &str)) {
    for (name, text) in [
        ("speech.deepgram_url", &ours.deepgram_url),
        ("speech.soniox_url", &ours.soniox_url),
        ("speech.speechmatics_url", &ours.speechmatics_url),
    ] {
        let known = reqwest::Url::parse(text).is_ok_and(|url| {
            let plain = url.username().is_empty() && url.password().is_none();
            let scheme = matches!(url.scheme(), "ws" | "wss" | "http" | "https");
            scheme && plain && url.has_host() && url.query().is_none() && url.fragment().is_none()
        });
        if !known {
            let key = name.replace("_url", "_key");
            let expected =
                format!("a URL such as wss://api.example.com, without query or password; the key is {key}");
            broken(name, without_secrets(text), &expected);
        }
    }
}
