//! The audio spool: what comes back after an end, a crash, damage, and at its bounds.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests, and the child processes they start"
)]

mod runs;

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use auricle_store::protect::{Keyring, RootKey};
use auricle_store::spool::{RunHeader, Spool, SpoolOptions, SpooledFrame};

use runs::{FRAME_SAMPLES, feed, frame, sample};

fn header(run: &str) -> RunHeader {
    runs::header(run, "c1")
}

fn options() -> SpoolOptions {
    SpoolOptions {
        flush_bytes: 1_000,
        chunk_bytes: 4_000,
        ..SpoolOptions::from(&auricle_core::Limits::default())
    }
}

/// All frames left of the one run, after a start of a new process on the folder.
fn left(folder: &Path) -> Vec<SpooledFrame> {
    let spool = Spool::open(folder, options()).unwrap();
    let mut found = spool.leftovers().unwrap();
    assert!(found.len() <= 1);
    found.pop().map_or(Vec::new(), |leftover| leftover.frames().collect())
}

fn numbers(frames: &[SpooledFrame]) -> Vec<u64> {
    for each in frames {
        assert_eq!(each.bytes, frame(each.position / u64::from(FRAME_SAMPLES)));
        assert_eq!(each.samples, FRAME_SAMPLES);
    }
    frames.iter().map(|each| each.position / u64::from(FRAME_SAMPLES)).collect()
}

#[test]
fn an_abandoned_run_comes_back_as_received() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), options()).unwrap();
    let mut run = spool.begin(header("r1"));
    feed(&mut run, 0..100);
    spool.settle();
    assert!(spool.leftovers().unwrap().is_empty(), "a live run is nobody's to repair");
    run.abandon();
    spool.settle();
    let found = spool.leftovers().unwrap();
    assert_eq!((found.len(), found[0].header()), (1, &header("r1")));
    assert_eq!(numbers(&found[0].frames().collect::<Vec<_>>()), (0..100).collect::<Vec<_>>());
    assert_eq!(found[0].attempts(), 0);
    assert_eq!((found[0].record_attempt().unwrap(), found[0].record_attempt().unwrap()), (1, 2));
    assert_eq!(spool.leftovers().unwrap()[0].attempts(), 2);
    for leftover in found {
        leftover.remove().unwrap();
    }
    assert_eq!((spool.disk_bytes(), spool.leftovers().unwrap().len()), (0, 0));
}

#[test]
fn a_run_that_somebody_repairs_is_found_by_nobody_else_and_again_once_it_is_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let options = options();
    let left = std::sync::Arc::clone(&options.left);
    let spool = Spool::open(folder.path(), options).unwrap();
    let mut run = spool.begin(header("r1"));
    feed(&mut run, 0..10);
    run.abandon();
    spool.settle();
    // Whoever waits is told that it can be found.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let told = async { tokio::time::timeout(Duration::from_secs(30), left.notified()).await };
    runtime.block_on(told).unwrap();
    let mut found = spool.leftovers().unwrap();
    found[0].claim();
    // Even once all of it is covered: its repair removes it.
    found[0].cover(sample(10)).unwrap();
    assert_eq!(spool.leftovers().unwrap().len(), 0);
    drop(found);
    let mut run = spool.begin(header("r2"));
    feed(&mut run, 0..10);
    run.abandon();
    spool.settle();
    let mut found = spool.leftovers().unwrap();
    found[0].claim();
    drop(found);
    assert_eq!(spool.leftovers().unwrap().len(), 1);
}

#[test]
fn what_is_covered_is_freed_and_only_the_rest_is_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), options()).unwrap();
    let mut run = spool.begin(header("r1"));
    feed(&mut run, 0..200);
    run.poll_flush(Instant::now());
    spool.settle();
    let full = spool.disk_bytes();
    run.covered(sample(150));
    spool.settle();
    assert!(spool.disk_bytes() < full / 2, "{} of {full}", spool.disk_bytes());
    feed(&mut run, 200..210);
    run.abandon();
    spool.settle();
    assert_eq!(numbers(&left(folder.path())), (150..210).collect::<Vec<_>>());
}

