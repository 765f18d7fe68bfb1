//! People a user knows, their voices, and segments assigned to them.

use auricle_core::session::SpeakerAssignment;
use auricle_core::{Assignee, ConversationStatus, PersonId, SegmentId, Speaker, UserId};

use super::{Ground, at, batch, opening, segment};
use crate::store::{Choice, OpenConversation, Person, SegmentChoice, StoreError, Voice};

fn not_found<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::NotFound(_))), "{result:?}");
}

async fn person(ground: &Ground, user: &str, id: &str, name: &str) -> Person {
    let made = ground.store.person_named(&user.into(), name, Some(id.into()), at(1)).await;
    made.unwrap().expect("found or made")
}

fn voice(id: &str, person: &str, secs: i64) -> Voice {
    Voice {
        id: id.into(),
        person: person.into(),
        model: "m".into(),
        vector: vec![0.5, -1.25],
        seconds: 3.5,
        kept_at: at(secs),
    }
}

/// Whom each segment is assigned to, in their order.
async fn assigned(ground: &Ground, id: &str) -> Vec<(bool, Option<String>)> {
    let found = ground.other.conversation(&"ann".into(), &id.into()).await.unwrap().unwrap();
    found.segments.iter().map(|s| (s.is_user, s.person_id.as_ref().map(ToString::to_string))).collect()
}

pub async fn people_are_found_by_name_and_are_their_users_own(ground: Ground) {
    let (ann, bob): (UserId, UserId) = ("ann".into(), "bob".into());
    let store = &ground.store;
    assert_eq!(store.person_named(&ann, "Ada", None, at(1)).await.unwrap(), None);
    let ada = person(&ground, "ann", "p1", "Ada").await;
    assert_eq!((ada.id.as_str(), ada.name.as_str(), ada.created_at, ada.voices), ("p1", "Ada", at(1), 0));
    assert_eq!(person(&ground, "ann", "p2", "ADA").await, ada, "no second one of a name");
    assert_eq!(person(&ground, "bob", "p3", "Ada").await.id, "p3".into());
    assert_eq!(ground.other.people(&ann).await.unwrap(), std::slice::from_ref(&ada));
    assert_eq!(ground.other.person(&bob, &ada.id).await.unwrap(), None);
    not_found(store.rename_person(&bob, &ada.id, "Eve", at(2)).await);
    not_found(store.remove_person(&bob, &ada.id).await);
    not_found(store.add_voice(&bob, voice("v", "p1", 2)).await);
    let renamed = store.rename_person(&ann, &ada.id, "Ada L.", at(2)).await.unwrap();
    assert_eq!((renamed.name.as_str(), renamed.created_at, renamed.updated_at), ("Ada L.", at(1), at(2)));
    person(&ground, "ann", "p4", "Carl").await;
    let taken = store.rename_person(&ann, &ada.id, "carl", at(3)).await;
    assert!(matches!(taken, Err(StoreError::Conflict(_))), "{taken:?}");
    let stolen = store.person_named(&bob, "Dan", Some("p1".into()), at(3)).await;
    assert!(matches!(stolen, Err(StoreError::Conflict(_))), "{stolen:?}");
}

pub async fn voices_are_kept_by_model_and_go_with_their_person(ground: Ground) {
    let ann: UserId = "ann".into();
    person(&ground, "ann", "p1", "Ada").await;
    let kept = voice("v1", "p1", 2);
    for _ in 0..2 {
        ground.store.add_voice(&ann, kept.clone()).await.unwrap();
    }
    let other = Voice { model: "other".into(), ..voice("v2", "p1", 3) };
    ground.store.add_voice(&ann, other.clone()).await.unwrap();
    assert_eq!(ground.other.voices(&ann, Some("m")).await.unwrap(), std::slice::from_ref(&kept));
    assert_eq!(ground.other.voices(&ann, None).await.unwrap(), [kept, other]);
    assert!(ground.other.voices(&"bob".into(), None).await.unwrap().is_empty());
    assert_eq!(ground.other.person(&ann, &"p1".into()).await.unwrap().unwrap().voices, 2);
    ground.store.remove_person(&ann, &"p1".into()).await.unwrap();
    assert!(ground.other.voices(&ann, None).await.unwrap().is_empty());
}

