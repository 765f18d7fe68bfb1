//! What waits for the link, oldest first. Full: the oldest goes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::ids::ConversationId;
use crate::segment::Segment;
use crate::time::UnixMicros;

use super::Request;

/// Two stretches of audio this close are one. Source: pusher-and-processing 2.1 (R4).
const GAP_MICROS: i64 = 1_000;

#[derive(Debug)]
struct Stretch {
    conversation: ConversationId,
    at: UnixMicros,
    pcm: Vec<i16>,
}

/// Audio in stretches without a gap, each with its own conversation and time.
#[derive(Debug)]
pub(super) struct Audio {
    rate_hz: u32,
    stretches: VecDeque<Stretch>,
    samples: usize,
}

impl Audio {
    pub(super) fn new(rate_hz: u32) -> Self {
        Self { rate_hz: rate_hz.max(1), stretches: VecDeque::new(), samples: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.samples * 2
    }

    /// Bytes dropped for room.
    pub(super) fn push(
        &mut self,
        conversation: ConversationId,
        at: UnixMicros,
        pcm: Vec<i16>,
        bytes_max: usize,
    ) -> u64 {
        self.samples += pcm.len();
        match self.stretches.back_mut() {
            Some(last)
                if last.conversation == conversation
                    && (at.0 - end(last, self.rate_hz)).abs() <= GAP_MICROS =>
            {
                last.pcm.extend(pcm);
            }
            _ => self.stretches.push_back(Stretch { conversation, at, pcm }),
        }
        self.make_room(bytes_max)
    }

    /// Drops the oldest; how many bytes.
    fn make_room(&mut self, bytes_max: usize) -> u64 {
        let mut dropped = 0;
        while self.bytes() > bytes_max {
            // In pieces, so that a single long stretch loses its oldest part and keeps its time.
            let excess = (self.bytes() - bytes_max).div_ceil(2).max(self.rate_hz as usize);
            let Some((_, gone)) = self.next(excess * 2) else { break };
            dropped += gone.len() as u64 * 2;
        }
        dropped
    }

    /// What was sent and may not have arrived is the oldest again. Bytes dropped for room: there may be none any more.
    pub(super) fn put_back(
        &mut self,
        conversation: ConversationId,
        at: UnixMicros,
        pcm: Vec<i16>,
        bytes_max: usize,
    ) -> u64 {
        self.samples += pcm.len();
        self.stretches.push_front(Stretch { conversation, at, pcm });
        self.make_room(bytes_max)
    }

    pub(super) fn next_conversation(&self) -> Option<&ConversationId> {
        self.stretches.front().map(|stretch| &stretch.conversation)
    }

    /// The oldest stretch, or its first `bytes_max` bytes.
    pub(super) fn next(&mut self, bytes_max: usize) -> Option<(UnixMicros, Vec<i16>)> {
        let most = (bytes_max / 2).max(1);
        let first = self.stretches.front_mut()?;
        let at = first.at;
        let pcm = if first.pcm.len() <= most {
            self.stretches.pop_front()?.pcm
        } else {
            let rest = first.pcm.split_off(most);
            first.at = at.plus_secs_f64(most as f64 / f64::from(self.rate_hz));
            std::mem::replace(&mut first.pcm, rest)
        };
        self.samples -= pcm.len();
        Some((at, pcm))
    }
}

fn end(stretch: &Stretch, rate_hz: u32) -> i64 {
    stretch.at.plus_secs_f64(stretch.pcm.len() as f64 / f64::from(rate_hz)).0
}

/// Stored words in batches of one conversation.
#[derive(Debug, Default)]
pub(super) struct Words {
    batches: VecDeque<(ConversationId, Vec<Segment>)>,
    count: usize,
}

impl Words {
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) fn count(&self) -> u64 {
        self.count as u64
    }

    /// Segments dropped for room. A segment that is sent again replaces what waits of it.
    pub(super) fn push(&mut self, conversation: ConversationId, segments: Vec<Segment>, max: usize) -> u64 {
        if self.batches.back().is_none_or(|(last, _)| *last != conversation) {
            self.batches.push_back((conversation, Vec::new()));
        }
        if let Some((_, batch)) = self.batches.back_mut() {
            for segment in segments {
                match batch.iter_mut().rev().find(|waiting| waiting.id == segment.id) {
                    Some(waiting) => *waiting = segment,
                    None => {
                        batch.push(segment);
                        self.count += 1;
                    }
                }
            }
        }
        self.make_room(max)
    }

