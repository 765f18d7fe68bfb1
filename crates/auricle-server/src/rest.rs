//! The REST interface: what people and apps read and change outside a live session. Omi's routes and shapes where Omi has
//! them; the rest is ours.
//!
//! Owns: routes, bounds on what is asked, answers, the OpenAPI document. Leaves to others: rules and atomicity (the
//! store), live sessions ([`LiveSessions`]), where it runs (never on a session worker).
//! Invariants: everybody sees only their own, and what is another's answers exactly as what does not exist; every route
//! is in the document; bad input is a 4xx with a `detail`, and no detail of the server's own trouble leaves it.

mod answer;
mod conversations;
mod export;
mod finalise;
mod jobs;
mod openapi;
mod search;
mod users;

use std::sync::Arc;

use async_trait::async_trait;
use auricle_core::session::Ended;
use auricle_core::{ConversationId, Limits, UserId};
use auricle_store::Store;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::{delete, get, patch, post, put};
use axum::{Json, Router};
use tokio::sync::Semaphore;

use self::answer::Refusal;
pub use self::openapi::document;
use crate::auth::Authenticator;
use crate::clock::SystemClock;

/// The live sessions of this process.
#[async_trait]
pub trait LiveSessions: Send + Sync + 'static {
    /// The conversation that the newest session of `user` owns.
    fn current(&self, user: &UserId) -> Option<ConversationId>;

    /// Closes every session of a user who is being deleted, and sees to it that the rest is deleted.
    fn dismiss(&self, user: &UserId);

    /// Asks the session that owns the conversation to end it now, and waits (bounded) until it has. `None` if no session
    /// of this process owns it, or it did not answer in time.
    async fn finalise(&self, user: &UserId, conversation: &ConversationId) -> Option<Ended>;
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
    /// Places for exports.
    pub exports: Arc<Semaphore>,
    /// Bounds.
    pub limits: Arc<Limits>,
    /// Time.
    pub clock: SystemClock,
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
    get "/v1/conversations/{id}/photos" => conversations::photos;
    get "/v1/search" => search::search;
    get "/v1/jobs" => jobs::list;
    get "/v1/jobs/{id}" => jobs::read;
    post "/v1/jobs/{id}/retry" => jobs::retry;
    post "/v1/jobs/retry" => jobs::retry_failed;
    post "/v1/effects/retry" => jobs::retry_effects;
    get "/v1/users/me" => users::me;
    get "/v1/users/me/export" => export::export;
    put "/v1/users/me/time-zone" => users::set_time_zone;
    delete "/v1/users/me" => users::erase;
    get "/v1/health" => openapi::v1_health;
    get "/health" => openapi::health;
    get "/openapi.json" => openapi::serve;
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
