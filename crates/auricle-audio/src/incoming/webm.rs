//! WebM with Opus, as browsers record it: block by block, while it is being written.
//!
//! Elements are read one after the other whatever they stand in, since an identifier has one place only. So lengths of segments
//! and clusters need not be known, as they are not in a stream. Only the tracks and blocks of the one track that is heard are kept
//! until they are whole; all other elements are passed over as they come.
//! Source: RFC 9559 (Matroska) and the WebM container guidelines.

use super::ebml::{self, Head, children};
use super::{IncomingError, OPUS_RATE_HZ, decode_opus, opus_decoder};

/// What a stream begins with, and one that follows on it.
pub(super) const MAGIC: [u8; 4] = [0x1a, 0x45, 0xdf, 0xa3];

const EBML: u32 = u32::from_be_bytes(MAGIC);
const SEGMENT: u32 = 0x1853_8067;
const CLUSTER: u32 = 0x1f43_b675;
const BLOCK_GROUP: u32 = 0xa0;
const BLOCK: u32 = 0xa1;
const SIMPLE_BLOCK: u32 = 0xa3;
const TRACKS: u32 = 0x1654_ae6b;
const TRACK_ENTRY: u32 = 0xae;
const TRACK_NUMBER: u32 = 0xd7;
const TRACK_TYPE: u32 = 0x83;
const CODEC_ID: u32 = 0x86;
const CODEC_PRIVATE: u32 = 0x63a2;
const CODEC_DELAY: u32 = 0x56aa;
const CONTENT_ENCODINGS: u32 = 0x6d80;
const AUDIO: u32 = 0xe1;
const CHANNELS: u32 = 0x9f;

/// Bytes of the description of all tracks, and of a block that is heard: as much as an Ogg page. An Opus packet has 60 KiB at most.
const KEPT_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of an element that is passed over: a picture of a film, an index.
const PASSED_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Behind the track's number: a time and flags.
const BLOCK_HEAD_BYTES: usize = 3;
const LACING: u8 = 0b0000_0110;
/// `pre_skip` counts at this rate.
const SKIP_RATE_HZ: u64 = 48_000;

/// What is heard.
struct Track {
    number: u64,
    channels: u16,
    decoder: opus::Decoder,
    /// Samples of each channel still to be left out at the beginning.
    skip: usize,
}

/// Gathers elements and decodes the blocks of the first Opus track.
#[derive(Default)]
pub(super) struct WebM {
    /// Of an element that is not whole yet.
    bytes: Vec<u8>,
    /// Bytes of an element that is passed over, which are still to come.
    passing: u64,
    track: Option<Track>,
    /// Of the first recording. Those that follow on it are decoded to as many.
    channels: Option<u16>,
}

impl WebM {
    /// Known once the tracks have come.
    pub(super) fn channels(&self) -> Option<u16> {
        self.channels
    }

    pub(super) fn push(&mut self, piece: &[u8], out: &mut Vec<i16>) -> Result<(), IncomingError> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.extend_from_slice(piece);
        let mut rest = &bytes[..];
        while let Some(taken) = self.take(rest, out)? {
            rest = &rest[taken..];
        }
        let taken = bytes.len() - rest.len();
        bytes.drain(..taken);
        self.bytes = bytes;
        Ok(())
    }

    /// How many of `bytes` are done with; none if more must come first.
    fn take(&mut self, bytes: &[u8], out: &mut Vec<i16>) -> Result<Option<usize>, IncomingError> {
        if self.passing > 0 && !bytes.is_empty() {
            let passed = bytes.len().min(usize::try_from(self.passing).unwrap_or(usize::MAX));
            self.passing -= passed as u64;
            return Ok(Some(passed));
        }
        let Some(head) = ebml::head(bytes)? else { return Ok(None) };
        match head.id {
            SEGMENT | CLUSTER | BLOCK_GROUP => return Ok(Some(head.length)),
            // Another recording follows, with tracks of its own.
            EBML => self.track = None,
            TRACKS => {
                let Some((tracks, length)) = whole(bytes, head, "description of its tracks")? else {
                    return Ok(None);
                };
                let track = track(tracks, self.channels)?;
                self.channels = Some(track.channels);
                self.track = Some(track);
                return Ok(Some(length));
            }
            BLOCK | SIMPLE_BLOCK => {
                let Some(track) = &mut self.track else {
                    return Err(IncomingError::Damaged("a WebM block comes before the tracks"));
                };
                let Some((number, _)) = ebml::known_number(&bytes[head.length..])? else { return Ok(None) };
                if number == track.number {
                    let Some((block, length)) = whole(bytes, head, "block")? else { return Ok(None) };
                    track.block(block, out)?;
                    return Ok(Some(length));
                }
            }
            _ => {}
        }
        self.passing = bounded(head, "element", PASSED_BYTES_MAX)?;
        Ok(Some(head.length))
    }
}

/// An element's size, unless nobody knows it or it is more than `max`.
fn bounded(head: Head, what: &'static str, max: u64) -> Result<u64, IncomingError> {
    match head.size {
        Some(bytes) if bytes <= max => Ok(bytes),
        Some(bytes) => Err(IncomingError::TooLarge { what, bytes, max }),
        None => Err(IncomingError::Damaged("a WebM element that is no segment and no cluster has no size")),
    }
}

