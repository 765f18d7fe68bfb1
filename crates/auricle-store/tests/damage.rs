//! Rows that no code of ours would write, and rows larger than others' stores take.

#![allow(clippy::unwrap_used, reason = "what a test stands on must hold")]

use std::path::PathBuf;

use auricle_store::conformance::{Ground, batch, completion, ending, segment};
use auricle_store::{Finalised, SqliteOptions, SqliteStore, StoreError};

fn ground() -> (Ground, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auricle.db");
    let open = || SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    let (store, other) = (open(), open());
    (Ground { store, other, keep: Box::new(folder) }, path)
}

fn spoil(path: &PathBuf, sql: &str) {
    let db = rusqlite::Connection::open(path).unwrap();
    assert_eq!(db.execute(sql, []).unwrap(), 1);
}

#[tokio::test]
async fn l33_a_transcript_that_cannot_be_read_is_damaged_and_never_empty() {
    let (ground, path) = ground();
    let owner = ground.live("c1").await;
    ground.store.append_segments(batch(&owner, 1, &[segment("s1", 0.0, "hello")])).await.unwrap();
    spoil(&path, "UPDATE segments SET translations = 'not JSON'");
    let read = ground.store.conversation(&"ann".into(), &"c1".into()).await;
    assert!(matches!(read, Err(StoreError::Damaged(_))), "{read:?}");
    // Ending it deletes nothing.
    let ended = ground.store.finalise(ending(&owner.conversation, Some(&owner), "job", 2)).await.unwrap();
    assert!(matches!(ended, Finalised::Queued { .. }), "{ended:?}");
    spoil(&path, "UPDATE segments SET translations = NULL");
    assert_eq!(ground.segment_ids("ann", "c1").await, ["s1".into()]);
}

#[tokio::test]
async fn l13_a_place_that_cannot_be_read_costs_only_itself() {
    let (ground, path) = ground();
    ground.ended("c1", "hello").await;
    spoil(&path, "UPDATE conversations SET geolocation = '{''latitude'': 40.4}'");
    let found = ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    assert_eq!((found.geolocation, found.segments.len()), (None, 1));
}

#[tokio::test]
async fn l30_a_conversation_of_many_mebibytes_is_stored_ended_and_read() {
    let (ground, _) = ground();
    let owner = ground.live("c1").await;
    let text = "word ".repeat(2_000);
    for part in 0..40_i64 {
        let segments: Vec<_> =
            (0..10).map(|n| segment(&format!("s{part}-{n}"), (part * 10 + n) as f64, &text)).collect();
        ground.store.append_segments(batch(&owner, part, &segments)).await.unwrap();
    }
    let ended = ground.store.finalise(ending(&owner.conversation, Some(&owner), "job", 50)).await.unwrap();
    assert!(matches!(ended, Finalised::Queued { .. }));
    let claimed = ground.claim("p1", 60).await;
    ground.store.complete_job(completion(&claimed.lease, "Long", 61)).await.unwrap();
    let found = ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    let bytes: usize = found.segments.iter().map(|segment| segment.text.len()).sum();
    assert!(bytes > 3 * 1024 * 1024 && found.structured.title == "Long", "{bytes}");
}
