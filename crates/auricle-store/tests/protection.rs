//! Texts under a key: what lies on disk, what happens to an old store, to a rotated key, a lost one, and to damage.

#![allow(clippy::unwrap_used, reason = "what a test stands on must hold")]

use std::path::Path;
use std::sync::Arc;

use auricle_core::{Geolocation, Photo, TargetKind, Translation, Trigger};
use auricle_store::conformance::{Ground, LEASE, action_item, at, batch, completion, ending, segment};
use auricle_store::protect::{Keyring, RootKey};
use auricle_store::{
    ActionItemEdit, ActionItemFilter, AttemptOutcome, Embedded, Finalised, MemoryFilter, NewMessage,
    NewTarget, Sealing, Sensitive, SqliteOptions, SqliteStore, Store, StoreError, TargetSettings,
};
use proptest::prelude::{ProptestConfig, any, prop, proptest};

/// A spoken word, in each column that can hold one.
const SPOKEN: &str = "xylophone";

fn key(byte: &str) -> RootKey {
    RootKey::from_text(&byte.repeat(32), "the test's key").unwrap()
}

fn ring(current: Option<&str>, old: &[&str]) -> Keyring {
    Keyring::new(current.map(key), old.iter().map(|byte| key(byte)).collect())
}

fn try_open(folder: &Path, ring: Keyring) -> Result<Arc<SqliteStore>, StoreError> {
    SqliteStore::open(folder.join("auricle.db"), SqliteOptions { ring, ..SqliteOptions::default() })
}

fn open(folder: &Path, ring: Keyring) -> Arc<SqliteStore> {
    try_open(folder, ring).unwrap()
}

/// How often the word stands in the bytes of the store's files, in any case.
fn found_on_disk(folder: &Path) -> usize {
    let files = std::fs::read_dir(folder).unwrap();
    let count = |bytes: Vec<u8>| {
        bytes.windows(SPOKEN.len()).filter(|window| window.eq_ignore_ascii_case(SPOKEN.as_bytes())).count()
    };
    files.map(|file| count(std::fs::read(file.unwrap().path()).unwrap())).sum()
}

/// Everything that can hold the word holds it.
async fn fill(store: &Arc<SqliteStore>) {
    fill_conversations(store).await;
    fill_beside(store).await;
}

