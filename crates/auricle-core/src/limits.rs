//! Every bound of the server in one place: each with its unit, its default's reason, and what happens when it is reached.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Where one bound is kept.
#[derive(Debug)]
pub enum Bound<'a> {
    /// A number of things, or of bytes if the name says so.
    Usize(&'a mut usize),
    /// A number of things.
    U32(&'a mut u32),
    /// A number of bytes.
    U64(&'a mut u64),
    /// A stretch of time.
    Duration(&'a mut Duration),
}

macro_rules! bound_from {
    ($($variant:ident($kind:ty)),+) => {
        $(impl<'a> From<&'a mut $kind> for Bound<'a> {
            fn from(kept: &'a mut $kind) -> Self {
                Self::$variant(kept)
            }
        })+
    };
}

bound_from!(Usize(usize), U32(u32), U64(u64), Duration(Duration));

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ty = $default:expr;)+) => {
        /// Every bound of the server.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Limits {
            $($(#[doc = $doc])+ pub $name: $kind,)+
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        impl Limits {
            /// Every bound in order: its name, its documentation and where it is kept, for what reads and shows
            /// configuration.
            pub fn bounds(&mut self) -> Vec<(&'static str, &'static str, Bound<'_>)> {
                vec![$((stringify!($name), concat!($($doc, "\n"),+), Bound::from(&mut self.$name)),)+]
            }
        }
    };
}

limits! {
    /// Live sessions of this process. Full: 503 with `Retry-After` at the upgrade. One box carries Omi's fleet (1,320).
    sessions_max: usize = 2_000;
    /// Sessions whose client is gone that are taken apart in the same millisecond. Full: the others wait for their turn, so
    /// that a network that drops thousands at once leaves the living alone: 5,000 take a second or two.
    partings_at_once_max: usize = 4;
    /// Live sessions of one user. Full: 503 at the upgrade. Wide enough for every device of a person.
    sessions_per_user_max: usize = 20;
    /// New sessions a second. Above it an upgrade waits for its turn, up to `accept_wait_max`: clients that were dropped all at
    /// once return all at once. 1,320 are back within 3 s, and that takes half a core.
    accept_rate: u32 = 500;
    /// New sessions at once after a pause. Full: `accept_rate` applies. Small, so that live sessions feel nothing of it.
    accept_burst: u32 = 50;
    /// How long an upgrade waits for its turn. Full: 503 with `Retry-After`. Short beside any client's patience; with
    /// `accept_rate` it bounds how many wait. A refusal costs an Omi phone one of its eight tries.
    accept_wait_max: Duration = Duration::from_secs(2);
    /// Refusing newcomers for their number longer than this turns readiness: others should get them.
    accept_refusing_max: Duration = Duration::from_secs(1);
    /// Longest time that `Retry-After` names.
    retry_after_max: Duration = Duration::from_secs(10);
    /// Bytes in memory on behalf of clients, of all sessions: what waits to be written to them, audio that waits for an engine,
    /// for its conversation or for the spool, unfinished and unstored pictures. Full: new sessions are refused with 503; those
    /// that live go on under their own bounds. Readiness turns at four fifths. 8 s of audio for each of `sessions_max`; half of
    /// a machine of 1 GiB.
    bytes_in_flight_max: usize = 512 * MIB;
    /// Open connections of the public port, sessions included. Full: the connection is dropped. Room for refusals beside a
    /// full house of sessions.
    connections_max: usize = 4_000;
    /// Open connections of the probe port. Full: the connection is dropped.
    probe_connections_max: usize = 256;
    /// REST requests at once. Full: 503 with `Retry-After`.
    requests_running_max: usize = 64;
    /// Deadline of one REST request. Full: 504.
    request_max: Duration = Duration::from_secs(60);
    /// Bytes of one client message. Full: close 1009. Omi's largest is a 10 MiB pusher backlog; clients send KiB.
    client_message_bytes_max: usize = MIB;
    /// Bytes waiting to be written to one client. Full: the socket is closed with 1013; its conversation is safe.
    client_outbox_bytes_max: usize = MIB;
    /// Messages waiting in one session's inbox from engine and store. Full: the sender waits (engine) or it is counted.
    session_inbox_max: usize = 64;
    /// `ping` interval. Source: listen-protocol 5.1.
    ping_every: Duration = Duration::from_secs(10);
    /// Without any client frame for this long the session ends with 1001. Source: listen-protocol 5.1.
    client_silent_max: Duration = Duration::from_secs(90);
    /// How long `/v4/web/listen` waits for its first message. Source: listen-protocol 1.5.
    web_auth_wait: Duration = Duration::from_secs(5);
    /// How long an upgrade request's headers may take. Full: the connection is dropped (slowloris).
    request_head_wait: Duration = Duration::from_secs(10);
    /// Shortest conversation timeout a client can ask for, also the default. Source: listen-protocol 5.2.
    conversation_timeout_min: Duration = Duration::from_secs(120);
    /// The timeout that `-1` and multi-channel stand for. Source: listen-protocol 5.2.
    conversation_timeout_long: Duration = Duration::from_secs(14_400);
    /// How often a live conversation's silence and status are checked. Source: listen-protocol 5.1.
    lifecycle_check_every: Duration = Duration::from_secs(5);
    /// How long after a client left its engine may take to finish the last words. Full: the spool keeps the audio and
    /// the repair loop transcribes it.
    engine_drain_max: Duration = Duration::from_secs(30);
    /// How long a conversation that ends waits for the engine to decide what it heard. Full: as with `engine_drain_max`.
    engine_flush_max: Duration = Duration::from_secs(10);
    /// Until the connection to a speech service is open. Full: the stream fails, its audio stays in the spool.
    engine_connect_max: Duration = Duration::from_secs(10);
    /// A connection to a speech service on which nothing is heard for this long, pongs to three pings included, or which takes
    /// nothing, is dead. Full: as with `engine_connect_max`.
    engine_silent_max: Duration = Duration::from_secs(30);
    /// First wait before a failed engine is opened again for a session.
    engine_reopen_first: Duration = Duration::from_secs(2);
    /// Longest wait before a session asks for speech recognition again. Asking costs no attempt at an engine: that is decided
    /// for the whole process (`speech_attempts_per_minute_max`).
    engine_reopen_max: Duration = Duration::from_secs(8);
    /// Undecided audio of one stream that is kept to be played to the next engine, in seconds: as packets, if it comes as Opus or
    /// LC3 (some 3 KB a second), else as one byte a sample (16 KB a second at 16 kHz). Full: the oldest goes; should the engine
    /// fail now, the stretch is left to the spool's repair instead.
    speech_replay_secs_max: u32 = 30;
    /// The same of all streams. Full: as with `speech_replay_secs_max`.
    speech_replay_total_bytes_max: usize = 256 * MIB;
    /// An engine that decides nothing for this long while somebody speaks has failed. One that gathers longer stretches names
    /// its own time.
    speech_silent_max: Duration = Duration::from_secs(10);
    /// Failed streams of one engine, of all sessions, that open its breaker.
    speech_breaker_failures: usize = 5;
    /// Within which time.
    speech_breaker_window: Duration = Duration::from_secs(30);
    /// How long the breaker lets nobody try at first, and up to half longer by chance. Then one tries, for all.
    speech_breaker_open_first: Duration = Duration::from_secs(2);
    /// The same at last: it doubles with each try that fails.
    speech_breaker_open_max: Duration = Duration::from_secs(15);
    /// The same of an engine that is over its quota and does not say for how long.
    speech_limited_for: Duration = Duration::from_secs(60);
    /// The same of an engine that refuses what it is asked (credentials), and the longest wait that it can ask for.
    speech_refused_for: Duration = Duration::from_secs(300);
    /// Attempts a minute at one engine that has failed and not yet worked again, or not worked yet at all, of all sessions.
    /// Full: streams wait, their audio is kept. 500 sessions are back in 25 s.
    speech_attempts_per_minute_max: u32 = 1_200;
    /// Of these at once, after a pause.
    speech_attempts_burst: u32 = 40;
    /// Streams whose preferred engine works again return to it within this time, each at a moment of its own, at a pause.
    speech_return_within: Duration = Duration::from_secs(20);
    /// Segments of one session that wait for their commit. Full: the engine is made to wait.
    segments_uncommitted_max: usize = 1_000;
    /// Characters of one segment's text that merging may reach; a longer one is left and a new one begun.
    segment_chars_max: usize = 20_000;
    /// Segments of one `suggested_transcript`. Full: the message is ignored and counted.
    suggested_segments_max: usize = 1_000;
    /// Image uploads under way in one session. Full: the oldest is dropped. Source: listen-protocol 3.1.
    image_uploads_max: usize = 50;
    /// Chunks of one image. Full: close 1008. Source: listen-protocol 3.1.
    image_chunks_max: u32 = 4_096;
    /// Bytes of one image's text over all chunks. Full: the upload is dropped and counted.
    image_bytes_max: usize = 8 * MIB;
    /// Bytes of all unfinished images of one session. Full: the oldest upload is dropped and counted.
    image_uploads_bytes_max: usize = 16 * MIB;
    /// How long an unfinished image is kept. Source: listen-protocol 3.1.
    image_upload_age_max: Duration = Duration::from_secs(60);
    /// Times a photo is tried again while the store is full or busy. Full: the photo is lost and counted.
    photo_attempts_max: u32 = 60;
    /// Decoded audio that waits for an engine, in seconds, for one session. Full: oldest is dropped from memory, stays in the
    /// spool, and is transcribed by the repair loop.
    engine_backlog_secs_max: u32 = 60;
    /// Bytes of spooled audio of one session: about 45 minutes of PCM or 5 hours of Opus. Full: newest is counted as lost.
    spool_session_bytes_max: u64 = 96 * 1024 * 1024;
    /// Bytes of spooled audio of the whole process. Full: newest is counted as lost.
    spool_total_bytes_max: u64 = 8 * 1024 * 1024 * 1024;
    /// Received audio is on disk after at most this long; what `kill -9` may cost is at most twice this.
    spool_flush_every: Duration = Duration::from_millis(400);
    /// Bytes queued for the spool's thread. Full: the audio is counted as not spooled; the session goes on.
    spool_queue_bytes_max: usize = 64 * MIB;
    /// Attempts to transcribe left-over audio before its gap is marked on the conversation.
    spool_repair_attempts_max: u32 = 5;
    /// How often the spool is looked through for left-over audio without being told of any, and how long what could not be transcribed
    /// waits for its next attempt. If only an engine was missing, it waits until one has worked, if that is sooner.
    spool_repair_every: Duration = Duration::from_secs(5);
    /// Stretches of left-over audio that are transcribed at once; with an engine that decodes on this machine at most half as many
    /// as there are cores. Full: the others wait on disk, oldest first, one of each user before the second of any.
    spool_repairs_at_once_max: usize = 8;
    /// Writes queued for the store's writer. Full: callers wait for room, up to `store_wait_max`.
    store_queue_max: usize = 8_192;
    /// Longest a write waits for the store. Full: an error that says so; a session keeps its words and tries again.
    store_wait_max: Duration = Duration::from_secs(10);
    /// How long a pusher lets go of the store's file after each transaction, so that the words of a listening process on the
    /// same file get their turn within a millisecond. It still makes some hundred transactions a second, of many writes each.
    store_breather: Duration = Duration::from_millis(1);
    /// Writes of one transaction. Full: the next begin the next transaction.
    store_batch_max: usize = 512;
    /// Bytes of the database's file. Full: as with a full disk: sessions are told, readiness turns, deleting makes room.
    store_bytes_max: u64 = 1024 * 1024 * 1024 * 1024;
    /// Pause between two steps of sealing what was stored before there was a key. A step takes the store's writer some
    /// milliseconds, so that live words hardly wait for it.
    protection_step_every: Duration = Duration::from_millis(50);
    /// Bytes of a database that is written anew as soon as all of it is sealed: every write waits meanwhile, for about a second.
    /// Full: a warning says so, and `auricle protect rotate` does it while no server runs.
    protection_compact_bytes_max: u64 = 256 * 1024 * 1024;
    /// How long a failed write of words waits before it is tried again.
    store_retry_every: Duration = Duration::from_secs(1);
    /// Job attempts that run at once in this process. Full: jobs wait as rows.
    jobs_running_max: usize = 2;
    /// Attempts of one job. Full: the conversation is `failed`, visible, and can be retried.
    job_attempts_max: u32 = 5;
    /// How long a job waits for a language model that is away: attempts that end for that are not counted. Full: the
    /// conversation is `failed`, visible, and can be retried. Outlasts an outage of a night; also ends a transcript that no
    /// model answers in time.
    job_away_max: Duration = Duration::from_secs(86_400);
    /// Deadline of one attempt. Full: the attempt counts as failed.
    job_attempt_max: Duration = Duration::from_secs(300);
    /// A job's lease; a worker that does not renew for this long has lost it.
    lease: Duration = Duration::from_secs(15);
    /// How often a held lease is renewed.
    lease_renew_every: Duration = Duration::from_secs(5);
    /// First and longest wait between attempts of a job.
    job_backoff_first: Duration = Duration::from_secs(2);
    /// Longest wait between attempts of a job.
    job_backoff_max: Duration = Duration::from_secs(600);
    /// Effects delivered at once. Full: they wait as rows. Source: pusher-and-processing 5.1.
    effects_running_max: usize = 64;
    /// Of these, to one host (what goes to a user's own clients counts as one). Full: the others of that host wait as rows, so
    /// that a host that hangs holds up itself alone.
    effects_per_host_max: usize = 4;
    /// Attempts of one effect at a receiver that is not away. Full: it is `failed`, counted, and can be revived (`auricle jobs
    /// retry --effects`).
    effect_attempts_max: u32 = 12;
    /// How long an effect waits for a receiver that is away: attempts that end for that are not counted. Full: as with
    /// `effect_attempts_max`. Outlasts a weekend.
    effect_age_max: Duration = Duration::from_secs(259_200);
    /// Longest wait between attempts at a receiver that is away.
    effect_backoff_max: Duration = Duration::from_secs(3_600);
    /// Deadline of one delivery. Source: pusher-and-processing 5.1.
    effect_attempt_max: Duration = Duration::from_secs(15);
    /// How long the connection of a delivery may take. Full: it is tried again. Source: pusher-and-processing 5.1.
    effect_connect_max: Duration = Duration::from_secs(2);
    /// Webhooks and apps of one user. Full: no more can be added.
    targets_per_user_max: usize = 50;
    /// A webhook or app whose deliveries all fail for this long: its user is warned.
    target_warn_after: Duration = Duration::from_secs(86_400);
    /// The same: it is switched off, and what waits for it fails visibly.
    target_off_after: Duration = Duration::from_secs(259_200);
    /// Fewer failures than this in a row have neither consequence.
    target_failures_min: u32 = 3;
    /// A change of a webhook's settings counts for live sessions after at most this.
    target_settings_age_max: Duration = Duration::from_secs(2);
    /// How often what realtime deliveries came to is written to their webhook's row.
    target_notes_every: Duration = Duration::from_secs(10);
    /// Bytes of a receiver's answer that are read. Full: the answer holds no message.
    webhook_answer_bytes_max: usize = 64 * KIB;
    /// Characters of an app's message. Full: the rest is cut off.
    message_chars_max: usize = 4_000;
    /// Messages kept of one user. Full: the oldest go.
    messages_per_user_max: usize = 1_000;
    /// People of one user. Full: no more can be added; introductions are suggested without a person.
    people_per_user_max: usize = 500;
    /// Voices kept of one person. Full: the oldest of that person goes.
    voices_per_person_max: usize = 20;
    /// Voices kept of one user's people. Full: the oldest of the person whose voice comes goes; who has none gets none. A match
    /// reads all of them.
    voices_per_user_max: usize = 1_000;
    /// Numbers of one voice's vector. More are refused with 422.
    voice_numbers_max: usize = 2_048;
    /// Segments that one request assigns by their ids. More are refused with 422.
    segments_assigned_max: usize = 1_000;
    /// Receivers of webhooks whose health is remembered. Full: the one not asked about for longest is forgotten.
    webhook_hosts_max: usize = 1_024;
    /// Failed deliveries to one receiver's host that open its breaker. Source: pusher-and-processing 5.1.
    webhook_breaker_failures: usize = 5;
    /// Within which time.
    webhook_breaker_window: Duration = Duration::from_secs(600);
    /// How long nobody tries that host. Source: pusher-and-processing 5.1.
    webhook_breaker_open_for: Duration = Duration::from_secs(30);
    /// Deadline of one call of the language model, under `job_attempt_max`. Full: the model counts as away; it is asked again.
    llm_call_max: Duration = Duration::from_secs(60);
    /// How long the connection to the language model may take. Full: as with `llm_call_max`.
    llm_connect_max: Duration = Duration::from_secs(5);
    /// Bytes of the language model's answer; real ones are some KiB. Full: as with an answer that makes no sense.
    llm_answer_bytes_max: usize = MIB;
    /// Characters of transcript that the language model is given, in one call or in parts: a day of talk. Full: the middle is
    /// left out, and it is told so.
    llm_transcript_chars_max: usize = 400_000;
    /// Calls of the language model at once. Full: a call waits for its turn, up to `llm_call_max`; then its job waits, uncounted.
    llm_calls_running_max: usize = 8;
    /// Thousands of tokens a minute, of all calls of the language model: what was estimated before, and told after. Full: jobs
    /// wait until there are enough, uncounted.
    llm_kilotokens_per_minute: u32 = 10_000;
    /// How long a job waits for a language model that is away before rules make its record, if `llm.fallback` is `local`. The
    /// model makes it anew when it is back.
    llm_fallback_after: Duration = Duration::from_secs(1_800);
    /// Failed calls of the language model that open its breaker: jobs then wait, untried.
    llm_breaker_failures: usize = 5;
    /// Within which time. Room for that many calls that hang.
    llm_breaker_window: Duration = Duration::from_secs(600);
    /// How long nobody calls the language model.
    llm_breaker_open_for: Duration = Duration::from_secs(30);
    /// Texts of one call of the embedding server. Full: the next call takes the rest.
    embed_batch_items_max: usize = 32;
    /// Bytes of the texts of one call. Full: the next call takes the rest.
    embed_batch_bytes_max: usize = 128 * KIB;
    /// Transcript chunks of one conversation that are embedded: a day of talk. Full: later ones are found by words alone.
    embed_chunks_max: usize = 1_000;
    /// Deadline of one call of the embedding server. Full: it counts as away; embedding is done later.
    embed_call_max: Duration = Duration::from_secs(30);
    /// How long the connection to the embedding server may take. Full: as with `embed_call_max`.
    embed_connect_max: Duration = Duration::from_secs(5);
    /// Bytes of the embedding server's answer: 32 vectors of 4,096 numbers are 3 MiB. Full: as with an answer that makes no
    /// sense.
    embed_answer_bytes_max: usize = 16 * MIB;
    /// Attempts at one conversation whose texts the embedding server does not take. Full: it is found by words alone, and
    /// tried again after the next start.
    embed_attempts_max: u32 = 5;
    /// Pause between two conversations that are embedded, so that a whole archive leaves room for what is new.
    embed_pause: Duration = Duration::from_millis(20);
    /// Failed calls of the embedding server that open its breaker.
    embed_breaker_failures: usize = 5;
    /// Within which time.
    embed_breaker_window: Duration = Duration::from_secs(300);
    /// How long nobody calls the embedding server.
    embed_breaker_open_for: Duration = Duration::from_secs(30);
    /// How long a search waits for its query's embedding. Full: it answers by words alone and says so.
    search_meaning_wait: Duration = Duration::from_secs(2);
    /// Bytes of vectors that searches by meaning keep in memory, of all users: 100,000 chunks of 768 numbers are 75 MiB. Full:
    /// those of the user who did not search for longest go; a user with more than this is searched from the disk.
    search_vectors_bytes_max: usize = 256 * MIB;
    /// Bytes that searches by words keep of where users' segments stand: 100,000 segments are 1.2 MiB. Full: those of the user
    /// who did not search for longest go, and are read again, from an index, by their next search.
    search_places_bytes_max: usize = 64 * MIB;
    /// How often it is looked whose day is to be summarised.
    days_plan_every: Duration = Duration::from_secs(60);
    /// Days back that are still summarised by themselves, after the server was off. Full: older ones only when they are asked for.
    days_catch_up_max: usize = 7;
    /// How long after its end a day waits for conversations of it that are not records yet. Full: it is summarised without them.
    days_wait_max: Duration = Duration::from_secs(6 * 3_600);
    /// Conversations of one day that its summary rests on. Full: later ones are left out.
    day_conversations_max: usize = 500;
    /// Commits that wait for a session's translations. Full: the newest is not translated.
    translation_inbox_max: usize = 32;
    /// Translations, of a batch each, that wait for their session. Full: the newest is stored and not shown.
    translation_events_max: usize = 8;
    /// How long a segment is left alone after its last word before it is translated: it may grow.
    translation_quiet: Duration = Duration::from_secs(2);
    /// How long one that goes on growing waits at most.
    translation_wait_max: Duration = Duration::from_secs(8);
    /// Segments of one call. Full: the next call takes the others.
    translation_batch_segments_max: usize = 16;
    /// Characters of one call, and of one segment. Full: as above; a longer segment is not translated.
    translation_batch_chars_max: usize = 4_000;
    /// Segments of one session that wait. Full: the oldest is not translated.
    translation_waiting_max: usize = 64;
    /// Calls of the language model for translations at once, of all sessions: the rest of `llm_calls_running_max` is for records.
    /// Full: a batch waits within its `translation_call_max`.
    translations_running_max: usize = 2;
    /// How long a call for translations may take, its wait for a place included. Full: its segments are not translated.
    translation_call_max: Duration = Duration::from_secs(15);
    /// Longest pause after a call that failed; the first is `translation_quiet`. Also how long a session waits before it looks again
    /// whether its user has said which language they read.
    translation_pause_max: Duration = Duration::from_secs(30);
    /// How often the sweeper looks for conversations without a client and leases without an owner.
    sweep_every: Duration = Duration::from_secs(5);
    /// A conversation that this process owns and no session of it has for this long is given up. Longer than any call to the
    /// store takes.
    stray_after: Duration = Duration::from_secs(30);
    /// How much longer than its timeout a pusher leaves a conversation without a client to listening processes, which may hold
    /// audio of it that becomes words first.
    sweep_others_after: Duration = Duration::from_secs(600);
    /// Rows that one step of deleting a user takes. Full: the next step goes on. A few milliseconds of the store's writer.
    erase_rows_max: usize = 200;
    /// Conversations one sweep takes on. Full: the next sweep goes on.
    sweep_batch_max: usize = 100;
    /// A background loop without a heartbeat for this long is restarted.
    loop_stall_max: Duration = Duration::from_secs(30);
    /// A session worker or store writer without progress for this long turns `/livez` to 503.
    worker_stall_max: Duration = Duration::from_secs(10);
    /// Entries of the cache of refused tokens. Full: the oldest is dropped.
    refused_tokens_max: usize = 10_000;
    /// How long a refused token is refused again without looking.
    refused_token_age_max: Duration = Duration::from_secs(30);
    /// API keys whose owner is remembered. Full: the oldest are forgotten and looked up again.
    api_keys_known_max: usize = 10_000;
    /// How long an API key is taken without looking; a removed key is refused after at most this.
    api_key_age_max: Duration = Duration::from_secs(10);
    /// Longest wait for an issuer's signing keys. Full: tokens are refused for now (4001), and asked about again.
    signing_keys_wait: Duration = Duration::from_secs(5);
    /// Bytes of an issuer's key set; published ones are some KiB. Full: the set is not taken.
    signing_keys_bytes_max: usize = 256 * KIB;
    /// Signing keys are not fetched sooner than this after the last time, whatever keys tokens name.
    signing_keys_refetch_min: Duration = Duration::from_secs(15);
    /// Signing keys are used for this long while the issuer cannot be reached; issuers keep a key for days.
    signing_keys_age_max: Duration = Duration::from_secs(86_400);
    /// How long `POST /v1/conversations` waits for the record. Full: it answers with `processing`. With a session's ending
    /// it stays under `request_max`.
    record_wait: Duration = Duration::from_secs(30);
    /// Requests that wait for a record at once; under `requests_running_max`, so that a language model that hangs leaves the
    /// rest of REST alone. Full: the ending is asked for and the answer comes at once, with the conversation as it is.
    records_awaited_max: usize = 32;
    /// Bytes of a REST request's body. Full: 413.
    request_body_bytes_max: usize = MIB;
    /// Exports of everything a user has, at once. Full: 503. Each takes a thread, and a conversation's size in memory.
    exports_running_max: usize = 2;
    /// Channels of one `/v1/listen` stream that are heard apart, each by an engine of its own. More are refused with 400.
    speech_channels_max: usize = 8;
    /// Words that one `/v1/listen` stream asks to be expected (`keyterm`, `keywords`). More are refused with 400. A hundred are what
    /// speech services are told.
    speech_key_terms_max: usize = 100;
    /// Bytes of all of them. More are refused with 400. A service that is told too much refuses the stream, which would count against
    /// it for everybody: Deepgram takes 500 tokens, and none is shorter than a byte.
    speech_key_terms_bytes_max: usize = 480;
    /// A `/v1/listen` stream without audio and without `KeepAlive` for this long ends with 1011 (`NET-0001`), as Deepgram's does.
    speech_idle_max: Duration = Duration::from_secs(10);
    /// A `/v1/listen` stream or a file whose engine decides nothing of the audio it has for this long: the stream ends with 1011
    /// (`NET-0000`), the file's attempt fails.
    speech_stuck_max: Duration = Duration::from_secs(60);
    /// How long writing one message of `/v1/listen` may take. Full: the connection is dropped.
    speech_write_max: Duration = Duration::from_secs(10);
    /// Files of `/v1/audio/transcriptions` at once, receiving and transcribing. Full: 429 with `Retry-After`.
    transcriptions_running_max: usize = 4;
    /// Deadline of one such request, its body included. Full: 504.
    transcription_max: Duration = Duration::from_secs(1_800);
    /// Bytes of one uploaded file, also of `/v1/audio/transcriptions`. Full: 413, and nothing of it is kept.
    upload_bytes_max: u64 = 512 * 1024 * 1024;
    /// Seconds of audio in one file. Full: it fails, with this number in its reason.
    upload_secs_max: u32 = 86_400;
    /// A body that brings nothing for this long is given up with 408.
    upload_stall_max: Duration = Duration::from_secs(30);
    /// Requests that bring uploads at once. Full: 429 with `Retry-After`.
    uploads_receiving_max: usize = 8;
    /// Files of one request. More are refused with 422; Omi's app sends a few.
    upload_files_max: usize = 100;
    /// Uploads of one user that wait to be transcribed. Full: 429.
    uploads_waiting_per_user_max: usize = 2_000;
    /// Bytes of all uploads on disk, of those that failed too. Full: 507 until some are transcribed or deleted.
    uploads_disk_bytes_max: u64 = 16 * 1024 * 1024 * 1024;
    /// Uploads that are transcribed at once: each can take a recogniser from live sessions. Full: they wait as rows.
    uploads_running_max: usize = 1;
    /// Attempts to transcribe an upload. Full: it is `failed`, with a reason; its file is kept until it is deleted or retried.
    upload_attempts_max: u32 = 5;
    /// Bytes of audio that is kept (`audio.keep`), of all users. Full: what comes is not kept, and counted, until older audio has
    /// gone by its age or with its conversation.
    audio_kept_bytes_max: u64 = 16 * 1024 * 1024 * 1024;
    /// How often kept audio is looked through for what is too old or belongs to no conversation.
    audio_sweep_every: Duration = Duration::from_secs(3_600);
    /// Recordings that `GET /v1/conversations/{id}/audio` sends at once. Full: 503. Each takes a thread, and what sounds in memory.
    audio_answers_running_max: usize = 4;
    /// Seconds of one such recording, silence included. Full: 422; parts of it can be had.
    audio_answer_secs_max: u64 = 43_200;
    /// How long those who want kept audio wait for the spool to let go of what it has. Full: they have what is there.
    audio_settle_max: Duration = Duration::from_secs(5);
    /// Conversations that are heard again at once: each can take a recogniser from live sessions. Full: they wait as rows.
    retranscriptions_running_max: usize = 1;
    /// How long hearing a conversation again waits for a speech engine that is away, or for audio that is still to be heard for the
    /// first time, before it is tried anew. Such tries are not counted.
    retranscription_away_for: Duration = Duration::from_secs(5);
    /// Attempts to hear a conversation again. Full: the job is `failed`, with a reason; the transcript stays as it was.
    retranscription_attempts_max: u32 = 5;
    /// Replaced transcripts of one conversation that stay readable. Full: the oldest goes.
    revisions_kept_max: usize = 20;
    /// Conversations in one page of a listing. More are refused with 422.
    list_page_max: usize = 200;
    /// Failed tries to reach the pusher after which a link is degraded. Source of the link's numbers:
    /// pusher-and-processing 2.1.
    link_attempts_max: u32 = 6;
    /// First wait between tries.
    link_backoff_first: Duration = Duration::from_secs(1);
    /// Longest wait between tries.
    link_backoff_max: Duration = Duration::from_secs(60);
    /// How long a degraded link waits before it tries again, and up to a quarter longer. One that the breaker rejected waits
    /// for the breaker instead.
    link_degraded_for: Duration = Duration::from_secs(60);
    /// How long a link that the breaker rejects waits while another probes, before it asks again.
    link_probe_wait: Duration = Duration::from_secs(2);
    /// How long one try to connect may take.
    link_connect_max: Duration = Duration::from_secs(10);
    /// A connection that ends sooner than this counts as a failed try: a pusher that lets everybody in and throws them out at
    /// once is not there.
    link_stable_after: Duration = Duration::from_secs(10);
    /// How often a link says that it lives; balancers end connections without data.
    link_heartbeat_every: Duration = Duration::from_secs(20);
    /// A link that has heard nothing for this long, pongs included, is taken for dead.
    link_silent_max: Duration = Duration::from_secs(60);
    /// How long writing one frame may take. Full: the connection is taken for dead.
    link_write_max: Duration = Duration::from_secs(10);
    /// How often words and audio are sent in batches.
    link_flush_every: Duration = Duration::from_secs(1);
    /// How long a request waits for its answer before it is sent again.
    link_request_wait: Duration = Duration::from_secs(120);
    /// How often a request is sent. Full: the hint is dropped; its job is found without it.
    link_request_tries_max: u32 = 3;
    /// Requests of one session without an answer. Full: the oldest hint is dropped.
    link_requests_max: usize = 100;
    /// Segments that wait for one session's link. Full: the oldest are dropped.
    link_segments_max: usize = 1_000;
    /// Audio that waits for one session's link. Full: the oldest is dropped.
    link_audio_bytes_max: usize = 10 * MIB;
    /// Audio that waits for all links of the process. Full: what comes is dropped.
    link_audio_total_bytes_max: usize = 256 * MIB;
    /// Audio or text of one frame; more is sent in pieces. Well under the 16 MiB that a pusher takes, whatever characters JSON
    /// escapes.
    link_frame_bytes_max: usize = MIB;
    /// Speaker samples that wait for one session's link. Full: the oldest is dropped.
    link_samples_max: usize = 50;
    /// Inputs of one session that its link has not taken. Full: they are dropped; jobs are found without them.
    link_inputs_max: usize = 256;
    /// How long a link goes on after its session's end to send what waits.
    link_leave_max: Duration = Duration::from_secs(5);
    /// Failures to reach the pusher, of all sessions, that open the breaker. Source: pusher-and-processing 2.2.
    breaker_failures: usize = 20;
    /// Within which time.
    breaker_window: Duration = Duration::from_secs(30);
    /// How long the breaker lets nobody through.
    breaker_open_for: Duration = Duration::from_secs(60);
    /// Requests to process that a pusher watches. Full: they are answered as failed for now.
    requests_watched_max: usize = 10_000;
    /// How long a pusher watches a request. Full: it is answered as failed for now; its job goes on.
    request_watch_max: Duration = Duration::from_secs(1_500);
    /// A pusher closes a link on which it has heard nothing for this long. Source: pusher-and-processing 1.1 (R4).
    pusher_silent_max: Duration = Duration::from_secs(300);
    /// Pieces of one session's words and audio that its realtime triggers have not taken. Full: they are dropped and counted.
    trigger_inputs_max: usize = 256;
    /// Realtime triggers of one link that wait to be delivered. Full: the oldest are dropped.
    pusher_link_bytes_max: usize = 20 * MIB;
    /// Realtime triggers of all links that wait or are under way, and audio that is not yet long enough for one. Full: a link
    /// that comes with more drops its oldest, or what came.
    pusher_total_bytes_max: usize = 256 * MIB;
    /// How long a job waits for the pusher before a listening process takes it itself, while the pusher can be reached.
    fallback_after: Duration = Duration::from_secs(5);
    /// How long a drain may take; then the store has `drain_tail_max` to give back what this process owns. Together within
    /// the 30 s that Kubernetes waits by default.
    drain_max: Duration = Duration::from_secs(20);
    /// How long giving leases back and closing the store may take at the end. Full: leases run out by themselves.
    drain_tail_max: Duration = Duration::from_secs(5);
}

impl Limits {
    /// The timeout in force for what a client asked, in seconds. Source: listen-protocol 5.2.
    pub fn conversation_timeout(&self, asked_secs: Option<i64>) -> Duration {
        match asked_secs {
            Some(-1) => self.conversation_timeout_long,
            Some(secs) => {
                Duration::from_secs(u64::try_from(secs).unwrap_or(0)).max(self.conversation_timeout_min)
            }
            None => self.conversation_timeout_min,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversation_timeout_follows_the_table_of_section_5_2() {
        let limits = Limits::default();
        for (asked, effective) in [
            (None, 120),
            (Some(-1), 14_400),
            (Some(5), 120),
            (Some(-7), 120),
            (Some(121), 121),
            (Some(90_000), 90_000),
        ] {
            assert_eq!(limits.conversation_timeout(asked).as_secs(), effective, "{asked:?}");
        }
    }
}
