//! Calls of an OpenAI-compatible server: bounded, counted, and in whatever form of output it takes.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use auricle_core::Limits;
use auricle_core::breaker::{BreakerNumbers, BreakerState, Outcome};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::answer::Wrong;
use super::budget::Budget;
use super::failure::Failure;
use super::prompt::{Call, Output};
use super::tokens::estimate;
use super::{OpenAiConfig, OpenAiError};
use crate::{Clock, Gates};

/// One of a server's models, and the form of output that works with it as far as is known.
pub(super) struct Model {
    pub(super) name: String,
    output: AtomicU8,
    /// Whether another form may be tried.
    auto: bool,
}

impl Model {
    /// With this form of output only, or with whatever works.
    pub(super) fn new(name: &str, output: Option<Output>) -> Self {
        let first = output.unwrap_or(Output::JsonSchema);
        Self { name: name.to_owned(), output: AtomicU8::new(first as u8), auto: output.is_none() }
    }

    fn output(&self) -> Output {
        match self.output.load(Ordering::Relaxed) {
            0 => Output::JsonSchema,
            1 => Output::JsonObject,
            _ => Output::Text,
        }
    }

    /// The next plainer form, if `refused` is not the last: remembered until this process ends.
    fn plainer(&self, refused: Output) -> Option<Output> {
        let next = match refused {
            Output::JsonSchema => Output::JsonObject,
            Output::JsonObject => Output::Text,
            Output::Text => return None,
        };
        if !self.auto {
            return None;
        }
        // Another call may have gone further meanwhile.
        self.output.fetch_max(next as u8, Ordering::Relaxed);
        Some(self.output())
    }
}

