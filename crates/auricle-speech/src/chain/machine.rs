//! One stream's way through the chain, as a pure machine.
//!
//! Told: audio that came, what engines say, time. Says: which engine to open and from where to play it what is undecided, and
//! what the session hears. Positions are samples of the stream from its first.
//! Invariants: an engine is played audio from the first undecided sample on, so each stretch has one engine's words; what
//! cannot be played any more is given up as a whole ([`EngineError::Unavailable`]) and is the spool's.

mod choosing;

use std::time::{Duration, Instant};

use auricle_core::breaker::BreakerPermit;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::ChainNumbers;
use super::gate::Gate;
use crate::engine::{EngineError, Event};

/// Speech that a stalled engine must have been given before it counts as hung: a cough does not.
const SPEECH_MIN: Duration = Duration::from_millis(500);
/// Of the time that an engine may decide nothing, the part after which its audio is looked at: whether anything is loud in it, and
/// later whether that is speech. Most engines decide something every few seconds, and a detector of voices costs a tenth of
/// everything else that a session costs.
const LOUD_AFTER: f64 = 0.3;
const WATCH_AFTER: f64 = 0.6;
/// A stream that lived this long and worked is no sign of an engine that lets everybody in and throws them out.
const STABLE_AFTER: Duration = Duration::from_secs(60);
/// A probe that nobody spoke to says nothing after this long.
const PROBE_MAX: Duration = Duration::from_secs(20);
/// Audio that is this much ahead of the clock was not spoken just now.
const OUTRUNS: Duration = Duration::from_secs(5);

/// What the machine knows of an engine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) name: &'static str,
    pub(super) patience: Duration,
}

/// Which of the two engines that may hear at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The one whose words count.
    Main,
    /// A preferred one that failed before and is tried beside it.
    Probe,
}

/// What was found in a piece of audio.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sound {
    /// It is not silent.
    pub(super) loud: bool,
    /// Somebody speaks.
    pub(super) speech: bool,
}

/// What the driver is to do.
#[derive(Debug, PartialEq)]
pub(super) enum Output {
    /// Open engine `engine` on this side, after dropping what is there, and play it everything kept from `from` on. Answer with
    /// [`Machine::opened`] in the same breath.
    Open { side: Side, engine: usize, from: u64 },
    /// Drop what is there.
    Drop(Side),
    /// Tell the session.
    Tell(Event),
}

/// What the gates say. One for each engine, for all streams of the process.
pub(super) trait Gates {
    fn with<T>(&mut self, engine: usize, act: impl FnOnce(&mut Gate) -> T) -> T;
}

#[derive(Debug)]
struct Hearing {
    engine: usize,
    /// Position of the engine's first sample.
    zero: u64,
    /// Until it has worked.
    permit: Option<BreakerPermit>,
    opened_at: Instant,
    busy: bool,
}

/// One engine as this stream has found it.
#[derive(Clone, Debug, Default)]
struct Found {
    failures: u32,
    not_before: Option<Instant>,
}

/// The machine. Reads no clock.
#[derive(Debug)]
pub(super) struct Machine {
    numbers: ChainNumbers,
    members: Vec<Member>,
    rate_hz: u32,
    entropy: StdRng,
    found: Vec<Found>,
    /// Engines that do not do what this stream needs.
    unsuited: Vec<bool>,
    main: Option<Hearing>,
    probe: Option<Hearing>,
    /// When to look for an engine again, while there is none; for an earlier one, while there is.
    look_at: Instant,
    /// An engine that may be tried was left to streams that have something to be heard.
    passed: bool,
    /// When to return to an earlier engine that works again.
    return_at: Option<(usize, Instant)>,
    begun: Instant,
    pushed: u64,
    covered: u64,
    last_word_end: u64,
    /// When something was last decided, or there was nothing to decide.
    progress_at: Instant,
    /// The first that was loud since then.
    loud_since: Option<Instant>,
    /// The first speech since then, and how much of it in samples.
    speech: Option<(Instant, u64)>,
    serving: Option<usize>,
    /// The session was told that words are late, and not yet that they come again.
    degraded: bool,
    last_error: String,
    flush_at: Option<u64>,
    finishing: bool,
    over: bool,
    pub(super) outputs: Vec<Output>,
}

