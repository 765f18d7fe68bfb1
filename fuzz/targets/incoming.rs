//! A stream of `/v1/listen` that names no encoding: WAV, Ogg Opus, WebM. The first byte says how it is cut into pieces.
#![no_main]

use auricle_audio::incoming::{Encoding, Incoming};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: auricle_fuzz::let_panics_unwind(), |input: &[u8]| {
    let Some((piece, stream)) = input.split_first() else { return };
    let hear = |piece: usize| {
        let mut incoming = Incoming::new(Encoding::Container, 16_000, 1);
        let mut out = Vec::new();
        let failed = stream.chunks(piece.max(1)).find_map(|piece| incoming.push(piece, &mut out).err());
        // Of a stream that has ended nobody asks.
        let format = if failed.is_none() { incoming.format() } else { None };
        (out, failed, format)
    };
    let (out, failed, format) = hear(usize::from(*piece));
    assert!(out.len() <= auricle_fuzz::samples_max(stream.len()), "{} samples", out.len());
    assert_eq!((out, failed, format), hear(stream.len()), "where it is cut makes no difference");
});
