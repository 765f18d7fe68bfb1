//! Which conversations are to be embedded, and the vectors that come of it.
//!
//! Invariants: every completion leaves work, in its own transaction, whether anything here embeds or not; vectors change
//! only under a claim's epoch, and not for a conversation that was completed again meanwhile; each change of a user's vectors
//! raises their version (`nearest`).

use std::time::Duration;

use auricle_core::{Epoch, ProcessId, UnixMicros};
use rusqlite::{OptionalExtension, params};

use super::db::Db;
use super::nearest::{self, Code};
use super::rows;
use crate::store::{Embedded, EmbeddingClaim, EmbeddingCounts, EmbeddingOutcome, Result, StoreError};

/// The conversation is to be embedded anew; whoever does so now is fenced.
pub(super) fn changed(db: &Db, conversation: i64, at: UnixMicros) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO embedding_work (conversation, due_at) \
         SELECT rid, ?2 FROM conversations WHERE rid = ?1 AND status = 'completed' AND discarded IS NULL \
         ON CONFLICT (conversation) DO UPDATE SET due_at = ?2, attempts = 0, postponed = 0, leased_by = NULL, \
         epoch = epoch + 1, last_error = NULL",
    )?
    .execute(params![conversation, at.0])?;
    Ok(())
}

/// What is set aside is not searched by meaning.
pub(super) fn set_aside(db: &Db, conversation: i64) -> Result<()> {
    conversation_goes(db, conversation)?;
    db.prepare_cached("DELETE FROM embedding_work WHERE conversation = ?1")?.execute([conversation])?;
    Ok(())
}

/// Its vectors go, and its user's searches notice.
pub(super) fn conversation_goes(db: &Db, conversation: i64) -> Result<()> {
    // Codes go with them.
    let gone = db.prepare_cached("DELETE FROM vectors WHERE conversation = ?1")?.execute([conversation])?;
    if gone > 0 {
        raise_version(db, conversation)?;
    }
    Ok(())
}

fn raise_version(db: &Db, conversation: i64) -> Result<()> {
    // It begins anywhere: a new user may get the key of one who was deleted, and must not meet what is kept of them.
    db.prepare_cached(
        "INSERT INTO vector_versions (user, version) SELECT user, random() >> 2 & 0x1fffffffffffffff FROM conversations \
         WHERE rid = ?1 \
         ON CONFLICT (user) DO UPDATE SET version = version + 1",
    )?
    .execute([conversation])?;
    Ok(())
}

/// Those whose vectors are another model's, and those given up, are due; the newest first.
pub(super) fn requeue(db: &Db, model: &str, now: UnixMicros, limit: usize) -> Result<usize> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    Ok(db
        .prepare_cached(
            "UPDATE embedding_work SET due_at = ?2, attempts = 0, postponed = 0, last_error = NULL WHERE conversation IN \
             (SELECT conversation FROM embedding_work WHERE due_at IS NULL AND model IS NOT ?1 \
             ORDER BY conversation DESC LIMIT ?3)",
        )?
        .execute(params![model, now.0, limit])?)
}

/// Claims the latest due: what was just said is looked for first.
pub(super) fn claim(
    db: &Db,
    process: &ProcessId,
    now: UnixMicros,
    lease: Duration,
) -> Result<Option<EmbeddingClaim>> {
    let due: Option<i64> = db
        .prepare_cached(
            "SELECT conversation FROM embedding_work WHERE due_at <= ?1 ORDER BY due_at DESC, conversation DESC LIMIT 1",
        )?
        .query_row([now.0], |row| row.get(0))
        .optional()?;
    let Some(conversation) = due else { return Ok(None) };
    db.prepare_cached(
        "UPDATE embedding_work SET due_at = ?2, leased_by = ?3, epoch = epoch + 1, attempts = attempts + 1 \
         WHERE conversation = ?1",
    )?
    .execute(params![conversation, (now + lease).0, process.as_str()])?;
    let mut query = db.prepare_cached(
        "SELECT u.id, c.id, w.epoch, w.attempts, w.postponed FROM embedding_work w \
         JOIN conversations c ON c.rid = w.conversation JOIN users u ON u.rid = c.user WHERE w.conversation = ?1",
    )?;
    let mut found = query.query([conversation])?;
    found
        .next()?
        .map(|row| {
            Ok(EmbeddingClaim {
                user: row.get::<_, String>(0)?.into(),
                conversation: row.get::<_, String>(1)?.into(),
                epoch: Epoch(rows::count(row.get(2)?)),
                attempts: row.get(3)?,
                postponed: row.get(4)?,
            })
        })
        .transpose()
}

