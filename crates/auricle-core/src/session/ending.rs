//! How a conversation ends, and how a session leaves.

use std::time::Instant;

use crate::conversation::FinaliseReason;

use super::{Close, Ear, Ended, Event, FinaliseOnClose, OpenChoice, Output, Session, State};

/// A conversation that waits for the words of audio already heard.
#[derive(Debug)]
pub(super) struct Ending {
    reason: FinaliseReason,
    /// For each channel, the audio heard when the ending began.
    marks: Vec<u64>,
    /// The same as seconds of media: words from here on belong to the next conversation.
    pub(super) mark_secs: f64,
    /// When undecided audio is left to repair instead.
    pub(super) deadline: Instant,
}

/// A session whose client is gone or is being closed.
#[derive(Debug)]
pub(super) struct Leaving {
    finalise: bool,
    /// When the engine is no longer waited for; after as long again, nor is the store.
    pub(super) deadline: Instant,
}

impl Session {
    /// Live => Ending. Nothing to wait for without an engine.
    pub(super) fn begin_ending(&mut self, reason: FinaliseReason) {
        let State::Live(current) = std::mem::replace(&mut self.state, State::Over) else {
            unreachable!("only a live conversation ends");
        };
        let reason = match reason {
            FinaliseReason::Requested => reason,
            _ => self.noted_reason.unwrap_or(reason),
        };
        let marks: Vec<u64> = self.ears.iter().map(|ear| ear.heard).collect();
        let waits = self.config.engine && self.ears.iter().any(|ear| !ear.has_decided(ear.heard));
        if waits && self.leaving.is_none() {
            self.outputs.push_back(Output::FlushEngine);
        }
        self.end_runs();
        // Client transcripts may run ahead of the audio: all that has come belongs to this conversation.
        let mark_secs = if self.config.engine { self.media_secs() } else { f64::INFINITY };
        let deadline = self.now.mono + self.limits.engine_flush_max;
        self.state = State::Ending(current, Ending { reason, marks, mark_secs, deadline });
    }

    pub(super) fn advance_ending(&mut self) {
        let State::Ending(current, ending) = &self.state else { return };
        let decided = !self.config.engine
            || self.ears.iter().zip(&ending.marks).all(|(ear, mark)| ear.has_decided(*mark));
        if (!decided && self.now.mono < ending.deadline)
            || self.transcript.holds_before(ending.mark_secs)
            || self.photos_uncommitted > 0
        {
            return;
        }
        let (reason, empty) = (ending.reason, !current.has_content);
        let mut audio_waits = self.left_from.is_some_and(|from| from < ending.mark_secs);
        for (channel, (ear, mark)) in self.ears.iter_mut().zip(&ending.marks).enumerate() {
            if !ear.finished && ear.covered.max(ear.floor) < *mark {
                ear.floor = *mark;
                audio_waits = true;
                self.outputs.push_back(Output::LeaveRun { channel, until_sample: *mark });
            }
        }
        // What goes on unheard is the next conversation's.
        self.left_from = self.ears.iter().any(Ear::is_troubled).then_some(ending.mark_secs);
        if audio_waits && empty {
            // L32: nothing is in it because nobody could hear. Whoever ends what nobody owns waits for repair.
            self.outputs.push_back(Output::Disown);
            self.outputs.push_back(Output::Release);
            self.state = State::Finalising { reason, retry_at: None };
            return self.on_finalised(Ended::Already);
        }
        // Ending => Finalising: all that could be heard in time is durable.
        self.state = State::Finalising { reason, retry_at: None };
        self.outputs.push_back(Output::Finalise(reason));
    }

    pub(super) fn on_finalised(&mut self, ended: Ended) {
        if !matches!(self.state, State::Finalising { .. }) {
            return;
        }
        self.storage_ok();
        self.noted_reason = None;
        if let Ended::Queued { conversation, .. } = &ended {
            self.emit(Event::ProcessingStarted { conversation: conversation.clone() });
        }
        self.answer_finalise(ended);
        if self.leaving.is_some() {
            self.outputs.push_back(Output::Disown);
            self.be_over();
        } else {
            self.open(OpenChoice::New);
        }
    }

