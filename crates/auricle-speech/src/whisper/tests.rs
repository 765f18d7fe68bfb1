//! Scheduling, bounds and fairness, with decoders that say what a test wants of them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::decode::Decode;
use super::words::{Part, Pass, Token};
use super::*;
use crate::engine::Event;

/// A model whose decoders take a turn at a gate before each pass, and hear a word in each half second of a window.
#[derive(Default)]
struct Rig {
    state: Mutex<RigState>,
    changed: std::sync::Condvar,
    loaded: AtomicUsize,
}

#[derive(Default)]
struct RigState {
    /// Passes that may still be made; `None`: any number.
    allowed: Option<usize>,
    /// What happens to the next passes, in order.
    troubles: VecDeque<Trouble>,
    /// Windows heard so far: the two lowest bits of its first sample, which name the stream, length, and whether it was a partial pass.
    heard: Vec<(i16, usize, bool)>,
}

#[derive(Clone, Copy)]
enum Trouble {
    Fails,
    Panics,
    /// Ends only when it is told to stop.
    Slow,
    /// Never ends while the test lasts.
    Hangs,
}

struct RigLoad(Arc<Rig>);
struct RigDecoder(Arc<Rig>);

impl Load for RigLoad {
    fn decoder(&self) -> Result<Box<dyn Decode>, EngineError> {
        self.0.loaded.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(RigDecoder(Arc::clone(&self.0))))
    }
}

impl Decode for RigDecoder {
    fn pass(&mut self, ask: Ask<'_>, stop: &Stop) -> Result<Pass, EngineError> {
        let mut state = self.0.state.lock().unwrap();
        while state.allowed == Some(0) {
            state = self.0.changed.wait(state).unwrap();
        }
        if let Some(allowed) = &mut state.allowed {
            *allowed -= 1;
        }
        let trouble = state.troubles.pop_front();
        state.heard.push((ask.pcm[0] & 3, ask.pcm.len(), ask.partial));
        drop(state);
        match trouble {
            Some(Trouble::Fails) => return Err(EngineError::Broken("no luck".into())),
            Some(Trouble::Panics) => panic!("no luck"),
            Some(Trouble::Slow) => {
                while !stop.is_set() {
                    std::thread::yield_now();
                }
            }
            Some(Trouble::Hangs) => loop {
                std::thread::park();
            },
            None => {}
        }
        let words = (0..ask.pcm.len() / 8_000).map(|half| Token {
            bytes: format!(" w{half}").into_bytes(),
            start: half as f64 / 2.0,
            end: half as f64 / 2.0 + 0.4,
            probability: 0.9,
        });
        let part = Part { tokens: words.collect(), no_speech: 0.0 };
        Ok(Pass { parts: vec![part], language: Some("en".into()) })
    }
}

impl Rig {
    fn allow(&self, passes: Option<usize>) {
        self.state.lock().unwrap().allowed = passes;
        self.changed.notify_all();
    }

    fn trouble(&self, troubles: &[Trouble]) {
        self.state.lock().unwrap().troubles.extend(troubles);
    }

    fn heard(&self) -> Vec<(i16, usize, bool)> {
        self.state.lock().unwrap().heard.clone()
    }
}

/// A header without weights: the rig's decoders do not read them.
fn model_file(folder: &std::path::Path, vocabulary: i32) -> PathBuf {
    let path = folder.join("model.bin");
    std::fs::write(&path, file::layout(vocabulary)).unwrap();
    path
}

fn engine(rig: &Arc<Rig>, decoders: usize, change: impl FnOnce(&mut WhisperConfig)) -> Whisper {
    let folder = tempfile::tempdir().unwrap();
    let model = model_file(folder.path(), 51_864);
    let mut config =
        WhisperConfig { model, decoders: NonZeroUsize::new(decoders), ..WhisperConfig::default() };
    change(&mut config);
    let engine = Whisper::with(&config, Some(Arc::new(RigLoad(Arc::clone(rig)))));
    // The header is read once.
    engine.ready().unwrap();
    engine
}

