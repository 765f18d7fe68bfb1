//! A conversation in other forms.

use auricle_wire::conversation::{Conversation, Segment};

use crate::output;

/// Forms of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Markdown: record and transcript.
    Md,
    /// Everything, as the REST interface has it.
    Json,
    /// SubRip subtitles.
    Srt,
    /// WebVTT subtitles.
    Vtt,
    /// Plain text: the transcript.
    Txt,
}

pub(super) fn write(conversation: &Conversation, format: Format) -> anyhow::Result<String> {
    let segments = &conversation.transcript_segments;
    Ok(match format {
        Format::Json => serde_json::to_string_pretty(conversation)?,
        Format::Md => markdown(conversation),
        Format::Srt => {
            let cues = segments.iter().enumerate().map(|(index, segment)| {
                format!(
                    "{}\n{} --> {}\n{}\n",
                    index + 1,
                    stamp(segment.start, ','),
                    stamp(segment.end, ','),
                    said(segment)
                )
            });
            cues.collect::<Vec<_>>().join("\n")
        }
        Format::Vtt => {
            let cues = segments.iter().map(|segment| {
                format!(
                    "\n{} --> {}\n{}\n",
                    stamp(segment.start, '.'),
                    stamp(segment.end, '.'),
                    said(segment)
                )
            });
            format!("WEBVTT\n{}", cues.collect::<String>())
        }
        Format::Txt => segments.iter().map(said).collect::<Vec<_>>().join("\n"),
    })
}

fn said(segment: &Segment) -> String {
    format!("{}: {}", output::speaker(segment.speaker.as_deref(), segment.is_user), segment.text)
}

fn stamp(secs: f64, mark: char) -> String {
    let ms = (secs.max(0.0) * 1_000.0).round() as u64;
    format!("{:02}:{:02}:{:02}{mark}{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000)
}

fn markdown(conversation: &Conversation) -> String {
    let made = &conversation.structured;
    let title = if made.title.is_empty() { "Conversation" } else { made.title.as_str() };
    let mut text = format!("# {} {title}\n\n{}\n", made.emoji, output::when(conversation.created_at));
    if !made.overview.is_empty() {
        text += &format!("\n{}\n", made.overview);
    }
    if !made.action_items.is_empty() {
        text += "\n## To do\n\n";
        for item in &made.action_items {
            let due = item.due_at.map(|at| format!(" (by {})", output::when(at))).unwrap_or_default();
            text += &format!("- [{}] {}{due}\n", if item.completed { "x" } else { " " }, item.description);
        }
    }
    if !made.events.is_empty() {
        text += "\n## Events\n\n";
        for event in &made.events {
            text += &format!("- {} ({})\n", event.title, output::when(event.start));
        }
    }
    text += "\n## Transcript\n\n";
    for segment in &conversation.transcript_segments {
        let who = output::speaker(segment.speaker.as_deref(), segment.is_user);
        text += &format!("**{who}** ({}): {}\n\n", output::clock(segment.start), segment.text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation() -> Conversation {
        let json = serde_json::json!({
            "id": "c", "created_at": "2026-01-15T17:00:00.000000Z", "structured": {"title": "A plan", "emoji": "💼"},
            "transcript_segments": [
                {"id": "a", "text": "Hello.", "speaker": "SPEAKER_0", "speaker_id": 0, "is_user": true, "person_id": null, "start": 0.0, "end": 1.25},
                {"id": "b", "text": "Hi.", "speaker": "SPEAKER_1", "speaker_id": 1, "is_user": false, "person_id": null, "start": 3_661.5, "end": 3_662.0},
            ],
        });
        serde_json::from_value(json).expect("the wire's shape")
    }

    #[test]
    fn subtitles_have_their_times() {
        assert_eq!(
            write(&conversation(), Format::Srt).unwrap(),
            "1\n00:00:00,000 --> 00:00:01,250\nYou: Hello.\n\n2\n01:01:01,500 --> 01:01:02,000\nSpeaker 1: Hi.\n"
        );
        assert!(
            write(&conversation(), Format::Vtt)
                .unwrap()
                .starts_with("WEBVTT\n\n00:00:00.000 --> 00:00:01.250\n")
        );
    }

    #[test]
    fn text_and_markdown_have_every_word() {
        assert_eq!(write(&conversation(), Format::Txt).unwrap(), "You: Hello.\nSpeaker 1: Hi.");
        let markdown = write(&conversation(), Format::Md).unwrap();
        assert!(markdown.starts_with("# 💼 A plan\n") && markdown.contains("**Speaker 1** (61:01): Hi."));
    }
}
