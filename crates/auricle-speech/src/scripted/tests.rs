use tokio::sync::mpsc;

use super::*;
use crate::engine::Event;

const SCRIPT: &str = r#"[
    {"text": "Hello there.", "start": 1.0, "end": 2.0, "speaker": 0},
    {"text": "How are", "start": 4.0, "end": 4.8, "speaker": 1},
    {"text": "you?", "start": 4.9, "end": 5.2, "speaker": 1, "final": true},
    {"text": "Fine.", "start": 5.3, "end": 6.0}
]"#;

fn opened(script: &str, trouble: Trouble, room: usize) -> (Box<dyn Stream>, mpsc::Receiver<Event>) {
    opened_as(script, trouble, room, false)
}

fn opened_as(
    script: &str,
    trouble: Trouble,
    room: usize,
    interim: bool,
) -> (Box<dyn Stream>, mpsc::Receiver<Event>) {
    let engine = Scripted::from_json(script, trouble).unwrap();
    let (events, heard) = mpsc::channel(room);
    let spec = StreamSpec {
        sample_rate_hz: 1_000,
        language: "en".to_owned(),
        label: String::new(),
        key_terms: Vec::new(),
        interim,
    };
    (engine.open(spec, events).unwrap(), heard)
}

/// Pushes `ms` milliseconds in frames of 20.
fn push(stream: &mut dyn Stream, ms: usize) {
    for _ in 0..ms / 20 {
        stream.push(&[0; 20]);
    }
}

fn drain(heard: &mut mpsc::Receiver<Event>) -> Vec<Event> {
    std::iter::from_fn(|| heard.try_recv().ok()).collect()
}

fn texts(events: &[Event]) -> Vec<String> {
    let said = events.iter().filter_map(|event| match event {
        Event::Words(words) => {
            Some(words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" "))
        }
        _ => None,
    });
    said.collect()
}

fn last_covered(events: &[Event]) -> Option<u64> {
    events.iter().rev().find_map(|event| match event {
        Event::Covered { until_sample } => Some(*until_sample),
        _ => None,
    })
}

#[test]
fn words_come_when_the_audio_has_passed_their_utterance_and_are_covered() {
    let (mut stream, mut heard) = opened(SCRIPT, Trouble::default(), 64);
    push(&mut *stream, 1_980);
    assert_eq!(drain(&mut heard), [Event::Covered { until_sample: 1_000 }]);
    push(&mut *stream, 40);
    let events = drain(&mut heard);
    assert_eq!(texts(&events), ["Hello there."]);
    assert_eq!(last_covered(&events), Some(2_000));
    push(&mut *stream, 5_000);
    let events = drain(&mut heard);
    assert_eq!(texts(&events), ["How are you?", "Fine."]);
    let Some(Event::Words(words)) = events.iter().find(|event| matches!(event, Event::Words(_))) else {
        panic!()
    };
    assert_eq!((words[0].start, words[0].speaker, words.len()), (4.0, 1, 3));
    assert!((words[1].start - 4.4).abs() < 1e-9, "a text of two words is spread over its time");
    assert!(last_covered(&events).unwrap() >= 6_000);
}

/// What was told of words, `…` behind those that may still change.
fn told(events: &[Event]) -> Vec<String> {
    let joined = |words: &[auricle_core::Word]| {
        words.iter().map(|word| format!("{}@{:.1}", word.text, word.start)).collect::<Vec<_>>().join(" ")
    };
    let told = events.iter().filter_map(|event| match event {
        Event::Words(words) => Some(joined(words)),
        Event::Interim(words) => Some(joined(words) + "…"),
        _ => None,
    });
    told.collect()
}

#[test]
fn words_that_have_passed_are_told_before_their_utterance_ends_if_that_was_asked_for() {
    let (mut stream, mut heard) = opened_as(SCRIPT, Trouble::default(), 64, true);
    push(&mut *stream, 4_700);
    assert_eq!(told(&drain(&mut heard)), ["Hello@1.0…", "Hello@1.0 there.@1.5", "How@4.0…"]);
    // The rest of an utterance that was decided in its middle is told alone.
    stream.flush();
    push(&mut *stream, 460);
    assert_eq!(told(&drain(&mut heard)), ["How@4.0", "are@4.4…"]);
    push(&mut *stream, 1_500);
    stream.finish();
    assert_eq!(told(&drain(&mut heard)), ["are@4.4 you?@4.9", "Fine.@5.3"]);
    // Who takes nothing is told the newest of them once there is room.
    let (mut stream, mut heard) = opened_as(SCRIPT, Trouble::default(), 1, true);
    push(&mut *stream, 4_990);
    let mut all = Vec::new();
    for _ in 0..50 {
        all.extend(drain(&mut heard));
        stream.push(&[]);
    }
    assert_eq!(told(&all).last().unwrap(), "How@4.0 are@4.4…");
}

