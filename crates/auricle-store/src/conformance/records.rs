//! Action items and memories: what a revision makes, and what of it stays.

use auricle_core::{ActionItem, ActionItemId, ConversationId, JobId, MemoryId, UserId};

use super::{Ground, at, batch, completion, ending, segment};
use crate::store::{
    ActionItemEdit, ActionItemFilter, ActionItemRecord, MemoryFilter, MemoryRecord, NewActionItem, NewMemory,
    StoreError,
};

fn ann() -> UserId {
    "ann".into()
}

fn heard(description: &str) -> ActionItem {
    ActionItem {
        description: description.into(),
        completed: false,
        created_at: Some(at(3)),
        updated_at: Some(at(3)),
        due_at: None,
        completed_at: None,
    }
}

fn all() -> ActionItemFilter {
    ActionItemFilter { limit: 100, ..ActionItemFilter::default() }
}

/// In the order in which they were made.
async fn items(ground: &Ground) -> Vec<ActionItemRecord> {
    let mut found = ground.store.action_items(&ann(), all()).await.unwrap();
    found.reverse();
    found
}

async fn memories(ground: &Ground) -> Vec<MemoryRecord> {
    let filter = MemoryFilter { limit: 100, ..MemoryFilter::default() };
    let mut found = ground.store.memories(&ann(), filter).await.unwrap();
    found.reverse();
    found
}

async fn descriptions(ground: &Ground) -> Vec<String> {
    items(ground).await.into_iter().map(|item| item.description).collect()
}

async fn texts(ground: &Ground) -> Vec<String> {
    memories(ground).await.into_iter().map(|memory| memory.text).collect()
}

/// Completes the one due job with these records.
async fn complete(ground: &Ground, secs: i64, items: &[&str], memories: &[&str]) {
    let claimed = ground.claim("p1", secs).await;
    let mut done = completion(&claimed.lease, &format!("Talk {secs}"), secs);
    done.structured.action_items = items.iter().map(|text| heard(text)).collect();
    done.memories = memories.iter().map(|text| (*text).to_owned()).collect();
    ground.store.complete_job(done.clone()).await.unwrap();
    // Repeated, as after an answer that was lost.
    ground.store.complete_job(done).await.unwrap();
}

/// A conversation `c1` of ann's with these records.
async fn made(ground: &Ground, items: &[&str], memories: &[&str]) -> ConversationId {
    let id = ground.ended("c1", "words").await;
    complete(ground, 3, items, memories).await;
    id
}

async fn made_again(ground: &Ground, secs: i64, items: &[&str], memories: &[&str]) {
    let job = JobId::from(format!("again-{secs}"));
    ground.store.reprocess(&ann(), &"c1".into(), job, at(secs)).await.unwrap();
    complete(ground, secs, items, memories).await;
}

pub async fn a_completion_makes_its_records(ground: Ground) {
    let id = made(&ground, &["Call Ann", "Buy milk"], &["Has a dog"]).await;
    let found = items(&ground).await;
    assert_eq!(descriptions(&ground).await, ["Call Ann", "Buy milk"]);
    assert_eq!((found[0].conversation.as_ref(), found[0].revision.unwrap().0), (Some(&id), 1));
    assert_eq!((found[0].created_at, found[0].completed, found[0].edited), (at(3), false, false));
    let one = ground.other.action_item(&ann(), &found[0].id).await.unwrap().unwrap();
    assert_eq!(one, found[0]);
    let found = memories(&ground).await;
    assert_eq!(
        (found.len(), found[0].text.as_str(), found[0].conversation.as_ref()),
        (1, "Has a dog", Some(&id))
    );
    assert_eq!(ground.other.memory(&ann(), &found[0].id).await.unwrap().unwrap(), found[0]);
}

pub async fn the_same_revision_twice_doubles_nothing(ground: Ground) {
    made(&ground, &["Call Ann", "call ann!", "Buy milk"], &["Has a dog"]).await;
    let before = items(&ground).await;
    made_again(&ground, 5, &["Buy  milk.", "Call Ann"], &["has a dog"]).await;
    let after = items(&ground).await;
    let ids = |items: &[ActionItemRecord]| items.iter().map(|item| item.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&after), ids(&before));
    assert_eq!(descriptions(&ground).await, ["Call Ann", "Buy  milk."]);
    assert_eq!((after[0].updated_at, after[1].updated_at, after[1].created_at), (at(3), at(5), at(3)));
    assert_eq!(after[0].revision.unwrap().0, 2);
    assert_eq!(texts(&ground).await, ["has a dog"]);
}

