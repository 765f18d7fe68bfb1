//! PocketSphinx: recognition on this machine without any account. English (en-us), draft quality.
//!
//! A pool of recognisers, each with a thread of its own, is lent to streams one stretch of speech at a time. A stream finds its
//! stretches itself (`auricle_audio::vad`), so silence costs no recogniser.
//! Policy, "streaming when idle, batch when busy": a stretch that has ended goes first; one that is still being spoken is
//! begun only if no ended one waits and another recogniser stays free for those (or there is only one).

mod ffi;
mod pool;
mod stream;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use auricle_core::Account;

use self::ffi::Sphinx;
use self::pool::Pool;
use self::stream::SphinxStream;
use crate::PocketSphinxConfig;
use crate::engine::{Engine, EngineError, EventSender, Stream, StreamSpec};

/// The engine. Loads the library when the first stream is opened.
pub struct PocketSphinx {
    library: Option<PathBuf>,
    model: Option<PathBuf>,
    decoders: usize,
    backlog_samples: usize,
    account: Account,
    pool: std::sync::Mutex<Option<Arc<Pool>>>,
}

/// Two passes: the single-pass setting is faster at the end of an utterance and gets 3 more words in 100 wrong.
const OPTIONS: &[(&str, &str)] = &[("-remove_noise", "yes")];

impl PocketSphinx {
    /// Nothing is loaded yet.
    pub fn new(config: &PocketSphinxConfig) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            library: config.library.clone(),
            model: config.model_dir.clone(),
            decoders: config.decoders.map_or_else(cores, NonZeroUsize::get),
            backlog_samples: config.backlog_secs_max as usize * auricle_audio::vad::RATE_HZ as usize,
            account: Account::default(),
            pool: std::sync::Mutex::new(None),
        }
    }

    /// Counts audio that waits for a recogniser in `account`.
    #[must_use]
    pub fn counted_in(mut self, account: Account) -> Self {
        self.account = account;
        self
    }

    fn pool(&self) -> Result<Arc<Pool>, EngineError> {
        let mut pool = self.pool.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(pool) = &*pool {
            return Ok(Arc::clone(pool));
        }
        let sphinx = Sphinx::load(self.library.as_deref(), self.model.as_deref())?;
        let started = Pool::start(sphinx, OPTIONS, self.decoders)?;
        Ok(Arc::clone(pool.insert(started)))
    }
}

impl Engine for PocketSphinx {
    fn name(&self) -> &'static str {
        "pocketsphinx"
    }

    fn open(&self, spec: StreamSpec, events: EventSender) -> Result<Box<dyn Stream>, EngineError> {
        let english = spec.language == "multi" || spec.language == "en" || spec.language.starts_with("en-");
        if !english {
            return Err(EngineError::Refused(format!(
                "PocketSphinx hears English only (en, en-*, multi), not `{}`; choose another engine or send transcripts",
                spec.language
            )));
        }
        let held = self.account.share();
        Ok(Box::new(SphinxStream::new(self.pool()?, &spec, events, self.backlog_samples, held)))
    }

    /// A stretch of speech is decided as a whole, once it has ended: see `EndpointerConfig::stretch_max`.
    fn patience(&self) -> std::time::Duration {
        std::time::Duration::from_secs(45)
    }

    fn check(&self) -> Result<String, EngineError> {
        let sphinx = Sphinx::load(self.library.as_deref(), self.model.as_deref())?;
        let mut decoder = ffi::Decoder::new(&sphinx, OPTIONS)?;
        decoder.start()?;
        decoder.hear(&[0; 8_000])?;
        decoder.end();
        Ok(format!("English, model at {}, {} recognisers", sphinx.model().display(), self.decoders))
    }
}

#[cfg(test)]
mod tests;
