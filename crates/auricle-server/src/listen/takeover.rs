//! Where a new stream takes over from repair, at the end of an outage.
//!
//! The stream hears the last seconds before it again, and repair hears them too. Which words are whose is decided once, by what the
//! stream has heard: repair is told a moment that lies between two of the stream's words. Two hearings of a word differ by some
//! hundredths of a second; were both to look whether its middle is before a fixed moment, a word there would be told twice or not
//! at all.

use auricle_core::Word;

/// Repair leaves to the stream what it hears at most this much before the stream's first word: two hearings differ by less, and
/// what the stream has not heard at all is repair's.
const SLACK_SECS: f64 = 0.25;

/// A stream that was opened in an outage, until it has decided more than was heard before it. Its words are held back as long:
/// should it fail first, repair hears all of it. Positions are samples of the connection, times its seconds.
#[derive(Debug)]
pub(super) struct Takeover {
    /// Words whose middle is before this are repair's.
    own_from: u64,
    /// What was heard when the stream was opened.
    opened_at: u64,
    rate_hz: f64,
    /// Where the last word that is repair's ends.
    left_until: Option<f64>,
    held: Vec<Word>,
}

impl Takeover {
    pub(super) fn new(own_from: u64, opened_at: u64, rate_hz: u32) -> Self {
        Self { own_from, opened_at, rate_hz: f64::from(rate_hz.max(1)), left_until: None, held: Vec::new() }
    }

    /// Takes the stream's words. Whether it has decided enough.
    pub(super) fn hears(&mut self, words: Vec<Word>) -> bool {
        let own_from = self.own_from as f64 / self.rate_hz;
        for word in words {
            // Words come in order: behind its first one all are its own.
            if self.held.is_empty() && (word.start + word.end) / 2.0 < own_from {
                self.left_until = Some(word.end);
            } else {
                self.held.push(word);
            }
        }
        self.held.last().is_some_and(|last| last.end * self.rate_hz > self.opened_at as f64)
    }

    /// Everything before `until` is decided. Whether that is enough.
    pub(super) fn covers(&self, until: u64) -> bool {
        until > self.opened_at
    }

    /// The stream's words, and from where on words are its own.
    pub(super) fn decided(self) -> (Vec<Word>, u64) {
        let opened_at = self.opened_at as f64 / self.rate_hz;
        let edge = match (self.held.first(), self.left_until) {
            (None, _) => opened_at,
            (Some(first), Some(left)) => ((left + first.start) / 2.0).max(first.start - SLACK_SECS),
            (Some(first), None) => first.start - SLACK_SECS,
        };
        let edge = (edge.clamp(0.0, opened_at) * self.rate_hz) as u64;
        (self.held, edge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 16_000;

    fn word(text: &str, start: f64, end: f64) -> Word {
        Word { text: text.into(), start, end, speaker: 0, confidence: None }
    }

    fn at(secs: f64) -> u64 {
        (secs * f64::from(RATE)) as u64
    }

    /// What each side tells of `said`: repair hears each word `late` seconds later than the stream does.
    fn told(said: &[(f64, f64)], late: f64) -> Vec<String> {
        let mut takeover = Takeover::new(at(9.0), at(10.0), RATE);
        let words: Vec<_> =
            said.iter().enumerate().map(|(n, (start, end))| word(&n.to_string(), *start, *end)).collect();
        assert!(takeover.hears(words.clone()), "the last one ends behind the opening");
        let (own, edge) = takeover.decided();
        let edge = edge as f64 / f64::from(RATE);
        let repaired = words
            .iter()
            .filter(|word| word.end + late <= 10.0 && (word.start + word.end) / 2.0 + late < edge)
            .map(|word| word.text.clone());
        repaired.chain(own.into_iter().map(|word| word.text)).collect()
    }

    #[test]
    fn each_word_is_told_once_wherever_the_edge_falls_in_it_and_however_the_two_hearings_differ() {
        for late in [-0.08, -0.02, 0.0, 0.02, 0.08] {
            for shift in 0..60 {
                let first = 8.0 + f64::from(shift) / 100.0;
                // Words of 0.2 s twice a second, and of 0.3 s without any pause.
                for (every, length) in [(0.5, 0.2), (0.3, 0.3)] {
                    let said: Vec<_> = (0..9)
                        .map(|n| first + every * f64::from(n))
                        .map(|start| (start, start + length))
                        .collect();
                    let all: Vec<_> = (0..9).map(|n| n.to_string()).collect();
                    assert_eq!(told(&said, late), all, "late {late}, first {first}, every {every}");
                }
            }
        }
    }

    #[test]
    fn words_are_held_back_until_more_is_decided_than_was_heard_before() {
        let mut takeover = Takeover::new(at(9.0), at(10.0), RATE);
        assert!(!takeover.hears(vec![word("a", 8.5, 8.8), word("b", 9.3, 9.6)]));
        assert!(!takeover.covers(at(10.0)) && takeover.covers(at(10.1)));
        assert!(takeover.hears(vec![word("c", 9.9, 10.2)]));
        let (own, edge) = takeover.decided();
        assert_eq!(own.iter().map(|word| word.text.as_str()).collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(edge, at(9.05));
    }

    #[test]
    fn what_the_stream_did_not_hear_is_repairs() {
        // Nothing at all, and only what was said after it was opened.
        let takeover = Takeover::new(at(9.0), at(10.0), RATE);
        assert_eq!(takeover.decided(), (vec![], at(10.0)));
        let mut takeover = Takeover::new(at(9.0), at(10.0), RATE);
        assert!(takeover.hears(vec![word("a", 12.0, 12.5)]));
        assert_eq!(takeover.decided().1, at(10.0));
    }
}
