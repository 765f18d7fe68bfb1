//! The conformance suite on SQLite, with two handles on the same file as two processes have them: plain, and under a key.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use auricle_core::{Photo, Provenance, TargetKind, Trigger, UserId};
use rusqlite::Connection;

use super::sealing;
use crate::conformance::{Ground, LEASE, action_item, at, batch, completion, ending, opening, segment};
use crate::protect::{Keyring, RootKey};
use crate::{
    Choice, ClaimRule, DayCompletion, Embedded, InsertRecovered, NewMessage, NewTarget, OpenConversation,
    PlannedDay, Retranscriptions, Sensitive, SqliteOptions, SqliteStore, Store, StoreError, TargetSettings,
    Voice,
};

fn open(path: &Path, ring: &Keyring) -> Arc<SqliteStore> {
    SqliteStore::open(path, SqliteOptions { ring: ring.clone(), ..SqliteOptions::default() }).unwrap()
}

fn ground(ring: &Keyring) -> Ground {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auricle.db");
    Ground { store: open(&path, ring), other: open(&path, ring), keep: Box::new(folder) }
}

fn ring() -> Keyring {
    Keyring::new(Some(RootKey::from_text(&"5a".repeat(32), "the test's key").unwrap()), Vec::new())
}

mod plain {
    crate::store_conformance!(crate::sqlite::tests::ground(&crate::protect::Keyring::default()));
}

mod sealed {
    crate::store_conformance!(whole_words: crate::sqlite::tests::ground(&crate::sqlite::tests::ring()));
}

