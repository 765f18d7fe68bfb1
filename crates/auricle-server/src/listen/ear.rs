//! One audio channel of a session: decoding, the engine's stream, and the spool's run.
//!
//! Positions are samples of the connection at the session's rate, from its first audio. A run and a stream may begin later
//! than the connection; both keep the position at which they began.

use auricle_audio::{Codec, Decoder, DecoderError, resample};
use auricle_core::session::{EarState, SttTrouble};
use auricle_core::{Account, ConversationId, UnixMicros, Word};
use auricle_speech::{Engine, Event, Stream, StreamSpec};
use auricle_store::spool::{RunHeader, Spool};
use std::time::Instant;
use tokio::sync::mpsc;

use super::runs::Runs;

/// Engine events of one stream that the session has not taken. Full: the engine waits on its own threads.
const EVENTS_MAX: usize = 64;
/// The rate of each channel of a multi-channel session's streams. Source: listen-protocol 2.3.
pub(super) const MULTI_RATE_HZ: u32 = 16_000;

/// How this connection's audio is to be read.
#[derive(Clone, Debug)]
pub(super) struct AudioFormat {
    pub(super) codec: Codec,
    pub(super) sample_rate_hz: u32,
    pub(super) channels: u8,
    /// Frames begin with a channel byte; each channel is resampled to 16 kHz for its stream.
    pub(super) multi: bool,
}

/// What of a session's identity the spool keeps with the audio.
#[derive(Clone, Debug)]
pub(super) struct RunOwner {
    pub(super) header: RunHeader,
}

struct Listening {
    stream: Box<dyn Stream>,
    events: mpsc::Receiver<Event>,
    /// Position of the stream's first sample.
    zero: u64,
    rate_hz: u32,
}

/// One channel. `heard` counts its samples.
pub(super) struct Ear {
    decoder: Decoder,
    format: AudioFormat,
    listening: Option<Listening>,
    runs: Runs,
    heard: u64,
}

impl Ear {
    pub(super) fn new(format: AudioFormat, account: &Account) -> Result<Self, DecoderError> {
        let decoder = Decoder::new(format.codec, format.sample_rate_hz, format.channels)?;
        let runs = Runs::new(format.sample_rate_hz, account);
        Ok(Self { decoder, format, listening: None, runs, heard: 0 })
    }

    /// Decodes a frame into `pcm` (cleared first). A frame that cannot be decoded is counted and gives no samples.
    pub(super) fn decode(&mut self, frame: &[u8], pcm: &mut Vec<i16>) -> u32 {
        pcm.clear();
        if self.decoder.decode(frame, pcm).is_err() {
            pcm.clear();
            metrics::counter!("auricle_frames_dropped_total", "reason" => "undecodable").increment(1);
        }
        u32::try_from(pcm.len()).unwrap_or(u32::MAX)
    }

    /// Hands a decoded frame to the engine and its bytes to the spool. True if audio was left to repair.
    pub(super) fn hear(&mut self, frame: &[u8], pcm: &[i16], scratch: &mut Vec<i16>) -> bool {
        let samples = u32::try_from(pcm.len()).unwrap_or(u32::MAX);
        self.heard += u64::from(samples);
        let taken = match &mut self.listening {
            // Repair's: it is spooled apart from what a stream hears.
            None => false,
            Some(listening) if listening.rate_hz == self.format.sample_rate_hz => listening.stream.push(pcm),
            Some(listening) => {
                scratch.clear();
                resample::repeat_decimate(pcm, self.format.sample_rate_hz, listening.rate_hz, scratch);
                listening.stream.push(scratch)
            }
        };
        self.runs.append(frame, samples, taken)
    }

    /// Opens the engine's stream for what is heard from now on.
    pub(super) fn listen(&mut self, engine: &dyn Engine, language: &str, label: &str) -> EarState {
        let rate_hz = if self.format.multi { MULTI_RATE_HZ } else { self.format.sample_rate_hz };
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let spec = StreamSpec {
            sample_rate_hz: rate_hz,
            language: language.to_owned(),
            label: label.to_owned(),
            // Users have no vocabulary yet; the engines add what is configured.
            key_terms: Vec::new(),
        };
        match engine.open(spec, sender) {
            Ok(stream) => {
                self.listening = Some(Listening { stream, events, zero: self.heard, rate_hz });
                EarState::Opened
            }
            Err(error) => EarState::Failed(error.to_string()),
        }
    }

