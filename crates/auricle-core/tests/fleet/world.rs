//! Virtual time, processes that die and stand still, and calls to the store. Everything is one queue of happenings.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use auricle_core::breaker::{Breaker, BreakerNumbers};
use auricle_core::session::Now;
use auricle_core::{ConversationStatus, EffectState, Limits, UnixMicros};
use rand::RngExt;
use rand::rngs::StdRng;

use super::Mutation;
use super::client::Client;
use super::listen::Life;
use super::log::{Happening, Log, Micros, SECOND};
use super::plan::{self, Blow, CHAOS, LISTENS, MACHINES, Plan, Pushers, Trouble};
use super::store::{Answer, Refusal, Store};
use super::wire::Conn;
use super::work::{Outbox, Worker};

/// By then each live link has its connection again: what a link that was refused at the worst moment needs.
const RECOVERED_BY: Micros = CHAOS + 190 * SECOND;
/// Bytes of audio that may wait for one link: 40 s of it.
pub(crate) const LINK_AUDIO_MAX: usize = 8_000;
/// Clients go for good.
pub(crate) const LEAVE_AT: Micros = CHAOS + 200 * SECOND;
/// By then each conversation has reached its end.
const DONE_BY: Micros = LEAVE_AT + 900 * SECOND;

type Act = Box<dyn FnOnce(&mut World)>;

/// A machine and the process that runs on it at the moment.
pub(crate) struct Machine {
    /// New at each start.
    pub(crate) process: u32,
    pub(crate) up: bool,
    pub(crate) draining: bool,
    frozen_until: Micros,
    /// How far its wall clock is off.
    skew: i64,
    pub(crate) breaker: Breaker,
    pub(crate) worker: Worker,
    pub(crate) outbox: Outbox,
    /// Of the sweeper and the announcing loop.
    pub(crate) loops: StdRng,
    /// Requests without an answer: connection, request, conversation.
    pub(crate) waiting: Vec<(u32, u32, u32)>,
}

/// The fleet.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) pushers: Pushers,
    /// Whether each output of a session is written down.
    pub(crate) listens_in: bool,
    pub(crate) plan: Plan,
    pub(crate) limits: Arc<Limits>,
    base: Instant,
    queue: BTreeMap<(Micros, u64), (Option<u32>, Act)>,
    order: u64,
    pub(crate) log: Log,
    pub(crate) store: Store,
    pub(crate) machines: Vec<Machine>,
    pub(crate) clients: Vec<Client>,
    pub(crate) lives: BTreeMap<u32, Life>,
    pub(crate) conns: BTreeMap<u32, Conn>,
    pub(crate) requests: u32,
    pub(crate) attempts: u32,
    pub(crate) chaos: StdRng,
}

/// How a call to the store goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passage {
    there: Micros,
    back: Micros,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Done,
    NotDone,
    AnswerLost,
}

impl Passage {
    /// Of a call that is made at `at`.
    pub(crate) fn draw(plan: &Plan, at: Micros, chance: &mut StdRng) -> Self {
        let (mut there, mut back, mut fate) =
            (chance.random_range(500..4_000), chance.random_range(500..4_000), Fate::Done);
        if plan.is(Trouble::StoreBusy, at) {
            there *= 200;
            back *= 600;
            fate = match chance.random_range(0..10) {
                0..4 => Fate::NotDone,
                4..6 => Fate::AnswerLost,
                _ => Fate::Done,
            };
        }
        Self { there, back, fate }
    }

    pub(crate) fn later(self, wait: Micros) -> Self {
        Self { there: self.there + wait, ..self }
    }

    /// Of a worker's call: now and then it is under way for longer than a lease.
    pub(crate) fn draw_long(plan: &Plan, at: Micros, chance: &mut StdRng) -> Self {
        let mut passage = Self::draw(plan, at, chance);
        if at < CHAOS && chance.random_bool(0.07) {
            passage.there += chance.random_range(10..40) * SECOND;
        }
        passage
    }
}

