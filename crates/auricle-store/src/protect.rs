//! Sealing: what people said is stored so that only a holder of the key can read it.
//!
//! Each user has keys of their own, derived from the root key (HKDF-SHA256, the user's id as salt), so that nothing sealed
//! for one opens for another. A sealed text names its format and its root key, so that plain and sealed values, and values
//! of several keys, live side by side; it opens only in the row and column it was sealed for. Without a key every text is
//! stored as it is. Nonces are random, 96 bits, from the system's generator.
//! Leaves to others: which columns are sealed (`sqlite`), and what of the spool (`spool`).
//! Invariant: what does not open is an error, never empty text.

mod keyfile;
pub(crate) mod words;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use auricle_core::UserId;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use rand::Rng as _;
use sha2::Sha256;
use zeroize::Zeroizing;

pub use keyfile::KeyError;

use crate::store::{Result, StoreError};

/// What every value of ours begins with: a control character, so that no transcript does by chance.
const MARK: &str = "\u{1}seal";
/// A sealed text: this, the key's id, a colon, Base64 of nonce, ciphertext and tag.
const SEALED: &str = "\u{1}seal1:";
/// A plain text that happens to begin with [`MARK`]: this, then the text.
const ESCAPED: &str = "\u{1}seal0:";
/// Characters of a sealed text up to and with the key's id.
pub(crate) const HEAD_CHARS: usize = SEALED.len() + 8;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// What sealing adds to bytes.
pub(crate) const OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// A root key's name: derived from it, says nothing about it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 4]);

impl KeyId {
    /// Eight lower-case hexadecimal digits, as [`fmt::Display`] writes them.
    pub fn parse(text: &str) -> Option<Self> {
        let mut id = [0; 4];
        hex::decode_to_slice(text, &mut id).ok()?;
        // One spelling for one key.
        Some(Self(id)).filter(|id| id.to_string() == text)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// 32 random bytes from which everything else is derived. Wiped from memory when dropped; never shown.
pub struct RootKey {
    id: KeyId,
    bytes: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootKey({})", self.id)
    }
}

fn expand(hkdf: &Hkdf<Sha256>, info: &str, out: &mut [u8]) {
    hkdf.expand(info.as_bytes(), out).expect("32 bytes are within what HKDF gives");
}

impl RootKey {
    fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        let mut id = [0; 4];
        expand(&Hkdf::new(None, &*bytes), "auricle/key-id/v1", &mut id);
        Self { id: KeyId(id), bytes }
    }

    /// Its name.
    pub fn id(&self) -> KeyId {
        self.id
    }

    fn of(&self, user: &str) -> UserKeys {
        let hkdf = Hkdf::<Sha256>::new(Some(user.as_bytes()), &*self.bytes);
        let mut key = Zeroizing::new([0; 32]);
        let mut derived = |info| {
            expand(&hkdf, info, &mut *key);
            key.clone()
        };
        let (text, audio, search) =
            (derived("auricle/text/v1"), derived("auricle/audio/v1"), derived("auricle/search/v1"));
        UserKeys {
            id: self.id,
            text: Aes256Gcm::new((&*text).into()),
            audio: Aes256Gcm::new((&*audio).into()),
            search: Hmac::new_from_slice(&*search).expect("HMAC takes a key of any length"),
        }
    }
}

/// One user's keys under one root key.
struct UserKeys {
    id: KeyId,
    text: Aes256Gcm,
    audio: Aes256Gcm,
    search: Hmac<Sha256>,
}

impl UserKeys {
    fn blind(&self, word: &str) -> String {
        let mut mac = self.search.clone();
        mac.update(word.as_bytes());
        let mut bits = [0; 8];
        bits[2..].copy_from_slice(&mac.finalize().into_bytes()[..6]);
        format!("z{}", u64::from_be_bytes(bits))
    }
}

#[derive(Default)]
struct Ring {
    current: Option<RootKey>,
    old: Vec<RootKey>,
}

/// The keys of this process: the current one seals, all of them open. Cloning is cheap.
#[derive(Clone, Default)]
pub struct Keyring(Arc<Ring>);

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("current", &self.current()).field("known", &self.known()).finish()
    }
}

impl Keyring {
    /// `current` seals from now on (`None`: nothing is sealed any more); `old` ones only open what they sealed.
    pub fn new(current: Option<RootKey>, old: Vec<RootKey>) -> Self {
        Self(Arc::new(Ring { current, old }))
    }

    /// The key that seals.
    pub fn current(&self) -> Option<KeyId> {
        self.0.current.as_ref().map(RootKey::id)
    }

    /// Every key that opens.
    pub fn known(&self) -> Vec<KeyId> {
        self.0.current.iter().chain(&self.0.old).map(RootKey::id).collect()
    }

    /// Whether there is any key.
    pub fn is_empty(&self) -> bool {
        self.0.current.is_none() && self.0.old.is_empty()
    }

    /// What seals and opens for one user.
    pub(crate) fn of(&self, user: &UserId) -> Sealer {
        let current = self.0.current.as_ref().map(|key| key.of(user.as_str()));
        Sealer { ring: self.clone(), user: user.clone(), current }
    }
}

