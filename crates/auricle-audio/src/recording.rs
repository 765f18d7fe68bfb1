//! Recordings that devices made offline: frames, each with its length (`u32`, little-endian) before it, in a file whose name says
//! what they are: `audio_{device}_{codec}_{rate}_{channels}_fs{samples}_{unix time}.bin`. Source: Omi's `sync-local-files`.

use std::io::{BufReader, ErrorKind, Read};

use crate::file::{FileError, FileReader, Source};
use crate::{Codec, Decoder};

/// Longest frame; more is no frame. Source: Omi's reader.
const FRAME_BYTES_MAX: u32 = 65_536;
/// Frames read at once.
const FRAMES_AT_ONCE: usize = 50;
/// Times above this are milliseconds. Source: Omi's reader.
const SECONDS_MAX: i64 = 10_000_000_000;

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An ordinary audio file, which says itself what it is.
    File,
    /// Frames of a device.
    Frames {
        /// How each is encoded.
        codec: Codec,
        /// Of the samples to be made.
        rate_hz: u32,
    },
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File => f.write_str("file"),
            Self::Frames { codec, rate_hz } => write!(f, "frames:{}:{rate_hz}", codec.as_str()),
        }
    }
}

impl Form {
    /// What [`std::fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "file" {
            return Some(Self::File);
        }
        let (codec, rate_hz) = text.strip_prefix("frames:")?.split_once(':')?;
        Some(Self::Frames { codec: codec.parse().ok()?, rate_hz: rate_hz.parse().ok()? })
    }
}

/// What a file's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// What is in it.
    pub form: Form,
    /// Seconds since 1970-01-01 UTC.
    pub recorded_at: i64,
    /// Whether a Limitless pendant made it.
    pub limitless: bool,
}

/// A name that is not of the form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Another ending.
    #[error("its name does not end with .bin")]
    Ending,
    /// No time.
    #[error(
        "its name does not end with the time of recording, as audio_omi_opus_16000_1_fs160_1767225600.bin does"
    )]
    Time,
    /// A rate that the codec has not.
    #[error("its name claims {0} Hz; use 8000 to 48000")]
    Rate(u32),
}

/// Reads a name. Unknown codecs are Opus, as in Omi.
///
/// # Errors
/// It has no time, or is none of these files' names.
pub fn named(name: &str) -> Result<Named, NameError> {
    let stem = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let stem = stem.strip_suffix(".bin").ok_or(NameError::Ending)?;
    let (_, time) = stem.rsplit_once('_').ok_or(NameError::Time)?;
    let time: i64 = time.parse().ok().filter(|time| *time > 0).ok_or(NameError::Time)?;
    let parts: Vec<&str> = stem.split('_').collect();
    let at = |names: &[&str]| parts.iter().position(|part| names.contains(part));
    let number_behind = |index: usize| {
        parts[index + 1..].iter().find_map(|part| part.parse::<u32>().ok()).filter(|rate| *rate < 1_000_000)
    };
    let (codec, usual_hz) = match () {
        () if at(&["pcm16"]).is_some() => (Codec::Pcm16, 16_000),
        () if at(&["pcm8"]).is_some() => (Codec::Pcm8, 8_000),
        () if at(&["aac"]).is_some() => (Codec::Aac, 16_000),
        () if at(&["lc3"]).is_some() => (Codec::Lc3Fs1030, 16_000),
        () if at(&["fs320"]).is_some() => (Codec::OpusFs320, 16_000),
        () => (Codec::Opus, 16_000),
    };
    let rate_hz = match at(&["pcm16", "pcm8"]).and_then(number_behind) {
        Some(rate_hz) if (8_000..=48_000).contains(&rate_hz) => rate_hz,
        Some(rate_hz) if i64::from(rate_hz) != time => return Err(NameError::Rate(rate_hz)),
        _ => usual_hz,
    };
    Ok(Named {
        form: Form::Frames { codec, rate_hz },
        recorded_at: if time > SECONDS_MAX { time / 1_000 } else { time },
        limitless: stem.to_ascii_lowercase().contains("limitless"),
    })
}

