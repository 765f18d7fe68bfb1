//! Conversations with audio that is still to be transcribed: nobody ends them before.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use auricle_core::ConversationId;

/// Which they are, as far as is known.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<Holding>);

#[derive(Debug, Default)]
struct Holding {
    /// `None` until the spool has been looked at.
    found: Option<HashSet<ConversationId>>,
    /// Left by sessions, each with the number of the look that began last before. A later one knows of it.
    told: HashMap<ConversationId, u64>,
    looks: u64,
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, Holding> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a conversation may not be ended yet, as far as is known.
    pub(crate) fn holds(&self, conversation: &ConversationId) -> bool {
        let held = self.lock();
        held.told.contains_key(conversation)
            || held.found.as_ref().is_none_or(|found| found.contains(conversation))
    }

    /// A session has left audio of this conversation.
    pub(crate) fn hold(&self, conversation: &ConversationId) {
        let mut held = self.lock();
        let looks = held.looks;
        held.told.insert(conversation.clone(), looks);
    }

    /// A look at the spool begins. Returns its number.
    pub(super) fn looks(&self) -> u64 {
        let mut held = self.lock();
        held.looks += 1;
        held.looks
    }

    /// What that look has found, and what else waits or is being heard.
    pub(super) fn found(&self, look: u64, found: HashSet<ConversationId>) {
        let mut held = self.lock();
        held.found = Some(found);
        held.told.retain(|_, told| *told >= look);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_is_held_until_a_look_that_began_later_has_not_found_it() {
        let (held, one, other) = (Held::default(), "one".into(), "other".into());
        assert!(held.holds(&one), "nothing is known yet");
        let first = held.looks();
        held.hold(&one);
        held.found(first, HashSet::new());
        assert!(held.holds(&one) && !held.holds(&other));
        let second = held.looks();
        held.found(second, HashSet::from([one.clone()]));
        assert!(held.holds(&one), "it was found");
        held.found(held.looks(), HashSet::new());
        assert!(!held.holds(&one));
    }
}
