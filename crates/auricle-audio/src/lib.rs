//! Codecs to PCM and back, resampling, voice activity, audio files.
//!
//! All PCM is mono, signed 16-bit. Leaves to others: network, storage, whose audio it is.
//! Invariants: a bad frame is an error for that frame and the decoder goes on; no input panics; output is bounded before
//! anything is allocated for it.

pub mod adts;
mod codec;
mod decode;
mod encode;
pub mod file;
mod g711;
pub mod incoming;
pub mod packets;
pub mod recording;
pub mod resample;
pub mod vad;
pub mod wav;

pub use codec::{Codec, UnknownCodec};
pub use decode::{DecodeError, Decoder, DecoderError};
pub use encode::{Encoder, EncoderError, aac_frames_with_ffmpeg};
