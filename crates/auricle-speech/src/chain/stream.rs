//! Drives one stream's machine: streams of engines, their events, the clock.
//!
//! Audio comes on the session's thread and goes straight to the engine; a small task of the same runtime takes what engines say,
//! and wakes when time is up.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use auricle_audio::packets::{Frame, Packets, Player};
use auricle_audio::resample::Resampler;
use auricle_audio::vad::{Endpointer, EndpointerConfig, RATE_HZ};
use auricle_core::breaker::BreakerState;
use tokio::sync::{Notify, mpsc};
use tokio::time::Sleep;

use super::gate::Gate;
use super::machine::{self, Gates, Machine, Output, Side, Sound};
use super::replay::Replay;
use super::{Members, now};
use crate::engine::{EngineError, Event, EventSender, Stream, StreamSpec};

/// Events of one engine's stream that were not taken yet. Full: the engine waits, as it would for the session.
const EVENTS_MAX: usize = 16;
/// Samples played to another engine at once: a fraction of a millisecond of decoding. Between two pieces others have their turn.
const PLAYED_AT_ONCE: usize = 3_200;
/// Mean height of samples that are not silent: some 50 dB under full scale, less than a quiet room.
const LOUD: u64 = 100;

/// An engine's end of a stream.
struct Opened {
    stream: Box<dyn Stream>,
    events: mpsc::Receiver<Event>,
    /// While it is still played what was kept. What comes meanwhile is kept behind that.
    playing: Option<Player>,
    /// What has just played all of that, for the frame that follows.
    played: Option<Player>,
}

/// Audio on its way to the engine.
enum Audio<'a, 'b> {
    Pcm(&'a [i16]),
    Frame(&'a mut Frame<'b>),
}

impl Audio<'_, '_> {
    fn samples(&self) -> usize {
        match self {
            Self::Pcm(pcm) => pcm.len(),
            Self::Frame(frame) => frame.samples(),
        }
    }

    fn pcm(&mut self) -> &[i16] {
        match self {
            Self::Pcm(pcm) => pcm,
            Self::Frame(frame) => frame.pcm(),
        }
    }
}

/// Finds out whether somebody speaks. Made when it is needed.
struct Watch {
    resampler: Resampler,
    endpointer: Endpointer,
    pcm: Vec<i16>,
    found: Vec<auricle_audio::vad::VadEvent>,
}

impl Watch {
    fn new(rate_hz: u32) -> Self {
        Self {
            resampler: Resampler::new(rate_hz, RATE_HZ),
            endpointer: Endpointer::new(EndpointerConfig::default()),
            pcm: Vec::new(),
            found: Vec::new(),
        }
    }

    fn hears_speech(&mut self, pcm: &[i16]) -> bool {
        self.pcm.clear();
        self.found.clear();
        self.resampler.push(pcm, &mut self.pcm);
        self.endpointer.push(&self.pcm, &mut self.found);
        self.endpointer.in_speech()
    }
}

/// What the session's side and the task share. Both run on one thread, or nearly never at once.
struct State {
    members: Arc<Members>,
    machine: Machine,
    replay: Replay,
    spec: StreamSpec,
    main: Option<Opened>,
    probe: Option<Opened>,
    watch: Option<Box<Watch>>,
    /// For the session, in order. Bounded: a few for each thing an engine says, and nothing is taken from engines meanwhile.
    tells: std::collections::VecDeque<Event>,
    closed: bool,
}

impl State {
    /// Does what the machine says until it says no more.
    fn perform(&mut self, now: Instant) {
        while !self.machine.outputs.is_empty() {
            for output in std::mem::take(&mut self.machine.outputs) {
                match output {
                    Output::Open { side, engine, from } => {
                        *self.side(side) = None;
                        let result = self.open(side, engine, from);
                        let kept_from = self.replay.from();
                        self.machine.opened(side, result, now, kept_from, &mut &*self.members);
                    }
                    Output::Drop(side) => *self.side(side) = None,
                    Output::Tell(event) => {
                        if let Event::Degraded { engine, .. } = &event {
                            metrics::counter!("auricle_speech_degraded_total", "engine" => *engine)
                                .increment(1);
                        }
                        self.tells.push_back(event);
                    }
                }
            }
        }
        self.replay.forget(self.machine.covered());
        if self.machine.is_over() {
            (self.main, self.probe, self.watch) = (None, None, None);
            self.replay.clear();
        }
    }

