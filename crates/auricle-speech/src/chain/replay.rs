//! Audio that no engine has decided yet, kept to be played to the next one.
//!
//! As packets, or one byte a sample ([`Packets`]), since a thousand sessions keep a few seconds each at any time. Bounded for each
//! stream, and for all of the process by a [`Budget`]; both drop the oldest.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use auricle_audio::packets::{Frame, Packets, Player};
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
    kept: Packets,
    samples_max: u64,
    budget: Budget,
    /// In the process's account of bytes held for clients.
    share: Share,
}

impl Replay {
    pub(super) fn new(samples_max: usize, budget: Budget, share: Share) -> Self {
        Self { kept: Packets::default(), samples_max: samples_max as u64, budget, share }
    }

    /// Position of the oldest sample kept.
    pub(super) fn from(&self) -> u64 {
        self.kept.from()
    }

    /// Position behind the newest.
    pub(super) fn end(&self) -> u64 {
        self.kept.end()
    }

    /// What the oldest sample's position would be with `samples` more, as far as this stream's own bound goes.
    pub(super) fn oldest_with(&self, samples: usize) -> u64 {
        self.from().max((self.end() + samples as u64).saturating_sub(self.samples_max))
    }

    /// Keeps what follows; of the oldest as little is dropped as must be.
    pub(super) fn push(&mut self, pcm: &[i16]) {
        self.kept.push_pcm(pcm);
        self.fit();
    }

    /// As [`Self::push`], as it was received if that is smaller.
    pub(super) fn push_frame(&mut self, frame: &mut Frame<'_>) {
        self.kept.push(frame);
        self.fit();
    }

    /// Keeps `kept`, before anything else and as long as that is.
    pub(super) fn begin_with(&mut self, kept: Packets) {
        self.samples_max = self.samples_max.max(kept.end());
        self.kept = kept;
        self.fit();
    }

    fn fit(&mut self) {
        let others = self.budget.bytes().saturating_sub(self.share.bytes());
        let room = self.budget.max.saturating_sub(others);
        let before = self.from();
        loop {
            let samples = (self.end() - self.from()).saturating_sub(self.samples_max);
            let bytes = self.kept.bytes().saturating_sub(room) as u64;
            if samples.max(bytes) == 0 || self.kept.drop_oldest(samples.max(bytes)) == 0 {
                break;
            }
        }
        if self.from() > before {
            metrics::counter!("auricle_speech_replay_dropped_samples_total").increment(self.from() - before);
        }
        self.count();
    }

    /// Audio that was not kept, since no engine will be played it.
    pub(super) fn skip(&mut self, samples: u64) {
        self.kept.skip(samples);
        self.count();
    }

    /// What is before `until` is decided.
    pub(super) fn forget(&mut self, until: u64) {
        if until > self.from() {
            self.kept.forget(until);
            self.count();
        }
    }

    /// Keeps nothing of what came so far.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
        self.count();
    }

    /// Appends up to `samples_max` that `player` has not played yet, or a packet more. False if they are not kept any more.
    pub(super) fn play(&self, player: &mut Player, samples_max: usize, out: &mut Vec<i16>) -> bool {
        self.kept.play(player, samples_max, out)
    }

    fn count(&mut self) {
        let (before, now) = (self.share.bytes(), self.kept.bytes());
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
        self.clear();
    }
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
        assert!(replay.play(&mut Player::new(position), count, &mut out));
        out
    }

    #[test]
    fn what_was_decided_goes_and_the_rest_is_played_from_where_one_wants() {
        let mut replay = replay(100, &Budget::new(1_000));
        replay.push(&[1_000; 30]);
        replay.push(&[-1_000; 30]);
        replay.forget(20);
        assert_eq!((replay.from(), replay.end()), (20, 60));
        let heard = read(&replay, 25, 10);
        assert!(heard[..5].iter().all(|s| *s > 900) && heard[5..].iter().all(|s| *s < -900), "{heard:?}");
        assert_eq!(read(&replay, 55, 100).len(), 5);
        assert!(read(&replay, 60, 100).is_empty());
        assert!(!replay.play(&mut Player::new(19), 1, &mut Vec::new()));
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
        // Each stretch costs 8 bytes beside its samples.
        let budget = Budget::new(166);
        let mut one = replay(100, &budget);
        let mut other = replay(100, &budget);
        one.push(&[0; 100]);
        other.push(&[0; 100]);
        assert_eq!((other.from(), other.end(), budget.bytes()), (50, 100, 166));
        drop(one);
        other.push(&[0; 40]);
        assert_eq!((other.from(), budget.bytes()), (50, 98));
        drop(other);
        assert_eq!(budget.bytes(), 0);
    }
}
