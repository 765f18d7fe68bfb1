//! The session machine, driven by hand and by a simulated world.

#![allow(clippy::unwrap_used, reason = "what a test stands on must hold")]

#[path = "session/channel.rs"]
mod channel;
#[path = "session/rig.rs"]
mod rig;

#[path = "session/clients.rs"]
mod clients;
#[path = "session/lifecycle.rs"]
mod lifecycle;
#[path = "session/simulation.rs"]
mod simulation;
#[path = "session/speakers.rs"]
mod speakers;
#[path = "session/trouble.rs"]
mod trouble;