/// Two conversations that hold the word wherever there is room for it: `c1` completed, `c2` live.
async fn fill_conversations(store: &Arc<SqliteStore>) {
    let ground = Ground { store: store.clone(), other: store.clone(), keep: Box::new(()) };
    let owner = ground.live("c1").await;
    let said = format!("I play the {SPOKEN} on Tuesdays");
    let mut first = segment("s1", 0.0, &said);
    first.translations = vec![Translation { lang: "es".into(), text: format!("toco el {SPOKEN}") }];
    store.append_segments(batch(&owner, 1, &[first, segment("s2", 2.0, &said)])).await.unwrap();
    // Changed and absorbed texts must go, too.
    let mut merged = batch(&owner, 2, &[segment("s1", 0.0, &format!("{said} and {SPOKEN} again"))]);
    merged.delete = vec!["s2".into()];
    store.append_segments(merged).await.unwrap();
    let photo = Photo {
        id: "p1".into(),
        base64: SPOKEN.repeat(3_000),
        description: Some(format!("a {SPOKEN}")),
        created_at: at(2),
        discarded: false,
    };
    store.append_photo(&owner, photo).await.unwrap();
    store.describe_photo(&"ann".into(), &"c1".into(), &"p1".into(), Some(SPOKEN), false).await.unwrap();
    let place = Geolocation {
        google_place_id: None,
        latitude: 40.4,
        longitude: -3.7,
        address: Some(format!("{SPOKEN} street")),
        location_type: None,
    };
    store.set_geolocation(&"ann".into(), &"c1".into(), &place).await.unwrap();
    store.finalise(ending(&"c1".into(), Some(&owner), "job-c1", 3)).await.unwrap();
    let claimed = ground.claim("p1", 4).await;
    store.record_step(&claimed.lease, "understand", &format!("{{\"{SPOKEN}\":1}}"), at(4)).await.unwrap();
    let mut done = completion(&claimed.lease, &format!("The {SPOKEN}"), 5);
    done.effects[0].id = "e1".into();
    done.effects[0].payload = format!("{{\"{SPOKEN}\":1}}");
    done.structured.action_items =
        vec![action_item(&format!("Tune the {SPOKEN}")), action_item(&format!("Sell the {SPOKEN}"))];
    done.memories = vec![format!("Plays the {SPOKEN}")];
    store.complete_job(done).await.unwrap();
    let items = store
        .action_items(&"ann".into(), ActionItemFilter { limit: 10, ..ActionItemFilter::default() })
        .await
        .unwrap();
    let sold = items.iter().find(|item| item.description.starts_with("Sell")).unwrap();
    let edit =
        ActionItemEdit { description: Some(format!("Keep the {SPOKEN}")), ..ActionItemEdit::default() };
    store.edit_action_item(&"ann".into(), &sold.id, edit, at(5)).await.unwrap();
    let claim = store.claim_embedding(&"p1".into(), at(5), LEASE).await.unwrap().unwrap();
    let embedded = Embedded { segments: Some(("s1".into(), "s1".into())), vector: vec![1.0, 0.0] };
    store.complete_embedding(&claim, "model", vec![embedded]).await.unwrap();
    store.rename(&"ann".into(), &"c1".into(), &format!("My {SPOKEN}"), at(6)).await.unwrap();
    let owner = ground.live("c2").await;
    store.append_segments(batch(&owner, 7, &[segment("s1", 0.0, &said)])).await.unwrap();
}

/// An app, and what it said.
async fn fill_beside(store: &Arc<SqliteStore>) {
    let target = NewTarget {
        id: "t1".into(),
        user: "ann".into(),
        kind: TargetKind::App,
        settings: TargetSettings {
            name: "mine".into(),
            triggers: vec![Trigger::DaySummary],
            url: Sensitive::new(format!("http://localhost/{SPOKEN}")),
            host: "localhost:80".into(),
            audio_secs: 5,
        },
        secret: Sensitive::new(SPOKEN),
        now: at(5),
    };
    store.add_target(target).await.unwrap();
    store.person_named(&"ann".into(), SPOKEN, Some("p1".into()), at(5)).await.unwrap();
    let message = NewMessage {
        user: "ann".into(),
        target: "t1".into(),
        conversation: Some("c1".into()),
        key: "k".into(),
        text: format!("Well played, that {SPOKEN}"),
        now: at(5),
    };
    assert!(store.add_message(message).await.unwrap());
}

fn uses(folder: &Path) -> Vec<auricle_store::KeyUse> {
    SqliteStore::key_uses(folder.join("auricle.db"), &SqliteOptions::default()).unwrap()
}

