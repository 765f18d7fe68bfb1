//! Asking to hear a conversation again, its revisions, and what is deleted with it.

use serde_json::{Value, json};

use crate::rest::rig::Rig;

fn of(id: &impl std::fmt::Display, rest: &str) -> String {
    format!("/v1/conversations/{id}{rest}")
}

#[tokio::test]
async fn what_cannot_be_heard_again_says_why() {
    let rig = Rig::new().await;
    let done = rig.completed("ana", "The zebra", &["A zebra ran by."]).await;
    let ask = async |user: &str, id: &dyn std::fmt::Display, body| {
        let (status, answer) = rig.post(user, &format!("/v1/conversations/{id}/retranscribe"), body).await;
        (status, answer["detail"].as_str().unwrap_or_default().to_owned())
    };
    let (status, detail) = ask("ana", &done, None).await;
    assert!(status == 404 && detail.contains("audio.keep"), "{status} {detail}");
    rig.keep_audio("ana", &done);
    let (status, detail) = ask("ana", &done, Some(json!({ "engine": "whisker" }))).await;
    assert!(status == 422 && detail.contains("scripted, scripted_spare"), "{status} {detail}");
    assert_eq!(ask("eve", &done, None).await, (404, "Conversation not found".into()), "another's is none");
    let open = rig.heard("ana", &["Still going."]).await;
    rig.keep_audio("ana", &open);
    let (status, detail) = ask("ana", &open, None).await;
    assert!(status == 409 && detail.contains("in progress"), "{status} {detail}");
    let ended = rig.ended("ana", &["It ended."]).await;
    let (status, detail) = ask("ana", &ended, None).await;
    assert!(status == 409 && detail.contains("processed"), "{status} {detail}");
    assert_eq!(rig.get("ana", &of(&done, "/retranscribe")).await.0, 404, "nobody asked yet");
    let (status, work) = rig.post("ana", &of(&done, "/retranscribe"), None).await;
    assert_eq!((status, &work["engine"], &work["status"]), (202, &json!("scripted"), &json!("queued")));
    let (status, again) = rig.post("ana", &of(&done, "/retranscribe"), None).await;
    assert_eq!((status, &again["id"]), (202, &work["id"]), "the same work");
    let (status, detail) = ask("ana", &done, Some(json!({ "engine": "scripted_spare" }))).await;
    assert!(status == 409 && detail.contains("another engine"), "{status} {detail}");
    assert_eq!(rig.get("eve", &of(&done, "/retranscribe")).await.0, 404);
}

#[tokio::test]
async fn revisions_are_listed_and_read_and_exported_and_go_with_the_conversation() {
    let rig = Rig::new().await;
    let id = rig.completed("ana", "The heron", &["A grey heron.", "Far away."]).await;
    let (_, all) = rig.get("ana", &of(&id, "/revisions")).await;
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
    rig.keep_audio("ana", &id);
    let asked = json!({ "engine": "scripted_spare" });
    assert_eq!(rig.post("ana", &of(&id, "/retranscribe"), Some(asked)).await.0, 202);
    rig.hear_again("ana", &id, "A great egret.").await;
    let (_, work) = rig.get("ana", &of(&id, "/retranscribe")).await;
    assert_eq!((&work["status"], &work["revision"]), (&json!("done"), &json!(2)));
    rig.process_next_job("The egret").await.unwrap();
    let (_, all) = rig.get("ana", &of(&id, "/revisions")).await;
    let shown =
        |value: &Value| (value["revision"].clone(), value["current"].clone(), value["segments"].clone());
    assert_eq!(shown(&all[0]), (json!(2), json!(true), json!(2)));
    assert_eq!(shown(&all[1]), (json!(1), json!(false), json!(2)));
    assert_eq!(all[0]["engines"], json!(["scripted", "scripted_spare"]));
    let texts = async |number: u32| {
        let (_, revision) = rig.get("ana", &of(&id, &format!("/revisions/{number}"))).await;
        let segments = revision["transcript_segments"].as_array().unwrap().clone();
        let texts: Vec<_> = segments.iter().map(|each| each["text"].as_str().unwrap().to_owned()).collect();
        (revision["title"].as_str().unwrap().to_owned(), texts.join(" "))
    };
    assert_eq!(texts(1).await, ("The heron".into(), "A grey heron. Far away.".into()));
    assert_eq!(texts(2).await, ("The egret".into(), "A great egret. Far away.".into()));
    for path in ["/revisions/3", "/revisions/x", "/revisions/-1"] {
        assert_eq!(rig.get("ana", &of(&id, path)).await.0, 404, "{path}");
    }
    for path in ["/revisions", "/revisions/1"] {
        assert_eq!(rig.get("eve", &of(&id, path)).await.0, 404, "{path}");
    }
    let files = crate::export::exported(&rig, "ana").await;
    assert!(files[&format!("conversations/{id}.revision-1.json")].contains("A grey heron."));
    let audio: Value = serde_json::from_str(&files["audio.json"]).unwrap();
    assert_eq!(audio[0]["conversation_id"], id.as_str());
    assert!(audio[0]["frames_bytes"].as_u64().unwrap() > 32_000, "{audio}");
    // What is deleted is deleted with its audio, at once.
    assert_eq!(rig.call("ana", "DELETE", &of(&id, ""), None).await.0, 204);
    assert_eq!((rig.kept.bytes(), rig.kept.conversations().unwrap().len()), (0, 0));
    assert_eq!(rig.get("ana", &of(&id, "/revisions/1")).await.0, 404);
    assert_eq!(rig.get("ana", &of(&id, "/retranscribe")).await.0, 404);
}

