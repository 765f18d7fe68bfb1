//! People a user knows, their voices, and segments assigned to them.

use auricle_core::session::SpeakerAssignment;
use auricle_core::{Assignee, ConversationId, PersonId, SegmentId, Speaker, UnixMicros, UserId};
use rusqlite::{OptionalExtension, Row, params};

use super::db::Db;
use super::live::Head;
use super::nearest::{from_blob, to_blob};
use super::{accounts, rows};
use crate::protect::Place;
use crate::store::{Person, Result, SegmentChoice, StoreError, Voice};

const PERSON: &str = "p.id, p.name, p.created_at, p.updated_at, \
     (SELECT count(*) FROM voices v WHERE v.person = p.rid) FROM people p JOIN users u ON u.rid = p.user";

/// Speakers of a resumed conversation who are known again; a session remembers no more.
const SPEAKERS_MAX: i64 = 64;
/// As clients name the owner.
const OWNER: &str = "User";

fn name_of<'a>(id: &'a [&'a str]) -> Place<'a> {
    Place::new("people", "name", id)
}

fn person(db: &Db, user: &UserId, row: &Row<'_>) -> Result<Person> {
    let id: String = row.get(0)?;
    Ok(Person {
        name: db.open(user.as_str(), name_of(&[&id]), row.get(1)?)?,
        id: id.into(),
        created_at: UnixMicros(row.get(2)?),
        updated_at: UnixMicros(row.get(3)?),
        voices: rows::count(row.get(4)?),
    })
}

fn missing(id: &PersonId) -> StoreError {
    StoreError::NotFound(format!("person {id}"))
}

/// In the order they were made: as many as there may be.
pub(super) fn list(db: &Db, user: &UserId) -> Result<Vec<Person>> {
    let mut query =
        db.prepare_cached(&format!("SELECT {PERSON} WHERE u.id = ?1 ORDER BY p.created_at, p.rid"))?;
    rows::collect(query.query([user.as_str()])?, |row| person(db, user, row))
}

pub(super) fn find(db: &Db, user: &UserId, id: &PersonId) -> Result<Option<Person>> {
    let mut query = db.prepare_cached(&format!("SELECT {PERSON} WHERE p.id = ?1 AND u.id = ?2"))?;
    let mut found = query.query([id.as_str(), user.as_str()])?;
    found.next()?.map(|row| person(db, user, row)).transpose()
}

fn rid_of(db: &Db, user: &UserId, id: &PersonId) -> Result<i64> {
    db.prepare_cached(
        "SELECT p.rid FROM people p JOIN users u ON u.rid = p.user WHERE p.id = ?1 AND u.id = ?2",
    )?
    .query_row([id.as_str(), user.as_str()], |row| row.get(0))
    .optional()?
    .ok_or_else(|| missing(id))
}

/// By name, whatever its case. Names may be sealed: all are looked at.
pub(super) fn named(db: &Db, user: &UserId, name: &str) -> Result<Option<Person>> {
    let wanted = name.to_lowercase();
    Ok(list(db, user)?.into_iter().find(|person| person.name.to_lowercase() == wanted))
}

pub(super) fn named_or_new(
    db: &Db,
    user: &UserId,
    name: &str,
    fresh: &PersonId,
    now: UnixMicros,
    people_max: usize,
) -> Result<Person> {
    if let Some(found) = named(db, user, name)? {
        return Ok(found);
    }
    if list(db, user)?.len() >= people_max {
        return Err(StoreError::Conflict(format!("user {user} has {people_max} people already")));
    }
    let (owner, _) = accounts::ensure(db, user, now)?;
    let sealed = db.seal(user.as_str(), name_of(&[fresh.as_str()]), name);
    db.prepare_cached(
        "INSERT INTO people (id, user, name, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?4) ON CONFLICT DO NOTHING",
    )?
    .execute(params![fresh.as_str(), owner, sealed, now.0])?;
    find(db, user, fresh)?.ok_or_else(|| StoreError::Conflict(format!("the id {fresh} is taken")))
}

pub(super) fn rename(db: &Db, user: &UserId, id: &PersonId, name: &str, now: UnixMicros) -> Result<Person> {
    let rid = rid_of(db, user, id)?;
    if named(db, user, name)?.is_some_and(|other| other.id != *id) {
        return Err(StoreError::Conflict("another person has this name".into()));
    }
    let sealed = db.seal(user.as_str(), name_of(&[id.as_str()]), name);
    db.prepare_cached("UPDATE people SET name = ?2, updated_at = ?3 WHERE rid = ?1")?
        .execute(params![rid, sealed, now.0])?;
    find(db, user, id)?.ok_or_else(|| missing(id))
}

/// Takes up to `limit` segments from a person. Returns how many.
pub(super) fn take_segments(db: &Db, user: &UserId, id: &PersonId, limit: usize) -> Result<usize> {
    rid_of(db, user, id)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    Ok(db
        .prepare_cached(
            "UPDATE segments SET person = NULL WHERE rid IN (SELECT s.rid FROM segments s \
             JOIN conversations c ON c.rid = s.conversation JOIN users u ON u.rid = c.user \
             WHERE s.person = ?1 AND u.id = ?2 LIMIT ?3)",
        )?
        .execute(params![id.as_str(), user.as_str(), limit])?)
}

/// With voices, samples, and the segments that are still assigned.
pub(super) fn remove(db: &Db, user: &UserId, id: &PersonId) -> Result<()> {
    let rid = rid_of(db, user, id)?;
    take_segments(db, user, id, usize::MAX)?;
    db.prepare_cached(
        "DELETE FROM speaker_samples WHERE person = ?1 AND user = (SELECT user FROM people WHERE rid = ?2)",
    )?
    .execute(params![id.as_str(), rid])?;
    db.prepare_cached("DELETE FROM people WHERE rid = ?1")?.execute([rid])?;
    Ok(())
}

pub(super) fn add_voice(
    db: &Db,
    user: &UserId,
    voice: &Voice,
    per_person_max: usize,
    per_user_max: usize,
) -> Result<()> {
    let person = rid_of(db, user, &voice.person)?;
    let counted = |sql: &str| -> Result<usize> {
        let found: i64 = db.prepare_cached(sql)?.query_row([person], |row| row.get(0))?;
        Ok(usize::try_from(found).unwrap_or(usize::MAX))
    };
    if db.prepare_cached("SELECT 1 FROM voices WHERE id = ?1")?.exists([&voice.id])? {
        return Ok(());
    }
    let theirs = counted("SELECT count(*) FROM voices WHERE person = ?1")?;
    const ALL: &str = "SELECT count(*) FROM voices WHERE user = (SELECT user FROM people WHERE rid = ?1)";
    let full = counted(ALL)? >= per_user_max;
    if full && theirs == 0 {
        return Err(StoreError::Conflict(format!("user {user} has {per_user_max} voices already")));
    }
    if full || theirs >= per_person_max {
        db.prepare_cached(
            "DELETE FROM voices WHERE rid IN (SELECT rid FROM voices WHERE person = ?1 ORDER BY kept_at, rid LIMIT 1)",
        )?
        .execute([person])?;
    }
    db.prepare_cached(
        "INSERT INTO voices (id, user, person, model, vector, seconds, kept_at) \
         SELECT ?1, user, rid, ?3, ?4, ?5, ?6 FROM people WHERE rid = ?2",
    )?
    .execute(params![
        voice.id,
        person,
        voice.model,
        to_blob(&voice.vector),
        voice.seconds,
        voice.kept_at.0
    ])?;
    Ok(())
}

/// In the order they were kept.
pub(super) fn voices(db: &Db, user: &UserId, model: Option<&str>) -> Result<Vec<Voice>> {
    let mut query = db.prepare_cached(
        "SELECT v.id, p.id, v.model, v.vector, v.seconds, v.kept_at FROM voices v JOIN users u ON u.rid = v.user \
         JOIN people p ON p.rid = v.person WHERE u.id = ?1 AND (?2 IS NULL OR v.model = ?2) ORDER BY v.kept_at, v.rid",
    )?;
    rows::collect(query.query(params![user.as_str(), model])?, |row| {
        Ok(Voice {
            id: row.get(0)?,
            person: row.get::<_, String>(1)?.into(),
            model: row.get(2)?,
            vector: from_blob(row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?),
            seconds: row.get(4)?,
            kept_at: UnixMicros(row.get(5)?),
        })
    })
}

/// Assigns segments anew, whatever they were assigned to. Returns which.
pub(super) fn reassign(
    db: &Db,
    user: &UserId,
    conversation: &ConversationId,
    which: &SegmentChoice,
    to: &Assignee,
) -> Result<Vec<SegmentId>> {
    let head = Head::of_user(db, user, conversation)?;
    let (is_user, person) = to.parts();
    if let Some(person) = person {
        rid_of(db, user, person)?;
    }
    let person = person.map(PersonId::as_str);
    let ids = match which {
        SegmentChoice::Ids(ids) => ids.clone(),
        SegmentChoice::At(index) => {
            let mut query = db.prepare_cached(
                "SELECT id FROM segments WHERE conversation = ?1 ORDER BY start, rid LIMIT 1 OFFSET ?2",
            )?;
            let found = query.query(params![head.rid, i64::try_from(*index).unwrap_or(i64::MAX)])?;
            rows::collect(found, |row| Ok(row.get::<_, String>(0)?.into()))?
        }
        SegmentChoice::Speaker(number) => {
            let mut query = db.prepare_cached("SELECT id, speaker FROM segments WHERE conversation = ?1")?;
            let all = rows::collect(query.query([head.rid])?, |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?))
            })?;
            let number_of = |label: Option<String>| label.map_or(0, |label| Speaker::new(label).number());
            let theirs =
                all.into_iter().filter_map(|(id, label)| (number_of(label) == *number).then(|| id.into()));
            theirs.collect()
        }
    };
    let mut assign = db.prepare_cached(
        "UPDATE segments SET is_user = ?3, person = ?4 WHERE conversation = ?1 AND id = ?2",
    )?;
    let mut assigned = Vec::with_capacity(ids.len());
    for id in ids {
        if assign.execute(params![head.rid, id.as_str(), is_user, person])? > 0 {
            assigned.push(id);
        }
    }
    if assigned.is_empty() {
        return Err(StoreError::NotFound(format!("such segments of conversation {conversation}")));
    }
    Ok(assigned)
}

