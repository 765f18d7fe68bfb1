//! Embeddings and search by meaning: the values that go in and out.

use auricle_core::{ConversationId, Epoch, SegmentId, UnixMicros, UserId};

/// A worker's right to embed a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddingClaim {
    pub user: UserId,
    pub conversation: ConversationId,
    pub epoch: Epoch,
    /// Counting this one.
    pub attempts: u32,
    /// Attempts in a row that were not counted, since the server was away.
    pub postponed: u32,
}

/// One embedded text.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    /// Its first and last segment; `None` for the conversation as a whole.
    pub segments: Option<(SegmentId, SegmentId)>,
    /// As the model gave it: any length but 0, all finite. Stored at length 1.
    pub vector: Vec<f32>,
}

/// What an attempt that did not embed leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EmbeddingOutcome {
    /// Try again then.
    Retry { at: UnixMicros, error: String },
    /// The server is away: try again then, this attempt is not counted.
    Postponed { at: UnixMicros, error: String },
    /// Not again, until its record or the model changes or the server starts anew.
    GivenUp { error: String },
    /// Given back untried.
    Released,
}

/// How far embedding is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmbeddingCounts {
    /// Conversations to be embedded.
    pub pending: u64,
    /// Those given up.
    pub failed: u64,
}

/// One conversation near a query.
#[derive(Clone, Debug, PartialEq)]
pub struct Near {
    pub conversation: ConversationId,
    /// Cosine of its nearest text with the query, -1 to 1.
    pub similarity: f32,
    /// The segments of that text; `None` if it is the conversation as a whole.
    pub segments: Option<(SegmentId, SegmentId)>,
}
