//! A chain of scripted engines that hear tones, with a clock that is stopped.

use std::sync::Arc;
use std::time::Duration;

use auricle_audio::packets::{PacketFormat, Receiver};
use auricle_audio::{Codec, Encoder};
use auricle_core::Account;
use auricle_core::breaker::BreakerState;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Chain, ChainNumbers};
use crate::engine::{Engine, EngineError, Event, Stream, StreamSpec};
use crate::scripted::{Mode, Scripted, Switch, Trouble, tones};

const WORD_EVERY: f64 = 0.5;

struct Rig {
    chain: Chain,
    switches: Vec<Switch>,
    account: Account,
    pcm: Vec<i16>,
}

/// One session's stream, and what it was told.
struct Listener {
    stream: Box<dyn Stream>,
    events: mpsc::Receiver<Event>,
    at: usize,
    seen: Vec<(Instant, Event)>,
    refused: usize,
}

impl Rig {
    fn new(engines: usize) -> Self {
        let names = ["first", "second", "third"];
        let made = names[..engines].iter().map(|name| {
            Scripted::from_json(r#"{"hears": "tones"}"#, Trouble::default()).unwrap().named(name)
        });
        let made: Vec<_> = made.collect();
        let switches = made.iter().map(Scripted::switch).collect();
        let engines = made.into_iter().map(|engine| Arc::new(engine) as Arc<dyn Engine>).collect();
        let account = Account::default();
        let mut pcm = tones::voice(130.0);
        (0..255).filter(said).for_each(|n| tones::say(&mut pcm, word_at(n), n as u32));
        Self { chain: Chain::new(engines, ChainNumbers::default(), account.clone()), switches, account, pcm }
    }

    /// The audio as a connection has it.
    fn packets(&self) -> (Vec<Vec<u8>>, Receiver) {
        let packets = Encoder::new(Codec::OpusFs320, 16_000).unwrap().encode_all(&self.pcm).unwrap();
        let format = PacketFormat { codec: Codec::OpusFs320, sample_rate_hz: 16_000, channels: 1 };
        (packets, Receiver::new(format).unwrap())
    }

    fn listen(&self) -> Result<Listener, EngineError> {
        self.listen_at(16_000)
    }

    fn listen_at(&self, sample_rate_hz: u32) -> Result<Listener, EngineError> {
        let (sender, events) = mpsc::channel(64);
        let spec = StreamSpec {
            sample_rate_hz,
            language: "en".into(),
            label: String::new(),
            key_terms: Vec::new(),
            interim: false,
        };
        let stream = self.chain.open(spec, sender)?;
        Ok(Listener { stream, events, at: 0, seen: Vec::new(), refused: 0 })
    }
}

/// Nobody says anything for four seconds once, late.
fn said(n: &usize) -> bool {
    !(220..228).contains(n)
}

/// Where word `n` begins, in samples.
fn word_at(n: usize) -> usize {
    ((n as f64 * WORD_EVERY + 0.2) * 16_000.0) as usize
}

impl Listener {
    /// `secs` of audio as it is spoken, as packets of a connection that decodes what somebody hears. Returns how much nobody
    /// wanted to hear at once.
    async fn speak_packets(&mut self, packets: &[Vec<u8>], receiver: &mut Receiver, secs: f64) -> f64 {
        let (mut pcm, mut unwanted) = (Vec::new(), 0);
        for packet in &packets[self.at..][..(secs * 50.0) as usize] {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let decoded = self.stream.wants_samples();
            if decoded {
                receiver.decode(packet, &mut pcm).unwrap();
            }
            unwanted += usize::from(!decoded);
            assert!(self.stream.push_frame(&mut receiver.frame(packet, 320, decoded, &mut pcm)));
            self.at += 1;
            self.take().await;
        }
        unwanted as f64 / 50.0
    }

    /// `secs` of audio as it is spoken.
    async fn speak(&mut self, rig: &Rig, secs: f64) {
        for _ in 0..(secs * 50.0) as usize {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if !self.stream.push(&rig.pcm[self.at..self.at + 320]) {
                self.refused += 1;
            }
            self.at += 320;
            self.take().await;
        }
    }

    async fn take(&mut self) {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        while let Ok(event) = self.events.try_recv() {
            self.seen.push((Instant::now(), event));
        }
    }

    fn words(&self) -> Vec<(String, f64)> {
        let words = self.seen.iter().filter_map(|(_, event)| match event {
            Event::Words(words) => Some(words),
            _ => None,
        });
        words.flatten().map(|word| (word.text.clone(), word.start)).collect()
    }

