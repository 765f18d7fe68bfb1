//! The first message of a browser: its token.
#![no_main]

use auricle_wire::client;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match client::web_auth_token(text) {
        Ok(token) => {
            assert!(!token.is_empty() && token.len() <= text.len(), "a token is part of its message")
        }
        Err(failure) => assert!(!failure.reason().is_empty()),
    }
});