/// Small buffers and quick retries, so that their ends are reached within minutes.
fn limits() -> Limits {
    Limits {
        link_audio_bytes_max: LINK_AUDIO_MAX,
        link_frame_bytes_max: 600,
        link_segments_max: 8,
        link_requests_max: 6,
        link_samples_max: 3,
        breaker_failures: 4,
        breaker_open_for: Duration::from_secs(20),
        link_degraded_for: Duration::from_secs(20),
        job_backoff_max: Duration::from_secs(60),
        job_attempt_max: Duration::from_secs(60),
        ..Limits::default()
    }
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "any instant will do to begin with")]
    pub(crate) fn new(seed: u64, mutation: Option<Mutation>, pushers: Pushers) -> Self {
        let limits = Arc::new(limits());
        let mut world = Self {
            seed,
            mutation,
            pushers,
            listens_in: false,
            plan: Plan::draw(seed),
            limits,
            base: Instant::now(),
            queue: BTreeMap::new(),
            order: 0,
            log: Log::default(),
            store: Store::new(mutation),
            machines: Vec::new(),
            clients: Vec::new(),
            lives: BTreeMap::new(),
            conns: BTreeMap::new(),
            requests: 0,
            attempts: 0,
            chaos: plan::chance(seed, "chaos", 0),
        };
        for machine in 0..MACHINES {
            let started = world.machine(machine, 0);
            world.machines.push(started);
            world.start_loops(machine);
        }
        for window in world.plan.windows.clone() {
            let text = format!("{:?} until {} s", window.trouble, window.until / SECOND);
            world.after(window.from, None, move |world| world.log.say(Happening::Fault(text)));
        }
        for (at, machine, blow) in world.plan.blows.clone() {
            world.after(at, None, move |world| world.strike(machine, blow));
        }
        world.after(CHAOS, None, |world| world.log.say(Happening::Calm));
        world.after(RECOVERED_BY, None, Self::look_at_links);
        world.start_clients();
        world
    }

    fn machine(&self, machine: usize, start: u32) -> Machine {
        let process = machine as u32 * 100 + start;
        let Limits { breaker_failures: failures, breaker_window: window, breaker_open_for: open_for, .. } =
            *self.limits;
        Machine {
            process,
            up: true,
            draining: false,
            frozen_until: 0,
            skew: self.plan.skew[machine],
            breaker: Breaker::new(BreakerNumbers { failures, window, open_for }),
            worker: Worker::new(plan::chance(self.seed, "worker", process)),
            outbox: Outbox::new(plan::chance(self.seed, "outbox", process)),
            loops: plan::chance(self.seed, "loops", process),
            waiting: Vec::new(),
        }
    }

    fn start_loops(&mut self, machine: usize) {
        let process = self.machines[machine].process;
        self.log.say(Happening::Born { process, pusher: machine >= LISTENS });
        let first = self.machines[machine].loops.random_range(1..SECOND / 2);
        self.after(0, Some(process), move |world| world.announce(machine));
        self.after(first, Some(process), move |world| world.sweep(machine));
        self.after(first / 2, Some(process), move |world| world.poll_jobs(machine));
        self.after(first / 3, Some(process), move |world| world.poll_effects(machine));
    }

    /// Queues `act`. With a process, it happens only while that one lives, and not while it stands still.
    pub(crate) fn after(
        &mut self,
        wait: Micros,
        process: Option<u32>,
        act: impl FnOnce(&mut World) + 'static,
    ) {
        self.order += 1;
        self.queue.insert((self.log.at + wait, self.order), (process, Box::new(act)));
    }

    /// One call to the store: `call` happens at some moment even if its caller is gone by then; `then` only if it is not.
    pub(crate) fn call<T: 'static>(
        &mut self,
        machine: usize,
        passage: Passage,
        call: impl FnOnce(&mut Store, &mut Log, UnixMicros) -> Answer<T> + 'static,
        then: impl FnOnce(&mut World, Answer<T>) + 'static,
    ) {
        let (process, now) = (self.machines[machine].process, self.now(machine).wall);
        self.after(passage.there, None, move |world| {
            let answer = match passage.fate {
                Fate::Done => call(&mut world.store, &mut world.log, now),
                Fate::NotDone => Err(Refusal::Busy),
                Fate::AnswerLost => {
                    drop(call(&mut world.store, &mut world.log, now));
                    Err(Refusal::Busy)
                }
            };
            world.after(passage.back, Some(process), move |world| then(world, answer));
        });
    }

    /// Both clocks of a machine.
    pub(crate) fn now(&self, machine: usize) -> Now {
        let wall = 1_780_000_000_000_000 + self.log.at as i64 + self.machines[machine].skew;
        Now { mono: self.base + Duration::from_micros(self.log.at), wall: UnixMicros(wall) }
    }

    /// When a timer that is due then is told.
    pub(crate) fn micros_of(&self, at: Instant) -> Micros {
        at.saturating_duration_since(self.base).as_nanos().div_ceil(1_000) as Micros
    }

    pub(crate) fn is_up(&self, process: u32) -> bool {
        let machine = &self.machines[process as usize / 100];
        machine.up && machine.process == process
    }

    pub(crate) fn is_frozen(&self, machine: usize) -> bool {
        self.machines[machine].frozen_until > self.log.at
    }

    fn strike(&mut self, machine: usize, blow: Blow) {
        let process = self.machines[machine].process;
        match blow {
            _ if !self.machines[machine].up || self.is_frozen(machine) => {}
            Blow::Kill(down_for) => self.kill(machine, down_for),
            Blow::Freeze(time) => {
                let until = self.log.at + time;
                self.machines[machine].frozen_until = until;
                self.log.say(Happening::Frozen { process, until });
                self.sicken(machine, "frozen");
            }
            Blow::Jump(skew) => {
                self.machines[machine].skew = skew;
                self.log.say(Happening::Fault(format!("{process}: clock off by {skew} us")));
            }
            Blow::Drain => self.drain(machine),
        }
    }

    pub(crate) fn kill(&mut self, machine: usize, down_for: Micros) {
        let process = self.machines[machine].process;
        self.log.say(Happening::Killed { process });
        self.machines[machine].up = false;
        self.lose_lives(machine);
        self.lose_conns(machine);
        self.after(down_for, None, move |world| {
            let skew = world.machines[machine].skew;
            world.machines[machine] = world.machine(machine, process % 100 + 1);
            world.machines[machine].skew = skew;
            world.start_loops(machine);
        });
    }

    fn drain(&mut self, machine: usize) {
        let process = self.machines[machine].process;
        self.log.say(Happening::Draining { process });
        self.machines[machine].draining = true;
        let lives: Vec<_> =
            self.lives.values().filter(|life| life.process == process).map(|life| life.number).collect();
        for life in lives {
            self.log.say(Happening::Drained { life });
            self.session_input(life, auricle_core::session::Input::Drain);
        }
        self.give_back(machine);
        let limit = self.limits.drain_max.as_micros() as Micros;
        self.after(limit, Some(process), move |world| {
            let mut chance = plan::chance(world.seed, "gone", process);
            let passage = Passage::draw(&world.plan, world.log.at, &mut chance);
            let gone = move |store: &mut Store, log: &mut Log, now| {
                store.process_gone(log, process, now);
                Ok(())
            };
            world.call(machine, passage, gone, move |world, _| world.kill(machine, SECOND));
        });
    }

    fn look_at_links(&mut self) {
        let settled = self.log.at - 10 * SECOND;
        for life in self.lives.values().filter(|life| life.joined < settled && !life.leaving) {
            let connected = life.link.state() == auricle_core::link::LinkState::Connected;
            self.log.say(Happening::LinkRecovered { life: life.number, connected });
        }
    }

    fn is_done(&self) -> bool {
        let heard = |found: &super::store::Conversation| !found.segments.is_empty();
        let open = [ConversationStatus::InProgress, ConversationStatus::Processing];
        self.log.at > LEAVE_AT + SECOND
            && self.lives.is_empty()
            && !self.store.conversations.values().any(|found| heard(found) && open.contains(&found.status))
            && !self
                .store
                .effects
                .iter()
                .any(|effect| matches!(effect.state, EffectState::Pending | EffectState::Leased))
            && self.machines.iter().all(|machine| machine.waiting.is_empty())
    }

    /// Plays the seed to its end.
    pub(crate) fn run(mut self) -> Log {
        let mut look_at = LEAVE_AT;
        while let Some(((at, _), (process, act))) = self.queue.pop_first() {
            if at > look_at {
                look_at = at + SECOND;
                if self.is_done() || at > DONE_BY {
                    break;
                }
            }
            self.log.at = at;
            if let Some(process) = process {
                let machine = &self.machines[process as usize / 100];
                if !self.is_up(process) {
                    continue;
                }
                if machine.frozen_until > at {
                    self.order += 1;
                    self.queue.insert((machine.frozen_until, self.order), (Some(process), act));
                    continue;
                }
            }
            act(&mut self);
        }
        self.sum_up();
        self.log
    }

    fn sum_up(&mut self) {
        for (number, found) in &self.store.conversations {
            let (revision, status, segments) = (found.revision, found.status, found.segments.len());
            self.log.say(Happening::Final { conversation: *number, revision, status, segments });
        }
        for effect in &self.store.effects {
            let (effect, state, attempts) = (effect.number, effect.state.as_str(), effect.attempts);
            self.log.say(Happening::FinalEffect { effect, state, attempts });
        }
        let waiting: HashSet<_> = self.machines.iter().flat_map(|machine| &machine.waiting).collect();
        let mut waiting: Vec<_> = waiting.into_iter().copied().collect();
        waiting.sort_unstable();
        for (conn, request, _) in waiting {
            self.log.say(Happening::FinalRequest { conn, request });
        }
    }
}
