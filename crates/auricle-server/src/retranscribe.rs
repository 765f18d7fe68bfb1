//! Hears conversations again whose audio is kept: claimed by lease and epoch; what each stretch brought is recorded, and the
//! transcript is replaced in one transaction.
//!
//! Owns: attempts and what they end as, what of the kept audio belongs to a conversation. Leaves to others: what is replaced (the
//! store, by `auricle_core::rehearing`), how audio is heard (`crate::speech::file`), the record (a job like any other).
//! Invariants: nothing here runs on a session worker; an attempt that fails leaves the transcript as it was; it may be dropped at
//! any await, and another goes on after the last stretch that was recorded.

pub(crate) mod sources;

use std::sync::Arc;
use std::time::Duration;

use auricle_audio::file::FileError;
use auricle_core::rehearing::is_within;
use auricle_core::{Backoff, Conversation, JobId, Limits, ProcessId, Word};
use auricle_speech::{Chain, EngineError, StreamSpec};
use auricle_store::kept::KeptAudio;
use auricle_store::spool::Spool;
use auricle_store::vault::Vault;
use auricle_store::{
    AttemptOutcome, HeardStretch, Reheard, Retranscription, RetranscriptionLease, Store, StoreError,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::sources::Source;
use crate::clock::SystemClock;
use crate::repair::{Held, segments};
use crate::speech::file::{HearError, Heard, Progress, hear};

/// Looks for work at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Times that words are given to a store that is busy, before the attempt is given up.
const STORE_TRIES: usize = 10;

/// What hears conversations again.
pub(crate) struct Retranscriber {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) kept: KeptAudio,
    /// Where uploads are that are not kept yet.
    pub(crate) vault: Vault,
    pub(crate) spool: Spool,
    pub(crate) held: Arc<Held>,
    pub(crate) engine: Arc<Chain>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) process: ProcessId,
    pub(crate) clock: SystemClock,
    /// There may be something to do.
    pub(crate) wake: Arc<Notify>,
    /// There may be jobs.
    pub(crate) wake_jobs: Arc<dyn Fn() + Send + Sync>,
}

#[derive(Debug, thiserror::Error)]
enum AttemptError {
    /// The same again would end the same.
    #[error("{0}")]
    Final(String),
    /// Somebody else has to be waited for.
    #[error("{0}")]
    Away(String),
    #[error("{0}")]
    Hear(#[from] HearError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("read kept audio: {0}")]
    Read(std::io::Error),
}

/// What a stretch brought, as a step has it.
#[derive(Serialize, Deserialize)]
struct Said {
    /// (text, start, end, voice)
    words: Vec<(String, f64, f64, u32)>,
    secs: f64,
    engine: Option<String>,
}

impl Said {
    fn of(heard: Heard) -> Self {
        let words = heard.utterances.into_iter().flatten();
        Self {
            words: words.map(|word| (word.text, word.start, word.end, word.speaker)).collect(),
            secs: heard.secs,
            engine: heard.engine.map(str::to_owned),
        }
    }

    fn words(self) -> Vec<Word> {
        self.words
            .into_iter()
            .map(|(text, start, end, speaker)| Word { text, start, end, speaker, confidence: None })
            .collect()
    }
}

/// How far an attempt is.
#[derive(Default)]
struct Tally {
    before: Progress,
    now: Progress,
}

impl Tally {
    fn secs(&self) -> f64 {
        self.before.secs() + self.now.secs()
    }

