//! What turns an ended conversation into a record.
//!
//! Owns: the steps of a job, the worker that claims and runs them, understanding (`local`, or a language model), embeddings,
//! effects and their delivery loop, breakers in front of others.
//! Leaves to others: clients' sockets, HTTP routes, durability (`auricle-store`).
//! Invariants: an attempt has a deadline and a panic ends only itself; a finished step is never done again; nothing is
//! written without the lease.

pub mod clock;
pub mod days;
pub mod deliver;
pub mod embed;
pub mod gates;
pub mod local;
pub mod openai;
pub mod outbox;
mod record;
pub mod translate;
pub mod understanding;
pub mod worker;

use std::sync::Arc;

pub use clock::Clock;
pub use days::{Days, PlainDays, SummariseDay};
pub use deliver::*;
pub use embed::{Embed, EmbedError, EmbedServer, Embedder};
pub use gates::{Gates, Pass};
pub use local::Local;
pub use openai::OpenAi;
pub use outbox::Outbox;
pub use translate::Translate;
pub use understanding::*;
pub use worker::{ClaimWhen, Worker};

/// What a loop calls while it is alive, so that a watchdog sees one that is not.
pub type Beat = Arc<dyn Fn() + Send + Sync>;
