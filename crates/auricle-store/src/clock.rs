//! The only reader of clocks in this crate: how long the drivers' own waits and commits took. Nothing that decides
//! what is stored uses it.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Now, on the monotonic clock.
#[expect(clippy::disallowed_methods, reason = "the drivers of this crate measure their own waits here")]
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}

/// Milliseconds since the first call, for stamps kept in atomics.
pub(crate) fn stamp_ms() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let now = monotonic();
    let elapsed: Duration = now.saturating_duration_since(*FIRST.get_or_init(|| now));
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
