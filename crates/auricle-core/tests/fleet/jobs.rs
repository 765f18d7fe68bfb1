//! A model of the store: jobs by lease and epoch, recorded steps, effects by key. The contract is `auricle-store`'s; its
//! conformance suite checks it of the real ones.

use std::time::Duration;

use auricle_core::{
    ConversationId, ConversationStatus, EffectKey, EffectState, JobState, Revision, UnixMicros,
};

use super::Mutation;
use super::log::{Happening, Log};
use super::store::{Answer, Refusal, Store};

pub(crate) struct Job {
    pub(crate) number: u32,
    pub(crate) conversation: u32,
    pub(crate) user: u32,
    pub(crate) revision: u32,
    pub(crate) state: JobState,
    pub(crate) attempts: u32,
    epoch: u64,
    leased_by: Option<u32>,
    due_at: UnixMicros,
    recorded: bool,
}

impl Job {
    pub(crate) fn expire_of(&mut self, process: u32, now: UnixMicros) {
        if self.state == JobState::Leased && self.leased_by == Some(process) {
            self.due_at = now;
        }
    }
}

/// A worker's right to work on a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) job: u32,
    pub(crate) conversation: u32,
    pub(crate) user: u32,
    pub(crate) epoch: u64,
    pub(crate) attempts: u32,
}

/// Which jobs a claim may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClaimRule {
    pub(crate) process: u32,
    pub(crate) waited: Duration,
    pub(crate) one_per_user: bool,
    pub(crate) lease: Duration,
    pub(crate) attempts_max: u32,
}

/// What an attempt that did not complete leads to.
#[derive(Clone, Debug)]
pub(crate) enum AttemptOutcome {
    Retry(UnixMicros),
    Failed(&'static str),
    Released,
}

pub(crate) struct Effect {
    pub(crate) number: u32,
    pub(crate) key: EffectKey,
    pub(crate) state: EffectState,
    pub(crate) attempts: u32,
    epoch: u64,
    due_at: UnixMicros,
}

/// A deliverer's right to deliver.
#[derive(Clone, Debug)]
pub(crate) struct EffectLease {
    pub(crate) effect: u32,
    pub(crate) epoch: u64,
    pub(crate) attempts: u32,
    pub(crate) key: EffectKey,
}

impl Store {
    pub(crate) fn queue(&mut self, conversation: u32, user: u32, revision: u32, now: UnixMicros) -> u32 {
        let number = self.jobs.len() as u32;
        if self.mutation == Some(Mutation::IntentInMemory) {
            return number;
        }
        let state = JobState::Queued;
        let (attempts, epoch, leased_by, recorded) = (0, 0, None, false);
        let due_at = now;
        self.jobs.push(Job {
            number,
            conversation,
            user,
            revision,
            state,
            attempts,
            epoch,
            leased_by,
            due_at,
            recorded,
        });
        number
    }

    pub(crate) fn claim_job(&mut self, log: &mut Log, rule: ClaimRule, now: UnixMicros) -> Option<Lease> {
        let due_by = now - rule.waited;
        loop {
            let is_busy = |user: u32| {
                let mut jobs = self.jobs.iter();
                jobs.any(|job| {
                    let held = job.state == JobState::Leased && job.leased_by == Some(rule.process);
                    held && job.user == user && job.due_at > now
                })
            };
            let one_per_user = rule.one_per_user && self.mutation != Some(Mutation::ManyForOneUser);
            let due = self.jobs.iter().filter(|job| {
                let runnable = match job.state {
                    JobState::Queued => job.due_at <= due_by,
                    JobState::Leased => {
                        job.due_at <= due_by || self.mutation == Some(Mutation::ClaimsIgnoreLeases)
                    }
                    JobState::Completed | JobState::Failed => false,
                };
                runnable && !(one_per_user && is_busy(job.user))
            });
            let number = due.min_by_key(|job| (job.due_at, job.number))?.number;
            let job = &mut self.jobs[number as usize];
            if job.attempts >= rule.attempts_max {
                self.fail_job(log, number, "attempts are spent");
                continue;
            }
            job.state = JobState::Leased;
            job.epoch += 1;
            job.attempts += 1;
            job.leased_by = Some(rule.process);
            job.due_at = now + rule.lease;
            let (epoch, until) = (job.epoch, job.due_at.0);
            log.say(Happening::Claimed { job: number, process: rule.process, epoch, at: now.0, until });
            let (conversation, user, attempts) = (job.conversation, job.user, job.attempts);
            return Some(Lease { job: number, conversation, user, epoch, attempts });
        }
    }

    /// Job and conversation fail together (S4).
    fn fail_job(&mut self, log: &mut Log, number: u32, reason: &str) {
        let job = &mut self.jobs[number as usize];
        job.state = JobState::Failed;
        job.leased_by = None;
        let (conversation, revision) = (job.conversation, job.revision);
        if let Some(found) = self.conversations.get_mut(&conversation)
            && found.status == ConversationStatus::Processing
            && found.revision == revision
            && self.mutation != Some(Mutation::FailsHalf)
        {
            found.status = ConversationStatus::Failed;
        }
        log.say(Happening::Failed { job: number, conversation, reason: reason.into() });
    }

    /// The job of a lease, whatever its state, if no later claim took it.
    fn of_lease(&mut self, log: &mut Log, lease: Lease) -> Answer<&mut Job> {
        let fences = self.mutation != Some(Mutation::JobsWithoutEpochs);
        let job = &mut self.jobs[lease.job as usize];
        if fences && job.epoch != lease.epoch {
            log.say(Happening::Fenced { what: "job", number: lease.job, epoch: lease.epoch });
            return Err(Refusal::Fenced);
        }
        Ok(job)
    }

