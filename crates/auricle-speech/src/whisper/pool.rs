//! The decoders' threads, the streams that wait for one, and the watch over decoders that take too long.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::decode::{Ask, Decode, Load, Stop};
use super::guard;
use super::shared::{Job, Outcome, Place, Shared};
use super::stretch::Kind;
use crate::engine::EngineError;

/// An idle decoder looks this often whether the engine is still there.
const IDLE: Duration = Duration::from_millis(500);
/// How often decoders and stalled streams are looked after.
const WATCH_EVERY: Duration = Duration::from_millis(100);
/// Loading a model may take this long: 3 GB from a slow disk.
const LOAD_MAX: Duration = Duration::from_secs(180);
/// A decoder that was told to stop and has not after this long hangs: its thread is left and another begun.
const STOP_MAX: Duration = Duration::from_secs(10);

/// How many decoders, and how long each may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) decoders: usize,
    /// Of each decoder.
    pub(super) threads: usize,
    pub(super) pass_max: Duration,
}

/// The pool. Its threads end when the last stream and the engine have let go of it.
pub(super) struct Pool {
    state: Mutex<State>,
    work: Condvar,
    load: Arc<dyn Load>,
    size: Size,
}

#[derive(Default)]
struct State {
    /// Streams whose speech has ended, and those that speak, in order of asking. Bounded by the streams and their backlogs.
    ended: VecDeque<Place>,
    partial: VecDeque<Place>,
    /// Decoders on partial passes.
    streaming: usize,
    running: Vec<Running>,
    /// Threads that serve, and those that hang.
    alive: usize,
    hung: usize,
    ticket: u64,
    /// Streams whose events did not fit.
    stalled: Vec<Weak<Shared>>,
}

struct Running {
    ticket: u64,
    stream: Weak<Shared>,
    stop: Stop,
    streaming: bool,
    /// Told to stop at this time, then given up at the next.
    deadline: Instant,
    told: bool,
}

#[expect(clippy::disallowed_methods, reason = "decoders are measured and watched by the real time they take")]
fn now() -> Instant {
    Instant::now()
}

impl Pool {
    pub(super) fn start(load: Arc<dyn Load>, size: Size) -> Result<Arc<Self>, EngineError> {
        let pool = Arc::new(Self { state: Mutex::default(), work: Condvar::new(), load, size });
        for _ in 0..size.decoders {
            pool.begin_thread()?;
        }
        let weak = Arc::downgrade(&pool);
        spawn("whisper-watch", move || {
            loop {
                std::thread::sleep(WATCH_EVERY);
                let Some(pool) = weak.upgrade() else { return };
                pool.look_after(now());
            }
        })?;
        Ok(pool)
    }

    fn begin_thread(self: &Arc<Self>) -> Result<(), EngineError> {
        let weak = Arc::downgrade(self);
        spawn("whisper", move || run(&weak))?;
        self.state().alive += 1;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a stream that has a pass to make.
    pub(super) fn ask(&self, place: Place, ended: bool) {
        let mut state = self.state();
        if ended {
            state.ended.push_back(place)
        } else {
            state.partial.push_back(place)
        }
        drop(state);
        self.work.notify_one();
    }

    pub(super) fn stalled(&self, stream: &Arc<Shared>) {
        self.state().stalled.push(Arc::downgrade(stream));
    }

    /// Whether any decoder is left.
    pub(super) fn serves(&self) -> bool {
        self.state().alive > 0
    }

    /// The next pass to make. Ended speech first, each stream in its turn; speech that goes on only while another decoder stays
    /// free for what ends (or there is only one).
    fn next(&self) -> Option<Job> {
        let mut state = self.state();
        let may_stream = state.streaming < self.size.decoders.saturating_sub(1).max(1);
        let ended = state.ended.pop_front();
        let streaming = ended.is_none();
        let next = match ended {
            None if may_stream => state.partial.pop_front(),
            ended => ended,
        };
        let Some(Place { stream, asked }) = next else {
            drop(self.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner));
            return None;
        };
        state.ticket += 1;
        let ticket = state.ticket;
        drop(state);
        let job = stream.take_job(asked, ticket)?;
        let mut state = self.state();
        let streaming = streaming && job.window.kind == Kind::Partial;
        state.streaming += usize::from(streaming);
        let (stream, stop) = (Arc::downgrade(&job.stream), job.stop.clone());
        let deadline = now() + LOAD_MAX;
        state.running.push(Running { ticket, stream, stop, streaming, deadline, told: false });
        Some(job)
    }

    /// The model is loaded: from now on the pass is timed.
    fn begun(&self, ticket: u64) -> Instant {
        let since = now();
        let mut state = self.state();
        if let Some(running) = state.running.iter_mut().find(|running| running.ticket == ticket) {
            running.deadline = since + self.size.pass_max;
        }
        since
    }

