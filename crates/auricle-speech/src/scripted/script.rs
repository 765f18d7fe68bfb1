//! The script: utterances at their times, once or again and again.

use std::path::PathBuf;
use std::time::Duration;

use auricle_core::Word;
use serde::Deserialize;

/// Entries of a script. A day of one sentence every ten seconds.
const ENTRIES_MAX: usize = 10_000;
/// A silence of this many seconds ends an utterance.
const SILENCE_SECS: f64 = 0.6;

/// Why a script cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// It is not the JSON it should be.
    #[error("is not an array of {{\"text\", \"start\", \"end\", \"speaker\"}}: {0}")]
    Json(#[from] serde_json::Error),
    /// It says nothing.
    #[error("has no words")]
    Empty,
    /// It is longer than the bound.
    #[error("has {0} entries, more than {ENTRIES_MAX}")]
    TooLong(usize),
    /// An entry's times are not in order.
    #[error(
        "entry {index} runs from {start} to {end} s: times must be in order, at or after 0 and the entry before"
    )]
    Times {
        /// From 0.
        index: usize,
        /// Seconds.
        start: f64,
        /// Seconds.
        end: f64,
    },
    /// It would begin again before it has ended.
    #[error("ends at {end} s, later than it repeats ({every} s)")]
    Repeat {
        /// Seconds.
        end: f64,
        /// Seconds.
        every: f64,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    text: String,
    start: f64,
    end: f64,
    #[serde(default)]
    speaker: u32,
    #[serde(default, rename = "final")]
    is_final: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum File {
    Words(Vec<Entry>),
    /// Words that are in the audio: see `tones`.
    Tones {
        hears: Hears,
        trouble_file: Option<PathBuf>,
    },
    More {
        words: Vec<Entry>,
        repeat_every_secs: Option<f64>,
        hangs_after_secs: Option<f64>,
        trouble_file: Option<PathBuf>,
    },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Hears {
    Tones,
}

/// Utterances, in order of time.
#[derive(Debug)]
pub(super) struct Script {
    utterances: Vec<Vec<Word>>,
    /// The words are in the audio, not here.
    pub(super) tones: bool,
    /// Which trouble there is: see `switch`.
    pub(super) trouble_file: Option<PathBuf>,
    /// Seconds from one round's start to the next's.
    every: Option<f64>,
    hangs_after: Option<Duration>,
}

impl Script {
    pub(super) fn from_json(json: &str) -> Result<Self, ScriptError> {
        match serde_json::from_str(json)? {
            File::Words(words) => Self::new(words, None),
            File::Tones { hears: Hears::Tones, trouble_file } => {
                Ok(Self { utterances: Vec::new(), tones: true, trouble_file, every: None, hangs_after: None })
            }
            File::More { words, repeat_every_secs, hangs_after_secs, trouble_file } => {
                let hangs_after = hangs_after_secs.and_then(|secs| Duration::try_from_secs_f64(secs).ok());
                Ok(Self { hangs_after, trouble_file, ..Self::new(words, repeat_every_secs)? })
            }
        }
    }

    /// After how much audio streams say nothing more.
    pub(super) fn hangs_after(&self) -> Option<Duration> {
        self.hangs_after
    }

    /// An everyday exchange of ten sentences between two people, forty seconds long, that repeats every forty-five.
    pub(super) fn built_in() -> Self {
        let mut at = 1.0;
        let mut entries = Vec::with_capacity(EXCHANGE.len());
        for (speaker, text) in EXCHANGE {
            let secs = text.split_whitespace().count() as f64 * 0.33;
            entries.push(Entry {
                text: (*text).to_owned(),
                start: at,
                end: at + secs,
                speaker: *speaker,
                is_final: true,
            });
            at += secs + 0.7;
        }
        Self::new(entries, Some(EXCHANGE_SECS))
            .expect("the built-in exchange is in order and shorter than its round")
    }

    fn new(entries: Vec<Entry>, every: Option<f64>) -> Result<Self, ScriptError> {
        if entries.len() > ENTRIES_MAX {
            return Err(ScriptError::TooLong(entries.len()));
        }
        let mut utterances: Vec<Vec<Word>> = Vec::new();
        let (mut end, mut closed) = (0.0_f64, true);
        for (index, entry) in entries.into_iter().enumerate() {
            let in_order = entry.start >= end && entry.end >= entry.start && entry.end.is_finite();
            if !in_order {
                return Err(ScriptError::Times { index, start: entry.start, end: entry.end });
            }
            let words = words_of(&entry);
            if words.is_empty() {
                continue;
            }
            match utterances.last_mut() {
                Some(utterance) if !closed && entry.start - end < SILENCE_SECS => utterance.extend(words),
                _ => utterances.push(words),
            }
            (end, closed) = (entry.end, entry.is_final);
        }
        if utterances.is_empty() {
            return Err(ScriptError::Empty);
        }
        match every {
            Some(every) if every < end || every <= 0.0 => Err(ScriptError::Repeat { end, every }),
            _ => Ok(Self { utterances, tones: false, trouble_file: None, every, hangs_after: None }),
        }
    }

    /// How many there are in a round.
    pub(super) fn utterances(&self) -> usize {
        self.utterances.len()
    }

    /// The utterance number `index` over all rounds, and what is to be added to its words' times.
    pub(super) fn utterance(&self, index: usize) -> Option<(&[Word], f64)> {
        let (round, place) = (index / self.utterances.len(), index % self.utterances.len());
        let added = match self.every {
            Some(every) => round as f64 * every,
            None if round == 0 => 0.0,
            None => return None,
        };
        Some((&self.utterances[place], added))
    }
}

fn words_of(entry: &Entry) -> Vec<Word> {
    let texts: Vec<&str> = entry.text.split_whitespace().collect();
    let each = (entry.end - entry.start) / texts.len().max(1) as f64;
    let at = |index: usize| entry.start + each * index as f64;
    texts
        .iter()
        .enumerate()
        .map(|(index, text)| Word {
            text: (*text).to_owned(),
            start: at(index),
            end: at(index + 1),
            speaker: entry.speaker,
            confidence: None,
        })
        .collect()
}

const EXCHANGE_SECS: f64 = 45.0;
const EXCHANGE: &[(u32, &str)] = &[
    (0, "Good morning, Sarah, did you get my message about the budget?"),
    (1, "Yes, I read it last night, and I think we should meet on Tuesday."),
    (0, "Tuesday at ten works for me."),
    (1, "Could you send me the latest figures before then?"),
    (0, "I will send the report to you by Friday."),
    (1, "Great, and please remind Michael to call the customer."),
    (0, "He has the dentist today, so I will ask him tomorrow."),
    (1, "We decided to launch the new website in March, didn't we?"),
    (0, "That is right, the first week of March."),
    (1, "Thank you, then we are on time."),
];
