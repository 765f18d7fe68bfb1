//! How conversations begin and end, and how a session leaves.

use std::time::Duration;

use auricle_core::session::{
    ClientText, Close, CommitFailure, EarState, Ended, Event, FinaliseOnClose, Input, OpenChoice, Output,
    ServiceStatus, SessionConfig, TimerReason,
};
use auricle_core::{ConversationId, FinaliseReason, Limits, Revision};

use crate::rig::{Rig, config, opened, texts};

fn queued(conversation: &str) -> Ended {
    Ended::Queued { conversation: ConversationId::new(conversation), revision: Revision(1) }
}

fn short() -> SessionConfig {
    SessionConfig { timeout: Duration::from_secs(30), ..config() }
}

#[test]
fn a_session_greets_asks_for_its_conversation_and_listens_before_it_has_one() {
    let mut rig = Rig::new(config(), Limits::default(), 1);
    assert_eq!(
        rig.outputs(),
        [
            Output::Emit(Event::Ping),
            Output::Emit(Event::Status(ServiceStatus::Initiating)),
            Output::Open(OpenChoice::Resume),
            Output::OpenEngine { channel: 0 },
        ]
    );
    rig.audio(0, 2);
    rig.words(0, 0.0, "hello there");
    assert_eq!(rig.said(), [], "words wait for their conversation");
    rig.handle(Input::Opened(opened("c1", rig.now)));
    let said = rig.said();
    let announced = [
        Output::Emit(Event::Status(ServiceStatus::ConversationsProcessing)),
        Output::Emit(Event::ConversationSession(ConversationId::new("c1"))),
        Output::Emit(Event::Status(ServiceStatus::SttInitiating)),
        Output::Emit(Event::Status(ServiceStatus::Ready)),
    ];
    assert_eq!(said[..4], announced);
    assert!(matches!(&said[4], Output::Append(batch) if texts(batch) == ["hello there"]));
}

#[test]
fn p5_words_are_shown_after_they_are_committed_and_not_before() {
    let mut rig = Rig::live(config());
    rig.audio(0, 3);
    rig.words(0, 0.0, "one two");
    let batch = rig.batch();
    rig.words(0, 2.0, "three");
    assert_eq!(rig.said(), [], "one batch at a time, and nothing shown");
    rig.handle(Input::Committed);
    let said = rig.said();
    assert_eq!(said[0], Output::Emit(Event::Segments(batch.upsert)));
    assert!(matches!(&said[1], Output::Append(batch) if texts(batch) == ["one two three"]), "{said:?}");
}

#[test]
fn silence_ends_a_conversation_once_its_audio_is_decided_and_the_next_begins() {
    let mut rig = Rig::live(short());
    rig.audio(0, 2);
    rig.words(0, 0.0, "goodbye");
    rig.covered(0, 2);
    rig.handle(Input::Committed);
    rig.said();
    rig.audio(0, 29);
    assert!(!rig.said().contains(&Output::Finalise(FinaliseReason::Silence)));
    assert_eq!(rig.session.poll_timeout().unwrap().1, TimerReason::Silence);
    rig.audio(0, 1);
    let said = rig.said();
    assert!(said.contains(&Output::FlushEngine), "{said:?}");
    assert!(!said.contains(&Output::Finalise(FinaliseReason::Silence)), "the engine may still have words");
    rig.covered(0, 33);
    assert!(rig.said().contains(&Output::Finalise(FinaliseReason::Silence)));
    rig.handle(Input::Finalised(queued("c1")));
    let said = rig.said();
    let conversation = ConversationId::new("c1");
    assert_eq!(said[0], Output::Emit(Event::ProcessingStarted { conversation }));
    assert_eq!(said[1..], [Output::Disown, Output::Open(OpenChoice::New)]);
}

#[test]
fn words_said_while_a_conversation_ends_begin_the_next_one() {
    let mut rig = Rig::live(config());
    rig.audio(0, 4);
    rig.handle(Input::FinaliseNow(FinaliseReason::Requested));
    rig.audio(0, 4);
    rig.words(0, 0.0, "before");
    rig.words(0, 5.0, "after");
    assert_eq!(texts(&rig.batch()), ["before"]);
    rig.handle(Input::Committed);
    assert!(rig.said().contains(&Output::Finalise(FinaliseReason::Requested)));
    rig.handle(Input::Finalised(queued("c1")));
    assert!(rig.said().contains(&Output::FinaliseAnswer(queued("c1"))));
    rig.handle(Input::Opened(opened("c2", rig.now)));
    let batch = rig.batch();
    assert_eq!((texts(&batch), batch.upsert[0].start), (vec!["after"], 0.0));
}

