//! Embeddings by any server that speaks OpenAI's `/v1/embeddings`: OpenAI, Ollama, llama.cpp, vLLM.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use auricle_core::Limits;
use auricle_core::breaker::{BreakerNumbers, BreakerState, Outcome};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{StatusCode, Url};
use serde::{Deserialize, Serialize};

use super::{Embed, EmbedError};
use crate::{Clock, Gates};

/// Which server, and which of its models.
#[derive(Clone)]
pub struct EmbedServerConfig {
    /// Its address, with or without `/v1`.
    pub url: String,
    /// The model.
    pub model: String,
    /// Sent as a bearer token.
    pub key: Option<String>,
    /// How many numbers a vector shall have, of a model that can shorten its own.
    pub dimensions: Option<u32>,
}

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum EmbedServerError {
    /// The address is none.
    #[error("`embeddings.url` is not an address such as http://127.0.0.1:11434")]
    Url,
    /// The key cannot be sent.
    #[error("`embeddings.key` has characters that no header can hold")]
    Key,
    /// The system lacks something.
    #[error("cannot set up the embedding server's client: {0}")]
    Client(String),
}

/// An embedding server.
pub struct EmbedServer {
    client: reqwest::Client,
    endpoint: Url,
    /// As the breaker and messages call it.
    host: String,
    /// As it is asked for.
    asked: String,
    /// With the dimensions, if they were asked for.
    model: String,
    dimensions: Option<u32>,
    key: Option<HeaderValue>,
    limits: Arc<Limits>,
    clock: Arc<dyn Clock>,
    gates: Arc<Gates>,
}

#[derive(Serialize)]
struct Asked<'a> {
    model: &'a str,
    input: &'a [String],
    encoding_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
}

#[derive(Deserialize)]
struct Answered {
    data: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    index: usize,
    embedding: Vec<f32>,
}

