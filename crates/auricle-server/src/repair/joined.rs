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
    /// `None`: nothing of it is left. Blocks: reads the run.
    pub(crate) fn of(run: R) -> Option<Self> {
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

    pub(crate) fn header(&self) -> &RunHeader {
        self.run.as_ref().header()
    }

    /// Whether all of it has been stored.
    pub(crate) fn is_covered(&self) -> bool {
        self.run.as_ref().covered() >= self.first + (self.end - self.begin)
    }

    fn micros(&self, samples: u64) -> i64 {
        let header = self.header();
        header.first_audio_at.plus_secs_f64(samples as f64 / f64::from(header.sample_rate_hz.max(1))).0
    }

    fn begins_at(&self) -> i64 {
        self.micros(self.first)
    }

    fn ends_at(&self) -> i64 {
        self.micros(self.first + self.end - self.begin)
    }

    fn is_followed_by(&self, next: &Self) -> bool {
        let (a, b) = (self.header(), next.header());
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
        self.parts[0].header()
    }

    pub(crate) fn headers(&self) -> impl Iterator<Item = &RunHeader> {
        self.parts.iter().map(Part::header)
    }

    /// Wall-clock time of its first frame.
    pub(crate) fn zero_at(&self) -> UnixMicros {
        UnixMicros(self.parts[0].begins_at())
    }

    /// Behind its last frame.
    pub(crate) fn end(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.end)
    }

    /// Where there is audio, in samples of the stretch.
    pub(crate) fn there(&self) -> Vec<(u64, u64)> {
        let of = |part: &Part<R>| {
            let begin = part.begin;
            part.there.iter().map(move |(from, until)| (begin + from, begin + until)).collect::<Vec<_>>()
        };
        self.parts.iter().flat_map(of).collect()
    }

    pub(crate) fn into_runs(self) -> Vec<R> {
        self.parts.into_iter().map(|part| part.run).collect()
    }

    /// Words whose middle is at this position or later are another stream's. What its last run says, or the one before if all of the
    /// last is the other stream's; without a word from the last run no stream took over.
    pub(crate) fn yields_from(&self) -> Option<u64> {
        let mut from = None;
        for part in self.parts.iter().rev() {
            let Some(at) = part.yields_from else { break };
            from = Some(part.begin + at);
            if at > 0 {
                break;
            }
        }
        from
    }
}

/// Joins what adjoins, the oldest first.
pub(crate) fn stretches<R: AsRef<StoredRun>>(mut parts: Vec<Part<R>>) -> Vec<Stretch<R>> {
    parts.sort_by_key(Part::begins_at);
    let mut stretches: Vec<Stretch<R>> = Vec::new();
    // The stretches of each channel of a conversation.
    let mut known: HashMap<(String, Option<String>), Vec<usize>> = HashMap::new();
    for mut part in parts {
        let header = part.header();
        let of = known.entry((header.conversation.to_string(), header.role.clone())).or_default();
        let before =
            of.iter().find(|at| stretches[**at].parts.last().is_some_and(|last| last.is_followed_by(&part)));
        let length = part.end - part.begin;
        match before {
            Some(at) => {
                let parts = &mut stretches[*at].parts;
                let begin = parts.last().map_or(0, |last| last.end);
                (part.begin, part.end) = (begin, begin + length);
                parts.push(part);
            }
            None => {
                (part.begin, part.end) = (0, length);
                of.push(stretches.len());
                stretches.push(Stretch { parts: vec![part] });
            }
        }
    }
    stretches
}

#[cfg(test)]
pub(super) mod rig {
    use auricle_core::{Limits, Source, UnixMicros};
    use auricle_store::spool::{Spool, SpoolOptions};

    use super::*;

    pub(in super::super) const RATE: u32 = 16_000;

    /// A spool to make left-over runs in.
    pub(in super::super) struct Rig {
        spool: Spool,
        _dir: tempfile::TempDir,
    }

    impl Rig {
        pub(in super::super) fn new() -> Self {
            let dir = tempfile::TempDir::new().unwrap();
            let spool = Spool::open(dir.path(), SpoolOptions::from(&Limits::default())).unwrap();
            Self { spool, _dir: dir }
        }

        /// A second of audio.
        pub(in super::super) fn part(&self, run: &str, user: &str, conversation: &str, at: f64) -> Part {
            self.made(run, user, conversation, at, None, |_| {})
        }

