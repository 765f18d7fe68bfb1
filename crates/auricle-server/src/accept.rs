//! Accepting connections on a thread of its own and handing each to the least busy session worker that is not stuck.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::runtimes::SessionWorker;

/// A worker silent for longer than this gets no new connections while another is there.
const STUCK_AFTER: Duration = Duration::from_secs(2);
/// Wait after the system refused to accept (out of file descriptors, mostly).
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Starts the accepting thread. It ends, closing the listener, when `stop` is cancelled.
pub(crate) fn start(
    listener: TcpListener,
    workers: Arc<[SessionWorker]>,
    connections_max: usize,
    stop: CancellationToken,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    std::thread::Builder::new()
        .name("accept".into())
        .spawn(move || runtime.block_on(accept(listener, workers, connections_max, stop)))
}

async fn accept(
    listener: TcpListener,
    workers: Arc<[SessionWorker]>,
    connections_max: usize,
    stop: CancellationToken,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "listen for connections"),
    };
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _peer)) => hand_over(stream, &workers, connections_max),
            Err(error) => {
                metrics::counter!("auricle_accept_failures_total").increment(1);
                tracing::warn!(%error, "accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

fn hand_over(stream: tokio::net::TcpStream, workers: &[SessionWorker], connections_max: usize) {
    let open: usize = workers.iter().map(SessionWorker::load).sum();
    if open >= connections_max {
        metrics::counter!("auricle_connections_refused_total", "reason" => "full").increment(1);
        return;
    }
    // Nagle's algorithm would hold small messages back for up to 40 ms.
    let _ = stream.set_nodelay(true);
    let Ok(stream) = stream.into_std() else { return };
    let healthy = workers.iter().filter(|worker| worker.stalled_for() < STUCK_AFTER);
    let worker = healthy.min_by_key(|w| w.load()).or_else(|| workers.iter().min_by_key(|w| w.load()));
    if !worker.is_some_and(|worker| worker.hand(stream)) {
        metrics::counter!("auricle_connections_refused_total", "reason" => "worker_full").increment(1);
    }
}
