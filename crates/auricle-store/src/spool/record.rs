//! The bytes of a chunk file and of a header.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0 | kind: 0 frame, 1 position, 2 covered, 0x83 sealed |
//! | 1..4 | payload length, little-endian |
//! | 4..8 | frame: its decoded length in samples, little-endian; else 0 |
//! | 8..12 | CRC-32 of bytes 0..8 and the payload |
//! | 12.. | payload: a frame as received, or a sample position (`u64`, little-endian); sealed: the key's id (8 hexadecimal digits), then what `protect` made of the records of one flush |
//!
//! Each flush begins with a position, so that audio that was not spooled leaves a hole and moves nothing.
//! A flush is sealed whole rather than frame by frame: the lengths of frames, too, tell what was said.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;

use auricle_core::{Source, UnixMicros, UserId};
use serde::{Deserialize, Serialize};

use super::RunHeader;
use crate::protect::{KeyId, Keyring, OVERHEAD_BYTES, Place, Sealer};

const PREFIX: usize = 12;
/// What the length field holds.
pub(super) const PAYLOAD_MAX: usize = (1 << 24) - 1;
const FRAME: u8 = 0;
const POSITION: u8 = 1;
const COVERED: u8 = 2;
const SEALED: u8 = 0x83;
const KEY_BYTES: usize = 8;
/// What a sealed record adds to the records in it.
pub(super) const SEALED_BYTES: usize = PREFIX + KEY_BYTES + OVERHEAD_BYTES;

const MAGIC: &[u8; 8] = b"AURSPOOL";
const VERSION: u8 = 1;
/// A header of which only the user and the key can be read without the key.
const SEALED_VERSION: u8 = 2;

/// One record as read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    Frame {
        samples: u32,
        payload: &'a [u8],
    },
    Position(u64),
    Covered(u64),
    /// Records that only this key opens.
    Sealed {
        key: KeyId,
        sealed: &'a [u8],
    },
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

/// `None` for more than one record holds.
pub(super) fn put_sealed(buffer: &mut Vec<u8>, key: KeyId, sealed: &[u8]) -> Option<()> {
    let mut payload = Vec::with_capacity(KEY_BYTES + sealed.len());
    payload.extend_from_slice(key.to_string().as_bytes());
    payload.extend_from_slice(sealed);
    (payload.len() <= PAYLOAD_MAX).then(|| put(buffer, SEALED, 0, &payload))
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
        SEALED => {
            let (key, sealed) = payload.split_at_checked(KEY_BYTES)?;
            Record::Sealed { key: KeyId::parse(std::str::from_utf8(key).ok()?)?, sealed }
        }
        _ => return None,
    };
    Some((record, PREFIX + length))
}

/// Under which key a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Under {
    /// It holds nothing that is sealed or could be, or is damaged.
    Nothing,
    Plain,
    Key(KeyId),
}

/// What the beginning of a chunk tells. One process writes a chunk, under one key.
pub(crate) fn chunk_under(mut head: &[u8]) -> Under {
    while let Some((prefix, rest)) = head.split_at_checked(PREFIX) {
        let length = u32::from_le_bytes([prefix[1], prefix[2], prefix[3], 0]) as usize;
        match prefix[0] {
            COVERED => head = rest.get(length..).unwrap_or_default(),
            FRAME | POSITION => return Under::Plain,
            SEALED => {
                let key = rest.get(..KEY_BYTES).and_then(|key| std::str::from_utf8(key).ok());
                return key.and_then(KeyId::parse).map_or(Under::Nothing, Under::Key);
            }
            _ => return Under::Nothing,
        }
    }
    Under::Nothing
}

/// What a header tells.
pub(crate) fn header_under(bytes: &[u8]) -> Under {
    let Some((version, rest)) = bytes.strip_prefix(MAGIC).and_then(<[u8]>::split_first) else {
        return Under::Nothing;
    };
    match *version {
        VERSION => Under::Plain,
        SEALED_VERSION => {
            let json = rest.get(4..).and_then(|json| serde_json::from_slice::<SealedHeaderJson>(json).ok());
            json.and_then(|json| KeyId::parse(&json.key)).map_or(Under::Nothing, Under::Key)
        }
        _ => Under::Nothing,
    }
}

/// Plain records that are sealed as one, at most; a little more if the last is long.
const GROUP_BYTES: usize = 32 * 1024;

