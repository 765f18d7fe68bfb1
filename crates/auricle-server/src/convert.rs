//! Our types as Omi's: the only place where a record takes its wire form.
//!
//! Leaves to others: field names and order (`auricle-wire`), what the fields mean (`auricle-core`).

use auricle_core as core;
use auricle_store as store;
use auricle_wire::conversation as wire;
use auricle_wire::time::WireTime;
use auricle_wire::{people, rest};

/// A moment.
pub fn time(at: core::UnixMicros) -> WireTime {
    WireTime(at.0)
}

/// One segment.
pub fn segment(segment: &core::Segment) -> wire::Segment {
    wire::Segment {
        id: segment.id.to_string(),
        text: segment.text.clone(),
        speaker: segment.speaker.as_ref().map(|speaker| speaker.label().to_owned()),
        speaker_id: segment.speaker_number(),
        is_user: segment.is_user,
        person_id: segment.person_id.as_ref().map(ToString::to_string),
        start: segment.start,
        end: segment.end,
        translations: segment
            .translations
            .iter()
            .map(|t| wire::Translation { lang: t.lang.clone(), text: t.text.clone() })
            .collect(),
        speech_profile_processed: segment.speech_profile_processed,
        stt_provider: segment.stt_provider.clone(),
    }
}

/// One photo, with its image.
pub fn photo(photo: &core::Photo) -> wire::Photo {
    wire::Photo {
        id: Some(photo.id.to_string()),
        base64: photo.base64.clone(),
        description: photo.description.clone(),
        created_at: time(photo.created_at),
        discarded: photo.discarded,
        data_protection_level: None,
    }
}

/// What understanding made of a conversation, under the title that people see.
fn structured(conversation: &core::Conversation) -> wire::Structured {
    let made = &conversation.structured;
    let item = |item: &core::ActionItem| wire::ActionItem {
        description: item.description.clone(),
        completed: item.completed,
        created_at: item.created_at.map(time),
        updated_at: item.updated_at.map(time),
        due_at: item.due_at.map(time),
        completed_at: item.completed_at.map(time),
        conversation_id: Some(conversation.id.to_string()),
    };
    let event = |event: &core::CalendarEvent| wire::Event {
        title: event.title.clone(),
        description: event.description.clone(),
        start: time(event.start),
        duration: event.duration_minutes,
        created: event.created,
    };
    let section = |section: &core::Section| wire::Section {
        heading: section.heading.clone(),
        body_markdown: section.body.clone(),
        source_segment_ids: section.segments.iter().map(ToString::to_string).collect(),
        kind: section.kind.as_str().to_owned(),
    };
    wire::Structured {
        title: conversation.title().to_owned(),
        overview: made.overview.clone(),
        emoji: if made.emoji.is_empty() { "🧠".to_owned() } else { made.emoji.clone() },
        category: made.category.as_str().to_owned(),
        action_items: made.action_items.iter().map(item).collect(),
        events: made.events.iter().map(event).collect(),
        sections: made.sections.iter().map(section).collect(),
    }
}

fn geolocation(place: &core::Geolocation) -> wire::Geolocation {
    wire::Geolocation {
        google_place_id: place.google_place_id.clone(),
        latitude: place.latitude,
        longitude: place.longitude,
        address: place.address.clone(),
        location_type: place.location_type.clone(),
    }
}

/// A conversation, with whatever segments and photos it carries. Source: listen-protocol 7.1.
pub fn conversation(conversation: &core::Conversation) -> wire::Conversation {
    wire::Conversation {
        id: conversation.id.to_string(),
        created_at: time(conversation.created_at),
        started_at: Some(time(conversation.started_at)),
        finished_at: Some(time(conversation.finished_at)),
        source: Some(conversation.source.as_str().to_owned()),
        language: conversation.language.clone(),
        structured: structured(conversation),
        transcript_segments: conversation.segments.iter().map(segment).collect(),
        transcript_segments_compressed: Some(false),
        geolocation: conversation.geolocation.as_ref().map(geolocation),
        photos: conversation.photos.iter().map(photo).collect(),
        audio_files: Vec::new(),
        private_cloud_sync_enabled: false,
        apps_results: Vec::new(),
        suggested_summarization_apps: Vec::new(),
        plugins_results: Vec::new(),
        external_data: None,
        app_id: None,
        discarded: conversation.discarded.is_some(),
        visibility: "private".to_owned(),
        starred: conversation.starred,
        processing_memory_id: None,
        processing_conversation_id: None,
        status: Some(conversation.status.as_str().to_owned()),
        is_locked: false,
        data_protection_level: None,
        folder_id: None,
        call_id: conversation.call_id.clone(),
        provenance: conversation
            .provenance
            .as_ref()
            .map(|by| wire::Provenance { provider: by.provider.clone(), version: by.version.clone() }),
        failure: conversation.failure.clone(),
        discard_reason: conversation.discarded.map(|reason| reason.as_str().to_owned()),
        finalization_reason: conversation.finalise_reason.map(|reason| reason.as_str().to_owned()),
        revision: conversation.revision.0,
        gaps: conversation.gaps.iter().map(|&(start, end)| wire::Gap { start, end }).collect(),
    }
}

