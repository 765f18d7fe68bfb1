//! Realtime triggers: words and audio, delivered while people speak, to whoever the operator or the user named.
//!
//! Owns: a feed for each session or link, a lane for each receiver in it, who the receivers are by now ([`directory`]).
//! Invariants: at most once each; whoever gives never waits; what waits is bounded in bytes, its oldest out first, and of an
//! app's audio only the newest waits; one delivery at a time for a lane, and for a user's target in all sessions together.
//! Source: pusher-and-processing 3.1 and 5.1 (`realtime_transcript`, `audio_bytes`).

mod directory;
mod lane;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use auricle_core::{Account, ConversationId, Limits, Segment, Share, TargetKind, UnixMicros, UserId};
use auricle_process::Clock;
use auricle_store::{Recipient, Sensitive, Store};
use auricle_wire::pusher::Transcript;
use reqwest::Url;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use self::directory::Directory;
use self::lane::{Lane, Receiver};
use crate::config::WebhooksConfig;
use crate::convert;
use crate::outgoing::Outgoing;
use crate::outgoing::reach::Author;

/// How much audio one delivery to the operator carries.
const AUDIO_SECS: u32 = 5;
/// How long what waits at a feed's end may take.
const FINISH_MAX: Duration = Duration::from_secs(15);
/// What somebody in a feed wants, as [`FeedHandle::wants`] holds it.
const WORDS: u8 = 1;
const AUDIO: u8 = 2;

/// What all feeds share.
pub(crate) struct Triggers {
    store: Arc<dyn Store>,
    outgoing: Arc<Outgoing>,
    clock: Arc<dyn Clock>,
    limits: Arc<Limits>,
    /// Where feeds run.
    runtime: Handle,
    /// Feeds, and their last deliveries.
    tail: TaskTracker,
    transcript_url: Option<Url>,
    audio_url: Option<Url>,
    secret: Option<Sensitive>,
    directory: Directory,
    /// What all feeds hold.
    held: Account,
}

/// A transcript trigger's body.
#[derive(Serialize)]
struct Words<'a> {
    segments: &'a [serde_json::Value],
    session_id: &'a str,
}

/// What a feed is given.
enum Input {
    /// From a link.
    Transcript(Transcript),
    /// From a link: PCM16, little-endian, and the time of its first sample in Unix seconds.
    Audio { at: f64, pcm: Vec<u8> },
    /// From a session.
    Segments { conversation: ConversationId, segments: Vec<Segment> },
    /// From a session.
    Samples { conversation: ConversationId, at: UnixMicros, pcm: Vec<i16> },
    /// What was heard so far is a stretch of its own.
    EndStretch,
}

impl Input {
    /// As metrics call it.
    fn kind(&self) -> &'static str {
        match self {
            Self::Transcript(_) | Self::Segments { .. } => "transcript",
            Self::Audio { .. } | Self::Samples { .. } | Self::EndStretch => "audio",
        }
    }

    /// What it holds on its way, roughly.
    fn bytes(&self) -> usize {
        let text = |segments: &[Segment]| segments.iter().map(|segment| segment.text.len() + 256).sum();
        match self {
            Self::Transcript(transcript) => transcript.segments.len() * 512,
            Self::Segments { segments, .. } => text(segments),
            Self::Audio { pcm, .. } => pcm.len(),
            Self::Samples { pcm, .. } => pcm.len() * 2,
            Self::EndStretch => 0,
        }
    }
}

struct Given {
    input: Input,
    _held: Share,
}

/// A session's or a link's end of its feed, which ends, after what waits, when this is dropped.
pub(crate) struct FeedHandle {
    triggers: Arc<Triggers>,
    inputs: mpsc::Sender<Given>,
    wants: Arc<AtomicU8>,
}

impl FeedHandle {
    /// Whether anybody wants words. True until that is known.
    pub(crate) fn wants_words(&self) -> bool {
        self.wants.load(Ordering::Relaxed) & WORDS != 0
    }

    /// Whether anybody wants audio. True until that is known.
    pub(crate) fn wants_audio(&self) -> bool {
        self.wants.load(Ordering::Relaxed) & AUDIO != 0
    }

    /// Words that were stored.
    pub(crate) fn segments(&self, conversation: ConversationId, segments: Vec<Segment>) {
        self.give(Input::Segments { conversation, segments });
    }

    /// Audio that was heard, from `at` on.
    pub(crate) fn samples(&self, conversation: ConversationId, at: UnixMicros, pcm: &[i16]) {
        self.give(Input::Samples { conversation, at, pcm: pcm.to_vec() });
    }

    /// Words as a link brings them.
    pub(crate) fn transcript(&self, transcript: Transcript) {
        if !transcript.segments.is_empty() && self.wants_words() {
            self.give(Input::Transcript(transcript));
        }
    }

    /// Audio as a link brings it.
    pub(crate) fn audio(&self, at: f64, pcm: &[u8]) {
        if self.wants_audio() {
            self.give(Input::Audio { at, pcm: pcm.to_vec() });
        }
    }

