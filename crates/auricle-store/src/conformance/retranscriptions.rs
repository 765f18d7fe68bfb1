//! Conversations that are heard again.

use std::time::Duration;

use auricle_core::{
    Assignee, ConversationStatus, FinaliseReason, Revision, Segment, TargetId, TargetKind, Trigger,
};

use super::{Ground, LEASE, at, batch, completion, ending, opening, segment};
use crate::retranscriptions::*;
use crate::store::*;

fn asked(id: &str, conversation: &str, engine: &str, secs: i64) -> NewRetranscription {
    NewRetranscription {
        id: id.into(),
        user: "ann".into(),
        conversation: conversation.into(),
        engine: engine.into(),
        now: at(secs),
    }
}

/// By another engine.
fn heard(id: &str, start: f64, text: &str) -> Segment {
    Segment { stt_provider: Some("other".into()), ..segment(id, start, text) }
}

fn reheard(lease: &RetranscriptionLease, segments: Vec<Segment>, secs: i64) -> Reheard {
    Reheard {
        lease: lease.clone(),
        stretches: vec![HeardStretch { zero_at: at(0), from: 0.0, until: 10.0, is_channel: false, segments }],
        heard_secs: 10.0,
        job_id: format!("{}-job", lease.id).into(),
        now: at(secs),
    }
}

async fn claim(ground: &Ground, secs: i64) -> (RetranscriptionLease, Retranscription) {
    let claimed = ground.store.claim_retranscription(&"p1".into(), at(secs), LEASE).await.unwrap();
    claimed.expect("there is one")
}

/// A completed conversation of two segments, at 0 and at 20 seconds.
async fn said(ground: &Ground, id: &str) {
    let owner = ground.live(id).await;
    let words = [segment("s1", 0.0, "a grey heron"), segment("s2", 20.0, "far away")];
    ground.store.append_segments(batch(&owner, 1, &words)).await.unwrap();
    let job = format!("job-{id}");
    ground.store.finalise(ending(&owner.conversation, Some(&owner), &job, 2)).await.unwrap();
    let claimed = ground.claim("p1", 3).await;
    ground.store.complete_job(completion(&claimed.lease, "Heron", 4)).await.unwrap();
}

async fn texts(ground: &Ground, id: &str) -> Vec<String> {
    let found = ground.other.conversation(&"ann".into(), &id.into()).await.unwrap().unwrap();
    found.segments.into_iter().map(|segment| segment.text).collect()
}

async fn found(ground: &Ground, word: &str) -> usize {
    ground.store.search(&"ann".into(), word, 10, 0).await.unwrap().len()
}

pub async fn only_an_ended_conversation_of_the_users_own_is_heard_again(ground: Ground) {
    let owner = ground.live("c1").await;
    ground.store.append_segments(batch(&owner, 1, &[segment("s1", 0.0, "hello")])).await.unwrap();
    let refused = ground.store.ask_retranscription(asked("r1", "c1", "other", 2)).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "it is being heard: {refused:?}");
    ground.store.finalise(ending(&owner.conversation, Some(&owner), "j1", 2)).await.unwrap();
    let refused = ground.store.ask_retranscription(asked("r1", "c1", "other", 3)).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "it is being processed: {refused:?}");
    let claimed = ground.claim("p1", 4).await;
    ground.store.complete_job(completion(&claimed.lease, "Hello", 5)).await.unwrap();
    let theirs = NewRetranscription { user: "bob".into(), ..asked("r1", "c1", "other", 6) };
    assert!(matches!(ground.store.ask_retranscription(theirs).await, Err(StoreError::NotFound(_))));
    let queued = ground.store.ask_retranscription(asked("r1", "c1", "other", 6)).await.unwrap();
    assert_eq!((queued.state, queued.engine.as_str(), queued.attempts), (UploadState::Queued, "other", 0));
    let again = ground.store.ask_retranscription(asked("r2", "c1", "other", 7)).await.unwrap();
    assert_eq!(again.id, "r1".into(), "the same work");
    let refused = ground.store.ask_retranscription(asked("r2", "c1", "third", 7)).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "one engine at a time: {refused:?}");
    assert_eq!(ground.other.retranscription(&"ann".into(), &"c1".into()).await.unwrap().unwrap(), queued);
    assert_eq!(ground.other.retranscription(&"bob".into(), &"c1".into()).await.unwrap(), None);
}

