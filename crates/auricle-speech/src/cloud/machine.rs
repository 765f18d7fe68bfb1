//! Decides what a stream's connection sends and what comes of what it hears. Knows neither sockets nor clocks.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use auricle_core::Word;

use super::backlog::{Backlog, Next};
use super::refusal::broken;
use super::timeline::Timeline;
use super::{Adapter, Close, Outgoing, Refusal, Said};
use crate::outlet::queue;
use crate::{EngineError, Event};

/// Bounds of a cloud engine's streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudNumbers {
    /// Audio of one stream that the connection has not taken, in seconds (`limits.engine_backlog_secs_max`). Full: what comes
    /// is skipped and told.
    pub backlog_secs_max: u32,
    /// Until a connection is open (`limits.engine_connect_max`). Full: the stream fails.
    pub connect_max: Duration,
    /// A connection on which nothing is heard for this long, or which takes nothing, is dead (`limits.engine_silent_max`):
    /// the stream fails. It is pinged three times in that.
    pub silent_max: Duration,
    /// After the last of its audio a service may take this long for the last words (`limits.engine_drain_max`). Full: the
    /// stream fails.
    pub finish_max: Duration,
}

impl Default for CloudNumbers {
    fn default() -> Self {
        Self {
            backlog_secs_max: 60,
            connect_max: Duration::from_secs(10),
            silent_max: Duration::from_secs(30),
            finish_max: Duration::from_secs(30),
        }
    }
}

/// What the engines that are services have in common.
#[derive(Clone, Debug, Default)]
pub struct CloudConfig {
    /// Bounds.
    pub numbers: CloudNumbers,
    /// Words to expect in every stream, behind those of its user.
    pub key_terms: Vec<String>,
}

/// Audio goes out once there is this much. Source: listen-protocol 2.3.
pub(super) const LEAST: Duration = Duration::from_millis(30);
/// One message holds no more than this.
const MOST: Duration = Duration::from_millis(250);
/// Audio may run this far ahead of [`super::Pace::speed_max`].
const BURST_SECS: f64 = 5.0;
/// A service that has answered a ping behind a flush and says nothing about it for this long had nothing left to say.
const FLUSH_QUIET: Duration = Duration::from_secs(1);
/// ... if no more than this is undecided: a service may keep what is too short for a word to itself, and no more.
const FLUSH_REST_SECS: f64 = 1.0;
/// What is this near to a flush is at it.
const FLUSH_NEAR_SECS: f64 = 0.1;
/// One connection's pings in `silent_max`.
const PINGS: u32 = 3;

/// At least one.
pub(super) fn samples(time: Duration, rate_hz: u32) -> usize {
    ((time.as_secs_f64() * f64::from(rate_hz)) as usize).max(1)
}

/// What a connection heard.
#[derive(Debug)]
pub(super) enum Incoming {
    Text(String),
    /// A pong, a ping, or a message of a kind that services do not send.
    Life,
    /// It has ended.
    Closed(Option<Close>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Open { since: Instant },
    Over,
}

struct Flush {
    /// Samples sent before it.
    upto: u64,
    /// When the ping behind it was answered.
    answered: Option<Instant>,
}

pub(super) struct Machine {
    engine: &'static str,
    adapter: Box<dyn Adapter>,
    numbers: CloudNumbers,
    rate_hz: f64,
    timeline: Timeline,
    state: State,
    events: VecDeque<Event>,
    /// Goes out before any audio.
    control: VecDeque<Outgoing>,
    said: Vec<Said>,
    /// The session was told words that may still change, and nothing since.
    interim: bool,
    sent: u64,
    covered: u64,
    flush: Option<Flush>,
    finishing: Option<Instant>,
    heard_at: Instant,
    pinged_at: Instant,
    audio_at: Instant,
}

impl Machine {
    pub(super) fn new(
        engine: &'static str,
        adapter: Box<dyn Adapter>,
        numbers: CloudNumbers,
        rate_hz: u32,
        now: Instant,
    ) -> Self {
        Self {
            engine,
            adapter,
            numbers,
            rate_hz: f64::from(rate_hz.max(1)),
            timeline: Timeline::new(rate_hz),
            state: State::Connecting,
            events: VecDeque::new(),
            control: VecDeque::new(),
            said: Vec::new(),
            interim: false,
            sent: 0,
            covered: 0,
            flush: None,
            finishing: None,
            heard_at: now,
            pinged_at: now,
            audio_at: now,
        }
    }

