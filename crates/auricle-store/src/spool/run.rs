//! A session's end of the spool: buffers frames and hands them over, never waits, and allocates nothing per frame.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use auricle_core::ConversationId;

use super::thread::Message;
use super::{RunHeader, Shared, dropped, lock, record};

pub(super) const LIVE: u8 = 0;
pub(super) const FINISHED: u8 = 1;
pub(super) const ABANDONED: u8 = 2;

/// What a writer and the thread share about a run. It outlives a full queue: the thread looks at it again by itself.
pub(super) struct Run {
    pub(super) header: RunHeader,
    /// Folder name.
    pub(super) name: String,
    /// Everything before this sample is not needed.
    pub(super) covered: AtomicU64,
    pub(super) ended: AtomicU8,
    /// Buffers on their way to the thread. A run that has ended is closed only once they have arrived.
    pub(super) queued: AtomicU64,
    /// Samples that were not spooled.
    pub(super) lost: AtomicU64,
}

/// Writes one run. Dropping it abandons the run: what is not covered stays for repair.
pub struct RunWriter {
    shared: Arc<Shared>,
    run: Arc<Run>,
    buffer: Vec<u8>,
    /// Sample position of the buffer's first frame.
    buffer_from: u64,
    position: u64,
    flushed_at: Option<Instant>,
    handed_over: bool,
}

/// Conversations with runs that were abandoned and are not wholly on disk yet.
pub(super) fn on_their_way(live: &HashMap<String, Arc<Run>>) -> HashSet<ConversationId> {
    let is_left = |run: &&Arc<Run>| run.ended.load(Ordering::Acquire) == ABANDONED;
    live.values().filter(is_left).map(|run| run.header.conversation.clone()).collect()
}

/// A folder name that no run id can escape from.
fn folder_name(run: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !run.is_empty() && run.len() <= 100 && run.bytes().all(plain) {
        return format!("run-{run}");
    }
    let hex: String = run.bytes().take(100).map(|byte| format!("{byte:02x}")).collect();
    format!("hex-{hex}")
}

