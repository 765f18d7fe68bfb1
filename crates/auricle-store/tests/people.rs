//! Bounds of people and voices.

#![allow(clippy::unwrap_used, reason = "what a test stands on must hold")]

use auricle_core::{UnixMicros, UserId};
use auricle_store::{SqliteOptions, SqliteStore, Store, StoreError, Voice};

fn voice(id: &str, person: &str, at: i64) -> Voice {
    Voice {
        id: id.into(),
        person: person.into(),
        model: "m".into(),
        vector: vec![1.0],
        seconds: 1.0,
        kept_at: UnixMicros(at),
    }
}

#[tokio::test]
async fn people_and_voices_are_bounded_and_the_oldest_voice_of_the_person_goes() {
    let folder = tempfile::TempDir::new().unwrap();
    let options = SqliteOptions {
        people_per_user_max: 3,
        voices_per_person_max: 2,
        voices_per_user_max: 4,
        ..SqliteOptions::default()
    };
    let store = SqliteStore::open(folder.path().join("auricle.db"), options).unwrap();
    let ann = UserId::from("ann");
    for name in ["a", "b", "c"] {
        store.person_named(&ann, name, Some(name.into()), UnixMicros(1)).await.unwrap();
    }
    let more = store.person_named(&ann, "d", Some("d".into()), UnixMicros(1)).await;
    assert!(matches!(more, Err(StoreError::Conflict(_))), "{more:?}");
    assert!(store.person_named(&ann, "A", Some("d".into()), UnixMicros(1)).await.unwrap().is_some());
    let ids = async || {
        let kept = store.voices(&ann, None).await.unwrap();
        kept.into_iter().map(|voice| voice.id).collect::<Vec<_>>()
    };
    for (id, person, at) in [("a1", "a", 1), ("a2", "a", 2), ("a3", "a", 3), ("b1", "b", 4), ("b2", "b", 5)] {
        store.add_voice(&ann, voice(id, person, at)).await.unwrap();
    }
    assert_eq!(ids().await, ["a2", "a3", "b1", "b2"]);
    let none = store.add_voice(&ann, voice("c1", "c", 6)).await;
    assert!(matches!(none, Err(StoreError::Conflict(_))), "{none:?}");
    store.add_voice(&ann, voice("a4", "a", 7)).await.unwrap();
    assert_eq!(ids().await, ["a3", "b1", "b2", "a4"]);
}
