//! Conversations whose kept audio is heard again, and the transcripts that were replaced by it, as the store knows them.

use std::time::Duration;

use async_trait::async_trait;
use auricle_core::{
    ConversationId, Epoch, JobId, ProcessId, Provenance, Revision, Segment, Structured, UnixMicros, UploadId,
    UserId,
};

use crate::store::{AttemptOutcome, Result, StepRecord};
use crate::uploads::{Upload, UploadState};

/// A request to hear a conversation again.
#[derive(Clone, Debug)]
pub struct NewRetranscription {
    /// Id of the work, if it is new.
    pub id: JobId,
    pub user: UserId,
    pub conversation: ConversationId,
    /// By its name in configuration; checked by the caller.
    pub engine: String,
    pub now: UnixMicros,
}

/// The work of hearing a conversation again.
#[derive(Clone, Debug, PartialEq)]
pub struct Retranscription {
    pub id: JobId,
    pub user: UserId,
    pub conversation: ConversationId,
    pub engine: String,
    /// The states are those of an upload.
    pub state: UploadState,
    pub attempts: u32,
    /// Without any transcript text.
    pub last_error: Option<String>,
    /// Seconds of audio that are decided.
    pub heard_secs: f64,
    /// What came of it, once it is done.
    pub revision: Option<Revision>,
    /// When it may be claimed: its next try, or the end of its lease.
    pub due_at: UnixMicros,
    pub leased_by: Option<ProcessId>,
    pub created_at: UnixMicros,
    pub updated_at: UnixMicros,
}

/// A process's right to hear a conversation again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetranscriptionLease {
    pub id: JobId,
    pub conversation: ConversationId,
    pub epoch: Epoch,
}

/// What was heard in a stretch of kept audio.
#[derive(Clone, Debug, PartialEq)]
pub struct HeardStretch {
    /// Wall-clock time of the zero of what follows.
    pub zero_at: UnixMicros,
    /// Where audio is, in seconds from `zero_at`: what was said there before is replaced.
    pub from: f64,
    pub until: f64,
    /// It is one channel of a session with several: its speaker is known.
    pub is_channel: bool,
    /// In order; times are seconds from `zero_at`.
    pub segments: Vec<Segment>,
}

/// The words of a conversation that was heard again, to be put in the place of the old ones in one transaction.
#[derive(Clone, Debug)]
pub struct Reheard {
    pub lease: RetranscriptionLease,
    pub stretches: Vec<HeardStretch>,
    /// Seconds of audio.
    pub heard_secs: f64,
    /// Id for the job that makes the record anew.
    pub job_id: JobId,
    pub now: UnixMicros,
}

/// A transcript of a conversation, in short.
#[derive(Clone, Debug, PartialEq)]
pub struct RevisionSummary {
    pub revision: Revision,
    /// Engines that heard it.
    pub engines: Vec<String>,
    /// How many segments it has.
    pub segments: u64,
    /// When it was replaced; `None` for the present one.
    pub replaced_at: Option<UnixMicros>,
}

/// A transcript that was replaced, as it was.
#[derive(Clone, Debug, PartialEq)]
pub struct OldRevision {
    pub summary: RevisionSummary,
    /// The zero of its segments' times.
    pub started_at: UnixMicros,
    /// Without action items: those are rows, which follow each new record.
    pub structured: Structured,
    pub provenance: Option<Provenance>,
    pub segments: Vec<Segment>,
}

/// What became of an upload, as far as its file is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadFate {
    pub id: UploadId,
    pub user: UserId,
    pub state: UploadState,
    /// Whether any conversation came of it that is still there.
    pub has_conversations: bool,
}

/// The part of the store that hears again: claims are leases with epochs, as of jobs.
#[async_trait]
pub trait Retranscriptions: Send + Sync + 'static {
    /// Queues a conversation that has ended. The same engine while it is under way is the same work. `Conflict` while the
    /// conversation is heard or processed, or another engine is at it; `NotFound` if the user has no such conversation.
    async fn ask_retranscription(&self, new: NewRetranscription) -> Result<Retranscription>;
    /// The latest of a conversation.
    async fn retranscription(
        &self,
        user: &UserId,
        conversation: &ConversationId,
    ) -> Result<Option<Retranscription>>;
    /// Those of a user, the newest first, `limit` at most.
    async fn retranscriptions(
        &self,
        user: &UserId,
        state: Option<UploadState>,
        limit: usize,
    ) -> Result<Vec<Retranscription>>;
    /// One by its id; `None` if the user has no such.
    async fn retranscription_by_id(&self, user: &UserId, id: &JobId) -> Result<Option<Retranscription>>;
    /// Revives a failed one: queued now, attempts back to 0. `NotFound` if the user has no such; `Conflict` unless it failed and its
    /// conversation has ended.
    async fn retry_retranscription(&self, user: &UserId, id: &JobId, now: UnixMicros) -> Result<()>;
    /// Claims the one that has been due for longest. One whose last attempt died with its process becomes failed here instead.
    async fn claim_retranscription(
        &self,
        process: &ProcessId,
        now: UnixMicros,
        lease: Duration,
    ) -> Result<Option<(RetranscriptionLease, Retranscription)>>;
    /// Extends the lease and notes how far it is. `Fenced` if it was lost, `NotFound` if the conversation is gone.
    async fn renew_retranscription(
        &self,
        lease: &RetranscriptionLease,
        until: UnixMicros,
        heard_secs: f64,
    ) -> Result<()>;
    /// Records what a stretch brought, for a later attempt to resume from. `Fenced` if the lease was lost. The first record of a
    /// step wins.
    async fn record_hearing(
        &self,
        lease: &RetranscriptionLease,
        step: &str,
        result: &str,
        now: UnixMicros,
    ) -> Result<()>;
    /// What was recorded.
    async fn hearings(&self, lease: &RetranscriptionLease) -> Result<Vec<StepRecord>>;
    /// In one transaction: keeps the present transcript and record readable, puts what was heard in the place of what was said in
    /// the same stretches ([`auricle_core::rehearing`]), starts a new revision and queues the job that makes its record. `Conflict`
    /// while the conversation is processed; `Fenced` if the lease was lost.
    async fn complete_retranscription(&self, reheard: Reheard) -> Result<Revision>;
    /// Ends an attempt that did not complete; the conversation stays as it is. `Fenced` if the lease was lost.
    async fn end_retranscription(
        &self,
        lease: &RetranscriptionLease,
        outcome: AttemptOutcome,
        now: UnixMicros,
    ) -> Result<()>;
    /// All transcripts of a conversation, the newest first: the present one, then those replaced. `NotFound` if absent.
    async fn revisions(&self, user: &UserId, conversation: &ConversationId) -> Result<Vec<RevisionSummary>>;
    /// A replaced one; `None` if absent.
    async fn old_revision(
        &self,
        user: &UserId,
        conversation: &ConversationId,
        revision: Revision,
    ) -> Result<Option<OldRevision>>;
    /// The transcribed uploads that a conversation is made of, in the order in which they were recorded.
    async fn uploads_of(&self, user: &UserId, conversation: &ConversationId) -> Result<Vec<Upload>>;
    /// Those of `ids` that are uploads of anybody, and what became of them.
    async fn upload_fates(&self, ids: Vec<UploadId>) -> Result<Vec<UploadFate>>;
    /// Those of `ids` that are conversations of anybody.
    async fn known_conversations(&self, ids: Vec<ConversationId>) -> Result<Vec<ConversationId>>;
}
