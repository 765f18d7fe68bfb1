//! Recordings as files: taken at once, transcribed in the background, asked about by id. Ours, and Omi's `sync-local-files`.

use auricle_audio::recording::{self, Form as Kind};
use auricle_core::{Source, UnixMicros, UploadId, UserId};
use auricle_store::{NewUpload, StoreError, UploadState};
use auricle_wire::rest::Problem;
use auricle_wire::time::WireTime;
use auricle_wire::upload::{SyncAccepted, SyncResult, SyncStatus, Upload};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::RestState;
use super::answer::{Caller, Id, Params, Refusal, page_limit, page_offset};
use super::receive::{ReceiveError, Received, Receiver};

const WHAT: &str = "Upload";
/// Before this no device recorded. Source: Omi's reader.
const EARLIEST: UnixMicros = UnixMicros(1_704_067_200_000_000);
/// A device's clock may be ahead of ours by this much.
const AHEAD: std::time::Duration = std::time::Duration::from_secs(86_400);
/// When Omi's app should ask again. Source: Omi's backend.
const POLL_AFTER_MS: u64 = 3_000;
/// Errors of one job that are told.
const ERRORS_MAX: usize = 10;

impl From<ReceiveError> for Refusal {
    fn from(error: ReceiveError) -> Self {
        let status = match &error {
            ReceiveError::Malformed(_) => StatusCode::BAD_REQUEST,
            ReceiveError::TooMuch(_) => StatusCode::PAYLOAD_TOO_LARGE,
            ReceiveError::Stalled(_) => StatusCode::REQUEST_TIMEOUT,
            ReceiveError::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
            ReceiveError::Io(error) => return Self::internal(error),
        };
        Self::new(status, error.to_string())
    }
}

/// What the sender knows of the file.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct UploadQuery {
    /// The file's name. A device's recording (`….bin`) says its codec and time by it.
    name: Option<String>,
    /// When the first sample was recorded, as ISO 8601. If absent: what the name says, else now.
    recorded_at: Option<String>,
    /// Language of the speech; `en` if absent.
    language: Option<String>,
    /// Kind of device, e.g. `omi`, `phone`, `desktop`.
    source: Option<String>,
}

/// A file in a form; its fields may also be in the query.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document alone")]
pub(super) struct UploadForm {
    #[schema(value_type = String, format = Binary)]
    file: String,
}

/// Files in a form.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document alone")]
pub(super) struct SyncForm {
    #[schema(value_type = Vec<String>, format = Binary)]
    files: Vec<String>,
}

/// Where the list begins.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct UploadsQuery {
    limit: Option<usize>,
    offset: Option<usize>,
}

fn shown(upload: &auricle_store::Upload) -> Upload {
    Upload {
        id: upload.id.as_str().to_owned(),
        status: match upload.state {
            UploadState::Leased => "transcribing",
            other => other.as_str(),
        }
        .to_owned(),
        sha256: upload.sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
        bytes: upload.bytes,
        recorded_at: WireTime(upload.recorded_at.0),
        heard_secs: upload.heard_secs,
        audio_secs: upload.audio_secs,
        attempts: upload.attempts,
        error: upload.last_error.clone(),
        conversations: upload.conversations.iter().map(|id| id.as_str().to_owned()).collect(),
        created_at: WireTime(upload.created_at.0),
        updated_at: WireTime(upload.updated_at.0),
    }
}

fn too_many(state: &RestState) -> Response {
    metrics::counter!("auricle_requests_refused_total", "reason" => "uploads").increment(1);
    let text = format!(
        "{} requests bring files, which is the limit; try again in a few seconds",
        state.limits.uploads_receiving_max
    );
    let mut response = Refusal::new(StatusCode::TOO_MANY_REQUESTS, text).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("3"));
    response
}

