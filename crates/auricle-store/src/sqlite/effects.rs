//! Effects: recorded with a job's completion, delivered from here at least once, each by one deliverer at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use auricle_core::{
    ConversationId, EffectId, EffectKey, EffectState, EffectSubject, Epoch, ProcessId, Revision, TargetId,
    TargetKind, TargetState, Trigger, UnixMicros, UserId,
};
use rusqlite::{OptionalExtension, Row, params};

use super::db::Db;
use super::{rows, targets};
use crate::protect::Place;
use crate::store::{Effect, EffectOutcome, JobLease, NewEffect, Result, StoreError};

/// Due effects that a claim looks at before it goes through the lanes one by one.
const LOOK_MAX: i64 = 512;
/// Lanes that one claim goes through; the next one goes on after them.
const LANES_MAX: usize = 1_024;
/// The time of what waits for its paused target.
const HELD: UnixMicros = UnixMicros(i64::MAX);

const EFFECT: &str = "e.id, c.id, e.revision, e.name, u.id, e.payload, e.state, e.attempts, e.run_at, e.last_error, e.epoch, \
     e.postponed, e.away_since, e.subject, t.id, e.created_at, e.ended_at \
     FROM effects e LEFT JOIN conversations c ON c.rid = e.conversation JOIN users u ON u.rid = e.user \
     LEFT JOIN targets t ON t.rid = e.target";

fn effect(db: &Db, row: &Row<'_>) -> Result<Effect> {
    let (id, user): (String, String) = (row.get(0)?, row.get(4)?);
    let payload = db.open(&user, Place::new("effects", "payload", &[&id]), row.get(5)?)?;
    let revision = Revision(row.get(2)?);
    let subject = match (row.get::<_, Option<String>>(1)?, row.get(13)?) {
        (Some(conversation), _) => {
            EffectSubject::Conversation { conversation: conversation.into(), revision }
        }
        (None, Some(subject)) => EffectSubject::Other(subject),
        (None, None) => return Err(StoreError::Damaged("an effect about nothing".into())),
    };
    Ok(Effect {
        id: id.into(),
        key: EffectKey { subject, name: row.get(3)? },
        user: user.into(),
        target: row.get::<_, Option<String>>(14)?.map(Into::into),
        payload,
        state: rows::known(EffectState::parse, &row.get::<_, String>(6)?, "effect state")?,
        attempts: row.get(7)?,
        run_at: UnixMicros(row.get(8)?),
        last_error: row.get(9)?,
        epoch: Epoch(rows::count(row.get(10)?)),
        postponed: row.get(11)?,
        away_since: row.get::<_, Option<i64>>(12)?.map(UnixMicros),
        created_at: UnixMicros(row.get(15)?),
        ended_at: row.get::<_, Option<i64>>(16)?.map(UnixMicros),
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
        "INSERT INTO effects (id, conversation, user, lane, revision, name, payload, state, run_at, due_at, created_at) \
         SELECT ?1, rid, user, ?4, ?3, ?4, ?5, 'pending', ?6, ?6, ?6 FROM conversations WHERE rid = ?2 \
         ON CONFLICT DO NOTHING",
    )?;
    for each in new {
        let payload = db.seal(user, Place::new("effects", "payload", &[each.id.as_str()]), &each.payload);
        insert.execute(params![each.id.as_str(), conversation, revision, each.name, payload, now.0])?;
    }
    Ok(())
}

/// What one row needs to be told to a target.
struct Told {
    rid: i64,
    id: TargetId,
    host: String,
    state: TargetState,
}

/// The targets of the user `rid` that are not off and hear of `trigger`, apps only if `apps`.
fn told(db: &Db, user: i64, trigger: Trigger, apps: bool) -> Result<Vec<Told>> {
    let mut query = db.prepare_cached(
        "SELECT rid, id, host, state FROM targets WHERE user = ?1 AND state <> 'off' \
         AND instr(triggers, ' ' || ?2 || ' ') > 0 AND (?3 OR kind <> ?4) ORDER BY rid",
    )?;
    rows::collect(query.query(params![user, trigger.as_str(), apps, TargetKind::App.as_str()])?, |row| {
        Ok(Told {
            rid: row.get(0)?,
            id: row.get::<_, String>(1)?.into(),
            host: row.get(2)?,
            state: rows::known(TargetState::parse, &row.get::<_, String>(3)?, "target state")?,
        })
    })
}

impl Told {
    fn due_at(&self, now: UnixMicros) -> UnixMicros {
        if self.state == TargetState::Paused { HELD } else { now }
    }
}

/// One effect for each of the user's targets, with the first completion of a conversation.
pub(super) fn record_targets(
    db: &Db,
    lease: &JobLease,
    conversation: i64,
    discarded: bool,
    now: UnixMicros,
) -> Result<()> {
    let revision = lease.revision;
    let user: i64 = db
        .prepare_cached("SELECT user FROM conversations WHERE rid = ?1")?
        .query_row([conversation], |row| row.get(0))?;
    let told = told(db, user, Trigger::Conversation, !discarded)?;
    if told.is_empty() {
        return Ok(());
    }
    let before: bool = db
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM jobs WHERE conversation = ?1 AND revision < ?2 AND state = 'completed')",
        )?
        .query_row(params![conversation, revision.0], |row| row.get(0))?;
    if before {
        return Ok(());
    }
    let (whose, _) = rows::whose(db, conversation)?;
    let mut insert = db.prepare_cached(
        "INSERT INTO effects (id, conversation, user, target, lane, revision, name, payload, state, run_at, due_at, \
         created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?10, 'pending', ?8, ?9, ?8) ON CONFLICT DO NOTHING",
    )?;
    for each in told {
        let key = EffectKey::of_conversation(lease.conversation.clone(), revision, told_name(&each.id));
        let id = named(&key.idempotency_key());
        let payload = db.seal(&whose, Place::new("effects", "payload", &[&id]), "{}");
        insert.execute(params![
            id,
            conversation,
            user,
            each.rid,
            each.host,
            revision.0,
            key.name,
            now.0,
            each.due_at(now).0,
            payload
        ])?;
    }
    Ok(())
}

