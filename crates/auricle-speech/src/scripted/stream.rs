//! A stream's place in the script.
//!
//! [`Place`] is a machine without I/O: it is told how much audio came and asked what to say. [`ScriptedStream`] carries
//! what it says to the session.

use std::sync::Arc;
use std::time::Duration;

use auricle_core::Word;

use super::Trouble;
use super::script::Script;
use crate::engine::{EngineError, Event, EventSender, Stream, StreamSpec};
use crate::outlet::Outlet;

/// Events that may wait when a stream finishes whose session has taken none. Full: the stream fails instead.
const UNTAKEN_MAX: usize = 256;

/// Where a stream is. Positions are samples at its rate.
struct Place {
    script: Arc<Script>,
    rate_hz: f64,
    delay: u64,
    fail_at: Option<u64>,
    hang_at: Option<u64>,
    busy: Option<(u64, u64)>,
    is_busy: bool,
    pushed: u64,
    /// Everything before this is to be decided now.
    flushed: u64,
    /// The utterance that comes next, over all rounds, and how many of its words a flush has said.
    next: usize,
    said_of_next: usize,
    /// Words that may still change are told, and how many of the next utterance were last.
    interim: Option<usize>,
    covered: u64,
    /// To be told after words.
    cover_next: Option<u64>,
    finishing: bool,
    over: bool,
}

impl Place {
    /// The next thing to say, if there is one yet.
    fn poll(&mut self) -> Option<Event> {
        if self.over {
            return None;
        }
        if self.fail_at.is_some_and(|at| self.pushed >= at) {
            self.over = true;
            let text = "the scripted engine was told to fail here".to_owned();
            return Some(Event::Failed(EngineError::Broken(text)));
        }
        if self.hang_at.is_some_and(|at| self.pushed >= at) {
            return None;
        }
        let busy =
            self.busy.is_some_and(|(from, until)| (from..until).contains(&self.pushed)) && !self.finishing;
        if busy != std::mem::replace(&mut self.is_busy, busy) {
            return Some(if busy { Event::Busy { waiting: Duration::ZERO } } else { Event::Resumed });
        }
        if busy {
            return None;
        }
        self.decide()
    }

    fn decide(&mut self) -> Option<Event> {
        if let Some(until) = self.cover_next.take()
            && let Some(event) = self.cover(until, 1)
        {
            return Some(event);
        }
        if let Some((_, end)) = self.next_utterance()
            && (self.pushed >= end + self.delay || self.flushed >= end)
        {
            self.cover_next = Some(end);
            return self.words_until(end);
        }
        if self.covered < self.flushed {
            self.cover_next = Some(self.flushed);
            return self.words_until(self.flushed).or_else(|| self.decide());
        }
        if self.finishing {
            self.over = true;
            return Some(Event::Finished);
        }
        if let Some(words) = self.interim_words() {
            return Some(Event::Interim(words));
        }
        let silent = self.pushed.saturating_sub(self.delay);
        let until = self.next_utterance().map_or(silent, |(start, _)| silent.min(start));
        self.cover(until, self.rate_hz as u64)
    }

    /// First and last position of the next utterance, or of what a flush has left of it.
    fn next_utterance(&self) -> Option<(u64, u64)> {
        let (words, added) = self.script.utterance(self.next)?;
        let first = words.get(self.said_of_next)?;
        Some((self.position(first.start + added), self.position(words.last()?.end + added)))
    }

    /// The words of the next utterance that have passed, if those are more than were told.
    fn interim_words(&mut self) -> Option<Vec<Word>> {
        let told = self.interim?;
        let (words, added) = self.script.utterance(self.next)?;
        let heard = self.pushed.saturating_sub(self.delay);
        let passed = words.iter().take_while(|word| self.position(word.end + added) <= heard).count();
        let words = words.get(self.said_of_next..passed).filter(|_| passed > told)?;
        let moved = |word: &Word| Word { start: word.start + added, end: word.end + added, ..word.clone() };
        let words = words.iter().map(moved).collect();
        self.interim = Some(passed);
        Some(words)
    }

