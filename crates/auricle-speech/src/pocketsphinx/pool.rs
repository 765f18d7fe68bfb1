//! The recognisers' threads and the streams that wait for one.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use auricle_core::Word;

use super::ffi::{Decoder, HeardWord, Sphinx};
use super::stream::Shared;
use crate::engine::EngineError;
use crate::sentence;

/// Idle recognisers look after streams whose events did not fit this often.
const IDLE: Duration = Duration::from_millis(100);
/// How long a recogniser waits for more of a stretch that is being spoken before it looks whether the stream is still there.
const MORE_WAIT: Duration = Duration::from_millis(200);
/// Words that may still change are told each time this much more of a stretch was heard, in samples: half a second.
const INTERIM_EVERY: usize = auricle_audio::vad::RATE_HZ as usize / 2;
/// Recogniser frames a second.
const FRAMES_PER_SEC: f64 = 100.0;

/// The pool. Its threads end when the last stream and the engine have let go of it.
pub(super) struct Pool {
    state: Mutex<State>,
    work: Condvar,
    decoders: usize,
}

struct State {
    /// Streams with a stretch to decode, in order of asking; each at most once.
    waiting: VecDeque<Arc<Shared>>,
    /// Recognisers on stretches that are still being spoken.
    streaming: usize,
    /// Streams whose events did not fit.
    stalled: Vec<Weak<Shared>>,
}

impl Pool {
    pub(super) fn start(
        sphinx: Arc<Sphinx>,
        options: &'static [(&'static str, &'static str)],
        decoders: usize,
    ) -> Result<Arc<Self>, EngineError> {
        let state = State { waiting: VecDeque::new(), streaming: 0, stalled: Vec::new() };
        let pool = Arc::new(Self { state: Mutex::new(state), work: Condvar::new(), decoders });
        for index in 0..decoders {
            let (sphinx, weak) = (Arc::clone(&sphinx), Arc::downgrade(&pool));
            std::thread::Builder::new()
                .name(format!("recogniser-{index}"))
                .spawn(move || run(&weak, &sphinx, options))
                .map_err(|error| {
                    EngineError::Broken(format!("cannot start a recogniser's thread: {error}"))
                })?;
        }
        Ok(pool)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a stream that has a stretch. The caller makes sure that it is queued once.
    pub(super) fn ask(&self, stream: Arc<Shared>) {
        self.state().waiting.push_back(stream);
        self.work.notify_all();
    }

    /// Says that a stretch that is waited for has grown or ended.
    pub(super) fn notify(&self) {
        self.work.notify_all();
    }

    pub(super) fn stalled(&self, stream: &Arc<Shared>) {
        self.state().stalled.push(Arc::downgrade(stream));
    }

    /// The next stream to work for, and whether its stretch is still being spoken.
    fn next(&self) -> Option<(Arc<Shared>, bool)> {
        let mut state = self.state();
        state.waiting.retain(|stream| !stream.is_cancelled());
        if let Some(at) = state.waiting.iter().position(|stream| stream.has_ended_stretch()) {
            return state.waiting.remove(at).map(|stream| (stream, false));
        }
        let may_stream = state.streaming < self.decoders.saturating_sub(1).max(1);
        if may_stream && let Some(stream) = state.waiting.pop_front() {
            state.streaming += 1;
            return Some((stream, true));
        }
        let stalled = std::mem::take(&mut state.stalled);
        let (mut state, _) = self.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
        let still = stalled
            .into_iter()
            .filter(|stream| stream.upgrade().is_some_and(|stream| !stream.flush_events()));
        let still: Vec<_> = still.collect();
        state.stalled.extend(still);
        None
    }

    fn wait_for_more(&self) {
        let state = self.state();
        drop(self.work.wait_timeout(state, MORE_WAIT).unwrap_or_else(PoisonError::into_inner));
    }
}

fn run(pool: &Weak<Pool>, sphinx: &Arc<Sphinx>, options: &[(&str, &str)]) {
    let mut decoder = None;
    while let Some(pool) = pool.upgrade() {
        let Some((stream, streaming)) = pool.next() else { continue };
        let heard = catch_unwind(AssertUnwindSafe(|| {
            let decoder = match &mut decoder {
                Some(decoder) => decoder,
                none => none.insert(Decoder::new(sphinx, options)?),
            };
            decode(&pool, decoder, &stream)
        }));
        if streaming {
            pool.state().streaming -= 1;
            pool.work.notify_all();
        }
        let outcome = heard.unwrap_or_else(|_| Err(EngineError::Broken("the recogniser failed".into())));
        if outcome.is_err() {
            // A recogniser that failed once is made anew.
            decoder = None;
        }
        match stream.decoded(outcome) {
            stream_next @ (super::stream::Next::Again | super::stream::Next::Idle) => {
                if matches!(stream_next, super::stream::Next::Again) {
                    pool.ask(Arc::clone(&stream));
                }
            }
        }
        if !stream.flush_events() {
            pool.stalled(&stream);
        }
    }
}

/// Decodes the stream's first stretch to its end. Words are in seconds of 16 kHz audio from the stream's first sample.
fn decode(pool: &Pool, decoder: &mut Decoder, stream: &Shared) -> Result<Vec<Word>, EngineError> {
    let Some(start) = stream.begin_stretch() else { return Ok(Vec::new()) };
    decoder.start()?;
    let (mut position, mut told_at) = (0, 0);
    loop {
        let (audio, ended) = stream.take_audio(position);
        position += audio.len();
        // Small steps, so that a stream that is dropped frees its recogniser soon.
        for chunk in audio.chunks(4_000) {
            if stream.is_cancelled() {
                return Ok(Vec::new());
            }
            decoder.hear(chunk)?;
        }
        if stream.is_cancelled() || (ended && audio.is_empty()) {
            break;
        }
        if !ended && !audio.is_empty() && stream.tells_interim() && position - told_at >= INTERIM_EVERY {
            let mut words = spoken_words(decoder, start);
            // The first word is told as soon as there is one.
            told_at = if words.is_empty() { told_at } else { position };
            sentence::begin(&mut words);
            stream.interim(words);
        }
        if audio.is_empty() {
            pool.wait_for_more();
        }
    }
    decoder.end();
    let mut words = spoken_words(decoder, start);
    sentence::finish(&mut words);
    Ok(words)
}

/// What it has heard, or believes so far.
fn spoken_words(decoder: &mut Decoder, start_sample: u64) -> Vec<Word> {
    decoder.words().into_iter().filter_map(|word| spoken(word, start_sample)).collect()
}

/// A word as people write it; `None` for silence and noise.
fn spoken(word: HeardWord, start_sample: u64) -> Option<Word> {
    let text = word.text.split('(').next().unwrap_or_default();
    if text.is_empty() || text.starts_with(['<', '[', '+']) {
        return None;
    }
    let zero = start_sample as f64 / f64::from(auricle_audio::vad::RATE_HZ);
    Some(Word {
        text: text.to_owned(),
        start: zero + f64::from(word.first_frame) / FRAMES_PER_SEC,
        end: zero + f64::from(word.last_frame + 1) / FRAMES_PER_SEC,
        speaker: 0,
        confidence: None,
    })
}
