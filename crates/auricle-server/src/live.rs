//! Live sessions as the REST handlers see them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use auricle_core::session::Ended;
use auricle_core::{Assignee, ConversationId, SegmentId, UserId};

use tokio::sync::Notify;

use crate::hub::Hub;
use crate::rest::LiveSessions;

/// How long a session may take to end its conversation: its engine's flush, then the commit.
const ENDING_MAX: Duration = Duration::from_secs(20);

/// The sessions of this process.
pub(crate) struct Live {
    pub(crate) hub: Arc<Hub>,
    /// Wakes the eraser.
    pub(crate) erase: Arc<Notify>,
    /// Conversations with audio that is left to repair.
    pub(crate) held: Arc<crate::repair::Held>,
}

#[async_trait]
impl LiveSessions for Live {
    fn current(&self, user: &UserId) -> Option<ConversationId> {
        self.hub.current(user)
    }

    fn dismiss(&self, user: &UserId) {
        self.hub.dismiss(user);
        self.erase.notify_one();
    }

    fn awaits_repair(&self, conversation: &ConversationId) -> bool {
        self.held.holds(conversation)
    }

    fn reassigned(
        &self,
        user: &UserId,
        conversation: &ConversationId,
        segments: Vec<SegmentId>,
        to: Assignee,
        speaker: Option<(u32, String)>,
    ) {
        self.hub.reassigned(user, conversation, segments, to, speaker);
    }

    async fn finalise(&self, user: &UserId, conversation: &ConversationId) -> Option<Ended> {
        let answer = self.hub.finalise(user, conversation)?;
        tokio::time::timeout(ENDING_MAX, answer).await.ok()?.ok()
    }
}
