//! Days are summarised once, whatever happens meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use auricle_core::{Limits, UnixMicros, UserId};
use auricle_process::days::{DayRequest, DayWords};
use auricle_process::{Clock, Days, OpenAi, PlainDays, SummariseDay, UnderstandError};
use auricle_store::conformance::at;
use auricle_store::{DayRecord, DayState};
use auricle_testkit::{LlmMode, LlmStandIn};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::rig::{Loop, PATIENCE, Rig};

/// The tests' zero is 22:13 of this day.
const DATE: &str = "2023-11-14";

/// The beginning of the next day.
fn midnight() -> UnixMicros {
    at(6_400)
}

fn limits() -> Limits {
    Limits { days_plan_every: Duration::from_millis(1), ..Limits::default() }
}

/// The rules, counted, and away for as many calls as are left.
#[derive(Default)]
struct Counted {
    calls: AtomicUsize,
    away: AtomicUsize,
}

#[async_trait]
impl SummariseDay for Counted {
    async fn summarise_day(&self, request: DayRequest<'_>, id: &str) -> Result<DayWords, UnderstandError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let away = self.away.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if away.is_ok() {
            return Err(UnderstandError::Away { reason: "as told".into(), after: Duration::from_secs(1) });
        }
        PlainDays.summarise_day(request, id).await
    }
}

/// Signs of life of the loop: one before it plans, one in planning. What it does between two of the former is one pass.
#[derive(Clone, Default)]
struct Beats(watch::Sender<usize>);

impl Beats {
    /// Waits until the loop has gone once from its beginning to its end, wherever it is now.
    async fn pass(&self) {
        let mut beats = self.0.subscribe();
        let until = *beats.borrow() + 4;
        tokio::time::timeout(PATIENCE, beats.wait_for(|beats| *beats >= until)).await.unwrap().unwrap();
    }
}

fn run(rig: &Rig, process: &str, summarise: Arc<dyn SummariseDay>) -> Loop {
    run_counted(rig, process, summarise, Beats::default())
}

fn run_counted(rig: &Rig, process: &str, summarise: Arc<dyn SummariseDay>, beats: Beats) -> Loop {
    let days = Arc::new(Days {
        store: Arc::clone(&rig.ground.store),
        summarise,
        limits: Arc::clone(&rig.limits),
        process: process.into(),
        clock: Arc::clone(&rig.clock) as Arc<dyn Clock>,
        time_zone: jiff::tz::TimeZone::UTC,
        hour: Some(0),
        fallback_after: rig.fallback_after,
        effects: Arc::default(),
    });
    Loop::start(|stop: CancellationToken| {
        days.run(stop, Arc::new(move || beats.0.send_modify(|beats| *beats += 1)))
    })
}

async fn day(rig: &Rig, date: &str) -> Option<DayRecord> {
    rig.ground.store.day(&UserId::from("ann"), date).await.unwrap()
}

