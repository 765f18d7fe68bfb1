//! Audio of a stream as it comes in, in pieces of any size: raw samples, a WAV header and samples, Ogg pages, WebM, Opus packets.
//!
//! Gives interleaved PCM of as many channels as it has. What is kept between two pieces is bounded by a page, a header or a block.

mod ebml;
mod ogg_pages;
mod wav_header;
mod webm;

use self::ogg_pages::OggPages;
use self::wav_header::WavHeader;
use self::webm::WebM;
use crate::g711;

/// Rate at which Opus is decoded: what recognisers hear.
pub const OPUS_RATE_HZ: u32 = 16_000;
/// Samples of the longest Opus packet (120 ms), for one channel.
const OPUS_SAMPLES_MAX: usize = OPUS_RATE_HZ as usize * 120 / 1_000;

/// How audio is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Signed 16-bit little-endian PCM; a WAV header before it is taken for one.
    Linear16,
    /// G.711 µ-law.
    Mulaw,
    /// G.711 A-law.
    Alaw,
    /// Ogg pages, WebM, or one packet in each piece.
    Opus,
    /// The audio says it itself: WAV, Ogg Opus or WebM with Opus.
    Container,
}

/// What the samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Samples of one channel in a second.
    pub rate_hz: u32,
    /// From 1.
    pub channels: u16,
}

/// Audio that can never be decoded. The text says why, and what would do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IncomingError {
    /// It begins with none of the containers.
    #[error(
        "the audio begins neither with a WAV header, nor with an Ogg page, nor as WebM; name its encoding and sample_rate"
    )]
    Unknown,
    /// A container with something else in it.
    #[error("{0}")]
    Unsupported(String),
    /// A part of a container that is longer than any that is needed.
    #[error("a WebM {what} of {bytes} bytes is too long; {max} is the limit")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// As it says itself.
        bytes: u64,
        /// Most that is taken.
        max: u64,
    },
    /// Not what its beginning promised.
    #[error("the audio is damaged: {0}")]
    Damaged(&'static str),
}

enum State {
    /// Nothing has come that says what it is.
    Sniffing(Vec<u8>),
    Wav(WavHeader),
    Raw {
        law: Encoding,
        channels: u16,
        /// Bytes of a sample of all channels, of which the rest is to come.
        carried: Vec<u8>,
    },
    Ogg(Box<OggPages>),
    WebM(Box<WebM>),
    Packets(Box<opus::Decoder>),
}

/// Decodes one stream. Keeps state from piece to piece.
pub struct Incoming {
    encoding: Encoding,
    format: Format,
    known: bool,
    state: State,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("encoding", &self.encoding)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

pub(crate) fn opus_decoder(channels: u16) -> Result<opus::Decoder, IncomingError> {
    let layout = if channels >= 2 { opus::Channels::Stereo } else { opus::Channels::Mono };
    opus::Decoder::new(OPUS_RATE_HZ, layout)
        .map_err(|error| IncomingError::Unsupported(format!("cannot make an Opus decoder: {error}")))
}

/// Appends a packet's samples. A damaged packet is skipped, as a player skips it.
pub(crate) fn decode_opus(decoder: &mut opus::Decoder, channels: u16, packet: &[u8], out: &mut Vec<i16>) {
    if packet.is_empty() {
        return;
    }
    let channels = usize::from(channels.clamp(1, 2));
    let before = out.len();
    out.resize(before + OPUS_SAMPLES_MAX * channels, 0);
    let samples = decoder.decode(packet, &mut out[before..], false).unwrap_or(0);
    out.truncate(before + samples * channels);
}

impl Incoming {
    /// `rate_hz` and `channels`: of raw samples; containers say theirs. Opus has one or two channels.
    pub fn new(encoding: Encoding, rate_hz: u32, channels: u16) -> Self {
        let channels = channels.max(1);
        let format = match encoding {
            Encoding::Opus => Format { rate_hz: OPUS_RATE_HZ, channels: channels.min(2) },
            _ => Format { rate_hz, channels },
        };
        let known = matches!(encoding, Encoding::Mulaw | Encoding::Alaw);
        let state = match encoding {
            Encoding::Mulaw | Encoding::Alaw => State::Raw { law: encoding, channels, carried: Vec::new() },
            Encoding::Linear16 | Encoding::Opus | Encoding::Container => State::Sniffing(Vec::new()),
        };
        Self { encoding, format, known, state }
    }

