//! A day's summary by the language model: one call over its records.

use async_trait::async_trait;
use auricle_core::breaker::BreakerState;
use auricle_core::{Conversation, UnixMicros};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::json;

use super::answer::{Wrong, emoji, first_words, parsed};
use super::clean::{plain, quoted};
use super::prompt::{Call, Line, block, numbers, object, shown, text};
use super::{OpenAi, long};
use crate::UnderstandError;
use crate::days::{DayRequest, DayWords, SummariseDay};

/// Changes with `prompts/day.md`.
const EDITION: u32 = 1;
const DAY: &str = include_str!("../../prompts/day.md");
const HEADLINE_WORDS_MAX: usize = 10;
const HEADLINE_CHARS_MAX: usize = 120;
const OVERVIEW_CHARS_MAX: usize = 2_000;
const HIGHLIGHTS_MAX: usize = 8;
const TOPIC_CHARS_MAX: usize = 120;
const HIGHLIGHT_CHARS_MAX: usize = 600;
/// Characters of one record's overview, while there is room for so many; else half of it, and so on.
const RECORD_CHARS_MAX: usize = 1_200;
/// Fewer say nothing: then conversations are left out instead, the shortest first.
const RECORD_CHARS_MIN: usize = 75;

#[derive(Deserialize)]
struct Answer {
    headline: String,
    overview: String,
    #[serde(default)]
    emoji: String,
    #[serde(default)]
    highlights: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    topic: String,
    summary: String,
    #[serde(default)]
    conversations: Vec<i64>,
}

#[async_trait]
impl SummariseDay for OpenAi {
    fn is_away(&self) -> bool {
        self.client.breaker() != BreakerState::Closed
    }

    async fn summarise_day(&self, request: DayRequest<'_>, id: &str) -> Result<DayWords, UnderstandError> {
        let ask = |lines: &[Line]| call(&request, lines);
        let room = ask(&[]).room(self.client.window);
        let lines = lines(request.conversations, request.zone, room);
        let said = lines.iter().map(|line| line.text.to_lowercase()).collect::<Vec<_>>().join("\n");
        let version = format!("{}/day-{EDITION}", self.model.name);
        let read = |content: &str| words(content, request.conversations.len(), &said, &version);
        self.client.ask(&self.model, &ask(&lines), id, read).await.map_err(UnderstandError::from)
    }
}

fn call(request: &DayRequest<'_>, lines: &[Line]) -> Call {
    let zone = request.zone.iana_name().unwrap_or("of the offset given");
    let mut material = format!("The day: {}\nTime zone: {zone}\n", request.date.strftime("%A %Y-%m-%d"));
    block(&mut material, "records", &shown(lines));
    let highlight = object(&[("topic", text()), ("summary", text()), ("conversations", numbers())]);
    let schema = object(&[
        ("headline", text()),
        ("overview", text()),
        ("emoji", text()),
        ("highlights", json!({ "type": "array", "items": highlight })),
    ]);
    Call::new("day", DAY.to_owned(), material, schema)
}

/// A line for each record, in `room` tokens: shorter ones if they are many, and without the shortest conversations if even those
/// are too many, which the model is told.
fn lines(of: &[Conversation], zone: &TimeZone, room: usize) -> Vec<Line> {
    let mut chars = RECORD_CHARS_MAX;
    loop {
        let all: Vec<_> = of.iter().enumerate().map(|(at, each)| line(at, each, zone, chars)).collect();
        if long::tokens(&all) <= room {
            return all;
        }
        if chars / 2 < RECORD_CHARS_MIN {
            return longest(of, all, room);
        }
        chars /= 2;
    }
}

fn line(at: usize, of: &Conversation, zone: &TimeZone, chars_max: usize) -> Line {
    let overview: String = of.structured.overview.chars().take(chars_max).collect();
    let text = format!("{} {}: {}", time(of.started_at, zone), quoted(of.title()), quoted(&overview));
    Line { numbers: vec![at + 1], text }
}

fn longest(of: &[Conversation], all: Vec<Line>, room: usize) -> Vec<Line> {
    let mut order: Vec<usize> = (0..of.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(of[*at].finished_at.0 - of[*at].started_at.0));
    let note =
        |left_out: usize| Line { numbers: Vec::new(), text: format!("[{left_out} short ones are left out]") };
    let mut left = room.saturating_sub(note(of.len()).tokens());
    order.retain(|at| left.checked_sub(all[*at].tokens()).map(|rest| left = rest).is_some());
    let left_out = of.len() - order.len();
    let kept = all.into_iter().enumerate().filter(|(at, _)| order.contains(at)).map(|(_, line)| line);
    kept.chain((left_out > 0).then(|| note(left_out))).collect()
}

