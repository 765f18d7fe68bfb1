//! WebM as ffmpeg and browsers write it, whole, in pieces, and as nobody should.

use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::{Encoding, Format, Incoming, IncomingError, all, ogg, packets};

/// Three seconds: a tone, silence, a tone.
const SOUND: &str =
    "sine=frequency=300:sample_rate=48000:duration=3,volume='if(between(t,1,2),0,0.5)':eval=frame";

/// What ffmpeg makes of the sound, with these options for its output.
fn ffmpeg(options: &[&str]) -> Vec<u8> {
    let made = Command::new("ffmpeg")
        .args(["-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", SOUND])
        .args(options)
        .arg("pipe:1")
        .stderr(Stdio::inherit())
        .output()
        .expect("ffmpeg is installed: see scripts/setup");
    assert!(made.status.success(), "ffmpeg {options:?}");
    made.stdout
}

const OPUS: [&str; 4] = ["-c:a", "libopus", "-b:a", "24k"];

/// WebM in the ways in which it is written: to a pipe, live with clusters of half a second, in stereo.
fn streams() -> Vec<(u16, Vec<u8>)> {
    let of = |more: &[&str]| ffmpeg(&[&OPUS[..], more].concat());
    vec![
        (1, of(&["-f", "webm"])),
        (1, of(&["-f", "webm", "-live", "1", "-cluster_time_limit", "500"])),
        (1, of(&["-f", "webm", "-dash", "1", "-dash_track_number", "1"])),
        (1, of(&["-f", "matroska", "-live", "1"])),
        (2, of(&["-ac", "2", "-f", "webm", "-live", "1", "-cluster_size_limit", "2000"])),
    ]
}

fn heard(bytes: &[u8], piece: usize) -> (Vec<i16>, Format) {
    let mut incoming = Incoming::new(Encoding::Container, 0, 1);
    let out = all(&mut incoming, bytes, piece).unwrap();
    (out, incoming.format().unwrap())
}

fn loudness(pcm: &[i16]) -> f64 {
    (pcm.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / pcm.len() as f64).sqrt()
}

#[test]
fn webm_as_ffmpeg_writes_it_is_the_sound_that_went_in() {
    for (channels, bytes) in streams() {
        let (out, format) = heard(&bytes, 3_200);
        assert_eq!(format, Format { rate_hz: 16_000, channels });
        let second = 16_000 * usize::from(channels);
        assert!((3 * second..=3 * second + second / 20).contains(&out.len()), "{} samples", out.len());
        let part = |from: f64, to: f64| {
            loudness(&out[(from * second as f64) as usize..(to * second as f64) as usize])
        };
        // What is left out at the beginning is, or the silence would come late.
        assert!(part(0.05, 0.99) > 1_000.0 && part(1.02, 1.98) < 50.0 && part(2.02, 2.95) > 1_000.0);
        for piece in [1, 2, 3, 701, bytes.len()] {
            assert_eq!(heard(&bytes, piece).0, out, "in pieces of {piece}");
        }
    }
}

#[test]
fn webm_and_ogg_of_the_same_packets_are_the_same_sound() {
    let packets = packets();
    let pages = heard(&ogg(&packets), 999).0;
    for grouped in [false, true] {
        assert_eq!(heard(&webm(&packets, grouped), 13).0, pages);
    }
    // A name is not needed, and does no harm.
    let mut incoming = Incoming::new(Encoding::Opus, 48_000, 1);
    assert!(!incoming.takes_packets(&webm(&packets, false)));
    assert_eq!(all(&mut incoming, &webm(&packets, false), 500).unwrap(), pages);
}

#[test]
fn a_second_recording_on_the_same_stream_is_heard_too() {
    let packets = packets();
    let one = webm(&packets, false);
    let (both, once) = (heard(&[one.clone(), one.clone()].concat(), 77).0, heard(&one, 77).0);
    assert_eq!(both, [once.clone(), once].concat());
    // As many channels as the first has, however many the second has, and wherever they meet.
    let stereo = ffmpeg(&[&OPUS[..], &["-ac", "2", "-f", "webm"]].concat());
    for piece in [100, usize::MAX] {
        let (mixed, format) = heard(&[&one[..], &stereo].concat(), piece.min(one.len() + 60));
        assert_eq!((format.channels, mixed.len()), (1, 32_000 - 104 + heard(&stereo, 999).0.len() / 2));
    }
}

