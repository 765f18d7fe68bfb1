//! The loop that plans days and makes their summaries: claimed by lease and epoch, one at a time.

use std::sync::Arc;
use std::time::Duration;

use auricle_core::{Backoff, Limits, ProcessId, Provenance};
use auricle_store::{DayClaim, DayCompletion, DayOutcome, PlannedDay, Store, StoreError};
use jiff::tz::TimeZone;
use rand::RngExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::due::due;
use super::{DayRequest, DayWords, PlainDays, SummariseDay, summary};
use crate::{Beat, Clock, UnderstandError};

/// How often it looks for work: nobody waits for a day as for a record.
const POLL: Duration = Duration::from_secs(1);
/// Users that one look at the store brings.
const USERS_AT_ONCE: usize = 200;

/// Plans days and summarises them.
pub struct Days {
    /// Where days are.
    pub store: Arc<dyn Store>,
    /// What writes about them.
    pub summarise: Arc<dyn SummariseDay>,
    /// Bounds.
    pub limits: Arc<Limits>,
    /// As claims name it.
    pub process: ProcessId,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// For users who have set none.
    pub time_zone: TimeZone,
    /// The hour of the next day from which a day is summarised by itself; `None`: only when asked to.
    pub hour: Option<i8>,
    /// How long a day waits for a model that is away before rules stand in; `None`: as long as a job does.
    pub fallback_after: Option<Duration>,
    /// The outbox's waker: notified when effects have been recorded.
    pub effects: Arc<Notify>,
}

