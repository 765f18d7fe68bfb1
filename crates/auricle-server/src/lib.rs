//! Drivers: the listening sockets, REST, probes, background loops, configuration and authentication.
//!
//! The door is [`build`]: `Config` in, [`App`] out. Leaves to others: rules (`auricle-core`), bytes (`auricle-wire`), durability
//! (`auricle-store`), words (`auricle-speech`), records (`auricle-process`).
//! Invariants: nothing that processes ended conversations runs on a session worker; liveness asks nobody; no dependency's
//! failure closes a client's connection.

mod accept;
mod app;
pub mod auth;
pub mod clock;
pub mod config;
pub mod convert;
mod eraser;
mod hub;
mod keeper;
mod link;
mod listen;
mod live;
mod loops;
mod metrics;
pub mod models;
mod notify;
mod outgoing;
mod playback;
mod probe;
pub mod protection;
mod pusher;
mod realtime;
mod repair;
pub mod rest;
mod retranscribe;
mod runtimes;
mod serve;
mod signals;
mod speech;
mod sweeper;
mod translation;
mod uploads;
mod vitals;
mod webhook;

pub use app::{Addresses, App, BuildError, Running, build, speech};
pub use runtimes::SessionWorker;

/// An error with all that caused it, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
