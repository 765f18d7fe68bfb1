//! An issuer of the test's own: two keys, tokens signed with them, and an HTTP server that publishes their public halves.
//!
//! The keys in `fixtures/test-only-*.der` were made for these tests and protect nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use auricle_core::UnixMicros;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub(crate) const ISSUER: &str = "https://securetoken.google.com/test-project";
pub(crate) const AUDIENCE: &str = "test-project";
pub(crate) const RSA_KID: &str = "rsa-1";
pub(crate) const EC_KID: &str = "ec-1";

const RSA_DER: &[u8] = include_bytes!("../fixtures/test-only-rsa-private-key.der");
const EC_DER: &[u8] = include_bytes!("../fixtures/test-only-ec-private-key.pkcs8.der");

fn rsa_key() -> EncodingKey {
    EncodingKey::from_rsa_der(RSA_DER)
}

fn ec_key() -> EncodingKey {
    EncodingKey::from_ec_der(EC_DER)
}

/// Claims of a good token for `ana` that ends `secs` after `now`.
pub(crate) fn claims(now: UnixMicros, secs: i64) -> Value {
    let now = now.0 / 1_000_000;
    json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "ana", "iat": now, "exp": now + secs })
}

fn signed(claims: &Value, algorithm: Algorithm, kid: &str, key: &EncodingKey) -> String {
    let mut header = Header::new(algorithm);
    header.kid = Some(kid.to_owned());
    jsonwebtoken::encode(&header, claims, key).unwrap()
}

pub(crate) fn rs256(claims: &Value) -> String {
    rs256_as(claims, RSA_KID)
}

pub(crate) fn rs256_as(claims: &Value, kid: &str) -> String {
    signed(claims, Algorithm::RS256, kid, &rsa_key())
}

pub(crate) fn es256(claims: &Value) -> String {
    es256_as(claims, EC_KID)
}

pub(crate) fn es256_as(claims: &Value, kid: &str) -> String {
    signed(claims, Algorithm::ES256, kid, &ec_key())
}

/// Signed with HMAC, the published modulus as its secret: what alg confusion takes for a signature.
pub(crate) fn hs256(claims: &Value, kid: &str) -> String {
    let jwk = serde_json::to_value(jwk(&rsa_key(), Algorithm::RS256, RSA_KID)).unwrap();
    let secret = BASE64_URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
    signed(claims, Algorithm::HS256, kid, &EncodingKey::from_secret(&secret))
}

/// With an empty signature.
pub(crate) fn unsigned(claims: &Value, alg: &str) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(&json!({ "alg": alg, "typ": "JWT", "kid": RSA_KID })), part(claims))
}

fn jwk(key: &EncodingKey, algorithm: Algorithm, kid: &str) -> Jwk {
    let mut jwk = Jwk::from_encoding_key(key, algorithm).unwrap();
    jwk.common.key_id = Some(kid.to_owned());
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    jwk
}

#[derive(Default)]
struct Shared {
    requests: AtomicUsize,
    mode: AtomicU8,
}

const ALL: u8 = 0;
const ONLY_EC: u8 = 1;
const FAIL: u8 = 2;
const HANG: u8 = 3;
const FLOOD: u8 = 4;

/// A key server on loopback.
pub(crate) struct Issuer {
    shared: Arc<Shared>,
    url: String,
}

impl Issuer {
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let router = Router::new().route("/keys", get(keys)).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { shared, url }
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn publish_all(&self) {
        self.shared.mode.store(ALL, Ordering::SeqCst);
    }

    pub(crate) fn publish_only_ec(&self) {
        self.shared.mode.store(ONLY_EC, Ordering::SeqCst);
    }

    pub(crate) fn fail(&self) {
        self.shared.mode.store(FAIL, Ordering::SeqCst);
    }

    pub(crate) fn hang(&self) {
        self.shared.mode.store(HANG, Ordering::SeqCst);
    }

    pub(crate) fn flood(&self) {
        self.shared.mode.store(FLOOD, Ordering::SeqCst);
    }
}

async fn keys(State(shared): State<Arc<Shared>>) -> Response {
    shared.requests.fetch_add(1, Ordering::SeqCst);
    let rsa = jwk(&rsa_key(), Algorithm::RS256, RSA_KID);
    let ec = jwk(&ec_key(), Algorithm::ES256, EC_KID);
    match shared.mode.load(Ordering::SeqCst) {
        ALL => axum::Json(json!({ "keys": [rsa, ec, { "kty": "oct", "k": "c2VjcmV0", "kid": "shared" }] }))
            .into_response(),
        ONLY_EC => axum::Json(json!({ "keys": [ec] })).into_response(),
        HANG => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            "".into_response()
        }
        FLOOD => " ".repeat(8 * 1024 * 1024).into_response(),
        _ => axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
