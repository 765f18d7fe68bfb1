//! A stream that hears tones.

use std::time::Duration;

use auricle_audio::resample::Resampler;

use super::tones::{RATE_HZ, Recogniser};
use crate::engine::{EngineError, Event, EventSender, Stream};
use crate::outlet::Outlet;

/// Coverage of silence is told each time this much more audio has been heard.
const COVER_EVERY: u64 = RATE_HZ as u64 / 2;

/// One stream.
pub(super) struct TonesStream {
    recogniser: Recogniser,
    resampler: Resampler,
    rate_hz: u32,
    /// In samples at 16 kHz: what is decided later than it could be.
    delay: u64,
    heard: u64,
    covered: u64,
    words: Vec<auricle_core::Word>,
    pcm: Vec<i16>,
    /// None once the stream has finished.
    outlet: Option<Outlet>,
}

impl TonesStream {
    /// Errors: a rate too low for the tones.
    pub(super) fn new(rate_hz: u32, delay: Duration, events: EventSender) -> Result<Self, EngineError> {
        if rate_hz < RATE_HZ {
            return Err(EngineError::Refused(format!("tones need {RATE_HZ} Hz, not {rate_hz}")));
        }
        Ok(Self {
            recogniser: Recogniser::default(),
            resampler: Resampler::new(rate_hz, RATE_HZ),
            rate_hz,
            delay: (delay.as_secs_f64() * f64::from(RATE_HZ)) as u64,
            heard: 0,
            covered: 0,
            words: Vec::new(),
            pcm: Vec::new(),
            outlet: Some(Outlet::new(events)),
        })
    }

    fn tell(&mut self, all: bool) {
        let Some(outlet) = &mut self.outlet else { return };
        let until = if all { u64::MAX } else { self.heard.saturating_sub(self.delay) };
        let is_due = |word: &auricle_core::Word| word.end * f64::from(RATE_HZ) <= until as f64;
        let due = self.words.iter().take_while(|word| is_due(word)).count();
        let said: Vec<_> = self.words.drain(..due).collect();
        let first = self.words.first().map(|word| (word.start * f64::from(RATE_HZ)) as u64);
        let decided = if all { self.heard } else { self.recogniser.decided().min(until) };
        let covered = first.map_or(decided, |first| decided.min(first));
        let now = !said.is_empty();
        if now {
            outlet.send(Event::Words(said));
        }
        if covered > self.covered && (all || now || covered - self.covered >= COVER_EVERY) {
            self.covered = covered;
            let until_sample = covered * u64::from(self.rate_hz) / u64::from(RATE_HZ);
            outlet.send(Event::Covered { until_sample });
        }
        outlet.flush();
    }
}

impl Stream for TonesStream {
    fn push(&mut self, pcm: &[i16]) -> bool {
        self.pcm.clear();
        self.resampler.push(pcm, &mut self.pcm);
        self.heard += self.pcm.len() as u64;
        self.recogniser.push(&self.pcm, &mut self.words);
        self.tell(false);
        true
    }

    fn finish(&mut self) {
        self.tell(true);
        if let Some(mut outlet) = self.outlet.take() {
            outlet.send(Event::Finished);
            outlet.drain_later();
        }
    }

    fn flush(&mut self) {
        self.tell(true);
    }
}
