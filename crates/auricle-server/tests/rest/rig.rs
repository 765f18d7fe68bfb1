//! A router on a real store in a folder of its own, with a live side that tests script.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use auricle_core::session::Ended;
use auricle_core::{
    ActionItem, Assignee, Conversation, ConversationId, DiscardReason, Epoch, FinaliseReason, JobId, Limits,
    Photo, PhotoId, ProcessId, Provenance, Segment, SegmentId, Source, Speaker, Structured, UnixMicros,
    UserId,
};
use auricle_process::embed::EmbedServerConfig;
use auricle_process::{Embed, EmbedServer, Embedder};
use auricle_server::auth::Authenticator;
use auricle_server::clock::SystemClock;
use auricle_server::config::{Config, Secret};
use auricle_server::rest::{Audio, Files, LiveSessions, Outgoing, RestState, router};
use auricle_store::kept::KeptAudio;
use auricle_store::spool::{RunHeader, Spool, SpoolOptions};
use auricle_store::vault::Vault;
use auricle_store::{
    AppendSegments, AttemptOutcome, Choice, Completion, Finalise, HeardStretch, OpenConversation, Ownership,
    Reheard, Retranscriptions, SqliteOptions, SqliteStore, Store,
};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, header};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub(crate) const ADMIN_KEY: &str = "the-admin-key-of-this-test:";

pub(crate) struct Rig {
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) live: Arc<ScriptedLive>,
    pub(crate) wakes: Arc<AtomicUsize>,
    router: Router,
    process: ProcessId,
    embed: Option<Arc<dyn Embed>>,
    pub(crate) kept: KeptAudio,
    limits: Limits,
    dir: TempDir,
}

/// The live side: owns at most one conversation, and answers as it was told.
#[derive(Default)]
pub(crate) struct ScriptedLive {
    owned: Mutex<Option<(ConversationId, Ended)>>,
    asked: AtomicUsize,
    told: Mutex<Vec<Reassigned>>,
}

/// What the live side was told: how many segments, whom they were assigned to, and the speaker meant.
type Reassigned = (usize, Assignee, Option<(u32, String)>);

impl ScriptedLive {
    pub(crate) fn owns(&self, conversation: &ConversationId, answer: Ended) {
        *self.owned.lock().unwrap() = Some((conversation.clone(), answer));
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn told(&self) -> Vec<Reassigned> {
        self.told.lock().unwrap().clone()
    }
}

#[async_trait]
impl LiveSessions for ScriptedLive {
    fn current(&self, _user: &UserId) -> Option<ConversationId> {
        self.owned.lock().unwrap().as_ref().map(|(id, _)| id.clone())
    }

    fn dismiss(&self, _user: &UserId) {
        self.asked.fetch_add(1, Ordering::SeqCst);
    }

    fn reassigned(
        &self,
        _user: &UserId,
        _conversation: &ConversationId,
        segments: Vec<SegmentId>,
        to: Assignee,
        speaker: Option<(u32, String)>,
    ) {
        self.told.lock().unwrap().push((segments.len(), to, speaker));
    }

