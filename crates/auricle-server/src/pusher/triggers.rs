//! Realtime triggers: what a link carries, delivered while people speak, to whoever the operator named.
//!
//! At most once each, never in the way of a link. One delivery at a time for a link; what waits is bounded, oldest out.
//! Source: pusher-and-processing 3.1 and 5.1 (`realtime_transcript`, `audio_bytes`).

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use auricle_core::{Account, Limits, Share, UserId};
use auricle_wire::pusher::Transcript;
use reqwest::Url;
use serde::Serialize;

use crate::config::WebhooksConfig;
use crate::outgoing::{Outgoing, Post, Posted, with_query};

/// How much audio one delivery carries.
const AUDIO_SECS: usize = 5;
/// Two stretches of audio this close are one.
const GAP_SECS: f64 = 0.001;
/// How long what waits at a link's end may take.
const FINISH_MAX: Duration = Duration::from_secs(15);

/// Where realtime triggers go.
pub(crate) struct Triggers {
    outgoing: Arc<Outgoing>,
    transcript_url: Option<Url>,
    audio_url: Option<Url>,
    /// What all links hold.
    held: Account,
}

/// A transcript trigger's body.
#[derive(Serialize)]
struct Words<'a> {
    segments: &'a [serde_json::Value],
    session_id: &'a str,
}

enum Trigger {
    Transcript(String),
    Audio(Vec<u8>),
}

impl Trigger {
    fn kind(&self) -> &'static str {
        match self {
            Self::Transcript(..) => "transcript",
            Self::Audio(_) => "audio",
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Transcript(body) => body.len(),
            Self::Audio(pcm) => pcm.len(),
        }
    }
}

impl Triggers {
    pub(crate) fn new(config: &WebhooksConfig, outgoing: Arc<Outgoing>) -> Self {
        let url = |text: &Option<String>| text.as_deref().and_then(|text| Url::parse(text).ok());
        Self {
            outgoing,
            transcript_url: url(&config.transcript),
            audio_url: url(&config.audio),
            held: Account::default(),
        }
    }

    async fn send(self: Arc<Self>, user: UserId, rate_hz: u32, trigger: Trigger) {
        let _held = self.held.holding(trigger.bytes());
        let kind = trigger.kind();
        let rate = rate_hz.to_string();
        let (url, query, content_type, body) = match trigger {
            Trigger::Transcript(body) => {
                (&self.transcript_url, vec![("uid", user.as_str())], "application/json", body.into_bytes())
            }
            Trigger::Audio(pcm) => (
                &self.audio_url,
                vec![("sample_rate", rate.as_str()), ("uid", user.as_str())],
                "application/octet-stream",
                pcm,
            ),
        };
        let Some(url) = url else { return };
        let post = Post { url: with_query(url, &query), content_type, key: None, body };
        let outcome = match self.outgoing.post(post).await {
            Posted::Taken => "delivered",
            Posted::Refused(_) => "refused",
            Posted::Failed(_) => "failed",
        };
        metrics::counter!("auricle_triggers_total", "kind" => kind, "outcome" => outcome).increment(1);
    }
}