impl RunWriter {
    pub(super) fn new(shared: Arc<Shared>, header: RunHeader) -> Self {
        let name = folder_name(&header.run);
        let run = Arc::new(Run {
            header,
            name: name.clone(),
            covered: AtomicU64::new(0),
            ended: AtomicU8::new(LIVE),
            queued: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        lock(&shared.live).insert(name, Arc::clone(&run));
        Self {
            shared,
            run,
            buffer: Vec::new(),
            buffer_from: 0,
            position: 0,
            flushed_at: None,
            handed_over: false,
        }
    }

    /// Adds a frame as received; `samples` is its decoded length. At most 16 MiB - 1, with a key a
    /// flush less; a longer one is counted as lost.
    pub fn append(&mut self, frame: &[u8], samples: u32) {
        if frame.len() > self.shared.frame_bytes_max() {
            dropped("frame_too_large", frame.len());
            self.run.lost.fetch_add(u64::from(samples), Ordering::Relaxed);
            self.hand_over();
            self.position += u64::from(samples);
            return;
        }
        if self.buffer.is_empty() {
            self.buffer = self.shared.buffer();
            self.buffer_from = self.position;
            record::put_position(&mut self.buffer, self.position);
        }
        record::put_frame(&mut self.buffer, samples, frame);
        self.position += u64::from(samples);
        if self.buffer.len() >= self.shared.options.flush_bytes {
            self.hand_over();
        }
    }

    /// Ends what is this run's before its audio does: words whose middle is at `from_sample` or later are another stream's, which
    /// heard them too. For the reader it is a frame without samples; no frame may follow. Handed over at once, since those words
    /// are about to be stored.
    pub fn yields_from(&mut self, from_sample: u64) {
        if self.buffer.is_empty() {
            self.buffer = self.shared.buffer();
            self.buffer_from = self.position;
        }
        record::put_position(&mut self.buffer, from_sample);
        record::put_frame(&mut self.buffer, 0, &[]);
        self.hand_over();
    }

    /// Hands the buffer over if it is time; returns when to call again at the latest (`None`: after the next frame).
    pub fn poll_flush(&mut self, now: Instant) -> Option<Instant> {
        if self.buffer.is_empty() {
            return None;
        }
        let due = self.flushed_at.map(|at| at + self.shared.options.flush_every).filter(|due| *due > now);
        if due.is_none() {
            self.hand_over();
            self.flushed_at = Some(now);
        }
        due
    }

    /// Sample position after the last frame.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Samples that could not be spooled so far.
    pub fn lost_samples(&self) -> u64 {
        self.run.lost.load(Ordering::Relaxed)
    }

    /// Everything before this sample is covered by final words and may be freed.
    pub fn covered(&mut self, until_sample: u64) {
        let until = until_sample.min(self.position);
        if self.run.covered.fetch_max(until, Ordering::Relaxed) >= until {
            return;
        }
        if until == self.position && !self.buffer.is_empty() && self.shared.options.kept.is_none() {
            self.shared.give_back(std::mem::take(&mut self.buffer));
        }
        if self.handed_over {
            // Lost when the queue is full: the thread looks at each run once a second.
            let _ = self.shared.queue.try_send(Message::Look(Arc::clone(&self.run)));
        }
    }

    /// Ends the run with nothing left to do: its files go.
    pub fn finish(mut self) {
        self.end(FINISHED);
    }

    /// Ends the run; what is not covered stays for repair.
    pub fn abandon(mut self) {
        self.end(ABANDONED);
    }

    /// Ends runs of one spool so that [`Spool::leftovers`](super::Spool::leftovers) has all of them or none: what adjoins is to be
    /// heard as one.
    pub fn abandon_together(mut writers: Vec<Self>) {
        let Some(shared) = writers.first().map(|writer| Arc::clone(&writer.shared)) else { return };
        writers.iter_mut().for_each(Self::hand_over);
        let mut live = lock(&shared.live);
        writers.iter_mut().for_each(|writer| writer.ends(ABANDONED, &mut live));
    }

    fn end(&mut self, how: u8) {
        let is_needed = how == ABANDONED || self.shared.options.kept.is_some();
        if is_needed && self.run.ended.load(Ordering::Relaxed) == LIVE {
            self.hand_over();
        }
        let shared = Arc::clone(&self.shared);
        self.ends(how, &mut lock(&shared.live));
    }

    /// Everything was handed over.
    fn ends(&mut self, how: u8, live: &mut HashMap<String, Arc<Run>>) {
        if self.run.ended.load(Ordering::Relaxed) != LIVE {
            return;
        }
        self.run.ended.store(how, Ordering::Release);
        if self.handed_over {
            let _ = self.shared.queue.try_send(Message::Look(Arc::clone(&self.run)));
        } else {
            live.remove(&self.run.name);
        }
    }

    fn hand_over(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let buffer = std::mem::take(&mut self.buffer);
        let bytes = buffer.len();
        let queued = self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let (from, until) = (self.buffer_from, self.position);
        self.run.queued.fetch_add(1, Ordering::AcqRel);
        let held = self.shared.options.account.holding(bytes);
        let message = Message::Data { run: Arc::clone(&self.run), buffer, from, until, held };
        let refused = if queued + bytes > self.shared.options.queue_bytes_max {
            Some(message)
        } else {
            self.shared.queue.try_send(message).err().map(|error| match error {
                std::sync::mpsc::TrySendError::Full(message)
                | std::sync::mpsc::TrySendError::Disconnected(message) => message,
            })
        };
        match refused {
            None => self.handed_over = true,
            Some(message) => {
                self.run.queued.fetch_sub(1, Ordering::AcqRel);
                self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
                dropped("queue_full", bytes);
                self.run.lost.fetch_add(until - from, Ordering::Relaxed);
                if let Message::Data { buffer, .. } = message {
                    self.shared.give_back(buffer);
                }
            }
        }
    }
}

impl Drop for RunWriter {
    fn drop(&mut self) {
        self.end(ABANDONED);
    }
}
