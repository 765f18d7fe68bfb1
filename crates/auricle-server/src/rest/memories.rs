//! Memories: lasting facts about the user.

use auricle_core::MemoryId;
use auricle_store::MemoryFilter;
use auricle_wire::rest::{Memory, MemoryChange, NewMemory, Problem};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use super::RestState;
use super::answer::{Body, Caller, Id, Params, Refusal, page_limit, page_offset, written};
use super::forms::{self, EXPORT_MAX, ExportQuery, Format};
use crate::convert;

const WHAT: &str = "Memory";
const PAGE: usize = 100;
const FORMATS: [(&str, Format); 2] = [("json", Format::Json), ("markdown", Format::Markdown)];

/// Which memories.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only those heard in this conversation.
    conversation_id: Option<String>,
    /// How many at most; 100 if absent.
    limit: Option<usize>,
    /// How many newer ones to leave out.
    offset: Option<usize>,
}

/// What is known about the user, newest first.
#[utoipa::path(get, path = "/v1/memories", tag = "memories", params(ListQuery), responses(
    (status = 200, body = Vec<Memory>),
    (status = 422, description = "A parameter is wrong", body = Problem),
))]
pub(super) async fn list(
    Caller(user): Caller,
    State(state): State<RestState>,
    Params(query): Params<ListQuery>,
) -> Result<Json<Vec<Memory>>, Refusal> {
    let filter = MemoryFilter {
        conversation: query.conversation_id.map(Into::into),
        limit: page_limit(query.limit, PAGE, &state.limits)?,
        offset: page_offset(query.offset)?,
    };
    let found = state.store.memories(&user, filter).await.map_err(|error| Refusal::store(WHAT, error))?;
    Ok(Json(found.iter().map(convert::memory).collect()))
}

/// All of the user's memories in one file, newest first.
#[utoipa::path(get, path = "/v1/memories/export", tag = "memories", params(ExportQuery), responses(
    (status = 200, content((Vec<Memory> = "application/json"), (String = "text/markdown"))),
    (status = 422, description = "There is no such form", body = Problem),
))]
pub(super) async fn export(
    Caller(user): Caller,
    State(state): State<RestState>,
    Params(query): Params<ExportQuery>,
) -> Result<Response, Refusal> {
    let format = query.format(&FORMATS)?;
    let filter = MemoryFilter { limit: EXPORT_MAX, ..MemoryFilter::default() };
    let found = state.store.memories(&user, filter).await.map_err(|error| Refusal::store(WHAT, error))?;
    Ok(forms::memories(found.iter().map(convert::memory).collect(), format))
}

/// Makes a memory by hand.
#[utoipa::path(post, path = "/v1/memories", tag = "memories", request_body = NewMemory, responses(
    (status = 201, body = Memory),
    (status = 404, description = "No such conversation of this user", body = Problem),
    (status = 422, description = "The text is empty or too long", body = Problem),
))]
pub(super) async fn create(
    Caller(user): Caller,
    State(state): State<RestState>,
    Body(new): Body<NewMemory>,
) -> Result<(StatusCode, Json<Memory>), Refusal> {
    let new = auricle_store::NewMemory {
        id: MemoryId::random(&mut rand::rng()),
        text: written("A memory", &new.text)?,
        conversation: new.conversation_id.map(Into::into),
        now: state.clock.wall(),
    };
    let made = state.store.add_memory(&user, new).await;
    let made = made.map_err(|error| Refusal::store("Conversation", error))?;
    Ok((StatusCode::CREATED, Json(convert::memory(&made))))
}

/// One memory.
#[utoipa::path(get, path = "/v1/memories/{id}", tag = "memories",
    params(("id" = String, Path, description = "The memory")), responses(
    (status = 200, body = Memory),
    (status = 404, description = "No such memory of this user", body = Problem),
))]
pub(super) async fn read(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
) -> Result<Json<Memory>, Refusal> {
    let found = state.store.memory(&user, &id.into()).await;
    let found = found.map_err(|error| Refusal::store(WHAT, error))?;
    found.map(|memory| Json(convert::memory(&memory))).ok_or_else(|| Refusal::not_found(WHAT))
}

/// Rewords a memory. No reprocessing changes it afterwards.
#[utoipa::path(patch, path = "/v1/memories/{id}", tag = "memories",
    params(("id" = String, Path, description = "The memory")), request_body = MemoryChange, responses(
    (status = 200, body = Memory),
    (status = 404, description = "No such memory of this user", body = Problem),
    (status = 422, description = "The text is empty or too long", body = Problem),
))]
pub(super) async fn change(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
    Body(change): Body<MemoryChange>,
) -> Result<Json<Memory>, Refusal> {
    let text = written("A memory", &change.text)?;
    let changed = state.store.edit_memory(&user, &id.into(), &text, state.clock.wall()).await;
    let changed = changed.map_err(|error| Refusal::store(WHAT, error))?;
    Ok(Json(convert::memory(&changed)))
}

/// Deletes a memory. Its like does not come back when its conversation is processed again.
#[utoipa::path(delete, path = "/v1/memories/{id}", tag = "memories",
    params(("id" = String, Path, description = "The memory")), responses(
    (status = 204, description = "It is gone"),
    (status = 404, description = "No such memory of this user", body = Problem),
))]
pub(super) async fn remove(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
) -> Result<StatusCode, Refusal> {
    let removed = state.store.remove_memory(&user, &id.into(), state.clock.wall()).await;
    removed.map_err(|error| Refusal::store(WHAT, error))?;
    Ok(StatusCode::NO_CONTENT)
}
