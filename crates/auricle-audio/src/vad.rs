//! Finding stretches of speech: a voice detector of 16 ms frames, with pre-roll and hang-over.

use earshot::Detector;

/// The rate it works at.
pub const RATE_HZ: u32 = 16_000;
const FRAME: usize = 256;

/// When speech begins and ends. Times are samples at 16 kHz.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EndpointerConfig {
    /// A frame that scores at least this may begin a stretch.
    pub start_score: f32,
    /// While speaking, a frame that scores at least this keeps the stretch going.
    pub keep_score: f32,
    /// Consecutive frames above `start_score` that begin a stretch, so that a click does not.
    pub start_frames: u32,
    /// Audio before the first of them that belongs to the stretch.
    pub pre_roll: u64,
    /// Silence that ends a stretch.
    pub hang_over: u64,
    /// Longest stretch; a longer one is cut.
    pub stretch_max: u64,
}

impl Default for EndpointerConfig {
    fn default() -> Self {
        Self {
            // The detector scores up to 0.7 in its first half second, whatever it hears; speech scores 0.9.
            start_score: 0.75,
            keep_score: 0.4,
            start_frames: 3,
            pre_roll: u64::from(RATE_HZ) * 3 / 10,
            hang_over: u64::from(RATE_HZ) * 5 / 10,
            stretch_max: u64::from(RATE_HZ) * 20,
        }
    }
}

/// What the endpointer found. Positions count samples from the first pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VadEvent {
    /// A stretch begins here, pre-roll included.
    SpeechStart {
        /// Position of its first sample.
        at_sample: u64,
    },
    /// The stretch ends here; if it was too long, the next begins at once.
    SpeechEnd {
        /// Position behind its last sample.
        at_sample: u64,
        /// Whether it was cut for its length.
        too_long: bool,
    },
}

/// Cuts a stream of 16 kHz PCM into stretches of speech. Holds 8 KB of state.
pub struct Endpointer {
    config: EndpointerConfig,
    detector: Box<Detector>,
    frame: Vec<i16>,
    position: u64,
    loud: u32,
    /// Start of the current stretch, and the end of its last loud frame.
    speech: Option<(u64, u64)>,
    /// End of the previous stretch: a pre-roll does not reach back over it.
    last_end: u64,
}

impl Endpointer {
    /// A fresh one, in silence.
    pub fn new(config: EndpointerConfig) -> Self {
        Self {
            config,
            detector: Detector::default_boxed(),
            frame: Vec::with_capacity(FRAME),
            position: 0,
            loud: 0,
            speech: None,
            last_end: 0,
        }
    }

    /// Takes in audio and appends what it finds to `events`.
    pub fn push(&mut self, mut pcm: &[i16], events: &mut Vec<VadEvent>) {
        while !pcm.is_empty() {
            let take = (FRAME - self.frame.len()).min(pcm.len());
            self.frame.extend_from_slice(&pcm[..take]);
            pcm = &pcm[take..];
            if self.frame.len() == FRAME {
                let score = self.detector.predict_i16(&self.frame);
                self.frame.clear();
                self.position += FRAME as u64;
                self.judge(score, events);
            }
        }
    }

    /// Ends a stretch as if silence followed.
    pub fn flush(&mut self, events: &mut Vec<VadEvent>) {
        let at_sample = self.position + self.frame.len() as u64;
        if self.speech.take().is_some() {
            events.push(VadEvent::SpeechEnd { at_sample, too_long: false });
        }
        self.last_end = at_sample;
        self.loud = 0;
    }

    /// Counts on from `position`, as if silence had come before it.
    pub fn skip_to(&mut self, position: u64) {
        self.position = position;
        self.last_end = position;
    }

    /// Whether a stretch is under way.
    pub fn in_speech(&self) -> bool {
        self.speech.is_some()
    }

    /// Everything before this will not be part of a stretch that has not begun.
    pub fn silent_until(&self) -> u64 {
        match self.speech {
            Some((start, _)) => start,
            None => {
                let lead = self.config.pre_roll + u64::from(self.loud) * FRAME as u64;
                self.position.saturating_sub(lead).max(self.last_end)
            }
        }
    }

    fn judge(&mut self, score: f32, events: &mut Vec<VadEvent>) {
        match &mut self.speech {
            None => {
                self.loud = if score >= self.config.start_score { self.loud + 1 } else { 0 };
                if self.loud >= self.config.start_frames {
                    let lead = self.config.pre_roll + u64::from(self.loud) * FRAME as u64;
                    let at_sample = self.position.saturating_sub(lead).max(self.last_end);
                    self.speech = Some((at_sample, self.position));
                    self.loud = 0;
                    events.push(VadEvent::SpeechStart { at_sample });
                }
            }
            Some((start, last_loud)) => {
                if score >= self.config.keep_score {
                    *last_loud = self.position;
                }
                let silent = self.position - *last_loud >= self.config.hang_over;
                let too_long = self.position - *start >= self.config.stretch_max;
                if silent || too_long {
                    events.push(VadEvent::SpeechEnd { at_sample: self.position, too_long: !silent });
                    self.last_end = self.position;
                    self.speech = None;
                    if !silent {
                        self.speech = Some((self.position, self.position));
                        events.push(VadEvent::SpeechStart { at_sample: self.position });
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events_of(pcm: &[i16]) -> Vec<VadEvent> {
        let mut endpointer = Endpointer::new(EndpointerConfig::default());
        let mut events = Vec::new();
        for chunk in pcm.chunks(320) {
            endpointer.push(chunk, &mut events);
        }
        endpointer.flush(&mut events);
        events
    }

    /// A cheap generator: white noise that is the same at every run.
    fn noise(samples: usize, level: f64) -> Vec<i16> {
        let mut state = 0x2545_F491_4F6C_DD1D_u64;
        (0..samples)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                ((state >> 40) as f64 / f64::from(1 << 23) * level - level) as i16
            })
            .collect()
    }

    #[test]
    fn two_minutes_of_noise_and_hum_are_no_speech() {
        let seconds = 120 * RATE_HZ as usize;
        assert_eq!(events_of(&noise(seconds, 1_500.0)), []);
        let hum: Vec<i16> = (0..seconds)
            .map(|i| (3_000.0 * (i as f64 * 50.0 * std::f64::consts::TAU / f64::from(RATE_HZ)).sin()) as i16)
            .collect();
        assert_eq!(events_of(&hum), []);
        assert_eq!(events_of(&vec![0; seconds]), []);
    }
}
