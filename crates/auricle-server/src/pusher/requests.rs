//! Requests to process, as the process owns them: one watch for each conversation, one answer for each request.
//!
//! A request is a hint. What becomes of the conversation is decided by whoever claims its job, here or elsewhere; the watch
//! reads the row until it has ended. So a request that comes twice, late, or for a record that is done runs nothing twice
//! (D1 to D4, D13).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use auricle_core::{Conversation, ConversationId, ConversationStatus, FinaliseReason, JobId, Limits, UserId};
use auricle_store::{Finalise, Finalised, Store, StoreError};
use auricle_wire::pusher::{ProcessRequest, ProcessResult};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::clock::{SystemClock, monotonic};

/// Between two looks at a row: from the first to the last.
const LOOK_FIRST: Duration = Duration::from_millis(100);
const LOOK_MAX: Duration = Duration::from_secs(2);

struct Waiter {
    answers: mpsc::Sender<ProcessResult>,
    generation: Option<u64>,
}

type Key = (UserId, ConversationId);

/// All requests of the process.
pub(crate) struct Requests {
    store: Arc<dyn Store>,
    limits: Arc<Limits>,
    clock: SystemClock,
    wake_jobs: Arc<dyn Fn() + Send + Sync>,
    runtime: Handle,
    watched: Mutex<HashMap<Key, Vec<Waiter>>>,
}

impl Requests {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        limits: Arc<Limits>,
        clock: SystemClock,
        wake_jobs: Arc<dyn Fn() + Send + Sync>,
        runtime: Handle,
    ) -> Arc<Self> {
        Arc::new(Self { store, limits, clock, wake_jobs, runtime, watched: Mutex::default() })
    }

    /// Answers `request` through `answers` some time: exactly once, unless the receiver is gone.
    pub(super) fn ask(
        self: &Arc<Self>,
        user: UserId,
        request: ProcessRequest,
        answers: mpsc::Sender<ProcessResult>,
    ) {
        metrics::counter!("auricle_process_requests_total").increment(1);
        let key = (user, ConversationId::from(request.conversation_id.as_str()));
        let waiter = Waiter { answers, generation: request.dispatch_generation };
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiters) = watched.get_mut(&key) {
            return waiters.push(waiter);
        }
        if watched.len() >= self.limits.requests_watched_max {
            return answer(&key.1, waiter, &error("processing_failed", false));
        }
        watched.insert(key.clone(), vec![waiter]);
        drop(watched);
        let requests = Arc::clone(self);
        self.runtime.spawn(async move {
            let ended = requests.watch(&key).await;
            let waiters = requests.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            for waiter in waiters.unwrap_or_default() {
                answer(&key.1, waiter, &ended);
            }
        });
    }

    /// Follows one conversation to its end.
    async fn watch(&self, key: &Key) -> Ended {
        let (user, id) = key;
        let give_up = monotonic() + self.limits.request_watch_max;
        let mut look = LOOK_FIRST;
        loop {
            match self.store.conversation(user, id).await {
                Ok(None) => return error("conversation_not_found", true),
                Ok(Some(found)) => match self.progress(&found).await {
                    Some(ended) => return ended,
                    None => (self.wake_jobs)(),
                },
                Err(error) => tracing::warn!(%error, conversation.id = %id, "look at a conversation"),
            }
            if monotonic() >= give_up {
                return error("processing_failed", false);
            }
            tokio::time::sleep(look).await;
            look = (look * 2).min(LOOK_MAX);
        }
    }

    /// What has become of it; `None` while that is open.
    async fn progress(&self, found: &Conversation) -> Option<Ended> {
        let revision = Some(u64::from(found.revision.0));
        match found.status {
            ConversationStatus::Completed => Some(Ended { success: true, revision, ..Ended::default() }),
            ConversationStatus::Failed => Some(Ended { revision, ..error("processing_failed", true) }),
            ConversationStatus::InProgress => self.finalise(found).await,
            _ => None,
        }
    }

    /// A peer that has no jobs of its own asks for a conversation that is still open: its end is made durable first.
    async fn finalise(&self, found: &Conversation) -> Option<Ended> {
        let finalise = Finalise {
            conversation: found.id.clone(),
            owner: None,
            reason: FinaliseReason::Requested,
            job_id: JobId::random(&mut rand::rng()),
            now: self.clock.wall(),
        };
        match self.store.finalise(finalise).await {
            Ok(Finalised::DeletedEmpty) => Some(error("conversation_not_found", true)),
            Ok(Finalised::Queued { .. } | Finalised::AlreadyEnded { .. }) => None,
            // A session is still writing to it: its own end comes first.
            Err(StoreError::Conflict(_) | StoreError::Fenced(_)) => None,
            Err(failed) => {
                tracing::warn!(error = %failed, conversation.id = %found.id, "end a requested conversation");
                None
            }
        }
    }
}

/// What a request comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ended {
    success: bool,
    error: Option<&'static str>,
    terminal: Option<bool>,
    revision: Option<u64>,
}

fn error(error: &'static str, terminal: bool) -> Ended {
    Ended { error: Some(error), terminal: Some(terminal), ..Ended::default() }
}

/// The answer to a request that is not watched.
pub(super) fn failed_for_now(request: &ProcessRequest) -> ProcessResult {
    ProcessResult {
        conversation_id: request.conversation_id.clone(),
        error: Some("processing_failed".into()),
        terminal: Some(false),
        ..ProcessResult::default()
    }
}

/// Source: pusher-and-processing 1.3. A request for another generation is told which one there is (D15).
fn answer(conversation: &ConversationId, waiter: Waiter, ended: &Ended) {
    let stale =
        waiter.generation.is_some() && ended.revision.is_some() && waiter.generation != ended.revision;
    let result = ProcessResult {
        conversation_id: conversation.to_string(),
        success: (ended.success && !stale).then_some(true),
        error: if stale { Some("job_stale_generation".into()) } else { ended.error.map(Into::into) },
        fenced: None,
        terminal: if stale { Some(false) } else { ended.terminal },
        dispatch_generation: ended.revision.filter(|_| stale),
    };
    // Full or closed: the link is gone, or holds fewer requests than its answers have room for.
    let _ = waiter.answers.try_send(result);
}
