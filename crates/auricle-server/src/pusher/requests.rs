//! Requests to process, as the process owns them: one watch for each conversation, one answer for each request.
//!
//! A request is a hint. What becomes of the conversation is decided by whoever claims its job, here or elsewhere; the watch
//! reads the row until it has ended. So a request that comes twice, late, or for a record that is done runs nothing twice
//! (D1 to D4, D13).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use auricle_core::{ConversationId, ConversationStatus, FinaliseReason, JobId, Limits, Revision, UserId};
use auricle_store::{Finalise, Finalised, Store, StoreError};
use auricle_wire::pusher::{ProcessRequest, ProcessResult};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::clock::{SystemClock, monotonic};

/// Between two looks at a row: from the first to the last.
const LOOK_FIRST: Duration = Duration::from_millis(100);
const LOOK_MAX: Duration = Duration::from_secs(10);

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
        let mut watch = Watch { requests: Arc::clone(self), key, ended: error("processing_failed", false) };
        self.runtime.spawn(async move {
            watch.ended = watch.requests.watch(&watch.key).await;
            drop(watch);
        });
    }

    /// Follows one conversation to its end.
    async fn watch(&self, key: &Key) -> Ended {
        let (user, id) = key;
        let give_up = monotonic() + self.limits.request_watch_max;
        let mut look = LOOK_FIRST;
        let mut woken = false;
        loop {
            match self.store.status(user, id).await {
                Ok(None) => return error("conversation_not_found", true),
                Ok(Some((status, revision))) => match self.progress(id, status, revision).await {
                    Progress::Ended(ended) => return ended,
                    // Once for what there may be to claim; from then on workers know, and look by themselves.
                    Progress::Open if woken => {}
                    Progress::Open | Progress::Queued => {
                        woken = true;
                        (self.wake_jobs)();
                    }
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

    /// What has become of it.
    async fn progress(
        &self,
        id: &ConversationId,
        status: ConversationStatus,
        revision: Revision,
    ) -> Progress {
        let revision = Some(u64::from(revision.0));
        match status {
            ConversationStatus::Completed => {
                Progress::Ended(Ended { success: true, revision, ..Ended::default() })
            }
            ConversationStatus::Failed => {
                Progress::Ended(Ended { revision, ..error("processing_failed", true) })
            }
            ConversationStatus::InProgress => self.finalise(id).await,
            _ => Progress::Open,
        }
    }

    /// A peer that has no jobs of its own asks for a conversation that is still open: its end is made durable first.
    async fn finalise(&self, id: &ConversationId) -> Progress {
        let finalise = Finalise {
            conversation: id.clone(),
            owner: None,
            reason: FinaliseReason::Requested,
            job_id: JobId::random(&mut rand::rng()),
            now: self.clock.wall(),
        };
        match self.store.finalise(finalise).await {
            Ok(Finalised::DeletedEmpty) => Progress::Ended(error("conversation_not_found", true)),
            Ok(Finalised::Queued { .. }) => Progress::Queued,
            Ok(Finalised::AlreadyEnded { .. }) => Progress::Open,
            // A session is still writing to it: its own end comes first.
            Err(StoreError::Conflict(_) | StoreError::Fenced(_)) => Progress::Open,
            Err(failed) => {
                tracing::warn!(error = %failed, conversation.id = %id, "end a requested conversation");
                Progress::Open
            }
        }
    }
}

enum Progress {
    /// It has ended so.
    Ended(Ended),
    /// Its job has just been made.
    Queued,
    /// Somebody is at it, or will be.
    Open,
}

/// One conversation that is watched. However its watch ends, a panic included, it is forgotten and its waiters are answered.
struct Watch {
    requests: Arc<Requests>,
    key: Key,
    ended: Ended,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.requests.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let waiters = watched.remove(&self.key);
        drop(watched);
        for waiter in waiters.unwrap_or_default() {
            answer(&self.key.1, waiter, &self.ended);
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use auricle_store::conformance::{batch, ending, opening, segment};
    use auricle_store::{Choice, SqliteStore};

    use super::*;

    struct Rig {
        requests: Arc<Requests>,
        store: Arc<SqliteStore>,
        wakes: Arc<AtomicUsize>,
        _dir: tempfile::TempDir,
    }

    /// Ann's `c1` with words, ended or not; the first `panics` wakes panic.
    async fn rig(ended: bool, panics: usize) -> Rig {
        let dir = tempfile::TempDir::new().unwrap();
        let store = SqliteStore::open(dir.path().join("a.db"), Default::default()).unwrap();
        store.process_alive(&"p1".into(), SystemClock.wall() + Duration::from_secs(60)).await.unwrap();
        let owned = store.open_conversation(opening(Choice::Resume, "c1")).await.unwrap().ownership;
        store.append_segments(batch(&owned, 1, &[segment("a", 0.0, "one")])).await.unwrap();
        if ended {
            store.finalise(ending(&"c1".into(), Some(&owned), "j1", 2)).await.unwrap();
        }
        let wakes = Arc::new(AtomicUsize::new(0));
        let wake: Arc<dyn Fn() + Send + Sync> = {
            let wakes = Arc::clone(&wakes);
            Arc::new(move || assert!(wakes.fetch_add(1, Ordering::Relaxed) >= panics, "as it was asked to"))
        };
        let limits = Limits { request_watch_max: Duration::from_secs(1), ..Limits::default() };
        let requests = Requests::new(
            Arc::clone(&store) as Arc<dyn Store>,
            Arc::new(limits),
            SystemClock,
            wake,
            Handle::current(),
        );
        Rig { requests, store, wakes, _dir: dir }
    }

    impl Rig {
        async fn ask(&self) -> ProcessResult {
            let (answers, mut answered) = mpsc::channel(1);
            let request = ProcessRequest {
                conversation_id: "c1".into(),
                language: "en".into(),
                byok_keys: None,
                finalization_job_id: None,
                dispatch_generation: None,
                finalization_result_protocol: None,
            };
            self.requests.ask("ann".into(), request, answers);
            answered.recv().await.unwrap()
        }
    }

    #[tokio::test]
    async fn a_request_that_waits_wakes_the_workers_once() {
        let rig = rig(true, 0).await;
        let answer = rig.ask().await;
        assert_eq!((answer.error.as_deref(), answer.terminal), (Some("processing_failed"), Some(false)));
        assert_eq!(rig.wakes.load(Ordering::Relaxed), 1, "of some looks within its time");
    }

    #[tokio::test]
    async fn a_watch_that_panics_answers_and_is_forgotten() {
        let rig = rig(true, 1).await;
        for _ in 0..2 {
            let answer = rig.ask().await;
            assert_eq!((answer.error.as_deref(), answer.terminal), (Some("processing_failed"), Some(false)));
        }
        assert_eq!(rig.wakes.load(Ordering::Relaxed), 2, "it was watched anew");
        assert!(rig.requests.watched.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_conversation_that_its_session_ends_meanwhile_wakes_the_workers_again() {
        let rig = rig(false, 0).await;
        let owned = rig.store.owned(&"p1".into(), 10).await.unwrap().remove(0);
        let ends = async {
            tokio::time::sleep(LOOK_FIRST).await;
            rig.store.release(&owned, SystemClock.wall()).await.unwrap();
        };
        tokio::join!(rig.ask(), ends);
        assert_eq!(rig.wakes.load(Ordering::Relaxed), 2, "at the first look, and when its job was made");
    }
}
