//! Drives one link: turns each output of the machine into a call, and each answer into an input.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use auricle_core::breaker::{Outcome, Rejected};
use auricle_core::link::{Frame, Input, Link, LinkConfig, LinkState, Output};
use auricle_core::{ConversationId, Share, UserId};
use auricle_wire::pusher as wire;
use rand::{SeedableRng, rngs::StdRng};
use tokio::sync::mpsc;

use super::connection::{Connection, Event};
use super::{Given, Links, Permit, dropped};
use crate::clock::monotonic;
use crate::config::PusherProtocol;
use crate::convert;

type Connecting = Pin<Box<dyn Future<Output = Option<(Box<Connection>, Permit)>> + Send>>;

/// What woke the driver.
enum Woken {
    Input(Option<Given>),
    Connected(Option<(Box<Connection>, Permit)>),
    Event(Event),
    Timer,
}

/// One link's driver.
pub(super) struct Driver {
    links: Arc<Links>,
    link: Link,
    url: String,
    inbox: mpsc::Receiver<Given>,
    open: bool,
    connecting: Option<Connecting>,
    connection: Option<Box<Connection>>,
    /// The permit of a connection that has not lasted yet, and until when it has to: a pusher that lets everybody in and
    /// throws them out at once is not there.
    probation: Option<(Permit, Instant)>,
    state: Option<LinkState>,
    /// Its share of `Links::audio_held`, beside what is still in the inbox.
    audio_held: Share,
}

impl Driver {
    pub(super) fn new(
        links: Arc<Links>,
        config: LinkConfig,
        user: UserId,
        inbox: mpsc::Receiver<Given>,
    ) -> Self {
        let user = percent(user.as_str());
        let url = format!("{}?uid={user}&sample_rate={}", links.url, config.sample_rate_hz);
        let mut seed = [0; 32];
        rand::Rng::fill_bytes(&mut StdRng::from_rng(&mut rand::rng()), &mut seed);
        let link = Link::new(config, Arc::clone(&links.limits), seed, monotonic());
        Self {
            audio_held: links.audio_held.share(),
            links,
            link,
            url,
            inbox,
            open: true,
            connecting: None,
            connection: None,
            probation: None,
            state: None,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            while let Some(output) = self.link.poll_output() {
                self.perform(output);
            }
            self.count();
            if self.link.is_over() {
                break;
            }
            let woken = self.wait().await;
            self.on_woken(woken);
        }
    }

