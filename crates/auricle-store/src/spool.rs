//! The audio spool: frames as received, on disk until words cover them.
//!
//! One folder for each session run: `header` (who, codec, zero time), `00000001.chunk`, … (see `record`), and `attempts`
//! once somebody tried to transcribe what was left. One thread owns the files; sessions hand it whole buffers and
//! never wait: what does not fit is counted as lost. Written data survives `kill -9` (it is in the page cache); the
//! newest `flush_every` may not survive it. One process for each folder.
//! With a key each flush is sealed by the thread before it is written, and the header with it; runs whose key is not there
//! wait in `locked`, untouched, until it is.
//! Where audio is kept ([`crate::kept`]), chunks are moved there instead of being deleted.
//! Leaves to others: decoding, transcribing, and when to repair.

mod leftover;
mod record;
mod run;
mod thread;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use auricle_core::{Account, ConversationId, Limits, ProcessId, Source, UnixMicros, UserId};

use tokio::sync::Notify;

use crate::clock;
use crate::kept::KeptAudio;
use crate::protect::Keyring;

pub use leftover::{Leftover, SpooledFrame, StoredRun};
pub(crate) use leftover::{chunks, reseal};
pub(crate) use record::{Under, chunk_under, header_under};
pub use run::RunWriter;

/// Buffers queued for the thread; with the bound in bytes, whichever comes first.
const QUEUE_MAX: usize = 16_384;
/// Empty buffers kept for reuse; more are freed.
const BUFFERS_KEPT: usize = 4_096;
/// A kept buffer's largest size; a larger one is freed.
const BUFFER_BYTES_KEPT: usize = 32 * 1024;

/// The bounds of a [`Spool`].
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// A run's buffer is handed over after at most this long.
    pub flush_every: Duration,
    /// Bytes after which a run's buffer is handed over at once.
    pub flush_bytes: usize,
    /// Bytes queued for the thread. Full: the audio is counted as not spooled.
    pub queue_bytes_max: usize,
    /// Bytes of one run on disk. Full: the newest is counted as not spooled.
    pub run_bytes_max: u64,
    /// Bytes of all runs on disk, left-over ones included. Full: the newest is counted as not spooled.
    pub total_bytes_max: u64,
    /// Bytes of one chunk file: what is freed at a time.
    pub chunk_bytes: u64,
    /// Where bytes queued for the thread are counted.
    pub account: Account,
    /// What seals and opens; empty: audio is written as it is.
    pub ring: Keyring,
    /// Told when a run that was abandoned can be found.
    pub left: Arc<Notify>,
    /// Where audio goes that is not needed any more; `None`: it is deleted.
    pub kept: Option<KeptAudio>,
}

impl From<&Limits> for SpoolOptions {
    fn from(limits: &Limits) -> Self {
        Self {
            flush_every: limits.spool_flush_every,
            flush_bytes: 16 * 1024,
            queue_bytes_max: limits.spool_queue_bytes_max,
            run_bytes_max: limits.spool_session_bytes_max,
            total_bytes_max: limits.spool_total_bytes_max,
            chunk_bytes: 1024 * 1024,
            account: Account::default(),
            ring: Keyring::default(),
            left: Arc::default(),
            kept: None,
        }
    }
}

/// What a run's audio is, and whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunHeader {
    /// Unique id of the run.
    pub run: String,
    pub user: UserId,
    pub conversation: ConversationId,
    pub process: ProcessId,
    /// As the client named it.
    pub codec: String,
    pub sample_rate_hz: u32,
    pub channels: u16,
    pub language: Option<String>,
    pub source: Source,
    /// Which stream of a multi-channel session.
    pub role: Option<String>,
    /// Wall-clock time of sample 0.
    pub first_audio_at: UnixMicros,
}

/// What all holders of a spool share.
struct Shared {
    options: SpoolOptions,
    folder: PathBuf,
    queue: SyncSender<thread::Message>,
    queued_bytes: AtomicUsize,
    disk_bytes: AtomicU64,
    /// When the thread last did something, as [`clock::stamp_ms`].
    beat_ms: AtomicU64,
    buffers: Mutex<Vec<Vec<u8>>>,
    /// The runs this process still writes, by folder name. Runs that are left together have their state changed under this lock:
    /// whoever looks sees all of them left or none.
    live: Mutex<HashMap<String, Arc<run::Run>>>,
    /// Folder names of the runs that somebody repairs.
    claimed: Mutex<HashSet<String>>,
}

impl Shared {
    fn new(options: SpoolOptions, folder: PathBuf, queue: SyncSender<thread::Message>) -> Self {
        Self {
            options,
            folder,
            queue,
            queued_bytes: AtomicUsize::new(0),
            disk_bytes: AtomicU64::new(0),
            beat_ms: AtomicU64::new(clock::stamp_ms()),
            buffers: Mutex::default(),
            live: Mutex::default(),
            claimed: Mutex::default(),
        }
    }