pub async fn works_are_listed_found_and_revived_for_their_user_alone(ground: Ground) {
    let ann = || "ann".into();
    for (id, conversation, secs) in [("r1", "c1", 10), ("r2", "c2", 20)] {
        said(&ground, conversation).await;
        ground.store.ask_retranscription(asked(id, conversation, "other", secs)).await.unwrap();
    }
    let ids = async |user: &str, state: Option<UploadState>, limit: usize| -> Vec<String> {
        let found = ground.other.retranscriptions(&user.into(), state, limit).await.unwrap();
        found.into_iter().map(|work| work.id.to_string()).collect()
    };
    assert_eq!(ids("ann", None, 10).await, ["r2", "r1"]);
    assert_eq!(ids("ann", None, 1).await, ["r2"]);
    assert!(ids("bob", None, 10).await.is_empty());
    let (lease, _) = claim(&ground, 21).await;
    assert_eq!(lease.id, "r1".into());
    assert_eq!(ids("ann", Some(UploadState::Leased), 10).await, ["r1"]);
    let leased = ground.other.retranscription_by_id(&ann(), &"r1".into()).await.unwrap().unwrap();
    assert_eq!((leased.leased_by, leased.due_at), (Some("p1".into()), at(21) + LEASE));
    assert_eq!(ground.other.retranscription_by_id(&"bob".into(), &"r1".into()).await.unwrap(), None);
    let retry = async |user: &str, id: &str| {
        ground.store.retry_retranscription(&user.into(), &id.into(), at(23)).await
    };
    assert!(matches!(retry("ann", "r1").await, Err(StoreError::Conflict(_))), "it has not failed");
    let outcome = AttemptOutcome::Failed { error: "nothing heard".into() };
    ground.store.end_retranscription(&lease, outcome, at(22)).await.unwrap();
    assert!(matches!(retry("bob", "r1").await, Err(StoreError::NotFound(_))));
    assert!(matches!(retry("ann", "r9").await, Err(StoreError::NotFound(_))));
    retry("ann", "r1").await.unwrap();
    let queued = ground.other.retranscription_by_id(&ann(), &"r1".into()).await.unwrap().unwrap();
    assert_eq!((queued.state, queued.attempts, queued.due_at), (UploadState::Queued, 0, at(23)));
    let late = ground.store.renew_retranscription(&lease, at(60), 1.0).await;
    assert!(matches!(late, Err(StoreError::Fenced(_))), "{late:?}");
    assert_eq!(claim(&ground, 24).await.0.id, "r2".into(), "the oldest that is due");
    assert_eq!(claim(&ground, 24).await.0.id, "r1".into());
}

