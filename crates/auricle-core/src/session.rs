//! One client's listening session as a pure machine.
//!
//! Owns: which conversation words go to, when it begins and ends, what is stored and in what order the client hears of it,
//! timers, and how a session leaves. Leaves to its driver (`auricle-server`): sockets, codecs, engines, the store, clocks.
//! Invariants: words are emitted only after [`Input::Committed`]; each stretch of audio has its words stored by this session
//! or is left to repair, and never both; at most one batch is uncommitted; nothing outside the client's own connection closes
//! it, except the server's drain.
//!
//! Use: after each [`Session::handle`], drain [`Session::poll_output`] until `None`, then wait for the next input or for
//! [`Session::poll_timeout`]. Start at [`Session::handle`].

mod ending;
mod images;
mod onboarding;
mod speakers;
mod types;
mod words;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rand::{SeedableRng, rngs::StdRng};

use crate::conversation::FinaliseReason;
use crate::ids::{PhotoId, SegmentId};
use crate::limits::Limits;
use crate::segment::Segment;
use crate::time::UnixMicros;

use self::ending::{Ending, Leaving};
use self::images::{ImageOutcome, Images};
use self::onboarding::Onboarding;
use self::speakers::Speakers;
pub use self::types::*;
use self::words::{Ear, Transcript};

/// What a conversation means to the session that owns it.
#[derive(Debug)]
struct Current {
    /// `None` until the first batch of an empty conversation is committed.
    started_at: Option<UnixMicros>,
    /// Added to media times in the last batch.
    offset_secs: Option<f64>,
    tail: Option<Segment>,
    has_content: bool,
    /// When speech or a photo was last stored; silence is counted from here.
    last_content: Instant,
}

#[derive(Debug)]
enum State {
    /// `Open` is under way, or waits for its retry.
    Opening { choice: OpenChoice, retry_at: Option<Instant> },
    /// Words go to `current`.
    Live(Current),
    /// Waits for the words of the audio heard so far, then finalises.
    Ending(Current, Ending),
    /// `Finalise` is under way, or waits for its retry.
    Finalising { reason: FinaliseReason, retry_at: Option<Instant> },
    /// Another session owns the conversation now; a new one is opened when there is something to put in it.
    Detached,
    /// `Release` was asked for, or there was nothing to release.
    Over,
}

/// One client's listening session. Does no I/O and reads no clock.
///
/// Time never runs backwards: an earlier `now` counts as the last one.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    limits: Arc<Limits>,
    entropy: StdRng,
    state: State,
    leaving: Option<Leaving>,
    closing: bool,
    now: Now,
    started: Now,
    announced: bool,
    last_frame: Instant,
    next_ping: Instant,
    /// Zero of this connection's media clock.
    zero_at: Option<UnixMicros>,
    ears: Vec<Ear>,
    /// Seconds of media from which on audio was left to repair, of the conversation that is current or being opened.
    left_from: Option<f64>,
    transcript: Transcript,
    images: Images,
    speakers: Speakers,
    onboarding: Option<Onboarding>,
    noted_reason: Option<FinaliseReason>,
    /// `finalise now` callers that wait for an answer.
    finalise_waiting: bool,
    /// Another session has the conversation; what the store has of ours is still to be answered.
    superseded: bool,
    photos_uncommitted: usize,
    storage_degraded: bool,
    outputs: VecDeque<Output>,
}

impl Session {
    /// A session that begins: its first outputs greet the client and open its conversation. `seed` feeds ids and jitter.
    pub fn new(config: SessionConfig, limits: Arc<Limits>, seed: [u8; 32], now: Now) -> Self {
        let choice = config.choice.clone();
        let ears = (0..config.voices.len()).map(|_| Ear::default()).collect();
        let onboarding = config.onboarding.then(Onboarding::default);
        let mut session = Self {
            images: Images::new(Arc::clone(&limits)),
            config,
            limits,
            entropy: StdRng::from_seed(seed),
            state: State::Opening { choice: choice.clone(), retry_at: None },
            leaving: None,
            closing: false,
            now,
            started: now,
            announced: false,
            last_frame: now.mono,
            next_ping: now.mono,
            zero_at: None,
            ears,
            left_from: None,
            transcript: Transcript::default(),
            speakers: Speakers::default(),
            onboarding,
            noted_reason: None,
            finalise_waiting: false,
            superseded: false,
            photos_uncommitted: 0,
            storage_degraded: false,
            outputs: VecDeque::new(),
        };
        session.ping();
        session.emit(Event::Status(ServiceStatus::Initiating));
        session.outputs.push_back(Output::Open(choice));
        if session.config.engine {
            // At once, so that words are not late because the store is: they wait for their conversation.
            (0..session.ears.len()).for_each(|channel| session.open_engine(channel));
        }
        session
    }

