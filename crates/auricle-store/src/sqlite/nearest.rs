//! Search by meaning: exact cosine over all of a user's vectors.
//!
//! The vectors are read as bytes ([`Code`]), a fourth of their size, and kept in memory up to a bound for the users who
//! searched last; the best of them are scored again with the numbers as they were stored. A version that every write of a
//! user's vectors raises tells when what is kept is old; then only what is missing is read. Runs on a thread of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use auricle_core::UserId;
use rusqlite::{OptionalExtension, params};

use super::db::Db;
use super::rows;
use crate::store::{Near, Result, StoreError};

/// How many of the best by bytes are scored again for each one asked for, and at least. Bytes put the true best within a
/// hundredth of its score.
const RESCORED_EACH: usize = 4;
const RESCORED_MIN: usize = 200;

/// Greatest absolute value of a byte.
const FULL: f32 = 127.0;

/// A vector of length 1 in bytes: `scale` times each.
pub(super) struct Code {
    pub(super) scale: f32,
    pub(super) bytes: Vec<i8>,
}

impl Code {
    pub(super) fn of(vector: &[f32]) -> Self {
        let most = vector.iter().fold(0.0_f32, |most, number| most.max(number.abs()));
        let scale = if most > 0.0 { most / FULL } else { 1.0 };
        Self { scale, bytes: vector.iter().map(|number| (number / scale).round() as i8).collect() }
    }
}

/// At length 1; `None` if it has none or is not of numbers.
pub(super) fn normalised(vector: &[f32]) -> Option<Vec<f32>> {
    let length = vector.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt();
    (length.is_finite() && length > 0.0)
        .then(|| vector.iter().map(|number| (f64::from(*number) / length) as f32).collect())
}

/// Exact dot product of bytes. In blocks, so that it is compiled to instructions on many at once.
pub(super) fn dot_bytes(one: &[i8], other: &[i8]) -> i32 {
    const BLOCK: usize = 32;
    let (ones, others) = (one.chunks_exact(BLOCK), other.chunks_exact(BLOCK));
    let (rest, other_rest) = (ones.remainder(), others.remainder());
    let mut sum = 0_i32;
    for (a, b) in ones.zip(others) {
        let mut block = 0_i32;
        for index in 0..BLOCK {
            block += i32::from(i16::from(a[index]) * i16::from(b[index]));
        }
        sum += block;
    }
    sum + rest.iter().zip(other_rest).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum::<i32>()
}

/// Dot product with eight sums beside each other.
pub(super) fn dot(one: &[f32], other: &[f32]) -> f32 {
    const LANES: usize = 8;
    let (ones, others) = (one.chunks_exact(LANES), other.chunks_exact(LANES));
    let (rest, other_rest) = (ones.remainder(), others.remainder());
    let mut sums = [0.0_f32; LANES];
    for (a, b) in ones.zip(others) {
        for index in 0..LANES {
            sums[index] += a[index] * b[index];
        }
    }
    sums.iter().sum::<f32>() + rest.iter().zip(other_rest).map(|(a, b)| a * b).sum::<f32>()
}

pub(super) fn to_blob(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|number| number.to_le_bytes()).collect()
}

pub(super) fn from_blob(blob: &[u8]) -> Vec<f32> {
    blob.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect()
}

fn to_bytes(code: &[u8]) -> impl Iterator<Item = i8> + '_ {
    code.iter().map(|byte| byte.cast_signed())
}

/// All vectors of one user and model, side by side.
#[derive(Default)]
struct Matrix {
    model: String,
    version: i64,
    dimensions: usize,
    /// Ascending.
    rids: Vec<i64>,
    scales: Vec<f32>,
    codes: Vec<i8>,
    /// When it was last searched, as the cache counts.
    used: u64,
}

impl Matrix {
    fn bytes(&self) -> usize {
        self.codes.len() + self.rids.len() * (size_of::<i64>() + size_of::<f32>())
    }

