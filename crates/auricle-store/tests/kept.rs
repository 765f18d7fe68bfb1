//! Kept audio: what the spool lets go of is there, whole and once, at its bounds, after a crash, sealed, and until it is deleted.

#![allow(clippy::unwrap_used, reason = "tests")]

mod runs;

use std::path::Path;

use auricle_store::kept::KeptAudio;
use auricle_store::protect::{Keyring, RootKey};
use auricle_store::spool::{Spool, SpoolOptions};
use auricle_store::vault::Vault;

use runs::{FRAME_SAMPLES, feed, frame, header, sample};

fn ring() -> Keyring {
    Keyring::new(Some(RootKey::from_text(&"5a".repeat(32), "the test's key").unwrap()), Vec::new())
}

struct Rig {
    dir: tempfile::TempDir,
    spool: Spool,
    kept: KeptAudio,
}

fn open(dir: &Path, ring: &Keyring, bytes_max: u64) -> (Spool, KeptAudio) {
    let kept = KeptAudio::open(dir.join("audio"), ring.clone(), bytes_max).unwrap();
    let options = SpoolOptions {
        flush_bytes: 1_000,
        chunk_bytes: 4_000,
        ring: ring.clone(),
        kept: Some(kept.clone()),
        ..SpoolOptions::from(&auricle_core::Limits::default())
    };
    (Spool::open(dir.join("spool"), options).unwrap(), kept)
}

impl Rig {
    fn new(ring: &Keyring, bytes_max: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (spool, kept) = open(dir.path(), ring, bytes_max);
        Self { dir, spool, kept }
    }

    /// The numbers of the frames that are kept of a conversation.
    fn frames(&self, conversation: &str) -> Vec<u64> {
        frames(&self.kept, conversation)
    }

    fn spooled(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("spool")).unwrap().count()
    }
}

fn frames(kept: &KeptAudio, conversation: &str) -> Vec<u64> {
    let runs = kept.runs(&"ann".into(), &conversation.into()).unwrap();
    let frames = runs.iter().flat_map(|run| run.frames().collect::<Vec<_>>());
    frames
        .map(|each| {
            let number = each.position / u64::from(FRAME_SAMPLES);
            assert_eq!((each.bytes, each.samples), (frame(number), FRAME_SAMPLES));
            number
        })
        .collect()
}

#[test]
fn what_is_not_needed_any_more_is_kept_whole_and_once() {
    for ring in [Keyring::default(), ring()] {
        let rig = Rig::new(&ring, u64::MAX);
        let mut run = rig.spool.begin(header("r1", "c1"));
        for part in 0..10 {
            feed(&mut run, part * 30..(part + 1) * 30);
            run.covered(sample(part * 30 + 20));
            rig.spool.settle();
        }
        assert!(!rig.frames("c1").is_empty(), "what is covered goes while the run is live");
        assert!(rig.frames("c1").len() < 300);
        run.finish();
        rig.spool.settle();
        assert_eq!(rig.frames("c1"), (0..300).collect::<Vec<_>>());
        assert_eq!((rig.spool.disk_bytes(), rig.spooled()), (0, 0));
        let of = rig.kept.bytes_of(&"ann".into(), &"c1".into()).unwrap();
        assert!(of > 300 * 80 && of == rig.kept.bytes(), "{of} {}", rig.kept.bytes());
        // Another process finds the same.
        let (_, again) = open(rig.dir.path(), &ring, u64::MAX);
        assert_eq!((again.bytes(), frames(&again, "c1").len()), (of, 300));
        assert!(again.runs(&"bob".into(), &"c1".into()).unwrap().is_empty());
        assert!(again.runs(&"ann".into(), &"c2".into()).unwrap().is_empty());
    }
}

