//! Days: which are to be summarised, who does it, and what came of it.

use std::time::Duration;

use auricle_core::{Conversation, Epoch, ProcessId, Provenance, UnixMicros, UserId};
use rusqlite::{OptionalExtension, Row, params};

use super::db::Db;
use super::{effects, erasing, items, rows};
use crate::protect::Place;
use crate::store::{
    DayClaim, DayCompletion, DayOutcome, DayRecord, DayState, PlannedDay, Result, StoreError,
};

const DAY: &str = "d.date, d.zone, d.starts_at, d.ends_at, d.state, d.revision, d.summary, d.conversations, d.provider, \
     d.provider_version, d.made_at, d.last_error FROM days d JOIN users u ON u.rid = d.user";
/// What a day's summary rests on.
const OF_DAY: &str = "started_at >= ?2 AND started_at < ?3 AND status = 'completed' AND discarded IS NULL";

fn summary_of<'a>(date: &'a [&'a str]) -> Place<'a> {
    Place::new("days", "summary", date)
}

fn step_of<'a>(date: &'a [&'a str]) -> Place<'a> {
    Place::new("days", "step", date)
}

fn planned(row: &Row<'_>, at: usize) -> Result<PlannedDay> {
    Ok(PlannedDay {
        date: row.get(at)?,
        zone: row.get(at + 1)?,
        from: UnixMicros(row.get(at + 2)?),
        until: UnixMicros(row.get(at + 3)?),
    })
}

fn record(db: &Db, user: &UserId, row: &Row<'_>) -> Result<DayRecord> {
    let day = planned(row, 0)?;
    let summary = db.open_some(user.as_str(), summary_of(&[&day.date]), row.get(6)?)?;
    let made_by = row.get::<_, Option<String>>(8)?.zip(row.get::<_, Option<String>>(9)?);
    Ok(DayRecord {
        day,
        state: rows::known(DayState::parse, &row.get::<_, String>(4)?, "state")?,
        revision: row.get(5)?,
        summary,
        conversations: row.get(7)?,
        provenance: made_by.map(|(provider, version)| Provenance { provider, version }),
        made_at: row.get::<_, Option<i64>>(10)?.map(UnixMicros),
        last_error: row.get(11)?,
    })
}

pub(super) fn list(db: &Db, user: &UserId, limit: usize, offset: usize) -> Result<Vec<DayRecord>> {
    let mut query =
        db.prepare_cached(&format!("SELECT {DAY} WHERE u.id = ?1 ORDER BY d.date DESC LIMIT ?2 OFFSET ?3"))?;
    let (limit, offset) =
        (i64::try_from(limit).unwrap_or(i64::MAX), i64::try_from(offset).unwrap_or(i64::MAX));
    rows::collect(query.query(params![user.as_str(), limit, offset])?, |row| record(db, user, row))
}

pub(super) fn find(db: &Db, user: &UserId, date: &str) -> Result<Option<DayRecord>> {
    let mut query = db.prepare_cached(&format!("SELECT {DAY} WHERE u.id = ?1 AND d.date = ?2"))?;
    let mut found = query.query([user.as_str(), date])?;
    found.next()?.map(|row| record(db, user, row)).transpose()
}

/// Users who were heard since then, by key, with their time zones.
pub(super) fn users(
    db: &Db,
    since: UnixMicros,
    after: Option<&UserId>,
    limit: usize,
) -> Result<Vec<(UserId, Option<String>)>> {
    let after = after.map(|user| rows::user_rid(db, user)).transpose()?.flatten().unwrap_or(0);
    let mut query = db.prepare_cached(
        "SELECT u.id, u.time_zone FROM users u WHERE u.rid > ?1 AND u.deleting_since IS NULL AND EXISTS \
         (SELECT 1 FROM conversations c WHERE c.user = u.rid AND c.started_at >= ?2) ORDER BY u.rid LIMIT ?3",
    )?;
    let found = query.query(params![after, since.0, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    rows::collect(found, |row| Ok((row.get::<_, String>(0)?.into(), row.get(1)?)))
}

/// Those of `days` that are to be made: with records, not made since they were over, and with none to come, for which they are
/// waited for `patience` after their end.
pub(super) fn wanted(
    db: &Db,
    user: &UserId,
    days: Vec<PlannedDay>,
    patience: Duration,
    now: UnixMicros,
) -> Result<Vec<PlannedDay>> {
    let Some(rid) = rows::user_rid(db, user)? else { return Ok(Vec::new()) };
    let mut wanted = Vec::new();
    for day in days {
        let made: Option<(String, Option<i64>)> = db
            .prepare_cached("SELECT state, made_at FROM days WHERE user = ?1 AND date = ?2")?
            .query_row(params![rid, day.date], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let early = |at: Option<i64>| at.is_some_and(|at| at < day.until.0);
        if made.is_some_and(|(state, at)| state != DayState::Completed.as_str() || !early(at)) {
            continue;
        }
        let span = params![rid, day.from.0, day.until.0];
        let has = has_records(db, rid, &day)?;
        let to_come = now < day.until + patience
            && db
                .prepare_cached(
                    "SELECT 1 FROM conversations WHERE user = ?1 AND started_at >= ?2 AND started_at < ?3 \
                     AND status IN ('in_progress', 'processing')",
                )?
                .exists(span)?;
        if has && !to_come {
            wanted.push(day);
        }
    }
    Ok(wanted)
}

fn has_records(db: &Db, user: i64, day: &PlannedDay) -> Result<bool> {
    Ok(db
        .prepare_cached(&format!("SELECT 1 FROM conversations WHERE user = ?1 AND {OF_DAY}"))?
        .exists(params![user, day.from.0, day.until.0])?)
}

/// Queues those that are wanted still. Returns how many.
pub(super) fn plan(
    db: &Db,
    user: &UserId,
    days: Vec<PlannedDay>,
    patience: Duration,
    now: UnixMicros,
) -> Result<usize> {
    let Some(rid) = rows::user_rid(db, user)? else { return Ok(0) };
    if erasing::is_marked(db, rid)? {
        return Ok(0);
    }
    let wanted = wanted(db, user, days, patience, now)?;
    wanted.iter().try_for_each(|day| queue(db, rid, day, now))?;
    Ok(wanted.len())
}

/// Queues it, whatever was made of it before.
pub(super) fn ask(db: &Db, user: &UserId, day: &PlannedDay, now: UnixMicros) -> Result<DayRecord> {
    let missing = || StoreError::NotFound(format!("a conversation of {}", day.date));
    let rid = rows::user_rid(db, user)?.ok_or_else(missing)?;
    if erasing::is_marked(db, rid)? {
        return Err(StoreError::Conflict(format!("user {user} is being deleted")));
    }
    if !has_records(db, rid, day)? {
        return Err(missing());
    }
    queue(db, rid, day, now)?;
    find(db, user, &day.date)?.ok_or_else(missing)
}

/// What is being made is left alone; what waits is due now.
fn queue(db: &Db, user: i64, day: &PlannedDay, now: UnixMicros) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO days (user, date, zone, starts_at, ends_at, state, due_at) VALUES (?1, ?2, ?3, ?4, ?5, 'queued', ?6) \
         ON CONFLICT (user, date) DO UPDATE SET zone = excluded.zone, starts_at = excluded.starts_at, ends_at = excluded.ends_at, \
         revision = revision + (state <> 'queued'), step = iif(state = 'queued', step, NULL), state = 'queued', attempts = 0, \
         postponed = 0, away_since = NULL, last_error = NULL, due_at = excluded.due_at, epoch = epoch + 1 \
         WHERE state <> 'leased'",
    )?
    .execute(params![user, day.date, day.zone, day.from.0, day.until.0, now.0])?;
    Ok(())
}

/// Claims the one that has been due for longest.
pub(super) fn claim(
    db: &Db,
    process: &ProcessId,
    now: UnixMicros,
    lease: Duration,
) -> Result<Option<DayClaim>> {
    let due: Option<i64> = db
        .prepare_cached(
            "SELECT rid FROM days WHERE state IN ('queued', 'leased') AND due_at <= ?1 ORDER BY due_at, rid LIMIT 1",
        )?
        .query_row([now.0], |row| row.get(0))
        .optional()?;
    let Some(rid) = due else { return Ok(None) };
    db.prepare_cached(
        "UPDATE days SET state = 'leased', due_at = ?2, leased_by = ?3, epoch = epoch + 1, attempts = attempts + 1 \
         WHERE rid = ?1",
    )?
    .execute(params![rid, (now + lease).0, process.as_str()])?;
    let mut query = db.prepare_cached(
        "SELECT u.id, d.date, d.zone, d.starts_at, d.ends_at, d.revision, d.epoch, d.attempts, d.postponed, d.away_since, \
         d.step FROM days d JOIN users u ON u.rid = d.user WHERE d.rid = ?1",
    )?;
    let mut found = query.query([rid])?;
    found
        .next()?
        .map(|row| {
            let (user, day): (String, _) = (row.get(0)?, planned(row, 1)?);
            // A step that cannot be opened is one that was not recorded.
            let step = db.open_some(&user, step_of(&[&day.date]), row.get(10)?).ok().flatten();
            Ok(DayClaim {
                user: user.into(),
                day,
                revision: row.get(5)?,
                epoch: Epoch(rows::count(row.get(6)?)),
                attempts: row.get(7)?,
                postponed: row.get(8)?,
                away_since: row.get::<_, Option<i64>>(9)?.map(UnixMicros),
                step,
            })
        })
        .transpose()
}

/// Whether anything is due: a look that writes nothing.
pub(super) fn is_due(db: &Db, now: UnixMicros) -> Result<bool> {
    Ok(db
        .prepare_cached("SELECT 1 FROM days WHERE state IN ('queued', 'leased') AND due_at <= ?1")?
        .exists([now.0])?)
}

/// The day's key while the claim holds.
fn held(db: &Db, claim: &DayClaim) -> Result<i64> {
    let found: Option<(i64, i64, String)> = db
        .prepare_cached(
            "SELECT d.rid, d.epoch, d.state FROM days d JOIN users u ON u.rid = d.user WHERE u.id = ?1 AND d.date = ?2",
        )?
        .query_row([claim.user.as_str(), &claim.day.date], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let date = &claim.day.date;
    let (rid, epoch, state) = found.ok_or_else(|| StoreError::NotFound(format!("day {date}")))?;
    if rows::count(epoch) != claim.epoch.0 || state != DayState::Leased.as_str() {
        return Err(StoreError::Fenced(format!(
            "day {date} is somebody else's (epoch {epoch}, yours {})",
            claim.epoch
        )));
    }
    Ok(rid)
}

pub(super) fn renew(db: &Db, claim: &DayClaim, until: UnixMicros) -> Result<()> {
    let rid = held(db, claim)?;
    db.prepare_cached("UPDATE days SET due_at = ?2 WHERE rid = ?1")?.execute(params![rid, until.0])?;
    Ok(())
}

pub(super) fn record_step(db: &Db, claim: &DayClaim, step: &str) -> Result<()> {
    let rid = held(db, claim)?;
    let step = db.seal(claim.user.as_str(), step_of(&[&claim.day.date]), step);
    db.prepare_cached("UPDATE days SET step = ?2 WHERE rid = ?1")?.execute(params![rid, step])?;
    Ok(())
}

pub(super) fn complete(db: &Db, claim: &DayClaim, done: &DayCompletion) -> Result<()> {
    let rid = held(db, claim)?;
    let (user, date) = (&claim.user, &claim.day.date);
    let summary = db.seal(user.as_str(), summary_of(&[date]), &done.summary);
    db.prepare_cached(
        "UPDATE days SET state = 'completed', summary = ?2, conversations = ?3, provider = ?4, provider_version = ?5, \
         made_at = ?6, step = NULL, attempts = 0, postponed = 0, away_since = NULL, last_error = NULL, leased_by = NULL \
         WHERE rid = ?1",
    )?
    .execute(params![
        rid,
        summary,
        done.conversations,
        done.provenance.provider,
        done.provenance.version,
        done.now.0
    ])?;
    // Of a day that is not over a summary is made again, and told then.
    if done.now >= claim.day.until {
        effects::record_day(db, user, date, &done.payload, done.now)?;
    }
    Ok(())
}

pub(super) fn remove(db: &Db, claim: &DayClaim) -> Result<()> {
    let rid = held(db, claim)?;
    db.prepare_cached("DELETE FROM days WHERE rid = ?1")?.execute([rid])?;
    Ok(())
}

pub(super) fn end(db: &Db, claim: &DayClaim, outcome: &DayOutcome, now: UnixMicros) -> Result<()> {
    let rid = held(db, claim)?;
    let (state, at, uncounted, postponed, error) = match outcome {
        DayOutcome::Retry { at, error } => (DayState::Queued, *at, 0, 0, Some(error)),
        DayOutcome::Postponed { at, error } => (DayState::Queued, *at, 1, claim.postponed + 1, Some(error)),
        DayOutcome::Released => (DayState::Queued, now, 1, claim.postponed, None),
        DayOutcome::Failed { error } => (DayState::Failed, now, 0, 0, Some(error)),
    };
    let away_since = match outcome {
        DayOutcome::Postponed { .. } => Some(claim.away_since.unwrap_or(now).0),
        DayOutcome::Released => claim.away_since.map(|at| at.0),
        _ => None,
    };
    db.prepare_cached(
        "UPDATE days SET state = ?2, due_at = ?3, attempts = attempts - ?4, postponed = ?5, away_since = ?6, \
         last_error = coalesce(?7, last_error), leased_by = NULL WHERE rid = ?1",
    )?
    .execute(params![rid, state.as_str(), at.0, uncounted, postponed, away_since, error])?;
    Ok(())
}

/// Records of conversations that began then, in that order, without their transcripts.
pub(super) fn conversations(
    db: &Db,
    user: &UserId,
    from: UnixMicros,
    until: UnixMicros,
    limit: usize,
) -> Result<Vec<Conversation>> {
    let sql = format!(
        "SELECT {} FROM conversations c JOIN users u ON u.rid = c.user WHERE u.id = ?1 AND {OF_DAY} \
         ORDER BY c.started_at, c.rid LIMIT ?4",
        rows::CONVERSATION
    );
    let mut query = db.prepare_cached(&sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let found = query.query(params![user.as_str(), from.0, until.0, limit])?;
    let mut found = rows::collect(found, |row| rows::conversation(db, row))?;
    items::attach(db, &mut found)?;
    Ok(found.into_iter().map(|(_, conversation)| conversation).collect())
}
