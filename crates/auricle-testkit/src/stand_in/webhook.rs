//! A receiver of webhooks.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, StatusCode};
use tokio::sync::watch;

use super::{Served, answer, broken_off, slowly};

/// Longest body that is taken.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What it does with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkMode {
    /// Takes it: 200.
    Ok,
    /// Takes nothing for this long, and then all: who gave up before has not delivered.
    Hang(Duration),
    /// Takes it, and answers with this status.
    Status(u16),
    /// Takes it and answers after this long, with a body that takes as long again.
    Slow(Duration),
    /// Takes it, says 200, and closes the connection in the middle of the body.
    Reset,
    /// Takes it and never answers.
    TakeThenHang,
}

/// What arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkDelivery {
    /// Of the address.
    pub path: String,
    /// Of the address, or empty.
    pub query: String,
    /// `Idempotency-Key`, if there was one.
    pub key: Option<String>,
    /// All headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

struct Known {
    mode: SinkMode,
    says: String,
    deliveries: Vec<SinkDelivery>,
}

struct Shared {
    known: Mutex<Known>,
    /// Requests, whether they were taken or not; and deliveries.
    requests: watch::Sender<usize>,
    arrived: watch::Sender<usize>,
}

/// A running sink, which takes every path. Stops when dropped.
pub struct WebhookSink {
    served: Served,
    shared: Arc<Shared>,
}

impl WebhookSink {
    /// On a free port of loopback; takes everything.
    pub async fn start() -> std::io::Result<Self> {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    /// On this address, e.g. where one was before.
    pub async fn start_at(address: SocketAddr) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            known: Mutex::new(Known { mode: SinkMode::Ok, says: "{}".into(), deliveries: Vec::new() }),
            requests: watch::Sender::new(0),
            arrived: watch::Sender::new(0),
        });
        let router = Router::new().fallback(take).with_state(Arc::clone(&shared));
        Ok(Self { served: Served::start(address, router).await?, shared })
    }

    /// `http://HOST:PORT`.
    pub fn url(&self) -> String {
        self.served.url()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.served.address
    }

    /// From the next request on.
    pub fn set(&self, mode: SinkMode) {
        self.shared.known().mode = mode;
    }

    /// From the next request on: the body of its answers.
    pub fn say(&self, body: impl Into<String>) {
        self.shared.known().says = body.into();
    }

    /// What arrived, in its order. Kept until it is taken.
    pub fn deliveries(&self) -> Vec<SinkDelivery> {
        self.shared.known().deliveries.clone()
    }

    /// What arrived since the last call, which is then forgotten.
    pub fn take(&self) -> Vec<SinkDelivery> {
        std::mem::take(&mut self.shared.known().deliveries)
    }

    /// The keys of what arrived.
    pub fn keys(&self) -> Vec<String> {
        self.shared.known().deliveries.iter().filter_map(|delivery| delivery.key.clone()).collect()
    }

    /// Requests so far, those that were not taken included.
    pub fn requests(&self) -> usize {
        *self.shared.requests.borrow()
    }

    /// Waits until there have been so many requests.
    pub async fn requested(&self, requests: usize) {
        // Cannot fail: the sender lives as long as `self`.
        let _ = self.shared.requests.subscribe().wait_for(|count| *count >= requests).await;
    }

    /// Waits until so many have arrived, taken ones included.
    pub async fn arrived(&self, deliveries: usize) {
        let _ = self.shared.arrived.subscribe().wait_for(|count| *count >= deliveries).await;
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn receive(&self, request: Request) -> bool {
        let (head, body) = request.into_parts();
        let Ok(body) = axum::body::to_bytes(body, BODY_BYTES_MAX).await else { return false };
        let key = head.headers.get("idempotency-key").and_then(|key| key.to_str().ok()).map(str::to_owned);
        self.known().deliveries.push(SinkDelivery {
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            key,
            headers: head.headers,
            body,
        });
        self.arrived.send_modify(|count| *count += 1);
        true
    }
}

async fn take(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (mode, says) = {
        let known = shared.known();
        (known.mode, known.says.clone())
    };
    shared.requests.send_modify(|count| *count += 1);
    if let SinkMode::Hang(time) = mode {
        tokio::time::sleep(time).await;
    }
    if !shared.receive(request).await {
        return answer(StatusCode::BAD_REQUEST, "{}");
    }
    match mode {
        SinkMode::Ok | SinkMode::Hang(_) => answer(StatusCode::OK, says),
        SinkMode::Status(status) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            answer(status, says)
        }
        SinkMode::Slow(time) => {
            tokio::time::sleep(time).await;
            answer(StatusCode::OK, slowly(says, time))
        }
        SinkMode::Reset => answer(StatusCode::OK, broken_off(&says)),
        SinkMode::TakeThenHang => std::future::pending().await,
    }
}