/// Where a value stands: a sealed one opens nowhere else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) table: &'a str,
    pub(crate) column: &'a str,
    /// The row's public identity, e.g. its conversation's id and its own.
    pub(crate) row: &'a [&'a str],
}

impl<'a> Place<'a> {
    pub(crate) fn new(table: &'a str, column: &'a str, row: &'a [&'a str]) -> Self {
        Self { table, column, row }
    }

    /// Unambiguous: each part with its length before it.
    fn bound_to(&self, key: KeyId) -> Vec<u8> {
        let mut bytes = b"auricle/1".to_vec();
        bytes.extend_from_slice(&key.0);
        for part in [self.table, self.column].iter().chain(self.row) {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

/// Seals and opens for one user.
pub(crate) struct Sealer {
    ring: Keyring,
    user: UserId,
    current: Option<UserKeys>,
}

impl Sealer {
    /// Whether new values are sealed.
    pub(crate) fn is_on(&self) -> bool {
        self.current.is_some()
    }

    /// The text as it is to be stored at `place`: sealed, or as it is where there is no key.
    pub(crate) fn seal<'t>(&self, place: Place<'_>, text: &'t str) -> Cow<'t, str> {
        match &self.current {
            Some(keys) => {
                let sealed = encrypt(&keys.text, &place.bound_to(keys.id), text.as_bytes());
                let mut stored = format!("{SEALED}{}:", keys.id);
                BASE64.encode_string(sealed, &mut stored);
                stored.into()
            }
            None if text.starts_with(MARK) => format!("{ESCAPED}{text}").into(),
            None => text.into(),
        }
    }

    /// The text that is stored at `place`.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if its key is not there, or it is not what was sealed there.
    pub(crate) fn open(&self, place: Place<'_>, stored: String) -> Result<String> {
        if !stored.starts_with(MARK) {
            return Ok(stored);
        }
        if let Some(plain) = stored.strip_prefix(ESCAPED) {
            return Ok(plain.to_owned());
        }
        let unreadable = |why: &str| {
            StoreError::Damaged(format!(
                "{} in a row of {} cannot be opened: {why}",
                place.column, place.table
            ))
        };
        let Some((id, sealed)) = stored.strip_prefix(SEALED).and_then(|rest| rest.split_once(':')) else {
            return Err(unreadable("its form is of a newer version or damaged"));
        };
        let id = KeyId::parse(id).ok_or_else(|| unreadable("its form is damaged"))?;
        let sealed = BASE64.decode(sealed).map_err(|_| unreadable("its form is damaged"))?;
        let bytes = self.with(id, |keys| decrypt(&keys.text, &place.bound_to(id), &sealed));
        let bytes = bytes.ok_or_else(|| unreadable(&missing(id)))?;
        let bytes = bytes.ok_or_else(|| unreadable("it is not what was sealed there"))?;
        String::from_utf8(bytes).map_err(|_| unreadable("it is not text"))
    }

    /// Whether a stored text is as [`Self::seal`] would store it now.
    pub(crate) fn is_current(&self, stored: &str) -> bool {
        key_of(stored) == self.current.as_ref().map(|keys| keys.id)
    }

    /// A word as the index holds it: 48 bits that nobody without the key can name. Digits only after the first letter, which
    /// the index's own stemming leaves alone.
    pub(crate) fn blind(&self, word: &str) -> Option<String> {
        self.current.as_ref().map(|keys| keys.blind(word))
    }

    /// The words of a query as the index may hold them: one run of blind words for each key there is.
    pub(crate) fn blind_runs(&self, words: &[String]) -> Vec<String> {
        let run = |keys: &UserKeys| words.iter().map(|word| keys.blind(word)).collect::<Vec<_>>().join(" ");
        let old = self.ring.0.old.iter().map(|root| run(&root.of(self.user.as_str())));
        self.current.iter().map(run).chain(old).collect()
    }

    /// Audio as it is to be stored, with the key that sealed it; `None` if there is no key.
    pub(crate) fn seal_audio(&self, place: Place<'_>, bytes: &[u8]) -> Option<(KeyId, Vec<u8>)> {
        let keys = self.current.as_ref()?;
        Some((keys.id, encrypt(&keys.audio, &place.bound_to(keys.id), bytes)))
    }

    /// What [`Self::seal_audio`] sealed; `None` if it is not that, or the key is not there.
    pub(crate) fn open_audio(&self, place: Place<'_>, key: KeyId, sealed: &[u8]) -> Option<Vec<u8>> {
        self.with(key, |keys| decrypt(&keys.audio, &place.bound_to(key), sealed))?
    }

    /// `None` if the ring has no such key.
    fn with<T>(&self, id: KeyId, act: impl FnOnce(&UserKeys) -> T) -> Option<T> {
        if let Some(keys) = self.current.as_ref().filter(|keys| keys.id == id) {
            return Some(act(keys));
        }
        let root = self.ring.0.old.iter().find(|key| key.id == id)?;
        Some(act(&root.of(self.user.as_str())))
    }
}

/// The key under which a stored text is sealed; `None` if it is plain.
pub(crate) fn key_of(stored: &str) -> Option<KeyId> {
    KeyId::parse(stored.strip_prefix(SEALED)?.split_once(':')?.0)
}

pub(crate) fn missing(id: KeyId) -> String {
    format!("it is sealed under key {id}, which is not configured; name its file in protection.old_key_files")
}

fn encrypt(cipher: &Aes256Gcm, bound_to: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut nonce = [0; NONCE_BYTES];
    rand::rng().fill_bytes(&mut nonce);
    let sealed = cipher
        .encrypt(&nonce.into(), Payload { msg: bytes, aad: bound_to })
        .expect("AES-GCM takes up to 64 GiB, and a text of the store is far below");
    let mut whole = Vec::with_capacity(NONCE_BYTES + sealed.len());
    whole.extend_from_slice(&nonce);
    whole.extend_from_slice(&sealed);
    whole
}

fn decrypt(cipher: &Aes256Gcm, bound_to: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>()?;
    cipher.decrypt(nonce.into(), Payload { msg: rest, aad: bound_to }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> RootKey {
        RootKey::new(Zeroizing::new([byte; 32]))
    }

    fn sealer(byte: u8, user: &str) -> Sealer {
        Keyring::new(Some(key(byte)), Vec::new()).of(&user.into())
    }

    const PLACE: Place<'_> = Place { table: "segments", column: "text", row: &["c1", "s1"] };

    #[test]
    fn what_was_sealed_opens_and_says_under_which_key() {
        let ann = sealer(1, "ann");
        for text in ["", "a dentist", "the dentist 🦷", &"long ".repeat(10_000)] {
            let stored = ann.seal(PLACE, text).into_owned();
            assert!(text.is_empty() || !stored.contains(text));
            assert_eq!(key_of(&stored), Some(key(1).id()));
            assert_eq!(ann.open(PLACE, stored).unwrap(), text);
        }
        assert_ne!(ann.seal(PLACE, "again"), ann.seal(PLACE, "again"));
    }

    #[test]
    fn a_sealed_text_opens_nowhere_else() {
        let ann = sealer(1, "ann");
        let stored = ann.seal(PLACE, "hers").into_owned();
        let elsewhere = [
            Place { row: &["c1", "s2"], ..PLACE },
            Place { row: &["c2", "s1"], ..PLACE },
            Place { row: &["c1s", "1"], ..PLACE },
            Place { column: "translations", ..PLACE },
            Place { table: "photos", ..PLACE },
        ];
        for place in elsewhere {
            assert!(matches!(ann.open(place, stored.clone()), Err(StoreError::Damaged(_))), "{place:?}");
        }
        assert!(sealer(1, "bob").open(PLACE, stored.clone()).is_err());
        let error = sealer(2, "ann").open(PLACE, stored).unwrap_err().to_string();
        assert!(error.contains(&key(1).id().to_string()) && !error.contains("hers"), "{error}");
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let ann = sealer(1, "ann");
        let stored = ann.seal(PLACE, "the dentist").into_owned();
        for at in MARK.len()..stored.len() {
            let mut bytes = stored.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(ann.open(PLACE, changed.clone()).is_err(), "{changed:?}");
        }
    }

    #[test]
    fn old_keys_open_and_the_current_one_seals() {
        let stored = sealer(1, "ann").seal(PLACE, "old").into_owned();
        let both = Keyring::new(Some(key(2)), vec![key(1)]).of(&"ann".into());
        assert!(!both.is_current(&stored) && both.is_current(&both.seal(PLACE, "new")));
        assert_eq!(both.open(PLACE, stored.clone()).unwrap(), "old");
        let none = Keyring::new(None, vec![key(1)]).of(&"ann".into());
        assert_eq!(none.open(PLACE, stored).unwrap(), "old");
        assert_eq!(none.seal(PLACE, "plain"), "plain");
    }

    #[test]
    fn without_a_key_no_text_is_taken_for_a_sealed_one() {
        let off = Keyring::default().of(&"ann".into());
        for text in ["plain", "\u{1}seal1:00000000:AAAA", "\u{1}seal0:x", "\u{1}seal", "\u{1}"] {
            let stored = off.seal(PLACE, text).into_owned();
            assert!(off.is_current(&stored), "{text:?}");
            assert_eq!(off.open(PLACE, stored).unwrap(), text);
        }
    }

    #[test]
    fn blind_words_are_of_one_user_and_one_key() {
        let word = |byte, user| sealer(byte, user).blind("dentist").unwrap();
        assert_eq!(word(1, "ann"), word(1, "ann"));
        assert!(word(1, "ann") != word(1, "bob") && word(1, "ann") != word(2, "ann"));
        assert!(word(1, "ann").strip_prefix('z').unwrap().bytes().all(|byte| byte.is_ascii_digit()));
    }

    #[test]
    fn neither_keys_nor_texts_are_shown() {
        let shown = format!("{:?} {:?}", key(7), Keyring::new(Some(key(7)), vec![key(8)]));
        assert!(!shown.contains("070707") && !shown.contains("7, 7"), "{shown}");
        assert!(shown.contains(&key(7).id().to_string()));
    }
}
