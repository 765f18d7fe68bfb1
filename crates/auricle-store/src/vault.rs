//! Whole files of audio in the data folder, one folder for each user, sealed when there is a key.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0..8 | `AURVAULT` |
//! | 8 | 1: plain, 2: sealed |
//! | 9..17 | sealed: the key's id (8 hexadecimal digits), else zeros |
//! | 17..32 | zeros |
//! | 32.. | the bytes; sealed: pieces of 64 KiB, each sealed for its place, the last one as the last |
//!
//! A file is written under another name, synced, moved into place, and its folder synced: it is there whole or not at all.
//! Bounded: all files together have `bytes_max`; what does not fit is refused and leaves nothing. Everything here blocks.
//! Source of the manner: the spool, which does the same for audio that is still coming.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use auricle_core::{UploadId, UserId};
use sha2::{Digest, Sha256};

use crate::protect::{KeyId, Keyring, OVERHEAD_BYTES, Place, Sealer};
use crate::spool::Under;

const MAGIC: &[u8; 8] = b"AURVAULT";
const HEADER_BYTES: usize = 32;
const KEY_BYTES: usize = 8;
const PIECE_BYTES: usize = 64 * 1024;
/// Ending of what is not whole yet.
const DRAFT: &str = "part";

/// Why a file cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The bound is reached, or the disk is full. Nothing of the file is kept.
    #[error("no room for the file: {0}")]
    Full(String),
    /// It is longer than the caller takes.
    #[error("the file is longer than {0} bytes, which is the limit")]
    TooLong(u64),
    /// The system's words.
    #[error("write the file: {0}")]
    Io(io::Error),
}

impl From<io::Error> for VaultError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(error.to_string()),
            _ => Self::Io(error),
        }
    }
}

/// All files. Clones are the same vault.
#[derive(Clone, Debug)]
pub struct Vault {
    folder: PathBuf,
    ring: Keyring,
    bytes_max: u64,
    bytes: Arc<AtomicU64>,
    gauge: &'static str,
    /// Held while a file is replaced, and while files are deleted.
    turn: Arc<Mutex<()>>,
}

/// A file that is whole and on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Of what was written.
    pub sha256: [u8; 32],
    /// Of what was written.
    pub bytes: u64,
}

