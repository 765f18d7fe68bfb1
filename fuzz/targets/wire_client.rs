//! Text messages of clients.
#![no_main]

use auricle_wire::client::{self, ClientMessage};
use libfuzzer_sys::fuzz_target;

const SEGMENTS_MAX: usize = 8;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(ClientMessage::SuggestedTranscript(transcript)) = client::parse(text, SEGMENTS_MAX) {
        assert!(transcript.segments.len() <= SEGMENTS_MAX, "the limit holds");
    }
});
