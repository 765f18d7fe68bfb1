//! Live conversations: choosing, owning, words, photos.

use std::time::Duration;

use auricle_core::{ConversationStatus, Photo, ProcessId, Revision, Source, Translation, UserId};

use super::{Ground, at, batch, ending, opening, segment, with_epoch};
use crate::store::{Choice, OpenConversation, StoreError};

fn fenced<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::Fenced(_) | StoreError::Ended(_))), "{result:?}");
}

pub async fn a_stub_is_made_and_owned(ground: Ground) {
    ground.announce().await;
    let opened = ground.store.open_conversation(opening(Choice::Resume, "c1")).await.unwrap();
    assert!(!opened.resumed && !opened.taken_over);
    assert_eq!((opened.started_at, opened.finished_at, opened.source), (at(0), at(0), Source::Omi));
    assert_eq!((opened.segment_count, opened.photo_count), (0, 0));
    assert!(opened.tail.is_none() && opened.last_completed.is_none());
    let found = ground.other.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    assert_eq!((found.created_at, found.language.as_deref()), (at(0), Some("en")));
    assert_eq!(found.revision.0, 0);
    assert_eq!(ground.store.current_conversation(&"ann".into()).await.unwrap(), Some("c1".into()));
    assert_eq!(ground.store.current_conversation(&"bob".into()).await.unwrap(), None);
}

pub async fn a_status_is_read_by_its_user_and_at_each_stage(ground: Ground) {
    let (ann, c1) = ("ann".into(), "c1".into());
    assert_eq!(ground.store.status(&ann, &c1).await.unwrap(), None);
    let owned = ground.live("c1").await;
    ground.store.append_segments(batch(&owned, 1, &[segment("a", 0.0, "one")])).await.unwrap();
    let live = (ConversationStatus::InProgress, Revision(0));
    assert_eq!(ground.other.status(&ann, &c1).await.unwrap(), Some(live));
    assert_eq!(ground.other.status(&"bob".into(), &c1).await.unwrap(), None);
    ground.store.finalise(ending(&c1, Some(&owned), "j1", 2)).await.unwrap();
    let whole = ground.other.conversation(&ann, &c1).await.unwrap().unwrap();
    assert_eq!(whole.status, ConversationStatus::Processing);
    assert_eq!(ground.other.status(&ann, &c1).await.unwrap(), Some((whole.status, whole.revision)));
}

pub async fn resume_takes_the_newest_of_user_and_source(ground: Ground) {
    let older = ground.live("c1").await;
    let newer = ground.live("c2").await;
    ground.store.append_segments(batch(&older, 5, &[segment("a", 0.0, "one")])).await.unwrap();
    ground.store.append_segments(batch(&newer, 9, &[segment("b", 0.0, "two")])).await.unwrap();
    let again = OpenConversation { now: at(10), ..opening(Choice::Resume, "c3") };
    let opened = ground.store.open_conversation(again).await.unwrap();
    assert_eq!(opened.ownership.conversation, "c2".into());
    assert!(opened.resumed && opened.taken_over);
    assert_eq!(opened.ownership.epoch.0, newer.epoch.0 + 1);
    assert_eq!((opened.segment_count, opened.finished_at), (1, at(9)));
    assert_eq!(opened.tail.unwrap().id, "b".into());
}

pub async fn resume_is_by_source_and_user(ground: Ground) {
    ground.live("c1").await;
    for (number, other) in [
        OpenConversation { source: Source::Desktop, ..opening(Choice::Resume, "c2") },
        OpenConversation { user: "bob".into(), ..opening(Choice::Resume, "c3") },
    ]
    .into_iter()
    .enumerate()
    {
        let opened = ground.store.open_conversation(other).await.unwrap();
        assert!(!opened.resumed, "{number}");
    }
}

pub async fn resume_ends_with_the_timeout(ground: Ground) {
    ground.live("c1").await;
    let late = OpenConversation { now: at(120), ..opening(Choice::Resume, "c2") };
    assert!(!ground.store.open_conversation(late).await.unwrap().resumed);
    let longer = OpenConversation { now: at(239), ..opening(Choice::Resume, "c3") };
    assert_eq!(ground.store.open_conversation(longer).await.unwrap().ownership.conversation, "c2".into());
}

pub async fn a_client_named_conversation_is_not_resumed_by_others(ground: Ground) {
    ground.announce().await;
    ground.store.open_conversation(opening(Choice::Named("mine".into()), "c1")).await.unwrap();
    let opened = ground.store.open_conversation(opening(Choice::Resume, "c2")).await.unwrap();
    assert_eq!(opened.ownership.conversation, "c2".into());
}

