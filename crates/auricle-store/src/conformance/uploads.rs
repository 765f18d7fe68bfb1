//! Recordings that come as files.

use std::time::Duration;

use auricle_core::{ConversationStatus, Segment, Source, UploadId};

use super::{Ground, LEASE, at, opening, segment};
use crate::store::{
    AttemptOutcome, Choice, NewUpload, StoreError, Upload, UploadLease, UploadState, UploadWords,
};

/// A file recorded at `secs`.
fn file(id: &str, secs: i64) -> NewUpload {
    let mut sha256 = [0; 32];
    sha256[..id.len()].copy_from_slice(id.as_bytes());
    NewUpload {
        id: id.into(),
        sha256,
        bytes: 5,
        form: "file".into(),
        source: Source::Omi,
        language: Some("en".into()),
        recorded_at: at(secs),
    }
}

async fn added(ground: &Ground, files: Vec<NewUpload>) -> Vec<Upload> {
    ground.announce().await;
    ground.store.add_uploads(&"ann".into(), "b1", files, at(1_000)).await.unwrap()
}

async fn claim(ground: &Ground, secs: i64) -> (UploadLease, Upload) {
    ground.store.claim_upload(&"p1".into(), at(secs), LEASE).await.unwrap().expect("there is one")
}

fn words(lease: &UploadLease, stretches: Vec<Vec<Segment>>) -> UploadWords {
    let fresh = |index: usize| format!("{}-c{index}", lease.id).into();
    UploadWords {
        lease: lease.clone(),
        fresh_ids: (0..stretches.len()).map(fresh).collect(),
        stretches,
        audio_secs: 60.0,
        join_within: Duration::from_secs(120),
        now: at(1_100),
    }
}

async fn status(ground: &Ground, id: &str) -> ConversationStatus {
    ground.store.status(&"ann".into(), &id.into()).await.unwrap().unwrap().0
}

async fn upload(ground: &Ground, id: &str) -> Upload {
    ground.other.upload(&"ann".into(), &id.into()).await.unwrap().unwrap()
}

pub async fn a_file_is_kept_once_for_each_user(ground: Ground) {
    let first = added(&ground, vec![file("f1", 0)]).await;
    assert_eq!((first[0].state, first[0].recorded_at, first[0].bytes), (UploadState::Queued, at(0), 5));
    let mut again = file("f2", 50);
    again.sha256 = first[0].sha256;
    let again =
        ground.store.add_uploads(&"ann".into(), "b2", vec![again, file("f3", 60)], at(1_001)).await.unwrap();
    assert_eq!((again[0].id.as_str(), again[1].id.as_str()), ("f1", "f3"));
    let batch = ground.store.upload_batch(&"ann".into(), "b2").await.unwrap();
    assert_eq!(batch.len(), 2, "whoever asks about the newest request is told of all its files");
    let his = ground.store.add_uploads(&"bob".into(), "b3", vec![file("f4", 0)], at(1_002)).await.unwrap();
    assert_eq!(his[0].state, UploadState::Queued);
    assert!(ground.store.upload(&"bob".into(), &"f1".into()).await.unwrap().is_none());
    assert!(ground.store.upload_batch(&"bob".into(), "b2").await.unwrap().is_empty());
    let listed = ground.store.uploads(&"ann".into(), 10, 0).await.unwrap();
    assert_eq!(listed.len(), 2);
    let ids = ["f1", "f4", "f9"].map(UploadId::from).to_vec();
    assert_eq!(ground.store.known_uploads(ids).await.unwrap(), ["f1".into(), "f4".into()]);
}

pub async fn an_upload_is_claimed_by_one_at_a_time(ground: Ground) {
    added(&ground, vec![file("f2", 100), file("f1", 0)]).await;
    ground.store.add_uploads(&"bob".into(), "b2", vec![file("f3", 0)], at(1_001)).await.unwrap();
    let (lease, first) = claim(&ground, 1_010).await;
    assert_eq!((first.id.as_str(), first.attempts), ("f1", 1), "the earliest recorded");
    let (_, second) = ground.other.claim_upload(&"p2".into(), at(1_010), LEASE).await.unwrap().unwrap();
    assert_eq!(second.user, "bob".into(), "one of each user");
    assert!(ground.store.claim_upload(&"p1".into(), at(1_011), LEASE).await.unwrap().is_none());
    ground.store.renew_upload(&lease, at(1_050), 12.5).await.unwrap();
    assert_eq!(upload(&ground, "f1").await.heard_secs, 12.5);
    assert!(ground.store.claim_upload(&"p1".into(), at(1_024), LEASE).await.unwrap().is_none());
    ground.store.process_gone(&"p1".into(), at(1_025)).await.unwrap();
    let (again, first) = claim(&ground, 1_025).await;
    assert_eq!((first.id.as_str(), first.attempts), ("f1", 1), "a drain costs no attempt");
    assert!(again.epoch > lease.epoch);
}

