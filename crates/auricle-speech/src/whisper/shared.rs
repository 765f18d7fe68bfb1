//! What a session's thread and the decoders share of one stream: its stretches of speech, until they are decided.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use auricle_audio::vad::RATE_HZ;
use auricle_core::{Share, Word};

use super::decode::Stop;
use super::pool::Pool;
use super::stream::Manner;
use super::stretch::{Kind, Stretch, Window};
use crate::engine::{EngineError, Event, EventSender};
use crate::outlet::Outlet;

/// Coverage of silence is told each time this much more audio has been heard.
const COVER_EVERY: u64 = RATE_HZ as u64 / 2;
/// A stretch that ended this much audio ago and has no decoder yet makes the stream busy.
const BUSY_AFTER: u64 = RATE_HZ as u64 * 3 / 2;
/// Times that a window is tried before the stream fails.
const TRIES_MAX: u32 = 2;

/// What the session's thread and the decoders share.
pub(super) struct Shared {
    state: Mutex<State>,
    cancelled: AtomicBool,
    pub(super) rate_hz: u32,
    /// A code that the model knows; `None`: it finds out, once a stretch.
    language: Option<String>,
    step: u64,
}

/// Where a stream waits for a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queued {
    No,
    /// Behind those whose speech has ended.
    Partial,
    Ended,
}

/// Locked by both sides, for a copy of a window at most.
pub(super) struct State {
    pub(super) stretches: VecDeque<Stretch>,
    queued: Queued,
    /// Counts places in the queue: an older place than the last one is void.
    asked: u64,
    /// The pass that a decoder makes of the first stretch.
    decoding: Option<(u64, Stop)>,
    /// Least audio between two partial passes: what the last one took, and as much again for others.
    pace: u64,
    pub(super) heard: u64,
    pub(super) silent_until: u64,
    covered: u64,
    busy: bool,
    /// Words that may still change are told.
    interim: bool,
    /// The last that was told were such words.
    changing: bool,
    pub(super) finished: bool,
    pub(super) over: bool,
    pub(super) outlet: Outlet,
    held: Share,
}

/// A place in the queue.
pub(super) struct Place {
    pub(super) stream: Arc<Shared>,
    pub(super) asked: u64,
}

/// A pass to make.
pub(super) struct Job {
    pub(super) stream: Arc<Shared>,
    pub(super) window: Window,
    pub(super) ticket: u64,
    pub(super) stop: Stop,
}

/// What came of it: words in seconds of the stream, and the language.
pub(super) type Outcome = Result<(Vec<Word>, Option<String>), EngineError>;

impl Shared {
    pub(super) fn new(rate_hz: u32, manner: Manner, events: EventSender, held: Share) -> Arc<Self> {
        let state = State {
            stretches: VecDeque::new(),
            queued: Queued::No,
            asked: 0,
            decoding: None,
            pace: 0,
            heard: 0,
            silent_until: 0,
            covered: 0,
            busy: false,
            interim: manner.interim,
            changing: false,
            finished: false,
            over: false,
            outlet: Outlet::new(events),
            held,
        };
        let step = (manner.step.as_secs_f64() * f64::from(RATE_HZ)) as u64;
        Arc::new(Self {
            state: Mutex::new(state),
            cancelled: AtomicBool::new(false),
            rate_hz,
            language: manner.language,
            step,
        })
    }

    /// Nobody listens any more: a decoder at work stops, and the audio goes.
    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        let mut state = self.state();
        if let Some((_, stop)) = &state.decoding {
            stop.set();
        }
        state.stretches.clear();
        state.count();
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// The pass that is due, if one still is and the place `asked` in the queue is the stream's last.
    pub(super) fn take_job(self: &Arc<Self>, asked: u64, ticket: u64) -> Option<Job> {
        let mut state = self.state();
        if state.asked != asked {
            return None;
        }
        state.queued = Queued::No;
        if self.is_cancelled() || state.over || state.decoding.is_some() {
            return None;
        }
        let step = self.step.max(state.pace);
        let stretch = state.stretches.front_mut()?;
        let kind = stretch.due(step)?;
        stretch.tries += 1;
        let mut window = stretch.window(kind);
        window.language = self.language.clone().or(window.language);
        let stop = Stop::default();
        state.decoding = Some((ticket, stop.clone()));
        Some(Job { stream: Arc::clone(self), window, ticket, stop })
    }

