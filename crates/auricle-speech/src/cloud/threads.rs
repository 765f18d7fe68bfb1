//! The threads on which all cloud streams of the process live: sessions' threads carry none of their work.

use std::num::NonZeroUsize;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::EngineError;

/// A thread carries some thousand streams; one that blocks in TLS or a name's look-up leaves the other.
const THREADS_MAX: usize = 2;

/// Where streams run. Never ends: it is started for the first stream, and shared.
pub(super) fn handle() -> Result<&'static Handle, EngineError> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let started = RUNTIME.get_or_init(|| {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Builder::new_multi_thread()
            .worker_threads(cores.min(THREADS_MAX))
            .thread_name("speech-cloud")
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start the threads of cloud engines: {error}"))
    });
    match started {
        Ok(runtime) => Ok(runtime.handle()),
        Err(error) => Err(EngineError::Broken(error.clone())),
    }
}
