//! Heartbeats: who must keep beating, and how long ago each last did.
//!
//! Stamping is one relaxed atomic store. Reading takes a lock that nobody holds while working.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::monotonic;

/// How often who waits beats.
const BEAT_EVERY: Duration = Duration::from_secs(5);

/// Whose heartbeat it is, which decides what its silence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A worker of the `sessions` runtime: its silence turns `/livez` to 503.
    Session,
    /// A background loop: its silence makes the watchdog restart it.
    Loop,
}

/// One heart.
#[derive(Debug)]
pub(crate) struct Pulse {
    name: String,
    role: Role,
    base: Instant,
    beaten_ms: AtomicU64,
}

impl Pulse {
    /// Beats.
    pub(crate) fn beat(&self, now: Instant) {
        let ms = now.saturating_duration_since(self.base).as_millis();
        self.beaten_ms.store(u64::try_from(ms).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Waits, beating.
    pub(crate) async fn rest(&self, time: Duration) {
        let next = monotonic() + time;
        while let Some(left) = next.checked_duration_since(monotonic()).filter(|left| !left.is_zero()) {
            self.beat(monotonic());
            tokio::time::sleep(left.min(BEAT_EVERY)).await;
        }
    }

    /// Time since the last beat.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        let since_base = now.saturating_duration_since(self.base);
        since_base.saturating_sub(Duration::from_millis(self.beaten_ms.load(Ordering::Relaxed)))
    }
}

/// All hearts of the process.
#[derive(Clone, Debug)]
pub(crate) struct Vitals {
    base: Instant,
    pulses: Arc<Mutex<Vec<Arc<Pulse>>>>,
}

impl Vitals {
    /// No hearts yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self { base: now, pulses: Arc::default() }
    }

    /// Adds a heart, which counts as having beaten now.
    pub(crate) fn add(&self, name: impl Into<String>, role: Role, now: Instant) -> Arc<Pulse> {
        let pulse =
            Arc::new(Pulse { name: name.into(), role, base: self.base, beaten_ms: AtomicU64::new(0) });
        pulse.beat(now);
        self.pulses.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&pulse));
        pulse
    }

    /// Each heart of a role with the time since its last beat.
    pub(crate) fn ages(&self, role: Role, now: Instant) -> Vec<(String, Duration)> {
        let pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        pulses.iter().filter(|pulse| pulse.role == role).map(|p| (p.name.clone(), p.age(now))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulse_ages_until_it_beats() {
        let start = crate::clock::monotonic();
        let vitals = Vitals::new(start);
        let pulse = vitals.add("session-0", Role::Session, start);
        let later = start + Duration::from_secs(11);
        assert_eq!(vitals.ages(Role::Session, later), [("session-0".into(), Duration::from_secs(11))]);
        pulse.beat(later);
        assert_eq!(pulse.age(later), Duration::ZERO);
        assert!(vitals.ages(Role::Loop, later).is_empty());
    }
}
