//! The embedding server answers, hangs, refuses and goes away: no record waits for it, and nothing stays unembedded.

use std::sync::Arc;
use std::time::Duration;

use auricle_core::{ConversationStatus, JobState, Limits};
use auricle_process::embed::EmbedServerConfig;
use auricle_process::{Clock, Embed, EmbedError, EmbedServer};
use auricle_store::conformance::segment;
use auricle_store::{EmbeddingCounts, Near};
use auricle_testkit::{EmbeddingsMode, EmbeddingsStandIn};
use serde_json::Value;

use crate::rig::{Loop, PATIENCE, Rig, Script};

const KEY: &str = "sk-very-secret-0123";

fn quick() -> Limits {
    Limits {
        embed_call_max: Duration::from_millis(300),
        embed_pause: Duration::from_millis(1),
        embed_breaker_failures: 1_000,
        ..Limits::default()
    }
}

fn server(rig: &Rig, url: &str, model: &str) -> Arc<dyn Embed> {
    let config =
        EmbedServerConfig { url: url.into(), model: model.into(), key: Some(KEY.into()), dimensions: None };
    let clock = Arc::clone(&rig.clock) as Arc<dyn Clock>;
    Arc::new(EmbedServer::new(&config, Arc::clone(&rig.limits), clock).unwrap())
}

fn embed(rig: &Rig, process: &str, url: &str) -> Loop {
    rig.embed_with(process, server(rig, url, "m1"))
}

async fn pending(rig: &Rig) -> u64 {
    rig.ground.store.embedding_counts().await.unwrap().pending
}

