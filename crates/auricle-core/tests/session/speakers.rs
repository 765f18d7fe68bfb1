//! Who speakers are: introductions, what a resumed conversation knows, and what others assign meanwhile.

use auricle_core::session::{
    ClientText, Event, Input, Introduction, Output, PersonFound, SessionConfig, SpeakerAssignment,
};
use auricle_core::{Assignee, Limits, PersonId, SegmentId, Translation};

use crate::rig::{Rig, config, opened};

fn auto() -> SessionConfig {
    SessionConfig { speaker_auto_assign: true, ..config() }
}

fn suggestion(person: &str, name: &str, segment: &SegmentId) -> Output {
    Output::Emit(Event::SpeakerSuggestion {
        speaker_number: 0,
        person: person.into(),
        name: name.into(),
        segment: segment.clone(),
    })
}

/// Says it, has it stored, and gives the segment that holds it and what the session then said.
fn say(rig: &mut Rig, start: f64, text: &str) -> (SegmentId, Vec<Output>) {
    rig.words(0, start, text);
    let segment = rig.batch().upsert.last().unwrap().id.clone();
    rig.handle(Input::Committed);
    (segment, rig.said())
}

fn asked(said: &[Output]) -> Vec<(Introduction, bool)> {
    let asked = said.iter().filter_map(|output| match output {
        Output::FindPerson { introduction, create } => Some((introduction.clone(), *create)),
        _ => None,
    });
    asked.collect()
}

fn ana() -> PersonFound {
    PersonFound::Known { person: PersonId::new("p1"), name: "Ana".into() }
}

#[test]
fn who_says_their_name_is_suggested_from_then_on() {
    let mut rig = Rig::live(auto());
    rig.audio(0, 60);
    let (first, said) = say(&mut rig, 0.0, "Hi, my name is Ana.");
    let introduction = Introduction { speaker_number: 0, name: "Ana".into(), segment: first.clone() };
    assert_eq!(asked(&said), [(introduction.clone(), true)]);
    // Until it is answered nobody is asked again.
    let (_, said) = say(&mut rig, 12.0, "I'm Ana, as I said.");
    assert_eq!(asked(&said), []);
    rig.handle(Input::PersonFound { introduction, found: ana() });
    assert_eq!(rig.said(), [suggestion("p1", "Ana", &first)]);
    let (later, said) = say(&mut rig, 30.0, "I'm Bob.");
    assert!(said.contains(&suggestion("p1", "Ana", &later)) && asked(&said).is_empty(), "{said:?}");
}

#[test]
fn without_leave_ids_are_not_told_and_people_are_not_made() {
    let mut rig = Rig::live(SessionConfig { create_speakers: false, ..config() });
    rig.audio(0, 30);
    let (first, said) = say(&mut rig, 0.0, "My name is Ana.");
    let [(introduction, false)] = &asked(&said)[..] else { panic!("{said:?}") };
    rig.handle(Input::PersonFound { introduction: introduction.clone(), found: PersonFound::Nobody });
    assert_eq!(rig.said(), [suggestion("", "Ana", &first)]);
    let mut rig = Rig::live(config());
    rig.audio(0, 30);
    let (first, said) = say(&mut rig, 0.0, "My name is Ana.");
    let introduction = asked(&said)[0].0.clone();
    rig.handle(Input::PersonFound { introduction, found: ana() });
    assert_eq!(rig.said(), [suggestion("", "Ana", &first)], "speaker_auto_assign is off");
}

#[test]
fn a_store_that_fails_costs_the_suggestion_and_the_next_introduction_is_heard() {
    let mut rig = Rig::live(auto());
    rig.audio(0, 60);
    let introduction = asked(&say(&mut rig, 0.0, "My name is Ana.").1)[0].0.clone();
    rig.handle(Input::PersonFound { introduction, found: PersonFound::Failed });
    assert_eq!(rig.said(), []);
    assert_eq!(asked(&say(&mut rig, 30.0, "My name is Ana.").1).len(), 1);
}

#[test]
fn what_the_client_says_meanwhile_counts_for_more() {
    let mut rig = Rig::live(auto());
    rig.audio(0, 60);
    let (first, said) = say(&mut rig, 0.0, "My name is Ana.");
    let introduction = asked(&said)[0].0.clone();
    let assignment =
        SpeakerAssignment { speaker_number: 0, person: None, name: "Me".into(), segments: vec![first] };
    rig.handle(Input::Text(ClientText::SpeakerAssigned(assignment)));
    rig.handle(Input::PersonFound { introduction, found: ana() });
    rig.said();
    let (later, said) = say(&mut rig, 30.0, "Well then.");
    assert!(said.contains(&suggestion("user", "Me", &later)), "{said:?}");
}

