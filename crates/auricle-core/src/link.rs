//! One session's link to the pusher as a pure machine.
//!
//! Owns: when to connect, what waits while there is no connection, what is dropped when that is too much, and which requests
//! are still to be answered. Leaves to its driver: sockets, bytes, the process-wide breaker, clocks.
//! Invariants: nothing here is the truth (job rows are): whatever is lost on the link costs a hint or a realtime trigger,
//! never a conversation. Audio and words carry the conversation and the time they were captured in. A frame is forgotten only
//! after [`Input::Sent`]. Every buffer is bounded in bytes or count; each drop is an [`Output::Dropped`].
//!
//! Source: pusher-and-processing 2.1, with its defects mended (L17 to L20, L27, M1, M2, M4, M6).

mod buffers;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::ids::{ConversationId, JobId, PersonId, Revision, SegmentId};
use crate::job::Backoff;
use crate::limits::Limits;
use crate::segment::Segment;
use crate::time::UnixMicros;

use self::buffers::{Audio, Requests, Words};

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// Of forwarded audio.
    pub sample_rate_hz: u32,
    /// Whether anybody wants audio; without, neither audio nor conversation ids are sent.
    pub audio: bool,
    /// Whether a request that an earlier connection sent is sent again. Only where the other side knows by a claim that
    /// somebody has the job: a plain Omi pusher would run it twice (D1, D4).
    pub resend: bool,
}

/// A conversation that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which.
    pub conversation: ConversationId,
    /// In which language.
    pub language: String,
    /// Its job.
    pub job: Option<JobId>,
    /// The job's generation.
    pub revision: Revision,
}

/// One frame towards the pusher.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// 100.
    Heartbeat,
    /// 101: PCM16 of one stretch without a gap.
    Audio {
        /// Time of its first sample.
        at: UnixMicros,
        /// Samples.
        pcm: Vec<i16>,
    },
    /// 102.
    Transcript {
        /// Of which conversation.
        conversation: ConversationId,
        /// As stored.
        segments: Vec<Segment>,
    },
    /// 103.
    Conversation(ConversationId),
    /// 104.
    Process(Request),
    /// 105.
    SpeakerSample {
        /// Whose voice.
        person: PersonId,
        /// Where it was heard.
        conversation: ConversationId,
        /// In which segments.
        segments: Vec<SegmentId>,
    },
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The connection that was asked for is there.
    Connected,
    /// It could not be made.
    ConnectFailed,
    /// The breaker let nobody through.
    Rejected {
        /// When it is worth asking again; `None` while somebody else probes.
        retry_at: Option<Instant>,
    },
    /// The connection is gone.
    Closed,
    /// The other side sent something, a pong included.
    Heard,
    /// The last frame is written.
    Sent,
    /// The pusher answered a request.
    Answered(ConversationId),
    /// Audio of a conversation.
    Audio {
        /// Which.
        conversation: ConversationId,
        /// Time of the first sample.
        at: UnixMicros,
        /// Samples.
        pcm: Vec<i16>,
    },
    /// Words that were stored.
    Transcript {
        /// In which conversation.
        conversation: ConversationId,
        /// Which.
        segments: Vec<Segment>,
    },
    /// A conversation ended.
    Process(Request),
    /// Somebody was named.
    SpeakerSample {
        /// Whose voice.
        person: PersonId,
        /// Where it was heard.
        conversation: ConversationId,
        /// In which segments.
        segments: Vec<SegmentId>,
    },
    /// The session is over: send what waits, if there is a connection, and go.
    Leave,
    /// A timer is due.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Connect; answer with `Connected`, `ConnectFailed` or `Rejected`.
    Connect,
    /// Write one frame; answer with `Sent`. The next comes after that.
    Send(Frame),
    /// Ask for a sign of life (a WebSocket ping).
    Ping,
    /// Drop the connection. No answer.
    Disconnect,
    /// So much was dropped.
    Dropped {
        /// Of what: `audio`, `transcript`, `request` or `speaker_sample`.
        what: &'static str,
        /// Bytes of audio, else pieces.
        amount: u64,
    },
}

