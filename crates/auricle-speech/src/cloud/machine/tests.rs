use auricle_core::{Share, Word};

use super::*;
use crate::StreamSpec;
use crate::cloud::{ApiKey, Provider};
use crate::deepgram::DeepgramConfig;
use crate::soniox::SonioxConfig;
use crate::speechmatics::SpeechmaticsConfig;

const RATE_HZ: u32 = 1_000;

/// A machine, its session's audio, and a clock.
struct Rig {
    machine: Machine,
    backlog: Backlog,
    now: Instant,
}

impl Rig {
    /// Of a connection that is open.
    fn of(provider: &impl Provider) -> Self {
        let spec = StreamSpec {
            sample_rate_hz: RATE_HZ,
            language: "en".to_owned(),
            label: String::new(),
            key_terms: Vec::new(),
            interim: true,
        };
        let now = tokio::time::Instant::now().into_std();
        let adapter = provider.adapter(&spec).unwrap();
        let mut machine = Machine::new("tested", adapter, CloudNumbers::default(), RATE_HZ, now);
        machine.connected(now);
        Self { machine, backlog: Backlog::new(2_000, Share::default()), now }
    }

    fn deepgram() -> Self {
        Self::of(&DeepgramConfig { key: Some(ApiKey::new("key")), ..DeepgramConfig::default() })
    }

    fn push(&mut self, ms: usize) -> bool {
        self.backlog.push(&vec![7; ms])
    }

    /// All that it sends now: texts, and audio as its milliseconds.
    fn sent(&mut self) -> Vec<String> {
        let mut sent = Vec::new();
        while let Some(message) = self.machine.next(&mut self.backlog, self.now) {
            sent.push(match message {
                Outgoing::Text(text) => text,
                Outgoing::Audio(bytes) => format!("{} ms", bytes.len() / 2),
                Outgoing::Ping => "ping".to_owned(),
            });
        }
        sent
    }

    fn hear(&mut self, text: &str) {
        self.machine.heard(Incoming::Text(text.to_owned()), self.now);
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.machine.event()).collect()
    }

    /// Lets time pass, second by second.
    fn pass(&mut self, secs: u64) {
        for _ in 0..secs {
            self.now += Duration::from_secs(1);
            self.machine.on_time(self.now, true);
        }
    }
}

fn results(start: f64, duration: f64, words: &str, from_finalize: bool) -> String {
    format!(
        r#"{{"type":"Results","start":{start},"duration":{duration},"is_final":true,"from_finalize":{from_finalize},
        "channel":{{"alternatives":[{{"words":[{words}]}}]}}}}"#
    )
}

fn covered(until_sample: u64) -> Event {
    Event::Covered { until_sample }
}