    /// Longest frame: with a flush around it, it must fit into one record, sealed too.
    fn frame_bytes_max(&self) -> usize {
        if self.options.ring.current().is_none() {
            return record::PAYLOAD_MAX;
        }
        record::PAYLOAD_MAX.saturating_sub(2 * record::SEALED_BYTES + self.options.flush_bytes)
    }

    fn buffer(&self) -> Vec<u8> {
        lock(&self.buffers).pop().unwrap_or_default()
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() > BUFFER_BYTES_KEPT {
            return;
        }
        buffer.clear();
        let mut kept = lock(&self.buffers);
        if kept.len() < BUFFERS_KEPT {
            kept.push(buffer);
        }
    }

    fn grew(&self, bytes: u64) {
        self.resized(|total| total.saturating_add(bytes));
    }

    fn shrank(&self, bytes: u64) {
        self.resized(|total| total.saturating_sub(bytes));
    }

    /// Saturates: a total that wrapped would refuse all audio.
    fn resized(&self, change: impl Fn(u64) -> u64) {
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        let before = self.disk_bytes.fetch_update(set, get, |total| Some(change(total)));
        metrics::gauge!("auricle_spool_bytes").set(before.map_or(0, change) as f64);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn dropped(reason: &'static str, bytes: usize) {
    metrics::counter!("auricle_spool_dropped_bytes_total", "reason" => reason).increment(bytes as u64);
}

/// The spool of one folder. Cloning is cheap.
#[derive(Clone)]
pub struct Spool(Arc<Shared>);

impl Spool {
    /// Opens the folder, makes it if absent, and starts the thread. Blocks for a listing of the folder.
    pub fn open(folder: impl Into<PathBuf>, options: SpoolOptions) -> io::Result<Self> {
        let folder = folder.into();
        std::fs::create_dir_all(&folder)?;
        let (queue, messages) = sync_channel(QUEUE_MAX);
        let shared = Arc::new(Shared::new(options, folder, queue));
        shared.grew(leftover::bytes_on_disk(&shared.folder)?);
        let weak = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name("audio-spool".into())
            .spawn(move || thread::Thread::new(messages, weak).run())?;
        Ok(Self(shared))
    }

    /// Begins a run. Nothing is written before the first flush.
    pub fn begin(&self, header: RunHeader) -> RunWriter {
        RunWriter::new(Arc::clone(&self.0), header)
    }

    /// Bytes on disk, left-over ones included.
    pub fn disk_bytes(&self) -> u64 {
        self.0.disk_bytes.load(Ordering::Relaxed)
    }

    /// How long its thread has done nothing; it looks around every second. Longer: its disk does not answer.
    pub fn silent_for(&self) -> Duration {
        Duration::from_millis(clock::stamp_ms().saturating_sub(self.0.beat_ms.load(Ordering::Relaxed)))
    }

    /// Waits until everything handed over before is written. Blocks.
    pub fn settle(&self) {
        let (done, wait) = sync_channel(1);
        if self.0.queue.send(thread::Message::Settle(done)).is_ok() {
            let _ = wait.recv();
        }
    }

    /// As [`Self::settle`], for no longer than `wait_max`. False if it was not done by then: its disk does not answer. Blocks.
    pub fn settle_within(&self, wait_max: Duration) -> bool {
        let (done, wait) = sync_channel(1);
        match self.0.queue.try_send(thread::Message::Settle(done)) {
            Ok(()) => wait.recv_timeout(wait_max).is_ok(),
            // As much as its queue holds is not written yet.
            Err(TrySendError::Full(_)) => false,
            Err(TrySendError::Disconnected(_)) => true,
        }
    }

    /// Runs that no live [`RunWriter`] of this process holds and that nobody has claimed, oldest audio first. Blocks: reads the
    /// folder. What cannot be read is moved into `quarantine` and counted; what is wholly covered is removed. Runs that were
    /// abandoned together are found together: while one of a conversation is still on its way to disk none of it is.
    pub fn leftovers(&self) -> io::Result<Vec<Leftover>> {
        leftover::list(&self.0)
    }

    /// Conversations with runs that were abandoned and are not wholly on disk yet: [`Self::leftovers`] has them in a moment.
    pub fn on_their_way(&self) -> HashSet<ConversationId> {
        run::on_their_way(&lock(&self.0.live))
    }

    /// Removes every run of `user` that nobody writes, those put aside included. Returns how many. Blocks: reads all headers.
    pub fn forget(&self, user: &UserId) -> io::Result<usize> {
        leftover::forget(&self.0, user)
    }
}
