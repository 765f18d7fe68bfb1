//! A server in a folder of its own, on ports that the system chooses, and devices that talk to it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use auricle_server::config::{Config, Env, Shape, Sources};
use auricle_server::{Running, build};
use auricle_testkit::{Client, Connect, Received};
use auricle_wire::conversation::Segment;
use auricle_wire::event::Event;
use serde_json::Value;
use tempfile::TempDir;

/// Longest that anything here may take: only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Four sentences; the third after a long pause. Times are seconds of audio.
const SCRIPT: &str = r#"[
  {"text": "Please send the report before Friday.", "start": 0.2, "end": 1.8, "final": true},
  {"text": "I will send it tomorrow morning.", "start": 2.0, "end": 3.4, "speaker": 1, "final": true},
  {"text": "Let us meet on Monday at ten.", "start": 8.0, "end": 9.4, "final": true},
  {"text": "Monday is fine with me.", "start": 10.0, "end": 11.2, "speaker": 1, "final": true}
]"#;

/// An environment of settings alone.
struct Variables(Vec<(String, String)>);

impl Env for Variables {
    fn vars(&self) -> Vec<(String, String)> {
        self.0.clone()
    }
}

pub(crate) struct Rig {
    running: Option<Running>,
    public: SocketAddr,
    probe: SocketAddr,
    settings: Vec<(String, String)>,
    shape: Shape,
    dir: Arc<TempDir>,
    http: reqwest::Client,
}

impl Rig {
    /// A server with the scripted engine, and `settings` as (key, value) on top.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_as(Shape::Embedded, Arc::new(TempDir::new().unwrap()), settings).await
    }

    /// One half or both, on a folder that another half may share.
    pub(crate) async fn start_as(shape: Shape, dir: Arc<TempDir>, settings: &[(&str, &str)]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let script = dir.path().join("script.json");
        std::fs::write(&script, SCRIPT).unwrap();
        let folder = dir.path().join("data");
        let mut all = vec![
            ("data_dir".to_owned(), folder.display().to_string()),
            ("bind".to_owned(), "127.0.0.1:0".to_owned()),
            ("probe_bind".to_owned(), "127.0.0.1:0".to_owned()),
            ("speech.engine".to_owned(), "scripted".to_owned()),
            ("speech.script".to_owned(), script.display().to_string()),
            ("sessions.workers".to_owned(), "2".to_owned()),
            ("user.time_zone".to_owned(), "Europe/Madrid".to_owned()),
            ("limits.lifecycle_check_every".to_owned(), "50ms".to_owned()),
            ("limits.sweep_every".to_owned(), "100ms".to_owned()),
            ("limits.drain_max".to_owned(), "5s".to_owned()),
        ];
        for (key, value) in settings {
            all.retain(|(known, _)| known != key);
            all.push(((*key).to_owned(), (*value).to_owned()));
        }
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let running = off_runtime(shape, all.clone()).await;
        let addresses = running.addresses();
        Self {
            public: addresses.public,
            probe: addresses.probe,
            running: Some(running),
            settings: all,
            shape,
            dir,
            http,
        }
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// Where its files are.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn public(&self) -> SocketAddr {
        self.public
    }

    /// A setting for the next start.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_owned()));
    }

    /// Drains, and starts again on the same folder.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        let running = off_runtime(self.shape, self.settings.clone()).await;
        (self.public, self.probe) = (running.addresses().public, running.addresses().probe);
        self.running = Some(running);
    }

    /// Drains, as SIGTERM does.
    pub(crate) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            // It blocks, and a runtime may not be dropped where another runs.
            tokio::task::spawn_blocking(|| running.drain()).await.unwrap();
        }
    }

    /// A connection to be made, as 16 kHz PCM.
    pub(crate) fn connect(&self) -> Connect {
        Connect::new(&format!("ws://{}", self.public)).param("codec", "pcm16").param("sample_rate", 16_000)
    }

    /// A device that is ready to be spoken to.
    pub(crate) async fn device(&self) -> Device {
        self.device_as(self.connect()).await
    }

    pub(crate) async fn device_as(&self, connect: Connect) -> Device {
        let mut device = Device { client: connect.open().await.unwrap(), seen: Vec::new() };
        device.ready().await;
        device
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(reqwest::Method::GET, path).await
    }

    pub(crate) async fn post(&self, path: &str) -> (u16, Value) {
        self.ask(reqwest::Method::POST, path).await
    }

    pub(crate) async fn delete(&self, path: &str) -> u16 {
        self.ask(reqwest::Method::DELETE, path).await.0
    }

    /// A request with a body.
    pub(crate) async fn call(&self, method: reqwest::Method, path: &str, body: Value) -> (u16, Value) {
        answer(self.http.request(method, format!("http://{}{path}", self.public)).json(&body)).await
    }

    async fn ask(&self, method: reqwest::Method, path: &str) -> (u16, Value) {
        answer(self.http.request(method, format!("http://{}{path}", self.public))).await
    }

    /// A request to the probe port.
    pub(crate) async fn probe(&self, path: &str) -> (u16, Value) {
        answer(self.http.get(format!("http://{}{path}", self.probe))).await
    }

    /// `/metrics`, as text.
    pub(crate) async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.probe);
        self.http.get(url).send().await.unwrap().text().await.unwrap()
    }

    /// The conversation once its status is `status`.
    pub(crate) async fn conversation_when(&self, id: &str, status: &str) -> Value {
        let path = format!("/v1/conversations/{id}");
        eventually(&format!("conversation {status}"), async || {
            let (code, conversation) = self.get(&path).await;
            (code == 200 && conversation["status"] == status).then_some(conversation)
        })
        .await
    }

    /// Still works: a new device says something and sees it.
    pub(crate) async fn still_serves(&self) {
        let connect = self.connect().param("source", "phone");
        let mut device = self.device_as(connect).await;
        device.speak(2.5).await;
        device.texts_up_to("report").await;
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            // Off this thread, which may be a runtime's.
            let _ = std::thread::spawn(|| running.drain()).join();
        }
    }
}

