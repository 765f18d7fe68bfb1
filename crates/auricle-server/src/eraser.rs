//! Finishes deletions of users: closes their sessions, removes their spooled and kept audio and uploaded files, deletes their rows in steps, then the mark.
//!
//! A mark in the store is all it needs to go on after a crash.

use std::sync::Arc;
use std::time::Duration;

use auricle_core::{Limits, UserId};
use auricle_store::kept::KeptAudio;
use auricle_store::spool::Spool;
use auricle_store::vault::Vault;
use auricle_store::{Store, StoreError};
use tokio::sync::Notify;

use crate::clock::monotonic;
use crate::hub::Hub;
use crate::vitals::Pulse;

/// Users of one look.
const USERS_MAX: usize = 16;
/// Pause between two steps: live words go before.
const STEP_PAUSE: Duration = Duration::from_millis(10);
/// How long the spool may take to write out what it was given.
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// What the eraser works with.
pub(crate) struct Eraser {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) spool: Spool,
    pub(crate) vault: Vault,
    pub(crate) kept: KeptAudio,
    pub(crate) hub: Arc<Hub>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) wake: Arc<Notify>,
}

#[derive(Debug, thiserror::Error)]
enum EraseError {
    #[error("delete rows: {0}")]
    Store(#[from] StoreError),
    #[error("remove audio: {0}")]
    Spool(#[from] std::io::Error),
}

impl Eraser {
    /// Runs for ever; may be dropped at any await.
    pub(crate) async fn run(self: Arc<Self>, pulse: Arc<Pulse>) {
        loop {
            pulse.beat(monotonic());
            match self.store.erasing(USERS_MAX).await {
                Ok(users) => {
                    for user in users {
                        match self.erase(&user, &pulse).await {
                            Ok(true) => {
                                metrics::counter!("auricle_users_deleted_total").increment(1);
                                tracing::info!(user.id = %user, "a user and all that was theirs is deleted");
                            }
                            // Its sessions are about to end.
                            Ok(false) => {}
                            Err(error) => tracing::warn!(%error, user.id = %user, "delete a user"),
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "look for users to delete"),
            }
            let _ = tokio::time::timeout(self.limits.sweep_every, self.wake.notified()).await;
        }
    }

    /// True once nothing is left.
    async fn erase(&self, user: &UserId, pulse: &Pulse) -> Result<bool, EraseError> {
        let connected = self.hub.dismiss(user);
        while !self.store.erase_some(user, self.limits.erase_rows_max).await? {
            pulse.beat(monotonic());
            tokio::time::sleep(STEP_PAUSE).await;
        }
        let (spool, vault, whose) = (self.spool.clone(), self.vault.clone(), user.clone());
        let kept = self.kept.clone();
        let forgotten = tokio::task::spawn_blocking(move || {
            vault.forget(&whose)?;
            // What it is about to let go of would come to be kept.
            spool.settle_within(SETTLE_MAX);
            spool.forget(&whose)?;
            kept.forget_user(&whose)
        });
        forgotten.await.map_err(std::io::Error::other)??;
        if connected > 0 {
            return Ok(false);
        }
        self.store.finish_erasing(user).await?;
        Ok(true)
    }
}