/// An action item.
pub fn action_item(item: &store::ActionItemRecord) -> rest::ActionItem {
    rest::ActionItem {
        id: item.id.to_string(),
        description: item.description.clone(),
        completed: item.completed,
        created_at: time(item.created_at),
        updated_at: time(item.updated_at),
        due_at: item.due_at.map(time),
        completed_at: item.completed_at.map(time),
        conversation_id: item.conversation.as_ref().map(ToString::to_string),
        edited: item.edited,
    }
}

/// A memory.
pub fn memory(memory: &store::MemoryRecord) -> rest::Memory {
    rest::Memory {
        id: memory.id.to_string(),
        text: memory.text.clone(),
        created_at: time(memory.created_at),
        updated_at: time(memory.updated_at),
        conversation_id: memory.conversation.as_ref().map(ToString::to_string),
        edited: memory.edited,
    }
}

/// Somebody the user knows.
pub fn person(person: &store::Person) -> people::Person {
    people::Person {
        id: person.id.to_string(),
        name: person.name.clone(),
        created_at: time(person.created_at),
        updated_at: time(person.updated_at),
        speech_samples: Vec::new(),
        voices: person.voices,
    }
}

/// How somebody sounds.
pub fn voice(voice: &store::Voice) -> people::Voice {
    people::Voice {
        id: voice.id.clone(),
        person_id: voice.person.to_string(),
        model: voice.model.clone(),
        vector: voice.vector.clone(),
        seconds: voice.seconds,
        kept_at: time(voice.kept_at),
    }
}

/// A job. Whose it is stays here: people see only their own.
pub fn job(job: &store::Job) -> rest::Job {
    rest::Job {
        id: job.id.to_string(),
        kind: "record".to_owned(),
        conversation_id: job.conversation.to_string(),
        revision: job.revision.0,
        reason: job.reason.as_str().to_owned(),
        engine: None,
        heard_secs: None,
        state: job.state.as_str().to_owned(),
        attempts: job.attempts,
        attempts_max: job.attempts_max,
        run_at: time(job.run_at),
        created_at: time(job.created_at),
        updated_at: time(job.updated_at),
        last_error: job.last_error.clone(),
        leased_by: job.leased_by.as_ref().map(ToString::to_string),
        lease_expires_at: job.lease_expires_at.map(time),
    }
}

/// A retranscription as a job; `attempts_max` is `limits.retranscription_attempts_max`.
pub fn retranscription_job(work: &store::Retranscription, attempts_max: u32) -> rest::Job {
    let is_leased = work.state == store::UploadState::Leased;
    rest::Job {
        id: work.id.to_string(),
        kind: "retranscription".to_owned(),
        conversation_id: work.conversation.to_string(),
        revision: work.revision.map_or(0, |revision| revision.0),
        reason: core::FinaliseReason::Retranscribe.as_str().to_owned(),
        engine: Some(work.engine.clone()),
        heard_secs: Some(work.heard_secs),
        state: match work.state {
            store::UploadState::Done => core::JobState::Completed.as_str(),
            other => other.as_str(),
        }
        .to_owned(),
        attempts: work.attempts,
        attempts_max,
        run_at: time(work.due_at),
        created_at: time(work.created_at),
        updated_at: time(work.updated_at),
        last_error: work.last_error.clone(),
        leased_by: work.leased_by.as_ref().map(ToString::to_string),
        lease_expires_at: is_leased.then(|| time(work.due_at)),
    }
}

/// A day, as REST has it.
pub fn day(record: &store::DayRecord) -> rest::Day {
    // It was written as JSON, by this program.
    let summary: Option<serde_json::Value> =
        record.summary.as_deref().and_then(|summary| serde_json::from_str(summary).ok());
    let overview = summary.as_ref().and_then(|summary| summary["overview"].as_str());
    let (provider, version) =
        record.provenance.clone().map(|made_by| (made_by.provider, made_by.version)).unzip();
    rest::Day {
        date: record.day.date.clone(),
        time_zone: record.day.zone.clone(),
        state: record.state.as_str().to_owned(),
        summary: overview.map(str::to_owned),
        summary_json: summary,
        conversations: record.conversations,
        provider,
        provider_version: version,
        made_at: record.made_at.map(time),
        revision: record.revision,
        last_error: record.last_error.clone(),
    }
}

/// A piece of text that matched; the store's marks become ranges.
pub fn snippet(snippet: &store::Snippet) -> rest::Snippet {
    let (text, highlights) = highlights(&snippet.text);
    rest::Snippet {
        text,
        highlights,
        segment_id: snippet.segment.as_ref().map(ToString::to_string),
        start: snippet.start,
    }
}