/// As people and metrics see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// There is a connection.
    Connected,
    /// It was lost and is tried for.
    Backoff,
    /// Tried for often enough; the next try is a while away.
    Degraded,
    /// One try after a while.
    HalfOpen,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// A try is under way; `attempts` before it failed.
    Connecting {
        attempts: u32,
        probe: bool,
    },
    Connected {
        /// Tries before this one that failed, which count until it has lasted.
        attempts: u32,
        probe: bool,
        since: Instant,
        since_heard: Instant,
        next_heartbeat: Instant,
        next_flush: Instant,
    },
    Waiting {
        attempts: u32,
        until: Instant,
    },
    Degraded {
        until: Instant,
    },
    Over,
}

/// The machine.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    limits: Arc<Limits>,
    entropy: StdRng,
    now: Instant,
    state: State,
    /// When to stop sending what waits.
    leave_by: Option<Instant>,
    audio: Audio,
    words: Words,
    requests: Requests,
    samples: VecDeque<Frame>,
    /// Which conversation this connection's audio belongs to, as announced.
    announced: Option<ConversationId>,
    /// Handed to the driver, not yet known to be written.
    in_flight: Option<(Frame, Instant)>,
    outputs: VecDeque<Output>,
}

impl Link {
    /// A link that begins to connect at once. `seed` feeds jitter.
    pub fn new(config: LinkConfig, limits: Arc<Limits>, seed: [u8; 32], now: Instant) -> Self {
        Self {
            audio: Audio::new(config.sample_rate_hz),
            config,
            limits,
            entropy: StdRng::from_seed(seed),
            now,
            state: State::Connecting { attempts: 0, probe: false },
            leave_by: None,
            words: Words::default(),
            requests: Requests::default(),
            samples: VecDeque::new(),
            announced: None,
            in_flight: None,
            outputs: VecDeque::from([Output::Connect]),
        }
    }

    /// Tells it what happened.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.now = now.max(self.now);
        if matches!(self.state, State::Over) {
            return;
        }
        match input {
            Input::Connected => self.on_connected(),
            Input::ConnectFailed => self.on_failed(),
            Input::Rejected { retry_at } => self.on_rejected(retry_at),
            Input::Closed => self.on_closed(),
            Input::Heard => {
                if let State::Connected { since_heard, .. } = &mut self.state {
                    *since_heard = self.now;
                }
            }
            Input::Sent => {
                if let Some((Frame::Process(request), _)) = self.in_flight.take() {
                    self.requests.sent(&request.conversation, self.now);
                }
            }
            Input::Answered(conversation) => self.requests.answered(&conversation),
            Input::Audio { conversation, at, pcm } if self.config.audio && !pcm.is_empty() => {
                let dropped = self.audio.push(conversation, at, pcm, self.limits.link_audio_bytes_max);
                self.dropped("audio", dropped);
            }
            // Frames that could not be decoded hold nothing, and would be stretches without a bound.
            Input::Audio { .. } => {}
            Input::Transcript { segments, .. } if segments.is_empty() => {}
            Input::Transcript { conversation, segments } => {
                let dropped = self.words.push(conversation, segments, self.limits.link_segments_max);
                self.dropped("transcript", dropped);
            }
            Input::Process(request) => {
                let dropped = self.requests.push(request, self.limits.link_requests_max);
                self.dropped("request", dropped);
            }
            Input::SpeakerSample { person, conversation, segments } => {
                if self.samples.len() >= self.limits.link_samples_max {
                    self.samples.pop_front();
                    self.dropped("speaker_sample", 1);
                }
                self.samples.push_back(Frame::SpeakerSample { person, conversation, segments });
            }
            Input::Leave => {
                self.leave_by.get_or_insert(self.now + self.limits.link_leave_max);
            }
            Input::Tick => {}
        }
        self.run_timers();
        self.send_next();
        self.leave_if_done();
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to send [`Input::Tick`] at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = match self.state {
            State::Connecting { .. } | State::Over => None,
            State::Connected { since_heard, next_heartbeat, next_flush, .. } => {
                let mut soonest = since_heard + self.limits.link_silent_max;
                if let Some((_, handed)) = &self.in_flight {
                    // Nothing else can be sent until it is written: the heartbeat and the batches wait for that.
                    soonest = soonest.min(*handed + self.limits.link_write_max);
                } else {
                    soonest = soonest.min(next_heartbeat);
                    if !(self.audio.is_empty() && self.words.is_empty()) {
                        soonest = soonest.min(next_flush);
                    }
                }
                Some(
                    self.requests
                        .next_timeout(self.limits.link_request_wait)
                        .map_or(soonest, |at| at.min(soonest)),
                )
            }
            State::Waiting { until, .. } | State::Degraded { until } => Some(until),
        };
        match (own, self.leave_by.filter(|_| !self.is_over())) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Its state.
    pub fn state(&self) -> LinkState {
        match self.state {
            State::Connected { .. } => LinkState::Connected,
            State::Connecting { probe: true, .. } => LinkState::HalfOpen,
            State::Connecting { .. } | State::Waiting { .. } => LinkState::Backoff,
            State::Degraded { .. } | State::Over => LinkState::Degraded,
        }
    }

