//! Omi's protected transcripts, decrypted already or not.
#![no_main]

use auricle_wire::protection::{Level, StoredSegments, UserKey, decode_photo, decode_segments, encode_segments};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let key = UserKey::derive(&[7; 32], "ann").expect("the secret is long enough");
    let _ = decode_segments(&StoredSegments::Bytes(input.to_vec()), true, None);
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = decode_segments(&StoredSegments::Text(text.into()), true, Some(&key));
        let _ = decode_photo(text, Level::Enhanced, Some(&key));
        // Past the encryption, which a fuzzer does not break.
        let stored = StoredSegments::Text(key.encrypt(text, [0; 12]));
        for compressed in [true, false] {
            if let Ok(segments) = decode_segments(&stored, compressed, Some(&key)) {
                let again = encode_segments(&segments, Level::Enhanced, Some(&key), [1; 12]).expect("it fits");
                assert_eq!(decode_segments(&again, true, Some(&key)).as_ref(), Ok(&segments), "it comes back");
            }
        }
    }
});
