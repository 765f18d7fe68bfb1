//! How new segments join a transcript: the merging rule and the transcript clock.
//!
//! Source: listen-protocol 5.3 (clock) and 5.4 (merging, generation A). One deviation, for the sake of a bound: a
//! segment longer than [`crate::Limits::segment_chars_max`] is not merged into any more.
//! A translation stays as long as the text that it is of.
//! Invariants: no character but white space is lost or invented, and the order of what was said is kept.

use crate::ids::SegmentId;
use crate::segment::{Segment, Translation};
use crate::time::UnixMicros;

/// Gap in seconds at and above which a finished sentence of the same voice begins a segment of its own.
const MERGE_GAP_SECS: f64 = 3.0;
/// Characters from which a segment that ends in punctuation is left as it is.
const MERGE_CHARS: usize = 125;

/// What [`combine`] made of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Combined {
    /// The previous last segment (changed or not, unless absorbed) and all that now follows it: what a client is sent.
    pub changed: Vec<Segment>,
    /// Segments that were absorbed.
    pub deleted: Vec<SegmentId>,
}

/// Joins `new` to a transcript whose last segment is `tail`.
///
/// `chars_max`: a segment with this many characters or more takes in no further text.
pub fn combine(tail: Option<&Segment>, new: Vec<Segment>, chars_max: usize) -> Combined {
    let (among_themselves, _) = fold(None, new, chars_max);
    let (mut changed, deleted) = fold(tail.cloned(), among_themselves, chars_max);
    for segment in &mut changed {
        segment.text = normalise(&segment.text);
    }
    Combined { changed, deleted }
}

fn fold(tail: Option<Segment>, new: Vec<Segment>, chars_max: usize) -> (Vec<Segment>, Vec<SegmentId>) {
    let stored_tail = tail.as_ref().map(|tail| tail.id.clone());
    let mut work: Vec<Segment> = tail.into_iter().collect();
    let mut deleted = Vec::new();
    for b in new {
        let Some(a) = work.last_mut() else {
            work.push(b);
            continue;
        };
        match join(a, b, chars_max) {
            Joined::Absorbed => {}
            Joined::Append(b) => work.push(b),
            Joined::Replace(b) => {
                let gone = work.pop().expect("`a` is the last of the work list");
                if stored_tail.as_ref() == Some(&gone.id) {
                    deleted.push(gone.id);
                }
                work.push(b);
            }
        }
    }
    (work, deleted)
}

enum Joined {
    /// `b` went into `a`.
    Absorbed,
    /// `b` follows `a`.
    Append(Segment),
    /// `b` took all of `a`'s text.
    Replace(Segment),
}

fn join(a: &mut Segment, mut b: Segment, chars_max: usize) -> Joined {
    if a.stt_provider != b.stt_provider || chars(&a.text) >= chars_max {
        return Joined::Append(b);
    }
    let same_voice = a.speaker == b.speaker || (a.is_user && b.is_user);
    if !same_voice {
        return if a.text.is_empty() || b.text.is_empty() {
            Joined::Append(b)
        } else {
            repair_boundary(a, b)
        };
    }
    if a.speech_profile_processed != b.speech_profile_processed {
        return Joined::Append(b);
    }
    let finished = ends_sentence(&a.text);
    let close = b.start - a.end < MERGE_GAP_SECS && (chars(&a.text) < MERGE_CHARS || !finished);
    let continues = !finished
        && !a.text.is_empty()
        && !b.text.is_empty()
        && b.text.chars().next().is_some_and(char::is_lowercase);
    if !close && !continues {
        return Joined::Append(b);
    }
    join_translations(a, &b);
    a.text.push(' ');
    a.text.push_str(&b.text);
    a.end = b.end;
    b.text.clear();
    Joined::Absorbed
}

/// Two voices, and the first stopped in mid-sentence: the recogniser probably changed voice a few words early or late.
fn repair_boundary(a: &mut Segment, mut b: Segment) -> Joined {
    let mut said = sentences(&a.text);
    if said.last().is_none_or(|last| ends_sentence(last)) {
        return Joined::Append(b);
    }
    let tail = said.pop().expect("checked above").to_owned();
    let answer = sentences(&b.text);
    let first = answer.first().copied().unwrap_or_default();
    let rest = answer.get(1..).unwrap_or_default();
    if chars(first) < chars(&tail) {
        if !rest.is_empty() {
            append(&mut a.text, first);
            b.text = rest.join(" ");
            a.translations.clear();
            b.translations.clear();
            return Joined::Append(b);
        }
        if !is_complete_sentence(first) {
            join_translations(a, &b);
            append(&mut a.text, first);
            return Joined::Absorbed;
        }
    }
    if chars(&tail) < chars(&b.text) {
        b.text = format!("{tail} {}", b.text);
        b.translations.clear();
        if said.is_empty() {
            return Joined::Replace(b);
        }
        let kept = said.join(" ");
        a.text = kept;
        a.translations.clear();
        a.end = a.end.min(b.start);
    }
    Joined::Append(b)
}

/// Before `a` takes in `b`'s text: only what both were translated into is a translation of all of it.
fn join_translations(a: &mut Segment, b: &Segment) {
    if b.text.trim().is_empty() {
        return;
    }
    a.translations.retain_mut(|Translation { lang, text }| {
        let more = b.translations.iter().find(|translation| translation.lang == *lang);
        more.inspect(|more| append(text, &more.text)).is_some()
    });
}

fn append(text: &mut String, more: &str) {
    text.push(' ');
    text.push_str(more);
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

/// Whether a segment of this text takes in no more of the same voice without a pause: it is long enough, and a sentence has ended.
pub fn is_whole(text: &str) -> bool {
    ends_sentence(text) && chars(text) >= MERGE_CHARS
}

fn ends_sentence(text: &str) -> bool {
    text.trim_end().ends_with(['.', '?', '!'])
}

fn is_complete_sentence(text: &str) -> bool {
    ends_sentence(text) && text.chars().next().is_some_and(char::is_uppercase)
}

/// Splits after every `.`, `?` and `!`, also without a space behind it; pieces are trimmed and none is empty.
fn sentences(text: &str) -> Vec<&str> {
    text.split_inclusive(['.', '?', '!']).map(str::trim).filter(|piece| !piece.is_empty()).collect()
}

fn normalise(text: &str) -> String {
    text.trim().replace("  ", " ").replace(" ,", ",").replace(" .", ".").replace(" ?", "?")
}

/// Where a connection's audio lies on its conversation's clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TranscriptClock {
    /// Zero of the conversation's clock.
    pub started_at: UnixMicros,
    /// Zero of the connection's media clock: arrival of its first audio.
    pub first_audio_at: UnixMicros,
}

impl TranscriptClock {
    /// The clock for the first batch of an empty conversation: it starts with the first word.
    pub fn starting(first_audio_at: UnixMicros, first_segment_start: f64) -> Self {
        Self { started_at: first_audio_at.plus_secs_f64(first_segment_start), first_audio_at }
    }

    /// Seconds to add to media times. Never negative beyond the first word's own start: if the wall clock went back
    /// between two connections, the later one counts from the conversation's start.
    pub fn offset_secs(&self, first_segment_start: f64) -> f64 {
        self.first_audio_at.seconds_since(self.started_at).max(-first_segment_start)
    }
}

#[cfg(test)]
mod tests;
