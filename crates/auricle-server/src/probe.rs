//! `/livez`, `/readyz`, `/health` and `/metrics` on a thread, a runtime and a port of their own (promise P1).
//!
//! Liveness: our own session workers and the store's writer tick. Readiness: one more session may come, and more than
//! one: it turns before anything is refused for want of memory or of the store's pace. Neither asks anyone: they read atomics
//! and one short lock. Dependencies show in the detail of `/readyz`, never in liveness.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use auricle_core::Limits;
use auricle_store::Store;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::clock::monotonic;
use crate::hub::Hub;
use crate::runtimes::Serve;
use crate::serve::HttpServe;
use crate::vitals::{Role, Vitals};

/// Above the default, so that a machine with every core busy still answers its probes. Needs privilege; done without if refused.
const PROBE_NICE: i32 = -10;

/// What the probes read.
#[derive(Clone)]
pub(crate) struct ProbeState {
    /// Heartbeats.
    pub(crate) vitals: Vitals,
    /// Its health is atomics only.
    pub(crate) store: Arc<dyn Store>,
    /// Sessions and drain.
    pub(crate) hub: Arc<Hub>,
    /// Bounds.
    pub(crate) limits: Arc<Limits>,
    /// What `/metrics` prints.
    pub(crate) metrics: Option<PrometheusHandle>,
    /// Detail for `/readyz`: what dependencies say of themselves, already known (never asked here).
    pub(crate) dependencies: Arc<dyn Fn() -> Value + Send + Sync>,
}

/// Starts the probe's thread.
pub(crate) fn start(
    listener: TcpListener,
    state: ProbeState,
    stop: CancellationToken,
) -> std::io::Result<SocketAddr> {
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("probe".into()).spawn(move || {
        let _ = rustix::process::setpriority_process(None, PROBE_NICE);
        runtime.block_on(serve(listener, state, stop));
    })?;
    Ok(address)
}

async fn serve(listener: TcpListener, state: ProbeState, stop: CancellationToken) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "listen for probes"),
    };
    let places = Arc::new(tokio::sync::Semaphore::new(state.limits.probe_connections_max));
    let http = HttpServe::new(router(state), Duration::from_secs(10));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _peer)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let _ = stream.set_nodelay(true);
        let http = http.clone();
        tokio::spawn(async move {
            http.serve(stream).await;
            drop(place);
        });
    }
}

fn router(state: ProbeState) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/health", get(livez))
        .route("/metrics", get(render_metrics))
        .with_state(state)
}

async fn livez(State(state): State<ProbeState>) -> Response {
    let now = monotonic();
    let stall = state.limits.worker_stall_max;
    let workers = state.vitals.ages(Role::Session, now);
    let writer = state.store.health().writer_idle_for;
    let alive = writer < stall && workers.iter().all(|(_, age)| *age < stall);
    let workers: Vec<_> =
        workers.iter().map(|(name, age)| json!({"name": name, "lag_ms": millis(*age)})).collect();
    let body = json!({
        "status": if alive { "ok" } else { "stuck" },
        "workers": workers,
        "store_writer_lag_ms": millis(writer),
    });
    (if alive { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body)).into_response()
}

async fn readyz(State(state): State<ProbeState>) -> Response {
    let health = state.store.health();
    let now = monotonic();
    let load = state.hub.load(now);
    let (sessions, sessions_max) = (load.sessions, load.sessions_max);
    let mut reasons = Vec::new();
    if state.hub.is_draining() {
        reasons.push("draining".to_owned());
    }
    if sessions >= sessions_max {
        reasons.push(format!("{sessions} sessions of `limits.sessions_max` ({sessions_max})"));
    }
    if load.bytes >= load.bytes_max / 5 * 4 {
        let (bytes, most) = (load.bytes, load.bytes_max);
        reasons.push(format!("{bytes} bytes held for clients, of `limits.bytes_in_flight_max` ({most})"));
    }
    if load.refusing_for >= state.limits.accept_refusing_max {
        let (secs, rate) = (load.refusing_for.as_secs_f64(), state.limits.accept_rate);
        reasons
            .push(format!("more than `limits.accept_rate` ({rate} a second) want to come, for {secs:.1} s"));
    }
    if let Some(degraded) = &health.degraded {
        reasons.push(format!("store: {degraded}"));
    }
    // A quarter of what turns liveness.
    let slow = state.limits.worker_stall_max / 4;
    if health.writer_idle_for >= slow {
        reasons.push(format!("store: no write done for {} ms", millis(health.writer_idle_for)));
    }
    for (name, age) in state.vitals.ages(Role::Session, now) {
        if age >= slow {
            reasons.push(format!("{name}: no progress for {} ms", millis(age)));
        }
    }
    // A quarter of the queue: the writer falls behind before anything is refused.
    if health.queued > state.limits.store_queue_max / 4 {
        reasons.push(format!("store: {} writes queued", health.queued));
    }
    let ready = reasons.is_empty();
    let loops: Vec<_> = state
        .vitals
        .ages(Role::Loop, now)
        .iter()
        .map(|(name, age)| json!({"name": name, "lag_ms": millis(*age)}))
        .collect();
    let body = json!({
        "status": if ready { "ready" } else { "not ready" },
        "reasons": reasons,
        "sessions": sessions,
        "sessions_max": sessions_max,
        "bytes_in_flight": load.bytes,
        "bytes_in_flight_max": load.bytes_max,
        "store_queued": health.queued,
        "loops": loops,
        "dependencies": (state.dependencies)(),
    });
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body)).into_response()
}

async fn render_metrics(State(state): State<ProbeState>) -> Response {
    // Too many hold a part of it to tell each change.
    metrics::gauge!("auricle_bytes_in_flight").set(state.hub.account().bytes() as f64);
    let text = state.metrics.as_ref().map(PrometheusHandle::render).unwrap_or_default();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

fn millis(age: Duration) -> u64 {
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}
