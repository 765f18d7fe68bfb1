//! Messages to a user: of their apps, and about their webhooks.

use auricle_core::{MessageId, UnixMicros, UserId};
use rusqlite::{OptionalExtension, Row, params};

use super::db::Db;
use super::{SqliteOptions, effects, rows};
use crate::protect::Place;
use crate::store::{Message, NewMessage, Result};

/// The effect that tells a connected client.
const NOTIFY: &str = "notify:message";

const MESSAGE: &str = "m.id, t.id, m.sender, c.id, m.text, m.created_at, m.delivered_at \
     FROM messages m JOIN users u ON u.rid = m.user LEFT JOIN targets t ON t.rid = m.target \
     LEFT JOIN conversations c ON c.rid = m.conversation";

fn message(db: &Db, user: &UserId, row: &Row<'_>) -> Result<Message> {
    let id: String = row.get(0)?;
    let text = db.open(user.as_str(), Place::new("messages", "text", &[&id]), row.get(4)?)?;
    Ok(Message {
        id: id.into(),
        target: row.get::<_, Option<String>>(1)?.map(Into::into),
        sender: row.get(2)?,
        conversation: row.get::<_, Option<String>>(3)?.map(Into::into),
        text,
        created_at: UnixMicros(row.get(5)?),
        delivered_at: row.get::<_, Option<i64>>(6)?.map(UnixMicros),
    })
}

pub(super) fn add(db: &Db, new: &NewMessage, options: &SqliteOptions) -> Result<bool> {
    let of: Option<(i64, i64, String)> = db
        .prepare_cached(
            "SELECT t.rid, t.user, t.name FROM targets t JOIN users u ON u.rid = t.user WHERE t.id = ?1 AND u.id = ?2",
        )?
        .query_row([new.target.as_str(), new.user.as_str()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((target, user, sender)) = of else { return Ok(false) };
    let conversation: Option<i64> = match &new.conversation {
        Some(id) => db
            .prepare_cached("SELECT rid FROM conversations WHERE id = ?1 AND user = ?2")?
            .query_row(params![id.as_str(), user], |row| row.get(0))
            .optional()?,
        None => None,
    };
    let id = effects::named(&format!("{user}:message:{}", new.key));
    let text: String = new.text.chars().take(options.message_chars_max).collect();
    let text = db.seal(new.user.as_str(), Place::new("messages", "text", &[&id]), &text);
    let added = db
        .prepare_cached(
            "INSERT INTO messages (id, user, target, sender, conversation, key, text, created_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
        )?
        .execute(params![id, user, target, sender, conversation, new.key, text, new.now.0])?;
    if added == 0 {
        return Ok(false);
    }
    db.prepare_cached(
        "DELETE FROM messages WHERE rid IN (SELECT rid FROM messages WHERE user = ?1 ORDER BY rid DESC \
         LIMIT -1 OFFSET ?2)",
    )?
    .execute(params![user, i64::try_from(options.messages_per_user_max).unwrap_or(i64::MAX)])?;
    let payload = serde_json::json!({ "message": id }).to_string();
    let subject = format!("message:{id}");
    let effect = effects::Other {
        user: (user, &new.user),
        target: None,
        lane: NOTIFY,
        subject: &subject,
        payload: &payload,
    };
    effects::other(db, &effect, NOTIFY, new.now, new.now)?;
    Ok(true)
}

pub(super) fn list(db: &Db, user: &UserId, limit: usize, offset: usize) -> Result<Vec<Message>> {
    let mut query = db.prepare_cached(&format!(
        "SELECT {MESSAGE} WHERE u.id = ?1 ORDER BY m.rid DESC LIMIT ?2 OFFSET ?3"
    ))?;
    let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
    rows::collect(query.query(params![user.as_str(), number(limit), number(offset)])?, |row| {
        message(db, user, row)
    })
}

pub(super) fn find(db: &Db, user: &UserId, id: &MessageId) -> Result<Option<Message>> {
    let mut query = db.prepare_cached(&format!("SELECT {MESSAGE} WHERE u.id = ?1 AND m.id = ?2"))?;
    let mut found = query.query([user.as_str(), id.as_str()])?;
    found.next()?.map(|row| message(db, user, row)).transpose()
}

pub(super) fn delivered(db: &Db, user: &UserId, id: &MessageId, now: UnixMicros) -> Result<()> {
    db.prepare_cached(
        "UPDATE messages SET delivered_at = coalesce(delivered_at, ?3) \
         WHERE id = ?2 AND user = (SELECT rid FROM users WHERE id = ?1)",
    )?
    .execute(params![user.as_str(), id.as_str(), now.0])?;
    Ok(())
}