    /// That each of the first `count` words came once, in order, at its time.
    fn heard_all(&self, count: usize) {
        let words = self.words();
        let said: Vec<_> = (0..count).filter(said).collect();
        assert_eq!(words.len(), said.len(), "{words:?}");
        for (n, (text, start)) in said.into_iter().zip(&words) {
            assert_eq!(*text, format!("w{n}."), "{words:?}");
            let said = word_at(n) as f64 / 16_000.0;
            assert!((start - said).abs() < 0.05, "{text} said at {said}, heard at {start}");
        }
    }

    /// No more audio comes: each of the first `count` words was heard once.
    async fn end_of(&mut self, count: usize) {
        self.stream.finish();
        self.take().await;
        self.heard_all(count);
        assert!(matches!(self.seen.last(), Some((_, Event::Finished))), "{:?}", self.seen.last());
    }

    fn when(&self, is: impl Fn(&Event) -> bool) -> Option<Instant> {
        self.seen.iter().find(|(_, event)| is(event)).map(|(at, _)| *at)
    }

    fn degraded(&self) -> Vec<(&'static str, Option<&'static str>)> {
        let told = self.seen.iter().filter_map(|(_, event)| match event {
            Event::Degraded { engine, next, .. } => Some((*engine, *next)),
            _ => None,
        });
        told.collect()
    }

    /// What it was told but for words and coverage, with the second of it.
    fn news(&self) -> Vec<String> {
        let begun = self.seen.first().map(|(at, _)| *at);
        let news =
            self.seen.iter().filter(|(_, event)| !matches!(event, Event::Words(_) | Event::Covered { .. }));
        news.map(|(at, event)| format!("{:.1} {event:?}", (*at - begun.unwrap()).as_secs_f64())).collect()
    }

