//! A few threads that read, each with a connection of its own: reads never wait behind a commit's sync, and never take
//! a thread of the callers' runtime.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::db::Db;
use crate::clock;
use crate::store::{Result, StoreError};

type Query = Box<dyn FnOnce(&Db) + Send>;

enum Message {
    Read { query: Query, _room: OwnedSemaphorePermit },
    Stop,
}

/// The callers' end of the reading threads.
pub(super) struct Readers {
    queue: SyncSender<Message>,
    room: Arc<Semaphore>,
    wait_max: Duration,
    threads: usize,
}

impl Readers {
    pub(super) fn start(connections: Vec<Db>, queue_max: usize, wait_max: Duration) -> Result<Self> {
        let threads = connections.len();
        let (queue, messages) = sync_channel(queue_max + threads);
        let messages = Arc::new(Mutex::new(messages));
        for (number, db) in connections.into_iter().enumerate() {
            let messages = Arc::clone(&messages);
            thread::Builder::new()
                .name(format!("store-reader-{number}"))
                .spawn(move || run(&db, &messages))
                .map_err(|error| StoreError::Other(format!("no thread for the store's readers: {error}")))?;
        }
        Ok(Self { queue, room: Arc::new(Semaphore::new(queue_max)), wait_max, threads })
    }

    /// Runs `query` on what was committed before. Dropping the future abandons the answer.
    pub(super) async fn read<T, F>(&self, query: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Db) -> Result<T> + Send + 'static,
    {
        let deadline = tokio::time::Instant::from_std(clock::monotonic() + self.wait_max);
        let late = || {
            metrics::counter!("auricle_store_reads_refused_total", "reason" => "slow").increment(1);
            StoreError::Busy(format!("a read took over {} s; try again", self.wait_max.as_secs_f64()))
        };
        let closed = || StoreError::Busy("it is closed".into());
        let room = tokio::time::timeout_at(deadline, Arc::clone(&self.room).acquire_owned())
            .await
            .map_err(|_| late())?
            .map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let query: Query = Box::new(move |db| {
            if !reply.is_closed() {
                let _ = reply.send(snapshot(db, query));
            }
        });
        self.queue.try_send(Message::Read { query, _room: room }).map_err(|_| closed())?;
        tokio::time::timeout_at(deadline, answer).await.map_err(|_| late())?.map_err(|_| closed())?
    }

    /// Refuses new reads; the threads end after the queued ones.
    pub(super) fn close(&self) {
        self.room.close();
        for _ in 0..self.threads {
            let _ = self.queue.try_send(Message::Stop);
        }
    }
}

/// One read transaction, so that a query made of several statements sees one state.
fn snapshot<T>(db: &Db, query: impl FnOnce(&Db) -> Result<T>) -> Result<T> {
    let transaction = db.unchecked_transaction()?;
    let result = query(db);
    transaction.finish()?;
    result
}

fn run(db: &Db, messages: &Mutex<Receiver<Message>>) {
    loop {
        let message = messages.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match message {
            Ok(Message::Read { query, .. }) => {
                let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| query(db)));
                if ran.is_err() {
                    tracing::error!("a read of the store panicked");
                }
            }
            Ok(Message::Stop) | Err(_) => return,
        }
    }
}
