//! Engines that fail, stores that are full, and other sessions that take a conversation over.

use std::time::Duration;

use auricle_core::session::{
    ClientText, CommitFailure, EarState, Ended, Event, Input, OpenChoice, Output, ServiceStatus,
    SessionConfig, SttTrouble,
};
use auricle_core::{FinaliseReason, Limits, Segment, SegmentId};

use crate::rig::{RATE_HZ, Rig, config, opened, texts};

fn failed(rig: &mut Rig) {
    rig.handle(Input::Ear { channel: 0, state: EarState::Failed("no answer for 10 s".into()) });
}

#[test]
fn a_full_disk_is_told_once_nothing_is_shown_and_all_of_it_is_stored_later() {
    let mut rig = Rig::live(config());
    rig.audio(0, 4);
    rig.words(0, 0.0, "one");
    let first = rig.batch();
    for tries in 0..3 {
        rig.handle(Input::CommitFailed(CommitFailure::Retry));
        let said = rig.said();
        let told = if tries == 0 { vec![Output::Emit(Event::StorageDegraded)] } else { vec![] };
        assert_eq!(said, told);
        rig.words(0, 1.0 + f64::from(tries), "more");
        rig.wait(Limits::default().store_retry_every);
        assert_eq!(rig.batch(), first, "the same batch again, whole");
    }
    rig.handle(Input::Committed);
    let said = rig.said();
    assert_eq!(
        said[..2],
        [Output::Emit(Event::StorageRecovered), Output::Emit(Event::Segments(first.upsert))]
    );
    assert!(matches!(&said[2], Output::Append(batch) if texts(batch) == ["one more more more"]), "{said:?}");
}

