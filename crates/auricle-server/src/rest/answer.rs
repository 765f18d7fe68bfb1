//! From requests to values and from trouble to answers: extractors that refuse with `{"detail": …}`.

use std::fmt::Display;

use auricle_core::ids::random_uuid;
use auricle_core::{Limits, UserId};
use auricle_store::StoreError;
use auricle_wire::rest::Problem;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use super::RestState;
use crate::auth::AuthError;

/// Seconds after which a client may try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");
/// Longest identifier that can name anything, in bytes.
const ID_BYTES_MAX: usize = 128;
/// Greatest offset of a page.
const OFFSET_MAX: usize = 1_000_000;

/// An answer that is not a success.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    detail: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }

    /// What was asked for does not exist, or is somebody else's: the two look alike.
    pub(super) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("{what} not found"))
    }

    /// There is nothing to hear.
    pub(super) fn no_audio() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "No audio of this conversation is kept: audio is kept from when audio.keep is set, and for as long",
        )
    }

    /// What it says.
    pub(super) fn into_detail(self) -> String {
        self.detail
    }

    /// A value that cannot be taken.
    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// The store's trouble with `what`, e.g. `Conversation`.
    pub(super) fn store(what: &str, error: StoreError) -> Self {
        match error {
            StoreError::NotFound(_) => Self::not_found(what),
            StoreError::Conflict(_) | StoreError::Fenced(_) | StoreError::Ended(_) => {
                Self::new(StatusCode::CONFLICT, format!("{what} is not in a state that allows this"))
            }
            StoreError::Full(_) | StoreError::Busy(_) => {
                tracing::warn!(%error, "answer a request");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "The store is busy or full; try again later")
            }
            StoreError::Damaged(_) | StoreError::Other(_) => Self::internal(&error),
        }
    }

    /// Trouble of our own: the details go to the log, under a reference that the client is given.
    pub(super) fn internal(error: &dyn Display) -> Self {
        let reference = random_uuid(&mut rand::rng());
        tracing::error!(%error, reference, "answer a request");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("Internal error; the log has it under {reference}"),
        )
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { status, detail } = self;
        metrics::counter!("auricle_requests_failed_total", "status" => status.as_u16().to_string())
            .increment(1);
        let mut response = (status, Json(Problem { detail })).into_response();
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        let status = match error {
            AuthError::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            AuthError::Foreign => StatusCode::FORBIDDEN,
            _ => StatusCode::UNAUTHORIZED,
        };
        Self::new(status, error.to_string())
    }
}

/// The user who asks. First among a handler's arguments, so that strangers learn nothing from the checks that follow.
pub(super) struct Caller(pub(super) UserId);

impl FromRequestParts<RestState> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &RestState) -> Result<Self, Refusal> {
        Ok(Self(state.auth.authenticate_request(&parts.headers, state.clock.now()).await?))
    }
}

/// The identifier in the path. One that cannot name anything is let through as one that names nothing.
pub(super) struct Id(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(id) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.body_text()))?;
        Ok(Self(nameable(id)))
    }
}

/// The identifier in the path and the number after it; `None` for what is no number, which then names nothing.
pub(super) struct IdAndNumber(pub(super) String, pub(super) Option<u32>);

impl<S: Send + Sync> FromRequestParts<S> for IdAndNumber {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path((id, number)) = Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.body_text()))?;
        Ok(Self(nameable(id), number.parse().ok()))
    }
}

/// One that cannot name anything as one that names nothing.
fn nameable(id: String) -> String {
    if id.len() > ID_BYTES_MAX || id.contains('\0') { String::new() } else { id }
}

/// Query parameters.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(params)| Self(params)).map_err(|error| Refusal::invalid(error.body_text()))
    }
}

/// A JSON body, `None` if it is empty. Its content type is not looked at.
pub(super) struct MaybeBody<T>(pub(super) Option<T>);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for MaybeBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|error| Refusal::new(error.status(), error.body_text()))?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(None));
        }
        let value = serde_json::from_slice(&bytes);
        value.map(|value| Self(Some(value))).map_err(|error| Refusal::invalid(format!("Body: {error}")))
    }
}

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        match MaybeBody::from_request(request, state).await? {
            MaybeBody(Some(value)) => Ok(Self(value)),
            MaybeBody(None) => Err(Refusal::invalid("Body: a JSON object is expected")),
        }
    }
}

/// A page's limit, if it can be had.
pub(super) fn page_limit(asked: Option<usize>, default: usize, limits: &Limits) -> Result<usize, Refusal> {
    let max = limits.list_page_max;
    match asked.unwrap_or(default.min(max)) {
        limit if (1..=max).contains(&limit) => Ok(limit),
        _ => Err(Refusal::invalid(format!("A page holds 1 to {max}"))),
    }
}

/// A page's offset, if it can be had.
pub(super) fn page_offset(asked: Option<usize>) -> Result<usize, Refusal> {
    match asked.unwrap_or(0) {
        offset if offset <= OFFSET_MAX => Ok(offset),
        _ => Err(Refusal::invalid(format!("The offset is at most {OFFSET_MAX}"))),
    }
}

/// Characters of an action item or a memory.
const TEXT_CHARS_MAX: usize = 1_000;

/// A line that a user wrote, without what stands around it.
pub(super) fn written(what: &str, text: &str) -> Result<String, Refusal> {
    let text = text.trim();
    if !(1..=TEXT_CHARS_MAX).contains(&text.chars().count()) || text.chars().any(char::is_control) {
        return Err(Refusal::invalid(format!("{what} is 1 to {TEXT_CHARS_MAX} printable characters")));
    }
    Ok(text.to_owned())
}
