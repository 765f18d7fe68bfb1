//! What somebody said they would do, or asked another to do.

use auricle_core::{ActionItem, UnixMicros};

use super::dates::{Clock, Found};
use super::text::{Sentence, capitalised, is_topic, stem};

/// Words of a description. Source: pusher-and-processing 4.2.
const WORDS_MAX: usize = 15;
const ITEMS_MAX: usize = 20;
/// Two items that share this many of their words of substance are one.
const ALIKE: f64 = 0.7;

/// Openings after which a thing to do follows, longest first. The verb is the next word.
const OPENINGS: &[&str] = &[
    "don't forget to",
    "do not forget to",
    "remember to",
    "remind me to",
    "make sure to",
    "make sure you",
    "make sure we",
    "you need to",
    "you have to",
    "you should",
    "we need to",
    "we have to",
    "we should",
    "we must",
    "we will",
    "we'll",
    "i need to",
    "i have to",
    "i should",
    "i must",
    "i will",
    "i'll",
    "i can",
    "i'm going to",
    "i am going to",
    "i want you to",
    "can you",
    "could you",
    "would you",
    "will you",
    "please",
    "let's",
    "let us",
    "somebody has to",
    "someone needs to",
    "i've got to",
    "i got to",
    "we've got to",
    "we're going to",
    "i promise to",
    "gotta",
];
/// Small words between an opening and its verb.
const BETWEEN: [&str; 12] = [
    "also",
    "please",
    "just",
    "then",
    "definitely",
    "really",
    "probably",
    "all",
    "maybe",
    "still",
    "both",
    "quickly",
];
/// Verbs that name a thing to do. Others after an opening are talk ("I'll be fine", "we should see").
const VERBS: &str = "add answer arrange ask assign attend backup bake book borrow bring build buy call cancel change charge check \
clean close collect complete confirm contact cook copy create credit deliver design discuss download draft drop email explain extend \
fetch file fill find finish fix follow forward get gather give go hand hang help hire install invite invoice join leave lend \
look mail make measure meet message move notify open order organise organize pack paint pay phone pick plan plant post prepare \
present print publish put read rebook recharge register remind remove renew rent repair replace reply report request \
reschedule research reserve return review rewrite schedule search sell send set share ship show sign sort speak start stop \
submit switch take talk tell test text tidy translate try turn update upload visit wash water wrap write";
/// Verbs that need an object to be a thing to do: "I'll get it" is talk, "I'll get the tickets" is not.
const LIGHT: &str = "get give go look make put set show speak start stop take talk tell try turn leave meet help close open find";

/// A thing to do found in a sentence: the words from the verb on.
struct Task {
    words: std::ops::Range<usize>,
}

/// Whether a sentence promises or asks for something, which is worth keeping.
pub(super) fn is_commitment(sentence: &Sentence) -> bool {
    find(sentence).is_some()
}

/// The things to do, in the order in which they were said.
pub(super) fn of(sentences: &[Sentence], clock: &Clock, now: UnixMicros) -> Vec<ActionItem> {
    let mut items: Vec<(Vec<String>, ActionItem)> = Vec::new();
    for sentence in sentences {
        let Some(task) = find(sentence) else { continue };
        let due = clock.find(&sentence.words).filter(|due| clock.is_ahead(due.at));
        let Some(description) = describe(sentence, &task, due.as_ref()) else { continue };
        let stems = stems(&description);
        let item = ActionItem {
            description,
            completed: false,
            created_at: Some(now),
            updated_at: None,
            due_at: due.map(|due| due.at),
            completed_at: None,
        };
        match items.iter_mut().find(|(known, _)| alike(known, &stems)) {
            // Said again, perhaps with the date this time.
            Some((_, known)) => known.due_at = known.due_at.or(item.due_at),
            None => items.push((stems, item)),
        }
        if items.len() == ITEMS_MAX {
            break;
        }
    }
    items.into_iter().map(|(_, item)| item).collect()
}

fn find(sentence: &Sentence) -> Option<Task> {
    let words: Vec<&str> = sentence.words.iter().map(String::as_str).collect();
    for begin in 0..words.len() {
        let Some(opening) = OPENINGS.iter().find(|opening| starts_with(&words[begin..], opening)) else {
            continue;
        };
        if is_unreal(&words[..begin]) {
            continue;
        }
        let mut verb = begin + opening.split(' ').count();
        while words.get(verb).is_some_and(|word| BETWEEN.contains(word)) {
            verb += 1;
        }
        let asks = matches!(*opening, "can you" | "could you" | "would you" | "will you");
        let Some(task) = task(&words, verb, asks, &sentence.pauses) else { continue };
        // "I can" is an offer only of a deed with a time or an object; "can you hear me" is no request.
        if *opening == "i can" && task.words.len() < 3 {
            continue;
        }
        return Some(task);
    }
    // An imperative: the sentence begins with the verb, or with a name or small word and then the verb.
    let lead = usize::from(matches!(
        words.first(),
        Some(&("and" | "so" | "then" | "also" | "okay" | "ok" | "well"))
    ));
    task(&words, lead, false, &sentence.pauses)
        .filter(|task| task.words.len() >= 3 && is_imperative(&words[lead..]))
}