pub(super) fn record_day(db: &Db, user: &UserId, day: &str, payload: &str, now: UnixMicros) -> Result<usize> {
    let Some(rid) = rows::user_rid(db, user)? else { return Ok(0) };
    let mut recorded = 0;
    for each in told(db, rid, Trigger::DaySummary, false)? {
        let subject = format!("day:{day}");
        let new =
            Other { user: (rid, user), target: Some(each.rid), lane: &each.host, subject: &subject, payload };
        recorded += other(db, &new, &told_name(&each.id), each.due_at(now), now)?;
    }
    Ok(recorded)
}

/// An effect that is about no conversation.
pub(super) struct Other<'a> {
    pub(super) user: (i64, &'a UserId),
    pub(super) target: Option<i64>,
    pub(super) lane: &'a str,
    pub(super) subject: &'a str,
    pub(super) payload: &'a str,
}

/// Records it, unless its key is there already. Returns how many were.
pub(super) fn other(
    db: &Db,
    new: &Other<'_>,
    name: &str,
    due_at: UnixMicros,
    now: UnixMicros,
) -> Result<usize> {
    // Two users may have a day of the same name.
    let (user, whose) = new.user;
    let id = named(&format!("{user}:{}:{name}", new.subject));
    let payload = db.seal(whose.as_str(), Place::new("effects", "payload", &[&id]), new.payload);
    Ok(db
        .prepare_cached(
            "INSERT INTO effects (id, subject, user, target, lane, revision, name, payload, state, run_at, due_at, \
             created_at) VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7, 'pending', ?8, ?9, ?8) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            id,
            new.subject,
            user,
            new.target,
            new.lane,
            name,
            payload,
            now.0,
            due_at.0
        ])?)
}

