//! Where people's voices were heard.

use auricle_core::{ConversationId, PersonId, SegmentId, UnixMicros, UserId};
use rusqlite::{OptionalExtension, params};

use super::db::Db;
use super::rows;
use crate::store::{Result, SpeakerSample, StoreError};

/// Samples kept of one person; more teach nothing. Full: the oldest go.
const SAMPLES_MAX: u32 = 100;
/// Segments kept of one sample. Full: further ones are not added.
const SEGMENTS_MAX: usize = 200;

pub(super) fn add(
    db: &Db,
    user: &UserId,
    person: &PersonId,
    conversation: &ConversationId,
    segments: &[SegmentId],
    now: UnixMicros,
) -> Result<()> {
    let found: Option<(i64, i64)> = db
        .prepare_cached(
            "SELECT u.rid, c.rid FROM conversations c JOIN users u ON u.rid = c.user WHERE u.id = ?1 AND c.id = ?2",
        )?
        .query_row([user.as_str(), conversation.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (user, conversation) = found.ok_or_else(|| {
        StoreError::NotFound(format!(
            "conversation {conversation} of user {user}, to keep a speaker sample of"
        ))
    })?;
    let kept: Option<String> = db
        .prepare_cached(
            "SELECT segments FROM speaker_samples WHERE user = ?1 AND person = ?2 AND conversation = ?3",
        )?
        .query_row(params![user, person.as_str(), conversation], |row| row.get(0))
        .optional()?;
    let mut all = kept.as_deref().map_or_else(Vec::new, read);
    for segment in segments {
        if all.len() < SEGMENTS_MAX && !all.contains(segment) {
            all.push(segment.clone());
        }
    }
    let text = serde_json::Value::from_iter(all.iter().map(|id| id.as_str())).to_string();
    db.prepare_cached(
        "INSERT INTO speaker_samples (user, person, conversation, segments, kept_at) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (user, person, conversation) DO UPDATE SET segments = ?4, kept_at = ?5",
    )?
    .execute(params![user, person.as_str(), conversation, text, now.0])?;
    db.prepare_cached(
        "DELETE FROM speaker_samples WHERE rid IN (SELECT rid FROM speaker_samples WHERE user = ?1 AND person = ?2 \
         ORDER BY kept_at DESC, rid DESC LIMIT -1 OFFSET ?3)",
    )?
    .execute(params![user, person.as_str(), SAMPLES_MAX])?;
    Ok(())
}

pub(super) fn list(db: &Db, user: &UserId, person: &PersonId, limit: usize) -> Result<Vec<SpeakerSample>> {
    let mut query = db.prepare_cached(
        "SELECT c.id, s.segments, s.kept_at FROM speaker_samples s JOIN users u ON u.rid = s.user \
         JOIN conversations c ON c.rid = s.conversation WHERE u.id = ?1 AND s.person = ?2 \
         ORDER BY s.kept_at DESC, s.rid DESC LIMIT ?3",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    rows::collect(query.query(params![user.as_str(), person.as_str(), limit])?, |row| {
        Ok(SpeakerSample {
            conversation: row.get::<_, String>(0)?.into(),
            segments: read(&row.get::<_, String>(1)?),
            kept_at: UnixMicros(row.get(2)?),
        })
    })
}

fn read(text: &str) -> Vec<SegmentId> {
    let ids: Vec<String> = serde_json::from_str(text).unwrap_or_default();
    ids.into_iter().map(Into::into).collect()
}
