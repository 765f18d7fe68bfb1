//! `auricle stream`: a device, played from files.

mod audio;
mod screen;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use auricle_audio::Codec;
use auricle_speech::wer::WordErrors;
use auricle_wire::conversation::{Conversation, Segment};
use auricle_wire::event::{self, Event, ServerMessage};
use auricle_wire::rest::FinaliseResponse;
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use self::audio::Recording;
use self::screen::Screen;
use crate::client::{Target, block_on, encoded};
use crate::output;

/// Waits between attempts to connect again: the first, and the longest.
const RECONNECT_FIRST: Duration = Duration::from_millis(250);
const RECONNECT_MAX: Duration = Duration::from_secs(5);
/// Attempts to connect again before the command gives up: about two minutes.
const RECONNECTS_MAX: u32 = 30;
/// Silence sent behind the last word, so that it counts as said.
const TAIL_SILENCE: Duration = Duration::from_millis(1_500);
/// How long to wait for last words when nobody waits for the record.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long a record may take.
const RECORD_MAX: Duration = Duration::from_secs(120);

/// Play audio files to a server as a device would.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  auricle stream talk.wav --wait\n  auricle stream call.ogg --codec opus --speed 4 --wait --json"
)]
pub(crate) struct Args {
    /// WAV or Ogg Opus files (or .aac with --codec aac), played one after the other.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    target: Target,
    /// How the audio is sent: pcm8, pcm16, opus, opus_fs320, aac or lc3_fs1030.
    #[arg(long, default_value = "opus_fs320")]
    codec: Codec,
    /// Times real time; 0 is as fast as the server reads.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Hz of the audio sent.
    #[arg(long, default_value_t = 16_000)]
    sample_rate: u32,
    /// Language of the speech.
    #[arg(long, default_value = "en")]
    language: String,
    /// Kind of device, e.g. `omi`, `phone`, `desktop`.
    #[arg(long)]
    source: Option<String>,
    /// Seconds of silence that end a conversation.
    #[arg(long, value_name = "SECS")]
    conversation_timeout: Option<i64>,
    /// End the conversation after the last file and wait for its record.
    #[arg(long)]
    wait: bool,
    /// Print one JSON object at the end instead of text.
    #[arg(long)]
    json: bool,
    /// Write that JSON object to a file as well.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// What is really said (plain text, or a JSON list of objects with `text`): reports how many words are wrong.
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
}

/// What a run found.
#[derive(Default)]
struct Outcome {
    segments: Vec<Segment>,
    places: HashMap<String, usize>,
    conversation_id: Option<String>,
    created: Option<Conversation>,
    connect_ms: Option<u128>,
    first_segment_ms: Option<u128>,
    last_segment_at: Option<Instant>,
    reconnects: u32,
    refused: Option<String>,
}

impl Outcome {
    fn take(&mut self, message: ServerMessage, begun: Instant, now: Instant, screen: &Screen) {
        match message {
            ServerMessage::Segments(segments) => {
                self.first_segment_ms.get_or_insert_with(|| now.duration_since(begun).as_millis());
                self.last_segment_at = Some(now);
                for segment in segments {
                    let next = self.segments.len();
                    let place = *self.places.entry(segment.id.clone()).or_insert(next);
                    match self.segments.get_mut(place) {
                        Some(known) => *known = segment,
                        None => self.segments.push(segment),
                    }
                }
                screen.transcript(&self.segments);
            }
            ServerMessage::Event(Event::SegmentsDeleted { segment_ids }) => {
                self.segments.retain(|segment| !segment_ids.contains(&segment.id));
                self.places = self.segments.iter().enumerate().map(|(at, s)| (s.id.clone(), at)).collect();
            }
            ServerMessage::Event(Event::ConversationSession { conversation_id, .. }) => {
                if self.conversation_id.is_none() {
                    self.conversation_id = Some(conversation_id);
                }
            }
            ServerMessage::Event(Event::MemoryCreated { memory, .. }) => self.created = Some(*memory),
            ServerMessage::Event(Event::MemoryProcessingStarted { .. }) => {
                screen.note("the conversation has ended; making its record")
            }
            ServerMessage::Event(Event::SttDegraded { reason, engine, next, .. }) => {
                let engine = engine.as_deref().unwrap_or("speech recognition");
                let next = next.as_deref().map_or(String::new(), |next| format!("; {next} goes on"));
                screen.note(&format!("{engine}: {reason}{next}"));
            }
            ServerMessage::Event(Event::SttRecovered { .. }) => screen.note("speech recognition goes on"),
            ServerMessage::Event(Event::StorageDegraded) => {
                screen.note("the server cannot store words at the moment; it keeps them")
            }
            ServerMessage::Event(Event::StorageRecovered) => screen.note("the server stores words again"),
            ServerMessage::Event(_) | ServerMessage::Ping => {}
        }
    }
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if !(args.speed >= 0.0 && args.speed.is_finite()) {
        bail!("--speed is {}; it takes a number from 0 (as fast as possible)", args.speed);
    }
    let truth = args.truth.as_deref().map(truth).transpose()?;
    block_on(stream(args, truth.as_deref()))
}

