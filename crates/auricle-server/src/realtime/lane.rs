//! One receiver's words and audio of one feed.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use auricle_core::ids::random_uuid;
use auricle_core::{ConversationId, TargetKind, Trigger as Of, UserId};
use auricle_store::{DeliveryNote, NewMessage, Recipient, Sensitive};
use reqwest::Url;
use tokio::sync::Semaphore;

use super::{Triggers, dropped};
use crate::convert;
use crate::outgoing::reach::Author;
use crate::outgoing::{Post, Posted, Sent, with_query};
use crate::webhook::{Answer, JSON, write_note};

/// Two stretches of audio this close are one, in seconds.
const GAP_SECS: f64 = 0.001;
/// An answer's message of no more characters than this says nothing. Source: pusher-and-processing 5.1.
const MESSAGE_CHARS_MIN: usize = 5;

/// Who is told, and of what.
pub(super) struct Receiver {
    pub(super) url: Url,
    pub(super) author: Author,
    pub(super) kind: TargetKind,
    pub(super) secret: Option<Sensitive>,
    pub(super) words: bool,
    /// How much audio one delivery carries.
    pub(super) audio_secs: Option<u32>,
    /// One delivery at a time.
    pub(super) turn: Arc<Semaphore>,
    /// `None`: the operator's.
    pub(super) recipient: Option<Recipient>,
}

impl Receiver {
    /// A user's. `None` if its address cannot be read.
    pub(super) fn of(recipient: Recipient, turn: Arc<Semaphore>) -> Option<Self> {
        let settings = &recipient.settings;
        Some(Self {
            url: Url::parse(settings.url.expose()).ok()?,
            author: Author::User,
            kind: recipient.kind,
            secret: Some(recipient.secret.clone()),
            words: settings.triggers.contains(&Of::Transcript),
            audio_secs: settings.triggers.contains(&Of::Audio).then_some(settings.audio_secs),
            turn,
            recipient: Some(recipient),
        })
    }
}

enum What {
    Words { body: Arc<str>, conversation: Option<ConversationId> },
    Audio(Vec<u8>),
}

impl What {
    fn kind(&self) -> &'static str {
        match self {
            Self::Words { .. } => "transcript",
            Self::Audio(_) => "audio",
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Words { body, .. } => body.len(),
            Self::Audio(pcm) => pcm.len(),
        }
    }
}

