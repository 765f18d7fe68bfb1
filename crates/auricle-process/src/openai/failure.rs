//! What a failed call means: whether another is worth it, when, and what a person should do.

use std::time::Duration;

use auricle_core::breaker::Outcome;
use auricle_core::{Limits, UnixMicros};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::UnderstandError;

/// Longest code of an error that is passed on.
const CODE_CHARS_MAX: usize = 64;

/// How much of an error is searched for [`FORM_WORDS`].
const FORM_BYTES_MAX: usize = 1_024;
/// How servers name the form of output that they do not take: OpenAI and DeepSeek by the parameter, others in words.
const FORM_WORDS: [&str; 6] =
    ["response_format", "response format", "json_schema", "json schema", "json_object", "structured output"];

/// Why a call brought no understanding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    label: &'static str,
    /// Short: the conversation's user sees it.
    reason: String,
    /// Where and what a person who runs the server should look at; for the log.
    advice: String,
    after: Option<Duration>,
    permanent: bool,
    /// Whether the server seems to be away or too busy, which the breaker counts.
    away: bool,
    /// Whether the server only lacks the form in which the answer was asked for.
    formless: bool,
}

impl Failure {
    /// For metrics.
    pub(super) fn label(&self) -> &'static str {
        self.label
    }

    /// For the log.
    pub(super) fn advice(&self) -> &str {
        &self.advice
    }

    /// For the breaker.
    pub(super) fn outcome(&self) -> Outcome {
        if self.away { Outcome::Failed } else { Outcome::Ok }
    }

    /// Whether the same may be asked for in a plainer form.
    pub(super) fn is_formless(&self) -> bool {
        self.formless
    }

    /// Nobody was asked: it is not the time.
    pub(super) fn not_now(reason: impl Into<String>, after: Duration) -> Self {
        let after = Some(after);
        Self { label: "not_now", reason: reason.into(), after, away: true, ..Self::senseless("") }
    }

    /// Nothing came, or it broke off.
    pub(super) fn unanswered(error: &reqwest::Error, host: &str, limits: &Limits) -> Self {
        let (label, reason, advice) = if error.is_connect() {
            let cause = chain(error);
            ("unreachable", "the language model cannot be reached", format!("{host}: {cause}"))
        } else if error.is_timeout() {
            let bound = limits.llm_call_max;
            let advice = format!("{host} did not answer within {bound:?} (`limits.llm_call_max`)");
            ("timeout", "the language model did not answer in time", advice)
        } else {
            let advice = format!("the connection to {host} broke off");
            ("broken", "the connection to the language model broke off", advice)
        };
        Self { label, reason: reason.into(), advice, away: true, ..Self::senseless("") }
    }

    /// More than is taken.
    pub(super) fn too_long(host: &str, bytes_max: usize) -> Self {
        let advice =
            format!("the answer of {host} is longer than {bytes_max} bytes (`limits.llm_answer_bytes_max`)");
        Self { advice, ..Self::senseless("the language model's answer is too long") }
    }

    /// An answer that is not what was asked for. `reason` holds nothing of it.
    pub(super) fn senseless(reason: impl Into<String>) -> Self {
        let (reason, advice) = (reason.into(), String::new());
        let (after, permanent, away, formless) = (None, false, false, false);
        Self { label: "senseless", reason, advice, after, permanent, away, formless }
    }

    /// The model would not, and would not again.
    pub(super) fn declined() -> Self {
        let reason = "the language model declined to make a record of this".into();
        let advice = "another model may (`llm.model`), then `auricle jobs retry`".into();
        Self { label: "declined", reason, advice, permanent: true, ..Self::senseless("") }
    }

    /// A status that is no success.
    pub(super) fn refused(
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        (host, model): (&str, &str),
        now: UnixMicros,
    ) -> Self {
        let number = status.as_u16();
        let said = match code(body) {
            Some(code) => format!("HTTP {number}, {code}"),
            None => format!("HTTP {number}"),
        };
        if matches!(number, 408 | 409 | 425 | 429) || status.is_server_error() {
            return Self {
                label: "busy",
                reason: format!("the language model is too busy ({said})"),
                advice: format!("{host} answered {said}"),
                after: retry_after(headers, now),
                away: true,
                ..Self::senseless("")
            };
        }
        if matches!(number, 400 | 404 | 405 | 415 | 422) && is_about_form(body) {
            let advice = format!(
                "{host} does not take this form of output for {model:?} ({said}); a plainer one is tried"
            );
            let reason = format!("the language model's server lacks JSON output ({said})");
            let label = "formless";
            return Self { label, reason, advice, permanent: true, formless: true, ..Self::senseless("") };
        }
        let advice = match number {
            401..=403 => format!("{host} refused the key; set `llm.key` (AURICLE_LLM_KEY)"),
            404 => format!(
                "no such model or path at {host}; check `llm.model`, which is {model:?}, and `llm.url`"
            ),
            300..=399 => format!("{host} sent us elsewhere; set `llm.url` to where it is"),
            _ => format!("`llm.model`, which is {model:?} at {host}, must have room for `llm.window_tokens`"),
        };
        let reason = format!("the language model did not take the request ({said})");
        Self { label: "refused", reason, advice, permanent: true, ..Self::senseless("") }
    }
}

