//! Action items: written with the completion that heard them, edited by their user.
//!
//! Invariants: the rows are the only copy, and a conversation shows what they say; a new revision changes nothing that the
//! user touched and brings nothing back that the user deleted (`auricle_core::records`); what goes with its conversation is
//! what the user has not worded.

use std::collections::HashMap;

use auricle_core::records::{self, Fate, Kept};
use auricle_core::{ActionItem, ActionItemId, Conversation, ConversationId, Revision, UnixMicros, UserId};
use rusqlite::{OptionalExtension, Row, params};

use super::db::Db;
use super::live::Head;
use super::{accounts, records_search, rows};
use crate::protect::Place;
use crate::store::{
    ActionItemEdit, ActionItemFilter, ActionItemRecord, Completion, NewActionItem, Result, StoreError,
};

const ITEM: &str = "i.id, c.id, i.revision, i.description, i.completed, i.completed_at, i.due_at, i.created_at, \
     i.updated_at, i.description_edited OR i.due_edited \
     FROM action_items i JOIN users u ON u.rid = i.user LEFT JOIN conversations c ON c.rid = i.conversation";

fn description_of<'a>(id: &'a [&'a str]) -> Place<'a> {
    Place::new("action_items", "description", id)
}

fn made_of<'a>(id: &'a [&'a str]) -> Place<'a> {
    Place::new("action_items", "made", id)
}

fn record(db: &Db, user: &UserId, row: &Row<'_>) -> Result<ActionItemRecord> {
    let id: String = row.get(0)?;
    let description = db.open(user.as_str(), description_of(&[&id]), row.get(3)?)?;
    let time = |at: usize| row.get::<_, Option<i64>>(at).map(|time| time.map(UnixMicros));
    Ok(ActionItemRecord {
        id: id.into(),
        conversation: row.get::<_, Option<String>>(1)?.map(Into::into),
        revision: row.get::<_, Option<u32>>(2)?.map(Revision),
        description,
        completed: row.get(4)?,
        completed_at: time(5)?,
        due_at: time(6)?,
        created_at: UnixMicros(row.get(7)?),
        updated_at: UnixMicros(row.get(8)?),
        edited: row.get(9)?,
    })
}

fn missing(id: &ActionItemId) -> StoreError {
    StoreError::NotFound(format!("action item {id}"))
}

pub(super) fn list(db: &Db, user: &UserId, filter: &ActionItemFilter) -> Result<Vec<ActionItemRecord>> {
    let mut query = db.prepare_cached(&format!(
        "SELECT {ITEM} WHERE u.id = ?1 AND i.deleted_at IS NULL AND (?2 IS NULL OR i.completed = ?2) \
         AND (?3 IS NULL OR i.due_at >= ?3) AND (?4 IS NULL OR i.due_at < ?4) AND (?5 IS NULL OR i.created_at >= ?5) \
         AND (?6 IS NULL OR c.id = ?6) AND (?7 IS NULL OR c.id IS NOT ?7) \
         ORDER BY i.created_at DESC, i.rid DESC LIMIT ?8 OFFSET ?9"
    ))?;
    let time = |at: Option<UnixMicros>| at.map(|at| at.0);
    let found = query.query(params![
        user.as_str(),
        filter.completed,
        time(filter.due_from),
        time(filter.due_before),
        time(filter.created_from),
        filter.conversation.as_ref().map(ConversationId::as_str),
        filter.not_of.as_ref().map(ConversationId::as_str),
        i64::try_from(filter.limit).unwrap_or(i64::MAX),
        i64::try_from(filter.offset).unwrap_or(i64::MAX),
    ])?;
    rows::collect(found, |row| record(db, user, row))
}

pub(super) fn find(db: &Db, user: &UserId, id: &ActionItemId) -> Result<Option<ActionItemRecord>> {
    let mut query =
        db.prepare_cached(&format!("SELECT {ITEM} WHERE i.id = ?1 AND u.id = ?2 AND i.deleted_at IS NULL"))?;
    let mut found = query.query([id.as_str(), user.as_str()])?;
    found.next()?.map(|row| record(db, user, row)).transpose()
}

pub(super) fn by_rid(db: &Db, user: &UserId, rid: i64) -> Result<Option<ActionItemRecord>> {
    let mut query =
        db.prepare_cached(&format!("SELECT {ITEM} WHERE i.rid = ?1 AND u.id = ?2 AND i.deleted_at IS NULL"))?;
    let mut found = query.query(params![rid, user.as_str()])?;
    found.next()?.map(|row| record(db, user, row)).transpose()
}

/// The row that is `user`'s and not deleted.
fn rid_of(db: &Db, user: &UserId, id: &ActionItemId) -> Result<Option<i64>> {
    Ok(db
        .prepare_cached(
            "SELECT i.rid FROM action_items i JOIN users u ON u.rid = i.user \
             WHERE i.id = ?1 AND u.id = ?2 AND i.deleted_at IS NULL",
        )?
        .query_row([id.as_str(), user.as_str()], |row| row.get(0))
        .optional()?)
}

pub(super) fn add(db: &Db, user: &UserId, new: &NewActionItem) -> Result<ActionItemRecord> {
    if let Some(found) = find(db, user, &new.id)? {
        return Ok(found);
    }
    let conversation =
        new.conversation.as_ref().map(|id| Head::of_user(db, user, id).map(|head| head.rid)).transpose()?;
    let (owner, _) = accounts::ensure(db, user, new.now)?;
    let description = db.seal(user.as_str(), description_of(&[new.id.as_str()]), &new.description);
    let added = db
        .prepare_cached(
            "INSERT INTO action_items (id, user, conversation, description, due_at, created_at, updated_at, \
             description_edited, due_edited) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, 1, 1) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            new.id.as_str(),
            owner,
            conversation,
            description,
            new.due_at.map(|at| at.0),
            new.now.0
        ])?;
    if added == 0 {
        return Err(StoreError::Conflict(format!("the id {} is taken", new.id)));
    }
    let row = records_search::item_row(db.last_insert_rowid());
    records_search::put(db, row, (owner, user.as_str()), &new.description)?;
    find(db, user, &new.id)?.ok_or_else(|| missing(&new.id))
}

pub(super) fn edit(
    db: &Db,
    user: &UserId,
    id: &ActionItemId,
    edit: &ActionItemEdit,
    now: UnixMicros,
) -> Result<ActionItemRecord> {
    let rid = rid_of(db, user, id)?.ok_or_else(|| missing(id))?;
    if let Some(description) = &edit.description
        && find(db, user, id)?.is_some_and(|found| found.description != *description)
    {
        let sealed = db.seal(user.as_str(), description_of(&[id.as_str()]), description);
        db.prepare_cached(
            "UPDATE action_items SET description = ?2, description_edited = 1, updated_at = ?3 WHERE rid = ?1",
        )?
        .execute(params![rid, sealed, now.0])?;
        records_search::change(db, records_search::item_row(rid), user.as_str(), description)?;
    }
    if let Some(due_at) = edit.due_at {
        db.prepare_cached(
            "UPDATE action_items SET due_at = ?2, due_edited = 1, updated_at = ?3 WHERE rid = ?1 AND due_at IS NOT ?2",
        )?
        .execute(params![rid, due_at.map(|at| at.0), now.0])?;
    }
    if let Some(completed) = edit.completed {
        db.prepare_cached(
            "UPDATE action_items SET completed = ?2, completed_at = iif(?2, ?3, NULL), completed_edited = 1, \
             updated_at = ?3 WHERE rid = ?1 AND completed <> ?2",
        )?
        .execute(params![rid, completed, now.0])?;
    }
    find(db, user, id)?.ok_or_else(|| missing(id))
}

/// Leaves a row that keeps its like from coming back with the next revision; without a conversation there is none.
pub(super) fn remove(db: &Db, user: &UserId, id: &ActionItemId, now: UnixMicros) -> Result<()> {
    let rid = rid_of(db, user, id)?.ok_or_else(|| missing(id))?;
    records_search::remove(db, records_search::item_row(rid))?;
    db.prepare_cached("DELETE FROM action_items WHERE rid = ?1 AND conversation IS NULL")?.execute([rid])?;
    db.prepare_cached("UPDATE action_items SET deleted_at = ?2, updated_at = ?2 WHERE rid = ?1")?
        .execute(params![rid, now.0])?;
    Ok(())
}

/// A row of the conversation, deleted or not.
struct Old {
    rid: i64,
    id: String,
    description: String,
    made: Option<String>,
    /// Whether the user worded it.
    worded: bool,
    stays: bool,
    deleted: bool,
}

/// Brings a conversation's rows in step with the revision that was just understood.
pub(super) fn keep_in_step(db: &Db, conversation: i64, revision: u32, done: &Completion) -> Result<()> {
    let made = &done.structured.action_items;
    let (whose, _) = rows::whose(db, conversation)?;
    let old = {
        let mut query = db.prepare_cached(
            "SELECT rid, description, made, description_edited OR due_edited OR completed_edited OR completed \
             OR deleted_at IS NOT NULL, deleted_at IS NOT NULL, id, description_edited FROM action_items WHERE conversation = ?1 ORDER BY rid",
        )?;
        rows::collect(query.query([conversation])?, |row| {
            let id: String = row.get(5)?;
            Ok(Old {
                rid: row.get(0)?,
                description: db.open(&whose, description_of(&[&id]), row.get(1)?)?,
                made: db.open_some(&whose, made_of(&[&id]), row.get(2)?)?,
                id,
                worded: row.get(6)?,
                stays: row.get(3)?,
                deleted: row.get(4)?,
            })
        })?
    };
    let kept: Vec<_> = old
        .iter()
        .map(|old| Kept { text: &old.description, made: old.made.as_deref(), stays: old.stays })
        .collect();
    let texts: Vec<_> = made.iter().map(|item| item.description.as_str()).collect();
    let plan = records::plan(&kept, &texts);
    for (old, fate) in old.iter().zip(plan.kept) {
        match fate {
            Fate::Stays => {}
            Fate::Goes => {
                records_search::remove(db, records_search::item_row(old.rid))?;
                db.prepare_cached("DELETE FROM action_items WHERE rid = ?1")?.execute([old.rid])?;
            }
            Fate::MadeAgain(number) => make_again(db, &whose, old, revision, &made[number], done.now)?,
        }
    }
    let user: i64 = db
        .prepare_cached("SELECT user FROM conversations WHERE rid = ?1")?
        .query_row([conversation], |row| row.get(0))?;
    for number in plan.added {
        let item = &made[number];
        let id = rows::derived_id(&done.lease.job, "action_item", number);
        let time = |at: Option<UnixMicros>| at.map(|at| at.0);
        db.prepare_cached(
            "INSERT INTO action_items (id, user, conversation, revision, description, made, completed, completed_at, \
             due_at, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?11, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            id,
            user,
            conversation,
            revision,
            db.seal(&whose, description_of(&[&id]), &item.description),
            item.completed,
            time(item.completed_at),
            time(item.due_at),
            item.created_at.unwrap_or(done.now).0,
            item.updated_at.or(item.created_at).unwrap_or(done.now).0,
            db.seal(&whose, made_of(&[&id]), &item.description),
        ])?;
        let row = records_search::item_row(db.last_insert_rowid());
        records_search::put(db, row, (user, &whose), &item.description)?;
    }
    Ok(())
}

