//! What will happen at a time: an occasion with a time of day, both said in one sentence.

use auricle_core::CalendarEvent;

use super::dates::Clock;
use super::text::{Sentence, capitalised, is_topic};

const OCCASIONS: [&str; 30] = [
    "meeting",
    "call",
    "appointment",
    "dinner",
    "lunch",
    "breakfast",
    "review",
    "party",
    "flight",
    "interview",
    "dentist",
    "class",
    "lecture",
    "concert",
    "exam",
    "wedding",
    "birthday",
    "match",
    "game",
    "presentation",
    "workshop",
    "viewing",
    "rehearsal",
    "train",
    "checkup",
    "visit",
    "coffee",
    "conference",
    "standup",
    "barbecue",
];
const MINUTES: u32 = 30;
const EVENTS_MAX: usize = 10;

/// Events with a clear time of day or day ahead, in the order in which they were said.
pub(super) fn of(sentences: &[Sentence], clock: &Clock) -> Vec<CalendarEvent> {
    let mut events: Vec<CalendarEvent> = Vec::new();
    for sentence in sentences {
        if is_past(sentence) {
            continue;
        }
        // A calendar needs a time of day, and none is invented: a day alone makes no event.
        let ahead = clock.find(&sentence.words).filter(|found| found.timed && clock.is_ahead(found.at));
        let Some(found) = ahead else { continue };
        let Some(at) = (0..sentence.words.len()).find(|at| is_occasion(&sentence.words, *at)) else {
            continue;
        };
        // A deadline ("before the meeting on Friday") is no occasion of its own.
        let deadline = matches!(
            sentence.words.get(found.words.start).map(String::as_str),
            Some("by" | "before" | "until")
        );
        if deadline || found.words.contains(&at) {
            continue;
        }
        let title = name(&sentence.words, at, &found.words);
        if events.iter().any(|event| event.title == title && event.start == found.at) {
            continue;
        }
        events.push(CalendarEvent {
            title,
            description: String::new(),
            start: found.at,
            duration_minutes: MINUTES,
            created: false,
        });
        if events.len() == EVENTS_MAX {
            break;
        }
    }
    events
}

/// An occasion's name, and not the verb that sounds the same ("I'll call them").
fn is_occasion(words: &[String], at: usize) -> bool {
    let verb = at.checked_sub(1).is_some_and(|before| {
        matches!(
            words[before].as_str(),
            "i'll"
                | "will"
                | "to"
                | "can"
                | "could"
                | "please"
                | "should"
                | "we'll"
                | "must"
                | "i"
                | "we"
                | "you"
                | "and"
                | "they"
        )
    });
    OCCASIONS.contains(&words[at].as_str()) && !verb
}

fn is_past(sentence: &Sentence) -> bool {
    sentence
        .words
        .iter()
        .any(|word| matches!(word.as_str(), "was" | "were" | "had" | "went" | "yesterday" | "ago"))
}

/// The occasion with the words of substance right before it: "quarterly review".
fn name(words: &[String], at: usize, date: &std::ops::Range<usize>) -> String {
    let mut begin = at;
    while begin > 0 && at - begin < 2 && is_topic(&words[begin - 1]) && !date.contains(&(begin - 1)) {
        begin -= 1;
    }
    capitalised(&words[begin..=at].join(" "))
}
