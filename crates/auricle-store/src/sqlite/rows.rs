//! Rows to values and back. The JSON columns have types of their own here, since core's types are not a format.
//!
//! Invariant: what cannot be read is `Damaged`, never empty: an unreadable transcript must not look like silence.

use auricle_core::{
    CalendarEvent, Category, Conversation, ConversationStatus, DiscardReason, FinaliseReason, Geolocation,
    JobId, Photo, Provenance, Revision, Section, SectionKind, Segment, SegmentId, Source, Speaker,
    Structured, Translation, UnixMicros, UserId,
};
use std::borrow::Cow;

use rusqlite::{OptionalExtension, Row};
use serde::{Deserialize, Serialize};

use super::db::Db;
use crate::protect::{Place, Sealer, words};
use crate::store::{Result, StoreError};

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        /// `SQLITE_IOERR_READ`, `_SHORT_READ`, `_CORRUPTFS`, `_DATA`.
        const READS: [i32; 4] = [266, 522, 8458, 8202];
        let text = error.to_string();
        match error.sqlite_error() {
            Some(cause) => match cause.code {
                Code::DiskFull => Self::Full(text),
                Code::SystemIoFailure if READS.contains(&cause.extended_code) => Self::Damaged(text),
                Code::SystemIoFailure => Self::Full(text),
                Code::DatabaseBusy | Code::DatabaseLocked => {
                    Self::Busy(format!("another process holds the database: {text}"))
                }
                Code::DatabaseCorrupt | Code::NotADatabase => Self::Damaged(text),
                _ => Self::Other(text),
            },
            None => match error {
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::Utf8Error(..) => Self::Damaged(text),
                _ => Self::Other(text),
            },
        }
    }
}

/// Parses a stable text form; what is none of ours is damage.
pub(super) fn known<T>(parse: impl Fn(&str) -> Option<T>, text: &str, what: &str) -> Result<T> {
    parse(text).ok_or_else(|| StoreError::Damaged(format!("unknown {what} in a row")))
}

pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::Other(format!("not expressible as JSON: {error}")))
}

fn from_json<T: for<'a> Deserialize<'a>>(text: Option<String>, what: &str) -> Result<Option<T>> {
    // serde's own message could quote the text.
    text.map(|text| {
        serde_json::from_str(&text).map_err(|_| StoreError::Damaged(format!("unreadable {what} in a row")))
    })
    .transpose()
}

pub(super) fn count(number: i64) -> u64 {
    number.unsigned_abs()
}

/// Durations as the tables hold them.
pub(super) fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Without action items: those are rows (`items`).
#[derive(Serialize, Deserialize)]
struct StructuredJson {
    title: String,
    overview: String,
    emoji: String,
    category: String,
    events: Vec<EventJson>,
    #[serde(default)]
    sections: Vec<SectionJson>,
}

