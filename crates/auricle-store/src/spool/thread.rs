//! The one thread that owns the spool's files.
//!
//! Invariants: a file holds whole records, except for a tail that a crash tore; a write that fails is cut off again, so
//! what follows it stays readable; the newest covered mark stands in the newest chunk.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Weak};
use std::time::Duration;

use auricle_core::Share;

use super::run::{ABANDONED, FINISHED, LIVE, Run};
use super::{Shared, dropped, lock, record};
use crate::clock;
use crate::protect::{Place, Sealer};

/// How often each run is looked at even without a message: hints may be lost when the queue is full.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A chunk of this size that is covered goes to the kept audio, even if it is the newest: few bytes of a live run wait in the
/// spool that way, and few files come of it.
const KEPT_CHUNK_BYTES: u64 = 256 * 1024;

pub(super) enum Message {
    /// Records of the samples `from..until`.
    Data {
        run: Arc<Run>,
        buffer: Vec<u8>,
        from: u64,
        until: u64,
        /// The buffer's bytes.
        held: Share,
    },
    /// Its coverage or its state changed.
    Look(Arc<Run>),
    Settle(SyncSender<()>),
}

struct Chunk {
    number: u32,
    bytes: u64,
    /// Sample position after its last frame.
    until: u64,
}

/// A run's files.
struct Files {
    run: Arc<Run>,
    folder: PathBuf,
    chunks: VecDeque<Chunk>,
    /// The newest chunk, open for appending.
    file: Option<File>,
    next_number: u32,
    /// The coverage that is on disk.
    marked: u64,
    sealer: Sealer,
}

pub(super) struct Thread {
    messages: Receiver<Message>,
    shared: Weak<Shared>,
    runs: HashMap<String, Files>,
}

impl Thread {
    pub(super) fn new(messages: Receiver<Message>, shared: Weak<Shared>) -> Self {
        Self { messages, shared, runs: HashMap::new() }
    }

    pub(super) fn run(mut self) {
        let mut looked = clock::monotonic();
        loop {
            let message = self.messages.recv_timeout(LOOK_EVERY);
            // Without holders there is nobody whose runs could go on.
            let Some(shared) = self.shared.upgrade() else { return };
            shared.beat_ms.store(clock::stamp_ms(), Ordering::Relaxed);
            match message {
                Ok(message) => self.take(&shared, message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if looked.elapsed() >= LOOK_EVERY {
                looked = clock::monotonic();
                self.contained(|thread| thread.look_at_all(&shared));
            }
        }
    }

    fn take(&mut self, shared: &Shared, message: Message) {
        match message {
            Message::Data { run, buffer, from, until, held } => {
                shared.queued_bytes.fetch_sub(buffer.len(), Ordering::Relaxed);
                self.contained(|thread| thread.write(shared, &run, &buffer, from, until));
                drop(held);
                run.queued.fetch_sub(1, Ordering::AcqRel);
                self.contained(|thread| thread.look(shared, &run.name));
                shared.give_back(buffer);
            }
            Message::Look(run) => self.contained(|thread| thread.look(shared, &run.name)),
            Message::Settle(done) => {
                self.contained(|thread| thread.look_at_all(shared));
                let _ = done.send(());
            }
        }
    }

    /// A panic costs what it was about, not the thread: every session's audio goes through here.
    fn contained(&mut self, act: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| act(self))).is_err() {
            metrics::counter!("auricle_spool_panics_total").increment(1);
            tracing::error!("the spool's thread panicked and goes on");
            // Whatever state a file was left in, what follows goes into a new one.
            self.runs.values_mut().for_each(|files| files.file = None);
        }
    }

    fn look_at_all(&mut self, shared: &Shared) {
        let names: Vec<String> = self.runs.keys().cloned().collect();
        for name in names {
            self.look(shared, &name);
        }
    }

    fn write(&mut self, shared: &Shared, run: &Arc<Run>, buffer: &[u8], from: u64, until: u64) {
        let needed = shared.options.kept.is_some()
            || run.ended.load(Ordering::Acquire) != FINISHED && run.covered.load(Ordering::Relaxed) < until;
        let files = self.runs.entry(run.name.clone()).or_insert_with(|| Files {
            run: Arc::clone(run),
            folder: shared.folder.join(&run.name),
            chunks: VecDeque::new(),
            file: None,
            next_number: 1,
            marked: 0,
            sealer: shared.options.ring.of(&run.header.user),
        });
        if needed && let Err((reason, error)) = files.append(shared, buffer, until) {
            dropped(reason, buffer.len());
            run.lost.fetch_add(until - from, Ordering::Relaxed);
            if let Some(error) = error {
                tracing::warn!(%error, "audio could not be spooled");
            }
        }
    }

