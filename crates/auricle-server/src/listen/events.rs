//! Between the session machine's words and the wire's.

use auricle_core::session::{ClientText, Close, Event, ImageChunk, ServiceStatus, SpeakerAssignment};
use auricle_core::{Conversation, ConversationStatus, FinaliseReason, Limits, Segment, Speaker, Translation};
use auricle_wire::client::{self, ClientMessage, Malformed};
use auricle_wire::event as wire;
use auricle_wire::time::WireTime;

use super::SessionSpec;
use crate::convert;

/// What a text message means to a session.
pub(super) enum Read {
    Text(ClientText),
    /// Activity, and nothing else.
    Nothing,
    InvalidImage,
}

/// Reads a client's text message.
pub(super) fn read(text: &str, limits: &Limits) -> Read {
    let message = match client::parse(text, limits.suggested_segments_max) {
        Ok(message) => message,
        Err(Malformed::ImageChunk) => return Read::InvalidImage,
        Err(malformed) => {
            let reason = if malformed == Malformed::NotAMessage { "not_a_message" } else { "wrong_fields" };
            metrics::counter!("auricle_client_messages_ignored_total", "reason" => reason).increment(1);
            return Read::Nothing;
        }
    };
    Read::Text(match message {
        ClientMessage::ImageChunk(chunk) => ClientText::ImageChunk(ImageChunk {
            id: chunk.id,
            index: chunk.index,
            total: chunk.total,
            data: chunk.data,
        }),
        ClientMessage::SpeakerAssigned(assigned) => ClientText::SpeakerAssigned(SpeakerAssignment {
            speaker_number: assigned.speaker_id,
            person: (assigned.person_id != "user").then(|| assigned.person_id.into()),
            name: assigned.person_name,
            segments: assigned.segment_ids.into_iter().map(Into::into).collect(),
        }),
        ClientMessage::SuggestedTranscript(transcript) => ClientText::Suggested {
            provider: transcript.stt_provider,
            segments: transcript.segments.into_iter().map(suggested).collect(),
        },
        ClientMessage::SkipQuestion => ClientText::SkipQuestion,
        ClientMessage::StartOnboarding => ClientText::StartOnboarding,
        ClientMessage::FinalizationReason(reason) => match client_reason(&reason) {
            Some(reason) => ClientText::FinaliseReason(reason),
            None => return Read::Nothing,
        },
        ClientMessage::Unknown => return Read::Nothing,
    })
}

/// Source: listen-protocol 3.4; others are ignored, ours included.
fn client_reason(text: &str) -> Option<FinaliseReason> {
    let theirs = [
        FinaliseReason::UserStop,
        FinaliseReason::FinishAndContinue,
        FinaliseReason::MeetingStarted,
        FinaliseReason::MeetingEnded,
        FinaliseReason::MaxDurationRotation,
        FinaliseReason::CrashRecovery,
        FinaliseReason::Retry,
    ];
    FinaliseReason::parse(text).filter(|reason| theirs.contains(reason))
}

fn suggested(segment: client::SuggestedSegment) -> Segment {
    let translations = segment.translations.into_iter();
    Segment {
        id: segment.id.into(),
        text: segment.text,
        speaker: segment.speaker.map(Speaker::new),
        is_user: segment.is_user,
        person_id: segment.person_id.map(Into::into),
        start: segment.start,
        end: segment.end.max(segment.start),
        translations: translations.map(|t| Translation { lang: t.lang, text: t.text }).collect(),
        speech_profile_processed: true,
        stt_provider: None,
    }
}

