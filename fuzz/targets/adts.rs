//! The ADTS splitter: its frames lie one behind the other from the start, and hold together.
#![no_main]

use auricle_audio::adts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut at = 0;
    for frame in adts::frames(input) {
        assert_eq!(frame.whole, &input[at..at + frame.whole.len()], "frames follow one another");
        assert!(frame.whole.ends_with(frame.payload) && frame.payload.len() + 7 <= frame.whole.len());
        assert!((7_350..=96_000).contains(&frame.rate_hz) && (1..=2).contains(&frame.channels));
        at += frame.whole.len();
    }
});
