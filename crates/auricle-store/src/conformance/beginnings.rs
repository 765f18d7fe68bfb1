//! Search while somebody is still typing.

use super::Ground;
use super::search::{fill, ids};

pub async fn the_last_word_matches_by_its_beginning(ground: Ground) {
    fill(&ground).await;
    assert_eq!(ids(&ground, "den").await, ["c1", "c3"]);
    assert_eq!(ids(&ground, "den ").await, [""; 0]);
    assert_eq!(ids(&ground, "green te").await, ["c2", "c3"]);
}
