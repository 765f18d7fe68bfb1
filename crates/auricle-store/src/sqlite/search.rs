//! Full-text search: keeps the index in step with each write, and turns any text into a safe query.
//!
//! A query's words are and-ed over the whole conversation: one may stand in the title and another in the last segment.
//! The last word matches as a prefix while it is being typed. Quotes make phrases. Everything else is quoted before it
//! reaches the database's query language, so no text is a syntax error and none can widen the search to another user.
//!
//! Under a key the index is blind: it holds each word's stem as a number that only the user's key gives, and so does the
//! query. Whole words, phrases and ranks work as ever; beginnings of words do not. What is shown is cut from the opened text.

use std::borrow::Cow;
use std::collections::HashMap;

use auricle_core::{Conversation, ConversationId, SegmentId, UserId};
use rusqlite::{OptionalExtension, params};

use super::db::Db;
use super::places::Cache;
use super::{items, ranking, rows};
use crate::protect::{Place, Sealer, words};
use crate::store::{Near, Ranked, Result, SearchHit, Snippet};

/// Words and phrases of one query; more are ignored.
const TERMS_MAX: usize = ranking::TERMS_MAX;
/// Words of a passage that is near in meaning, and segments that are read for them.
const PASSAGE_WORDS: usize = 40;
const PASSAGE_SEGMENTS: i64 = 40;
/// Words of one snippet.
const SNIPPET_WORDS: i64 = 24;

fn segment_row(rid: i64) -> i64 {
    rid * 2
}

fn title_row(rid: i64) -> i64 {
    rid * 2 + 1
}

pub(super) fn add_segment(db: &Db, segment: i64, conversation: i64, user: i64, text: &str) -> Result<()> {
    insert(db, segment_row(segment), conversation, user, text)
}

fn insert(db: &Db, row: i64, conversation: i64, user: i64, text: &str) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO search (rowid, scope, body, conversation) VALUES (?1, 'u' || ?2, ?3, ?4)",
    )?
    .execute(params![row, user, text, conversation])?;
    Ok(())
}

pub(super) fn change_segment(db: &Db, segment: i64, text: &str) -> Result<()> {
    db.prepare_cached("UPDATE search SET body = ?2 WHERE rowid = ?1")?
        .execute(params![segment_row(segment), text])?;
    Ok(())
}

pub(super) fn remove_segment(db: &Db, segment: i64) -> Result<()> {
    db.prepare_cached("DELETE FROM search WHERE rowid = ?1")?.execute([segment_row(segment)])?;
    Ok(())
}

