//! One audio channel of a session: decoding, the engine's stream, and the spool's run.
//!
//! Positions are samples of the connection at the session's rate, from its first audio. A run and a stream may begin later
//! than the connection; both keep the position at which they began.

use auricle_audio::packets::{Frame, PacketFormat, Packets, Receiver};
use auricle_audio::{Codec, DecoderError, resample};
use auricle_core::session::{EarState, SttTrouble};
use auricle_core::{Account, ConversationId, Share, UnixMicros, Word};
use auricle_speech::{Engine, Event, Stream, StreamSpec};
use auricle_store::spool::{RunHeader, Spool};
use std::time::Instant;
use tokio::sync::mpsc;

use super::runs::{Fate, Runs};
use super::takeover::Takeover;

/// Engine events of one stream that the session has not taken. Full: the engine waits on its own threads.
const EVENTS_MAX: usize = 64;
/// Seconds of audio kept in memory while nothing is heard: the next stream hears them again, and repair hears them too. A word whose
/// middle is in their second half is the stream's, another repair's, so that a word of up to a second is heard whole by exactly one
/// of them. Full: the oldest is repair's alone.
const OVERLAP_SECS: usize = 2;
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
    /// While it has not decided more than what it heard again of an outage.
    takeover: Option<Takeover>,
}

/// The last audio, for the next stream.
struct Overlap {
    kept: Packets,
    bytes: Share,
}

impl Overlap {
    fn push(&mut self, frame: &mut Frame<'_>, samples_max: usize) {
        self.kept.push(frame);
        self.kept.forget(self.kept.end().saturating_sub(samples_max as u64));
        self.bytes.set(self.kept.bytes());
    }

    fn clear(&mut self) {
        if self.bytes.bytes() > 0 {
            self.kept.clear();
            self.bytes.set(0);
        }
    }
}

/// One channel. `heard` counts its samples.
pub(super) struct Ear {
    receiver: Receiver,
    /// The frame that [`Ear::hear`] is called with has its samples already.
    decoded: bool,
    format: AudioFormat,
    listening: Option<Listening>,
    runs: Runs,
    heard: u64,
    /// Kept while nothing is heard for sure.
    overlap: Overlap,
    /// Words are late, or no stream has decided anything yet since the last one failed.
    troubled: bool,
    /// The stream has failed, and the session is about to end its run.
    failed: bool,
    /// What follows words that were held back.
    next: Option<Heard>,
}

impl Ear {
    pub(super) fn new(format: AudioFormat, account: &Account) -> Result<Self, DecoderError> {
        let AudioFormat { codec, sample_rate_hz, channels, .. } = format;
        let receiver = Receiver::new(PacketFormat { codec, sample_rate_hz, channels })?;
        let runs = Runs::new(format.sample_rate_hz, account);
        let overlap = Overlap { kept: Packets::default(), bytes: account.share() };
        Ok(Self {
            receiver,
            decoded: false,
            format,
            listening: None,
            runs,
            heard: 0,
            overlap,
            troubled: false,
            failed: false,
            next: None,
        })
    }

    /// How many samples a frame has. They are in `pcm` (cleared first) if anybody hears them: `wanted` by others, or by the
    /// engine's stream; else what nobody hears is not decoded. A frame that cannot be decoded is counted and gives no samples.
    pub(super) fn receive(&mut self, frame: &[u8], wanted: bool, pcm: &mut Vec<i16>) -> u32 {
        pcm.clear();
        let wanted =
            wanted || self.listening.as_ref().is_some_and(|listening| listening.stream.wants_samples());
        let measured = if wanted { None } else { self.receiver.measure(frame) };
        self.decoded = measured.is_none();
        let samples = measured.unwrap_or_else(|| {
            if self.receiver.decode(frame, pcm).is_err() {
                metrics::counter!("auricle_frames_dropped_total", "reason" => "undecodable").increment(1);
            }
            pcm.len()
        });
        u32::try_from(samples).unwrap_or(u32::MAX)
    }

