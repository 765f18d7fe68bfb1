//! Tells a connected client that its conversation's record is ready (the effect `notify:memory_created`), or what an app says
//! (`notify:message`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use auricle_core::MessageId;
use auricle_process::{Clock, Deliver, Delivery};
use auricle_store::{Effect, Store};
use auricle_wire::event::Event;
use serde::Deserialize;
use tokio::sync::oneshot;

use crate::convert;
use crate::hub::Hub;
use crate::listen::memory_created;

/// The effect's name.
pub(crate) const MEMORY_CREATED: &str = "notify:memory_created";
/// The name of the effect that [`Store::add_message`] records.
const MESSAGE: &str = "notify:message";
/// How long a session may take to put the message into its outbox. Full: delivered again later.
const TAKE_WAIT: Duration = Duration::from_secs(5);

/// Delivers to sessions of this process. With nobody connected there is nothing to deliver: records and messages are there to
/// be read.
pub(crate) struct NotifyClient {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// The payload of [`MESSAGE`].
#[derive(Deserialize)]
struct OfMessage {
    message: String,
}

#[async_trait]
impl Deliver for NotifyClient {
    fn kind(&self) -> &'static str {
        "notify"
    }

    async fn deliver(&self, effect: &Effect) -> Delivery {
        if effect.key.name == MESSAGE {
            return self.message(effect).await;
        }
        let Some(conversation) = effect.key.conversation() else {
            return Delivery::Failed(format!("no notification is called `{}`", effect.key.name));
        };
        let record = match self.store.conversation(&effect.user, conversation).await {
            Ok(Some(record)) => record,
            Ok(None) => return Delivery::Skipped,
            Err(error) => return Delivery::Retry(error.to_string()),
        };
        let text = memory_created(&record);
        taken(self.hub.deliver(&effect.user, conversation, record.source, text)).await
    }
}

impl NotifyClient {
    async fn message(&self, effect: &Effect) -> Delivery {
        let Ok(OfMessage { message: id }) = serde_json::from_str(&effect.payload) else {
            return Delivery::Failed("its payload names no message".into());
        };
        let id = MessageId::from(id);
        let message = match self.store.message(&effect.user, &id).await {
            Ok(Some(message)) => message,
            Ok(None) => return Delivery::Skipped,
            Err(error) => return Delivery::Retry(error.to_string()),
        };
        let text = Event::AppMessage { message: Box::new(convert::message(&message)) }.to_text();
        let delivery = taken(self.hub.tell(&effect.user, message.conversation.as_ref(), text)).await;
        if delivery == Delivery::Delivered
            && let Err(error) = self.store.message_delivered(&effect.user, &id, self.clock.wall()).await
        {
            // It was told: a repetition would tell it twice.
            tracing::warn!(%error, "note that a message was told");
        }
        delivery
    }
}

async fn taken(taken: Option<oneshot::Receiver<()>>) -> Delivery {
    let Some(taken) = taken else { return Delivery::Skipped };
    match tokio::time::timeout(TAKE_WAIT, taken).await {
        Ok(Ok(())) => Delivery::Delivered,
        // The session ended meanwhile.
        Ok(Err(_)) => Delivery::Skipped,
        Err(_) => Delivery::Retry("the session did not take the message in time".into()),
    }
}
