//! How conversations end, start again and go; listings and the user's edits.

use auricle_core::{ConversationStatus, FinaliseReason, Geolocation, Photo, ProcessId, Provenance, UserId};

use super::{Ground, at, batch, completion, ending, opening, segment};
use crate::store::{Choice, Finalise, Finalised, ListFilter, OpenConversation, StoreError};

pub async fn l34_empty_is_checked_in_the_deleting_transaction(ground: Ground) {
    let empty = ground.live("c1").await;
    let done = ground.store.finalise(ending(&empty.conversation, Some(&empty), "j1", 1)).await.unwrap();
    assert_eq!(done, Finalised::DeletedEmpty);
    assert!(ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap().is_none());
    assert!(ground.store.jobs(None, None, 10).await.unwrap().is_empty());
    // A segment and the end race; whichever comes first, either the words are kept or they are refused.
    for round in 0..20 {
        let id = format!("r{round}");
        let owner = ground.live(&id).await;
        let words = batch(&owner, 1, &[segment("late", 0.0, "late")]);
        let (stored, ended) = tokio::join!(
            ground.store.append_segments(words),
            ground.other.finalise(ending(&owner.conversation, Some(&owner), &format!("j-{id}"), 2)),
        );
        let found = ground.store.conversation(&"ann".into(), &owner.conversation).await.unwrap();
        match ended.unwrap() {
            Finalised::DeletedEmpty => {
                assert!(
                    matches!(stored, Err(StoreError::Fenced(_) | StoreError::Ended(_))) && found.is_none(),
                    "{stored:?}"
                );
            }
            Finalised::Queued { .. } => assert!(stored.is_ok() && found.unwrap().segments.len() == 1),
            Finalised::AlreadyEnded { status } => panic!("ended by nobody: {status:?}"),
        }
    }
}

pub async fn l34_a_late_segment_is_fenced_not_lost(ground: Ground) {
    let owner = ground.live("c1").await;
    ground.store.append_segments(batch(&owner, 1, &[segment("a", 0.0, "one")])).await.unwrap();
    ground.store.finalise(ending(&"c1".into(), Some(&owner), "j", 2)).await.unwrap();
    let late = ground.store.append_segments(batch(&owner, 3, &[segment("b", 1.0, "two")])).await;
    let Err(StoreError::Ended(why)) = late else { panic!("{late:?}") };
    assert!(why.contains("processing"), "{why}");
    assert_eq!(ground.segment_ids("ann", "c1").await, ["a".into()]);
}

pub async fn a_photo_is_content(ground: Ground) {
    let owner = ground.live("c1").await;
    let photo =
        Photo { id: "p".into(), base64: "AA".into(), description: None, created_at: at(1), discarded: false };
    ground.store.append_photo(&owner, photo).await.unwrap();
    let done = ground.store.finalise(ending(&"c1".into(), Some(&owner), "j", 2)).await.unwrap();
    assert!(matches!(done, Finalised::Queued { .. }));
}

pub async fn ending_queues_the_job_in_the_same_transaction(ground: Ground) {
    ground.ended("c1", "hello").await;
    let found = ground.other.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    assert_eq!((found.status, found.revision.0), (ConversationStatus::Processing, 1));
    assert_eq!(found.finalise_reason, Some(FinaliseReason::Silence));
    let job = ground.other.job(None, &"job-c1".into()).await.unwrap().unwrap();
    assert_eq!((job.conversation.as_str(), job.user.as_str(), job.revision.0), ("c1", "ann", 1));
    assert_eq!((job.state, job.attempts, job.run_at), (auricle_core::JobState::Queued, 0, at(2)));
}

pub async fn d13_ending_twice_makes_one_job(ground: Ground) {
    let conversation = ground.ended("c1", "hello").await;
    let again = ground.store.finalise(ending(&conversation, None, "another", 3)).await.unwrap();
    assert_eq!(again, Finalised::AlreadyEnded { status: ConversationStatus::Processing });
    let repeated = ground.store.finalise(ending(&conversation, None, "job-c1", 3)).await.unwrap();
    assert!(matches!(repeated, Finalised::Queued { job, .. } if job == "job-c1".into()));
    assert_eq!(ground.store.jobs(None, None, 10).await.unwrap().len(), 1);
}

