//! A day's summary without a model: the words of its conversations' own records, the longest conversations first.

use async_trait::async_trait;
use auricle_core::Conversation;
use unicode_segmentation::UnicodeSegmentation;

use super::{DayRequest, DayWords, SummariseDay};
use crate::UnderstandError;

/// Changes when the rules do.
const VERSION: &str = "day-1";
/// Conversations that are told of one by one.
const HIGHLIGHTS_MAX: usize = 5;
/// Characters of one's overview.
const HIGHLIGHT_CHARS_MAX: usize = 300;

/// Summaries by rules, labelled `local`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainDays;

#[async_trait]
impl SummariseDay for PlainDays {
    async fn summarise_day(&self, request: DayRequest<'_>, _id: &str) -> Result<DayWords, UnderstandError> {
        Ok(words(&request))
    }
}

pub(super) fn words(request: &DayRequest<'_>) -> DayWords {
    let of = request.conversations;
    let length = |each: &Conversation| each.finished_at.0 - each.started_at.0;
    let mut order: Vec<usize> = (0..of.len()).filter(|number| !of[*number].title().is_empty()).collect();
    order.sort_by_key(|number| std::cmp::Reverse(length(&of[*number])));
    order.truncate(HIGHLIGHTS_MAX);
    let longest = order.first().map(|number| &of[*number]);
    let headline = match (longest, of.len()) {
        (Some(first), 1) => first.title().to_owned(),
        (Some(first), many) => format!("{} and {} more", first.title(), many - 1),
        (None, many) => format!("{many} conversations"),
    };
    let emoji = longest.map(|first| first.structured.emoji.clone()).unwrap_or_default();
    // As they happened.
    order.sort_unstable();
    let begun = order.iter().map(|number| first_sentence(&of[*number].structured.overview));
    let overview: Vec<&str> = begun.filter(|sentence| !sentence.is_empty()).collect();
    let overview = if overview.is_empty() { headline.clone() } else { overview.join(" ") };
    let highlight = |number: &usize| {
        let overview = &of[*number].structured.overview;
        let summary: String = overview.chars().take(HIGHLIGHT_CHARS_MAX).collect();
        (of[*number].title().to_owned(), summary.trim().to_owned(), vec![*number])
    };
    DayWords {
        headline,
        overview,
        emoji,
        highlights: order.iter().map(highlight).collect(),
        provenance: ("local".into(), VERSION.into()),
    }
}

fn first_sentence(text: &str) -> &str {
    text.unicode_sentences().next().unwrap_or_default().trim()
}
