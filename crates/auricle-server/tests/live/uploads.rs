//! Files: transcribed at once in OpenAI's shape, or taken and made into conversations.

use auricle_audio::{Codec, Encoder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::rig::{PATIENCE, Rig, eventually, texts_of};

const BOUNDARY: &str = "a-boundary-of-this-test";

/// `secs` of 16 kHz PCM that nobody recorded twice.
pub(crate) fn wav(secs: u32, salt: u8) -> Vec<u8> {
    let samples = 16_000 * secs;
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + samples * 2).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    bytes.extend(16_000_u32.to_le_bytes());
    bytes.extend(32_000_u32.to_le_bytes());
    bytes.extend(b"\x02\0\x10\0data");
    bytes.extend((samples * 2).to_le_bytes());
    bytes.extend((0..samples).flat_map(|_| [salt, 0]));
    bytes
}

/// A device's recording: a tone that differs with `salt`.
fn frames(secs: u32, salt: u32) -> Vec<u8> {
    let mut encoder = Encoder::new(Codec::OpusFs320, 16_000).unwrap();
    let step = f64::from(200 + 100 * salt) * std::f64::consts::TAU / 16_000.0;
    let tone: Vec<i16> = (0..16_000 * secs).map(|n| (8_000.0 * (f64::from(n) * step).sin()) as i16).collect();
    let packets = encoder.encode_all(&tone).unwrap();
    packets.iter().flat_map(|packet| [&(packet.len() as u32).to_le_bytes()[..], packet].concat()).collect()
}

