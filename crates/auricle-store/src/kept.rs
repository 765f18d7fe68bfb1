//! Audio that is kept: runs of the spool and uploaded files, once their words are stored, by conversation.
//!
//! `runs/USER/CONVERSATION/RUN/` holds a run as the spool had it: its header and its chunks, sealed as they were, with their names.
//! `uploads/USER/ID` is a [`Vault`]. USER is a digest, as in the vault.
//! Everything comes here by being renamed within one disk, a chunk at a time: after `kill -9` each chunk is in one of both places,
//! and what is still in the spool follows at the next start. Bounded: all of it together has `bytes_max`; what does not fit, or what
//! the disk refuses, is not kept and is counted, and whoever records does not notice. Everything here blocks.
//! After a rotation files are brought to the new key ([`resealing`]).
//! Leaves to others: what is too old, and whose conversation is gone (it lists, and deletes what it is told to).

mod resealing;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use auricle_core::{ConversationId, UploadId, UserId};

pub use self::resealing::Resealed;
use crate::protect::Keyring;
use crate::spool::{RunHeader, StoredRun, chunks};
use crate::vault::{Vault, user_folder};

/// Bytes of an id that can name a folder.
const ID_BYTES_MAX: usize = 100;

/// Why a chunk is not kept.
#[derive(Clone, Copy)]
enum Refused {
    Full,
    Disk,
}

struct Shared {
    folder: PathBuf,
    ring: Keyring,
    bytes_max: u64,
    bytes: Arc<AtomicU64>,
    uploads: Vault,
    /// Held while a file is replaced, and while files are deleted.
    turn: Mutex<()>,
}

/// All kept audio. Clones are the same.
#[derive(Clone)]
pub struct KeptAudio(Arc<Shared>);

impl std::fmt::Debug for KeptAudio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeptAudio").field("folder", &self.0.folder).finish_non_exhaustive()
    }
}

/// A conversation's folder.
#[derive(Clone, Debug)]
pub struct KeptConversation {
    pub conversation: ConversationId,
    /// When audio came last.
    pub newest: SystemTime,
    folder: PathBuf,
}

/// A folder's name, which tells the id; `None` for an id that none can have.
fn folder_name(id: &ConversationId) -> Option<String> {
    let id = id.as_str();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    match id.len() {
        1..=ID_BYTES_MAX if id.bytes().all(plain) => Some(format!("c-{id}")),
        1..=ID_BYTES_MAX => Some(format!("x-{}", hex::encode(id))),
        _ => None,
    }
}

fn conversation_of(name: &str) -> Option<ConversationId> {
    match name.split_once('-')? {
        ("c", id) => Some(id.into()),
        ("x", id) => Some(String::from_utf8(hex::decode(id).ok()?).ok()?.into()),
        _ => None,
    }
}

/// The folders in a folder; none if it is not there.
fn folders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

impl KeptAudio {
    /// Opens the folder, or makes it, and counts what is in it.
    pub fn open(folder: impl Into<PathBuf>, ring: Keyring, bytes_max: u64) -> io::Result<Self> {
        let folder = folder.into();
        let runs = folder.join("runs");
        fs::create_dir_all(&runs)?;
        let bytes: Arc<AtomicU64> = Arc::default();
        for user in folders(&runs)? {
            for conversation in folders(&user)? {
                bytes.fetch_add(size(&conversation)?, Ordering::Relaxed);
            }
        }
        let gauge = "auricle_audio_kept_bytes";
        let uploads =
            Vault::within(folder.join("uploads"), ring.clone(), bytes_max, Arc::clone(&bytes), gauge)?;
        Ok(Self(Arc::new(Shared { folder, ring, bytes_max, bytes, uploads, turn: Mutex::default() })))
    }

    /// Bytes of all kept audio.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Uploaded files that are kept.
    pub fn uploads(&self) -> &Vault {
        &self.0.uploads
    }

    fn user(&self, user: &UserId) -> PathBuf {
        self.0.folder.join("runs").join(user_folder(user))
    }

    fn of(&self, user: &UserId, conversation: &ConversationId) -> Option<PathBuf> {
        Some(self.user(user).join(folder_name(conversation)?))
    }

    /// Moves a chunk of the run in the folder `from` here. False if it is not kept, which is counted: it is where it was.
    pub(crate) fn adopt(&self, header: &RunHeader, from: &Path, chunk: &Path, bytes: u64) -> bool {
        match self.take(header, from, chunk, bytes) {
            Ok(()) => {
                metrics::counter!("auricle_audio_kept_bytes_total").increment(bytes);
                true
            }
            Err(refused) => {
                let reason = match refused {
                    Refused::Full => "full",
                    Refused::Disk => "disk",
                };
                metrics::counter!("auricle_audio_not_kept_bytes_total", "reason" => reason).increment(bytes);
                false
            }
        }
    }

