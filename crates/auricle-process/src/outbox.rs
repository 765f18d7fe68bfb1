//! Delivers effects: at least once each, known to receivers by their keys.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use auricle_core::{Backoff, Limits, ProcessId};
use auricle_store::{Effect, EffectOutcome, Store, StoreError};
use futures_util::FutureExt;
use rand::RngExt;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{Beat, Clock, Deliver, Delivery};

/// Looks for effects at least this often: hints may be lost.
const POLL: Duration = Duration::from_secs(1);

/// The delivery loop.
pub struct Outbox {
    store: Arc<dyn Store>,
    deliverers: HashMap<&'static str, Arc<dyn Deliver>>,
    limits: Arc<Limits>,
    process: ProcessId,
    clock: Arc<dyn Clock>,
    wake: Arc<Notify>,
}

impl Outbox {
    /// With one deliverer for each kind of effect. Notify `wake` when there may be one; it looks by itself every second.
    pub fn new(
        store: Arc<dyn Store>,
        deliverers: Vec<Arc<dyn Deliver>>,
        limits: Arc<Limits>,
        process: ProcessId,
        clock: Arc<dyn Clock>,
        wake: Arc<Notify>,
    ) -> Self {
        let deliverers = deliverers.into_iter().map(|deliverer| (deliverer.kind(), deliverer)).collect();
        Self { store, deliverers, limits, process, clock, wake }
    }

    /// Delivers until `stop`. May be dropped at any await: leases run out, and deliveries are repeated with the same key.
    pub async fn run(self: Arc<Self>, stop: CancellationToken, beat: Beat) {
        let mut deliveries = JoinSet::new();
        // A delivery and its record take less than this, or the effect is claimed again.
        let lease = self.limits.effect_attempt_max * 2;
        let kinds: Vec<_> = self.deliverers.keys().copied().collect();
        while !stop.is_cancelled() {
            beat();
            while deliveries.try_join_next().is_some() {}
            let room = self.limits.effects_running_max.saturating_sub(deliveries.len());
            let claimed = if room == 0 {
                Vec::new()
            } else {
                let claimed =
                    self.store.claim_effects(&self.process, self.clock.wall(), lease, room, &kinds).await;
                claimed.unwrap_or_else(|error| {
                    tracing::warn!(%error, "claim effects");
                    Vec::new()
                })
            };
            if !claimed.is_empty() {
                for effect in claimed {
                    let outbox = Arc::clone(&self);
                    deliveries.spawn(async move { outbox.deliver(effect).await });
                }
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.wake.notified() => {}
                Some(_) = deliveries.join_next(), if !deliveries.is_empty() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
        let all = async { while deliveries.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(self.limits.effect_attempt_max, all).await;
    }

    async fn deliver(&self, effect: Effect) {
        let kind = effect.key.kind().to_owned();
        let delivery = match self.deliverers.get(kind.as_str()) {
            Some(deliverer) => {
                let delivering = AssertUnwindSafe(deliverer.deliver(&effect)).catch_unwind();
                match tokio::time::timeout(self.limits.effect_attempt_max, delivering).await {
                    Ok(Ok(delivery)) => delivery,
                    Ok(Err(_panic)) => Delivery::Retry("the delivery panicked".into()),
                    Err(_late) => Delivery::Away {
                        reason: "no answer in time (`limits.effect_attempt_max`)".into(),
                        after: Duration::ZERO,
                    },
                }
            }
            None => Delivery::Failed(format!("nothing here delivers effects of kind `{kind}`")),
        };
        let outcome = self.outcome(&effect, delivery);
        let label = match &outcome {
            EffectOutcome::Delivered => "delivered",
            EffectOutcome::Skipped => "skipped",
            EffectOutcome::Retry { .. } => "retry",
            EffectOutcome::Postponed { .. } => "postponed",
            EffectOutcome::Failed { .. } => "failed",
        };
        metrics::counter!("auricle_effects_total", "kind" => kind, "outcome" => label).increment(1);
        match self.store.end_effect(&effect.id, effect.epoch, outcome, self.clock.wall()).await {
            Ok(()) | Err(StoreError::Fenced(_) | StoreError::NotFound(_)) => {}
            Err(error) => tracing::warn!(%error, effect.id = %effect.id, "record a delivery"),
        }
    }

    /// Whether the receiver has been away for as long as `effect` waits.
    fn waited_enough(&self, effect: &Effect) -> bool {
        effect
            .away_since
            .is_some_and(|since| self.clock.wall().saturating_since(since) >= self.limits.effect_age_max)
    }

    fn outcome(&self, effect: &Effect, delivery: Delivery) -> EffectOutcome {
        match delivery {
            Delivery::Delivered => EffectOutcome::Delivered,
            Delivery::Skipped => EffectOutcome::Skipped,
            Delivery::Failed(error) => EffectOutcome::Failed { error },
            Delivery::Away { reason, .. } if self.waited_enough(effect) => {
                let waited = self.limits.effect_age_max;
                EffectOutcome::Failed {
                    error: format!("{reason}; waited for {waited:?} (`limits.effect_age_max`)"),
                }
            }
            Delivery::Away { reason, after } => {
                let max = self.limits.effect_backoff_max;
                let backoff = Backoff { first: self.limits.job_backoff_first, max };
                // Spread, or all would come back at once.
                let asked = after.min(max).mul_f64(rand::rng().random_range(1.0..=1.25));
                let wait = backoff.delay(effect.postponed.saturating_add(1), &mut rand::rng()).max(asked);
                EffectOutcome::Postponed { at: self.clock.wall() + wait, error: reason }
            }
            Delivery::Retry(error) if effect.attempts >= self.limits.effect_attempts_max => {
                EffectOutcome::Failed {
                    error: format!("{error}; gave up after {} attempts", effect.attempts),
                }
            }
            Delivery::Retry(error) => {
                let backoff =
                    Backoff { first: self.limits.job_backoff_first, max: self.limits.job_backoff_max };
                let wait = backoff.delay(effect.attempts.max(1), &mut rand::rng());
                EffectOutcome::Retry { at: self.clock.wall() + wait, error }
            }
        }
    }
}
