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

fn key(byte: &str) -> RootKey {
    RootKey::from_text(&byte.repeat(32), "the test's key").unwrap()
}

/// Another process, with other keys.
fn with(rig: &Rig, ring: &Keyring) -> KeptAudio {
    KeptAudio::open(rig.dir.path().join("audio"), ring.clone(), u64::MAX).unwrap()
}

/// Brings all of it to the present key, some bytes at a time; how many files were.
fn reseal(kept: &KeptAudio, bytes_max: u64) -> (u64, u64) {
    let (mut files, mut left) = (0, 0);
    for conversation in kept.conversations().unwrap() {
        let mut before = Vec::new();
        loop {
            let done = kept.reseal(&conversation, bytes_max, &mut before).unwrap();
            (files, left) = (files + done.files, left + done.left);
            if !done.more {
                break;
            }
        }
    }
    (files, left)
}

fn below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// (what, how many files are under this key and how many are not).
fn under(rig: &Rig, ring: &Keyring) -> (u64, u64) {
    let uses = KeptAudio::key_uses(&rig.dir.path().join("audio")).unwrap();
    let sum = |wanted: bool| -> u64 {
        uses.iter().filter(|each| (each.key == ring.current()) == wanted).map(|each| each.values).sum()
    };
    (sum(true), sum(false))
}

/// Two runs, and an uploaded file, under the keys of `ring`.
fn recorded(ring: &Keyring) -> Rig {
    let rig = Rig::new(ring, u64::MAX);
    for (name, conversation) in [("r1", "c1"), ("r2", "c2")] {
        let mut run = rig.spool.begin(header(name, conversation));
        feed(&mut run, 0..150);
        run.finish();
    }
    rig.spool.settle();
    let vault = Vault::open(rig.dir.path().join("uploads"), ring.clone(), 1 << 20).unwrap();
    let mut draft = vault.create(&"ann".into(), &"f1".into(), 1 << 20).unwrap();
    draft.write(&upload()).unwrap();
    draft.keep().unwrap();
    assert!(rig.kept.adopt_upload(&vault, &"ann".into(), &"f1".into()));
    rig
}

/// More than two pieces.
fn upload() -> Vec<u8> {
    (0..150_000_u32).map(|byte| (byte % 251) as u8).collect()
}

fn uploaded(kept: &KeptAudio) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut file = kept.uploads().read(&"ann".into(), &"f1".into()).unwrap();
    std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
    bytes
}

#[test]
fn after_a_rotation_everything_is_under_the_new_key_as_old_and_as_much_as_before() {
    let (old, new) = (|| key("5a"), || key("a5"));
    let rings = [
        (Keyring::default(), Keyring::new(Some(new()), Vec::new()), Keyring::new(Some(new()), Vec::new())),
        (
            Keyring::new(Some(old()), Vec::new()),
            Keyring::new(Some(new()), vec![old()]),
            Keyring::new(Some(new()), Vec::new()),
        ),
        (Keyring::new(Some(old()), Vec::new()), Keyring::new(None, vec![old()]), Keyring::default()),
    ];
    for (before, both, after) in rings {
        let rig = recorded(&before);
        let files = below(&rig.dir.path().join("audio"));
        let age = |file: &std::path::PathBuf| std::fs::metadata(file).unwrap().modified().unwrap();
        let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        for file in &files {
            std::fs::File::options().write(true).open(file).unwrap().set_modified(long_ago).unwrap();
        }
        let count = files.len() as u64;
        assert_eq!(under(&rig, &both), (0, count));
        let kept = with(&rig, &both);
        assert_eq!(reseal(&kept, 3_000), (count - 1, 0), "all but the upload");
        let mut anew = kept.uploads().reseal(&"ann".into(), &"f1".into()).unwrap().unwrap();
        let mut steps = 1;
        while !anew.step(100_000).unwrap() {
            steps += 1;
        }
        assert_eq!(steps, 2);
        assert_eq!(under(&rig, &both), (count, 0));
        assert_eq!(below(&rig.dir.path().join("audio")), files, "and nothing else is left");
        assert!(files.iter().all(|file| age(file) == long_ago), "what is old stays old");
        // The old key is not needed any more.
        let alone = with(&rig, &after);
        for conversation in ["c1", "c2"] {
            assert_eq!(frames(&alone, conversation), (0..150).collect::<Vec<_>>());
        }
        assert_eq!(uploaded(&alone), upload());
        assert_eq!(kept.bytes(), alone.bytes(), "what is counted is what is there");
        assert_eq!(reseal(&alone, 3_000), (0, 0), "once is enough");
    }
}

