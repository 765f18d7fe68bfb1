//! Transcribes uploads in the background: claimed by lease and epoch, words and end in one transaction.
//!
//! Owns: attempts and what they end as, files that no row names. Leaves to others: where words go (the store), how a file is heard
//! (`crate::speech::file`).
//! Invariants: nothing here runs on a session worker; a file is removed, or kept elsewhere, only after its words are stored; an attempt may be
//! dropped at any await, and another goes on.

use std::sync::Arc;
use std::time::Duration;

use auricle_audio::file::FileError;
use auricle_audio::recording::Form;
use auricle_core::{Backoff, ConversationId, Limits, ProcessId, Segment, UploadId, UserId};
use auricle_speech::{Engine, EngineError, StreamSpec};
use auricle_store::kept::KeptAudio;
use auricle_store::vault::Vault;
use auricle_store::{AttemptOutcome, Store, StoreError, Upload, UploadLease, UploadState, UploadWords};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::SystemClock;
use crate::repair::segments;
use crate::rest::opener;
use crate::speech::file::{HearError, Heard, Progress, hear};

/// Looks for work at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Silence between two stretches of a device's recording that makes them two conversations; also how far apart two recordings of
/// one conversation may be. Source: Omi's sync.
const APART: Duration = Duration::from_secs(120);
/// An attempt that finds no engine is made again after this.
const AWAY_FOR: Duration = Duration::from_secs(5);
/// A file that no row names goes once it is this old: its request may still be under way.
const STRAY_AGE: Duration = Duration::from_secs(3_600);
/// Files of one question to the store.
const STRAYS_AT_ONCE: usize = 500;
/// Times that words are given to a store that is busy, a second apart, before the attempt is given up.
const STORE_TRIES: usize = 10;

/// What transcribes uploads.
pub(crate) struct Uploader {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) vault: Vault,
    /// Where files go that became conversations; `None`: they are deleted.
    pub(crate) kept: Option<KeptAudio>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) process: ProcessId,
    pub(crate) clock: SystemClock,
    /// There may be uploads.
    pub(crate) wake: Arc<Notify>,
    /// There may be jobs.
    pub(crate) wake_jobs: Arc<dyn Fn() + Send + Sync>,
}

