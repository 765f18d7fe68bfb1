//! The server's configuration: one typed [`Config`], read once, before any port is bound.
//!
//! Layers, later ones winning: defaults, the file (`auricle.toml`), the environment (`AURICLE_…`), flags.
//! Owns: the table of keys ([`keys`]), from which reading, `docs/config.md`, `config show` and the command line's flags
//! are all derived. Leaves to others: reading the file from disk and parsing the command line (the CLI).
//! Invariants: a key that nothing honours does not exist; an unknown key is a mistake; all mistakes are reported
//! together; no secret is ever printed.

mod check;
mod cloud_speech;
mod docs;
mod hearing;
mod keys;
mod layers;
mod value;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use auricle_core::Limits;
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

pub use self::cloud_speech::{CloudSpeechConfig, SpeechmaticsPoint};
pub use self::docs::markdown;
pub use self::hearing::{BaseUrl, Gate, GateConfig, Keep, Score, Span, WhisperConfig};
pub use self::keys::{Key, keys};
pub use self::layers::{Env, FileSource, ProcessEnv, Sources};
pub use self::value::{DayHour, List, Paths, Price, Secret, Tokens, Zone};

/// Where a pusher is found, unless it is told otherwise; its probes are on the next port.
const PUSHER_PORT: u16 = 8090;

/// All that can be configured. Made by [`Config::load`]; `Default` is what an empty machine runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of the database, the audio spool and `addresses.json`.
    pub data_dir: PathBuf,
    /// Public address: sockets and REST.
    pub bind: SocketAddr,
    /// Address of `/livez`, `/readyz` and `/metrics`.
    pub probe_bind: SocketAddr,
    /// Who may come in.
    pub auth: AuthConfig,
    /// What turns speech into words.
    pub speech: SpeechConfig,
    /// How long audio is kept once its words are stored.
    pub audio_keep: Keep,
    /// What turns transcripts into records, if not rules.
    pub llm: LlmConfig,
    /// What makes vectors of texts, so that they are found by meaning.
    pub embeddings: EmbeddingsConfig,
    /// The pusher: where it is, and what guards it.
    pub pusher: PusherConfig,
    /// Threads for job attempts; 0 means as many as run at once.
    pub processing_threads: usize,
    /// Threads for live sessions; 0 means one a core.
    pub sessions_workers: usize,
    /// The time zone of users who have set none.
    pub user_time_zone: Zone,
    /// What is said, in the language of whoever reads it.
    pub translation: TranslationConfig,
    /// When days are summarised by themselves.
    pub days_summary: DayHour,
    /// Who is told of what, for every user.
    pub webhooks: WebhooksConfig,
    /// What seals texts and audio on disk.
    pub protection: ProtectionConfig,
    /// What is logged and how.
    pub log: LogConfig,
    /// Every bound.
    pub limits: Limits,
    /// Which halves run. Not a key: the command says.
    pub shape: Shape,
    /// Which layer each key came from, in the table's order; empty for defaults.
    origins: Vec<Option<String>>,
}

/// Who may come in. Without any credential only the local user may, and only over loopback.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// A bearer token that begins with this names the user that follows.
    pub admin_key: Option<Secret>,
    /// The user that a request without credentials belongs to, on a loopback address.
    pub local_user: String,
    /// Whether API keys (`auk_…`) are accepted.
    pub api_keys: bool,
    /// `iss` of accepted ID tokens.
    pub oidc_issuer: Option<String>,
    /// `aud` of accepted ID tokens.
    pub oidc_audience: Option<String>,
    /// Where the issuer publishes its signing keys.
    pub oidc_jwks_url: Option<String>,
    /// The claim that holds the user id.
    pub oidc_user_claim: String,
}

/// Which halves of the server run in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// Both: `auricle serve`.
    #[default]
    Embedded,
    /// Sockets of clients: `auricle listen`.
    Listen,
    /// Processing and realtime triggers: `auricle pusher`.
    Pusher,
}

/// What a pusher understands of process requests. Source: pusher-and-processing 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PusherProtocol {
    /// Ours: job-bound requests, which may be repeated.
    Auricle,
    /// Omi's second generation: bare requests, never repeated.
    OmiR2,
    /// Omi's third and later: job-bound requests, never repeated.
    OmiR3,
}

