//! Requests to addresses that others run: webhooks and realtime triggers.
//!
//! Owns: one client, where it may connect to (`reach`), a breaker for each host, and what an answer means. Invariants: a
//! request has a deadline; redirects are not followed; of an answer only the status is read; no error holds an address's
//! path or query, which may be secrets.

pub(crate) mod reach;

use std::sync::Arc;
use std::time::Duration;

use auricle_core::Limits;
use auricle_core::breaker::{BreakerNumbers, Outcome};
use auricle_process::{Clock, Gates};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{StatusCode, Url};

use self::reach::Reach;

/// Share of an effect's deadline that its request has, so that it says by itself that it was late.
const SHARE: f64 = 0.9;

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
    pub(crate) content_type: &'static str,
    /// By this receivers tell a repetition.
    pub(crate) key: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// The client.
pub(crate) struct Outgoing {
    client: reqwest::Client,
    reach: Reach,
    gates: Arc<Gates>,
    clock: Arc<dyn Clock>,
    wait: Duration,
}

impl Outgoing {
    pub(crate) fn new(
        reach: Reach,
        limits: &Limits,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, reqwest::Error> {
        // Another part of the process may have chosen a provider before; either serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let wait = limits.effect_attempt_max.mul_f64(SHARE);
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(limits.effect_connect_max)
            .timeout(wait)
            // A proxy would look names up where nobody checks them.
            .no_proxy()
            .dns_resolver(Arc::new(reach.clone()))
            // A kept connection belongs to the thread that opened it, and would be used from others.
            .pool_max_idle_per_host(0)
            .build()?;
        let numbers = BreakerNumbers {
            failures: limits.webhook_breaker_failures,
            window: limits.webhook_breaker_window,
            open_for: limits.webhook_breaker_open_for,
        };
        let gates = Gates::new("webhook", numbers, limits.webhook_hosts_max, Arc::clone(&clock));
        Ok(Arc::new(Self { client, reach, gates, clock, wait }))
    }

    /// Posts once, unless the host fails again and again.
    pub(crate) async fn post(&self, post: Post) -> Posted {
        let host = host(&post.url);
        if let Err(reason) = self.reach.admit(&post.url) {
            return Posted::Refused(reason);
        }
        let pass = match self.gates.ask(&host) {
            Ok(pass) => pass,
            Err(rejected) => {
                let now = self.clock.now();
                let after = rejected.retry_at.map(|at| at.saturating_duration_since(now)).unwrap_or_default();
                let reason = format!("{host} fails again and again and is not tried for now");
                return Posted::Failed(Trouble::away(reason, after));
            }
        };
        let request = self.client.post(post.url).header(CONTENT_TYPE, post.content_type).body(post.body);
        let request = match post.key.as_deref().map(HeaderValue::from_str) {
            Some(Ok(key)) => request.header("idempotency-key", key),
            _ => request,
        };
        let (posted, outcome) = match request.send().await {
            Ok(response) => of_status(response.status(), &host),
            Err(error) if error.is_timeout() => {
                let reason = format!("{host} did not answer within {:?}", self.wait);
                (Posted::Failed(Trouble::away(reason, Duration::ZERO)), Outcome::Failed)
            }
            Err(error) => {
                let reason = crate::chain(&error.without_url());
                (Posted::Failed(Trouble::away(reason, Duration::ZERO)), Outcome::Failed)
            }
        };
        pass.settle(outcome);
        posted
    }
}

fn of_status(status: StatusCode, host: &str) -> (Posted, Outcome) {
    let said = format!("{host} answered HTTP {}", status.as_u16());
    match status.as_u16() {
        200..=299 => (Posted::Taken, Outcome::Ok),
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
fn host(url: &Url) -> String {
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
        let of = |status| of_status(StatusCode::from_u16(status).unwrap(), "a:80");
        for status in [200, 201, 204] {
            assert_eq!(of(status), (Posted::Taken, Outcome::Ok));
        }
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
