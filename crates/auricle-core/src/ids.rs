//! Identifiers as newtypes, so that one cannot be passed for another.
//!
//! Made from entropy that the caller supplies: see [`random_uuid`].

use std::fmt;

use rand::Rng;

/// A version-4 UUID in its usual text form, from the caller's generator.
pub fn random_uuid(entropy: &mut impl Rng) -> String {
    let mut bytes = [0; 16];
    entropy.fill_bytes(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// Wraps an existing identifier. The caller has checked its form.
            pub fn new(text: impl Into<Box<str>>) -> Self {
                Self(text.into())
            }

            /// A fresh random identifier.
            pub fn random(entropy: &mut impl Rng) -> Self {
                Self(random_uuid(entropy).into())
            }

            /// The identifier's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), &self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }
    };
}

text_id! {
    /// Who a conversation belongs to (`uid` on the wire). Opaque; 1 to 128 bytes.
    UserId
}
text_id! {
    /// One conversation. A UUID when we or a client of Omi made it.
    ConversationId
}
text_id! {
    /// One uploaded recording.
    UploadId
}
text_id! {
    /// One transcript segment; stable, since clients upsert by it.
    SegmentId
}
text_id! {
    /// A person known to the user.
    PersonId
}
text_id! {
    /// A stored photo.
    PhotoId
}
text_id! {
    /// One unit of work on one revision of one conversation.
    JobId
}
text_id! {
    /// One delivery of one effect.
    EffectId
}
text_id! {
    /// One action item.
    ActionItemId
}
text_id! {
    /// One memory.
    MemoryId
}
text_id! {
    /// One of a user's webhooks or apps.
    TargetId
}
text_id! {
    /// One message of an app, or of the server, to a user.
    MessageId
}
text_id! {
    /// One running server process; new at every start.
    ProcessId
}

/// Grows by one each time a conversation or job changes hands; a write that carries an older one is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Epoch(pub u64);

/// Which finalisation of a conversation a result belongs to: 1 for the first, one more at each reprocess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Revision(pub u32);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