/// The pusher: where it is, and what guards it.
#[derive(Clone, Debug)]
pub struct PusherConfig {
    /// Where a listening process finds it; `None`: hints are not sent, and jobs are found by looking.
    pub url: Option<String>,
    /// What both halves show each other.
    pub secret: Option<Secret>,
    /// What it understands.
    pub protocol: PusherProtocol,
    /// Whether audio is forwarded.
    pub audio: bool,
}

/// The speech engines this program has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpeechEngine {
    /// The system's PocketSphinx library.
    PocketSphinx,
    /// Deepgram, or a server that speaks its live protocol.
    Deepgram,
    /// Soniox.
    Soniox,
    /// Speechmatics.
    Speechmatics,
    /// A Whisper model on this machine.
    Whisper,
    /// Words from a script, by position in the audio: for demonstrations and tests.
    Scripted,
    /// The same without the trouble that a script may bring: what a chain falls back to in tests.
    ScriptedSpare,
    /// No recognition: only clients that bring transcripts are served words.
    None,
}

/// Engines in the order in which they are preferred; not empty, none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeechEngines(pub Vec<SpeechEngine>);

impl SpeechEngines {
    /// Their names in configuration.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|engine| engine.as_str().to_owned()).collect()
    }
}

/// What turns speech into words.
#[derive(Clone, Debug)]
pub struct SpeechConfig {
    /// Which engines, the preferred one first. Never empty.
    pub engines: SpeechEngines,
    /// Recognisers at once; 0 means one a core.
    pub decoders: usize,
    /// The PocketSphinx library's file; `None` means where the system keeps it.
    pub pocketsphinx_library: Option<PathBuf>,
    /// The folder of its models; `None` means where the system keeps it.
    pub pocketsphinx_model: Option<PathBuf>,
    /// The scripted engine's script; `None` means its built-in exchange.
    pub script: Option<PathBuf>,
    /// The engines that are services of others.
    pub cloud: CloudSpeechConfig,
    /// Whisper's own settings.
    pub whisper: WhisperConfig,
    /// What keeps silence from engines.
    pub gate: GateConfig,
}

/// The language model that understands conversations.
#[derive(Clone, Debug)]
pub struct LlmConfig {
    /// Its server; `None`: conversations are understood by rules.
    pub url: Option<String>,
    /// Which of its models.
    pub model: String,
    /// Which takes notes on parts of what is too long; `None`: the same.
    pub model_long: Option<String>,
    /// What lets us in.
    pub key: Option<Secret>,
    /// The header that it goes into.
    pub key_header: String,
    /// How the form of an answer is asked for.
    pub output: LlmOutput,
    /// What becomes of records while the model is away.
    pub fallback: LlmFallback,
    /// Tokens that the models hold.
    pub window_tokens: Tokens,
    /// For a million tokens of prompts.
    pub price_input: Price,
    /// For a million tokens of answers.
    pub price_output: Price,
}

/// Translations while people speak.
#[derive(Clone, Debug)]
pub struct TranslationConfig {
    /// Of which sessions.
    pub when: TranslationWhen,
    /// Into which language, for users who have not said theirs.
    pub language: Option<String>,
    /// The model that is asked; `None`: `llm.model`.
    pub model: Option<String>,
}

/// Which sessions are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TranslationWhen {
    /// None.
    Off,
    /// Those in which more than one language is spoken (`language=multi`).
    Multi,
    /// Those as well that name a language: what is said in others, into it.
    Always,
}

/// Whether it may be the code of a language, e.g. `es` or `pt-BR`.
pub(crate) fn is_language(text: &str) -> bool {
    let mut parts = text.split('-');
    let first = parts.next().unwrap_or_default();
    let alphabetic = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphabetic());
    (2..=3).contains(&first.len())
        && alphabetic(first)
        && text.len() <= 35
        && parts.all(|part| {
            (2..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
}

/// The embedding server.
#[derive(Clone, Debug)]
pub struct EmbeddingsConfig {
    /// Its address; `None`: conversations are found by words alone.
    pub url: Option<String>,
    /// Which of its models.
    pub model: String,
    /// Sent as a bearer token.
    pub key: Option<Secret>,
    /// How many numbers a vector shall have; 0 means as many as the model gives.
    pub dimensions: u32,
}

/// Who is told of what, for every user.
#[derive(Clone, Debug)]
pub struct WebhooksConfig {
    /// Records, once they are made.
    pub conversation: Option<String>,
    /// Words, as they are stored.
    pub transcript: Option<String>,
    /// Audio, as it is heard.
    pub audio: Option<String>,
    /// By this they are signed.
    pub secret: Option<Secret>,
    /// Whether names may lead to addresses that are not public.
    pub allow_private: bool,
}

/// What becomes of records while the language model is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LlmFallback {
    /// They wait.
    Wait,
    /// Rules make them after a while, and the model makes them anew when it is back.
    Local,
}

/// How the form of a language model's answer is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LlmOutput {
    /// As the server takes it: found by asking, the surest first.
    Auto,
    /// By a JSON schema that the server keeps the answer to.
    JsonSchema,
    /// As JSON that the prompt describes.
    JsonObject,
    /// As text that the prompt describes.
    Text,
}

