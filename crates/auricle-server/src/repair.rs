//! Hears what no session did: audio that was left in the spool by a crash, a failed engine or an overload is transcribed
//! and its words are put into their conversation, by time.
//!
//! Runs that adjoin are heard as one ([`joined`]); which comes next, and when to look for more, is [`rounds`]'. Bounded:
//! `spool_repairs_at_once_max` stretches at once; each run has `spool_repair_attempts_max` attempts, after which its stretch is
//! marked as a gap. An attempt counts if an engine has worked for anybody since the one before: while all are away audio waits.

mod hearing;
mod held;
pub(crate) mod joined;
mod rounds;
pub(crate) mod sound;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use auricle_core::transcript::is_whole;
use auricle_core::{Limits, Segment, SegmentId, Speaker, Word};
use auricle_speech::{Chain, EngineError};
use auricle_store::spool::{Leftover, Spool};
use auricle_store::{InsertRecovered, Store, StoreError};
use tokio::sync::Notify;

pub(crate) use self::held::Held;
use self::joined::Stretch;
use crate::clock::monotonic;
use crate::vitals::Pulse;

/// An engine that says nothing for this long about audio it was given has failed the attempt.
const PROGRESS_MAX: Duration = Duration::from_secs(60);

/// What repair works with.
pub(crate) struct Repair {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) spool: Spool,
    pub(crate) held: Arc<Held>,
    pub(crate) engine: Arc<Chain>,
    /// When each run that failed was tried last.
    pub(crate) tried: Mutex<HashMap<String, Instant>>,
    /// Stretches heard at once.
    pub(crate) at_once: usize,
    pub(crate) limits: Arc<Limits>,
    pub(crate) wake: Arc<Notify>,
}

/// How many stretches are heard at once. An engine that decodes on this machine keeps half of its cores for live sessions.
pub(crate) fn at_once(engine: &Chain, limits: &Limits) -> usize {
    let is_local = |name: &str| matches!(name, "pocketsphinx" | "whisper");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let local_max = match engine.status().iter().any(|member| is_local(member.engine)) {
        true => (cores / 2).max(1),
        false => usize::MAX,
    };
    limits.spool_repairs_at_once_max.min(local_max).max(1)
}

fn remove(leftover: Leftover) {
    let run = leftover.header().run.clone();
    if let Err(error) = leftover.remove() {
        tracing::warn!(%error, %run, "remove spooled audio");
    }
}

/// It is not needed any more, but may be kept.
fn release(leftover: Leftover) {
    let run = leftover.header().run.clone();
    if let Err(error) = leftover.release() {
        tracing::warn!(%error, %run, "release spooled audio");
    }
}

