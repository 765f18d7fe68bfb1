//! Jobs: claimed by lease and epoch; every write of a worker compares both in its own transaction.
//!
//! Invariants: a job and its conversation change state together; a worker whose lease was taken changes nothing (D14);
//! a repeat of a write that succeeded succeeds again and changes nothing.

use std::time::Duration;

use auricle_core::{
    ConversationId, Epoch, FinaliseReason, JobId, JobState, ProcessId, Revision, UnixMicros, UserId,
};
use rusqlite::{OptionalExtension, Row, params};

use super::db::Db;
use super::{effects, embeddings, items, memories, rows, search};
use crate::protect::Place;
use crate::store::{
    AttemptOutcome, ClaimRule, ClaimedJob, Completion, Job, JobCounts, JobLease, Result, StepRecord,
    StoreError,
};

/// Spent jobs that one claim fails on its way; the next claim goes on.
const SPENT_MAX: usize = 100;

const JOB: &str = "j.id, c.id, u.id, j.revision, j.reason, j.state, j.attempts, j.attempts_max, j.run_at, j.created_at, \
     j.updated_at, j.last_error, j.leased_by, j.lease_expires_at, j.epoch, j.postponed, j.away_since \
     FROM jobs j JOIN conversations c ON c.rid = j.conversation JOIN users u ON u.rid = j.user";

fn job_value(row: &Row<'_>) -> Result<Job> {
    Ok(Job {
        id: row.get::<_, String>(0)?.into(),
        conversation: row.get::<_, String>(1)?.into(),
        user: row.get::<_, String>(2)?.into(),
        revision: Revision(row.get(3)?),
        reason: rows::known(FinaliseReason::parse, &row.get::<_, String>(4)?, "reason")?,
        state: rows::known(JobState::parse, &row.get::<_, String>(5)?, "job state")?,
        attempts: row.get(6)?,
        attempts_max: row.get(7)?,
        run_at: UnixMicros(row.get(8)?),
        created_at: UnixMicros(row.get(9)?),
        updated_at: UnixMicros(row.get(10)?),
        last_error: row.get(11)?,
        leased_by: row.get::<_, Option<String>>(12)?.map(Into::into),
        lease_expires_at: row.get::<_, Option<i64>>(13)?.map(UnixMicros),
        epoch: Epoch(rows::count(row.get(14)?)),
        postponed: row.get(15)?,
        away_since: row.get::<_, Option<i64>>(16)?.map(UnixMicros),
    })
}

/// A job's row as the writes compare it.
struct Held {
    rid: i64,
    conversation: i64,
    revision: u32,
    state: JobState,
    epoch: u64,
    current_revision: u32,
}

impl Held {
    fn find(db: &Db, id: &JobId) -> Result<Option<Self>> {
        let mut query = db.prepare_cached(
            "SELECT j.rid, j.conversation, j.revision, j.state, j.epoch, c.revision \
             FROM jobs j JOIN conversations c ON c.rid = j.conversation WHERE j.id = ?1",
        )?;
        let mut found = query.query([id.as_str()])?;
        let Some(row) = found.next()? else { return Ok(None) };
        Ok(Some(Self {
            rid: row.get(0)?,
            conversation: row.get(1)?,
            revision: row.get(2)?,
            state: rows::known(JobState::parse, &row.get::<_, String>(3)?, "job state")?,
            epoch: rows::count(row.get(4)?),
            current_revision: row.get(5)?,
        }))
    }

    /// The job of a lease, whatever its state, if no later claim took it.
    fn of_lease(db: &Db, lease: &JobLease) -> Result<Self> {
        let job = &lease.job;
        let held = Self::find(db, job)?
            .ok_or_else(|| StoreError::NotFound(format!("job {job}: its conversation was deleted")))?;
        if held.epoch != lease.epoch.0 || held.revision != lease.revision.0 {
            return Err(StoreError::Fenced(format!(
                "job {job} was taken over (epoch {}, yours {})",
                held.epoch, lease.epoch
            )));
        }
        Ok(held)
    }

    fn refuse_unleased(&self, lease: &JobLease) -> Result<()> {
        if self.state == JobState::Leased {
            return Ok(());
        }
        Err(StoreError::Fenced(format!("job {} is {}", lease.job, self.state.as_str())))
    }

    fn leased(db: &Db, lease: &JobLease) -> Result<Self> {
        let held = Self::of_lease(db, lease)?;
        held.refuse_unleased(lease)?;
        Ok(held)
    }
}

