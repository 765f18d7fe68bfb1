//! What is kept of a conversation's audio, as one recording: sources with their places on the conversation's clock, mixed a block
//! at a time, with silence where there is nothing.
//!
//! Owns: which sources are heard when, in which channel, and how long the whole is. Leaves to others: what belongs to the
//! conversation ([`crate::retranscribe::sources`]), how it is sent (`crate::rest::audio`).
//! Invariants: sample n of the recording is n / rate seconds after what was asked for begins, whatever is missing; in memory are a
//! block, and of each source that sounds a second and a chunk of its file. Everything here blocks.

mod track;

use auricle_audio::file::FileError;
use auricle_audio::wav;

use self::track::Track;
use crate::retranscribe::sources::{Source, Span};

/// Samples of each channel that are made at once.
const BLOCK: usize = 8_192;
/// Sources that may sound in one moment. Sessions of one conversation follow each other; only uploads can lie over each other.
const AT_ONCE_MAX: usize = 16;
/// The channel of what was recorded with one channel only, beside others that have names.
const UNNAMED: &str = "mono";

/// Which part of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask {
    /// One of the channels; all of them if absent.
    pub(crate) channel: Option<String>,
    /// Seconds of the conversation: from its first word, if absent. What was heard before has negative ones.
    pub(crate) from: Option<f64>,
    pub(crate) until: Option<f64>,
    /// The longest that is given.
    pub(crate) secs_max: u64,
}

/// Why there is no recording.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum AskError {
    #[error("No audio of this conversation is kept")]
    Nothing,
    #[error("Channels are {0}")]
    Channel(String),
    #[error("`from` and `until` are seconds of the conversation, and can be heard from {0:.1} to {1:.1}")]
    Part(f64, f64),
    #[error(
        "It is {0:.0} s long, and {1} s is the most at once (limits.audio_answer_secs_max); ask for parts with `from` and `until`"
    )]
    TooLong(f64, u64),
    #[error(
        "It is too large for one WAV file, which holds 4 GiB; ask for parts with `from` and `until`, or for one `channel`"
    )]
    TooLarge,
    #[error(
        "More than {AT_ONCE_MAX} recordings lie over each other in it; ask for parts with `from` and `until`"
    )]
    TooMany,
}

/// A recording that is being made.
pub(crate) struct Playback {
    rate_hz: u32,
    /// Their names, in order.
    channels: Vec<String>,
    /// Samples of each channel.
    length: u64,
    made: u64,
    /// The next to begin last.
    waiting: Vec<Track>,
    sounding: Vec<Track>,
}

/// The channels there are, the user's own first.
fn channels(sources: &[Source]) -> Vec<Option<String>> {
    let mut found: Vec<Option<String>> =
        sources.iter().map(|source| source.role().map(str::to_owned)).collect();
    found.sort_by_key(|role| match role.as_deref() {
        Some("mic") => (0, String::new()),
        Some(other) => (1, other.to_owned()),
        None => (2, String::new()),
    });
    found.dedup();
    found
}

fn named(role: Option<&String>) -> String {
    role.map_or_else(|| UNNAMED.to_owned(), Clone::clone)
}

/// How many of these (begin, end) hold one moment at most.
fn most_at_once(places: impl Iterator<Item = (i64, i64)>) -> usize {
    let mut edges: Vec<(i64, i8)> = places.flat_map(|(begin, end)| [(begin, 1), (end, -1)]).collect();
    edges.sort_unstable();
    let (mut now, mut most) = (0_usize, 0);
    for (_, edge) in edges {
        now = now.saturating_add_signed(isize::from(edge));
        most = most.max(now);
    }
    most
}

