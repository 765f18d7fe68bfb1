//! The SQLite backend of [`Store`]: one writing thread with group commit, a few reading threads, one file.
//!
//! Where to start: `open` (what a file must be), `writer` (how a write becomes durable), then one file for each part of
//! the trait. Several processes may open the same file: every write begins with an immediate transaction and compares
//! epochs inside it.

mod accounts;
mod days;
mod db;
mod effects;
mod embeddings;
mod ending;
mod erasing;
mod items;
mod jobs;
mod live;
mod memories;
mod messages;
mod nearest;
mod open;
mod people;
mod places;
mod ranking;
mod readers;
mod reading;
mod records_search;
mod retranscriptions;
mod revisions;
mod rows;
mod sealing;
mod search;
mod speakers;
mod targets;
#[cfg(test)]
mod tests;
mod translations;
mod uploads;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use auricle_core::target::{HealthNumbers, Verdict};
use auricle_core::{
    ActionItemId, Assignee, Conversation, ConversationId, ConversationStatus, EffectId, Epoch,
    FinaliseReason, Geolocation, JobId, JobState, Limits, MemoryId, MessageId, PersonId, Photo, PhotoId,
    ProcessId, Revision, Segment, SegmentId, TargetId, TargetState, Translation, UnixMicros, UploadId,
    UserId,
};

use crate::protect::{KeyId, Keyring, Place, Sealer};
use crate::store::*;

/// Threads that read.
const READERS: usize = 3;
/// Searches by meaning queued for their thread: each takes tens of milliseconds. Full: as with reads.
const SEARCHES_QUEUED_MAX: usize = 64;
/// Reads queued for them. Full: callers wait, up to `wait_max`.
const READS_QUEUED_MAX: usize = 1_024;
/// Longest wait for another process's transaction. Full: `Busy`. Under `wait_max`, so that the caller hears the reason.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);
/// Longest integrity check at opening: a part of the promised start within a second.
const CHECK_MAX: Duration = Duration::from_millis(300);

/// The bounds of a [`SqliteStore`].
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// Writes queued. Full: callers wait, up to `wait_max`, then `Busy`.
    pub queue_max: usize,
    /// Writes of one transaction.
    pub batch_max: usize,
    /// Longest a caller waits for its answer, queue included. Full: `Busy`.
    pub wait_max: Duration,
    /// Reading threads, at least 1.
    pub readers: usize,
    /// Reads queued for them. Full: callers wait, up to `wait_max`, then `Busy`.
    pub reads_queued_max: usize,
    /// Longest wait for another process's transaction. Full: `Busy`.
    pub lock_wait_max: Duration,
    /// How long the writer lets go of the file after a transaction, so that another process's gets its turn; `None`: not at
    /// all. For a process that nobody waits for live.
    pub breather: Option<Duration>,
    /// Longest integrity check at opening; a large file is checked as far as it reaches.
    pub check_max: Duration,
    /// Size the file may grow to, in bytes; `None`: what the disk has. Full: `Full`.
    pub size_bytes_max: Option<u64>,
    /// Attempts that new jobs get.
    pub job_attempts_max: u32,
    /// Attempts of an upload, after which it is failed.
    pub upload_attempts_max: u32,
    /// Uploads of one user that wait. Full: `Conflict`.
    pub uploads_waiting_per_user_max: usize,
    /// Attempts to hear a conversation again, after which it is failed.
    pub retranscription_attempts_max: u32,
    /// Replaced transcripts of one conversation. Full: the oldest goes.
    pub revisions_kept_max: usize,
    /// Attempts after which an effect is not claimed again.
    pub effect_attempts_max: u32,
    /// Bytes of places of segments kept for searches by words. Full: those of the user who did not search for longest go.
    pub places_bytes_max: usize,
    /// Bytes of vectors kept for searches by meaning. Full: those of the user who did not search for longest go.
    pub vectors_bytes_max: usize,
    /// Effects of one lane that are held at once. Full: the others wait.
    pub effects_per_host_max: usize,
    /// Targets of one user. Full: `Conflict`.
    pub targets_per_user_max: usize,
    /// When a target that fails is given up.
    pub target_health: HealthNumbers,
    /// People of one user. Full: `Conflict`.
    pub people_per_user_max: usize,
    /// Voices of one person. Full: the oldest of that person goes.
    pub voices_per_person_max: usize,
    /// Voices of one user's people. Full: the oldest of the person whose voice comes goes.
    pub voices_per_user_max: usize,
    /// Messages of one user. Full: the oldest go.
    pub messages_per_user_max: usize,
    /// Characters of one message. Full: the rest is cut off.
    pub message_chars_max: usize,
    /// What seals and opens texts; empty: they are stored as they are.
    pub ring: Keyring,
}

impl From<&Limits> for SqliteOptions {
    fn from(limits: &Limits) -> Self {
        Self {
            queue_max: limits.store_queue_max,
            batch_max: limits.store_batch_max,
            wait_max: limits.store_wait_max,
            readers: READERS,
            reads_queued_max: READS_QUEUED_MAX,
            lock_wait_max: LOCK_WAIT_MAX.min(limits.store_wait_max / 2),
            breather: None,
            check_max: CHECK_MAX,
            size_bytes_max: Some(limits.store_bytes_max),
            job_attempts_max: limits.job_attempts_max,
            upload_attempts_max: limits.upload_attempts_max,
            uploads_waiting_per_user_max: limits.uploads_waiting_per_user_max,
            retranscription_attempts_max: limits.retranscription_attempts_max,
            revisions_kept_max: limits.revisions_kept_max,
            effect_attempts_max: limits.effect_attempts_max,
            vectors_bytes_max: limits.search_vectors_bytes_max,
            places_bytes_max: limits.search_places_bytes_max,
            effects_per_host_max: limits.effects_per_host_max,
            targets_per_user_max: limits.targets_per_user_max,
            target_health: HealthNumbers {
                warn_after: limits.target_warn_after,
                off_after: limits.target_off_after,
                failures_min: limits.target_failures_min,
            },
            people_per_user_max: limits.people_per_user_max,
            voices_per_person_max: limits.voices_per_person_max,
            voices_per_user_max: limits.voices_per_user_max,
            messages_per_user_max: limits.messages_per_user_max,
            message_chars_max: limits.message_chars_max,
            ring: Keyring::default(),
        }
    }
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self::from(&Limits::default())
    }
}

