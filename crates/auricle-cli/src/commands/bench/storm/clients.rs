//! Clients that do not back off.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use auricle_wire::event::{self, Event, ServerMessage};
use futures_util::StreamExt;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

use super::super::load::connect;

/// Clients that connect at once before the storm, and that are refused at once.
const AT_ONCE: usize = 32;
/// Tries of a client before the storm: it may be told to wait.
const OPENING_TRIES: usize = 100;
/// A server that says nothing for this long does not answer.
const ANSWER_MAX: Duration = Duration::from_secs(20);

type Socket = WebSocketStream<TcpStream>;

/// How they came back, those with a valid token.
#[derive(Serialize)]
pub(super) struct Return {
    /// From the drop until the last was back and served.
    pub(super) secs: f64,
    pub(super) p50_secs: f64,
    pub(super) p99_secs: f64,
    pub(super) missing: usize,
    /// Of all clients.
    pub(super) attempts: u64,
    pub(super) refused: u64,
    /// Connections that broke without an answer.
    pub(super) failed: u64,
    pub(super) retry_after_secs_max: u64,
}

/// What came of one try.
enum Tried {
    In(Box<Socket>),
    /// 503.
    Refused,
    /// The upgrade was completed and then closed.
    Denied,
    Failed,
}

/// Who is back, and who has a bad token and goes on trying. All leave when this is dropped.
pub(super) struct Returned {
    _sockets: Vec<Socket>,
    _lost: tokio::task::JoinSet<Option<(Box<Socket>, Instant)>>,
}

#[derive(Default)]
struct Tally {
    attempts: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    retry_after_max: AtomicU64,
}

/// All clients.
pub(super) struct Clients {
    url: String,
    count: usize,
    expired: usize,
    tally: Tally,
}

impl Clients {
    pub(super) fn new(url: &str, count: usize, expired: usize) -> Self {
        Self { url: url.to_owned(), count, expired, tally: Tally::default() }
    }

    fn valid(&self) -> usize {
        self.count - self.expired
    }

    fn token(&self, index: usize) -> String {
        if index < self.valid() {
            format!("{}client-{index}", super::KEY)
        } else {
            format!("auk_expired-{index}")
        }
    }

