//! Who is connected: admission, and messages from the rest of the server to live sessions.
//!
//! Invariants: the number of sessions never exceeds its limit, by counting before accepting; nobody here waits for a
//! session: a full inbox is an answer.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use auricle_core::session::Ended;
use auricle_core::{ConversationId, FinaliseReason, Source, UserId};
use tokio::sync::{mpsc, oneshot};

/// Messages to one session that it has not taken. Full: the sender is told, and its work waits as a row.
const COMMANDS_MAX: usize = 16;
/// Conversations of one session whose records it still waits for. Full: the oldest is no longer waited for here; another
/// session of the user may hear of it.
const AWAITED_MAX: usize = 32;

/// What the rest of the server asks of a session.
#[derive(Debug)]
pub(crate) enum Command {
    /// End the conversation now and say what came of it.
    Finalise { reason: FinaliseReason, answer: oneshot::Sender<Ended> },
    /// Another session has taken its conversation over.
    Superseded { conversation: ConversationId },
    /// The server is shutting down.
    Drain,
    /// Send this text to the client; answered once it is in the socket's outbox.
    Deliver { text: String, taken: oneshot::Sender<()> },
}

/// One live session as the hub knows it.
#[derive(Debug)]
pub(crate) struct Member {
    id: u64,
    user: UserId,
    source: Source,
    commands: mpsc::Sender<Command>,
    place: Mutex<Place>,
}

#[derive(Debug, Default)]
struct Place {
    conversation: Option<ConversationId>,
    awaited: Vec<ConversationId>,
    /// The client is gone; only the last words are being stored.
    leaving: bool,
}

impl Member {
    fn place(&self) -> std::sync::MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says which conversation it owns.
    pub(crate) fn owns(&self, conversation: Option<ConversationId>) {
        self.place().conversation = conversation;
    }

    /// Says that it waits for a conversation's record.
    pub(crate) fn awaits(&self, conversation: ConversationId) {
        let mut place = self.place();
        if place.awaited.len() >= AWAITED_MAX {
            place.awaited.remove(0);
        }
        place.awaited.push(conversation);
    }

    /// Tells it that the server is shutting down.
    pub(crate) fn drain(&self) -> bool {
        self.commands.try_send(Command::Drain).is_ok()
    }

    /// Says that its client is gone.
    pub(crate) fn leaves(&self) {
        self.place().leaving = true;
    }
}

/// All live sessions of the process.
#[derive(Debug)]
pub(crate) struct Hub {
    sessions: AtomicUsize,
    sessions_max: usize,
    per_user_max: usize,
    next_id: AtomicU64,
    draining: AtomicBool,
    members: Mutex<HashMap<UserId, Vec<Arc<Member>>>>,
}

/// Why a session was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// `limits.sessions_max` is reached.
    Full,
    /// `limits.sessions_per_user_max` is reached.
    UserFull,
    /// The server is shutting down.
    Draining,
}

impl Refusal {
    /// The metric's label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::UserFull => "user_full",
            Self::Draining => "draining",
        }
    }
}

/// The right to one session; gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    hub: Arc<Hub>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.hub.sessions.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A session's place in the hub; leaves when dropped.
#[derive(Debug)]
pub(crate) struct Membership {
    hub: Arc<Hub>,
    member: Arc<Member>,
    _permit: Permit,
}

impl std::ops::Deref for Membership {
    type Target = Member;
    fn deref(&self) -> &Member {
        &self.member
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut members = self.hub.members();
        if let Some(of_user) = members.get_mut(&self.member.user) {
            of_user.retain(|member| member.id != self.member.id);
            if of_user.is_empty() {
                members.remove(&self.member.user);
            }
        }
    }
}

impl Hub {
    /// An empty hub.
    pub(crate) fn new(sessions_max: usize, per_user_max: usize) -> Arc<Self> {
        Arc::new(Self {
            sessions: AtomicUsize::new(0),
            sessions_max,
            per_user_max,
            next_id: AtomicU64::new(1),
            draining: AtomicBool::new(false),
            members: Mutex::default(),
        })
    }