/// Reads a recording of any form a little at a time, as mono PCM.
#[derive(Debug)]
pub enum Recording {
    /// An ordinary audio file.
    File(Box<FileReader>),
    /// Frames of a device.
    Frames(Box<FrameReader>),
}

impl Recording {
    /// `rate_hz`: of an ordinary file's PCM; frames have their own. At most `secs_max` seconds.
    ///
    /// # Errors
    /// It is not what its form says.
    pub fn open(form: Form, source: impl Source, rate_hz: u32, secs_max: u32) -> Result<Self, FileError> {
        Ok(match form {
            Form::File => Self::File(Box::new(FileReader::open(source, rate_hz, secs_max)?)),
            Form::Frames { codec, rate_hz } => {
                Self::Frames(Box::new(FrameReader::open(source, codec, rate_hz, secs_max)?))
            }
        })
    }

    /// Appends the next stretch, a second at most, to `out`. False at the end.
    ///
    /// # Errors
    /// The rest cannot be read. What was given before is good.
    pub fn read(&mut self, out: &mut Vec<i16>) -> Result<bool, FileError> {
        match self {
            Self::File(file) => file.read(out),
            Self::Frames(frames) => frames.read(out),
        }
    }
}

/// Reads frames with their lengths before them.
pub struct FrameReader {
    source: BufReader<Box<dyn Source>>,
    decoder: Decoder,
    samples_max: u64,
    secs_max: u32,
    /// Bytes read.
    at: u64,
    frames: u64,
    damaged: u64,
    given: u64,
    frame: Vec<u8>,
}

impl std::fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameReader")
            .field("at", &self.at)
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}

impl FrameReader {
    fn open(source: impl Source, codec: Codec, rate_hz: u32, secs_max: u32) -> Result<Self, FileError> {
        let decoder =
            Decoder::new(codec, rate_hz, 1).map_err(|error| FileError::Unsupported(error.to_string()))?;
        Ok(Self {
            source: BufReader::new(Box::new(source)),
            decoder,
            samples_max: u64::from(rate_hz) * u64::from(secs_max),
            secs_max,
            at: 0,
            frames: 0,
            damaged: 0,
            given: 0,
            frame: Vec::new(),
        })
    }

    fn read(&mut self, out: &mut Vec<i16>) -> Result<bool, FileError> {
        let before = out.len();
        for _ in 0..FRAMES_AT_ONCE {
            if !self.next_frame()? {
                return self.end(out.len() > before);
            }
            self.frames += 1;
            // A frame that does not decode is a gap of a frame, as when it came live.
            if self.decoder.decode(&self.frame, out).is_err() {
                self.damaged += 1;
            }
        }
        self.given += (out.len() - before) as u64;
        if self.given > self.samples_max {
            return Err(FileError::LongerThan(self.secs_max));
        }
        Ok(true)
    }

    fn end(&self, more: bool) -> Result<bool, FileError> {
        match () {
            () if self.frames == 0 => Err(FileError::Damaged("it holds no frame".into())),
            () if self.frames == self.damaged => {
                Err(FileError::Damaged(format!("none of its {} frames decodes", self.frames)))
            }
            () => Ok(more),
        }
    }