pub async fn a_deleted_person_is_taken_from_all_segments_of_their_user(ground: Ground) {
    let owner = ground.live("c1").await;
    let mut many: Vec<_> =
        (0..1_100).map(|n| segment(&format!("s{n}"), f64::from(n) * 5.0, "words")).collect();
    many.iter_mut().for_each(|segment| segment.person_id = Some("p1".into()));
    ground.store.append_segments(batch(&owner, 1, &many)).await.unwrap();
    let theirs = OpenConversation { user: "bob".into(), ..opening(Choice::New, "b1") };
    let theirs = ground.store.open_conversation(theirs).await.unwrap().ownership;
    ground.store.append_segments(batch(&theirs, 1, &many[..1])).await.unwrap();
    person(&ground, "ann", "p1", "Ada").await;
    let (ann, ada): (UserId, PersonId) = ("ann".into(), "p1".into());
    ground.store.add_speaker_sample(&ann, &ada, &"c1".into(), &["s1".into()], at(2)).await.unwrap();
    ground.store.remove_person(&ann, &ada).await.unwrap();
    assert!(assigned(&ground, "c1").await.iter().all(|whom| *whom == (false, None)));
    assert!(ground.store.speaker_samples(&ann, &ada, 9).await.unwrap().is_empty());
    assert!(ground.store.people(&ann).await.unwrap().is_empty());
    not_found(ground.store.remove_person(&ann, &ada).await);
    let left = ground.store.conversation(&"bob".into(), &"b1".into()).await.unwrap().unwrap();
    assert_eq!(left.segments[0].person_id, Some("p1".into()));
}

pub async fn l35_segments_are_assigned_anew_at_any_stage_and_keep_the_rest(ground: Ground) {
    let ann: UserId = "ann".into();
    let owner = ground.live("c1").await;
    let mut words = [segment("a", 0.0, "one"), segment("b", 5.0, "two"), segment("c", 9.0, "three")];
    words[1].speaker = Some(Speaker::new("SPEAKER_07"));
    ground.store.append_segments(batch(&owner, 1, &words)).await.unwrap();
    person(&ground, "ann", "p1", "Ada").await;
    person(&ground, "bob", "p2", "Bea").await;
    let assign = async |user: &str, which: SegmentChoice, to: Assignee| {
        ground.store.reassign_segments(&user.into(), &"c1".into(), which, to).await
    };
    let ada = || Assignee::Person("p1".into());
    let ids = |ids: &[&str]| SegmentChoice::Ids(ids.iter().map(|id| SegmentId::from(*id)).collect());
    let done = assign("ann", ids(&["a", "none"]), ada()).await.unwrap();
    assert_eq!(done, ["a".into()]);
    assert_eq!(assign("ann", SegmentChoice::At(2), Assignee::Owner).await.unwrap(), ["c".into()]);
    assert_eq!(assign("ann", SegmentChoice::Speaker(7), ada()).await.unwrap(), ["b".into()]);
    let expected = |person: Option<&str>| (false, person.map(str::to_owned));
    assert_eq!(assigned(&ground, "c1").await, [expected(Some("p1")), expected(Some("p1")), (true, None)]);
    not_found(assign("bob", ids(&["a"]), Assignee::Owner).await);
    not_found(assign("ann", ids(&["a"]), Assignee::Person("p2".into())).await);
    not_found(assign("ann", SegmentChoice::At(3), Assignee::Owner).await);
    not_found(assign("ann", SegmentChoice::Speaker(3), Assignee::Owner).await);
    // A later batch of the session knows nothing of it.
    let mut more = words[2].clone();
    more.text = "three and four".into();
    ground.store.append_segments(batch(&owner, 2, &[more])).await.unwrap();
    assert_eq!(assigned(&ground, "c1").await[2], (true, None));
    // While the record is made, and afterwards.
    ground.store.finalise(super::ending(&"c1".into(), Some(&owner), "j1", 3)).await.unwrap();
    let lease = ground.claim("p1", 4).await.lease;
    assign("ann", SegmentChoice::Speaker(1), Assignee::Nobody).await.unwrap();
    ground.store.complete_job(super::completion(&lease, "Done", 5)).await.unwrap();
    assign("ann", SegmentChoice::At(0), Assignee::Owner).await.unwrap();
    let found = ground.store.conversation(&ann, &"c1".into()).await.unwrap().unwrap();
    assert_eq!((found.status, found.title()), (ConversationStatus::Completed, "Done"));
    let texts: Vec<_> = found.segments.iter().map(|segment| segment.text.as_str()).collect();
    assert_eq!(texts, ["one", "two", "three and four"]);
    assert_eq!(assigned(&ground, "c1").await, [(true, None), expected(Some("p1")), expected(None)]);
}

