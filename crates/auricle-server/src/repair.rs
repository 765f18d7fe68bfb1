//! Hears what no session did: audio that was left in the spool by a crash, a failed engine or an overload is transcribed
//! and its words are put into their conversation, by time.
//!
//! Bounded: one run at a time; each run has `spool_repair_attempts_max` attempts, after which its stretch is marked as a gap. An
//! attempt counts if an engine has worked for anybody since the one before: while all are away audio waits.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use auricle_audio::{Codec, Decoder};
use auricle_core::{ConversationId, Limits, Segment, SegmentId, Speaker, Word};
use auricle_speech::{Chain, Engine, EngineError, Event, StreamSpec};
use auricle_store::spool::{Leftover, Spool};
use auricle_store::{InsertRecovered, Store, StoreError};
use tokio::sync::{Notify, mpsc};

use crate::clock::monotonic;
use crate::speech::AHEAD_SECS;
use crate::vitals::Pulse;

/// Looks at the spool at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
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
    pub(crate) limits: Arc<Limits>,
    pub(crate) wake: Arc<Notify>,
}

/// A hole in spooled audio is kept as silence up to this long; the rest of it only shifts what follows.
const HOLE_SECS_MAX: u64 = 600;

/// Looks at the spool that a conversation just left to repair is held for without being found: what is left comes to disk a
/// moment after it is said to be.
const LOOKS: u8 = 3;

/// Conversations with audio that is still to be transcribed.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<Holding>);

#[derive(Debug, Default)]
struct Holding {
    /// `None` until the spool has been looked at.
    found: Option<HashSet<ConversationId>>,
    /// And how many looks each is still held for.
    told: HashMap<ConversationId, u8>,
}

impl Held {
    /// Whether a conversation may not be ended yet, as far as is known.
    pub(crate) fn holds(&self, conversation: &ConversationId) -> bool {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.told.contains_key(conversation)
            || held.found.as_ref().is_none_or(|found| found.contains(conversation))
    }

    /// A session leaves audio of this conversation.
    pub(crate) fn hold(&self, conversation: &ConversationId) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.told.insert(conversation.clone(), LOOKS);
    }

    fn replace(&self, found: HashSet<ConversationId>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.found = Some(found);
        held.told.retain(|_, looks| {
            *looks -= 1;
            *looks > 0
        });
    }
}

