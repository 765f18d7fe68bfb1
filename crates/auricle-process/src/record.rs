//! The recorded form of the `understand` step: what a second attempt resumes from.

use auricle_core::{
    ActionItem, CalendarEvent, Category, DiscardReason, Provenance, Section, SectionKind, SegmentId,
    Structured, UnixMicros,
};
use serde::{Deserialize, Serialize};

use crate::Understanding;

#[derive(Serialize, Deserialize)]
struct Recorded {
    title: String,
    overview: String,
    emoji: String,
    category: String,
    action_items: Vec<RecordedItem>,
    events: Vec<RecordedEvent>,
    provider: String,
    version: String,
    discarded: Option<String>,
    #[serde(default)]
    sections: Vec<RecordedSection>,
    #[serde(default)]
    memories: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct RecordedSection {
    heading: String,
    body: String,
    kind: String,
    segments: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct RecordedItem {
    description: String,
    completed: bool,
    created_at: Option<i64>,
    updated_at: Option<i64>,
    due_at: Option<i64>,
    completed_at: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct RecordedEvent {
    title: String,
    description: String,
    start: i64,
    duration_minutes: u32,
}

/// As JSON.
pub(crate) fn write(understanding: &Understanding) -> String {
    let Understanding { structured, provenance, discarded, memories } = understanding;
    let micros = |at: Option<UnixMicros>| at.map(|at| at.0);
    let items = structured.action_items.iter().map(|item| RecordedItem {
        description: item.description.clone(),
        completed: item.completed,
        created_at: micros(item.created_at),
        updated_at: micros(item.updated_at),
        due_at: micros(item.due_at),
        completed_at: micros(item.completed_at),
    });
    let events = structured.events.iter().map(|event| RecordedEvent {
        title: event.title.clone(),
        description: event.description.clone(),
        start: event.start.0,
        duration_minutes: event.duration_minutes,
    });
    let sections = structured.sections.iter().map(|section| RecordedSection {
        heading: section.heading.clone(),
        body: section.body.clone(),
        kind: section.kind.as_str().to_owned(),
        segments: section.segments.iter().map(ToString::to_string).collect(),
    });
    let recorded = Recorded {
        title: structured.title.clone(),
        overview: structured.overview.clone(),
        emoji: structured.emoji.clone(),
        category: structured.category.as_str().to_owned(),
        action_items: items.collect(),
        events: events.collect(),
        provider: provenance.provider.clone(),
        version: provenance.version.clone(),
        discarded: discarded.map(|reason| reason.as_str().to_owned()),
        sections: sections.collect(),
        memories: memories.clone(),
    };
    serde_json::to_string(&recorded).expect("plain data with text keys")
}

/// `None` if an older version wrote something else: the step is then done again.
pub(crate) fn read(text: &str) -> Option<Understanding> {
    let recorded: Recorded = serde_json::from_str(text).ok()?;
    let items = recorded.action_items.into_iter().map(|item| ActionItem {
        description: item.description,
        completed: item.completed,
        created_at: item.created_at.map(UnixMicros),
        updated_at: item.updated_at.map(UnixMicros),
        due_at: item.due_at.map(UnixMicros),
        completed_at: item.completed_at.map(UnixMicros),
    });
    let events = recorded.events.into_iter().map(|event| CalendarEvent {
        title: event.title,
        description: event.description,
        start: UnixMicros(event.start),
        duration_minutes: event.duration_minutes,
        created: false,
    });
    let sections = recorded.sections.into_iter().map(|section| {
        Some(Section {
            heading: section.heading,
            body: section.body,
            kind: SectionKind::parse(&section.kind)?,
            segments: section.segments.into_iter().map(SegmentId::from).collect(),
        })
    });
    Some(Understanding {
        structured: Structured {
            title: recorded.title,
            overview: recorded.overview,
            emoji: recorded.emoji,
            category: Category::parse(&recorded.category)?,
            action_items: items.collect(),
            events: events.collect(),
            sections: sections.collect::<Option<_>>()?,
        },
        provenance: Provenance { provider: recorded.provider, version: recorded.version },
        discarded: match recorded.discarded {
            Some(reason) => Some(DiscardReason::parse(&reason)?),
            None => None,
        },
        memories: recorded.memories,
    })
}