    pub(super) fn on_finalise_failed(&mut self) {
        let retry = self.now.mono + self.limits.store_retry_every;
        if let State::Finalising { retry_at, .. } = &mut self.state {
            *retry_at = Some(retry);
            self.storage_down();
        }
    }

    pub(super) fn on_finalise_now(&mut self, reason: FinaliseReason) {
        self.finalise_waiting = true;
        match &self.state {
            State::Live(_) => self.begin_ending(reason),
            State::Detached | State::Over => self.answer_finalise(Ended::Already),
            State::Opening { .. } | State::Ending(..) | State::Finalising { .. } => {}
        }
    }

    pub(super) fn on_client_closed(&mut self, code: Option<u16>) {
        let finalise = match self.config.finalise_on_close {
            FinaliseOnClose::Never => false,
            FinaliseOnClose::Normal => code == Some(1000),
            FinaliseOnClose::Always => true,
        };
        self.leave(finalise);
    }

    /// Closes the client's connection from our side and leaves.
    pub(super) fn close(&mut self, close: Close) {
        if std::mem::replace(&mut self.closing, true) || self.leaving.is_some() {
            return;
        }
        self.outputs.push_back(Output::Close(close));
        let finalise = self.config.finalise_on_close == FinaliseOnClose::Always && close != Close::Restarting;
        self.leave(finalise);
    }

    fn leave(&mut self, finalise: bool) {
        if self.leaving.is_some() {
            return;
        }
        self.closing = true;
        self.leaving = Some(Leaving { finalise, deadline: self.now.mono + self.limits.engine_drain_max });
        if self.config.engine {
            self.outputs.push_back(Output::FinishEngine);
        }
        for ear in &mut self.ears {
            ear.finished |= ear.reopen_at.take().is_some() || ear.heard == 0;
        }
    }

    pub(super) fn advance_leaving(&mut self) {
        let Some(leaving) = &self.leaving else { return };
        let late = self.now.mono >= leaving.deadline;
        let drained = !self.config.engine || late || self.ears.iter().all(|ear| ear.finished);
        match &self.state {
            State::Live(_) if drained && self.transcript.is_empty() && self.photos_uncommitted == 0 => {
                if leaving.finalise {
                    self.begin_ending(FinaliseReason::ConnectionEnded);
                    self.advance_ending();
                } else {
                    // Live => Over: the conversation waits for a reconnect or the sweeper.
                    self.outputs.push_back(Output::Release);
                    self.be_over();
                }
            }
            // The store has been unable to take the words for too long: engine audio stays in the spool, and repair
            // brings the words back; the lease frees the conversation. What the store still has to answer is waited for.
            State::Live(_)
            | State::Opening { .. }
            | State::Ending(..)
            | State::Finalising { retry_at: Some(_), .. }
                if self.now.mono >= leaving.deadline + self.limits.engine_drain_max
                    && !self.transcript.waits_for_answer() =>
            {
                self.leave_words();
                self.outputs.push_back(Output::Release);
                self.be_over();
            }
            State::Detached if drained => self.be_over(),
            _ => {}
        }
    }

    /// Over, with whatever is undecided left to repair.
    pub(super) fn be_over(&mut self) {
        self.forget_covered();
        for channel in 0..self.ears.len() {
            self.outputs.push_back(Output::EndRun { channel });
            self.outputs.push_back(Output::LeaveRun { channel, until_sample: u64::MAX });
        }
        self.answer_finalise(Ended::Already);
        self.state = State::Over;
    }

    pub(super) fn answer_finalise(&mut self, ended: Ended) {
        if std::mem::take(&mut self.finalise_waiting) {
            self.outputs.push_back(Output::FinaliseAnswer(ended));
        }
    }
}
