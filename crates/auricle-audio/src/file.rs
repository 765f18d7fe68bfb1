//! Audio files as mono PCM: WAV and Ogg Opus whole ([`read`]), those and more a little at a time ([`FileReader`]).

mod media;
mod reader;

pub use reader::{FileReader, Source};

use std::io::{Read, Seek};

use crate::resample;

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Neither WAV nor Ogg Opus.
    #[error("not an audio file that can be read here; use WAV or Ogg Opus")]
    Unknown,
    /// The system's words.
    #[error("read the audio file: {0}")]
    Io(#[from] std::io::Error),
    /// A damaged WAV file.
    #[error("read the WAV file: {0}")]
    Wav(#[from] hound::Error),
    /// A damaged Ogg file.
    #[error("read the Ogg file: {0}")]
    Ogg(String),
    /// A rate that no microphone has: the file is damaged, or no recording.
    #[error("the WAV file claims {0} Hz; use 1000 to 384000")]
    Rate(u32),
    /// Longer than a day.
    #[error("the recording is longer than 24 hours")]
    TooLong,
    /// Longer than the caller takes.
    #[error("the recording is longer than {0} s, which is the limit")]
    LongerThan(u32),
    /// A kind of file that is known and cannot be read here.
    #[error("{0}")]
    Unsupported(String),
    /// Not what its beginning promised.
    #[error("the file is damaged: {0}")]
    Damaged(String),
}

/// Samples of 24 hours at 48 kHz.
const SAMPLES_MAX: usize = 24 * 3_600 * 48_000;
/// Ogg Opus is always decoded at this rate.
const OPUS_RATE_HZ: u32 = 48_000;

/// Reads a file as mono PCM at `rate_hz`.
pub fn read<R: Read + Seek>(mut reader: R, rate_hz: u32) -> Result<Vec<i16>, FileError> {
    let mut magic = [0; 4];
    reader.read_exact(&mut magic).map_err(|_| FileError::Unknown)?;
    reader.rewind()?;
    let (pcm, from_hz) = match &magic {
        b"RIFF" => wav(reader)?,
        b"OggS" => (ogg_opus(reader)?, OPUS_RATE_HZ),
        _ => return Err(FileError::Unknown),
    };
    Ok(if from_hz == rate_hz { pcm } else { resample::whole(&pcm, from_hz, rate_hz) })
}

fn wav<R: Read>(reader: R) -> Result<(Vec<i16>, u32), FileError> {
    let mut wav = hound::WavReader::new(reader)?;
    let spec = wav.spec();
    let channels = usize::from(spec.channels.max(1));
    // A filter between absurd rates would be as large as they are.
    if !(1_000..=384_000).contains(&spec.sample_rate) {
        return Err(FileError::Rate(spec.sample_rate));
    }
    if wav.len() as usize / channels > SAMPLES_MAX {
        return Err(FileError::TooLong);
    }
    let samples: Vec<i16> = match spec.sample_format {
        hound::SampleFormat::Float => wav
            .samples::<f32>()
            .map(|s| s.map(|s| (s * 32_768.0).clamp(-32_768.0, 32_767.0) as i16))
            .collect::<Result<_, _>>()?,
        hound::SampleFormat::Int => {
            let bits = u32::from(spec.bits_per_sample);
            let scale = move |sample: i32| {
                if bits >= 16 { (sample >> (bits - 16)) as i16 } else { (sample << (16 - bits)) as i16 }
            };
            wav.samples::<i32>().map(|s| s.map(scale)).collect::<Result<_, _>>()?
        }
    };
    let mono = |frame: &[i16]| (frame.iter().map(|s| i32::from(*s)).sum::<i32>() / channels as i32) as i16;
    let pcm = if channels == 1 { samples } else { samples.chunks_exact(channels).map(mono).collect() };
    Ok((pcm, spec.sample_rate))
}

fn ogg_opus<R: Read + Seek>(reader: R) -> Result<Vec<i16>, FileError> {
    let damaged = |error: ogg::OggReadError| FileError::Ogg(error.to_string());
    let mut packets = ogg::PacketReader::new(reader);
    let head = packets.read_packet().map_err(damaged)?.ok_or(FileError::Unknown)?;
    let Some(pre_skip) = head.data.strip_prefix(b"OpusHead").and_then(|rest| rest.get(2..4)) else {
        return Err(FileError::Unknown);
    };
    let pre_skip = usize::from(u16::from_le_bytes([pre_skip[0], pre_skip[1]]));
    // The tags.
    packets.read_packet().map_err(damaged)?;
    let mut decoder = opus::Decoder::new(OPUS_RATE_HZ, opus::Channels::Mono)
        .map_err(|error| FileError::Ogg(error.to_string()))?;
    let mut pcm = Vec::new();
    let mut frame = vec![0; OPUS_RATE_HZ as usize * 120 / 1_000];
    while let Some(packet) = packets.read_packet().map_err(damaged)? {
        // A damaged packet is a short silence, as a player has it.
        let samples = if packet.data.is_empty() {
            0
        } else {
            decoder.decode(&packet.data, &mut frame, false).unwrap_or(0)
        };
        pcm.extend_from_slice(&frame[..samples]);
        if pcm.len() > SAMPLES_MAX {
            return Err(FileError::TooLong);
        }
    }
    pcm.drain(..pre_skip.min(pcm.len()));
    Ok(pcm)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn a_stereo_wav_is_mixed_and_resampled() {
        let mut bytes = Cursor::new(Vec::new());
        let spec = hound::WavSpec {
            channels: 2,
            sample_rate: 8_000,
            bits_per_sample: 24,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
        for _ in 0..8_000 {
            writer.write_sample(1_000 << 8).unwrap();
            writer.write_sample(3_000 << 8).unwrap();
        }
        writer.finalize().unwrap();
        bytes.set_position(0);
        let pcm = read(bytes, 8_000).unwrap();
        assert_eq!((pcm.len(), pcm[100]), (8_000, 2_000));
    }

    #[test]
    fn a_wav_of_an_absurd_rate_is_refused() {
        for rate_hz in [0, 1, 2_000_000_000] {
            let mut bytes = b"RIFF\x26\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
            bytes.extend(u32::to_le_bytes(rate_hz));
            bytes.extend(u32::to_le_bytes(rate_hz.wrapping_mul(2)));
            bytes.extend(b"\x02\0\x10\0data\x02\0\0\0\x01\0");
            let refused = read(Cursor::new(bytes), 16_000).unwrap_err();
            assert!(matches!(refused, FileError::Rate(found) if found == rate_hz), "{refused}");
        }
    }

    #[test]
    fn what_is_no_audio_is_refused() {
        assert!(matches!(read(Cursor::new(b"hello world".to_vec()), 16_000), Err(FileError::Unknown)));
        assert!(matches!(read(Cursor::new(b"RI".to_vec()), 16_000), Err(FileError::Unknown)));
        assert!(read(Cursor::new(b"OggS\0\0\0\0".to_vec()), 16_000).is_err());
    }
}