/// Waits until so many conversations are to be embedded; the clock goes on.
async fn until_pending(rig: &Rig, number: u64) {
    let reached = async {
        while pending(rig).await != number {
            rig.clock.forward(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("it was embedded");
}

async fn nearest(rig: &Rig, url: &str, model: &str, query: &str) -> Vec<Near> {
    let vectors = server(rig, url, model).embed(&[query.to_owned()]).await.unwrap();
    rig.ground.store.nearest(&"ann".into(), model, vectors[0].clone(), 10).await.unwrap()
}

/// What OpenAI publishes of a request for embeddings.
fn is_as_published(request: &Value) {
    let object = request.as_object().unwrap();
    for (key, value) in object {
        let good = match key.as_str() {
            "model" => value.is_string(),
            "input" => value.as_array().is_some_and(|input| {
                (1..=2048).contains(&input.len())
                    && input.iter().all(|text| text.as_str().is_some_and(|text| !text.is_empty()))
            }),
            "encoding_format" => value == "float" || value == "base64",
            "dimensions" => value.as_u64().is_some_and(|number| number >= 1),
            "user" => value.is_string(),
            _ => false,
        };
        assert!(good, "{key}: {value}");
    }
    assert!(object.contains_key("model") && object.contains_key("input"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_is_embedded_as_a_whole_and_in_chunks() {
    let rig = Rig::new(quick()).await;
    let openai = EmbeddingsStandIn::start().await.unwrap();
    rig.ground.completed("c1", "we talked about zebras and giraffes", "Safari").await;
    rig.ground.completed("c2", "the mortgage of the house", "Bank").await;
    let embedder = embed(&rig, "p1", &openai.url());
    until_pending(&rig, 0).await;
    let found = nearest(&rig, &openai.url(), "m1", "zebras, giraffes").await;
    assert_eq!(found[0].conversation, "c1".into());
    assert_eq!(found[0].segments, Some(("s1".into(), "s1".into())));
    let found = nearest(&rig, &openai.url(), "m1", "residence mortgage").await;
    assert_eq!(found[0].conversation, "c2".into(), "a synonym is near");
    let requests = openai.requests();
    requests.iter().for_each(is_as_published);
    assert_eq!(requests[0]["input"].as_array().unwrap().len(), 2, "record and transcript in one call");
    embedder.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_within_their_bounds() {
    let limits = Limits { embed_batch_items_max: 2, embed_chunks_max: 4, ..quick() };
    let rig = Rig::new(limits).await;
    let openai = EmbeddingsStandIn::start().await.unwrap();
    let owner = rig.ground.live("c1").await;
    let long = "word ".repeat(250);
    let words: Vec<_> = (0..9).map(|n| segment(&format!("s{n}"), n as f64 * 2.0, &long)).collect();
    rig.ground.store.append_segments(auricle_store::conformance::batch(&owner, 1, &words)).await.unwrap();
    let ending = auricle_store::conformance::ending(&owner.conversation, Some(&owner), "j", 2);
    rig.ground.store.finalise(ending).await.unwrap();
    let claimed = rig.ground.claim("p1", 3).await;
    let done = auricle_store::conformance::completion(&claimed.lease, "Long", 4);
    rig.ground.store.complete_job(done).await.unwrap();
    let embedder = embed(&rig, "p1", &openai.url());
    until_pending(&rig, 0).await;
    let sizes: Vec<_> =
        openai.requests().iter().map(|request| request["input"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [2, 2, 1], "the record and four chunks");
    embedder.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_holds_no_record_up_and_only_delays() {
    for mode in [
        EmbeddingsMode::Hang(Duration::from_secs(600)),
        EmbeddingsMode::Status(500),
        EmbeddingsMode::Status(401),
        EmbeddingsMode::Busy(1),
    ] {
        let rig = Rig::new(Limits { embed_attempts_max: 1, ..quick() }).await;
        let openai = EmbeddingsStandIn::start().await.unwrap();
        openai.set(mode);
        rig.ground.ended("c1", "zebras").await;
        let (embedder, worker) =
            (embed(&rig, "p1", &openai.url()), rig.work("p1", &Arc::new(Script::default())));
        rig.reaches("c1", JobState::Completed).await;
        let called = async {
            while openai.calls() < 3 {
                rig.clock.forward(Duration::from_secs(5));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, called).await.unwrap();
        assert_eq!(pending(&rig).await, 1, "{mode:?}: it waits, and no attempt was spent");
        openai.set(EmbeddingsMode::Answer);
        until_pending(&rig, 0).await;
        let counts = rig.ground.store.embedding_counts().await.unwrap();
        assert_eq!(counts, EmbeddingCounts::default(), "{mode:?}");
        embedder.stop().await;
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_does_not_take_is_given_up_and_tried_by_the_next_start() {
    for mode in [EmbeddingsMode::Status(400), EmbeddingsMode::Garbage, EmbeddingsMode::Short] {
        let rig = Rig::new(Limits { embed_attempts_max: 2, ..quick() }).await;
        let openai = EmbeddingsStandIn::start().await.unwrap();
        openai.set(mode);
        rig.ground.completed("c1", "zebras", "Safari").await;
        let embedder = embed(&rig, "p1", &openai.url());
        until_pending(&rig, 0).await;
        let counts = rig.ground.store.embedding_counts().await.unwrap();
        assert_eq!(counts, EmbeddingCounts { pending: 0, failed: 1 }, "{mode:?}");
        let record = rig.ground.store.conversation(&"ann".into(), &"c1".into()).await.unwrap().unwrap();
        assert_eq!(record.status, ConversationStatus::Completed);
        embedder.stop().await;
        openai.set(EmbeddingsMode::Answer);
        let embedder = embed(&rig, "p2", &openai.url());
        let embedded = async {
            while nearest(&rig, &openai.url(), "m1", "zebras").await.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, embedded).await.unwrap();
        embedder.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_model_makes_all_vectors_anew() {
    let rig = Rig::new(quick()).await;
    let openai = EmbeddingsStandIn::start().await.unwrap();
    for id in ["c1", "c2", "c3"] {
        rig.ground.completed(id, "zebras", id).await;
    }
    let embedder = embed(&rig, "p1", &openai.url());
    until_pending(&rig, 0).await;
    embedder.stop().await;
    assert_eq!(nearest(&rig, &openai.url(), "m1", "zebras").await.len(), 3);
    assert!(
        nearest(&rig, &openai.url(), "m2", "zebras").await.is_empty(),
        "another model's are not compared"
    );
    let embedder = rig.embed_with("p1", server(&rig, &openai.url(), "m2"));
    let anew = async {
        while nearest(&rig, &openai.url(), "m2", "zebras").await.len() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, anew).await.unwrap();
    assert!(nearest(&rig, &openai.url(), "m1", "zebras").await.is_empty());
    embedder.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_leaves_its_work_to_the_next() {
    let rig = Rig::new(Limits { embed_call_max: Duration::from_secs(600), ..quick() }).await;
    let openai = EmbeddingsStandIn::start().await.unwrap();
    openai.set(EmbeddingsMode::Hang(Duration::from_secs(600)));
    rig.ground.completed("c1", "zebras", "Safari").await;
    let killed = embed(&rig, "p1", &openai.url());
    tokio::time::timeout(PATIENCE, openai.called(1)).await.unwrap();
    killed.kill().await;
    openai.set(EmbeddingsMode::Answer);
    let next = embed(&rig, "p2", &openai.url());
    // Its claim runs out first.
    until_pending(&rig, 0).await;
    assert_eq!(nearest(&rig, &openai.url(), "m1", "zebras").await.len(), 1);
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_gives_the_work_back_untried() {
    let rig = Rig::new(Limits { embed_call_max: Duration::from_secs(600), ..quick() }).await;
    let openai = EmbeddingsStandIn::start().await.unwrap();
    openai.set(EmbeddingsMode::Hang(Duration::from_secs(600)));
    rig.ground.completed("c1", "zebras", "Safari").await;
    let drained = embed(&rig, "p1", &openai.url());
    tokio::time::timeout(PATIENCE, openai.called(1)).await.unwrap();
    drained.stop().await;
    let clock = Arc::clone(&rig.clock) as Arc<dyn Clock>;
    let claim = rig.ground.store.claim_embedding(&"p2".into(), clock.wall(), rig.limits.lease).await.unwrap();
    assert_eq!(claim.unwrap().attempts, 1, "at once, and that attempt was not counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_error_holds_a_text_or_the_key() {
    let rig = Rig::new(quick()).await;
    let openai = EmbeddingsStandIn::start().await.unwrap();
    for mode in [EmbeddingsMode::Status(400), EmbeddingsMode::Status(500), EmbeddingsMode::Garbage] {
        openai.set(mode);
        let error: EmbedError =
            server(&rig, &openai.url(), "m1").embed(&["the PIN is 1234".into()]).await.unwrap_err();
        assert!(!error.to_string().contains("1234") && !format!("{error:?}").contains(KEY), "{error:?}");
    }
}
