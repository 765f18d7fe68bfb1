//! What an answer is worth: everything in it is checked, bounded and resolved before it becomes a record.

use auricle_core::{ActionItem, CalendarEvent, Category, Structured, UnixMicros};
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use serde::Deserialize;
use unicode_segmentation::UnicodeSegmentation;

use super::failure::Failure;
use crate::Request;
use crate::understanding::PLAIN_EMOJI;

/// Source: pusher-and-processing 4.2, as the other numbers.
pub(super) const TITLE_WORDS_MAX: usize = 10;
const TITLE_CHARS_MAX: usize = 120;
const OVERVIEW_CHARS_MAX: usize = 4_000;
const DESCRIPTION_CHARS_MAX: usize = 500;
const ITEMS_MAX: usize = 50;
const EVENTS_MAX: usize = 20;
const MINUTES: std::ops::RangeInclusive<i64> = 1..=180;
const MINUTES_DEFAULT: i64 = 30;
/// A due date further in the past than this is a mistake.
const PAST_MICROS_MAX: i64 = 86_400 * 1_000_000;

/// What the model made of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// Not worth keeping.
    Discard,
    /// With a title.
    Keep(Structured),
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
    refusal: Option<String>,
}

#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    discard: bool,
    title: String,
    overview: String,
    #[serde(default)]
    emoji: String,
    #[serde(default)]
    category: String,
    action_items: Vec<Item>,
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Item {
    description: String,
    due_at: Option<String>,
}

#[derive(Deserialize)]
struct Event {
    title: String,
    #[serde(default)]
    description: String,
    start: String,
    duration_minutes: Option<i64>,
}

/// Reads a response's body. No failure holds anything of it.
pub(super) fn read(body: &[u8], request: &Request<'_>, may_discard: bool) -> Result<Answer, Failure> {
    let completion: Completion = serde_json::from_slice(body).map_err(|_| {
        Failure::senseless("the language model's answer is no chat completion; check `llm.url`")
    })?;
    let choice = completion.choices.into_iter().next();
    let choice = choice.ok_or_else(|| Failure::senseless("the language model's answer is empty"))?;
    if choice.message.refusal.is_some() || choice.finish_reason.as_deref() == Some("content_filter") {
        return Err(Failure::declined());
    }
    let content = choice.message.content.unwrap_or_default();
    let record: Record = serde_json::from_str(unfenced(&content)).map_err(|_| {
        Failure::senseless(match choice.finish_reason.as_deref() {
            Some("length") => "the language model's answer was cut off by the model's own limit of length",
            _ => "the language model's answer is not the JSON that was asked for",
        })
    })?;
    if may_discard && record.discard {
        return Ok(Answer::Discard);
    }
    let title = title(&record.title);
    if title.is_empty() {
        return Err(Failure::senseless("the language model gave no title (L14)"));
    }
    let items = record.action_items.into_iter().filter_map(|item| action_item(item, request));
    let events = record.events.into_iter().filter_map(|event| calendar_event(event, &request.time_zone));
    Ok(Answer::Keep(Structured {
        title,
        overview: plain(&record.overview, OVERVIEW_CHARS_MAX),
        emoji: emoji(&record.emoji),
        category: Category::parse(&record.category).unwrap_or_default(),
        action_items: items.take(ITEMS_MAX).collect(),
        events: events.take(EVENTS_MAX).collect(),
        sections: Vec::new(),
    }))
}

/// Models without JSON output wrap theirs in a fence.
fn unfenced(content: &str) -> &str {
    match (content.find('{'), content.rfind('}')) {
        (Some(from), Some(to)) if from < to => &content[from..=to],
        _ => content,
    }
}

/// On one line, bounded, without control characters.
fn plain(text: &str, chars_max: usize) -> String {
    let visible: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = visible.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(chars_max).collect::<String>().trim_end().to_owned()
}

fn title(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().take(TITLE_WORDS_MAX).collect();
    plain(&words.join(" "), TITLE_CHARS_MAX)
}

/// The first, if it is one.
fn emoji(text: &str) -> String {
    let first = text.trim().graphemes(true).next();
    let first = first.filter(|first| !first.chars().any(|c| c.is_ascii() || c.is_alphanumeric()));
    first.unwrap_or(PLAIN_EMOJI).to_owned()
}

fn action_item(item: Item, request: &Request<'_>) -> Option<ActionItem> {
    let description = plain(&item.description, DESCRIPTION_CHARS_MAX);
    let due = item.due_at.as_deref().and_then(|text| when(text, &request.time_zone));
    let due_at = due.map(|due| due.at).filter(|at| at.0 >= request.now.0 - PAST_MICROS_MAX);
    (!description.is_empty()).then_some(ActionItem {
        description,
        completed: false,
        created_at: Some(request.now),
        updated_at: None,
        due_at,
        completed_at: None,
    })
}

/// A calendar needs a time of day, and none is invented.
fn calendar_event(event: Event, zone: &TimeZone) -> Option<CalendarEvent> {
    let title = plain(&event.title, TITLE_CHARS_MAX);
    let start = when(&event.start, zone).filter(|start| start.timed)?;
    let minutes = event.duration_minutes.unwrap_or(MINUTES_DEFAULT).clamp(*MINUTES.start(), *MINUTES.end());
    (!title.is_empty()).then_some(CalendarEvent {
        title,
        description: plain(&event.description, DESCRIPTION_CHARS_MAX),
        start: start.at,
        duration_minutes: u32::try_from(minutes).ok()?,
        created: false,
    })
}

struct When {
    at: UnixMicros,
    /// Whether it has a time of day.
    timed: bool,
}

/// An ISO 8601 moment, with an offset or in `zone`; a day alone ends at 23:59.
fn when(text: &str, zone: &TimeZone) -> Option<When> {
    let text = text.trim();
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(When { at: UnixMicros(at.as_microsecond()), timed: true });
    }
    let timed = text.contains(['T', 't', ':']);
    let local = match timed {
        true => text.parse::<DateTime>().ok()?,
        false => text.parse::<Date>().ok()?.at(23, 59, 0, 0),
    };
    let at = local.to_zoned_datetime(zone.clone()).ok()?.timestamp();
    Some(When { at: UnixMicros(at.as_microsecond()), timed })
}
