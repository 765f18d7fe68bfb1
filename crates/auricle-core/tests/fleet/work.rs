//! What works on ended conversations in every process: the worker with its bulkhead, the outbox, the sweeper. A model of
//! `auricle-process` and of the server's loops, over the model of the store.

use std::collections::BTreeMap;
use std::time::Duration;

use auricle_core::breaker::BreakerState;
use auricle_core::link::LinkState;
use auricle_core::{Backoff, ConversationStatus, EffectState};
use rand::RngExt;
use rand::rngs::StdRng;

use super::Mutation;
use super::jobs::{AttemptOutcome, ClaimRule, EffectLease, Lease};
use super::log::{Happening, Micros, SECOND};
use super::plan::{LISTENS, Trouble};
use super::store::Refusal;
use super::world::{Machine, Passage, World};

/// What completing a conversation sets off.
const EFFECTS: [&str; 2] = ["notify:memory_created", "webhook:memory_created"];

/// Job attempts of one process.
pub(crate) struct Worker {
    chance: StdRng,
    /// By the attempt's number.
    running: BTreeMap<u32, Attempt>,
    claiming: bool,
}

struct Attempt {
    lease: Lease,
    /// When it is no longer ours, as far as we know.
    lost_at: Micros,
}

/// Deliveries of one process.
pub(crate) struct Outbox {
    chance: StdRng,
    running: usize,
}

impl Worker {
    pub(crate) fn new(chance: StdRng) -> Self {
        Self { chance, running: BTreeMap::new(), claiming: false }
    }
}

impl Outbox {
    pub(crate) fn new(chance: StdRng) -> Self {
        Self { chance, running: 0 }
    }
}

fn micros(time: Duration) -> Micros {
    time.as_micros() as Micros
}

impl World {
    // --- loops -------------------------------------------------------------------------------------------------------

    pub(crate) fn announce(&mut self, machine: usize) {
        let process = self.machines[machine].process;
        let until = self.now(machine).wall + self.limits.lease;
        let passage = self.loop_passage(machine);
        let alive = move |store: &mut super::store::Store, _: &mut super::log::Log, _| {
            store.process_alive(process, until);
            Ok(())
        };
        self.call(machine, passage, alive, |_, _| {});
        self.after(micros(self.limits.lease_renew_every), Some(process), move |world| {
            world.announce(machine)
        });
    }

    fn loop_passage(&mut self, machine: usize) -> Passage {
        Passage::draw(&self.plan, self.log.at, &mut self.machines[machine].loops)
    }

    /// Ends conversations without a client, and gives up what this process owns and none of its sessions has.
    pub(crate) fn sweep(&mut self, machine: usize) {
        let process = self.machines[machine].process;
        let jitter = self.machines[machine].loops.random_range(0.8..1.2);
        self.after(micros(self.limits.sweep_every.mul_f64(jitter)), Some(process), move |world| {
            world.sweep(machine)
        });
        if self.mutation == Some(Mutation::NobodySweeps) {
            return;
        }
        let passage = self.loop_passage(machine);
        let most = self.limits.sweep_batch_max;
        self.call(
            machine,
            passage,
            move |store, _, now| Ok(store.orphans(now, most)),
            move |world, found| {
                for conversation in found.unwrap_or_default() {
                    let passage = world.loop_passage(machine);
                    let finalise = move |store: &mut super::store::Store, log: &mut super::log::Log, now| {
                        store.finalise(log, conversation, None, now)
                    };
                    world.call(machine, passage, finalise, move |world, _| world.wake_jobs(machine));
                }
            },
        );
        if self.mutation == Some(Mutation::ForgetsWhatItOwns) {
            return;
        }
        let passage = self.loop_passage(machine);
        self.call(
            machine,
            passage,
            move |store, _, _| Ok(store.owned_by(process)),
            move |world, owned| {
                let ours = || world.lives.values().filter(|life| life.process == process);
                if ours().any(|life| life.opening) {
                    return;
                }
                let mut left = owned.unwrap_or_default();
                left.retain(|ownership| !ours().any(|life| life.owns == Some(*ownership)));
                for ownership in left {
                    let passage = world.loop_passage(machine);
                    let release = move |store: &mut super::store::Store, _: &mut super::log::Log, _| {
                        store.release(ownership);
                        Ok(())
                    };
                    world.call(machine, passage, release, |_, _| {});
                }
            },
        );
    }

