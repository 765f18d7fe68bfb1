//! The keys of this process, and the loops that bring what is on disk to the present one.

mod audio;

use std::sync::Arc;
use std::time::Duration;

use auricle_core::Limits;
use auricle_store::protect::{KeyError, Keyring, RootKey};
use auricle_store::{Sealing, SqliteStore, StoreError};

pub(crate) use self::audio::AudioProtector;
pub use self::audio::{AudioPass, AudioPassError, AudioSealing};
use crate::clock::monotonic;
use crate::config::Config;
use crate::vitals::Pulse;

/// How often the loop shows that it lives once there is nothing left to do, and tries again what failed.
const IDLE: Duration = Duration::from_secs(5);

/// Reads the keys that the configuration names.
///
/// # Errors
/// [`KeyError`] for the first that is not there, is open to everybody, or is no key.
pub fn keyring(config: &Config) -> Result<Keyring, KeyError> {
    let ours = &config.protection;
    let current = match (&ours.key, &ours.key_file) {
        (Some(key), _) => Some(RootKey::from_text(key.expose(), "protection.key (AURICLE_PROTECTION_KEY)")?),
        (None, Some(file)) => Some(RootKey::read(file)?),
        (None, None) => None,
    };
    let old = ours.old_key_files.0.iter().map(|file| RootKey::read(file)).collect::<Result<_, _>>()?;
    Ok(Keyring::new(current, old))
}

/// What seals what was stored before.
pub(crate) struct Protector {
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) limits: Arc<Limits>,
}

impl Protector {
    /// Runs for ever; may be dropped at any await. What it did is noted with what it did.
    pub(crate) async fn run(self: Arc<Self>, pulse: Arc<Pulse>) {
        let (mut told, mut begun) = (false, false);
        loop {
            pulse.beat(monotonic());
            let wait = match self.step().await {
                Ok(now) => {
                    metrics::gauge!("auricle_protection_share").set(now.share);
                    metrics::gauge!("auricle_protection_damaged_values").set(now.damaged as f64);
                    if !now.done && !begun {
                        begun = true;
                        tracing::info!(share = now.share, "bringing stored texts to the present key");
                    }
                    if now.done && begun {
                        begun = false;
                        tracing::info!(
                            resealed = now.resealed,
                            damaged = now.damaged,
                            "stored texts are under the present key"
                        );
                    }
                    if now.needs_compacting && !told {
                        told = true;
                        tracing::warn!(
                            "every stored text is under the present key, but the database is too large to be written anew while \
                             it serves (`limits.protection_compact_bytes_max`): its free space may hold deleted texts. Stop \
                             the server and run `auricle protect rotate`"
                        );
                    }
                    if now.done || now.needs_compacting { IDLE } else { self.limits.protection_step_every }
                }
                Err(error) => {
                    tracing::warn!(%error, "bring stored texts to the present key");
                    IDLE
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn step(&self) -> Result<Sealing, StoreError> {
        let now = self.store.seal_some().await?;
        if now.needs_compacting {
            return self.store.compact(self.limits.protection_compact_bytes_max).await;
        }
        Ok(now)
    }
}
