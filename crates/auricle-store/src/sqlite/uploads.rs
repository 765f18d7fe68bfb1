//! Uploads: claimed by lease and epoch like jobs; their words and their end are one transaction.
//!
//! A conversation made of uploads is in progress, without an owner, as long as uploads wait whose words may belong to it. The
//! transaction that ends the last of them finalises it, so that nothing else ever has to.

use std::time::Duration;

use auricle_core::{
    ConversationId, ConversationStatus, Epoch, FinaliseReason, JobId, ProcessId, Segment, Source, UnixMicros,
    UploadId, UserId,
};
use rusqlite::{OptionalExtension, Row, params};

use super::db::Db;
use super::live::{self, Head};
use super::{accounts, ending, rows};
use crate::retranscriptions::UploadFate;
use crate::store::{AttemptOutcome, Finalise, Result, StoreError};
use crate::uploads::{NewUpload, Upload, UploadLease, UploadState, UploadWords};

/// A file that was begun this long before a conversation may still reach into it.
const LOOK_BACK: Duration = Duration::from_secs(3_600);
/// An earlier file's words are looked for this long: the timeout of what is made of uploads, which no sweeper uses.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Spent uploads that one claim fails on its way.
const SPENT_MAX: usize = 100;

const UPLOAD: &str = "n.id, u.id, n.batch, n.sha256, n.bytes, n.form, n.source, n.language, n.recorded_at, n.state, n.attempts, \
     n.last_error, n.heard_secs, n.audio_secs, n.created_at, n.updated_at, n.rid \
     FROM uploads n JOIN users u ON u.rid = n.user";

fn value(db: &Db, row: &Row<'_>) -> Result<Upload> {
    let rid: i64 = row.get(16)?;
    let mut query = db.prepare_cached(
        "SELECT c.id FROM upload_conversations l JOIN conversations c ON c.rid = l.conversation WHERE l.upload = ?1 \
         ORDER BY c.started_at, c.rid",
    )?;
    let conversations = rows::collect(query.query([rid])?, |row| Ok(row.get::<_, String>(0)?.into()))?;
    Ok(Upload {
        id: row.get::<_, String>(0)?.into(),
        user: row.get::<_, String>(1)?.into(),
        batch: row.get(2)?,
        sha256: row.get(3)?,
        bytes: rows::count(row.get(4)?),
        form: row.get(5)?,
        source: rows::known(Source::parse, &row.get::<_, String>(6)?, "source")?,
        language: row.get(7)?,
        recorded_at: UnixMicros(row.get(8)?),
        state: rows::known(UploadState::parse, &row.get::<_, String>(9)?, "upload state")?,
        attempts: row.get(10)?,
        last_error: row.get(11)?,
        heard_secs: row.get(12)?,
        audio_secs: row.get(13)?,
        conversations,
        created_at: UnixMicros(row.get(14)?),
        updated_at: UnixMicros(row.get(15)?),
    })
}

/// Keeps files that have come. One that is there already is the same upload again: it is `batch`'s from now on, and one that
/// failed, or whose conversations were all deleted, is queued again. Returns them in the order given.
pub(super) fn add(
    db: &Db,
    user: &UserId,
    batch: &str,
    new: &[NewUpload],
    waiting_max: usize,
    now: UnixMicros,
) -> Result<Vec<Upload>> {
    let (user_rid, _) = accounts::ensure(db, user, now)?;
    let waiting: i64 = db
        .prepare_cached("SELECT count(*) FROM uploads WHERE user = ?1 AND state IN ('queued', 'leased')")?
        .query_row([user_rid], |row| row.get(0))?;
    if rows::count(waiting) as usize + new.len() > waiting_max {
        return Err(StoreError::Conflict(format!(
            "{waiting} uploads wait to be transcribed, and {waiting_max} may; send more once some are done"
        )));
    }
    let mut added = Vec::new();
    for file in new {
        let known: Option<(i64, String, String)> = db
            .prepare_cached("SELECT rid, id, state FROM uploads WHERE user = ?1 AND sha256 = ?2")?
            .query_row(params![user_rid, file.sha256.as_slice()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()?;
        let id = match known {
            Some((rid, id, state)) => {
                let over = state == "failed" || (state == "done" && !has_conversations(db, rid)?);
                // The file that came is the one that is there now; its caller removes whichever is not.
                let id = if over { file.id.as_str().to_owned() } else { id };
                db.prepare_cached("UPDATE uploads SET batch = ?2, id = ?3 WHERE rid = ?1")?
                    .execute(params![rid, batch, id])?;
                if over {
                    queue_again(db, rid, now)?;
                }
                id
            }
            None => {
                insert(db, user_rid, batch, file, now)?;
                file.id.as_str().to_owned()
            }
        };
        added.push(
            one(db, Some(user), &id.into())?.ok_or_else(|| StoreError::Other("an upload is gone".into()))?,
        );
    }
    Ok(added)
}

fn insert(db: &Db, user: i64, batch: &str, file: &NewUpload, now: UnixMicros) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO uploads (id, user, sha256, batch, form, source, language, bytes, recorded_at, state, due_at, \
         created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'queued', ?10, ?10, ?10)",
    )?
    .execute(params![
        file.id.as_str(),
        user,
        file.sha256.as_slice(),
        batch,
        file.form,
        file.source.as_str(),
        file.language,
        i64::try_from(file.bytes).unwrap_or(i64::MAX),
        file.recorded_at.0,
        now.0
    ])?;
    Ok(())
}

