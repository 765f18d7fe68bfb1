//! The one thread that writes: group commit.
//!
//! Callers queue operations; the thread takes what is queued, runs each under its own savepoint inside one immediate
//! transaction, commits once, and only then answers. There is no artificial delay: while one commit syncs, the next
//! batch gathers. Only a writer that nobody waits for live lets go for a moment (`breather`), since SQLite's lock is not fair. Invariants: no answer before `COMMIT` has returned; an operation that fails undoes only itself; a commit
//! that fails undoes and refuses all of its batch.
//! Leaves to others: what the operations do (`live`, `ending`, `jobs`, …).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::SqliteOptions;
use super::db::Db;
use crate::clock;
use crate::store::{Result, StoreError, StoreHealth};

/// That of live sessions, which wait for it: also in a process without any, since whoever holds the file's lock must not be
/// kept from letting go of it.
const WRITER_NICE: i32 = -5;
/// How often a writer looks whether another process has let go of the file. SQLite's own wait grows to 100 ms between two looks,
/// which is what words would wait for while a pusher processes.
const LOCK_LOOK_EVERY: Duration = Duration::from_micros(500);
/// How often a writer that could not write tries a small write of its own, so that readiness comes back without traffic.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// What the probe writes: enough that its success says something about the next batch.
const PROBE_BYTES: i64 = 64 * 1024;

/// An operation's result, kept until the commit is decided.
struct Held {
    succeeded: bool,
    /// It met a full disk, by itself.
    full: bool,
    /// Answers the caller; with the commit's error if it failed.
    answer: Box<dyn FnOnce(Option<StoreError>) + Send>,
}

/// Given the connection it runs; given an error instead, it was never run and answers with that.
type Operation = Box<dyn FnOnce(Result<&Db>) -> Held + Send>;

/// Runs by itself, outside a transaction.
type Alone = Box<dyn FnOnce(&Db) + Send>;

enum Message {
    Write { operation: Operation, _room: OwnedSemaphorePermit },
    Alone { operation: Alone, _room: OwnedSemaphorePermit },
    Stop(oneshot::Sender<()>),
}

/// What `health` reads without asking the thread.
#[derive(Default)]
struct Stamps {
    progress_ms: AtomicU64,
    waiting: AtomicBool,
    queued: AtomicUsize,
    degraded: AtomicBool,
    degraded_why: Mutex<String>,
}

/// The callers' end.
pub(super) struct Writer {
    queue: SyncSender<Message>,
    room: Arc<Semaphore>,
    wait_max: Duration,
    stamps: Arc<Stamps>,
}

impl Writer {
    pub(super) fn start(db: Db, options: &SqliteOptions) -> Result<Self> {
        // One more than the permits, for `Stop`.
        let (queue, messages) = sync_channel(options.queue_max + 1);
        let stamps = Arc::new(Stamps::default());
        stamps.progress_ms.store(clock::stamp_ms(), Ordering::Relaxed);
        // Its waiting is `begin`'s.
        db.busy_timeout(Duration::ZERO)?;
        let task = Thread {
            db,
            messages,
            batch_max: options.batch_max.max(1),
            lock_wait_max: options.lock_wait_max,
            breather: options.breather,
            stamps: Arc::clone(&stamps),
        };
        thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                // Refused without privilege: then it is one among the others. On Linux this is the calling thread's alone.
                let _ = rustix::process::setpriority_process(None, WRITER_NICE);
                task.run();
            })
            .map_err(|error| StoreError::Other(format!("no thread for the store's writer: {error}")))?;
        Ok(Self {
            queue,
            room: Arc::new(Semaphore::new(options.queue_max)),
            wait_max: options.wait_max,
            stamps,
        })
    }

    /// Runs `operation` in the next transaction and returns once it is durable. Dropping the future does not undo it.
    pub(super) async fn write<T, F>(&self, operation: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Db) -> Result<T> + Send + 'static,
    {
        let deadline = tokio::time::Instant::from_std(clock::monotonic() + self.wait_max);
        let room = self.room(deadline).await?;
        let (reply, answer) = oneshot::channel();
        let operation: Operation = Box::new(move |db| {
            let result = db.and_then(operation);
            let succeeded = result.is_ok();
            let full = matches!(result, Err(StoreError::Full(_)));
            let answer = move |failure: Option<StoreError>| {
                // A caller that went away is no error: the write stands.
                let _ = reply.send(failure.map_or(result, Err));
            };
            Held { succeeded, full, answer: Box::new(answer) }
        });
        self.send(Message::Write { operation, _room: room })?;
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(StoreError::Busy("it ended before it answered".into())),
            Err(_) => {
                refused("slow");
                Err(StoreError::Busy(format!(
                    "a write took over {} s and may still happen; try again",
                    self.wait_max.as_secs_f64()
                )))
            }
        }
    }

    /// Runs `operation` outside a transaction, after what was queued before it. Waits until it is done, however long it takes.
    pub(super) async fn alone<T, F>(&self, operation: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Db) -> Result<T> + Send + 'static,
    {
        let room = self.room(tokio::time::Instant::from_std(clock::monotonic() + self.wait_max)).await?;
        let (reply, answer) = oneshot::channel();
        let operation: Alone = Box::new(move |db| {
            let _ = reply.send(operation(db));
        });
        self.send(Message::Alone { operation, _room: room })?;
        answer.await.map_err(|_| StoreError::Busy("it ended before it answered".into()))?
    }

    async fn room(&self, deadline: tokio::time::Instant) -> Result<OwnedSemaphorePermit> {
        match tokio::time::timeout_at(deadline, Arc::clone(&self.room).acquire_owned()).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) => Err(closed()),
            Err(_) => {
                refused("queue_full");
                Err(StoreError::Busy(format!(
                    "its queue of writes stayed full for {} s; nothing was written, try again",
                    self.wait_max.as_secs_f64()
                )))
            }
        }
    }

    fn send(&self, message: Message) -> Result<()> {
        self.stamps.queued.fetch_add(1, Ordering::Relaxed);
        self.queue.try_send(message).map_err(|_| {
            self.stamps.queued.fetch_sub(1, Ordering::Relaxed);
            closed()
        })
    }

    pub(super) fn health(&self) -> StoreHealth {
        let stamps = &self.stamps;
        let since = clock::stamp_ms().saturating_sub(stamps.progress_ms.load(Ordering::Relaxed));
        let idle = if stamps.waiting.load(Ordering::Relaxed) { 0 } else { since };
        let degraded = stamps
            .degraded
            .load(Ordering::Relaxed)
            .then(|| stamps.degraded_why.lock().unwrap_or_else(PoisonError::into_inner).clone());
        StoreHealth {
            writer_idle_for: Duration::from_millis(idle),
            queued: stamps.queued.load(Ordering::Relaxed),
            degraded,
        }
    }

    /// Refuses new writes, finishes the queued ones and closes the connection.
    pub(super) async fn close(&self) {
        self.room.close();
        let (done, ended) = oneshot::channel();
        if self.queue.try_send(Message::Stop(done)).is_ok() {
            let _ = ended.await;
        }
    }
}

