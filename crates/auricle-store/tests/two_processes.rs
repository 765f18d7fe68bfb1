//! The conformance suite while another process writes to the same file: locks between processes are not those within one.
//! The other process is this test binary again, with a file in its environment.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests, and the child processes they start")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use auricle_core::UnixMicros;
use auricle_store::conformance::{Ground, at, batch, opening, segment};
use auricle_store::{Choice, OpenConversation, SqliteOptions, SqliteStore, Store};

const FILE: &str = "AURICLE_STORE_TEST_FILE";
const NEIGHBOUR: &str = "two_processes_that_write_at_once_lose_nothing_and_wait_their_turn";

/// A process that appends for ever, and says of each segment that it is stored. Killed when dropped.
struct Neighbour {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Neighbour {
    /// Returns once it writes.
    fn start(file: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NEIGHBOUR, "--nocapture"])
            .env(FILE, file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut neighbour = Self { child, lines };
        neighbour.stored(1);
        neighbour
    }

    /// The ids of the next `count` segments that it has stored.
    fn stored(&mut self, count: usize) -> Vec<String> {
        let ids =
            self.lines.by_ref().filter_map(|line| line.unwrap().strip_prefix("stored ").map(str::to_owned));
        let ids: Vec<String> = ids.take(count).collect();
        assert_eq!(ids.len(), count, "the neighbour ended");
        ids
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn neighbours_conversation() -> OpenConversation {
    OpenConversation {
        user: "neighbour".into(),
        process: "neighbour".into(),
        ..opening(Choice::New, "of-the-neighbour")
    }
}

async fn write_for_ever(file: &Path) {
    let store = SqliteStore::open(file, SqliteOptions::default()).unwrap();
    store.process_alive(&"neighbour".into(), UnixMicros(i64::MAX)).await.unwrap();
    let owner = store.open_conversation(neighbours_conversation()).await.unwrap().ownership;
    for number in 0_u32.. {
        let id = format!("n{number}");
        let words = segment(&id, f64::from(number), "something else");
        store.append_segments(batch(&owner, i64::from(number), &[words])).await.unwrap();
        // On a line of its own, whatever the test harness has begun.
        println!("\nstored {id}");
    }
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auricle.db");
    (folder, path)
}

fn ground() -> Ground {
    let (folder, path) = file();
    let open = || SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    let (store, other) = (open(), open());
    let neighbour = Neighbour::start(&path);
    Ground { store, other, keep: Box::new((neighbour, folder)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_that_write_at_once_lose_nothing_and_wait_their_turn() {
    if let Some(file) = std::env::var_os(FILE) {
        return write_for_ever(Path::new(&file)).await;
    }
    let (_folder, path) = file();
    let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    let mut neighbour = Neighbour::start(&path);
    store.process_alive(&"p1".into(), at(100_000)).await.unwrap();
    let owner = store.open_conversation(opening(Choice::New, "ours")).await.unwrap().ownership;
    for number in 0..300_u32 {
        let words = segment(&format!("s{number}"), f64::from(number), "something");
        store.append_segments(batch(&owner, i64::from(number), &[words])).await.unwrap();
    }
    let theirs = neighbour.stored(20);
    drop(neighbour);
    let ours = store.conversation(&"ann".into(), &"ours".into()).await.unwrap().unwrap();
    assert_eq!(ours.segments.len(), 300);
    let found = store.conversation(&"neighbour".into(), &"of-the-neighbour".into()).await.unwrap().unwrap();
    assert!(theirs.iter().all(|id| found.segments.iter().any(|segment| segment.id.as_str() == id)));
}

auricle_store::store_conformance!(super::ground());
