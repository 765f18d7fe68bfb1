//! Runs that a crash or an abandoned session left: what repair reads.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use auricle_core::UserId;

use super::record::{self, Header, Record};
use super::run::on_their_way;
use super::{RunHeader, Shared, lock};
use crate::protect::{KeyId, Keyring, Place, Sealer};

/// Where unreadable runs go.
const QUARANTINE: &str = "quarantine";
/// Where runs wait for a key that is not there.
const LOCKED: &str = "locked";

/// A run's files, which nobody writes any more.
pub struct StoredRun {
    folder: PathBuf,
    header: RunHeader,
    covered: u64,
    bytes: u64,
    sealer: Arc<Sealer>,
}

/// Keeps a run out of [`Spool::leftovers`](super::Spool::leftovers).
struct Claim {
    shared: Arc<Shared>,
    name: String,
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.shared.claimed).remove(&self.name);
    }
}

/// A run that is to be heard.
pub struct Leftover {
    shared: Arc<Shared>,
    run: StoredRun,
    claim: Option<Claim>,
}

impl Deref for Leftover {
    type Target = StoredRun;

    fn deref(&self) -> &StoredRun {
        &self.run
    }
}

impl AsRef<StoredRun> for Leftover {
    fn as_ref(&self) -> &StoredRun {
        &self.run
    }
}

impl AsRef<StoredRun> for StoredRun {
    fn as_ref(&self) -> &StoredRun {
        self
    }
}

/// One frame as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpooledFrame {
    /// Samples from the run's first audio; a hole means audio that was not spooled.
    pub position: u64,
    /// Decoded length. 0: no audio, but where what is this run's ends (see [`RunWriter::yields_from`](super::RunWriter::yields_from)).
    pub samples: u32,
    pub bytes: Vec<u8>,
}

/// The size of all chunks, for the bound on the total.
pub(super) fn bytes_on_disk(folder: &Path) -> io::Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != QUARANTINE && name != LOCKED) {
            total += chunks(&path)?.iter().map(|(_, bytes)| bytes).sum::<u64>();
        }
    }
    Ok(total)
}

/// A run's chunk files with their sizes, in order.
pub(crate) fn chunks(folder: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
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
    unlock(shared)?;
    let mut found = Vec::new();
    // What is live now is not found, even if it is closed while the folder is read: others that were left with it may not be yet.
    let (live, on_their_way): (HashSet<String>, _) = {
        let live = lock(&shared.live);
        (live.keys().cloned().collect(), on_their_way(&live))
    };
    let is_held = |name: &str| {
        live.contains(name) || lock(&shared.live).contains_key(name) || lock(&shared.claimed).contains(name)
    };
    for entry in fs::read_dir(&shared.folder)? {
        let folder = entry?.path();
        let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { continue };
        if name == QUARANTINE || name == LOCKED || !folder.is_dir() || is_held(name) {
            continue;
        }
        match header(shared, &folder, name)? {
            Some(Header::Known(header)) if on_their_way.contains(&header.conversation) => {}
            Some(Header::Known(header)) => {
                let leftover = read(shared, &folder, header)?;
                if leftover.has_uncovered() { found.push(leftover) } else { leftover.release()? }
            }
            Some(Header::Locked(key)) => lock_away(shared, &folder, name, key)?,
            None => quarantine(shared, &folder, name)?,
        }
    }
    found.sort_by_key(|leftover| leftover.header().first_audio_at);
    Ok(found)
}

/// `None` if it is unreadable.
fn header(shared: &Shared, folder: &Path, name: &str) -> io::Result<Option<Header>> {
    let bytes = match fs::read(folder.join("header")) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(record::header_value(&bytes, name, &shared.options.ring))
}