#[test]
fn a_wholly_covered_run_leaves_nothing() {
    for ended_by_finish in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path(), options()).unwrap();
        let mut run = spool.begin(header("r1"));
        feed(&mut run, 0..200);
        if ended_by_finish {
            run.finish();
        } else {
            run.covered(sample(200));
            run.abandon();
        }
        spool.settle();
        assert_eq!(spool.disk_bytes(), 0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn coverage_survives_a_live_run_that_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), options()).unwrap();
    let mut run = spool.begin(header("r1"));
    feed(&mut run, 0..24);
    run.covered(sample(10));
    feed(&mut run, 24..60);
    run.poll_flush(Instant::now());
    spool.settle();
    // As a new process finds it: the first one never ended its run.
    assert_eq!(numbers(&left(folder.path())), (10..60).collect::<Vec<_>>());
    run.covered(sample(60));
    spool.settle();
    assert!(left(folder.path()).is_empty());
}

#[test]
fn a_repair_that_stops_half_way_goes_on_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), options()).unwrap();
    let mut run = spool.begin(header("r1"));
    feed(&mut run, 0..100);
    drop(run);
    spool.settle();
    spool.leftovers().unwrap()[0].cover(sample(70)).unwrap();
    assert_eq!(numbers(&left(folder.path())), (70..100).collect::<Vec<_>>());
}

#[test]
fn what_repair_marks_and_cuts_off_is_counted_so_that_the_total_ends_at_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), options()).unwrap();
    for (run, torn) in [("r1", false), ("r2", true)] {
        let mut writer = spool.begin(header(run));
        feed(&mut writer, 0..100);
        writer.abandon();
        spool.settle();
        if torn {
            // As a crash leaves it, counted at the next start.
            let chunk = newest_chunk(folder.path(), run);
            std::fs::OpenOptions::new().append(true).open(chunk).unwrap().write_all(&[0; 50]).unwrap();
        }
    }
    drop(spool);
    let spool = Spool::open(folder.path(), options()).unwrap();
    for mut leftover in spool.leftovers().unwrap() {
        for part in 1..=9 {
            leftover.cover(sample(part * 10)).unwrap();
        }
        leftover.remove().unwrap();
    }
    assert_eq!(spool.disk_bytes(), 0);
    // There is room, as before.
    let mut writer = spool.begin(header("r3"));
    feed(&mut writer, 0..100);
    writer.abandon();
    spool.settle();
    assert_eq!(numbers(&left(folder.path())), (0..100).collect::<Vec<_>>());
}

fn newest_chunk(folder: &Path, run: &str) -> std::path::PathBuf {
    let mut chunks: Vec<_> = std::fs::read_dir(folder.join(format!("run-{run}")))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    chunks.retain(|path| path.extension().is_some_and(|extension| extension == "chunk"));
    chunks.sort();
    chunks.pop().unwrap()
}

#[test]
fn a_torn_tail_costs_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), options()).unwrap();
    let mut run = spool.begin(header("r1"));
    feed(&mut run, 0..100);
    run.abandon();
    spool.settle();
    let path = newest_chunk(folder.path(), "r1");
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(file.metadata().unwrap().len() - 7).unwrap();
    assert_eq!(numbers(&left(folder.path())), (0..99).collect::<Vec<_>>());
    let mut leftover = spool.leftovers().unwrap().pop().unwrap();
    leftover.cover(sample(40)).unwrap();
    assert_eq!(numbers(&left(folder.path())), (40..99).collect::<Vec<_>>());
}

#[test]
fn a_flipped_bit_is_never_played_as_audio() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), options()).unwrap();
    let mut run = spool.begin(header("r1"));
    feed(&mut run, 0..9);
    run.abandon();
    spool.settle();
    let path = newest_chunk(folder.path(), "r1");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let found = numbers(&left(folder.path()));
    assert!(found.len() < 9 && found == (0..found.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_corrupt_header_is_moved_aside_not_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), options()).unwrap();
    let mut run = spool.begin(header("r1"));
    feed(&mut run, 0..100);
    run.abandon();
    spool.settle();
    let path = folder.path().join("run-r1/header");
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"x").unwrap();
    assert!(spool.leftovers().unwrap().is_empty());
    assert!(folder.path().join("quarantine/run-r1/00000001.chunk").exists());
    assert_eq!(spool.disk_bytes(), 0);
}

