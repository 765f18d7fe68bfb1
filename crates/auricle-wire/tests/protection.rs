//! Omi's protected documents: those of another implementation, those of ours, and damage.

#![allow(clippy::unwrap_used, reason = "what a test stands on must hold")]

use auricle_wire::conversation::Segment;
use auricle_wire::protection::{
    Level, ProtectionError, StoredSegments, UserKey, decode_photo, decode_segments, encode_photo,
    encode_segments,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

/// Made by `fixtures/protection/make.py`.
const GOLDEN: &str = include_str!("../../../fixtures/protection/enhanced.json");

fn golden() -> serde_json::Value {
    serde_json::from_str(GOLDEN).unwrap()
}

fn key() -> UserKey {
    let golden = golden();
    UserKey::derive(golden["secret"].as_str().unwrap().as_bytes(), golden["uid"].as_str().unwrap()).unwrap()
}

fn text(name: &str) -> String {
    golden()[name].as_str().unwrap().to_owned()
}

fn segments() -> Vec<Segment> {
    serde_json::from_value(golden()["segments"].clone()).unwrap()
}

#[test]
fn documents_of_another_implementation_are_read_at_each_level() {
    let key = key();
    let read = |stored, compressed| decode_segments(&stored, compressed, Some(&key)).unwrap();
    assert_eq!(read(StoredSegments::Text(text("enhanced")), true), segments());
    assert_eq!(read(StoredSegments::Text(text("enhanced_empty_list")), true), []);
    assert_eq!(read(StoredSegments::Text(text("legacy_encrypted")), false), segments());
    assert_eq!(read(StoredSegments::List(segments()), false), segments());
    let bytes = STANDARD.decode(text("standard_base64")).unwrap();
    assert_eq!(read(StoredSegments::Bytes(bytes), true), segments());
    assert_eq!(decode_photo(&text("photo_enhanced"), Level::Enhanced, Some(&key)).unwrap(), text("photo"));
}

#[test]
fn the_same_nonce_gives_the_same_bytes_as_the_other_implementation() {
    let nonce: [u8; 12] = std::array::from_fn(|at| at as u8 + 36);
    let photo = encode_photo(&text("photo"), Level::Enhanced, Some(&key()), nonce);
    assert_eq!(photo.unwrap(), text("photo_enhanced"));
}

#[test]
fn l33_what_cannot_be_decoded_is_an_error_and_never_an_empty_list() {
    let key = key();
    let other = UserKey::derive(&[7; 32], "somebody").unwrap();
    let enhanced = StoredSegments::Text(text("enhanced"));
    let cases = [
        (enhanced.clone(), true, None, ProtectionError::NoKey),
        (enhanced.clone(), true, Some(&other), ProtectionError::Decrypt),
        (enhanced, false, Some(&key), ProtectionError::Json),
        (StoredSegments::Text(text("legacy_encrypted")), true, Some(&key), ProtectionError::Text),
        (StoredSegments::Text(String::new()), true, Some(&key), ProtectionError::Form),
        (StoredSegments::Text("[]".into()), true, Some(&key), ProtectionError::Base64),
        (StoredSegments::Text("AAAA".into()), true, Some(&key), ProtectionError::Decrypt),
        (StoredSegments::Bytes(Vec::new()), true, Some(&key), ProtectionError::Zlib),
        (StoredSegments::Bytes(b"[]".to_vec()), true, Some(&key), ProtectionError::Zlib),
        (StoredSegments::Bytes(b"[]".to_vec()), false, Some(&key), ProtectionError::Form),
        (StoredSegments::List(Vec::new()), true, Some(&key), ProtectionError::Form),
    ];
    for (stored, compressed, key, expected) in cases {
        assert_eq!(decode_segments(&stored, compressed, key), Err(expected), "{stored:?}");
    }
    assert_eq!(Level::parse("e2ee"), None);
    for level in [Level::Legacy, Level::Standard, Level::Enhanced] {
        assert_eq!(Level::parse(level.as_str()), Some(level));
    }
    assert_eq!(UserKey::derive(&[1; 31], "x").unwrap_err(), ProtectionError::ShortSecret(31));
}

#[test]
fn a_small_document_cannot_become_a_large_one() {
    use std::io::Write as _;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    let spaces = vec![b' '; 1024 * 1024];
    for _ in 0..65 {
        encoder.write_all(&spaces).unwrap();
    }
    let bomb = StoredSegments::Bytes(encoder.finish().unwrap());
    assert_eq!(decode_segments(&bomb, true, None), Err(ProtectionError::TooLarge));
}

fn any_segment() -> impl Strategy<Value = Segment> {
    (any::<String>(), any::<String>(), 0.0..90_000.0_f64, any::<bool>()).prop_map(
        |(id, text, start, is_user)| Segment {
            id,
            text,
            start,
            end: start + 1.0,
            is_user,
            ..segments().remove(1)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_encoded_is_decoded_at_each_level(said in prop::collection::vec(any_segment(), 0..8), nonce: [u8; 12]) {
        let key = key();
        for level in [Level::Legacy, Level::Standard, Level::Enhanced] {
            let stored = encode_segments(&said, level, Some(&key), nonce).unwrap();
            prop_assert_eq!(decode_segments(&stored, stored.is_compressed(), Some(&key)).unwrap(), said.clone());
        }
        for photo in ["", "AAAA"] {
            let stored = encode_photo(photo, Level::Enhanced, Some(&key), nonce).unwrap();
            prop_assert_eq!(decode_photo(&stored, Level::Enhanced, Some(&key)).unwrap(), photo);
        }
    }

    #[test]
    fn any_changed_byte_is_an_error(at: prop::sample::Index, by in 1..=255_u8) {
        let key = key();
        let mut text = text("enhanced").into_bytes();
        let at_text = at.index(text.len());
        text[at_text] ^= by;
        if let Ok(text) = String::from_utf8(text) {
            prop_assert!(decode_segments(&StoredSegments::Text(text), true, Some(&key)).is_err());
        }
        // Of a compressed one the header has bits that mean nothing.
        let mut bytes = STANDARD.decode(golden()["standard_base64"].as_str().unwrap()).unwrap();
        let at_bytes = at.index(bytes.len());
        bytes[at_bytes] ^= by;
        let read = decode_segments(&StoredSegments::Bytes(bytes), true, None);
        prop_assert!(read.is_err() || (at_bytes < 2 && read == Ok(segments())), "{read:?}");
    }
}
