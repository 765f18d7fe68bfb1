//! Servers of others, as real ones on loopback that misbehave when they are told to.

mod embeddings;
mod llm;
mod speech;
mod webhook;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Response, StatusCode, header};
use futures_util::stream;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use embeddings::{EmbeddingsMode, EmbeddingsStandIn};
pub use llm::{LlmMode, LlmStandIn};
pub use speech::{
    SpeechScript, SpeechScriptError, SpeechSession, SpeechStandIn, Step, StepAwait, StepClose, StepRefusal,
};
pub use webhook::{SinkDelivery, SinkMode, WebhookSink};

/// Pieces in which a slow answer comes.
const PIECES: usize = 10;

/// A running server. Takes no more connections once dropped.
struct Served {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Served {
    /// On `address`, whose port may be 0.
    async fn start(address: SocketAddr, router: Router) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, task })
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn answer(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// `text` in pieces, the last one after `over`.
fn slowly(text: String, over: Duration) -> Body {
    let size = text.len().div_ceil(PIECES).max(1);
    let pieces: Vec<_> = text.into_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
    let pause = over / u32::try_from(PIECES).unwrap_or(1);
    let paced = stream::unfold(pieces.into_iter(), move |mut pieces| async move {
        let piece = pieces.next()?;
        tokio::time::sleep(pause).await;
        Some((Ok::<_, Infallible>(piece), pieces))
    });
    Body::from_stream(paced)
}

/// The first half of `text`, and then the connection is closed.
fn broken_off(text: &str) -> Body {
    let half = Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]);
    let broken = stream::unfold(Some(half), |half| async move {
        match half {
            Some(half) => Some((Ok(half), None)),
            None => {
                // While the body is not ready what is written goes out.
                tokio::time::sleep(Duration::from_millis(1)).await;
                Some((Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)), None))
            }
        }
    });
    Body::from_stream(broken)
}
