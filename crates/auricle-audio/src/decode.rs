//! From messages as received to PCM. Source: listen-protocol 2.1 and 2.2.

mod aac;
mod lc3;

pub(crate) use self::lc3::frequency as lc3_frequency;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::Codec;

/// The longest legal Opus packet.
const OPUS_PACKET_MS: usize = 120;
/// Bytes of PCM in one message; more is an error, so that one message cannot make the server allocate without bound.
const PCM_BYTES_MAX: usize = 1024 * 1024;

/// A decoder that cannot be made: no frame of this connection can ever be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecoderError {
    /// Opus has five rates.
    #[error("opus cannot be decoded at {0} Hz; use 8000, 12000, 16000, 24000 or 48000")]
    OpusRate(u32),
    /// LC3 has six.
    #[error("lc3 cannot be decoded at {0} Hz; use 8000, 16000, 24000, 32000, 44100 or 48000")]
    Lc3Rate(u32),
    /// No sensible audio.
    #[error("audio at {0} Hz is not supported; use 1000 to 192000")]
    Rate(u32),
    /// The codec's library refuses.
    #[error("cannot make the decoder: {0}")]
    Library(String),
}

/// A frame that cannot be decoded. Drop it and go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not a frame of its codec.
    #[error("{codec} frame of {bytes} bytes is damaged")]
    Damaged {
        /// Which codec.
        codec: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// Longer than any device sends.
    #[error("audio message of {0} bytes exceeds 1 MiB")]
    TooLong(usize),
    /// More than any device sends in one message; the first `max` of them were decoded.
    #[error("audio message of more than {max} frames; send one or a few in a message")]
    TooManyFrames {
        /// How many it may hold.
        max: usize,
    },
}

enum Inner {
    Pcm8,
    /// An odd byte waits for its other half: messages may cut samples in two.
    Pcm16(Option<u8>),
    Opus(Box<opus::Decoder>),
    Aac(Box<aac::Aac>),
    Lc3(Box<lc3::Lc3>),
}

/// Decodes one channel of one connection. Keeps state from frame to frame.
pub struct Decoder {
    inner: Inner,
    sample_rate_hz: u32,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("sample_rate_hz", &self.sample_rate_hz).finish_non_exhaustive()
    }
}

impl Decoder {
    /// `sample_rate_hz`: of the PCM to be made. Stereo AAC is mixed to mono, since engines hear one channel.
    pub fn new(codec: Codec, sample_rate_hz: u32, _channels: u8) -> Result<Self, DecoderError> {
        if !(1_000..=192_000).contains(&sample_rate_hz) {
            return Err(DecoderError::Rate(sample_rate_hz));
        }
        let inner = match codec {
            Codec::Pcm8 => Inner::Pcm8,
            Codec::Pcm16 => Inner::Pcm16(None),
            Codec::Opus | Codec::OpusFs320 => Inner::Opus(Box::new(opus_decoder(sample_rate_hz)?)),
            Codec::Aac => Inner::Aac(Box::new(aac::Aac::new(sample_rate_hz))),
            Codec::Lc3Fs1030 => Inner::Lc3(Box::new(lc3::Lc3::new(sample_rate_hz)?)),
        };
        Ok(Self { inner, sample_rate_hz })
    }

    /// How many samples a message would be decoded to, for codecs whose packets say so in their heads. `None`: only decoding tells,
    /// or it cannot be decoded.
    pub(crate) fn measure(&self, message: &[u8]) -> Option<usize> {
        match &self.inner {
            Inner::Opus(_) => opus_samples(self.sample_rate_hz, message).ok(),
            Inner::Lc3(decoder) => decoder.measure(message),
            Inner::Pcm8 | Inner::Pcm16(_) | Inner::Aac(_) => None,
        }
    }

    /// Appends the message's samples to `out`. An error leaves `out` with what was decoded before it.
    ///
    /// A codec's library that panics is contained and begun anew: its state is lost, the connection is not.
    pub fn decode(&mut self, message: &[u8], out: &mut Vec<i16>) -> Result<(), DecodeError> {
        if message.len() > PCM_BYTES_MAX {
            return Err(DecodeError::TooLong(message.len()));
        }
        match &mut self.inner {
            Inner::Pcm8 => {
                out.extend(message.iter().map(|byte| (i16::from(*byte) - 128) << 8));
                Ok(())
            }
            Inner::Pcm16(carried) => {
                pcm16(carried, message, out);
                Ok(())
            }
            Inner::Opus(decoder) => opus(decoder, self.sample_rate_hz, message, out),
            Inner::Aac(decoder) => {
                let decoded = catch_unwind(AssertUnwindSafe(|| decoder.decode(message, out)));
                decoded.unwrap_or_else(|_| {
                    **decoder = aac::Aac::new(self.sample_rate_hz);
                    Err(DecodeError::Damaged { codec: "aac", bytes: message.len() })
                })
            }
            Inner::Lc3(decoder) => {
                let decoded = catch_unwind(AssertUnwindSafe(|| decoder.decode(message, out)));
                decoded.unwrap_or_else(|_| {
                    if let Ok(fresh) = lc3::Lc3::new(self.sample_rate_hz) {
                        **decoder = fresh;
                    }
                    Err(DecodeError::Damaged { codec: "lc3", bytes: message.len() })
                })
            }
        }
    }
}

fn opus_decoder(sample_rate_hz: u32) -> Result<opus::Decoder, DecoderError> {
    if ![8_000, 12_000, 16_000, 24_000, 48_000].contains(&sample_rate_hz) {
        return Err(DecoderError::OpusRate(sample_rate_hz));
    }
    opus::Decoder::new(sample_rate_hz, opus::Channels::Mono)
        .map_err(|error| DecoderError::Library(error.to_string()))
}

fn opus(
    decoder: &mut opus::Decoder,
    rate: u32,
    message: &[u8],
    out: &mut Vec<i16>,
) -> Result<(), DecodeError> {
    let samples = opus_samples(rate, message)?;
    let before = out.len();
    out.resize(before + samples, 0);
    match decoder.decode(message, &mut out[before..], false) {
        Ok(decoded) => {
            out.truncate(before + decoded);
            Ok(())
        }
        Err(_) => {
            out.truncate(before);
            Err(DecodeError::Damaged { codec: "opus", bytes: message.len() })
        }
    }
}

fn opus_samples(rate: u32, message: &[u8]) -> Result<usize, DecodeError> {
    let damaged = DecodeError::Damaged { codec: "opus", bytes: message.len() };
    // An empty packet means "lost" to the library, which would invent sound.
    if message.is_empty() {
        return Err(damaged);
    }
    match opus::packet::get_nb_samples(message, rate) {
        Ok(samples) if samples <= rate as usize * OPUS_PACKET_MS / 1_000 => Ok(samples),
        _ => Err(damaged),
    }
}

fn pcm16(carried: &mut Option<u8>, mut message: &[u8], out: &mut Vec<i16>) {
    out.reserve(message.len() / 2 + 1);
    if let Some(low) = carried.take() {
        let Some((high, rest)) = message.split_first() else {
            *carried = Some(low);
            return;
        };
        out.push(i16::from_le_bytes([low, *high]));
        message = rest;
    }
    let (pairs, odd) = message.as_chunks::<2>();
    out.extend(pairs.iter().map(|pair| i16::from_le_bytes(*pair)));
    *carried = odd.first().copied();
}

#[cfg(test)]
mod tests;
