//! Several rankings made one: reciprocal rank fusion.
//!
//! Scores of different searches cannot be compared, ranks can: what stands at rank r of a ranking gets 1/(60 + r) from it, and
//! what several rankings name gets the sum. Source: Cormack, Clarke and Büttcher 2009.

use std::collections::HashMap;
use std::hash::Hash;

/// Dampens the difference between the first ranks.
const K: f64 = 60.0;

/// Something that at least one ranking names.
#[derive(Clone, Debug, PartialEq)]
pub struct Fused<T, const N: usize> {
    /// What.
    pub key: T,
    /// Greater is better.
    pub score: f64,
    /// Its rank in each ranking, from 1; `None` where it is not named.
    pub ranks: [Option<usize>; N],
}

/// One ranking of several, best first. A ranking that names something twice counts the better rank. What is equal stands in
/// the order of the rankings' own.
pub fn fuse<T: Clone + Eq + Hash, const N: usize>(rankings: [&[T]; N]) -> Vec<Fused<T, N>> {
    let mut places: HashMap<&T, usize> = HashMap::new();
    let mut fused: Vec<Fused<T, N>> = Vec::new();
    for (number, ranking) in rankings.into_iter().enumerate() {
        for (index, key) in ranking.iter().enumerate() {
            let place = *places.entry(key).or_insert_with(|| {
                fused.push(Fused { key: key.clone(), score: 0.0, ranks: [None; N] });
                fused.len() - 1
            });
            let named = &mut fused[place];
            if named.ranks[number].is_none() {
                named.ranks[number] = Some(index + 1);
                named.score += 1.0 / (K + (index + 1) as f64);
            }
        }
    }
    // Stable: the best of the first ranking first.
    fused.sort_by(|one, other| {
        let best = |of: &Fused<T, N>| of.ranks.iter().flatten().min().copied();
        other.score.total_cmp(&one.score).then(best(one).cmp(&best(other)))
    });
    fused
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_both_name_comes_before_what_one_does() {
        let fused = fuse([&["a", "b", "c"][..], &["d", "b"][..]]);
        let order: Vec<_> = fused.iter().map(|each| each.key).collect();
        assert_eq!(order, ["b", "a", "d", "c"]);
        assert_eq!(fused[0].ranks, [Some(2), Some(2)]);
        assert!((fused[0].score - 2.0 / 62.0).abs() < 1e-12);
        assert_eq!(fused[2].ranks, [None, Some(1)]);
    }

    #[test]
    fn one_ranking_alone_keeps_its_order() {
        let fused = fuse([&[3, 1, 2][..], &[][..]]);
        assert_eq!(fused.iter().map(|each| each.key).collect::<Vec<_>>(), [3, 1, 2]);
        assert!(fuse::<u8, 2>([&[], &[]]).is_empty());
    }

    #[test]
    fn what_is_named_twice_counts_once() {
        let fused = fuse([&["a", "a", "b"][..]]);
        assert_eq!(fused.len(), 2);
        assert_eq!((fused[0].ranks, fused[0].score), ([Some(1)], 1.0 / 61.0));
    }

    proptest! {
        #[test]
        fn everything_named_is_there_once_and_in_order(
            one in prop::collection::vec(0_u8..20, 0..20),
            other in prop::collection::vec(0_u8..20, 0..20),
        ) {
            let fused = fuse([&one[..], &other[..]]);
            let mut keys: Vec<_> = fused.iter().map(|each| each.key).collect();
            prop_assert!(fused.windows(2).all(|pair| pair[0].score >= pair[1].score));
            keys.sort_unstable();
            let mut all = [one, other].concat();
            all.sort_unstable();
            all.dedup();
            prop_assert_eq!(keys, all);
        }
    }
}
