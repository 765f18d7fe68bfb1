//! The program as its users run it: real processes, real speech recognition, real signals.

#![allow(clippy::unwrap_used, reason = "what a test stands on must hold")]

#[path = "binary/rig.rs"]
mod rig;

#[path = "binary/commands.rs"]
mod commands;
#[path = "binary/kept_audio.rs"]
mod kept_audio;
#[path = "binary/killed.rs"]
mod killed;
#[path = "binary/models.rs"]
mod models;
#[path = "binary/protection.rs"]
mod protection;
#[path = "binary/speech.rs"]
mod speech;
#[path = "binary/uploads.rs"]
mod uploads;
