//! Recorded sessions through the adapters alone.

use auricle_speech::cloud::{Adapter, ApiKey, Close, Provider, Refusal, Said};
use auricle_speech::{DeepgramConfig, SonioxConfig, SpeechmaticsConfig, StreamSpec};
use auricle_testkit::SpeechScript;
use auricle_testkit::stand_in::Step;

use crate::{session, spec};

const KEY: &str = "secret-key-1";

fn adapter(engine: &str, interim: bool) -> Box<dyn Adapter> {
    let key = Some(ApiKey::new(KEY));
    let spec = || StreamSpec { interim, ..spec() };
    match engine {
        "deepgram" => DeepgramConfig { key, ..DeepgramConfig::default() }.adapter(&spec()),
        "soniox" => SonioxConfig { key, ..SonioxConfig::default() }.adapter(&spec()),
        _ => SpeechmaticsConfig { key, ..SpeechmaticsConfig::default() }.adapter(&spec()),
    }
    .unwrap()
}

/// What came of a session, a line for each thing that was said, the error last.
fn replayed(engine: &str, name: &str) -> Vec<String> {
    replayed_as(engine, name, false)
}

fn replayed_as(engine: &str, name: &str, interim: bool) -> Vec<String> {
    let SpeechScript::Session(steps) = session(engine, name) else { panic!("no session") };
    let (mut adapter, mut lines, mut said) = (adapter(engine, interim), Vec::new(), Vec::new());
    let end = adapter.finish();
    let mut finished = false;
    for step in &steps {
        let read = match step {
            Step::Refuse(refusal) => {
                let secs = refusal.headers.get("retry-after").and_then(|secs| secs.parse().ok());
                let refusal = Refusal {
                    status: refusal.status,
                    retry_after: secs.map(std::time::Duration::from_secs),
                    body: refusal.body.to_string(),
                };
                Err(adapter.on_refusal(&refusal))
            }
            Step::Send(value) => adapter.on_text(&value.to_string(), &mut said),
            Step::SendRaw(text) => adapter.on_text(text, &mut said),
            // The machine asks no more of a stream that has finished.
            Step::Close(_) if lines.iter().any(|line| line == "finished") => Ok(()),
            Step::Close(close) => {
                let close = Close { code: close.code, reason: close.reason.clone() };
                adapter.on_close(Some(&close), finished)
            }
            Step::Drop {} => adapter.on_close(None, finished),
            Step::Hang {} => break,
            Step::Await(what) => {
                let what = format!("{what:?}");
                finished |= what == r#"Message("")"#
                    || end.split('"').any(|part| what == format!("Message({part:?})"));
                Ok(())
            }
        };
        lines.extend(said.drain(..).map(line));
        if let Err(error) = read {
            lines.push(format!("{error:?}"));
            break;
        }
    }
    let all = lines.join("\n");
    assert!(!all.contains(KEY), "{all}");
    lines
}

fn line(said: Said) -> String {
    match said {
        Said::Words(ref words) | Said::Interim(ref words) => {
            let texts: Vec<_> = words.iter().map(|word| format!("{}/{}", word.text, word.speaker)).collect();
            let changes = if matches!(said, Said::Interim(_)) { "…" } else { "" };
            match (words.first(), words.last()) {
                (Some(first), Some(last)) => {
                    format!("{:.1}-{:.1} {}{changes}", first.start, last.end, texts.join(" "))
                }
                _ => changes.to_owned(),
            }
        }
        Said::Covered(secs) => format!("covered {secs:.1}"),
        Said::Flushed => "flushed".to_owned(),
        Said::Finished => "finished".to_owned(),
    }
}

#[track_caller]
fn assert_replayed(engine: &str, name: &str, wanted: &[&str]) {
    assert_eq!(replayed(engine, name), wanted, "{engine}/{name}");
}