    /// What the samples are, once that is known.
    pub fn format(&self) -> Option<Format> {
        self.known.then_some(self.format)
    }

    /// Whether the next piece, which begins like this, is a packet, and so is to be given whole.
    pub fn takes_packets(&self, beginning: &[u8]) -> bool {
        match self.state {
            State::Packets(_) => true,
            State::Sniffing(_) => {
                self.encoding == Encoding::Opus
                    && ![b"OggS", &webm::MAGIC].iter().any(|magic| beginning.starts_with(*magic))
            }
            _ => false,
        }
    }

    /// Takes a piece and appends what can be decoded.
    ///
    /// # Errors
    /// It can never be decoded: end the stream.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<i16>) -> Result<(), IncomingError> {
        match &mut self.state {
            State::Sniffing(begun) => {
                begun.extend_from_slice(piece);
                let begun = std::mem::take(begun);
                self.sniff(begun, out)
            }
            State::Wav(header) => {
                let Some((found, rest)) = header.push(piece)? else { return Ok(()) };
                self.format = Format { rate_hz: found.rate_hz, channels: found.channels };
                self.known = true;
                self.state =
                    State::Raw { law: found.encoding, channels: found.channels, carried: Vec::new() };
                self.push(&rest, out)
            }
            State::Raw { law, channels, carried } => {
                raw(*law, *channels, carried, piece, out);
                Ok(())
            }
            State::Ogg(pages) => {
                pages.push(piece, out)?;
                let channels = pages.channels();
                self.know_opus(channels);
                Ok(())
            }
            State::WebM(webm) => {
                webm.push(piece, out)?;
                let channels = webm.channels();
                self.know_opus(channels);
                Ok(())
            }
            State::Packets(decoder) => {
                decode_opus(decoder, self.format.channels, piece, out);
                Ok(())
            }
        }
    }

    fn know_opus(&mut self, channels: Option<u16>) {
        if let Some(channels) = channels {
            self.format = Format { rate_hz: OPUS_RATE_HZ, channels };
            self.known = true;
        }
    }

    fn sniff(&mut self, begun: Vec<u8>, out: &mut Vec<i16>) -> Result<(), IncomingError> {
        let could_be = |magic: &[u8; 4]| begun.len() < 4 && magic.starts_with(&begun);
        match (self.encoding, begun.get(..4)) {
            (Encoding::Linear16 | Encoding::Container, Some(b"RIFF")) => {
                self.state = State::Wav(WavHeader::default());
            }
            (Encoding::Opus | Encoding::Container, Some(b"OggS")) => {
                self.state = State::Ogg(Box::default());
            }
            (Encoding::Opus | Encoding::Container, Some(magic)) if *magic == webm::MAGIC => {
                self.state = State::WebM(Box::default());
            }
            (Encoding::Container, Some(_)) => return Err(IncomingError::Unknown),
            (Encoding::Container, None) => {
                if could_be(b"RIFF") || could_be(b"OggS") || could_be(&webm::MAGIC) {
                    self.state = State::Sniffing(begun);
                    return Ok(());
                }
                return Err(IncomingError::Unknown);
            }
            (Encoding::Linear16, None) if could_be(b"RIFF") => {
                self.state = State::Sniffing(begun);
                return Ok(());
            }
            (Encoding::Opus, _) => {
                self.state = State::Packets(Box::new(opus_decoder(self.format.channels)?));
                self.known = true;
            }
            (law, _) => {
                self.state = State::Raw { law, channels: self.format.channels, carried: Vec::new() };
                self.known = true;
            }
        }
        self.push(&begun, out)
    }
}

fn raw(law: Encoding, channels: u16, carried: &mut Vec<u8>, piece: &[u8], out: &mut Vec<i16>) {
    let width = if law == Encoding::Linear16 { 2 } else { 1 };
    let frame = width * usize::from(channels);
    carried.extend_from_slice(piece);
    let usable = carried.len() - carried.len() % frame;
    match law {
        Encoding::Mulaw => out.extend(carried[..usable].iter().map(|byte| g711::mulaw(*byte))),
        Encoding::Alaw => out.extend(carried[..usable].iter().map(|byte| g711::alaw(*byte))),
        _ => out.extend(carried[..usable].as_chunks::<2>().0.iter().map(|pair| i16::from_le_bytes(*pair))),
    }
    carried.drain(..usable);
}

#[cfg(test)]
mod tests;