    // --- jobs --------------------------------------------------------------------------------------------------------

    pub(crate) fn poll_jobs(&mut self, machine: usize) {
        let process = self.machines[machine].process;
        let wait = self.machines[machine].worker.chance.random_range(SECOND * 9 / 10..SECOND * 11 / 10);
        self.after(wait, Some(process), move |world| world.poll_jobs(machine));
        self.wake_jobs(machine);
        self.answer_requests(machine);
    }

    /// Which jobs this process may take now. A listening process leaves the first chance to the pushers while it can reach
    /// them.
    fn rule(&self, machine: usize) -> ClaimRule {
        let process = self.machines[machine].process;
        let fallback = machine < LISTENS;
        let now = self.now(machine).mono;
        let mut links = self.lives.values().filter(|life| life.process == process).peekable();
        let reachable = self.machines[machine].breaker.state(now) == BreakerState::Closed
            && (links.peek().is_none() || links.any(|life| life.link.state() == LinkState::Connected));
        ClaimRule {
            process,
            waited: if fallback && reachable { self.limits.fallback_after } else { Duration::ZERO },
            one_per_user: fallback,
            lease: self.limits.lease,
            attempts_max: self.limits.job_attempts_max,
        }
    }

    pub(crate) fn wake_jobs(&mut self, machine: usize) {
        let most =
            if self.mutation == Some(Mutation::NoBulkhead) { 99 } else { self.limits.jobs_running_max };
        let rule = self.rule(machine);
        let Machine { worker, draining, .. } = &mut self.machines[machine];
        if worker.claiming || worker.running.len() >= most || *draining {
            return;
        }
        worker.claiming = true;
        let passage = self.work_passage(machine);
        self.call(
            machine,
            passage,
            move |store, log, now| Ok(store.claim_job(log, rule, now)),
            move |world, claimed| {
                world.machines[machine].worker.claiming = false;
                if let Ok(Some(lease)) = claimed {
                    world.begin(machine, lease);
                    world.wake_jobs(machine);
                }
            },
        );
    }

    fn work_passage(&mut self, machine: usize) -> Passage {
        Passage::draw_long(&self.plan, self.log.at, &mut self.machines[machine].worker.chance)
    }

    fn begin(&mut self, machine: usize, lease: Lease) {
        let trusts = [Some(Mutation::OutlivesItsLease), Some(Mutation::ManyForOneUser)];
        if machine < LISTENS && !trusts.contains(&self.mutation) {
            // The store gave us another job of this user: the lease of what still runs here for them is over.
            let running = self.machines[machine].worker.running.iter();
            let lost = running.filter(|(_, running)| running.lease.user == lease.user);
            for attempt in lost.map(|(attempt, _)| *attempt).collect::<Vec<_>>() {
                self.end(machine, attempt, "lost", None);
            }
        }
        self.attempts += 1;
        let attempt = self.attempts;
        let process = self.machines[machine].process;
        let lost_at = self.log.at + micros(self.limits.lease);
        let (job, user, fallback) = (lease.job, lease.user, machine < LISTENS);
        self.log.say(Happening::AttemptBegan { process, attempt, job, user, fallback });
        self.machines[machine].worker.running.insert(attempt, Attempt { lease, lost_at });
        self.after(micros(self.limits.lease_renew_every), Some(process), move |world| {
            world.renew(machine, attempt)
        });
        self.after(micros(self.limits.job_attempt_max), Some(process), move |world| {
            world.end(machine, attempt, "late", Some(None));
        });
        let passage = self.work_passage(machine);
        self.call(
            machine,
            passage,
            move |store, _, _| Ok(store.is_recorded(lease)),
            move |world, recorded| match recorded {
                Ok(true) => world.complete(machine, attempt),
                Ok(false) => world.understand(machine, attempt),
                Err(_) => world.end(machine, attempt, "gather", Some(None)),
            },
        );
    }

    fn running(&self, machine: usize, attempt: u32) -> Option<Lease> {
        self.machines[machine].worker.running.get(&attempt).map(|running| running.lease)
    }

