//! From a model's tokens to words with times. Pure.

use auricle_core::Word;

/// What one pass over a window gave. Times are seconds from the window's first sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pass {
    pub(super) parts: Vec<Part>,
    /// ISO 639-1 code of what the model took the language for.
    pub(super) language: Option<String>,
}

/// A segment, as the model cuts them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Part {
    pub(super) tokens: Vec<Token>,
    /// How sure the model is that nobody speaks, 0 to 1.
    pub(super) no_speech: f32,
}

/// A piece of text: a word or part of one. A new word begins with a space. May end within a character.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) bytes: Vec<u8>,
    pub(super) start: f64,
    pub(super) end: f64,
    /// Of the model's choice, 0 to 1.
    pub(super) probability: f32,
}

/// The words of a part, in order, later by `zero` seconds. Times do not go back. Sounds that the model describes, `[MUSIC]`,
/// `(applause)` or `♪`, are no words.
pub(super) fn of(part: &Part, zero: f64) -> Vec<Word> {
    let mut raw: Vec<(Vec<u8>, f64, f64, f32)> = Vec::new();
    for token in &part.tokens {
        match raw.last_mut() {
            Some((bytes, _, end, sure)) if !token.bytes.starts_with(b" ") => {
                bytes.extend(&token.bytes);
                *end = end.max(token.end);
                // As sure as its least sure part.
                *sure = sure.min(token.probability);
            }
            _ => raw.push((token.bytes.clone(), token.start, token.end, token.probability)),
        }
    }
    let mut words: Vec<Word> = Vec::new();
    for (bytes, start, end, sure) in raw {
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        let start = (start.max(0.0) + zero).max(words.last().map_or(0.0, |word| word.start));
        let end = (end + zero).max(start);
        match words.last_mut() {
            // A dash or a quotation mark that stands alone.
            Some(last) if !text.is_empty() && !says_something(&text) => {
                last.text.push_str(&text);
                last.end = last.end.max(end);
            }
            _ if text.is_empty() => {}
            _ => {
                let confidence = Some(sure.clamp(0.0, 1.0)).filter(|sure| sure.is_finite());
                words.push(Word { text, start, end, speaker: 0, confidence });
            }
        }
    }
    without_descriptions(words)
}

fn says_something(text: &str) -> bool {
    text.chars().any(|letter| letter.is_alphanumeric() || "[(*♪".contains(letter))
}

/// Leaves out what stands in brackets, if the bracket is closed.
fn without_descriptions(words: Vec<Word>) -> Vec<Word> {
    let closing = |word: &Word| match word.text.chars().next()? {
        '[' => Some(']'),
        '(' => Some(')'),
        '*' => Some('*'),
        '♪' => Some('♪'),
        _ => None,
    };
    let ends = |word: &Word, with: char| word.text.trim_end_matches(['.', ',', '!', '?']).ends_with(with);
    let (mut kept, mut at) = (Vec::with_capacity(words.len()), 0);
    while at < words.len() {
        // What opens may close in the same word, unless it is the sign alone.
        let alone = usize::from(words[at].text.chars().count() == 1);
        let described =
            closing(&words[at]).and_then(|with| words[at + alone..].iter().position(|word| ends(word, with)));
        match described {
            Some(last) => at += alone + last + 1,
            None => {
                kept.push(words[at].clone());
                at += 1;
            }
        }
    }
    kept.retain(|word| word.text.chars().any(char::is_alphanumeric));
    kept
}

/// A word as it is compared with another: lower case, letters and digits.
pub(super) fn plain(text: &str) -> String {
    text.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(tokens: &[(&[u8], f64, f64)]) -> Part {
        let token = |(bytes, start, end): &(&[u8], f64, f64)| Token {
            bytes: bytes.to_vec(),
            start: *start,
            end: *end,
            probability: 1.0,
        };
        Part { tokens: tokens.iter().map(token).collect(), no_speech: 0.0 }
    }

    fn texts(words: &[Word]) -> Vec<&str> {
        words.iter().map(|word| word.text.as_str()).collect()
    }

    #[test]
    fn tokens_are_joined_into_words_and_a_character_may_be_spread_over_two() {
        let mut part = part(&[
            (b" Caf", 0.0, 0.2),
            (b"\xc3", 0.2, 0.2),
            (b"\xa9", 0.2, 0.3),
            (b",", 0.3, 0.3),
            (b" please", 0.4, 0.8),
            (b" -", 0.8, 0.9),
            (b".", 0.9, 0.9),
        ]);
        (part.tokens[2].probability, part.tokens[4].probability) = (0.25, f32::NAN);
        let words = of(&part, 10.0);
        assert_eq!(texts(&words), ["Café,", "please-."]);
        assert_eq!((words[0].confidence, words[1].confidence), (Some(0.25), None));
        assert_eq!((words[0].start, words[0].end, words[1].end), (10.0, 10.3, 10.9));
    }

    #[test]
    fn times_do_not_go_back_whatever_the_model_says() {
        let words = of(&part(&[(b" a", 0.5, 0.4), (b" b", 0.2, 0.3), (b" c", -1.0, 9.0)]), 0.0);
        assert!(words.is_sorted_by(|a, b| a.start <= b.start));
        assert!(words.iter().all(|word| word.end >= word.start && word.start >= 0.0));
    }

    #[test]
    fn described_sounds_are_no_words_and_an_open_bracket_hides_nothing() {
        let heard = |text: &str| {
            let tokens: Vec<_> = text.split_inclusive(' ').map(|word| format!(" {}", word.trim())).collect();
            let tokens: Vec<(&[u8], f64, f64)> =
                tokens.iter().map(|word| (word.as_bytes(), 0.0, 0.0)).collect();
            texts(&of(&part(&tokens), 0.0)).join(" ")
        };
        assert_eq!(heard("[BLANK_AUDIO]"), "");
        assert_eq!(heard("(upbeat music) Hello [door closes]. there"), "Hello there");
        assert_eq!(heard("♪ la la ♪ and then"), "and then");
        assert_eq!(heard("*coughs* sorry"), "sorry");
        assert_eq!(heard("he said [ that it works"), "he said that it works");
        assert_eq!(heard("(see below it works"), "(see below it works");
        assert_eq!(heard("..."), "");
    }
}