    /// Tells the session what happened.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.now = Now { mono: now.mono.max(self.now.mono), wall: now.wall };
        match input {
            Input::Audio { channel, samples } => self.on_audio(channel, samples),
            Input::Keepalive => self.last_frame = self.now.mono,
            Input::Text(text) => {
                self.last_frame = self.now.mono;
                self.on_text(text);
            }
            Input::Words { channel, words } => self.on_words(channel, words),
            Input::Covered { channel, until_sample } => self.on_covered(channel, until_sample),
            Input::Ear { channel, state } => self.on_ear(channel, state),
            Input::Opened(opened) => self.on_opened(opened),
            Input::OpenFailed => self.on_open_failed(),
            Input::Committed => self.on_committed(),
            Input::CommitFailed(failure) => self.on_commit_failed(failure),
            Input::PhotoCommitted { stored } => self.on_photo_committed(stored),
            Input::PersonFound { introduction, found } => self.on_person_found(introduction, found),
            Input::Reassigned { segments, to, speaker } => self.on_reassigned(&segments, &to, speaker),
            Input::Translated(segments) => self.on_translated(&segments),
            Input::Finalised(ended) => self.on_finalised(ended),
            Input::FinaliseFailed => self.on_finalise_failed(),
            Input::FinaliseNow(reason) => self.on_finalise_now(reason),
            Input::Superseded => self.on_superseded(),
            Input::ClientClosed { code } => self.on_client_closed(code),
            Input::Drain => self.close(Close::Restarting),
            Input::Overflowed => self.close(Close::TooSlow),
            Input::Refused(close) => self.close(close),
            Input::Tick => {}
        }
        self.run_timers();
        self.advance();
    }

    /// What to do next; `None` when there is nothing until the next input or timeout.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to send [`Input::Tick`] at the latest, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, TimerReason)> {
        let mut soonest: Option<(Instant, TimerReason)> = None;
        let mut consider = |at: Instant, reason| {
            if soonest.is_none_or(|(best, _)| at < best) {
                soonest = Some((at, reason));
            }
        };
        if matches!(self.state, State::Over) {
            return None;
        }
        if let Some(leaving) = &self.leaving {
            // Past both, only the store's answer is waited for.
            let deadlines = [leaving.deadline, leaving.deadline + self.limits.engine_drain_max];
            if let Some(at) = deadlines.into_iter().find(|at| *at > self.now.mono) {
                consider(at, TimerReason::EngineDrain);
            }
        } else {
            consider(self.next_ping, TimerReason::Ping);
        }
        match &self.state {
            State::Opening { retry_at: Some(at), .. } | State::Finalising { retry_at: Some(at), .. } => {
                consider(*at, TimerReason::StoreRetry);
            }
            State::Live(current) if self.leaving.is_none() => {
                consider(current.last_content + self.config.timeout, TimerReason::Silence);
            }
            State::Ending(_, ending) if ending.deadline > self.now.mono => {
                consider(ending.deadline, TimerReason::EngineFlush);
            }
            _ => {}
        }
        if let Some(at) = self.transcript.in_flight.as_ref().and_then(|batch| batch.retry_at) {
            consider(at, TimerReason::StoreRetry);
        }
        for ear in &self.ears {
            if let Some(at) = ear.reopen_at.filter(|_| !ear.is_leaving_audio()) {
                consider(at, TimerReason::EngineReopen);
            }
        }
        if let Some(at) = self.images.next_expiry() {
            consider(at, TimerReason::ImageExpiry);
        }
        if let Some(at) = self.onboarding.as_ref().and_then(Onboarding::next_check) {
            consider(at, TimerReason::Onboarding);
        }
        soonest
    }

    /// Whether the session has nothing more to do; its driver may end.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over) && self.outputs.is_empty()
    }

    /// Wall-clock zero of this connection's media clock, once there is one.
    pub fn zero_at(&self) -> Option<UnixMicros> {
        self.zero_at
    }

    fn on_audio(&mut self, channel: usize, samples: u32) {
        self.last_frame = self.now.mono;
        if samples == 0 || self.leaving.is_some() {
            return;
        }
        self.zero_at.get_or_insert(self.now.wall);
        let Some(ear) = self.ears.get_mut(channel) else { return };
        let (from, unheard) = (ear.heard, !ear.listening && self.config.engine);
        ear.hear(samples);
        if unheard {
            self.leaves_audio(from);
        }
    }

    fn on_text(&mut self, text: ClientText) {
        match text {
            ClientText::Suggested { provider, segments } => self.on_suggested(provider, segments),
            ClientText::SpeakerAssigned(assignment) => self.on_speaker_assigned(assignment),
            ClientText::ImageChunk(chunk) => match self.images.chunk(self.now.mono, chunk) {
                ImageOutcome::Incomplete => {}
                ImageOutcome::Complete { temp_id, base64 } => self.on_image(temp_id, base64),
                ImageOutcome::Invalid => self.close(Close::InvalidImage),
            },
            ClientText::FinaliseReason(reason) => {
                self.noted_reason = Some(reason);
                if matches!(self.state, State::Live(_)) {
                    self.outputs.push_back(Output::NoteReason(reason));
                }
            }
            ClientText::SkipQuestion => self.with_onboarding(Onboarding::skip),
            ClientText::StartOnboarding => self.with_onboarding(Onboarding::start),
        }
    }

    fn with_onboarding(&mut self, act: impl FnOnce(&mut Onboarding, Instant) -> Vec<onboarding::Step>) {
        let Some(mut onboarding) = self.onboarding.take() else { return };
        let steps = act(&mut onboarding, self.now.mono);
        self.onboarding = Some(onboarding);
        for step in steps {
            self.on_onboarding_step(step);
        }
    }

    /// Bytes it holds of pictures that are not whole yet.
    pub fn picture_bytes(&self) -> usize {
        self.images.bytes()
    }

    fn on_image(&mut self, temp_id: String, base64: String) {
        if matches!(self.state, State::Detached) {
            self.open(OpenChoice::New);
        }
        self.zero_at.get_or_insert(self.now.wall);
        let photo_id = PhotoId::random(&mut self.entropy);
        self.emit(Event::PhotoProcessing { temp_id, photo: photo_id.clone() });
        self.photos_uncommitted += 1;
        self.outputs.push_back(Output::AppendPhoto { id: photo_id, base64 });
    }

    fn on_photo_committed(&mut self, stored: bool) {
        self.photos_uncommitted = self.photos_uncommitted.saturating_sub(1);
        if stored && let State::Live(current) | State::Ending(current, _) = &mut self.state {
            current.has_content = true;
            current.last_content = self.now.mono;
        }
    }

    fn on_opened(&mut self, opened: OpenedConversation) {
        match self.state {
            State::Opening { .. } => {}
            // The session gave up waiting for it.
            State::Over => return self.outputs.push_back(Output::Release),
            _ => return,
        }
        self.storage_ok();
        let silent_for = self.now.wall.saturating_since(opened.finished_at);
        let last_content = if opened.resumed {
            self.now.mono.checked_sub(silent_for).unwrap_or(self.started.mono)
        } else {
            self.now.mono
        };
        self.recall_speakers(&opened.speakers);
        let has_content = opened.has_content;
        let current = Current {
            started_at: opened.tail.is_some().then_some(opened.started_at),
            offset_secs: None,
            tail: opened.tail,
            has_content,
            last_content,
        };
        // Opening => Live: the store made this session the owner.
        self.state = State::Live(current);
        if !self.announced {
            self.announced = true;
            if let Some(last) = opened.last_completed {
                self.emit(Event::LastMemory(last));
            }
            self.emit(Event::Status(ServiceStatus::ConversationsProcessing));
            self.emit(Event::ConversationSession(opened.conversation));
            if self.config.engine {
                self.emit(Event::Status(ServiceStatus::SttInitiating));
            }
            self.emit(Event::Status(ServiceStatus::Ready));
            if self.onboarding.is_some() {
                self.with_onboarding(Onboarding::start);
            }
        } else {
            self.emit(Event::ConversationSession(opened.conversation));
        }
        if let Some(reason) = self.noted_reason {
            self.outputs.push_back(Output::NoteReason(reason));
        }
        if std::mem::take(&mut self.finalise_waiting) {
            self.on_finalise_now(FinaliseReason::Requested);
        }
    }

    fn on_open_failed(&mut self) {
        let retry = self.now.mono + self.limits.store_retry_every;
        if let State::Opening { retry_at, .. } = &mut self.state {
            *retry_at = Some(retry);
            self.storage_down();
        }
    }

    fn open_engine(&mut self, channel: usize) {
        let ear = &mut self.ears[channel];
        ear.reopen_at = None;
        ear.listening = true;
        self.outputs.push_back(Output::OpenEngine { channel });
    }

    /// Opening, after another conversation.
    fn open(&mut self, choice: OpenChoice) {
        self.state = State::Opening { choice: choice.clone(), retry_at: None };
        self.outputs.push_back(Output::Disown);
        self.outputs.push_back(Output::Open(choice));
    }

    fn run_timers(&mut self) {
        let now = self.now.mono;
        if self.leaving.is_none() && now >= self.next_ping {
            if now.duration_since(self.last_frame) >= self.limits.client_silent_max {
                return self.close(Close::Inactive);
            }
            self.ping();
        }
        let due = |at: &Option<Instant>| at.is_some_and(|at| now >= at);
        match &mut self.state {
            State::Opening { choice, retry_at } if due(retry_at) => {
                *retry_at = None;
                let choice = choice.clone();
                self.outputs.push_back(Output::Open(choice));
            }
            State::Finalising { reason, retry_at } if due(retry_at) => {
                *retry_at = None;
                let reason = *reason;
                self.outputs.push_back(Output::Finalise(reason));
            }
            State::Live(current)
                if self.leaving.is_none() && now >= current.last_content + self.config.timeout =>
            {
                // While nobody hears whether people speak, silence ends nothing.
                if self.ears.iter().any(Ear::is_troubled) {
                    current.last_content = now;
                } else {
                    self.begin_ending(FinaliseReason::Silence);
                }
            }
            _ => {}
        }
        self.transcript.retry_if_due(now, &mut self.outputs);
        for channel in 0..self.ears.len() {
            let ear = &self.ears[channel];
            if due(&ear.reopen_at) && !ear.is_leaving_audio() {
                self.open_engine(channel);
            }
        }
        self.images.expire(now);
        if self.onboarding.as_ref().and_then(Onboarding::next_check).is_some_and(|at| now >= at) {
            self.with_onboarding(Onboarding::check);
        }
    }

    /// Does all that has become possible: begin a batch, forget covered audio, end a conversation, leave.
    fn advance(&mut self) {
        self.begin_batch();
        self.forget_covered();
        self.advance_ending();
        self.advance_leaving();
    }

    fn ping(&mut self) {
        self.emit(Event::Ping);
        self.next_ping = self.now.mono + self.limits.ping_every;
    }

    fn emit(&mut self, event: Event) {
        if !self.closing {
            self.outputs.push_back(Output::Emit(event));
        }
    }

    fn storage_down(&mut self) {
        if !std::mem::replace(&mut self.storage_degraded, true) {
            self.emit(Event::StorageDegraded);
        }
    }

    fn storage_ok(&mut self) {
        if std::mem::take(&mut self.storage_degraded) {
            self.emit(Event::StorageRecovered);
        }
    }

    /// Seconds of audio heard on this connection.
    fn media_secs(&self) -> f64 {
        let heard = self.ears.iter().map(|ear| ear.heard).max().unwrap_or(0);
        heard as f64 / f64::from(self.config.sample_rate_hz.max(1))
    }

    fn new_segment_id(&mut self) -> SegmentId {
        SegmentId::random(&mut self.entropy)
    }
}