    fn side(&mut self, side: Side) -> &mut Option<Opened> {
        match side {
            Side::Main => &mut self.main,
            Side::Probe => &mut self.probe,
        }
    }

    fn open(&mut self, side: Side, engine: usize, from: u64) -> Result<(), EngineError> {
        let engine = &self.members.list[engine].engine;
        metrics::counter!("auricle_speech_attempts_total", "engine" => engine.name()).increment(1);
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let stream = engine.open(self.spec.clone(), sender)?;
        let playing = (side == Side::Main).then(|| Player::new(from));
        *self.side(side) = Some(Opened { stream, events, playing, played: None });
        self.caught_up();
        Ok(())
    }

    /// Lets the main engine hear what comes, once it has heard what was kept.
    fn caught_up(&mut self) {
        let end = self.replay.end();
        let Some(main) = &mut self.main else { return };
        if main.playing.as_ref().is_some_and(|player| player.at() >= end) {
            main.played = main.playing.take();
            let (flush, finish) = self.machine.to_repeat();
            if finish {
                main.stream.finish();
            } else if flush {
                main.stream.flush();
            }
        }
    }

    /// Plays the main engine the next piece of what was kept. False if it has heard it all.
    fn play(&mut self) -> bool {
        let Some(Opened { stream, playing: Some(player), .. }) = &mut self.main else { return false };
        let mut pcm = Vec::new();
        let kept = self.replay.play(player, PLAYED_AT_ONCE, &mut pcm);
        metrics::counter!("auricle_speech_replayed_samples_total").increment(pcm.len() as u64);
        let trouble = match kept {
            false => Some("what was kept for it went before it could hear it"),
            true if !stream.push(&pcm) => Some("it does not take what was kept for it"),
            true => None,
        };
        match trouble {
            Some(text) => self.said(Side::Main, Event::Failed(EngineError::Broken(text.to_owned()))),
            None => self.caught_up(),
        }
        true
    }

    /// Whether `samples` more would push something out that the main engine is still to be played.
    fn would_lose(&self, samples: usize) -> bool {
        let playing = self.main.as_ref().and_then(|main| main.playing.as_ref());
        playing.is_some_and(|player| player.at() < self.replay.oldest_with(samples))
    }

    fn said(&mut self, side: Side, event: Event) {
        let (now, kept_from) = (now(), self.replay.from());
        self.machine.said(side, event, now, kept_from, &mut &*self.members);
        self.perform(now);
    }

    /// What there is in audio, as far as the machine wants to know.
    fn look_at(&mut self, audio: &mut Audio<'_, '_>, now: Instant) -> Sound {
        if !self.machine.wants_loudness(now) {
            self.watch = None;
            return Sound::default();
        }
        let pcm = audio.pcm();
        let height: u64 = pcm.iter().map(|sample| u64::from(sample.unsigned_abs())).sum();
        let speech = self.machine.wants_speech(now) && {
            let rate_hz = self.spec.sample_rate_hz;
            self.watch.get_or_insert_with(|| Box::new(Watch::new(rate_hz))).hears_speech(pcm)
        };
        Sound { loud: height > LOUD * pcm.len() as u64, speech }
    }

