//! Requests to addresses that others run: webhooks, apps and realtime triggers.
//!
//! Owns: the clients, where they may connect to (`reach`), a breaker for each host, headers and signatures, and what an answer
//! means. Invariants: a request has a deadline; redirects are not followed; of an answer no more is read than was asked for;
//! no error holds an address's path or query, which may be secrets.

pub(crate) mod reach;

use std::sync::Arc;
use std::time::Duration;

use auricle_core::breaker::{BreakerNumbers, Outcome};
use auricle_core::{Limits, TargetKind};
use auricle_process::{Clock, Gates};
use auricle_store::Sensitive;
use auricle_wire::signature;
use reqwest::header::{CONTENT_TYPE, HeaderValue, USER_AGENT};
use reqwest::{Response, StatusCode, Url};

use self::reach::{Author, Reach};

/// Share of an effect's deadline that its request has, so that it says by itself that it was late.
const SHARE: f64 = 0.9;
/// What a delivery tells of.
const TRIGGER: &str = "x-auricle-trigger";
/// Longest address of a user.
const URL_BYTES_MAX: usize = 2_048;
/// How long an address that is being added is looked up.
const LOOKUP_MAX: Duration = Duration::from_secs(2);

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Posted {
    /// A success.
    Taken,
    /// A status that will be the same again.
    Refused(String),
    /// Worth another try.
    Failed(Trouble),
}

/// Why a request failed, for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) reason: String,
    /// Set if the receiver is away or too busy, which says nothing about what is posted: not to be tried sooner than this.
    pub(crate) away: Option<Duration>,
}

impl Trouble {
    fn away(reason: String, after: Duration) -> Self {
        Self { reason, away: Some(after) }
    }
}

/// What is posted.
pub(crate) struct Post {
    pub(crate) url: Url,
    /// Who wrote the address.
    pub(crate) author: Author,
    /// Whose contract says what a success is. Source: pusher-and-processing 5.1.
    pub(crate) kind: TargetKind,
    /// What it tells of, in Omi's words; receivers see it as `X-Auricle-Trigger`.
    pub(crate) trigger: &'static str,
    pub(crate) content_type: &'static str,
    /// By this receivers tell a repetition.
    pub(crate) key: Option<String>,
    /// By this it is signed.
    pub(crate) secret: Option<Sensitive>,
    /// Bytes of the answer that are read.
    pub(crate) answer_bytes_max: usize,
    pub(crate) body: Vec<u8>,
}

/// What came of a post.
pub(crate) struct Sent {
    pub(crate) posted: Posted,
    /// The answer's status, if there was one.
    pub(crate) status: Option<u16>,
    /// What was read of the answer; empty if it is longer than was asked for, or broke off.
    pub(crate) answer: Vec<u8>,
    /// Until the answer's status.
    pub(crate) took: Duration,
    /// Whether the receiver was asked at all.
    pub(crate) was_tried: bool,
}

impl Sent {
    fn untried(posted: Posted) -> Self {
        Self { posted, status: None, answer: Vec::new(), took: Duration::ZERO, was_tried: false }
    }
}

impl Posted {
    /// Why it was not taken.
    pub(crate) fn error(&self) -> Option<&str> {
        match self {
            Self::Taken => None,
            Self::Refused(reason) | Self::Failed(Trouble { reason, .. }) => Some(reason),
        }
    }
}

/// The clients, one for each kind of author.
pub struct Outgoing {
    operators: reqwest::Client,
    users: reqwest::Client,
    reach: Reach,
    gates: Arc<Gates>,
    clock: Arc<dyn Clock>,
    wait: Duration,
}