#[test]
fn a_short_run_that_was_never_written_is_kept_too() {
    let rig = Rig::new(&Keyring::default(), u64::MAX);
    let mut run = rig.spool.begin(header("r1", "c1"));
    feed(&mut run, 0..3);
    run.covered(sample(3));
    run.finish();
    rig.spool.settle();
    assert_eq!(rig.frames("c1"), [0, 1, 2]);
    rig.spool.begin(header("r2", "c2")).finish();
    rig.spool.settle();
    assert!(rig.frames("c2").is_empty());
}

#[test]
fn what_repair_has_heard_is_kept_and_what_nobody_needs_is_not() {
    let rig = Rig::new(&Keyring::default(), u64::MAX);
    for (run, conversation) in [("r1", "c1"), ("r2", "c2")] {
        let mut run = rig.spool.begin(header(run, conversation));
        feed(&mut run, 0..100);
        run.covered(sample(60));
        run.abandon();
    }
    rig.spool.settle();
    for leftover in rig.spool.leftovers().unwrap() {
        if leftover.header().run == "r1" { leftover.release().unwrap() } else { leftover.remove().unwrap() }
    }
    assert_eq!(rig.frames("c1"), (0..100).collect::<Vec<_>>());
    assert_eq!((rig.spool.disk_bytes(), rig.spooled()), (0, 0));
    let mut of = rig.frames("c2");
    of.dedup();
    assert!(of.len() < 60, "what was let go before is the keeper's to sweep: {}", of.len());
}

#[test]
fn p4_a_crash_half_way_loses_and_doubles_nothing() {
    let rig = Rig::new(&Keyring::default(), u64::MAX);
    let mut run = rig.spool.begin(header("r0", "c0"));
    feed(&mut run, 0..10);
    run.finish();
    let mut run = rig.spool.begin(header("r1", "c1"));
    feed(&mut run, 0..200);
    run.abandon();
    rig.spool.settle();
    for mut leftover in rig.spool.leftovers().unwrap() {
        leftover.cover(sample(200)).unwrap();
    }
    // As a process leaves it that was killed after the mark, the header and two of the chunks.
    let from = rig.dir.path().join("spool/run-r1");
    let user = std::fs::read_dir(rig.dir.path().join("audio/runs")).unwrap().next().unwrap().unwrap().path();
    let to = user.join("c-c1/run-r1");
    std::fs::create_dir_all(&to).unwrap();
    std::fs::copy(from.join("header"), to.join("header")).unwrap();
    for chunk in ["00000001.chunk", "00000002.chunk"] {
        std::fs::rename(from.join(chunk), to.join(chunk)).unwrap();
    }
    assert!(from.join("00000003.chunk").exists());
    let (spool, kept) = open(rig.dir.path(), &Keyring::default(), u64::MAX);
    assert!(spool.leftovers().unwrap().is_empty(), "nothing is left to hear");
    assert_eq!(frames(&kept, "c1"), (0..200).collect::<Vec<_>>());
    assert_eq!((spool.disk_bytes(), rig.spooled()), (0, 0));
    let of = |id: &str| kept.bytes_of(&"ann".into(), &id.into()).unwrap();
    assert_eq!(kept.bytes(), of("c0") + of("c1"));
}

