//! How conversations end, start again, are mended and go: every check stands in the transaction that acts on it.

use auricle_core::{ConversationId, ConversationStatus, FinaliseReason, JobId, Revision, UnixMicros, UserId};
use rusqlite::{OptionalExtension, params};

use super::db::Db;
use super::live::{self, Head};
use super::{embeddings, items, memories, places, rows, search};
use crate::store::{Finalise, Finalised, InsertRecovered, Orphan, Result, StoreError};

/// Reasons that say only how the end was noticed; a client's own word is better.
const WEAK_REASONS: [FinaliseReason; 4] = [
    FinaliseReason::Silence,
    FinaliseReason::ClientGone,
    FinaliseReason::ConnectionEnded,
    FinaliseReason::Requested,
];

pub(super) fn finalise(db: &Db, finalise: &Finalise, attempts_max: u32) -> Result<Finalised> {
    let id = &finalise.conversation;
    let head = Head::find(db, id)?.ok_or_else(|| StoreError::NotFound(format!("conversation {id}")))?;
    if let Some(revision) = job_revision(db, head.rid, &finalise.job_id)? {
        return Ok(Finalised::Queued { job: finalise.job_id.clone(), revision });
    }
    if head.status != ConversationStatus::InProgress {
        return Ok(Finalised::AlreadyEnded { status: head.status });
    }
    match &finalise.owner {
        Some(ownership) => drop(Head::owned(db, ownership)?),
        None => refuse_live(db, &head, finalise)?,
    }
    // L34: nothing may be added between this look and the deletion; L32: a marked gap is audio that was heard.
    if is_empty(db, head.rid)? {
        remove(db, head.rid)?;
        return Ok(Finalised::DeletedEmpty);
    }
    let noted: Option<String> =
        db.query_row("SELECT noted_reason FROM conversations WHERE rid = ?1", [head.rid], |row| row.get(0))?;
    let noted = noted.map(|text| rows::known(FinaliseReason::parse, &text, "reason")).transpose()?;
    let reason = noted.filter(|_| WEAK_REASONS.contains(&finalise.reason)).unwrap_or(finalise.reason);
    db.prepare_cached(
        "UPDATE conversations SET status = 'processing', revision = revision + 1, finalise_reason = ?2, owner = NULL \
         WHERE rid = ?1",
    )?
    .execute(params![head.rid, reason.as_str()])?;
    let revision = Revision(head.revision + 1);
    queue_job(db, &head, &finalise.job_id, revision, reason, attempts_max, finalise.now)?;
    Ok(Finalised::Queued { job: finalise.job_id.clone(), revision })
}

/// Without an owner's word, only what nobody live owns may end; and for a vanished client only once its time is over:
/// it may have come back since the sweeper looked.
fn refuse_live(db: &Db, head: &Head, finalise: &Finalise) -> Result<()> {
    let id = &finalise.conversation;
    if head.has_live_owner(db, finalise.now)? {
        return Err(StoreError::Conflict(format!("conversation {id} is being heard by a live session")));
    }
    let ends = head.finished_at.0.saturating_add(head.timeout_us);
    if finalise.reason == FinaliseReason::ClientGone && ends > finalise.now.0 {
        return Err(StoreError::Conflict(format!(
            "conversation {id} may still be resumed: its timeout is not over"
        )));
    }
    Ok(())
}

fn is_empty(db: &Db, rid: i64) -> Result<bool> {
    Ok(db
        .prepare_cached(
            "SELECT NOT EXISTS (SELECT 1 FROM segments WHERE conversation = ?1) \
             AND NOT EXISTS (SELECT 1 FROM photos WHERE conversation = ?1) \
             AND (SELECT gaps IS NULL FROM conversations WHERE rid = ?1)",
        )?
        .query_row([rid], |row| row.get(0))?)
}

fn job_revision(db: &Db, rid: i64, job: &JobId) -> Result<Option<Revision>> {
    Ok(db
        .prepare_cached("SELECT revision FROM jobs WHERE id = ?1 AND conversation = ?2")?
        .query_row(params![job.as_str(), rid], |row| row.get(0).map(Revision))
        .optional()?)
}

fn queue_job(
    db: &Db,
    head: &Head,
    job: &JobId,
    revision: Revision,
    reason: FinaliseReason,
    attempts_max: u32,
    now: UnixMicros,
) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO jobs (id, conversation, user, revision, reason, state, attempts_max, run_at, created_at, updated_at, \
         due_at) VALUES (?1, ?2, ?3, ?4, ?5, 'queued', ?6, ?7, ?7, ?7, ?7)",
    )?
    .execute(params![job.as_str(), head.rid, head.user, revision.0, reason.as_str(), attempts_max, now.0])?;
    Ok(())
}

/// Deletes a conversation and all that hangs on it.
fn remove(db: &Db, rid: i64) -> Result<()> {
    places::forget_of(db, rows::owner(db, rid)?)?;
    search::remove_conversation(db, rid)?;
    items::conversation_goes(db, rid)?;
    embeddings::conversation_goes(db, rid)?;
    memories::conversation_goes(db, rid)?;
    db.prepare_cached("DELETE FROM conversations WHERE rid = ?1")?.execute([rid])?;
    Ok(())
}

pub(super) fn delete(db: &Db, user: &UserId, id: &ConversationId) -> Result<()> {
    let head = Head::of_user(db, user, id)?;
    remove(db, head.rid)
}

