//! P3 and P4 of the work on ended conversations: one owner at a time, each outcome once, each effect once by its key, and
//! every conversation that was heard reaches an end that people can see.

use std::collections::{HashMap, HashSet};

use auricle_core::{ConversationStatus, Limits};

use super::check::{Verdict, ensure};
use super::log::Happening;

#[derive(Default)]
struct Job {
    epoch: u64,
    /// By whom, until when by the wall clock of whom.
    leased: Option<(u32, i64)>,
    recorded: Option<u64>,
    over: bool,
}

#[derive(Default)]
struct Effect {
    key: String,
    epoch: u64,
    delivered: u32,
}

#[derive(Default)]
pub(crate) struct Jobs {
    jobs: HashMap<u32, Job>,
    effects: HashMap<u32, Effect>,
    keys: HashSet<String>,
    /// (conversation, revision).
    queued: HashSet<(u32, u32)>,
    completed: HashSet<(u32, u32)>,
    reported: HashSet<u32>,
    /// By process: attempt, user and whether it stands in for a pusher.
    running: HashMap<u32, HashMap<u32, (u32, bool)>>,
    heard: HashSet<u32>,
    found: HashSet<u32>,
    stuck: Option<String>,
}

impl Jobs {
    pub(crate) fn see(&mut self, happening: &Happening) -> Verdict {
        match happening {
            Happening::Stored { conversation, .. } => drop(self.heard.insert(*conversation)),
            Happening::Deleted { conversation, segments } => {
                ensure(*segments == 0, || {
                    format!("P4: {conversation} was deleted with {segments} segments")
                })?;
            }
            Happening::Queued { conversation, revision, job } => {
                let first = self.queued.insert((*conversation, *revision));
                ensure(first, || format!("P4: {conversation} was queued twice at revision {revision}"))?;
                self.jobs.insert(*job, Job::default());
                self.reported.remove(conversation);
            }
            Happening::Claimed { job, process, epoch, at, until } => {
                self.claim(*job, *process, *epoch, *at, *until)?
            }
            Happening::Gone { process } => {
                for job in self.jobs.values_mut() {
                    job.leased.take_if(|(of, _)| of == process);
                }
            }
            Happening::Renewed { job, epoch, until } => {
                if let Some((_, lasts)) = &mut self.current("renewal", *job, *epoch)?.leased {
                    *lasts = *until;
                }
            }
            Happening::Recorded { job, epoch } => self.current("step", *job, *epoch)?.recorded = Some(*epoch),
            Happening::Requeued { job, epoch } => self.current("retry", *job, *epoch)?.leased = None,
            Happening::Completed { job, conversation, revision, epoch } => {
                self.current("outcome", *job, *epoch)?.over = true;
                let first = self.completed.insert((*conversation, *revision));
                ensure(first, || format!("P4: {conversation} was completed twice at revision {revision}"))?;
            }
            Happening::Failed { job, conversation, .. } => {
                let job = self.jobs.entry(*job).or_default();
                ensure(!job.over, || format!("P4: {conversation} failed after its job was over"))?;
                job.over = true;
                self.reported.insert(*conversation);
            }
            Happening::Understood { job, epoch } => {
                // A worker that has lost its lease may not know it yet.
                let recorded = self.jobs.get(job).and_then(|job| job.recorded).filter(|by| by <= epoch);
                ensure(recorded.is_none(), || {
                    format!("P4: job {job} pays again at epoch {epoch} for a recorded step")
                })?;
            }
            Happening::AttemptBegan { process, attempt, user, fallback, .. } => {
                self.begin(*process, *attempt, *user, *fallback)?;
            }
            Happening::AttemptEnded { process, attempt, .. } => {
                self.running.entry(*process).or_default().remove(attempt);
            }
            Happening::Killed { process } => drop(self.running.remove(process)),
            Happening::EffectRecorded { effect, key } => {
                ensure(self.keys.insert(key.clone()), || format!("P4: the effect {key} was recorded twice"))?;
                self.effects.insert(*effect, Effect { key: key.clone(), ..Effect::default() });
            }
            Happening::EffectClaimed { effect, epoch } => {
                self.effects.entry(*effect).or_default().epoch = *epoch;
            }
            Happening::EffectEnded { effect, epoch, .. } => {
                let present = self.effects.get(effect).map(|effect| effect.epoch);
                ensure(present == Some(*epoch), || format!("P4: a stale deliverer ended effect {effect}"))?;
            }
            Happening::Delivered { effect, key } => {
                let effect = self.effects.entry(*effect).or_default();
                effect.delivered += 1;
                ensure(effect.key == *key, || format!("P4: {} was delivered as {key}", effect.key))?;
            }
            Happening::Final { conversation, revision, status, segments } => {
                self.is_final((*conversation, *revision), *status, *segments)
            }
            Happening::FinalEffect { effect, state, attempts } => {
                self.is_final_effect(*effect, state, *attempts)
            }
            _ => {}
        }
        Ok(())
    }

