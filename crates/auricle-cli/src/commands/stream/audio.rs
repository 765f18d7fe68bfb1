//! Files as the frames a device sends.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use auricle_audio::{Codec, Encoder, adts};

/// What is played.
pub(super) struct Recording {
    /// One message each.
    pub(super) frames: Vec<Vec<u8>>,
    /// Seconds of the whole.
    pub(super) secs: f64,
    /// Seconds of one frame.
    frame_secs: f64,
}

impl Recording {
    /// Where frame `index` lies.
    pub(super) fn secs_at(&self, index: usize) -> f64 {
        index as f64 * self.frame_secs
    }
}

/// Reads and encodes `files`, with silence behind the last.
pub(super) fn read(
    files: &[PathBuf],
    codec: Codec,
    rate_hz: u32,
    silence: Duration,
) -> anyhow::Result<Recording> {
    let ready = |path: &Path| path.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("aac"));
    if codec == Codec::Aac && files.iter().all(|path| ready(path)) {
        return as_it_is(files);
    }
    let mut pcm = Vec::new();
    for path in files {
        let name = || path.display().to_string();
        let file = std::fs::File::open(path).with_context(|| format!("open {}", name()))?;
        pcm.extend(auricle_audio::file::read(std::io::BufReader::new(file), rate_hz).with_context(name)?);
    }
    pcm.resize(pcm.len() + (f64::from(rate_hz) * silence.as_secs_f64()) as usize, 0);
    let (frames, samples) = if codec == Codec::Aac {
        (auricle_audio::aac_frames_with_ffmpeg(&pcm, rate_hz)?, 1_024)
    } else {
        let mut encoder = Encoder::new(codec, rate_hz)?;
        (encoder.encode_all(&pcm)?, encoder.frame_samples())
    };
    Ok(Recording {
        frames,
        secs: pcm.len() as f64 / f64::from(rate_hz),
        frame_secs: samples as f64 / f64::from(rate_hz),
    })
}

fn as_it_is(files: &[PathBuf]) -> anyhow::Result<Recording> {
    let mut frames = Vec::new();
    let mut rate_hz = 16_000;
    for path in files {
        let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        for frame in adts::frames(&bytes) {
            rate_hz = frame.rate_hz;
            frames.push(frame.whole.to_vec());
        }
    }
    anyhow::ensure!(!frames.is_empty(), "no AAC frames with ADTS headers in these files");
    let frame_secs = 1_024.0 / f64::from(rate_hz);
    Ok(Recording { secs: frames.len() as f64 * frame_secs, frames, frame_secs })
}