#[test]
fn bounds_lose_the_newest_and_say_so() {
    for (limited, run_bytes_max, total_bytes_max) in [("run", 5_000, u64::MAX), ("total", u64::MAX, 5_000)] {
        let folder = tempfile::tempdir().unwrap();
        let bounded = SpoolOptions { run_bytes_max, total_bytes_max, ..options() };
        let spool = Spool::open(folder.path(), bounded).unwrap();
        let mut run = spool.begin(header("r1"));
        feed(&mut run, 0..200);
        run.poll_flush(Instant::now());
        spool.settle();
        assert!(spool.disk_bytes() <= 5_000, "{limited}");
        let lost = run.lost_samples();
        assert!(lost > 0, "{limited}");
        run.covered(sample(200));
        spool.settle();
        feed(&mut run, 200..220);
        run.abandon();
        spool.settle();
        assert_eq!(numbers(&left(folder.path())), (200..220).collect::<Vec<_>>(), "{limited}");
    }
}

#[test]
fn a_full_queue_is_counted_and_leaves_a_hole() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), SpoolOptions { queue_bytes_max: 0, ..options() }).unwrap();
    let mut run = spool.begin(header("r1"));
    feed(&mut run, 0..50);
    run.poll_flush(Instant::now());
    assert_eq!((run.lost_samples(), run.position()), (sample(50), sample(50)));
    run.abandon();
    spool.settle();
    assert!(spool.leftovers().unwrap().is_empty());
}

#[test]
fn bytes_on_their_way_to_the_disk_are_given_back_when_they_are_there_or_refused() {
    for queue_bytes_max in [0, 1 << 20] {
        let folder = tempfile::tempdir().unwrap();
        let options = SpoolOptions { queue_bytes_max, ..options() };
        let account = options.account.clone();
        let spool = Spool::open(folder.path(), options).unwrap();
        let mut run = spool.begin(header("r1"));
        feed(&mut run, 0..500);
        run.abandon();
        spool.settle();
        assert_eq!(account.bytes(), 0, "{queue_bytes_max}");
    }
}

#[test]
fn buffers_are_handed_over_on_time() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), options()).unwrap();
    let mut run = spool.begin(header("r1"));
    let now = Instant::now();
    assert_eq!(run.poll_flush(now), None);
    feed(&mut run, 0..1);
    assert_eq!(run.poll_flush(now), None, "the first one goes at once");
    feed(&mut run, 1..2);
    let due = now + options().flush_every;
    assert_eq!(run.poll_flush(now + Duration::from_millis(1)), Some(due));
    assert_eq!(run.poll_flush(due), None);
    spool.settle();
    assert_eq!(numbers(&left(folder.path())), [0, 1]);
}

#[test]
fn no_run_id_escapes_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("spool");
    let spool = Spool::open(&inner, options()).unwrap();
    for id in ["../evil", "", "a/b", ".."] {
        let mut run = spool.begin(header(id));
        feed(&mut run, 0..2);
    }
    spool.settle();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(spool.leftovers().unwrap().len(), 4);
}

fn sealed(current: Option<&str>, old: &[&str]) -> SpoolOptions {
    let key = |byte: &str| RootKey::from_text(&byte.repeat(32), "the test's key").unwrap();
    let ring = Keyring::new(current.map(key), old.iter().map(|byte| key(byte)).collect());
    SpoolOptions { ring, ..options() }
}

/// All bytes of all files below.
fn bytes_below(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        bytes.extend(if path.is_dir() { bytes_below(&path) } else { std::fs::read(&path).unwrap() });
    }
    bytes
}

#[test]
fn under_a_key_audio_and_what_it_is_are_sealed_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), sealed(Some("a1"), &[])).unwrap();
    let mut run = spool.begin(header("r1"));
    feed(&mut run, 0..200);
    run.poll_flush(Instant::now());
    spool.settle();
    run.covered(sample(150));
    spool.settle();
    feed(&mut run, 200..210);
    run.abandon();
    spool.settle();
    let bytes = bytes_below(folder.path());
    let holds = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
    assert!(bytes.len() > 60 * 80 && !holds(&frame(160)[..16]) && !holds(b"opus") && !holds(b"c1\""));
    drop(spool);
    let spool = Spool::open(folder.path(), sealed(Some("b2"), &["a1"])).unwrap();
    let found = spool.leftovers().unwrap();
    assert_eq!(found[0].header(), &header("r1"));
    assert_eq!(numbers(&found[0].frames().collect::<Vec<_>>()), (150..210).collect::<Vec<_>>());
}

