//! Which engine hears: the first that may be tried, an earlier one again once it works, none.

use std::time::{Duration, Instant};

use auricle_core::breaker::{BreakerPermit, BreakerState};
use auricle_core::job::Backoff;
use rand::RngExt;

use super::{Gates, Hearing, Machine, Output, PROBE_MAX, STABLE_AFTER, Side};
use crate::chain::gate::NotYet;
use crate::engine::{EngineError, Event};

/// How often a stream on a later engine looks whether an earlier one works again.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// While another stream tries for all, and how long beyond a breaker's time, streams wait up to this long, by chance.
const SPREAD: Duration = Duration::from_secs(2);
/// Without a pause for this long the next decision will do.
const PAUSE_WAIT_MAX: Duration = Duration::from_secs(60);
/// A pause: this much was decided after the last word.
const PAUSE: Duration = Duration::from_millis(600);

impl Machine {
    /// Counts a failure against an engine: for this stream, and for all.
    pub(super) fn blame(
        &mut self,
        engine: usize,
        permit: Option<BreakerPermit>,
        error: &EngineError,
        now: Instant,
        gates: &mut impl Gates,
    ) {
        let (numbers, entropy) = (&self.numbers, &mut self.entropy);
        let found = &mut self.found[engine];
        found.failures += 1;
        let backoff = Backoff { first: numbers.reopen_first, max: numbers.refused_for.min(STABLE_AFTER) };
        let wait = match error {
            EngineError::Refused(_) => numbers.refused_for,
            EngineError::Limited { retry_after, .. } => {
                retry_after.unwrap_or(numbers.limited_for).min(numbers.refused_for)
            }
            EngineError::Broken(_) | EngineError::Unavailable(_) => {
                backoff.delay(found.failures.min(3), entropy)
            }
        };
        found.not_before = Some(now + wait);
        if self.unsuited[engine] {
            return;
        }
        gates.with(engine, |gate| gate.failed(permit, error, now, entropy));
    }

    /// Opens the first engine that may be tried. One that is tried by one stream for all is not asked by a stream that has nothing
    /// to be heard: it would find nothing out, and keep the others waiting.
    pub(super) fn find(&mut self, now: Instant, gates: &mut impl Gates) {
        self.find_for(self.pushed == self.covered, now, gates);
    }

    pub(super) fn find_for(&mut self, is_idle: bool, now: Instant, gates: &mut impl Gates) {
        let mut soonest: Option<Instant> = None;
        self.passed = false;
        for engine in (0..self.members.len()).filter(|engine| !self.unsuited[*engine]) {
            let not_yet = match self.found[engine].not_before {
                Some(at) if at > now => NotYet { retry_at: Some(at), spread: true },
                _ if is_idle && gates.with(engine, |gate| gate.state(now)) == BreakerState::HalfOpen => {
                    self.passed = true;
                    NotYet { retry_at: Some(now), spread: true }
                }
                _ => match gates.with(engine, |gate| gate.ask(now)) {
                    Ok(permit) => return self.open(Side::Main, engine, permit, now),
                    Err(not_yet) => not_yet,
                },
            };
            let spread = SPREAD.mul_f64(self.entropy.random_range(0.1..=1.0));
            let spread = if not_yet.spread { spread } else { Duration::ZERO };
            let retry_at = not_yet.retry_at.unwrap_or(now) + spread;
            soonest = Some(soonest.map_or(retry_at, |at| at.min(retry_at)));
        }
        self.look_at = soonest.unwrap_or(now + self.numbers.refused_for);
    }

    pub(super) fn open(&mut self, side: Side, engine: usize, permit: BreakerPermit, now: Instant) {
        let zero = if side == Side::Main { self.covered } else { self.pushed };
        let hearing = Hearing { engine, zero, permit: Some(permit), opened_at: now, busy: false };
        match side {
            Side::Main => {
                self.main = Some(hearing);
                self.looks_later(now);
                // Speech that the last engine did not decide is this one's now.
                self.progress_at = now;
                self.speech = self.speech.map(|(_, heard)| (now, heard));
            }
            Side::Probe => self.probe = Some(hearing),
        }
        self.outputs.push(Output::Open { side, engine, from: zero });
    }

