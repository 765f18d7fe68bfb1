//! Recordings as files, through real speech recognition and a real death.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::rig::{Server, auricle, eventually, file, text};

/// The same words in another kind of file.
fn converted(folder: &Path, ending: &str, codec: &str) -> PathBuf {
    let path = folder.join(format!("talk.{ending}"));
    let source = file("crates/auricle-speech/tests/data/please-send.wav");
    let made = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-y", "-i"])
        .arg(source)
        .args(["-c:a", codec])
        .arg(&path)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    path
}

fn said(server: &Server, upload: &Value) -> String {
    let id = upload["conversations"][0].as_str().unwrap_or_else(|| panic!("{upload}"));
    let shown = eventually("the record", || {
        let shown = server.ask_json(&["conversations", "show", id]);
        (shown["status"] == "completed").then_some(shown)
    });
    let segments = shown["transcript_segments"].as_array().unwrap();
    segments.iter().map(|segment| segment["text"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn files_of_every_kind_become_records_and_what_is_none_exits_with_1() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let mut args = vec!["upload".to_owned(), "--wait".to_owned(), "--json".to_owned()];
    let kinds = [
        ("wav", "pcm_s16le"),
        ("flac", "flac"),
        ("mp3", "libmp3lame"),
        ("m4a", "aac"),
        ("webm", "libopus"),
        ("ogg", "libopus"),
        ("aac", "aac"),
    ];
    args.extend(
        kinds.iter().map(|(ending, codec)| converted(folder.path(), ending, codec).display().to_string()),
    );
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let uploads: Value = serde_json::from_str(&server.ask(&args)).unwrap();
    for (upload, (ending, _)) in uploads.as_array().unwrap().iter().zip(kinds) {
        assert_eq!(upload["status"], "done", "{ending}: {upload}");
        let heard = said(&server, upload);
        assert!(heard.contains("Friday"), "{ending}: {heard}");
    }
    let none = folder.path().join("none.mp3");
    std::fs::write(&none, "this is no audio, however it is named").unwrap();
    let output =
        auricle().arg("upload").arg(&none).args(["--wait", "--url", &server.url()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("can be read here"), "{}", text(&output.stdout));
    let missing = auricle().args(["upload", "missing.wav", "--url", &server.url()]).output().unwrap();
    assert!(!missing.status.success() && text(&missing.stderr).contains("missing.wav"));
}

#[test]
fn p4_an_upload_that_was_transcribed_at_kill_9_is_transcribed_after_it_and_once() {
    let mut server = Server::start(&[
        ("SPEECH_DECODERS", "1"),
        ("LIMITS_LEASE", "2s"),
        ("LIMITS_LEASE_RENEW_EVERY", "200ms"),
    ]);
    let audio = file("fixtures/two-voices/conversation.wav");
    let sent = &server.ask_json(&["upload", audio.to_str().unwrap()])[0];
    let id = sent["id"].as_str().unwrap().to_owned();
    let ask = |server: &Server| -> Value {
        // The same file again is the same upload: a way to ask.
        server.ask_json(&["upload", audio.to_str().unwrap()])[0].clone()
    };
    eventually("it is being transcribed", || {
        let now = ask(&server);
        assert_eq!((now["id"].as_str(), now["status"] == "failed"), (Some(&*id), false));
        (now["heard_secs"].as_f64().unwrap() > 1.0 && now["status"] == "transcribing").then_some(())
    });
    server.kill();
    server.start_again();
    let done = server.ask_json(&["upload", audio.to_str().unwrap(), "--wait"])[0].clone();
    assert_eq!((done["id"].as_str(), done["status"].as_str()), (Some(&*id), Some("done")), "{done}");
    assert!(done["attempts"].as_u64().unwrap() >= 2, "{done}");
    let heard = said(&server, &done);
    assert_eq!(heard.matches("plan the meeting on Monday").count(), 1, "{heard}");
    assert_eq!(server.ask_json(&["conversations", "list"]).as_array().unwrap().len(), 1);
    assert_eq!(server.ask_json(&["jobs", "list"]).as_array().unwrap().len(), 1);
    let left = std::fs::read_dir(server.data().join("uploads")).unwrap();
    let files = left.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap()).count();
    assert_eq!(files, 0, "what is transcribed is not kept");
}
