use super::*;
use crate::Encoder;

const RATE_HZ: u32 = 16_000;

fn format(codec: Codec) -> PacketFormat {
    PacketFormat { codec, sample_rate_hz: RATE_HZ, channels: 1 }
}

/// A voice-like tone that swells and fades.
fn sound(secs: f64) -> Vec<i16> {
    let samples = (secs * f64::from(RATE_HZ)) as usize;
    let at = |index: usize| {
        let time = index as f64 / f64::from(RATE_HZ);
        let tone =
            (time * 190.0 * std::f64::consts::TAU).sin() + 0.4 * (time * 640.0 * std::f64::consts::TAU).sin();
        (tone * 6_000.0 * (0.3 + (time * 2.0).sin().abs())) as i16
    };
    (0..samples).map(at).collect()
}

fn encoded(codec: Codec, secs: f64) -> Vec<Vec<u8>> {
    Encoder::new(codec, RATE_HZ).unwrap().encode_all(&sound(secs)).unwrap()
}

/// Everything decoded in order, as an engine that hears all of it does; and the same kept.
fn heard_and_kept(codec: Codec, secs: f64) -> (Vec<i16>, Packets) {
    let mut receiver = Receiver::new(format(codec)).unwrap();
    let (mut all, mut kept, mut pcm) = (Vec::new(), Packets::default(), Vec::new());
    for message in encoded(codec, secs) {
        receiver.decode(&message, &mut pcm).unwrap();
        all.extend_from_slice(&pcm);
        let samples = pcm.len();
        kept.push(&mut receiver.frame(&message, samples, true, &mut pcm));
    }
    (all, kept)
}

fn played(kept: &Packets, from: u64, piece: usize) -> Vec<i16> {
    let mut player = Player::new(from);
    let mut all = Vec::new();
    while player.at() < kept.end() {
        let mut out = Vec::new();
        assert!(kept.play(&mut player, piece, &mut out));
        assert!(!out.is_empty(), "at {} of {}", player.at(), kept.end());
        all.extend(out);
    }
    all
}

