//! The only reader of clocks in the server.

use std::time::Instant;

use auricle_core::UnixMicros;
use auricle_core::session::Now;

/// Reads both clocks. Monotonic time comes from tokio, so that tests with a paused clock work.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// Wall-clock time, for records.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn wall(self) -> UnixMicros {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        UnixMicros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// Monotonic time, for timeouts.
    pub fn mono(self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// One moment on both.
    pub fn now(self) -> Now {
        Now { mono: self.mono(), wall: self.wall() }
    }
}

impl auricle_process::Clock for SystemClock {
    fn wall(&self) -> UnixMicros {
        (*self).wall()
    }

    fn now(&self) -> Instant {
        (*self).mono()
    }
}

/// Monotonic time off any runtime (probe, watchdog, workers' stamps).
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}
