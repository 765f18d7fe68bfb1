//! The OpenAPI document, and the routes that need no user.

use std::sync::LazyLock;

use auricle_wire::rest::{Problem, Status};
use axum::Json;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::{
    action_items, assign, audio, conversations, days, export, finalise, jobs, memories, people, retranscribe,
    search, status, transcriptions, uploads, users, webhooks,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Auricle", description = "Conversations that were heard, their records, and what became of them."),
    paths(
        finalise::finalise,
        conversations::list,
        conversations::read,
        conversations::remove,
        conversations::rename,
        conversations::reprocess,
        conversations::photos,
        retranscribe::retranscribe,
        retranscribe::progress,
        audio::audio,
        retranscribe::revisions,
        retranscribe::revision,
        assign::segment,
        assign::bulk,
        assign::speaker,
        search::search,
        search::search_page,
        action_items::list,
        action_items::create,
        action_items::export,
        action_items::read,
        action_items::change,
        action_items::remove,
        memories::list,
        memories::create,
        memories::export,
        memories::read,
        memories::change,
        memories::remove,
        days::list,
        days::read,
        days::summarise,
        jobs::list,
        jobs::read,
        jobs::retry,
        jobs::retry_failed,
        jobs::retry_effects,
        webhooks::list,
        webhooks::add,
        webhooks::read,
        webhooks::change,
        webhooks::remove,
        webhooks::rotate,
        webhooks::test,
        webhooks::deliveries,
        webhooks::replay,
        webhooks::messages,
        transcriptions::transcribe,
        uploads::list,
        uploads::upload,
        uploads::read,
        uploads::remove,
        uploads::retry,
        uploads::sync_v1,
        uploads::sync,
        uploads::sync_status,
        people::list,
        people::create,
        people::match_voice,
        people::read,
        people::rename,
        people::remove,
        people::add_voice,
        users::me,
        users::erase,
        export::export,
        users::set_language,
        users::set_time_zone,
        health,
        v1_health,
        serve,
    ),
    components(schemas(Problem, auricle_wire::transcription::VerboseTranscription)),
    modifiers(&Everywhere)
)]
struct Document;

/// What holds for every operation that asks who calls: the credentials, and the answers that any of them may give.
struct Everywhere;

const EVERYWHERE: [(&str, &str); 5] = [
    ("401", "No or no good credentials"),
    ("403", "A page of another site may not act as the local user; only the operator acts for everybody"),
    ("500", "Trouble of the server's own, with a reference to its log"),
    ("503", "Too much at once, or the store is busy or full; see Retry-After"),
    ("504", "It took too long"),
];

impl Modify for Everywhere {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "An API key, an ID token, or the admin key followed by a user id. None on loopback.",
            ))
            .build();
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("bearer", SecurityScheme::Http(bearer));
        for item in document.paths.paths.values_mut() {
            let operations =
                [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
            operations.into_iter().flatten().filter(|operation| !is_public(operation)).for_each(guard);
        }
    }
}

fn is_public(operation: &Operation) -> bool {
    operation.tags.iter().flatten().any(|tag| tag == "server")
}

fn guard(operation: &mut Operation) {
    operation.security =
        Some(vec![SecurityRequirement::new("bearer", Vec::<String>::new()), SecurityRequirement::default()]);
    let mut everywhere = EVERYWHERE.to_vec();
    if operation.request_body.is_some() {
        everywhere.push(("413", "The body is too long"));
        everywhere.push(("422", "The body is wrong"));
    }
    for (code, description) in everywhere {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        let response =
            ResponseBuilder::new().description(description).content("application/json", content).build();
        operation.responses.responses.entry(code.to_owned()).or_insert(RefOr::T(response));
    }
}

static DOCUMENT: LazyLock<utoipa::openapi::OpenApi> = LazyLock::new(Document::openapi);

/// The OpenAPI document of [`super::router`].
pub fn document() -> &'static utoipa::openapi::OpenApi {
    &DOCUMENT
}

/// Whether the server answers at all; depends on nothing else.
#[utoipa::path(get, path = "/health", tag = "server", responses((status = 200, body = Status)))]
pub(super) async fn health() -> Json<Status> {
    status("ok")
}

/// The same under Omi's name.
#[utoipa::path(get, path = "/v1/health", tag = "server", responses((status = 200, body = Status)))]
pub(super) async fn v1_health() -> Json<Status> {
    status("ok")
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "server", responses(
    (status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json"),
))]
pub(super) async fn serve() -> Json<&'static utoipa::openapi::OpenApi> {
    Json(document())
}
