//! Search by meaning is exact, whatever fits into memory.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use auricle_core::{ConversationId, UserId};
use auricle_store::conformance::{Ground, LEASE, at, batch, completion, ending, opening, segment};
use auricle_store::{Choice, ClaimRule, Embedded, OpenConversation, SqliteOptions, SqliteStore, Store};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const DIMENSIONS: usize = 48;
const USERS: [&str; 3] = ["ann", "bob", "eve"];
const EACH: usize = 40;
const CHUNKS: usize = 6;

fn vector(random: &mut StdRng) -> Vec<f32> {
    (0..DIMENSIONS).map(|_| random.random_range(-1.0..1.0)).collect()
}

fn cosine(one: &[f32], other: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(one, other) / (dot(one, one) * dot(other, other)).sqrt()
}

/// Embeds one more conversation of `user`; its vectors.
async fn add(
    store: &Arc<dyn Store>,
    user: &str,
    id: &str,
    random: &mut StdRng,
) -> (ConversationId, Vec<Vec<f32>>) {
    let open = OpenConversation { user: user.into(), ..opening(Choice::New, id) };
    let owner = store.open_conversation(open).await.unwrap().ownership;
    store.append_segments(batch(&owner, 1, &[segment("s1", 0.0, "words")])).await.unwrap();
    store.finalise(ending(&owner.conversation, Some(&owner), &format!("job-{id}"), 2)).await.unwrap();
    let job = store.claim_job(&"p1".into(), at(3), LEASE, ClaimRule::default()).await.unwrap().unwrap();
    store.complete_job(completion(&job.lease, id, 3)).await.unwrap();
    let claim = store.claim_embedding(&"p1".into(), at(4), LEASE).await.unwrap().unwrap();
    let vectors: Vec<_> = (0..CHUNKS).map(|_| vector(random)).collect();
    let embedded = vectors.iter().map(|vector| Embedded { segments: None, vector: vector.clone() }).collect();
    store.complete_embedding(&claim, "m", embedded).await.unwrap();
    (owner.conversation, vectors)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nearest_are_those_of_a_plain_scan_whatever_fits_into_memory() {
    let one_user = EACH * CHUNKS * (DIMENSIONS + 12);
    // Nothing fits; one user of three does; all do.
    for bytes in [1, one_user, 1 << 30] {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteOptions { vectors_bytes_max: bytes, ..SqliteOptions::default() };
        let store: Arc<dyn Store> = SqliteStore::open(folder.path().join("a.db"), options).unwrap();
        let ground = Ground { store: Arc::clone(&store), other: Arc::clone(&store), keep: Box::new(folder) };
        ground.announce().await;
        let mut random = StdRng::seed_from_u64(5);
        let mut all = Vec::new();
        for number in 0..EACH {
            for user in USERS {
                all.push((user, add(&store, user, &format!("{user}{number}"), &mut random).await));
            }
            if number % 10 != 9 {
                continue;
            }
            // Some go, so that what is in memory must follow.
            let (user, (gone, _)) = all.remove(random.random_range(0..all.len()));
            store.delete(&UserId::from(user), &gone).await.unwrap();
            for user in USERS {
                let query = vector(&mut random);
                let mut plain: Vec<_> = all
                    .iter()
                    .filter(|(of, _)| *of == user)
                    .map(|(_, (id, vectors))| {
                        let best = vectors.iter().map(|vector| cosine(vector, &query)).fold(-1.0, f64::max);
                        (id.clone(), best)
                    })
                    .collect();
                plain.sort_by(|one, other| other.1.total_cmp(&one.1));
                plain.truncate(10);
                let found = store.nearest(&user.into(), "m", query, 10).await.unwrap();
                let ids: Vec<_> = found.iter().map(|near| near.conversation.clone()).collect();
                assert_eq!(ids, plain.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), "{bytes} bytes");
                for (near, (_, best)) in found.iter().zip(&plain) {
                    assert!((f64::from(near.similarity) - best).abs() < 1e-5);
                }
            }
        }
    }
}
