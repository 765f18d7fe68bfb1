//! What Omi's documents hold at each level of data protection, in both directions. Source: pusher-and-processing 6.1.
//!
//! Every update must encode at the level the row has. Nonces are arguments and must never be used twice under one key.
//! Invariant: what cannot be decoded is an error that says why, never an empty list: it counts as content.

use std::fmt;
use std::io::{Read, Write};

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::conversation::Segment;

/// Shortest `ENCRYPTION_SECRET`, in bytes.
pub const SECRET_BYTES_MIN: usize = 32;
/// Longest transcript as JSON, in bytes: a compressed one that claims more is refused before it fills the memory. A document
/// holds 1 MiB at most, and speech compresses to a tenth at best.
pub const JSON_BYTES_MAX: u64 = 64 * 1024 * 1024;
const INFO: &[u8] = b"user-data-encryption";
const NONCE_BYTES: usize = 12;

/// `data_protection_level` of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// As it was before there were levels: the plain list.
    Legacy,
    /// Compressed.
    #[default]
    Standard,
    /// Compressed, then encrypted with a key of the user's own.
    Enhanced,
}

impl Level {
    /// `None` for a level that is not known, such as `e2ee`: what it holds cannot be read here.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "legacy" => Some(Self::Legacy),
            "standard" => Some(Self::Standard),
            "enhanced" => Some(Self::Enhanced),
            _ => None,
        }
    }

    /// Its name in a row.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Standard => "standard",
            Self::Enhanced => "enhanced",
        }
    }
}

/// Why something cannot be encoded or decoded. Never holds what was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtectionError {
    /// The secret is too short to derive keys from.
    #[error("ENCRYPTION_SECRET has {0} bytes; it needs {SECRET_BYTES_MIN} at least")]
    ShortSecret(usize),
    /// It is encrypted, or to be, and there is no key.
    #[error("it needs the user's key, and no ENCRYPTION_SECRET is set")]
    NoKey,
    /// It is not Base64.
    #[error("the encrypted text is not Base64")]
    Base64,
    /// Another key, another user, or damage.
    #[error("it does not decrypt: another secret, another user, or damage")]
    Decrypt,
    /// What was decrypted is not UTF-8 or not hexadecimal.
    #[error("what was decrypted is not the expected text")]
    Text,
    /// It is not one whole zlib stream.
    #[error("it is not one whole zlib stream")]
    Zlib,
    /// It would be larger than a transcript can be.
    #[error("it is larger than {JSON_BYTES_MAX} bytes")]
    TooLarge,
    /// It is not a list of segments.
    #[error("it is not a list of segments")]
    Json,
    /// Neither a list, a text nor bytes as the row's flag says.
    #[error("its form does not fit `transcript_segments_compressed`")]
    Form,
}

type Result<T> = std::result::Result<T, ProtectionError>;

/// One user's key. Wiped from memory when dropped; never shown.
pub struct UserKey(Aes256Gcm);

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserKey(…)")
    }
}

impl UserKey {
    /// Derives the key of `uid` from `ENCRYPTION_SECRET`.
    ///
    /// # Errors
    /// [`ProtectionError::ShortSecret`].
    pub fn derive(secret: &[u8], uid: &str) -> Result<Self> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(ProtectionError::ShortSecret(secret.len()));
        }
        let mut key = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(uid.as_bytes()), secret)
            .expand(INFO, &mut *key)
            .expect("32 bytes are within what HKDF gives");
        Ok(Self(Aes256Gcm::new((&*key).into())))
    }

    /// A text as Omi encrypts one; the empty text stays as it is.
    pub fn encrypt(&self, text: &str, nonce: [u8; NONCE_BYTES]) -> String {
        if text.is_empty() {
            return String::new();
        }
        let sealed = self.0.encrypt(&nonce.into(), Payload { msg: text.as_bytes(), aad: b"" });
        let mut whole = nonce.to_vec();
        whole.extend(sealed.expect("AES-GCM takes up to 64 GiB"));
        BASE64.encode(whole)
    }

    /// The text that [`Self::encrypt`] was given.
    ///
    /// # Errors
    /// For anything else, also for a plain text.
    pub fn decrypt(&self, stored: &str) -> Result<String> {
        if stored.is_empty() {
            return Ok(String::new());
        }
        let bytes = BASE64.decode(stored).map_err(|_| ProtectionError::Base64)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(ProtectionError::Decrypt)?;
        let plain = self.0.decrypt(nonce.into(), Payload { msg: sealed, aad: b"" });
        String::from_utf8(plain.map_err(|_| ProtectionError::Decrypt)?).map_err(|_| ProtectionError::Text)
    }
}

