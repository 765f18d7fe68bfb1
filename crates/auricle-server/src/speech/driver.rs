//! Drives one stream of `/v1/listen`: socket to engines, what engines decide back to the socket.
//!
//! Bounded by not reading: one message is taken in small steps, none is read while an engine is behind, and nothing is queued for
//! a caller that does not read. On a session worker, so each step is short.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use auricle_audio::incoming::{Encoding, Format, Incoming, IncomingError, OPUS_RATE_HZ};
use auricle_audio::resample::Resampler;
use auricle_audio::vad::{self, Endpointer, EndpointerConfig, VadEvent};
use auricle_speech::{Event, Stream, StreamSpec};
use auricle_wire::deepgram::{self, Control, ListenQuery, Message as Told, ModelInfo, ResultsMetadata};
use auricle_wire::time::WireTime;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::teller::{Manner, Teller};
use super::{AHEAD_SECS, Speech};
use crate::hub::{Command, Membership};

/// Bytes of one message that are decoded in one step; an Opus packet is taken whole.
const STEP_BYTES: usize = 3_200;
/// Seconds of audio that are given to the engines in one step: a part of a millisecond of work.
const STEP_SECS: f64 = 0.1;
/// Events of one channel's engine that wait.
const EVENTS_MAX: usize = 64;
/// Rates that engines take.
const ENGINE_RATES_HZ: std::ops::RangeInclusive<u32> = 8_000..=48_000;
/// Used for audio outside of them.
const USUAL_RATE_HZ: u32 = 16_000;
/// How long a closed socket is read on, so that the close frame is not lost with the connection.
const LINGER: Duration = Duration::from_secs(2);

/// One channel.
struct Lane {
    stream: Box<dyn Stream>,
    events: mpsc::Receiver<Event>,
    teller: Teller,
    /// Where audio has a rate that no engine takes.
    resampler: Option<Resampler>,
    rate_hz: u32,
    /// Samples given to the engine, and of them those that are decided.
    given: u64,
    covered: u64,
    finished: bool,
    voices: Option<Voices>,
}

impl Lane {
    fn secs(&self, samples: u64) -> f64 {
        samples as f64 / f64::from(self.rate_hz)
    }

    fn is_ahead(&self) -> bool {
        self.given > self.covered + AHEAD_SECS * u64::from(self.rate_hz)
    }
}

/// Hears where speech begins, for callers that want to know.
struct Voices {
    resampler: Resampler,
    endpointer: Endpointer,
    pcm: Vec<i16>,
    events: Vec<VadEvent>,
}

