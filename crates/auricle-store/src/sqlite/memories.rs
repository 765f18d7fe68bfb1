//! Memories: as action items are kept (`items`), without times and completion.

use auricle_core::records::{self, Fate, Kept};
use auricle_core::{ConversationId, MemoryId, Revision, UnixMicros, UserId};
use rusqlite::{OptionalExtension, Row, params};

use super::db::Db;
use super::live::Head;
use super::{accounts, records_search, rows};
use crate::protect::Place;
use crate::store::{Completion, MemoryFilter, MemoryRecord, NewMemory, Result, StoreError};

const MEMORY: &str = "m.id, c.id, m.revision, m.text, m.created_at, m.updated_at, m.edited \
     FROM memories m JOIN users u ON u.rid = m.user LEFT JOIN conversations c ON c.rid = m.conversation";

fn text_of<'a>(id: &'a [&'a str]) -> Place<'a> {
    Place::new("memories", "text", id)
}

fn made_of<'a>(id: &'a [&'a str]) -> Place<'a> {
    Place::new("memories", "made", id)
}

fn record(db: &Db, user: &UserId, row: &Row<'_>) -> Result<MemoryRecord> {
    let id: String = row.get(0)?;
    let text = db.open(user.as_str(), text_of(&[&id]), row.get(3)?)?;
    Ok(MemoryRecord {
        id: id.into(),
        conversation: row.get::<_, Option<String>>(1)?.map(Into::into),
        revision: row.get::<_, Option<u32>>(2)?.map(Revision),
        text,
        created_at: UnixMicros(row.get(4)?),
        updated_at: UnixMicros(row.get(5)?),
        edited: row.get(6)?,
    })
}

fn missing(id: &MemoryId) -> StoreError {
    StoreError::NotFound(format!("memory {id}"))
}

pub(super) fn list(db: &Db, user: &UserId, filter: &MemoryFilter) -> Result<Vec<MemoryRecord>> {
    let mut query = db.prepare_cached(&format!(
        "SELECT {MEMORY} WHERE u.id = ?1 AND m.deleted_at IS NULL AND (?2 IS NULL OR c.id = ?2) \
         ORDER BY m.created_at DESC, m.rid DESC LIMIT ?3 OFFSET ?4"
    ))?;
    let found = query.query(params![
        user.as_str(),
        filter.conversation.as_ref().map(ConversationId::as_str),
        i64::try_from(filter.limit).unwrap_or(i64::MAX),
        i64::try_from(filter.offset).unwrap_or(i64::MAX),
    ])?;
    rows::collect(found, |row| record(db, user, row))
}

pub(super) fn find(db: &Db, user: &UserId, id: &MemoryId) -> Result<Option<MemoryRecord>> {
    let mut query = db
        .prepare_cached(&format!("SELECT {MEMORY} WHERE m.id = ?1 AND u.id = ?2 AND m.deleted_at IS NULL"))?;
    let mut found = query.query([id.as_str(), user.as_str()])?;
    found.next()?.map(|row| record(db, user, row)).transpose()
}

pub(super) fn by_rid(db: &Db, user: &UserId, rid: i64) -> Result<Option<MemoryRecord>> {
    let mut query = db.prepare_cached(&format!(
        "SELECT {MEMORY} WHERE m.rid = ?1 AND u.id = ?2 AND m.deleted_at IS NULL"
    ))?;
    let mut found = query.query(params![rid, user.as_str()])?;
    found.next()?.map(|row| record(db, user, row)).transpose()
}

fn rid_of(db: &Db, user: &UserId, id: &MemoryId) -> Result<Option<i64>> {
    Ok(db
        .prepare_cached(
            "SELECT m.rid FROM memories m JOIN users u ON u.rid = m.user \
             WHERE m.id = ?1 AND u.id = ?2 AND m.deleted_at IS NULL",
        )?
        .query_row([id.as_str(), user.as_str()], |row| row.get(0))
        .optional()?)
}

pub(super) fn add(db: &Db, user: &UserId, new: &NewMemory) -> Result<MemoryRecord> {
    if let Some(found) = find(db, user, &new.id)? {
        return Ok(found);
    }
    let conversation =
        new.conversation.as_ref().map(|id| Head::of_user(db, user, id).map(|head| head.rid)).transpose()?;
    let (owner, _) = accounts::ensure(db, user, new.now)?;
    let text = db.seal(user.as_str(), text_of(&[new.id.as_str()]), &new.text);
    let added = db
        .prepare_cached(
            "INSERT INTO memories (id, user, conversation, text, created_at, updated_at, edited) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?5, 1) ON CONFLICT DO NOTHING",
        )?
        .execute(params![new.id.as_str(), owner, conversation, text, new.now.0])?;
    if added == 0 {
        return Err(StoreError::Conflict(format!("the id {} is taken", new.id)));
    }
    let row = records_search::memory_row(db.last_insert_rowid());
    records_search::put(db, row, (owner, user.as_str()), &new.text)?;
    find(db, user, &new.id)?.ok_or_else(|| missing(&new.id))
}

pub(super) fn edit(
    db: &Db,
    user: &UserId,
    id: &MemoryId,
    text: &str,
    now: UnixMicros,
) -> Result<MemoryRecord> {
    let rid = rid_of(db, user, id)?.ok_or_else(|| missing(id))?;
    if find(db, user, id)?.is_some_and(|found| found.text != text) {
        let sealed = db.seal(user.as_str(), text_of(&[id.as_str()]), text);
        db.prepare_cached("UPDATE memories SET text = ?2, edited = 1, updated_at = ?3 WHERE rid = ?1")?
            .execute(params![rid, sealed, now.0])?;
        records_search::change(db, records_search::memory_row(rid), user.as_str(), text)?;
    }
    find(db, user, id)?.ok_or_else(|| missing(id))
}

/// As with an action item.
pub(super) fn remove(db: &Db, user: &UserId, id: &MemoryId, now: UnixMicros) -> Result<()> {
    let rid = rid_of(db, user, id)?.ok_or_else(|| missing(id))?;
    records_search::remove(db, records_search::memory_row(rid))?;
    db.prepare_cached("DELETE FROM memories WHERE rid = ?1 AND conversation IS NULL")?.execute([rid])?;
    db.prepare_cached("UPDATE memories SET deleted_at = ?2, updated_at = ?2 WHERE rid = ?1")?
        .execute(params![rid, now.0])?;
    Ok(())
}

struct Old {
    rid: i64,
    id: String,
    text: String,
    made: Option<String>,
    edited: bool,
    deleted: bool,
}

/// Brings a conversation's rows in step with the revision that was just understood.
pub(super) fn keep_in_step(db: &Db, conversation: i64, revision: u32, done: &Completion) -> Result<()> {
    let (whose, _) = rows::whose(db, conversation)?;
    let old = {
        let mut query = db.prepare_cached(
            "SELECT rid, text, made, edited, deleted_at IS NOT NULL, id FROM memories WHERE conversation = ?1 ORDER BY rid",
        )?;
        rows::collect(query.query([conversation])?, |row| {
            let id: String = row.get(5)?;
            Ok(Old {
                rid: row.get(0)?,
                text: db.open(&whose, text_of(&[&id]), row.get(1)?)?,
                made: db.open_some(&whose, made_of(&[&id]), row.get(2)?)?,
                id,
                edited: row.get(3)?,
                deleted: row.get(4)?,
            })
        })?
    };
    let stays = |old: &Old| old.edited || old.deleted;
    let kept: Vec<_> = old
        .iter()
        .map(|old| Kept { text: &old.text, made: old.made.as_deref(), stays: stays(old) })
        .collect();
    let texts: Vec<_> = done.memories.iter().map(String::as_str).collect();
    let plan = records::plan(&kept, &texts);
    for (old, fate) in old.iter().zip(plan.kept) {
        let row = records_search::memory_row(old.rid);
        match fate {
            Fate::Stays => {}
            Fate::Goes => {
                records_search::remove(db, row)?;
                db.prepare_cached("DELETE FROM memories WHERE rid = ?1")?.execute([old.rid])?;
            }
            Fate::MadeAgain(number) => {
                let made = &done.memories[number];
                let text = if old.edited { &old.text } else { made };
                db.prepare_cached(
                    "UPDATE memories SET revision = ?2, made = ?3, text = ?4, updated_at = iif(?5, updated_at, ?6) \
                     WHERE rid = ?1",
                )?
                .execute(params![
                    old.rid,
                    revision,
                    db.seal(&whose, made_of(&[&old.id]), made),
                    db.seal(&whose, text_of(&[&old.id]), text),
                    *text == old.text,
                    done.now.0
                ])?;
                if !stays(old) {
                    records_search::change(db, row, &whose, text)?;
                }
            }
        }
    }
    let user: i64 = db
        .prepare_cached("SELECT user FROM conversations WHERE rid = ?1")?
        .query_row([conversation], |row| row.get(0))?;
    for number in plan.added {
        let text = &done.memories[number];
        let id = rows::derived_id(&done.lease.job, "memory", number);
        db.prepare_cached(
            "INSERT INTO memories (id, user, conversation, revision, text, made, created_at, updated_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?7, ?6, ?6)",
        )?
        .execute(params![
            id,
            user,
            conversation,
            revision,
            db.seal(&whose, text_of(&[&id]), text),
            done.now.0,
            db.seal(&whose, made_of(&[&id]), text)
        ])?;
        let row = records_search::memory_row(db.last_insert_rowid());
        records_search::put(db, row, (user, &whose), text)?;
    }
    Ok(())
}

/// As with action items: what the user has worded stays.
pub(super) fn conversation_goes(db: &Db, conversation: i64) -> Result<()> {
    const GOING: &str = "conversation = ?1 AND (deleted_at IS NOT NULL OR NOT edited)";
    db.prepare_cached(&format!(
        "DELETE FROM records_search WHERE rowid IN (SELECT rid * 2 + 1 FROM memories WHERE {GOING})"
    ))?
    .execute([conversation])?;
    db.prepare_cached(&format!("DELETE FROM memories WHERE {GOING}"))?.execute([conversation])?;
    db.prepare_cached("UPDATE memories SET made = NULL, revision = NULL WHERE conversation = ?1")?
        .execute([conversation])?;
    Ok(())
}
