//! What a conversation is, once and for all crates.

use crate::ids::{ConversationId, PhotoId, Revision, SegmentId, UserId};
use crate::segment::Segment;
use crate::time::UnixMicros;

/// Where a conversation stands. Source: listen-protocol 6.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConversationStatus {
    /// A session may still add to it.
    InProgress,
    /// Ended; a job owns what comes next.
    Processing,
    /// Reserved by Omi's merge feature; read, never made here.
    Merging,
    /// The record is ready (or was discarded).
    Completed,
    /// Processing gave up; the transcript stays visible and `jobs retry` revives it.
    Failed,
}

/// Why a conversation ended. The client may name one (`finalization_reason`); the rest are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinaliseReason {
    /// No transcribed speech for the conversation's timeout.
    Silence,
    /// Its client vanished and the timeout passed.
    ClientGone,
    /// A connection ended that finalises on close (desktop with 1000; multi-channel).
    ConnectionEnded,
    /// `POST /v1/conversations`.
    Requested,
    /// `reprocess`.
    Reprocess,
    /// Its kept audio was heard again.
    Retranscribe,
    /// Client: `user_stop`.
    UserStop,
    /// Client: `finish_and_continue`.
    FinishAndContinue,
    /// Client: `meeting_started`.
    MeetingStarted,
    /// Client: `meeting_ended`.
    MeetingEnded,
    /// Client: `max_duration_rotation`.
    MaxDurationRotation,
    /// Client: `crash_recovery`.
    CrashRecovery,
    /// Client: `retry`.
    Retry,
}

macro_rules! text_enum {
    ($name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        impl $name {
            /// Every value, in declaration order.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The stable text form, as stored and as sent.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }

            /// The value of a stable text form; `None` if it is none of ours.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some($name::$variant),)+ _ => None }
            }
        }
    };
}

text_enum!(ConversationStatus {
    InProgress = "in_progress",
    Processing = "processing",
    Merging = "merging",
    Completed = "completed",
    Failed = "failed",
});

text_enum!(FinaliseReason {
    Silence = "silence",
    ClientGone = "client_gone",
    ConnectionEnded = "connection_ended",
    Requested = "requested",
    Reprocess = "reprocess",
    Retranscribe = "retranscribe",
    UserStop = "user_stop",
    FinishAndContinue = "finish_and_continue",
    MeetingStarted = "meeting_started",
    MeetingEnded = "meeting_ended",
    MaxDurationRotation = "max_duration_rotation",
    CrashRecovery = "crash_recovery",
    Retry = "retry",
});

/// What device or app a conversation came from. Source: listen-protocol 7.4; any other text is [`Source::Unknown`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[allow(missing_docs, reason = "the wire's own names, listed in the protocol reference")]
pub enum Source {
    Friend,
    #[default]
    Omi,
    Fieldy,
    Bee,
    Plaud,
    Frame,
    FriendCom,
    AppleWatch,
    Phone,
    Desktop,
    Openglass,
    Screenpipe,
    Workflow,
    Sdcard,
    ExternalIntegration,
    Limitless,
    Onboarding,
    PhoneCall,
    RaybanMeta,
    Unknown,
}

text_enum!(Source {
    Friend = "friend",
    Omi = "omi",
    Fieldy = "fieldy",
    Bee = "bee",
    Plaud = "plaud",
    Frame = "frame",
    FriendCom = "friend_com",
    AppleWatch = "apple_watch",
    Phone = "phone",
    Desktop = "desktop",
    Openglass = "openglass",
    Screenpipe = "screenpipe",
    Workflow = "workflow",
    Sdcard = "sdcard",
    ExternalIntegration = "external_integration",
    Limitless = "limitless",
    Onboarding = "onboarding",
    PhoneCall = "phone_call",
    RaybanMeta = "rayban_meta",
    Unknown = "unknown",
});

/// What a conversation is about. Source: listen-protocol 7.3 (`romance` upstream is `romantic` on the wire).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[allow(missing_docs, reason = "the wire's own names, listed in the protocol reference")]
pub enum Category {
    Personal,
    Education,
    Health,
    Finance,
    Legal,
    Philosophy,
    Spiritual,
    Science,
    Entrepreneurship,
    Parenting,
    Romantic,
    Travel,
    Inspiration,
    Technology,
    Business,
    Social,
    Work,
    Sports,
    Politics,
    Literature,
    History,
    Architecture,
    Music,
    Weather,
    News,
    Entertainment,
    Psychology,
    Real,
    Design,
    Family,
    Economics,
    Environment,
    #[default]
    Other,
}

text_enum!(Category {
    Personal = "personal",
    Education = "education",
    Health = "health",
    Finance = "finance",
    Legal = "legal",
    Philosophy = "philosophy",
    Spiritual = "spiritual",
    Science = "science",
    Entrepreneurship = "entrepreneurship",
    Parenting = "parenting",
    Romantic = "romantic",
    Travel = "travel",
    Inspiration = "inspiration",
    Technology = "technology",
    Business = "business",
    Social = "social",
    Work = "work",
    Sports = "sports",
    Politics = "politics",
    Literature = "literature",
    History = "history",
    Architecture = "architecture",
    Music = "music",
    Weather = "weather",
    News = "news",
    Entertainment = "entertainment",
    Psychology = "psychology",
    Real = "real",
    Design = "design",
    Family = "family",
    Economics = "economics",
    Environment = "environment",
    Other = "other",
});