/// A [`Store`] in one SQLite file.
pub struct SqliteStore {
    writer: writer::Writer,
    readers: readers::Readers,
    /// One thread of their own, so that no other read waits behind them.
    searches: readers::Readers,
    vectors: Arc<nearest::Cache>,
    places: Arc<places::Cache>,
    options: SqliteOptions,
    /// The lane after which the next claim of a long queue goes on.
    lane: Arc<Mutex<String>>,
}

impl SqliteStore {
    /// Opens the file, or makes it. Blocks the calling thread (checks, migrations): call it before the runtime is busy.
    ///
    /// Errors: [`StoreError::Damaged`] for a file that is not ours, is newer than this program or is damaged (it is left
    /// byte for byte as it was); [`StoreError::Full`] or [`StoreError::Other`] with the system's words otherwise.
    pub fn open(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Arc<Self>> {
        let path = path.as_ref();
        let connection = open::writer(path, &options)?;
        let connections =
            (0..options.readers.max(1)).map(|_| open::reader(path, &options)).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(Self {
            writer: writer::Writer::start(connection, &options)?,
            readers: readers::Readers::start(connections, options.reads_queued_max, options.wait_max)?,
            searches: readers::Readers::start(
                vec![open::reader(path, &options)?],
                SEARCHES_QUEUED_MAX,
                options.wait_max,
            )?,
            vectors: nearest::Cache::new(options.vectors_bytes_max),
            places: places::Cache::new(options.places_bytes_max),
            options,
            lane: Arc::default(),
        }))
    }

    /// Looks at the file as [`open`](Self::open) would, and changes nothing: is it ours, of a version this build knows, and sound?
    ///
    /// # Errors
    /// The same as `open`'s.
    pub fn check(path: impl AsRef<Path>, options: &SqliteOptions) -> Result<()> {
        open::inspect(path.as_ref(), options)
    }
}

/// Text up to this size is sealed where it arrives; more on a thread that may take its time, since session workers may not.
const SEALED_AT_ONCE_BYTES: usize = 8 * 1024;
/// Values that one step of [`SqliteStore::seal_some`] reads, unless they are large.
const STEP_ROWS: usize = 64;
/// Segments that are taken from a deleted person in one transaction.
const STEP_SEGMENTS: usize = 500;
/// Bytes of values that one step reads, and up to one value more.
const STEP_BYTES: usize = 256 * 1024;

impl SqliteStore {
    /// One bounded step of bringing what is on disk to the present key: a few milliseconds of the writer's time. Repeat it, at
    /// leisure, until it is `done` or `needs_compacting`; it goes on where the last process stopped.
    ///
    /// # Errors
    /// As those of any write; a value that cannot be opened is none: it is counted.
    pub async fn seal_some(&self) -> Result<Sealing> {
        self.writer.write(|db| sealing::advance(db, STEP_ROWS, STEP_BYTES)).await
    }

    /// Begins [`Self::seal_some`] from the start, even if it was done.
    ///
    /// # Errors
    /// As those of any write.
    pub async fn seal_again(&self) -> Result<()> {
        self.writer.write(sealing::restart).await
    }

    /// Writes the file anew, so that nothing deleted stays in it, if it `needs_compacting`, and `bytes_max` at most: all other
    /// writes wait for as long as that takes.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while others read the log; [`StoreError::Full`] without room for a second copy.
    pub async fn compact(&self, bytes_max: u64) -> Result<Sealing> {
        self.writer.alone(move |db| sealing::compact(db, bytes_max)).await
    }

    /// How many values of the file stand under which key. Reads all of them, needs no key and changes nothing. Blocks.
    ///
    /// # Errors
    /// As those of a read; a file of an older version has no such values yet.
    pub fn key_uses(path: impl AsRef<Path>, options: &SqliteOptions) -> Result<Vec<KeyUse>> {
        sealing::usage(&open::reader(path.as_ref(), options)?)
    }

    /// Whether a process that has this key for its current one has opened the file. Changes nothing. Blocks.
    ///
    /// # Errors
    /// As those of a read.
    pub fn knows_key(path: impl AsRef<Path>, options: &SqliteOptions, key: KeyId) -> Result<bool> {
        sealing::knows(&open::reader(path.as_ref(), options)?, key)
    }

    /// What seals for `user`; `None` if nothing is sealed.
    fn sealer(&self, user: &UserId) -> Option<Sealer> {
        Some(self.options.ring.of(user)).filter(Sealer::is_on)
    }
}

/// Runs what takes as long as `bytes` are many: here, or on a thread that may take its time.
async fn aside<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    if bytes <= SEALED_AT_ONCE_BYTES {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| StoreError::Other("sealing ended before it was done".into()))
}

fn sealed_photo(sealer: &Sealer, conversation: &ConversationId, mut photo: Photo) -> Photo {
    let id = photo.id.clone();
    let place = [conversation.as_str(), id.as_str()];
    let seal = |column, text: &mut String| {
        if let std::borrow::Cow::Owned(sealed) = sealer.seal(Place::new("photos", column, &place), text) {
            *text = sealed;
        }
    };
    seal("base64", &mut photo.base64);
    if let Some(description) = &mut photo.description {
        seal("description", description);
    }
    photo
}

