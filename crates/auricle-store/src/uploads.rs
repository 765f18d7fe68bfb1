//! Uploaded recordings as the store knows them. A row is there before its sender is told so; its file is in the [`crate::vault`].

use std::time::Duration;

use auricle_core::{ConversationId, Epoch, Segment, Source, UnixMicros, UploadId, UserId};

/// A file that has come, whole and on disk.
#[derive(Clone, Debug)]
pub struct NewUpload {
    /// Its name in the vault.
    pub id: UploadId,
    /// Of the file as it came. One user's same file again is the same upload.
    pub sha256: [u8; 32],
    pub bytes: u64,
    /// What kind of file it is, in the form of whoever reads it.
    pub form: String,
    pub source: Source,
    pub language: Option<String>,
    /// When its first sample was recorded.
    pub recorded_at: UnixMicros,
}

/// Where an upload stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadState {
    /// It waits for its turn, or for its next try.
    Queued,
    /// A process has it.
    Leased,
    /// Its words are in their conversations.
    Done,
    /// It cannot be used; the file is kept.
    Failed,
}

impl UploadState {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Leased => "leased",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// What [`Self::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Queued, Self::Leased, Self::Done, Self::Failed]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// An upload.
#[derive(Clone, Debug, PartialEq)]
pub struct Upload {
    pub id: UploadId,
    pub user: UserId,
    pub batch: String,
    pub sha256: [u8; 32],
    pub bytes: u64,
    pub form: String,
    pub source: Source,
    pub language: Option<String>,
    pub recorded_at: UnixMicros,
    pub state: UploadState,
    pub attempts: u32,
    /// Without any transcript text.
    pub last_error: Option<String>,
    /// Seconds of audio that are decided.
    pub heard_secs: f64,
    /// Seconds of audio in all, once it is known.
    pub audio_secs: Option<f64>,
    pub conversations: Vec<ConversationId>,
    pub created_at: UnixMicros,
    pub updated_at: UnixMicros,
}

/// A process's right to transcribe an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadLease {
    pub id: UploadId,
    pub epoch: Epoch,
}

/// The words of an upload, to be put into conversations in one transaction with its end.
#[derive(Clone, Debug)]
pub struct UploadWords {
    pub lease: UploadLease,
    /// Stretches of speech, each for one conversation, in order. Times are seconds from the upload's `recorded_at`. Empty:
    /// nobody spoke.
    pub stretches: Vec<Vec<Segment>>,
    /// Ids for conversations that are made, one for each stretch.
    pub fresh_ids: Vec<ConversationId>,
    pub audio_secs: f64,
    /// A stretch belongs to the conversation of another upload that is no further from it than this.
    pub join_within: Duration,
    pub now: UnixMicros,
}
