//! Frames of the link between the listening and the processing half.
#![no_main]

use auricle_wire::pusher;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(frame) = pusher::decode(input) else { return };
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    // What we pass on is what we understood.
    let again = pusher::decode(&bytes).expect("our own frame is read again");
    let mut twice = Vec::new();
    again.encode(&mut twice);
    assert_eq!(bytes, twice);
});