pub async fn the_clients_reason_is_kept(ground: Ground) {
    for (id, reason, kept) in [
        ("c1", FinaliseReason::Silence, FinaliseReason::UserStop),
        ("c2", FinaliseReason::MeetingEnded, FinaliseReason::MeetingEnded),
    ] {
        let owner = ground.live(id).await;
        ground.store.append_segments(batch(&owner, 1, &[segment("a", 0.0, "one")])).await.unwrap();
        ground.store.note_finalise_reason(&owner, FinaliseReason::UserStop).await.unwrap();
        let end = Finalise { reason, ..ending(&owner.conversation, Some(&owner), &format!("j-{id}"), 2) };
        ground.store.finalise(end).await.unwrap();
        let found = ground.store.conversation(&"ann".into(), &id.into()).await.unwrap().unwrap();
        assert_eq!(found.finalise_reason, Some(kept));
    }
}

pub async fn a_live_conversation_is_ended_only_by_its_owner(ground: Ground) {
    let owner = ground.live("c1").await;
    ground.store.append_segments(batch(&owner, 1, &[segment("a", 0.0, "one")])).await.unwrap();
    let refused = ground.other.finalise(ending(&"c1".into(), None, "j", 500)).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    ground.store.release(&owner, at(2)).await.unwrap();
    let gone = Finalise { reason: FinaliseReason::ClientGone, ..ending(&"c1".into(), None, "j", 3) };
    let early = ground.other.finalise(gone).await;
    assert!(matches!(early, Err(StoreError::Conflict(_))), "{early:?}");
    let asked = Finalise { reason: FinaliseReason::Requested, ..ending(&"c1".into(), None, "j", 3) };
    assert!(matches!(ground.other.finalise(asked).await.unwrap(), Finalised::Queued { .. }));
}

pub async fn l07_orphans_are_unowned_and_overdue(ground: Ground) {
    for (id, secs) in [("c1", 10), ("c2", 5), ("c3", 60)] {
        let owner = ground.live(id).await;
        ground.store.append_segments(batch(&owner, secs, &[segment("a", 0.0, "one")])).await.unwrap();
        if id != "c3" {
            ground.store.release(&owner, at(secs)).await.unwrap();
        }
    }
    assert!(ground.other.orphans(at(124), 10).await.unwrap().is_empty());
    let found = ground.other.orphans(at(500), 10).await.unwrap();
    let ids: Vec<_> = found.iter().map(|orphan| orphan.conversation.as_str()).collect();
    assert_eq!(ids, ["c2", "c1"]);
    assert_eq!((found[0].user.as_str(), found[0].finished_at), ("ann", at(5)));
    assert_eq!(ground.other.orphans(at(500), 1).await.unwrap().len(), 1);
    let gone = Finalise { reason: FinaliseReason::ClientGone, ..ending(&"c2".into(), None, "j", 500) };
    assert!(matches!(ground.other.finalise(gone).await.unwrap(), Finalised::Queued { .. }));
    assert_eq!(ground.other.orphans(at(500), 10).await.unwrap().len(), 1);
}

pub async fn l08_a_resumed_conversation_is_no_longer_an_orphan(ground: Ground) {
    let owner = ground.live("c1").await;
    ground.store.release(&owner, at(1)).await.unwrap();
    assert_eq!(ground.store.orphans(at(120), 10).await.unwrap().len(), 1);
    let back = OpenConversation { now: at(119), ..opening(Choice::Resume, "c2") };
    assert!(ground.store.open_conversation(back).await.unwrap().resumed);
    assert!(ground.store.orphans(at(120), 10).await.unwrap().is_empty());
}

pub async fn orphans_of_a_dead_process_are_seen_by_another(ground: Ground) {
    ground.store.process_alive(&ProcessId::from("p1"), at(200)).await.unwrap();
    ground.store.open_conversation(opening(Choice::New, "c1")).await.unwrap();
    assert!(ground.other.orphans(at(199), 10).await.unwrap().is_empty());
    assert_eq!(ground.other.orphans(at(200), 10).await.unwrap().len(), 1);
}

