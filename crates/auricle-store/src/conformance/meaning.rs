//! Embedding work, vectors, and search by meaning.

use std::time::Duration;

use auricle_core::{DiscardReason, UserId};

use super::{Ground, LEASE, at, completion, segment};
use crate::store::{
    Choice, Embedded, EmbeddingClaim, EmbeddingCounts, EmbeddingOutcome, InsertRecovered, Near,
    OpenConversation, StoreError,
};

fn ann() -> UserId {
    "ann".into()
}

/// A vector that points mostly along `axis`.
fn along(axis: usize) -> Vec<f32> {
    (0..8).map(|index| if index == axis { 3.0 } else { 0.1 }).collect()
}

fn whole(vector: Vec<f32>) -> Embedded {
    Embedded { segments: None, vector }
}

fn chunk(first: &str, last: &str, vector: Vec<f32>) -> Embedded {
    Embedded { segments: Some((first.into(), last.into())), vector }
}

async fn claim(ground: &Ground, process: &str, secs: i64) -> Option<EmbeddingClaim> {
    ground.store.claim_embedding(&process.into(), at(secs), LEASE).await.unwrap()
}

async fn embed(ground: &Ground, secs: i64, model: &str, embedded: Vec<Embedded>) -> EmbeddingClaim {
    let claim = claim(ground, "p1", secs).await.expect("work is due");
    ground.store.complete_embedding(&claim, model, embedded).await.unwrap();
    claim
}

async fn nearest(ground: &Ground, user: &str, model: &str, axis: usize) -> Vec<Near> {
    ground.other.nearest(&user.into(), model, along(axis), 10).await.unwrap()
}

fn ids(near: &[Near]) -> Vec<&str> {
    near.iter().map(|near| near.conversation.as_str()).collect()
}

fn fenced<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::Fenced(_))), "{result:?}");
}

pub async fn a_completion_leaves_work_and_a_discarded_one_does_not(ground: Ground) {
    ground.ended("c1", "words").await;
    assert_eq!(claim(&ground, "p1", 3).await, None, "it is not completed");
    let lease = ground.claim("p1", 3).await.lease;
    ground.store.complete_job(completion(&lease, "Kept", 4)).await.unwrap();
    ground.ended("c2", "um").await;
    let lease = ground.claim("p1", 5).await.lease;
    let mut done = completion(&lease, "", 5);
    done.discarded = Some(DiscardReason::Trivial);
    ground.store.complete_job(done).await.unwrap();
    assert_eq!(ground.store.embedding_counts().await.unwrap(), EmbeddingCounts { pending: 1, failed: 0 });
    let claimed = claim(&ground, "p1", 6).await.unwrap();
    assert_eq!((claimed.conversation.as_str(), claimed.user.as_str(), claimed.attempts), ("c1", "ann", 1));
    assert_eq!(claim(&ground, "p2", 6).await, None, "one holds it");
}

pub async fn the_nearest_come_first_by_their_nearest_text(ground: Ground) {
    ground.completed("c1", "words", "One").await;
    embed(&ground, 5, "m", vec![whole(along(0)), chunk("s1", "s2", along(1)), chunk("s3", "s4", along(2))])
        .await;
    ground.completed("c2", "words", "Two").await;
    let mut between = along(2);
    between[3] = 2.0;
    embed(&ground, 5, "m", vec![whole(between)]).await;
    let found = nearest(&ground, "ann", "m", 2).await;
    assert_eq!(ids(&found), ["c1", "c2"]);
    assert!((found[0].similarity - 1.0).abs() < 1e-5 && found[1].similarity < 0.9, "{found:?}");
    assert_eq!(found[0].segments, Some(("s3".into(), "s4".into())));
    assert_eq!(found[1].segments, None);
    assert_eq!(nearest(&ground, "ann", "m", 0).await[0].segments, None);
    assert_eq!(ground.store.nearest(&ann(), "m", along(2), 1).await.unwrap().len(), 1);
    for query in [vec![], vec![0.0; 8], vec![f32::NAN; 8], vec![1.0; 5]] {
        assert!(ground.store.nearest(&ann(), "m", query, 10).await.unwrap().is_empty());
    }
}