    fn row(&self, index: usize) -> &[i8] {
        &self.codes[index * self.dimensions..(index + 1) * self.dimensions]
    }

    /// Keeps what is still there and reads what is new.
    fn refresh(&mut self, db: &Db, user: i64, version: i64) -> Result<()> {
        let there = rids(db, user, &self.model)?;
        if self.rids.iter().any(|rid| there.binary_search(rid).is_err()) {
            let mut left = Self {
                model: std::mem::take(&mut self.model),
                dimensions: self.dimensions,
                ..Self::default()
            };
            for (index, rid) in
                self.rids.iter().enumerate().filter(|(_, rid)| there.binary_search(rid).is_ok())
            {
                left.rids.push(*rid);
                left.scales.push(self.scales[index]);
                left.codes.extend_from_slice(self.row(index));
            }
            *self = Self { used: self.used, ..left };
        }
        let last = self.rids.last().copied().unwrap_or(0);
        let new = there.len() - there.partition_point(|rid| *rid <= last);
        self.rids.reserve(new);
        self.scales.reserve(new);
        self.codes.reserve(new * self.dimensions);
        let (dimensions, model) = (self.dimensions, self.model.clone());
        each_code(db, user, &model, last, |rid, scale, code| {
            if code.len() == dimensions {
                self.rids.push(rid);
                self.scales.push(scale);
                self.codes.extend(to_bytes(code));
            }
        })?;
        self.version = version;
        Ok(())
    }
}

/// The user's vectors of this model, ascending: from the index alone.
fn rids(db: &Db, user: i64, model: &str) -> Result<Vec<i64>> {
    let mut query =
        db.prepare_cached("SELECT rid FROM vector_codes WHERE user = ?1 AND model = ?2 ORDER BY rid")?;
    rows::collect(query.query(params![user, model])?, |row| Ok(row.get(0)?))
}

/// Reads codes after `last`, in order.
fn each_code(
    db: &Db,
    user: i64,
    model: &str,
    last: i64,
    mut each: impl FnMut(i64, f32, &[u8]),
) -> Result<()> {
    let mut query = db.prepare_cached(
        "SELECT rid, scale, code FROM vector_codes WHERE user = ?1 AND model = ?2 AND rid > ?3 ORDER BY rid",
    )?;
    let mut found = query.query(params![user, model, last])?;
    while let Some(row) = found.next()? {
        let code =
            row.get_ref(2)?.as_blob().map_err(|_| StoreError::Damaged("unreadable code in a row".into()))?;
        each(row.get(0)?, row.get::<_, f64>(1)? as f32, code);
    }
    Ok(())
}

/// The best so far, at most so many.
struct Best {
    most: usize,
    /// The worst is first once it is full.
    found: std::collections::BinaryHeap<std::cmp::Reverse<Scored>>,
}

#[derive(PartialEq)]
struct Scored {
    score: f32,
    rid: i64,
}

impl Eq for Scored {}

impl Ord for Scored {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.score.total_cmp(&other.score).then(self.rid.cmp(&other.rid))
    }
}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Best {
    fn new(most: usize) -> Self {
        Self { most, found: std::collections::BinaryHeap::with_capacity(most + 1) }
    }

    fn offer(&mut self, score: f32, rid: i64) {
        if self.found.len() == self.most && self.found.peek().is_some_and(|worst| score <= worst.0.score) {
            return;
        }
        self.found.push(std::cmp::Reverse(Scored { score, rid }));
        if self.found.len() > self.most {
            self.found.pop();
        }
    }
}

/// Matrices of the users who searched last, up to so many bytes.
pub(super) struct Cache {
    bytes_max: usize,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    users: HashMap<i64, Matrix>,
    searches: u64,
}

