//! Ogg Opus, page by page.

use ogg::reading::{BasePacketReader, PageParser};

use super::{IncomingError, OPUS_RATE_HZ, decode_opus, opus_decoder};

const HEAD_BYTES: usize = 27;
/// `pre_skip` counts at this rate.
const SKIP_RATE_HZ: u64 = 48_000;

/// Gathers pages and decodes their packets.
pub(super) struct OggPages {
    bytes: Vec<u8>,
    packets: BasePacketReader,
    opus: Option<(opus::Decoder, u16)>,
    /// Samples of each channel still to be left out at the beginning.
    skip: usize,
}

impl Default for OggPages {
    fn default() -> Self {
        Self { bytes: Vec::new(), packets: BasePacketReader::new(), opus: None, skip: 0 }
    }
}

impl OggPages {
    /// Known once its first packet has come.
    pub(super) fn channels(&self) -> Option<u16> {
        self.opus.as_ref().map(|(_, channels)| *channels)
    }

    pub(super) fn push(&mut self, piece: &[u8], out: &mut Vec<i16>) -> Result<(), IncomingError> {
        self.bytes.extend_from_slice(piece);
        while let Some(length) = page_bytes(&self.bytes)? {
            let page: Vec<u8> = self.bytes.drain(..length).collect();
            self.page(page)?;
            while let Some(packet) = self.packets.read_packet() {
                self.packet(&packet.data, out)?;
            }
        }
        Ok(())
    }

    fn page(&mut self, mut page: Vec<u8>) -> Result<(), IncomingError> {
        let damaged = |_| IncomingError::Damaged("an Ogg page is not what its checksum says");
        let mut body = page.split_off(HEAD_BYTES);
        let head = <[u8; HEAD_BYTES]>::try_from(&*page)
            .map_err(|_| IncomingError::Damaged("an Ogg page is cut off"))?;
        let (mut parser, segments) = PageParser::new(head).map_err(damaged)?;
        let data = body.split_off(segments.min(body.len()));
        parser.parse_segments(body);
        self.packets.push_page(parser.parse_packet_data(data).map_err(damaged)?).map_err(damaged)
    }

    fn packet(&mut self, packet: &[u8], out: &mut Vec<i16>) -> Result<(), IncomingError> {
        // A second stream in the file, or one that begins anew, has a head of its own.
        if packet.starts_with(b"OpusHead") {
            // Opus is decoded to as many channels as one wants: those that it began with.
            let has = u16::from(packet.get(9).copied().unwrap_or(1).clamp(1, 2));
            let channels = self.channels().unwrap_or(has);
            let skip = packet.get(10..12).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
            self.skip = (u64::from(skip) * u64::from(OPUS_RATE_HZ) / SKIP_RATE_HZ) as usize;
            self.opus = Some((opus_decoder(channels)?, channels));
            return Ok(());
        }
        if packet.starts_with(b"OpusTags") {
            return Ok(());
        }
        let Some((decoder, channels)) = &mut self.opus else {
            return Err(IncomingError::Unsupported(
                "this Ogg stream is not Opus; use Ogg Opus or WAV".into(),
            ));
        };
        let before = out.len();
        decode_opus(decoder, *channels, packet, out);
        let width = usize::from(*channels);
        let skipped = self.skip.min((out.len() - before) / width);
        out.drain(before..before + skipped * width);
        self.skip -= skipped;
        Ok(())
    }
}

/// Length of the page that the bytes begin with, once all of it is there. At most 65,307.
fn page_bytes(bytes: &[u8]) -> Result<Option<usize>, IncomingError> {
    if bytes.len() >= 4 && !bytes.starts_with(b"OggS") {
        return Err(IncomingError::Damaged("an Ogg page is expected and does not come"));
    }
    let Some(segments) = bytes.get(HEAD_BYTES - 1).map(|count| usize::from(*count)) else { return Ok(None) };
    let Some(table) = bytes.get(HEAD_BYTES..HEAD_BYTES + segments) else { return Ok(None) };
    let length = HEAD_BYTES + segments + table.iter().map(|length| usize::from(*length)).sum::<usize>();
    Ok((bytes.len() >= length).then_some(length))
}