pub async fn searches_follow_every_change(ground: Ground) {
    ground.completed("c1", "words", "One").await;
    embed(&ground, 5, "m", vec![whole(along(0))]).await;
    assert_eq!(ids(&nearest(&ground, "ann", "m", 0).await), ["c1"]);
    ground.completed("c2", "words", "Two").await;
    embed(&ground, 6, "m", vec![whole(along(0)), chunk("s1", "s1", along(1))]).await;
    assert_eq!(nearest(&ground, "ann", "m", 0).await.len(), 2);
    ground.store.delete(&ann(), &"c1".into()).await.unwrap();
    assert_eq!(ids(&nearest(&ground, "ann", "m", 0).await), ["c2"]);
    // Set aside by a new revision, it is found no more.
    ground.store.reprocess(&ann(), &"c2".into(), "again".into(), at(7)).await.unwrap();
    assert_eq!(nearest(&ground, "ann", "m", 0).await.len(), 1, "until then it is");
    let lease = ground.claim("p1", 8).await.lease;
    let mut done = completion(&lease, "", 8);
    done.discarded = Some(DiscardReason::Trivial);
    ground.store.complete_job(done).await.unwrap();
    assert!(nearest(&ground, "ann", "m", 0).await.is_empty());
    assert_eq!(claim(&ground, "p1", 9).await, None);
}

pub async fn nobody_finds_what_is_anothers(ground: Ground) {
    ground.completed("c1", "words", "One").await;
    embed(&ground, 5, "m", vec![whole(along(0))]).await;
    let bob = OpenConversation { user: "bob".into(), ..super::opening(Choice::New, "b1") };
    ground.store.open_conversation(bob).await.unwrap();
    assert!(nearest(&ground, "bob", "m", 0).await.is_empty());
    assert!(nearest(&ground, "nobody", "m", 0).await.is_empty());
    assert_eq!(nearest(&ground, "ann", "m", 0).await.len(), 1);
}

pub async fn another_models_vectors_are_not_compared_and_are_made_again(ground: Ground) {
    for id in ["c1", "c2", "c3"] {
        ground.completed(id, "words", id).await;
        embed(&ground, 5, "old", vec![whole(along(0))]).await;
    }
    let requeue = |model: &'static str, limit| {
        let store = ground.store.clone();
        async move { store.requeue_embeddings(model, at(6), limit).await.unwrap() }
    };
    assert_eq!(requeue("old", 10).await, 0);
    assert!(nearest(&ground, "ann", "new", 0).await.is_empty());
    assert_eq!((requeue("new", 2).await, requeue("new", 2).await, requeue("new", 2).await), (2, 1, 0));
    embed(&ground, 7, "new", vec![whole(along(0))]).await;
    assert_eq!(nearest(&ground, "ann", "new", 0).await.len(), 1);
    assert_eq!(nearest(&ground, "ann", "old", 0).await.len(), 2);
    embed(&ground, 7, "new", vec![whole(along(0))]).await;
    embed(&ground, 7, "new", vec![whole(along(0))]).await;
    assert_eq!((nearest(&ground, "ann", "new", 0).await.len(), claim(&ground, "p1", 9).await), (3, None));
}

pub async fn a_claim_runs_out_and_its_holder_changes_nothing(ground: Ground) {
    ground.completed("c1", "words", "One").await;
    let first = claim(&ground, "p1", 5).await.unwrap();
    ground.store.renew_embedding(&first, at(30)).await.unwrap();
    assert_eq!(claim(&ground, "p2", 29).await, None);
    let second = claim(&ground, "p2", 30).await.unwrap();
    assert_eq!(second.attempts, 2);
    fenced(ground.store.renew_embedding(&first, at(90)).await);
    fenced(ground.store.complete_embedding(&first, "m", vec![whole(along(0))]).await);
    let outcome = EmbeddingOutcome::GivenUp { error: "late".into() };
    fenced(ground.store.end_embedding(&first, outcome, at(31)).await);
    assert!(nearest(&ground, "ann", "m", 0).await.is_empty());
    // A new revision fences too: what it says is not embedded yet.
    ground.store.reprocess(&ann(), &"c1".into(), "again".into(), at(32)).await.unwrap();
    let lease = ground.claim("p1", 33).await.lease;
    ground.store.complete_job(completion(&lease, "Again", 33)).await.unwrap();
    fenced(ground.store.complete_embedding(&second, "m", vec![whole(along(0))]).await);
    embed(&ground, 34, "m", vec![whole(along(1))]).await;
    ground.store.delete(&ann(), &"c1".into()).await.unwrap();
    let gone = ground.store.renew_embedding(&second, at(99)).await;
    assert!(matches!(gone, Err(StoreError::NotFound(_))));
}

