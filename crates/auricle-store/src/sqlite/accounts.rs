//! Users, their keys, and the processes that own things.

use auricle_core::{ProcessId, UnixMicros, UserId};
use rusqlite::{OptionalExtension, params};

use super::db::Db;
use super::{erasing, retranscriptions, rows, uploads};
use crate::store::{Result, StoreError};

/// A process that has been silent for this long is forgotten, in microseconds: one day.
const FORGET_AFTER: i64 = 24 * 3_600 * 1_000_000;

/// Makes the user if absent. Returns its key and whether it is new.
pub(super) fn ensure(db: &Db, user: &UserId, now: UnixMicros) -> Result<(i64, bool)> {
    if let Some(rid) = rows::user_rid(db, user)? {
        if erasing::is_marked(db, rid)? {
            return Err(StoreError::Conflict(format!("user {user} is being deleted")));
        }
        return Ok((rid, false));
    }
    db.prepare_cached("INSERT INTO users (id, created_at) VALUES (?1, ?2)")?
        .execute(params![user.as_str(), now.0])?;
    Ok((db.last_insert_rowid(), true))
}

pub(super) fn process_alive(db: &Db, process: &ProcessId, until: UnixMicros) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO processes (id, until) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET until = excluded.until",
    )?
    .execute(params![process.as_str(), until.0])?;
    db.prepare_cached("DELETE FROM processes WHERE until < ?1")?
        .execute([until.0.saturating_sub(FORGET_AFTER)])?;
    Ok(())
}

/// Frees all that the process holds. Leases end by a new epoch, so that a write it left in flight changes nothing.
pub(super) fn process_gone(db: &Db, process: &ProcessId, now: UnixMicros) -> Result<()> {
    let id = process.as_str();
    db.execute("DELETE FROM processes WHERE id = ?1", [id])?;
    db.execute("UPDATE conversations SET owner = NULL WHERE owner = ?1", [id])?;
    db.execute(
        "UPDATE jobs SET state = 'queued', epoch = epoch + 1, leased_by = NULL, lease_expires_at = NULL, \
         run_at = ?2, due_at = ?2, updated_at = ?2 WHERE leased_by = ?1 AND state = 'leased'",
        params![id, now.0],
    )?;
    db.execute(
        "UPDATE effects SET state = 'pending', epoch = epoch + 1, leased_by = NULL, run_at = ?2, due_at = ?2 \
         WHERE leased_by = ?1 AND state = 'leased'",
        params![id, now.0],
    )?;
    db.execute(
        "UPDATE embedding_work SET epoch = epoch + 1, attempts = attempts - 1, leased_by = NULL, due_at = ?2 \
         WHERE leased_by = ?1",
        params![id, now.0],
    )?;
    db.execute(
        "UPDATE days SET state = 'queued', epoch = epoch + 1, attempts = attempts - 1, leased_by = NULL, due_at = ?2 \
         WHERE leased_by = ?1",
        params![id, now.0],
    )?;
    uploads::process_gone(db, process, now)?;
    retranscriptions::process_gone(db, process, now)
}

pub(super) fn time_zone(db: &Db, user: &UserId) -> Result<Option<String>> {
    let zone = db
        .prepare_cached("SELECT time_zone FROM users WHERE id = ?1")?
        .query_row([user.as_str()], |row| row.get(0))
        .optional()?;
    Ok(zone.flatten())
}

pub(super) fn language(db: &Db, user: &UserId) -> Result<Option<String>> {
    let language = db
        .prepare_cached("SELECT language FROM users WHERE id = ?1")?
        .query_row([user.as_str()], |row| row.get(0))
        .optional()?;
    Ok(language.flatten())
}

pub(super) fn set_language(db: &Db, user: &UserId, language: Option<&str>) -> Result<()> {
    let changed =
        db.execute("UPDATE users SET language = ?2 WHERE id = ?1", params![user.as_str(), language])?;
    if changed == 0 { Err(StoreError::NotFound(format!("user {user}"))) } else { Ok(()) }
}

pub(super) fn set_time_zone(db: &Db, user: &UserId, zone: &str) -> Result<()> {
    let changed =
        db.execute("UPDATE users SET time_zone = ?2 WHERE id = ?1", params![user.as_str(), zone])?;
    if changed == 0 { Err(StoreError::NotFound(format!("user {user}"))) } else { Ok(()) }
}

pub(super) fn add_key(db: &Db, user: &UserId, key: [u8; 32], label: &str, now: UnixMicros) -> Result<()> {
    let (user_rid, _) = ensure(db, user, now)?;
    let holder: Option<i64> = db
        .query_row("SELECT user FROM api_keys WHERE sha256 = ?1", [key.as_slice()], |row| row.get(0))
        .optional()?;
    match holder {
        Some(holder) if holder == user_rid => Ok(()),
        Some(_) => Err(StoreError::Conflict("this API key already belongs to another user".into())),
        None => {
            db.execute(
                "INSERT INTO api_keys (sha256, user, label, created_at) VALUES (?1, ?2, ?3, ?4)",
                params![key.as_slice(), user_rid, label, now.0],
            )?;
            Ok(())
        }
    }
}

pub(super) fn key_user(db: &Db, key: [u8; 32]) -> Result<Option<UserId>> {
    let user: Option<String> = db
        .prepare_cached("SELECT u.id FROM api_keys k JOIN users u ON u.rid = k.user WHERE k.sha256 = ?1")?
        .query_row([key.as_slice()], |row| row.get(0))
        .optional()?;
    Ok(user.map(Into::into))
}

pub(super) fn remove_key(db: &Db, user: &UserId, label: &str) -> Result<usize> {
    Ok(db.execute(
        "DELETE FROM api_keys WHERE label = ?2 AND user = (SELECT rid FROM users WHERE id = ?1)",
        params![user.as_str(), label],
    )?)
}

pub(super) fn keys(db: &Db, user: &UserId) -> Result<Vec<(String, UnixMicros)>> {
    let mut query = db.prepare_cached(
        "SELECT k.label, k.created_at FROM api_keys k JOIN users u ON u.rid = k.user WHERE u.id = ?1 \
         ORDER BY k.created_at, k.label",
    )?;
    rows::collect(query.query([user.as_str()])?, |row| Ok((row.get(0)?, UnixMicros(row.get(1)?))))
}