impl Uploader {
    /// Runs until `stop`, then gives back what it was at.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken, beat: auricle_process::Beat) {
        self.remove_strays().await;
        let mut running = JoinSet::new();
        while !stop.is_cancelled() {
            beat();
            while running.len() < self.limits.uploads_running_max.max(1) {
                let claimed =
                    self.store.claim_upload(&self.process, self.clock.wall(), self.limits.lease).await;
                match claimed {
                    Ok(Some((lease, upload))) => {
                        let (this, stop) = (Arc::clone(&self), stop.clone());
                        running.spawn(async move { this.attempt(lease, upload, stop).await });
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(%error, "claim an upload");
                        break;
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                Some(ended) = running.join_next() => {
                    if let Err(error) = ended {
                        // Its lease runs out, and the next attempt counts.
                        tracing::error!(%error, "an attempt at an upload broke");
                    }
                }
                () = self.wake.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        while running.join_next().await.is_some() {}
    }

    async fn attempt(&self, lease: UploadLease, upload: Upload, stop: CancellationToken) {
        let progress = Progress::default();
        let heard = tokio::select! {
            heard = self.heard(&upload, &progress) => heard,
            () = stop.cancelled() => return self.end(&lease, AttemptOutcome::Released).await,
            // Deleted, or taken over: there is nobody to tell.
            () = self.keep(&lease, &progress) => return,
        };
        let outcome = match heard {
            Ok(heard) => match self.complete(&lease, &upload, heard).await {
                Ok(made) => return self.done(&upload, !made.is_empty()).await,
                Err(StoreError::Fenced(_) | StoreError::NotFound(_)) => return,
                Err(error) => self.again(&upload, error.to_string()),
            },
            Err(error) => self.outcome(&upload, error),
        };
        self.end(&lease, outcome).await;
    }

    async fn heard(&self, upload: &Upload, progress: &Progress) -> Result<Heard, HearError> {
        let form = Form::parse(&upload.form)
            .ok_or_else(|| FileError::Unsupported("a newer version took this file".into()))?;
        let spec = StreamSpec {
            sample_rate_hz: match form {
                Form::File => 16_000,
                Form::Frames { rate_hz, .. } => rate_hz,
            },
            language: upload.language.clone().unwrap_or_else(|| "en".into()),
            label: upload.id.as_str().to_owned(),
            key_terms: Vec::new(),
            interim: false,
        };
        let open = opener(&self.vault, &upload.user, &upload.id, form, self.limits.upload_secs_max);
        hear(&*self.engine, spec, open, self.limits.speech_stuck_max, progress).await
    }

    /// Renews the lease until it is lost.
    async fn keep(&self, lease: &UploadLease, progress: &Progress) {
        loop {
            tokio::time::sleep(self.limits.lease_renew_every).await;
            let until = self.clock.wall() + self.limits.lease;
            match self.store.renew_upload(lease, until, progress.secs()).await {
                Err(StoreError::Fenced(_) | StoreError::NotFound(_)) => return,
                Err(error) => tracing::warn!(%error, upload = %lease.id, "renew the lease of an upload"),
                Ok(()) => {}
            }
        }
    }

    async fn complete(
        &self,
        lease: &UploadLease,
        upload: &Upload,
        heard: Heard,
    ) -> Result<Vec<ConversationId>, StoreError> {
        let words = heard.utterances.into_iter().flatten().collect();
        let segments = segments(words, 0.0, heard.engine, None);
        let stretches = match Form::parse(&upload.form) {
            Some(Form::Frames { .. }) => apart(segments),
            _ if segments.is_empty() => Vec::new(),
            _ => vec![segments],
        };
        let fresh_ids = stretches.iter().map(|_| ConversationId::random(&mut rand::rng())).collect();
        let words = UploadWords {
            lease: lease.clone(),
            stretches,
            fresh_ids,
            audio_secs: heard.secs,
            join_within: APART,
            now: self.clock.wall(),
        };
        let mut tries = 0;
        loop {
            tries += 1;
            match self.store.complete_upload(words.clone()).await {
                Ok(made) => return Ok(made),
                Err(error) if error.is_retryable() && tries < STORE_TRIES => {
                    tracing::warn!(%error, upload = %lease.id, "store an upload's words; trying again");
                    tokio::time::sleep(self.limits.store_retry_every).await;
                    let until = self.clock.wall() + self.limits.lease;
                    let _ = self.store.renew_upload(lease, until, words.audio_secs).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn done(&self, upload: &Upload, has_conversations: bool) {
        metrics::counter!("auricle_uploads_ended_total", "outcome" => "done").increment(1);
        (self.wake_jobs)();
        self.let_go(upload.user.clone(), upload.id.clone(), has_conversations).await;
    }

    /// Its words are stored: the file goes, or to where audio is kept if there is a conversation to hear again.
    async fn let_go(&self, user: UserId, id: UploadId, has_conversations: bool) {
        let (vault, kept, upload) = (self.vault.clone(), self.kept.clone(), id.clone());
        let removed = tokio::task::spawn_blocking(move || match kept.filter(|_| has_conversations) {
            Some(kept) if kept.adopt_upload(&vault, &user, &id) => Ok(()),
            _ => vault.remove(&user, &id),
        });
        if let Ok(Err(error)) = removed.await {
            tracing::warn!(%error, %upload, "remove a transcribed file");
        }
    }

    fn again(&self, upload: &Upload, error: String) -> AttemptOutcome {
        let backoff = Backoff { first: self.limits.job_backoff_first, max: self.limits.job_backoff_max };
        let at = self.clock.wall() + backoff.delay(upload.attempts, &mut rand::rng());
        AttemptOutcome::Retry { at, error }
    }

    fn outcome(&self, upload: &Upload, error: HearError) -> AttemptOutcome {
        use std::io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
        let failed = |error: String| AttemptOutcome::Failed { error };
        match error {
            HearError::Engine(EngineError::Unavailable(error)) => {
                AttemptOutcome::Postponed { at: self.clock.wall() + AWAY_FOR, error }
            }
            HearError::File(FileError::Io(error)) => match error.kind() {
                NotFound => failed("its file is missing; send it again".into()),
                InvalidData | UnexpectedEof => failed(format!("its file on disk: {error}")),
                _ => self.again(upload, format!("read its file: {error}")),
            },
            HearError::File(error) => failed(error.to_string()),
            error => self.again(upload, error.to_string()),
        }
    }

    async fn end(&self, lease: &UploadLease, outcome: AttemptOutcome) {
        let label = match &outcome {
            AttemptOutcome::Retry { .. } => "retry",
            AttemptOutcome::Failed { .. } => "failed",
            AttemptOutcome::Released => "released",
            AttemptOutcome::Postponed { .. } => "postponed",
        };
        metrics::counter!("auricle_uploads_ended_total", "outcome" => label).increment(1);
        match self.store.end_upload(lease, outcome, self.clock.wall()).await {
            // A failed neighbour may let a conversation end.
            Ok(()) => (self.wake_jobs)(),
            Err(StoreError::Fenced(_) | StoreError::NotFound(_)) => {}
            Err(error) => tracing::warn!(%error, upload = %lease.id, "end an attempt at an upload"),
        }
    }

    /// Files whose row was never made, or is gone.
    async fn remove_strays(&self) {
        let vault = self.vault.clone();
        let found = match tokio::task::spawn_blocking(move || vault.older_than(STRAY_AGE)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return tracing::warn!(%error, "look for files that nobody needs"),
            Err(_) => return,
        };
        for some in found.chunks(STRAYS_AT_ONCE) {
            let ids = some.iter().map(|stored| stored.id.clone()).collect();
            let fates = match self.store.upload_fates(ids).await {
                Ok(fates) => fates,
                Err(error) => return tracing::warn!(%error, "look for files that nobody needs"),
            };
            for stray in some {
                match fates.iter().find(|fate| fate.id == stray.id) {
                    // A process died between its words and this.
                    Some(fate) if fate.state == UploadState::Done => {
                        self.let_go(fate.user.clone(), fate.id.clone(), fate.has_conversations).await;
                        continue;
                    }
                    Some(_) => continue,
                    None => {}
                }
                match self.vault.discard(stray) {
                    Ok(()) => metrics::counter!("auricle_uploads_strays_total").increment(1),
                    Err(error) => tracing::warn!(%error, "remove a file that nobody needs"),
                }
            }
        }
    }
}

/// Stretches with no more than [`APART`] of silence in them.
fn apart(segments: Vec<Segment>) -> Vec<Vec<Segment>> {
    let mut stretches: Vec<Vec<Segment>> = Vec::new();
    for segment in segments {
        match stretches.last_mut() {
            Some(stretch)
                if stretch.last().is_some_and(|last| segment.start - last.end <= APART.as_secs_f64()) =>
            {
                stretch.push(segment);
            }
            _ => stretches.push(vec![segment]),
        }
    }
    stretches
}
