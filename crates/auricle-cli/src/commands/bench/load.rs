//! The load: N sockets, each sent one pre-encoded Opus frame every 20 ms.
//!
//! One ticker sends for all: sockets are spread over twenty slots of a millisecond, so that frames do not arrive in bursts, and
//! the load costs less than what it measures. Frames are written raw, masked with zero, to spare the client's work. Sessions
//! begin one after the other within the time of one word, so that people do not all speak in the same moment.
//! Each word of `talker`'s script is timed from the sending of the frame that completed it, and what each session was shown is
//! kept for an audit.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use auricle_audio::{Codec, Encoder};
use auricle_wire::event;
use futures_util::StreamExt;
use hdrhistogram::Histogram;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

use super::talker::{self, Ledger};

/// Slots of one frame's time.
const SLOTS: usize = 20;
const SLOT: Duration = Duration::from_millis(1);
const RATE_HZ: u32 = 16_000;
/// A socket's read buffer.
const READ_BYTES: usize = 4_096;
/// Sockets opened at once.
const OPENING_MAX: usize = 32;

/// Turns whose time is remembered: a minute. An answer later than that is not timed right.
const TURNS_KEPT: usize = 65_536;
/// A frame's time in seconds.
const FRAME_SECS: f64 = 0.02;

/// What the load has seen since it was reset.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) frames: u64,
    pub(super) segments: u64,
    pub(super) dropped: u64,
    pub(super) late_us_max: u64,
    /// Microseconds from a word's last frame to its segment.
    pub(super) latency_us: Histogram<u64>,
}

struct Counters {
    /// As the script has it.
    word_every_secs: f64,
    begun: tokio::time::Instant,
    /// When each of the last turns was sent, in microseconds from `begun`.
    sent_us: Vec<AtomicU64>,
    latency_us: Mutex<Histogram<u64>>,
    frames: AtomicU64,
    /// Turns that were sent.
    turns: AtomicU64,
    segments: AtomicU64,
    dropped: AtomicU64,
    late_us_max: AtomicU64,
    stopping: AtomicBool,
}

impl Counters {
    fn new(word_every_secs: f64) -> anyhow::Result<Self> {
        Ok(Self {
            word_every_secs,
            begun: tokio::time::Instant::now(),
            sent_us: (0..TURNS_KEPT).map(|_| AtomicU64::new(0)).collect(),
            latency_us: Mutex::new(Histogram::new_with_bounds(1, 60_000_000, 3)?),
            frames: AtomicU64::new(0),
            turns: AtomicU64::new(0),
            segments: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            late_us_max: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        })
    }

    fn latency(&self) -> std::sync::MutexGuard<'_, Histogram<u64>> {
        self.latency_us.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_us(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    /// `word` came for a session in this place.
    fn word_came(&self, word: usize, place: Place) {
        let frame = talker::completing_frame(word, self.word_every_secs) + place.first_frame;
        let sent = self.sent_us[(frame * SLOTS + place.slot) % TURNS_KEPT].load(Ordering::Relaxed);
        self.latency().saturating_record(self.now_us().saturating_sub(sent));
    }
}

/// When a session's frames are sent.
#[derive(Clone, Copy)]
struct Place {
    /// Of those of a frame's time.
    slot: usize,
    /// Which of the load's frame times is its first.
    first_frame: usize,
}

impl Place {
    /// Spreads sessions evenly over the slots, and over the frame times from one word to the next.
    fn of(index: usize, sessions: usize, word_every_secs: f64) -> Self {
        let frames = (word_every_secs / FRAME_SECS) as usize;
        Self { slot: index % SLOTS, first_frame: index * frames / sessions.max(1) }
    }
}

/// A running load.
pub(super) struct Load {
    counters: Arc<Counters>,
    ledgers: Vec<Arc<Mutex<Ledger>>>,
    places: Vec<Place>,
    ticker: tokio::task::JoinHandle<()>,
    readers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// Opens `sessions`, the n-th with the token that `token` gives for n, against a server whose script has a word every
    /// `word_every_secs`.
    pub(super) async fn start(
        url: &str,
        sessions: usize,
        word_every_secs: f64,
        token: impl Fn(usize) -> Option<String>,
    ) -> anyhow::Result<Self> {
        Self::start_with(url, sessions, word_every_secs, frames()?, token).await
    }

