//! Several engines as one: when the first fails the next hears on, and the first again once it works.
//!
//! Owns: which engine hears a stream, what of its audio is kept for the next one, how often engines are tried by the whole process.
//! Leaves to others: what an engine is; audio that is kept on disk.
//! Invariants: no failure of an engine ends a session; each stretch of audio has the words of one engine; what is kept, and how
//! often an engine is tried, is bounded for the whole process. Start at [`machine`].

mod gate;
mod machine;
mod replay;
#[cfg(test)]
mod simulation;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use auricle_core::breaker::BreakerState;
use auricle_core::{Account, Limits};

use self::gate::Gate;
use self::machine::Gates;
use self::replay::Budget;
use crate::engine::{Engine, EngineError, EventSender, Stream, StreamSpec};

/// While every breaker is open, a stream that would have to wait longer than this for its first engine is not opened.
const FIRST_WAIT_MAX: Duration = Duration::from_secs(3);

/// The bounds of a chain; of [`Limits`] those that begin with `speech_`, where each is explained.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "`Limits` explains each")]
pub struct ChainNumbers {
    pub replay_secs_max: u32,
    pub replay_total_bytes_max: usize,
    pub silent_max: Duration,
    pub breaker_failures: usize,
    pub breaker_window: Duration,
    pub open_first: Duration,
    pub open_max: Duration,
    pub limited_for: Duration,
    pub refused_for: Duration,
    pub attempts_per_minute_max: u32,
    pub attempts_burst: u32,
    pub return_within: Duration,
    /// `engine_reopen_first`.
    pub reopen_first: Duration,
}

impl From<&Limits> for ChainNumbers {
    fn from(limits: &Limits) -> Self {
        Self {
            replay_secs_max: limits.speech_replay_secs_max,
            replay_total_bytes_max: limits.speech_replay_total_bytes_max,
            silent_max: limits.speech_silent_max,
            breaker_failures: limits.speech_breaker_failures,
            breaker_window: limits.speech_breaker_window,
            open_first: limits.speech_breaker_open_first,
            open_max: limits.speech_breaker_open_max,
            limited_for: limits.speech_limited_for,
            refused_for: limits.speech_refused_for,
            attempts_per_minute_max: limits.speech_attempts_per_minute_max,
            attempts_burst: limits.speech_attempts_burst,
            return_within: limits.speech_return_within,
            reopen_first: limits.engine_reopen_first,
        }
    }
}

impl Default for ChainNumbers {
    fn default() -> Self {
        Self::from(&Limits::default())
    }
}

/// How an engine of a chain is, for `/readyz` detail and `doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its name.
    pub engine: &'static str,
    /// Whether it is tried.
    pub breaker: BreakerState,
    /// Whether it has worked since it last failed.
    pub works: bool,
    /// Streams opened or tried since the process began.
    pub attempts: u64,
}

struct Member {
    engine: Arc<dyn Engine>,
    gate: Mutex<Gate>,
}

/// What all streams of a chain share.
struct Members {
    list: Vec<Arc<Member>>,
    numbers: ChainNumbers,
    budget: Budget,
    account: Account,
}

impl Gates for &Members {
    fn with<T>(&mut self, engine: usize, act: impl FnOnce(&mut Gate) -> T) -> T {
        let mut gate = self.list[engine].gate.lock().unwrap_or_else(PoisonError::into_inner);
        let made = act(&mut gate);
        let state = match gate.state(now()) {
            BreakerState::Closed => 0.0,
            BreakerState::Open => 1.0,
            BreakerState::HalfOpen => 2.0,
        };
        metrics::gauge!("auricle_speech_breaker_state", "engine" => self.list[engine].engine.name())
            .set(state);
        made
    }
}

/// Engines in the order in which they are preferred.
pub struct Chain {
    members: Arc<Members>,
}

impl Chain {
    /// Of at least one engine. `account`: where audio that is kept in memory is counted.
    pub fn new(engines: Vec<Arc<dyn Engine>>, numbers: ChainNumbers, account: Account) -> Self {
        let gate = || Mutex::new(Gate::new(numbers.clone(), now()));
        let list = engines.into_iter().map(|engine| Arc::new(Member { engine, gate: gate() })).collect();
        let budget = Budget::new(numbers.replay_total_bytes_max);
        Self { members: Arc::new(Members { list, numbers, budget, account }) }
    }

    /// The engine of this name alone: no other takes over from it. How often it is tried stays one number for the process. `None`
    /// if the chain has none such.
    pub fn only(&self, name: &str) -> Option<Self> {
        let member = self.members.list.iter().find(|member| member.engine.name() == name)?;
        let (numbers, account) = (self.members.numbers.clone(), self.members.account.clone());
        let budget = Budget::new(numbers.replay_total_bytes_max);
        let list = vec![Arc::clone(member)];
        Some(Self { members: Arc::new(Members { list, numbers, budget, account }) })
    }

    /// How each engine is, in order.
    pub fn status(&self) -> Vec<MemberStatus> {
        let of = |member: &Arc<Member>| {
            let gate = member.gate.lock().unwrap_or_else(PoisonError::into_inner);
            MemberStatus {
                engine: member.engine.name(),
                breaker: gate.state(now()),
                works: gate.is_trusted(),
                attempts: gate.attempts(),
            }
        };
        self.members.list.iter().map(of).collect()
    }

    /// What each engine says of itself, in order. May block for seconds.
    pub fn checks(&self) -> Vec<(&'static str, Result<String, EngineError>)> {
        self.members.list.iter().map(|member| (member.engine.name(), member.engine.check())).collect()
    }

    /// Whether a stream has found since then that an engine works.
    pub fn has_worked_since(&self, at: Instant) -> bool {
        self.members.list.iter().any(|member| {
            let gate = member.gate.lock().unwrap_or_else(PoisonError::into_inner);
            gate.worked_at().is_some_and(|worked| worked >= at)
        })
    }

    /// Bytes of audio kept for the next engine, of all streams.
    pub fn replay_bytes(&self) -> usize {
        self.members.budget.bytes()
    }
}

impl Engine for Chain {
    /// The preferred engine's.
    fn name(&self) -> &'static str {
        self.members.list.first().map_or("none", |member| member.engine.name())
    }

    /// Errors: no engine can be tried soon. The audio is better kept on disk.
    fn open(&self, spec: StreamSpec, events: EventSender) -> Result<Box<dyn Stream>, EngineError> {
        match &self.members.list[..] {
            // Nothing that could fail or recover.
            [only] if only.engine.name() == "none" => only.engine.open(spec, events),
            _ => stream::open(&self.members, spec, events, FIRST_WAIT_MAX),
        }
    }

    /// Whether any can work.
    fn check(&self) -> Result<String, EngineError> {
        let mut last = EngineError::Unavailable("no speech engine is configured".to_owned());
        for (name, result) in self.checks() {
            match result {
                Ok(finding) => return Ok(format!("{name}: {finding}")),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// The runtime's clock, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
