//! Tells receivers that a conversation's record is ready: the effect `webhook:memory_created` goes to the operator's, one
//! `target:{id}` to each of the user's webhooks and apps, which also hear of days. Source: pusher-and-processing 5.1.

use std::sync::Arc;

use async_trait::async_trait;
use auricle_core::{TargetKind, TargetState, UnixMicros, UserId};
use auricle_process::{Clock, Deliver, Delivery};
use auricle_store::{DeliveryNote, Effect, NewMessage, Recipient, Sensitive, Store};
use reqwest::Url;
use serde::Deserialize;

use crate::convert;
use crate::outgoing::reach::Author;
use crate::outgoing::{Outgoing, Post, Posted, Sent, Trouble, with_query};

/// The name of the effect for the operator's receiver.
pub(crate) const MEMORY_CREATED: &str = "webhook:memory_created";
/// Triggers in Omi's words.
pub(crate) const TRIGGER_MEMORY_CREATED: &str = "memory_created";
pub(crate) const TRIGGER_DAY_SUMMARY: &str = "day_summary";
pub(crate) const JSON: &str = "application/json";

/// What an app's answer may hold. Source: pusher-and-processing 5.1 and 5.2.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Answer {
    pub(crate) message: Option<String>,
    pub(crate) notification: Option<serde_json::Value>,
}

impl Answer {
    /// An answer that is no such object says nothing. A `notification` would be a prompt to run on the user's data: it is
    /// counted and passed over.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let mut answer: Self = serde_json::from_slice(bytes).unwrap_or_default();
        if answer.notification.take_if(|asked| !asked.is_null()).is_some() {
            metrics::counter!("auricle_notifications_ignored_total").increment(1);
        }
        answer
    }
}

/// Posts records to the operator's receiver, as they are by then, in Omi's shape.
pub(crate) struct Webhook {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) outgoing: Arc<Outgoing>,
    pub(crate) url: Url,
    /// By which deliveries are signed.
    pub(crate) secret: Option<Sensitive>,
}

/// The same to users' webhooks and apps.
pub(crate) struct Targets {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) outgoing: Arc<Outgoing>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Bytes of an app's answer that are read.
    pub(crate) answer_bytes_max: usize,
}

/// What is told, and in Omi's words of what.
struct Told {
    trigger: &'static str,
    body: Vec<u8>,
}

impl Told {
    /// `Err`: there is nothing to post, and what becomes of the effect.
    async fn of(effect: &Effect, store: &dyn Store) -> Result<Self, Delivery> {
        let unwritable = |_| Delivery::Failed("it cannot be written as JSON".into());
        let Some(conversation) = effect.key.conversation() else {
            let body = day_summary(&effect.payload, &effect.user, effect.created_at).map_err(unwritable)?;
            return Ok(Self { trigger: TRIGGER_DAY_SUMMARY, body });
        };
        match store.conversation(&effect.user, conversation).await {
            Ok(Some(record)) => {
                let body = serde_json::to_vec(&convert::conversation(&record)).map_err(unwritable)?;
                Ok(Self { trigger: TRIGGER_MEMORY_CREATED, body })
            }
            // Deleted since.
            Ok(None) => Err(Delivery::Skipped),
            Err(error) => Err(Delivery::Retry(error.to_string())),
        }
    }
}

#[async_trait]
impl Deliver for Webhook {
    fn kind(&self) -> &'static str {
        "webhook"
    }

    async fn deliver(&self, effect: &Effect) -> Delivery {
        if effect.key.name != MEMORY_CREATED {
            return Delivery::Failed(format!("no webhook is called `{}`", effect.key.name));
        }
        let told = match Told::of(effect, &*self.store).await {
            Ok(told) => told,
            Err(delivery) => return delivery,
        };
        let post = Post {
            url: with_query(&self.url, &[("uid", effect.user.as_str())]),
            author: Author::Operator,
            kind: TargetKind::Developer,
            trigger: told.trigger,
            content_type: JSON,
            key: Some(effect.key.idempotency_key()),
            secret: self.secret.clone(),
            answer_bytes_max: 0,
            body: told.body,
        };
        delivery(&self.outgoing.post(post).await.posted)
    }
}

