//! Who is connected: admission, and messages from the rest of the server to live sessions.
//!
//! Invariants: the number of sessions never exceeds its limit, nor a user's, by counting before accepting; a session that
//! was admitted is never ended for a newcomer; nobody here waits for a session: a full inbox is an answer.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use auricle_core::pace::{Pace, PaceNumbers};
use auricle_core::session::Ended;
use auricle_core::{
    Account, Assignee, ConversationId, Epoch, FinaliseReason, Limits, SegmentId, Source, UserId,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Messages to one session that it has not taken. Full: the sender is told, and its work waits as a row.
const COMMANDS_MAX: usize = 16;
/// Conversations of one session whose records it still waits for. Full: the oldest is no longer waited for here; another
/// session of the user may hear of it.
const AWAITED_MAX: usize = 32;
/// Where nobody knows when there is room again, refusals name 1 s to this many in turn, so that not all return at once.
const RETRY_SPREAD_SECS: u64 = 5;

/// What the rest of the server asks of a session.
#[derive(Debug)]
pub(crate) enum Command {
    /// End the conversation now and say what came of it.
    Finalise { reason: FinaliseReason, answer: oneshot::Sender<Ended> },
    /// Another session has taken its conversation over.
    Superseded { conversation: ConversationId },
    /// Segments of its conversation were assigned past it.
    Reassigned(Box<Reassigned>),
    /// The user is being deleted.
    Dismiss,
    /// The server is shutting down.
    Drain,
    /// Send this text to the client; answered once it is in the socket's outbox.
    Deliver { text: String, taken: oneshot::Sender<()> },
}

/// Segments that were assigned. Apart, since each session has room for some tens of commands and hardly ever gets this one.
#[derive(Debug)]
pub(crate) struct Reassigned {
    pub(crate) conversation: ConversationId,
    pub(crate) segments: Vec<SegmentId>,
    pub(crate) to: Assignee,
    pub(crate) speaker: Option<(u32, String)>,
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
    /// Under which it owns it.
    epoch: Epoch,
    awaited: Vec<ConversationId>,
    /// The client is gone; only the last words are being stored.
    leaving: bool,
    /// It speaks another protocol, which has no conversations.
    apart: bool,
}

impl Member {
    fn place(&self) -> std::sync::MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says which conversation it owns, and under which epoch.
    pub(crate) fn owns(&self, conversation: ConversationId, epoch: Epoch) {
        let mut place = self.place();
        (place.conversation, place.epoch) = (Some(conversation), epoch);
    }

    /// Says that it owns none.
    pub(crate) fn disowns(&self) {
        self.place().conversation = None;
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

    /// Says that nothing of conversations is for it; it counts, and ends with its user or the server, like any other.
    pub(crate) fn stands_apart(&self) {
        self.place().apart = true;
    }

    /// Whether there is a client who can be told of conversations.
    fn listens(&self) -> bool {
        let place = self.place();
        !place.leaving && !place.apart
    }

    /// Says that its client is gone.
    pub(crate) fn leaves(&self) {
        self.place().leaving = true;
    }
}

/// All live sessions of the process.
#[derive(Debug)]
pub(crate) struct Hub {
    /// Grows only under `pace`'s lock.
    sessions: AtomicUsize,
    limits: Arc<Limits>,
    /// Bytes held for clients.
    account: Account,
    pace: Mutex<Pace>,
    refused: AtomicU64,
    next_id: AtomicU64,
    draining: CancellationToken,
    members: Mutex<HashMap<UserId, Vec<Arc<Member>>>>,
}

/// Why a session was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The server is shutting down.
    Draining,
    /// `limits.sessions_max` is reached.
    Full,
    /// `limits.bytes_in_flight_max` is reached.
    Bytes,
    /// It would wait longer than `limits.accept_wait_max` for its turn.
    Pace,
    /// `limits.sessions_per_user_max` is reached.
    UserFull,
}

/// A refusal, and when it is worth coming back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) why: Refusal,
    pub(crate) retry_after: Duration,
}

/// What the probes are told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) sessions: usize,
    pub(crate) sessions_max: usize,
    pub(crate) bytes: usize,
    pub(crate) bytes_max: usize,
    /// How long newcomers have been refused for their number.
    pub(crate) refusing_for: Duration,
}

