//! Ends conversations whose client vanished, keeps this process announced, and publishes the job counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use auricle_core::{ConversationId, FinaliseReason, JobId, Limits, ProcessId};
use auricle_store::{Finalise, Finalised, Ownership, Store, StoreError};
use tokio::sync::Notify;

use crate::clock::{SystemClock, monotonic};
use crate::hub::Hub;
use crate::repair::Held;
use crate::vitals::Pulse;

/// What the sweeper works with.
pub(crate) struct Sweeper {
    pub(crate) store: Arc<dyn Store>,
    /// Conversations whose audio is still to be transcribed here; a pusher has none.
    pub(crate) held: Option<Arc<Held>>,
    pub(crate) process: ProcessId,
    pub(crate) limits: Arc<Limits>,
    pub(crate) clock: SystemClock,
    pub(crate) wake_jobs: Arc<dyn Fn() + Send + Sync>,
    pub(crate) repair: Option<Arc<Notify>>,
    /// Who is connected here.
    pub(crate) hub: Arc<Hub>,
    /// How much longer than its timeout a conversation without a client is left to others.
    pub(crate) patience: Duration,
    /// What this process owns and no session of it has, and since when.
    pub(crate) strays: Mutex<HashMap<ConversationId, Instant>>,
}

impl Sweeper {
    /// Announces the process every `lease_renew_every`, so that what it owns stays its own.
    pub(crate) async fn announce(self: Arc<Self>, pulse: Arc<Pulse>) {
        loop {
            pulse.beat(monotonic());
            let until = self.clock.wall() + self.limits.lease;
            if let Err(error) = self.store.process_alive(&self.process, until).await {
                tracing::warn!(%error, "announce this process");
            }
            tokio::time::sleep(self.limits.lease_renew_every).await;
        }
    }

    /// Looks for work every `sweep_every`, with jitter so that many processes do not look at once.
    pub(crate) async fn sweep(self: Arc<Self>, pulse: Arc<Pulse>) {
        loop {
            pulse.beat(monotonic());
            self.release_strays(&pulse).await;
            self.sweep_once(&pulse).await;
            self.publish_counts().await;
            let jitter = rand::RngExt::random_range(&mut rand::rng(), 0.8..1.2);
            tokio::time::sleep(self.limits.sweep_every.mul_f64(jitter)).await;
        }
    }

    /// Gives up what this process owns and none of its sessions has: the release of a session that ended, or the answer to
    /// one that began, did not come through. Nobody else would ever take it while this process lives.
    async fn release_strays(&self, pulse: &Pulse) {
        let owned = match self.store.owned(&self.process, self.limits.sessions_max).await {
            Ok(owned) => owned,
            Err(error) => return tracing::warn!(%error, "look for what this process owns"),
        };
        for stray in self.overdue_strays(owned) {
            pulse.beat(monotonic());
            match self.store.release(&stray, self.clock.wall()).await {
                Ok(()) => {
                    metrics::counter!("auricle_conversations_swept_total", "outcome" => "released")
                        .increment(1);
                }
                // The store has no time for this: the next sweep goes on.
                Err(error) if error.is_retryable() => return tracing::warn!(%error, "release a conversation"),
                Err(error) => {
                    tracing::debug!(%error, conversation.id = %stray.conversation, "release a conversation");
                }
            }
        }
    }

    /// Of what this process owns, what no session has had for long enough; as many as one sweep takes on.
    fn overdue_strays(&self, mut owned: Vec<Ownership>) -> Vec<Ownership> {
        let (held, now) = (self.hub.owned(), monotonic());
        owned.retain(|owned| !held.contains(&owned.conversation));
        let mut strays = self.strays.lock().unwrap_or_else(PoisonError::into_inner);
        strays.retain(|id, _| owned.iter().any(|owned| owned.conversation == *id));
        // A session may be about to hear of its conversation, or to end it.
        let since = |stray: &Ownership| *strays.entry(stray.conversation.clone()).or_insert(now);
        let is_overdue = |since: Instant| now.duration_since(since) >= self.limits.stray_after;
        let overdue: Vec<bool> = owned.iter().map(since).map(is_overdue).collect();
        let overdue = owned.into_iter().zip(overdue).filter(|(_, overdue)| *overdue).map(|(stray, _)| stray);
        overdue.take(self.limits.sweep_batch_max).collect()
    }

    async fn sweep_once(&self, pulse: &Pulse) {
        let now = self.clock.wall().plus_secs_f64(-self.patience.as_secs_f64());
        let orphans = match self.store.orphans(now, self.limits.sweep_batch_max).await {
            Ok(orphans) => orphans,
            Err(error) => return tracing::warn!(%error, "look for conversations without a client"),
        };
        for orphan in orphans {
            pulse.beat(monotonic());
            // Words that are still on disk as audio come first; repair is bounded, so this wait is too.
            if self.held.as_ref().is_some_and(|held| held.holds(&orphan.conversation)) {
                if let Some(repair) = &self.repair {
                    repair.notify_one();
                }
                continue;
            }
            let finalise = Finalise {
                conversation: orphan.conversation.clone(),
                owner: None,
                reason: FinaliseReason::ClientGone,
                job_id: JobId::random(&mut rand::rng()),
                now: self.clock.wall(),
            };
            match self.store.finalise(finalise).await {
                Ok(Finalised::Queued { .. }) => {
                    metrics::counter!("auricle_conversations_swept_total", "outcome" => "queued")
                        .increment(1);
                    (self.wake_jobs)();
                }
                Ok(Finalised::DeletedEmpty) => {
                    metrics::counter!("auricle_conversations_swept_total", "outcome" => "empty").increment(1);
                }
                Ok(Finalised::AlreadyEnded { .. })
                | Err(
                    StoreError::Fenced(_)
                    | StoreError::Ended(_)
                    | StoreError::Conflict(_)
                    | StoreError::NotFound(_),
                ) => {}
                Err(error) => {
                    tracing::warn!(%error, conversation.id = %orphan.conversation, "end a conversation without a client");
                }
            }
        }
    }

    async fn publish_counts(&self) {
        let Ok(counts) = self.store.job_counts(self.clock.wall()).await else { return };
        metrics::gauge!("auricle_jobs", "state" => "queued").set(counts.queued as f64);
        metrics::gauge!("auricle_jobs", "state" => "leased").set(counts.leased as f64);
        metrics::gauge!("auricle_jobs", "state" => "failed").set(counts.failed as f64);
        metrics::gauge!("auricle_effects", "state" => "pending").set(counts.effects_pending as f64);
        metrics::gauge!("auricle_effects", "state" => "failed").set(counts.effects_failed as f64);
        metrics::gauge!("auricle_job_oldest_unclaimed_seconds").set(seconds(counts.oldest_unclaimed));
        metrics::gauge!("auricle_effect_oldest_seconds").set(seconds(counts.oldest_effect));
        let Ok(counts) = self.store.embedding_counts().await else { return };
        metrics::gauge!("auricle_embeddings", "state" => "pending").set(counts.pending as f64);
        metrics::gauge!("auricle_embeddings", "state" => "failed").set(counts.failed as f64);
    }
}

fn seconds(age: Duration) -> f64 {
    age.as_secs_f64()
}