/// One link's triggers.
pub(super) struct Feed {
    triggers: Arc<Triggers>,
    user: UserId,
    rate_hz: u32,
    bytes_max: usize,
    total_bytes_max: usize,
    /// Its share of [`Triggers::held`]: `waiting` and `audio`.
    held: Share,
    waiting: VecDeque<Trigger>,
    waiting_bytes: usize,
    /// Audio of one stretch that is not yet long enough, and when its end is.
    audio: Vec<u8>,
    audio_end: f64,
    delivering: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Feed {
    pub(super) fn new(triggers: Arc<Triggers>, user: UserId, rate_hz: u32, limits: &Limits) -> Self {
        Self {
            held: triggers.held.share(),
            triggers,
            user,
            rate_hz,
            bytes_max: limits.pusher_link_bytes_max,
            total_bytes_max: limits.pusher_total_bytes_max,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            audio: Vec::new(),
            audio_end: 0.0,
            delivering: None,
        }
    }

    pub(super) fn transcript(&mut self, transcript: Transcript) {
        if self.triggers.transcript_url.is_none() || transcript.segments.is_empty() {
            return;
        }
        let words = Words { segments: &transcript.segments, session_id: self.user.as_str() };
        if let Ok(body) = serde_json::to_string(&words) {
            self.push(Trigger::Transcript(body));
        }
    }

    pub(super) fn audio(&mut self, first_sample_at: f64, pcm: &[u8]) {
        if self.triggers.audio_url.is_none() {
            return;
        }
        if (first_sample_at - self.audio_end).abs() > GAP_SECS {
            self.end_stretch();
        }
        self.audio_end = first_sample_at + pcm.len() as f64 / (f64::from(self.rate_hz) * 2.0);
        let whole = self.rate_hz as usize * 2 * AUDIO_SECS;
        for piece in pcm.chunks(whole) {
            self.audio.extend_from_slice(piece);
            while self.audio.len() >= whole {
                let rest = self.audio.split_off(whole);
                let piece = std::mem::replace(&mut self.audio, rest);
                self.push(Trigger::Audio(piece));
            }
        }
        self.make_room();
    }

    /// What was heard so far is a stretch of its own.
    pub(super) fn end_stretch(&mut self) {
        let audio = std::mem::take(&mut self.audio);
        if !audio.is_empty() {
            self.push(Trigger::Audio(audio));
        }
    }

    fn push(&mut self, trigger: Trigger) {
        self.waiting_bytes += trigger.bytes();
        self.waiting.push_back(trigger);
        self.make_room();
    }

    /// Drops the oldest of this link while it, or all links together, hold too much: others' is not its to drop.
    fn make_room(&mut self) {
        loop {
            self.held.set(self.waiting_bytes + self.audio.len());
            let too_much = self.triggers.held.bytes() > self.total_bytes_max;
            if self.waiting_bytes <= self.bytes_max && !too_much {
                return;
            }
            let oldest = self.waiting.pop_front();
            self.waiting_bytes -= oldest.as_ref().map_or(0, Trigger::bytes);
            let oldest = oldest
                .or_else(|| Some(Trigger::Audio(std::mem::take(&mut self.audio))).filter(|t| t.bytes() > 0));
            let Some(oldest) = oldest else { return };
            metrics::counter!("auricle_triggers_total", "kind" => oldest.kind(), "outcome" => "dropped")
                .increment(1);
        }
    }

    /// Goes on with what waits; never ready while nothing does. Cancellation loses nothing.
    pub(super) async fn deliver(&mut self) {
        if self.delivering.is_none() {
            let Some(next) = self.waiting.pop_front() else { return std::future::pending().await };
            self.waiting_bytes -= next.bytes();
            self.held.set(self.waiting_bytes + self.audio.len());
            self.delivering =
                Some(Box::pin(Arc::clone(&self.triggers).send(self.user.clone(), self.rate_hz, next)));
        }
        if let Some(delivering) = &mut self.delivering {
            delivering.await;
            self.delivering = None;
        }
    }

    /// Delivers what waits, for a bounded time.
    pub(super) async fn finish(mut self) {
        self.end_stretch();
        let all = async {
            while self.delivering.is_some() || !self.waiting.is_empty() {
                self.deliver().await;
            }
        };
        if tokio::time::timeout(FINISH_MAX, all).await.is_err() {
            let left = self.waiting.len() as u64;
            metrics::counter!("auricle_triggers_total", "kind" => "any", "outcome" => "dropped")
                .increment(left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::outgoing::reach::Reach;

    fn triggers() -> Arc<Triggers> {
        let config = WebhooksConfig {
            conversation: None,
            transcript: Some("http://127.0.0.1:9/words".into()),
            audio: Some("http://127.0.0.1:9/audio".into()),
            allow_private: true,
        };
        let limits = Limits::default();
        let outgoing = Outgoing::new(Reach::new(true), &limits, Arc::new(SystemClock)).unwrap();
        Arc::new(Triggers::new(&config, outgoing))
    }

    fn words(text: &str) -> Transcript {
        Transcript { segments: vec![serde_json::json!({ "text": text })], memory_id: None }
    }

    #[tokio::test]
    async fn p6_what_all_links_hold_is_bounded_and_a_link_drops_its_own() {
        let limits =
            Limits { pusher_link_bytes_max: 600_000, pusher_total_bytes_max: 1_000_000, ..Limits::default() };
        let triggers = triggers();
        let feed = || Feed::new(Arc::clone(&triggers), "ann".into(), 16_000, &limits);
        let (mut first, mut second) = (feed(), feed());
        for number in 0..10 {
            first.audio(f64::from(number), &[7; 100_000]);
        }
        assert!(first.held.bytes() <= 600_000 + 160_000, "its own bound, and a stretch that is not whole");
        let held = first.held.bytes();
        for number in 0..100 {
            second.transcript(words(&format!("{number} {}", "a".repeat(50_000))));
            assert!(triggers.held.bytes() <= 1_000_000);
        }
        assert_eq!(first.held.bytes(), held, "another's is not touched");
        let newest = second.waiting.back().map(|trigger| match trigger {
            Trigger::Transcript(body) => body.clone(),
            Trigger::Audio(_) => panic!("no audio was given"),
        });
        assert!(newest.unwrap().contains(r#"{"text":"99 aaa"#), "the oldest goes, the newest stays");
        // No room at all: what comes is dropped, a stretch that is not whole included.
        let mut third = Feed::new(
            Arc::clone(&triggers),
            "bob".into(),
            16_000,
            &Limits { pusher_total_bytes_max: 1, ..limits.clone() },
        );
        third.audio(0.0, &[7; 1_000]);
        third.transcript(words("b"));
        assert_eq!((third.held.bytes(), third.waiting.len(), third.audio.len()), (0, 0, 0));
        drop((first, second, third));
        assert_eq!(triggers.held.bytes(), 0);
    }

    #[tokio::test]
    async fn p6_a_delivery_under_way_counts_until_it_is_done() {
        let triggers = triggers();
        let mut feed = Feed::new(Arc::clone(&triggers), "ann".into(), 16_000, &Limits::default());
        feed.transcript(words("hello"));
        let held = triggers.held.bytes();
        assert_eq!(held, r#"{"segments":[{"text":"hello"}],"session_id":"ann"}"#.len());
        let polled = std::future::poll_fn(|cx| {
            let delivery = std::pin::pin!(feed.deliver());
            std::task::Poll::Ready(delivery.poll(cx).is_pending())
        });
        assert!(polled.await);
        assert_eq!((feed.held.bytes(), triggers.held.bytes()), (0, held));
        feed.deliver().await;
        assert_eq!(triggers.held.bytes(), 0);
    }
}