fn closed() -> StoreError {
    StoreError::Busy("it is closed".into())
}

fn refused(reason: &'static str) {
    metrics::counter!("auricle_store_writes_refused_total", "reason" => reason).increment(1);
}

struct Thread {
    db: Db,
    messages: Receiver<Message>,
    batch_max: usize,
    lock_wait_max: Duration,
    breather: Option<Duration>,
    stamps: Arc<Stamps>,
}

impl Thread {
    fn run(self) {
        let mut batch = Vec::with_capacity(self.batch_max);
        let mut held = Vec::with_capacity(self.batch_max);
        loop {
            self.stamps.waiting.store(true, Ordering::Relaxed);
            let first = self.messages.recv_timeout(PROBE_EVERY);
            self.progress();
            self.stamps.waiting.store(false, Ordering::Relaxed);
            let (mut stop, mut alone) = (None, None);
            match first {
                Ok(Message::Write { operation, .. }) => batch.push(operation),
                Ok(Message::Alone { operation, .. }) => alone = Some(operation),
                Ok(Message::Stop(done)) => stop = Some(done),
                Err(RecvTimeoutError::Timeout) => {
                    self.probe_if_degraded();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while stop.is_none() && alone.is_none() && batch.len() < self.batch_max {
                match self.messages.try_recv() {
                    Ok(Message::Write { operation, .. }) => batch.push(operation),
                    Ok(Message::Alone { operation, .. }) => alone = Some(operation),
                    Ok(Message::Stop(done)) => stop = Some(done),
                    Err(_) => break,
                }
            }
            if !batch.is_empty() {
                let left = self.stamps.queued.fetch_sub(batch.len(), Ordering::Relaxed) - batch.len();
                metrics::gauge!("auricle_store_queue_writes").set(left as f64);
                metrics::histogram!("auricle_store_batch_writes").record(batch.len() as f64);
                let failure = self.transact(&mut batch, &mut held);
                let full = held.iter().any(|held| held.full);
                let met = full.then(|| StoreError::Full("a write met a full disk".into()));
                self.note(failure.as_ref().or(met.as_ref()));
                for Held { answer, .. } in held.drain(..) {
                    answer(failure.as_ref().map(same));
                }
                if let Some(breather) = self.breather.filter(|_| stop.is_none()) {
                    thread::sleep(breather);
                }
            }
            if let Some(operation) = alone {
                self.stamps.queued.fetch_sub(1, Ordering::Relaxed);
                // It begins its own transactions, so it waits for other processes by itself.
                self.wait_for_locks(self.lock_wait_max);
                if catch_unwind(AssertUnwindSafe(|| operation(&self.db))).is_err() {
                    tracing::error!("an operation of the store panicked");
                    self.roll_back();
                }
                self.wait_for_locks(Duration::ZERO);
                self.progress();
            }
            if let Some(done) = stop {
                self.close();
                let _ = done.send(());
                return;
            }
        }
    }

    fn progress(&self) {
        self.stamps.progress_ms.store(clock::stamp_ms(), Ordering::Relaxed);
    }

    /// Runs a batch and commits it. `Some`: nothing of it happened, for this reason.
    fn transact(&self, batch: &mut Vec<Operation>, held: &mut Vec<Held>) -> Option<StoreError> {
        if let Err(error) = self.begin() {
            held.extend(batch.drain(..).map(|operation| operation(Err(same(&error)))));
            return Some(error);
        }
        let mut lost = None;
        for operation in batch.drain(..) {
            if let Some(error) = &lost {
                held.push(operation(Err(same(error))));
                continue;
            }
            match self.savepoint(operation) {
                Ok(done) => held.push(done),
                Err(error) => lost = Some(error),
            }
            // A full disk or an I/O error makes SQLite roll the whole transaction back by itself.
            if lost.is_none() && self.db.is_autocommit() {
                lost = Some(StoreError::Full("the transaction was rolled back by the database".into()));
            }
            self.progress();
        }
        if lost.is_some() {
            self.roll_back();
            return lost;
        }
        let begun = clock::monotonic();
        let committed = self.execute("COMMIT");
        metrics::histogram!("auricle_store_commit_seconds").record(begun.elapsed().as_secs_f64());
        committed.err().inspect(|_| self.roll_back())
    }

    fn savepoint(&self, operation: Operation) -> Result<Held> {
        self.execute("SAVEPOINT operation")?;
        let ran = catch_unwind(AssertUnwindSafe(|| operation(Ok(&self.db))));
        if self.db.is_autocommit() {
            return ran.map_err(|_| panicked());
        }
        let succeeded = ran.as_ref().is_ok_and(|held| held.succeeded);
        if !succeeded {
            self.execute("ROLLBACK TO operation")?;
        }
        self.execute("RELEASE operation")?;
        // A panic drops the reply, which its caller reads as `Busy`; the batch goes on.
        ran.or_else(|_| {
            tracing::error!("a write operation panicked; it was undone");
            Ok(Held { succeeded: false, full: false, answer: Box::new(|_| ()) })
        })
    }

    /// Waits for another process's transaction to end, up to `lock_wait_max`.
    fn begin(&self) -> Result<()> {
        let begun = clock::monotonic();
        loop {
            match self.execute("BEGIN IMMEDIATE") {
                Err(StoreError::Busy(_)) if begun.elapsed() < self.lock_wait_max => {
                    thread::sleep(LOCK_LOOK_EVERY);
                }
                begins => return begins,
            }
        }
    }

    fn wait_for_locks(&self, wait: Duration) {
        if let Err(error) = self.db.busy_timeout(wait) {
            tracing::warn!(%error, "the store's writer keeps its wait for locks");
        }
    }

    fn execute(&self, sql: &str) -> Result<()> {
        self.db.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    fn roll_back(&self) {
        if !self.db.is_autocommit()
            && let Err(error) = self.db.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "the store could not roll back");
        }
    }

    fn note(&self, failure: Option<&StoreError>) {
        match failure {
            None => {
                if self.stamps.degraded.swap(false, Ordering::Relaxed) {
                    tracing::info!("the store writes again");
                }
            }
            Some(error) => {
                refused(match error {
                    StoreError::Full(_) => "full",
                    StoreError::Busy(_) => "locked",
                    _ => "failed",
                });
                *self.stamps.degraded_why.lock().unwrap_or_else(PoisonError::into_inner) = error.to_string();
                if !self.stamps.degraded.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "the store cannot write");
                }
            }
        }
        metrics::gauge!("auricle_store_degraded").set(f64::from(u8::from(failure.is_some())));
    }

    fn probe_if_degraded(&self) {
        if !self.stamps.degraded.load(Ordering::Relaxed) {
            return;
        }
        let tried = self
            .begin()
            .and_then(|()| {
                let sql = "INSERT INTO probe (id, room) VALUES (1, randomblob(?1)) ON CONFLICT (id) DO UPDATE SET room = excluded.room";
                self.db.prepare_cached(sql)?.execute([PROBE_BYTES])?;
                self.execute("COMMIT")
            })
            .inspect_err(|_| self.roll_back());
        self.progress();
        self.note(tried.err().as_ref());
    }

    fn close(self) {
        if let Err(error) = self.db.close() {
            tracing::warn!(%error, "the store's writer did not close cleanly; the next start repairs it");
        }
    }
}

fn panicked() -> StoreError {
    StoreError::Other("a write operation panicked".into())
}

/// The same error once more, for each caller of a batch.
fn same(error: &StoreError) -> StoreError {
    match error {
        StoreError::Full(why) => StoreError::Full(why.clone()),
        StoreError::Busy(why) => StoreError::Busy(why.clone()),
        StoreError::Fenced(why) => StoreError::Fenced(why.clone()),
        StoreError::Ended(why) => StoreError::Ended(why.clone()),
        StoreError::NotFound(why) => StoreError::NotFound(why.clone()),
        StoreError::Conflict(why) => StoreError::Conflict(why.clone()),
        StoreError::Damaged(why) => StoreError::Damaged(why.clone()),
        StoreError::Other(why) => StoreError::Other(why.clone()),
    }
}