    /// The same with frames as [`encoded`] makes them, which each session is sent from the first on.
    pub(super) async fn start_with(
        url: &str,
        sessions: usize,
        word_every_secs: f64,
        frames: Vec<Vec<u8>>,
        token: impl Fn(usize) -> Option<String>,
    ) -> anyhow::Result<Self> {
        let counters = Arc::new(Counters::new(word_every_secs)?);
        let mut writers: Vec<Vec<(usize, TcpStream)>> = (0..SLOTS).map(|_| Vec::new()).collect();
        let (mut readers, mut ledgers, mut places) = (Vec::new(), Vec::new(), Vec::new());
        let opened = futures_util::stream::iter((0..sessions).map(|index| open(url, token(index))))
            .buffered(OPENING_MAX);
        let opened: Vec<_> = opened.collect().await;
        for (index, socket) in opened.into_iter().enumerate() {
            let (writer, reader) = socket?;
            let place = Place::of(index, sessions, word_every_secs);
            writers[place.slot].push((place.first_frame, writer));
            places.push(place);
            let ledger = Arc::new(Mutex::new(Ledger::default()));
            ledgers.push(Arc::clone(&ledger));
            readers.push(tokio::spawn(read(reader, place, ledger, Arc::clone(&counters))));
        }
        let ticker = tokio::spawn(tick(writers, frames, Arc::clone(&counters)));
        Ok(Self { counters, ledgers, places, ticker, readers })
    }

    /// What each session was shown, in their order.
    pub(super) fn ledgers(&self) -> &[Arc<Mutex<Ledger>>] {
        &self.ledgers
    }

    /// How many frames each session was sent.
    pub(super) fn said(&self) -> Vec<usize> {
        let turns = self.counters.turns.load(Ordering::Relaxed) as usize;
        let frames =
            |place: &Place| ((turns.saturating_sub(place.slot)) / SLOTS).saturating_sub(place.first_frame);
        self.places.iter().map(frames).collect()
    }

