//! The header of a WAV stream, in pieces.

use super::{Encoding, IncomingError};

/// Bytes before the samples. More are no header.
const HEADER_BYTES_MAX: usize = 64 * 1024;
const PCM: u16 = 1;
const ALAW: u16 = 6;
const MULAW: u16 = 7;
const EXTENSIBLE: u16 = 0xfffe;

/// What the samples behind a header are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) encoding: Encoding,
    pub(super) rate_hz: u32,
    pub(super) channels: u16,
}

/// Gathers a header. Lengths that a live encoder cannot know are not believed.
#[derive(Debug, Default)]
pub(super) struct WavHeader {
    bytes: Vec<u8>,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl WavHeader {
    /// Takes a piece. `Some` once the header is whole, with the bytes behind it.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<Option<(Found, Vec<u8>)>, IncomingError> {
        self.bytes.extend_from_slice(piece);
        if self.bytes.len() >= 12 && &self.bytes[8..12] != b"WAVE" {
            return Err(IncomingError::Damaged("it begins as a RIFF file that is no WAV file"));
        }
        let mut at = 12;
        let mut found = None;
        while let Some(length) = u32_at(&self.bytes, at + 4) {
            let (name, body) = (&self.bytes[at..at + 4], at + 8);
            if name == b"data" {
                let found = found.ok_or(IncomingError::Damaged("its samples come before their format"))?;
                return Ok(Some((found, self.bytes.split_off(body))));
            }
            let end = body.saturating_add(length as usize).saturating_add(length as usize % 2);
            if end > HEADER_BYTES_MAX {
                return Err(IncomingError::Damaged("its WAV header is longer than 64 KiB"));
            }
            if name == b"fmt " && self.bytes.len() >= end {
                found = Some(format(&self.bytes[body..end])?);
            }
            if self.bytes.len() < end {
                return Ok(None);
            }
            at = end;
        }
        Ok(None)
    }
}

fn format(chunk: &[u8]) -> Result<Found, IncomingError> {
    let whole = IncomingError::Damaged("its WAV format is too short");
    let read = || Some((u16_at(chunk, 0)?, u16_at(chunk, 2)?, u32_at(chunk, 4)?, u16_at(chunk, 14)?));
    let (mut kind, channels, rate_hz, bits) = read().ok_or(whole)?;
    if kind == EXTENSIBLE {
        kind = u16_at(chunk, 24).unwrap_or(0);
    }
    let encoding = match (kind, bits) {
        (PCM, 16) => Encoding::Linear16,
        (ALAW, 8) => Encoding::Alaw,
        (MULAW, 8) => Encoding::Mulaw,
        _ => {
            return Err(IncomingError::Unsupported(format!(
                "WAV of format {kind} with {bits} bits cannot be streamed here; use 16-bit PCM, mulaw or alaw"
            )));
        }
    };
    if !(1_000..=192_000).contains(&rate_hz) || !(1..=32).contains(&channels) {
        return Err(IncomingError::Unsupported(format!(
            "WAV of {rate_hz} Hz and {channels} channels cannot be heard; use 1000 to 192000 Hz and 1 to 32 channels"
        )));
    }
    Ok(Found { encoding, rate_hz, channels })
}
