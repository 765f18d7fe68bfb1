//! `bench sessions --engine NAME`: what a live session costs with that engine, and how long after the end of a word its segment
//! is at the client.
//!
//! `scripted` and `deepgram` hear the same script of one word every two seconds; `deepgram` does so over its real protocol from
//! a stand-in on this machine, so what is measured is our share and not the service's. `pocketsphinx` hears a real recording, and
//! its words end where it says that they end.

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use auricle_audio::{Codec, Encoder};
use auricle_testkit::{Connect, SpeechScript, SpeechStandIn};
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::Instant;

use super::load::Load;
use super::process::{Measured, Server};
use super::{SessionsArgs, WARM_UP, progress, talker};
use crate::output;

/// From one scripted word to the next. Each is an utterance of its own.
const EVERY_SECS: f64 = 2.0;
const FRAME: Duration = Duration::from_millis(20);
const RATE_HZ: u32 = 16_000;
/// Silence between two rounds of a recording, in seconds.
const PAUSE_SECS: f64 = 2.0;
/// Sessions with a recording begin within this time.
const SPREAD: Duration = Duration::from_secs(10);
/// What is louder than this is no silence.
const LOUD: u16 = 500;
/// The recording that is played if none is named.
const RECORDING: &str = "fixtures/two-voices/conversation.wav";

/// Engines that can be measured so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum EngineName {
    Scripted,
    Pocketsphinx,
    Deepgram,
}

impl EngineName {
    fn as_str(self) -> &'static str {
        match self {
            Self::Scripted => "scripted",
            Self::Pocketsphinx => "pocketsphinx",
            Self::Deepgram => "deepgram",
        }
    }
}

/// One engine under the load.
#[derive(Serialize)]
struct Figures {
    engine: &'static str,
    sessions: usize,
    seconds: u64,
    cpu_share_of_a_core: f64,
    cpu_ms_a_session_second: f64,
    /// Ends of words that were timed.
    timed: u64,
    latency_ms_p50: f64,
    latency_ms_p99: f64,
    latency_ms_max: f64,
}

impl Figures {
    fn new(
        engine: EngineName,
        args: &SessionsArgs,
        (before, after): (&Measured, &Measured),
        latency: &Histogram<u64>,
    ) -> Self {
        let cpu = (after.cpu - before.cpu).as_secs_f64();
        let ms = |micros: u64| micros as f64 / 1e3;
        Self {
            engine: engine.as_str(),
            sessions: args.sessions,
            seconds: args.seconds,
            cpu_share_of_a_core: cpu / args.seconds.max(1) as f64,
            cpu_ms_a_session_second: cpu * 1e3 / (args.seconds.max(1) as f64 * args.sessions.max(1) as f64),
            timed: latency.len(),
            latency_ms_p50: ms(latency.value_at_quantile(0.5)),
            latency_ms_p99: ms(latency.value_at_quantile(0.99)),
            latency_ms_max: ms(latency.max()),
        }
    }

    fn show(&self) -> anyhow::Result<()> {
        let row = |what: &str, value: f64| vec![what.to_owned(), format!("{value:.1}")];
        let rows = vec![
            row("CPU, % of a core", self.cpu_share_of_a_core * 100.0),
            row("CPU a session's second, ms", self.cpu_ms_a_session_second),
            row("end of a word to its segment, p50, ms", self.latency_ms_p50),
            row("p99, ms", self.latency_ms_p99),
            row("max, ms", self.latency_ms_max),
        ];
        output::line(&format!(
            "{} sessions with {}, Opus 20 ms at 16 kHz, {} s, {} words timed\n",
            self.sessions, self.engine, self.seconds, self.timed
        ));
        output::line(&output::table(&["", self.engine], rows));
        Ok(())
    }
}

