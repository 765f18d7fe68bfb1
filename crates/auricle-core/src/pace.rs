//! A token bucket that hands out moments: who comes too early is told when it may go on, if that is soon, else refused.
//!
//! Clients that were dropped all at once return all at once and do not back off, so whoever serves them paces itself. Waiting
//! a moment costs a client nothing; a refusal costs an Omi phone one of its eight tries.

use std::time::{Duration, Instant};

/// Refusals this far apart belong to different spells.
const QUIET: Duration = Duration::from_secs(1);

/// How fast, how many at once, and how long one may be made to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaceNumbers {
    /// A second. 0 counts as 1.
    pub rate: u32,
    /// At once, after a pause. 0 counts as 1.
    pub burst: u32,
    /// Whoever would have to wait longer is refused.
    pub wait_max: Duration,
    /// Longest time that a refusal names.
    pub retry_max: Duration,
}

/// It is too much at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFast {
    /// When the rate comes to it, behind all who were refused before it. At most [`PaceNumbers::retry_max`].
    pub retry_after: Duration,
}

/// The bucket. Reads no clock. A clock that goes back stands still for it.
#[derive(Debug)]
pub struct Pace {
    numbers: PaceNumbers,
    base: Instant,
    /// Nanoseconds from `base`: the latest moment asked at.
    now: u64,
    /// Nanoseconds for one.
    each: u64,
    /// When the bucket is full again: each that is let through adds `each`.
    full_at: u64,
    /// When the rate will have come to all who were refused.
    promised: u64,
    refused: Option<Spell>,
}

/// Refusals without a pause between them.
#[derive(Clone, Copy, Debug)]
struct Spell {
    first: u64,
    last: u64,
}

impl Pace {
    /// Full.
    pub fn new(numbers: PaceNumbers, now: Instant) -> Self {
        let each = 1_000_000_000_u64.div_ceil(u64::from(numbers.rate.max(1)));
        Self { numbers, base: now, now: 0, each, full_at: 0, promised: 0, refused: None }
    }

    /// Asks for one at `now`; says from when on. Moments are handed out in order of asking.
    pub fn ask(&mut self, now: Instant) -> Result<Instant, TooFast> {
        self.now = self.now.max(self.since_base(now));
        let full_at = self.full_at.max(self.now);
        let burst = u64::from(self.numbers.burst.max(1));
        let at = (full_at + self.each).saturating_sub(burst.saturating_mul(self.each)).max(self.now);
        if at - self.now > nanos(self.numbers.wait_max) {
            return Err(self.refuse(at));
        }
        self.full_at = full_at + self.each;
        Ok(self.base + Duration::from_nanos(at))
    }

    /// `room_at`: when the next would be let through that is willing to wait.
    fn refuse(&mut self, room_at: u64) -> TooFast {
        let longest = self.now.saturating_add(nanos(self.numbers.retry_max));
        self.promised = (self.promised.max(room_at) + self.each).min(longest);
        let spell = self.refused.filter(|spell| self.now - spell.last < nanos(QUIET));
        self.refused = Some(Spell { first: spell.map_or(self.now, |spell| spell.first), last: self.now });
        TooFast { retry_after: Duration::from_nanos(self.promised - self.now) }
    }

    /// How long it has been refusing without a pause of a second; zero if it does not.
    pub fn refusing_for(&self, now: Instant) -> Duration {
        let now = self.now.max(self.since_base(now));
        match self.refused {
            Some(spell) if now - spell.last < nanos(QUIET) => Duration::from_nanos(now - spell.first),
            _ => Duration::ZERO,
        }
    }

    fn since_base(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.base))
    }
}

