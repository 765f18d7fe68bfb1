//! Breakers in front of others: one for each host, bounded in number, whose permits settle themselves when dropped.
//!
//! Decides nothing: see `auricle_core::breaker`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use auricle_core::breaker::{Breaker, BreakerNumbers, BreakerPermit, BreakerState, Outcome, Rejected};

use crate::Clock;

struct Host {
    breaker: Breaker,
    /// Grows with each question, of whatever host.
    asked: u64,
}

#[derive(Default)]
struct Hosts {
    known: HashMap<Box<str>, Host>,
    questions: u64,
}

/// What all tries of one kind of work share.
pub struct Gates {
    name: &'static str,
    numbers: BreakerNumbers,
    hosts_max: usize,
    clock: Arc<dyn Clock>,
    hosts: Mutex<Hosts>,
    /// What times here are counted from.
    began: Instant,
    /// Until when the last of the open hosts is not tried, in microseconds after `began`; [`CLOSED`] if none is open. Written
    /// under the lock and read without: a probe must not wait for a niced thread that holds it.
    open_until: AtomicU64,
}

/// No time: an opening that ends at the very beginning counts as one microsecond later.
const CLOSED: u64 = 0;

impl Gates {
    /// `name` is what metrics and logs call them. With more than `hosts_max` hosts, the one not asked about for longest is
    /// forgotten, and its next try goes through.
    pub fn new(
        name: &'static str,
        numbers: BreakerNumbers,
        hosts_max: usize,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let (hosts_max, hosts, began) = (hosts_max.max(1), Mutex::default(), clock.now());
        let open_until = AtomicU64::new(CLOSED);
        Arc::new(Self { name, numbers, hosts_max, clock, hosts, began, open_until })
    }

    /// Asks to try `host`.
    pub fn ask(self: &Arc<Self>, host: &str) -> Result<Pass, Rejected> {
        let now = self.clock.now();
        let mut hosts = self.hosts();
        hosts.questions += 1;
        let asked = hosts.questions;
        if !hosts.known.contains_key(host) && hosts.known.len() >= self.hosts_max {
            let oldest = hosts.known.iter().min_by_key(|(_, host)| host.asked).map(|(name, _)| name.clone());
            oldest.and_then(|name| hosts.known.remove(&name));
        }
        let known = hosts
            .known
            .entry(host.into())
            .or_insert_with(|| Host { breaker: Breaker::new(self.numbers), asked });
        known.asked = asked;
        let permit = known.breaker.ask(now);
        self.publish(&hosts);
        drop(hosts);
        match permit {
            Ok(permit) => Ok(Pass { gates: Arc::clone(self), host: host.into(), permit: Some(permit) }),
            Err(rejected) => {
                metrics::counter!("auricle_breaker_rejections_total", "name" => self.name).increment(1);
                Err(rejected)
            }
        }
    }

    /// How it stands with `host`; closed if nothing is known.
    pub fn state(&self, host: &str) -> BreakerState {
        let now = self.clock.now();
        self.hosts().known.get(host).map_or(BreakerState::Closed, |host| host.breaker.state(now))
    }

    /// The worst of all hosts. Waits for no lock.
    pub fn shown(&self) -> BreakerState {
        let now = self.clock.now().saturating_duration_since(self.began);
        match self.open_until.load(Ordering::Relaxed) {
            CLOSED => BreakerState::Closed,
            until if now < Duration::from_micros(until) => BreakerState::Open,
            _ => BreakerState::HalfOpen,
        }
    }

    fn settle(&self, host: &str, permit: BreakerPermit, outcome: Outcome) {
        let now = self.clock.now();
        let mut hosts = self.hosts();
        let opened = hosts.known.get_mut(host).is_some_and(|host| host.breaker.settle(permit, outcome, now));
        self.publish(&hosts);
        drop(hosts);
        if opened {
            tracing::warn!(name = self.name, host, wait = ?self.numbers.open_for, "it fails again and again: not tried for now");
        }
    }