pub async fn named_resumes_makes_or_gives_a_stub(ground: Ground) {
    ground.announce().await;
    let named = |fresh: &str| opening(Choice::Named("mine".into()), fresh);
    let made = ground.store.open_conversation(named("c1")).await.unwrap();
    assert_eq!((made.ownership.conversation.as_str(), made.resumed), ("mine", false));
    let back = ground.store.open_conversation(named("c2")).await.unwrap();
    assert_eq!((back.ownership.conversation.as_str(), back.resumed), ("mine", true));
    let words = batch(&back.ownership, 1, &[segment("a", 0.0, "hello")]);
    ground.store.append_segments(words).await.unwrap();
    ground.store.finalise(ending(&"mine".into(), Some(&back.ownership), "j", 2)).await.unwrap();
    let stub = ground.store.open_conversation(named("c3")).await.unwrap();
    assert_eq!((stub.ownership.conversation.as_str(), stub.resumed), ("c3", false));
    assert_eq!(stub.client_conversation_id.as_deref(), Some("mine"));
    // The recording goes on in its stub after one more reconnect.
    let again = ground.store.open_conversation(named("c4")).await.unwrap();
    assert_eq!((again.ownership.conversation.as_str(), again.resumed), ("c3", true));
}

pub async fn named_of_another_user_gives_a_stub(ground: Ground) {
    ground.announce().await;
    ground.store.open_conversation(opening(Choice::Named("mine".into()), "c1")).await.unwrap();
    let bob = OpenConversation { user: "bob".into(), ..opening(Choice::Named("mine".into()), "c2") };
    let opened = ground.store.open_conversation(bob).await.unwrap();
    assert_eq!((opened.ownership.conversation.as_str(), opened.resumed), ("c2", false));
    assert!(ground.store.conversation(&"bob".into(), &"mine".into()).await.unwrap().is_none());
}

pub async fn new_is_always_a_stub(ground: Ground) {
    ground.live("c1").await;
    let opened = ground.store.open_conversation(opening(Choice::New, "c2")).await.unwrap();
    assert_eq!((opened.ownership.conversation.as_str(), opened.resumed), ("c2", false));
}

pub async fn opening_again_with_the_same_id_is_the_same_conversation(ground: Ground) {
    let first = ground.live("c1").await;
    let again = ground.store.open_conversation(opening(Choice::New, "c1")).await.unwrap();
    assert_eq!(again.ownership.conversation, first.conversation);
    assert!(again.ownership.epoch > first.epoch);
    let bob = OpenConversation { user: "bob".into(), ..opening(Choice::New, "c1") };
    assert!(matches!(ground.store.open_conversation(bob).await, Err(StoreError::Conflict(_))));
}

pub async fn words_come_back_as_stored_in_order_of_start(ground: Ground) {
    let owner = ground.live("c1").await;
    let mut full = segment("full", 2.5, "näh – 東京 \u{1F600}");
    full.is_user = true;
    full.person_id = Some("carla".into());
    full.translations = vec![Translation { lang: "de".into(), text: "nah".into() }];
    full.speech_profile_processed = false;
    full.stt_provider = Some("scripted".into());
    let mut bare = segment("bare", 0.25, "first");
    bare.speaker = None;
    ground.store.append_segments(batch(&owner, 3, &[full.clone(), bare.clone()])).await.unwrap();
    let found = ground.other.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    assert_eq!(found.segments, [bare, full]);
    assert_eq!(found.finished_at, at(3));
}

pub async fn changed_segments_replace_and_absorbed_ones_go(ground: Ground) {
    let owner = ground.live("c1").await;
    let words = [segment("a", 0.0, "one"), segment("b", 1.0, "two")];
    let mut first = batch(&owner, 1, &words);
    first.started_at = Some(at(-7));
    ground.store.append_segments(first).await.unwrap();
    let mut merged = batch(&owner, 2, &[segment("a", 0.0, "one two")]);
    merged.delete = vec!["b".into()];
    ground.store.append_segments(merged).await.unwrap();
    let found = ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    assert_eq!(found.segments, [segment("a", 0.0, "one two")]);
    assert_eq!(found.started_at, at(-7));
}

pub async fn repeating_a_batch_changes_nothing(ground: Ground) {
    let owner = ground.live("c1").await;
    let mut words = batch(&owner, 1, &[segment("a", 0.0, "one"), segment("b", 2.0, "two")]);
    words.started_at = Some(at(-1));
    words.delete = vec!["gone".into()];
    ground.store.append_segments(words.clone()).await.unwrap();
    let once = ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap();
    ground.store.append_segments(words).await.unwrap();
    assert_eq!(ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap(), once);
}