impl EmbedServer {
    /// Connects to nothing yet.
    pub fn new(
        config: &EmbedServerConfig,
        limits: Arc<Limits>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, EmbedServerError> {
        let endpoint = endpoint(&config.url).ok_or(EmbedServerError::Url)?;
        let key = config.key.as_ref().map(|key| HeaderValue::from_str(&format!("Bearer {key}")));
        let mut key = key.transpose().map_err(|_| EmbedServerError::Key)?;
        if let Some(key) = &mut key {
            key.set_sensitive(true);
        }
        // Another part of the process may have chosen a provider before; either serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(limits.embed_call_max)
            .connect_timeout(limits.embed_connect_max)
            .redirect(Policy::none());
        let client = if is_here(&endpoint) { client.no_proxy() } else { client };
        let client = client.build().map_err(|error| EmbedServerError::Client(error.to_string()))?;
        let numbers = BreakerNumbers {
            failures: limits.embed_breaker_failures,
            window: limits.embed_breaker_window,
            open_for: limits.embed_breaker_open_for,
        };
        let gates = Gates::new("embeddings", numbers, 1, Arc::clone(&clock));
        let port = endpoint.port_or_known_default().unwrap_or(0);
        let host = format!("{}:{port}", endpoint.host_str().unwrap_or_default());
        let model = match config.dimensions {
            Some(dimensions) => format!("{}@{dimensions}", config.model),
            None => config.model.clone(),
        };
        let (asked, dimensions) = (config.model.clone(), config.dimensions);
        Ok(Self { client, endpoint, host, asked, model, dimensions, key, limits, clock, gates })
    }

    /// Who is asked, and whether calls get through. Waits for no lock: a probe may ask.
    pub fn describe(&self) -> (String, BreakerState) {
        (format!("{} at {}", self.model, self.host), self.gates.shown())
    }

    /// The answer's status, headers and whole body.
    async fn call(&self, body: String) -> Result<(StatusCode, HeaderMap, Vec<u8>), EmbedError> {
        let request =
            self.client.post(self.endpoint.clone()).header(CONTENT_TYPE, "application/json").body(body);
        let request = match &self.key {
            Some(key) => request.header(AUTHORIZATION, key.clone()),
            None => request,
        };
        let mut response = request.send().await.map_err(|error| unanswered(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unanswered(&error))? {
            let most = self.limits.embed_answer_bytes_max;
            if body.len() + chunk.len() > most {
                return Err(EmbedError::Permanent(format!(
                    "the embedding server's answer is longer than {most} bytes (`limits.embed_answer_bytes_max`)"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, headers, body))
    }

    async fn ask(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let (model, dimensions) = (self.asked.as_str(), self.dimensions);
        let asked = Asked { model, input: texts, encoding_format: "float", dimensions };
        let body = serde_json::to_string(&asked).expect("plain data with text keys");
        let (status, headers, body) = self.call(body).await?;
        if !status.is_success() {
            return Err(self.refused(status, &headers));
        }
        read(&body, texts.len(), dimensions)
    }

    fn refused(&self, status: StatusCode, headers: &HeaderMap) -> EmbedError {
        let number = status.as_u16();
        // Of a server that refuses everything, nothing is given up: whoever runs it mends that, and what waited goes on.
        let busy = matches!(number, 401..=404 | 408 | 425 | 429)
            || status.is_server_error()
            || status.is_redirection();
        let advice = match number {
            401..=403 => "; set `embeddings.key` (AURICLE_EMBEDDINGS_KEY)",
            404 => "; check `embeddings.model` and `embeddings.url`",
            300..=399 => "; set `embeddings.url` to where it is",
            _ => "",
        };
        tracing::warn!(
            host = self.host,
            model = self.model,
            status = number,
            "the embedding server refused{advice}"
        );
        let reason = format!("the embedding server did not take the request (HTTP {number})");
        if busy {
            return EmbedError::Away { reason, after: retry_after(headers).unwrap_or_default() };
        }
        EmbedError::Permanent(reason)
    }
}

#[async_trait]
impl Embed for EmbedServer {
    fn model(&self) -> &str {
        &self.model
    }

    fn is_away(&self) -> bool {
        self.gates.shown() != BreakerState::Closed
    }

    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, EmbedError> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let pass = self.gates.ask(&self.host).map_err(|rejected| {
            let now = self.clock.now();
            let after = rejected.retry_at.map(|at| at.saturating_duration_since(now));
            EmbedError::Away {
                reason: "the embedding server fails again and again and is not asked for now".into(),
                after: after.unwrap_or(self.limits.job_backoff_first),
            }
        })?;
        let begun = self.clock.now();
        let answer = self.ask(texts).await;
        metrics::histogram!("auricle_embed_call_seconds")
            .record(self.clock.now().saturating_duration_since(begun).as_secs_f64());
        let label = answer.as_ref().err().map_or("answered", EmbedError::label);
        metrics::counter!("auricle_embed_calls_total", "outcome" => label).increment(1);
        // Who answers at all is not away, whatever the answer is worth.
        pass.settle(match &answer {
            Err(EmbedError::Away { .. }) => Outcome::Failed,
            _ => Outcome::Ok,
        });
        answer
    }
}

/// The answer's vectors in the order of the texts.
fn read(body: &[u8], number: usize, dimensions: Option<u32>) -> Result<Vec<Vec<f32>>, EmbedError> {
    let senseless =
        |why: &str| EmbedError::Transient(format!("the embedding server's answer makes no sense: {why}"));
    let answered: Answered =
        serde_json::from_slice(body).map_err(|_| senseless("it is no list of embeddings"))?;
    let mut vectors: Vec<Option<Vec<f32>>> = vec![None; number];
    for Vector { index, embedding } in answered.data {
        let place = vectors.get_mut(index).ok_or_else(|| senseless("it is of another number of texts"))?;
        if embedding.is_empty() || embedding.iter().any(|number| !number.is_finite()) {
            return Err(senseless("an embedding is not of numbers"));
        }
        *place = Some(embedding);
    }
    let vectors: Option<Vec<_>> = vectors.into_iter().collect();
    let vectors = vectors.ok_or_else(|| senseless("a text has none"))?;
    let length = vectors.first().map_or(0, Vec::len);
    if vectors.iter().any(|vector| vector.len() != length) {
        return Err(senseless("embeddings are of several lengths"));
    }
    match dimensions {
        Some(asked) if usize::try_from(asked) != Ok(length) => Err(EmbedError::Permanent(format!(
            "the embedding server answers {length} numbers where {asked} were asked for; change `embeddings.dimensions`"
        ))),
        _ => Ok(vectors),
    }
}

fn unanswered(error: &reqwest::Error) -> EmbedError {
    let reason = if error.is_connect() {
        "the embedding server cannot be reached"
    } else if error.is_timeout() {
        "the embedding server did not answer in time (`limits.embed_call_max`)"
    } else {
        "the connection to the embedding server broke off"
    };
    EmbedError::Away { reason: reason.into(), after: Duration::ZERO }
}

/// Seconds; a date is for people's clocks, and the breaker's wait serves then.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// `{url}/v1/embeddings`, where the address may have said `/v1` already.
fn endpoint(url: &str) -> Option<Url> {
    let base = url.trim_end_matches('/');
    let version = if base.ends_with("/v1") { "" } else { "/v1" };
    let url = Url::parse(&format!("{base}{version}/embeddings")).ok()?;
    (url.scheme().starts_with("http") && url.has_host()).then_some(url)
}

fn is_here(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_put_into_the_order_of_the_texts() {
        let body =
            br#"{"object":"list","data":[{"index":1,"embedding":[3,4]},{"index":0,"embedding":[1,2]}]}"#;
        assert_eq!(read(body, 2, Some(2)).unwrap(), [[1.0, 2.0], [3.0, 4.0]]);
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_none() {
        for body in [
            "so sorry",
            "{}",
            r#"{"data":[{"index":0,"embedding":[1]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":2,"embedding":[1]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[1,2]}]}"#,
            r#"{"data":[{"index":0,"embedding":[]},{"index":1,"embedding":[]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1e99]},{"index":1,"embedding":[1]}]}"#,
        ] {
            assert!(matches!(read(body.as_bytes(), 2, None), Err(EmbedError::Transient(_))), "{body}");
        }
        let other = br#"{"data":[{"index":0,"embedding":[1,2,3]}]}"#;
        assert!(matches!(read(other, 1, Some(2)), Err(EmbedError::Permanent(_))));
    }

    #[test]
    fn the_endpoint_follows_from_the_address() {
        for url in ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"] {
            assert_eq!(endpoint(url).unwrap().as_str(), "http://h:1/v1/embeddings");
        }
        assert!(endpoint("h:1").is_none() && endpoint("ftp://h").is_none());
    }
}
