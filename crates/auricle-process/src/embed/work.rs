//! The loop that embeds what conversations became: claimed by lease and epoch, one at a time.

use std::sync::Arc;
use std::time::Duration;

use auricle_core::{Backoff, Limits, ProcessId};
use auricle_store::{Embedded, EmbeddingClaim, EmbeddingOutcome, Store, StoreError};
use rand::RngExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Embed, EmbedError, texts};
use crate::{Beat, Clock};

/// Looks for work at least this often: hints may be lost.
const POLL: Duration = Duration::from_secs(1);
/// Conversations that one write makes due again after the model was changed.
const REQUEUED_AT_ONCE: usize = 500;

/// Embeds conversations, those that were just completed first.
pub struct Embedder {
    /// Where work is, and vectors go.
    pub store: Arc<dyn Store>,
    /// What makes them.
    pub embed: Arc<dyn Embed>,
    /// Bounds.
    pub limits: Arc<Limits>,
    /// As claims name it.
    pub process: ProcessId,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Notified when a record was made. A hint: the loop looks by itself every second.
    pub wake: Arc<Notify>,
}

/// Why an attempt did not embed.
enum Failed {
    /// Somebody else does it, or it is gone: nothing is written.
    Lost,
    Embed(EmbedError),
    Store(StoreError),
    /// The server is shutting down.
    Released,
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Fenced(_) | StoreError::NotFound(_) => Self::Lost,
            other => Self::Store(other),
        }
    }
}

