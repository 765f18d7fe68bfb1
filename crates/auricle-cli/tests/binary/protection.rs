//! A server with a key: what lies in its folder, and how the key is changed.

use std::path::Path;

use serde_json::Value;

use crate::rig::{Server, auricle, eventually, file, text};

const OLD: &str = "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";
const NEW: &str = "f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1";

fn key_file(folder: &Path, name: &str, key: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join(name);
    std::fs::write(&path, key).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Whether any file below holds the word, in any case.
fn holds(folder: &Path, word: &str) -> bool {
    std::fs::read_dir(folder).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return holds(&path, word);
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        bytes.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
    })
}

/// A longer word of the transcript, without its ending.
fn said(result: &Value) -> String {
    let words = result["segments"].as_array().unwrap().iter().flat_map(|segment| {
        segment["text"].as_str().unwrap().split(' ').map(|word| word.trim_matches(['.', ',', '?']).to_owned())
    });
    words.max_by_key(String::len).unwrap()
}

fn status(server: &Server, settings: &[(&str, &str)]) -> Value {
    let data = server.data();
    let output = auricle()
        .args(["protect", "status", "--json", "--data-dir", data.to_str().unwrap()])
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    serde_json::from_str(&text(&output.stdout)).unwrap()
}

fn under(status: &Value, key: impl Fn(&Value) -> bool) -> u64 {
    let uses = status["uses"].as_array().unwrap().iter().filter(|each| key(&each["key"]));
    uses.map(|each| each["values"].as_u64().unwrap()).sum()
}

#[test]
fn an_old_store_is_sealed_by_its_server_and_the_key_is_changed_while_none_runs() {
    let keys = tempfile::tempdir().unwrap();
    let (old, new) = (key_file(keys.path(), "old", OLD), key_file(keys.path(), "new", NEW));
    let mut server = Server::start(&[("SPEECH", "scripted"), ("AUDIO_KEEP", "1d")]);
    let audio = file("fixtures/two-voices/conversation.wav");
    let result = server.ask_json(&["stream", audio.to_str().unwrap(), "--speed", "0", "--wait"]);
    let (id, word) = (result["conversation_id"].as_str().unwrap().to_owned(), said(&result));
    let sound = heard(&server, &id);
    assert!(holds(&server.data(), &word), "{word}");
    server.terminate();
    server.set("PROTECTION_KEY_FILE", &old);
    server.start_again();
    let settings = [("AURICLE_PROTECTION_KEY_FILE", old.as_str())];
    eventually("the store is sealed and nothing plain is left", || {
        let status = status(&server, &settings);
        (under(&status, Value::is_null) == 0 && !holds(&server.data(), &word)).then_some(())
    });
    assert!(server.ask(&["conversations", "search", &word]).contains(&id));
    let again = server.ask_json(&["stream", audio.to_str().unwrap(), "--speed", "0", "--wait"]);
    assert_eq!(again["conversation"]["status"], "completed");
    assert!(!holds(&server.data(), &word));

    // A server that runs must know the key first.
    let data = server.data();
    let rotate = || {
        let mut command = auricle();
        command.args(["protect", "rotate", "--json", "--data-dir"]).arg(&data);
        command.env("AURICLE_PROTECTION_KEY_FILE", &new).env("AURICLE_PROTECTION_OLD_KEY_FILES", &old);
        command.output().unwrap()
    };
    let refused = rotate();
    assert!(
        !refused.status.success() && text(&refused.stderr).contains("Restart it"),
        "{}",
        text(&refused.stderr)
    );
    server.terminate();
    let done = rotate();
    assert!(done.status.success(), "{}", text(&done.stderr));
    let done: Value = serde_json::from_str(&text(&done.stdout)).unwrap();
    assert!(done["done"] == true && done["damaged"] == 0 && done["resealed"].as_u64().unwrap() > 4, "{done}");
    assert!(done["audio"]["resealed"].as_u64().unwrap() >= 4 && done["audio"]["left"] == 0, "{done}");
    let now = status(&server, &[("AURICLE_PROTECTION_KEY_FILE", new.as_str())]);
    assert_eq!(under(&now, |key| *key != now["present"]), 0, "{now}");
    server.set("PROTECTION_KEY_FILE", &new);
    server.start_again();
    assert!(server.ask(&["conversations", "search", &word]).contains(&id));
    assert_eq!(heard(&server, &id), sound, "by the new key alone");
}

