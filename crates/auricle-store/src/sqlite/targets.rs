//! Targets: whom a user's conversations are told to, and how that goes.
//!
//! Invariant: a change of settings raises its user's version; a delivery does not.

use std::borrow::Cow;

use auricle_core::target::{Health, Verdict};
use auricle_core::{EffectId, TargetId, TargetKind, TargetState, Trigger, UnixMicros, UserId};
use rusqlite::{OptionalExtension, Row, params};

use super::db::Db;
use super::{SqliteOptions, accounts, effects, messages, rows};
use crate::protect::Place;
use crate::store::{
    DeliveryNote, NewMessage, NewTarget, Recipient, Result, Sensitive, StoreError, Target, TargetSettings,
};

const SETTINGS: &str = "t.id, u.id, t.kind, t.name, t.triggers, t.url, t.host, t.audio_secs, t.state";

/// What may hold a credential of its user's: the address and the secret.
fn sealed<'t>(db: &Db, user: &UserId, id: &TargetId, column: &str, text: &'t Sensitive) -> Cow<'t, str> {
    db.seal(user.as_str(), Place::new("targets", column, &[id.as_str()]), text.expose())
}

fn opened(db: &Db, user: &UserId, id: &TargetId, column: &str, stored: String) -> Result<Sensitive> {
    db.open(user.as_str(), Place::new("targets", column, &[id.as_str()]), stored).map(Sensitive::new)
}

/// The columns of `SETTINGS`.
type Head = (TargetId, UserId, TargetKind, TargetSettings, TargetState);

fn head(db: &Db, row: &Row<'_>) -> Result<Head> {
    let (id, user) = (TargetId::from(row.get::<_, String>(0)?), UserId::from(row.get::<_, String>(1)?));
    let triggers: String = row.get(4)?;
    let triggers: Result<_> =
        triggers.split_whitespace().map(|name| rows::known(Trigger::parse, name, "trigger")).collect();
    let settings = TargetSettings {
        name: row.get(3)?,
        triggers: triggers?,
        url: opened(db, &user, &id, "url", row.get(5)?)?,
        host: row.get(6)?,
        audio_secs: row.get(7)?,
    };
    let state = rows::known(TargetState::parse, &row.get::<_, String>(8)?, "target state")?;
    let kind = rows::known(TargetKind::parse, &row.get::<_, String>(2)?, "target kind")?;
    Ok((id, user, kind, settings, state))
}

fn trigger_text(triggers: &[Trigger]) -> String {
    let names: Vec<_> = triggers.iter().map(|trigger| trigger.as_str()).collect();
    format!(" {} ", names.join(" "))
}

/// The key of one of the user's targets.
pub(super) fn rid(db: &Db, user: &UserId, id: &TargetId) -> Result<i64> {
    let found = db
        .prepare_cached(
            "SELECT t.rid FROM targets t JOIN users u ON u.rid = t.user WHERE t.id = ?1 AND u.id = ?2",
        )?
        .query_row([id.as_str(), user.as_str()], |row| row.get(0))
        .optional()?;
    found.ok_or_else(|| StoreError::NotFound(format!("target {id} of user {user}")))
}

/// Live sessions of this user learn of a change.
fn changed_for(db: &Db, user: &UserId) -> Result<()> {
    db.prepare_cached(
        "UPDATE users SET targets_version = (SELECT coalesce(max(targets_version), 0) + 1 FROM users \
         WHERE targets_version > 0) WHERE id = ?1",
    )?
    .execute([user.as_str()])?;
    Ok(())
}

