//! Background loops under a watchdog: a loop that returns, panics or stops beating is started again.
//!
//! A loop's future may be dropped at any await: what it does is claimed by lease or idempotent.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::clock::monotonic;
use crate::vitals::{Pulse, Role, Vitals};

/// Wait before a loop that ended is started again, so that one that fails at once does not spin.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// Makes a loop's future, given the heart that it must beat.
pub(crate) type MakeLoop = Box<dyn Fn(Arc<Pulse>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Starts loop `name` on `runtime` and keeps it going until `stop`: restarted when it ends or has not beaten for
/// `stall_max`. The watchdog itself runs on `watch`, which should not be the loop's own runtime's only thread.
pub(crate) fn supervise(
    name: &'static str,
    runtime: &Handle,
    watch: &Handle,
    vitals: &Vitals,
    stall_max: Duration,
    stop: CancellationToken,
    make: MakeLoop,
) {
    let pulse = vitals.add(name, Role::Loop, monotonic());
    let runtime = runtime.clone();
    watch.spawn(async move {
        loop {
            pulse.beat(monotonic());
            let task = runtime.spawn(make(Arc::clone(&pulse)));
            let abort = task.abort_handle();
            let why = tokio::select! {
                () = stop.cancelled() => {
                    abort.abort();
                    return;
                }
                ended = task => if ended.is_err_and(|e| e.is_panic()) { "panicked" } else { "ended" },
                () = stalled(&pulse, stall_max) => "stalled",
            };
            abort.abort();
            metrics::counter!("auricle_loop_restarts_total", "loop" => name, "reason" => why).increment(1);
            tracing::warn!(name, why, "restart a background loop");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RESTART_AFTER) => {}
            }
        }
    });
}

async fn stalled(pulse: &Pulse, stall_max: Duration) {
    loop {
        tokio::time::sleep(stall_max / 10).await;
        if pulse.age(monotonic()) >= stall_max {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Waits until `check` holds, for at most ten seconds.
    async fn eventually(check: impl Fn() -> bool) {
        for _ in 0..1_000 {
            if check() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it never came to hold");
    }

    fn run(
        body: impl Fn(usize, Arc<Pulse>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync + 'static,
    ) -> (Arc<AtomicUsize>, tokio::runtime::Runtime, CancellationToken) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let starts = Arc::new(AtomicUsize::new(0));
        let stop = CancellationToken::new();
        let counted = Arc::clone(&starts);
        let handle = runtime.handle().clone();
        supervise(
            "test",
            &handle,
            &handle,
            &Vitals::new(monotonic()),
            Duration::from_millis(200),
            stop.clone(),
            Box::new(move |pulse| body(counted.fetch_add(1, Ordering::SeqCst), pulse)),
        );
        (starts, runtime, stop)
    }

    #[test]
    fn a_parked_loop_is_restarted() {
        let (starts, runtime, _stop) = run(|_, _| Box::pin(std::future::pending()));
        runtime.block_on(eventually(|| starts.load(Ordering::SeqCst) >= 2));
    }

    #[test]
    fn a_loop_that_panics_is_restarted_and_a_beating_one_is_left_alone() {
        let (starts, runtime, _stop) = run(|start, pulse| {
            Box::pin(async move {
                assert!(start > 0, "the first start fails");
                loop {
                    pulse.beat(monotonic());
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
        });
        runtime.block_on(async {
            eventually(|| starts.load(Ordering::SeqCst) == 2).await;
            tokio::time::sleep(Duration::from_millis(600)).await;
        });
        assert_eq!(starts.load(Ordering::SeqCst), 2);
    }
}