/// A file that is on disk, with what is known of it.
fn described(
    file: &Received,
    name: &str,
    asked: &UploadQuery,
    now: UnixMicros,
) -> Result<NewUpload, Refusal> {
    if file.kept.bytes == 0 {
        return Err(Refusal::invalid("The file is empty"));
    }
    let named = if name.ends_with(".bin") {
        let named = recording::named(name);
        Some(named.map_err(|error| Refusal::invalid(format!("This is no device's recording: {error}")))?)
    } else {
        None
    };
    let recorded_at = match (&asked.recorded_at, &named) {
        (Some(text), _) => {
            let at: Result<WireTime, _> = serde_json::from_value(text.clone().into());
            UnixMicros(at.map_err(|error| Refusal::invalid(format!("recorded_at: {error}")))?.0)
        }
        (None, Some(named)) => UnixMicros(named.recorded_at.saturating_mul(1_000_000)),
        (None, None) => now,
    };
    if recorded_at > now + AHEAD || (named.is_some() && recorded_at < EARLIEST) || recorded_at.0 < 0 {
        return Err(Refusal::invalid(format!(
            "The time of recording is {}; it must be after 2024 and not in the future",
            WireTime(recorded_at.0)
        )));
    }
    let source = match (&asked.source, &named) {
        (Some(source), _) => Source::parse(source).unwrap_or(Source::Unknown),
        (None, Some(named)) if named.limitless => Source::Limitless,
        (None, Some(_)) => Source::Omi,
        (None, None) => Source::Unknown,
    };
    Ok(NewUpload {
        id: file.id.clone(),
        sha256: file.kept.sha256,
        bytes: file.kept.bytes,
        form: named.map_or(Kind::File, |named| named.form).to_string(),
        source,
        language: asked.language.clone().filter(|language| !language.is_empty() && language.len() <= 64),
        recorded_at,
    })
}

/// Keeps rows for files that are on disk; the files of those that were there already go again.
async fn add(
    state: &RestState,
    user: &UserId,
    batch: &str,
    files: Vec<(Received, NewUpload)>,
) -> Result<Vec<auricle_store::Upload>, Refusal> {
    let (files, new): (Vec<_>, Vec<_>) = files.into_iter().unzip();
    let added = state.store.add_uploads(user, batch, new, state.clock.wall()).await;
    let added = match added {
        Ok(added) => added,
        Err(StoreError::Conflict(text)) => return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, text)),
        Err(StoreError::Full(text)) => return Err(Refusal::new(StatusCode::INSUFFICIENT_STORAGE, text)),
        // It is not known whether the rows are there: a file without a row is found later, a row without a file never ends well.
        Err(error @ StoreError::Busy(_)) => {
            files.into_iter().for_each(Received::settle);
            return Err(Refusal::store(WHAT, error));
        }
        Err(error) => return Err(Refusal::store(WHAT, error)),
    };
    for file in files {
        if added.iter().any(|upload| upload.id == file.id) {
            file.settle();
        }
    }
    metrics::counter!("auricle_uploads_received_total").increment(added.len() as u64);
    state.files.wake.notify_one();
    Ok(added)
}

/// Takes a recording and answers at once; it is transcribed in the background, into a conversation of its own or, if it goes on
/// where another upload ends, into the same. The file is the body, or a part of a form. The same file again is the same upload.
#[utoipa::path(post, path = "/v1/uploads", tag = "uploads", params(UploadQuery),
    request_body(content(
        (Vec<u8> = "application/octet-stream"),
        (UploadForm = "multipart/form-data"),
    )), responses(
    (status = 202, description = "It is on disk, and will be transcribed", body = Upload),
    (status = 400, description = "The body broke off, or is no good form", body = Problem),
    (status = 408, description = "The body brought nothing for too long", body = Problem),
    (status = 413, description = "The file is too long", body = Problem),
    (status = 429, description = "Too many at once, or too many wait; see Retry-After", body = Problem),
    (status = 507, description = "There is no room", body = Problem),
))]
pub(super) async fn upload(
    Caller(user): Caller,
    State(state): State<RestState>,
    Params(asked): Params<UploadQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let Ok(_place) = state.files.receiving.try_acquire() else { return Ok(too_many(&state)) };
    let receiver = Receiver { vault: &state.files.vault, user: &user, limits: &state.limits, files_max: 1 };
    let name = asked.name.clone().unwrap_or_default();
    let file = if is_form(&headers) {
        let mut form = receiver.form(&headers, body).await?;
        form.files.pop().ok_or_else(|| Refusal::invalid("The form has no file"))?
    } else {
        receiver.file(name.clone(), body).await?
    };
    let name = if name.is_empty() { file.name.clone() } else { name };
    let new = described(&file, &name, &asked, state.clock.wall())?;
    let files = vec![(file, new)];
    let added = add(&state, &user, &job_of(&user, &files), files).await?;
    let upload = added.first().map(shown).ok_or_else(|| Refusal::not_found(WHAT))?;
    let place = format!("/v1/uploads/{}", upload.id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, place)], Json(upload)).into_response())
}