pub(crate) fn user_folder(user: &UserId) -> String {
    hex::encode(&Sha256::digest(user.as_str().as_bytes())[..16])
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl Vault {
    /// Opens the folder, or makes it, and removes what is not whole.
    pub fn open(folder: impl Into<PathBuf>, ring: Keyring, bytes_max: u64) -> io::Result<Self> {
        Self::within(folder.into(), ring, bytes_max, Arc::default(), "auricle_uploads_disk_bytes")
    }

    /// The same, which shares its bound with whatever else is counted in `bytes`, shown as `gauge`.
    pub(crate) fn within(
        folder: PathBuf,
        ring: Keyring,
        bytes_max: u64,
        bytes: Arc<AtomicU64>,
        gauge: &'static str,
    ) -> io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let vault = Self { folder, ring, bytes_max, bytes, gauge, turn: Arc::default() };
        let mut bytes = 0;
        for user in std::fs::read_dir(&vault.folder)? {
            let user = user?.path();
            if !user.is_dir() {
                continue;
            }
            for file in std::fs::read_dir(&user)? {
                let file = file?;
                if file.path().extension().is_some_and(|ending| ending == DRAFT) {
                    std::fs::remove_file(file.path())?;
                } else {
                    bytes += file.metadata()?.len();
                }
            }
        }
        vault.bytes.fetch_add(bytes, Ordering::Relaxed);
        vault.count();
        Ok(vault)
    }

    fn count(&self) {
        metrics::gauge!(self.gauge).set(self.bytes() as f64);
    }

    /// Bytes of all files on disk.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn path(&self, user: &UserId, id: &UploadId) -> PathBuf {
        // Ids are ours; one that is not cannot name another file.
        let name: String =
            id.as_str().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
        self.folder.join(user_folder(user)).join(name)
    }

    /// Begins a file of `user`, of `bytes_max` bytes at most.
    ///
    /// # Errors
    /// There is no room for any.
    pub fn create(&self, user: &UserId, id: &UploadId, bytes_max: u64) -> Result<Draft, VaultError> {
        if self.bytes() >= self.bytes_max {
            return Err(self.full());
        }
        let path = self.path(user, id);
        let folder = path.parent().unwrap_or(&self.folder).to_owned();
        if !folder.exists() {
            std::fs::create_dir_all(&folder)?;
            sync_folder(&self.folder)?;
        }
        let part = path.with_extension(DRAFT);
        let sealer = Some(self.ring.of(user)).filter(Sealer::is_on);
        let mut file = BufWriter::with_capacity(PIECE_BYTES, File::create_new(&part)?);
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        header[8] = if sealer.is_some() { 2 } else { 1 };
        if let Some(key) = self.ring.current() {
            header[9..9 + KEY_BYTES].copy_from_slice(key.to_string().as_bytes());
        }
        let mut draft = Draft {
            vault: self.clone(),
            path: Some(path),
            part,
            id: id.as_str().to_owned(),
            bytes_max,
            taken: 0,
            digest: Sha256::new(),
            bytes: 0,
            piece: Vec::new(),
            pieces: 0,
            sealer,
            file: None,
        };
        draft.take(HEADER_BYTES as u64)?;
        file.write_all(&header)?;
        draft.file = Some(file);
        Ok(draft)
    }

    fn full(&self) -> VaultError {
        VaultError::Full(format!(
            "uploads take {} bytes on disk, and {} is the limit (limits.uploads_disk_bytes_max); delete some, or wait until \
             they are transcribed",
            self.bytes(),
            self.bytes_max
        ))
    }

    /// Whether a file is there.
    pub fn has(&self, user: &UserId, id: &UploadId) -> bool {
        self.path(user, id).is_file()
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// It is not there, or not what was kept there.
    pub fn read(&self, user: &UserId, id: &UploadId) -> io::Result<VaultFile> {
        let mut file = File::open(self.path(user, id))?;
        let damaged = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        let mut header = [0; HEADER_BYTES];
        file.read_exact(&mut header)?;
        let body = file.metadata()?.len().saturating_sub(HEADER_BYTES as u64);
        let key = match (&header[..8] == MAGIC, header[8]) {
            (true, 1) => None,
            (true, 2) => {
                let key = std::str::from_utf8(&header[9..9 + KEY_BYTES]).ok().and_then(KeyId::parse);
                Some(key.ok_or_else(|| damaged("the file does not name its key"))?)
            }
            _ => return Err(damaged("the file is not of this version, or damaged")),
        };
        let (pieces, length) = match key {
            None => (body.div_ceil(PIECE_BYTES as u64), body),
            Some(_) => {
                let pieces = body.div_ceil((PIECE_BYTES + OVERHEAD_BYTES) as u64);
                (pieces, body.saturating_sub(pieces * OVERHEAD_BYTES as u64))
            }
        };
        Ok(VaultFile {
            file,
            id: id.as_str().to_owned(),
            key,
            sealer: self.ring.of(user),
            pieces,
            length,
            at: 0,
            loaded: None,
            piece: Vec::new(),
        })
    }

    /// Moves a file into another vault on the same disk, as it is. False if that has no room for it.
    pub(crate) fn hand_over(&self, user: &UserId, id: &UploadId, to: &Self) -> io::Result<bool> {
        let (from, target) = (self.path(user, id), to.path(user, id));
        let bytes = std::fs::metadata(&from)?.len();
        let more = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= to.bytes_max);
        if to.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            return Ok(false);
        }
        let folder = target.parent().unwrap_or(&to.folder);
        let moved = std::fs::create_dir_all(folder).and_then(|()| std::fs::rename(&from, &target));
        if let Err(error) = moved {
            to.give_back(bytes);
            return Err(error);
        }
        self.give_back(bytes);
        to.count();
        sync_folder(folder)?;
        Ok(true)
    }

    /// Removes a file. One that is not there is no error.
    pub fn remove(&self, user: &UserId, id: &UploadId) -> io::Result<()> {
        let _turn = self.turn();
        let path = self.path(user, id);
        let bytes = std::fs::metadata(&path).map_or(0, |found| found.len());
        absent_is_fine(std::fs::remove_file(path))?;
        self.give_back(bytes);
        Ok(())
    }

    /// Removes everything of a user.
    pub fn forget(&self, user: &UserId) -> io::Result<()> {
        let _turn = self.turn();
        let folder = self.folder.join(user_folder(user));
        let mut bytes = 0;
        if let Ok(files) = std::fs::read_dir(&folder) {
            bytes = files.flatten().filter_map(|file| file.metadata().ok()).map(|found| found.len()).sum();
        }
        absent_is_fine(std::fs::remove_dir_all(folder))?;
        self.give_back(bytes);
        Ok(())
    }

    /// Files that were kept at least `age` ago: what no row names may go.
    pub fn older_than(&self, age: Duration) -> io::Result<Vec<Stored>> {
        let mut found = Vec::new();
        for user in std::fs::read_dir(&self.folder)? {
            let user = user?.path();
            if !user.is_dir() {
                continue;
            }
            for file in std::fs::read_dir(user)? {
                let file = file?;
                let metadata = file.metadata()?;
                let old = metadata.modified()?.elapsed().is_ok_and(|since| since >= age);
                let Some(name) = file.file_name().to_str().map(str::to_owned) else { continue };
                if old && !name.contains('.') {
                    found.push(Stored { id: name.into(), path: file.path(), bytes: metadata.len() });
                }
            }
        }
        Ok(found)
    }

    /// Removes one of [`Self::older_than`].
    pub fn discard(&self, stored: &Stored) -> io::Result<()> {
        let _turn = self.turn();
        absent_is_fine(std::fs::remove_file(&stored.path))?;
        self.give_back(stored.bytes);
        Ok(())
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a file is under another key than the present one, and its own is there. `None`: that is not there, or the file is
    /// damaged.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn is_due(&self, stored: &Stored) -> io::Result<Option<bool>> {
        let mut head = Vec::new();
        match File::open(&stored.path) {
            Ok(file) => file.take(HEADER_BYTES as u64).read_to_end(&mut head)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(false)),
            Err(error) => return Err(error),
        };
        Ok(match under(&head) {
            Under::Nothing => None,
            Under::Plain => Some(self.ring.current().is_some()),
            Under::Key(key) if Some(key) == self.ring.current() => Some(false),
            Under::Key(key) => self.ring.known().contains(&key).then_some(true),
        })
    }

    /// Begins to write a file anew, under the present key. `None` if it is gone.
    ///
    /// # Errors
    /// The disk refuses, or the file is not what was kept there.
    pub fn reseal(&self, user: &UserId, id: &UploadId) -> Result<Option<Resealing>, VaultError> {
        let _turn = self.turn();
        if !self.has(user, id) {
            return Ok(None);
        }
        let from = self.read(user, id)?;
        // What is there already has its place, at the bound too.
        let to = Self { bytes_max: u64::MAX, ..self.clone() }.create(user, id, u64::MAX)?;
        Ok(Some(Resealing { from, to: Some(to) }))
    }

    fn give_back(&self, bytes: u64) {
        let less = |held: u64| Some(held.saturating_sub(bytes));
        let _ = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.count();
    }
}

