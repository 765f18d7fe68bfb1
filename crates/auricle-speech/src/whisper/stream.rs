//! One stream, on the session's side: cuts its audio into stretches of speech.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use auricle_audio::resample::Resampler;
use auricle_audio::vad::{Endpointer, EndpointerConfig, RATE_HZ, VadEvent};
use auricle_core::Share;

use super::pool::Pool;
use super::shared::{Shared, State, at_rate};
use super::stretch::Stretch;
use crate::engine::{Event, EventSender, Stream, StreamSpec};

/// The session's side.
pub(super) struct WhisperStream {
    pool: Arc<Pool>,
    shared: Arc<Shared>,
    resampler: Resampler,
    endpointer: Endpointer,
    /// The last of the audio, for pre-rolls.
    recent: VecDeque<i16>,
    backlog_max: usize,
    /// Where audio began to be left out, for want of room.
    skipping_from: Option<u64>,
    pcm: Vec<i16>,
    events: Vec<VadEvent>,
}

/// Bounds and wishes of one stream.
pub(super) struct Manner {
    pub(super) language: Option<String>,
    pub(super) step: Duration,
    pub(super) backlog_max: usize,
    /// Words that may still change are told.
    pub(super) interim: bool,
}

/// A stretch has no longest length here: windows have.
fn endpointer() -> Endpointer {
    Endpointer::new(EndpointerConfig { stretch_max: u64::MAX, ..EndpointerConfig::default() })
}

/// Audio kept for pre-rolls.
const RECENT_MAX: usize = RATE_HZ as usize * 3 / 10 + 8_000;

impl WhisperStream {
    pub(super) fn new(
        pool: Arc<Pool>,
        spec: &StreamSpec,
        events: EventSender,
        manner: Manner,
        held: Share,
    ) -> Self {
        let backlog_max = manner.backlog_max;
        let shared = Shared::new(spec.sample_rate_hz, manner, events, held);
        Self {
            pool,
            shared,
            resampler: Resampler::new(spec.sample_rate_hz, RATE_HZ),
            endpointer: endpointer(),
            recent: VecDeque::new(),
            // Less than this would skip within one window.
            backlog_max: backlog_max.max(RATE_HZ as usize * 40),
            skipping_from: None,
            pcm: Vec::new(),
            events: Vec::new(),
        }
    }

    fn hear(&mut self, pcm: &[i16]) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        if state.over {
            return true;
        }
        let before = state.heard;
        state.heard += pcm.len() as u64;
        let room = if self.skipping_from.is_some() { self.backlog_max / 2 } else { self.backlog_max };
        if state.backlog() > room {
            self.skip(&mut state, before);
            return false;
        }
        if let Some(from) = self.skipping_from.take() {
            metrics::counter!("auricle_recogniser_skipped_samples_total").increment(before - from);
            let (from, until) = (at_rate(from, shared.rate_hz), at_rate(before, shared.rate_hz));
            state.outlet.send(Event::Skipped { from_sample: from, samples: until - from });
        }
        self.recent.extend(pcm);
        self.endpointer.push(pcm, &mut self.events);
        if let Some(open) = state.open_stretch() {
            open.push(pcm);
        }
        self.apply(&mut state);
        state.count();
        let surplus = self.recent.len().saturating_sub(RECENT_MAX);
        self.recent.drain(..surplus);
        state.silent_until = self.endpointer.silent_until();
        self.look_after(&mut state, false);
        true
    }

    /// Opens and ends stretches as the endpointer has found them.
    fn apply(&mut self, state: &mut State) {
        for event in self.events.drain(..) {
            match event {
                VadEvent::SpeechStart { at_sample } => {
                    let oldest = state.heard - self.recent.len() as u64;
                    let from = at_sample.max(oldest);
                    let audio = self.recent.iter().skip((from - oldest) as usize).copied().collect();
                    state.stretches.push_back(Stretch::new(from, audio));
                }
                VadEvent::SpeechEnd { at_sample, .. } => {
                    if let Some(open) = state.open_stretch() {
                        open.end_at(at_sample);
                    }
                }
            }
        }
    }

    /// Asks for a decoder, says whether the stream waits, and tells coverage.
    fn look_after(&self, state: &mut State, now: bool) {
        self.shared.ask_if_due(state, &self.pool);
        state.tell_if_busy();
        state.tell(self.shared.rate_hz, now);
        if !state.outlet.flush() && (now || state.over) {
            self.pool.stalled(&self.shared);
        }
    }

    fn skip(&mut self, state: &mut State, before: u64) {
        if self.skipping_from.is_none() {
            self.skipping_from = Some(before);
            self.end_stretch(state, before);
        }
        // What is left out ends the stretch before it and begins with silence after it.
        self.recent.clear();
        let mut fresh = endpointer();
        fresh.skip_to(state.heard);
        self.endpointer = fresh;
        self.look_after(state, false);
    }

    fn end_stretch(&mut self, state: &mut State, at: u64) {
        self.endpointer.flush(&mut self.events);
        self.events.clear();
        if let Some(open) = state.open_stretch() {
            open.end_at(at);
        }
        state.silent_until = at;
    }

    fn close(&mut self, finished: bool) {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        let heard = state.heard;
        self.end_stretch(&mut state, heard);
        state.finished |= finished;
        self.look_after(&mut state, true);
    }
}

impl Stream for WhisperStream {
    fn push(&mut self, pcm: &[i16]) -> bool {
        let mut at_16k = std::mem::take(&mut self.pcm);
        at_16k.clear();
        self.resampler.push(pcm, &mut at_16k);
        let taken = self.hear(&at_16k);
        self.pcm = at_16k;
        taken
    }

    fn finish(&mut self) {
        self.close(true);
    }

    fn flush(&mut self) {
        self.close(false);
    }
}

impl Drop for WhisperStream {
    fn drop(&mut self) {
        self.shared.cancel();
    }
}