/// The same records under the present key, or plain without one; and whether all of them are: what does not open stays as it is.
pub(super) fn resealed(bytes: &[u8], sealer: &Sealer, target: Option<KeyId>, run: &str) -> (Vec<u8>, bool) {
    let place = [run];
    let place = || Place::new("spool", "record", &place);
    let mut anew = Vec::with_capacity(bytes.len() + bytes.len() / 16);
    let put_group = |anew: &mut Vec<u8>, group: &[u8]| {
        let sealed = if group.is_empty() { None } else { sealer.seal_audio(place(), group) };
        match sealed {
            Some((key, sealed)) => put_sealed(anew, key, &sealed).is_some(),
            None => {
                anew.extend_from_slice(group);
                true
            }
        }
    };
    let (mut group, mut position, mut is_whole, mut rest) = (Vec::new(), 0_u64, true, bytes);
    while let Some((record, length)) = take(rest) {
        let raw = &rest[..length];
        rest = &rest[length..];
        match record {
            Record::Position(at) => {
                position = at;
                group.extend_from_slice(raw);
            }
            Record::Frame { samples, .. } => {
                if group.len() >= GROUP_BYTES {
                    is_whole &= put_group(&mut anew, &group);
                    group.clear();
                }
                if group.is_empty() {
                    put_position(&mut group, position);
                }
                group.extend_from_slice(raw);
                position += u64::from(samples);
            }
            Record::Covered(_) | Record::Sealed { .. } => {
                is_whole &= put_group(&mut anew, &group);
                group.clear();
                let opened = match record {
                    Record::Sealed { key, sealed } if Some(key) != target => {
                        let opened = sealer.open_audio(place(), key, sealed);
                        is_whole &= opened.is_some();
                        opened
                    }
                    _ => None,
                };
                match opened {
                    Some(records) => is_whole &= put_group(&mut anew, &records),
                    None => anew.extend_from_slice(raw),
                }
            }
        }
    }
    is_whole &= put_group(&mut anew, &group);
    anew.extend_from_slice(rest);
    (anew, is_whole)
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

/// A sealed header: whose it is, under which key, and the rest.
#[derive(Serialize, Deserialize)]
struct SealedHeaderJson {
    user: String,
    key: String,
    /// Base64 of the sealed JSON of a plain header.
    sealed: String,
}

/// A header file: magic, version, CRC-32 of the rest, JSON. `name`: the run's folder, for which alone it is sealed.
pub(super) fn header_bytes(header: &RunHeader, name: &str, sealer: &Sealer) -> Vec<u8> {
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
    let (version, json) = match sealer.seal_audio(Place::new("spool", "header", &[name]), &json) {
        None => (VERSION, json),
        Some((key, sealed)) => {
            let sealed = SealedHeaderJson {
                user: header.user.as_str().into(),
                key: key.to_string(),
                sealed: BASE64.encode(sealed),
            };
            (SEALED_VERSION, serde_json::to_vec(&sealed).expect("a struct of texts is expressible as JSON"))
        }
    };
    let mut bytes = Vec::with_capacity(MAGIC.len() + 5 + json.len());
    bytes.extend_from_slice(MAGIC);
    bytes.push(version);
    bytes.extend_from_slice(&crc32fast::hash(&json).to_le_bytes());
    bytes.extend_from_slice(&json);
    bytes
}

/// What a header file holds.
pub(super) enum Header {
    Known(RunHeader),
    /// Only a key that is not there opens it.
    Locked(KeyId),
}

/// `None` if it is damaged or of an unknown version.
pub(super) fn header_value(bytes: &[u8], name: &str, ring: &Keyring) -> Option<Header> {
    let (version, rest) = bytes.strip_prefix(MAGIC)?.split_first()?;
    let (stored, json) = rest.split_at_checked(4)?;
    if crc32fast::hash(json).to_le_bytes() != stored {
        return None;
    }
    if *version == VERSION {
        return plain_header(json).map(Header::Known);
    }
    if *version != SEALED_VERSION {
        return None;
    }
    let json: SealedHeaderJson = serde_json::from_slice(json).ok()?;
    let key = KeyId::parse(&json.key)?;
    if !ring.known().contains(&key) {
        return Some(Header::Locked(key));
    }
    let sealed = BASE64.decode(json.sealed).ok()?;
    let opened =
        ring.of(&json.user.into()).open_audio(Place::new("spool", "header", &[name]), key, &sealed)?;
    plain_header(&opened).map(Header::Known)
}

/// Whose run it is, which is told without any key. `None` if the header is damaged.
pub(super) fn header_user(bytes: &[u8]) -> Option<UserId> {
    #[derive(Deserialize)]
    struct UserJson {
        user: String,
    }
    let (_, rest) = bytes.strip_prefix(MAGIC)?.split_first()?;
    let (_, json) = rest.split_at_checked(4)?;
    Some(serde_json::from_slice::<UserJson>(json).ok()?.user.into())
}

fn plain_header(json: &[u8]) -> Option<RunHeader> {
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