pub async fn a_batch_is_stored_whole_or_not_at_all(ground: Ground) {
    let owner = ground.live("c1").await;
    // No number: the second segment is refused, and the first goes with it.
    let refused = ground
        .store
        .append_segments(batch(&owner, 1, &[segment("a", 0.0, "one"), segment("b", f64::NAN, "two")]))
        .await;
    assert!(refused.is_err());
    assert!(ground.segment_ids("ann", "c1").await.is_empty());
    ground.store.append_segments(batch(&owner, 1, &[segment("c", 0.0, "three")])).await.unwrap();
    assert_eq!(ground.segment_ids("ann", "c1").await, ["c".into()]);
}

pub async fn m05_the_older_session_is_fenced(ground: Ground) {
    let older = ground.live("c1").await;
    let newer = ground.store.open_conversation(opening(Choice::Resume, "c2")).await.unwrap().ownership;
    let late = batch(&older, 1, &[segment("late", 0.0, "late")]);
    fenced(ground.store.append_segments(late).await);
    fenced(ground.store.note_finalise_reason(&older, auricle_core::FinaliseReason::UserStop).await);
    fenced(ground.store.release(&older, at(1)).await);
    fenced(ground.store.finalise(ending(&"c1".into(), Some(&older), "j", 1)).await);
    fenced(ground.store.append_segments(batch(&with_epoch(&newer, 99), 1, &[])).await);
    ground.store.append_segments(batch(&newer, 1, &[segment("a", 0.0, "one")])).await.unwrap();
    assert_eq!(ground.segment_ids("ann", "c1").await, ["a".into()]);
}

pub async fn fencing_holds_between_processes(ground: Ground) {
    let older = ground.live("c1").await;
    let moved = OpenConversation { process: "p2".into(), ..opening(Choice::Resume, "c2") };
    let newer = ground.other.open_conversation(moved).await.unwrap();
    assert!(newer.taken_over);
    fenced(ground.store.append_segments(batch(&older, 1, &[segment("x", 0.0, "x")])).await);
    ground.other.append_segments(batch(&newer.ownership, 1, &[segment("y", 0.0, "y")])).await.unwrap();
    assert_eq!(ground.segment_ids("ann", "c1").await, ["y".into()]);
}

pub async fn a_dead_process_owns_nothing(ground: Ground) {
    ground.store.process_alive(&ProcessId::from("p1"), at(5)).await.unwrap();
    ground.store.open_conversation(opening(Choice::New, "c1")).await.unwrap();
    let later = OpenConversation { now: at(6), process: "p2".into(), ..opening(Choice::Resume, "c2") };
    let opened = ground.other.open_conversation(later).await.unwrap();
    assert!(opened.resumed && !opened.taken_over);
}

pub async fn process_gone_frees_at_once(ground: Ground) {
    let owner = ground.live("c1").await;
    ground.store.process_gone(&ProcessId::from("p1"), at(1)).await.unwrap();
    fenced(ground.store.append_segments(batch(&owner, 1, &[segment("x", 0.0, "x")])).await);
    let moved = OpenConversation { process: "p2".into(), ..opening(Choice::Resume, "c2") };
    let opened = ground.other.open_conversation(moved).await.unwrap();
    assert!(opened.resumed && !opened.taken_over);
}

pub async fn release_leaves_it_to_the_next(ground: Ground) {
    let owner = ground.live("c1").await;
    ground.store.release(&owner, at(1)).await.unwrap();
    ground.store.release(&owner, at(1)).await.unwrap();
    fenced(ground.store.append_segments(batch(&owner, 1, &[segment("x", 0.0, "x")])).await);
    let opened = ground.store.open_conversation(opening(Choice::Resume, "c2")).await.unwrap();
    assert!(opened.resumed && !opened.taken_over);
}

fn photo(id: &str, secs: i64) -> Photo {
    Photo { id: id.into(), base64: "AAAA".into(), description: None, created_at: at(secs), discarded: false }
}

pub async fn the_first_photo_names_the_source(ground: Ground) {
    let owner = ground.live("c1").await;
    for _ in 0..2 {
        ground.store.append_photo(&owner, photo("p", 7)).await.unwrap();
    }
    let found = ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    assert_eq!(
        (found.source, found.finished_at, found.photos),
        (Source::Openglass, at(7), vec![photo("p", 7)])
    );
    let back = ground.store.open_conversation(opening(Choice::Resume, "c2")).await.unwrap();
    assert_eq!((back.ownership.conversation.as_str(), back.photo_count), ("c1", 1));
    let glasses = OpenConversation { source: Source::RaybanMeta, ..opening(Choice::New, "c3") };
    let owner = ground.store.open_conversation(glasses).await.unwrap().ownership;
    ground.store.append_photo(&owner, photo("q", 8)).await.unwrap();
    let found = ground.store.conversation(&"ann".into(), &"c3".into()).await.unwrap().unwrap();
    assert_eq!(found.source, Source::RaybanMeta);
}

