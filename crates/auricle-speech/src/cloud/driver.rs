//! Drives one stream's connection. Decides nothing.

use std::future::{pending, poll_fn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::backlog::Backlog;
use super::machine::Machine;
use super::refusal::broken;
use super::socket::{Happened, OpenError, Socket};
use super::{CloudNumbers, Outgoing};
use crate::EventSender;

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// What the session's thread and the connection share.
pub(super) struct Shared {
    backlog: Mutex<Backlog>,
    /// There may be something to send, or the stream was dropped.
    pub(super) wake: Notify,
    pub(super) dropped: AtomicBool,
}

impl Shared {
    pub(super) fn new(backlog: Backlog) -> Arc<Self> {
        let (backlog, wake, dropped) = (Mutex::new(backlog), Notify::new(), AtomicBool::new(false));
        Arc::new(Self { backlog, wake, dropped })
    }

    pub(super) fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// One stream's connection.
pub(super) struct Driver {
    pub(super) engine: &'static str,
    pub(super) machine: Machine,
    pub(super) numbers: CloudNumbers,
    pub(super) shared: Arc<Shared>,
    pub(super) events: EventSender,
}

impl Driver {
    /// Until the stream has ended or is dropped. Connects when there is audio: a service counts the time that it waits.
    pub(super) async fn run(mut self) {
        while !self.shared.backlog().is_wanted() && !self.is_left() {
            self.woken().await;
        }
        let nothing = self.shared.backlog().accepted() == 0;
        if self.is_left() {
            return;
        }
        if nothing {
            let _ = self.events.send(crate::Event::Finished).await;
            return;
        }
        metrics::counter!("auricle_cloud_streams_total", "engine" => self.engine).increment(1);
        if let Some(socket) = self.connect().await {
            let _counted = Counted::new(self.engine);
            self.machine.connected(now());
            self.talk(socket).await;
        }
        self.shared.backlog().close();
        self.tell_rest().await;
    }

    /// None if it failed or the stream was dropped meanwhile.
    async fn connect(&mut self) -> Option<Socket> {
        let request = self.machine.adapter().request().clone();
        let opened = {
            let open = tokio::time::timeout(self.numbers.connect_max, Socket::open(&request));
            tokio::pin!(open);
            loop {
                tokio::select! {
                    opened = &mut open => break opened,
                    () = self.woken() => if self.is_left() { return None },
                }
            }
        };
        let (reason, what) = match opened {
            Ok(Ok(socket)) => return Some(socket),
            Ok(Err(OpenError::Refused(refusal))) => {
                self.machine.refused(&refusal);
                return None;
            }
            Ok(Err(OpenError::Failed(what))) => ("unreachable", what),
            Err(_) => {
                ("timeout", format!("did not answer the connection within {:?}", self.numbers.connect_max))
            }
        };
        self.machine.fail(reason, broken(self.engine, &what));
        None
    }

    async fn talk(&mut self, mut socket: Socket) {
        let sent_bytes = metrics::counter!("auricle_cloud_sent_bytes_total", "engine" => self.engine);
        let mut written_at = now();
        while !self.machine.is_over() && !self.is_left() {
            if socket.is_idle() {
                written_at = now();
                let next = self.machine.next(&mut self.shared.backlog(), written_at);
                if let Some(message) = next {
                    if let Outgoing::Audio(bytes) = &message {
                        sent_bytes.increment(bytes.len() as u64);
                    }
                    socket.write(message);
                }
            }
            let telling = self.machine.has_event();
            let stalled = (!socket.is_idle()).then(|| written_at + self.numbers.silent_max);
            let wake = [self.machine.wake(now()), stalled].into_iter().flatten().min();
            tokio::select! {
                biased;
                permit = self.events.reserve(), if telling => match (permit, self.machine.event()) {
                    (Ok(permit), Some(event)) => permit.send(event),
                    _ => break,
                },
                // Nothing more is read while the session has not taken what was: its channel is the bound.
                happened = poll_fn(|cx| socket.poll(!telling, cx)) => match happened {
                    Happened::Written => {}
                    Happened::Heard(incoming) => self.machine.heard(incoming, now()),
                },
                () = self.shared.wake.notified() => {}
                () = self.events.closed() => break,
                () = sleep_until(wake) => {
                    self.machine.on_time(now(), !telling);
                    if stalled.is_some_and(|at| now() >= at) {
                        let what = format!("has taken nothing for {:?}", self.numbers.silent_max);
                        self.machine.fail("stalled", broken(self.engine, &what));
                    }
                }
            }
        }
        // Beside what the session is still to be told.
        tokio::spawn(socket.close(GOODBYE));
    }

    /// What the session has not been told when the connection ended.
    async fn tell_rest(&mut self) {
        while let Some(event) = self.machine.event() {
            if self.is_left() || self.events.send(event).await.is_err() {
                return;
            }
        }
    }

    /// Whether nobody waits for words any more.
    fn is_left(&self) -> bool {
        self.shared.is_dropped() || self.events.is_closed()
    }

    async fn woken(&self) {
        tokio::select! {
            () = self.shared.wake.notified() => {}
            () = self.events.closed() => {}
        }
    }
}

/// An open connection in the metrics, however it ends.
struct Counted(metrics::Gauge);

impl Counted {
    fn new(engine: &'static str) -> Self {
        let open = metrics::gauge!("auricle_cloud_streams_open", "engine" => engine);
        open.increment(1.0);
        Self(open)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}

pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