/// A job's id, made of what it brings: an app that was cut off and sends the same files again asks for the same job.
fn job_of(user: &UserId, files: &[(Received, NewUpload)]) -> String {
    let mut contents: Vec<[u8; 32]> = files.iter().map(|(_, new)| new.sha256).collect();
    contents.sort_unstable();
    let name = [user.as_str().as_bytes(), contents.as_flattened()].concat();
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, &name).to_string()
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.trim_start().to_ascii_lowercase().starts_with("multipart/form-data")
}

/// Takes a device's offline recordings, as Omi's app sends them.
#[utoipa::path(post, path = "/v2/sync-local-files", tag = "uploads",
    request_body(content = SyncForm, content_type = "multipart/form-data"), responses(
    (status = 202, description = "They are on disk, and will be transcribed", body = SyncAccepted),
    (status = 400, description = "A name is not a recording's, or the body broke off", body = Problem),
    (status = 408, description = "The body brought nothing for too long", body = Problem),
    (status = 413, description = "A file is too long, or they are too many", body = Problem),
    (status = 429, description = "Too many at once, or too many wait; see Retry-After", body = Problem),
    (status = 507, description = "There is no room", body = Problem),
))]
pub(super) async fn sync(
    Caller(user): Caller,
    State(state): State<RestState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let Ok(_place) = state.files.receiving.try_acquire() else { return Ok(too_many(&state)) };
    let files_max = state.limits.upload_files_max;
    let receiver = Receiver { vault: &state.files.vault, user: &user, limits: &state.limits, files_max };
    let form = receiver.form(&headers, body).await?;
    let asked = UploadQuery { name: None, recorded_at: None, language: None, source: None };
    let mut files = Vec::new();
    for file in form.files {
        // As Omi answers, so that its app treats it the same.
        let bad = |text: String| Refusal::new(StatusCode::BAD_REQUEST, text);
        if !file.name.ends_with(".bin") {
            return Err(bad("A file's name does not end with .bin; send other files to /v1/uploads".into()));
        }
        let new = described(&file, &file.name, &asked, state.clock.wall());
        let new = new.map_err(|refusal| bad(refusal.into_detail()))?;
        files.push((file, new));
    }
    if files.is_empty() {
        return Err(Refusal::invalid("The form has no files"));
    }
    let job_id = job_of(&user, &files);
    let total_files = files.len();
    add(&state, &user, &job_id, files).await?;
    let accepted = SyncAccepted {
        job_id,
        status: "queued".into(),
        total_files,
        total_segments: 0,
        poll_after_ms: POLL_AFTER_MS,
        new_memories: Vec::new(),
        updated_memories: Vec::new(),
    };
    Ok((StatusCode::ACCEPTED, Json(accepted)).into_response())
}

/// The same under the name of Omi's first version, which answered only once everything was processed.
#[utoipa::path(post, path = "/v1/sync-local-files", tag = "uploads",
    request_body(content = SyncForm, content_type = "multipart/form-data"), responses(
    (status = 202, description = "They are on disk, and will be transcribed", body = SyncAccepted),
    (status = 400, description = "A name is not a recording's, or the body broke off", body = Problem),
    (status = 408, description = "The body brought nothing for too long", body = Problem),
    (status = 413, description = "A file is too long, or they are too many", body = Problem),
    (status = 429, description = "Too many at once, or too many wait; see Retry-After", body = Problem),
    (status = 507, description = "There is no room", body = Problem),
))]
pub(super) async fn sync_v1(
    caller: Caller,
    state: State<RestState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    sync(caller, state, headers, body).await
}

