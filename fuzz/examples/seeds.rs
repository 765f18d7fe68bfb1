//! Writes the seeds of the audio targets into `corpus/`. Run in this folder when an input's shape changes:
//! `cargo run --release --example seeds`. The seeds of the text targets are written by hand.

use std::fs;
use std::path::Path;

use auricle_audio::Codec;
use auricle_fuzz::{TONE_AAC, connection, good_messages, tone};

fn main() -> std::io::Result<()> {
    for (target, codec) in [
        ("audio_pcm8", Codec::Pcm8),
        ("audio_pcm16", Codec::Pcm16),
        ("audio_opus", Codec::Opus),
        ("audio_opus_fs320", Codec::OpusFs320),
        ("audio_aac", Codec::Aac),
        ("audio_lc3", Codec::Lc3Fs1030),
    ] {
        let good = good_messages(codec);
        write(target, "good", &connection(0, good))?;
        write(target, "good_8k", &connection(1, good))?;
        let mut torn = good.to_vec();
        torn[0].truncate(good[0].len() / 2);
        write(target, "torn", &connection(0, &torn))?;
        write(target, "joined", &connection(0, &[good.concat()]))?;
    }
    write("audio_opus", "empty_frames_of_120_ms", &connection(2, &[vec![0x1B, 0x06], vec![0x18]]))?;
    write("adts", "good", TONE_AAC)?;
    write("adts", "torn", &TONE_AAC[..TONE_AAC.len() - 5])?;
    for (name, format, channels, bits) in
        [("int16", 1, 1, 16), ("int24_stereo", 1, 2, 24), ("float", 3, 1, 32), ("int8", 1, 1, 8)]
    {
        write("file_wav", name, &wav(format, channels, bits))?;
    }
    Ok(())
}

fn write(target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = Path::new("corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}

/// A WAV file of 32 sample frames, written by hand so that the reader's own library does not vouch for itself.
fn wav(format: u16, channels: u16, bits: u16) -> Vec<u8> {
    let frame_bytes = channels * bits / 8;
    let data: Vec<u8> = tone(32 * usize::from(frame_bytes)).iter().map(|sample| *sample as u8).collect();
    let mut out = b"RIFF".to_vec();
    out.extend((36 + data.len() as u32).to_le_bytes());
    out.extend(b"WAVEfmt \x10\0\0\0");
    for half in [format, channels] {
        out.extend(half.to_le_bytes());
    }
    out.extend(8_000_u32.to_le_bytes());
    out.extend((8_000 * u32::from(frame_bytes)).to_le_bytes());
    for half in [frame_bytes, bits] {
        out.extend(half.to_le_bytes());
    }
    out.extend(b"data");
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(data);
    out
}