/// Why a stream ends.
enum End {
    /// The caller closed, or is gone: nothing more can be told.
    Gone,
    /// Everything is told.
    Done { code: u16, reason: &'static str },
    /// It cannot go on.
    Failed { code: u16, variant: &'static str, text: String },
}

enum Woken {
    Message(Option<Result<Message, axum::Error>>),
    Event(usize, Option<Event>),
    Command(Option<Command>),
    Step,
    Timer,
}

/// One stream.
pub(super) struct Driver {
    speech: Arc<Speech>,
    query: ListenQuery,
    socket: WebSocket,
    request: String,
    member: Membership,
    commands: mpsc::Receiver<Command>,
    incoming: Incoming,
    lanes: Vec<Lane>,
    format: Option<Format>,
    /// Of the last message, what is still to be taken.
    pending: Bytes,
    digest: Sha256,
    /// No more audio is taken; with the code that follows the last words.
    closing: Option<(u16, &'static str)>,
    /// The last audio or sign of life.
    heard_at: Instant,
    /// The last thing that an engine said, or audio that it was given.
    moved_at: Instant,
    /// Decoded audio, interleaved, and how much of it the engines have.
    pcm: Vec<i16>,
    given: usize,
    told: Vec<Told>,
}

impl Driver {
    pub(super) fn new(
        speech: Arc<Speech>,
        query: ListenQuery,
        socket: WebSocket,
        request: String,
        member: Membership,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let encoding = match query.encoding {
            None => Encoding::Container,
            Some(deepgram::Encoding::Linear16) => Encoding::Linear16,
            Some(deepgram::Encoding::Mulaw) => Encoding::Mulaw,
            Some(deepgram::Encoding::Alaw) => Encoding::Alaw,
            Some(deepgram::Encoding::Opus) => Encoding::Opus,
        };
        let incoming = Incoming::new(encoding, query.sample_rate.unwrap_or(OPUS_RATE_HZ), query.channels);
        let now = Instant::now();
        Self {
            speech,
            query,
            socket,
            request,
            member,
            commands,
            incoming,
            lanes: Vec::new(),
            format: None,
            pending: Bytes::new(),
            digest: Sha256::new(),
            closing: None,
            heard_at: now,
            moved_at: now,
            pcm: Vec::new(),
            given: 0,
            told: Vec::new(),
        }
    }

    /// Runs it to its end, and says how it ended.
    pub(super) async fn run(mut self) -> &'static str {
        let end = loop {
            if let Err(end) = self.turn().await {
                break end;
            }
        };
        // Its engines have nothing more to do.
        self.lanes.clear();
        self.member.leaves();
        match end {
            End::Gone => "gone",
            End::Done { code, reason } => {
                self.close(code, reason).await;
                "done"
            }
            End::Failed { code, variant, text } => {
                tracing::debug!(code, variant, "end a stream");
                let error = Told::Error {
                    variant: variant.to_owned(),
                    description: text.clone(),
                    message: text.clone(),
                };
                if self.send(&error).await.is_ok() {
                    self.close(code, &format!("{variant}: {text}")).await;
                }
                variant
            }
        }
    }

    async fn turn(&mut self) -> Result<(), End> {
        self.tell().await?;
        match self.next().await {
            Woken::Step => self.step(),
            Woken::Timer => self.timer(),
            Woken::Event(lane, event) => self.event(lane, event),
            Woken::Command(command) => self.command(command),
            Woken::Message(message) => self.message(message),
        }
    }

    /// Whether an engine has as much as it may: nothing is taken until it has decided some of it.
    fn holds(&self) -> bool {
        self.lanes.iter().any(Lane::is_ahead)
    }

    async fn next(&mut self) -> Woken {
        let holds = self.holds();
        let limits = &self.speech.limits;
        let timer = match (holds, self.closing) {
            (true, _) | (_, Some(_)) => self.moved_at + limits.speech_stuck_max,
            _ => self.heard_at + limits.speech_idle_max,
        };
        let has_audio = !self.pending.is_empty() || self.given < self.pcm.len();
        let steps = has_audio && !holds;
        let reads = !has_audio && !holds && self.closing.is_none();
        let lanes = &mut self.lanes;
        let events = std::future::poll_fn(move |context| {
            for (index, lane) in lanes.iter_mut().enumerate().filter(|(_, lane)| !lane.finished) {
                if let Poll::Ready(event) = lane.events.poll_recv(context) {
                    return Poll::Ready((index, event));
                }
            }
            Poll::Pending
        });
        tokio::select! {
            biased;
            command = self.commands.recv() => Woken::Command(command),
            (lane, event) = events => Woken::Event(lane, event),
            () = tokio::task::yield_now(), if steps => Woken::Step,
            message = self.socket.recv(), if reads => Woken::Message(message),
            () = tokio::time::sleep_until(timer) => Woken::Timer,
        }
    }

    fn timer(&self) -> Result<(), End> {
        let limits = &self.speech.limits;
        let now = Instant::now();
        if self.holds() || self.closing.is_some() {
            if now < self.moved_at + limits.speech_stuck_max {
                return Ok(());
            }
            let text = format!("the speech engine made no progress for {:?}", limits.speech_stuck_max);
            return Err(End::Failed { code: 1011, variant: "NET-0000", text });
        }
        if now < self.heard_at + limits.speech_idle_max {
            return Ok(());
        }
        let text = format!(
            "no audio and no KeepAlive came for {:?}; send KeepAlive while there is none",
            limits.speech_idle_max
        );
        Err(End::Failed { code: 1011, variant: "NET-0001", text })
    }

    fn message(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        let message = match message {
            Some(Ok(message)) => message,
            Some(Err(error)) if crate::listen::is_too_large(&error) => {
                let text = format!(
                    "a message exceeds {} bytes; send less audio at once",
                    self.speech.limits.client_message_bytes_max
                );
                return Err(End::Failed { code: 1009, variant: "DATA-0001", text });
            }
            Some(Err(_)) | None => return Err(End::Gone),
        };
        match message {
            Message::Binary(bytes) if bytes.is_empty() => {
                // An old way to say that no audio follows.
                self.finish(1000, "");
                Ok(())
            }
            Message::Binary(bytes) => {
                self.heard_at = Instant::now();
                self.digest.update(&bytes);
                metrics::counter!("auricle_speech_audio_bytes_total").increment(bytes.len() as u64);
                self.pending = bytes;
                Ok(())
            }
            Message::Text(text) => match Control::parse(&text) {
                Some(Control::KeepAlive) => {
                    self.heard_at = Instant::now();
                    Ok(())
                }
                Some(Control::Finalize) => {
                    self.finalize();
                    Ok(())
                }
                Some(Control::CloseStream) => {
                    self.finish(1000, "");
                    Ok(())
                }
                Some(Control::Unknown) => Ok(()),
                None => Err(End::Failed {
                    code: 1008,
                    variant: "DATA-0002",
                    text: "a text message is not a JSON object with a type; send audio as binary messages"
                        .into(),
                }),
            },
            Message::Close(_) => Err(End::Gone),
            Message::Ping(_) | Message::Pong(_) => Ok(()),
        }
    }

    /// Gives the engines the next piece of what is decoded, or decodes the next piece of the message.
    fn step(&mut self) -> Result<(), End> {
        if self.given < self.pcm.len() {
            let pcm = std::mem::take(&mut self.pcm);
            let format = self.incoming.format().unwrap_or(Format { rate_hz: USUAL_RATE_HZ, channels: 1 });
            let frames = ((f64::from(format.rate_hz) * STEP_SECS) as usize).max(1);
            let until = pcm.len().min(self.given + frames * usize::from(format.channels));
            let heard = self.hear(&pcm[self.given..until]);
            (self.given, self.pcm) = (until, pcm);
            return heard;
        }
        // A packet is one only as a whole; it is short.
        let whole = self.incoming.takes_packets(&self.pending);
        let length = if whole { self.pending.len() } else { self.pending.len().min(STEP_BYTES) };
        let piece = self.pending.split_to(length);
        self.pcm.clear();
        self.given = 0;
        self.incoming.push(&piece, &mut self.pcm).map_err(undecodable)
    }

    fn hear(&mut self, interleaved: &[i16]) -> Result<(), End> {
        if interleaved.is_empty() {
            return Ok(());
        }
        self.moved_at = Instant::now();
        let Some(format) = self.incoming.format() else { return Ok(()) };
        if self.format.is_none() {
            self.open(format)?;
        }
        let (channels, apart) = (usize::from(format.channels), self.lanes.len() > 1);
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let frames = interleaved.chunks_exact(channels);
            let mono: Vec<i16> = if apart {
                frames.map(|frame| frame.get(index).copied().unwrap_or(0)).collect()
            } else {
                let mean = |frame: &[i16]| {
                    (frame.iter().map(|s| i32::from(*s)).sum::<i32>() / channels as i32) as i16
                };
                frames.map(mean).collect()
            };
            lane.hear(&mono, &mut self.told);
        }
        Ok(())
    }

    /// Opens an engine for each channel that is heard apart.
    fn open(&mut self, format: Format) -> Result<(), End> {
        let most = self.speech.limits.speech_channels_max;
        let lanes = if self.query.multichannel { format.channels } else { 1 };
        if usize::from(lanes) > most {
            let text = format!("the audio has {lanes} channels, and {most} can be heard apart");
            return Err(End::Failed { code: 1008, variant: "DATA-0000", text });
        }
        self.format = Some(format);
        let rate_hz = if ENGINE_RATES_HZ.contains(&format.rate_hz) { format.rate_hz } else { USUAL_RATE_HZ };
        for index in 0..lanes {
            let (sender, events) = mpsc::channel(EVENTS_MAX);
            let spec = StreamSpec {
                sample_rate_hz: rate_hz,
                language: self.query.language.clone(),
                label: self.request.clone(),
                key_terms: self.query.key_terms.clone(),
                interim: self.query.interim_results,
            };
            let stream = self.speech.engine.open(spec, sender).map_err(|error| End::Failed {
                code: 1011,
                variant: "ENGINE",
                text: error.to_string(),
            })?;
            self.lanes.push(Lane {
                stream,
                events,
                teller: Teller::new(self.manner([index, lanes])),
                resampler: (rate_hz != format.rate_hz).then(|| Resampler::new(format.rate_hz, rate_hz)),
                rate_hz,
                given: 0,
                covered: 0,
                finished: false,
                voices: self.query.vad_events.then(|| Voices {
                    resampler: Resampler::new(rate_hz, vad::RATE_HZ),
                    endpointer: Endpointer::new(EndpointerConfig::default()),
                    pcm: Vec::new(),
                    events: Vec::new(),
                }),
            });
        }
        Ok(())
    }

    fn model(&self) -> ModelInfo {
        ModelInfo {
            name: self.speech.engine.name().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            arch: self.speech.engine.name().to_owned(),
        }
    }

    fn manner(&self, channel: [u16; 2]) -> Manner {
        Manner {
            channel,
            punctuate: self.query.punctuate,
            diarize: self.query.diarize,
            utterance_end: self.query.utterance_end_ms.map(|ms| f64::from(ms) / 1_000.0),
            metadata: ResultsMetadata {
                request_id: self.request.clone(),
                model_info: self.model(),
                model_uuid: self.speech.engine.name().to_owned(),
            },
        }
    }

    fn finalize(&mut self) {
        for lane in &mut self.lanes {
            lane.stream.flush();
            let heard = lane.secs(lane.given);
            lane.teller.finalize(heard, &mut self.told);
        }
    }

    /// No more audio is taken; what was heard is decided and told, then the socket is closed.
    fn finish(&mut self, code: u16, reason: &'static str) {
        if self.closing.is_none() {
            self.closing = Some((code, reason));
            self.moved_at = Instant::now();
            self.pending = Bytes::new();
            self.pcm.clear();
            self.given = 0;
            for lane in &mut self.lanes {
                lane.stream.finish();
            }
        }
    }

    fn event(&mut self, index: usize, event: Option<Event>) -> Result<(), End> {
        self.moved_at = Instant::now();
        let (lane, told) = (&mut self.lanes[index], &mut self.told);
        let failed = |text: String| Err(End::Failed { code: 1011, variant: "ENGINE", text });
        match event {
            Some(Event::Words(words)) => lane.teller.words(&words, told),
            Some(Event::Interim(words)) => lane.teller.interim(&words, told),
            Some(Event::Covered { until_sample }) => {
                lane.covered = lane.covered.max(until_sample);
                lane.teller.covered(lane.secs(lane.covered), told);
            }
            Some(Event::Finished) => {
                lane.finished = true;
                lane.covered = lane.given;
                let total = lane.secs(lane.given);
                lane.teller.finished(total, told);
            }
            Some(Event::Failed(error)) => return failed(error.to_string()),
            Some(Event::Skipped { samples, .. }) => {
                metrics::counter!("auricle_speech_skipped_samples_total").increment(samples);
            }
            // Deepgram's protocol has no words for which engine hears, or for waiting.
            Some(
                Event::Busy { .. }
                | Event::Resumed
                | Event::Degraded { .. }
                | Event::Recovered { .. }
                | Event::Serving { .. },
            ) => {}
            None => return failed("the speech engine stopped".into()),
        }
        Ok(())
    }

    fn command(&mut self, command: Option<Command>) -> Result<(), End> {
        match command {
            Some(Command::Drain) => {
                self.finish(1012, "the server is shutting down; connect again");
                Ok(())
            }
            Some(Command::Dismiss) | None => Err(End::Done { code: 1008, reason: "user deleted" }),
            // Of conversations, of which this has none: whoever asked is answered by the dropped sender.
            Some(
                Command::Finalise { .. }
                | Command::Superseded { .. }
                | Command::Deliver { .. }
                | Command::Reassigned(_),
            ) => Ok(()),
        }
    }

    /// Sends what is to be told, and ends the stream once everything is.
    async fn tell(&mut self) -> Result<(), End> {
        for message in std::mem::take(&mut self.told) {
            self.send(&message).await?;
        }
        let Some((code, reason)) = self.closing else { return Ok(()) };
        if self.lanes.iter().any(|lane| !lane.finished) {
            return Ok(());
        }
        let metadata = self.metadata();
        self.send(&metadata).await?;
        Err(End::Done { code, reason })
    }

    fn metadata(&mut self) -> Told {
        let model = self.model();
        Told::Metadata {
            transaction_key: "deprecated".into(),
            request_id: self.request.clone(),
            sha256: lower_hex(&std::mem::take(&mut self.digest).finalize()),
            created: WireTime(self.speech.clock.wall().0).to_string(),
            duration: self.lanes.iter().map(|lane| lane.secs(lane.given)).fold(0.0, f64::max),
            channels: self.format.map_or(self.query.channels, |format| format.channels),
            models: vec![model.name.clone()],
            model_info: BTreeMap::from([(model.name.clone(), model)]),
        }
    }

    async fn send(&mut self, message: &Told) -> Result<(), End> {
        let text = serde_json::to_string(message).expect("a message is expressible as JSON");
        let sent = self.socket.send(Message::Text(text.into()));
        match tokio::time::timeout(self.speech.limits.speech_write_max, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }

    async fn close(mut self, code: u16, reason: &str) {
        let reason = auricle_wire::close::fitting(reason).into();
        let _ = tokio::time::timeout(LINGER, async {
            if self.socket.send(Message::Close(Some(CloseFrame { code, reason }))).await.is_ok() {
                while let Some(Ok(message)) = self.socket.recv().await {
                    if matches!(message, Message::Close(_)) {
                        break;
                    }
                }
            }
        })
        .await;
    }
}

impl Lane {
    fn hear(&mut self, mono: &[i16], told: &mut Vec<Told>) {
        let mut resampled = Vec::new();
        let pcm = match &mut self.resampler {
            Some(resampler) => {
                resampler.push(mono, &mut resampled);
                &resampled
            }
            None => mono,
        };
        self.stream.push(pcm);
        self.given += pcm.len() as u64;
        let Some(voices) = &mut self.voices else { return };
        voices.pcm.clear();
        voices.resampler.push(pcm, &mut voices.pcm);
        voices.endpointer.push(&voices.pcm, &mut voices.events);
        for event in voices.events.drain(..) {
            if let VadEvent::SpeechStart { at_sample } = event {
                self.teller.speech_started(at_sample as f64 / f64::from(vad::RATE_HZ), told);
            }
        }
    }
}

fn undecodable(error: IncomingError) -> End {
    End::Failed { code: 1008, variant: "DATA-0000", text: error.to_string() }
}

fn lower_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
