//! Speech services: recorded sessions through the adapters alone, and over real sockets through the engines.

#![allow(clippy::unwrap_used, reason = "what a test stands on must hold")]

use std::path::{Path, PathBuf};

use auricle_speech::StreamSpec;
use auricle_testkit::SpeechScript;

#[path = "speech/replay.rs"]
mod replay;
#[path = "speech/wire.rs"]
mod wire;

fn fixture(engine: &str, name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/speech");
    fixtures.join(engine).join(format!("{name}.jsonl"))
}

fn session(engine: &str, name: &str) -> SpeechScript {
    SpeechScript::read(&fixture(engine, name)).unwrap()
}

fn spec() -> StreamSpec {
    StreamSpec {
        sample_rate_hz: 16_000,
        language: "en".to_owned(),
        label: "test".to_owned(),
        key_terms: vec!["Auricle".to_owned()],
        interim: false,
    }
}
