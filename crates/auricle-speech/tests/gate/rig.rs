//! Sparse speech and room noise, made when they are needed, and what an engine hears of them.

use std::time::Duration;

use auricle_core::Word;
use auricle_speech::{Engine, Event, StreamSpec};
use tokio::sync::mpsc;

/// Numbers that are the same at every run.
pub(crate) struct Seeded(u64);

impl Seeded {
    /// From -1 to 1.
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

/// A room in which nobody speaks, at 16 kHz: white and pink noise, the mains' hum, and a click now and then.
pub(crate) fn room(samples: usize, seed: u64) -> Vec<i16> {
    let mut chance = Seeded(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let (mut pink, mut click) = ([0.0_f64; 3], 0.0_f64);
    (0..samples)
        .map(|index| {
            let white = chance.next();
            for (part, (keep, add)) in pink.iter_mut().zip([(0.997, 0.03), (0.963, 0.09), (0.57, 0.3)]) {
                *part = *part * keep + white * add;
            }
            let time = index as f64 / 16_000.0;
            let hum =
                (1..=3).map(|n| (time * 50.0 * f64::from(n) * std::f64::consts::TAU).sin() / f64::from(n));
            // Each twelve seconds or so something ticks, for some milliseconds.
            click = if chance.next() > 1.0 - 1e-5 { 9_000.0 } else { click * 0.99 };
            let sound = 40.0 * white + 120.0 * pink.iter().sum::<f64>() + 60.0 * hum.sum::<f64>();
            (sound + click * chance.next()) as i16
        })
        .collect()
}

/// Speech with long pauses.
pub(crate) struct Sparse {
    /// At 16 kHz.
    pub(crate) pcm: Vec<i16>,
    /// What is said, in lower case, without punctuation.
    pub(crate) spoken: Vec<String>,
}

/// The turns of `fixtures/two-voices`, in a room, with so much quiet between them that `words_per_minute` are spoken.
pub(crate) fn sparse(words_per_minute: f64) -> Sparse {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/two-voices");
    let sound = std::fs::File::open(format!("{folder}/conversation.wav")).unwrap();
    let sound = auricle_audio::file::read(sound, 16_000).unwrap();
    let turns = std::fs::read_to_string(format!("{folder}/truth.json")).unwrap();
    let turns: Vec<serde_json::Value> = serde_json::from_str(&turns).unwrap();
    let spoken: Vec<String> = turns.iter().flat_map(|turn| plain(turn["text"].as_str().unwrap())).collect();
    let samples = (spoken.len() as f64 / words_per_minute * 60.0 * 16_000.0) as usize;
    let at = |turn: &serde_json::Value, key: &str| (turn[key].as_f64().unwrap() * 16_000.0) as usize;
    let voiced: usize = turns.iter().map(|turn| at(turn, "end") - at(turn, "start")).sum();
    let mut pcm = room(samples, 3);
    let mut chance = Seeded(11);
    let quiet = (samples - voiced) / (turns.len() + 1);
    let mut from = quiet;
    for turn in &turns {
        let said = &sound[at(turn, "start")..at(turn, "end")];
        for (sample, said) in pcm[from..].iter_mut().zip(said) {
            *sample = sample.saturating_add(*said);
        }
        from += said.len() + quiet + (chance.next() * 0.5 * quiet as f64) as usize - quiet / 40;
    }
    Sparse { pcm, spoken }
}

/// What `engine` says about `pcm`, pushed as a session pushes it, and no faster than it is taken.
pub(crate) async fn hear(engine: &dyn Engine, pcm: &[i16], rate_hz: u32) -> Vec<Event> {
    let (sender, mut events) = mpsc::channel(64);
    let spec = StreamSpec {
        sample_rate_hz: rate_hz,
        language: "en".into(),
        label: "test".into(),
        key_terms: Vec::new(),
        interim: false,
    };
    let mut stream = engine.open(spec, sender).unwrap();
    let (mut all, mut covered) = (Vec::new(), 0);
    let mut pushed = 0;
    for chunk in pcm.chunks(rate_hz as usize / 50) {
        assert!(stream.push(chunk));
        pushed += chunk.len() as u64;
        tokio::task::yield_now().await;
        // Nothing is skipped for want of room: at most 30 s wait.
        while let Some(event) = if pushed > covered + 30 * u64::from(rate_hz) {
            Some(tokio::time::timeout(Duration::from_secs(300), events.recv()).await.unwrap().unwrap())
        } else {
            events.try_recv().ok()
        } {
            if let Event::Covered { until_sample } = event {
                assert!(until_sample > covered, "coverage went back from {covered} to {until_sample}");
                covered = until_sample;
            }
            all.push(event);
        }
    }
    stream.finish();
    while all.last() != Some(&Event::Finished) {
        all.push(tokio::time::timeout(Duration::from_secs(300), events.recv()).await.unwrap().unwrap());
    }
    all
}

/// All words, in order.
pub(crate) fn words(events: &[Event]) -> Vec<Word> {
    let words =
        events.iter().filter_map(|event| if let Event::Words(words) = event { Some(words) } else { None });
    words.flatten().cloned().collect()
}

fn plain(text: &str) -> Vec<String> {
    text.split_whitespace()
        .map(|word| word.to_lowercase().trim_matches(|letter: char| !letter.is_alphanumeric()).to_owned())
        .filter(|word| !word.is_empty())
        .collect()
}

fn texts(words: &[Word]) -> Vec<String> {
    words.iter().flat_map(|word| plain(&word.text)).collect()
}

/// Places of the longest common subsequence of `spoken` and `heard`.
pub(crate) fn matched(spoken: &[String], heard: &[Word]) -> Vec<(usize, usize)> {
    common(spoken, &texts(heard))
}

/// The words that both have.
pub(crate) fn matched_words<'a>(one: &'a [Word], other: &'a [Word]) -> Vec<(&'a Word, &'a Word)> {
    common(&texts(one), &texts(other)).into_iter().map(|(a, b)| (&one[a], &other[b])).collect()
}

fn common(a: &[String], b: &[String]) -> Vec<(usize, usize)> {
    let mut length = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            length[i][j] =
                if a[i] == b[j] { length[i + 1][j + 1] + 1 } else { length[i + 1][j].max(length[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut pairs) = (0, 0, Vec::new());
    while i < a.len() && j < b.len() {
        if a[i] == b[j] {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if length[i + 1][j] >= length[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}
