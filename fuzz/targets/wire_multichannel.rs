//! Channel framing: nothing of the audio is lost or added.
#![no_main]

use auricle_wire::multichannel::ChannelMap;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    for source in ["desktop", "phone_call"] {
        let map = ChannelMap::for_source(source);
        match map.split(input) {
            Some((channel, audio)) => {
                assert_eq!((channel + 1, audio), (usize::from(input[0]), &input[1..]));
                assert!(map.roles().get(channel).is_some());
            }
            None => assert!(!matches!(input.first(), Some(1 | 2)), "only unknown channels are dropped"),
        }
    }
});