pub async fn a_resumed_conversation_knows_whom_its_speakers_were_assigned_to(ground: Ground) {
    let owner = ground.live("c1").await;
    let at_speaker = |id: &str, start, number| {
        let mut said = segment(id, start, "words");
        said.speaker = Some(Speaker::from_voice(number));
        said
    };
    let words = [
        at_speaker("a", 0.0, 0),
        at_speaker("b", 5.0, 1),
        at_speaker("c", 9.0, 1),
        at_speaker("d", 12.0, 2),
        at_speaker("e", 15.0, 3),
    ];
    ground.store.append_segments(batch(&owner, 1, &words)).await.unwrap();
    person(&ground, "ann", "p1", "Ada").await;
    person(&ground, "ann", "p2", "Bea").await;
    let assign = async |id: &str, is_user, person: Option<&str>| {
        let ids = [SegmentId::from(id)];
        ground.store.assign_segments(&"ann".into(), &"c1".into(), &ids, is_user, person).await.unwrap();
    };
    assign("a", true, None).await;
    assign("c", false, Some("p2")).await;
    assign("b", false, Some("p1")).await;
    assign("e", false, Some("nobody-we-know")).await;
    let again = OpenConversation { now: at(2), ..opening(Choice::Resume, "c2") };
    let opened = ground.other.open_conversation(again).await.unwrap();
    assert!(opened.resumed);
    let known = |speaker_number, person: Option<&str>, name: &str| SpeakerAssignment {
        speaker_number,
        person: person.map(PersonId::new),
        name: name.into(),
        segments: Vec::new(),
    };
    assert_eq!(opened.speakers, [known(0, None, "User"), known(1, Some("p2"), "Bea")]);
}

pub async fn a_deleted_users_people_and_voices_go(ground: Ground) {
    let ann: UserId = "ann".into();
    for n in 0..4 {
        person(&ground, "ann", &format!("p{n}"), &format!("Ada {n}")).await;
        ground.store.add_voice(&ann, voice(&format!("v{n}"), &format!("p{n}"), n)).await.unwrap();
    }
    person(&ground, "bob", "b", "Bea").await;
    ground.store.begin_erasing(&ann, at(2)).await.unwrap();
    let late = ground.store.person_named(&ann, "Late", Some("late".into()), at(3)).await;
    assert!(matches!(late, Err(StoreError::Conflict(_))), "{late:?}");
    while !ground.store.erase_some(&ann, 3).await.unwrap() {}
    ground.store.finish_erasing(&ann).await.unwrap();
    assert!(ground.store.people(&ann).await.unwrap().is_empty());
    assert!(ground.store.voices(&ann, None).await.unwrap().is_empty());
    assert_eq!(ground.store.people(&"bob".into()).await.unwrap().len(), 1);
}