/// Removes the words of a conversation's first segments, in the order in which they were stored.
pub(super) fn remove_segments(db: &Db, conversation: i64, limit: usize) -> Result<()> {
    db.prepare_cached(
        "DELETE FROM search WHERE rowid IN (SELECT rid * 2 FROM segments WHERE conversation = ?1 ORDER BY rid LIMIT ?2)",
    )?
    .execute(params![conversation, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    Ok(())
}

pub(super) fn remove_conversation(db: &Db, rid: i64) -> Result<()> {
    db.prepare_cached(
        "DELETE FROM search WHERE rowid IN (SELECT rid * 2 FROM segments WHERE conversation = ?1)",
    )?
    .execute([rid])?;
    db.prepare_cached("DELETE FROM search WHERE rowid = ?1")?.execute([title_row(rid)])?;
    Ok(())
}

/// Indexes the shown title and the overview as they now are.
pub(super) fn index_title(db: &Db, rid: i64) -> Result<()> {
    let (user, shown) = title_text(db, rid)?;
    db.prepare_cached("DELETE FROM search WHERE rowid = ?1")?.execute([title_row(rid)])?;
    let Some(shown) = shown else { return Ok(()) };
    let sealer = db.sealer(&rows::whose(db, rid)?.0);
    insert(db, title_row(rid), rid, user, &indexed(&sealer, &shown))
}

/// The user's key, and the shown title above the overview; `None` if there is neither.
fn title_text(db: &Db, rid: i64) -> Result<(i64, Option<String>)> {
    let (user, structured, user_title): (i64, Option<String>, Option<String>) = db
        .prepare_cached("SELECT user, structured, user_title FROM conversations WHERE rid = ?1")?
        .query_row([rid], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let (whose, id) = rows::whose(db, rid)?;
    let opened = |column, stored| db.open_some(&whose, Place::new("conversations", column, &[&id]), stored);
    let structured = rows::structured_value(opened("structured", structured)?)?;
    let title = opened("user_title", user_title)?.unwrap_or(structured.title);
    let any = !title.is_empty() || !structured.overview.is_empty();
    Ok((user, any.then(|| format!("{title}\n{}", structured.overview))))
}

/// A text as the index holds it.
pub(super) fn indexed<'t>(sealer: &Sealer, text: &'t str) -> Cow<'t, str> {
    words::blinded(sealer, text).map_or(text.into(), Cow::Owned)
}

/// A word or phrase of a query.
#[derive(Debug)]
struct Term {
    /// Without quotes, not empty.
    text: String,
    /// Whether its last word may be unfinished.
    typing: bool,
}

impl Term {
    /// `None` if there is no letter or digit in it: it would match nothing and hide everything.
    fn new(text: &str, typing: bool) -> Option<Self> {
        text.chars().any(char::is_alphanumeric).then(|| {
            let clean = text.chars().filter(|each| *each != '"' && *each != '\0').collect();
            Self { text: clean, typing }
        })
    }

    /// As an expression of the database's query language.
    fn plain(&self) -> String {
        format!("\"{}\"{}", self.text, if self.typing { " *" } else { "" })
    }

    /// The same over a blind index, and over rows that are not blind yet.
    fn blind(&self, sealer: &Sealer) -> String {
        let mut runs = sealer.blind_runs(&self.stems());
        runs.push(self.text.clone());
        format!("(\"{}\")", runs.join("\" OR \""))
    }

    fn stems(&self) -> Vec<String> {
        words::words(&self.text).into_iter().map(|word| word.stem).collect()
    }
}

/// The query's words and phrases.
fn terms(query: &str) -> Vec<Term> {
    let mut terms = Vec::new();
    let mut parts = query.split('"').enumerate().peekable();
    while let Some((number, part)) = parts.next() {
        // The last word counts as unfinished while nothing follows it.
        let typing = parts.peek().is_none() && !part.ends_with(char::is_whitespace);
        if number % 2 == 1 {
            terms.extend(Term::new(part, typing));
            continue;
        }
        let mut words = part.split_whitespace().peekable();
        while let Some(word) = words.next() {
            terms.extend(Term::new(word, typing && words.peek().is_none()));
        }
    }
    terms.truncate(TERMS_MAX);
    terms
}

/// Conversations that hold every term, best first.
pub(super) fn ranks(
    db: &Db,
    places: &Cache,
    user: &UserId,
    query: &str,
    page: (usize, usize),
) -> Result<Vec<Ranked>> {
    let terms = terms(query);
    let Some(rid) = rows::user_rid(db, user)? else { return Ok(Vec::new()) };
    if terms.is_empty() {
        return Ok(Vec::new());
    }
    let (_, terms) = expressions(db, user, &terms);
    let terms: Vec<_> = terms.iter().map(|term| scoped(rid, term)).collect();
    ranking::rank(db, places, rid, &terms, page)
}

/// What was ranked, with its lines; what is gone since is left out.
pub(super) fn hits(db: &Db, user: &UserId, query: &str, ranked: &[Ranked]) -> Result<Vec<SearchHit>> {
    let (stems, terms) = expressions(db, user, &terms(query));
    let excerpts = match stems {
        None if !terms.is_empty() => {
            let docs = ranked.iter().flat_map(|found| found.lines.iter().copied());
            excerpts(db, docs, &terms.join(" OR "))?
        }
        _ => HashMap::new(),
    };
    let mut hits = Vec::with_capacity(ranked.len());
    for Ranked { conversation, score, lines } in ranked {
        let Some(rid) = rid_of(db, user, conversation)? else { continue };
        let conversation = listed(db, rid)?;
        let snippets = match &stems {
            None => snippets(db, rid, lines, &excerpts)?,
            Some(stems) => opened_snippets(db, rid, &conversation, lines, stems)?,
        };
        hits.push(SearchHit { conversation, snippets, score: *score });
    }
    Ok(hits)
}

fn rid_of(db: &Db, user: &UserId, id: &ConversationId) -> Result<Option<i64>> {
    Ok(db
        .prepare_cached(
            "SELECT c.rid FROM conversations c JOIN users u ON u.rid = c.user WHERE c.id = ?1 AND u.id = ?2",
        )?
        .query_row([id.as_str(), user.as_str()], |row| row.get(0))
        .optional()?)
}

/// What matches only rows of one user that hold every term.
pub(super) struct EveryTerm {
    pub(super) expression: String,
    /// Each term's stems, if rows may be blind.
    pub(super) stems: Option<Vec<Vec<String>>>,
}

/// `None` if there is no term. `user`: the key and the id.
pub(super) fn every_term(db: &Db, (rid, user): (i64, &UserId), query: &str) -> Option<EveryTerm> {
    let terms = terms(query);
    if terms.is_empty() {
        return None;
    }
    let (stems, terms) = expressions(db, user, &terms);
    Some(EveryTerm { expression: scoped(rid, &terms.join(" AND ")), stems })
}

/// Each term's stems, if rows may be blind, and each term for the index as it then is.
fn expressions(db: &Db, user: &UserId, terms: &[Term]) -> (Option<Vec<Vec<String>>>, Vec<String>) {
    if db.ring().is_empty() {
        return (None, terms.iter().map(Term::plain).collect());
    }
    let sealer = db.sealer(user.as_str());
    (Some(terms.iter().map(Term::stems).collect()), terms.iter().map(|term| term.blind(&sealer)).collect())
}

/// Hits of a search by meaning, each with the beginning of its nearest text.
pub(super) fn near_hits(db: &Db, user: &UserId, near: &[Near]) -> Result<Vec<SearchHit>> {
    let mut hits = Vec::with_capacity(near.len());
    for each in near {
        let Some(rid) = rid_of(db, user, &each.conversation)? else { continue };
        let conversation = listed(db, rid)?;
        let passage = match &each.segments {
            Some((first, last)) => passage(db, rid, &conversation, (first, last))?,
            None => {
                Some(Snippet { text: begun(&conversation.structured.overview), segment: None, start: None })
            }
        };
        let snippets = passage.into_iter().filter(|snippet| !snippet.text.is_empty()).collect();
        hits.push(SearchHit { conversation, snippets, score: f64::from(each.similarity) });
    }
    Ok(hits)
}

/// The beginning of a stretch of transcript; `None` if its first segment is gone.
fn passage(
    db: &Db,
    rid: i64,
    of: &Conversation,
    (first, last): (&SegmentId, &SegmentId),
) -> Result<Option<Snippet>> {
    let start_of = |id: &SegmentId| -> Result<Option<f64>> {
        Ok(db
            .prepare_cached("SELECT start FROM segments WHERE conversation = ?1 AND id = ?2")?
            .query_row(params![rid, id.as_str()], |row| row.get(0))
            .optional()?)
    };
    let Some(start) = start_of(first)? else { return Ok(None) };
    let until = start_of(last)?.unwrap_or(start);
    let sealer = db.sealer(of.user.as_str());
    let mut query = db.prepare_cached(
        "SELECT id, text FROM segments WHERE conversation = ?1 AND start BETWEEN ?2 AND ?3 ORDER BY start, rid LIMIT ?4",
    )?;
    let texts = rows::collect(query.query(params![rid, start, until, PASSAGE_SEGMENTS])?, |row| {
        let id: String = row.get(0)?;
        sealer.open(Place::new("segments", "text", &[of.id.as_str(), &id]), row.get(1)?)
    })?;
    Ok(Some(Snippet { text: begun(&texts.join(" ")), segment: Some(first.clone()), start: Some(start) }))
}

/// As many words as a passage shows.
fn begun(text: &str) -> String {
    let mut words = text.split_whitespace();
    let mut begun = words.by_ref().take(PASSAGE_WORDS).collect::<Vec<_>>().join(" ");
    if words.next().is_some() {
        begun.push('…');
    }
    begun
}

fn scoped(user: i64, expression: &str) -> String {
    format!("scope : \"u{user}\" AND body : ({expression})")
}

fn listed(db: &Db, rid: i64) -> Result<Conversation> {
    let sql = format!(
        "SELECT {} FROM conversations c JOIN users u ON u.rid = c.user WHERE c.rid = ?1",
        rows::CONVERSATION
    );
    let mut query = db.prepare_cached(&sql)?;
    let mut found = query.query([rid])?;
    let row = found.next()?.ok_or_else(|| {
        crate::store::StoreError::Damaged("the search index names a conversation that is not there".into())
    })?;
    let mut found = [rows::conversation(db, row)?];
    items::attach(db, &mut found)?;
    let [(_, conversation)] = found;
    Ok(conversation)
}

/// Makes the table in which excerpts are cut: the database's own function cuts them, but the index itself is slow to go back to a
/// row, since it looks for every word of the query again. A read is rolled back, and what was put in here with it.
pub(super) fn prepare_excerpts(db: &rusqlite::Connection) -> rusqlite::Result<()> {
    db.execute_batch("CREATE VIRTUAL TABLE temp.excerpts USING fts5 (body, tokenize = 'porter unicode61')")
}

/// Excerpts of these rows of the index, by row; those that hold nothing of `expression` any more have none.
fn excerpts(db: &Db, docs: impl Iterator<Item = i64>, expression: &str) -> Result<HashMap<i64, String>> {
    let mut put = db.prepare_cached(
        "INSERT OR REPLACE INTO temp.excerpts (rowid, body) SELECT rowid, body FROM search WHERE rowid = ?1",
    )?;
    for doc in docs {
        put.execute([doc])?;
    }
    let mut cut = db.prepare_cached(
        "SELECT rowid, snippet(excerpts, 0, char(2), char(3), '…', ?2) FROM temp.excerpts WHERE excerpts MATCH ?1",
    )?;
    let cut = cut.query(params![expression, SNIPPET_WORDS])?;
    Ok(rows::collect(cut, |row| Ok((row.get(0)?, row.get(1)?)))?.into_iter().collect())
}

/// Of these rows of the index, in their order; those that are another conversation's by now are left out.
fn snippets(db: &Db, rid: i64, docs: &[i64], excerpts: &HashMap<i64, String>) -> Result<Vec<Snippet>> {
    let mut snippets = Vec::with_capacity(docs.len());
    for doc in docs {
        let Some(text) = excerpts.get(doc).cloned() else { continue };
        let (segment, start) = match doc % 2 {
            0 => match place_of(db, doc / 2, rid)? {
                Some((id, start)) => (Some(id), Some(start)),
                None => continue,
            },
            _ if doc / 2 != rid => continue,
            _ => (None, None),
        };
        snippets.push(Snippet { text, segment, start });
    }
    Ok(snippets)
}

/// The same from texts that the index does not hold.
fn opened_snippets(
    db: &Db,
    rid: i64,
    of: &Conversation,
    docs: &[i64],
    stems: &[Vec<String>],
) -> Result<Vec<Snippet>> {
    let cut = |text: &str| words::snippet(text, stems, SNIPPET_WORDS as usize);
    let mut snippets = Vec::with_capacity(docs.len());
    for &doc in docs {
        if doc % 2 == 1 {
            if doc / 2 != rid {
                continue;
            }
            let text = title_text(db, rid)?.1.unwrap_or_default();
            snippets.push(Snippet { text: cut(&text), segment: None, start: None });
            continue;
        }
        let sql = format!("SELECT {} FROM segments WHERE rid = ?1 AND conversation = ?2", rows::SEGMENT);
        let mut one = db.prepare_cached(&sql)?;
        let mut found = one.query([doc / 2, rid])?;
        let Some(row) = found.next()? else { continue };
        let segment = rows::segment(&db.sealer(of.user.as_str()), of.id.as_str(), row)?;
        snippets.push(Snippet {
            text: cut(&segment.text),
            segment: Some(segment.id),
            start: Some(segment.start),
        });
    }
    Ok(snippets)
}

fn place_of(db: &Db, segment: i64, conversation: i64) -> Result<Option<(SegmentId, f64)>> {
    Ok(db
        .prepare_cached("SELECT id, start FROM segments WHERE rid = ?1 AND conversation = ?2")?
        .query_row([segment, conversation], |row| Ok((row.get::<_, String>(0)?.into(), row.get(1)?)))
        .optional()?)
}

#[cfg(test)]
mod tests {
    use super::{Term, terms};

    #[test]
    fn any_text_becomes_quoted_terms() {
        for (query, expected) in [
            ("", vec![]),
            ("  ?! -- ", vec![]),
            ("tea", vec!["\"tea\" *"]),
            ("tea ", vec!["\"tea\""]),
            ("green tea", vec!["\"green\"", "\"tea\" *"]),
            ("\"green tea\" hot", vec!["\"green tea\"", "\"hot\" *"]),
            ("\"green tea\"", vec!["\"green tea\""]),
            ("\"never closed", vec!["\"never closed\" *"]),
            ("a AND b*", vec!["\"a\"", "\"AND\"", "\"b*\" *"]),
            ("scope:u1", vec!["\"scope:u1\" *"]),
            ("x\" OR scope:\"u1", vec!["\"x\"", "\" OR scope:\"", "\"u1\" *"]),
        ] {
            let found: Vec<_> = terms(query).iter().map(Term::plain).collect();
            assert_eq!(found, expected, "{query:?}");
        }
    }
}
