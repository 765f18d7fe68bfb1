//! Which conversations hold every term, best first: from the numbers of rows alone, which the full-text index gives in order.
//! No text, no table and no other user's row is read.
//!
//! The score is BM25 with conversations as documents. How often a term occurs is the number of the conversation's lines that
//! hold it, where a match in title or overview counts double; a conversation is as long as it has segments. Source: Robertson
//! and Zaragoza 2009, with the constants that are usual.

use rusqlite::OptionalExtension;

use super::db::Db;
use super::places::{Cache, Places};
use crate::store::{Ranked, Result};

const K1: f64 = 1.2;
const B: f64 = 0.75;
/// Lines that a match in title or overview counts as.
const TITLE_COUNTS: u32 = 2;
/// Best lines of one conversation.
pub(super) const LINES_MAX: usize = 3;

/// Which of the terms each line holds, a bit for each.
type Held = u16;
/// More terms than a line can note.
pub(super) const TERMS_MAX: usize = Held::BITS as usize;

/// What the index says of one query.
struct Matches {
    /// By segment, as in [`Places`].
    segments: Vec<Held>,
    /// Title and overview, by conversation.
    titles: Vec<Held>,
}

/// `terms`: expressions that match only rows of this user; at most [`TERMS_MAX`].
pub(super) fn rank(
    db: &Db,
    cache: &Cache,
    user: i64,
    terms: &[String],
    (limit, offset): (usize, usize),
) -> Result<Vec<Ranked>> {
    let mut places = cache.of(db, user)?;
    let (mut matches, unknown) = matches(db, &places, terms)?;
    if !unknown.is_empty() {
        // Conversations that began since and have a title but no segments.
        let conversations: Vec<i64> = unknown.iter().map(|(conversation, _)| *conversation).collect();
        places = cache.keep(user, places.with(&conversations));
        matches.titles.resize(places.conversations().len(), 0);
        for (conversation, held) in unknown {
            if let Some(number) = places.number_of(conversation) {
                matches.titles[number as usize] |= held;
            }
        }
    }
    let (weights, scored) = scores(&places, &matches, terms.len());
    let page: Vec<_> = scored.into_iter().skip(offset).take(limit).collect();
    let lines = lines(&places, &matches, &weights, &page);
    let mut id_of = db.prepare_cached("SELECT id FROM conversations WHERE rid = ?1 AND user = ?2")?;
    let mut ranked = Vec::with_capacity(page.len());
    for ((score, number), lines) in page.into_iter().zip(lines) {
        let rid = places.conversations()[number as usize];
        let id: Option<String> = id_of.query_row([rid, user], |row| row.get(0)).optional()?;
        // Gone for the tables and not for the index: an answer without it is the true one.
        let Some(id) = id else { continue };
        ranked.push(Ranked { conversation: id.into(), score, lines });
    }
    Ok(ranked)
}

/// Also what conversations hold that have no place, each with its terms.
fn matches(db: &Db, places: &Places, terms: &[String]) -> Result<(Matches, Vec<(i64, Held)>)> {
    let mut matches =
        Matches { segments: vec![0; places.segments().len()], titles: vec![0; places.conversations().len()] };
    let mut unknown = Vec::new();
    let mut query = db.prepare_cached("SELECT rowid FROM search WHERE search MATCH ?1 ORDER BY rowid")?;
    for (number, term) in terms.iter().enumerate() {
        let held: Held = 1 << number;
        let mut at = 0;
        let mut found = query.query([term])?;
        while let Some(row) = found.next()? {
            let row: i64 = row.get(0)?;
            if row % 2 == 1 {
                match places.number_of(row / 2) {
                    Some(number) => matches.titles[number as usize] |= held,
                    None => unknown.push((row / 2, held)),
                }
                continue;
            }
            at = forward(places.segments(), at, row / 2);
            if places.segments().get(at) == Some(&(row / 2)) {
                matches.segments[at] |= held;
            }
        }
    }
    Ok((matches, unknown))
}

/// The first index from `at` on whose number is not less than `number`; quick if it is near.
fn forward(numbers: &[i64], at: usize, number: i64) -> usize {
    let mut step = 1;
    let mut from = at;
    while from + step < numbers.len() && numbers[from + step] < number {
        from += step;
        step *= 2;
    }
    let until = (from + step + 1).min(numbers.len());
    from + numbers[from.min(until)..until].partition_point(|each| *each < number)
}

