//! The store's door: the trait and the values that go in and out.

use std::time::Duration;

use async_trait::async_trait;
use auricle_core::session::SpeakerAssignment;
use auricle_core::target::{Health, Verdict};
use auricle_core::{
    ActionItemId, Assignee, Conversation, ConversationId, ConversationStatus, DiscardReason, EffectId,
    EffectKey, EffectState, Epoch, FinaliseReason, Geolocation, JobId, JobState, MemoryId, MessageId,
    PersonId, Photo, PhotoId, ProcessId, Provenance, Revision, Segment, SegmentId, Source, Structured,
    TargetId, TargetKind, TargetState, Translation, Trigger, UnixMicros, UploadId, UserId,
};

pub use crate::days::*;
pub use crate::people::*;
pub use crate::records::*;
pub use crate::retranscriptions::*;
pub use crate::uploads::*;
pub use crate::vectors::*;

/// What went wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or the database's quota is full. Nothing was written. Try again when there is room.
    #[error("the store is full: {0}; free space on its disk")]
    Full(String),
    /// The store did not answer in time, or its queue is full. It is unknown whether the write happened only if
    /// `started`; every write of this trait may be repeated safely.
    #[error("the store is busy: {0}")]
    Busy(String),
    /// The caller no longer owns what it writes to: a newer epoch exists, or it was given up.
    #[error("fenced: {0}")]
    Fenced(String),
    /// The conversation has ended or is gone: what was to be written begins another one.
    #[error("ended: {0}")]
    Ended(String),
    /// No such row, or it belongs to another user.
    #[error("not found: {0}")]
    NotFound(String),
    /// The request contradicts the row's state, e.g. deleting a conversation that is being heard.
    #[error("conflict: {0}")]
    Conflict(String),
    /// The database is damaged or unreadable.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// Anything else, with the database's own words.
    #[error("store: {0}")]
    Other(String),
}

impl StoreError {
    /// Whether the same call can succeed later without anything else changing here.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full(_) | Self::Busy(_))
    }
}

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Which conversation a session wants. Source: listen-protocol 6.2; ownership: design section 5.
#[derive(Clone, Debug)]
pub struct OpenConversation {
    pub user: UserId,
    /// The process that will own it; must have been announced with [`Store::process_alive`].
    pub process: ProcessId,
    pub source: Source,
    pub language: Option<String>,
    /// The connection's conversation timeout, stored for the sweeper.
    pub timeout: Duration,
    pub choice: Choice,
    /// Id for the stub, if one is made and `choice` names none.
    pub fresh_id: ConversationId,
    pub call_id: Option<String>,
    pub now: UnixMicros,
}

/// How a session chooses its conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Resume the newest `in_progress` conversation of the same user and source that was not client-named and whose
    /// `finished_at` is less than `timeout` ago; else make a stub. It takes the conversation even from a session that
    /// still owns it: the epoch grows and the older session is fenced.
    Resume,
    /// The client's own UUID: resume it if `in_progress` (of this user); make it if absent; if it exists in another status
    /// or belongs to another user, make a stub under `fresh_id`. `client_conversation_id` is stored in each case.
    Named(ConversationId),
    /// Always a stub (multi-channel, and after a rollover).
    New,
}

/// A session's right to write to a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ownership {
    pub user: UserId,
    pub conversation: ConversationId,
    pub epoch: Epoch,
}

/// What [`Store::open_conversation`] found or made.
#[derive(Clone, Debug)]
pub struct Opened {
    pub ownership: Ownership,
    /// True if it existed before.
    pub resumed: bool,
    /// True if another live session owned it until now.
    pub taken_over: bool,
    pub started_at: UnixMicros,
    pub finished_at: UnixMicros,
    pub source: Source,
    /// The stored segment with the greatest start, which is the only one that merging may change.
    pub tail: Option<Segment>,
    pub segment_count: u64,
    pub photo_count: u64,
    pub client_conversation_id: Option<String>,
    /// The newest completed, not discarded conversation of the user, for `last_memory`.
    pub last_completed: Option<ConversationId>,
    /// Who its speakers are, as their segments were assigned; without segments.
    pub speakers: Vec<SpeakerAssignment>,
}

/// Words to store. Applied whole or not at all.
#[derive(Clone, Debug)]
pub struct AppendSegments {
    pub ownership: Ownership,
    /// New segments and changed ones, by id. A changed one keeps nothing of its old row but whom it was assigned to, if it was:
    /// that may have been said past the session.
    pub upsert: Vec<Segment>,
    /// Segments that merging absorbed.
    pub delete: Vec<SegmentId>,
    /// Set by the first batch of an empty conversation (5.3).
    pub started_at: Option<UnixMicros>,
    /// New `finished_at`.
    pub now: UnixMicros,
}

/// Words that were recovered later, from spooled audio. They need no ownership: they are put in by time.
#[derive(Clone, Debug)]
pub struct InsertRecovered {
    pub conversation: ConversationId,
    /// Identity of the spool run; a second insertion of the same run and position changes nothing.
    pub run: String,
    /// Position in the run, in samples, up to which this insertion covers it.
    pub until_sample: u64,
    /// Wall-clock time of each segment's zero: `start`/`end` are seconds from here, and are moved onto the
    /// conversation's clock in the transaction (`started_at` is set to the first segment's time if it was empty).
    pub zero_at: UnixMicros,
    pub segments: Vec<Segment>,
    /// A stretch that could not be recovered, in seconds from `zero_at`; recorded in `gaps`.
    pub gap: Option<(f64, f64)>,
}

