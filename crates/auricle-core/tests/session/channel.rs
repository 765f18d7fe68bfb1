//! One channel of a simulated session: what is said on it, its spool, and the stream of its engine.

use auricle_core::Word;

use crate::rig::RATE_HZ;

pub(crate) const FRAME_MS: u64 = 100;
pub(crate) const FRAME: u32 = RATE_HZ / 10;

/// A word that somebody says. Its text names it.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) start: f64,
    pub(crate) end: f64,
}

pub(crate) fn samples(secs: f64) -> u64 {
    (secs * f64::from(RATE_HZ)).round() as u64
}

/// A stretch of audio in the spool.
struct Run {
    zero: u64,
    end: Option<u64>,
    forgotten: u64,
    taken: bool,
}

/// One channel: what is said on it, its spool and its engine's stream.
#[derive(Default)]
pub(crate) struct Channel {
    pub(crate) script: Vec<Said>,
    pub(crate) heard: u64,
    runs: Vec<Run>,
    split: bool,
    /// Zero of the stream, if one is open, and how far it has decided.
    pub(crate) stream: Option<(u64, u64)>,
    /// Milliseconds: it decides nothing before.
    pub(crate) hangs_until: u64,
}

impl Channel {
    pub(crate) fn hear(&mut self) {
        let taken = self.stream.is_some();
        if self.split || self.runs.last().is_none_or(|run| run.taken != taken) {
            self.end_run();
            self.runs.push(Run { zero: self.heard, end: None, forgotten: self.heard, taken });
            self.split = false;
        }
        self.heard += u64::from(FRAME);
    }

    pub(crate) fn end_run(&mut self) {
        self.split = true;
        let heard = self.heard;
        if let Some(last) = self.runs.last_mut() {
            last.end.get_or_insert(heard);
        }
    }

    pub(crate) fn forget(&mut self, until: u64) {
        for run in self.runs.iter_mut().filter(|run| run.taken) {
            run.forgotten = run.forgotten.max(until.min(run.end.unwrap_or(u64::MAX)));
        }
    }

    /// The words of what is left to repair.
    pub(crate) fn leave(&mut self, until: u64) -> Vec<String> {
        let mut words = Vec::new();
        let script = &self.script;
        self.runs.retain(|run| {
            let Some(end) = run.end else { return true };
            if until != u64::MAX && (!run.taken || run.zero >= until) {
                return true;
            }
            let left = script.iter().filter(|said| (run.forgotten..end).contains(&samples(said.start)));
            words.extend(left.map(|said| said.text.clone()));
            false
        });
        words
    }

    /// Decides up to `until`: the words and the coverage that the session is told.
    pub(crate) fn decide(&mut self, until: u64, last: bool) -> Option<(Vec<Word>, u64)> {
        let (zero, decided) = self.stream?;
        // Never in the middle of a word, but for the one that the end of the audio cuts.
        let cut = self.script.iter().find(|w| samples(w.start) < until && until < samples(w.end) && !last);
        let until = cut.map_or(until, |word| samples(word.start)).max(decided);
        let words = self.script.iter().filter(|w| {
            let start = samples(w.start);
            start >= zero && start >= decided && start < until
        });
        let words = words.map(|w| Word {
            text: w.text.clone(),
            start: w.start,
            end: w.end,
            speaker: 0,
            confidence: None,
        });
        let words = words.collect();
        self.stream = Some((zero, until));
        Some((words, until))
    }
}
