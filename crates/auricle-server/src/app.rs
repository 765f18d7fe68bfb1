//! Where all parts meet: [`build`] puts the server together, [`App::run`] runs it to its end.

mod routers;
mod running;
mod work;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use auricle_core::{Account, Limits, ProcessId};
use auricle_speech::Chain;
use auricle_speech::whisper::catalog;
use auricle_store::kept::KeptAudio;
use auricle_store::protect::Keyring;
use auricle_store::spool::{Spool, SpoolOptions};
use auricle_store::{SqliteOptions, SqliteStore, Store};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{SystemClock, monotonic};
use crate::config::{Config, Shape};
use crate::hub::Hub;
use crate::vitals::Vitals;
use crate::{accept, auth, link, probe, realtime, runtimes};

pub use self::running::Running;

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
    /// A key cannot be read.
    #[error("cannot set up protection: {0}")]
    Protection(#[from] auricle_store::protect::KeyError),
    /// The folder of uploads cannot be opened.
    #[error("cannot open the folder of uploads: {0}")]
    Uploads(std::io::Error),
    /// The folder of kept audio cannot be opened.
    #[error("cannot open the folder of kept audio: {0}")]
    Audio(std::io::Error),
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
    /// No client for the embedding server can be made.
    #[error("cannot set up search by meaning: {0}")]
    Embeddings(#[from] auricle_process::embed::EmbedServerError),
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
    engine: Arc<Chain>,
    files: Arc<crate::rest::Files>,
    audio: Arc<crate::rest::Audio>,
    /// Conversations with audio that is still to be transcribed.
    held: Arc<crate::repair::Held>,
    repair: Arc<Notify>,
    erase: Arc<Notify>,
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
    let ring = crate::protection::keyring(&config)?;
    let breather = (config.shape == Shape::Pusher).then_some(limits.store_breather);
    let options = SqliteOptions { ring: ring.clone(), breather, ..SqliteOptions::from(&*limits) };
    let store = SqliteStore::open(data_dir.join("auricle.db"), options)?;
    let account = Account::default();
    let hearing = (config.shape != Shape::Pusher).then(|| hearing(&config, &account, ring)).transpose()?;
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

fn hearing(config: &Config, account: &Account, ring: Keyring) -> Result<Hearing, BuildError> {
    let disk_max = config.limits.uploads_disk_bytes_max;
    let vault = auricle_store::vault::Vault::open(config.data_dir.join("uploads"), ring.clone(), disk_max)
        .map_err(BuildError::Uploads)?;
    let kept_max = config.limits.audio_kept_bytes_max;
    let kept =
        KeptAudio::open(config.data_dir.join("audio"), ring.clone(), kept_max).map_err(BuildError::Audio)?;
    let repair = Arc::new(Notify::new());
    let options = SpoolOptions {
        account: account.clone(),
        ring,
        left: Arc::clone(&repair),
        kept: config.audio_keep.0.is_some().then(|| kept.clone()),
        ..SpoolOptions::from(&config.limits)
    };
    let spool = Spool::open(config.data_dir.join("spool"), options).map_err(BuildError::Spool)?;
    let ours = auricle_speech::SpeechConfig { account: account.clone(), ..speech(config) };
    let engine = auricle_speech::build_chain(&ours, &config.speech.engines.names())?;
    let files = Arc::new(crate::rest::Files::new(vault, Arc::clone(&engine) as _, &config.limits));
    let names = engine.status().into_iter().map(|member| member.engine.to_owned());
    let engines = names.filter(|name| name != "none").collect();
    let audio = Arc::new(crate::rest::Audio::new(kept, engines, spool.clone(), &config.limits));
    let erase = Arc::new(Notify::new());
    Ok(Hearing { spool, engine, files, audio, held: Arc::default(), repair, erase })
}

/// The engines' own settings from ours.
pub fn speech(config: &Config) -> auricle_speech::SpeechConfig {
    let ours = &config.speech;
    auricle_speech::SpeechConfig {
        engine: ours.engines.0.first().map_or("none", |engine| engine.as_str()).to_owned(),
        pocketsphinx: auricle_speech::PocketSphinxConfig {
            decoders: std::num::NonZeroUsize::new(ours.decoders),
            library: ours.pocketsphinx_library.clone(),
            model_dir: ours.pocketsphinx_model.clone(),
            backlog_secs_max: config.limits.engine_backlog_secs_max,
        },
        whisper: auricle_speech::WhisperConfig {
            model: catalog::resolve(ours.whisper.model.as_deref(), &config.data_dir),
            decoders: std::num::NonZeroUsize::new(ours.decoders),
            step: ours.whisper.step.0,
            pass_max: ours.whisper.pass_max.0,
            backlog_secs_max: config.limits.engine_backlog_secs_max,
        },
        scripted: auricle_speech::ScriptedConfig { script: ours.script.clone(), ..Default::default() },
        deepgram: ours.cloud.deepgram(),
        soniox: ours.cloud.soniox(),
        speechmatics: ours.cloud.speechmatics(),
        cloud: ours.cloud.common(&config.limits),
        gate: (&ours.gate).into(),
        account: Account::default(),
        chain: auricle_speech::ChainNumbers::from(&config.limits),
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
        let outgoing = work::outgoing(&config, &parts)?;
        let triggers = realtime::Triggers::new(
            &config.webhooks,
            Arc::clone(&parts.store) as Arc<dyn Store>,
            Arc::clone(&outgoing),
            Arc::new(parts.clock),
            Arc::clone(&parts.limits),
            (background.handle().clone(), tail.clone()),
        );
        let model = work::model(&config, &parts)?;
        let embed = work::embed_server(&config, &parts)?;
        let probe_state = probe::ProbeState {
            vitals: parts.vitals.clone(),
            store: Arc::clone(&parts.store) as Arc<dyn Store>,
            hub: Arc::clone(&parts.hub),
            limits: Arc::clone(&parts.limits),
            metrics,
            dependencies: work::dependencies(&parts, links.clone(), model.clone(), embed.clone()),
        };
        probe::start(probe_listener, probe_state, stop_probe.clone()).map_err(thread)?;
        let (worker, outbox) = work::processors(
            &config,
            &parts,
            (wake_up, Arc::clone(&effects)),
            links.clone(),
            model.clone(),
            Arc::clone(&outgoing),
        );
        let embedder = embed.clone().map(|embed| work::embedder(&parts, embed));
        let days = work::days(&config, &parts, model.clone(), effects);
        work::run_loops(
            &parts,
            (worker, outbox, embedder, days),
            &triggers,
            &wake,
            &background,
            &processing,
            &stop_work,
            &stop_loops,
            &tail,
            upkept,
            config.audio_keep.0,
        );
        let router = match &parts.hearing {
            Some(hearing) => {
                let zone = config.time_zone();
                let translations =
                    work::translations(&config, &parts, model, (&processing, &tail, &stop_work));
                let receivers = (outgoing, triggers);
                routers::listening(
                    &parts,
                    hearing,
                    &wake,
                    &background,
                    (links, embed),
                    receivers,
                    (zone, translations),
                )
            }
            None => routers::pushing(
                &config,
                &parts,
                &wake,
                &background,
                triggers,
                stop_links.clone(),
                tail.clone(),
            ),
        };
        let workers = routers::session_workers(&config, &parts, router, &stop_loops).map_err(thread)?;
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