/// Everything that calls share.
pub(super) struct Client {
    http: reqwest::Client,
    endpoint: reqwest::Url,
    /// As the breaker and messages call it.
    pub(super) host: String,
    key: Option<(HeaderName, HeaderValue)>,
    limits: Arc<Limits>,
    clock: Arc<dyn Clock>,
    gates: Arc<Gates>,
    places: Semaphore,
    budget: Mutex<Budget>,
    price_input: f64,
    price_output: f64,
    pub(super) window: usize,
    /// When it was last asked.
    answered: AtomicBool,
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
    refusal: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

/// What a model wrote.
struct Reply {
    content: String,
    /// Whether the model stopped at its own limit of length.
    is_cut: bool,
}

impl Client {
    pub(super) fn new(
        config: &OpenAiConfig,
        limits: Arc<Limits>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenAiError> {
        let endpoint = endpoint(&config.url).ok_or(OpenAiError::Url)?;
        let key = config.key.as_ref().map(|key| key_header(&config.key_header, key)).transpose()?;
        // Another part of the process may have chosen a provider before; either serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(limits.llm_call_max)
            .connect_timeout(limits.llm_connect_max)
            .redirect(Policy::none())
            // A call takes seconds: a kept connection saves nothing, and may have been closed meanwhile.
            .pool_max_idle_per_host(0);
        let http = if is_here(&endpoint) { http.no_proxy() } else { http };
        let http = http.build().map_err(|error| OpenAiError::Client(error.to_string()))?;
        let numbers = BreakerNumbers {
            failures: limits.llm_breaker_failures,
            window: limits.llm_breaker_window,
            open_for: limits.llm_breaker_open_for,
        };
        Ok(Self {
            http,
            host: host(&endpoint),
            endpoint,
            key,
            gates: Gates::new("llm", numbers, 1, Arc::clone(&clock)),
            places: Semaphore::new(limits.llm_calls_running_max.min(Semaphore::MAX_PERMITS)),
            budget: Mutex::new(Budget::new(u64::from(limits.llm_kilotokens_per_minute) * 1_000, clock.now())),
            price_input: config.price_input,
            price_output: config.price_output,
            window: config.window_tokens,
            answered: AtomicBool::new(false),
            limits,
            clock,
        })
    }

    /// Whether calls get through. Waits for no lock.
    pub(super) fn breaker(&self) -> BreakerState {
        self.gates.shown()
    }

    /// Whether the last call brought an answer.
    pub(super) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Asks `model`, and once more if its answer makes no sense: then it is shown its answer and what is wrong. `id` goes into
    /// the server's log.
    pub(super) async fn ask<T>(
        &self,
        model: &Model,
        call: &Call,
        id: &str,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Result<T, Failure> {
        let taken = call.tokens();
        self.afford(taken)?;
        let (body, reply) = self.in_some_form(model, call, taken, id).await?;
        let wrong = match self.judged(model, &reply, &read) {
            Ok(value) => return Ok(value),
            Err(wrong) => wrong,
        };
        tracing::info!(
            model = model.name,
            reason = wrong.reason,
            "an answer of the language model made no sense"
        );
        // Part of the same work: not refused for its tokens, which are counted all the same.
        let body = call.repair(body, &reply.content, &wrong.detail, self.window);
        let reply = self.send(model, &body, 0, id).await?;
        self.judged(model, &reply, &read).map_err(|wrong| Failure::senseless(wrong.reason))
    }

    fn judged<T>(
        &self,
        model: &Model,
        reply: &Reply,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Result<T, Wrong> {
        let read = read(&reply.content).map_err(|wrong| match reply.is_cut {
            true => Wrong {
                reason: "the language model's answer was cut off by the model's own limit of length",
                detail: "it was cut off; be briefer".into(),
            },
            false => wrong,
        });
        count(model, if read.is_ok() { "answered" } else { "senseless" });
        read
    }

    /// Asks in the surest form that the server takes, and says in which.
    async fn in_some_form(
        &self,
        model: &Model,
        call: &Call,
        taken: usize,
        id: &str,
    ) -> Result<(Value, Reply), Failure> {
        let mut output = model.output();
        loop {
            let body = call.body(&model.name, output);
            match self.send(model, &body, taken, id).await {
                Ok(reply) => return Ok((body, reply)),
                Err(failure) if failure.is_formless() => match model.plainer(output) {
                    Some(plainer) => output = plainer,
                    None => return Err(failure),
                },
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Takes `tokens` of the minute's.
    fn afford(&self, tokens: usize) -> Result<(), Failure> {
        let now = self.clock.now();
        let taken = self.budget.lock().unwrap_or_else(PoisonError::into_inner).take(tokens, now);
        taken.map_err(|after| {
            metrics::counter!("auricle_llm_waits_total", "reason" => "tokens").increment(1);
            Failure::not_now("the tokens of this minute are spent", after)
        })
    }

    /// One request and its answer, counted. `taken` tokens of the minute's are for it.
    async fn send(&self, model: &Model, body: &Value, taken: usize, id: &str) -> Result<Reply, Failure> {
        let place = tokio::time::timeout(self.limits.llm_call_max, self.places.acquire()).await;
        let Ok(Ok(_place)) = place else {
            metrics::counter!("auricle_llm_waits_total", "reason" => "calls").increment(1);
            let reason = "the language model is asked as often as it may be";
            return Err(Failure::not_now(reason, self.limits.job_backoff_first));
        };
        let pass = self.gates.ask(&self.host).map_err(|rejected| {
            let now = self.clock.now();
            let after = rejected.retry_at.map(|at| at.saturating_duration_since(now));
            let reason = "the language model fails again and again and is not asked for now";
            Failure::not_now(reason, after.unwrap_or(self.limits.job_backoff_first))
        })?;
        let text = body.to_string();
        let sent = estimate(&text);
        let begun = self.clock.now();
        let called = self.call(&model.name, text, id).await;
        metrics::histogram!("auricle_llm_call_seconds")
            .record(self.clock.now().saturating_duration_since(begun).as_secs_f64());
        // Who answers at all is not away, whatever the answer is worth.
        pass.settle(called.as_ref().err().map_or(Outcome::Ok, Failure::outcome));
        let read = called.and_then(|body| self.read(model, (taken, sent), &body));
        self.answered.store(read.is_ok(), Ordering::Relaxed);
        if let Err(failure) = &read {
            count(model, failure.label());
            let (outcome, advice) = (failure.label(), failure.advice());
            tracing::warn!(call = id, outcome, advice, "a call of the language model failed");
        }
        read
    }

    /// Asks once. The answer's whole body.
    async fn call(&self, model: &str, body: String, id: &str) -> Result<Vec<u8>, Failure> {
        let request =
            self.http.post(self.endpoint.clone()).header(CONTENT_TYPE, "application/json").body(body);
        let request = match HeaderValue::from_str(id) {
            // By this the server's logs and ours can be told together.
            Ok(id) => request.header("x-client-request-id", id),
            Err(_) => request,
        };
        let request = match &self.key {
            Some((name, key)) => request.header(name.clone(), key.clone()),
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
        Err(Failure::refused(status, &headers, &body, (&self.host, model), self.clock.wall()))
    }

    /// What the model wrote. No failure holds anything of it.
    fn read(&self, model: &Model, (taken, sent): (usize, usize), body: &[u8]) -> Result<Reply, Failure> {
        let completion: Completion = serde_json::from_slice(body).map_err(|_| {
            Failure::senseless("the language model's answer is no chat completion; check `llm.url`")
        })?;
        let choice = completion.choices.into_iter().next();
        let content =
            choice.as_ref().and_then(|choice| choice.message.content.as_deref()).unwrap_or_default();
        self.spent(model, (taken, sent), completion.usage, content);
        let choice = choice.ok_or_else(|| Failure::senseless("the language model's answer is empty"))?;
        let finish = choice.finish_reason.as_deref();
        if choice.message.refusal.is_some() || finish == Some("content_filter") {
            return Err(Failure::declined());
        }
        let is_cut = finish == Some("length");
        Ok(Reply { content: choice.message.content.unwrap_or_default(), is_cut })
    }

    /// Counts what a call took: what the server says, or else what is estimated.
    fn spent(&self, model: &Model, (taken, sent): (usize, usize), usage: Option<Usage>, content: &str) {
        let said = usage.filter(|usage| usage.prompt_tokens > 0);
        let Usage { prompt_tokens, completion_tokens } = said.unwrap_or_else(|| Usage {
            prompt_tokens: sent as u64,
            completion_tokens: estimate(content) as u64,
        });
        let used = usize::try_from(prompt_tokens.saturating_add(completion_tokens)).unwrap_or(usize::MAX);
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).settle(taken, used);
        let tokens = |kind: &'static str, count: u64| {
            metrics::counter!("auricle_llm_tokens_total", "model" => model.name.clone(), "kind" => kind)
                .increment(count);
        };
        tokens("prompt", prompt_tokens);
        tokens("completion", completion_tokens);
        // A price for a million tokens is as many millionths for one.
        let cost = prompt_tokens as f64 * self.price_input + completion_tokens as f64 * self.price_output;
        metrics::counter!("auricle_llm_cost_millionths_total", "model" => model.name.clone())
            .increment(cost.round() as u64);
    }
}

fn count(model: &Model, outcome: &'static str) {
    metrics::counter!("auricle_llm_calls_total", "model" => model.name.clone(), "outcome" => outcome)
        .increment(1);
}

/// `authorization` wants a bearer token, every other header the key itself.
fn key_header(name: &str, key: &str) -> Result<(HeaderName, HeaderValue), OpenAiError> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| OpenAiError::KeyHeader)?;
    let value = if name == AUTHORIZATION { format!("Bearer {key}") } else { key.to_owned() };
    let mut value = HeaderValue::from_str(&value).map_err(|_| OpenAiError::Key)?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// `{url}/v1/chat/completions`, where the address may have said `/v1` already.
pub(super) fn endpoint(url: &str) -> Option<reqwest::Url> {
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
