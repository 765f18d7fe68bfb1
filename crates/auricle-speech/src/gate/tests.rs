use proptest::prelude::*;
use tokio::sync::mpsc;

use super::machine::{Machine, Step};
use super::map::{Map, PIECES_MAX};
use super::*;
use crate::engine::Event;
use auricle_core::Word;

/// "Please send the report before Friday." and "Thank you very much." at `rate`.
fn speech(rate: u32) -> Vec<i16> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/please-send.wav");
    auricle_audio::file::read(std::fs::File::open(path).unwrap(), rate).unwrap()
}

/// Stretches of the clip with silence around each, and whether each 20 ms is loud.
fn layout(rate: u32, silences_ms: &[u64]) -> (Vec<i16>, Vec<bool>) {
    let (clip, mut pcm) = (speech(rate), Vec::new());
    for silence in silences_ms {
        pcm.extend(vec![0; (silence * u64::from(rate) / 1_000) as usize]);
        pcm.extend(&clip);
    }
    pcm.extend(vec![0; rate as usize]);
    let loud = |frame: &[i16]| {
        let energy: f64 = frame.iter().map(|sample| f64::from(*sample).powi(2)).sum();
        (energy / frame.len() as f64).sqrt() > 300.0
    };
    let loud = pcm.chunks(rate as usize / 50).map(loud).collect();
    (pcm, loud)
}

struct Sent {
    at: u64,
    pcm: Vec<i16>,
}

fn run(rate: u32, pcm: &[i16], chunks: &[usize], config: &GateConfig) -> (Vec<Sent>, usize, Machine) {
    let mut machine = Machine::new(rate, config);
    let (mut sent, mut pauses, mut rest) = (Vec::new(), 0, pcm);
    for size in chunks.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, behind) = rest.split_at((*size).min(rest.len()));
        rest = behind;
        machine.push(chunk, false, |step| match step {
            Step::Send { at, pcm } => sent.push(Sent { at, pcm: pcm.to_vec() }),
            Step::Pause => pauses += 1,
        });
    }
    (sent, pauses, machine)
}

const RATES: [u32; 6] = [8_000, 11_025, 16_000, 24_000, 44_100, 48_000];

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn voiced_audio_is_sent_once_in_order_and_unchanged(
        rate in proptest::sample::select(&RATES[..]),
        silences in prop::collection::vec(0_u64..5_000, 1..3),
        chunks in prop::collection::vec(1_usize..9_000, 1..6),
    ) {
        let (pcm, loud) = layout(rate, &silences);
        let (sent, pauses, machine) = run(rate, &pcm, &chunks, &GateConfig::default());
        let (mut until, mut has) = (0, vec![false; pcm.len()]);
        for Sent { at, pcm: piece } in &sent {
            prop_assert!(*at >= until, "{at} was sent behind {until}");
            until = at + piece.len() as u64;
            prop_assert_eq!(&pcm[*at as usize..until as usize], &piece[..]);
            has[*at as usize..until as usize].fill(true);
        }
        for (frame, loud) in has.chunks(rate as usize / 50).zip(&loud) {
            prop_assert!(!loud || frame.iter().all(|sent| *sent), "voice was held back at {rate} Hz");
        }
        prop_assert!(pauses >= 1 && !machine.is_open());
        prop_assert!(machine.silent_until() >= until && machine.silent_until() <= pcm.len() as u64);
    }

    #[test]
    fn the_map_knows_where_each_sample_came_from(
        stretches in prop::collection::vec((0_u64..50, 1_u64..40), 1..60),
        forget in 0_u64..400,
    ) {
        let (mut map, mut truth, mut at) = (Map::default(), Vec::new(), 0);
        for (gap, samples) in stretches {
            at += gap;
            map.send(at, samples);
            truth.extend(at..at + samples);
            at += samples;
        }
        prop_assert_eq!(map.sent(), truth.len() as u64);
        prop_assert_eq!(map.end(), at);
        map.forget(forget);
        let mut before = 0;
        for (sent, stream) in truth.iter().enumerate() {
            let found = map.start_of(sent as u64);
            prop_assert!(found >= before, "positions went back");
            before = found;
            if sent as u64 >= forget {
                prop_assert_eq!(found, *stream);
                prop_assert_eq!(map.end_of(sent as u64 + 1), stream + 1);
            }
        }
    }
}

