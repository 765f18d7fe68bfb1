//! Claims jobs and runs them: gather, understand, complete.
//!
//! A job is claimed with a lease and an epoch. While an attempt runs its lease is renewed; losing it cancels the attempt,
//! and the store refuses whatever it still tries to write. A step's result is recorded when it is done, and a later
//! attempt begins after the last recorded one. The outcome, the job's end and the effects are one transaction.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use auricle_core::{
    Backoff, Conversation, EffectId, FinaliseReason, JobId, Limits, ProcessId, Provenance, UserId,
};
use auricle_store::{
    ActionItemFilter, AttemptOutcome, ClaimRule, ClaimedJob, Completion, Job, JobLease, NewEffect,
    StepRecord, Store, StoreError,
};
use futures_util::FutureExt;
use jiff::tz::TimeZone;
use rand::RngExt;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{Beat, Clock, Local, Request, Steps, Understand, UnderstandError, Understanding, record};

/// Looks for jobs at least this often: hints may be lost.
const POLL: Duration = Duration::from_secs(1);
/// The step whose result is worth keeping.
const UNDERSTAND: &str = "understand";
/// Before the names of steps inside it.
const PART: &str = "understand/";
/// How many open action items understanding is told, and of what age. Source: pusher-and-processing 4.2.
const OPEN_ITEMS_MAX: usize = 50;
const OPEN_ITEMS_AGE: Duration = Duration::from_secs(2 * 86_400);
/// Share of the drain that running attempts may use to end by themselves.
const GRACE: f64 = 0.5;

/// Why an attempt did not complete.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    /// Somebody else has the job now: nothing is written.
    #[error("the lease was lost")]
    Lost,
    /// The conversation was deleted.
    #[error("the conversation is gone")]
    Gone,
    /// Worth another attempt.
    #[error("{step}: {reason}")]
    Transient { step: &'static str, reason: String, after: Option<Duration> },
    /// What it needs is away, which says nothing about the job.
    #[error("{step}: {reason}")]
    Away { step: &'static str, reason: String, after: Duration },
    /// Will fail again in the same way.
    #[error("{step}: {reason}")]
    Permanent { step: &'static str, reason: String },
    /// The server is shutting down.
    #[error("given back")]
    Released,
}

impl AttemptError {
    fn label(&self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Gone => "gone",
            Self::Transient { .. } => "transient",
            Self::Away { .. } => "postponed",
            Self::Permanent { .. } => "permanent",
            Self::Released => "released",
        }
    }

    fn transient(step: &'static str, reason: impl Into<String>) -> Self {
        Self::Transient { step, reason: reason.into(), after: None }
    }

    fn understand(error: UnderstandError) -> Self {
        match error {
            UnderstandError::Transient { reason, after } => {
                Self::Transient { step: UNDERSTAND, reason, after }
            }
            UnderstandError::Away { reason, after } => Self::Away { step: UNDERSTAND, reason, after },
            UnderstandError::Permanent(reason) => Self::Permanent { step: UNDERSTAND, reason },
        }
    }

    fn store(step: &'static str, error: StoreError) -> Self {
        match error {
            StoreError::Fenced(_) => Self::Lost,
            StoreError::NotFound(_) => Self::Gone,
            other => Self::transient(step, other.to_string()),
        }
    }
}

/// Runs jobs of this process.
pub struct Worker {
    /// Where jobs are.
    pub store: Arc<dyn Store>,
    /// What makes records of them.
    pub understand: Arc<dyn Understand>,
    /// Bounds.
    pub limits: Arc<Limits>,
    /// As leases name it.
    pub process: ProcessId,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// For users who have set none.
    pub time_zone: TimeZone,
    /// Notified when there may be a job. A hint: the worker looks by itself every second.
    pub wake: Arc<Notify>,
    /// The outbox's waker: notified when effects have been recorded.
    pub effects: Arc<Notify>,
    /// Names of the effects of each completion, recorded in its transaction: what is configured, and no more.
    pub records: Vec<&'static str>,
    /// How long a job waits for an understanding that is away before `local` stands in; `None`: for ever, as far as the bounds go.
    pub fallback_after: Option<Duration>,
    /// Which jobs it may claim, asked at each claim; for a worker that stands in for others.
    pub rule: ClaimWhen,
}

/// Steps of an attempt inside its understanding, as rows of its job.
struct JobSteps<'a> {
    store: &'a dyn Store,
    lease: &'a JobLease,
    /// As they were when the attempt began.
    known: &'a [StepRecord],
    clock: &'a dyn Clock,
}

impl std::fmt::Debug for JobSteps<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobSteps").field("lease", self.lease).field("known", &self.known.len()).finish()
    }
}

