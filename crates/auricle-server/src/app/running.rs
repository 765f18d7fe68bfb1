//! A running server, and how it ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use auricle_core::ProcessId;
use auricle_store::{SqliteStore, Store};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Addresses, Parts};
use crate::clock::monotonic;
use crate::runtimes::SessionWorker;

/// A running server.
pub struct Running {
    pub(super) parts: Parts,
    pub(super) addresses: Addresses,
    pub(super) workers: Arc<[SessionWorker]>,
    pub(super) stop_accepting: CancellationToken,
    pub(super) stop_work: CancellationToken,
    pub(super) stop_loops: CancellationToken,
    pub(super) stop_probe: CancellationToken,
    /// What goes on after sessions and links have ended, and ends by itself.
    pub(super) tail: TaskTracker,
    pub(super) background: Runtime,
    pub(super) processing: Runtime,
    pub(super) addresses_file: PathBuf,
    /// Tells links of a pusher that they end.
    pub(super) stop_links: CancellationToken,
    pub(super) _lock: Option<std::fs::File>,
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
