//! Tells the operator's receiver that a conversation's record is ready: the effect `webhook:memory_created`.
//! Source: pusher-and-processing 5.1.

use std::sync::Arc;

use async_trait::async_trait;
use auricle_process::{Deliver, Delivery};
use auricle_store::{Effect, Store};
use reqwest::Url;

use crate::convert;
use crate::outgoing::{Outgoing, Post, Posted, Trouble, with_query};

/// The effect's name.
pub(crate) const MEMORY_CREATED: &str = "webhook:memory_created";

/// Posts the record as it is by then, in Omi's shape.
pub(crate) struct Webhook {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) outgoing: Arc<Outgoing>,
    pub(crate) url: Url,
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
        let record = match self.store.conversation(&effect.user, &effect.key.conversation).await {
            Ok(Some(record)) => convert::conversation(&record),
            // Deleted since.
            Ok(None) => return Delivery::Skipped,
            Err(error) => return Delivery::Retry(error.to_string()),
        };
        let Ok(body) = serde_json::to_vec(&record) else {
            return Delivery::Failed("the record cannot be written as JSON".into());
        };
        let post = Post {
            url: with_query(&self.url, &[("uid", effect.user.as_str())]),
            content_type: "application/json",
            key: Some(effect.key.idempotency_key()),
            body,
        };
        match self.outgoing.post(post).await {
            Posted::Taken => Delivery::Delivered,
            Posted::Refused(reason) => Delivery::Failed(reason),
            Posted::Failed(Trouble { reason, away: Some(after) }) => Delivery::Away { reason, after },
            Posted::Failed(Trouble { reason, away: None }) => Delivery::Retry(reason),
        }
    }
}

#[cfg(test)]
mod tests;
