//! A stretch of runs as PCM, a frame at a time, in time: what is missing in it is silence.

use auricle_audio::{Codec, Decoder};
use auricle_store::spool::{SpooledFrame, StoredRun};

use super::joined::Stretch;

/// A hole in spooled audio is kept as silence up to this long; the rest of it only shifts what follows.
const HOLE_SECS_MAX: u64 = 600;

type Frames = Box<dyn Iterator<Item = SpooledFrame> + Send>;

/// Reads and decodes a stretch. Blocks on each chunk of its files.
pub(crate) struct Sound {
    /// (where its first frame is in the stretch, and in its run; its frames) of each run.
    parts: std::vec::IntoIter<(u64, u64, Frames)>,
    part: Option<(u64, u64, Frames)>,
    decoder: Decoder,
    given: u64,
    hole_max: u64,
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
        Ok(Self { parts: parts.into_iter(), part: None, decoder, given: 0, hole_max })
    }

    /// The next frame; `None` at the end.
    pub(crate) fn next_piece(&mut self) -> Option<Piece> {
        loop {
            let Some((begin, first, frames)) = &mut self.part else {
                self.part = Some(self.parts.next()?);
                continue;
            };
            let (begin, first) = (*begin, *first);
            let Some(frame) = frames.find(|frame| frame.samples > 0) else {
                self.part = None;
                continue;
            };
            // Audio that was not spooled is silence here, so that what follows keeps its time.
            let hole = (begin + frame.position.saturating_sub(first)).saturating_sub(self.given);
            let mut pcm = vec![0; usize::try_from(hole.min(self.hole_max)).unwrap_or(0)];
            let silent = pcm.len();
            // A frame that does not decode now did not decode when it came either; keep time all the same.
            if self.decoder.decode(&frame.bytes, &mut pcm).is_err() {
                pcm.truncate(silent);
            }
            pcm.resize(silent + frame.samples as usize, 0);
            let samples = hole + u64::from(frame.samples);
            self.given += samples;
            return Some(Piece { pcm, samples });
        }
    }
}
