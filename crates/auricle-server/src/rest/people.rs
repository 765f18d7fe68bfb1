//! People the user knows, and their voices: what a voice model, wherever it runs, keeps and asks here.

use auricle_core::ids::random_uuid;
use auricle_core::voice::{Certainty, nearest};
use auricle_core::{Limits, PersonId};
use auricle_store::StoreError;
use auricle_wire::people::{MatchRequest, MatchResponse, NewVoice, Person, PersonName, Voice};
use auricle_wire::rest::{Problem, Status};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::answer::{Body, Caller, Id, MaybeBody, Params, Refusal};
use super::{RestState, status};
use crate::convert;

pub(super) const WHAT: &str = "Person";
const NAME_CHARS_MAX: usize = 100;

fn name(what: &str, text: &str) -> Result<String, Refusal> {
    let text = text.trim();
    if !(1..=NAME_CHARS_MAX).contains(&text.chars().count()) || text.chars().any(char::is_control) {
        return Err(Refusal::invalid(format!("{what} is 1 to {NAME_CHARS_MAX} printable characters")));
    }
    Ok(text.to_owned())
}

/// Everybody the user knows, the first first.
#[utoipa::path(get, path = "/v1/users/people", tag = "people", responses((status = 200, body = Vec<Person>)))]
pub(super) async fn list(
    Caller(user): Caller,
    State(state): State<RestState>,
) -> Result<Json<Vec<Person>>, Refusal> {
    let found = state.store.people(&user).await.map_err(|error| Refusal::store(WHAT, error))?;
    Ok(Json(found.iter().map(convert::person).collect()))
}

/// Adds a person. If there is one of this name, in any case, the answer is that one.
#[utoipa::path(post, path = "/v1/users/people", tag = "people", request_body = PersonName, responses(
    (status = 200, body = Person),
    (status = 409, description = "As many people as may be (`limits.people_per_user_max`)", body = Problem),
    (status = 422, description = "The name is empty or too long", body = Problem),
))]
pub(super) async fn create(
    Caller(user): Caller,
    State(state): State<RestState>,
    Body(new): Body<PersonName>,
) -> Result<Json<Person>, Refusal> {
    let name = name("A name", &new.name)?;
    let fresh = PersonId::random(&mut rand::rng());
    let made = state.store.person_named(&user, &name, Some(fresh), state.clock.wall()).await;
    let full = |error| match error {
        StoreError::Conflict(_) => {
            Refusal::new(StatusCode::CONFLICT, "There are as many people as may be; delete one first")
        }
        error => Refusal::store(WHAT, error),
    };
    let made = made.map_err(full)?.ok_or_else(|| Refusal::not_found(WHAT))?;
    Ok(Json(convert::person(&made)))
}

/// One person.
#[utoipa::path(get, path = "/v1/users/people/{id}", tag = "people",
    params(("id" = String, Path, description = "The person")), responses(
    (status = 200, body = Person),
    (status = 404, description = "No such person of this user", body = Problem),
))]
pub(super) async fn read(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
) -> Result<Json<Person>, Refusal> {
    let found = state.store.person(&user, &id.into()).await.map_err(|error| Refusal::store(WHAT, error))?;
    found.map(|person| Json(convert::person(&person))).ok_or_else(|| Refusal::not_found(WHAT))
}

/// A name in the query, as Omi's app sends it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct NameQuery {
    /// 1 to 100 characters; may stand in the body instead, as `name`.
    value: Option<String>,
}

/// Renames a person.
#[utoipa::path(patch, path = "/v1/users/people/{id}/name", tag = "people",
    params(("id" = String, Path, description = "The person"), NameQuery),
    request_body(content = Option<PersonName>, description = "Unless the name is in the query"), responses(
    (status = 200, body = Status),
    (status = 404, description = "No such person of this user", body = Problem),
    (status = 409, description = "Another person has this name", body = Problem),
    (status = 422, description = "The name is missing, empty or too long", body = Problem),
))]
pub(super) async fn rename(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
    Params(query): Params<NameQuery>,
    MaybeBody(body): MaybeBody<PersonName>,
) -> Result<Json<Status>, Refusal> {
    let name = name("A name", &query.value.or(body.map(|body| body.name)).unwrap_or_default())?;
    let renamed = state.store.rename_person(&user, &id.into(), &name, state.clock.wall()).await;
    let taken = |error| match error {
        StoreError::Conflict(_) => Refusal::new(StatusCode::CONFLICT, "Another person has this name"),
        error => Refusal::store(WHAT, error),
    };
    renamed.map_err(taken)?;
    Ok(status("ok"))
}

