//! A language model's server in OpenAI's form.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Served, answer, broken_off, slowly};

const TITLE_WORDS: usize = 6;
const ITEMS_MAX: usize = 5;

/// What it does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LlmMode {
    /// Answers with a record made from the transcript: title from the first line, an action item of each line with "will".
    Answer,
    /// Answers that nothing is worth keeping.
    Discard,
    /// Says nothing for this long, and then answers.
    Hang(Duration),
    /// Answers at once, but the answer takes this long.
    Slow(Duration),
    /// Answers with this status, and an error whose message repeats the prompt.
    Status(u16),
    /// Answers 429 with `Retry-After` of so many seconds.
    Busy(u64),
    /// Answers 200 with text that is no completion.
    Garbage,
    /// Answers 200 with a completion whose content is no JSON.
    Prose,
    /// Answers with a record that has no title.
    EmptyTitle,
    /// Closes the connection in the middle of the answer.
    Reset,
}

struct Known {
    mode: LlmMode,
    calls: HashMap<String, usize>,
    last: Option<(HeaderMap, Value)>,
}

struct Shared {
    known: Mutex<Known>,
    count: watch::Sender<usize>,
}

/// A running stand-in. Stops when dropped.
///
/// Keeps one number for each conversation, and the last call.
pub struct LlmStandIn {
    served: Served,
    shared: Arc<Shared>,
}

impl LlmStandIn {
    /// On a free port of loopback; answers.
    pub async fn start() -> std::io::Result<Self> {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    /// On this address, e.g. where one was before.
    pub async fn start_at(address: SocketAddr) -> std::io::Result<Self> {
        let known = Known { mode: LlmMode::Answer, calls: HashMap::new(), last: None };
        let shared = Arc::new(Shared { known: Mutex::new(known), count: watch::Sender::new(0) });
        let router = Router::new()
            .route("/v1/chat/completions", post(complete))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::clone(&shared));
        Ok(Self { served: Served::start(address, router).await?, shared })
    }

    /// `http://HOST:PORT`.
    pub fn url(&self) -> String {
        self.served.url()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.served.address
    }

    /// From the next call on.
    pub fn set(&self, mode: LlmMode) {
        self.shared.known().mode = mode;
    }

    /// Calls so far.
    pub fn calls(&self) -> usize {
        *self.shared.count.borrow()
    }

    /// Waits until there have been so many calls.
    pub async fn called(&self, calls: usize) {
        // Cannot fail: the sender lives as long as `self`.
        let _ = self.shared.count.subscribe().wait_for(|count| *count >= calls).await;
    }

    /// Calls for the conversation of this id.
    pub fn calls_for(&self, conversation: &str) -> usize {
        self.shared.known().calls.get(conversation).copied().unwrap_or(0)
    }

    /// Calls for each conversation.
    pub fn calls_by_conversation(&self) -> HashMap<String, usize> {
        self.shared.known().calls.clone()
    }

    /// Headers and body of the last call.
    pub fn last(&self) -> Option<(HeaderMap, Value)> {
        self.shared.known().last.clone()
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn complete(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let Ok(request) = serde_json::from_slice::<Value>(&body) else {
        return answer(StatusCode::BAD_REQUEST, r#"{"error":{"code":"invalid_json"}}"#);
    };
    let mode = {
        let mut known = shared.known();
        *known.calls.entry(conversation(&headers)).or_default() += 1;
        known.last = Some((headers, request.clone()));
        known.mode
    };
    shared.count.send_modify(|count| *count += 1);
    let prompt = request["messages"][1]["content"].as_str().unwrap_or_default();
    let record = completion(&record(prompt).to_string());
    let ok = |body: Body| answer(StatusCode::OK, body);
    match mode {
        LlmMode::Answer => ok(record.into()),
        LlmMode::Discard => {
            let mut set_aside = self::record(prompt);
            set_aside["discard"] = true.into();
            set_aside["title"] = "".into();
            ok(completion(&set_aside.to_string()).into())
        }
        LlmMode::Hang(time) => {
            tokio::time::sleep(time).await;
            ok(record.into())
        }
        LlmMode::Slow(time) => ok(slowly(record, time)),
        LlmMode::Status(status) => {
            let error = json!({ "error": { "code": "as_told", "message": format!("no: {prompt}") } });
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            answer(status, error.to_string())
        }
        LlmMode::Busy(secs) => {
            let error = r#"{"error":{"code":"rate_limit_exceeded"}}"#;
            let mut busy = answer(StatusCode::TOO_MANY_REQUESTS, error);
            busy.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(secs));
            busy
        }
        LlmMode::Garbage => ok("<html>so sorry</html>".into()),
        LlmMode::Prose => ok(completion("I would rather not write JSON.").into()),
        LlmMode::EmptyTitle => {
            let mut untitled = self::record(prompt);
            untitled["title"] = " ".into();
            ok(completion(&untitled.to_string()).into())
        }
        LlmMode::Reset => ok(broken_off(&record)),
    }
}

/// By the id that Auricle gives its calls: `conversation:{id}:understand:{revision}`.
fn conversation(headers: &HeaderMap) -> String {
    let id = headers.get("x-client-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let id = id.strip_prefix("conversation:").unwrap_or(id);
    id.split_once(":understand:").map_or(id, |(conversation, _)| conversation).to_owned()
}

fn completion(content: &str) -> String {
    let message = json!({ "role": "assistant", "content": content, "refusal": null });
    json!({
        "object": "chat.completion",
        "model": "stand-in",
        "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }],
    })
    .to_string()
}

fn record(prompt: &str) -> Value {
    let transcript = prompt.split_once("Transcript:\n").map_or(prompt, |(_, transcript)| transcript);
    let lines: Vec<_> =
        transcript.lines().filter_map(|line| line.split_once(": ")).map(|(_, said)| said).collect();
    let first = lines.first().copied().unwrap_or("Nothing said");
    let title: Vec<_> = first.split_whitespace().take(TITLE_WORDS).collect();
    let items = lines.iter().filter(|line| line.contains(" will ")).take(ITEMS_MAX);
    let items: Vec<_> = items.map(|line| json!({ "description": line, "due_at": null })).collect();
    json!({
        "discard": false,
        "title": title.join(" "),
        "overview": format!("It begins: {first}"),
        "emoji": "🗣️",
        "category": "work",
        "action_items": items,
        "events": [],
    })
}