/// An event as the text to send.
pub(super) fn write(event: &Event, spec: &SessionSpec) -> String {
    let event = match event {
        Event::Ping => return wire::PING.to_owned(),
        Event::Segments(segments) => {
            let segments: Vec<_> = segments.iter().map(convert::segment).collect();
            return wire::segments_text(&segments);
        }
        Event::Status(status) => {
            let (status, text) = status_texts(*status);
            wire::Event::ServiceStatus { status: status.into(), status_text: text.map(str::to_owned) }
        }
        Event::LastMemory(id) => wire::Event::LastMemory { memory_id: id.to_string() },
        Event::ConversationSession(id) => wire::Event::ConversationSession {
            conversation_id: id.to_string(),
            status: ConversationStatus::InProgress.as_str().into(),
            recording_session_id: spec.recording_session_id.clone(),
        },
        Event::SegmentsDeleted(ids) => {
            wire::Event::SegmentsDeleted { segment_ids: ids.iter().map(ToString::to_string).collect() }
        }
        Event::ProcessingStarted { .. } => unreachable!("the driver reads the record first"),
        Event::SpeakerSuggestion { speaker_number, person, name, segment } => {
            wire::Event::SpeakerLabelSuggestion {
                speaker_id: *speaker_number,
                person_id: person.clone(),
                person_name: name.clone(),
                segment_id: segment.to_string(),
            }
        }
        Event::PhotoProcessing { temp_id, photo } => {
            wire::Event::PhotoProcessing { temp_id: temp_id.clone(), photo_id: photo.to_string() }
        }
        Event::SttDegraded { engine, reason, since, next } => wire::Event::SttDegraded {
            engine: engine.map(str::to_owned),
            reason: reason.clone(),
            since: Some(WireTime(since.0)),
            next: next.map(str::to_owned),
        },
        Event::SttRecovered { engine, since } => {
            wire::Event::SttRecovered { engine: engine.map(str::to_owned), since: Some(WireTime(since.0)) }
        }
        Event::StorageDegraded => wire::Event::StorageDegraded,
        Event::StorageRecovered => wire::Event::StorageRecovered,
        Event::OnboardingQuestion { index, total, text } => wire::Event::OnboardingQuestion {
            question: (*text).to_owned(),
            question_index: *index,
            total_questions: *total,
        },
        Event::QuestionAnswered { index } => {
            wire::Event::QuestionAnswered { question_index: *index, answered: true }
        }
        Event::QuestionSkipped { index } => wire::Event::QuestionSkipped { question_index: *index },
        Event::OnboardingComplete { answers } => wire::Event::OnboardingComplete { answers_count: *answers },
    };
    event.to_text()
}

/// Source: listen-protocol 4.4.
fn status_texts(status: ServiceStatus) -> (&'static str, Option<&'static str>) {
    match status {
        ServiceStatus::Initiating => ("initiating", Some("Service Starting")),
        ServiceStatus::ConversationsProcessing => {
            ("in_progress_conversations_processing", Some("Processing Conversations"))
        }
        ServiceStatus::SttInitiating => ("stt_initiating", Some("STT Service Starting")),
        ServiceStatus::Ready => ("ready", None),
    }
}

/// `memory_processing_started` with its record.
pub(super) fn processing_started(record: &Conversation, recording_session_id: Option<&str>) -> String {
    let memory = Box::new(convert::conversation(record));
    let recording_session_id = recording_session_id.map(str::to_owned);
    wire::Event::MemoryProcessingStarted { memory, messages: Vec::new(), recording_session_id }.to_text()
}

/// `memory_created` with its record.
pub(crate) fn memory_created(record: &Conversation) -> String {
    let memory = Box::new(convert::conversation(record));
    let recording_session_id = record.client_conversation_id.clone();
    wire::Event::MemoryCreated { memory, messages: Vec::new(), recording_session_id }.to_text()
}

/// The answer to the first message of a browser's socket.
pub(super) fn auth_response(success: bool) -> String {
    wire::Event::AuthResponse { success }.to_text()
}

/// Source: listen-protocol 4.5.
pub(super) fn close_code(close: Close) -> (u16, &'static str) {
    match close {
        Close::Inactive => (1001, ""),
        Close::InvalidImage => (1008, ""),
        Close::TooLarge => (1009, "message too large"),
        Close::Undecodable => (1011, "this audio cannot be decoded"),
        Close::Restarting => (1012, "server restarting"),
        Close::UserDeleted => (1008, "user deleted"),
        Close::TooSlow => (1013, "messages are not read"),
    }
}

/// Whether a socket's error is a message over the limit. The library's own type is not reachable through axum's.
pub(crate) fn is_too_large(error: &axum::Error) -> bool {
    error.to_string().contains("Space limit exceeded")
}
