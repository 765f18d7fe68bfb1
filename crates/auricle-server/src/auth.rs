//! Who is asking: from an `Authorization` header or a token to a user.
//!
//! Accepted in this order: the admin key followed by a user id, an API key, an ID token of the configured issuer; and the
//! local user while the public address is loopback. Source: listen-protocol 1.3.
//! Leaves to others: sending the close code or the 401, what a user may see (the store asks for the user everywhere).
//! Invariants: a token just refused is refused again without any I/O; secrets are compared in constant time and never
//! logged; trouble of the key server refuses tokens for now, and never for longer.

mod api_key;
mod keyset;
mod oidc;
mod recent;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use auricle_core::session::Now;
use auricle_core::{Limits, UserId};
use auricle_store::Store;
use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use self::api_key::ApiKeys;
pub use self::api_key::{API_KEY_PREFIX, api_key_sha256, new_api_key};
use self::oidc::Oidc;
pub use self::oidc::OidcError;
use self::recent::Recent;
use crate::config::{Config, Secret};

/// Longest token that is looked at, in bytes. ID tokens are one to two thousand.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Longest user id, in bytes.
const USER_ID_BYTES_MAX: usize = 128;

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AuthError {
    /// No `Authorization` header, and no local user here.
    #[error("Authorization header not found")]
    Missing,
    /// The header is not two words.
    #[error("Invalid authorization token")]
    Malformed,
    /// Nothing here knows this token.
    #[error("Invalid authorization token")]
    Invalid,
    /// An ID token past its time: the client must refresh it.
    #[error("Token refresh required")]
    Expired,
    /// The issuer's signing keys cannot be had at the moment.
    #[error("Token refresh required")]
    KeysUnavailable,
    /// It was valid until somebody removed it.
    #[error("Token revoked; re-login required")]
    Revoked,
    /// The store did not answer.
    #[error("Authentication is unavailable; try again later")]
    Unavailable,
    /// A web page of another site tries to act as the local user.
    #[error("Pages of other sites may not act as the local user")]
    Foreign,
}

impl AuthError {
    /// Close code and reason of a WebSocket. Source: listen-protocol 1.3, generation C.
    pub fn close(self) -> (u16, &'static str) {
        match self {
            Self::Missing => (1008, "Authorization header not found"),
            Self::Malformed | Self::Invalid => (1008, "Invalid authorization token"),
            Self::Expired | Self::KeysUnavailable => (4001, "Token refresh required"),
            Self::Revoked => (4004, "Token revoked; re-login required"),
            Self::Unavailable => (1013, "Authentication is unavailable; try again later"),
            Self::Foreign => (1008, "Auth error"),
        }
    }

    /// The metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
            Self::Expired => "expired",
            Self::KeysUnavailable => "keys_unavailable",
            Self::Revoked => "revoked",
            Self::Unavailable => "unavailable",
            Self::Foreign => "foreign",
        }
    }

    /// Whether the same token will be refused again for the same reason.
    fn is_final(self) -> bool {
        matches!(self, Self::Invalid | Self::Expired | Self::Revoked)
    }
}

/// Tells who is asking. Shared by all sockets and requests of the process.
pub struct Authenticator {
    admin_key: Option<Secret>,
    /// Set only while the public address is loopback.
    local_user: Option<UserId>,
    /// No credential is configured: every token stands for the local user.
    open: bool,
    api_keys: Option<ApiKeys>,
    oidc: Option<Oidc>,
    refused: Mutex<Recent<AuthError>>,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator").field("local_user", &self.local_user).finish_non_exhaustive()
    }
}

impl Authenticator {
    /// Sets up what `config` asks for. Does no I/O; signing keys are fetched when the first token needs them.
    pub fn new(config: &Config, store: Arc<dyn Store>) -> Result<Self, OidcError> {
        let (auth, limits) = (&config.auth, &config.limits);
        let local = config.is_loopback_only().then(|| UserId::from(auth.local_user.as_str()));
        Ok(Self {
            admin_key: auth.admin_key.clone(),
            open: local.is_some() && !auth.has_credential(),
            local_user: local,
            api_keys: auth.api_keys.then(|| ApiKeys::new(store, limits)),
            oidc: Oidc::new(auth, limits)?,
            refused: Mutex::new(refused_cache(limits)),
        })
    }

    /// Who sent a request with these headers. Beside the token this looks at `Host` and `Origin`, so that no page of
    /// another site acts as the local user through the user's own browser.
    pub async fn authenticate_request(&self, headers: &HeaderMap, now: Now) -> Result<UserId, AuthError> {
        let authorization = text(headers, header::AUTHORIZATION);
        let user = self.authenticate(authorization, now).await?;
        let proven = authorization.is_some() && !self.open;
        self.at_home(user, proven, headers)
    }

    /// Whether a request that was authenticated is its operator's, who may act for everybody: by the admin key, or as the local
    /// user without a credential of somebody else's.
    pub fn is_operator(&self, headers: &HeaderMap) -> bool {
        match text(headers, header::AUTHORIZATION) {
            None => self.local_user.is_some(),
            Some(header) => {
                let token = header.split_once(' ').map(|(_, token)| token);
                token.is_some_and(|token| self.named_by_admin(token).is_some())
                    || (self.open && self.local_user.is_some())
            }
        }
    }

