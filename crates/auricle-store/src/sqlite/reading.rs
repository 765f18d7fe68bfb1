//! Reading conversations, and the user's small edits of them.

use auricle_core::{
    Conversation, ConversationId, ConversationStatus, Geolocation, Revision, UnixMicros, UserId,
};
use rusqlite::{OptionalExtension, params};

use super::db::Db;
use super::live::Head;
use super::{embeddings, items, rows, search};
use crate::protect::Place;
use crate::store::{ListFilter, Result};

/// A conversation's row without segments and photos, with its `rid`.
fn row_of(db: &Db, user: &UserId, id: &ConversationId) -> Result<Option<(i64, Conversation)>> {
    let sql = format!(
        "SELECT {} FROM conversations c JOIN users u ON u.rid = c.user WHERE c.id = ?1 AND u.id = ?2",
        rows::CONVERSATION
    );
    let mut query = db.prepare_cached(&sql)?;
    let mut found = query.query([id.as_str(), user.as_str()])?;
    found.next()?.map(|row| rows::conversation(db, row)).transpose()
}

pub(super) fn conversation(db: &Db, user: &UserId, id: &ConversationId) -> Result<Option<Conversation>> {
    let Some(found) = row_of(db, user, id)? else { return Ok(None) };
    let mut found = [found];
    items::attach(db, &mut found)?;
    let [(rid, mut found)] = found;
    found.segments = rows::segments(db, rid, &found)?;
    found.photos = rows::photos(db, rid, &found)?;
    Ok(Some(found))
}

pub(super) fn status(
    db: &Db,
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

pub(super) fn current(db: &Db, user: &UserId) -> Result<Option<ConversationId>> {
    let id: Option<String> = db
        .prepare_cached(
            "SELECT c.id FROM conversations c JOIN users u ON u.rid = c.user WHERE u.id = ?1 \
             AND c.status = 'in_progress' ORDER BY c.finished_at DESC, c.rid DESC LIMIT 1",
        )?
        .query_row([user.as_str()], |row| row.get(0))
        .optional()?;
    Ok(id.map(Into::into))
}

pub(super) fn list(db: &Db, user: &UserId, filter: &ListFilter) -> Result<Vec<Conversation>> {
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
    let mut found = rows::collect(found, |row| rows::conversation(db, row))?;
    items::attach(db, &mut found)?;
    Ok(found.into_iter().map(|(_, conversation)| conversation).collect())
}

pub(super) fn ids(db: &Db, user: &UserId, limit: usize, offset: usize) -> Result<Vec<ConversationId>> {
    let mut query = db.prepare_cached(
        "SELECT c.id FROM conversations c JOIN users u ON u.rid = c.user WHERE u.id = ?1 \
         ORDER BY c.created_at DESC, c.rid DESC LIMIT ?2 OFFSET ?3",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    let found = query.query(params![user.as_str(), limit, offset])?;
    rows::collect(found, |row| Ok(row.get::<_, String>(0)?.into()))
}

pub(super) fn rename(
    db: &Db,
    user: &UserId,
    id: &ConversationId,
    title: &str,
    now: UnixMicros,
) -> Result<()> {
    let head = Head::of_user(db, user, id)?;
    let sealed = db.seal(user.as_str(), Place::new("conversations", "user_title", &[id.as_str()]), title);
    db.execute("UPDATE conversations SET user_title = ?2 WHERE rid = ?1", params![head.rid, sealed])?;
    // Its text begins with the title.
    embeddings::changed(db, head.rid, now)?;
    search::index_title(db, head.rid)
}

pub(super) fn set_geolocation(
    db: &Db,
    user: &UserId,
    id: &ConversationId,
    place: &Geolocation,
) -> Result<()> {
    let head = Head::of_user(db, user, id)?;
    let json = rows::geolocation_json(place)?;
    let json = db.seal(user.as_str(), Place::new("conversations", "geolocation", &[id.as_str()]), &json);
    db.execute("UPDATE conversations SET geolocation = ?2 WHERE rid = ?1", params![head.rid, json])?;
    Ok(())
}