/// What each term weighs, and the conversations that hold every term with their scores, best first.
fn scores(places: &Places, matches: &Matches, terms: usize) -> (Vec<f64>, Vec<(f64, u32)>) {
    let conversations = places.conversations().len();
    let mut counts = vec![0_u32; conversations * terms];
    let mut count = |number: usize, held: Held, times: u32| {
        let mut left = held;
        while left != 0 {
            counts[number * terms + left.trailing_zeros() as usize] += times;
            left &= left - 1;
        }
    };
    for (held, number) in matches.segments.iter().zip(places.of()) {
        if *held != 0 {
            count(*number as usize, *held, 1);
        }
    }
    for (number, held) in matches.titles.iter().enumerate() {
        count(number, *held, TITLE_COUNTS);
    }
    let weights: Vec<f64> = (0..terms)
        .map(|term| {
            let with = (0..conversations).filter(|number| counts[number * terms + term] > 0).count() as f64;
            (1.0 + (conversations as f64 - with + 0.5) / (with + 0.5)).ln()
        })
        .collect();
    let average = places.segments().len().max(1) as f64 / conversations.max(1) as f64;
    let mut scored = Vec::new();
    for (number, counts) in counts.chunks_exact(terms.max(1)).enumerate() {
        if counts.contains(&0) {
            continue;
        }
        let length = f64::from(places.lines()[number].max(1)) / average;
        let score = counts.iter().zip(&weights).map(|(count, weight)| {
            let count = f64::from(*count);
            weight * count * (K1 + 1.0) / (count + K1 * (1.0 - B + B * length))
        });
        scored.push((score.sum::<f64>(), number as u32));
    }
    // Of equals the newer first.
    let rid = |number: u32| places.conversations()[number as usize];
    scored.sort_unstable_by(|one, other| other.0.total_cmp(&one.0).then(rid(other.1).cmp(&rid(one.1))));
    (weights, scored)
}

/// Of each conversation of the page its rows of the index that hold the most and rarest terms; of equals title and overview,
/// then the earlier.
fn lines(places: &Places, matches: &Matches, weights: &[f64], page: &[(f64, u32)]) -> Vec<Vec<i64>> {
    let weigh = |held: Held| -> f64 {
        weights.iter().enumerate().filter(|(term, _)| held & (1 << term) != 0).map(|(_, weight)| weight).sum()
    };
    const ABSENT: u32 = u32::MAX;
    let mut wanted = vec![ABSENT; places.conversations().len()];
    let mut best: Vec<Vec<(f64, i64)>> = Vec::with_capacity(page.len());
    for (at, (_, number)) in page.iter().enumerate() {
        wanted[*number as usize] = at as u32;
        let held = matches.titles[*number as usize];
        let title = (held != 0).then(|| (weigh(held), places.conversations()[*number as usize] * 2 + 1));
        best.push(title.into_iter().collect());
    }
    for ((held, number), segment) in matches.segments.iter().zip(places.of()).zip(places.segments()) {
        let at = wanted[*number as usize];
        if *held == 0 || at == ABSENT {
            continue;
        }
        let (best, weight) = (&mut best[at as usize], weigh(*held));
        let place = best.iter().position(|(other, _)| *other < weight).unwrap_or(best.len());
        if place < LINES_MAX {
            best.insert(place, (weight, segment * 2));
            best.truncate(LINES_MAX);
        }
    }
    best.into_iter().map(|best| best.into_iter().map(|(_, line)| line).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::forward;

    #[test]
    fn going_forward_finds_what_a_search_from_the_beginning_finds() {
        let numbers: Vec<i64> = (0..200).map(|number| number * 3 + number % 2).collect();
        for from in [0, 1, 7, 100, 199, 200] {
            for number in -1..620 {
                let expected = from + numbers[from..].partition_point(|each| *each < number);
                assert_eq!(forward(&numbers, from, number), expected, "{from} {number}");
            }
        }
        assert_eq!(forward(&[], 0, 5), 0);
    }
}
