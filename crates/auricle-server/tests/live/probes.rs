//! What orchestrators ask: liveness is the session workers' own, and nothing else moves it.

use std::time::{Duration, Instant};

use crate::rig::{Rig, eventually};

/// Holds a worker's thread until it is dropped.
struct Wedge(std::sync::mpsc::SyncSender<()>);

impl Wedge {
    fn of(worker: &auricle_server::SessionWorker) -> Self {
        let (release, held) = std::sync::mpsc::sync_channel::<()>(0);
        worker.handle().spawn(async move {
            // On purpose: what no session may ever do.
            let _ = held.recv();
        });
        Self(release)
    }
}

impl Drop for Wedge {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
    }
}

#[allow(clippy::disallowed_methods, reason = "a test measures real time")]
fn now() -> Instant {
    Instant::now()
}

async fn wedged(count: usize) {
    let rig = Rig::start(&[]).await;
    rig.still_serves().await;
    assert_eq!(rig.probe("/livez").await.0, 200);
    let wedges: Vec<_> = rig.running().workers().iter().take(count).map(Wedge::of).collect();
    let begun = now();
    eventually("503", async || (rig.probe("/livez").await.0 == 503).then_some(())).await;
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    let (_, body) = rig.probe("/livez").await;
    assert_eq!(body["status"], "stuck");
    drop(wedges);
    let begun = now();
    eventually("200", async || (rig.probe("/livez").await.0 == 200).then_some(())).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    rig.still_serves().await;
}

#[tokio::test]
async fn one_wedged_session_worker_turns_livez_within_12_s_and_back_within_2() {
    wedged(1).await;
}

#[tokio::test]
async fn all_session_workers_wedged_turn_livez_within_12_s_and_back_within_2() {
    wedged(2).await;
}

#[tokio::test]
async fn readiness_turns_long_before_liveness_when_a_session_worker_sticks() {
    let rig = Rig::start(&[("limits.worker_stall_max", "20s")]).await;
    let wedge = Wedge::of(&rig.running().workers()[0]);
    eventually("not ready", async || (rig.probe("/readyz").await.0 == 503).then_some(())).await;
    assert_eq!(rig.probe("/livez").await.0, 200);
    drop(wedge);
    eventually("ready", async || (rig.probe("/readyz").await.0 == 200).then_some(())).await;
}

#[tokio::test]
async fn p1_saturated_processing_leaves_liveness_and_sessions_unmoved() {
    let rig = Rig::start(&[("processing.threads", "2")]).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    for _ in 0..16 {
        let stopped = stopped.clone();
        // Computes without ever yielding, as no attempt should.
        rig.running().processing().spawn(async move { while !*stopped.borrow() {} });
    }
    let mut device = rig.device().await;
    for _ in 0..50 {
        let (code, body) = rig.probe("/livez").await;
        assert_eq!(code, 200, "{body}");
        for worker in body["workers"].as_array().unwrap() {
            assert!(worker["lag_ms"].as_u64().unwrap() < 5_000, "{body}");
        }
        device.speak(0.1).await;
    }
    device.texts_up_to("tomorrow").await;
    stop.send(true).unwrap();
}

#[tokio::test]
async fn the_probe_port_tells_version_configuration_and_sessions() {
    let rig = Rig::start(&[]).await;
    let _device = rig.device().await;
    let (code, ready) = rig.probe("/readyz").await;
    assert_eq!((code, ready["sessions"].as_u64()), (200, Some(1)), "{ready}");
    assert_eq!(rig.probe("/health").await.0, 200);
    assert_eq!(rig.get("/health").await.0, 200);
    let metrics = rig.metrics().await;
    let info = metrics.lines().find(|line| line.contains("build_info{")).unwrap();
    assert!(info.contains("version=\"") && info.contains("config_hash=\""), "{info}");
    assert!(metrics.contains("auricle_sessions_opened_total 1"), "{metrics}");
}