#[tokio::test]
async fn hearing_again_is_a_job_that_is_listed_shown_and_revived() {
    let rig = Rig::new().await;
    let id = rig.completed("ana", "The heron", &["A grey heron."]).await;
    rig.keep_audio("ana", &id);
    let (_, work) = rig.post("ana", &of(&id, "/retranscribe"), None).await;
    let (_, jobs) = rig.get("ana", "/v1/jobs").await;
    let kinds: Vec<_> = jobs.as_array().unwrap().iter().map(|job| job["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["retranscription", "record"]);
    let (job, path) = (&jobs[0], format!("/v1/jobs/{}", work["id"].as_str().unwrap()));
    assert_eq!(
        (&job["id"], &job["conversation_id"], &job["state"]),
        (&work["id"], &json!(id.as_str()), &json!("queued"))
    );
    assert_eq!(
        (&job["engine"], &job["attempts_max"], &job["revision"]),
        (&json!("scripted"), &json!(5), &json!(0))
    );
    assert_eq!(rig.get("ana", &path).await, (200, job.clone()));
    for (state, count) in [("queued", 1), ("completed", 1), ("failed", 0), ("leased", 0)] {
        let (_, jobs) = rig.get("ana", &format!("/v1/jobs?state={state}")).await;
        assert_eq!(jobs.as_array().map(Vec::len), Some(count), "{state}");
    }
    assert_eq!(rig.get("ana", "/v1/jobs?limit=1").await.1, json!([job]));
    assert_eq!(rig.post("ana", &format!("{path}/retry"), None).await.0, 409, "it has not failed");
    rig.fail_hearing().await;
    let (_, failed) = rig.get("ana", "/v1/jobs?state=failed").await;
    assert_eq!((&failed[0]["id"], &failed[0]["last_error"]), (&work["id"], &json!("nothing was heard")));
    assert_eq!((rig.get("eve", &path).await.0, rig.get("eve", "/v1/jobs").await.1), (404, json!([])));
    assert_eq!(rig.post("eve", &format!("{path}/retry"), None).await.0, 404);
    assert_eq!(rig.post("ana", "/v1/jobs/retry", None).await.1["revived"], 0, "only those that make records");
    let (status, job) = rig.post("ana", &format!("{path}/retry"), None).await;
    assert_eq!((status, &job["state"], &job["attempts"]), (200, &json!("queued"), &json!(0)));
    rig.hear_again("ana", &id, "A great egret.").await;
    let (_, done) = rig.get("ana", &path).await;
    assert_eq!((&done["state"], &done["revision"]), (&json!("completed"), &json!(2)));
    // The job that makes the new record is another one.
    assert_eq!(rig.get("ana", "/v1/jobs?state=queued").await.1[0]["reason"], "retranscribe");
}