fn spec(language: &str) -> StreamSpec {
    StreamSpec {
        sample_rate_hz: 16_000,
        language: language.into(),
        label: "test".into(),
        key_terms: Vec::new(),
        interim: false,
    }
}

/// "Please send the report before Friday.", a pause, "Thank you very much."
fn speech() -> Vec<i16> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/please-send.wav");
    auricle_audio::file::read(std::fs::File::open(path).unwrap(), 16_000).unwrap()
}

async fn next(events: &mut mpsc::Receiver<Event>) -> Event {
    tokio::time::timeout(Duration::from_secs(60), events.recv()).await.unwrap().unwrap()
}

async fn rest(events: &mut mpsc::Receiver<Event>) -> Vec<Event> {
    let mut all = Vec::new();
    while !matches!(all.last(), Some(Event::Finished | Event::Failed(_))) {
        all.push(next(events).await);
    }
    all
}

fn push_all(stream: &mut dyn Stream, pcm: &[i16]) -> bool {
    pcm.chunks(320).fold(true, |taken, chunk| stream.push(chunk) & taken)
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waited = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), waited).await.is_ok(), "never: {what}");
}

#[tokio::test]
async fn silence_is_not_transcribed_and_speech_is_in_order_and_covered() {
    let rig = Arc::new(Rig::default());
    let engine = engine(&rig, 2, |_| {});
    let (sender, mut events) = mpsc::channel(64);
    let mut stream = engine.open(spec("en"), sender).unwrap();
    push_all(&mut *stream, &vec![0; 160_000]);
    let pcm = speech();
    push_all(&mut *stream, &pcm);
    stream.finish();
    let events = rest(&mut events).await;
    let words: Vec<_> = events
        .iter()
        .filter_map(|event| if let Event::Words(words) = event { Some(words) } else { None })
        .flatten()
        .collect();
    assert!(words.len() >= 4 && words.is_sorted_by(|a, b| a.start <= b.start), "{words:?}");
    assert!(words[0].start > 9.0);
    let covered: Vec<u64> = events
        .iter()
        .filter_map(
            |event| if let Event::Covered { until_sample } = event { Some(*until_sample) } else { None },
        )
        .collect();
    assert!(covered.is_sorted() && covered.last() == Some(&(160_000 + pcm.len() as u64)), "{covered:?}");
    assert!(rig.heard().iter().all(|(_, samples, _)| *samples < pcm.len()), "{:?}", rig.heard());
    assert!(rig.loaded.load(Ordering::Relaxed) >= 1);
}

#[tokio::test]
async fn each_waiting_stream_has_its_turn() {
    let rig = Arc::new(Rig::default());
    rig.allow(Some(0));
    let engine = engine(&rig, 1, |_| {});
    let pcm = speech();
    let mut streams: Vec<_> = (1..=3_i16)
        .map(|number| {
            let (sender, events) = mpsc::channel(256);
            let mut stream = engine.open(spec("en"), sender).unwrap();
            // Each has several stretches, and its number in each sample.
            let pcm: Vec<i16> = pcm.iter().map(|sample| (sample & !3) | number).collect();
            push_all(&mut *stream, &[pcm.clone(), vec![number; 16_000], pcm].concat());
            stream.finish();
            (stream, events)
        })
        .collect();
    rig.allow(None);
    for (_, events) in &mut streams {
        assert_eq!(rest(events).await.last(), Some(&Event::Finished));
    }
    // The first pass was under way while the others came; from then on nobody is served twice before everybody was.
    let order: Vec<i16> = rig.heard().iter().filter(|pass| !pass.2).map(|pass| pass.0).collect();
    let finals = order.len() / 3;
    assert!(finals >= 2, "{order:?}");
    for turn in order[..order.len() / 3 * 3].chunks(3).take(finals - 1).skip(1) {
        let mut turn = turn.to_vec();
        turn.sort_unstable();
        turn.dedup();
        assert_eq!(turn.len(), 3, "{order:?}");
    }
}

