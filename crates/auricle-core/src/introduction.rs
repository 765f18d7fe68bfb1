//! Whether somebody says their own name: "my name is Ana", "Hi, I'm Ana", "this is Ana speaking".
//!
//! Conservative: a wrong name costs more than a missed one. What is accepted, and in which of two kinds of text:
//!
//! | phrase | with capitals | without (all lower or all upper case, as some engines write) |
//! | --- | --- | --- |
//! | "my name is X" and its like in es, fr, de, it, pt, nl, ru | X has a capital | what follows X ends the phrase: nothing, punctuation, "and", "from", "I" … |
//! | "this is X speaking" or "calling" | the same | the same |
//! | "I'm X", "I am X" | X has a capital, and what follows ends the phrase | never |
//! | "soy X" after a greeting | the same | never |
//!
//! X is one word, and none of [`stop_words`]; what is said of another's words ("she said I'm Ana") or asked is passed over.

mod stop_words;

use self::stop_words::{BARE, NEVER};

/// Words of a text that are looked at; names are told at the beginning of what somebody says.
const WORDS_MAX: usize = 400;
/// Characters of a name. Source: Omi's people have 2 to 40.
const NAME_CHARS: std::ops::RangeInclusive<usize> = 2..=40;

/// After these words comes a name.
const NAMED: &[&[&str]] = &[
    &["my", "name", "is"],
    &["my", "name's"],
    &["me", "llamo"],
    &["mi", "nombre", "es"],
    &["je", "m'appelle"],
    &["mon", "nom", "est"],
    &["ich", "heiße"],
    &["ich", "heisse"],
    &["mein", "name", "ist"],
    &["mi", "chiamo"],
    &["mio", "nome", "è"],
    &["me", "chamo"],
    &["meu", "nome", "é"],
    &["mijn", "naam", "is"],
    &["ik", "heet"],
    &["меня", "зовут"],
];
/// After these comes a name, or anything else.
const BARE_PHRASES: &[&[&str]] = &[&["i'm"], &["i", "am"]];
const GREETED_PHRASES: &[&[&str]] = &[&["soy"]];
/// Before the name; one of the others after it.
const SPEAKING: &[&str] = &["this", "is"];
const SPEAKING_AFTER: &[&str] = &["speaking", "calling"];

/// Hesitations, which engines may write.
const FILLERS: &[&str] = &["uh", "um", "er", "erm", "eh"];
const GREETINGS: &[&str] = &[
    "hi",
    "hello",
    "hey",
    "morning",
    "afternoon",
    "evening",
    "everyone",
    "everybody",
    "all",
    "folks",
    "hola",
    "buenas",
    "buenos",
    "días",
    "dias",
    "tardes",
    "noches",
];
/// What may follow a name within a sentence.
const FOLLOWING: &[&str] = &[
    "and", "from", "i", "i'm", "i'll", "nice", "hi", "hello", "speaking", "here", "y", "de", "et", "und",
    "aus", "e",
];
/// Before the phrase these make it somebody else's words, or none that hold.
const REPORTING: &[&str] = &[
    "say", "says", "said", "saying", "tell", "told", "think", "thinks", "thought", "that", "if", "whether",
    "because", "like", "pretend", "know", "knows", "believe", "believes", "wish", "not", "unless", "when",
    "que", "dass", "si",
];

/// What stands behind a word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pause {
    None,
    Comma,
    End,
    Question,
}

struct Word<'t> {
    text: &'t str,
    lower: String,
    pause: Pause,
}

impl Word<'_> {
    fn is(&self, word: &str) -> bool {
        self.lower == word
    }

    fn is_capitalised(&self) -> bool {
        let mut letters = self.text.chars().filter(|letter| letter.is_alphabetic());
        letters.next().is_some_and(char::is_uppercase) && letters.any(char::is_lowercase)
    }

    /// Whether it can be a name at all.
    fn is_name(&self) -> bool {
        NAME_CHARS.contains(&self.text.chars().count())
            && self.lower.chars().all(|letter| letter.is_alphabetic() || letter == '\'' || letter == '-')
            && !self.lower.ends_with("'s")
            && !NEVER.contains(&self.lower.as_str())
    }
}

/// The name by which somebody introduces themselves in what they say; `None` if they do not, or it is not certain.
pub fn introduced(text: &str) -> Option<String> {
    let words = words(text);
    let pronoun = |word: &Word<'_>| word.is("i") || word.lower.starts_with("i'");
    let has_capitals = words.iter().any(|word| !pronoun(word) && word.text.contains(char::is_uppercase));
    let is_cased = has_capitals && text.contains(char::is_lowercase);
    (0..words.len()).find_map(|at| {
        let name = name_at(&words, at, is_cased)?;
        Some(if is_cased { name.text.to_owned() } else { capitalised(&name.lower) })
    })
}

