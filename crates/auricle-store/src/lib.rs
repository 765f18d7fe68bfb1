//! Everything durable: conversations, segments, photos, jobs, steps, effects, users, API keys, uploads, the audio
//! spool and the vault of uploaded files.
//!
//! The door is [`Store`]: one trait, one conformance suite (`conformance`), several backends. All decisions that must
//! be atomic happen inside one method, in one transaction. Time and fresh ids are arguments.
//! Leaves to others: HTTP, providers, rules (`auricle-core` decides, this crate makes it stick).
//! Invariants: a write is acknowledged only after it would survive power loss; a write that carries an old epoch
//! changes nothing.

mod clock;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod days;
pub mod kept;
pub mod people;
pub mod protect;
pub mod records;
pub mod retranscriptions;
pub mod spool;
pub mod sqlite;
pub mod store;
pub mod uploads;
pub mod vault;
pub mod vectors;

pub use sqlite::{SqliteOptions, SqliteStore};
pub use store::*;
