//! One link: reads frames, answers requests, and hands what was heard to its realtime triggers.

use std::sync::Arc;

use auricle_wire::pusher::{Frame, ProcessResult, decode};
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use tokio::sync::mpsc;

use super::requests::failed_for_now;
use super::{Peer, Pusher};
use crate::realtime::FeedHandle;

/// How long writing an answer may take. Full: the link is closed; its requests go on.
const WRITE_MAX: std::time::Duration = std::time::Duration::from_secs(10);

/// A link.
pub(super) struct Connection {
    pusher: Arc<Pusher>,
    peer: Peer,
    feed: FeedHandle,
    answers: mpsc::Sender<ProcessResult>,
    answered: mpsc::Receiver<ProcessResult>,
    /// Requests of this link without an answer.
    open_requests: usize,
}

impl Connection {
    pub(super) fn new(pusher: Arc<Pusher>, peer: Peer) -> Self {
        let (answers, answered) = mpsc::channel(pusher.limits.link_requests_max);
        let feed = pusher.triggers.open(&peer.user, peer.rate_hz);
        Self { pusher, peer, feed, answers, answered, open_requests: 0 }
    }

    pub(super) async fn run(mut self, mut socket: WebSocket) {
        metrics::gauge!("auricle_pusher_links").increment(1.0);
        let silent_max = self.pusher.limits.pusher_silent_max;
        let mut silent_at = tokio::time::Instant::now() + silent_max;
        let draining = self.pusher.draining.clone();
        let close = loop {
            tokio::select! {
                message = socket.recv() => match message {
                    Some(Ok(message)) => {
                        silent_at = tokio::time::Instant::now() + silent_max;
                        if matches!(message, Message::Close(_)) {
                            break None;
                        }
                        let refused = self.on_message(message).await;
                        if let Some(refused) = refused && !write(&mut socket, refused).await {
                            break None;
                        }
                    }
                    Some(Err(_)) | None => break None,
                },
                Some(answer) = self.answered.recv() => {
                    self.open_requests -= 1;
                    if !write(&mut socket, answer).await {
                        break None;
                    }
                }
                () = tokio::time::sleep_until(silent_at) => break Some((1011, "nothing heard for too long")),
                () = draining.cancelled() => break Some((1012, "restarting")),
            }
        };
        if let Some((code, reason)) = close {
            let frame = CloseFrame { code, reason: reason.into() };
            let _ = tokio::time::timeout(WRITE_MAX, socket.send(Message::Close(Some(frame)))).await;
        }
        metrics::gauge!("auricle_pusher_links").decrement(1.0);
        // Its feed delivers what waits all the same, for a bounded time (L24).
    }

    /// What it is answered at once.
    async fn on_message(&mut self, message: Message) -> Option<ProcessResult> {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(_) => {
                bad("text");
                return None;
            }
            _ => return None,
        };
        match decode(&bytes) {
            Ok(Frame::Heartbeat) => {}
            Ok(Frame::Audio { first_sample_at, pcm }) => self.feed.audio(first_sample_at, pcm),
            Ok(Frame::Transcript(transcript)) => self.feed.transcript(transcript),
            Ok(Frame::ConversationId(_)) => self.feed.end_stretch(),
            Ok(Frame::ProcessRequest(request)) if request.conversation_id.is_empty() => bad("empty_request"),
            Ok(Frame::ProcessRequest(request)) => {
                if self.open_requests >= self.pusher.limits.link_requests_max {
                    // Its peer asks again, or finds the row by itself: sooner than if it heard nothing.
                    bad("too_many_requests");
                    return Some(failed_for_now(&request));
                }
                self.open_requests += 1;
                self.pusher.requests.ask(self.peer.user.clone(), request, self.answers.clone());
            }
            Ok(Frame::SpeakerSample(sample)) => {
                let whole = !sample.person_id.is_empty()
                    && !sample.conversation_id.is_empty()
                    && !sample.segment_ids.is_empty();
                if whole {
                    self.keep_sample(sample).await;
                }
            }
            Ok(Frame::ProcessResult(_)) => bad("answer"),
            Err(error) => {
                tracing::debug!(%error, "a frame of a link");
                bad("malformed");
            }
        }
        None
    }

    async fn keep_sample(&mut self, sample: auricle_wire::pusher::SpeakerSample) {
        let segments: Vec<_> = sample.segment_ids.into_iter().map(Into::into).collect();
        let kept = self
            .pusher
            .store
            .add_speaker_sample(
                &self.peer.user,
                &sample.person_id.into(),
                &sample.conversation_id.into(),
                &segments,
                self.pusher.clock.wall(),
            )
            .await;
        if let Err(error) = kept {
            metrics::counter!("auricle_speaker_samples_lost_total").increment(1);
            tracing::warn!(%error, "keep a speaker sample");
        }
    }
}

/// Whether it was written in time.
async fn write(socket: &mut WebSocket, answer: ProcessResult) -> bool {
    let mut bytes = Vec::new();
    Frame::ProcessResult(answer).encode(&mut bytes);
    let written = socket.send(Message::Binary(bytes.into()));
    matches!(tokio::time::timeout(WRITE_MAX, written).await, Ok(Ok(())))
}

/// Counts a frame that is passed over, or a request that is refused. The link goes on (L21b).
fn bad(reason: &'static str) {
    metrics::counter!("auricle_link_frames_ignored_total", "reason" => reason).increment(1);
}
