//! Speech-to-text engines: one folder each, all behind [`Engine`].
//!
//! Leaves to others: sessions, storage, codecs (audio comes in as PCM).
//! Invariants: no method here blocks the caller; every queue is bounded; an engine's trouble is an [`Event`], never a panic
//! and never the end of a session.

pub mod chain;
pub mod cloud;
pub mod config;
pub mod deepgram;
pub mod engine;
pub mod gate;
mod none;
mod outlet;
pub mod pocketsphinx;
pub mod scripted;
pub mod sentence;
pub mod soniox;
pub mod speechmatics;
pub mod wer;
pub mod whisper;

pub use chain::{Chain, ChainNumbers, MemberStatus};
pub use config::{PocketSphinxConfig, ScriptedConfig, SpeechConfig, build, build_chain};
pub use deepgram::DeepgramConfig;
pub use engine::*;
pub use gate::{GateConfig, GateMode};
pub use soniox::SonioxConfig;
pub use speechmatics::SpeechmaticsConfig;
pub use whisper::WhisperConfig;
