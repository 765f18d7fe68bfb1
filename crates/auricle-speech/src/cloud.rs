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
const KEY_TERM_CHARS_MAX: usize = 60;

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
