//! A file read a little at a time, so that a day of audio needs no more memory than a second.

use std::io::{BufReader, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::FileError;
use super::media::Media;
use crate::incoming::{self, Encoding, Incoming, IncomingError};
use crate::resample::Resampler;

/// Bytes read at once.
const PIECE_BYTES: usize = 16 * 1024;
/// Samples of each channel that are decoded at once where the file does not say.
const STEP: usize = 8_192;
/// Silence behind the end, which brings out what the resampler holds back.
const TAIL: usize = 2;

/// Where a file's bytes come from.
pub trait Source: Read + Seek + Send + Sync + 'static {}

impl<T: Read + Seek + Send + Sync + 'static> Source for T {}

type Boxed = BufReader<Box<dyn Source>>;

enum Inner {
    /// Floating point and uncommon widths too.
    Wav(Box<hound::WavReader<Boxed>>),
    /// Ogg Opus, and WAV that a live encoder or a telephone made.
    Incoming {
        reader: Boxed,
        incoming: Box<Incoming>,
    },
    Media(Box<Media>),
    Over,
}

/// Reads one file as mono PCM.
pub struct FileReader {
    inner: Inner,
    rate_hz: u32,
    secs_max: u32,
    resampler: Option<(u32, Resampler)>,
    /// Samples given out.
    given: u64,
    samples: Vec<i16>,
    mono: Vec<i16>,
}

impl std::fmt::Debug for FileReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileReader").field("rate_hz", &self.rate_hz).finish_non_exhaustive()
    }
}

fn incoming_error(error: IncomingError) -> FileError {
    match error {
        IncomingError::Unknown => FileError::Unknown,
        IncomingError::Unsupported(text) => FileError::Unsupported(text),
        IncomingError::Damaged(text) => FileError::Damaged(text.into()),
        error @ IncomingError::TooLarge { .. } => FileError::Damaged(error.to_string()),
    }
}

/// `chunk` mixed to one channel.
pub(crate) fn mix_down(interleaved: &[i16], channels: usize, mono: &mut Vec<i16>) {
    if channels <= 1 {
        return mono.extend_from_slice(interleaved);
    }
    let mean = |frame: &[i16]| (frame.iter().map(|s| i32::from(*s)).sum::<i32>() / channels as i32) as i16;
    mono.extend(interleaved.chunks_exact(channels).map(mean));
}

impl FileReader {
    /// Looks at the beginning: WAV, Ogg Opus, FLAC, MP3, M4A (AAC), WebM and Matroska (Opus, AAC …), or AAC with ADTS headers.
    /// Gives PCM at `rate_hz`, at most `secs_max` seconds of it.
    ///
    /// # Errors
    /// Not an audio file that can be read here.
    pub fn open(source: impl Source, rate_hz: u32, secs_max: u32) -> Result<Self, FileError> {
        let mut reader: Boxed = BufReader::with_capacity(PIECE_BYTES, Box::new(source));
        let mut magic = [0; 12];
        let mut have = 0;
        while have < magic.len() {
            match reader.read(&mut magic[have..])? {
                0 => break,
                read => have += read,
            }
        }
        reader.rewind()?;
        if have == 0 {
            return Err(FileError::Damaged("it is empty".into()));
        }
        let inner = match &magic[..4] {
            b"RIFF" => match hound::WavReader::new(reader) {
                Ok(wav) if !(1_000..=384_000).contains(&wav.spec().sample_rate) => {
                    return Err(FileError::Rate(wav.spec().sample_rate));
                }
                Ok(wav) => Inner::Wav(Box::new(wav)),
                Err(error) => return Err(error.into()),
            },
            b"OggS" => Inner::Incoming {
                reader,
                incoming: Box::new(Incoming::new(Encoding::Container, incoming::OPUS_RATE_HZ, 1)),
            },
            _ => Inner::Media(Box::new(Media::open(reader)?)),
        };
        Ok(Self {
            inner,
            rate_hz,
            secs_max,
            resampler: None,
            given: 0,
            samples: Vec::new(),
            mono: Vec::new(),
        })
    }

    /// Appends the next stretch, about half a second at most, to `out`. False at the end.
    ///
    /// # Errors
    /// The rest cannot be read. What was given before is good.
    pub fn read(&mut self, out: &mut Vec<i16>) -> Result<bool, FileError> {
        let before = out.len();
        while out.len() == before {
            self.mono.clear();
            let Some(from_hz) = self.step()? else {
                self.inner = Inner::Over;
                // What the filter still holds.
                if let Some((from_hz, mut resampler)) = self.resampler.take()
                    && from_hz != self.rate_hz
                {
                    resampler.push(&vec![0; from_hz as usize * TAIL / 50], out);
                }
                return Ok(out.len() > before);
            };
            match &mut self.resampler {
                Some((of, resampler)) if *of == from_hz => resampler.push(&self.mono, out),
                other => {
                    let (_, resampler) = other.insert((from_hz, Resampler::new(from_hz, self.rate_hz)));
                    resampler.push(&self.mono, out);
                }
            }
        }
        self.given += (out.len() - before) as u64;
        if self.given > u64::from(self.rate_hz) * u64::from(self.secs_max) {
            return Err(FileError::LongerThan(self.secs_max));
        }
        Ok(true)
    }