#[async_trait]
impl Store for SqliteStore {
    async fn process_alive(&self, process: &ProcessId, until: UnixMicros) -> Result<()> {
        let process = process.clone();
        self.writer.write(move |db| accounts::process_alive(db, &process, until)).await
    }

    async fn process_gone(&self, process: &ProcessId, now: UnixMicros) -> Result<()> {
        let process = process.clone();
        self.writer.write(move |db| accounts::process_gone(db, &process, now)).await
    }

    async fn open_conversation(&self, open: OpenConversation) -> Result<Opened> {
        self.writer.write(move |db| live::open(db, &open)).await
    }

    async fn append_segments(&self, batch: AppendSegments) -> Result<()> {
        let Some(sealer) = self.sealer(&batch.ownership.user) else {
            return self.writer.write(move |db| live::append(db, &batch, None)).await;
        };
        let bytes = batch.upsert.iter().map(|segment| segment.text.len()).sum();
        let (batch, texts) = aside(bytes, move || {
            let texts = rows::all_texts(&sealer, batch.ownership.conversation.as_str(), &batch.upsert);
            (batch, texts)
        })
        .await?;
        let texts = texts?;
        self.writer.write(move |db| live::append(db, &batch, Some(&texts))).await
    }

    async fn append_photo(&self, ownership: &Ownership, photo: Photo) -> Result<()> {
        let ownership = ownership.clone();
        let (sealer, conversation) = (self.options.ring.of(&ownership.user), ownership.conversation.clone());
        let bytes = if sealer.is_on() { photo.base64.len() } else { 0 };
        let photo = aside(bytes, move || sealed_photo(&sealer, &conversation, photo)).await?;
        self.writer.write(move |db| live::append_photo(db, &ownership, &photo)).await
    }

    async fn describe_photo(
        &self,
        user: &UserId,
        conversation: &ConversationId,
        photo: &PhotoId,
        description: Option<&str>,
        discarded: bool,
    ) -> Result<()> {
        let (user, conversation, photo) = (user.clone(), conversation.clone(), photo.clone());
        let description = description.map(str::to_owned);
        self.writer
            .write(move |db| {
                live::describe_photo(db, &user, &conversation, &photo, description.as_deref(), discarded)
            })
            .await
    }

    async fn translate_segments(
        &self,
        user: &UserId,
        conversation: &ConversationId,
        translations: Vec<(SegmentId, String, Translation)>,
    ) -> Result<Vec<Segment>> {
        let (user, conversation) = (user.clone(), conversation.clone());
        self.writer.write(move |db| translations::put(db, &user, &conversation, &translations)).await
    }

    async fn assign_segments(
        &self,
        user: &UserId,
        conversation: &ConversationId,
        segments: &[SegmentId],
        is_user: bool,
        person: Option<&str>,
    ) -> Result<usize> {
        let (user, conversation, segments) = (user.clone(), conversation.clone(), segments.to_vec());
        let person = person.map(str::to_owned);
        self.writer
            .write(move |db| {
                live::assign_segments(db, &user, &conversation, &segments, is_user, person.as_deref())
            })
            .await
    }

    async fn note_finalise_reason(&self, ownership: &Ownership, reason: FinaliseReason) -> Result<()> {
        let ownership = ownership.clone();
        self.writer.write(move |db| live::note_reason(db, &ownership, reason)).await
    }

    async fn release(&self, ownership: &Ownership, _now: UnixMicros) -> Result<()> {
        let ownership = ownership.clone();
        self.writer.write(move |db| live::release(db, &ownership)).await
    }

    async fn finalise(&self, finalise: Finalise) -> Result<Finalised> {
        let attempts_max = self.options.job_attempts_max;
        self.writer.write(move |db| ending::finalise(db, &finalise, attempts_max)).await
    }

    async fn insert_recovered(&self, insert: InsertRecovered) -> Result<()> {
        self.writer.write(move |db| ending::insert_recovered(db, &insert)).await
    }

    async fn orphans(&self, now: UnixMicros, limit: usize) -> Result<Vec<Orphan>> {
        self.readers.read(move |db| ending::orphans(db, now, limit)).await
    }

    async fn owned(&self, process: &ProcessId, limit: usize) -> Result<Vec<Ownership>> {
        let process = process.clone();
        self.readers.read(move |db| live::owned(db, &process, limit)).await
    }

    async fn conversation(&self, user: &UserId, id: &ConversationId) -> Result<Option<Conversation>> {
        let (user, id) = (user.clone(), id.clone());
        self.readers.read(move |db| reading::conversation(db, &user, &id)).await
    }

    async fn status(
        &self,
        user: &UserId,
        id: &ConversationId,
    ) -> Result<Option<(ConversationStatus, Revision)>> {
        let (user, id) = (user.clone(), id.clone());
        self.readers.read(move |db| reading::status(db, &user, &id)).await
    }

    async fn current_conversation(&self, user: &UserId) -> Result<Option<ConversationId>> {
        let user = user.clone();
        self.readers.read(move |db| reading::current(db, &user)).await
    }

    async fn list(&self, user: &UserId, filter: ListFilter) -> Result<Vec<Conversation>> {
        let user = user.clone();
        self.readers.read(move |db| reading::list(db, &user, &filter)).await
    }

    async fn conversation_ids(
        &self,
        user: &UserId,
        limit: usize,
        offset: usize,
    ) -> Result<Vec<ConversationId>> {
        let user = user.clone();
        self.readers.read(move |db| reading::ids(db, &user, limit, offset)).await
    }

