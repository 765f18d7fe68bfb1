//! The user who asks, their time zone and language.

use auricle_wire::rest::{LanguageRequest, Problem, Status, TimeZoneRequest, User};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::answer::{Body, Caller, Params, Refusal};
use super::{RestState, status};
use crate::config::is_language;

const WHAT: &str = "User";

/// Who the credentials belong to.
#[utoipa::path(get, path = "/v1/users/me", tag = "users", responses((status = 200, body = User)))]
pub(super) async fn me(Caller(user): Caller, State(state): State<RestState>) -> Result<Json<User>, Refusal> {
    let time_zone = state.store.time_zone(&user).await.map_err(|error| Refusal::store(WHAT, error))?;
    let language = state.store.language(&user).await.map_err(|error| Refusal::store(WHAT, error))?;
    Ok(Json(User { uid: user.to_string(), time_zone, language }))
}

/// Sets the language that the user reads: where more than one is spoken, what is said is translated into it
/// (`translation.when`).
#[utoipa::path(put, path = "/v1/users/me/language", tag = "users", request_body = LanguageRequest, responses(
    (status = 200, body = Status),
    (status = 422, description = "It is no language's code", body = Problem),
))]
pub(super) async fn set_language(
    Caller(user): Caller,
    State(state): State<RestState>,
    Body(request): Body<LanguageRequest>,
) -> Result<Json<Status>, Refusal> {
    let language = request.language.as_deref();
    if !language.is_none_or(is_language) {
        return Err(Refusal::invalid("A language is its code, e.g. es or pt-BR"));
    }
    let store = &state.store;
    store.ensure_user(&user, state.clock.wall()).await.map_err(|error| Refusal::store(WHAT, error))?;
    store.set_language(&user, language).await.map_err(|error| Refusal::store(WHAT, error))?;
    Ok(status("Ok"))
}

/// Sets the time zone in which "tomorrow at five" is understood.
#[utoipa::path(put, path = "/v1/users/me/time-zone", tag = "users", request_body = TimeZoneRequest, responses(
    (status = 200, body = Status),
    (status = 422, description = "No such time zone", body = Problem),
))]
pub(super) async fn set_time_zone(
    Caller(user): Caller,
    State(state): State<RestState>,
    Body(request): Body<TimeZoneRequest>,
) -> Result<Json<Status>, Refusal> {
    let zone = request.time_zone.as_str();
    if jiff::tz::TimeZone::get(zone).is_err() {
        return Err(Refusal::invalid("A time zone is an IANA name, e.g. Europe/Madrid"));
    }
    let store = &state.store;
    store.ensure_user(&user, state.clock.wall()).await.map_err(|error| Refusal::store(WHAT, error))?;
    store.set_time_zone(&user, zone).await.map_err(|error| Refusal::store(WHAT, error))?;
    Ok(status("Ok"))
}

/// The user's own id once more, so that no slip deletes everything.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Confirmation {
    /// The caller's own user id.
    confirm: Option<String>,
}

/// Deletes the user: conversations, records, audio, keys, everything. It cannot be undone. The answer comes once it is certain to
/// happen; live sessions are closed (1008, `user deleted`), and the rest is gone within seconds. Whoever comes back with good
/// credentials afterwards is a new user.
#[utoipa::path(delete, path = "/v1/users/me", tag = "users", params(Confirmation), responses(
    (status = 202, description = "It is being deleted", body = Status),
    (status = 422, description = "`confirm` is not the caller's own user id", body = Problem),
))]
pub(super) async fn erase(
    Caller(user): Caller,
    State(state): State<RestState>,
    Params(confirmation): Params<Confirmation>,
) -> Result<(StatusCode, Json<Status>), Refusal> {
    if confirmation.confirm.as_deref() != Some(user.as_str()) {
        return Err(Refusal::invalid("To delete everything, name your own user id: ?confirm=USER_ID"));
    }
    let begun = state.store.begin_erasing(&user, state.clock.wall()).await;
    begun.map_err(|error| Refusal::store(WHAT, error))?;
    state.live.dismiss(&user);
    Ok((StatusCode::ACCEPTED, status("deleting")))
}
