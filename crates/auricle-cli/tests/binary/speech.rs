//! Speech services, as their users meet them on the command line.

use auricle_testkit::{SpeechScript, SpeechStandIn};

use crate::rig::{auricle, file, run, text};

const KEY: &str = "secret-key-of-the-service";

#[test]
fn doctor_tells_a_refused_key_from_a_spent_account_from_nobody_there() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let doctor = |url: &str, key: Option<&str>| {
        let mut command = auricle();
        command.args(["doctor", "--json", "--speech", "deepgram", "--speech-deepgram-url", url]);
        command
            .args(["--bind", "127.0.0.1:0", "--probe-bind", "127.0.0.1:0", "--data-dir"])
            .arg(folder.path());
        command.envs(key.map(|key| ("AURICLE_SPEECH_DEEPGRAM_KEY", key)));
        let output = command.output().unwrap();
        let said = text(&output.stdout);
        assert!(!said.contains(KEY) && !text(&output.stderr).contains(KEY), "{said}");
        let checks: serde_json::Value = serde_json::from_str(&said).unwrap();
        let speech = checks.as_array().unwrap().iter().find(|check| check["what"] == "speech").unwrap();
        (speech["state"].as_str().unwrap().to_owned(), speech["finding"].as_str().unwrap().to_owned())
    };
    let session =
        |name: &str| SpeechScript::read(&file(&format!("fixtures/speech/deepgram/{name}.jsonl"))).unwrap();
    let service = runtime.block_on(SpeechStandIn::start(session("auth_error"))).unwrap();
    let url = service.url();
    let words = SpeechScript::Words { every_secs: 1.0, first_secs: 60.0, word_secs: 0.3 };
    for (script, state, said) in [
        (session("auth_error"), "fail", "refused the key (401 INVALID_AUTH)"),
        (
            session("no_credit"),
            "fail",
            "no credit left (402 ASR_PAYMENT_REQUIRED); see to the account's credit",
        ),
        (session("rate_limit"), "fail", "it asks to be left alone for 7s"),
        (words, "ok", "the key is accepted"),
    ] {
        service.set(script);
        let (found, finding) = doctor(&url, Some(KEY));
        assert!(found == state && finding.contains(said), "{found}: {finding}");
    }
    let (state, finding) = doctor(&url, None);
    assert!(state == "fail" && finding.contains("AURICLE_SPEECH_DEEPGRAM_KEY"), "{finding}");
    drop(service);
    let (state, finding) = doctor(&url, Some(KEY));
    assert!(state == "fail" && finding.contains("cannot be reached"), "{finding}");
}

#[test]
fn the_bench_of_an_engine_times_the_ends_of_words() {
    for engine in ["scripted", "deepgram"] {
        let args = ["bench", "sessions", "--engine", engine, "--sessions", "4", "--seconds", "4", "--json"];
        let output = run(&args);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let figures: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((figures["engine"].as_str(), figures["sessions"].as_u64()), (Some(engine), Some(4)));
        assert!(figures["timed"].as_u64().unwrap() >= 4, "{figures}");
        assert!(figures["latency_ms_p50"].as_f64().unwrap() > 0.0, "{figures}");
    }
}