    /// Whether there is nothing more to do.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Bytes of audio that wait.
    pub fn buffered_bytes(&self) -> usize {
        self.audio.bytes()
    }

    fn on_connected(&mut self) {
        let State::Connecting { attempts, probe } = self.state else { return };
        let now = self.now;
        self.state = State::Connected {
            attempts,
            probe,
            since: now,
            since_heard: now,
            next_heartbeat: now + self.limits.link_heartbeat_every,
            next_flush: now,
        };
        self.announced = None;
        self.requests.connected(self.config.resend);
    }

    fn on_failed(&mut self) {
        let State::Connecting { attempts, probe } = self.state else { return };
        self.failed(attempts + 1, probe);
    }

    fn on_rejected(&mut self, retry_at: Option<Instant>) {
        if matches!(self.state, State::Connecting { .. }) {
            let wait =
                retry_at.map(|at| at.saturating_duration_since(self.now)).filter(|wait| !wait.is_zero());
            self.degrade(wait.unwrap_or(self.limits.link_probe_wait));
        }
    }

    /// Later by up to a quarter: what was rejected together is not to come back together.
    fn degrade(&mut self, wait: Duration) {
        let until = self.now + wait.mul_f64(self.entropy.random_range(1.0..=1.25));
        self.state = State::Degraded { until };
    }

    fn on_closed(&mut self) {
        let State::Connected { attempts, probe, since, .. } = self.state else { return };
        self.put_back();
        if self.now >= since + self.limits.link_stable_after {
            self.wait(1);
        } else {
            // To be let in and thrown out at once is no better than not to be let in.
            self.failed(attempts + 1, probe);
        }
    }

    fn failed(&mut self, attempts: u32, probe: bool) {
        if probe || attempts >= self.limits.link_attempts_max {
            self.degrade(self.limits.link_degraded_for);
        } else {
            self.wait(attempts);
        }
    }

    fn wait(&mut self, attempts: u32) {
        let backoff = Backoff { first: self.limits.link_backoff_first, max: self.limits.link_backoff_max };
        let until = self.now + backoff.delay(attempts, &mut self.entropy);
        self.state = State::Waiting { attempts, until };
    }

    /// What the lost connection was given last may not have arrived.
    fn put_back(&mut self) {
        match self.in_flight.take() {
            Some((Frame::Audio { at, pcm }, _)) => {
                let conversation = self.announced.clone();
                if let Some(conversation) = conversation {
                    let dropped =
                        self.audio.put_back(conversation, at, pcm, self.limits.link_audio_bytes_max);
                    self.dropped("audio", dropped);
                }
            }
            Some((Frame::Transcript { conversation, segments }, _)) => {
                let dropped = self.words.put_back(conversation, segments, self.limits.link_segments_max);
                self.dropped("transcript", dropped);
            }
            Some((Frame::Process(request), _)) => self.requests.put_back(&request.conversation),
            Some((Frame::SpeakerSample { .. }, _)) if self.samples.len() >= self.limits.link_samples_max => {
                self.dropped("speaker_sample", 1);
            }
            Some((sample @ Frame::SpeakerSample { .. }, _)) => self.samples.push_front(sample),
            Some((Frame::Heartbeat | Frame::Conversation(_), _)) | None => {}
        }
    }