    /// What was heard so far is a stretch of its own.
    pub(crate) fn end_stretch(&self) {
        if self.wants_audio() {
            self.give(Input::EndStretch);
        }
    }

    /// Never waits: a feed that does not keep up loses it, counted.
    fn give(&self, input: Input) {
        let kind = input.kind();
        let held = self.triggers.held.holding(input.bytes());
        if self.triggers.held.bytes() > self.triggers.limits.pusher_total_bytes_max
            || self.inputs.try_send(Given { input, _held: held }).is_err()
        {
            dropped(kind, 1);
        }
    }
}

fn dropped(kind: &'static str, count: u64) {
    metrics::counter!("auricle_triggers_total", "kind" => kind, "outcome" => "dropped").increment(count);
}

impl Triggers {
    pub(crate) fn new(
        config: &WebhooksConfig,
        store: Arc<dyn Store>,
        outgoing: Arc<Outgoing>,
        clock: Arc<dyn Clock>,
        limits: Arc<Limits>,
        (runtime, tail): (Handle, TaskTracker),
    ) -> Arc<Self> {
        let url = |text: &Option<String>| text.as_deref().and_then(|text| Url::parse(text).ok());
        Arc::new(Self {
            store,
            outgoing,
            clock,
            limits,
            runtime,
            tail,
            transcript_url: url(&config.transcript),
            audio_url: url(&config.audio),
            secret: config.secret.as_ref().map(|secret| Sensitive::new(secret.expose())),
            directory: Directory::default(),
            held: Account::default(),
        })
    }

    /// A feed for one session or link of `user`.
    pub(crate) fn open(self: &Arc<Self>, user: &UserId, rate_hz: u32) -> FeedHandle {
        let (inputs, inbox) = mpsc::channel(self.limits.trigger_inputs_max);
        let wants = Arc::new(AtomicU8::new(WORDS | AUDIO));
        let feed = Feed::new(Arc::clone(self), user.clone(), rate_hz, Arc::clone(&wants));
        self.runtime.spawn(self.tail.track_future(feed.run(inbox)));
        FeedHandle { triggers: Arc::clone(self), inputs, wants }
    }

    /// Learns, again and again, whose targets have changed, and tells their feeds (M7).
    pub(crate) async fn follow_changes(&self, beat: impl Fn()) {
        let mut version = 0;
        loop {
            beat();
            match self.directory.look(&*self.store, version).await {
                Ok((until, whole)) => {
                    version = until;
                    if !whole {
                        continue;
                    }
                }
                Err(error) => tracing::warn!(%error, "look for changes of webhooks"),
            }
            tokio::time::sleep(self.limits.target_settings_age_max).await;
        }
    }

    /// The operator's receivers, and those of the user.
    fn receivers(&self, recipients: Vec<Recipient>) -> Vec<Receiver> {
        let operators = |url: &Option<Url>, is_words: bool| {
            url.clone().map(|url| Receiver {
                url,
                author: Author::Operator,
                kind: TargetKind::Developer,
                secret: self.secret.clone(),
                words: is_words,
                audio_secs: (!is_words).then_some(AUDIO_SECS),
                turn: Arc::new(tokio::sync::Semaphore::new(1)),
                recipient: None,
            })
        };
        let users = recipients.into_iter().filter_map(|recipient| {
            let turn = self.directory.turn(&recipient.target);
            Receiver::of(recipient, turn)
        });
        let operators =
            operators(&self.transcript_url, true).into_iter().chain(operators(&self.audio_url, false));
        operators.chain(users).collect()
    }
}

/// One session's or link's triggers.
struct Feed {
    triggers: Arc<Triggers>,
    user: UserId,
    rate_hz: u32,
    wants: Arc<AtomicU8>,
    lanes: Vec<Lane>,
    /// Its share of [`Triggers::held`]: what waits in lanes.
    held: Share,
    /// Of the last audio of a session.
    conversation: Option<ConversationId>,
}

impl Feed {
    fn new(triggers: Arc<Triggers>, user: UserId, rate_hz: u32, wants: Arc<AtomicU8>) -> Self {
        let held = triggers.held.share();
        Self { triggers, user, rate_hz, wants, lanes: Vec::new(), held, conversation: None }
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Given>) {
        // Before the first look: a change in between is then seen.
        let mut changed = self.triggers.directory.watch(&self.user);
        let age_max = self.triggers.limits.target_settings_age_max;
        let mut is_known = self.refresh().await;
        let mut again = std::pin::pin!(tokio::time::sleep(age_max));
        loop {
            tokio::select! {
                given = inbox.recv() => match given {
                    Some(given) => self.take(given.input),
                    None => break,
                },
                () = std::future::poll_fn(|cx| self.poll_deliver(cx)) => {}
                Ok(()) = changed.changed() => is_known = self.refresh().await,
                () = &mut again, if !is_known => {
                    is_known = self.refresh().await;
                    again.as_mut().reset(tokio::time::Instant::now() + age_max);
                }
            }
        }
        self.finish().await;
    }

