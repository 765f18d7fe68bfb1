//! Search by words and by meaning, and why something was found.

use std::time::Duration;

use auricle_testkit::{EmbeddingsMode, EmbeddingsStandIn};
use serde_json::{Value, json};

use crate::rest::rig::Rig;

async fn found(rig: &Rig, user: &str, query: &str) -> Value {
    let (status, body) = rig.get(user, &format!("/v1/search?{query}")).await;
    assert_eq!(status, 200, "{body}");
    body
}

fn titles(found: &Value) -> Vec<&str> {
    let results = found["results"].as_array().unwrap();
    results.iter().map(|result| result["conversation"]["structured"]["title"].as_str().unwrap()).collect()
}

/// Three conversations, embedded.
async fn ground(change: impl FnOnce(&mut auricle_core::Limits)) -> (Rig, EmbeddingsStandIn) {
    let server = EmbeddingsStandIn::start().await.unwrap();
    let rig = Rig::with_embeddings(Some(&server.url()), change).await;
    rig.completed("ana", "Knee", &["The doctor examined the painful knee.", "Rest helps."]).await;
    rig.completed("ana", "Engine", &["The car makes strange engine noises again."]).await;
    rig.completed("ana", "Dinner", &["Pasta tonight, with basil from the garden."]).await;
    rig.embed_all().await;
    (rig, server)
}

#[tokio::test]
async fn what_means_the_same_is_found_and_says_why() {
    let (rig, _server) = ground(|_| {}).await;
    // No word of it stands anywhere.
    let body = found(&rig, "ana", "query=automobile%20trouble").await;
    assert_eq!(body["meaning"], "on");
    assert_eq!(titles(&body)[0], "Engine", "{body}");
    let hit = &body["results"][0];
    assert_eq!((&hit["kind"], &hit["matched"]), (&json!("conversation"), &json!(["meaning"])));
    assert_eq!((&hit["meaning_rank"], &hit["words_rank"]), (&json!(1), &Value::Null));
    assert!(hit["similarity"].as_f64().unwrap() > 0.2, "{hit}");
    let snippet = &hit["snippets"][0];
    assert_eq!(snippet["text"], "The car makes strange engine noises again.");
    assert!(snippet["segment_id"].is_string() && snippet["start"] == 0.0, "{snippet}");
    assert_eq!(hit["conversation"]["transcript_segments"], json!([]));
}

#[tokio::test]
async fn what_both_find_comes_first_and_says_so() {
    let (rig, _server) = ground(|_| {}).await;
    let body = found(&rig, "ana", "query=painful%20knee").await;
    assert_eq!(titles(&body)[0], "Knee");
    let hit = &body["results"][0];
    assert_eq!(hit["matched"], json!(["words", "meaning"]));
    assert_eq!((&hit["words_rank"], &hit["meaning_rank"]), (&json!(1), &json!(1)));
    assert!((hit["score"].as_f64().unwrap() - 2.0 / 61.0).abs() < 1e-9);
    let marked = &hit["snippets"][0];
    assert!(!marked["highlights"].as_array().unwrap().is_empty(), "words are marked: {marked}");
    // Pages of one ranking do not overlap.
    let all = found(&rig, "ana", "query=the%20doctor").await;
    let next = found(&rig, "ana", "query=the%20doctor&limit=1&offset=1").await;
    assert_eq!(next["results"][0], all["results"][1]);
}

#[tokio::test]
async fn without_an_embedding_server_words_answer_alone() {
    let rig = Rig::new().await;
    rig.completed("ana", "Knee", &["The doctor examined the knee."]).await;
    let body = found(&rig, "ana", "q=doctor").await;
    assert_eq!((body["meaning"].as_str(), titles(&body)), (Some("off"), vec!["Knee"]));
    assert_eq!(body["results"][0]["matched"], json!(["words"]));
    assert_eq!(found(&rig, "ana", "query=physician").await["results"], json!([]));
}

