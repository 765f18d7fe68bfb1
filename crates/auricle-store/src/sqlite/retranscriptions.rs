//! Hearing conversations again: claimed by lease and epoch like uploads; the new transcript, the old one's place among the
//! replaced and the job that makes a record are one transaction.
//!
//! What an attempt heard is kept as steps of the present revision, under names of its own; they go with the work's end.

mod door;

use std::time::Duration;

use auricle_core::rehearing::{self, is_within};
use auricle_core::{
    ConversationId, ConversationStatus, Epoch, FinaliseReason, JobId, ProcessId, Revision, UnixMicros, UserId,
};
use rusqlite::{OptionalExtension, Row, params};

use super::db::Db;
use super::live::{self, Head};
use super::{ending, places, revisions, rows};
use crate::protect::Place;
use crate::retranscriptions::*;
use crate::store::{AttemptOutcome, Result, StoreError};
use crate::uploads::UploadState;

/// Spent ones that one claim fails on its way.
const SPENT_MAX: usize = 100;
/// What the names of its steps begin with.
const STEP: &str = "hear:";

const WORK: &str = "r.id, u.id, c.id, r.engine, r.state, r.attempts, r.last_error, r.heard_secs, r.revision, r.created_at, \
     r.updated_at, r.due_at, r.leased_by FROM retranscriptions r JOIN conversations c ON c.rid = r.conversation JOIN users u ON u.rid = c.user";

fn value(row: &Row<'_>) -> Result<Retranscription> {
    Ok(Retranscription {
        id: row.get::<_, String>(0)?.into(),
        user: row.get::<_, String>(1)?.into(),
        conversation: row.get::<_, String>(2)?.into(),
        engine: row.get(3)?,
        state: rows::known(UploadState::parse, &row.get::<_, String>(4)?, "state of a retranscription")?,
        attempts: row.get(5)?,
        last_error: row.get(6)?,
        heard_secs: row.get(7)?,
        revision: row.get::<_, Option<u32>>(8)?.map(Revision),
        created_at: UnixMicros(row.get(9)?),
        updated_at: UnixMicros(row.get(10)?),
        due_at: UnixMicros(row.get(11)?),
        leased_by: row.get::<_, Option<String>>(12)?.map(Into::into),
    })
}

fn of_conversation(db: &Db, conversation: i64) -> Result<Option<Retranscription>> {
    let mut query = db.prepare_cached(&format!("SELECT {WORK} WHERE r.conversation = ?1"))?;
    let mut found = query.query([conversation])?;
    found.next()?.map(value).transpose()
}

fn list(db: &Db, user: &UserId, state: Option<UploadState>, limit: usize) -> Result<Vec<Retranscription>> {
    let mut query = db.prepare_cached(&format!(
        "SELECT {WORK} WHERE u.id = ?1 AND (?2 IS NULL OR r.state = ?2) ORDER BY r.created_at DESC, r.rid DESC LIMIT ?3"
    ))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let found = query.query(params![user.as_str(), state.map(UploadState::as_str), limit])?;
    rows::collect(found, value)
}

fn by_id(db: &Db, user: &UserId, id: &JobId) -> Result<Option<Retranscription>> {
    let mut query = db.prepare_cached(&format!("SELECT {WORK} WHERE u.id = ?1 AND r.id = ?2"))?;
    let mut found = query.query([user.as_str(), id.as_str()])?;
    found.next()?.map(value).transpose()
}

fn retry(db: &Db, user: &UserId, id: &JobId, now: UnixMicros) -> Result<()> {
    let known = by_id(db, user, id)?.ok_or_else(|| StoreError::NotFound(format!("retranscription {id}")))?;
    if known.state != UploadState::Failed {
        return Err(StoreError::Conflict(format!(
            "retranscription {id} is {}; only a failed one can be revived",
            known.state.as_str()
        )));
    }
    has_ended(&Head::of_user(db, user, &known.conversation)?)?;
    db.prepare_cached(
        "UPDATE retranscriptions SET state = 'queued', attempts = 0, due_at = ?2, epoch = epoch + 1, heard_secs = 0, \
         updated_at = ?2 WHERE id = ?1",
    )?
    .execute(params![id.as_str(), now.0])?;
    Ok(())
}

