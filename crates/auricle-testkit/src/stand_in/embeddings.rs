//! An embedding server in OpenAI's form, whose vectors are bags of words: texts that share words are near.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Served, answer};

/// Numbers of a vector, unless others are asked for.
const DIMENSIONS: usize = 256;
/// Words that are one to it, as to a model that knows what they mean.
const MEANINGS: [(&str, &str); 6] = [
    ("physician", "doctor"),
    ("automobile", "car"),
    ("vehicle", "car"),
    ("purchase", "buy"),
    ("residence", "house"),
    ("home", "house"),
];

/// What it does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddingsMode {
    /// Answers.
    Answer,
    /// Says nothing for this long, and then answers.
    Hang(Duration),
    /// Answers with this status.
    Status(u16),
    /// Answers 429 with `Retry-After` of so many seconds.
    Busy(u64),
    /// Answers 200 with text that is no list of embeddings.
    Garbage,
    /// Answers 200 with one embedding too few.
    Short,
}

struct Known {
    mode: EmbeddingsMode,
    requests: Vec<Value>,
}

struct Shared {
    known: Mutex<Known>,
    count: watch::Sender<usize>,
}

/// A running stand-in. Stops when dropped. Keeps all requests.
pub struct EmbeddingsStandIn {
    served: Served,
    shared: Arc<Shared>,
}

impl EmbeddingsStandIn {
    /// On a free port of loopback; answers.
    pub async fn start() -> std::io::Result<Self> {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    /// On this address, e.g. where one was before.
    pub async fn start_at(address: SocketAddr) -> std::io::Result<Self> {
        let known = Known { mode: EmbeddingsMode::Answer, requests: Vec::new() };
        let shared = Arc::new(Shared { known: Mutex::new(known), count: watch::Sender::new(0) });
        let router = Router::new()
            .route("/v1/embeddings", post(embed))
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
    pub fn set(&self, mode: EmbeddingsMode) {
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

    /// Bodies of the calls so far.
    pub fn requests(&self) -> Vec<Value> {
        self.shared.known().requests.clone()
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn embed(State(shared): State<Arc<Shared>>, body: Bytes) -> Response<Body> {
    let Ok(request) = serde_json::from_slice::<Value>(&body) else {
        return answer(StatusCode::BAD_REQUEST, r#"{"error":{"code":"invalid_json"}}"#);
    };
    let mode = {
        let mut known = shared.known();
        known.requests.push(request.clone());
        known.mode
    };
    shared.count.send_modify(|count| *count += 1);
    let texts = match &request["input"] {
        Value::String(text) => vec![text.as_str()],
        Value::Array(texts) => texts.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let dimensions = request["dimensions"].as_u64().and_then(|number| usize::try_from(number).ok());
    let embeddings: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let embedding = bag_of_words(text, dimensions.unwrap_or(DIMENSIONS));
            json!({ "object": "embedding", "index": index, "embedding": embedding })
        })
        .collect();
    let list = |data: &[Value]| {
        let usage = json!({ "prompt_tokens": 1, "total_tokens": 1 });
        json!({ "object": "list", "model": request["model"], "data": data, "usage": usage }).to_string()
    };
    match mode {
        EmbeddingsMode::Answer => answer(StatusCode::OK, list(&embeddings)),
        EmbeddingsMode::Hang(time) => {
            tokio::time::sleep(time).await;
            answer(StatusCode::OK, list(&embeddings))
        }
        EmbeddingsMode::Status(status) => {
            let error = json!({ "error": { "code": "as_told", "message": format!("no: {texts:?}") } });
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            answer(status, error.to_string())
        }
        EmbeddingsMode::Busy(secs) => {
            let mut busy =
                answer(StatusCode::TOO_MANY_REQUESTS, r#"{"error":{"code":"rate_limit_exceeded"}}"#);
            busy.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(secs));
            busy
        }
        EmbeddingsMode::Garbage => answer(StatusCode::OK, "<html>so sorry</html>"),
        EmbeddingsMode::Short => answer(StatusCode::OK, list(embeddings.get(1..).unwrap_or_default())),
    }
}

/// Each word adds one at a place that follows from its letters.
fn bag_of_words(text: &str, dimensions: usize) -> Vec<f32> {
    let mut vector = vec![0.0; dimensions.max(1)];
    // A text without words is near to nothing, but a vector all the same.
    vector[0] = 0.01;
    let text = text.to_lowercase();
    for word in text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| word.len() > 2) {
        let word = MEANINGS.iter().find(|(other, _)| *other == word).map_or(word, |(_, meaning)| meaning);
        let hash = word
            .bytes()
            .fold(2_166_136_261_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
        let place = usize::try_from(hash).unwrap_or(0) % vector.len();
        vector[place] += 1.0;
    }
    vector
}