    fn renew(&mut self, machine: usize, attempt: u32) {
        let Some(lease) = self.running(machine, attempt) else { return };
        let until = self.now(machine).wall + self.limits.lease;
        let passage = self.work_passage(machine);
        let renewed = move |store: &mut super::store::Store, log: &mut super::log::Log, _| {
            store.renew_job(log, lease, until)
        };
        self.call(machine, passage, renewed, move |world, renewed| {
            let at = world.log.at;
            let (process, wait) = (world.machines[machine].process, micros(world.limits.lease_renew_every));
            let lasts = micros(world.limits.lease);
            let Some(running) = world.machines[machine].worker.running.get_mut(&attempt) else { return };
            match renewed {
                Ok(()) => running.lost_at = at + lasts,
                Err(Refusal::Busy) if at < running.lost_at => {}
                Err(_) => return world.end(machine, attempt, "lost", None),
            }
            world.after(wait, Some(process), move |world| world.renew(machine, attempt));
        });
    }

    /// The expensive step: seconds of somebody else's model, which may hang, fail or refuse.
    fn understand(&mut self, machine: usize, attempt: u32) {
        let Some(lease) = self.running(machine, attempt) else { return };
        self.log.say(Happening::Understood { job: lease.job, epoch: lease.epoch });
        let process = self.machines[machine].process;
        let trouble = self.plan.is(Trouble::Understanding, self.log.at);
        let chance = &mut self.machines[machine].worker.chance;
        let wait = chance.random_range(SECOND / 10..12 * SECOND);
        match chance.random_range(0..10) {
            0..3 if trouble => {}
            3..7 if trouble => self.after(wait, Some(process), move |world| {
                world.end(machine, attempt, "transient", Some(None));
            }),
            7 if trouble => self.after(wait, Some(process), move |world| {
                world.end(machine, attempt, "permanent", Some(Some("permanent")));
            }),
            _ => self.after(wait, Some(process), move |world| world.record(machine, attempt)),
        }
    }

    fn record(&mut self, machine: usize, attempt: u32) {
        let Some(lease) = self.running(machine, attempt) else { return };
        let passage = self.work_passage(machine);
        self.call(
            machine,
            passage,
            move |store, log, _| store.record_step(log, lease),
            move |world, recorded| match recorded {
                Ok(()) => world.complete(machine, attempt),
                Err(Refusal::Busy) => world.end(machine, attempt, "record", Some(None)),
                Err(_) => world.end(machine, attempt, "lost", None),
            },
        );
    }

    fn complete(&mut self, machine: usize, attempt: u32) {
        let Some(lease) = self.running(machine, attempt) else { return };
        let passage = self.work_passage(machine);
        let done = move |store: &mut super::store::Store, log: &mut super::log::Log, now| {
            store.complete_job(log, lease, &EFFECTS, now)
        };
        self.call(machine, passage, done, move |world, completed| match completed {
            Ok(()) => {
                world.end(machine, attempt, "completed", None);
                if world.mutation == Some(Mutation::EffectsApart) {
                    let passage = world.work_passage(machine);
                    let apart = move |store: &mut super::store::Store, log: &mut super::log::Log, now| {
                        store.record_effects(log, lease, &EFFECTS, now);
                        Ok(())
                    };
                    world.call(machine, passage, apart, |_, _| {});
                }
                world.poll_effects_once(machine);
            }
            Err(Refusal::Busy) => world.end(machine, attempt, "complete", Some(None)),
            Err(_) => world.end(machine, attempt, "lost", None),
        });
    }

    /// `write`: `None` writes nothing, `Some(None)` asks for another attempt, `Some(Some(reason))` fails for good.
    fn end(&mut self, machine: usize, attempt: u32, why: &'static str, write: Option<Option<&'static str>>) {
        let Some(Attempt { lease, .. }) = self.machines[machine].worker.running.remove(&attempt) else {
            return;
        };
        let process = self.machines[machine].process;
        self.log.say(Happening::AttemptEnded { process, attempt, why });
        let outcome = match write {
            None if why == "released" => AttemptOutcome::Released,
            None => return self.wake_jobs(machine),
            Some(Some(reason)) => AttemptOutcome::Failed(reason),
            Some(None) if lease.attempts >= self.limits.job_attempts_max => AttemptOutcome::Failed("spent"),
            Some(None) => {
                let wait = self.backoff().delay(lease.attempts, &mut self.machines[machine].worker.chance);
                AttemptOutcome::Retry(self.now(machine).wall + wait)
            }
        };
        let passage = self.work_passage(machine);
        let end = move |store: &mut super::store::Store, log: &mut super::log::Log, now| {
            store.end_attempt(log, lease, &outcome, now)
        };
        self.call(machine, passage, end, move |world, _| world.wake_jobs(machine));
    }

