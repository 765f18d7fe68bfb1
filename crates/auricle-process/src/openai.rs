//! Understanding by a language model: any server that speaks OpenAI's chat completions with JSON-schema output.
//!
//! Owns: the call, its bounds and what its failures mean. Leaves to others: what is asked (`prompt`), what an answer is
//! worth (`answer`), when to try again (the worker). Invariants: one call for each understanding; no error holds transcript
//! text, the key or more of an answer than a short code; while the breaker is open nobody calls; a model that is away costs
//! no attempt, whether that was known before or found by calling; advice for operators is logged, and in no reason.

mod answer;
mod failure;
mod prompt;

use std::sync::Arc;

use async_trait::async_trait;
use auricle_core::breaker::{BreakerNumbers, BreakerState, Outcome};
use auricle_core::{Conversation, DiscardReason, Limits, Provenance, Structured};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::redirect::Policy;

use self::failure::Failure;
use crate::understanding::{KEEP_WORDS, PLAIN_EMOJI};
use crate::{Clock, Gates, Request, Understand, UnderstandError, Understanding};

/// Which server, and which of its models.
#[derive(Clone)]
pub struct OpenAiConfig {
    /// Its address, with or without `/v1`.
    pub url: String,
    /// The model.
    pub model: String,
    /// Sent as a bearer token.
    pub key: Option<String>,
}

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum OpenAiError {
    /// The address is none.
    #[error("`llm.url` is not an address such as http://127.0.0.1:11434")]
    Url,
    /// The key cannot be sent.
    #[error("`llm.key` has characters that no header can hold")]
    Key,
    /// The system lacks something.
    #[error("cannot set up the language model's client: {0}")]
    Client(String),
}

/// Understanding by a language model.
pub struct OpenAi {
    client: reqwest::Client,
    endpoint: reqwest::Url,
    /// As the breaker and messages call it.
    host: String,
    model: String,
    key: Option<HeaderValue>,
    limits: Arc<Limits>,
    clock: Arc<dyn Clock>,
    gates: Arc<Gates>,
}

impl OpenAi {
    /// Connects to nothing yet.
    pub fn new(
        config: &OpenAiConfig,
        limits: Arc<Limits>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenAiError> {
        let endpoint = endpoint(&config.url).ok_or(OpenAiError::Url)?;
        let key = config.key.as_ref().map(|key| HeaderValue::from_str(&format!("Bearer {key}")));
        let mut key = key.transpose().map_err(|_| OpenAiError::Key)?;
        if let Some(key) = &mut key {
            key.set_sensitive(true);
        }
        // Another part of the process may have chosen a provider before; either serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(limits.llm_call_max)
            .connect_timeout(limits.llm_connect_max)
            .redirect(Policy::none())
            // A call takes seconds: a kept connection saves nothing, and may have been closed meanwhile.
            .pool_max_idle_per_host(0);
        let client = if is_here(&endpoint) { client.no_proxy() } else { client };
        let client = client.build().map_err(|error| OpenAiError::Client(error.to_string()))?;
        let numbers = BreakerNumbers {
            failures: limits.llm_breaker_failures,
            window: limits.llm_breaker_window,
            open_for: limits.llm_breaker_open_for,
        };
        let gates = Gates::new("llm", numbers, 1, Arc::clone(&clock));
        let host = host(&endpoint);
        Ok(Self { client, endpoint, host, model: config.model.clone(), key, limits, clock, gates })
    }

    /// What a person would ask of it: who is asked, and whether calls get through. Waits for no lock: a probe may ask.
    pub fn describe(&self) -> (String, BreakerState) {
        (format!("{} at {}", self.model, self.host), self.gates.shown())
    }

    fn provenance(&self) -> Provenance {
        Provenance { provider: self.name().into(), version: self.model.clone() }
    }

    fn set_aside(&self, reason: DiscardReason) -> Understanding {
        let structured = Structured { emoji: PLAIN_EMOJI.into(), ..Structured::default() };
        Understanding {
            structured,
            provenance: self.provenance(),
            discarded: Some(reason),
            memories: Vec::new(),
        }
    }

    /// Asks once. The answer's whole body.
    async fn call(&self, body: String, id: &str) -> Result<Vec<u8>, Failure> {
        let request = self
            .client
            .post(self.endpoint.clone())
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .body(body);
        let request = match HeaderValue::from_str(id) {
            // By this the server's logs and ours can be told together.
            Ok(id) => request.header("x-client-request-id", id),
            Err(_) => request,
        };
        let request = match &self.key {
            Some(key) => request.header(AUTHORIZATION, key.clone()),
            None => request,
        };
        let mut response =
            request.send().await.map_err(|error| Failure::unanswered(&error, &self.host, &self.limits))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > self.limits.llm_answer_bytes_max => {
                    return Err(Failure::too_long(&self.host, self.limits.llm_answer_bytes_max));
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                // The status says enough.
                Err(_) if !status.is_success() => break,
                Err(error) => return Err(Failure::unanswered(&error, &self.host, &self.limits)),
            }
        }
        if status.is_success() {
            return Ok(body);
        }
        Err(Failure::refused(status, &headers, &body, (&self.host, &self.model), self.clock.wall()))
    }
}