    pub(super) fn adapter(&self) -> &dyn Adapter {
        &*self.adapter
    }

    /// The connection is open.
    pub(super) fn connected(&mut self, now: Instant) {
        self.state = State::Open { since: now };
        (self.heard_at, self.pinged_at, self.audio_at) = (now, now, now);
        self.control.extend(self.adapter.begin().map(Outgoing::Text));
    }

    /// The upgrade was answered by something else.
    pub(super) fn refused(&mut self, refusal: &Refusal) {
        self.fail("refused", self.adapter.on_refusal(refusal));
    }

    /// The stream ends. `reason` is for the metrics.
    pub(super) fn fail(&mut self, reason: &'static str, error: EngineError) {
        if self.state == State::Over {
            return;
        }
        metrics::counter!("auricle_cloud_failures_total", "engine" => self.engine, "reason" => reason)
            .increment(1);
        tracing::debug!(engine = self.engine, reason, %error, "a cloud stream failed");
        self.end(Event::Failed(error));
    }

    fn end(&mut self, last: Event) {
        self.state = State::Over;
        self.control.clear();
        self.events.push_back(last);
    }

    /// Takes in what the connection heard.
    pub(super) fn heard(&mut self, incoming: Incoming, now: Instant) {
        if self.state == State::Over {
            return;
        }
        self.heard_at = now;
        match incoming {
            Incoming::Text(text) => {
                let mut said = std::mem::take(&mut self.said);
                let read = self.adapter.on_text(&text, &mut said);
                self.take_in(&mut said);
                self.said = said;
                if let Err(error) = read {
                    self.fail("said", error);
                }
            }
            Incoming::Life => {
                if let Some(flush) = &mut self.flush {
                    flush.answered.get_or_insert(now);
                }
            }
            Incoming::Closed(close) => {
                match self.adapter.on_close(close.as_ref(), self.finishing.is_some()) {
                    Ok(()) => self.end(Event::Finished),
                    Err(error) => self.fail("closed", error),
                }
            }
        }
    }

    fn take_in(&mut self, said: &mut Vec<Said>) {
        for said in said.drain(..) {
            if self.state == State::Over {
                continue;
            }
            match said {
                Said::Words(mut words) => {
                    self.place(&mut words);
                    if !words.is_empty() {
                        self.interim = false;
                        queue(&mut self.events, Event::Words(words));
                    }
                }
                Said::Interim(mut words) => {
                    self.place(&mut words);
                    let was = std::mem::replace(&mut self.interim, !words.is_empty());
                    if was || self.interim {
                        queue(&mut self.events, Event::Interim(words));
                    }
                }
                Said::Covered(secs) => {
                    let sent = self.timeline.sent(secs, self.sent);
                    let near = (FLUSH_NEAR_SECS * self.rate_hz) as u64;
                    match &self.flush {
                        Some(flush) if sent + near >= flush.upto => self.flushed(),
                        _ => {}
                    }
                    self.cover(sent);
                }
                Said::Flushed => self.flushed(),
                // Unasked it means nothing.
                Said::Finished if self.finishing.is_some() => self.end(Event::Finished),
                Said::Finished => {}
            }
        }
    }

    /// On the stream's clock.
    fn place(&self, words: &mut [Word]) {
        for word in words {
            word.start = self.timeline.secs(word.start, self.sent);
            word.end = self.timeline.secs(word.end, self.sent).max(word.start);
        }
    }

    fn flushed(&mut self) {
        if let Some(flush) = self.flush.take() {
            self.cover(flush.upto);
        }
    }

    fn cover(&mut self, sent: u64) {
        let until_sample = self.timeline.end(sent);
        if until_sample <= self.covered || self.state == State::Over {
            return;
        }
        self.covered = until_sample;
        self.timeline.forget(sent);
        queue(&mut self.events, Event::Covered { until_sample });
    }

