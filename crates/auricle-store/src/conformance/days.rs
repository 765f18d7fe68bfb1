//! Days and their summaries.

use std::time::Duration;

use auricle_core::{Provenance, UserId};

use super::{Ground, LEASE, at, batch, opening, segment};
use crate::store::{
    Choice, DayClaim, DayCompletion, DayOutcome, DayState, OpenConversation, PlannedDay, StoreError,
};

/// From second 0 until before second 1,000.
fn day(date: &str) -> PlannedDay {
    PlannedDay { date: date.into(), zone: "Europe/Madrid".into(), from: at(0), until: at(1_000) }
}

fn ann() -> UserId {
    "ann".into()
}

async fn claim(ground: &Ground, now: i64) -> Option<DayClaim> {
    ground.store.claim_day(&"p1".into(), at(now), LEASE).await.unwrap()
}

fn made(summary: &str, now: i64) -> DayCompletion {
    DayCompletion {
        summary: summary.into(),
        payload: "{}".into(),
        conversations: 1,
        provenance: Provenance { provider: "local".into(), version: "day-1".into() },
        now: at(now),
    }
}

async fn plan(ground: &Ground, date: &str, now: i64) -> usize {
    ground.store.plan_days(&ann(), vec![day(date)], Duration::from_secs(60), at(now)).await.unwrap()
}