#[test]
fn a_torn_sealed_record_costs_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), sealed(Some("a1"), &[])).unwrap();
    let mut run = spool.begin(header("r1"));
    feed(&mut run, 0..40);
    run.abandon();
    spool.settle();
    drop(spool);
    let newest = folder.path().join("run-r1/00000001.chunk");
    let whole = std::fs::read(&newest).unwrap();
    let mut kept = Vec::new();
    for cut in (0..whole.len()).step_by(97) {
        std::fs::write(&newest, &whole[..whole.len() - cut]).unwrap();
        let spool = Spool::open(folder.path(), sealed(Some("a1"), &[])).unwrap();
        let frames = spool.leftovers().unwrap().pop().map_or(Vec::new(), |left| left.frames().collect());
        let found = numbers(&frames);
        assert!(found.iter().zip(0..).all(|(number, expected)| *number == expected), "{found:?}");
        kept.push(found.len());
        if !folder.path().join("run-r1").exists() {
            // Nothing whole was left of it.
            break;
        }
    }
    assert!(kept[0] >= 10 && kept.windows(2).all(|pair| pair[0] >= pair[1]), "{kept:?}");
}

#[test]
fn a_run_without_its_key_waits_untouched_until_the_key_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), sealed(Some("a1"), &[])).unwrap();
    let mut run = spool.begin(header("r1"));
    feed(&mut run, 0..100);
    run.abandon();
    spool.settle();
    drop(spool);
    let before = bytes_below(&folder.path().join("run-r1"));
    for other in [sealed(None, &[]), sealed(Some("b2"), &[])] {
        let spool = Spool::open(folder.path(), other).unwrap();
        assert!(spool.leftovers().unwrap().is_empty() && spool.leftovers().unwrap().is_empty());
        assert_eq!(spool.disk_bytes(), 0);
        assert_eq!(bytes_below(&folder.path().join("locked/run-r1")), before);
    }
    let spool = Spool::open(folder.path(), sealed(Some("b2"), &["a1"])).unwrap();
    let found = spool.leftovers().unwrap();
    assert_eq!(numbers(&found[0].frames().collect::<Vec<_>>()), (0..100).collect::<Vec<_>>());
    assert!(spool.disk_bytes() > 0);
}

#[test]
fn a_user_is_forgotten_wherever_their_runs_lie_and_nobody_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let of = |run: &str, user: &str| RunHeader { user: user.into(), ..header(run) };
    let write = |options: SpoolOptions, header: RunHeader| {
        let spool = Spool::open(folder.path(), options).unwrap();
        let mut run = spool.begin(header);
        feed(&mut run, 0..40);
        run.abandon();
        spool.settle();
    };
    write(sealed(Some("a1"), &[]), of("locked", "ann"));
    // Without the key it is put aside.
    assert!(Spool::open(folder.path(), options()).unwrap().leftovers().unwrap().is_empty());
    for user in ["ann", "bob"] {
        write(options(), of(&format!("plain-{user}"), user));
        write(sealed(Some("b2"), &[]), of(&format!("sealed-{user}"), user));
    }
    let spool = Spool::open(folder.path(), sealed(Some("b2"), &[])).unwrap();
    let mut live = spool.begin(of("live", "ann"));
    feed(&mut live, 0..40);
    live.poll_flush(Instant::now());
    spool.settle();
    assert_eq!(spool.forget(&"ann".into()).unwrap(), 3);
    let mut left: Vec<_> = spool.leftovers().unwrap().iter().map(|left| left.header().run.clone()).collect();
    left.sort();
    assert_eq!(left, ["plain-bob", "sealed-bob"]);
    assert_eq!(std::fs::read_dir(folder.path().join("locked")).unwrap().count(), 0);
    // What is being written is forgotten once nobody writes it.
    live.abandon();
    spool.settle();
    assert_eq!((spool.forget(&"ann".into()).unwrap(), spool.leftovers().unwrap().len()), (1, 2));
}