    /// Connects all, at the pace that the server allows. Those whose tokens will have expired by the storm come in as others.
    pub(super) async fn open(&self, key: &str) -> anyhow::Result<Vec<Socket>> {
        let opening = (0..self.count).map(async |index| {
            let token = format!("{key}client-{index}");
            for _ in 0..OPENING_TRIES {
                if let Tried::In(socket) = self.attempt(&token).await {
                    return Some(*socket);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            None
        });
        let opened: Vec<_> = futures_util::stream::iter(opening).buffer_unordered(AT_ONCE).collect().await;
        opened
            .into_iter()
            .collect::<Option<_>>()
            .context("the server takes fewer sessions than there are clients")
    }

    /// Drops all at once; each returns on its timer until it is in, or `longest` has passed.
    pub(super) async fn storm(
        self: std::sync::Arc<Self>,
        connected: Vec<Socket>,
        retry: Duration,
        spread: Duration,
        longest: Duration,
    ) -> (Return, Returned) {
        for counter in
            [&self.tally.attempts, &self.tally.refused, &self.tally.failed, &self.tally.retry_after_max]
        {
            counter.store(0, Ordering::Relaxed);
        }
        for socket in &connected {
            // Reset, not closed: as when a machine or a network dies.
            let _ = socket.get_ref().set_zero_linger();
        }
        drop(connected);
        let dropped_at = Instant::now();
        let give_up = dropped_at + longest;
        // Bounded by the clients.
        let (mut coming, mut lost) = (tokio::task::JoinSet::new(), tokio::task::JoinSet::new());
        for index in 0..self.count {
            // Spread evenly, and not in order of their numbers, so that those with bad tokens stand among the others.
            let place = index * 7_919 % self.count.max(1);
            let first = dropped_at + spread.mul_f64(place as f64 / self.count.max(1) as f64);
            let task = come_back(std::sync::Arc::clone(&self), index, first, retry, give_up);
            if index < self.valid() {
                coming.spawn(task)
            } else {
                lost.spawn(task)
            };
        }
        let (mut times, mut sockets) = (Vec::new(), Vec::new());
        while let Some(back) = coming.join_next().await {
            if let Ok(Some((socket, at))) = back {
                times.push(at - dropped_at);
                sockets.push(*socket);
            }
        }
        (self.summary(&times), Returned { _sockets: sockets, _lost: lost })
    }

    fn summary(&self, times: &[Duration]) -> Return {
        let mut all = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3).expect("valid bounds");
        times.iter().for_each(|time| all.saturating_record(time.as_micros() as u64));
        let secs = |quantile: f64| all.value_at_quantile(quantile) as f64 / 1e6;
        let tally = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Return {
            secs: all.max() as f64 / 1e6,
            p50_secs: secs(0.5),
            p99_secs: secs(0.99),
            missing: self.valid() - times.len(),
            attempts: tally(&self.tally.attempts),
            refused: tally(&self.tally.refused),
            failed: tally(&self.tally.failed),
            retry_after_secs_max: tally(&self.tally.retry_after_max),
        }
    }

    /// Tries `times` times; how many of them were refused.
    pub(super) async fn be_refused(&self, token: &str, times: usize) -> usize {
        let tries = (0..times).map(async |_| matches!(self.attempt(token).await, Tried::Refused));
        count(tries).await
    }

    /// Those with bad tokens try `times` times, in turn; how many of the tries were denied.
    pub(super) async fn be_denied(&self, times: usize) -> usize {
        let token = |index: usize| self.token(self.valid() + index % self.expired.max(1));
        let tries = (0..times).map(async |index| matches!(self.attempt(&token(index)).await, Tried::Denied));
        count(tries).await
    }

    async fn attempt(&self, token: &str) -> Tried {
        self.tally.attempts.fetch_add(1, Ordering::Relaxed);
        let tried = tokio::time::timeout(ANSWER_MAX, self.attempt_once(token)).await.unwrap_or(Tried::Failed);
        match tried {
            Tried::Refused => self.tally.refused.fetch_add(1, Ordering::Relaxed),
            Tried::Failed => self.tally.failed.fetch_add(1, Ordering::Relaxed),
            Tried::In(_) | Tried::Denied => 0,
        };
        tried
    }

    async fn attempt_once(&self, token: &str) -> Tried {
        let mut socket = match connect(&self.url, Some(token)).await {
            Ok(socket) => socket,
            Err(tungstenite::Error::Http(answer)) if answer.status() == 503 => {
                let after =
                    answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
                self.tally.retry_after_max.fetch_max(after.unwrap_or(0), Ordering::Relaxed);
                return Tried::Refused;
            }
            Err(_) => return Tried::Failed,
        };
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    if let Ok(ServerMessage::Event(Event::ServiceStatus { status, .. })) = event::parse(&text)
                        && status == "ready"
                    {
                        return Tried::In(Box::new(socket));
                    }
                }
                Some(Ok(Message::Close(_))) => return Tried::Denied,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Tried::Failed,
            }
        }
    }
}

/// How many of the tries are as wanted, `AT_ONCE` at once.
async fn count(tries: impl Iterator<Item = impl Future<Output = bool>>) -> usize {
    let tries = futures_util::stream::iter(tries).buffer_unordered(AT_ONCE);
    tries.filter(|wanted| std::future::ready(*wanted)).count().await
}

/// One client's timer. `None` if it was not back in time.
async fn come_back(
    clients: std::sync::Arc<Clients>,
    index: usize,
    first: Instant,
    retry: Duration,
    give_up: Instant,
) -> Option<(Box<Socket>, Instant)> {
    let token = clients.token(index);
    let mut timer = tokio::time::interval_at(first, retry);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        if timer.tick().await > give_up {
            return None;
        }
        if let Tried::In(socket) = clients.attempt(&token).await {
            return Some((socket, Instant::now()));
        }
    }
}
