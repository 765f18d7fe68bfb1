//! A conversation as a file for people and players: JSON, Markdown, plain text, SubRip and WebVTT. Pure.
//!
//! Cues follow their formats' rules: times do not run backwards and no cue ends before it begins; a cue's text is one line, since an
//! empty one would end it, and holds no arrow, which would begin another.

use crate::conversation::{Conversation, Segment};
use crate::time::WireTime;

/// Shortest time a cue is shown, in milliseconds: players drop those without any.
const CUE_MS_MIN: u64 = 1;

/// Forms of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Everything, as the REST interface has it.
    Json,
    /// Record and transcript.
    Markdown,
    /// SubRip subtitles.
    Srt,
    /// WebVTT subtitles.
    Vtt,
    /// The transcript alone.
    Text,
}

impl Format {
    /// Of each form that a whole export has.
    pub const ALL: [Self; 4] = [Self::Json, Self::Markdown, Self::Srt, Self::Vtt];

    /// Of its files.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Markdown => "md",
            Self::Srt => "srt",
            Self::Vtt => "vtt",
            Self::Text => "txt",
        }
    }
}

/// A conversation in another form. `when` writes a moment for people, in their own zone.
pub fn write(conversation: &Conversation, format: Format, when: &dyn Fn(WireTime) -> String) -> String {
    let segments = &conversation.transcript_segments;
    match format {
        Format::Json => {
            serde_json::to_string_pretty(conversation).expect("a conversation is always expressible as JSON")
        }
        Format::Markdown => markdown(conversation, when),
        Format::Srt => {
            let cues = cues(segments).into_iter().enumerate().map(|(index, cue)| {
                let text = format!("{}: {}", speaker(cue.segment), cue.text.replace("-->", "→"));
                format!("{}\n{} --> {}\n{text}\n", index + 1, stamp(cue.from, ','), stamp(cue.until, ','))
            });
            cues.collect::<Vec<_>>().join("\n")
        }
        Format::Vtt => {
            let cues = cues(segments).into_iter().map(|cue| {
                let text = format!("{}: {}", speaker(cue.segment), cue.text);
                let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                format!("\n{} --> {}\n{text}\n", stamp(cue.from, '.'), stamp(cue.until, '.'))
            });
            format!("WEBVTT\n{}", cues.collect::<String>())
        }
        Format::Text => {
            let lines = segments.iter().map(|segment| format!("{}: {}", speaker(segment), segment.text));
            lines.collect::<Vec<_>>().join("\n")
        }
    }
}

/// Who said it, for people: `You`, or `Speaker 1`.
pub fn speaker(segment: &Segment) -> String {
    let number = segment.speaker.as_deref().and_then(|label| label.rsplit_once('_'));
    let number = number.map_or("?", |(_, digits)| digits.trim_start_matches('0'));
    let number = if number.is_empty() { "0" } else { number };
    if segment.is_user { "You".into() } else { format!("Speaker {number}") }
}

struct Cue<'a> {
    from: u64,
    until: u64,
    segment: &'a Segment,
    text: String,
}

/// What is said, in order; what has no text has no cue.
fn cues(segments: &[Segment]) -> Vec<Cue<'_>> {
    let ms = |secs: f64| (secs.max(0.0) * 1_000.0).round() as u64;
    let mut cues: Vec<_> = segments
        .iter()
        .filter_map(|segment| {
            let text = segment.text.split_whitespace().collect::<Vec<_>>().join(" ");
            let from = ms(segment.start);
            let until = ms(segment.end).max(from + CUE_MS_MIN);
            (!text.is_empty()).then_some(Cue { from, until, segment, text })
        })
        .collect();
    cues.sort_by_key(|cue| cue.from);
    cues
}

fn stamp(ms: u64, mark: char) -> String {
    format!("{:02}:{:02}:{:02}{mark}{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000)
}

/// Minutes and seconds.
fn clock(secs: f64) -> String {
    let secs = secs.max(0.0) as u64;
    format!("{:02}:{:02}", secs / 60, secs % 60)
}

/// Text that Markdown shows as it is, on one line.
fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.split_whitespace().collect::<Vec<_>>().join(" ").chars() {
        if matches!(letter, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#' | '|') {
            shown.push('\\');
        }
        shown.push(letter);
    }
    shown
}