    pub(super) fn flush(&mut self) {
        if let Some(listening) = &mut self.listening {
            listening.stream.flush();
        }
    }

    /// No more audio. False if there is no stream that would answer with `Finished`.
    pub(super) fn finish(&mut self) -> bool {
        match &mut self.listening {
            Some(listening) => {
                listening.stream.finish();
                true
            }
            None => false,
        }
    }

    /// The next thing the engine says, on the connection's own clock.
    pub(super) fn poll_event(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Heard> {
        let Some(listening) = &mut self.listening else { return std::task::Poll::Pending };
        let Some(event) = std::task::ready!(listening.events.poll_recv(cx)) else {
            self.listening = None;
            return std::task::Poll::Ready(Heard::State(EarState::Failed(
                "the speech engine stopped".into(),
            )));
        };
        let (zero, from_rate, to_rate) = (listening.zero, listening.rate_hz, self.format.sample_rate_hz);
        let position = |sample: u64| zero + sample * u64::from(to_rate) / u64::from(from_rate);
        std::task::Poll::Ready(match event {
            Event::Words(mut words) => {
                let zero_secs = zero as f64 / f64::from(to_rate);
                for word in &mut words {
                    word.start += zero_secs;
                    word.end += zero_secs;
                }
                Heard::Words(words)
            }
            Event::Covered { until_sample } => Heard::Covered(position(until_sample)),
            Event::Busy { .. } => Heard::State(EarState::Busy),
            Event::Resumed => Heard::State(EarState::Listening),
            Event::Degraded { engine, reason, silent_for, next } => {
                Heard::State(EarState::Degraded(SttTrouble { engine, reason, silent_for, next }))
            }
            Event::Recovered { .. } => Heard::State(EarState::Listening),
            Event::Serving { engine } => Heard::State(EarState::Serving(engine)),
            Event::Skipped { samples, .. } => {
                metrics::counter!("auricle_audio_skipped_samples_total").increment(samples);
                // The spool has it in a run of its own, which is already left to repair.
                return self.poll_event(cx);
            }
            Event::Failed(error) => {
                self.listening = None;
                Heard::State(EarState::Failed(error.to_string()))
            }
            Event::Finished => {
                self.listening = None;
                Heard::State(EarState::Finished)
            }
        })
    }

    /// Begins to spool for `conversation`, with what was heard since the last run ended.
    ///
    /// `zero_at`: wall-clock time of the connection's first sample.
    pub(super) fn begin_run(
        &mut self,
        spool: &Spool,
        owner: &RunOwner,
        conversation: &ConversationId,
        zero_at: UnixMicros,
    ) {
        self.runs.begin(spool, &owner.header, conversation, zero_at);
    }

    /// Whether a run was begun after audio had been given a time.
    pub(super) fn has_run(&self) -> bool {
        self.runs.has_owner()
    }

    /// Audio before `until` is not needed any more.
    pub(super) fn forget(&mut self, until: u64) {
        self.runs.forget(until);
    }

    /// What is heard from here on is spooled in a run of its own. True if anything is left to repair.
    pub(super) fn split_run(&mut self) -> bool {
        self.runs.split()
    }

    /// What is heard from here on is spooled for another conversation; see [`Runs::leave`] and [`Ear::begin_run`].
    pub(super) fn disown_run(&mut self) -> bool {
        self.runs.disown()
    }

    /// Leaves ended runs that begin before `until` to repair. True if anything is left.
    pub(super) fn leave_run(&mut self, until: u64) -> bool {
        self.runs.leave(until)
    }

    /// Writes out what has waited long enough; says when to call again at the latest.
    pub(super) fn flush_run(&mut self, now: Instant) -> Option<Instant> {
        self.runs.flush(now)
    }
}

/// What an engine says, on the connection's clock.
pub(super) enum Heard {
    Words(Vec<Word>),
    Covered(u64),
    State(EarState),
}
