//! Which runs are heard as one: an engine that hears each by itself would lose the word that is said where one ends and the
//! next begins.
//!
//! Positions are samples from the first frame that is not covered.

use std::collections::HashMap;

use auricle_store::spool::{Leftover, RunHeader};

/// Runs adjoin if the second begins within this many microseconds of the first one's end: times are rounded.
const ADJOINS_MICROS: i64 = 5_000;

/// One run of a stretch.
pub(super) struct Part {
    pub(super) leftover: Leftover,
    /// Where its first frame is in the stretch.
    pub(super) begin: u64,
    /// Behind its last frame.
    pub(super) end: u64,
    /// Position of its first frame in the run.
    pub(super) first: u64,
    /// Words whose middle is here or later are another stream's. In the stretch.
    yields_from: Option<u64>,
}

/// Adjoining runs of one channel of one conversation, oldest first. At least one.
pub(super) struct Stretch {
    pub(super) parts: Vec<Part>,
}

impl Part {
    fn of(leftover: Leftover) -> Option<Self> {
        let (mut first, mut end, mut yields_from) = (None, 0, None);
        for frame in leftover.frames() {
            if frame.samples == 0 {
                yields_from = Some(frame.position);
                continue;
            }
            first.get_or_insert(frame.position);
            end = frame.position + u64::from(frame.samples);
        }
        let first = first?;
        let yields_from = yields_from.map(|at: u64| at.saturating_sub(first));
        Some(Self { leftover, begin: 0, end: end - first, first, yields_from })
    }

    /// Whether all of it has been stored.
    pub(super) fn is_covered(&self) -> bool {
        self.leftover.covered() >= self.first + (self.end - self.begin)
    }

    fn micros(&self, samples: u64) -> i64 {
        let header = self.leftover.header();
        header.first_audio_at.plus_secs_f64(samples as f64 / f64::from(header.sample_rate_hz.max(1))).0
    }

    fn begins_at(&self) -> i64 {
        self.micros(self.first)
    }

    fn ends_at(&self) -> i64 {
        self.micros(self.first + self.end - self.begin)
    }

    fn is_followed_by(&self, next: &Self) -> bool {
        let (a, b) = (self.leftover.header(), next.leftover.header());
        let alike = |header: &RunHeader| {
            (
                header.codec.clone(),
                header.sample_rate_hz,
                header.channels,
                header.language.clone(),
                header.process.clone(),
            )
        };
        alike(a) == alike(b) && (next.begins_at() - self.ends_at()).abs() <= ADJOINS_MICROS
    }
}

impl Stretch {
    pub(super) fn header(&self) -> &RunHeader {
        self.parts[0].leftover.header()
    }

    pub(super) fn into_leftovers(self) -> Vec<Leftover> {
        self.parts.into_iter().map(|part| part.leftover).collect()
    }

    /// Words whose middle is at this position or later are another stream's. Only the last run says so: a stream that was to take
    /// over where another ends has failed before it decided anything.
    pub(super) fn yields_from(&self) -> Option<u64> {
        let last = self.parts.last()?;
        last.yields_from.map(|at| last.begin + at)
    }
}

/// Joins what adjoins. In the order in which it is to be heard: the oldest first, one of each user before the second of any. Blocks:
/// reads each run.
pub(super) fn stretches(leftovers: Vec<Leftover>) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    // The last stretch of each channel of a conversation.
    let mut last_of: HashMap<(String, Option<String>), Vec<usize>> = HashMap::new();
    for mut part in leftovers.into_iter().filter_map(Part::of) {
        let header = part.leftover.header();
        let of = last_of.entry((header.conversation.to_string(), header.role.clone())).or_default();
        // Runs come by their beginnings: one that began before may have been covered far into it.
        let before =
            of.iter().find(|at| stretches[**at].parts.last().is_some_and(|last| last.is_followed_by(&part)));
        match before {
            Some(at) => {
                let parts = &mut stretches[*at].parts;
                let shift = parts.last().map_or(0, |last| last.end);
                part.begin = shift;
                part.end += shift;
                parts.push(part);
            }
            None => {
                of.push(stretches.len());
                stretches.push(Stretch { parts: vec![part] });
            }
        }
    }
    let mut of_user: HashMap<String, usize> = HashMap::new();
    stretches.sort_by_cached_key(|stretch| {
        let turn = of_user.entry(stretch.header().user.to_string()).or_default();
        *turn += 1;
        (*turn, stretch.parts[0].begins_at())
    });
    stretches
}