    /// Reads the next frame. False at the end; a last frame that is cut off is left out, as a device that lost power left it.
    fn next_frame(&mut self) -> Result<bool, FileError> {
        let mut length = [0; 4];
        if !self.fill(&mut length)? {
            return Ok(false);
        }
        let length = u32::from_le_bytes(length);
        if length > FRAME_BYTES_MAX {
            return Err(FileError::Damaged(format!(
                "frame {} at byte {} claims {length} bytes; {FRAME_BYTES_MAX} is the most",
                self.frames + 1,
                self.at
            )));
        }
        let mut frame = std::mem::take(&mut self.frame);
        frame.resize(length as usize, 0);
        let whole = self.fill(&mut frame);
        self.frame = frame;
        self.at += 4 + u64::from(length);
        whole
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<bool, FileError> {
        match self.source.read_exact(bytes) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::Encoder;

    fn recording(frames: &[Vec<u8>]) -> Vec<u8> {
        frames.iter().flat_map(|f| [&(f.len() as u32).to_le_bytes()[..], f].concat()).collect()
    }

    fn opus() -> Vec<Vec<u8>> {
        Encoder::new(Codec::OpusFs320, 16_000).unwrap().encode_all(&vec![100; 32_000]).unwrap()
    }

    fn read(form: Form, bytes: Vec<u8>, secs_max: u32) -> Result<usize, FileError> {
        let mut reader = Recording::open(form, Cursor::new(bytes), 16_000, secs_max)?;
        let mut out = Vec::new();
        while reader.read(&mut out)? {}
        Ok(out.len())
    }

    #[test]
    fn names_say_what_is_in_a_file_and_when_it_was_recorded() {
        let form = |codec, rate_hz| Form::Frames { codec, rate_hz };
        for (name, of, at) in [
            ("audio_omi_opus_16000_1_fs160_1767225600.bin", form(Codec::Opus, 16_000), 1_767_225_600),
            (
                "audio_omi_opus_fs320_16000_1_fs320_1767225600123.bin",
                form(Codec::OpusFs320, 16_000),
                1_767_225_600,
            ),
            ("audio_phone_pcm16_44100_1_fs160_1767225600.bin", form(Codec::Pcm16, 44_100), 1_767_225_600),
            ("a/b/audio_x_pcm8_8000_1_fs80_1767225600.bin", form(Codec::Pcm8, 8_000), 1_767_225_600),
            ("recording_1767225600.bin", form(Codec::Opus, 16_000), 1_767_225_600),
        ] {
            let found = named(name).unwrap();
            assert_eq!((found.form, found.recorded_at), (of, at), "{name}");
            assert_eq!(Form::parse(&of.to_string()), Some(of));
        }
        assert!(named("audio_limitless_opus_16000_1_fs320_1767225600.bin").unwrap().limitless);
        for name in ["", "x.wav", "1767225600.bin", "audio_soon.bin", "audio_-5.bin", "_.bin"] {
            assert!(named(name).is_err(), "{name}");
        }
        assert_eq!(named("a_pcm16_999999_1_fs1_1767225600.bin"), Err(NameError::Rate(999_999)));
        assert_eq!(Form::parse("file"), Some(Form::File));
        assert_eq!(Form::parse("frames:mp3:1"), None);
    }

    #[test]
    fn frames_become_samples_and_a_cut_off_end_is_left_out() {
        let form = Form::Frames { codec: Codec::OpusFs320, rate_hz: 16_000 };
        let bytes = recording(&opus());
        assert_eq!(read(form, bytes.clone(), 10).unwrap(), 32_000);
        assert_eq!(read(form, bytes[..bytes.len() - 3].to_vec(), 10).unwrap(), 32_000 - 320);
        assert!(matches!(read(form, bytes, 1), Err(FileError::LongerThan(1))));
    }

    #[test]
    fn damage_is_told_with_its_place() {
        let form = Form::Frames { codec: Codec::OpusFs320, rate_hz: 16_000 };
        let mut bytes = recording(&opus()[..3]);
        let at = bytes.len();
        bytes.extend(70_000_u32.to_le_bytes());
        let text = read(form, bytes, 10).unwrap_err().to_string();
        assert!(
            text.contains("frame 4") && text.contains(&format!("byte {at}")) && text.contains("70000"),
            "{text}"
        );
        assert!(read(form, Vec::new(), 10).unwrap_err().to_string().contains("no frame"));
        let nonsense = recording(&vec![vec![0xff; 5]; 9]);
        assert!(read(form, nonsense, 10).unwrap_err().to_string().contains("none of its 9 frames"));
    }
}