fn has_conversations(db: &Db, rid: i64) -> Result<bool> {
    Ok(db.prepare_cached("SELECT 1 FROM upload_conversations WHERE upload = ?1")?.exists([rid])?)
}

fn queue_again(db: &Db, rid: i64, now: UnixMicros) -> Result<()> {
    db.prepare_cached(
        "UPDATE uploads SET state = 'queued', epoch = epoch + 1, leased_by = NULL, attempts = 0, due_at = ?2, \
         updated_at = ?2, last_error = NULL, heard_secs = 0 WHERE rid = ?1",
    )?
    .execute(params![rid, now.0])?;
    Ok(())
}

pub(super) fn one(db: &Db, user: Option<&UserId>, id: &UploadId) -> Result<Option<Upload>> {
    let sql = format!("SELECT {UPLOAD} WHERE n.id = ?1 AND (?2 IS NULL OR u.id = ?2)");
    let mut query = db.prepare_cached(&sql)?;
    let mut found = query.query(params![id.as_str(), user.map(|user| user.as_str())])?;
    found.next()?.map(|row| value(db, row)).transpose()
}

pub(super) fn list(db: &Db, user: &UserId, limit: usize, offset: usize) -> Result<Vec<Upload>> {
    let sql =
        format!("SELECT {UPLOAD} WHERE u.id = ?1 ORDER BY n.created_at DESC, n.rid DESC LIMIT ?2 OFFSET ?3");
    let mut query = db.prepare_cached(&sql)?;
    let (limit, offset) =
        (i64::try_from(limit).unwrap_or(i64::MAX), i64::try_from(offset).unwrap_or(i64::MAX));
    rows::collect(query.query(params![user.as_str(), limit, offset])?, |row| value(db, row))
}

pub(super) fn of_batch(db: &Db, user: &UserId, batch: &str) -> Result<Vec<Upload>> {
    let sql = format!("SELECT {UPLOAD} WHERE n.batch = ?1 AND u.id = ?2 ORDER BY n.recorded_at, n.rid");
    let mut query = db.prepare_cached(&sql)?;
    rows::collect(query.query(params![batch, user.as_str()])?, |row| value(db, row))
}

/// The transcribed ones that a conversation is made of.
pub(super) fn of_conversation(db: &Db, user: &UserId, conversation: &ConversationId) -> Result<Vec<Upload>> {
    let sql = format!(
        "SELECT {UPLOAD} WHERE n.state = 'done' AND u.id = ?2 AND n.rid IN (SELECT l.upload FROM upload_conversations l \
         JOIN conversations c ON c.rid = l.conversation WHERE c.id = ?1) ORDER BY n.recorded_at, n.rid"
    );
    let mut query = db.prepare_cached(&sql)?;
    rows::collect(query.query(params![conversation.as_str(), user.as_str()])?, |row| value(db, row))
}

/// What became of these, as far as their files are concerned.
pub(super) fn fates(db: &Db, ids: &[UploadId]) -> Result<Vec<UploadFate>> {
    let mut query = db.prepare_cached(
        "SELECT u.id, n.state, EXISTS (SELECT 1 FROM upload_conversations l WHERE l.upload = n.rid) FROM uploads n \
         JOIN users u ON u.rid = n.user WHERE n.id = ?1",
    )?;
    let mut fates = Vec::new();
    for id in ids {
        let mut found = query.query([id.as_str()])?;
        if let Some(row) = found.next()? {
            fates.push(UploadFate {
                id: id.clone(),
                user: row.get::<_, String>(0)?.into(),
                state: rows::known(UploadState::parse, &row.get::<_, String>(1)?, "upload state")?,
                has_conversations: row.get(2)?,
            });
        }
    }
    Ok(fates)
}