    async fn search(
        &self,
        user: &UserId,
        query: &str,
        limit: usize,
        offset: usize,
    ) -> Result<Vec<SearchHit>> {
        let (user, query) = (user.clone(), query.to_owned());
        let places = Arc::clone(&self.places);
        let found = move |db: &_| {
            let ranked = search::ranks(db, &places, &user, &query, (limit, offset))?;
            search::hits(db, &user, &query, &ranked)
        };
        self.readers.read(found).await
    }

    async fn search_ranks(
        &self,
        user: &UserId,
        query: &str,
        limit: usize,
        offset: usize,
    ) -> Result<Vec<Ranked>> {
        let (user, query, places) = (user.clone(), query.to_owned(), Arc::clone(&self.places));
        self.readers.read(move |db| search::ranks(db, &places, &user, &query, (limit, offset))).await
    }

    async fn search_hits(&self, user: &UserId, query: &str, ranked: Vec<Ranked>) -> Result<Vec<SearchHit>> {
        let (user, query) = (user.clone(), query.to_owned());
        self.readers.read(move |db| search::hits(db, &user, &query, &ranked)).await
    }

    async fn rename(&self, user: &UserId, id: &ConversationId, title: &str, now: UnixMicros) -> Result<()> {
        let (user, id, title) = (user.clone(), id.clone(), title.to_owned());
        self.writer.write(move |db| reading::rename(db, &user, &id, &title, now)).await
    }

    async fn delete(&self, user: &UserId, id: &ConversationId) -> Result<()> {
        let (user, id) = (user.clone(), id.clone());
        self.writer.write(move |db| ending::delete(db, &user, &id)).await
    }

    async fn reprocess(
        &self,
        user: &UserId,
        id: &ConversationId,
        job_id: JobId,
        now: UnixMicros,
    ) -> Result<(JobId, Revision)> {
        let (user, id, attempts_max) = (user.clone(), id.clone(), self.options.job_attempts_max);
        self.writer.write(move |db| ending::reprocess(db, &user, &id, &job_id, attempts_max, now)).await
    }

    async fn stand_ins(&self, limit: usize) -> Result<Vec<(UserId, ConversationId)>> {
        self.readers.read(move |db| ending::stand_ins(db, limit)).await
    }

    async fn set_geolocation(&self, user: &UserId, id: &ConversationId, place: &Geolocation) -> Result<()> {
        let (user, id, place) = (user.clone(), id.clone(), place.clone());
        self.writer.write(move |db| reading::set_geolocation(db, &user, &id, &place)).await
    }

    async fn action_items(&self, user: &UserId, filter: ActionItemFilter) -> Result<Vec<ActionItemRecord>> {
        let user = user.clone();
        self.readers.read(move |db| items::list(db, &user, &filter)).await
    }

    async fn action_item(&self, user: &UserId, id: &ActionItemId) -> Result<Option<ActionItemRecord>> {
        let (user, id) = (user.clone(), id.clone());
        self.readers.read(move |db| items::find(db, &user, &id)).await
    }

    async fn add_action_item(&self, user: &UserId, new: NewActionItem) -> Result<ActionItemRecord> {
        let user = user.clone();
        self.writer.write(move |db| items::add(db, &user, &new)).await
    }

    async fn edit_action_item(
        &self,
        user: &UserId,
        id: &ActionItemId,
        edit: ActionItemEdit,
        now: UnixMicros,
    ) -> Result<ActionItemRecord> {
        let (user, id) = (user.clone(), id.clone());
        self.writer.write(move |db| items::edit(db, &user, &id, &edit, now)).await
    }

    async fn remove_action_item(&self, user: &UserId, id: &ActionItemId, now: UnixMicros) -> Result<()> {
        let (user, id) = (user.clone(), id.clone());
        self.writer.write(move |db| items::remove(db, &user, &id, now)).await
    }

    async fn memories(&self, user: &UserId, filter: MemoryFilter) -> Result<Vec<MemoryRecord>> {
        let user = user.clone();
        self.readers.read(move |db| memories::list(db, &user, &filter)).await
    }

    async fn memory(&self, user: &UserId, id: &MemoryId) -> Result<Option<MemoryRecord>> {
        let (user, id) = (user.clone(), id.clone());
        self.readers.read(move |db| memories::find(db, &user, &id)).await
    }

    async fn add_memory(&self, user: &UserId, new: NewMemory) -> Result<MemoryRecord> {
        let user = user.clone();
        self.writer.write(move |db| memories::add(db, &user, &new)).await
    }

    async fn edit_memory(
        &self,
        user: &UserId,
        id: &MemoryId,
        text: &str,
        now: UnixMicros,
    ) -> Result<MemoryRecord> {
        let (user, id, text) = (user.clone(), id.clone(), text.to_owned());
        self.writer.write(move |db| memories::edit(db, &user, &id, &text, now)).await
    }

    async fn remove_memory(&self, user: &UserId, id: &MemoryId, now: UnixMicros) -> Result<()> {
        let (user, id) = (user.clone(), id.clone());
        self.writer.write(move |db| memories::remove(db, &user, &id, now)).await
    }

    async fn requeue_embeddings(&self, model: &str, now: UnixMicros, limit: usize) -> Result<usize> {
        let model = model.to_owned();
        self.writer.write(move |db| embeddings::requeue(db, &model, now, limit)).await
    }

    async fn claim_embedding(
        &self,
        process: &ProcessId,
        now: UnixMicros,
        lease: Duration,
    ) -> Result<Option<EmbeddingClaim>> {
        let process = process.clone();
        self.writer.write(move |db| embeddings::claim(db, &process, now, lease)).await
    }