impl Machine {
    /// Opens the first engine that may be tried, or waits for one.
    pub(super) fn new(
        numbers: ChainNumbers,
        members: Vec<Member>,
        rate_hz: u32,
        seed: u64,
        now: Instant,
        gates: &mut impl Gates,
    ) -> Self {
        let found = vec![Found::default(); members.len()];
        let unsuited = vec![false; members.len()];
        let mut machine = Self {
            numbers,
            members,
            rate_hz,
            entropy: StdRng::seed_from_u64(seed),
            found,
            unsuited,
            main: None,
            probe: None,
            look_at: now,
            passed: false,
            return_at: None,
            begun: now,
            pushed: 0,
            covered: 0,
            last_word_end: 0,
            progress_at: now,
            loud_since: None,
            speech: None,
            serving: None,
            degraded: false,
            last_error: "it has failed for others".to_owned(),
            flush_at: None,
            finishing: false,
            over: false,
            outputs: Vec::new(),
        };
        machine.find(now, gates);
        machine
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Everything before this is decided.
    pub(super) fn covered(&self) -> u64 {
        self.covered
    }

    /// When an engine may be found again, while there is none.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        self.main.is_none().then_some(self.look_at)
    }

    pub(super) fn last_error(&self) -> &str {
        &self.last_error
    }

    /// Whether audio is to be looked at for being loud: an engine has decided nothing for a while.
    pub(super) fn wants_loudness(&self, now: Instant) -> bool {
        self.main.is_some() && self.pushed > self.covered && now >= self.progress_at + self.after(LOUD_AFTER)
    }

    /// Whether what is loud in it is to be looked at for speech.
    pub(super) fn wants_speech(&self, now: Instant) -> bool {
        self.loud_since.is_some()
            && self.wants_loudness(now)
            && now >= self.progress_at + self.after(WATCH_AFTER)
    }

    fn after(&self, part: f64) -> Duration {
        self.numbers.silent_max.mul_f64(part)
    }

    /// Audio is about to come, be it much at once: an engine that was left to streams with something to be heard is asked first,
    /// so that all of it reaches it.
    pub(super) fn awaits(&mut self, now: Instant, gates: &mut impl Gates) {
        if self.main.is_none() && self.passed && !self.over {
            self.find_for(false, now, gates);
        }
    }

    /// Audio came. `kept_from`: the oldest sample that could still be played to another engine.
    pub(super) fn pushed(
        &mut self,
        now: Instant,
        samples: usize,
        sound: Sound,
        kept_from: u64,
        gates: &mut impl Gates,
    ) {
        if self.covered == self.pushed {
            self.progressed(now);
        }
        if sound.loud {
            self.loud_since.get_or_insert(now);
        }
        self.pushed += samples as u64;
        // Audio that comes faster than it is spoken (repair's) stops coming before it can be looked at: so much of it is taken for
        // speech.
        let outruns = self.pushed > self.samples(now.saturating_duration_since(self.begun) + OUTRUNS);
        let much = outruns && self.pushed - self.covered >= self.samples(2 * self.numbers.silent_max);
        if sound.speech || (much && self.speech.is_none()) {
            // It was not looked for before: it is as old as what is loud, and that may be as old.
            let ago = |at: Instant, part| at.checked_sub(self.after(part)).unwrap_or(at);
            let begun = ago(self.loud_since.unwrap_or(now), LOUD_AFTER).max(ago(now, WATCH_AFTER));
            let begun = begun.max(self.progress_at);
            let (since, heard) = self.speech.unwrap_or((begun, 0));
            let heard = if much { heard.max(self.samples(SPEECH_MIN)) } else { heard };
            self.speech = Some((since, heard + samples as u64));
        }
        if self.main.is_none() && kept_from > self.covered {
            self.give_up("no engine came back while its audio could be kept in memory", now, gates);
        }
    }

    /// The session wants what it has said decided.
    pub(super) fn flush(&mut self, now: Instant, kept_from: u64, gates: &mut impl Gates) {
        self.flush_at = Some(self.pushed);
        if self.main.is_none() {
            self.tick(now, kept_from, gates);
        }
        if self.main.is_none() && self.pushed > self.covered {
            self.give_up("there is no engine to decide what was heard", now, gates);
        }
    }

    /// No more audio comes.
    pub(super) fn finish(&mut self, now: Instant, kept_from: u64, gates: &mut impl Gates) {
        self.finishing = true;
        self.end(Side::Probe, now, gates);
        if self.main.is_none() && self.pushed == self.covered {
            self.over = true;
            return self.tell(Event::Finished);
        }
        // Silence from here on is the engine's.
        self.speech = Some((now, u64::MAX / 2));
        self.progress_at = now;
        if self.main.is_none() {
            self.tick(now, kept_from, gates);
        }
        if self.main.is_none() {
            self.give_up("there is no engine to decide what was heard", now, gates);
        }
    }

    /// Whether the engine that is opened now is to be flushed, and finished, once it was played what is kept.
    pub(super) fn to_repeat(&self) -> (bool, bool) {
        (self.flush_at.is_some_and(|at| at > self.covered), self.finishing)
    }

