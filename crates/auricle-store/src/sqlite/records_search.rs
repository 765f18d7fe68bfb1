//! The full-text index of action items and memories.

use rusqlite::{Connection, params};

use crate::store::Result;

pub(super) fn item_row(rid: i64) -> i64 {
    rid * 2
}

pub(super) fn memory_row(rid: i64) -> i64 {
    rid * 2 + 1
}

pub(super) fn put(db: &Connection, row: i64, user: i64, text: &str) -> Result<()> {
    db.prepare_cached("INSERT INTO records_search (rowid, scope, body) VALUES (?1, 'u' || ?2, ?3)")?
        .execute(params![row, user, text])?;
    Ok(())
}

pub(super) fn change(db: &Connection, row: i64, text: &str) -> Result<()> {
    db.prepare_cached("UPDATE records_search SET body = ?2 WHERE rowid = ?1 AND body <> ?2")?
        .execute(params![row, text])?;
    Ok(())
}

pub(super) fn remove(db: &Connection, row: i64) -> Result<()> {
    db.prepare_cached("DELETE FROM records_search WHERE rowid = ?1")?.execute([row])?;
    Ok(())
}
