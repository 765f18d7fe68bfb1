//! Brings what is on disk to the present key: seals an old store, seals anew after a rotation, or opens everything for good.
//!
//! A pass looks at every value of every sealed column, in small transactions that note how far it came, so that it may stop
//! anywhere and go on after a restart, while others read and write. Afterwards the index's deleted words are merged away,
//! and the file is written anew, so that no plain byte of before is left in it.
//! Invariant: a value that cannot be opened is counted and left as it is, and the key it names stays needed.

use rusqlite::types::{ToSql, ValueRef};
use rusqlite::{OptionalExtension, params};

use super::db::Db;
use super::{records_search, rows, search};
use crate::protect::{HEAD_CHARS, KeyId, Place, key_of, missing};
use crate::store::{KeyUse, Result, Sealing, StoreError};

/// The full-text indexes.
const INDEXES: [&str; 2] = ["search", "records_search"];
/// Pages of each index that one step merges.
const INDEX_PAGES: i64 = 64;

/// What else stands for the value, and must follow it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Indexed {
    No,
    /// The segment's words.
    Segment,
    /// The conversation's title and overview.
    Title,
    /// The action item's words.
    ActionItem,
    /// The memory's words.
    Memory,
}

/// A column whose texts are sealed.
struct Column {
    table: &'static str,
    column: &'static str,
    /// After the row `?1`, at most `?2`: a number that orders the rows, the value, the user's id, and the row's identity as
    /// its [`Place`] has it.
    select: &'static str,
    /// Sets the value `?2` of the row whose number is `?1` and whose identity is `?3`, …
    update: &'static str,
    indexed: Indexed,
}

macro_rules! columns {
    ($($table:literal . $column:literal ($($identity:literal),+) $from:literal $indexed:ident;)+) => {
        const COLUMNS: &[Column] = &[$(Column {
            table: $table,
            column: $column,
            select: concat!(
                "SELECT t.rid, t.", $column, ", u.id", $(", ", $identity),+, " FROM ", $table, " t ", $from,
                " WHERE t.rid > ?1 ORDER BY t.rid LIMIT ?2"
            ),
            update: concat!("UPDATE ", $table, " SET ", $column, " = ?2 WHERE rid = ?1"),
            indexed: Indexed::$indexed,
        },)+ STEPS];
    };
}

columns! {
    "segments"."text"("c.id", "t.id")
        "JOIN conversations c ON c.rid = t.conversation JOIN users u ON u.rid = c.user" Segment;
    "segments"."translations"("c.id", "t.id")
        "JOIN conversations c ON c.rid = t.conversation JOIN users u ON u.rid = c.user" No;
    "photos"."base64"("c.id", "t.id")
        "JOIN conversations c ON c.rid = t.conversation JOIN users u ON u.rid = c.user" No;
    "photos"."description"("c.id", "t.id")
        "JOIN conversations c ON c.rid = t.conversation JOIN users u ON u.rid = c.user" No;
    "conversations"."user_title"("t.id") "JOIN users u ON u.rid = t.user" No;
    "conversations"."geolocation"("t.id") "JOIN users u ON u.rid = t.user" No;
    "conversations"."structured"("t.id") "JOIN users u ON u.rid = t.user" Title;
    "revisions"."transcript"("c.id", "t.revision")
        "JOIN conversations c ON c.rid = t.conversation JOIN users u ON u.rid = c.user" No;
    "revisions"."structured"("c.id", "t.revision")
        "JOIN conversations c ON c.rid = t.conversation JOIN users u ON u.rid = c.user" No;
    "effects"."payload"("t.id") "JOIN users u ON u.rid = t.user" No;
    "action_items"."description"("t.id") "JOIN users u ON u.rid = t.user" ActionItem;
    "action_items"."made"("t.id") "JOIN users u ON u.rid = t.user" No;
    "memories"."text"("t.id") "JOIN users u ON u.rid = t.user" Memory;
    "memories"."made"("t.id") "JOIN users u ON u.rid = t.user" No;
    "people"."name"("t.id") "JOIN users u ON u.rid = t.user" No;
    "messages"."text"("t.id") "JOIN users u ON u.rid = t.user" No;
    "targets"."url"("t.id") "JOIN users u ON u.rid = t.user" No;
    "targets"."secret"("t.id") "JOIN users u ON u.rid = t.user" No;
    "days"."summary"("t.date") "JOIN users u ON u.rid = t.user" No;
    "days"."step"("t.date") "JOIN users u ON u.rid = t.user" No;
}

