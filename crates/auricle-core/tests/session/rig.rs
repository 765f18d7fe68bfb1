//! A session without a driver: inputs by hand, outputs as they come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use auricle_core::session::{
    Batch, Event, FinaliseOnClose, Input, Now, OpenChoice, OpenedConversation, Output, Session,
    SessionConfig, Voice,
};
use auricle_core::{ConversationId, Limits, Source, UnixMicros, Word};

pub(crate) const RATE_HZ: u32 = 16_000;

/// What most tests listen as.
pub(crate) fn config() -> SessionConfig {
    SessionConfig {
        source: Source::Omi,
        sample_rate_hz: RATE_HZ,
        voices: vec![Voice::Recognised],
        engine: true,
        custom_stt: false,
        timeout: Duration::from_secs(120),
        choice: OpenChoice::Resume,
        finalise_on_close: FinaliseOnClose::Never,
        speaker_auto_assign: false,
        create_speakers: true,
        onboarding: false,
    }
}

/// What the store answers to the first `Open` of a new conversation.
pub(crate) fn opened(conversation: &str, now: Now) -> OpenedConversation {
    OpenedConversation {
        conversation: ConversationId::new(conversation),
        resumed: false,
        started_at: now.wall,
        finished_at: now.wall,
        tail: None,
        has_content: false,
        last_completed: None,
        speakers: Vec::new(),
    }
}

pub(crate) struct Rig {
    pub(crate) session: Session,
    pub(crate) now: Now,
}

impl Rig {
    #[expect(clippy::disallowed_methods, reason = "any instant will do to begin with")]
    pub(crate) fn new(config: SessionConfig, limits: Limits, seed: u8) -> Self {
        let now = Now { mono: Instant::now(), wall: UnixMicros(1_780_000_000_000_000) };
        Self { session: Session::new(config, Arc::new(limits), [seed; 32], now), now }
    }

    pub(crate) fn handle(&mut self, input: Input) {
        self.session.handle(self.now, input);
    }

    pub(crate) fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.session.poll_output()).collect()
    }

    /// Moves both clocks; no timer is told.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now.mono += time;
        self.now.wall = self.now.wall.plus_secs_f64(time.as_secs_f64());
    }

    /// A session whose conversation `c1` has just been opened; what it said until then is gone.
    pub(crate) fn live(config: SessionConfig) -> Self {
        let mut rig = Self::new(config, Limits::default(), 1);
        let opened = opened("c1", rig.now);
        rig.handle(Input::Opened(opened));
        rig.outputs();
        rig
    }

    /// Lets time pass, with every timer told when it is due.
    pub(crate) fn wait(&mut self, time: Duration) {
        let end = self.now.mono + time;
        while let Some((at, _)) = self.session.poll_timeout().filter(|(at, _)| *at <= end) {
            let step = at.saturating_duration_since(self.now.mono);
            self.pass(step);
            self.handle(Input::Tick);
        }
        self.pass(end.saturating_duration_since(self.now.mono));
    }

    /// A client that goes on sending: `secs` of audio in frames of a tenth of a second.
    pub(crate) fn audio(&mut self, channel: usize, secs: u32) {
        for _ in 0..secs * 10 {
            self.wait(Duration::from_millis(100));
            self.handle(Input::Audio { channel, samples: RATE_HZ / 10 });
        }
    }

    /// Words of a second each, from `start` seconds of media.
    pub(crate) fn words(&mut self, channel: usize, start: f64, text: &str) {
        let words = text.split(' ').enumerate().map(|(index, text)| {
            let start = start + index as f64;
            Word { text: text.into(), start, end: start + 1.0, speaker: 0, confidence: None }
        });
        let words = words.collect();
        self.handle(Input::Words { channel, words });
    }

    pub(crate) fn covered(&mut self, channel: usize, secs: u64) {
        self.handle(Input::Covered { channel, until_sample: secs * u64::from(RATE_HZ) });
    }

    /// The outputs so far without pings.
    pub(crate) fn said(&mut self) -> Vec<Output> {
        let outputs = self.outputs().into_iter();
        outputs.filter(|output| *output != Output::Emit(Event::Ping)).collect()
    }

    /// The one batch among the outputs so far.
    pub(crate) fn batch(&mut self) -> Batch {
        let mut batches = self.outputs().into_iter().filter_map(|output| match output {
            Output::Append(batch) => Some(batch),
            _ => None,
        });
        let batch = batches.next().expect("a batch");
        assert_eq!(batches.next(), None, "one batch at a time");
        batch
    }
}

/// What each segment says.
pub(crate) fn texts(batch: &Batch) -> Vec<&str> {
    batch.upsert.iter().map(|segment| segment.text.as_str()).collect()
}
