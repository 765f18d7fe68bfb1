//! Opening the database file: refuses what is not ours before touching it, sets up connections, applies migrations.
//!
//! Order: the raw header is read first (no SQLite involved), then a read-only connection checks version and integrity,
//! and only then a writing connection is made. A refused file keeps every byte.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::db::Db;
use super::{SqliteOptions, sealing, search};
use crate::clock;
use crate::store::{Result, StoreError};

/// `Auri` in ASCII: marks our files among all SQLite files.
pub(super) const APPLICATION_ID: i32 = 0x4175_7269;

/// In order; the n-th brings `user_version` to n.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_first.sql"),
    include_str!("migrations/0002_speaker_samples.sql"),
    include_str!("migrations/0003_away.sql"),
    include_str!("migrations/0004_stand_ins.sql"),
    include_str!("migrations/0005_records.sql"),
    include_str!("migrations/0006_embeddings.sql"),
    include_str!("migrations/0007_targets.sql"),
    include_str!("migrations/0008_messages.sql"),
    include_str!("migrations/0009_protection.sql"),
    include_str!("migrations/0010_deleting_users.sql"),
    include_str!("migrations/0011_uploads.sql"),
    include_str!("migrations/0012_search_versions.sql"),
    include_str!("migrations/0013_days.sql"),
    include_str!("migrations/0014_people.sql"),
    include_str!("migrations/0015_translation.sql"),
    include_str!("migrations/0016_revisions.sql"),
];

/// How many prepared statements a connection keeps; more than there are distinct statements in this crate.
const STATEMENTS_MAX: usize = 384;
/// Pages of WAL after which a commit copies them into the main file: 4 MiB.
const AUTOCHECKPOINT_PAGES: u32 = 1_000;
/// What a WAL file is cut down to after a checkpoint.
const WAL_BYTES_KEPT: u64 = 16 * 1024 * 1024;
/// How many SQLite instructions pass between two looks at the clock during the integrity check.
const CHECK_INSTRUCTIONS: i32 = 20_000;

/// Opens for writing, checked and migrated.
pub(super) fn writer(path: &Path, options: &SqliteOptions) -> Result<Db> {
    inspect(path, options)?;
    let mut db = connect(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        options.lock_wait_max,
    )?;
    migrate(&mut db, path)?;
    // After the first migration's commit: a crash before it leaves an empty file, which counts as new.
    db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0)).map_err(StoreError::from).and_then(
        |mode| match mode.as_str() {
            "wal" => Ok(()),
            other => Err(StoreError::Other(format!(
                "the file system does not allow write-ahead logging (journal mode stays {other}); put the data folder on a local disk"
            ))),
        },
    )?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "wal_autocheckpoint", AUTOCHECKPOINT_PAGES)?;
    db.pragma_update(None, "journal_size_limit", i64::try_from(WAL_BYTES_KEPT).unwrap_or(i64::MAX))?;
    if let Some(bytes) = options.size_bytes_max {
        let page: i64 = db.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
        db.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    }
    let db = Db::new(db, options.ring.clone());
    sealing::admit(&db).map_err(|error| named(path, error))?;
    Ok(db)
}

/// Opens for reading. The file exists and is ours.
pub(super) fn reader(path: &Path, options: &SqliteOptions) -> Result<Db> {
    let db = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY, options.lock_wait_max)?;
    search::prepare_excerpts(&db)?;
    Ok(Db::new(db, options.ring.clone()))
}

fn connect(path: &Path, flags: OpenFlags, lock_wait_max: Duration) -> Result<Connection> {
    let db = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| named(path, error.into()))?;
    db.busy_timeout(lock_wait_max)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // Else a statement whose plan could depend on a value, as every `LIMIT ?` does, is parsed again for each value.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    db.pragma_update(None, "foreign_keys", true)?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(db)
}

fn named(path: &Path, error: StoreError) -> StoreError {
    let place = path.display();
    match error {
        StoreError::Damaged(why) => StoreError::Damaged(format!("{place}: {why}; restore it from a backup")),
        StoreError::Other(why) => StoreError::Other(format!("{place}: {why}")),
        other => other,
    }
}