pub(super) fn known(db: &Db, ids: &[UploadId]) -> Result<Vec<UploadId>> {
    let mut query = db.prepare_cached("SELECT 1 FROM uploads WHERE id = ?1")?;
    let mut found = Vec::new();
    for id in ids {
        if query.exists([id.as_str()])? {
            found.push(id.clone());
        }
    }
    Ok(found)
}

/// Claims the earliest recorded upload of the user whose upload has been due for longest; none of a user of whom one is leased,
/// so that one user's recordings come in order.
pub(super) fn claim(
    db: &Db,
    process: &ProcessId,
    now: UnixMicros,
    lease: Duration,
    attempts_max: u32,
    finalise_attempts: u32,
) -> Result<Option<(UploadLease, Upload)>> {
    for _ in 0..SPENT_MAX {
        let found: Option<(i64, String, String, u32, String)> = db
            .prepare_cached(
                "SELECT rid, id, state, attempts, (SELECT id FROM users WHERE users.rid = user) FROM uploads \
                 WHERE state IN ('queued', 'leased') AND due_at <= ?1 AND user = ( \
                     SELECT user FROM uploads d WHERE d.state IN ('queued', 'leased') AND d.due_at <= ?1 \
                     AND NOT EXISTS (SELECT 1 FROM uploads h WHERE h.user = d.user AND h.state = 'leased' AND h.due_at > ?1) \
                     ORDER BY d.due_at, d.rid LIMIT 1) \
                 ORDER BY recorded_at, rid LIMIT 1",
            )?
            .query_row([now.0], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
            })
            .optional()?;
        let Some((rid, id, state, attempts, user)) = found else { return Ok(None) };
        if attempts >= attempts_max && state == "leased" {
            let error = "its last attempt ended with the process that made it";
            fail(db, rid, error, now)?;
            settle(db, &user.into(), &id, finalise_attempts, now)?;
            continue;
        }
        db.prepare_cached(
            "UPDATE uploads SET state = 'leased', epoch = epoch + 1, attempts = attempts + 1, leased_by = ?2, due_at = ?3, \
             updated_at = ?4, heard_secs = 0 WHERE rid = ?1",
        )?
        .execute(params![rid, process.as_str(), now.0.saturating_add(rows::micros(lease)), now.0])?;
        let epoch: i64 = db
            .prepare_cached("SELECT epoch FROM uploads WHERE rid = ?1")?
            .query_row([rid], |row| row.get(0))?;
        let id = UploadId::from(id);
        let upload = one(db, None, &id)?;
        return Ok(upload.map(|upload| (UploadLease { id, epoch: Epoch(rows::count(epoch)) }, upload)));
    }
    Ok(None)
}

