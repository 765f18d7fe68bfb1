//! How a receiver knows that a delivery is ours: `X-Auricle-Signature: t=<unix seconds>,v1=<hex HMAC-SHA256>`, over the seconds,
//! a full stop and the body.
//!
//! The time is part of what is signed, so that whoever overhears a delivery cannot send it again later.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The header, in lower case.
pub const HEADER: &str = "x-auricle-signature";
/// How far a receiver's clock and the time in the header may be apart.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// Why a delivery is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The header is not of the form `t=…,v1=…`.
    #[error("the signature is not of the form t=<unix seconds>,v1=<hex>")]
    Malformed,
    /// Too old, or of the future.
    #[error(
        "the signature is of another time: it may be a delivery that somebody repeats, or a clock is wrong"
    )]
    Stale,
    /// Another secret, or another body.
    #[error("the signature does not fit: the secret is another, or the body was changed")]
    Wrong,
}

fn mac(secret: &str, unix_secs: i64, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(unix_secs.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    mac
}

/// The header's value for a body that is sent at `unix_secs`.
pub fn sign(secret: &str, unix_secs: i64, body: &[u8]) -> String {
    format!("t={unix_secs},v1={}", hex::encode(mac(secret, unix_secs, body).finalize().into_bytes()))
}

/// Whether `header` says that whoever holds `secret` sent this body, not longer than `tolerance` from `now_unix_secs`. Takes
/// the same time whatever is wrong with the digest.
pub fn verify(
    secret: &str,
    header: &str,
    body: &[u8],
    now_unix_secs: i64,
    tolerance: Duration,
) -> Result<(), SignatureError> {
    let (mut at, mut digests) = (None, Vec::new());
    for part in header.split(',') {
        match part.trim().split_once('=') {
            Some(("t", value)) => at = value.parse::<i64>().ok(),
            Some(("v1", value)) => digests.extend(hex::decode(value)),
            // Of a later version.
            Some(_) => {}
            None => return Err(SignatureError::Malformed),
        }
    }
    let at = at.filter(|_| !digests.is_empty()).ok_or(SignatureError::Malformed)?;
    if now_unix_secs.abs_diff(at) > tolerance.as_secs() {
        return Err(SignatureError::Stale);
    }
    let fits = |digest: &Vec<u8>| mac(secret, at, body).verify_slice(digest).is_ok();
    if digests.iter().any(fits) { Ok(()) } else { Err(SignatureError::Wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"id":"c1"}"#;

    #[test]
    fn what_was_signed_is_believed_for_five_minutes_and_nothing_else_is() {
        let header = sign("s3cret", 1_774_500_000, BODY);
        // As `docs/webhooks.md` has it.
        let digest = "6da790ca0798c55686717d68c2c31e5eadc8262a8aefe2e30aec19e5d62251a7";
        assert_eq!(header, format!("t=1774500000,v1={digest}"));
        let ask = |secret, header: &str, body, now| verify(secret, header, body, now, TOLERANCE);
        for now in [1_774_499_700, 1_774_500_000, 1_774_500_300] {
            assert_eq!(ask("s3cret", &header, BODY, now), Ok(()));
        }
        for now in [1_774_499_699, 1_774_500_301] {
            assert_eq!(ask("s3cret", &header, BODY, now), Err(SignatureError::Stale));
        }
        assert_eq!(ask("other", &header, BODY, 1_774_500_000), Err(SignatureError::Wrong));
        assert_eq!(ask("s3cret", &header, b"{}", 1_774_500_000), Err(SignatureError::Wrong));
        let later = header.replace("t=1774500000", "t=1774500001");
        assert_eq!(ask("s3cret", &later, BODY, 1_774_500_000), Err(SignatureError::Wrong));
        let with_more = format!("v2=ab,{header},v1=00");
        assert_eq!(ask("s3cret", &with_more, BODY, 1_774_500_000), Ok(()));
        for wrong in ["", "t=1", "v1=00", "t=x,v1=00", "t=1774500000,v1=xyz", "hello"] {
            assert_eq!(ask("s3cret", wrong, BODY, 1_774_500_000), Err(SignatureError::Malformed), "{wrong}");
        }
    }
}
