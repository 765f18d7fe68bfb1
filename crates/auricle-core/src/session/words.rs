//! From heard words to stored and shown segments; one batch at a time.

use std::collections::VecDeque;
use std::time::Instant;

use crate::ids::SegmentId;
use crate::job::Backoff;
use crate::segment::{Segment, Speaker, Word};
use crate::time::UnixMicros;
use crate::transcript::{TranscriptClock, combine};

use super::{
    Batch, CommitFailure, EarState, Ended, Event, OpenChoice, Output, ServiceStatus, Session, State,
    SttTrouble, Voice,
};

/// One channel's audio and what has become of it. Positions are samples of this connection.
#[derive(Debug, Default)]
pub(super) struct Ear {
    /// Received and decoded.
    pub(super) heard: u64,
    /// Decided by the engine: all words before this have come.
    pub(super) covered: u64,
    /// Told to the spool.
    forgotten: u64,
    /// Words that begin before this do not count: their audio is repair's.
    pub(super) floor: u64,
    pub(super) finished: bool,
    /// A stream hears what comes, or is being opened.
    pub(super) listening: bool,
    /// The stream failed: what it had not decided before this goes to repair once all that it had is stored.
    leave_until: Option<u64>,
    failures: u32,
    pub(super) reopen_at: Option<Instant>,
    /// Since when the client is told that words are late.
    troubled: Option<UnixMicros>,
    /// Which engine the words come from.
    provider: Option<&'static str>,
}

impl Ear {
    pub(super) fn hear(&mut self, samples: u32) {
        self.heard += u64::from(samples);
        if !self.listening {
            // Spooled apart, for repair.
            self.floor = self.heard;
        }
    }

    /// Whether nothing before `mark` is to be waited for.
    pub(super) fn has_decided(&self, mark: u64) -> bool {
        self.finished || self.covered.max(self.floor) >= mark
    }

    /// Whether words are late: nobody can tell whether people are silent.
    pub(super) fn is_troubled(&self) -> bool {
        self.troubled.is_some()
    }

    /// Whether a failed stream's audio still waits for its words to be stored. Only then is the next stream opened.
    pub(super) fn is_leaving_audio(&self) -> bool {
        self.leave_until.is_some()
    }
}

/// A segment on its way into the store, in seconds of this connection's media.
#[derive(Clone, Debug)]
struct Heard {
    /// Whose audio is behind it, if any is.
    channel: Option<usize>,
    segment: Segment,
}

/// What has been heard and is not yet stored.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    pending: Vec<Heard>,
    pub(super) in_flight: Option<InFlight>,
}

/// The batch that the store has.
#[derive(Debug)]
pub(super) struct InFlight {
    batch: Batch,
    /// The same segments before merging, to begin again with elsewhere.
    heard: Vec<Heard>,
    pub(super) retry_at: Option<Instant>,
}

impl Transcript {
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.in_flight.is_none()
    }

    /// Whether segments that begin before `until` (seconds of media) are still to be stored.
    pub(super) fn holds_before(&self, until: f64) -> bool {
        self.in_flight.is_some() || self.pending.iter().any(|heard| heard.segment.start < until)
    }

    /// Everything that is not stored yet, and what the store has.
    pub(super) fn each(&mut self, change: impl FnMut(&mut Segment)) {
        let in_flight = self.in_flight.iter_mut().flat_map(|batch| &mut batch.batch.upsert);
        let pending = self.pending.iter_mut().map(|heard| &mut heard.segment);
        pending.chain(in_flight).for_each(change);
    }

    pub(super) fn retry_if_due(&mut self, now: Instant, outputs: &mut VecDeque<Output>) {
        if let Some(in_flight) = &mut self.in_flight
            && in_flight.retry_at.is_some_and(|at| now >= at)
        {
            in_flight.retry_at = None;
            outputs.push_back(Output::Append(in_flight.batch.clone()));
        }
    }

    /// Whether the store has a batch and has not answered.
    pub(super) fn waits_for_answer(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|batch| batch.retry_at.is_none())
    }

    /// What the store did not take is pending again.
    fn take_back(&mut self) {
        let mut heard = self.in_flight.take().map(|batch| batch.heard).unwrap_or_default();
        heard.append(&mut self.pending);
        self.pending = heard;
    }

    /// Where a channel's first words that are not stored begin, in seconds of media.
    fn first_uncommitted(&self, channel: usize) -> Option<f64> {
        let in_flight = self.in_flight.iter().flat_map(|batch| &batch.heard);
        let own = self.pending.iter().chain(in_flight).filter(|heard| heard.channel == Some(channel));
        own.map(|heard| heard.segment.start).reduce(f64::min)
    }
}

/// Sums of seconds without the dust that adding leaves.
fn to_micros(secs: f64) -> f64 {
    (secs * 1e6).round() / 1e6
}