    async fn finalise(&self, _user: &UserId, conversation: &ConversationId) -> Option<Ended> {
        let (_, answer) = self.owned.lock().unwrap().clone().filter(|(id, _)| id == conversation)?;
        self.asked.fetch_add(1, Ordering::SeqCst);
        Some(answer)
    }
}

/// With the scripted engine.
fn files(dir: &TempDir, limits: &Limits) -> Arc<Files> {
    let speech = auricle_speech::SpeechConfig { engine: "scripted".into(), ..Default::default() };
    let vault = Vault::open(dir.path().join("uploads"), Default::default(), limits.uploads_disk_bytes_max);
    Arc::new(Files::new(vault.unwrap(), auricle_speech::build(&speech).unwrap(), limits))
}

/// Nothing is kept in it but what tests put there.
fn audio(dir: &TempDir, limits: &Limits) -> Arc<Audio> {
    let kept = KeptAudio::open(dir.path().join("audio"), Default::default(), 1 << 30).unwrap();
    let engines = ["scripted", "scripted_spare"].map(str::to_owned).to_vec();
    let spool = Spool::open(dir.path().join("empty"), SpoolOptions::from(limits)).unwrap();
    Arc::new(Audio::new(kept, engines, spool, limits))
}

/// Lets a microsecond of the store's clock pass.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with_limits(|_| {}).await
    }

    pub(crate) async fn with_limits(change: impl FnOnce(&mut Limits)) -> Self {
        Self::with(None, change, true).await
    }

    /// With an embedding server at this address.
    pub(crate) async fn with_embeddings(url: Option<&str>, change: impl FnOnce(&mut Limits)) -> Self {
        Self::with(url, change, true).await
    }

    /// Webhooks go to public addresses only.
    pub(crate) async fn public_only() -> Self {
        Self::with(None, |_| {}, false).await
    }

    async fn with(url: Option<&str>, change: impl FnOnce(&mut Limits), allow_private: bool) -> Self {
        let dir = TempDir::new().unwrap();
        let store = SqliteStore::open(dir.path().join("auricle.db"), SqliteOptions::default()).unwrap();
        let mut config = Config::default();
        config.auth.admin_key = Some(Secret::new(ADMIN_KEY));
        config.limits.record_wait = Duration::from_secs(10);
        change(&mut config.limits);
        let (live, wakes) = (Arc::new(ScriptedLive::default()), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&wakes);
        let embed = url.map(|url| {
            let theirs = EmbedServerConfig {
                url: url.to_owned(),
                model: "m1".to_owned(),
                key: None,
                dimensions: None,
            };
            let limits = Arc::new(config.limits.clone());
            Arc::new(EmbedServer::new(&theirs, limits, Arc::new(SystemClock)).unwrap()) as Arc<dyn Embed>
        });
        let state = RestState {
            store: Arc::clone(&store) as Arc<dyn Store>,
            auth: Arc::new(Authenticator::new(&config, Arc::clone(&store) as Arc<dyn Store>).unwrap()),
            live: Arc::clone(&live) as Arc<dyn LiveSessions>,
            wake_jobs: Arc::new(move || {
                counter.fetch_add(1, Ordering::SeqCst);
            }),
            waits: Arc::new(Semaphore::new(config.limits.records_awaited_max)),
            outgoing: Outgoing::open(allow_private, &config.limits, Arc::new(SystemClock)).unwrap(),
            exports: Arc::new(Semaphore::new(config.limits.exports_running_max)),
            limits: Arc::new(config.limits.clone()),
            clock: SystemClock,
            time_zone: jiff::tz::TimeZone::UTC,
            embed,
            files: files(&dir, &config.limits),
            audio: audio(&dir, &config.limits),
        };
        let process = ProcessId::from("test-process");
        store.process_alive(&process, SystemClock.wall() + Duration::from_secs(600)).await.unwrap();
        let (embed, kept) = (state.embed.clone(), state.audio.kept.clone());
        let (router, limits) = (router(state), config.limits);
        Self { store, live, wakes, router, process, embed, kept, limits, dir }
    }

    pub(crate) fn now(&self) -> UnixMicros {
        SystemClock.wall()
    }

    // --- requests ------------------------------------------------------------------------------------------------------

    /// Sends a request as it is.
    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// The credentials of `user`.
    pub(crate) fn bearer(user: &str) -> String {
        format!("Bearer {ADMIN_KEY}{user}")
    }

    /// Calls a route as `user`; an empty user sends no credentials.
    pub(crate) async fn call(
        &self,
        user: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let text = body.map(|body| body.to_string()).unwrap_or_default();
        self.call_text(user, method, path, text).await
    }

    pub(crate) async fn call_text(&self, user: &str, method: &str, path: &str, body: String) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if !user.is_empty() {
            request = request.header(header::AUTHORIZATION, Self::bearer(user));
        }
        let response = self.send(request.body(Body::from(body)).unwrap()).await;
        let status = response.status().as_u16();
        // The other kinds of answer there are.
        let is_file = ["application/zip", "audio/wav"];
        let is_file = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| is_file.iter().any(|file| kind == file));
        let bytes = to_bytes(response.into_body(), 16 << 20).await.unwrap();
        let body = match bytes.is_empty() || is_file {
            true => Value::Null,
            false => serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| panic!("{method} {path}: not JSON: {bytes:?}")),
        };
        (status, body)
    }

    /// Sends a form with a file of this name: a second of silence, or nothing if the name says so.
    pub(crate) async fn call_form(&self, user: &str, method: &str, path: &str, file: &str) -> (u16, Value) {
        let head =
            format!("--edge\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{file}\"\r\n\r\n");
        let mut body = head.into_bytes();
        if !file.starts_with("nothing") {
            body.extend(b"RIFF\x24\x7d\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data\0\x7d\0\0");
            body.extend([0; 32_000]);
        }
        body.extend(b"\r\n--edge--\r\n");
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, Self::bearer(user))
            .header(header::CONTENT_TYPE, "multipart/form-data; boundary=edge");
        let response = self.send(request.body(Body::from(body)).unwrap()).await;
        let status = response.status().as_u16();
        let bytes = to_bytes(response.into_body(), 16 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    /// The uploader finds that it is no audio; there is none here.
    pub(crate) async fn fail_upload(&self, id: &str) {
        loop {
            let lease = Duration::from_secs(60);
            let claimed = self.store.claim_upload(&self.process, self.now(), lease).await.unwrap();
            let (lease, upload) = claimed.expect("it is queued");
            let outcome = match upload.id.as_str() == id {
                true => AttemptOutcome::Failed { error: "it is no audio".into() },
                false => {
                    AttemptOutcome::Postponed { at: self.now() + Duration::from_secs(600), error: "x".into() }
                }
            };
            let done = matches!(outcome, AttemptOutcome::Failed { .. });
            self.store.end_upload(&lease, outcome, self.now()).await.unwrap();
            if done {
                return;
            }
        }
    }

    pub(crate) async fn get(&self, user: &str, path: &str) -> (u16, Value) {
        self.call(user, "GET", path, None).await
    }

    pub(crate) async fn post(&self, user: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.call(user, "POST", path, body).await
    }

    pub(crate) async fn read(&self, user: &str, id: &ConversationId) -> Value {
        let (status, body) = self.get(user, &format!("/v1/conversations/{id}")).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    // --- conversations -------------------------------------------------------------------------------------------------

    pub(crate) fn ownership(&self, user: &str, id: &ConversationId) -> Ownership {
        Ownership { user: user.into(), conversation: id.clone(), epoch: Epoch(1) }
    }

    /// A conversation that a session of this process still hears, with these lines.
    pub(crate) async fn heard(&self, user: &str, lines: &[&str]) -> ConversationId {
        let mut entropy = rand::rng();
        let opened = self
            .store
            .open_conversation(OpenConversation {
                user: user.into(),
                process: self.process.clone(),
                source: Source::Omi,
                language: Some("en".to_owned()),
                timeout: Duration::from_secs(120),
                choice: Choice::New,
                fresh_id: ConversationId::random(&mut entropy),
                call_id: None,
                now: self.now(),
            })
            .await
            .unwrap();
        assert_eq!(opened.ownership.epoch, Epoch(1));
        let id = opened.ownership.conversation.clone();
        if !lines.is_empty() {
            let upsert = lines.iter().enumerate().map(|(n, line)| segment(n, line)).collect();
            let batch = AppendSegments {
                ownership: opened.ownership,
                upsert,
                delete: Vec::new(),
                started_at: Some(self.now()),
                now: self.now(),
            };
            self.store.append_segments(batch).await.unwrap();
        }
        id
    }

    /// The conversation's session is gone; nobody hears it any more.
    pub(crate) async fn left(&self, user: &str, id: &ConversationId) {
        self.store.release(&self.ownership(user, id), self.now()).await.unwrap();
    }

    /// A conversation that has ended and waits for its job.
    pub(crate) async fn ended(&self, user: &str, lines: &[&str]) -> ConversationId {
        let id = self.heard(user, lines).await;
        let finalise = Finalise {
            conversation: id.clone(),
            owner: Some(self.ownership(user, &id)),
            reason: FinaliseReason::Silence,
            job_id: JobId::random(&mut rand::rng()),
            now: self.now(),
        };
        self.store.finalise(finalise).await.unwrap();
        id
    }

    /// A conversation with its record; an empty title sets it aside.
    pub(crate) async fn completed(&self, user: &str, title: &str, lines: &[&str]) -> ConversationId {
        let id = self.ended(user, lines).await;
        self.process_next_job(title).await.unwrap();
        id
    }

    pub(crate) async fn photo(&self, user: &str, id: &ConversationId, base64: &str) {
        let photo = Photo {
            id: PhotoId::random(&mut rand::rng()),
            base64: base64.to_owned(),
            description: None,
            created_at: self.now(),
            discarded: false,
        };
        self.store.append_photo(&self.ownership(user, id), photo).await.unwrap();
    }

    // --- a worker ------------------------------------------------------------------------------------------------------

    /// Waits for a job and completes it with this title.
    pub(crate) fn process_next_job(&self, title: &str) -> JoinHandle<()> {
        self.process_next_job_with(title, &[], &[])
    }

    /// The same, with these action items and memories.
    pub(crate) fn process_next_job_with(
        &self,
        title: &str,
        items: &[&str],
        memories: &[&str],
    ) -> JoinHandle<()> {
        let (store, process) = (Arc::clone(&self.store), self.process.clone());
        let item = |text: &&str| ActionItem {
            description: (*text).to_owned(),
            completed: false,
            created_at: None,
            updated_at: None,
            due_at: None,
            completed_at: None,
        };
        let memories = memories.iter().map(|text| (*text).to_owned()).collect();
        let structured = Structured {
            title: title.to_owned(),
            overview: "Short.".to_owned(),
            action_items: items.iter().map(item).collect(),
            ..Default::default()
        };
        tokio::spawn(async move {
            let lease = claim(&store, &process).await;
            let completion = Completion {
                lease,
                discarded: structured.title.is_empty().then_some(DiscardReason::Trivial),
                structured,
                provenance: Provenance { provider: "local".to_owned(), version: "1".to_owned() },
                memories,
                effects: Vec::new(),
                now: SystemClock.wall(),
            };
            store.complete_job(completion).await.unwrap();
        })
    }

    /// Embeds whatever is due, and returns once nothing is.
    pub(crate) async fn embed_all(&self) {
        let embedder = Arc::new(Embedder {
            store: Arc::clone(&self.store) as Arc<dyn Store>,
            embed: Arc::clone(self.embed.as_ref().unwrap()),
            limits: Arc::new(self.limits.clone()),
            process: self.process.clone(),
            clock: Arc::new(SystemClock),
            wake: Arc::default(),
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(embedder.run(stop.clone(), Arc::new(|| {})));
        let done = async {
            while self.store.embedding_counts().await.unwrap().pending > 0 {
                settle().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), done).await.expect("everything is embedded");
        stop.cancel();
        task.await.unwrap();
    }

    pub(crate) async fn fail_next_job(&self) {
        let lease = claim(&self.store, &self.process).await;
        let outcome = AttemptOutcome::Failed { error: "understand: no provider".to_owned() };
        self.store.end_attempt(&lease, outcome, self.now()).await.unwrap();
    }

    /// Keeps a second of audio of a conversation, as the spool does.
    pub(crate) fn keep_audio(&self, user: &str, id: &ConversationId) {
        let options = SpoolOptions { kept: Some(self.kept.clone()), ..SpoolOptions::from(&self.limits) };
        let spool = Spool::open(self.dir.path().join("spool"), options).unwrap();
        let header = RunHeader {
            run: format!("run-of-{id}"),
            user: user.into(),
            conversation: id.clone(),
            process: self.process.clone(),
            codec: "pcm16".into(),
            sample_rate_hz: 16_000,
            channels: 1,
            language: None,
            source: Source::Omi,
            role: None,
            first_audio_at: self.now(),
        };
        let mut run = spool.begin(header);
        for _ in 0..50 {
            run.append(&[1; 640], 320);
        }
        run.finish();
        spool.settle();
        assert!(self.kept.bytes_of(&user.into(), id).unwrap() > 32_000);
    }

    /// An attempt to hear a conversation again, which ends in vain.
    pub(crate) async fn fail_hearing(&self) {
        let lease = Duration::from_secs(15);
        let claimed = self.store.claim_retranscription(&self.process, self.now(), lease).await.unwrap();
        let outcome = AttemptOutcome::Failed { error: "nothing was heard".into() };
        let (lease, _) = claimed.expect("one is queued");
        self.store.end_retranscription(&lease, outcome, self.now()).await.unwrap();
    }

    /// Hears a conversation again, as the server does: this is said in its first second.
    pub(crate) async fn hear_again(&self, user: &str, id: &ConversationId, text: &str) {
        let (lease, work) = self
            .store
            .claim_retranscription(&self.process, self.now(), Duration::from_secs(15))
            .await
            .unwrap()
            .expect("somebody asked");
        assert_eq!((&work.conversation, work.user.as_str()), (id, user));
        let started_at = self.stored(user, id).await.unwrap().started_at;
        let heard = HeardStretch {
            zero_at: started_at,
            from: 0.0,
            until: 5.0,
            is_channel: false,
            segments: vec![Segment { stt_provider: Some(work.engine), ..segment(1, text) }],
        };
        let mut heard = heard;
        (heard.segments[0].start, heard.segments[0].end) = (0.5, 1.5);
        let reheard = Reheard {
            lease,
            stretches: vec![heard],
            heard_secs: 5.0,
            job_id: JobId::random(&mut rand::rng()),
            now: self.now(),
        };
        self.store.complete_retranscription(reheard).await.unwrap();
    }

    /// What the store has of a conversation, past the interface.
    /// Makes a conversation unreadable, as a damaged disk would.
    pub(crate) fn spoil(&self, id: &ConversationId) {
        let db = rusqlite::Connection::open(self.dir.path().join("auricle.db")).unwrap();
        let sql = "UPDATE conversations SET structured = 'not JSON' WHERE id = ?1";
        assert_eq!(db.execute(sql, [id.as_str()]).unwrap(), 1);
    }

    pub(crate) async fn stored(&self, user: &str, id: &ConversationId) -> Option<Conversation> {
        self.store.conversation(&user.into(), id).await.unwrap()
    }
}

async fn claim(store: &SqliteStore, process: &ProcessId) -> auricle_store::JobLease {
    loop {
        let claimed = store
            .claim_job(process, SystemClock.wall(), Duration::from_secs(15), Default::default())
            .await
            .unwrap();
        match claimed {
            Some(claimed) => return claimed.lease,
            None => settle().await,
        }
    }
}

fn segment(n: usize, text: &str) -> Segment {
    Segment {
        id: SegmentId::random(&mut rand::rng()),
        text: text.to_owned(),
        speaker: Some(Speaker::from_voice(n as u32 % 2)),
        is_user: n == 0,
        person_id: None,
        start: n as f64 * 10.0,
        end: n as f64 * 10.0 + 3.0,
        translations: Vec::new(),
        speech_profile_processed: true,
        stt_provider: Some("scripted".to_owned()),
    }
}