fn remove(leftover: Leftover) {
    let run = leftover.header().run.clone();
    if let Err(error) = leftover.remove() {
        tracing::warn!(%error, %run, "remove spooled audio");
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
    /// Runs for ever; may be dropped at any await.
    pub(crate) async fn run(self: Arc<Self>, pulse: Arc<Pulse>) {
        loop {
            pulse.beat(monotonic());
            for leftover in self.look().await {
                pulse.beat(monotonic());
                self.repair(leftover, &pulse).await;
            }
            // Whatever could not be repaired still holds its conversation.
            self.look().await;
            let _ = tokio::time::timeout(LOOK_EVERY, self.wake.notified()).await;
        }
    }

    /// The runs that nobody writes any more; also publishes whose they are.
    async fn look(&self) -> Vec<Leftover> {
        let spool = self.spool.clone();
        let found = tokio::task::spawn_blocking(move || spool.leftovers()).await;
        match found.map_err(std::io::Error::other).and_then(|found| found) {
            Ok(leftovers) => {
                metrics::gauge!("auricle_spool_leftover_runs").set(leftovers.len() as f64);
                let is_there = |run: &String| leftovers.iter().any(|left| left.header().run == *run);
                self.tried.lock().unwrap_or_else(PoisonError::into_inner).retain(|run, _| is_there(run));
                self.held.replace(leftovers.iter().map(|left| left.header().conversation.clone()).collect());
                leftovers
            }
            Err(error) => {
                tracing::warn!(%error, "look for left-over audio");
                Vec::new()
            }
        }
    }

    async fn repair(&self, mut leftover: Leftover, pulse: &Pulse) {
        let (run, begun) = (leftover.header().run.clone(), monotonic());
        match self.hear(&mut leftover, pulse).await {
            Ok(()) => {
                metrics::counter!("auricle_spool_repairs_total", "outcome" => "done").increment(1);
                remove(leftover);
            }
            // The conversation is gone: its audio is of no use to anyone.
            Err(RepairError::Store(StoreError::NotFound(_))) => {
                metrics::counter!("auricle_spool_repairs_total", "outcome" => "no_conversation").increment(1);
                remove(leftover);
            }
            // The store's trouble is no fault of the audio.
            Err(RepairError::Store(error)) if error.is_retryable() => {
                tracing::warn!(%error, %run, "store recovered words; trying again");
            }
            // Without an engine there is nothing to try with: the audio waits, bounded by the spool's size.
            Err(RepairError::Engine(EngineError::Unavailable(error))) => {
                metrics::counter!("auricle_spool_repairs_total", "outcome" => "no_engine").increment(1);
                tracing::debug!(%error, %run, "no speech engine for spooled audio");
            }
            // Nor while no engine has worked for anybody since it was tried before: it may not be the audio's fault.
            Err(error @ (RepairError::Engine(_) | RepairError::Stuck)) if self.may_be_away(&run, begun) => {
                metrics::counter!("auricle_spool_repairs_total", "outcome" => "no_engine").increment(1);
                tracing::debug!(error = %crate::chain(&error), %run, "no speech engine works for spooled audio");
            }
            Err(error) => {
                let attempts = leftover.record_attempt().unwrap_or(0);
                tracing::warn!(error = %crate::chain(&error), %run, attempts, "repair spooled audio");
                metrics::counter!("auricle_spool_repairs_total", "outcome" => "failed").increment(1);
                if attempts >= self.limits.spool_repair_attempts_max {
                    self.give_up(leftover).await;
                }
            }
        }
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
        let mut frames = leftover.frames();
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
            Ok(()) | Err(StoreError::NotFound(_)) => {
                metrics::counter!("auricle_spool_repairs_total", "outcome" => "given_up").increment(1);
                remove(leftover);
            }
            Err(error) => tracing::warn!(%error, run = %header.run, "mark a gap"),
        }
    }

    async fn hear(&self, leftover: &mut Leftover, pulse: &Pulse) -> Result<(), RepairError> {
        let header = &leftover.header().clone();
        let codec: Codec =
            header.codec.parse().map_err(|_| RepairError::Decode(format!("codec {}", header.codec)))?;
        let rate = header.sample_rate_hz;
        let mut decoder = Decoder::new(codec, rate, u8::try_from(header.channels).unwrap_or(1))
            .map_err(|error| RepairError::Decode(error.to_string()))?;
        let (sender, mut events) = mpsc::channel(64);
        let spec = StreamSpec {
            sample_rate_hz: rate,
            language: header.language.clone().unwrap_or_else(|| "en".into()),
            label: header.run.clone(),
            key_terms: Vec::new(),
        };
        let mut stream = self.engine.open(spec, sender).map_err(RepairError::Engine)?;
        let mut heard = Hearing { zero: None, given: 0, covered: 0, words: Vec::new(), engine: None };
        let mut pcm = Vec::new();
        let frames = leftover.frames();
        for frame in frames {
            let zero = *heard.zero.get_or_insert(frame.position);
            // Audio that was not spooled is silence here, so that what follows keeps its time.
            let hole = (frame.position - zero).saturating_sub(heard.given);
            stream.push(&vec![0; usize::try_from(hole.min(u64::from(rate) * HOLE_SECS_MAX)).unwrap_or(0)]);
            heard.given += hole;
            pcm.clear();
            // A frame that does not decode now did not decode when it came either; keep time all the same.
            if decoder.decode(&frame.bytes, &mut pcm).is_err() {
                pcm.clear();
            }
            pcm.resize(frame.samples as usize, 0);
            stream.push(&pcm);
            heard.given += u64::from(frame.samples);
            while heard.given > heard.covered + AHEAD_SECS * u64::from(rate) {
                self.next_event(&mut events, &mut heard, leftover, pulse).await?;
            }
        }
        stream.finish();
        while !self.next_event(&mut events, &mut heard, leftover, pulse).await? {}
        self.store_words(&mut heard, leftover).await
    }

    /// Takes one event. True when the engine has finished.
    async fn next_event(
        &self,
        events: &mut mpsc::Receiver<Event>,
        heard: &mut Hearing,
        leftover: &mut Leftover,
        pulse: &Pulse,
    ) -> Result<bool, RepairError> {
        let deadline = monotonic() + PROGRESS_MAX;
        let event = loop {
            pulse.beat(monotonic());
            match tokio::time::timeout(Duration::from_secs(5), events.recv()).await {
                Ok(event) => break event,
                Err(_) if monotonic() >= deadline => return Err(RepairError::Stuck),
                Err(_) => {}
            }
        };
        match event {
            Some(Event::Words(words)) => heard.words.extend(words),
            Some(Event::Covered { until_sample }) => {
                heard.covered = heard.covered.max(until_sample);
                if !heard.words.is_empty() {
                    self.store_words(heard, leftover).await?;
                }
            }
            Some(Event::Failed(error)) => return Err(RepairError::Engine(error)),
            Some(Event::Finished) => {
                heard.covered = heard.given;
                return Ok(true);
            }
            Some(Event::Serving { engine }) => heard.engine = Some(engine),
            Some(
                Event::Busy { .. }
                | Event::Resumed
                | Event::Skipped { .. }
                | Event::Degraded { .. }
                | Event::Recovered { .. },
            ) => {}
            None => return Err(RepairError::Engine(EngineError::Broken("the speech engine stopped".into()))),
        }
        Ok(false)
    }

    async fn store_words(&self, heard: &mut Hearing, leftover: &mut Leftover) -> Result<(), RepairError> {
        let header = leftover.header();
        let Some(zero) = heard.zero else { return Ok(()) };
        let rate = f64::from(header.sample_rate_hz.max(1));
        let words = std::mem::take(&mut heard.words);
        let insert = InsertRecovered {
            conversation: header.conversation.clone(),
            run: header.run.clone(),
            until_sample: zero + heard.covered,
            zero_at: header.first_audio_at,
            segments: segments(words, zero as f64 / rate, heard.engine, header.role.as_deref()),
            gap: None,
        };
        let until = insert.until_sample;
        self.store.insert_recovered(insert).await.map_err(RepairError::Store)?;
        // Stored before it is freed: a crash between the two is told apart by (run, position).
        leftover.cover(until).map_err(RepairError::Read)
    }
}

/// How far an attempt has come, in samples from the first frame it read.
struct Hearing {
    /// Position of the first frame in the run.
    zero: Option<u64>,
    given: u64,
    covered: u64,
    words: Vec<Word>,
    /// Whose they are.
    engine: Option<&'static str>,
}

/// One segment for each voice's stretch; `offset` in seconds is added to word times. `engine`: whose the words are. `role`:
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
        let gap = segments.last().is_none_or(|last| word.start + offset - last.end > 1.5);
        if voice == Some(word.speaker) && !gap {
            let last = segments.last_mut().expect("no gap means there is one");
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
