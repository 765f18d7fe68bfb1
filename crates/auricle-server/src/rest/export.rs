//! Everything a user has, as one ZIP file that is made while it is sent.
//!
//! It runs on a thread of its own beside the background runtime, one conversation in memory at a time; a client that does not
//! read holds it no longer than `limits.request_max`. A conversation that cannot be read is named in `errors.json` rather than
//! left out, and what breaks off has no end, so that no reader takes it for whole.

use std::collections::HashSet;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use auricle_core::{ConversationId, UserId};
use auricle_store::kept::KeptAudio;
use auricle_store::{ActionItemFilter, MemoryFilter, Store, StoreError};
use auricle_wire::export::{Format, write};
use auricle_wire::rest::Problem;
use auricle_wire::retranscription::Revision;
use auricle_wire::time::WireTime;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::answer::{Caller, Refusal};
use super::forms::EXPORT_MAX;
use super::pieces::Pieces;
use super::{RestState, pieces, retranscribe};
use crate::convert;

/// Conversations of one look at the list.
const PAGE: usize = 200;
/// Jobs that are listed; older ones tell nothing about what a user has.
const JOBS_MAX: usize = 1_000;
/// Tries of a read while the store is busy.
const READS_MAX: u32 = 5;
/// Wait between them.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Everything the caller has: `conversations/ID.json`, `.md`, `.srt` and `.vtt`, `user.json`, `jobs.json`, `api_keys.json`
/// (their labels), `action_items.json`, `memories.json`, `days.json`, `messages.json`, `people.json`, `voices.json`,
/// `webhooks.json` (without their secrets), transcripts that were replaced (`conversations/ID.revision-N.json`), `audio.json` about
/// where audio is kept, and `errors.json` about what could not be read.
#[utoipa::path(get, path = "/v1/users/me/export", tag = "users", responses(
    (status = 200, description = "A ZIP file", content_type = "application/zip"),
    (status = 503, description = "Too many exports at once", body = Problem),
))]
pub(super) async fn export(
    Caller(user): Caller,
    State(state): State<RestState>,
) -> Result<Response, Refusal> {
    let Ok(place) = Arc::clone(&state.exports).try_acquire_owned() else {
        return Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many exports at once; try again in a minute",
        ));
    };
    let body = pieces::body(state.limits.request_max, move |out, handle| {
        let _place = place;
        let messages_max = state.limits.messages_per_user_max;
        let kept = state.audio.kept.clone();
        Maker { store: state.store, kept, user, messages_max, handle: handle.clone() }.make(out)
    });
    let headers = [
        (header::CONTENT_TYPE, "application/zip"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"auricle-export.zip\""),
    ];
    Ok((headers, body).into_response())
}

struct Maker {
    store: Arc<dyn Store>,
    kept: KeptAudio,
    user: UserId,
    messages_max: usize,
    handle: Handle,
}

impl Maker {
    /// The whole file.
    fn make(&self, out: Pieces) -> io::Result<()> {
        let mut zip = ZipWriter::new_stream(out);
        let (mut errors, mut audio) = (Vec::new(), Vec::new());
        for id in self.ids()? {
            match self.read(async || self.store.conversation(&self.user, &id).await) {
                Ok(Some(found)) => {
                    let shown = convert::conversation(&found);
                    for format in Format::ALL {
                        let name = format!("conversations/{}.{}", file_name(&id), format.extension());
                        file(&mut zip, &name, write(&shown, format, &when).as_bytes())?;
                    }
                    for (number, old) in self.old_revisions(&id).map_err(io::Error::other)? {
                        let name = format!("conversations/{}.revision-{number}.json", file_name(&id));
                        file(&mut zip, &name, &serde_json::to_vec_pretty(&old).map_err(io::Error::other)?)?;
                    }
                    audio.extend(self.audio(&id).map_err(io::Error::other)?);
                }
                // Deleted meanwhile.
                Ok(None) => {}
                Err(error) if error.is_retryable() => return Err(io::Error::other(error)),
                Err(error) => {
                    tracing::error!(%error, conversation.id = %id, "export a conversation");
                    errors.push(json!({ "conversation_id": id.as_str(), "error": "it cannot be read" }));
                }
            }
        }
        for (name, records) in self.records().map_err(io::Error::other)? {
            let text = serde_json::to_vec_pretty(&records).map_err(io::Error::other)?;
            file(&mut zip, name, &text)?;
        }
        if !audio.is_empty() {
            file(&mut zip, "audio.json", Value::from(audio).to_string().as_bytes())?;
        }
        if !errors.is_empty() {
            file(&mut zip, "errors.json", Value::from(errors).to_string().as_bytes())?;
        }
        zip.finish().map_err(io::Error::other)?.into_inner().flush()
    }

    /// Transcripts of a conversation that were replaced. What cannot be read is told and left out.
    fn old_revisions(&self, id: &ConversationId) -> Result<Vec<(u32, Revision)>, StoreError> {
        let (store, user) = (&self.store, &self.user);
        let all = match self.read(async || store.revisions(user, id).await) {
            // Deleted meanwhile.
            Err(StoreError::NotFound(_)) => return Ok(Vec::new()),
            all => all?,
        };
        let mut found = Vec::new();
        for old in all.iter().filter(|each| each.replaced_at.is_some()) {
            match self.read(async || store.old_revision(user, id, old.revision).await) {
                Ok(old) => found.extend(old.map(|old| (old.summary.revision.0, retranscribe::old(id, &old)))),
                Err(error) if error.is_retryable() => return Err(error),
                Err(error) => tracing::error!(%error, conversation.id = %id, "export a revision"),
            }
        }
        Ok(found)
    }