#[async_trait]
impl Steps for JobSteps<'_> {
    fn recorded(&self, name: &str) -> Option<String> {
        let known = self.known.iter().find(|step| step.step.strip_prefix(PART) == Some(name));
        known.map(|step| step.result.clone())
    }

    async fn record(&self, name: &str, result: &str) -> Result<(), UnderstandError> {
        let step = format!("{PART}{name}");
        let recorded = self.store.record_step(self.lease, &step, result, self.clock.wall()).await;
        // A lost lease too: ending the attempt then changes nothing.
        recorded.map_err(|error| UnderstandError::transient(error.to_string()))
    }
}

/// The record that rules make, marked: it is made anew.
async fn stand_in(request: Request<'_>) -> Result<Understanding, UnderstandError> {
    let mut understanding = Local.understand(request).await?;
    understanding.provenance.version.push_str(Provenance::STAND_IN);
    metrics::counter!("auricle_llm_fallbacks_total").increment(1);
    Ok(understanding)
}

fn stands_in(conversation: &Conversation) -> bool {
    conversation.provenance.as_ref().is_some_and(Provenance::is_stand_in)
}

/// Whether `job` would end as failed for `error`.
fn is_final(error: &UnderstandError, job: &Job) -> bool {
    match error {
        UnderstandError::Permanent(_) => true,
        UnderstandError::Transient { .. } => job.attempts >= job.attempts_max,
        UnderstandError::Away { .. } => false,
    }
}

/// Which jobs a worker may claim at the moment.
pub type ClaimWhen = Arc<dyn Fn() -> ClaimRule + Send + Sync>;