pub(super) fn run(args: &SessionsArgs, engine: EngineName) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let figures = match engine {
        EngineName::Scripted | EngineName::Deepgram => scripted(&runtime, args, engine)?,
        EngineName::Pocketsphinx => recorded(&runtime, args)?,
    };
    if args.json {
        output::json(&figures)?;
    } else {
        figures.show()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Both engines that hear `talker`'s script, whatever the audio is.
fn scripted(
    runtime: &tokio::runtime::Runtime,
    args: &SessionsArgs,
    engine: EngineName,
) -> anyhow::Result<Figures> {
    let words = SpeechScript::Words {
        every_secs: EVERY_SECS,
        first_secs: talker::FIRST_SECS,
        word_secs: talker::WORD_SECS,
    };
    let service = runtime.block_on(SpeechStandIn::start(words))?;
    let server = Server::with_speech("engine", engine.as_str(), |command, folder| {
        room(command, args.sessions);
        if engine == EngineName::Scripted {
            let script = folder.join("script.json");
            std::fs::write(&script, talker::script(EVERY_SECS, 1, None))?;
            command.arg("--speech-script").arg(script);
        }
        // The load is no speech: the gate would keep it from the service.
        command.args(["--speech-gate", "off", "--speech-deepgram-url", &service.url()]);
        command.env("AURICLE_SPEECH_DEEPGRAM_KEY", "of-the-stand-in");
        Ok(())
    })
    .context("start a server")?;
    runtime.block_on(async {
        let bar = progress(args.seconds, engine.as_str());
        let load = Load::start(&server.url, args.sessions, EVERY_SECS, |_| None).await?;
        tokio::time::sleep(WARM_UP).await;
        load.reset();
        let before = server.measured()?;
        for _ in 0..args.seconds {
            tokio::time::sleep(Duration::from_secs(1)).await;
            bar.inc(1);
        }
        let after = server.measured()?;
        let seen = load.stop().await;
        bar.finish_and_clear();
        anyhow::ensure!(seen.dropped == 0, "{} of {} sessions were dropped", seen.dropped, args.sessions);
        Ok(Figures::new(engine, args, (&before, &after), &seen.latency_us))
    })
}

/// An engine that needs speech.
fn recorded(runtime: &tokio::runtime::Runtime, args: &SessionsArgs) -> anyhow::Result<Figures> {
    let engine = EngineName::Pocketsphinx;
    let file = args.audio.as_deref().unwrap_or(Path::new(RECORDING));
    let recording = Arc::new(Recording::read(file)?);
    let server = Server::with_speech("engine", engine.as_str(), |command, _| {
        room(command, args.sessions);
        Ok(())
    })
    .context("start a server")?;
    let base = server.url.split("/v4/").next().unwrap_or_default().to_owned();
    runtime.block_on(async {
        let latency = Arc::new(Mutex::new(Histogram::new_with_bounds(1, 600_000_000, 3)?));
        let players: Vec<_> = (0..args.sessions)
            .map(|index| {
                let id = auricle_core::ids::random_uuid(&mut rand::rng());
                let connect = Connect::new(&base)
                    .param("codec", "opus_fs320")
                    .param("sample_rate", RATE_HZ)
                    .param("language", "en")
                    .param("client_conversation_id", id);
                // So that people do not all pause in the same moment.
                let after = SPREAD.mul_f64(index as f64 / args.sessions.max(1) as f64);
                tokio::spawn(play(connect, Arc::clone(&recording), after, Arc::clone(&latency)))
            })
            .collect();
        tokio::time::sleep(SPREAD + WARM_UP).await;
        let lock = || latency.lock().unwrap_or_else(PoisonError::into_inner);
        lock().reset();
        let before = server.measured()?;
        let bar = progress(args.seconds, engine.as_str());
        for _ in 0..args.seconds {
            tokio::time::sleep(Duration::from_secs(1)).await;
            bar.inc(1);
        }
        let after = server.measured()?;
        bar.finish_and_clear();
        let ended = players.iter().filter(|player| player.is_finished()).count();
        players.iter().for_each(tokio::task::JoinHandle::abort);
        anyhow::ensure!(ended == 0, "{ended} of {} sessions were dropped", args.sessions);
        let latency = lock().clone();
        anyhow::ensure!(!latency.is_empty(), "no word was heard in {} s: measure longer", args.seconds);
        Ok(Figures::new(engine, args, (&before, &after), &latency))
    })
}

fn room(command: &mut std::process::Command, sessions: usize) {
    let (room, connections) = ((sessions + 8).to_string(), (sessions + 64).to_string());
    command.args(["--limits-sessions-max", &room, "--limits-sessions-per-user-max", &room]);
    command.args(["--limits-connections-max", &connections]);
}

/// A recording and a pause behind it.
struct Recording {
    packets: Vec<Vec<u8>>,
    /// Where somebody begins to speak, in seconds: segments count from there.
    onset: f64,
}

impl Recording {
    fn read(file: &Path) -> anyhow::Result<Self> {
        let name = file.display();
        let opened = std::fs::File::open(file).with_context(|| {
            format!("open {name}: name a recording with --audio, or run in the repository")
        })?;
        let mut pcm = auricle_audio::file::read(std::io::BufReader::new(opened), RATE_HZ)
            .with_context(|| format!("read {name}"))?;
        let onset = pcm.iter().position(|sample| sample.unsigned_abs() > LOUD);
        let onset = onset.with_context(|| format!("{name} is silent"))? as f64 / f64::from(RATE_HZ);
        pcm.resize(pcm.len() + (f64::from(RATE_HZ) * PAUSE_SECS) as usize, 0);
        let packets = Encoder::new(Codec::OpusFs320, RATE_HZ)?.encode_all(&pcm)?;
        Ok(Self { packets, onset })
    }
}

/// Talks without end. Ends when the connection does.
async fn play(
    connect: Connect,
    recording: Arc<Recording>,
    after: Duration,
    latency: Arc<Mutex<Histogram<u64>>>,
) {
    tokio::time::sleep(after).await;
    let Ok(mut client) = connect.open().await else { return };
    let (start, mut sent, mut shown) = (Instant::now(), Vec::new(), 0.0_f64);
    loop {
        let due = start + FRAME * u32::try_from(sent.len()).unwrap_or(u32::MAX);
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(due) => {
                let packet = recording.packets[sent.len() % recording.packets.len()].clone();
                sent.push(Instant::now());
                client.send_audio(packet).await;
            }
            received = client.next(Duration::from_secs(3_600)) => {
                let Some(received) = received else { continue };
                if received.is_end() {
                    return;
                }
                let now = Instant::now();
                // The latest word that is shown for the first time.
                let end = received.segments().iter().map(|segment| segment.end).fold(shown, f64::max);
                if end <= shown {
                    continue;
                }
                shown = end;
                let frame = ((recording.onset + end) / FRAME.as_secs_f64()) as usize;
                if let Some(at) = sent.get(frame) {
                    let waited = now.saturating_duration_since(*at).as_micros();
                    let waited = u64::try_from(waited).unwrap_or(u64::MAX);
                    latency.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(waited);
                }
            }
        }
    }
}
