//! Live conversations: who owns them, and the words and photos that arrive.
//!
//! Invariant: each operation of a session compares its epoch in the same transaction that writes, so a session that was
//! replaced changes nothing, whichever process it runs in.

use auricle_core::{
    ConversationId, ConversationStatus, Epoch, FinaliseReason, Photo, PhotoId, ProcessId, Segment, SegmentId,
    Source, UnixMicros, UserId,
};
use rusqlite::{OptionalExtension, params};

use super::db::Db;
use super::rows::Texts;
use super::{accounts, people, places, rows, search, translations};
use crate::protect::Place;
use crate::store::{AppendSegments, Choice, OpenConversation, Opened, Ownership, Result, StoreError};

/// Sources that take photos themselves: their first photo does not rename them. Source: listen-protocol 6.3.
const PHOTO_SOURCES: [Source; 3] = [Source::Openglass, Source::RaybanMeta, Source::Frame];

/// What the operations need to know of a conversation before they write.
pub(super) struct Head {
    pub(super) rid: i64,
    pub(super) id: String,
    pub(super) user: i64,
    pub(super) status: ConversationStatus,
    pub(super) epoch: i64,
    pub(super) owner: Option<String>,
    pub(super) source: Source,
    pub(super) started_at: UnixMicros,
    pub(super) finished_at: UnixMicros,
    pub(super) timeout_us: i64,
    pub(super) revision: u32,
    pub(super) client_id: Option<String>,
    pub(super) user_id: String,
}

impl Head {
    /// By its public id, whoever's it is.
    pub(super) fn find(db: &Db, id: &ConversationId) -> Result<Option<Self>> {
        let mut query = db.prepare_cached(
            "SELECT c.rid, c.user, c.status, c.epoch, c.owner, c.source, c.started_at, c.finished_at, c.timeout_us, \
             c.revision, c.client_id, u.id, c.id FROM conversations c JOIN users u ON u.rid = c.user WHERE c.id = ?1",
        )?;
        let mut found = query.query([id.as_str()])?;
        let Some(row) = found.next()? else { return Ok(None) };
        Ok(Some(Self {
            rid: row.get(0)?,
            user: row.get(1)?,
            status: rows::known(ConversationStatus::parse, &row.get::<_, String>(2)?, "status")?,
            epoch: row.get(3)?,
            owner: row.get(4)?,
            source: rows::known(Source::parse, &row.get::<_, String>(5)?, "source")?,
            started_at: UnixMicros(row.get(6)?),
            finished_at: UnixMicros(row.get(7)?),
            timeout_us: row.get(8)?,
            revision: row.get(9)?,
            client_id: row.get(10)?,
            user_id: row.get(11)?,
            id: row.get(12)?,
        }))
    }

    /// By id, for its own user only.
    pub(super) fn of_user(db: &Db, user: &UserId, id: &ConversationId) -> Result<Self> {
        Self::find(db, id)?
            .filter(|head| head.user_id == user.as_str())
            .ok_or_else(|| StoreError::NotFound(format!("conversation {id}")))
    }

    /// For its present owner only.
    pub(super) fn owned(db: &Db, ownership: &Ownership) -> Result<Self> {
        let id = &ownership.conversation;
        let head = Self::find(db, id)?
            .filter(|head| head.user_id == ownership.user.as_str())
            .ok_or_else(|| StoreError::Ended(format!("conversation {id} is gone")))?;
        if head.epoch.unsigned_abs() != ownership.epoch.0 {
            return Err(StoreError::Fenced(format!(
                "conversation {id} has a newer owner (epoch {}, yours {})",
                head.epoch, ownership.epoch
            )));
        }
        if head.status != ConversationStatus::InProgress {
            return Err(StoreError::Ended(format!("conversation {id} is {}", head.status.as_str())));
        }
        if head.owner.is_none() {
            return Err(StoreError::Fenced(format!("conversation {id} was released")));
        }
        Ok(head)
    }

    /// Whether a process that is still announced owns it.
    pub(super) fn has_live_owner(&self, db: &Db, now: UnixMicros) -> Result<bool> {
        let Some(owner) = &self.owner else { return Ok(false) };
        Ok(db
            .prepare_cached("SELECT 1 FROM processes WHERE id = ?1 AND until > ?2")?
            .exists(params![owner, now.0])?)
    }
}

pub(super) fn open(db: &Db, open: &OpenConversation) -> Result<Opened> {
    let (user, _) = accounts::ensure(db, &open.user, open.now)?;
    let client_id = match &open.choice {
        Choice::Named(id) => Some(id.as_str()),
        Choice::Resume | Choice::New => None,
    };
    match choose(db, open, user)? {
        Some(head) => resume(db, open, &head, client_id),
        None => make(db, open, user, client_id),
    }
}

