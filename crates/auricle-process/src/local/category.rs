//! The topic, by words that betray it.

use std::collections::BTreeMap;

use auricle_core::Category;

use super::text::{Sentence, stem};

/// Category, its emoji, and words of it. A word counts once a sentence.
const LEXICON: &[(Category, &str, &str)] = &[
    (
        Category::Work,
        "💼",
        "meeting report project deadline client office manager colleague presentation review draft agenda team quarter budget contract proposal invoice email slides printer interview hire schedule task",
    ),
    (
        Category::Health,
        "🩺",
        "doctor dentist hospital medicine pain appointment clinic blood pressure prescription symptom headache fever nurse therapy vaccine surgery sleep diet exercise tablets allergy",
    ),
    (
        Category::Family,
        "👪",
        "mother father mum mom dad sister brother grandma grandmother grandpa grandfather kids children daughter son aunt uncle cousin family wife husband",
    ),
    (
        Category::Travel,
        "✈️",
        "flight airport hotel train passport luggage trip ticket booking holiday vacation visa suitcase beach museum itinerary travel",
    ),
    (
        Category::Education,
        "🎓",
        "lecture student teacher exam homework university school class course lesson study professor essay grade chapter semester",
    ),
    (
        Category::Finance,
        "💰",
        "money bank loan mortgage tax invest savings payment account credit interest rent salary pension insurance",
    ),
    (
        Category::Technology,
        "💻",
        "computer software server database phone app laptop code bug deploy internet router password update website device screen battery",
    ),
    (
        Category::Social,
        "🎉",
        "party birthday friends drinks invite guests celebrate wedding barbecue weekend dinner restaurant table",
    ),
    (
        Category::Sports,
        "⚽",
        "football match team goal coach tennis running marathon gym training race score league swim basketball",
    ),
    (Category::Music, "🎵", "song band concert guitar piano album music singer melody rehearsal choir"),
    (
        Category::Science,
        "🔬",
        "experiment physics chemistry biology theory energy planet cell molecule research evidence hypothesis atoms species oxygen hydrogen carbon molecules light photosynthesis pigment",
    ),
    (Category::Legal, "⚖️", "lawyer court judge lawsuit clause legal attorney witness rights trial"),
    (Category::Weather, "🌦️", "rain snow sunny storm forecast weather temperature cloudy wind"),
    (
        Category::Politics,
        "🏛️",
        "election government president minister vote parliament policy senator party campaign",
    ),
    (Category::Literature, "📚", "novel author poem book chapter writer fiction character reading"),
    (Category::History, "🏺", "century empire war king ancient revolution medieval history roman"),
    (Category::Real, "🏠", "apartment house landlord lease estate kitchen bedroom viewing property tenant"),
    (
        Category::Business,
        "📈",
        "customers market sales revenue startup product launch pricing growth profit company supplier",
    ),
    (Category::Parenting, "🍼", "baby nursery bedtime diaper toddler daycare breastfeeding stroller"),
    (Category::Environment, "🌱", "climate recycling garden plants forest pollution solar trees"),
    (Category::Entertainment, "🎬", "movie film series episode actor cinema game show netflix theatre"),
];
/// Words needed for a category to be clear, and how far ahead of the next it must be.
const CLEAR: f64 = 2.0;

/// The category and its emoji; `other` unless one is clear.
pub(super) fn of(sentences: &[Sentence]) -> (Category, Option<&'static str>) {
    let mut counts: BTreeMap<String, f64> = BTreeMap::new();
    for sentence in sentences {
        let mut seen: Vec<String> = sentence.words.iter().map(|word| stem(word)).collect();
        seen.sort();
        seen.dedup();
        for word in seen {
            *counts.entry(word).or_insert(0.0) += 1.0;
        }
    }
    let score = |words: &str| {
        words.split(' ').filter_map(|word| counts.get(&stem(word))).map(|n| 1.0 + n.ln()).sum::<f64>()
    };
    let scored = LEXICON.iter().map(|(category, emoji, words)| (score(words), *category, *emoji));
    let best =
        scored.fold((0.0, Category::Other, ""), |best, next| if next.0 > best.0 { next } else { best });
    if best.0 >= CLEAR { (best.1, Some(best.2)) } else { (Category::Other, None) }
}
