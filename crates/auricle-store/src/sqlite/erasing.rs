//! The end of a user: a mark first, then all that is theirs in bounded steps, then the mark.
//!
//! A step may be the last thing that a process does: the next one goes on. Work goes first, so that nobody processes or delivers
//! what is about to be gone.

use auricle_core::{UnixMicros, UserId};
use rusqlite::{OptionalExtension, params};

use super::db::Db;
use super::{records_search, rows, sealing, search};
use crate::store::{Result, StoreError};

/// Tables of which a conversation can have many rows, in the order in which they go. Everything else of a conversation goes with
/// it.
const OF_CONVERSATION: [&str; 4] = ["segments", "photos", "vectors", "revisions"];
/// Tables that name their user, in the order in which they go; conversations come after them. A new one must be added here, or a
/// user who has rows in it stays marked and the log says why.
const OF_USER: [&str; 13] = [
    "uploads",
    "effects",
    "jobs",
    "speaker_samples",
    "messages",
    "targets",
    "action_items",
    "memories",
    "vector_versions",
    "search_versions",
    "days",
    "voices",
    "people",
];

pub(super) fn begin(db: &Db, user: &UserId, now: UnixMicros) -> Result<bool> {
    let Some(rid) = rows::user_rid(db, user)? else { return Ok(false) };
    db.prepare_cached("UPDATE users SET deleting_since = coalesce(deleting_since, ?2) WHERE rid = ?1")?
        .execute(params![rid, now.0])?;
    db.prepare_cached("DELETE FROM api_keys WHERE user = ?1")?.execute([rid])?;
    Ok(true)
}

pub(super) fn marked(db: &Db, limit: usize) -> Result<Vec<UserId>> {
    let mut query = db.prepare_cached(
        "SELECT id FROM users WHERE deleting_since IS NOT NULL ORDER BY deleting_since, rid LIMIT ?1",
    )?;
    let found = query.query([i64::try_from(limit).unwrap_or(i64::MAX)])?;
    rows::collect(found, |row| Ok(row.get::<_, String>(0)?.into()))
}

pub(super) fn is_marked(db: &Db, rid: i64) -> Result<bool> {
    Ok(db
        .prepare_cached("SELECT 1 FROM users WHERE rid = ?1 AND deleting_since IS NOT NULL")?
        .exists([rid])?)
}

/// The key of a marked user; `None` if there is no such user any more.
fn marked_rid(db: &Db, user: &UserId) -> Result<Option<i64>> {
    match rows::user_rid(db, user)? {
        Some(rid) if !is_marked(db, rid)? => {
            Err(StoreError::Conflict(format!("user {user} is not marked for deletion")))
        }
        found => Ok(found),
    }
}

pub(super) fn some(db: &Db, user: &UserId, rows_max: usize) -> Result<bool> {
    let Some(rid) = marked_rid(db, user)? else { return Ok(true) };
    // What goes is overwritten.
    db.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
    let done = delete(db, rid, rows_max);
    db.pragma_update_and_check(None, "secure_delete", !db.ring().is_empty(), |_| Ok(()))?;
    done
}

fn delete(db: &Db, user: i64, rows_max: usize) -> Result<bool> {
    let mut left = rows_max;
    for table in OF_USER {
        records_search::remove_of(db, table, user, left)?;
        left -= delete_of(db, table, "user", user, left)?;
        if left == 0 {
            return Ok(false);
        }
    }
    while left > 0 {
        let conversation: Option<i64> = db
            .prepare_cached("SELECT rid FROM conversations WHERE user = ?1 ORDER BY created_at LIMIT 1")?
            .query_row([user], |row| row.get(0))
            .optional()?;
        let Some(conversation) = conversation else { return Ok(true) };
        for table in OF_CONVERSATION {
            if table == "segments" {
                search::remove_segments(db, conversation, left)?;
            }
            left -= delete_of(db, table, "conversation", conversation, left)?;
            if left == 0 {
                return Ok(false);
            }
        }
        search::remove_conversation(db, conversation)?;
        left -= db.prepare_cached("DELETE FROM conversations WHERE rid = ?1")?.execute([conversation])?;
    }
    Ok(false)
}

/// Deletes up to `limit` rows, the oldest first. Returns how many.
fn delete_of(db: &Db, table: &str, column: &str, value: i64, limit: usize) -> Result<usize> {
    let sql = format!(
        "DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE {column} = ?1 ORDER BY rowid LIMIT ?2)"
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    Ok(db.prepare_cached(&sql)?.execute(params![value, limit])?)
}

pub(super) fn finish(db: &Db, user: &UserId) -> Result<()> {
    let Some(rid) = marked_rid(db, user)? else { return Ok(()) };
    let gone = db.prepare_cached("DELETE FROM users WHERE rid = ?1")?.execute([rid]);
    match gone {
        Ok(_) => sealing::purge(db),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
            Err(StoreError::Conflict(format!("user {user} still has rows; erase them first")))
        }
        Err(error) => Err(error.into()),
    }
}