#[test]
fn other_tracks_are_passed_over_however_large_their_blocks_are() {
    let film = ["-f", "lavfi", "-i", "testsrc2=size=1920x1080:rate=2:duration=3", "-map", "1", "-map", "0"];
    let codec = ["-c:v", "mjpeg", "-q:v", "1", "-f", "matroska", "-live", "1"];
    let bytes = ffmpeg(&[&film[..], &OPUS, &codec].concat());
    // Six pictures.
    assert!(
        bytes.len() > 6 * 65_536 + 100_000,
        "{} bytes: none is larger than a block that is heard may be",
        bytes.len()
    );
    let alone = ffmpeg(&[&OPUS[..], &["-f", "matroska", "-live", "1"]].concat());
    assert_eq!(heard(&bytes, 3_200).0.len(), heard(&alone, 3_200).0.len());
}

#[test]
fn what_is_no_opus_says_what_it_is() {
    let refused = |bytes: &[u8]| {
        all(&mut Incoming::new(Encoding::Container, 0, 1), bytes, 100).unwrap_err().to_string()
    };
    for (options, word) in [
        (&["-c:a", "libvorbis", "-ac", "2", "-f", "webm"][..], "A_VORBIS, not Opus"),
        (&["-c:a", "pcm_s16le", "-f", "matroska"], "A_PCM/INT/LIT, not Opus"),
        (&["-ac", "6", "-c:a", "libopus", "-f", "webm"], "6 channels"),
    ] {
        let text = refused(&ffmpeg(options));
        assert!(text.contains(word), "{text}");
    }
    let silent = [
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=16x16:duration=1",
        "-map",
        "1",
        "-c:v",
        "mjpeg",
        "-f",
        "matroska",
    ];
    assert!(refused(&ffmpeg(&silent)).contains("no audio track"));
}

/// An element whose size is written in eight bytes.
fn element(id: u32, body: &[u8]) -> Vec<u8> {
    [head(id, body.len() as u64), body.to_vec()].concat()
}

fn head(id: u32, size: u64) -> Vec<u8> {
    let id = id.to_be_bytes();
    let zeros = id.iter().take_while(|byte| **byte == 0).count();
    [&id[zeros..], &(size | 1 << 56).to_be_bytes()].concat()
}

/// Of unknown size.
const SEGMENT: [u8; 12] = [0x18, 0x53, 0x80, 0x67, 1, 255, 255, 255, 255, 255, 255, 255];
const CLUSTER: [u8; 5] = [0x1f, 0x43, 0xb6, 0x75, 0xff];

fn beginning() -> Vec<u8> {
    [element(0x1a45_dfa3, &element(0x4282, b"webm")), SEGMENT.to_vec()].concat()
}

fn tracks(more: &[u8]) -> Vec<u8> {
    let private = [&b"OpusHead\x01\x01\x38\x01"[..], &48_000_u32.to_le_bytes(), &[0; 3]].concat();
    let entry = [
        element(0xd7, &[1]),
        element(0x83, &[2]),
        element(0x86, b"A_OPUS\0\0"),
        element(0x63a2, &private),
        more.to_vec(),
    ];
    element(0x1654_ae6b, &element(0xae, &entry.concat()))
}

fn block(flags: u8, packet: &[u8]) -> Vec<u8> {
    [&[0x81, 0, 0, flags], packet].concat()
}

/// As a browser writes it: nothing is known of lengths, a cluster each half second.
fn webm(packets: &[Vec<u8>], grouped: bool) -> Vec<u8> {
    let mut bytes = [beginning(), element(0xec, &[0; 40]), tracks(&[])].concat();
    for (index, packet) in packets.iter().enumerate() {
        if index % 25 == 0 {
            bytes.extend(CLUSTER);
            bytes.extend(element(0xe7, &(index as u16 * 20).to_be_bytes()));
        }
        bytes.extend(match grouped {
            true => element(0xa0, &[element(0xa1, &block(0, packet)), element(0x9b, &[20])].concat()),
            false => element(0xa3, &block(0x80, packet)),
        });
    }
    bytes
}