    /// Takes in what came of a pass that took `took`. Nothing, if the stream was told that it hangs.
    pub(super) fn decoded(self: &Arc<Self>, pool: &Arc<Pool>, job: &Job, outcome: Outcome, took: Duration) {
        let mut state = self.state();
        if state.decoding.as_ref().is_none_or(|(ticket, _)| *ticket != job.ticket) {
            return;
        }
        state.decoding = None;
        if job.window.kind == Kind::Partial {
            state.pace = (took.as_secs_f64() * 2.0 * f64::from(RATE_HZ)) as u64;
        }
        match outcome {
            Ok((words, language)) => state.settle(&job.window, words, language),
            Err(error) => {
                metrics::counter!("auricle_recogniser_failures_total").increment(1);
                let tries = state.stretches.front().map_or(TRIES_MAX, |stretch| stretch.tries);
                if tries >= TRIES_MAX || matches!(error, EngineError::Unavailable(_)) {
                    state.fail(error);
                }
            }
        }
        state.tell(self.rate_hz, true);
        state.count();
        self.ask_if_due(&mut state, pool);
    }

    /// The pass of this ticket takes too long, or no decoder is left (`None`): the stream is told, and waits for it no more.
    pub(super) fn give_up(&self, ticket: Option<u64>, error: EngineError) {
        let mut state = self.state();
        let same = state.decoding.as_ref().map(|(ticket, _)| *ticket) == ticket;
        if same && !state.over {
            state.fail(error);
            state.count();
        }
    }

    pub(super) fn ask_if_due(self: &Arc<Self>, state: &mut State, pool: &Pool) {
        if state.decoding.is_some() || state.over {
            return;
        }
        let step = self.step.max(state.pace);
        let wanted = match state.stretches.front().and_then(|stretch| stretch.due(step)) {
            None => return,
            Some(Kind::Partial) => Queued::Partial,
            Some(Kind::Full | Kind::Last) => Queued::Ended,
        };
        if state.queued == Queued::No || (state.queued == Queued::Partial && wanted == Queued::Ended) {
            state.queued = wanted;
            state.asked += 1;
            pool.ask(Place { stream: Arc::clone(self), asked: state.asked }, wanted == Queued::Ended);
        }
    }

    /// Sends what waits. False while something still does.
    pub(super) fn flush_events(&self) -> bool {
        self.state().outlet.flush()
    }
}

impl State {
    fn settle(&mut self, window: &Window, words: Vec<Word>, language: Option<String>) {
        let Some(stretch) = self.stretches.front_mut() else { return };
        stretch.language = stretch.language.take().or(language);
        let words = stretch.heard(window, words);
        // None once the stretch has ended.
        let undecided = if self.interim { stretch.undecided().to_vec() } else { Vec::new() };
        if window.kind == Kind::Last {
            self.stretches.pop_front();
        }
        if !words.is_empty() {
            self.changing = false;
            self.outlet.send(Event::Words(words));
        }
        if self.changing || !undecided.is_empty() {
            self.changing = !undecided.is_empty();
            self.outlet.send(Event::Interim(undecided));
        }
        if self.busy && self.stretches.len() <= 1 {
            self.busy = false;
            self.outlet.send(Event::Resumed);
        }
    }

    fn fail(&mut self, error: EngineError) {
        self.over = true;
        self.stretches.clear();
        if let Some((_, stop)) = self.decoding.take() {
            stop.set();
        }
        self.outlet.send(Event::Failed(error));
    }

    /// Says, once, that ended speech waits for a decoder.
    pub(super) fn tell_if_busy(&mut self) {
        let waits_since = self.stretches.front().and_then(Stretch::ended).filter(|_| self.decoding.is_none());
        if let Some(since) = waits_since
            && !self.busy
            && self.heard.saturating_sub(since) >= BUSY_AFTER
        {
            self.busy = true;
            let waiting = Duration::from_secs_f64((self.heard - since) as f64 / f64::from(RATE_HZ));
            self.outlet.send(Event::Busy { waiting });
        }
    }

    /// Tells how far everything is decided, and the end if it has come.
    pub(super) fn tell(&mut self, rate_hz: u32, now: bool) {
        if self.over {
            return;
        }
        let until = self.stretches.front().map_or(self.silent_until, Stretch::decided_until);
        if until > self.covered && (now || until - self.covered >= COVER_EVERY) {
            self.covered = until;
            self.outlet.send(Event::Covered { until_sample: at_rate(until, rate_hz) });
        }
        if self.finished && self.stretches.is_empty() {
            self.over = true;
            self.outlet.send(Event::Finished);
        }
    }

    pub(super) fn count(&mut self) {
        let bytes = self.backlog() * size_of::<i16>();
        self.held.set(bytes);
    }

    pub(super) fn backlog(&self) -> usize {
        self.stretches.iter().map(Stretch::len).sum()
    }

    pub(super) fn open_stretch(&mut self) -> Option<&mut Stretch> {
        self.stretches.back_mut().filter(|stretch| stretch.ended().is_none())
    }
}

/// A position at 16 kHz as one at the stream's own rate.
pub(super) fn at_rate(position: u64, rate_hz: u32) -> u64 {
    position * u64::from(rate_hz) / u64::from(RATE_HZ)
}
