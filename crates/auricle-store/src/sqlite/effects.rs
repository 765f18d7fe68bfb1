//! Effects: recorded with a job's completion, delivered from here at least once, each by one deliverer at a time.

use std::time::Duration;

use auricle_core::{
    ConversationId, EffectId, EffectKey, EffectState, Epoch, ProcessId, Revision, UnixMicros, UserId,
};
use rusqlite::{OptionalExtension, Row, params};

use super::db::Db;
use super::rows;
use crate::protect::Place;
use crate::store::{Effect, EffectOutcome, NewEffect, Result, StoreError};

const EFFECT: &str = "e.id, c.id, e.revision, e.name, u.id, e.payload, e.state, e.attempts, e.run_at, e.last_error, e.epoch, \
     e.postponed, e.away_since \
     FROM effects e JOIN conversations c ON c.rid = e.conversation JOIN users u ON u.rid = e.user";

fn effect(db: &Db, row: &Row<'_>) -> Result<Effect> {
    let (id, user): (String, String) = (row.get(0)?, row.get(4)?);
    let payload = db.open(&user, Place::new("effects", "payload", &[&id]), row.get(5)?)?;
    Ok(Effect {
        id: id.into(),
        key: EffectKey {
            conversation: row.get::<_, String>(1)?.into(),
            revision: Revision(row.get(2)?),
            name: row.get(3)?,
        },
        user: user.into(),
        payload,
        state: rows::known(EffectState::parse, &row.get::<_, String>(6)?, "effect state")?,
        attempts: row.get(7)?,
        run_at: UnixMicros(row.get(8)?),
        last_error: row.get(9)?,
        epoch: Epoch(rows::count(row.get(10)?)),
        postponed: row.get(11)?,
        away_since: row.get::<_, Option<i64>>(12)?.map(UnixMicros),
    })
}

/// Records a completion's effects. A key that is there already stays as it is.
pub(super) fn record(
    db: &Db,
    (conversation, user): (i64, &str),
    revision: u32,
    new: &[NewEffect],
    now: UnixMicros,
) -> Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO effects (id, conversation, user, revision, name, payload, state, run_at, due_at) \
         SELECT ?1, rid, user, ?3, ?4, ?5, 'pending', ?6, ?6 FROM conversations WHERE rid = ?2 \
         ON CONFLICT (conversation, revision, name) DO NOTHING",
    )?;
    for each in new {
        let payload = db.seal(user, Place::new("effects", "payload", &[each.id.as_str()]), &each.payload);
        insert.execute(params![each.id.as_str(), conversation, revision, each.name, payload, now.0])?;
    }
    Ok(())
}