/// A file that is there.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its name.
    pub id: UploadId,
    path: PathBuf,
    bytes: u64,
}

impl Stored {
    /// How long ago it came; zero if that cannot be told.
    pub fn age(&self) -> Duration {
        let came = std::fs::metadata(&self.path).and_then(|found| found.modified());
        came.ok().and_then(|came| came.elapsed().ok()).unwrap_or_default()
    }
}

/// Under which key a file with this beginning is.
pub(crate) fn under(head: &[u8]) -> Under {
    match (head.get(..8) == Some(MAGIC), head.get(8)) {
        (true, Some(1)) => Under::Plain,
        (true, Some(2)) => {
            let key = head.get(9..9 + KEY_BYTES).and_then(|key| std::str::from_utf8(key).ok());
            key.and_then(KeyId::parse).map_or(Under::Nothing, Under::Key)
        }
        _ => Under::Nothing,
    }
}

/// A file that is being written anew. Dropped before its end, the old one stays.
pub struct Resealing {
    from: VaultFile,
    to: Option<Draft>,
}

impl Resealing {
    /// Copies some `bytes` of it. True at the end: the new one is in its place, or the old one was deleted meanwhile.
    ///
    /// # Errors
    /// A piece does not open, or the disk refuses. Drop it; the old file is as it was.
    pub fn step(&mut self, bytes: u64) -> Result<bool, VaultError> {
        let Some(to) = &mut self.to else { return Ok(true) };
        let mut piece = vec![0; PIECE_BYTES];
        let mut copied = 0;
        while copied < bytes {
            let read = self.from.read(&mut piece)?;
            if read == 0 {
                return self.to.take().map_or(Ok(true), |to| to.replace().map(|()| true));
            }
            to.write(&piece[..read])?;
            copied += read as u64;
        }
        Ok(false)
    }
}

/// A file that is being written. Dropped before [`Draft::keep`], it leaves nothing.
pub struct Draft {
    vault: Vault,
    /// `None` once it is kept.
    path: Option<PathBuf>,
    part: PathBuf,
    id: String,
    bytes_max: u64,
    /// Bytes on disk.
    taken: u64,
    digest: Sha256,
    bytes: u64,
    piece: Vec<u8>,
    pieces: u64,
    sealer: Option<Sealer>,
    file: Option<BufWriter<File>>,
}