    /// Drops the oldest; how many.
    fn make_room(&mut self, max: usize) -> u64 {
        let mut dropped = 0;
        while self.count > max {
            let Some((_, batch)) = self.batches.front_mut() else { break };
            let gone = (self.count - max).min(batch.len());
            batch.drain(..gone);
            self.count -= gone;
            dropped += gone as u64;
            if batch.is_empty() {
                self.batches.pop_front();
            }
        }
        dropped
    }

    /// Segments dropped for room, as with audio.
    pub(super) fn put_back(
        &mut self,
        conversation: ConversationId,
        segments: Vec<Segment>,
        max: usize,
    ) -> u64 {
        self.count += segments.len();
        self.batches.push_front((conversation, segments));
        self.make_room(max)
    }

    /// The oldest batch, or its first segments with at most `bytes_max` bytes of text; one at least.
    pub(super) fn next(&mut self, bytes_max: usize) -> Option<(ConversationId, Vec<Segment>)> {
        let (conversation, batch) = self.batches.front_mut()?;
        let mut bytes = 0;
        let fits = batch.iter().take_while(|segment| {
            bytes += text_bytes(segment);
            bytes <= bytes_max
        });
        let fits = fits.count().max(1);
        if fits >= batch.len() {
            let whole = self.batches.pop_front()?;
            self.count -= whole.1.len();
            return Some(whole);
        }
        let rest = batch.split_off(fits);
        self.count -= fits;
        Some((conversation.clone(), std::mem::replace(batch, rest)))
    }
}

fn text_bytes(segment: &Segment) -> usize {
    segment.text.len() + segment.translations.iter().map(|translation| translation.text.len()).sum::<usize>()
}

#[derive(Debug)]
struct Pending {
    request: Request,
    /// On which try it is; 0 before the first.
    tries: u32,
    sent_at: Option<Instant>,
    /// Handed to the driver on this connection.
    handed: bool,
}

/// Requests without an answer.
#[derive(Debug, Default)]
pub(super) struct Requests {
    pending: VecDeque<Pending>,
}

impl Requests {
    /// Requests dropped for room: hints, whose jobs are found without them.
    pub(super) fn push(&mut self, request: Request, max: usize) -> u64 {
        self.pending.retain(|pending| pending.request.conversation != request.conversation);
        self.pending.push_back(Pending { request, tries: 0, sent_at: None, handed: false });
        let excess = self.pending.len().saturating_sub(max);
        self.pending.drain(..excess);
        excess as u64
    }

    pub(super) fn connected(&mut self, resend: bool) {
        if !resend {
            self.pending.retain(|pending| pending.sent_at.is_none());
        }
        for pending in &mut self.pending {
            (pending.handed, pending.sent_at) = (false, None);
        }
    }

    pub(super) fn next(&mut self) -> Option<Request> {
        let pending = self.pending.iter_mut().find(|pending| !pending.handed)?;
        pending.handed = true;
        pending.tries += 1;
        Some(pending.request.clone())
    }

    pub(super) fn sent(&mut self, conversation: &ConversationId, now: Instant) {
        if let Some(pending) = self.find(conversation) {
            pending.sent_at = Some(now);
        }
    }

    pub(super) fn put_back(&mut self, conversation: &ConversationId) {
        if let Some(pending) = self.find(conversation) {
            pending.handed = false;
        }
    }

    pub(super) fn answered(&mut self, conversation: &ConversationId) {
        self.pending.retain(|pending| pending.request.conversation != *conversation);
    }

    fn find(&mut self, conversation: &ConversationId) -> Option<&mut Pending> {
        self.pending.iter_mut().find(|pending| pending.request.conversation == *conversation)
    }

    pub(super) fn any_to_send(&self) -> bool {
        self.to_send() > 0
    }

    pub(super) fn to_send(&self) -> u64 {
        self.pending.iter().filter(|pending| !pending.handed).count() as u64
    }

    pub(super) fn next_timeout(&self, wait: Duration) -> Option<Instant> {
        self.pending.iter().filter_map(|pending| pending.sent_at).min().map(|at| at + wait)
    }

    /// Tries again what was not answered in time; how many were tried often enough.
    pub(super) fn expire(&mut self, now: Instant, wait: Duration, tries_max: u32) -> u64 {
        let before = self.pending.len();
        let late = |pending: &Pending| pending.sent_at.is_some_and(|at| now >= at + wait);
        self.pending.retain(|pending| !(late(pending) && pending.tries >= tries_max));
        for pending in self.pending.iter_mut().filter(|pending| late(pending)) {
            (pending.handed, pending.sent_at) = (false, None);
        }
        (before - self.pending.len()) as u64
    }
}