/// Waits until the day is as it `should` be; the clock goes on if it waits for a time.
async fn until_day(rig: &Rig, date: &str, should: impl Fn(&DayRecord) -> bool) -> DayRecord {
    let reached = async {
        loop {
            if let Some(day) = day(rig, date).await {
                if should(&day) {
                    return day;
                }
                if day.state == DayState::Queued {
                    rig.clock.forward(Duration::from_secs(5));
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{date} never got there"))
}

async fn made(rig: &Rig, date: &str) -> serde_json::Value {
    let day = until_day(rig, date, |day| day.state == DayState::Completed).await;
    serde_json::from_str(day.summary.as_deref().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_is_summarised_when_it_is_over_and_a_day_of_silence_is_not() {
    let rig = Rig::new(limits()).await;
    rig.ground.completed("c1", "words", "Planning").await;
    let counted = Arc::new(Counted::default());
    let beats = Beats::default();
    let summarise = Arc::clone(&counted) as Arc<dyn SummariseDay>;
    let running = run_counted(&rig, "p1", summarise, beats.clone());
    beats.pass().await;
    assert!(day(&rig, DATE).await.is_none(), "it is not over");
    rig.clock.forward_to(midnight());
    let summary = made(&rig, DATE).await;
    assert_eq!((&summary["headline"], &summary["date"]), (&"Planning".into(), &DATE.into()));
    assert_eq!(summary["stats"]["total_conversations"], 1);
    assert_eq!(summary["highlights"][0]["conversation_ids"][0], "c1");
    let kept = day(&rig, DATE).await.unwrap();
    assert_eq!(kept.provenance.unwrap().provider, "local");
    // Two days on: nobody was heard again, and what is made stays.
    rig.clock.forward(Duration::from_secs(2 * 86_400));
    beats.pass().await;
    running.stop().await;
    assert_eq!(counted.calls.load(Ordering::SeqCst), 1);
    assert_eq!(rig.ground.store.days(&"ann".into(), 10, 0).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_after_the_call_repeats_no_call() {
    let rig = Rig::new(limits()).await;
    rig.ground.completed("c1", "words", "Planning").await;
    rig.clock.forward_to(midnight());
    rig.refuse("days", true);
    let counted = Arc::new(Counted::default());
    let running = run(&rig, "p1", Arc::clone(&counted) as Arc<dyn SummariseDay>);
    until_day(&rig, DATE, |day| day.last_error.is_some()).await;
    running.kill().await;
    rig.refuse("days", false);
    let running = run(&rig, "p2", Arc::clone(&counted) as Arc<dyn SummariseDay>);
    assert_eq!(made(&rig, DATE).await["headline"], "Planning");
    running.stop().await;
    assert_eq!(counted.calls.load(Ordering::SeqCst), 1, "the call's result was recorded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_make_a_day_once() {
    let rig = Rig::new(limits()).await;
    rig.ground.completed("c1", "words", "Planning").await;
    rig.clock.forward_to(midnight());
    let counted = Arc::new(Counted::default());
    let both = ["p1", "p2"].map(|process| {
        let (summarise, beats) = (Arc::clone(&counted) as Arc<dyn SummariseDay>, Beats::default());
        (run_counted(&rig, process, summarise, beats.clone()), beats)
    });
    made(&rig, DATE).await;
    for (running, beats) in both {
        beats.pass().await;
        running.stop().await;
    }
    assert_eq!(counted.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_away_is_waited_for_and_then_rules_stand_in() {
    let mut rig = Rig::new(limits()).await;
    rig.fallback_after = Some(Duration::from_secs(30));
    rig.ground.completed("c1", "words", "Planning").await;
    rig.clock.forward_to(midnight());
    let counted = Arc::new(Counted { away: AtomicUsize::new(usize::MAX), ..Counted::default() });
    let running = run(&rig, "p1", Arc::clone(&counted) as Arc<dyn SummariseDay>);
    made(&rig, DATE).await;
    running.stop().await;
    let kept = day(&rig, DATE).await.unwrap();
    let made_by = kept.provenance.unwrap();
    assert!(made_by.is_stand_in(), "{made_by:?}");
    assert!(counted.calls.load(Ordering::SeqCst) > 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_writes_about_the_day_and_what_it_makes_of_nothing_is_not_kept() {
    let rig = Rig::new(limits()).await;
    rig.ground.completed("c1", "words", "Planning").await;
    rig.clock.forward_to(midnight());
    let llm = LlmStandIn::start().await.unwrap();
    llm.set(LlmMode::Mended);
    let config = auricle_process::openai::OpenAiConfig::new(llm.url(), "m1");
    let model =
        OpenAi::new(&config, Arc::clone(&rig.limits), Arc::clone(&rig.clock) as Arc<dyn Clock>).unwrap();
    let running = run(&rig, "p1", Arc::new(model));
    let summary = made(&rig, DATE).await;
    running.stop().await;
    assert_eq!(summary["headline"], "A day of 1");
    assert_eq!(
        summary["highlights"].as_array().unwrap().len(),
        1,
        "the invented one rests on nothing: {summary}"
    );
    assert_eq!(llm.calls(), 2, "shown its answer once");
    let kept = day(&rig, DATE).await.unwrap();
    assert_eq!(kept.provenance.unwrap().version, "m1/day-1");
}
