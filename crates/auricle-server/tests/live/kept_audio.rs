//! Audio that is kept and heard again: another transcript, the old one readable, and nobody told twice.

use std::path::{Path, PathBuf};

use auricle_testkit::WebhookSink;
use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{Device, PATIENCE, Rig, eventually, texts_of};

const ALL: &str = "Please send the report before Friday. I will send it tomorrow morning. Let us meet on Monday at ten. \
                   Monday is fine with me.";

/// A server that keeps audio and has two engines that say what a script says.
async fn keeping(settings: &[(&str, &str)]) -> Rig {
    let mut all = vec![("audio.keep", "30d"), ("speech.engine", "scripted,scripted_spare")];
    all.extend_from_slice(settings);
    Rig::start(&all).await
}

/// Says the whole script and ends the conversation; its id, once it is completed and its audio is kept.
async fn said(rig: &Rig) -> String {
    let mut device = rig.device().await;
    device.speak(13.0).await;
    let id = hung_up(rig, device).await;
    assert!(files_of(rig, "runs", &id).1 > 13 * 32_000);
    id
}

/// Ends the conversation once all of the script was heard; its id, once it is completed and its audio is kept.
async fn hung_up(rig: &Rig, mut device: Device) -> String {
    device.texts_up_to("fine").await;
    let id = device.conversation().await;
    assert_eq!(rig.post("/v1/conversations").await.0, 200);
    device.client.close().await;
    rig.conversation_when(&id, "completed").await;
    all_kept(rig).await;
    id
}

/// Nothing is in the spool any more.
async fn all_kept(rig: &Rig) {
    let spool = rig.data().join("spool");
    eventually("all audio is kept", async || (below(&spool).1 == 0).then_some(())).await;
}

/// Files below a folder, and their bytes.
fn below(folder: &Path) -> (Vec<PathBuf>, u64) {
    let (mut files, mut bytes) = (Vec::new(), 0);
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => folders.push(entry.path()),
                Ok(found) => {
                    bytes += found.len();
                    files.push(entry.path());
                }
                Err(_) => {}
            }
        }
    }
    (files, bytes)
}

fn files_of(rig: &Rig, kind: &str, name: &str) -> (Vec<PathBuf>, u64) {
    let (files, _) = below(&rig.data().join("audio").join(kind));
    let files: Vec<_> = files.into_iter().filter(|file| file.display().to_string().contains(name)).collect();
    let bytes = files.iter().filter_map(|file| file.metadata().ok()).map(|found| found.len()).sum();
    (files, bytes)
}

async fn ask(rig: &Rig, id: &str, engine: &str) -> (u16, Value) {
    rig.call(Method::POST, &format!("/v1/conversations/{id}/retranscribe"), json!({ "engine": engine })).await
}

/// How hearing a conversation again ended.
async fn ended(rig: &Rig, id: &str) -> Value {
    let path = format!("/v1/conversations/{id}/retranscribe");
    eventually("it is heard again", async || {
        let (_, work) = rig.get(&path).await;
        matches!(work["status"].as_str(), Some("done" | "failed")).then_some(work)
    })
    .await
}

fn engines_of(conversation: &Value) -> Vec<String> {
    let segments = conversation["transcript_segments"].as_array().unwrap();
    let mut engines: Vec<_> =
        segments.iter().map(|each| each["stt_provider"].as_str().unwrap_or("none").to_owned()).collect();
    engines.sort();
    engines.dedup();
    engines
}