impl Session {
    /// Whether the driver should leave engine events in their queue for now, so that the engine waits.
    pub fn is_congested(&self) -> bool {
        self.transcript.pending.len() >= self.limits.segments_uncommitted_max
    }

    pub(super) fn on_words(&mut self, channel: usize, words: Vec<Word>) {
        let Some(voice) = self.config.voices.get(channel).cloned() else { return };
        let rate_hz = f64::from(self.config.sample_rate_hz.max(1));
        let ear = &mut self.ears[channel];
        ear.failures = 0;
        let provider = ear.provider;
        let floor = ear.floor as f64 / rate_hz;
        // Words are final and in order: whatever is before the last one's end is decided.
        if let Some(last) = words.last() {
            ear.covered = ear.covered.max(((last.end * rate_hz) as u64).min(ear.heard));
        }
        let mut segments: Vec<Segment> = Vec::new();
        let mut last_voice = None;
        for word in words {
            if word.start < floor || word.text.is_empty() {
                continue;
            }
            if last_voice == Some(word.speaker)
                && let Some(segment) = segments.last_mut()
            {
                segment.text.push(' ');
                segment.text.push_str(&word.text);
                segment.end = word.end;
                continue;
            }
            last_voice = Some(word.speaker);
            segments.push(self.segment_of(&voice, provider, word));
        }
        self.hear(Some(channel), segments);
    }

    fn segment_of(&mut self, voice: &Voice, provider: Option<&'static str>, word: Word) -> Segment {
        let (speaker, is_user) = match voice {
            Voice::Recognised => (Speaker::from_voice(word.speaker), false),
            Voice::Fixed { speaker, is_user } => (speaker.clone(), *is_user),
        };
        Segment {
            id: self.new_segment_id(),
            text: word.text,
            speaker: Some(speaker),
            is_user,
            person_id: None,
            start: word.start,
            end: word.end,
            translations: Vec::new(),
            speech_profile_processed: true,
            stt_provider: provider.map(str::to_owned),
        }
    }

    pub(super) fn on_suggested(&mut self, provider: Option<String>, segments: Vec<Segment>) {
        if !self.config.custom_stt || self.leaving.is_some() {
            return;
        }
        let mut heard = Vec::with_capacity(segments.len());
        for mut segment in segments {
            if segment.text.trim().is_empty() {
                continue;
            }
            if segment.id.as_str().is_empty() {
                segment.id = self.new_segment_id();
            }
            segment.stt_provider.clone_from(&provider);
            heard.push(segment);
        }
        self.hear(None, heard);
    }

    fn hear(&mut self, channel: Option<usize>, mut segments: Vec<Segment>) {
        if segments.is_empty() {
            return;
        }
        // Without audio the media clock begins now: words before any audio are words all the same.
        self.zero_at.get_or_insert(self.now.wall);
        if let Some(onboarding) = &mut self.onboarding {
            segments.iter_mut().for_each(|segment| segment.is_user = true);
            onboarding.heard(self.now.mono, &segments);
        }
        self.transcript.pending.extend(segments.into_iter().map(|segment| Heard { channel, segment }));
        if matches!(self.state, State::Detached) {
            self.open(OpenChoice::New);
        }
    }

    pub(super) fn inject(&mut self, segment: Segment) {
        self.zero_at.get_or_insert(self.now.wall);
        self.transcript.pending.push(Heard { channel: None, segment });
    }

    pub(super) fn on_covered(&mut self, channel: usize, until_sample: u64) {
        if let Some(ear) = self.ears.get_mut(channel) {
            ear.covered = ear.covered.max(until_sample.min(ear.heard));
        }
    }

    pub(super) fn on_ear(&mut self, channel: usize, state: EarState) {
        let now = self.now.mono;
        let Some(ear) = self.ears.get_mut(channel) else { return };
        match state {
            // Its words begin before what was spooled apart ends, so that one at the edge is heard whole.
            EarState::Opened { from_sample } => ear.floor = ear.floor.min(from_sample),
            EarState::Serving(engine) => ear.provider = Some(engine),
            EarState::Listening => {
                ear.failures = 0;
                if let Some(since) = ear.troubled.take() {
                    let engine = ear.provider;
                    self.status(ServiceStatus::Ready);
                    self.emit(Event::SttRecovered { engine, since });
                }
            }
            EarState::Busy => {
                let engine = ear.provider;
                self.degraded(
                    channel,
                    engine,
                    "all recognisers are busy; audio waits".into(),
                    self.now.wall,
                    None,
                );
            }
            EarState::Degraded(SttTrouble { engine, reason, silent_for, next }) => {
                let since = self.now.wall.plus_secs_f64(-silent_for.as_secs_f64());
                self.degraded(channel, Some(engine), reason, since, next);
            }
            EarState::Failed(reason) => {
                ear.failures += 1;
                let backoff =
                    Backoff { first: self.limits.engine_reopen_first, max: self.limits.engine_reopen_max };
                let delay = backoff.delay(ear.failures, &mut self.entropy);
                ear.reopen_at = self.leaving.is_none().then(|| now + delay);
                ear.finished = self.leaving.is_some();
                ear.listening = false;
                let left_from = ear.covered.max(ear.floor);
                ear.floor = ear.heard;
                ear.leave_until = Some(ear.heard);
                self.outputs.push_back(Output::EndRun { channel });
                self.leaves_audio(left_from);
                let engine = self.ears[channel].provider;
                self.degraded(channel, engine, reason, self.now.wall, None);
            }
            EarState::Finished => {
                ear.finished = true;
                if ear.listening {
                    ear.covered = ear.heard;
                }
            }
        }
    }

