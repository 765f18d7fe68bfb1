//! Hearing a conversation again, and its revisions.

use std::sync::Arc;

use auricle_core::{
    Conversation, ConversationId, ConversationStatus, JobId, Limits, Revision as Number, Segment, Structured,
    UnixMicros, UserId,
};
use auricle_store::kept::KeptAudio;
use auricle_store::spool::Spool;
use auricle_store::{NewRetranscription, StoreError, UploadState};
use auricle_wire::rest::Problem;
use auricle_wire::retranscription::{RetranscribeRequest, Retranscription, Revision, RevisionSummary};
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::{Notify, Semaphore};

use super::RestState;
use super::answer::{Caller, Id, IdAndNumber, MaybeBody, Refusal};
use crate::convert;

pub(super) const WHAT: &str = "Conversation";

/// Kept audio, and who hears it again.
pub struct Audio {
    /// Where it is.
    pub kept: KeptAudio,
    /// Names of the engines that can be asked for, the preferred one first.
    pub engines: Vec<String>,
    /// Wakes whoever hears again.
    pub wake: Arc<Notify>,
    /// Where audio is before.
    pub spool: Spool,
    /// `limits.audio_answers_running_max` places.
    pub answers: Arc<Semaphore>,
}

impl Audio {
    /// With all places free.
    pub fn new(kept: KeptAudio, engines: Vec<String>, spool: Spool, limits: &Limits) -> Self {
        let answers = Arc::new(Semaphore::new(limits.audio_answers_running_max));
        Self { kept, engines, wake: Arc::default(), spool, answers }
    }
}

fn shown(work: &auricle_store::Retranscription) -> Retranscription {
    Retranscription {
        id: work.id.as_str().to_owned(),
        conversation_id: work.conversation.as_str().to_owned(),
        engine: work.engine.clone(),
        status: match work.state {
            UploadState::Leased => "transcribing",
            other => other.as_str(),
        }
        .to_owned(),
        attempts: work.attempts,
        error: work.last_error.clone(),
        heard_secs: work.heard_secs,
        revision: work.revision.map(|revision| revision.0),
        created_at: convert::time(work.created_at),
        updated_at: convert::time(work.updated_at),
    }
}

fn summary(summary: &auricle_store::RevisionSummary) -> RevisionSummary {
    RevisionSummary {
        revision: summary.revision.0,
        current: summary.replaced_at.is_none(),
        engines: summary.engines.clone(),
        segments: summary.segments,
        replaced_at: summary.replaced_at.map(convert::time),
    }
}

/// A transcript with what was understood of it.
fn whole(
    conversation: &ConversationId,
    of: &auricle_store::RevisionSummary,
    started_at: UnixMicros,
    structured: &Structured,
    segments: &[Segment],
) -> Revision {
    let RevisionSummary { revision, current, engines, replaced_at, .. } = summary(of);
    Revision {
        conversation_id: conversation.as_str().to_owned(),
        revision,
        current,
        engines,
        replaced_at,
        started_at: convert::time(started_at),
        title: structured.title.clone(),
        overview: structured.overview.clone(),
        transcript_segments: segments.iter().map(convert::segment).collect(),
    }
}

/// A replaced transcript, as it was.
pub(super) fn old(conversation: &ConversationId, old: &auricle_store::OldRevision) -> Revision {
    whole(conversation, &old.summary, old.started_at, &old.structured, &old.segments)
}

pub(super) fn conflict(text: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::CONFLICT, text)
}

pub(super) async fn load(
    state: &RestState,
    user: &UserId,
    id: &ConversationId,
) -> Result<Conversation, Refusal> {
    let found = state.store.conversation(user, id).await.map_err(|error| Refusal::store(WHAT, error))?;
    found.ok_or_else(|| Refusal::not_found(WHAT))
}

/// Whether there is anything to hear. What is still to come from the spool counts.
async fn has_audio(state: &RestState, user: &UserId, id: &ConversationId) -> Result<bool, Refusal> {
    if state.live.awaits_repair(id) {
        return Ok(true);
    }
    let uploads = state.store.uploads_of(user, id).await.map_err(|error| Refusal::store(WHAT, error))?;
    let (kept, vault) = (state.audio.kept.clone(), state.files.vault.clone());
    let (user, id) = (user.clone(), id.clone());
    let found = tokio::task::spawn_blocking(move || {
        let is_there = |upload: &auricle_store::Upload| {
            kept.uploads().has(&user, &upload.id) || vault.has(&user, &upload.id)
        };
        Ok::<_, std::io::Error>(uploads.iter().any(is_there) || kept.bytes_of(&user, &id)? > 0)
    });
    let found = found.await.map_err(std::io::Error::other).and_then(|found| found);
    found.map_err(|error| Refusal::internal(&error))
}