    fn members(&self) -> std::sync::MutexGuard<'_, HashMap<UserId, Vec<Arc<Member>>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Live sessions and their limit.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.sessions.load(Ordering::Acquire), self.sessions_max)
    }

    /// Admits nobody from now on.
    pub(crate) fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether [`Hub::begin_drain`] was called.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Counts one more session, if there is room.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Permit, Refusal> {
        if self.is_draining() {
            return Err(Refusal::Draining);
        }
        let counted = self.sessions.fetch_update(Ordering::AcqRel, Ordering::Acquire, |sessions| {
            (sessions < self.sessions_max).then_some(sessions + 1)
        });
        counted.map(|_| Permit { hub: Arc::clone(self) }).map_err(|_| Refusal::Full)
    }

    /// Makes a permit a session of `user`.
    pub(crate) fn join(
        self: &Arc<Self>,
        permit: Permit,
        user: UserId,
        source: Source,
    ) -> Result<(Membership, mpsc::Receiver<Command>), Refusal> {
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let member = Arc::new(Member { id, user: user.clone(), source, commands, place: Mutex::default() });
        let mut members = self.members();
        let of_user = members.entry(user).or_default();
        if of_user.len() >= self.per_user_max {
            return Err(Refusal::UserFull);
        }
        of_user.push(Arc::clone(&member));
        drop(members);
        Ok((Membership { hub: Arc::clone(self), member, _permit: permit }, inbox))
    }

    /// Tells every other session that owns `conversation` that it has lost it.
    pub(crate) fn supersede(&self, winner: &Member, conversation: &ConversationId) {
        for member in self.of_user(&winner.user) {
            if member.id != winner.id && member.place().conversation.as_ref() == Some(conversation) {
                // A session that does not take this is told by the store's refusal of its next write.
                let _ = member.commands.try_send(Command::Superseded { conversation: conversation.clone() });
            }
        }
    }

    /// Asks the session that owns `conversation` to end it. `None` if no session of this process owns it.
    pub(crate) fn finalise(
        &self,
        user: &UserId,
        conversation: &ConversationId,
    ) -> Option<oneshot::Receiver<Ended>> {
        let members = self.of_user(user);
        let owner = members.iter().find(|m| m.place().conversation.as_ref() == Some(conversation))?;
        let (answer, answered) = oneshot::channel();
        let command = Command::Finalise { reason: FinaliseReason::Requested, answer };
        owner.commands.try_send(command).ok().map(|()| answered)
    }

    /// The conversation that the newest session of `user` owns.
    pub(crate) fn current(&self, user: &UserId) -> Option<ConversationId> {
        self.of_user(user).iter().rev().find_map(|member| member.place().conversation.clone())
    }

    /// Sends `text` about `conversation` to the session that waits for it, else to the one that owns it, else to the user's
    /// newest of the same source. `None` if nobody is there.
    pub(crate) fn deliver(
        &self,
        user: &UserId,
        conversation: &ConversationId,
        source: Source,
        text: String,
    ) -> Option<oneshot::Receiver<()>> {
        let members: Vec<_> = self.of_user(user).into_iter().filter(|m| !m.place().leaving).collect();
        let awaits = |m: &&Arc<Member>| m.place().awaited.contains(conversation);
        let owns = |m: &&Arc<Member>| m.place().conversation.as_ref() == Some(conversation);
        let member = members
            .iter()
            .rev()
            .find(awaits)
            .or_else(|| members.iter().rev().find(owns))
            .or_else(|| members.iter().rev().find(|m| m.source == source))?;
        let (taken, was_taken) = oneshot::channel();
        member.commands.try_send(Command::Deliver { text, taken }).ok().map(|()| was_taken)
    }

    /// The conversations that sessions own.
    pub(crate) fn owned(&self) -> HashSet<ConversationId> {
        self.everyone().iter().filter_map(|member| member.place().conversation.clone()).collect()
    }

    /// Every live session, for a drain that spreads them out.
    pub(crate) fn everyone(&self) -> Vec<Arc<Member>> {
        self.members().values().flatten().cloned().collect()
    }

    fn of_user(&self, user: &UserId) -> Vec<Arc<Member>> {
        self.members().get(user).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn racing_admissions_never_exceed_the_limit_by_one() {
        let hub = Hub::new(100, 20);
        let admitted = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1_250 {
                        if let Ok(permit) = hub.admit() {
                            assert!(hub.load().0 <= 100);
                            admitted.fetch_add(1, Ordering::Relaxed);
                            std::mem::forget(permit);
                        }
                    }
                });
            }
        });
        assert_eq!(admitted.load(Ordering::Relaxed), 100);
        assert_eq!(hub.admit().expect_err("full"), Refusal::Full);
    }

    #[test]
    fn leaving_frees_the_place_and_the_permit() {
        let hub = Hub::new(1, 1);
        let (membership, _inbox) =
            hub.join(hub.admit().expect("room"), "u".into(), Source::Omi).expect("room for the user");
        assert_eq!(hub.admit().expect_err("full"), Refusal::Full);
        drop(membership);
        assert_eq!(hub.load().0, 0);
        assert!(hub.of_user(&"u".into()).is_empty());
    }

    #[test]
    fn one_user_cannot_take_all_places() {
        let hub = Hub::new(10, 2);
        let places: Vec<_> = (0..2)
            .map(|_| hub.join(hub.admit().expect("room"), "u".into(), Source::Omi).expect("room"))
            .collect();
        let refused = hub.join(hub.admit().expect("room"), "u".into(), Source::Omi).expect_err("full");
        assert_eq!(refused, Refusal::UserFull);
        assert_eq!(hub.load().0, places.len());
    }

    #[test]
    fn a_record_reaches_the_session_that_waits_for_it() {
        let hub = Hub::new(10, 5);
        let (first, mut first_inbox) = hub.join(hub.admit().unwrap(), "u".into(), Source::Omi).unwrap();
        let (_second, mut second_inbox) = hub.join(hub.admit().unwrap(), "u".into(), Source::Omi).unwrap();
        first.awaits("c".into());
        assert!(hub.deliver(&"u".into(), &"c".into(), Source::Omi, "{}".into()).is_some());
        assert!(first_inbox.try_recv().is_ok() && second_inbox.try_recv().is_err());
        assert!(hub.deliver(&"other".into(), &"c".into(), Source::Omi, "{}".into()).is_none());
        first.leaves();
        assert!(hub.deliver(&"u".into(), &"c".into(), Source::Omi, "{}".into()).is_some());
        assert!(second_inbox.try_recv().is_ok());
    }
}
