//! What of a conversation is embedded: its record as one text, and its transcript in chunks.

use auricle_core::{Conversation, Segment, SegmentId};

/// A chunk ends at the first segment border from here on.
const WORDS_ENOUGH: usize = 200;
/// Words of one chunk, unless it is one segment's part: a segment longer than this is cut between words.
const WORDS_MAX: usize = 300;
/// A longer word counts as several of this length.
const WORD_CHARS: usize = 6;
/// Characters of one text. Full: the rest of it is left out. Words are short; what is not words is not searched for.
const CHARS_MAX: usize = 6_000;
/// Action items and events of a record's text.
const LINES_MAX: usize = 50;

/// A stretch of a transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its words, apart by one space.
    pub text: String,
    /// The segment it begins in.
    pub first: SegmentId,
    /// The segment it ends in.
    pub last: SegmentId,
}

/// A transcript in chunks of 200 to 300 words, at the borders of segments: all words, each once, in order. The last chunk may
/// be shorter; one before a long segment may be, too.
pub fn chunks(segments: &[Segment]) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    // Of the chunk that is being filled; none if it is 0.
    let mut filled = 0;
    for segment in segments {
        for (text, words) in parts(&segment.text) {
            match chunks.last_mut().filter(|_| filled > 0 && filled + words <= WORDS_MAX) {
                Some(chunk) => {
                    chunk.text.push(' ');
                    chunk.text.push_str(&text);
                    chunk.last = segment.id.clone();
                    filled += words;
                }
                None => {
                    chunks.push(Chunk { text, first: segment.id.clone(), last: segment.id.clone() });
                    filled = words;
                }
            }
            if filled >= WORDS_ENOUGH {
                filled = 0;
            }
        }
    }
    chunks
}

/// A segment's text in parts of [`WORDS_MAX`] words at most, each with how many it counts as.
fn parts(text: &str) -> Vec<(String, usize)> {
    let mut parts: Vec<(String, usize)> = Vec::new();
    for word in text.split_whitespace() {
        // Where no spaces are written, a sentence looks like one word.
        let weight = (word.chars().count() / WORD_CHARS).max(1);
        match parts.last_mut().filter(|(_, words)| words + weight <= WORDS_MAX) {
            Some((part, words)) => {
                part.push(' ');
                part.push_str(word);
                *words += weight;
            }
            None => parts.push((word.to_owned(), weight)),
        }
    }
    parts
}

/// A record as one text: title, category, overview, action items, events.
pub fn record(conversation: &Conversation) -> String {
    let made = &conversation.structured;
    let items = made.action_items.iter().map(|item| item.description.as_str());
    let events = made.events.iter().map(|event| event.title.as_str());
    let head = [conversation.title(), made.category.as_str(), made.overview.as_str()];
    let lines: Vec<_> = head
        .into_iter()
        .chain(items.take(LINES_MAX))
        .chain(events.take(LINES_MAX))
        .filter(|line| !line.is_empty())
        .collect();
    bounded(&lines.join("\n"))
}

/// As much of a text as is embedded.
pub fn bounded(text: &str) -> String {
    text.chars().take(CHARS_MAX).collect()
}

/// How many texts go into one call: as many as fit into both bounds, and one at least.
pub fn batch(texts: &[String], items_max: usize, bytes_max: usize) -> usize {
    let mut bytes = 0;
    let fit = texts.iter().take(items_max).take_while(|text| {
        bytes += text.len();
        bytes <= bytes_max
    });
    fit.count().max(1).min(texts.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment(id: usize, text: String) -> Segment {
        Segment {
            id: format!("s{id}").into(),
            text,
            speaker: None,
            is_user: false,
            person_id: None,
            start: id as f64,
            end: id as f64 + 1.0,
            translations: Vec::new(),
            speech_profile_processed: true,
            stt_provider: None,
        }
    }

    fn of_lengths(lengths: &[usize]) -> Vec<Segment> {
        let text = |(id, words): (usize, &usize)| {
            (0..*words).map(|word| format!("w{id}.{word}")).collect::<Vec<_>>().join(" ")
        };
        lengths.iter().enumerate().map(|each| segment(each.0, text(each))).collect()
    }

    #[test]
    fn a_chunk_ends_at_a_border_of_segments() {
        let chunks = chunks(&of_lengths(&[150, 100, 40, 700, 10]));
        let shape: Vec<_> = chunks
            .iter()
            .map(|chunk| (chunk.first.as_str(), chunk.last.as_str(), chunk.text.split(' ').count()))
            .collect();
        assert_eq!(
            shape,
            [("s0", "s1", 250), ("s2", "s2", 40), ("s3", "s3", 300), ("s3", "s3", 300), ("s3", "s4", 110)]
        );
    }

    proptest! {
        #[test]
        fn chunks_hold_every_word_once_and_in_order(lengths in prop::collection::vec(0_usize..700, 0..40)) {
            let segments = of_lengths(&lengths);
            let chunks = chunks(&segments);
            let all: Vec<_> = segments.iter().flat_map(|segment| segment.text.split_whitespace()).collect();
            let held: Vec<_> = chunks.iter().flat_map(|chunk| chunk.text.split(' ')).collect();
            prop_assert_eq!(held, all);
            for chunk in &chunks {
                let words: Vec<_> = chunk.text.split(' ').collect();
                prop_assert!((1..=WORDS_MAX).contains(&words.len()));
                let of = |id: &SegmentId| format!("w{}.", &id.as_str()[1..]);
                prop_assert!(words[0].starts_with(&of(&chunk.first)));
                prop_assert!(words[words.len() - 1].starts_with(&of(&chunk.last)));
            }
            // Two neighbours are never both so short that they would have been one.
            for pair in chunks.windows(2) {
                let count = |chunk: &Chunk| chunk.text.split(' ').count();
                prop_assert!(count(&pair[0]) >= WORDS_ENOUGH || count(&pair[0]) + count(&pair[1]) > WORDS_MAX
                    || pair[1].first == pair[1].last);
            }
        }

        #[test]
        fn a_batch_is_within_its_bounds_and_never_empty(lengths in prop::collection::vec(0_usize..50, 1..20)) {
            let texts: Vec<_> = lengths.iter().map(|length| "x".repeat(*length)).collect();
            let size = batch(&texts, 5, 60);
            prop_assert!((1..=5).contains(&size));
            prop_assert!(size == 1 || texts[..size].iter().map(String::len).sum::<usize>() <= 60);
        }
    }
}
