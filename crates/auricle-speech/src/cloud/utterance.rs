//! Makes utterances of words that a service decides one by one.

use auricle_core::Word;

use super::Said;

/// An utterance that goes on for longer is told in parts, so that people who talk without a pause are read while they talk.
const SECS_MAX: f64 = 5.0;
/// Words of an utterance. Full: it is told.
const WORDS_MAX: usize = 200;
/// Longest text of a word in bytes, of languages that write without spaces. Full: another word begins.
const WORD_BYTES_MAX: usize = 4_096;

/// A word, unless it is empty or its times are none. `confidence`: as the service tells it, if it does.
pub(crate) fn word(text: &str, start: f64, end: f64, speaker: u32, confidence: Option<f64>) -> Option<Word> {
    let text = text.trim();
    let sane = !text.is_empty() && start.is_finite() && end.is_finite();
    let start = start.max(0.0);
    let confidence = confidence.filter(|sure| sure.is_finite()).map(|sure| sure.clamp(0.0, 1.0) as f32);
    sane.then(|| Word { text: text.to_owned(), start, end: end.max(start), speaker, confidence })
}

/// Words that are decided and not told yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Utterance {
    words: Vec<Word>,
}

impl Utterance {
    /// Adds a word. Tells the utterance before it if that has ended or is long.
    pub(crate) fn add(&mut self, word: Word, said: &mut Vec<Said>) {
        let ended =
            self.words.last().is_some_and(|last| last.text.ends_with(['.', '?', '!', '。', '？', '！']));
        let long = self.words.first().is_some_and(|first| word.start - first.start > SECS_MAX);
        if ended || long || self.words.len() >= WORDS_MAX {
            self.end(said);
        }
        self.words.push(word);
    }

    /// Adds to the last word, or begins one if there is none, or if it would be too long or another voice's.
    pub(crate) fn extend(&mut self, piece: Word, said: &mut Vec<Said>) {
        match self.words.last_mut() {
            Some(last)
                if last.speaker == piece.speaker
                    && piece.end - last.start <= SECS_MAX
                    && last.text.len() + piece.text.len() <= WORD_BYTES_MAX =>
            {
                last.text.push_str(&piece.text);
                last.end = last.end.max(piece.end);
                // As sure as its least sure part.
                last.confidence = last.confidence.zip(piece.confidence).map(|(one, other)| one.min(other));
            }
            _ => self.add(piece, said),
        }
    }

    /// Adds a mark to the last word, whoever is said to have spoken it. Without a word there is nothing to mark.
    pub(crate) fn attach(&mut self, mark: &str) {
        if let Some(last) = self.words.last_mut().filter(|last| last.text.len() < WORD_BYTES_MAX) {
            last.text.push_str(mark.trim());
        }
    }

    /// Tells what there is.
    pub(crate) fn end(&mut self, said: &mut Vec<Said>) {
        if !self.words.is_empty() {
            said.push(Said::Words(std::mem::take(&mut self.words)));
        }
    }

    /// What is heard at the moment: its words, and behind them what `add` adds, which may still change. Changes nothing here.
    pub(crate) fn interim(&self, add: impl FnOnce(&mut Self, &mut Vec<Said>)) -> Said {
        let (mut whole, mut said) = (self.clone(), Vec::new());
        add(&mut whole, &mut said);
        whole.end(&mut said);
        let words = said.into_iter().flat_map(|said| match said {
            Said::Words(words) => words,
            _ => Vec::new(),
        });
        Said::Interim(words.collect())
    }

    /// Decided until `secs`, as far as it has been told.
    pub(crate) fn covered(&self, secs: f64) -> Said {
        Said::Covered(self.words.first().map_or(secs, |first| first.start.min(secs)))
    }

    /// The voice of the last word.
    pub(crate) fn speaker(&self) -> Option<u32> {
        self.words.last().map(|last| last.speaker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(said: &[Said]) -> Vec<String> {
        let texts = said.iter().filter_map(|said| match said {
            Said::Words(words) => Some(words.iter().map(|w| w.text.as_str()).collect::<Vec<_>>().join(" ")),
            _ => None,
        });
        texts.collect()
    }

    #[test]
    fn an_utterance_ends_with_its_sentence_and_after_five_seconds() {
        let (mut utterance, mut said) = (Utterance::default(), Vec::new());
        for (text, start) in [("Yes.", 0.0), ("And", 1.0), ("so", 3.0), ("on", 5.9), ("and", 6.5)] {
            utterance.add(word(text, start, start + 0.3, 0, None).unwrap(), &mut said);
        }
        assert_eq!(told(&said), ["Yes.", "And so on"]);
        assert_eq!(utterance.covered(9.0), Said::Covered(6.5));
        utterance.end(&mut said);
        assert_eq!(told(&said).last().unwrap(), "and");
        assert_eq!(utterance.covered(9.0), Said::Covered(9.0));
    }

    #[test]
    fn pieces_join_unless_another_voice_speaks() {
        let (mut utterance, mut said) = (Utterance::default(), Vec::new());
        utterance.add(word("fan", 0.0, 0.2, 0, None).unwrap(), &mut said);
        utterance.extend(word("tastic", 0.2, 0.5, 0, None).unwrap(), &mut said);
        utterance.extend(word("no", 0.5, 0.7, 1, None).unwrap(), &mut said);
        utterance.attach(".");
        utterance.end(&mut said);
        assert_eq!(told(&said), ["fantastic no."]);
    }

    #[test]
    fn a_word_is_as_sure_as_its_least_sure_piece_and_never_beyond_0_to_1() {
        let (mut utterance, mut said) = (Utterance::default(), Vec::new());
        let piece = |text, sure| word(text, 0.0, 0.5, 0, sure).unwrap();
        utterance.add(piece("fan", Some(0.5)), &mut said);
        utterance.extend(piece("tas", Some(0.25)), &mut said);
        utterance.extend(piece("tic", Some(7.0)), &mut said);
        utterance.add(piece("no", Some(1.5)), &mut said);
        utterance.add(piece("un", Some(0.5)), &mut said);
        utterance.extend(piece("known", None), &mut said);
        utterance.add(piece("odd", Some(f64::NAN)), &mut said);
        utterance.end(&mut said);
        let Said::Words(words) = &said[0] else { panic!("{said:?}") };
        let sure: Vec<_> = words.iter().map(|word| word.confidence).collect();
        assert_eq!(sure, [Some(0.25), Some(1.0), None, None]);
    }

    #[test]
    fn a_word_has_text_and_times_in_order() {
        assert_eq!(word("  ", 0.0, 1.0, 0, None), None);
        assert_eq!(word("a", f64::NAN, 1.0, 0, None), None);
        let odd = word("a", -1.0, -2.0, 0, None).unwrap();
        assert_eq!((odd.start, odd.end), (0.0, 0.0));
    }
}
