//! Where all parts meet: [`build`] puts the server together, [`App::run`] runs it to its end.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use auricle_core::{Account, Limits, ProcessId};
use auricle_process::openai::OpenAiConfig;
use auricle_process::{Deliver, OpenAi, Outbox, Understand, Worker};
use auricle_speech::Engine;
use auricle_store::spool::{Spool, SpoolOptions};
use auricle_store::{ClaimRule, SqliteOptions, SqliteStore, Store};
use axum::Router;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{SystemClock, monotonic};
use crate::config::{Config, Shape};
use crate::hub::Hub;
use crate::listen::Listen;
use crate::outgoing::Outgoing;
use crate::outgoing::reach::Reach;
use crate::runtimes::SessionWorker;
use crate::vitals::Vitals;
use crate::{
    accept, auth, link, listen, loops, notify, probe, pusher, repair, rest, runtimes, serve, sweeper, webhook,
};

/// Why the server could not be built. Each names what to do.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The data folder cannot be made or written.
    #[error("cannot use the data folder {}: {source}; choose another with --data-dir", path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another server uses it.
    #[error("another auricle uses the data folder {}; stop it, or choose another folder with --data-dir", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The store cannot be opened.
    #[error("cannot open the store: {0}")]
    Store(#[from] auricle_store::StoreError),
    /// The spool cannot be opened.
    #[error("cannot open the audio spool: {0}")]
    Spool(std::io::Error),
    /// The speech engine's configuration is wrong.
    #[error("cannot set up speech recognition: {0}")]
    Speech(#[from] auricle_speech::EngineError),
    /// Authentication's configuration is wrong.
    #[error("cannot set up authentication: {0}")]
    Auth(String),
    /// An address is taken or not ours.
    #[error("cannot listen on {address}: {source}; choose another address with {flag}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// The option that sets it.
        flag: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// No client for webhooks can be made.
    #[error("cannot set up webhooks: {0}")]
    Webhooks(String),
    /// No client for the language model can be made.
    #[error("cannot set up understanding: {0}")]
    Understanding(#[from] auricle_process::openai::OpenAiError),
    /// The system refuses threads.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Where the server can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Sockets and REST.
    pub public: SocketAddr,
    /// Probes and metrics.
    pub probe: SocketAddr,
}

/// A built server: its ports are bound, nothing is served yet.
pub struct App {
    config: Config,
    addresses: Addresses,
    listener: TcpListener,
    probe_listener: TcpListener,
    parts: Parts,
    // Dropped last: the lock on the data folder.
    _lock: Option<std::fs::File>,
}

/// What the runtimes share.
#[derive(Clone)]
struct Parts {
    limits: Arc<Limits>,
    store: Arc<SqliteStore>,
    /// Not in a pusher.
    hearing: Option<Hearing>,
    auth: Arc<auth::Authenticator>,
    hub: Arc<Hub>,
    vitals: Vitals,
    clock: SystemClock,
    process: ProcessId,
}

/// What only a process with clients of its own has.
#[derive(Clone)]
struct Hearing {
    spool: Spool,
    engine: Arc<dyn Engine>,
    repair: Arc<Notify>,
}

/// A running server.
pub struct Running {
    parts: Parts,
    addresses: Addresses,
    workers: Arc<[SessionWorker]>,
    stop_accepting: CancellationToken,
    stop_work: CancellationToken,
    stop_loops: CancellationToken,
    stop_probe: CancellationToken,
    /// What goes on after sessions and links have ended, and ends by itself.
    tail: TaskTracker,
    background: Runtime,
    processing: Runtime,
    addresses_file: PathBuf,
    /// Tells links of a pusher that they end.
    stop_links: CancellationToken,
    _lock: Option<std::fs::File>,
}

/// Puts the server of `config.shape` together: opens the store and the spool, sets up engine and authentication, binds both
/// ports.
pub fn build(config: Config) -> Result<App, BuildError> {
    let data_dir = config.data_dir.clone();
    let unusable = |source| BuildError::DataDir { path: data_dir.clone(), source };
    std::fs::create_dir_all(&data_dir).map_err(unusable)?;
    // A pusher shares the store with whoever listens; the spool is one process's own.
    let lock = (config.shape != Shape::Pusher).then(|| lock(&data_dir)).transpose()?;
    let limits = Arc::new(config.limits.clone());
    let clock = SystemClock;
    let store = SqliteStore::open(data_dir.join("auricle.db"), SqliteOptions::from(&*limits))?;
    let account = Account::default();
    let hearing = (config.shape != Shape::Pusher).then(|| hearing(&config, &account)).transpose()?;
    let auth = auth::Authenticator::new(&config, Arc::clone(&store) as Arc<dyn Store>)
        .map_err(|error| BuildError::Auth(error.to_string()))?;
    let listener = bind(config.bind, "--bind")?;
    let probe_listener = bind(config.probe_bind, "--probe-bind")?;
    let address = |listener: &TcpListener, asked| listener.local_addr().unwrap_or(asked);
    let addresses = Addresses {
        public: address(&listener, config.bind),
        probe: address(&probe_listener, config.probe_bind),
    };
    let parts = Parts {
        hub: Hub::new(Arc::clone(&limits), account, monotonic()),
        limits,
        store,
        hearing,
        auth: Arc::new(auth),
        vitals: Vitals::new(monotonic()),
        clock,
        process: ProcessId::random(&mut rand::rng()),
    };
    Ok(App { config, addresses, listener, probe_listener, parts, _lock: lock })
}

fn hearing(config: &Config, account: &Account) -> Result<Hearing, BuildError> {
    let options = SpoolOptions { account: account.clone(), ..SpoolOptions::from(&config.limits) };
    let spool = Spool::open(config.data_dir.join("spool"), options).map_err(BuildError::Spool)?;
    let engine =
        auricle_speech::build(&auricle_speech::SpeechConfig { account: account.clone(), ..speech(config) })?;
    Ok(Hearing { spool, engine, repair: Arc::new(Notify::new()) })
}

/// The engine's own settings from ours.
pub fn speech(config: &Config) -> auricle_speech::SpeechConfig {
    let ours = &config.speech;
    auricle_speech::SpeechConfig {
        engine: ours.engine.as_str().to_owned(),
        pocketsphinx: auricle_speech::PocketSphinxConfig {
            decoders: std::num::NonZeroUsize::new(ours.decoders),
            library: ours.pocketsphinx_library.clone(),
            model_dir: ours.pocketsphinx_model.clone(),
            backlog_secs_max: config.limits.engine_backlog_secs_max,
        },
        scripted: auricle_speech::ScriptedConfig { script: ours.script.clone(), ..Default::default() },
        account: Account::default(),
    }
}

fn lock(data_dir: &Path) -> Result<std::fs::File, BuildError> {
    let path = data_dir.join("lock");
    let unusable = |source| BuildError::DataDir { path: data_dir.to_owned(), source };
    let file =
        std::fs::File::options().create(true).truncate(false).write(true).open(path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(BuildError::Locked { path: data_dir.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(unusable(source)),
    }
}

fn bind(address: SocketAddr, flag: &'static str) -> Result<TcpListener, BuildError> {
    let listen = || {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        // As many as may arrive in the second after a restart.
        socket.listen(4_096)?;
        Ok(socket.into())
    };
    listen().map_err(|source| BuildError::Bind { address, flag, source })
}

impl App {
    /// Where it will be reached; a port asked for as 0 is the one the system chose.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Starts every thread and serves. Returns at once.
    pub fn start(self) -> Result<Running, BuildError> {
        let Self { config, addresses, listener, probe_listener, parts, _lock } = self;
        let thread = BuildError::Thread;
        let background = runtimes::background().map_err(thread)?;
        let processing = runtimes::processing(config.processing_threads()).map_err(thread)?;
        let (stop_accepting, stop_work) = (CancellationToken::new(), CancellationToken::new());
        let (stop_loops, stop_probe) = (CancellationToken::new(), CancellationToken::new());
        let stop_links = CancellationToken::new();
        let tail = TaskTracker::new();
        let metrics = crate::metrics::recorder(&config);
        let upkept = metrics.clone();
        // Announced before the first session: what a process owns counts only while it is announced.
        let until = parts.clock.wall() + parts.limits.lease;
        background.block_on(parts.store.process_alive(&parts.process, until))?;
        let (wake_up, effects) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let wake: Arc<dyn Fn() + Send + Sync> = {
            let wake_up = Arc::clone(&wake_up);
            Arc::new(move || wake_up.notify_one())
        };
        let links = (config.shape == Shape::Listen)
            .then(|| {
                let (limits, runtime) = (Arc::clone(&parts.limits), background.handle().clone());
                link::Links::new(
                    &config.pusher,
                    limits,
                    (runtime, tail.clone()),
                    Arc::clone(&wake),
                    Arc::clone(&effects),
                )
            })
            .flatten();
        let outgoing = outgoing(&config, &parts)?;
        let model = model(&config, &parts)?;
        let probe_state = probe::ProbeState {
            vitals: parts.vitals.clone(),
            store: Arc::clone(&parts.store) as Arc<dyn Store>,
            hub: Arc::clone(&parts.hub),
            limits: Arc::clone(&parts.limits),
            metrics,
            dependencies: dependencies(&parts, links.clone(), model.clone()),
        };
        probe::start(probe_listener, probe_state, stop_probe.clone()).map_err(thread)?;
        let (worker, outbox) =
            processors(&config, &parts, (wake_up, effects), links.clone(), model, Arc::clone(&outgoing));
        run_loops(
            &parts,
            worker,
            outbox,
            &wake,
            &background,
            &processing,
            &stop_work,
            &stop_loops,
            &tail,
            upkept,
        );
        let router = match &parts.hearing {
            Some(hearing) => listening(&parts, hearing, &wake, &background, links),
            None => pushing(&config, &parts, &wake, &background, outgoing, stop_links.clone(), tail.clone()),
        };
        let workers = session_workers(&config, &parts, router, &stop_loops).map_err(thread)?;
        accept::start(listener, Arc::clone(&workers), parts.limits.connections_max, stop_accepting.clone())
            .map_err(thread)?;
        let addresses_file = config.data_dir.join(match config.shape {
            Shape::Embedded | Shape::Listen => "addresses.json",
            Shape::Pusher => "pusher-addresses.json",
        });
        write_addresses(&addresses_file, addresses);
        Ok(Running {
            parts,
            addresses,
            workers,
            stop_accepting,
            stop_work,
            stop_loops,
            stop_probe,
            tail,
            background,
            processing,
            addresses_file,
            stop_links,
            _lock,
        })
    }

    /// Starts, calls `started` once it serves, drains on SIGTERM or SIGINT, and returns. A second signal exits at once.
    pub fn run(self, started: impl FnOnce(Addresses)) -> Result<(), BuildError> {
        // Before anything says that it runs: whoever reads that may stop it at once.
        let signals = crate::signals::watch().map_err(BuildError::Thread)?;
        let running = self.start()?;
        started(running.addresses());
        let _ = signals.recv();
        tracing::info!("draining; a second signal exits at once");
        let (done, drained) = std::sync::mpsc::sync_channel(1);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                running.drain();
                let _ = done.send(());
            });
            while let Err(RecvTimeoutError::Timeout) = drained.recv_timeout(Duration::from_millis(50)) {
                if signals.try_recv().is_ok() {
                    // The scope would wait for the drain: the second signal asked not to.
                    tracing::warn!("exit without draining");
                    std::process::exit(130);
                }
            }
        });
        tracing::info!("stopped");
        Ok(())
    }
}

