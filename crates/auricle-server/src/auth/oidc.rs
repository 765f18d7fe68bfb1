//! ID tokens of an OpenID Connect issuer (Firebase is one), verified with the issuer's published keys.
//!
//! Invariants: only RS256 and ES256, and only with a key of that kind from the issuer's set, so that neither `none` nor a
//! public key used as a shared secret passes; time is an argument.

use auricle_core::session::Now;
use auricle_core::{Limits, UserId};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde_json::{Map, Value};

use super::keyset::KeySet;
use super::{AuthError, is_user_id};
use crate::config::AuthConfig;

/// How far the issuer's clock may be off, in seconds.
const LEEWAY_SECS: f64 = 30.0;

/// Why ID tokens cannot be accepted at all.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// The HTTP client for the issuer's keys cannot be made.
    #[error(
        "cannot make an HTTP client for auth.oidc_jwks_url: {0}; are the system's CA certificates installed?"
    )]
    Client(#[source] reqwest::Error),
}

/// One issuer.
pub(super) struct Oidc {
    keys: KeySet,
    issuer: String,
    audience: String,
    user_claim: String,
}

impl Oidc {
    /// `None` if no issuer is configured. The configuration has been checked: its three parts come together.
    pub(super) fn new(auth: &AuthConfig, limits: &Limits) -> Result<Option<Self>, OidcError> {
        let (Some(issuer), Some(audience), Some(url)) =
            (&auth.oidc_issuer, &auth.oidc_audience, &auth.oidc_jwks_url)
        else {
            return Ok(None);
        };
        Ok(Some(Self {
            keys: KeySet::new(url, limits).map_err(OidcError::Client)?,
            issuer: issuer.clone(),
            audience: audience.clone(),
            user_claim: auth.oidc_user_claim.clone(),
        }))
    }

    /// Whose token it is.
    pub(super) async fn user(&self, token: &str, now: Now) -> Result<UserId, AuthError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| AuthError::Invalid)?;
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256) {
            return Err(AuthError::Invalid);
        }
        let Header { alg, kid: Some(kid), .. } = header else { return Err(AuthError::Invalid) };
        let key = self.keys.find(&kid, now.mono).await?;
        if key.algorithm != alg {
            return Err(AuthError::Invalid);
        }
        let claims = self.verified(token, alg, &key.key)?;
        is_current(&claims, now)?;
        match claims.get(&self.user_claim).and_then(Value::as_str) {
            Some(user) if is_user_id(user) => Ok(UserId::from(user)),
            _ => Err(AuthError::Invalid),
        }
    }

    fn verified(
        &self,
        token: &str,
        alg: Algorithm,
        key: &DecodingKey,
    ) -> Result<Map<String, Value>, AuthError> {
        let mut validation = Validation::new(alg);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        // Times are checked in `is_current`, against the caller's clock.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let verified = jsonwebtoken::decode::<Map<String, Value>>(token, key, &validation);
        verified.map(|token| token.claims).map_err(|_| AuthError::Invalid)
    }
}

fn is_current(claims: &Map<String, Value>, now: Now) -> Result<(), AuthError> {
    let now = now.wall.as_secs_f64();
    let time = |claim| claims.get(claim).map(|value| value.as_f64().ok_or(AuthError::Invalid)).transpose();
    match (time("exp")?, time("nbf")?) {
        (None, _) => Err(AuthError::Invalid),
        (Some(until), _) if until + LEEWAY_SECS <= now => Err(AuthError::Expired),
        (_, Some(from)) if from - LEEWAY_SECS > now => Err(AuthError::Invalid),
        _ => Ok(()),
    }
}