    /// Who the receivers are by now. False if that cannot be known: those it has stay.
    async fn refresh(&mut self) -> bool {
        match self.triggers.store.realtime_recipients(&self.user).await {
            Ok(recipients) => {
                self.set_receivers(self.triggers.receivers(recipients));
                true
            }
            Err(error) => {
                tracing::warn!(%error, "read a user's webhooks");
                false
            }
        }
    }

    fn set_receivers(&mut self, receivers: Vec<Receiver>) {
        let mut before = std::mem::take(&mut self.lanes);
        for receiver in receivers {
            // What waits, and the delivery under way, stay with a receiver that is still wanted.
            let known = before.iter().position(|lane| lane.is_of(&receiver));
            self.lanes.push(match known {
                Some(at) => before.swap_remove(at).with(receiver),
                None => Lane::new(receiver, self.rate_hz),
            });
        }
        let any = |wanted: fn(&Receiver) -> bool| self.lanes.iter().any(|lane| wanted(lane.receiver()));
        let wants = if any(|receiver| receiver.words) { WORDS } else { 0 }
            | if any(|receiver| receiver.audio_secs.is_some()) { AUDIO } else { 0 };
        self.wants.store(wants, Ordering::Relaxed);
        self.make_room(None);
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Transcript(Transcript { segments, memory_id }) => {
                self.words(&segments, memory_id.map(ConversationId::from));
            }
            Input::Segments { conversation, segments } => {
                let segments: Vec<_> = segments
                    .iter()
                    .filter_map(|segment| serde_json::to_value(convert::segment(segment)).ok())
                    .collect();
                self.words(&segments, Some(conversation));
            }
            Input::Audio { at, pcm } => self.audio(at, &pcm),
            Input::Samples { conversation, at, pcm } => {
                if self.conversation.as_ref().is_some_and(|before| *before != conversation) {
                    self.end_stretch();
                }
                self.conversation = Some(conversation);
                let pcm: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
                self.audio(at.as_secs_f64(), &pcm);
            }
            Input::EndStretch => self.end_stretch(),
        }
    }

    fn words(&mut self, segments: &[serde_json::Value], conversation: Option<ConversationId>) {
        let words = Words { segments, session_id: self.user.as_str() };
        let Ok(body) = serde_json::to_string(&words) else { return };
        let body: Arc<str> = body.into();
        for at in 0..self.lanes.len() {
            if self.lanes[at].receiver().words {
                self.lanes[at].words(Arc::clone(&body), conversation.clone());
                self.make_room(Some(at));
            }
        }
    }

    fn audio(&mut self, first_sample_at: f64, pcm: &[u8]) {
        for at in 0..self.lanes.len() {
            self.lanes[at].audio(first_sample_at, pcm);
            self.make_room(Some(at));
        }
    }

    fn end_stretch(&mut self) {
        self.lanes.iter_mut().for_each(Lane::end_stretch);
        self.make_room(None);
    }

    /// Drops the oldest of `lane`, or of the one that holds most, while this feed, or all feeds together, hold too much: others'
    /// is not its to drop.
    fn make_room(&mut self, lane: Option<usize>) {
        let limits = Arc::clone(&self.triggers.limits);
        loop {
            let waiting: usize = self.lanes.iter().map(Lane::waiting_bytes).sum();
            self.held.set(self.lanes.iter().map(Lane::bytes).sum());
            let too_much = self.triggers.held.bytes() > limits.pusher_total_bytes_max;
            if waiting <= limits.pusher_link_bytes_max && !too_much {
                return;
            }
            let fullest = || (0..self.lanes.len()).max_by_key(|at| self.lanes[*at].bytes());
            let at = lane.filter(|at| self.lanes[*at].bytes() > 0).or_else(fullest);
            let Some(oldest) = at.and_then(|at| self.lanes[at].drop_oldest()) else { return };
            dropped(oldest, 1);
        }
    }

    /// Goes on with what waits; ready when a delivery has ended. Pending while nothing waits.
    fn poll_deliver(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut ended = false;
        for lane in &mut self.lanes {
            ended |= lane.poll(&self.triggers, &self.user, self.rate_hz, cx).is_ready();
        }
        self.held.set(self.lanes.iter().map(Lane::bytes).sum());
        if ended { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Delivers what waits, for a bounded time.
    async fn finish(mut self) {
        self.end_stretch();
        let all = async {
            while self.lanes.iter().any(Lane::is_busy) {
                std::future::poll_fn(|cx| self.poll_deliver(cx)).await;
            }
        };
        if tokio::time::timeout(FINISH_MAX, all).await.is_err() {
            dropped("any", self.lanes.iter().map(Lane::waiting).sum::<usize>() as u64);
        }
        for lane in &mut self.lanes {
            lane.write_note(&self.triggers).await;
        }
    }
}

#[cfg(test)]
mod tests;