#[test]
fn an_engine_that_fails_is_told_once_and_opened_again_later_and_later() {
    let limits = Limits::default();
    let mut rig = Rig::live(config());
    let mut pauses = Vec::new();
    for round in 0..8 {
        failed(&mut rig);
        let said = rig.said();
        let told =
            said.iter().filter(|output| matches!(output, Output::Emit(Event::SttDegraded { .. }))).count();
        assert_eq!(told, usize::from(round == 0));
        let since = rig.now.mono;
        while !rig.said().contains(&Output::OpenEngine { channel: 0 }) {
            rig.handle(Input::Keepalive);
            rig.wait(Duration::from_millis(50));
        }
        pauses.push(rig.now.mono - since);
    }
    assert!(pauses[0] <= limits.engine_reopen_first * 2, "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= limits.engine_reopen_max * 3 / 2), "{pauses:?}");
    assert!(pauses[7] > pauses[0], "{pauses:?}");
    rig.handle(Input::Ear { channel: 0, state: EarState::Opened { from_sample: 0 } });
    assert_eq!(rig.said(), [], "it may hear nothing");
    rig.handle(Input::Ear { channel: 0, state: EarState::Serving("deepgram") });
    rig.handle(Input::Ear { channel: 0, state: EarState::Listening });
    assert!(recovered(&rig.said(), Some("deepgram")));
}

/// The pair that tells a client that words come again.
fn recovered(said: &[Output], by: Option<&str>) -> bool {
    matches!(
        said,
        [Output::Emit(Event::Status(ServiceStatus::Ready)), Output::Emit(Event::SttRecovered { engine, .. })]
            if *engine == by
    )
}

#[test]
fn an_engine_that_is_replaced_is_told_once_with_both_names_and_its_words_say_whose_they_are() {
    let mut rig = Rig::live(config());
    rig.handle(Input::Ear { channel: 0, state: EarState::Serving("deepgram") });
    rig.audio(0, 12);
    let trouble = SttTrouble {
        engine: "deepgram",
        reason: "decided nothing for 10 s".into(),
        silent_for: Duration::from_secs(10),
        next: Some("whisper"),
    };
    let since = rig.now.wall.plus_secs_f64(-10.0);
    rig.handle(Input::Ear { channel: 0, state: EarState::Degraded(trouble.clone()) });
    rig.handle(Input::Ear { channel: 0, state: EarState::Degraded(trouble) });
    let told = Event::SttDegraded {
        engine: Some("deepgram"),
        reason: "decided nothing for 10 s".into(),
        since,
        next: Some("whisper"),
    };
    let status = Output::Emit(Event::Status(ServiceStatus::SttInitiating));
    assert_eq!(rig.said(), [status, Output::Emit(told)]);
    rig.handle(Input::Ear { channel: 0, state: EarState::Serving("whisper") });
    rig.handle(Input::Ear { channel: 0, state: EarState::Listening });
    assert!(recovered(&rig.said(), Some("whisper")));
    rig.words(0, 1.0, "heard");
    let batch = rig.batch();
    assert_eq!(batch.upsert[0].stt_provider.as_deref(), Some("whisper"));
}

#[test]
fn nobody_knows_whether_people_are_silent_while_no_engine_hears() {
    let mut rig = Rig::live(config());
    rig.words(0, 0.0, "before");
    rig.handle(Input::Committed);
    failed(&mut rig);
    rig.audio(0, 600);
    let said = rig.said();
    assert!(!said.iter().any(|output| matches!(output, Output::Finalise(_))), "ended in the outage");
    rig.handle(Input::Ear { channel: 0, state: EarState::Listening });
    rig.audio(0, 60);
    assert!(!rig.said().iter().any(|output| matches!(output, Output::Finalise(_))));
    rig.audio(0, 150);
    assert!(rig.said().iter().any(|output| matches!(output, Output::Finalise(_))));
}

#[test]
fn l32_a_conversation_that_nobody_could_hear_is_left_to_repair_and_not_deleted_as_empty() {
    let mut rig = Rig::live(config());
    failed(&mut rig);
    rig.audio(0, 5);
    rig.said();
    rig.handle(Input::FinaliseNow(FinaliseReason::Requested));
    rig.wait(Limits::default().engine_flush_max);
    let said = rig.said();
    let at = |wanted: &Output| said.iter().position(|output| output == wanted);
    assert!(!said.iter().any(|output| matches!(output, Output::Finalise(_))), "{said:?}");
    assert!(
        at(&Output::Release).is_some() && at(&Output::FinaliseAnswer(Ended::Already)).is_some(),
        "{said:?}"
    );
    assert!(at(&Output::Open(OpenChoice::New)) > at(&Output::Release), "{said:?}");
}

#[test]
fn what_repair_will_hear_before_the_first_word_does_not_come_before_the_zero() {
    let mut rig = Rig::live(config());
    rig.audio(0, 3);
    failed(&mut rig);
    rig.audio(0, 5);
    rig.handle(Input::Ear { channel: 0, state: EarState::Listening });
    rig.words(0, 9.0, "live");
    let batch = rig.batch();
    assert_eq!(batch.upsert[0].start, 9.0, "the audio from the beginning on is repair's");
}

#[test]
fn p2_a_failing_engine_never_ends_a_session() {
    let mut rig = Rig::live(config());
    for _ in 0..500 {
        failed(&mut rig);
        rig.audio(0, 1);
    }
    assert!(!rig.said().iter().any(|output| matches!(output, Output::Close(_))));
    assert!(!rig.session.is_over());
}

#[test]
fn what_a_failed_stream_had_decided_is_stored_first_and_only_the_rest_is_left() {
    let mut rig = Rig::live(config());
    rig.audio(0, 4);
    rig.words(0, 0.0, "decided");
    rig.covered(0, 2);
    rig.said();
    failed(&mut rig);
    assert!(rig.said().contains(&Output::EndRun { channel: 0 }));
    rig.wait(Duration::from_secs(5));
    rig.handle(Input::Keepalive);
    assert_eq!(rig.said(), [], "neither left nor opened again while the store has the words");
    rig.handle(Input::Committed);
    let said = rig.said();
    let forget = Output::Forget { channel: 0, until_sample: 2 * u64::from(RATE_HZ) };
    let leave = Output::LeaveRun { channel: 0, until_sample: 4 * u64::from(RATE_HZ) };
    assert_eq!(said[1..], [forget, leave]);
}

#[test]
fn busy_recognisers_are_told_once_and_recovery_too() {
    let mut rig = Rig::live(config());
    rig.handle(Input::Ear { channel: 0, state: EarState::Busy });
    rig.handle(Input::Ear { channel: 0, state: EarState::Busy });
    assert!(matches!(
        rig.said()[..],
        [Output::Emit(Event::Status(_)), Output::Emit(Event::SttDegraded { .. })]
    ));
    rig.handle(Input::Ear { channel: 0, state: EarState::Listening });
    assert!(recovered(&rig.said(), None));
}

#[test]
fn m05_a_superseded_session_goes_on_with_a_conversation_of_its_own() {
    let mut rig = Rig::live(config());
    rig.audio(0, 4);
    rig.words(0, 0.0, "theirs");
    rig.said();
    rig.handle(Input::Superseded);
    assert_eq!(rig.said(), [], "only the store knows whether those words are in");
    rig.handle(Input::CommitFailed(CommitFailure::Superseded));
    let leave = Output::LeaveRun { channel: 0, until_sample: 4 * u64::from(RATE_HZ) };
    assert_eq!(rig.said(), [Output::EndRun { channel: 0 }, leave, Output::Disown]);
    rig.audio(0, 4);
    rig.words(0, 1.0, "repairs");
    assert_eq!(rig.said(), []);
    rig.words(0, 5.0, "ours");
    assert_eq!(rig.said()[..2], [Output::Disown, Output::Open(OpenChoice::New)]);
}

#[test]
fn a_notice_that_crosses_a_commit_loses_and_doubles_nothing() {
    let mut rig = Rig::live(config());
    rig.audio(0, 4);
    rig.words(0, 0.0, "stored");
    rig.covered(0, 2);
    let batch = rig.batch();
    rig.handle(Input::Superseded);
    rig.handle(Input::Committed);
    let said = rig.said();
    let forget = Output::Forget { channel: 0, until_sample: 2 * u64::from(RATE_HZ) };
    assert_eq!(said[0], Output::Emit(Event::Segments(batch.upsert)));
    assert!(said.contains(&forget), "{said:?}");
    assert_eq!(said.last(), Some(&Output::Disown));
}

#[test]
fn somebody_elses_takeover_answers_whoever_waits_for_an_ending() {
    let mut rig = Rig::live(config());
    rig.audio(0, 1);
    rig.handle(Input::FinaliseNow(FinaliseReason::Requested));
    rig.handle(Input::Superseded);
    assert!(rig.said().contains(&Output::FinaliseAnswer(Ended::Already)));
}

#[test]
fn l35_words_for_a_conversation_that_is_gone_begin_the_next_one() {
    let mut rig = Rig::live(config());
    rig.audio(0, 2);
    rig.words(0, 0.0, "homeless");
    rig.said();
    rig.handle(Input::CommitFailed(CommitFailure::Ended));
    assert_eq!(rig.said(), [Output::Disown, Output::Open(OpenChoice::New)]);
    rig.handle(Input::Opened(opened("c2", rig.now)));
    assert_eq!(texts(&rig.batch()), ["homeless"]);
}

#[test]
fn a_client_that_transcribes_has_no_audio_to_repair_from_so_its_words_go_where_they_belong() {
    let custom = SessionConfig { engine: false, custom_stt: true, ..config() };
    let mut rig = Rig::live(custom);
    let segment = Segment {
        id: SegmentId::new(""),
        text: "typed".into(),
        speaker: None,
        is_user: false,
        person_id: None,
        start: 0.0,
        end: 1.0,
        translations: Vec::new(),
        speech_profile_processed: true,
        stt_provider: None,
    };
    let text = ClientText::Suggested { provider: Some("phone".into()), segments: vec![segment] };
    rig.handle(Input::Text(text));
    let batch = rig.batch();
    assert_eq!(batch.upsert[0].stt_provider.as_deref(), Some("phone"));
    assert!(!batch.upsert[0].id.as_str().is_empty(), "before any audio, and with an id");
    rig.handle(Input::CommitFailed(CommitFailure::Superseded));
    let said = rig.said();
    assert!(
        matches!(&said[..], [.., Output::AppendElsewhere { segments, .. }, Output::LeaveRun { .. }, Output::Disown] if segments[0].text == "typed"),
        "{said:?}"
    );
}

#[test]
fn a_client_that_does_not_transcribe_suggests_nothing() {
    let mut rig = Rig::live(config());
    let text = ClientText::Suggested { provider: None, segments: Vec::new() };
    rig.handle(Input::Text(text));
    assert_eq!(rig.said(), []);
}

#[test]
fn engine_events_wait_while_too_many_words_are_not_stored() {
    let mut rig = Rig::live(config());
    rig.audio(0, 60);
    let mut given = 0;
    while !rig.session.is_congested() {
        rig.words(0, f64::from(given) * 0.01, "word");
        given += 1;
    }
    assert_eq!(given as usize, Limits::default().segments_uncommitted_max + 1, "one batch is with the store");
    rig.handle(Input::Committed);
    assert!(!rig.session.is_congested());
}

#[test]
fn a_clock_that_jumps_back_stops_no_timer() {
    let mut rig = Rig::live(SessionConfig { timeout: Duration::from_secs(30), ..config() });
    rig.now.wall = rig.now.wall.plus_secs_f64(-86_400.0);
    rig.wait(Duration::from_secs(30));
    assert!(rig.said().contains(&Output::Finalise(FinaliseReason::Silence)));
}
