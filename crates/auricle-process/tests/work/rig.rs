//! A store in a folder of its own, a clock that tests move, and an understanding and a receiver that do as they are told.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use auricle_core::{ConversationId, DiscardReason, JobState, Limits, Provenance, Structured, UnixMicros};
use auricle_process::{
    Clock, Deliver, Delivery, Embed, Embedder, Outbox, Request, Understand, UnderstandError, Understanding,
    Worker,
};
use auricle_store::conformance::{Ground, at};
use auricle_store::{ClaimRule, Effect, Job, SqliteStore, Store};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest that anything here may take: only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A wall clock that stands still unless it is moved.
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn forward(&self, by: Duration) {
        self.0.fetch_add(by.as_micros() as i64, Ordering::SeqCst);
    }

    /// To `at` and not beyond: no lease runs out that somebody took in the meantime.
    pub(crate) fn forward_to(&self, at: UnixMicros) {
        self.0.fetch_max(at.0, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn wall(&self) -> UnixMicros {
        UnixMicros(self.0.load(Ordering::SeqCst))
    }

    #[expect(clippy::disallowed_methods, reason = "the clock of these tests")]
    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// What the next call does.
pub(crate) enum Act {
    Fail(&'static str),
    Refuse(&'static str),
    Panic,
    Hang,
    Discard,
    NoTitle,
}

/// Titles every conversation "Done"; each `Act` takes the place of one call.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) acts: Mutex<VecDeque<Act>>,
    pub(crate) calls: AtomicUsize,
    pub(crate) running: AtomicUsize,
    pub(crate) most: AtomicUsize,
    /// The open items that each call was told.
    pub(crate) told: Mutex<Vec<Vec<String>>>,
    /// Calls wait for a permit while this is set.
    pub(crate) gate: Option<tokio::sync::Semaphore>,
}

struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Understand for Script {
    fn name(&self) -> &'static str {
        "script"
    }

    async fn understand(&self, request: Request<'_>) -> Result<Understanding, UnderstandError> {
        self.told.lock().unwrap().push(request.open_items.to_vec());
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.most.fetch_max(self.running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let _running = Running(&self.running);
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        let act = self.acts.lock().unwrap().pop_front();
        let (title, discarded) = match act {
            Some(Act::Fail(reason)) => return Err(UnderstandError::transient(reason)),
            Some(Act::Refuse(reason)) => return Err(UnderstandError::Permanent(reason.into())),
            Some(Act::Panic) => panic!("as told"),
            Some(Act::Hang) => std::future::pending().await,
            Some(Act::Discard) => ("", Some(DiscardReason::Trivial)),
            Some(Act::NoTitle) => ("", None),
            None => ("Done", None),
        };
        Ok(Understanding {
            structured: Structured { title: title.into(), ..Structured::default() },
            provenance: Provenance { provider: "script".into(), version: "1".into() },
            discarded,
            memories: Vec::new(),
        })
    }
}

/// Takes every effect; each answer in `answers` takes the place of one.
#[derive(Default)]
pub(crate) struct Receiver {
    pub(crate) answers: Mutex<VecDeque<Delivery>>,
    pub(crate) keys: Mutex<Vec<String>>,
}

#[async_trait]
impl Deliver for Receiver {
    fn kind(&self) -> &'static str {
        "notify"
    }

    async fn deliver(&self, effect: &Effect) -> Delivery {
        self.keys.lock().unwrap().push(effect.key.idempotency_key());
        self.answers.lock().unwrap().pop_front().unwrap_or(Delivery::Delivered)
    }
}

pub(crate) struct Rig {
    pub(crate) ground: Ground,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) fallback_after: Option<Duration>,
    file: PathBuf,
    wake: Arc<Notify>,
}

/// Something that runs until it is told to stop.
pub(crate) struct Loop {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Loop {
    pub(crate) fn start<F>(run: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(stop.clone()));
        Self { stop, task }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }

    /// As `kill -9` ends it: at whatever await it is.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

impl Rig {
    pub(crate) async fn new(limits: Limits) -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("auricle.db");
        let store: Arc<dyn Store> = SqliteStore::open(&file, Default::default()).unwrap();
        let other: Arc<dyn Store> = SqliteStore::open(&file, Default::default()).unwrap();
        let ground = Ground { store, other, keep: Box::new(folder) };
        ground.announce().await;
        let clock = Arc::new(TestClock(AtomicI64::new(at(10).0)));
        Self { ground, clock, limits: Arc::new(limits), fallback_after: None, file, wake: Arc::default() }
    }

    pub(crate) fn work(&self, process: &str, script: &Arc<Script>) -> Loop {
        self.work_with(process, Arc::clone(script) as Arc<dyn Understand>)
    }

    pub(crate) fn work_with(&self, process: &str, understand: Arc<dyn Understand>) -> Loop {
        self.work_by(process, understand, ClaimRule::default())
    }

    pub(crate) fn work_by(&self, process: &str, understand: Arc<dyn Understand>, rule: ClaimRule) -> Loop {
        let worker = Arc::new(Worker {
            store: Arc::clone(&self.ground.store),
            understand,
            limits: Arc::clone(&self.limits),
            process: process.into(),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            time_zone: jiff::tz::TimeZone::UTC,
            wake: Arc::clone(&self.wake),
            effects: Arc::default(),
            records: vec!["notify:memory_created"],
            fallback_after: self.fallback_after,
            rule: Arc::new(move || rule),
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(worker.run(stop.clone(), Arc::new(|| {})));
        Loop { stop, task }
    }

    pub(crate) fn embed_with(&self, process: &str, embed: Arc<dyn Embed>) -> Loop {
        let embedder = Arc::new(Embedder {
            store: Arc::clone(&self.ground.store),
            embed,
            limits: Arc::clone(&self.limits),
            process: process.into(),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            wake: Arc::clone(&self.wake),
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(embedder.run(stop.clone(), Arc::new(|| {})));
        Loop { stop, task }
    }

    pub(crate) fn deliver(&self, receiver: &Arc<Receiver>) -> Loop {
        let outbox = Arc::new(Outbox::new(
            Arc::clone(&self.ground.store),
            vec![Arc::clone(receiver) as Arc<dyn Deliver>],
            Arc::clone(&self.limits),
            "p1".into(),
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            Arc::clone(&self.wake),
        ));
        let stop = CancellationToken::new();
        let task = tokio::spawn(outbox.run(stop.clone(), Arc::new(|| {})));
        Loop { stop, task }
    }

    /// The job of the conversation `id`.
    pub(crate) async fn job(&self, id: &str) -> Job {
        let job = self.ground.store.job(None, &format!("job-{id}").as_str().into()).await.unwrap();
        job.unwrap()
    }

    /// Waits until the job of `id` is in `state`; the clock goes to each time that the job waits for.
    pub(crate) async fn reaches(&self, id: &str, state: JobState) -> Job {
        let reached = async {
            loop {
                let job = self.job(id).await;
                if job.state == state {
                    return job;
                }
                if job.state == JobState::Queued {
                    self.go_on(&job);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached)
            .await
            .unwrap_or_else(|_| panic!("{id} never got to {state:?}"))
    }

    /// The time that `job` waits for has come.
    pub(crate) fn go_on(&self, job: &Job) {
        self.go_to(job.run_at);
    }

    /// It is `at`, and whoever waits looks.
    pub(crate) fn go_to(&self, at: UnixMicros) {
        self.clock.forward_to(at);
        self.wake.notify_one();
    }

    /// Waits until the job of `id` is as it `should` be; the clock stands still.
    pub(crate) async fn until_job(&self, id: &str, should: impl Fn(&Job) -> bool) -> Job {
        let reached = async {
            loop {
                let job = self.job(id).await;
                if should(&job) {
                    return job;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{id} never got there"))
    }

    /// Waits until the job of `id` waits after this many counted attempts.
    pub(crate) async fn fails(&self, id: &str, attempts: u32) -> Job {
        let waits =
            |job: &Job| job.state == JobState::Queued && job.attempts == attempts && job.last_error.is_some();
        self.until_job(id, waits).await
    }

    /// Waits until the job of `id` waits after this many attempts that were not counted.
    pub(crate) async fn is_away(&self, id: &str, postponed: u32) -> Job {
        self.until_job(id, |job| job.state == JobState::Queued && job.postponed == postponed).await
    }

    /// From now on no job can be completed, as on a disk that fails; `false`: it can again.
    pub(crate) fn refuse_completions(&self, refuse: bool) {
        self.refuse("jobs", refuse);
    }

    /// The same of another table of work.
    pub(crate) fn refuse(&self, table: &str, refuse: bool) {
        let sql = match refuse {
            true => &format!(
                "CREATE TRIGGER refuse BEFORE UPDATE ON {table} WHEN NEW.state = 'completed' \
                 BEGIN SELECT RAISE(ABORT, 'as told'); END"
            ),
            false => "DROP TRIGGER refuse",
        };
        let db = rusqlite::Connection::open(&self.file).unwrap();
        db.busy_timeout(PATIENCE).unwrap();
        db.execute_batch(sql).unwrap();
    }

    pub(crate) async fn title(&self, id: &str) -> String {
        let found = self.ground.store.conversation(&"ann".into(), &ConversationId::from(id)).await.unwrap();
        found.unwrap().structured.title
    }
}

/// Waits until `holds`.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waited).await.is_ok(), "never: {what}");
}
