//! What the fuzz targets share: how an input becomes messages, and what must hold of a decoder whatever it is fed.
//!
//! Shape of an input to a codec's target: one byte chooses the sample rate, then messages, each a length (`u16`,
//! little-endian) and its bytes. So one input is a connection, and state that a damaged frame leaves behind is met by the
//! next one. [`connection`] builds inputs of that shape for the seeds.

use std::sync::OnceLock;

use auricle_audio::{Codec, Decoder, Encoder, adts};

/// Rates a client may ask for: those of the codecs, and some that none of them has.
pub const RATES_HZ: [u32; 8] = [16_000, 8_000, 48_000, 24_000, 12_000, 44_100, 11_025, 32_000];

/// Samples that one byte of a message can become at most, at 48 kHz: Opus makes 120 ms of one byte (a packet of
/// empty frames); nothing else comes near but AAC, whose shortest frame is 8 bytes for 1,024 samples at 7,350 Hz.
const SAMPLES_OF_A_BYTE_MAX: usize = 5_760;
/// A resampler may give out what it held back.
const SAMPLES_HELD_MAX: usize = 9_600;

/// Lets a panic unwind, as it does in the server: the decoders contain those of their libraries. One that gets out
/// is still a crash, since libFuzzer's entry point aborts on it.
pub fn let_panics_unwind() {
    std::panic::set_hook(Box::new(|panic| {
        if std::env::var_os("FUZZ_PANICS").is_some() {
            eprintln!("{panic}");
        }
    }));
}

/// The messages of an input, each as far as it is there.
pub fn messages(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
        let (message, after) = after.split_at(length);
        rest = after;
        Some(message)
    })
}

/// An input: `rate_index` into [`RATES_HZ`], then `messages`.
pub fn connection(rate_index: u8, messages: &[Vec<u8>]) -> Vec<u8> {
    let mut input = vec![rate_index];
    for message in messages {
        input.extend((message.len().min(usize::from(u16::MAX)) as u16).to_le_bytes());
        input.extend(message);
    }
    input
}

/// How much audio `bytes` can become without being called a decompression bomb.
pub fn samples_max(bytes: usize) -> usize {
    bytes * SAMPLES_OF_A_BYTE_MAX + SAMPLES_HELD_MAX
}

/// Plays an input to a decoder.
///
/// Holds, or it is a crash: no panic gets out; a message's output is bounded by its length; PCM is never refused; and
/// after all that, the decoder takes good frames as if nothing had been.
pub fn play(codec: Codec, input: &[u8]) {
    let Some((rate, rest)) = input.split_first() else { return };
    let rate_hz = RATES_HZ[usize::from(*rate) % RATES_HZ.len()];
    let Ok(mut decoder) = Decoder::new(codec, rate_hz, 1) else { return };
    let mut out = Vec::new();
    for message in messages(rest) {
        out.clear();
        let decoded = decoder.decode(message, &mut out);
        assert!(out.len() <= samples_max(message.len()), "{} samples of {} bytes", out.len(), message.len());
        if let Codec::Pcm8 | Codec::Pcm16 = codec {
            assert!(decoded.is_ok(), "every byte is PCM");
        }
    }
    for message in good_messages(codec) {
        let decoded = decoder.decode(message, &mut out);
        assert!(decoded.is_ok(), "a good frame after bad ones is refused");
    }
}

/// What a device sends, 16 kHz.
pub fn good_messages(codec: Codec) -> &'static [Vec<u8>] {
    static GOOD: [OnceLock<Vec<Vec<u8>>>; 6] = [const { OnceLock::new() }; 6];
    GOOD[codec as usize].get_or_init(|| match codec {
        Codec::Aac => adts::frames(TONE_AAC).take(3).map(|frame| frame.whole.to_vec()).collect(),
        _ => Encoder::new(codec, 16_000)
            .and_then(|mut encoder| encoder.encode_all(&tone(960)))
            .expect("16 kHz is a rate of every codec"),
    })
}

/// A fifth of a second of a 300 Hz tone: `ffmpeg -f lavfi -i sine=300:r=16000:d=0.2 -c:a aac -b:a 16k tone.aac`.
pub const TONE_AAC: &[u8] = include_bytes!("../../crates/auricle-audio/tests/data/tone.aac");

/// A tone of 300 Hz at 16 kHz.
pub fn tone(samples: usize) -> Vec<i16> {
    (0..samples)
        .map(|i| (8_000.0 * (i as f64 * 300.0 / 16_000.0 * std::f64::consts::TAU).sin()) as i16)
        .collect()
}