#[test]
fn a_word_stays_within_the_stretch_that_holds_its_middle() {
    let mut map = Map::default();
    map.send(100, 100);
    map.send(1_000, 100);
    let placed = |start: f64, end: f64| {
        let mut word = Word { text: "w".into(), start, end, speaker: 0, confidence: None };
        map.place(&mut word, 100);
        (word.start, word.end)
    };
    assert_eq!(placed(0.0, 0.5), (1.0, 1.5));
    assert_eq!(placed(0.9, 1.0), (1.9, 2.0));
    assert_eq!(placed(1.0, 1.4), (10.0, 10.4));
    // An engine that counts frames names a word a little early: it does not jump back over the silence.
    assert_eq!(placed(0.99, 1.4), (10.0, 10.4));
    assert_eq!(placed(7.0, 9.0), (11.0, 11.0));
}

#[test]
fn a_map_that_is_full_needs_no_more_stretches_since_silence_is_sent_then() {
    let mut map = Map::default();
    (0..PIECES_MAX as u64).for_each(|piece| map.send(piece * 10, 5));
    assert!(map.is_full() && map.len() == PIECES_MAX);
    map.send(map.end(), 1_000);
    assert_eq!(map.len(), PIECES_MAX);
    map.forget(map.sent());
    assert!(!map.is_full() && map.len() <= 2);

    let (pcm, _) = layout(16_000, &[1_000, 9_000, 9_000]);
    let mut machine = Machine::new(16_000, &GateConfig::default());
    let mut stretches = Vec::new();
    for chunk in pcm.chunks(320) {
        let send_all = !stretches.is_empty();
        machine.push(chunk, send_all, |step| {
            if let Step::Send { at, pcm } = step {
                match stretches.last_mut() {
                    Some((_, end)) if *end == at => *end = at + pcm.len() as u64,
                    _ => stretches.push((at, at + pcm.len() as u64)),
                }
            }
        });
    }
    assert_eq!(stretches.len(), 1, "{stretches:?}");
    assert_eq!(stretches[0].1, pcm.len() as u64);
}

#[test]
fn what_is_flushed_is_settled_and_speech_goes_on_behind_it() {
    let (pcm, loud) = layout(16_000, &[500]);
    let first_loud = loud.iter().position(|loud| *loud).unwrap();
    let mut machine = Machine::new(16_000, &GateConfig::default());
    let mut has = vec![false; pcm.len()];
    let mut heard = 0;
    for (index, chunk) in pcm.chunks(320).enumerate() {
        machine.push(chunk, false, |step| {
            if let Step::Send { at, pcm } = step {
                assert!(at as usize + pcm.len() <= heard + chunk.len());
                has[at as usize..at as usize + pcm.len()].fill(true);
            }
        });
        heard += chunk.len();
        // In the middle of a word.
        if index == first_loud + 20 {
            machine.flush();
            assert_eq!((machine.silent_until(), machine.tail()), (heard as u64, 0));
        }
    }
    for (frame, loud) in has.chunks(320).zip(&loud) {
        assert!(!loud || frame.iter().all(|sent| *sent));
    }
}

/// Hears with the scripted engine, which counts what it is sent.
async fn hear(gate: &Gate, rate: u32, pcm: &[i16]) -> Vec<Event> {
    hear_as(gate, rate, pcm, false).await
}

async fn hear_as(gate: &Gate, rate: u32, pcm: &[i16], interim: bool) -> Vec<Event> {
    let (sender, mut events) = mpsc::channel(64);
    let spec = StreamSpec {
        sample_rate_hz: rate,
        language: "en".into(),
        label: "test".into(),
        key_terms: Vec::new(),
        interim,
    };
    let mut stream = gate.open(spec, sender).unwrap();
    let mut all = Vec::new();
    for chunk in pcm.chunks(rate as usize / 50) {
        assert!(stream.push(chunk));
        tokio::task::yield_now().await;
        while let Ok(event) = events.try_recv() {
            all.push(event);
        }
    }
    stream.finish();
    while all.last() != Some(&Event::Finished) {
        all.push(tokio::time::timeout(Duration::from_secs(60), events.recv()).await.unwrap().unwrap());
    }
    all
}

fn scripted(json: &str) -> Gate {
    let engine = crate::scripted::Scripted::from_json(json, crate::scripted::Trouble::default()).unwrap();
    Gate::new(Arc::new(engine), GateConfig { mode: GateMode::On, ..GateConfig::default() })
}