/// The conversation of a claim that still holds.
fn held(db: &Db, claim: &EmbeddingClaim) -> Result<i64> {
    let id = &claim.conversation;
    let found: Option<(i64, i64, bool)> = db
        .prepare_cached(
            "SELECT w.conversation, w.epoch, w.leased_by IS NOT NULL FROM embedding_work w \
             JOIN conversations c ON c.rid = w.conversation WHERE c.id = ?1",
        )?
        .query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let (conversation, epoch, leased) =
        found.ok_or_else(|| StoreError::NotFound(format!("conversation {id} to embed")))?;
    if rows::count(epoch) != claim.epoch.0 || !leased {
        return Err(StoreError::Fenced(format!(
            "embedding conversation {id} is somebody else's (epoch {epoch}, yours {})",
            claim.epoch
        )));
    }
    Ok(conversation)
}

pub(super) fn renew(db: &Db, claim: &EmbeddingClaim, until: UnixMicros) -> Result<()> {
    let conversation = held(db, claim)?;
    db.prepare_cached("UPDATE embedding_work SET due_at = ?2 WHERE conversation = ?1")?
        .execute(params![conversation, until.0])?;
    Ok(())
}

pub(super) fn complete(db: &Db, claim: &EmbeddingClaim, model: &str, embedded: &[Embedded]) -> Result<()> {
    let conversation = held(db, claim)?;
    db.prepare_cached("DELETE FROM vectors WHERE conversation = ?1")?.execute([conversation])?;
    let mut vectors = db.prepare_cached(
        "INSERT INTO vectors (conversation, ordinal, first_segment, last_segment, vector) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    let mut codes = db.prepare_cached(
        "INSERT INTO vector_codes (rid, user, model, scale, code) \
         SELECT ?1, user, ?3, ?4, ?5 FROM conversations WHERE rid = ?2",
    )?;
    for (ordinal, each) in embedded.iter().enumerate() {
        let Some(vector) = nearest::normalised(&each.vector) else { continue };
        let (first, last) =
            each.segments.as_ref().map(|(first, last)| (first.as_str(), last.as_str())).unzip();
        let ordinal = i64::try_from(ordinal).unwrap_or(i64::MAX);
        vectors.execute(params![conversation, ordinal, first, last, nearest::to_blob(&vector)])?;
        let Code { scale, bytes } = Code::of(&vector);
        let bytes: Vec<u8> = bytes.into_iter().map(i8::cast_unsigned).collect();
        codes.execute(params![db.last_insert_rowid(), conversation, model, f64::from(scale), bytes])?;
    }
    db.prepare_cached(
        "UPDATE embedding_work SET model = ?2, due_at = NULL, leased_by = NULL, attempts = 0, postponed = 0, \
         last_error = NULL WHERE conversation = ?1",
    )?
    .execute(params![conversation, model])?;
    raise_version(db, conversation)
}

pub(super) fn end(
    db: &Db,
    claim: &EmbeddingClaim,
    outcome: &EmbeddingOutcome,
    now: UnixMicros,
) -> Result<()> {
    let conversation = held(db, claim)?;
    let (due_at, uncounted, postponed, error) = match outcome {
        EmbeddingOutcome::Retry { at, error } => (Some(at.0), 0, 0, Some(error)),
        EmbeddingOutcome::Postponed { at, error } => (Some(at.0), 1, claim.postponed + 1, Some(error)),
        EmbeddingOutcome::Released => (Some(now.0), 1, claim.postponed, None),
        EmbeddingOutcome::GivenUp { error } => (None, 0, 0, Some(error)),
    };
    db.prepare_cached(
        "UPDATE embedding_work SET due_at = ?2, attempts = attempts - ?3, postponed = ?4, leased_by = NULL, \
         model = iif(?2 IS NULL, NULL, model), last_error = coalesce(?5, last_error) WHERE conversation = ?1",
    )?
    .execute(params![conversation, due_at, uncounted, postponed, error])?;
    Ok(())
}

pub(super) fn counts(db: &Db) -> Result<EmbeddingCounts> {
    let count = |sql: &str| -> Result<u64> {
        Ok(db.prepare_cached(sql)?.query_row([], |row| row.get(0).map(rows::count))?)
    };
    Ok(EmbeddingCounts {
        pending: count("SELECT count(*) FROM embedding_work WHERE due_at IS NOT NULL")?,
        failed: count("SELECT count(*) FROM embedding_work WHERE due_at IS NULL AND model IS NULL")?,
    })
}