pub async fn a_new_revision_replaces_what_nobody_touched(ground: Ground) {
    made(&ground, &["Call Ann", "Buy milk"], &["Has a dog", "Lives in Madrid"]).await;
    made_again(&ground, 5, &["Buy milk", "Write to Bob"], &["Lives in Madrid", "Has a cat"]).await;
    assert_eq!(descriptions(&ground).await, ["Buy milk", "Write to Bob"]);
    assert_eq!(texts(&ground).await, ["Lives in Madrid", "Has a cat"]);
    made_again(&ground, 7, &[], &[]).await;
    assert!(items(&ground).await.is_empty() && memories(&ground).await.is_empty());
}

pub async fn what_the_user_touched_survives_every_revision(ground: Ground) {
    let heard = ["Call Ann", "Buy milk", "Write to Bob", "Water the plants"];
    made(&ground, &heard, &["Has a dog"]).await;
    let ids: Vec<_> = items(&ground).await.into_iter().map(|item| item.id).collect();
    let edit = |index: usize, edit| {
        let (store, id) = (ground.store.clone(), ids[index].clone());
        async move { store.edit_action_item(&ann(), &id, edit, at(4)).await.unwrap() }
    };
    let reworded =
        ActionItemEdit { description: Some("Ring Ann about the roof".into()), ..Default::default() };
    assert!(edit(0, reworded).await.edited);
    let done = edit(1, ActionItemEdit { completed: Some(true), ..Default::default() }).await;
    assert_eq!((done.completed, done.completed_at), (true, Some(at(4))));
    edit(2, ActionItemEdit { due_at: Some(Some(at(99))), ..Default::default() }).await;
    let dog = memories(&ground).await.remove(0);
    ground.store.edit_memory(&ann(), &dog.id, "Has a dog called Max", at(4)).await.unwrap();

    // Made again as before, and then not at all.
    made_again(&ground, 5, &heard, &["Has a dog"]).await;
    assert_eq!(items(&ground).await.len(), 4, "nothing is doubled");
    made_again(&ground, 7, &[], &[]).await;
    let left = items(&ground).await;
    assert_eq!(descriptions(&ground).await, ["Ring Ann about the roof", "Buy milk", "Write to Bob"]);
    assert_eq!(left.iter().map(|item| item.id.clone()).collect::<Vec<_>>(), ids[..3]);
    assert_eq!((left[1].completed, left[2].due_at), (true, Some(at(99))));
    assert_eq!(texts(&ground).await, ["Has a dog called Max"]);
    // Reopened, it is still the user's.
    edit(1, ActionItemEdit { completed: Some(false), ..Default::default() }).await;
    made_again(&ground, 9, &["Buy milk"], &[]).await;
    let found = items(&ground).await;
    assert_eq!((found.len(), found[1].completed, found[1].completed_at), (3, false, None));
}

pub async fn what_the_user_deleted_does_not_come_back(ground: Ground) {
    made(&ground, &["Call Ann", "Buy milk"], &["Has a dog"]).await;
    let id = items(&ground).await.remove(0).id;
    let dog = memories(&ground).await.remove(0).id;
    ground.store.remove_action_item(&ann(), &id, at(4)).await.unwrap();
    ground.store.remove_memory(&ann(), &dog, at(4)).await.unwrap();
    assert!(ground.store.action_item(&ann(), &id).await.unwrap().is_none());
    for secs in [5, 7] {
        made_again(&ground, secs, &["Call Ann", "Buy milk"], &["Has a dog"]).await;
        assert_eq!(descriptions(&ground).await, ["Buy milk"]);
        assert!(texts(&ground).await.is_empty());
    }
    let edit = ActionItemEdit { completed: Some(true), ..Default::default() };
    let gone = ground.store.edit_action_item(&ann(), &id, edit, at(8)).await;
    assert!(matches!(gone, Err(StoreError::NotFound(_))));
    assert!(matches!(
        ground.store.remove_action_item(&ann(), &id, at(8)).await,
        Err(StoreError::NotFound(_))
    ));
    assert!(matches!(ground.store.edit_memory(&ann(), &dog, "x", at(8)).await, Err(StoreError::NotFound(_))));
}

