//! LC3 frames of 10 ms. The library works in buffers that it borrows; the cell owns both.

use lc3_codec::common::complex::Complex;
use lc3_codec::common::config::{FrameDuration, SamplingFrequency};
use lc3_codec::decoder::lc3_decoder::Lc3Decoder;
use self_cell::{MutBorrow, self_cell};

use super::{DecodeError, DecoderError};

/// The nominal frame; a message may hold several.
const FRAME_BYTES: usize = 30;
/// What LC3 allows for one frame of one channel.
const FRAME_BYTES_RANGE: std::ops::RangeInclusive<usize> = 20..=400;

type Buffers = (Vec<f32>, Vec<Complex>);

self_cell!(
    struct Cell {
        owner: MutBorrow<Buffers>,
        #[not_covariant]
        dependent: Lc3Decoder,
    }
);

pub(super) struct Lc3 {
    cell: Cell,
    frame_samples: usize,
}

pub(crate) fn frequency(rate_hz: u32) -> Result<SamplingFrequency, DecoderError> {
    Ok(match rate_hz {
        8_000 => SamplingFrequency::Hz8000,
        16_000 => SamplingFrequency::Hz16000,
        24_000 => SamplingFrequency::Hz24000,
        32_000 => SamplingFrequency::Hz32000,
        44_100 => SamplingFrequency::Hz44100,
        48_000 => SamplingFrequency::Hz48000,
        other => return Err(DecoderError::Lc3Rate(other)),
    })
}

impl Lc3 {
    pub(super) fn new(rate_hz: u32) -> Result<Self, DecoderError> {
        let frequency = frequency(rate_hz)?;
        let (scalars, complexes) =
            Lc3Decoder::calc_working_buffer_lengths(1, FrameDuration::TenMs, frequency);
        let buffers = MutBorrow::new((vec![0.0; scalars], vec![Complex::default(); complexes]));
        let cell = Cell::new(buffers, |buffers| {
            let (scalars, complexes) = buffers.borrow_mut();
            Lc3Decoder::new(1, FrameDuration::TenMs, frequency, scalars, complexes)
        });
        // 44.1 kHz frames have as many samples as 48 kHz ones, as the standard has it.
        let frame_samples = if rate_hz == 44_100 { 480 } else { rate_hz as usize / 100 };
        Ok(Self { cell, frame_samples })
    }

    /// Samples of a message.
    pub(super) fn measure(&self, message: &[u8]) -> Option<usize> {
        Some(message.len() / frame_bytes(message)? * self.frame_samples)
    }

    pub(super) fn decode(&mut self, message: &[u8], out: &mut Vec<i16>) -> Result<(), DecodeError> {
        let damaged = DecodeError::Damaged { codec: "lc3", bytes: message.len() };
        let frame_bytes = frame_bytes(message).ok_or_else(|| damaged.clone())?;
        for frame in message.chunks_exact(frame_bytes) {
            let before = out.len();
            out.resize(before + self.frame_samples, 0);
            let samples = &mut out[before..];
            let decoded =
                self.cell.with_dependent_mut(|_, decoder| decoder.decode_frame(16, 0, frame, samples));
            if decoded.is_err() {
                out.truncate(before);
                return Err(damaged);
            }
        }
        Ok(())
    }
}

/// Of each of a message's frames.
fn frame_bytes(message: &[u8]) -> Option<usize> {
    match message.len() {
        len if len > FRAME_BYTES && len % FRAME_BYTES == 0 => Some(FRAME_BYTES),
        len if FRAME_BYTES_RANGE.contains(&len) => Some(len),
        _ => None,
    }
}
