//! A client that talks without end, and knows what it said, when, and what it was shown.
//!
//! The scripted engine says `w0.`, `w1.`, … at fixed times of each connection's audio, so a token tells when the frame that
//! completed it was sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use auricle_audio::{Codec, Encoder};
use auricle_testkit::{Client, Connect, Received};
use auricle_wire::event::{Event, ServerMessage};
use tokio::time::Instant;

const RATE_HZ: u32 = 16_000;
const FRAME: Duration = Duration::from_millis(20);
/// Words of the script: as many as a connection may ever hear.
const WORDS: usize = 9_999;
/// A word's length in seconds.
pub(super) const WORD_SECS: f64 = 0.3;
/// Where the first one begins.
pub(super) const FIRST_SECS: f64 = 0.2;

/// The script, one word every `every_secs`, each an utterance of its own, of `people` in turn; after `hangs_after` of audio
/// nothing more is said.
pub(super) fn script(every_secs: f64, people: usize, hangs_after: Option<Duration>) -> String {
    let word = |index: usize| {
        let (start, speaker) = (index as f64 * every_secs + FIRST_SECS, index % people.max(1));
        serde_json::json!({
            "text": format!("w{index}."), "start": start, "end": start + WORD_SECS, "speaker": speaker, "final": true
        })
    };
    let words = serde_json::Value::from_iter((0..WORDS).map(word));
    serde_json::json!({ "words": words, "hangs_after_secs": hangs_after.map(|time| time.as_secs_f64()) })
        .to_string()
}

/// The frame that completes word `index`.
pub(super) fn completing_frame(index: usize, every_secs: f64) -> usize {
    let end = index as f64 * every_secs + FIRST_SECS + WORD_SECS;
    // A little less, or what is a whole number but for rounding would count as the frame after it.
    ((end / FRAME.as_secs_f64() - 1e-6).ceil() as usize).saturating_sub(1)
}

/// Ten seconds of sound as Opus packets of 20 ms.
pub(super) fn packets() -> anyhow::Result<Vec<Vec<u8>>> {
    let pcm: Vec<i16> = (0..RATE_HZ * 10)
        .map(|index| {
            let time = f64::from(index) / f64::from(RATE_HZ);
            let tone = (time * 140.0 * std::f64::consts::TAU).sin()
                + 0.5 * (time * 710.0 * std::f64::consts::TAU).sin();
            (tone * 4_000.0 * (time * 3.0).sin().abs()) as i16
        })
        .collect();
    Ok(Encoder::new(Codec::OpusFs320, RATE_HZ)?.encode_all(&pcm)?)
}

/// One conversation as its client saw it.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    /// Segment texts by id, the latest of each.
    segments: BTreeMap<String, String>,
}

impl Shown {
    /// The words that were shown at the end, and how often: each connection hears the script from its beginning.
    pub(super) fn words(&self) -> BTreeMap<String, usize> {
        count(self.segments.values().map(String::as_str))
    }
}

/// How often each of the script's words stands in `texts`.
pub(super) fn count<'a>(texts: impl Iterator<Item = &'a str>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for word in texts.flat_map(words) {
        *counts.entry(word).or_default() += 1;
    }
    counts
}

/// The script's words in a text.
fn words(text: &str) -> Vec<String> {
    let is_word = |word: &&str| word.starts_with('w') && word.ends_with('.');
    text.split_whitespace().filter(is_word).map(str::to_owned).collect()
}

/// What one client was shown.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Everything shown so far, by conversation.
    pub(super) conversations: BTreeMap<String, Shown>,
    /// The conversation it is in.
    pub(super) current: Option<String>,
    /// The latest word of this connection that was shown.
    word_max: Option<usize>,
}

impl Ledger {
    /// The latest word of this connection that was shown.
    pub(super) fn last_shown(&self) -> Option<usize> {
        self.word_max
    }

    /// Another connection begins, which hears the script from its beginning.
    fn connected(&mut self) {
        self.word_max = None;
    }

