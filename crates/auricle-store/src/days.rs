//! Summaries of days: the values that go in and out.

use auricle_core::{Epoch, Provenance, UnixMicros, UserId};

/// A day of one user that may be summarised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedDay {
    /// YYYY-MM-DD in `zone`.
    pub date: String,
    /// IANA name.
    pub zone: String,
    pub from: UnixMicros,
    /// The next day's beginning.
    pub until: UnixMicros,
}

/// What has become of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DayState {
    /// Waits for its time.
    Queued,
    /// Is being made.
    Leased,
    Completed,
    /// Given up, as `last_error` says; asking for it again begins anew.
    Failed,
}

impl DayState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Leased => "leased",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Queued, Self::Leased, Self::Completed, Self::Failed]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// A day as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct DayRecord {
    pub day: PlannedDay,
    pub state: DayState,
    /// How often it was asked for again.
    pub revision: u32,
    /// JSON; `None` until it was first made. The old one stays while it is made anew.
    pub summary: Option<String>,
    /// How many the summary rests on.
    pub conversations: u32,
    /// What made the summary.
    pub provenance: Option<Provenance>,
    pub made_at: Option<UnixMicros>,
    pub last_error: Option<String>,
}

/// A day that somebody summarises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayClaim {
    pub user: UserId,
    pub day: PlannedDay,
    pub revision: u32,
    pub epoch: Epoch,
    /// This one included.
    pub attempts: u32,
    /// Attempts that were not counted since the last that was.
    pub postponed: u32,
    pub away_since: Option<UnixMicros>,
    /// What an earlier attempt's finished call brought.
    pub step: Option<String>,
}

/// A summary, and what those are told who hear of days.
#[derive(Clone, Debug)]
pub struct DayCompletion {
    /// JSON.
    pub summary: String,
    /// Of the effects, which are recorded in the same transaction if the day is over; each target is told of a day once.
    pub payload: String,
    pub conversations: u32,
    pub provenance: Provenance,
    pub now: UnixMicros,
}

/// How an attempt ended that made no summary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DayOutcome {
    /// Counted, and tried again.
    Retry {
        at: UnixMicros,
        error: String,
    },
    /// Not counted: what it needs is away.
    Postponed {
        at: UnixMicros,
        error: String,
    },
    /// Given back, not counted.
    Released,
    Failed {
        error: String,
    },
}
