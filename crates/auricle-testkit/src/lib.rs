//! What tests and measurements need around a server: a client, a scripted server for clients, a faulty network, stand-ins for
//! a language model, speech services and receivers of webhooks, word errors.
//!
//! Nothing that serves uses it: other crates have it as a dev-dependency only, but for the command line's `bench`
//! (`tests/arrows.rs` sees to it).

pub mod client;
pub mod proxy;
#[cfg(feature = "schemas")]
pub mod schemas;
pub mod server;
pub mod stand_in;

pub use auricle_speech::wer::WordErrors;
pub use client::{Client, Connect, ConnectError, Received};
pub use proxy::{Fault, FaultyProxy};
pub use server::{Act, Heard, ScriptedServer};
pub use stand_in::{
    EmbeddingsMode, EmbeddingsStandIn, LlmMode, LlmStandIn, SinkDelivery, SinkMode, SpeechScript,
    SpeechSession, SpeechStandIn, WebhookSink,
};