    async fn renew_embedding(&self, claim: &EmbeddingClaim, until: UnixMicros) -> Result<()> {
        let claim = claim.clone();
        self.writer.write(move |db| embeddings::renew(db, &claim, until)).await
    }

    async fn complete_embedding(
        &self,
        claim: &EmbeddingClaim,
        model: &str,
        embedded: Vec<Embedded>,
    ) -> Result<()> {
        let (claim, model) = (claim.clone(), model.to_owned());
        self.writer.write(move |db| embeddings::complete(db, &claim, &model, &embedded)).await
    }

    async fn end_embedding(
        &self,
        claim: &EmbeddingClaim,
        outcome: EmbeddingOutcome,
        now: UnixMicros,
    ) -> Result<()> {
        let claim = claim.clone();
        self.writer.write(move |db| embeddings::end(db, &claim, &outcome, now)).await
    }

    async fn embedding_counts(&self) -> Result<EmbeddingCounts> {
        self.readers.read(embeddings::counts).await
    }

    async fn search_records(
        &self,
        user: &UserId,
        query: &str,
        limit: usize,
    ) -> Result<Vec<(Record, String)>> {
        let (user, query) = (user.clone(), query.to_owned());
        self.readers.read(move |db| records_search::search(db, &user, &query, limit)).await
    }

    async fn near_hits(&self, user: &UserId, near: Vec<Near>) -> Result<Vec<SearchHit>> {
        let user = user.clone();
        self.readers.read(move |db| search::near_hits(db, &user, &near)).await
    }