    /// Frees what is covered, and closes a run that has ended.
    fn look(&mut self, shared: &Shared, name: &str) {
        let Some(files) = self.runs.get_mut(name) else { return };
        // The state before the count: nothing is handed over after the end.
        let ended = files.run.ended.load(Ordering::Acquire);
        if ended != LIVE && files.run.queued.load(Ordering::Acquire) > 0 {
            return;
        }
        let covered = files.run.covered.load(Ordering::Relaxed);
        let nothing_left = files.chunks.back().is_none_or(|last| last.until <= covered);
        if ended == FINISHED || (ended == ABANDONED && nothing_left) {
            files.remove(shared);
        } else if let Err(error) = files.free(shared, covered) {
            tracing::debug!(%error, "covered audio could not be freed yet");
        }
        if ended != LIVE {
            self.runs.remove(name);
            lock(&shared.live).remove(name);
            if ended == ABANDONED && !nothing_left {
                shared.options.left.notify_one();
            }
        }
    }
}

type Refused = (&'static str, Option<io::Error>);

impl Files {
    fn append(&mut self, shared: &Shared, buffer: &[u8], until: u64) -> Result<(), Refused> {
        let place = [self.run.header.run.as_str()];
        let mut record = Vec::new();
        let buffer = match self.sealer.seal_audio(Place::new("spool", "record", &place), buffer) {
            None => buffer,
            Some((key, sealed)) => {
                record::put_sealed(&mut record, key, &sealed).ok_or(("frame_too_large", None))?;
                record.as_slice()
            }
        };
        let bytes = buffer.len() as u64;
        if self.chunks.iter().map(|chunk| chunk.bytes).sum::<u64>() + bytes > shared.options.run_bytes_max {
            return Err(("run_full", None));
        }
        if shared.disk_bytes.load(Ordering::Relaxed) + bytes > shared.options.total_bytes_max {
            return Err(("total_full", None));
        }
        let full = self.chunks.back().is_some_and(|chunk| chunk.bytes + bytes > shared.options.chunk_bytes);
        let begun = clock::monotonic();
        let done = if self.file.is_none() || full { self.rotate(shared) } else { Ok(()) }
            .and_then(|()| self.put(shared, buffer, Some(until)));
        metrics::histogram!("auricle_spool_write_seconds").record(begun.elapsed().as_secs_f64());
        done.map_err(|error| ("disk", Some(error)))
    }

    /// Begins the next chunk; the first one makes folder and header.
    fn rotate(&mut self, shared: &Shared) -> io::Result<()> {
        if self.next_number == 1 {
            fs::create_dir_all(&self.folder)?;
            fs::write(
                self.folder.join("header"),
                record::header_bytes(&self.run.header, &self.run.name, &self.sealer),
            )?;
        }
        let number = self.next_number;
        let path = self.folder.join(format!("{number:08}.chunk"));
        self.file = Some(OpenOptions::new().create(true).append(true).open(path)?);
        self.next_number += 1;
        self.chunks.push_back(Chunk { number, bytes: 0, until: 0 });
        if self.marked > 0 {
            let mut mark = Vec::new();
            record::put_covered(&mut mark, self.marked);
            self.put(shared, &mark, None)?;
        }
        Ok(())
    }

    /// One write; what of it fails is cut off.
    fn put(&mut self, shared: &Shared, bytes: &[u8], until: Option<u64>) -> io::Result<()> {
        let (Some(file), Some(chunk)) = (&mut self.file, self.chunks.back_mut()) else { return Ok(()) };
        if let Err(error) = file.write_all(bytes) {
            file.set_len(chunk.bytes)?;
            return Err(error);
        }
        chunk.bytes += bytes.len() as u64;
        if let Some(until) = until {
            chunk.until = chunk.until.max(until);
        }
        shared.grew(bytes.len() as u64);
        metrics::counter!("auricle_spool_written_bytes_total").increment(bytes.len() as u64);
        Ok(())
    }

    fn free(&mut self, shared: &Shared, covered: u64) -> io::Result<()> {
        if covered <= self.marked {
            return Ok(());
        }
        while self.chunks.len() > 1 && self.chunks.front().is_some_and(|chunk| chunk.until <= covered) {
            if let Some(chunk) = self.chunks.pop_front() {
                self.let_go(shared, &chunk)?;
            }
        }
        if shared.options.kept.is_some() {
            let is_over = |last: &mut Chunk| last.until <= covered && last.bytes >= KEPT_CHUNK_BYTES;
            if let Some(chunk) = self.chunks.pop_back_if(is_over) {
                // What follows goes into a new one, which begins with the mark.
                self.file = None;
                self.marked = covered;
                return self.let_go(shared, &chunk);
            }
        } else if let (Some(file), Some(chunk)) = (&self.file, self.chunks.back_mut())
            && chunk.until <= covered
        {
            file.set_len(0)?;
            shared.shrank(std::mem::take(&mut chunk.bytes));
        }
        let mut mark = Vec::new();
        record::put_covered(&mut mark, covered);
        self.put(shared, &mark, None)?;
        self.marked = covered;
        Ok(())
    }

    /// Deletes a chunk that is not needed, or moves it to where audio is kept.
    fn let_go(&self, shared: &Shared, chunk: &Chunk) -> io::Result<()> {
        let path = self.folder.join(format!("{:08}.chunk", chunk.number));
        let kept = shared.options.kept.as_ref();
        if !kept.is_some_and(|kept| kept.adopt(&self.run.header, &self.folder, &path, chunk.bytes)) {
            fs::remove_file(path)?;
        }
        shared.shrank(chunk.bytes);
        Ok(())
    }

    fn remove(&mut self, shared: &Shared) {
        if shared.options.kept.is_some() {
            // Should the process die half way, nobody may hear the rest again.
            if let Some(until) = self.chunks.back().map(|last| last.until) {
                let mut mark = Vec::new();
                record::put_covered(&mut mark, until);
                if let Err(error) = self.put(shared, &mark, None) {
                    tracing::debug!(%error, "the end of a run could not be marked");
                }
            }
            self.file = None;
            for chunk in std::mem::take(&mut self.chunks) {
                if let Err(error) = self.let_go(shared, &chunk) {
                    shared.shrank(chunk.bytes);
                    tracing::debug!(%error, "covered audio could not be freed");
                }
            }
        }
        self.file = None;
        let bytes = self.chunks.drain(..).map(|chunk| chunk.bytes).sum();
        shared.shrank(bytes);
        if let Err(error) = fs::remove_dir_all(&self.folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "a covered run of the spool could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use auricle_core::{Limits, Source, UnixMicros};

    use super::super::run::RunWriter;
    use super::super::{RunHeader, SpoolOptions, leftover};
    use super::*;

    fn header(run: &str, conversation: &str) -> RunHeader {
        RunHeader {
            run: run.into(),
            user: "ann".into(),
            conversation: conversation.into(),
            process: "p".into(),
            codec: "pcm16".into(),
            sample_rate_hz: 16_000,
            channels: 1,
            language: None,
            source: Source::Omi,
            role: None,
            first_audio_at: UnixMicros(0),
        }
    }

    fn found(shared: &Arc<Shared>) -> Vec<String> {
        leftover::list(shared).unwrap().iter().map(|run| run.header().run.clone()).collect()
    }

    /// Whoever looks between any two steps of the thread: a word is said where one run ends and the next begins.
    #[test]
    fn runs_that_are_left_together_are_found_together_however_slow_the_disk_is() {
        let dir = tempfile::tempdir().unwrap();
        let (queue, messages) = sync_channel(64);
        let options = SpoolOptions::from(&Limits::default());
        let shared = Arc::new(Shared::new(options, dir.path().to_owned(), queue));
        let mut thread = Thread::new(messages, Arc::downgrade(&shared));
        let begin = |run: &str, conversation: &str| {
            let mut writer = RunWriter::new(Arc::clone(&shared), header(run, conversation));
            writer.append(&[1; 100], 320);
            writer
        };
        let three = ["a", "b", "c"].map(|run| begin(run, "one"));
        begin("other", "two").abandon();
        RunWriter::abandon_together(three.into());
        let mut seen = vec![found(&shared)];
        while let Ok(message) = thread.messages.try_recv() {
            thread.take(&shared, message);
            seen.push(found(&shared));
        }
        seen.iter_mut().for_each(|found| found.sort());
        seen.dedup();
        assert_eq!(seen, [vec![], vec!["other"], vec!["a", "b", "c", "other"]]);
    }
}