pub async fn a_conversation_shows_what_the_records_say(ground: Ground) {
    let id = made(&ground, &["Call Ann", "Buy milk"], &[]).await;
    let ids: Vec<_> = items(&ground).await.into_iter().map(|item| item.id).collect();
    let edit = ActionItemEdit {
        description: Some("Ring Ann".into()),
        completed: Some(true),
        due_at: Some(Some(at(50))),
    };
    ground.store.edit_action_item(&ann(), &ids[0], edit, at(4)).await.unwrap();
    ground.store.remove_action_item(&ann(), &ids[1], at(4)).await.unwrap();
    let shown = ground.other.conversation(&ann(), &id).await.unwrap().unwrap().structured.action_items;
    assert_eq!(shown.len(), 1);
    assert_eq!((shown[0].description.as_str(), shown[0].completed), ("Ring Ann", true));
    assert_eq!((shown[0].due_at, shown[0].completed_at), (Some(at(50)), Some(at(4))));
    let filter = crate::ListFilter { limit: 10, ..Default::default() };
    let listed = ground.store.list(&ann(), filter).await.unwrap();
    assert_eq!(listed[0].structured.action_items, shown);
    let found = ground.store.search(&ann(), "talk", 10, 0).await.unwrap();
    assert_eq!(found[0].conversation.structured.action_items, shown);
}

pub async fn records_made_by_hand_are_not_made_again(ground: Ground) {
    let id = made(&ground, &[], &[]).await;
    let new = NewActionItem {
        id: "mine".into(),
        description: "Call Ann".into(),
        due_at: None,
        conversation: Some(id.clone()),
        now: at(4),
    };
    let added = ground.store.add_action_item(&ann(), new.clone()).await.unwrap();
    assert_eq!(ground.store.add_action_item(&ann(), new).await.unwrap(), added, "repeated");
    let new = NewMemory { id: "m".into(), text: "Has a dog".into(), conversation: Some(id), now: at(4) };
    ground.store.add_memory(&ann(), new).await.unwrap();
    made_again(&ground, 5, &["Call Ann"], &["Has a dog"]).await;
    made_again(&ground, 7, &[], &[]).await;
    assert_eq!(items(&ground).await.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ["mine"]);
    assert_eq!(memories(&ground).await.iter().map(|memory| memory.id.as_str()).collect::<Vec<_>>(), ["m"]);
}

pub async fn what_the_user_worded_outlives_its_conversation(ground: Ground) {
    let id = made(&ground, &["Call Ann", "Buy milk", "Write to Bob"], &["Has a dog", "Has a cat"]).await;
    let found = items(&ground).await;
    let reworded = ActionItemEdit { description: Some("Ring Ann".into()), ..Default::default() };
    ground.store.edit_action_item(&ann(), &found[0].id, reworded, at(4)).await.unwrap();
    ground.store.remove_action_item(&ann(), &found[2].id, at(4)).await.unwrap();
    let cat = memories(&ground).await.remove(1);
    ground.store.edit_memory(&ann(), &cat.id, "Has a cat called Tom", at(4)).await.unwrap();
    ground.store.delete(&ann(), &id).await.unwrap();
    let left = items(&ground).await;
    assert_eq!((left.len(), left[0].description.as_str(), &left[0].conversation), (1, "Ring Ann", &None));
    assert_eq!(texts(&ground).await, ["Has a cat called Tom"]);
    ground.store.remove_action_item(&ann(), &left[0].id, at(5)).await.unwrap();
    assert!(items(&ground).await.is_empty());
}

pub async fn a_conversation_of_the_same_id_makes_records_again(ground: Ground) {
    let id = made(&ground, &["Call Ann"], &["Has a dog"]).await;
    let reworded = ActionItemEdit { description: Some("Ring Ann".into()), ..Default::default() };
    let item = items(&ground).await.remove(0);
    ground.store.edit_action_item(&ann(), &item.id, reworded, at(4)).await.unwrap();
    ground.store.delete(&ann(), &id).await.unwrap();
    let owner = ground.live("c1").await;
    ground.store.append_segments(batch(&owner, 5, &[segment("s1", 0.0, "words")])).await.unwrap();
    ground.store.finalise(ending(&id, Some(&owner), "another", 6)).await.unwrap();
    complete(&ground, 7, &["Call Ann"], &["Has a dog"]).await;
    assert_eq!(items(&ground).await.len(), 2);
    assert_eq!(texts(&ground).await, ["Has a dog"]);
}

