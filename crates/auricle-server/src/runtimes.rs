//! The process's threads and what each is for (promise P3).
//!
//! | runtime | threads | for |
//! | --- | --- | --- |
//! | `session-N` | one each, current-thread, `nice` -5 where permitted | sockets and session machines; nothing holds one over 500 µs |
//! | `background` | two, `nice` +5 | REST handlers, sweeper, outbox, repair |
//! | `processing` | few, `nice` +10 | job attempts |
//! | `probe` | one | `/livez`, `/readyz`, `/metrics` (see [`crate::probe`]) |
//! | `accept` | one | accepting connections and handing each to the least busy worker |
//!
//! Each session worker is a runtime of its own, so that its stamp vouches for exactly its own sessions: with a
//! work-stealing pool, a wedged worker's stamp could be beaten by its neighbour.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::monotonic;
use crate::vitals::{Pulse, Role, Vitals};

/// How often a session worker stamps.
const STAMP_EVERY: Duration = Duration::from_millis(250);
/// Connections handed to a worker that it has not taken yet. Full: the connection is dropped and counted.
const HANDOVER_MAX: usize = 1_024;
/// Priority of live sessions, so that another process that takes all it can get leaves them three quarters of a core. Needs
/// privilege; done without if refused. The store's writer has the same.
const SESSION_NICE: i32 = -5;
/// Lower priority of listings, deliveries and repair: under contention sessions get about three times their share.
const BACKGROUND_NICE: i32 = 5;
/// Lower priority of job attempts: under contention sessions get about nine times their share.
const PROCESSING_NICE: i32 = 10;

/// A session worker as others see it.
#[derive(Clone, Debug)]
pub struct SessionWorker {
    connections: mpsc::Sender<std::net::TcpStream>,
    open: Arc<AtomicUsize>,
    pulse: Arc<Pulse>,
    handle: Handle,
}

/// What a worker does with a connection.
pub(crate) trait Serve: Clone + Send + 'static {
    /// Serves one connection to its end.
    fn serve(self, stream: TcpStream) -> impl Future<Output = ()> + Send;
}

impl SessionWorker {
    /// Starts worker `index`, which serves the connections handed to it until `stop`.
    pub(crate) fn start(
        index: usize,
        serve: impl Serve,
        vitals: &Vitals,
        stop: CancellationToken,
    ) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let name = format!("session-{index}");
        // What blocks is done on threads that inherit the worker's priority, and need it less.
        let runtime = Builder::new_current_thread().on_thread_start(usual_priority).enable_all().build()?;
        let pulse = vitals.add(&*name, Role::Session, monotonic());
        let (connections, handed) = mpsc::channel(HANDOVER_MAX);
        let open = Arc::new(AtomicUsize::new(0));
        let worker = Self {
            connections,
            open: Arc::clone(&open),
            pulse: Arc::clone(&pulse),
            handle: runtime.handle().clone(),
        };
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let _ = rustix::process::setpriority_process(None, SESSION_NICE);
            runtime.block_on(work(serve, handed, open, pulse, stop));
        })?;
        Ok((worker, thread))
    }

    /// Connections it has.
    pub fn load(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Time since it last stamped.
    pub fn stalled_for(&self) -> Duration {
        self.pulse.age(monotonic())
    }

    /// Hands it a connection. False if it has not taken its last ones.
    pub(crate) fn hand(&self, stream: std::net::TcpStream) -> bool {
        self.open.fetch_add(1, Ordering::Relaxed);
        let taken = self.connections.try_send(stream).is_ok();
        if !taken {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        taken
    }

    /// The worker's runtime, for tests that wedge it.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

async fn work(
    serve: impl Serve,
    mut handed: mpsc::Receiver<std::net::TcpStream>,
    open: Arc<AtomicUsize>,
    pulse: Arc<Pulse>,
    stop: CancellationToken,
) {
    let mut stamp = tokio::time::interval(STAMP_EVERY);
    stamp.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let stream = tokio::select! {
            biased;
            _ = stamp.tick() => {
                pulse.beat(monotonic());
                continue;
            }
            () = stop.cancelled() => return,
            stream = handed.recv() => stream,
        };
        let Some(stream) = stream else { return };
        let (serve, open) = (serve.clone(), Counted(Arc::clone(&open)));
        tokio::spawn(async move {
            let _open = open;
            match TcpStream::from_std(stream) {
                Ok(stream) => serve.serve(stream).await,
                Err(error) => tracing::warn!(%error, "take over an accepted connection"),
            }
        });
    }
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The runtime of REST handlers and background loops, at a priority below that of live sessions.
pub(crate) fn background() -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("background")
        .on_thread_start(|| lower_priority(BACKGROUND_NICE))
        .enable_all()
        .build()
}

/// Of the thread that calls it.
fn usual_priority() {
    let _ = rustix::process::setpriority_process(None, 0);
}

/// Of the thread that calls it.
fn lower_priority(nice: i32) {
    // On Linux priority belongs to the thread; 0 names the caller. Refusal leaves the usual priority.
    if let Err(error) = rustix::process::setpriority_process(None, nice) {
        tracing::warn!(%error, nice, "lower the priority of a thread");
    }
}

/// The runtime of job attempts, at lower priority.
pub(crate) fn processing(threads: usize) -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads.max(1))
        .thread_name("processing")
        .on_thread_start(|| lower_priority(PROCESSING_NICE))
        .enable_all()
        .build()
}