fn time(at: UnixMicros, zone: &TimeZone) -> String {
    let Ok(at) = Timestamp::from_microsecond(at.0) else { return "at some time".into() };
    at.to_zoned_datetime(zone.clone()).strftime("%H:%M").to_string()
}

/// What the answer is worth: bounded, without links, and with nothing that rests on no conversation.
fn words(content: &str, conversations: usize, said: &str, version: &str) -> Result<DayWords, Wrong> {
    let answer: Answer = parsed(content)?;
    let headline = first_words(&plain(&answer.headline, HEADLINE_CHARS_MAX, said), HEADLINE_WORDS_MAX);
    let overview = plain(&answer.overview, OVERVIEW_CHARS_MAX, said);
    if headline.is_empty() || overview.is_empty() {
        return Err(Wrong::new("the language model wrote nothing about the day"));
    }
    let highlights = answer.highlights.into_iter().filter_map(|part| {
        let known = part.conversations.iter().filter_map(|number| usize::try_from(number - 1).ok());
        let mut known: Vec<usize> = known.filter(|number| *number < conversations).collect();
        known.sort_unstable();
        known.dedup();
        let (topic, summary) =
            (plain(&part.topic, TOPIC_CHARS_MAX, said), plain(&part.summary, HIGHLIGHT_CHARS_MAX, said));
        (!known.is_empty() && !topic.is_empty()).then_some((topic, summary, known))
    });
    Ok(DayWords {
        headline,
        overview,
        emoji: emoji(&answer.emoji),
        highlights: highlights.take(HIGHLIGHTS_MAX).collect(),
        provenance: ("llm".into(), version.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    /// Each edition and the hash of its file; as with the records' prompts, rows are added and never changed.
    const EDITIONS: &[(u32, &str)] = &[(1, "f5ebab029a42f8e8")];

    #[test]
    fn an_edited_prompt_has_an_edition_of_its_own() {
        let hash: String = Sha256::digest(DAY).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(EDITIONS.last(), Some(&(EDITION, hash.as_str())), "add a row and raise `EDITION`");
    }

    #[test]
    fn what_rests_on_no_conversation_is_not_believed() {
        let content = r#"{"headline": "A day", "overview": "It was. See [this](http://x.example/?q=1)", "emoji": "x",
            "highlights": [{"topic": "Real", "summary": "s", "conversations": [2, 2, 9, -1]},
                {"topic": "Invented", "summary": "s", "conversations": []},
                {"topic": "Elsewhere", "summary": "s", "conversations": [3, 0]}]}"#;
        let words = words(content, 2, "", "m/day-1").unwrap();
        assert_eq!(words.highlights, [("Real".to_owned(), "s".to_owned(), vec![1])]);
        assert!(!words.overview.contains("http"), "{}", words.overview);
        assert_eq!(words.provenance, ("llm".to_owned(), "m/day-1".to_owned()));
    }

    #[test]
    fn an_answer_without_words_is_none() {
        for content in
            ["", "{}", r#"{"headline": " ", "overview": "x"}"#, r#"{"headline": "x", "overview": ""}"#]
        {
            assert!(words(content, 2, "", "v").is_err(), "{content}");
        }
    }

    #[test]
    fn many_records_fit_however_small_the_room() {
        let mut one = super::super::tests::conversation(&[]);
        one.structured.title = "Planning".into();
        one.structured.overview = "word ".repeat(400);
        let of: Vec<_> = (0..120)
            .map(|at| {
                let mut each = one.clone();
                each.finished_at = UnixMicros(at * 60_000_000);
                each
            })
            .collect();
        for room in [100, 1_000, 5_000, 100_000] {
            let lines = lines(&of, &TimeZone::UTC, room);
            assert!(long::tokens(&lines) <= room, "{room}");
            assert!(!lines.is_empty());
        }
        let few = lines(&of, &TimeZone::UTC, 1_000);
        assert!(few.last().unwrap().text.contains("left out"));
        // The longest are those that stay.
        assert!(few.iter().any(|line| line.numbers == [120]));
    }
}
