//! Full-text search, in Omi's form and in ours.

use auricle_store::SearchHit;
use auricle_wire::rest::{Problem, SearchPage, SearchRequest, SearchResponse};
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::RestState;
use super::answer::{Body, Caller, Params, Refusal, page_limit, page_offset};
use crate::convert;

const WHAT: &str = "Conversation";
/// Characters of a query.
const QUERY_CHARS_MAX: usize = 1_000;
const PAGE: usize = 20;

/// A query.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SearchQuery {
    /// Words that must all occur; quotes make phrases. 1 to 1,000 characters.
    q: String,
    /// How many at most; 20 if absent.
    limit: Option<usize>,
    /// How many better ones to leave out.
    offset: Option<usize>,
}

/// Conversations whose title, overview or transcript matches, best first, with the lines that match.
#[utoipa::path(get, path = "/v1/search", tag = "search", params(SearchQuery), responses(
    (status = 200, body = SearchResponse),
    (status = 422, description = "A parameter is wrong", body = Problem),
))]
pub(super) async fn search(
    Caller(user): Caller,
    State(state): State<RestState>,
    Params(query): Params<SearchQuery>,
) -> Result<Json<SearchResponse>, Refusal> {
    checked(&query.q)?;
    let limit = page_limit(query.limit, PAGE, &state.limits)?;
    let hits = state.store.search(&user, &query.q, limit, page_offset(query.offset)?).await;
    let hits = hits.map_err(|error| Refusal::store(WHAT, error))?;
    let results = hits.iter().map(convert::search_hit).collect();
    Ok(Json(SearchResponse { query: query.q, results }))
}

/// The same in Omi's form: a page of conversations.
#[utoipa::path(post, path = "/v1/conversations/search", tag = "search", request_body = SearchRequest, responses(
    (status = 200, body = SearchPage),
    (status = 422, description = "The body is wrong", body = Problem),
))]
pub(super) async fn search_page(
    Caller(user): Caller,
    State(state): State<RestState>,
    Body(request): Body<SearchRequest>,
) -> Result<Json<SearchPage>, Refusal> {
    let SearchRequest { query, page, per_page } = request;
    checked(&query)?;
    let per_page = page_limit(Some(per_page), PAGE, &state.limits)?;
    let before = page.checked_sub(1).and_then(|pages| pages.checked_mul(per_page));
    let before = before.ok_or_else(|| Refusal::invalid("Pages count from 1"))?;
    // One more than asked for tells whether another page follows.
    let hits = state.store.search(&user, &query, per_page + 1, page_offset(Some(before))?).await;
    let hits: Vec<SearchHit> = hits.map_err(|error| Refusal::store(WHAT, error))?;
    let total_pages = page + usize::from(hits.len() > per_page);
    let items = hits.iter().take(per_page).map(|hit| convert::conversation(&hit.conversation)).collect();
    Ok(Json(SearchPage { items, current_page: page, total_pages, per_page }))
}

fn checked(query: &str) -> Result<(), Refusal> {
    match query.chars().count() {
        1..=QUERY_CHARS_MAX if !query.trim().is_empty() => Ok(()),
        _ => Err(Refusal::invalid(format!("A query is 1 to {QUERY_CHARS_MAX} characters"))),
    }
}