/// All steps of one conversation at a time: they have no number of their own.
const STEPS: Column = Column {
    table: "steps",
    column: "result",
    select: "SELECT t.conversation, t.result, u.id, c.id, t.revision, t.step FROM steps t \
             JOIN conversations c ON c.rid = t.conversation JOIN users u ON u.rid = c.user \
             WHERE t.conversation = (SELECT min(conversation) FROM steps WHERE conversation > ?1) LIMIT max(?2, 1000)",
    update: "UPDATE steps SET result = ?2 WHERE conversation = ?1 AND revision = ?4 AND step = ?5",
    indexed: Indexed::No,
};

const INDEX: &str = "index";
const COMPACT: &str = "compact";
const DONE: &str = "done";

impl Column {
    fn phase(&self) -> String {
        format!("{}.{}", self.table, self.column)
    }
}

/// Refuses to work without a key that sealed something, and notes the one that seals from now on.
pub(super) fn admit(db: &Db) -> Result<()> {
    let known = db.ring().known();
    for id in registered(db)? {
        if !known.iter().any(|known| known.to_string() == id) {
            let why = KeyId::parse(&id).map_or_else(|| format!("it names an unreadable key {id}"), missing);
            return Err(StoreError::Other(format!(
                "texts in it are protected: {why} (or in protection.key_file). Without it they are lost; nothing was changed"
            )));
        }
    }
    if let Some(current) = db.ring().current() {
        db.execute("INSERT OR IGNORE INTO protection_keys (id) VALUES (?1)", [current.to_string()])?;
    }
    if !db.ring().is_empty() {
        // What is deleted is overwritten, in the file and in the index.
        db.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
        for table in INDEXES {
            let sql = format!("SELECT 1 FROM {table}_config WHERE k = 'secure-delete' AND v = 1");
            if !db.prepare(&sql)?.exists([])? {
                db.execute(&format!("INSERT INTO {table} ({table}, rank) VALUES ('secure-delete', 1)"), [])?;
            }
        }
    }
    Ok(())
}

fn registered(db: &Db) -> Result<Vec<String>> {
    let mut query = db.prepare_cached("SELECT id FROM protection_keys ORDER BY id")?;
    rows::collect(query.query([])?, |row| Ok(row.get(0)?))
}

pub(super) fn knows(db: &Db, key: KeyId) -> Result<bool> {
    Ok(registered(db)?.contains(&key.to_string()))
}

struct Pass {
    phase: String,
    cursor: i64,
    resealed: u64,
    damaged: u64,
}

fn pass(db: &Db) -> Result<Option<Pass>> {
    let found: Option<(String, String, i64, i64, i64)> = db
        .prepare_cached("SELECT target, phase, cursor, resealed, damaged FROM protection_pass")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
        .optional()?;
    Ok(found.filter(|(of, ..)| *of == target(db)).map(|(_, phase, cursor, resealed, damaged)| Pass {
        phase,
        cursor,
        resealed: rows::count(resealed),
        damaged: rows::count(damaged),
    }))
}

/// The key everything is brought to; empty for none.
fn target(db: &Db) -> String {
    db.ring().current().map_or_else(String::new, |id| id.to_string())
}

fn save(db: &Db, pass: &Pass) -> Result<()> {
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    db.prepare_cached(
        "INSERT INTO protection_pass (id, target, phase, cursor, resealed, damaged) VALUES (1, ?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (id) DO UPDATE SET target = excluded.target, phase = excluded.phase, cursor = excluded.cursor, \
         resealed = excluded.resealed, damaged = excluded.damaged",
    )?
    .execute(params![target(db), pass.phase, pass.cursor, number(pass.resealed), number(pass.damaged)])?;
    Ok(())
}

fn first_pass() -> Pass {
    Pass { phase: COLUMNS[0].phase(), cursor: 0, resealed: 0, damaged: 0 }
}

/// Begins the pass again, as if nothing were known.
pub(super) fn restart(db: &Db) -> Result<()> {
    save(db, &first_pass())
}

