//! A circuit breaker: after many failures in a short time nobody tries for a while, then one tries for all.
//!
//! Source of the numbers: pusher-and-processing 2.2. Unlike there, a probe that is given up leaves the way free for the next
//! one, and only the probe of the present opening closes the breaker: a success that was asked for before it opened says
//! nothing about now.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// When it opens and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerNumbers {
    /// It opens at this many failures …
    pub failures: usize,
    /// … within this time.
    pub window: Duration,
    /// And lets nobody through for this long.
    pub open_for: Duration,
}

/// Whether one may try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Everybody may.
    Closed,
    /// Nobody may.
    Open,
    /// One may, for all.
    HalfOpen,
}

/// The right to try once. Must be settled; dropping it unsettled is the driver's to prevent.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit is settled, with `Outcome::Unknown` if nothing came of it"]
pub struct BreakerPermit {
    /// Which opening it belongs to; `None` while closed.
    probe: Option<u64>,
}

/// What came of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It worked.
    Ok,
    /// It failed.
    Failed,
    /// It was given up.
    Unknown,
}

/// Nobody may try at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// When it is worth asking again. `None` while a probe is under way.
    pub retry_at: Option<Instant>,
}

/// The breaker. Reads no clock.
#[derive(Debug)]
pub struct Breaker {
    numbers: BreakerNumbers,
    /// The newest failures, at most `numbers.failures`.
    failures: VecDeque<Instant>,
    /// While it is not closed: when the next one may try, for all.
    probe_at: Option<Instant>,
    openings: u64,
    probing: bool,
}

impl Breaker {
    /// Closed.
    pub fn new(numbers: BreakerNumbers) -> Self {
        Self { numbers, failures: VecDeque::new(), probe_at: None, openings: 0, probing: false }
    }

    /// Its state.
    pub fn state(&self, now: Instant) -> BreakerState {
        match self.probe_at {
            None => BreakerState::Closed,
            Some(at) if now < at => BreakerState::Open,
            Some(_) => BreakerState::HalfOpen,
        }
    }

    /// Until when nobody may try; `None` while closed, a time that has passed while one may, for all.
    pub fn open_until(&self) -> Option<Instant> {
        self.probe_at
    }

    /// Asks to try.
    pub fn ask(&mut self, now: Instant) -> Result<BreakerPermit, Rejected> {
        match self.state(now) {
            BreakerState::Closed => Ok(BreakerPermit { probe: None }),
            BreakerState::Open => Err(Rejected { retry_at: self.probe_at }),
            BreakerState::HalfOpen if self.probing => Err(Rejected { retry_at: None }),
            BreakerState::HalfOpen => {
                self.probing = true;
                Ok(BreakerPermit { probe: Some(self.openings) })
            }
        }
    }

    /// Says what came of a try. True if this opened the breaker.
    pub fn settle(&mut self, permit: BreakerPermit, outcome: Outcome, now: Instant) -> bool {
        match permit.probe {
            Some(opening) if opening == self.openings && self.probe_at.is_some() => {
                self.probing = false;
                match outcome {
                    Outcome::Ok => {
                        self.probe_at = None;
                        self.failures.clear();
                        false
                    }
                    Outcome::Failed => {
                        self.open(now);
                        true
                    }
                    Outcome::Unknown => false,
                }
            }
            // Of an opening that is over.
            Some(_) => false,
            None => self.settle_ordinary(outcome, now),
        }
    }

    fn settle_ordinary(&mut self, outcome: Outcome, now: Instant) -> bool {
        if self.probe_at.is_some() || outcome == Outcome::Unknown {
            return false;
        }
        if outcome == Outcome::Ok {
            self.failures.clear();
            return false;
        }
        self.failures.push_back(now);
        while self.failures.front().is_some_and(|at| now.duration_since(*at) > self.numbers.window) {
            self.failures.pop_front();
        }
        let opens = self.failures.len() >= self.numbers.failures;
        if opens {
            self.open(now);
        }
        opens
    }

    /// Something failed that was begun long ago, with no permit left to settle. True if this opened the breaker.
    pub fn fail(&mut self, now: Instant) -> bool {
        self.settle_ordinary(Outcome::Failed, now)
    }

    /// Opens it from now on for another time than its numbers say: the other side has said how long, or chance shall keep many
    /// processes apart. A probe under way decides nothing any more.
    pub fn reopen_for(&mut self, time: Duration, now: Instant) {
        self.open(now);
        self.probe_at = Some(now + time);
    }

