//! Tokens a minute: a bucket that refills evenly.

use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// What is left of it.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    per_minute: f64,
    /// Below zero: owed.
    left: f64,
    at: Instant,
}

impl Budget {
    /// Full.
    pub(super) fn new(per_minute: u64, now: Instant) -> Self {
        let per_minute = per_minute.max(1) as f64;
        Self { per_minute, left: per_minute, at: now }
    }

    /// Takes `tokens`, or says after which time they are there. More than a minute's are let through when it is full, and the
    /// rest is owed.
    pub(super) fn take(&mut self, tokens: usize, now: Instant) -> Result<(), Duration> {
        self.refill(now);
        let needed = (tokens as f64).min(self.per_minute);
        if needed > self.left {
            // At least a millisecond: not to be asked again at the same moment.
            let wait = MINUTE.mul_f64((needed - self.left) / self.per_minute);
            return Err(wait.max(Duration::from_millis(1)));
        }
        self.left -= tokens as f64;
        Ok(())
    }

    /// What was taken for `estimated` tokens took `used`.
    pub(super) fn settle(&mut self, estimated: usize, used: usize) {
        self.left = (self.left + estimated as f64 - used as f64).min(self.per_minute);
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        let more = self.per_minute * passed.as_secs_f64() / MINUTE.as_secs_f64();
        self.left = (self.left + more).min(self.per_minute);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do to begin with")]
    fn budget() -> (Budget, Instant) {
        let now = Instant::now();
        (Budget::new(600, now), now)
    }

    #[test]
    fn what_is_spent_comes_back_within_a_minute() {
        let (mut budget, now) = budget();
        budget.take(600, now).unwrap();
        assert_eq!(budget.take(100, now), Err(Duration::from_secs(10)));
        assert!(budget.take(100, now + Duration::from_secs(9)).is_err());
        budget.take(100, now + Duration::from_secs(10)).unwrap();
        // It never holds more than a minute's.
        let later = now + Duration::from_secs(3_600);
        budget.take(600, later).unwrap();
        assert!(budget.take(1, later).is_err());
    }

    #[test]
    fn more_than_a_minute_allows_goes_through_alone_and_is_owed() {
        let (mut budget, now) = budget();
        budget.take(1_200, now).unwrap();
        assert_eq!(budget.take(1, now), Err(MINUTE.mul_f64(601.0 / 600.0)));
        let full = now + MINUTE * 2;
        budget.take(1_200, full).unwrap();
    }

    #[test]
    fn what_a_call_really_took_is_what_counts() {
        let (mut budget, now) = budget();
        budget.take(500, now).unwrap();
        budget.settle(500, 100);
        budget.take(500, now).unwrap();
        budget.settle(500, 700);
        assert_eq!(budget.take(1, now), Err(MINUTE.mul_f64(201.0 / 600.0)));
    }
}
