//! Who is told of records: a receiver of webhooks that remembers under which keys.

use std::time::Duration;

use auricle_testkit::{SinkDelivery, SinkMode, WebhookSink};

/// A running receiver.
pub(super) struct Told {
    sink: WebhookSink,
}

impl Told {
    pub(super) async fn start() -> anyhow::Result<Self> {
        Ok(Self { sink: WebhookSink::start().await? })
    }

    pub(super) fn url(&self) -> String {
        self.sink.url()
    }

    /// From now on each delivery hangs for this long and is then taken.
    pub(super) fn hang(&self, time: Duration) {
        self.sink.set(SinkMode::Hang(time));
    }

    /// From now on each delivery is taken at once.
    pub(super) fn take(&self) {
        self.sink.set(SinkMode::Ok);
    }

    /// The keys under which it was told of a conversation, one for each delivery.
    pub(super) fn keys(&self, conversation: &str) -> Vec<String> {
        // The key names the conversation: `conversation:{id}:finalization:…`.
        let prefix = format!("conversation:{conversation}:");
        let key = |delivery: SinkDelivery| delivery.key.filter(|key| key.starts_with(&prefix));
        self.sink.deliveries().into_iter().filter_map(key).collect()
    }
}

/// Whom each user has told beside that: two webhooks of their own.
pub(super) struct Targets {
    /// Acts on a key once, as a receiver should.
    pub(super) once: Told,
    /// Acts on whatever comes.
    pub(super) always: Told,
}

impl Targets {
    pub(super) async fn start() -> anyhow::Result<Self> {
        Ok(Self { once: Told::start().await?, always: Told::start().await? })
    }

    /// Where users' webhooks lead.
    pub(super) fn urls(&self) -> [String; 2] {
        [self.once.url(), self.always.url()]
    }

    /// How often each of the two acted on a conversation.
    pub(super) fn acted(&self, conversation: &str) -> [usize; 2] {
        let keys: std::collections::BTreeSet<_> = self.once.keys(conversation).into_iter().collect();
        [keys.len(), self.always.keys(conversation).len()]
    }
}