    /// Where a conversation's audio is, if it is kept. It is not part of the file: it may be as large as all the rest of a disk.
    fn audio(&self, id: &ConversationId) -> Result<Option<Value>, StoreError> {
        let uploads = self.read(async || self.store.uploads_of(&self.user, id).await)?;
        let kept = uploads.iter().filter(|upload| self.kept.uploads().has(&self.user, &upload.id));
        let files: Vec<&str> = kept.map(|upload| upload.id.as_str()).collect();
        let bytes = self.kept.bytes_of(&self.user, id).unwrap_or(0);
        Ok((bytes > 0 || !files.is_empty()).then(|| {
            json!({ "conversation_id": id.as_str(), "frames_bytes": bytes, "uploads": files,
                "kept_in": "the folder `audio` of the server's data folder" })
        }))
    }

    /// What a user has besides conversations: a line for each kind of record.
    fn records(&self) -> Result<Vec<(&'static str, Value)>, StoreError> {
        let (store, user) = (&self.store, &self.user);
        let zone = self.read(async || store.time_zone(user).await)?;
        let language = self.read(async || store.language(user).await)?;
        let jobs = self.read(async || store.jobs(Some(user), None, JOBS_MAX).await)?;
        let keys = self.read(async || store.api_keys(user).await)?;
        let filter = ActionItemFilter { limit: EXPORT_MAX, ..ActionItemFilter::default() };
        let items = self.read(async || store.action_items(user, filter.clone()).await)?;
        let filter = MemoryFilter { limit: EXPORT_MAX, ..MemoryFilter::default() };
        let memories = self.read(async || store.memories(user, filter.clone()).await)?;
        // As many as there may be.
        let messages = self.read(async || store.messages(user, self.messages_max, 0).await)?;
        let targets = self.read(async || store.targets(user).await)?;
        let days = self.read(async || store.days(user, EXPORT_MAX, 0).await)?;
        let people = self.read(async || store.people(user).await)?;
        let voices = self.read(async || store.voices(user, None).await)?;
        let key = |(label, at): &(String, _)| json!({ "label": label, "created_at": convert::time(*at) });
        Ok(vec![
            ("user.json", json!({ "uid": user.as_str(), "time_zone": zone, "language": language })),
            ("jobs.json", json!(jobs.iter().map(convert::job).collect::<Vec<_>>())),
            ("api_keys.json", json!(keys.iter().map(key).collect::<Vec<_>>())),
            ("action_items.json", json!(items.iter().map(convert::action_item).collect::<Vec<_>>())),
            ("memories.json", json!(memories.iter().map(convert::memory).collect::<Vec<_>>())),
            ("messages.json", json!(messages.iter().map(convert::message).collect::<Vec<_>>())),
            ("days.json", json!(days.iter().map(convert::day).collect::<Vec<_>>())),
            ("people.json", json!(people.iter().map(convert::person).collect::<Vec<_>>())),
            ("voices.json", json!(voices.iter().map(convert::voice).collect::<Vec<_>>())),
            ("webhooks.json", json!(targets.iter().map(convert::webhook).collect::<Vec<_>>())),
        ])
    }

    /// Of all conversations there are, newest first. New ones push others onto later pages, so some come twice.
    fn ids(&self) -> io::Result<Vec<ConversationId>> {
        let (mut ids, mut seen) = (Vec::new(), HashSet::new());
        let mut offset = 0;
        loop {
            let page = self.page(offset).map_err(io::Error::other)?;
            let found = page.len();
            ids.extend(page.into_iter().filter(|id| seen.insert(id.clone())));
            if found < PAGE {
                return Ok(ids);
            }
            offset += PAGE;
        }
    }

    fn page(&self, offset: usize) -> Result<Vec<ConversationId>, StoreError> {
        self.read(async || self.store.conversation_ids(&self.user, PAGE, offset).await)
    }

    /// A read, again while the store is busy.
    fn read<T>(&self, read: impl AsyncFn() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.handle.block_on(async {
            let mut tries = 1;
            loop {
                match read().await {
                    Err(error) if error.is_retryable() && tries < READS_MAX => tries += 1,
                    done => return done,
                }
                tokio::time::sleep(READ_AGAIN_AFTER).await;
            }
        })
    }
}

/// An id that a client chose may hold anything.
fn file_name(id: &ConversationId) -> String {
    let plain =
        |letter: char| if letter.is_ascii_alphanumeric() || "-_".contains(letter) { letter } else { '_' };
    id.as_str().chars().map(plain).collect()
}

fn file(zip: &mut ZipWriter<impl Write + io::Seek>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let options =
        SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).large_file(true);
    zip.start_file(name, options).map_err(io::Error::other)?;
    zip.write_all(bytes)
}

/// A moment, in UTC: the file may be read anywhere.
fn when(at: WireTime) -> String {
    let at = jiff::Timestamp::from_microsecond(at.0).unwrap_or_default();
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}
