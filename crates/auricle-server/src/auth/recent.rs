//! A bounded memory of what was decided about a token, by its SHA-256.
//!
//! Two generations: when the young one holds half of what is allowed it becomes the old one and the old one is forgotten.
//! So it never holds more than its bound, and each insertion takes constant time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

type Entries<T> = HashMap<[u8; 32], (T, Instant)>;

/// Decisions younger than `age_max`, at most `entries_max` of them.
pub(super) struct Recent<T> {
    young: Entries<T>,
    old: Entries<T>,
    entries_max: usize,
    age_max: Duration,
}

impl<T: Clone> Recent<T> {
    pub(super) fn new(entries_max: usize, age_max: Duration) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), entries_max, age_max }
    }

    /// What was decided, if that is recent enough.
    pub(super) fn get(&self, digest: &[u8; 32], now: Instant) -> Option<T> {
        let (decision, at) = self.young.get(digest).or_else(|| self.old.get(digest))?;
        (now.saturating_duration_since(*at) < self.age_max).then(|| decision.clone())
    }

    /// Forgets a decision, however old, and says whether there was one.
    pub(super) fn remove(&mut self, digest: &[u8; 32]) -> bool {
        let young = self.young.remove(digest).is_some();
        self.old.remove(digest).is_some() || young
    }

    pub(super) fn insert(&mut self, digest: [u8; 32], decision: T, now: Instant) {
        if self.young.len() >= (self.entries_max / 2).max(1) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, (decision, now));
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u32) -> [u8; 32] {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&n.to_le_bytes());
        digest
    }

    #[expect(clippy::disallowed_methods, reason = "a first instant to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_decision_lasts_as_long_as_its_age_allows() {
        let (now, age) = (start(), Duration::from_secs(30));
        let mut recent = Recent::new(10, age);
        recent.insert(digest(1), "no", now);
        assert_eq!(recent.get(&digest(1), now + age - Duration::from_millis(1)), Some("no"));
        assert_eq!(recent.get(&digest(1), now + age), None);
        assert_eq!(recent.get(&digest(2), now), None);
    }

    #[test]
    fn it_never_holds_more_than_its_bound_and_forgets_the_oldest() {
        let now = start();
        let mut recent = Recent::new(100, Duration::from_secs(30));
        for n in 0..10_000 {
            recent.insert(digest(n), n, now);
            assert!(recent.len() <= 100);
        }
        assert_eq!(recent.get(&digest(9_999), now), Some(9_999));
        assert_eq!(recent.get(&digest(9_950), now), Some(9_950));
        assert_eq!(recent.get(&digest(0), now), None);
    }
}