#[async_trait]
impl Understand for OpenAi {
    fn name(&self) -> &'static str {
        "llm"
    }

    fn is_away(&self) -> bool {
        self.gates.shown() != BreakerState::Closed
    }

    async fn understand(&self, request: Request<'_>) -> Result<Understanding, UnderstandError> {
        let worth = worth(request.conversation);
        if worth == Worth::Nothing {
            return Ok(self.set_aside(DiscardReason::Empty));
        }
        let may_discard = worth == Worth::Unclear;
        let pass = self.gates.ask(&self.host).map_err(|rejected| {
            let now = self.clock.now();
            UnderstandError::Away {
                reason: "the language model fails again and again and is not asked for now".into(),
                after: rejected
                    .retry_at
                    .map_or(self.limits.job_backoff_first, |at| at.saturating_duration_since(now)),
            }
        })?;
        let body = prompt::body(&request, &self.model, may_discard, self.limits.llm_transcript_chars_max);
        let conversation = request.conversation;
        let id = format!("conversation:{}:understand:{}", conversation.id, conversation.revision.0);
        let begun = self.clock.now();
        let called = self.call(body, &id).await;
        metrics::histogram!("auricle_llm_call_seconds")
            .record(self.clock.now().saturating_duration_since(begun).as_secs_f64());
        // Who answers at all is not away, whatever the answer is worth.
        pass.settle(called.as_ref().err().map_or(Outcome::Ok, Failure::outcome));
        let read = called.and_then(|body| answer::read(&body, &request, may_discard));
        let outcome = read.as_ref().err().map_or("answered", Failure::label);
        metrics::counter!("auricle_llm_calls_total", "outcome" => outcome).increment(1);
        let read = read.map_err(|failure| {
            let advice = failure.advice();
            tracing::warn!(conversation.id = %conversation.id, outcome, advice, "a call of the language model failed");
            UnderstandError::from(failure)
        });
        match read? {
            answer::Answer::Discard => Ok(self.set_aside(DiscardReason::Trivial)),
            answer::Answer::Keep(structured) => Ok(Understanding {
                structured,
                provenance: self.provenance(),
                discarded: None,
                memories: Vec::new(),
            }),
        }
    }
}

/// Whether a conversation is kept. Source: pusher-and-processing 4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worth {
    /// No words and no described photos: set aside without asking.
    Nothing,
    /// The model says.
    Unclear,
    /// Long enough to be kept without asking.
    Kept,
}

fn worth(conversation: &Conversation) -> Worth {
    let words: usize =
        conversation.segments.iter().map(|segment| segment.text.split_whitespace().count()).sum();
    match words {
        0 if prompt::descriptions(conversation).next().is_none() => Worth::Nothing,
        words if words > KEEP_WORDS => Worth::Kept,
        _ => Worth::Unclear,
    }
}

/// `{url}/v1/chat/completions`, where the address may have said `/v1` already.
fn endpoint(url: &str) -> Option<reqwest::Url> {
    let base = url.trim_end_matches('/');
    let version = if base.ends_with("/v1") { "" } else { "/v1" };
    let url = reqwest::Url::parse(&format!("{base}{version}/chat/completions")).ok()?;
    (url.scheme().starts_with("http") && url.has_host()).then_some(url)
}

fn host(url: &reqwest::Url) -> String {
    let port = url.port_or_known_default().unwrap_or(0);
    format!("{}:{port}", url.host_str().unwrap_or_default())
}

fn is_here(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests;
