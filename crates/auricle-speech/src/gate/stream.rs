//! One gated stream: drives the machine on the session's thread, and a task that puts events on the stream's clock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};

use super::machine::{Machine, Step};
use super::map::Map;
use super::{GateConfig, Tally};
use crate::engine::{EngineError, Event, EventSender, Stream, StreamSpec};

/// Events of the inner engine that the task has not taken. Full: the engine waits on its own threads, as with a session.
const EVENTS_MAX: usize = 16;

pub(super) fn inner_channel() -> (EventSender, mpsc::Receiver<Event>) {
    mpsc::channel(EVENTS_MAX)
}

/// What both sides know. Locked for a few instructions at a time.
struct Shared {
    state: Mutex<State>,
    wake: Notify,
}

struct State {
    map: Map,
    heard: u64,
    /// Nothing before this will be sent.
    silent_until: u64,
    /// What the engine has decided, of what was sent.
    decided: u64,
    /// Coverage told to the session.
    told: u64,
    /// Coverage of silence is told at once, not in steps.
    urgent: bool,
    rate_hz: u32,
    /// Silence at the end of what was sent: nothing is missing while the engine has not decided that.
    tail: u64,
}

impl State {
    /// How far the stream is decided, if that is worth telling.
    fn coverage(&mut self, now: bool) -> Option<Event> {
        let all = self.decided + self.tail >= self.map.sent();
        let until = if all { self.silent_until } else { self.map.start_of(self.decided) };
        let now = now || std::mem::take(&mut self.urgent);
        if until <= self.told || (!now && until - self.told < self.step()) {
            return None;
        }
        self.told = until;
        Some(Event::Covered { until_sample: until })
    }

    /// Coverage of silence is told each time this much more of it has been heard.
    fn step(&self) -> u64 {
        u64::from(self.rate_hz) / 2
    }

    /// What the inner engine says, on the stream's clock.
    fn placed(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::Words(mut words) => {
                words.iter_mut().for_each(|word| self.map.place(word, self.rate_hz));
                Some(Event::Words(words))
            }
            Event::Interim(mut words) => {
                words.iter_mut().for_each(|word| self.map.place(word, self.rate_hz));
                Some(Event::Interim(words))
            }
            Event::Covered { until_sample } => {
                self.decided = self.decided.max(until_sample.min(self.map.sent()));
                self.map.forget(self.decided);
                self.coverage(true)
            }
            Event::Skipped { from_sample, samples } => {
                let from = self.map.start_of(from_sample);
                let until = self.map.end_of(from_sample + samples);
                (until > from).then(|| Event::Skipped { from_sample: from, samples: until - from })
            }
            other => Some(other),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The session's side.
pub(super) struct GateStream {
    machine: Machine,
    inner: Box<dyn Stream>,
    shared: Arc<Shared>,
    tally: Arc<Tally>,
    rate_hz: u32,
}

impl GateStream {
    /// Errors: not called on a tokio runtime.
    pub(super) fn start(
        inner: Box<dyn Stream>,
        spec: &StreamSpec,
        config: &GateConfig,
        inner_events: mpsc::Receiver<Event>,
        events: EventSender,
        tally: Arc<Tally>,
    ) -> Result<Self, EngineError> {
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|_| EngineError::Broken("the voice activity gate needs a tokio runtime".into()))?;
        let rate_hz = spec.sample_rate_hz;
        let state = State {
            map: Map::default(),
            heard: 0,
            silent_until: 0,
            decided: 0,
            told: 0,
            urgent: false,
            rate_hz,
            tail: 0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), wake: Notify::new() });
        runtime.spawn(relay(Arc::clone(&shared), inner_events, events));
        Ok(Self { machine: Machine::new(rate_hz, config), inner, shared, tally, rate_hz })
    }

    /// Lets the task see how far the machine is.
    fn publish(&self, urgent: bool) {
        let mut state = self.shared.state();
        state.heard = self.machine.heard();
        state.silent_until = self.machine.silent_until();
        state.tail = self.machine.tail();
        state.urgent |= urgent;
        // Of a stretch that is under way the engine's own coverage tells.
        let silent = !self.machine.is_open() && state.silent_until >= state.told + state.step();
        drop(state);
        if urgent || silent {
            self.shared.wake.notify_one();
        }
    }
}

impl Stream for GateStream {
    fn push(&mut self, pcm: &[i16]) -> bool {
        let Self { machine, inner, shared, .. } = self;
        let send_all = shared.state().map.is_full();
        let (mut taken, mut sent) = (true, 0);
        machine.push(pcm, send_all, |step| match step {
            Step::Send { at, pcm } => {
                let samples = pcm.len() as u64;
                // Before the engine can speak of it. What it refuses counts too: it says so in positions of what was sent.
                shared.state().map.send(at, samples);
                sent += samples;
                taken &= inner.push(pcm);
            }
            Step::Pause => inner.flush(),
        });
        self.tally.add(pcm.len() as u64, sent, self.rate_hz);
        self.publish(false);
        taken
    }

    fn finish(&mut self) {
        self.machine.flush();
        self.publish(true);
        self.inner.finish();
    }

    fn flush(&mut self) {
        self.machine.flush();
        self.publish(true);
        self.inner.flush();
    }
}

/// Takes the inner engine's events to the session. Alone sends coverage, so that it grows. Ends with either side.
async fn relay(shared: Arc<Shared>, mut inner: mpsc::Receiver<Event>, events: EventSender) {
    loop {
        let (event, last) = tokio::select! {
            () = events.closed() => return,
            () = shared.wake.notified() => (shared.state().coverage(false), false),
            event = inner.recv() => match event {
                None => return,
                Some(Event::Finished) => {
                    let rest = {
                        let mut state = shared.state();
                        state.decided = state.map.sent();
                        state.silent_until = state.heard;
                        state.coverage(true)
                    };
                    if let Some(rest) = rest && events.send(rest).await.is_err() {
                        return;
                    }
                    (Some(Event::Finished), true)
                }
                Some(failed @ Event::Failed(_)) => (Some(failed), true),
                Some(event) => (shared.state().placed(event), false),
            },
        };
        if let Some(event) = event
            && events.send(event).await.is_err()
        {
            return;
        }
        if last {
            return;
        }
    }
}
