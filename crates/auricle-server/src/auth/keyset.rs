//! The issuer's signing keys: fetched when first needed, when a token names an unknown one, and now and then.
//!
//! Invariants: one fetch at a time, and none sooner than `signing_keys_refetch_min` after the last, so that tokens with
//! invented key names cost the key server nothing; each fetch has a deadline and a greatest size; keys that were had are
//! used on while the key server is away, up to `signing_keys_age_max`.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use auricle_core::Limits;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::redirect::Policy;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::AuthError;

/// Keys of one set that are looked at. Issuers publish two or three.
const KEYS_MAX: usize = 64;
/// Keys are fetched again when a fetch is this part of their greatest age ago.
const STALE_PART: u32 = 24;

/// One key and what it may be used with.
pub(super) struct SigningKey {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

#[derive(Default)]
struct Known {
    keys: HashMap<String, Arc<SigningKey>>,
    fetched: Option<Instant>,
    /// The last fetch, whether it succeeded or not.
    tried: Option<Instant>,
}

/// See the module.
pub(super) struct KeySet {
    url: String,
    http: reqwest::Client,
    known: RwLock<Known>,
    fetching: Mutex<()>,
    wait: Duration,
    bytes_max: usize,
    refetch_min: Duration,
    age_max: Duration,
}

/// What the known keys say about a key's name.
enum Answer {
    Known { key: Arc<SigningKey>, stale: bool },
    Unknown { fetched_lately: bool, tried_lately: bool },
}

impl KeySet {
    pub(super) fn new(url: &str, limits: &Limits) -> Result<Self, reqwest::Error> {
        // Another part of the process may have chosen a provider before; either serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(limits.signing_keys_wait)
            .redirect(Policy::none())
            // A kept connection belongs to the session worker that opened it, and would be used from others.
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(Self {
            url: url.to_owned(),
            http,
            known: RwLock::default(),
            fetching: Mutex::new(()),
            wait: limits.signing_keys_wait,
            bytes_max: limits.signing_keys_bytes_max,
            refetch_min: limits.signing_keys_refetch_min,
            age_max: limits.signing_keys_age_max,
        })
    }

    /// The key of that name. `Invalid` if the issuer has none; `KeysUnavailable` if that cannot be told.
    pub(super) async fn find(&self, kid: &str, now: Instant) -> Result<Arc<SigningKey>, AuthError> {
        match self.answer(kid, now) {
            Answer::Known { key, stale: false } => return Ok(key),
            Answer::Known { key, stale: true } => {
                // One request fetches; the others go on with what is known.
                if let Ok(_turn) = self.fetching.try_lock() {
                    self.fetch(now).await;
                    return match self.answer(kid, now) {
                        Answer::Known { key, .. } => Ok(key),
                        Answer::Unknown { .. } => Err(AuthError::Invalid),
                    };
                }
                return Ok(key);
            }
            Answer::Unknown { fetched_lately: true, .. } => return Err(AuthError::Invalid),
            Answer::Unknown { tried_lately: true, .. } => return Err(AuthError::KeysUnavailable),
            Answer::Unknown { .. } => {}
        }
        // A request that waits here finds what the one before it fetched.
        let turn = timeout(self.wait * 2, self.fetching.lock()).await;
        let _turn = turn.map_err(|_| AuthError::KeysUnavailable)?;
        if let Answer::Unknown { fetched_lately: false, tried_lately: false } = self.answer(kid, now) {
            self.fetch(now).await;
        }
        match self.answer(kid, now) {
            Answer::Known { key, .. } => Ok(key),
            Answer::Unknown { fetched_lately: true, .. } => Err(AuthError::Invalid),
            Answer::Unknown { .. } => Err(AuthError::KeysUnavailable),
        }
    }

    fn answer(&self, kid: &str, now: Instant) -> Answer {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        let lately = |at| since(at).is_some_and(|ago| ago < self.refetch_min);
        let age = since(known.fetched).unwrap_or(Duration::MAX);
        match known.keys.get(kid) {
            Some(key) if age < self.age_max => Answer::Known {
                key: Arc::clone(key),
                stale: age >= self.age_max / STALE_PART && !lately(known.tried),
            },
            _ => Answer::Unknown { fetched_lately: lately(known.fetched), tried_lately: lately(known.tried) },
        }
    }

    /// Fetches the set; a failure leaves the known keys as they were.
    async fn fetch(&self, now: Instant) {
        let fetched =
            timeout(self.wait, self.download()).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let outcome = if fetched.is_ok() { "fetched" } else { "failed" };
        metrics::counter!("auricle_signing_keys_fetches_total", "outcome" => outcome).increment(1);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.tried = Some(now);
        match fetched {
            Ok(keys) => {
                known.keys = keys;
                known.fetched = Some(now);
            }
            Err(error) => tracing::warn!(%error, url = self.url, "fetch the issuer's signing keys"),
        }
    }

    async fn download(&self) -> Result<HashMap<String, Arc<SigningKey>>, String> {
        let told = |error: reqwest::Error| error.without_url().to_string();
        let mut response = self.http.get(&self.url).send().await.map_err(told)?;
        if !response.status().is_success() {
            return Err(format!("answered {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(told)? {
            if body.len() + chunk.len() > self.bytes_max {
                return Err(format!("more than {} bytes", self.bytes_max));
            }
            body.extend_from_slice(&chunk);
        }
        let set: JwkSet = serde_json::from_slice(&body).map_err(|error| format!("not a key set: {error}"))?;
        let keys: HashMap<_, _> = set.keys.iter().take(KEYS_MAX).filter_map(usable).collect();
        if keys.is_empty() { Err("holds no RS256 or ES256 key with a name".to_owned()) } else { Ok(keys) }
    }
}

/// A named key for verifying RS256 or ES256 signatures, by what kind of key it is.
fn usable(jwk: &Jwk) -> Option<(String, Arc<SigningKey>)> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Algorithm::ES256,
        _ => return None,
    };
    let common = &jwk.common;
    let fits = match algorithm {
        Algorithm::RS256 => matches!(common.key_algorithm, None | Some(KeyAlgorithm::RS256)),
        _ => matches!(common.key_algorithm, None | Some(KeyAlgorithm::ES256)),
    };
    let signs = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
    let kid = common.key_id.clone().filter(|_| signs && fits)?;
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some((kid, Arc::new(SigningKey { algorithm, key })))
}