impl Embedder {
    /// Claims and embeds until `stop`. May be dropped at any await: claims run out and others take over.
    pub async fn run(self: Arc<Self>, stop: CancellationToken, beat: Beat) {
        let mut settled = false;
        while !stop.is_cancelled() {
            beat();
            // What another model embedded, or was given up before this start.
            if !settled {
                settled = self.requeue().await;
            }
            let pause = match self.claim().await {
                Some(claim) => {
                    self.attempt(&claim, &stop, &beat).await;
                    // One a second while it is away: the store's writer has better things to do.
                    if self.embed.is_away() { POLL } else { self.limits.embed_pause }
                }
                None if settled => POLL,
                None => self.limits.embed_pause,
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.wake.notified(), if pause == POLL && !self.embed.is_away() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Whether there is nothing left to make due.
    async fn requeue(&self) -> bool {
        match self.store.requeue_embeddings(self.embed.model(), self.clock.wall(), REQUEUED_AT_ONCE).await {
            Ok(number) => number < REQUEUED_AT_ONCE,
            Err(error) => {
                tracing::warn!(%error, "look for conversations to embed again");
                false
            }
        }
    }

    async fn claim(&self) -> Option<EmbeddingClaim> {
        match self.store.claim_embedding(&self.process, self.clock.wall(), self.limits.lease).await {
            Ok(claim) => claim,
            Err(error) => {
                tracing::warn!(%error, "claim a conversation to embed");
                None
            }
        }
    }

    async fn attempt(&self, claim: &EmbeddingClaim, stop: &CancellationToken, beat: &Beat) {
        let outcome = tokio::select! {
            done = self.work(claim) => done,
            () = self.keep(claim, beat) => Err(Failed::Lost),
            () = stop.cancelled() => Err(Failed::Released),
        };
        let label = match &outcome {
            Ok(()) => "embedded",
            Err(Failed::Lost) => "lost",
            Err(Failed::Released) => "released",
            Err(Failed::Store(_)) => "transient",
            Err(Failed::Embed(EmbedError::Away { .. })) => "postponed",
            Err(Failed::Embed(_)) => "failed",
        };
        metrics::counter!("auricle_embed_conversations_total", "outcome" => label).increment(1);
        let Err(failed) = outcome else { return };
        let Some(outcome) = self.outcome(claim, failed) else { return };
        match self.store.end_embedding(claim, outcome, self.clock.wall()).await {
            Ok(()) | Err(StoreError::Fenced(_) | StoreError::NotFound(_)) => {}
            // The claim runs out by itself.
            Err(error) => tracing::warn!(%error, conversation.id = %claim.conversation, "end an embedding"),
        }
    }

    /// Renews the claim for as long as it is ours; returns when it is not.
    async fn keep(&self, claim: &EmbeddingClaim, beat: &Beat) {
        let mut lost_at = self.clock.now() + self.limits.lease;
        loop {
            tokio::time::sleep(self.limits.lease_renew_every).await;
            beat();
            match self.store.renew_embedding(claim, self.clock.wall() + self.limits.lease).await {
                Ok(()) => lost_at = self.clock.now() + self.limits.lease,
                Err(StoreError::Fenced(_) | StoreError::NotFound(_)) => return,
                Err(error) => {
                    tracing::warn!(%error, conversation.id = %claim.conversation, "renew a claim to embed");
                    if self.clock.now() >= lost_at {
                        return;
                    }
                }
            }
        }
    }

    async fn work(&self, claim: &EmbeddingClaim) -> Result<(), Failed> {
        let found = self.store.conversation(&claim.user, &claim.conversation).await?.ok_or(Failed::Lost)?;
        let mut chunks = texts::chunks(&found.segments);
        if chunks.len() > self.limits.embed_chunks_max {
            let left_out = chunks.len() - self.limits.embed_chunks_max;
            metrics::counter!("auricle_embed_chunks_dropped_total").increment(left_out as u64);
            chunks.truncate(self.limits.embed_chunks_max);
        }
        let mut all = vec![texts::record(&found)];
        all.extend(chunks.iter().map(|chunk| texts::bounded(&chunk.text)));
        let places =
            std::iter::once(None).chain(chunks.into_iter().map(|chunk| Some((chunk.first, chunk.last))));
        // A server may refuse an empty text.
        let (texts, places): (Vec<_>, Vec<_>) =
            all.into_iter().zip(places).filter(|(text, _)| !text.is_empty()).unzip();
        let mut vectors: Vec<Vec<f32>> = Vec::with_capacity(texts.len());
        while vectors.len() < texts.len() {
            let left = &texts[vectors.len()..];
            let size =
                texts::batch(left, self.limits.embed_batch_items_max, self.limits.embed_batch_bytes_max);
            vectors.extend(self.embed.embed(&left[..size]).await.map_err(Failed::Embed)?);
        }
        let length = vectors.first().map_or(0, Vec::len);
        if vectors.iter().any(|vector| vector.len() != length) {
            let reason = "the embedding server's vectors changed their length between two calls".into();
            return Err(Failed::Embed(EmbedError::Transient(reason)));
        }
        let embedded =
            places.into_iter().zip(vectors).map(|(segments, vector)| Embedded { segments, vector }).collect();
        self.store.complete_embedding(claim, self.embed.model(), embedded).await?;
        Ok(())
    }

    fn outcome(&self, claim: &EmbeddingClaim, failed: Failed) -> Option<EmbeddingOutcome> {
        let (first, max) = (self.limits.job_backoff_first, self.limits.job_backoff_max);
        let backoff = Backoff { first, max };
        let outcome = match failed {
            Failed::Lost => return None,
            Failed::Released => EmbeddingOutcome::Released,
            Failed::Embed(EmbedError::Away { reason, after }) => {
                // Spread, or all would come back at once.
                let asked = after.min(max).mul_f64(rand::rng().random_range(1.0..=1.25));
                let wait = backoff.delay(claim.postponed.saturating_add(1), &mut rand::rng()).max(asked);
                EmbeddingOutcome::Postponed { at: self.clock.wall() + wait, error: reason }
            }
            Failed::Embed(EmbedError::Permanent(error)) => EmbeddingOutcome::GivenUp { error },
            Failed::Embed(error) if claim.attempts >= self.limits.embed_attempts_max => {
                EmbeddingOutcome::GivenUp { error: error.to_string() }
            }
            Failed::Embed(error) => {
                let wait = backoff.delay(claim.attempts, &mut rand::rng());
                EmbeddingOutcome::Retry { at: self.clock.wall() + wait, error: error.to_string() }
            }
            Failed::Store(error) => {
                let wait = backoff.delay(claim.attempts, &mut rand::rng());
                EmbeddingOutcome::Retry { at: self.clock.wall() + wait, error: error.to_string() }
            }
        };
        if let EmbeddingOutcome::GivenUp { error } = &outcome {
            tracing::warn!(conversation.id = %claim.conversation, %error, "a conversation is found by words alone");
        }
        Some(outcome)
    }
}
