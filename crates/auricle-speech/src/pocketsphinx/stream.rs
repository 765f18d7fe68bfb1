//! One stream: cuts its audio into stretches, and keeps them until a recogniser has decided them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use auricle_audio::resample::Resampler;
use auricle_audio::vad::{Endpointer, EndpointerConfig, RATE_HZ, VadEvent};
use auricle_core::{Share, Word};

use super::pool::Pool;
use crate::engine::{EngineError, Event, EventSender, Stream, StreamSpec};
use crate::outlet::Outlet;

/// Coverage of silence is told each time this much more audio has been heard.
const COVER_EVERY: u64 = RATE_HZ as u64 / 2;
/// A stretch that ended this much audio ago and has no recogniser yet makes the stream busy.
const BUSY_AFTER: u64 = RATE_HZ as u64 * 3 / 2;
/// Times that a stretch is decoded before the stream fails.
const TRIES_MAX: u32 = 2;

/// A stretch of speech, at 16 kHz.
struct Stretch {
    start: u64,
    audio: Vec<i16>,
    /// Position behind its last sample, once it has ended.
    end: Option<u64>,
    tries: u32,
}

/// What the session's thread and the recognisers share.
pub(super) struct Shared {
    state: Mutex<State>,
    cancelled: AtomicBool,
    rate_hz: u32,
    /// Words that may still change are told.
    interim: bool,
}

struct State {
    stretches: VecDeque<Stretch>,
    /// A recogniser has the first stretch, or it is queued for one.
    claimed: bool,
    decoding: bool,
    /// Audio pushed, in samples at 16 kHz.
    heard: u64,
    /// Everything before this is not speech unless a stretch says so.
    silent_until: u64,
    covered: u64,
    busy: bool,
    finished: bool,
    over: bool,
    /// The last that was told of the first stretch were words that may still change.
    changing: bool,
    outlet: Outlet,
    /// The audio of `stretches`.
    held: Share,
}

/// What follows a decoded stretch.
pub(super) enum Next {
    /// Another stretch waits.
    Again,
    /// Nothing waits.
    Idle,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(super) fn tells_interim(&self) -> bool {
        self.interim
    }

    /// Tells what a recogniser believes of the first stretch so far.
    pub(super) fn interim(&self, words: Vec<Word>) {
        let mut state = self.state();
        if state.over || (words.is_empty() && !state.changing) {
            return;
        }
        state.changing = !words.is_empty();
        state.outlet.send(Event::Interim(words));
    }

    pub(super) fn has_ended_stretch(&self) -> bool {
        self.state().stretches.front().is_some_and(|stretch| stretch.end.is_some())
    }

    /// Takes up the first stretch and says where it begins.
    pub(super) fn begin_stretch(&self) -> Option<u64> {
        let mut state = self.state();
        state.decoding = true;
        let stretch = state.stretches.front_mut()?;
        stretch.tries += 1;
        Some(stretch.start)
    }

    /// The first stretch's audio from `position` on, and whether it has ended.
    pub(super) fn take_audio(&self, position: usize) -> (Vec<i16>, bool) {
        let state = self.state();
        match state.stretches.front() {
            Some(stretch) => {
                (stretch.audio.get(position..).unwrap_or_default().to_vec(), stretch.end.is_some())
            }
            None => (Vec::new(), true),
        }
    }

    /// Takes in what a recogniser made of the first stretch.
    pub(super) fn decoded(&self, outcome: Result<Vec<Word>, EngineError>) -> Next {
        let mut state = self.state();
        state.decoding = false;
        state.claimed = false;
        let next = self.settle(&mut state, outcome);
        state.count();
        next
    }