pub async fn words_and_end_are_one_and_conversations_wait_for_their_neighbours(ground: Ground) {
    added(&ground, vec![file("f1", 0), file("f2", 60), file("f3", 10_000)]).await;
    let (lease, _) = claim(&ground, 1_010).await;
    let said = vec![vec![segment("s1", 2.0, "hello"), segment("s2", 50.0, "there")]];
    let made = ground.store.complete_upload(words(&lease, said.clone())).await.unwrap();
    assert_eq!(made, ["f1-c0".into()]);
    assert_eq!(ground.store.complete_upload(words(&lease, said)).await.unwrap(), made, "again is the same");
    assert_eq!(
        status(&ground, "f1-c0").await,
        ConversationStatus::InProgress,
        "the next file may go on with it"
    );
    let (lease, _) = claim(&ground, 1_011).await;
    let made =
        ground.store.complete_upload(words(&lease, vec![vec![segment("s3", 5.0, "again")]])).await.unwrap();
    assert_eq!(made, ["f1-c0".into()]);
    assert_eq!(status(&ground, "f1-c0").await, ConversationStatus::Processing, "nothing near waits");
    let found = ground.store.conversation(&"ann".into(), &"f1-c0".into()).await.unwrap().unwrap();
    assert_eq!((found.started_at, found.created_at, found.finished_at), (at(2), at(2), at(66)));
    let starts: Vec<_> = found.segments.iter().map(|segment| segment.start).collect();
    assert_eq!(starts, [0.0, 48.0, 63.0], "the device's time is kept");
    let job = ground.claim("p1", 1_200).await;
    assert_eq!(job.job.conversation, "f1-c0".into());
    assert_eq!(ground.store.jobs(Some(&"ann".into()), None, 10).await.unwrap().len(), 1);
    assert_eq!(upload(&ground, "f2").await.conversations, ["f1-c0".into()]);
}

pub async fn far_stretches_are_conversations_of_their_own(ground: Ground) {
    added(&ground, vec![file("f1", 0)]).await;
    let (lease, _) = claim(&ground, 1_010).await;
    let said = vec![vec![segment("s1", 2.0, "hello")], vec![segment("s2", 500.0, "later")]];
    let made = ground.store.complete_upload(words(&lease, said)).await.unwrap();
    assert_eq!(made, ["f1-c0".into(), "f1-c1".into()]);
    for id in ["f1-c0", "f1-c1"] {
        assert_eq!(status(&ground, id).await, ConversationStatus::Processing);
    }
    assert_eq!(ground.store.jobs(Some(&"ann".into()), None, 10).await.unwrap().len(), 2);
}

pub async fn a_worker_that_wakes_late_changes_no_upload(ground: Ground) {
    added(&ground, vec![file("f1", 0)]).await;
    let (late, _) = claim(&ground, 1_010).await;
    let (lease, _) = ground.other.claim_upload(&"p2".into(), at(1_040), LEASE).await.unwrap().unwrap();
    let said = || vec![vec![segment("s1", 2.0, "hello")]];
    assert!(matches!(ground.store.complete_upload(words(&late, said())).await, Err(StoreError::Fenced(_))));
    assert!(matches!(ground.store.renew_upload(&late, at(1_100), 1.0).await, Err(StoreError::Fenced(_))));
    let failed = AttemptOutcome::Failed { error: "late".into() };
    assert!(matches!(ground.store.end_upload(&late, failed, at(1_041)).await, Err(StoreError::Fenced(_))));
    ground.other.complete_upload(words(&lease, said())).await.unwrap();
    assert!(matches!(ground.store.complete_upload(words(&late, said())).await, Err(StoreError::Fenced(_))));
    assert_eq!(upload(&ground, "f1").await.conversations.len(), 1);
    ground.store.remove_upload(&"ann".into(), &"f1".into(), at(1_042)).await.unwrap();
    assert!(matches!(
        ground.store.complete_upload(words(&lease, said())).await,
        Err(StoreError::NotFound(_))
    ));
    assert_eq!(status(&ground, "f1-c0").await, ConversationStatus::Processing, "what was made stays");
}