/// How to end a conversation.
#[derive(Clone, Debug)]
pub struct Finalise {
    pub conversation: ConversationId,
    /// `Some`: only if this is still the owner. `None`: only if nobody live owns it (sweeper, REST).
    pub owner: Option<Ownership>,
    pub reason: FinaliseReason,
    /// Id for the job, if one is made.
    pub job_id: JobId,
    pub now: UnixMicros,
}

/// What [`Store::finalise`] did, in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finalised {
    /// No segments and no photos, checked in this transaction: the row is gone.
    DeletedEmpty,
    /// Status is `processing` and the job is queued.
    Queued { job: JobId, revision: Revision },
    /// It had already ended; nothing changed.
    AlreadyEnded { status: ConversationStatus },
}

/// A conversation that the sweeper may end.
#[derive(Clone, Debug)]
pub struct Orphan {
    pub conversation: ConversationId,
    pub user: UserId,
    pub finished_at: UnixMicros,
}

/// Filter of a listing. Listings are ordered by `created_at`, newest first.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// Empty means all.
    pub statuses: Vec<ConversationStatus>,
    pub include_discarded: bool,
    pub limit: usize,
    pub offset: usize,
}

/// One search hit.
#[derive(Clone, Debug)]
pub struct SearchHit {
    /// Without segments.
    pub conversation: Conversation,
    /// Up to a few lines of matching text; each match stands between U+0002 and U+0003.
    pub snippets: Vec<Snippet>,
    /// Greater is better.
    pub score: f64,
}

/// A conversation that a search by words found, without anything that is shown of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked {
    pub conversation: ConversationId,
    /// Greater is better; comparable within one search only.
    pub score: f64,
    /// The lines that match best, as the store that gave them numbers them.
    pub lines: Vec<i64>,
}

/// A piece of text that matched.
#[derive(Clone, Debug)]
pub struct Snippet {
    /// Matches stand between U+0002 and U+0003.
    pub text: String,
    /// The segment it stands in; `None` for title or overview.
    pub segment: Option<SegmentId>,
    /// That segment's start, in seconds.
    pub start: Option<f64>,
}

/// A job as people see it.
#[derive(Clone, Debug)]
pub struct Job {
    pub id: JobId,
    pub conversation: ConversationId,
    pub user: UserId,
    pub revision: Revision,
    pub reason: FinaliseReason,
    pub state: JobState,
    pub attempts: u32,
    pub attempts_max: u32,
    pub run_at: UnixMicros,
    pub created_at: UnixMicros,
    pub updated_at: UnixMicros,
    /// Names the step and the reason, without any transcript text.
    pub last_error: Option<String>,
    pub leased_by: Option<ProcessId>,
    pub lease_expires_at: Option<UnixMicros>,
    pub epoch: Epoch,
    /// Attempts in a row that were not counted, since what they needed was away.
    pub postponed: u32,
    /// When the first of them ended.
    pub away_since: Option<UnixMicros>,
}

/// A worker's right to work on a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobLease {
    pub job: JobId,
    pub conversation: ConversationId,
    pub revision: Revision,
    pub epoch: Epoch,
}

/// Where a person's voice was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeakerSample {
    pub conversation: ConversationId,
    pub segments: Vec<SegmentId>,
    pub kept_at: UnixMicros,
}

/// Which jobs a claim may take. The default takes any that is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClaimRule {
    /// Only what has been due for at least this long: the first chance is somebody else's.
    pub waited: Duration,
    /// None of a user of whom the process already has one.
    pub one_per_user: bool,
}

/// A claimed job.
#[derive(Clone, Debug)]
pub struct ClaimedJob {
    pub lease: JobLease,
    /// With `attempts` counting this one.
    pub job: Job,
}

/// A recorded result of one step, for a later attempt to resume from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepRecord {
    pub step: String,
    pub result: String,
    pub at: UnixMicros,
}

/// The outcome of a job, applied in one transaction as a field-level merge: structured, provenance, discarded,
/// `status=completed`, the job, action items and memories, the search index and the effects. Segments and everything a user
/// edited stay untouched.
///
/// The first completion of a conversation also records `target:{id}` for each of the user's targets that is not off and
/// hears of conversations; apps hear of no discarded one. Source: pusher-and-processing 4.1, rows 19 and 21.
#[derive(Clone, Debug)]
pub struct Completion {
    pub lease: JobLease,
    pub structured: Structured,
    pub provenance: Provenance,
    pub discarded: Option<DiscardReason>,
    /// Lasting facts about the user.
    pub memories: Vec<String>,
    /// Effect names with their payload; keyed (conversation, revision, name), so a second completion adds none.
    pub effects: Vec<NewEffect>,
    pub now: UnixMicros,
}

/// An effect to record.
#[derive(Clone, Debug)]
pub struct NewEffect {
    pub id: EffectId,
    /// See [`EffectKey::name`].
    pub name: String,
    /// What the deliverer needs, as JSON. No transcript text: deliverers read the conversation.
    pub payload: String,
}

/// An effect, claimed for delivery or listed.
#[derive(Clone, Debug)]
pub struct Effect {
    pub id: EffectId,
    pub key: EffectKey,
    pub user: UserId,
    /// Whom it is delivered to, if that is one of the user's targets.
    pub target: Option<TargetId>,
    pub payload: String,
    pub state: EffectState,
    pub attempts: u32,
    pub run_at: UnixMicros,
    pub last_error: Option<String>,
    pub epoch: Epoch,
    /// Attempts in a row that were not counted, since the receiver was away.
    pub postponed: u32,
    /// When the first of them ended.
    pub away_since: Option<UnixMicros>,
    pub created_at: UnixMicros,
    /// When it was delivered, skipped or given up.
    pub ended_at: Option<UnixMicros>,
}

/// Text that is not for logs, such as a key, or an address whose query may hold one.
#[derive(Clone, PartialEq, Eq)]
pub struct Sensitive(String);

