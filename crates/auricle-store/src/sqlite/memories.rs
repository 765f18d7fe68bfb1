//! Memories: as action items are kept (`items`), without times and completion.

use auricle_core::records::{self, Fate, Kept};
use auricle_core::{ConversationId, MemoryId, Revision, UnixMicros, UserId};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::live::Head;
use super::{accounts, records_search, rows};
use crate::store::{Completion, MemoryFilter, MemoryRecord, NewMemory, Result, StoreError};

const MEMORY: &str = "m.id, c.id, m.revision, m.text, m.created_at, m.updated_at, m.edited \
     FROM memories m JOIN users u ON u.rid = m.user LEFT JOIN conversations c ON c.rid = m.conversation";

fn record(row: &Row<'_>) -> Result<MemoryRecord> {
    Ok(MemoryRecord {
        id: row.get::<_, String>(0)?.into(),
        conversation: row.get::<_, Option<String>>(1)?.map(Into::into),
        revision: row.get::<_, Option<u32>>(2)?.map(Revision),
        text: row.get(3)?,
        created_at: UnixMicros(row.get(4)?),
        updated_at: UnixMicros(row.get(5)?),
        edited: row.get(6)?,
    })
}

fn missing(id: &MemoryId) -> StoreError {
    StoreError::NotFound(format!("memory {id}"))
}

pub(super) fn list(db: &Connection, user: &UserId, filter: &MemoryFilter) -> Result<Vec<MemoryRecord>> {
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
    rows::collect(found, record)
}

pub(super) fn find(db: &Connection, user: &UserId, id: &MemoryId) -> Result<Option<MemoryRecord>> {
    let mut query = db
        .prepare_cached(&format!("SELECT {MEMORY} WHERE m.id = ?1 AND u.id = ?2 AND m.deleted_at IS NULL"))?;
    let mut found = query.query([id.as_str(), user.as_str()])?;
    found.next()?.map(record).transpose()
}

pub(super) fn by_rid(db: &Connection, user: &UserId, rid: i64) -> Result<Option<MemoryRecord>> {
    let mut query = db.prepare_cached(&format!(
        "SELECT {MEMORY} WHERE m.rid = ?1 AND u.id = ?2 AND m.deleted_at IS NULL"
    ))?;
    let mut found = query.query(params![rid, user.as_str()])?;
    found.next()?.map(record).transpose()
}

fn rid_of(db: &Connection, user: &UserId, id: &MemoryId) -> Result<Option<i64>> {
    Ok(db
        .prepare_cached(
            "SELECT m.rid FROM memories m JOIN users u ON u.rid = m.user \
             WHERE m.id = ?1 AND u.id = ?2 AND m.deleted_at IS NULL",
        )?
        .query_row([id.as_str(), user.as_str()], |row| row.get(0))
        .optional()?)
}

pub(super) fn add(db: &Connection, user: &UserId, new: &NewMemory) -> Result<MemoryRecord> {
    if let Some(found) = find(db, user, &new.id)? {
        return Ok(found);
    }
    let conversation =
        new.conversation.as_ref().map(|id| Head::of_user(db, user, id).map(|head| head.rid)).transpose()?;
    let (owner, _) = accounts::ensure(db, user, new.now)?;
    let added = db
        .prepare_cached(
            "INSERT INTO memories (id, user, conversation, text, created_at, updated_at, edited) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?5, 1) ON CONFLICT DO NOTHING",
        )?
        .execute(params![new.id.as_str(), owner, conversation, new.text, new.now.0])?;
    if added == 0 {
        return Err(StoreError::Conflict(format!("the id {} is taken", new.id)));
    }
    records_search::put(db, records_search::memory_row(db.last_insert_rowid()), owner, &new.text)?;
    find(db, user, &new.id)?.ok_or_else(|| missing(&new.id))
}

pub(super) fn edit(
    db: &Connection,
    user: &UserId,
    id: &MemoryId,
    text: &str,
    now: UnixMicros,
) -> Result<MemoryRecord> {
    let rid = rid_of(db, user, id)?.ok_or_else(|| missing(id))?;
    db.prepare_cached(
        "UPDATE memories SET text = ?2, edited = 1, updated_at = ?3 WHERE rid = ?1 AND text <> ?2",
    )?
    .execute(params![rid, text, now.0])?;
    records_search::change(db, records_search::memory_row(rid), text)?;
    find(db, user, id)?.ok_or_else(|| missing(id))
}

/// As with an action item.
pub(super) fn remove(db: &Connection, user: &UserId, id: &MemoryId, now: UnixMicros) -> Result<()> {
    let rid = rid_of(db, user, id)?.ok_or_else(|| missing(id))?;
    records_search::remove(db, records_search::memory_row(rid))?;
    db.prepare_cached("DELETE FROM memories WHERE rid = ?1 AND conversation IS NULL")?.execute([rid])?;
    db.prepare_cached("UPDATE memories SET deleted_at = ?2, updated_at = ?2 WHERE rid = ?1")?
        .execute(params![rid, now.0])?;
    Ok(())
}

struct Old {
    rid: i64,
    text: String,
    made: Option<String>,
    edited: bool,
    deleted: bool,
}

/// Brings a conversation's rows in step with the revision that was just understood.
pub(super) fn keep_in_step(
    db: &Connection,
    conversation: i64,
    revision: u32,
    done: &Completion,
) -> Result<()> {
    let old = {
        let mut query = db.prepare_cached(
            "SELECT rid, text, made, edited, deleted_at IS NOT NULL FROM memories WHERE conversation = ?1 ORDER BY rid",
        )?;
        rows::collect(query.query([conversation])?, |row| {
            Ok(Old {
                rid: row.get(0)?,
                text: row.get(1)?,
                made: row.get(2)?,
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
                let text = &done.memories[number];
                db.prepare_cached(
                    "UPDATE memories SET revision = ?2, made = ?3, updated_at = iif(edited OR text = ?3, updated_at, ?4), \
                     text = iif(edited, text, ?3) WHERE rid = ?1",
                )?
                .execute(params![old.rid, revision, text, done.now.0])?;
                if !stays(old) {
                    records_search::change(db, row, text)?;
                }
            }
        }
    }
    let user: i64 = db
        .prepare_cached("SELECT user FROM conversations WHERE rid = ?1")?
        .query_row([conversation], |row| row.get(0))?;
    for number in plan.added {
        let text = &done.memories[number];
        db.prepare_cached(
            "INSERT INTO memories (id, user, conversation, revision, text, made, created_at, updated_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?6)",
        )?
        .execute(params![
            rows::derived_id(&done.lease.job, "memory", number),
            user,
            conversation,
            revision,
            text,
            done.now.0
        ])?;
        records_search::put(db, records_search::memory_row(db.last_insert_rowid()), user, text)?;
    }
    Ok(())
}

/// As with action items: what the user has worded stays.
pub(super) fn conversation_goes(db: &Connection, conversation: i64) -> Result<()> {
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
