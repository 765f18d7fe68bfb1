//! Whisper itself, with the model that whisper.cpp tests with: it has no weights, so its words mean nothing, but it loads and
//! runs as a real one does. Looked for at `AURICLE_TEST_WHISPER_MODEL`, else beside the project.
#![cfg(feature = "whisper")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what a test stands on must hold, or is said")]

use std::path::PathBuf;
use std::time::Duration;

use auricle_speech::whisper::Whisper;
use auricle_speech::{Engine, EngineError, Event, StreamSpec, WhisperConfig};
use tokio::sync::mpsc;

fn model() -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/models/for-tests-ggml-tiny.en.bin");
    let path = std::env::var_os("AURICLE_TEST_WHISPER_MODEL").map_or_else(|| beside.into(), PathBuf::from);
    if !path.exists() {
        println!("SKIPPED: no model at {}; set AURICLE_TEST_WHISPER_MODEL", path.display());
        return None;
    }
    Some(path)
}

fn engine(model: PathBuf) -> Whisper {
    Whisper::new(&WhisperConfig { model, ..WhisperConfig::default() })
}

fn speech(rate: u32) -> Vec<i16> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/please-send.wav");
    auricle_audio::file::read(std::fs::File::open(path).unwrap(), rate).unwrap()
}

async fn hear(engine: &Whisper, rate: u32) -> Vec<Event> {
    let (sender, mut events) = mpsc::channel(64);
    let spec = StreamSpec {
        sample_rate_hz: rate,
        language: "multi".into(),
        label: "test".into(),
        key_terms: Vec::new(),
        interim: false,
    };
    let mut stream = engine.open(spec, sender).unwrap();
    for chunk in speech(rate).chunks(rate as usize / 50) {
        stream.push(chunk);
    }
    stream.finish();
    let mut all = Vec::new();
    while !matches!(all.last(), Some(Event::Finished | Event::Failed(_))) {
        all.push(tokio::time::timeout(Duration::from_secs(600), events.recv()).await.unwrap().unwrap());
    }
    all
}

#[test]
fn the_model_loads_and_decodes() {
    let Some(model) = model() else { return };
    let found = engine(model).check().unwrap();
    assert!(found.contains("loads, but has no weights"), "{found}");
}

#[tokio::test]
async fn streams_of_any_rate_are_decided_to_their_end() {
    let Some(model) = model() else { return };
    let engine = engine(model);
    for rate in [8_000, 48_000] {
        let events = hear(&engine, rate).await;
        assert_eq!(events.last(), Some(&Event::Finished), "{events:?}");
        let covered = events.iter().rev().find_map(|event| match event {
            Event::Covered { until_sample } => Some(*until_sample),
            _ => None,
        });
        let secs = covered.unwrap() as f64 / f64::from(rate) - speech(rate).len() as f64 / f64::from(rate);
        assert!(secs.abs() < 0.1, "{secs} s at {rate} Hz");
    }
}

#[tokio::test]
async fn more_streams_than_decoders_are_all_served() {
    let Some(model) = model() else { return };
    let engine = engine(model);
    let hear = || hear(&engine, 16_000);
    let (one, two, three) = tokio::join!(hear(), hear(), hear());
    for events in [one, two, three] {
        assert_eq!(events.last(), Some(&Event::Finished));
    }
}

#[test]
fn a_model_that_was_cut_off_is_refused_with_its_path_and_what_to_do() {
    let Some(model) = model() else { return };
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut.bin");
    let bytes = std::fs::read(model).unwrap();
    for length in [bytes.len() / 2, bytes.len() - 100, 60] {
        std::fs::write(&cut, &bytes[..length]).unwrap();
        let Err(EngineError::Unavailable(text)) = engine(cut.clone()).check() else { panic!("it loads") };
        assert!(text.contains("cut.bin") && text.contains("auricle models pull"), "{text}");
    }
}