    fn take(&self, header: &RunHeader, from: &Path, chunk: &Path, bytes: u64) -> Result<(), Refused> {
        let folder = self.of(&header.user, &header.conversation).ok_or(Refused::Disk)?;
        let folder = folder.join(from.file_name().ok_or(Refused::Disk)?);
        let more = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= self.0.bytes_max);
        let taken = self.0.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map_err(|_| Refused::Full)?;
        let moved = || {
            fs::create_dir_all(&folder)?;
            let known = folder.join("header");
            if !known.exists() {
                // Not linked: a file is in one place. Whole or not at all.
                let draft = folder.join("header.new");
                fs::copy(from.join("header"), &draft)?;
                fs::rename(draft, known)?;
            }
            fs::rename(chunk, folder.join(chunk.file_name().unwrap_or_default()))
        };
        let moved: io::Result<()> = moved();
        if let Err(error) = moved {
            tracing::debug!(%error, "audio could not be kept");
            self.give_back(bytes);
            return Err(Refused::Disk);
        }
        self.count();
        Ok(())
    }

    /// Moves an upload's file here from where it was taken. False if it is not kept, which is counted: it is where it was.
    pub fn adopt_upload(&self, from: &Vault, user: &UserId, id: &UploadId) -> bool {
        match from.hand_over(user, id, &self.0.uploads) {
            Ok(true) => true,
            done => {
                let reason = if done.is_ok() { "full" } else { "disk" };
                if let Err(error) = done {
                    tracing::debug!(%error, "a file could not be kept");
                }
                metrics::counter!("auricle_audio_files_not_kept_total", "reason" => reason).increment(1);
                false
            }
        }
    }

    /// A conversation's runs, the oldest first.
    ///
    /// # Errors
    /// A folder that cannot be read, or a key that is not there.
    pub fn runs(&self, user: &UserId, conversation: &ConversationId) -> io::Result<Vec<StoredRun>> {
        let Some(folder) = self.of(user, conversation) else { return Ok(Vec::new()) };
        let mut runs = Vec::new();
        for folder in folders(&folder)? {
            let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { continue };
            match StoredRun::whole(&folder, name, &self.0.ring)? {
                Some(run) if run.header().user == *user && run.header().conversation == *conversation => {
                    runs.push(run);
                }
                _ => {
                    metrics::counter!("auricle_audio_unreadable_runs_total").increment(1);
                    tracing::warn!(run = name, "kept audio of a run cannot be read: its header is damaged");
                }
            }
        }
        runs.sort_by_key(|run| run.header().first_audio_at);
        Ok(runs)
    }

    /// Bytes of a conversation's runs.
    pub fn bytes_of(&self, user: &UserId, conversation: &ConversationId) -> io::Result<u64> {
        self.of(user, conversation).map_or(Ok(0), |folder| size(&folder))
    }

    /// Deletes a conversation's runs.
    pub fn forget(&self, user: &UserId, conversation: &ConversationId) -> io::Result<()> {
        self.of(user, conversation).map_or(Ok(()), |folder| self.remove(&folder))
    }

    /// Deletes all of a user's audio.
    pub fn forget_user(&self, user: &UserId) -> io::Result<()> {
        self.0.uploads.forget(user)?;
        for conversation in folders(&self.user(user))? {
            self.remove(&conversation)?;
        }
        match fs::remove_dir(self.user(user)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Every conversation that audio is kept of, whosever.
    pub fn conversations(&self) -> io::Result<Vec<KeptConversation>> {
        let mut found = Vec::new();
        for user in folders(&self.0.folder.join("runs"))? {
            for folder in folders(&user)? {
                let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let Some(conversation) = conversation_of(name) else { continue };
                let mut newest = SystemTime::UNIX_EPOCH;
                for run in folders(&folder)? {
                    for (chunk, _) in chunks(&run)? {
                        newest = newest.max(fs::metadata(chunk)?.modified()?);
                    }
                }
                found.push(KeptConversation { conversation, newest, folder });
            }
        }
        Ok(found)
    }

    /// Deletes one of [`Self::conversations`].
    pub fn discard(&self, kept: &KeptConversation) -> io::Result<()> {
        self.remove(&kept.folder)
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.0.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, folder: &Path) -> io::Result<()> {
        let _turn = self.turn();
        let bytes = size(folder)?;
        let done = match fs::remove_dir_all(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        };
        let left = if done.is_ok() { 0 } else { size(folder).unwrap_or(bytes) };
        self.give_back(bytes.saturating_sub(left));
        done
    }

    /// A chunk of `before` bytes has `after` now. What is there already has its place, at the bound too.
    fn resized(&self, before: u64, after: u64) {
        self.0.bytes.fetch_add(after, Ordering::Relaxed);
        self.give_back(before);
    }

    fn give_back(&self, bytes: u64) {
        let less = |held: u64| Some(held.saturating_sub(bytes));
        let _ = self.0.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.count();
    }

    fn count(&self) {
        metrics::gauge!("auricle_audio_kept_bytes").set(self.bytes() as f64);
    }
}

impl KeptConversation {
    /// How long ago audio came last; zero if that is to come.
    pub fn age(&self) -> Duration {
        self.newest.elapsed().unwrap_or_default()
    }
}

/// Bytes of the chunks of a conversation's runs.
fn size(conversation: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for run in folders(conversation)? {
        bytes += chunks(&run)?.iter().map(|(_, bytes)| bytes).sum::<u64>();
    }
    Ok(bytes)
}
