//! One source in a recording: read as it is needed, brought to the recording's rate, and put where it belongs.

use std::collections::VecDeque;

use auricle_audio::file::FileError;
use auricle_audio::resample::Resampler;

use crate::repair::sound::{Frame, Sound};
use crate::retranscribe::sources::Source;
use crate::speech::file::Pcm;

/// Silence behind the end, as a part of a second, which brings out what the resampler holds back.
const TAIL: u32 = 25;

pub(super) struct Track {
    pub(super) lane: usize,
    source: Source,
    /// Of the source.
    rate_hz: u32,
    /// Of the recording.
    out_hz: u32,
    /// The source's zero, in seconds of the recording.
    zero: f64,
    /// What of it is heard, in its own samples: from, until.
    cut: (u64, u64),
    /// `None` before it begins.
    playing: Option<Playing>,
    /// Its end was read.
    ended: bool,
}

enum Reader {
    Runs(Box<Sound>),
    File { pcm: Box<dyn Pcm>, at: u64 },
}

struct Playing {
    reader: Reader,
    resampler: Resampler,
    /// The sample of the source that would go on with what came before.
    expected: Option<u64>,
    /// Where what comes out of the resampler next begins, in samples of the recording.
    at: i64,
    /// What was read and is not over: where it begins, and the samples.
    ready: VecDeque<(i64, Vec<i16>)>,
}

impl Reader {
    fn next(&mut self) -> Result<Option<Frame>, FileError> {
        match self {
            Self::Runs(sound) => Ok(sound.next_frame()),
            Self::File { pcm: file, at } => {
                let mut pcm = Vec::new();
                while file.read(&mut pcm)? {
                    if !pcm.is_empty() {
                        break;
                    }
                }
                let begin = *at;
                *at += pcm.len() as u64;
                Ok((!pcm.is_empty()).then_some(Frame { at: begin, pcm }))
            }
        }
    }
}

impl Track {
    /// `zero`: where the source begins; `extent`: what of it is heard, in seconds of its own.
    pub(super) fn new(source: Source, lane: usize, zero: f64, extent: (f64, f64), out_hz: u32) -> Self {
        let rate_hz = source.rate_hz().max(1);
        let samples = |secs: f64| (secs.max(0.0) * f64::from(rate_hz)).round() as u64;
        // What was before the recording begins is passed over.
        let cut = (samples(extent.0.max(-zero)), samples(extent.1));
        Self { lane, source, rate_hz, out_hz, zero, cut, playing: None, ended: false }
    }

    /// Where a sample of the source is in the recording.
    fn out(&self, sample: u64) -> i64 {
        ((self.zero + sample as f64 / f64::from(self.rate_hz)) * f64::from(self.out_hz)).round() as i64
    }

    /// Where it begins and ends, in samples of the recording.
    pub(super) fn place(&self) -> (i64, i64) {
        (self.out(self.cut.0), self.out(self.cut.1))
    }

    /// Whether nothing of it comes at `at` or later.
    pub(super) fn is_over(&self, at: i64) -> bool {
        let is_played = self.playing.as_ref().is_none_or(|playing| playing.ready.is_empty());
        (self.ended && is_played) || self.place().1 <= at
    }

    fn open(&self) -> Result<Playing, FileError> {
        let reader = match &self.source {
            Source::Runs(stretch) => {
                let mut sound = Sound::of(stretch).map_err(FileError::Unsupported)?;
                sound.skip_to(self.cut.0, self.rate_hz);
                Reader::Runs(Box::new(sound))
            }
            Source::File(..) => Reader::File { pcm: self.source.opener(u32::MAX)()?, at: 0 },
        };
        let resampler = Resampler::new(self.rate_hz, self.out_hz);
        Ok(Playing { reader, resampler, expected: None, at: 0, ready: VecDeque::new() })
    }

    /// Adds what of it sounds from `begin` on to a block of `lanes` channels.
    pub(super) fn mix_into(&mut self, block: &mut [i16], lanes: usize, begin: i64) -> Result<(), FileError> {
        let end = begin + (block.len() / lanes) as i64;
        let mut playing = match self.playing.take() {
            Some(playing) => playing,
            None => self.open()?,
        };
        while !self.ended && playing.ready.back().is_none_or(|(at, pcm)| at + (pcm.len() as i64) < end) {
            self.read(&mut playing)?;
        }
        for (at, pcm) in &playing.ready {
            // In the piece and in the block.
            let (skip, place) = ((begin - at).max(0) as usize, (at - begin).max(0) as usize);
            let heard = pcm.iter().skip(skip);
            let slots = block.iter_mut().skip(place * lanes + self.lane).step_by(lanes);
            for (slot, sample) in slots.zip(heard) {
                *slot = slot.saturating_add(*sample);
            }
        }
        while playing.ready.front().is_some_and(|(at, pcm)| at + pcm.len() as i64 <= end) {
            playing.ready.pop_front();
        }
        self.playing = Some(playing);
        Ok(())
    }

    /// Reads a piece, and leaves what is not wanted of it.
    fn read(&mut self, playing: &mut Playing) -> Result<(), FileError> {
        let frame = playing.reader.next()?.filter(|frame| frame.at < self.cut.1);
        let Some(Frame { at, mut pcm }) = frame else {
            self.ended = true;
            self.flush(playing);
            return Ok(());
        };
        pcm.truncate(usize::try_from(self.cut.1 - at).unwrap_or(usize::MAX));
        let early = usize::try_from(self.cut.0.saturating_sub(at)).unwrap_or(usize::MAX).min(pcm.len());
        pcm.drain(..early);
        if pcm.is_empty() {
            return Ok(());
        }
        let at = at + early as u64;
        if playing.expected != Some(at) {
            self.flush(playing);
            playing.resampler = Resampler::new(self.rate_hz, self.out_hz);
            playing.at = self.out(at);
        }
        playing.expected = Some(at + pcm.len() as u64);
        playing.push(&pcm);
        Ok(())
    }

    /// Brings out what the resampler holds back.
    fn flush(&self, playing: &mut Playing) {
        if self.rate_hz != self.out_hz && playing.expected.is_some() {
            playing.push(&vec![0; (self.rate_hz / TAIL) as usize]);
        }
    }
}

impl Playing {
    fn push(&mut self, pcm: &[i16]) {
        let mut out = Vec::new();
        self.resampler.push(pcm, &mut out);
        if !out.is_empty() {
            let begin = self.at;
            self.at += out.len() as i64;
            self.ready.push_back((begin, out));
        }
    }
}
