//! What waits to be written to one client, bounded by bytes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use auricle_core::Share;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::Sink;

/// Messages on their way to one client. Full: the caller closes the socket, since its client does not read.
#[derive(Debug)]
pub(super) struct Outbox {
    waiting: VecDeque<Message>,
    bytes: usize,
    bytes_max: usize,
    unflushed: bool,
    closing: bool,
    /// `bytes`, and what the socket has not sent yet.
    held: Share,
}

impl Outbox {
    pub(super) fn new(bytes_max: usize, held: Share) -> Self {
        Self { waiting: VecDeque::new(), bytes: 0, bytes_max, unflushed: false, closing: false, held }
    }

    /// Queues a text. False if it does not fit: nothing was queued.
    pub(super) fn text(&mut self, text: impl Into<Utf8Bytes>) -> bool {
        let text = text.into();
        // Refused is who is behind already: a record with pictures may be over the bound by itself, and is no fault of the
        // client's. So there may wait the bound and one message.
        if self.bytes >= self.bytes_max {
            return false;
        }
        self.bytes += text.len();
        self.held.set(self.held.bytes() + text.len());
        self.waiting.push_back(Message::Text(text));
        true
    }

    /// Whether less than half of the bound waits, and nothing is to close the connection.
    pub(super) fn has_room_to_spare(&self) -> bool {
        self.bytes < self.bytes_max / 2 && !self.closing
    }

    /// Queues the close frame, after what is already there.
    pub(super) fn close(&mut self, code: u16, reason: &'static str) {
        self.closing = true;
        self.waiting
            .push_back(Message::Close(Some(CloseFrame { code, reason: Utf8Bytes::from_static(reason) })));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && !self.unflushed
    }

    /// Writes what the socket takes. `Ready(Err)` when the connection is gone; `Ready(Ok)` when all is written.
    pub(super) fn poll_write(
        &mut self,
        socket: &mut WebSocket,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), axum::Error>> {
        let mut socket = Pin::new(socket);
        while !self.waiting.is_empty() {
            match socket.as_mut().poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
            let message = self.waiting.pop_front().expect("not empty");
            if let Message::Text(text) = &message {
                self.bytes -= text.len();
            }
            self.unflushed = true;
            socket.as_mut().start_send(message)?;
        }
        if self.unflushed {
            match socket.poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    self.unflushed = false;
                    self.held.set(self.bytes);
                }
                other => return other,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_outbox_refuses_but_a_large_message_behind_a_small_one_is_no_reason() {
        let account = auricle_core::Account::default();
        let mut outbox = Outbox::new(10, account.share());
        assert!(outbox.text("ping"));
        assert!(outbox.text("longer than the bound"));
        assert!(!outbox.text("x"));
        assert!(!outbox.is_empty());
        assert_eq!(account.bytes(), "pinglonger than the bound".len());
        drop(outbox);
        assert_eq!(account.bytes(), 0);
    }
}