fn markdown(conversation: &Conversation, when: &dyn Fn(WireTime) -> String) -> String {
    let made = &conversation.structured;
    let title = if made.title.is_empty() { "Conversation".to_owned() } else { escaped(&made.title) };
    let mut text = format!("# {} {title}\n\n{}\n", made.emoji, when(conversation.created_at));
    if !made.overview.is_empty() {
        text += &format!("\n{}\n", escaped(&made.overview));
    }
    if !made.action_items.is_empty() {
        text += "\n## To do\n\n";
        for item in &made.action_items {
            let due = item.due_at.map(|at| format!(" (by {})", when(at))).unwrap_or_default();
            let mark = if item.completed { "x" } else { " " };
            text += &format!("- [{mark}] {}{due}\n", escaped(&item.description));
        }
    }
    if !made.events.is_empty() {
        text += "\n## Events\n\n";
        for event in &made.events {
            text += &format!("- {} ({})\n", escaped(&event.title), when(event.start));
        }
    }
    text += "\n## Transcript\n\n";
    for segment in &conversation.transcript_segments {
        text +=
            &format!("**{}** ({}): {}\n\n", speaker(segment), clock(segment.start), escaped(&segment.text));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(text: &str, is_user: bool, start: f64, end: f64) -> serde_json::Value {
        serde_json::json!({"id": "a", "text": text, "speaker": "SPEAKER_01", "is_user": is_user, "start": start, "end": end})
    }

    fn conversation(segments: &[serde_json::Value]) -> Conversation {
        let json = serde_json::json!({
            "id": "c", "created_at": "2026-01-15T17:00:00.000000Z",
            "structured": {"title": "A *plan*", "emoji": "💼", "overview": "One.\nTwo.",
                "action_items": [{"description": "call [them]", "completed": true}],
                "events": [{"title": "Lunch", "description": "", "start": "2026-01-16T12:00:00.000000Z", "duration": 30}]},
            "transcript_segments": segments,
        });
        serde_json::from_value(json).expect("the wire's shape")
    }

    fn written(format: Format, segments: &[serde_json::Value]) -> String {
        write(&conversation(segments), format, &|at| format!("at {}", at.0))
    }

    #[test]
    fn subtitles_have_their_times() {
        let said = [segment("Hello.", true, 0.0, 1.25), segment("Hi.", false, 3_661.5, 3_662.0)];
        assert_eq!(
            written(Format::Srt, &said),
            "1\n00:00:00,000 --> 00:00:01,250\nYou: Hello.\n\n2\n01:01:01,500 --> 01:01:02,000\nSpeaker 1: Hi.\n"
        );
        assert_eq!(
            written(Format::Vtt, &said),
            "WEBVTT\n\n00:00:00.000 --> 00:00:01.250\nYou: Hello.\n\n01:01:01.500 --> 01:01:02.000\nSpeaker 1: Hi.\n"
        );
        let long = [segment("Late.", true, 360_000.0, 360_001.0)];
        assert!(written(Format::Srt, &long).contains("100:00:00,000 --> 100:00:01,000"));
    }

    #[test]
    fn cues_are_in_order_and_last_and_what_is_empty_has_none() {
        let said = [
            segment("second", true, 5.0, 5.0),
            segment(" \n ", true, 2.0, 3.0),
            segment("first", true, -1.0, -2.0),
            segment("third", true, 9.0, 8.0),
        ];
        assert_eq!(
            written(Format::Srt, &said),
            "1\n00:00:00,000 --> 00:00:00,001\nYou: first\n\n2\n00:00:05,000 --> 00:00:05,001\nYou: second\n\n\
             3\n00:00:09,000 --> 00:00:09,001\nYou: third\n"
        );
        assert_eq!(written(Format::Srt, &[]), "");
        assert_eq!(written(Format::Vtt, &[]), "WEBVTT\n");
    }

    #[test]
    fn no_text_ends_its_cue_or_begins_another() {
        let said = [segment("one\n\n2\n00:00:00,000 --> 00:00:09,000\n<b>a & b</b>", true, 0.0, 1.0)];
        let srt = written(Format::Srt, &said);
        assert_eq!((srt.matches("-->").count(), srt.lines().count()), (1, 3), "{srt}");
        let vtt = written(Format::Vtt, &said);
        assert!(vtt.contains("--&gt; 00:00:09,000 &lt;b&gt;a &amp; b&lt;/b&gt;\n"), "{vtt}");
        assert_eq!(vtt.matches("-->").count(), 1);
    }

    #[test]
    fn markdown_has_the_record_and_every_word_as_it_was_said() {
        let markdown = written(Format::Markdown, &[segment("# *not* a\nheading", false, 61.0, 62.0)]);
        assert!(
            markdown.starts_with("# 💼 A \\*plan\\*\n\nat 1768496400000000\n\nOne. Two.\n"),
            "{markdown}"
        );
        assert!(
            markdown.contains("- [x] call \\[them\\]\n") && markdown.contains("- Lunch (at 17"),
            "{markdown}"
        );
        assert!(markdown.contains("**Speaker 1** (01:01): \\# \\*not\\* a heading\n"), "{markdown}");
        assert_eq!(written(Format::Text, &[segment("Hi.", true, 0.0, 1.0)]), "You: Hi.");
    }

    #[test]
    fn json_reads_back_as_the_same_conversation() {
        let whole = conversation(&[segment("Hello.", true, 0.0, 1.25)]);
        let json = write(&whole, Format::Json, &|_| String::new());
        assert_eq!(serde_json::from_str::<Conversation>(&json).expect("its own shape"), whole);
    }
}
