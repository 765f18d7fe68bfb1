//! Jobs and effects: the states they pass through, and how long a failed one waits.

use std::time::Duration;

use rand::{Rng, RngExt};

use crate::ids::{ConversationId, Revision};

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Waits for its `run_at`.
    Queued,
    /// A worker holds its lease.
    Leased,
    /// Done.
    Completed,
    /// Gave up after the last attempt or a permanent error; `jobs retry` revives it.
    Failed,
}

/// Where an effect stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EffectState {
    /// Waits for its `run_at`.
    Pending,
    /// A deliverer holds its lease.
    Leased,
    /// Its receiver took it.
    Delivered,
    /// Nobody was there to receive it, which is fine for this kind.
    Skipped,
    /// Gave up after the last attempt.
    Failed,
}

macro_rules! text_state {
    ($name:ident { $($variant:ident = $text:literal),+ }) => {
        impl $name {
            /// The stable text form.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }

            /// The value of a stable text form.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some($name::$variant),)+ _ => None }
            }
        }
    };
}

pub(crate) use text_state;

text_state!(JobState { Queued = "queued", Leased = "leased", Completed = "completed", Failed = "failed" });
text_state!(EffectState {
    Pending = "pending",
    Leased = "leased",
    Delivered = "delivered",
    Skipped = "skipped",
    Failed = "failed"
});

/// What an effect is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EffectSubject {
    /// A conversation's record.
    Conversation {
        /// Which.
        conversation: ConversationId,
        /// Of which finalisation.
        revision: Revision,
    },
    /// Something of the user's that is no conversation, e.g. `day:2026-11-25`.
    Other(String),
}

/// What makes an effect happen once: the receiver sees it as `Idempotency-Key`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EffectKey {
    /// What it is about.
    pub subject: EffectSubject,
    /// Which effect, e.g. `notify:memory_created`. The part before `:` names the deliverer.
    pub name: String,
}

impl EffectKey {
    /// The key of an effect about a conversation's record.
    pub fn of_conversation(
        conversation: ConversationId,
        revision: Revision,
        name: impl Into<String>,
    ) -> Self {
        Self { subject: EffectSubject::Conversation { conversation, revision }, name: name.into() }
    }

    /// The conversation it is about, if it is about one.
    pub fn conversation(&self) -> Option<&ConversationId> {
        match &self.subject {
            EffectSubject::Conversation { conversation, .. } => Some(conversation),
            EffectSubject::Other(_) => None,
        }
    }

    /// `conversation:{id}:finalization:{revision}:{name}`, or `{subject}:{name}`. Source: pusher-and-processing 5.1 (R4),
    /// extended by the name.
    pub fn idempotency_key(&self) -> String {
        match &self.subject {
            EffectSubject::Conversation { conversation, revision } => {
                format!("conversation:{conversation}:finalization:{revision}:{}", self.name)
            }
            EffectSubject::Other(subject) => format!("{subject}:{}", self.name),
        }
    }

    /// The deliverer's name: the part of `name` before the first `:`.
    pub fn kind(&self) -> &str {
        self.name.split(':').next().unwrap_or(&self.name)
    }
}

/// Exponential backoff with jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Wait after the first failure.
    pub first: Duration,
    /// Longest wait.
    pub max: Duration,
}

impl Backoff {
    /// How long to wait after the `failures`-th failure (1 for the first): `first * 2^(failures-1)`, at most `max`,
    /// times a factor drawn evenly from 0.75 to 1.25.
    pub fn delay(&self, failures: u32, entropy: &mut impl Rng) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let nominal = self.first.saturating_mul(1 << doublings).min(self.max);
        nominal.mul_f64(entropy.random_range(0.75..=1.25))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};

    #[test]
    fn delay_doubles_up_to_the_maximum_within_jitter() {
        let backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(60) };
        let mut entropy = StdRng::seed_from_u64(7);
        for (failures, nominal) in [(1, 1.0), (2, 2.0), (3, 4.0), (6, 32.0), (7, 60.0), (400, 60.0)] {
            let delay = backoff.delay(failures, &mut entropy).as_secs_f64();
            assert!((0.75 * nominal..=1.25 * nominal).contains(&delay), "{failures}: {delay}");
        }
    }

    #[test]
    fn an_effect_key_names_its_deliverer() {
        let key = EffectKey::of_conversation("c".into(), Revision(2), "notify:memory_created");
        assert_eq!(key.kind(), "notify");
        assert_eq!(key.idempotency_key(), "conversation:c:finalization:2:notify:memory_created");
        let day =
            EffectKey { subject: EffectSubject::Other("day:2026-11-25".into()), name: "webhook:t".into() };
        assert_eq!((day.idempotency_key().as_str(), day.conversation()), ("day:2026-11-25:webhook:t", None));
    }
}