    /// The same for a socket whose token came in its first message.
    pub async fn authenticate_first_message(
        &self,
        token: &str,
        headers: &HeaderMap,
        now: Now,
    ) -> Result<UserId, AuthError> {
        let user = self.authenticate_token(token, now).await?;
        self.at_home(user, !self.open, headers)
    }

    /// Refuses the local user without a credential (`proven`) to pages of other sites.
    fn at_home(&self, user: UserId, proven: bool, headers: &HeaderMap) -> Result<UserId, AuthError> {
        let home = text(headers, header::HOST).is_none_or(|host| is_loopback_host(without_port(host)))
            && text(headers, header::ORIGIN).is_none_or(is_loopback_origin);
        if home || proven || self.local_user.as_ref() != Some(&user) {
            return Ok(user);
        }
        Err(counted(AuthError::Foreign))
    }

    /// Who sent this `Authorization` header: exactly two words, the first of which is not looked at.
    pub async fn authenticate(&self, header: Option<&str>, now: Now) -> Result<UserId, AuthError> {
        let Some(header) = header else {
            return match &self.local_user {
                Some(user) => Ok(accepted("local", user.clone())),
                None => Err(counted(AuthError::Missing)),
            };
        };
        match header.split_once(' ') {
            Some((_, token)) if !token.is_empty() && !token.contains(' ') => {
                self.authenticate_token(token, now).await
            }
            _ => Err(counted(AuthError::Malformed)),
        }
    }

    /// Whose token this is.
    pub async fn authenticate_token(&self, token: &str, now: Now) -> Result<UserId, AuthError> {
        if let Some(user) = self.named_by_admin(token) {
            return Ok(accepted("admin_key", user));
        }
        if let (true, Some(user)) = (self.open, &self.local_user) {
            return Ok(accepted("local", user.clone()));
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(counted(AuthError::Invalid));
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(error) = self.refused().get(&digest, now.mono) {
            metrics::counter!("auricle_auth_repeats_refused_total").increment(1);
            return Err(counted(error));
        }
        let found = self.look_up(token, digest, now).await;
        found.map(|(kind, user)| accepted(kind, user)).map_err(|error| {
            if error.is_final() {
                self.refused().insert(digest, error, now.mono);
            }
            counted(error)
        })
    }

    async fn look_up(
        &self,
        token: &str,
        digest: [u8; 32],
        now: Now,
    ) -> Result<(&'static str, UserId), AuthError> {
        match (&self.api_keys, &self.oidc) {
            (Some(keys), _) if token.starts_with(API_KEY_PREFIX) => {
                Ok(("api_key", keys.user(digest, now).await?))
            }
            (_, Some(oidc)) => Ok(("oidc", oidc.user(token, now).await?)),
            _ => Err(AuthError::Invalid),
        }
    }

    /// A token that begins with the admin key names the user that follows.
    fn named_by_admin(&self, token: &str) -> Option<UserId> {
        let key = self.admin_key.as_ref()?.expose().as_bytes();
        let (head, user) = token.as_bytes().split_at_checked(key.len())?;
        let user = std::str::from_utf8(user).ok()?;
        (bool::from(head.ct_eq(key)) && is_user_id(user)).then(|| UserId::from(user))
    }

    fn refused(&self) -> std::sync::MutexGuard<'_, Recent<AuthError>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("\u{fffd}"))
}

fn refused_cache(limits: &Limits) -> Recent<AuthError> {
    Recent::new(limits.refused_tokens_max, limits.refused_token_age_max)
}

fn accepted(kind: &'static str, user: UserId) -> UserId {
    metrics::counter!("auricle_auth_attempts_total", "outcome" => kind).increment(1);
    user
}

fn counted(error: AuthError) -> AuthError {
    metrics::counter!("auricle_auth_attempts_total", "outcome" => error.as_str()).increment(1);
    error
}

/// Whether `text` can be a user id: 1 to 128 bytes of letters, digits and a few signs.
pub fn is_user_id(text: &str) -> bool {
    let sane = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:@|+=".contains(&byte);
    (1..=USER_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(sane)
}

/// Whether a host name or address (IPv6 with or without brackets) is this machine.
pub(crate) fn is_loopback_host(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => bare.eq_ignore_ascii_case("localhost"),
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

fn is_loopback_origin(origin: &str) -> bool {
    origin.split_once("://").is_some_and(|(_, host)| is_loopback_host(without_port(host)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "::ffff:127.0.0.1"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in
            ["", "example.org", "localhost.example.org", "10.0.0.1", "127.0.0.1.example.org", "0.0.0.0"]
        {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    #[test]
    fn a_port_is_cut_off() {
        for (host, name) in
            [("a:80", "a"), ("a", "a"), ("[::1]:8080", "[::1]"), ("[::1]", "[::1]"), ("::1", "::1")]
        {
            assert_eq!(without_port(host), name);
        }
    }

    #[test]
    fn origins_of_other_sites_are_told_apart() {
        assert!(is_loopback_origin("http://127.0.0.1:8080") && is_loopback_origin("https://localhost"));
        for origin in ["null", "", "https://example.org", "http://localhost.example.org:8080", "\u{fffd}"] {
            assert!(!is_loopback_origin(origin), "{origin}");
        }
    }
}
