//! How fast words become durable and are read, and what a spooled frame costs, without and with a key. Prints; asserts nothing.
//!
//! `cargo run --profile quick -p auricle-store --example append_bench [FOLDER]`: the folder's disk decides the commits.

#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark measures and prints")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use auricle_core::{Limits, Segment, Source, UnixMicros};
use auricle_store::protect::{Keyring, RootKey};
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

/// Reads of a conversation of 1,000 segments.
async fn reads(store: &Arc<SqliteStore>) -> Result<()> {
    const SEGMENTS: u64 = 1_000;
    const READS: u32 = 50;
    let open = OpenConversation {
        user: "bench".into(),
        process: "bench".into(),
        source: Source::Omi,
        language: None,
        timeout: Duration::from_secs(120),
        choice: Choice::New,
        fresh_id: "read".into(),
        call_id: None,
        now: UnixMicros(0),
    };
    let owner = store.open_conversation(open).await?.ownership;
    let mut all = batch(&owner, 0);
    all.upsert = (0..SEGMENTS).flat_map(|number| batch(&owner, number).upsert).collect();
    let begun = Instant::now();
    store.append_segments(all).await?;
    println!("{SEGMENTS} segments in one batch: stored in {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    let begun = Instant::now();
    for _ in 0..READS {
        let found = store.conversation(&"bench".into(), &"read".into()).await?;
        assert_eq!(found.map_or(0, |found| found.segments.len() as u64), SEGMENTS);
    }
    let each = begun.elapsed().as_secs_f64() * 1e3 / f64::from(READS);
    println!("{SEGMENTS} segments: read in {each:.2} ms");
    Ok(())
}

fn spool(folder: &Path, ring: &Keyring) -> std::io::Result<()> {
    const FRAMES: u32 = 2_000_000;
    for (codec, bytes) in [("opus", 80), ("pcm16", 640)] {
        let options = SpoolOptions { ring: ring.clone(), ..SpoolOptions::from(&Limits::default()) };
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

fn key() -> std::result::Result<RootKey, auricle_store::protect::KeyError> {
    RootKey::from_text(&"5a".repeat(32), "the benchmark's key")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let folder = folder.join(format!("append-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    for (name, ring) in [("plain", Keyring::default()), ("sealed", Keyring::new(Some(key()?), Vec::new()))] {
        println!("{name}");
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder)?;
        let options = SqliteOptions { ring: ring.clone(), ..SqliteOptions::default() };
        let store = SqliteStore::open(folder.join("bench.db"), options)?;
        for writers in [1, 10, 100] {
            let latencies = appends(&store, writers).await?;
            let at =
                |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
            println!(
                "{writers} writers: {:.0} rows/s, append to durable p50 {:.2} ms, p99 {:.2} ms",
                latencies.len() as f64 / RUN.as_secs_f64(),
                at(0.5),
                at(0.99)
            );
        }
        reads(&store).await?;
        store.close().await;
        spool(&folder, &ring)?;
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
