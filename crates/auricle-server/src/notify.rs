//! Tells a connected client that its conversation's record is ready: the effect `notify:memory_created`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use auricle_process::{Deliver, Delivery};
use auricle_store::{Effect, Store};

use crate::hub::Hub;
use crate::listen::memory_created;

/// The effect's name.
pub(crate) const MEMORY_CREATED: &str = "notify:memory_created";
/// How long a session may take to put the message into its outbox. Full: delivered again later.
const TAKE_WAIT: Duration = Duration::from_secs(5);

/// Delivers to sessions of this process. With nobody connected there is nothing to deliver: the record is there to be read.
pub(crate) struct NotifyClient {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) hub: Arc<Hub>,
}

#[async_trait]
impl Deliver for NotifyClient {
    fn kind(&self) -> &'static str {
        "notify"
    }

    async fn deliver(&self, effect: &Effect) -> Delivery {
        let conversation = &effect.key.conversation;
        let record = match self.store.conversation(&effect.user, conversation).await {
            Ok(Some(record)) => record,
            Ok(None) => return Delivery::Skipped,
            Err(error) => return Delivery::Retry(error.to_string()),
        };
        let text = memory_created(&record);
        let Some(taken) = self.hub.deliver(&effect.user, conversation, record.source, text) else {
            return Delivery::Skipped;
        };
        match tokio::time::timeout(TAKE_WAIT, taken).await {
            Ok(Ok(())) => Delivery::Delivered,
            // The session ended meanwhile.
            Ok(Err(_)) => Delivery::Skipped,
            Err(_) => Delivery::Retry("the session did not take the message in time".into()),
        }
    }
}
