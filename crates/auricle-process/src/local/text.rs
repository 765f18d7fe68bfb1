//! Sentences and words.

use std::sync::LazyLock;

use auricle_core::Segment;
use rust_stemmers::{Algorithm, Stemmer};
use unicode_segmentation::UnicodeSegmentation;

static STEMMER: LazyLock<Stemmer> = LazyLock::new(|| Stemmer::create(Algorithm::English));

/// Words that carry no topic: grammar, fillers, and verbs of everyday talk.
const STOPWORDS: &str = "a about above actually after again against ah all almost already also always am an and another any \
anybody anyone anything anyway are aren't around as at away back be because been before being below between both bit but by \
came can can't come comes coming cannot could couldn't course did didn't do does doesn't doing don't done down during each \
either else er even ever every everyone everything exactly few fine first for from further get gets getting give go goes \
going gone gonna good got gotta great had hadn't has hasn't have haven't having he he'll he's hello her here here's hers hey \
hi him his hmm how i i'd i'll i'm i've if in into is isn't it it'll it's its itself just keep kind know last let let's like \
little ll look looking lot made make makes many may maybe me mean might more most much must my myself need needs never next \
nice no nope not nothing now of off oh ok okay on once one ones only or other our ours out over own part perfect perhaps \
please pretty probably put quite rather really right said same say saying says see seems shall she she'll she's should \
shouldn't since so some somebody someone something sometimes sorry still stuff such sure take takes talk tell than thank \
thanks that that'll that's the their theirs them then there there'll there's these they they'll they're they've thing things \
think this those though thought three through to too told took try two uh uhm um under until up us very wanna want wanted \
wants was wasn't way we we'd we'll we're we've well went were weren't what what's when where which while who who's whole why \
will with without won't wonderful would wouldn't yeah yep yes yet you you'd you'll you're you've your yours yourself";

static STOPPED: LazyLock<std::collections::HashSet<&'static str>> =
    LazyLock::new(|| STOPWORDS.split_whitespace().collect());

/// One sentence as somebody said it.
#[derive(Clone, Debug)]
pub(super) struct Sentence {
    /// Trimmed, verbatim.
    pub(super) text: String,
    /// Lower-case words with their apostrophes.
    pub(super) words: Vec<String>,
    /// Whether it is a question.
    pub(super) question: bool,
    /// Words after which the speaker paused: a comma, a semicolon, a dash.
    pub(super) pauses: Vec<usize>,
}

impl Sentence {
    fn new(text: &str) -> Self {
        let words = words(text);
        Self {
            question: text.trim_end().ends_with('?'),
            pauses: pauses(text),
            text: text.trim().to_owned(),
            words,
        }
    }

    /// Stems of the words that carry a topic.
    pub(super) fn topics(&self) -> Vec<String> {
        self.words.iter().filter(|word| is_topic(word)).map(|word| stem(word)).collect()
    }
}

fn pauses(text: &str) -> Vec<usize> {
    let marks = text.match_indices([',', ';', ':', '—', '–']).filter(|(at, mark)| {
        // Not inside a number or a time of day.
        !text[at + mark.len()..].starts_with(|c: char| c.is_ascii_digit())
    });
    marks.filter_map(|(at, _)| words(&text[..at]).len().checked_sub(1)).collect()
}

/// Lower-case words; apostrophes stay inside.
pub(super) fn words(text: &str) -> Vec<String> {
    text.replace('’', "'").unicode_words().map(str::to_lowercase).collect()
}

/// Whether a word says something about a topic.
pub(super) fn is_topic(word: &str) -> bool {
    word.chars().count() > 2 && !STOPPED.contains(word) && !word.chars().all(|c| c.is_ascii_digit())
}

/// The word without its endings.
pub(super) fn stem(word: &str) -> String {
    STEMMER.stem(word.strip_suffix("'s").unwrap_or(word)).into_owned()
}

/// Sentences that are looked at: a day of talk. Of more, every second, third… one, so that an attempt always ends.
const SENTENCES_MAX: usize = 10_000;
/// Bytes of one sentence; the rest of a longer one is a sentence of its own.
const SENTENCE_BYTES_MAX: usize = 2_000;

/// The transcript's sentences in order. Injected questions of the onboarding (`SPEAKER_99`) are not what anybody said.
pub(super) fn sentences(segments: &[Segment]) -> Vec<Sentence> {
    let said = segments.iter().filter(|segment| segment.speaker_number() != 99);
    let pieces: Vec<&str> = said.flat_map(|segment| split(&segment.text)).flat_map(shortened).collect();
    let step = pieces.len().div_ceil(SENTENCES_MAX).max(1);
    pieces.into_iter().step_by(step).map(Sentence::new).filter(|s| !s.words.is_empty()).collect()
}

/// A sentence in pieces of at most [`SENTENCE_BYTES_MAX`], cut between words where there are any.
fn shortened(sentence: &str) -> impl Iterator<Item = &str> {
    let mut rest = sentence;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.floor_char_boundary(SENTENCE_BYTES_MAX);
        let cut =
            if end < rest.len() { rest[..end].rfind(' ').filter(|at| *at > 0).unwrap_or(end) } else { end };
        let (piece, behind) = rest.split_at(cut);
        rest = behind;
        Some(piece)
    })
}

/// Splits after `.`, `?` and `!` that end a word, but not inside numbers or after an initial or a title.
fn split(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut begin = 0;
    for (at, mark) in text.match_indices(['.', '?', '!']) {
        let behind = &text[at + mark.len()..];
        if !behind.is_empty() && !behind.starts_with([' ', '\n', '"']) {
            continue;
        }
        let before = text[begin..at].rsplit(' ').next().unwrap_or_default();
        let short = mark == "."
            && matches!(before.to_lowercase().as_str(), "mr" | "mrs" | "ms" | "dr" | "st" | "a.m" | "p.m");
        let initial =
            mark == "." && before.len() == 1 && before.starts_with(char::is_uppercase) && before != "I";
        if short || initial {
            continue;
        }
        pieces.push(&text[begin..at + mark.len()]);
        begin = at + mark.len();
    }
    if begin < text.len() {
        pieces.push(&text[begin..]);
    }
    pieces
}

/// First letter large.
pub(super) fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_talk_and_endless_sentences_are_looked_at_in_part() {
        let endless = "word ".repeat(2_000);
        let pieces: Vec<_> = shortened(&endless).collect();
        assert_eq!(pieces.concat(), endless);
        assert!(pieces.iter().all(|piece| piece.len() <= SENTENCE_BYTES_MAX), "{}", pieces.len());
        assert_eq!(shortened(&"é".repeat(3_000)).collect::<String>(), "é".repeat(3_000));
        let segment = Segment {
            id: "s".into(),
            text: "We meet at noon. ".repeat(100),
            speaker: None,
            is_user: false,
            person_id: None,
            start: 0.0,
            end: 1.0,
            translations: Vec::new(),
            speech_profile_processed: true,
            stt_provider: None,
        };
        let segments = vec![segment; 350];
        assert!((5_000..=SENTENCES_MAX).contains(&sentences(&segments).len()));
    }

    #[test]
    fn sentences_end_where_people_end_them() {
        assert_eq!(
            split("It costs 3.5 euros. Dr. Smith said so! Really?")
                .iter()
                .map(|s| s.trim())
                .collect::<Vec<_>>(),
            ["It costs 3.5 euros.", "Dr. Smith said so!", "Really?"]
        );
        assert_eq!(split("no end").len(), 1);
    }
}
