//! Reading, renaming, deleting and reprocessing conversations.

use auricle_core::{ConversationId, ConversationStatus, JobId};
use auricle_store::ListFilter;
use auricle_wire::conversation::{Conversation, Photo};
use auricle_wire::rest::{Problem, RenameRequest, Status};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::answer::{Caller, Id, MaybeBody, Params, Refusal, page_limit, page_offset};
use super::{RestState, status};
use crate::convert;

const WHAT: &str = "Conversation";
/// Characters of a title.
const TITLE_CHARS_MAX: usize = 200;
/// Omi's page.
const PAGE: usize = 100;

/// Which conversations.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// How many at most; 100 if absent.
    limit: Option<usize>,
    /// How many newer ones to leave out.
    offset: Option<usize>,
    /// Comma-separated; all if absent.
    #[param(example = "processing,completed")]
    statuses: Option<String>,
    /// Whether those that were set aside are listed; true if absent, as in Omi.
    include_discarded: Option<bool>,
}

/// Conversations, newest first, without transcripts and photos.
#[utoipa::path(get, path = "/v1/conversations", tag = "conversations", params(ListQuery), responses(
    (status = 200, body = Vec<Conversation>),
    (status = 422, description = "A parameter is wrong", body = Problem),
))]
pub(super) async fn list(
    Caller(user): Caller,
    State(state): State<RestState>,
    Params(query): Params<ListQuery>,
) -> Result<Json<Vec<Conversation>>, Refusal> {
    let filter = ListFilter {
        statuses: statuses(query.statuses.as_deref().unwrap_or_default())?,
        include_discarded: query.include_discarded.unwrap_or(true),
        limit: page_limit(query.limit, PAGE, &state.limits)?,
        offset: page_offset(query.offset)?,
    };
    let found = state.store.list(&user, filter).await.map_err(|error| Refusal::store(WHAT, error))?;
    Ok(Json(found.iter().map(convert::conversation).collect()))
}

fn statuses(text: &str) -> Result<Vec<ConversationStatus>, Refusal> {
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    words
        .map(|word| {
            ConversationStatus::parse(word).ok_or_else(|| {
                let known: Vec<_> = ConversationStatus::ALL.iter().map(|status| status.as_str()).collect();
                Refusal::invalid(format!("Statuses are {}", known.join(", ")))
            })
        })
        .collect()
}

/// One conversation with its transcript and photos.
#[utoipa::path(get, path = "/v1/conversations/{id}", tag = "conversations",
    params(("id" = String, Path, description = "The conversation")), responses(
    (status = 200, body = Conversation),
    (status = 404, description = "No such conversation of this user", body = Problem),
))]
pub(super) async fn read(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
) -> Result<Json<Conversation>, Refusal> {
    let found =
        state.store.conversation(&user, &id.into()).await.map_err(|error| Refusal::store(WHAT, error))?;
    let found = found.ok_or_else(|| Refusal::not_found(WHAT))?;
    Ok(Json(convert::conversation(&found)))
}

/// The photos of a conversation, with their images.
#[utoipa::path(get, path = "/v1/conversations/{id}/photos", tag = "conversations",
    params(("id" = String, Path, description = "The conversation")), responses(
    (status = 200, body = Vec<Photo>),
    (status = 404, description = "No such conversation of this user", body = Problem),
))]
pub(super) async fn photos(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
) -> Result<Json<Vec<Photo>>, Refusal> {
    let found =
        state.store.conversation(&user, &id.into()).await.map_err(|error| Refusal::store(WHAT, error))?;
    let found = found.ok_or_else(|| Refusal::not_found(WHAT))?;
    Ok(Json(found.photos.iter().map(convert::photo).collect()))
}

/// A title in the query, as Omi's app sends it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct TitleQuery {
    /// 1 to 200 characters; may stand in the body instead.
    title: Option<String>,
}

/// Gives a conversation a title of the user's own, which no reprocessing changes.
#[utoipa::path(patch, path = "/v1/conversations/{id}/title", tag = "conversations",
    params(("id" = String, Path, description = "The conversation"), TitleQuery),
    request_body(content = Option<RenameRequest>, description = "Unless the title is in the query"), responses(
    (status = 200, body = Status),
    (status = 404, description = "No such conversation of this user", body = Problem),
    (status = 422, description = "The title is missing, empty or too long", body = Problem),
))]
pub(super) async fn rename(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
    Params(query): Params<TitleQuery>,
    MaybeBody(body): MaybeBody<RenameRequest>,
) -> Result<Json<Status>, Refusal> {
    let title = query.title.or(body.map(|body| body.title)).unwrap_or_default();
    let title = title.trim();
    let printable = !title.chars().any(char::is_control);
    if !(1..=TITLE_CHARS_MAX).contains(&title.chars().count()) || !printable {
        return Err(Refusal::invalid(format!("A title is 1 to {TITLE_CHARS_MAX} printable characters")));
    }
    let renamed = state.store.rename(&user, &id.into(), title, state.clock.wall()).await;
    renamed.map_err(|error| Refusal::store(WHAT, error))?;
    Ok(status("Ok"))
}

/// Deletes a conversation and all that hangs on it, also while it is being heard.
#[utoipa::path(delete, path = "/v1/conversations/{id}", tag = "conversations",
    params(("id" = String, Path, description = "The conversation")), responses(
    (status = 204, description = "It is gone"),
    (status = 404, description = "No such conversation of this user", body = Problem),
))]
pub(super) async fn remove(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
) -> Result<StatusCode, Refusal> {
    let id = ConversationId::from(id);
    let uploads = state.store.uploads_of(&user, &id).await.map_err(|error| Refusal::store(WHAT, error))?;
    state.store.delete(&user, &id).await.map_err(|error| Refusal::store(WHAT, error))?;
    let kept = state.audio.kept.clone();
    let gone = tokio::task::spawn_blocking(move || {
        for upload in uploads.iter().filter(|upload| upload.conversations.len() == 1) {
            kept.uploads().remove(&user, &upload.id)?;
        }
        kept.forget(&user, &id)
    });
    if let Ok(Err(error)) = gone.await {
        // No row names it any more: it is found and removed when kept audio is looked through.
        tracing::warn!(%error, "remove a conversation's audio");
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Makes the record again. The answer is the conversation as it now stands, `processing`; the old record stays readable
/// until the new one is there.
#[utoipa::path(post, path = "/v1/conversations/{id}/reprocess", tag = "conversations",
    params(("id" = String, Path, description = "The conversation")), responses(
    (status = 200, body = Conversation),
    (status = 404, description = "No such conversation of this user", body = Problem),
    (status = 409, description = "It is being heard or processed", body = Problem),
))]
pub(super) async fn reprocess(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
) -> Result<Json<Conversation>, Refusal> {
    let id = ConversationId::from(id);
    let job = JobId::random(&mut rand::rng());
    let queued = state.store.reprocess(&user, &id, job, state.clock.wall()).await;
    queued.map_err(|error| Refusal::store(WHAT, error))?;
    (state.wake_jobs)();
    read(Caller(user), State(state), Id(id.to_string())).await
}
