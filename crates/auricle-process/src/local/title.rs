//! A title from key phrases: runs of topic words, weighed by how often their words come and where.

use std::collections::BTreeMap;

use super::text::{Sentence, capitalised, is_topic, stem};

const PHRASE_WORDS_MAX: usize = 4;
const TITLE_WORDS_MAX: usize = 10;
/// Verbs, numbers and times make poor titles: they end a phrase.
const WEAK: &str = "add added ask asked asking book booked bring call called check finish forget feel help hope hear heard \
leave left meet minute minutes moment morning afternoon evening night tonight today tomorrow yesterday monday tuesday \
wednesday thursday friday saturday sunday week weeks month months year years day days hour hours o'clock noon move pick \
plan ready remember remind run send sent set share show sound sounds start started stay tell text turn use used wait walk \
week weekend work works write yesterday buy bought seven eight nine ten four five six eleven twelve hundred thousand happy \
euros euro dollars dollar pounds cheaper twenty thirty forty fifty sixty seventy eighty ninety once twice turns turned turning \
idea time times people guys best better new old long big small agree agreed early late later later usual double listen";

/// Never empty for a transcript with a word in it; at most ten words, all of them said.
pub(super) fn of(sentences: &[Sentence], ranked: &[(usize, f64)]) -> String {
    let weights = weights(sentences);
    let mut phrases = phrases(sentences, &weights);
    phrases.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.first.cmp(&b.first)));
    let Some(best) = phrases.first() else { return fallback(sentences, ranked) };
    let stems = |phrase: &Phrase| phrase.words.iter().map(|word| stem(word)).collect::<Vec<_>>();
    let first = stems(best);
    let apart = |phrase: &&Phrase| stems(phrase).iter().all(|word| !first.contains(word));
    let second = phrases.iter().skip(1).find(|phrase| apart(phrase) && phrase.score >= best.score * 0.45);
    let mut parts = vec![best];
    parts.extend(second);
    parts.sort_by_key(|phrase| phrase.first);
    let titled: Vec<String> = parts.iter().map(|phrase| titled(&phrase.words)).collect();
    let title = titled.join(" and ");
    title.split(' ').take(TITLE_WORDS_MAX).collect::<Vec<_>>().join(" ")
}

struct Phrase {
    words: Vec<String>,
    score: f64,
    /// Sentence and word where it is first said; no two phrases share it.
    first: (usize, usize),
}

/// How much a word matters: how often it is said, damped.
fn weights(sentences: &[Sentence]) -> BTreeMap<String, f64> {
    let mut counts: BTreeMap<String, f64> = BTreeMap::new();
    for topic in sentences.iter().flat_map(Sentence::topics) {
        *counts.entry(topic).or_insert(0.0) += 1.0;
    }
    counts.values_mut().for_each(|count| *count = 1.0 + count.ln());
    counts
}

fn is_weak(word: &str) -> bool {
    WEAK.split_whitespace().any(|weak| weak == word)
}

fn phrases(sentences: &[Sentence], weights: &BTreeMap<String, f64>) -> Vec<Phrase> {
    let mut found: BTreeMap<String, Phrase> = BTreeMap::new();
    for (index, sentence) in sentences.iter().enumerate() {
        let mut at = 0;
        for run in sentence.words.split(|word| !is_topic(word) || is_weak(word)) {
            let begin = at;
            at += run.len() + 1;
            if greets(&sentence.words[..begin]) {
                continue;
            }
            if run.is_empty() || run.len() > PHRASE_WORDS_MAX {
                continue;
            }
            let key: Vec<String> = run.iter().map(|word| stem(word)).collect();
            let weight: f64 = key.iter().filter_map(|word| weights.get(word)).sum();
            // Two words say more than one, four not more than three.
            let shape = [0.0, 0.85, 1.25, 1.3, 1.1][run.len()];
            let early = 1.2 - 0.2 * (index as f64 / sentences.len().max(1) as f64);
            let question = if sentence.question { 0.9 } else { 1.0 };
            let score = weight / (run.len() as f64).sqrt() * shape * early * question;
            let entry = found.entry(key.join(" ")).or_insert(Phrase {
                words: run.to_vec(),
                score: 0.0,
                first: (index, begin),
            });
            entry.score = entry.score.max(score) + if entry.score > 0.0 { score * 0.3 } else { 0.0 };
        }
    }
    found.into_values().collect()
}

/// A name that somebody is greeted or thanked by is not what the talk is about.
fn greets(before: &[String]) -> bool {
    let last = before.last().map(String::as_str).unwrap_or_default();
    matches!(last, "hello" | "hi" | "hey" | "thanks" | "bye" | "morning" | "evening" | "you" | "okay")
        && before.len() <= 2
}

fn titled(words: &[String]) -> String {
    let small = |word: &String| matches!(word.as_str(), "and" | "or" | "of" | "the" | "a");
    words
        .iter()
        .map(|word| if small(word) { word.clone() } else { capitalised(word) })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Without a phrase the best sentence's first words stand for it.
fn fallback(sentences: &[Sentence], ranked: &[(usize, f64)]) -> String {
    let index = ranked.first().map_or_else(
        || (0..sentences.len()).max_by_key(|index| sentences[*index].words.len()).unwrap_or(0),
        |(index, _)| *index,
    );
    let words = sentences.get(index).map(|sentence| sentence.words.as_slice()).unwrap_or_default();
    let title = capitalised(&words[..words.len().min(6)].join(" "));
    if title.is_empty() { "Untitled".into() } else { title }
}
