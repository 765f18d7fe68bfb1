//! What to send: samples in, stretches of speech out. Pure.

use auricle_audio::resample::Resampler;
use auricle_audio::vad::{Endpointer, EndpointerConfig, RATE_HZ, VadEvent};

use super::GateConfig;

/// What is to be done, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// Send these samples; `at` is the position of the first. Never before the end of what was sent last.
    Send { at: u64, pcm: &'a [i16] },
    /// Speech has ended: the engine should decide what it has.
    Pause,
}

/// Finds speech in one stream. Positions are samples at its rate.
pub(super) struct Machine {
    rate_hz: u32,
    resampler: Resampler,
    endpointer: Endpointer,
    /// Audio that may be sent yet: all of it while nobody speaks, nothing between two pushes while somebody does.
    held: Vec<i16>,
    held_from: u64,
    heard: u64,
    /// Nothing before this is sent any more.
    settled: u64,
    open: bool,
    hang_over: u64,
    /// Known silence at the end of what was sent.
    tail: u64,
    /// The detector hears a resampled stream, this much late.
    late: u64,
    at_16k: Vec<i16>,
    events: Vec<VadEvent>,
}

impl Machine {
    pub(super) fn new(rate_hz: u32, config: &GateConfig) -> Self {
        let at_16k = |time: std::time::Duration| (time.as_secs_f64() * f64::from(RATE_HZ)) as u64;
        let endpointer = EndpointerConfig {
            start_score: config.threshold,
            keep_score: EndpointerConfig::default().keep_score.min(config.threshold),
            pre_roll: at_16k(config.pre_roll),
            hang_over: at_16k(config.hang_over),
            // However long somebody speaks, it is one stretch.
            stretch_max: u64::MAX,
            ..EndpointerConfig::default()
        };
        Self {
            rate_hz,
            resampler: Resampler::new(rate_hz, RATE_HZ),
            endpointer: Endpointer::new(endpointer),
            held: Vec::new(),
            held_from: 0,
            heard: 0,
            settled: 0,
            open: false,
            hang_over: (config.hang_over.as_secs_f64() * f64::from(rate_hz)) as u64,
            tail: 0,
            late: if rate_hz == RATE_HZ { 0 } else { u64::from(rate_hz) / 40 },
            at_16k: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Hears `pcm`. With `send_all` it sends silence too, once it is sending.
    pub(super) fn push(&mut self, pcm: &[i16], send_all: bool, mut act: impl FnMut(Step<'_>)) {
        self.held.extend_from_slice(pcm);
        self.heard += pcm.len() as u64;
        self.at_16k.clear();
        self.resampler.push(pcm, &mut self.at_16k);
        self.endpointer.push(&self.at_16k, &mut self.events);
        for event in std::mem::take(&mut self.events) {
            match event {
                VadEvent::SpeechStart { at_sample } => {
                    if !self.open {
                        self.open = true;
                        self.tail = 0;
                        self.drop_held(self.of_16k(at_sample).saturating_sub(self.late));
                    }
                }
                VadEvent::SpeechEnd { at_sample, .. } => {
                    self.send(self.of_16k(at_sample), &mut act);
                    act(Step::Pause);
                    self.open = false;
                    self.tail = self.hang_over;
                }
            }
        }
        // While it sends all, what follows a stretch continues it.
        self.open |= send_all && self.settled > 0;
        if self.open {
            self.send(self.heard, &mut act);
        } else {
            // Not at each push: the rest is moved each time.
            let wanted = (self.heard - self.silent_until()) as usize;
            if self.held.len() > wanted + wanted / 4 + 64 {
                self.drop_held(self.silent_until());
            }
        }
        if send_all && !self.endpointer.in_speech() {
            self.open = false;
        }
    }

    /// As if a long pause followed: what was heard is settled, and the next stretch does not reach back over this.
    pub(super) fn flush(&mut self) {
        self.endpointer.flush(&mut self.events);
        self.events.clear();
        self.tail = if self.open { 0 } else { self.tail };
        self.open = false;
        self.settled = self.heard;
        self.drop_held(self.heard);
    }

    /// Samples heard.
    pub(super) fn heard(&self) -> u64 {
        self.heard
    }

    /// Nothing before this will be sent from now on.
    pub(super) fn silent_until(&self) -> u64 {
        let may_begin = self.of_16k(self.endpointer.silent_until()).saturating_sub(self.late);
        may_begin.max(self.settled).min(self.heard)
    }

    /// How much of the end of what was sent is the silence that ended a stretch.
    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    /// Whether speech is under way.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    fn of_16k(&self, position: u64) -> u64 {
        position * u64::from(self.rate_hz) / u64::from(RATE_HZ)
    }

    fn send(&mut self, until: u64, act: &mut impl FnMut(Step<'_>)) {
        let until = until.min(self.heard);
        let samples = until.saturating_sub(self.held_from) as usize;
        if samples > 0 {
            act(Step::Send { at: self.held_from, pcm: &self.held[..samples] });
            self.drop_held(until);
            self.settled = until;
        }
    }

    fn drop_held(&mut self, before: u64) {
        let samples = before.saturating_sub(self.held_from).min(self.held.len() as u64);
        self.held.drain(..samples as usize);
        self.held_from += samples;
    }
}