        /// A second of audio in frames of 20 ms, and what becomes of it before it is left.
        pub(in super::super) fn made(
            &self,
            run: &str,
            user: &str,
            conversation: &str,
            at: f64,
            role: Option<&str>,
            change: impl FnOnce(&mut auricle_store::spool::RunWriter),
        ) -> Part {
            let mut writer = self.spool.begin(RunHeader {
                run: run.into(),
                user: user.into(),
                conversation: conversation.into(),
                process: "p".into(),
                codec: "pcm16".into(),
                sample_rate_hz: RATE,
                channels: 1,
                language: None,
                source: Source::Omi,
                role: role.map(str::to_owned),
                first_audio_at: UnixMicros(0).plus_secs_f64(at),
            });
            (0..50).for_each(|_| writer.append(&[0; 640], RATE / 50));
            change(&mut writer);
            writer.abandon();
            self.spool.settle();
            let mut left = self.spool.leftovers().unwrap();
            left.retain(|left| left.header().run == run);
            let mut left = left.pop().unwrap();
            left.claim();
            Part::of(left).unwrap()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::rig::{RATE, Rig};
    use super::*;

    fn runs(stretches: &[Stretch]) -> Vec<Vec<&str>> {
        stretches
            .iter()
            .map(|stretch| stretch.headers().map(|header| header.run.as_str()).collect())
            .collect()
    }

    #[test]
    fn what_adjoins_is_one_stretch_in_whatever_order_it_is_found() {
        let rig = Rig::new();
        let parts = vec![
            rig.part("3", "ann", "c", 12.0),
            rig.part("1", "ann", "c", 10.0),
            // Times are rounded.
            rig.part("2", "ann", "c", 11.004),
        ];
        let stretches = stretches(parts);
        assert_eq!(runs(&stretches), [["1", "2", "3"]]);
        let places: Vec<_> = stretches[0].parts.iter().map(|part| (part.begin, part.end)).collect();
        let second = u64::from(RATE);
        assert_eq!(places, [(0, second), (second, 2 * second), (2 * second, 3 * second)]);
    }

    #[test]
    fn a_hole_another_conversation_and_another_channel_are_heard_apart() {
        let rig = Rig::new();
        let parts = vec![
            rig.part("1", "ann", "c", 10.0),
            rig.part("hole", "ann", "c", 11.1),
            rig.part("other", "ann", "d", 11.0),
            rig.made("mic", "ann", "c", 11.0, Some("mic"), |_| {}),
        ];
        let mut stretches = stretches(parts);
        stretches.sort_by_key(|stretch| stretch.header().run.clone());
        assert_eq!(runs(&stretches), [["1"], ["hole"], ["mic"], ["other"]]);
    }

    #[test]
    fn what_was_covered_of_the_first_run_is_not_heard_and_what_was_of_the_second_parts_them() {
        let rig = Rig::new();
        let half = u64::from(RATE) / 2;
        let one = rig.made("1", "ann", "c", 10.0, None, |writer| writer.covered(half));
        let two = rig.part("2", "ann", "c", 11.0);
        let three = rig.made("3", "ann", "c", 12.0, None, |writer| writer.covered(half));
        assert_eq!(one.first, half);
        let stretches = stretches(vec![one, two, three]);
        assert_eq!(runs(&stretches), [vec!["1", "2"], vec!["3"]]);
        assert_eq!((stretches[0].parts[1].begin, stretches[0].parts[1].end), (half, half + u64::from(RATE)));
    }

    #[test]
    fn the_last_run_says_where_another_stream_took_over() {
        let (rig, second) = (Rig::new(), u64::from(RATE));
        let yields = |run: &str, at: f64, from: u64| {
            rig.made(run, "ann", "c", at, None, |writer| writer.yields_from(from))
        };
        let none = vec![yields("1", 0.0, 500), rig.part("2", "ann", "c", 1.0)];
        assert_eq!(stretches(none)[0].yields_from(), None, "what was to take over has failed");
        let last = vec![rig.part("3", "ann", "c", 3.0), yields("4", 4.0, 500)];
        assert_eq!(stretches(last)[0].yields_from(), Some(second + 500));
        // It took over before the last run, which all is its own.
        let before = vec![yields("5", 6.0, 500), yields("6", 7.0, 0)];
        assert_eq!(stretches(before)[0].yields_from(), Some(500));
        let all = vec![rig.part("7", "ann", "c", 9.0), yields("8", 10.0, 0)];
        assert_eq!(stretches(all)[0].yields_from(), Some(second));
    }

    #[test]
    fn joined_again_they_are_what_they_were() {
        let rig = Rig::new();
        let once = stretches(vec![rig.part("1", "ann", "c", 10.0), rig.part("2", "ann", "c", 11.0)]);
        let parts = once.into_iter().flat_map(|stretch| stretch.parts).collect();
        let again = stretches(parts);
        assert_eq!(again[0].parts[1].begin, u64::from(RATE));
    }
}