/// Everything reads as it was given.
async fn check(store: &Arc<SqliteStore>) {
    let found = store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    assert_eq!(found.segments[0].text, format!("I play the {SPOKEN} on Tuesdays and {SPOKEN} again"));
    assert!(found.photos[0].base64.starts_with(SPOKEN));
    assert_eq!(found.photos[0].description.as_deref(), Some(SPOKEN));
    assert_eq!(found.structured.title, format!("The {SPOKEN}"));
    assert_eq!(found.user_title, Some(format!("My {SPOKEN}")));
    assert_eq!(found.geolocation.unwrap().address, Some(format!("{SPOKEN} street")));
    let steps = store.steps(&"c1".into(), found.revision).await.unwrap();
    assert_eq!(steps[0].result, format!("{{\"{SPOKEN}\":1}}"));
    assert_eq!(store.effects(&"c1".into()).await.unwrap()[0].payload, format!("{{\"{SPOKEN}\":1}}"));
    let mut items: Vec<_> =
        found.structured.action_items.iter().map(|item| item.description.clone()).collect();
    items.sort_unstable();
    assert_eq!(items, [format!("Keep the {SPOKEN}"), format!("Tune the {SPOKEN}")]);
    let records = store.search_records(&"ann".into(), &format!("{SPOKEN}s "), 10).await.unwrap();
    let mut marked: Vec<_> = records.iter().map(|(_, marked)| marked.as_str()).collect();
    marked.sort_unstable();
    let in_marks = format!("\u{2}{SPOKEN}\u{3}");
    let expected =
        [format!("Keep the {in_marks}"), format!("Plays the {in_marks}"), format!("Tune the {in_marks}")];
    assert_eq!(marked, expected);
    let memories =
        store.memories(&"ann".into(), MemoryFilter { limit: 10, ..MemoryFilter::default() }).await.unwrap();
    assert_eq!(memories[0].text, format!("Plays the {SPOKEN}"));
    let messages = store.messages(&"ann".into(), 10, 0).await.unwrap();
    assert_eq!(messages[0].text, format!("Well played, that {SPOKEN}"));
    assert_eq!(store.people(&"ann".into()).await.unwrap()[0].name, SPOKEN);
    let recipient = store.recipient(&"ann".into(), &"t1".into()).await.unwrap().unwrap();
    assert_eq!(recipient.secret.expose(), SPOKEN);
    assert_eq!(recipient.settings.url.expose(), format!("http://localhost/{SPOKEN}"));
    let near = store.nearest(&"ann".into(), "model", vec![1.0, 0.0], 10).await.unwrap();
    let near = store.near_hits(&"ann".into(), near).await.unwrap();
    assert!(near[0].snippets[0].text.contains(SPOKEN), "{near:?}");
    let hits = store.search(&"ann".into(), &format!("{SPOKEN}s tuesday "), 10, 0).await.unwrap();
    let mut ids: Vec<_> = hits.iter().map(|hit| hit.conversation.id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["c1", "c2"]);
    assert!(hits.iter().all(|hit| hit.snippets[0].text.contains(&format!("\u{2}{SPOKEN}\u{3}"))), "{hits:?}");
}

async fn seal_all(store: &Arc<SqliteStore>) -> Sealing {
    for _ in 0..10_000 {
        let now = store.seal_some().await.unwrap();
        if now.done {
            return now;
        }
        if now.needs_compacting {
            return store.compact(u64::MAX).await.unwrap();
        }
    }
    panic!("sealing does not end");
}

#[tokio::test]
async fn under_a_key_no_file_holds_what_was_said() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), ring(Some("a1"), &[]));
    fill(&store).await;
    check(&store).await;
    assert_eq!(found_on_disk(folder.path()), 0);
    store.close().await;
    assert_eq!(found_on_disk(folder.path()), 0);
    // The same without a key, or the look above proves nothing.
    let plain = tempfile::tempdir().unwrap();
    let store = open(plain.path(), ring(None, &[]));
    fill(&store).await;
    assert!(found_on_disk(plain.path()) > 10);
}

#[tokio::test]
async fn an_old_store_is_sealed_while_it_serves_and_nothing_plain_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), ring(None, &[]));
    fill(&store).await;
    // Enough for many steps.
    let more = Ground { store: store.clone(), other: store.clone(), keep: Box::new(()) };
    let owner = more.live("c3").await;
    for number in 0..300 {
        let text = format!("{SPOKEN} number {number}");
        let one = segment(&format!("s{number}"), f64::from(number), &text);
        store.append_segments(batch(&owner, 10, &[one])).await.unwrap();
    }
    store.close().await;
    let mut shares = Vec::new();
    let mut steps = 0;
    loop {
        // Each step in a new process, as if every one had been killed.
        let store = open(folder.path(), ring(Some("a1"), &[]));
        let now = store.seal_some().await.unwrap();
        let hits = store.search(&"ann".into(), SPOKEN, 10, 0).await.unwrap();
        let ids: Vec<_> = hits.iter().map(|hit| hit.conversation.id.as_str()).collect();
        assert_eq!(hits.len(), 3, "found while half is sealed, {now:?}: {ids:?}");
        shares.push(now.share);
        steps += 1;
        if now.needs_compacting {
            assert!(!store.compact(1).await.unwrap().done, "too large for now");
            assert!(store.compact(u64::MAX).await.unwrap().done);
            assert_eq!(found_on_disk(folder.path()), 0);
            check_but_c3(&store).await;
            store.close().await;
            break;
        }
        store.close().await;
        assert!(steps < 1_000);
    }
    assert!(steps > 10 && shares.windows(2).all(|pair| pair[0] <= pair[1]), "{shares:?}");
}