impl Cache {
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, known: Mutex::default() })
    }

    /// Conversations nearest to `query`, best first.
    pub(super) fn search(
        &self,
        db: &Db,
        user: &UserId,
        model: &str,
        query: &[f32],
        limit: usize,
    ) -> Result<Vec<Near>> {
        let Some(user) = rows::user_rid(db, user)? else { return Ok(Vec::new()) };
        let Some(query) = normalised(query) else { return Ok(Vec::new()) };
        let code = Code::of(&query);
        let mut best = Best::new((limit * RESCORED_EACH).max(RESCORED_MIN));
        self.scan(db, user, model, &code, &mut best)?;
        rescored(db, user, model, &query, best, limit)
    }

    fn scan(&self, db: &Db, user: i64, model: &str, query: &Code, best: &mut Best) -> Result<()> {
        let version = version(db, user)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.searches += 1;
        let now = known.searches;
        let kept = known
            .users
            .remove(&user)
            .filter(|matrix| matrix.model == model && matrix.dimensions == query.bytes.len());
        let mut matrix = match kept {
            Some(matrix) if matrix.version == version => matrix,
            kept => {
                if self.too_many(db, user, model, query)? {
                    self.forget(&mut known);
                    drop(known);
                    return stream(db, user, model, query, best);
                }
                metrics::counter!("auricle_search_vectors_loads_total", "how" => "kept").increment(1);
                let mut matrix = kept.unwrap_or_else(|| Matrix {
                    model: model.to_owned(),
                    dimensions: query.bytes.len(),
                    ..Matrix::default()
                });
                matrix.refresh(db, user, version)?;
                matrix
            }
        };
        matrix.used = now;
        for (index, rid) in matrix.rids.iter().enumerate() {
            let score = dot_bytes(matrix.row(index), &query.bytes) as f32;
            best.offer(matrix.scales[index] * query.scale * score, *rid);
        }
        known.users.insert(user, matrix);
        self.forget(&mut known);
        Ok(())
    }

    /// To be kept.
    fn too_many(&self, db: &Db, user: i64, model: &str, query: &Code) -> Result<bool> {
        let number: i64 = db
            .prepare_cached("SELECT count(*) FROM vector_codes WHERE user = ?1 AND model = ?2")?
            .query_row(params![user, model], |row| row.get(0))?;
        let each = query.bytes.len() + size_of::<i64>() + size_of::<f32>();
        Ok(usize::try_from(number).unwrap_or(usize::MAX).saturating_mul(each) > self.bytes_max)
    }

    /// Those not searched for longest go while it is too much.
    fn forget(&self, known: &mut Known) {
        loop {
            let bytes: usize = known.users.values().map(Matrix::bytes).sum();
            metrics::gauge!("auricle_search_vectors_bytes").set(bytes as f64);
            let oldest = known.users.iter().min_by_key(|(_, matrix)| matrix.used).map(|(user, _)| *user);
            match oldest {
                Some(user) if bytes > self.bytes_max => known.users.remove(&user),
                _ => return,
            };
        }
    }
}

/// Those that are too many to keep: read, scored and forgotten.
fn stream(db: &Db, user: i64, model: &str, query: &Code, best: &mut Best) -> Result<()> {
    metrics::counter!("auricle_search_vectors_loads_total", "how" => "streamed").increment(1);
    let mut bytes = Vec::with_capacity(query.bytes.len());
    each_code(db, user, model, 0, |rid, scale, code| {
        bytes.clear();
        bytes.extend(to_bytes(code));
        if bytes.len() == query.bytes.len() {
            best.offer(scale * query.scale * dot_bytes(&bytes, &query.bytes) as f32, rid);
        }
    })
}

fn version(db: &Db, user: i64) -> Result<i64> {
    let version = db
        .prepare_cached("SELECT version FROM vector_versions WHERE user = ?1")?
        .query_row([user], |row| row.get(0))
        .optional()?;
    Ok(version.unwrap_or(0))
}