#[tokio::test]
async fn words_and_coverage_come_back_on_the_streams_own_clock() {
    for rate in RATES {
        // The second clip's words, as the engine counts them: it has heard the first stretch and not the silence.
        let (pcm, loud) = layout(rate, &[4_000, 9_000]);
        let spoken = loud.iter().rposition(|loud| *loud).unwrap() as f64 / 50.0;
        let gate = scripted(r#"[{"text": "first", "start": 0.5, "end": 0.9, "final": true}]"#);
        let events = hear(&gate, rate, &pcm).await;
        let saved = gate.saved();
        assert!(saved.sent < saved.heard / 2, "{saved:?} at {rate} Hz");
        let words = events.iter().find_map(|event| match event {
            Event::Words(words) => Some(words[0].clone()),
            _ => None,
        });
        let start = words.unwrap().start;
        // The clip begins at 4 s, and what was sent a pre-roll before its first voice.
        assert!((4.0..5.2).contains(&start), "{start} at {rate} Hz");
        let covered: Vec<u64> = events
            .iter()
            .filter_map(|event| match event {
                Event::Covered { until_sample } => Some(*until_sample),
                _ => None,
            })
            .collect();
        assert!(covered.is_sorted(), "{covered:?}");
        assert_eq!(covered.last(), Some(&(pcm.len() as u64)));
        // Silence is covered while it lasts, not only at the end.
        let in_first_silence = covered.iter().filter(|until| **until < 4 * u64::from(rate)).count();
        assert!(in_first_silence >= 5, "{in_first_silence} at {rate} Hz");
        assert!(spoken > 13.0);
    }
}

#[tokio::test]
async fn what_may_still_change_is_told_where_it_will_be_decided() {
    let (pcm, _) = layout(16_000, &[4_000, 9_000]);
    let script = r#"[{"text": "first second", "start": 0.5, "end": 1.3, "final": true}]"#;
    let events = hear_as(&scripted(script), 16_000, &pcm, true).await;
    let words = events.iter().find_map(|event| match event {
        Event::Words(words) => Some(words.clone()),
        _ => None,
    });
    let words = words.unwrap();
    assert!(words.len() == 2 && words[0].start > 4.0, "{words:?}");
    let changing: Vec<_> = events.iter().filter(|event| matches!(event, Event::Interim(_))).collect();
    assert_eq!(changing, [&Event::Interim(words[..1].to_vec())]);
    let without = hear(&scripted(script), 16_000, &pcm).await;
    assert!(!without.iter().any(|event| matches!(event, Event::Interim(_))));
}

#[tokio::test]
async fn a_stream_without_speech_sends_nothing_and_is_covered_to_its_end() {
    let gate = scripted(r#"[{"text": "never", "start": 0.0, "end": 0.1, "final": true}]"#);
    let events = hear(&gate, 8_000, &vec![0; 80_000]).await;
    assert_eq!(gate.saved(), Saved { heard: Duration::from_secs(10), sent: Duration::ZERO });
    assert_eq!(events[events.len() - 2..], [Event::Covered { until_sample: 80_000 }, Event::Finished]);
    assert!(!events.iter().any(|event| matches!(event, Event::Words(_))));
}

#[tokio::test]
async fn a_flush_in_silence_covers_all_that_was_heard_at_once() {
    let gate = scripted(r#"[{"text": "never", "start": 0.0, "end": 0.1, "final": true}]"#);
    let (sender, mut events) = mpsc::channel(64);
    let spec = StreamSpec {
        sample_rate_hz: 16_000,
        language: "en".into(),
        label: "test".into(),
        key_terms: Vec::new(),
        interim: false,
    };
    let mut stream = gate.open(spec, sender).unwrap();
    stream.push(&[0; 1_000]);
    stream.flush();
    let event = tokio::time::timeout(Duration::from_secs(60), events.recv()).await.unwrap();
    assert_eq!(event, Some(Event::Covered { until_sample: 1_000 }));
}

/// An engine that says what a test wants, and refuses audio when it is told to.
#[derive(Clone, Default)]
struct Puppet(Arc<std::sync::Mutex<PuppetState>>);

#[derive(Default)]
struct PuppetState {
    events: Option<EventSender>,
    full: bool,
    pushed: u64,
    flushed: usize,
}

impl Engine for Puppet {
    fn name(&self) -> &'static str {
        "puppet"
    }
    fn open(&self, _: StreamSpec, events: EventSender) -> Result<Box<dyn Stream>, EngineError> {
        self.0.lock().unwrap().events = Some(events);
        Ok(Box::new(self.clone()))
    }
    fn check(&self) -> Result<String, EngineError> {
        Ok("works".into())
    }
}

impl Stream for Puppet {
    fn push(&mut self, pcm: &[i16]) -> bool {
        let mut state = self.0.lock().unwrap();
        state.pushed += pcm.len() as u64;
        !state.full
    }
    fn finish(&mut self) {}
    fn flush(&mut self) {
        self.0.lock().unwrap().flushed += 1;
    }
}

#[tokio::test]
async fn trouble_of_the_engine_is_told_on_the_streams_clock() {
    let puppet = Puppet::default();
    let gate = Gate::new(Arc::new(puppet.clone()), GateConfig::default());
    let (sender, mut events) = mpsc::channel(64);
    let spec = StreamSpec {
        sample_rate_hz: 16_000,
        language: "en".into(),
        label: "test".into(),
        key_terms: Vec::new(),
        interim: false,
    };
    let mut stream = gate.open(spec, sender).unwrap();
    let (pcm, _) = layout(16_000, &[3_000, 3_000]);
    let mut refused = Vec::new();
    for (index, chunk) in pcm.chunks(320).enumerate() {
        // From the first sentence's end on there is no room.
        let full = puppet.0.lock().unwrap().flushed > 0;
        puppet.0.lock().unwrap().full = full;
        if !stream.push(chunk) {
            refused.push(index as u64 * 320);
        }
    }
    let (first, last) = (refused[0], *refused.last().unwrap());
    let (inner, pushed) = {
        let state = puppet.0.lock().unwrap();
        (state.events.clone().unwrap(), state.pushed)
    };
    inner.send(Event::Busy { waiting: Duration::from_secs(2) }).await.unwrap();
    inner.send(Event::Skipped { from_sample: pushed - 1_600, samples: 1_600 }).await.unwrap();
    inner.send(Event::Failed(EngineError::Broken("no more".into()))).await.unwrap();
    let mut told = Vec::new();
    while let Some(event) = tokio::time::timeout(Duration::from_secs(60), events.recv()).await.unwrap() {
        told.push(event);
    }
    told.retain(|event| !matches!(event, Event::Covered { .. }));
    let [Event::Busy { .. }, Event::Skipped { from_sample, samples }, Event::Failed(_)] = told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(samples, 1_600);
    assert!(from_sample > first && from_sample <= last, "{from_sample} of {first} to {last}");
    // A session may go on for a moment.
    stream.push(&pcm);
    stream.finish();
}

#[tokio::test]
async fn the_gate_stands_before_paid_engines_only_unless_told() {
    struct Paid;
    impl Engine for Paid {
        fn name(&self) -> &'static str {
            "paid"
        }
        fn open(&self, _: StreamSpec, _: EventSender) -> Result<Box<dyn Stream>, EngineError> {
            Err(EngineError::Refused("no credit".into()))
        }
        fn check(&self) -> Result<String, EngineError> {
            Ok("works".into())
        }
        fn is_paid(&self) -> bool {
            true
        }
    }
    let found = |engine: Arc<dyn Engine>, mode| {
        around(engine, &GateConfig { mode, ..GateConfig::default() }).check().unwrap().contains("speech.gate")
    };
    let free = || -> Arc<dyn Engine> {
        Arc::new(crate::scripted::Scripted::open(None, Default::default()).unwrap())
    };
    assert!(found(Arc::new(Paid), GateMode::Auto) && found(free(), GateMode::On));
    assert!(!found(free(), GateMode::Auto) && !found(Arc::new(Paid), GateMode::Off));
    let (sender, _events) = mpsc::channel(1);
    let spec = StreamSpec {
        sample_rate_hz: 16_000,
        language: "en".into(),
        label: "test".into(),
        key_terms: Vec::new(),
        interim: false,
    };
    let refused = around(Arc::new(Paid), &GateConfig::default()).open(spec, sender).err();
    assert_eq!(refused, Some(EngineError::Refused("no credit".into())));
}