    /// Hands audio to whoever hears. False if nobody will hear it.
    fn push(&mut self, mut audio: Audio<'_, '_>, changed: &Notify) -> bool {
        if self.machine.is_over() {
            return false;
        }
        let now = now();
        self.machine.awaits(now, &mut &*self.members);
        if !self.machine.outputs.is_empty() {
            self.perform(now);
            changed.notify_one();
        }
        // Who comes faster than it is played: nothing that was not played yet may have to go.
        while self.would_lose(audio.samples()) && self.play() {}
        if let (Some(main), Audio::Frame(frame)) = (&mut self.main, &mut audio)
            && let Some(player) = main.played.take()
        {
            frame.adopt(player);
        }
        let sound = self.look_at(&mut audio, now);
        let taken = match &mut self.main {
            Some(main) if main.playing.is_none() => main.stream.push(audio.pcm()),
            _ => true,
        };
        if let Some(probe) = &mut self.probe {
            probe.stream.push(audio.pcm());
        }
        let samples = audio.samples();
        match audio {
            // The spool keeps it apart, for repair.
            _ if !taken => self.replay.skip(samples as u64),
            Audio::Pcm(pcm) => self.replay.push(pcm),
            Audio::Frame(frame) => self.replay.push_frame(frame),
        }
        self.pushed(now, samples, sound, changed);
        taken && !self.machine.is_over()
    }

    /// Takes over what was kept before this stream was opened. It is played in pieces.
    fn push_kept(&mut self, kept: Packets, changed: &Notify) -> bool {
        let (now, samples) = (now(), kept.end() as usize);
        self.machine.awaits(now, &mut &*self.members);
        self.replay.begin_with(kept);
        self.perform(now);
        if let Some(main) = &mut self.main {
            main.playing = Some(Player::new(0));
        }
        self.pushed(now, samples, Sound::default(), changed);
        changed.notify_one();
        !self.machine.is_over()
    }

    /// Tells the machine that audio came.
    fn pushed(&mut self, now: Instant, samples: usize, sound: Sound, changed: &Notify) {
        let (kept_from, first) = (self.replay.from(), self.machine.next_tick());
        self.machine.pushed(now, samples, sound, kept_from, &mut &*self.members);
        if !self.machine.outputs.is_empty() {
            self.perform(now);
            changed.notify_one();
        } else if self.machine.next_tick() != first {
            changed.notify_one();
        }
    }

    fn tick(&mut self, now: Instant) {
        let kept_from = self.replay.from();
        self.machine.tick(now, kept_from, &mut &*self.members);
        self.perform(now);
    }

