//! One HTTP/1.1 connection on a session worker: listening sockets and health are answered here, everything else runs on
//! the background runtime, so that no listing or search holds a session worker.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use tower::ServiceExt;

use crate::runtimes::Serve;

/// Bytes of one connection's read buffer while it speaks HTTP; also the largest request head. hyper's least is 8 KiB.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Serves connections with one router.
#[derive(Clone)]
pub(crate) struct HttpServe {
    router: Router,
    head_wait: Duration,
}

impl HttpServe {
    /// `head_wait`: how long a request's head may take (`limits.request_head_wait`).
    pub(crate) fn new(router: Router, head_wait: Duration) -> Self {
        Self { router, head_wait }
    }
}

impl Serve for HttpServe {
    async fn serve(self, stream: TcpStream) {
        let service = TowerToHyperService::new(self.router);
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.head_wait).max_buf_size(HEAD_BYTES_MAX);
        let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
        if let Err(error) = connection.await {
            tracing::debug!(%error, "serve a connection");
        }
    }
}

/// Runs requests for `inner` on another runtime, at most `limit` at once.
#[derive(Clone)]
pub(crate) struct Offload {
    inner: Router,
    runtime: Handle,
    places: Arc<Semaphore>,
    deadline: Duration,
}

impl Offload {
    /// Requests beyond `limit` are answered 503; one that takes longer than `deadline` is answered 504.
    pub(crate) fn new(inner: Router, runtime: Handle, limit: usize, deadline: Duration) -> Self {
        Self { inner, runtime, places: Arc::new(Semaphore::new(limit)), deadline }
    }

    /// Answers one request. Cancellation, which is what a client that leaves causes, ends it and frees its place.
    pub(crate) async fn call(self, request: Request<Body>) -> Result<Response, Infallible> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            metrics::counter!("auricle_requests_refused_total", "reason" => "full").increment(1);
            return Ok(unavailable("too many requests at once; try again in a second"));
        };
        let (inner, deadline) = (self.inner, self.deadline);
        let answer = AbortOnDropHandle::new(self.runtime.spawn(async move {
            let _place = place;
            tokio::time::timeout(deadline, inner.oneshot(request)).await
        }));
        Ok(match answer.await {
            Ok(Ok(Ok(response))) => response,
            Ok(Err(_late)) => detail(StatusCode::GATEWAY_TIMEOUT, "the request took too long"),
            Err(_panicked) => detail(StatusCode::INTERNAL_SERVER_ERROR, "internal error"),
        })
    }
}

/// 503 with `Retry-After` of a second, before any I/O.
pub(crate) fn unavailable(text: &'static str) -> Response {
    unavailable_for(text, Duration::from_secs(1))
}

/// The same with another time, in whole seconds, rounded up.
pub(crate) fn unavailable_for(text: &'static str, retry_after: Duration) -> Response {
    let mut response = detail(StatusCode::SERVICE_UNAVAILABLE, text);
    let secs = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(secs.max(1)));
    response
}

fn detail(status: StatusCode, text: &'static str) -> Response {
    let body = format!("{{\"detail\":\"{text}\"}}");
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
