//! AAC-LC with ADTS headers, resampled to the connection's rate and mixed to mono.

use symphonia::core::audio::GenericAudioBufferRef;
use symphonia::core::audio::layouts::{CHANNEL_LAYOUT_MONO, CHANNEL_LAYOUT_STEREO};
use symphonia::core::codecs::audio::well_known::CODEC_ID_AAC;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration, Timestamp};
use symphonia::default::codecs::AacDecoder;

use super::DecodeError;
use crate::adts;
use crate::resample::Resampler;

/// Frames in one message. Devices send one; more would let 8 bytes become 1,024 samples without bound.
const FRAMES_MAX: usize = 64;

/// Keeps the decoder from frame to frame and begins anew when the stream's own format changes, or when a frame is refused.
///
/// The library remembers which elements (single, pair) the first frames had and refuses every frame that differs, for
/// ever; a reset does not clear that. So one damaged frame could silence a connection: see [`Aac::decode_frame`].
pub(super) struct Aac {
    rate_hz: u32,
    stream: Option<Stream>,
    samples: Vec<i16>,
}

struct Stream {
    rate_hz: u32,
    channels: u8,
    decoder: AacDecoder,
    resampler: Resampler,
}

impl Aac {
    pub(super) fn new(rate_hz: u32) -> Self {
        Self { rate_hz, stream: None, samples: Vec::new() }
    }

    pub(super) fn decode(&mut self, message: &[u8], out: &mut Vec<i16>) -> Result<(), DecodeError> {
        let damaged = DecodeError::Damaged { codec: "aac", bytes: message.len() };
        let mut good = 0;
        for (index, frame) in adts::frames(message).enumerate() {
            if index == FRAMES_MAX {
                return Err(DecodeError::TooManyFrames { max: FRAMES_MAX });
            }
            good = index + 1;
            self.decode_frame(&frame, out).ok_or_else(|| damaged.clone())?;
        }
        if good > 0 { Ok(()) } else { Err(damaged) }
    }

    /// A frame that a decoder with a past refuses is given to a fresh one: either the frame is bad, or the past was.
    fn decode_frame(&mut self, frame: &adts::Frame<'_>, out: &mut Vec<i16>) -> Option<()> {
        let same = |stream: &Stream| stream.rate_hz == frame.rate_hz && stream.channels == frame.channels;
        if !self.stream.as_ref().is_some_and(same) {
            self.stream = Some(Stream::new(frame, self.rate_hz)?);
        }
        let stream = self.stream.as_mut()?;
        if stream.decode(frame, &mut self.samples).is_none() {
            stream.decoder = decoder(frame)?;
            if stream.decode(frame, &mut self.samples).is_none() {
                stream.decoder = decoder(frame)?;
                return None;
            }
        }
        stream.resampler.push(&self.samples, out);
        Some(())
    }
}

impl Stream {
    fn new(frame: &adts::Frame<'_>, rate_hz: u32) -> Option<Self> {
        Some(Self {
            rate_hz: frame.rate_hz,
            channels: frame.channels,
            decoder: decoder(frame)?,
            resampler: Resampler::new(frame.rate_hz, rate_hz),
        })
    }

    /// `samples` is replaced by the frame's, mixed to mono.
    fn decode(&mut self, frame: &adts::Frame<'_>, samples: &mut Vec<i16>) -> Option<()> {
        let packet = PacketRef::new(0, Timestamp::from(0), Duration::from(1_024_u64), frame.payload);
        mono(&self.decoder.decode_ref(&packet).ok()?, samples);
        Some(())
    }
}

fn decoder(frame: &adts::Frame<'_>) -> Option<AacDecoder> {
    let mut params = AudioCodecParameters::new();
    params.for_codec(CODEC_ID_AAC).with_sample_rate(frame.rate_hz);
    let layout = if frame.channels == 1 { CHANNEL_LAYOUT_MONO } else { CHANNEL_LAYOUT_STEREO };
    params.with_channels(layout);
    AacDecoder::try_new(&params, &AudioDecoderOptions::default()).ok()
}

fn mono(decoded: &GenericAudioBufferRef<'_>, samples: &mut Vec<i16>) {
    let channels = decoded.spec().channels().count().max(1);
    decoded.copy_to_vec_interleaved(samples);
    if channels > 1 {
        let frames = samples.len() / channels;
        for frame in 0..frames {
            let sum: i32 = (0..channels).map(|channel| i32::from(samples[frame * channels + channel])).sum();
            samples[frame] = (sum / channels as i32) as i16;
        }
        samples.truncate(frames);
    }
}
