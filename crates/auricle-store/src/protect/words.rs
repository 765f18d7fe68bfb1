//! Words for the blind index, and the pieces of text that a search shows: what the database's own tokeniser does to plain
//! text (`porter unicode61`), done here, since it must not see the text.

use std::ops::Range;

use rust_stemmers::{Algorithm, Stemmer};
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

use super::Sealer;

/// One word of a text: where it stands, in bytes, and its stem.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Word {
    from: usize,
    until: usize,
    pub(crate) stem: String,
}

/// The words of a text: letters, digits and their marks, without case and accents, stemmed.
pub(crate) fn words(text: &str) -> Vec<Word> {
    let stemmer = Stemmer::create(Algorithm::English);
    let mut found = Vec::new();
    let mut from = None;
    // One more step than there are characters, for a word that ends with the text.
    for (at, letter) in text.char_indices().map(|(at, letter)| (at, Some(letter))).chain([(text.len(), None)])
    {
        let within = letter.is_some_and(|letter| letter.is_alphanumeric() || is_combining_mark(letter));
        match (from, within) {
            (None, true) => from = Some(at),
            (Some(begun), false) => {
                found.push(Word { from: begun, until: at, stem: stem(&stemmer, &text[begun..at]) });
                from = None;
            }
            _ => {}
        }
    }
    // Marks that stood alone.
    found.retain(|word| !word.stem.is_empty());
    found
}

fn stem(stemmer: &Stemmer, word: &str) -> String {
    let folded: String = if word.is_ascii() {
        word.to_ascii_lowercase()
    } else {
        word.nfd()
            .filter(|letter| !('\u{300}'..='\u{36f}').contains(letter))
            .flat_map(char::to_lowercase)
            .collect()
    };
    stemmer.stem(&folded).into_owned()
}

/// The words of a text as the index holds them; `None` without a key.
pub(crate) fn blinded(sealer: &Sealer, text: &str) -> Option<String> {
    if !sealer.is_on() {
        return None;
    }
    let blind: Option<Vec<String>> = words(text).iter().map(|word| sealer.blind(&word.stem)).collect();
    blind.map(|words| words.join(" "))
}

/// Up to `words_max` words around the most matches, each match between U+0002 and U+0003, as the database's `snippet` gives.
/// A term is a run of stems.
pub(crate) fn snippet(text: &str, terms: &[Vec<String>], words_max: usize) -> String {
    /// Words shown before the first match.
    const BEFORE: usize = 4;
    let words = words(text);
    let matches = matches(&words, terms);
    let within = |first: usize| {
        let last = first + words_max;
        matches.iter().filter(|(from, until)| *from >= first && *until <= last).count()
    };
    let starts = matches.iter().map(|(from, _)| from.saturating_sub(BEFORE));
    // The first of the best.
    let first = starts.rev().max_by_key(|first| within(*first)).unwrap_or(0);
    let last = (first + words_max).min(words.len());
    let begin = if first == 0 { 0 } else { words[first].from };
    let end = if last == words.len() { text.len() } else { words[last - 1].until };
    let mut shown = String::with_capacity(end - begin + 16);
    if begin > 0 {
        shown.push('…');
    }
    let within = matches.iter().filter(|(from, until)| *from >= first && *until <= last);
    mark(&mut shown, text, &words, begin..end, within);
    if end < text.len() {
        shown.push('…');
    }
    shown
}

/// The whole text, its matches marked in the same way.
pub(crate) fn marked(text: &str, terms: &[Vec<String>]) -> String {
    let words = words(text);
    let mut shown = String::with_capacity(text.len() + 16);
    mark(&mut shown, text, &words, 0..text.len(), matches(&words, terms).iter());
    shown
}

/// Where terms match, in words: the first of each and the one after its last. They do not overlap.
fn matches(words: &[Word], terms: &[Vec<String>]) -> Vec<(usize, usize)> {
    let mut matches: Vec<(usize, usize)> = Vec::new();
    for at in 0..words.len() {
        let longest = terms
            .iter()
            .filter(|term| !term.is_empty() && words.len() - at >= term.len())
            .filter(|term| term.iter().zip(&words[at..]).all(|(stem, word)| *stem == word.stem))
            .map(Vec::len)
            .max();
        if let Some(length) = longest
            && matches.last().is_none_or(|(_, until)| *until <= at)
        {
            matches.push((at, at + length));
        }
    }
    matches
}

/// Shows a piece of the text with these matches marked.
fn mark<'m>(
    shown: &mut String,
    text: &str,
    words: &[Word],
    piece: Range<usize>,
    matches: impl Iterator<Item = &'m (usize, usize)>,
) {
    let mut at = piece.start;
    for (from, until) in matches {
        shown.push_str(&text[at..words[*from].from]);
        shown.push('\u{2}');
        at = words[*until - 1].until;
        shown.push_str(&text[words[*from].from..at]);
        shown.push('\u{3}');
    }
    shown.push_str(&text[at..piece.end]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stems(text: &str) -> Vec<String> {
        words(text).into_iter().map(|word| word.stem).collect()
    }

    #[test]
    fn words_have_no_case_no_accents_and_no_endings() {
        assert_eq!(stems("Calling the DENTISTS, twice!"), ["call", "the", "dentist", "twice"]);
        assert_eq!(stems("Café café cafe\u{301}"), ["cafe", "cafe", "cafe"]);
        assert_eq!(stems("don't"), ["don", "t"]);
        assert_eq!(stems("at 9:30, 東京 нет"), ["at", "9", "30", "東京", "нет"]);
        assert_eq!(stems(" \u{301} — "), [""; 0]);
    }

    fn terms(of: &[&str]) -> Vec<Vec<String>> {
        of.iter().map(|term| stems(term)).collect()
    }

    #[test]
    fn matches_are_marked_in_the_text_as_it_is() {
        let shown = snippet("Again, about TEA; not Green Teas.", &terms(&["green tea", "tea"]), 24);
        assert_eq!(shown, "Again, about \u{2}TEA\u{3}; not \u{2}Green Teas\u{3}.");
        assert_eq!(marked("Again, about TEA; not Green Teas.", &terms(&["green tea", "tea"])), shown);
        assert_eq!(snippet("nothing here", &terms(&["tea"]), 24), "nothing here");
        assert_eq!(snippet("", &terms(&["tea"]), 24), "");
    }

    #[test]
    fn of_a_long_text_the_best_part_is_shown() {
        let text = format!("tea {} one tea two tea three {}", "word ".repeat(50), "word ".repeat(50));
        let shown = snippet(&text, &terms(&["tea"]), 12);
        assert_eq!(shown, "…word word word  one \u{2}tea\u{3} two \u{2}tea\u{3} three word word word word…");
        let ends = snippet(&"word ".repeat(40), &terms(&["word"]), 3);
        assert!(ends.ends_with('…') && !ends.starts_with('…'), "{ends}");
    }
}
