//! What clients send beside audio: pictures, speaker names, answers to first questions, several channels.

use std::time::Duration;

use auricle_core::session::{
    ClientText, Close, Event, ImageChunk, Input, Output, SessionConfig, SpeakerAssignment, Voice,
};
use auricle_core::{FinaliseReason, Limits, PersonId, Speaker};

use crate::rig::{Rig, config, texts};

fn chunk(index: u32, total: u32, data: &str) -> Input {
    let chunk = ImageChunk { id: "picture".into(), index, total, data: data.into() };
    Input::Text(ClientText::ImageChunk(chunk))
}

#[test]
fn pictures_that_are_not_whole_are_counted_until_they_are_or_are_given_up() {
    let mut rig = Rig::live(config());
    rig.handle(chunk(0, 2, "1234567"));
    assert_eq!(rig.session.picture_bytes(), 7);
    rig.handle(chunk(1, 2, "89"));
    assert_eq!(rig.session.picture_bytes(), 0, "whole");
    rig.handle(chunk(0, 2, "1234567"));
    rig.wait(Duration::from_secs(61));
    assert_eq!(rig.session.picture_bytes(), 0, "given up");
}

#[test]
fn a_picture_is_put_together_in_any_order_and_stored_once() {
    let mut rig = Rig::live(config());
    rig.handle(chunk(2, 3, "CC"));
    rig.handle(chunk(0, 3, "AA"));
    rig.handle(chunk(0, 3, "XX"));
    assert_eq!(rig.said(), []);
    rig.handle(chunk(1, 3, "BB"));
    let said = rig.said();
    let [Output::Emit(Event::PhotoProcessing { temp_id, photo }), Output::AppendPhoto { id, base64 }] =
        &said[..]
    else {
        panic!("{said:?}");
    };
    assert_eq!((temp_id.as_str(), photo, base64.as_str()), ("picture", id, "AABBCC"));
}

#[test]
fn a_picture_under_way_to_the_store_holds_the_ending_back() {
    let mut rig = Rig::live(config());
    rig.handle(chunk(0, 1, "AA"));
    rig.said();
    rig.handle(Input::FinaliseNow(FinaliseReason::Requested));
    assert!(!rig.said().contains(&Output::Finalise(FinaliseReason::Requested)));
    rig.handle(Input::PhotoCommitted { stored: true });
    assert!(rig.said().contains(&Output::Finalise(FinaliseReason::Requested)));
}

#[test]
fn a_chunk_that_cannot_be_closes_with_1008() {
    for (index, total, data) in [(3, 3, "AA"), (0, 0, "AA"), (0, 3, ""), (0, u32::MAX, "AA")] {
        let mut rig = Rig::live(config());
        rig.handle(chunk(index, total, data));
        assert!(rig.said().contains(&Output::Close(Close::InvalidImage)), "{index} of {total}");
    }
}

#[test]
fn a_speaker_named_once_is_suggested_for_what_they_say_later() {
    let mut rig = Rig::live(SessionConfig { speaker_auto_assign: true, ..config() });
    rig.audio(0, 9);
    rig.words(0, 0.0, "First.");
    let first = rig.batch().upsert[0].id.clone();
    rig.handle(Input::Committed);
    rig.said();
    let assignment = SpeakerAssignment {
        speaker_number: 0,
        person: Some(PersonId::new("ada")),
        name: "Ada".into(),
        segments: vec![first],
    };
    rig.handle(Input::Text(ClientText::SpeakerAssigned(assignment.clone())));
    assert_eq!(rig.said(), [Output::Assign(assignment)]);
    rig.words(0, 6.0, "Second.");
    let second = rig.batch().upsert.last().unwrap().id.clone();
    rig.handle(Input::Committed);
    let suggestion = Event::SpeakerSuggestion {
        speaker_number: 0,
        person: "ada".into(),
        name: "Ada".into(),
        segment: second,
    };
    assert!(rig.said().contains(&Output::Emit(suggestion)));
}

#[test]
fn channels_are_voices_and_one_clock_orders_them() {
    let voice = |number: u32, is_user| Voice::Fixed { speaker: Speaker::from_voice(number), is_user };
    let mut rig = Rig::live(SessionConfig { voices: vec![voice(0, true), voice(1, false)], ..config() });
    rig.audio(0, 4);
    rig.audio(1, 4);
    rig.words(1, 0.0, "Their turn.");
    rig.said();
    rig.words(0, 2.5, "Mine then.");
    rig.words(1, 1.5, "Still theirs.");
    rig.handle(Input::Committed);
    let batch = rig.batch();
    assert_eq!(texts(&batch), ["Their turn. Still theirs.", "Mine then."]);
    assert_eq!(batch.upsert.iter().map(|segment| segment.is_user).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn onboarding_asks_counts_an_answer_after_a_pause_and_completes() {
    let mut rig = Rig::live(SessionConfig { onboarding: true, ..config() });
    let mut events = Vec::new();
    for round in 0..6 {
        rig.audio(0, 3);
        rig.words(0, f64::from(round) * 4.0, "an answer");
        rig.wait(Duration::from_secs(2));
        rig.handle(Input::Committed);
        rig.handle(Input::Committed);
        events.extend(rig.said());
    }
    let answered =
        events.iter().filter(|output| matches!(output, Output::Emit(Event::QuestionAnswered { .. })));
    assert_eq!(answered.count(), 6);
    assert!(events.contains(&Output::Emit(Event::OnboardingComplete { answers: 6 })));
    let owner = events.iter().filter_map(|output| match output {
        Output::Append(batch) => Some(&batch.upsert),
        _ => None,
    });
    for segment in owner.flatten().filter(|segment| segment.text.contains("answer")) {
        assert!(segment.is_user && !segment.text.contains('?'), "{}", segment.text);
    }
}

#[test]
fn a_question_can_be_skipped() {
    let mut rig = Rig::live(SessionConfig { onboarding: true, ..config() });
    rig.handle(Input::Text(ClientText::SkipQuestion));
    let said = rig.said();
    assert!(said.contains(&Output::Emit(Event::QuestionSkipped { index: 0 })));
    assert!(
        said.iter().any(|output| matches!(output, Output::Emit(Event::OnboardingQuestion { index: 1, .. })))
    );
}

#[test]
fn unfinished_pictures_are_bounded_in_time() {
    let limits = Limits::default();
    let mut rig = Rig::live(config());
    rig.handle(chunk(0, 2, "AA"));
    rig.wait(limits.image_upload_age_max);
    rig.handle(Input::Keepalive);
    rig.handle(chunk(1, 2, "BB"));
    assert!(
        !rig.said().iter().any(|output| matches!(output, Output::AppendPhoto { .. })),
        "the first half is gone"
    );
}
