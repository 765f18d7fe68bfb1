//! Which segments of a session are translated together, and when: a pure machine.
//!
//! A segment grows while somebody speaks, so it is left alone until it has been quiet for a moment, or has waited for long
//! enough. One batch is on its way at a time; what is said meanwhile gathers, the latest text of a segment in the place of the
//! earlier. Nothing here is ever waited for: what does not fit, or comes back for a text that has changed since, is dropped and
//! counted by reason.
//!
//! Use: [`Batcher::heard`] and [`Batcher::deleted`] as segments are stored; [`Batcher::poll`] after each and at
//! [`Batcher::timeout`]; [`Batcher::answered`] or [`Batcher::failed`] once for each batch.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::ids::{ConversationId, SegmentId};
use crate::limits::Limits;

/// A text that is to be translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Where it was said.
    pub conversation: ConversationId,
    /// Which segment it is the text of.
    pub segment: SegmentId,
    /// As it was stored.
    pub text: String,
}

/// Why texts are not translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// More waited than may: the oldest went.
    Full,
    /// The segment has another text by now, which is translated in its place.
    Superseded,
    /// The segment is gone.
    Deleted,
    /// It is longer than a text may be.
    TooLong,
    /// The model did not bring it.
    Failed,
    /// Nobody has said into which language.
    NoLanguage,
    /// The session is over, and time with it.
    Ended,
}

impl Dropped {
    /// For metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Superseded => "superseded",
            Self::Deleted => "deleted",
            Self::TooLong => "too_long",
            Self::Failed => "failed",
            Self::NoLanguage => "no_language",
            Self::Ended => "ended",
        }
    }
}

#[derive(Debug)]
struct Waiting {
    item: Item,
    first: Instant,
    last: Instant,
}

/// Gathers one session's segments into batches. Reads no clock.
#[derive(Debug)]
pub struct Batcher {
    quiet: Duration,
    wait_max: Duration,
    items_max: usize,
    chars_max: usize,
    waiting_max: usize,
    waiting: VecDeque<Waiting>,
    in_flight: Option<Vec<Item>>,
    /// The last batch that came back: the last segment of a transcript is stored again, unchanged, with each that follows it.
    settled: Vec<Item>,
    not_before: Option<Instant>,
    ending: bool,
    dropped: Vec<(Dropped, usize)>,
}

impl Batcher {
    /// Nothing waits.
    pub fn new(limits: &Limits) -> Self {
        Self {
            quiet: limits.translation_quiet,
            wait_max: limits.translation_wait_max.max(limits.translation_quiet),
            items_max: limits.translation_batch_segments_max.max(1),
            chars_max: limits.translation_batch_chars_max.max(1),
            waiting_max: limits.translation_waiting_max.max(1),
            waiting: VecDeque::new(),
            in_flight: None,
            settled: Vec::new(),
            not_before: None,
            ending: false,
            dropped: Vec::new(),
        }
    }

    /// A segment was stored with this text.
    pub fn heard(&mut self, now: Instant, item: Item) {
        if item.text.trim().is_empty() {
            return self.deleted(&item.segment);
        }
        if item.text.chars().count() > self.chars_max {
            self.forget(&item.segment);
            return self.drop_some(Dropped::TooLong, 1);
        }
        if let Some(at) = self.place(&item.segment) {
            let known = &mut self.waiting[at];
            if known.item.text != item.text {
                known.last = now;
                known.item = item;
                self.drop_some(Dropped::Superseded, 1);
            }
            return;
        }
        if self.in_flight.iter().flatten().chain(&self.settled).any(|known| *known == item) {
            // Only its speaker or its times are new, or nothing is.
            return;
        }
        if self.waiting.len() >= self.waiting_max {
            self.waiting.pop_front();
            self.drop_some(Dropped::Full, 1);
        }
        self.waiting.push_back(Waiting { item, first: now, last: now });
    }

    /// A segment is gone.
    pub fn deleted(&mut self, segment: &SegmentId) {
        if self.forget(segment) {
            self.drop_some(Dropped::Deleted, 1);
        }
    }

    /// The session is over: what waits is ready at once.
    pub fn end(&mut self) {
        self.ending = true;
    }

    /// The next batch, if one is ready and none is on its way.
    pub fn poll(&mut self, now: Instant) -> Option<Vec<Item>> {
        if self.in_flight.is_some() || self.ready_at()? > now {
            return None;
        }
        let (mut batch, mut chars) = (Vec::new(), 0);
        let mut left = VecDeque::with_capacity(self.waiting.len());
        for waiting in self.waiting.drain(..) {
            let length = waiting.item.text.chars().count();
            // Those behind it in time are no more ready than it is, so the order is kept.
            let is_ready = self.ending || ready_at(&waiting, self.quiet, self.wait_max) <= now;
            if is_ready
                && left.is_empty()
                && batch.len() < self.items_max
                && (chars + length <= self.chars_max || batch.is_empty())
            {
                chars += length;
                batch.push(waiting.item);
            } else {
                left.push_back(waiting);
            }
        }
        self.waiting = left;
        if batch.is_empty() {
            return None;
        }
        self.in_flight = Some(batch.clone());
        Some(batch)
    }

    /// When to poll again if nothing else happens; `None` while there is nothing to wait for.
    pub fn timeout(&self) -> Option<Instant> {
        if self.in_flight.is_some() { None } else { self.ready_at() }
    }

    /// The batch came back: which of its items are still wanted, since nothing newer was heard of them.
    pub fn answered(&mut self) -> Vec<Item> {
        let Some(batch) = self.in_flight.take() else { return Vec::new() };
        let all = batch.len();
        let wanted: Vec<_> = batch.into_iter().filter(|item| self.place(&item.segment).is_none()).collect();
        self.drop_some(Dropped::Superseded, all - wanted.len());
        self.settled.clone_from(&wanted);
        wanted
    }

    /// The batch did not come back, and another is not to be tried before then. Its texts are not tried again by themselves: by
    /// then they are long past.
    pub fn failed(&mut self, why: Dropped, not_before: Instant) {
        let batch = self.in_flight.take().unwrap_or_default();
        self.not_before = Some(not_before);
        self.drop_some(why, batch.len());
    }

    /// Nothing more will be done: all that waits is dropped.
    pub fn give_up(&mut self) {
        let left = self.waiting.len() + self.in_flight.take().map_or(0, |batch| batch.len());
        self.waiting.clear();
        self.drop_some(Dropped::Ended, left);
    }

    /// Whether nothing waits and nothing is on its way.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_none()
    }

    /// What was dropped since this was last asked.
    pub fn take_dropped(&mut self) -> Vec<(Dropped, usize)> {
        std::mem::take(&mut self.dropped)
    }

    fn ready_at(&self) -> Option<Instant> {
        let first = self.waiting.front()?;
        let ready = if self.ending { first.first } else { ready_at(first, self.quiet, self.wait_max) };
        Some(self.not_before.map_or(ready, |at| ready.max(at)))
    }

    fn place(&self, segment: &SegmentId) -> Option<usize> {
        self.waiting.iter().position(|waiting| waiting.item.segment == *segment)
    }

    fn forget(&mut self, segment: &SegmentId) -> bool {
        let at = self.place(segment);
        at.map(|at| self.waiting.remove(at)).is_some()
    }

    fn drop_some(&mut self, why: Dropped, number: usize) {
        if number > 0 {
            self.dropped.push((why, number));
        }
    }
}

fn ready_at(waiting: &Waiting, quiet: Duration, wait_max: Duration) -> Instant {
    (waiting.last + quiet).min(waiting.first + wait_max)
}

#[cfg(test)]
mod tests;