/// What was deleted leaves the index and the file, too, in the steps that follow.
pub(super) fn purge(db: &Db) -> Result<()> {
    let pass = match pass(db)? {
        // Comes to it by itself.
        Some(pass) if pass.phase != COMPACT && pass.phase != DONE => return Ok(()),
        Some(pass) => Pass { phase: INDEX.to_owned(), cursor: 0, ..pass },
        None if db.ring().is_empty() && registered(db)?.is_empty() => {
            Pass { phase: INDEX.to_owned(), ..first_pass() }
        }
        None => return Ok(()),
    };
    save(db, &pass)
}

/// Looks at up to `rows_max` rows or `bytes_max` bytes of values, whichever is first.
pub(super) fn advance(db: &Db, rows_max: usize, bytes_max: usize) -> Result<Sealing> {
    let mut pass = match pass(db)? {
        Some(pass) => pass,
        // No key and none before: nothing was ever sealed.
        None if db.ring().current().is_none() && registered(db)?.is_empty() => return Ok(Sealing::done()),
        None => first_pass(),
    };
    if pass.phase == DONE {
        return sealing(db, &pass);
    }
    match COLUMNS.iter().position(|column| column.phase() == pass.phase) {
        Some(at) => {
            if !reseal(db, &COLUMNS[at], &mut pass, rows_max, bytes_max)? {
                pass.phase = COLUMNS.get(at + 1).map_or_else(|| INDEX.to_owned(), Column::phase);
                pass.cursor = 0;
            }
        }
        None if pass.phase == INDEX => {
            // A negative number of pages begins to merge all of it; then it goes on until nothing is left to do.
            let pages = if pass.cursor == 0 { -INDEX_PAGES } else { INDEX_PAGES };
            let mut merged = false;
            for table in INDEXES {
                let before = db.total_changes();
                let sql = format!("INSERT INTO {table} ({table}, rank) VALUES ('merge', ?1)");
                db.prepare_cached(&sql)?.execute([pages])?;
                merged |= db.total_changes() - before >= 2;
            }
            pass.cursor += 1;
            if !merged {
                pass.phase = COMPACT.to_owned();
                pass.cursor = 0;
            }
        }
        None if pass.phase == COMPACT => {}
        None => pass = first_pass(),
    }
    save(db, &pass)?;
    sealing(db, &pass)
}