async fn healthy() -> axum::Json<serde_json::Value> {
    axum::Json(serde_json::json!({ "status": "ok" }))
}

fn session_workers(
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
fn listening(
    parts: &Parts,
    hearing: &Hearing,
    wake: &Arc<dyn Fn() + Send + Sync>,
    background: &Runtime,
    links: Option<Arc<link::Links>>,
) -> Router {
    let rest = rest::router(rest::RestState {
        store: Arc::clone(&parts.store) as Arc<dyn Store>,
        auth: Arc::clone(&parts.auth),
        live: Arc::new(crate::live::Live { hub: Arc::clone(&parts.hub) }),
        wake_jobs: Arc::clone(wake),
        limits: Arc::clone(&parts.limits),
        clock: parts.clock,
    });
    let offload = serve::Offload::new(
        rest,
        background.handle().clone(),
        parts.limits.requests_running_max,
        parts.limits.request_max,
    );
    let listen = Arc::new(Listen {
        store: Arc::clone(&parts.store) as Arc<dyn Store>,
        spool: hearing.spool.clone(),
        engine: Arc::clone(&hearing.engine),
        hub: Arc::clone(&parts.hub),
        auth: Arc::clone(&parts.auth),
        limits: Arc::clone(&parts.limits),
        clock: parts.clock,
        process: parts.process.clone(),
        repair: Arc::clone(&hearing.repair),
        jobs: Arc::clone(wake),
        links,
    });
    listen::router(listen)
        .route("/health", get(healthy))
        .route("/v1/health", get(healthy))
        .fallback(move |request| offload.clone().call(request))
}

/// What a pusher serves.
fn pushing(
    config: &Config,
    parts: &Parts,
    wake: &Arc<dyn Fn() + Send + Sync>,
    background: &Runtime,
    outgoing: Arc<Outgoing>,
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
        triggers: Arc::new(pusher::Triggers::new(&config.webhooks, outgoing)),
        runtime: background.handle().clone(),
        tail,
        draining,
    });
    pusher::router(pusher).route("/health", get(healthy)).route("/v1/health", get(healthy))
}