    /// Takes what the engines have said. Ready if that was anything.
    fn poll_engines(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for side in [Side::Main, Side::Probe] {
            let Some(opened) = self.side(side) else { continue };
            let Poll::Ready(event) = opened.events.poll_recv(cx) else { continue };
            let event = event.unwrap_or_else(|| Event::Failed(EngineError::Broken("it stopped".to_owned())));
            self.said(side, event);
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

struct Shared {
    state: Mutex<State>,
    /// Something changed that the task may not know.
    changed: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The session's side.
struct ChainStream(Arc<Shared>);

impl Stream for ChainStream {
    fn push(&mut self, pcm: &[i16]) -> bool {
        self.0.state().push(Audio::Pcm(pcm), &self.0.changed)
    }

    fn push_frame(&mut self, frame: &mut Frame<'_>) -> bool {
        self.0.state().push(Audio::Frame(frame), &self.0.changed)
    }

    fn push_kept(&mut self, kept: Packets) -> bool {
        self.0.state().push_kept(kept, &self.0.changed)
    }

    /// What is only kept is kept as it came.
    fn wants_samples(&self) -> bool {
        let state = self.0.state();
        let hears = |main: &Opened| main.playing.is_none() && main.played.is_none();
        state.main.as_ref().is_some_and(hears) || state.probe.is_some()
    }

    fn finish(&mut self) {
        let mut state = self.0.state();
        let (now, kept_from) = (now(), state.replay.from());
        let state = &mut *state;
        if let Some(main) = state.main.as_mut().filter(|main| main.playing.is_none()) {
            main.stream.finish();
        }
        state.machine.finish(now, kept_from, &mut &*state.members);
        state.perform(now);
        self.0.changed.notify_one();
    }

    fn flush(&mut self) {
        let mut state = self.0.state();
        let (now, kept_from) = (now(), state.replay.from());
        let state = &mut *state;
        if let Some(main) = state.main.as_mut().filter(|main| main.playing.is_none()) {
            main.stream.flush();
        }
        state.machine.flush(now, kept_from, &mut &*state.members);
        state.perform(now);
        self.0.changed.notify_one();
    }
}

impl Drop for ChainStream {
    fn drop(&mut self) {
        let mut state = self.0.state();
        let state = &mut *state;
        state.closed = true;
        state.machine.abandon(now(), &mut &*state.members);
        state.perform(now());
        self.0.changed.notify_one();
    }
}

pub(super) fn open(
    members: &Arc<Members>,
    spec: StreamSpec,
    events: EventSender,
    wait_max: Duration,
) -> Result<Box<dyn Stream>, EngineError> {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return Err(EngineError::Unavailable("a chain of engines needs a runtime's thread".to_owned()));
    };
    let now = now();
    let of = |member: &Arc<super::Member>| machine::Member {
        name: member.engine.name(),
        patience: member.engine.patience(),
    };
    let known = members.list.iter().map(of).collect();
    let rate_hz = spec.sample_rate_hz;
    let machine = Machine::new(
        members.numbers.clone(),
        known,
        rate_hz,
        rand::RngExt::random(&mut rand::rng()),
        now,
        &mut &**members,
    );
    let replay_max = members.numbers.replay_secs_max as usize * rate_hz as usize;
    let mut state = State {
        members: Arc::clone(members),
        machine,
        replay: Replay::new(replay_max, members.budget.clone(), members.account.share()),
        spec,
        main: None,
        probe: None,
        watch: None,
        tells: std::collections::VecDeque::new(),
        closed: false,
    };
    state.perform(now);
    let is_away =
        |engine| (&**members).with(engine, |gate: &mut Gate| gate.state(now)) != BreakerState::Closed;
    if state.machine.waits_until().is_some_and(|at| at > now + wait_max)
        && (0..members.list.len()).all(is_away)
    {
        state.machine.abandon(now, &mut &**members);
        return Err(EngineError::Unavailable(format!(
            "no speech engine can hear at the moment ({}): the audio is kept on disk",
            state.machine.last_error()
        )));
    }
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() });
    runtime.spawn(run(Arc::clone(&shared), events));
    Ok(Box::new(ChainStream(shared)))
}

/// What a turn of the task came to.
enum Turn {
    Tell(Event),
    Played,
    Again,
    Over,
}

async fn run(shared: Arc<Shared>, events: EventSender) {
    let mut timer: Pin<Box<Sleep>> = Box::pin(tokio::time::sleep(Duration::ZERO));
    loop {
        let changed = shared.changed.notified();
        tokio::pin!(changed);
        let turn = poll_fn(|cx| {
            let mut state = shared.state();
            if state.closed {
                return Poll::Ready(Turn::Over);
            }
            if let Some(event) = state.tells.pop_front() {
                return Poll::Ready(Turn::Tell(event));
            }
            if state.machine.is_over() {
                return Poll::Ready(Turn::Over);
            }
            // What was said counts before the time that has passed.
            if state.poll_engines(cx).is_ready() {
                return Poll::Ready(Turn::Again);
            }
            if state.play() {
                return Poll::Ready(Turn::Played);
            }
            if let Some(at) = state.machine.next_tick() {
                let at = at.into();
                if timer.deadline() != at {
                    timer.as_mut().reset(at);
                }
                if timer.as_mut().poll(cx).is_ready() {
                    state.tick(now());
                    return Poll::Ready(Turn::Again);
                }
            }
            changed.as_mut().poll(cx).map(|()| Turn::Again)
        });
        match turn.await {
            // While the session takes nothing, nothing is taken from engines.
            Turn::Tell(event) => {
                if events.send(event).await.is_err() {
                    return;
                }
            }
            Turn::Played => tokio::task::yield_now().await,
            Turn::Again => {}
            Turn::Over => return,
        }
    }
}
