//! Engines that are services of others, over one WebSocket for each stream.
//!
//! Owns: what all of them share: [`Adapter`], the door of each; the machine that decides when what is sent and what an answer
//! means for the stream; the socket and its driver. Leaves to others: each service's own words (`deepgram`, `soniox`,
//! `speechmatics`), and what becomes of a stream that failed: nothing here connects twice for one stream.
//! Invariants: adapters and machine do no I/O and read no clock; all waits and buffers are bounded ([`CloudNumbers`]); no text
//! of a transcript, and no key, gets into an error or a log.

mod adapter;
mod backlog;
mod driver;
mod engine;
mod machine;
mod refusal;
mod socket;
mod threads;
mod timeline;
mod utterance;

pub use adapter::{Adapter, ApiKey, Close, Outgoing, Pace, Provider, Refusal, Request, Said};
pub use engine::CloudEngine;
pub use machine::{CloudConfig, CloudNumbers};
pub(crate) use refusal::{broken, by_status, closed, unreadable};
pub(crate) use utterance::{Utterance, word};

/// Terms of a vocabulary that a service is told. Source: listen-protocol 2.6.
pub const KEY_TERMS_MAX: usize = 100;
/// Always among them.
const OWN_TERM: &str = "Omi";
/// Longest term in characters; a longer one is left out.
pub const KEY_TERM_CHARS_MAX: usize = 60;

/// Bytes of all terms that a service is told, of a stream that brings terms of its own: no caller shall make a service refuse it,
/// since that counts against the engine for everybody. Deepgram takes 500 tokens, and a token is a byte at least.
const BYTES_WITH_CALLERS_MAX: usize = 500;

/// Adds the terms of the configuration to those of a stream, as far as there is room behind a caller's.
pub(crate) fn add_configured(terms: &mut Vec<String>, configured: &[String]) {
    if terms.is_empty() {
        return terms.extend_from_slice(configured);
    }
    let mut bytes = terms.iter().map(String::len).sum::<usize>() + OWN_TERM.len();
    for term in configured {
        bytes += term.len();
        if bytes > BYTES_WITH_CALLERS_MAX {
            return;
        }
        terms.push(term.clone());
    }
}

/// The user's terms and our own, each once, as many as a service is told.
pub fn key_terms(of_user: &[String]) -> Vec<&str> {
    let mut terms: Vec<&str> = Vec::new();
    for term in of_user.iter().map(|term| term.trim()).chain([OWN_TERM]) {
        let sane =
            (1..=KEY_TERM_CHARS_MAX).contains(&term.chars().count()) && !term.contains(char::is_control);
        if sane && !terms.contains(&term) {
            terms.push(term);
        }
    }
    terms.truncate(KEY_TERMS_MAX);
    terms
}

/// `url` with the scheme of a WebSocket, and with `path` if it has none of its own.
pub(crate) fn endpoint(url: &str, path: &str) -> String {
    let url = match url.split_once("://") {
        Some(("http", rest)) => format!("ws://{rest}"),
        Some(("https", rest)) => format!("wss://{rest}"),
        _ => url.to_owned(),
    };
    let after_scheme = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
    match after_scheme.split_once('/') {
        None => url + path,
        Some((_, "")) => url.trim_end_matches('/').to_owned() + path,
        Some(_) => url,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_terms_come_first_and_our_own_is_among_them_while_there_is_room() {
        let of_user = ["Auricle".to_owned(), "  Nan  ".to_owned(), "Auricle".to_owned(), String::new()];
        assert_eq!(key_terms(&of_user), ["Auricle", "Nan", "Omi"]);
        let many: Vec<String> = (0..150).map(|number| format!("term{number}")).collect();
        let told = key_terms(&many);
        assert_eq!((told.len(), told[99]), (100, "term99"));
        assert_eq!(key_terms(&["x".repeat(61), "bell\u{7}".to_owned()]), ["Omi"]);
    }

    #[test]
    fn a_callers_terms_come_before_the_configured_ones_and_leave_them_what_room_there_is() {
        let configured: Vec<String> = (10..70).map(|number| format!("configured{number}")).collect();
        let mut none = Vec::new();
        add_configured(&mut none, &configured);
        assert_eq!(none.len(), 60, "an operator's own are told as they are");
        let mut some = vec!["x".repeat(49)];
        add_configured(&mut some, &configured);
        let bytes: usize = key_terms(&some).iter().map(|term| term.len()).sum();
        assert_eq!((some.len(), some[1].as_str(), bytes), (38, "configured10", 49 + 37 * 12 + 3));
    }

    #[test]
    fn an_address_gets_a_scheme_and_a_path_only_where_it_has_none() {
        for (url, whole) in [
            ("wss://api.deepgram.com", "wss://api.deepgram.com/v1/listen"),
            ("https://api.deepgram.com/", "wss://api.deepgram.com/v1/listen"),
            ("http://127.0.0.1:9000", "ws://127.0.0.1:9000/v1/listen"),
            ("ws://stt.local/own/path", "ws://stt.local/own/path"),
        ] {
            assert_eq!(endpoint(url, "/v1/listen"), whole);
        }
    }
}