fn words(text: &str) -> Vec<Word<'_>> {
    let mut words: Vec<Word<'_>> = Vec::new();
    for piece in text.split_whitespace().take(WORDS_MAX) {
        let word = piece.trim_matches(|letter: char| !letter.is_alphanumeric());
        let behind = &piece[piece.rfind(word).unwrap_or(0) + word.len()..];
        let pause = match behind {
            _ if behind.contains('?') => Pause::Question,
            _ if behind.contains(['.', '!', ';', ':', '…']) => Pause::End,
            _ if behind.is_empty() => Pause::None,
            _ => Pause::Comma,
        };
        let lower = word.to_lowercase().replace('’', "'");
        if word.is_empty() || FILLERS.contains(&lower.as_str()) {
            // A dash, or a hesitation: the word before it is followed by a pause, unless a phrase goes on behind it.
            if let Some(last) = words.last_mut().filter(|last| last.pause == Pause::None && word.is_empty()) {
                last.pause = Pause::Comma;
            }
            continue;
        }
        words.push(Word { text: word, lower, pause });
    }
    words
}

/// The name of an introduction that begins with the word at `at`.
fn name_at<'w, 't>(words: &'w [Word<'t>], at: usize, is_cased: bool) -> Option<&'w Word<'t>> {
    let reported = at.checked_sub(1).map(|before| &words[before]);
    if reported.is_some_and(|word| word.pause == Pause::None && REPORTING.contains(&word.lower.as_str())) {
        return None;
    }
    let rest = &words[at..];
    let after = |phrase: &&[&str]| {
        let said = rest.get(..phrase.len())?;
        let whole = said.iter().zip(*phrase).all(|(word, wanted)| word.is(wanted));
        let unbroken = said.iter().all(|word| matches!(word.pause, Pause::None | Pause::Comma));
        (whole && unbroken).then(|| &rest[phrase.len()..])
    };
    let is_written_so = |name: &Word<'_>| !is_cased || name.is_capitalised();
    if let Some(rest) = NAMED.iter().find_map(after) {
        let name = candidate(rest)?;
        return (is_written_so(name) && (is_cased || ends_phrase(rest, 0))).then_some(name);
    }
    if let Some(rest) = after(&SPEAKING) {
        let name = candidate(rest)?;
        let speaking = rest.get(1).is_some_and(|word| SPEAKING_AFTER.contains(&word.lower.as_str()));
        let at_once = name.pause == Pause::None;
        return (speaking && at_once && is_written_so(name) && ends_phrase(rest, 1)).then_some(name);
    }
    if !is_cased {
        return None;
    }
    let greeted = words[at.saturating_sub(3)..at].iter().any(|word| GREETINGS.contains(&word.lower.as_str()));
    let bare = BARE_PHRASES.iter().find_map(after);
    let rest = bare.or_else(|| GREETED_PHRASES.iter().find_map(after).filter(|_| greeted))?;
    let name = candidate(rest)?;
    // A name of two words only where nothing else is likely.
    let ends = ends_phrase(rest, 0)
        || (greeted && rest.get(1).is_some_and(Word::is_capitalised) && ends_phrase(rest, 1));
    (name.is_capitalised() && ends && !is_state(&name.lower)).then_some(name)
}

fn candidate<'w, 't>(rest: &'w [Word<'t>]) -> Option<&'w Word<'t>> {
    rest.first().filter(|name| name.is_name() && name.pause != Pause::Question)
}

/// Whether nothing that belongs to the word at `at` follows it.
fn ends_phrase(rest: &[Word<'_>], at: usize) -> bool {
    let paused = rest[at].pause != Pause::None;
    paused || rest.get(at + 1).is_none_or(|next| FOLLOWING.contains(&next.lower.as_str()))
}

/// Whether it says how or what somebody is: after "I'm" that is likelier than a name.
fn is_state(lower: &str) -> bool {
    const NAMES_IN_ED: &[&str] = &[
        "ahmed", "mohammed", "mohamed", "muhammed", "jared", "alfred", "wilfred", "khaled", "hamed", "sayed",
        "waleed",
    ];
    let is_long = lower.chars().count() > 4;
    BARE.contains(&lower)
        || (is_long && lower.ends_with("ed") && !NAMES_IN_ED.contains(&lower))
        || (is_long && ["ing", "ful", "less", "ous", "able", "ible"].iter().any(|end| lower.ends_with(end)))
}

/// With a capital at the beginning and after each hyphen.
fn capitalised(lower: &str) -> String {
    let mut begins = true;
    let mut name = String::with_capacity(lower.len());
    for letter in lower.chars() {
        if begins {
            name.extend(letter.to_uppercase());
        } else {
            name.push(letter);
        }
        begins = letter == '-';
    }
    name
}

#[cfg(test)]
mod tests;