/// Deletes a person with their voices; what they said is nobody's then.
#[utoipa::path(delete, path = "/v1/users/people/{id}", tag = "people",
    params(("id" = String, Path, description = "The person")), responses(
    (status = 204, description = "They are gone"),
    (status = 404, description = "No such person of this user", body = Problem),
))]
pub(super) async fn remove(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
) -> Result<StatusCode, Refusal> {
    state.store.remove_person(&user, &id.into()).await.map_err(|error| Refusal::store(WHAT, error))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Checks what a voice model says.
fn checked(model: &str, vector: &[f32], limits: &Limits) -> Result<String, Refusal> {
    let max = limits.voice_numbers_max;
    if !(1..=max).contains(&vector.len()) {
        return Err(Refusal::invalid(format!("A vector has 1 to {max} numbers, not {}", vector.len())));
    }
    if vector.iter().any(|number| !number.is_finite()) || vector.iter().all(|number| *number == 0.0) {
        return Err(Refusal::invalid("A vector is of finite numbers that are not all 0"));
    }
    name("A model's name", model)
}

/// Keeps how a person sounds, as a voice model has it. Full (`limits.voices_per_person_max`, `limits.voices_per_user_max`), the
/// oldest of that person goes.
#[utoipa::path(post, path = "/v1/users/people/{id}/voices", tag = "people",
    params(("id" = String, Path, description = "The person")), request_body = NewVoice, responses(
    (status = 201, body = Voice),
    (status = 404, description = "No such person of this user", body = Problem),
    (status = 409, description = "The user has as many voices as may be, and this person none", body = Problem),
    (status = 422, description = "Model, vector or seconds are not as they must be", body = Problem),
))]
pub(super) async fn add_voice(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
    Body(new): Body<NewVoice>,
) -> Result<(StatusCode, Json<Voice>), Refusal> {
    let model = checked(&new.model, &new.vector, &state.limits)?;
    if !(new.seconds.is_finite() && new.seconds > 0.0) {
        return Err(Refusal::invalid(
            "`seconds` is how long the speech behind the vector lasts: more than 0",
        ));
    }
    let voice = auricle_store::Voice {
        id: random_uuid(&mut rand::rng()),
        person: id.into(),
        model,
        vector: new.vector,
        seconds: new.seconds,
        kept_at: state.clock.wall(),
    };
    let kept = convert::voice(&voice);
    state.store.add_voice(&user, voice).await.map_err(|error| Refusal::store(WHAT, error))?;
    Ok((StatusCode::CREATED, Json(kept)))
}

/// Whose voice it is: the nearest of the voices kept of this model, if it is near enough and nobody else's is about as near.
#[utoipa::path(post, path = "/v1/users/people/match", tag = "people", request_body = MatchRequest, responses(
    (status = 200, body = MatchResponse),
    (status = 422, description = "Model, vector or bounds are not as they must be", body = Problem),
))]
pub(super) async fn match_voice(
    Caller(user): Caller,
    State(state): State<RestState>,
    Body(asked): Body<MatchRequest>,
) -> Result<Json<MatchResponse>, Refusal> {
    let model = checked(&asked.model, &asked.vector, &state.limits)?;
    let default = Certainty::default();
    let certainty = Certainty {
        similarity_min: asked.similarity_min.unwrap_or(default.similarity_min),
        margin_min: asked.margin_min.unwrap_or(default.margin_min),
    };
    if !(-1.0..=1.0).contains(&certainty.similarity_min) || !(0.0..=2.0).contains(&certainty.margin_min) {
        return Err(Refusal::invalid("`similarity_min` is -1 to 1, `margin_min` is 0 to 2"));
    }
    let voices = state.store.voices(&user, Some(&model)).await;
    let voices = voices.map_err(|error| Refusal::store(WHAT, error))?;
    let found = nearest(&asked.vector, voices.iter().map(|voice| (&voice.person, voice.vector.as_slice())));
    let mut person = None;
    if let Some(nearest) = found.as_ref().filter(|nearest| nearest.is_certain(certainty)) {
        person =
            state.store.person(&user, &nearest.person).await.map_err(|error| Refusal::store(WHAT, error))?;
    }
    let outcome = if person.is_some() { "matched" } else { "unknown" };
    metrics::counter!("auricle_voice_matches_total", "outcome" => outcome).increment(1);
    Ok(Json(MatchResponse {
        person: person.as_ref().map(convert::person),
        similarity: found.as_ref().map(|nearest| nearest.similarity),
        runner_up: found.and_then(|nearest| nearest.runner_up),
    }))
}
