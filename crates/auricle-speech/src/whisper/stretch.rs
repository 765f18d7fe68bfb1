//! One stretch of speech on its way to be words: what of it is to be heard next, and what a pass over it made final. Pure.

use auricle_audio::vad::RATE_HZ;
use auricle_core::Word;

use super::agree::Agreement;

/// Longest window of one pass: the model hears 30 s, and the rest is room for what the window is filled up with.
pub(super) const WINDOW_MAX: usize = RATE_HZ as usize * 28;
/// A window longer than this is cut behind its last final word, so that passes stay cheap.
const WINDOW_LONG: usize = RATE_HZ as usize * 15;
/// A window that was cut begins this much before the end of the last final word.
const OVERLAP: u64 = RATE_HZ as u64 / 2;
/// Of a window that is full, words that end this near to its end are left to the next one.
const EDGE_SECS: f64 = 2.0;

/// Positions are samples at 16 kHz from the stream's first.
#[derive(Debug)]
pub(super) struct Stretch {
    /// Of `audio`'s first sample.
    from: u64,
    audio: Vec<i16>,
    /// Position behind its last sample, once it has ended.
    end: Option<u64>,
    agreement: Agreement,
    /// How far the last pass heard.
    heard: u64,
    /// What the model took the language for, so that it need not guess again.
    pub(super) language: Option<String>,
    pub(super) tries: u32,
}

/// Why a pass is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Speech goes on.
    Partial,
    /// The window is full, and more follows.
    Full,
    /// Nothing follows.
    Last,
}

/// What to hear next.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Window {
    pub(super) kind: Kind,
    pub(super) from: u64,
    pub(super) pcm: Vec<i16>,
    pub(super) language: Option<String>,
}

fn secs(position: u64) -> f64 {
    position as f64 / f64::from(RATE_HZ)
}

impl Stretch {
    pub(super) fn new(from: u64, audio: Vec<i16>) -> Self {
        let agreement = Agreement::new(secs(from));
        Self { from, audio, end: None, agreement, heard: from, language: None, tries: 0 }
    }

    pub(super) fn push(&mut self, pcm: &[i16]) {
        self.audio.extend_from_slice(pcm);
    }

    /// Ends it at `at`; what was heard behind that belongs to what follows.
    pub(super) fn end_at(&mut self, at: u64) {
        self.audio.truncate(at.saturating_sub(self.from) as usize);
        self.end = Some(at.max(self.from));
    }

    pub(super) fn ended(&self) -> Option<u64> {
        self.end
    }

    /// Samples held.
    pub(super) fn len(&self) -> usize {
        self.audio.len()
    }

    fn until(&self) -> u64 {
        self.from + self.audio.len() as u64
    }

    /// Everything before this is decided.
    pub(super) fn decided_until(&self) -> u64 {
        let settled = (self.agreement.final_until() * f64::from(RATE_HZ)) as u64;
        settled.min(self.until())
    }

    /// What the last pass heard and the next may change.
    pub(super) fn undecided(&self) -> &[Word] {
        self.agreement.undecided()
    }

    /// The pass that is due; while speech goes on one each `step` samples.
    pub(super) fn due(&self, step: u64) -> Option<Kind> {
        if self.audio.len() >= WINDOW_MAX {
            Some(if self.end.is_some() && self.audio.len() == WINDOW_MAX { Kind::Last } else { Kind::Full })
        } else if self.end.is_some() {
            Some(Kind::Last)
        } else {
            (self.until() >= self.heard + step).then_some(Kind::Partial)
        }
    }

    /// What that pass hears.
    pub(super) fn window(&self, kind: Kind) -> Window {
        let pcm = self.audio[..self.audio.len().min(WINDOW_MAX)].to_vec();
        Window { kind, from: self.from, pcm, language: self.language.clone() }
    }

    /// Takes in the words of a pass over `window`, in seconds of the stream, and gives those that are final now. After
    /// [`Kind::Last`] nothing of the stretch is left to do.
    pub(super) fn heard(&mut self, window: &Window, words: Vec<Word>) -> Vec<Word> {
        let window_end = window.from + window.pcm.len() as u64;
        self.heard = self.heard.max(window_end);
        self.tries = 0;
        match window.kind {
            Kind::Last => {
                let words = self.agreement.finish(words);
                self.cut(self.until());
                words
            }
            Kind::Partial => {
                let words = self.agreement.pass(words);
                if window.pcm.len() > WINDOW_LONG {
                    self.cut(self.decided_until().saturating_sub(OVERLAP));
                }
                words
            }
            Kind::Full => {
                let mut words = self.agreement.pass(words);
                words.extend(self.agreement.force(secs(window_end) - EDGE_SECS));
                let edge = window_end.saturating_sub((EDGE_SECS * f64::from(RATE_HZ)) as u64);
                // Behind what is final, or without words behind what has none: it must get shorter.
                let decided = self.decided_until().saturating_sub(OVERLAP);
                let least = self.from + (WINDOW_MAX / 4) as u64;
                let cut = if decided > least { decided } else { edge };
                self.agreement.skip_to(secs(cut));
                self.cut(cut);
                words
            }
        }
    }

