//! Audio as it was received: decoded when somebody hears it, and kept small for who hears it later.
//!
//! A packet of Opus or LC3 takes a tenth of its samples' memory, so [`Packets`] keeps packets where it gets them, and else one
//! byte a sample (G.711 µ-law: what telephone lines carry, and every recogniser hears). What nobody hears is not decoded at all:
//! its length is read from its head, and a [`Receiver`] that is asked for samples again first hears what came just before, as
//! decoders need it. Positions are samples of the stream from its first.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use crate::g711;
use crate::{Codec, DecodeError, Decoder, DecoderError};

/// What a decoder which missed some hears first, in milliseconds, so that what follows sounds right. RFC 7845, 4.6, asks for 80; of
/// human speech 200 leave a difference of 36 dB under it at worst, of a long vowel more is needed.
const PRIMING_MS: u32 = 400;
/// A longer packet is kept as samples: it saves nothing.
const PACKET_BYTES_MAX: usize = 4_096;

/// How packets are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketFormat {
    /// Their codec.
    pub codec: Codec,
    /// Of the PCM that they are decoded to.
    pub sample_rate_hz: u32,
    /// As the connection names it.
    pub channels: u8,
}

impl PacketFormat {
    /// Packets of [`PRIMING_MS`].
    fn priming(&self) -> usize {
        (PRIMING_MS / self.codec.frame_ms()) as usize
    }

    fn decoder(&self) -> Result<Decoder, DecoderError> {
        Decoder::new(self.codec, self.sample_rate_hz, self.channels)
    }
}

/// Decodes one channel of a connection, where samples are wanted.
pub struct Receiver {
    decoder: Decoder,
    format: PacketFormat,
    /// The last packets that were not decoded.
    missed: VecDeque<Box<[u8]>>,
}

impl Receiver {
    /// Errors: as [`Decoder::new`].
    pub fn new(format: PacketFormat) -> Result<Self, DecoderError> {
        Ok(Self { decoder: format.decoder()?, format, missed: VecDeque::new() })
    }

    /// How many samples a message has, without decoding it. `None`: only decoding tells.
    pub fn measure(&self, message: &[u8]) -> Option<usize> {
        self.decoder.measure(message).filter(|_| message.len() <= PACKET_BYTES_MAX)
    }

    /// Replaces `pcm` by the message's samples. Errors: as [`Decoder::decode`]; `pcm` is empty then.
    pub fn decode(&mut self, message: &[u8], pcm: &mut Vec<i16>) -> Result<(), DecodeError> {
        for missed in self.missed.drain(..) {
            // Damage in what nobody heard is nobody's concern.
            let _ = self.decoder.decode(&missed, pcm);
            pcm.clear();
        }
        self.missed.shrink_to_fit();
        pcm.clear();
        self.decoder.decode(message, pcm).inspect_err(|_| pcm.clear())
    }

    /// Goes on with the decoder of `player`, which has just played all that this one missed: a seam less.
    pub fn adopt(&mut self, player: Player) {
        if let Some(decoder) = player.decoder.filter(|_| !self.missed.is_empty()) {
            self.decoder = decoder;
            self.missed.clear();
        }
    }

    fn miss(&mut self, message: &[u8]) {
        if self.missed.len() == self.format.priming() {
            self.missed.pop_front();
        }
        self.missed.push_back(message.into());
    }

    /// A message of `samples`, which are in `pcm` if they are `decoded`.
    pub fn frame<'a>(
        &'a mut self,
        message: &'a [u8],
        samples: usize,
        decoded: bool,
        pcm: &'a mut Vec<i16>,
    ) -> Frame<'a> {
        Frame { receiver: self, message, samples, decoded, pcm }
    }
}

/// One message of audio, decoded when its samples are asked for.
pub struct Frame<'a> {
    receiver: &'a mut Receiver,
    message: &'a [u8],
    samples: usize,
    decoded: bool,
    pcm: &'a mut Vec<i16>,
}

impl Frame<'_> {
    /// How many samples it has.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// See [`Receiver::adopt`].
    pub fn adopt(&mut self, player: Player) {
        if !self.decoded {
            self.receiver.adopt(player);
        }
    }

    /// Its samples. A packet that proves damaged only here is silence as long as it said.
    pub fn pcm(&mut self) -> &[i16] {
        if !self.decoded {
            self.decoded = true;
            let _ = self.receiver.decode(self.message, self.pcm);
            self.pcm.resize(self.samples, 0);
        }
        self.pcm
    }

    /// What can be kept instead of its samples, if that is smaller.
    fn packet(&self) -> Option<NonZeroU16> {
        let Self { receiver, message, .. } = self;
        let smaller = matches!(receiver.format.codec, Codec::Opus | Codec::OpusFs320 | Codec::Lc3Fs1030)
            && message.len() <= PACKET_BYTES_MAX;
        NonZeroU16::new(message.len() as u16).filter(|_| smaller)
    }
}

