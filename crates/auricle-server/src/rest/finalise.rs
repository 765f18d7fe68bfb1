//! `POST /v1/conversations`: end a conversation now and wait a while for its record.

use std::time::Duration;

use auricle_core::session::Ended;
use auricle_core::{Conversation, ConversationId, ConversationStatus, FinaliseReason, JobId, UserId};
use auricle_store::{Finalise, Finalised};
use auricle_wire::rest::{FinaliseResponse, Problem};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use futures_util::FutureExt;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::RestState;
use super::answer::{Caller, MaybeBody, Params, Refusal};
use crate::convert;

const WHAT: &str = "Conversation";
/// First and longest wait between two looks at a record that is being made.
const LOOK_FIRST: Duration = Duration::from_millis(20);
const LOOK_MAX: Duration = Duration::from_millis(500);

/// Which conversation.
#[derive(Debug, Default, Deserialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
pub(super) struct FinaliseRequest {
    /// The user's current one if absent.
    #[serde(default)]
    conversation_id: Option<String>,
}

/// Ends a conversation now and answers with its record. `memory.status` is `processing` if the record takes longer than
/// this call waits, or, with many waiting already, `in_progress` if it was only asked for; nothing is lost then, and the
/// record can be read later.
#[utoipa::path(post, path = "/v1/conversations", tag = "conversations", params(FinaliseRequest),
    request_body(content = Option<FinaliseRequest>, description = "Unless it is in the query"), responses(
    (status = 200, body = FinaliseResponse),
    (status = 404, description = "Nothing is in progress, or it was empty", body = Problem),
    (status = 409, description = "A session of another process is hearing it", body = Problem),
))]
pub(super) async fn finalise(
    Caller(user): Caller,
    State(state): State<RestState>,
    Params(query): Params<FinaliseRequest>,
    MaybeBody(body): MaybeBody<FinaliseRequest>,
) -> Result<Json<FinaliseResponse>, Refusal> {
    let named = query.conversation_id.or(body.and_then(|body| body.conversation_id));
    let id = match named {
        Some(id) => ConversationId::from(id),
        None => current(&state, &user).await?,
    };
    // The store's `finalise` takes no user: this read is what keeps others out.
    let found = load(&state, &user, &id).await?;
    let place = state.waits.try_acquire().ok();
    if found.status == ConversationStatus::InProgress {
        end(&state, &user, &id, place.is_some()).await?;
    }
    let record = match place {
        Some(_place) => await_record(&state, &user, &id).await?,
        None => load(&state, &user, &id).await?,
    };
    Ok(Json(FinaliseResponse { memory: convert::conversation(&record), messages: Vec::new() }))
}

async fn current(state: &RestState, user: &UserId) -> Result<ConversationId, Refusal> {
    if let Some(id) = state.live.current(user) {
        return Ok(id);
    }
    let found = state.store.current_conversation(user).await.map_err(|error| Refusal::store(WHAT, error))?;
    found.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "No conversation is in progress"))
}

async fn load(state: &RestState, user: &UserId, id: &ConversationId) -> Result<Conversation, Refusal> {
    let found = state.store.conversation(user, id).await.map_err(|error| Refusal::store(WHAT, error))?;
    found.ok_or_else(|| Refusal::not_found(WHAT))
}

/// The session that hears it ends it; if there is none, the store does. A session is only asked if it is not to be waited
/// for.
async fn end(state: &RestState, user: &UserId, id: &ConversationId, waits: bool) -> Result<(), Refusal> {
    let was_empty = || Refusal::new(StatusCode::NOT_FOUND, "The conversation was empty and is gone");
    let asked = state.live.finalise(user, id);
    let ended = match waits {
        true => asked.await,
        false => match asked.now_or_never() {
            Some(ended) => ended,
            None => return Ok(()),
        },
    };
    match ended {
        Some(Ended::DeletedEmpty) => return Err(was_empty()),
        Some(Ended::Queued { .. } | Ended::Already) => return Ok(()),
        None => {}
    }
    // L32: nothing is in it because nobody could hear yet. The sweeper ends it after repair.
    if state.live.awaits_repair(id) {
        let stored = load(state, user, id).await?;
        if stored.segments.is_empty() && stored.photos.is_empty() && stored.gaps.is_empty() {
            return Ok(());
        }
    }
    let finalise = Finalise {
        conversation: id.clone(),
        owner: None,
        reason: FinaliseReason::Requested,
        job_id: JobId::random(&mut rand::rng()),
        now: state.clock.wall(),
    };
    match state.store.finalise(finalise).await {
        Ok(Finalised::DeletedEmpty) => Err(was_empty()),
        Ok(Finalised::Queued { .. }) => {
            (state.wake_jobs)();
            Ok(())
        }
        Ok(Finalised::AlreadyEnded { .. }) => Ok(()),
        Err(error) => Err(Refusal::store(WHAT, error)),
    }
}

/// Waits up to `limits.record_wait` for processing to end, then answers with what there is.
async fn await_record(
    state: &RestState,
    user: &UserId,
    id: &ConversationId,
) -> Result<Conversation, Refusal> {
    let deadline = tokio::time::Instant::from_std(state.clock.mono()) + state.limits.record_wait;
    let mut look_again = LOOK_FIRST;
    loop {
        let record = load(state, user, id).await?;
        let over = tokio::time::Instant::from_std(state.clock.mono()) + look_again > deadline;
        if record.status != ConversationStatus::Processing || over {
            return Ok(record);
        }
        tokio::time::sleep(look_again).await;
        look_again = (look_again * 2).min(LOOK_MAX);
    }
}