fn run(shape: Shape, settings: &[(String, String)]) -> Running {
    // Through the environment, since secrets have no flag.
    let name = |key: &str| format!("AURICLE_{}", key.replace('.', "_").to_uppercase());
    let variables = settings.iter().map(|(key, value)| (name(key), value.clone())).collect();
    let sources = Sources { file: None, env: &Variables(variables), flags: Vec::new(), shape };
    let config = Config::load(sources).unwrap();
    build(config).unwrap().start().unwrap()
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.timeout(PATIENCE).send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Asks again and again until there is an answer; panics with `what` after [`PATIENCE`].
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) struct Device {
    pub(crate) client: Client,
    /// Everything that came so far.
    pub(crate) seen: Vec<Received>,
}

impl Device {
    /// Sends `secs` of sound as 20 ms frames, as fast as the server takes them.
    pub(crate) async fn speak(&mut self, secs: f64) {
        for _ in 0..(secs * 50.0).round() as usize {
            assert!(self.client.send_audio(vec![1; 640]).await, "the connection is gone");
        }
    }

    /// Reads on until a message is wanted, and gives it.
    pub(crate) async fn until(&mut self, what: &str, wanted: impl Fn(&Received) -> bool) -> Received {
        let (received, came) = self.client.until(PATIENCE, &wanted).await;
        let last = received.last().cloned();
        self.seen.extend(received);
        assert!(came, "{what} never came; seen: {:#?}", self.seen);
        last.unwrap()
    }

    pub(crate) async fn event(&mut self, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
        self.until(what, |received| received.event().is_some_and(&wanted)).await.event().unwrap().clone()
    }

    async fn ready(&mut self) {
        self.event(
            "ready",
            |event| matches!(event, Event::ServiceStatus { status, .. } if status == "ready"),
        )
        .await;
    }

    /// The transcript as shown so far: later versions of a segment replace earlier ones.
    pub(crate) fn shown(&self) -> Vec<Segment> {
        let mut shown: Vec<Segment> = Vec::new();
        for received in &self.seen {
            for segment in received.segments() {
                match shown.iter_mut().find(|known| known.id == segment.id) {
                    Some(known) => *known = segment.clone(),
                    None => shown.push(segment.clone()),
                }
            }
            if let Some(Event::SegmentsDeleted { segment_ids }) = received.event() {
                shown.retain(|segment| !segment_ids.contains(&segment.id));
            }
        }
        shown
    }

    /// The transcript's text once it contains `word`.
    pub(crate) async fn texts_up_to(&mut self, word: &str) -> String {
        self.until(word, |received| received.segments().iter().any(|s| s.text.contains(word))).await;
        texts(&self.shown())
    }

    /// The conversation this connection serves now.
    pub(crate) async fn conversation(&mut self) -> String {
        let known = |received: &Received| match received.event() {
            Some(Event::ConversationSession { conversation_id, .. }) => Some(conversation_id.clone()),
            _ => None,
        };
        if let Some(id) = self.seen.iter().rev().find_map(known) {
            return id;
        }
        known(&self.until("conversation_session", |received| known(received).is_some()).await).unwrap()
    }

    /// The code and reason with which the server closes.
    pub(crate) async fn closed(mut self) -> (u16, String) {
        match self.until("the end", Received::is_end).await {
            Received::Closed { code, reason } => (code, reason),
            other => panic!("no close frame but {other:?}"),
        }
    }
}

pub(crate) fn texts(segments: &[Segment]) -> String {
    segments.iter().map(|segment| segment.text.as_str()).collect::<Vec<_>>().join(" ")
}

/// The texts of a conversation's segments, as REST gives them.
pub(crate) fn texts_of(conversation: &Value) -> String {
    let segments = conversation["transcript_segments"].as_array().unwrap();
    segments.iter().map(|segment| segment["text"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

/// Starting blocks, which is nothing for a runtime's thread.
async fn off_runtime(shape: Shape, settings: Vec<(String, String)>) -> Running {
    tokio::task::spawn_blocking(move || run(shape, &settings)).await.unwrap()
}
