//! Against what Whisper hears where nobody speaks: text of its training data, and loops. Pure.

use auricle_core::Word;

use super::words::{self, Part, Pass};

/// A part of which the model says that nobody speaks, and whose words it is not sure of either, is silence. Source: OpenAI's
/// own `no_speech_threshold` and `logprob_threshold`.
const NO_SPEECH_MIN: f32 = 0.6;
const LOGPROB_MIN: f32 = -1.0;
/// Longest phrase that is looked at for loops, in words.
const PHRASE_MAX: usize = 12;
/// Times in a row that people say one word (`no, no, no, no`), and a phrase of several.
const WORD_TIMES_MAX: usize = 4;
const PHRASE_TIMES_MAX: usize = 2;

/// What was left out of a pass, in words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) silence: usize,
    pub(super) loops: usize,
}

/// The words of a pass that people can have said, later by `zero` seconds.
pub(super) fn words_of(pass: &Pass, zero: f64) -> (Vec<Word>, LeftOut) {
    let (mut kept, mut left_out) = (Vec::new(), LeftOut::default());
    for part in &pass.parts {
        let mut words = words::of(part, zero);
        if is_silence(part) {
            left_out.silence += words.len();
        } else {
            kept.append(&mut words);
        }
    }
    let before = kept.len();
    cut_loops(&mut kept);
    left_out.loops = before - kept.len();
    (kept, left_out)
}

fn is_silence(part: &Part) -> bool {
    let sum: f32 = part.tokens.iter().map(|token| token.probability.max(1e-9).ln()).sum();
    let mean = sum / part.tokens.len().max(1) as f32;
    part.no_speech > NO_SPEECH_MIN && mean < LOGPROB_MIN
}

/// Leaves one of a phrase that is repeated more often than people repeat one.
pub(super) fn cut_loops(words: &mut Vec<Word>) {
    let mut plain: Vec<String> = words.iter().map(|word| words::plain(&word.text)).collect();
    for length in 1..=PHRASE_MAX {
        let times_max = if length == 1 { WORD_TIMES_MAX } else { PHRASE_TIMES_MAX };
        let mut at = 0;
        while at + length <= plain.len() {
            let again = plain[at..].chunks_exact(length).skip(1);
            let times = 1 + again.take_while(|next| **next == plain[at..at + length]).count();
            if times > times_max {
                let cut = at + length..at + times * length;
                plain.drain(cut.clone());
                words.drain(cut);
            }
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::words::Token;
    use super::*;

    fn spoken(text: &str) -> Vec<Word> {
        let words = text.split_whitespace().enumerate();
        words
            .map(|(at, text)| Word {
                text: text.to_owned(),
                start: at as f64,
                end: at as f64 + 0.5,
                speaker: 0,
                confidence: None,
            })
            .collect()
    }

    fn cut(text: &str) -> String {
        let mut words = spoken(text);
        cut_loops(&mut words);
        words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn loops_are_cut_to_one_turn_and_what_people_repeat_is_left() {
        assert_eq!(cut("No, no, no, no."), "No, no, no, no.");
        assert_eq!(cut("you you you you you you and"), "you and");
        assert_eq!(cut("Thank you. Thank you. bye"), "Thank you. Thank you. bye");
        assert_eq!(cut("so Thank you. thank you! Thank you. Thank you"), "so Thank you.");
        let sentence = "please subscribe to the channel ";
        assert_eq!(cut(&sentence.repeat(9)), sentence.trim());
        assert_eq!(cut("one two one three one two"), "one two one three one two");
        assert_eq!(cut(""), "");
    }

    #[test]
    fn a_part_is_silence_only_if_the_model_doubts_its_words_too() {
        let part = |no_speech, probability| Part {
            tokens: vec![Token { bytes: b" Thanks".to_vec(), start: 0.0, end: 1.0, probability }],
            no_speech,
        };
        let kept = |part: Part| words_of(&Pass { parts: vec![part], language: None }, 0.0);
        assert_eq!(kept(part(0.9, 0.2)).1, LeftOut { silence: 1, loops: 0 });
        assert_eq!(kept(part(0.9, 0.9)).0.len(), 1);
        assert_eq!(kept(part(0.1, 0.2)).0.len(), 1);
        assert_eq!(kept(part(f32::NAN, f32::NAN)).0.len(), 1);
    }

    proptest! {
        #[test]
        fn cutting_keeps_order_and_leaves_nothing_to_cut(text in "([abc] ){0,60}") {
            let mut words = spoken(&text);
            cut_loops(&mut words);
            prop_assert!(words.is_sorted_by(|a, b| a.start < b.start));
            let distinct = |words: &[Word]| {
                let mut texts: Vec<_> = words.iter().map(|word| word.text.clone()).collect();
                texts.sort();
                texts.dedup();
                texts
            };
            prop_assert_eq!(distinct(&words), distinct(&spoken(&text)));
        }
    }
}
