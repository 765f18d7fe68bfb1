//! The full-text index of action items and memories.

use auricle_core::UserId;
use rusqlite::params;

use super::db::Db;
use super::{items, memories, rows, search};
use crate::protect::words;
use crate::store::{Record, Result};

pub(super) fn item_row(rid: i64) -> i64 {
    rid * 2
}

pub(super) fn memory_row(rid: i64) -> i64 {
    rid * 2 + 1
}

/// `user`: the key and the id.
pub(super) fn put(db: &Db, row: i64, user: (i64, &str), text: &str) -> Result<()> {
    let (user, whose) = user;
    let sealer = db.sealer(whose);
    db.prepare_cached("INSERT INTO records_search (rowid, scope, body) VALUES (?1, 'u' || ?2, ?3)")?
        .execute(params![row, user, search::indexed(&sealer, text)])?;
    Ok(())
}

pub(super) fn change(db: &Db, row: i64, whose: &str, text: &str) -> Result<()> {
    let sealer = db.sealer(whose);
    db.prepare_cached("UPDATE records_search SET body = ?2 WHERE rowid = ?1 AND body <> ?2")?
        .execute(params![row, search::indexed(&sealer, text)])?;
    Ok(())
}

pub(super) fn remove(db: &Db, row: i64) -> Result<()> {
    db.prepare_cached("DELETE FROM records_search WHERE rowid = ?1")?.execute([row])?;
    Ok(())
}

/// Removes the words of a user's first rows of a table that has some here, in the order in which they were stored.
pub(super) fn remove_of(db: &Db, table: &str, user: i64, limit: usize) -> Result<()> {
    let row = match table {
        "action_items" => "rid * 2",
        "memories" => "rid * 2 + 1",
        _ => return Ok(()),
    };
    let sql = format!(
        "DELETE FROM records_search WHERE rowid IN (SELECT {row} FROM {table} WHERE user = ?1 ORDER BY rid LIMIT ?2)"
    );
    db.prepare_cached(&sql)?.execute(params![user, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    Ok(())
}

/// Those that hold every word, best first, each with its marked text.
pub(super) fn search(db: &Db, user: &UserId, query: &str, limit: usize) -> Result<Vec<(Record, String)>> {
    let Some(rid) = rows::user_rid(db, user)? else { return Ok(Vec::new()) };
    let Some(every) = search::every_term(db, (rid, user), query) else { return Ok(Vec::new()) };
    let mut read = db.prepare_cached(
        "SELECT rowid, highlight(records_search, 1, char(2), char(3)) FROM records_search WHERE records_search MATCH ?1 \
         ORDER BY bm25(records_search, 0.0, 1.0), rowid DESC LIMIT ?2",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let found = rows::collect(read.query(params![every.expression, limit])?, |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
    })?;
    let mut records = Vec::with_capacity(found.len());
    for (row, marked) in found {
        let record = match row % 2 {
            0 => items::by_rid(db, user, row / 2)?.map(Record::ActionItem),
            _ => memories::by_rid(db, user, row / 2)?.map(Record::Memory),
        };
        let Some(record) = record else { continue };
        // A blind index has no text to show.
        let marked = every.stems.as_ref().map_or(marked, |stems| {
            words::marked(
                match &record {
                    Record::ActionItem(item) => &item.description,
                    Record::Memory(memory) => &memory.text,
                },
                stems,
            )
        });
        records.push((record, marked));
    }
    Ok(records)
}
