//! The pusher as an Omi listening half meets it: frames as bytes, requests repeated, fields left out.

use std::sync::Arc;
use std::time::Duration;

use auricle_server::config::Shape;
use auricle_store::{ClaimRule, Store};
use auricle_testkit::{SinkMode, WebhookSink};
use auricle_wire::pusher::{Frame, ProcessRequest, ProcessResult, decode};
use futures_util::{SinkExt, StreamExt};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::rig::{PATIENCE, Rig, eventually, texts_of};
use crate::split::{completed_exactly, converse, end};

/// A listening half that leaves everything to the pusher, and talks to none.
const LEAVES_JOBS: [(&str, &str); 1] = [("limits.fallback_after", "10m")];

struct Omi {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Omi {
    async fn link(pusher: &Rig) -> Self {
        Self::try_link(pusher, "uid=local&sample_rate=16000", &[]).await.unwrap()
    }

    async fn try_link(
        pusher: &Rig,
        query: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, tungstenite::Error> {
        let url = format!("ws://{}/v1/trigger/listen?{query}", pusher.public());
        let mut request = url.into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        tokio_tungstenite::connect_async(request).await.map(|(socket, _)| Self { socket })
    }

    async fn bytes(&mut self, bytes: impl Into<Vec<u8>>) {
        self.socket.send(Message::Binary(bytes.into().into())).await.unwrap();
    }

    async fn frame(&mut self, frame: Frame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.bytes(bytes).await;
    }

    async fn ask(&mut self, conversation: &str) {
        self.request(104, &format!(r#"{{"conversation_id": "{conversation}", "language": "en"}}"#)).await;
    }

    /// A frame whose body is JSON, written as Python would.
    async fn request(&mut self, code: u32, body: &str) {
        self.bytes([&code.to_le_bytes(), body.as_bytes()].concat()).await;
    }

    async fn answer(&mut self) -> ProcessResult {
        self.answer_within(PATIENCE).await.expect("an answer")
    }

    async fn answer_within(&mut self, wait: Duration) -> Option<ProcessResult> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            match tokio::time::timeout_at(deadline, self.socket.next()).await.ok()? {
                Some(Ok(Message::Binary(bytes))) => match decode(&bytes) {
                    Ok(Frame::ProcessResult(result)) => return Some(result),
                    other => panic!("{other:?}"),
                },
                Some(Ok(_)) => {}
                other => panic!("the link ended: {other:?}"),
            }
        }
    }

    async fn close_code(mut self) -> u16 {
        let mut code = None;
        let read = async {
            while let Some(Ok(message)) = self.socket.next().await {
                if let Message::Close(frame) = message {
                    code = frame.map(|frame| u16::from(frame.code));
                }
            }
        };
        tokio::time::timeout(PATIENCE, read).await.unwrap();
        code.expect("a close frame")
    }
}

async fn halves(pusher: &[(&str, &str)]) -> (Rig, Rig) {
    let dir = Arc::new(TempDir::new().unwrap());
    let listen = Rig::start_as(Shape::Listen, Arc::clone(&dir), &LEAVES_JOBS).await;
    let pusher = Rig::start_as(Shape::Pusher, dir, pusher).await;
    (listen, pusher)
}

fn succeeded(id: &str) -> ProcessResult {
    ProcessResult { conversation_id: id.into(), success: Some(true), ..Default::default() }
}

#[tokio::test]
async fn d02_d04_d13_a_request_that_is_repeated_is_answered_each_time_and_runs_once() {
    let (listen, pusher) = halves(&[]).await;
    let id = converse(&listen).await;
    let (mut first, mut second) = (Omi::link(&pusher).await, Omi::link(&pusher).await);
    first.ask(&id).await;
    first.ask(&id).await;
    second.ask(&id).await;
    for link in [&mut first, &mut second] {
        assert_eq!(link.answer().await, succeeded(&id));
    }
    assert_eq!(first.answer().await, succeeded(&id));
    // Late, for a record that is done: its status stays.
    second.ask(&id).await;
    assert_eq!(second.answer().await, succeeded(&id));
    assert_eq!(listen.get(&format!("/v1/conversations/{id}")).await.1["status"], "completed");
    completed_exactly(&pusher, 1).await;
    assert_eq!(first.answer_within(Duration::from_millis(300)).await, None, "exactly one answer each");
}

#[tokio::test]
async fn a_request_may_leave_out_what_older_listeners_do_not_know() {
    let (listen, pusher) = halves(&[]).await;
    let id = converse(&listen).await;
    let mut link = Omi::link(&pusher).await;
    link.request(104, r#"{"conversation_id": "", "language": "en"}"#).await;
    link.request(104, &format!(r#"{{"conversation_id": "{id}", "newer": [1]}}"#)).await;
    assert_eq!(link.answer().await, succeeded(&id));
    link.ask("of-nobody").await;
    let missing = link.answer().await;
    assert_eq!(
        (missing.conversation_id.as_str(), missing.error.as_deref()),
        ("of-nobody", Some("conversation_not_found"))
    );
}

#[tokio::test]
async fn a_conversation_of_somebody_else_is_not_found() {
    let (listen, pusher) = halves(&[]).await;
    let id = converse(&listen).await;
    let mut link = Omi::try_link(&pusher, "uid=mallory&sample_rate=16000", &[]).await.unwrap();
    link.ask(&id).await;
    assert_eq!(link.answer().await.error.as_deref(), Some("conversation_not_found"));
}

#[tokio::test]
async fn d15_a_request_for_another_generation_is_told_which_there_is() {
    let (listen, pusher) = halves(&[]).await;
    let id = converse(&listen).await;
    let revision = listen.get("/v1/jobs").await.1[0]["revision"].as_u64().unwrap();
    let mut link = Omi::link(&pusher).await;
    let request = |generation| ProcessRequest {
        conversation_id: id.clone(),
        language: "en".into(),
        byok_keys: None,
        finalization_job_id: Some("job".into()),
        dispatch_generation: Some(generation),
        finalization_result_protocol: Some(2),
    };
    link.frame(Frame::ProcessRequest(request(revision + 7))).await;
    let stale = link.answer().await;
    assert_eq!(stale.error.as_deref(), Some("job_stale_generation"));
    assert_eq!((stale.success, stale.dispatch_generation), (None, Some(revision)));
    link.frame(Frame::ProcessRequest(request(revision))).await;
    assert_eq!(link.answer().await, succeeded(&id));
}

#[tokio::test]
async fn l04_a_request_that_a_link_has_no_room_for_is_answered_at_once() {
    // Nobody processes what a session still writes to, so that the first request waits.
    let (listen, pusher) = halves(&[("limits.link_requests_max", "1")]).await;
    let mut device = listen.device().await;
    let id = device.conversation().await;
    device.speak(4.0).await;
    device.texts_up_to("tomorrow").await;
    let mut link = Omi::link(&pusher).await;
    link.ask(&id).await;
    link.ask("another").await;
    let refused = link.answer().await;
    assert_eq!(refused.conversation_id, "another");
    assert_eq!((refused.error.as_deref(), refused.terminal), (Some("processing_failed"), Some(false)));
    end(&listen, &id).await;
    assert_eq!(link.answer().await, succeeded(&id));
    link.ask("another").await;
    assert_eq!(link.answer().await.error.as_deref(), Some("conversation_not_found"), "there is room again");
    assert_eq!(link.answer_within(Duration::from_millis(300)).await, None, "exactly one answer each");
}

#[tokio::test]
async fn l21b_no_frame_ends_a_link() {
    let (listen, pusher) = halves(&[]).await;
    let id = converse(&listen).await;
    let mut link = Omi::link(&pusher).await;
    link.socket.send(Message::Text("{}".into())).await.unwrap();
    for bytes in
        [&b""[..], b"\x65", b"\x65\0\0\0\0\0", b"\x67\0\0\0\xff\xfe", b"\xff\xff\xff\xff", b"\xc9\0\0\0{}"]
    {
        link.bytes(bytes).await;
    }
    for (code, body) in
        [(102, "{"), (102, "[]"), (104, "null"), (104, r#"{"conversation_id": 7}"#), (105, "{}")]
    {
        link.request(code, body).await;
    }
    link.frame(Frame::Audio { first_sample_at: 1.0, pcm: &[1, 2, 3] }).await;
    link.ask(&id).await;
    assert_eq!(link.answer().await, succeeded(&id));
}

#[tokio::test]
async fn a_backlog_of_ten_mebibytes_in_one_message_is_taken() {
    let (listen, pusher) = halves(&[]).await;
    let id = converse(&listen).await;
    let mut link = Omi::link(&pusher).await;
    let pcm = vec![0; 10 * 1024 * 1024];
    link.frame(Frame::Audio { first_sample_at: 1_774_500_000.25, pcm: &pcm }).await;
    link.ask(&id).await;
    assert_eq!(link.answer().await, succeeded(&id));
}

#[tokio::test]
async fn d08_a_job_that_somebody_holds_is_waited_for_and_not_reported_as_failed() {
    let dir = Arc::new(TempDir::new().unwrap());
    let listen = Rig::start_as(Shape::Listen, Arc::clone(&dir), &LEAVES_JOBS).await;
    let id = converse(&listen).await;
    let store = listen.running().store();
    let now = store.job(None, &listen.get("/v1/jobs").await.1[0]["id"].as_str().unwrap().into()).await;
    let now = now.unwrap().unwrap().created_at;
    let (elsewhere, lease) = ("elsewhere".into(), Duration::from_secs(2));
    let held = store.claim_job(&elsewhere, now + Duration::from_secs(1), lease, ClaimRule::default());
    assert!(held.await.unwrap().is_some());
    let pusher = Rig::start_as(Shape::Pusher, dir, &[]).await;
    let mut link = Omi::link(&pusher).await;
    link.ask(&id).await;
    assert_eq!(link.answer().await, succeeded(&id));
    completed_exactly(&pusher, 1).await;
}

#[tokio::test]
async fn l31_keys_of_users_are_neither_needed_nor_kept() {
    const KEY: &str = "sk-a-key-of-the-user-3141592653";
    let (listen, pusher) = halves(&[]).await;
    let id = converse(&listen).await;
    let mut link = Omi::link(&pusher).await;
    let body =
        format!(r#"{{"conversation_id": "{id}", "language": "en", "byok_keys": {{"openai": "{KEY}"}}}}"#);
    link.request(104, &body).await;
    assert_eq!(link.answer().await, succeeded(&id));
    for entry in std::fs::read_dir(pusher.data())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
    {
        let bytes = std::fs::read(&entry).unwrap();
        assert!(!bytes.windows(KEY.len()).any(|part| part == KEY.as_bytes()), "{}", entry.display());
    }
}

#[tokio::test]
async fn l25_l27_a_speaker_sample_is_kept_as_soon_as_it_comes() {
    let (listen, mut pusher) = halves(&[]).await;
    let id = converse(&listen).await;
    let mut link = Omi::link(&pusher).await;
    let sample = format!(r#"{{"person_id": "ada", "conversation_id": "{id}", "segment_ids": ["s1", "s2"]}}"#);
    link.request(105, &sample).await;
    link.request(105, r#"{"person_id": "ada", "conversation_id": "", "segment_ids": ["s1"]}"#).await;
    // Whoever drains next drains with nothing in memory: the sample is a row already.
    let store = Arc::clone(listen.running().store());
    let kept = eventually("the sample", async || {
        store.speaker_samples(&"local".into(), &"ada".into(), 10).await.unwrap().pop()
    })
    .await;
    assert_eq!((kept.conversation.as_str(), kept.segments.len()), (id.as_str(), 2));
    pusher.stop().await;
    assert_eq!(store.speaker_samples(&"local".into(), &"ada".into(), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_link_that_says_nothing_for_too_long_is_closed_and_wrong_peers_are_told_why() {
    let (_listen, pusher) = halves(&[("limits.pusher_silent_max", "300ms")]).await;
    let mut link = Omi::link(&pusher).await;
    link.frame(Frame::Heartbeat).await;
    assert_eq!(link.close_code().await, 1011);
    for query in ["sample_rate=16000", "uid=a&sample_rate=7", "uid=a%20b&sample_rate=16000"] {
        assert_eq!(Omi::try_link(&pusher, query, &[]).await.unwrap().close_code().await, 1008, "{query}");
    }
    let page = Omi::try_link(&pusher, "uid=local", &[("origin", "https://example.org")]).await;
    assert!(matches!(page, Err(tungstenite::Error::Http(answer)) if answer.status() == 401));
}

#[tokio::test]
async fn with_a_secret_only_who_knows_it_may_speak_for_users() {
    const SECRET: &str = "between-the-two-halves";
    let (listen, pusher) = halves(&[("pusher.secret", SECRET)]).await;
    let id = converse(&listen).await;
    for wrong in [&[][..], &[("authorization", "Bearer between-the-two-halve")], &[("authorization", SECRET)]]
    {
        let refused = Omi::try_link(&pusher, "uid=local&sample_rate=16000", wrong).await;
        assert!(matches!(refused, Err(tungstenite::Error::Http(answer)) if answer.status() == 401));
    }
    let right = format!("Bearer {SECRET}");
    let mut link =
        Omi::try_link(&pusher, "uid=local&sample_rate=16000", &[("authorization", &right)]).await.unwrap();
    link.ask(&id).await;
    assert_eq!(link.answer().await, succeeded(&id));
}

#[tokio::test]
async fn a_pusher_that_drains_closes_its_links_with_1012_and_loses_no_request() {
    let (listen, mut pusher) = halves(&[]).await;
    let link = Omi::link(&pusher).await;
    let (code, ()) = tokio::join!(link.close_code(), pusher.stop());
    assert_eq!(code, 1012);
    let id = converse(&listen).await;
    pusher.restart().await;
    let record = listen.conversation_when(&id, "completed").await;
    assert!(texts_of(&record).contains("report"));
}

#[tokio::test]
async fn l23_a_receiver_that_hangs_holds_up_neither_its_link_nor_its_requests() {
    let sink = WebhookSink::start().await.unwrap();
    sink.set(SinkMode::Hang(PATIENCE));
    let (listen, pusher) = halves(&[("webhooks.transcript", &sink.url())]).await;
    let id = converse(&listen).await;
    let mut link = Omi::link(&pusher).await;
    for number in 0..50 {
        let words = format!(r#"{{"segments": [{{"text": "word {number}"}}], "memory_id": "{id}"}}"#);
        link.request(102, &words).await;
    }
    sink.requested(1).await;
    link.ask(&id).await;
    assert_eq!(link.answer().await, succeeded(&id));
    assert_eq!((sink.requests(), sink.deliveries().len()), (1, 0), "one at a time, and it still hangs");
}

#[tokio::test]
async fn l24_what_was_heard_last_is_delivered_after_the_link_has_closed() {
    let sink = WebhookSink::start().await.unwrap();
    let (_listen, pusher) = halves(&[("webhooks.audio", &sink.url())]).await;
    let mut link = Omi::link(&pusher).await;
    let second = vec![7; 32_000];
    link.frame(Frame::ConversationId("c1")).await;
    link.frame(Frame::Audio { first_sample_at: 10.0, pcm: &second }).await;
    link.socket.close(None).await.unwrap();
    sink.arrived(1).await;
    let delivery = &sink.deliveries()[0];
    assert_eq!(delivery.body.len(), second.len());
    assert!(delivery.query.contains("sample_rate=16000") && delivery.query.contains("uid=local"));
}

#[tokio::test]
async fn m03_words_of_another_conversation_rebind_no_audio() {
    let sink = WebhookSink::start().await.unwrap();
    let (_listen, pusher) = halves(&[("webhooks.audio", &sink.url())]).await;
    let mut link = Omi::link(&pusher).await;
    let seconds = |count: usize| vec![7; 32_000 * count];
    link.frame(Frame::ConversationId("c1")).await;
    link.frame(Frame::Audio { first_sample_at: 10.0, pcm: &seconds(3) }).await;
    link.request(102, r#"{"segments": [{"text": "late words"}], "memory_id": "c0"}"#).await;
    link.frame(Frame::Audio { first_sample_at: 13.0, pcm: &seconds(2) }).await;
    sink.arrived(1).await;
    assert_eq!(sink.deliveries()[0].body.len(), seconds(5).len(), "one stretch, as it was heard");
    // An announcement does end it.
    link.frame(Frame::Audio { first_sample_at: 15.0, pcm: &seconds(1) }).await;
    link.frame(Frame::ConversationId("c2")).await;
    link.frame(Frame::Audio { first_sample_at: 16.0, pcm: &seconds(5) }).await;
    sink.arrived(3).await;
    let lengths: Vec<_> = sink.deliveries().iter().map(|delivery| delivery.body.len()).collect();
    assert_eq!(lengths, [seconds(5).len(), seconds(1).len(), seconds(5).len()]);
}

#[tokio::test]
async fn l24_l25_a_pusher_that_drains_delivers_what_it_still_holds() {
    let sink = WebhookSink::start().await.unwrap();
    let (_listen, mut pusher) = halves(&[("webhooks.audio", &sink.url())]).await;
    let mut links = Vec::new();
    for _ in 0..5 {
        let mut link = Omi::link(&pusher).await;
        link.frame(Frame::Audio { first_sample_at: 10.0, pcm: &[7; 32_000] }).await;
        // Answered, so the audio before it is there.
        link.ask("of-nobody").await;
        link.answer().await;
        links.push(link);
    }
    pusher.stop().await;
    assert_eq!(sink.deliveries().len(), 5);
    for link in links {
        assert_eq!(link.close_code().await, 1012);
    }
}

#[tokio::test]
async fn m07_a_users_own_webhook_hears_by_the_pusher_of_words_that_come_over_a_link_that_was_open_before() {
    let sink = WebhookSink::start().await.unwrap();
    let inside = ("webhooks.allow_private", "true");
    let dir = Arc::new(TempDir::new().unwrap());
    let listen = Rig::start_as(Shape::Listen, Arc::clone(&dir), &[inside]).await;
    let soon = ("limits.target_settings_age_max", "50ms");
    let pusher = Rig::start_as(Shape::Pusher, dir, &[inside, soon]).await;
    let mut link = Omi::link(&pusher).await;
    let new = serde_json::json!({ "url": sink.url(), "triggers": ["realtime_transcript"] });
    assert_eq!(listen.call(reqwest::Method::POST, "/v1/webhooks", new).await.0, 201);
    crate::rig::eventually("words arrive", async || {
        link.request(102, r#"{"segments": [{"text": "hello"}], "memory_id": "c1"}"#).await;
        (sink.requests() > 0).then_some(())
    })
    .await;
    let delivery = &sink.deliveries()[0];
    assert!(delivery.headers.contains_key("x-auricle-signature"));
    assert_eq!(&delivery.body[..], br#"{"segments":[{"text":"hello"}],"session_id":"local"}"#);
}