/// Every column of text is either sealed or known to hold nothing that was said: a new one must be decided about.
#[test]
fn every_text_column_is_sealed_or_known_to_need_none() {
    const NOT_SAID: &[&str] = &[
        "users.id",
        "users.time_zone",
        "users.language",
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
        "people.id",
        "voices.id",
        "voices.model",
        "recovered.run",
        "jobs.id",
        "jobs.reason",
        "jobs.state",
        "jobs.last_error",
        "jobs.leased_by",
        "steps.step",
        "effects.id",
        "effects.subject",
        "effects.lane",
        "effects.name",
        "effects.state",
        "effects.last_error",
        "effects.leased_by",
        "speaker_samples.person",
        "speaker_samples.segments",
        "action_items.id",
        "memories.id",
        "embedding_work.model",
        "embedding_work.leased_by",
        "embedding_work.last_error",
        "vectors.first_segment",
        "vectors.last_segment",
        "vector_codes.model",
        "targets.id",
        "targets.kind",
        "targets.name",
        "targets.triggers",
        "targets.host",
        "targets.state",
        "targets.last_error",
        "messages.id",
        "messages.sender",
        "messages.key",
        "uploads.id",
        "uploads.batch",
        "uploads.form",
        "uploads.source",
        "uploads.language",
        "uploads.state",
        "uploads.last_error",
        "uploads.leased_by",
        "days.date",
        "days.zone",
        "days.state",
        "days.provider",
        "days.provider_version",
        "days.last_error",
        "days.leased_by",
        "revisions.provider",
        "revisions.provider_version",
        "revisions.engines",
        "retranscriptions.id",
        "retranscriptions.engine",
        "retranscriptions.state",
        "retranscriptions.last_error",
        "retranscriptions.leased_by",
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
             WHERE m.type = 'table' AND m.name NOT LIKE 'search%' AND m.name NOT LIKE 'records_search%' AND c.type IN ('TEXT', 'ANY')",
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

/// Rows of each table that belong to `user`, whatever way they refer to one; tables of nobody are left out.
fn rows_of(db: &Connection, user: &str) -> BTreeMap<String, i64> {
    let mut tables = db
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name")
        .unwrap();
    let tables: Vec<String> =
        tables.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    let mut rows = BTreeMap::new();
    for table in tables.iter().filter(|table| !table.contains("search_")) {
        let mut columns = db.prepare("SELECT name FROM pragma_table_info(?1)").unwrap();
        let columns: Vec<String> =
            columns.query_map([table], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
        let has = |name: &str| columns.iter().any(|column| column == name);
        let condition = if table == "users" {
            "id = ?1"
        } else if has("user") {
            "user = (SELECT rid FROM users WHERE id = ?1)"
        } else if has("conversation") {
            "conversation IN (SELECT c.rid FROM conversations c JOIN users u ON u.rid = c.user WHERE u.id = ?1)"
        } else {
            // Of nobody. A table that names its users otherwise must be told apart here.
            assert!(
                ["processes", "probe", "protection_keys", "protection_pass", "sqlite_sequence"]
                    .contains(&table.as_str()),
                "{table}: whose are its rows?"
            );
            continue;
        };
        let sql = format!("SELECT count(*) FROM {table} WHERE {condition}");
        rows.insert(table.clone(), db.query_row(&sql, [user], |row| row.get(0)).unwrap());
    }
    rows
}

/// Rows of every table that belong to no user that there is.
fn orphaned(db: &Connection) -> i64 {
    let mut tables = db
        .prepare(
            "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table' \
             AND m.name NOT LIKE 'search%' AND m.name NOT LIKE 'records_search%' AND c.name IN ('user', 'conversation')",
        )
        .unwrap();
    let named = tables.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).unwrap();
    let lost = named.map(|named| {
        let (table, column) = named.unwrap();
        let sql = format!("SELECT count(*) FROM {table} WHERE {column} NOT IN (SELECT rid FROM {column}s)");
        db.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap()
    });
    lost.sum()
}

/// Something in every table that can hold something of a user. `word` is what everything says.
async fn fill_for(store: &Arc<SqliteStore>, user: &str, word: &str) {
    let id = |name: &str| format!("{user}-{name}");
    store.process_alive(&"p1".into(), at(100_000)).await.unwrap();
    for number in 0..3 {
        let conversation = id(&format!("c{number}"));
        let open = OpenConversation { user: user.into(), ..opening(Choice::New, &conversation) };
        let owner = store.open_conversation(open).await.unwrap().ownership;
        let said: Vec<_> =
            (0..40).map(|n| segment(&format!("s{n}"), f64::from(n), &format!("{word} {n}"))).collect();
        store.append_segments(batch(&owner, 1, &said)).await.unwrap();
        let photo = Photo {
            id: "p".into(),
            base64: word.into(),
            description: None,
            created_at: at(1),
            discarded: false,
        };
        store.append_photo(&owner, photo).await.unwrap();
        let recovered = InsertRecovered {
            conversation: owner.conversation.clone(),
            run: format!("run-{user}"),
            until_sample: 5,
            zero_at: at(1),
            segments: vec![segment("r", 3.0, word)],
            gap: None,
        };
        store.insert_recovered(recovered).await.unwrap();
        if number == 2 {
            // One is being heard.
            continue;
        }
        let job = id(&format!("job{number}"));
        store.finalise(ending(&owner.conversation, Some(&owner), &job, 2)).await.unwrap();
        let claimed =
            store.claim_job(&"p1".into(), at(3), LEASE, ClaimRule::default()).await.unwrap().unwrap();
        store.record_step(&claimed.lease, "understand", word, at(3)).await.unwrap();
        let mut done = completion(&claimed.lease, word, 4);
        done.structured.action_items = vec![action_item(word)];
        done.memories = vec![word.into()];
        done.effects[0].id = id(&format!("e{number}")).as_str().into();
        store.complete_job(done).await.unwrap();
        let segments = ["s1".into()];
        store
            .add_speaker_sample(&user.into(), &"bea".into(), &owner.conversation, &segments, at(5))
            .await
            .unwrap();
    }
    fill_for_revisions(store, user, word).await;
    fill_for_targets(store, user, word).await;
    fill_for_uploads(store, user, word).await;
    let digest: [u8; 32] = std::array::from_fn(|at| user.as_bytes()[at % user.len()]);
    store.add_api_key(&user.into(), digest, "phone", at(1)).await.unwrap();
}

/// The first conversation was heard again, and is to be heard once more.
async fn fill_for_revisions(store: &Arc<SqliteStore>, user: &str, word: &str) {
    let ask = |id: &str, secs| crate::NewRetranscription {
        id: format!("{user}-{id}").as_str().into(),
        user: user.into(),
        conversation: format!("{user}-c0").as_str().into(),
        engine: "other".into(),
        now: at(secs),
    };
    store.ask_retranscription(ask("r1", 5)).await.unwrap();
    let (lease, _) = store.claim_retranscription(&"p1".into(), at(5), LEASE).await.unwrap().unwrap();
    let heard = crate::HeardStretch {
        zero_at: at(0),
        from: 0.0,
        until: 2.0,
        is_channel: false,
        segments: vec![segment("again", 0.5, word)],
    };
    let done = crate::Reheard {
        lease,
        stretches: vec![heard],
        heard_secs: 2.0,
        job_id: format!("{user}-again").as_str().into(),
        now: at(5),
    };
    store.complete_retranscription(done).await.unwrap();
    let claimed = store.claim_job(&"p1".into(), at(5), LEASE, ClaimRule::default()).await.unwrap().unwrap();
    let mut done = completion(&claimed.lease, word, 5);
    done.effects.clear();
    store.complete_job(done).await.unwrap();
    store.ask_retranscription(ask("r2", 6)).await.unwrap();
    let (lease, _) = store.claim_retranscription(&"p1".into(), at(6), LEASE).await.unwrap().unwrap();
    store.record_hearing(&lease, "0", word, at(6)).await.unwrap();
}

/// A webhook that hears of a day, with a message about it; and vectors of what was completed.
async fn fill_for_targets(store: &Arc<SqliteStore>, user: &str, word: &str) {
    let id = format!("{user}-target");
    let target = NewTarget {
        id: id.as_str().into(),
        user: user.into(),
        kind: TargetKind::App,
        settings: TargetSettings {
            name: "mine".into(),
            triggers: vec![Trigger::Conversation, Trigger::DaySummary],
            url: Sensitive::new(format!("http://localhost/{word}")),
            host: "localhost:80".into(),
            audio_secs: 5,
        },
        secret: Sensitive::new(word),
        now: at(5),
    };
    store.add_target(target).await.unwrap();
    let message = NewMessage {
        user: user.into(),
        target: id.as_str().into(),
        conversation: None,
        key: "k".into(),
        text: word.into(),
        now: at(5),
    };
    assert!(store.add_message(message).await.unwrap());
    let person = format!("person-of-{user}");
    store.person_named(&user.into(), word, Some(person.as_str().into()), at(5)).await.unwrap();
    let voice = Voice {
        id: format!("voice-of-{user}"),
        person: person.into(),
        model: "m".into(),
        vector: vec![1.0],
        seconds: 1.0,
        kept_at: at(5),
    };
    store.add_voice(&user.into(), voice).await.unwrap();
    while let Some(claim) = store.claim_embedding(&"p1".into(), at(6), LEASE).await.unwrap() {
        let embedded = Embedded { segments: None, vector: vec![1.0, 2.0] };
        store.complete_embedding(&claim, "model", vec![embedded]).await.unwrap();
    }
    fill_day(store, user, word).await;
}

/// A day that was summarised, and is being summarised again.
async fn fill_day(store: &Arc<SqliteStore>, user: &str, word: &str) {
    let day =
        || PlannedDay { date: "2023-11-14".into(), zone: "UTC".into(), from: at(-90_000), until: at(90_000) };
    store.ask_day(&user.into(), day(), at(7)).await.unwrap();
    let claim = store.claim_day(&"p1".into(), at(7), LEASE).await.unwrap().unwrap();
    let done = DayCompletion {
        summary: word.into(),
        payload: "{}".into(),
        conversations: 1,
        provenance: Provenance { provider: "local".into(), version: "day-1".into() },
        now: at(7),
    };
    store.complete_day(&claim, done).await.unwrap();
    store.ask_day(&user.into(), day(), at(8)).await.unwrap();
    let claim = store.claim_day(&"p1".into(), at(8), LEASE).await.unwrap().unwrap();
    store.record_day_step(&claim, word).await.unwrap();
}

/// A recording that became a conversation, and its job.
async fn fill_for_uploads(store: &Arc<SqliteStore>, user: &str, word: &str) {
    use auricle_core::Source;

    use crate::uploads::{NewUpload, UploadWords};

    let file = NewUpload {
        id: format!("{user}-upload").as_str().into(),
        sha256: [7; 32],
        bytes: 5,
        form: "file".into(),
        source: Source::Omi,
        language: None,
        recorded_at: at(0),
    };
    store.add_uploads(&user.into(), &format!("{user}-batch"), vec![file], at(6)).await.unwrap();
    let (lease, _) = store.claim_upload(&"p1".into(), at(6), LEASE).await.unwrap().unwrap();
    let words = UploadWords {
        lease,
        stretches: vec![vec![segment("s1", 0.0, word)]],
        fresh_ids: vec![format!("{user}-uploaded").as_str().into()],
        audio_secs: 1.0,
        join_within: LEASE,
        now: at(6),
    };
    store.complete_upload(words).await.unwrap();
}

fn holds(folder: &Path, word: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|file| {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        bytes.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
    })
}

/// Steps in as many processes, then what the protector does with what was deleted.
async fn erase(path: &Path, ring: &Keyring, user: &str) -> usize {
    let mut steps = 0;
    loop {
        let store = open(path, ring);
        let whose: UserId = user.into();
        assert_eq!(store.erasing(9).await.unwrap(), std::slice::from_ref(&whose), "the mark is durable");
        let done = store.erase_some(&whose, 20).await.unwrap();
        steps += 1;
        if !done {
            let early = store.finish_erasing(&whose).await;
            assert!(matches!(early, Err(StoreError::Conflict(_))), "{early:?}");
            store.close().await;
            continue;
        }
        store.finish_erasing(&whose).await.unwrap();
        loop {
            let now = store.seal_some().await.unwrap();
            if now.needs_compacting {
                assert!(store.compact(u64::MAX).await.unwrap().done);
            }
            if now.done {
                break;
            }
        }
        store.close().await;
        return steps;
    }
}

#[tokio::test]
async fn a_deleted_user_leaves_no_row_in_any_table_and_no_byte_in_any_file() {
    for ring in [Keyring::default(), ring()] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auricle.db");
        let store = open(&path, &ring);
        fill_for(&store, "ann-the-first", "xylophone").await;
        fill_for(&store, "bob-the-second", "trombone").await;
        let db = Connection::open(&path).unwrap();
        let (before, others) = (rows_of(&db, "ann-the-first"), rows_of(&db, "bob-the-second"));
        assert!(
            before.values().all(|rows| *rows > 0),
            "fill every table that a user can have rows in: {before:?}"
        );
        drop(db);
        assert!(store.begin_erasing(&"ann-the-first".into(), at(9)).await.unwrap());
        assert!(store.api_keys(&"ann-the-first".into()).await.unwrap().is_empty(), "keys go at once");
        store.close().await;
        let steps = erase(&path, &ring, "ann-the-first").await;
        assert!(steps > 3, "{steps}");
        let db = Connection::open(&path).unwrap();
        assert!(rows_of(&db, "ann-the-first").values().all(|rows| *rows == 0));
        assert_eq!((rows_of(&db, "bob-the-second"), orphaned(&db)), (others, 0));
        drop(db);
        for left in ["xylophone", "ann-the-first"] {
            assert!(!holds(folder.path(), left), "{left} is still on disk");
        }
        let store = open(&path, &ring);
        assert_eq!(store.search(&"bob-the-second".into(), "trombone", 9, 0).await.unwrap().len(), 4);
        assert!(!store.begin_erasing(&"ann-the-first".into(), at(9)).await.unwrap());
    }
}