    fn publish(&self, hosts: &Hosts) {
        let until = hosts.known.values().filter_map(|host| host.breaker.open_until()).max();
        let until = until.map_or(CLOSED, |until| {
            let until = until.saturating_duration_since(self.began).as_micros();
            u64::try_from(until).unwrap_or(u64::MAX).max(CLOSED + 1)
        });
        self.open_until.store(until, Ordering::Relaxed);
        let number = match self.shown() {
            BreakerState::Closed => 0.0,
            BreakerState::Open => 1.0,
            BreakerState::HalfOpen => 2.0,
        };
        metrics::gauge!("auricle_breaker_state", "name" => self.name).set(number);
    }

    fn hosts(&self) -> MutexGuard<'_, Hosts> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to try once; whatever becomes of its holder, the breaker hears of it (L28).
#[must_use = "a pass is settled, or counts as given up"]
pub struct Pass {
    gates: Arc<Gates>,
    host: Box<str>,
    permit: Option<BreakerPermit>,
}

impl Pass {
    /// Says what came of it.
    pub fn settle(mut self, outcome: Outcome) {
        self.settle_now(outcome);
    }

    fn settle_now(&mut self, outcome: Outcome) {
        if let Some(permit) = self.permit.take() {
            self.gates.settle(&self.host, permit, outcome);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.settle_now(Outcome::Unknown);
    }
}

#[cfg(test)]
mod tests {
    use auricle_core::UnixMicros;

    use super::*;

    struct Still(Mutex<Instant>);

    impl Clock for Still {
        fn wall(&self) -> UnixMicros {
            UnixMicros(0)
        }
        fn now(&self) -> Instant {
            *self.0.lock().unwrap()
        }
    }

    const OPEN_FOR: Duration = Duration::from_secs(30);

    #[expect(clippy::disallowed_methods, reason = "any instant will do to begin with")]
    fn gates(hosts_max: usize) -> (Arc<Gates>, Arc<Still>) {
        let clock = Arc::new(Still(Mutex::new(Instant::now())));
        let numbers = BreakerNumbers { failures: 2, window: Duration::from_secs(60), open_for: OPEN_FOR };
        (Gates::new("test", numbers, hosts_max, Arc::clone(&clock) as Arc<dyn Clock>), clock)
    }

    fn fail(gates: &Arc<Gates>, host: &str) {
        for _ in 0..2 {
            gates.ask(host).ok().unwrap().settle(Outcome::Failed);
        }
    }

    #[test]
    fn a_host_that_fails_closes_the_way_to_itself_only() {
        let (gates, _) = gates(10);
        fail(&gates, "a");
        assert!(gates.ask("a").is_err() && gates.ask("b").is_ok());
        assert_eq!((gates.state("a"), gates.state("b")), (BreakerState::Open, BreakerState::Closed));
    }

    #[test]
    fn p1_what_is_shown_needs_no_lock() {
        let (gates, clock) = gates(10);
        assert_eq!(gates.shown(), BreakerState::Closed);
        fail(&gates, "a");
        let held = gates.hosts();
        assert_eq!(gates.shown(), BreakerState::Open, "while another thread holds the lock");
        *clock.0.lock().unwrap() += OPEN_FOR;
        assert_eq!(gates.shown(), BreakerState::HalfOpen);
        drop(held);
        gates.ask("a").ok().unwrap().settle(Outcome::Ok);
        assert_eq!(gates.shown(), BreakerState::Closed);
    }

    #[test]
    fn l28_a_probe_that_is_dropped_leaves_the_way_free_for_the_next() {
        let (gates, clock) = gates(10);
        fail(&gates, "a");
        *clock.0.lock().unwrap() += OPEN_FOR;
        let probe = gates.ask("a").ok().unwrap();
        assert!(gates.ask("a").is_err(), "one tries for all");
        drop(probe);
        gates.ask("a").ok().unwrap().settle(Outcome::Ok);
        assert_eq!(gates.state("a"), BreakerState::Closed);
    }

    #[test]
    fn the_number_of_hosts_is_bounded_and_the_oldest_goes() {
        let (gates, _) = gates(2);
        fail(&gates, "a");
        fail(&gates, "b");
        assert!(gates.ask("a").is_err());
        assert!(gates.ask("c").is_ok());
        assert_eq!(gates.hosts().known.len(), 2);
        assert_eq!((gates.state("a"), gates.state("b")), (BreakerState::Open, BreakerState::Closed));
    }
}