    /// The words of the next utterance that end by `until`. If those are all, the next utterance comes.
    fn words_until(&mut self, until: u64) -> Option<Event> {
        let (words, added) = self.script.utterance(self.next)?;
        let rest = &words[self.said_of_next..];
        let passed = rest.iter().take_while(|word| self.position(word.end + added) <= until).count();
        let mut said = rest[..passed].to_vec();
        for word in &mut said {
            word.start += added;
            word.end += added;
        }
        (self.next, self.said_of_next) =
            if passed == rest.len() { (self.next + 1, 0) } else { (self.next, self.said_of_next + passed) };
        self.interim = self.interim.map(|_| self.said_of_next);
        (!said.is_empty()).then_some(Event::Words(said))
    }

    fn cover(&mut self, until: u64, step: u64) -> Option<Event> {
        if until < self.covered + step {
            return None;
        }
        self.covered = until;
        Some(Event::Covered { until_sample: until })
    }

    fn position(&self, secs: f64) -> u64 {
        (secs * self.rate_hz) as u64
    }

    /// The next position at which there may be something to say. Looking too early does no harm.
    fn look_at(&self) -> u64 {
        let marks = [self.fail_at, self.hang_at, self.busy.map(|busy| busy.0), self.busy.map(|busy| busy.1)];
        let mark = marks.into_iter().flatten().filter(|&at| at > self.pushed).min().unwrap_or(u64::MAX);
        let end = self.next_utterance().map_or(u64::MAX, |(_, end)| end + self.delay);
        let quarter = self.pushed + self.rate_hz as u64 / 4;
        quarter.min(end).min(mark).max(self.pushed + 1)
    }
}

/// One stream. A push that passes nothing of the script costs a comparison.
pub(super) struct ScriptedStream {
    place: Place,
    /// None once the stream has finished.
    outlet: Option<Outlet>,
    /// The position at which the place is asked again.
    next_at: u64,
}

impl ScriptedStream {
    pub(super) fn new(
        script: Arc<Script>,
        trouble: &Trouble,
        spec: &StreamSpec,
        events: EventSender,
    ) -> Self {
        let rate_hz = spec.sample_rate_hz;
        let samples = |time: Duration| (time.as_secs_f64() * f64::from(rate_hz)) as u64;
        let place = Place {
            script,
            rate_hz: f64::from(rate_hz),
            delay: samples(trouble.delay),
            fail_at: trouble.fail_after.map(samples),
            hang_at: trouble.hang_after.map(samples),
            busy: trouble.busy.map(|(from, until)| (samples(from), samples(until))),
            is_busy: false,
            pushed: 0,
            flushed: 0,
            next: 0,
            said_of_next: 0,
            interim: spec.interim.then_some(0),
            covered: 0,
            cover_next: None,
            finishing: false,
            over: false,
        };
        Self { place, outlet: Some(Outlet::new(events)), next_at: 0 }
    }

    /// Says what there is to say while no more than `waiting_max` events wait for the session.
    fn say(&mut self, waiting_max: usize) {
        let Some(outlet) = &mut self.outlet else { return };
        outlet.flush();
        while outlet.waiting() <= waiting_max {
            let Some(event) = self.place.poll() else {
                self.next_at = self.place.look_at();
                return;
            };
            outlet.send(event);
        }
        self.next_at = 0;
    }
}

impl Stream for ScriptedStream {
    fn push(&mut self, pcm: &[i16]) -> bool {
        self.place.pushed += pcm.len() as u64;
        if self.place.pushed >= self.next_at {
            self.say(0);
        }
        true
    }

    fn flush(&mut self) {
        self.place.flushed = self.place.pushed;
        self.say(0);
    }

    fn finish(&mut self) {
        self.place.flushed = self.place.pushed;
        self.place.finishing = true;
        self.say(UNTAKEN_MAX);
        let Some(mut outlet) = self.outlet.take() else { return };
        if outlet.waiting() > UNTAKEN_MAX {
            metrics::counter!("auricle_speech_failures_total", "reason" => "session_slow").increment(1);
            outlet.send(Event::Failed(EngineError::Broken("the session did not take its events".to_owned())));
        }
        // No push follows that would deliver the rest. A stream that hangs keeps its channel, so that it is not taken for
        // one that ended.
        if outlet.waiting() == 0 && !self.place.over {
            self.outlet = Some(outlet);
        } else {
            outlet.drain_later();
        }
    }
}
