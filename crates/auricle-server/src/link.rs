//! The listening half's links to the pusher: one for each session, with one breaker in front of all.
//!
//! Owns: the sockets of links and what the process knows of the pusher's health. Decides nothing: see
//! `auricle_core::link` and `auricle_core::breaker`. Invariant: a session hands over and goes on; it never waits for a link,
//! and a link's end is no news to it.

mod connection;
mod driver;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use auricle_core::breaker::{Breaker, BreakerNumbers, BreakerPermit, BreakerState, Outcome, Rejected};
use auricle_core::link::{Input, LinkConfig, LinkState};
use auricle_core::{Account, Limits, Share, UserId};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio_util::task::TaskTracker;

use crate::clock::monotonic;
use crate::config::{PusherConfig, PusherProtocol, Secret};

/// What all links of the process share.
pub(crate) struct Links {
    /// `ws://…/v1/trigger/listen`, without its query.
    url: String,
    secret: Option<Secret>,
    protocol: PusherProtocol,
    audio: bool,
    limits: Arc<Limits>,
    runtime: Handle,
    /// Links that go on after their session's end.
    tail: TaskTracker,
    breaker: Mutex<Breaker>,
    /// Links that have a connection, and links that try for one.
    connected: AtomicUsize,
    trying: AtomicUsize,
    /// Audio that waits in all links, from [`LinkHandle::give`] on.
    audio_held: Account,
    /// Told when the pusher's health may have changed.
    changed: Arc<dyn Fn() + Send + Sync>,
    /// Notified when the pusher says that a record is made: its effects may be here to deliver.
    recorded: Arc<Notify>,
}

impl Links {
    /// Links to the pusher at `config.url`, which run on `runtime`. `None` without a URL. `changed` is told when health may
    /// have changed, `recorded` when a record was made.
    pub(crate) fn new(
        config: &PusherConfig,
        limits: Arc<Limits>,
        (runtime, tail): (Handle, TaskTracker),
        changed: Arc<dyn Fn() + Send + Sync>,
        recorded: Arc<Notify>,
    ) -> Option<Arc<Self>> {
        // Source: pusher-and-processing 1.1.
        let base = websocket(config.url.as_deref()?.trim_end_matches('/'));
        let breaker = Breaker::new(BreakerNumbers {
            failures: limits.breaker_failures,
            window: limits.breaker_window,
            open_for: limits.breaker_open_for,
        });
        Some(Arc::new(Self {
            url: format!("{base}/v1/trigger/listen"),
            secret: config.secret.clone(),
            protocol: config.protocol,
            audio: config.audio,
            limits,
            runtime,
            tail,
            breaker: Mutex::new(breaker),
            connected: AtomicUsize::new(0),
            trying: AtomicUsize::new(0),
            audio_held: Account::default(),
            changed,
            recorded,
        }))
    }

    /// A link for one session. It ends when the handle is dropped and what waits is sent.
    pub(crate) fn open(self: &Arc<Self>, user: &UserId, sample_rate_hz: u32) -> LinkHandle {
        let (inputs, inbox) = mpsc::channel(self.limits.link_inputs_max);
        let config = LinkConfig {
            sample_rate_hz,
            audio: self.audio,
            // A plain Omi pusher runs again whatever it is asked again.
            resend: self.protocol == PusherProtocol::Auricle,
        };
        let driver = driver::Driver::new(Arc::clone(self), config, user.clone(), inbox);
        self.runtime.spawn(self.tail.track_future(driver.run()));
        LinkHandle { links: Arc::clone(self), inputs }
    }

    /// Whether requests can be expected to arrive: the breaker is closed, and not every link is without its connection.
    pub(crate) fn is_healthy(&self) -> bool {
        let closed = self.breaker().state(monotonic()) == BreakerState::Closed;
        let (connected, trying) =
            (self.connected.load(Ordering::Relaxed), self.trying.load(Ordering::Relaxed));
        closed && (connected > 0 || trying == 0)
    }

    /// For `/readyz`: what a person would ask.
    pub(crate) fn describe(&self) -> serde_json::Value {
        serde_json::json!({
            "breaker": breaker_name(self.breaker().state(monotonic())),
            "connected": self.connected.load(Ordering::Relaxed),
            "trying": self.trying.load(Ordering::Relaxed),
        })
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the breaker.
    fn ask(self: &Arc<Self>) -> Result<Permit, Rejected> {
        let asked = self.breaker().ask(monotonic());
        self.publish();
        match asked {
            Ok(permit) => Ok(Permit { links: Arc::clone(self), permit: Some(permit) }),
            Err(rejected) => {
                metrics::counter!("auricle_breaker_rejections_total", "name" => "pusher").increment(1);
                Err(rejected)
            }
        }
    }

    fn publish(&self) {
        let state = match self.breaker().state(monotonic()) {
            BreakerState::Closed => 0.0,
            BreakerState::Open => 1.0,
            BreakerState::HalfOpen => 2.0,
        };
        metrics::gauge!("auricle_breaker_state", "name" => "pusher").set(state);
    }

    /// Counts a link from one state to another.
    fn counts(&self, from: Option<LinkState>, to: Option<LinkState>) {
        let place = |state: Option<LinkState>| match state {
            Some(LinkState::Connected) => Some(&self.connected),
            Some(_) => Some(&self.trying),
            None => None,
        };
        if let Some(count) = place(from) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(count) = place(to) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let number = |count: &AtomicUsize| count.load(Ordering::Relaxed) as f64;
        metrics::gauge!("auricle_links", "state" => "connected").set(number(&self.connected));
        metrics::gauge!("auricle_links", "state" => "trying").set(number(&self.trying));
        if from == Some(LinkState::Connected) || !self.is_healthy() {
            (self.changed)();
        }
    }
}

/// A breaker's state, for people.
pub(crate) fn breaker_name(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Closed => "closed",
        BreakerState::Open => "open",
        BreakerState::HalfOpen => "half-open",
    }
}