/// The samples of a conversation's audio.
fn heard(server: &Server, id: &str) -> Vec<u8> {
    let args = ["conversations", "audio", id, "--from", "-100", "-o", "-", "--url", &server.url()];
    let output = auricle().args(args).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    output.stdout[44..].to_vec()
}

#[test]
fn kept_audio_that_is_brought_to_a_new_key_at_kill_9_is_brought_there_after_it() {
    let keys = tempfile::tempdir().unwrap();
    let (old, new) = (key_file(keys.path(), "old", OLD), key_file(keys.path(), "new", NEW));
    let settings = [
        ("SPEECH", "scripted"),
        ("AUDIO_KEEP", "1d"),
        ("PROTECTION_KEY_FILE", &old),
        ("LIMITS_AUDIO_SWEEP_EVERY", "300ms"),
        // So that a kill finds it half way.
        ("LIMITS_PROTECTION_STEP_EVERY", "100ms"),
    ];
    let mut server = Server::start(&settings);
    let audio = file("fixtures/two-voices/conversation.wav");
    let mut conversations = Vec::new();
    for _ in 0..6 {
        let result = server.ask_json(&["stream", audio.to_str().unwrap(), "--speed", "0", "--wait"]);
        conversations.push(result["conversation_id"].as_str().unwrap().to_owned());
    }
    let before: Vec<_> = conversations.iter().map(|id| heard(&server, id)).collect();
    assert!(before.iter().all(|sound| sound.len() > 100_000 && sound.iter().any(|byte| *byte != 0)));
    server.terminate();
    server.set("PROTECTION_KEY_FILE", &new);
    server.set("PROTECTION_OLD_KEY_FILES", &old);
    server.start_again();
    let settings =
        [("AURICLE_PROTECTION_KEY_FILE", new.as_str()), ("AURICLE_PROTECTION_OLD_KEY_FILES", &old)];
    let audio_under = |server: &Server, is_new: bool| -> u64 {
        let now = status(server, &settings);
        let uses = now["uses"].as_array().unwrap().iter();
        let of_audio = uses.filter(|each| each["what"].as_str().unwrap().starts_with("audio."));
        let of_key = of_audio.filter(|each| (each["key"] == now["present"]) == is_new);
        of_key.map(|each| each["values"].as_u64().unwrap()).sum()
    };
    let half_way = eventually("some of it is under the new key", || {
        Some((audio_under(&server, true), audio_under(&server, false))).filter(|(new, _)| *new > 0)
    });
    server.kill();
    assert!(half_way.1 > 0, "it was killed half way: {half_way:?}");
    server.start_again();
    eventually("all of it is under the new key", || (audio_under(&server, false) == 0).then_some(()));
    server.terminate();
    // The texts, too: then the old key can go.
    let data = server.data();
    let mut rotate = auricle();
    rotate.args(["protect", "rotate", "--json", "--data-dir"]).arg(&data).envs(settings);
    let done: Value = serde_json::from_str(&text(&rotate.output().unwrap().stdout)).unwrap();
    assert_eq!((&done["done"], &done["audio"]["resealed"]), (&Value::from(true), &Value::from(0)), "{done}");
    server.set("PROTECTION_OLD_KEY_FILES", "");
    server.start_again();
    for (id, before) in conversations.iter().zip(&before) {
        assert_eq!(heard(&server, id), *before);
    }
}

#[test]
fn without_its_key_a_server_does_not_start_and_says_which_is_missing() {
    let keys = tempfile::tempdir().unwrap();
    let key = key_file(keys.path(), "key", OLD);
    let mut server = Server::start(&[("SPEECH", "scripted"), ("PROTECTION_KEY_FILE", &key)]);
    server.terminate();
    let data = server.data();
    let output = auricle()
        .args(["serve", "--bind", "127.0.0.1:0", "--probe-bind", "127.0.0.1:0", "--data-dir"])
        .arg(&data)
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("protection.key_file"), "{said}");
    let open = key_file(keys.path(), "open", NEW);
    std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let output = auricle()
        .args([
            "serve",
            "--bind",
            "127.0.0.1:0",
            "--probe-bind",
            "127.0.0.1:0",
            "--protection-key-file",
            &open,
        ])
        .arg("--data-dir")
        .arg(keys.path().join("data"))
        .output()
        .unwrap();
    assert!(text(&output.stderr).contains("chmod 600") && !text(&output.stderr).contains(NEW));
}