fn starts_with(words: &[&str], opening: &str) -> bool {
    let mut parts = opening.split(' ');
    let mut words = words.iter();
    parts.all(|part| words.next() == Some(&part))
}

/// Conditions, wishes and reports before the opening make it no commitment.
fn is_unreal(before: &[&str]) -> bool {
    let near = &before[before.len().saturating_sub(4)..];
    let condition = before.iter().any(|word| matches!(*word, "if" | "unless"));
    condition
        || near.iter().any(|word| {
            matches!(
                *word,
                "if" | "unless"
                    | "whether"
                    | "said"
                    | "wish"
                    | "asked"
                    | "told"
                    | "thought"
                    | "when"
                    | "why"
                    | "what"
                    | "how"
                    | "where"
                    | "do"
                    | "did"
            )
        })
}

/// `asks`: a question is a request only if it names an object.
fn task(words: &[&str], verb: usize, asks: bool, pauses: &[usize]) -> Option<Task> {
    let first = *words.get(verb)?;
    let is = |list: &str, word: &str| list.split_whitespace().any(|known| known == word);
    if !is(VERBS, first) {
        return None;
    }
    let mut end = verb + 1;
    let wonders = matches!(first, "ask" | "check" | "tell" | "test");
    while end < words.len() && !pauses.contains(&(end - 1)) {
        let whether = wonders && matches!(words[end], "if" | "whether");
        if !whether && breaks(&words[end..]) {
            break;
        }
        end += 1;
    }
    let object = words[verb + 1..end].iter().any(|word| is_topic(word));
    let needs = asks || is(LIGHT, first);
    (object || (!needs && end - verb >= 2)).then_some(Task { words: verb..end })
}

/// Where another thought begins.
fn breaks(words: &[&str]) -> bool {
    matches!(
        words[0],
        "because"
            | "so"
            | "but"
            | "although"
            | "since"
            | "which"
            | "otherwise"
            | "if"
            | "unless"
            | "okay"
            | "right"
    ) || starts_with(words, "and i")
        || starts_with(words, "and i'll")
        || starts_with(words, "and then")
        || starts_with(words, "and we")
        || starts_with(words, "and you")
}

/// Stories in the past and questions about it also begin with such words ("call came in", "set of rules").
fn is_imperative(words: &[&str]) -> bool {
    !matches!(
        words.get(1),
        Some(
            &("of"
                | "is"
                | "was"
                | "were"
                | "are"
                | "came"
                | "went"
                | "has"
                | "had"
                | "i"
                | "we"
                | "he"
                | "she"
                | "they")
        )
    ) && matches!(
        words.get(1),
        Some(
            &("the"
                | "a"
                | "an"
                | "me"
                | "him"
                | "her"
                | "them"
                | "my"
                | "your"
                | "our"
                | "some"
                | "it"
                | "up"
                | "out"
                | "back"
                | "us"
                | "that"
                | "this"
                | "all")
        )
    )
}

/// The task's words as they were said, without the words of its date.
fn describe(sentence: &Sentence, task: &Task, due: Option<&Found>) -> Option<String> {
    let kept = task.words.clone().filter(|index| !due.is_some_and(|due| due.words.contains(index)));
    let mut words: Vec<String> = kept.map(|index| spelt(sentence, index)).collect();
    while words.last().is_some_and(|word| {
        matches!(
            word.to_lowercase().as_str(),
            "and"
                | "then"
                | "to"
                | "at"
                | "by"
                | "on"
                | "for"
                | "please"
                | "the"
                | "a"
                | "before"
                | "too"
                | "as"
                | "well"
                | "or"
        )
    }) {
        words.pop();
    }
    words.truncate(WORDS_MAX);
    let described = words.len() >= 2 && words.iter().any(|word| is_topic(&word.to_lowercase()));
    described.then(|| capitalised(&words.join(" ")))
}

/// The word as it stands in the sentence, with its capitals.
fn spelt(sentence: &Sentence, index: usize) -> String {
    let word = &sentence.words[index];
    let text = sentence.text.replace('’', "'");
    let mut spelt = unicode_segmentation::UnicodeSegmentation::unicode_words(text.as_str());
    spelt.nth(index).filter(|found| found.to_lowercase() == *word).unwrap_or(word).to_owned()
}

fn stems(description: &str) -> Vec<String> {
    super::text::words(description).iter().filter(|word| is_topic(word)).map(|word| stem(word)).collect()
}

fn alike(a: &[String], b: &[String]) -> bool {
    let shared = a.iter().filter(|word| b.contains(word)).count() as f64;
    shared / a.len().min(b.len()).max(1) as f64 >= ALIKE
}
