//! The conformance suite on SQLite, with two handles on the same file as two processes have them.

use crate::conformance::Ground;
use crate::{SqliteOptions, SqliteStore};

fn ground() -> Ground {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auricle.db");
    let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    let other = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    Ground { store, other, keep: Box::new(folder) }
}

crate::store_conformance!(super::ground());