pub async fn deletion_takes_everything_and_fences(ground: Ground) {
    let done = ground.completed("c1", "hello world", "Greeting").await;
    let ann = UserId::from("ann");
    assert_eq!(ground.store.search(&ann, "hello", 10, 0).await.unwrap().len(), 1);
    ground.store.delete(&ann, &done).await.unwrap();
    assert!(ground.store.conversation(&ann, &done).await.unwrap().is_none());
    assert!(ground.store.search(&ann, "hello", 10, 0).await.unwrap().is_empty());
    assert!(ground.store.search(&ann, "greeting", 10, 0).await.unwrap().is_empty());
    assert!(ground.store.jobs(None, None, 10).await.unwrap().is_empty());
    assert!(ground.store.effects(&done).await.unwrap().is_empty());
    assert!(
        ground
            .store
            .claim_effects(&"p1".into(), at(9_999), super::LEASE, 10, &["notify"])
            .await
            .unwrap()
            .is_empty()
    );
    assert!(matches!(ground.store.delete(&ann, &done).await, Err(StoreError::NotFound(_))));
    let owner = ground.live("c2").await;
    ground.store.delete(&ann, &"c2".into()).await.unwrap();
    let late = ground.store.append_segments(batch(&owner, 1, &[segment("a", 0.0, "one")])).await;
    assert!(matches!(late, Err(StoreError::Fenced(_) | StoreError::Ended(_))));
}

pub async fn other_users_cannot_touch_it(ground: Ground) {
    let id = ground.completed("c1", "hello", "Greeting").await;
    let bob = UserId::from("bob");
    let place = Geolocation {
        google_place_id: None,
        latitude: 1.0,
        longitude: 2.0,
        address: None,
        location_type: None,
    };
    ground.store.ensure_user(&bob, at(0)).await.unwrap();
    assert!(ground.store.conversation(&bob, &id).await.unwrap().is_none());
    assert!(
        ground.store.list(&bob, ListFilter { limit: 10, ..ListFilter::default() }).await.unwrap().is_empty()
    );
    let not_found = |result: Result<(), StoreError>| assert!(matches!(result, Err(StoreError::NotFound(_))));
    not_found(ground.store.rename(&bob, &id, "mine", at(9)).await);
    not_found(ground.store.delete(&bob, &id).await);
    not_found(ground.store.set_geolocation(&bob, &id, &place).await);
    not_found(ground.store.reprocess(&bob, &id, "j".into(), at(9)).await.map(drop));
    not_found(ground.store.assign_segments(&bob, &id, &["s1".into()], true, None).await.map(drop));
    not_found(ground.store.retry_job(Some(&bob), &"job-c1".into(), at(9)).await);
    assert!(ground.store.job(Some(&bob), &"job-c1".into()).await.unwrap().is_none());
    assert!(ground.store.jobs(Some(&bob), None, 10).await.unwrap().is_empty());
    let found = ground.store.conversation(&"ann".into(), &id).await.unwrap().unwrap();
    assert_eq!((found.title(), found.segments[0].is_user), ("Greeting", false));
    assert_eq!(found.geolocation, None);
}

pub async fn reprocess_starts_a_revision(ground: Ground) {
    let (ann, id) = (UserId::from("ann"), "c1".into());
    let owner = ground.live("c1").await;
    let early = ground.store.reprocess(&ann, &id, "j2".into(), at(1)).await;
    assert!(matches!(early, Err(StoreError::Conflict(_))));
    ground.store.append_segments(batch(&owner, 1, &[segment("s1", 0.0, "hello")])).await.unwrap();
    ground.store.finalise(ending(&id, Some(&owner), "j1", 2)).await.unwrap();
    let early = ground.store.reprocess(&ann, &id, "j2".into(), at(3)).await;
    assert!(matches!(early, Err(StoreError::Conflict(_))));
    let first = ground.claim("p1", 3).await;
    ground.store.complete_job(completion(&first.lease, "First", 4)).await.unwrap();
    for _ in 0..2 {
        let (job, revision) = ground.store.reprocess(&ann, &id, "j2".into(), at(5)).await.unwrap();
        assert_eq!((job.as_str(), revision.0), ("j2", 2));
    }
    let found = ground.store.conversation(&ann, &id).await.unwrap().unwrap();
    assert_eq!((found.status, found.title()), (ConversationStatus::Processing, "First"));
    let second = ground.claim("p1", 6).await;
    assert_eq!((second.lease.revision.0, second.job.reason), (2, FinaliseReason::Reprocess));
    ground.store.complete_job(completion(&second.lease, "Second", 7)).await.unwrap();
    assert_eq!(ground.store.conversation(&ann, &id).await.unwrap().unwrap().title(), "Second");
    assert_eq!(ground.store.effects(&id).await.unwrap().len(), 2);
}

