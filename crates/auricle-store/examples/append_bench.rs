//! How fast words become durable, and what a spooled frame costs. Prints; asserts nothing.
//!
//! `cargo run --profile quick -p auricle-store --example append_bench [FOLDER]`: the folder's disk decides the commits.

#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark measures and prints")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use auricle_core::{Limits, Segment, Source, UnixMicros};
use auricle_store::spool::{RunHeader, Spool, SpoolOptions};
use auricle_store::{
    AppendSegments, Choice, OpenConversation, Result, SqliteOptions, SqliteStore, Store, StoreError,
};

const RUN: Duration = Duration::from_secs(3);

fn batch(owner: &auricle_store::Ownership, number: u64) -> AppendSegments {
    let segment = Segment {
        id: format!("s{number}").into(),
        text: "so we said that the kitchen would be painted before the end of next month".into(),
        speaker: None,
        is_user: false,
        person_id: None,
        start: number as f64,
        end: number as f64 + 1.0,
        translations: Vec::new(),
        speech_profile_processed: true,
        stt_provider: None,
    };
    AppendSegments {
        ownership: owner.clone(),
        upsert: vec![segment],
        delete: Vec::new(),
        started_at: None,
        now: UnixMicros(1),
    }
}

/// Latencies of all appends of `writers` at once, for [`RUN`].
async fn appends(store: &Arc<SqliteStore>, writers: usize) -> Result<Vec<Duration>> {
    let mut tasks = Vec::new();
    for writer in 0..writers {
        let store = Arc::clone(store);
        tasks.push(tokio::spawn(async move {
            let open = OpenConversation {
                user: "bench".into(),
                process: "bench".into(),
                source: Source::Omi,
                language: None,
                timeout: Duration::from_secs(120),
                choice: Choice::New,
                fresh_id: format!("{writers}-{writer}").into(),
                call_id: None,
                now: UnixMicros(0),
            };
            let owner = store.open_conversation(open).await?.ownership;
            let begun = Instant::now();
            let mut latencies = Vec::new();
            while begun.elapsed() < RUN {
                let each = Instant::now();
                store.append_segments(batch(&owner, latencies.len() as u64)).await?;
                latencies.push(each.elapsed());
            }
            Ok::<_, StoreError>(latencies)
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.map_err(|error| StoreError::Other(error.to_string()))??);
    }
    all.sort();
    Ok(all)
}

fn spool(folder: &Path) -> std::io::Result<()> {
    const FRAMES: u32 = 2_000_000;
    for (codec, bytes) in [("opus", 80), ("pcm16", 640)] {
        let options = SpoolOptions::from(&Limits::default());
        let spool = Spool::open(folder.join(codec), options)?;
        let mut run = spool.begin(RunHeader {
            run: "bench".into(),
            user: "bench".into(),
            conversation: "bench".into(),
            process: "bench".into(),
            codec: codec.into(),
            sample_rate_hz: 16_000,
            channels: 1,
            language: None,
            source: Source::Omi,
            role: None,
            first_audio_at: UnixMicros(0),
        });
        let frame = vec![7; bytes];
        let begun = Instant::now();
        for number in 0..FRAMES {
            run.append(&frame, 320);
            if number % 20 == 19 {
                run.poll_flush(begun + Duration::from_millis(20) * number);
            }
            if number % 2_000 == 1_999 {
                run.covered(run.position());
            }
        }
        let appended = begun.elapsed();
        spool.settle();
        println!(
            "spool, {codec} {bytes} B: {:.3} µs a frame on the session's thread, {:.3} µs until on disk, {} samples lost",
            appended.as_secs_f64() * 1e6 / f64::from(FRAMES),
            begun.elapsed().as_secs_f64() * 1e6 / f64::from(FRAMES),
            run.lost_samples()
        );
        run.finish();
        spool.settle();
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let folder = folder.join(format!("append-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let store = SqliteStore::open(folder.join("bench.db"), SqliteOptions::default())?;
    for writers in [1, 10, 100] {
        let latencies = appends(&store, writers).await?;
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        println!(
            "{writers} writers: {:.0} rows/s, append to durable p50 {:.2} ms, p99 {:.2} ms",
            latencies.len() as f64 / RUN.as_secs_f64(),
            at(0.5),
            at(0.99)
        );
    }
    store.close().await;
    spool(&folder)?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
