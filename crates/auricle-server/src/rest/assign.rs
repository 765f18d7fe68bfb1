//! Who said what: segments are assigned to the owner, to one of their people, or to nobody.
//!
//! A field-level change of the segments named, whatever the conversation's status: a session that hears it and a worker that
//! makes its record go on.

use auricle_core::{Assignee, ConversationId};
use auricle_store::SegmentChoice;
use auricle_wire::conversation::Conversation;
use auricle_wire::people::{AssignRequest, BulkAssignRequest};
use auricle_wire::rest::Problem;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::answer::{Body, Caller, Id, IdAndNumber, MaybeBody, Params, Refusal};
use super::{RestState, conversations, people};

const WHAT: &str = "Conversation";
/// As live sessions name the owner.
const OWNER: &str = "User";

/// An assignment in the query, as Omi's app sends it; it may stand in the body instead. `use_for_speech_training` is passed over.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AssignQuery {
    /// `is_user` or `person_id`.
    assign_type: Option<String>,
    /// `true` or `false`; a person's id, or `null` for nobody.
    value: Option<String>,
}

impl AssignQuery {
    fn or(self, body: Option<AssignRequest>) -> AssignRequest {
        match self.assign_type {
            Some(assign_type) => AssignRequest { assign_type, value: self.value },
            None => body.unwrap_or_default(),
        }
    }
}

fn assignee(asked: &AssignRequest) -> Result<Assignee, Refusal> {
    let value = asked.value.as_deref().map(str::trim).filter(|value| !matches!(*value, "" | "null"));
    match (asked.assign_type.as_str(), value) {
        ("is_user" | "person_id", None) => Ok(Assignee::Nobody),
        ("is_user", Some(value)) => match value.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(Assignee::Owner),
            "false" | "0" | "no" | "off" => Ok(Assignee::Nobody),
            _ => Err(Refusal::new(StatusCode::BAD_REQUEST, "The value of `is_user` is `true` or `false`")),
        },
        ("person_id", Some(person)) => Ok(Assignee::Person(person.into())),
        _ => Err(Refusal::new(StatusCode::BAD_REQUEST, "`assign_type` is `is_user` or `person_id`")),
    }
}

/// Assigns one segment, by its place in the transcript.
#[utoipa::path(patch, path = "/v1/conversations/{id}/segments/{idx}/assign", tag = "conversations",
    params(
        ("id" = String, Path, description = "The conversation"),
        ("idx" = u32, Path, description = "Its place in the transcript, from 0"),
        AssignQuery,
    ),
    request_body(content = Option<AssignRequest>, description = "Unless it is in the query"), responses(
    (status = 200, body = Conversation),
    (status = 400, description = "`assign_type` or `value` is none of those there are", body = Problem),
    (status = 404, description = "No such conversation, segment or person of this user", body = Problem),
))]
pub(super) async fn segment(
    caller: Caller,
    state: State<RestState>,
    IdAndNumber(id, index): IdAndNumber,
    Params(query): Params<AssignQuery>,
    MaybeBody(body): MaybeBody<AssignRequest>,
) -> Result<Json<Conversation>, Refusal> {
    let which = SegmentChoice::At(index.map_or(usize::MAX, |index| index as usize));
    assign(caller, state, id, which, &query.or(body)).await
}

/// Assigns all segments of a speaker. A live session of the conversation suggests the person for what that speaker says from
/// then on.
#[utoipa::path(patch, path = "/v1/conversations/{id}/assign-speaker/{speaker_id}", tag = "conversations",
    params(
        ("id" = String, Path, description = "The conversation"),
        ("speaker_id" = u32, Path, description = "The number of the speaker's label"),
        AssignQuery,
    ),
    request_body(content = Option<AssignRequest>, description = "Unless it is in the query"), responses(
    (status = 200, body = Conversation),
    (status = 400, description = "`assign_type` or `value` is none of those there are", body = Problem),
    (status = 404, description = "No such conversation, speaker or person of this user", body = Problem),
))]
pub(super) async fn speaker(
    caller: Caller,
    state: State<RestState>,
    IdAndNumber(id, number): IdAndNumber,
    Params(query): Params<AssignQuery>,
    MaybeBody(body): MaybeBody<AssignRequest>,
) -> Result<Json<Conversation>, Refusal> {
    let which = number.map_or(SegmentChoice::Ids(Vec::new()), SegmentChoice::Speaker);
    assign(caller, state, id, which, &query.or(body)).await
}

/// Assigns segments by their ids.
#[utoipa::path(patch, path = "/v1/conversations/{id}/segments/assign-bulk", tag = "conversations",
    params(("id" = String, Path, description = "The conversation")), request_body = BulkAssignRequest, responses(
    (status = 200, body = Conversation),
    (status = 400, description = "`assign_type` or `value` is none of those there are", body = Problem),
    (status = 404, description = "No such conversation or person of this user, or none of the segments", body = Problem),
    (status = 422, description = "More segments than `limits.segments_assigned_max`", body = Problem),
))]
pub(super) async fn bulk(
    caller: Caller,
    state: State<RestState>,
    Id(id): Id,
    Body(body): Body<BulkAssignRequest>,
) -> Result<Json<Conversation>, Refusal> {
    let max = state.limits.segments_assigned_max;
    if body.segment_ids.len() > max {
        return Err(Refusal::invalid(format!(
            "At most {max} segments at once, not {}",
            body.segment_ids.len()
        )));
    }
    let which = SegmentChoice::Ids(body.segment_ids.into_iter().map(Into::into).collect());
    assign(caller, state, id, which, &AssignRequest { assign_type: body.assign_type, value: body.value })
        .await
}

async fn assign(
    Caller(user): Caller,
    State(state): State<RestState>,
    id: String,
    which: SegmentChoice,
    asked: &AssignRequest,
) -> Result<Json<Conversation>, Refusal> {
    let to = assignee(asked)?;
    let id = ConversationId::from(id);
    let there = state.store.status(&user, &id).await.map_err(|error| Refusal::store(WHAT, error))?;
    there.ok_or_else(|| Refusal::not_found(WHAT))?;
    let name = match &to {
        Assignee::Person(person) => {
            let found = state.store.person(&user, person).await;
            let found = found.map_err(|error| Refusal::store(people::WHAT, error))?;
            found.ok_or_else(|| Refusal::not_found(people::WHAT))?.name
        }
        Assignee::Owner => OWNER.to_owned(),
        Assignee::Nobody => String::new(),
    };
    let speaker = match which {
        SegmentChoice::Speaker(number) => Some((number, name)),
        _ => None,
    };
    let assigned = state.store.reassign_segments(&user, &id, which, to.clone()).await;
    let assigned = assigned.map_err(|error| Refusal::store("Segment", error))?;
    state.live.reassigned(&user, &id, assigned, to, speaker);
    conversations::read(Caller(user), State(state), Id(id.to_string())).await
}