fn read(shared: &Arc<Shared>, folder: &Path, header: RunHeader) -> io::Result<Leftover> {
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
    let sealer = Arc::new(shared.options.ring.of(&header.user));
    let run = StoredRun { folder: folder.to_owned(), header, covered, bytes, sealer };
    Ok(Leftover { shared: Arc::clone(shared), run, claim: None })
}

fn quarantine(shared: &Shared, folder: &Path, name: &str) -> io::Result<()> {
    let chunks = chunks(folder)?;
    if chunks.is_empty() {
        // A crash between folder and header: there was no audio yet.
        return fs::remove_dir_all(folder);
    }
    put_aside(shared, folder, name, QUARANTINE)?;
    shared.shrank(chunks.iter().map(|(_, bytes)| bytes).sum());
    metrics::counter!("auricle_spool_quarantined_total").increment(1);
    tracing::warn!(run = name, "a run of the spool has an unreadable header; it was moved into quarantine");
    Ok(())
}

/// Moves a run's folder into `place`, untouched.
fn put_aside(shared: &Shared, folder: &Path, name: &str, place: &str) -> io::Result<()> {
    let place = shared.folder.join(place);
    fs::create_dir_all(&place)?;
    let mut target = place.join(name);
    let mut number = 1;
    while target.exists() {
        target = place.join(format!("{name}.{number}"));
        number += 1;
    }
    fs::rename(folder, &target)
}

fn lock_away(shared: &Shared, folder: &Path, name: &str, key: KeyId) -> io::Result<()> {
    let bytes = chunks(folder)?.iter().map(|(_, bytes)| bytes).sum();
    put_aside(shared, folder, name, LOCKED)?;
    shared.shrank(bytes);
    metrics::counter!("auricle_spool_locked_total").increment(1);
    tracing::error!(
        run = name,
        %key,
        "a run of the spool is sealed under a key that is not configured; it waits in `locked` until the key is back \
         (protection.old_key_files)"
    );
    Ok(())
}