    /// False if the decoder was given up meanwhile: another thread has its place.
    fn ended(&self, ticket: u64) -> bool {
        let mut state = self.state();
        let Some(at) = state.running.iter().position(|running| running.ticket == ticket) else {
            return false;
        };
        let running = state.running.swap_remove(at);
        state.streaming -= usize::from(running.streaming);
        drop(state);
        if running.streaming {
            self.work.notify_one();
        }
        true
    }

    /// Stops and gives up decoders that take too long, and sends events that did not fit.
    fn look_after(self: &Arc<Self>, now: Instant) {
        let mut state = self.state();
        let (mut late, mut replace) = (Vec::new(), false);
        let mut at = 0;
        while at < state.running.len() {
            let running = &mut state.running[at];
            if running.deadline > now {
                at += 1;
            } else if !running.told {
                running.told = true;
                running.deadline = now + STOP_MAX;
                running.stop.set();
                late.push((running.stream.clone(), running.ticket));
                at += 1;
            } else {
                let gone = state.running.swap_remove(at);
                state.streaming -= usize::from(gone.streaming);
                state.alive -= 1;
                state.hung += 1;
                // As many as there are decoders: threads that hang hold memory for ever.
                replace |= state.hung <= self.size.decoders;
                failed("hung");
            }
        }
        let stalled = std::mem::take(&mut state.stalled);
        drop(state);
        let too_slow = EngineError::Broken(format!(
            "Whisper took longer than {:?} for a few seconds of speech: choose a smaller model or give it more cores",
            self.size.pass_max
        ));
        for (stream, ticket) in late {
            failed("slow");
            if let Some(stream) = stream.upgrade() {
                stream.give_up(Some(ticket), too_slow.clone());
                if !stream.flush_events() {
                    self.stalled(&stream);
                }
            }
        }
        if replace {
            let _ = self.begin_thread();
        }
        self.fail_all_if_none_is_left();
        let still = stalled
            .into_iter()
            .filter(|stream| stream.upgrade().is_some_and(|stream| !stream.flush_events()));
        let still: Vec<_> = still.collect();
        self.state().stalled.extend(still);
    }

    fn fail_all_if_none_is_left(&self) {
        let mut state = self.state();
        if state.alive > 0 {
            return;
        }
        let waiting: Vec<_> =
            std::mem::take(&mut state.ended).into_iter().chain(std::mem::take(&mut state.partial)).collect();
        drop(state);
        for place in waiting {
            place.stream.give_up(None, all_hang());
        }
    }
}

/// What is said when no decoder is left.
pub(super) fn all_hang() -> EngineError {
    EngineError::Broken(
        "every Whisper decoder hangs: restart the server, and look for a smaller model".to_owned(),
    )
}

fn failed(reason: &'static str) {
    metrics::counter!("auricle_whisper_passes_failed_total", "reason" => reason).increment(1);
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), EngineError> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread
        .map(drop)
        .map_err(|error| EngineError::Broken(format!("cannot start a thread for Whisper: {error}")))
}

fn run(pool: &Weak<Pool>) {
    let mut decoder: Option<Box<dyn Decode>> = None;
    while let Some(pool) = pool.upgrade() {
        let Some(job) = pool.next() else { continue };
        let mut since = now();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let decoder = match &mut decoder {
                Some(decoder) => decoder,
                none => none.insert(pool.load.decoder()?),
            };
            since = pool.begun(job.ticket);
            hear(decoder.as_mut(), &job, pool.size.threads)
        }));
        let took = now().saturating_duration_since(since);
        if !pool.ended(job.ticket) {
            return;
        }
        let outcome =
            outcome.unwrap_or_else(|_| Err(EngineError::Broken("the Whisper decoder failed".into())));
        if outcome.is_err() {
            failed("broken");
            // A decoder that failed once is made anew.
            decoder = None;
        }
        let kind = if job.window.kind == Kind::Partial { "partial" } else { "final" };
        metrics::histogram!("auricle_whisper_pass_seconds", "kind" => kind).record(took.as_secs_f64());
        job.stream.decoded(&pool, &job, outcome, took);
        if !job.stream.flush_events() {
            pool.stalled(&job.stream);
        }
    }
}

fn hear(decoder: &mut dyn Decode, job: &Job, threads: usize) -> Outcome {
    let window = &job.window;
    let partial = window.kind == Kind::Partial;
    let ask = Ask { pcm: &window.pcm, language: window.language.as_deref(), partial, threads };
    let pass = decoder.pass(ask, &job.stop)?;
    let zero = window.from as f64 / f64::from(auricle_audio::vad::RATE_HZ);
    let (words, left_out) = guard::words_of(&pass, zero);
    for (reason, count) in [("silence", left_out.silence), ("loop", left_out.loops)] {
        metrics::counter!("auricle_whisper_words_dropped_total", "reason" => reason).increment(count as u64);
    }
    Ok((words, pass.language))
}