pub(super) fn claim(
    db: &Db,
    process: &ProcessId,
    now: UnixMicros,
    lease: Duration,
    limit: usize,
    kinds: &[String],
    attempts_max: u32,
) -> Result<Vec<Effect>> {
    let kinds = serde_json::Value::from(kinds).to_string();
    // Deliverers that died with it, again and again: it must end some time too.
    db.prepare_cached(
        "UPDATE effects SET state = 'failed', leased_by = NULL, \
         last_error = coalesce(last_error, 'its deliverer ended without a word') \
         WHERE state IN ('pending', 'leased') AND due_at <= ?1 AND attempts >= ?2 \
         AND substr(name, 1, instr(name || ':', ':') - 1) IN (SELECT value FROM json_each(?3))",
    )?
    .execute(params![now.0, attempts_max, kinds])?;
    let mut due = db.prepare_cached(
        "SELECT rid FROM effects WHERE state IN ('pending', 'leased') AND due_at <= ?1 \
         AND substr(name, 1, instr(name || ':', ':') - 1) IN (SELECT value FROM json_each(?3)) \
         ORDER BY due_at, rid LIMIT ?2",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rids = rows::collect(due.query(params![now.0, limit, kinds])?, |row| Ok(row.get::<_, i64>(0)?))?;
    let mut take = db.prepare_cached(
        "UPDATE effects SET state = 'leased', epoch = epoch + 1, attempts = attempts + 1, leased_by = ?2, due_at = ?3 \
         WHERE rid = ?1",
    )?;
    let mut claimed = Vec::with_capacity(rids.len());
    let mut read = db.prepare_cached(&format!("SELECT {EFFECT} WHERE e.rid = ?1"))?;
    for rid in rids {
        take.execute(params![rid, process.as_str(), (now + lease).0])?;
        let mut found = read.query([rid])?;
        if let Some(row) = found.next()? {
            claimed.push(effect(db, row)?);
        }
    }
    Ok(claimed)
}

pub(super) fn end(
    db: &Db,
    id: &EffectId,
    epoch: Epoch,
    outcome: &EffectOutcome,
    now: UnixMicros,
) -> Result<()> {
    let (state, at, error) = match outcome {
        EffectOutcome::Delivered => (EffectState::Delivered, None, None),
        EffectOutcome::Skipped => (EffectState::Skipped, None, None),
        EffectOutcome::Retry { at, error } | EffectOutcome::Postponed { at, error } => {
            (EffectState::Pending, Some(at.0), Some(error))
        }
        EffectOutcome::Failed { error } => (EffectState::Failed, None, Some(error)),
    };
    let found: Option<(String, i64)> = db
        .prepare_cached("SELECT state, epoch FROM effects WHERE id = ?1")?
        .query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (stored, stored_epoch) = found.ok_or_else(|| StoreError::NotFound(format!("effect {id}")))?;
    if rows::count(stored_epoch) == epoch.0 && stored == state.as_str() {
        return Ok(());
    }
    if rows::count(stored_epoch) != epoch.0 || stored != EffectState::Leased.as_str() {
        return Err(StoreError::Fenced(format!(
            "effect {id} is {stored} at epoch {stored_epoch}, yours {epoch}"
        )));
    }
    db.prepare_cached(
        "UPDATE effects SET state = ?2, run_at = coalesce(?3, run_at), due_at = coalesce(?3, due_at), \
         last_error = coalesce(?4, last_error), leased_by = NULL WHERE id = ?1",
    )?
    .execute(params![id.as_str(), state.as_str(), at, error])?;
    match outcome {
        EffectOutcome::Postponed { .. } => {
            db.prepare_cached(
                "UPDATE effects SET attempts = attempts - 1, postponed = postponed + 1, \
                 away_since = coalesce(away_since, ?2) WHERE id = ?1",
            )?
            .execute(params![id.as_str(), now.0])?;
        }
        EffectOutcome::Retry { .. } => {
            db.prepare_cached("UPDATE effects SET postponed = 0, away_since = NULL WHERE id = ?1")?
                .execute([id.as_str()])?;
        }
        EffectOutcome::Delivered | EffectOutcome::Skipped | EffectOutcome::Failed { .. } => {}
    }
    Ok(())
}

pub(super) fn retry_failed(db: &Db, user: Option<&UserId>, now: UnixMicros, limit: usize) -> Result<usize> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let revived = db
        .prepare_cached(
            "UPDATE effects SET state = 'pending', attempts = 0, epoch = epoch + 1, run_at = ?2, due_at = ?2, \
             postponed = 0, away_since = NULL WHERE rid IN (SELECT e.rid FROM effects e JOIN users u ON u.rid = e.user \
             WHERE e.state = 'failed' AND (?1 IS NULL OR u.id = ?1) ORDER BY e.rid LIMIT ?3)",
        )?
        .execute(params![user.map(UserId::as_str), now.0, limit])?;
    Ok(revived)
}

pub(super) fn list(db: &Db, conversation: &ConversationId) -> Result<Vec<Effect>> {
    let mut query = db.prepare_cached(&format!("SELECT {EFFECT} WHERE c.id = ?1 ORDER BY e.rid"))?;
    rows::collect(query.query([conversation.as_str()])?, |row| effect(db, row))
}
