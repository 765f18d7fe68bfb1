//! A body that is made while it is sent, by a thread beside the background runtime.
//!
//! Bounded: a few pieces wait for the client, then the making waits, for each piece no longer than it is told. What breaks off is told
//! to the body, so that the response does not end as if it were whole.

use std::io::{self, Write};
use std::time::Duration;

use axum::body::{Body, Bytes};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Bytes of one piece of the body.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that wait for the client. Full: the making waits.
const PIECES_MAX: usize = 4;

/// What the maker writes to; it flushes at the end.
pub(super) struct Pieces {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    handle: Handle,
    piece_max: Duration,
    gathered: Vec<u8>,
}

/// The body that `make` writes. A client that takes no piece for `piece_max` ends the making.
pub(super) fn body(
    piece_max: Duration,
    make: impl FnOnce(Pieces, &Handle) -> io::Result<()> + Send + 'static,
) -> Body {
    let (pieces, mut ready) = mpsc::channel::<io::Result<Bytes>>(PIECES_MAX);
    let (handle, broken) = (Handle::current(), pieces.clone());
    tokio::task::spawn_blocking(move || {
        let gathered = Vec::with_capacity(PIECE_BYTES);
        let out = Pieces { pieces, handle: handle.clone(), piece_max, gathered };
        if let Err(error) = make(out, &handle) {
            tracing::warn!(%error, "a download broke off");
            let _ = broken.try_send(Err(io::Error::other("it broke off")));
        }
    });
    Body::from_stream(futures_util::stream::poll_fn(move |context| ready.poll_recv(context)))
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.gathered, Vec::with_capacity(PIECE_BYTES));
        let sent = self.handle.block_on(async {
            tokio::time::timeout(self.piece_max, self.pieces.send(Ok(piece.into()))).await
        });
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::Error::other("the client has gone")),
            Err(_) => Err(io::Error::other("the client does not read")),
        }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= PIECE_BYTES {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}