impl Worker {
    /// Claims and runs jobs until `stop`; then claims no more, lets attempts end within a grace, and gives the rest back.
    ///
    /// May be dropped at any await: leases run out and others take over.
    pub async fn run(self: Arc<Self>, stop: CancellationToken, beat: Beat) {
        let mut attempts = JoinSet::new();
        let give_back = CancellationToken::new();
        // Of each attempt, as many as run: whose job it is, and how it is told that its lease is gone.
        let mut running: Vec<(UserId, CancellationToken)> = Vec::new();
        while !stop.is_cancelled() {
            beat();
            while attempts.try_join_next().is_some() {}
            running.retain(|(_, lost)| !lost.is_cancelled());
            let rule = (self.rule)();
            if attempts.len() < self.limits.jobs_running_max.max(1)
                && let Some(claimed) = self.claim(rule).await
            {
                let user = &claimed.job.user;
                // Leases keep a user to one attempt of this process: an older one has lost its own without knowing yet.
                running
                    .iter()
                    .filter(|(of, _)| rule.one_per_user && of == user)
                    .for_each(|(_, lost)| lost.cancel());
                let lost = CancellationToken::new();
                running.push((user.clone(), lost.clone()));
                let (worker, give_back, beat) = (Arc::clone(&self), give_back.clone(), Arc::clone(&beat));
                attempts.spawn(async move {
                    worker.attempt(claimed, &lost, give_back, beat).await;
                    lost.cancel();
                });
                if !self.understand.is_away() {
                    continue;
                }
            } else if attempts.len() < self.limits.jobs_running_max.max(1)
                // Whoever stands in for others leaves what can wait to them.
                && rule.waited.is_zero()
                && self.make_anew(self.limits.jobs_running_max.max(1) - attempts.len()).await
            {
                continue;
            }
            if self.understand.is_away() {
                // One job a second: a long queue must not keep the store's writer busy with postponing itself.
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(POLL) => {}
                }
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.wake.notified() => {}
                Some(_) = attempts.join_next(), if !attempts.is_empty() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
        let grace = self.limits.drain_max.mul_f64(GRACE);
        let all = async { while attempts.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, all).await.is_err() {
            give_back.cancel();
            while attempts.join_next().await.is_some() {}
        }
    }

    async fn claim(&self, rule: ClaimRule) -> Option<ClaimedJob> {
        match self.store.claim_job(&self.process, self.clock.wall(), self.limits.lease, rule).await {
            Ok(claimed) => claimed,
            Err(error) => {
                tracing::warn!(%error, "claim a job");
                None
            }
        }
    }

    /// Queues records that stand in for better ones, `limit` at most, if those can be made: only when nothing else is to be
    /// done. Whether there were any.
    async fn make_anew(&self, limit: usize) -> bool {
        if self.fallback_after.is_none() || self.understand.is_away() || !self.understand.has_answered() {
            return false;
        }
        let found = match self.store.stand_ins(limit).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "look for records that stand in");
                return false;
            }
        };
        let mut queued = false;
        for (user, id) in found {
            let job = JobId::random(&mut rand::rng());
            match self.store.reprocess(&user, &id, job, self.clock.wall()).await {
                Ok(_) => queued = true,
                // Another process was first, or it was deleted.
                Err(StoreError::Conflict(_) | StoreError::NotFound(_)) => {}
                Err(error) => tracing::warn!(%error, conversation.id = %id, "make a record anew"),
            }
        }
        queued
    }

    async fn attempt(
        &self,
        claimed: ClaimedJob,
        lost: &CancellationToken,
        give_back: CancellationToken,
        beat: Beat,
    ) {
        let begun = self.clock.now();
        let work = AssertUnwindSafe(self.work(&claimed)).catch_unwind();
        let outcome = tokio::select! {
            worked = tokio::time::timeout(self.limits.job_attempt_max, work) => match worked {
                Ok(Ok(worked)) => worked,
                Ok(Err(_panic)) => Err(AttemptError::transient(UNDERSTAND, "it panicked")),
                Err(_late) => {
                    let reason = format!("not done after {:?} (`limits.job_attempt_max`)", self.limits.job_attempt_max);
                    Err(AttemptError::transient(UNDERSTAND, reason))
                }
            },
            () = self.keep_lease(&claimed.lease, beat) => Err(AttemptError::Lost),
            () = lost.cancelled() => Err(AttemptError::Lost),
            () = give_back.cancelled() => Err(AttemptError::Released),
        };
        let label = outcome.as_ref().err().map_or("completed", AttemptError::label);
        metrics::counter!("auricle_job_attempts_total", "outcome" => label).increment(1);
        metrics::histogram!("auricle_job_attempt_seconds")
            .record(self.clock.now().saturating_duration_since(begun).as_secs_f64());
        if let Err(error) = outcome {
            self.end(&claimed, error).await;
        }
    }

    /// Renews the lease for as long as it is ours; returns when it is not.
    async fn keep_lease(&self, lease: &JobLease, beat: Beat) {
        let mut lost_at = self.clock.now() + self.limits.lease;
        loop {
            tokio::time::sleep(self.limits.lease_renew_every).await;
            beat();
            match self.store.renew_job(lease, self.clock.wall() + self.limits.lease).await {
                Ok(()) => lost_at = self.clock.now() + self.limits.lease,
                Err(StoreError::Fenced(_) | StoreError::NotFound(_)) => return,
                Err(error) => {
                    tracing::warn!(%error, job.id = %lease.job, "renew a lease");
                    if self.clock.now() >= lost_at {
                        return;
                    }
                }
            }
        }
    }

    async fn work(&self, claimed: &ClaimedJob) -> Result<(), AttemptError> {
        let (lease, job) = (&claimed.lease, &claimed.job);
        let found = self.store.conversation(&job.user, &lease.conversation).await;
        let conversation = found.map_err(|e| AttemptError::store("gather", e))?.ok_or(AttemptError::Gone)?;
        let known = self.store.steps(&lease.conversation, lease.revision).await;
        let known = known.map_err(|e| AttemptError::store(UNDERSTAND, e))?;
        let recorded = known.iter().find(|step| step.step == UNDERSTAND);
        let understanding = match recorded.and_then(|step| record::read(&step.result)) {
            Some(recorded) => recorded,
            None => self.understood(claimed, &conversation, &known).await?,
        };
        // Who was told of a record that stood in is not told again, nor of one whose audio was heard again.
        let heard_again = job.reason == FinaliseReason::Retranscribe && conversation.provenance.is_some();
        let records = if heard_again || stands_in(&conversation) { &[][..] } else { &self.records[..] };
        let effects = records.iter().map(|name| NewEffect {
            id: EffectId::random(&mut rand::rng()),
            name: (*name).into(),
            payload: "{}".into(),
        });
        let completion = Completion {
            lease: lease.clone(),
            structured: understanding.structured,
            provenance: understanding.provenance,
            discarded: understanding.discarded,
            memories: understanding.memories,
            effects: effects.collect(),
            now: self.clock.wall(),
        };
        self.store.complete_job(completion).await.map_err(|e| AttemptError::store("complete", e))?;
        self.effects.notify_one();
        Ok(())
    }

    async fn understood(
        &self,
        ClaimedJob { lease, job }: &ClaimedJob,
        conversation: &Conversation,
        known: &[StepRecord],
    ) -> Result<Understanding, AttemptError> {
        let zone =
            self.store.time_zone(&conversation.user).await.map_err(|e| AttemptError::store("gather", e))?;
        let zone = zone.and_then(|name| TimeZone::get(&name).ok()).unwrap_or_else(|| self.time_zone.clone());
        let open_items = self.open_items(conversation).await?;
        let steps = JobSteps { store: &*self.store, lease, known, clock: &*self.clock };
        let request = Request {
            conversation,
            time_zone: zone,
            now: self.clock.wall(),
            open_items: &open_items,
            steps: &steps,
        };
        let understood = self.understand.understand(request.clone()).await;
        let understanding = match understood {
            Err(UnderstandError::Away { .. }) if self.falls_back(job) => stand_in(request).await,
            // What stands in is better than a failure: it stays, without the mark.
            Err(error) if stands_in(conversation) && is_final(&error, job) => Local.understand(request).await,
            understood => understood,
        };
        let understanding = understanding.map_err(AttemptError::understand)?;
        // An empty title is a failed step, never a silent discard.
        if understanding.structured.title.is_empty() != understanding.discarded.is_some() {
            let reason = "a record has no title exactly if it is discarded".into();
            return Err(AttemptError::Permanent { step: UNDERSTAND, reason });
        }
        let result = record::write(&understanding);
        let recorded = self.store.record_step(lease, UNDERSTAND, &result, self.clock.wall()).await;
        recorded.map_err(|e| AttemptError::store(UNDERSTAND, e))?;
        Ok(understanding)
    }

    /// Whether `job` has waited long enough for `local` to stand in. What only this transcript meets is no absence.
    fn falls_back(&self, job: &Job) -> bool {
        let (Some(after), Some(since)) = (self.fallback_after, job.away_since) else { return false };
        self.understand.is_away() && self.clock.wall().saturating_since(since) >= after
    }

    /// What the user has open of late, newest first. Not the conversation's own: those are to be made again.
    async fn open_items(&self, conversation: &Conversation) -> Result<Vec<String>, AttemptError> {
        let filter = ActionItemFilter {
            completed: Some(false),
            created_from: Some(self.clock.wall() - OPEN_ITEMS_AGE),
            not_of: Some(conversation.id.clone()),
            limit: OPEN_ITEMS_MAX,
            ..ActionItemFilter::default()
        };
        let found = self.store.action_items(&conversation.user, filter).await;
        let found = found.map_err(|e| AttemptError::store("gather", e))?;
        Ok(found.into_iter().map(|item| item.description).collect())
    }

    /// Whether what `job` needs has been away for as long as it waits.
    fn waited_enough(&self, job: &Job) -> bool {
        job.away_since
            .is_some_and(|since| self.clock.wall().saturating_since(since) >= self.limits.job_away_max)
    }

    async fn end(&self, claimed: &ClaimedJob, error: AttemptError) {
        let (lease, job) = (&claimed.lease, &claimed.job);
        let reason = error.to_string();
        let outcome = match error {
            AttemptError::Lost => return,
            AttemptError::Released => AttemptOutcome::Released,
            AttemptError::Gone | AttemptError::Permanent { .. } => {
                AttemptOutcome::Failed { error: reason.clone() }
            }
            AttemptError::Transient { .. } if job.attempts >= job.attempts_max => {
                AttemptOutcome::Failed { error: reason.clone() }
            }
            AttemptError::Transient { after, .. } => {
                let backoff =
                    Backoff { first: self.limits.job_backoff_first, max: self.limits.job_backoff_max };
                let asked = after.unwrap_or_default().min(self.limits.job_backoff_max);
                let wait = backoff.delay(job.attempts, &mut rand::rng()).max(asked);
                AttemptOutcome::Retry { at: self.clock.wall() + wait, error: reason.clone() }
            }
            AttemptError::Away { .. } if self.waited_enough(job) => {
                let waited = self.limits.job_away_max;
                let error = format!("{reason}; waited for {waited:?} (`limits.job_away_max`)");
                AttemptOutcome::Failed { error }
            }
            AttemptError::Away { after, .. } => {
                let max = self.limits.job_backoff_max;
                let backoff = Backoff { first: self.limits.job_backoff_first, max };
                // Spread, or all would come back at once.
                let asked = after.min(max).mul_f64(rand::rng().random_range(1.0..=1.25));
                let wait = backoff.delay(job.postponed.saturating_add(1), &mut rand::rng()).max(asked);
                AttemptOutcome::Postponed { at: self.clock.wall() + wait, error: reason.clone() }
            }
        };
        tracing::warn!(job.id = %lease.job, conversation.id = %lease.conversation, %reason, "a job's attempt ended early");
        match self.store.end_attempt(lease, outcome, self.clock.wall()).await {
            Ok(()) | Err(StoreError::Fenced(_) | StoreError::NotFound(_)) => {}
            // The lease runs out by itself and the job is taken up again.
            Err(error) => tracing::warn!(%error, job.id = %lease.job, "end an attempt"),
        }
    }
}
