//! From PCM to messages, as a device would send them: for the command line, benchmarks and tests.

use std::io::Write;
use std::process::{Command, Stdio};

use lc3_codec::common::complex::Complex;
use lc3_codec::common::config::FrameDuration;
use lc3_codec::encoder::lc3_encoder::Lc3Encoder;

use crate::{Codec, adts};

/// An encoder that cannot be made or a frame that cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    /// The codec does not have this rate.
    #[error("{codec} cannot be encoded at {rate_hz} Hz; use 16000")]
    Rate {
        /// Which codec.
        codec: &'static str,
        /// What was asked for.
        rate_hz: u32,
    },
    /// AAC needs ffmpeg.
    #[error(
        "encoding AAC needs ffmpeg: {0}; install it (`apt-get install ffmpeg`) or stream an .aac file as it is"
    )]
    Ffmpeg(String),
    /// The codec's library refuses.
    #[error("encode a frame: {0}")]
    Library(String),
}

enum Inner {
    Pcm8,
    Pcm16,
    Opus(Box<opus::Encoder>),
    Lc3,
}

/// Encodes frame by frame. AAC is encoded whole: see [`aac_frames_with_ffmpeg`].
pub struct Encoder {
    inner: Inner,
    codec: Codec,
    rate_hz: u32,
}

const OPUS_PACKET_MAX: usize = 1_275;
const LC3_FRAME_BYTES: usize = 30;

impl Encoder {
    /// For mono PCM at `rate_hz`.
    pub fn new(codec: Codec, rate_hz: u32) -> Result<Self, EncoderError> {
        let refuse = || EncoderError::Rate { codec: codec.as_str(), rate_hz };
        let inner = match codec {
            Codec::Pcm8 => Inner::Pcm8,
            Codec::Pcm16 => Inner::Pcm16,
            Codec::Opus | Codec::OpusFs320 => {
                let encoder = opus::Encoder::new(rate_hz, opus::Channels::Mono, opus::Application::Voip);
                Inner::Opus(Box::new(encoder.map_err(|_| refuse())?))
            }
            Codec::Lc3Fs1030 => {
                crate::decode::lc3_frequency(rate_hz).map_err(|_| refuse())?;
                Inner::Lc3
            }
            Codec::Aac => return Err(EncoderError::Ffmpeg("AAC is encoded a file at a time".into())),
        };
        Ok(Self { inner, codec, rate_hz })
    }

    /// Samples of one frame.
    pub fn frame_samples(&self) -> usize {
        (self.rate_hz * self.codec.frame_ms() / 1_000) as usize
    }

    /// Encodes a recording: one message for each frame, the last padded with silence.
    pub fn encode_all(&mut self, pcm: &[i16]) -> Result<Vec<Vec<u8>>, EncoderError> {
        let size = self.frame_samples();
        if let Inner::Lc3 = self.inner {
            return lc3_all(pcm, self.rate_hz, size);
        }
        pcm.chunks(size)
            .map(|chunk| {
                let mut frame = chunk.to_vec();
                frame.resize(size, 0);
                self.encode(&frame)
            })
            .collect()
    }

    fn encode(&mut self, frame: &[i16]) -> Result<Vec<u8>, EncoderError> {
        match &mut self.inner {
            Inner::Pcm8 => Ok(frame.iter().map(|sample| ((sample >> 8) + 128) as u8).collect()),
            Inner::Pcm16 => Ok(frame.iter().flat_map(|sample| sample.to_le_bytes()).collect()),
            Inner::Opus(encoder) => encoder
                .encode_vec(frame, OPUS_PACKET_MAX)
                .map_err(|error| EncoderError::Library(error.to_string())),
            Inner::Lc3 => unreachable!("LC3 is encoded by `lc3_all`"),
        }
    }
}

/// The library borrows its buffers for as long as the encoder lives, so it lives here for one recording.
fn lc3_all(pcm: &[i16], rate_hz: u32, size: usize) -> Result<Vec<Vec<u8>>, EncoderError> {
    let library = |error: String| EncoderError::Library(error);
    let frequency = crate::decode::lc3_frequency(rate_hz).map_err(|error| library(error.to_string()))?;
    let (integers, scalars, complexes) =
        Lc3Encoder::calc_working_buffer_lengths(1, FrameDuration::TenMs, frequency);
    let (mut integers, mut scalars) = (vec![0; integers], vec![0.0; scalars]);
    let mut complexes = vec![Complex::default(); complexes];
    let mut encoder =
        Lc3Encoder::new(1, FrameDuration::TenMs, frequency, &mut integers, &mut scalars, &mut complexes);
    pcm.chunks(size)
        .map(|chunk| {
            let mut frame = chunk.to_vec();
            frame.resize(size, 0);
            let mut bytes = vec![0; LC3_FRAME_BYTES];
            encoder.encode_frame(0, &frame, &mut bytes).map_err(|error| library(format!("{error:?}")))?;
            Ok(bytes)
        })
        .collect()
}

/// Encodes a recording as AAC-LC with ADTS headers by running `ffmpeg`: no maintained encoder under a free licence exists as a
/// crate. Blocks until it is done.
pub fn aac_frames_with_ffmpeg(pcm: &[i16], rate_hz: u32) -> Result<Vec<Vec<u8>>, EncoderError> {
    let failed = |error: std::io::Error| EncoderError::Ffmpeg(error.to_string());
    let mut child = Command::new("ffmpeg")
        .args([
            "-hide_banner",
            "-loglevel",
            "error",
            "-f",
            "s16le",
            "-ac",
            "1",
            "-ar",
            &rate_hz.to_string(),
            "-i",
            "-",
        ])
        .args(["-c:a", "aac", "-b:a", "32k", "-f", "adts", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut input = child.stdin.take().expect("piped");
    let bytes: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().map_err(failed)?;
    let _ = writer.join();
    if !output.status.success() {
        return Err(EncoderError::Ffmpeg(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(adts::frames(&output.stdout).map(|frame| frame.whole.to_vec()).collect())
}