async fn check_but_c3(store: &Arc<SqliteStore>) {
    store.delete(&"ann".into(), &"c3".into()).await.unwrap();
    check(store).await;
}

#[tokio::test]
async fn a_rotated_key_takes_over_everything_and_the_old_one_may_go() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), ring(Some("a1"), &[]));
    fill(&store).await;
    store.close().await;
    let error = try_open(folder.path(), ring(Some("b2"), &[])).err().unwrap().to_string();
    assert!(error.contains(&key("a1").id().to_string()), "{error}");
    let store = open(folder.path(), ring(Some("b2"), &["a1"]));
    check(&store).await;
    let under = |uses: Vec<auricle_store::KeyUse>, byte: &str| -> u64 {
        uses.iter().filter(|each| each.key == Some(key(byte).id())).map(|each| each.values).sum()
    };
    assert!(under(uses(folder.path()), "a1") > 5);
    let done = seal_all(&store).await;
    assert!(done.resealed > 5 && done.damaged == 0, "{done:?}");
    let found = uses(folder.path());
    assert_eq!(under(found.clone(), "a1"), 0);
    assert!(under(found.clone(), "b2") > 5 && found.iter().all(|each| each.key.is_some()), "{found:?}");
    store.close().await;
    let store = open(folder.path(), ring(Some("b2"), &[]));
    check(&store).await;
}

#[tokio::test]
async fn what_another_process_wrote_behind_the_pass_is_sealed_before_its_key_may_go() {
    let folder = tempfile::tempdir().unwrap();
    let old = open(folder.path(), ring(Some("a1"), &[]));
    fill(&old).await;
    let new = open(folder.path(), ring(Some("b2"), &["a1"]));
    loop {
        let now = new.seal_some().await.unwrap();
        if now.needs_compacting {
            break;
        }
    }
    // The process with the old key still runs.
    old.rename(&"ann".into(), &"c2".into(), "Late", at(9)).await.unwrap();
    old.close().await;
    assert!(!new.compact(u64::MAX).await.unwrap().done);
    assert!(seal_all(&new).await.done);
    new.close().await;
    let store = open(folder.path(), ring(Some("b2"), &[]));
    let found = store.conversation(&"ann".into(), &"c2".into()).await.unwrap().unwrap();
    assert_eq!(found.user_title.as_deref(), Some("Late"));
}

#[tokio::test]
async fn protection_is_turned_off_with_the_key_and_not_without() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), ring(Some("a1"), &[]));
    fill(&store).await;
    store.close().await;
    // Not its bytes: the last to close it writes its log into it, whoever that is.
    let before = format!("{:?}", uses(folder.path()));
    let error = try_open(folder.path(), ring(None, &[])).err().unwrap().to_string();
    assert!(error.contains("protection.key_file") && error.contains(&key("a1").id().to_string()), "{error}");
    assert_eq!(format!("{:?}", uses(folder.path())), before, "nothing was changed");
    let store = open(folder.path(), ring(None, &["a1"]));
    check(&store).await;
    assert!(seal_all(&store).await.done);
    store.close().await;
    check(&open(folder.path(), ring(None, &[]))).await;
}

