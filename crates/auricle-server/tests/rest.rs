//! The REST interface on a real store: what each route does, who may see what, and that the OpenAPI document is true.

#![allow(clippy::unwrap_used, reason = "what a test stands on must hold")]

mod rest {
    pub(crate) mod rig;
    pub(crate) mod schema;
}

#[path = "rest/document.rs"]
mod document;
#[path = "rest/export.rs"]
mod export;
#[path = "rest/input.rs"]
mod input;
#[path = "rest/people.rs"]
mod people;
#[path = "rest/privacy.rs"]
mod privacy;
#[path = "rest/records.rs"]
mod records;
#[path = "rest/retranscribe.rs"]
mod retranscribe;
#[path = "rest/searching.rs"]
mod searching;
#[path = "rest/webhooks.rs"]
mod webhooks;

use std::sync::atomic::Ordering;
use std::time::Duration;

use auricle_core::session::Ended;
use auricle_core::{ConversationStatus, Revision};
use serde_json::json;

use self::rest::rig::{Rig, settle};

#[tokio::test]
async fn a_finalised_conversation_is_answered_with_its_record() {
    let rig = Rig::new().await;
    let id = rig.heard("ana", &["We meet on Monday."]).await;
    rig.left("ana", &id).await;
    let worker = rig.process_next_job("The plan");
    let (status, body) = rig.post("ana", "/v1/conversations", None).await;
    worker.await.unwrap();
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["memory"]["id"], id.as_str());
    assert_eq!(body["memory"]["status"], "completed");
    assert_eq!(body["memory"]["structured"]["title"], "The plan");
    assert_eq!(body["memory"]["finalization_reason"], "requested");
    assert_eq!(body["memory"]["transcript_segments"][0]["text"], "We meet on Monday.");
    assert_eq!(body["messages"], json!([]));
    assert_eq!(rig.wakes.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_record_that_takes_long_is_answered_as_processing_and_stays() {
    let rig = Rig::with_limits(|limits| limits.record_wait = Duration::from_millis(200)).await;
    let id = rig.heard("ana", &["Hello."]).await;
    rig.left("ana", &id).await;
    let (status, body) =
        rig.post("ana", "/v1/conversations", Some(json!({ "conversation_id": id.as_str() }))).await;
    assert_eq!((status, body["memory"]["status"].as_str()), (200, Some("processing")));
    assert_eq!(rig.read("ana", &id).await["status"], "processing");
    // Asked again it is not ended twice.
    let (status, body) = rig.post("ana", &format!("/v1/conversations?conversation_id={id}"), None).await;
    assert_eq!((status, body["memory"]["revision"].as_u64()), (200, Some(1)));
    assert_eq!(rig.get("ana", "/v1/jobs").await.1.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_session_that_hears_a_conversation_is_asked_to_end_it() {
    let rig = Rig::with_limits(|limits| limits.record_wait = Duration::from_millis(100)).await;
    let id = rig.heard("ana", &["Hello."]).await;
    rig.live.owns(&id, Ended::Queued { conversation: id.clone(), revision: Revision(1) });
    let (status, _) = rig.post("ana", "/v1/conversations", None).await;
    assert_eq!((status, rig.live.asked()), (200, 1));
    rig.live.owns(&id, Ended::DeletedEmpty);
    let (status, body) = rig.post("ana", "/v1/conversations", None).await;
    assert_eq!((status, body["detail"].as_str()), (404, Some("The conversation was empty and is gone")));
}

#[tokio::test]
async fn a_conversation_that_another_process_hears_is_left_alone() {
    let rig = Rig::new().await;
    let id = rig.heard("ana", &["Hello."]).await;
    let (status, body) = rig.post("ana", "/v1/conversations", None).await;
    assert_eq!(status, 409, "{body}");
    assert_eq!(rig.read("ana", &id).await["status"], "in_progress");
}

#[tokio::test]
async fn with_nothing_in_progress_there_is_nothing_to_finalise() {
    let rig = Rig::new().await;
    let (status, body) = rig.post("ana", "/v1/conversations", None).await;
    assert_eq!((status, body["detail"].as_str()), (404, Some("No conversation is in progress")));
    let empty = rig.heard("ana", &[]).await;
    rig.left("ana", &empty).await;
    assert_eq!(rig.post("ana", "/v1/conversations", None).await.0, 404);
    assert_eq!(rig.get("ana", &format!("/v1/conversations/{empty}")).await.0, 404, "an empty one is gone");
}

#[tokio::test]
async fn a_listing_is_newest_first_in_pages_and_by_status() {
    let rig = Rig::new().await;
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(rig.completed("ana", &format!("Talk {n}"), &["Words."]).await);
        settle().await;
    }
    let open = rig.heard("ana", &["More words."]).await;
    let listed = async |query: &str| -> Vec<String> {
        let (status, body) = rig.get("ana", &format!("/v1/conversations{query}")).await;
        assert_eq!(status, 200, "{body}");
        body.as_array().unwrap().iter().map(|c| c["id"].as_str().unwrap().to_owned()).collect()
    };
    let newest_first: Vec<_> =
        [&open, &ids[2], &ids[1], &ids[0]].iter().map(|id| id.as_str().to_owned()).collect();
    assert_eq!(listed("").await, newest_first);
    assert_eq!(listed("?limit=2&offset=1").await, newest_first[1..3]);
    assert_eq!(listed("?statuses=completed").await, newest_first[1..]);
    assert_eq!(listed("?statuses=in_progress,processing").await, newest_first[..1]);
    assert_eq!(listed("?limit=1&offset=4").await, Vec::<String>::new());
}

#[tokio::test]
async fn what_was_set_aside_is_listed_unless_it_is_not_wanted() {
    let rig = Rig::new().await;
    let id = rig.completed("ana", "", &["Um."]).await;
    let (_, body) = rig.get("ana", "/v1/conversations").await;
    assert_eq!((body[0]["id"].as_str(), body[0]["discarded"].as_bool()), (Some(id.as_str()), Some(true)));
    assert_eq!(rig.get("ana", "/v1/conversations?include_discarded=false").await.1, json!([]));
    assert_eq!(rig.read("ana", &id).await["discard_reason"], "trivial");
}

#[tokio::test]
async fn a_title_of_the_users_own_stays() {
    let rig = Rig::new().await;
    let id = rig.completed("ana", "Made", &["Words."]).await;
    let path = format!("/v1/conversations/{id}/title");
    let omi = rig.call("ana", "PATCH", &format!("{path}?title=Mine%20%C3%A9"), None).await;
    assert_eq!(omi, (200, json!({ "status": "Ok" })));
    assert_eq!(rig.read("ana", &id).await["structured"]["title"], "Mine é");
    assert_eq!(rig.call("ana", "PATCH", &path, Some(json!({ "title": " Better " }))).await.0, 200);
    assert_eq!(rig.read("ana", &id).await["structured"]["title"], "Better");
    assert_eq!(rig.post("ana", &format!("/v1/conversations/{id}/reprocess"), None).await.0, 200);
    rig.process_next_job("Made again").await.unwrap();
    assert_eq!(rig.read("ana", &id).await["structured"]["title"], "Better");
}

#[tokio::test]
async fn reprocessing_makes_a_new_revision_and_not_two() {
    let rig = Rig::new().await;
    let id = rig.completed("ana", "Made", &["Words."]).await;
    let path = format!("/v1/conversations/{id}/reprocess");
    let (status, body) = rig.post("ana", &path, None).await;
    assert_eq!(
        (status, body["status"].as_str(), body["revision"].as_u64()),
        (200, Some("processing"), Some(2))
    );
    assert_eq!(rig.post("ana", &path, None).await.0, 409);
    rig.process_next_job("Made again").await.unwrap();
    assert_eq!(rig.read("ana", &id).await["structured"]["title"], "Made again");
}

#[tokio::test]
async fn a_deleted_conversation_is_gone_everywhere() {
    let rig = Rig::new().await;
    let id = rig.completed("ana", "The zebra", &["A zebra ran by."]).await;
    let path = format!("/v1/conversations/{id}");
    assert_eq!(rig.call("ana", "DELETE", &path, None).await.0, 204);
    assert_eq!(rig.get("ana", &path).await.0, 404);
    assert_eq!(rig.call("ana", "DELETE", &path, None).await.0, 404);
    assert_eq!(rig.get("ana", "/v1/search?q=zebra").await.1["results"], json!([]));
    assert_eq!(rig.get("ana", "/v1/conversations").await.1, json!([]));
}

#[tokio::test]
async fn a_search_tells_where_the_words_stand() {
    let rig = Rig::new().await;
    let id = rig.completed("ana", "A talk", &["Höhere zebras ran by.", "Nothing here."]).await;
    rig.completed("ana", "Another", &["No animals."]).await;
    let (status, body) = rig.get("ana", "/v1/search?q=zebras").await;
    assert_eq!(status, 200, "{body}");
    let results = body["results"].as_array().unwrap();
    assert_eq!((results.len(), results[0]["conversation"]["id"].as_str()), (1, Some(id.as_str())));
    let snippet = &results[0]["snippets"][0];
    let text: Vec<char> = snippet["text"].as_str().unwrap().chars().collect();
    let at = |n: usize| snippet["highlights"][0][n].as_u64().unwrap() as usize;
    assert_eq!(text[at(0)..at(1)].iter().collect::<String>(), "zebras");
    assert!(!body.to_string().contains("\\u0002") && !body.to_string().contains("\\u0003"));
    assert!(snippet["segment_id"].is_string() && snippet["start"].is_number());
}

#[tokio::test]
async fn omis_search_says_whether_another_page_follows() {
    let rig = Rig::new().await;
    for n in 0..3 {
        rig.completed("ana", &format!("Zebra {n}"), &["A zebra."]).await;
    }
    let page = async |page: u32| {
        let asked = json!({ "query": "zebra", "page": page, "per_page": 2, "include_discarded": true });
        rig.post("ana", "/v1/conversations/search", Some(asked)).await.1
    };
    let (first, second) = (page(1).await, page(2).await);
    assert_eq!((first["items"].as_array().unwrap().len(), first["total_pages"].as_u64()), (2, Some(2)));
    assert_eq!((second["items"].as_array().unwrap().len(), second["total_pages"].as_u64()), (1, Some(2)));
    assert_eq!((second["current_page"].as_u64(), second["per_page"].as_u64()), (Some(2), Some(2)));
}

#[tokio::test]
async fn all_failed_jobs_and_effects_are_revived_at_once() {
    let rig = Rig::new().await;
    for user in ["ana", "ana", "eve"] {
        rig.ended(user, &["Words."]).await;
        rig.fail_next_job().await;
    }
    assert_eq!(rig.post("bo", "/v1/jobs/retry", None).await, (200, json!({ "revived": 0 })));
    assert_eq!(rig.post("ana", "/v1/jobs/retry", None).await, (200, json!({ "revived": 2 })));
    assert_eq!(rig.get("ana", "/v1/jobs?state=failed").await.1, json!([]));
    assert_eq!(rig.get("eve", "/v1/jobs?state=failed").await.1.as_array().unwrap().len(), 1);
    assert_eq!(rig.post("ana", "/v1/jobs/retry?everybody=true", None).await, (200, json!({ "revived": 1 })));
    for path in ["/v1/effects/retry", "/v1/effects/retry?everybody=true"] {
        assert_eq!(rig.post("ana", path, None).await, (200, json!({ "revived": 0 })));
    }
}

#[tokio::test]
async fn a_failed_job_is_seen_and_revived() {
    let rig = Rig::new().await;
    let id = rig.ended("ana", &["Words."]).await;
    rig.fail_next_job().await;
    let (status, jobs) = rig.get("ana", "/v1/jobs?state=failed").await;
    assert_eq!((status, jobs.as_array().unwrap().len()), (200, 1));
    assert_eq!(
        (jobs[0]["conversation_id"].as_str(), jobs[0]["state"].as_str()),
        (Some(id.as_str()), Some("failed"))
    );
    let job = jobs[0]["id"].as_str().unwrap();
    assert_eq!(rig.read("ana", &id).await["status"], "failed");
    assert_eq!(rig.read("ana", &id).await["failure"], "understand: no provider");

    let (status, revived) = rig.post("ana", &format!("/v1/jobs/{job}/retry"), None).await;
    assert_eq!(
        (status, revived["state"].as_str(), revived["attempts"].as_u64()),
        (200, Some("queued"), Some(0))
    );
    assert_eq!(rig.read("ana", &id).await["status"], ConversationStatus::Processing.as_str());
    assert_eq!(rig.post("ana", &format!("/v1/jobs/{job}/retry"), None).await.0, 409);
    assert_eq!(rig.get("ana", &format!("/v1/jobs/{job}")).await.1["id"], job);
    assert_eq!(rig.get("ana", "/v1/jobs?state=failed").await.1, json!([]));
}

#[tokio::test]
async fn a_user_has_a_time_zone_and_a_language_once_they_are_set() {
    let rig = Rig::new().await;
    let nothing = json!({ "uid": "ana", "time_zone": null, "language": null });
    assert_eq!(rig.get("ana", "/v1/users/me").await, (200, nothing));
    let set =
        rig.call("ana", "PUT", "/v1/users/me/time-zone", Some(json!({ "time_zone": "Europe/Madrid" }))).await;
    assert_eq!(set, (200, json!({ "status": "Ok" })));
    assert_eq!(rig.get("ana", "/v1/users/me").await.1["time_zone"], "Europe/Madrid");
    assert_eq!(rig.get("bea", "/v1/users/me").await.1["time_zone"], json!(null));
    let language = async |code| {
        let body = Some(json!({ "language": code }));
        let status = rig.call("ana", "PUT", "/v1/users/me/language", body).await.0;
        (status, rig.get("ana", "/v1/users/me").await.1["language"].clone())
    };
    assert_eq!(language(json!("pt-BR")).await, (200, json!("pt-BR")));
    assert_eq!(language(json!("spoken words")).await, (422, json!("pt-BR")));
    assert_eq!(language(json!(null)).await, (200, json!(null)));
}

#[tokio::test]
async fn photos_are_read_with_their_images() {
    let rig = Rig::new().await;
    let id = rig.heard("ana", &["Look."]).await;
    rig.photo("ana", &id, "aGVsbG8=").await;
    let (status, photos) = rig.get("ana", &format!("/v1/conversations/{id}/photos")).await;
    assert_eq!((status, photos[0]["base64"].as_str()), (200, Some("aGVsbG8=")));
}