/// The words of a truth file.
fn truth(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    if path.extension().is_none_or(|extension| extension != "json") {
        return Ok(text);
    }
    #[derive(Deserialize)]
    struct Turn {
        text: String,
    }
    let turns: Vec<Turn> = serde_json::from_str(&text)
        .with_context(|| format!("{}: expected a list of objects with `text`", path.display()))?;
    Ok(turns.into_iter().map(|turn| turn.text).collect::<Vec<_>>().join(" "))
}

async fn stream(args: &Args, truth: Option<&str>) -> anyhow::Result<ExitCode> {
    let recording = audio::read(&args.files, args.codec, args.sample_rate, TAIL_SILENCE)?;
    let screen = Screen::new(&recording, args.json);
    let begun = now();
    let mut outcome = Outcome::default();
    let mut socket = Some(connect(args).await?);
    outcome.connect_ms = Some(now().duration_since(begun).as_millis());
    let mut sent = 0;
    let mut pace = Pace::new(args.speed);
    while sent < recording.frames.len() {
        let Some(open) = &mut socket else {
            socket = Some(reconnect(args, &mut outcome, &screen).await?);
            pace = Pace::new(args.speed);
            continue;
        };
        if !step(open, &recording, &mut sent, &mut pace, &mut outcome, begun, &screen).await {
            if let Some(reason) = &outcome.refused {
                bail!("the server refused: {reason}");
            }
            socket = None;
        }
        screen.position(recording.secs_at(sent));
    }
    let audio_ended = now();
    let record = if args.wait {
        finish(args, &mut socket, &mut outcome, begun, &screen).await?
    } else {
        listen_for(socket.as_mut(), LAST_WORDS, &mut outcome, begun, &screen).await;
        None
    };
    if let Some(mut open) = socket {
        let _ = open.close(None).await;
    }
    screen.done(&outcome.segments);
    report(args, &recording, &outcome, record.as_ref(), truth, begun, audio_ended)
}

/// Sends what is due or takes in what has come. False when the connection is gone.
async fn step(
    socket: &mut Socket,
    recording: &Recording,
    sent: &mut usize,
    pace: &mut Pace,
    outcome: &mut Outcome,
    begun: Instant,
    screen: &Screen,
) -> bool {
    let due = pace.due(recording.secs_at(*sent));
    tokio::select! {
        biased;
        message = socket.next() => take(message, socket, outcome, begun, screen).await,
        () = tokio::time::sleep_until(due.into()) => {
            let frame = Bytes::copy_from_slice(&recording.frames[*sent]);
            if socket.send(Message::Binary(frame)).await.is_err() {
                return false;
            }
            *sent += 1;
            true
        }
    }
}