impl Sensitive {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: for requests and signatures, never for logs.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// What a user says of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSettings {
    /// For people.
    pub name: String,
    pub triggers: Vec<Trigger>,
    /// Checked by the caller.
    pub url: Sensitive,
    /// `host:port` of `url`.
    pub host: String,
    /// Seconds of audio in one delivery.
    pub audio_secs: u32,
}

/// A target to add; it is on.
#[derive(Clone, Debug)]
pub struct NewTarget {
    pub id: TargetId,
    pub user: UserId,
    pub kind: TargetKind,
    pub settings: TargetSettings,
    /// By which its deliveries are signed.
    pub secret: Sensitive,
    pub now: UnixMicros,
}

/// One of a user's webhooks or apps, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub id: TargetId,
    pub user: UserId,
    pub kind: TargetKind,
    pub settings: TargetSettings,
    pub state: TargetState,
    pub created_at: UnixMicros,
    pub health: Health,
    /// When failures switched it off.
    pub off_at: Option<UnixMicros>,
    /// The last success.
    pub last_delivery_at: Option<UnixMicros>,
    pub last_error: Option<String>,
    /// Tries that were taken, realtime ones included.
    pub delivered: u64,
    /// Tries that were not.
    pub failed: u64,
    /// Effects that wait.
    pub waiting: u64,
}

/// A target as whoever delivers to it needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    pub target: TargetId,
    pub user: UserId,
    pub kind: TargetKind,
    pub settings: TargetSettings,
    pub state: TargetState,
    pub secret: Sensitive,
}

/// How tries to reach a target went since the last note.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryNote {
    /// Tries that were taken.
    pub delivered: u32,
    /// Tries that failed after the last one that was taken.
    pub failed: u32,
    /// Why the last one failed; without transcript text or secrets.
    pub error: Option<String>,
}

/// Something to say to a user.
#[derive(Clone, Debug)]
pub struct NewMessage {
    pub user: UserId,
    /// Whose it is.
    pub target: TargetId,
    /// About a conversation; one that is gone, or another user's, is left out.
    pub conversation: Option<ConversationId>,
    /// What it answers: the second message of a user under one key is none.
    pub key: String,
    pub text: String,
    pub now: UnixMicros,
}

/// Something that was said to a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub id: MessageId,
    /// `None` if it was removed.
    pub target: Option<TargetId>,
    /// The target's name at that time.
    pub sender: String,
    pub conversation: Option<ConversationId>,
    pub text: String,
    pub created_at: UnixMicros,
    /// When a connected client was told.
    pub delivered_at: Option<UnixMicros>,
}

/// How a delivery went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EffectOutcome {
    Delivered,
    /// Nobody to deliver to, which is fine for this kind.
    Skipped,
    /// Try again then.
    Retry {
        at: UnixMicros,
        error: String,
    },
    /// The receiver is away: try again then, this attempt is not counted.
    Postponed {
        at: UnixMicros,
        error: String,
    },
    /// Never try again.
    Failed {
        error: String,
    },
}

/// What an attempt that did not complete leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// Queue it again for then.
    Retry { at: UnixMicros, error: String },
    /// Terminal: job and conversation become `failed` in one transaction; transcript and old record stay.
    Failed { error: String },
    /// Give it back untried (drain): queued at once, this attempt is not counted.
    Released,
    /// What it needs is away: queued for then, this attempt is not counted.
    Postponed { at: UnixMicros, error: String },
}

/// How the store is doing. Cheap: atomics only.
#[derive(Clone, Debug, Default)]
pub struct StoreHealth {
    /// Milliseconds since the writer last finished an operation or waited idle; grows when it is stuck.
    pub writer_idle_for: Duration,
    /// Writes queued.
    pub queued: usize,
    /// Why writes are being refused, e.g. a full disk; `None` when they are not.
    pub degraded: Option<String>,
}

/// How far the values on disk are from the present key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sealing {
    /// Nothing is left to do.
    pub done: bool,
    /// Every value is; what is left is to write the file anew, so that no deleted text stays in it.
    pub needs_compacting: bool,
    /// From 0 to 1, roughly.
    pub share: f64,
    /// Values brought to the present key so far.
    pub resealed: u64,
    /// Values that could not be opened: they are as they were.
    pub damaged: u64,
}

impl Sealing {
    pub(crate) fn done() -> Self {
        Self { done: true, needs_compacting: false, share: 1.0, resealed: 0, damaged: 0 }
    }
}

/// How many values of one kind stand under one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// `table.column`.
    pub what: String,
    /// `None`: plain.
    pub key: Option<crate::protect::KeyId>,
    pub values: u64,
}

/// Counts for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobCounts {
    pub queued: u64,
    pub leased: u64,
    pub failed: u64,
    /// Age of the oldest queued job past its `run_at`.
    pub oldest_unclaimed: Duration,
    pub effects_pending: u64,
    pub effects_failed: u64,
    pub oldest_effect: Duration,
}