    fn leased(&mut self, log: &mut Log, lease: Lease) -> Answer<&mut Job> {
        let job = self.of_lease(log, lease)?;
        if job.state == JobState::Leased { Ok(job) } else { Err(Refusal::Fenced) }
    }

    pub(crate) fn renew_job(&mut self, log: &mut Log, lease: Lease, until: UnixMicros) -> Answer<()> {
        self.leased(log, lease)?.due_at = until;
        log.say(Happening::Renewed { job: lease.job, epoch: lease.epoch, until: until.0 });
        Ok(())
    }

    pub(crate) fn is_recorded(&self, lease: Lease) -> bool {
        self.jobs[lease.job as usize].recorded
    }

    pub(crate) fn record_step(&mut self, log: &mut Log, lease: Lease) -> Answer<()> {
        let forgets = self.mutation == Some(Mutation::StepsAreForgotten);
        self.leased(log, lease)?.recorded = !forgets;
        log.say(Happening::Recorded { job: lease.job, epoch: lease.epoch });
        Ok(())
    }

    /// Record, end of the job and effects in one transaction.
    pub(crate) fn complete_job(
        &mut self,
        log: &mut Log,
        lease: Lease,
        effects: &[&str],
        now: UnixMicros,
    ) -> Answer<()> {
        let job = self.of_lease(log, lease)?;
        if job.state == JobState::Completed {
            return Ok(());
        }
        let job = self.leased(log, lease)?;
        let (conversation, revision) = (job.conversation, job.revision);
        let found = self.conversations.get_mut(&conversation).ok_or(Refusal::Ended)?;
        if found.revision != revision || found.status != ConversationStatus::Processing {
            return Err(Refusal::Fenced);
        }
        found.status = ConversationStatus::Completed;
        let job = &mut self.jobs[lease.job as usize];
        job.state = JobState::Completed;
        job.leased_by = None;
        log.say(Happening::Completed { job: lease.job, conversation, revision, epoch: lease.epoch });
        if self.mutation != Some(Mutation::EffectsApart) {
            self.record_effects(log, lease, effects, now);
        }
        Ok(())
    }

    /// A key that is there already stays as it is.
    pub(crate) fn record_effects(&mut self, log: &mut Log, lease: Lease, effects: &[&str], now: UnixMicros) {
        let revision = self.jobs[lease.job as usize].revision;
        for name in effects {
            let conversation = ConversationId::new(format!("c{}", lease.conversation));
            let key = EffectKey::of_conversation(conversation, Revision(revision), *name);
            if self.effects.iter().any(|effect| effect.key == key) {
                continue;
            }
            let number = self.effects.len() as u32;
            log.say(Happening::EffectRecorded { effect: number, key: key.idempotency_key() });
            let state = EffectState::Pending;
            self.effects.push(Effect { number, key, state, attempts: 0, epoch: 0, due_at: now });
        }
    }

    pub(crate) fn end_attempt(
        &mut self,
        log: &mut Log,
        lease: Lease,
        outcome: &AttemptOutcome,
        now: UnixMicros,
    ) -> Answer<()> {
        let job = self.leased(log, lease)?;
        let (at, uncounted) = match outcome {
            AttemptOutcome::Retry(at) => (*at, 0),
            AttemptOutcome::Released => (now, 1),
            AttemptOutcome::Failed(reason) => {
                self.fail_job(log, lease.job, reason);
                return Ok(());
            }
        };
        job.state = JobState::Queued;
        job.leased_by = None;
        job.due_at = at;
        job.attempts -= uncounted;
        log.say(Happening::Requeued { job: lease.job, epoch: lease.epoch });
        Ok(())
    }

    pub(crate) fn claim_effects(
        &mut self,
        log: &mut Log,
        now: UnixMicros,
        lease: Duration,
        most: usize,
        attempts_max: u32,
    ) -> Vec<EffectLease> {
        let mut claimed = Vec::new();
        for effect in &mut self.effects {
            let open = matches!(effect.state, EffectState::Pending | EffectState::Leased);
            if claimed.len() >= most || !open || effect.due_at > now {
                continue;
            }
            if effect.attempts >= attempts_max {
                effect.state = EffectState::Failed;
                continue;
            }
            effect.state = EffectState::Leased;
            effect.epoch += 1;
            effect.attempts += 1;
            effect.due_at = now + lease;
            log.say(Happening::EffectClaimed { effect: effect.number, epoch: effect.epoch });
            let (attempts, key) = (effect.attempts, effect.key.clone());
            claimed.push(EffectLease { effect: effect.number, epoch: effect.epoch, attempts, key });
        }
        claimed
    }

    /// `due_at`: when a pending one is tried again.
    pub(crate) fn end_effect(
        &mut self,
        log: &mut Log,
        lease: &EffectLease,
        state: EffectState,
        due_at: UnixMicros,
    ) -> Answer<()> {
        let effect = &mut self.effects[lease.effect as usize];
        if effect.epoch != lease.epoch || effect.state != EffectState::Leased {
            log.say(Happening::Fenced { what: "effect", number: lease.effect, epoch: lease.epoch });
            return Err(Refusal::Fenced);
        }
        effect.state = state;
        effect.due_at = due_at;
        log.say(Happening::EffectEnded { effect: lease.effect, epoch: lease.epoch, state: state.as_str() });
        Ok(())
    }
}