/// Scores the best again with the stored numbers; each conversation by its nearest text.
fn rescored(db: &Db, user: i64, model: &str, query: &[f32], best: Best, limit: usize) -> Result<Vec<Near>> {
    let mut read = db.prepare_cached(
        "SELECT v.vector, c.id, v.first_segment, v.last_segment FROM vectors v JOIN vector_codes k ON k.rid = v.rid \
         JOIN conversations c ON c.rid = v.conversation \
         WHERE v.rid = ?1 AND c.user = ?2 AND k.model = ?3 AND c.discarded IS NULL",
    )?;
    let mut near: HashMap<String, Near> = HashMap::new();
    // In the order in which they lie on the disk.
    let mut best: Vec<i64> = best.found.into_iter().map(|scored| scored.0.rid).collect();
    best.sort_unstable();
    for rid in best {
        let mut found = read.query(params![rid, user, model])?;
        let Some(row) = found.next()? else { continue };
        let blob = row
            .get_ref(0)?
            .as_blob()
            .map_err(|_| StoreError::Damaged("unreadable vector in a row".into()))?;
        let vector = from_blob(blob);
        if vector.len() != query.len() {
            continue;
        }
        let (similarity, id) = (dot(&vector, query), row.get::<_, String>(1)?);
        if near.get(&id).is_some_and(|known| known.similarity >= similarity) {
            continue;
        }
        let segment = |at: usize| row.get::<_, Option<String>>(at).map(|id| id.map(Into::into));
        let segments = segment(2)?.zip(segment(3)?);
        near.insert(id.clone(), Near { conversation: id.into(), similarity, segments });
    }
    let mut near: Vec<_> = near.into_values().collect();
    near.sort_by(|one, other| {
        other.similarity.total_cmp(&one.similarity).then(one.conversation.cmp(&other.conversation))
    });
    near.truncate(limit);
    Ok(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look random and are the same each time.
    fn noise(seed: u32, length: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / u32::MAX as f32 - 0.5
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn dot_products_in_blocks_are_those_of_one_by_one() {
        for length in [0, 1, 7, 8, 31, 32, 33, 100, 768] {
            let (a, b) = (noise(1, length), noise(2, length));
            let plain: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!((f64::from(dot(&a, &b)) - plain).abs() < 1e-4, "{length}");
            let (a, b) = (Code::of(&a).bytes, Code::of(&b).bytes);
            let plain: i64 = a.iter().zip(&b).map(|(a, b)| i64::from(*a) * i64::from(*b)).sum();
            assert_eq!(i64::from(dot_bytes(&a, &b)), plain, "{length}");
        }
        assert_eq!(dot_bytes(&[-128; 4096], &[-128; 4096]), 4096 * 16_384);
    }

    #[test]
    fn bytes_keep_a_cosine_within_a_hundredth() {
        for seed in 0..200 {
            let a = normalised(&noise(2 * seed + 1, 384)).unwrap();
            let b = normalised(&noise(2 * seed + 2, 384)).unwrap();
            let (x, y) = (Code::of(&a), Code::of(&b));
            let coded = x.scale * y.scale * dot_bytes(&x.bytes, &y.bytes) as f32;
            assert!((coded - dot(&a, &b)).abs() < 0.01);
            assert!((dot(&a, &a) - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn what_has_no_length_is_no_vector() {
        assert!(normalised(&[]).is_none() && normalised(&[0.0, 0.0]).is_none());
        assert!(normalised(&[f32::NAN]).is_none() && normalised(&[f32::INFINITY]).is_none());
        assert_eq!(from_blob(&to_blob(&[1.5, -0.25])), [1.5, -0.25]);
    }

    #[test]
    fn the_best_are_kept_whatever_the_order() {
        let mut best = Best::new(3);
        for (rid, score) in [0.1, 0.9, -0.5, 0.4, 0.8, 0.2].into_iter().enumerate() {
            best.offer(score, rid as i64);
        }
        let mut kept: Vec<_> = best.found.into_iter().map(|scored| scored.0.rid).collect();
        kept.sort_unstable();
        assert_eq!(kept, [1, 3, 4]);
    }
}