pub(super) fn reprocess(
    db: &Db,
    user: &UserId,
    id: &ConversationId,
    job: &JobId,
    attempts_max: u32,
    now: UnixMicros,
) -> Result<(JobId, Revision)> {
    let head = Head::of_user(db, user, id)?;
    if let Some(revision) = job_revision(db, head.rid, job)? {
        return Ok((job.clone(), revision));
    }
    if !matches!(head.status, ConversationStatus::Completed | ConversationStatus::Failed) {
        return Err(StoreError::Conflict(format!(
            "conversation {id} is {}; it can be processed again once it has ended",
            head.status.as_str()
        )));
    }
    let revision = revise(db, &head, job, (FinaliseReason::Reprocess, attempts_max), now)?;
    Ok((job.clone(), revision))
}

/// Starts a new revision of what has ended: its job is queued, for this reason, with so many attempts.
pub(super) fn revise(
    db: &Db,
    head: &Head,
    job: &JobId,
    (reason, attempts_max): (FinaliseReason, u32),
    now: UnixMicros,
) -> Result<Revision> {
    db.execute(
        "UPDATE conversations SET status = 'processing', revision = revision + 1, failure = NULL WHERE rid = ?1",
        [head.rid],
    )?;
    let revision = Revision(head.revision + 1);
    queue_job(db, head, job, revision, reason, attempts_max, now)?;
    Ok(revision)
}

/// The condition is the index's.
pub(super) fn stand_ins(db: &Db, limit: usize) -> Result<Vec<(UserId, ConversationId)>> {
    let mut query = db.prepare_cached(
        "SELECT u.id, c.id FROM conversations c JOIN users u ON u.rid = c.user \
         WHERE c.provider_version LIKE '%/fallback' AND c.status = 'completed' \
         ORDER BY c.finished_at, c.rid LIMIT ?1",
    )?;
    rows::collect(query.query([i64::try_from(limit).unwrap_or(i64::MAX)])?, |row| {
        Ok((row.get::<_, String>(0)?.into(), row.get::<_, String>(1)?.into()))
    })
}

pub(super) fn orphans(db: &Db, now: UnixMicros, limit: usize) -> Result<Vec<Orphan>> {
    let mut query = db.prepare_cached(
        "SELECT c.id, u.id, c.finished_at FROM conversations c JOIN users u ON u.rid = c.user \
         WHERE c.status = 'in_progress' AND c.finished_at <= ?1 AND c.finished_at + c.timeout_us <= ?1 \
         AND NOT EXISTS (SELECT 1 FROM processes p WHERE p.id = c.owner AND p.until > ?1) \
         AND NOT EXISTS (SELECT 1 FROM upload_conversations l WHERE l.conversation = c.rid) \
         ORDER BY c.finished_at, c.rid LIMIT ?2",
    )?;
    rows::collect(query.query(params![now.0, i64::try_from(limit).unwrap_or(i64::MAX)])?, |row| {
        Ok(Orphan {
            conversation: row.get::<_, String>(0)?.into(),
            user: row.get::<_, String>(1)?.into(),
            finished_at: UnixMicros(row.get(2)?),
        })
    })
}

pub(super) fn insert_recovered(db: &Db, insert: &InsertRecovered) -> Result<()> {
    let id = &insert.conversation;
    let head = Head::find(db, id)?.ok_or_else(|| StoreError::NotFound(format!("conversation {id}")))?;
    let until = i64::try_from(insert.until_sample).unwrap_or(i64::MAX);
    let grown = db
        .prepare_cached(
            "INSERT INTO recovered (conversation, run, until_sample) VALUES (?1, ?2, ?3) \
             ON CONFLICT (conversation, run) DO UPDATE SET until_sample = excluded.until_sample \
             WHERE excluded.until_sample > until_sample",
        )?
        .execute(params![head.rid, insert.run, until])?;
    if grown == 0 {
        return Ok(());
    }
    let mut zero = head.started_at;
    let first = insert.segments.iter().map(|segment| segment.start).min_by(f64::total_cmp);
    if let Some(first) = first
        && !db.prepare_cached("SELECT 1 FROM segments WHERE conversation = ?1")?.exists([head.rid])?
    {
        zero = insert.zero_at.plus_secs_f64(first);
        live::move_zero(db, head.rid, head.started_at, zero)?;
    }
    let offset = insert.zero_at.seconds_since(zero);
    let mut last_end: Option<f64> = None;
    for segment in &insert.segments {
        let mut moved = segment.clone();
        moved.start += offset;
        moved.end += offset;
        last_end = Some(last_end.map_or(moved.end, |end| end.max(moved.end)));
        live::put_plain_segment(db, &head, &moved)?;
    }
    if let Some(end) = last_end {
        db.execute(
            "UPDATE conversations SET finished_at = max(finished_at, ?2) WHERE rid = ?1",
            params![head.rid, zero.plus_secs_f64(end).0],
        )?;
    }
    if let Some((start, end)) = insert.gap {
        add_gap(db, head.rid, (start + offset, end + offset))?;
    }
    if head.status == ConversationStatus::Completed && !insert.segments.is_empty() {
        embeddings::changed(db, head.rid, insert.zero_at)?;
    }
    Ok(())
}

fn add_gap(db: &Db, rid: i64, gap: (f64, f64)) -> Result<()> {
    let stored = db.query_row("SELECT gaps FROM conversations WHERE rid = ?1", [rid], |row| row.get(0))?;
    let mut gaps = rows::gaps_value(stored)?;
    gaps.push(gap);
    gaps.sort_by(|one, other| one.0.total_cmp(&other.0));
    db.execute("UPDATE conversations SET gaps = ?2 WHERE rid = ?1", params![rid, rows::to_json(&gaps)?])?;
    Ok(())
}