fn ask(db: &Db, new: &NewRetranscription) -> Result<Retranscription> {
    let head = Head::of_user(db, &new.user, &new.conversation)?;
    let id = &new.conversation;
    if let Some(known) = of_conversation(db, head.rid)? {
        let under_way = matches!(known.state, UploadState::Queued | UploadState::Leased);
        if known.id == new.id || (under_way && known.engine == new.engine) {
            return Ok(known);
        }
        if under_way {
            return Err(StoreError::Conflict(format!(
                "conversation {id} is being heard again by {}; ask again once that has ended",
                known.engine
            )));
        }
    }
    has_ended(&head)?;
    db.prepare_cached(
        "INSERT INTO retranscriptions (id, conversation, engine, state, due_at, created_at, updated_at) \
         VALUES (?1, ?2, ?3, 'queued', ?4, ?4, ?4) ON CONFLICT (conversation) DO UPDATE SET id = ?1, engine = ?3, \
         state = 'queued', attempts = 0, due_at = ?4, last_error = NULL, leased_by = NULL, epoch = epoch + 1, \
         heard_secs = 0, revision = NULL, created_at = ?4, updated_at = ?4",
    )?
    .execute(params![new.id.as_str(), head.rid, new.engine, new.now.0])?;
    of_conversation(db, head.rid)?.ok_or_else(|| StoreError::Other("a retranscription is gone".into()))
}

fn has_ended(head: &Head) -> Result<()> {
    match head.status {
        ConversationStatus::Completed | ConversationStatus::Failed => Ok(()),
        other => Err(StoreError::Conflict(format!(
            "conversation {} is {}; it can be heard again once it has ended",
            head.id,
            other.as_str()
        ))),
    }
}

