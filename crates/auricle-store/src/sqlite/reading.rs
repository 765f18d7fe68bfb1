//! Reading conversations, and the user's small edits of them.

use auricle_core::{
    Conversation, ConversationId, ConversationStatus, Geolocation, Revision, UnixMicros, UserId,
};
use rusqlite::{Connection, OptionalExtension, params};

use super::live::Head;
use super::{embeddings, items, rows, search};
use crate::store::{ListFilter, Result};

/// A conversation's row without segments and photos, with its `rid`.
fn row_of(db: &Connection, user: &UserId, id: &ConversationId) -> Result<Option<(i64, Conversation)>> {
    let sql = format!(
        "SELECT {} FROM conversations c JOIN users u ON u.rid = c.user WHERE c.id = ?1 AND u.id = ?2",
        rows::CONVERSATION
    );
    let mut query = db.prepare_cached(&sql)?;
    let mut found = query.query([id.as_str(), user.as_str()])?;
    found.next()?.map(rows::conversation).transpose()
}

pub(super) fn conversation(
    db: &Connection,
    user: &UserId,
    id: &ConversationId,
) -> Result<Option<Conversation>> {
    let Some(found) = row_of(db, user, id)? else { return Ok(None) };
    let mut found = [found];
    items::attach(db, &mut found)?;
    let [(rid, mut found)] = found;
    found.segments = rows::segments(db, rid)?;
    found.photos = rows::photos(db, rid)?;
    Ok(Some(found))
}

pub(super) fn status(
    db: &Connection,
    user: &UserId,
    id: &ConversationId,
) -> Result<Option<(ConversationStatus, Revision)>> {
    let mut query = db.prepare_cached(
        "SELECT c.status, c.revision FROM conversations c JOIN users u ON u.rid = c.user \
         WHERE c.id = ?1 AND u.id = ?2",
    )?;
    let mut found = query.query([id.as_str(), user.as_str()])?;
    let Some(row) = found.next()? else { return Ok(None) };
    let status = rows::known(ConversationStatus::parse, &row.get::<_, String>(0)?, "status")?;
    Ok(Some((status, Revision(row.get(1)?))))
}

pub(super) fn current(db: &Connection, user: &UserId) -> Result<Option<ConversationId>> {
    let id: Option<String> = db
        .prepare_cached(
            "SELECT c.id FROM conversations c JOIN users u ON u.rid = c.user WHERE u.id = ?1 \
             AND c.status = 'in_progress' ORDER BY c.finished_at DESC, c.rid DESC LIMIT 1",
        )?
        .query_row([user.as_str()], |row| row.get(0))
        .optional()?;
    Ok(id.map(Into::into))
}

pub(super) fn list(db: &Connection, user: &UserId, filter: &ListFilter) -> Result<Vec<Conversation>> {
    let statuses: Vec<&str> = filter.statuses.iter().map(|status| status.as_str()).collect();
    let sql = format!(
        "SELECT {} FROM conversations c JOIN users u ON u.rid = c.user WHERE u.id = ?1 \
         AND (?2 = '[]' OR c.status IN (SELECT value FROM json_each(?2))) AND (?3 OR c.discarded IS NULL) \
         ORDER BY c.created_at DESC, c.rid DESC LIMIT ?4 OFFSET ?5",
        rows::CONVERSATION
    );
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let offset = i64::try_from(filter.offset).unwrap_or(i64::MAX);
    let mut query = db.prepare_cached(&sql)?;
    let found = query.query(params![
        user.as_str(),
        rows::to_json(&statuses)?,
        filter.include_discarded,
        limit,
        offset
    ])?;
    let mut found = rows::collect(found, rows::conversation)?;
    items::attach(db, &mut found)?;
    Ok(found.into_iter().map(|(_, conversation)| conversation).collect())
}

pub(super) fn rename(
    db: &Connection,
    user: &UserId,
    id: &ConversationId,
    title: &str,
    now: UnixMicros,
) -> Result<()> {
    let head = Head::of_user(db, user, id)?;
    db.execute("UPDATE conversations SET user_title = ?2 WHERE rid = ?1", params![head.rid, title])?;
    // Its text begins with the title.
    embeddings::changed(db, head.rid, now)?;
    search::index_title(db, head.rid)
}

pub(super) fn set_geolocation(
    db: &Connection,
    user: &UserId,
    id: &ConversationId,
    place: &Geolocation,
) -> Result<()> {
    let head = Head::of_user(db, user, id)?;
    let json = rows::geolocation_json(place)?;
    db.execute("UPDATE conversations SET geolocation = ?2 WHERE rid = ?1", params![head.rid, json])?;
    Ok(())
}
