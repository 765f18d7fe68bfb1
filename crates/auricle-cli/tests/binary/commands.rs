//! What commands print, and their exit codes.

use serde_json::Value;

use crate::rig::{Server, auricle, eventually, file, run, text};

const SPEECH: &str = "crates/auricle-speech/tests/data/please-send.wav";

#[test]
fn every_codec_is_heard_and_becomes_a_record() {
    let server = Server::start(&[("SPEECH_DECODERS", "1")]);
    for codec in ["pcm8", "pcm16", "opus", "opus_fs320", "aac", "lc3_fs1030"] {
        let path = file(SPEECH);
        let result =
            server.ask_json(&["stream", path.to_str().unwrap(), "--codec", codec, "--speed", "0", "--wait"]);
        let heard =
            result["segments"].as_array().unwrap().iter().map(|segment| segment["text"].as_str().unwrap());
        let heard = heard.collect::<Vec<_>>().join(" ");
        assert!(heard.contains("Friday"), "{codec}: {heard}");
        assert_eq!(result["conversation"]["status"], "completed", "{codec}: {result}");
    }
    let listed = server.ask_json(&["conversations", "list"]);
    assert_eq!(listed.as_array().unwrap().iter().filter(|c| c["status"] == "completed").count(), 6);
}

#[test]
fn a_reader_that_has_seen_enough_ends_a_command_without_a_word() {
    for args in [["config", "show"], ["conversations", "--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = auricle().args(args).stdout(writer).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{args:?}: {}, {said}", output.status);
    }
}

#[test]
fn a_record_is_listed_shown_found_exported_renamed_and_deleted() {
    let server = Server::start(&[("SPEECH", "scripted")]);
    let path = file("fixtures/two-voices/conversation.wav");
    let result = server.ask_json(&["stream", path.to_str().unwrap(), "--speed", "0", "--wait"]);
    let id = result["conversation_id"].as_str().unwrap();
    let title = result["conversation"]["structured"]["title"].as_str().unwrap();
    let list = server.ask(&["conversations", "list"]);
    assert!(list.contains(id), "an id must be on one line, to be copied:\n{list}");
    assert!(server.ask(&["conversations", "show", id]).contains(title));
    let word = result["segments"][0]["text"].as_str().unwrap().split(' ').nth(1).unwrap().trim_matches('.');
    let found = server.ask(&["conversations", "search", word]);
    assert!(found.contains(id) && found.contains("words #1"), "{found}");
    for format in ["json", "md", "txt", "srt", "vtt"] {
        let export = server.ask(&["conversations", "export", id, "--format", format]);
        assert!(export.contains(word), "{format}:\n{export}");
    }
    let folder = server.folder.path().join("out");
    let out = folder.to_str().unwrap();
    assert!(
        server
            .ask(&["conversations", "export", "--all", out, "--format", "vtt"])
            .contains("conversations are in")
    );
    assert!(std::fs::read_to_string(folder.join(format!("{id}.vtt"))).unwrap().starts_with("WEBVTT\n"));
    server.ask(&["export", out]);
    for extension in ["json", "md", "srt", "vtt"] {
        let text = std::fs::read_to_string(folder.join(format!("conversations/{id}.{extension}"))).unwrap();
        assert!(text.contains(word), "{extension}:\n{text}");
    }
    assert!(folder.join("user.json").exists() && !folder.join("export.zip.part").exists());
    server.ask(&["conversations", "rename", id, "Another title"]);
    assert!(server.ask(&["conversations", "show", id]).contains("Another title"));
    server.ask(&["conversations", "delete", id]);
    let gone = auricle().args(["conversations", "show", id, "--url", &server.url()]).output().unwrap();
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone.stderr).contains("404"), "{}", text(&gone.stderr));
}

#[test]
fn people_are_added_listed_renamed_and_deleted() {
    let server = Server::start(&[("SPEECH", "scripted")]);
    let ada = server.ask_json(&["people", "add", "Ada"]);
    let id = ada["id"].as_str().unwrap();
    assert!(server.ask(&["people", "list"]).contains(id), "an id must be on one line, to be copied");
    assert_eq!(server.ask_json(&["people", "rename", id, "Ada L."])["name"], "Ada L.");
    assert_eq!(server.ask_json(&["people", "list"])[0]["name"], "Ada L.");
    assert_eq!(server.ask_json(&["people", "delete", id])["deleted"], id);
    assert!(server.ask(&["people", "list"]).contains("nobody yet"));
}