/// What webhooks and triggers go out by.
fn outgoing(config: &Config, parts: &Parts) -> Result<Arc<Outgoing>, BuildError> {
    let reach = Reach::new(config.webhooks.allow_private);
    Outgoing::new(reach, &parts.limits, Arc::new(parts.clock))
        .map_err(|error| BuildError::Webhooks(error.to_string()))
}

/// The language model, if one is configured.
fn model(config: &Config, parts: &Parts) -> Result<Option<Arc<OpenAi>>, BuildError> {
    let Some(url) = &config.llm.url else { return Ok(None) };
    let ours = OpenAiConfig {
        url: url.clone(),
        model: config.llm.model.clone(),
        key: config.llm.key.as_ref().map(|key| key.expose().to_owned()),
    };
    let model = OpenAi::new(&ours, Arc::clone(&parts.limits), Arc::new(parts.clock))?;
    Ok(Some(Arc::new(model)))
}

/// What `/readyz` tells of others. Never asked for: what is known already.
fn dependencies(
    parts: &Parts,
    links: Option<Arc<link::Links>>,
    model: Option<Arc<OpenAi>>,
) -> Arc<dyn Fn() -> serde_json::Value + Send + Sync> {
    let hearing = parts.hearing.clone();
    Arc::new(move || {
        let mut known = serde_json::Map::new();
        if let Some(Hearing { spool, engine, .. }) = &hearing {
            known.insert("speech".into(), engine.name().into());
            let lag = u64::try_from(spool.silent_for().as_millis()).unwrap_or(u64::MAX);
            let held = serde_json::json!({ "lag_ms": lag, "bytes": spool.disk_bytes() });
            known.insert("spool".into(), held);
        }
        if let Some(links) = &links {
            known.insert("pusher".into(), links.describe());
        }
        if let Some(model) = &model {
            let (model, breaker) = model.describe();
            known.insert(
                "llm".into(),
                serde_json::json!({ "model": model, "breaker": link::breaker_name(breaker) }),
            );
        }
        known.into()
    })
}