/// One batch of a column; false once there is none left.
fn reseal(db: &Db, column: &Column, pass: &mut Pass, rows_max: usize, bytes_max: usize) -> Result<bool> {
    let mut select = db.prepare_cached(column.select)?;
    let mut update = db.prepare_cached(column.update)?;
    let limit = i64::try_from(rows_max).unwrap_or(i64::MAX);
    let mut found = select.query(params![pass.cursor, limit])?;
    let (mut any, mut bytes) = (false, 0);
    while let Some(row) = found.next()? {
        let number: i64 = row.get(0)?;
        if bytes > bytes_max && number != pass.cursor {
            break;
        }
        (any, pass.cursor) = (true, number);
        let stored: Option<String> = row.get(1)?;
        if let Some(stored) = stored {
            bytes += stored.len();
            let user: String = row.get(2)?;
            let identity = (3..row.as_ref().column_count())
                .map(|at| Ok(as_text(row.get_ref(at)?)))
                .collect::<Result<Vec<_>>>()?;
            let identity: Vec<&str> = identity.iter().map(String::as_str).collect();
            let place = Place::new(column.table, column.column, &identity);
            let sealer = db.sealer(&user);
            if !sealer.is_current(&stored) {
                match sealer.open(place, stored) {
                    Ok(text) => {
                        let anew = sealer.seal(place, &text);
                        for at in 1..=update.parameter_count() {
                            let value: &dyn ToSql = match at {
                                1 => &number,
                                2 => &anew,
                                _ => &identity[at - 3],
                            };
                            update.raw_bind_parameter(at, value)?;
                        }
                        update.raw_execute()?;
                        match column.indexed {
                            Indexed::No | Indexed::Title => {}
                            Indexed::Segment => {
                                search::change_segment(db, number, &search::indexed(&sealer, &text))?;
                            }
                            Indexed::ActionItem => {
                                records_search::change(db, records_search::item_row(number), &user, &text)?;
                            }
                            Indexed::Memory => {
                                records_search::change(db, records_search::memory_row(number), &user, &text)?;
                            }
                        }
                        pass.resealed += 1;
                    }
                    Err(_) => pass.damaged += 1,
                }
            }
        }
        if column.indexed == Indexed::Title {
            // A record that cannot be opened was counted above; its words in the index are blind already.
            match search::index_title(db, number) {
                Ok(()) | Err(StoreError::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(any)
}

fn as_text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => String::new(),
    }
}

fn sealing(db: &Db, pass: &Pass) -> Result<Sealing> {
    let (at, of) = match COLUMNS.iter().position(|column| column.phase() == pass.phase) {
        Some(at) => {
            let number = if COLUMNS[at].table == STEPS.table { "conversation" } else { "rid" };
            let sql = format!("SELECT max({number}) FROM {}", COLUMNS[at].table);
            let last: Option<i64> = db.prepare_cached(&sql)?.query_row([], |row| row.get(0))?;
            let within = last.map_or(1.0, |last| pass.cursor as f64 / last.max(1) as f64);
            (at as f64 + within.min(1.0), COLUMNS.len() + 1)
        }
        None => (COLUMNS.len() as f64, COLUMNS.len() + 1),
    };
    let done = pass.phase == DONE;
    Ok(Sealing {
        done,
        needs_compacting: pass.phase == COMPACT,
        share: if done { 1.0 } else { at / of as f64 },
        resealed: pass.resealed,
        damaged: pass.damaged,
    })
}

/// Writes the file anew, without whatever was deleted in it before, and empties the write-ahead log. Outside a transaction,
/// and nobody writes meanwhile. `bytes_max`: a larger file is left for a better moment.
pub(super) fn compact(db: &Db, bytes_max: u64) -> Result<Sealing> {
    let Some(mut pass) = pass(db)?.filter(|pass| pass.phase == COMPACT) else {
        return advance(db, 0, 0);
    };
    let pages: i64 = db.pragma_query_value(None, "page_count", |row| row.get(0))?;
    let page: i64 = db.pragma_query_value(None, "page_size", |row| row.get(0))?;
    if rows::count(pages).saturating_mul(rows::count(page)) > bytes_max {
        return sealing(db, &pass);
    }
    // Beside the file rather than in memory: it may be larger than that.
    db.pragma_update(None, "temp_store", "FILE")?;
    let vacuumed = db.execute_batch("VACUUM");
    db.pragma_update(None, "temp_store", "MEMORY")?;
    vacuumed?;
    truncate_log(db)?;
    pass.phase = DONE.to_owned();
    if pass.damaged == 0 {
        if usage(db)?.iter().any(|each| each.values > 0 && each.key != db.ring().current()) {
            // A process that did not know the key wrote meanwhile, behind the pass: its key stays needed.
            pass = first_pass();
        } else {
            db.execute("DELETE FROM protection_keys WHERE id <> ?1", [target(db)])?;
        }
    }
    save(db, &pass)?;
    sealing(db, &pass)
}

/// Empties the write-ahead log: what it held stands in the file.
fn truncate_log(db: &Db) -> Result<()> {
    let busy: i64 = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy == 0 {
        return Ok(());
    }
    Err(StoreError::Busy("its log is being read and could not be emptied; try again".into()))
}

/// How many values stand under which key, for each sealed column. Reads all of them.
pub(super) fn usage(db: &Db) -> Result<Vec<KeyUse>> {
    let mut uses = Vec::new();
    for column in COLUMNS {
        let sql = format!(
            "SELECT substr({0}, 1, {1}), count(*) FROM {2} WHERE {0} IS NOT NULL GROUP BY \
             CASE WHEN substr({0}, 1, 7) = char(1) || 'seal1:' THEN substr({0}, 1, {1}) ELSE '' END",
            column.column,
            HEAD_CHARS + 1,
            column.table
        );
        let mut query = db.prepare(&sql)?;
        let mut found = query.query([])?;
        while let Some(row) = found.next()? {
            uses.push(KeyUse {
                what: column.phase(),
                key: key_of(&row.get::<_, String>(0)?),
                values: rows::count(row.get(1)?),
            });
        }
    }
    Ok(uses)
}

#[cfg(test)]
pub(super) fn sealed_columns() -> Vec<(&'static str, &'static str)> {
    COLUMNS.iter().map(|column| (column.table, column.column)).collect()
}