pub async fn photos_are_described(ground: Ground) {
    let owner = ground.live("c1").await;
    ground.store.append_photo(&owner, photo("p", 1)).await.unwrap();
    let (ann, c1) = (UserId::from("ann"), "c1".into());
    ground.store.describe_photo(&ann, &c1, &"p".into(), Some("a cup"), true).await.unwrap();
    let found = ground.store.conversation(&ann, &c1).await.unwrap().unwrap();
    assert_eq!((found.photos[0].description.as_deref(), found.photos[0].discarded), (Some("a cup"), true));
    for (user, photo) in [("bob", "p"), ("ann", "none")] {
        let refused = ground.store.describe_photo(&user.into(), &c1, &photo.into(), None, false).await;
        assert!(matches!(refused, Err(StoreError::NotFound(_))));
    }
}

pub async fn l35_speakers_are_assigned_once(ground: Ground) {
    let owner = ground.live("c1").await;
    let words = [segment("a", 0.0, "one"), segment("b", 1.0, "two"), segment("c", 2.0, "three")];
    ground.store.append_segments(batch(&owner, 1, &words)).await.unwrap();
    let (ann, c1) = (UserId::from("ann"), "c1".into());
    let assign = |ids: &[&str], is_user, person: Option<&'static str>| {
        let ids: Vec<_> = ids.iter().map(|id| auricle_core::SegmentId::from(*id)).collect();
        let (store, ann, c1) = (ground.store.clone(), &ann, &c1);
        async move { store.assign_segments(ann, c1, &ids, is_user, person).await.unwrap() }
    };
    assert_eq!(assign(&["a", "none"], false, Some("carla")).await, 1);
    assert_eq!(assign(&["a", "b"], true, None).await, 1);
    let found = ground.store.conversation(&ann, &c1).await.unwrap().unwrap();
    let seen: Vec<_> = found
        .segments
        .iter()
        .map(|each| (each.is_user, each.person_id.as_ref().map(|person| person.as_str())))
        .collect();
    assert_eq!(seen, [(false, Some("carla")), (true, None), (false, None)]);
}

pub async fn the_tail_is_the_last_segment_by_start(ground: Ground) {
    let owner = ground.live("c1").await;
    let words = [segment("z", 9.0, "last"), segment("a", 1.0, "first")];
    ground.store.append_segments(batch(&owner, 1, &words)).await.unwrap();
    let opened = ground.store.open_conversation(opening(Choice::Resume, "c2")).await.unwrap();
    assert_eq!(opened.tail, Some(segment("z", 9.0, "last")));
}

pub async fn many_appends_at_once_all_arrive(ground: Ground) {
    const WRITERS: usize = 40;
    const BATCHES: usize = 10;
    ground.announce().await;
    let mut tasks = Vec::new();
    for writer in 0..WRITERS {
        let store = if writer % 2 == 0 { ground.store.clone() } else { ground.other.clone() };
        tasks.push(tokio::spawn(async move {
            let id = format!("c{writer}");
            let owner = store.open_conversation(opening(Choice::New, &id)).await.unwrap().ownership;
            for number in 0..BATCHES {
                let words = segment(&format!("s{number}"), number as f64, "word");
                store.append_segments(batch(&owner, 1, &[words])).await.unwrap();
            }
        }));
    }
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(60), task).await.unwrap().unwrap();
    }
    for writer in 0..WRITERS {
        assert_eq!(ground.segment_ids("ann", &format!("c{writer}")).await.len(), BATCHES);
    }
}

pub async fn what_a_process_owns_is_known_until_it_is_given_up_or_ends(ground: Ground) {
    let one = ground.live("c1").await;
    let two = ground.live("c2").await;
    let theirs = OpenConversation { process: "p2".into(), ..opening(Choice::New, "c3") };
    ground.store.open_conversation(theirs).await.unwrap();
    let owned = async || ground.other.owned(&"p1".into(), 10).await.unwrap();
    assert_eq!(owned().await, [one.clone(), two.clone()]);
    assert_eq!(ground.store.owned(&"p1".into(), 1).await.unwrap(), std::slice::from_ref(&one));
    ground.store.release(&one, at(1)).await.unwrap();
    assert_eq!(owned().await, std::slice::from_ref(&two));
    ground.store.append_segments(batch(&two, 1, &[segment("s1", 0.0, "hello")])).await.unwrap();
    ground.store.finalise(ending(&two.conversation, Some(&two), "job", 2)).await.unwrap();
    assert_eq!(owned().await, []);
}
