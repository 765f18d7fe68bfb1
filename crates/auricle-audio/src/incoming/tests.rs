use super::*;
use crate::{Codec, Encoder};

#[path = "tests_webm.rs"]
mod webm_streams;

fn all(incoming: &mut Incoming, bytes: &[u8], piece: usize) -> Result<Vec<i16>, IncomingError> {
    let mut out = Vec::new();
    for piece in bytes.chunks(piece) {
        incoming.push(piece, &mut out)?;
    }
    Ok(out)
}

fn wav(kind: u16, bits: u16, channels: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"RIFF\xff\xff\xff\xffWAVELIST\x03\0\0\0abc\0fmt \x10\0\0\0".to_vec();
    bytes.extend(kind.to_le_bytes());
    bytes.extend(channels.to_le_bytes());
    bytes.extend(8_000_u32.to_le_bytes());
    bytes.extend([0; 6]);
    bytes.extend(bits.to_le_bytes());
    bytes.extend(b"data\xff\xff\xff\xff");
    bytes.extend(data);
    bytes
}

#[test]
fn raw_samples_in_any_pieces_are_the_same_samples() {
    let bytes: Vec<u8> = (0..=255).collect();
    for piece in [1, 3, 7, 256] {
        let mut incoming = Incoming::new(Encoding::Linear16, 16_000, 2);
        let out = all(&mut incoming, &bytes, piece).unwrap();
        assert_eq!((out.len(), out[0], out[127]), (128, 0x0100, -2), "{piece}");
        assert_eq!(incoming.format(), Some(Format { rate_hz: 16_000, channels: 2 }));
    }
}

#[test]
fn a_wav_header_in_any_pieces_says_what_follows() {
    for encoding in [Encoding::Linear16, Encoding::Container] {
        for piece in [1, 5, 1_000] {
            let mut incoming = Incoming::new(encoding, 16_000, 1);
            let out = all(&mut incoming, &wav(1, 16, 2, &[1, 0, 2, 0, 3]), piece).unwrap();
            assert_eq!(out, [1, 2]);
            assert_eq!(incoming.format(), Some(Format { rate_hz: 8_000, channels: 2 }));
        }
    }
    let mut incoming = Incoming::new(Encoding::Container, 0, 1);
    assert_eq!(all(&mut incoming, &wav(7, 8, 1, &[0x80]), 9).unwrap(), [32_124]);
}

#[test]
fn what_cannot_be_decoded_says_why() {
    let refused =
        |encoding, bytes: &[u8]| all(&mut Incoming::new(encoding, 16_000, 1), bytes, 11).unwrap_err();
    assert_eq!(refused(Encoding::Container, b"hello world"), IncomingError::Unknown);
    assert_eq!(refused(Encoding::Container, b"\x1a\x45\xdf\xa4"), IncomingError::Unknown);
    let text = refused(Encoding::Container, &wav(3, 32, 1, &[])).to_string();
    assert!(text.contains("32 bits") && text.contains("16-bit"), "{text}");
    assert!(refused(Encoding::Container, &wav(1, 16, 0, &[])).to_string().contains("0 channels"));
    assert!(matches!(refused(Encoding::Container, b"RIFF\0\0\0\0AVI LIST"), IncomingError::Damaged(_)));
    let endless = b"RIFF\0\0\0\0WAVEjunk\xff\xff\xff\x7f";
    assert!(matches!(refused(Encoding::Container, endless), IncomingError::Damaged(_)));
}

fn packets() -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(Codec::OpusFs320, 16_000).unwrap();
    let tone: Vec<i16> = (0..32_000)
        .map(|i| (8_000.0 * (f64::from(i) * 300.0 * std::f64::consts::TAU / 16_000.0).sin()) as i16)
        .collect();
    encoder.encode_all(&tone).unwrap()
}

fn ogg(packets: &[Vec<u8>]) -> Vec<u8> {
    use ogg::writing::{PacketWriteEndInfo, PacketWriter};
    let mut writer = PacketWriter::new(Vec::new());
    let mut head = b"OpusHead\x01\x01\x38\x01".to_vec();
    head.extend(16_000_u32.to_le_bytes());
    head.extend([0; 3]);
    writer.write_packet(head, 1, PacketWriteEndInfo::EndPage, 0).unwrap();
    writer.write_packet(b"OpusTags\0\0\0\0\0\0\0\0".to_vec(), 1, PacketWriteEndInfo::EndPage, 0).unwrap();
    for (index, packet) in packets.iter().enumerate() {
        let end =
            if index % 50 == 49 { PacketWriteEndInfo::EndPage } else { PacketWriteEndInfo::NormalPacket };
        writer.write_packet(packet.clone(), 1, end, (index as u64 + 1) * 960).unwrap();
    }
    writer.into_inner()
}

#[test]
fn opus_in_pages_and_in_packets_is_the_same_sound() {
    let packets = packets();
    let mut incoming = Incoming::new(Encoding::Opus, 16_000, 1);
    let mut bare = Vec::new();
    for packet in &packets {
        incoming.push(packet, &mut bare).unwrap();
    }
    assert_eq!(bare.len(), 32_000);
    let bytes = ogg(&packets);
    for (encoding, piece) in [(Encoding::Opus, 7), (Encoding::Container, 100_000), (Encoding::Container, 1)] {
        let mut incoming = Incoming::new(encoding, 48_000, 1);
        let out = all(&mut incoming, &bytes, piece).unwrap();
        assert_eq!(out.len(), 32_000 - 104, "312 samples at 48 kHz are left out");
        assert_eq!(out, bare[104..]);
        assert_eq!(incoming.format(), Some(Format { rate_hz: 16_000, channels: 1 }));
    }
}

#[test]
fn a_damaged_page_ends_the_stream_and_a_damaged_packet_does_not() {
    let packets = packets();
    let mut bytes = ogg(&packets);
    let at = bytes.len() - 10;
    bytes[at] ^= 0xff;
    let mut incoming = Incoming::new(Encoding::Container, 16_000, 1);
    assert!(matches!(all(&mut incoming, &bytes, 500), Err(IncomingError::Damaged(_))));
    let mut incoming = Incoming::new(Encoding::Opus, 16_000, 1);
    let mut out = Vec::new();
    incoming.push(&[0xff; 3], &mut out).unwrap();
    incoming.push(&[], &mut out).unwrap();
    incoming.push(&packets[0], &mut out).unwrap();
    assert!(out.len() >= 320);
}

proptest::proptest! {
    #[test]
    fn any_bytes_in_any_pieces_are_samples_or_an_error(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..3_000),
        piece in 1_usize..700,
        which in 0_usize..5,
        beginning in proptest::sample::select(vec![&b""[..], b"RIFF\0\0\0\0WAVE", b"RIFF\0\0\0\0WAVEfmt ", b"OggS\0\x02", b"OggS", &webm::MAGIC]),
        channels in 1_u16..9,
    ) {
        let encodings =
            [Encoding::Linear16, Encoding::Mulaw, Encoding::Alaw, Encoding::Opus, Encoding::Container];
        let mut incoming = Incoming::new(encodings[which], 16_000, channels);
        let all_bytes = [beginning, &bytes].concat();
        let mut out = Vec::new();
        for piece in all_bytes.chunks(piece) {
            if incoming.push(piece, &mut out).is_err() {
                break;
            }
        }
        // Opus makes 120 ms of one byte; nothing else makes more than a sample of it.
        proptest::prop_assert!(out.len() <= (all_bytes.len() + 1) * 2 * 1_920);
    }
}