fn form(parts: &[(&str, Option<&str>, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file, value) in parts {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        body.extend(
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n")
                .as_bytes(),
        );
        body.extend(*value);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

async fn post(rig: &Rig, path: &str, kind: &str, body: Vec<u8>) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.post(format!("http://{}{path}", rig.public())).header("content-type", kind);
    let answer = request.body(body).timeout(PATIENCE).send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

async fn post_form(rig: &Rig, path: &str, parts: &[(&str, Option<&str>, &[u8])]) -> (u16, Value) {
    post(rig, path, &format!("multipart/form-data; boundary={BOUNDARY}"), form(parts)).await
}

pub(crate) async fn upload(rig: &Rig, name: &str, body: Vec<u8>) -> Value {
    let path = format!("/v1/uploads?name={name}");
    let (status, upload) = post(rig, &path, "application/octet-stream", body).await;
    assert_eq!(status, 202, "{upload}");
    upload
}

pub(crate) async fn ended(rig: &Rig, upload: &Value) -> Value {
    let path = format!("/v1/uploads/{}", upload["id"].as_str().unwrap());
    eventually("the upload ends", async || {
        let (_, found) = rig.get(&path).await;
        matches!(found["status"].as_str(), Some("done" | "failed")).then_some(found)
    })
    .await
}

/// Files in the folder of uploads.
fn files(rig: &Rig) -> Vec<std::path::PathBuf> {
    let Ok(folders) = std::fs::read_dir(rig.data().join("uploads")) else { return Vec::new() };
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).collect()
}

async fn no_files(rig: &Rig) {
    eventually("the files are gone", async || files(rig).is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_file_is_transcribed_in_every_form_and_not_kept() {
    let rig = Rig::start(&[]).await;
    let path = "/v1/audio/transcriptions";
    let audio = wav(5, 1);
    let file = ("file", Some("a.wav"), audio.as_slice());
    let (status, body) = post_form(&rig, path, &[file, ("model", None, b"whisper-1")]).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["text"], "Please send the report before Friday. I will send it tomorrow morning.");
    assert_eq!(body["usage"], json!({ "type": "duration", "seconds": 5 }));
    let verbose = [
        file,
        ("response_format", None, b"verbose_json".as_slice()),
        ("timestamp_granularities[]", None, b"word"),
        ("timestamp_granularities[]", None, b"segment"),
    ];
    let (_, body) = post_form(&rig, path, &verbose).await;
    assert_eq!((&body["task"], &body["duration"]), (&json!("transcribe"), &json!(5.0)));
    assert_eq!(
        (body["segments"].as_array().unwrap().len(), body["words"].as_array().unwrap().len()),
        (2, 12)
    );
    for (form, word) in [("text", "Please"), ("srt", "00:00:00,200 -->"), ("vtt", "WEBVTT")] {
        let (status, body) = post_form(&rig, path, &[file, ("response_format", None, form.as_bytes())]).await;
        assert_eq!(status, 200);
        assert!(body.as_str().unwrap().contains(word), "{body}");
    }
    assert_eq!(rig.get("/v1/conversations").await, (200, json!([])));
    no_files(&rig).await;
}

#[tokio::test]
async fn bad_forms_are_refused_in_openais_shape() {
    let rig = Rig::start(&[("limits.upload_bytes_max", "1MiB")]).await;
    let path = "/v1/audio/transcriptions";
    let audio = wav(1, 1);
    let file = ("file", Some("a.wav"), audio.as_slice());
    for (parts, status, param) in [
        (vec![("model", None, b"x".as_slice())], 400, json!("file")),
        (vec![("file", Some("a.wav"), b"no audio at all".as_slice())], 400, json!("file")),
        (vec![("file", Some("a.wav"), b"".as_slice())], 400, json!("file")),
        (vec![("file", None, b"without a name".as_slice())], 400, json!("file")),
        (vec![file, ("response_format", None, b"poem")], 400, json!("response_format")),
        (vec![file, ("timestamp_granularities[]", None, b"year")], 400, json!("timestamp_granularities")),
        (vec![("file", Some("a.wav"), &[0; 2 << 20])], 413, Value::Null),
        (vec![file, file], 413, Value::Null),
        (vec![("prompt", None, &[b'a'; 20_000])], 413, Value::Null),
    ] {
        let (code, body) = post_form(&rig, path, &parts).await;
        assert_eq!(code, status, "{body}");
        assert_eq!(body["error"]["param"], param, "{body}");
        assert!(body["error"]["message"].as_str().is_some_and(|text| text.len() > 10), "{body}");
    }
    let whole = form(&[file]);
    for (kind, body) in [
        ("application/json", br#"{"file":7}"#.to_vec()),
        ("multipart/form-data", whole.clone()),
        ("multipart/form-data; boundary=another", whole.clone()),
        (&*format!("multipart/form-data; boundary={BOUNDARY}"), whole[..whole.len() / 2].to_vec()),
        (&*format!("multipart/form-data; boundary={BOUNDARY}"), vec![0xff; 5_000]),
        (&*format!("multipart/form-data; boundary={BOUNDARY}"), Vec::new()),
    ] {
        let (status, body) = post(&rig, path, kind, body).await;
        assert_eq!(status, 400, "{kind}: {body}");
        assert!(body["error"]["type"] == "invalid_request_error", "{body}");
    }
    no_files(&rig).await;
    rig.still_serves().await;
}

/// A request whose body is only begun.
async fn begun(rig: &Rig, path: &str) -> tokio::net::TcpStream {
    let mut socket = tokio::net::TcpStream::connect(rig.public()).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: 100000\r\n\r\n\
         --{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF",
        rig.public()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket
}

#[tokio::test]
async fn too_many_files_at_once_are_told_to_come_back_and_who_leaves_frees_a_place() {
    let rig =
        Rig::start(&[("limits.transcriptions_running_max", "1"), ("limits.uploads_receiving_max", "1")])
            .await;
    for path in ["/v1/audio/transcriptions", "/v1/uploads"] {
        let audio = wav(1, 1);
        let parts = [("file", Some("a.wav"), audio.as_slice())];
        let socket = eventually("the place is taken", async || {
            // Refused itself if the last question still held the place: then it is begun anew.
            let socket = begun(&rig, path).await;
            (post_form(&rig, path, &parts).await.0 == 429).then_some(socket)
        })
        .await;
        drop(socket);
        eventually("the place is free", async || (post_form(&rig, path, &parts).await.0 < 300).then_some(()))
            .await;
    }
    no_files(&rig).await;
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up_and_leaves_nothing() {
    let rig = Rig::start(&[("limits.upload_stall_max", "200ms")]).await;
    for path in ["/v1/audio/transcriptions", "/v1/uploads", "/v2/sync-local-files"] {
        let mut socket = begun(&rig, path).await;
        let mut answer = vec![0; 12];
        tokio::time::timeout(PATIENCE, socket.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer, b"HTTP/1.1 408", "{path}");
    }
    no_files(&rig).await;
}

#[tokio::test]
async fn an_upload_becomes_a_conversation_with_its_own_time_and_once() {
    let rig = Rig::start(&[]).await;
    let first = upload(&rig, "talk.wav&recorded_at=2026-01-02T03:04:05Z&source=phone", wav(5, 1)).await;
    assert_eq!(
        (&first["status"], &first["recorded_at"]),
        (&json!("queued"), &json!("2026-01-02T03:04:05.000000Z"))
    );
    let done = ended(&rig, &first).await;
    assert_eq!((&done["status"], &done["audio_secs"]), (&json!("done"), &json!(5.0)), "{done}");
    let id = done["conversations"][0].as_str().unwrap();
    let conversation = rig.conversation_when(id, "completed").await;
    assert_eq!(conversation["started_at"], "2026-01-02T03:04:05.200000Z");
    assert_eq!(conversation["source"], "phone");
    assert!(texts_of(&conversation).contains("report before Friday"));
    let again = upload(&rig, "another-name.wav", wav(5, 1)).await;
    assert_eq!((&again["id"], &again["status"]), (&first["id"], &json!("done")));
    no_files(&rig).await;
    let (_, listed) = rig.get("/v1/uploads").await;
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(rig.get("/v1/conversations").await.1.as_array().unwrap().len(), 1);
    assert_eq!(rig.get("/v1/jobs").await.1.as_array().unwrap().len(), 1, "its effects happen once");
    assert_eq!(rig.delete(&format!("/v1/uploads/{}", first["id"].as_str().unwrap())).await, 204);
    assert_eq!(rig.get(&format!("/v1/conversations/{id}")).await.0, 200);
}

#[tokio::test]
async fn a_devices_recordings_become_one_conversation_where_they_follow_each_other() {
    let rig = Rig::start(&[]).await;
    let name = |at: u32| format!("audio_omi_opus_fs320_16000_1_fs320_{at}.bin");
    let (one, two, far) = (name(1_767_225_600), name(1_767_225_660), name(1_767_235_600));
    let (a, b, c) = (frames(5, 1), frames(5, 2), frames(5, 3));
    let parts = [("files", Some(&*two), &*b), ("files", Some(&*one), &*a), ("files", Some(&*far), &*c)];
    let (status, accepted) = post_form(&rig, "/v2/sync-local-files", &parts).await;
    assert_eq!((status, &accepted["status"], &accepted["total_files"]), (202, &json!("queued"), &json!(3)));
    let path = format!("/v2/sync-local-files/{}", accepted["job_id"].as_str().unwrap());
    let done = eventually("the files are transcribed", async || {
        let (_, job) = rig.get(&path).await;
        (job["status"] == "completed").then_some(job)
    })
    .await;
    assert_eq!((&done["processed_segments"], &done["failed_segments"]), (&json!(3), &json!(0)));
    let made = done["result"]["new_memories"].as_array().unwrap();
    assert_eq!(made.len(), 2, "{done}");
    let mut starts = Vec::new();
    for id in made {
        let conversation = rig.conversation_when(id.as_str().unwrap(), "completed").await;
        starts.push((
            conversation["started_at"].as_str().unwrap().to_owned(),
            conversation["transcript_segments"].as_array().unwrap().len(),
        ));
    }
    starts.sort();
    assert_eq!(
        starts,
        [("2026-01-01T00:00:00.200000Z".to_owned(), 4), ("2026-01-01T02:46:40.200000Z".to_owned(), 2)]
    );
    // Again: the same files, nothing new.
    let (_, again) = post_form(&rig, "/v1/sync-local-files", &parts).await;
    let path = format!("/v2/sync-local-files/{}", again["job_id"].as_str().unwrap());
    assert_eq!(rig.get(&path).await.1["result"]["new_memories"], json!(made));
    assert_eq!(rig.get("/v1/conversations").await.1.as_array().unwrap().len(), 2);
    for name in ["a.wav", "audio.bin", "audio_1.bin", "audio_99999999999.bin"] {
        let (status, body) = post_form(&rig, "/v2/sync-local-files", &[("files", Some(name), &*a)]).await;
        assert_eq!(status, 400, "{name}: {body}");
    }
    assert_eq!(rig.get("/v2/sync-local-files/nonsense").await.0, 404);
    no_files(&rig).await;
}

#[tokio::test]
async fn a_damaged_file_fails_with_its_reason_and_is_kept_until_it_is_deleted() {
    let rig = Rig::start(&[]).await;
    let mut damaged = frames(1, 1);
    let at = damaged.len();
    damaged.extend(4_000_000_000_u32.to_le_bytes());
    let name = "audio_omi_opus_fs320_16000_1_fs320_1767225600.bin";
    for (name, body, word) in [
        (name, damaged, format!("byte {at}")),
        ("x.mp3", b"this is no audio, however it is named".to_vec(), "can be read here".to_owned()),
    ] {
        let sent = upload(&rig, name, body).await;
        let failed = ended(&rig, &sent).await;
        assert_eq!(failed["status"], "failed", "{failed}");
        assert!(failed["error"].as_str().unwrap().contains(&word), "{failed}");
        assert_eq!(files(&rig).len(), 1);
        let path = format!("/v1/uploads/{}", failed["id"].as_str().unwrap());
        assert_eq!(rig.post(&format!("{path}/retry")).await.0, 200);
        assert_eq!(ended(&rig, &failed).await["status"], "failed");
        assert_eq!(rig.delete(&path).await, 204);
        assert_eq!((rig.delete(&path).await, rig.get(&path).await.0), (404, 404));
        no_files(&rig).await;
    }
    assert_eq!(rig.get("/v1/conversations").await, (200, json!([])));
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_leaves_nothing() {
    let rig = Rig::start(&[
        ("limits.uploads_disk_bytes_max", "100KiB"),
        ("limits.upload_bytes_max", "1MiB"),
        ("limits.upload_files_max", "2"),
    ])
    .await;
    let binary = "application/octet-stream";
    let (status, body) = post(&rig, "/v1/uploads", binary, wav(10, 1)).await;
    assert_eq!(status, 507, "{body}");
    assert!(body["detail"].as_str().unwrap().contains("102400"), "{body}");
    assert_eq!(post(&rig, "/v1/uploads", binary, Vec::new()).await.0, 422);
    assert_eq!(post(&rig, "/v1/uploads?recorded_at=soon", binary, vec![1]).await.0, 422);
    assert_eq!(post(&rig, "/v1/uploads?recorded_at=2999-01-01T00:00:00Z", binary, vec![1]).await.0, 422);
    assert_eq!(post(&rig, "/v1/uploads?name=a.bin", binary, vec![1]).await.0, 422);
    let three = [("files", Some("a_1767225600.bin"), b"x".as_slice()); 3];
    assert_eq!(post_form(&rig, "/v2/sync-local-files", &three).await.0, 413);
    no_files(&rig).await;
    assert_eq!(rig.get("/v1/uploads").await, (200, json!([])));
    rig.still_serves().await;
}

#[tokio::test]
async fn a_hundred_megabytes_of_garbage_are_taken_to_the_limit_and_no_further() {
    let rig = Rig::start(&[("limits.upload_bytes_max", "8MiB")]).await;
    let garbage: Vec<u8> = (0..100 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for path in ["/v1/uploads", "/v1/conversations/search"] {
        let sent = client.post(format!("http://{}{path}", rig.public())).body(garbage.clone());
        // The server may close before the rest is sent, which a client may see instead of the answer.
        if let Ok(answer) = sent.timeout(PATIENCE).send().await {
            assert_eq!(answer.status(), 413, "{path}");
        }
    }
    no_files(&rig).await;
    rig.still_serves().await;
}

#[tokio::test]
async fn uploads_wait_for_an_engine_that_is_away_and_outlive_a_restart_sealed() {
    let key = "5a".repeat(32);
    let dir = std::sync::Arc::new(tempfile::TempDir::new().unwrap());
    let settings = [("speech.engine", "none"), ("protection.key", key.as_str())];
    let mut rig = Rig::start_as(auricle_server::config::Shape::Embedded, dir.clone(), &settings).await;
    let sent = upload(&rig, "talk.wav&recorded_at=2026-01-02T03:04:05Z", wav(3, 42)).await;
    let path = format!("/v1/uploads/{}", sent["id"].as_str().unwrap());
    eventually("it is tried", async || rig.get(&path).await.1["error"].is_string().then_some(())).await;
    assert_eq!(rig.get(&path).await.1["status"], "queued", "nothing is lost while there is no engine");
    let stored = std::fs::read(&files(&rig)[0]).unwrap();
    assert!(!stored.windows(64).any(|part| part.iter().all(|byte| *byte == 42 || *byte == 0)));
    rig.stop().await;
    drop(rig);
    let settings = [("protection.key", key.as_str())];
    let rig = Rig::start_as(auricle_server::config::Shape::Embedded, dir, &settings).await;
    let done = ended(&rig, &sent).await;
    assert_eq!(done["status"], "done", "{done}");
    rig.conversation_when(done["conversations"][0].as_str().unwrap(), "completed").await;
    no_files(&rig).await;
}

#[tokio::test]
async fn uploads_are_their_users_own_and_go_with_them() {
    let key = "a-key-of-at-least-some-length:";
    let rig = Rig::start(&[("auth.admin_key", key), ("speech.engine", "none")]).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let as_user = |user: &str, method: reqwest::Method, path: &str| {
        let request = client.request(method, format!("http://{}{path}", rig.public()));
        request.bearer_auth(format!("{key}{user}")).timeout(PATIENCE)
    };
    use reqwest::Method;
    let sent = as_user("ann", Method::POST, "/v1/uploads").body(wav(1, 1)).send().await.unwrap();
    let sent: Value = serde_json::from_str(&sent.text().await.unwrap()).unwrap();
    let path = format!("/v1/uploads/{}", sent["id"].as_str().unwrap());
    for method in [Method::GET, Method::DELETE] {
        let answer = as_user("bob", method, &path).send().await.unwrap();
        assert_eq!(answer.status(), 404);
    }
    let same = as_user("bob", Method::POST, "/v1/uploads").body(wav(1, 1)).send().await.unwrap();
    let same: Value = serde_json::from_str(&same.text().await.unwrap()).unwrap();
    assert_ne!(same["id"], sent["id"], "the same file of another is another upload");
    assert_eq!(files(&rig).len(), 2);
    assert!(
        as_user("ann", Method::DELETE, "/v1/users/me?confirm=ann")
            .send()
            .await
            .unwrap()
            .status()
            .is_success()
    );
    eventually("ann's file is gone", async || (files(&rig).len() == 1).then_some(())).await;
    eventually("ann is gone", async || {
        let answer = as_user("ann", Method::GET, &path).send().await.unwrap();
        (answer.status() == 404).then_some(())
    })
    .await;
}