/// Refuses a file that is not ours, is newer than this program, or is damaged. Writes nothing.
pub(super) fn inspect(path: &Path, options: &SqliteOptions) -> Result<()> {
    let Some(header) = header(path)? else { return Ok(()) };
    let place = path.display();
    if !header.starts_with(b"SQLite format 3\0") {
        return Err(StoreError::Damaged(format!(
            "{place} is not an SQLite database (its first bytes differ); move it away or name another data folder"
        )));
    }
    let field = |at: usize| i32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let application = field(68);
    if application != APPLICATION_ID {
        return Err(StoreError::Damaged(format!(
            "{place} belongs to another application (application id {application:#x}, expected {APPLICATION_ID:#x}); name another data folder"
        )));
    }
    refuse_newer(path, field(60))?;
    let mut journal = path.as_os_str().to_owned();
    journal.push("-journal");
    if Path::new(&journal).exists() {
        // A crash during the very first migration: only a writing connection may roll it back.
        return Ok(());
    }
    let mut db = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY, options.lock_wait_max)
        .map_err(|error| named(path, error))?;
    // The newest version may stand in the write-ahead log only.
    let version = user_version(&db).map_err(|error| named(path, error))?;
    refuse_newer(path, version)?;
    quick_check(&mut db, options.check_max).map_err(|error| named(path, error))
}

/// The file's first 100 bytes; `None` if it does not exist or is empty.
fn header(path: &Path) -> Result<Option<[u8; 100]>> {
    let unreadable =
        |error: std::io::Error| StoreError::Other(format!("{} cannot be read: {error}", path.display()));
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    if file.metadata().map_err(unreadable)?.len() == 0 {
        return Ok(None);
    }
    let mut header = [0; 100];
    let mut filled = 0;
    while filled < header.len() {
        match file.read(&mut header[filled..]).map_err(unreadable)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(Some(header))
}

fn refuse_newer(path: &Path, version: i32) -> Result<()> {
    let known = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
    if version > known {
        return Err(StoreError::Damaged(format!(
            "{} was written by a newer version of this program (schema {version}, this one knows {known}); upgrade the program",
            path.display()
        )));
    }
    Ok(())
}

fn user_version(db: &Connection) -> Result<i32> {
    Ok(db.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

/// Looks for damage, for at most `limit`: a large file is checked as far as the time reaches.
fn quick_check(db: &mut Connection, limit: Duration) -> Result<()> {
    let until = clock::monotonic() + limit;
    db.progress_handler(CHECK_INSTRUCTIONS, Some(move || clock::monotonic() >= until))?;
    let verdict = db.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    db.progress_handler(0, None::<fn() -> bool>)?;
    match verdict {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(verdict) => Err(StoreError::Damaged(verdict)),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Brings the schema up to date. Safe against another process doing the same.
fn migrate(db: &mut Connection, path: &Path) -> Result<()> {
    let known = MIGRATIONS.len();
    if usize::try_from(user_version(db)?).is_ok_and(|version| version == known) {
        return Ok(());
    }
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version = user_version(&transaction)?;
    refuse_newer(path, version)?;
    let done = usize::try_from(version).unwrap_or(0);
    for (number, migration) in MIGRATIONS.iter().enumerate().skip(done) {
        tracing::info!(migration = number + 1, "migrating the store");
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", i32::try_from(known).unwrap_or(i32::MAX))?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    #[test]
    fn a_statement_is_parsed_once_whatever_values_it_is_run_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auricle.db");
        let options = SqliteOptions::default();
        let (writer, reader) = (writer(&path, &options).unwrap(), reader(&path, &options).unwrap());
        for db in [&writer, &reader] {
            let mut query = db
                .prepare("SELECT id FROM conversations WHERE (?1 IS NULL OR created_at > ?1) ORDER BY created_at LIMIT ?2")
                .unwrap();
            for value in 0..3_i64 {
                let found: Vec<String> = query
                    .query_map([(value > 0).then_some(value), Some(value)], |row| row.get(0))
                    .unwrap()
                    .collect::<rusqlite::Result<_>>()
                    .unwrap();
                assert!(found.is_empty());
            }
            assert_eq!(query.get_status(StatementStatus::RePrepare), 0);
        }
    }
}
