//! The table of keys: every option's name, form, default, documentation and places, once.

use std::sync::LazyLock;
use std::time::Duration;

use auricle_core::limits::{Bound, Limits};

use super::Config;
use super::value::{
    Secret, Value, parse_bytes, parse_duration, show_bytes, show_duration, whole, without_secrets,
};

/// One option.
#[derive(Debug)]
pub struct Key {
    /// `section.name` as in the file.
    pub name: String,
    /// Its environment variables; the first is the systematic one.
    pub envs: Vec<String>,
    /// Its flags with `--`; the first is the systematic one. None for a secret: other users of a machine can read
    /// command lines.
    pub flags: Vec<String>,
    /// Other names in the file.
    pub aliases: Vec<String>,
    /// What it does.
    pub doc: String,
    /// What a value must look like.
    pub form: String,
    /// The default in the form in which it can be given; empty for none.
    pub default: String,
    /// Whether its value is never shown.
    pub secret: bool,
    slot: Slot,
}

#[derive(Clone, Copy, Debug)]
enum Slot {
    Own(fn(&mut Config) -> &mut dyn Value),
    Limit(&'static str),
}

struct Own {
    name: &'static str,
    doc: &'static str,
    slot: fn(&mut Config) -> &mut dyn Value,
}

macro_rules! own {
    ($($(#[doc = $doc:literal])+ $name:literal = $($field:ident).+;)+) => {
        const OWN: &[Own] = &[$(Own { name: $name, doc: concat!($($doc),+), slot: |config| &mut config.$($field).+ }),+];
    };
}

own! {
    /// Folder of the database, the audio spool and `addresses.json`.
    "data_dir" = data_dir;
    /// Public address: sockets and REST. Beyond loopback only with a credential (`auth.admin_key`, `auth.api_keys` or
    /// `auth.oidc_issuer`; of a pusher `pusher.secret`). A pusher's default port is 8090.
    "bind" = bind;
    /// Address of `/livez`, `/readyz` and `/metrics`. They tell nothing about users; keep them inside all the same. A
    /// pusher's default port is 8091.
    "probe_bind" = probe_bind;
    /// A bearer token that begins with this names the user that follows, as in Omi: it may act for everybody.
    "auth.admin_key" = auth.admin_key;
    /// The user that a request without credentials belongs to while the public address is loopback.
    "auth.local_user" = auth.local_user;
    /// Accept API keys (`auk_…`).
    "auth.api_keys" = auth.api_keys;
    /// Accept ID tokens of this issuer (`iss`). Firebase: `https://securetoken.google.com/PROJECT`. Needs
    /// `auth.oidc_audience` and `auth.oidc_jwks_url`.
    "auth.oidc_issuer" = auth.oidc_issuer;
    /// The audience (`aud`) that ID tokens must be made for. Firebase: the project's id.
    "auth.oidc_audience" = auth.oidc_audience;
    /// Where the issuer publishes its signing keys. Firebase:
    /// `https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com`.
    "auth.oidc_jwks_url" = auth.oidc_jwks_url;
    /// The claim of an ID token that holds the user id.
    "auth.oidc_user_claim" = auth.oidc_user_claim;
    /// What turns speech into words: engines in the order in which they are preferred, in the file also as a list. When one
    /// fails the next hears on, and the first again once it works (docs/degraded-speech.md). `none` serves only clients that
    /// bring their own transcripts.
    "speech.engines" = speech.engines;
    /// Recognisers that run at once; 0 means one a core, of Whisper one for two cores.
    "speech.decoders" = speech.decoders;
    /// The PocketSphinx library's file. Not set: where the system keeps it.
    "speech.pocketsphinx_library" = speech.pocketsphinx_library;
    /// The folder of PocketSphinx's models. Not set: where the system keeps it.
    "speech.pocketsphinx_model" = speech.pocketsphinx_model;
    /// What the `scripted` engine hears, as a JSON file. Not set: a built-in exchange that repeats.
    "speech.script" = speech.script;
    /// Names and products that speech services are told to expect, of every user; `Omi` always is.
    "speech.key_terms" = speech.cloud.key_terms;
    /// Let speech services hear the language that a client names, never several at once.
    "speech.single_language" = speech.cloud.single_language;
    /// Deepgram, or a server that speaks its live protocol: audio is sent there. A path is kept; without one it is `/v1/listen`.
    "speech.deepgram_url" = speech.cloud.deepgram_url;
    /// The key of `deepgram`.
    "speech.deepgram_key" = speech.cloud.deepgram_key;
    /// Its models: the first that hears a client's language is asked. `nova-2` hears Chinese and Thai, which `nova-3` does
    /// not.
    "speech.deepgram_models" = speech.cloud.deepgram_models;
    /// Soniox, in the region that is wanted: audio is sent there.
    "speech.soniox_url" = speech.cloud.soniox_url;
    /// The key of `soniox`.
    "speech.soniox_key" = speech.cloud.soniox_key;
    /// Its realtime model.
    "speech.soniox_model" = speech.cloud.soniox_model;
    /// Speechmatics, in the region that is wanted: audio is sent there.
    "speech.speechmatics_url" = speech.cloud.speechmatics_url;
    /// The key of `speechmatics`.
    "speech.speechmatics_key" = speech.cloud.speechmatics_key;
    /// How much care it shall take.
    "speech.speechmatics_operating_point" = speech.cloud.speechmatics_operating_point;
    /// The language that it hears of clients which name none; also a pair such as `cmn_en`.
    "speech.speechmatics_language" = speech.cloud.speechmatics_language;
    /// Whisper's model: a `ggml-*.bin` file, or the name of one that `auricle models pull` fetched into the data folder. Not set:
    /// `base`.
    "speech.whisper_model" = speech.whisper.model;
    /// Least speech between two passes of Whisper over a sentence that goes on. Shorter shows words sooner and costs more.
    "speech.whisper_step" = speech.whisper.step;
    /// Longest time that one pass of Whisper may take. Full: it is stopped, and the session is told.
    "speech.whisper_pass_max" = speech.whisper.pass_max;
    /// Where `auricle models pull` finds the published files.
    "speech.models_url" = speech.whisper.models_url;
    /// Keep silence from the engine: `auto` from those that are paid for what they are sent, `on` from every one, `off` from none.
    "speech.gate" = speech.gate.mode;
    /// Audio before the first voiced 16 ms that is sent with them. Shorter may clip soft beginnings, longer costs more.
    "speech.gate_pre_roll" = speech.gate.pre_roll;
    /// Silence that ends a stretch of speech; it is sent. Shorter cuts sentences at pauses, longer costs more.
    "speech.gate_hang_over" = speech.gate.hang_over;
    /// How sure the voice detector must be that somebody begins to speak. Lower hears softer voices, and more noise.
    "speech.gate_threshold" = speech.gate.threshold;
    /// How long audio is kept once its words are stored, so that it can be heard again by another engine (docs/kept-audio.md): as
    /// received, in the folder `audio` of the data folder, sealed if there is a key, `limits.audio_kept_bytes_max` in all. `off`: no
    /// audio is kept; what was kept before stays until its conversation is deleted.
    "audio.keep" = audio_keep;
    /// A server that speaks OpenAI's chat completions (OpenAI, Azure, Ollama, llama.cpp, vLLM), with or without `/v1`: it
    /// turns transcripts into records. They leave this machine. Not set: rules on this machine do it (`local`).
    "llm.url" = llm.url;
    /// The model that is asked. Azure: the deployment.
    "llm.model" = llm.model;
    /// The model that takes notes on the parts of a conversation that is longer than `llm.window_tokens`. Not set: `llm.model`.
    "llm.model_long" = llm.model_long;
    /// Sent to `llm.url` in `llm.key_header`.
    "llm.key" = llm.key;
    /// The header that `llm.key` goes into: as a bearer token in `authorization`, by itself in any other. Azure: `api-key`.
    "llm.key_header" = llm.key_header;
    /// How JSON is asked for: by a schema that the server keeps the answer to, as JSON, as text, or `auto`: whatever the server
    /// takes, the surest first.
    "llm.output" = llm.output;
    /// What becomes of records while the model is away: they `wait`, or after `limits.llm_fallback_after` rules on this machine
    /// make them (`local`), labelled as such, and the model makes them anew when it is back.
    "llm.fallback" = llm.fallback;
    /// Tokens that the models hold, prompt and answer together. What is longer is read in parts.
    "llm.window_tokens" = llm.window_tokens;
    /// What a million tokens of prompts cost, in any currency: counted in `auricle_llm_cost_millionths_total`.
    "llm.price_input" = llm.price_input;
    /// The same of answers.
    "llm.price_output" = llm.price_output;
    /// Which sessions the language model translates while people speak: none (`off`), those in which more than one language is spoken
    /// (`multi`: `language=multi` or `auto`), or those as well that name a language (`always`: what is said in others, into it). Needs
    /// `llm.url`; what is said is sent there. `docs/translation.md` says more.
    "translation.when" = translation.when;
    /// The language, as a code such as `es`, into which sessions of more than one language are translated for users who have not said
    /// theirs (`PUT /v1/users/me/language`). Not set: theirs are not translated.
    "translation.language" = translation.language;
    /// The model that translates: a small one is quicker. Not set: `llm.model`.
    "translation.model" = translation.model;
    /// A server that speaks OpenAI's embeddings (OpenAI, Ollama, llama.cpp, vLLM), with or without `/v1`: conversations are then
    /// also found by meaning. Records, transcripts and what is searched for are sent there. Not set: they are found by words
    /// alone.
    "embeddings.url" = embeddings.url;
    /// The model that makes the vectors. Another one makes them all anew, in the background.
    "embeddings.model" = embeddings.model;
    /// Sent to `embeddings.url` as a bearer token.
    "embeddings.key" = embeddings.key;
    /// How many numbers a vector shall have, of a model that can shorten its own; 0 means as many as it gives.
    "embeddings.dimensions" = embeddings.dimensions;
    /// Where a listening process finds the pusher, e.g. `http://127.0.0.1:8090`. Not set: no hints are sent, and jobs are
    /// found by looking.
    "pusher.url" = pusher.url;
    /// What a listening process shows the pusher; both have the same. Without it a pusher serves loopback only.
    "pusher.secret" = pusher.secret;
    /// What the pusher at `pusher.url` understands: `auricle`, or the generation of an Omi pusher.
    "pusher.protocol" = pusher.protocol;
    /// Forward audio to the pusher, for whoever there wants it in real time.
    "pusher.audio" = pusher.audio;
    /// Threads for processing ended conversations; 0 means as many as attempts run at once, one a core at most.
    "processing.threads" = processing_threads;
    /// Threads for live sessions; 0 means one a core.
    "sessions.workers" = sessions_workers;
    /// The time zone of users who have set none, in which "tomorrow at five" is understood.
    "user.time_zone" = user_time_zone;
    /// The hour of the next day, in the user's time zone, from which each day is summarised, where anybody was heard: `0` as soon
    /// as it is over. The language model does it, or rules on this machine. Days are also summarised when they are asked for
    /// (`auricle days summarise`). Set it in every process.
    "days.summary" = days_summary;
    /// Each record is posted there once it is made, for every user, in Omi's shape and with `Idempotency-Key`: the same key
    /// is the same record again. Set it in every process. Source: Omi's `memory_created` webhook.
    "webhooks.conversation" = webhooks.conversation;
    /// Words are posted there as they are stored, for every user: by the pusher, or by a process that has none. Source: Omi's
    /// `realtime_transcript` webhook.
    "webhooks.transcript" = webhooks.transcript;
    /// Audio is posted there as it is heard, for every user: by the pusher, which needs `pusher.audio` on the listening side,
    /// or by a process that has none.
    "webhooks.audio" = webhooks.audio;
    /// By this, what goes to the three addresses above is signed (`X-Auricle-Signature`, see docs/webhooks.md). Users' own
    /// webhooks have secrets of their own.
    "webhooks.secret" = webhooks.secret;
    /// Let webhooks go to any address. Without it names must lead to public ones, while `localhost` and private addresses
    /// that are written out as numbers serve in the three addresses above, and not in users' own webhooks.
    "webhooks.allow_private" = webhooks.allow_private;
    /// File of the key that seals what people said, on disk: 32 random bytes as 64 hexadecimal digits or Base64, not readable
    /// by every user of the machine. Whoever loses it loses the texts. Not set, and `protection.key` neither: nothing is
    /// sealed. Every process on one data folder needs the same keys; `docs/protection.md` says more.
    "protection.key_file" = protection.key_file;
    /// The key itself, where secrets come as variables.
    "protection.key" = protection.key;
    /// Files of keys that were used before: they open what they sealed, until all of it is sealed under the present one (`auricle
    /// protect status`). With no present key everything is opened for good.
    "protection.old_key_files" = protection.old_key_files;
    /// How log lines look.
    "log.format" = log.format;
    /// Least severe events that are logged.
    "log.level" = log.level;
}

/// Other names: canonical key, alias in the file (its environment variable and flag follow from it).
const ALIASES: [(&str, &str); 3] = [
    ("limits.jobs_running_max", "processing.max_concurrent"),
    ("limits.fallback_after", "fallback_after"),
    ("speech.engines", "speech.engine"),
];
/// Short flags and variables beside the systematic ones. Source: design section 7.
const SHORT_FLAGS: [(&str, &str); 1] = [("speech.engines", "--speech")];
const SHORT_ENVS: [(&str, &str); 2] =
    [("speech.engines", "AURICLE_SPEECH"), ("auth.admin_key", "AURICLE_ADMIN_KEY")];
/// Keys whose value is never shown.
const SECRETS: [&str; 9] = [
    "auth.admin_key",
    "embeddings.key",
    "llm.key",
    "protection.key",
    "pusher.secret",
    "speech.deepgram_key",
    "speech.soniox_key",
    "speech.speechmatics_key",
    "webhooks.secret",
];
/// Keys of addresses that may hold secrets: only scheme and host are shown.
const ADDRESSES: [&str; 8] = [
    "embeddings.url",
    "llm.url",
    "speech.deepgram_url",
    "speech.soniox_url",
    "speech.speechmatics_url",
    "webhooks.conversation",
    "webhooks.transcript",
    "webhooks.audio",
];
/// Keys whose default depends on the machine.
const DEFAULTS: [(&str, &str); 1] = [("data_dir", "$XDG_DATA_HOME/auricle or ~/.local/share/auricle")];

static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    // Not `Config::default()`: that needs this table.
    let own = OWN.iter().map(|own| Key::new(own.name, own.doc, Slot::Own(own.slot)));
    let mut limits = Limits::default();
    let bounds = limits.bounds().into_iter();
    let limits = bounds.map(|(name, doc, _)| Key::new(&format!("limits.{name}"), doc, Slot::Limit(name)));
    own.chain(limits.collect::<Vec<_>>()).collect()
});

/// Every key, in the order of the documentation.
pub fn keys() -> &'static [Key] {
    &KEYS
}

