//! Audio on its way to a service, bounded.

use std::collections::VecDeque;

use auricle_core::Share;

use super::timeline::Gap;

/// What is to be sent next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// 16-bit little-endian samples.
    Audio { bytes: Vec<u8>, samples: u64 },
    /// All that was pushed before a flush has been taken.
    Flush,
    /// All has been taken and no more follows.
    Finish,
    /// Not enough yet.
    Nothing,
}

/// Audio that was not taken: told once there is room again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Skip {
    /// The stream's position of its first sample.
    pub(super) from: u64,
    pub(super) gap: Gap,
}

/// What a session has pushed and the connection has not taken.
#[derive(Debug)]
pub(super) struct Backlog {
    samples: VecDeque<i16>,
    samples_max: usize,
    /// All that was pushed, and that of it which was accepted.
    pushed: u64,
    accepted: u64,
    /// Where leaving out began.
    skipping_from: Option<u64>,
    /// Skips that were not told yet; one for each time that there was room again.
    skips: VecDeque<Skip>,
    /// `accepted` at the last flush that has not been taken.
    flush_at: Option<u64>,
    finishing: bool,
    finish_taken: bool,
    /// Nothing is taken any more.
    closed: bool,
    held: Share,
}

/// Skips that wait to be told. Full: the stream goes on leaving out, as if there were no room.
const SKIPS_MAX: usize = 64;

impl Backlog {
    pub(super) fn new(samples_max: usize, held: Share) -> Self {
        Self {
            samples: VecDeque::new(),
            samples_max,
            pushed: 0,
            accepted: 0,
            skipping_from: None,
            skips: VecDeque::new(),
            flush_at: None,
            finishing: false,
            finish_taken: false,
            closed: false,
            held,
        }
    }

    /// False if there is no room for all of `pcm`: then none of it is kept.
    pub(super) fn push(&mut self, pcm: &[i16]) -> bool {
        if self.closed || self.finishing {
            return false;
        }
        let from = self.pushed;
        self.pushed += pcm.len() as u64;
        // A connection that takes nothing for a while shall be given whole stretches, not scraps.
        let room = if self.skipping_from.is_some() { self.samples_max / 2 } else { self.samples_max };
        let full = self.samples.len() + pcm.len() > room;
        if full || (self.skipping_from.is_some() && self.skips.len() >= SKIPS_MAX) {
            self.skipping_from.get_or_insert(from);
            return false;
        }
        self.end_skip(from);
        self.samples.extend(pcm);
        self.accepted += pcm.len() as u64;
        self.count();
        true
    }

    fn end_skip(&mut self, until: u64) {
        if let Some(from) = self.skipping_from.take() {
            let gap = Gap { sent: self.accepted, samples: until - from };
            self.skips.push_back(Skip { from, gap });
        }
    }

    pub(super) fn flush(&mut self) {
        self.flush_at = Some(self.accepted);
    }

    pub(super) fn finish(&mut self) {
        if !self.finishing {
            self.end_skip(self.pushed);
            self.finishing = true;
        }
    }

    /// Takes up to `most` samples, but none if there are fewer than `least` and more may come.
    pub(super) fn take(&mut self, least: usize, most: usize) -> Next {
        let taken = self.accepted - self.samples.len() as u64;
        let until_flush =
            self.flush_at.map(|at| usize::try_from(at.saturating_sub(taken)).unwrap_or(usize::MAX));
        if until_flush == Some(0) {
            self.flush_at = None;
            return Next::Flush;
        }
        let whole = self.samples.len() >= least || self.finishing || until_flush.is_some();
        let count = self.samples.len().min(most).min(until_flush.unwrap_or(usize::MAX));
        if whole && count > 0 {
            let bytes = self.samples.drain(..count).flat_map(i16::to_le_bytes).collect();
            self.count();
            return Next::Audio { bytes, samples: count as u64 };
        }
        if self.finishing && !self.finish_taken {
            self.finish_taken = true;
            return Next::Finish;
        }
        Next::Nothing
    }

    /// The oldest skip that was not told.
    pub(super) fn take_skip(&mut self) -> Option<Skip> {
        self.skips.pop_front()
    }

    /// Nothing more is taken.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.samples = VecDeque::new();
        self.count();
    }

    /// Samples that wait.
    pub(super) fn waiting(&self) -> usize {
        self.samples.len()
    }

    /// All samples that were accepted so far.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Whether there is anything to connect for: audio, or its end.
    pub(super) fn is_wanted(&self) -> bool {
        self.accepted > 0 || self.finishing
    }

    fn count(&mut self) {
        self.held.set(self.samples.len() * size_of::<i16>());
    }
}

#[cfg(test)]
mod tests {
    use auricle_core::Account;

    use super::*;

    fn samples(next: Next) -> usize {
        match next {
            Next::Audio { bytes, samples } => {
                assert_eq!(bytes.len() as u64, samples * 2);
                bytes.len() / 2
            }
            _ => 0,
        }
    }

    #[test]
    fn audio_is_taken_in_pieces_and_the_rest_at_the_end() {
        let mut backlog = Backlog::new(1_000, Share::default());
        assert!(!backlog.is_wanted());
        assert!(backlog.push(&[1; 100]));
        assert_eq!(backlog.take(480, 2_000), Next::Nothing);
        backlog.flush();
        assert!(backlog.push(&[2; 30]));
        assert_eq!(samples(backlog.take(480, 2_000)), 100, "up to the flush");
        assert_eq!(backlog.take(480, 2_000), Next::Flush);
        assert_eq!(backlog.take(480, 2_000), Next::Nothing);
        backlog.finish();
        assert!(!backlog.push(&[3; 10]), "nothing follows the end");
        assert_eq!(samples(backlog.take(480, 20)), 20);
        assert_eq!(samples(backlog.take(480, 20)), 10);
        assert_eq!(backlog.take(480, 20), Next::Finish);
        assert_eq!(backlog.take(480, 20), Next::Nothing);
    }

    #[test]
    fn what_has_no_room_is_left_out_as_a_whole_and_told_when_there_is_room_again() {
        let account = Account::default();
        let mut backlog = Backlog::new(1_000, account.share());
        assert!(backlog.push(&[1; 900]));
        assert!(!backlog.push(&[1; 200]));
        assert!(!backlog.push(&[1; 50]), "half of it must be free first");
        assert_eq!((account.bytes(), backlog.take_skip()), (1_800, None));
        assert_eq!(samples(backlog.take(1, 700)), 700);
        assert!(backlog.push(&[1; 50]));
        let skip = Skip { from: 900, gap: Gap { sent: 900, samples: 250 } };
        assert_eq!((backlog.take_skip(), backlog.take_skip()), (Some(skip), None));
        backlog.close();
        assert_eq!(account.bytes(), 0);
        assert!(!backlog.push(&[1]));
    }
}
