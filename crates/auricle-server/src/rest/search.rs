//! Search by words and by meaning; by words also in Omi's form.

use std::collections::HashMap;

use auricle_core::fusion::fuse;
use auricle_core::{ConversationId, UserId};
use auricle_store::{Near, Record, SearchHit, Snippet};
use auricle_wire::rest::{Problem, SearchPage, SearchRequest, SearchResponse, SearchResult};
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
/// Of each ranking, so many of the best are fused: more for who pages on. Full: worse ones are not found by this query.
const RANKED: usize = 100;
const RANKED_MAX: usize = 500;
/// Less near than this is not near: every conversation has some cosine with every query.
const SIMILARITY_MIN: f32 = 0.2;
/// Whether a search was also by meaning.
const ON: &str = "on";
const OFF: &str = "off";
const AWAY: &str = "away";

/// What is searched for, and where.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SearchQuery {
    /// By words: all must occur, quotes make phrases. By meaning, where an embedding server is configured: any sentence. 1 to
    /// 1,000 characters. `q` is the same.
    #[serde(alias = "q")]
    query: String,
    /// How many at most; 20 if absent.
    limit: Option<usize>,
    /// How many better ones to leave out. By meaning, 500 are ranked at most.
    offset: Option<usize>,
    /// Comma-separated of `conversations`, `action_items` and `memories`; conversations if absent.
    #[param(example = "conversations,memories")]
    kinds: Option<String>,
}

/// What the user has of these kinds that matches, best first, with the lines that match and why. Conversations are found by
/// words and by meaning, and the two rankings are fused; action items and memories are found by words.
#[utoipa::path(get, path = "/v1/search", tag = "search", params(SearchQuery), responses(
    (status = 200, body = SearchResponse),
    (status = 422, description = "A parameter is wrong", body = Problem),
))]
pub(super) async fn search(
    Caller(user): Caller,
    State(state): State<RestState>,
    Params(query): Params<SearchQuery>,
) -> Result<Json<SearchResponse>, Refusal> {
    checked(&query.query)?;
    let limit = page_limit(query.limit, PAGE, &state.limits)?;
    let offset = page_offset(query.offset)?;
    let kinds = Kinds::parse(query.kinds.as_deref())?;
    let text = query.query;
    let depth = if offset + limit <= RANKED { RANKED } else { RANKED_MAX };
    let store = &state.store;
    let refused = |error| Refusal::store(WHAT, error);
    let (near, words, records) = tokio::join!(
        async {
            match kinds.conversations {
                true => near(&state, &user, &text, depth).await,
                false => Ok((OFF, Vec::new())),
            }
        },
        async {
            match kinds.conversations {
                true => store.search_ranks(&user, &text, depth, 0).await.map_err(refused),
                false => Ok(Vec::new()),
            }
        },
        async {
            match kinds.records() {
                true => store.search_records(&user, &text, depth).await.map_err(refused),
                false => Ok(Vec::new()),
            }
        },
    );
    let ((meaning, near), mut words, records) = (near?, words?, records?);
    // By words alone the store pages by itself, however far.
    let alone = near.is_empty() && !kinds.records();
    if alone && offset + limit > depth {
        words = store.search_ranks(&user, &text, limit, offset).await.map_err(refused)?;
    } else if alone {
        words = words.into_iter().skip(offset).take(limit).collect();
    }
    let skipped = if alone { 0 } else { offset };
    let records: Vec<_> = records.into_iter().filter(|(record, _)| kinds.has(record)).collect();
    let by_words: Vec<_> = words.iter().map(|found| Key::Conversation(found.conversation.clone())).collect();
    let by_meaning: Vec<_> = near.iter().map(|near| Key::Conversation(near.conversation.clone())).collect();
    let of_records: Vec<_> = (0..records.len()).map(Key::Record).collect();
    let fused = fuse([&by_words, &by_meaning, &of_records]);
    let page: Vec<_> = fused.into_iter().skip(skipped).take(limit).collect();
    // Only what is on the page is read: lines that match by words, or else the nearest text.
    let in_words = page.iter().filter_map(|fused| fused.ranks[0]).map(|rank| words[rank - 1].clone());
    let only_near = page.iter().filter(|fused| fused.ranks[0].is_none()).filter_map(|fused| fused.ranks[1]);
    let only_near = only_near.map(|rank| near[rank - 1].clone()).collect();
    let mut hits = store.search_hits(&user, &text, in_words.collect()).await.map_err(refused)?;
    hits.extend(store.near_hits(&user, only_near).await.map_err(refused)?);
    let shown: HashMap<_, _> = hits.iter().map(|hit| (&hit.conversation.id, hit)).collect();
    let first = if alone { offset } else { 0 };
    let results = page.iter().filter_map(|fused| {
        let [in_words, in_meaning, in_records] = fused.ranks;
        let mut result = match &fused.key {
            Key::Record(number) => record_result(&records[*number]),
            Key::Conversation(id) => conversation_result(shown.get(id).copied()?),
        };
        result.score = fused.score;
        result.words_rank = in_words.map(|rank| first + rank).or(in_records);
        result.meaning_rank = in_meaning;
        result.similarity = in_meaning.map(|rank| f64::from(near[rank - 1].similarity));
        let why = [("words", result.words_rank), ("meaning", in_meaning)];
        result.matched =
            why.iter().filter(|(_, rank)| rank.is_some()).map(|(why, _)| (*why).to_owned()).collect();
        Some(result)
    });
    let results = results.collect();
    Ok(Json(SearchResponse { query: text, meaning: meaning.to_owned(), results }))
}

