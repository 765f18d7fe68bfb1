//! `/v4/listen` and `/v4/web/listen`: from an upgrade request to a running session.
//!
//! Owns: admission, authentication and parameters of a socket. Leaves to others: what a session does
//! (`auricle_core::session`), how it is driven ([`driver`]). Source: listen-protocol 1.

mod driver;
mod ear;
mod events;
mod outbox;
mod runs;
mod takeover;

use std::sync::Arc;

use auricle_core::session::{FinaliseOnClose, OpenChoice, SessionConfig, Voice};
use auricle_core::{Limits, ProcessId, Source, Speaker, UserId};
use auricle_speech::Engine;
use auricle_store::Store;
use auricle_store::spool::{RunHeader, Spool};
use auricle_wire::multichannel::ChannelMap;
use auricle_wire::params::{Endpoint, ListenParams};
use axum::Router;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use axum::routing::any;
use tokio::sync::{Notify, Semaphore};

use self::driver::Driver;
use self::ear::{AudioFormat, Ear, RunOwner};
pub(crate) use self::events::{is_too_large, memory_created};
use crate::auth::Authenticator;
use crate::clock::SystemClock;
use crate::hub::{Hub, Permit, Refusal, Refused};
use crate::link::Links;
use crate::realtime::Triggers;
use crate::serve::unavailable_for;
use crate::translation::Translations;

/// Bytes of one socket's read buffer. The default of 128 KiB costs 134 KB a session; frames are some 100 bytes.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// What every session shares.
pub(crate) struct Listen {
    /// Durable things.
    pub(crate) store: Arc<dyn Store>,
    /// Audio until words cover it.
    pub(crate) spool: Spool,
    /// Speech to text.
    pub(crate) engine: Arc<dyn Engine>,
    /// Who is connected.
    pub(crate) hub: Arc<Hub>,
    /// Who may connect.
    pub(crate) auth: Arc<Authenticator>,
    /// Bounds.
    pub(crate) limits: Arc<Limits>,
    /// Time.
    pub(crate) clock: SystemClock,
    /// This process, as the store knows it.
    pub(crate) process: ProcessId,
    /// Conversations with audio that is left to repair.
    pub(crate) held: Arc<crate::repair::Held>,
    /// Wakes the repair of left-over audio.
    pub(crate) repair: Arc<Notify>,
    /// Wakes the workers.
    pub(crate) jobs: Arc<dyn Fn() + Send + Sync>,
    /// Links to the pusher, where there is one.
    pub(crate) links: Option<Arc<Links>>,
    /// `limits.partings_at_once_max` turns of those whose client is gone, so that thousands of connections lost at once keep
    /// neither the session workers nor the store's writer from the living.
    pub(crate) partings: Semaphore,
    /// Realtime triggers, where there is no pusher.
    pub(crate) triggers: Option<Arc<Triggers>>,
    /// Translations, where there are any.
    pub(crate) translations: Option<Arc<Translations>>,
}

impl Listen {
    fn wake_jobs(&self) {
        (self.jobs)();
    }
}

/// One connection's identity and wishes.
pub(crate) struct SessionSpec {
    pub(crate) user: UserId,
    pub(crate) session: SessionConfig,
    pub(crate) language: String,
    pub(crate) recording_session_id: Option<String>,
    pub(crate) call_id: Option<String>,
    pub(crate) channels: Option<ChannelMap>,
}

/// The two routes.
pub(crate) fn router(listen: Arc<Listen>) -> Router {
    Router::new().route("/v4/listen", any(v4)).route("/v4/web/listen", any(web)).with_state(listen)
}

async fn v4(
    State(listen): State<Arc<Listen>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    upgrade: WebSocketUpgrade,
) -> Response {
    let permit = match admitted(&listen.hub, listen.clock.mono()).await {
        Ok(permit) => permit,
        Err(refused) => return refuse(refused),
    };
    let upgrade = bounded(upgrade, &listen.limits);
    let user = match listen.auth.authenticate_request(&headers, listen.clock.now()).await {
        Ok(user) => user,
        // The upgrade is completed, so that clients which read close codes see this one (listen-protocol 1.4).
        Err(error) => {
            let (code, reason) = error.close();
            return upgrade.on_upgrade(move |socket| close(socket, code, reason.into()));
        }
    };
    let params = match ListenParams::parse(query.as_deref().unwrap_or_default(), Endpoint::V4) {
        Ok(params) => params,
        Err(error) => return upgrade.on_upgrade(move |socket| close(socket, 1008, error.to_string())),
    };
    match join(&listen, permit, user, params) {
        Ok(ready) => upgrade.on_upgrade(move |socket| ready.run(socket)),
        Err(NotReady::Refused(refused)) => refuse(refused),
        Err(NotReady::Undecodable(reason)) => upgrade.on_upgrade(move |socket| close(socket, 1011, reason)),
    }
}