#[test]
fn audio_goes_out_in_pieces_of_at_least_thirty_milliseconds_and_at_most_a_quarter_second() {
    let mut rig = Rig::deepgram();
    rig.push(20);
    assert_eq!(rig.sent(), [""; 0]);
    rig.push(20);
    assert_eq!(rig.sent(), ["40 ms"]);
    rig.push(600);
    assert_eq!(rig.sent(), ["250 ms", "250 ms", "100 ms"]);
    rig.push(10);
    rig.backlog.finish();
    assert_eq!(rig.sent(), ["10 ms", r#"{"type":"CloseStream"}"#]);
    rig.hear(r#"{"type":"Metadata","duration":0.65}"#);
    assert_eq!(rig.events(), [Event::Finished]);
    assert!(rig.machine.is_over());
}

#[test]
fn words_and_coverage_move_by_what_was_left_out() {
    let mut rig = Rig::deepgram();
    assert!(rig.push(2_000));
    assert!(!rig.push(500), "no room");
    rig.sent();
    assert!(rig.push(1_000));
    assert_eq!(rig.sent().len(), 4);
    assert_eq!(rig.events(), [Event::Skipped { from_sample: 2_000, samples: 500 }]);
    let word = r#"{"word":"after","punctuated_word":"After.","start":2.25,"end":2.5,"speaker":1}"#;
    rig.hear(&results(0.0, 2.0, "", false));
    rig.hear(&results(2.0, 1.0, word, false));
    let after = Word { text: "After.".to_owned(), start: 2.75, end: 3.0, speaker: 1, confidence: None };
    assert_eq!(rig.events(), [covered(2_000), Event::Words(vec![after]), covered(3_500)]);
}

#[test]
fn a_flush_is_decided_by_its_answer() {
    let mut rig = Rig::deepgram();
    rig.push(400);
    rig.backlog.flush();
    rig.push(100);
    assert_eq!(rig.sent(), ["250 ms", "150 ms", r#"{"type":"Finalize"}"#, "ping", "100 ms"]);
    rig.hear(&results(0.0, 0.2, "", true));
    assert_eq!(rig.events(), [covered(400)]);
}

#[test]
fn a_flush_without_an_answer_is_decided_if_the_service_lives_and_little_is_left() {
    for (undecided_ms, told) in [(800, Some(covered(800))), (1_500, None)] {
        let mut rig = Rig::deepgram();
        rig.push(undecided_ms);
        rig.backlog.flush();
        rig.sent();
        rig.pass(2);
        assert_eq!(rig.events(), [], "nothing was heard yet");
        rig.machine.heard(Incoming::Life, rig.now);
        rig.pass(1);
        assert_eq!(rig.events(), Vec::from_iter(told));
    }
}

#[test]
fn a_service_that_is_not_ready_is_sent_no_audio() {
    let key = Some(ApiKey::new("key"));
    let mut rig = Rig::of(&SpeechmaticsConfig { key, ..SpeechmaticsConfig::default() });
    rig.push(500);
    let sent = rig.sent();
    assert!(sent.len() == 1 && sent[0].contains("StartRecognition"), "{sent:?}");
    rig.hear(r#"{"message":"RecognitionStarted","id":"807670e9"}"#);
    assert_eq!(rig.sent(), ["250 ms", "250 ms"]);
    rig.backlog.finish();
    assert_eq!(rig.sent(), [r#"{"last_seq_no":2,"message":"EndOfStream"}"#]);
}

#[test]
fn a_service_that_wants_no_bursts_is_sent_what_waited_at_twice_its_speed() {
    let key = Some(ApiKey::new("key"));
    let mut rig = Rig::of(&SonioxConfig { key, ..SonioxConfig::default() });
    rig.backlog = Backlog::new(60_000, Share::default());
    rig.push(20_000);
    let ms = |sent: Vec<String>| sent.iter().filter(|sent| sent.ends_with(" ms")).count() * 250;
    assert_eq!(ms(rig.sent()), 5_250, "a burst");
    rig.now += Duration::from_secs(3);
    assert_eq!(ms(rig.sent()), 6_000);
    let wake = rig.machine.wake(rig.now).unwrap();
    assert!(wake > rig.now && wake <= rig.now + Duration::from_millis(150));
}

#[test]
fn silence_is_bridged_by_keepalives() {
    let mut rig = Rig::deepgram();
    rig.push(100);
    rig.sent();
    rig.pass(5);
    assert_eq!(rig.sent(), [r#"{"type":"KeepAlive"}"#]);
    rig.pass(5);
    assert_eq!(rig.sent(), ["ping", r#"{"type":"KeepAlive"}"#]);
}

#[test]
fn a_connection_on_which_nothing_is_heard_is_dead_after_three_pings() {
    let mut rig = Rig::deepgram();
    rig.push(100);
    rig.pass(29);
    let pings = rig.sent().iter().filter(|sent| *sent == "ping").count();
    assert_eq!((pings, rig.events().len()), (2, 0));
    rig.pass(1);
    let [Event::Failed(EngineError::Broken(text))] = &rig.events()[..] else { panic!("lives") };
    assert_eq!(text, "tested has said nothing for 30s");
    assert!(rig.machine.is_over() && rig.sent().is_empty());
}

#[test]
fn a_connection_that_is_not_read_is_not_taken_for_dead() {
    let mut rig = Rig::deepgram();
    for _ in 0..60 {
        rig.now += Duration::from_secs(1);
        rig.machine.on_time(rig.now, false);
    }
    assert!(!rig.machine.is_over());
}

#[test]
fn the_last_words_are_waited_for_so_long_and_no_longer() {
    let mut rig = Rig::deepgram();
    rig.push(100);
    rig.backlog.finish();
    rig.sent();
    for _ in 0..3 {
        rig.pass(10);
        rig.machine.heard(Incoming::Life, rig.now);
    }
    let [Event::Failed(EngineError::Broken(text))] = &rig.events()[..] else { panic!("waits") };
    assert_eq!(text, "tested did not say the last words within 30s");
}

#[test]
fn what_comes_after_the_end_is_not_told() {
    let mut rig = Rig::deepgram();
    rig.hear("<html>");
    rig.hear(&results(0.0, 1.0, "", false));
    rig.machine.heard(Incoming::Closed(None), rig.now);
    rig.machine.fail("twice", broken("tested", "failed twice"));
    let [Event::Failed(EngineError::Broken(text))] = &rig.events()[..] else { panic!("not once") };
    assert_eq!(text, "deepgram sent a message that is not JSON (line 1, column 1)");
    assert!(!rig.backlog.push(&[0; 3_000]) || rig.sent().is_empty());
}

#[test]
fn an_end_that_was_not_asked_for_is_none() {
    let mut rig = Rig::deepgram();
    rig.hear(r#"{"type":"Metadata"}"#);
    assert!(!rig.machine.is_over());
    rig.machine.heard(Incoming::Closed(Some(Close { code: 1000, reason: String::new() })), rig.now);
    assert!(matches!(rig.events()[..], [Event::Failed(EngineError::Broken(_))]));
}

#[test]
fn what_may_still_change_is_told_as_it_changes_and_its_end_once() {
    let mut rig = Rig::deepgram();
    rig.push(900);
    rig.sent();
    let changing =
        |words: &str| results(0.0, 0.9, words, false).replace(r#""is_final":true"#, r#""is_final":false"#);
    let word = |text: &str| format!(r#"{{"word":"{text}","start":0.1,"end":7.5}}"#);
    let events = |rig: &mut Rig, text: &str| {
        rig.hear(text);
        let texts = rig.events().into_iter().map(|event| match event {
            Event::Interim(words) => {
                format!("{}…", words.iter().map(|word| word.text.as_str()).collect::<String>())
            }
            Event::Words(words) => {
                assert!(words[0].end <= 0.9, "no more than was sent: {words:?}");
                words[0].text.clone()
            }
            Event::Covered { until_sample } => format!("covered {until_sample}"),
            other => format!("{other:?}"),
        });
        texts.collect::<Vec<_>>()
    };
    assert!(events(&mut rig, &changing("")).is_empty(), "nothing was told that could end");
    assert_eq!(events(&mut rig, &changing(&word("so"))), ["so…"]);
    assert_eq!(events(&mut rig, &changing(&word("sofa"))), ["sofa…"]);
    assert_eq!(events(&mut rig, &changing("")), ["…"]);
    assert!(events(&mut rig, &changing("")).is_empty());
    assert_eq!(events(&mut rig, &changing(&word("sofa"))), ["sofa…"]);
    assert_eq!(events(&mut rig, &results(0.0, 0.5, &word("so"), false)), ["so", "covered 500"]);
    assert!(events(&mut rig, &changing("")).is_empty(), "it was decided");
    assert_eq!(events(&mut rig, &changing(&word("um"))), ["um…"]);
    assert_eq!(events(&mut rig, &results(0.5, 0.3, "", false)), ["…", "covered 800"], "it was nothing");
    // What is said at once is told once.
    rig.hear(&changing(&word("a")));
    rig.hear(&changing(&word("ab")));
    assert_eq!(rig.events().len(), 1);
}