#[test]
fn an_engine_that_hangs_holds_an_ending_back_for_its_bound_and_its_audio_is_left_to_repair() {
    let mut rig = Rig::live(config());
    rig.audio(0, 4);
    rig.words(0, 0.0, "heard");
    rig.handle(Input::Committed);
    rig.handle(Input::FinaliseNow(FinaliseReason::Requested));
    rig.said();
    rig.wait(Limits::default().engine_flush_max);
    let said = rig.said();
    let left = Output::LeaveRun { channel: 0, until_sample: 64_000 };
    assert!(said.ends_with(&[left, Output::Finalise(FinaliseReason::Requested)]), "{said:?}");
    rig.handle(Input::Finalised(queued("c1")));
    rig.handle(Input::Opened(opened("c2", rig.now)));
    rig.said();
    rig.words(0, 2.0, "late");
    let said = rig.said();
    assert!(!said.iter().any(|output| matches!(output, Output::Append(_))), "they come back through repair");
}

#[test]
fn a_failed_engine_is_not_waited_for() {
    let mut rig = Rig::live(config());
    rig.audio(0, 4);
    rig.words(0, 0.0, "heard");
    rig.handle(Input::Committed);
    rig.handle(Input::Ear { channel: 0, state: EarState::Failed("gone".into()) });
    rig.handle(Input::FinaliseNow(FinaliseReason::Requested));
    assert!(rig.said().contains(&Output::Finalise(FinaliseReason::Requested)));
}

#[test]
fn an_empty_conversation_is_asked_to_end_like_any_other_and_says_nothing() {
    let mut rig = Rig::live(short());
    rig.wait(Duration::from_secs(30));
    assert!(rig.said().contains(&Output::Finalise(FinaliseReason::Silence)));
    rig.handle(Input::Finalised(Ended::DeletedEmpty));
    assert_eq!(rig.said(), [Output::Disown, Output::Open(OpenChoice::New)]);
}

#[test]
fn a_resumed_conversation_is_silent_since_its_last_content() {
    let mut rig = Rig::new(short(), Limits::default(), 1);
    let mut resumed = opened("c1", rig.now);
    (resumed.resumed, resumed.has_content) = (true, true);
    resumed.finished_at = rig.now.wall.plus_secs_f64(-20.0);
    rig.handle(Input::Opened(resumed));
    rig.wait(Duration::from_secs(9));
    assert!(!rig.said().contains(&Output::Finalise(FinaliseReason::Silence)));
    rig.wait(Duration::from_secs(1));
    assert!(rig.said().contains(&Output::Finalise(FinaliseReason::Silence)));
}

#[test]
fn the_clients_reason_is_noted_at_once_and_kept_for_the_end() {
    let mut rig = Rig::live(short());
    rig.handle(Input::Text(ClientText::FinaliseReason(FinaliseReason::MeetingEnded)));
    assert_eq!(rig.said(), [Output::NoteReason(FinaliseReason::MeetingEnded)]);
    rig.wait(Duration::from_secs(30));
    assert!(rig.said().contains(&Output::Finalise(FinaliseReason::MeetingEnded)));
}

#[test]
fn a_store_that_cannot_finalise_is_asked_again_until_it_can() {
    let mut rig = Rig::live(config());
    rig.handle(Input::FinaliseNow(FinaliseReason::Requested));
    rig.said();
    for _ in 0..3 {
        rig.handle(Input::FinaliseFailed);
        rig.said();
        rig.wait(Limits::default().store_retry_every);
        assert!(rig.said().contains(&Output::Finalise(FinaliseReason::Requested)));
    }
    rig.handle(Input::Finalised(queued("c1")));
    let said = rig.said();
    assert_eq!(said[0], Output::Emit(Event::StorageRecovered));
    assert!(said.contains(&Output::FinaliseAnswer(queued("c1"))));
}

#[test]
fn d12_two_requests_to_finalise_make_one_ending() {
    let mut rig = Rig::live(config());
    rig.handle(Input::FinaliseNow(FinaliseReason::Requested));
    rig.handle(Input::FinaliseNow(FinaliseReason::Requested));
    let finalises = rig.said().into_iter().filter(|output| matches!(output, Output::Finalise(_))).count();
    assert_eq!(finalises, 1);
    rig.handle(Input::Finalised(queued("c1")));
    let answers = rig.said().into_iter().filter(|output| matches!(output, Output::FinaliseAnswer(_))).count();
    assert_eq!(answers, 1, "for whoever waits");
}