    /// The answer to [`Output::Open`].
    pub(super) fn opened(
        &mut self,
        side: Side,
        result: Result<(), EngineError>,
        now: Instant,
        kept_from: u64,
        gates: &mut impl Gates,
    ) {
        match result {
            Ok(()) => {}
            // It was not asked at all: it does not do what this stream needs (a language). Nothing of that concerns others.
            Err(error @ EngineError::Refused(_)) => {
                let slot = if side == Side::Main { &mut self.main } else { &mut self.probe };
                if let Some(hearing) = slot
                    && let Some(permit) = hearing.permit.take()
                {
                    let engine = hearing.engine;
                    gates.with(engine, |gate| gate.given_up(permit, now));
                    self.unsuited[engine] = true;
                }
                self.failed(side, error, now, kept_from, gates);
            }
            Err(error) => self.failed(side, error, now, kept_from, gates),
        }
    }

    /// An engine said something.
    pub(super) fn said(
        &mut self,
        side: Side,
        event: Event,
        now: Instant,
        kept_from: u64,
        gates: &mut impl Gates,
    ) {
        if self.over {
            return;
        }
        match (side, event) {
            (side, Event::Failed(error)) => self.failed(side, error, now, kept_from, gates),
            (Side::Probe, Event::Words(_) | Event::Covered { .. }) => self.probe_worked(now, gates),
            (Side::Probe, _) => {}
            (Side::Main, Event::Words(words)) => self.words(words, now, gates),
            // Decides nothing, so it is no progress.
            (Side::Main, Event::Interim(mut words)) => {
                self.place(&mut words);
                self.tell(Event::Interim(words));
            }
            (Side::Main, Event::Covered { until_sample }) => {
                let Some(main) = &self.main else { return };
                let until = (main.zero + until_sample).min(self.pushed);
                if until > self.covered {
                    self.covered = until;
                    self.worked(now, gates);
                    self.tell(Event::Covered { until_sample: until });
                }
                self.return_if_due(now, kept_from, gates);
            }
            (Side::Main, Event::Busy { waiting }) => {
                self.set_busy(true, now);
                self.tell(Event::Busy { waiting });
            }
            (Side::Main, Event::Resumed) => {
                self.set_busy(false, now);
                self.tell(Event::Resumed);
            }
            (Side::Main, Event::Skipped { from_sample, samples }) => {
                let zero = self.main.as_ref().map_or(0, |main| main.zero);
                self.tell(Event::Skipped { from_sample: zero + from_sample, samples });
            }
            (Side::Main, Event::Finished) => {
                self.settle_main(now, gates);
                self.over = true;
                self.tell(Event::Finished);
            }
            // An engine of a chain is no chain.
            (Side::Main, Event::Degraded { .. } | Event::Recovered { .. } | Event::Serving { .. }) => {}
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant, kept_from: u64, gates: &mut impl Gates) {
        if self.over {
            return;
        }
        if let Some(silent_for) = self.hangs(now) {
            let error = EngineError::Broken(format!("decided nothing for {} s", silent_for.as_secs()));
            return self.failed(Side::Main, error, now, kept_from, gates);
        }
        if self.probe.as_ref().is_some_and(|probe| now >= probe.opened_at + PROBE_MAX) {
            self.probe_is_late(now, gates);
        }
        // A probe for all that nobody speaks to must not keep the others waiting.
        if let Some(main) = &mut self.main
            && now >= main.opened_at + PROBE_MAX
            && let Some(permit) = main.permit.take()
        {
            gates.with(main.engine, |gate| gate.given_up(permit, now));
        }
        if now >= self.look_at {
            match &self.main {
                None => self.find(now, gates),
                Some(main) if main.engine > 0 && !self.finishing => self.look_back(main.engine, now, gates),
                Some(_) => self.looks_later(now),
            }
        }
    }

    /// When to call [`Self::tick`] at the latest.
    pub(super) fn next_tick(&self) -> Option<Instant> {
        if self.over {
            return None;
        }
        let Some(main) = &self.main else { return Some(self.look_at) };
        let spoken = self.speech.filter(|(_, heard)| !main.busy && *heard >= self.samples(SPEECH_MIN));
        let hangs_at = spoken.map(|(since, _)| since + self.patience(main.engine));
        let looks_at = (main.engine > 0).then_some(self.look_at);
        let settles_at = main.permit.as_ref().map(|_| main.opened_at + PROBE_MAX);
        let probe_at = self.probe.as_ref().map(|probe| probe.opened_at + PROBE_MAX);
        [hangs_at, looks_at, settles_at, probe_at].into_iter().flatten().min()
    }

    /// The stream is abandoned.
    pub(super) fn abandon(&mut self, now: Instant, gates: &mut impl Gates) {
        self.end(Side::Probe, now, gates);
        self.end(Side::Main, now, gates);
        self.over = true;
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push(Output::Tell(event));
    }

    fn samples(&self, time: Duration) -> u64 {
        (time.as_secs_f64() * f64::from(self.rate_hz)) as u64
    }

    fn patience(&self, engine: usize) -> Duration {
        self.numbers.silent_max.max(self.members[engine].patience)
    }

    fn set_busy(&mut self, busy: bool, now: Instant) {
        if let Some(main) = &mut self.main {
            main.busy = busy;
            self.progressed(now);
        }
    }

    /// Something was decided, or there is nothing to decide.
    fn progressed(&mut self, now: Instant) {
        self.progress_at = now;
        (self.loud_since, self.speech) = (None, None);
    }

    /// How long the main engine has decided nothing, if that is too long.
    fn hangs(&self, now: Instant) -> Option<Duration> {
        let main = self.main.as_ref().filter(|main| !main.busy)?;
        let (since, heard) = self.speech?;
        let silent_for = now.saturating_duration_since(since);
        (silent_for >= self.patience(main.engine) && heard >= self.samples(SPEECH_MIN))
            .then(|| now.saturating_duration_since(self.progress_at))
    }

    /// From the clock of the main engine's stream to this one's.
    fn place(&self, words: &mut [auricle_core::Word]) {
        let zero = self.main.as_ref().map_or(0, |main| main.zero);
        let zero_secs = zero as f64 / f64::from(self.rate_hz);
        for word in words {
            word.start += zero_secs;
            word.end += zero_secs;
        }
    }

    fn words(&mut self, mut words: Vec<auricle_core::Word>, now: Instant, gates: &mut impl Gates) {
        if self.main.is_none() {
            return;
        }
        self.place(&mut words);
        let Some(last) = words.last() else { return };
        self.last_word_end = ((last.end * f64::from(self.rate_hz)) as u64).min(self.pushed);
        // Words are final and in order: whatever is before the last one's end is decided.
        self.covered = self.covered.max(self.last_word_end);
        self.worked(now, gates);
        self.tell(Event::Words(words));
    }

    /// The main engine decided something.
    fn worked(&mut self, now: Instant, gates: &mut impl Gates) {
        self.progressed(now);
        if self.finishing {
            self.speech = Some((now, u64::MAX / 2));
        }
        let Some(main) = &mut self.main else { return };
        let engine = main.engine;
        let is_first = main.permit.is_some() || self.serving != Some(engine);
        if let Some(permit) = main.permit.take() {
            gates.with(engine, |gate| gate.worked(permit, now));
        }
        if now >= main.opened_at + STABLE_AFTER {
            self.found[engine] = Found::default();
        }
        let name = self.members[engine].name;
        if self.serving.replace(engine) != Some(engine) {
            self.tell(Event::Serving { engine: name });
        }
        if is_first || self.degraded {
            self.degraded = false;
            self.tell(Event::Recovered { engine: name });
        }
    }

    fn settle_main(&mut self, now: Instant, gates: &mut impl Gates) {
        if let Some(main) = &mut self.main
            && let Some(permit) = main.permit.take()
        {
            gates.with(main.engine, |gate| gate.given_up(permit, now));
        }
    }

    fn end(&mut self, side: Side, now: Instant, gates: &mut impl Gates) {
        let slot = match side {
            Side::Main => &mut self.main,
            Side::Probe => &mut self.probe,
        };
        let Some(hearing) = slot.take() else { return };
        if let Some(permit) = hearing.permit {
            gates.with(hearing.engine, |gate| gate.given_up(permit, now));
        }
        self.outputs.push(Output::Drop(side));
    }

    fn failed(
        &mut self,
        side: Side,
        error: EngineError,
        now: Instant,
        kept_from: u64,
        gates: &mut impl Gates,
    ) {
        let slot = match side {
            Side::Main => &mut self.main,
            Side::Probe => &mut self.probe,
        };
        let Some(Hearing { engine, permit, opened_at, .. }) = slot.take() else { return };
        self.outputs.push(Output::Drop(side));
        self.blame(engine, permit, &error, now, gates);
        if side == Side::Probe {
            return;
        }
        let silent_for = now.saturating_duration_since(self.progress_at.max(opened_at));
        if kept_from > self.covered {
            self.last_error = format!("{}: {error}", self.members[engine].name);
            return self.give_up("not all of what it had not decided is still in memory", now, gates);
        }
        self.find(now, gates);
        self.last_error = format!("{}: {error}", self.members[engine].name);
        let reason = match &error {
            EngineError::Broken(text) | EngineError::Refused(text) | EngineError::Unavailable(text) => {
                text.clone()
            }
            EngineError::Limited { text, .. } => text.clone(),
        };
        if !std::mem::replace(&mut self.degraded, true) {
            let next = self.main.as_ref().map(|main| self.members[main.engine].name);
            let engine = self.members[engine].name;
            // Before what the next engine says.
            self.tell(Event::Degraded { engine, reason, silent_for, next });
        }
    }
}