/// Something somebody said they would do.
#[derive(Clone, Debug, PartialEq)]
pub struct ActionItem {
    /// What to do, in the speaker's own words.
    pub description: String,
    /// Whether it is done.
    pub completed: bool,
    /// When the item was made.
    pub created_at: Option<UnixMicros>,
    /// When it was last changed.
    pub updated_at: Option<UnixMicros>,
    /// When it is due.
    pub due_at: Option<UnixMicros>,
    /// When it was completed.
    pub completed_at: Option<UnixMicros>,
}

/// Something that will happen at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct CalendarEvent {
    /// Short name.
    pub title: String,
    /// More about it, or empty.
    pub description: String,
    /// When it begins.
    pub start: UnixMicros,
    /// How long, in minutes (1 to 180).
    pub duration_minutes: u32,
    /// Whether it was put into a calendar.
    pub created: bool,
}

/// A part of a record, resting on what was said.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// What it is about.
    pub heading: String,
    /// Markdown.
    pub body: String,
    /// Whether it belongs to the conversation's subject.
    pub kind: SectionKind,
    /// Where it was said; each is one of the conversation's.
    pub segments: Vec<SegmentId>,
}

/// How a section belongs to its conversation. Source: pusher-and-processing 4.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum SectionKind {
    /// Its subject.
    #[default]
    Main,
    /// Beside it.
    SideNotes,
}

text_enum!(SectionKind { Main = "main", SideNotes = "side_notes" });

/// What understanding made of the transcript.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Structured {
    /// Empty means discarded.
    pub title: String,
    /// A few sentences.
    pub overview: String,
    /// One emoji; `🧠` where none fits.
    pub emoji: String,
    /// Topic.
    pub category: Category,
    /// What is to be done.
    pub action_items: Vec<ActionItem>,
    /// What will happen.
    pub events: Vec<CalendarEvent>,
    /// The record in parts; none if nothing but the overview was made.
    pub sections: Vec<Section>,
}

/// Which understanding made a record, e.g. `local` in version `1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// `local`, or the provider's name.
    pub provider: String,
    /// Rules' version, or the model's name and its prompts' edition.
    pub version: String,
}

impl Provenance {
    /// Ends the version of a record that was made while who should have made it was away.
    pub const STAND_IN: &str = "/fallback";

    /// Whether the record stands in for a better one.
    pub fn is_stand_in(&self) -> bool {
        self.version.ends_with(Self::STAND_IN)
    }
}

/// Why a conversation was set aside. Its transcript stays readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiscardReason {
    /// No words and no described photos.
    Empty,
    /// Few words and none worth keeping.
    Trivial,
}

text_enum!(DiscardReason { Empty = "empty", Trivial = "trivial" });

/// A place, as the app sends it. Source: listen-protocol 7.1.
#[derive(Clone, Debug, PartialEq)]
pub struct Geolocation {
    /// Google's id of the place.
    pub google_place_id: Option<String>,
    /// Degrees, -90 to 90.
    pub latitude: f64,
    /// Degrees, -180 to 180.
    pub longitude: f64,
    /// Postal address.
    pub address: Option<String>,
    /// Kind of place.
    pub location_type: Option<String>,
}

/// A picture that a device took during a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Photo {
    /// Server's id.
    pub id: PhotoId,
    /// The image as the client sent it, base64 text.
    pub base64: String,
    /// What is on it, once described.
    pub description: Option<String>,
    /// When it was received whole.
    pub created_at: UnixMicros,
    /// Whether it was set aside.
    pub discarded: bool,
}

/// A whole conversation with its transcript. Listings leave `segments` and `photos` empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    /// Identity.
    pub id: ConversationId,
    /// Owner.
    pub user: UserId,
    /// When the record was made.
    pub created_at: UnixMicros,
    /// Zero of the transcript clock.
    pub started_at: UnixMicros,
    /// When the last speech or photo was stored.
    pub finished_at: UnixMicros,
    /// Device or app.
    pub source: Source,
    /// The connection's language after normalisation.
    pub language: Option<String>,
    /// State.
    pub status: ConversationStatus,
    /// Counts finalisations; 0 until the first.
    pub revision: Revision,
    /// What understanding made of it.
    pub structured: Structured,
    /// Which understanding made `structured`.
    pub provenance: Option<Provenance>,
    /// Set if the record was set aside.
    pub discarded: Option<DiscardReason>,
    /// Why it ended, once it has.
    pub finalise_reason: Option<FinaliseReason>,
    /// The last error of a failed conversation, in words for a person.
    pub failure: Option<String>,
    /// A title that the user gave; shown instead of `structured.title`.
    pub user_title: Option<String>,
    /// The client's own id of the recording.
    pub client_conversation_id: Option<String>,
    /// Phone call id (multi-channel).
    pub call_id: Option<String>,
    /// Where it took place.
    pub geolocation: Option<Geolocation>,
    /// Marked by the user.
    pub starred: bool,
    /// Transcript in order of `start`.
    pub segments: Vec<Segment>,
    /// Photos in order of arrival.
    pub photos: Vec<Photo>,
    /// Seconds of media whose words could not be recovered, as (start, end) on the conversation's clock.
    pub gaps: Vec<(f64, f64)>,
}

impl Conversation {
    /// The title to show: the user's own, else the made one.
    pub fn title(&self) -> &str {
        self.user_title.as_deref().unwrap_or(&self.structured.title)
    }
}
