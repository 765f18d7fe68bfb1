//! Local agreement: while somebody speaks, the same audio is heard again and again with more behind it; a word is final once
//! two passes in a row say it. Pure.
//!
//! Times are seconds of the stream. Source: Macháček, Dabre, Bojar, "Turning Whisper into Real-Time Transcription System"
//! (LocalAgreement-2), 2023.

use auricle_core::Word;

use super::words::plain;

/// Final words that a later window may begin with again, since it overlaps them.
const TAIL_MAX: usize = 5;
/// A pass that begins this near behind the last final word is looked at for such words.
const NEAR_SECS: f64 = 1.0;
/// How much two passes may differ about the time of one word.
const SLACK_SECS: f64 = 0.1;

/// What is final of one stretch of speech, and what the last pass said beyond that.
#[derive(Clone, Debug, Default)]
pub(super) struct Agreement {
    last: Vec<Word>,
    tail: Vec<String>,
    final_until: f64,
}

impl Agreement {
    /// A stretch that begins at `start`.
    pub(super) fn new(start: f64) -> Self {
        Self { last: Vec::new(), tail: Vec::new(), final_until: start }
    }

    /// End of the last final word; where the stretch begins before there is one.
    pub(super) fn final_until(&self) -> f64 {
        self.final_until
    }

    /// What the last pass said beyond what is final.
    pub(super) fn undecided(&self) -> &[Word] {
        &self.last
    }

    /// Takes in a pass and gives the words that are final by it.
    pub(super) fn pass(&mut self, words: Vec<Word>) -> Vec<Word> {
        let mut words = self.beyond(words);
        let same = self.last.iter().zip(&words).take_while(|(a, b)| plain(&a.text) == plain(&b.text)).count();
        let rest = words.split_off(same);
        self.last = rest;
        self.settle(words)
    }

    /// Takes in the pass behind which no other follows: all its words are final.
    pub(super) fn finish(&mut self, words: Vec<Word>) -> Vec<Word> {
        let words = self.beyond(words);
        self.last.clear();
        self.settle(words)
    }

    /// Makes those words of the last pass final that end before `until`, since the window can grow no more.
    pub(super) fn force(&mut self, until: f64) -> Vec<Word> {
        let count = self.last.iter().take_while(|word| word.end <= until).count();
        let rest = self.last.split_off(count);
        let words = std::mem::replace(&mut self.last, rest);
        self.settle(words)
    }

    /// Nothing before `time` is looked at again.
    pub(super) fn skip_to(&mut self, time: f64) {
        self.final_until = self.final_until.max(time);
    }

    /// What of a pass lies beyond the final words.
    fn beyond(&self, mut words: Vec<Word>) -> Vec<Word> {
        if self.tail.is_empty() {
            return words;
        }
        words.retain(|word| (word.start + word.end) / 2.0 > self.final_until - SLACK_SECS);
        let near = words.first().is_some_and(|word| word.start < self.final_until + NEAR_SECS);
        if near {
            let again = (1..=self.tail.len().min(words.len())).rev().find(|count| {
                let tail = &self.tail[self.tail.len() - count..];
                // One word alone may be said twice; it is the same only where it overlaps.
                let overlaps = *count > 1 || words[0].start < self.final_until - SLACK_SECS;
                overlaps && tail.iter().zip(&words).all(|(tail, word)| *tail == plain(&word.text))
            });
            words.drain(..again.unwrap_or(0));
        }
        words
    }

