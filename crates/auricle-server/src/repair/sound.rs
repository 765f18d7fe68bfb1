//! A stretch of runs as PCM, a frame at a time, in time: what is missing in it is silence.

use auricle_audio::{Codec, Decoder};
use auricle_store::spool::{SpooledFrame, StoredRun};

use super::joined::Stretch;

/// A hole in spooled audio is kept as silence up to this long; the rest of it only shifts what follows.
const HOLE_SECS_MAX: u64 = 600;
/// What is decoded before a place that is skipped to.
const WARM_UP_MS: u64 = 200;

type Frames = Box<dyn Iterator<Item = SpooledFrame> + Send>;

/// Reads and decodes a stretch. Blocks on each chunk of its files.
pub(crate) struct Sound {
    /// (where its first frame is in the stretch, and in its run; its frames) of each run.
    parts: std::vec::IntoIter<(u64, u64, Frames)>,
    part: Option<(u64, u64, Frames)>,
    decoder: Decoder,
    given: u64,
    hole_max: u64,
    /// Frames that end before this sample of the stretch are passed over.
    from: u64,
}

/// A frame's samples.
pub(crate) struct Frame {
    /// Where it begins in the stretch. What is between it and the one before is silence.
    pub(crate) at: u64,
    pub(crate) pcm: Vec<i16>,
}

/// A frame's samples, and the silence before it.
pub(crate) struct Piece {
    pub(crate) pcm: Vec<i16>,
    /// Samples of the stretch that it stands for.
    pub(crate) samples: u64,
}

impl Sound {
    /// Errors: its codec or rate is none that can be decoded.
    pub(crate) fn of<R: AsRef<StoredRun>>(stretch: &Stretch<R>) -> Result<Self, String> {
        let header = stretch.header();
        let codec: Codec = header.codec.parse().map_err(|_| format!("codec {}", header.codec))?;
        let channels = u8::try_from(header.channels).unwrap_or(1);
        let decoder = Decoder::new(codec, header.sample_rate_hz, channels);
        let decoder = decoder.map_err(|error| error.to_string())?;
        let parts: Vec<(u64, u64, Frames)> = stretch
            .parts
            .iter()
            .map(|part| (part.begin, part.first, Box::new(part.run.as_ref().frames()) as Frames))
            .collect();
        let hole_max = u64::from(header.sample_rate_hz) * HOLE_SECS_MAX;
        Ok(Self { parts: parts.into_iter(), part: None, decoder, given: 0, hole_max, from: 0 })
    }

    /// Passes over what is well before this sample of the stretch. What comes next begins a little before it: decoders need a moment.
    pub(crate) fn skip_to(&mut self, sample: u64, rate_hz: u32) {
        self.from = sample.saturating_sub(u64::from(rate_hz) * WARM_UP_MS / 1_000);
    }

    /// The next frame; `None` at the end.
    pub(crate) fn next_frame(&mut self) -> Option<Frame> {
        loop {
            let Some((begin, first, frames)) = &mut self.part else {
                self.part = Some(self.parts.next()?);
                continue;
            };
            let (begin, first, from) = (*begin, *first, self.from);
            let at = |frame: &SpooledFrame| begin + frame.position.saturating_sub(first);
            let wanted =
                |frame: &SpooledFrame| frame.samples > 0 && at(frame) + u64::from(frame.samples) > from;
            let Some(frame) = frames.find(wanted) else {
                self.part = None;
                continue;
            };
            let at = at(&frame).max(self.given);
            let mut pcm = Vec::new();
            // A frame that does not decode now did not decode when it came either; keep time all the same.
            if self.decoder.decode(&frame.bytes, &mut pcm).is_err() {
                pcm.clear();
            }
            pcm.resize(frame.samples as usize, 0);
            self.given = at + u64::from(frame.samples);
            return Some(Frame { at, pcm });
        }
    }

    /// The next frame with the silence before it; `None` at the end.
    pub(crate) fn next_piece(&mut self) -> Option<Piece> {
        let before = self.given;
        let frame = self.next_frame()?;
        // Audio that was not spooled is silence here, so that what follows keeps its time.
        let mut pcm = vec![0; usize::try_from((frame.at - before).min(self.hole_max)).unwrap_or(0)];
        pcm.extend_from_slice(&frame.pcm);
        Some(Piece { pcm, samples: self.given - before })
    }
}
