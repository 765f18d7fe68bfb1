//! What the SQLite store refuses to open, and that it leaves it as it was.

#![allow(clippy::unwrap_used, reason = "tests, and the child processes they start")]

use std::path::Path;

use auricle_store::{SqliteOptions, SqliteStore, Store, StoreError};
use rusqlite::Connection;

/// Opening fails with a message that says this, and no byte of the file changes.
fn refused(path: &Path, says: &str) {
    let before = std::fs::read(path).unwrap();
    let error = match SqliteStore::open(path, SqliteOptions::default()) {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    };
    assert!(matches!(error, StoreError::Damaged(_)), "{error}");
    assert!(error.to_string().contains(says), "{error}");
    assert!(std::fs::read(path).unwrap() == before, "the file changed");
}

async fn made(path: &Path) {
    let store = SqliteStore::open(path, SqliteOptions::default()).unwrap();
    store.ensure_user(&"ann".into(), auricle_core::UnixMicros(0)).await.unwrap();
    store.close().await;
    // The readers' connections close a moment later; opening once more checkpoints the log.
    let db = Connection::open(path).unwrap();
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}

#[tokio::test]
async fn what_was_stored_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    made(&path).await;
    let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    assert!(!store.ensure_user(&"ann".into(), auricle_core::UnixMicros(0)).await.unwrap());
}

#[test]
fn an_empty_file_is_a_new_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    std::fs::write(&path, b"").unwrap();
    SqliteStore::open(&path, SqliteOptions::default()).unwrap();
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for content in [&b"hello"[..], &[0; 8192]] {
        let path = folder.path().join("a.db");
        std::fs::write(&path, content).unwrap();
        refused(&path, "not an SQLite database");
    }
}

#[test]
fn another_applications_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)").unwrap();
    drop(db);
    refused(&path, "another application");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    made(&path).await;
    let db = Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    refused(&path, "newer version");
}

#[tokio::test]
async fn a_damaged_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    made(&path).await;
    let mut bytes = std::fs::read(&path).unwrap();
    let length = bytes.len();
    for byte in &mut bytes[4096..length / 2] {
        *byte ^= 0x5a;
    }
    std::fs::write(&path, bytes).unwrap();
    refused(&path, "restore it from a backup");
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("a.db"), SqliteOptions::default()).unwrap();
    store.close().await;
    store.close().await;
    assert!(matches!(
        store.ensure_user(&"ann".into(), auricle_core::UnixMicros(0)).await,
        Err(StoreError::Busy(_))
    ));
    assert!(matches!(store.time_zone(&"ann".into()).await, Err(StoreError::Busy(_))));
}

/// A store as the third schema made it, with one record that has two action items.
fn made_by_the_third_schema(path: &Path) {
    let db = Connection::open(path).unwrap();
    for migration in [
        include_str!("../src/sqlite/migrations/0001_first.sql"),
        include_str!("../src/sqlite/migrations/0002_speaker_samples.sql"),
        include_str!("../src/sqlite/migrations/0003_away.sql"),
    ] {
        db.execute_batch(migration).unwrap();
    }
    let structured = r#"{"title":"Roof","overview":"It leaks.","emoji":"🏠","category":"home","events":[],"action_items":[
        {"description":"Call the roofer","completed":false,"created_at":7,"updated_at":8,"due_at":9,"completed_at":null},
        {"description":"Buy a bucket","completed":true,"created_at":null,"updated_at":null,"due_at":null,"completed_at":5}]}"#;
    let structured = structured.replace("\"home\"", "\"other\"");
    db.execute("INSERT INTO users (id, created_at) VALUES ('ann', 0)", []).unwrap();
    let insert = "INSERT INTO conversations (id, user, created_at, started_at, finished_at, source, stream_source, status, \
        revision, structured, timeout_us) VALUES (?1, 1, 3, 3, 4, 'omi', 'omi', ?2, 1, ?3, 1)";
    db.execute(insert, ["c1", "completed", &structured]).unwrap();
    db.execute(insert, rusqlite::params!["c2", "processing", None::<String>]).unwrap();
    db.pragma_update(None, "application_id", 0x4175_7269).unwrap();
    db.pragma_update(None, "user_version", 3).unwrap();
}

#[tokio::test]
async fn records_of_an_older_schema_keep_their_action_items() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    made_by_the_third_schema(&path);
    let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    let ann = auricle_core::UserId::from("ann");
    let filter = auricle_store::ActionItemFilter { limit: 10, ..Default::default() };
    let mut found = store.action_items(&ann, filter).await.unwrap();
    found.sort_by_key(|item| item.created_at);
    let at = |item: &auricle_store::ActionItemRecord| (item.created_at.0, item.due_at.map(|due| due.0));
    assert_eq!(found.iter().map(at).collect::<Vec<_>>(), [(3, None), (7, Some(9))]);
    assert_eq!((found[0].completed, found[0].completed_at.map(|at| at.0)), (true, Some(5)));
    assert!(found.iter().all(|item| item.id.as_str().len() == 36 && item.id.as_str().as_bytes()[14] == b'4'));
    let conversation = store.conversation(&ann, &"c1".into()).await.unwrap().unwrap();
    let shown: Vec<_> =
        conversation.structured.action_items.iter().map(|item| item.description.as_str()).collect();
    assert_eq!(shown, ["Call the roofer", "Buy a bucket"]);
    assert_eq!(conversation.structured.overview, "It leaks.");
}