    /// Fills `mono` with the next samples and says their rate; `None` at the end.
    fn step(&mut self) -> Result<Option<u32>, FileError> {
        self.samples.clear();
        let (samples, mono) = (&mut self.samples, &mut self.mono);
        match &mut self.inner {
            Inner::Over => Ok(None),
            Inner::Wav(wav) => {
                let spec = wav.spec();
                let channels = usize::from(spec.channels.max(1));
                let whole = wav_samples(wav, spec, STEP * channels, samples)?;
                mix_down(samples, channels, mono);
                Ok((whole || !mono.is_empty()).then_some(spec.sample_rate))
            }
            Inner::Incoming { reader, incoming } => {
                let mut piece = [0; PIECE_BYTES / 4];
                let read = reader.read(&mut piece)?;
                incoming.push(&piece[..read], samples).map_err(incoming_error)?;
                let format = incoming.format();
                mix_down(samples, format.map_or(1, |format| usize::from(format.channels)), mono);
                Ok((read > 0).then_some(format.map_or(incoming::OPUS_RATE_HZ, |format| format.rate_hz)))
            }
            Inner::Media(media) => {
                // Many decoders, files from anywhere: a panic of theirs is a damaged file.
                let read = catch_unwind(AssertUnwindSafe(|| media.next(mono)));
                read.unwrap_or_else(|_| Err(FileError::Damaged("its decoder gave up".into())))
            }
        }
    }
}

/// Appends up to `most` samples. False at the end; a file that is cut off ends where it was cut.
fn wav_samples(
    wav: &mut hound::WavReader<Boxed>,
    spec: hound::WavSpec,
    most: usize,
    out: &mut Vec<i16>,
) -> Result<bool, FileError> {
    let bits = u32::from(spec.bits_per_sample);
    let scaled = move |s: i32| if bits >= 16 { (s >> (bits - 16)) as i16 } else { (s << (16 - bits)) as i16 };
    let mut next: Box<dyn Iterator<Item = Result<i16, hound::Error>> + '_> = match spec.sample_format {
        hound::SampleFormat::Float => Box::new(
            wav.samples::<f32>().map(|s| s.map(|s| (s * 32_768.0).clamp(-32_768.0, 32_767.0) as i16)),
        ),
        hound::SampleFormat::Int => Box::new(wav.samples::<i32>().map(move |s| s.map(scaled))),
    };
    for _ in 0..most {
        match next.next() {
            Some(Ok(sample)) => out.push(sample),
            None => return Ok(false),
            // Its word for a file that is shorter than its header says; a disk's own trouble has another kind.
            Some(Err(hound::Error::IoError(error)))
                if matches!(error.kind(), std::io::ErrorKind::Other | std::io::ErrorKind::UnexpectedEof) =>
            {
                return Ok(false);
            }
            Some(Err(error)) => return Err(error.into()),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn whole(bytes: Vec<u8>, secs_max: u32) -> Result<Vec<i16>, FileError> {
        let mut reader = FileReader::open(Cursor::new(bytes), 16_000, secs_max)?;
        let mut out = Vec::new();
        while reader.read(&mut out)? {}
        Ok(out)
    }

    fn wav(rate_hz: u32, channels: u16, seconds: u32) -> Vec<u8> {
        let spec = hound::WavSpec {
            channels,
            sample_rate: rate_hz,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut bytes = Cursor::new(Vec::new());
        let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
        for index in 0..rate_hz * seconds {
            let sample = (8_000.0
                * (f64::from(index) * 300.0 * std::f64::consts::TAU / f64::from(rate_hz)).sin())
                as i16;
            for _ in 0..channels {
                writer.write_sample(sample).unwrap();
            }
        }
        writer.finalize().unwrap();
        bytes.into_inner()
    }

    #[test]
    fn a_file_read_a_little_at_a_time_is_the_file_read_whole() {
        let bytes = wav(44_100, 2, 3);
        let once = super::super::read(Cursor::new(bytes.clone()), 16_000).unwrap();
        let parts = whole(bytes, 10).unwrap();
        assert!(parts.len().abs_diff(48_000) < 800, "{}", parts.len());
        let same = once.iter().zip(&parts).filter(|(a, b)| a == b).count();
        assert!(same > 47_000, "{same}");
    }

    #[test]
    fn a_file_that_is_cut_off_is_read_to_the_cut() {
        let mut bytes = wav(16_000, 1, 2);
        bytes.truncate(44 + 16_001);
        assert_eq!(whole(bytes, 10).unwrap().len(), 8_000);
    }

    #[test]
    fn a_file_longer_than_the_limit_is_refused_with_the_limit() {
        let refused = whole(wav(8_000, 1, 4), 3).unwrap_err();
        assert!(matches!(refused, FileError::LongerThan(3)), "{refused}");
    }

    #[test]
    fn what_is_no_audio_says_so() {
        for bytes in
            [&b""[..], b"hello, this is no audio at all", b"RIFF", b"OggSxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"]
        {
            let refused = whole(bytes.to_vec(), 10);
            assert!(refused.is_err() || refused.unwrap().is_empty(), "{bytes:?}");
        }
        assert!(whole(vec![0; 200_000], 10).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_behind_any_beginning_are_samples_or_an_error(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..4_000),
            beginning in proptest::sample::select(vec![
                &b""[..], b"RIFF\0\0\0\0WAVEfmt ", b"OggS", b"fLaC\0\0\0\x22", b"ID3\x03", b"\0\0\0\x18ftypM4A ",
                b"\x1a\x45\xdf\xa3", b"\xff\xf1\x50\x80", b"\xff\xfb\x90\x44",
            ]),
        ) {
            let _ = whole([beginning, &bytes].concat(), 60);
        }
    }
}