/// What the user did not touch becomes what the new revision says.
fn make_again(
    db: &Db,
    whose: &str,
    old: &Old,
    revision: u32,
    item: &ActionItem,
    now: UnixMicros,
) -> Result<()> {
    let text = if old.worded { &old.description } else { &item.description };
    db.prepare_cached(
        "UPDATE action_items SET revision = ?2, made = ?3, description = ?6, \
         updated_at = iif(?7 AND (due_edited OR due_at IS ?4), updated_at, ?5), \
         due_at = iif(due_edited, due_at, ?4) WHERE rid = ?1",
    )?
    .execute(params![
        old.rid,
        revision,
        db.seal(whose, made_of(&[&old.id]), &item.description),
        item.due_at.map(|at| at.0),
        now.0,
        db.seal(whose, description_of(&[&old.id]), text),
        *text == old.description
    ])?;
    if item.completed {
        db.prepare_cached(
            "UPDATE action_items SET completed = 1, completed_at = ?2 WHERE rid = ?1 AND NOT completed_edited \
             AND NOT completed",
        )?
        .execute(params![old.rid, item.completed_at.unwrap_or(now).0])?;
    }
    if !old.deleted {
        records_search::change(db, records_search::item_row(old.rid), whose, text)?;
    }
    Ok(())
}