#[tokio::test]
async fn an_embedding_server_that_is_away_holds_no_search_up() {
    let (rig, server) = ground(|limits| limits.search_meaning_wait = Duration::from_millis(100)).await;
    for mode in [
        EmbeddingsMode::Hang(Duration::from_secs(600)),
        EmbeddingsMode::Status(500),
        EmbeddingsMode::Status(400),
        EmbeddingsMode::Busy(60),
        EmbeddingsMode::Garbage,
        EmbeddingsMode::Short,
    ] {
        server.set(mode);
        let body = found(&rig, "ana", "query=doctor").await;
        assert_eq!((body["meaning"].as_str(), titles(&body)), (Some("away"), vec!["Knee"]), "{mode:?}");
    }
    // The breaker has opened by now: nobody is asked.
    server.set(EmbeddingsMode::Answer);
    drop(server);
    assert_eq!(found(&rig, "ana", "query=doctor").await["meaning"], "away");
}

#[tokio::test]
async fn meaning_finds_only_ones_own() {
    let (rig, _server) = ground(|_| {}).await;
    rig.completed("eve", "Hers", &["Something else entirely."]).await;
    rig.embed_all().await;
    let body = found(&rig, "eve", "query=physician%20painful%20knee").await;
    assert_eq!((body["meaning"].as_str(), &body["results"]), (Some("on"), &json!([])));
    assert_eq!(titles(&found(&rig, "ana", "query=physician%20painful%20knee").await)[0], "Knee");
}

#[tokio::test]
async fn action_items_and_memories_are_found_where_they_are_asked_for() {
    let rig = Rig::new().await;
    rig.ended("ana", &["I will call the plumber."]).await;
    rig.process_next_job_with("Pipes", &["Call the plumber"], &["Knows a good plumber"]).await.unwrap();
    let kinds = |found: &Value| {
        let results = found["results"].as_array().unwrap().clone();
        let mut kinds: Vec<_> =
            results.iter().map(|result| result["kind"].as_str().unwrap().to_owned()).collect();
        kinds.sort();
        kinds
    };
    assert_eq!(kinds(&found(&rig, "ana", "query=plumber").await), ["conversation"]);
    let all = found(&rig, "ana", "query=plumber&kinds=conversations,action_items,memories").await;
    assert_eq!(kinds(&all), ["action_item", "conversation", "memory"]);
    let body = found(&rig, "ana", "query=plumber&kinds=action_items").await;
    let hit = &body["results"][0];
    assert_eq!(
        (hit["action_item"]["description"].as_str(), &hit["matched"]),
        (Some("Call the plumber"), &json!(["words"]))
    );
    assert_eq!(hit["snippets"][0]["highlights"], json!([[9, 16]]));
    // The index follows what the user does.
    let path = format!("/v1/action-items/{}", hit["action_item"]["id"].as_str().unwrap());
    rig.call("ana", "PATCH", &path, Some(json!({ "description": "Call the roofer" }))).await;
    assert_eq!(found(&rig, "ana", "query=plumber&kinds=action_items").await["results"], json!([]));
    assert_eq!(kinds(&found(&rig, "ana", "query=roofer&kinds=action_items").await), ["action_item"]);
    rig.call("ana", "DELETE", &path, None).await;
    assert_eq!(found(&rig, "ana", "query=roofer&kinds=action_items").await["results"], json!([]));
    assert_eq!(kinds(&found(&rig, "ana", "query=plumber&kinds=memories").await), ["memory"]);
    for kinds in ["action_items", "memories", "conversations,memories"] {
        assert_eq!(found(&rig, "eve", &format!("query=plumber&kinds={kinds}")).await["results"], json!([]));
    }
    for kinds in ["everything", ","] {
        assert_eq!(rig.get("ana", &format!("/v1/search?query=x&kinds={kinds}")).await.0, 422, "{kinds}");
    }
}
