//! The conformance suite on SQLite, with two handles on the same file as two processes have them: plain, and under a key.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::sealing;
use crate::conformance::Ground;
use crate::protect::{Keyring, RootKey};
use crate::{SqliteOptions, SqliteStore};

fn open(path: &Path, ring: &Keyring) -> Arc<SqliteStore> {
    SqliteStore::open(path, SqliteOptions { ring: ring.clone(), ..SqliteOptions::default() }).unwrap()
}

fn ground(ring: &Keyring) -> Ground {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auricle.db");
    let blind = !ring.is_empty();
    Ground { store: open(&path, ring), other: open(&path, ring), blind, keep: Box::new(folder) }
}

fn ring() -> Keyring {
    Keyring::new(Some(RootKey::from_text(&"5a".repeat(32), "the test's key").unwrap()), Vec::new())
}

mod plain {
    crate::store_conformance!(crate::sqlite::tests::ground(&crate::protect::Keyring::default()));
}

mod sealed {
    crate::store_conformance!(crate::sqlite::tests::ground(&crate::sqlite::tests::ring()));
}

/// Every column of text is either sealed or known to hold nothing that was said: a new one must be decided about.
#[test]
fn every_text_column_is_sealed_or_known_to_need_none() {
    const NOT_SAID: &[&str] = &[
        "users.id",
        "users.time_zone",
        "api_keys.label",
        "processes.id",
        "conversations.id",
        "conversations.source",
        "conversations.stream_source",
        "conversations.language",
        "conversations.status",
        "conversations.provider",
        "conversations.provider_version",
        "conversations.discarded",
        "conversations.finalise_reason",
        "conversations.noted_reason",
        "conversations.failure",
        "conversations.client_id",
        "conversations.call_id",
        "conversations.gaps",
        "conversations.owner",
        "segments.id",
        "segments.speaker",
        "segments.person",
        "segments.provider",
        "photos.id",
        "recovered.run",
        "jobs.id",
        "jobs.reason",
        "jobs.state",
        "jobs.last_error",
        "jobs.leased_by",
        "steps.step",
        "effects.id",
        "effects.name",
        "effects.state",
        "effects.last_error",
        "effects.leased_by",
        "speaker_samples.person",
        "speaker_samples.segments",
        "protection_keys.id",
        "protection_pass.target",
        "protection_pass.phase",
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auricle.db");
    drop(open(&path, &Keyring::default()));
    let db = Connection::open(&path).unwrap();
    let mut query = db
        .prepare(
            "SELECT m.name || '.' || c.name FROM sqlite_master m, pragma_table_info(m.name) c \
             WHERE m.type = 'table' AND m.name NOT LIKE 'search%' AND c.type IN ('TEXT', 'ANY')",
        )
        .unwrap();
    let columns: Vec<String> =
        query.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    let sealed: Vec<String> =
        sealing::sealed_columns().iter().map(|(table, column)| format!("{table}.{column}")).collect();
    for column in &columns {
        let known = NOT_SAID.contains(&column.as_str());
        assert!(known != sealed.contains(column), "{column}: sealed, or listed as holding nothing said");
    }
    assert!(sealed.iter().all(|column| columns.contains(column)));
}