pub(super) fn forget(shared: &Shared, user: &UserId) -> io::Result<usize> {
    let mut removed = 0;
    let homes = [
        (shared.folder.clone(), true),
        (shared.folder.join(QUARANTINE), false),
        (shared.folder.join(LOCKED), false),
    ];
    for (home, counted) in homes {
        if !home.exists() {
            continue;
        }
        for entry in fs::read_dir(&home)? {
            let folder = entry?.path();
            let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { continue };
            let live =
                counted && (name == QUARANTINE || name == LOCKED || lock(&shared.live).contains_key(name));
            if live || !folder.is_dir() {
                continue;
            }
            let whose = match fs::read(folder.join("header")) {
                Ok(bytes) => record::header_user(&bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            if whose.as_ref() == Some(user) {
                let bytes = chunks(&folder)?.iter().map(|(_, bytes)| bytes).sum();
                fs::remove_dir_all(&folder)?;
                shared.shrank(if counted { bytes } else { 0 });
                removed += 1;
            }
        }
    }
    Ok(removed)
}

/// Takes back the runs whose key is there again.
fn unlock(shared: &Shared) -> io::Result<()> {
    let place = shared.folder.join(LOCKED);
    if shared.options.ring.is_empty() || !place.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(&place)? {
        let folder = entry?.path();
        let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { continue };
        let home = shared.folder.join(name);
        if matches!(header(shared, &folder, name)?, Some(Header::Known(_))) && !home.exists() {
            let bytes = chunks(&folder)?.iter().map(|(_, bytes)| bytes).sum();
            fs::rename(&folder, &home)?;
            shared.grew(bytes);
            tracing::info!(run = name, "the key of a run of the spool is back");
        }
    }
    Ok(())
}

/// A file of the run in `folder` under the present key, and whether all of it is; `None` if it does not open.
pub(crate) fn reseal(
    folder: &Path,
    path: &Path,
    bytes: &[u8],
    ring: &Keyring,
) -> io::Result<Option<(Vec<u8>, bool)>> {
    let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { return Ok(None) };
    let header_path = folder.join("header");
    let Some(Header::Known(header)) = record::header_value(&fs::read(&header_path)?, name, ring) else {
        return Ok(None);
    };
    let sealer = ring.of(&header.user);
    Ok(Some(match path == header_path {
        true => (record::header_bytes(&header, name, &sealer), true),
        false => record::resealed(bytes, &sealer, ring.current(), &header.run),
    }))
}

impl StoredRun {
    /// Every frame of a run in this folder; `None` if there is no readable header, an error if its key is not there.
    pub(crate) fn whole(folder: &Path, name: &str, ring: &Keyring) -> io::Result<Option<Self>> {
        let bytes = match fs::read(folder.join("header")) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let header = match record::header_value(&bytes, name, ring) {
            Some(Header::Known(header)) => header,
            Some(Header::Locked(key)) => return Err(io::Error::other(crate::protect::missing(key))),
            None => return Ok(None),
        };
        let bytes = chunks(folder)?.iter().map(|(_, bytes)| bytes).sum();
        let sealer = Arc::new(ring.of(&header.user));
        Ok(Some(Self { folder: folder.to_owned(), header, covered: 0, bytes, sealer }))
    }

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
        self.frames().any(|frame| frame.samples > 0)
    }

    /// The frames that are not covered, in order. Blocks on each chunk. A torn or unreadable record ends its chunk and is
    /// counted; an unreadable chunk is skipped and counted.
    pub fn frames(&self) -> impl Iterator<Item = SpooledFrame> + use<> {
        let chunks = chunks(&self.folder).unwrap_or_else(|_| {
            torn();
            Vec::new()
        });
        let (covered, sealer, run) = (self.covered, Arc::clone(&self.sealer), self.header.run.clone());
        chunks.into_iter().flat_map(move |(path, _)| match fs::read(&path) {
            Ok(bytes) => frames_of(&bytes, covered, &sealer, &run),
            Err(_) => {
                torn();
                Vec::new()
            }
        })
    }
}

impl Leftover {
    /// Keeps it out of [`Spool::leftovers`](super::Spool::leftovers) until it is dropped.
    pub fn claim(&mut self) {
        let Some(name) = self.folder.file_name().and_then(|name| name.to_str()) else { return };
        lock(&self.shared.claimed).insert(name.to_owned());
        self.claim = Some(Claim { shared: Arc::clone(&self.shared), name: name.to_owned() });
    }

    /// Everything before this sample has been put in; a later repair begins there.
    pub fn cover(&mut self, until_sample: u64) -> io::Result<()> {
        if until_sample <= self.run.covered {
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
        self.run.covered = until_sample;
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

    /// Lets it go: its words are stored, or its gap is marked. Where audio is kept it goes there.
    pub fn release(self) -> io::Result<()> {
        if let Some(kept) = &self.shared.options.kept {
            for (chunk, bytes) in chunks(&self.folder)? {
                if kept.adopt(&self.header, &self.folder, &chunk, bytes) {
                    self.shared.shrank(bytes);
                }
            }
        }
        self.remove()
    }

    /// Deletes it, for good.
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

fn frames_of(bytes: &[u8], covered: u64, sealer: &Sealer, run: &str) -> Vec<SpooledFrame> {
    let mut frames = Vec::new();
    let mut position = 0;
    let mut rest = bytes;
    while let Some((record, length)) = record::take(rest) {
        match record {
            Record::Position(at) => position = at,
            Record::Covered(_) => {}
            Record::Sealed { key, sealed } => {
                match sealer.open_audio(Place::new("spool", "record", &[run]), key, sealed) {
                    Some(records) => frames.extend(frames_of(&records, covered, sealer, run)),
                    // Each begins with its own position: what follows is still right.
                    None => torn(),
                }
            }
            Record::Frame { samples, payload } => {
                let from = position;
                position += u64::from(samples);
                if position > covered || samples == 0 {
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
