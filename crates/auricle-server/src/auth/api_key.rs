//! API keys: random text that a user gives to a script or a device. The store knows only its SHA-256.

use std::sync::{Arc, Mutex, PoisonError};

use auricle_core::session::Now;
use auricle_core::{Limits, UserId};
use auricle_store::Store;
use rand::Rng;
use sha2::{Digest, Sha256};

use super::AuthError;
use super::recent::Recent;

/// What every key begins with, so that people and secret scanners recognise one.
pub const API_KEY_PREFIX: &str = "auk_";

/// A fresh key with 256 bits of entropy: `auk_` and 64 hexadecimal digits.
pub fn new_api_key(entropy: &mut impl Rng) -> String {
    let mut bytes = [0_u8; 32];
    entropy.fill_bytes(&mut bytes);
    bytes.iter().fold(API_KEY_PREFIX.to_owned(), |key, byte| format!("{key}{byte:02x}"))
}

/// What the store is given instead of the key. A plain hash is enough: the key is random, so it cannot be guessed.
pub fn api_key_sha256(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// Looks keys up, and remembers for a moment whose they are.
pub(super) struct ApiKeys {
    store: Arc<dyn Store>,
    known: Mutex<Recent<UserId>>,
}

impl ApiKeys {
    pub(super) fn new(store: Arc<dyn Store>, limits: &Limits) -> Self {
        Self { store, known: Mutex::new(Recent::new(limits.api_keys_known_max, limits.api_key_age_max)) }
    }

    /// Whose key it is. A key that was good in this process and is gone from the store was revoked.
    pub(super) async fn user(&self, digest: [u8; 32], now: Now) -> Result<UserId, AuthError> {
        if let Some(user) = self.known().get(&digest, now.mono) {
            return Ok(user);
        }
        let found = self.store.api_key_user(digest).await.map_err(|error| {
            tracing::warn!(%error, "look up an API key");
            AuthError::Unavailable
        })?;
        match found {
            Some(user) => {
                self.known().insert(digest, user.clone(), now.mono);
                Ok(user)
            }
            None if self.known().remove(&digest) => Err(AuthError::Revoked),
            None => Err(AuthError::Invalid),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Recent<UserId>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