fn told_name(target: &TargetId) -> String {
    format!("target:{target}")
}

/// An id that follows from what it names, so that a repetition makes none.
pub(super) fn named(name: &str) -> String {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
}

/// What a claim may take.
pub(super) struct Claim {
    pub(super) process: ProcessId,
    pub(super) now: UnixMicros,
    pub(super) lease: Duration,
    pub(super) limit: usize,
    pub(super) kinds: Vec<String>,
    pub(super) attempts_max: u32,
    pub(super) per_lane_max: usize,
    /// The lane after which a claim of a long queue goes on.
    pub(super) lane: Arc<Mutex<String>>,
}

/// What a claim has taken so far.
struct Taking<'a> {
    db: &'a Db,
    claim: &'a Claim,
    /// How many more each lane may have; counted when it is first met.
    rooms: HashMap<String, usize>,
    taken: Vec<i64>,
}

impl Taking<'_> {
    fn is_full(&self) -> bool {
        self.taken.len() >= self.claim.limit
    }

    fn room(&mut self, lane: &str) -> Result<usize> {
        if let Some(room) = self.rooms.get(lane) {
            return Ok(*room);
        }
        let held: i64 = self
            .db
            .prepare_cached(
                "SELECT count(*) FROM effects WHERE lane = ?1 AND state = 'leased' AND due_at > ?2",
            )?
            .query_row(params![lane, self.claim.now.0], |row| row.get(0))?;
        let room = self.claim.per_lane_max.saturating_sub(usize::try_from(held).unwrap_or(usize::MAX));
        self.rooms.insert(lane.to_owned(), room);
        Ok(room)
    }

    /// Takes the effect if its lane has room and its target is on; what its target does not want now is put aside.
    fn offer(&mut self, rid: i64, lane: &str, state: Option<&str>) -> Result<()> {
        match state.map(|state| rows::known(TargetState::parse, state, "target state")).transpose()? {
            None | Some(TargetState::On) => {}
            Some(TargetState::Paused) => return hold(self.db, rid),
            Some(TargetState::Off) => return fail_off(self.db, rid, self.claim.now),
        }
        let room = self.room(lane)?;
        if room > 0 && !self.is_full() && !self.taken.contains(&rid) {
            self.rooms.insert(lane.to_owned(), room - 1);
            self.taken.push(rid);
        }
        Ok(())
    }
}

/// It waits until its target is on again.
fn hold(db: &Db, rid: i64) -> Result<()> {
    db.prepare_cached(
        "UPDATE effects SET state = 'pending', due_at = ?2, leased_by = NULL, epoch = epoch + 1 WHERE rid = ?1",
    )?
    .execute(params![rid, HELD.0])?;
    Ok(())
}

fn fail_off(db: &Db, rid: i64, now: UnixMicros) -> Result<()> {
    db.prepare_cached(
        "UPDATE effects SET state = 'failed', leased_by = NULL, epoch = epoch + 1, ended_at = ?2, \
         last_error = 'its target is off' WHERE rid = ?1",
    )?
    .execute(params![rid, now.0])?;
    Ok(())
}

/// What waits for a target that is off fails, or what waits for one that is on again is due.
pub(super) fn follow(db: &Db, target: i64, state: TargetState, now: UnixMicros) -> Result<()> {
    match state {
        TargetState::On => db
            .prepare_cached(
                "UPDATE effects SET due_at = max(run_at, ?2) WHERE target = ?1 AND state = 'pending' AND due_at = ?3",
            )?
            .execute(params![target, now.0, HELD.0])?,
        TargetState::Paused => db
            .prepare_cached("UPDATE effects SET due_at = ?2 WHERE target = ?1 AND state = 'pending'")?
            .execute(params![target, HELD.0])?,
        TargetState::Off => db
            .prepare_cached(
                "UPDATE effects SET state = 'failed', ended_at = ?2, last_error = 'its target is off' \
                 WHERE target = ?1 AND state = 'pending'",
            )?
            .execute(params![target, now.0])?,
    };
    Ok(())
}

