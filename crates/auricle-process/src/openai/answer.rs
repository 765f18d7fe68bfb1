//! What an answer is worth: everything in it is checked, bounded and resolved before it becomes a record.

use std::collections::HashSet;

use auricle_core::{ActionItem, CalendarEvent, Category, Section, SectionKind, Structured, UnixMicros};
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use unicode_segmentation::UnicodeSegmentation;

use super::clean::{markdown, plain, quoted};
use super::prompt::{Line, descriptions};
use crate::Request;
use crate::understanding::PLAIN_EMOJI;

/// Source: pusher-and-processing 4.2, as the other numbers.
const TITLE_WORDS_MAX: usize = 10;
const TITLE_CHARS_MAX: usize = 120;
const OVERVIEW_CHARS_MAX: usize = 4_000;
const DESCRIPTION_CHARS_MAX: usize = 500;
const ITEM_WORDS_MAX: usize = 15;
const ITEMS_MAX: usize = 50;
const EVENTS_MAX: usize = 20;
const SECTIONS_MAX: usize = 20;
const MEMORIES_MAX: usize = 20;
const MEMORY_CHARS_MAX: usize = 200;
const NOTES_MAX: usize = 30;
const NOTE_CHARS_MAX: usize = 400;
const NOTE_LINES_MAX: usize = 20;
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
    Keep {
        structured: Structured,
        /// Lasting facts about the user.
        memories: Vec<String>,
    },
}

/// Why an answer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// For the conversation's user: holds nothing of the answer.
    pub(super) reason: &'static str,
    /// For the model, which knows its answer: where it went wrong.
    pub(super) detail: String,
}

