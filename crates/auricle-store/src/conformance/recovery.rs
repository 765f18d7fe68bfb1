//! Words recovered from spooled audio.

use super::{Ground, at, batch, ending, segment};
use crate::store::{Finalised, InsertRecovered, StoreError};

fn recovered(secs: i64, until: u64, segments: &[auricle_core::Segment]) -> InsertRecovered {
    InsertRecovered {
        conversation: "c1".into(),
        run: "run-1".into(),
        until_sample: until,
        zero_at: at(secs),
        segments: segments.to_vec(),
        gap: None,
    }
}

async fn starts(ground: &Ground) -> Vec<(String, f64)> {
    let found = ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    found.segments.iter().map(|each| (each.id.as_str().to_owned(), each.start)).collect()
}

pub async fn recovered_words_are_put_in_by_time(ground: Ground) {
    let owner = ground.live("c1").await;
    let mut first = batch(&owner, 5, &[segment("a", 0.0, "one"), segment("z", 30.0, "three")]);
    first.started_at = Some(at(10));
    ground.store.append_segments(first).await.unwrap();
    ground.store.insert_recovered(recovered(20, 16_000, &[segment("m", 1.5, "two")])).await.unwrap();
    let expected = [("a".to_owned(), 0.0), ("m".to_owned(), 11.5), ("z".to_owned(), 30.0)];
    assert_eq!(starts(&ground).await, expected);
    let found = ground.store.search(&"ann".into(), "two", 10, 0).await.unwrap();
    assert_eq!(found.len(), 1);
}

pub async fn a_run_is_put_in_once(ground: Ground) {
    ground.live("c1").await;
    let mut insert = recovered(0, 100, &[segment("a", 0.0, "one")]);
    insert.gap = Some((5.0, 6.0));
    ground.store.insert_recovered(insert.clone()).await.unwrap();
    insert.segments = vec![segment("b", 0.0, "one")];
    ground.other.insert_recovered(insert.clone()).await.unwrap();
    insert.until_sample = 50;
    ground.other.insert_recovered(insert).await.unwrap();
    let found = ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    assert_eq!((found.segments.len(), found.gaps.as_slice()), (1, [(5.0, 6.0)].as_slice()));
    ground.store.insert_recovered(recovered(0, 200, &[segment("c", 2.0, "two")])).await.unwrap();
    assert_eq!(ground.segment_ids("ann", "c1").await.len(), 2);
}

pub async fn recovery_into_an_empty_one_sets_the_clock(ground: Ground) {
    let owner = ground.live("c1").await;
    ground.store.insert_recovered(recovered(20, 100, &[segment("a", 2.0, "one")])).await.unwrap();
    let found = ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    assert_eq!((found.started_at, found.segments[0].start), (at(22), 0.0));
    // The live session knew nothing of it and sets its own clock: both keep their wall-clock times.
    let mut live = batch(&owner, 60, &[segment("b", 0.0, "two")]);
    live.started_at = Some(at(50));
    ground.store.append_segments(live).await.unwrap();
    assert_eq!(starts(&ground).await, [("a".to_owned(), -28.0), ("b".to_owned(), 0.0)]);
}

pub async fn l32_a_marked_gap_is_content(ground: Ground) {
    let owner = ground.live("c1").await;
    let mut insert = recovered(0, 100, &[]);
    insert.gap = Some((0.0, 4.0));
    ground.store.insert_recovered(insert).await.unwrap();
    let done = ground.store.finalise(ending(&"c1".into(), Some(&owner), "j", 2)).await.unwrap();
    assert!(matches!(done, Finalised::Queued { .. }));
}

pub async fn l36_words_arrive_after_the_end(ground: Ground) {
    ground.completed("c1", "hello", "Greeting").await;
    ground.store.insert_recovered(recovered(30, 100, &[segment("late", 0.0, "late")])).await.unwrap();
    let ids = ground.segment_ids("ann", "c1").await;
    assert_eq!(ids, ["s1".into(), "late".into()]);
}

pub async fn recovery_of_a_deleted_one_is_not_found(ground: Ground) {
    ground.live("c1").await;
    ground.store.delete(&"ann".into(), &"c1".into()).await.unwrap();
    let gone = ground.store.insert_recovered(recovered(0, 100, &[segment("a", 0.0, "one")])).await;
    assert!(matches!(gone, Err(StoreError::NotFound(_))));
}
