//! `POST /v1/audio/transcriptions` in OpenAI's shape: a file in, its transcript out, nothing kept.

use std::sync::Arc;

use auricle_audio::file::FileError;
use auricle_audio::recording::{Form as Kind, Recording};
use auricle_core::{UploadId, UserId};
use auricle_speech::{EngineError, StreamSpec};
use auricle_store::vault::Vault;
use auricle_wire::transcription::{
    ErrorBody, ErrorDetail, Format, TimedSegment, TimedWord, Transcription, Usage, VerboseTranscription, srt,
    vtt,
};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa::ToSchema;

use super::RestState;
use super::receive::{Form, ReceiveError, Receiver};
use crate::auth::AuthError;
use crate::speech::file::{HearError, Heard, Progress, hear};

/// Rate at which files are heard.
const RATE_HZ: u32 = 16_000;
/// Seconds after which a caller that found no place may come back.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// The form; other fields of OpenAI's are taken and have no effect.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document alone")]
pub(super) struct TranscriptionForm {
    /// WAV, Ogg Opus, FLAC, MP3, M4A or WebM.
    #[schema(value_type = String, format = Binary)]
    file: String,
    /// Any; the configured engine transcribes.
    model: Option<String>,
    /// `en`, if absent.
    language: Option<String>,
    /// `json` (if absent), `text`, `srt`, `vtt` or `verbose_json`.
    response_format: Option<String>,
    /// Of `verbose_json`: `segment` (if absent) and `word`.
    #[schema(rename = "timestamp_granularities[]")]
    timestamp_granularities: Option<Vec<String>>,
}

/// An answer that is no transcript.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    kind: &'static str,
    message: String,
    param: Option<&'static str>,
    code: Option<&'static str>,
}

impl Refusal {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), param: None, code: None }
    }

    fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        let refusal = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message);
        Self { param: Some(param), ..refusal }
    }

    fn trouble(error: &dyn std::fmt::Display) -> Self {
        let reference = auricle_core::ids::random_uuid(&mut rand::rng());
        tracing::error!(%error, reference, "transcribe a file");
        let text = format!("Internal error; the log has it under {reference}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", text)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status;
        metrics::counter!("auricle_requests_failed_total", "status" => status.as_u16().to_string())
            .increment(1);
        let error = ErrorDetail {
            message: self.message,
            r#type: self.kind.to_owned(),
            param: self.param.map(str::to_owned),
            code: self.code.map(str::to_owned),
        };
        let mut response = (status, Json(ErrorBody { error })).into_response();
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        let (status, kind) = match error {
            AuthError::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "server_error"),
            AuthError::Foreign => (StatusCode::FORBIDDEN, "permission_error"),
            _ => (StatusCode::UNAUTHORIZED, "authentication_error"),
        };
        Self { code: Some("invalid_api_key"), ..Self::new(status, kind, error.to_string()) }
    }
}

impl From<ReceiveError> for Refusal {
    fn from(error: ReceiveError) -> Self {
        let (status, kind) = match &error {
            ReceiveError::Malformed(_) => (StatusCode::BAD_REQUEST, "invalid_request_error"),
            ReceiveError::TooMuch(_) => (StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error"),
            ReceiveError::Stalled(_) => (StatusCode::REQUEST_TIMEOUT, "invalid_request_error"),
            ReceiveError::Full(_) => (StatusCode::INSUFFICIENT_STORAGE, "server_error"),
            ReceiveError::Io(error) => return Self::trouble(error),
        };
        Self::new(status, kind, error.to_string())
    }
}

impl From<HearError> for Refusal {
    fn from(error: HearError) -> Self {
        match error {
            HearError::File(FileError::Io(error)) => Self::trouble(&error),
            HearError::File(error) => Self::invalid("file", format!("Invalid file format: {error}")),
            HearError::Engine(EngineError::Unavailable(text)) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", text)
            }
            HearError::Engine(_) | HearError::Stuck(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", error.to_string())
            }
        }
    }
}