#[tokio::test]
async fn a_stream_that_waits_says_so_skips_what_does_not_fit_and_resumes() {
    let rig = Arc::new(Rig::default());
    rig.allow(Some(0));
    let account = Account::default();
    let engine = engine(&rig, 1, |config| config.backlog_secs_max = 40).counted_in(account.clone());
    let (sender, mut events) = mpsc::channel(1_024);
    let mut blocker = engine.open(spec("en"), mpsc::channel(64).0).unwrap();
    push_all(&mut *blocker, &speech());
    blocker.flush();
    until("the only decoder is taken", || !rig.heard().is_empty() || engine.size.decoders == 1).await;
    let mut stream = engine.open(spec("en"), sender).unwrap();
    let (pcm, mut taken, mut pushed) = (speech(), true, 0_u64);
    // 40 s of speech and then some.
    for _ in 0..30 {
        taken &= push_all(&mut *stream, &pcm);
        pushed += pcm.len() as u64;
    }
    assert!(!taken && account.bytes() <= 2 * 16_000 * 50, "{}", account.bytes());
    rig.allow(None);
    let mut told = Vec::new();
    while !told.iter().any(|event| matches!(event, Event::Resumed)) {
        told.push(next(&mut events).await);
    }
    assert!(told.iter().any(|event| matches!(event, Event::Busy { .. })));
    // There is room again.
    while !told.iter().any(|event| matches!(event, Event::Skipped { .. })) {
        push_all(&mut *stream, &vec![0; 1_600]);
        pushed += 1_600;
        tokio::task::yield_now().await;
        while let Ok(event) = events.try_recv() {
            told.push(event);
        }
    }
    stream.finish();
    told.extend(rest(&mut events).await);
    assert_eq!(told.last(), Some(&Event::Finished));
    let skipped = told.iter().find_map(|event| {
        if let Event::Skipped { from_sample, samples } = event { Some(from_sample + samples) } else { None }
    });
    assert!(skipped.unwrap() <= pushed);
}

#[tokio::test]
async fn a_decoder_that_is_too_slow_is_told_stopped_and_serves_the_next() {
    let rig = Arc::new(Rig::default());
    rig.trouble(&[Trouble::Slow]);
    let engine = engine(&rig, 1, |config| config.pass_max = Duration::from_millis(300));
    let (sender, mut events) = mpsc::channel(64);
    let mut stream = engine.open(spec("en"), sender).unwrap();
    push_all(&mut *stream, &speech());
    stream.finish();
    let told = rest(&mut events).await;
    let Some(Event::Failed(EngineError::Broken(text))) = told.last() else { panic!("{told:?}") };
    assert!(text.contains("300ms") && text.contains("smaller model"), "{text}");
    let (sender, mut events) = mpsc::channel(64);
    let mut stream = engine.open(spec("en"), sender).unwrap();
    push_all(&mut *stream, &speech());
    stream.finish();
    assert_eq!(rest(&mut events).await.last(), Some(&Event::Finished));
}