impl Drop for Frame<'_> {
    fn drop(&mut self) {
        if !self.decoded {
            self.receiver.miss(self.message);
        }
    }
}

/// A stretch of what is kept.
#[derive(Clone, Copy, Debug)]
struct Entry {
    samples: u32,
    /// Bytes of a packet; without one each sample is a µ-law byte.
    packet: Option<NonZeroU16>,
}

impl Entry {
    fn bytes(self) -> usize {
        self.packet.map_or(self.samples as usize, |bytes| usize::from(bytes.get()))
    }
}

/// Audio that is kept, oldest first, without gaps. Bounded by its user: see [`Packets::drop_oldest`].
#[derive(Debug, Default)]
pub struct Packets {
    /// Of all packets.
    format: Option<PacketFormat>,
    bytes: VecDeque<u8>,
    entries: VecDeque<Entry>,
    from: u64,
    end: u64,
}

impl Packets {
    /// Position of the oldest sample.
    pub fn from(&self) -> u64 {
        self.from
    }

    /// Position behind the newest.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.entries.len() * size_of::<Entry>()
    }

    /// Keeps a frame behind the last.
    pub fn push(&mut self, frame: &mut Frame<'_>) {
        let format = frame.receiver.format;
        match frame.packet().filter(|_| *self.format.get_or_insert(format) == format) {
            Some(packet) => {
                self.make_room(frame.message.len());
                self.bytes.extend(frame.message);
                self.follow(Entry { samples: frame.samples as u32, packet: Some(packet) });
            }
            None => self.push_pcm(frame.pcm()),
        }
    }

    /// Keeps samples behind the last.
    pub fn push_pcm(&mut self, pcm: &[i16]) {
        self.make_room(pcm.len());
        self.bytes.extend(pcm.iter().map(|sample| g711::to_mulaw(*sample)));
        self.follow(Entry { samples: pcm.len() as u32, packet: None });
    }

    /// Grows by a quarter: thousands of streams hold such a buffer, and one of twice its content would be half empty in each.
    fn make_room(&mut self, more: usize) {
        let length = self.bytes.len();
        if length + more > self.bytes.capacity() {
            self.bytes.reserve_exact(more + (length / 4).max(512));
        }
    }

    fn follow(&mut self, entry: Entry) {
        self.end += u64::from(entry.samples);
        match self.entries.back_mut() {
            Some(last) if last.packet.is_none() && entry.packet.is_none() => last.samples += entry.samples,
            _ => self.entries.push_back(entry),
        }
    }

    /// What follows begins `samples` behind the newest, and nothing before it is kept.
    pub fn skip(&mut self, samples: u64) {
        self.clear();
        self.end += samples;
        self.from = self.end;
    }

    /// Keeps nothing, and no memory.
    pub fn clear(&mut self) {
        (self.bytes, self.entries, self.from) = (VecDeque::new(), VecDeque::new(), self.end);
    }

    /// The last `samples_max`, from position 0 on, with what a decoder needs before them.
    pub fn tail(&self, samples_max: u64) -> Self {
        let from = self.end.saturating_sub(samples_max).max(self.from);
        let mut tail = Self { format: self.format, ..Self::default() };
        let (mut at, mut byte) = (self.from, 0);
        let priming = self.priming();
        for entry in &self.entries {
            let end = at + u64::from(entry.samples);
            let (bytes, past) =
                (entry.bytes(), from.saturating_sub(at).min(u64::from(entry.samples)) as usize);
            match entry.packet {
                // Heard for the decoder's sake only.
                Some(_) if end <= from && end + priming > from => {
                    tail.bytes.extend(self.bytes.range(byte..byte + bytes));
                    tail.entries.push_back(Entry { samples: 0, ..*entry });
                }
                // A packet is kept whole: the tail is a little longer.
                Some(_) if end > from => {
                    tail.bytes.extend(self.bytes.range(byte..byte + bytes));
                    tail.follow(*entry);
                }
                None if end > from => {
                    tail.bytes.extend(self.bytes.range(byte + past..byte + bytes));
                    tail.follow(Entry { samples: entry.samples - past as u32, packet: None });
                }
                _ => {}
            }
            (at, byte) = (end, byte + bytes);
        }
        tail
    }

    /// All of it as samples.
    pub fn pcm(&self) -> Vec<i16> {
        let mut pcm = Vec::with_capacity((self.end - self.from) as usize);
        self.play(&mut Player::new(self.from), usize::MAX, &mut pcm);
        pcm
    }

    /// Samples before what is wanted that a decoder needs.
    fn priming(&self) -> u64 {
        self.format.map_or(0, |format| u64::from(format.sample_rate_hz) * u64::from(PRIMING_MS) / 1_000)
    }

    /// Drops up to `samples` of the oldest, or a whole packet. Returns how many samples went: 0 only if nothing is kept.
    pub fn drop_oldest(&mut self, samples: u64) -> u64 {
        while let Some(first) = self.entries.front().filter(|first| first.samples == 0) {
            self.bytes.drain(..first.bytes());
            self.entries.pop_front();
        }
        let Some(first) = self.entries.front_mut() else { return 0 };
        let all = u64::from(first.samples);
        let gone = if first.packet.is_some() { all } else { all.min(samples) };
        let bytes = if first.packet.is_some() { first.bytes() } else { gone as usize };
        if gone == all {
            self.entries.pop_front();
        } else {
            first.samples -= gone as u32;
        }
        self.bytes.drain(..bytes);
        self.from += gone;
        gone
    }

    /// What is before `until` is not wanted any more. A little of it stays if a decoder needs it for what follows.
    pub fn forget(&mut self, until: u64) {
        let priming = self.priming();
        while let Some(first) = self.entries.front() {
            let (end, margin) = match first.packet {
                Some(_) => (self.from + u64::from(first.samples), priming),
                None => (self.from + 1, 0),
            };
            if end + margin > until {
                break;
            }
            self.drop_oldest(until - self.from);
        }
        // A session at rest keeps no buffer of its busiest moment.
        if self.bytes.capacity() > 2 * self.bytes.len() + 2_048 {
            self.bytes.shrink_to(self.bytes.len() + 1_024);
            self.entries.shrink_to(self.entries.len() + 32);
        }
    }

    /// Appends what `player` has not played yet to `out`, until that holds `samples_max` or a packet more. False if what comes
    /// next is not kept any more.
    pub fn play(&self, player: &mut Player, samples_max: usize, out: &mut Vec<i16>) -> bool {
        if player.at < self.from {
            return false;
        }
        let (mut at, mut byte) = (self.from, 0);
        let mut entries = self.entries.iter();
        let mut before: VecDeque<(usize, Entry)> = VecDeque::new();
        let priming = self.format.map_or(0, |format| format.priming());
        for entry in entries.by_ref() {
            let end = at + u64::from(entry.samples);
            if end > player.at {
                player.begin(self, &before);
                if out.len() < samples_max {
                    player.hear(self, byte, *entry, at, samples_max, out);
                }
                if out.len() >= samples_max {
                    return true;
                }
            } else if player.decoder.is_none() {
                before.push_back((byte, *entry));
                if before.len() > priming {
                    before.pop_front();
                }
            }
            (at, byte) = (end, byte + entry.bytes());
        }
        true
    }

    fn packet(&self, at: usize, bytes: usize, into: &mut Vec<u8>) {
        into.clear();
        into.extend(self.bytes.range(at..at + bytes));
    }
}

