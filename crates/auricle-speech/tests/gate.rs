//! What the voice activity gate saves and what it costs, measured with PocketSphinx against the same engine without it.

#![allow(clippy::unwrap_used, reason = "what a test stands on must hold")]

#[path = "gate/rig.rs"]
mod rig;

use std::sync::Arc;
use std::time::Duration;

use auricle_speech::gate::{Gate, GateConfig};
use auricle_speech::pocketsphinx::PocketSphinx;
use auricle_speech::{Engine, Event, PocketSphinxConfig};

const RATE_HZ: u32 = 16_000;

/// One recogniser: it learns the room's noise from what it decodes, and two would share that out by chance.
fn sphinx() -> Arc<dyn Engine> {
    let decoders = std::num::NonZeroUsize::new(1);
    Arc::new(PocketSphinx::new(&PocketSphinxConfig { decoders, ..PocketSphinxConfig::default() }))
}

#[tokio::test]
async fn three_quarters_of_sparse_speech_are_not_sent_and_as_much_is_understood() {
    let sparse = rig::sparse(27.0);
    let (plain, gate) = (sphinx(), Gate::new(sphinx(), GateConfig::default()));
    let (open, gated) =
        tokio::join!(rig::hear(&*plain, &sparse.pcm, RATE_HZ), rig::hear(&gate, &sparse.pcm, RATE_HZ));
    let (open, gated) = (rig::words(&open), rig::words(&gated));

    let saved = gate.saved();
    let unsent = 1.0 - saved.sent.as_secs_f64() / saved.heard.as_secs_f64();
    let recall = |heard| rig::matched(&sparse.spoken, heard).len() as f64 / sparse.spoken.len() as f64;
    let (before, after) = (recall(&open), recall(&gated));
    let mut apart: Vec<f64> = rig::matched_words(&open, &gated)
        .into_iter()
        .map(|(open, gated)| (open.start - gated.start).abs().max((open.end - gated.end).abs()))
        .collect();
    apart.sort_by(f64::total_cmp);
    let p95 = apart[apart.len() * 95 / 100];
    println!(
        "{:.0} s, {} words: {:.1}% not sent, recall {:.2}% gated against {:.2}%, times p95 {p95:.3} s apart",
        saved.heard.as_secs_f64(),
        sparse.spoken.len(),
        unsent * 100.0,
        after * 100.0,
        before * 100.0,
    );
    assert!(unsent >= 0.75);
    assert!(before > 0.75 && after >= before - 0.005);
    assert!(p95 <= 0.2 && apart.len() * 100 >= open.len() * 95);
}

#[tokio::test]
async fn ten_minutes_of_room_noise_are_no_speech() {
    let gate = Gate::new(sphinx(), GateConfig::default());
    let noise = rig::room(600 * RATE_HZ as usize, 7);
    let events = rig::hear(&gate, &noise, RATE_HZ).await;
    assert_eq!(rig::words(&events).len(), 0);
    assert_eq!(gate.saved().sent, Duration::ZERO);
    let covered = Event::Covered { until_sample: noise.len() as u64 };
    assert_eq!(events[events.len() - 2..], [covered, Event::Finished]);
}
