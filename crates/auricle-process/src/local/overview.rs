//! Ranking sentences (TextRank) and choosing a few.

use std::collections::BTreeMap;

use super::text::{Sentence, capitalised};

/// Sentences that take part in the ranking; of a longer transcript an even spread is taken, so that cost stays bounded.
const CANDIDATES_MAX: usize = 400;
const DAMPING: f64 = 0.85;
const ROUNDS: usize = 20;
/// A sentence this alike one that was chosen adds nothing.
const REDUNDANT: f64 = 0.5;
const WORDS_MIN: usize = 4;
const WORDS_MAX: usize = 45;

/// Sentences with their weight, best first.
pub(super) fn rank(sentences: &[Sentence]) -> Vec<(usize, f64)> {
    let fit: Vec<usize> = (0..sentences.len()).filter(|index| is_candidate(&sentences[*index])).collect();
    let step = fit.len().div_ceil(CANDIDATES_MAX).max(1);
    let candidates: Vec<usize> = fit.into_iter().step_by(step).collect();
    let topics: Vec<BTreeMap<String, f64>> =
        candidates.iter().map(|index| weights(&sentences[*index])).collect();
    let likeness = likenesses(&topics);
    let mut scores = vec![1.0; candidates.len()];
    let sums: Vec<f64> = likeness.iter().map(|row| row.iter().map(|(_, alike)| alike).sum()).collect();
    for _ in 0..ROUNDS {
        let before = scores.clone();
        for (index, row) in likeness.iter().enumerate() {
            let flow: f64 =
                row.iter().map(|(other, alike)| alike / sums[*other].max(1e-9) * before[*other]).sum();
            scores[index] = 1.0 - DAMPING + DAMPING * flow;
        }
    }
    let total = sentences.len().max(1) as f64;
    let mut ranked: Vec<(usize, f64)> = candidates
        .iter()
        .zip(scores)
        .map(|(index, score)| (*index, score * prior(&sentences[*index], *index as f64 / total)))
        .collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    ranked
}

fn is_candidate(sentence: &Sentence) -> bool {
    (WORDS_MIN..=WORDS_MAX).contains(&sentence.words.len()) && sentence.topics().len() >= 2
}

/// Statements say more than questions, sentences of a middling length more than short ones, early ones set the topic.
fn prior(sentence: &Sentence, place: f64) -> f64 {
    let statement = if sentence.question { 0.6 } else { 1.0 };
    let length = (sentence.topics().len() as f64 / 6.0).clamp(0.4, 1.0);
    statement * length * (1.15 - 0.3 * place)
}

fn weights(sentence: &Sentence) -> BTreeMap<String, f64> {
    let mut weights = BTreeMap::new();
    for topic in sentence.topics() {
        *weights.entry(topic).or_insert(0.0) += 1.0;
    }
    weights
}

fn alike(a: &BTreeMap<String, f64>, b: &BTreeMap<String, f64>) -> f64 {
    let (small, large) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    let shared = small.keys().filter(|topic| large.contains_key(*topic)).count() as f64;
    shared / (1.0 + (a.len() as f64).ln() + (b.len() as f64).ln())
}

fn likenesses(topics: &[BTreeMap<String, f64>]) -> Vec<Vec<(usize, f64)>> {
    let mut rows = vec![Vec::new(); topics.len()];
    for a in 0..topics.len() {
        for b in a + 1..topics.len() {
            let alike = alike(&topics[a], &topics[b]);
            if alike > 0.0 {
                rows[a].push((b, alike));
                rows[b].push((a, alike));
            }
        }
    }
    rows
}

/// One to four sentences in the order in which they were said.
pub(super) fn of(sentences: &[Sentence], ranked: &[(usize, f64)]) -> String {
    let wanted = match sentences.len() {
        0..=3 => 1,
        4..=9 => 2,
        10..=40 => 3,
        _ => 4,
    };
    let mut chosen: Vec<usize> = Vec::new();
    for (index, _) in ranked {
        let new = weights(&sentences[*index]);
        let redundant = chosen.iter().any(|other| {
            let old = weights(&sentences[*other]);
            let shared = new.keys().filter(|topic| old.contains_key(*topic)).count() as f64;
            shared / new.len().min(old.len()).max(1) as f64 > REDUNDANT
        });
        if !redundant {
            chosen.push(*index);
        }
        if chosen.len() == wanted {
            break;
        }
    }
    if chosen.is_empty() {
        // Nothing is rich enough to rank: the longest sentence says the most.
        chosen.extend((0..sentences.len()).max_by_key(|index| sentences[*index].words.len()));
    }
    chosen.sort_unstable();
    chosen.iter().map(|index| sentence(&sentences[*index].text)).collect::<Vec<_>>().join(" ")
}

fn sentence(text: &str) -> String {
    let mut text = capitalised(text);
    if !text.ends_with(['.', '?', '!']) {
        text.push('.');
    }
    text
}
