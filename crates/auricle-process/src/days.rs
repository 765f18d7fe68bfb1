//! Days made into records: when one is due, what is asked about it, and the loop that does it.
//!
//! Owns: the machine that decides (`due`), a summary without a model (`plain`), the loop (`work`). Leaves to others: rows, claims
//! and who is told (`auricle-store`), the model's call (`openai::day`). Invariants: a day is summarised once it is over, once; a
//! day without conversations has no summary; a finished call is recorded before anything else happens; whoever is told is told
//! once, in the transaction that keeps the summary.

pub mod due;
mod plain;
mod work;

use async_trait::async_trait;
use auricle_core::{ActionItem, Conversation, Provenance};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::UnderstandError;
use crate::understanding::PLAIN_EMOJI;
pub use plain::PlainDays;
pub use work::Days;

/// What is known of a day: its conversations' records, in the order in which they began, without their transcripts.
#[derive(Clone, Debug)]
pub struct DayRequest<'a> {
    pub date: Date,
    pub zone: &'a TimeZone,
    /// At least one.
    pub conversations: &'a [Conversation],
}

/// A day's summary, in the words of Omi's `summary_json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DaySummary {
    /// YYYY-MM-DD.
    pub date: String,
    pub headline: String,
    /// A few sentences.
    pub overview: String,
    pub day_emoji: String,
    pub stats: DayStats,
    pub highlights: Vec<Highlight>,
    pub action_items: Vec<DayItem>,
}

/// Counted, never guessed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DayStats {
    pub total_conversations: usize,
    pub total_duration_minutes: u64,
    pub action_items_count: usize,
}

/// One of the day's subjects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Highlight {
    pub topic: String,
    pub emoji: String,
    pub summary: String,
    /// What it rests on; never empty.
    pub conversation_ids: Vec<String>,
}

/// Something to do that was heard on that day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DayItem {
    pub description: String,
    pub completed: bool,
    pub conversation_id: String,
}

/// What a model or the rules write: everything that is counted or copied comes from the conversations themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DayWords {
    pub headline: String,
    pub overview: String,
    pub emoji: String,
    /// Each with the numbers of its conversations, from 0.
    pub highlights: Vec<(String, String, Vec<usize>)>,
    pub provenance: (String, String),
}

/// Writes about days.
#[async_trait]
pub trait SummariseDay: Send + Sync + 'static {
    /// Never invents: what it returns rests on the records. `id` names the call in another's log.
    async fn summarise_day(&self, request: DayRequest<'_>, id: &str) -> Result<DayWords, UnderstandError>;
    /// Whether it is known to be away.
    fn is_away(&self) -> bool {
        false
    }
}

/// What is kept and told: the words, and what is counted.
pub fn summary(request: &DayRequest<'_>, words: &DayWords) -> DaySummary {
    let of = request.conversations;
    let items: Vec<DayItem> = of
        .iter()
        .flat_map(|each| each.structured.action_items.iter().map(|item| day_item(each, item)))
        .collect();
    let micros: i64 = of.iter().map(|each| (each.finished_at.0 - each.started_at.0).max(0)).sum();
    let emoji_of = |numbers: &[usize]| {
        let first = numbers.first().and_then(|number| of.get(*number));
        first
            .map(|each| each.structured.emoji.clone())
            .filter(|emoji| !emoji.is_empty())
            .unwrap_or(PLAIN_EMOJI.into())
    };
    let highlights = words.highlights.iter().map(|(topic, summary, numbers)| Highlight {
        topic: topic.clone(),
        emoji: emoji_of(numbers),
        summary: summary.clone(),
        conversation_ids: numbers
            .iter()
            .filter_map(|number| of.get(*number))
            .map(|each| each.id.to_string())
            .collect(),
    });
    let emoji = if words.emoji.is_empty() { PLAIN_EMOJI } else { &words.emoji };
    DaySummary {
        date: request.date.to_string(),
        headline: words.headline.clone(),
        overview: words.overview.clone(),
        day_emoji: emoji.into(),
        stats: DayStats {
            total_conversations: of.len(),
            total_duration_minutes: u64::try_from(micros / 60_000_000).unwrap_or(0),
            action_items_count: items.len(),
        },
        highlights: highlights.filter(|each: &Highlight| !each.conversation_ids.is_empty()).collect(),
        action_items: items,
    }
}

fn day_item(of: &Conversation, item: &ActionItem) -> DayItem {
    DayItem {
        description: item.description.clone(),
        completed: item.completed,
        conversation_id: of.id.to_string(),
    }
}

impl DayWords {
    pub(crate) fn provenance(&self) -> Provenance {
        let (provider, version) = self.provenance.clone();
        Provenance { provider, version }
    }
}
