//! Audio that no engine has decided yet, kept to be played to the next one.
//!
//! One byte a sample (G.711 µ-law: what telephone lines carry, and every recogniser hears), since a thousand sessions keep a few
//! seconds each at any time. Bounded for each stream, and for all of the process by a [`Budget`]; both drop the oldest.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use auricle_core::Share;

/// What all streams of the process keep together.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    held: Arc<AtomicUsize>,
    max: usize,
}

impl Budget {
    pub(super) fn new(max: usize) -> Self {
        Self { held: Arc::default(), max }
    }

    pub(super) fn bytes(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// One stream's audio from `from` on. Positions are samples of the stream.
#[derive(Debug)]
pub(super) struct Replay {
    bytes: VecDeque<u8>,
    from: u64,
    max: usize,
    budget: Budget,
    /// In the process's account of bytes held for clients.
    share: Share,
}

impl Replay {
    pub(super) fn new(max: usize, budget: Budget, share: Share) -> Self {
        Self { bytes: VecDeque::new(), from: 0, max, budget, share }
    }

    /// Position of the oldest sample kept.
    pub(super) fn from(&self) -> u64 {
        self.from
    }

    /// Position behind the newest.
    pub(super) fn end(&self) -> u64 {
        self.from + self.bytes.len() as u64
    }

    /// Keeps what follows; of the oldest as little is dropped as must be.
    pub(super) fn push(&mut self, pcm: &[i16]) {
        let others = self.budget.bytes().saturating_sub(self.share.bytes());
        let room = self.max.min(self.budget.max.saturating_sub(others));
        let over = (self.bytes.len() + pcm.len()).saturating_sub(room);
        if over > 0 {
            metrics::counter!("auricle_speech_replay_dropped_samples_total").increment(over as u64);
        }
        let kept = over.min(self.bytes.len());
        self.bytes.drain(..kept);
        let skipped = over - kept;
        self.from += over as u64;
        self.bytes.extend(pcm[skipped..].iter().map(|sample| compress(*sample)));
        self.count();
    }

    /// Audio that was not kept, since no engine will be played it.
    pub(super) fn skip(&mut self, samples: u64) {
        let end = self.end() + samples;
        self.bytes.clear();
        self.from = end;
        self.count();
    }

    /// What is before `until` is decided.
    pub(super) fn forget(&mut self, until: u64) {
        let gone =
            usize::try_from(until.saturating_sub(self.from)).unwrap_or(usize::MAX).min(self.bytes.len());
        if gone == 0 {
            return;
        }
        self.bytes.drain(..gone);
        self.from += gone as u64;
        // A session at rest keeps no buffer of its busiest moment.
        if self.bytes.capacity() > 4 * self.bytes.len().max(4_096) {
            self.bytes.shrink_to(2 * self.bytes.len());
        }
        self.count();
    }

    /// Up to `count` samples from `position` on.
    pub(super) fn read(&self, position: u64, count: usize, out: &mut Vec<i16>) {
        out.clear();
        let at =
            usize::try_from(position.saturating_sub(self.from)).unwrap_or(usize::MAX).min(self.bytes.len());
        let end = at.saturating_add(count).min(self.bytes.len());
        out.extend(self.bytes.range(at..end).map(|byte| expand(*byte)));
    }

    fn count(&mut self) {
        let (before, now) = (self.share.bytes(), self.bytes.len());
        if now > before {
            self.budget.held.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.budget.held.fetch_sub(before - now, Ordering::Relaxed);
        }
        self.share.set(now);
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.bytes.clear();
        self.count();
    }
}

const BIAS: i32 = 0x84;
const CLIP: i32 = 32_635;

/// Source: ITU-T G.711, µ-law.
fn compress(sample: i16) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = i32::from(sample).abs().min(CLIP) + BIAS;
    // The highest bit of a biased magnitude is one of 7 to 14.
    let exponent = (31 - magnitude.leading_zeros() as i32) - 7;
    let mantissa = (magnitude >> (exponent + 3)) & 0x0F;
    !(sign | (exponent << 4) | mantissa) as u8
}

fn expand(byte: u8) -> i16 {
    let code = i32::from(!byte);
    let (exponent, mantissa) = ((code >> 4) & 0x07, code & 0x0F);
    let magnitude = (((mantissa << 3) + BIAS) << exponent) - BIAS;
    (if code & 0x80 != 0 { -magnitude } else { magnitude }) as i16
}

#[cfg(test)]
mod tests {
    use auricle_core::Account;

    use super::*;

    fn replay(max: usize, budget: &Budget) -> Replay {
        Replay::new(max, budget.clone(), Account::default().share())
    }

    fn read(replay: &Replay, position: u64, count: usize) -> Vec<i16> {
        let mut out = Vec::new();
        replay.read(position, count, &mut out);
        out
    }

    #[test]
    fn sound_survives_to_within_a_thirtieth_of_itself() {
        for sample in i16::MIN..=i16::MAX {
            let error = (i32::from(expand(compress(sample))) - i32::from(sample)).abs();
            assert!(error <= 8 + i32::from(sample).abs() / 30, "{sample}: off by {error}");
        }
        assert_eq!(expand(compress(0)), 0);
    }

    #[test]
    fn what_was_decided_goes_and_the_rest_is_read_from_where_one_wants() {
        let mut replay = replay(100, &Budget::new(1_000));
        replay.push(&[1_000; 30]);
        replay.push(&[-1_000; 30]);
        replay.forget(20);
        assert_eq!((replay.from(), replay.end()), (20, 60));
        let heard = read(&replay, 25, 10);
        assert!(heard[..5].iter().all(|s| *s > 900) && heard[5..].iter().all(|s| *s < -900), "{heard:?}");
        assert_eq!(read(&replay, 55, 100).len(), 5);
        assert!(read(&replay, 60, 100).is_empty());
    }

    #[test]
    fn a_full_one_drops_its_oldest_and_one_longer_push_keeps_its_end() {
        let mut replay = replay(100, &Budget::new(1_000));
        replay.push(&[0; 90]);
        replay.push(&[0; 30]);
        assert_eq!((replay.from(), replay.end()), (20, 120));
        replay.push(&[0; 500]);
        assert_eq!((replay.from(), replay.end()), (520, 620));
        replay.skip(80);
        assert_eq!((replay.from(), replay.end()), (700, 700));
    }

    #[test]
    fn all_together_keep_no_more_than_the_process_may() {
        let budget = Budget::new(150);
        let mut one = replay(100, &budget);
        let mut other = replay(100, &budget);
        one.push(&[0; 100]);
        other.push(&[0; 100]);
        assert_eq!((other.from(), other.end(), budget.bytes()), (50, 100, 150));
        drop(one);
        other.push(&[0; 40]);
        assert_eq!((other.from(), budget.bytes()), (50, 90));
        drop(other);
        assert_eq!(budget.bytes(), 0);
    }
}
