//! The full-text index of action items and memories.

use auricle_core::UserId;
use rusqlite::{Connection, params};

use super::{items, memories, rows, search};
use crate::store::{Record, Result};

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

/// Those that hold every word, best first, each with its marked text.
pub(super) fn search(
    db: &Connection,
    user: &UserId,
    query: &str,
    limit: usize,
) -> Result<Vec<(Record, String)>> {
    let Some(rid) = rows::user_rid(db, user)? else { return Ok(Vec::new()) };
    let Some(every) = search::every_term(rid, query) else { return Ok(Vec::new()) };
    let mut read = db.prepare_cached(
        "SELECT rowid, highlight(records_search, 1, char(2), char(3)) FROM records_search WHERE records_search MATCH ?1 \
         ORDER BY bm25(records_search, 0.0, 1.0), rowid DESC LIMIT ?2",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let found = rows::collect(read.query(params![every, limit])?, |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
    })?;
    let mut records = Vec::with_capacity(found.len());
    for (row, text) in found {
        let record = match row % 2 {
            0 => items::by_rid(db, user, row / 2)?.map(Record::ActionItem),
            _ => memories::by_rid(db, user, row / 2)?.map(Record::Memory),
        };
        records.extend(record.map(|record| (record, text)));
    }
    Ok(records)
}
