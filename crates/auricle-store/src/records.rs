//! Action items and memories: the values that go in and out.

use auricle_core::{ActionItemId, ConversationId, MemoryId, Revision, UnixMicros};

/// An action item or a memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    ActionItem(ActionItemRecord),
    Memory(MemoryRecord),
}

/// Something to do, heard or written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionItemRecord {
    pub id: ActionItemId,
    /// Where it was heard; `None` for what was made by hand, or if the conversation is gone.
    pub conversation: Option<ConversationId>,
    /// The revision that made it or last made it again.
    pub revision: Option<Revision>,
    pub description: String,
    pub completed: bool,
    pub completed_at: Option<UnixMicros>,
    pub due_at: Option<UnixMicros>,
    pub created_at: UnixMicros,
    pub updated_at: UnixMicros,
    /// Whether the user made it, or changed its words or its time: it outlives its conversation's revisions.
    pub edited: bool,
}

/// Which action items. Listings are ordered by `created_at`, newest first.
#[derive(Clone, Debug, Default)]
pub struct ActionItemFilter {
    pub completed: Option<bool>,
    /// Due at or after.
    pub due_from: Option<UnixMicros>,
    /// Due before.
    pub due_before: Option<UnixMicros>,
    /// Made at or after.
    pub created_from: Option<UnixMicros>,
    /// Heard there.
    pub conversation: Option<ConversationId>,
    /// Not heard there.
    pub not_of: Option<ConversationId>,
    pub limit: usize,
    pub offset: usize,
}

/// An action item made by hand.
#[derive(Clone, Debug)]
pub struct NewActionItem {
    pub id: ActionItemId,
    pub description: String,
    pub due_at: Option<UnixMicros>,
    /// One of the user's conversations.
    pub conversation: Option<ConversationId>,
    pub now: UnixMicros,
}

/// What the user changes; `None` leaves it.
#[derive(Clone, Debug, Default)]
pub struct ActionItemEdit {
    pub description: Option<String>,
    pub completed: Option<bool>,
    /// `Some(None)`: it has no time any more.
    pub due_at: Option<Option<UnixMicros>>,
}

/// A lasting fact about the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryRecord {
    pub id: MemoryId,
    /// As with an action item.
    pub conversation: Option<ConversationId>,
    /// As with an action item.
    pub revision: Option<Revision>,
    pub text: String,
    pub created_at: UnixMicros,
    pub updated_at: UnixMicros,
    /// Whether its words are the user's.
    pub edited: bool,
}

/// Which memories. Ordered by `created_at`, newest first.
#[derive(Clone, Debug, Default)]
pub struct MemoryFilter {
    pub conversation: Option<ConversationId>,
    pub limit: usize,
    pub offset: usize,
}

/// A memory made by hand.
#[derive(Clone, Debug)]
pub struct NewMemory {
    pub id: MemoryId,
    pub text: String,
    /// One of the user's conversations.
    pub conversation: Option<ConversationId>,
    pub now: UnixMicros,
}