impl Refusal {
    /// The metric's label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Full => "full",
            Self::Bytes => "bytes",
            Self::Pace => "pace",
            Self::UserFull => "user_full",
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
    pub(crate) fn new(limits: Arc<Limits>, account: Account, now: Instant) -> Arc<Self> {
        let numbers = PaceNumbers {
            rate: limits.accept_rate,
            burst: limits.accept_burst,
            wait_max: limits.accept_wait_max,
            retry_max: limits.retry_after_max,
        };
        Arc::new(Self {
            sessions: AtomicUsize::new(0),
            limits,
            account,
            pace: Mutex::new(Pace::new(numbers, now)),
            refused: AtomicU64::new(0),
            next_id: AtomicU64::new(1),
            draining: CancellationToken::new(),
            members: Mutex::default(),
        })
    }

    fn members(&self) -> std::sync::MutexGuard<'_, HashMap<UserId, Vec<Arc<Member>>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Live sessions, those that wait for their turn included.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Acquire)
    }

    /// What is taken of what there is.
    pub(crate) fn load(&self, now: Instant) -> Load {
        Load {
            sessions: self.sessions(),
            sessions_max: self.limits.sessions_max,
            bytes: self.account.bytes(),
            bytes_max: self.limits.bytes_in_flight_max,
            refusing_for: self.pace().refusing_for(now),
        }
    }

    /// Bytes that sessions hold for their clients.
    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    /// Admits nobody from now on.
    pub(crate) fn begin_drain(&self) {
        self.draining.cancel();
    }

    /// Whether [`Hub::begin_drain`] was called.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Waits for `at`. False if the server began to drain meanwhile.
    pub(crate) async fn wait_until(&self, at: Instant) -> bool {
        tokio::select! {
            biased;
            () = self.draining.cancelled() => false,
            () = tokio::time::sleep_until(at.into()) => true,
        }
    }

    /// Counts one more session, if there is room, and says from when on it may begin.
    pub(crate) fn admit(self: &Arc<Self>, now: Instant) -> Result<(Permit, Instant), Refused> {
        let at = self.room(now)?;
        Ok((Permit { hub: Arc::clone(self) }, at))
    }

    /// Counts one more session. Whoever is refused has taken nothing, not even for a moment.
    fn room(&self, now: Instant) -> Result<Instant, Refused> {
        if self.is_draining() {
            return Err(self.refusal(Refusal::Draining));
        }
        // Before the lock, which a full house would fight for.
        if self.sessions() >= self.limits.sessions_max {
            return Err(self.refusal(Refusal::Full));
        }
        if self.account.bytes() >= self.limits.bytes_in_flight_max {
            return Err(self.refusal(Refusal::Bytes));
        }
        let mut pace = self.pace();
        if self.sessions() >= self.limits.sessions_max {
            return Err(self.refusal(Refusal::Full));
        }
        let at =
            pace.ask(now).map_err(|fast| Refused { why: Refusal::Pace, retry_after: fast.retry_after })?;
        self.sessions.fetch_add(1, Ordering::AcqRel);
        Ok(at)
    }

    /// A refusal of which nobody knows when it ends.
    pub(crate) fn refusal(&self, why: Refusal) -> Refused {
        let secs = match why {
            // Whoever takes over is there already.
            Refusal::Draining => 1,
            _ => 1 + self.refused.fetch_add(1, Ordering::Relaxed) % RETRY_SPREAD_SECS,
        };
        Refused { why, retry_after: Duration::from_secs(secs).min(self.limits.retry_after_max) }
    }

    /// Makes a permit a session of `user`.
    pub(crate) fn join(
        self: &Arc<Self>,
        permit: Permit,
        user: UserId,
        source: Source,
    ) -> Result<(Membership, mpsc::Receiver<Command>), Refused> {
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let member = Arc::new(Member { id, user: user.clone(), source, commands, place: Mutex::default() });
        let mut members = self.members();
        let of_user = members.entry(user).or_default();
        if of_user.len() >= self.limits.sessions_per_user_max {
            return Err(self.refusal(Refusal::UserFull));
        }
        of_user.push(Arc::clone(&member));
        drop(members);
        Ok((Membership { hub: Arc::clone(self), member, _permit: permit }, inbox))
    }

    /// Tells every other session that owns `conversation` under an epoch before `epoch` that it has lost it. Answers of the
    /// store may be handled in another order than they were given: a later epoch is not told by an earlier one.
    pub(crate) fn supersede(&self, winner: &Member, conversation: &ConversationId, epoch: Epoch) {
        let lost = |member: &Member| {
            let place = member.place();
            place.conversation.as_ref() == Some(conversation) && place.epoch < epoch
        };
        for member in self.of_user(&winner.user) {
            if member.id != winner.id && lost(&member) {
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

    /// Tells the session that owns `conversation` whom segments were assigned to. One whose inbox is full learns it when it
    /// resumes.
    pub(crate) fn reassigned(
        &self,
        user: &UserId,
        conversation: &ConversationId,
        segments: Vec<SegmentId>,
        to: Assignee,
        speaker: Option<(u32, String)>,
    ) {
        let members = self.of_user(user);
        if let Some(owner) = members.iter().find(|m| m.place().conversation.as_ref() == Some(conversation)) {
            let reassigned = Reassigned { conversation: conversation.clone(), segments, to, speaker };
            let _ = owner.commands.try_send(Command::Reassigned(Box::new(reassigned)));
        }
    }

    /// Tells every session of `user` that the user is being deleted. Returns how many there are; one whose inbox is full is told
    /// the next time.
    pub(crate) fn dismiss(&self, user: &UserId) -> usize {
        let members = self.of_user(user);
        for member in &members {
            let _ = member.commands.try_send(Command::Dismiss);
        }
        members.len()
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
        let members: Vec<_> = self.of_user(user).into_iter().filter(|m| m.listens()).collect();
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

    /// Sends `text` to the session that waits for `conversation` or owns it, else to the user's newest. `None` if nobody is
    /// there.
    pub(crate) fn tell(
        &self,
        user: &UserId,
        conversation: Option<&ConversationId>,
        text: String,
    ) -> Option<oneshot::Receiver<()>> {
        let members: Vec<_> = self.of_user(user).into_iter().filter(|m| m.listens()).collect();
        let about = |m: &&Arc<Member>| {
            let place = m.place();
            let is_its = |own: &ConversationId| Some(own) == conversation;
            place.awaited.iter().chain(&place.conversation).any(is_its)
        };
        let member = members.iter().rev().find(about).or_else(|| members.last())?;
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
    use crate::clock::monotonic;

    fn limits(sessions_max: usize, per_user_max: usize) -> Limits {
        Limits {
            sessions_max,
            sessions_per_user_max: per_user_max,
            accept_rate: 1_000_000,
            accept_burst: 1_000_000,
            ..Limits::default()
        }
    }

    fn hub(limits: Limits) -> Arc<Hub> {
        Hub::new(Arc::new(limits), Account::default(), monotonic())
    }

    fn permit(hub: &Arc<Hub>) -> Permit {
        hub.admit(monotonic()).expect("room").0
    }

    fn why(hub: &Arc<Hub>) -> Refusal {
        hub.admit(monotonic()).expect_err("no room").why
    }

    #[test]
    fn whoever_owns_a_conversation_under_a_later_epoch_is_not_told_by_an_earlier_one() {
        let hub = hub(limits(10, 10));
        let user = UserId::from("u");
        let join = || hub.join(permit(&hub), user.clone(), Source::Omi).expect("joined");
        let ((first, mut told_first), (second, mut told_second)) = (join(), join());
        first.owns("c".into(), Epoch(2));
        second.owns("c".into(), Epoch(3));

        // The first's answer is handled last.
        hub.supersede(&first, &"c".into(), Epoch(2));
        assert!(told_second.try_recv().is_err(), "the owner was told that it had lost");

        hub.supersede(&second, &"c".into(), Epoch(3));
        assert!(matches!(told_first.try_recv(), Ok(Command::Superseded { .. })));
    }

    #[test]
    fn racing_admissions_never_exceed_the_limit_by_one() {
        let hub = hub(limits(100, 20));
        let admitted = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1_250 {
                        if let Ok((permit, _)) = hub.admit(monotonic()) {
                            assert!(hub.sessions() <= 100);
                            admitted.fetch_add(1, Ordering::Relaxed);
                            std::mem::forget(permit);
                        }
                    }
                });
            }
        });
        assert_eq!(admitted.load(Ordering::Relaxed), 100);
        assert_eq!(why(&hub), Refusal::Full);
    }

    #[test]
    fn comings_and_goings_never_exceed_the_limit_and_leave_nothing_behind() {
        let hub = hub(limits(10, 20));
        let live = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let Ok((permit, _)) = hub.admit(monotonic()) else { continue };
                        assert!(live.fetch_add(1, Ordering::AcqRel) < 10);
                        live.fetch_sub(1, Ordering::AcqRel);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!(hub.sessions(), 0);
    }

    #[test]
    fn leaving_frees_the_place_and_the_permit() {
        let hub = hub(limits(1, 1));
        let (membership, _inbox) =
            hub.join(permit(&hub), "u".into(), Source::Omi).expect("room for the user");
        assert_eq!(why(&hub), Refusal::Full);
        drop(membership);
        assert_eq!(hub.sessions(), 0);
        assert!(hub.of_user(&"u".into()).is_empty());
    }

    #[test]
    fn one_user_cannot_take_all_places() {
        let hub = hub(limits(10, 2));
        let places: Vec<_> =
            (0..2).map(|_| hub.join(permit(&hub), "u".into(), Source::Omi).expect("room")).collect();
        let refused = hub.join(permit(&hub), "u".into(), Source::Omi).expect_err("full");
        assert_eq!(refused.why, Refusal::UserFull);
        assert_eq!(hub.sessions(), places.len());
    }

    #[test]
    fn racing_sessions_of_one_user_never_exceed_theirs_by_one() {
        let hub = hub(limits(1_000, 20));
        let places = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let joined = hub.join(permit(&hub), "u".into(), Source::Omi);
                        assert!(hub.of_user(&"u".into()).len() <= 20);
                        places.lock().unwrap().extend(joined.ok());
                    }
                });
            }
        });
        assert_eq!(places.lock().unwrap().len(), 20);
        assert_eq!(hub.sessions(), 20, "who was refused holds nothing");
    }

    #[test]
    fn reasons_come_in_order_and_each_names_a_time_to_come_back() {
        let limits = Limits {
            sessions_max: 3,
            bytes_in_flight_max: 1_000,
            accept_rate: 1,
            accept_burst: 1,
            accept_wait_max: Duration::from_secs(1),
            ..Limits::default()
        };
        let (hub, now) = (hub(limits), monotonic());
        let (_first, at) = hub.admit(now).expect("the burst");
        assert_eq!(at, now);
        let (second, at) = hub.admit(now).expect("may wait");
        assert!(at > now && at <= now + Duration::from_secs(1));
        let fast = hub.admit(now).expect_err("too many at once");
        assert_eq!(fast.why, Refusal::Pace);
        let held = hub.account().holding(1_000);
        assert_eq!(why(&hub), Refusal::Bytes, "before the pace is asked");
        let (_third, _) = {
            drop(held);
            hub.admit(now + Duration::from_secs(2)).expect("its turn")
        };
        let _held = hub.account().holding(1_000);
        let told: Vec<_> = (0..5).map(|_| hub.admit(now).expect_err("full")).collect();
        assert!(told.iter().all(|refused| refused.why == Refusal::Full), "before the bytes are looked at");
        let secs: Vec<_> = told.iter().map(|refused| refused.retry_after.as_secs()).collect();
        assert!(secs.iter().all(|secs| (1..=5).contains(secs)) && secs.windows(2).any(|w| w[0] != w[1]));
        hub.begin_drain();
        assert_eq!(why(&hub), Refusal::Draining);
        drop(second);
        assert_eq!(hub.sessions(), 2);
    }

    #[test]
    fn a_record_reaches_the_session_that_waits_for_it() {
        let hub = hub(limits(10, 5));
        let (first, mut first_inbox) = hub.join(permit(&hub), "u".into(), Source::Omi).unwrap();
        let (_second, mut second_inbox) = hub.join(permit(&hub), "u".into(), Source::Omi).unwrap();
        first.awaits("c".into());
        assert!(hub.deliver(&"u".into(), &"c".into(), Source::Omi, "{}".into()).is_some());
        assert!(first_inbox.try_recv().is_ok() && second_inbox.try_recv().is_err());
        assert!(hub.deliver(&"other".into(), &"c".into(), Source::Omi, "{}".into()).is_none());
        first.leaves();
        assert!(hub.deliver(&"u".into(), &"c".into(), Source::Omi, "{}".into()).is_some());
        assert!(second_inbox.try_recv().is_ok());
    }
}