    fn run_timers(&mut self) {
        let now = self.now;
        match &mut self.state {
            State::Connected { since_heard, next_heartbeat, .. } => {
                let stuck =
                    self.in_flight.as_ref().is_some_and(|(_, at)| now >= *at + self.limits.link_write_max);
                if stuck || now >= *since_heard + self.limits.link_silent_max {
                    // A connection that takes nothing, or says nothing, is none (L1).
                    self.outputs.push_back(Output::Disconnect);
                    return self.on_closed();
                }
                if now >= *next_heartbeat && self.in_flight.is_none() {
                    *next_heartbeat = now + self.limits.link_heartbeat_every;
                    self.outputs.push_back(Output::Ping);
                    self.send(Frame::Heartbeat);
                }
            }
            State::Waiting { attempts, until } if now >= *until => {
                let attempts = *attempts;
                self.connect(attempts, false);
            }
            State::Degraded { until } if now >= *until => self.connect(0, true),
            _ => {}
        }
        if matches!(self.state, State::Connected { .. }) {
            let tries = if self.config.resend { self.limits.link_request_tries_max } else { 1 };
            let gone = self.requests.expire(now, self.limits.link_request_wait, tries);
            self.dropped("request", gone);
        }
    }

    fn connect(&mut self, attempts: u32, probe: bool) {
        self.state = State::Connecting { attempts, probe };
        self.outputs.push_back(Output::Connect);
    }

    fn send(&mut self, frame: Frame) {
        self.in_flight = Some((frame.clone(), self.now));
        self.outputs.push_back(Output::Send(frame));
    }

    /// Requests first: somebody waits for them. Then names, then words and audio in batches.
    fn send_next(&mut self) {
        let State::Connected { next_flush, .. } = self.state else { return };
        if self.in_flight.is_some() {
            return;
        }
        if let Some(request) = self.requests.next() {
            return self.send(Frame::Process(request));
        }
        if let Some(sample) = self.samples.pop_front() {
            return self.send(sample);
        }
        if self.now < next_flush && self.leave_by.is_none() {
            return;
        }
        if let Some((conversation, segments)) = self.words.next(self.limits.link_frame_bytes_max) {
            return self.send(Frame::Transcript { conversation, segments });
        }
        match self.audio.next_conversation() {
            Some(conversation) if self.announced.as_ref() != Some(conversation) => {
                let conversation = conversation.clone();
                self.announced = Some(conversation.clone());
                return self.send(Frame::Conversation(conversation));
            }
            Some(_) => {
                if let Some((at, pcm)) = self.audio.next(self.limits.link_frame_bytes_max) {
                    return self.send(Frame::Audio { at, pcm });
                }
            }
            None => {}
        }
        if let State::Connected { next_flush, .. } = &mut self.state {
            *next_flush = self.now + self.limits.link_flush_every;
        }
    }

    fn leave_if_done(&mut self) {
        let Some(leave_by) = self.leave_by else { return };
        let sent = self.in_flight.is_none()
            && self.audio.is_empty()
            && self.words.is_empty()
            && self.samples.is_empty()
            && !self.requests.any_to_send();
        if sent || self.now >= leave_by || matches!(self.state, State::Degraded { .. }) {
            self.put_back();
            let (audio, words) = (self.audio.bytes() as u64, self.words.count());
            let (samples, requests) = (self.samples.len() as u64, self.requests.to_send());
            self.dropped("audio", audio);
            self.dropped("transcript", words);
            self.dropped("speaker_sample", samples);
            self.dropped("request", requests);
            self.outputs.push_back(Output::Disconnect);
            self.state = State::Over;
        }
    }

    fn dropped(&mut self, what: &'static str, amount: u64) {
        if amount > 0 {
            self.outputs.push_back(Output::Dropped { what, amount });
        }
    }
}

#[cfg(test)]
mod tests;