pub(super) fn claim(db: &Db, claim: &Claim) -> Result<Vec<Effect>> {
    let now = claim.now;
    let kinds = serde_json::Value::from(claim.kinds.as_slice()).to_string();
    // Deliverers that died with it, again and again: it must end some time too.
    db.prepare_cached(
        "UPDATE effects SET state = 'failed', leased_by = NULL, ended_at = ?1, \
         last_error = coalesce(last_error, 'its deliverer ended without a word') \
         WHERE state IN ('pending', 'leased') AND due_at <= ?1 AND attempts >= ?2 \
         AND substr(name, 1, instr(name || ':', ':') - 1) IN (SELECT value FROM json_each(?3))",
    )?
    .execute(params![now.0, claim.attempts_max, kinds])?;
    let mut due = db.prepare_cached(
        "SELECT e.rid, e.lane, t.state FROM effects e LEFT JOIN targets t ON t.rid = e.target \
         WHERE e.state IN ('pending', 'leased') AND e.due_at <= ?1 \
         AND substr(e.name, 1, instr(e.name || ':', ':') - 1) IN (SELECT value FROM json_each(?3)) \
         ORDER BY e.due_at, e.rid LIMIT ?2",
    )?;
    let found = rows::collect(due.query(params![now.0, LOOK_MAX, kinds])?, offered)?;
    let mut taking = Taking { db, claim, rooms: HashMap::new(), taken: Vec::new() };
    for (rid, lane, state) in &found {
        taking.offer(*rid, lane, state.as_deref())?;
    }
    if !taking.is_full() && found.len() >= usize::try_from(LOOK_MAX).unwrap_or(0) {
        // A long queue of lanes without room must not hide those behind it.
        take_from_lanes(&mut taking, &kinds)?;
    }
    let mut take = db.prepare_cached(
        "UPDATE effects SET state = 'leased', epoch = epoch + 1, attempts = attempts + 1, leased_by = ?2, due_at = ?3 \
         WHERE rid = ?1",
    )?;
    let mut claimed = Vec::with_capacity(taking.taken.len());
    let mut read = db.prepare_cached(&format!("SELECT {EFFECT} WHERE e.rid = ?1"))?;
    for rid in taking.taken {
        take.execute(params![rid, claim.process.as_str(), (now + claim.lease).0])?;
        let mut found = read.query([rid])?;
        if let Some(row) = found.next()? {
            claimed.push(effect(db, row)?);
        }
    }
    Ok(claimed)
}

fn offered(row: &Row<'_>) -> Result<(i64, String, Option<String>)> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

fn take_from_lanes(taking: &mut Taking<'_>, kinds: &str) -> Result<()> {
    let (db, now) = (taking.db, taking.claim.now);
    let mut next = db
        .prepare_cached("SELECT min(lane) FROM effects WHERE state IN ('pending', 'leased') AND lane > ?1")?;
    let mut due = db.prepare_cached(
        "SELECT e.rid, e.lane, t.state FROM effects e LEFT JOIN targets t ON t.rid = e.target \
         WHERE e.state IN ('pending', 'leased') AND e.lane = ?1 AND e.due_at <= ?2 \
         AND substr(e.name, 1, instr(e.name || ':', ':') - 1) IN (SELECT value FROM json_each(?4)) \
         ORDER BY e.due_at, e.rid LIMIT ?3",
    )?;
    let mut after = taking.claim.lane.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..LANES_MAX {
        let lane: Option<String> = next.query_row([after.as_str()], |row| row.get(0))?;
        let Some(lane) = lane else {
            after.clear();
            break;
        };
        let room = taking.room(&lane)?;
        if room > 0 {
            // Those at its front may be taken already.
            let look = i64::try_from(taking.claim.per_lane_max).unwrap_or(i64::MAX);
            for (rid, lane, state) in rows::collect(due.query(params![lane, now.0, look, kinds])?, offered)? {
                taking.offer(rid, &lane, state.as_deref())?;
            }
        }
        *after = lane;
        if taking.is_full() {
            break;
        }
    }
    Ok(())
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
    let ended_at = (state != EffectState::Pending).then_some(now.0);
    db.prepare_cached(
        "UPDATE effects SET state = ?2, run_at = coalesce(?3, run_at), due_at = coalesce(?3, due_at), \
         last_error = coalesce(?4, last_error), ended_at = ?5, leased_by = NULL WHERE id = ?1",
    )?
    .execute(params![id.as_str(), state.as_str(), at, error, ended_at])?;
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
             postponed = 0, away_since = NULL, ended_at = NULL \
             WHERE rid IN (SELECT e.rid FROM effects e JOIN users u ON u.rid = e.user \
             LEFT JOIN targets t ON t.rid = e.target WHERE e.state = 'failed' AND (?1 IS NULL OR u.id = ?1) \
             AND (t.state IS NULL OR t.state <> 'off') ORDER BY e.rid LIMIT ?3)",
        )?
        .execute(params![user.map(UserId::as_str), now.0, limit])?;
    Ok(revived)
}

