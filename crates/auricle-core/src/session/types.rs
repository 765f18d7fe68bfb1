//! What goes into a session and what comes out of it.

use std::time::{Duration, Instant};

use crate::conversation::{FinaliseReason, Source};
use crate::ids::{ConversationId, PersonId, PhotoId, Revision, SegmentId};
use crate::segment::{Assignee, Segment, Speaker, Word};
use crate::time::UnixMicros;

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For timeouts.
    pub mono: Instant,
    /// For records.
    pub wall: UnixMicros,
}

/// What the connection asked for, after normalisation.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Device or app.
    pub source: Source,
    /// Of the decoded audio, as the session counts samples.
    pub sample_rate_hz: u32,
    /// One entry for each audio channel.
    pub voices: Vec<Voice>,
    /// Whether the server transcribes (false for `custom_stt`).
    pub engine: bool,
    /// Whether the client transcribes.
    pub custom_stt: bool,
    /// Silence after which a conversation ends.
    pub timeout: Duration,
    /// Which conversation to begin with.
    pub choice: OpenChoice,
    /// Whether the end of the connection ends the conversation.
    pub finalise_on_close: FinaliseOnClose,
    /// Whether suggestions may name a person's id.
    pub speaker_auto_assign: bool,
    /// Whether who introduces themselves under a new name becomes one of the user's people.
    pub create_speakers: bool,
    /// The question flow of listen-protocol 3.5.
    pub onboarding: bool,
}

/// Who speaks on a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Voice {
    /// As the engine tells voices apart.
    Recognised,
    /// A channel of its own. Source: listen-protocol 2.4.
    Fixed {
        /// Its label.
        speaker: Speaker,
        /// Whether it is the owner.
        is_user: bool,
    },
}

/// Source: listen-protocol 6.5 (B).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinaliseOnClose {
    /// The conversation waits for a reconnect or the sweeper.
    Never,
    /// If the client closed with 1000 (desktop).
    Normal,
    /// Always (multi-channel).
    Always,
}

/// Which conversation to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenChoice {
    /// The one in progress for this user and source, if it is fresh enough.
    Resume,
    /// The client's own.
    Named(ConversationId),
    /// A new one.
    New,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Decoded audio was received. `samples` at the session's rate.
    Audio {
        /// Index into [`SessionConfig::voices`].
        channel: usize,
        /// How many samples it decoded to; 0 if it could not be decoded.
        samples: u32,
    },
    /// A frame that is no audio.
    Keepalive,
    /// A text message that means something to a session. Others are [`Input::Keepalive`].
    Text(ClientText),
    /// Final words. Times are seconds of this connection's media.
    Words {
        /// Whose.
        channel: usize,
        /// In order.
        words: Vec<Word>,
    },
    /// Everything before this sample of this connection is decided.
    Covered {
        /// Whose.
        channel: usize,
        /// In samples at the session's rate.
        until_sample: u64,
    },
    /// The engine's state changed.
    Ear {
        /// Whose.
        channel: usize,
        /// To what.
        state: EarState,
    },
    /// The answer to [`Output::Open`].
    Opened(OpenedConversation),
    /// [`Output::Open`] failed for now.
    OpenFailed,
    /// The last [`Output::Append`] is durable.
    Committed,
    /// The last [`Output::Append`] changed nothing.
    CommitFailed(CommitFailure),
    /// The answer to an [`Output::AppendPhoto`].
    PhotoCommitted {
        /// False if it was given up.
        stored: bool,
    },
    /// The answer to [`Output::FindPerson`].
    PersonFound {
        /// As it was asked.
        introduction: Introduction,
        /// Who it is.
        found: PersonFound,
    },
    /// Somebody assigned segments of the session's conversation past its client (REST); it is stored already.
    Reassigned {
        /// Which.
        segments: Vec<SegmentId>,
        /// To whom.
        to: Assignee,
        /// If all of a speaker's were meant: the label's number, and the person's name.
        speaker: Option<(u32, String)>,
    },
    /// What was said was translated, and that is stored and shown already: segments as they now are.
    Translated(Vec<Segment>),
    /// The answer to [`Output::Finalise`].
    Finalised(Ended),
    /// [`Output::Finalise`] failed for now.
    FinaliseFailed,
    /// Somebody asks to end the conversation now.
    FinaliseNow(FinaliseReason),
    /// Another session has taken the conversation over.
    Superseded,
    /// The client's connection ended, with its close code if there was one.
    ClientClosed {
        /// As the client sent it.
        code: Option<u16>,
    },
    /// The server is shutting down.
    Drain,
    /// The client reads too slowly: its outbox is full.
    Overflowed,
    /// The driver refuses what the client sent.
    Refused(Close),
    /// A timer is due.
    Tick,
}