#[derive(Serialize, Deserialize)]
struct SectionJson {
    heading: String,
    body: String,
    kind: String,
    segments: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct EventJson {
    title: String,
    description: String,
    start: i64,
    duration_minutes: u32,
    created: bool,
}

#[derive(Serialize, Deserialize)]
struct GeolocationJson {
    google_place_id: Option<String>,
    latitude: f64,
    longitude: f64,
    address: Option<String>,
    location_type: Option<String>,
}

pub(super) fn structured_json(structured: &Structured) -> Result<String> {
    to_json(&StructuredJson {
        title: structured.title.clone(),
        overview: structured.overview.clone(),
        emoji: structured.emoji.clone(),
        category: structured.category.as_str().to_owned(),
        events: structured
            .events
            .iter()
            .map(|event| EventJson {
                title: event.title.clone(),
                description: event.description.clone(),
                start: event.start.0,
                duration_minutes: event.duration_minutes,
                created: event.created,
            })
            .collect(),
        sections: structured
            .sections
            .iter()
            .map(|section| SectionJson {
                heading: section.heading.clone(),
                body: section.body.clone(),
                kind: section.kind.as_str().to_owned(),
                segments: section.segments.iter().map(ToString::to_string).collect(),
            })
            .collect(),
    })
}

pub(super) fn structured_value(text: Option<String>) -> Result<Structured> {
    let Some(json) = from_json::<StructuredJson>(text, "structured record")? else {
        return Ok(Structured::default());
    };
    Ok(Structured {
        title: json.title,
        overview: json.overview,
        emoji: json.emoji,
        category: known(Category::parse, &json.category, "category")?,
        action_items: Vec::new(),
        events: json
            .events
            .into_iter()
            .map(|event| CalendarEvent {
                title: event.title,
                description: event.description,
                start: UnixMicros(event.start),
                duration_minutes: event.duration_minutes,
                created: event.created,
            })
            .collect(),
        sections: json
            .sections
            .into_iter()
            .map(|section| {
                Ok(Section {
                    heading: section.heading,
                    body: section.body,
                    kind: known(SectionKind::parse, &section.kind, "kind of section")?,
                    segments: section.segments.into_iter().map(SegmentId::from).collect(),
                })
            })
            .collect::<Result<_>>()?,
    })
}

pub(super) fn geolocation_json(place: &Geolocation) -> Result<String> {
    to_json(&GeolocationJson {
        google_place_id: place.google_place_id.clone(),
        latitude: place.latitude,
        longitude: place.longitude,
        address: place.address.clone(),
        location_type: place.location_type.clone(),
    })
}

pub(super) fn gaps_value(text: Option<String>) -> Result<Vec<(f64, f64)>> {
    Ok(from_json(text, "gaps")?.unwrap_or_default())
}

pub(super) fn translations_json(translations: &[Translation]) -> Result<Option<String>> {
    if translations.is_empty() {
        return Ok(None);
    }
    let pairs: Vec<(&str, &str)> =
        translations.iter().map(|each| (each.lang.as_str(), each.text.as_str())).collect();
    to_json(&pairs).map(Some)
}

/// Columns of [`conversation`], for a table named `c` joined with its `users u`.
pub(super) const CONVERSATION: &str = "c.rid, c.id, u.id, c.created_at, c.started_at, c.finished_at, c.source, c.language, c.status, \
     c.revision, c.structured, c.provider, c.provider_version, c.discarded, c.finalise_reason, c.failure, c.user_title, \
     c.client_id, c.call_id, c.geolocation, c.starred, c.gaps";

/// A conversation without segments and photos, with its `rid`.
pub(super) fn conversation(db: &Db, row: &Row<'_>) -> Result<(i64, Conversation)> {
    let text = |at: usize| row.get::<_, Option<String>>(at);
    let (id, user): (String, String) = (row.get(1)?, row.get(2)?);
    let opened =
        |at: usize, column| db.open_some(&user, Place::new("conversations", column, &[&id]), text(at)?);
    let provenance = match (text(11)?, text(12)?) {
        (Some(provider), Some(version)) => Some(Provenance { provider, version }),
        _ => None,
    };
    // Beside the point of a conversation: a place that cannot be read costs only itself (L13).
    let geolocation = opened(19, "geolocation")
        .and_then(|text| from_json::<GeolocationJson>(text, "geolocation"))
        .unwrap_or_default()
        .map(|place| Geolocation {
            google_place_id: place.google_place_id,
            latitude: place.latitude,
            longitude: place.longitude,
            address: place.address,
            location_type: place.location_type,
        });
    let structured = structured_value(opened(10, "structured")?)?;
    let user_title = opened(16, "user_title")?;
    let found = Conversation {
        id: id.into(),
        user: user.into(),
        created_at: UnixMicros(row.get(3)?),
        started_at: UnixMicros(row.get(4)?),
        finished_at: UnixMicros(row.get(5)?),
        source: known(Source::parse, &row.get::<_, String>(6)?, "source")?,
        language: text(7)?,
        status: known(ConversationStatus::parse, &row.get::<_, String>(8)?, "status")?,
        revision: Revision(row.get(9)?),
        structured,
        provenance,
        discarded: text(13)?.map(|text| known(DiscardReason::parse, &text, "discard reason")).transpose()?,
        finalise_reason: text(14)?.map(|text| known(FinaliseReason::parse, &text, "reason")).transpose()?,
        failure: text(15)?,
        user_title,
        client_conversation_id: text(17)?,
        call_id: text(18)?,
        geolocation,
        starred: row.get(20)?,
        segments: Vec::new(),
        photos: Vec::new(),
        gaps: gaps_value(text(21)?)?,
    };
    Ok((row.get(0)?, found))
}

/// Columns of [`segment`].
pub(super) const SEGMENT: &str =
    "id, text, speaker, is_user, person, start, \"end\", translations, profiled, provider";

pub(super) fn segment(sealer: &Sealer, conversation: &str, row: &Row<'_>) -> Result<Segment> {
    let id: String = row.get(0)?;
    let of = [conversation, id.as_str()];
    let translations: Option<String> = row.get(7)?;
    let translations = translations
        .map(|stored| sealer.open(Place::new("segments", "translations", &of), stored))
        .transpose()?;
    let translations: Option<Vec<(String, String)>> = from_json(translations, "translations")?;
    Ok(Segment {
        text: sealer.open(Place::new("segments", "text", &of), row.get(1)?)?,
        id: id.into(),
        speaker: row.get::<_, Option<String>>(2)?.map(Speaker::new),
        is_user: row.get(3)?,
        person_id: row.get::<_, Option<String>>(4)?.map(Into::into),
        start: row.get(5)?,
        end: row.get(6)?,
        translations: translations
            .unwrap_or_default()
            .into_iter()
            .map(|(lang, text)| Translation { lang, text })
            .collect(),
        speech_profile_processed: row.get(8)?,
        stt_provider: row.get(9)?,
    })
}

/// A segment's texts as the tables and the index hold them.
pub(super) struct Texts<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) translations: Option<String>,
    pub(super) indexed: Cow<'a, str>,
}

