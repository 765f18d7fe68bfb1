//! Uploads: ours, and Omi's `sync-local-files`.

use serde::{Deserialize, Serialize};

use crate::time::WireTime;

/// An uploaded recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Upload {
    pub id: String,
    /// `queued`, `transcribing`, `done` or `failed`.
    pub status: String,
    /// SHA-256 of the file, hexadecimal. The same file again is the same upload.
    pub sha256: String,
    pub bytes: u64,
    /// When its first sample was recorded.
    pub recorded_at: WireTime,
    /// Seconds of audio that are transcribed.
    pub heard_secs: f64,
    /// Seconds of audio in the file, once they are known.
    pub audio_secs: Option<f64>,
    pub attempts: u32,
    /// Why it failed, or what the last attempt ended with.
    pub error: Option<String>,
    /// What became of it; none if nobody spoke.
    pub conversations: Vec<String>,
    pub created_at: WireTime,
    pub updated_at: WireTime,
}

/// Omi's answer to files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SyncAccepted {
    pub job_id: String,
    /// `queued`.
    pub status: String,
    pub total_files: usize,
    /// Not known yet: 0.
    pub total_segments: usize,
    /// When it is worth asking.
    pub poll_after_ms: u64,
    /// Not known yet: empty. For clients of the first version.
    pub new_memories: Vec<String>,
    /// Always empty.
    pub updated_memories: Vec<String>,
}

/// How Omi's app asks about it. A "segment" is a file here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SyncStatus {
    pub job_id: String,
    /// `queued`, `processing`, `completed`, `partial_failure` or `failed`.
    pub status: String,
    pub total_segments: usize,
    pub processed_segments: usize,
    pub successful_segments: usize,
    pub failed_segments: usize,
    /// Once it has ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub result: Option<SyncResult>,
    /// Why nothing of it could be used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// What became of the files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SyncResult {
    pub new_memories: Vec<String>,
    pub updated_memories: Vec<String>,
    pub failed_segments: usize,
    pub total_segments: usize,
    pub errors: Vec<String>,
}