/// The row that a lease is of, and its user.
fn held(db: &Db, lease: &UploadLease) -> Result<(i64, UserId, String)> {
    let found: Option<(i64, String, String, i64)> = db
        .prepare_cached(
            "SELECT n.rid, u.id, n.state, n.epoch FROM uploads n JOIN users u ON u.rid = n.user WHERE n.id = ?1",
        )?
        .query_row([lease.id.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()?;
    let Some((rid, user, state, epoch)) = found else {
        return Err(StoreError::NotFound(format!("upload {}", lease.id)));
    };
    if rows::count(epoch) != lease.epoch.0 {
        return Err(StoreError::Fenced(format!("upload {} was claimed by another", lease.id)));
    }
    Ok((rid, user.into(), state))
}

/// The same for whoever is still at work.
fn leased(db: &Db, lease: &UploadLease) -> Result<(i64, UserId)> {
    let (rid, user, state) = held(db, lease)?;
    if state != "leased" {
        return Err(StoreError::Fenced(format!("the attempt at upload {} has ended", lease.id)));
    }
    Ok((rid, user))
}

pub(super) fn renew(db: &Db, lease: &UploadLease, until: UnixMicros, heard_secs: f64) -> Result<()> {
    let (rid, _) = leased(db, lease)?;
    db.prepare_cached("UPDATE uploads SET due_at = ?2, heard_secs = ?3 WHERE rid = ?1")?
        .execute(params![rid, until.0, heard_secs])?;
    Ok(())
}

pub(super) fn complete(db: &Db, words: &UploadWords, job_attempts: u32) -> Result<Vec<ConversationId>> {
    let (rid, user, state) = held(db, &words.lease)?;
    let done =
        |db: &Db| one(db, None, &words.lease.id).map(|n| n.map(|n| n.conversations).unwrap_or_default());
    if state == "done" {
        return done(db);
    }
    leased(db, &words.lease)?;
    let upload = one(db, None, &words.lease.id)?
        .ok_or_else(|| StoreError::NotFound(format!("upload {}", words.lease.id)))?;
    for (segments, fresh) in words.stretches.iter().zip(&words.fresh_ids) {
        let conversation = put(db, &upload, segments, fresh, words)?;
        db.prepare_cached(
            "INSERT OR IGNORE INTO upload_conversations (upload, conversation) VALUES (?1, ?2)",
        )?
        .execute([rid, conversation])?;
    }
    db.prepare_cached(
        "UPDATE uploads SET state = 'done', leased_by = NULL, heard_secs = ?2, audio_secs = ?2, last_error = NULL, \
         updated_at = ?3 WHERE rid = ?1",
    )?
    .execute(params![rid, words.audio_secs, words.now.0])?;
    settle(db, &user, words.lease.id.as_str(), job_attempts, words.now)?;
    done(db)
}

/// Puts a stretch into its conversation, which is made if there is none near. Returns its key.
fn put(
    db: &Db,
    upload: &Upload,
    segments: &[Segment],
    fresh: &ConversationId,
    words: &UploadWords,
) -> Result<i64> {
    let at = |seconds: f64| upload.recorded_at.plus_secs_f64(seconds);
    let first = at(segments.iter().map(|segment| segment.start).fold(f64::INFINITY, f64::min));
    let last = at(segments.iter().map(|segment| segment.end).fold(0.0, f64::max));
    let near: Option<String> = db
        .prepare_cached(
            "SELECT c.id FROM conversations c JOIN users u ON u.rid = c.user WHERE u.id = ?1 AND c.status = 'in_progress' \
             AND c.source = ?2 AND c.started_at - ?5 <= ?4 AND c.finished_at + ?5 >= ?3 \
             AND EXISTS (SELECT 1 FROM upload_conversations l WHERE l.conversation = c.rid) \
             ORDER BY c.finished_at DESC, c.rid DESC LIMIT 1",
        )?
        .query_row(
            params![upload.user.as_str(), upload.source.as_str(), first.0, last.0, rows::micros(words.join_within)],
            |row| row.get(0),
        )
        .optional()?;
    let id = match near {
        Some(id) => ConversationId::from(id),
        None => make(db, upload, fresh, first)?,
    };
    let head = Head::find(db, &id)?.ok_or_else(|| StoreError::NotFound(format!("conversation {id}")))?;
    let zero = head.started_at.min(first);
    if zero != head.started_at {
        live::move_zero(db, head.rid, head.started_at, zero)?;
    }
    let offset = upload.recorded_at.seconds_since(zero);
    for segment in segments {
        let mut moved = segment.clone();
        moved.start += offset;
        moved.end += offset;
        live::put_plain_segment(db, &head, &moved)?;
    }
    db.prepare_cached("UPDATE conversations SET finished_at = max(finished_at, ?2) WHERE rid = ?1")?
        .execute(params![head.rid, last.0])?;
    Ok(head.rid)
}

/// Named, so that no live session resumes it.
fn make(db: &Db, upload: &Upload, fresh: &ConversationId, at: UnixMicros) -> Result<ConversationId> {
    if Head::find(db, fresh)?.is_some() {
        return Err(StoreError::Conflict(format!("conversation {fresh} exists already; choose a fresh id")));
    }
    db.prepare_cached(
        "INSERT INTO conversations (id, user, created_at, started_at, finished_at, source, stream_source, language, status, \
         client_named, timeout_us) SELECT ?1, rid, ?3, ?3, ?3, ?4, ?4, ?5, 'in_progress', 1, ?6 FROM users WHERE id = ?2",
    )?
    .execute(params![
        fresh.as_str(),
        upload.user.as_str(),
        at.0,
        upload.source.as_str(),
        upload.language,
        rows::micros(TIMEOUT)
    ])?;
    Ok(fresh.clone())
}

/// Finalises the user's conversations made of uploads to which no waiting upload can add anything. `by`: the upload whose end
/// this is; the job's name comes from it, so that repeating it makes no second one.
fn settle(db: &Db, user: &UserId, by: &str, job_attempts: u32, now: UnixMicros) -> Result<()> {
    let mut query = db.prepare_cached(
        "SELECT c.id FROM conversations c JOIN users u ON u.rid = c.user WHERE u.id = ?1 AND c.status = 'in_progress' \
         AND EXISTS (SELECT 1 FROM upload_conversations l WHERE l.conversation = c.rid) \
         AND NOT EXISTS (SELECT 1 FROM uploads n WHERE n.user = c.user AND n.state IN ('queued', 'leased') \
             AND n.recorded_at >= c.started_at - ?2 AND n.recorded_at <= c.finished_at + ?3) \
         ORDER BY c.started_at, c.rid",
    )?;
    let over: Vec<String> = rows::collect(
        query.query(params![user.as_str(), rows::micros(LOOK_BACK), rows::micros(TIMEOUT)])?,
        |row| Ok(row.get(0)?),
    )?;
    for (index, id) in over.into_iter().enumerate() {
        let conversation = ConversationId::from(id);
        let job_id = JobId::from(format!("{by}-{index}-{}", now.0));
        let finalise = Finalise { conversation, owner: None, reason: FinaliseReason::Requested, job_id, now };
        ending::finalise(db, &finalise, job_attempts)?;
    }
    Ok(())
}

fn fail(db: &Db, rid: i64, error: &str, now: UnixMicros) -> Result<()> {
    db.prepare_cached(
        "UPDATE uploads SET state = 'failed', leased_by = NULL, last_error = ?2, updated_at = ?3 WHERE rid = ?1",
    )?
    .execute(params![rid, error, now.0])?;
    Ok(())
}

pub(super) fn end(
    db: &Db,
    lease: &UploadLease,
    outcome: &AttemptOutcome,
    attempts_max: u32,
    job_attempts: u32,
    now: UnixMicros,
) -> Result<()> {
    let (rid, user) = leased(db, lease)?;
    let attempts: u32 =
        db.query_row("SELECT attempts FROM uploads WHERE rid = ?1", [rid], |row| row.get(0))?;
    let (at, error, counted) = match outcome {
        AttemptOutcome::Failed { error } => (None, Some(error), true),
        AttemptOutcome::Retry { error, .. } if attempts >= attempts_max => (None, Some(error), true),
        AttemptOutcome::Retry { at, error } => (Some(*at), Some(error), true),
        AttemptOutcome::Postponed { at, error } => (Some(*at), Some(error), false),
        AttemptOutcome::Released => (Some(now), None, false),
    };
    match at {
        None => {
            fail(db, rid, error.map_or("", String::as_str), now)?;
            settle(db, &user, lease.id.as_str(), job_attempts, now)
        }
        Some(at) => {
            db.prepare_cached(
                "UPDATE uploads SET state = 'queued', leased_by = NULL, due_at = ?2, last_error = coalesce(?3, last_error), \
                 attempts = attempts - ?4, updated_at = ?5 WHERE rid = ?1",
            )?
            .execute(params![rid, at.0, error, u32::from(!counted), now.0])?;
            Ok(())
        }
    }
}

pub(super) fn retry(db: &Db, user: &UserId, id: &UploadId, now: UnixMicros) -> Result<()> {
    let found = one(db, Some(user), id)?.ok_or_else(|| StoreError::NotFound(format!("upload {id}")))?;
    if found.state != UploadState::Failed {
        return Err(StoreError::Conflict(format!("upload {id} is {}", found.state.as_str())));
    }
    let rid: i64 = db.query_row("SELECT rid FROM uploads WHERE id = ?1", [id.as_str()], |row| row.get(0))?;
    queue_again(db, rid, now)
}

/// Its conversations stay.
pub(super) fn remove(
    db: &Db,
    user: &UserId,
    id: &UploadId,
    job_attempts: u32,
    now: UnixMicros,
) -> Result<()> {
    let found = one(db, Some(user), id)?.ok_or_else(|| StoreError::NotFound(format!("upload {id}")))?;
    // What it held open ends with it, while the link that says so is still there.
    for conversation in &found.conversations {
        let head = Head::find(db, conversation)?;
        if head.is_some_and(|head| head.status == ConversationStatus::InProgress) {
            return Err(StoreError::Conflict(format!(
                "conversation {conversation} of upload {id} waits for other uploads; delete it once that has ended"
            )));
        }
    }
    db.prepare_cached("DELETE FROM uploads WHERE id = ?1")?.execute([id.as_str()])?;
    settle(db, user, id.as_str(), job_attempts, now)
}

/// Frees what a process that is gone was at.
pub(super) fn process_gone(db: &Db, process: &ProcessId, now: UnixMicros) -> Result<()> {
    db.execute(
        "UPDATE uploads SET state = 'queued', epoch = epoch + 1, leased_by = NULL, attempts = attempts - 1, due_at = ?2, \
         updated_at = ?2 WHERE leased_by = ?1 AND state = 'leased'",
        params![process.as_str(), now.0],
    )?;
    Ok(())
}