#[test]
fn full_is_not_kept_and_recording_does_not_suffer() {
    let rig = Rig::new(&Keyring::default(), 6_000);
    let mut run = rig.spool.begin(header("r1", "c1"));
    for part in 0..10 {
        feed(&mut run, part * 30..(part + 1) * 30);
        run.covered(sample((part + 1) * 30));
        rig.spool.settle();
    }
    assert_eq!(run.lost_samples(), 0);
    run.finish();
    rig.spool.settle();
    assert!(rig.kept.bytes() <= 6_000);
    assert_eq!((rig.spool.disk_bytes(), rig.spooled()), (0, 0), "what is not kept is gone");
    // Room comes back with what is deleted.
    rig.kept.forget(&"ann".into(), &"c1".into()).unwrap();
    assert_eq!(rig.kept.bytes(), 0);
    let mut run = rig.spool.begin(header("r2", "c2"));
    feed(&mut run, 0..10);
    run.finish();
    rig.spool.settle();
    assert_eq!(rig.frames("c2").len(), 10);
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written_costs_what_would_be_kept_and_nothing_else() {
    let rig = Rig::new(&Keyring::default(), u64::MAX);
    // A file where a folder is to be: no user, however mighty, can make one there.
    std::fs::remove_dir(rig.dir.path().join("audio/runs")).unwrap();
    std::fs::write(rig.dir.path().join("audio/runs"), "in the way").unwrap();
    let mut run = rig.spool.begin(header("r1", "c1"));
    feed(&mut run, 0..100);
    run.covered(sample(50));
    feed(&mut run, 100..120);
    run.finish();
    rig.spool.settle();
    assert_eq!((rig.spool.disk_bytes(), rig.spooled(), rig.kept.bytes()), (0, 0, 0));
}

#[test]
fn sealed_audio_stays_sealed_and_says_which_key_is_missing() {
    let rig = Rig::new(&ring(), u64::MAX);
    let mut run = rig.spool.begin(header("r1", "c1"));
    feed(&mut run, 0..100);
    run.finish();
    rig.spool.settle();
    assert_eq!(rig.frames("c1").len(), 100);
    let needle = frame(7);
    let mut files = Vec::new();
    let mut folders = vec![rig.dir.path().join("audio")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(needle.len()).any(|window| window == needle), "{}", file.display());
    }
    let (_, without) = open(rig.dir.path(), &Keyring::default(), u64::MAX);
    let Err(error) = without.runs(&"ann".into(), &"c1".into()) else { panic!("opened without a key") };
    assert!(error.to_string().contains("old_key_files"), "{error}");
}

#[test]
fn audio_is_listed_with_its_age_and_goes_with_its_conversation_or_user() {
    let rig = Rig::new(&Keyring::default(), u64::MAX);
    for (run, conversation) in [("r1", "c1"), ("r2", "c1"), ("r3", "named by a client / ü")] {
        let mut run = rig.spool.begin(header(run, conversation));
        feed(&mut run, 0..50);
        run.finish();
    }
    rig.spool.settle();
    let mut listed = rig.kept.conversations().unwrap();
    listed.sort_by(|a, b| a.conversation.cmp(&b.conversation));
    let ids: Vec<_> = listed.iter().map(|each| each.conversation.as_str()).collect();
    assert_eq!(ids, ["c1", "named by a client / ü"]);
    assert!(listed.iter().all(|each| each.age().as_secs() < 600));
    rig.kept.discard(&listed[1]).unwrap();
    assert_eq!(rig.frames("c1").len(), 100, "of both runs");

    let vault = Vault::open(rig.dir.path().join("uploads"), Keyring::default(), 1 << 20).unwrap();
    let mut draft = vault.create(&"ann".into(), &"f1".into(), 1_000).unwrap();
    draft.write(b"a recording").unwrap();
    draft.keep().unwrap();
    let before = rig.kept.bytes();
    assert!(rig.kept.adopt_upload(&vault, &"ann".into(), &"f1".into()));
    assert_eq!(vault.bytes(), 0);
    assert!(rig.kept.bytes() > before);
    assert_eq!(rig.kept.uploads().read(&"ann".into(), &"f1".into()).unwrap().length(), 11);
    assert!(!rig.kept.adopt_upload(&vault, &"ann".into(), &"f1".into()), "it is not there any more");
    rig.kept.forget_user(&"ann".into()).unwrap();
    assert_eq!(rig.kept.bytes(), 0);
    assert!(rig.frames("c1").is_empty());
    assert!(rig.kept.uploads().read(&"ann".into(), &"f1".into()).is_err());
    assert!(std::fs::read_dir(rig.dir.path().join("audio/runs")).unwrap().next().is_none());
}