/// Those of one target that have failed, the oldest first.
pub(super) fn retry_failed_of(db: &Db, target: i64, now: UnixMicros, limit: usize) -> Result<usize> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut failed = db.prepare_cached(
        "SELECT rid FROM effects WHERE target = ?1 AND state = 'failed' ORDER BY rid LIMIT ?2",
    )?;
    let failed = rows::collect(failed.query(params![target, limit])?, |row| Ok(row.get::<_, i64>(0)?))?;
    for rid in &failed {
        again(db, *rid, now)?;
    }
    Ok(failed.len())
}

/// One of a target, whatever it ended as.
pub(super) fn again_one(db: &Db, target: i64, id: &EffectId, now: UnixMicros) -> Result<()> {
    let found: Option<(i64, String)> = db
        .prepare_cached("SELECT rid, state FROM effects WHERE id = ?1 AND target = ?2")?
        .query_row(params![id.as_str(), target], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (rid, state) = found.ok_or_else(|| StoreError::NotFound(format!("effect {id}")))?;
    if state == EffectState::Leased.as_str() {
        return Err(StoreError::Conflict(format!("effect {id} is being delivered")));
    }
    again(db, rid, now)
}

fn again(db: &Db, rid: i64, now: UnixMicros) -> Result<()> {
    db.prepare_cached(
        "UPDATE effects SET state = 'pending', attempts = 0, epoch = epoch + 1, run_at = ?2, due_at = ?2, \
         postponed = 0, away_since = NULL, ended_at = NULL WHERE rid = ?1",
    )?
    .execute(params![rid, now.0])?;
    Ok(())
}

/// What waits for a target goes to its host.
pub(super) fn move_lane(db: &Db, target: i64, host: &str) -> Result<()> {
    db.prepare_cached(
        "UPDATE effects SET lane = ?2 WHERE target = ?1 AND state IN ('pending', 'leased', 'failed')",
    )?
    .execute(params![target, host])?;
    Ok(())
}

pub(super) fn of_target(db: &Db, user: &UserId, id: &TargetId, limit: usize) -> Result<Vec<Effect>> {
    let target = targets::rid(db, user, id)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut query =
        db.prepare_cached(&format!("SELECT {EFFECT} WHERE e.target = ?1 ORDER BY e.rid DESC LIMIT ?2"))?;
    rows::collect(query.query(params![target, limit])?, |row| effect(db, row))
}

pub(super) fn list(db: &Db, conversation: &ConversationId) -> Result<Vec<Effect>> {
    let mut query = db.prepare_cached(&format!("SELECT {EFFECT} WHERE c.id = ?1 ORDER BY e.rid"))?;
    rows::collect(query.query([conversation.as_str()])?, |row| effect(db, row))
}
