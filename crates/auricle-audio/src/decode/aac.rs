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

/// Keeps the decoder from frame to frame and begins anew when the stream's own format changes.
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
        let mut any = false;
        for frame in adts::frames(message) {
            self.decode_frame(&frame, out).ok_or_else(|| damaged.clone())?;
            any = true;
        }
        if any { Ok(()) } else { Err(damaged) }
    }

    fn decode_frame(&mut self, frame: &adts::Frame<'_>, out: &mut Vec<i16>) -> Option<()> {
        let same = |stream: &Stream| stream.rate_hz == frame.rate_hz && stream.channels == frame.channels;
        if !self.stream.as_ref().is_some_and(same) {
            self.stream = Some(Stream::new(frame, self.rate_hz)?);
        }
        let stream = self.stream.as_mut()?;
        let packet = PacketRef::new(0, Timestamp::from(0), Duration::from(1_024_u64), frame.payload);
        let decoded = stream.decoder.decode_ref(&packet).ok()?;
        mono(&decoded, &mut self.samples);
        stream.resampler.push(&self.samples, out);
        Some(())
    }
}

impl Stream {
    fn new(frame: &adts::Frame<'_>, rate_hz: u32) -> Option<Self> {
        let mut params = AudioCodecParameters::new();
        params.for_codec(CODEC_ID_AAC).with_sample_rate(frame.rate_hz);
        let layout = if frame.channels == 1 { CHANNEL_LAYOUT_MONO } else { CHANNEL_LAYOUT_STEREO };
        params.with_channels(layout);
        let decoder = AacDecoder::try_new(&params, &AudioDecoderOptions::default()).ok()?;
        Some(Self {
            rate_hz: frame.rate_hz,
            channels: frame.channels,
            decoder,
            resampler: Resampler::new(frame.rate_hz, rate_hz),
        })
    }
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
