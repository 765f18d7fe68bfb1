//! Brings kept audio to the present key: a pass through all of it, a megabyte at a time, which may be dropped anywhere and begun again.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use auricle_core::{Limits, UploadId, UserId};
use auricle_store::kept::{KeptAudio, KeptConversation};
use auricle_store::vault::{Resealing, Stored, VaultError};
use auricle_store::{Store, StoreError};

use crate::clock::monotonic;
use crate::keeper::blocking;
use crate::vitals::Pulse;

/// Bytes that one step reads; a chunk of a run is read whole.
const STEP_BYTES: u64 = 1024 * 1024;
/// Ids of one question to the store.
const ASKED_AT_ONCE: usize = 500;

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AudioSealing {
    /// Of conversations and files, 0 to 1.
    pub share: f64,
    /// All of it was looked at.
    pub done: bool,
    /// Files that were brought to the present key.
    pub resealed: u64,
    /// Files that do not open, or whose key is not there. They are as they were.
    pub left: u64,
}

/// Why a step failed. The pass goes on behind what it was about.
#[derive(Debug, thiserror::Error)]
pub enum AudioPassError {
    /// The system's words.
    #[error("kept audio: {0}")]
    Io(#[from] std::io::Error),
    /// The system's words, about a file.
    #[error("kept audio: {0}")]
    File(#[from] VaultError),
    /// Whose files they are could not be asked.
    #[error("ask the store: {0}")]
    Store(#[from] StoreError),
}

/// One look through all kept audio.
pub struct AudioPass {
    kept: KeptAudio,
    conversations: VecDeque<KeptConversation>,
    files: VecDeque<(UserId, UploadId)>,
    /// Of the conversation at the front: what did not open.
    left: Vec<PathBuf>,
    /// The file that is being written anew.
    under_way: Option<Resealing>,
    total: usize,
    now: AudioSealing,
}

impl AudioPass {
    /// Lists what there is.
    ///
    /// # Errors
    /// The folder cannot be read, or the store does not answer.
    pub async fn begin(kept: KeptAudio, store: &dyn Store) -> Result<Self, AudioPassError> {
        let ours = kept.clone();
        let (conversations, due, left) = blocking(move || {
            let (mut due, mut left) = (Vec::new(), 0);
            for file in ours.uploads().older_than(Duration::ZERO)? {
                match ours.uploads().is_due(&file)? {
                    Some(true) => due.push(file),
                    Some(false) => {}
                    None => left += 1,
                }
            }
            Ok((ours.conversations()?, due, left))
        })
        .await?;
        let mut files = VecDeque::new();
        for some in due.chunks(ASKED_AT_ONCE) {
            let ids = some.iter().map(|Stored { id, .. }| id.clone()).collect();
            let users: HashMap<_, _> =
                store.upload_fates(ids).await?.into_iter().map(|fate| (fate.id, fate.user)).collect();
            // One of nobody is about to be removed.
            files
                .extend(some.iter().filter_map(|file| Some((users.get(&file.id)?.clone(), file.id.clone()))));
        }
        let now = AudioSealing { left, ..AudioSealing::default() };
        let total = conversations.len() + files.len();
        let conversations = conversations.into();
        Ok(Self { kept, conversations, files, left: Vec::new(), under_way: None, total, now })
    }

    /// Brings some of it to the present key. May be dropped; what was not finished is as it was.
    ///
    /// # Errors
    /// One conversation's audio, or one file. The next step goes on behind it.
    pub async fn step(&mut self) -> Result<AudioSealing, AudioPassError> {
        if let Some(conversation) = self.conversations.pop_front() {
            self.conversation(conversation).await?;
        } else if let Some((user, id)) = self.files.pop_front() {
            self.file(user, id).await?;
        }
        let waiting = self.conversations.len() + self.files.len();
        self.now.done = waiting == 0;
        self.now.share = match self.total {
            0 => 1.0,
            total => 1.0 - waiting as f64 / total as f64,
        };
        Ok(self.now)
    }

    async fn conversation(&mut self, conversation: KeptConversation) -> Result<(), AudioPassError> {
        let (kept, mut left) = (self.kept.clone(), std::mem::take(&mut self.left));
        let (done, conversation, left) = blocking(move || {
            let done = kept.reseal(&conversation, STEP_BYTES, &mut left)?;
            Ok((done, conversation, left))
        })
        .await?;
        self.now.resealed += done.files;
        self.now.left += done.left;
        if done.more {
            self.left = left;
            self.conversations.push_front(conversation);
        }
        Ok(())
    }

    async fn file(&mut self, user: UserId, id: UploadId) -> Result<(), AudioPassError> {
        let (kept, under_way) = (self.kept.clone(), self.under_way.take());
        let (of, name) = (user.clone(), id.clone());
        let step = tokio::task::spawn_blocking(move || {
            let under_way = match under_way {
                Some(under_way) => Some(under_way),
                None => kept.uploads().reseal(&of, &name)?,
            };
            let Some(mut under_way) = under_way else { return Ok((None, false)) };
            let over = under_way.step(STEP_BYTES)?;
            Ok::<_, VaultError>(((!over).then_some(under_way), over))
        });
        match step.await.map_err(std::io::Error::other)? {
            Ok((None, over)) => self.now.resealed += u64::from(over),
            Ok((under_way, _)) => {
                self.under_way = under_way;
                self.files.push_front((user, id));
            }
            Err(VaultError::Io(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                self.now.left += 1;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// What looks through it while a server runs.
pub(crate) struct AudioProtector {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) kept: KeptAudio,
    pub(crate) limits: Arc<Limits>,
}

impl AudioProtector {
    /// Runs for ever; may be dropped at any await. Audio can come under an old key after a pass: what waited in the spool, and
    /// files that waited to be transcribed. So there is another one with each look through kept audio.
    pub(crate) async fn run(self: Arc<Self>, pulse: Arc<Pulse>) {
        loop {
            pulse.beat(monotonic());
            match self.pass(&pulse).await {
                Ok(now) if now.left > 0 => tracing::warn!(
                    resealed = now.resealed,
                    files = now.left,
                    "kept audio could not be brought to the present key: it is damaged, or its key is not in protection.old_key_files"
                ),
                Ok(now) if now.resealed > 0 => {
                    tracing::info!(files = now.resealed, "kept audio is under the present key");
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "look through kept audio for old keys"),
            }
            pulse.rest(self.limits.audio_sweep_every).await;
        }
    }

    async fn pass(&self, pulse: &Pulse) -> Result<AudioSealing, AudioPassError> {
        let mut pass = AudioPass::begin(self.kept.clone(), &*self.store).await?;
        let mut before = AudioSealing::default();
        loop {
            pulse.beat(monotonic());
            let now = match pass.step().await {
                Ok(now) => now,
                Err(error) => {
                    tracing::warn!(%error, "bring kept audio to the present key");
                    before
                }
            };
            metrics::gauge!("auricle_protection_audio_share").set(now.share);
            metrics::gauge!("auricle_protection_audio_left_files").set(now.left as f64);
            if now.done {
                return Ok(now);
            }
            // What needs nothing costs no more than a look.
            if now.resealed > before.resealed || pass.under_way.is_some() {
                tokio::time::sleep(self.limits.protection_step_every).await;
            }
            before = now;
        }
    }
}