/// `transcript_segments` as a row holds it.
#[derive(Clone, Debug, PartialEq)]
pub enum StoredSegments {
    /// A list of maps.
    List(Vec<Segment>),
    /// A string.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl StoredSegments {
    /// The row's `transcript_segments_compressed` beside what [`encode_segments`] gave.
    pub fn is_compressed(&self) -> bool {
        !matches!(self, Self::List(_))
    }
}

/// Segments for a row of this level.
///
/// # Errors
/// [`ProtectionError::NoKey`] at `enhanced` without a key; [`ProtectionError::TooLarge`].
pub fn encode_segments(
    segments: &[Segment],
    level: Level,
    key: Option<&UserKey>,
    nonce: [u8; NONCE_BYTES],
) -> Result<StoredSegments> {
    match level {
        Level::Legacy => Ok(StoredSegments::List(segments.to_vec())),
        Level::Standard => compress(segments).map(StoredSegments::Bytes),
        Level::Enhanced => {
            let key = key.ok_or(ProtectionError::NoKey)?;
            Ok(StoredSegments::Text(key.encrypt(&hex::encode(compress(segments)?), nonce)))
        }
    }
}

/// The segments of a row. What they are is told by their form and the row's flag: rows of old were not always rewritten when
/// their level changed.
///
/// # Errors
/// Whatever cannot be decoded: it is content that must be kept, not an empty transcript.
pub fn decode_segments(
    stored: &StoredSegments,
    compressed: bool,
    key: Option<&UserKey>,
) -> Result<Vec<Segment>> {
    match (stored, compressed) {
        (StoredSegments::List(segments), false) => Ok(segments.clone()),
        (StoredSegments::Bytes(bytes), true) => parse(&decompress(bytes)?),
        // The empty text is nobody's transcript.
        (StoredSegments::Text(text), _) if text.is_empty() => Err(ProtectionError::Form),
        (StoredSegments::Text(text), false) => {
            parse(key.ok_or(ProtectionError::NoKey)?.decrypt(text)?.as_bytes())
        }
        (StoredSegments::Text(text), true) => {
            let hexadecimal = key.ok_or(ProtectionError::NoKey)?.decrypt(text)?;
            parse(&decompress(&hex::decode(hexadecimal).map_err(|_| ProtectionError::Text)?)?)
        }
        (StoredSegments::List(_), true) | (StoredSegments::Bytes(_), false) => Err(ProtectionError::Form),
    }
}

/// A photo's `base64` for a row of this level.
///
/// # Errors
/// [`ProtectionError::NoKey`] at `enhanced` without a key.
pub fn encode_photo(
    base64: &str,
    level: Level,
    key: Option<&UserKey>,
    nonce: [u8; NONCE_BYTES],
) -> Result<String> {
    match level {
        Level::Legacy | Level::Standard => Ok(base64.to_owned()),
        Level::Enhanced => Ok(key.ok_or(ProtectionError::NoKey)?.encrypt(base64, nonce)),
    }
}

/// A photo's `base64` of a row of this level.
///
/// # Errors
/// Whatever cannot be decoded.
pub fn decode_photo(stored: &str, level: Level, key: Option<&UserKey>) -> Result<String> {
    match level {
        Level::Legacy | Level::Standard => Ok(stored.to_owned()),
        Level::Enhanced => key.ok_or(ProtectionError::NoKey)?.decrypt(stored),
    }
}

fn compress(segments: &[Segment]) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(segments).map_err(|_| ProtectionError::Json)?;
    if json.len() as u64 > JSON_BYTES_MAX {
        return Err(ProtectionError::TooLarge);
    }
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    let written = encoder.write_all(&json).and_then(|()| encoder.finish());
    written.map_err(|_| ProtectionError::Zlib)
}

fn decompress(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut decoder = ZlibDecoder::new(bytes);
    let mut json = Vec::new();
    decoder.by_ref().take(JSON_BYTES_MAX + 1).read_to_end(&mut json).map_err(|_| ProtectionError::Zlib)?;
    if json.len() as u64 > JSON_BYTES_MAX {
        return Err(ProtectionError::TooLarge);
    }
    if decoder.total_in() != bytes.len() as u64 {
        return Err(ProtectionError::Zlib);
    }
    Ok(json)
}

fn parse(json: &[u8]) -> Result<Vec<Segment>> {
    serde_json::from_slice(json).map_err(|_| ProtectionError::Json)
}
