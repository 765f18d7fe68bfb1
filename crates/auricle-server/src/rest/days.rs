//! Days: their summaries, and making one by hand.

use auricle_process::days::due::{Day as Span, date_at};
use auricle_store::PlannedDay;
use auricle_wire::rest::{Day, Problem};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;
use utoipa::IntoParams;

use super::RestState;
use super::answer::{Caller, Id, Params, Refusal, page_limit, page_offset};
use crate::convert;

const WHAT: &str = "Day";
const PAGE: usize = 30;

/// Which days.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// How many at most; 30 if absent.
    limit: Option<usize>,
    /// How many later ones to leave out.
    offset: Option<usize>,
}

/// The user's days that have a summary, or are to get one, the latest first.
#[utoipa::path(get, path = "/v1/days", tag = "days", params(ListQuery), responses(
    (status = 200, body = Vec<Day>),
    (status = 422, description = "A parameter is wrong", body = Problem),
))]
pub(super) async fn list(
    Caller(user): Caller,
    State(state): State<RestState>,
    Params(query): Params<ListQuery>,
) -> Result<Json<Vec<Day>>, Refusal> {
    let (limit, offset) = (page_limit(query.limit, PAGE, &state.limits)?, page_offset(query.offset)?);
    let found = state.store.days(&user, limit, offset).await;
    let found = found.map_err(|error| Refusal::store(WHAT, error))?;
    Ok(Json(found.iter().map(convert::day).collect()))
}

/// One day.
#[utoipa::path(get, path = "/v1/days/{date}", tag = "days",
    params(("date" = String, Path, description = "YYYY-MM-DD")), responses(
    (status = 200, body = Day),
    (status = 404, description = "Nobody was heard on that day, or no summary of it is to be made", body = Problem),
    (status = 422, description = "It is no date", body = Problem),
))]
pub(super) async fn read(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(date): Id,
) -> Result<Json<Day>, Refusal> {
    let date = parsed(&date)?.to_string();
    let found = state.store.day(&user, &date).await.map_err(|error| Refusal::store(WHAT, error))?;
    found.map(|day| Json(convert::day(&day))).ok_or_else(|| Refusal::not_found(WHAT))
}

/// Makes a day's summary, or makes it again, of the records there are now: in the user's time zone, also of today, and whether or
/// not summaries are made by themselves (`days.summary`). The old one is shown until then. Webhooks hear of each day once, after
/// it is over.
#[utoipa::path(post, path = "/v1/days/{date}/summarise", tag = "days",
    params(("date" = String, Path, description = "YYYY-MM-DD")), responses(
    (status = 202, description = "It is being made", body = Day),
    (status = 404, description = "There is no record of that day", body = Problem),
    (status = 422, description = "It is no date, or one to come", body = Problem),
))]
pub(super) async fn summarise(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(date): Id,
) -> Result<(StatusCode, Json<Day>), Refusal> {
    let date = parsed(&date)?;
    let now = state.clock.wall();
    let zone = state.store.time_zone(&user).await.map_err(|error| Refusal::store(WHAT, error))?;
    let zone = zone.and_then(|name| TimeZone::get(&name).ok()).unwrap_or_else(|| state.time_zone.clone());
    let span = Span::of(date, &zone).filter(|_| date_at(now, &zone).is_some_and(|today| date <= today));
    let span = span.ok_or_else(|| Refusal::invalid(format!("{date} is yet to come")))?;
    let day = PlannedDay {
        date: date.to_string(),
        zone: zone.iana_name().unwrap_or("UTC").to_owned(),
        from: span.from,
        until: span.until,
    };
    let asked = state.store.ask_day(&user, day, now).await;
    let asked = asked.map_err(|error| Refusal::store("A record of that day", error))?;
    Ok((StatusCode::ACCEPTED, Json(convert::day(&asked))))
}

fn parsed(text: &str) -> Result<Date, Refusal> {
    let date = text.parse::<Date>().ok().filter(|date| date.to_string() == text);
    date.ok_or_else(|| Refusal::invalid("A day is YYYY-MM-DD, e.g. 2026-11-25"))
}