    fn cut(&mut self, before: u64) {
        let samples = before.saturating_sub(self.from).min(self.audio.len() as u64);
        self.audio.drain(..samples as usize);
        self.from += samples;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEC: u64 = RATE_HZ as u64;

    /// A model that hears a word in each half second of the window that it hears whole.
    fn words(window: &Window) -> Vec<Word> {
        let end = window.from + window.pcm.len() as u64;
        let first = window.from.div_ceil(SEC / 2);
        (first..)
            .take_while(|half| (half + 1) * (SEC / 2) <= end)
            .map(|half| Word {
                text: format!("w{half}"),
                start: half as f64 / 2.0,
                end: half as f64 / 2.0 + 0.4,
                speaker: 0,
                confidence: None,
            })
            .collect()
    }

    fn numbers(words: &[Word]) -> Vec<u64> {
        words.iter().map(|word| word.text[1..].parse().unwrap()).collect()
    }

    #[test]
    fn a_pass_is_due_each_step_while_speech_goes_on_and_once_when_it_has_ended() {
        let mut stretch = Stretch::new(SEC, vec![0; SEC as usize]);
        assert_eq!(stretch.due(2 * SEC), None);
        stretch.push(&vec![0; SEC as usize]);
        assert_eq!(stretch.due(2 * SEC), Some(Kind::Partial));
        let window = stretch.window(Kind::Partial);
        assert_eq!((window.from, window.pcm.len() as u64), (SEC, 2 * SEC));
        assert_eq!(numbers(&stretch.heard(&window, words(&window))), [0_u64; 0]);
        assert_eq!((stretch.due(2 * SEC), stretch.decided_until()), (None, SEC));
        stretch.end_at(2 * SEC);
        let window = stretch.window(stretch.due(2 * SEC).unwrap());
        assert_eq!(numbers(&stretch.heard(&window, words(&window))), [2, 3]);
        assert_eq!(stretch.len(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        /// However late and however seldom passes come, each word is said once, windows stay within the model's, and what is
        /// decided grows.
        #[test]
        fn long_speech_is_said_once(
            start in 0_u64..5,
            long in 1_u64..150,
            each in 1_u64..50,
            step in 1_u64..5,
        ) {
            let mut stretch = Stretch::new(start * SEC, Vec::new());
            let (mut said, mut decided) = (Vec::new(), 0);
            let mut left = long;
            loop {
                let more = each.min(left);
                left -= more;
                stretch.push(&vec![0; (more * SEC) as usize]);
                if left == 0 {
                    stretch.end_at((start + long) * SEC);
                }
                let mut turns = 0;
                while let Some(kind) = stretch.due(step * SEC) {
                    let window = stretch.window(kind);
                    prop_assert!(window.pcm.len() <= WINDOW_MAX);
                    said.extend(numbers(&stretch.heard(&window, words(&window))));
                    prop_assert!(stretch.decided_until() >= decided);
                    decided = stretch.decided_until();
                    turns += 1;
                    prop_assert!(turns < 100, "it does not end");
                    if kind == Kind::Last {
                        break;
                    }
                }
                if left == 0 {
                    break;
                }
            }
            prop_assert_eq!(said, (start * 2..(start + long) * 2).collect::<Vec<_>>());
        }

        /// Nor does a model that hears nothing keep a stretch for ever.
        #[test]
        fn a_window_without_words_moves_on(long in 1_u64..200) {
            let mut stretch = Stretch::new(0, vec![0; (long * SEC) as usize]);
            stretch.end_at(long * SEC);
            for _ in 0..20 {
                let Some(kind) = stretch.due(SEC) else { break };
                let window = stretch.window(kind);
                prop_assert!(stretch.heard(&window, Vec::new()).is_empty());
                if kind == Kind::Last {
                    break;
                }
            }
            prop_assert_eq!(stretch.len(), 0);
        }
    }
}