/// Decibels by which `one` differs less than it sounds.
fn likeness(one: &[i16], other: &[i16]) -> f64 {
    assert_eq!(one.len(), other.len());
    let power = |samples: &mut dyn Iterator<Item = f64>| samples.map(|s| s * s).sum::<f64>().max(1.0);
    let signal = power(&mut one.iter().map(|s| f64::from(*s)));
    let error = power(&mut one.iter().zip(other).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    10.0 * (signal / error).log10()
}

#[test]
fn packets_are_played_as_they_were_heard_from_their_first_on() {
    for codec in [Codec::Opus, Codec::OpusFs320, Codec::Lc3Fs1030] {
        let (heard, kept) = heard_and_kept(codec, 2.0);
        assert_eq!(kept.end(), heard.len() as u64);
        assert_eq!(played(&kept, 0, 1_000), heard, "{codec:?}");
        assert!(kept.bytes() < heard.len() / 3, "{codec:?}: {} bytes for {}", kept.bytes(), heard.len());
    }
}

#[test]
fn from_the_middle_they_sound_the_same_though_the_decoder_is_fresh() {
    for codec in [Codec::Opus, Codec::OpusFs320, Codec::Lc3Fs1030] {
        let (heard, mut kept) = heard_and_kept(codec, 3.0);
        // In the middle of a packet, too.
        for from in [16_000, 16_123, 40_001] {
            kept.forget(from);
            assert!(kept.from() <= from, "{codec:?}: {} is kept, {from} is wanted", kept.from());
            let again = played(&kept, from, 320);
            let like = likeness(&heard[from as usize..], &again);
            assert!(like > 20.0, "{codec:?} from {from}: {like} dB");
        }
        assert!(kept.from() > 40_001 - 16_000 / 2, "{codec:?}: no more than what a decoder needs is kept");
    }
}

#[test]
fn the_tail_sounds_the_same_and_goes_on_as_if_it_were_all() {
    for codec in [Codec::Opus, Codec::OpusFs320, Codec::Lc3Fs1030, Codec::Pcm16] {
        let mut receiver = Receiver::new(format(codec)).unwrap();
        let (mut heard, mut kept, mut tail, mut pcm) = (Vec::new(), Packets::default(), None, Vec::new());
        for message in encoded(codec, 3.0) {
            receiver.decode(&message, &mut pcm).unwrap();
            heard.extend_from_slice(&pcm);
            let samples = pcm.len();
            let mut frame = receiver.frame(&message, samples, true, &mut pcm);
            if heard.len() > 32_000 {
                tail.get_or_insert_with(|| kept.tail(8_100)).push(&mut frame);
            }
            kept.push(&mut frame);
        }
        let mut tail = tail.unwrap();
        assert_eq!(tail.from(), 0);
        let last = &heard[heard.len() - tail.end() as usize..];
        assert!(
            (8_100..8_420).contains(&(tail.end() - (heard.len() as u64 - 32_000))),
            "{codec:?}: {}",
            tail.end()
        );
        let like = likeness(last, &tail.pcm());
        assert!(like > 20.0, "{codec:?}: {like} dB");
        // What it begins with stays as long as the first sample does.
        tail.forget(0);
        assert!(likeness(last, &tail.pcm()) > 20.0, "{codec:?}");
        assert!(tail.drop_oldest(1) > 0);
        tail.forget(tail.end());
        assert!(tail.end() - tail.from() <= 16_000 * 4 / 10 + 320, "{codec:?}");
    }
}

#[test]
fn what_nobody_heard_is_not_decoded_and_what_follows_sounds_right() {
    for codec in [Codec::Opus, Codec::OpusFs320, Codec::Lc3Fs1030] {
        let (heard, _) = heard_and_kept(codec, 3.0);
        let mut receiver = Receiver::new(format(codec)).unwrap();
        let (mut at, mut pcm, mut again) = (0, Vec::new(), Vec::new());
        for message in encoded(codec, 3.0) {
            let samples = receiver.measure(&message).unwrap();
            let mut frame = receiver.frame(&message, samples, false, &mut pcm);
            assert_eq!(frame.samples(), samples);
            if !(8_000..32_000).contains(&at) {
                again.extend_from_slice(frame.pcm());
            }
            at += samples;
        }
        assert_eq!(at, heard.len());
        let like = likeness(&heard[32_000..], &again[8_000..]);
        assert!(like > 20.0, "{codec:?}: {like} dB");
    }
}

#[test]
fn a_packet_that_lies_about_its_length_is_silence_as_long_as_it_said() {
    let mut receiver = Receiver::new(format(Codec::OpusFs320)).unwrap();
    // Two frames of different sizes, the first longer than the packet.
    let lies = [0x4a, 200, 1, 2, 3];
    let samples = receiver.measure(&lies).unwrap();
    let (mut kept, mut pcm) = (Packets::default(), Vec::new());
    let mut frame = receiver.frame(&lies, samples, false, &mut pcm);
    kept.push(&mut frame);
    assert_eq!(frame.pcm(), vec![0; samples]);
    drop(frame);
    assert_eq!(played(&kept, 0, 100), vec![0; samples]);
    assert_eq!(receiver.measure(&[]), None);
}

#[test]
fn other_codecs_are_kept_one_byte_a_sample_and_cut_where_one_wants() {
    for codec in [Codec::Pcm8, Codec::Pcm16] {
        let mut receiver = Receiver::new(format(codec)).unwrap();
        let message: Vec<u8> = (0..200_u32).map(|byte| (byte * 7) as u8).collect();
        assert_eq!(receiver.measure(&message), None);
        let (mut kept, mut pcm) = (Packets::default(), Vec::new());
        for _ in 0..10 {
            receiver.decode(&message, &mut pcm).unwrap();
            let samples = pcm.len();
            kept.push(&mut receiver.frame(&message, samples, true, &mut pcm));
        }
        let all = played(&kept, 0, 33);
        assert_eq!(all.len() as u64, kept.end());
        assert!(likeness(&pcm, &all[..pcm.len()]) > 25.0);
        kept.forget(123);
        assert_eq!(kept.from(), 123);
        assert_eq!(played(&kept, 150, 40), all[150..]);
        assert_eq!(kept.drop_oldest(7), 7);
        assert_eq!(kept.from(), 130);
        assert!(!kept.play(&mut Player::new(129), 10, &mut Vec::new()), "it is gone");
        kept.skip(1_000);
        assert_eq!((kept.from(), kept.bytes()), (kept.end(), 0));
        assert_eq!(kept.drop_oldest(1), 0);
    }
}
