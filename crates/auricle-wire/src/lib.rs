//! Omi's bytes and JSON, both directions.
//!
//! Beside Omi's: Deepgram's streaming protocol and OpenAI's transcription interface, as a server speaks them.
//!
//! Owns: listen parameters, client messages, server events, segments, conversations, REST bodies, pusher frames, channel
//! framing, close codes. Leaves to others: every rule, every socket. Depends on none of our crates: the server converts.
//! Source: Omi's listen protocol and pusher protocol as described in the project's protocol references.

pub mod client;
pub mod close;
pub mod conversation;
pub mod deepgram;
pub mod event;
pub mod export;
pub mod multichannel;
pub mod params;
pub mod people;
pub mod protection;
pub mod pusher;
pub mod rest;
pub mod retranscription;
pub mod signature;
pub mod time;
pub mod transcription;
pub mod upload;
