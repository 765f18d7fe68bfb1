//! Asks a health endpoint at a fixed pace, from a thread of its own, above all others where that is permitted, so that nothing
//! else that is measured delays it: whoever probes in life is another process on another machine.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::now;

/// Above what is measured. Needs privilege; done without if refused.
const PROBER_NICE: i32 = -10;

/// How health answered.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Health {
    pub(super) probes: u64,
    /// Not answered with 200 in time.
    pub(super) missed: u64,
    /// The longest run of missed ones.
    pub(super) missed_in_a_row: u64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    pub(super) max_ms: f64,
}

/// A running prober.
pub(super) struct Prober {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Health>>,
}

impl Prober {
    /// Asks `GET path` every `every`, and takes an answer that comes within `wait`.
    pub(super) fn start(address: SocketAddr, path: &'static str, every: Duration, wait: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let _ = rustix::process::setpriority_process(None, PROBER_NICE);
            probe(address, path, every, wait, &stopped)
        });
        Self { stop, thread: Some(thread) }
    }

    /// What it has seen. Waits for the probe under way.
    pub(super) fn stop(mut self) -> Health {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Health::default() };
        thread.thread().unpark();
        thread.join().unwrap_or_default()
    }
}

fn probe(address: SocketAddr, path: &str, every: Duration, wait: Duration, stop: &AtomicBool) -> Health {
    let mut times = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).expect("valid bounds");
    let (mut missed, mut in_a_row, mut in_a_row_max) = (0, 0, 0);
    let mut due = now();
    while !stop.load(Ordering::Relaxed) {
        let begun = now();
        match ask(address, path, wait).filter(|answer| answer.starts_with("HTTP/1.1 200")) {
            Some(_) => {
                times.saturating_record(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
                in_a_row = 0;
            }
            None => {
                missed += 1;
                in_a_row += 1;
                in_a_row_max = in_a_row_max.max(in_a_row);
            }
        }
        // Beats that were slept through are not made up for.
        due = (due + every).max(now());
        while !stop.load(Ordering::Relaxed) && now() < due {
            std::thread::park_timeout(due.saturating_duration_since(now()));
        }
    }
    let ms = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1e3;
    Health {
        probes: times.len() + missed,
        missed,
        missed_in_a_row: in_a_row_max,
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        p999_ms: ms(0.999),
        max_ms: times.max() as f64 / 1e3,
    }
}

/// One request: the whole answer, if it comes within `wait`, of connecting, asking and reading together.
pub(super) fn ask(address: SocketAddr, path: &str, wait: Duration) -> Option<String> {
    let deadline: Instant = now() + wait;
    let left = || Some(deadline.saturating_duration_since(now())).filter(|left| !left.is_zero());
    let mut stream = TcpStream::connect_timeout(&address, left()?).ok()?;
    stream.set_write_timeout(left()).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    let mut piece = [0; 4_096];
    loop {
        stream.set_read_timeout(Some(left()?)).ok()?;
        match stream.read(&mut piece) {
            Ok(0) => return String::from_utf8(answer).ok(),
            Ok(read) => answer.extend_from_slice(&piece[..read]),
            Err(_) => return None,
        }
    }
}