    /// Enters a message; gives the words that it shows for the first time, by their numbers in the script.
    pub(super) fn enter(&mut self, message: &ServerMessage) -> Vec<usize> {
        let segments = match message {
            ServerMessage::Event(Event::ConversationSession { conversation_id, .. }) => {
                self.current = Some(conversation_id.clone());
                return Vec::new();
            }
            ServerMessage::Event(Event::SegmentsDeleted { segment_ids }) => {
                for shown in self.conversations.values_mut() {
                    shown.segments.retain(|id, _| !segment_ids.contains(id));
                }
                return Vec::new();
            }
            ServerMessage::Segments(segments) => segments,
            _ => return Vec::new(),
        };
        let Some(current) = self.current.clone() else { return Vec::new() };
        let mut fresh = Vec::new();
        for segment in segments {
            // A segment of the conversation before may be changed a last time after the next has begun.
            let of = self.conversations.iter().find(|(_, shown)| shown.segments.contains_key(&segment.id));
            let id = of.map_or_else(|| current.clone(), |(id, _)| id.clone());
            let shown = self.conversations.entry(id).or_default();
            shown.segments.insert(segment.id.clone(), segment.text.clone());
            for index in words(&segment.text).iter().filter_map(|word| word[1..word.len() - 1].parse().ok()) {
                if self.word_max.is_none_or(|max| index > max) {
                    self.word_max = Some(index);
                    fresh.push(index);
                }
            }
        }
        fresh
    }
}

/// What a talker has seen; shared with whoever watches it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What it was shown.
    pub(super) ledger: Ledger,
    /// How long after its last frame each word was shown, in microseconds.
    pub(super) latencies: Vec<u64>,
    /// Connections that the server closed or that broke.
    pub(super) dropped: u64,
    /// Upgrades refused, and tries while the server was not there.
    pub(super) refused: u64,
}

/// A client.
pub(super) struct Talker {
    connect: Connect,
    packets: Arc<Vec<Vec<u8>>>,
    every_secs: f64,
    seen: Arc<Mutex<Seen>>,
}

impl Talker {
    /// `every_secs`: as given to [`script`].
    pub(super) fn new(connect: Connect, packets: Arc<Vec<Vec<u8>>>, every_secs: f64) -> Self {
        Self { connect, packets, every_secs, seen: Arc::default() }
    }

    pub(super) fn seen(&self) -> Arc<Mutex<Seen>> {
        Arc::clone(&self.seen)
    }

    /// Connects, for the conversation `named`, and talks until `stop` is ready; then the connection, still open. `None` if
    /// there was no connection or it ended: both are counted.
    pub(super) async fn talk(
        &mut self,
        named: Option<&str>,
        stop: impl Future<Output = ()>,
    ) -> Option<Client> {
        let mut connect = self.connect.clone();
        if let Some(id) = named {
            connect = connect.param("client_conversation_id", id);
        }
        // When each frame was sent.
        let mut sent = Vec::new();
        let Ok(mut client) = connect.open().await else {
            lock(&self.seen).refused += 1;
            return None;
        };
        lock(&self.seen).ledger.connected();
        tokio::pin!(stop);
        let start = Instant::now();
        loop {
            let due = start + FRAME * u32::try_from(sent.len()).unwrap_or(u32::MAX);
            tokio::select! {
                biased;
                () = &mut stop => return Some(client),
                () = tokio::time::sleep_until(due) => {
                    let packet = self.packets[sent.len() % self.packets.len()].clone();
                    sent.push(Instant::now());
                    // A broken connection is seen when it is read.
                    client.send_audio(packet).await;
                }
                received = client.next(Duration::from_secs(3_600)) => match received {
                    Some(received) if received.is_end() => {
                        lock(&self.seen).dropped += 1;
                        return None;
                    }
                    Some(received) => self.on_received(&received, &sent),
                    None => {}
                },
            }
        }
    }

    fn on_received(&self, received: &Received, sent: &[Instant]) {
        let Received::Message(message) = received else { return };
        let now = Instant::now();
        let mut seen = lock(&self.seen);
        for word in seen.ledger.enter(message) {
            if let Some(at) = sent.get(completing_frame(word, self.every_secs)) {
                seen.latencies.push(micros(now.saturating_duration_since(*at)));
            }
        }
    }
}

/// What was seen so far.
pub(super) fn lock<T>(seen: &Mutex<T>) -> MutexGuard<'_, T> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