/// A durable store. All methods may be called at once from many tasks. Dropping a returned future does not undo a write
/// that was queued. Every write may be repeated safely with the same arguments.
#[async_trait]
pub trait Store: Retranscriptions + Send + Sync + 'static {
    // --- processes and ownership -------------------------------------------------------------------------------------
    /// Announces or renews a process until `until`. Conversations owned by a process whose time has passed count as unowned.
    async fn process_alive(&self, process: &ProcessId, until: UnixMicros) -> Result<()>;
    /// Ends a process at once: everything it owned or leased is free.
    async fn process_gone(&self, process: &ProcessId, now: UnixMicros) -> Result<()>;

    // --- live conversations ------------------------------------------------------------------------------------------
    /// Resumes or makes the session's conversation and makes the caller its owner with a new epoch.
    async fn open_conversation(&self, open: OpenConversation) -> Result<Opened>;
    /// Stores words. `Fenced` unless the ownership is current, `Ended` unless the status is `in_progress`.
    async fn append_segments(&self, batch: AppendSegments) -> Result<()>;
    /// Stores a photo; moves `finished_at`; the first one sets `source=openglass` unless the source is already a photo device.
    async fn append_photo(&self, ownership: &Ownership, photo: Photo) -> Result<()>;
    /// Sets a photo's description. Needs no ownership.
    async fn describe_photo(
        &self,
        user: &UserId,
        conversation: &ConversationId,
        photo: &PhotoId,
        description: Option<&str>,
        discarded: bool,
    ) -> Result<()>;
    /// Assigns segments to a person (or to the owner: `is_user`), unless already assigned. Returns how many changed.
    async fn assign_segments(
        &self,
        user: &UserId,
        conversation: &ConversationId,
        segments: &[SegmentId],
        is_user: bool,
        person: Option<&str>,
    ) -> Result<usize>;
    /// Puts translations beside segments whose text is still what was translated, each in the place of one in the same language.
    /// Those segments as they now are, in the order asked for. `NotFound` if the conversation is gone.
    async fn translate_segments(
        &self,
        _user: &UserId,
        _conversation: &ConversationId,
        _translations: Vec<(SegmentId, String, Translation)>,
    ) -> Result<Vec<Segment>> {
        Err(StoreError::Other("this kind of store keeps no translations".into()))
    }
    /// Notes the client's reason; used if the conversation is finalised without a better one.
    async fn note_finalise_reason(&self, ownership: &Ownership, reason: FinaliseReason) -> Result<()>;
    /// Ends the session's ownership without ending the conversation, so that another may resume or the sweeper end it.
    async fn release(&self, ownership: &Ownership, now: UnixMicros) -> Result<()>;
    /// Ends a conversation: status and job in one transaction, or deletes it if it is empty.
    async fn finalise(&self, finalise: Finalise) -> Result<Finalised>;
    /// Puts in words recovered from spooled audio. `NotFound` if the conversation is gone (the audio is then of no use).
    async fn insert_recovered(&self, insert: InsertRecovered) -> Result<()>;
    /// Up to `limit` conversations `in_progress` that nobody live owns and whose `finished_at + timeout` has passed, oldest first.
    async fn orphans(&self, now: UnixMicros, limit: usize) -> Result<Vec<Orphan>>;
    /// What is `in_progress` and owned by `process`, in the order it was made; up to `limit`.
    async fn owned(&self, process: &ProcessId, limit: usize) -> Result<Vec<Ownership>>;

    // --- reading -----------------------------------------------------------------------------------------------------
    /// One conversation with segments and photos; `None` if absent or another user's.
    async fn conversation(&self, user: &UserId, id: &ConversationId) -> Result<Option<Conversation>>;
    /// Where one conversation stands; `None` if absent or another user's. Reads one row, for those who look again and again.
    async fn status(
        &self,
        user: &UserId,
        id: &ConversationId,
    ) -> Result<Option<(ConversationStatus, Revision)>>;
    /// The user's current `in_progress` conversation, newest first.
    async fn current_conversation(&self, user: &UserId) -> Result<Option<ConversationId>>;
    /// A page of conversations, without segments and photos.
    async fn list(&self, user: &UserId, filter: ListFilter) -> Result<Vec<Conversation>>;
    /// A page of the ids of all of the user's conversations, newest first. Reads no text: it lists damaged ones too.
    async fn conversation_ids(
        &self,
        user: &UserId,
        limit: usize,
        offset: usize,
    ) -> Result<Vec<ConversationId>>;
    /// Full-text search over titles, overviews and segments. Any text is a valid query; words are and-ed, quotes make phrases.
    async fn search(&self, user: &UserId, query: &str, limit: usize, offset: usize)
    -> Result<Vec<SearchHit>>;

    /// The ranking of [`Store::search`] alone, which costs a fraction of it: for whoever shows only some of what was found.
    async fn search_ranks(
        &self,
        user: &UserId,
        query: &str,
        limit: usize,
        offset: usize,
    ) -> Result<Vec<Ranked>> {
        let hits = self.search(user, query, limit, offset).await?;
        let ranked = |hit: SearchHit| Ranked {
            conversation: hit.conversation.id,
            score: hit.score,
            lines: Vec::new(),
        };
        Ok(hits.into_iter().map(ranked).collect())
    }
    /// What [`Store::search_ranks`] found for this query, as hits, in the order asked for; what is gone since is left out.
    async fn search_hits(&self, user: &UserId, query: &str, ranked: Vec<Ranked>) -> Result<Vec<SearchHit>> {
        /// Of the best only: enough for whoever asked for no more ranks than that.
        const HITS_MAX: usize = 500;
        let hits = self.search(user, query, HITS_MAX, 0).await?;
        let hit =
            |ranked: &Ranked| hits.iter().find(|hit| hit.conversation.id == ranked.conversation).cloned();
        Ok(ranked.iter().filter_map(hit).collect())
    }

    // --- edits by the user -------------------------------------------------------------------------------------------
    /// Sets the user's title. `NotFound` if absent.
    async fn rename(&self, user: &UserId, id: &ConversationId, title: &str, now: UnixMicros) -> Result<()>;
    /// Deletes a conversation and all that hangs on it (a live session that owns it is fenced). `NotFound` if absent.
    async fn delete(&self, user: &UserId, id: &ConversationId) -> Result<()>;
    /// Starts a new revision of an ended conversation. `Conflict` while `in_progress` or `processing`.
    async fn reprocess(
        &self,
        user: &UserId,
        id: &ConversationId,
        job_id: JobId,
        now: UnixMicros,
    ) -> Result<(JobId, Revision)>;
    /// Completed records that stand in for better ones ([`auricle_core::Provenance::is_stand_in`]), of all users, the oldest
    /// first.
    async fn stand_ins(&self, limit: usize) -> Result<Vec<(UserId, ConversationId)>>;
    /// Sets where the conversation took place.
    async fn set_geolocation(&self, user: &UserId, id: &ConversationId, place: &Geolocation) -> Result<()>;

    // --- action items and memories -----------------------------------------------------------------------------------
    // Made by completions, which keep them in step with each revision: `auricle_core::records`. When a conversation is
    // deleted, those that the user made or reworded stay without it, and the others go with it.
    /// A page of action items.
    async fn action_items(&self, user: &UserId, filter: ActionItemFilter) -> Result<Vec<ActionItemRecord>>;
    /// One action item; `None` if absent, deleted or another user's.
    async fn action_item(&self, user: &UserId, id: &ActionItemId) -> Result<Option<ActionItemRecord>>;
    /// Keeps an action item made by hand. `NotFound` if its conversation is not the user's.
    async fn add_action_item(&self, user: &UserId, new: NewActionItem) -> Result<ActionItemRecord>;
    /// Changes an action item; what is changed here no later revision changes. `NotFound` if absent.
    async fn edit_action_item(
        &self,
        user: &UserId,
        id: &ActionItemId,
        edit: ActionItemEdit,
        now: UnixMicros,
    ) -> Result<ActionItemRecord>;
    /// Deletes an action item; its like does not come back with a later revision. `NotFound` if absent.
    async fn remove_action_item(&self, user: &UserId, id: &ActionItemId, now: UnixMicros) -> Result<()>;
    /// A page of memories.
    async fn memories(&self, user: &UserId, filter: MemoryFilter) -> Result<Vec<MemoryRecord>>;
    /// One memory; `None` if absent, deleted or another user's.
    async fn memory(&self, user: &UserId, id: &MemoryId) -> Result<Option<MemoryRecord>>;
    /// Keeps a memory made by hand. `NotFound` if its conversation is not the user's.
    async fn add_memory(&self, user: &UserId, new: NewMemory) -> Result<MemoryRecord>;
    /// Rewords a memory; no later revision changes it. `NotFound` if absent.
    async fn edit_memory(
        &self,
        user: &UserId,
        id: &MemoryId,
        text: &str,
        now: UnixMicros,
    ) -> Result<MemoryRecord>;
    /// Deletes a memory; its like does not come back with a later revision. `NotFound` if absent.
    async fn remove_memory(&self, user: &UserId, id: &MemoryId, now: UnixMicros) -> Result<()>;

    // --- embeddings and search by meaning ------------------------------------------------------------------------------
    /// Makes those conversations due whose vectors are not of `model`, and those given up, up to `limit`. Returns how many.
    async fn requeue_embeddings(&self, model: &str, now: UnixMicros, limit: usize) -> Result<usize>;
    /// Claims a conversation that is to be embedded, the latest due first: every completion leaves one. `None` if there is none.
    async fn claim_embedding(
        &self,
        process: &ProcessId,
        now: UnixMicros,
        lease: Duration,
    ) -> Result<Option<EmbeddingClaim>>;
    /// Extends the claim. `Fenced` if it was lost, also to a new revision.
    async fn renew_embedding(&self, claim: &EmbeddingClaim, until: UnixMicros) -> Result<()>;
    /// Puts a conversation's vectors in the place of its old ones. `Fenced` if the claim was lost, also to a new revision.
    async fn complete_embedding(
        &self,
        claim: &EmbeddingClaim,
        model: &str,
        embedded: Vec<Embedded>,
    ) -> Result<()>;
    /// Ends an attempt that did not complete. `Fenced` if the claim was lost.
    async fn end_embedding(
        &self,
        claim: &EmbeddingClaim,
        outcome: EmbeddingOutcome,
        now: UnixMicros,
    ) -> Result<()>;
    async fn embedding_counts(&self) -> Result<EmbeddingCounts>;
    /// Full-text search over action items and memories, best first, as [`Store::search`] reads a query; each with its text,
    /// whose matches stand between U+0002 and U+0003.
    async fn search_records(&self, user: &UserId, query: &str, limit: usize)
    -> Result<Vec<(Record, String)>>;
    /// What [`Store::nearest`] found, as hits with the beginning of the nearest text; those that are gone are left out.
    async fn near_hits(&self, user: &UserId, near: Vec<Near>) -> Result<Vec<SearchHit>>;
    /// Conversations of the user nearest to `query` by this model's vectors, best first. What was set aside is left out.
    async fn nearest(&self, user: &UserId, model: &str, query: Vec<f32>, limit: usize) -> Result<Vec<Near>>;

    // --- days --------------------------------------------------------------------------------------------------------
    /// Users who were heard since then, with the time zones they have set, in an order of the store's own, those after `after`.
    async fn users_heard_since(
        &self,
        _since: UnixMicros,
        _after: Option<&UserId>,
        _limit: usize,
    ) -> Result<Vec<(UserId, Option<String>)>> {
        Ok(Vec::new())
    }
    /// Queues those of `days` of which there are records and no summary since they were over. Where records are still to come, a
    /// day waits for them until `patience` after its end. Returns how many; repeating it queues none.
    async fn plan_days(
        &self,
        _user: &UserId,
        _days: Vec<PlannedDay>,
        _patience: Duration,
        _now: UnixMicros,
    ) -> Result<usize> {
        Err(no_days())
    }
    /// Queues a day, whatever was made of it; one that is being made is left alone. `NotFound` if there is no record of it.
    async fn ask_day(&self, _user: &UserId, _day: PlannedDay, _now: UnixMicros) -> Result<DayRecord> {
        Err(no_days())
    }
    /// The records of conversations that began then, in that order, without transcripts and what was set aside.
    async fn conversations_of_day(
        &self,
        _user: &UserId,
        _from: UnixMicros,
        _until: UnixMicros,
        _limit: usize,
    ) -> Result<Vec<Conversation>> {
        Err(no_days())
    }
    /// Claims the day that has been due for longest. `None` if there is none.
    async fn claim_day(
        &self,
        _process: &ProcessId,
        _now: UnixMicros,
        _lease: Duration,
    ) -> Result<Option<DayClaim>> {
        Ok(None)
    }
    /// Extends the claim. `Fenced` if it was lost.
    async fn renew_day(&self, _claim: &DayClaim, _until: UnixMicros) -> Result<()> {
        Err(no_days())
    }
    /// Keeps what a finished call brought, for the next attempt of this revision. `Fenced` if the claim was lost.
    async fn record_day_step(&self, _claim: &DayClaim, _step: &str) -> Result<()> {
        Err(no_days())
    }
    /// In one transaction: the summary, the end of the work, and, if the day is over, the effects of those who hear of days, once
    /// for each day and target. `Fenced` if the claim was lost.
    async fn complete_day(&self, _claim: &DayClaim, _done: DayCompletion) -> Result<()> {
        Err(no_days())
    }
    /// Deletes a day of which there are no records any more. `Fenced` if the claim was lost.
    async fn drop_day(&self, _claim: &DayClaim) -> Result<()> {
        Err(no_days())
    }
    /// Ends an attempt that did not complete. `Fenced` if the claim was lost.
    async fn end_day(&self, _claim: &DayClaim, _outcome: DayOutcome, _now: UnixMicros) -> Result<()> {
        Err(no_days())
    }
    /// A page of the user's days, the latest first.
    async fn days(&self, _user: &UserId, _limit: usize, _offset: usize) -> Result<Vec<DayRecord>> {
        Ok(Vec::new())
    }
    /// A day by its date, YYYY-MM-DD.
    async fn day(&self, _user: &UserId, _date: &str) -> Result<Option<DayRecord>> {
        Ok(None)
    }

    // --- jobs --------------------------------------------------------------------------------------------------------
    /// Claims the most overdue runnable job that `rule` allows: queued and due, or leased with an expired lease (its epoch
    /// grows, its attempt counts). A job whose attempts are spent becomes failed here instead. `None` if there is nothing
    /// to do.
    async fn claim_job(
        &self,
        process: &ProcessId,
        now: UnixMicros,
        lease: Duration,
        rule: ClaimRule,
    ) -> Result<Option<ClaimedJob>>;
    /// Extends the lease. `Fenced` if it was lost.
    async fn renew_job(&self, lease: &JobLease, until: UnixMicros) -> Result<()>;
    /// Records a step's result. `Fenced` if the lease was lost. The first record of a step wins.
    async fn record_step(&self, lease: &JobLease, step: &str, result: &str, now: UnixMicros) -> Result<()>;
    /// The steps recorded for the lease's revision.
    async fn steps(&self, conversation: &ConversationId, revision: Revision) -> Result<Vec<StepRecord>>;
    /// Applies a job's outcome. `Fenced` if the lease was lost. `NotFound` if the conversation is gone (the job is then dropped).
    async fn complete_job(&self, completion: Completion) -> Result<()>;
    /// Ends an attempt that did not complete. `Fenced` if the lease was lost.
    async fn end_attempt(&self, lease: &JobLease, outcome: AttemptOutcome, now: UnixMicros) -> Result<()>;
    /// Jobs of a user (or of all), newest first; `None` for any state.
    async fn jobs(&self, user: Option<&UserId>, state: Option<JobState>, limit: usize) -> Result<Vec<Job>>;
    /// One job.
    async fn job(&self, user: Option<&UserId>, id: &JobId) -> Result<Option<Job>>;
    /// Revives a failed job: queued now, attempts back to 0, conversation `processing`. `Conflict` unless failed.
    async fn retry_job(&self, user: Option<&UserId>, id: &JobId, now: UnixMicros) -> Result<()>;
    /// Revives failed jobs of a user (or of all) as [`Store::retry_job`] does, the oldest first, `limit` at most; those of an
    /// older revision stay as they are. Returns how many.
    async fn retry_failed_jobs(&self, user: Option<&UserId>, now: UnixMicros, limit: usize) -> Result<usize>;
    async fn job_counts(&self, now: UnixMicros) -> Result<JobCounts>;

    // --- speakers ----------------------------------------------------------------------------------------------------
    /// Keeps where a person's voice was heard, for later use. The same person and conversation again: its segments are added.
    /// `NotFound` if the user has no such conversation.
    async fn add_speaker_sample(
        &self,
        user: &UserId,
        person: &PersonId,
        conversation: &ConversationId,
        segments: &[SegmentId],
        now: UnixMicros,
    ) -> Result<()>;
    /// Where a person's voice was heard, newest first.
    async fn speaker_samples(
        &self,
        user: &UserId,
        person: &PersonId,
        limit: usize,
    ) -> Result<Vec<SpeakerSample>>;

    // --- people ------------------------------------------------------------------------------------------------------
    /// All people of a user, the first first.
    async fn people(&self, user: &UserId) -> Result<Vec<Person>>;
    /// One of them; `None` if absent or another user's.
    async fn person(&self, user: &UserId, id: &PersonId) -> Result<Option<Person>>;
    /// The person of this name, in any case; if there is none, makes one under `fresh`, or answers `None` without it.
    /// `Conflict` if the user has as many as the store's bound.
    async fn person_named(
        &self,
        user: &UserId,
        name: &str,
        fresh: Option<PersonId>,
        now: UnixMicros,
    ) -> Result<Option<Person>>;
    /// Renames a person. `NotFound` if absent, `Conflict` if another has the name.
    async fn rename_person(
        &self,
        user: &UserId,
        id: &PersonId,
        name: &str,
        now: UnixMicros,
    ) -> Result<Person>;
    /// Deletes a person, their voices and samples, and takes them from the segments they were assigned; in steps, the person
    /// last. `NotFound` if absent.
    async fn remove_person(&self, user: &UserId, id: &PersonId) -> Result<()>;
    /// Keeps a voice. Full, the person's oldest goes. `NotFound` if the person is absent; `Conflict` if the user has as many
    /// voices as the store's bound and the person none.
    async fn add_voice(&self, user: &UserId, voice: Voice) -> Result<()>;
    /// Voices of all of a user's people, of one model or of all, the first first.
    async fn voices(&self, user: &UserId, model: Option<&str>) -> Result<Vec<Voice>>;
    /// Assigns segments, whatever they were assigned to and whatever the conversation's status; nothing else of them changes.
    /// Returns which. `NotFound` if there are none such, or the person is not the user's.
    async fn reassign_segments(
        &self,
        user: &UserId,
        conversation: &ConversationId,
        which: SegmentChoice,
        to: Assignee,
    ) -> Result<Vec<SegmentId>>;

    // --- effects -----------------------------------------------------------------------------------------------------
    /// Claims up to `limit` due effects of these kinds (the part of the name before the first `:`): pending, or leased with
    /// an expired lease. No more of one host, in all processes, than the store's bound; none of a paused target; those of a
    /// target that is off fail here.
    async fn claim_effects(
        &self,
        process: &ProcessId,
        now: UnixMicros,
        lease: Duration,
        limit: usize,
        kinds: &[&str],
    ) -> Result<Vec<Effect>>;
    /// Ends a delivery. `Fenced` if it was claimed by another meanwhile.
    async fn end_effect(
        &self,
        id: &EffectId,
        epoch: Epoch,
        outcome: EffectOutcome,
        now: UnixMicros,
    ) -> Result<()>;
    /// Revives failed effects of a user (or of all), the oldest first, `limit` at most: pending now under the same keys,
    /// attempts back to 0. Returns how many.
    async fn retry_failed_effects(
        &self,
        user: Option<&UserId>,
        now: UnixMicros,
        limit: usize,
    ) -> Result<usize>;
    async fn effects(&self, conversation: &ConversationId) -> Result<Vec<Effect>>;
    /// Records `target:{id}` about a day for each of the user's targets that is not off and hears of day summaries.
    /// `payload` is a JSON object, see [`NewEffect::payload`]; the same day again adds none. Returns how many there are new.
    async fn record_day_effects(
        &self,
        user: &UserId,
        day: &str,
        payload: &str,
        now: UnixMicros,
    ) -> Result<usize>;

    // --- targets and messages ----------------------------------------------------------------------------------------
    /// Adds a target. `Conflict` if the user has as many as the store's bound. The same id again changes nothing.
    async fn add_target(&self, target: NewTarget) -> Result<()>;
    /// A user's targets, in the order they were added.
    async fn targets(&self, user: &UserId) -> Result<Vec<Target>>;
    /// One of them.
    async fn target(&self, user: &UserId, id: &TargetId) -> Result<Option<Target>>;
    /// Changes a target's settings, and its state if that is given: what switches it off meanwhile is not undone by a
    /// change of something else. On again: what waited is due, its health begins anew. Off: what waits fails.
    async fn change_target(
        &self,
        user: &UserId,
        id: &TargetId,
        settings: TargetSettings,
        state: Option<TargetState>,
        now: UnixMicros,
    ) -> Result<()>;
    /// Gives it another secret.
    async fn set_target_secret(&self, user: &UserId, id: &TargetId, secret: Sensitive) -> Result<()>;
    /// Removes it, its effects included.
    async fn remove_target(&self, user: &UserId, id: &TargetId) -> Result<()>;
    /// One target as its deliverer needs it, whatever its state.
    async fn recipient(&self, user: &UserId, id: &TargetId) -> Result<Option<Recipient>>;
    /// The user's targets that are on and hear of something in real time.
    async fn realtime_recipients(&self, user: &UserId) -> Result<Vec<Recipient>>;
    /// Up to `limit` users whose targets changed after `version`, and the version up to which that is told. Deliveries are
    /// no change.
    async fn targets_changed(&self, version: u64, limit: usize) -> Result<(Vec<UserId>, u64)>;
    /// Notes how tries went, and applies what follows from it: a notice to its user (a message), or its end.
    async fn note_deliveries(
        &self,
        id: &TargetId,
        note: DeliveryNote,
        now: UnixMicros,
    ) -> Result<Option<Verdict>>;
    /// A target's newest effects.
    async fn deliveries(&self, user: &UserId, id: &TargetId, limit: usize) -> Result<Vec<Effect>>;
    /// Delivers again under the same keys: all failed effects of a target, the oldest first, `limit` at most; or the one
    /// named, whatever it ended as. Returns how many. `Conflict` if the target is off, or the one named is under way.
    async fn replay(
        &self,
        user: &UserId,
        id: &TargetId,
        effect: Option<&EffectId>,
        now: UnixMicros,
        limit: usize,
    ) -> Result<usize>;
    /// Stores a message, and the effect `notify:message` that tells a connected client, in one transaction. False if its key
    /// is there already, or its target is gone.
    async fn add_message(&self, message: NewMessage) -> Result<bool>;
    /// A user's messages, newest first.
    async fn messages(&self, user: &UserId, limit: usize, offset: usize) -> Result<Vec<Message>>;
    /// One of them.
    async fn message(&self, user: &UserId, id: &MessageId) -> Result<Option<Message>>;
    /// A connected client was told of it.
    async fn message_delivered(&self, user: &UserId, id: &MessageId, now: UnixMicros) -> Result<()>;

    // --- uploads -------------------------------------------------------------------------------------------------------
    /// Keeps files that have come, all or none, and returns their rows in the order given. A file that is there already is the
    /// same upload again, under its old id; if that failed, or its conversations were all deleted, it is queued again, under
    /// the new id. `Conflict` if more of the user's would wait than the store's bound.
    async fn add_uploads(
        &self,
        user: &UserId,
        batch: &str,
        new: Vec<NewUpload>,
        now: UnixMicros,
    ) -> Result<Vec<Upload>>;
    /// One upload.
    async fn upload(&self, user: &UserId, id: &UploadId) -> Result<Option<Upload>>;
    /// A user's uploads, the latest first.
    async fn uploads(&self, user: &UserId, limit: usize, offset: usize) -> Result<Vec<Upload>>;
    /// What a request brought, by time of recording.
    async fn upload_batch(&self, user: &UserId, batch: &str) -> Result<Vec<Upload>>;
    /// Those of `ids` that are uploads of anybody.
    async fn known_uploads(&self, ids: Vec<UploadId>) -> Result<Vec<UploadId>>;
    /// Claims an upload that is due, the user's earliest recorded; none of a user of whom another is being transcribed. One whose
    /// last attempt died with its process becomes failed here instead.
    async fn claim_upload(
        &self,
        process: &ProcessId,
        now: UnixMicros,
        lease: Duration,
    ) -> Result<Option<(UploadLease, Upload)>>;
    /// Extends the lease and notes how far it is. `Fenced` if it was lost.
    async fn renew_upload(&self, lease: &UploadLease, until: UnixMicros, heard_secs: f64) -> Result<()>;
    /// Puts an upload's words into conversations and ends it; conversations that wait for no other upload are finalised, all in
    /// one transaction. `Fenced` if the lease was lost, `NotFound` if the upload is gone.
    async fn complete_upload(&self, words: UploadWords) -> Result<Vec<ConversationId>>;
    /// Ends an attempt that did not complete. `Fenced` if the lease was lost.
    async fn end_upload(&self, lease: &UploadLease, outcome: AttemptOutcome, now: UnixMicros) -> Result<()>;
    /// Queues a failed upload again. `Conflict` unless failed.
    async fn retry_upload(&self, user: &UserId, id: &UploadId, now: UnixMicros) -> Result<()>;
    /// Deletes an upload; its conversations stay. `Conflict` while one of them waits for other uploads.
    async fn remove_upload(&self, user: &UserId, id: &UploadId, now: UnixMicros) -> Result<()>;

    // --- users and keys ----------------------------------------------------------------------------------------------
    /// Makes the user if absent; returns true if it is new.
    async fn ensure_user(&self, user: &UserId, now: UnixMicros) -> Result<bool>;
    /// The user's IANA time zone, e.g. `Europe/Madrid`.
    async fn time_zone(&self, user: &UserId) -> Result<Option<String>>;
    /// The language that the user reads, if they have said so.
    async fn language(&self, _user: &UserId) -> Result<Option<String>> {
        Ok(None)
    }
    /// Sets it, or forgets it. `NotFound` if there is no such user.
    async fn set_language(&self, _user: &UserId, _language: Option<&str>) -> Result<()> {
        Err(StoreError::Other("this kind of store keeps no languages of users".into()))
    }
    async fn set_time_zone(&self, user: &UserId, zone: &str) -> Result<()>;
    /// Stores an API key's SHA-256 (the key itself never reaches the store).
    async fn add_api_key(
        &self,
        user: &UserId,
        key_sha256: [u8; 32],
        label: &str,
        now: UnixMicros,
    ) -> Result<()>;
    /// Whose key it is.
    async fn api_key_user(&self, key_sha256: [u8; 32]) -> Result<Option<UserId>>;
    /// Removes a key by its label. Returns how many there were.
    async fn remove_api_key(&self, user: &UserId, label: &str) -> Result<usize>;
    /// Labels and creation times of a user's keys.
    async fn api_keys(&self, user: &UserId) -> Result<Vec<(String, UnixMicros)>>;

    // --- deletion of a user ------------------------------------------------------------------------------------------
    /// Marks the user and takes their API keys. From then on nothing begins in their name (`Conflict`), and [`Store::erase_some`]
    /// deletes the rest, whichever process asks. False if there is no such user.
    async fn begin_erasing(&self, user: &UserId, now: UnixMicros) -> Result<bool>;
    /// Marked users, the oldest mark first, `limit` at most.
    async fn erasing(&self, limit: usize) -> Result<Vec<UserId>>;
    /// Deletes up to about `rows_max` rows of a marked user. True once only the mark is left. `Conflict` if they are not marked.
    async fn erase_some(&self, user: &UserId, rows_max: usize) -> Result<bool>;
    /// Deletes the mark of a user of whom nothing else is left: the user is as if they had never been. `Conflict` if something
    /// is.
    async fn finish_erasing(&self, user: &UserId) -> Result<()>;

    // --- itself ------------------------------------------------------------------------------------------------------
    fn health(&self) -> StoreHealth;
    /// Finishes queued writes and closes. Later calls answer `Busy`.
    async fn close(&self);
}

/// What a store without days answers.
fn no_days() -> StoreError {
    StoreError::Other("this kind of store keeps no summaries of days".into())
}