/// What seals texts and audio on disk.
#[derive(Clone, Debug)]
pub struct ProtectionConfig {
    /// File of the key that seals; with none here and none in `key`, nothing is sealed.
    pub key_file: Option<PathBuf>,
    /// The key itself.
    pub key: Option<Secret>,
    /// Files of keys that only open what they once sealed.
    pub old_key_files: Paths,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines, one object a line.
    Json,
}

/// From which severity on events are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the usual five levels")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// What is logged and how.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Form of a line.
    pub format: LogFormat,
    /// Least severe events that are logged.
    pub level: LogLevel,
}

value::listed!(SpeechEngines of SpeechEngine, SpeechEngine::None);
value::words!(SpeechEngine {
    PocketSphinx = "pocketsphinx",
    Whisper = "whisper",
    Deepgram = "deepgram",
    Soniox = "soniox",
    Speechmatics = "speechmatics",
    Scripted = "scripted",
    ScriptedSpare = "scripted_spare",
    None = "none"
});
value::words!(PusherProtocol { Auricle = "auricle", OmiR2 = "omi-r2", OmiR3 = "omi-r3" });
value::words!(LlmFallback { Wait = "wait", Local = "local" });
value::words!(TranslationWhen { Off = "off", Multi = "multi", Always = "always" });
value::words!(LlmOutput {
    Auto = "auto",
    JsonSchema = "json_schema",
    JsonObject = "json_object",
    Text = "text"
});
value::words!(LogFormat { Text = "text", Json = "json" });
value::words!(LogLevel {
    Error = "error",
    Warn = "warn",
    Info = "info",
    Debug = "debug",
    Trace = "trace"
});

impl Default for Config {
    fn default() -> Self {
        Self { origins: vec![None; keys().len()], ..Self::untouched() }
    }
}

impl Config {
    /// The defaults without origins, from which the table of keys is made.
    fn untouched() -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            data_dir: PathBuf::from("auricle-data"),
            bind: SocketAddr::new(loopback, 8080),
            probe_bind: SocketAddr::new(loopback, 8081),
            auth: AuthConfig {
                admin_key: None,
                local_user: "local".to_owned(),
                api_keys: false,
                oidc_issuer: None,
                oidc_audience: None,
                oidc_jwks_url: None,
                oidc_user_claim: "sub".to_owned(),
            },
            speech: SpeechConfig {
                engines: SpeechEngines(vec![SpeechEngine::PocketSphinx]),
                decoders: 0,
                pocketsphinx_library: None,
                pocketsphinx_model: None,
                script: None,
                cloud: CloudSpeechConfig::default(),
                whisper: WhisperConfig::default(),
                gate: GateConfig::default(),
            },
            audio_keep: Keep(None),
            // Omi's model for this. Source: pusher-and-processing 4.3.
            llm: LlmConfig {
                url: None,
                model: "gpt-5.4-mini".to_owned(),
                model_long: None,
                key: None,
                key_header: "authorization".to_owned(),
                output: LlmOutput::Auto,
                fallback: LlmFallback::Wait,
                window_tokens: Tokens(128_000),
                price_input: Price(0.0),
                price_output: Price(0.0),
            },
            embeddings: EmbeddingsConfig {
                url: None,
                model: "text-embedding-3-small".to_owned(),
                key: None,
                dimensions: 0,
            },
            pusher: PusherConfig { url: None, secret: None, protocol: PusherProtocol::Auricle, audio: false },
            processing_threads: 0,
            sessions_workers: 0,
            user_time_zone: Zone::System,
            days_summary: DayHour(None),
            translation: TranslationConfig { when: TranslationWhen::Off, language: None, model: None },
            webhooks: WebhooksConfig {
                conversation: None,
                transcript: None,
                audio: None,
                secret: None,
                allow_private: false,
            },
            protection: ProtectionConfig { key_file: None, key: None, old_key_files: Paths::default() },
            log: LogConfig { format: LogFormat::Text, level: LogLevel::Info },
            limits: Limits::default(),
            shape: Shape::Embedded,
            origins: Vec::new(),
        }
    }
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// As it was written: `bind`, `AURICLE_BIND`, `--bind`.
    pub key: String,
    /// What was given; stars for a secret; `None` if the key itself is the mistake.
    pub value: Option<String>,
    /// What would be right.
    pub expected: String,
    /// Where it stands, e.g. `auricle.toml line 3`.
    pub origin: String,
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, value, expected, origin } = self;
        match value {
            Some(value) => write!(f, "{key} = {value:?} ({origin}): expected {expected}"),
            None => write!(f, "{key} ({origin}): {expected}"),
        }
    }
}

