//! Root keys as people keep them: 32 random bytes as text, in a file or a variable.

use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use zeroize::Zeroizing;

use super::RootKey;

/// Longest key file; a key takes 64 characters and a line end.
const FILE_BYTES_MAX: u64 = 1_024;
const FORM: &str = "32 random bytes as 64 hexadecimal digits or as Base64, e.g. from `openssl rand -hex 32`";

/// Why there is no key. Never holds it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the key file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Everybody on the machine can read it.
    #[error("the key file {} is open to every user of this machine (mode {mode:o}); chmod 600 it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It holds something else.
    #[error("{what} is not a key: expected {FORM}")]
    Form {
        /// What was read.
        what: String,
    },
}

impl RootKey {
    /// Reads a key from text. `what` names it in the error.
    ///
    /// # Errors
    /// [`KeyError::Form`] for anything but 32 bytes in hexadecimal or Base64.
    pub fn from_text(text: &str, what: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let mut bytes = Zeroizing::new([0; 32]);
        let taken = hex::decode_to_slice(text, &mut *bytes).is_ok()
            || [&STANDARD, &STANDARD_NO_PAD].into_iter().any(|form| {
                let Ok(decoded) = form.decode(text).map(Zeroizing::new) else { return false };
                let fits = decoded.len() == bytes.len();
                if fits {
                    bytes.copy_from_slice(&decoded);
                }
                fits
            });
        if taken { Ok(Self::new(bytes)) } else { Err(KeyError::Form { what: what.to_owned() }) }
    }

    /// Reads a key file. Blocks.
    ///
    /// # Errors
    /// [`KeyError`]; also for a file that every user of the machine may read or write.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let unreadable = |source| KeyError::Unreadable { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
            if mode & 0o007 != 0 {
                return Err(KeyError::Open { path: path.to_owned(), mode });
            }
        }
        let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX as usize));
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
        Self::from_text(&text, &path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_in_both_forms() {
        let hex = RootKey::from_text(&format!("{}\n", "0f".repeat(32)), "it").unwrap();
        let base64 = STANDARD.encode([0x0f; 32]);
        for text in [base64.as_str(), base64.trim_end_matches('=')] {
            assert_eq!(RootKey::from_text(text, "it").unwrap().id(), hex.id());
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        for text in ["", "secret", &"0f".repeat(31), &"0f".repeat(33), &"0g".repeat(32)] {
            let error = RootKey::from_text(text, "AURICLE_PROTECTION_KEY").unwrap_err().to_string();
            assert!(error.starts_with("AURICLE_PROTECTION_KEY is not a key"), "{error}");
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_key_file_that_everybody_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "0f".repeat(32)).unwrap();
        let with = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            RootKey::read(&path)
        };
        assert!(with(0o600).is_ok() && with(0o440).is_ok());
        for mode in [0o644, 0o602, 0o777] {
            assert!(
                matches!(with(mode), Err(KeyError::Open { mode: found, .. }) if found == mode),
                "{mode:o}"
            );
        }
        assert!(matches!(RootKey::read(&folder.path().join("none")), Err(KeyError::Unreadable { .. })));
    }
}