/// A client's text message.
#[derive(Clone, Debug)]
pub enum ClientText {
    /// `suggested_transcript`: segments in seconds of this connection's media. Ids may be empty.
    Suggested {
        /// Copied onto each segment.
        provider: Option<String>,
        /// What the client heard.
        segments: Vec<Segment>,
    },
    /// `speaker_assigned`.
    SpeakerAssigned(SpeakerAssignment),
    /// `image_chunk`.
    ImageChunk(ImageChunk),
    /// `finalization_reason`.
    FinaliseReason(FinaliseReason),
    /// `skip_question`.
    SkipQuestion,
    /// `start_onboarding`.
    StartOnboarding,
}

/// A piece of a picture. Source: listen-protocol 3.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageChunk {
    /// The client's id of the picture.
    pub id: String,
    /// From 0.
    pub index: u32,
    /// The same for each chunk of a picture.
    pub total: u32,
    /// A slice of the base64 text.
    pub data: String,
}

/// Who a speaker is. Source: listen-protocol 3.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeakerAssignment {
    /// Which label's number.
    pub speaker_number: u32,
    /// `None` is the owner.
    pub person: Option<PersonId>,
    /// The person's name.
    pub name: String,
    /// Segments to assign.
    pub segments: Vec<SegmentId>,
}

impl SpeakerAssignment {
    /// Assigns `segment` if it is listed and not yet assigned.
    pub(super) fn apply(&self, segment: &mut Segment) {
        if segment.is_user || segment.person_id.is_some() || !self.segments.contains(&segment.id) {
            return;
        }
        segment.is_user = self.person.is_none();
        segment.person_id.clone_from(&self.person);
    }
}

/// Why words are late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SttTrouble {
    /// Which engine failed.
    pub engine: &'static str,
    /// Safe to show.
    pub reason: String,
    /// How long it had decided nothing.
    pub silent_for: Duration,
    /// Which engine is asked next; `None` while there is none.
    pub next: Option<&'static str>,
}

/// Somebody said their own name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// Which label's number.
    pub speaker_number: u32,
    /// As they said it.
    pub name: String,
    /// Where.
    pub segment: SegmentId,
}

/// Who introduced themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PersonFound {
    /// One of the user's people, perhaps only now.
    Known {
        /// Who.
        person: PersonId,
        /// As the user calls them.
        name: String,
    },
    /// None of the user's people.
    Nobody,
    /// It cannot be told now.
    Failed,
}

/// How an ear is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EarState {
    /// A stream was opened. Whether it hears is still to be seen.
    Opened {
        /// Position of its first sample: before what is heard now, if some of it is heard again.
        from_sample: u64,
    },
    /// Words come again, or audio no longer waits.
    Listening,
    /// Words come from this engine from now on.
    Serving(&'static str),
    /// An engine failed. The stream goes on with another one, or waits for one: nothing is lost.
    Degraded(SttTrouble),
    /// All recognisers are taken; audio waits.
    Busy,
    /// The engine cannot go on; the text is safe to show.
    Failed(String),
    /// All it was given before the finish is decided.
    Finished,
}