/// Transcribes a file. A client that leaves ends the work.
#[utoipa::path(post, path = "/v1/audio/transcriptions", tag = "speech",
    request_body(content = TranscriptionForm, content_type = "multipart/form-data"), responses(
    (status = 200, description = "In `json`; the other forms are text or `VerboseTranscription`", body = Transcription),
    (status = 400, description = "The form or the file cannot be read", body = ErrorBody),
    (status = 401, description = "No or no good credentials", body = ErrorBody),
    (status = 408, description = "The body brought nothing for too long", body = ErrorBody),
    (status = 413, description = "The file is too long", body = ErrorBody),
    (status = 429, description = "Too many files at once; see Retry-After", body = ErrorBody),
    (status = 503, description = "The engine is away or cannot keep up; see Retry-After", body = ErrorBody),
    (status = 507, description = "There is no room for the file", body = ErrorBody),
))]
pub(super) async fn transcribe(
    State(state): State<RestState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let user = state.auth.authenticate_request(&headers, state.clock.now()).await?;
    let Ok(_place) = state.files.transcriptions.try_acquire() else {
        metrics::counter!("auricle_transcriptions_refused_total").increment(1);
        let text = format!(
            "{} files are being transcribed, which is the limit; try again later",
            state.limits.transcriptions_running_max
        );
        let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", text);
        return Err(Refusal { code: Some("rate_limit_exceeded"), ..refusal });
    };
    let counted = Counted("broken_off");
    let receiver = Receiver { vault: &state.files.vault, user: &user, limits: &state.limits, files_max: 1 };
    let mut form = receiver.form(&headers, body).await?;
    let wishes = Wishes::read(&form)?;
    let file = form.files.pop().ok_or_else(|| Refusal::invalid("file", "the form has no file"))?;
    let heard = heard(&state, &user, &file.id, &wishes.language).await?;
    counted.done();
    Ok(wishes.answer(heard))
}

async fn heard(state: &RestState, user: &UserId, id: &UploadId, language: &str) -> Result<Heard, HearError> {
    let spec = StreamSpec {
        sample_rate_hz: RATE_HZ,
        language: language.to_owned(),
        label: id.as_str().to_owned(),
        key_terms: Vec::new(),
        interim: false,
    };
    let open = opener(&state.files.vault, user, id, Kind::File, state.limits.upload_secs_max);
    let engine = Arc::clone(&state.files.engine);
    hear(&*engine, spec, open, state.limits.speech_stuck_max, &Progress::default()).await
}

/// Opens a file of the vault, where that may block.
pub(crate) fn opener(
    vault: &Vault,
    user: &UserId,
    id: &UploadId,
    kind: Kind,
    secs_max: u32,
) -> impl FnOnce() -> Result<Recording, FileError> + Send + 'static {
    let (vault, user, id) = (vault.clone(), user.clone(), id.clone());
    move || Recording::open(kind, vault.read(&user, &id)?, RATE_HZ, secs_max)
}

/// Counts how a request ended, also if its client left.
struct Counted(&'static str);

impl Counted {
    fn done(mut self) {
        self.0 = "done";
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::counter!("auricle_transcriptions_total", "outcome" => self.0).increment(1);
    }
}

/// What the form asks for.
struct Wishes {
    language: String,
    format: Format,
    segments: bool,
    words: bool,
}

impl Wishes {
    fn read(form: &Form) -> Result<Self, Refusal> {
        let named = form.field("response_format").unwrap_or("json");
        let format = Format::parse(named).ok_or_else(|| {
            Refusal::invalid("response_format", "response_format is json, text, srt, verbose_json or vtt")
        })?;
        let granularities = form.list("timestamp_granularities");
        if granularities.iter().any(|asked| !["word", "segment"].contains(asked)) {
            return Err(Refusal::invalid(
                "timestamp_granularities",
                "timestamp_granularities are word and segment",
            ));
        }
        let words = granularities.contains(&"word");
        Ok(Self {
            language: form.field("language").filter(|l| !l.is_empty()).unwrap_or("en").to_owned(),
            format,
            words,
            segments: !words || granularities.contains(&"segment"),
        })
    }

    fn answer(&self, heard: Heard) -> Response {
        let text = |words: &[auricle_core::Word]| {
            words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
        };
        let segment = |(id, words): (usize, &Vec<auricle_core::Word>)| {
            let start = words.first().map_or(0.0, |word| word.start);
            TimedSegment::new(id, start, words.last().map_or(start, |word| word.end), text(words))
        };
        let segments: Vec<_> = heard.utterances.iter().enumerate().map(segment).collect();
        let whole = segments.iter().map(|segment| segment.text.as_str()).collect::<Vec<_>>().join(" ");
        let usage = Usage { r#type: "duration".into(), seconds: heard.secs.ceil() as u64 };
        let plain = |kind: &'static str, text: String| ([(header::CONTENT_TYPE, kind)], text).into_response();
        match self.format {
            Format::Json => Json(Transcription { text: whole, usage }).into_response(),
            Format::Text => plain("text/plain; charset=utf-8", format!("{whole}\n")),
            Format::Srt => plain("application/x-subrip; charset=utf-8", srt(&segments)),
            Format::Vtt => plain("text/vtt; charset=utf-8", vtt(&segments)),
            Format::VerboseJson => {
                let word = |word: auricle_core::Word| TimedWord {
                    word: word.text,
                    start: word.start,
                    end: word.end,
                };
                let words = self.words.then(|| heard.utterances.into_iter().flatten().map(word).collect());
                Json(VerboseTranscription {
                    task: "transcribe".into(),
                    language: self.language.clone(),
                    duration: heard.secs,
                    text: whole,
                    segments: self.segments.then_some(segments),
                    words,
                    usage,
                })
                .into_response()
            }
        }
    }
}
