//! Search while somebody is still typing.

use super::search::{fill, ids};
use super::{Ground, at};
use crate::store::NewMemory;

pub async fn the_last_word_matches_by_its_beginning(ground: Ground) {
    fill(&ground).await;
    assert_eq!(ids(&ground, "den").await, ["c1", "c3"]);
    assert_eq!(ids(&ground, "den ").await, [""; 0]);
    assert_eq!(ids(&ground, "green te").await, ["c2", "c3"]);
}

pub async fn the_last_word_of_a_record_matches_by_its_beginning(ground: Ground) {
    let memory =
        NewMemory { id: "m1".into(), text: "likes green tea".into(), conversation: None, now: at(1) };
    ground.store.add_memory(&"ann".into(), memory).await.unwrap();
    for (query, expected) in [("green te", 1), ("gre te", 0), ("green te ", 0)] {
        let found = ground.store.search_records(&"ann".into(), query, 10).await.unwrap();
        assert_eq!(found.len(), expected, "{query:?}");
    }
}