fn env_of(name: &str) -> String {
    format!("AURICLE_{}", name.replace('.', "_").to_uppercase())
}

fn flag_of(name: &str) -> String {
    format!("--{}", name.replace(['.', '_'], "-"))
}

fn of<'a>(table: &'a [(&str, &str)], name: &'a str) -> impl Iterator<Item = String> + 'a {
    table.iter().filter(move |(key, _)| *key == name).map(|(_, other)| (*other).to_owned())
}

impl Key {
    fn new(name: &str, doc: &str, slot: Slot) -> Self {
        let aliases: Vec<_> = of(&ALIASES, name).collect();
        let names = || std::iter::once(name).chain(aliases.iter().map(String::as_str));
        let secret = SECRETS.contains(&name);
        let flags =
            if secret { Vec::new() } else { names().map(flag_of).chain(of(&SHORT_FLAGS, name)).collect() };
        let mut key = Self {
            name: name.to_owned(),
            envs: names().map(env_of).chain(of(&SHORT_ENVS, name)).collect(),
            flags,
            doc: doc.split_whitespace().collect::<Vec<_>>().join(" "),
            form: String::new(),
            default: String::new(),
            secret,
            aliases,
            slot,
        };
        let mut blank = Config::untouched();
        key.form = key.form_in(&mut blank);
        key.default = of(&DEFAULTS, name).next().unwrap_or_else(|| key.show_in(&mut blank));
        key
    }

