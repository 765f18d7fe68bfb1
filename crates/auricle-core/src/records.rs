//! Action items and memories that outlive the revision which made them: what of a new revision is new, and what of the old
//! one stays.
//!
//! Owns: when two texts say the same, and the plan that follows. Leaves to others: rows (`auricle-store`).

use std::collections::BTreeMap;

/// Records of one kind that one revision may bring. Full: later ones are left out. More than any conversation has; the plan
/// takes time in its square.
pub const RECORDS_MAX: usize = 200;

/// The least share of the longer text's words that the shorter must have to say the same.
const SHARE_MIN: f64 = 0.75;

/// A record of an earlier revision, or one that the user made.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    /// As it now reads.
    pub text: &'a str,
    /// As understanding last wrote it; `None` for what the user made.
    pub made: Option<&'a str>,
    /// Whether it stays without being made again: the user touched, completed, made or deleted it.
    pub stays: bool,
}

/// What becomes of a kept record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The new revision has it too, under this number.
    MadeAgain(usize),
    /// It is not in the new revision and stays all the same.
    Stays,
    /// It is not in the new revision and goes.
    Goes,
}

/// What a new revision does to the records of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// One for each kept record.
    pub kept: Vec<Fate>,
    /// Numbers of the new ones that are really new, in order.
    pub added: Vec<usize>,
}

/// Lower-case words of letters and digits, apart by one space: two texts that differ only in case, punctuation and space are
/// one.
pub fn normalised(text: &str) -> String {
    let mut normal = String::with_capacity(text.len());
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '\'').map(|word| word.trim_matches('\''));
    for word in words.filter(|word| !word.is_empty()) {
        if !normal.is_empty() {
            normal.push(' ');
        }
        normal.extend(word.chars().flat_map(char::to_lowercase));
    }
    normal
}

/// How often each word occurs.
fn counted(normal: &str) -> BTreeMap<&str, usize> {
    let mut words = BTreeMap::new();
    for word in normal.split(' ').filter(|word| !word.is_empty()) {
        *words.entry(word).or_default() += 1;
    }
    words
}

/// Whether two normalised texts say the same: they have the same words in whatever order, or one has all words of the other
/// and at most a third more. A word in another's place (`Ann` for `Bob`) always says something else.
pub fn says_the_same(one: &str, other: &str) -> bool {
    if one == other {
        return true;
    }
    let (one, other) = (counted(one), counted(other));
    let size = |words: &BTreeMap<&str, usize>| words.values().sum::<usize>();
    let (short, long) = if size(&one) <= size(&other) { (&one, &other) } else { (&other, &one) };
    let within = short.iter().all(|(word, count)| long.get(word).is_some_and(|more| more >= count));
    within && size(short) > 0 && size(short) as f64 >= SHARE_MIN * size(long) as f64
}

