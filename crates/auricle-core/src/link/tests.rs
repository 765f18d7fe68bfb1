use std::collections::HashMap;
use std::time::Duration;

use rand::RngExt;

use super::*;
use crate::segment::Translation;

const SECOND: Duration = Duration::from_secs(1);

struct Rig {
    link: Link,
    now: Instant,
}

impl Rig {
    #[expect(clippy::disallowed_methods, reason = "any instant will do to begin with")]
    fn new(config: LinkConfig) -> Self {
        let now = Instant::now();
        Self { link: Link::new(config, Arc::new(Limits::default()), [7; 32], now), now }
    }

    fn connected(config: LinkConfig) -> Self {
        let mut rig = Self::new(config);
        assert_eq!(rig.outputs(), [Output::Connect]);
        rig.give(Input::Connected);
        rig
    }

    fn give(&mut self, input: Input) {
        self.link.handle(self.now, input);
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.link.poll_output()).collect()
    }

    /// Lets time pass, with timers told; frames are written at once while `writes`. What was sent.
    fn run(&mut self, time: Duration, writes: bool) -> Vec<Output> {
        let end = self.now + time;
        let mut seen = Vec::new();
        loop {
            let outputs = self.outputs();
            let wrote = outputs.iter().any(|output| matches!(output, Output::Send(_)));
            seen.extend(outputs);
            if writes && wrote {
                self.give(Input::Sent);
                continue;
            }
            match self.link.poll_timeout().filter(|at| *at <= end) {
                Some(at) => {
                    self.now = self.now.max(at);
                    self.give(Input::Tick);
                }
                None => break,
            }
        }
        self.now = end;
        seen
    }
}

fn config() -> LinkConfig {
    LinkConfig { sample_rate_hz: 16_000, audio: true, resend: true }
}

fn request(conversation: &str) -> Request {
    Request { conversation: conversation.into(), language: "en".into(), job: None, revision: Revision(1) }
}

fn audio(conversation: &str, at_secs: f64, secs: f64) -> Input {
    let at = UnixMicros(0).plus_secs_f64(at_secs);
    Input::Audio { conversation: conversation.into(), at, pcm: vec![1; (secs * 16_000.0) as usize] }
}

fn segment(id: &str) -> Segment {
    Segment {
        id: id.into(),
        text: id.into(),
        speaker: None,
        is_user: false,
        person_id: None,
        start: 0.0,
        end: 1.0,
        translations: Vec::new(),
        speech_profile_processed: true,
        stt_provider: None,
    }
}

fn words(conversation: &str, ids: &[&str]) -> Input {
    let segments = ids.iter().map(|id| segment(id)).collect();
    Input::Transcript { conversation: conversation.into(), segments }
}

fn sent(outputs: &[Output]) -> Vec<Frame> {
    let frames = outputs.iter().filter_map(|output| match output {
        Output::Send(frame) => Some(frame.clone()),
        _ => None,
    });
    frames.filter(|frame| *frame != Frame::Heartbeat).collect()
}

#[test]
fn refused_six_times_it_is_degraded_and_probes_once_a_minute() {
    let mut rig = Rig::new(config());
    let start = rig.now;
    let mut tries = 0;
    while rig.now < start + 200 * SECOND {
        for output in rig.run(SECOND / 10, true) {
            if output == Output::Connect {
                tries += 1;
                rig.give(Input::ConnectFailed);
            }
        }
        assert!(rig.now < start + 80 * SECOND || rig.link.state() == LinkState::Degraded);
    }
    assert!((7..=9).contains(&tries), "six, then one a minute: {tries}");
}

#[test]
fn l28_a_pusher_that_lets_in_and_throws_out_at_once_is_tried_no_more_often_than_one_that_refuses() {
    let mut rig = Rig::new(config());
    let start = rig.now;
    let mut tries = 0;
    while rig.now < start + 600 * SECOND {
        for output in rig.run(SECOND / 10, true) {
            if output == Output::Connect {
                tries += 1;
                rig.give(Input::Connected);
                rig.now += SECOND / 10;
                rig.give(Input::Closed);
            }
        }
    }
    assert!((10..=16).contains(&tries), "six, then one a minute: {tries}");
}

