//! Speech services: the real protocols over real sockets, by a script.
//!
//! A script is a recorded session (`fixtures/speech`), or talks without end as Deepgram does, for measurements.

mod play;
mod script;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub use script::{SpeechScript, SpeechScriptError, Step, StepAwait, StepClose, StepRefusal};

/// What one connection brought.
#[derive(Clone, Debug, Default)]
pub struct SpeechSession {
    /// Path and query of the upgrade.
    pub target: String,
    /// Its `authorization` header.
    pub authorization: Option<String>,
    /// Text messages in order.
    pub texts: Vec<String>,
    /// Bytes of audio.
    pub audio_bytes: u64,
    /// It has ended.
    pub ended: bool,
}

struct Shared {
    script: Mutex<SpeechScript>,
    sessions: watch::Sender<Vec<SpeechSession>>,
}

impl Shared {
    fn script(&self) -> MutexGuard<'_, SpeechScript> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, place: usize, change: impl FnOnce(&mut SpeechSession)) {
        self.sessions.send_modify(|sessions| change(&mut sessions[place]));
    }
}

/// A running stand-in. Cuts all connections when dropped. Keeps what all of them brought, but for audio.
pub struct SpeechStandIn {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl SpeechStandIn {
    /// On a free port of loopback.
    pub async fn start(script: SpeechScript) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared =
            Arc::new(Shared { script: Mutex::new(script), sessions: watch::Sender::new(Vec::new()) });
        let ours = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            // Bounded by the engine under test; dropped with this task.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(play::serve(stream, Arc::clone(&ours)));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, shared, task })
    }

    /// `ws://HOST:PORT`.
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// From the next connection on.
    pub fn set(&self, script: SpeechScript) {
        *self.shared.script() = script;
    }

    /// What all connections so far have brought.
    pub fn sessions(&self) -> Vec<SpeechSession> {
        self.shared.sessions.borrow().clone()
    }

    /// Waits until it is so, and gives the sessions.
    pub async fn when(&self, wanted: impl FnMut(&Vec<SpeechSession>) -> bool) -> Vec<SpeechSession> {
        // Cannot fail: the sender lives as long as `self`.
        self.shared
            .sessions
            .subscribe()
            .wait_for(wanted)
            .await
            .map_or_else(|_| Vec::new(), |found| found.clone())
    }
}

impl Drop for SpeechStandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}
