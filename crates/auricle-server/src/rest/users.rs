//! The user who asks, and their time zone.

use auricle_wire::rest::{Problem, Status, TimeZoneRequest, User};
use axum::Json;
use axum::extract::State;

use super::answer::{Body, Caller, Refusal};
use super::{RestState, status};

const WHAT: &str = "User";

/// Who the credentials belong to.
#[utoipa::path(get, path = "/v1/users/me", tag = "users", responses((status = 200, body = User)))]
pub(super) async fn me(Caller(user): Caller, State(state): State<RestState>) -> Result<Json<User>, Refusal> {
    let time_zone = state.store.time_zone(&user).await.map_err(|error| Refusal::store(WHAT, error))?;
    Ok(Json(User { uid: user.to_string(), time_zone }))
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