fn processors(
    config: &Config,
    parts: &Parts,
    (wake, effects): (Arc<Notify>, Arc<Notify>),
    links: Option<Arc<link::Links>>,
    model: Option<Arc<OpenAi>>,
    outgoing: Arc<Outgoing>,
) -> (Arc<Worker>, Arc<Outbox>) {
    let store = Arc::clone(&parts.store) as Arc<dyn Store>;
    let clock: Arc<dyn auricle_process::Clock> = Arc::new(parts.clock);
    let mut deliverers: Vec<Arc<dyn Deliver>> = Vec::new();
    if parts.hearing.is_some() {
        deliverers
            .push(Arc::new(notify::NotifyClient { store: Arc::clone(&store), hub: Arc::clone(&parts.hub) }));
    }
    let mut records = vec![notify::MEMORY_CREATED];
    let url = config.webhooks.conversation.as_deref().and_then(|text| reqwest::Url::parse(text).ok());
    if let Some(url) = url {
        records.push(webhook::MEMORY_CREATED);
        deliverers.push(Arc::new(webhook::Webhook { store: Arc::clone(&store), outgoing, url }));
    }
    let outbox = Arc::new(Outbox::new(
        Arc::clone(&store),
        deliverers,
        Arc::clone(&parts.limits),
        parts.process.clone(),
        Arc::clone(&clock),
        Arc::clone(&effects),
    ));
    let worker = Arc::new(Worker {
        store,
        understand: match model {
            Some(model) => model as Arc<dyn Understand>,
            None => Arc::new(auricle_process::Local),
        },
        limits: Arc::clone(&parts.limits),
        process: parts.process.clone(),
        clock,
        time_zone: config.time_zone(),
        wake,
        effects,
        records,
        rule: claim_when(config, links),
    });
    (worker, outbox)
}