/// Writes another script for the engines of the next start.
fn script(rig: &Rig, words: &Value) {
    std::fs::write(rig.data().join("../script.json"), words.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_is_heard_again_by_another_engine_and_told_once() {
    let sink = WebhookSink::start().await.unwrap();
    let hook = format!("{}/hook", sink.url());
    let rig = keeping(&[("webhooks.conversation", &hook), ("webhooks.allow_private", "true")]).await;
    let own = json!({ "name": "mine", "url": format!("{}/own", sink.url()), "triggers": ["memory_created"] });
    assert_eq!(rig.call(Method::POST, "/v1/webhooks", own).await.0, 201);
    let id = said(&rig).await;
    tokio::time::timeout(PATIENCE, sink.arrived(2)).await.unwrap();
    let path = format!("/v1/conversations/{id}");
    let title = json!({ "title": "My own title" });
    assert_eq!(rig.call(Method::PATCH, &format!("{path}/title"), title).await.0, 200);
    let (_, before) = rig.get(&path).await;
    assert_eq!((texts_of(&before).as_str(), engines_of(&before)), (ALL, vec!["scripted".to_owned()]));

    let (status, work) = ask(&rig, &id, "scripted_spare").await;
    assert_eq!(status, 202, "{work}");
    let done = ended(&rig, &id).await;
    assert_eq!((&done["status"], &done["revision"]), (&json!("done"), &json!(2)), "{done}");
    assert!(done["heard_secs"].as_f64().unwrap() > 12.5, "{done}");
    let after = rig.conversation_when(&id, "completed").await;
    assert_eq!((texts_of(&after).as_str(), engines_of(&after)), (ALL, vec!["scripted_spare".to_owned()]));
    assert_eq!((&after["revision"], &after["structured"]["title"]), (&json!(2), &json!("My own title")));
    let starts = |conversation: &Value| -> Vec<i64> {
        let segments = conversation["transcript_segments"].as_array().unwrap().iter();
        segments.map(|each| (each["start"].as_f64().unwrap() * 10.0).round() as i64).collect()
    };
    assert_eq!(starts(&after), starts(&before), "everything is where it was said");
    let (_, all) = rig.get(&format!("{path}/revisions")).await;
    assert_eq!((all[0]["revision"].as_u64(), all[1]["revision"].as_u64()), (Some(2), Some(1)), "{all}");
    let (_, old) = rig.get(&format!("{path}/revisions/1")).await;
    assert_eq!((texts_of(&old).as_str(), engines_of(&old)), (ALL, vec!["scripted".to_owned()]));

    // Another conversation's effects come after whatever there could be of the second revision.
    let other = said(&rig).await;
    tokio::time::timeout(PATIENCE, sink.arrived(4)).await.unwrap();
    let keys = sink.keys();
    assert_eq!(keys.len(), 4, "{keys:?}");
    let of = |id: &str| keys.iter().filter(|key| key.contains(id)).count();
    assert_eq!((of(&id), of(&other)), (2, 2), "{keys:?}");
    assert!(keys.iter().all(|key| !key.contains("finalization:2")), "{keys:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_index_follows_and_an_engine_that_hears_nothing_changes_nothing() {
    let mut rig = keeping(&[]).await;
    let id = said(&rig).await;
    let found = async |rig: &Rig, word: &str| {
        let (_, found) = rig.get(&format!("/v1/search?q={word}")).await;
        found["results"].as_array().unwrap().len()
    };
    assert_eq!((found(&rig, "Friday").await, found(&rig, "egret").await), (1, 0));
    script(&rig, &json!([{ "text": "Nobody says this.", "start": 5000.0, "end": 5001.0, "final": true }]));
    rig.restart().await;
    assert_eq!(ask(&rig, &id, "scripted_spare").await.0, 202);
    let failed = ended(&rig, &id).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    assert!(failed["error"].as_str().unwrap().contains("heard nothing"), "{failed}");
    let (_, now) = rig.get(&format!("/v1/conversations/{id}")).await;
    assert_eq!(
        (texts_of(&now).as_str(), &now["status"], &now["revision"]),
        (ALL, &json!("completed"), &json!(1))
    );
    script(&rig, &json!([{ "text": "A great egret stood there.", "start": 3.0, "end": 5.0, "final": true }]));
    rig.restart().await;
    assert_eq!(ask(&rig, &id, "scripted_spare").await.0, 202);
    assert_eq!(ended(&rig, &id).await["status"], "done");
    let now = rig.conversation_when(&id, "completed").await;
    assert_eq!(texts_of(&now), "A great egret stood there.");
    assert_eq!((found(&rig, "Friday").await, found(&rig, "egret").await), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_audio_keep_nothing_is_kept() {
    let rig = Rig::start(&[]).await;
    let mut device = rig.device().await;
    device.speak(13.0).await;
    device.texts_up_to("fine").await;
    let id = device.conversation().await;
    assert_eq!(rig.post("/v1/conversations").await.0, 200);
    device.client.close().await;
    rig.conversation_when(&id, "completed").await;
    let spool = rig.data().join("spool");
    eventually("an empty spool", async || (below(&spool).1 == 0).then_some(())).await;
    assert_eq!(below(&rig.data().join("audio")).1, 0);
    let refused = eventually("nothing is held any more", async || {
        let (status, answer) = ask(&rig, &id, "scripted").await;
        (status == 404).then_some(answer)
    })
    .await;
    assert!(refused["detail"].as_str().unwrap().contains("audio.keep"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_audio_is_heard_again_after_a_restart_and_lies_on_disk_as_no_audio() {
    let key = "5a".repeat(32);
    let mut rig = keeping(&[("protection.key", &key)]).await;
    let id = said(&rig).await;
    let (files, bytes) = files_of(&rig, "runs", &id);
    assert!(bytes > 13 * 32_000);
    for file in &files {
        let bytes = std::fs::read(file).unwrap();
        assert!(!bytes.windows(64).any(|window| window == [1; 64]), "{}", file.display());
    }
    rig.restart().await;
    assert_eq!(ask(&rig, &id, "scripted_spare").await.0, 202);
    assert_eq!(ended(&rig, &id).await["status"], "done");
    let after = rig.conversation_when(&id, "completed").await;
    assert_eq!((texts_of(&after).as_str(), engines_of(&after)), (ALL, vec!["scripted_spare".to_owned()]));
    let (_, old) = rig.get(&format!("/v1/conversations/{id}/revisions/1")).await;
    assert_eq!(texts_of(&old), ALL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uploaded_file_is_kept_heard_again_and_deleted_with_its_conversation() {
    let rig = keeping(&[]).await;
    let upload = crate::uploads::upload(&rig, "talk.wav", crate::uploads::wav(13, 7)).await;
    let done = crate::uploads::ended(&rig, &upload).await;
    let id = done["conversations"][0].as_str().unwrap().to_owned();
    rig.conversation_when(&id, "completed").await;
    let name = upload["id"].as_str().unwrap();
    eventually("the file is kept", async || (files_of(&rig, "uploads", name).1 > 13 * 32_000).then_some(()))
        .await;
    assert_eq!(below(&rig.data().join("uploads")).1, 0, "and in one place");
    assert_eq!(ask(&rig, &id, "scripted_spare").await.0, 202);
    assert_eq!(ended(&rig, &id).await["status"], "done");
    let after = rig.conversation_when(&id, "completed").await;
    assert_eq!((texts_of(&after).as_str(), engines_of(&after)), (ALL, vec!["scripted_spare".to_owned()]));
    assert_eq!(rig.delete(&format!("/v1/conversations/{id}")).await, 204);
    assert_eq!(below(&rig.data().join("audio")).1, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_rotation_runs_and_files_are_brought_to_the_new_key() {
    use std::os::unix::fs::PermissionsExt as _;
    let (old, new) = ("5a".repeat(32), "a5".repeat(32));
    let mut rig = keeping(&[("protection.key", &old)]).await;
    let id = said(&rig).await;
    let upload = crate::uploads::upload(&rig, "talk.wav", crate::uploads::wav(13, 7)).await;
    let done = crate::uploads::ended(&rig, &upload).await;
    let name = upload["id"].as_str().unwrap();
    eventually("the file is kept", async || (files_of(&rig, "uploads", name).1 > 0).then_some(())).await;
    let paths = [id.as_str(), done["conversations"][0].as_str().unwrap()]
        .map(|id| format!("/v1/conversations/{id}/audio?from=-9"));
    let before = [recording(&rig, &paths[0]).await, recording(&rig, &paths[1]).await];
    let folder = rig.data().join("audio");
    let uses = || auricle_store::kept::KeptAudio::key_uses(&folder).unwrap();
    let (old_key, before_bytes) = (uses()[0].key, below(&folder).1);
    assert!(old_key.is_some() && uses().iter().all(|each| each.key == old_key));
    let old_file = rig.data().join("../old.key");
    std::fs::write(&old_file, &old).unwrap();
    std::fs::set_permissions(&old_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    rig.set("protection.key", &new);
    rig.set("protection.old_key_files", &old_file.display().to_string());
    rig.restart().await;
    eventually("nothing is under the old key", async || {
        uses().iter().all(|each| each.key.is_some() && each.key != old_key).then_some(())
    })
    .await;
    assert_eq!(
        uses().iter().map(|each| each.what.as_str()).collect::<Vec<_>>(),
        ["audio.runs", "audio.uploads"]
    );
    assert_eq!([recording(&rig, &paths[0]).await, recording(&rig, &paths[1]).await], before);
    assert_eq!(below(&rig.data().join("audio")).1, before_bytes, "as much as before");
}

/// (level, from, until) of each channel, in milliseconds.
type Levels = Vec<(i16, usize, usize)>;

/// The recording that is kept: its channels, and what is in them.
async fn recording(rig: &Rig, path: &str) -> (String, Vec<Levels>) {
    // What a device left a moment ago may still be repair's.
    let answer = eventually("a recording", async || {
        let answer = reqwest::get(format!("http://{}{path}", rig.public())).await.unwrap();
        (answer.status() != 409).then_some(answer)
    })
    .await;
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    let (kind, ranges, channels) =
        (header("content-type"), header("accept-ranges"), header("auricle-audio-channels"));
    assert_eq!((answer.status().as_u16(), kind.as_str(), ranges.as_str()), (200, "audio/wav", "none"));
    let length = answer.content_length().unwrap();
    let bytes = answer.bytes().await.unwrap();
    assert_eq!(bytes.len() as u64, length);
    let lanes = usize::from(u16::from_le_bytes(bytes[22..24].try_into().unwrap()));
    assert_eq!((&bytes[..4], u32::from_le_bytes(bytes[24..28].try_into().unwrap())), (&b"RIFF"[..], 16_000));
    let mut levels = vec![Levels::new(); lanes];
    for (number, frame) in bytes[44..].chunks_exact(2 * lanes).enumerate() {
        for (lane, sample) in frame.chunks_exact(2).enumerate() {
            let level = i16::from_le_bytes(sample.try_into().unwrap());
            match levels[lane].last_mut() {
                Some(last) if last.0 == level => last.2 = number + 1,
                _ => levels[lane].push((level, number, number + 1)),
            }
        }
    }
    for each in levels.iter_mut().flatten() {
        (each.1, each.2) = (each.1 / 16, each.2.div_ceil(16));
    }
    (channels, levels)
}

/// What [`said`] says.
const SOUND: i16 = 0x0101;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_can_be_heard_at_the_times_of_the_transcript_sealed_or_not() {
    for key in ["", &"5a".repeat(32)] {
        let mut rig = keeping(&[("protection.key", key)]).await;
        let mut device = rig.device().await;
        device.speak(4.0).await;
        device.texts_up_to("tomorrow").await;
        let id = device.conversation().await;
        let path = format!("/v1/conversations/{id}/audio");
        let (status, refused) = rig.get(&path).await;
        assert!(status == 409 && refused["detail"].as_str().unwrap().contains("in progress"), "{refused}");
        assert_eq!(rig.post("/v1/conversations").await.0, 200);
        device.client.close().await;
        rig.conversation_when(&id, "completed").await;
        all_kept(&rig).await;
        rig.restart().await;
        let (channels, levels) = recording(&rig, &path).await;
        // The transcript's zero is the first word, 0.2 s after the first audio.
        assert_eq!((channels.as_str(), levels.as_slice()), ("mono", &[vec![(SOUND, 0, 3_800)]][..]));
        assert_eq!(recording(&rig, &format!("{path}?from=-9")).await.1, [[(SOUND, 0, 4_000)]]);
        let (_, levels) = recording(&rig, &format!("{path}?from=1.5&until=3")).await;
        assert_eq!(levels, [[(SOUND, 0, 1_500)]]);
        assert_eq!(rig.get(&format!("{path}?channel=left")).await.0, 422);
        assert_eq!(rig.delete(&format!("/v1/conversations/{id}")).await, 204);
        assert_eq!(rig.get(&path).await.0, 404);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_comes_back_is_heard_where_it_came_back() {
    let rig = keeping(&[]).await;
    let mut first = rig.device().await;
    first.speak(4.0).await;
    first.texts_up_to("tomorrow").await;
    let id = first.conversation().await;
    first.client.close().await;
    let mut second = rig.device().await;
    assert_eq!(second.conversation().await, id);
    second.speak(2.0).await;
    second.texts_up_to("report").await;
    assert_eq!(rig.post("/v1/conversations").await.0, 200);
    second.client.close().await;
    let now = rig.conversation_when(&id, "completed").await;
    all_kept(&rig).await;
    let (_, levels) = recording(&rig, &format!("/v1/conversations/{id}/audio")).await;
    let segments = now["transcript_segments"].as_array().unwrap();
    let starts: Vec<f64> = segments.iter().map(|each| each["start"].as_f64().unwrap()).collect();
    // Both said the same, 0.2 s after their audio began, and faster than it sounds: the second's two seconds lie over the first's.
    let end = ((starts[1] + 1.8) * 1_000.0).round();
    let said = &levels[0];
    assert_eq!((said.len(), said[0].0, said[1].0), (2, 2 * SOUND, SOUND), "{levels:?}");
    assert!((said[0].2 as f64 - end).abs() <= 10.0, "{levels:?} {starts:?}");
    assert_eq!(said[1].2, 3_800);
}

/// The same through both channels of a call.
async fn called(rig: &Rig) -> String {
    let call = rig.connect().param("channels", 2).param("source", "phone_call");
    let mut device = rig.device_as(call).await;
    for _ in 0..13 * 50 {
        for channel in [1_u8, 2] {
            let frame = [&[channel][..], &[channel; 640]].concat();
            assert!(device.client.send_audio(frame).await);
        }
    }
    hung_up(rig, device).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_channels_can_be_heard_and_are_heard_again_as_whose_they_are() {
    let rig = keeping(&[]).await;
    let id = called(&rig).await;
    let before = rig.conversation_when(&id, "completed").await;
    let path = format!("/v1/conversations/{id}/audio");
    let (channels, levels) = recording(&rig, &path).await;
    assert_eq!((channels.as_str(), levels.len()), ("mic, remote", 2));
    assert_eq!(levels, [[(0x0101, 0, 12_800)], [(0x0202, 0, 12_800)]]);
    let (channels, levels) = recording(&rig, &format!("{path}?channel=remote")).await;
    assert_eq!((channels.as_str(), levels), ("remote", vec![vec![(0x0202, 0, 12_800)]]));
    // Heard again, each channel's words are still its speaker's.
    let said = |conversation: &Value| -> Vec<(bool, String, i64)> {
        let segments = conversation["transcript_segments"].as_array().unwrap().iter();
        let mut said: Vec<_> = segments
            .map(|each| {
                let start = (each["start"].as_f64().unwrap() * 10.0).round() as i64;
                (each["is_user"] == true, each["text"].as_str().unwrap().to_owned(), start)
            })
            .collect();
        said.sort();
        said
    };
    assert_eq!(ask(&rig, &id, "scripted_spare").await.0, 202);
    let done = ended(&rig, &id).await;
    assert_eq!((&done["status"], done["heard_secs"].as_f64()), (&json!("done"), Some(26.0)), "{done}");
    let after = rig.conversation_when(&id, "completed").await;
    assert_eq!(engines_of(&after), ["scripted_spare"]);
    let words = |conversation: &Value, user: bool| -> String {
        said(conversation)
            .into_iter()
            .filter(|each| each.0 == user)
            .map(|each| each.1)
            .collect::<Vec<_>>()
            .join(" ")
    };
    for user in [true, false] {
        let mut both = [words(&before, user), words(&after, user)]
            .map(|text| text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        both.iter_mut().for_each(|words| words.sort());
        assert_eq!(both[0], both[1], "channel of the user: {user}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audio_goes_by_age_once_the_newest_is_too_old() {
    let mut rig = keeping(&[("audio.keep", "2h"), ("limits.audio_sweep_every", "200ms")]).await;
    let (old, half, young) = (said(&rig).await, called(&rig).await, said(&rig).await);
    let upload = crate::uploads::upload(&rig, "talk.wav", crate::uploads::wav(13, 7)).await;
    let done = crate::uploads::ended(&rig, &upload).await;
    let name = upload["id"].as_str().unwrap();
    eventually("the file is kept", async || (files_of(&rig, "uploads", name).1 > 0).then_some(())).await;
    rig.stop().await;
    let set_back = |files: &[PathBuf], hours: u64| {
        for file in files {
            let file = std::fs::File::options().write(true).open(file).unwrap();
            let came = file.metadata().unwrap().modified().unwrap();
            file.set_modified(came - std::time::Duration::from_secs(hours * 3_600)).unwrap();
        }
    };
    set_back(&files_of(&rig, "runs", &old).0, 3);
    set_back(&files_of(&rig, "uploads", name).0, 3);
    let (files, _) = files_of(&rig, "runs", &half);
    let (chunks, _): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|file| file.extension().is_some_and(|kind| kind == "chunk"));
    assert!(chunks.len() > 1, "one of each channel: {chunks:?}");
    set_back(&chunks[1..], 3);
    set_back(&files_of(&rig, "runs", &young).0, 1);
    rig.restart().await;
    eventually("what is too old is gone", async || {
        (files_of(&rig, "runs", &old).1 + files_of(&rig, "uploads", name).1 == 0).then_some(())
    })
    .await;
    let audio = async |id: &str| rig.get(&format!("/v1/conversations/{id}/audio")).await.0;
    assert_eq!((audio(&old).await, audio(done["conversations"][0].as_str().unwrap()).await), (404, 404));
    assert_eq!((audio(&half).await, audio(&young).await), (200, 200), "the newest of it is young");
    assert_eq!(rig.conversation_when(&old, "completed").await["id"], old.as_str(), "the transcript stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audio_goes_with_its_conversation_and_with_its_user() {
    let rig = keeping(&[("limits.audio_sweep_every", "200ms")]).await;
    let id = said(&rig).await;
    let other = said(&rig).await;
    assert_eq!(rig.delete(&format!("/v1/conversations/{id}")).await, 204);
    eventually("only the other's is left", async || {
        (files_of(&rig, "runs", &id).1 == 0 && files_of(&rig, "runs", &other).1 > 0).then_some(())
    })
    .await;
    let mut device = rig.device().await;
    device.conversation().await;
    device.speak(4.0).await;
    device.texts_up_to("tomorrow").await;
    assert_eq!(rig.delete("/v1/users/me?confirm=local").await, 202);
    device.closed().await;
    eventually("no audio is left anywhere", async || {
        let spool = below(&rig.data().join("spool")).1;
        (below(&rig.data().join("audio")).1 + spool == 0).then_some(())
    })
    .await;
}
