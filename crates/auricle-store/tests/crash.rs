//! `kill -9` and a full disk, in child processes: this test binary runs itself again with a role in its environment.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests, and the child processes they start")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use auricle_core::{Segment, Source, UnixMicros};
use auricle_store::spool::{RunHeader, Spool, SpoolOptions};
use auricle_store::{
    AppendSegments, Choice, OpenConversation, Ownership, SqliteOptions, SqliteStore, Store, StoreError,
};

const ROLE: &str = "AURICLE_STORE_TEST_ROLE";
const FOLDER: &str = "AURICLE_STORE_TEST_FOLDER";

/// The folder, if this process is a child with this role.
fn role(name: &str) -> Option<PathBuf> {
    (std::env::var(ROLE).ok()? == name).then(|| std::env::var_os(FOLDER).unwrap().into())
}

fn child(test: &str, name: &str, folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ROLE, name)
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn segment(id: &str) -> Segment {
    Segment {
        id: id.into(),
        text: "a few words of speech".into(),
        speaker: None,
        is_user: false,
        person_id: None,
        start: 0.0,
        end: 1.0,
        translations: Vec::new(),
        speech_profile_processed: true,
        stt_provider: None,
    }
}

async fn open(store: &SqliteStore, id: &str) -> Ownership {
    store.process_alive(&"p1".into(), UnixMicros(i64::MAX)).await.unwrap();
    let open = OpenConversation {
        user: "ann".into(),
        process: "p1".into(),
        source: Source::Omi,
        language: None,
        timeout: Duration::from_secs(120),
        choice: Choice::New,
        fresh_id: id.into(),
        call_id: None,
        now: UnixMicros(0),
    };
    store.open_conversation(open).await.unwrap().ownership
}

fn batch(owner: &Ownership, id: &str) -> AppendSegments {
    AppendSegments {
        ownership: owner.clone(),
        upsert: vec![segment(id)],
        delete: Vec::new(),
        started_at: None,
        now: UnixMicros(1),
    }
}

/// Appends for ever, from several tasks, and prints each id once it is acknowledged.
async fn append_for_ever(folder: &Path) {
    let store = SqliteStore::open(folder.join("a.db"), SqliteOptions::default()).unwrap();
    let mut tasks = Vec::new();
    for writer in 0..4 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            let owner = open(&store, &format!("c{writer}")).await;
            for number in 0_u64.. {
                let id = format!("c{writer}-{number}");
                store.append_segments(batch(&owner, &id)).await.unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "stored {id}").unwrap();
                out.flush().unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_p5_every_acknowledged_segment_survives_kill_9() {
    if let Some(folder) = role("append") {
        return append_for_ever(&folder).await;
    }
    for round in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let mut child = child("p4_p5_every_acknowledged_segment_survives_kill_9", "append", folder.path());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = Vec::new();
        for line in lines {
            let line = line.unwrap();
            acknowledged.extend(line.split_once("stored ").map(|(_, id)| id.to_owned()));
            if acknowledged.len() == 20 + round * 37 {
                // What it still prints before it dies is read too.
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acknowledged.len() >= 20 + round * 37);
        let store = SqliteStore::open(folder.path().join("a.db"), SqliteOptions::default()).unwrap();
        for writer in 0..4 {
            let id = format!("c{writer}");
            let Some(found) = store.conversation(&"ann".into(), &id.as_str().into()).await.unwrap() else {
                continue;
            };
            let stored: std::collections::HashSet<_> =
                found.segments.iter().map(|each| each.id.as_str().to_owned()).collect();
            acknowledged.retain(|each| !stored.contains(each));
        }
        assert!(acknowledged.is_empty(), "lost: {acknowledged:?}");
    }
}

fn header() -> RunHeader {
    RunHeader {
        run: "r1".into(),
        user: "ann".into(),
        conversation: "c1".into(),
        process: "p1".into(),
        codec: "pcm16".into(),
        sample_rate_hz: 16_000,
        channels: 1,
        language: None,
        source: Source::Omi,
        role: None,
        first_audio_at: UnixMicros(0),
    }
}

/// Spools 20 ms frames at the pace of speech and prints how many.
#[expect(clippy::disallowed_methods, reason = "the child paces itself by the real clock")]
fn spool_for_ever(folder: &Path) {
    let spool = Spool::open(folder, SpoolOptions::from(&auricle_core::Limits::default())).unwrap();
    let mut run = spool.begin(header());
    for number in 1_u64.. {
        run.append(&[7; 640], 320);
        run.poll_flush(Instant::now());
        let mut out = std::io::stdout().lock();
        writeln!(out, "spooled {number}").unwrap();
        out.flush().unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn l06_at_most_a_second_of_audio_is_lost_at_kill_9() {
    if let Some(folder) = role("spool") {
        return spool_for_ever(&folder);
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = child("l06_at_most_a_second_of_audio_is_lost_at_kill_9", "spool", folder.path());
    let mut spooled = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        spooled = line.split_once("spooled ").and_then(|(_, number)| number.parse().ok()).unwrap_or(spooled);
        if spooled == 90 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    let spool = Spool::open(folder.path(), SpoolOptions::from(&auricle_core::Limits::default())).unwrap();
    let found = spool.leftovers().unwrap();
    let kept = found[0].frames().count();
    assert!(kept + 50 >= spooled, "{kept} of {spooled}");
    assert!(found[0].frames().enumerate().all(|(number, each)| each.position == number as u64 * 320));
}

/// Runs into a file-size limit, which the system answers as it answers a full disk: the write fails.
async fn fill_the_disk(folder: &Path) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let store = SqliteStore::open(folder.join("a.db"), SqliteOptions::default()).unwrap();
    let owner = open(&store, "c1").await;
    let before = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(600_000), maximum: before.maximum }).unwrap();
    let mut stored = 0;
    let error = loop {
        match store.append_segments(batch(&owner, &format!("s{stored}"))).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100_000);
    };
    assert!(matches!(error, StoreError::Full(_)), "{error}");
    assert!(store.health().degraded.is_some());
    let found = store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    assert_eq!(found.segments.len(), stored, "reads go on, and nothing refused is there");
    setrlimit(Resource::Fsize, before).unwrap();
    // No write of ours: the store looks for itself.
    while store.health().degraded.is_some() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    store.append_segments(batch(&owner, "after")).await.unwrap();
    println!("recovered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_refused_and_recovers_by_itself() {
    if let Some(folder) = role("fill") {
        return fill_the_disk(&folder).await;
    }
    let folder = tempfile::tempdir().unwrap();
    // The shell sets the signal of the limit to be ignored, which the child inherits.
    let exe = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(exe)
        .args(["--exact", "a_full_disk_is_refused_and_recovers_by_itself", "--nocapture"])
        .env(ROLE, "fill")
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("recovered"), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}
