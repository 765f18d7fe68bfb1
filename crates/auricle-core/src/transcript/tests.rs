use proptest::prelude::*;

use super::*;
use crate::segment::Speaker;

const CHARS_MAX: usize = 20_000;

fn segment(id: &str, speaker: &str, text: &str, start: f64, end: f64) -> Segment {
    Segment {
        id: id.into(),
        text: text.into(),
        speaker: Some(Speaker::new(speaker)),
        is_user: false,
        person_id: None,
        start,
        end,
        translations: Vec::new(),
        speech_profile_processed: true,
        stt_provider: None,
    }
}

fn a(speaker: &str, text: &str, start: f64, end: f64) -> Segment {
    segment("a", speaker, text, start, end)
}

fn b(speaker: &str, text: &str, start: f64, end: f64) -> Segment {
    segment("b", speaker, text, start, end)
}

#[test]
fn a_translation_stays_as_long_as_its_text() {
    let into = |lang: &str, text: &str| Translation { lang: lang.into(), text: text.into() };
    let mut hello = a("S_0", "Hello there.", 0.0, 2.0);
    hello.translations = vec![into("es", "Hola."), into("de", "Hallo.")];
    let of = |new: Segment| -> Vec<Vec<Translation>> {
        let combined = combine(Some(&hello), vec![new], CHARS_MAX);
        combined.changed.into_iter().map(|segment| segment.translations).collect()
    };
    assert_eq!(of(b("S_1", "Yes.", 20.0, 21.0)), [hello.translations.clone(), Vec::new()]);
    assert_eq!(of(b("S_0", "Friend.", 2.5, 3.0)), [Vec::new()], "it is of half of it now");
    // A client that translates what it hears.
    let mut friend = b("S_0", "Friend.", 2.5, 3.0);
    friend.translations = vec![into("es", "Amigo.")];
    assert_eq!(of(friend), [vec![into("es", "Hola. Amigo.")]]);
    // Words that change their voice.
    hello.text = "Hello there. And".into();
    let combined = combine(Some(&hello), vec![b("S_1", "then we all went home.", 2.5, 5.0)], CHARS_MAX);
    assert_eq!(combined.changed[0].text, "Hello there.");
    assert!(combined.changed.iter().all(|segment| segment.translations.is_empty()));
}

type Row = (&'static str, &'static str, f64, f64);

fn check(stored: Segment, new: Segment, expected: &[Row], deleted: &[&str]) {
    let combined = combine(Some(&stored), vec![new], CHARS_MAX);
    let rows: Vec<_> =
        combined.changed.iter().map(|s| (s.id.as_str(), s.text.as_str(), s.start, s.end)).collect();
    assert_eq!(rows, expected);
    assert_eq!(combined.deleted.iter().map(SegmentId::as_str).collect::<Vec<_>>(), deleted);
}

#[test]
fn case_1_a_short_pause_in_one_voice_merges() {
    check(
        a("S_0", "Hello there.", 0.0, 2.0),
        b("S_0", "How are you?", 4.9, 6.0),
        &[("a", "Hello there. How are you?", 0.0, 6.0)],
        &[],
    );
}

#[test]
fn case_2_three_seconds_after_a_sentence_begin_a_new_segment_and_both_are_sent() {
    check(
        a("S_0", "Hello there.", 0.0, 2.0),
        b("S_0", "How are you?", 5.0, 6.0),
        &[("a", "Hello there.", 0.0, 2.0), ("b", "How are you?", 5.0, 6.0)],
        &[],
    );
}

#[test]
fn case_3_an_unfinished_sentence_goes_on_after_any_gap() {
    check(
        a("S_0", "I was going to", 0.0, 2.0),
        b("S_0", "say something.", 60.0, 61.0),
        &[("a", "I was going to say something.", 0.0, 61.0)],
        &[],
    );
}

#[test]
fn case_4_the_end_of_a_sentence_returns_to_its_voice() {
    check(
        a("S_0", "Sure. We could meet on", 0.0, 3.0),
        b("S_1", "Monday. That works for me.", 3.1, 5.0),
        &[("a", "Sure. We could meet on Monday.", 0.0, 3.0), ("b", "That works for me.", 3.1, 5.0)],
        &[],
    );
}

#[test]
fn case_5_a_mere_fragment_is_absorbed_and_the_end_stays() {
    check(
        a("S_0", "Sure. We could meet on", 0.0, 3.0),
        b("S_1", "monday", 3.1, 4.0),
        &[("a", "Sure. We could meet on monday", 0.0, 3.0)],
        &[],
    );
}

#[test]
fn case_6_a_short_start_moves_to_the_voice_that_finishes_it() {
    check(
        a("S_0", "Sure. We could", 0.0, 3.0),
        b("S_1", "Definitely meet on Monday afternoon.", 2.8, 5.0),
        &[("a", "Sure.", 0.0, 2.8), ("b", "We could Definitely meet on Monday afternoon.", 2.8, 5.0)],
        &[],
    );
}

#[test]
fn case_7_a_segment_without_text_left_is_deleted() {
    check(
        a("S_0", "We could", 0.0, 3.0),
        b("S_1", "Definitely meet on Monday afternoon.", 3.1, 5.0),
        &[("b", "We could Definitely meet on Monday afternoon.", 3.1, 5.0)],
        &["a"],
    );
}

