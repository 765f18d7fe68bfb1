//! Transcripts that were replaced, as they were: sealed like everything that was said, bounded for each conversation.

use auricle_core::{Provenance, Revision, Segment, Speaker, Translation, UnixMicros};
use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::db::Db;
use super::live::Head;
use super::rows;
use crate::protect::Place;
use crate::retranscriptions::{OldRevision, RevisionSummary};
use crate::store::{Result, StoreError};

#[derive(Serialize, Deserialize)]
struct SegmentJson {
    id: String,
    text: String,
    speaker: Option<String>,
    is_user: bool,
    person: Option<String>,
    start: f64,
    end: f64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    translations: Vec<(String, String)>,
    profiled: bool,
    provider: Option<String>,
}

impl From<Segment> for SegmentJson {
    fn from(segment: Segment) -> Self {
        Self {
            id: segment.id.as_str().to_owned(),
            text: segment.text,
            speaker: segment.speaker.map(|speaker| speaker.label().to_owned()),
            is_user: segment.is_user,
            person: segment.person_id.map(|person| person.as_str().to_owned()),
            start: segment.start,
            end: segment.end,
            translations: segment.translations.into_iter().map(|each| (each.lang, each.text)).collect(),
            profiled: segment.speech_profile_processed,
            provider: segment.stt_provider,
        }
    }
}

impl From<SegmentJson> for Segment {
    fn from(json: SegmentJson) -> Self {
        Self {
            id: json.id.into(),
            text: json.text,
            speaker: json.speaker.map(Speaker::new),
            is_user: json.is_user,
            person_id: json.person.map(Into::into),
            start: json.start,
            end: json.end,
            translations: json
                .translations
                .into_iter()
                .map(|(lang, text)| Translation { lang, text })
                .collect(),
            speech_profile_processed: json.profiled,
            stt_provider: json.provider,
        }
    }
}

/// A conversation's segments in order of `start`.
pub(super) fn segments(db: &Db, head: &Head) -> Result<Vec<Segment>> {
    let sealer = db.sealer(&head.user_id);
    let mut query = db.prepare_cached(&format!(
        "SELECT {} FROM segments WHERE conversation = ?1 ORDER BY start, rid",
        rows::SEGMENT
    ))?;
    rows::collect(query.query([head.rid])?, |row| rows::segment(&sealer, &head.id, row))
}

fn engines(segments: &[Segment]) -> Vec<String> {
    let mut engines: Vec<String> = segments.iter().filter_map(|each| each.stt_provider.clone()).collect();
    engines.sort();
    engines.dedup();
    engines
}

fn split(engines: &str) -> Vec<String> {
    engines.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Keeps the present transcript and record; the oldest go, if there are too many.
pub(super) fn keep(db: &Db, head: &Head, max: usize, now: UnixMicros) -> Result<()> {
    let segments = segments(db, head)?;
    let engines = engines(&segments).join(",");
    let count = i64::try_from(segments.len()).unwrap_or(i64::MAX);
    let json: Vec<SegmentJson> = segments.into_iter().map(SegmentJson::from).collect();
    let revision = head.revision.to_string();
    let place = [head.id.as_str(), revision.as_str()];
    let transcript = rows::to_json(&json)?;
    let transcript = db.seal(&head.user_id, Place::new("revisions", "transcript", &place), &transcript);
    let (structured, provider, version): (Option<String>, Option<String>, Option<String>) = db
        .prepare_cached("SELECT structured, provider, provider_version FROM conversations WHERE rid = ?1")?
        .query_row([head.rid], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let structured =
        db.open_some(&head.user_id, Place::new("conversations", "structured", &[&head.id]), structured)?;
    let structured = structured.map(|text| {
        db.seal(&head.user_id, Place::new("revisions", "structured", &place), &text).into_owned()
    });
    db.prepare_cached(
        "INSERT INTO revisions (conversation, revision, started_at, transcript, structured, provider, provider_version, \
         engines, segments, replaced_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        head.rid,
        head.revision,
        head.started_at.0,
        transcript,
        structured,
        provider,
        version,
        engines,
        count,
        now.0
    ])?;
    db.prepare_cached(
        "DELETE FROM revisions WHERE conversation = ?1 AND revision NOT IN \
         (SELECT revision FROM revisions WHERE conversation = ?1 ORDER BY revision DESC LIMIT ?2)",
    )?
    .execute(params![head.rid, i64::try_from(max.max(1)).unwrap_or(i64::MAX)])?;
    Ok(())
}

pub(super) fn list(db: &Db, head: &Head) -> Result<Vec<RevisionSummary>> {
    let mut query = db.prepare_cached(
        "SELECT DISTINCT provider FROM segments WHERE conversation = ?1 AND provider IS NOT NULL ORDER BY provider",
    )?;
    let engines = rows::collect(query.query([head.rid])?, |row| Ok(row.get::<_, String>(0)?))?;
    let count: i64 = db
        .prepare_cached("SELECT count(*) FROM segments WHERE conversation = ?1")?
        .query_row([head.rid], |row| row.get(0))?;
    let mut found = vec![RevisionSummary {
        revision: Revision(head.revision),
        engines,
        segments: rows::count(count),
        replaced_at: None,
    }];
    let mut query = db.prepare_cached(
        "SELECT revision, engines, segments, replaced_at FROM revisions WHERE conversation = ?1 ORDER BY revision DESC",
    )?;
    found.extend(rows::collect(query.query([head.rid])?, |row| {
        Ok(RevisionSummary {
            revision: Revision(row.get(0)?),
            engines: split(&row.get::<_, String>(1)?),
            segments: rows::count(row.get(2)?),
            replaced_at: Some(UnixMicros(row.get(3)?)),
        })
    })?);
    Ok(found)
}

pub(super) fn one(db: &Db, head: &Head, revision: Revision) -> Result<Option<OldRevision>> {
    type Found = (i64, String, Option<String>, Option<String>, Option<String>, String, i64, i64);
    let found: Option<Found> = db
        .prepare_cached(
            "SELECT started_at, transcript, structured, provider, provider_version, engines, segments, replaced_at \
             FROM revisions WHERE conversation = ?1 AND revision = ?2",
        )?
        .query_row(params![head.rid, revision.0], |row| {
            Ok((
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
                row.get(5)?,
                row.get(6)?,
                row.get(7)?,
            ))
        })
        .optional()?;
    let Some((started_at, transcript, structured, provider, version, engines, count, replaced_at)) = found
    else {
        return Ok(None);
    };
    let number = revision.0.to_string();
    let place = [head.id.as_str(), number.as_str()];
    let transcript = db.open(&head.user_id, Place::new("revisions", "transcript", &place), transcript)?;
    let structured =
        db.open_some(&head.user_id, Place::new("revisions", "structured", &place), structured)?;
    // serde's own message could quote the text.
    let segments: Vec<SegmentJson> = serde_json::from_str(&transcript)
        .map_err(|_| StoreError::Damaged("unreadable transcript in a row".into()))?;
    Ok(Some(OldRevision {
        summary: RevisionSummary {
            revision,
            engines: split(&engines),
            segments: rows::count(count),
            replaced_at: Some(UnixMicros(replaced_at)),
        },
        started_at: UnixMicros(started_at),
        structured: rows::structured_value(structured)?,
        provenance: provider.zip(version).map(|(provider, version)| Provenance { provider, version }),
        segments: segments.into_iter().map(Segment::from).collect(),
    }))
}