    fn open(&mut self, now: Instant) {
        self.probe_at = Some(now + self.numbers.open_for);
        self.probing = false;
        self.openings += 1;
        self.failures.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: BreakerNumbers =
        BreakerNumbers { failures: 20, window: Duration::from_secs(30), open_for: Duration::from_secs(60) };

    #[expect(clippy::disallowed_methods, reason = "any instant will do to begin with")]
    fn opened() -> (Breaker, Instant) {
        let (mut breaker, now) = (Breaker::new(NUMBERS), Instant::now());
        for failure in 0..20 {
            assert_eq!(breaker.state(now), BreakerState::Closed, "after {failure}");
            let permit = breaker.ask(now).unwrap();
            assert_eq!(breaker.settle(permit, Outcome::Failed, now), failure == 19);
        }
        (breaker, now)
    }

    #[test]
    fn twenty_failures_within_the_window_open_it_for_a_minute() {
        let (mut breaker, now) = opened();
        let again = now + NUMBERS.open_for;
        assert_eq!(breaker.ask(now), Err(Rejected { retry_at: Some(again) }));
        assert_eq!(breaker.state(again), BreakerState::HalfOpen);
    }

    #[test]
    fn failures_further_apart_or_between_successes_do_not() {
        let (_, start) = opened();
        let mut breaker = Breaker::new(NUMBERS);
        for failure in 0..200 {
            let now = start + Duration::from_secs(2) * failure;
            let permit = breaker.ask(now).unwrap();
            assert!(!breaker.settle(permit, Outcome::Failed, now));
        }
        for round in 0..200 {
            let permit = breaker.ask(start).unwrap();
            let outcome = if round % 10 == 9 { Outcome::Ok } else { Outcome::Failed };
            assert!(!breaker.settle(permit, outcome, start + Duration::from_secs(900)), "{round}");
        }
    }

    #[test]
    fn one_probes_for_all_and_its_outcome_decides() {
        let (mut breaker, now) = opened();
        let now = now + NUMBERS.open_for;
        let probe = breaker.ask(now).unwrap();
        assert_eq!(breaker.ask(now), Err(Rejected { retry_at: None }));
        assert!(breaker.settle(probe, Outcome::Failed, now), "open again");
        let now = now + NUMBERS.open_for;
        let probe = breaker.ask(now).unwrap();
        breaker.settle(probe, Outcome::Ok, now);
        assert_eq!(breaker.state(now), BreakerState::Closed);
    }

    #[test]
    fn l28_a_probe_that_is_given_up_lets_the_next_one_try() {
        let (mut breaker, now) = opened();
        let now = now + NUMBERS.open_for;
        let probe = breaker.ask(now).unwrap();
        breaker.settle(probe, Outcome::Unknown, now);
        assert!(breaker.ask(now).is_ok());
    }

    #[test]
    fn a_success_from_before_it_opened_does_not_close_it() {
        let mut breaker = Breaker::new(NUMBERS);
        let (_, now) = opened();
        let slow = breaker.ask(now).unwrap();
        for _ in 0..20 {
            let permit = breaker.ask(now).unwrap();
            breaker.settle(permit, Outcome::Failed, now);
        }
        breaker.settle(slow, Outcome::Ok, now);
        assert_eq!(breaker.state(now), BreakerState::Open);
    }

    #[test]
    fn it_opens_for_as_long_as_it_is_told() {
        let (mut breaker, now) = opened();
        breaker.reopen_for(Duration::from_secs(300), now);
        assert_eq!(breaker.state(now + Duration::from_secs(299)), BreakerState::Open);
        let again = now + Duration::from_secs(300);
        let probe = breaker.ask(again).unwrap();
        breaker.reopen_for(Duration::from_secs(10), again);
        breaker.settle(probe, Outcome::Ok, again);
        assert_eq!(breaker.state(again), BreakerState::Open, "what was asked before it opened says nothing");
    }

    #[test]
    fn a_probe_of_an_earlier_opening_decides_nothing() {
        let (mut breaker, now) = opened();
        let now = now + NUMBERS.open_for;
        let early = breaker.ask(now).unwrap();
        let stale = BreakerPermit { probe: Some(0) };
        breaker.settle(stale, Outcome::Ok, now);
        assert_eq!(breaker.state(now), BreakerState::HalfOpen);
        assert!(breaker.ask(now).is_err(), "the real probe is still under way");
        breaker.settle(early, Outcome::Ok, now);
        assert_eq!(breaker.state(now), BreakerState::Closed);
    }
}