async fn web(
    State(listen): State<Arc<Listen>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    upgrade: WebSocketUpgrade,
) -> Response {
    let permit = match admitted(&listen.hub, listen.clock.mono()).await {
        Ok(permit) => permit,
        Err(refused) => return refuse(refused),
    };
    let params = ListenParams::parse(query.as_deref().unwrap_or_default(), Endpoint::Web);
    bounded(upgrade, &listen.limits).on_upgrade(move |mut socket| async move {
        let params = match params {
            Ok(params) => params,
            Err(error) => return close(socket, 1008, error.to_string()).await,
        };
        let user = match first_message(&listen, &headers, &mut socket).await {
            Ok(user) => user,
            Err(Denied { answer, code, reason }) => {
                if answer {
                    let _ = socket.send(Message::Text(events::auth_response(false).into())).await;
                }
                return close(socket, code, reason).await;
            }
        };
        match join(&listen, permit, user, params) {
            Ok(ready) => {
                if socket.send(Message::Text(events::auth_response(true).into())).await.is_ok() {
                    ready.run(socket).await;
                }
            }
            Err(NotReady::Refused(refused)) => {
                count_refusal(refused.why);
                close(socket, 1013, "too many sessions; try again later".into()).await;
            }
            Err(NotReady::Undecodable(reason)) => close(socket, 1011, reason).await,
        }
    })
}

struct Denied {
    answer: bool,
    code: u16,
    reason: String,
}

/// Source: listen-protocol 1.5.
async fn first_message(
    listen: &Listen,
    headers: &HeaderMap,
    socket: &mut WebSocket,
) -> Result<UserId, Denied> {
    let denied = |answer, reason: &str| Denied { answer, code: 1008, reason: reason.to_owned() };
    let first = async {
        loop {
            match socket.recv().await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => return other,
            }
        }
    };
    let message = match tokio::time::timeout(listen.limits.web_auth_wait, first).await {
        Err(_late) => return Err(denied(false, "Auth timeout")),
        Ok(Some(Ok(message))) => message,
        Ok(_) => return Err(denied(false, "Auth error")),
    };
    let token = match &message {
        Message::Text(text) => auricle_wire::client::web_auth_token(text.as_str()),
        _ => return Err(denied(false, "Expected JSON auth message")),
    };
    let token = token.map_err(|failure| denied(failure.answers(), failure.reason()))?;
    listen.auth.authenticate_first_message(&token, headers, listen.clock.now()).await.map_err(|error| {
        let (code, reason) = error.close();
        let reason = if code == 1008 { "Invalid token" } else { reason };
        Denied { answer: true, code, reason: reason.to_owned() }
    })
}

pub(crate) fn bounded(upgrade: WebSocketUpgrade, limits: &Limits) -> WebSocketUpgrade {
    upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(limits.client_message_bytes_max)
        .max_frame_size(limits.client_message_bytes_max)
}

/// One more session, once it is its turn. A refusal comes at once and has cost nothing but the reading of the request's head.
pub(crate) async fn admitted(hub: &Arc<Hub>, now: std::time::Instant) -> Result<Permit, Refused> {
    let (permit, at) = hub.admit(now)?;
    if at > now && !hub.wait_until(at).await {
        return Err(hub.refusal(Refusal::Draining));
    }
    Ok(permit)
}

/// For the caller.
pub(crate) fn refusal_text(why: Refusal) -> &'static str {
    match why {
        Refusal::Draining => "this server is shutting down; try again in a second",
        Refusal::Full => "all sessions of this server are taken; try again later",
        Refusal::Bytes => "this server holds as much for its clients as it may; try again later",
        Refusal::Pace => "too many new sessions at once; try again later",
        Refusal::UserFull => "this user has too many sessions; close one",
    }
}

fn refuse(refused: Refused) -> Response {
    count_refusal(refused.why);
    let mut response = unavailable_for(refusal_text(refused.why), refused.retry_after);
    // Kept open, the connections of those who return again and again would take the places of others.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

pub(crate) fn count_refusal(refusal: Refusal) {
    metrics::counter!("auricle_sessions_refused_total", "reason" => refusal.as_str()).increment(1);
}

async fn close(mut socket: WebSocket, code: u16, reason: String) {
    metrics::counter!("auricle_sockets_denied_total", "code" => code.to_string()).increment(1);
    let reason = Utf8Bytes::from(auricle_wire::close::fitting(&reason));
    let _ = socket.send(Message::Close(Some(CloseFrame { code, reason }))).await;
    // Wait for the client's own close for a moment, so that ours is not lost with the connection.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), async {
        while let Some(Ok(message)) = socket.recv().await {
            if matches!(message, Message::Close(_)) {
                break;
            }
        }
    })
    .await;
}

enum NotReady {
    Refused(Refused),
    Undecodable(String),
}