#[test]
fn deepgram_sessions_mean_what_they_say() {
    let first = "0.2-1.4 Please/0 send/0 the/0 report./0";
    assert_replayed(
        "deepgram",
        "success",
        &[first, "covered 1.8", "2.0-3.0 I/1 will/1 tomorrow./1", "covered 3.4", "covered 5.0", "finished"],
    );
    assert_replayed("deepgram", "silence", &["covered 3.0", "covered 4.9", "finished"]);
    assert_replayed("deepgram", "flush", &["0.2-0.8 Please/0 send/0", "covered 0.9", "flushed", "finished"]);
    assert_replayed(
        "deepgram",
        "mid_word_close",
        &[first, "covered 1.8", r#"Broken("deepgram closed the connection (1011 NET-0000)")"#],
    );
    assert_replayed(
        "deepgram",
        "garbage",
        &[first, "covered 1.8", r#"Broken("deepgram sent a message that is not JSON (line 1, column 26)")"#],
    );
    for (name, error) in [
        (
            "auth_error",
            r#"Refused("deepgram refused the key (401 INVALID_AUTH): Invalid credentials; set speech.deepgram_key to one that may use what is asked for")"#,
        ),
        (
            "no_credit",
            r#"Limited { text: "deepgram has no credit left (402 ASR_PAYMENT_REQUIRED)", retry_after: None }"#,
        ),
        (
            "rate_limit",
            r#"Limited { text: "deepgram is asked too much by this account (429 TOO_MANY_REQUESTS)", retry_after: Some(7s) }"#,
        ),
        ("server_error", r#"Broken("deepgram is in trouble (503 SERVICE_UNAVAILABLE)")"#),
        ("no_audio", r#"Broken("deepgram closed the connection (1011 NET-0001)")"#),
        ("not_audio", r#"Broken("deepgram could not read the audio (DATA-0000)")"#),
    ] {
        assert_replayed("deepgram", name, &[error]);
    }
}

#[test]
fn soniox_sessions_mean_what_they_say() {
    assert_replayed(
        "soniox",
        "success",
        &[
            "covered 0.2",
            "0.2-1.4 Please/0 send/0 the/0 report./0",
            "covered 1.5",
            "covered 2.0",
            "covered 2.0",
            "2.0-3.0 I/1 will/1 tomorrow./1",
            "covered 5.0",
            "finished",
        ],
    );
    assert_replayed("soniox", "silence", &["covered 2.8", "covered 5.0", "covered 5.0", "finished"]);
    assert_replayed(
        "soniox",
        "flush",
        &["0.2-0.8 Please/0 send/0", "covered 1.0", "flushed", "covered 1.0", "finished"],
    );
    assert_replayed(
        "soniox",
        "mid_word_close",
        &["covered 0.2", r#"Broken("soniox dropped the connection")"#],
    );
    assert_replayed(
        "soniox",
        "garbage",
        &[r#"Broken("soniox sent a message of another form than its protocol has (line 1, column 3)")"#],
    );
    assert_replayed("soniox", "server_error", &["covered 0.2", r#"Broken("soniox is in trouble (503)")"#]);
    for (name, error) in [
        (
            "auth_error",
            r#"Refused("soniox refused the key (401 unauthenticated): Invalid API key; set speech.soniox_key to one that may use what is asked for")"#,
        ),
        ("no_credit", r#"Limited { text: "soniox has no credit left (402)", retry_after: None }"#),
        (
            "rate_limit",
            r#"Limited { text: "soniox is asked too much by this account (429)", retry_after: None }"#,
        ),
        (
            "wrong_model",
            r#"Refused("soniox refused what was asked for (400 model_not_available): Invalid model specified")"#,
        ),
    ] {
        assert_replayed("soniox", name, &[error]);
    }
}

#[test]
fn speechmatics_sessions_mean_what_they_say() {
    assert_replayed(
        "speechmatics",
        "success",
        &[
            "covered 0.2",
            "0.2-1.4 Please/0 send/0 the/0 report./0",
            "covered 1.5",
            "covered 1.7",
            "covered 2.0",
            "2.0-3.0 I/1 will/1 tomorrow./1",
            "covered 5.0",
            "finished",
        ],
    );
    assert_replayed("speechmatics", "silence", &["covered 2.5", "covered 5.0", "finished"]);
    assert_replayed(
        "speechmatics",
        "flush",
        &["covered 0.2", "0.2-0.8 Please/0 send/0", "covered 1.0", "finished"],
    );
    assert_replayed(
        "speechmatics",
        "mid_word_close",
        &["covered 0.2", r#"Broken("speechmatics closed the connection (1011 internal_error)")"#],
    );
    assert_replayed(
        "speechmatics",
        "garbage",
        &[
            r#"Broken("speechmatics sent a message of another form than its protocol has (line 1, column 22)")"#,
        ],
    );
    let refused = "speechmatics refused the key";
    let asked = r#"Limited { text: "speechmatics is asked too much by this account (quota_exceeded)", retry_after: Some(10s) }"#;
    for (name, error) in [
        (
            "auth_error",
            format!(
                r#"Refused("{refused} (401 Unauthorized); set speech.speechmatics_key to one that may use what is asked for")"#
            ),
        ),
        (
            "auth_error_in_band",
            format!(
                r#"Refused("{refused} (not_authorised); set speech.speechmatics_key to one that may use what is asked for")"#
            ),
        ),
        ("rate_limit", asked.to_owned()),
        ("rate_limit_by_close", asked.to_owned()),
        (
            "no_credit",
            r#"Limited { text: "speechmatics has no credit left (timelimit_exceeded)", retry_after: None }"#
                .to_owned(),
        ),
        (
            "wrong_language",
            r#"Refused("speechmatics refused what was asked for (invalid_model)")"#.to_owned(),
        ),
        ("server_error", r#"Broken("speechmatics said that it cannot go on (job_error)")"#.to_owned()),
    ] {
        assert_replayed("speechmatics", name, &[&error]);
    }
}

#[test]
fn what_may_still_change_is_told_only_if_it_was_asked_for() {
    let sentence = "0.2-1.4 Please/0 send/0 the/0 report./0";
    for (engine, wanted) in [
        (
            "deepgram",
            &[
                "0.2-0.8 Please/0 sand/0…",
                sentence,
                "covered 1.8",
                "…",
                "2.0-2.2 Hm/0…",
                "…",
                "covered 3.2",
                "…",
                "covered 5.0",
                "finished",
            ][..],
        ),
        (
            "soniox",
            &[
                "covered 0.0",
                "0.2-0.8 Please/0 san/0…",
                "covered 0.2",
                "0.2-0.9 Please/0 send/0 the/0…",
                sentence,
                "covered 1.5",
                "2.0-2.1 I/1…",
                "covered 2.0",
                "2.0-2.1 I./1…",
                "2.0-2.1 I./1",
                "covered 5.0",
                "…",
                "finished",
            ],
        ),
        (
            "speechmatics",
            &[
                "0.2-0.8 Please/0 sand/0…",
                "covered 0.2",
                "0.2-1.5 Please/0 send/0 the/0 report./0 I/0…",
                sentence,
                "covered 1.5",
                "…",
                "finished",
            ],
        ),
    ] {
        assert_eq!(replayed_as(engine, "interim", true), wanted, "{engine}");
        let final_ones: Vec<_> = wanted.iter().filter(|line| !line.ends_with('…')).copied().collect();
        assert_eq!(replayed(engine, "interim"), final_ones, "{engine}");
    }
}

#[test]
fn each_service_says_how_sure_it_is() {
    for (engine, sure) in [("deepgram", 0.998), ("soniox", 0.97), ("speechmatics", 0.99)] {
        let SpeechScript::Session(steps) = session(engine, "success") else { panic!("no session") };
        let (mut adapter, mut said) = (adapter(engine, false), Vec::new());
        for step in &steps {
            if let Step::Send(value) = step {
                adapter.on_text(&value.to_string(), &mut said).unwrap();
            }
        }
        let words =
            said.iter().filter_map(|said| if let Said::Words(words) = said { Some(words) } else { None });
        let told: Vec<_> = words.flatten().map(|word| word.confidence).collect();
        assert!(told.len() == 7 && told.iter().all(|told| *told == Some(sure)), "{engine}: {told:?}");
    }
}