    /// Takes a value's text; otherwise says what was expected.
    pub(super) fn set(&self, config: &mut Config, text: &str) -> Result<(), String> {
        let taken = match self.slot {
            Slot::Own(slot) => slot(config).take(text),
            Slot::Limit(name) => {
                with_bound(&mut config.limits, name, |bound| parse_bound(bound, is_bytes(name), text))
            }
        };
        taken.ok_or_else(|| self.form.clone())
    }

    /// The value in the form in which it can be given; stars for a secret; of a webhook's address only scheme and host; empty
    /// for none.
    pub fn show(&self, config: &Config) -> String {
        let value = self.value(config);
        // What `llm.url` may not hold is refused; its path is not secret.
        if self.name.starts_with("webhooks.") && !self.secret { self.shown(&value) } else { value }
    }

    /// The same with all of a webhook's address.
    pub(super) fn value(&self, config: &Config) -> String {
        self.show_in(&mut config.clone())
    }

    /// A text that was given for this key, as messages may repeat it.
    pub(super) fn shown(&self, text: &str) -> String {
        if self.secret {
            Secret::HIDDEN.to_owned()
        } else if ADDRESSES.contains(&self.name.as_str()) && !text.is_empty() {
            without_secrets(text)
        } else {
            text.to_owned()
        }
    }

