//! Close codes and their reasons, as clients know them. Source: listen-protocol 1.3, 1.5, 1.6 and 4.5; 1012 and 1013 of
//! the WebSocket registry for what Omi has no code for.
//!
//! Owns: numbers and texts. Leaves to others: when a connection is closed. First-message failures of the web socket are
//! [`crate::client::WebAuthFailure`], wrong parameters [`crate::params::ParamError`]; both close with [`POLICY`].

/// A close frame's code and reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Close {
    /// 1000 to 4999.
    pub code: u16,
    /// At most 123 bytes; empty where Omi sends none.
    pub reason: &'static str,
}

/// The code of everything that the client itself would have to change.
pub const POLICY: u16 = 1008;
/// The longest reason that fits a close frame, in bytes.
pub const REASON_BYTES_MAX: usize = 123;

macro_rules! closes {
    ($($(#[$doc:meta])* $name:ident = $code:literal $reason:literal;)+) => {
        $($(#[$doc])* pub const $name: Close = Close { code: $code, reason: $reason };)+

        /// Every one of the above, for documentation and tests.
        pub const ALL: &[Close] = &[$($name),+];
    };
}

closes! {
    /// Any orderly end on the server's side, inactivity included.
    GOING_AWAY = 1001 "";
    /// The header is missing, or is not two words.
    AUTH_HEADER_MISSING = 1008 "Authorization header not found";
    /// Nobody accepts the token.
    AUTH_TOKEN_INVALID = 1008 "Invalid authorization token";
    /// Another failure of authentication.
    AUTH_ERROR = 1008 "Auth error";
    /// An empty user id.
    BAD_UID = 1008 "Bad uid";
    /// No such user.
    BAD_USER = 1008 "Bad user";
    /// Out of credit (generation B); `freemium_threshold_reached` goes before it.
    TRIAL_EXPIRED = 1008 "trial_expired";
    /// Too many connections of one user.
    RATE_LIMITED = 1008 "Rate limited, retry later";
    /// The user and all that is theirs is being deleted.
    USER_DELETED = 1008 "user deleted";
    /// An image chunk that cannot be (generation B and on).
    IMAGE_CHUNK_INVALID = 1008 "";
    /// A message over the limit.
    TOO_LARGE = 1009 "message too large";
    /// Something here failed.
    INTERNAL = 1011 "";
    /// Generation B without its codec.
    LC3_UNAVAILABLE = 1011 "LC3 codec is not available";
    /// After a terminal `stt_failed` (generation C).
    STT_UNAVAILABLE = 1011 "transcription_service_unavailable";
    /// The server restarts: come back at once, another takes over.
    RESTARTING = 1012 "server is restarting; reconnect";
    /// Come back later: the account's state cannot be read, all sessions are taken, or the client reads too slowly.
    TRY_AGAIN_LATER = 1013 "";
    /// The user's own provider keys do not fit.
    KEY_MISMATCH = 4003 "";
    /// The token has expired: refresh it and reconnect.
    TOKEN_REFRESH = 4001 "Token refresh required";
    /// The token was revoked: log in again.
    TOKEN_REVOKED = 4004 "Token revoked; re-login required";
    /// The account is being deleted.
    ACCOUNT_DELETION = 4005 "Account deletion in progress";
}

/// The reason as a close frame can carry it: cut at a character's border to [`REASON_BYTES_MAX`] bytes.
pub fn fitting(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_fits_a_close_frame_and_every_code_may_be_sent() {
        for close in ALL {
            assert_eq!(fitting(close.reason), close.reason);
            assert!(matches!(close.code, 1001 | 1008..=1013 | 4000..=4999), "{close:?}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = "é".repeat(100);
        assert_eq!(fitting(&reason).len(), 122);
        assert_eq!(fitting("short"), "short");
    }
}