#[async_trait]
impl Deliver for Targets {
    fn kind(&self) -> &'static str {
        "target"
    }

    async fn deliver(&self, effect: &Effect) -> Delivery {
        let Some(target) = &effect.target else {
            return Delivery::Failed(format!("no target is meant by `{}`", effect.key.name));
        };
        let recipient = match self.store.recipient(&effect.user, target).await {
            Ok(Some(recipient)) => recipient,
            // Removed since.
            Ok(None) => return Delivery::Skipped,
            Err(error) => return Delivery::Retry(error.to_string()),
        };
        if recipient.state == TargetState::Off {
            return Delivery::Failed("its target is off".into());
        }
        let Ok(url) = Url::parse(recipient.settings.url.expose()) else {
            return Delivery::Failed("its target's address cannot be read".into());
        };
        let told = match Told::of(effect, &*self.store).await {
            Ok(told) => told,
            Err(delivery) => return delivery,
        };
        let is_app = recipient.kind == TargetKind::App;
        let post = Post {
            url: with_query(&url, &[("uid", effect.user.as_str())]),
            author: Author::User,
            kind: recipient.kind,
            trigger: told.trigger,
            content_type: JSON,
            key: Some(effect.key.idempotency_key()),
            secret: Some(recipient.secret.clone()),
            answer_bytes_max: if is_app { self.answer_bytes_max } else { 0 },
            body: told.body,
        };
        let sent = self.outgoing.post(post).await;
        note(&*self.store, &*self.clock, &recipient, &sent).await;
        let said = (is_app && sent.posted == Posted::Taken).then(|| Answer::read(&sent.answer).message);
        if let Some(text) = said.flatten().filter(|text| !text.trim().is_empty()) {
            let message = NewMessage {
                user: effect.user.clone(),
                target: recipient.target,
                conversation: effect.key.conversation().cloned(),
                key: effect.key.idempotency_key(),
                text,
                now: self.clock.wall(),
            };
            // Asked again under the same key: an app that tells repetitions answers the same.
            if let Err(error) = self.store.add_message(message).await {
                return Delivery::Retry(error.to_string());
            }
        }
        delivery(&sent.posted)
    }
}

fn delivery(posted: &Posted) -> Delivery {
    match posted.clone() {
        Posted::Taken => Delivery::Delivered,
        Posted::Refused(reason) => Delivery::Failed(reason),
        Posted::Failed(Trouble { reason, away: Some(after) }) => Delivery::Away { reason, after },
        Posted::Failed(Trouble { reason, away: None }) => Delivery::Retry(reason),
    }
}

/// Notes on the target's row how one try went; what was not tried says nothing of it.
async fn note(store: &dyn Store, clock: &dyn Clock, recipient: &Recipient, sent: &Sent) {
    if !sent.was_tried {
        return;
    }
    let error = sent.posted.error().map(str::to_owned);
    let note =
        DeliveryNote { delivered: u32::from(error.is_none()), failed: u32::from(error.is_some()), error };
    write_note(store, clock, recipient, note).await;
}

/// The same for several tries. A verdict is logged; its user is told by the store.
pub(crate) async fn write_note(
    store: &dyn Store,
    clock: &dyn Clock,
    recipient: &Recipient,
    note: DeliveryNote,
) {
    match store.note_deliveries(&recipient.target, note, clock.wall()).await {
        Ok(None) => {}
        Ok(Some(verdict)) => {
            let (target, host) = (&recipient.target, recipient.settings.host.as_str());
            metrics::counter!("auricle_target_verdicts_total", "verdict" => verdict.as_str()).increment(1);
            tracing::warn!(target.id = %target, host, verdict = verdict.as_str(), "a webhook fails for long");
        }
        Err(error) => tracing::warn!(%error, target.id = %recipient.target, "note a delivery"),
    }
}

/// Omi's body of a day's summary: `payload`, an object with `summary` and `summary_json`, and whose and when.
fn day_summary(payload: &str, user: &UserId, created_at: UnixMicros) -> serde_json::Result<Vec<u8>> {
    let mut body: serde_json::Map<String, serde_json::Value> = serde_json::from_str(payload)?;
    body.insert("uid".into(), user.as_str().into());
    body.insert("created_at".into(), convert::time(created_at).to_string().into());
    serde_json::to_vec(&body)
}

#[cfg(test)]
mod tests;
