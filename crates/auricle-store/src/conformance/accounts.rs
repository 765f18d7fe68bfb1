//! Users and keys.

use auricle_core::{PersonId, SegmentId, UserId};

use super::{Ground, at};
use crate::store::StoreError;

pub async fn users_are_made_once(ground: Ground) {
    let ann = UserId::from("ann");
    assert!(ground.store.ensure_user(&ann, at(0)).await.unwrap());
    assert!(!ground.other.ensure_user(&ann, at(1)).await.unwrap());
}

pub async fn time_zone_is_kept_by_user(ground: Ground) {
    let (ann, bob) = (UserId::from("ann"), UserId::from("bob"));
    assert!(matches!(ground.store.set_time_zone(&ann, "Europe/Madrid").await, Err(StoreError::NotFound(_))));
    ground.store.ensure_user(&ann, at(0)).await.unwrap();
    ground.store.ensure_user(&bob, at(0)).await.unwrap();
    assert_eq!(ground.store.time_zone(&ann).await.unwrap(), None);
    ground.store.set_time_zone(&ann, "Europe/Madrid").await.unwrap();
    assert_eq!(ground.other.time_zone(&ann).await.unwrap().as_deref(), Some("Europe/Madrid"));
    assert_eq!(ground.store.time_zone(&bob).await.unwrap(), None);
}

pub async fn keys_name_their_user_until_removed(ground: Ground) {
    let (ann, bob) = (UserId::from("ann"), UserId::from("bob"));
    let store = &ground.store;
    store.add_api_key(&ann, [1; 32], "laptop", at(0)).await.unwrap();
    store.add_api_key(&ann, [1; 32], "laptop", at(0)).await.unwrap();
    store.add_api_key(&bob, [2; 32], "laptop", at(1)).await.unwrap();
    assert!(matches!(store.add_api_key(&bob, [1; 32], "stolen", at(2)).await, Err(StoreError::Conflict(_))));
    assert_eq!(store.api_key_user([1; 32]).await.unwrap(), Some(ann.clone()));
    assert_eq!(store.api_key_user([3; 32]).await.unwrap(), None);
    assert_eq!(store.api_keys(&ann).await.unwrap(), [("laptop".to_owned(), at(0))]);
    assert_eq!(store.remove_api_key(&ann, "laptop").await.unwrap(), 1);
    assert_eq!(store.remove_api_key(&ann, "laptop").await.unwrap(), 0);
    assert_eq!(store.api_key_user([1; 32]).await.unwrap(), None);
    assert_eq!(store.api_key_user([2; 32]).await.unwrap(), Some(bob));
}

pub async fn speaker_samples_are_kept_by_person_and_conversation(ground: Ground) {
    ground.ended("c1", "hello").await;
    let (ann, ada): (UserId, PersonId) = ("ann".into(), "ada".into());
    let add = |id: &'static str, segments: &'static [&'static str], secs| {
        let (store, ann, ada) = (ground.store.clone(), ann.clone(), ada.clone());
        let segments: Vec<SegmentId> = segments.iter().map(|id| (*id).into()).collect();
        async move { store.add_speaker_sample(&ann, &ada, &id.into(), &segments, at(secs)).await }
    };
    add("c1", &["s1", "s2"], 5).await.unwrap();
    add("c1", &["s2", "s3"], 6).await.unwrap();
    let found = ground.other.speaker_samples(&ann, &ada, 10).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].segments.len(), found[0].kept_at), (3, at(6)));
    assert!(matches!(add("nobodys", &["s1"], 7).await, Err(StoreError::NotFound(_))));
    assert!(ground.store.speaker_samples(&"bob".into(), &ada, 10).await.unwrap().is_empty());
    ground.store.delete(&ann, &"c1".into()).await.unwrap();
    assert!(ground.store.speaker_samples(&ann, &ada, 10).await.unwrap().is_empty());
}