    async fn users_heard_since(
        &self,
        since: UnixMicros,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<(UserId, Option<String>)>> {
        let after = after.cloned();
        self.readers.read(move |db| days::users(db, since, after.as_ref(), limit)).await
    }

    async fn plan_days(
        &self,
        user: &UserId,
        days: Vec<PlannedDay>,
        patience: Duration,
        now: UnixMicros,
    ) -> Result<usize> {
        let user = user.clone();
        // Nearly always there is nothing to write.
        let wanted = {
            let user = user.clone();
            self.readers.read(move |db| days::wanted(db, &user, days, patience, now)).await?
        };
        if wanted.is_empty() {
            return Ok(0);
        }
        self.writer.write(move |db| days::plan(db, &user, wanted.clone(), patience, now)).await
    }

    async fn ask_day(&self, user: &UserId, day: PlannedDay, now: UnixMicros) -> Result<DayRecord> {
        let user = user.clone();
        self.writer.write(move |db| days::ask(db, &user, &day, now)).await
    }

    async fn conversations_of_day(
        &self,
        user: &UserId,
        from: UnixMicros,
        until: UnixMicros,
        limit: usize,
    ) -> Result<Vec<Conversation>> {
        let user = user.clone();
        self.readers.read(move |db| days::conversations(db, &user, from, until, limit)).await
    }

    async fn claim_day(
        &self,
        process: &ProcessId,
        now: UnixMicros,
        lease: Duration,
    ) -> Result<Option<DayClaim>> {
        if !self.readers.read(move |db| days::is_due(db, now)).await? {
            return Ok(None);
        }
        let process = process.clone();
        self.writer.write(move |db| days::claim(db, &process, now, lease)).await
    }

    async fn renew_day(&self, claim: &DayClaim, until: UnixMicros) -> Result<()> {
        let claim = claim.clone();
        self.writer.write(move |db| days::renew(db, &claim, until)).await
    }

    async fn record_day_step(&self, claim: &DayClaim, step: &str) -> Result<()> {
        let (claim, step) = (claim.clone(), step.to_owned());
        self.writer.write(move |db| days::record_step(db, &claim, &step)).await
    }

    async fn complete_day(&self, claim: &DayClaim, done: DayCompletion) -> Result<()> {
        let claim = claim.clone();
        self.writer.write(move |db| days::complete(db, &claim, &done)).await
    }

    async fn drop_day(&self, claim: &DayClaim) -> Result<()> {
        let claim = claim.clone();
        self.writer.write(move |db| days::remove(db, &claim)).await
    }

    async fn end_day(&self, claim: &DayClaim, outcome: DayOutcome, now: UnixMicros) -> Result<()> {
        let claim = claim.clone();
        self.writer.write(move |db| days::end(db, &claim, &outcome, now)).await
    }

    async fn days(&self, user: &UserId, limit: usize, offset: usize) -> Result<Vec<DayRecord>> {
        let user = user.clone();
        self.readers.read(move |db| days::list(db, &user, limit, offset)).await
    }

    async fn day(&self, user: &UserId, date: &str) -> Result<Option<DayRecord>> {
        let (user, date) = (user.clone(), date.to_owned());
        self.readers.read(move |db| days::find(db, &user, &date)).await
    }

    async fn nearest(&self, user: &UserId, model: &str, query: Vec<f32>, limit: usize) -> Result<Vec<Near>> {
        let (user, model, vectors) = (user.clone(), model.to_owned(), Arc::clone(&self.vectors));
        self.searches.read(move |db| vectors.search(db, &user, &model, &query, limit)).await
    }

    async fn claim_job(
        &self,
        process: &ProcessId,
        now: UnixMicros,
        lease: Duration,
        rule: ClaimRule,
    ) -> Result<Option<ClaimedJob>> {
        let process = process.clone();
        self.writer.write(move |db| jobs::claim(db, &process, now, lease, rule)).await
    }

    async fn renew_job(&self, lease: &JobLease, until: UnixMicros) -> Result<()> {
        let lease = lease.clone();
        self.writer.write(move |db| jobs::renew(db, &lease, until)).await
    }

    async fn record_step(&self, lease: &JobLease, step: &str, result: &str, now: UnixMicros) -> Result<()> {
        let (lease, step, result) = (lease.clone(), step.to_owned(), result.to_owned());
        self.writer.write(move |db| jobs::record_step(db, &lease, &step, &result, now)).await
    }

    async fn steps(&self, conversation: &ConversationId, revision: Revision) -> Result<Vec<StepRecord>> {
        let conversation = conversation.clone();
        self.readers.read(move |db| jobs::steps(db, &conversation, revision)).await
    }

    async fn complete_job(&self, completion: Completion) -> Result<()> {
        self.writer.write(move |db| jobs::complete(db, &completion)).await
    }

    async fn end_attempt(&self, lease: &JobLease, outcome: AttemptOutcome, now: UnixMicros) -> Result<()> {
        let lease = lease.clone();
        self.writer.write(move |db| jobs::end_attempt(db, &lease, &outcome, now)).await
    }

    async fn jobs(&self, user: Option<&UserId>, state: Option<JobState>, limit: usize) -> Result<Vec<Job>> {
        let user = user.cloned();
        self.readers.read(move |db| jobs::list(db, user.as_ref(), state, limit)).await
    }

    async fn job(&self, user: Option<&UserId>, id: &JobId) -> Result<Option<Job>> {
        let (user, id) = (user.cloned(), id.clone());
        self.readers.read(move |db| jobs::find(db, user.as_ref(), &id)).await
    }

    async fn retry_job(&self, user: Option<&UserId>, id: &JobId, now: UnixMicros) -> Result<()> {
        let (user, id) = (user.cloned(), id.clone());
        self.writer.write(move |db| jobs::retry(db, user.as_ref(), &id, now)).await
    }

    async fn retry_failed_jobs(&self, user: Option<&UserId>, now: UnixMicros, limit: usize) -> Result<usize> {
        let user = user.cloned();
        self.writer.write(move |db| jobs::retry_failed(db, user.as_ref(), now, limit)).await
    }

    async fn job_counts(&self, now: UnixMicros) -> Result<JobCounts> {
        self.readers.read(move |db| jobs::counts(db, now)).await
    }

    async fn add_speaker_sample(
        &self,
        user: &UserId,
        person: &PersonId,
        conversation: &ConversationId,
        segments: &[SegmentId],
        now: UnixMicros,
    ) -> Result<()> {
        let (user, person, conversation) = (user.clone(), person.clone(), conversation.clone());
        let segments = segments.to_vec();
        self.writer.write(move |db| speakers::add(db, &user, &person, &conversation, &segments, now)).await
    }

    async fn speaker_samples(
        &self,
        user: &UserId,
        person: &PersonId,
        limit: usize,
    ) -> Result<Vec<SpeakerSample>> {
        let (user, person) = (user.clone(), person.clone());
        self.readers.read(move |db| speakers::list(db, &user, &person, limit)).await
    }

    async fn people(&self, user: &UserId) -> Result<Vec<Person>> {
        let user = user.clone();
        self.readers.read(move |db| people::list(db, &user)).await
    }

    async fn person(&self, user: &UserId, id: &PersonId) -> Result<Option<Person>> {
        let (user, id) = (user.clone(), id.clone());
        self.readers.read(move |db| people::find(db, &user, &id)).await
    }

    async fn person_named(
        &self,
        user: &UserId,
        name: &str,
        fresh: Option<PersonId>,
        now: UnixMicros,
    ) -> Result<Option<Person>> {
        let (user, name, max) = (user.clone(), name.to_owned(), self.options.people_per_user_max);
        match fresh {
            None => self.readers.read(move |db| people::named(db, &user, &name)).await,
            Some(fresh) => {
                let found = move |db: &db::Db| people::named_or_new(db, &user, &name, &fresh, now, max);
                self.writer.write(found).await.map(Some)
            }
        }
    }

    async fn rename_person(
        &self,
        user: &UserId,
        id: &PersonId,
        name: &str,
        now: UnixMicros,
    ) -> Result<Person> {
        let (user, id, name) = (user.clone(), id.clone(), name.to_owned());
        self.writer.write(move |db| people::rename(db, &user, &id, &name, now)).await
    }

    async fn remove_person(&self, user: &UserId, id: &PersonId) -> Result<()> {
        let (user, id) = (user.clone(), id.clone());
        loop {
            let (user, id) = (user.clone(), id.clone());
            let taken =
                self.writer.write(move |db| people::take_segments(db, &user, &id, STEP_SEGMENTS)).await?;
            if taken < STEP_SEGMENTS {
                break;
            }
        }
        self.writer.write(move |db| people::remove(db, &user, &id)).await
    }

    async fn add_voice(&self, user: &UserId, voice: Voice) -> Result<()> {
        let user = user.clone();
        let (person_max, user_max) = (self.options.voices_per_person_max, self.options.voices_per_user_max);
        self.writer.write(move |db| people::add_voice(db, &user, &voice, person_max, user_max)).await
    }

    async fn voices(&self, user: &UserId, model: Option<&str>) -> Result<Vec<Voice>> {
        let (user, model) = (user.clone(), model.map(str::to_owned));
        self.readers.read(move |db| people::voices(db, &user, model.as_deref())).await
    }

    async fn reassign_segments(
        &self,
        user: &UserId,
        conversation: &ConversationId,
        which: SegmentChoice,
        to: Assignee,
    ) -> Result<Vec<SegmentId>> {
        let (user, conversation) = (user.clone(), conversation.clone());
        self.writer.write(move |db| people::reassign(db, &user, &conversation, &which, &to)).await
    }

    async fn claim_effects(
        &self,
        process: &ProcessId,
        now: UnixMicros,
        lease: Duration,
        limit: usize,
        kinds: &[&str],
    ) -> Result<Vec<Effect>> {
        let claim = effects::Claim {
            process: process.clone(),
            now,
            lease,
            limit,
            kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            attempts_max: self.options.effect_attempts_max,
            per_lane_max: self.options.effects_per_host_max,
            lane: Arc::clone(&self.lane),
        };
        self.writer.write(move |db| effects::claim(db, &claim)).await
    }

    async fn end_effect(
        &self,
        id: &EffectId,
        epoch: Epoch,
        outcome: EffectOutcome,
        now: UnixMicros,
    ) -> Result<()> {
        let id = id.clone();
        self.writer.write(move |db| effects::end(db, &id, epoch, &outcome, now)).await
    }

    async fn retry_failed_effects(
        &self,
        user: Option<&UserId>,
        now: UnixMicros,
        limit: usize,
    ) -> Result<usize> {
        let user = user.cloned();
        self.writer.write(move |db| effects::retry_failed(db, user.as_ref(), now, limit)).await
    }

    async fn effects(&self, conversation: &ConversationId) -> Result<Vec<Effect>> {
        let conversation = conversation.clone();
        self.readers.read(move |db| effects::list(db, &conversation)).await
    }

    async fn record_day_effects(
        &self,
        user: &UserId,
        day: &str,
        payload: &str,
        now: UnixMicros,
    ) -> Result<usize> {
        let (user, day, payload) = (user.clone(), day.to_owned(), payload.to_owned());
        self.writer.write(move |db| effects::record_day(db, &user, &day, &payload, now)).await
    }

    async fn add_target(&self, target: NewTarget) -> Result<()> {
        let max = self.options.targets_per_user_max;
        self.writer.write(move |db| targets::add(db, &target, max)).await
    }

    async fn targets(&self, user: &UserId) -> Result<Vec<Target>> {
        let user = user.clone();
        self.readers.read(move |db| targets::list(db, &user)).await
    }

    async fn target(&self, user: &UserId, id: &TargetId) -> Result<Option<Target>> {
        let (user, id) = (user.clone(), id.clone());
        self.readers.read(move |db| targets::find(db, &user, &id)).await
    }

    async fn change_target(
        &self,
        user: &UserId,
        id: &TargetId,
        settings: TargetSettings,
        state: Option<TargetState>,
        now: UnixMicros,
    ) -> Result<()> {
        let (user, id) = (user.clone(), id.clone());
        self.writer.write(move |db| targets::change(db, &user, &id, &settings, state, now)).await
    }

    async fn set_target_secret(&self, user: &UserId, id: &TargetId, secret: Sensitive) -> Result<()> {
        let (user, id) = (user.clone(), id.clone());
        self.writer.write(move |db| targets::set_secret(db, &user, &id, &secret)).await
    }

    async fn remove_target(&self, user: &UserId, id: &TargetId) -> Result<()> {
        let (user, id) = (user.clone(), id.clone());
        self.writer.write(move |db| targets::remove(db, &user, &id)).await
    }

    async fn recipient(&self, user: &UserId, id: &TargetId) -> Result<Option<Recipient>> {
        let (user, id) = (user.clone(), id.clone());
        self.readers.read(move |db| targets::recipient(db, &user, &id)).await
    }

    async fn realtime_recipients(&self, user: &UserId) -> Result<Vec<Recipient>> {
        let user = user.clone();
        self.readers.read(move |db| targets::realtime(db, &user)).await
    }

    async fn targets_changed(&self, version: u64, limit: usize) -> Result<(Vec<UserId>, u64)> {
        self.readers.read(move |db| targets::changed(db, version, limit)).await
    }

    async fn note_deliveries(
        &self,
        id: &TargetId,
        note: DeliveryNote,
        now: UnixMicros,
    ) -> Result<Option<Verdict>> {
        let (id, options) = (id.clone(), self.options.clone());
        self.writer.write(move |db| targets::note(db, &id, &note, &options, now)).await
    }

    async fn deliveries(&self, user: &UserId, id: &TargetId, limit: usize) -> Result<Vec<Effect>> {
        let (user, id) = (user.clone(), id.clone());
        self.readers.read(move |db| effects::of_target(db, &user, &id, limit)).await
    }

    async fn replay(
        &self,
        user: &UserId,
        id: &TargetId,
        effect: Option<&EffectId>,
        now: UnixMicros,
        limit: usize,
    ) -> Result<usize> {
        let (user, id, effect) = (user.clone(), id.clone(), effect.cloned());
        self.writer.write(move |db| targets::replay(db, &user, &id, effect.as_ref(), now, limit)).await
    }

    async fn add_message(&self, message: NewMessage) -> Result<bool> {
        let options = self.options.clone();
        self.writer.write(move |db| messages::add(db, &message, &options)).await
    }

    async fn messages(&self, user: &UserId, limit: usize, offset: usize) -> Result<Vec<Message>> {
        let user = user.clone();
        self.readers.read(move |db| messages::list(db, &user, limit, offset)).await
    }

    async fn message(&self, user: &UserId, id: &MessageId) -> Result<Option<Message>> {
        let (user, id) = (user.clone(), id.clone());
        self.readers.read(move |db| messages::find(db, &user, &id)).await
    }

    async fn message_delivered(&self, user: &UserId, id: &MessageId, now: UnixMicros) -> Result<()> {
        let (user, id) = (user.clone(), id.clone());
        self.writer.write(move |db| messages::delivered(db, &user, &id, now)).await
    }

    async fn add_uploads(
        &self,
        user: &UserId,
        batch: &str,
        new: Vec<NewUpload>,
        now: UnixMicros,
    ) -> Result<Vec<Upload>> {
        let (user, batch) = (user.clone(), batch.to_owned());
        let max = self.options.uploads_waiting_per_user_max;
        self.writer.write(move |db| uploads::add(db, &user, &batch, &new, max, now)).await
    }

    async fn upload(&self, user: &UserId, id: &UploadId) -> Result<Option<Upload>> {
        let (user, id) = (user.clone(), id.clone());
        self.readers.read(move |db| uploads::one(db, Some(&user), &id)).await
    }

    async fn uploads(&self, user: &UserId, limit: usize, offset: usize) -> Result<Vec<Upload>> {
        let user = user.clone();
        self.readers.read(move |db| uploads::list(db, &user, limit, offset)).await
    }

    async fn upload_batch(&self, user: &UserId, batch: &str) -> Result<Vec<Upload>> {
        let (user, batch) = (user.clone(), batch.to_owned());
        self.readers.read(move |db| uploads::of_batch(db, &user, &batch)).await
    }

    async fn known_uploads(&self, ids: Vec<UploadId>) -> Result<Vec<UploadId>> {
        self.readers.read(move |db| uploads::known(db, &ids)).await
    }

    async fn claim_upload(
        &self,
        process: &ProcessId,
        now: UnixMicros,
        lease: Duration,
    ) -> Result<Option<(UploadLease, Upload)>> {
        let process = process.clone();
        let (attempts, jobs) = (self.options.upload_attempts_max, self.options.job_attempts_max);
        self.writer.write(move |db| uploads::claim(db, &process, now, lease, attempts, jobs)).await
    }

    async fn renew_upload(&self, lease: &UploadLease, until: UnixMicros, heard_secs: f64) -> Result<()> {
        let lease = lease.clone();
        self.writer.write(move |db| uploads::renew(db, &lease, until, heard_secs)).await
    }

    async fn complete_upload(&self, words: UploadWords) -> Result<Vec<ConversationId>> {
        let jobs = self.options.job_attempts_max;
        self.writer.write(move |db| uploads::complete(db, &words, jobs)).await
    }

    async fn end_upload(&self, lease: &UploadLease, outcome: AttemptOutcome, now: UnixMicros) -> Result<()> {
        let lease = lease.clone();
        let (attempts, jobs) = (self.options.upload_attempts_max, self.options.job_attempts_max);
        self.writer.write(move |db| uploads::end(db, &lease, &outcome, attempts, jobs, now)).await
    }

    async fn retry_upload(&self, user: &UserId, id: &UploadId, now: UnixMicros) -> Result<()> {
        let (user, id) = (user.clone(), id.clone());
        self.writer.write(move |db| uploads::retry(db, &user, &id, now)).await
    }

    async fn remove_upload(&self, user: &UserId, id: &UploadId, now: UnixMicros) -> Result<()> {
        let (user, id, jobs) = (user.clone(), id.clone(), self.options.job_attempts_max);
        self.writer.write(move |db| uploads::remove(db, &user, &id, jobs, now)).await
    }

    async fn ensure_user(&self, user: &UserId, now: UnixMicros) -> Result<bool> {
        let user = user.clone();
        self.writer.write(move |db| Ok(accounts::ensure(db, &user, now)?.1)).await
    }

    async fn time_zone(&self, user: &UserId) -> Result<Option<String>> {
        let user = user.clone();
        self.readers.read(move |db| accounts::time_zone(db, &user)).await
    }

    async fn language(&self, user: &UserId) -> Result<Option<String>> {
        let user = user.clone();
        self.readers.read(move |db| accounts::language(db, &user)).await
    }

    async fn set_language(&self, user: &UserId, language: Option<&str>) -> Result<()> {
        let (user, language) = (user.clone(), language.map(str::to_owned));
        self.writer.write(move |db| accounts::set_language(db, &user, language.as_deref())).await
    }

    async fn set_time_zone(&self, user: &UserId, zone: &str) -> Result<()> {
        let (user, zone) = (user.clone(), zone.to_owned());
        self.writer.write(move |db| accounts::set_time_zone(db, &user, &zone)).await
    }

    async fn add_api_key(
        &self,
        user: &UserId,
        key_sha256: [u8; 32],
        label: &str,
        now: UnixMicros,
    ) -> Result<()> {
        let (user, label) = (user.clone(), label.to_owned());
        self.writer.write(move |db| accounts::add_key(db, &user, key_sha256, &label, now)).await
    }

    async fn api_key_user(&self, key_sha256: [u8; 32]) -> Result<Option<UserId>> {
        self.readers.read(move |db| accounts::key_user(db, key_sha256)).await
    }

    async fn remove_api_key(&self, user: &UserId, label: &str) -> Result<usize> {
        let (user, label) = (user.clone(), label.to_owned());
        self.writer.write(move |db| accounts::remove_key(db, &user, &label)).await
    }

    async fn api_keys(&self, user: &UserId) -> Result<Vec<(String, UnixMicros)>> {
        let user = user.clone();
        self.readers.read(move |db| accounts::keys(db, &user)).await
    }

    async fn begin_erasing(&self, user: &UserId, now: UnixMicros) -> Result<bool> {
        let user = user.clone();
        self.writer.write(move |db| erasing::begin(db, &user, now)).await
    }

    async fn erasing(&self, limit: usize) -> Result<Vec<UserId>> {
        self.readers.read(move |db| erasing::marked(db, limit)).await
    }

    async fn erase_some(&self, user: &UserId, rows_max: usize) -> Result<bool> {
        let user = user.clone();
        self.writer.write(move |db| erasing::some(db, &user, rows_max)).await
    }

    async fn finish_erasing(&self, user: &UserId) -> Result<()> {
        let user = user.clone();
        self.writer.write(move |db| erasing::finish(db, &user)).await
    }

    fn health(&self) -> StoreHealth {
        self.writer.health()
    }

    async fn close(&self) {
        self.readers.close();
        self.searches.close();
        self.writer.close().await;
    }
}
