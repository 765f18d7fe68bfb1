//! Prints what a frame of each codec costs to decode and what a decoder keeps resident: `cargo run --release -p auricle-audio
//! --example codec_cost`. Figures only; nothing fails on them.
#![expect(clippy::print_stdout, reason = "the figures are its purpose")]

use std::hint::black_box;
use std::time::Duration;

use auricle_audio::{Codec, Decoder, Encoder, adts};

/// Decoders held at once, so that what one keeps stands out of the noise.
const DECODERS: usize = 500;
const ROUNDS: usize = 40;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pcm: Vec<i16> = (0..16_000)
        .map(|i| {
            let at = f64::from(i) / 16_000.0 * std::f64::consts::TAU;
            (4_000.0 * (at * 180.0).sin() + 2_500.0 * (at * 910.0).sin() + 900.0 * (at * 2_600.0).sin())
                as i16
        })
        .collect();
    println!(
        "{:<11} {:>8} {:>11} {:>13} {:>13}",
        "codec", "frame ms", "µs a frame", "× real time", "KiB a decoder"
    );
    for codec in Codec::ALL {
        let frames = match codec {
            Codec::Aac => {
                adts::frames(include_bytes!("../tests/data/tone.aac")).map(|f| f.whole.to_vec()).collect()
            }
            _ => Encoder::new(codec, 16_000)?.encode_all(&pcm)?,
        };
        let (micros, frame_ms) = cost(codec, &frames)?;
        let kib = resident(codec, &frames)?;
        let real_time = frame_ms * 1_000.0 / micros;
        println!("{:<11} {frame_ms:>8.0} {micros:>11.2} {real_time:>13.0} {kib:>13.1}", codec.as_str());
    }
    Ok(())
}

/// Microseconds to decode a frame, and its length in milliseconds.
fn cost(codec: Codec, frames: &[Vec<u8>]) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let mut decoder = Decoder::new(codec, 16_000, 1)?;
    let (mut out, mut samples) = (Vec::new(), 0);
    let spent = timed(|| {
        for frame in (0..ROUNDS).flat_map(|_| frames) {
            out.clear();
            if decoder.decode(black_box(frame), &mut out).is_ok() {
                samples += black_box(&out).len();
            }
        }
    });
    let count = (ROUNDS * frames.len()) as f64;
    Ok((spent.as_secs_f64() * 1e6 / count, samples as f64 / 16.0 / count))
}

#[expect(clippy::disallowed_methods, reason = "a stopwatch is what this program is")]
fn timed(run: impl FnOnce()) -> Duration {
    let started = std::time::Instant::now();
    run();
    started.elapsed()
}

/// Resident KiB that one decoder adds once it has decoded a second of audio, the allocator's share included.
fn resident(codec: Codec, frames: &[Vec<u8>]) -> Result<f64, Box<dyn std::error::Error>> {
    let mut decoders = Vec::with_capacity(DECODERS);
    let mut out = Vec::with_capacity(4_096);
    let before = resident_pages()?;
    for _ in 0..DECODERS {
        let mut decoder = Decoder::new(codec, 16_000, 1)?;
        for frame in frames {
            out.clear();
            decoder.decode(frame, &mut out)?;
        }
        decoders.push(decoder);
    }
    let pages = resident_pages()?.saturating_sub(before);
    // Kept, or the next codec's decoders would move into their memory and seem to take none.
    std::mem::forget(decoders);
    Ok((pages * 4) as f64 / DECODERS as f64)
}

/// Linux only: elsewhere there is no such file, and the program says so.
fn resident_pages() -> Result<u64, Box<dyn std::error::Error>> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    Ok(statm.split_whitespace().nth(1).ok_or("no resident figure in statm")?.parse()?)
}
