//! What a person or a script sees.

#![expect(clippy::print_stderr, reason = "this is the one place that prints")]

use std::io::{ErrorKind, IsTerminal, Write as _};

use auricle_wire::conversation::{Conversation, Segment};
use auricle_wire::time::WireTime;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use serde::Serialize;

/// One line on standard output. Ends the program if nobody reads any more: `auricle … | head` has what it wants.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(gone) if gone.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(trouble) => {
            error(&format!("cannot write to standard output: {trouble}"));
            std::process::exit(1);
        }
    }
}

/// A trouble on standard error.
pub(crate) fn error(text: &str) {
    eprintln!("auricle: {text}");
}

/// A remark on standard error, so that standard output stays for results.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// JSON for scripts.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Whether a person is looking.
pub(crate) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// A word this long is not broken between two lines of a table, if that can be helped.
const WORD_MAX: usize = 16;

/// A table as wide as the terminal, or 80 columns. The first column is never broken: it holds what people copy; nor are words of
/// usual length. Columns in which no row has anything are left out.
pub(crate) fn table(head: &[&str], mut rows: Vec<Vec<String>>) -> String {
    let is_used =
        |column: &usize| rows.iter().any(|row| row.get(*column).is_some_and(|cell| !cell.is_empty()));
    let used: Vec<usize> = (0..head.len()).filter(|column| *column == 0 || is_used(column)).collect();
    let head: Vec<&str> = used.iter().map(|column| head[*column]).collect();
    for row in &mut rows {
        *row = used.iter().map(|column| row.get(*column).cloned().unwrap_or_default()).collect();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(&head);
    let width = table.width().unwrap_or(80);
    table.set_width(width);
    let longest = |column: usize| {
        let cells = rows.iter().map(|row| row[column].as_str()).chain([head[column]]);
        cells.flat_map(str::split_whitespace).map(|word| word.chars().count()).max().unwrap_or(0)
    };
    // With a space on either side.
    let lower = |column: usize, word_max: usize| longest(column).min(word_max) as u16 + 2;
    let first = rows.iter().map(|row| row[0].chars().count()).max().unwrap_or(0) as u16 + 2;
    let fits = |word_max: &usize| {
        first + (1..head.len()).map(|column| lower(column, *word_max)).sum::<u16>() <= width
    };
    let word_max = (1..=WORD_MAX).rev().find(fits);
    for column in 0..head.len() {
        let constraint = match (column, word_max) {
            (0, _) => ColumnConstraint::ContentWidth,
            (_, Some(word_max)) => ColumnConstraint::LowerBoundary(Width::Fixed(lower(column, word_max))),
            (_, None) => continue,
        };
        if let Some(made) = table.column_mut(column) {
            made.set_constraint(constraint);
        }
    }
    for row in rows {
        table.add_row(row);
    }
    table.to_string()
}

/// Local time, to the minute.
pub(crate) fn when(at: WireTime) -> String {
    let at = jiff::Timestamp::from_microsecond(at.0).unwrap_or_default();
    at.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%a %d %b %H:%M").to_string()
}

/// Minutes and seconds.
pub(crate) fn clock(secs: f64) -> String {
    let secs = secs.max(0.0) as u64;
    format!("{:02}:{:02}", secs / 60, secs % 60)
}

/// Who said it, for people.
pub(crate) fn speaker(label: Option<&str>, is_user: bool) -> String {
    let number = label
        .and_then(|label| label.rsplit_once('_'))
        .map_or("?", |(_, digits)| digits.trim_start_matches('0'));
    let number = if number.is_empty() { "0" } else { number };
    if is_user { "You".into() } else { format!("Speaker {number}") }
}

/// Prints who said what, and when.
pub(crate) fn transcript(segments: &[Segment]) {
    for segment in segments {
        let who = speaker(segment.speaker.as_deref(), segment.is_user);
        let text = wrapped(&segment.text, 58).replace('\n', "\n                    ");
        line(&format!("{}  {who:<11}  {text}", clock(segment.start)));
    }
}

/// A record as people read it.
pub(crate) fn record(conversation: &Conversation) -> String {
    let made = &conversation.structured;
    let status = conversation.status.as_deref().unwrap_or("unknown");
    let mut text = String::new();
    let title = if made.title.is_empty() { "(no title)" } else { made.title.as_str() };
    text += &format!("{} {title}\n", made.emoji);
    text += &format!("   {}  ·  {}  ·  {status}\n", when(conversation.created_at), made.category);
    if conversation.discarded {
        text += "   set aside: nothing in it seemed worth keeping\n";
    }
    if let Some(failure) = &conversation.failure {
        text += &format!("   processing gave up: {failure}\n");
    }
    if !made.overview.is_empty() {
        text += &format!("\n{}\n", wrapped(&made.overview, 76));
    }
    if !made.action_items.is_empty() {
        text += "\nTo do\n";
        for item in &made.action_items {
            let due = item.due_at.map(|at| format!("  (by {})", when(at))).unwrap_or_default();
            text += &format!("  [{}] {}{due}\n", if item.completed { "x" } else { " " }, item.description);
        }
    }
    if !made.events.is_empty() {
        text += "\nComing up\n";
        for event in &made.events {
            text += &format!("   •  {}  ({})\n", event.title, when(event.start));
        }
    }
    for gap in &conversation.gaps {
        text += &format!("\n   {} to {}: words could not be recovered\n", clock(gap.start), clock(gap.end));
    }
    if let Some(by) = &conversation.provenance {
        text += &format!("\nmade by {} (version {})", by.provider, by.version);
    }
    text
}

/// Breaks lines between words.
pub(crate) fn wrapped(text: &str, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("never empty");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_breaks_no_word_that_people_read_and_leaves_out_what_nobody_has() {
        let row = |id: &str, what: &str| {
            let cells = [id, what, "completed", "1/5", "Mon 30 Nov 22:00", ""];
            cells.map(str::to_owned).to_vec()
        };
        let id = "f464ce16-c8df-4e28-b12b-5ffe7c48b0b8";
        let head = ["job", "what", "state", "tries", "created", "last error"];
        let shown = table(&head, vec![row(id, "record"), row(id, "heard again by pocketsphinx")]);
        for whole in [id, "completed", "pocketsphinx", "created", "22:00"] {
            assert!(shown.contains(whole), "{whole} is broken:\n{shown}");
        }
        assert!(!shown.contains("error"), "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    }

    #[test]
    fn text_is_wrapped_between_words() {
        assert_eq!(wrapped("one two three", 7), "one two\nthree");
        assert_eq!(wrapped("", 7), "");
    }

    #[test]
    fn speakers_have_readable_names() {
        assert_eq!(speaker(Some("SPEAKER_00"), false), "Speaker 0");
        assert_eq!(speaker(Some("SPEAKER_12"), false), "Speaker 12");
        assert_eq!(speaker(None, true), "You");
    }
}
