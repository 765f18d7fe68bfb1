//! One WebSocket to the pusher: connecting, writing a frame at a time, reading answers.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use futures_util::{Sink, StreamExt};
use std::pin::Pin;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::config::Secret;

/// Bytes of the read buffer; answers are short.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Longest message of the pusher. Full: the connection is dropped.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// A connection.
pub(super) struct Connection {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Not yet given to the socket; a frame (not a ping) is told when it is written.
    waiting: VecDeque<Message>,
    flushing: bool,
    frames: usize,
}

/// What comes from a connection.
pub(super) enum Event {
    /// A frame is written.
    Sent,
    /// A binary message, or empty for any other sign of life.
    Heard(Vec<u8>),
    /// It is gone.
    Closed,
}

impl Connection {
    pub(super) async fn open(url: &str, secret: Option<&Secret>) -> Result<Self, Error> {
        let mut request = url.into_client_request()?;
        if let Some(secret) = secret {
            let value = HeaderValue::from_str(&format!("Bearer {}", secret.expose()))?;
            request.headers_mut().insert("authorization", value);
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(ANSWER_BYTES_MAX))
            .max_frame_size(Some(ANSWER_BYTES_MAX));
        let (socket, _) = tokio_tungstenite::connect_async_with_config(request, Some(config), true).await?;
        Ok(Self { socket, waiting: VecDeque::new(), flushing: false, frames: 0 })
    }

    pub(super) fn frame(&mut self, bytes: Vec<u8>) {
        self.frames += 1;
        self.waiting.push_back(Message::Binary(bytes.into()));
    }

    pub(super) fn ping(&mut self) {
        self.waiting.push_back(Message::Ping(Vec::new().into()));
    }

    /// Goes on writing and reading; the next thing that came of it. Losing the returned future loses nothing.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        match self.poll_write(cx) {
            Poll::Ready(Ok(())) => return Poll::Ready(Event::Sent),
            Poll::Ready(Err(_)) => return Poll::Ready(Event::Closed),
            Poll::Pending => {}
        }
        match std::task::ready!(self.socket.poll_next_unpin(cx)) {
            Some(Ok(Message::Binary(bytes))) => Poll::Ready(Event::Heard(bytes.to_vec())),
            Some(Ok(Message::Close(_)) | Err(_)) | None => Poll::Ready(Event::Closed),
            Some(Ok(_)) => Poll::Ready(Event::Heard(Vec::new())),
        }
    }

    /// Ready when all that waited is written and a frame was among it.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while let Some(message) = self.waiting.front() {
            std::task::ready!(Pin::new(&mut self.socket).poll_ready(cx))?;
            let message = message.clone();
            Pin::new(&mut self.socket).start_send(message)?;
            self.waiting.pop_front();
            self.flushing = true;
        }
        if !self.flushing {
            return Poll::Pending;
        }
        std::task::ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.flushing = false;
        match std::mem::take(&mut self.frames) {
            0 => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        }
    }
}
