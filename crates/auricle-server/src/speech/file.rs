//! A whole file through an engine, as fast as the engine decides it. Holds no more than some seconds of audio.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use auricle_audio::file::FileError;
use auricle_audio::recording::Recording;
use auricle_core::Word;
use auricle_speech::{Engine, EngineError, Event, Stream, StreamSpec};
use tokio::sync::mpsc;

use super::AHEAD_SECS;

/// Stretches of samples read ahead of the engine.
const CHUNKS_MAX: usize = 2;
/// Events that wait.
const EVENTS_MAX: usize = 64;

/// What was said.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Heard {
    /// Times are seconds from the file's first sample.
    pub(crate) utterances: Vec<Vec<Word>>,
    /// Seconds of audio.
    pub(crate) secs: f64,
    /// Which engine of the chain heard it; the last, if one took over from another.
    pub(crate) engine: Option<&'static str>,
}

/// Why a file was not heard to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HearError {
    #[error("{0}")]
    File(#[from] FileError),
    #[error("the speech engine: {0}")]
    Engine(#[from] EngineError),
    #[error("the speech engine made no progress for {0:?}")]
    Stuck(Duration),
}

/// How far a file is.
#[derive(Debug, Default)]
pub(crate) struct Progress(AtomicU64);

impl Progress {
    /// Seconds of audio that are decided.
    pub(crate) fn secs(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64 / 1_000.0
    }

    pub(crate) fn set(&self, secs: f64) {
        self.0.store((secs * 1_000.0) as u64, Ordering::Relaxed);
    }
}

/// What can be heard: mono PCM, a little at a time. Reading blocks.
pub(crate) trait Pcm: Send {
    /// Appends the next stretch, a second at most, to `out`. False at the end.
    ///
    /// # Errors
    /// The rest cannot be read. What was given before is good.
    fn read(&mut self, out: &mut Vec<i16>) -> Result<bool, FileError>;
}

impl Pcm for Recording {
    fn read(&mut self, out: &mut Vec<i16>) -> Result<bool, FileError> {
        Self::read(self, out)
    }
}

impl Pcm for Box<dyn Pcm> {
    fn read(&mut self, out: &mut Vec<i16>) -> Result<bool, FileError> {
        (**self).read(out)
    }
}

/// Hears what `open` opens. Dropping the future ends the reading and abandons the engine's stream.
///
/// # Errors
/// What was decided before is lost: the caller has the file still.
pub(crate) async fn hear<P: Pcm>(
    engine: &dyn Engine,
    spec: StreamSpec,
    open: impl FnOnce() -> Result<P, FileError> + Send + 'static,
    stuck_max: Duration,
    progress: &Progress,
) -> Result<Heard, HearError> {
    let (sender, mut chunks) = mpsc::channel(CHUNKS_MAX);
    // Reading and decoding block; a receiver that is gone ends them.
    tokio::task::spawn_blocking(move || read(open, &sender));
    let rate = f64::from(spec.sample_rate_hz);
    let ahead = AHEAD_SECS * u64::from(spec.sample_rate_hz);
    let (events, mut inbox) = mpsc::channel(EVENTS_MAX);
    let mut stream: Option<Box<dyn Stream>> = None;
    let (mut given, mut covered, mut ended) = (0_u64, 0_u64, false);
    let mut heard = Heard::default();
    let mut deadline = tokio::time::Instant::now() + stuck_max;
    loop {
        let wants = !ended && given < covered + ahead;
        tokio::select! {
            biased;
            event = inbox.recv(), if stream.is_some() => {
                deadline = tokio::time::Instant::now() + stuck_max;
                match event {
                    Some(Event::Words(words)) => heard.utterances.push(words),
                    Some(Event::Covered { until_sample }) => {
                        covered = covered.max(until_sample);
                        progress.set(covered as f64 / rate);
                    }
                    Some(Event::Finished) => return Ok(heard),
                    Some(Event::Failed(error)) => return Err(error.into()),
                    Some(Event::Skipped { .. }) => {
                        return Err(EngineError::Broken("it could not keep up".into()).into());
                    }
                    Some(Event::Serving { engine }) => heard.engine = Some(engine),
                    Some(
                        Event::Interim(_) | Event::Busy { .. } | Event::Resumed | Event::Degraded { .. } | Event::Recovered { .. },
                    ) => {}
                    None => return Err(EngineError::Broken("it stopped".into()).into()),
                }
            }
            chunk = chunks.recv(), if wants => {
                deadline = tokio::time::Instant::now() + stuck_max;
                match chunk {
                    Some(chunk) => {
                        let pcm: Vec<i16> = chunk?;
                        let stream = match &mut stream {
                            Some(stream) => stream,
                            none => none.insert(engine.open(spec.clone(), events.clone())?),
                        };
                        stream.push(&pcm);
                        given += pcm.len() as u64;
                        heard.secs = given as f64 / rate;
                    }
                    None => match &mut stream {
                        Some(stream) => {
                            ended = true;
                            stream.finish();
                        }
                        None => return Ok(heard),
                    },
                }
            }
            () = tokio::time::sleep_until(deadline) => return Err(HearError::Stuck(stuck_max)),
        }
    }
}

fn read<P: Pcm>(
    open: impl FnOnce() -> Result<P, FileError>,
    sender: &mpsc::Sender<Result<Vec<i16>, FileError>>,
) {
    let mut recording = match open() {
        Ok(recording) => recording,
        Err(error) => return drop(sender.blocking_send(Err(error))),
    };
    loop {
        let mut pcm = Vec::new();
        let more = recording.read(&mut pcm);
        let over = !matches!(more, Ok(true));
        let sent = match more {
            Err(error) => sender.blocking_send(Err(error)),
            Ok(_) if pcm.is_empty() => Ok(()),
            Ok(_) => sender.blocking_send(Ok(pcm)),
        };
        if over || sent.is_err() {
            return;
        }
    }
}