#[test]
fn a_rotation_that_stops_anywhere_goes_on_and_everything_can_be_heard_meanwhile() {
    let (before, both) =
        (Keyring::new(Some(key("5a")), Vec::new()), Keyring::new(Some(key("a5")), vec![key("5a")]));
    let rig = recorded(&before);
    let all = under(&rig, &both).1;
    let mut done = 0;
    while done < all - 1 {
        // Each time a process that was killed after a step, with a draft half written.
        let kept = with(&rig, &both);
        for conversation in kept.conversations().unwrap() {
            done += kept.reseal(&conversation, 1, &mut Vec::new()).unwrap().files;
        }
        for file in below(&rig.dir.path().join("audio/runs")) {
            std::fs::write(file.with_extension("sealing"), "half").unwrap();
        }
        let mut anew = kept.uploads().reseal(&"ann".into(), &"f1".into()).unwrap().unwrap();
        assert!(!anew.step(1).unwrap());
        // Neither its drop nor its end.
        std::mem::forget(anew);
        for conversation in ["c1", "c2"] {
            assert_eq!(frames(&kept, conversation), (0..150).collect::<Vec<_>>());
        }
        assert_eq!((uploaded(&kept), under(&rig, &both)), (upload(), (done, all - done)));
    }
    let kept = with(&rig, &both);
    let mut anew = kept.uploads().reseal(&"ann".into(), &"f1".into()).unwrap().unwrap();
    while !anew.step(1 << 20).unwrap() {}
    assert_eq!(under(&rig, &both), (all, 0));
    assert_eq!(kept.bytes(), with(&rig, &both).bytes());
}

#[test]
fn what_does_not_open_stays_as_it_is_and_what_is_deleted_meanwhile_stays_deleted() {
    let (before, both) =
        (Keyring::new(Some(key("5a")), Vec::new()), Keyring::new(Some(key("a5")), vec![key("5a")]));
    let rig = recorded(&before);
    let runs = below(&rig.dir.path().join("audio/runs"));
    let chunks: Vec<_> = runs.iter().filter(|file| file.extension().is_some()).collect();
    // A chunk with a torn end, and a run without a header.
    let mut bytes = std::fs::read(chunks[0]).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(chunks[0], &bytes).unwrap();
    let header = runs.iter().rfind(|file| file.extension().is_none()).unwrap();
    std::fs::write(header, "no header").unwrap();
    let kept = with(&rig, &both);
    let of_the_last = chunks.iter().filter(|file| file.parent() == header.parent()).count() as u64;
    let (files, left) = reseal(&kept, 2_000);
    assert_eq!((files, left), (runs.len() as u64 - 1 - of_the_last, of_the_last));
    let first = std::fs::read(chunks[0]).unwrap();
    assert_eq!(first[first.len() - 1], bytes[last], "the torn end is kept");
    // A key that is not there.
    let third = with(&rig, &Keyring::new(Some(key("33")), Vec::new()));
    let (files, left) = reseal(&third, 2_000);
    assert_eq!((files, left), (0, runs.len() as u64 - 1));

    let mut anew = kept.uploads().reseal(&"ann".into(), &"f1".into()).unwrap().unwrap();
    assert!(!anew.step(1).unwrap());
    kept.uploads().remove(&"ann".into(), &"f1".into()).unwrap();
    while !anew.step(1 << 20).unwrap() {}
    drop(anew);
    assert!(!kept.uploads().has(&"ann".into(), &"f1".into()));
    let listed = kept.conversations().unwrap();
    kept.forget_user(&"ann".into()).unwrap();
    for conversation in listed {
        assert_eq!(kept.reseal(&conversation, 1 << 20, &mut Vec::new()).unwrap().files, 0);
    }
    assert_eq!((below(&rig.dir.path().join("audio")), kept.bytes()), (Vec::new(), 0));
    assert!(kept.uploads().reseal(&"ann".into(), &"f1".into()).unwrap().is_none());
}
