//! Embeddings: the interface of whatever makes vectors of texts, and the loop that embeds what conversations became.
//!
//! Owns: the call and its failures (`server`), what is embedded (`texts`), when (`work`). Leaves to others: what is to be
//! done and the vectors (`auricle-store`). Invariants: no record waits for an embedding; an outage only delays, and costs no
//! attempt; no error holds a text.

mod server;
pub mod texts;
mod work;

use std::time::Duration;

use async_trait::async_trait;

pub use server::{EmbedServer, EmbedServerConfig, EmbedServerError};
pub use work::Embedder;

/// Why there are no vectors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmbedError {
    /// Worth another attempt, at the usual time.
    #[error("{0}")]
    Transient(String),
    /// The server is away or too busy, tried or known: it says nothing about the texts. The attempt is not counted.
    #[error("{reason}")]
    Away {
        /// Why, without texts or secrets, as all reasons.
        reason: String,
        /// Not sooner than this.
        after: Duration,
    },
    /// Will fail in the same way again.
    #[error("{0}")]
    Permanent(String),
}

impl EmbedError {
    /// For metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Transient(_) => "senseless",
            Self::Away { .. } => "away",
            Self::Permanent(_) => "refused",
        }
    }
}

/// Makes vectors of texts: near ones for texts that mean the same.
#[async_trait]
pub trait Embed: Send + Sync + 'static {
    /// Whose vectors they are: those of another name are not compared with these.
    fn model(&self) -> &str;
    /// One vector for each text, in order, all equally long. Texts of one call are within the limits of a batch.
    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, EmbedError>;
    /// Whether it is known to be away.
    fn is_away(&self) -> bool {
        false
    }
}
