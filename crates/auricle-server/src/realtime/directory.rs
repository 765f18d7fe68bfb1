//! Who watches a user's targets, and the turns of each target over all sessions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use auricle_core::{TargetId, UserId};
use auricle_store::{Store, StoreError};
use tokio::sync::{Semaphore, watch};

/// Users that one look learns of; more are learnt of at once afterwards.
const CHANGED_MAX: usize = 1_000;

/// Shared by all feeds. Its maps hold no more than live feeds do, once looked through.
#[derive(Default)]
pub(super) struct Directory {
    watchers: Mutex<HashMap<UserId, watch::Sender<()>>>,
    turns: Mutex<HashMap<TargetId, Weak<Semaphore>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Directory {
    /// Changes when the user's targets have.
    pub(super) fn watch(&self, user: &UserId) -> watch::Receiver<()> {
        let mut watchers = locked(&self.watchers);
        watchers.entry(user.clone()).or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    /// Whoever holds its permit delivers to the target.
    pub(super) fn turn(&self, target: &TargetId) -> Arc<Semaphore> {
        let mut turns = locked(&self.turns);
        if let Some(turn) = turns.get(target).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(Semaphore::new(1));
        turns.insert(target.clone(), Arc::downgrade(&turn));
        turn
    }

    /// Tells watchers of changes after `version`. Returns up to which that is, and whether it is all there is.
    pub(super) async fn look(&self, store: &dyn Store, version: u64) -> Result<(u64, bool), StoreError> {
        let (users, until) = store.targets_changed(version, CHANGED_MAX).await?;
        let mut watchers = locked(&self.watchers);
        watchers.retain(|_, watcher| watcher.receiver_count() > 0);
        for user in &users {
            if let Some(watcher) = watchers.get(user) {
                watcher.send_replace(());
            }
        }
        locked(&self.turns).retain(|_, turn| turn.strong_count() > 0);
        Ok((until, users.len() < CHANGED_MAX))
    }
}
