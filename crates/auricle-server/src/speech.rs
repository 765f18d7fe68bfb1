//! The speech server: audio in, words out, nothing kept. Deepgram's streaming protocol (`/v1/listen`), and whole files for
//! OpenAI's transcription interface and for uploads.
//!
//! Owns: how an engine is fed from a socket or a file, and what callers are told. Leaves to others: the shapes (`auricle-wire`),
//! admission (`crate::hub`), who may call (`crate::auth`).
//! Invariants: a caller is read only as fast as the engine decides; an engine that stops is told to the caller, since nothing
//! is kept that could be heard again (ADR 15).

mod driver;
pub(crate) mod file;
mod teller;

use std::sync::Arc;

use auricle_core::{Limits, Source, UserId};
use auricle_speech::Engine;
use auricle_speech::cloud::KEY_TERM_CHARS_MAX;
use auricle_wire::deepgram::{ListenBounds, ListenQuery, Refusal};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use self::driver::Driver;
use crate::auth::{AuthError, Authenticator};
use crate::clock::SystemClock;
use crate::hub::{Hub, Refused};
use crate::listen::{admitted, bounded, refusal_text};

/// Seconds of audio given to an engine ahead of what it has decided: more than its longest stretch of speech (20 s), which it
/// cannot decide before its end, and less than it keeps (`limits.engine_backlog_secs_max`) and than a chain does
/// (`limits.speech_replay_secs_max`).
pub(crate) const AHEAD_SECS: u64 = 25;

/// What every stream shares.
pub(crate) struct Speech {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) auth: Arc<Authenticator>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) clock: SystemClock,
}

/// The route.
pub(crate) fn router(speech: Arc<Speech>) -> Router {
    Router::new().route("/v1/listen", get(listen)).with_state(speech)
}

/// An answer in Deepgram's shape; its SDKs look into the header too.
fn refuse(status: StatusCode, code: &str, text: &str, request: &str) -> Response {
    metrics::counter!("auricle_speech_refused_total", "code" => code.to_owned()).increment(1);
    let body = Refusal { err_code: code.into(), err_msg: text.into(), request_id: request.into() };
    let mut response = (status, Json(body)).into_response();
    let headers = response.headers_mut();
    for (name, value) in [("dg-request-id", request), ("dg-error", text)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    response
}

/// No room, with the time after which to come back.
fn refuse_full(refused: &Refused, request: &str) -> Response {
    let text = refusal_text(refused.why);
    let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, "TOO_BUSY", text, request);
    let secs = refused.retry_after.as_secs_f64().ceil().max(1.0) as u64;
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(secs));
    // Kept open, the connections of those who return again and again would take the places of others.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn refuse_auth(error: AuthError, request: &str) -> Response {
    let (status, code) = match error {
        AuthError::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
        AuthError::Foreign => (StatusCode::FORBIDDEN, "FORBIDDEN"),
        _ => (StatusCode::UNAUTHORIZED, "INVALID_AUTH"),
    };
    refuse(status, code, &error.to_string(), request)
}

/// A token that came where headers cannot be set: `Sec-WebSocket-Protocol: token, KEY`, or the query.
fn other_token(headers: &HeaderMap, query: &ListenQuery) -> Option<(Option<&'static str>, String)> {
    let asked = headers.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
    let mut words = asked.unwrap_or_default().split(',').map(str::trim);
    let scheme = match words.next() {
        Some("token") => Some("token"),
        Some("bearer") => Some("bearer"),
        _ => None,
    };
    match (scheme, words.next()) {
        (Some(scheme), Some(token)) => Some((Some(scheme), token.to_owned())),
        _ => query.token.clone().map(|token| (None, token)),
    }
}

async fn authenticated(
    speech: &Speech,
    headers: &HeaderMap,
    query: &ListenQuery,
) -> Result<(UserId, Option<&'static str>), AuthError> {
    let now = speech.clock.now();
    let other = if headers.contains_key(header::AUTHORIZATION) { None } else { other_token(headers, query) };
    match other {
        None => Ok((speech.auth.authenticate_request(headers, now).await?, None)),
        Some((scheme, token)) => {
            Ok((speech.auth.authenticate_first_message(&token, headers, now).await?, scheme))
        }
    }
}

fn bounds(limits: &Limits) -> ListenBounds {
    ListenBounds {
        channels_max: limits.speech_channels_max,
        key_terms_max: limits.speech_key_terms_max,
        key_terms_bytes_max: limits.speech_key_terms_bytes_max,
        key_term_chars_max: KEY_TERM_CHARS_MAX,
    }
}

async fn listen(
    State(speech): State<Arc<Speech>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Response {
    let request = auricle_core::ids::random_uuid(&mut rand::rng());
    let permit = match admitted(&speech.hub, speech.clock.mono()).await {
        Ok(permit) => permit,
        Err(refused) => {
            crate::listen::count_refusal(refused.why);
            return refuse_full(&refused, &request);
        }
    };
    let Ok(upgrade) = upgrade else {
        let text = "this address speaks WebSocket only; send whole files to POST /v1/audio/transcriptions";
        return refuse(StatusCode::UPGRADE_REQUIRED, "UPGRADE_REQUIRED", text, &request);
    };
    let query = match ListenQuery::parse(query.as_deref().unwrap_or_default(), bounds(&speech.limits)) {
        Ok(query) => query,
        Err(error) => {
            return refuse(StatusCode::BAD_REQUEST, "Bad Request", &error.to_string(), &request);
        }
    };
    let (user, scheme) = match authenticated(&speech, &headers, &query).await {
        Ok(found) => found,
        Err(error) => return refuse_auth(error, &request),
    };
    let (member, commands) = match speech.hub.join(permit, user, Source::Unknown) {
        Ok(joined) => joined,
        Err(refused) => {
            crate::listen::count_refusal(refused.why);
            return refuse_full(&refused, &request);
        }
    };
    member.stands_apart();
    let mut upgrade = bounded(upgrade, &speech.limits);
    if let Some(scheme) = scheme {
        upgrade = upgrade.protocols([scheme]);
    }
    let id = request.clone();
    let mut response = upgrade.on_upgrade(move |socket| async move {
        metrics::counter!("auricle_speech_streams_opened_total").increment(1);
        let span = tracing::info_span!("speech", session.id = %id);
        let driver = Driver::new(speech, query, socket, id, member, commands);
        let ended = tracing::Instrument::instrument(driver.run(), span).await;
        metrics::counter!("auricle_speech_streams_ended_total", "how" => ended).increment(1);
    });
    if let Ok(value) = HeaderValue::from_str(&request) {
        response.headers_mut().insert("dg-request-id", value);
    }
    response
}