/// Plays what is kept, piece by piece.
pub struct Player {
    at: u64,
    decoder: Option<Decoder>,
    packet: Vec<u8>,
}

impl std::fmt::Debug for Player {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Player").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Player {
    /// From this position on.
    pub fn new(at: u64) -> Self {
        Self { at, decoder: None, packet: Vec::new() }
    }

    /// Position of the next sample to be played.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Makes the decoder, and lets it hear what came before.
    fn begin(&mut self, kept: &Packets, before: &VecDeque<(usize, Entry)>) {
        let Some(format) = kept.format.filter(|_| self.decoder.is_none()) else { return };
        let Ok(mut decoder) = format.decoder() else { return };
        let mut unheard = Vec::new();
        for (byte, entry) in before.iter().filter(|(_, entry)| entry.packet.is_some()) {
            kept.packet(*byte, entry.bytes(), &mut self.packet);
            let _ = decoder.decode(&self.packet, &mut unheard);
            unheard.clear();
        }
        self.decoder = Some(decoder);
    }

    fn hear(
        &mut self,
        kept: &Packets,
        byte: usize,
        entry: Entry,
        begins: u64,
        samples_max: usize,
        out: &mut Vec<i16>,
    ) {
        let (length, past) = (out.len(), (self.at - begins) as usize);
        match entry.packet {
            Some(_) => {
                kept.packet(byte, entry.bytes(), &mut self.packet);
                if let Some(decoder) = &mut self.decoder {
                    let _ = decoder.decode(&self.packet, out);
                }
                out.resize(length + entry.samples as usize, 0);
                out.drain(length..length + past);
            }
            None => {
                let until = (entry.samples as usize).min(past + samples_max.saturating_sub(length));
                out.extend(kept.bytes.range(byte + past..byte + until).map(|byte| g711::mulaw(*byte)));
            }
        }
        self.at += (out.len() - length) as u64;
    }
}

#[cfg(test)]
mod tests;
