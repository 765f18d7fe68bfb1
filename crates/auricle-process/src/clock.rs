//! Where the loops take their time from.

use std::time::Instant;

use auricle_core::UnixMicros;

/// Reads both clocks.
pub trait Clock: Send + Sync + 'static {
    /// For records, leases and `run_at`.
    fn wall(&self) -> UnixMicros;
    /// For timeouts.
    fn now(&self) -> Instant;
}
