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
