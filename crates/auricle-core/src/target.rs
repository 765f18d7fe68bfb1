//! Those who hear of a user's conversations: developers' webhooks and apps; and when one that fails is given up.

use std::time::Duration;

use crate::UnixMicros;
use crate::job::text_state;

/// Whose a target is. Source: pusher-and-processing 5.1, which gives the two different contracts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetKind {
    /// The user's own webhook: any 2xx takes a delivery.
    Developer,
    /// An app that answers: 200 takes a delivery, and the answer may hold a message for the user.
    App,
}

/// What a target hears of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// Records of conversations, once each.
    Conversation,
    /// Words, as they are stored.
    Transcript,
    /// Audio, as it is heard.
    Audio,
    /// The summary of a day. Developers only.
    DaySummary,
}

/// Whether a target is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetState {
    /// It is.
    On,
    /// What concerns records waits until it is on again; realtime passes it by.
    Paused,
    /// Nothing is recorded for it, and what waited has failed.
    Off,
}

text_state!(TargetKind { Developer = "developer", App = "app" });
text_state!(Trigger {
    Conversation = "conversation",
    Transcript = "transcript",
    Audio = "audio",
    DaySummary = "day_summary"
});
text_state!(TargetState { On = "on", Paused = "paused", Off = "off" });

impl Trigger {
    /// Whether it is delivered at most once, while people speak, and leaves no row.
    pub fn is_realtime(self) -> bool {
        matches!(self, Self::Transcript | Self::Audio)
    }

    /// Whether a target of this kind may have it.
    pub fn is_for(self, kind: TargetKind) -> bool {
        self != Self::DaySummary || kind == TargetKind::Developer
    }
}

/// From when on failures have consequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthNumbers {
    /// Failing without a success for this long: its user is warned.
    pub warn_after: Duration,
    /// Failing without a success for this long: it is switched off.
    pub off_after: Duration,
    /// Neither before this many failures: two deliveries a week apart are no outage.
    pub failures_min: u32,
}

/// How deliveries to a target go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// When the first of the failures since the last success was.
    pub failing_since: Option<UnixMicros>,
    /// How many they are.
    pub failures: u32,
    /// When its user was warned of them.
    pub warned_at: Option<UnixMicros>,
}

/// What failures lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Warn its user.
    Warn,
    /// Switch it off, and tell its user.
    Off,
}

impl Health {
    /// Hears of `failures` failed tries without a success between them, the last one at `now`. A success is
    /// [`Health::default`].
    pub fn failed(&mut self, failures: u32, now: UnixMicros, numbers: &HealthNumbers) -> Option<Verdict> {
        let since = *self.failing_since.get_or_insert(now);
        self.failures = self.failures.saturating_add(failures);
        if self.failures < numbers.failures_min {
            return None;
        }
        let failing_for = now.saturating_since(since);
        if failing_for >= numbers.off_after {
            return Some(Verdict::Off);
        }
        let warns = failing_for >= numbers.warn_after && self.warned_at.is_none();
        warns.then(|| {
            self.warned_at = Some(now);
            Verdict::Warn
        })
    }
}

text_state!(Verdict { Warn = "warn", Off = "off" });

impl Verdict {
    /// What the target's user is told.
    pub fn notice(self, name: &str, numbers: &HealthNumbers, error: &str) -> String {
        let (warn, off) = (hours(numbers.warn_after), hours(numbers.off_after));
        match self {
            Self::Warn => format!(
                "Webhook \u{201c}{name}\u{201d}: every delivery has failed for {warn} (the last: {error}). \
                 It is switched off after {off}."
            ),
            Self::Off => format!(
                "Webhook \u{201c}{name}\u{201d} is switched off: every delivery failed for {off} (the last: {error}). \
                 Once it works again, resume it and replay what failed."
            ),
        }
    }
}

fn hours(time: Duration) -> String {
    match time.as_secs() {
        secs if secs >= 3_600 && secs % 3_600 == 0 => format!("{} h", secs / 3_600),
        _ => format!("{time:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: HealthNumbers = HealthNumbers {
        warn_after: Duration::from_secs(24 * 3_600),
        off_after: Duration::from_secs(72 * 3_600),
        failures_min: 3,
    };

    fn at_hour(hour: i64) -> UnixMicros {
        UnixMicros(hour * 3_600_000_000)
    }

    #[test]
    fn a_target_is_warned_after_a_day_and_off_after_three() {
        let mut health = Health::default();
        let verdicts: Vec<_> = (0..80)
            .filter_map(|hour| health.failed(1, at_hour(hour), &NUMBERS).map(|verdict| (hour, verdict)))
            .take(2)
            .collect();
        assert_eq!(verdicts, [(24, Verdict::Warn), (72, Verdict::Off)], "warned once");
    }

    #[test]
    fn a_success_begins_anew() {
        let mut health = Health::default();
        assert!((0..71).filter_map(|hour| health.failed(1, at_hour(hour), &NUMBERS)).count() == 1);
        health = Health::default();
        assert_eq!(health.failed(5, at_hour(71), &NUMBERS), None);
        assert_eq!(health.failed(5, at_hour(94), &NUMBERS), None);
        assert_eq!(health.failed(5, at_hour(95), &NUMBERS), Some(Verdict::Warn));
    }

    #[test]
    fn a_few_failures_far_apart_are_no_outage() {
        let mut health = Health::default();
        assert_eq!(health.failed(1, at_hour(0), &NUMBERS), None);
        assert_eq!(health.failed(1, at_hour(1_000), &NUMBERS), None);
        assert_eq!(health.failed(1, at_hour(2_000), &NUMBERS), Some(Verdict::Off));
    }

    #[test]
    fn a_notice_says_what_happened_and_what_to_do() {
        let warning = Verdict::Warn.notice("mine", &NUMBERS, "a:80 answered HTTP 500");
        assert!(warning.contains("24 h") && warning.contains("72 h") && warning.contains("HTTP 500"));
        assert!(Verdict::Off.notice("mine", &NUMBERS, "x").contains("resume"));
    }
}