pub async fn a_day_with_records_is_queued_once_and_made_once(ground: Ground) {
    assert_eq!(plan(&ground, "1970-01-01", 1_001).await, 0, "nobody was heard");
    ground.completed("c1", "words", "Title").await;
    assert_eq!(plan(&ground, "1970-01-01", 1_001).await, 1);
    assert_eq!(plan(&ground, "1970-01-01", 1_002).await, 0, "it is queued");
    let held = claim(&ground, 1_003).await.unwrap();
    assert_eq!((held.day.clone(), held.revision, held.attempts), (day("1970-01-01"), 0, 1));
    assert!(claim(&ground, 1_003).await.is_none(), "it is claimed");
    let of_day = ground.store.conversations_of_day(&ann(), held.day.from, held.day.until, 10).await.unwrap();
    assert_eq!(of_day.iter().map(|each| each.structured.title.as_str()).collect::<Vec<_>>(), ["Title"]);
    ground.store.record_day_step(&held, "a step").await.unwrap();
    ground.store.complete_day(&held, made(r#"{"overview":"x"}"#, 1_004)).await.unwrap();
    let kept = ground.other.day(&ann(), "1970-01-01").await.unwrap().unwrap();
    assert_eq!(
        (kept.state, kept.summary.as_deref(), kept.conversations),
        (DayState::Completed, Some(r#"{"overview":"x"}"#), 1)
    );
    assert_eq!(kept.made_at, Some(at(1_004)));
    assert_eq!(plan(&ground, "1970-01-01", 1_005).await, 0, "it is made");
    assert!(matches!(ground.store.complete_day(&held, made("{}", 1_006)).await, Err(StoreError::Fenced(_))));
    assert_eq!(ground.store.days(&ann(), 10, 0).await.unwrap().len(), 1);
    assert!(ground.store.days(&"bob".into(), 10, 0).await.unwrap().is_empty());
    assert!(ground.store.day(&"bob".into(), "1970-01-01").await.unwrap().is_none());
}

pub async fn a_day_waits_for_records_to_come_but_not_for_ever(ground: Ground) {
    ground.completed("c1", "words", "Title").await;
    ground.live("c2").await;
    assert_eq!(plan(&ground, "1970-01-01", 1_059).await, 0);
    assert_eq!(plan(&ground, "1970-01-01", 1_060).await, 1);
}

pub async fn a_day_of_no_records_is_none(ground: Ground) {
    let owner = ground.live("c1").await;
    ground.store.append_segments(batch(&owner, 1, &[segment("a", 0.0, "words")])).await.unwrap();
    assert_eq!(plan(&ground, "1970-01-01", 9_000).await, 0);
    let asked = ground.store.ask_day(&ann(), day("1970-01-01"), at(9_000)).await;
    assert!(matches!(asked, Err(StoreError::NotFound(_))));
    // What it rested on is deleted after it was claimed.
    let id = ground.completed("c2", "words", "Title").await;
    assert_eq!(plan(&ground, "1970-01-01", 9_000).await, 1);
    let held = claim(&ground, 9_001).await.unwrap();
    ground.store.delete(&ann(), &id).await.unwrap();
    assert!(
        ground.store.conversations_of_day(&ann(), held.day.from, held.day.until, 9).await.unwrap().is_empty()
    );
    ground.store.drop_day(&held).await.unwrap();
    assert!(ground.store.day(&ann(), "1970-01-01").await.unwrap().is_none());
    assert!(matches!(ground.store.drop_day(&held).await, Err(StoreError::NotFound(_))));
}

pub async fn a_lost_claim_writes_nothing_and_a_recorded_step_is_found(ground: Ground) {
    ground.completed("c1", "words", "Title").await;
    plan(&ground, "1970-01-01", 1_001).await;
    let first = claim(&ground, 1_002).await.unwrap();
    ground.store.record_day_step(&first, "what was paid for").await.unwrap();
    let later = 1_002 + i64::try_from(LEASE.as_secs()).unwrap() + 1;
    let second = claim(&ground, later).await.unwrap();
    assert_eq!((second.step.as_deref(), second.attempts), (Some("what was paid for"), 2));
    assert!(matches!(ground.store.renew_day(&first, at(later + 5)).await, Err(StoreError::Fenced(_))));
    assert!(matches!(ground.store.record_day_step(&first, "x").await, Err(StoreError::Fenced(_))));
    assert!(matches!(ground.store.complete_day(&first, made("{}", later)).await, Err(StoreError::Fenced(_))));
    ground.store.renew_day(&second, at(later + 50)).await.unwrap();
    assert!(claim(&ground, later + 40).await.is_none());
    // Its process says goodbye: the next one need not wait, and it costs no attempt.
    ground.store.process_gone(&"p1".into(), at(later + 41)).await.unwrap();
    let third = claim(&ground, later + 42).await.unwrap();
    assert_eq!(third.attempts, 2);
    assert!(matches!(
        ground.store.complete_day(&second, made("{}", later)).await,
        Err(StoreError::Fenced(_))
    ));
}

pub async fn attempts_are_counted_and_absences_are_not(ground: Ground) {
    ground.completed("c1", "words", "Title").await;
    plan(&ground, "1970-01-01", 1_001).await;
    let end =
        async |held: &DayClaim, outcome, now| ground.store.end_day(held, outcome, at(now)).await.unwrap();
    let held = claim(&ground, 1_002).await.unwrap();
    end(&held, DayOutcome::Postponed { at: at(1_010), error: "away".into() }, 1_003).await;
    assert!(claim(&ground, 1_009).await.is_none());
    let held = claim(&ground, 1_010).await.unwrap();
    assert_eq!((held.attempts, held.postponed, held.away_since), (1, 1, Some(at(1_003))));
    end(&held, DayOutcome::Retry { at: at(1_020), error: "nonsense".into() }, 1_011).await;
    let held = claim(&ground, 1_020).await.unwrap();
    assert_eq!((held.attempts, held.postponed, held.away_since), (2, 0, None));
    end(&held, DayOutcome::Released, 1_021).await;
    let held = claim(&ground, 1_021).await.unwrap();
    assert_eq!(held.attempts, 2);
    end(&held, DayOutcome::Failed { error: "never".into() }, 1_022).await;
    let kept = ground.store.day(&ann(), "1970-01-01").await.unwrap().unwrap();
    assert_eq!((kept.state, kept.last_error.as_deref()), (DayState::Failed, Some("never")));
    assert_eq!(plan(&ground, "1970-01-01", 1_100).await, 0, "a person decides");
    let asked = ground.store.ask_day(&ann(), day("1970-01-01"), at(1_101)).await.unwrap();
    assert_eq!((asked.state, asked.revision, asked.last_error), (DayState::Queued, 1, None));
}

pub async fn a_day_that_is_made_again_keeps_its_old_summary_until_then(ground: Ground) {
    ground.completed("c1", "words", "Title").await;
    // By hand, before it is over.
    ground.store.ask_day(&ann(), day("1970-01-01"), at(500)).await.unwrap();
    let held = claim(&ground, 501).await.unwrap();
    ground.store.complete_day(&held, made("{\"early\":1}", 502)).await.unwrap();
    assert_eq!(plan(&ground, "1970-01-01", 1_001).await, 1, "it was made too early");
    let kept = ground.store.day(&ann(), "1970-01-01").await.unwrap().unwrap();
    assert_eq!(
        (kept.state, kept.revision, kept.summary.as_deref()),
        (DayState::Queued, 1, Some("{\"early\":1}"))
    );
    let held = claim(&ground, 1_002).await.unwrap();
    assert_eq!(held.step, None);
    // Asking while it is made changes nothing.
    let asked = ground.store.ask_day(&ann(), day("1970-01-01"), at(1_003)).await.unwrap();
    assert_eq!(asked.state, DayState::Leased);
    ground.store.complete_day(&held, made("{\"late\":1}", 1_004)).await.unwrap();
    assert_eq!(plan(&ground, "1970-01-01", 1_005).await, 0);
}

pub async fn users_who_were_heard_of_late_are_listed_with_their_zones(ground: Ground) {
    ground.completed("c1", "words", "Title").await;
    for user in ["bob", "eve"] {
        let open = OpenConversation { user: user.into(), ..opening(Choice::New, &format!("{user}1")) };
        ground.store.open_conversation(open).await.unwrap();
    }
    ground.store.set_time_zone(&"bob".into(), "Asia/Tokyo").await.unwrap();
    // Page by page, of one each; others may be there as well.
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = ground.store.users_heard_since(at(0), after.as_ref(), 1).await.unwrap();
        let Some((user, zone)) = page.into_iter().next() else { break };
        after = Some(user.clone());
        found.push((user, zone));
    }
    found.retain(|(user, _)| ["ann", "bob", "eve"].contains(&user.as_str()));
    let known = [(ann(), None), ("bob".into(), Some("Asia/Tokyo".into())), ("eve".into(), None)];
    assert_eq!(found, known);
    assert!(ground.store.users_heard_since(at(1_000_000), None, 2).await.unwrap().is_empty());
}