#[test]
fn a_connection_that_has_lasted_makes_up_for_the_tries_before_it() {
    let limits = Limits::default();
    let mut rig = Rig::new(config());
    rig.outputs();
    for _ in 0..3 * limits.link_attempts_max {
        rig.give(Input::ConnectFailed);
        assert!(rig.run(3 * SECOND, true).contains(&Output::Connect), "the first wait again");
        rig.give(Input::Connected);
        rig.run(limits.link_stable_after, true);
        rig.give(Input::Closed);
        assert_eq!(rig.link.state(), LinkState::Backoff);
        assert!(rig.run(3 * SECOND, true).contains(&Output::Connect), "the first wait again");
    }
}

#[test]
fn links_that_an_open_breaker_rejects_come_back_when_it_lets_somebody_through_and_not_together() {
    let probe_wait = Limits::default().link_probe_wait;
    for (retry_in, wait) in
        [(Some(40 * SECOND), 40 * SECOND), (None, probe_wait), (Some(Duration::ZERO), probe_wait)]
    {
        let mut waits: Vec<_> = (0..40)
            .map(|seed| {
                let mut rig = Rig::new(config());
                rig.link.entropy = StdRng::seed_from_u64(seed);
                rig.give(Input::Rejected { retry_at: retry_in.map(|wait| rig.now + wait) });
                assert_eq!(rig.link.state(), LinkState::Degraded);
                rig.link.poll_timeout().unwrap() - rig.now
            })
            .collect();
        waits.sort();
        let (first, last) = (waits[0], waits[39]);
        assert!(first >= wait && last <= wait.mul_f64(1.25), "{retry_in:?}: {first:?} to {last:?}");
        assert!(last - first > wait / 8, "{retry_in:?}: {first:?} to {last:?}");
    }
}

#[test]
fn a_request_is_sent_at_once_and_again_only_where_a_claim_decides() {
    for (resend, times) in [(true, 2), (false, 1)] {
        let mut rig = Rig::connected(LinkConfig { resend, ..config() });
        rig.give(Input::Process(request("c1")));
        let mut frames = sent(&rig.run(SECOND / 10, true));
        rig.give(Input::Closed);
        rig.run(2 * SECOND, true);
        rig.give(Input::Connected);
        frames.extend(sent(&rig.run(SECOND, true)));
        assert_eq!(frames, vec![Frame::Process(request("c1")); times], "resend: {resend}");
    }
}

#[test]
fn l02_a_request_made_while_disconnected_is_sent_on_connect() {
    for resend in [true, false] {
        let mut rig = Rig::new(LinkConfig { resend, ..config() });
        rig.outputs();
        rig.give(Input::Process(request("c1")));
        rig.give(Input::Connected);
        assert_eq!(sent(&rig.run(SECOND, true)), [Frame::Process(request("c1"))]);
    }
}

#[test]
fn l17_a_request_without_answer_is_tried_three_times_and_then_left_to_its_job() {
    let mut rig = Rig::connected(config());
    rig.give(Input::Process(request("c1")));
    let mut outputs = Vec::new();
    for _ in 0..600 {
        outputs.extend(rig.run(SECOND, true));
        rig.give(Input::Heard);
    }
    assert_eq!(sent(&outputs).len(), 3);
    assert!(outputs.contains(&Output::Dropped { what: "request", amount: 1 }));
}

#[test]
fn d15_an_answer_ends_a_request_and_a_second_ending_replaces_the_first() {
    let mut rig = Rig::connected(config());
    rig.give(Input::Process(request("c1")));
    rig.give(Input::Process(request("c1")));
    rig.run(SECOND, true);
    rig.give(Input::Answered("c1".into()));
    rig.give(Input::Closed);
    rig.run(2 * SECOND, true);
    rig.give(Input::Connected);
    assert_eq!(sent(&rig.run(300 * SECOND, true)), []);
}

#[test]
fn l20_l21_the_conversation_is_announced_before_its_audio_and_again_on_each_connection() {
    let mut rig = Rig::connected(config());
    rig.give(audio("c1", 0.0, 0.1));
    let first = sent(&rig.run(2 * SECOND, true));
    assert!(
        matches!(&first[..], [Frame::Conversation(id), Frame::Audio { .. }] if id.as_str() == "c1"),
        "{first:?}"
    );
    rig.give(Input::Closed);
    rig.give(audio("c1", 0.1, 0.1));
    rig.run(2 * SECOND, true);
    rig.give(Input::Connected);
    let again = sent(&rig.run(2 * SECOND, true));
    assert!(
        matches!(&again[..], [Frame::Conversation(id), Frame::Audio { .. }] if id.as_str() == "c1"),
        "{again:?}"
    );
}

