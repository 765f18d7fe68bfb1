//! Asks `/livez` every 10 ms from a thread of its own, so that the load's tasks do not delay it.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::now;

const EVERY: Duration = Duration::from_millis(10);
/// A probe without an answer for this long is missed.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// How health answered.
#[derive(Serialize)]
pub(super) struct Health {
    pub(super) probes: u64,
    pub(super) missed: u64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    pub(super) max_ms: f64,
}

/// A running prober.
pub(super) struct Prober {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Histogram<u64>, u64)>,
}

impl Prober {
    /// Asks the probe port at `address` until it is stopped.
    pub(super) fn start(address: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut times = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).expect("valid bounds");
            let mut missed = 0;
            while !stopped.load(Ordering::Relaxed) {
                let begun = now();
                let answered =
                    ask(&address, "/livez").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"));
                let took = now().duration_since(begun);
                if answered {
                    times.saturating_record(took.as_micros() as u64);
                } else {
                    missed += 1;
                }
                std::thread::sleep(EVERY.saturating_sub(took));
            }
            (times, missed)
        });
        Self { stop, thread }
    }

    pub(super) fn stop(self) -> Health {
        self.stop.store(true, Ordering::Relaxed);
        let (times, missed) = self.thread.join().unwrap_or_else(|_| (Histogram::new(3).expect("valid"), 0));
        let ms = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1e3;
        Health {
            probes: times.len() + missed,
            missed,
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            p999_ms: ms(0.999),
            max_ms: times.max() as f64 / 1e3,
        }
    }
}

/// One request to the probe port: the whole answer.
pub(super) fn ask(address: &str, path: &str) -> Option<String> {
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(WAIT_MAX)).ok()?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n").as_bytes())
        .ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    String::from_utf8(answer).ok()
}