impl Playback {
    /// What of `sources` can be heard of the conversation.
    pub(crate) fn of(span: Span, sources: Vec<Source>, ask: &Ask) -> Result<Self, AskError> {
        let roles = channels(&sources);
        let chosen: Vec<_> = match &ask.channel {
            None => roles,
            Some(name) => {
                let (mut chosen, others): (Vec<_>, Vec<_>) =
                    roles.into_iter().partition(|role| named(role.as_ref()) == *name);
                if chosen.is_empty() && !others.is_empty() {
                    let names: Vec<_> = others.iter().map(|role| named(role.as_ref())).collect();
                    return Err(AskError::Channel(names.join(", ")));
                }
                chosen.truncate(1);
                chosen
            }
        };
        let lane_of = |source: &Source| chosen.iter().position(|role| role.as_deref() == source.role());
        // Where each is, in seconds of the conversation.
        let placed: Vec<_> = sources
            .into_iter()
            .filter_map(|source| {
                let (lane, zero) = (lane_of(&source)?, source.zero_at().seconds_since(span.started_at));
                let (from, until) = source.extent(span)?;
                Some((lane, zero, (from, until), source))
            })
            .collect();
        let end = placed.iter().map(|(_, zero, (_, until), _)| zero + until).fold(0.0, f64::max);
        if placed.is_empty() {
            return Err(AskError::Nothing);
        }
        let begin = placed.iter().map(|(_, zero, (from, _), _)| zero + from).fold(0.0, f64::min);
        let (from, until) = (ask.from.unwrap_or(0.0).max(begin), ask.until.unwrap_or(end).min(end));
        if from >= until {
            return Err(AskError::Part(begin, end));
        }
        if until - from > ask.secs_max as f64 {
            return Err(AskError::TooLong(until - from, ask.secs_max));
        }
        let is_wanted = |zero: f64, extent: (f64, f64)| zero + extent.1 > from && zero + extent.0 < until;
        let placed: Vec<_> =
            placed.into_iter().filter(|(_, zero, extent, _)| is_wanted(*zero, *extent)).collect();
        // Silence has some rate too.
        let rate_hz = placed.iter().map(|(.., source)| source.rate_hz()).max().unwrap_or(16_000);
        let length = ((until - from) * f64::from(rate_hz)).round() as u64;
        let mut waiting: Vec<Track> = placed
            .into_iter()
            .map(|(lane, zero, extent, source)| Track::new(source, lane, zero - from, extent, rate_hz))
            .collect();
        if most_at_once(waiting.iter().map(Track::place)) > AT_ONCE_MAX {
            return Err(AskError::TooMany);
        }
        waiting.sort_by_key(|track| std::cmp::Reverse(track.place().0));
        let channels: Vec<String> = chosen.iter().map(|role| named(role.as_ref())).collect();
        let playback = Self { rate_hz, channels, length, made: 0, waiting, sounding: Vec::new() };
        if playback.header().is_none() {
            return Err(AskError::TooLarge);
        }
        Ok(playback)
    }

    /// The names of its channels.
    pub(crate) fn channels(&self) -> &[String] {
        &self.channels
    }

    fn header(&self) -> Option<Vec<u8>> {
        wav::header(self.rate_hz, u16::try_from(self.channels.len()).ok()?, self.length)
    }

    /// Bytes of the whole WAV file.
    pub(crate) fn bytes(&self) -> u64 {
        let header = self.header().map_or(0, |header| header.len() as u64);
        header + self.length * 2 * self.channels.len() as u64
    }

    /// Writes the WAV file.
    ///
    /// # Errors
    /// A file cannot be read, or what is written to has gone.
    pub(crate) fn write(mut self, mut out: impl std::io::Write) -> std::io::Result<()> {
        out.write_all(&self.header().unwrap_or_default())?;
        let mut bytes = Vec::new();
        while let Some(block) = self.next_block().map_err(std::io::Error::other)? {
            bytes.clear();
            bytes.extend(block.iter().flat_map(|sample| sample.to_le_bytes()));
            out.write_all(&bytes)?;
        }
        out.flush()
    }

    /// The next samples, interleaved; `None` at the end.
    fn next_block(&mut self) -> Result<Option<Vec<i16>>, FileError> {
        let each = BLOCK.min(usize::try_from(self.length - self.made).unwrap_or(BLOCK));
        if each == 0 {
            return Ok(None);
        }
        let lanes = self.channels.len();
        let mut block = vec![0; each * lanes];
        let begin = i64::try_from(self.made).unwrap_or(i64::MAX);
        let end = begin + each as i64;
        while self.waiting.last().is_some_and(|next| next.place().0 < end) {
            self.sounding.extend(self.waiting.pop());
        }
        for track in &mut self.sounding {
            track.mix_into(&mut block, lanes, begin)?;
        }
        self.sounding.retain(|track| !track.is_over(end));
        self.made += each as u64;
        Ok(Some(block))
    }
}

#[cfg(test)]
mod tests;
