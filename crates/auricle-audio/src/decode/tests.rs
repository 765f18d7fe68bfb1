use proptest::prelude::*;

use super::*;
use crate::Encoder;

fn tone(samples: usize) -> Vec<i16> {
    (0..samples)
        .map(|i| (8_000.0 * (i as f64 * 300.0 * std::f64::consts::TAU / 16_000.0).sin()) as i16)
        .collect()
}

fn energy(pcm: &[i16]) -> f64 {
    (pcm.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / pcm.len().max(1) as f64).sqrt()
}

fn round_trip(codec: Codec, frames: Vec<Vec<u8>>) -> Vec<i16> {
    let mut decoder = Decoder::new(codec, 16_000, 1).unwrap();
    let mut out = Vec::new();
    for frame in &frames {
        decoder.decode(frame, &mut out).unwrap();
    }
    out
}

#[test]
fn every_codec_keeps_length_and_level() {
    let pcm = tone(16_000);
    for codec in Codec::ALL {
        let frames = match codec {
            Codec::Aac => crate::aac_frames_with_ffmpeg(&pcm, 16_000).unwrap(),
            _ => Encoder::new(codec, 16_000).unwrap().encode_all(&pcm).unwrap(),
        };
        let out = round_trip(codec, frames);
        assert!((15_000..=19_000).contains(&out.len()), "{codec:?}: {}", out.len());
        let ratio = energy(&out[4_000..12_000]) / energy(&pcm[4_000..12_000]);
        assert!((0.7..=1.3).contains(&ratio), "{codec:?}: {ratio}");
    }
}

#[test]
fn pcm8_is_unsigned_as_generation_b_has_it() {
    assert_eq!(round_trip(Codec::Pcm8, vec![vec![128, 0, 255]]), [0, -32_768, 32_512]);
}

#[test]
fn a_sample_cut_in_two_by_messages_is_whole_again() {
    let bytes: Vec<u8> = tone(50).iter().flat_map(|s| s.to_le_bytes()).collect();
    let cut: Vec<Vec<u8>> = bytes.chunks(7).map(<[u8]>::to_vec).collect();
    assert_eq!(round_trip(Codec::Pcm16, cut), tone(50));
}

#[test]
fn opus_packets_of_any_legal_length_decode() {
    for ms in [10, 20, 40, 60] {
        let size = 16 * ms;
        let mut encoder = opus::Encoder::new(16_000, opus::Channels::Mono, opus::Application::Voip).unwrap();
        let packet = encoder.encode_vec(&tone(size), 1_275).unwrap();
        assert_eq!(round_trip(Codec::Opus, vec![packet]).len(), size);
    }
}

#[test]
fn rates_that_a_codec_does_not_have_are_refused_with_what_it_has() {
    assert_eq!(Decoder::new(Codec::Opus, 44_100, 1).unwrap_err(), DecoderError::OpusRate(44_100));
    assert_eq!(Decoder::new(Codec::Lc3Fs1030, 11_025, 1).unwrap_err(), DecoderError::Lc3Rate(11_025));
    assert!(Decoder::new(Codec::Pcm16, 0, 1).is_err());
}

#[test]
fn a_damaged_frame_is_one_error_and_the_next_decodes() {
    for codec in [Codec::Opus, Codec::Aac, Codec::Lc3Fs1030] {
        let frames = match codec {
            Codec::Aac => crate::aac_frames_with_ffmpeg(&tone(8_000), 16_000).unwrap(),
            _ => Encoder::new(codec, 16_000).unwrap().encode_all(&tone(8_000)).unwrap(),
        };
        let mut decoder = Decoder::new(codec, 16_000, 1).unwrap();
        let mut out = Vec::new();
        assert!(decoder.decode(&[], &mut out).is_err(), "{codec:?}");
        assert!(decoder.decode(&[0xFF; 3], &mut out).is_err(), "{codec:?}");
        out.clear();
        for frame in frames.iter().take(5) {
            decoder.decode(frame, &mut out).unwrap();
        }
        assert!(!out.is_empty(), "{codec:?}");
    }
}

/// A fifth of a second of a 300 Hz tone: `ffmpeg -f lavfi -i sine=300:r=16000:d=0.2 -c:a aac -b:a 16k tone.aac`.
const TONE_AAC: &[u8] = include_bytes!("../../tests/data/tone.aac");

/// A mono frame with `payload`, 16 kHz, no checksum.
fn adts_frame(payload: &[u8]) -> Vec<u8> {
    let length = payload.len() + 7;
    let mut frame = vec![0xFF, 0xF1, 0x60, 0x40, (length >> 3) as u8, (length << 5) as u8 | 0x1F, 0xFC];
    frame.extend(payload);
    frame
}

#[test]
fn an_aac_frame_of_other_elements_does_not_silence_the_frames_after_it() {
    // A channel pair where mono was announced: the library refuses it, and would refuse each later single channel.
    let pair = adts_frame(&[0x20, 0, 0, 0, 0, 0]);
    let mut decoder = Decoder::new(Codec::Aac, 16_000, 1).unwrap();
    let mut out = Vec::new();
    assert!(decoder.decode(&pair, &mut out).is_err());
    for frame in crate::adts::frames(TONE_AAC) {
        decoder.decode(frame.whole, &mut out).unwrap();
    }
    assert!(energy(&out[1_024..3_072]) > 1_000.0);
}

#[test]
fn a_message_of_very_many_tiny_aac_frames_is_cut_off() {
    // The end marker alone: 8 bytes that become 1,024 samples.
    let bomb = adts_frame(&[0xE0]).repeat(10_000);
    let mut decoder = Decoder::new(Codec::Aac, 16_000, 1).unwrap();
    let mut out = Vec::new();
    assert_eq!(decoder.decode(&bomb, &mut out), Err(DecodeError::TooManyFrames { max: 64 }));
    assert_eq!(out.len(), 64 * 1_024);
}

proptest! {
    #[test]
    fn no_bytes_panic(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 1..6)) {
        for codec in Codec::ALL {
            let mut decoder = Decoder::new(codec, 16_000, 1).unwrap();
            let mut out = Vec::new();
            for message in &messages {
                let _ = decoder.decode(message, &mut out);
            }
        }
    }
}
