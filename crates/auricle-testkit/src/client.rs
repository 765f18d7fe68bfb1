//! A client of `/v4/listen` and `/v4/web/listen`, as an app or a device would be.
//!
//! ```no_run
//! # async fn example() -> Result<(), auricle_testkit::ConnectError> {
//! use std::time::Duration;
//! use auricle_testkit::{Client, Connect};
//!
//! let mut client: Client = Connect::new("ws://127.0.0.1:8080").param("codec", "pcm16").open().await?;
//! client.send_audio(vec![0; 640]).await;
//! let (messages, end) = client.until(Duration::from_secs(5), |message| message.is_segments()).await;
//! # Ok(()) }
//! ```

use std::time::Duration;

use auricle_wire::conversation::Segment;
use auricle_wire::event::{self, Event, ServerMessage};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Why no session came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server answered the upgrade with an HTTP status.
    #[error("the server refused the upgrade with HTTP {status}")]
    Refused {
        /// The status.
        status: u16,
        /// `Retry-After`, if it said so.
        retry_after: Option<String>,
        /// The body.
        body: String,
    },
    /// Nothing of HTTP came back, or the address or token is no such thing.
    #[error("connect: {0}")]
    Failed(String),
}

/// A connection to be made.
#[derive(Clone, Debug)]
pub struct Connect {
    base: String,
    path: String,
    params: Vec<(String, String)>,
    token: Option<String>,
    origin: Option<String>,
}

impl Connect {
    /// To `/v4/listen` of the server at `base` (`ws://HOST:PORT`).
    pub fn new(base: &str) -> Self {
        Self {
            base: base.trim_end_matches('/').into(),
            path: "/v4/listen".into(),
            params: Vec::new(),
            token: None,
            origin: None,
        }
    }

    /// To `/v4/web/listen` instead; the first message must then be the token: see [`Client::authenticate`].
    #[must_use]
    pub fn web(mut self) -> Self {
        self.path = "/v4/web/listen".into();
        self
    }

    /// Adds a query parameter. The value goes as it is: letters, digits, `-` and `_` only.
    #[must_use]
    pub fn param(mut self, name: &str, value: impl ToString) -> Self {
        self.params.push((name.into(), value.to_string()));
        self
    }

    /// Sends `Authorization: Bearer TOKEN`.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Sends `Origin`, as a page of that site does.
    #[must_use]
    pub fn origin(mut self, origin: &str) -> Self {
        self.origin = Some(origin.into());
        self
    }

    /// Connects and upgrades.
    pub async fn open(&self) -> Result<Client, ConnectError> {
        let failed = |error: &dyn std::fmt::Display| ConnectError::Failed(error.to_string());
        let params: Vec<_> = self.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let url = format!("{}{}?{}", self.base, self.path, params.join("&"));
        let mut request = url.into_client_request().map_err(|error| failed(&error))?;
        if let Some(token) = &self.token {
            let value = format!("Bearer {token}").parse().map_err(|error| failed(&error))?;
            request.headers_mut().insert("authorization", value);
        }
        if let Some(origin) = &self.origin {
            request.headers_mut().insert("origin", origin.parse().map_err(|error| failed(&error))?);
        }
        match tokio_tungstenite::connect_async(request).await {
            Ok((socket, _)) => {
                if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
                    let _ = stream.set_nodelay(true);
                }
                Ok(Client { socket, pings: 0 })
            }
            Err(tungstenite::Error::Http(answer)) => Err(ConnectError::Refused {
                status: answer.status().as_u16(),
                retry_after: answer
                    .headers()
                    .get("retry-after")
                    .and_then(|value| value.to_str().ok())
                    .map(str::to_owned),
                body: String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default()).into_owned(),
            }),
            Err(error) => Err(failed(&error)),
        }
    }
}

/// What came.
#[derive(Clone, Debug, PartialEq)]
pub enum Received {
    /// A message of the protocol, pings apart: those are answered and counted.
    Message(ServerMessage),
    /// Text that is no message of the protocol. A server that sends it is wrong.
    Strange(String),
    /// The server closed. 1005 stands for a close frame without a code.
    Closed {
        /// The code.
        code: u16,
        /// Its reason.
        reason: String,
    },
    /// The connection broke without a close frame.
    Lost,
}

impl Received {
    /// Whether it is a transcript array.
    pub fn is_segments(&self) -> bool {
        matches!(self, Self::Message(ServerMessage::Segments(_)))
    }

    /// The segments of a transcript array, else none.
    pub fn segments(&self) -> &[Segment] {
        match self {
            Self::Message(ServerMessage::Segments(segments)) => segments,
            _ => &[],
        }
    }

    /// The event, if it is one.
    pub fn event(&self) -> Option<&Event> {
        match self {
            Self::Message(ServerMessage::Event(event)) => Some(event),
            _ => None,
        }
    }

    /// Whether nothing can follow.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::Lost)
    }
}

/// A connected client. Dropped, it vanishes without a close frame, as a phone that loses its network does.
pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pings: usize,
}

impl Client {
    /// Sends one message of audio. False if the connection is gone.
    pub async fn send_audio(&mut self, frame: Vec<u8>) -> bool {
        self.socket.send(Message::Binary(frame.into())).await.is_ok()
    }

    /// Sends one text message. False if the connection is gone.
    pub async fn send_text(&mut self, text: impl Into<String>) -> bool {
        self.socket.send(Message::Text(text.into().into())).await.is_ok()
    }

    /// Sends the first message of the browser's endpoint.
    pub async fn authenticate(&mut self, token: &str) -> bool {
        self.send_text(serde_json::json!({"type": "auth", "token": token}).to_string()).await
    }

    /// Pings received and answered so far.
    pub fn pings(&self) -> usize {
        self.pings
    }

    /// The next message, or `None` when nothing has come for `wait`. Safe to drop and call again.
    pub async fn next(&mut self, wait: Duration) -> Option<Received> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let message = tokio::time::timeout_at(deadline, self.socket.next()).await.ok()?;
            match message {
                Some(Ok(Message::Text(text))) => match event::parse(&text) {
                    Ok(ServerMessage::Ping) => {
                        self.pings += 1;
                        let _ = self.socket.send(Message::Binary(event::PONG.to_vec().into())).await;
                    }
                    Ok(message) => return Some(Received::Message(message)),
                    Err(_) => return Some(Received::Strange(text.as_str().to_owned())),
                },
                Some(Ok(Message::Close(frame))) => {
                    let (code, reason) = frame
                        .map_or((1005, String::new()), |f| (f.code.into(), f.reason.as_str().to_owned()));
                    return Some(Received::Closed { code, reason });
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Some(Received::Lost),
            }
        }
    }

    /// Collects messages up to and including the first that `is_wanted`, the end of the connection, or `wait` in all.
    /// True if the wanted one came.
    pub async fn until(
        &mut self,
        wait: Duration,
        mut is_wanted: impl FnMut(&Received) -> bool,
    ) -> (Vec<Received>, bool) {
        let deadline = tokio::time::Instant::now() + wait;
        let mut all = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let Some(message) = self.next(left).await else { return (all, false) };
            let (wanted, end) = (is_wanted(&message), message.is_end());
            all.push(message);
            if wanted || end {
                return (all, wanted);
            }
        }
    }

    /// Says goodbye with code 1000 and waits a little for the answer.
    pub async fn close(mut self) {
        let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        // Read on until the server has answered: a socket that is closed with something unread is reset, and the other side
        // loses what it had not read yet.
        let answered = async {
            if self.socket.close(Some(goodbye)).await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(5), answered).await;
    }
}
