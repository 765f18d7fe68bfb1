//! Whisper: recognition on this machine by a model in whisper.cpp's format. Any language of the model's, with punctuation.
//!
//! A stream finds stretches of speech itself (`auricle_audio::vad`); silence is never transcribed, which is what Whisper invents
//! text for. While somebody speaks, passes over the growing stretch are made, and what two in a row agree on is final ([`agree`]);
//! when a pause comes the last pass settles the rest. A pool of decoders, which share one model in memory, makes the passes:
//! ended speech first, each stream in its turn. [`guard`] leaves out what nobody said.
//! Leaves to others: files of models and where they come from ([`catalog`] knows the published ones; `auricle models` fetches).
//! Invariants: no pass runs on a session's thread; one that takes too long is stopped, told, and if it hangs left behind with
//! its thread; audio that waits is bounded.

mod agree;
pub mod catalog;
mod decode;
mod file;
mod guard;
#[cfg(feature = "whisper")]
mod model;
mod pool;
mod shared;
mod stream;
mod stretch;
#[cfg(test)]
mod tests;
mod words;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use auricle_core::Account;

use self::decode::{Ask, Load, Stop};
use self::file::Header;
use self::pool::{Pool, Size};
use self::stream::{Manner, WhisperStream};
use self::stretch::WINDOW_MAX;
use crate::engine::{Engine, EngineError, EventSender, Stream, StreamSpec};

/// Settings of Whisper.
#[derive(Clone, Debug)]
pub struct WhisperConfig {
    /// The model's file: see [`catalog::resolve`].
    pub model: PathBuf,
    /// Decoders at once, each with memory of its own beside the shared model. Unset: one for two cores.
    pub decoders: Option<NonZeroUsize>,
    /// Least speech between two passes over a stretch that goes on. Shorter shows words sooner and costs more.
    pub step: Duration,
    /// Longest time of one pass. Full: it is stopped, and its stream is told.
    pub pass_max: Duration,
    /// Speech of one stream that waits for a decoder, in seconds (`limits.engine_backlog_secs_max`). Full: what comes is
    /// skipped and told.
    pub backlog_secs_max: u32,
}

impl Default for WhisperConfig {
    fn default() -> Self {
        Self {
            model: catalog::resolve(None, &PathBuf::from(".")),
            decoders: None,
            step: Duration::from_millis(1_500),
            pass_max: Duration::from_secs(60),
            backlog_secs_max: 60,
        }
    }
}

/// The engine. Loads the model when the first speech is heard.
pub struct Whisper {
    config: WhisperConfig,
    size: Size,
    account: Account,
    load: Option<Arc<dyn Load>>,
    /// Once the file was found right, and decoders run.
    ready: Mutex<Option<(Header, Arc<Pool>)>>,
}

impl Whisper {
    /// Nothing is looked at yet.
    pub fn new(config: &WhisperConfig) -> Self {
        #[cfg(feature = "whisper")]
        let load: Option<Arc<dyn Load>> = Some(Arc::new(model::Model::new(config.model.clone())));
        #[cfg(not(feature = "whisper"))]
        let load = None;
        Self::with(config, load)
    }

    fn with(config: &WhisperConfig, load: Option<Arc<dyn Load>>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let decoders = config.decoders.map_or(cores.div_ceil(2), NonZeroUsize::get);
        let size = Size { decoders, threads: (cores / decoders).max(1), pass_max: config.pass_max };
        let (account, ready) = (Account::default(), Mutex::new(None));
        Self { config: config.clone(), size, account, load, ready }
    }

    /// Counts audio that waits for a decoder in `account`.
    #[must_use]
    pub fn counted_in(mut self, account: Account) -> Self {
        self.account = account;
        self
    }

    fn loader(&self) -> Result<&Arc<dyn Load>, EngineError> {
        self.load.as_ref().ok_or_else(|| {
            EngineError::Unavailable(
                "this program was built without Whisper: build it with `cargo build --release --features whisper`, or \
                 choose another speech.engine"
                    .to_owned(),
            )
        })
    }

    fn ready(&self) -> Result<(Header, Arc<Pool>), EngineError> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((header, pool)) = &*ready {
            return if pool.serves() { Ok((*header, Arc::clone(pool))) } else { Err(pool::all_hang()) };
        }
        let load = Arc::clone(self.loader()?);
        let header = file::header(&self.config.model)?;
        let (header, pool) = ready.insert((header, Pool::start(load, self.size)?));
        Ok((*header, Arc::clone(pool)))
    }

    /// The model's code for what a session asks for; `None`: it finds out.
    fn language(&self, header: Header, asked: &str) -> Result<Option<String>, EngineError> {
        let multi = asked == "multi";
        if header.multilingual {
            return if multi { Ok(None) } else { code(asked).map(|code| Some(code.to_owned())) };
        }
        if multi || asked == "en" || asked.starts_with("en-") {
            return Ok(Some("en".to_owned()));
        }
        Err(EngineError::Refused(format!(
            "the Whisper model {} hears English only, not `{asked}`; choose one without `.en` in its name",
            self.config.model.display()
        )))
    }
}

#[cfg(feature = "whisper")]
fn code(language: &str) -> Result<&'static str, EngineError> {
    model::code(language).ok_or_else(|| {
        EngineError::Refused(format!("Whisper does not know the language `{language}`; ask for `multi`"))
    })
}

#[cfg(not(feature = "whisper"))]
fn code(_: &str) -> Result<&'static str, EngineError> {
    Ok("en")
}

impl Engine for Whisper {
    fn name(&self) -> &'static str {
        "whisper"
    }

    fn open(&self, spec: StreamSpec, events: EventSender) -> Result<Box<dyn Stream>, EngineError> {
        let (header, pool) = self.ready()?;
        let manner = Manner {
            language: self.language(header, &spec.language)?,
            step: self.config.step,
            backlog_max: self.config.backlog_secs_max as usize * auricle_audio::vad::RATE_HZ as usize,
            interim: spec.interim,
        };
        Ok(Box::new(WhisperStream::new(pool, &spec, events, manner, self.account.share())))
    }

    /// Words are decided once two passes agree, at the latest when a window is full and its pass is over: by a decoder that
    /// keeps up in no longer than the window lasts. One that does not keep up says that it is busy.
    fn patience(&self) -> Duration {
        Duration::from_secs_f64(WINDOW_MAX as f64 / f64::from(auricle_audio::vad::RATE_HZ))
            + self.config.pass_max
    }

    fn check(&self) -> Result<String, EngineError> {
        let load = self.loader()?;
        let header = file::header(&self.config.model)?;
        let mut decoder = load.decoder()?;
        let (pcm, threads) = ([0; 16_000], self.size.threads);
        decoder.pass(Ask { pcm: &pcm, language: Some("en"), partial: true, threads }, &Stop::default())?;
        if header.without_weights {
            let model = self.config.model.display();
            return Ok(format!("{model} loads, but has no weights: a file for tests, which hears nothing"));
        }
        let languages = if header.multilingual { "many languages" } else { "English" };
        let Size { decoders, threads, .. } = self.size;
        let model = self.config.model.display();
        Ok(format!("{languages}, model {model}, {decoders} decoders of {threads} threads"))
    }
}