/// Which jobs this process takes (design 5, "The fallback, done right"). A listening process stands in for the pusher: at
/// once when it cannot be reached, else for what nobody took in time. One at a time for each user, so that nobody's backlog
/// holds the others up.
fn claim_when(config: &Config, links: Option<Arc<link::Links>>) -> auricle_process::ClaimWhen {
    let (shape, patience) = (config.shape, config.limits.fallback_after);
    Arc::new(move || match shape {
        Shape::Embedded => ClaimRule { one_per_user: true, ..ClaimRule::default() },
        Shape::Pusher => ClaimRule::default(),
        Shape::Listen => {
            let reachable = links.as_ref().is_none_or(|links| links.is_healthy());
            let waited = if reachable { patience } else { Duration::ZERO };
            ClaimRule { waited, one_per_user: true }
        }
    })
}

/// Starts every background loop under its watchdog.
#[expect(clippy::too_many_arguments, reason = "one call, in the function where all parts meet")]
fn run_loops(
    parts: &Parts,
    worker: Arc<Worker>,
    outbox: Arc<Outbox>,
    wake: &Arc<dyn Fn() + Send + Sync>,
    background: &Runtime,
    processing: &Runtime,
    stop_work: &CancellationToken,
    stop_loops: &CancellationToken,
    tail: &TaskTracker,
    metrics: Option<PrometheusHandle>,
) {
    let held = parts.hearing.is_some().then(|| Arc::new(repair::Held::default()));
    let sweeper = Arc::new(sweeper::Sweeper {
        // Audio that a listening process still holds becomes words first, if it lives.
        patience: if parts.hearing.is_some() { Duration::ZERO } else { parts.limits.sweep_others_after },
        strays: std::sync::Mutex::default(),
        hub: Arc::clone(&parts.hub),
        store: Arc::clone(&parts.store) as Arc<dyn Store>,
        held: held.clone(),
        process: parts.process.clone(),
        limits: Arc::clone(&parts.limits),
        clock: parts.clock,
        wake_jobs: Arc::clone(wake),
        repair: parts.hearing.as_ref().map(|hearing| Arc::clone(&hearing.repair)),
    });
    let watch = background.handle();
    let start = |name, runtime: &Runtime, make: loops::MakeLoop| {
        let stall_max = parts.limits.loop_stall_max;
        loops::supervise(name, runtime.handle(), watch, &parts.vitals, stall_max, stop_loops.clone(), make);
    };
    let announcer = Arc::clone(&sweeper);
    start("announcer", background, Box::new(move |pulse| Box::pin(Arc::clone(&announcer).announce(pulse))));
    start("sweeper", background, Box::new(move |pulse| Box::pin(Arc::clone(&sweeper).sweep(pulse))));
    if let (Some(hearing), Some(held)) = (&parts.hearing, held) {
        let repairer = Arc::new(repair::Repair {
            store: Arc::clone(&parts.store) as Arc<dyn Store>,
            spool: hearing.spool.clone(),
            held,
            engine: Arc::clone(&hearing.engine),
            limits: Arc::clone(&parts.limits),
            wake: Arc::clone(&hearing.repair),
        });
        start("repair", background, Box::new(move |pulse| Box::pin(Arc::clone(&repairer).run(pulse))));
    }
    let metrics = metrics.clone();
    start(
        "metrics",
        background,
        Box::new(move |pulse| Box::pin(crate::metrics::upkeep(metrics.clone(), pulse))),
    );
    let outbox_ends = tail.clone();
    start(
        "outbox",
        background,
        until_stopped(stop_work, outbox_ends, move |stop, beat| Arc::clone(&outbox).run(stop, beat)),
    );
    start(
        "worker",
        processing,
        until_stopped(stop_work, tail.clone(), move |stop, beat| Arc::clone(&worker).run(stop, beat)),
    );
}

/// A loop that ends by itself once `stop` is cancelled: it is part of the process's tail until then.
fn until_stopped<F>(
    stop: &CancellationToken,
    tail: TaskTracker,
    run: impl Fn(CancellationToken, auricle_process::Beat) -> F + Send + Sync + 'static,
) -> loops::MakeLoop
where
    F: Future<Output = ()> + Send + 'static,
{
    let stop = stop.clone();
    Box::new(move |pulse| {
        let running = tail.track_future(run(stop.clone(), beat(pulse)));
        let stop = stop.clone();
        Box::pin(async move {
            running.await;
            if stop.is_cancelled() {
                // Stay until the loops are stopped: an ended loop would be started again.
                std::future::pending::<()>().await;
            }
        })
    })
}