impl From<Failure> for UnderstandError {
    fn from(failure: Failure) -> Self {
        let Failure { reason, after, permanent, away, .. } = failure;
        match (permanent, away) {
            (true, _) => Self::Permanent(reason),
            (false, true) => Self::Away { reason, after: after.unwrap_or_default() },
            (false, false) => Self::Transient { reason, after },
        }
    }
}

/// Whether an error names the form of output. Only what a server says of it counts, and no more than its beginning: it may
/// repeat the prompt.
fn is_about_form(body: &[u8]) -> bool {
    let said = &body[..body.len().min(FORM_BYTES_MAX)];
    let said = String::from_utf8_lossy(said).to_lowercase();
    FORM_WORDS.iter().any(|word| said.contains(word))
}

/// The code of an error in OpenAI's form, if it is a mere code: whatever else a body holds may be the transcript.
fn code(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let error = &body["error"];
    let code = error["code"].as_str().or_else(|| error["type"].as_str())?;
    let plain = code.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    (plain && (1..=CODE_CHARS_MAX).contains(&code.len())).then(|| code.to_owned())
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap, now: UnixMicros) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(secs) = text.parse() {
        return Some(Duration::from_secs(secs));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_microsecond();
    u64::try_from(at - now.0).ok().map(Duration::from_micros)
}

/// The innermost cause, which is the system's and names no address.
fn chain(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, body: &str) -> Failure {
        let status = StatusCode::from_u16(status).unwrap();
        Failure::refused(status, &HeaderMap::new(), body.as_bytes(), ("llm:1", "m1"), UnixMicros(0))
    }

    #[test]
    fn a_status_says_whether_to_try_again_and_what_to_do() {
        for status in [408, 409, 425, 429, 500, 502, 503, 529] {
            let failure = refused(status, "");
            assert!(!failure.permanent && failure.away, "{status}");
        }
        for (status, advice) in [
            (400, "llm.model"),
            (401, "AURICLE_LLM_KEY"),
            (403, "AURICLE_LLM_KEY"),
            (404, "llm.url"),
            (302, "llm.url"),
            (413, "llm.window_tokens"),
        ] {
            let failure = refused(status, "");
            assert!(failure.permanent && !failure.away, "{status}");
            assert!(failure.reason.contains(&status.to_string()), "{failure:?}");
            assert!(failure.advice.contains(advice) && !failure.reason.contains("llm"), "{failure:?}");
        }
    }

    #[test]
    fn of_a_refusals_body_only_a_mere_code_is_passed_on() {
        let said = r#"{"error":{"message":"Ann said the PIN is 1234","type":"invalid_request_error","code":"context_length_exceeded"}}"#;
        let reason = refused(400, said).reason;
        assert!(reason.contains("HTTP 400, context_length_exceeded") && !reason.contains("Ann"), "{reason}");
        for strange in [
            r#"{"error":{"code":"Ann said the PIN is 1234"}}"#,
            r#"{"error":{"code":1234}}"#,
            r#"{"error":"1234"}"#,
            "1234",
            "<html>1234",
        ] {
            assert!(!refused(500, strange).reason.contains("1234"), "{strange}");
        }
    }

    #[test]
    fn a_server_that_lacks_the_form_of_output_is_known_by_its_words() {
        for (status, said) in [
            (
                400,
                r#"{"error":{"message":"This response_format type is unavailable now","code":"invalid_request_error"}}"#,
            ),
            (422, "response_format.type `json_schema` is unavailable now at line 1"),
            (405, r#"{"message":"json_object response format is not supported for model"}"#),
            (404, r#"{"error":{"param":"response_format","message":"unknown parameter"}}"#),
        ] {
            let failure = refused(status, said);
            assert!(failure.is_formless() && failure.permanent, "{said}");
            assert!(!failure.reason.contains("unavailable"), "{failure:?}");
        }
        for (status, said) in [
            (400, r#"{"error":{"code":"context_length_exceeded"}}"#),
            (401, "response_format"),
            (404, "no such model"),
            (500, "failed on response_format"),
        ] {
            assert!(!refused(status, said).is_formless(), "{said}");
        }
        let echoed = format!("{}response_format", "what was said ".repeat(100));
        assert!(!refused(400, &echoed).is_formless(), "that may be the prompt");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let after = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            let now = UnixMicros(1_445_412_480_000_000);
            let status = StatusCode::TOO_MANY_REQUESTS;
            Failure::refused(status, &headers, b"", ("llm:1", "m1"), now).after
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        // That is 07:28:00; now it is 07:28:00.
        assert_eq!(after("Wed, 21 Oct 2015 07:28:09 GMT"), Some(Duration::from_secs(9)));
        assert_eq!(after("Wed, 21 Oct 2015 07:00:00 GMT"), None);
        assert_eq!(after("soon"), None);
    }
}