/// A session that only lacks its socket.
struct Ready {
    listen: Arc<Listen>,
    spec: SessionSpec,
    ears: Vec<Ear>,
    run_owner: RunOwner,
    member: crate::hub::Membership,
    commands: tokio::sync::mpsc::Receiver<crate::hub::Command>,
}

impl Ready {
    async fn run(self, socket: WebSocket) {
        metrics::counter!("auricle_sessions_opened_total").increment(1);
        let _closed = CountOnDrop("auricle_sessions_closed_total");
        let span = tracing::info_span!("listen", session.id = %self.run_owner.header.run);
        let mut driver = Driver::new(
            self.listen,
            self.spec,
            socket,
            self.ears,
            self.run_owner,
            self.member,
            self.commands,
        );
        tracing::Instrument::instrument(driver.run(), span).await;
    }
}

struct CountOnDrop(&'static str);

impl Drop for CountOnDrop {
    fn drop(&mut self) {
        metrics::counter!(self.0).increment(1);
    }
}

fn join(listen: &Arc<Listen>, permit: Permit, user: UserId, params: ListenParams) -> Result<Ready, NotReady> {
    let spec = session_spec(&listen.limits, user.clone(), &params);
    let format = AudioFormat {
        codec: audio_codec(params.codec),
        sample_rate_hz: params.sample_rate,
        channels: if spec.channels.is_some() {
            1
        } else {
            u8::try_from(params.channels.clamp(1, 2)).unwrap_or(1)
        },
        multi: spec.channels.is_some(),
    };
    let source = spec.session.source;
    let (member, commands) = listen.hub.join(permit, user.clone(), source).map_err(NotReady::Refused)?;
    let account = listen.hub.account();
    let ears: Result<Vec<Ear>, _> =
        spec.session.voices.iter().map(|_| Ear::new(format.clone(), account)).collect();
    let ears = ears.map_err(|error| NotReady::Undecodable(error.to_string()))?;
    let header = RunHeader {
        run: auricle_core::ids::random_uuid(&mut rand::rng()),
        user,
        conversation: "".into(),
        process: listen.process.clone(),
        codec: format.codec.as_str().to_owned(),
        sample_rate_hz: format.sample_rate_hz,
        channels: u16::from(format.channels),
        language: Some(spec.language.clone()),
        source,
        role: None,
        first_audio_at: listen.clock.wall(),
    };
    Ok(Ready { listen: Arc::clone(listen), spec, ears, run_owner: RunOwner { header }, member, commands })
}

fn audio_codec(codec: auricle_wire::params::Codec) -> auricle_audio::Codec {
    use auricle_wire::params::Codec as Wire;
    match codec {
        Wire::Pcm8 => auricle_audio::Codec::Pcm8,
        Wire::Pcm16 => auricle_audio::Codec::Pcm16,
        Wire::Opus => auricle_audio::Codec::Opus,
        Wire::OpusFs320 => auricle_audio::Codec::OpusFs320,
        Wire::Aac => auricle_audio::Codec::Aac,
        Wire::Lc3Fs1030 => auricle_audio::Codec::Lc3Fs1030,
    }
}

fn session_spec(limits: &Limits, user: UserId, params: &ListenParams) -> SessionSpec {
    let source =
        params.source.as_deref().map_or(Source::Omi, |text| Source::parse(text).unwrap_or(Source::Unknown));
    let channels = (params.channels >= 2).then(|| ChannelMap::for_source(source.as_str()));
    let multi = channels.is_some();
    let custom_stt = params.custom_stt && !multi;
    let choice = match &params.client_conversation_id {
        _ if multi => OpenChoice::New,
        Some(id) => OpenChoice::Named(id.as_str().into()),
        None => OpenChoice::Resume,
    };
    let voices = if multi {
        vec![
            Voice::Fixed { speaker: Speaker::new("SPEAKER_00"), is_user: true },
            Voice::Fixed { speaker: Speaker::new("SPEAKER_01"), is_user: false },
        ]
    } else {
        vec![Voice::Recognised]
    };
    let timeout = if multi {
        limits.conversation_timeout_long
    } else {
        limits.conversation_timeout(params.conversation_timeout)
    };
    let session = SessionConfig {
        source,
        sample_rate_hz: params.sample_rate,
        voices,
        engine: !custom_stt,
        custom_stt,
        timeout,
        choice,
        finalise_on_close: match source {
            _ if multi => FinaliseOnClose::Always,
            Source::Desktop => FinaliseOnClose::Normal,
            _ => FinaliseOnClose::Never,
        },
        speaker_auto_assign: params.speaker_auto_assign,
        create_speakers: params.create_speakers,
        onboarding: params.onboarding,
    };
    SessionSpec {
        user,
        session,
        language: params.language.clone(),
        recording_session_id: params.client_conversation_id.clone(),
        call_id: params.call_id.clone().filter(|_| multi),
        channels,
    }
}
