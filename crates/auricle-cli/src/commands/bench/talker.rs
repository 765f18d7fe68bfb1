//! A client that talks without end, and knows what it said, when, and what it was shown.
//!
//! The scripted engine says `w0.`, `w1.`, … at fixed times of each connection's audio, so a token tells when the frame that
//! completed it was sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use auricle_audio::{Codec, Encoder};
use auricle_testkit::{Client, Connect, Received};
use auricle_wire::event::Event;
use tokio::time::Instant;

const RATE_HZ: u32 = 16_000;
const FRAME: Duration = Duration::from_millis(20);
/// Words of the script: as many as a connection may ever hear.
const WORDS: usize = 9_999;
/// A word's length in seconds.
const WORD_SECS: f64 = 0.3;

/// The script, one word every `every_secs`, each an utterance of its own; after `hangs_after` of audio nothing more is said.
pub(super) fn script(every_secs: f64, hangs_after: Option<Duration>) -> String {
    let word = |index: usize| {
        let start = index as f64 * every_secs + 0.2;
        serde_json::json!({"text": format!("w{index}."), "start": start, "end": start + WORD_SECS, "final": true})
    };
    let words = serde_json::Value::from_iter((0..WORDS).map(word));
    serde_json::json!({ "words": words, "hangs_after_secs": hangs_after.map(|time| time.as_secs_f64()) })
        .to_string()
}

/// The frame that completes word `index`.
fn completing_frame(index: usize, every_secs: f64) -> usize {
    let end = index as f64 * every_secs + 0.2 + WORD_SECS;
    ((end / FRAME.as_secs_f64()).ceil() as usize).saturating_sub(1)
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

/// What a talker has seen; shared with whoever watches it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Everything shown so far, by conversation.
    pub(super) conversations: BTreeMap<String, Shown>,
    /// The conversation it is in.
    pub(super) current: Option<String>,
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

/// One connection's own.
struct Talk {
    /// When each frame was sent.
    sent: Vec<Instant>,
    /// The latest word that was shown.
    word_max: Option<usize>,
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
        let mut talk = Talk { sent: Vec::new(), word_max: None };
        let Ok(mut client) = connect.open().await else {
            lock(&self.seen).refused += 1;
            return None;
        };
        tokio::pin!(stop);
        let start = Instant::now();
        loop {
            let due = start + FRAME * u32::try_from(talk.sent.len()).unwrap_or(u32::MAX);
            tokio::select! {
                biased;
                () = &mut stop => return Some(client),
                () = tokio::time::sleep_until(due) => {
                    let packet = self.packets[talk.sent.len() % self.packets.len()].clone();
                    talk.sent.push(Instant::now());
                    // A broken connection is seen when it is read.
                    client.send_audio(packet).await;
                }
                received = client.next(Duration::from_secs(3_600)) => match received {
                    Some(received) if received.is_end() => {
                        lock(&self.seen).dropped += 1;
                        return None;
                    }
                    Some(received) => self.on_received(&received, &mut talk),
                    None => {}
                },
            }
        }
    }

    fn on_received(&self, received: &Received, talk: &mut Talk) {
        let now = Instant::now();
        let mut seen = lock(&self.seen);
        match received.event() {
            Some(Event::ConversationSession { conversation_id, .. }) => {
                seen.current = Some(conversation_id.clone());
            }
            Some(Event::SegmentsDeleted { segment_ids }) => {
                for shown in seen.conversations.values_mut() {
                    shown.segments.retain(|id, _| !segment_ids.contains(id));
                }
            }
            _ => {}
        }
        let Some(current) = seen.current.clone() else { return };
        for segment in received.segments() {
            // A segment of the conversation before may be changed a last time after the next has begun.
            let of = seen.conversations.iter().find(|(_, shown)| shown.segments.contains_key(&segment.id));
            let id = of.map_or_else(|| current.clone(), |(id, _)| id.clone());
            let shown = seen.conversations.entry(id).or_default();
            shown.segments.insert(segment.id.clone(), segment.text.clone());
            for index in words(&segment.text).iter().filter_map(|word| word[1..word.len() - 1].parse().ok()) {
                if talk.word_max.is_none_or(|max| index > max) {
                    talk.word_max = Some(index);
                    if let Some(at) = talk.sent.get(completing_frame(index, self.every_secs)) {
                        seen.latencies.push(micros(now.saturating_duration_since(*at)));
                    }
                }
            }
        }
    }
}

/// What was seen so far.
pub(super) fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
