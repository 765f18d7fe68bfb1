//! The interface of whatever delivers an effect.

use std::time::Duration;

use async_trait::async_trait;
use auricle_store::Effect;

/// How a delivery went, in the deliverer's view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Taken.
    Delivered,
    /// Nobody to deliver to, which is fine for this kind.
    Skipped,
    /// Worth another attempt; the text says why, without transcript text or secrets.
    Retry(String),
    /// The receiver is away or too busy, tried or known: it says nothing about the effect, and is not counted.
    Away {
        /// Why, as with `Retry`.
        reason: String,
        /// Not sooner than this.
        after: Duration,
    },
    /// Never try again.
    Failed(String),
}

/// Delivers one kind of effect: the part of its name before the first `:`.
#[async_trait]
pub trait Deliver: Send + Sync + 'static {
    /// The kind.
    fn kind(&self) -> &'static str;
    /// Delivers it. The same effect may come again after a crash: receivers tell by its idempotency key.
    async fn deliver(&self, effect: &Effect) -> Delivery;
}