/// What the store answered to [`Output::Open`].
#[derive(Clone, Debug)]
pub struct OpenedConversation {
    /// Its id.
    pub conversation: ConversationId,
    /// Whether it existed before.
    pub resumed: bool,
    /// Zero of its clock.
    pub started_at: UnixMicros,
    /// Last stored content.
    pub finished_at: UnixMicros,
    /// Its last segment.
    pub tail: Option<Segment>,
    /// Whether it has segments or photos.
    pub has_content: bool,
    /// The newest completed conversation of the user.
    pub last_completed: Option<ConversationId>,
    /// Who its speakers are, as they were assigned before; without segments.
    pub speakers: Vec<SpeakerAssignment>,
}

/// Why a batch was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitFailure {
    /// Try again soon (full disk, busy store).
    Retry,
    /// Another session owns the conversation.
    Superseded,
    /// The conversation has ended or is gone.
    Ended,
}

/// What finalising did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was empty and is gone.
    DeletedEmpty,
    /// A job has it now.
    Queued {
        /// Of which conversation.
        conversation: ConversationId,
        /// Which finalisation.
        revision: Revision,
    },
    /// It had ended before, or belongs to another session.
    Already,
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Open a conversation; answer with `Opened` or `OpenFailed`.
    Open(OpenChoice),
    /// Store words in the session's conversation; answer with `Committed` or `CommitFailed`.
    Append(Batch),
    /// Store words that have no audio behind them, by their time, in the conversation that was this session's. No answer.
    AppendElsewhere {
        /// Wall-clock zero of the segments' times.
        zero_at: UnixMicros,
        /// In seconds from there.
        segments: Vec<Segment>,
    },
    /// Store a photo; answer with `PhotoCommitted`.
    AppendPhoto {
        /// Its id.
        id: PhotoId,
        /// Its text.
        base64: String,
    },
    /// Assign stored segments. No answer.
    Assign(SpeakerAssignment),
    /// Look for one of the user's people by name; answer with `PersonFound`.
    FindPerson {
        /// Who is looked for.
        introduction: Introduction,
        /// Whether to make the person if there is none of that name.
        create: bool,
    },
    /// Note the client's reason on the conversation. No answer.
    NoteReason(FinaliseReason),
    /// End the conversation; answer with `Finalised` or `FinaliseFailed`.
    Finalise(FinaliseReason),
    /// Tell whoever asked to finalise now.
    FinaliseAnswer(Ended),
    /// Give the conversation up without ending it. No answer.
    Release,
    /// Open the engine for a channel, for all audio from here on; trouble comes back as `Ear`.
    OpenEngine {
        /// Which.
        channel: usize,
    },
    /// Make the engine decide what it has heard.
    FlushEngine,
    /// No more audio comes; answer with `Ear(Finished)` for each channel.
    FinishEngine,
    /// The conversation is not this session's any more. No answer.
    Disown,
    /// Audio from here on is spooled in a run of its own; the run so far waits for [`Output::Forget`] or
    /// [`Output::LeaveRun`].
    EndRun {
        /// Whose.
        channel: usize,
    },
    /// Leave to repair what is not forgotten of the ended runs that begin before this. Words of that audio never come
    /// from this session.
    LeaveRun {
        /// Whose.
        channel: usize,
        /// In samples at the session's rate; [`u64::MAX`] when the session is over.
        until_sample: u64,
    },
    /// Words of all audio before this are stored.
    Forget {
        /// Whose.
        channel: usize,
        /// In samples at the session's rate.
        until_sample: u64,
    },
    /// Send to the client.
    Emit(Event),
    /// Close the client's connection.
    Close(Close),
}

/// Words to store in one transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// New and changed segments.
    pub upsert: Vec<Segment>,
    /// Absorbed segments.
    pub delete: Vec<SegmentId>,
    /// Set by the first batch of a conversation.
    pub started_at: Option<UnixMicros>,
}

