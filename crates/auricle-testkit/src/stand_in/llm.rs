//! A language model's server in OpenAI's form.

use std::collections::{HashMap, VecDeque};
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
const NOTES_MAX: usize = 30;
/// What every call is said to have taken.
const PROMPT_TOKENS: u32 = 700;
const COMPLETION_TOKENS: u32 = 80;
/// Requests that are kept, the newest.
const REQUESTS_MAX: usize = 256;

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
    /// Takes no JSON schema, as DeepSeek: 400. What is asked in another form is answered.
    NoSchema,
    /// Takes no form of output at all: 422. What is asked without is answered in a fence.
    NoFormat,
    /// Answers 200 with a completion whose content is JSON that breaks off.
    Malformed,
    /// Answers 200 with a completion whose content is JSON of another form.
    WrongSchema,
    /// Answers with JSON of another form until it is shown its own answer.
    Mended,
    /// Answers with so many bytes.
    Huge(usize),
}

struct Known {
    mode: LlmMode,
    calls: HashMap<String, usize>,
    last: Option<(HeaderMap, Value)>,
    requests: VecDeque<Value>,
    scripts: HashMap<String, Value>,
}

struct Shared {
    known: Mutex<Known>,
    count: watch::Sender<usize>,
}

/// A running stand-in. Stops when dropped.
///
/// Keeps one number for each conversation, and the newest requests.
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
        let known = Known {
            mode: LlmMode::Answer,
            calls: HashMap::new(),
            last: None,
            requests: VecDeque::new(),
            scripts: HashMap::new(),
        };
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

    /// From now on the record of this conversation is `record`, in every mode that answers.
    pub fn script(&self, conversation: &str, record: Value) {
        self.shared.known().scripts.insert(conversation.to_owned(), record);
    }

    /// Bodies of the newest calls, in their order.
    pub fn requests(&self) -> Vec<Value> {
        self.shared.known().requests.iter().cloned().collect()
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
    let id = conversation(&headers);
    let (mode, scripted) = {
        let mut known = shared.known();
        *known.calls.entry(id.clone()).or_default() += 1;
        known.last = Some((headers, request.clone()));
        if known.requests.len() >= REQUESTS_MAX {
            known.requests.pop_front();
        }
        known.requests.push_back(request.clone());
        (known.mode, known.scripts.get(&id).cloned())
    };
    shared.count.send_modify(|count| *count += 1);
    let prompt = request["messages"][1]["content"].as_str().unwrap_or_default();
    let is_notes = asks_for_notes(&request);
    let content = match (scripted, kind_of(&request)) {
        (_, "day") => day(prompt),
        (_, "translations") => translations(prompt),
        (Some(record), _) if !is_notes => record,
        _ if is_notes => notes(prompt),
        _ => record(prompt),
    };
    let record = completion(&content.to_string());
    let format = &request["response_format"]["type"];
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
            let mut untitled = content;
            untitled["title"] = " ".into();
            ok(completion(&untitled.to_string()).into())
        }
        LlmMode::Reset => ok(broken_off(&record)),
        LlmMode::NoSchema if format == "json_schema" => {
            let error = json!({ "message": "This response_format type is unavailable now", "code": "invalid_request_error" });
            answer(StatusCode::BAD_REQUEST, json!({ "error": error }).to_string())
        }
        LlmMode::NoFormat if !format.is_null() => {
            let error = r#"{"detail":"response_format is not supported"}"#;
            answer(StatusCode::UNPROCESSABLE_ENTITY, error)
        }
        LlmMode::NoSchema => ok(record.into()),
        LlmMode::NoFormat => ok(completion(&format!("Here it is:\n```json\n{content}\n```")).into()),
        LlmMode::Malformed => {
            let whole = content.to_string();
            ok(completion(whole.get(..whole.len() - 2).unwrap_or_default()).into())
        }
        LlmMode::Mended if request["messages"].as_array().is_some_and(|messages| messages.len() > 2) => {
            ok(record.into())
        }
        LlmMode::WrongSchema | LlmMode::Mended => ok(completion(r#"{"summary":["of","sorts"]}"#).into()),
        LlmMode::Huge(bytes) => ok(completion(&"x".repeat(bytes)).into()),
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
    let usage = json!({ "prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS });
    json!({
        "usage": usage,
        "object": "chat.completion",
        "model": "stand-in",
        "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }],
    })
    .to_string()
}

/// What is asked for, by the name of its schema.
fn kind_of(request: &Value) -> &str {
    request["response_format"]["json_schema"]["name"].as_str().unwrap_or_default()
}

/// A highlight of each record, and one that rests on none.
fn day(prompt: &str) -> Value {
    let lines = lines(prompt);
    let highlight = |(number, said): &(&str, &str)| json!({ "topic": format!("Record {number}"), "summary": said, "conversations": [number.parse::<u32>().unwrap_or(0)] });
    let mut highlights: Vec<_> = lines.iter().map(highlight).collect();
    highlights.push(json!({ "topic": "Invented", "summary": "Of nothing.", "conversations": [] }));
    json!({
        "headline": format!("A day of {}", lines.len()),
        "overview": "What was said on that day.",
        "emoji": "📅",
        "highlights": highlights,
    })
}

/// Each line behind the language's code; a line that begins with it is in that language already.
fn translations(prompt: &str) -> Value {
    let target = prompt.lines().next().and_then(|line| line.rsplit(": ").next()).unwrap_or_default();
    let lines =
        prompt.lines().skip_while(|line| *line != "<lines>").skip(1).take_while(|line| *line != "</lines>");
    let translated = lines.filter_map(|line| line.split_once(' ')).map(|(number, said)| {
        let same = said.starts_with(target);
        let text = if same { String::new() } else { format!("{target} {said}") };
        json!({ "number": number.parse::<u32>().unwrap_or(0), "same": same, "text": text })
    });
    json!({ "translations": translated.collect::<Vec<_>>() })
}

/// By the schema, or in the forms without one by the description.
fn asks_for_notes(request: &Value) -> bool {
    let schema = &request["response_format"]["json_schema"]["name"];
    let system = request["messages"][0]["content"].as_str().unwrap_or_default();
    schema == "notes" || (schema.is_null() && system.contains(r#""notes":"#))
}

/// What is in the transcript's block, or in that of the notes: each line's numbers, and what was said.
fn lines(prompt: &str) -> Vec<(&str, &str)> {
    let block = |tag: &str| {
        prompt.split_once(&format!("<{tag}>\n"))?.1.split_once(&format!("\n</{tag}>")).map(|(lines, _)| lines)
    };
    let lines = block("transcript")
        .or_else(|| block("notes"))
        .or_else(|| block("records"))
        .unwrap_or_default()
        .lines();
    let lines = lines.filter_map(|line| line.split_once(' '));
    lines.map(|(numbers, line)| (numbers, line.split_once(": ").map_or(line, |(_, said)| said))).collect()
}

/// A note on every so many lines, the first among them.
fn notes(prompt: &str) -> Value {
    let lines = lines(prompt);
    let noted = lines.iter().step_by(lines.len().div_ceil(NOTES_MAX).max(1));
    let notes = noted.map(|(numbers, said)| {
        let numbers: Vec<u32> = numbers.split(',').filter_map(|number| number.parse().ok()).collect();
        json!({ "text": said, "lines": numbers })
    });
    json!({ "notes": notes.collect::<Vec<_>>() })
}

fn record(prompt: &str) -> Value {
    let lines: Vec<_> = lines(prompt).into_iter().map(|(_, said)| said).collect();
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
        "events": [],
        "sections": [],
        "action_items": items,
        "memories": [],
    })
}
