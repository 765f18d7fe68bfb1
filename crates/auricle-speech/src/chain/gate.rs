//! Whether one may try an engine: one gate for each, for all streams of the process.
//!
//! A breaker stops everybody after a few failures, and lets one stream try, for all, at times that chance keeps apart. An engine
//! that has failed and not yet worked again, or not worked yet at all, also has its attempts counted out by a token bucket, so
//! that no number of sessions makes a storm of them. An engine that works is not held up by either.

use std::time::{Duration, Instant};

use auricle_core::breaker::{Breaker, BreakerNumbers, BreakerPermit, BreakerState, Outcome};
use auricle_core::pace::{Pace, PaceNumbers};
use rand::{Rng, RngExt};

use super::ChainNumbers;
use crate::engine::EngineError;

/// How long an engine that works again has its attempts counted out.
const RETURN: Duration = Duration::from_secs(30);
/// When a stream that came too early asks again at the latest: it takes the first stream's first words for an engine that nobody
/// has tried yet to be everybody's.
const UNKNOWN_LOOK: Duration = Duration::from_millis(250);
/// The same while the engine fails or has just come back. Asking costs no attempt.
const CROWDED_LOOK: Duration = Duration::from_secs(1);

/// One engine's gate. Reads no clock.
#[derive(Debug)]
pub(super) struct Gate {
    numbers: ChainNumbers,
    breaker: Breaker,
    pace: Pace,
    /// It has worked since it last failed.
    trusted: bool,
    /// It has failed since it last worked.
    failing: bool,
    /// Attempts are counted out until then, so that not all return to an engine that has just come back at once.
    paced_until: Instant,
    /// When a stream last found that it works.
    worked_at: Option<Instant>,
    /// Openings since it last worked.
    openings: u32,
    attempts: u64,
}

/// Not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotYet {
    /// When it is worth asking again; `None` while another stream tries for all.
    pub(super) retry_at: Option<Instant>,
    /// Whether everybody is told the same time, so that those who ask then must be spread.
    pub(super) spread: bool,
}

impl Gate {
    pub(super) fn new(numbers: ChainNumbers, now: Instant) -> Self {
        let breaker = BreakerNumbers {
            failures: numbers.breaker_failures,
            window: numbers.breaker_window,
            open_for: numbers.open_max,
        };
        let pace = PaceNumbers {
            rate: (numbers.attempts_per_minute_max / 60).max(1),
            burst: numbers.attempts_burst,
            wait_max: Duration::ZERO,
            retry_max: Duration::from_secs(60),
        };
        Self {
            numbers,
            breaker: Breaker::new(breaker),
            pace: Pace::new(pace, now),
            trusted: false,
            failing: false,
            paced_until: now,
            worked_at: None,
            openings: 0,
            attempts: 0,
        }
    }

    /// Asks to open a stream. A permit is an attempt.
    pub(super) fn ask(&mut self, now: Instant) -> Result<BreakerPermit, NotYet> {
        let permit =
            self.breaker.ask(now).map_err(|rejected| NotYet { retry_at: rejected.retry_at, spread: true })?;
        if (!self.trusted || now < self.paced_until)
            && let Err(too_fast) = self.pace.ask(now)
        {
            self.breaker.settle(permit, Outcome::Unknown, now);
            let look = if self.failing { CROWDED_LOOK } else { UNKNOWN_LOOK };
            return Err(NotYet { retry_at: Some(now + too_fast.retry_after.min(look)), spread: false });
        }
        self.attempts += 1;
        Ok(permit)
    }

    /// Something was decided.
    pub(super) fn worked(&mut self, permit: BreakerPermit, now: Instant) {
        self.breaker.settle(permit, Outcome::Ok, now);
        self.worked_at = Some(now);
        if self.breaker.state(now) == BreakerState::Closed {
            self.trusted = true;
            self.openings = 0;
            if std::mem::take(&mut self.failing) {
                self.paced_until = now + RETURN;
            }
        }
    }

    /// The attempt was given up, and nothing is known.
    pub(super) fn given_up(&mut self, permit: BreakerPermit, now: Instant) {
        self.breaker.settle(permit, Outcome::Unknown, now);
    }

    /// A stream failed: one that was being tried, with its permit, or one that had worked.
    pub(super) fn failed(
        &mut self,
        permit: Option<BreakerPermit>,
        error: &EngineError,
        now: Instant,
        entropy: &mut impl Rng,
    ) {
        (self.trusted, self.failing) = (false, true);
        let opened = match permit {
            Some(permit) => self.breaker.settle(permit, Outcome::Failed, now),
            None => self.breaker.fail(now),
        };
        let nominal = match error {
            // It said so itself: nobody needs to find out again.
            EngineError::Limited { retry_after, .. } => {
                retry_after.map_or(self.numbers.limited_for, |after| after.min(self.numbers.refused_for))
            }
            _ if !opened => return,
            EngineError::Refused(_) => self.numbers.refused_for,
            EngineError::Unavailable(_) => self.numbers.limited_for,
            EngineError::Broken(_) => {
                let doubled = self.numbers.open_first.saturating_mul(1 << self.openings.min(16));
                doubled.min(self.numbers.open_max)
            }
        };
        self.openings += 1;
        self.breaker.reopen_for(nominal.mul_f64(entropy.random_range(1.0..=1.5)), now);
    }

