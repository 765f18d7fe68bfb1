//! What a model can do, and where models come from.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::words::Pass;
use crate::engine::EngineError;

/// Tells a decoder to stop. Set once.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    #[cfg(any(test, feature = "whisper"))]
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The flag itself, which lives as long as a decoder looks at it.
    #[cfg(feature = "whisper")]
    pub(super) fn flag(&self) -> &AtomicBool {
        &self.0
    }
}

/// What one pass is asked for.
#[cfg_attr(not(feature = "whisper"), expect(dead_code, reason = "a decoder reads it"))]
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    /// 16 kHz, at most [`super::stretch::WINDOW_MAX`] samples.
    pub(super) pcm: &'a [i16],
    /// A code that the model knows; `None`: it shall find out.
    pub(super) language: Option<&'a str>,
    /// More of it is heard soon: fast matters more than right.
    pub(super) partial: bool,
    /// Threads.
    pub(super) threads: usize,
}

/// A decoder. Stays on its thread.
pub(super) trait Decode {
    /// Hears a window. Returns soon after `stop` is set, with whatever outcome.
    fn pass(&mut self, ask: Ask<'_>, stop: &Stop) -> Result<Pass, EngineError>;
}

/// A model of which decoders are made.
pub(super) trait Load: Send + Sync + 'static {
    /// Loads the model if it is not loaded, and makes a decoder. Takes seconds.
    fn decoder(&self) -> Result<Box<dyn Decode>, EngineError>;
}