/// Why an attempt made no summary.
enum Failed {
    /// Somebody else does it, or it is gone: nothing is written.
    Lost,
    Understand(UnderstandError),
    Store(StoreError),
    /// It took longer than an attempt may.
    Late,
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

impl Days {
    /// Plans and summarises until `stop`. May be dropped at any await: claims run out and others take over.
    pub async fn run(self: Arc<Self>, stop: CancellationToken, beat: Beat) {
        let mut planned_at = None;
        while !stop.is_cancelled() {
            beat();
            let now = self.clock.now();
            let waited = planned_at.map(|at| now.saturating_duration_since(at));
            if waited.is_none_or(|waited| waited >= self.limits.days_plan_every) {
                self.plan(&beat).await;
                planned_at = Some(now);
            }
            if let Some(claim) = self.claim().await {
                self.attempt(&claim, &stop, &beat).await;
                if !self.summarise.is_away() {
                    continue;
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// Queues what is due of all users who were heard of late. Repeating it changes nothing.
    async fn plan(&self, beat: &Beat) {
        let Some(hour) = self.hour else { return };
        let now = self.clock.wall();
        let days_max = self.limits.days_catch_up_max;
        // Two more: a zone may be a day ahead, and today is not over.
        let since = now - Duration::from_secs(86_400) * u32::try_from(days_max + 2).unwrap_or(u32::MAX);
        let mut after = None;
        loop {
            beat();
            let users = match self.store.users_heard_since(since, after.as_ref(), USERS_AT_ONCE).await {
                Ok(users) => users,
                Err(error) => {
                    tracing::warn!(%error, "look for days to summarise");
                    return;
                }
            };
            for (user, zone) in &users {
                let zone = self.zone(zone.as_deref());
                let days = due(now, &zone, hour, days_max).into_iter().map(|day| PlannedDay {
                    date: day.date.to_string(),
                    zone: zone.iana_name().unwrap_or("UTC").to_owned(),
                    from: day.from,
                    until: day.until,
                });
                // Conversations of that day that are not records yet are waited for, for a while.
                let patience = self.limits.days_wait_max;
                match self.store.plan_days(user, days.collect(), patience, now).await {
                    Ok(0) => {}
                    Ok(queued) => metrics::counter!("auricle_days_planned_total").increment(queued as u64),
                    Err(error) => tracing::warn!(%error, "plan days"),
                }
            }
            if users.len() < USERS_AT_ONCE {
                return;
            }
            after = users.into_iter().next_back().map(|(user, _)| user);
        }
    }

    fn zone(&self, name: Option<&str>) -> TimeZone {
        name.and_then(|name| TimeZone::get(name).ok()).unwrap_or_else(|| self.time_zone.clone())
    }

    async fn claim(&self) -> Option<DayClaim> {
        match self.store.claim_day(&self.process, self.clock.wall(), self.limits.lease).await {
            Ok(claim) => claim,
            Err(error) => {
                tracing::warn!(%error, "claim a day");
                None
            }
        }
    }

    async fn attempt(&self, claim: &DayClaim, stop: &CancellationToken, beat: &Beat) {
        let outcome = tokio::select! {
            done = tokio::time::timeout(self.limits.job_attempt_max, self.work(claim)) => {
                done.unwrap_or(Err(Failed::Late))
            }
            () = self.keep(claim, beat) => Err(Failed::Lost),
            () = stop.cancelled() => Err(Failed::Released),
        };
        let label = match &outcome {
            Ok(label) => label,
            Err(Failed::Lost) => "lost",
            Err(Failed::Released) => "released",
            Err(Failed::Understand(UnderstandError::Away { .. })) => "postponed",
            Err(Failed::Understand(UnderstandError::Permanent(_))) => "permanent",
            Err(_) => "transient",
        };
        metrics::counter!("auricle_days_total", "outcome" => label).increment(1);
        let failed = match outcome {
            Ok(_) => return self.effects.notify_one(),
            Err(failed) => failed,
        };
        let Some(outcome) = self.outcome(claim, failed) else { return };
        match self.store.end_day(claim, outcome, self.clock.wall()).await {
            Ok(()) | Err(StoreError::Fenced(_) | StoreError::NotFound(_)) => {}
            // The claim runs out by itself.
            Err(error) => tracing::warn!(%error, day = claim.day.date, "end a day's attempt"),
        }
    }

    /// Renews the claim for as long as it is ours; returns when it is not.
    async fn keep(&self, claim: &DayClaim, beat: &Beat) {
        let mut lost_at = self.clock.now() + self.limits.lease;
        loop {
            tokio::time::sleep(self.limits.lease_renew_every).await;
            beat();
            match self.store.renew_day(claim, self.clock.wall() + self.limits.lease).await {
                Ok(()) => lost_at = self.clock.now() + self.limits.lease,
                Err(StoreError::Fenced(_) | StoreError::NotFound(_)) => return,
                Err(error) => {
                    tracing::warn!(%error, day = claim.day.date, "renew a claim to a day");
                    if self.clock.now() >= lost_at {
                        return;
                    }
                }
            }
        }
    }

    async fn work(&self, claim: &DayClaim) -> Result<&'static str, Failed> {
        let day = &claim.day;
        let found = self
            .store
            .conversations_of_day(&claim.user, day.from, day.until, self.limits.day_conversations_max)
            .await?;
        if found.is_empty() {
            // They were deleted since: so is what was made of them.
            self.store.drop_day(claim).await?;
            return Ok("empty");
        }
        let zone = self.zone(Some(&day.zone));
        let date = day
            .date
            .parse()
            .map_err(|_| Failed::Understand(UnderstandError::Permanent("the day's date is none".into())))?;
        let request = DayRequest { date, zone: &zone, conversations: &found };
        let words = self.words(claim, &request).await?;
        let made = summary(&request, &words);
        let payload = serde_json::json!({ "summary": made.overview, "summary_json": made });
        let completion = DayCompletion {
            summary: serde_json::to_string(&made).expect("plain data"),
            payload: payload.to_string(),
            conversations: u32::try_from(found.len()).unwrap_or(u32::MAX),
            provenance: words.provenance(),
            now: self.clock.wall(),
        };
        self.store.complete_day(claim, completion).await?;
        Ok("completed")
    }

    /// Recorded ones, or new ones, which are recorded before they are used.
    async fn words(&self, claim: &DayClaim, request: &DayRequest<'_>) -> Result<DayWords, Failed> {
        let numbers = |words: &DayWords| {
            words
                .highlights
                .iter()
                .all(|(_, _, numbers)| numbers.iter().all(|number| *number < request.conversations.len()))
        };
        let recorded = claim.step.as_deref().and_then(|step| serde_json::from_str(step).ok());
        if let Some(recorded) = recorded.filter(numbers) {
            return Ok(recorded);
        }
        let id = format!("day:{}:summarise:{}", claim.day.date, claim.revision);
        let words = match self.summarise.summarise_day(request.clone(), &id).await {
            Err(UnderstandError::Away { .. }) if self.falls_back(claim) => {
                let mut words =
                    PlainDays.summarise_day(request.clone(), &id).await.map_err(Failed::Understand)?;
                words.provenance.1.push_str(Provenance::STAND_IN);
                words
            }
            made => made.map_err(Failed::Understand)?,
        };
        let step = serde_json::to_string(&words).expect("plain data");
        self.store.record_day_step(claim, &step).await?;
        Ok(words)
    }

    fn falls_back(&self, claim: &DayClaim) -> bool {
        let (Some(after), Some(since)) = (self.fallback_after, claim.away_since) else { return false };
        self.clock.wall().saturating_since(since) >= after
    }

    fn outcome(&self, claim: &DayClaim, failed: Failed) -> Option<DayOutcome> {
        let (first, max) = (self.limits.job_backoff_first, self.limits.job_backoff_max);
        let backoff = Backoff { first, max };
        let retry = |error: String, asked: Duration| match claim.attempts >= self.limits.job_attempts_max {
            true => DayOutcome::Failed { error },
            false => {
                let wait = backoff.delay(claim.attempts, &mut rand::rng()).max(asked.min(max));
                DayOutcome::Retry { at: self.clock.wall() + wait, error }
            }
        };
        let waited = claim.away_since.map(|since| self.clock.wall().saturating_since(since));
        Some(match failed {
            Failed::Lost => return None,
            Failed::Released => DayOutcome::Released,
            Failed::Late => retry(
                format!("not done after {:?} (`limits.job_attempt_max`)", self.limits.job_attempt_max),
                Duration::ZERO,
            ),
            Failed::Store(error) => retry(error.to_string(), Duration::ZERO),
            Failed::Understand(UnderstandError::Transient { reason, after }) => {
                retry(reason, after.unwrap_or_default())
            }
            Failed::Understand(UnderstandError::Permanent(error)) => DayOutcome::Failed { error },
            Failed::Understand(UnderstandError::Away { reason, .. })
                if waited.is_some_and(|waited| waited >= self.limits.job_away_max) =>
            {
                let waited = self.limits.job_away_max;
                DayOutcome::Failed {
                    error: format!("{reason}; waited for {waited:?} (`limits.job_away_max`)"),
                }
            }
            Failed::Understand(UnderstandError::Away { reason, after }) => {
                // Spread, or all would come back at once.
                let asked = after.min(max).mul_f64(rand::rng().random_range(1.0..=1.25));
                let wait = backoff.delay(claim.postponed.saturating_add(1), &mut rand::rng()).max(asked);
                DayOutcome::Postponed { at: self.clock.wall() + wait, error: reason }
            }
        })
    }
}