#[test]
fn a_claim_of_more_than_anybody_needs_is_refused_with_the_claim_and_the_limit() {
    let start = [beginning(), tracks(&[])].concat();
    let huge = (1_u64 << 56) - 2;
    for (bytes, said) in [
        (
            [beginning(), head(0x1654_ae6b, 65_537)].concat(),
            "description of its tracks of 65537 bytes is too long; 65536 is",
        ),
        ([&start[..], &head(0xa3, 65_537), &[0x81]].concat(), "block of 65537 bytes is too long; 65536 is"),
        (
            [&start[..], &head(0xa3, huge), &[0x81]].concat(),
            "block of 72057594037927934 bytes is too long; 65536 is",
        ),
        (
            [&start[..], &head(0xec, huge)].concat(),
            "element of 72057594037927934 bytes is too long; 16777216 is",
        ),
        (
            [&start[..], &head(0xa3, 20_000_000), &[0x82]].concat(),
            "element of 20000000 bytes is too long; 16777216 is",
        ),
    ] {
        for piece in [1, 1_000] {
            let mut incoming = Incoming::new(Encoding::Container, 0, 1);
            let error = all(&mut incoming, &bytes, piece).unwrap_err();
            assert!(matches!(error, IncomingError::TooLarge { .. }), "{error:?}");
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}

#[test]
fn a_stream_that_is_not_as_webm_is_says_what_is_wrong() {
    let start = [beginning(), tracks(&[])].concat();
    let laced = element(0xa3, &block(0x02, &[1, 1, 0xfc, 0xfc]));
    let encoded = [beginning(), tracks(&element(0x6d80, &[]))].concat();
    for (bytes, word) in [
        ([beginning(), CLUSTER.to_vec(), element(0xa3, &block(0, &[0xfc]))].concat(), "before the tracks"),
        ([&start[..], &laced].concat(), "lacing"),
        (encoded, "compressed or encrypted"),
        ([&start[..], &[0xec, 0xff]].concat(), "no size"),
        ([&start[..], &[0]].concat(), "expected and does not come"),
        ([&start[..], &element(0xa3, &[0x81, 0])].concat(), "shorter than its head"),
        ([&start[..], &element(0xa3, &[0xff, 0, 0, 0])].concat(), "names no track"),
        ([beginning(), element(0x1654_ae6b, &[0xae, 0x85, 0])].concat(), "longer than the one around it"),
    ] {
        let mut incoming = Incoming::new(Encoding::Container, 0, 1);
        let error = all(&mut incoming, &bytes, 3).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    // A packet that is none is passed over, as a player passes it over.
    let packets = packets();
    let mut damaged = [start, element(0xa3, &block(0, &[0xff; 3])), element(0xa3, &block(0, &[]))].concat();
    damaged.extend(element(0xa3, &block(0, &packets[0])));
    assert!(heard(&damaged, 9).0.len() >= 320 - 104);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn webm_cut_anywhere_is_the_same_sound(cuts in proptest::collection::vec(1_usize..4_000, 1..60)) {
        let bytes = webm(&packets()[..40], true);
        let whole = heard(&bytes, bytes.len()).0;
        let (mut incoming, mut out, mut rest) = (Incoming::new(Encoding::Container, 0, 1), Vec::new(), &bytes[..]);
        for cut in cuts.iter().cycle() {
            let (piece, behind) = rest.split_at(rest.len().min(*cut));
            incoming.push(piece, &mut out).unwrap();
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(out, whole);
    }

    #[test]
    fn webm_with_bytes_changed_is_samples_or_an_error(
        changes in proptest::collection::vec((0_usize..2_000, any::<u8>()), 1..12),
        piece in 1_usize..500,
    ) {
        let mut bytes = webm(&packets()[..30], false);
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let mut incoming = Incoming::new(Encoding::Container, 0, 1);
        let mut out = Vec::new();
        for piece in bytes.chunks(piece) {
            if incoming.push(piece, &mut out).is_err() {
                break;
            }
        }
        prop_assert!(out.len() <= (bytes.len() + 1) * 2 * 1_920);
    }
}