    async fn wait(&mut self) -> Woken {
        let lasted_at = self.probation.as_ref().map(|(_, at)| *at);
        let timer = async {
            match self.link.poll_timeout().into_iter().chain(lasted_at).min() {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let connecting = async {
            match &mut self.connecting {
                Some(connecting) => connecting.await,
                None => std::future::pending().await,
            }
        };
        let connection = std::future::poll_fn(|cx| match &mut self.connection {
            Some(connection) => connection.poll(cx),
            None => std::task::Poll::Pending,
        });
        tokio::select! {
            biased;
            connected = connecting => Woken::Connected(connected),
            event = connection => Woken::Event(event),
            input = self.inbox.recv(), if self.open => Woken::Input(input),
            () = timer => Woken::Timer,
        }
    }

    fn on_woken(&mut self, woken: Woken) {
        // Counted by its giver until it is counted here.
        let mut held = None;
        let input = match woken {
            Woken::Input(Some(given)) => {
                held = given.held;
                given.input
            }
            Woken::Input(None) => {
                self.open = false;
                Input::Leave
            }
            Woken::Connected(connected) => {
                self.connecting = None;
                match connected {
                    Some((connection, permit)) => {
                        self.connection = Some(connection);
                        self.probation = Some((permit, monotonic() + self.links.limits.link_stable_after));
                        Input::Connected
                    }
                    None => Input::ConnectFailed,
                }
            }
            Woken::Event(Event::Sent) => Input::Sent,
            Woken::Event(Event::Heard(message)) => {
                if let Some(conversation) = answered(&message) {
                    self.links.recorded.notify_one();
                    self.end_probation(Outcome::Ok);
                    self.link.handle(monotonic(), Input::Answered(conversation));
                }
                Input::Heard
            }
            Woken::Event(Event::Closed) => {
                self.connection = None;
                self.end_probation(Outcome::Failed);
                Input::Closed
            }
            Woken::Timer => {
                let now = monotonic();
                if self.probation.as_ref().is_some_and(|(_, at)| now >= *at) {
                    self.end_probation(Outcome::Ok);
                }
                Input::Tick
            }
        };
        self.link.handle(monotonic(), input);
        self.audio_held.set(self.link.buffered_bytes());
        drop(held);
    }

    fn end_probation(&mut self, outcome: Outcome) {
        if let Some((permit, _)) = self.probation.take() {
            permit.settle(outcome);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Connect => match self.links.ask() {
                Ok(permit) => {
                    let (links, url) = (Arc::clone(&self.links), self.url.clone());
                    self.connecting = Some(Box::pin(async move {
                        let opening = Connection::open(&url, links.secret.as_ref());
                        let opened = tokio::time::timeout(links.limits.link_connect_max, opening).await;
                        match opened {
                            Ok(Ok(connection)) => Some((Box::new(connection), permit)),
                            Ok(Err(_)) | Err(_) => {
                                permit.settle(Outcome::Failed);
                                None
                            }
                        }
                    }));
                }
                Err(Rejected { retry_at }) => self.link.handle(monotonic(), Input::Rejected { retry_at }),
            },
            Output::Send(frame) => {
                let bytes = self.encode(frame);
                if let Some(connection) = &mut self.connection {
                    connection.frame(bytes);
                }
            }
            Output::Ping => {
                if let Some(connection) = &mut self.connection {
                    connection.ping();
                }
            }
            Output::Disconnect => {
                // A link that leaves says nothing of its pusher, and lets the next one probe.
                self.end_probation(if self.link.is_over() { Outcome::Unknown } else { Outcome::Failed });
                self.connection = None;
                self.connecting = None;
            }
            Output::Dropped { what, amount } => dropped(what, "full", amount),
        }
    }

    fn encode(&self, frame: Frame) -> Vec<u8> {
        let mut out = Vec::new();
        match frame {
            Frame::Heartbeat => wire::Frame::Heartbeat.encode(&mut out),
            Frame::Audio { at, pcm } => {
                let pcm: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
                wire::Frame::Audio { first_sample_at: at.as_secs_f64(), pcm: &pcm }.encode(&mut out);
            }
            Frame::Transcript { conversation, segments } => {
                let segments = segments.iter().map(convert::segment);
                let segments = segments.filter_map(|segment| serde_json::to_value(segment).ok()).collect();
                let transcript = wire::Transcript { segments, memory_id: Some(conversation.to_string()) };
                wire::Frame::Transcript(transcript).encode(&mut out);
            }
            Frame::Conversation(id) => wire::Frame::ConversationId(id.as_str()).encode(&mut out),
            Frame::Process(request) => {
                // Source: pusher-and-processing 1.3: R2 wants the bare request, R3 and later its job.
                let bound = self.links.protocol != PusherProtocol::OmiR2;
                let request = wire::ProcessRequest {
                    conversation_id: request.conversation.to_string(),
                    language: request.language,
                    byok_keys: None,
                    finalization_job_id: request.job.filter(|_| bound).map(|job| job.to_string()),
                    dispatch_generation: bound.then_some(u64::from(request.revision.0)),
                    finalization_result_protocol: bound.then_some(2),
                };
                wire::Frame::ProcessRequest(request).encode(&mut out);
            }
            Frame::SpeakerSample { person, conversation, segments } => {
                let sample = wire::SpeakerSample {
                    person_id: person.to_string(),
                    conversation_id: conversation.to_string(),
                    segment_ids: segments.iter().map(ToString::to_string).collect(),
                };
                wire::Frame::SpeakerSample(sample).encode(&mut out);
            }
        }
        out
    }

    fn count(&mut self) {
        let state = (!self.link.is_over()).then(|| self.link.state());
        let kind = |state: Option<LinkState>| state.map(|state| state == LinkState::Connected);
        if kind(state) != kind(self.state) {
            self.links.counts(self.state, state);
        }
        self.state = state;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if self.state.is_some() {
            self.links.counts(self.state, None);
        }
    }
}

/// Which request an answer ends. Source: pusher-and-processing 1.3: `job_leased` is healthy work under way.
fn answered(message: &[u8]) -> Option<ConversationId> {
    let Ok(wire::Frame::ProcessResult(result)) = wire::decode(message) else { return None };
    let under_way = result.error.as_deref() == Some("job_leased") && result.terminal != Some(true);
    (!under_way).then(|| result.conversation_id.as_str().into())
}

fn percent(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