pub async fn spent_uploads_fail_and_come_back_when_asked(ground: Ground) {
    added(&ground, vec![file("f1", 0)]).await;
    let mut secs = 1_010;
    // A postponed attempt is not counted.
    for _ in 0..8 {
        let (lease, _) = claim(&ground, secs).await;
        let away = AttemptOutcome::Postponed { at: at(secs + 5), error: "away".into() };
        ground.store.end_upload(&lease, away, at(secs)).await.unwrap();
        assert!(ground.store.claim_upload(&"p1".into(), at(secs + 4), LEASE).await.unwrap().is_none());
        secs += 5;
    }
    while upload(&ground, "f1").await.state != UploadState::Failed {
        let (lease, _) = claim(&ground, secs).await;
        let again = AttemptOutcome::Retry { at: at(secs), error: "broken".into() };
        ground.store.end_upload(&lease, again, at(secs)).await.unwrap();
        secs += 1;
        assert!(secs < 1_100, "attempts end");
    }
    let failed = upload(&ground, "f1").await;
    assert_eq!((failed.attempts, failed.last_error.as_deref()), (5, Some("broken")));
    assert!(ground.store.claim_upload(&"p1".into(), at(9_000), LEASE).await.unwrap().is_none());
    assert!(ground.store.retry_upload(&"bob".into(), &"f1".into(), at(1_200)).await.is_err());
    ground.store.retry_upload(&"ann".into(), &"f1".into(), at(1_200)).await.unwrap();
    let (lease, found) = claim(&ground, 1_200).await;
    assert_eq!(found.attempts, 1);
    assert!(matches!(
        ground.store.retry_upload(&"ann".into(), &"f1".into(), at(1_200)).await,
        Err(StoreError::Conflict(_))
    ));
    let failed = AttemptOutcome::Failed { error: "no audio".into() };
    ground.store.end_upload(&lease, failed, at(1_201)).await.unwrap();
    // The same file again, under the id of the file that came now.
    let mut again = file("f2", 0);
    again.sha256 = found.sha256;
    let again = added(&ground, vec![again]).await;
    assert_eq!((again[0].id.as_str(), again[0].state), ("f2", UploadState::Queued));
    // An attempt that died with its process, five times.
    for secs in 0..5 {
        claim(&ground, 2_000 + secs * 100).await;
    }
    assert!(ground.store.claim_upload(&"p1".into(), at(3_000), LEASE).await.unwrap().is_none());
    assert_eq!(upload(&ground, "f2").await.state, UploadState::Failed);
}

pub async fn a_failed_neighbour_lets_the_conversation_end(ground: Ground) {
    for (round, remove) in [(0, false), (1, true)] {
        let (one, two) = (format!("f{round}a"), format!("f{round}b"));
        let zero = round * 50_000;
        added(&ground, vec![file(&one, zero), file(&two, zero + 60)]).await;
        let (lease, _) = claim(&ground, 1_010 + round).await;
        ground.store.complete_upload(words(&lease, vec![vec![segment("s1", 2.0, "hello")]])).await.unwrap();
        let conversation = format!("{one}-c0");
        assert_eq!(status(&ground, &conversation).await, ConversationStatus::InProgress);
        let refused = ground.store.remove_upload(&"ann".into(), &one.as_str().into(), at(1_011)).await;
        assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
        if remove {
            ground.store.remove_upload(&"ann".into(), &two.as_str().into(), at(1_012)).await.unwrap();
        } else {
            let (lease, _) = claim(&ground, 1_012).await;
            let failed = AttemptOutcome::Failed { error: "no audio".into() };
            ground.store.end_upload(&lease, failed, at(1_013)).await.unwrap();
        }
        assert_eq!(status(&ground, &conversation).await, ConversationStatus::Processing);
    }
}

pub async fn nobody_speaks_and_nothing_is_made(ground: Ground) {
    added(&ground, vec![file("f1", 0)]).await;
    let (lease, _) = claim(&ground, 1_010).await;
    assert!(ground.store.complete_upload(words(&lease, Vec::new())).await.unwrap().is_empty());
    let done = upload(&ground, "f1").await;
    assert_eq!((done.state, done.audio_secs), (UploadState::Done, Some(60.0)));
    assert!(ground.store.list(&"ann".into(), Default::default()).await.unwrap().is_empty());
}

pub async fn uploads_go_with_their_user(ground: Ground) {
    added(&ground, vec![file("f1", 0), file("f2", 5_000)]).await;
    let (lease, _) = claim(&ground, 1_010).await;
    ground.store.complete_upload(words(&lease, vec![vec![segment("s1", 2.0, "hello")]])).await.unwrap();
    ground.store.begin_erasing(&"ann".into(), at(1_020)).await.unwrap();
    let refused = ground.store.add_uploads(&"ann".into(), "b2", vec![file("f3", 0)], at(1_021)).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    while !ground.store.erase_some(&"ann".into(), 10).await.unwrap() {}
    ground.store.finish_erasing(&"ann".into()).await.unwrap();
    assert!(ground.store.known_uploads(vec!["f1".into(), "f2".into()]).await.unwrap().is_empty());
}

pub async fn what_is_made_of_uploads_is_nobodys_to_sweep_or_resume(ground: Ground) {
    added(&ground, vec![file("f1", 0), file("f2", 60)]).await;
    let (lease, _) = claim(&ground, 1_010).await;
    ground.store.complete_upload(words(&lease, vec![vec![segment("s1", 2.0, "hello")]])).await.unwrap();
    assert!(ground.store.orphans(at(90_000), 10).await.unwrap().is_empty(), "its uploads end it");
    let mut opening = opening(Choice::Resume, "live");
    opening.now = at(60);
    let opened = ground.store.open_conversation(opening).await.unwrap();
    assert!(!opened.resumed);
    // Deleting it leaves the upload, and the same file may come again.
    ground.store.delete(&"ann".into(), &"f1-c0".into()).await.unwrap();
    let mut again = file("f3", 0);
    again.sha256 = upload(&ground, "f1").await.sha256;
    let again = added(&ground, vec![again]).await;
    assert_eq!((again[0].id.as_str(), again[0].state), ("f3", UploadState::Queued));
}
