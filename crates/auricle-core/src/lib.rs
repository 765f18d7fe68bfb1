//! Rules and machines of Auricle: values in, values out.
//!
//! Owns: identifiers, the domain's types, every bound ([`Limits`]) and the account of bytes held, the transcript clock and
//! merging, the conversation's life, the session machine, the pusher link and its breaker, the pace of newcomers, the health
//! of webhooks, who introduces themselves, whose voice it is.
//! Leaves to others: bytes and JSON (`auricle-wire`), durability (`auricle-store`), sockets and clocks
//! (`auricle-server`).
//! Invariant: nothing here does I/O, reads a clock, owns randomness or is `async`. Time and entropy are arguments.

#![warn(missing_docs)]

pub mod account;
pub mod breaker;
pub mod conversation;
pub mod fusion;
pub mod ids;
pub mod introduction;
pub mod job;
pub mod limits;
pub mod link;
pub mod pace;
pub mod records;
pub mod rehearing;
pub mod segment;
pub mod session;
pub mod target;
pub mod time;
pub mod transcript;
pub mod translation;
pub mod voice;

pub use account::{Account, Share};
pub use conversation::{
    ActionItem, CalendarEvent, Category, Conversation, ConversationStatus, DiscardReason, FinaliseReason,
    Geolocation, Photo, Provenance, Section, SectionKind, Source, Structured,
};
pub use ids::{
    ActionItemId, ConversationId, EffectId, Epoch, JobId, MemoryId, MessageId, PersonId, PhotoId, ProcessId,
    Revision, SegmentId, TargetId, UploadId, UserId,
};
pub use job::{Backoff, EffectKey, EffectState, EffectSubject, JobState};
pub use limits::Limits;
pub use segment::{Assignee, Segment, Speaker, Translation, Word};
pub use target::{TargetKind, TargetState, Trigger};
pub use time::UnixMicros;
