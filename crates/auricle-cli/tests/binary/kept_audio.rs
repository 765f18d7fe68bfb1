//! Audio that is kept and heard again, through real speech recognition and a real death.

use serde_json::Value;

use crate::rig::{Server, auricle, eventually, file, text};

fn heard(segments: &Value) -> String {
    let segments = segments.as_array().unwrap().iter();
    segments.map(|segment| segment["text"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

/// Of a WAV file at 16 kHz.
fn samples(file: &std::path::Path) -> Vec<i16> {
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(u32::from_le_bytes(bytes[24..28].try_into().unwrap()), 16_000);
    bytes[44..].chunks_exact(2).map(|sample| i16::from_le_bytes(sample.try_into().unwrap())).collect()
}

#[test]
fn p4_a_conversation_that_was_heard_again_at_kill_9_is_heard_again_after_it_and_once() {
    let mut server = Server::start(&[
        ("AUDIO_KEEP", "1d"),
        ("SPEECH_DECODERS", "1"),
        ("LIMITS_LEASE", "2s"),
        ("LIMITS_LEASE_RENEW_EVERY", "200ms"),
    ]);
    let audio = file("fixtures/two-voices/conversation.wav");
    let upload = server.ask_json(&["upload", audio.to_str().unwrap(), "--wait"])[0].clone();
    let id = upload["conversations"][0].as_str().unwrap_or_else(|| panic!("{upload}")).to_owned();
    let record = |server: &Server| {
        eventually("the record", || {
            let shown = server.ask_json(&["conversations", "show", &id]);
            (shown["status"] == "completed").then_some(shown)
        })
    };
    let before = record(&server);
    let ask = |server: &Server| server.ask_json(&["conversations", "retranscribe", &id]);
    let first = ask(&server);
    eventually("it is being heard", || {
        let now = ask(&server);
        assert_eq!((&now["id"], now["status"] == "failed"), (&first["id"], false), "{now}");
        (now["heard_secs"].as_f64().unwrap() > 1.0 && now["status"] == "transcribing").then_some(())
    });
    server.kill();
    server.start_again();
    assert_eq!(heard(&record(&server)["transcript_segments"]), heard(&before["transcript_segments"]));
    let done = server.ask_json(&["conversations", "retranscribe", &id, "--wait"]);
    assert_eq!((&done["id"], &done["revision"]), (&first["id"], &Value::from(2)), "{done}");
    assert!(done["attempts"].as_u64().unwrap() >= 2, "{done}");
    let after = record(&server);
    let words = heard(&after["transcript_segments"]);
    assert_eq!(words.matches("plan the meeting on Monday").count(), 1, "{words}");
    let old = server.ask_json(&["conversations", "revisions", &id, "--revision", "1"]);
    assert_eq!(heard(&old["transcript_segments"]), heard(&before["transcript_segments"]));
    assert!(server.ask(&["conversations", "revisions", &id]).contains("the present one"));
    assert!(server.ask(&["conversations", "revisions", &id, "--revision", "2"]).contains("Monday"));
    // It can be had back: an upload at the rate it was heard at.
    let saved = server.folder.path().join("back.wav");
    assert!(server.ask(&["conversations", "audio", &id, "-o", saved.to_str().unwrap()]).contains("back.wav"));
    assert!(!saved.with_extension("wav.part").exists());
    let whole = server.folder.path().join("whole.wav");
    // From before the first word, too.
    let args = ["conversations", "audio", &id, "--from", "-100", "-o", whole.to_str().unwrap()];
    assert!(server.ask(&args).contains("whole.wav"));
    let (sent, back) = (samples(&audio), samples(&whole));
    assert!(sent.len().abs_diff(back.len()) < 1_600, "{} and {}", sent.len(), back.len());
    let differ = sent.iter().zip(&back).filter(|(one, other)| one.abs_diff(**other) > 1).count();
    assert_eq!(differ, 0);
    assert!(back.ends_with(&samples(&saved)));
    let part = ["conversations", "audio", &id, "--from", "1", "--until", "2.5", "-o", "-"];
    let part = auricle().args(part).args(["--url", &server.url()]).output().unwrap();
    assert_eq!(part.stdout[44..], std::fs::read(&saved).unwrap()[44 + 32_000..44 + 80_000]);
    // Without audio it says why, and fails.
    std::fs::remove_dir_all(server.data().join("audio/uploads")).unwrap();
    let refused =
        auricle().args(["conversations", "retranscribe", &id, "--url", &server.url()]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("audio.keep"), "{}", text(&refused.stderr));
    let refused = auricle().args(["conversations", "audio", &id, "--url", &server.url()]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("audio.keep"), "{}", text(&refused.stderr));
}
