//! What `symphonia` reads: FLAC, MP3, M4A, WebM and Matroska, AAC with ADTS headers. Opus in them is decoded by libopus.

use std::io::BufReader;

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::MetadataOptions;

use super::FileError;
use super::reader::{Source, mix_down};
use crate::incoming::{self, decode_opus, opus_decoder};

/// Packets in a row that do not decode; more are no audio.
const DAMAGED_MAX: usize = 200;

enum Decode {
    Library(Box<dyn AudioDecoder>),
    Opus(Box<opus::Decoder>, u16),
}

/// One track of a file.
pub(super) struct Media {
    format: Box<dyn FormatReader>,
    track: u32,
    decode: Decode,
    samples: Vec<i16>,
    damaged: usize,
    any: bool,
}

struct Bytes {
    source: BufReader<Box<dyn Source>>,
    length: u64,
}

impl std::io::Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.source.read(buffer)
    }
}

impl std::io::Seek for Bytes {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        self.source.seek(to)
    }
}

impl MediaSource for Bytes {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.length)
    }
}

fn failed(error: Error) -> FileError {
    match error {
        Error::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            FileError::Damaged("it is cut off".into())
        }
        Error::IoError(error) => FileError::Io(error),
        Error::Unsupported(what) => FileError::Unsupported(format!("this file cannot be read here: {what}")),
        other => FileError::Damaged(other.to_string()),
    }
}

impl Media {
    pub(super) fn open(mut source: BufReader<Box<dyn Source>>) -> Result<Self, FileError> {
        use std::io::Seek;
        let length = source.seek(std::io::SeekFrom::End(0))?;
        source.rewind()?;
        let stream =
            MediaSourceStream::new(Box::new(Bytes { source, length }), MediaSourceStreamOptions::default());
        let (hint, options) = (Hint::new(), FormatOptions::default());
        let probed =
            symphonia::default::get_probe().probe(&hint, stream, options, MetadataOptions::default());
        let format = probed.map_err(|error| match error {
            Error::IoError(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                FileError::Io(error)
            }
            _ => FileError::Unsupported(
                "not an audio file that can be read here; use WAV, Ogg Opus, FLAC, MP3, M4A or WebM".into(),
            ),
        })?;
        let none = || FileError::Unsupported("the file has no audio that can be read here".into());
        let track = format.default_track(TrackType::Audio).ok_or_else(none)?;
        let Some(CodecParameters::Audio(params)) = &track.codec_params else { return Err(none()) };
        let decode = if params.codec == CODEC_ID_OPUS {
            let channels = params.channels.as_ref().map_or(1, |channels| channels.count().clamp(1, 2)) as u16;
            let decoder =
                opus_decoder(channels).map_err(|error| FileError::Unsupported(error.to_string()))?;
            Decode::Opus(Box::new(decoder), channels)
        } else {
            let made =
                symphonia::default::get_codecs().make_audio_decoder(params, &AudioDecoderOptions::default());
            Decode::Library(made.map_err(failed)?)
        };
        Ok(Self { track: track.id, format, decode, samples: Vec::new(), damaged: 0, any: false })
    }

    /// Appends the next packet's samples, mixed to mono, and says their rate; `None` at the end.
    pub(super) fn next(&mut self, mono: &mut Vec<i16>) -> Result<Option<u32>, FileError> {
        loop {
            let packet = match self.format.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => return Ok(None),
                // A recording that was cut off is good up to there.
                Err(Error::IoError(error))
                    if error.kind() == std::io::ErrorKind::UnexpectedEof && self.any =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(failed(error)),
            };
            if packet.track_id != self.track {
                continue;
            }
            self.samples.clear();
            let rate_hz = match &mut self.decode {
                Decode::Opus(decoder, channels) => {
                    decode_opus(decoder, *channels, &packet.data, &mut self.samples);
                    mix_down(&self.samples, usize::from(*channels), mono);
                    incoming::OPUS_RATE_HZ
                }
                Decode::Library(decoder) => match decoder.decode(&packet) {
                    Ok(decoded) => {
                        let (rate, channels) = (decoded.spec().rate(), decoded.spec().channels().count());
                        decoded.copy_to_vec_interleaved(&mut self.samples);
                        mix_down(&self.samples, channels, mono);
                        rate
                    }
                    Err(Error::DecodeError(_)) => 0,
                    Err(error) => return Err(failed(error)),
                },
            };
            if !mono.is_empty() && (1_000..=384_000).contains(&rate_hz) {
                (self.damaged, self.any) = (0, true);
                return Ok(Some(rate_hz));
            }
            mono.clear();
            self.damaged += 1;
            if self.damaged > DAMAGED_MAX {
                return Err(FileError::Damaged(format!("{DAMAGED_MAX} packets in a row do not decode")));
            }
        }
    }
}
