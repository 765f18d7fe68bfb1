//! Where in a stream the audio that a service was sent comes from.
//!
//! A service counts what it is sent; a stream counts what was pushed. They differ by what was left out for want of room.

use std::collections::VecDeque;

/// Audio that was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// Samples sent before it.
    pub(super) sent: u64,
    /// Samples left out.
    pub(super) samples: u64,
}

/// Gaps that are remembered. Full: the stream fails, since it is given more than it can pass on.
const GAPS_MAX: usize = 1_000;

#[derive(Debug)]
pub(super) struct Timeline {
    rate_hz: f64,
    /// Of gaps that are covered.
    before: u64,
    gaps: VecDeque<Gap>,
}

impl Timeline {
    pub(super) fn new(rate_hz: u32) -> Self {
        Self { rate_hz: f64::from(rate_hz.max(1)), before: 0, gaps: VecDeque::new() }
    }

    /// Remembers a gap. False if there are too many.
    pub(super) fn add(&mut self, gap: Gap) -> bool {
        self.gaps.push_back(gap);
        self.gaps.len() <= GAPS_MAX
    }

    /// Samples sent, of seconds sent. No more than `sent_max`, whatever a service says.
    pub(super) fn sent(&self, secs: f64, sent_max: u64) -> u64 {
        // Saturates, and is 0 of what is no number.
        ((secs * self.rate_hz) as u64).min(sent_max)
    }

    /// The stream's position of a sample that was sent: of one behind a gap if it is the gap's.
    pub(super) fn position(&self, sent: u64) -> u64 {
        let behind = self.gaps.iter().take_while(|gap| gap.sent <= sent).map(|gap| gap.samples);
        sent + self.before + behind.sum::<u64>()
    }

    /// The stream's position behind the last of `sent` samples: before a gap that follows.
    pub(super) fn end(&self, sent: u64) -> u64 {
        let behind = self.gaps.iter().take_while(|gap| gap.sent < sent).map(|gap| gap.samples);
        sent + self.before + behind.sum::<u64>()
    }

    /// Seconds of the stream, of seconds sent.
    pub(super) fn secs(&self, secs: f64, sent_max: u64) -> f64 {
        if self.gaps.is_empty() && self.before == 0 {
            return secs.clamp(0.0, sent_max as f64 / self.rate_hz);
        }
        self.position(self.sent(secs, sent_max)) as f64 / self.rate_hz
    }

    /// Forgets gaps before `sent` samples, of which nothing more will be asked.
    pub(super) fn forget(&mut self, sent: u64) {
        while let Some(gap) = self.gaps.front().filter(|gap| gap.sent < sent) {
            self.before += gap.samples;
            self.gaps.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_moves_what_follows() {
        let mut timeline = Timeline::new(1_000);
        assert!(
            timeline.add(Gap { sent: 500, samples: 2_000 }) && timeline.add(Gap { sent: 800, samples: 100 })
        );
        assert_eq!(timeline.position(499), 499);
        assert_eq!((timeline.end(500), timeline.position(500)), (500, 2_500));
        assert_eq!((timeline.end(800), timeline.position(800)), (2_800, 2_900));
        assert_eq!(timeline.secs(0.4, 10_000), 0.4);
        assert_eq!(timeline.secs(0.9, 10_000), 3.0);
        timeline.forget(600);
        assert_eq!((timeline.position(700), timeline.position(800)), (2_700, 2_900));
    }

    #[test]
    fn a_service_cannot_have_heard_more_than_it_was_sent() {
        let timeline = Timeline::new(16_000);
        assert_eq!(timeline.sent(f64::INFINITY, 16_000), 16_000);
        assert_eq!(timeline.sent(f64::NAN, 16_000), 0);
        assert_eq!(timeline.sent(-3.0, 16_000), 0);
        assert_eq!(timeline.secs(9.0, 16_000), 1.0);
    }
}