/// Conversations near in meaning, and whether that was asked. Waits for the embedding for `limits.search_meaning_wait` at most.
async fn near(
    state: &RestState,
    user: &UserId,
    text: &str,
    depth: usize,
) -> Result<(&'static str, Vec<Near>), Refusal> {
    let Some(embed) = &state.embed else { return Ok((OFF, Vec::new())) };
    let texts = [text.to_owned()];
    let asked = tokio::time::timeout(state.limits.search_meaning_wait, embed.embed(&texts)).await;
    let vector = match asked {
        Ok(Ok(vectors)) => vectors.into_iter().next(),
        Ok(Err(error)) => {
            tracing::debug!(%error, "embed a query");
            None
        }
        Err(_late) => None,
    };
    let outcome = if vector.is_some() { ON } else { AWAY };
    metrics::counter!("auricle_searches_total", "meaning" => outcome).increment(1);
    let Some(vector) = vector else { return Ok((AWAY, Vec::new())) };
    let near = state.store.nearest(user, embed.model(), vector, depth).await;
    let mut near = near.map_err(|error| Refusal::store(WHAT, error))?;
    near.retain(|near| near.similarity >= SIMILARITY_MIN);
    Ok((ON, near))
}

/// What a result is of.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Conversation(ConversationId),
    /// The so-manieth that was found.
    Record(usize),
}

/// What is searched.
struct Kinds {
    conversations: bool,
    action_items: bool,
    memories: bool,
}

impl Kinds {
    fn parse(text: Option<&str>) -> Result<Self, Refusal> {
        let mut kinds = Self { conversations: text.is_none(), action_items: false, memories: false };
        for word in text.unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "conversations" => kinds.conversations = true,
                "action_items" => kinds.action_items = true,
                "memories" => kinds.memories = true,
                _ => return Err(Refusal::invalid("Kinds are conversations, action_items, memories")),
            }
        }
        if !kinds.conversations && !kinds.records() {
            return Err(Refusal::invalid("Name one kind at least: conversations, action_items, memories"));
        }
        Ok(kinds)
    }

    fn records(&self) -> bool {
        self.action_items || self.memories
    }

    fn has(&self, record: &Record) -> bool {
        match record {
            Record::ActionItem(_) => self.action_items,
            Record::Memory(_) => self.memories,
        }
    }
}

fn result(kind: &str, snippets: &[Snippet]) -> SearchResult {
    SearchResult {
        kind: kind.to_owned(),
        conversation: None,
        action_item: None,
        memory: None,
        snippets: snippets.iter().map(convert::snippet).collect(),
        score: 0.0,
        matched: Vec::new(),
        words_rank: None,
        meaning_rank: None,
        similarity: None,
    }
}

fn conversation_result(hit: &SearchHit) -> SearchResult {
    let conversation = Some(convert::conversation(&hit.conversation));
    SearchResult { conversation, ..result("conversation", &hit.snippets) }
}

fn record_result((record, text): &(Record, String)) -> SearchResult {
    let snippets = [Snippet { text: text.clone(), segment: None, start: None }];
    match record {
        Record::ActionItem(item) => {
            let action_item = Some(convert::action_item(item));
            SearchResult { action_item, ..result("action_item", &snippets) }
        }
        Record::Memory(memory) => {
            SearchResult { memory: Some(convert::memory(memory)), ..result("memory", &snippets) }
        }
    }
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