pub(super) fn add(db: &Db, new: &NewTarget, max: usize) -> Result<()> {
    let (user, _) = accounts::ensure(db, &new.user, new.now)?;
    let (has, is_there): (i64, bool) = db
        .prepare_cached("SELECT count(*), coalesce(max(id = ?2), 0) FROM targets WHERE user = ?1")?
        .query_row(params![user, new.id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if is_there {
        return Ok(());
    }
    if usize::try_from(has).is_ok_and(|has| has >= max) {
        return Err(StoreError::Conflict(format!(
            "the user has {has} webhooks and apps, which is the limit"
        )));
    }
    let settings = &new.settings;
    db.prepare_cached(
        "INSERT INTO targets (id, user, kind, name, triggers, url, host, secret, audio_secs, state, created_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        new.id.as_str(),
        user,
        new.kind.as_str(),
        settings.name,
        trigger_text(&settings.triggers),
        sealed(db, &new.user, &new.id, "url", &settings.url),
        settings.host,
        sealed(db, &new.user, &new.id, "secret", &new.secret),
        settings.audio_secs,
        TargetState::On.as_str(),
        new.now.0
    ])?;
    changed_for(db, &new.user)
}

fn select(db: &Db, user: &UserId, id: Option<&TargetId>) -> Result<Vec<Target>> {
    let sql = format!(
        "SELECT {SETTINGS}, t.created_at, t.failing_since, t.failures, t.warned_at, t.off_at, t.last_delivery_at, \
         t.last_error, t.delivered, t.failed, \
         (SELECT count(*) FROM effects e WHERE e.target = t.rid AND e.state IN ('pending', 'leased')) \
         FROM targets t JOIN users u ON u.rid = t.user WHERE u.id = ?1 AND (?2 IS NULL OR t.id = ?2) ORDER BY t.rid"
    );
    let time =
        |row: &Row<'_>, column| Ok::<_, StoreError>(row.get::<_, Option<i64>>(column)?.map(UnixMicros));
    let mut query = db.prepare_cached(&sql)?;
    rows::collect(query.query(params![user.as_str(), id.map(TargetId::as_str)])?, |row| {
        let (id, user, kind, settings, state) = head(db, row)?;
        Ok(Target {
            id,
            user,
            kind,
            settings,
            state,
            created_at: UnixMicros(row.get(9)?),
            health: Health {
                failing_since: time(row, 10)?,
                failures: row.get(11)?,
                warned_at: time(row, 12)?,
            },
            off_at: time(row, 13)?,
            last_delivery_at: time(row, 14)?,
            last_error: row.get(15)?,
            delivered: rows::count(row.get(16)?),
            failed: rows::count(row.get(17)?),
            waiting: rows::count(row.get(18)?),
        })
    })
}

pub(super) fn list(db: &Db, user: &UserId) -> Result<Vec<Target>> {
    select(db, user, None)
}

pub(super) fn find(db: &Db, user: &UserId, id: &TargetId) -> Result<Option<Target>> {
    Ok(select(db, user, Some(id))?.pop())
}

pub(super) fn change(
    db: &Db,
    user: &UserId,
    id: &TargetId,
    settings: &TargetSettings,
    state: Option<TargetState>,
    now: UnixMicros,
) -> Result<()> {
    let rid = rid(db, user, id)?;
    db.prepare_cached(
        "UPDATE targets SET name = ?2, triggers = ?3, url = ?4, host = ?5, audio_secs = ?6 WHERE rid = ?1",
    )?
    .execute(params![
        rid,
        settings.name,
        trigger_text(&settings.triggers),
        sealed(db, user, id, "url", &settings.url),
        settings.host,
        settings.audio_secs
    ])?;
    effects::move_lane(db, rid, &settings.host)?;
    let Some(state) = state else { return changed_for(db, user) };
    let changed = db
        .prepare_cached("UPDATE targets SET state = ?2 WHERE rid = ?1 AND state <> ?2")?
        .execute(params![rid, state.as_str()])?;
    if changed > 0 {
        if state == TargetState::On {
            db.prepare_cached(
                "UPDATE targets SET failing_since = NULL, failures = 0, warned_at = NULL, off_at = NULL WHERE rid = ?1",
            )?
            .execute([rid])?;
        }
        effects::follow(db, rid, state, now)?;
    }
    changed_for(db, user)
}

pub(super) fn set_secret(db: &Db, user: &UserId, id: &TargetId, secret: &Sensitive) -> Result<()> {
    let rid = rid(db, user, id)?;
    db.prepare_cached("UPDATE targets SET secret = ?2 WHERE rid = ?1")?
        .execute(params![rid, sealed(db, user, id, "secret", secret)])?;
    changed_for(db, user)
}

pub(super) fn remove(db: &Db, user: &UserId, id: &TargetId) -> Result<()> {
    let rid = rid(db, user, id)?;
    db.execute("DELETE FROM targets WHERE rid = ?1", [rid])?;
    changed_for(db, user)
}

fn recipients(db: &Db, user: &UserId, id: Option<&TargetId>) -> Result<Vec<Recipient>> {
    let sql = format!(
        "SELECT {SETTINGS}, t.secret FROM targets t JOIN users u ON u.rid = t.user \
         WHERE u.id = ?1 AND (?2 IS NULL OR t.id = ?2) ORDER BY t.rid"
    );
    let mut query = db.prepare_cached(&sql)?;
    rows::collect(query.query(params![user.as_str(), id.map(TargetId::as_str)])?, |row| {
        let (target, user, kind, settings, state) = head(db, row)?;
        let secret = opened(db, &user, &target, "secret", row.get(9)?)?;
        Ok(Recipient { target, user, kind, settings, state, secret })
    })
}

pub(super) fn recipient(db: &Db, user: &UserId, id: &TargetId) -> Result<Option<Recipient>> {
    Ok(recipients(db, user, Some(id))?.pop())
}

pub(super) fn realtime(db: &Db, user: &UserId) -> Result<Vec<Recipient>> {
    let mut found = recipients(db, user, None)?;
    found.retain(|recipient| {
        recipient.state == TargetState::On
            && recipient.settings.triggers.iter().any(|trigger| trigger.is_realtime())
    });
    Ok(found)
}

pub(super) fn changed(db: &Db, version: u64, limit: usize) -> Result<(Vec<UserId>, u64)> {
    let mut query = db.prepare_cached(
        "SELECT id, targets_version FROM users WHERE targets_version > 0 AND targets_version > ?1 \
         ORDER BY targets_version LIMIT ?2",
    )?;
    let asked = i64::try_from(version).unwrap_or(i64::MAX);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let found = rows::collect(query.query([asked, limit])?, |row| {
        Ok((UserId::from(row.get::<_, String>(0)?), rows::count(row.get(1)?)))
    })?;
    let until = found.last().map_or(version, |(_, version)| *version);
    Ok((found.into_iter().map(|(user, _)| user).collect(), until))
}

pub(super) fn note(
    db: &Db,
    id: &TargetId,
    note: &DeliveryNote,
    options: &SqliteOptions,
    now: UnixMicros,
) -> Result<Option<Verdict>> {
    let time = |row: &Row<'_>, column| row.get::<_, Option<i64>>(column).map(|at| at.map(UnixMicros));
    let found = db
        .prepare_cached(
            "SELECT t.rid, u.id, t.name, t.state, t.failing_since, t.failures, t.warned_at \
             FROM targets t JOIN users u ON u.rid = t.user WHERE t.id = ?1",
        )?
        .query_row([id.as_str()], |row| {
            let health =
                Health { failing_since: time(row, 4)?, failures: row.get(5)?, warned_at: time(row, 6)? };
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, health))
        })
        .optional()?;
    // Removed meanwhile.
    let Some(found) = found else { return Ok(None) };
    let (rid, user, name, state, mut health): (i64, String, String, String, Health) = found;
    if note.delivered > 0 {
        health = Health::default();
    }
    let numbers = &options.target_health;
    let mut verdict = None;
    // One that is off already was judged.
    if note.failed > 0 && state != TargetState::Off.as_str() {
        verdict = health.failed(note.failed, now, numbers);
    }
    let delivered_at = (note.delivered > 0).then_some(now.0);
    db.prepare_cached(
        "UPDATE targets SET failing_since = ?2, failures = ?3, warned_at = ?4, delivered = delivered + ?5, \
         failed = failed + ?6, last_delivery_at = coalesce(?7, last_delivery_at), \
         last_error = coalesce(?8, last_error) WHERE rid = ?1",
    )?
    .execute(params![
        rid,
        health.failing_since.map(|at| at.0),
        health.failures,
        health.warned_at.map(|at| at.0),
        note.delivered,
        note.failed,
        delivered_at,
        note.error
    ])?;
    let Some(verdict) = verdict else { return Ok(None) };
    let user = UserId::from(user);
    let error = note.error.as_deref().unwrap_or("unknown");
    // Once for each stretch of failures, however often it is noted.
    let since = health.failing_since.map_or(0, |at| at.0);
    let key = match verdict {
        Verdict::Warn => format!("target:{id}:failing:{since}"),
        Verdict::Off => format!("target:{id}:off:{since}"),
    };
    if verdict == Verdict::Off {
        db.prepare_cached("UPDATE targets SET state = 'off', off_at = ?2 WHERE rid = ?1")?
            .execute(params![rid, now.0])?;
        effects::follow(db, rid, TargetState::Off, now)?;
        changed_for(db, &user)?;
    }
    let notice = NewMessage {
        user,
        target: id.clone(),
        conversation: None,
        key,
        text: verdict.notice(&name, numbers, error),
        now,
    };
    messages::add(db, &notice, options)?;
    Ok(Some(verdict))
}

pub(super) fn replay(
    db: &Db,
    user: &UserId,
    id: &TargetId,
    effect: Option<&EffectId>,
    now: UnixMicros,
    limit: usize,
) -> Result<usize> {
    let rid = rid(db, user, id)?;
    let state: String =
        db.prepare_cached("SELECT state FROM targets WHERE rid = ?1")?.query_row([rid], |row| row.get(0))?;
    if state == TargetState::Off.as_str() {
        return Err(StoreError::Conflict(format!("target {id} is off; resume it first")));
    }
    match effect {
        Some(effect) => effects::again_one(db, rid, effect, now).map(|()| 1),
        None => effects::retry_failed_of(db, rid, now, limit),
    }
}
