//! Translations of segments, which come after the words.

use auricle_core::{ConversationId, Segment, SegmentId, Translation, UserId};
use rusqlite::{OptionalExtension, params};

use super::db::Db;
use super::live::Head;
use super::rows;
use crate::protect::Place;
use crate::store::Result;

/// Of those whose text is still the one that was translated.
pub(super) fn put(
    db: &Db,
    user: &UserId,
    conversation: &ConversationId,
    translations: &[(SegmentId, String, Translation)],
) -> Result<Vec<Segment>> {
    let head = Head::of_user(db, user, conversation)?;
    let sealer = db.sealer(user.as_str());
    let sql = format!("SELECT {} FROM segments WHERE conversation = ?1 AND id = ?2", rows::SEGMENT);
    let mut find = db.prepare_cached(&sql)?;
    let mut update =
        db.prepare_cached("UPDATE segments SET translations = ?3 WHERE conversation = ?1 AND id = ?2")?;
    let mut changed = Vec::new();
    for (id, of, translation) in translations {
        let mut found = find.query(params![head.rid, id.as_str()])?;
        let Some(row) = found.next()? else { continue };
        let mut segment = rows::segment(&sealer, conversation.as_str(), row)?;
        if segment.text != *of {
            continue;
        }
        segment.translations.retain(|known| known.lang != translation.lang);
        segment.translations.push(translation.clone());
        let json = rows::translations_json(&segment.translations)?;
        let place = [conversation.as_str(), id.as_str()];
        let json =
            json.map(|json| sealer.seal(Place::new("segments", "translations", &place), &json).into_owned());
        update.execute(params![head.rid, id.as_str(), json])?;
        changed.push(segment);
    }
    Ok(changed)
}

/// As stored, of a segment that is stored again with the same text by who does not know of them yet.
pub(super) fn kept(db: &Db, head: &Head, segment: &Segment) -> Result<Option<String>> {
    let found: Option<(String, String)> = db
        .prepare_cached(
            "SELECT text, translations FROM segments WHERE conversation = ?1 AND id = ?2 AND translations IS NOT NULL",
        )?
        .query_row(params![head.rid, segment.id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((text, translations)) = found else { return Ok(None) };
    let place = [head.id.as_str(), segment.id.as_str()];
    let text = db.sealer(&head.user_id).open(Place::new("segments", "text", &place), text);
    // What does not open is written over as ever: words are not held up by it.
    Ok(text.is_ok_and(|text| text == segment.text).then_some(translations))
}