pub async fn action_items_are_filtered_and_paged(ground: Ground) {
    let id = made(&ground, &["One", "Two", "Three"], &[]).await;
    let new = |id: &str, due, secs| NewActionItem {
        id: id.into(),
        description: format!("By hand {id}"),
        due_at: due,
        conversation: None,
        now: at(secs),
    };
    ground.store.add_action_item(&ann(), new("a", Some(at(100)), 20)).await.unwrap();
    ground.store.add_action_item(&ann(), new("b", Some(at(200)), 21)).await.unwrap();
    let done = ActionItemEdit { completed: Some(true), ..Default::default() };
    ground.store.edit_action_item(&ann(), &"a".into(), done, at(22)).await.unwrap();
    let find = |filter: ActionItemFilter| {
        let store = ground.store.clone();
        async move {
            let found = store.action_items(&ann(), filter).await.unwrap();
            found.into_iter().map(|item| item.description).collect::<Vec<_>>()
        }
    };
    assert_eq!(find(all()).await, ["By hand b", "By hand a", "Three", "Two", "One"]);
    assert_eq!(find(ActionItemFilter { limit: 2, offset: 1, ..all() }).await, ["By hand a", "Three"]);
    assert_eq!(find(ActionItemFilter { completed: Some(true), ..all() }).await, ["By hand a"]);
    assert_eq!(find(ActionItemFilter { completed: Some(false), limit: 1, ..all() }).await, ["By hand b"]);
    assert_eq!(find(ActionItemFilter { due_from: Some(at(101)), ..all() }).await, ["By hand b"]);
    assert_eq!(find(ActionItemFilter { due_before: Some(at(200)), ..all() }).await, ["By hand a"]);
    assert_eq!(find(ActionItemFilter { created_from: Some(at(21)), ..all() }).await, ["By hand b"]);
    let of = ActionItemFilter { conversation: Some(id.clone()), ..all() };
    assert_eq!(find(of).await, ["Three", "Two", "One"]);
    let not_of = ActionItemFilter { not_of: Some(id), ..all() };
    assert_eq!(find(not_of).await, ["By hand b", "By hand a"]);
}

pub async fn every_user_has_only_their_own_records(ground: Ground) {
    let conversation = made(&ground, &["Call Ann"], &["Has a dog"]).await;
    let (item, memory) = (items(&ground).await.remove(0), memories(&ground).await.remove(0));
    let bob = UserId::from("bob");
    ground.store.ensure_user(&bob, at(0)).await.unwrap();
    let store = &ground.store;
    let missing = |error: StoreError| assert!(matches!(error, StoreError::NotFound(_)), "{error}");
    assert!(store.action_items(&bob, all()).await.unwrap().is_empty());
    let of = ActionItemFilter { conversation: Some(conversation.clone()), ..all() };
    assert!(store.action_items(&bob, of).await.unwrap().is_empty());
    assert!(store.action_item(&bob, &item.id).await.unwrap().is_none());
    let edit = ActionItemEdit { description: Some("Mine".into()), ..Default::default() };
    missing(store.edit_action_item(&bob, &item.id, edit, at(9)).await.unwrap_err());
    missing(store.remove_action_item(&bob, &item.id, at(9)).await.unwrap_err());
    let filter = MemoryFilter { conversation: Some(conversation), limit: 10, offset: 0 };
    assert!(store.memories(&bob, filter).await.unwrap().is_empty());
    assert!(store.memory(&bob, &memory.id).await.unwrap().is_none());
    missing(store.edit_memory(&bob, &memory.id, "Mine", at(9)).await.unwrap_err());
    missing(store.remove_memory(&bob, &memory.id, at(9)).await.unwrap_err());
    assert_eq!((items(&ground).await, memories(&ground).await), (vec![item], vec![memory]));
}

pub async fn records_are_made_for_ones_own_conversations_only(ground: Ground) {
    let conversation = Some(made(&ground, &[], &[]).await);
    let bob = UserId::from("bob");
    let item = |id: &str, conversation| NewActionItem {
        id: ActionItemId::from(id),
        description: "Spy".into(),
        due_at: None,
        conversation,
        now: at(9),
    };
    let memory = |id: &str, conversation| NewMemory {
        id: MemoryId::from(id),
        text: "Spy".into(),
        conversation,
        now: at(9),
    };
    let store = &ground.store;
    let refused = store.add_action_item(&bob, item("x", conversation.clone())).await;
    assert!(matches!(refused, Err(StoreError::NotFound(_))));
    let refused = store.add_memory(&bob, memory("x", conversation)).await;
    assert!(matches!(refused, Err(StoreError::NotFound(_))));
    // A user who has nothing yet can begin by hand; an id is one user's.
    store.add_action_item(&bob, item("y", None)).await.unwrap();
    store.add_memory(&bob, memory("y", None)).await.unwrap();
    assert!(matches!(store.add_action_item(&ann(), item("y", None)).await, Err(StoreError::Conflict(_))));
    assert!(matches!(store.add_memory(&ann(), memory("y", None)).await, Err(StoreError::Conflict(_))));
}
