//! Runs that a crash or an abandoned session left: what repair reads.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::{self, Record};
use super::{RunHeader, Shared, lock};

/// Where unreadable runs go.
const QUARANTINE: &str = "quarantine";

/// A run that nobody writes any more.
pub struct Leftover {
    shared: Arc<Shared>,
    folder: PathBuf,
    header: RunHeader,
    covered: u64,
    bytes: u64,
}

/// One frame as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpooledFrame {
    /// Samples from the run's first audio; a hole means audio that was not spooled.
    pub position: u64,
    /// Decoded length.
    pub samples: u32,
    pub bytes: Vec<u8>,
}

/// The size of all chunks, for the bound on the total.
pub(super) fn bytes_on_disk(folder: &Path) -> io::Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != QUARANTINE) {
            total += chunks(&path)?.iter().map(|(_, bytes)| bytes).sum::<u64>();
        }
    }
    Ok(total)
}

/// A run's chunk files with their sizes, in order.
fn chunks(folder: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "chunk") {
            found.push((path, entry.metadata()?.len()));
        }
    }
    found.sort();
    Ok(found)
}

pub(super) fn list(shared: &Arc<Shared>) -> io::Result<Vec<Leftover>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(&shared.folder)? {
        let folder = entry?.path();
        let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { continue };
        if name == QUARANTINE || !folder.is_dir() || lock(&shared.live).contains(name) {
            continue;
        }
        match read(shared, &folder)? {
            Some(leftover) if leftover.has_uncovered() => found.push(leftover),
            Some(leftover) => leftover.remove()?,
            None => quarantine(shared, &folder, name)?,
        }
    }
    found.sort_by_key(|leftover| leftover.header.first_audio_at);
    Ok(found)
}

/// `None` if its header is unreadable.
fn read(shared: &Arc<Shared>, folder: &Path) -> io::Result<Option<Leftover>> {
    let bytes = match fs::read(folder.join("header")) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let Some(header) = record::header_value(&bytes) else { return Ok(None) };
    let chunks = chunks(folder)?;
    let mut covered = 0;
    if let Some((newest, _)) = chunks.last() {
        let bytes = fs::read(newest)?;
        let mut rest = bytes.as_slice();
        while let Some((record, length)) = record::take(rest) {
            if let Record::Covered(until) = record {
                covered = covered.max(until);
            }
            rest = &rest[length..];
        }
    }
    let bytes = chunks.iter().map(|(_, bytes)| bytes).sum();
    Ok(Some(Leftover { shared: Arc::clone(shared), folder: folder.to_owned(), header, covered, bytes }))
}

fn quarantine(shared: &Shared, folder: &Path, name: &str) -> io::Result<()> {
    let chunks = chunks(folder)?;
    if chunks.is_empty() {
        // A crash between folder and header: there was no audio yet.
        return fs::remove_dir_all(folder);
    }
    let place = shared.folder.join(QUARANTINE);
    fs::create_dir_all(&place)?;
    let mut target = place.join(name);
    let mut number = 1;
    while target.exists() {
        target = place.join(format!("{name}.{number}"));
        number += 1;
    }
    fs::rename(folder, &target)?;
    shared.shrank(chunks.iter().map(|(_, bytes)| bytes).sum());
    metrics::counter!("auricle_spool_quarantined_total").increment(1);
    tracing::warn!(run = name, "a run of the spool has an unreadable header; it was moved into quarantine");
    Ok(())
}

impl Leftover {
    /// What the audio is, and whose.
    pub fn header(&self) -> &RunHeader {
        &self.header
    }

    /// Everything before this sample is covered already.
    pub fn covered(&self) -> u64 {
        self.covered
    }

    /// Bytes on disk, at least those of the uncovered frames.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn has_uncovered(&self) -> bool {
        self.frames().next().is_some()
    }

    /// The frames that are not covered, in order. Blocks on each chunk. A torn or unreadable record ends its chunk and is
    /// counted; an unreadable chunk is skipped and counted.
    pub fn frames(&self) -> impl Iterator<Item = SpooledFrame> + use<> {
        let chunks = chunks(&self.folder).unwrap_or_else(|_| {
            torn();
            Vec::new()
        });
        let covered = self.covered;
        chunks.into_iter().flat_map(move |(path, _)| match fs::read(&path) {
            Ok(bytes) => frames_of(&bytes, covered),
            Err(_) => {
                torn();
                Vec::new()
            }
        })
    }

    /// Everything before this sample has been put in; a later repair begins there.
    pub fn cover(&mut self, until_sample: u64) -> io::Result<()> {
        if until_sample <= self.covered {
            return Ok(());
        }
        let Some((newest, before)) = chunks(&self.folder)?.pop() else { return Ok(()) };
        let whole = whole_bytes(&fs::read(&newest)?);
        let mut file = fs::OpenOptions::new().append(true).open(&newest)?;
        let mut mark = Vec::new();
        record::put_covered(&mut mark, until_sample);
        // Behind a torn tail the mark would never be read.
        let done = file.set_len(whole).and_then(|()| file.write_all(&mark)).and_then(|()| file.sync_data());
        // Whatever came of it, the total is of what is there.
        let after = file.metadata().map_or(before, |file| file.len());
        self.shared.grew(after.saturating_sub(before));
        self.shared.shrank(before.saturating_sub(after));
        done?;
        self.covered = until_sample;
        Ok(())
    }

    /// How often somebody tried to transcribe it.
    pub fn attempts(&self) -> u32 {
        fs::read_to_string(self.folder.join("attempts"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    }

    /// Counts one more attempt, before it is made. Returns the new number.
    pub fn record_attempt(&self) -> io::Result<u32> {
        let attempts = self.attempts().saturating_add(1);
        let fresh = self.folder.join("attempts.new");
        fs::write(&fresh, attempts.to_string())?;
        fs::rename(fresh, self.folder.join("attempts"))?;
        Ok(attempts)
    }

    /// Deletes it: its words are stored, or its gap is marked.
    pub fn remove(self) -> io::Result<()> {
        let bytes = || chunks(&self.folder).map(|found| found.iter().map(|(_, bytes)| bytes).sum::<u64>());
        let before = bytes()?;
        let done = fs::remove_dir_all(&self.folder);
        self.shared.shrank(before.saturating_sub(if done.is_ok() { 0 } else { bytes().unwrap_or(before) }));
        done
    }
}

fn torn() {
    metrics::counter!("auricle_spool_torn_records_total").increment(1);
}

/// The length of the whole records at the start.
fn whole_bytes(bytes: &[u8]) -> u64 {
    let mut whole = 0;
    while let Some((_, length)) = record::take(&bytes[whole..]) {
        whole += length;
    }
    whole as u64
}

fn frames_of(bytes: &[u8], covered: u64) -> Vec<SpooledFrame> {
    let mut frames = Vec::new();
    let mut position = 0;
    let mut rest = bytes;
    while let Some((record, length)) = record::take(rest) {
        match record {
            Record::Position(at) => position = at,
            Record::Covered(_) => {}
            Record::Frame { samples, payload } => {
                let from = position;
                position += u64::from(samples);
                if position > covered {
                    frames.push(SpooledFrame { position: from, samples, bytes: payload.to_vec() });
                }
            }
        }
        rest = &rest[length..];
    }
    if !rest.is_empty() {
        torn();
    }
    frames
}
