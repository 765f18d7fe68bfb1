//! Reading a WAV file that someone hands to `auricle stream`.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: auricle_fuzz::let_panics_unwind(), |input: &[u8]| {
    if let Ok(pcm) = auricle_audio::file::read(Cursor::new(input), 16_000) {
        assert!(pcm.len() <= auricle_fuzz::samples_max(input.len()), "{} samples", pcm.len());
    }
});
