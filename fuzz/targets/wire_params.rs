//! The query string of a listening connection, at each endpoint.
#![no_main]

use auricle_wire::params::{Endpoint, ListenParams};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(query) = std::str::from_utf8(input) else { return };
    for endpoint in [Endpoint::V4, Endpoint::Web] {
        if let Err(error) = ListenParams::parse(query, endpoint) {
            assert!(error.value.chars().count() <= 40, "an error quotes at most 40 characters");
        }
    }
});