    fn settle(&self, state: &mut State, outcome: Result<Vec<Word>, EngineError>) -> Next {
        match outcome {
            Ok(words) => {
                state.stretches.pop_front();
                let changing = std::mem::take(&mut state.changing);
                if !words.is_empty() {
                    state.outlet.send(Event::Words(words));
                } else if changing {
                    state.outlet.send(Event::Interim(words));
                }
                if std::mem::take(&mut state.busy) && state.stretches.len() <= 1 {
                    state.outlet.send(Event::Resumed);
                }
            }
            Err(error) => {
                metrics::counter!("auricle_recogniser_failures_total").increment(1);
                let tried = state.stretches.front().map_or(TRIES_MAX, |stretch| stretch.tries);
                if tried >= TRIES_MAX {
                    state.over = true;
                    state.stretches.clear();
                    state.outlet.send(Event::Failed(error));
                    return Next::Idle;
                }
            }
        }
        state.tell(self.rate_hz, true);
        if state.stretches.is_empty() {
            return Next::Idle;
        }
        state.claimed = true;
        Next::Again
    }

    /// Sends what waits. False while something still does.
    pub(super) fn flush_events(&self) -> bool {
        self.state().outlet.flush()
    }
}

impl State {
    /// Tells how far everything is decided, and the end if it has come.
    fn tell(&mut self, rate_hz: u32, now: bool) {
        if self.over {
            return;
        }
        let until = self.stretches.front().map_or(self.silent_until, |stretch| stretch.start);
        if until > self.covered && (now || until - self.covered >= COVER_EVERY) {
            self.covered = until;
            self.outlet.send(Event::Covered { until_sample: at_rate(until, rate_hz) });
        }
        if self.finished && self.stretches.is_empty() {
            self.over = true;
            self.outlet.send(Event::Finished);
        }
    }

    fn count(&mut self) {
        let bytes = self.backlog() * size_of::<i16>();
        self.held.set(bytes);
    }

    fn backlog(&self) -> usize {
        self.stretches.iter().map(|stretch| stretch.audio.len()).sum()
    }
}

/// A position at 16 kHz as one at the stream's own rate.
fn at_rate(position: u64, rate_hz: u32) -> u64 {
    position * u64::from(rate_hz) / u64::from(RATE_HZ)
}

/// The session's side.
pub(super) struct SphinxStream {
    pool: Arc<Pool>,
    shared: Arc<Shared>,
    resampler: Resampler,
    endpointer: Endpointer,
    /// The last of the audio, for pre-rolls.
    recent: VecDeque<i16>,
    recent_max: usize,
    backlog_max: usize,
    /// Where audio began to be left out, for want of room.
    skipping_from: Option<u64>,
    pcm: Vec<i16>,
    events: Vec<VadEvent>,
}