    /// The next message, once the one before has been written.
    pub(super) fn next(&mut self, backlog: &mut Backlog, now: Instant) -> Option<Outgoing> {
        self.tell_skips(backlog);
        let State::Open { since } = self.state else { return None };
        if let Some(message) = self.control.pop_front() {
            return Some(message);
        }
        if !self.adapter.is_ready() || self.finishing.is_some() {
            return None;
        }
        if self.paced_until(since).is_some_and(|at| now < at) {
            return None;
        }
        let rate_hz = self.rate_hz as u32;
        match backlog.take(samples(LEAST, rate_hz), samples(MOST, rate_hz)) {
            Next::Audio { bytes, samples } => {
                self.sent += samples;
                self.audio_at = now;
                self.adapter.on_audio_sent();
                Some(Outgoing::Audio(bytes))
            }
            Next::Flush => {
                self.flush = Some(Flush { upto: self.sent, answered: None });
                self.control.push_back(Outgoing::Ping);
                self.pinged_at = now;
                Some(Outgoing::Text(self.adapter.flush(self.sent as f64 / self.rate_hz)))
            }
            Next::Finish => {
                self.finishing = Some(now);
                Some(Outgoing::Text(self.adapter.finish()))
            }
            Next::Nothing => None,
        }
    }

    fn tell_skips(&mut self, backlog: &mut Backlog) {
        while let Some(skip) = backlog.take_skip() {
            metrics::counter!("auricle_cloud_skipped_samples_total", "engine" => self.engine)
                .increment(skip.gap.samples);
            if self.state == State::Over {
                continue;
            }
            let known = self.timeline.add(skip.gap);
            self.events.push_back(Event::Skipped { from_sample: skip.from, samples: skip.gap.samples });
            if !known {
                self.fail("slow", broken(self.engine, "takes audio more slowly than it comes"));
            }
        }
    }

    /// When more audio may be sent, of a service that wants no bursts.
    fn paced_until(&self, open_since: Instant) -> Option<Instant> {
        let speed = self.adapter.pace().speed_max?;
        let ahead = self.sent as f64 / self.rate_hz - BURST_SECS;
        (ahead > 0.0).then(|| open_since + Duration::from_secs_f64(ahead / speed))
    }

    /// Does what is due.
    ///
    /// `reading`: the connection is being read, so that its silence means something.
    pub(super) fn on_time(&mut self, now: Instant, reading: bool) {
        let State::Open { .. } = self.state else { return };
        if !reading {
            self.heard_at = now;
        }
        if now >= self.heard_at + self.numbers.silent_max {
            let what = format!("has said nothing for {:?}", self.numbers.silent_max);
            return self.fail("silent", broken(self.engine, &what));
        }
        if self.finishing.is_some_and(|since| now >= since + self.numbers.finish_max) {
            let what = format!("did not say the last words within {:?}", self.numbers.finish_max);
            return self.fail("unfinished", broken(self.engine, &what));
        }
        if now >= self.pinged_at + self.numbers.silent_max / PINGS {
            self.pinged_at = now;
            self.control.push_back(Outgoing::Ping);
        }
        if now >= self.audio_at + self.adapter.pace().keep_alive_every && self.finishing.is_none() {
            self.audio_at = now;
            if self.adapter.is_ready() {
                self.control.extend(self.adapter.keep_alive().map(|text| Outgoing::Text(text.to_owned())));
            }
        }
        if let Some(Flush { upto, answered: Some(at) }) = self.flush
            && now >= at + FLUSH_QUIET
        {
            self.flush = None;
            let rest = self.timeline.end(upto).saturating_sub(self.covered) as f64 / self.rate_hz;
            if rest <= FLUSH_REST_SECS {
                self.cover(upto);
            }
        }
    }

    /// When [`Machine::on_time`] is due, or [`Machine::next`] has something by the mere passing of time.
    pub(super) fn wake(&self, now: Instant) -> Option<Instant> {
        let State::Open { since } = self.state else { return None };
        let silent = self.heard_at + self.numbers.silent_max;
        let ping = self.pinged_at + self.numbers.silent_max / PINGS;
        let keep = self.finishing.is_none().then(|| self.audio_at + self.adapter.pace().keep_alive_every);
        let finish = self.finishing.map(|at| at + self.numbers.finish_max);
        let flush = self.flush.as_ref().and_then(|flush| flush.answered).map(|at| at + FLUSH_QUIET);
        // A time of pacing that has passed is no reason to wake.
        let paced = self.paced_until(since).filter(|at| *at > now);
        [Some(silent), Some(ping), keep, finish, flush, paced].into_iter().flatten().min()
    }

    /// What the session is to be told next.
    pub(super) fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(super) fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    /// Nothing more is to be sent or heard.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }
}

#[cfg(test)]
#[path = "machine/tests.rs"]
mod tests;