pub(super) fn claim(
    db: &Db,
    process: &ProcessId,
    now: UnixMicros,
    lease: Duration,
    rule: ClaimRule,
) -> Result<Option<ClaimedJob>> {
    let due_by = UnixMicros(now.0.saturating_sub(i64::try_from(rule.waited.as_micros()).unwrap_or(i64::MAX)));
    for _ in 0..SPENT_MAX {
        let due: Option<(i64, i64, u32, u32, Option<String>)> = db
            .prepare_cached(
                "SELECT rid, conversation, attempts, attempts_max, last_error FROM jobs \
                 WHERE state IN ('queued', 'leased') AND due_at <= ?1 AND NOT (?2 AND user IN \
                 (SELECT user FROM jobs WHERE leased_by = ?3 AND state = 'leased' AND lease_expires_at > ?4)) \
                 ORDER BY due_at, rid LIMIT 1",
            )?
            .query_row(params![due_by.0, rule.one_per_user, process.as_str(), now.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
            .optional()?;
        let Some((rid, conversation, attempts, attempts_max, last_error)) = due else { return Ok(None) };
        if attempts >= attempts_max {
            let why = last_error.unwrap_or_else(|| "its worker ended without a word".into());
            fail(db, rid, conversation, &format!("gave up after {attempts} attempts; the last: {why}"), now)?;
            continue;
        }
        let until = now + lease;
        db.prepare_cached(
            "UPDATE jobs SET state = 'leased', epoch = epoch + 1, attempts = attempts + 1, leased_by = ?2, \
             lease_expires_at = ?3, due_at = ?3, updated_at = ?4 WHERE rid = ?1",
        )?
        .execute(params![rid, process.as_str(), until.0, now.0])?;
        let job = one(db, "j.rid", &rid)?
            .ok_or_else(|| StoreError::Damaged("a job without a conversation".into()))?;
        let lease = JobLease {
            job: job.id.clone(),
            conversation: job.conversation.clone(),
            revision: job.revision,
            epoch: job.epoch,
        };
        return Ok(Some(ClaimedJob { lease, job }));
    }
    Ok(None)
}

/// Job and conversation fail together, so that neither can be left behind (S4). The transcript stays.
fn fail(db: &Db, rid: i64, conversation: i64, error: &str, now: UnixMicros) -> Result<()> {
    db.execute(
        "UPDATE jobs SET state = 'failed', last_error = ?2, leased_by = NULL, lease_expires_at = NULL, updated_at = ?3 \
         WHERE rid = ?1",
        params![rid, error, now.0],
    )?;
    db.execute(
        "UPDATE conversations SET status = 'failed', failure = ?2 WHERE rid = ?1 AND status = 'processing' \
         AND revision = (SELECT revision FROM jobs WHERE rid = ?3)",
        params![conversation, error, rid],
    )?;
    Ok(())
}

pub(super) fn renew(db: &Db, lease: &JobLease, until: UnixMicros) -> Result<()> {
    let held = Held::leased(db, lease)?;
    db.prepare_cached("UPDATE jobs SET lease_expires_at = ?2, due_at = ?2 WHERE rid = ?1")?
        .execute(params![held.rid, until.0])?;
    Ok(())
}

pub(super) fn record_step(
    db: &Db,
    lease: &JobLease,
    step: &str,
    result: &str,
    now: UnixMicros,
) -> Result<()> {
    let held = Held::leased(db, lease)?;
    let (user, conversation) = rows::whose(db, held.conversation)?;
    let revision = held.revision.to_string();
    let result = db.seal(&user, Place::new("steps", "result", &[&conversation, &revision, step]), result);
    db.prepare_cached(
        "INSERT INTO steps (conversation, revision, step, result, at) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT DO NOTHING",
    )?
    .execute(params![held.conversation, held.revision, step, result, now.0])?;
    Ok(())
}

pub(super) fn steps(db: &Db, conversation: &ConversationId, revision: Revision) -> Result<Vec<StepRecord>> {
    let mut query = db.prepare_cached(
        "SELECT s.step, s.result, s.at, u.id FROM steps s JOIN conversations c ON c.rid = s.conversation \
         JOIN users u ON u.rid = c.user WHERE c.id = ?1 AND s.revision = ?2 ORDER BY s.at, s.step",
    )?;
    rows::collect(query.query(params![conversation.as_str(), revision.0])?, |row| {
        let (step, user): (String, String) = (row.get(0)?, row.get(3)?);
        let of = revision.0.to_string();
        let place = [conversation.as_str(), of.as_str(), step.as_str()];
        let result = db.open(&user, Place::new("steps", "result", &place), row.get(1)?)?;
        Ok(StepRecord { step, result, at: UnixMicros(row.get(2)?) })
    })
}

/// A field-level merge (L35): only what understanding owns is written; it never makes a row.
pub(super) fn complete(db: &Db, done: &Completion) -> Result<()> {
    let held = Held::of_lease(db, &done.lease)?;
    if held.state == JobState::Completed {
        return Ok(());
    }
    held.refuse_unleased(&done.lease)?;
    let (user, conversation) = rows::whose(db, held.conversation)?;
    let structured = rows::structured_json(&done.structured)?;
    let structured = db.seal(&user, Place::new("conversations", "structured", &[&conversation]), &structured);
    let merged = db
        .prepare_cached(
            "UPDATE conversations SET structured = ?3, provider = ?4, provider_version = ?5, discarded = ?6, \
             status = 'completed', failure = NULL WHERE rid = ?1 AND revision = ?2 AND status = 'processing'",
        )?
        .execute(params![
            held.conversation,
            held.revision,
            structured,
            done.provenance.provider,
            done.provenance.version,
            done.discarded.map(|reason| reason.as_str())
        ])?;
    if merged == 0 {
        return Err(StoreError::Fenced(format!(
            "conversation {} is no longer processing revision {}",
            done.lease.conversation, done.lease.revision
        )));
    }
    db.prepare_cached(
        "UPDATE jobs SET state = 'completed', leased_by = NULL, lease_expires_at = NULL, updated_at = ?2 WHERE rid = ?1",
    )?
    .execute(params![held.rid, done.now.0])?;
    items::keep_in_step(db, held.conversation, held.revision, done)?;
    memories::keep_in_step(db, held.conversation, held.revision, done)?;
    match done.discarded {
        Some(_) => embeddings::set_aside(db, held.conversation)?,
        None => embeddings::changed(db, held.conversation, done.now)?,
    }
    search::index_title(db, held.conversation)?;
    effects::record(db, (held.conversation, &user), held.revision, &done.effects, done.now)?;
    effects::record_targets(db, &done.lease, held.conversation, done.discarded.is_some(), done.now)
}

pub(super) fn end_attempt(
    db: &Db,
    lease: &JobLease,
    outcome: &AttemptOutcome,
    now: UnixMicros,
) -> Result<()> {
    let held = Held::of_lease(db, lease)?;
    let repeated = match outcome {
        AttemptOutcome::Retry { .. } | AttemptOutcome::Released | AttemptOutcome::Postponed { .. } => {
            held.state == JobState::Queued
        }
        AttemptOutcome::Failed { .. } => held.state == JobState::Failed,
    };
    if repeated {
        return Ok(());
    }
    held.refuse_unleased(lease)?;
    match outcome {
        AttemptOutcome::Retry { at, error } => {
            not_away(db, held.rid)?;
            requeue(db, held.rid, *at, 0, Some(error), now)
        }
        AttemptOutcome::Released => requeue(db, held.rid, now, 1, None, now),
        AttemptOutcome::Postponed { at, error } => {
            db.prepare_cached(
                "UPDATE jobs SET postponed = postponed + 1, away_since = coalesce(away_since, ?2) WHERE rid = ?1",
            )?
            .execute(params![held.rid, now.0])?;
            requeue(db, held.rid, *at, 1, Some(error), now)
        }
        AttemptOutcome::Failed { error } => fail(db, held.rid, held.conversation, error, now),
    }
}

/// What it needs answered, or it begins anew.
fn not_away(db: &Db, rid: i64) -> Result<()> {
    db.prepare_cached("UPDATE jobs SET postponed = 0, away_since = NULL WHERE rid = ?1")?.execute([rid])?;
    Ok(())
}

fn requeue(
    db: &Db,
    rid: i64,
    at: UnixMicros,
    uncounted: u32,
    error: Option<&str>,
    now: UnixMicros,
) -> Result<()> {
    db.prepare_cached(
        "UPDATE jobs SET state = 'queued', run_at = ?2, due_at = ?2, attempts = attempts - ?3, \
         last_error = coalesce(?4, last_error), leased_by = NULL, lease_expires_at = NULL, updated_at = ?5 WHERE rid = ?1",
    )?
    .execute(params![rid, at.0, uncounted, error, now.0])?;
    Ok(())
}

pub(super) fn list(
    db: &Db,
    user: Option<&UserId>,
    state: Option<JobState>,
    limit: usize,
) -> Result<Vec<Job>> {
    let sql = format!(
        "SELECT {JOB} WHERE (?1 IS NULL OR u.id = ?1) AND (?2 IS NULL OR j.state = ?2) \
         ORDER BY j.created_at DESC, j.rid DESC LIMIT ?3"
    );
    let mut query = db.prepare_cached(&sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    rows::collect(
        query.query(params![user.map(UserId::as_str), state.map(JobState::as_str), limit])?,
        job_value,
    )
}

/// The job whose `column` has this value.
fn one(db: &Db, column: &str, value: &dyn rusqlite::ToSql) -> Result<Option<Job>> {
    let mut query = db.prepare_cached(&format!("SELECT {JOB} WHERE {column} = ?1"))?;
    let mut found = query.query([value])?;
    found.next()?.map(job_value).transpose()
}

pub(super) fn find(db: &Db, user: Option<&UserId>, id: &JobId) -> Result<Option<Job>> {
    let found = one(db, "j.id", &id.as_str())?;
    Ok(found.filter(|job| user.is_none_or(|user| *user == job.user)))
}

pub(super) fn retry(db: &Db, user: Option<&UserId>, id: &JobId, now: UnixMicros) -> Result<()> {
    find(db, user, id)?.ok_or_else(|| StoreError::NotFound(format!("job {id}")))?;
    let held = Held::find(db, id)?.ok_or_else(|| StoreError::NotFound(format!("job {id}")))?;
    if held.state != JobState::Failed {
        return Err(StoreError::Conflict(format!(
            "job {id} is {}; only a failed job is retried",
            held.state.as_str()
        )));
    }
    if held.revision != held.current_revision {
        return Err(StoreError::Conflict(format!("job {id} is of an older revision; retry the newest")));
    }
    revive(db, held.rid, held.conversation, now)
}

fn revive(db: &Db, rid: i64, conversation: i64, now: UnixMicros) -> Result<()> {
    db.prepare_cached(
        "UPDATE jobs SET state = 'queued', attempts = 0, epoch = epoch + 1, run_at = ?2, due_at = ?2, updated_at = ?2 \
         WHERE rid = ?1",
    )?
    .execute(params![rid, now.0])?;
    not_away(db, rid)?;
    db.prepare_cached(
        "UPDATE conversations SET status = 'processing', failure = NULL WHERE rid = ?1 AND status = 'failed'",
    )?
    .execute([conversation])?;
    Ok(())
}

pub(super) fn retry_failed(db: &Db, user: Option<&UserId>, now: UnixMicros, limit: usize) -> Result<usize> {
    let failed = {
        let mut query = db.prepare_cached(
            "SELECT j.rid, j.conversation FROM jobs j JOIN conversations c ON c.rid = j.conversation \
             JOIN users u ON u.rid = j.user WHERE j.state = 'failed' AND j.revision = c.revision \
             AND (?1 IS NULL OR u.id = ?1) ORDER BY j.created_at, j.rid LIMIT ?2",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        rows::collect(query.query(params![user.map(UserId::as_str), limit])?, |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })?
    };
    for (rid, conversation) in &failed {
        revive(db, *rid, *conversation, now)?;
    }
    Ok(failed.len())
}

pub(super) fn counts(db: &Db, now: UnixMicros) -> Result<JobCounts> {
    let mut counts = JobCounts::default();
    let waited = |since: Option<i64>| since.map_or(Duration::ZERO, |at| now.saturating_since(UnixMicros(at)));
    let mut jobs = db.prepare_cached(
        "SELECT state, count(*), min(run_at) FROM jobs WHERE state <> 'completed' GROUP BY state",
    )?;
    let mut found = jobs.query([])?;
    while let Some(row) = found.next()? {
        let number = rows::count(row.get(1)?);
        match rows::known(JobState::parse, &row.get::<_, String>(0)?, "job state")? {
            JobState::Queued => {
                counts.queued = number;
                counts.oldest_unclaimed = waited(row.get(2)?);
            }
            JobState::Leased => counts.leased = number,
            JobState::Failed => counts.failed = number,
            JobState::Completed => {}
        }
    }
    let (pending, oldest): (i64, Option<i64>) = db
        .prepare_cached("SELECT count(*), min(due_at) FROM effects WHERE state IN ('pending', 'leased')")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    counts.effects_pending = rows::count(pending);
    counts.oldest_effect = waited(oldest);
    let failed: i64 = db
        .prepare_cached("SELECT count(*) FROM effects WHERE state = 'failed'")?
        .query_row([], |row| row.get(0))?;
    counts.effects_failed = rows::count(failed);
    Ok(counts)
}
