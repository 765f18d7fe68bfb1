//! A connection that sends `Pcm8` frames, good and bad.
#![no_main]

use auricle_audio::Codec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: auricle_fuzz::let_panics_unwind(), |input: &[u8]| {
    auricle_fuzz::play(Codec::Pcm8, input);
});
