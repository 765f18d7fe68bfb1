//! Action items: what conversations left to do, and what their user makes of it.

use auricle_core::{ActionItemId, UnixMicros};
use auricle_store::{ActionItemEdit, ActionItemFilter};
use auricle_wire::rest::{ActionItem, ActionItemChange, NewActionItem, Problem};
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

const WHAT: &str = "Action item";
const PAGE: usize = 100;
const FORMATS: [(&str, Format); 3] =
    [("json", Format::Json), ("markdown", Format::Markdown), ("csv", Format::Csv)];

/// Which action items.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only those that are done, or that are not; all if absent.
    completed: Option<bool>,
    /// Only those due at this time or later.
    #[param(value_type = Option<String>, format = DateTime)]
    due_from: Option<auricle_wire::time::WireTime>,
    /// Only those due before this time.
    #[param(value_type = Option<String>, format = DateTime)]
    due_before: Option<auricle_wire::time::WireTime>,
    /// Only those heard in this conversation.
    conversation_id: Option<String>,
    /// How many at most; 100 if absent.
    limit: Option<usize>,
    /// How many newer ones to leave out.
    offset: Option<usize>,
}

/// The user's action items, newest first.
#[utoipa::path(get, path = "/v1/action-items", tag = "action items", params(ListQuery), responses(
    (status = 200, body = Vec<ActionItem>),
    (status = 422, description = "A parameter is wrong", body = Problem),
))]
pub(super) async fn list(
    Caller(user): Caller,
    State(state): State<RestState>,
    Params(query): Params<ListQuery>,
) -> Result<Json<Vec<ActionItem>>, Refusal> {
    let filter = ActionItemFilter {
        completed: query.completed,
        due_from: query.due_from.map(|at| UnixMicros(at.0)),
        due_before: query.due_before.map(|at| UnixMicros(at.0)),
        conversation: query.conversation_id.map(Into::into),
        limit: page_limit(query.limit, PAGE, &state.limits)?,
        offset: page_offset(query.offset)?,
        ..ActionItemFilter::default()
    };
    let found = state.store.action_items(&user, filter).await.map_err(|error| Refusal::store(WHAT, error))?;
    Ok(Json(found.iter().map(convert::action_item).collect()))
}

/// All of the user's action items in one file, newest first.
#[utoipa::path(get, path = "/v1/action-items/export", tag = "action items", params(ExportQuery), responses(
    (status = 200, content(
        (Vec<ActionItem> = "application/json"), (String = "text/markdown"), (String = "text/csv"),
    )),
    (status = 422, description = "There is no such form", body = Problem),
))]
pub(super) async fn export(
    Caller(user): Caller,
    State(state): State<RestState>,
    Params(query): Params<ExportQuery>,
) -> Result<Response, Refusal> {
    let format = query.format(&FORMATS)?;
    let filter = ActionItemFilter { limit: EXPORT_MAX, ..ActionItemFilter::default() };
    let found = state.store.action_items(&user, filter).await.map_err(|error| Refusal::store(WHAT, error))?;
    Ok(forms::action_items(found.iter().map(convert::action_item).collect(), format))
}

/// Makes an action item by hand.
#[utoipa::path(post, path = "/v1/action-items", tag = "action items", request_body = NewActionItem, responses(
    (status = 201, body = ActionItem),
    (status = 404, description = "No such conversation of this user", body = Problem),
    (status = 422, description = "The description is empty or too long", body = Problem),
))]
pub(super) async fn create(
    Caller(user): Caller,
    State(state): State<RestState>,
    Body(new): Body<NewActionItem>,
) -> Result<(StatusCode, Json<ActionItem>), Refusal> {
    let new = auricle_store::NewActionItem {
        id: ActionItemId::random(&mut rand::rng()),
        description: written("A description", &new.description)?,
        due_at: new.due_at.map(|at| UnixMicros(at.0)),
        conversation: new.conversation_id.map(Into::into),
        now: state.clock.wall(),
    };
    let made = state.store.add_action_item(&user, new).await;
    let made = made.map_err(|error| Refusal::store("Conversation", error))?;
    Ok((StatusCode::CREATED, Json(convert::action_item(&made))))
}

/// One action item.
#[utoipa::path(get, path = "/v1/action-items/{id}", tag = "action items",
    params(("id" = String, Path, description = "The action item")), responses(
    (status = 200, body = ActionItem),
    (status = 404, description = "No such action item of this user", body = Problem),
))]
pub(super) async fn read(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
) -> Result<Json<ActionItem>, Refusal> {
    let found = state.store.action_item(&user, &id.into()).await;
    let found = found.map_err(|error| Refusal::store(WHAT, error))?;
    found.map(|item| Json(convert::action_item(&item))).ok_or_else(|| Refusal::not_found(WHAT))
}

/// Completes, reopens, rewords or times an action item. What is changed here no reprocessing changes.
#[utoipa::path(patch, path = "/v1/action-items/{id}", tag = "action items",
    params(("id" = String, Path, description = "The action item")), request_body = ActionItemChange, responses(
    (status = 200, body = ActionItem),
    (status = 404, description = "No such action item of this user", body = Problem),
    (status = 422, description = "The description is empty or too long", body = Problem),
))]
pub(super) async fn change(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
    Body(change): Body<ActionItemChange>,
) -> Result<Json<ActionItem>, Refusal> {
    let edit = ActionItemEdit {
        description: change.description.map(|text| written("A description", &text)).transpose()?,
        completed: change.completed,
        due_at: change.due_at.map(|at| at.map(|at| UnixMicros(at.0))),
    };
    let changed = state.store.edit_action_item(&user, &id.into(), edit, state.clock.wall()).await;
    let changed = changed.map_err(|error| Refusal::store(WHAT, error))?;
    Ok(Json(convert::action_item(&changed)))
}

/// Deletes an action item. Its like does not come back when its conversation is processed again.
#[utoipa::path(delete, path = "/v1/action-items/{id}", tag = "action items",
    params(("id" = String, Path, description = "The action item")), responses(
    (status = 204, description = "It is gone"),
    (status = 404, description = "No such action item of this user", body = Problem),
))]
pub(super) async fn remove(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
) -> Result<StatusCode, Refusal> {
    let removed = state.store.remove_action_item(&user, &id.into(), state.clock.wall()).await;
    removed.map_err(|error| Refusal::store(WHAT, error))?;
    Ok(StatusCode::NO_CONTENT)
}