/// The outputs of a session whose client left with `code`, after its engine has finished.
fn left(finalise_on_close: FinaliseOnClose, code: Option<u16>) -> Vec<Output> {
    let mut rig = Rig::live(SessionConfig { finalise_on_close, ..config() });
    rig.audio(0, 2);
    rig.handle(Input::ClientClosed { code });
    assert!(rig.said().contains(&Output::FinishEngine));
    rig.words(0, 0.0, "last");
    rig.handle(Input::Ear { channel: 0, state: EarState::Finished });
    assert_eq!(texts(&rig.batch()), ["last"]);
    rig.handle(Input::Committed);
    rig.said()
}

#[test]
fn who_leaves_ends_the_conversation_only_where_that_is_meant() {
    let finalise = Output::Finalise(FinaliseReason::ConnectionEnded);
    for (when, code, ends) in [
        (FinaliseOnClose::Never, Some(1000), false),
        (FinaliseOnClose::Normal, Some(1000), true),
        (FinaliseOnClose::Normal, Some(1001), false),
        (FinaliseOnClose::Normal, None, false),
        (FinaliseOnClose::Always, None, true),
    ] {
        let said = left(when, code);
        assert_eq!(said.contains(&finalise), ends, "{when:?} {code:?}: {said:?}");
        assert_eq!(said.contains(&Output::Release), !ends, "{when:?} {code:?}: {said:?}");
    }
}

#[test]
fn leaving_is_bounded_when_neither_engine_nor_store_comes_back() {
    let limits = Limits::default();
    let mut rig = Rig::live(config());
    rig.audio(0, 2);
    rig.words(0, 0.0, "last");
    rig.handle(Input::CommitFailed(CommitFailure::Retry));
    rig.handle(Input::ClientClosed { code: None });
    for _ in 0..2 * limits.engine_drain_max.as_secs() {
        assert!(!rig.session.is_over());
        rig.wait(Duration::from_secs(1));
        rig.handle(Input::CommitFailed(CommitFailure::Retry));
    }
    let said = rig.said();
    let left = Output::LeaveRun { channel: 0, until_sample: u64::MAX };
    assert!(said.ends_with(&[Output::Release, Output::EndRun { channel: 0 }, left]), "{said:?}");
    assert!(rig.session.is_over());
}

#[test]
fn a_silent_client_is_pinged_and_after_the_bound_closed() {
    let limits = Limits::default();
    let mut rig = Rig::live(config());
    rig.wait(limits.client_silent_max - limits.ping_every);
    let pings = rig.outputs().into_iter().filter(|output| *output == Output::Emit(Event::Ping)).count();
    assert_eq!(pings, 8);
    rig.handle(Input::Keepalive);
    rig.wait(limits.client_silent_max - limits.ping_every);
    assert!(!rig.said().contains(&Output::Close(Close::Inactive)), "any frame counts");
    rig.wait(limits.ping_every * 2);
    assert!(rig.said().contains(&Output::Close(Close::Inactive)));
}

#[test]
fn p7_a_drain_closes_with_restarting_and_leaves_the_conversation_to_a_reconnect() {
    let always = SessionConfig { finalise_on_close: FinaliseOnClose::Always, ..config() };
    let mut rig = Rig::live(always);
    rig.handle(Input::Drain);
    let said = rig.said();
    assert_eq!(said[0], Output::Close(Close::Restarting));
    assert!(said.contains(&Output::Release));
    assert!(!said.iter().any(|output| matches!(output, Output::Finalise(_))), "{said:?}");
    assert!(rig.session.is_over());
}

#[test]
fn nothing_follows_the_end() {
    let mut rig = Rig::live(config());
    rig.handle(Input::ClientClosed { code: None });
    rig.said();
    assert!(rig.session.is_over());
    rig.handle(Input::Committed);
    rig.handle(Input::Superseded);
    rig.handle(Input::ClientClosed { code: None });
    rig.handle(Input::Drain);
    rig.wait(Duration::from_secs(3_600));
    assert_eq!(rig.said(), []);
    rig.handle(Input::FinaliseNow(FinaliseReason::Requested));
    assert_eq!(rig.said(), [Output::FinaliseAnswer(Ended::Already)]);
}