#[test]
fn case_8_providers_do_not_mix() {
    let stored = Segment { stt_provider: Some("x".into()), ..a("S_0", "Hello there.", 0.0, 2.0) };
    check(
        stored,
        b("S_0", "How are you?", 2.1, 3.0),
        &[("a", "Hello there.", 0.0, 2.0), ("b", "How are you?", 2.1, 3.0)],
        &[],
    );
}

#[test]
fn case_9_the_owner_is_one_voice_under_two_labels() {
    let stored = Segment { is_user: true, ..a("S_0", "Hello there.", 0.0, 2.0) };
    let new = Segment { is_user: true, ..b("S_1", "How are you?", 2.1, 3.0) };
    let combined = combine(Some(&stored), vec![new], CHARS_MAX);
    assert_eq!(combined.changed.len(), 1);
    assert_eq!(combined.changed[0].text, "Hello there. How are you?");
    assert_eq!(combined.changed[0].speaker, Some(Speaker::new("S_0")));
}

#[test]
fn a_decimal_point_splits_sentences_as_upstream_does() {
    assert_eq!(sentences("It costs 3.5 euros. Really"), ["It costs 3.", "5 euros.", "Really"]);
}

#[test]
fn texts_are_normalised_but_an_exclamation_keeps_its_space() {
    assert_eq!(normalise(" a  b , c . d ? e ! "), "a b, c. d? e !");
}

#[test]
fn a_segment_at_the_bound_takes_in_nothing_more() {
    let stored = a("S_0", "so and on", 0.0, 2.0);
    let combined = combine(Some(&stored), vec![b("S_0", "and on", 2.1, 3.0)], 9);
    assert_eq!(combined.changed.len(), 2);
}

#[test]
fn the_clock_starts_with_the_first_word_and_goes_on_after_a_reconnect() {
    let first = TranscriptClock::starting(UnixMicros(10_000_000), 1.5);
    assert_eq!(first.started_at, UnixMicros(11_500_000));
    assert_eq!(1.5 + first.offset_secs(1.5), 0.0);
    let second = TranscriptClock { first_audio_at: UnixMicros(41_500_000), ..first };
    assert_eq!(2.0 + second.offset_secs(2.0), 32.0);
}

#[test]
fn a_wall_clock_that_went_back_makes_no_negative_time() {
    let clock =
        TranscriptClock { started_at: UnixMicros(90_000_000), first_audio_at: UnixMicros(10_000_000) };
    assert_eq!(0.25 + clock.offset_secs(0.25), 0.0);
}

fn any_text() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop::sample::select(vec![
            "we", "Could", "meet.", "on", "Monday?", "3.5", "really!", "ça", "ok,", "I",
        ]),
        0..9,
    )
    .prop_map(|words| words.join(" "))
}

fn any_segments() -> impl Strategy<Value = Vec<Segment>> {
    let one = (any_text(), 0..3u32, any::<bool>(), 0.0..5.0f64, 0.1..4.0f64, any::<bool>());
    prop::collection::vec(one, 0..12).prop_map(|parts| {
        let mut time = 0.0;
        let mut segments = Vec::new();
        for (index, (text, voice, is_user, gap, length, profiled)) in parts.into_iter().enumerate() {
            time += gap;
            segments.push(Segment {
                is_user,
                speech_profile_processed: profiled,
                ..segment(&format!("s{index}"), &format!("S_{voice}"), &text, time, time + length)
            });
            time += length;
        }
        segments
    })
}

fn letters<'a>(segments: impl IntoIterator<Item = &'a Segment>) -> String {
    segments.into_iter().flat_map(|s| s.text.chars()).filter(|c| !c.is_whitespace()).collect()
}

proptest! {
    #[test]
    fn no_word_is_lost_or_moved_whatever_the_batches(segments in any_segments(), cut in 0..12usize) {
        let said = letters(&segments);
        let cut = cut.min(segments.len());
        let mut stored: Vec<Segment> = Vec::new();
        for batch in [&segments[..cut], &segments[cut..]] {
            let combined = combine(stored.last(), batch.to_vec(), CHARS_MAX);
            let before = stored.len();
            stored.pop();
            stored.extend(combined.changed);
            prop_assert!(combined.deleted.len() <= usize::from(before > 0));
        }
        prop_assert_eq!(letters(&stored), said);
    }

    #[test]
    fn starts_stay_in_order_and_ids_are_unique(segments in any_segments()) {
        let combined = combine(None, segments, CHARS_MAX);
        prop_assert!(combined.changed.windows(2).all(|pair| pair[0].start <= pair[1].start));
        let mut ids: Vec<_> = combined.changed.iter().map(|s| s.id.clone()).collect();
        ids.sort();
        ids.dedup();
        prop_assert_eq!(ids.len(), combined.changed.len());
    }

    #[test]
    fn an_absorbed_tail_is_reported_and_never_sent(stored in any_segments(), new in any_segments()) {
        let stored = stored.into_iter().next_back().map(|mut s| { s.id = "stored".into(); s });
        let combined = combine(stored.as_ref(), new, CHARS_MAX);
        for id in &combined.deleted {
            prop_assert!(combined.changed.iter().all(|s| s.id != *id));
        }
    }
}