/// Who the speakers of a conversation are: each as their last assigned segment says. People who are not the user's are left out:
/// nobody knows their name.
pub(super) fn speakers(db: &Db, user: &UserId, conversation: i64) -> Result<Vec<SpeakerAssignment>> {
    let mut query = db.prepare_cached(
        "SELECT speaker, is_user, person, max(start) FROM segments \
         WHERE conversation = ?1 AND (is_user <> 0 OR person IS NOT NULL) GROUP BY speaker LIMIT ?2",
    )?;
    let found = rows::collect(query.query([conversation, SPEAKERS_MAX])?, |row| {
        let label: Option<String> = row.get(0)?;
        let number = label.map_or(0, |label| Speaker::new(label).number());
        Ok((number, row.get::<_, bool>(1)?, row.get::<_, Option<String>>(2)?.map(PersonId::from)))
    })?;
    let mut speakers = Vec::with_capacity(found.len());
    for (speaker_number, is_user, person) in found {
        let (person, name) = match person.filter(|_| !is_user) {
            None => (None, OWNER.to_owned()),
            Some(id) => match find(db, user, &id) {
                Ok(Some(known)) => (Some(id), known.name),
                // A name that cannot be opened must not keep anybody from being heard.
                Ok(None) | Err(StoreError::Damaged(_)) => continue,
                Err(error) => return Err(error),
            },
        };
        speakers.push(SpeakerAssignment { speaker_number, person, name, segments: Vec::new() });
    }
    Ok(speakers)
}