#[tokio::test]
async fn a_decoder_that_hangs_is_left_behind_and_another_takes_its_place() {
    let rig = Arc::new(Rig::default());
    rig.trouble(&[Trouble::Hangs]);
    let engine = engine(&rig, 1, |config| config.pass_max = Duration::from_millis(100));
    let (sender, mut events) = mpsc::channel(64);
    let mut stream = engine.open(spec("en"), sender).unwrap();
    push_all(&mut *stream, &speech());
    stream.finish();
    assert!(matches!(rest(&mut events).await.last(), Some(Event::Failed(_))));
    let (sender, mut events) = mpsc::channel(64);
    let mut stream = engine.open(spec("en"), sender).unwrap();
    push_all(&mut *stream, &speech());
    stream.finish();
    // Told within a pass; heard once the watch has given the first decoder up.
    assert_eq!(rest(&mut events).await.last(), Some(&Event::Finished));
    assert_eq!(rig.loaded.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_pass_that_breaks_is_tried_once_more_with_a_new_decoder() {
    for (troubles, ends_well) in [
        (&[Trouble::Fails][..], true),
        (&[Trouble::Panics], true),
        (&[Trouble::Fails, Trouble::Panics], false),
    ] {
        let rig = Arc::new(Rig::default());
        let engine = engine(&rig, 1, |config| config.step = Duration::from_secs(60));
        let (sender, mut events) = mpsc::channel(64);
        let mut stream = engine.open(spec("en"), sender).unwrap();
        rig.trouble(troubles);
        push_all(&mut *stream, &speech());
        stream.finish();
        let told = rest(&mut events).await;
        assert_eq!(told.last() == Some(&Event::Finished), ends_well, "{told:?}");
        assert!(rig.loaded.load(Ordering::Relaxed) >= 2);
    }
}

#[tokio::test]
async fn a_stream_that_is_dropped_frees_its_decoder_and_its_memory() {
    let rig = Arc::new(Rig::default());
    rig.trouble(&[Trouble::Slow]);
    let account = Account::default();
    let engine = engine(&rig, 1, |_| {}).counted_in(account.clone());
    let mut stream = engine.open(spec("en"), mpsc::channel(64).0).unwrap();
    push_all(&mut *stream, &speech());
    stream.flush();
    until("a pass", || !rig.heard().is_empty()).await;
    assert!(account.bytes() > 0);
    drop(stream);
    let (sender, mut events) = mpsc::channel(64);
    let mut stream = engine.open(spec("en"), sender).unwrap();
    push_all(&mut *stream, &speech());
    stream.finish();
    assert_eq!(rest(&mut events).await.last(), Some(&Event::Finished));
    drop((stream, engine));
    until("all is given back", || account.bytes() == 0).await;
}

#[test]
fn a_language_that_the_model_lacks_is_refused_and_a_missing_model_says_how_to_get_one() {
    let rig = Arc::new(Rig::default());
    let refused = engine(&rig, 1, |_| {}).open(spec("de"), mpsc::channel(1).0).err().unwrap().to_string();
    assert!(refused.contains("English only") && refused.contains("`de`"), "{refused}");
    let config = WhisperConfig { model: "/nowhere/ggml-small.bin".into(), ..WhisperConfig::default() };
    let missing =
        Whisper::with(&config, Some(Arc::new(RigLoad(rig)))).open(spec("en"), mpsc::channel(1).0).err();
    let missing = missing.unwrap().to_string();
    assert!(missing.contains("/nowhere/ggml-small.bin") && missing.contains("pull small"), "{missing}");
    let without =
        Whisper::with(&config, None).open(spec("en"), mpsc::channel(1).0).err().unwrap().to_string();
    assert!(without.contains("--features whisper"), "{without}");
}

#[tokio::test]
async fn words_that_two_passes_have_not_agreed_on_are_told_if_that_was_asked_for() {
    let rig = Arc::new(Rig::default());
    rig.allow(Some(1));
    let engine = engine(&rig, 1, |config| config.step = Duration::from_millis(500));
    let (sender, mut events) = mpsc::channel(64);
    let mut stream = engine.open(StreamSpec { interim: true, ..spec("en") }, sender).unwrap();
    let pcm = speech();
    let (begun, rest_of_it) = pcm.split_at(16_000 * 3 / 2);
    push_all(&mut *stream, begun);
    let changing = loop {
        match next(&mut events).await {
            Event::Interim(words) => break words,
            Event::Covered { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    rig.allow(None);
    push_all(&mut *stream, rest_of_it);
    stream.finish();
    let events = rest(&mut events).await;
    let Some(Event::Words(words)) = events.iter().find(|event| matches!(event, Event::Words(_))) else {
        panic!("{events:?}");
    };
    assert_eq!((changing[0].text.as_str(), changing[0].start), (words[0].text.as_str(), words[0].start));
    // Of each stretch the last word is final, and nothing is left that could change.
    let last = events.iter().rfind(|event| matches!(event, Event::Words(_) | Event::Interim(_)));
    assert!(matches!(last, Some(Event::Words(_))), "{last:?}");
}