    /// Tells the client once, until words come again. A status that Omi's apps know goes before what only ours understand.
    fn degraded(
        &mut self,
        channel: usize,
        engine: Option<&'static str>,
        reason: String,
        since: UnixMicros,
        next: Option<&'static str>,
    ) {
        let ear = &mut self.ears[channel];
        if ear.troubled.is_none() {
            ear.troubled = Some(since);
            self.status(ServiceStatus::SttInitiating);
            self.emit(Event::SttDegraded { engine, reason, since, next });
        }
    }

    /// Not while the session begins, when a client waits for `ready` after the others.
    fn status(&mut self, status: ServiceStatus) {
        if self.announced {
            self.emit(Event::Status(status));
        }
    }

    /// Audio from this sample on is repair's.
    pub(super) fn leaves_audio(&mut self, from_sample: u64) {
        let from = from_sample as f64 / f64::from(self.config.sample_rate_hz.max(1));
        self.left_from = Some(self.left_from.map_or(from, |left| left.min(from)));
    }

    /// Hands the store the next batch if it has none. While a conversation ends, only what belongs to it.
    pub(super) fn begin_batch(&mut self) {
        if self.transcript.in_flight.is_some() || self.transcript.pending.is_empty() {
            return;
        }
        let (current, until) = match &mut self.state {
            State::Live(current) => (current, f64::INFINITY),
            State::Ending(current, ending) => (current, ending.mark_secs),
            _ => return,
        };
        let Some(first_audio_at) = self.zero_at else { return };
        let pending = std::mem::take(&mut self.transcript.pending);
        let (mut heard, later): (Vec<_>, Vec<_>) =
            pending.into_iter().partition(|heard| heard.segment.start < until);
        self.transcript.pending = later;
        heard.sort_by(|a, b| a.segment.start.total_cmp(&b.segment.start));
        let Some(first_start) = heard.first().map(|heard| heard.segment.start) else { return };
        // What repair will hear before the first word comes before it, and no word before the zero.
        let zero = self.left_from.map_or(first_start, |left| left.min(first_start));
        let clock = match current.started_at {
            Some(started_at) => TranscriptClock { started_at, first_audio_at },
            None => TranscriptClock::starting(first_audio_at, zero),
        };
        // The first word of a conversation is its zero, to the last digit.
        let offset = if current.started_at.is_none() { -zero } else { clock.offset_secs(first_start) };
        // What was once moved up to the conversation's start stays in front of what follows it.
        let offset = *current.offset_secs.insert(current.offset_secs.map_or(offset, |last| last.max(offset)));
        let new = heard.iter().map(|heard| {
            let mut segment = heard.segment.clone();
            segment.start = to_micros(segment.start + offset);
            segment.end = to_micros(segment.end + offset);
            segment
        });
        let combined = combine(current.tail.as_ref(), new.collect(), self.limits.segment_chars_max);
        let batch = Batch {
            upsert: combined.changed,
            delete: combined.deleted,
            started_at: current.started_at.is_none().then_some(clock.started_at),
        };
        self.outputs.push_back(Output::Append(batch.clone()));
        self.transcript.in_flight = Some(InFlight { batch, heard, retry_at: None });
    }

    pub(super) fn on_committed(&mut self) {
        let Some(InFlight { batch, heard, .. }) = self.transcript.in_flight.take() else { return };
        self.storage_ok();
        let now = self.now.mono;
        if let State::Live(current) | State::Ending(current, _) = &mut self.state {
            current.started_at = current.started_at.or(batch.started_at);
            current.tail = batch.upsert.last().cloned();
            current.has_content = true;
            current.last_content = now;
        }
        let is_new = |id: &SegmentId| heard.iter().any(|heard| heard.segment.id == *id);
        let suggestions = self.speakers.suggest(&batch.upsert, is_new, self.config.speaker_auto_assign);
        self.listen_for_names(heard.iter().map(|heard| &heard.segment), &batch.upsert);
        if !batch.delete.is_empty() {
            self.emit(Event::SegmentsDeleted(batch.delete));
        }
        self.emit(Event::Segments(batch.upsert));
        suggestions.into_iter().for_each(|suggestion| self.emit(suggestion));
        if std::mem::take(&mut self.superseded) {
            self.on_superseded();
        }
    }

