//! Which conversations are set aside. Source: pusher-and-processing 4.1.

use auricle_core::{Conversation, DiscardReason};

use super::text::Sentence;
use crate::understanding::KEEP_WORDS;

/// Fewer words of substance than this, and nothing asked or planned, is chatter.
const TOPICS_MIN: usize = 3;
/// What people say to try a microphone, or in passing.
const CHATTER: [&str; 14] = [
    "test",
    "testing",
    "check",
    "mic",
    "microphone",
    "hear",
    "hello",
    "one",
    "two",
    "three",
    "bye",
    "goodbye",
    "morning",
    "evening",
];

/// `None` to keep it. Generous: only what is plainly empty is set aside.
pub(super) fn reason(conversation: &Conversation, sentences: &[Sentence]) -> Option<DiscardReason> {
    let words: usize =
        conversation.segments.iter().map(|segment| segment.text.split_whitespace().count()).sum();
    let described =
        conversation.photos.iter().any(|photo| photo.description.as_deref().is_some_and(|d| !d.is_empty()));
    if words > KEEP_WORDS || described {
        return None;
    }
    if sentences.is_empty() {
        return Some(DiscardReason::Empty);
    }
    let substance = sentences
        .iter()
        .flat_map(|sentence| &sentence.words)
        .filter(|word| super::text::is_topic(word) && !CHATTER.contains(&word.as_str()));
    let mut topics: Vec<String> = substance.map(|word| super::text::stem(word)).collect();
    topics.sort();
    topics.dedup();
    let planned = sentences.iter().any(super::actions::is_commitment);
    (topics.len() < TOPICS_MIN && !planned).then_some(DiscardReason::Trivial)
}