pub async fn a_process_that_goes_gives_its_claims_back(ground: Ground) {
    ground.completed("c1", "words", "One").await;
    let held = claim(&ground, "p1", 5).await.unwrap();
    ground.store.process_gone(&"p1".into(), at(6)).await.unwrap();
    fenced(ground.store.complete_embedding(&held, "m", vec![whole(along(0))]).await);
    let again = claim(&ground, "p2", 6).await.unwrap();
    assert_eq!((again.conversation.as_str(), again.attempts), ("c1", 1));
}

pub async fn attempts_wait_for_their_time_and_end_some_time(ground: Ground) {
    ground.completed("c1", "words", "One").await;
    let held = claim(&ground, "p1", 5).await.unwrap();
    let away = EmbeddingOutcome::Postponed { at: at(20), error: "away".into() };
    ground.store.end_embedding(&held, away, at(5)).await.unwrap();
    assert_eq!(claim(&ground, "p1", 19).await, None);
    let held = claim(&ground, "p1", 20).await.unwrap();
    assert_eq!((held.attempts, held.postponed), (1, 1), "that was not counted");
    let retry = EmbeddingOutcome::Retry { at: at(30), error: "odd".into() };
    ground.store.end_embedding(&held, retry, at(20)).await.unwrap();
    let held = claim(&ground, "p1", 30).await.unwrap();
    assert_eq!((held.attempts, held.postponed), (2, 0));
    ground.store.end_embedding(&held, EmbeddingOutcome::Released, at(30)).await.unwrap();
    let held = claim(&ground, "p1", 30).await.unwrap();
    assert_eq!(held.attempts, 2);
    let given_up = EmbeddingOutcome::GivenUp { error: "refused".into() };
    ground.store.end_embedding(&held, given_up, at(30)).await.unwrap();
    assert_eq!(claim(&ground, "p1", 99_999).await, None);
    assert_eq!(ground.store.embedding_counts().await.unwrap(), EmbeddingCounts { pending: 0, failed: 1 });
    assert_eq!(
        ground.store.requeue_embeddings("m", at(40), 10).await.unwrap(),
        1,
        "the next start tries again"
    );
    assert_eq!(claim(&ground, "p1", 40).await.unwrap().attempts, 1);
}

pub async fn words_that_come_late_and_another_title_are_embedded_again(ground: Ground) {
    let id = ground.completed("c1", "words", "One").await;
    embed(&ground, 5, "m", vec![whole(along(0))]).await;
    let late = InsertRecovered {
        conversation: id.clone(),
        run: "r".into(),
        until_sample: 1,
        zero_at: at(6),
        segments: vec![segment("late", 0.0, "and more")],
        gap: None,
    };
    ground.store.insert_recovered(late).await.unwrap();
    assert!(claim(&ground, "p1", 6).await.is_some());
    ground.store.rename(&ann(), &id, "Another", at(7)).await.unwrap();
    embed(&ground, 8, "m", vec![whole(along(1))]).await;
    assert!((nearest(&ground, "ann", "m", 1).await[0].similarity - 1.0).abs() < 1e-5);
}

pub async fn the_latest_is_embedded_first(ground: Ground) {
    for (id, secs) in [("c1", 10), ("c2", 30), ("c3", 20)] {
        ground.ended(id, "words").await;
        let lease = ground.claim("p1", 5).await.lease;
        ground.store.complete_job(completion(&lease, id, secs)).await.unwrap();
    }
    let mut order = Vec::new();
    while let Some(claimed) =
        ground.store.claim_embedding(&"p1".into(), at(40), Duration::from_secs(600)).await.unwrap()
    {
        order.push(claimed.conversation.to_string());
    }
    assert_eq!(order, ["c2", "c3", "c1"]);
}