/// The conversation to resume; `None` to make one.
fn choose(db: &Db, open: &OpenConversation, user: i64) -> Result<Option<Head>> {
    let found: Option<String> = match &open.choice {
        Choice::New => None,
        Choice::Resume => {
            let since = open.now.0.saturating_sub(rows::micros(open.timeout));
            db.prepare_cached(
                "SELECT id FROM conversations WHERE status = 'in_progress' AND user = ?1 AND stream_source = ?2 \
                 AND finished_at > ?3 AND client_named = 0 ORDER BY finished_at DESC, rid DESC LIMIT 1",
            )?
            .query_row(params![user, open.source.as_str(), since], |row| row.get(0))
            .optional()?
        }
        // The recording's own conversation, or the stub that stands for it since the id was taken.
        Choice::Named(id) => db
            .prepare_cached(
                "SELECT id FROM conversations WHERE status = 'in_progress' AND client_id = ?1 AND user = ?2 \
                 ORDER BY rid DESC LIMIT 1",
            )?
            .query_row(params![id.as_str(), user], |row| row.get(0))
            .optional()?,
    };
    if let Some(id) = found {
        return Head::find(db, &id.into());
    }
    if let Choice::Named(id) = &open.choice {
        // Made by REST or by another choice, and not yet known as a client's.
        let same = Head::find(db, id)?;
        return Ok(same.filter(|head| head.user == user && head.status == ConversationStatus::InProgress));
    }
    // The same call once more: its stub is there already.
    let again = Head::find(db, &open.fresh_id)?;
    Ok(again.filter(|head| head.user == user && head.status == ConversationStatus::InProgress))
}

fn resume(db: &Db, open: &OpenConversation, head: &Head, client_id: Option<&str>) -> Result<Opened> {
    let taken_over = head.has_live_owner(db, open.now)?;
    db.prepare_cached(
        "UPDATE conversations SET epoch = epoch + 1, owner = ?2, timeout_us = ?3, client_id = coalesce(?4, client_id), \
         language = coalesce(?5, language), call_id = coalesce(?6, call_id) WHERE rid = ?1",
    )?
    .execute(params![
        head.rid,
        open.process.as_str(),
        rows::micros(open.timeout),
        client_id,
        open.language,
        open.call_id
    ])?;
    let id: String = db
        .prepare_cached("SELECT id FROM conversations WHERE rid = ?1")?
        .query_row([head.rid], |row| row.get(0))?;
    let tail = tail(db, head.rid, open.user.as_str(), &id)?;
    let counted = |table: &str| -> Result<u64> {
        let sql = format!("SELECT count(*) FROM {table} WHERE conversation = ?1");
        Ok(rows::count(db.prepare_cached(&sql)?.query_row([head.rid], |row| row.get(0))?))
    };
    Ok(Opened {
        ownership: Ownership {
            user: open.user.clone(),
            conversation: id.into(),
            epoch: auricle_core::Epoch(head.epoch.unsigned_abs() + 1),
        },
        resumed: true,
        taken_over,
        started_at: head.started_at,
        finished_at: head.finished_at,
        source: head.source,
        tail,
        segment_count: counted("segments")?,
        photo_count: counted("photos")?,
        client_conversation_id: client_id.map(str::to_owned).or_else(|| head.client_id.clone()),
        last_completed: last_completed(db, head.user)?,
        speakers: people::speakers(db, &open.user, head.rid)?,
    })
}

fn make(db: &Db, open: &OpenConversation, user: i64, client_id: Option<&str>) -> Result<Opened> {
    let (id, named) = match &open.choice {
        Choice::Named(id) if Head::find(db, id)?.is_none() => (id, true),
        Choice::Named(_) => (&open.fresh_id, true),
        Choice::Resume | Choice::New => (&open.fresh_id, false),
    };
    if Head::find(db, id)?.is_some() {
        return Err(StoreError::Conflict(format!("conversation {id} exists already; choose a fresh id")));
    }
    db.prepare_cached(
        "INSERT INTO conversations (id, user, created_at, started_at, finished_at, source, stream_source, language, \
         status, client_id, client_named, call_id, owner, epoch, timeout_us) \
         VALUES (?1, ?2, ?3, ?3, ?3, ?4, ?4, ?5, 'in_progress', ?6, ?7, ?8, ?9, 1, ?10)",
    )?
    .execute(params![
        id.as_str(),
        user,
        open.now.0,
        open.source.as_str(),
        open.language,
        client_id,
        named,
        open.call_id,
        open.process.as_str(),
        rows::micros(open.timeout)
    ])?;
    Ok(Opened {
        ownership: Ownership {
            user: open.user.clone(),
            conversation: id.clone(),
            epoch: auricle_core::Epoch(1),
        },
        resumed: false,
        taken_over: false,
        started_at: open.now,
        finished_at: open.now,
        source: open.source,
        tail: None,
        segment_count: 0,
        photo_count: 0,
        client_conversation_id: client_id.map(str::to_owned),
        last_completed: last_completed(db, user)?,
        speakers: Vec::new(),
    })
}

