//! Which runs are heard as one: an engine that hears each by itself would lose the word that is said where one ends and the
//! next begins.
//!
//! Positions are samples from the first frame that is not covered.

use std::collections::HashMap;

use auricle_core::UnixMicros;
use auricle_store::spool::{Leftover, RunHeader, StoredRun};

/// Runs adjoin if the second begins within this many microseconds of the first one's end: times are rounded.
const ADJOINS_MICROS: i64 = 5_000;

/// Audio that is missing for no longer than this, in milliseconds, makes no two pieces of what is there. More than words of one
/// segment are apart.
const MISSING_MS_MAX: u64 = 2_000;

/// One run of a stretch.
pub(crate) struct Part<R = Leftover> {
    pub(crate) run: R,
    /// Where its first frame is in the stretch.
    pub(crate) begin: u64,
    /// Behind its last frame.
    pub(crate) end: u64,
    /// Position of its first frame in the run.
    pub(crate) first: u64,
    /// Where there is audio, from the first frame on: from, until.
    there: Vec<(u64, u64)>,
    /// Words whose middle is here or later are another stream's. In the stretch.
    yields_from: Option<u64>,
}

/// Adjoining runs of one channel of one conversation, oldest first. At least one.
pub(crate) struct Stretch<R = Leftover> {
    pub(crate) parts: Vec<Part<R>>,
}

impl<R: AsRef<StoredRun>> Part<R> {
    fn of(run: R) -> Option<Self> {
        let (mut first, mut end, mut yields_from) = (None, 0, None);
        let mut there: Vec<(u64, u64)> = Vec::new();
        let missing_max = u64::from(run.as_ref().header().sample_rate_hz) * MISSING_MS_MAX / 1_000;
        for frame in run.as_ref().frames() {
            if frame.samples == 0 {
                yields_from = Some(frame.position);
                continue;
            }
            let first = *first.get_or_insert(frame.position);
            end = frame.position + u64::from(frame.samples);
            let (from, until) = (frame.position.saturating_sub(first), end.saturating_sub(first));
            match there.last_mut() {
                Some(last) if from <= last.1 + missing_max => last.1 = last.1.max(until),
                _ => there.push((from, until)),
            }
        }
        let first = first?;
        let yields_from = yields_from.map(|at: u64| at.saturating_sub(first));
        Some(Self { run, begin: 0, end: end - first, first, there, yields_from })
    }

    /// Whether all of it has been stored.
    pub(crate) fn is_covered(&self) -> bool {
        self.run.as_ref().covered() >= self.first + (self.end - self.begin)
    }

    fn micros(&self, samples: u64) -> i64 {
        let header = self.run.as_ref().header();
        header.first_audio_at.plus_secs_f64(samples as f64 / f64::from(header.sample_rate_hz.max(1))).0
    }

    fn begins_at(&self) -> i64 {
        self.micros(self.first)
    }

    fn ends_at(&self) -> i64 {
        self.micros(self.first + self.end - self.begin)
    }

    fn is_followed_by(&self, next: &Self) -> bool {
        let (a, b) = (self.run.as_ref().header(), next.run.as_ref().header());
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

impl<R: AsRef<StoredRun>> Stretch<R> {
    pub(crate) fn header(&self) -> &RunHeader {
        self.parts[0].run.as_ref().header()
    }

    pub(crate) fn into_runs(self) -> Vec<R> {
        self.parts.into_iter().map(|part| part.run).collect()
    }

    /// Where there is audio, in samples of the stretch.
    pub(crate) fn there(&self) -> Vec<(u64, u64)> {
        let of = |part: &Part<R>| {
            let begin = part.begin;
            part.there.iter().map(move |(from, until)| (begin + from, begin + until)).collect::<Vec<_>>()
        };
        self.parts.iter().flat_map(of).collect()
    }

    /// Wall-clock time of the stretch's first frame.
    pub(crate) fn zero_at(&self) -> UnixMicros {
        UnixMicros(self.parts[0].begins_at())
    }

    /// Behind its last frame.
    pub(crate) fn end(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.end)
    }

    /// Words whose middle is at this position or later are another stream's. Only the last run says so: a stream that was to take
    /// over where another ends has failed before it decided anything.
    pub(crate) fn yields_from(&self) -> Option<u64> {
        let last = self.parts.last()?;
        last.yields_from.map(|at| last.begin + at)
    }
}

/// Joins what adjoins. In the order in which it is to be heard: the oldest first, one of each user before the second of any. Blocks:
/// reads each run.
pub(crate) fn stretches<R: AsRef<StoredRun>>(runs: Vec<R>) -> Vec<Stretch<R>> {
    let mut stretches: Vec<Stretch<R>> = Vec::new();
    // The last stretch of each channel of a conversation.
    let mut last_of: HashMap<(String, Option<String>), Vec<usize>> = HashMap::new();
    for mut part in runs.into_iter().filter_map(Part::of) {
        let header = part.run.as_ref().header();
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
