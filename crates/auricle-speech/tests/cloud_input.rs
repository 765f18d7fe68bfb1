//! Whatever a service sends: no adapter panics, and what it makes of it can be shown and stored.

#![allow(clippy::unwrap_used, reason = "what a test stands on must hold")]

use auricle_speech::cloud::{Adapter, ApiKey, Close, Provider, Refusal, Said};
use auricle_speech::{DeepgramConfig, SonioxConfig, SpeechmaticsConfig, StreamSpec};
use proptest::prelude::*;

fn adapters() -> Vec<Box<dyn Adapter>> {
    let spec = StreamSpec {
        sample_rate_hz: 16_000,
        language: "en".to_owned(),
        label: String::new(),
        key_terms: Vec::new(),
        interim: false,
    };
    let key = || Some(ApiKey::new("secret-key-1"));
    vec![
        DeepgramConfig { key: key(), ..DeepgramConfig::default() }.adapter(&spec).unwrap(),
        SonioxConfig { key: key(), ..SonioxConfig::default() }.adapter(&spec).unwrap(),
        SpeechmaticsConfig { key: key(), ..SpeechmaticsConfig::default() }.adapter(&spec).unwrap(),
    ]
}

/// A message that looks like one of theirs, with odd numbers and texts in it.
fn message() -> impl Strategy<Value = String> {
    let number = || {
        prop_oneof![
            (-10.0..100.0_f64).prop_map(|number| number.to_string()),
            Just("1e308".to_owned()),
            Just("-1".to_owned()),
            Just("4294967296".to_owned()),
            Just("null".to_owned()),
        ]
    };
    let text =
        || prop_oneof!["[ a-z.?!]{0,12}", "\\PC{0,12}", Just("<end>".to_owned()), Just("<fin>".to_owned())];
    let kind = prop_oneof![
        Just("Results"),
        Just("Metadata"),
        Just("Error"),
        Just("AddTranscript"),
        Just("EndOfUtterance"),
        Just("EndOfTranscript"),
        Just("Other"),
    ];
    (kind, text(), text(), number(), number(), number()).prop_map(|(kind, text, label, a, b, c)| {
        let (text, label) = (serde_json::Value::from(text), serde_json::Value::from(label));
        format!(
            r#"{{"type":"{kind}","message":"{kind}","start":{a},"duration":{b},"is_final":true,
            "channel":{{"alternatives":[{{"words":[{{"word":{text},"start":{b},"end":{c},"speaker":1}}]}}]}},
            "tokens":[{{"text":{text},"is_final":true,"start_ms":{a},"end_ms":{b},"speaker":{label}}}],
            "final_audio_proc_ms":{c},"metadata":{{"end_time":{a}}},
            "results":[{{"type":"word","start_time":0.5,"end_time":0.7,
                "alternatives":[{{"content":{text},"speaker":{label}}}]}}]}}"#
        )
    })
}

fn check(said: &[Said]) -> Result<(), TestCaseError> {
    for said in said {
        let Said::Words(words) = said else { continue };
        prop_assert!(!words.is_empty());
        for word in words {
            prop_assert!(!word.text.trim().is_empty());
            prop_assert!(word.start.is_finite() && word.start >= 0.0 && word.end >= word.start, "{word:?}");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn messages_of_any_text_are_words_that_can_be_shown_or_an_error(
        messages in prop::collection::vec(prop_oneof![message(), "\\PC{0,200}"], 0..12),
    ) {
        for mut adapter in adapters() {
            let mut said = Vec::new();
            for message in &messages {
                if let Err(error) = adapter.on_text(message, &mut said) {
                    prop_assert!(!error.to_string().contains("secret-key-1"));
                    break;
                }
            }
            check(&said)?;
        }
    }

    #[test]
    fn closes_and_refusals_of_any_kind_are_errors_that_can_be_shown(
        code in 0..u16::MAX, reason in "\\PC{0,80}", status in 0..1_000_u16, body in "\\PC{0,200}",
    ) {
        for mut adapter in adapters() {
            let close = Close { code, reason: format!("{reason} secret-key-1") };
            let closed = adapter.on_close(Some(&close), false).unwrap_err().to_string();
            let body = serde_json::json!({ "err_code": body, "error_message": body, "reason": "secret-key-1" });
            let refusal = Refusal { status, retry_after: None, body: body.to_string() };
            let refused = adapter.on_refusal(&refusal).to_string();
            for text in [closed, refused] {
                prop_assert!(!text.contains("secret-key-1") && !text.contains('\n') && text.len() < 500, "{text}");
            }
        }
    }
}