#[test]
fn coverage_grows_and_never_passes_an_utterance_that_was_not_said() {
    let (mut stream, mut heard) = opened(SCRIPT, Trouble::default(), 64);
    let mut covered = 0;
    for _ in 0..500 {
        stream.push(&[0; 20]);
        for event in drain(&mut heard) {
            match event {
                Event::Covered { until_sample } => {
                    assert!(until_sample > covered);
                    covered = until_sample;
                }
                Event::Words(words) => assert!((words[0].start * 1_000.0) as u64 >= covered),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_flush_says_the_words_that_have_passed_and_covers_all() {
    let (mut stream, mut heard) = opened(SCRIPT, Trouble::default(), 64);
    push(&mut *stream, 4_600);
    drain(&mut heard);
    stream.flush();
    let events = drain(&mut heard);
    assert_eq!((texts(&events), last_covered(&events)), (vec!["How".to_owned()], Some(4_600)));
    push(&mut *stream, 1_000);
    assert_eq!(texts(&drain(&mut heard)), ["are you?"]);
    stream.finish();
    let events = drain(&mut heard);
    assert_eq!((texts(&events), last_covered(&events)), (vec![], Some(5_600)));
    assert_eq!(events.last(), Some(&Event::Finished));
}

#[test]
fn a_repeated_script_begins_again_with_later_times() {
    let script = format!(r#"{{"words": {SCRIPT}, "repeat_every_secs": 10.0}}"#);
    let (mut stream, mut heard) = opened(&script, Trouble::default(), 64);
    push(&mut *stream, 22_500);
    let events = drain(&mut heard);
    assert_eq!(texts(&events).iter().filter(|text| *text == "Hello there.").count(), 3);
    let starts = events.iter().filter_map(|event| match event {
        Event::Words(words) => Some(words[0].start),
        _ => None,
    });
    assert_eq!(starts.collect::<Vec<_>>(), [1.0, 4.0, 5.3, 11.0, 14.0, 15.3, 21.0]);
}

#[tokio::test]
async fn a_session_without_room_gets_everything_in_order_later() {
    let (mut stream, mut heard) = opened(SCRIPT, Trouble::default(), 1);
    push(&mut *stream, 8_000);
    stream.finish();
    let mut events = Vec::new();
    while let Some(event) = heard.recv().await {
        events.push(event);
    }
    assert_eq!(texts(&events), ["Hello there.", "How are you?", "Fine."]);
    assert_eq!(last_covered(&events), Some(8_000));
    assert_eq!(events.last(), Some(&Event::Finished));
}

#[test]
fn trouble_comes_as_it_was_told_to() {
    let secs = Duration::from_secs;
    let (mut stream, mut heard) =
        opened(SCRIPT, Trouble { fail_after: Some(secs(3)), ..Trouble::default() }, 64);
    push(&mut *stream, 8_000);
    let events = drain(&mut heard);
    assert_eq!(texts(&events), ["Hello there."]);
    assert!(matches!(events.last(), Some(Event::Failed(EngineError::Broken(_)))));

    let (mut stream, mut heard) =
        opened(SCRIPT, Trouble { hang_after: Some(secs(3)), ..Trouble::default() }, 64);
    push(&mut *stream, 8_000);
    stream.finish();
    let events = drain(&mut heard);
    assert_eq!(texts(&events), ["Hello there."]);
    assert!(!events.contains(&Event::Finished));
    assert_eq!(heard.try_recv(), Err(mpsc::error::TryRecvError::Empty), "the channel stays open");

    let trouble = Trouble { busy: Some((secs(1), secs(7))), ..Trouble::default() };
    let (mut stream, mut heard) = opened(SCRIPT, trouble, 64);
    push(&mut *stream, 6_900);
    assert!(matches!(drain(&mut heard)[..], [Event::Busy { .. }]));
    push(&mut *stream, 200);
    let events = drain(&mut heard);
    assert_eq!((events.first(), texts(&events).len()), (Some(&Event::Resumed), 3));

    let (mut stream, mut heard) = opened(SCRIPT, Trouble { delay: secs(2), ..Trouble::default() }, 64);
    push(&mut *stream, 3_900);
    assert!(texts(&drain(&mut heard)).is_empty());
    push(&mut *stream, 200);
    assert_eq!(texts(&drain(&mut heard)), ["Hello there."]);
}

#[test]
fn a_bad_script_is_refused_with_its_place() {
    let refused = |json: &str| Scripted::from_json(json, Trouble::default()).err().unwrap().to_string();
    assert!(refused(r#"[{"text": "b", "start": 3, "end": 2}]"#).contains("entry 0"));
    assert!(refused("[]").contains("no words"));
    assert!(
        refused(r#"{"words": [{"text": "a", "start": 0, "end": 9}], "repeat_every_secs": 5}"#)
            .contains("repeats")
    );
    assert!(refused("{").contains("array"));
}

#[test]
fn the_built_in_exchange_is_ten_sentences_of_two_speakers_each_round() {
    let engine = Scripted::open(None, Trouble::default()).unwrap();
    let (events, mut heard) = mpsc::channel(1_000);
    let spec = StreamSpec {
        sample_rate_hz: 16_000,
        language: "en".to_owned(),
        label: String::new(),
        key_terms: Vec::new(),
        interim: false,
    };
    let mut stream = engine.open(spec, events).unwrap();
    for _ in 0..50 * 90 {
        stream.push(&[0; 320]);
    }
    let said = texts(&drain(&mut heard));
    assert_eq!(said.len(), 20);
    assert!(said.iter().all(|sentence| sentence.ends_with(['.', '?'])));
}

#[test]
fn a_script_may_say_when_its_streams_hang() {
    let script = format!(r#"{{"words": {SCRIPT}, "hangs_after_secs": 3.0}}"#);
    let (mut stream, mut heard) = opened(&script, Trouble::default(), 64);
    push(&mut *stream, 8_000);
    stream.finish();
    let events = drain(&mut heard);
    assert_eq!(texts(&events), ["Hello there."]);
    assert!(!events.contains(&Event::Finished));
    let again = r#"{"words": [{"text": "Hi.", "start": 0.0, "end": 1.0}], "repeat_every_secs": 2.0}"#;
    let (mut stream, mut heard) = opened(again, Trouble::default(), 64);
    push(&mut *stream, 8_000);
    assert_eq!(texts(&drain(&mut heard)).len(), 4);
}
