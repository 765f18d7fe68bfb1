//! Where each sample that was sent came from.

use std::collections::VecDeque;

use auricle_core::Word;

/// Stretches of one stream that its engine has not decided. About an hour of speech: a stretch has a pause behind it. Full:
/// silence is sent as well, which needs no new stretch, until the engine has decided something.
pub(super) const PIECES_MAX: usize = 4_096;

/// A stretch that was sent whole. Positions of its first sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    sent: u64,
    stream: u64,
}

/// From positions of what was sent to positions of the stream. Both count samples at the stream's rate.
///
/// Monotone: a later sample that was sent came later.
#[derive(Debug, Default)]
pub(super) struct Map {
    pieces: VecDeque<Piece>,
    sent: u64,
}

impl Map {
    /// Notes that `samples` of the stream, from `at` on, were sent. `at` is never before the end of what was sent last.
    pub(super) fn send(&mut self, at: u64, samples: u64) {
        if samples == 0 {
            return;
        }
        if self.pieces.is_empty() || at != self.end() {
            self.pieces.push_back(Piece { sent: self.sent, stream: at });
        }
        self.sent += samples;
    }

    /// Samples sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn is_full(&self) -> bool {
        self.pieces.len() >= PIECES_MAX
    }

    /// Position in the stream behind the last sample sent.
    pub(super) fn end(&self) -> u64 {
        self.pieces.back().map_or(0, |last| last.stream + (self.sent - last.sent))
    }

    /// The piece that holds the sample at `sent`, and where it ends among what was sent. The first or last one for a position
    /// that is forgotten or not sent yet.
    fn piece(&self, sent: u64) -> Option<(Piece, u64)> {
        let behind = self.pieces.partition_point(|piece| piece.sent <= sent);
        let at = behind.saturating_sub(1);
        let piece = *self.pieces.get(at)?;
        Some((piece, self.pieces.get(at + 1).map_or(self.sent, |next| next.sent)))
    }

    /// Where the sample at `sent` came from; for the end of a piece, where the next one begins.
    pub(super) fn start_of(&self, sent: u64) -> u64 {
        self.piece(sent).map_or(0, |(piece, end)| piece.stream + sent.clamp(piece.sent, end) - piece.sent)
    }

    /// The position behind the sample before `sent`.
    pub(super) fn end_of(&self, sent: u64) -> u64 {
        self.start_of(sent.saturating_sub(1)) + u64::from(sent > 0)
    }

    /// Puts a word on the stream's clock, as long as it was: it belongs to the stretch that holds its middle, and does not
    /// reach beyond it.
    pub(super) fn place(&self, word: &mut Word, rate_hz: u32) {
        let rate = f64::from(rate_hz.max(1));
        let middle = (word.start + word.end) / 2.0 * rate;
        let Some((piece, end)) = self.piece(middle.max(0.0) as u64) else { return };
        let on_stream = |secs: f64| {
            let sent = (secs * rate).clamp(piece.sent as f64, end as f64);
            (piece.stream as f64 + (sent - piece.sent as f64)) / rate
        };
        (word.start, word.end) = (on_stream(word.start), on_stream(word.end));
    }

    /// Lets go of what lies before `sent`, except the stretch that ends there: words of it may still be named.
    pub(super) fn forget(&mut self, sent: u64) {
        while self.pieces.get(2).is_some_and(|third| third.sent <= sent) {
            self.pieces.pop_front();
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }
}