fn tail(db: &Db, rid: i64, user: &str, conversation: &str) -> Result<Option<Segment>> {
    let sql = format!(
        "SELECT {} FROM segments WHERE conversation = ?1 ORDER BY start DESC, rid DESC LIMIT 1",
        rows::SEGMENT
    );
    let mut query = db.prepare_cached(&sql)?;
    let mut found = query.query([rid])?;
    found.next()?.map(|row| rows::segment(&db.sealer(user), conversation, row)).transpose()
}

fn last_completed(db: &Db, user: i64) -> Result<Option<ConversationId>> {
    let id: Option<String> = db
        .prepare_cached(
            "SELECT id FROM conversations WHERE user = ?1 AND status = 'completed' AND discarded IS NULL \
             ORDER BY created_at DESC LIMIT 1",
        )?
        .query_row([user], |row| row.get(0))
        .optional()?;
    Ok(id.map(Into::into))
}

/// `texts`: of `batch.upsert`, if somebody made them before.
pub(super) fn append(db: &Db, batch: &AppendSegments, texts: Option<&[Texts<'_>]>) -> Result<()> {
    let head = Head::owned(db, &batch.ownership)?;
    if let Some(started_at) = batch.started_at.filter(|at| *at != head.started_at) {
        move_zero(db, head.rid, head.started_at, started_at)?;
    }
    for id in &batch.delete {
        remove_segment(db, head.user, head.rid, id)?;
    }
    for (number, segment) in batch.upsert.iter().enumerate() {
        match texts.and_then(|texts| texts.get(number)) {
            Some(texts) => put_segment(db, &head, segment, texts)?,
            None => put_plain_segment(db, &head, segment)?,
        }
    }
    db.prepare_cached("UPDATE conversations SET finished_at = max(finished_at, ?2) WHERE rid = ?1")?
        .execute(params![head.rid, batch.now.0])?;
    Ok(())
}

/// Sets the transcript's zero. Words that recovery put in before keep their wall-clock time.
pub(super) fn move_zero(db: &Db, rid: i64, from: UnixMicros, to: UnixMicros) -> Result<()> {
    db.prepare_cached("UPDATE conversations SET started_at = ?2 WHERE rid = ?1")?
        .execute(params![rid, to.0])?;
    db.prepare_cached(
        "UPDATE segments SET start = start + ?2, \"end\" = \"end\" + ?2 WHERE conversation = ?1",
    )?
    .execute(params![rid, from.seconds_since(to)])?;
    Ok(())
}

/// Stores a segment whose texts nobody has made yet.
pub(super) fn put_plain_segment(db: &Db, head: &Head, segment: &Segment) -> Result<()> {
    put_segment(db, head, segment, &rows::texts(&db.sealer(&head.user_id), &head.id, segment)?)
}

/// Stores a segment over whatever row has its id.
fn put_segment(db: &Db, head: &Head, segment: &Segment, texts: &Texts<'_>) -> Result<()> {
    let rid = head.rid;
    let kept = match &texts.translations {
        Some(_) => None,
        None => translations::kept(db, head, segment)?,
    };
    let values = params![
        rid,
        segment.id.as_str(),
        segment.start,
        segment.end,
        texts.text,
        segment.speaker.as_ref().map(|speaker| speaker.label()),
        segment.is_user,
        segment.person_id.as_ref().map(|person| person.as_str()),
        texts.translations.as_ref().or(kept.as_ref()),
        segment.speech_profile_processed,
        segment.stt_provider
    ];
    let changed: Option<i64> = db
        .prepare_cached(
            "UPDATE segments SET start = ?3, \"end\" = ?4, text = ?5, speaker = ?6, \
             is_user = iif(is_user OR person IS NOT NULL, is_user, ?7), \
             person = iif(is_user OR person IS NOT NULL, person, ?8), translations = ?9, profiled = ?10, \
             provider = ?11 WHERE conversation = ?1 AND id = ?2 RETURNING rid",
        )?
        .query_row(values, |row| row.get(0))
        .optional()?;
    if let Some(found) = changed {
        return search::change_segment(db, found, &texts.indexed);
    }
    db.prepare_cached(
        "INSERT INTO segments (conversation, id, start, \"end\", text, speaker, is_user, person, translations, profiled, \
         provider) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(values)?;
    search::add_segment(db, db.last_insert_rowid(), rid, head.user, &texts.indexed)
}

pub(super) fn remove_segment(db: &Db, user: i64, rid: i64, id: &SegmentId) -> Result<()> {
    let gone: Option<i64> = db
        .prepare_cached("DELETE FROM segments WHERE conversation = ?1 AND id = ?2 RETURNING rid")?
        .query_row(params![rid, id.as_str()], |row| row.get(0))
        .optional()?;
    let Some(found) = gone else { return Ok(()) };
    places::forget_of(db, user)?;
    search::remove_segment(db, found)
}

/// The photo's texts are as they are to be stored.
pub(super) fn append_photo(db: &Db, ownership: &Ownership, photo: &Photo) -> Result<()> {
    let head = Head::owned(db, ownership)?;
    db.prepare_cached(
        "INSERT INTO photos (conversation, id, base64, description, created_at, discarded) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (conversation, id) DO NOTHING",
    )?
    .execute(params![
        head.rid,
        photo.id.as_str(),
        photo.base64,
        photo.description,
        photo.created_at.0,
        photo.discarded
    ])?;
    let source = if PHOTO_SOURCES.contains(&head.source) { head.source } else { Source::Openglass };
    db.prepare_cached(
        "UPDATE conversations SET finished_at = max(finished_at, ?2), source = ?3 WHERE rid = ?1",
    )?
    .execute(params![head.rid, photo.created_at.0, source.as_str()])?;
    Ok(())
}

pub(super) fn describe_photo(
    db: &Db,
    user: &UserId,
    conversation: &ConversationId,
    photo: &PhotoId,
    description: Option<&str>,
    discarded: bool,
) -> Result<()> {
    let head = Head::of_user(db, user, conversation)?;
    let place = [conversation.as_str(), photo.as_str()];
    let description =
        description.map(|text| db.seal(user.as_str(), Place::new("photos", "description", &place), text));
    let changed = db
        .prepare_cached(
            "UPDATE photos SET description = ?3, discarded = ?4 WHERE conversation = ?1 AND id = ?2",
        )?
        .execute(params![head.rid, photo.as_str(), description, discarded])?;
    if changed == 0 { Err(StoreError::NotFound(format!("photo {photo}"))) } else { Ok(()) }
}

pub(super) fn assign_segments(
    db: &Db,
    user: &UserId,
    conversation: &ConversationId,
    segments: &[SegmentId],
    is_user: bool,
    person: Option<&str>,
) -> Result<usize> {
    let head = Head::of_user(db, user, conversation)?;
    let mut assign = db.prepare_cached(
        "UPDATE segments SET is_user = ?3, person = ?4 WHERE conversation = ?1 AND id = ?2 AND is_user = 0 \
         AND person IS NULL",
    )?;
    let mut changed = 0;
    for id in segments {
        changed += assign.execute(params![head.rid, id.as_str(), is_user, person])?;
    }
    Ok(changed)
}

pub(super) fn note_reason(db: &Db, ownership: &Ownership, reason: FinaliseReason) -> Result<()> {
    let head = Head::owned(db, ownership)?;
    db.execute(
        "UPDATE conversations SET noted_reason = ?2 WHERE rid = ?1",
        params![head.rid, reason.as_str()],
    )?;
    Ok(())
}

/// Repeating it, or releasing what has ended, changes nothing.
pub(super) fn release(db: &Db, ownership: &Ownership) -> Result<()> {
    let head = Head::of_user(db, &ownership.user, &ownership.conversation)?;
    if head.epoch.unsigned_abs() != ownership.epoch.0 {
        return Err(StoreError::Fenced(format!(
            "conversation {} has a newer owner (epoch {}, yours {})",
            ownership.conversation, head.epoch, ownership.epoch
        )));
    }
    db.prepare_cached("UPDATE conversations SET owner = NULL WHERE rid = ?1")?.execute([head.rid])?;
    Ok(())
}

pub(super) fn owned(db: &Db, process: &ProcessId, limit: usize) -> Result<Vec<Ownership>> {
    let mut query = db.prepare_cached(
        "SELECT u.id, c.id, c.epoch FROM conversations c JOIN users u ON u.rid = c.user \
         WHERE c.owner = ?1 AND c.status = 'in_progress' ORDER BY c.rid LIMIT ?2",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    rows::collect(query.query(params![process.as_str(), limit])?, |row| {
        Ok(Ownership {
            user: row.get::<_, String>(0)?.into(),
            conversation: row.get::<_, String>(1)?.into(),
            epoch: Epoch(rows::count(row.get(2)?)),
        })
    })
}