/// Matches a new revision's texts with what is kept: equal ones first, then similar ones, each kept record with one new text
/// at most. A record is known by what understanding wrote, then by what it reads, so that one which the user reworded is
/// not made twice. Of equal new texts the first counts; texts without a word, and those beyond [`RECORDS_MAX`], do not.
pub fn plan(kept: &[Kept<'_>], new: &[&str]) -> Plan {
    let mut texts: Vec<(usize, String)> = Vec::new();
    for (number, text) in new.iter().enumerate() {
        let normal = normalised(text);
        if texts.len() < RECORDS_MAX && !normal.is_empty() && texts.iter().all(|(_, known)| *known != normal)
        {
            texts.push((number, normal));
        }
    }
    let made: Vec<_> = kept.iter().map(|old| old.made.map(normalised)).collect();
    let read: Vec<_> = kept.iter().map(|old| Some(normalised(old.text))).collect();
    let mut fates: Vec<Option<usize>> = vec![None; kept.len()];
    let equal: fn(&str, &str) -> bool = |one, other| one == other;
    for (known, same) in [(&made, equal), (&read, equal), (&made, says_the_same), (&read, says_the_same)] {
        texts.retain(|(number, text)| {
            let is_it = |old: &usize| known[*old].as_deref().is_some_and(|known| same(known, text));
            let old = (0..kept.len()).find(|old| fates[*old].is_none() && is_it(old));
            if let Some(old) = old {
                fates[old] = Some(*number);
            }
            old.is_none()
        });
    }
    let fate = |(fate, old): (Option<usize>, &Kept<'_>)| match fate {
        Some(number) => Fate::MadeAgain(number),
        None if old.stays => Fate::Stays,
        None => Fate::Goes,
    };
    Plan {
        kept: fates.into_iter().zip(kept).map(fate).collect(),
        added: texts.into_iter().map(|(number, _)| number).collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made(text: &str) -> Kept<'_> {
        Kept { text, made: Some(text), stays: false }
    }

    #[test]
    fn case_punctuation_and_space_make_no_difference() {
        assert_eq!(normalised("  Call ANN—on Monday! "), "call ann on monday");
        assert_eq!(normalised("don't 'quote'"), "don't quote");
        assert_eq!(normalised("…"), "");
    }

    #[test]
    fn similar_is_the_same_words_and_a_third_more() {
        for (one, other, same) in [
            ("send the report to bob", "send bob the report", true),
            ("send the report to bob", "bob send to the report", true),
            ("call ann on monday", "call bob on monday", false),
            ("send the big quarterly report to bob", "send the big quarterly report to ann", false),
            ("do not send the report to bob", "send the report to bob", false),
            ("call ann", "call ann on monday", false),
            ("buy milk", "buy milk milk", false),
            ("", "call", false),
        ] {
            assert_eq!(says_the_same(one, other), same, "{one:?} {other:?}");
            assert_eq!(says_the_same(other, one), same, "{other:?} {one:?}");
        }
    }

    #[test]
    fn what_is_made_again_keeps_its_place_and_what_is_not_goes() {
        let kept = [made("Call Ann."), made("Buy milk")];
        let plan = plan(&kept, &["Send the report", "call ann"]);
        assert_eq!(plan, Plan { kept: vec![Fate::MadeAgain(1), Fate::Goes], added: vec![0] });
    }

    #[test]
    fn what_the_user_reworded_is_known_by_what_was_made() {
        let reworded = Kept { text: "Ring Ann about the roof", made: Some("Call Ann"), stays: true };
        assert_eq!(plan(&[reworded], &["Call Ann"]).added, [0; 0]);
        assert_eq!(plan(&[reworded], &["Ring Ann about the roof"]).added, [0; 0]);
        assert_eq!(plan(&[reworded], &[]).kept, [Fate::Stays]);
    }

    #[test]
    fn a_text_that_two_have_is_of_the_one_it_was_made_for() {
        let reworded = Kept { text: "Buy milk", made: Some("Call Ann"), stays: true };
        let plan = plan(&[reworded, made("Buy milk")], &["Buy milk", "Call Ann"]);
        assert_eq!(plan.kept, [Fate::MadeAgain(1), Fate::MadeAgain(0)]);
    }

    #[test]
    fn an_equal_text_is_matched_before_a_similar_one() {
        let kept = [made("send the report to bob"), made("send bob the report")];
        let plan = plan(&kept, &["send bob the report", "send the report to bob"]);
        assert_eq!(plan.kept, [Fate::MadeAgain(1), Fate::MadeAgain(0)]);
    }

    proptest! {
        #[test]
        fn every_new_text_is_matched_once_added_once_or_repeated(
            kept in prop::collection::vec(("[ab] [ab] [ab]", any::<bool>()), 0..8),
            new in prop::collection::vec("[ab ]{0,6}", 0..8),
        ) {
            let kept: Vec<_> = kept.iter().map(|(text, stays)| Kept { stays: *stays, ..made(text) }).collect();
            let new: Vec<_> = new.iter().map(String::as_str).collect();
            fn made_again<'a>(old: Kept<'a>, new: &'a str) -> Kept<'a> {
                Kept { text: if old.stays { old.text } else { new }, made: Some(new), ..old }
            }
            let plan = plan(&kept, &new);
            let mut used: Vec<usize> = plan.added.clone();
            used.extend(plan.kept.iter().filter_map(|fate| match fate {
                Fate::MadeAgain(number) => Some(*number),
                Fate::Stays | Fate::Goes => None,
            }));
            used.sort_unstable();
            let before = used.len();
            used.dedup();
            prop_assert_eq!(used.len(), before, "no text twice");
            for (number, text) in new.iter().enumerate() {
                let normal = normalised(text);
                let first = new.iter().position(|other| normalised(other) == normal) == Some(number);
                prop_assert_eq!(used.contains(&number), first && !normal.is_empty());
            }
            // A second time the same revision adds nothing.
            let mut now = Vec::new();
            for (old, fate) in kept.iter().zip(&plan.kept) {
                match fate {
                    Fate::MadeAgain(number) => now.push(made_again(*old, new[*number])),
                    Fate::Stays => now.push(*old),
                    Fate::Goes => {}
                }
            }
            now.extend(plan.added.iter().map(|number| made(new[*number])));
            prop_assert!(super::plan(&now, &new).added.is_empty());
        }
    }
}
