//! Speech-to-text engines: one folder each, all behind [`Engine`].
//!
//! Leaves to others: sessions, storage, codecs (audio comes in as PCM).
//! Invariants: no method here blocks the caller; every queue is bounded; an engine's trouble is an [`Event`], never a panic
//! and never the end of a session.

pub mod chain;
pub mod config;
pub mod engine;
mod none;
mod outlet;
pub mod pocketsphinx;
pub mod scripted;
pub mod sentence;
pub mod wer;

pub use chain::{Chain, ChainNumbers, MemberStatus};
pub use config::{PocketSphinxConfig, ScriptedConfig, SpeechConfig, build, build_chain};
pub use engine::*;
