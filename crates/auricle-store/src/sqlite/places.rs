//! Where a user's segments stand: which conversation each belongs to, kept in memory for searches by words.
//!
//! The full-text index gives numbers of rows, in order and quickly; to ask the tables for the conversation of each is what would
//! take long when a word stands in tens of thousands of them. So the answer is kept for those who searched last: 12 bytes a
//! segment. What is new is added before each search; after a deletion all of it is read again, from an index alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{OptionalExtension, params};

use super::db::Db;
use super::rows;
use crate::store::Result;

/// New segments that are looked up one by one. Full: all of the user's are read again, which is then quicker.
const NEW_MAX: i64 = 2_000;

/// Tells what is remembered from what is true: the user's row and the version of their deletions.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Version {
    user_created: i64,
    deletions: i64,
}

/// Raises the version of this user's deletions.
pub(super) fn forget_of(db: &Db, user: i64) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO search_versions (user, version) VALUES (?1, 1) ON CONFLICT (user) DO UPDATE SET version = version + 1",
    )?
    .execute([user])?;
    Ok(())
}

fn version(db: &Db, user: i64) -> Result<Version> {
    let version = db
        .prepare_cached(
            "SELECT u.created_at, coalesce(v.version, 0) FROM users u LEFT JOIN search_versions v ON v.user = u.rid \
             WHERE u.rid = ?1",
        )?
        .query_row([user], |row| Ok(Version { user_created: row.get(0)?, deletions: row.get(1)? }))
        .optional()?;
    Ok(version.unwrap_or_default())
}

/// All segments of one user, in the order of their keys, and the conversation of each.
#[derive(Clone, Default)]
pub(super) struct Places {
    version: Version,
    segments: Vec<i64>,
    /// For each segment: where its conversation stands in `conversations`.
    of: Vec<u32>,
    conversations: Vec<i64>,
    /// How many segments each has.
    lines: Vec<u32>,
    numbers: HashMap<i64, u32>,
}

impl Places {
    /// Keys, ascending.
    pub(super) fn segments(&self) -> &[i64] {
        &self.segments
    }

    /// For each segment: the number of its conversation.
    pub(super) fn of(&self) -> &[u32] {
        &self.of
    }

    /// Keys, by number.
    pub(super) fn conversations(&self) -> &[i64] {
        &self.conversations
    }

    /// Segments of each conversation, by number.
    pub(super) fn lines(&self) -> &[u32] {
        &self.lines
    }

    pub(super) fn number_of(&self, conversation: i64) -> Option<u32> {
        self.numbers.get(&conversation).copied()
    }

    fn bytes(&self) -> usize {
        self.segments.len() * (size_of::<i64>() + size_of::<u32>())
            + self.conversations.len() * (size_of::<i64>() + size_of::<u32>() + 4 * size_of::<u32>())
    }

    fn number(&mut self, conversation: i64) -> u32 {
        *self.numbers.entry(conversation).or_insert_with(|| {
            self.conversations.push(conversation);
            self.lines.push(0);
            (self.conversations.len() - 1) as u32
        })
    }

    fn add(&mut self, segment: i64, conversation: i64) {
        let number = self.number(conversation);
        self.segments.push(segment);
        self.of.push(number);
        self.lines[number as usize] += 1;
    }

    /// All of the user's, from the indexes.
    fn read(db: &Db, user: i64, version: Version) -> Result<Self> {
        let mut places = Self { version, ..Self::default() };
        let mut query =
            db.prepare_cached("SELECT rid FROM conversations WHERE user = ?1 ORDER BY created_at")?;
        let mut found = query.query([user])?;
        while let Some(row) = found.next()? {
            places.number(row.get(0)?);
        }
        let mut query =
            db.prepare_cached("SELECT rid FROM segments INDEXED BY segments_order WHERE conversation = ?1")?;
        let mut all = Vec::new();
        for (number, conversation) in places.conversations.iter().enumerate() {
            let mut found = query.query([conversation])?;
            while let Some(row) = found.next()? {
                all.push((row.get::<_, i64>(0)?, number as u32));
            }
        }
        // Nearly in order: conversations stand in the order of their beginning.
        all.sort_unstable();
        places.segments.reserve_exact(all.len());
        places.of.reserve_exact(all.len());
        for (segment, number) in all {
            places.segments.push(segment);
            places.of.push(number);
            places.lines[number as usize] += 1;
        }
        Ok(places)
    }

    /// Segments after the last known one; `None` if they are too many.
    fn newer(&self, db: &Db, user: i64) -> Result<Option<Vec<(i64, i64)>>> {
        let last = self.segments.last().copied().unwrap_or(0);
        // A new conversation's title has an odd number, and usually a smaller one.
        let mut query = db.prepare_cached(
            "SELECT rowid / 2 FROM search WHERE search MATCH ?1 AND rowid > ?2 AND rowid % 2 = 0 ORDER BY rowid LIMIT ?3",
        )?;
        let scope = format!("scope : \"u{user}\"");
        let found = query.query(params![scope, last * 2 + 1, NEW_MAX + 1])?;
        let found: Vec<i64> = rows::collect(found, |row| Ok(row.get(0)?))?;
        if found.len() as i64 > NEW_MAX {
            return Ok(None);
        }
        let mut of = db.prepare_cached("SELECT conversation FROM segments WHERE rid = ?1")?;
        let mut newer = Vec::with_capacity(found.len());
        for segment in found {
            if let Some(conversation) = of.query_row([segment], |row| row.get(0)).optional()? {
                newer.push((segment, conversation));
            }
        }
        Ok(Some(newer))
    }

    /// The same with these conversations, which have no segments.
    pub(super) fn with(&self, conversations: &[i64]) -> Self {
        let mut places = self.clone();
        for conversation in conversations {
            places.number(*conversation);
        }
        places
    }
}

/// Places of the users who searched last, up to so many bytes.
pub(super) struct Cache {
    bytes_max: usize,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    users: HashMap<i64, (u64, Arc<Places>)>,
    searches: u64,
}

impl Cache {
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, known: Mutex::default() })
    }

    /// As the transaction sees them.
    pub(super) fn of(&self, db: &Db, user: i64) -> Result<Arc<Places>> {
        let version = version(db, user)?;
        let known = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.searches += 1;
            let now = known.searches;
            known.users.get_mut(&user).map(|(used, places)| {
                *used = now;
                Arc::clone(places)
            })
        };
        if let Some(known) = known.filter(|known| known.version == version)
            && let Some(newer) = known.newer(db, user)?
        {
            if newer.is_empty() {
                return Ok(known);
            }
            let mut places = Places::clone(&known);
            drop(known);
            for (segment, conversation) in newer {
                places.add(segment, conversation);
            }
            return Ok(self.keep(user, places));
        }
        metrics::counter!("auricle_search_places_loads_total").increment(1);
        Ok(self.keep(user, Places::read(db, user, version)?))
    }

    /// Those not searched for longest go while it is too much; who has too much alone is not kept.
    pub(super) fn keep(&self, user: i64, places: Places) -> Arc<Places> {
        let places = Arc::new(places);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = known.searches;
        known.users.insert(user, (now, Arc::clone(&places)));
        loop {
            let bytes: usize = known.users.values().map(|(_, places)| places.bytes()).sum();
            metrics::gauge!("auricle_search_places_bytes").set(bytes as f64);
            let oldest = known.users.iter().min_by_key(|(_, (used, _))| *used).map(|(user, _)| *user);
            match oldest {
                Some(user) if bytes > self.bytes_max => known.users.remove(&user),
                _ => return places,
            };
        }
    }
}