    /// Hands a frame that was received just now to the engine and its bytes to the spool. True if audio was left to repair.
    pub(super) fn hear(
        &mut self,
        frame: &[u8],
        samples: u32,
        pcm: &mut Vec<i16>,
        scratch: &mut Vec<i16>,
    ) -> bool {
        self.heard += u64::from(samples);
        let mut heard = self.receiver.frame(frame, samples as usize, self.decoded, pcm);
        let fate = match &mut self.listening {
            // Repair's: it is spooled apart from what a stream hears.
            None => Fate::Unheard,
            Some(listening) => match listening.push(&mut heard, self.format.sample_rate_hz, scratch) {
                true => Fate::Taken,
                false => Fate::Refused,
            },
        };
        if self.troubled || fate == Fate::Unheard {
            self.overlap.push(&mut heard, OVERLAP_SECS * self.format.sample_rate_hz as usize);
        }
        self.runs.append(frame, samples, fate)
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
            interim: false,
        };
        match engine.open(spec, sender) {
            Ok(stream) => {
                let again =
                    self.overlap.kept.tail((OVERLAP_SECS * self.format.sample_rate_hz as usize) as u64);
                let samples = again.end();
                let zero = self.heard - samples;
                let takeover = (samples > 0).then(|| {
                    let own_from = self.runs.take_over(zero + samples / 2);
                    Takeover::new(own_from, self.heard, self.format.sample_rate_hz)
                });
                let mut listening = Listening { stream, events, zero, rate_hz, takeover };
                if samples > 0 {
                    listening.push_kept(again, self.format.sample_rate_hz);
                }
                self.listening = Some(listening);
                EarState::Opened { from_sample: zero }
            }
            Err(error) => {
                self.fail();
                EarState::Failed(error.to_string())
            }
        }
    }

    fn fail(&mut self) {
        self.listening = None;
        (self.troubled, self.failed) = (true, true);
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
        if let Some(next) = self.next.take() {
            return std::task::Poll::Ready(next);
        }
        let Some(listening) = &mut self.listening else { return std::task::Poll::Pending };
        let Some(event) = std::task::ready!(listening.events.poll_recv(cx)) else {
            self.fail();
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
                if let Some(takeover) = &mut listening.takeover {
                    if !takeover.hears(std::mem::take(&mut words)) {
                        return self.poll_event(cx);
                    }
                    words = self.takes_over();
                }
                self.hears();
                Heard::Words(words)
            }
            Event::Covered { until_sample } => {
                let until = position(until_sample);
                let held = match &listening.takeover {
                    Some(takeover) if !takeover.covers(until) => return self.poll_event(cx),
                    Some(_) => self.takes_over(),
                    None => Vec::new(),
                };
                self.hears();
                if held.is_empty() {
                    Heard::Covered(until)
                } else {
                    self.next = Some(Heard::Covered(until));
                    Heard::Words(held)
                }
            }
            // Not asked for: what may still change is not stored, and so not shown.
            Event::Interim(_) => return self.poll_event(cx),
            Event::Busy { .. } => {
                self.troubled = true;
                Heard::State(EarState::Busy)
            }
            Event::Resumed => Heard::State(EarState::Listening),
            Event::Degraded { engine, reason, silent_for, next } => {
                self.troubled = true;
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
                self.fail();
                Heard::State(EarState::Failed(error.to_string()))
            }
            Event::Finished => {
                let held = self.takes_over();
                self.hears();
                self.listening = None;
                if held.is_empty() {
                    Heard::State(EarState::Finished)
                } else {
                    self.next = Some(Heard::State(EarState::Finished));
                    Heard::Words(held)
                }
            }
        })
    }

    /// The stream has decided something: nothing of what was heard before is for another one.
    fn hears(&mut self) {
        self.troubled = false;
        self.overlap.clear();
    }

    /// The stream has decided more than was heard when it was opened: the words held back until then.
    fn takes_over(&mut self) -> Vec<Word> {
        let takeover = self.listening.as_mut().and_then(|listening| listening.takeover.take());
        let Some((words, from)) = takeover.map(Takeover::decided) else { return Vec::new() };
        self.runs.yields(from);
        words
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
    /// True if that leaves an outage's audio to repair.
    pub(super) fn forget(&mut self, until: u64) -> bool {
        self.runs.forget(until)
    }

    /// What is heard from here on is spooled in a run of its own, unless only the stream failed: an outage is one run. True if
    /// anything is left to repair.
    pub(super) fn split_run(&mut self) -> bool {
        if std::mem::take(&mut self.failed) {
            self.runs.lose();
            return false;
        }
        self.overlap.clear();
        self.runs.split()
    }

    /// What is heard from here on is spooled for another conversation; see [`Runs::leave`] and [`Ear::begin_run`].
    pub(super) fn disown_run(&mut self) -> bool {
        // What was heard so far is the other conversation's.
        self.overlap.clear();
        self.runs.disown()
    }

    /// The conversation ends: an outage's audio is left to repair at once. True if there is any.
    pub(super) fn release_run(&mut self) -> bool {
        self.overlap.clear();
        self.runs.release()
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

impl Listening {
    /// Hands over audio at the session's rate. False if the stream has no room.
    fn push(&mut self, frame: &mut Frame<'_>, from_hz: u32, scratch: &mut Vec<i16>) -> bool {
        if self.rate_hz == from_hz {
            return self.stream.push_frame(frame);
        }
        self.push_samples(frame.pcm(), from_hz, scratch)
    }

    fn push_kept(&mut self, kept: Packets, from_hz: u32) -> bool {
        if self.rate_hz == from_hz {
            return self.stream.push_kept(kept);
        }
        self.push_samples(&kept.pcm(), from_hz, &mut Vec::new())
    }

    fn push_samples(&mut self, pcm: &[i16], from_hz: u32, scratch: &mut Vec<i16>) -> bool {
        if self.rate_hz == from_hz {
            return self.stream.push(pcm);
        }
        scratch.clear();
        resample::repeat_decimate(pcm, from_hz, self.rate_hz, scratch);
        self.stream.push(scratch)
    }
}

/// What an engine says, on the connection's clock.
pub(super) enum Heard {
    Words(Vec<Word>),
    Covered(u64),
    State(EarState),
}
