//! The processing half's end of links: `/v1/trigger/listen`. Source: pusher-and-processing 1 and 3.
//!
//! Owns: admission of links, their frames, requests' answers. Leaves to others: realtime triggers (`crate::realtime`),
//! processing itself (a job's row is claimed by whatever worker is first). Invariants: one bad frame never ends a link; work
//! belongs to the process and outlives the link that asked for it; every request of a link is answered once; every queue is
//! bounded in bytes or count.

mod connection;
mod requests;

use std::sync::Arc;

use auricle_core::{Limits, UserId};
use auricle_store::Store;
use axum::Router;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::connection::Connection;
pub(crate) use self::requests::Requests;
use crate::auth::is_user_id;
use crate::clock::SystemClock;
use crate::config::Secret;
use crate::realtime::Triggers;

/// A peer after an outage may send 10 MiB of audio at once, and its header.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Source: pusher-and-processing 1.1.
const RATE_DEFAULT_HZ: u32 = 8_000;
const RATES_HZ: std::ops::RangeInclusive<u32> = 8_000..=48_000;

/// What every link shares.
pub(crate) struct Pusher {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) secret: Option<Secret>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) clock: SystemClock,
    pub(crate) requests: Arc<Requests>,
    pub(crate) triggers: Arc<Triggers>,
    /// Links.
    pub(crate) tail: TaskTracker,
    pub(crate) draining: CancellationToken,
}

/// The route.
pub(crate) fn router(pusher: Arc<Pusher>) -> Router {
    Router::new().route("/v1/trigger/listen", any(listen)).with_state(pusher)
}

async fn listen(
    State(pusher): State<Arc<Pusher>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    upgrade: WebSocketUpgrade,
) -> Response {
    if pusher.draining.is_cancelled() {
        return crate::serve::unavailable("this pusher is shutting down; try again in a second");
    }
    if !pusher.admits(&headers) {
        metrics::counter!("auricle_links_refused_total", "reason" => "secret").increment(1);
        return (
            StatusCode::UNAUTHORIZED,
            "the pusher's secret (AURICLE_PUSHER_SECRET) is not the same on both sides",
        )
            .into_response();
    }
    let upgrade = upgrade
        .read_buffer_size(8 * 1024)
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX);
    match Peer::read(query.as_deref().unwrap_or_default()) {
        Ok(peer) => {
            let tail = pusher.tail.clone();
            upgrade.on_upgrade(move |socket| tail.track_future(Connection::new(pusher, peer).run(socket)))
        }
        Err(wrong) => {
            metrics::counter!("auricle_links_refused_total", "reason" => "query").increment(1);
            upgrade.on_upgrade(move |socket| refuse(socket, wrong))
        }
    }
}

async fn refuse(mut socket: WebSocket, reason: &'static str) {
    let close = CloseFrame { code: 1008, reason: reason.into() };
    let _ = socket.send(Message::Close(Some(close))).await;
}

impl Pusher {
    /// Peers are servers: a page of a browser, which says where it is from, is none.
    fn admits(&self, headers: &HeaderMap) -> bool {
        if headers.contains_key(header::ORIGIN) {
            return false;
        }
        let Some(secret) = &self.secret else { return true };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        bool::from(given.as_bytes().ct_eq(secret.expose().as_bytes()))
    }
}

/// Whose session a link is of, and how its audio is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Peer {
    user: UserId,
    rate_hz: u32,
}

impl Peer {
    fn read(query: &str) -> Result<Self, &'static str> {
        let (mut user, mut rate_hz) = (None, RATE_DEFAULT_HZ);
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
            match key {
                "uid" => user = Some(value.into_owned()),
                "sample_rate" => rate_hz = value.parse().map_err(|_| "sample_rate is not a number")?,
                _ => {}
            }
        }
        let user = user.filter(|user| is_user_id(user)).ok_or("uid is not a user id")?;
        if !RATES_HZ.contains(&rate_hz) {
            return Err("sample_rate is not within 8000 to 48000");
        }
        Ok(Self { user: user.into(), rate_hz })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_says_whose_it_is_and_its_rate() {
        let peer = |query| Peer::read(query).map(|peer| (peer.user.to_string(), peer.rate_hz));
        assert_eq!(peer("uid=ann&sample_rate=16000"), Ok(("ann".into(), 16_000)));
        assert_eq!(peer("uid=a%40b.c&audio_timeline=2"), Ok(("a@b.c".into(), 8_000)));
        assert!(peer("sample_rate=16000").is_err());
        assert!(peer("uid=&sample_rate=16000").is_err());
        assert!(peer("uid=ann&sample_rate=4000").is_err());
        assert!(peer("uid=ann&sample_rate=x").is_err());
    }
}