#[tokio::test]
async fn l33_what_cannot_be_opened_is_damaged_content_and_never_silence() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), ring(Some("a1"), &[]));
    let ground = Ground { store: store.clone(), other: store.clone(), keep: Box::new(()) };
    let owner = ground.live("c1").await;
    let said = [segment("s1", 0.0, SPOKEN), segment("s2", 1.0, SPOKEN)];
    store.append_segments(batch(&owner, 1, &said)).await.unwrap();
    let db = rusqlite::Connection::open(folder.path().join("auricle.db")).unwrap();
    // One row's text in the place of another's.
    let swapped = db.execute(
        "UPDATE segments SET text = (SELECT text FROM segments WHERE id = 's2') WHERE id = 's1'",
        [],
    );
    assert_eq!(swapped.unwrap(), 1);
    let read = store.conversation(&"ann".into(), &"c1".into()).await;
    let error = read.unwrap_err();
    assert!(matches!(error, StoreError::Damaged(_)) && !error.to_string().contains(SPOKEN), "{error}");
    let ended = store.finalise(ending(&"c1".into(), Some(&owner), "job", 2)).await.unwrap();
    assert!(matches!(ended, Finalised::Queued { .. }), "{ended:?}");
    // A worker that meets it fails with the reason, and the conversation stays.
    let claimed = ground.claim("p1", 3).await;
    let failed = AttemptOutcome::Failed { error: error.to_string() };
    store.end_attempt(&claimed.lease, failed, at(4)).await.unwrap();
    let job = store.job(None, &"job".into()).await.unwrap().unwrap();
    assert!(job.last_error.unwrap().contains("cannot be opened"));
    // A new key leaves it as it is, says so, and keeps needing the old one.
    store.close().await;
    let store = open(folder.path(), ring(Some("b2"), &["a1"]));
    let done = seal_all(&store).await;
    assert_eq!((done.resealed, done.damaged), (1, 1));
    store.close().await;
    assert!(try_open(folder.path(), ring(Some("b2"), &[])).is_err());
}

#[tokio::test]
async fn a_deleted_conversation_leaves_no_byte_of_its_text() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), ring(None, &[]));
    fill_conversations(&store).await;
    store.close().await;
    // A key for one start: from then on deleting wipes.
    let store = open(folder.path(), ring(Some("a1"), &[]));
    seal_all(&store).await;
    store.delete(&"ann".into(), &"c1".into()).await.unwrap();
    store.delete(&"ann".into(), &"c2".into()).await.unwrap();
    // What the user worded outlives its conversation.
    let filter = ActionItemFilter { limit: 10, ..ActionItemFilter::default() };
    let kept = store.action_items(&"ann".into(), filter).await.unwrap();
    assert_eq!(kept.len(), 1);
    store.remove_action_item(&"ann".into(), &kept[0].id, at(8)).await.unwrap();
    store.close().await;
    assert_eq!(found_on_disk(folder.path()), 0);
    let db = rusqlite::Connection::open(folder.path().join("auricle.db")).unwrap();
    let sealed: i64 = db.query_row("SELECT count(*) FROM segments", [], |row| row.get(0)).unwrap();
    assert_eq!(sealed, 0);
    // The store's last connection may still be about to write its log into the file.
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let bytes = std::fs::read(folder.path().join("auricle.db")).unwrap();
    assert!(!bytes.windows(6).any(|window| window == b"seal1:"), "nor of what it was sealed into");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_text_comes_back_with_and_without_a_key(texts in prop::collection::vec(any::<String>(), 1..6), keyed: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let store = open(folder.path(), ring(keyed.then_some("a1"), &[]));
            let ground = Ground { store: store.clone(), other: store.clone(), keep: Box::new(()) };
            let owner = ground.live("c1").await;
            let said: Vec<_> =
                texts.iter().enumerate().map(|(n, text)| segment(&format!("s{n}"), n as f64, text)).collect();
            store.append_segments(batch(&owner, 1, &said)).await.unwrap();
            let found = store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
            assert_eq!(found.segments.into_iter().map(|each| each.text).collect::<Vec<_>>(), texts);
        });
    }
}