    fn serving(&self) -> Vec<&'static str> {
        let told = self.seen.iter().filter_map(|(_, event)| match event {
            Event::Serving { engine } => Some(*engine),
            _ => None,
        });
        told.collect()
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_hangs_is_replaced_after_ten_seconds_and_no_word_is_missing() {
    let rig = Rig::new(2);
    let mut listener = rig.listen().unwrap();
    listener.speak(&rig, 5.0).await;
    rig.switches[0].set(Mode::Hang);
    let hung = Instant::now();
    listener.speak(&rig, 20.0).await;
    assert_eq!(listener.degraded(), [("first", Some("second"))]);
    let told = listener.when(|event| matches!(event, Event::Degraded { .. })).unwrap();
    let waited = (told - hung).as_secs_f64();
    assert!((9.0..11.0).contains(&waited), "detected after {waited} s");
    let next =
        listener.seen.iter().find(|(at, event)| *at >= told && matches!(event, Event::Words(_))).unwrap().0;
    assert!(next - told < Duration::from_secs(3), "words {:?} after it", next - told);
    listener.stream.finish();
    listener.take().await;
    listener.heard_all(50);
    assert_eq!(listener.serving(), ["first", "second"]);
    assert!(matches!(listener.seen.last(), Some((_, Event::Finished))), "{:?}", listener.seen.last());
    assert_eq!(listener.refused, 0);
}

#[tokio::test(start_paused = true)]
async fn packets_are_kept_as_they_came_for_the_next_engine_and_no_word_is_missing() {
    let rig = Rig::new(2);
    let (packets, mut receiver) = rig.packets();
    let mut listener = rig.listen().unwrap();
    listener.speak_packets(&packets, &mut receiver, 5.0).await;
    rig.switches[0].set(Mode::Hang);
    assert_eq!(listener.speak_packets(&packets, &mut receiver, 8.0).await, 0.0, "it may still answer");
    let kept = rig.account.bytes();
    assert!((1..60_000).contains(&kept), "{kept} bytes for eight seconds");
    listener.speak_packets(&packets, &mut receiver, 7.0).await;
    listener.end_of(40).await;
    assert_eq!(listener.serving(), ["first", "second"]);
    drop(listener);
    assert_eq!(rig.account.bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn packets_that_no_engine_hears_are_not_decoded_until_one_does() {
    let rig = Rig::new(1);
    let (packets, mut receiver) = rig.packets();
    let mut listener = rig.listen().unwrap();
    listener.speak_packets(&packets, &mut receiver, 5.0).await;
    rig.switches[0].set(Mode::Refuse);
    let unheard = listener.speak_packets(&packets, &mut receiver, 10.0).await;
    assert!(unheard > 9.0, "{unheard} s of 10 were not decoded");
    rig.switches[0].set(Mode::None);
    listener.speak_packets(&packets, &mut receiver, 15.0).await;
    listener.end_of(60).await;
}

#[tokio::test(start_paused = true)]
async fn failing_in_any_way_goes_down_the_whole_chain_and_comes_back_up() {
    for mode in [Mode::Refuse, Mode::Limit, Mode::AcceptThenRefuse, Mode::Drop] {
        let rig = Rig::new(3);
        rig.switches[1].set(Mode::Refuse);
        let mut listener = rig.listen().unwrap();
        listener.speak(&rig, 5.0).await;
        rig.switches[0].set(mode);
        listener.speak(&rig, 5.0).await;
        let serving = listener.serving();
        assert_eq!((serving[0], serving[1]), ("first", "third"), "{mode:?}");
        rig.switches[0].set(Mode::None);
        // Over its quota: a minute, and up to half longer.
        listener.speak(&rig, 114.0).await;
        assert_eq!(
            listener.serving().last(),
            Some(&"first"),
            "{mode:?}: {:?} {:?}",
            listener.news(),
            rig.chain.status()
        );
        listener.stream.finish();
        listener.take().await;
        listener.heard_all(248);
        assert_eq!(listener.degraded().len(), 1, "{mode:?}: told once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_of_the_only_engine_costs_time_and_no_word() {
    let rig = Rig::new(1);
    let mut listener = rig.listen().unwrap();
    listener.speak(&rig, 5.0).await;
    rig.switches[0].set(Mode::Refuse);
    listener.speak(&rig, 10.0).await;
    rig.switches[0].set(Mode::None);
    listener.speak(&rig, 15.0).await;
    listener.heard_all(60);
    assert_eq!(listener.degraded(), [("first", None)]);
    assert!(listener.when(|event| matches!(event, Event::Recovered { .. })).is_some());
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_into_memory_is_given_up_as_a_whole_and_nothing_is_kept_for_it() {
    let rig = Rig::new(1);
    let mut listener = rig.listen().unwrap();
    listener.speak(&rig, 5.0).await;
    rig.switches[0].set(Mode::Refuse);
    listener.speak(&rig, 40.0).await;
    let Some((_, Event::Failed(error))) = listener.seen.last() else { panic!("{:?}", listener.seen.last()) };
    assert!(error.to_string().contains("first: connection refused"), "{error}");
    assert!(listener.refused > 0, "what came after is not taken");
    assert_eq!(rig.account.bytes(), 0);
    // Nobody waits for an engine that will not be tried for long.
    let again = rig.listen();
    assert!(again.is_err() || rig.chain.status()[0].breaker != BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn five_hundred_streams_try_a_refusing_engine_a_few_times_a_minute_and_are_all_back_within_one() {
    let mut rig = Rig::new(1);
    // A first word that nobody waits for: silence costs nothing to hear.
    let silence = r#"[{"text": "late", "start": 9000, "end": 9001}]"#;
    let engine = Scripted::from_json(silence, Trouble::default()).unwrap().named("first");
    rig.switches = vec![engine.switch()];
    rig.chain = Chain::new(vec![Arc::new(engine)], ChainNumbers::default(), rig.account.clone());
    let rig = rig;
    let mut listeners: Vec<_> = (0..500).filter_map(|_| rig.listen_at(1_000).ok()).collect();
    assert_eq!(listeners.len(), 500, "they wait for their turn");
    let mut silence = async |secs: f64| {
        let mut down = 0;
        for _ in 0..(secs * 5.0) as usize {
            tokio::time::sleep(Duration::from_millis(200)).await;
            for (index, listener) in listeners.iter_mut().enumerate() {
                if listener.stream.push(&rig.pcm[..200]) {
                    listener.take().await;
                } else if let Ok(again) = rig.listen_at(1_000) {
                    *listener = again;
                } else {
                    down = index + 1;
                }
            }
        }
        down
    };
    silence(30.0).await;
    let attempts = || rig.chain.status()[0].attempts;
    assert_eq!(attempts(), 500, "each once");
    rig.switches[0].set(Mode::Refuse);
    silence(60.0).await;
    let first = attempts() - 500;
    assert!(first <= 15, "{first} attempts in the first minute");
    silence(60.0).await;
    let second = attempts() - 500 - first;
    assert!((2..=6).contains(&second), "{second} attempts in the second minute");
    rig.switches[0].set(Mode::None);
    silence(60.0).await;
    let back = attempts() - 500 - first - second;
    assert!((500..=560).contains(&back), "{back} attempts to be back");
    assert_eq!(rig.chain.status()[0].breaker, BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_first_sessions_of_a_fresh_process_all_hear_from_the_first_word_on() {
    let rig = Rig::new(1);
    let mut listeners: Vec<_> = (0..200).filter_map(|_| rig.listen().ok()).collect();
    assert_eq!(listeners.len(), 200);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        for listener in &mut listeners {
            listener.stream.push(&rig.pcm[listener.at..listener.at + 320]);
            listener.at += 320;
        }
        for listener in &mut listeners {
            listener.take().await;
        }
    }
    let first = |listener: &Listener| listener.when(|event| matches!(event, Event::Words(_)));
    let times: Vec<_> = listeners.iter().map(|listener| first(listener).expect("its first word")).collect();
    let (soonest, latest) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(*latest - *soonest < Duration::from_millis(500), "the last is {:?} late", *latest - *soonest);
    listeners.iter().for_each(|listener| assert_eq!(listener.degraded(), []));
}

#[tokio::test(start_paused = true)]
async fn a_language_that_the_first_does_not_know_is_heard_by_the_next_and_counts_against_nobody() {
    /// Hears nothing but English.
    struct English;
    impl Engine for English {
        fn name(&self) -> &'static str {
            "english"
        }
        fn open(&self, _: StreamSpec, _: crate::EventSender) -> Result<Box<dyn Stream>, EngineError> {
            Err(EngineError::Refused("English only".into()))
        }
        fn check(&self) -> Result<String, EngineError> {
            Ok(String::new())
        }
    }
    let rig = Rig::new(1);
    let tones = Scripted::from_json(r#"{"hears": "tones"}"#, Trouble::default()).unwrap();
    let engines: Vec<Arc<dyn Engine>> = vec![Arc::new(English), Arc::new(tones)];
    let chain = Chain::new(engines, ChainNumbers::default(), Account::default());
    let rig = Rig { chain, ..rig };
    for _ in 0..30 {
        let mut listener = rig.listen().unwrap();
        listener.speak(&rig, 2.0).await;
        assert_eq!(listener.serving(), ["scripted"]);
    }
    assert_eq!(rig.chain.status()[0].breaker, BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_no_hung_engine() {
    let rig = Rig::new(2);
    let mut listener = rig.listen().unwrap();
    rig.switches[0].set(Mode::Hang);
    for _ in 0..3_000 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        listener.stream.push(&[0; 320]);
        listener.take().await;
    }
    assert!(listener.degraded().is_empty(), "{:?}", listener.degraded());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_has_nothing_to_be_heard_does_not_try_for_all() {
    let rig = Rig::new(1);
    rig.switches[0].set(Mode::Refuse);
    for _ in 0..ChainNumbers::default().breaker_failures {
        rig.listen().unwrap().take().await;
    }
    assert_eq!(rig.chain.status()[0].breaker, BreakerState::Open);
    rig.switches[0].set(Mode::None);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let mut idle = rig.listen().unwrap();
    idle.take().await;
    assert_eq!(rig.chain.status()[0].breaker, BreakerState::HalfOpen);
    let mut speaker = rig.listen().unwrap();
    speaker.speak(&rig, 3.0).await;
    speaker.heard_all(6);
    assert_eq!(rig.chain.status()[0].breaker, BreakerState::Closed);
    // Nor is it left behind.
    idle.speak(&rig, 3.0).await;
    idle.heard_all(6);
}

#[tokio::test(start_paused = true)]
async fn what_may_still_change_is_told_on_the_streams_clock_whichever_engine_says_it() {
    let scripted = |json: &str, trouble: Trouble, name| {
        Arc::new(Scripted::from_json(json, trouble).unwrap().named(name)) as Arc<dyn Engine>
    };
    let fails = Trouble { fail_after: Some(Duration::from_secs(3)), ..Trouble::default() };
    let chain = || {
        let first = scripted(r#"[{"text": "never said", "start": 9.0, "end": 9.5}]"#, fails.clone(), "first");
        let next = r#"[{"text": "hello there", "start": 0.5, "end": 1.5, "final": true}]"#;
        let next = scripted(next, Trouble::default(), "next");
        Chain::new(vec![first, next], ChainNumbers::default(), Account::default())
    };
    for interim in [true, false] {
        let chain = chain();
        let (sender, mut events) = mpsc::channel(64);
        let spec = StreamSpec {
            sample_rate_hz: 16_000,
            language: "en".into(),
            label: String::new(),
            key_terms: Vec::new(),
            interim,
        };
        let mut stream = chain.open(spec, sender).unwrap();
        let mut all = Vec::new();
        for _ in 0..300 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.push(&[0; 320]);
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
            all.extend(std::iter::from_fn(|| events.try_recv().ok()));
        }
        let words = all.iter().find_map(|event| match event {
            Event::Words(words) => Some(words.clone()),
            _ => None,
        });
        let words = words.unwrap();
        // The next engine was played what was not decided: its clock is not the stream's.
        assert!(words[0].start > 1.5, "{words:?}");
        let changing: Vec<_> = all.iter().filter(|event| matches!(event, Event::Interim(_))).collect();
        match interim {
            true => assert_eq!(changing, [&Event::Interim(words[..1].to_vec())]),
            false => assert!(changing.is_empty(), "{changing:?}"),
        }
    }
}