/// Hears a conversation again, by another engine, from the audio that is kept of it (`audio.keep`). The transcript becomes a new
/// revision, its record is made anew, and the old one stays readable; what a user edited stays, and nobody is told of it again. Until
/// then, and if it fails, all is as it was. The same engine asked again while it is at it is the same work.
#[utoipa::path(post, path = "/v1/conversations/{id}/retranscribe", tag = "conversations",
    params(("id" = String, Path, description = "The conversation")),
    request_body(content = Option<RetranscribeRequest>, description = "Which engine; the preferred one if absent"), responses(
    (status = 202, description = "It will be heard; `Location` says where to ask", body = Retranscription),
    (status = 404, description = "No such conversation of this user, or no audio of it is kept", body = Problem),
    (status = 409, description = "It is being heard or processed", body = Problem),
    (status = 422, description = "No such engine is configured", body = Problem),
))]
pub(super) async fn retranscribe(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
    MaybeBody(body): MaybeBody<RetranscribeRequest>,
) -> Result<Response, Refusal> {
    let id = ConversationId::from(id);
    let engines = &state.audio.engines;
    let engine = match body.and_then(|body| body.engine) {
        Some(engine) if !engines.contains(&engine) => {
            return Err(Refusal::invalid(format!("Engines are {} (speech.engines)", engines.join(", "))));
        }
        Some(engine) => engine,
        None => {
            let first = engines.first().cloned();
            first.ok_or_else(|| Refusal::invalid("No speech engine is configured (speech.engines)"))?
        }
    };
    let found = state.store.status(&user, &id).await.map_err(|error| Refusal::store(WHAT, error))?;
    let (status, _) = found.ok_or_else(|| Refusal::not_found(WHAT))?;
    match status {
        ConversationStatus::InProgress => {
            return Err(conflict("The conversation is still in progress; hear it again once it has ended"));
        }
        ConversationStatus::Processing | ConversationStatus::Merging => {
            return Err(conflict("The conversation is being processed; hear it again once that is done"));
        }
        ConversationStatus::Completed | ConversationStatus::Failed => {}
    }
    if !has_audio(&state, &user, &id).await? {
        return Err(Refusal::no_audio());
    }
    let new = NewRetranscription {
        id: JobId::random(&mut rand::rng()),
        user: user.clone(),
        conversation: id.clone(),
        engine,
        now: state.clock.wall(),
    };
    let work = state.store.ask_retranscription(new).await.map_err(|error| match error {
        StoreError::Conflict(_) => {
            conflict("The conversation is being heard again by another engine, or processed; ask again later")
        }
        error => Refusal::store(WHAT, error),
    })?;
    metrics::counter!("auricle_retranscriptions_asked_total").increment(1);
    state.audio.wake.notify_one();
    let place = format!("/v1/conversations/{id}/retranscribe");
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, place)], Json(shown(&work))).into_response())
}

/// How far hearing a conversation again is, or how it ended.
#[utoipa::path(get, path = "/v1/conversations/{id}/retranscribe", tag = "conversations",
    params(("id" = String, Path, description = "The conversation")), responses(
    (status = 200, body = Retranscription),
    (status = 404, description = "No such conversation of this user, or nobody asked", body = Problem),
))]
pub(super) async fn progress(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
) -> Result<Json<Retranscription>, Refusal> {
    let found = state.store.retranscription(&user, &id.into()).await;
    let found = found.map_err(|error| Refusal::store("Retranscription", error))?;
    found.as_ref().map(|work| Json(shown(work))).ok_or_else(|| Refusal::not_found("Retranscription"))
}

/// The transcripts of a conversation: the present one, and those that it replaced, the newest first.
#[utoipa::path(get, path = "/v1/conversations/{id}/revisions", tag = "conversations",
    params(("id" = String, Path, description = "The conversation")), responses(
    (status = 200, body = Vec<RevisionSummary>),
    (status = 404, description = "No such conversation of this user", body = Problem),
))]
pub(super) async fn revisions(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
) -> Result<Json<Vec<RevisionSummary>>, Refusal> {
    let found = state.store.revisions(&user, &id.into()).await;
    let found = found.map_err(|error| Refusal::store(WHAT, error))?;
    Ok(Json(found.iter().map(summary).collect()))
}

/// One of the transcripts of a conversation.
#[utoipa::path(get, path = "/v1/conversations/{id}/revisions/{revision}", tag = "conversations",
    params(
        ("id" = String, Path, description = "The conversation"),
        ("revision" = u32, Path, description = "Its number"),
    ), responses(
    (status = 200, body = Revision),
    (status = 404, description = "No such conversation of this user, or no such revision that is kept", body = Problem),
))]
pub(super) async fn revision(
    Caller(user): Caller,
    State(state): State<RestState>,
    IdAndNumber(id, number): IdAndNumber,
) -> Result<Json<Revision>, Refusal> {
    let id = ConversationId::from(id);
    let absent = || Refusal::not_found("Revision");
    let number = Number(number.ok_or_else(absent)?);
    let all = state.store.revisions(&user, &id).await.map_err(|error| Refusal::store(WHAT, error))?;
    let short = all.into_iter().find(|each| each.revision == number).ok_or_else(absent)?;
    if short.replaced_at.is_none() {
        let now = load(&state, &user, &id).await?;
        return Ok(Json(whole(&id, &short, now.started_at, &now.structured, &now.segments)));
    }
    let found = state.store.old_revision(&user, &id, number).await;
    let found = found.map_err(|error| Refusal::store(WHAT, error))?.ok_or_else(absent)?;
    Ok(Json(old(&id, &found)))
}