impl Outgoing {
    /// With these bounds; `allow_private` as in the configuration.
    ///
    /// # Errors
    /// No client can be made: the system's certificates cannot be read.
    pub fn open(
        allow_private: bool,
        limits: &Limits,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, reqwest::Error> {
        Self::new(Reach::new(allow_private), limits, clock)
    }

    pub(crate) fn new(
        reach: Reach,
        limits: &Limits,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, reqwest::Error> {
        // Another part of the process may have chosen a provider before; either serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let wait = limits.effect_attempt_max.mul_f64(SHARE);
        let client = |reach: Reach| {
            reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(limits.effect_connect_max)
                .timeout(wait)
                // A proxy would look names up where nobody checks them.
                .no_proxy()
                .dns_resolver(Arc::new(reach))
                // A kept connection belongs to the thread that opened it, and would be used from others.
                .pool_max_idle_per_host(0)
                .build()
        };
        let (operators, users) = (client(reach.of(Author::Operator))?, client(reach.of(Author::User))?);
        let numbers = BreakerNumbers {
            failures: limits.webhook_breaker_failures,
            window: limits.webhook_breaker_window,
            open_for: limits.webhook_breaker_open_for,
        };
        let gates = Gates::new("webhook", numbers, limits.webhook_hosts_max, Arc::clone(&clock));
        Ok(Arc::new(Self { operators, users, reach, gates, clock, wait }))
    }

    /// Reads an address that a user wrote. The error says what to do.
    pub(crate) async fn read_url(&self, text: &str) -> Result<Url, String> {
        let url = Url::parse(text).ok().filter(|url| url.has_host() && url.scheme().starts_with("http"));
        let url = url.ok_or("The address must be a URL that begins with http:// or https://")?;
        if text.len() > URL_BYTES_MAX {
            return Err(format!("The address is longer than {URL_BYTES_MAX} bytes"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("The address may not hold a user name or password; deliveries are signed".into());
        }
        let reach = self.reach.of(Author::User);
        match tokio::time::timeout(LOOKUP_MAX, reach.admit_name(&url)).await {
            Ok(Err(reason)) => Err(reason),
            // Nobody knows yet: it is checked at each connection.
            Ok(Ok(())) | Err(_) => Ok(url),
        }
    }

    /// Posts once, unless the host fails again and again.
    pub(crate) async fn post(&self, post: Post) -> Sent {
        let host = host(&post.url);
        if let Err(reason) = self.reach.of(post.author).admit(&post.url) {
            return Sent::untried(Posted::Refused(reason));
        }
        let pass = match self.gates.ask(&host) {
            Ok(pass) => pass,
            Err(rejected) => {
                let now = self.clock.now();
                let after = rejected.retry_at.map(|at| at.saturating_duration_since(now)).unwrap_or_default();
                let reason = format!("{host} fails again and again and is not tried for now");
                return Sent::untried(Posted::Failed(Trouble::away(reason, after)));
            }
        };
        let client = match post.author {
            Author::Operator => &self.operators,
            Author::User => &self.users,
        };
        let mut request = client
            .post(post.url)
            .header(CONTENT_TYPE, post.content_type)
            .header(USER_AGENT, concat!("auricle/", env!("CARGO_PKG_VERSION")))
            .header(TRIGGER, post.trigger);
        if let Some(Ok(key)) = post.key.as_deref().map(HeaderValue::from_str) {
            request = request.header("idempotency-key", key);
        }
        if let Some(secret) = &post.secret {
            let at = self.clock.wall().0.div_euclid(1_000_000);
            request = request.header(signature::HEADER, signature::sign(secret.expose(), at, &post.body));
        }
        let begun = self.clock.now();
        let answered = request.body(post.body).send().await;
        let took = self.clock.now().saturating_duration_since(begun);
        let mut sent =
            Sent { posted: Posted::Taken, status: None, answer: Vec::new(), took, was_tried: true };
        let outcome = match answered {
            Ok(response) => {
                let status = response.status();
                let (posted, outcome) = of_status(status, post.kind, &host);
                // Its health does not wait for the answer's body.
                pass.settle(outcome);
                sent.status = Some(status.as_u16());
                sent.posted = posted;
                sent.answer = bounded(response, post.answer_bytes_max).await;
                return sent;
            }
            Err(error) if error.is_timeout() => {
                let reason = format!("{host} did not answer within {:?}", self.wait);
                sent.posted = Posted::Failed(Trouble::away(reason, Duration::ZERO));
                Outcome::Failed
            }
            Err(error) => {
                let reason = crate::chain(&error.without_url());
                sent.posted = Posted::Failed(Trouble::away(reason, Duration::ZERO));
                Outcome::Failed
            }
        };
        pass.settle(outcome);
        sent
    }
}

/// A whole body of up to `max` bytes; empty if there is more, or if it breaks off.
async fn bounded(mut response: Response, max: usize) -> Vec<u8> {
    let mut read = Vec::new();
    if max == 0 {
        return read;
    }
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if read.len() + chunk.len() <= max => read.extend_from_slice(&chunk),
            Ok(Some(_)) | Err(_) => return Vec::new(),
            Ok(None) => return read,
        }
    }
}

fn of_status(status: StatusCode, kind: TargetKind, host: &str) -> (Posted, Outcome) {
    let said = format!("{host} answered HTTP {}", status.as_u16());
    match status.as_u16() {
        200 => (Posted::Taken, Outcome::Ok),
        201..=299 if kind == TargetKind::Developer => (Posted::Taken, Outcome::Ok),
        201..=299 => {
            let reason = format!("{said}; an app takes a delivery with 200");
            (Posted::Failed(Trouble { reason, away: None }), Outcome::Ok)
        }
        300..=399 => (
            Posted::Failed(Trouble {
                reason: format!("{said}; redirects are not followed, name the final address"),
                away: None,
            }),
            Outcome::Ok,
        ),
        408 | 425 | 429 => (Posted::Failed(Trouble::away(said, Duration::ZERO)), Outcome::Failed),
        400..=499 => (Posted::Refused(said), Outcome::Ok),
        _ => (Posted::Failed(Trouble::away(said, Duration::ZERO)), Outcome::Failed),
    }
}

/// As breakers and errors call it.
pub(crate) fn host(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(0))
}

/// `url` with `pairs` in its query; what it said of the same names before is gone.
pub(crate) fn with_query(url: &Url, pairs: &[(&str, &str)]) -> Url {
    let mut merged = url.clone();
    let named = |name: &str| pairs.iter().any(|(known, _)| *known == name);
    if url.query_pairs().any(|(name, _)| named(&name)) {
        let others: Vec<_> = url.query_pairs().into_owned().filter(|(name, _)| !named(name)).collect();
        merged.query_pairs_mut().clear().extend_pairs(others);
    }
    merged.query_pairs_mut().extend_pairs(pairs);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_merged_into_the_one_that_is_there() {
        for (url, merged) in [
            ("http://a/x", "http://a/x?uid=ann%40b+c"),
            ("http://a/x?key=1", "http://a/x?key=1&uid=ann%40b+c"),
            ("http://a/x?flag", "http://a/x?flag&uid=ann%40b+c"),
            ("http://a/x?uid=eve&key=1", "http://a/x?key=1&uid=ann%40b+c"),
            ("http://a/x?key=1#part", "http://a/x?key=1&uid=ann%40b+c#part"),
        ] {
            assert_eq!(with_query(&url.parse().unwrap(), &[("uid", "ann@b c")]).as_str(), merged);
        }
    }

    #[test]
    fn a_status_says_whether_to_try_again() {
        let by = |status, kind| of_status(StatusCode::from_u16(status).unwrap(), kind, "a:80");
        let of = |status| by(status, TargetKind::Developer);
        for status in [200, 201, 204] {
            assert_eq!(of(status), (Posted::Taken, Outcome::Ok));
        }
        assert_eq!(by(200, TargetKind::App), (Posted::Taken, Outcome::Ok));
        let not_200 = |posted| matches!(posted, Posted::Failed(Trouble { away: None, .. }));
        assert!(not_200(by(204, TargetKind::App).0), "of apps 200 alone is a success");
        for status in [400, 401, 404, 410, 422] {
            assert!(matches!(of(status), (Posted::Refused(_), Outcome::Ok)), "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 504] {
            let (posted, outcome) = of(status);
            let away = matches!(posted, Posted::Failed(Trouble { away: Some(_), .. }));
            assert!(away && outcome == Outcome::Failed, "{status}");
        }
        let elsewhere = |trouble: &Trouble| trouble.away.is_none() && trouble.reason.contains("redirects");
        assert!(matches!(of(301), (Posted::Failed(trouble), Outcome::Ok) if elsewhere(&trouble)));
    }
}