    pub(super) fn reset(&self) {
        for counter in [
            &self.counters.frames,
            &self.counters.segments,
            &self.counters.dropped,
            &self.counters.late_us_max,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
        self.counters.latency().reset();
    }

    /// What it has seen since it was reset.
    pub(super) fn seen(&self) -> Seen {
        let counters = &self.counters;
        Seen {
            frames: counters.frames.load(Ordering::Relaxed),
            segments: counters.segments.load(Ordering::Relaxed),
            dropped: counters.dropped.load(Ordering::Relaxed),
            late_us_max: counters.late_us_max.load(Ordering::Relaxed),
            latency_us: counters.latency().clone(),
        }
    }

    pub(super) async fn stop(self) -> Seen {
        let (counters, seen) = (&self.counters, self.seen());
        counters.stopping.store(true, Ordering::Relaxed);
        self.ticker.abort();
        self.readers.iter().for_each(tokio::task::JoinHandle::abort);
        seen
    }
}

type Reader = WebSocketStream<TcpStream>;

/// The session's socket twice: to write raw frames to, and as a WebSocket to read from, which holds what came with the upgrade's
/// answer. The server pings by text alone, so that nothing else is written.
async fn open(url: &str, token: Option<String>) -> anyhow::Result<(TcpStream, Reader)> {
    // Each session a conversation of its own: the local user has one of each source.
    let named = (token.is_none() && url.contains("/v4/listen")).then(|| {
        let id = auricle_core::ids::random_uuid(&mut rand::rng());
        format!("{url}&client_conversation_id={id}")
    });
    let socket =
        connect(named.as_deref().unwrap_or(url), token.as_deref()).await.context("open a session")?;
    let same = std::net::TcpStream::from(socket.get_ref().as_fd().try_clone_to_owned()?);
    Ok((TcpStream::from_std(same)?, socket))
}

/// One upgrade over a connection of its own.
pub(super) async fn connect(
    url: &str,
    token: Option<&str>,
) -> Result<WebSocketStream<TcpStream>, tungstenite::Error> {
    let mut request = url.into_client_request()?;
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().map_err(tungstenite::http::Error::from)?;
        request.headers_mut().insert("authorization", value);
    }
    let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let stream = TcpStream::connect(host).await?;
    stream.set_nodelay(true)?;
    // Of 128 KiB that is the default, the clearing alone would cost the machine more than the server's answer.
    let config = WebSocketConfig::default().read_buffer_size(READ_BYTES);
    let (socket, _) = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?;
    Ok(socket)
}

async fn read(mut socket: Reader, place: Place, ledger: Arc<Mutex<Ledger>>, counters: Arc<Counters>) {
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let Ok(message) = event::parse(&text) else { continue };
        counters.segments.fetch_add(u64::from(text.starts_with('[')), Ordering::Relaxed);
        let words = talker::lock(&ledger).enter(&message);
        words.into_iter().for_each(|word| counters.word_came(word, place));
    }
    if !counters.stopping.load(Ordering::Relaxed) {
        counters.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

async fn tick(mut writers: Vec<Vec<(usize, TcpStream)>>, frames: Vec<Vec<u8>>, counters: Arc<Counters>) {
    let begun = tokio::time::Instant::now();
    for turn in 0_u32.. {
        let due = begun + SLOT * turn;
        tokio::time::sleep_until(due).await;
        let late = tokio::time::Instant::now().saturating_duration_since(due);
        counters.late_us_max.fetch_max(late.as_micros() as u64, Ordering::Relaxed);
        counters.turns.store(u64::from(turn), Ordering::Relaxed);
        let (slot, time) = (turn as usize % SLOTS, turn as usize / SLOTS);
        counters.sent_us[turn as usize % TURNS_KEPT].store(counters.now_us(), Ordering::Relaxed);
        for (first_frame, writer) in &mut writers[slot] {
            let Some(frame) = time.checked_sub(*first_frame).map(|own| &frames[own % frames.len()]) else {
                continue;
            };
            if writer.write_all(frame).await.is_ok() {
                counters.frames.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Ten seconds of speech-like sound as Opus, each packet in a masked WebSocket frame.
fn frames() -> anyhow::Result<Vec<Vec<u8>>> {
    let mut state = fresh();
    let pcm: Vec<i16> = (0..RATE_HZ * 10)
        .map(|index| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let time = f64::from(index) / f64::from(RATE_HZ);
            let voice = (time * 140.0 * std::f64::consts::TAU).sin()
                + 0.5 * (time * 710.0 * std::f64::consts::TAU).sin();
            let noise = (state >> 40) as f64 / f64::from(1 << 24) - 0.5;
            ((voice * 4_000.0 + noise * 1_500.0) * (time * 3.0).sin().abs()) as i16
        })
        .collect();
    encoded(&pcm)
}

/// 16 kHz PCM as Opus packets of 20 ms, each in a masked WebSocket frame.
pub(super) fn encoded(pcm: &[i16]) -> anyhow::Result<Vec<Vec<u8>>> {
    let packets = Encoder::new(Codec::OpusFs320, RATE_HZ)?.encode_all(pcm)?;
    Ok(packets.iter().map(|packet| websocket_frame(packet)).collect())
}

/// A final binary frame with a zero mask. Source: RFC 6455, 5.2.
fn websocket_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x82];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        long => {
            frame.push(0x80 | 126);
            frame.extend((long as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

fn fresh() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
