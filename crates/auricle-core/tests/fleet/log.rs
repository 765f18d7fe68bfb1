//! What happens in the fleet, as the invariants read it: one line for each happening, in order of virtual time.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use auricle_core::ConversationStatus;

/// Virtual microseconds since the beginning.
pub(crate) type Micros = u64;

pub(crate) const SECOND: Micros = 1_000_000;

/// What somebody was shown or the store holds of a segment: a hash of its id and text.
pub(crate) type Piece = u64;

/// One happening. Numbers name things: a `life` is one client connection with its session and link, a `process` is one start
/// of a program, a `conn` one connection of a link to a pusher.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Happening {
    // Processes.
    Born {
        process: u32,
        pusher: bool,
    },
    Killed {
        process: u32,
    },
    Frozen {
        process: u32,
        until: Micros,
    },
    Draining {
        process: u32,
    },
    Fault(String),
    Calm,
    // Sessions.
    Joined {
        process: u32,
        life: u32,
        user: u32,
    },
    OpenAsked {
        life: u32,
    },
    Opened {
        life: u32,
        conversation: u32,
        epoch: u64,
    },
    Heard {
        life: u32,
        output: u64,
    },
    Shown {
        life: u32,
        piece: Piece,
    },
    ShownConversation {
        life: u32,
        conversation: u32,
    },
    ShownProcessing {
        life: u32,
        conversation: u32,
    },
    Closed {
        life: u32,
        why: &'static str,
    },
    ClientLeft {
        life: u32,
    },
    Drained {
        life: u32,
    },
    SessionOver {
        life: u32,
    },
    Spun {
        life: u32,
        who: &'static str,
    },
    // The store, at commit.
    Made {
        conversation: u32,
        user: u32,
    },
    Owned {
        conversation: u32,
        epoch: u64,
    },
    Stored {
        conversation: u32,
        epoch: u64,
        segment: u64,
        piece: Piece,
    },
    /// A process has said that it ends: its leases are free.
    Gone {
        process: u32,
    },
    Queued {
        conversation: u32,
        revision: u32,
        job: u32,
    },
    Deleted {
        conversation: u32,
        segments: usize,
    },
    Claimed {
        job: u32,
        process: u32,
        epoch: u64,
        at: i64,
        until: i64,
    },
    Renewed {
        job: u32,
        epoch: u64,
        until: i64,
    },
    Recorded {
        job: u32,
        epoch: u64,
    },
    Completed {
        job: u32,
        conversation: u32,
        revision: u32,
        epoch: u64,
    },
    Requeued {
        job: u32,
        epoch: u64,
    },
    Failed {
        job: u32,
        conversation: u32,
        reason: String,
    },
    Fenced {
        what: &'static str,
        number: u32,
        epoch: u64,
    },
    EffectRecorded {
        effect: u32,
        key: String,
    },
    EffectClaimed {
        effect: u32,
        epoch: u64,
    },
    EffectEnded {
        effect: u32,
        epoch: u64,
        state: &'static str,
    },
    // Work on ended conversations.
    AttemptBegan {
        process: u32,
        attempt: u32,
        job: u32,
        user: u32,
        fallback: bool,
    },
    AttemptEnded {
        process: u32,
        attempt: u32,
        why: &'static str,
    },
    Understood {
        job: u32,
        epoch: u64,
    },
    Delivered {
        effect: u32,
        key: String,
    },
    // Links.
    BreakerOpened {
        process: u32,
    },
    Rejected {
        life: u32,
    },
    ConnUp {
        conn: u32,
        life: u32,
    },
    ConnSick {
        conn: u32,
        how: &'static str,
    },
    ConnDown {
        conn: u32,
    },
    Captured {
        life: u32,
        frame: i16,
        conversation: u32,
        at: i64,
        bytes: u64,
    },
    WordsGiven {
        life: u32,
        conversation: u32,
        segments: Vec<u64>,
    },
    RequestGiven {
        life: u32,
        conversation: u32,
    },
    SampleGiven {
        life: u32,
        conversation: u32,
    },
    Written {
        life: u32,
        conn: u32,
        what: &'static str,
        bytes: u64,
        segments: Vec<u64>,
    },
    Buffered {
        life: u32,
        bytes: u64,
    },
    Dropped {
        life: u32,
        what: &'static str,
        amount: u64,
    },
    LinkOver {
        life: u32,
    },
    LinkLeaves {
        life: u32,
    },
    LinkRecovered {
        life: u32,
        connected: bool,
    },
    // What a pusher reads and answers.
    GotConversation {
        conn: u32,
        conversation: u32,
    },
    GotAudio {
        conn: u32,
        life: u32,
        announced: Option<u32>,
        frame: i16,
        at: i64,
    },
    GotWords {
        conn: u32,
        conversation: u32,
        segments: Vec<u64>,
    },
    GotRequest {
        conn: u32,
        request: u32,
        conversation: u32,
    },
    Answered {
        conn: u32,
        request: u32,
    },
    AnswerHeard {
        life: u32,
        conversation: u32,
    },
    // At the end.
    Final {
        conversation: u32,
        revision: u32,
        status: ConversationStatus,
        segments: usize,
    },
    FinalEffect {
        effect: u32,
        state: &'static str,
        attempts: u32,
    },
    FinalRequest {
        conn: u32,
        request: u32,
    },
}

/// All that happened.
#[derive(Default)]
pub(crate) struct Log {
    /// The present.
    pub(crate) at: Micros,
    pub(crate) entries: Vec<(Micros, Happening)>,
}

impl Log {
    pub(crate) fn say(&mut self, happening: Happening) {
        self.entries.push((self.at, happening));
    }

    pub(crate) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.entries.hash(&mut hasher);
        hasher.finish()
    }

    /// The last lines up to and with `index`, for a person.
    pub(crate) fn lines_to(&self, index: usize, most: usize) -> String {
        let end = (index + 1).min(self.entries.len());
        let mut text = String::new();
        for (at, happening) in &self.entries[end.saturating_sub(most)..end] {
            let _ = writeln!(text, "{:>12.6}  {happening:?}", *at as f64 / SECOND as f64);
        }
        text
    }
}

pub(crate) fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