impl SphinxStream {
    pub(super) fn new(
        pool: Arc<Pool>,
        spec: &StreamSpec,
        events: EventSender,
        backlog_max: usize,
        held: Share,
    ) -> Self {
        let config = EndpointerConfig::default();
        let state = State {
            stretches: VecDeque::new(),
            claimed: false,
            decoding: false,
            heard: 0,
            silent_until: 0,
            covered: 0,
            busy: false,
            finished: false,
            over: false,
            changing: false,
            outlet: Outlet::new(events),
            held,
        };
        Self {
            pool,
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                cancelled: AtomicBool::new(false),
                rate_hz: spec.sample_rate_hz,
                interim: spec.interim,
            }),
            resampler: Resampler::new(spec.sample_rate_hz, RATE_HZ),
            endpointer: Endpointer::new(config),
            recent: VecDeque::new(),
            recent_max: config.pre_roll as usize + 8_000,
            backlog_max: backlog_max.max(RATE_HZ as usize * 30),
            skipping_from: None,
            pcm: Vec::new(),
            events: Vec::new(),
        }
    }

    fn hear(&mut self, pcm: &[i16]) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        if state.over {
            return true;
        }
        let before = state.heard;
        state.heard += pcm.len() as u64;
        let room = if self.skipping_from.is_some() { self.backlog_max / 2 } else { self.backlog_max };
        if state.backlog() > room {
            self.skip(&mut state, before);
            return false;
        }
        if let Some(from) = self.skipping_from.take() {
            let samples = before - from;
            metrics::counter!("auricle_recogniser_skipped_samples_total").increment(samples);
            let rate = shared.rate_hz;
            state
                .outlet
                .send(Event::Skipped { from_sample: at_rate(from, rate), samples: at_rate(samples, rate) });
        }
        self.recent.extend(pcm);
        self.endpointer.push(pcm, &mut self.events);
        if let Some(open) = state.stretches.back_mut().filter(|stretch| stretch.end.is_none()) {
            open.audio.extend_from_slice(pcm);
        }
        self.apply(&mut state);
        state.count();
        while self.recent.len() > self.recent_max {
            self.recent.pop_front();
        }
        state.silent_until = self.endpointer.silent_until();
        self.look_after(&mut state);
        true
    }

    /// Opens and ends stretches as the endpointer has found them.
    fn apply(&mut self, state: &mut State) {
        for event in self.events.drain(..) {
            match event {
                VadEvent::SpeechStart { at_sample } => {
                    let oldest = state.heard - self.recent.len() as u64;
                    let from = at_sample.max(oldest);
                    let audio = self.recent.iter().skip((from - oldest) as usize).copied().collect();
                    state.stretches.push_back(Stretch { start: from, audio, end: None, tries: 0 });
                }
                VadEvent::SpeechEnd { at_sample, .. } => {
                    if let Some(open) = state.stretches.back_mut().filter(|stretch| stretch.end.is_none()) {
                        // Samples heard behind the end belong to what follows.
                        open.audio.truncate(at_sample.saturating_sub(open.start) as usize);
                        open.end = Some(at_sample);
                    }
                }
            }
        }
    }

    /// Asks for a recogniser, says whether the stream waits, and tells coverage.
    fn look_after(&self, state: &mut State) {
        if !state.stretches.is_empty() {
            if state.claimed {
                self.pool.notify();
            } else {
                state.claimed = true;
                self.pool.ask(Arc::clone(&self.shared));
            }
        }
        let waits_since = state.stretches.front().and_then(|stretch| stretch.end).filter(|_| !state.decoding);
        if let Some(since) = waits_since
            && !state.busy
            && state.heard.saturating_sub(since) >= BUSY_AFTER
        {
            state.busy = true;
            let waiting = Duration::from_secs_f64((state.heard - since) as f64 / f64::from(RATE_HZ));
            state.outlet.send(Event::Busy { waiting });
        }
        state.tell(self.shared.rate_hz, false);
        state.outlet.flush();
    }

    fn skip(&mut self, state: &mut State, before: u64) {
        if self.skipping_from.is_none() {
            self.skipping_from = Some(before);
            self.end_stretch(state, before);
        }
        // What is left out ends the stretch before it and begins with silence after it.
        self.recent.clear();
        let mut endpointer = Endpointer::new(EndpointerConfig::default());
        endpointer.skip_to(state.heard);
        self.endpointer = endpointer;
        self.look_after(state);
    }

    fn end_stretch(&mut self, state: &mut State, at: u64) {
        self.endpointer.flush(&mut self.events);
        self.events.clear();
        if let Some(open) = state.stretches.back_mut().filter(|stretch| stretch.end.is_none()) {
            open.end = Some(at);
        }
        state.silent_until = at;
    }
}

impl Stream for SphinxStream {
    fn push(&mut self, pcm: &[i16]) -> bool {
        let mut at_16k = std::mem::take(&mut self.pcm);
        at_16k.clear();
        self.resampler.push(pcm, &mut at_16k);
        let taken = self.hear(&at_16k);
        self.pcm = at_16k;
        taken
    }

    fn finish(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        let heard = state.heard;
        self.end_stretch(&mut state, heard);
        state.finished = true;
        self.look_after(&mut state);
        let rest = state.outlet.waiting() > 0;
        drop(state);
        if rest {
            self.pool.stalled(&shared);
        }
    }

    fn flush(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        let heard = state.heard;
        self.end_stretch(&mut state, heard);
        self.look_after(&mut state);
        state.tell(shared.rate_hz, true);
    }
}

impl Drop for SphinxStream {
    fn drop(&mut self) {
        self.shared.cancelled.store(true, Ordering::Relaxed);
        self.pool.notify();
    }
}