pub async fn what_was_heard_again_replaces_and_the_old_is_readable(ground: Ground) {
    said(&ground, "c1").await;
    ground
        .store
        .reassign_segments(
            &"ann".into(),
            &"c1".into(),
            SegmentChoice::Ids(vec!["s1".into()]),
            Assignee::Owner,
        )
        .await
        .unwrap();
    ground.store.rename(&"ann".into(), &"c1".into(), "My heron", at(5)).await.unwrap();
    ground.store.ask_retranscription(asked("r1", "c1", "other", 6)).await.unwrap();
    let (lease, _) = claim(&ground, 7).await;
    ground.store.renew_retranscription(&lease, at(30), 4.5).await.unwrap();
    let words = vec![heard("n1", 0.2, "a great egret"), heard("n2", 5.0, "stood there")];
    let done = reheard(&lease, words, 8);
    let revision = ground.store.complete_retranscription(done.clone()).await.unwrap();
    assert_eq!(revision, Revision(2));
    assert_eq!(ground.store.complete_retranscription(done).await.unwrap(), revision, "again is the same");
    assert_eq!(texts(&ground, "c1").await, ["a great egret", "stood there", "far away"]);
    let now = ground.other.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    assert_eq!((now.status, now.revision), (ConversationStatus::Processing, Revision(2)));
    assert_eq!(now.user_title.as_deref(), Some("My heron"), "the user's word stays");
    assert_eq!((now.segments[0].is_user, now.segments[1].is_user), (true, false), "and follows its time");
    assert_eq!((found(&ground, "egret").await, found(&ground, "far").await), (1, 1));
    assert_eq!(found(&ground, "grey").await, 0, "the index follows");
    let work = ground.other.retranscription(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    assert_eq!((work.state, work.revision, work.heard_secs), (UploadState::Done, Some(Revision(2)), 10.0));

    let job = ground.claim("p1", 9).await;
    assert_eq!((job.job.reason, job.job.revision), (FinaliseReason::Retranscribe, Revision(2)));
    ground.store.complete_job(completion(&job.lease, "Egret", 10)).await.unwrap();
    let all = ground.other.revisions(&"ann".into(), &"c1".into()).await.unwrap();
    let shown: Vec<_> = all.iter().map(|each| (each.revision.0, each.segments, each.replaced_at)).collect();
    assert_eq!(shown, [(2, 3, None), (1, 2, Some(at(8)))]);
    assert_eq!(all[0].engines, ["other"]);
    let old = ground.other.old_revision(&"ann".into(), &"c1".into(), Revision(1)).await.unwrap().unwrap();
    assert_eq!((old.structured.title.as_str(), old.started_at), ("Heron", at(0)));
    let said: Vec<_> = old.segments.iter().map(|each| (each.text.as_str(), each.is_user)).collect();
    assert_eq!(said, [("a grey heron", true), ("far away", false)]);
    assert!(ground.other.old_revision(&"ann".into(), &"c1".into(), Revision(2)).await.unwrap().is_none());
    assert!(ground.other.old_revision(&"bob".into(), &"c1".into(), Revision(1)).await.unwrap().is_none());
    assert!(matches!(
        ground.other.revisions(&"bob".into(), &"c1".into()).await,
        Err(StoreError::NotFound(_))
    ));
}

pub async fn d04_a_conversation_heard_again_is_told_to_no_target(ground: Ground) {
    let id: TargetId = "t1".into();
    ground.announce().await;
    ground.store.ensure_user(&"ann".into(), at(0)).await.unwrap();
    let target = NewTarget {
        id: id.clone(),
        user: "ann".into(),
        kind: TargetKind::Developer,
        settings: TargetSettings {
            name: "mine".into(),
            triggers: vec![Trigger::Conversation],
            url: Sensitive::new("http://localhost/"),
            host: "localhost:80".into(),
            audio_secs: 5,
        },
        secret: Sensitive::new("s"),
        now: at(0),
    };
    ground.store.add_target(target).await.unwrap();
    said(&ground, "c1").await;
    assert_eq!(ground.store.deliveries(&"ann".into(), &id, 10).await.unwrap().len(), 1);
    ground.store.ask_retranscription(asked("r1", "c1", "other", 6)).await.unwrap();
    let (lease, _) = claim(&ground, 7).await;
    let done = reheard(&lease, vec![heard("n1", 0.2, "a great egret")], 8);
    ground.store.complete_retranscription(done).await.unwrap();
    let job = ground.claim("p1", 9).await;
    ground.store.complete_job(completion(&job.lease, "Egret", 10)).await.unwrap();
    assert_eq!(ground.store.deliveries(&"ann".into(), &id, 10).await.unwrap().len(), 1, "once");
}

pub async fn d14_whoever_wakes_late_changes_no_transcript(ground: Ground) {
    said(&ground, "c1").await;
    ground.store.ask_retranscription(asked("r1", "c1", "other", 6)).await.unwrap();
    let (late, _) = claim(&ground, 7).await;
    ground.store.record_hearing(&late, "0", "[\"egret\"]", at(8)).await.unwrap();
    ground.store.record_hearing(&late, "0", "[\"stork\"]", at(8)).await.unwrap();
    assert!(ground.other.claim_retranscription(&"p2".into(), at(8), LEASE).await.unwrap().is_none());
    let (lease, work) =
        ground.other.claim_retranscription(&"p2".into(), at(30), LEASE).await.unwrap().unwrap();
    assert_eq!(work.attempts, 2);
    let known = ground.other.hearings(&lease).await.unwrap();
    assert_eq!(known.len(), 1, "what was heard is not heard twice");
    assert_eq!((known[0].step.as_str(), known[0].result.as_str()), ("0", "[\"egret\"]"));
    let fenced = |result: Result<()>| assert!(matches!(result, Err(StoreError::Fenced(_))), "{result:?}");
    fenced(ground.store.renew_retranscription(&late, at(90), 1.0).await);
    fenced(ground.store.record_hearing(&late, "1", "[]", at(31)).await);
    fenced(ground.store.end_retranscription(&late, AttemptOutcome::Released, at(31)).await);
    let done = reheard(&late, vec![heard("n1", 0.0, "late")], 31);
    fenced(ground.store.complete_retranscription(done).await.map(drop));
    assert_eq!(texts(&ground, "c1").await, ["a grey heron", "far away"]);
    let done = reheard(&lease, vec![heard("n1", 0.0, "egret")], 32);
    ground.other.complete_retranscription(done).await.unwrap();
    assert_eq!(texts(&ground, "c1").await, ["egret", "far away"]);
}

pub async fn a_retranscription_that_fails_leaves_the_transcript(ground: Ground) {
    said(&ground, "c1").await;
    ground.store.ask_retranscription(asked("r1", "c1", "other", 6)).await.unwrap();
    let (lease, _) = claim(&ground, 7).await;
    let postponed = AttemptOutcome::Postponed { at: at(20), error: "no engine".into() };
    ground.store.end_retranscription(&lease, postponed, at(8)).await.unwrap();
    assert!(ground.store.claim_retranscription(&"p1".into(), at(19), LEASE).await.unwrap().is_none());
    let mut now = 20;
    let mut tries = 0;
    let work = loop {
        let (lease, work) = claim(&ground, now).await;
        tries += 1;
        assert_eq!(work.attempts, tries, "an absence is not counted");
        let retry = AttemptOutcome::Retry { at: at(now + 1), error: "it broke".into() };
        ground.store.end_retranscription(&lease, retry, at(now)).await.unwrap();
        now += 1;
        let work = ground.store.retranscription(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
        if work.state == UploadState::Failed {
            break work;
        }
    };
    assert_eq!((tries, work.last_error.as_deref()), (5, Some("it broke")));
    let now = ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    assert_eq!(
        (now.status, now.revision, now.segments.len()),
        (ConversationStatus::Completed, Revision(1), 2)
    );
    // Asking again begins anew.
    let again = ground.store.ask_retranscription(asked("r2", "c1", "third", 99)).await.unwrap();
    assert_eq!((again.id, again.state, again.attempts), ("r2".into(), UploadState::Queued, 0));
    // A drain costs no attempt.
    claim(&ground, 100).await;
    ground.store.process_gone(&"p1".into(), at(101)).await.unwrap();
    assert_eq!(claim(&ground, 101).await.1.attempts, 1);
}

pub async fn a_conversation_that_is_processed_meanwhile_is_not_overtaken(ground: Ground) {
    said(&ground, "c1").await;
    ground.store.ask_retranscription(asked("r1", "c1", "other", 6)).await.unwrap();
    let (lease, _) = claim(&ground, 7).await;
    ground.store.reprocess(&"ann".into(), &"c1".into(), "j2".into(), at(8)).await.unwrap();
    let early =
        ground.store.complete_retranscription(reheard(&lease, vec![heard("n1", 0.0, "egret")], 9)).await;
    assert!(matches!(early, Err(StoreError::Conflict(_))), "{early:?}");
    assert_eq!(texts(&ground, "c1").await, ["a grey heron", "far away"]);
    let job = ground.claim("p1", 10).await;
    ground.store.complete_job(completion(&job.lease, "Heron again", 11)).await.unwrap();
    let done =
        ground.store.complete_retranscription(reheard(&lease, vec![heard("n1", 0.0, "egret")], 12)).await;
    assert_eq!(done.unwrap(), Revision(3));
    let all = ground.store.revisions(&"ann".into(), &"c1".into()).await.unwrap();
    assert_eq!(all.iter().map(|each| each.revision.0).collect::<Vec<_>>(), [3, 2]);
}

pub async fn an_earlier_word_moves_the_clock_and_closes_the_gap(ground: Ground) {
    let owner = ground.live("c1").await;
    ground.store.append_segments(batch(&owner, 1, &[segment("s1", 0.0, "hello")])).await.unwrap();
    let gap = |gap| InsertRecovered {
        conversation: "c1".into(),
        run: format!("run{gap:?}"),
        until_sample: 1,
        zero_at: at(0),
        segments: Vec::new(),
        gap: Some(gap),
    };
    ground.store.insert_recovered(gap((4.0, 6.0))).await.unwrap();
    ground.store.insert_recovered(gap((40.0, 60.0))).await.unwrap();
    ground.store.finalise(ending(&owner.conversation, Some(&owner), "j1", 2)).await.unwrap();
    let claimed = ground.claim("p1", 3).await;
    ground.store.complete_job(completion(&claimed.lease, "Hello", 4)).await.unwrap();
    ground.store.ask_retranscription(asked("r1", "c1", "other", 6)).await.unwrap();
    let (lease, _) = claim(&ground, 7).await;
    let words = vec![heard("n1", 1.0, "well"), heard("n2", 7.0, "hello there")];
    let mut done = reheard(&lease, words, 8);
    done.stretches[0].zero_at = at(-3);
    ground.store.complete_retranscription(done).await.unwrap();
    let now = ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
    assert_eq!(now.started_at, at(-2), "time is when it was said");
    let starts: Vec<_> = now.segments.iter().map(|each| each.start).collect();
    assert_eq!(starts, [0.0, 6.0]);
    assert_eq!(now.gaps, [(42.0, 62.0)], "what could not be heard then was heard now");
    let old = ground.store.old_revision(&"ann".into(), &"c1".into(), Revision(1)).await.unwrap().unwrap();
    assert_eq!((old.started_at, old.segments[0].start), (at(0), 0.0));
}

pub async fn revisions_are_bounded_and_go_with_their_conversation(ground: Ground) {
    said(&ground, "c1").await;
    for number in 0..25 {
        let now = 10 + number;
        ground.store.ask_retranscription(asked(&format!("r{number}"), "c1", "other", now)).await.unwrap();
        let (lease, _) = claim(&ground, now).await;
        let word = heard(&format!("n{number}"), 0.0, &format!("take {number}"));
        ground.store.complete_retranscription(reheard(&lease, vec![word], now)).await.unwrap();
        let job = ground.claim("p1", now).await;
        ground.store.complete_job(completion(&job.lease, "Take", now)).await.unwrap();
    }
    let all = ground.store.revisions(&"ann".into(), &"c1".into()).await.unwrap();
    assert_eq!((all.len(), all[0].revision, all[20].revision), (21, Revision(26), Revision(6)));
    let ids = vec!["c1".into(), "c9".into()];
    assert_eq!(ground.store.known_conversations(ids.clone()).await.unwrap(), ["c1".into()]);
    ground.store.delete(&"ann".into(), &"c1".into()).await.unwrap();
    assert!(ground.store.known_conversations(ids).await.unwrap().is_empty());
    assert!(ground.store.old_revision(&"ann".into(), &"c1".into(), Revision(6)).await.unwrap().is_none());
    // One of the same id later has none of it.
    let open = ground.store.open_conversation(opening(Choice::New, "c1")).await.unwrap();
    assert!(!open.resumed);
    assert_eq!(ground.store.revisions(&"ann".into(), &"c1".into()).await.unwrap().len(), 1);
}

pub async fn what_became_of_uploads_is_known(ground: Ground) {
    ground.announce().await;
    let file = |id: &str, secs| NewUpload {
        id: id.into(),
        sha256: [id.as_bytes()[1]; 32],
        bytes: 5,
        form: "file".into(),
        source: auricle_core::Source::Omi,
        language: None,
        recorded_at: at(secs),
    };
    let files = vec![file("f1", 0), file("f2", 60), file("f3", 90_000)];
    ground.store.add_uploads(&"ann".into(), "b", files, at(100_000)).await.unwrap();
    for number in 1..=2 {
        let (lease, _) =
            ground.store.claim_upload(&"p1".into(), at(100_000 + number), LEASE).await.unwrap().unwrap();
        let words = UploadWords {
            fresh_ids: vec![format!("{}-c", lease.id).as_str().into()],
            lease,
            stretches: vec![vec![segment(&format!("s{number}"), 1.0, "words")]],
            audio_secs: 30.0,
            join_within: Duration::from_secs(120),
            now: at(100_001),
        };
        ground.store.complete_upload(words).await.unwrap();
    }
    let of = ground.store.uploads_of(&"ann".into(), &"f1-c".into()).await.unwrap();
    assert_eq!(of.iter().map(|upload| upload.id.as_str()).collect::<Vec<_>>(), ["f1", "f2"]);
    assert!(ground.store.uploads_of(&"bob".into(), &"f1-c".into()).await.unwrap().is_empty());
    let ids = ["f1", "f3", "f9"].map(Into::into).to_vec();
    let fates = ground.store.upload_fates(ids).await.unwrap();
    let shown: Vec<_> = fates.iter().map(|each| (each.state, each.has_conversations)).collect();
    assert_eq!(shown, [(UploadState::Done, true), (UploadState::Queued, false)]);
    ground.store.delete(&"ann".into(), &"f1-c".into()).await.unwrap();
    let fates = ground.store.upload_fates(vec!["f2".into()]).await.unwrap();
    assert_eq!((fates[0].state, fates[0].has_conversations), (UploadState::Done, false));
}
