//! A voice activity gate around another engine: silence is heard here and not sent on.
//!
//! For engines that are paid by the second. [`machine`] finds speech and says what to send, [`map`] remembers where each sent
//! sample came from, the stream drives both: it hands audio to the inner engine, flushes it where speech ends, and puts what it
//! says back on the stream's own clock.
//! Leaves to others: what the inner engine does to keep its connection while nothing is sent.
//! Invariants: voiced audio is sent, in order and once, with what came just before and after it; positions told never go back;
//! neither the map nor the audio held back grows without bound.

mod machine;
mod map;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use self::stream::GateStream;
use crate::engine::{Engine, EngineError, EventSender, Stream, StreamSpec};

/// When the gate stands before an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GateMode {
    /// Before engines that are paid for what is sent ([`Engine::is_paid`]).
    #[default]
    Auto,
    /// Before every engine.
    On,
    /// Before none.
    Off,
}

/// How speech is told from silence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GateConfig {
    /// Before which engines.
    pub mode: GateMode,
    /// Audio before the first voiced frame that is sent with it, so that soft beginnings are heard. More costs more.
    pub pre_roll: Duration,
    /// Silence that ends a stretch of speech; it is sent. Shorter cuts sentences at pauses, longer costs more.
    pub hang_over: Duration,
    /// Score of a frame, 0 to 1, from which it counts as voice while nobody speaks. Lower hears softer voices and more noise.
    pub threshold: f32,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            mode: GateMode::Auto,
            pre_roll: Duration::from_millis(400),
            hang_over: Duration::from_millis(600),
            threshold: 0.75,
        }
    }
}

/// Puts the gate before `engine` if `config` says so.
pub fn around(engine: Arc<dyn Engine>, config: &GateConfig) -> Arc<dyn Engine> {
    let gated = match config.mode {
        GateMode::Auto => engine.is_paid(),
        GateMode::On => true,
        GateMode::Off => false,
    };
    if gated { Arc::new(Gate::new(engine, *config)) } else { engine }
}

/// An engine behind the gate. Has the inner one's name.
pub struct Gate {
    inner: Arc<dyn Engine>,
    config: GateConfig,
    tally: Arc<Tally>,
}

impl Gate {
    /// Around `engine`, whatever `config.mode` says.
    pub fn new(engine: Arc<dyn Engine>, config: GateConfig) -> Self {
        let tally = Arc::new(Tally::new(engine.name()));
        Self { inner: engine, config, tally }
    }

    /// Audio of all streams so far.
    pub fn saved(&self) -> Saved {
        self.tally.read()
    }
}

impl Engine for Gate {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn open(&self, spec: StreamSpec, events: EventSender) -> Result<Box<dyn Stream>, EngineError> {
        let (sender, inner_events) = stream::inner_channel();
        let inner = self.inner.open(spec.clone(), sender)?;
        let stream =
            GateStream::start(inner, &spec, &self.config, inner_events, events, Arc::clone(&self.tally))?;
        Ok(Box::new(stream))
    }

    fn check(&self) -> Result<String, EngineError> {
        self.inner.check().map(|found| format!("{found}; silence is not sent (speech.gate)"))
    }

    fn is_paid(&self) -> bool {
        self.inner.is_paid()
    }
}

/// What the gate has let through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Audio that came in.
    pub heard: Duration,
    /// Audio that went on to the engine.
    pub sent: Duration,
}

/// Counts audio in microseconds, so that whole seconds can be shown without losing the rest of each stream.
struct Tally {
    heard: AtomicU64,
    sent: AtomicU64,
    engine: &'static str,
    /// Made when they are first needed: engines are built before the process has its recorder.
    counters: OnceLock<[metrics::Counter; 3]>,
}

impl Tally {
    fn new(engine: &'static str) -> Self {
        Self { heard: AtomicU64::new(0), sent: AtomicU64::new(0), engine, counters: OnceLock::new() }
    }

    fn counters(&self) -> &[metrics::Counter; 3] {
        self.counters.get_or_init(|| {
            let engine = self.engine;
            ["heard", "sent", "saved"].map(
                |part| metrics::counter!("auricle_gate_audio_seconds_total", "engine" => engine, "part" => part),
            )
        })
    }

    fn add(&self, heard: u64, sent: u64, rate_hz: u32) {
        let micros = |samples: u64| samples * 1_000_000 / u64::from(rate_hz.max(1));
        let heard = self.heard.fetch_add(micros(heard), Ordering::Relaxed) + micros(heard);
        let sent = self.sent.fetch_add(micros(sent), Ordering::Relaxed) + micros(sent);
        for (counter, total) in self.counters().iter().zip([heard, sent, heard.saturating_sub(sent)]) {
            counter.absolute(total / 1_000_000);
        }
    }

    fn read(&self) -> Saved {
        let time = |micros: &AtomicU64| Duration::from_micros(micros.load(Ordering::Relaxed));
        Saved { heard: time(&self.heard), sent: time(&self.sent) }
    }
}