impl Wrong {
    pub(super) fn new(reason: &'static str) -> Self {
        Self { reason, detail: String::new() }
    }
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
    events: Vec<Event>,
    #[serde(default)]
    sections: Vec<Part>,
    action_items: Vec<Item>,
    #[serde(default)]
    memories: Vec<String>,
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

#[derive(Deserialize)]
struct Part {
    heading: String,
    body: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    lines: Vec<i64>,
}

#[derive(Deserialize)]
struct Notes {
    notes: Vec<Note>,
}

#[derive(Deserialize)]
struct Note {
    text: String,
    lines: Vec<i64>,
}

/// Reads an answer that should be a record.
pub(super) fn record(content: &str, request: &Request<'_>, may_discard: bool) -> Result<Answer, Wrong> {
    let record: Record = parsed(content)?;
    if may_discard && record.discard {
        return Ok(Answer::Discard);
    }
    let said = said(request);
    let title = first_words(&plain(&record.title, TITLE_CHARS_MAX, &said), TITLE_WORDS_MAX);
    if title.is_empty() {
        return Err(Wrong::new("the language model gave no title (L14)"));
    }
    let mut known: HashSet<_> = request.open_items.iter().map(|item| bare(item)).collect();
    let items = record.action_items.into_iter().filter_map(|item| action_item(item, request, &said));
    let items = items.filter(|item| known.insert(bare(&item.description)));
    let events = record.events.into_iter().filter_map(|event| calendar_event(event, request, &said));
    let sections = record.sections.into_iter().filter_map(|part| section(part, request, &said));
    let mut told = HashSet::new();
    let memories = record.memories.iter().map(|fact| plain(fact, MEMORY_CHARS_MAX, &said));
    let memories = memories.filter(|fact| !fact.is_empty() && told.insert(bare(fact)));
    let structured = Structured {
        title,
        overview: plain(&record.overview, OVERVIEW_CHARS_MAX, &said),
        emoji: emoji(&record.emoji),
        category: Category::parse(&record.category).unwrap_or_default(),
        action_items: items.take(ITEMS_MAX).collect(),
        events: events.take(EVENTS_MAX).collect(),
        sections: sections.take(SECTIONS_MAX).collect(),
    };
    Ok(Answer::Keep { structured, memories: memories.take(MEMORIES_MAX).collect() })
}

/// Reads an answer that should be notes on `lines`, of `tokens_max` tokens at most: what is beyond is left out.
pub(super) fn notes(content: &str, lines: &[Line], tokens_max: usize) -> Result<Vec<Line>, Wrong> {
    let found: Notes = parsed(content)?;
    let given: HashSet<_> = lines.iter().flat_map(|line| &line.numbers).copied().collect();
    let mut left = tokens_max;
    let read = found.notes.into_iter().filter_map(|note| {
        let mut numbers: Vec<_> = note
            .lines
            .iter()
            .filter_map(|at| usize::try_from(*at).ok())
            .filter(|at| given.contains(at))
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.truncate(NOTE_LINES_MAX);
        // It goes into another prompt.
        let text = quoted(&note.text).chars().take(NOTE_CHARS_MAX).collect::<String>();
        (!text.is_empty() && !numbers.is_empty()).then_some(Line { numbers, text })
    });
    let fitting = read.take(NOTES_MAX).take_while(|line| {
        let rest = left.checked_sub(line.tokens());
        rest.map(|rest| left = rest).is_some()
    });
    let fitting: Vec<_> = fitting.collect();
    match fitting.is_empty() {
        true => Err(Wrong::new("the language model took no notes of a part")),
        false => Ok(fitting),
    }
}

pub(super) fn parsed<T: DeserializeOwned>(content: &str) -> Result<T, Wrong> {
    serde_json::from_str(unfenced(content)).map_err(|error| Wrong {
        reason: "the language model's answer is not the JSON that was asked for",
        detail: error.to_string(),
    })
}

/// Models without JSON output wrap theirs in a fence or in words.
fn unfenced(content: &str) -> &str {
    match (content.find('{'), content.rfind('}')) {
        (Some(from), Some(to)) if from < to => &content[from..=to],
        _ => content,
    }
}

/// All that was said and seen, in small letters.
fn said(request: &Request<'_>) -> String {
    let conversation = request.conversation;
    let spoken = conversation.segments.iter().map(|segment| segment.text.as_str());
    let all: Vec<_> = spoken.chain(descriptions(conversation)).collect();
    all.join("\n").to_lowercase()
}

pub(super) fn first_words(text: &str, words_max: usize) -> String {
    text.split_whitespace().take(words_max).collect::<Vec<_>>().join(" ")
}

/// Its letters and digits: two that differ in nothing else are the same.
fn bare(text: &str) -> String {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

/// The first, if it is one.
pub(super) fn emoji(text: &str) -> String {
    let first = text.trim().graphemes(true).next();
    let first = first.filter(|first| !first.chars().any(|c| c.is_ascii() || c.is_alphanumeric()));
    first.unwrap_or(PLAIN_EMOJI).to_owned()
}

fn section(part: Part, request: &Request<'_>, said: &str) -> Option<Section> {
    let heading = plain(&part.heading, TITLE_CHARS_MAX, said);
    let body = markdown(&part.body, OVERVIEW_CHARS_MAX, said);
    let segments = &request.conversation.segments;
    let mut known = HashSet::new();
    let numbers = part.lines.iter().filter_map(|at| usize::try_from(*at).ok()?.checked_sub(1));
    let numbers = numbers.filter(|at| *at < segments.len() && known.insert(*at));
    let segments = numbers.map(|at| segments[at].id.clone()).collect();
    let kind = SectionKind::parse(&part.kind).unwrap_or_default();
    (!heading.is_empty() && !body.is_empty()).then_some(Section { heading, body, kind, segments })
}

fn action_item(item: Item, request: &Request<'_>, said: &str) -> Option<ActionItem> {
    let description = first_words(&plain(&item.description, DESCRIPTION_CHARS_MAX, said), ITEM_WORDS_MAX);
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
fn calendar_event(event: Event, request: &Request<'_>, said: &str) -> Option<CalendarEvent> {
    let title = plain(&event.title, TITLE_CHARS_MAX, said);
    let start = when(&event.start, &request.time_zone).filter(|start| start.timed)?;
    let minutes = event.duration_minutes.unwrap_or(MINUTES_DEFAULT).clamp(*MINUTES.start(), *MINUTES.end());
    (!title.is_empty()).then_some(CalendarEvent {
        title,
        description: plain(&event.description, DESCRIPTION_CHARS_MAX, said),
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
