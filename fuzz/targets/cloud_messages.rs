//! What speech services send: the first byte chooses the service, lines are messages, the last one is a close's reason.
#![no_main]

use auricle_speech::cloud::{ApiKey, Close, Provider, Refusal, Said};
use auricle_speech::{DeepgramConfig, SonioxConfig, SpeechmaticsConfig, StreamSpec};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((service, rest)) = input.split_first() else { return };
    let key = Some(ApiKey::new("key-of-the-fuzzer"));
    let spec = StreamSpec {
        sample_rate_hz: 16_000,
        language: "en".to_owned(),
        label: String::new(),
        key_terms: Vec::new(),
        interim: true,
    };
    let adapter = match service % 3 {
        0 => DeepgramConfig { key, ..DeepgramConfig::default() }.adapter(&spec),
        1 => SonioxConfig { key, ..SonioxConfig::default() }.adapter(&spec),
        _ => SpeechmaticsConfig { key, ..SpeechmaticsConfig::default() }.adapter(&spec),
    };
    let mut adapter = adapter.expect("English is heard by all");
    // A WebSocket's text is UTF-8 before it gets here.
    let text = String::from_utf8_lossy(rest);
    let mut said = Vec::new();
    for line in text.lines() {
        if adapter.on_text(line, &mut said).is_err() {
            break;
        }
    }
    let reason = text.lines().last().unwrap_or_default().to_owned();
    let _ = adapter.on_refusal(&Refusal { status: 400, retry_after: None, body: reason.clone() });
    let _ = adapter.on_close(Some(&Close { code: 1011, reason }), true);
    for said in said {
        let (Said::Words(words) | Said::Interim(words)) = said else { continue };
        for word in words {
            assert!(word.confidence.is_none_or(|sure| (0.0..=1.0).contains(&sure)), "{word:?}");
            assert!(!word.text.is_empty() && word.start >= 0.0 && word.end >= word.start, "{word:?}");
        }
    }
});