    /// Whether it works, as far as is known.
    pub(super) fn is_trusted(&self) -> bool {
        self.trusted
    }

    pub(super) fn worked_at(&self) -> Option<Instant> {
        self.worked_at
    }

    pub(super) fn state(&self, now: Instant) -> BreakerState {
        self.breaker.state(now)
    }

    /// Streams opened, or tried, since the process began.
    pub(super) fn attempts(&self) -> u64 {
        self.attempts
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn broken() -> EngineError {
        EngineError::Broken("connection refused".into())
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do to begin with")]
    fn gate() -> (Gate, Instant, StdRng) {
        let now = Instant::now();
        (Gate::new(ChainNumbers::default(), now), now, StdRng::seed_from_u64(1))
    }

    /// Attempts of `streams` that ask every 100 ms for `secs`, each of which fails at once.
    fn storm(gate: &mut Gate, from: Instant, secs: u32, streams: usize, entropy: &mut StdRng) -> u64 {
        let before = gate.attempts();
        for tenth in 0..secs * 10 {
            let now = from + Duration::from_millis(100) * tenth;
            for _ in 0..streams {
                if let Ok(permit) = gate.ask(now) {
                    gate.failed(Some(permit), &broken(), now, entropy);
                }
            }
        }
        gate.attempts() - before
    }

    #[test]
    fn an_engine_that_refuses_sees_a_few_attempts_a_minute_however_many_streams_ask() {
        let (mut gate, now, mut entropy) = gate();
        assert!(storm(&mut gate, now, 60, 500, &mut entropy) <= 12);
        let later = now + Duration::from_secs(60);
        let a_minute = storm(&mut gate, later, 60, 500, &mut entropy);
        assert!((2..=5).contains(&a_minute), "{a_minute}");
    }

    #[test]
    fn nothing_holds_up_an_engine_that_works() {
        let (mut gate, now, _) = gate();
        let permit = gate.ask(now).unwrap();
        gate.worked(permit, now);
        assert!((0..10_000).all(|_| gate.ask(now).is_ok()));
    }

    #[test]
    fn attempts_at_one_that_has_not_worked_yet_are_counted_out() {
        let (mut gate, now, _) = gate();
        let numbers = ChainNumbers::default();
        let begun = (0..10_000).filter(|_| gate.ask(now).is_ok()).count();
        assert_eq!(begun, numbers.attempts_burst as usize, "nobody knows yet");
        let later = now + Duration::from_secs(10);
        let more = (0..10_000).filter(|_| gate.ask(later).is_ok()).count();
        assert_eq!(more, numbers.attempts_burst as usize);
    }

    #[test]
    fn who_came_too_early_to_an_engine_nobody_had_tried_yet_follows_as_soon_as_it_has_worked() {
        let (mut gate, now, _) = gate();
        let permit = gate.ask(now).unwrap();
        let early: Vec<_> = (0..1_000).filter_map(|_| gate.ask(now).err()).collect();
        assert!(early.len() > 900);
        let latest = early.iter().filter_map(|not_yet| not_yet.retry_at).max();
        assert!(latest <= Some(now + UNKNOWN_LOOK), "{latest:?}");
        gate.worked(permit, now + Duration::from_millis(200));
        assert!(early.iter().all(|_| gate.ask(now + UNKNOWN_LOOK).is_ok()));
    }

    #[test]
    fn one_that_names_a_time_is_left_alone_until_then_and_no_longer_than_bounded() {
        let (mut gate, now, mut entropy) = gate();
        let permit = gate.ask(now).unwrap();
        let limited =
            |secs| EngineError::Limited { text: "429".into(), retry_after: Some(Duration::from_secs(secs)) };
        gate.failed(Some(permit), &limited(30), now, &mut entropy);
        assert_eq!(gate.state(now + Duration::from_secs(29)), BreakerState::Open);
        assert_eq!(gate.state(now + Duration::from_secs(46)), BreakerState::HalfOpen);
        let again = now + Duration::from_secs(46);
        let permit = gate.ask(again).unwrap();
        gate.failed(Some(permit), &limited(86_400), again, &mut entropy);
        assert_eq!(gate.state(again + Duration::from_secs(460)), BreakerState::HalfOpen);
    }

    #[test]
    fn wrong_credentials_are_tried_again_after_minutes() {
        let (mut gate, now, mut entropy) = gate();
        for _ in 0..ChainNumbers::default().breaker_failures {
            let permit = gate.ask(now).unwrap();
            gate.failed(Some(permit), &EngineError::Refused("401".into()), now, &mut entropy);
        }
        assert_eq!(gate.state(now + Duration::from_secs(299)), BreakerState::Open);
    }
}
