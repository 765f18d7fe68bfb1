//! The bytes of a chunk file and of a header.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0 | kind: 0 frame, 1 position, 2 covered; the high bit is reserved for sealed (encrypted) payloads |
//! | 1..4 | payload length, little-endian |
//! | 4..8 | frame: its decoded length in samples, little-endian; else 0 |
//! | 8..12 | CRC-32 of bytes 0..8 and the payload |
//! | 12.. | payload: a frame as received, or a sample position (`u64`, little-endian) |
//!
//! Each flush begins with a position, so that audio that was not spooled leaves a hole and moves nothing.

use auricle_core::{Source, UnixMicros};
use serde::{Deserialize, Serialize};

use super::RunHeader;

const PREFIX: usize = 12;
/// What the length field holds.
pub(super) const PAYLOAD_MAX: usize = (1 << 24) - 1;
const FRAME: u8 = 0;
const POSITION: u8 = 1;
const COVERED: u8 = 2;

const MAGIC: &[u8; 8] = b"AURSPOOL";
const VERSION: u8 = 1;

/// One record as read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    Frame { samples: u32, payload: &'a [u8] },
    Position(u64),
    Covered(u64),
}

pub(super) fn put_frame(buffer: &mut Vec<u8>, samples: u32, payload: &[u8]) {
    put(buffer, FRAME, samples, payload);
}

pub(super) fn put_position(buffer: &mut Vec<u8>, sample: u64) {
    put(buffer, POSITION, 0, &sample.to_le_bytes());
}

pub(super) fn put_covered(buffer: &mut Vec<u8>, sample: u64) {
    put(buffer, COVERED, 0, &sample.to_le_bytes());
}

fn put(buffer: &mut Vec<u8>, kind: u8, samples: u32, payload: &[u8]) {
    let length = (payload.len() as u32).to_le_bytes();
    let [a, b, c, d] = samples.to_le_bytes();
    let prefix = [kind, length[0], length[1], length[2], a, b, c, d];
    buffer.extend_from_slice(&prefix);
    buffer.extend_from_slice(&checksum(&prefix, payload).to_le_bytes());
    buffer.extend_from_slice(payload);
}

fn checksum(prefix: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(prefix);
    hasher.update(payload);
    hasher.finalize()
}

/// The first record and how many bytes it takes; `None` at a torn or damaged one, and at the end.
pub(super) fn take(bytes: &[u8]) -> Option<(Record<'_>, usize)> {
    let (prefix, rest) = bytes.split_at_checked(8)?;
    let (stored, rest) = rest.split_at_checked(4)?;
    let length = u32::from_le_bytes([prefix[1], prefix[2], prefix[3], 0]) as usize;
    let payload = rest.get(..length)?;
    if checksum(prefix, payload).to_le_bytes() != stored {
        return None;
    }
    let position = || payload.try_into().map(u64::from_le_bytes).ok();
    let record = match prefix[0] {
        FRAME => {
            let samples = u32::from_le_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]);
            Record::Frame { samples, payload }
        }
        POSITION => Record::Position(position()?),
        COVERED => Record::Covered(position()?),
        _ => return None,
    };
    Some((record, PREFIX + length))
}

#[derive(Serialize, Deserialize)]
struct HeaderJson {
    run: String,
    user: String,
    conversation: String,
    process: String,
    codec: String,
    sample_rate_hz: u32,
    channels: u16,
    language: Option<String>,
    source: String,
    role: Option<String>,
    first_audio_at: i64,
}

/// A header file: magic, version, CRC-32 of the rest, JSON.
pub(super) fn header_bytes(header: &RunHeader) -> Vec<u8> {
    let json = serde_json::to_vec(&HeaderJson {
        run: header.run.clone(),
        user: header.user.as_str().into(),
        conversation: header.conversation.as_str().into(),
        process: header.process.as_str().into(),
        codec: header.codec.clone(),
        sample_rate_hz: header.sample_rate_hz,
        channels: header.channels,
        language: header.language.clone(),
        source: header.source.as_str().into(),
        role: header.role.clone(),
        first_audio_at: header.first_audio_at.0,
    })
    .expect("a struct of texts and numbers is always expressible as JSON");
    let mut bytes = Vec::with_capacity(MAGIC.len() + 5 + json.len());
    bytes.extend_from_slice(MAGIC);
    bytes.push(VERSION);
    bytes.extend_from_slice(&crc32fast::hash(&json).to_le_bytes());
    bytes.extend_from_slice(&json);
    bytes
}

/// `None` if it is damaged or of an unknown version.
pub(super) fn header_value(bytes: &[u8]) -> Option<RunHeader> {
    let rest = bytes.strip_prefix(MAGIC)?.strip_prefix(&[VERSION])?;
    let (stored, json) = rest.split_at_checked(4)?;
    if crc32fast::hash(json).to_le_bytes() != stored {
        return None;
    }
    let json: HeaderJson = serde_json::from_slice(json).ok()?;
    Some(RunHeader {
        run: json.run,
        user: json.user.into(),
        conversation: json.conversation.into(),
        process: json.process.into(),
        codec: json.codec,
        sample_rate_hz: json.sample_rate_hz,
        channels: json.channels,
        language: json.language,
        source: Source::parse(&json.source)?,
        role: json.role,
        first_audio_at: UnixMicros(json.first_audio_at),
    })
}
