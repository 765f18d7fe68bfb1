//! What kind of error a service's answer is, and words for it that may be shown to anybody.

use std::time::Duration;

use super::{ApiKey, Close};
use crate::EngineError;

/// Longest code and longest sentence of a service that are repeated.
const CODE_CHARS_MAX: usize = 64;
const DETAIL_CHARS_MAX: usize = 160;

/// By an HTTP status, or a number that means the same in a message.
///
/// `code` is the service's own name of it, `detail` its sentence: both are repeated only if they are harmless. Source of the
/// kinds: RFC 9110; 402 and 429 are of the account, and pass by themselves or by its owner's doing.
pub(crate) fn by_status(
    engine: &'static str,
    key: &ApiKey,
    status: u16,
    (code, detail): (Option<&str>, Option<&str>),
    retry_after: Option<Duration>,
) -> EngineError {
    let code = code.filter(|code| is_code(code)).map_or_else(String::new, |code| format!(" {code}"));
    let detail = detail.filter(|text| is_harmless(text, key));
    let detail = detail.map_or_else(String::new, |text| format!(": {}", text.trim_end_matches('.')));
    let of = format!("({status}{code})");
    let setting = format!("speech.{engine}_key");
    match status {
        401 | 403 => EngineError::Refused(format!(
            "{engine} refused the key {of}{detail}; set {setting} to one that may use what is asked for"
        )),
        402 => EngineError::Limited { text: format!("{engine} has no credit left {of}"), retry_after },
        429 => EngineError::Limited {
            text: format!("{engine} is asked too much by this account {of}"),
            retry_after,
        },
        408 => broken(engine, &format!("waited too long for us {of}")),
        400..=499 => EngineError::Refused(format!("{engine} refused what was asked for {of}{detail}")),
        500..=599 => broken(engine, &format!("is in trouble {of}")),
        _ => broken(engine, &format!("gave an answer that makes no sense {of}")),
    }
}

/// It broke; `what` it did.
pub(crate) fn broken(engine: &'static str, what: &str) -> EngineError {
    EngineError::Broken(format!("{engine} {what}"))
}

/// It ended the connection before everything was said.
pub(crate) fn closed(engine: &'static str, close: Option<&Close>) -> EngineError {
    match close {
        None => broken(engine, "dropped the connection"),
        Some(Close { code, reason }) => {
            let reason = reason.split(|c: char| c.is_whitespace() || c == ':').next().unwrap_or_default();
            let reason = if is_code(reason) { format!(" {reason}") } else { String::new() };
            broken(engine, &format!("closed the connection ({code}{reason})"))
        }
    }
}

/// It sent what is not of its protocol. What it was may hold a transcript and is not repeated.
pub(crate) fn unreadable(engine: &'static str, error: &serde_json::Error) -> EngineError {
    let what = match error.classify() {
        serde_json::error::Category::Data => "a message of another form than its protocol has",
        _ => "a message that is not JSON",
    };
    broken(engine, &format!("sent {what} (line {}, column {})", error.line(), error.column()))
}

fn is_code(text: &str) -> bool {
    let of_a_code = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (1..=CODE_CHARS_MAX).contains(&text.len()) && text.chars().all(of_a_code)
}

fn is_harmless(text: &str, key: &ApiKey) -> bool {
    let printable = text.chars().all(|c| c.is_ascii_graphic() || c == ' ');
    (1..=DETAIL_CHARS_MAX).contains(&text.len()) && printable && !text.contains(key.expose())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, code: Option<&str>, detail: Option<&str>) -> EngineError {
        by_status("deepgram", &ApiKey::new("dg-secret-1"), status, (code, detail), None)
    }

    #[test]
    fn a_status_says_whose_fault_it_is() {
        for status in [400, 401, 403, 404, 405, 422] {
            assert!(matches!(of(status, None, None), EngineError::Refused(_)), "{status}");
        }
        for status in [402, 429] {
            assert!(matches!(of(status, None, None), EngineError::Limited { .. }), "{status}");
        }
        for status in [0, 200, 302, 408, 500, 502, 503, 504, 999] {
            assert!(matches!(of(status, None, None), EngineError::Broken(_)), "{status}");
        }
    }

    #[test]
    fn what_a_service_says_is_repeated_only_if_it_is_harmless() {
        let text = of(403, Some("INSUFFICIENT_PERMISSIONS"), Some("No access to the model.")).to_string();
        assert!(text.contains("(403 INSUFFICIENT_PERMISSIONS): No access to the model;"), "{text}");
        for detail in ["the key dg-secret-1 is unknown", "two\nlines", "", &"x".repeat(161)] {
            let text = of(400, Some("a code\nof two lines"), Some(detail)).to_string();
            assert_eq!(text, "deepgram refused what was asked for (400)");
        }
    }

    #[test]
    fn a_close_tells_its_code_and_not_its_sentence() {
        let close = |code, reason: &str| closed("deepgram", Some(&Close { code, reason: reason.to_owned() }));
        assert_eq!(
            close(1011, "NET-0001: no audio").to_string(),
            "deepgram closed the connection (1011 NET-0001)"
        );
        assert_eq!(close(1000, "").to_string(), "deepgram closed the connection (1000)");
        assert_eq!(closed("deepgram", None).to_string(), "deepgram dropped the connection");
    }
}