#[test]
fn the_owner_and_onboarding_introduce_nobody() {
    let mut rig = Rig::live(SessionConfig { onboarding: true, ..config() });
    rig.audio(0, 10);
    rig.words(0, 0.0, "My name is Ana.");
    rig.handle(Input::Committed);
    rig.handle(Input::Committed);
    assert_eq!(asked(&rig.said()), []);
}

fn resumed(config: SessionConfig, speakers: Vec<SpeakerAssignment>) -> Rig {
    let mut rig = Rig::new(config, Limits::default(), 1);
    let opened = opened("c1", rig.now);
    rig.handle(Input::Opened(auricle_core::session::OpenedConversation { speakers, ..opened }));
    rig.outputs();
    rig.audio(0, 60);
    rig
}

#[test]
fn a_resumed_conversation_knows_its_speakers() {
    let known = |person: Option<&str>| SpeakerAssignment {
        speaker_number: 0,
        person: person.map(PersonId::new),
        name: "Ana".into(),
        segments: Vec::new(),
    };
    let mut rig = resumed(auto(), vec![known(Some("p1"))]);
    let (first, said) = say(&mut rig, 0.0, "Here I am again.");
    assert!(said.contains(&suggestion("p1", "Ana", &first)), "{said:?}");
    let mut rig = resumed(auto(), vec![known(None)]);
    let (first, said) = say(&mut rig, 0.0, "Here I am again.");
    assert!(said.contains(&suggestion("user", "Ana", &first)), "{said:?}");
    // A client that transcribes says of each segment whether it is the owner's.
    let mut rig = resumed(SessionConfig { custom_stt: true, ..auto() }, vec![known(None)]);
    let (first, said) = say(&mut rig, 0.0, "Here I am again.");
    assert!(!said.contains(&suggestion("user", "Ana", &first)), "{said:?}");
}

#[test]
fn what_is_assigned_past_the_client_is_kept_by_later_batches_and_suggested() {
    let mut rig = Rig::live(auto());
    rig.audio(0, 60);
    let (first, _) = say(&mut rig, 0.0, "It goes on and");
    let to = Assignee::Person(PersonId::new("p1"));
    let speaker = Some((0, "Ana".to_owned()));
    rig.handle(Input::Reassigned { segments: vec![first.clone()], to, speaker });
    rig.words(0, 4.5, "on from here.");
    let batch = rig.batch();
    assert_eq!((&batch.upsert[0].id, batch.upsert.len()), (&first, 1));
    assert_eq!(batch.upsert[0].person_id, Some(PersonId::new("p1")));
    rig.handle(Input::Committed);
    rig.said();
    let (later, said) = say(&mut rig, 30.0, "Another sentence.");
    assert!(said.contains(&suggestion("p1", "Ana", &later)), "{said:?}");
    let speaker = Some((0, String::new()));
    rig.handle(Input::Reassigned { segments: vec![later], to: Assignee::Nobody, speaker });
    let (_, said) = say(&mut rig, 50.0, "And another one.");
    assert!(!said.iter().any(|output| matches!(output, Output::Emit(Event::SpeakerSuggestion { .. }))));
}

#[test]
fn a_translation_stays_with_the_last_segment_until_that_grows() {
    let mut rig = Rig::live(config());
    rig.audio(0, 60);
    rig.words(0, 0.0, "Good morning.");
    let mut translated = rig.batch().upsert;
    rig.handle(Input::Committed);
    rig.outputs();
    translated[0].translations = vec![Translation { lang: "es".into(), text: "Buenos días.".into() }];
    rig.handle(Input::Translated(translated.clone()));
    rig.words(0, 30.0, "How are you?");
    let batch = rig.batch();
    assert_eq!(batch.upsert[0], translated[0]);
    rig.handle(Input::Committed);
    let shown = rig.said();
    assert!(shown.contains(&Output::Emit(Event::Segments(batch.upsert))), "{shown:?}");
    // One that comes while the store has the text that it is of, and one that comes too late.
    rig.words(0, 34.0, "Well?");
    let batch = rig.batch();
    let mut late = batch.upsert.clone();
    late[0].text = "How are you?".into();
    late[0].translations.clone_from(&translated[0].translations);
    rig.handle(Input::Translated(late));
    rig.handle(Input::Committed);
    assert!(rig.said().contains(&Output::Emit(Event::Segments(batch.upsert))));
}