/// What became of files, as Omi's app asks.
#[utoipa::path(get, path = "/v2/sync-local-files/{job_id}", tag = "uploads",
    params(("job_id" = String, Path, description = "From the answer to the files")), responses(
    (status = 200, body = SyncStatus),
    (status = 404, description = "No such job of this user, or its files came again in another", body = Problem),
))]
pub(super) async fn sync_status(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
) -> Result<Json<SyncStatus>, Refusal> {
    let files =
        state.store.upload_batch(&user, &id).await.map_err(|error| Refusal::store("Sync job", error))?;
    if files.is_empty() {
        return Err(Refusal::not_found("Sync job"));
    }
    let count = |state: UploadState| files.iter().filter(|file| file.state == state).count();
    let (total, done, failed) = (files.len(), count(UploadState::Done), count(UploadState::Failed));
    let over = done + failed == total;
    let status = match () {
        () if over && failed == 0 => "completed",
        () if over && done > 0 => "partial_failure",
        () if over => "failed",
        () if count(UploadState::Queued) == total => "queued",
        () => "processing",
    };
    let errors: Vec<String> = files
        .iter()
        .filter(|file| file.state == UploadState::Failed)
        .filter_map(|file| file.last_error.clone())
        .take(ERRORS_MAX)
        .collect();
    let mut made: Vec<String> =
        files.iter().flat_map(|file| &file.conversations).map(|id| id.as_str().to_owned()).collect();
    made.sort();
    made.dedup();
    Ok(Json(SyncStatus {
        job_id: id,
        status: status.into(),
        total_segments: total,
        processed_segments: done + failed,
        successful_segments: done,
        failed_segments: failed,
        error: (over && done == 0).then(|| errors.first().cloned().unwrap_or_default()),
        result: over.then_some(SyncResult {
            new_memories: made,
            updated_memories: Vec::new(),
            failed_segments: failed,
            total_segments: total,
            errors,
        }),
    }))
}

/// A user's uploads, the latest first.
#[utoipa::path(get, path = "/v1/uploads", tag = "uploads", params(UploadsQuery), responses(
    (status = 200, body = Vec<Upload>),
    (status = 422, description = "A number is out of range", body = Problem),
))]
pub(super) async fn list(
    Caller(user): Caller,
    State(state): State<RestState>,
    Params(asked): Params<UploadsQuery>,
) -> Result<Json<Vec<Upload>>, Refusal> {
    let (limit, offset) = (page_limit(asked.limit, 50, &state.limits)?, page_offset(asked.offset)?);
    let found = state.store.uploads(&user, limit, offset).await;
    let found = found.map_err(|error| Refusal::store(WHAT, error))?;
    Ok(Json(found.iter().map(shown).collect()))
}

/// One upload.
#[utoipa::path(get, path = "/v1/uploads/{id}", tag = "uploads", params(("id" = String, Path)), responses(
    (status = 200, body = Upload),
    (status = 404, description = "No such upload of this user", body = Problem),
))]
pub(super) async fn read(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
) -> Result<Json<Upload>, Refusal> {
    let found = state.store.upload(&user, &UploadId::from(id)).await;
    let found = found.map_err(|error| Refusal::store(WHAT, error))?;
    found.as_ref().map(|upload| Json(shown(upload))).ok_or_else(|| Refusal::not_found(WHAT))
}

/// Tries a failed upload again.
#[utoipa::path(post, path = "/v1/uploads/{id}/retry", tag = "uploads", params(("id" = String, Path)), responses(
    (status = 200, body = Upload),
    (status = 404, description = "No such upload of this user", body = Problem),
    (status = 409, description = "It did not fail", body = Problem),
))]
pub(super) async fn retry(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
) -> Result<Json<Upload>, Refusal> {
    let id = UploadId::from(id);
    let revived = state.store.retry_upload(&user, &id, state.clock.wall()).await;
    revived.map_err(|error| Refusal::store(WHAT, error))?;
    state.files.wake.notify_one();
    read(Caller(user), State(state), Id(id.as_str().to_owned())).await
}

/// Deletes an upload and its file. What was made of it stays.
#[utoipa::path(delete, path = "/v1/uploads/{id}", tag = "uploads", params(("id" = String, Path)), responses(
    (status = 204, description = "It is gone"),
    (status = 404, description = "No such upload of this user", body = Problem),
    (status = 409, description = "Its conversation waits for other uploads", body = Problem),
))]
pub(super) async fn remove(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
) -> Result<StatusCode, Refusal> {
    let id = UploadId::from(id);
    let removed = state.store.remove_upload(&user, &id, state.clock.wall()).await;
    removed.map_err(|error| Refusal::store(WHAT, error))?;
    // What it held open may have ended with it.
    (state.wake_jobs)();
    let vault = state.files.vault.clone();
    let kept = state.audio.kept.clone();
    let removed = move || vault.remove(&user, &id).and_then(|()| kept.uploads().remove(&user, &id));
    let gone = tokio::task::spawn_blocking(removed).await;
    if let Ok(Err(error)) = gone {
        // No row names it any more: it is found and removed at the next start.
        tracing::warn!(%error, "remove an upload's file");
    }
    Ok(StatusCode::NO_CONTENT)
}
