//! Realtime triggers: what a link carries, delivered while people speak, to whoever the operator named.
//!
//! At most once each, never in the way of a link. One delivery at a time for a link; what waits is bounded, oldest out.
//! Source: pusher-and-processing 3.1 and 5.1 (`realtime_transcript`, `audio_bytes`).

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use auricle_core::{Limits, UserId};
use auricle_wire::pusher::Transcript;
use reqwest::Url;

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
}

enum Trigger {
    Transcript(serde_json::Value, usize),
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
            Self::Transcript(_, bytes) => *bytes,
            Self::Audio(pcm) => pcm.len(),
        }
    }
}

impl Triggers {
    pub(crate) fn new(config: &WebhooksConfig, outgoing: Arc<Outgoing>) -> Self {
        let url = |text: &Option<String>| text.as_deref().and_then(|text| Url::parse(text).ok());
        Self { outgoing, transcript_url: url(&config.transcript), audio_url: url(&config.audio) }
    }

    async fn send(self: Arc<Self>, user: UserId, rate_hz: u32, trigger: Trigger) {
        let kind = trigger.kind();
        let rate = rate_hz.to_string();
        let (url, query, content_type, body) = match trigger {
            Trigger::Transcript(body, _) => (
                &self.transcript_url,
                vec![("uid", user.as_str())],
                "application/json",
                body.to_string().into(),
            ),
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
            triggers,
            user,
            rate_hz,
            bytes_max: limits.pusher_link_bytes_max,
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
        let body = serde_json::json!({ "segments": transcript.segments, "session_id": self.user.as_str() });
        let bytes = body.to_string().len();
        self.push(Trigger::Transcript(body, bytes));
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
        while self.waiting_bytes > self.bytes_max
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.waiting_bytes -= oldest.bytes();
            metrics::counter!("auricle_triggers_total", "kind" => oldest.kind(), "outcome" => "dropped")
                .increment(1);
        }
    }

    /// Goes on with what waits; never ready while nothing does. Cancellation loses nothing.
    pub(super) async fn deliver(&mut self) {
        if self.delivering.is_none() {
            let Some(next) = self.waiting.pop_front() else { return std::future::pending().await };
            self.waiting_bytes -= next.bytes();
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
