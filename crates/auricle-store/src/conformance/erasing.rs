//! The end of a user.

use super::{Ground, at, batch, opening, segment};
use crate::store::{Choice, StoreError};

pub async fn a_marked_user_begins_nothing_and_has_no_key(ground: Ground) {
    let owner = ground.live("c1").await;
    let store = &ground.store;
    store.add_api_key(&"ann".into(), [7; 32], "phone", at(0)).await.unwrap();
    assert!(!store.begin_erasing(&"nobody".into(), at(1)).await.unwrap());
    assert!(store.begin_erasing(&"ann".into(), at(1)).await.unwrap());
    assert!(store.begin_erasing(&"ann".into(), at(2)).await.unwrap(), "again is no error");
    assert_eq!(ground.other.erasing(10).await.unwrap(), ["ann".into()]);
    assert_eq!(store.api_key_user([7; 32]).await.unwrap(), None);
    let refused = store.open_conversation(opening(Choice::New, "c2")).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    let refused = store.add_api_key(&"ann".into(), [8; 32], "phone", at(2)).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    assert!(matches!(store.ensure_user(&"ann".into(), at(2)).await, Err(StoreError::Conflict(_))));
    while !store.erase_some(&"ann".into(), 10).await.unwrap() {}
    // The session that still hears it is told, and cannot bring anything back.
    let late = store.append_segments(batch(&owner, 3, &[segment("s1", 0.0, "late")])).await;
    assert!(matches!(late, Err(StoreError::Ended(_))), "{late:?}");
    store.finish_erasing(&"ann".into()).await.unwrap();
    assert!(store.ensure_user(&"ann".into(), at(4)).await.unwrap(), "who comes back is new");
}

pub async fn erasing_takes_one_user_in_steps_and_is_repeated_safely(ground: Ground) {
    let store = &ground.store;
    ground.completed("c1", "words", "Hers").await;
    let owner = ground.live("c2").await;
    let many: Vec<_> = (0..30).map(|n| segment(&format!("s{n}"), f64::from(n), "words")).collect();
    store.append_segments(batch(&owner, 5, &many)).await.unwrap();
    let bob = crate::store::OpenConversation { user: "bob".into(), ..opening(Choice::New, "b1") };
    let his = store.open_conversation(bob).await.unwrap().ownership;
    store.append_segments(batch(&his, 5, &many)).await.unwrap();
    let early = store.erase_some(&"ann".into(), 10).await;
    assert!(matches!(early, Err(StoreError::Conflict(_))), "only who is marked: {early:?}");
    let early = store.finish_erasing(&"ann".into()).await;
    assert!(matches!(early, Err(StoreError::Conflict(_))), "{early:?}");
    store.begin_erasing(&"ann".into(), at(6)).await.unwrap();
    let mut steps = 0;
    while !ground.other.erase_some(&"ann".into(), 10).await.unwrap() {
        steps += 1;
        let early = store.finish_erasing(&"ann".into()).await;
        assert!(matches!(early, Err(StoreError::Conflict(_))), "{early:?}");
        assert!(steps < 100);
    }
    assert!(steps >= 3, "{steps}");
    for _ in 0..2 {
        assert!(store.erase_some(&"ann".into(), 10).await.unwrap());
        store.finish_erasing(&"ann".into()).await.unwrap();
    }
    assert!(store.conversation_ids(&"ann".into(), 10, 0).await.unwrap().is_empty());
    assert!(store.search(&"ann".into(), "words", 10, 0).await.unwrap().is_empty());
    assert!(store.jobs(Some(&"ann".into()), None, 10).await.unwrap().is_empty());
    assert!(store.erasing(10).await.unwrap().is_empty());
    let left = store.conversation(&"bob".into(), &"b1".into()).await.unwrap().unwrap();
    assert_eq!(left.segments.len(), 30);
    assert_eq!(store.search(&"bob".into(), "words", 10, 0).await.unwrap().len(), 1);
}