    fn backoff(&self) -> Backoff {
        Backoff { first: self.limits.job_backoff_first, max: self.limits.job_backoff_max }
    }

    /// A drain: what runs is given back untried.
    pub(crate) fn give_back(&mut self, machine: usize) {
        let running: Vec<_> = self.machines[machine].worker.running.keys().copied().collect();
        for attempt in running {
            self.end(machine, attempt, "released", None);
        }
    }

    /// A pusher answers each request once, when its conversation has reached its end.
    fn answer_requests(&mut self, machine: usize) {
        if self.plan.is(Trouble::StoreBusy, self.log.at) {
            return;
        }
        let open = |conversation: &u32| {
            let status = self.store.conversations.get(conversation).map(|found| found.status);
            matches!(status, Some(ConversationStatus::InProgress | ConversationStatus::Processing))
        };
        let waiting = &self.machines[machine].waiting;
        let done: Vec<_> = waiting.iter().filter(|(_, _, of)| !open(of)).copied().collect();
        self.machines[machine].waiting.retain(|request| !done.contains(request));
        for (conn, request, conversation) in done {
            self.answer(conn, request, conversation);
            if self.mutation == Some(Mutation::AnswersTwice) {
                self.answer(conn, request, conversation);
            }
        }
    }

    // --- effects -----------------------------------------------------------------------------------------------------

    pub(crate) fn poll_effects(&mut self, machine: usize) {
        let process = self.machines[machine].process;
        let wait = self.machines[machine].outbox.chance.random_range(SECOND * 9 / 10..SECOND * 11 / 10);
        self.after(wait, Some(process), move |world| world.poll_effects(machine));
        self.poll_effects_once(machine);
    }

    fn outbox_passage(&mut self, machine: usize) -> Passage {
        Passage::draw_long(&self.plan, self.log.at, &mut self.machines[machine].outbox.chance)
    }

    fn poll_effects_once(&mut self, machine: usize) {
        let room = self.limits.effects_running_max.saturating_sub(self.machines[machine].outbox.running);
        if room == 0 || self.machines[machine].draining {
            return;
        }
        let lease = self.limits.effect_attempt_max * 2;
        let attempts_max = self.limits.effect_attempts_max;
        let passage = self.outbox_passage(machine);
        let claim = move |store: &mut super::store::Store, log: &mut super::log::Log, now| {
            Ok(store.claim_effects(log, now, lease, room, attempts_max))
        };
        self.call(machine, passage, claim, move |world, claimed| {
            for lease in claimed.unwrap_or_default() {
                world.deliver(machine, lease);
            }
        });
    }

    fn deliver(&mut self, machine: usize, mut lease: EffectLease) {
        let process = self.machines[machine].process;
        self.machines[machine].outbox.running += 1;
        let trouble = self.plan.is(Trouble::Receivers, self.log.at);
        let chance = &mut self.machines[machine].outbox.chance;
        let wait = chance.random_range(SECOND / 20..3 * SECOND);
        let (takes, says_so) = (!trouble || chance.random_bool(0.5), !trouble || chance.random_bool(0.5));
        if self.mutation == Some(Mutation::KeysOfAttempts) {
            lease.key.name = format!("{}#{}", lease.key.name, lease.attempts);
        }
        self.after(wait, Some(process), move |world| {
            if takes {
                let key = lease.key.idempotency_key();
                world.log.say(Happening::Delivered { effect: lease.effect, key });
            }
            let (state, due) = if takes && says_so {
                (EffectState::Delivered, Duration::ZERO)
            } else if lease.attempts >= world.limits.effect_attempts_max {
                (EffectState::Failed, Duration::ZERO)
            } else {
                let backoff = world.backoff();
                (
                    EffectState::Pending,
                    backoff.delay(lease.attempts, &mut world.machines[machine].outbox.chance),
                )
            };
            let due_at = world.now(machine).wall + due;
            let passage = world.outbox_passage(machine);
            let end = move |store: &mut super::store::Store, log: &mut super::log::Log, _| {
                store.end_effect(log, &lease, state, due_at)
            };
            world.call(machine, passage, end, move |world, _| world.machines[machine].outbox.running -= 1);
        });
    }
}
