//! The metrics recorder of the process.
//!
//! Names are `auricle_<noun>_<unit>[_total]`; each crate counts its own. `docs/metrics.md` lists them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::clock::monotonic;
use crate::config::Config;
use crate::vitals::Pulse;

/// Bucket edges in seconds: around a commit, the latency promise (20 ms), and what a person notices.
const SECONDS: [f64; 14] =
    [0.0002, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0];

/// How often histograms are condensed. Else each sample is kept until somebody reads `/metrics`.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Installs the recorder at the first call; later calls (several servers in one test process) share it.
pub(crate) fn recorder(config: &Config) -> Option<PrometheusHandle> {
    let handle = RECORDER.get_or_init(|| {
        PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
            .ok()?
            .install_recorder()
            .ok()
    });
    metrics::gauge!("auricle_build_info", "version" => env!("CARGO_PKG_VERSION"), "config_hash" => config.hash()).set(1.0);
    handle.clone()
}

/// Condenses histograms again and again. A loop.
pub(crate) async fn upkeep(handle: Option<PrometheusHandle>, pulse: Arc<Pulse>) {
    loop {
        pulse.beat(monotonic());
        if let Some(handle) = &handle {
            handle.run_upkeep();
        }
        tokio::time::sleep(UPKEEP_EVERY).await;
    }
}