#[test]
fn action_items_are_listed_completed_edited_exported_and_deleted() {
    let server = Server::start(&[("SPEECH", "scripted")]);
    let path = file("fixtures/two-voices/conversation.wav");
    let result = server.ask_json(&["stream", path.to_str().unwrap(), "--speed", "0", "--wait"]);
    let made = result["conversation"]["structured"]["action_items"].as_array().unwrap().len();
    let listed = server.ask_json(&["action-items", "list"]);
    assert_eq!((made > 0, listed.as_array().unwrap().len()), (true, made), "{listed}");
    let id = listed[0]["id"].as_str().unwrap();
    assert!(server.ask(&["action-items", "list"]).contains(id), "an id must be on one line, to be copied");
    server.ask(&["action-items", "edit", id, "Ring the plumber", "--due", "2026-02-01T09:00:00Z"]);
    assert!(server.ask(&["action-items", "complete", id]).contains("Ring the plumber"));
    let open = server.ask_json(&["action-items", "list"]);
    assert_eq!(open.as_array().unwrap().len(), made - 1);
    let page = server.ask(&["action-items", "export"]);
    assert!(page.contains("- [x] Ring the plumber (due 2026-02-01T09:00:00.000000Z)"), "{page}");
    assert!(server.ask(&["action-items", "export", "--format", "csv"]).contains("\"Ring the plumber\",true"));
    assert!(server.ask(&["action-items", "reopen", id]).contains("open again"));
    server.ask(&["action-items", "delete", id]);
    assert_eq!(server.ask_json(&["action-items", "list", "--all"]).as_array().unwrap().len(), made - 1);
}

#[test]
fn memories_are_listed_edited_exported_and_deleted() {
    let server = Server::start(&[("SPEECH", "scripted")]);
    assert!(server.ask(&["memories", "list"]).contains("no memories yet"));
    let made = server.ask_json(&["memories", "add", "Has a dog"]);
    let id = made["id"].as_str().unwrap();
    assert!(server.ask(&["memories", "list"]).contains(id), "an id must be on one line, to be copied");
    assert!(server.ask(&["memories", "edit", id, "Has two dogs"]).contains("Has two dogs"));
    assert_eq!(server.ask_json(&["memories", "list"])[0]["text"], "Has two dogs");
    assert!(server.ask(&["memories", "export"]).contains("- Has two dogs"));
    server.ask(&["memories", "delete", id]);
    assert_eq!(server.ask_json(&["memories", "list"]).as_array().unwrap().len(), 0);
}

