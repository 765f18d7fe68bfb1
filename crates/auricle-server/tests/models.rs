//! Fetching models from a server that behaves as badly as servers do.

#![allow(clippy::unwrap_used, reason = "what a test stands on must hold")]

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use auricle_server::models::{Presence, PullError, presence, pull};
use auricle_speech::whisper::catalog::Model;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};

/// What a request is answered with.
#[derive(Clone, Copy)]
enum Answer {
    /// From where it was asked for, so many bytes at most.
    Cut(usize),
    /// All of it, whatever was asked for.
    Whole,
    /// Other bytes of the same length.
    Other,
    Status(u16),
}

struct Hub {
    content: Vec<u8>,
    answers: Mutex<Vec<Answer>>,
    ranges: Mutex<Vec<Option<String>>>,
    asked: AtomicUsize,
}

async fn answer(State(hub): State<Arc<Hub>>, headers: HeaderMap) -> Response {
    let range = headers.get("range").map(|range| range.to_str().unwrap().to_owned());
    hub.ranges.lock().unwrap().push(range.clone());
    hub.asked.fetch_add(1, Ordering::Relaxed);
    let mut answers = hub.answers.lock().unwrap();
    let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0] };
    let from: usize =
        range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()).unwrap_or(0);
    match answer {
        Answer::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Answer::Whole => hub.content.clone().into_response(),
        Answer::Other => vec![7; hub.content.len()].into_response(),
        Answer::Cut(most) => {
            let until = (from + most).min(hub.content.len());
            let part = hub.content[from..until].to_vec();
            if from == 0 {
                return part.into_response();
            }
            let range = format!("bytes {from}-{}/{}", until - 1, hub.content.len());
            (StatusCode::PARTIAL_CONTENT, [("content-range", range)], part).into_response()
        }
    }
}

async fn serve(answers: &[Answer]) -> (Arc<Hub>, String, Model) {
    let content: Vec<u8> = (0..300_000_u32).map(|at| (at * 31 % 251) as u8).collect();
    let sha256: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    let model = Model { name: "test", bytes: content.len() as u64, sha256: sha256.leak() };
    let hub = Arc::new(Hub {
        content,
        answers: Mutex::new(answers.to_vec()),
        ranges: Mutex::default(),
        asked: AtomicUsize::new(0),
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/models/", listener.local_addr().unwrap());
    let app = axum::Router::new().route("/models/ggml-test.bin", axum::routing::get(answer));
    let app = app.with_state(Arc::clone(&hub));
    tokio::spawn(async move { axum::serve(listener, app).await });
    // Fails only if a test before this one has installed it, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    (hub, url, model)
}

fn files(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder.join("models")).unwrap();
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_model_arrives_whole_and_is_not_fetched_again() {
    let (hub, url, model) = serve(&[Answer::Cut(usize::MAX)]).await;
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(presence(&model, folder.path()), Presence::Absent);
    let mut told = Vec::new();
    let path = pull(&model, &url, folder.path(), |bytes| told.push(bytes)).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), hub.content);
    assert_eq!(files(folder.path()), ["ggml-test.bin"]);
    assert_eq!(presence(&model, folder.path()), Presence::Present);
    assert!(told.is_sorted() && told.last() == Some(&model.bytes));
    pull(&model, &url, folder.path(), |_| {}).await.unwrap();
    assert_eq!(hub.asked.load(Ordering::Relaxed), 1);
    // One that was damaged later is.
    std::fs::write(&path, vec![0; hub.content.len()]).unwrap();
    pull(&model, &url, folder.path(), |_| {}).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), hub.content);
}

#[tokio::test]
async fn connections_that_break_are_gone_on_from() {
    let (hub, url, model) = serve(&[Answer::Cut(100_000), Answer::Status(503), Answer::Cut(120_000)]).await;
    let folder = tempfile::tempdir().unwrap();
    let path = pull(&model, &url, folder.path(), |_| {}).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), hub.content);
    let ranges = hub.ranges.lock().unwrap().clone();
    let asked: Vec<_> = ranges.iter().map(Option::as_deref).collect();
    assert_eq!(asked, [None, Some("bytes=100000-"), Some("bytes=100000-"), Some("bytes=220000-")]);
}

#[tokio::test]
async fn a_pull_that_was_given_up_is_resumed_by_the_next_even_if_the_server_cannot() {
    let (hub, url, model) = serve(&[Answer::Cut(50_000), Answer::Cut(0)]).await;
    let folder = tempfile::tempdir().unwrap();
    // Cut off in the middle, as by Ctrl-C.
    let begun = std::future::poll_fn({
        let pulled = pull(&model, &url, folder.path(), |_| {});
        let mut pulled = Box::pin(pulled);
        let asked = Arc::clone(&hub);
        move |cx| {
            let _ = pulled.as_mut().poll(cx);
            if asked.asked.load(Ordering::Relaxed) >= 2 {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        }
    });
    tokio::time::timeout(std::time::Duration::from_secs(60), begun).await.unwrap();
    assert_eq!(presence(&model, folder.path()), Presence::Partial(50_000));
    *hub.answers.lock().unwrap() = vec![Answer::Whole];
    let path = pull(&model, &url, folder.path(), |_| {}).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), hub.content);
    assert_eq!(files(folder.path()), ["ggml-test.bin"]);
}

#[tokio::test]
async fn another_file_is_refused_and_not_kept() {
    let (_, url, model) = serve(&[Answer::Other]).await;
    let folder = tempfile::tempdir().unwrap();
    let wrong = pull(&model, &url, folder.path(), |_| {}).await.unwrap_err();
    assert!(matches!(wrong, PullError::Wrong { .. }), "{wrong}");
    let text = wrong.to_string();
    assert!(text.contains(model.sha256) && text.contains("nothing was kept"), "{text}");
    assert!(files(folder.path()).is_empty());
}

#[tokio::test]
async fn what_the_server_does_not_have_is_said_at_once() {
    let (hub, url, model) = serve(&[Answer::Status(404)]).await;
    let folder = tempfile::tempdir().unwrap();
    let refused = pull(&model, &url, folder.path(), |_| {}).await.unwrap_err().to_string();
    assert!(refused.contains("404") && refused.contains("speech.models_url"), "{refused}");
    assert_eq!(hub.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn two_pulls_of_one_model_do_not_mix() {
    let (_, url, model) = serve(&[Answer::Cut(usize::MAX)]).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("models")).unwrap();
    let part = std::fs::File::create(folder.path().join("models/ggml-test.bin.part")).unwrap();
    part.lock().unwrap();
    let busy = pull(&model, &url, folder.path(), |_| {}).await.unwrap_err();
    assert!(matches!(busy, PullError::Busy(_)), "{busy}");
}
