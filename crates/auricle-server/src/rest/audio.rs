//! What is kept of a conversation's audio, to be heard by people.

use std::sync::Arc;

use auricle_core::{ConversationId, ConversationStatus};
use auricle_wire::rest::Problem;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::answer::{Caller, Id, Params, Refusal};
use super::retranscribe::{WHAT, conflict, load};
use super::{RestState, pieces};
use crate::playback::{Ask, AskError, Playback};
use crate::retranscribe::sources::{Source, of_runs};

/// Which part of it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AudioQuery {
    /// One of the channels, by name; all of them if absent.
    channel: Option<String>,
    /// Where it begins, in seconds of the conversation; 0, its first word, if absent. Negative: what was kept from before.
    from: Option<f64>,
    /// Where it ends, in seconds of the conversation; with the last audio if absent.
    until: Option<f64>,
}

enum Trouble {
    Ask(AskError),
    Read(std::io::Error),
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Read(error)
    }
}

/// What is kept of a conversation's audio (`audio.keep`), as one WAV file. Its times are those of the transcript: what is missing
/// between is silence. A conversation of several channels has them apart, the user's own first; `Auricle-Audio-Channels` names them.
#[utoipa::path(get, path = "/v1/conversations/{id}/audio", tag = "conversations",
    params(("id" = String, Path, description = "The conversation"), AudioQuery), responses(
    (status = 200, description = "A WAV file of 16-bit PCM; `Accept-Ranges` is `none`", content_type = "audio/wav"),
    (status = 404, description = "No such conversation of this user, or no audio of it is kept", body = Problem),
    (status = 409, description = "It is in progress, or some of it is still to be heard", body = Problem),
    (status = 422, description = "There is no such channel or part, or it is too long for one answer", body = Problem),
))]
pub(super) async fn audio(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
    Params(query): Params<AudioQuery>,
) -> Result<Response, Refusal> {
    let id = ConversationId::from(id);
    let conversation = load(&state, &user, &id).await?;
    if conversation.status == ConversationStatus::InProgress {
        return Err(conflict(
            "The conversation is still in progress; its audio can be had once it has ended",
        ));
    }
    if state.live.awaits_repair(&id) {
        return Err(conflict("Some of its audio is still to be transcribed; ask again once that is done"));
    }
    let Ok(place) = Arc::clone(&state.audio.answers).try_acquire_owned() else {
        return Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many recordings are being sent; try again in a minute",
        ));
    };
    let uploads = state.store.uploads_of(&user, &id).await.map_err(|error| Refusal::store(WHAT, error))?;
    let ask = Ask {
        channel: query.channel,
        from: query.from,
        until: query.until,
        secs_max: state.limits.audio_answer_secs_max,
    };
    let (audio, vault) = (Arc::clone(&state.audio), state.files.vault.clone());
    let settle_max = state.limits.audio_settle_max;
    let planned = tokio::task::spawn_blocking(move || {
        // What the spool lets go of is on its way.
        audio.spool.settle_within(settle_max);
        let mut sources = of_runs(audio.kept.runs(&user, &id)?);
        for upload in uploads {
            sources.extend(Source::of_upload(upload, [audio.kept.uploads(), &vault]));
        }
        sources.iter().try_for_each(Source::check)?;
        Playback::of((&conversation).into(), sources, &ask).map_err(Trouble::Ask)
    });
    let planned = planned.await.map_err(std::io::Error::other)?;
    let playback = planned?;
    metrics::counter!("auricle_audio_answers_total").increment(1);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("audio/wav")),
        (header::CONTENT_LENGTH, HeaderValue::from(playback.bytes())),
        (header::ACCEPT_RANGES, HeaderValue::from_static("none")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (
            header::HeaderName::from_static("auricle-audio-channels"),
            HeaderValue::from_str(&playback.channels().join(", "))
                .unwrap_or(HeaderValue::from_static("unknown")),
        ),
    ];
    let body = pieces::body(state.limits.request_max, move |out, _| {
        let _place = place;
        playback.write(out)
    });
    Ok((headers, body).into_response())
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::internal(&error)
    }
}

impl From<Trouble> for Refusal {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Ask(AskError::Nothing) => Self::no_audio(),
            Trouble::Ask(error) => Self::invalid(error.to_string()),
            Trouble::Read(error) => Self::internal(&error),
        }
    }
}