    fn show_in(&self, config: &mut Config) -> String {
        match self.slot {
            Slot::Own(slot) => slot(config).show(),
            Slot::Limit(name) => {
                with_bound(&mut config.limits, name, |bound| show_bound(&bound, is_bytes(name)))
            }
        }
    }

    fn form_in(&self, config: &mut Config) -> String {
        match self.slot {
            Slot::Own(slot) => slot(config).form(),
            Slot::Limit(name) => with_bound(&mut config.limits, name, |bound| match bound {
                Bound::Duration(_) => "a time above 0 and up to 30d, e.g. 250ms, 5s, 2m or 4h".to_owned(),
                _ if is_bytes(name) => {
                    "a size above 0 and up to 1024GiB, e.g. 512KiB, 64MiB or 2GiB".to_owned()
                }
                _ => "a whole number from 1 to 1000000".to_owned(),
            }),
        }
    }

    /// Whether its value is on or off, so that a flag may stand alone.
    pub fn is_switch(&self) -> bool {
        self.form == "true or false"
    }
}

/// A bound counts bytes exactly if its name says so.
fn is_bytes(name: &str) -> bool {
    name.contains("_bytes_")
}

fn with_bound<T>(limits: &mut Limits, name: &str, act: impl FnOnce(Bound<'_>) -> T) -> T {
    let (_, _, bound) = limits
        .bounds()
        .into_iter()
        .find(|(bound, _, _)| *bound == name)
        .expect("the table is made from the bounds");
    act(bound)
}

const COUNT_MAX: u64 = 1_000_000;
const BYTES_MAX: u64 = 1 << 40;
const DURATION_MAX: Duration = Duration::from_secs(30 * 86_400);

/// No bound may be 0: a queue without room or a wait without time is a stopped server.
fn parse_bound(bound: Bound<'_>, bytes: bool, text: &str) -> Option<()> {
    let number = || match bytes {
        true => parse_bytes(text).filter(|n| (1..=BYTES_MAX).contains(n)),
        false => whole(text).filter(|n| (1..=COUNT_MAX).contains(n)),
    };
    match bound {
        Bound::Duration(kept) => {
            *kept = parse_duration(text).filter(|d| !d.is_zero() && *d <= DURATION_MAX)?;
        }
        Bound::Usize(kept) => *kept = usize::try_from(number()?).ok()?,
        Bound::U32(kept) => *kept = u32::try_from(number()?).ok()?,
        Bound::U64(kept) => *kept = number()?,
    }
    Some(())
}

fn show_bound(bound: &Bound<'_>, bytes: bool) -> String {
    let number = match bound {
        Bound::Duration(kept) => return show_duration(**kept),
        Bound::Usize(kept) => **kept as u64,
        Bound::U32(kept) => u64::from(**kept),
        Bound::U64(kept) => **kept,
    };
    if bytes { show_bytes(number) } else { number.to_string() }
}