#[test]
fn m01_m02_m06_what_was_captured_in_one_conversation_is_sent_as_its_own() {
    let mut rig = Rig::connected(config());
    rig.give(words("c1", &["a"]));
    rig.give(audio("c1", 0.0, 0.5));
    rig.give(words("c2", &["b"]));
    rig.give(audio("c2", 0.5, 0.5));
    let frames = sent(&rig.run(3 * SECOND, true));
    let labels: Vec<String> = frames
        .iter()
        .map(|frame| match frame {
            Frame::Transcript { conversation, segments } => format!("{conversation} {}", segments[0].id),
            Frame::Conversation(id) => format!("now {id}"),
            Frame::Audio { at, .. } => format!("audio {}", at.0),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(labels, ["c1 a", "c2 b", "now c1", "audio 0", "now c2", "audio 500000"]);
}

#[test]
fn m04_a_gap_begins_a_frame_with_its_own_time() {
    let mut rig = Rig::connected(config());
    rig.give(Input::Process(request("busy")));
    rig.give(audio("c1", 0.0, 0.5));
    rig.give(audio("c1", 0.5, 0.5));
    rig.give(audio("c1", 7.0, 0.5));
    let frames = sent(&rig.run(3 * SECOND, true));
    let times: Vec<_> = frames
        .iter()
        .filter_map(|frame| match frame {
            Frame::Audio { at, pcm } => Some((at.0, pcm.len())),
            _ => None,
        })
        .collect();
    assert_eq!(times, [(0, 16_000), (7_000_000, 8_000)]);
}

#[test]
fn l18_l19_d11_what_a_lost_connection_had_been_given_is_sent_again_as_the_same_segments() {
    let mut rig = Rig::connected(config());
    rig.give(words("c1", &["a"]));
    rig.give(audio("c1", 0.0, 0.5));
    let lost = sent(&rig.run(SECOND, false));
    assert_eq!(lost.len(), 1, "one frame at a time");
    rig.give(Input::Closed);
    rig.run(2 * SECOND, false);
    rig.give(Input::Connected);
    let frames = sent(&rig.run(3 * SECOND, true));
    assert!(frames.contains(&lost[0]), "{frames:?}");
    assert!(frames.iter().any(|frame| matches!(frame, Frame::Audio { .. })), "{frames:?}");
}

#[test]
fn words_that_waited_are_sent_in_frames_that_a_peer_takes() {
    let limits = Limits::default();
    let mut rig = Rig::new(config());
    rig.outputs();
    let ids: Vec<String> = (0..limits.link_segments_max).map(|number| number.to_string()).collect();
    for id in &ids {
        let translations = vec![Translation { lang: "de".into(), text: "b".repeat(9_999) }];
        let long = Segment { text: "a".repeat(20_000), translations, ..segment(id) };
        rig.give(Input::Transcript { conversation: "c1".into(), segments: vec![long] });
    }
    // One that is longer than a frame by itself goes alone.
    let whole = Segment { text: "a".repeat(limits.link_frame_bytes_max + 1), ..segment("whole") };
    rig.give(Input::Transcript { conversation: "c2".into(), segments: vec![whole, segment("last")] });
    rig.give(Input::Connected);
    let mut arrived = Vec::new();
    for frame in sent(&rig.run(30 * SECOND, true)) {
        let Frame::Transcript { conversation, segments } = frame else { panic!("{frame:?}") };
        let bytes: usize = segments.iter().map(|segment| segment.text.len()).sum();
        assert!(bytes <= limits.link_frame_bytes_max || segments.len() == 1, "{bytes}");
        assert!(segments.len() <= limits.link_frame_bytes_max / 29_999 || conversation.as_str() == "c2");
        arrived.extend(segments.into_iter().map(|segment| segment.id.as_str().to_owned()));
    }
    let expected: Vec<_> = ids[2..].iter().map(String::as_str).chain(["whole", "last"]).collect();
    assert_eq!(arrived, expected, "each once and in order, but the two oldest, for which there was no room");
    assert!(rig.link.words.is_empty() && rig.link.words.count() == 0);
}

#[test]
fn l01_a_peer_that_takes_nothing_or_says_nothing_is_taken_for_dead() {
    let limits = Limits::default();
    let mut rig = Rig::connected(config());
    rig.give(words("c1", &["a"]));
    assert!(rig.run(limits.link_write_max + SECOND, false).contains(&Output::Disconnect));
    let mut rig = Rig::connected(config());
    let outputs = rig.run(limits.link_silent_max + SECOND, true);
    assert!(outputs.contains(&Output::Ping) && outputs.contains(&Output::Disconnect), "{outputs:?}");
    let mut rig = Rig::connected(config());
    for _ in 0..20 {
        assert!(!rig.run(30 * SECOND, true).contains(&Output::Disconnect));
        rig.give(Input::Heard);
    }
}

#[test]
fn full_buffers_drop_the_oldest_and_say_so() {
    let limits = Limits::default();
    let mut rig = Rig::new(config());
    rig.outputs();
    for second in 0..400 {
        rig.give(audio("c1", f64::from(second), 1.0));
    }
    assert!(rig.link.buffered_bytes() <= limits.link_audio_bytes_max);
    for number in 0..limits.link_segments_max + 10 {
        rig.give(words("c1", &[&number.to_string()]));
    }
    for number in 0..limits.link_requests_max + 1 {
        rig.give(Input::Process(request(&number.to_string())));
    }
    let outputs = rig.outputs();
    let dropped = |kind| -> u64 {
        let amounts = outputs.iter().filter_map(|output| match output {
            Output::Dropped { what, amount } if *what == kind => Some(*amount),
            _ => None,
        });
        amounts.sum()
    };
    assert_eq!(dropped("audio") as usize, 400 * 32_000 - rig.link.buffered_bytes());
    assert_eq!((dropped("transcript"), dropped("request")), (10, 1));
    rig.give(Input::Connected);
    let frames = sent(&rig.run(30 * SECOND, true));
    let first = frames.iter().find_map(|frame| match frame {
        Frame::Audio { at, .. } => Some(at.0),
        _ => None,
    });
    assert_eq!(first, Some(((400.0 - rig_secs(&limits)) * 1e6) as i64), "the rest keeps its time");
}

fn rig_secs(limits: &Limits) -> f64 {
    // A full buffer loses whole seconds.
    (limits.link_audio_bytes_max as f64 / 32_000.0).floor()
}

#[test]
fn leaving_sends_what_waits_and_is_bounded() {
    let mut rig = Rig::connected(config());
    rig.give(words("c1", &["a"]));
    rig.give(Input::Process(request("c1")));
    rig.give(Input::Leave);
    let outputs = rig.run(SECOND / 100, true);
    assert_eq!(sent(&outputs).len(), 2, "at once: {outputs:?}");
    assert!(rig.link.is_over());
    let mut rig = Rig::new(config());
    rig.give(words("c1", &["a"]));
    rig.give(Input::Leave);
    let outputs = rig.run(Limits::default().link_leave_max, true);
    assert!(outputs.contains(&Output::Dropped { what: "transcript", amount: 1 }), "{outputs:?}");
    assert!(rig.link.is_over());
}

/// A peer that comes and goes: whatever is not counted as dropped arrives, labelled as it was captured.
#[test]
fn what_is_not_counted_as_dropped_arrives_under_its_own_label() {
    for seed in 0..200 {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut rig = Rig::new(config());
        let (mut given, mut arrived, mut dropped) = (HashMap::new(), HashMap::new(), 0);
        let mut handed: Option<Frame> = None;
        for step in 0..2_000_u32 {
            rig.now += Duration::from_millis(chance.random_range(0..200));
            if step < 1_500 && chance.random_bool(0.4) {
                let id = format!("s{step}");
                let conversation = format!("c{}", step / 100);
                rig.give(words(&conversation, &[&id]));
                given.insert(id, conversation);
            }
            let input = match chance.random_range(0..12) {
                0 if step < 1_500 => Input::Closed,
                1 if matches!(rig.link.state, State::Connecting { .. }) && step < 1_500 => {
                    Input::ConnectFailed
                }
                2 | 3 if matches!(rig.link.state, State::Connecting { .. }) => Input::Connected,
                4..=9 if handed.is_some() => {
                    if let Some(Frame::Transcript { conversation, segments }) = handed.take() {
                        for segment in segments {
                            arrived.insert(segment.id.as_str().to_owned(), conversation.as_str().to_owned());
                        }
                    }
                    Input::Sent
                }
                10 => Input::Heard,
                _ => Input::Tick,
            };
            rig.give(input);
            for output in rig.outputs() {
                match output {
                    Output::Send(frame) => handed = Some(frame),
                    Output::Disconnect => handed = None,
                    Output::Dropped { what: "transcript", amount } => dropped += amount,
                    _ => {}
                }
            }
            if !matches!(rig.link.state, State::Connected { .. }) {
                handed = None;
            }
        }
        for (id, conversation) in &arrived {
            assert_eq!(given.get(id), Some(conversation), "seed {seed}");
        }
        let waiting = rig.link.words.count();
        assert!(
            given.len() as u64 <= arrived.len() as u64 + dropped + waiting,
            "seed {seed}: lost without a word"
        );
    }
}

#[test]
fn l27_a_speaker_sample_waits_for_the_connection_and_goes_again_after_a_lost_one() {
    let sample = || Input::SpeakerSample {
        person: "ada".into(),
        conversation: "c1".into(),
        segments: vec!["s1".into()],
    };
    let mut rig = Rig::new(config());
    rig.outputs();
    rig.give(sample());
    rig.give(Input::Connected);
    // Handed over, and the connection is gone before it is known to be written.
    assert_eq!(sent(&rig.run(SECOND / 10, false)).len(), 1);
    rig.give(Input::Closed);
    rig.run(2 * SECOND, false);
    rig.give(Input::Connected);
    let again = sent(&rig.run(SECOND / 10, true));
    assert!(
        matches!(&again[..], [Frame::SpeakerSample { person, .. }] if person.as_str() == "ada"),
        "{again:?}"
    );
    rig.give(Input::Closed);
    rig.run(3 * SECOND, true);
    rig.give(Input::Connected);
    assert_eq!(sent(&rig.run(SECOND, true)), [], "once it is written it is not repeated");
}

#[test]
fn p6_what_a_lost_connection_gives_back_finds_room_or_is_counted_as_dropped() {
    let limits = Limits {
        link_audio_bytes_max: 3_200,
        link_segments_max: 2,
        link_samples_max: 1,
        ..Limits::default()
    };
    let sample = || Input::SpeakerSample {
        person: PersonId::new("p"),
        conversation: "c1".into(),
        segments: vec!["s1".into()],
    };
    let cases: [(&str, [Input; 2], u64); 3] = [
        ("audio", [audio("c1", 0.0, 0.1), audio("c1", 5.0, 0.1)], 3_200),
        ("transcript", [words("c1", &["s1", "s2"]), words("c1", &["s3", "s4"])], 2),
        ("speaker_sample", [sample(), sample()], 1),
    ];
    for (what, [first, second], amount) in cases {
        let mut rig = Rig::connected(config());
        rig.link.limits = Arc::new(limits.clone());
        rig.give(first);
        // Announced if it is audio, and then handed over without ever being written.
        while !matches!(
            rig.link.in_flight,
            Some((Frame::Audio { .. } | Frame::Transcript { .. } | Frame::SpeakerSample { .. }, _))
        ) {
            rig.give(Input::Sent);
            rig.now += SECOND;
        }
        rig.outputs();
        rig.give(second);
        rig.give(Input::Closed);
        assert_eq!(rig.outputs(), [Output::Dropped { what, amount }]);
        assert!(
            rig.link.buffered_bytes() <= 3_200 && rig.link.words.count() <= 2 && rig.link.samples.len() <= 1
        );
    }
}

#[test]
fn p1_a_frame_that_hangs_when_the_heartbeat_is_due_asks_for_no_timer_that_is_over() {
    let mut rig = Rig::connected(config());
    rig.now += Limits::default().link_heartbeat_every - SECOND;
    rig.give(Input::Process(request("c1")));
    rig.now += SECOND;
    rig.give(Input::Tick);
    let next = rig.link.poll_timeout().unwrap();
    assert!(next > rig.now, "its driver would spin until the frame is written");
}

#[test]
fn p6_what_holds_nothing_takes_no_place_and_is_not_sent() {
    let mut rig = Rig::new(config());
    for second in 0..100 {
        rig.give(audio("c1", f64::from(second), 0.0));
        rig.give(words(if second % 2 == 0 { "c1" } else { "c2" }, &[]));
    }
    assert!(rig.link.audio.is_empty() && rig.link.words.is_empty());
    rig.give(Input::Connected);
    assert_eq!(sent(&rig.run(SECOND, true)), []);
}

#[test]
fn p7_who_leaves_with_nothing_to_send_waits_for_no_connection() {
    let mut rig = Rig::new(config());
    rig.outputs();
    rig.give(Input::Leave);
    assert!(rig.link.is_over());
    let mut rig = Rig::new(config());
    rig.give(Input::Process(request("c1")));
    rig.give(Input::Leave);
    assert!(!rig.link.is_over(), "there is something to send yet");
}
