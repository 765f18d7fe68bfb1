//! The REST interface: what people and apps read and change outside a live session. Omi's routes and shapes where Omi has
//! them; the rest is ours.
//!
//! Owns: routes, bounds on what is asked, answers, the OpenAPI document. Leaves to others: rules and atomicity (the
//! store), live sessions ([`LiveSessions`]), where it runs (never on a session worker).
//! Invariants: everybody sees only their own, and what is another's answers exactly as what does not exist; every route
//! is in the document; bad input is a 4xx with a `detail`, and no detail of the server's own trouble leaves it.

mod action_items;
mod answer;
mod assign;
mod audio;
mod conversations;
mod days;
mod export;
mod finalise;
mod forms;
mod jobs;
mod memories;
mod openapi;
mod people;
mod pieces;
mod receive;
mod retranscribe;
mod search;
mod transcriptions;
mod uploads;
mod users;
mod webhooks;

use std::sync::Arc;

use async_trait::async_trait;
use auricle_core::session::Ended;
use auricle_core::{Assignee, ConversationId, Limits, SegmentId, UserId};
use auricle_process::Embed;
use auricle_speech::Engine;
use auricle_store::Store;
use auricle_store::vault::Vault;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::{delete, get, patch, post, put};
use axum::{Json, Router};
use jiff::tz::TimeZone;
use tokio::sync::{Notify, Semaphore};

use self::answer::Refusal;
pub use self::openapi::document;
pub use self::retranscribe::Audio;
pub(crate) use self::transcriptions::opener;
use crate::auth::Authenticator;
use crate::clock::SystemClock;
pub use crate::outgoing::Outgoing;

/// The live sessions of this process.
#[async_trait]
pub trait LiveSessions: Send + Sync + 'static {
    /// The conversation that the newest session of `user` owns.
    fn current(&self, user: &UserId) -> Option<ConversationId>;

    /// Closes every session of a user who is being deleted, and sees to it that the rest is deleted.
    fn dismiss(&self, user: &UserId);

    /// Tells the session that owns the conversation, if it is of this process, what is stored already: whom segments were
    /// assigned to; and if all of a speaker's were meant, the label's number and the person's name.
    fn reassigned(
        &self,
        user: &UserId,
        conversation: &ConversationId,
        segments: Vec<SegmentId>,
        to: Assignee,
        speaker: Option<(u32, String)>,
    );

    /// Asks the session that owns the conversation to end it now, and waits (bounded) until it has. `None` if no session
    /// of this process owns it, or it did not answer in time.
    async fn finalise(&self, user: &UserId, conversation: &ConversationId) -> Option<Ended>;

    /// Whether audio of the conversation is still to be heard from disk.
    fn awaits_repair(&self, _conversation: &ConversationId) -> bool {
        false
    }
}

/// What handlers of files share.
pub struct Files {
    /// Where files are kept.
    pub vault: Vault,
    /// What transcribes them.
    pub engine: Arc<dyn Engine>,
    /// `limits.transcriptions_running_max` places.
    pub transcriptions: Semaphore,
    /// `limits.uploads_receiving_max` places.
    pub receiving: Semaphore,
    /// Wakes the uploader.
    pub wake: Arc<Notify>,
}

impl Files {
    /// With all places free.
    pub fn new(vault: Vault, engine: Arc<dyn Engine>, limits: &Limits) -> Self {
        Self {
            vault,
            engine,
            transcriptions: Semaphore::new(limits.transcriptions_running_max),
            receiving: Semaphore::new(limits.uploads_receiving_max),
            wake: Arc::default(),
        }
    }
}

/// What the handlers share.
#[derive(Clone)]
pub struct RestState {
    /// Durable things.
    pub store: Arc<dyn Store>,
    /// Who is asking.
    pub auth: Arc<Authenticator>,
    /// Sessions of this process.
    pub live: Arc<dyn LiveSessions>,
    /// Wakes the workers: there is a job.
    pub wake_jobs: Arc<dyn Fn() + Send + Sync>,
    /// `limits.records_awaited_max` places for those who wait for a record.
    pub waits: Arc<Semaphore>,
    /// What tests of webhooks go out by, and what their addresses are checked by.
    pub outgoing: Arc<Outgoing>,
    /// Places for exports.
    pub exports: Arc<Semaphore>,
    /// Bounds.
    pub limits: Arc<Limits>,
    /// Time.
    pub clock: SystemClock,
    /// Of users who have set none.
    pub time_zone: TimeZone,
    /// What makes a vector of a query, if anything does.
    pub embed: Option<Arc<dyn Embed>>,
    /// For requests that bring files.
    pub files: Arc<Files>,
    /// Kept audio, and who hears it again.
    pub audio: Arc<Audio>,
}

/// One table for the router and for the test that compares it with the document.
macro_rules! routes {
    ($($method:ident $path:literal => $handler:path;)+) => {
        /// Method and path of every route.
        pub const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),+];

        fn routes() -> Router<RestState> {
            Router::new()$(.route($path, $method($handler)))+
        }
    };
}