async fn take(
    message: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>,
    socket: &mut Socket,
    outcome: &mut Outcome,
    begun: Instant,
    screen: &Screen,
) -> bool {
    match message {
        Some(Ok(Message::Text(text))) => {
            if let Ok(message) = event::parse(&text) {
                if message == ServerMessage::Ping {
                    return socket.send(Message::Binary(Bytes::from_static(&event::PONG))).await.is_ok();
                }
                outcome.take(message, begun, now(), screen);
            }
            true
        }
        Some(Ok(Message::Close(frame))) => {
            // Refusals by rule do not get better by trying again.
            if let Some(frame) =
                frame.filter(|frame| matches!(u16::from(frame.code), 1008 | 1011 | 4001..=4999))
            {
                outcome.refused = Some(format!("{} (code {})", frame.reason, u16::from(frame.code)));
            }
            false
        }
        Some(Ok(_)) => true,
        Some(Err(_)) | None => false,
    }
}

async fn connect(args: &Args) -> anyhow::Result<Socket> {
    let mut url = format!(
        "{}/v4/listen?codec={}&sample_rate={}&language={}",
        args.target.socket_base(),
        args.codec.as_str(),
        args.sample_rate,
        encoded(&args.language)
    );
    if let Some(source) = &args.source {
        url += &format!("&source={}", encoded(source));
    }
    if let Some(secs) = args.conversation_timeout {
        url += &format!("&conversation_timeout={secs}");
    }
    let mut request = url.as_str().into_client_request().context("the server's address")?;
    if let Some(token) = args.target.token() {
        let value =
            format!("Bearer {token}").parse().context("the token has characters that no header takes")?;
        request.headers_mut().insert("authorization", value);
    }
    let connected = tokio_tungstenite::connect_async(request).await;
    let (socket, _) = connected.with_context(|| {
        format!(
            "cannot connect to {}; start a server with `auricle serve`, or name one with --url",
            args.target.base()
        )
    })?;
    if let tokio_tungstenite::MaybeTlsStream::Plain(stream) = socket.get_ref() {
        let _ = stream.set_nodelay(true);
    }
    Ok(socket)
}

async fn reconnect(args: &Args, outcome: &mut Outcome, screen: &Screen) -> anyhow::Result<Socket> {
    screen.note("the connection dropped; connecting again");
    let mut wait = RECONNECT_FIRST;
    let mut last = None;
    for _ in 0..RECONNECTS_MAX {
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RECONNECT_MAX);
        match connect(args).await {
            Ok(socket) => {
                outcome.reconnects += 1;
                screen.note("connected again; going on where it stopped");
                return Ok(socket);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("cannot connect again")))
}

/// Ends the conversation and waits for its record, from the socket or from the server's answer.
async fn finish(
    args: &Args,
    socket: &mut Option<Socket>,
    outcome: &mut Outcome,
    begun: Instant,
    screen: &Screen,
) -> anyhow::Result<Option<Conversation>> {
    let target = args.target.clone();
    let mut asked = tokio::spawn(async move {
        target.call::<FinaliseResponse>(reqwest::Method::POST, "/v1/conversations", None).await
    });
    let deadline = now() + RECORD_MAX;
    loop {
        tokio::select! {
            answer = &mut asked => {
                let memory = answer?.context("end the conversation")?.map(|answer| answer.memory);
                return settle(args, memory, socket, outcome, deadline, begun, screen).await;
            }
            message = next(socket) => {
                let open = socket.as_mut().expect("a message came from it");
                if !take(message, open, outcome, begun, screen).await {
                    *socket = None;
                }
            }
            () = tokio::time::sleep_until(deadline.into()) => bail!("no record after {RECORD_MAX:?}; see `auricle jobs list`"),
        }
    }
}