/// Everything that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Unknown keys first, then wrong values by rising precedence, then broken rules. Never empty.
    pub mistakes: Vec<Mistake>,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.mistakes.len();
        write!(f, "the configuration has {count} mistake{}", if count == 1 { "" } else { "s" })?;
        self.mistakes.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for ConfigError {}

/// One line of `config show`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The key.
    pub key: &'static str,
    /// Its value in the form in which it can be given; stars for a secret, empty for none.
    pub value: String,
    /// Where it came from: `default`, `auricle.toml line 3`, `AURICLE_BIND`, `--bind`.
    pub origin: String,
}

impl Config {
    /// Reads all layers. An error holds every mistake of every layer.
    pub fn load(sources: Sources<'_>) -> Result<Self, ConfigError> {
        let (mut config, mut mistakes) = (Self::default(), Vec::new());
        let env = sources.env.vars();
        config.data_dir = layers::data_dir(&env);
        config.shape = sources.shape;
        if sources.shape == Shape::Pusher {
            // Both halves run on one machine without further ado.
            config.bind.set_port(PUSHER_PORT);
            config.probe_bind.set_port(PUSHER_PORT + 1);
        }
        for setting in layers::settings(&sources, &env, &mut mistakes) {
            config.apply(setting, &mut mistakes);
        }
        check::rules(&config, sources.shape, &mut mistakes);
        if mistakes.is_empty() { Ok(config) } else { Err(ConfigError { mistakes }) }
    }

    fn apply(&mut self, setting: layers::Setting, mistakes: &mut Vec<Mistake>) {
        let layers::Setting { index, spelling, text, origin } = setting;
        let key = &keys()[index];
        match key.set(self, &text) {
            Ok(()) => self.origins[index] = Some(origin),
            Err(expected) => {
                mistakes.push(Mistake { key: spelling, value: Some(key.shown(&text)), expected, origin })
            }
        }
    }

    /// Every key with its value and origin, in the table's order.
    pub fn show(&self) -> Vec<Row> {
        let row = |(key, origin): (&'static Key, &Option<String>)| Row {
            key: &key.name,
            value: key.show(self),
            origin: origin.clone().unwrap_or_else(|| "default".to_owned()),
        };
        keys().iter().zip(&self.origins).map(row).collect()
    }

    /// Twelve hexadecimal digits that change when an effective, non-secret value does.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        for key in keys().iter().filter(|key| !key.secret) {
            hash.update(format!("{}={}\n", key.name, key.value(self)));
        }
        hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Where `key` came from, for messages about it.
    fn origin(&self, name: &str) -> String {
        let index = keys().iter().position(|key| key.name == name);
        index.and_then(|index| self.origins[index].clone()).unwrap_or_else(|| "default".to_owned())
    }

    /// Threads for live sessions, at least 1.
    pub fn session_workers(&self) -> usize {
        or_cores(self.sessions_workers)
    }

    /// Threads for job attempts, at least 1.
    pub fn processing_threads(&self) -> usize {
        match self.processing_threads {
            0 => self.limits.jobs_running_max.clamp(1, or_cores(0)),
            threads => threads,
        }
    }

    /// The time zone of users who have set none.
    pub fn time_zone(&self) -> TimeZone {
        self.user_time_zone.get()
    }

    /// Whether only programs of this machine can reach the public port.
    pub fn is_loopback_only(&self) -> bool {
        self.bind.ip().to_canonical().is_loopback()
    }
}

impl AuthConfig {
    /// Whether anything but the local user can be told apart.
    pub fn has_credential(&self) -> bool {
        self.admin_key.is_some() || self.api_keys || self.oidc_issuer.is_some()
    }
}

fn or_cores(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        asked => asked,
    }
}