pub async fn stand_ins_are_found_until_they_are_made_anew(ground: Ground) {
    let ann = UserId::from("ann");
    for id in ["c1", "c2", "c3"] {
        ground.ended(id, "hello").await;
        let claimed = ground.claim("p1", 3).await;
        let mut done = completion(&claimed.lease, id, 4);
        if id != "c2" {
            done.provenance.version.push_str(Provenance::STAND_IN);
        }
        ground.store.complete_job(done).await.unwrap();
    }
    let found = ground.store.stand_ins(10).await.unwrap();
    assert_eq!(found, [(ann.clone(), "c1".into()), (ann.clone(), "c3".into())]);
    assert_eq!(ground.other.stand_ins(1).await.unwrap(), [(ann.clone(), "c1".into())]);
    ground.store.reprocess(&ann, &"c1".into(), "j1".into(), at(5)).await.unwrap();
    assert_eq!(ground.store.stand_ins(10).await.unwrap(), [(ann.clone(), "c3".into())], "it has its job");
    let claimed = ground.claim("p1", 6).await;
    ground.store.complete_job(completion(&claimed.lease, "Better", 7)).await.unwrap();
    assert_eq!(ground.store.stand_ins(10).await.unwrap(), [(ann, "c3".into())]);
}

pub async fn listing_filters_and_pages(ground: Ground) {
    let ann = UserId::from("ann");
    ground.announce().await;
    for (secs, id) in [(1, "c1"), (2, "c2"), (3, "c3")] {
        let open = OpenConversation { now: at(secs), ..opening(Choice::New, id) };
        let owner = ground.store.open_conversation(open).await.unwrap().ownership;
        ground.store.append_segments(batch(&owner, secs, &[segment("a", 0.0, "word")])).await.unwrap();
        if id == "c2" {
            ground.store.finalise(ending(&id.into(), Some(&owner), "j", 4)).await.unwrap();
            let claimed = ground.claim("p1", 5).await;
            let mut done = completion(&claimed.lease, "", 6);
            done.discarded = Some(auricle_core::DiscardReason::Trivial);
            ground.store.complete_job(done).await.unwrap();
        }
    }
    let ids = async |filter: ListFilter| -> Vec<String> {
        let page = ground.other.list(&ann, filter).await.unwrap();
        assert!(page.iter().all(|each| each.segments.is_empty()));
        page.iter().map(|each| each.id.as_str().to_owned()).collect()
    };
    let all = ListFilter { include_discarded: true, limit: 10, ..ListFilter::default() };
    assert_eq!(ids(all.clone()).await, ["c3", "c2", "c1"]);
    assert_eq!(ids(ListFilter { limit: 10, ..ListFilter::default() }).await, ["c3", "c1"]);
    let completed = vec![ConversationStatus::Completed];
    assert_eq!(ids(ListFilter { statuses: completed, ..all.clone() }).await, ["c2"]);
    assert_eq!(ids(ListFilter { limit: 1, offset: 1, ..all }).await, ["c2"]);
}

pub async fn the_users_title_and_place_are_kept(ground: Ground) {
    let (ann, id) = (UserId::from("ann"), ground.completed("c1", "hello", "Greeting").await);
    ground.store.rename(&ann, &id, "Mine", at(9)).await.unwrap();
    let place = Geolocation {
        google_place_id: Some("x".into()),
        latitude: 40.4,
        longitude: -3.7,
        address: Some("Madrid".into()),
        location_type: None,
    };
    ground.store.set_geolocation(&ann, &id, &place).await.unwrap();
    let found = ground.store.conversation(&ann, &id).await.unwrap().unwrap();
    assert_eq!((found.title(), found.structured.title.as_str()), ("Mine", "Greeting"));
    assert_eq!(found.geolocation, Some(place));
}

pub async fn ids_are_listed_whatever_they_name(ground: Ground) {
    ground.completed("c1", "words", "One").await;
    ground.live("c2").await;
    ground.ended("c3", "words").await;
    let ids = async |user: &str, limit, offset| -> Vec<String> {
        let found = ground.store.conversation_ids(&user.into(), limit, offset).await.unwrap();
        found.iter().map(|id| id.as_str().to_owned()).collect()
    };
    assert_eq!(ids("ann", 10, 0).await, ["c3", "c2", "c1"]);
    assert_eq!(ids("ann", 2, 1).await, ["c2", "c1"]);
    assert_eq!(ids("bob", 10, 0).await, [""; 0]);
}
