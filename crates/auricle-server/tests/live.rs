//! The whole server in this process, over real sockets, with the scripted engine.

#![allow(clippy::unwrap_used, reason = "what a test stands on must hold")]

#[path = "live/rig.rs"]
mod rig;

#[path = "live/admission.rs"]
mod admission;
#[path = "live/cloud.rs"]
mod cloud;
#[path = "live/conversations.rs"]
mod conversations;
#[path = "live/days.rs"]
mod days;
#[path = "live/degraded.rs"]
mod degraded;
#[path = "live/deletion.rs"]
mod deletion;
#[path = "live/hostile.rs"]
mod hostile;
#[path = "live/kept_audio.rs"]
mod kept_audio;
#[path = "live/probes.rs"]
mod probes;
#[path = "live/pusher.rs"]
mod pusher;
#[path = "live/receivers.rs"]
mod receivers;
#[path = "live/speakers.rs"]
mod speakers;
#[path = "live/speech.rs"]
mod speech;
#[path = "live/split.rs"]
mod split;
#[path = "live/storage.rs"]
mod storage;
#[path = "live/storm.rs"]
mod storm;
#[path = "live/transcripts.rs"]
mod transcripts;
#[path = "live/translation.rs"]
mod translation;
#[path = "live/uploads.rs"]
mod uploads;