/// The body of the element, and the length with its head; none until all of it is there.
fn whole<'a>(
    bytes: &'a [u8],
    head: Head,
    what: &'static str,
) -> Result<Option<(&'a [u8], usize)>, IncomingError> {
    let end = head.length + bounded(head, what, KEPT_BYTES_MAX)? as usize;
    Ok(bytes.get(head.length..end).map(|body| (body, end)))
}

/// The first track with Opus, to be decoded to as many channels as `wanted`, or as it has.
fn track(tracks: &[u8], wanted: Option<u16>) -> Result<Track, IncomingError> {
    let mut other = None;
    for child in children(tracks) {
        let (TRACK_ENTRY, entry) = child? else { continue };
        let entry = Entry::read(entry)?;
        match entry.codec {
            b"A_OPUS" => return entry.track(wanted),
            codec if entry.is_audio => {
                other.get_or_insert_with(|| codec_name(codec));
            }
            _ => {}
        }
    }
    Err(IncomingError::Unsupported(match other {
        Some(codec) => {
            format!("this WebM stream is {codec}, not Opus; use audio/webm;codecs=opus, Ogg Opus or WAV")
        }
        None => "this WebM stream has no audio track; use audio/webm;codecs=opus".into(),
    }))
}

/// For a message: what somebody else wrote.
fn codec_name(codec: &[u8]) -> String {
    let plain = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'/' | b'-');
    codec.iter().take(32).take_while(plain).map(|byte| char::from(*byte)).collect()
}

/// What a track's description says.
#[derive(Default)]
struct Entry<'a> {
    number: u64,
    is_audio: bool,
    codec: &'a [u8],
    private: &'a [u8],
    delay_nanos: u64,
    channels: u64,
    is_encoded: bool,
}

impl<'a> Entry<'a> {
    fn read(body: &'a [u8]) -> Result<Self, IncomingError> {
        let mut entry = Self { channels: 1, ..Self::default() };
        for child in children(body) {
            let (id, body) = child?;
            match id {
                TRACK_NUMBER => entry.number = ebml::unsigned(body),
                TRACK_TYPE => entry.is_audio = ebml::unsigned(body) == 2,
                // It may be padded.
                CODEC_ID => entry.codec = body.split(|byte| *byte == 0).next().unwrap_or_default(),
                CODEC_PRIVATE => entry.private = body,
                CODEC_DELAY => entry.delay_nanos = ebml::unsigned(body),
                CONTENT_ENCODINGS => entry.is_encoded = true,
                AUDIO => {
                    for child in children(body) {
                        if let (CHANNELS, body) = child? {
                            entry.channels = ebml::unsigned(body);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(entry)
    }

    fn track(&self, wanted: Option<u16>) -> Result<Track, IncomingError> {
        if self.is_encoded {
            let text = "this WebM stream is compressed or encrypted beside its codec; use it without";
            return Err(IncomingError::Unsupported(text.into()));
        }
        // What the encoder itself says of its stream, if that is there.
        let head = self.private.strip_prefix(b"OpusHead");
        let channels = head.and_then(|head| head.get(1)).map_or(self.channels, |count| u64::from(*count));
        if !(1..=2).contains(&channels) {
            return Err(IncomingError::Unsupported(format!(
                "Opus of {channels} channels cannot be heard from WebM; use one or two"
            )));
        }
        let pre_skip =
            head.and_then(|head| head.get(2..4)).map(|two| u64::from(two[0]) | u64::from(two[1]) << 8);
        let rate_hz = u64::from(OPUS_RATE_HZ);
        let skip = match pre_skip {
            Some(samples) => samples * rate_hz / SKIP_RATE_HZ,
            // No more than the other can say.
            None => (u128::from(self.delay_nanos) * u128::from(rate_hz) / 1_000_000_000)
                .min(u128::from(u64::from(u16::MAX) * rate_hz / SKIP_RATE_HZ)) as u64,
        };
        let channels = wanted.unwrap_or(channels as u16);
        Ok(Track { number: self.number, channels, decoder: opus_decoder(channels)?, skip: skip as usize })
    }
}

impl Track {
    /// A block is a packet behind the track's number, a time and flags.
    fn block(&mut self, block: &[u8], out: &mut Vec<i16>) -> Result<(), IncomingError> {
        let short = IncomingError::Damaged("a WebM block is shorter than its head");
        let Some((_, length)) = ebml::known_number(block)? else { return Err(short) };
        let Some(flags) = block.get(length + BLOCK_HEAD_BYTES - 1) else { return Err(short) };
        if flags & LACING != 0 {
            let text = "this WebM stream has several packets in a block (lacing); write it without, as browsers and ffmpeg do";
            return Err(IncomingError::Unsupported(text.into()));
        }
        let before = out.len();
        decode_opus(&mut self.decoder, self.channels, &block[length + BLOCK_HEAD_BYTES..], out);
        let width = usize::from(self.channels);
        let skipped = self.skip.min((out.len() - before) / width);
        out.drain(before..before + skipped * width);
        self.skip -= skipped;
        Ok(())
    }
}