/// The right to try once; whatever becomes of its holder, the breaker hears of it (L28).
struct Permit {
    links: Arc<Links>,
    permit: Option<BreakerPermit>,
}

impl Permit {
    fn settle(mut self, outcome: Outcome) {
        self.settle_now(outcome);
    }

    fn settle_now(&mut self, outcome: Outcome) {
        let Some(permit) = self.permit.take() else { return };
        let opened = self.links.breaker().settle(permit, outcome, monotonic());
        self.links.publish();
        if opened {
            tracing::warn!("the pusher cannot be reached: its work is done here until it can");
            (self.links.changed)();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.settle_now(Outcome::Unknown);
    }
}

/// A session's end of its link.
#[derive(Clone)]
pub(crate) struct LinkHandle {
    links: Arc<Links>,
    inputs: mpsc::Sender<Given>,
}

/// What a session hands over, and the share of the account that it holds on its way if it is audio.
struct Given {
    input: Input,
    held: Option<Share>,
}

impl LinkHandle {
    /// Whether anybody wants audio.
    pub(crate) fn wants_audio(&self) -> bool {
        self.links.audio
    }

    /// Hands something over. Never waits: a link that does not keep up loses it, counted.
    pub(crate) fn give(&self, input: Input) {
        let mut held = None;
        if let Input::Audio { pcm, .. } = &input {
            held = Some(self.links.audio_held.holding(pcm.len() * 2));
            if self.links.audio_held.bytes() > self.links.limits.link_audio_total_bytes_max {
                return dropped("audio", "total", pcm.len() as u64 * 2);
            }
        }
        if self.inputs.try_send(Given { input, held }).is_err() {
            dropped("input", "full", 1);
        }
    }
}

/// Where to connect to. Source: pusher-and-processing 1.1, which knows no other schemes than these two.
fn websocket(url: &str) -> String {
    url.strip_prefix("http").map_or_else(|| url.to_owned(), |rest| format!("ws{rest}"))
}

fn dropped(what: &'static str, reason: &'static str, amount: u64) {
    metrics::counter!("auricle_link_dropped_total", "what" => what, "reason" => reason).increment(amount);
}

#[cfg(test)]
mod tests {
    use auricle_core::UnixMicros;

    use super::*;

    #[test]
    fn only_the_scheme_of_an_address_is_another() {
        for (given, connected) in [
            ("http://pusher:8090", "ws://pusher:8090"),
            ("https://http-pusher", "wss://http-pusher"),
            ("ws://http-pusher", "ws://http-pusher"),
            ("wss://pusher/http", "wss://pusher/http"),
        ] {
            assert_eq!(websocket(given), connected);
        }
    }

    #[tokio::test]
    async fn p6_audio_counts_as_waiting_from_the_moment_it_is_given_until_its_link_is_gone() {
        let config = PusherConfig {
            // Nobody listens there.
            url: Some("http://127.0.0.1:9".into()),
            secret: None,
            protocol: PusherProtocol::Auricle,
            audio: true,
        };
        let limits = Limits {
            link_audio_total_bytes_max: 5_000,
            link_leave_max: std::time::Duration::from_millis(50),
            ..Limits::default()
        };
        let links = Links::new(
            &config,
            Arc::new(limits),
            (Handle::current(), TaskTracker::new()),
            Arc::new(|| {}),
            Arc::default(),
        )
        .unwrap();
        let handles = [links.open(&"ann".into(), 16_000), links.open(&"bob".into(), 16_000)];
        let give = |handle: &LinkHandle, samples: usize| {
            let pcm = vec![0; samples];
            handle.give(Input::Audio { conversation: "c".into(), at: UnixMicros(0), pcm });
        };
        // No link has had a chance to take anything yet.
        for handle in &handles {
            give(handle, 1_000);
            give(handle, 1_000);
        }
        assert_eq!(links.audio_held.bytes(), 4_000, "two were taken, two did not fit");
        tokio::task::yield_now().await;
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        assert_eq!(links.audio_held.bytes(), 4_000, "the links hold it now");
        give(&handles[1], 501);
        assert_eq!(links.audio_held.bytes(), 4_000);
        drop(handles);
        while links.audio_held.bytes() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}