fn claim(
    db: &Db,
    process: &ProcessId,
    now: UnixMicros,
    lease: Duration,
    attempts_max: u32,
) -> Result<Option<(RetranscriptionLease, Retranscription)>> {
    for _ in 0..SPENT_MAX {
        let found: Option<(i64, i64, String, u32)> = db
            .prepare_cached(
                "SELECT rid, conversation, state, attempts FROM retranscriptions WHERE state IN ('queued', 'leased') \
                 AND due_at <= ?1 ORDER BY due_at, rid LIMIT 1",
            )?
            .query_row([now.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .optional()?;
        let Some((rid, conversation, state, attempts)) = found else { return Ok(None) };
        if attempts >= attempts_max && state == "leased" {
            fail(db, rid, "its last attempt ended with the process that made it", now)?;
            continue;
        }
        let epoch: i64 = db
            .prepare_cached(
                "UPDATE retranscriptions SET state = 'leased', epoch = epoch + 1, attempts = attempts + 1, leased_by = ?2, \
                 due_at = ?3, updated_at = ?4, heard_secs = 0 WHERE rid = ?1 RETURNING epoch",
            )?
            .query_row(params![rid, process.as_str(), (now + lease).0, now.0], |row| row.get(0))?;
        let work = of_conversation(db, conversation)?
            .ok_or_else(|| StoreError::Damaged("a retranscription without a conversation".into()))?;
        let lease = RetranscriptionLease {
            id: work.id.clone(),
            conversation: work.conversation.clone(),
            epoch: Epoch(rows::count(epoch)),
        };
        return Ok(Some((lease, work)));
    }
    Ok(None)
}

fn fail(db: &Db, rid: i64, error: &str, now: UnixMicros) -> Result<()> {
    db.prepare_cached(
        "UPDATE retranscriptions SET state = 'failed', leased_by = NULL, last_error = ?2, updated_at = ?3 WHERE rid = ?1",
    )?
    .execute(params![rid, error, now.0])?;
    forget_steps(db, rid)
}

/// They are as large as a transcript, and of no more use.
fn forget_steps(db: &Db, rid: i64) -> Result<()> {
    db.prepare_cached(
        "DELETE FROM steps WHERE conversation = (SELECT conversation FROM retranscriptions WHERE rid = ?1) \
         AND substr(step, 1, ?3) = ?2",
    )?
    .execute(params![rid, STEP, i64::try_from(STEP.len()).unwrap_or(0)])?;
    Ok(())
}

/// The row of a lease, with what it came to.
struct Held {
    rid: i64,
    conversation: i64,
    state: UploadState,
    revision: Option<u32>,
}

impl Held {
    fn of_lease(db: &Db, lease: &RetranscriptionLease) -> Result<Self> {
        let found: Option<(i64, i64, String, i64, Option<u32>)> = db
            .prepare_cached(
                "SELECT r.rid, r.conversation, r.state, r.epoch, r.revision FROM retranscriptions r \
                 JOIN conversations c ON c.rid = r.conversation WHERE c.id = ?1",
            )?
            .query_row([lease.conversation.as_str()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
            })
            .optional()?;
        let (rid, conversation, state, epoch, revision) = found.ok_or_else(|| {
            StoreError::NotFound(format!("conversation {} to hear again", lease.conversation))
        })?;
        if rows::count(epoch) != lease.epoch.0 {
            return Err(StoreError::Fenced(format!("retranscription {} was claimed by another", lease.id)));
        }
        let state = rows::known(UploadState::parse, &state, "state of a retranscription")?;
        Ok(Self { rid, conversation, state, revision })
    }

    fn leased(db: &Db, lease: &RetranscriptionLease) -> Result<Self> {
        let held = Self::of_lease(db, lease)?;
        if held.state != UploadState::Leased {
            return Err(StoreError::Fenced(format!("the attempt at retranscription {} has ended", lease.id)));
        }
        Ok(held)
    }
}

fn renew(db: &Db, lease: &RetranscriptionLease, until: UnixMicros, heard_secs: f64) -> Result<()> {
    let held = Held::leased(db, lease)?;
    db.prepare_cached("UPDATE retranscriptions SET due_at = ?2, heard_secs = ?3 WHERE rid = ?1")?
        .execute(params![held.rid, until.0, heard_secs])?;
    Ok(())
}

/// Steps of another work on the same conversation must not be taken for this one's.
fn step_name(id: &JobId, step: &str) -> String {
    format!("{STEP}{id}:{step}")
}

fn record(db: &Db, lease: &RetranscriptionLease, step: &str, result: &str, now: UnixMicros) -> Result<()> {
    let held = Held::leased(db, lease)?;
    let (user, conversation) = rows::whose(db, held.conversation)?;
    let name = step_name(&lease.id, step);
    let result = db.seal(&user, Place::new("steps", "result", &[&conversation, "0", &name]), result);
    db.prepare_cached(
        "INSERT INTO steps (conversation, revision, step, result, at) VALUES (?1, 0, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
    )?
    .execute(params![held.conversation, name, result, now.0])?;
    Ok(())
}

fn complete(db: &Db, done: &Reheard, job_attempts: u32, revisions_max: usize) -> Result<Revision> {
    let held = Held::of_lease(db, &done.lease)?;
    if let (UploadState::Done, Some(revision)) = (held.state, held.revision) {
        return Ok(Revision(revision));
    }
    Held::leased(db, &done.lease)?;
    let id = &done.lease.conversation;
    let head = Head::find(db, id)?.ok_or_else(|| StoreError::NotFound(format!("conversation {id}")))?;
    has_ended(&head)?;
    revisions::keep(db, &head, revisions_max, done.now)?;
    let said = done.stretches.iter().flat_map(|stretch| {
        stretch.segments.iter().map(|segment| stretch.zero_at.plus_secs_f64(segment.start))
    });
    let zero = said.fold(head.started_at, UnixMicros::min);
    if zero != head.started_at {
        live::move_zero(db, head.rid, head.started_at, zero)?;
    }
    let mut heard = Vec::new();
    let mut stretches = Vec::new();
    for stretch in &done.stretches {
        let offset = stretch.zero_at.seconds_since(zero);
        stretches.push((stretch.from + offset, stretch.until + offset));
        heard.extend(stretch.segments.iter().cloned().map(|mut segment| {
            segment.start += offset;
            segment.end += offset;
            rehearing::New { segment, is_channel: stretch.is_channel }
        }));
    }
    let old = revisions::segments(db, &head)?;
    let made = rehearing::replace(&old, &stretches, heard);
    for segment in &made.removed {
        live::remove_segment(db, head.user, head.rid, segment)?;
    }
    let mut ends = head.finished_at;
    for segment in &made.added {
        ends = ends.max(zero.plus_secs_f64(segment.end));
        live::put_plain_segment(db, &head, segment)?;
    }
    close_gaps(db, &head, zero, &stretches)?;
    places::forget_of(db, head.user)?;
    let revision =
        ending::revise(db, &head, &done.job_id, (FinaliseReason::Retranscribe, job_attempts), done.now)?;
    db.prepare_cached("UPDATE conversations SET finished_at = ?2 WHERE rid = ?1")?
        .execute(params![head.rid, ends.0])?;
    db.prepare_cached(
        "UPDATE retranscriptions SET state = 'done', leased_by = NULL, heard_secs = ?2, last_error = NULL, revision = ?3, \
         updated_at = ?4 WHERE rid = ?1",
    )?
    .execute(params![held.rid, done.heard_secs, revision.0, done.now.0])?;
    forget_steps(db, held.rid)?;
    Ok(revision)
}

/// What could not be heard before has been heard now.
fn close_gaps(db: &Db, head: &Head, zero: UnixMicros, stretches: &[(f64, f64)]) -> Result<()> {
    let stored =
        db.query_row("SELECT gaps FROM conversations WHERE rid = ?1", [head.rid], |row| row.get(0))?;
    let gaps = rows::gaps_value(stored)?;
    if gaps.is_empty() {
        return Ok(());
    }
    let moved = head.started_at.seconds_since(zero);
    let left: Vec<(f64, f64)> = gaps
        .into_iter()
        .map(|(from, until)| (from + moved, until + moved))
        .filter(|(from, until)| !is_within(f64::midpoint(*from, *until), stretches))
        .collect();
    let left = if left.is_empty() { None } else { Some(rows::to_json(&left)?) };
    db.execute("UPDATE conversations SET gaps = ?2 WHERE rid = ?1", params![head.rid, left])?;
    Ok(())
}

fn end(
    db: &Db,
    lease: &RetranscriptionLease,
    outcome: &AttemptOutcome,
    attempts_max: u32,
    now: UnixMicros,
) -> Result<()> {
    let held = Held::leased(db, lease)?;
    let attempts: u32 =
        db.query_row("SELECT attempts FROM retranscriptions WHERE rid = ?1", [held.rid], |row| row.get(0))?;
    let (at, error, counted) = match outcome {
        AttemptOutcome::Failed { error } => return fail(db, held.rid, error, now),
        AttemptOutcome::Retry { error, .. } if attempts >= attempts_max => {
            return fail(db, held.rid, error, now);
        }
        AttemptOutcome::Retry { at, error } => (*at, Some(error), true),
        AttemptOutcome::Postponed { at, error } => (*at, Some(error), false),
        AttemptOutcome::Released => (now, None, false),
    };
    db.prepare_cached(
        "UPDATE retranscriptions SET state = 'queued', leased_by = NULL, due_at = ?2, last_error = coalesce(?3, last_error), \
         attempts = attempts - ?4, updated_at = ?5 WHERE rid = ?1",
    )?
    .execute(params![held.rid, at.0, error, u32::from(!counted), now.0])?;
    Ok(())
}

/// Frees what a process that is gone was at.
pub(super) fn process_gone(db: &Db, process: &ProcessId, now: UnixMicros) -> Result<()> {
    db.execute(
        "UPDATE retranscriptions SET state = 'queued', epoch = epoch + 1, leased_by = NULL, attempts = attempts - 1, \
         due_at = ?2, updated_at = ?2 WHERE leased_by = ?1 AND state = 'leased'",
        params![process.as_str(), now.0],
    )?;
    Ok(())
}

fn known_conversations(db: &Db, ids: &[ConversationId]) -> Result<Vec<ConversationId>> {
    let mut query = db.prepare_cached("SELECT 1 FROM conversations WHERE id = ?1")?;
    let mut known = Vec::new();
    for id in ids {
        if query.exists([id.as_str()])? {
            known.push(id.clone());
        }
    }
    Ok(known)
}
