//! Plays a script on one connection.

use std::future::pending;
use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::script::{SpeechScript, Step, StepAwait, StepRefusal};
use super::{Shared, SpeechSession};

/// Unless a session says another.
const RATE_HZ: f64 = 16_000.0;

#[expect(clippy::result_large_err, reason = "the library names the type of a refused upgrade")]
pub(super) async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let script = shared.script().clone();
    let mut place = 0;
    shared.sessions.send_modify(|sessions| {
        place = sessions.len();
        sessions.push(SpeechSession::default());
    });
    if matches!(script, SpeechScript::BlackHole) {
        pending::<()>().await;
    }
    let _ = stream.set_nodelay(true);
    let refusal = match &script {
        SpeechScript::Session(steps) => match steps.first() {
            Some(Step::Refuse(refusal)) => Some(refusal.clone()),
            _ => None,
        },
        _ => None,
    };
    let upgrade = tokio_tungstenite::accept_hdr_async(stream, |request: &Request, response: Response| {
        let authorization = request.headers().get("authorization");
        let authorization = authorization.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let target = request.uri().to_string();
        shared.note(place, |session| (session.target, session.authorization) = (target, authorization));
        match &refusal {
            Some(refusal) => Err(refused(refusal)),
            None => Ok(response),
        }
    });
    if let Ok(socket) = upgrade.await {
        let target = shared.sessions.borrow()[place].target.clone();
        let mut player =
            Player { socket, shared: &shared, place, rate_hz: rate_of(&target), heard: Vec::new() };
        // Whatever ends it early is the engine's leaving.
        let _ = player.play(&script).await;
    }
    shared.note(place, |session| session.ended = true);
}

fn refused(refusal: &StepRefusal) -> ErrorResponse {
    let mut answer = ErrorResponse::new(Some(refusal.body.to_string()));
    *answer.status_mut() = refusal.status.try_into().unwrap_or_default();
    for (name, value) in &refusal.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

fn rate_of(target: &str) -> f64 {
    let query = target.split(['?', '&']).find_map(|part| part.strip_prefix("sample_rate="));
    query.and_then(|rate| rate.parse().ok()).unwrap_or(RATE_HZ)
}

/// The connection is over.
struct Over;

struct Player<'a> {
    socket: WebSocketStream<TcpStream>,
    shared: &'a Shared,
    place: usize,
    rate_hz: f64,
    /// Text messages that no step has waited for.
    heard: Vec<String>,
}

impl Player<'_> {
    async fn play(&mut self, script: &SpeechScript) -> Result<(), Over> {
        match script {
            SpeechScript::Session(steps) => {
                for step in steps {
                    self.step(step).await?;
                }
            }
            SpeechScript::Words { every_secs, first_secs, word_secs } => {
                return self.talk(*every_secs, *first_secs, *word_secs).await;
            }
            SpeechScript::BlackHole | SpeechScript::Deaf => pending::<()>().await,
        }
        loop {
            self.hear().await?;
        }
    }

    async fn step(&mut self, step: &Step) -> Result<(), Over> {
        match step {
            Step::Refuse(_) => {}
            Step::Await(StepAwait::AudioSecs(secs)) => {
                while self.audio_secs() < *secs {
                    self.hear().await?;
                }
            }
            Step::Await(StepAwait::Message(kind)) => {
                let is_it = |value: &Value| value["type"] == **kind || value["message"] == **kind;
                self.until(|text| match kind.as_str() {
                    "" => text.is_empty(),
                    _ => serde_json::from_str(text).is_ok_and(|value: Value| is_it(&value)),
                })
                .await?;
            }
            Step::Await(StepAwait::First(field)) => {
                self.until(|text| {
                    serde_json::from_str(text).is_ok_and(|value: Value| value.get(field).is_some())
                })
                .await?;
            }
            Step::Send(value) => self.say(value.to_string()).await?,
            Step::SendRaw(text) => self.say(text.clone()).await?,
            Step::Close(close) => {
                let frame = CloseFrame { code: close.code.into(), reason: close.reason.clone().into() };
                self.socket.send(Message::Close(Some(frame))).await.map_err(|_| Over)?;
            }
            Step::Drop {} => return Err(Over),
            Step::Hang {} => loop {
                self.hear().await?;
            },
        }
        Ok(())
    }

    /// Words by the audio's time, until the stream is closed.
    async fn talk(&mut self, every_secs: f64, first_secs: f64, word_secs: f64) -> Result<(), Over> {
        let (mut word, mut covered) = (0_u32, 0.0);
        loop {
            let begin = f64::from(word) * every_secs + first_secs;
            let end = begin + word_secs;
            if self.audio_secs() >= end {
                self.say(results(covered, end, Some((word, begin)), false)).await?;
                (word, covered) = (word + 1, end);
                continue;
            }
            self.hear().await?;
            for text in std::mem::take(&mut self.heard) {
                let now = self.audio_secs();
                if text.contains("Finalize") {
                    self.say(results(covered, now, None, true)).await?;
                    covered = now;
                } else if text.contains("CloseStream") {
                    let metadata = json!({ "type": "Metadata", "duration": now, "channels": 1 });
                    self.say(metadata.to_string()).await?;
                    return self.socket.close(None).await.map_err(|_| Over);
                }
            }
        }
    }

    async fn say(&mut self, text: String) -> Result<(), Over> {
        self.socket.send(Message::Text(text.into())).await.map_err(|_| Over)
    }

    async fn until(&mut self, wanted: impl Fn(&str) -> bool) -> Result<(), Over> {
        loop {
            if let Some(at) = self.heard.iter().position(|text| wanted(text)) {
                self.heard.drain(..=at);
                return Ok(());
            }
            self.hear().await?;
        }
    }

    /// Takes in one message.
    async fn hear(&mut self) -> Result<(), Over> {
        match self.socket.next().await {
            Some(Ok(Message::Binary(bytes))) => {
                self.shared.note(self.place, |session| session.audio_bytes += bytes.len() as u64);
            }
            Some(Ok(Message::Text(text))) => {
                self.shared.note(self.place, |session| session.texts.push(text.as_str().to_owned()));
                self.heard.push(text.as_str().to_owned());
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Err(Over),
        }
        Ok(())
    }

    fn audio_secs(&self) -> f64 {
        self.shared.sessions.borrow()[self.place].audio_bytes as f64 / 2.0 / self.rate_hz
    }
}

/// As Deepgram says it: a word, its number and beginning, that ends at `until`.
fn results(from: f64, until: f64, word: Option<(u32, f64)>, from_finalize: bool) -> String {
    let words: Vec<Value> = word
        .into_iter()
        .map(|(number, begin)| {
            json!({
                "word": format!("w{number}"), "punctuated_word": format!("w{number}."), "start": begin, "end": until,
                "confidence": 0.99, "speaker": 0,
            })
        })
        .collect();
    json!({
        "type": "Results", "channel_index": [0, 1], "start": from, "duration": until - from, "is_final": true,
        "speech_final": true, "from_finalize": from_finalize,
        "channel": { "alternatives": [{ "transcript": "", "confidence": 0.99, "words": words }] },
    })
    .to_string()
}