    /// Streams do not look all at once.
    pub(super) fn looks_later(&mut self, now: Instant) {
        self.look_at = now + LOOK_EVERY.mul_f64(self.entropy.random_range(0.5..=1.5));
    }

    /// Whether an engine before `current` works again.
    pub(super) fn look_back(&mut self, current: usize, now: Instant, gates: &mut impl Gates) {
        self.looks_later(now);
        if self.probe.is_some() || self.return_at.is_some_and(|(engine, _)| engine < current) {
            return;
        }
        for engine in 0..current {
            if self.unsuited[engine] || self.found[engine].not_before.is_some_and(|at| at > now) {
                continue;
            }
            if gates.with(engine, |gate| gate.state(now) == BreakerState::Closed && gate.is_trusted()) {
                let wait = self.numbers.return_within.mul_f64(self.entropy.random_range(0.0..=1.0));
                self.return_at = Some((engine, now + wait));
                return;
            }
            if let Ok(permit) = gates.with(engine, |gate| gate.ask(now)) {
                return self.open(Side::Probe, engine, permit, now);
            }
        }
    }

    pub(super) fn probe_worked(&mut self, now: Instant, gates: &mut impl Gates) {
        let Some(probe) = &mut self.probe else { return };
        let engine = probe.engine;
        if let Some(permit) = probe.permit.take() {
            gates.with(engine, |gate| gate.worked(permit, now));
        }
        self.found[engine].not_before = None;
        self.return_at = Some((engine, now));
        self.end(Side::Probe, now, gates);
    }

    /// With speech in it, it hangs; else nothing is known.
    pub(super) fn probe_is_late(&mut self, now: Instant, gates: &mut impl Gates) {
        let spoken = self.probe.as_ref().is_some_and(|probe| self.last_word_end > probe.zero);
        if !spoken {
            return self.end(Side::Probe, now, gates);
        }
        let Some(Hearing { engine, permit, .. }) = self.probe.take() else { return };
        self.outputs.push(Output::Drop(Side::Probe));
        let error = EngineError::Broken(format!("decided nothing for {} s", PROBE_MAX.as_secs()));
        self.blame(engine, permit, &error, now, gates);
    }

    /// Back to an earlier engine: at a pause, where nothing but silence is played twice.
    pub(super) fn return_if_due(&mut self, now: Instant, kept_from: u64, gates: &mut impl Gates) {
        let (Some((engine, at)), Some(main)) = (self.return_at, &self.main) else { return };
        if engine >= main.engine || self.finishing {
            self.return_at = None;
            return;
        }
        let pause = self.covered >= self.last_word_end + self.samples(PAUSE);
        let due = now >= at && (pause || now >= at + PAUSE_WAIT_MAX);
        if !due || kept_from > self.covered {
            return;
        }
        self.return_at = None;
        if let Ok(permit) = gates.with(engine, |gate| gate.ask(now)) {
            self.settle_main(now, gates);
            self.open(Side::Main, engine, permit, now);
        }
    }

    /// Leaves the rest of the stream to the spool.
    pub(super) fn give_up(&mut self, why: &str, now: Instant, gates: &mut impl Gates) {
        self.end(Side::Probe, now, gates);
        self.over = true;
        let text =
            format!("no speech engine can hear ({}); {why}: the audio is kept on disk", self.last_error);
        // Else it may be this audio that no engine bears.
        let all_away = (0..self.members.len()).all(|engine| {
            gates.with(engine, |gate| gate.state(now) != BreakerState::Closed) || self.unsuited[engine]
        });
        let error = if all_away { EngineError::Unavailable(text) } else { EngineError::Broken(text) };
        self.tell(Event::Failed(error));
    }
}
