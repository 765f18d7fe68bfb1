//! One WebSocket: opened, written a message at a time, read.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Sink, StreamExt};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::RETRY_AFTER;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};

use super::machine::Incoming;
use super::{Close, Outgoing, Refusal, Request};

/// Bytes of a connection's read buffer: answers are short, and streams many.
const READ_BUFFER_BYTES: usize = 8 * 1024;
/// Longest message of a service. Full: the connection is dropped.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Of a refusal's body.
const REFUSAL_BYTES_MAX: usize = 4 * 1024;
/// Longest `Retry-After` that is believed.
const RETRY_AFTER_SECS_MAX: u64 = 3_600;
/// Where Deepgram repeats a refusal's body, which the library does not always have.
const ERROR_HEADER: &str = "dg-error";

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum OpenError {
    Refused(Refusal),
    /// What happened; names no address.
    Failed(String),
}

pub(super) struct Socket {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    waiting: Option<Message>,
    flushing: bool,
}

/// What comes of a socket.
pub(super) enum Happened {
    /// The message is written.
    Written,
    Heard(Incoming),
}

impl Socket {
    /// Connects. Dropping the future ends the attempt.
    pub(super) async fn open(request: &Request) -> Result<Self, OpenError> {
        let unusable = |error: &dyn std::fmt::Display| OpenError::Failed(format!("cannot be asked: {error}"));
        let mut upgrade = request.url.as_str().into_client_request().map_err(|error| unusable(&error))?;
        for (name, value) in &request.headers {
            let mut value =
                HeaderValue::from_str(value).map_err(|_| unusable(&"the key has odd characters"))?;
            value.set_sensitive(true);
            upgrade.headers_mut().insert(HeaderName::from_static(name), value);
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let connector = match request.url.starts_with("wss://") {
            true => Connector::Rustls(tls().map_err(OpenError::Failed)?),
            false => Connector::Plain,
        };
        // Without Nagle: frames are small, and words are waited for.
        match connect_async_tls_with_config(upgrade, Some(config), true, Some(connector)).await {
            Ok((socket, _)) => Ok(Self { socket, waiting: None, flushing: false }),
            Err(Error::Http(answer)) => Err(OpenError::Refused(refusal(&answer))),
            Err(error) => Err(OpenError::Failed(format!("cannot be reached: {}", trouble(&error)))),
        }
    }

    /// Whether a message may be given.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_none() && !self.flushing
    }

    /// Gives the next message.
    pub(super) fn write(&mut self, message: Outgoing) {
        self.waiting = Some(match message {
            Outgoing::Text(text) => Message::Text(text.into()),
            Outgoing::Audio(bytes) => Message::Binary(bytes.into()),
            Outgoing::Ping => Message::Ping(Vec::new().into()),
        });
    }

    /// Goes on writing, and reading if `read`. Losing the future that polls this loses nothing.
    pub(super) fn poll(&mut self, read: bool, cx: &mut Context<'_>) -> Poll<Happened> {
        match self.poll_write(cx) {
            Poll::Ready(Ok(())) => return Poll::Ready(Happened::Written),
            // Whatever was said before it broke is still there to be read.
            Poll::Ready(Err(_)) => (self.waiting, self.flushing) = (None, false),
            Poll::Pending => {}
        }
        if !read {
            return Poll::Pending;
        }
        let heard = match ready!(self.socket.poll_next_unpin(cx)) {
            Some(Ok(Message::Text(text))) => Incoming::Text(text.as_str().to_owned()),
            Some(Ok(Message::Close(frame))) => Incoming::Closed(
                frame
                    .map(|frame| Close { code: frame.code.into(), reason: frame.reason.as_str().to_owned() }),
            ),
            Some(Ok(_)) => Incoming::Life,
            Some(Err(_)) | None => Incoming::Closed(None),
        };
        Poll::Ready(Happened::Heard(heard))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.waiting.is_some() {
            ready!(Pin::new(&mut self.socket).poll_ready(cx))?;
            if let Some(message) = self.waiting.take() {
                Pin::new(&mut self.socket).start_send(message)?;
                self.flushing = true;
            }
        }
        if !self.flushing {
            return Poll::Pending;
        }
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.flushing = false;
        Poll::Ready(Ok(()))
    }

    /// Says goodbye, if that takes no longer.
    pub(super) async fn close(mut self, within: Duration) {
        let _ = tokio::time::timeout(within, self.socket.close(None)).await;
    }
}

/// With the roots that the system trusts, as all our other outgoing requests; read once.
fn tls() -> Result<Arc<rustls::ClientConfig>, String> {
    static TLS: OnceLock<Result<Arc<rustls::ClientConfig>, String>> = OnceLock::new();
    TLS.get_or_init(|| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_platform_verifier());
        match config {
            Ok(builder) => Ok(Arc::new(builder.with_no_client_auth())),
            Err(error) => {
                Err(format!("cannot be reached: the system's certificates cannot be used: {error}"))
            }
        }
    })
    .clone()
}

fn refusal(answer: &Response<Option<Vec<u8>>>) -> Refusal {
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let body = answer.body().as_deref().filter(|body| !body.is_empty());
    let body =
        body.map(|body| String::from_utf8_lossy(&body[..body.len().min(REFUSAL_BYTES_MAX)]).into_owned());
    let secs = header(RETRY_AFTER.as_str()).and_then(|text| text.trim().parse::<u64>().ok());
    Refusal {
        status: answer.status().as_u16(),
        retry_after: secs.map(|secs| Duration::from_secs(secs.min(RETRY_AFTER_SECS_MAX))),
        body: body.or_else(|| header(ERROR_HEADER).map(str::to_owned)).unwrap_or_default(),
    }
}

/// What went wrong, without the address, which may hold terms of a user.
fn trouble(error: &Error) -> String {
    match error {
        Error::Io(error) => error.to_string(),
        Error::Tls(error) => format!("TLS: {error}"),
        Error::Url(_) => "its address is none".to_owned(),
        Error::ConnectionClosed | Error::AlreadyClosed => "it hung up".to_owned(),
        Error::Protocol(_) | Error::HttpFormat(_) => "it does not speak WebSocket".to_owned(),
        _ => "the upgrade failed".to_owned(),
    }
}