    fn settle(&mut self, mut words: Vec<Word>) -> Vec<Word> {
        for word in &mut words {
            word.start = word.start.max(self.final_until.min(word.end));
            word.end = word.end.max(word.start);
            self.final_until = self.final_until.max(word.end);
            self.tail.push(plain(&word.text));
        }
        let surplus = self.tail.len().saturating_sub(TAIL_MAX);
        self.tail.drain(..surplus);
        words
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Half a second for each word, from `start` on.
    fn said(text: &str, start: f64) -> Vec<Word> {
        let words = text.split_whitespace().enumerate();
        words
            .map(|(at, text)| {
                let start = start + at as f64 * 0.5;
                Word { text: text.to_owned(), start, end: start + 0.4, speaker: 0, confidence: None }
            })
            .collect()
    }

    fn text(words: &[Word]) -> String {
        words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_word_is_final_once_two_passes_in_a_row_say_it() {
        let mut agreement = Agreement::new(0.0);
        assert_eq!(text(&agreement.pass(said("we meat", 0.0))), "");
        assert_eq!(text(&agreement.pass(said("We meet on", 0.0))), "We");
        assert_eq!(text(&agreement.pass(said("We meet on Friday", 0.0))), "meet on");
        assert_eq!(agreement.final_until(), 1.4);
        assert_eq!(text(&agreement.finish(said("We meet on Friday evening.", 0.0))), "Friday evening.");
    }

    #[test]
    fn a_pass_that_changes_its_mind_finalises_nothing_and_takes_nothing_back() {
        let mut agreement = Agreement::new(0.0);
        agreement.pass(said("I scream", 0.0));
        assert_eq!(text(&agreement.pass(said("ice cream", 0.0))), "");
        assert_eq!(text(&agreement.pass(said("ice cream is", 0.0))), "ice cream");
        assert_eq!(text(&agreement.pass(said("I scream is good", 0.0))), "is");
        assert_eq!(text(&agreement.finish(said("ice cream is good", 0.0))), "good");
    }

    #[test]
    fn a_window_that_overlaps_the_final_words_does_not_say_them_twice() {
        let mut agreement = Agreement::new(0.0);
        agreement.finish(said("send the report before Friday", 0.0));
        // The next window begins within "before", and times differ a little.
        assert_eq!(text(&agreement.finish(said("before Friday please", 1.6))), "please");
        // What is said twice is heard twice.
        assert_eq!(text(&agreement.finish(said("please", 3.4))), "please");
    }

    #[test]
    fn a_window_that_can_grow_no_more_is_settled_up_to_its_end() {
        let mut agreement = Agreement::new(0.0);
        agreement.pass(said("a b c d", 0.0));
        assert_eq!(text(&agreement.force(1.0)), "a b");
        assert_eq!(text(&agreement.finish(said("b c e", 0.5))), "c e");
    }

    proptest! {
        /// However passes differ, what is final is in order and nothing of it is taken back; and what all passes say alike comes
        /// out once.
        #[test]
        fn final_words_grow_in_order(
            passes in prop::collection::vec((0_usize..12, 0_usize..12, any::<bool>()), 1..12),
        ) {
            let truth: Vec<String> = (0..12).map(|n| format!("w{n}")).collect();
            let mut agreement = Agreement::new(0.0);
            let mut all = Vec::new();
            for (upto, wrong_from, wrong) in passes {
                let mut words = said(&truth[..upto].join(" "), 0.0);
                if wrong {
                    words.iter_mut().skip(wrong_from).for_each(|word| word.text.push('x'));
                }
                all.extend(agreement.pass(words));
            }
            all.extend(agreement.finish(said(&truth.join(" "), 0.0)));
            prop_assert!(all.is_sorted_by(|a: &Word, b: &Word| a.start <= b.start && a.end <= b.end));
            let places: Vec<usize> = all.iter().map(|word| (word.start * 2.0).round() as usize).collect();
            prop_assert_eq!(places, (0..12).collect::<Vec<_>>());
        }

        #[test]
        fn passes_that_agree_lose_and_double_nothing(cuts in prop::collection::vec(0_usize..20, 1..8)) {
            let truth: Vec<String> = (0..20).map(|n| format!("w{}", n % 7)).collect();
            let mut agreement = Agreement::new(0.0);
            let (mut all, mut upto) = (Vec::new(), 0);
            for cut in cuts {
                upto = cut.max(upto);
                all.extend(agreement.pass(said(&truth[..upto].join(" "), 0.0)));
            }
            all.extend(agreement.finish(said(&truth.join(" "), 0.0)));
            prop_assert_eq!(text(&all), truth.join(" "));
        }
    }
}