    fn add(&self, secs: f64) {
        self.before.set(self.before.secs() + secs);
        self.now.set(0.0);
    }
}

impl Retranscriber {
    /// Runs until `stop`, then gives back what it was at.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken, beat: auricle_process::Beat) {
        let mut running = JoinSet::new();
        while !stop.is_cancelled() {
            beat();
            while running.len() < self.limits.retranscriptions_running_max.max(1) {
                let (now, lease) = (self.clock.wall(), self.limits.lease);
                match self.store.claim_retranscription(&self.process, now, lease).await {
                    Ok(Some((lease, work))) => {
                        let (this, stop) = (Arc::clone(&self), stop.clone());
                        running.spawn(async move { this.attempt(lease, work, stop).await });
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(%error, "claim a retranscription");
                        break;
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                Some(ended) = running.join_next() => {
                    if let Err(error) = ended {
                        // Its lease runs out, and the next attempt counts.
                        tracing::error!(%error, "an attempt to hear a conversation again broke");
                    }
                }
                () = self.wake.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        while running.join_next().await.is_some() {}
    }

    async fn attempt(&self, lease: RetranscriptionLease, work: Retranscription, stop: CancellationToken) {
        let tally = Tally::default();
        let done = tokio::select! {
            done = self.work(&lease, &work, &tally) => done,
            () = stop.cancelled() => return self.end(&lease, AttemptOutcome::Released).await,
            // Deleted, or taken over: there is nobody to tell.
            () = self.keep(&lease, &tally) => return,
        };
        match done {
            Ok(()) => {
                metrics::counter!("auricle_retranscriptions_ended_total", "outcome" => "done").increment(1);
                (self.wake_jobs)();
            }
            Err(AttemptError::Store(StoreError::Fenced(_) | StoreError::NotFound(_))) => {}
            Err(error) => {
                let outcome = self.outcome(&work, error);
                self.end(&lease, outcome).await;
            }
        }
    }

    async fn work(
        &self,
        lease: &RetranscriptionLease,
        work: &Retranscription,
        tally: &Tally,
    ) -> Result<(), AttemptError> {
        let engine = self.engine.only(&work.engine).ok_or_else(|| {
            AttemptError::Final(format!("speech engine {} is not configured any more", work.engine))
        })?;
        if self.held.holds(&work.conversation) {
            return Err(AttemptError::Away(
                "some of its audio is still to be heard for the first time".into(),
            ));
        }
        let gone = || StoreError::NotFound(format!("conversation {}", work.conversation));
        let conversation = self.store.conversation(&work.user, &work.conversation).await?;
        let conversation = conversation.ok_or_else(gone)?;
        let sources = self.sources(&conversation).await?;
        if sources.is_empty() {
            return Err(AttemptError::Final("no audio of the conversation is kept any more".into()));
        }
        let known = self.store.hearings(lease).await?;
        let mut stretches: Vec<HeardStretch> = Vec::new();
        for source in sources {
            let step = source.name();
            let recorded = known.iter().find(|known| known.step == step);
            let said = match recorded.and_then(|known| serde_json::from_str(&known.result).ok()) {
                Some(said) => said,
                None => self.hear(lease, &engine, &conversation, &source, &tally.now).await?,
            };
            tally.add(said.secs);
            let name = said.engine.clone().unwrap_or_else(|| work.engine.clone());
            let secs = said.secs;
            let mut segments = segments(said.words(), 0.0, Some(&name), source.role());
            let there = source.there((&conversation).into(), secs);
            if source.is_shared() {
                segments.retain(|segment| is_within(f64::midpoint(segment.start, segment.end), &there));
            }
            for (from, until) in there {
                // The words of all of it go with the first.
                let segments = std::mem::take(&mut segments);
                let (zero_at, is_channel) = (source.zero_at(), source.role().is_some());
                stretches.push(HeardStretch { zero_at, from, until, is_channel, segments });
            }
        }
        if stretches.iter().all(|stretch| stretch.segments.is_empty()) {
            return Err(AttemptError::Final(format!(
                "{} heard nothing in {:.1} s of kept audio; the transcript is as it was",
                work.engine,
                tally.secs()
            )));
        }
        self.complete(lease, stretches, tally.secs()).await
    }

    async fn sources(&self, conversation: &Conversation) -> Result<Vec<Source>, AttemptError> {
        let (kept, spool) = (self.kept.clone(), self.spool.clone());
        let settle_max = self.limits.audio_settle_max;
        let (user, id) = (conversation.user.clone(), conversation.id.clone());
        let runs = tokio::task::spawn_blocking(move || {
            // What the spool lets go of is on its way.
            spool.settle_within(settle_max);
            kept.runs(&user, &id).map(sources::of_runs)
        });
        let runs = runs.await.map_err(std::io::Error::other).and_then(|runs| runs);
        let mut sources = runs.map_err(AttemptError::Read)?;
        let uploads = self.store.uploads_of(&conversation.user, &conversation.id).await?;
        for upload in uploads {
            sources.extend(Source::of_upload(upload, [self.kept.uploads(), &self.vault]));
        }
        Ok(sources)
    }

    async fn hear(
        &self,
        lease: &RetranscriptionLease,
        engine: &Chain,
        conversation: &Conversation,
        source: &Source,
        progress: &Progress,
    ) -> Result<Said, AttemptError> {
        let spec = StreamSpec {
            sample_rate_hz: source.rate_hz(),
            language: source.language().or(conversation.language.as_deref()).unwrap_or("en").to_owned(),
            label: lease.id.as_str().to_owned(),
            key_terms: Vec::new(),
            interim: false,
        };
        let open = source.opener(self.limits.upload_secs_max);
        let said = Said::of(hear(engine, spec, open, self.limits.speech_stuck_max, progress).await?);
        let text = serde_json::to_string(&said).map_err(|error| AttemptError::Final(error.to_string()))?;
        self.store.record_hearing(lease, &source.name(), &text, self.clock.wall()).await?;
        Ok(said)
    }

    /// Renews the lease until it is lost.
    async fn keep(&self, lease: &RetranscriptionLease, tally: &Tally) {
        loop {
            tokio::time::sleep(self.limits.lease_renew_every).await;
            let until = self.clock.wall() + self.limits.lease;
            match self.store.renew_retranscription(lease, until, tally.secs()).await {
                Err(StoreError::Fenced(_) | StoreError::NotFound(_)) => return,
                Err(error) => {
                    tracing::warn!(%error, job.id = %lease.id, "renew the lease of a retranscription")
                }
                Ok(()) => {}
            }
        }
    }

    async fn complete(
        &self,
        lease: &RetranscriptionLease,
        stretches: Vec<HeardStretch>,
        heard_secs: f64,
    ) -> Result<(), AttemptError> {
        let job_id = JobId::random(&mut rand::rng());
        let reheard = Reheard { lease: lease.clone(), stretches, heard_secs, job_id, now: self.clock.wall() };
        let mut tries = 0;
        loop {
            tries += 1;
            match self.store.complete_retranscription(reheard.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_retryable() && tries < STORE_TRIES => {
                    tracing::warn!(%error, job.id = %lease.id, "store what was heard again; trying again");
                    tokio::time::sleep(self.limits.store_retry_every).await;
                }
                Err(StoreError::Conflict(text)) => return Err(AttemptError::Away(text)),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn outcome(&self, work: &Retranscription, error: AttemptError) -> AttemptOutcome {
        use std::io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
        let text = error.to_string();
        match error {
            AttemptError::Final(error) => AttemptOutcome::Failed { error },
            AttemptError::Away(error)
            | AttemptError::Hear(HearError::Engine(EngineError::Unavailable(error))) => {
                AttemptOutcome::Postponed {
                    at: self.clock.wall() + self.limits.retranscription_away_for,
                    error,
                }
            }
            AttemptError::Hear(HearError::File(FileError::Io(error)))
                if !matches!(error.kind(), NotFound | InvalidData | UnexpectedEof) =>
            {
                self.again(work, text)
            }
            AttemptError::Hear(HearError::File(_)) => AttemptOutcome::Failed { error: text },
            _ => self.again(work, text),
        }
    }

    fn again(&self, work: &Retranscription, error: String) -> AttemptOutcome {
        let backoff = Backoff { first: self.limits.job_backoff_first, max: self.limits.job_backoff_max };
        let at = self.clock.wall() + backoff.delay(work.attempts, &mut rand::rng());
        AttemptOutcome::Retry { at, error }
    }

    async fn end(&self, lease: &RetranscriptionLease, outcome: AttemptOutcome) {
        let label = match &outcome {
            AttemptOutcome::Retry { .. } => "retry",
            AttemptOutcome::Failed { .. } => "failed",
            AttemptOutcome::Released => "released",
            AttemptOutcome::Postponed { .. } => "postponed",
        };
        metrics::counter!("auricle_retranscriptions_ended_total", "outcome" => label).increment(1);
        match self.store.end_retranscription(lease, outcome, self.clock.wall()).await {
            Ok(()) | Err(StoreError::Fenced(_) | StoreError::NotFound(_)) => {}
            Err(error) => tracing::warn!(%error, job.id = %lease.id, "end an attempt to hear again"),
        }
    }
}