/// Something a client hears of.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// `ping`.
    Ping,
    /// `service_status`.
    Status(ServiceStatus),
    /// `last_memory`.
    LastMemory(ConversationId),
    /// `conversation_session`.
    ConversationSession(ConversationId),
    /// A transcript array.
    Segments(Vec<Segment>),
    /// `segments_deleted`; goes before the array that it belongs to.
    SegmentsDeleted(Vec<SegmentId>),
    /// `memory_processing_started`.
    ProcessingStarted {
        /// Which conversation.
        conversation: ConversationId,
    },
    /// `speaker_label_suggestion`.
    SpeakerSuggestion {
        /// The label's number.
        speaker_number: u32,
        /// Empty unless the connection asked for it.
        person: String,
        /// The person's name.
        name: String,
        /// For which segment.
        segment: SegmentId,
    },
    /// `photo_processing`.
    PhotoProcessing {
        /// The client's id.
        temp_id: String,
        /// Ours.
        photo: PhotoId,
    },
    /// Speech recognition waits or is down; audio is kept.
    SttDegraded {
        /// Which engine, if it is about one.
        engine: Option<&'static str>,
        /// Safe to show.
        reason: String,
        /// When words stopped.
        since: UnixMicros,
        /// Which engine is asked next.
        next: Option<&'static str>,
    },
    /// Speech recognition goes on.
    SttRecovered {
        /// Which engine hears now, if it is known.
        engine: Option<&'static str>,
        /// When words had stopped.
        since: UnixMicros,
    },
    /// Words cannot be stored at the moment, so they are not shown either.
    StorageDegraded,
    /// Words are stored again.
    StorageRecovered,
    /// `onboarding_question`.
    OnboardingQuestion {
        /// From 0.
        index: usize,
        /// How many there are.
        total: usize,
        /// The question.
        text: &'static str,
    },
    /// `question_answered`.
    QuestionAnswered {
        /// From 0.
        index: usize,
    },
    /// `question_skipped`.
    QuestionSkipped {
        /// From 0.
        index: usize,
    },
    /// `onboarding_complete`.
    OnboardingComplete {
        /// How many were answered.
        answers: usize,
    },
}

/// Source: listen-protocol 4.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceStatus {
    /// `initiating`.
    Initiating,
    /// `in_progress_conversations_processing`.
    ConversationsProcessing,
    /// `stt_initiating`.
    SttInitiating,
    /// `ready`.
    Ready,
}

/// Why the server closes a connection. Source: listen-protocol 4.5, and 1012/1013 of the WebSocket registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// 1001: no client frame for too long.
    Inactive,
    /// 1008: an image chunk that cannot be.
    InvalidImage,
    /// 1009: a message over the limit.
    TooLarge,
    /// 1012: the server restarts; come back.
    Restarting,
    /// 1008: the user and all that is theirs is being deleted.
    UserDeleted,
    /// 1013: the client does not read what it is sent.
    TooSlow,
    /// 1011: the audio of this connection cannot be decoded at all (e.g. Opus at 44,100 Hz).
    Undecodable,
}

impl Close {
    /// The metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::InvalidImage => "invalid_image",
            Self::TooLarge => "too_large",
            Self::Restarting => "restarting",
            Self::UserDeleted => "user_deleted",
            Self::TooSlow => "too_slow",
            Self::Undecodable => "undecodable",
        }
    }
}

/// Why a timer is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerReason {
    /// A ping, and the check that the client is there.
    Ping,
    /// Silence has lasted the conversation's timeout.
    Silence,
    /// The engine has had long enough to decide what it heard.
    EngineFlush,
    /// The engine has had long enough after the client left.
    EngineDrain,
    /// The engine is tried again.
    EngineReopen,
    /// The store is tried again.
    StoreRetry,
    /// An unfinished image is dropped.
    ImageExpiry,
    /// An onboarding answer may be complete.
    Onboarding,
}
