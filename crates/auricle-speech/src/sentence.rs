//! Makes a sentence of what a recogniser without punctuation heard.
//!
//! It matters beyond looks: Omi's merging rule joins every lower-case, unpunctuated segment to the one before, for ever
//! (listen-protocol 5.4, rule 4).

use auricle_core::Word;

/// Openings that make a question when a subject follows.
const AUXILIARIES: [&str; 18] = [
    "do", "does", "did", "is", "are", "was", "were", "can", "could", "would", "will", "shall", "should",
    "have", "has", "am", "may", "might",
];
const SUBJECTS: [&str; 14] = [
    "i", "you", "he", "she", "it", "we", "they", "there", "that", "this", "the", "your", "anyone", "anybody",
];
const QUESTION_WORDS: [&str; 9] = ["who", "what", "when", "where", "why", "how", "which", "whose", "what's"];
const NAMES: [&str; 19] = [
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
    "january",
    "february",
    "april",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
    "english",
    "christmas",
];

/// Capitalises the first word, `I`, days and months, and ends the last word with `.` or `?`.
pub fn finish(words: &mut [Word]) {
    let question = is_question(words);
    begin(words);
    if let Some(last) = words.last_mut() {
        last.text.push(if question { '?' } else { '.' });
    }
}

/// Capitalises as [`finish`] does; the end of the sentence has not been heard.
pub fn begin(words: &mut [Word]) {
    for (index, word) in words.iter_mut().enumerate() {
        let text = word.text.as_str();
        let pronoun = text == "i" || text.starts_with("i'");
        let stem = text.strip_suffix("'s").unwrap_or(text);
        if index == 0 || pronoun || NAMES.contains(&stem) {
            word.text = capitalised(text);
        }
    }
}

fn is_question(words: &[Word]) -> bool {
    let at = |index: usize| words.get(index).map(|word| word.text.as_str()).unwrap_or_default();
    let skip = usize::from(matches!(at(0), "and" | "but" | "so" | "well" | "okay" | "oh"));
    let (first, second) = (at(skip), at(skip + 1));
    let asks = QUESTION_WORDS.contains(&first) && words.len() > skip + 1 && !matches!(second, "ever");
    asks || (AUXILIARIES.contains(&first) && SUBJECTS.contains(&second))
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(text: &str) -> String {
        let mut words: Vec<Word> = text
            .split(' ')
            .map(|text| Word { text: text.to_owned(), start: 0.0, end: 0.0, speaker: 0, confidence: None })
            .collect();
        finish(&mut words);
        words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn statements_and_questions() {
        assert_eq!(finished("i think i'll go on friday"), "I think I'll go on Friday.");
        assert_eq!(finished("can you send it by monday's meeting"), "Can you send it by Monday's meeting?");
        assert_eq!(finished("what time is it"), "What time is it?");
        assert_eq!(finished("so how are you"), "So how are you?");
        assert_eq!(finished("is good"), "Is good.");
        assert_eq!(finished("what"), "What.");
        assert_eq!(finished("whatever"), "Whatever.");
    }
}