    /// Later batches hold the last segment again: its translation shall not be lost by that.
    pub(super) fn on_translated(&mut self, translated: &[Segment]) {
        self.each_segment(|segment| {
            let same = translated.iter().find(|new| new.id == segment.id && new.text == segment.text);
            if let Some(new) = same {
                segment.translations.clone_from(&new.translations);
            }
        });
    }

    pub(super) fn on_commit_failed(&mut self, failure: CommitFailure) {
        let Some(in_flight) = &mut self.transcript.in_flight else { return };
        let superseded = std::mem::take(&mut self.superseded);
        match failure {
            CommitFailure::Retry if !superseded => {
                in_flight.retry_at = Some(self.now.mono + self.limits.store_retry_every);
                self.storage_down();
            }
            CommitFailure::Retry | CommitFailure::Superseded => {
                self.transcript.take_back();
                self.on_superseded();
            }
            CommitFailure::Ended => {
                // Somebody else ended the conversation: what was not yet in it begins the next one.
                self.transcript.take_back();
                self.answer_finalise(Ended::Already);
                if self.leaving.is_some() {
                    self.leave_words();
                    self.outputs.push_back(Output::Disown);
                    self.be_over();
                } else {
                    self.open(OpenChoice::New);
                }
            }
        }
    }

    /// Another session has this conversation. What was heard so far belongs to it; later words begin a conversation of our
    /// own. While the store has a batch, only its answer tells which words are in.
    pub(super) fn on_superseded(&mut self) {
        if !matches!(self.state, State::Live(_) | State::Ending(..)) {
            return;
        }
        if self.transcript.waits_for_answer() {
            self.superseded = true;
            return;
        }
        self.transcript.take_back();
        self.end_runs();
        self.leave_words();
        for (channel, ear) in self.ears.iter_mut().enumerate() {
            ear.covered = ear.heard;
            ear.forgotten = ear.heard;
            ear.floor = ear.heard;
            self.outputs.push_back(Output::LeaveRun { channel, until_sample: ear.heard });
        }
        self.answer_finalise(Ended::Already);
        self.outputs.push_back(Output::Disown);
        // Live, Ending => Detached.
        self.state = State::Detached;
    }

    /// Gives up what is not stored: words with audio behind them come back through repair, others are stored by their time.
    pub(super) fn leave_words(&mut self) {
        self.forget_covered();
        self.transcript.take_back();
        let pending = std::mem::take(&mut self.transcript.pending);
        let without_audio = pending.into_iter().filter(|heard| heard.channel.is_none());
        let segments: Vec<_> = without_audio.map(|heard| heard.segment).collect();
        if let (Some(zero_at), false) = (self.zero_at, segments.is_empty()) {
            self.outputs.push_back(Output::AppendElsewhere { zero_at, segments });
        }
        for ear in &mut self.ears {
            ear.covered = ear.forgotten;
        }
    }

    pub(super) fn end_runs(&mut self) {
        self.outputs.extend((0..self.ears.len()).map(|channel| Output::EndRun { channel }));
    }

    /// Audio may go once every word before it is durable; what a failed stream left undecided, once every word that it did
    /// decide is.
    pub(super) fn forget_covered(&mut self) {
        let rate_hz = f64::from(self.config.sample_rate_hz.max(1));
        for (channel, ear) in self.ears.iter_mut().enumerate() {
            let uncommitted = self.transcript.first_uncommitted(channel);
            let until = uncommitted.map_or(ear.covered, |start| ear.covered.min((start * rate_hz) as u64));
            if until > ear.forgotten {
                ear.forgotten = until;
                self.outputs.push_back(Output::Forget { channel, until_sample: until });
            }
            if uncommitted.is_none()
                && let Some(until_sample) = ear.leave_until.take()
            {
                ear.covered = ear.covered.max(until_sample);
                ear.forgotten = ear.forgotten.max(until_sample);
                self.outputs.push_back(Output::LeaveRun { channel, until_sample });
            }
        }
    }

    pub(super) fn end_of_transcript(&self) -> f64 {
        let in_flight = self.transcript.in_flight.iter().flat_map(|batch| &batch.heard);
        let uncommitted = self.transcript.pending.iter().chain(in_flight);
        uncommitted.map(|heard| heard.segment.end).fold(0.0, f64::max)
    }
}
