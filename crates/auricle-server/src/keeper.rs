//! Looks through kept audio: what is older than `audio.keep` goes, and what belongs to no conversation.
//!
//! A conversation's audio goes as a whole, once the newest of it is too old. Whoever deletes a conversation deletes its audio at
//! once; what came after that, or was left by a crash, is found here.

use std::sync::Arc;
use std::time::Duration;

use auricle_core::{Limits, UploadId};
use auricle_store::kept::{KeptAudio, KeptConversation};
use auricle_store::vault::Stored;
use auricle_store::{Store, StoreError};

use crate::clock::monotonic;
use crate::vitals::Pulse;

/// Ids of one question to the store.
const ASKED_AT_ONCE: usize = 500;
/// A file of no conversation goes once it is this old: its words may be under way.
const STRAY_AGE: Duration = Duration::from_secs(3_600);

/// What looks through it.
pub(crate) struct Keeper {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) kept: KeptAudio,
    /// `None`: nothing goes for its age.
    pub(crate) keep: Option<Duration>,
    pub(crate) limits: Arc<Limits>,
}

#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error("read the folder: {0}")]
    Io(#[from] std::io::Error),
    #[error("ask the store: {0}")]
    Store(#[from] StoreError),
}

impl Keeper {
    /// Runs for ever; may be dropped at any await.
    pub(crate) async fn run(self: Arc<Self>, pulse: Arc<Pulse>) {
        loop {
            pulse.beat(monotonic());
            if let Err(error) = self.sweep(&pulse).await {
                tracing::warn!(%error, "look through kept audio");
            }
            pulse.rest(self.limits.audio_sweep_every).await;
        }
    }

    async fn sweep(&self, pulse: &Pulse) -> Result<(), SweepError> {
        let kept = self.kept.clone();
        let found = blocking(move || kept.conversations()).await?;
        for some in found.chunks(ASKED_AT_ONCE) {
            pulse.beat(monotonic());
            let ids = some.iter().map(|each| each.conversation.clone()).collect();
            let known = self.store.known_conversations(ids).await?;
            for each in some {
                let reason = match self.is_old(each) {
                    true => "age",
                    false if !known.contains(&each.conversation) => "no_conversation",
                    false => continue,
                };
                let (kept, each) = (self.kept.clone(), each.clone());
                blocking(move || kept.discard(&each)).await?;
                metrics::counter!("auricle_audio_removed_total", "reason" => reason).increment(1);
            }
        }
        let kept = self.kept.clone();
        let files = blocking(move || kept.uploads().older_than(STRAY_AGE)).await?;
        for some in files.chunks(ASKED_AT_ONCE) {
            pulse.beat(monotonic());
            let ids: Vec<UploadId> = some.iter().map(|file| file.id.clone()).collect();
            let fates = self.store.upload_fates(ids).await?;
            for file in some {
                let reason = match fates.iter().find(|fate| fate.id == file.id) {
                    Some(fate) if fate.has_conversations => match self.is_old_file(file) {
                        true => "age",
                        false => continue,
                    },
                    _ => "no_conversation",
                };
                let (kept, file) = (self.kept.clone(), file.clone());
                blocking(move || kept.uploads().discard(&file)).await?;
                metrics::counter!("auricle_audio_removed_total", "reason" => reason).increment(1);
            }
        }
        Ok(())
    }

    fn is_old(&self, kept: &KeptConversation) -> bool {
        self.keep.is_some_and(|keep| kept.age() > keep)
    }

    fn is_old_file(&self, file: &Stored) -> bool {
        self.keep.is_some_and(|keep| file.age() > keep)
    }
}

/// Waits for work that blocks.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}
