//! What each half serves, and the workers that serve it.

use std::sync::Arc;

use auricle_process::{Embed, EmbedServer};
use auricle_store::Store;
use axum::Router;
use axum::extract::Request;
use axum::routing::get;
use jiff::tz::TimeZone;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Hearing, Parts};
use crate::config::Config;
use crate::listen::Listen;
use crate::outgoing::Outgoing;
use crate::realtime::Triggers;
use crate::runtimes::SessionWorker;
use crate::speech::Speech;
use crate::translation::Translations;
use crate::{link, listen, pusher, rest, serve};

async fn healthy() -> axum::Json<serde_json::Value> {
    axum::Json(serde_json::json!({ "status": "ok" }))
}

pub(super) fn session_workers(
    config: &Config,
    parts: &Parts,
    router: Router,
    stop: &CancellationToken,
) -> std::io::Result<Arc<[SessionWorker]>> {
    let http = serve::HttpServe::new(router, parts.limits.request_head_wait);
    (0..config.session_workers())
        .map(|index| Ok(SessionWorker::start(index, http.clone(), &parts.vitals, stop.clone())?.0))
        .collect()
}

/// What a process with clients serves.
pub(super) fn listening(
    parts: &Parts,
    hearing: &Hearing,
    wake: &Arc<dyn Fn() + Send + Sync>,
    background: &Runtime,
    (links, embed): (Option<Arc<link::Links>>, Option<Arc<EmbedServer>>),
    (outgoing, triggers): (Arc<Outgoing>, Arc<Triggers>),
    (time_zone, translations): (TimeZone, Option<Arc<Translations>>),
) -> Router {
    let rest = rest::router(rest::RestState {
        store: Arc::clone(&parts.store) as Arc<dyn Store>,
        auth: Arc::clone(&parts.auth),
        live: Arc::new(crate::live::Live {
            hub: Arc::clone(&parts.hub),
            erase: Arc::clone(&hearing.erase),
            held: Arc::clone(&hearing.held),
        }),
        wake_jobs: Arc::clone(wake),
        waits: Arc::new(Semaphore::new(parts.limits.records_awaited_max)),
        outgoing,
        exports: Arc::new(Semaphore::new(parts.limits.exports_running_max)),
        limits: Arc::clone(&parts.limits),
        clock: parts.clock,
        time_zone,
        embed: embed.map(|embed| embed as Arc<dyn Embed>),
        files: Arc::clone(&hearing.files),
        audio: Arc::clone(&hearing.audio),
    });
    // Requests that bring files have places of their own: more than handlers give, so that those answer who is too many.
    let with_files = serve::Offload::new(
        rest.clone(),
        background.handle().clone(),
        2 * (parts.limits.transcriptions_running_max + parts.limits.uploads_receiving_max),
        parts.limits.transcription_max,
    );
    let offload = serve::Offload::new(
        rest,
        background.handle().clone(),
        parts.limits.requests_running_max,
        parts.limits.request_max,
    );
    let speech = Arc::new(Speech {
        engine: Arc::clone(&hearing.engine) as _,
        hub: Arc::clone(&parts.hub),
        auth: Arc::clone(&parts.auth),
        limits: Arc::clone(&parts.limits),
        clock: parts.clock,
    });
    let listen = Arc::new(Listen {
        store: Arc::clone(&parts.store) as Arc<dyn Store>,
        spool: hearing.spool.clone(),
        engine: Arc::clone(&hearing.engine) as Arc<dyn auricle_speech::Engine>,
        held: Arc::clone(&hearing.held),
        hub: Arc::clone(&parts.hub),
        auth: Arc::clone(&parts.auth),
        limits: Arc::clone(&parts.limits),
        clock: parts.clock,
        process: parts.process.clone(),
        repair: Arc::clone(&hearing.repair),
        jobs: Arc::clone(wake),
        // Where there is a pusher, it is told.
        triggers: links.is_none().then_some(triggers),
        links,
        translations,
        partings: Semaphore::new(parts.limits.partings_at_once_max),
    });
    listen::router(listen)
        .merge(crate::speech::router(speech))
        .route("/health", get(healthy))
        .route("/v1/health", get(healthy))
        .fallback(move |request: Request| {
            let brings_files = rest::brings_files(request.method(), request.uri().path());
            let offload = if brings_files { &with_files } else { &offload };
            offload.clone().call(request)
        })
}

/// What a pusher serves.
pub(super) fn pushing(
    config: &Config,
    parts: &Parts,
    wake: &Arc<dyn Fn() + Send + Sync>,
    background: &Runtime,
    triggers: Arc<Triggers>,
    draining: CancellationToken,
    tail: TaskTracker,
) -> Router {
    let requests = pusher::Requests::new(
        Arc::clone(&parts.store) as Arc<dyn Store>,
        Arc::clone(&parts.limits),
        parts.clock,
        Arc::clone(wake),
        background.handle().clone(),
    );
    let pusher = Arc::new(pusher::Pusher {
        store: Arc::clone(&parts.store) as Arc<dyn Store>,
        secret: config.pusher.secret.clone(),
        limits: Arc::clone(&parts.limits),
        clock: parts.clock,
        requests,
        triggers,
        tail,
        draining,
    });
    pusher::router(pusher).route("/health", get(healthy)).route("/v1/health", get(healthy))
}