/// 292 years are enough.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2).min(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NUMBERS: PaceNumbers =
        PaceNumbers { rate: 100, burst: 10, wait_max: Duration::ZERO, retry_max: Duration::from_secs(30) };
    const MS: Duration = Duration::from_millis(1);

    #[expect(clippy::disallowed_methods, reason = "any instant will do to begin with")]
    fn pace(numbers: PaceNumbers) -> (Pace, Instant) {
        let now = Instant::now();
        (Pace::new(numbers, now), now)
    }

    fn let_through(pace: &mut Pace, now: Instant, asked: usize) -> usize {
        (0..asked).filter(|_| pace.ask(now).is_ok()).count()
    }

    #[test]
    fn a_burst_goes_through_and_then_the_rate() {
        let (mut pace, now) = pace(NUMBERS);
        assert_eq!(let_through(&mut pace, now, 100), 10);
        assert_eq!(let_through(&mut pace, now + 50 * MS, 100), 5);
        assert_eq!(let_through(&mut pace, now + Duration::from_secs(3_600), 100), 10, "no more than a burst");
    }

    #[test]
    fn who_can_wait_gets_the_next_moment_and_nobody_overtakes() {
        let (mut pace, now) = pace(PaceNumbers { wait_max: 30 * MS, ..NUMBERS });
        let moments: Vec<_> = (0..14).map(|_| pace.ask(now).map(|at| at - now)).collect();
        assert_eq!(moments[..10], [Ok(Duration::ZERO); 10]);
        assert_eq!(moments[10..13], [Ok(10 * MS), Ok(20 * MS), Ok(30 * MS)]);
        assert!(moments[13].is_err());
    }

    #[test]
    fn refusals_are_told_different_moments_as_far_apart_as_the_rate_takes_them() {
        let (mut pace, now) = pace(NUMBERS);
        let_through(&mut pace, now, 10);
        let told: Vec<_> = (0..300).filter_map(|_| pace.ask(now).err()).map(|e| e.retry_after).collect();
        assert_eq!(told.len(), 300);
        assert!(told.windows(2).all(|pair| pair[1] - pair[0] == 10 * MS));
        assert_eq!(told[299].as_millis(), 3_010);
    }

    #[test]
    fn what_a_refusal_says_has_an_end_and_is_forgotten_with_time() {
        let (mut pace, now) = pace(PaceNumbers { retry_max: Duration::from_secs(2), ..NUMBERS });
        let_through(&mut pace, now, 10);
        let longest = (0..10_000).filter_map(|_| pace.ask(now).err()).map(|e| e.retry_after).max();
        assert_eq!(longest, Some(Duration::from_secs(2)));
        let later = now + Duration::from_secs(60);
        let_through(&mut pace, later, 10);
        assert!(pace.ask(later).unwrap_err().retry_after <= 20 * MS);
    }

    #[test]
    fn it_says_how_long_it_has_been_refusing() {
        let (mut pace, now) = pace(NUMBERS);
        let_through(&mut pace, now, 10);
        assert_eq!(pace.refusing_for(now), Duration::ZERO);
        for tenth in 0..15_u32 {
            let_through(&mut pace, now + 100 * MS * tenth, 50);
        }
        let last = now + 1_400 * MS;
        assert_eq!(pace.refusing_for(last), 1_400 * MS);
        assert_eq!(pace.refusing_for(last + 999 * MS), 2_399 * MS);
        assert_eq!(pace.refusing_for(last + Duration::from_secs(1)), Duration::ZERO);
        let again = last + Duration::from_secs(5);
        let_through(&mut pace, again, 11);
        assert_eq!(pace.refusing_for(again + 5 * MS), 5 * MS);
    }

    #[test]
    fn a_clock_that_goes_back_is_harmless() {
        let (mut pace, now) = pace(NUMBERS);
        let later = now + Duration::from_secs(10);
        assert_eq!(let_through(&mut pace, later, 4), 4);
        assert_eq!(let_through(&mut pace, now, 100), 6, "time stands still");
        assert!(pace.refusing_for(now) <= Duration::from_secs(1));
        assert_eq!(let_through(&mut pace, later + 10 * MS, 100), 1);
    }

    #[test]
    fn numbers_of_nothing_let_one_through_at_a_time() {
        let none = PaceNumbers { rate: 0, burst: 0, ..NUMBERS };
        let (mut pace, now) = pace(none);
        assert_eq!(let_through(&mut pace, now, 5), 1);
        assert_eq!(let_through(&mut pace, now + Duration::from_secs(1), 5), 1);
    }

    proptest! {
        #[test]
        fn no_window_ever_holds_more_than_the_burst_and_the_rate(
            rate in 1_u32..2_000,
            burst in 1_u32..100,
            wait_ms in 0_u64..500,
            steps in prop::collection::vec((-20_i64..40, 1_usize..30), 1..120),
        ) {
            let numbers = PaceNumbers { rate, burst, wait_max: Duration::from_millis(wait_ms), ..NUMBERS };
            let (mut pace, start) = pace(numbers);
            let (mut at_ms, mut moments) = (0_i64, Vec::new());
            for (step, asked) in steps {
                at_ms = (at_ms + step).max(0);
                let now = start + MS * at_ms as u32;
                for _ in 0..asked {
                    match pace.ask(now) {
                        Ok(at) => moments.push(at),
                        Err(refused) => prop_assert!(refused.retry_after <= numbers.retry_max),
                    }
                }
            }
            prop_assert!(moments.is_sorted());
            for from in 0..moments.len() {
                for until in from..moments.len() {
                    let secs = (moments[until] - moments[from]).as_secs_f64();
                    let most = f64::from(burst) + f64::from(rate) * secs + 1e-6;
                    prop_assert!((until - from + 1) as f64 <= most);
                }
            }
        }
    }
}
