//! The question flow of a first conversation. Source: listen-protocol 3.5.
//!
//! Without a model an answer counts when it has at least two words, as upstream does when its model fails.

use std::time::{Duration, Instant};

use crate::segment::{Segment, Speaker};

use super::{Event, Session};

/// Six questions, by category: age, location, work, long-term goal, monthly goals, today's plans.
const QUESTIONS: [&str; 6] = [
    "To begin with, how old are you?",
    "Where do you live?",
    "What do you do for work, or what are you studying?",
    "What would you like to have achieved some years from now?",
    "What do you want to get done this month?",
    "And what are your plans for today?",
];
/// An answer is looked at after this long without new words.
const ANSWER_PAUSE: Duration = Duration::from_secs(2);
const ANSWER_WORDS_MIN: usize = 2;
const QUESTION_SPEAKER: &str = "SPEAKER_99";
const QUESTION_PROVIDER: &str = "onboarding";
const WORDS_PER_SEC: f64 = 2.5;
const QUESTION_GAP_SECS: f64 = 0.5;

/// What the flow leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Ask(usize),
    Answered(usize),
    Skipped(usize),
    Complete { answers: usize },
}

#[derive(Debug, Default)]
pub(super) struct Onboarding {
    asked: Option<usize>,
    answers: usize,
    words: usize,
    last_words: Option<Instant>,
}

impl Onboarding {
    /// Asks the first question; a second call changes nothing.
    pub(super) fn start(&mut self, _now: Instant) -> Vec<Step> {
        if self.asked.is_some() {
            return Vec::new();
        }
        self.asked = Some(0);
        vec![Step::Ask(0)]
    }

    pub(super) fn skip(&mut self, _now: Instant) -> Vec<Step> {
        match self.asked {
            Some(index) if index < QUESTIONS.len() => self.go_on(Step::Skipped(index), index),
            _ => Vec::new(),
        }
    }

    pub(super) fn heard(&mut self, now: Instant, segments: &[Segment]) {
        self.words += segments.iter().map(|s| s.text.split_whitespace().count()).sum::<usize>();
        self.last_words = Some(now);
    }

    pub(super) fn next_check(&self) -> Option<Instant> {
        let open = self.asked.is_some_and(|index| index < QUESTIONS.len());
        self.last_words.filter(|_| open && self.words >= ANSWER_WORDS_MIN).map(|at| at + ANSWER_PAUSE)
    }

    pub(super) fn check(&mut self, now: Instant) -> Vec<Step> {
        match (self.asked, self.next_check()) {
            (Some(index), Some(at)) if now >= at => {
                self.answers += 1;
                self.go_on(Step::Answered(index), index)
            }
            _ => Vec::new(),
        }
    }

    fn go_on(&mut self, first: Step, index: usize) -> Vec<Step> {
        self.words = 0;
        self.last_words = None;
        self.asked = Some(index + 1);
        let next = match index + 1 {
            next if next < QUESTIONS.len() => Step::Ask(next),
            _ => Step::Complete { answers: self.answers },
        };
        vec![first, next]
    }
}

impl Session {
    pub(super) fn on_onboarding_step(&mut self, step: Step) {
        match step {
            Step::Ask(index) => {
                let text = QUESTIONS[index];
                let start = self.end_of_media() + QUESTION_GAP_SECS;
                let length = (text.split_whitespace().count() as f64 / WORDS_PER_SEC).max(1.0);
                let segment = Segment {
                    id: self.new_segment_id(),
                    text: text.to_owned(),
                    speaker: Some(Speaker::new(QUESTION_SPEAKER)),
                    is_user: false,
                    person_id: None,
                    start,
                    end: start + length,
                    translations: Vec::new(),
                    speech_profile_processed: true,
                    // Another provider's: no answer is merged into it, and no word of it into an answer.
                    stt_provider: Some(QUESTION_PROVIDER.to_owned()),
                };
                self.emit(Event::OnboardingQuestion { index, total: QUESTIONS.len(), text });
                self.inject(segment);
            }
            Step::Answered(index) => self.emit(Event::QuestionAnswered { index }),
            Step::Skipped(index) => self.emit(Event::QuestionSkipped { index }),
            Step::Complete { answers } => self.emit(Event::OnboardingComplete { answers }),
        }
    }

    /// The end of the last segment in this connection's media time.
    fn end_of_media(&self) -> f64 {
        self.end_of_transcript().max(self.media_secs())
    }
}
