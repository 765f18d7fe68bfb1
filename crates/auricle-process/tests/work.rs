//! The worker and the outbox on a real store: whatever an attempt or a delivery does, nothing is lost, doubled or stuck.

#![allow(clippy::unwrap_used, reason = "what a test stands on must hold")]

#[path = "work/rig.rs"]
mod rig;

#[path = "work/conversations.rs"]
mod conversations;
#[path = "work/days.rs"]
mod days;
#[path = "work/effects.rs"]
mod effects;
#[path = "work/embeddings.rs"]
mod embeddings;
#[path = "work/fallback.rs"]
mod fallback;
#[path = "work/jobs.rs"]
mod jobs;
#[path = "work/long.rs"]
mod long;
#[path = "work/matrix.rs"]
mod matrix;
#[path = "work/model.rs"]
mod model;