routes! {
    post "/v1/conversations" => finalise::finalise;
    get "/v1/conversations" => conversations::list;
    post "/v1/conversations/search" => search::search_page;
    get "/v1/conversations/{id}" => conversations::read;
    delete "/v1/conversations/{id}" => conversations::remove;
    patch "/v1/conversations/{id}/title" => conversations::rename;
    post "/v1/conversations/{id}/reprocess" => conversations::reprocess;
    post "/v1/conversations/{id}/retranscribe" => retranscribe::retranscribe;
    get "/v1/conversations/{id}/retranscribe" => retranscribe::progress;
    get "/v1/conversations/{id}/audio" => audio::audio;
    get "/v1/conversations/{id}/revisions" => retranscribe::revisions;
    get "/v1/conversations/{id}/revisions/{revision}" => retranscribe::revision;
    get "/v1/conversations/{id}/photos" => conversations::photos;
    patch "/v1/conversations/{id}/segments/{idx}/assign" => assign::segment;
    patch "/v1/conversations/{id}/segments/assign-bulk" => assign::bulk;
    patch "/v1/conversations/{id}/assign-speaker/{speaker_id}" => assign::speaker;
    get "/v1/search" => search::search;
    get "/v1/action-items" => action_items::list;
    post "/v1/action-items" => action_items::create;
    get "/v1/action-items/export" => action_items::export;
    get "/v1/action-items/{id}" => action_items::read;
    patch "/v1/action-items/{id}" => action_items::change;
    delete "/v1/action-items/{id}" => action_items::remove;
    get "/v1/memories" => memories::list;
    post "/v1/memories" => memories::create;
    get "/v1/memories/export" => memories::export;
    get "/v1/memories/{id}" => memories::read;
    patch "/v1/memories/{id}" => memories::change;
    delete "/v1/memories/{id}" => memories::remove;
    get "/v1/days" => days::list;
    get "/v1/days/{date}" => days::read;
    post "/v1/days/{date}/summarise" => days::summarise;
    get "/v1/jobs" => jobs::list;
    get "/v1/jobs/{id}" => jobs::read;
    post "/v1/jobs/{id}/retry" => jobs::retry;
    post "/v1/jobs/retry" => jobs::retry_failed;
    post "/v1/effects/retry" => jobs::retry_effects;
    get "/v1/webhooks" => webhooks::list;
    post "/v1/webhooks" => webhooks::add;
    get "/v1/webhooks/{id}" => webhooks::read;
    patch "/v1/webhooks/{id}" => webhooks::change;
    delete "/v1/webhooks/{id}" => webhooks::remove;
    post "/v1/webhooks/{id}/rotate" => webhooks::rotate;
    post "/v1/webhooks/{id}/test" => webhooks::test;
    get "/v1/webhooks/{id}/deliveries" => webhooks::deliveries;
    post "/v1/webhooks/{id}/replay" => webhooks::replay;
    get "/v1/messages" => webhooks::messages;
    post "/v1/audio/transcriptions" => transcriptions::transcribe;
    get "/v1/uploads" => uploads::list;
    post "/v1/uploads" => uploads::upload;
    get "/v1/uploads/{id}" => uploads::read;
    delete "/v1/uploads/{id}" => uploads::remove;
    post "/v1/uploads/{id}/retry" => uploads::retry;
    post "/v1/sync-local-files" => uploads::sync_v1;
    post "/v2/sync-local-files" => uploads::sync;
    get "/v2/sync-local-files/{job_id}" => uploads::sync_status;
    get "/v1/users/people" => people::list;
    post "/v1/users/people" => people::create;
    post "/v1/users/people/match" => people::match_voice;
    get "/v1/users/people/{id}" => people::read;
    patch "/v1/users/people/{id}/name" => people::rename;
    delete "/v1/users/people/{id}" => people::remove;
    post "/v1/users/people/{id}/voices" => people::add_voice;
    get "/v1/users/me" => users::me;
    get "/v1/users/me/export" => export::export;
    put "/v1/users/me/language" => users::set_language;
    put "/v1/users/me/time-zone" => users::set_time_zone;
    delete "/v1/users/me" => users::erase;
    get "/v1/health" => openapi::v1_health;
    get "/health" => openapi::health;
    get "/openapi.json" => openapi::serve;
}

/// Whether a request may bring a file, and so may take longer than others (`limits.transcription_max`).
pub fn brings_files(method: &axum::http::Method, path: &str) -> bool {
    let files = ["/v1/audio/transcriptions", "/v1/uploads", "/v1/sync-local-files", "/v2/sync-local-files"];
    method == axum::http::Method::POST && files.contains(&path)
}

/// All routes. Handlers may wait for the store and, when finalising, for `limits.record_wait` and a session's end.
pub fn router(state: RestState) -> Router {
    let body_max = state.limits.request_body_bytes_max;
    routes()
        .fallback(async || Refusal::new(StatusCode::NOT_FOUND, "Not Found"))
        .method_not_allowed_fallback(async || {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
        })
        .layer(DefaultBodyLimit::max(body_max))
        .with_state(state)
}

/// `{"status": …}`.
fn status(text: &str) -> Json<auricle_wire::rest::Status> {
    Json(auricle_wire::rest::Status { status: text.to_owned() })
}
