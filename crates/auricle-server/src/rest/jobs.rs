//! Jobs: what happens to ended conversations, hearing them again, and reviving what failed.

use auricle_core::{JobId, JobState, UserId};
use auricle_store::{StoreError, UploadState};
use auricle_wire::rest::{Job, Problem, Revived};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use utoipa::IntoParams;

use super::RestState;
use super::answer::{Caller, Id, Params, Refusal, page_limit};
use crate::convert;

const WHAT: &str = "Job";
const PAGE: usize = 100;
/// Revived in one transaction, so that live sessions' writes get in between.
const REVIVED_AT_ONCE: usize = 500;

/// Which jobs.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct JobsQuery {
    /// `queued`, `leased`, `completed` or `failed`; any if absent.
    state: Option<String>,
    /// How many at most; 100 if absent.
    limit: Option<usize>,
}

/// The user's jobs, newest first: records that are made, and conversations that are heard again.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", params(JobsQuery), responses(
    (status = 200, body = Vec<Job>),
    (status = 422, description = "A parameter is wrong", body = Problem),
))]
pub(super) async fn list(
    Caller(user): Caller,
    State(state): State<RestState>,
    Params(query): Params<JobsQuery>,
) -> Result<Json<Vec<Job>>, Refusal> {
    let job_state = query.state.as_deref().map(|text| {
        JobState::parse(text).ok_or_else(|| Refusal::invalid("States are queued, leased, completed, failed"))
    });
    let limit = page_limit(query.limit, PAGE, &state.limits)?;
    let job_state = job_state.transpose()?;
    let jobs = state.store.jobs(Some(&user), job_state, limit).await;
    let jobs = jobs.map_err(|error| Refusal::store(WHAT, error))?;
    let again = state.store.retranscriptions(&user, job_state.map(of_work), limit).await;
    let again = again.map_err(|error| Refusal::store(WHAT, error))?;
    let attempts_max = state.limits.retranscription_attempts_max;
    let again = again.iter().map(|work| convert::retranscription_job(work, attempts_max));
    let mut all: Vec<Job> = jobs.iter().map(convert::job).chain(again).collect();
    all.sort_by_key(|job| std::cmp::Reverse(job.created_at.0));
    all.truncate(limit);
    Ok(Json(all))
}

/// One job.
#[utoipa::path(get, path = "/v1/jobs/{id}", tag = "jobs",
    params(("id" = String, Path, description = "The job")), responses(
    (status = 200, body = Job),
    (status = 404, description = "No such job of this user", body = Problem),
))]
pub(super) async fn read(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
) -> Result<Json<Job>, Refusal> {
    load(&state, &user, &id.into()).await
}

/// The state of a retranscription that is this one of a job.
fn of_work(state: JobState) -> UploadState {
    match state {
        JobState::Queued => UploadState::Queued,
        JobState::Leased => UploadState::Leased,
        JobState::Completed => UploadState::Done,
        JobState::Failed => UploadState::Failed,
    }
}

async fn load(state: &RestState, user: &UserId, id: &JobId) -> Result<Json<Job>, Refusal> {
    let job = state.store.job(Some(user), id).await.map_err(|error| Refusal::store(WHAT, error))?;
    if let Some(job) = job {
        return Ok(Json(convert::job(&job)));
    }
    let work = state.store.retranscription_by_id(user, id).await;
    let work = work.map_err(|error| Refusal::store(WHAT, error))?.ok_or_else(|| Refusal::not_found(WHAT))?;
    Ok(Json(convert::retranscription_job(&work, state.limits.retranscription_attempts_max)))
}

/// Revives a failed job: it is queued now, with all its attempts before it. A conversation is heard again by the same engine.
#[utoipa::path(post, path = "/v1/jobs/{id}/retry", tag = "jobs",
    params(("id" = String, Path, description = "The job")), responses(
    (status = 200, body = Job),
    (status = 404, description = "No such job of this user", body = Problem),
    (status = 409, description = "It has not failed, or its conversation is being processed", body = Problem),
))]
pub(super) async fn retry(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
) -> Result<Json<Job>, Refusal> {
    let id = JobId::from(id);
    let now = state.clock.wall();
    let revived = match state.store.retry_job(Some(&user), &id, now).await {
        Err(StoreError::NotFound(_)) => state.store.retry_retranscription(&user, &id, now).await,
        revived => revived,
    };
    revived.map_err(|error| Refusal::store(WHAT, error))?;
    (state.wake_jobs)();
    state.audio.wake.notify_one();
    load(&state, &user, &id).await
}

/// Whose.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Whose {
    /// `true`: everybody's. Only for the admin key, and for the local user without a credential.
    everybody: Option<bool>,
}

impl Whose {
    /// `None`: everybody.
    fn of(&self, user: UserId, state: &RestState, headers: &HeaderMap) -> Result<Option<UserId>, Refusal> {
        match self.everybody {
            Some(true) if state.auth.is_operator(headers) => Ok(None),
            Some(true) => Err(Refusal::new(StatusCode::FORBIDDEN, "Only the operator acts for everybody")),
            _ => Ok(Some(user)),
        }
    }
}

/// Revives all failed jobs that make records: they are queued now, with all their attempts before them. What could not be heard again
/// left the transcript as it was, and is revived one by one.
#[utoipa::path(post, path = "/v1/jobs/retry", tag = "jobs", params(Whose), responses(
    (status = 200, body = Revived),
    (status = 422, description = "A parameter is wrong", body = Problem),
))]
pub(super) async fn retry_failed(
    Caller(user): Caller,
    State(state): State<RestState>,
    headers: HeaderMap,
    Params(whose): Params<Whose>,
) -> Result<Json<Revived>, Refusal> {
    let whose = whose.of(user, &state, &headers)?;
    let now = state.clock.wall();
    let mut revived = 0;
    loop {
        let some = state.store.retry_failed_jobs(whose.as_ref(), now, REVIVED_AT_ONCE).await;
        let some = some.map_err(|error| Refusal::store(WHAT, error))?;
        revived += some;
        (state.wake_jobs)();
        if some < REVIVED_AT_ONCE {
            return Ok(Json(Revived { revived }));
        }
    }
}

/// Revives all failed effects, such as webhooks that nobody took: they are delivered again, under the same keys.
#[utoipa::path(post, path = "/v1/effects/retry", tag = "jobs", params(Whose), responses(
    (status = 200, body = Revived),
    (status = 422, description = "A parameter is wrong", body = Problem),
))]
pub(super) async fn retry_effects(
    Caller(user): Caller,
    State(state): State<RestState>,
    headers: HeaderMap,
    Params(whose): Params<Whose>,
) -> Result<Json<Revived>, Refusal> {
    let whose = whose.of(user, &state, &headers)?;
    let now = state.clock.wall();
    let mut revived = 0;
    // The outbox looks by itself every second.
    loop {
        let some = state.store.retry_failed_effects(whose.as_ref(), now, REVIVED_AT_ONCE).await;
        let some = some.map_err(|error| Refusal::store("Effect", error))?;
        revived += some;
        if some < REVIVED_AT_ONCE {
            return Ok(Json(Revived { revived }));
        }
    }
}