/// What the server answered may still be in the making: looks again until it is not.
async fn settle(
    args: &Args,
    memory: Option<Conversation>,
    socket: &mut Option<Socket>,
    outcome: &mut Outcome,
    deadline: Instant,
    begun: Instant,
    screen: &Screen,
) -> anyhow::Result<Option<Conversation>> {
    let Some(mut memory) = memory else { return Ok(None) };
    while memory.status.as_deref() == Some("processing") && now() < deadline {
        listen_for(socket.as_mut(), Duration::from_millis(500), outcome, begun, screen).await;
        memory = args.target.get(&format!("/v1/conversations/{}", encoded(&memory.id))).await?;
    }
    Ok(Some(memory))
}

async fn next(socket: &mut Option<Socket>) -> Option<Result<Message, tokio_tungstenite::tungstenite::Error>> {
    match socket {
        Some(socket) => socket.next().await,
        None => std::future::pending().await,
    }
}

async fn listen_for(
    socket: Option<&mut Socket>,
    time: Duration,
    outcome: &mut Outcome,
    begun: Instant,
    screen: &Screen,
) {
    let Some(socket) = socket else { return tokio::time::sleep(time).await };
    let deadline = tokio::time::Instant::now() + time;
    while let Ok(message) = tokio::time::timeout_at(deadline, socket.next()).await {
        if !take(message, socket, outcome, begun, screen).await {
            return;
        }
    }
}

fn report(
    args: &Args,
    recording: &Recording,
    outcome: &Outcome,
    record: Option<&Conversation>,
    truth: Option<&str>,
    begun: Instant,
    audio_ended: Instant,
) -> anyhow::Result<ExitCode> {
    let since = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(audio_ended).as_millis());
    let errors = truth.map(|spoken| {
        let heard: Vec<&str> = outcome.segments.iter().map(|segment| segment.text.as_str()).collect();
        WordErrors::between(spoken, &heard.join(" "))
    });
    let result = serde_json::json!({
        "conversation": record,
        "conversation_id": record.map(|record| record.id.clone()).or_else(|| outcome.conversation_id.clone()),
        "segments": outcome.segments,
        "word_errors": errors.map(|errors| {
            serde_json::json!({"words": errors.words, "mistakes": errors.mistakes, "rate": errors.rate()})
        }),
        "timings": {
            "audio_secs": recording.secs,
            "connect_ms": outcome.connect_ms,
            "first_segment_ms": outcome.first_segment_ms,
            "last_segment_after_audio_ms": since(outcome.last_segment_at),
            "processed_after_ms": record.map(|_| now().duration_since(audio_ended).as_millis()),
            "total_ms": now().duration_since(begun).as_millis(),
            "reconnects": outcome.reconnects,
        },
    });
    if let Some(path) = &args.save {
        let text = serde_json::to_string_pretty(&result)?;
        std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    }
    if args.json {
        output::json(&result)?;
        return Ok(exit(record));
    }
    if let Some(record) = record {
        output::line("");
        output::line(&output::record(record));
        output::line("");
        output::line(&format!("auricle conversations show {}", record.id));
    } else if args.wait {
        output::line("nothing was heard, so there is no record");
    }
    if let Some(errors) = errors {
        let (wrong, words, rate) = (errors.mistakes, errors.words, errors.rate() * 100.0);
        output::line(&format!("{wrong} of {words} words were heard wrong ({rate:.1} %)"));
    }
    Ok(exit(record))
}

fn exit(record: Option<&Conversation>) -> ExitCode {
    let failed = record.is_some_and(|record| record.status.as_deref() == Some("failed"));
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// When frames are due: real time from the first, or as fast as the server reads.
struct Pace {
    speed: f64,
    zero: Option<(Instant, f64)>,
}

impl Pace {
    fn new(speed: f64) -> Self {
        Self { speed, zero: None }
    }

    fn due(&mut self, secs: f64) -> Instant {
        if self.speed == 0.0 {
            return now();
        }
        let (begun, from) = *self.zero.get_or_insert_with(|| (now(), secs));
        begun + Duration::from_secs_f64(((secs - from) / self.speed).max(0.0))
    }
}

#[expect(clippy::disallowed_methods, reason = "the clock of a program that plays in real time")]
fn now() -> Instant {
    Instant::now()
}