impl Draft {
    /// Takes room before it is used.
    fn take(&mut self, bytes: u64) -> Result<(), VaultError> {
        let most = self.vault.bytes_max;
        let more = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= most);
        let taken = self.vault.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map_err(|_| self.vault.full())?;
        self.taken += bytes;
        Ok(())
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// There is no room for them, or they are too many. Drop the draft.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), VaultError> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(VaultError::TooLong(self.bytes_max));
        }
        self.digest.update(bytes);
        self.piece.extend_from_slice(bytes);
        // The last piece is only known by the end.
        while self.piece.len() > PIECE_BYTES {
            let rest = self.piece.split_off(PIECE_BYTES);
            let piece = std::mem::replace(&mut self.piece, rest);
            self.put(&piece, false)?;
        }
        Ok(())
    }

    fn put(&mut self, piece: &[u8], last: bool) -> Result<(), VaultError> {
        let sealed = match &self.sealer {
            Some(sealer) => {
                let index = self.pieces.to_string();
                let row = [self.id.as_str(), &index, if last { "last" } else { "more" }];
                sealer.seal_audio(Place::new("vault", "piece", &row), piece).map(|(_, sealed)| sealed)
            }
            None => None,
        };
        self.pieces += 1;
        let bytes = sealed.as_deref().unwrap_or(piece);
        self.take(bytes.len() as u64)?;
        if let Some(file) = &mut self.file {
            file.write_all(bytes)?;
        }
        Ok(())
    }

    /// Writes out what is still in memory.
    fn write_out(&mut self, modified: Option<SystemTime>) -> Result<(), VaultError> {
        let piece = std::mem::take(&mut self.piece);
        if !piece.is_empty() {
            self.put(&piece, true)?;
        }
        if let Some(file) = self.file.take() {
            let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            if let Some(modified) = modified {
                file.set_modified(modified)?;
            }
            file.sync_all()?;
        }
        Ok(())
    }

    fn put_in_place(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            std::fs::rename(&self.part, path)?;
            sync_folder(path.parent().unwrap_or(&self.vault.folder))?;
        }
        self.path = None;
        self.vault.count();
        Ok(())
    }

    /// Makes it durable, in the place of the one that is there, as old as that is. Leaves nothing if that is gone.
    fn replace(mut self) -> Result<(), VaultError> {
        let vault = self.vault.clone();
        let there = |draft: &Self| draft.path.as_ref().and_then(|path| std::fs::metadata(path).ok());
        let Some(before) = there(&self) else { return Ok(()) };
        self.write_out(Some(before.modified()?))?;
        let _turn = vault.turn();
        if there(&self).is_some() {
            self.put_in_place()?;
            vault.give_back(before.len());
        }
        Ok(())
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// The disk refused; nothing of it is kept.
    pub fn keep(mut self) -> Result<Kept, VaultError> {
        self.write_out(None)?;
        self.put_in_place()?;
        Ok(Kept { sha256: std::mem::take(&mut self.digest).finalize().into(), bytes: self.bytes })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.path.is_some() {
            let _ = std::fs::remove_file(&self.part);
            self.vault.give_back(self.taken);
        }
    }
}

/// A file as it was written.
pub struct VaultFile {
    file: File,
    id: String,
    key: Option<KeyId>,
    sealer: Sealer,
    pieces: u64,
    length: u64,
    at: u64,
    loaded: Option<u64>,
    piece: Vec<u8>,
}

impl VaultFile {
    /// Bytes in all.
    pub fn length(&self) -> u64 {
        self.length
    }

    fn load(&mut self, index: u64) -> io::Result<()> {
        let stored = match self.key {
            Some(_) => PIECE_BYTES + OVERHEAD_BYTES,
            None => PIECE_BYTES,
        };
        self.loaded = None;
        self.file.seek(SeekFrom::Start(HEADER_BYTES as u64 + index * stored as u64))?;
        let mut bytes = Vec::new();
        (&mut self.file).take(stored as u64).read_to_end(&mut bytes)?;
        self.piece = match self.key {
            None => bytes,
            Some(key) => {
                let number = index.to_string();
                let last = if index + 1 == self.pieces { "last" } else { "more" };
                let row = [self.id.as_str(), &number, last];
                let opened = self.sealer.open_audio(Place::new("vault", "piece", &row), key, &bytes);
                opened.ok_or_else(|| {
                    io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("it cannot be opened: it is damaged, or its key {key} is not there"),
                    )
                })?
            }
        };
        self.loaded = Some(index);
        Ok(())
    }
}

impl Read for VaultFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.length || buffer.is_empty() {
            return Ok(0);
        }
        let index = self.at / PIECE_BYTES as u64;
        if self.loaded != Some(index) {
            self.load(index)?;
        }
        let from = (self.at % PIECE_BYTES as u64) as usize;
        let rest = self.piece.get(from..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for VaultFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = to.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "before the beginning"))?;
        Ok(self.at)
    }
}