fn beat(pulse: Arc<crate::vitals::Pulse>) -> Arc<dyn Fn() + Send + Sync> {
    Arc::new(move || pulse.beat(monotonic()))
}

/// Scripts find the server by this file. Written whole, then moved into place.
fn write_addresses(path: &Path, addresses: Addresses) {
    let text = serde_json::json!({
        "public": addresses.public.to_string(),
        "probe": addresses.probe.to_string(),
        "pid": std::process::id(),
    });
    let draft = path.with_extension("json.new");
    let written = std::fs::write(&draft, format!("{text}\n")).and_then(|()| std::fs::rename(&draft, path));
    if let Err(error) = written {
        tracing::warn!(%error, path = %path.display(), "write where the server listens");
    }
}

impl Running {
    /// Where it can be reached.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The session workers, for tests that wedge one.
    pub fn workers(&self) -> &[SessionWorker] {
        &self.workers
    }

    /// The runtime of job attempts, for tests that saturate it.
    pub fn processing(&self) -> &tokio::runtime::Handle {
        self.processing.handle()
    }

    /// As the store knows it, for tests that act in its name.
    pub fn process(&self) -> &ProcessId {
        &self.parts.process
    }

    /// The store, for tests that look behind the REST interface.
    pub fn store(&self) -> &Arc<SqliteStore> {
        &self.parts.store
    }

    /// Stops without losing anything: no new sessions, live ones closed over a window, words stored, leases given back.
    /// Blocks for `limits.drain_max` at most, and a little for the store.
    pub fn drain(self) {
        let deadline = monotonic() + self.parts.limits.drain_max;
        self.parts.hub.begin_drain();
        self.stop_links.cancel();
        self.stop_work.cancel();
        self.close_sessions(deadline);
        let background = self.background.handle().clone();
        self.tail.close();
        background.block_on(async {
            // Attempts, deliveries, links with something to send, a pusher's links and their last triggers.
            if tokio::time::timeout_at(deadline.into(), self.tail.wait()).await.is_err() {
                tracing::warn!(left = self.tail.len(), "not everything ended in time; others go on with it");
            }
        });
        self.stop_accepting.cancel();
        self.stop_loops.cancel();
        let tail_max = self.parts.limits.drain_tail_max;
        let ending = async {
            if let Err(error) =
                self.parts.store.process_gone(&self.parts.process, self.parts.clock.wall()).await
            {
                tracing::warn!(%error, "give back what this process owns");
            }
            self.parts.store.close().await;
        };
        if background.block_on(async { tokio::time::timeout(tail_max, ending).await }).is_err() {
            tracing::warn!("the store did not end in time; leases run out by themselves");
        }
        if let Some(hearing) = &self.parts.hearing
            && !hearing.spool.settle_within(tail_max)
        {
            tracing::warn!("the spool did not settle in time; its last moments may be missing");
        }
        self.stop_probe.cancel();
        let _ = std::fs::remove_file(&self.addresses_file);
        self.processing.shutdown_timeout(Duration::from_secs(1));
        self.background.shutdown_timeout(Duration::from_secs(1));
    }

    /// Closes every session, spread over a third of the window so that their clients do not return all at once.
    fn close_sessions(&self, deadline: Instant) {
        let members = self.parts.hub.everyone();
        let window = deadline.saturating_duration_since(monotonic()) / 3;
        let each = window.div_f64(members.len().max(1) as f64).min(Duration::from_millis(20));
        let handle = self.background.handle().clone();
        handle.block_on(async {
            for member in members {
                member.drain();
                tokio::time::sleep(each.mul_f64(rand::RngExt::random_range(&mut rand::rng(), 0.5..1.5)))
                    .await;
            }
            while self.parts.hub.sessions() > 0 && monotonic() < deadline {
                // A session that had no room for the first message gets it now.
                for member in self.parts.hub.everyone() {
                    member.drain();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let left = self.parts.hub.sessions();
        if left > 0 {
            tracing::warn!(left, "sessions did not end in time; their audio is kept for the next start");
        }
    }
}