/// With a key this is the costly part of storing words: it needs no database, so it need not happen on the writer's thread.
pub(super) fn texts<'a>(sealer: &Sealer, conversation: &str, segment: &'a Segment) -> Result<Texts<'a>> {
    let of = [conversation, segment.id.as_str()];
    let translations = translations_json(&segment.translations)?
        .map(|json| sealer.seal(Place::new("segments", "translations", &of), &json).into_owned());
    let indexed = words::blinded(sealer, &segment.text).map_or(segment.text.as_str().into(), Cow::Owned);
    Ok(Texts { text: sealer.seal(Place::new("segments", "text", &of), &segment.text), translations, indexed })
}

/// The same of many, to be sent to another thread.
pub(super) fn all_texts(
    sealer: &Sealer,
    conversation: &str,
    segments: &[Segment],
) -> Result<Vec<Texts<'static>>> {
    let owned = |texts: Texts<'_>| Texts {
        text: texts.text.into_owned().into(),
        translations: texts.translations,
        indexed: texts.indexed.into_owned().into(),
    };
    segments.iter().map(|segment| texts(sealer, conversation, segment).map(owned)).collect()
}

/// All segments of a conversation, in order of `start`.
pub(super) fn segments(db: &Db, rid: i64, of: &Conversation) -> Result<Vec<Segment>> {
    let sealer = db.sealer(of.user.as_str());
    let mut query = db.prepare_cached(&format!(
        "SELECT {SEGMENT} FROM segments WHERE conversation = ?1 ORDER BY start, rid"
    ))?;
    collect(query.query([rid])?, |row| segment(&sealer, of.id.as_str(), row))
}

/// All photos of a conversation, in order of arrival.
pub(super) fn photos(db: &Db, rid: i64, of: &Conversation) -> Result<Vec<Photo>> {
    let sealer = db.sealer(of.user.as_str());
    let mut query = db.prepare_cached(
        "SELECT id, base64, description, created_at, discarded FROM photos WHERE conversation = ?1 ORDER BY rid",
    )?;
    collect(query.query([rid])?, |row| {
        let id: String = row.get(0)?;
        let place = [of.id.as_str(), id.as_str()];
        let description: Option<String> = row.get(2)?;
        let description = description
            .map(|stored| sealer.open(Place::new("photos", "description", &place), stored))
            .transpose()?;
        Ok(Photo {
            base64: sealer.open(Place::new("photos", "base64", &place), row.get(1)?)?,
            id: id.into(),
            description,
            created_at: UnixMicros(row.get(3)?),
            discarded: row.get(4)?,
        })
    })
}

pub(super) fn collect<T>(
    mut rows: rusqlite::Rows<'_>,
    each: impl Fn(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(each(row)?);
    }
    Ok(found)
}

/// The id of the `number`-th record that a job makes: the same again if the write is repeated.
pub(super) fn derived_id(job: &JobId, kind: &str, number: usize) -> String {
    let name = format!("{job}:{kind}:{number}");
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
}

/// Whose a conversation is and what it is called: the user's id and its own.
pub(super) fn whose(db: &Db, rid: i64) -> Result<(String, String)> {
    Ok(db
        .prepare_cached(
            "SELECT u.id, c.id FROM conversations c JOIN users u ON u.rid = c.user WHERE c.rid = ?1",
        )?
        .query_row([rid], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

/// The key of a conversation's user.
pub(super) fn owner(db: &Db, conversation: i64) -> Result<i64> {
    Ok(db
        .prepare_cached("SELECT user FROM conversations WHERE rid = ?1")?
        .query_row([conversation], |row| row.get(0))?)
}

/// The user's own key; `None` if unknown.
pub(super) fn user_rid(db: &Db, user: &UserId) -> Result<Option<i64>> {
    Ok(db
        .prepare_cached("SELECT rid FROM users WHERE id = ?1")?
        .query_row([user.as_str()], |row| row.get(0))
        .optional()?)
}