/// How a delivery went: `None` if it was not even tried, which says nothing of the receiver.
type Outcome = Option<Result<(), String>>;
type Delivering = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// One receiver's lane.
pub(super) struct Lane {
    receiver: Arc<Receiver>,
    rate_hz: u32,
    waiting: VecDeque<What>,
    waiting_bytes: usize,
    /// Audio of one stretch that is not yet long enough, and when its end is.
    audio: Vec<u8>,
    audio_end: f64,
    delivering: Option<Delivering>,
    delivering_bytes: usize,
    /// What deliveries came to since it was last written down, and when that was.
    note: DeliveryNote,
    noted_at: Option<Instant>,
    noting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Lane {
    pub(super) fn new(receiver: Receiver, rate_hz: u32) -> Self {
        Self {
            receiver: Arc::new(receiver),
            rate_hz,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            audio: Vec::new(),
            audio_end: 0.0,
            delivering: None,
            delivering_bytes: 0,
            note: DeliveryNote::default(),
            noted_at: None,
            noting: None,
        }
    }

    pub(super) fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// Whether `other` is the same receiver, whatever its settings are by now.
    pub(super) fn is_of(&self, other: &Receiver) -> bool {
        let id = |receiver: &Receiver| receiver.recipient.as_ref().map(|recipient| recipient.target.clone());
        id(&self.receiver) == id(other) && (other.recipient.is_some() || self.receiver.words == other.words)
    }

    /// The same lane under other settings; what is no longer wanted is forgotten.
    pub(super) fn with(mut self, receiver: Receiver) -> Self {
        let keeps = |what: &What| match what {
            What::Words { .. } => receiver.words,
            What::Audio(_) => receiver.audio_secs.is_some(),
        };
        self.waiting.retain(keeps);
        self.waiting_bytes = self.waiting.iter().map(What::bytes).sum();
        if receiver.audio_secs.is_none() {
            self.audio = Vec::new();
        }
        self.receiver = Arc::new(receiver);
        self
    }

    /// What waits to be delivered.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// All that it holds.
    pub(super) fn bytes(&self) -> usize {
        self.waiting_bytes + self.audio.len() + self.delivering_bytes
    }

    #[cfg(test)]
    pub(super) fn newest_words(&self) -> Option<Arc<str>> {
        self.waiting.iter().rev().find_map(|what| match what {
            What::Words { body, .. } => Some(Arc::clone(body)),
            What::Audio(_) => None,
        })
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_busy(&self) -> bool {
        self.delivering.is_some() || !self.waiting.is_empty()
    }

    pub(super) fn words(&mut self, body: Arc<str>, conversation: Option<ConversationId>) {
        self.push(What::Words { body, conversation });
    }

    pub(super) fn audio(&mut self, first_sample_at: f64, pcm: &[u8]) {
        let Some(secs) = self.receiver.audio_secs else { return };
        if (first_sample_at - self.audio_end).abs() > GAP_SECS {
            self.end_stretch();
        }
        self.audio_end = first_sample_at + pcm.len() as f64 / (f64::from(self.rate_hz) * 2.0);
        let whole = (self.rate_hz * 2 * secs) as usize;
        for piece in pcm.chunks(whole) {
            self.audio.extend_from_slice(piece);
            while self.audio.len() >= whole {
                let rest = self.audio.split_off(whole);
                let piece = std::mem::replace(&mut self.audio, rest);
                self.push(What::Audio(piece));
            }
        }
    }

    /// What was heard so far is a stretch of its own.
    pub(super) fn end_stretch(&mut self) {
        let audio = std::mem::take(&mut self.audio);
        if !audio.is_empty() {
            self.push(What::Audio(audio));
        }
    }

    fn push(&mut self, what: What) {
        // Source: pusher-and-processing 5.1: of an app's audio the latest wins.
        if self.receiver.kind == TargetKind::App && matches!(what, What::Audio(_)) {
            let before = self.waiting.len();
            self.waiting.retain(|older| !matches!(older, What::Audio(_)));
            dropped("audio", (before - self.waiting.len()) as u64);
            self.waiting_bytes = self.waiting.iter().map(What::bytes).sum();
        }
        self.waiting_bytes += what.bytes();
        self.waiting.push_back(what);
    }

    /// Forgets the oldest that waits, else the audio that is not yet long enough; what it was.
    pub(super) fn drop_oldest(&mut self) -> Option<&'static str> {
        if let Some(oldest) = self.waiting.pop_front() {
            self.waiting_bytes -= oldest.bytes();
            return Some(oldest.kind());
        }
        let audio = std::mem::take(&mut self.audio);
        (!audio.is_empty()).then_some("audio")
    }

    /// Goes on; ready when a delivery has ended.
    pub(super) fn poll(
        &mut self,
        triggers: &Arc<Triggers>,
        user: &UserId,
        rate_hz: u32,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if let Some(noting) = &mut self.noting {
            if noting.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.noting = None;
        }
        if self.delivering.is_none() {
            let Some(next) = self.waiting.pop_front() else { return Poll::Pending };
            self.waiting_bytes -= next.bytes();
            self.delivering_bytes = next.bytes();
            let (triggers, receiver) = (Arc::clone(triggers), Arc::clone(&self.receiver));
            let user = user.clone();
            self.delivering = Some(Box::pin(send(triggers, receiver, user, rate_hz, next)));
        }
        let Some(delivering) = &mut self.delivering else { return Poll::Pending };
        let outcome = std::task::ready!(delivering.as_mut().poll(cx));
        self.delivering = None;
        self.delivering_bytes = 0;
        if let Some(outcome) = outcome {
            self.hear(triggers, outcome);
        }
        Poll::Ready(())
    }

    /// How a delivery went. Written down when that changes, and every so often.
    fn hear(&mut self, triggers: &Arc<Triggers>, outcome: Result<(), String>) {
        let Some(recipient) = &self.receiver.recipient else { return };
        let now = triggers.clock.now();
        let turned = self.note != DeliveryNote::default() && outcome.is_ok() == (self.note.failed > 0);
        let is_due = self
            .noted_at
            .is_none_or(|at| now.saturating_duration_since(at) >= triggers.limits.target_notes_every);
        let mut before = None;
        if turned {
            before = Some(std::mem::take(&mut self.note));
        }
        match outcome {
            Ok(()) => self.note.delivered += 1,
            Err(error) => {
                self.note.failed += 1;
                self.note.error = Some(error);
            }
        }
        let after = is_due.then(|| std::mem::take(&mut self.note));
        if before.is_none() && after.is_none() {
            return;
        }
        self.noted_at = Some(now);
        let (triggers, recipient) = (Arc::clone(triggers), recipient.clone());
        self.noting = Some(Box::pin(async move {
            for note in before.into_iter().chain(after) {
                write_note(&*triggers.store, &*triggers.clock, &recipient, note).await;
            }
        }));
    }

    /// Writes down what is left.
    pub(super) async fn write_note(&mut self, triggers: &Triggers) {
        if let Some(noting) = self.noting.take() {
            noting.await;
        }
        let note = std::mem::take(&mut self.note);
        if let Some(recipient) = self.receiver.recipient.as_ref().filter(|_| note != DeliveryNote::default())
        {
            write_note(&*triggers.store, &*triggers.clock, recipient, note).await;
        }
    }
}

/// Delivers once.
async fn send(
    triggers: Arc<Triggers>,
    receiver: Arc<Receiver>,
    user: UserId,
    rate_hz: u32,
    what: What,
) -> Outcome {
    // Never closed.
    let _turn = receiver.turn.acquire().await;
    let (kind, rate) = (what.kind(), rate_hz.to_string());
    let (query, trigger, content_type, body, conversation) = match what {
        What::Words { body, conversation } => {
            let body = body.as_bytes().to_vec();
            (vec![("uid", user.as_str())], Of::Transcript, JSON, body, Some(conversation))
        }
        What::Audio(pcm) => {
            let query = vec![("sample_rate", rate.as_str()), ("uid", user.as_str())];
            (query, Of::Audio, "application/octet-stream", pcm, None)
        }
    };
    let may_answer = receiver.recipient.as_ref().filter(|_| conversation.is_some());
    let post = Post {
        url: with_query(&receiver.url, &query),
        author: receiver.author,
        kind: receiver.kind,
        trigger: convert::trigger(trigger),
        content_type,
        key: None,
        secret: receiver.secret.clone(),
        answer_bytes_max: may_answer.map_or(0, |_| triggers.limits.webhook_answer_bytes_max),
        body,
    };
    let sent = triggers.outgoing.post(post).await;
    let outcome = match sent.posted {
        Posted::Taken => "delivered",
        Posted::Refused(_) => "refused",
        Posted::Failed(_) => "failed",
    };
    metrics::counter!("auricle_triggers_total", "kind" => kind, "outcome" => outcome).increment(1);
    if let Some(recipient) = may_answer.filter(|_| sent.status == Some(200)) {
        answered(&triggers, recipient, conversation.flatten(), &sent).await;
    }
    sent.was_tried.then(|| sent.posted.error().map_or(Ok(()), |error| Err(error.to_owned())))
}

/// Stores what the receiver says to the user, if it says anything.
async fn answered(
    triggers: &Triggers,
    recipient: &Recipient,
    conversation: Option<ConversationId>,
    sent: &Sent,
) {
    let message = Answer::read(&sent.answer).message.filter(|text| text.chars().count() > MESSAGE_CHARS_MIN);
    let Some(text) = message else { return };
    let message = NewMessage {
        user: recipient.user.clone(),
        target: recipient.target.clone(),
        conversation,
        // Words are told once: no answer comes twice.
        key: format!("realtime:{}", random_uuid(&mut rand::rng())),
        text,
        now: triggers.clock.wall(),
    };
    if let Err(error) = triggers.store.add_message(message).await {
        metrics::counter!("auricle_messages_lost_total").increment(1);
        tracing::warn!(%error, "store an app's message");
    }
}