#[derive(Debug, thiserror::Error)]
enum RepairError {
    #[error("read spooled audio")]
    Read(#[source] std::io::Error),
    #[error("decode spooled audio: {0}")]
    Decode(String),
    #[error("transcribe spooled audio")]
    Engine(#[source] EngineError),
    #[error("the speech engine made no progress for {PROGRESS_MAX:?}")]
    Stuck,
    #[error("store recovered words")]
    Store(#[source] StoreError),
}

impl Repair {
    /// One attempt. Whatever could not be repaired stays on disk. True if there was no engine to make it with.
    async fn repair(&self, mut stretch: Stretch, pulse: &Pulse) -> bool {
        let (run, begun) = (stretch.header().run.clone(), monotonic());
        let heard = self.hear(&mut stretch, pulse).await;
        let leftovers = stretch.into_runs();
        match heard {
            Ok(()) => {
                metrics::counter!("auricle_spool_repairs_total", "outcome" => "done").increment(1);
                leftovers.into_iter().for_each(release);
            }
            // The conversation is gone: its audio is of no use to anyone.
            Err(RepairError::Store(StoreError::NotFound(_))) => {
                metrics::counter!("auricle_spool_repairs_total", "outcome" => "no_conversation").increment(1);
                leftovers.into_iter().for_each(remove);
            }
            // The store's trouble is no fault of the audio.
            Err(RepairError::Store(error)) if error.is_retryable() => {
                tracing::warn!(%error, %run, "store recovered words; trying again");
            }
            // Without an engine there is nothing to try with: the audio waits, bounded by the spool's size.
            Err(RepairError::Engine(EngineError::Unavailable(error))) => {
                metrics::counter!("auricle_spool_repairs_total", "outcome" => "no_engine").increment(1);
                tracing::debug!(%error, %run, "no speech engine for spooled audio");
                return true;
            }
            // Nor while no engine has worked for anybody since it was tried before: it may not be the audio's fault.
            Err(error @ (RepairError::Engine(_) | RepairError::Stuck)) if self.may_be_away(&run, begun) => {
                metrics::counter!("auricle_spool_repairs_total", "outcome" => "no_engine").increment(1);
                tracing::debug!(error = %crate::chain(&error), %run, "no speech engine works for spooled audio");
                return true;
            }
            Err(error) => {
                metrics::counter!("auricle_spool_repairs_total", "outcome" => "failed").increment(1);
                let chained = crate::chain(&error);
                for leftover in leftovers {
                    let attempts = leftover.record_attempt().unwrap_or(0);
                    tracing::warn!(error = %chained, %run, attempts, "repair spooled audio");
                    if attempts >= self.limits.spool_repair_attempts_max {
                        self.give_up(leftover).await;
                    }
                }
            }
        }
        false
    }

    fn may_be_away(&self, run: &str, begun: Instant) -> bool {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let since = tried.insert(run.to_owned(), begun).unwrap_or(begun);
        !self.engine.has_worked_since(since)
    }

    /// Marks the stretch on the conversation, so that people see that words are missing.
    async fn give_up(&self, leftover: Leftover) {
        let header = leftover.header().clone();
        let rate = f64::from(header.sample_rate_hz.max(1));
        let mut frames = leftover.frames().filter(|frame| frame.samples > 0);
        let Some(first) = frames.next() else { return remove(leftover) };
        let end = frames.last().map_or(first.position + u64::from(first.samples), |last| {
            last.position + u64::from(last.samples)
        });
        let insert = InsertRecovered {
            conversation: header.conversation.clone(),
            run: header.run.clone(),
            until_sample: end,
            zero_at: header.first_audio_at,
            segments: Vec::new(),
            gap: Some((first.position as f64 / rate, end as f64 / rate)),
        };
        match self.store.insert_recovered(insert).await {
            Ok(()) => {
                metrics::counter!("auricle_spool_repairs_total", "outcome" => "given_up").increment(1);
                // Another engine may hear it, if it is kept.
                release(leftover);
            }
            Err(StoreError::NotFound(_)) => remove(leftover),
            Err(error) => tracing::warn!(%error, run = %header.run, "mark a gap"),
        }
    }
}

/// A segment for each voice's stretch, or several if it is long, as those of a live session; `offset` in seconds is added to word times. `engine`: whose the words are. `role`:
/// which stream of a multi-channel session.
pub(crate) fn segments(
    words: Vec<Word>,
    offset: f64,
    engine: Option<&str>,
    role: Option<&str>,
) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut voice = None;
    for word in words {
        let ends =
            segments.last().is_none_or(|last| word.start + offset - last.end > 1.5 || is_whole(&last.text));
        if voice == Some(word.speaker) && !ends {
            let last = segments.last_mut().expect("none ends where none is");
            last.text.push(' ');
            last.text.push_str(&word.text);
            last.end = word.end + offset;
            continue;
        }
        voice = Some(word.speaker);
        let (speaker, is_user) = match role {
            Some("mic") => (Speaker::new("SPEAKER_00"), true),
            Some(_) => (Speaker::new("SPEAKER_01"), false),
            None => (Speaker::from_voice(word.speaker), false),
        };
        segments.push(Segment {
            id: SegmentId::random(&mut rand::rng()),
            text: word.text,
            speaker: Some(speaker),
            is_user,
            person_id: None,
            start: word.start + offset,
            end: word.end + offset,
            translations: Vec::new(),
            speech_profile_processed: true,
            stt_provider: engine.map(str::to_owned),
        });
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str, speaker: u32) -> Vec<Word> {
        let word = |(n, text): (usize, &str)| Word {
            text: text.to_owned(),
            start: n as f64 * 0.4,
            end: n as f64 * 0.4 + 0.3,
            speaker,
            confidence: None,
        };
        text.split(' ').enumerate().map(word).collect()
    }

    #[test]
    fn a_long_stretch_of_one_voice_is_cut_at_the_ends_of_sentences() {
        let sentence = "We need to order lunch for everybody who comes from the client.";
        let talk = [sentence; 9].join(" ");
        let segments = segments(said(&talk, 1), 10.0, Some("scripted"), None);
        assert_eq!(segments.iter().map(|s| s.text.as_str()).collect::<Vec<_>>().join(" "), talk);
        assert_eq!(segments.len(), 5, "{segments:?}");
        assert!(segments.iter().all(|segment| segment.text.ends_with('.') && segment.text.len() < 200));
        assert!(segments.windows(2).all(|two| two[0].end <= two[1].start), "{segments:?}");
        assert!((segments[0].start - 10.0).abs() < 1e-9);
    }

    #[test]
    fn without_the_end_of_a_sentence_nothing_is_cut() {
        let talk = ["and then we went on"; 40].join(" ");
        assert_eq!(segments(said(&talk, 0), 0.0, None, None).len(), 1);
    }
}
