//! Days that are over are summarised and told, behind the whole server.

use auricle_testkit::{LlmStandIn, WebhookSink};
use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{PATIENCE, Rig, eventually};

const TODAY: &str = "the day on which it was said";

/// Says something and waits for its record; its id and its date in UTC.
async fn said(rig: &Rig) -> (String, String) {
    let mut device = rig.device().await;
    device.speak(2.5).await;
    device.texts_up_to("report").await;
    let id = device.conversation().await;
    assert_eq!(rig.post("/v1/conversations").await.0, 200);
    device.client.close().await;
    let record = rig.conversation_when(&id, "completed").await;
    let began = record["started_at"].as_str().expect(TODAY);
    (id, began[..10].to_owned())
}

async fn day_when(rig: &Rig, date: &str, state: &str) -> Value {
    eventually("the day is made", async || {
        let (_, day) = rig.get(&format!("/v1/days/{date}")).await;
        (day["state"] == state).then_some(day)
    })
    .await
}

/// As if all of it had been said a day earlier. The server is stopped.
fn a_day_earlier(rig: &Rig) {
    let db = rusqlite::Connection::open(rig.data().join("auricle.db")).unwrap();
    db.execute("UPDATE conversations SET started_at = started_at - 86400000000", []).unwrap();
}

/// How many effects of days there are, and how many of them are not done.
fn effects_of_days(rig: &Rig) -> (u32, u32) {
    let db = rusqlite::Connection::open(rig.data().join("auricle.db")).unwrap();
    let count = |more: &str| {
        let sql = format!("SELECT count(*) FROM effects WHERE conversation IS NULL {more}");
        db.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    (count(""), count("AND state IN ('pending', 'leased')"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_is_summarised_by_hand_and_again() {
    let rig = Rig::start(&[("user.time_zone", "UTC")]).await;
    assert_eq!(rig.get("/v1/days").await, (200, json!([])));
    let (id, date) = said(&rig).await;
    assert_eq!(rig.get(&format!("/v1/days/{date}")).await.0, 404, "nothing makes it by itself");
    let path = format!("/v1/days/{date}/summarise");
    let (status, asked) = rig.post(&path).await;
    assert_eq!((status, asked["date"].as_str()), (202, Some(date.as_str())), "{asked}");
    let day = day_when(&rig, &date, "completed").await;
    assert_eq!((day["provider"].as_str(), day["conversations"].as_u64()), (Some("local"), Some(1)));
    assert_eq!(day["summary_json"]["highlights"][0]["conversation_ids"], json!([id]));
    assert_eq!(day["summary"], day["summary_json"]["overview"]);
    assert_eq!(rig.post(&path).await.0, 202);
    eventually("it is made again", async || {
        let (_, days) = rig.get("/v1/days").await;
        (days[0]["revision"] == 1 && days[0]["state"] == "completed").then_some(())
    })
    .await;
    for wrong in ["2026-02-30", "today", "2999-01-01", "20261125"] {
        assert_eq!(rig.post(&format!("/v1/days/{wrong}/summarise")).await.0, 422, "{wrong}");
    }
    assert_eq!(rig.post("/v1/days/2001-01-01/summarise").await.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_that_is_over_is_made_by_the_model_and_told_once_across_restarts() {
    let (llm, sink) = (LlmStandIn::start().await.unwrap(), WebhookSink::start().await.unwrap());
    let url = llm.url();
    let settings = [
        ("llm.url", url.as_str()),
        ("days.summary", "0"),
        ("user.time_zone", "UTC"),
        ("webhooks.allow_private", "true"),
    ];
    let mut rig = Rig::start(&settings).await;
    let hook = json!({ "url": format!("{}/days", sink.url()), "triggers": ["day_summary"] });
    assert_eq!(rig.call(Method::POST, "/v1/webhooks", hook).await.0, 201);
    let (_, date) = said(&rig).await;
    rig.stop().await;
    a_day_earlier(&rig);
    rig.restart().await;
    tokio::time::timeout(PATIENCE, sink.arrived(1)).await.unwrap();
    let yesterday = date.parse::<jiff::civil::Date>().unwrap().yesterday().unwrap().to_string();
    let day = day_when(&rig, &yesterday, "completed").await;
    assert_eq!(
        (day["provider"].as_str(), &day["summary_json"]["headline"]),
        (Some("llm"), &json!("A day of 1"))
    );
    let told: Value = serde_json::from_slice(&sink.deliveries()[0].body).unwrap();
    assert_eq!((told["uid"].as_str(), &told["summary"]), (Some("local"), &day["summary"]));
    assert_eq!(told["summary_json"], day["summary_json"]);
    assert!(told["created_at"].is_string());
    let calls = llm.calls();
    // Neither another start nor making it again tells of it again.
    rig.restart().await;
    assert_eq!(rig.post(&format!("/v1/days/{yesterday}/summarise")).await.0, 202);
    eventually("it is made again", async || {
        let (_, day) = rig.get(&format!("/v1/days/{yesterday}")).await;
        (day["revision"] == 1 && day["state"] == "completed").then_some(())
    })
    .await;
    assert_eq!(llm.calls(), calls + 1, "one call for each time that it is made");
    // What is told of a day is written with its summary: there is nothing more to come.
    eventually("all is told", async || (effects_of_days(&rig) == (1, 0)).then_some(())).await;
    assert_eq!(sink.deliveries().len(), 1);
}