/// Takes the marks U+0002 and U+0003 out of `marked` and says what stood between them, in characters of what is left.
fn highlights(marked: &str) -> (String, Vec<(usize, usize)>) {
    let (mut text, mut ranges) = (String::with_capacity(marked.len()), Vec::new());
    let (mut length, mut from) = (0, None);
    for c in marked.chars() {
        match c {
            '\u{2}' => from = from.or(Some(length)),
            '\u{3}' => ranges.extend(from.take().filter(|from| *from < length).map(|from| (from, length))),
            c => {
                text.push(c);
                length += 1;
            }
        }
    }
    ranges.extend(from.filter(|from| *from < length).map(|from| (from, length)));
    (text, ranges)
}

/// Something that was said to a user.
pub fn message(message: &store::Message) -> rest::Message {
    rest::Message {
        id: message.id.to_string(),
        webhook_id: message.target.as_ref().map(ToString::to_string),
        sender: message.sender.clone(),
        conversation_id: message.conversation.as_ref().map(ToString::to_string),
        text: message.text.clone(),
        created_at: time(message.created_at),
        delivered_at: message.delivered_at.map(time),
    }
}

/// What a target hears of, in Omi's words.
pub fn trigger(trigger: core::Trigger) -> &'static str {
    match trigger {
        core::Trigger::Conversation => "memory_created",
        core::Trigger::Transcript => "realtime_transcript",
        core::Trigger::Audio => "audio_bytes",
        core::Trigger::DaySummary => "day_summary",
    }
}

/// The same read.
pub fn trigger_of(name: &str) -> Option<core::Trigger> {
    use core::Trigger::{Audio, Conversation, DaySummary, Transcript};
    [Conversation, Transcript, Audio, DaySummary].into_iter().find(|each| trigger(*each) == name)
}

/// A webhook or app, without its secret.
pub fn webhook(target: &store::Target) -> rest::Webhook {
    let settings = &target.settings;
    rest::Webhook {
        id: target.id.to_string(),
        kind: target.kind.as_str().to_owned(),
        name: settings.name.clone(),
        url: settings.url.expose().to_owned(),
        triggers: settings.triggers.iter().map(|each| trigger(*each).to_owned()).collect(),
        audio_seconds: settings.audio_secs,
        state: target.state.as_str().to_owned(),
        created_at: time(target.created_at),
        failing_since: target.health.failing_since.map(time),
        off_at: target.off_at.map(time),
        last_delivery_at: target.last_delivery_at.map(time),
        last_error: target.last_error.clone(),
        delivered: target.delivered,
        failed: target.failed,
        waiting: target.waiting,
        secret: None,
    }
}

/// One delivery.
pub fn delivery(effect: &store::Effect) -> rest::Delivery {
    rest::Delivery {
        id: effect.id.to_string(),
        idempotency_key: effect.key.idempotency_key(),
        conversation_id: effect.key.conversation().map(ToString::to_string),
        state: effect.state.as_str().to_owned(),
        attempts: effect.attempts,
        created_at: time(effect.created_at),
        run_at: time(effect.run_at),
        ended_at: effect.ended_at.map(time),
        last_error: effect.last_error.clone(),
    }
}

/// What a test of a webhook posts: of the same form as what it stands for, and marked as a test.
pub fn webhook_sample(
    trigger: core::Trigger,
    user: &core::UserId,
    now: core::UnixMicros,
) -> serde_json::Value {
    let said = "This is a test of your webhook.";
    let segment = core::Segment {
        id: "test-segment".into(),
        text: said.into(),
        speaker: Some(core::Speaker::new("SPEAKER_00")),
        is_user: true,
        person_id: None,
        start: 0.0,
        end: 2.0,
        translations: Vec::new(),
        speech_profile_processed: true,
        stt_provider: None,
    };
    let mut sample = match trigger {
        core::Trigger::Transcript | core::Trigger::Audio => serde_json::json!({
            "segments": [self::segment(&segment)], "session_id": user.as_str(),
        }),
        core::Trigger::DaySummary => serde_json::json!({
            "summary": said, "summary_json": {}, "uid": user.as_str(), "created_at": time(now).to_string(),
        }),
        core::Trigger::Conversation => serde_json::json!({
            "id": "test", "created_at": time(now).to_string(), "started_at": time(now).to_string(),
            "finished_at": time(now).to_string(), "source": "test", "language": "en", "status": "completed",
            "discarded": false,
            "structured": {
                "title": "A test", "overview": said, "emoji": "🧪", "category": "other", "action_items": [],
                "events": [],
            },
            "transcript_segments": [self::segment(&segment)],
        }),
    };
    sample["test"] = true.into();
    sample
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_become_ranges_of_characters() {
        assert_eq!(
            highlights("le \u{2}café\u{3} est \u{2}froid\u{3}"),
            ("le café est froid".into(), vec![(3, 7), (12, 17)])
        );
        assert_eq!(highlights("none"), ("none".into(), vec![]));
    }

    #[test]
    fn broken_marks_lose_no_text() {
        assert_eq!(highlights("a\u{3}b\u{2}\u{2}c"), ("abc".into(), vec![(2, 3)]));
        assert_eq!(highlights("\u{2}\u{3}"), (String::new(), vec![]));
    }
}