/// Before its conversation goes: what the user has worded stays, without it; the rest goes with it.
pub(super) fn conversation_goes(db: &Db, conversation: i64) -> Result<()> {
    const GOING: &str = "conversation = ?1 AND (deleted_at IS NOT NULL OR NOT description_edited)";
    db.prepare_cached(&format!(
        "DELETE FROM records_search WHERE rowid IN (SELECT rid * 2 FROM action_items WHERE {GOING})"
    ))?
    .execute([conversation])?;
    db.prepare_cached(&format!("DELETE FROM action_items WHERE {GOING}"))?.execute([conversation])?;
    db.prepare_cached("UPDATE action_items SET made = NULL, revision = NULL WHERE conversation = ?1")?
        .execute([conversation])?;
    Ok(())
}

/// Puts their action items into conversations, each with its `rid`.
pub(super) fn attach(db: &Db, conversations: &mut [(i64, Conversation)]) -> Result<()> {
    let rids: Vec<i64> = conversations.iter().map(|(rid, _)| *rid).collect();
    let mut query = db.prepare_cached(
        "SELECT conversation, description, completed, created_at, updated_at, due_at, completed_at, id \
         FROM action_items WHERE conversation IN (SELECT value FROM json_each(?1)) AND deleted_at IS NULL ORDER BY rid",
    )?;
    let found = rows::collect(query.query([rows::to_json(&rids)?])?, |row| {
        let time = |at: usize| row.get::<_, Option<i64>>(at).map(|time| time.map(UnixMicros));
        let item = ActionItem {
            description: row.get(1)?,
            completed: row.get(2)?,
            created_at: time(3)?,
            updated_at: time(4)?,
            due_at: time(5)?,
            completed_at: time(6)?,
        };
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(7)?, item))
    })?;
    let mut items: HashMap<i64, Vec<(String, ActionItem)>> = HashMap::new();
    for (rid, id, item) in found {
        items.entry(rid).or_default().push((id, item));
    }
    for (rid, conversation) in conversations {
        let opened = items.remove(rid).unwrap_or_default().into_iter().map(|(id, item)| {
            let description =
                db.open(conversation.user.as_str(), description_of(&[&id]), item.description)?;
            Ok(ActionItem { description, ..item })
        });
        conversation.structured.action_items = opened.collect::<Result<_>>()?;
    }
    Ok(())
}