    fn claim(&mut self, number: u32, process: u32, epoch: u64, at: i64, until: i64) -> Verdict {
        let job = self.jobs.entry(number).or_default();
        ensure(!job.over, || format!("P4: job {number} was claimed after its end"))?;
        ensure(epoch == job.epoch + 1, || {
            format!("P4: job {number} went from epoch {} to {epoch}", job.epoch)
        })?;
        let held = job.leased.filter(|(_, lasts)| *lasts > at);
        ensure(held.is_none(), || {
            format!("P4: job {number} was claimed while a lease of it holds: {held:?}")
        })?;
        job.epoch = epoch;
        job.leased = Some((process, until));
        Ok(())
    }

    /// The job that a worker's accepted write belongs to, at its present epoch.
    fn current(&mut self, what: &str, number: u32, epoch: u64) -> Result<&mut Job, String> {
        let job = self.jobs.entry(number).or_default();
        ensure(job.epoch == epoch, || {
            format!(
                "P4 (D14): a {what} of epoch {epoch} was taken for job {number}, which is at {}",
                job.epoch
            )
        })?;
        ensure(!job.over, || format!("P4: a {what} was taken for job {number} after its end"))?;
        Ok(job)
    }

    fn begin(&mut self, process: u32, attempt: u32, user: u32, fallback: bool) -> Verdict {
        let running = self.running.entry(process).or_default();
        let same = fallback && running.values().any(|(of, _)| *of == user);
        ensure(!same, || format!("P3: process {process} runs two attempts for user {user} at once"))?;
        running.insert(attempt, (user, fallback));
        let most = Limits::default().jobs_running_max;
        ensure(running.len() <= most, || {
            format!("P3: process {process} runs {} attempts at once", running.len())
        })
    }

    fn is_final(
        &mut self,
        (conversation, revision): (u32, u32),
        status: ConversationStatus,
        segments: usize,
    ) {
        self.found.insert(conversation);
        let is_over = match status {
            ConversationStatus::Completed => self.completed.contains(&(conversation, revision)),
            ConversationStatus::Failed => self.reported.contains(&conversation),
            _ => segments == 0,
        };
        if !is_over {
            self.stuck.get_or_insert(format!("P4: {conversation} was heard and stays {}", status.as_str()));
        }
    }

    fn is_final_effect(&mut self, number: u32, state: &str, attempts: u32) {
        let effect = self.effects.entry(number).or_default();
        let is_over = match state {
            "delivered" => effect.delivered > 0,
            "failed" => attempts >= Limits::default().effect_attempts_max,
            _ => false,
        };
        if !is_over {
            self.stuck.get_or_insert(format!("P4: the effect {} stays {state}", effect.key));
        }
    }

    pub(crate) fn end(&self) -> Verdict {
        self.stuck.clone().map_or(Ok(()), Err)?;
        let lost = self.heard.iter().find(|conversation| !self.found.contains(conversation));
        ensure(lost.is_none(), || format!("P4: {lost:?} was heard and is gone"))?;
        // Both effects of a completion, or none of it happened.
        let effects = self.effects.len();
        ensure(effects == 2 * self.completed.len(), || {
            format!("P4: {} completions have {effects} effects", self.completed.len())
        })
    }
}