#[test]
fn mistakes_in_configuration_are_all_named_and_exit_with_64() {
    let output =
        run(&["config", "check", "--bind", "nowhere", "--log-level", "loud", "--limits-lease", "never"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    for key in ["--bind", "--log-level", "--limits-lease"] {
        assert!(said.contains(key), "{key} is not in:\n{said}");
    }
    assert_eq!(run(&["stream"]).status.code(), Some(64));
    assert_eq!(run(&["--version"]).status.code(), Some(0));
}

#[test]
fn beyond_loopback_without_a_credential_it_does_not_start() {
    let output = run(&["serve", "--bind", "0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("auth.admin_key"), "{}", text(&output.stderr));
}

#[test]
fn a_second_server_on_the_same_folder_or_port_says_why_it_cannot_start() {
    let server = Server::start(&[("SPEECH", "scripted")]);
    let folder = server.data();
    let same_folder = run(&[
        "serve",
        "--data-dir",
        folder.to_str().unwrap(),
        "--bind",
        "127.0.0.1:0",
        "--probe-bind",
        "127.0.0.1:0",
    ]);
    assert_eq!(same_folder.status.code(), Some(1));
    assert!(text(&same_folder.stderr).contains("data"), "{}", text(&same_folder.stderr));
    let other = tempfile::TempDir::new().unwrap();
    let address = server.address.to_string();
    let same_port = run(&[
        "serve",
        "--data-dir",
        other.path().to_str().unwrap(),
        "--bind",
        &address,
        "--probe-bind",
        "127.0.0.1:0",
    ]);
    assert_eq!(same_port.status.code(), Some(1));
    assert!(text(&same_port.stderr).contains(&address), "{}", text(&same_port.stderr));
}

#[test]
fn sigterm_drains_and_exits_with_0() {
    let mut server = Server::start(&[("SPEECH", "scripted")]);
    assert!(server.data().join("addresses.json").exists());
    assert_eq!(server.terminate(), Some(0));
    assert!(!server.data().join("addresses.json").exists());
}

#[test]
fn doctor_says_what_is_there_and_how_to_install_what_is_not() {
    let folder = tempfile::TempDir::new().unwrap();
    let doctor = |more: &[&str]| {
        let base = [
            "doctor",
            "--data-dir",
            folder.path().to_str().unwrap(),
            "--bind",
            "127.0.0.1:0",
            "--probe-bind",
            "127.0.0.1:0",
        ];
        run(&[&base, more].concat())
    };
    let well = doctor(&[]);
    assert_eq!(well.status.code(), Some(0), "{}", text(&well.stdout));
    let missing = doctor(&["--speech-pocketsphinx-library", "/nowhere/libpocketsphinx.so"]);
    assert_eq!(missing.status.code(), Some(1));
    let said = text(&missing.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("libpocketsphinx3"), "{said}");
    std::fs::write(
        folder.path().join("auricle.db"),
        b"not a database at all, but long enough to be looked at",
    )
    .unwrap();
    let damaged = doctor(&["--speech", "none"]);
    assert_eq!(damaged.status.code(), Some(1), "{}", text(&damaged.stdout));
}

#[test]
fn a_storm_of_a_few_ends_with_all_of_them_back_and_nobody_else_dropped() {
    let args =
        ["bench", "storm", "--clients", "20", "--live", "2", "--retry-ms", "100", "--expired-percent", "10"];
    let out = run(&[&args[..], &["--calm-secs", "1", "--refusals", "50", "--json"]].concat());
    assert!(out.status.success(), "{}", text(&out.stderr));
    let figures: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (figures["expired"].as_u64(), figures["back"]["missing"].as_u64()),
        (Some(2), Some(0)),
        "{figures}"
    );
    let looked_up = |of: &str| figures["counted"][of].as_u64().unwrap();
    // Read while clients still try: one may be counted by half.
    assert!(
        looked_up("bad_tokens") > 2 && looked_up("from_memory") + 2 >= looked_up("bad_tokens"),
        "{figures}"
    );
    for phase in ["calm", "storm", "after"] {
        assert_eq!(figures[phase]["dropped"], 0, "{phase}: {figures}");
    }
    assert!(figures["calm"]["segments"].as_u64().unwrap() > 0, "{figures}");
}

/// The JSON of a measurement, which must have held what it measures.
fn measured(args: &[&str]) -> Value {
    let output = run(&[&["bench"], args, &["--json"]].concat());
    assert!(output.status.success(), "{args:?}: {}\n{}", text(&output.stdout), text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn nothing_lost_or_doubled(figures: &Value) {
    for count in ["lost", "doubled", "words_lost", "words_doubled", "effects_lost", "effects_doubled"] {
        assert_eq!(figures[count], 0, "{figures}");
    }
    // Of users' own webhooks: one that acts on a key once acts once, one that always acts does so at least once.
    for count in ["once_lost", "once_doubled", "always_lost"] {
        assert_eq!(figures[count], 0, "{figures}");
    }
    assert!(figures["conversations"].as_u64().unwrap() > 0, "{figures}");
    assert_eq!(figures["completed"], figures["conversations"], "{figures}");
}

#[test]
fn p1_p2_p4_an_outage_of_everything_else_drops_no_session_and_loses_no_record() {
    let dead = ["outage", "--dead", "pusher,model,webhooks", "--network", "black-hole"];
    let figures = measured(&[&dead[..], &["--sessions", "4", "--seconds", "8", "--hang-secs", "3"]].concat());
    nothing_lost_or_doubled(&figures);
    for phase in ["calm", "outage"] {
        assert_eq!(figures[phase]["sessions_dropped"], 0, "{figures}");
        assert!(figures[phase]["words"].as_u64().unwrap() > 0, "{figures}");
        assert_eq!(figures[phase]["livez"]["missed"], 0, "{figures}");
    }
}

#[test]
fn p4_kill_9_at_random_moments_loses_and_doubles_nothing_in_either_shape() {
    for shape in ["split", "embedded"] {
        let figures = measured(&["crash", "--shape", shape, "--trials", "6", "--sessions", "4"]);
        nothing_lost_or_doubled(&figures);
        assert_eq!(figures["trials"], 6);
    }
}

#[test]
fn p7_a_rolling_restart_under_load_loses_and_doubles_nothing_and_exits_with_0() {
    let figures = measured(&["crash", "--signal", "term", "--trials", "4", "--sessions", "4"]);
    nothing_lost_or_doubled(&figures);
    assert_eq!(figures["exit_codes_not_zero"], 0, "{figures}");
}

#[test]
fn s01_what_failed_is_revived_by_one_command_when_its_cause_is_gone() {
    use auricle_testkit::{LlmMode, LlmStandIn};
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let model = runtime.block_on(LlmStandIn::start()).unwrap();
    model.set(LlmMode::Status(404));
    let server = Server::start(&[("LLM_URL", &model.url()), ("SPEECH", "scripted")]);
    let talk = file("fixtures/two-voices/conversation.wav").display().to_string();
    // What it ends with is a visible failure; its exit code is not what this is about.
    let _ =
        auricle().args(["stream", &talk, "--speed", "0", "--wait", "--url", &server.url()]).output().unwrap();
    let failed = server.ask_json(&["jobs", "list"]);
    assert_eq!(
        (failed.as_array().unwrap().len(), failed[0]["state"].as_str()),
        (1, Some("failed")),
        "{failed}"
    );
    model.set(LlmMode::Answer);
    let revived = server.ask_json(&["jobs", "retry", "--failed"]);
    assert_eq!(revived["revived"], 1, "{revived}");
    let id = failed[0]["conversation_id"].as_str().unwrap();
    let record = eventually("the record", || {
        let shown = server.ask_json(&["conversations", "show", id]);
        (shown["status"] == "completed").then_some(shown)
    });
    assert_ne!(record["structured"]["title"], "", "{record}");
}

/// Ends with its test, however that ends.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_webhook_is_added_tested_paused_resumed_and_removed_and_a_receiver_shows_what_arrives() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    let server = Server::start(&[("SPEECH", "scripted"), ("WEBHOOKS_ALLOW_PRIVATE", "true")]);
    let receiver = auricle()
        .args(["webhooks", "receive", "--add", "--count", "2", "--json", "--url", &server.url()])
        .stdout(Stdio::piped())
        .spawn();
    let mut receiver = Killed(receiver.unwrap());
    let mut lines = BufReader::new(receiver.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let address = lines.next().unwrap().strip_prefix("receiving on ").unwrap().to_owned();
    // Its own, and another at the same address, whose secret it does not know.
    let added = server.ask_json(&["webhooks", "add", &address, "--name", "Mine", "--app"]);
    let id = added["id"].as_str().unwrap();
    assert!(added["secret"].as_str().unwrap().starts_with("whsec_"));
    assert!(server.ask(&["webhooks", "pause", id]).contains("resume"));
    let listed = server.ask(&["webhooks", "list"]);
    assert!(listed.contains(id) && listed.contains("paused") && !listed.contains("whsec_"), "{listed}");
    assert!(listed.lines().all(|line| line.chars().count() <= 80), "{listed}");
    assert!(server.ask(&["webhooks", "show", id]).contains("memory_created"));
    let tested = server.ask_json(&["webhooks", "test", id]);
    assert_eq!((tested["taken"].as_bool(), tested["status"].as_u64()), (Some(true), Some(200)), "{tested}");
    let test: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!(
        (test["trigger"].as_str(), test["body"]["test"].as_bool()),
        (Some("memory_created"), Some(true))
    );
    assert!(test["signature"].as_str().unwrap().contains("does not fit"), "{test}");

    let talk = file("fixtures/two-voices/conversation.wav").display().to_string();
    server.ask(&["stream", &talk, "--speed", "0", "--wait"]);
    let told: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!(
        (told["signature"].as_str(), told["query"].as_str()),
        (Some("good"), Some("uid=local")),
        "{told}"
    );
    assert_ne!(told["body"]["structured"]["title"], "", "{told}");
    assert_eq!(receiver.0.wait().unwrap().code(), Some(1), "one signature was wrong");
    let left = server.ask_json(&["webhooks", "list"]);
    assert_eq!(left.as_array().unwrap().len(), 1, "it removes what it added: {left}");

    let held = server.ask_json(&["webhooks", "deliveries", id]);
    assert_eq!(
        (held[0]["state"].as_str(), &left[0]["waiting"]),
        (Some("pending"), &Value::from(1)),
        "{held}"
    );
    let rotated = server.ask_json(&["webhooks", "rotate", id]);
    assert_ne!(rotated["secret"], added["secret"]);
    server.ask(&["webhooks", "resume", id]);
    assert!(server.ask(&["webhooks", "replay", id]).contains("0 deliveries"));
    let again = ["webhooks", "replay", id, "--delivery", held[0]["id"].as_str().unwrap()];
    assert_eq!(server.ask_json(&again)["replayed"], 1);
    server.ask(&["webhooks", "remove", id]);
    assert!(server.ask(&["webhooks", "list"]).contains("no webhooks yet"));
    let gone = auricle().args(["webhooks", "show", id, "--url", &server.url()]).output().unwrap();
    assert_eq!((gone.status.code(), text(&gone.stderr).contains("not found")), (Some(1), true));
}
