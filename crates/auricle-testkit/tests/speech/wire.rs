//! Engines over real sockets.

use std::time::Duration;

use auricle_speech::cloud::{ApiKey, CloudConfig, CloudNumbers};
use auricle_speech::{
    DeepgramConfig, Engine, EngineError, Event, GateConfig, GateMode, SonioxConfig, SpeechConfig,
    SpeechmaticsConfig, Stream, build,
};
use auricle_testkit::{SpeechScript, SpeechStandIn};
use tokio::sync::mpsc;

use crate::{session, spec};

/// Longest that anything here may take: only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(90);
const RATE_HZ: usize = 16_000;
const ENGINES: [&str; 3] = ["deepgram", "soniox", "speechmatics"];

struct Rig {
    service: SpeechStandIn,
    engine: std::sync::Arc<dyn Engine>,
    config: SpeechConfig,
}

impl Rig {
    async fn start(engine: &str, script: SpeechScript) -> Self {
        Self::with(engine, script, CloudNumbers::default()).await
    }

    async fn with(engine: &str, script: SpeechScript, numbers: CloudNumbers) -> Self {
        let service = SpeechStandIn::start(script).await.unwrap();
        let (url, key) = (service.url(), Some(ApiKey::new("secret-key-1")));
        let config = SpeechConfig {
            engine: engine.to_owned(),
            deepgram: DeepgramConfig { url: url.clone(), key: key.clone(), ..DeepgramConfig::default() },
            soniox: SonioxConfig { url: url.clone(), key: key.clone(), ..SonioxConfig::default() },
            speechmatics: SpeechmaticsConfig { url, key, ..SpeechmaticsConfig::default() },
            cloud: CloudConfig { numbers, key_terms: Vec::new() },
            // What is pushed here is no speech.
            gate: GateConfig { mode: GateMode::Off, ..GateConfig::default() },
            ..SpeechConfig::default()
        };
        Self { service, engine: build(&config).unwrap(), config }
    }

    fn open(&self, room: usize) -> Heard {
        let (sender, events) = mpsc::channel(room);
        Heard { stream: self.engine.open(spec(), sender).unwrap(), events, seen: Vec::new() }
    }
}

struct Heard {
    stream: Box<dyn Stream>,
    events: mpsc::Receiver<Event>,
    seen: Vec<Event>,
}

impl Heard {
    /// Pushes frames of 20 ms. How many were taken.
    fn push(&mut self, secs: f64) -> usize {
        (0..(secs * 50.0).round() as usize).filter(|_| self.stream.push(&[1; RATE_HZ / 50])).count()
    }

    /// Reads on until the stream ends, or an event is wanted.
    async fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
            let event = event.unwrap_or_else(|_| panic!("never came; seen: {:?}", self.seen)).unwrap();
            self.seen.push(event.clone());
            if wanted(&event) {
                return event;
            }
            let over = matches!(event, Event::Failed(_) | Event::Finished);
            assert!(!over, "ended before it came: {:?}", self.seen);
        }
    }

    async fn failed(&mut self) -> EngineError {
        match self.until(|event| matches!(event, Event::Failed(_))).await {
            Event::Failed(error) => error,
            _ => unreachable!(),
        }
    }

    fn texts(&self) -> Vec<String> {
        let texts = self.seen.iter().filter_map(|event| match event {
            Event::Words(words) => {
                Some(words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" "))
            }
            _ => None,
        });
        texts.collect()
    }

    fn covered(&self) -> u64 {
        let covered = self.seen.iter().filter_map(|event| match event {
            Event::Covered { until_sample } => Some(*until_sample),
            _ => None,
        });
        covered.max().unwrap_or(0)
    }
}

#[tokio::test]
async fn five_seconds_of_two_people_come_back_as_their_words() {
    for engine in ENGINES {
        let rig = Rig::start(engine, session(engine, "success")).await;
        let mut heard = rig.open(64);
        heard.push(5.0);
        heard.stream.finish();
        heard.until(|event| *event == Event::Finished).await;
        assert_eq!(heard.texts(), ["Please send the report.", "I will tomorrow."], "{engine}");
        assert_eq!(heard.covered(), 5 * RATE_HZ as u64, "{engine}");
        let times: Vec<_> = heard
            .seen
            .iter()
            .filter_map(|event| match event {
                Event::Words(words) => Some((words[0].start, words[0].speaker)),
                _ => None,
            })
            .collect();
        assert_eq!(times, [(0.2, 0), (2.0, 1)], "{engine}");
        let sessions = rig.service.when(|sessions| sessions[0].ended).await;
        assert_eq!(sessions[0].audio_bytes, 5 * 2 * RATE_HZ as u64, "{engine}: every sample is sent once");
        assert_eq!(rig.config.account.bytes(), 0, "{engine}");
        match engine {
            "deepgram" => assert_eq!(sessions[0].authorization.as_deref(), Some("Token secret-key-1")),
            "speechmatics" => assert_eq!(sessions[0].authorization.as_deref(), Some("Bearer secret-key-1")),
            _ => assert!(sessions[0].texts[0].contains(r#""api_key":"secret-key-1""#)),
        }
    }
}

#[tokio::test]
async fn a_flush_decides_what_was_heard_and_the_stream_goes_on() {
    for engine in ENGINES {
        let rig = Rig::start(engine, session(engine, "flush")).await;
        let mut heard = rig.open(64);
        heard.push(1.0);
        heard.stream.flush();
        heard.until(|event| *event == Event::Covered { until_sample: RATE_HZ as u64 }).await;
        assert_eq!(heard.texts(), ["Please send"], "{engine}");
        heard.push(0.5);
        heard.stream.finish();
        heard.until(|event| *event == Event::Finished).await;
    }
}

#[tokio::test]
async fn silence_is_covered_and_says_nothing() {
    for engine in ENGINES {
        let rig = Rig::start(engine, session(engine, "silence")).await;
        let mut heard = rig.open(64);
        heard.push(5.0);
        heard.stream.finish();
        heard.until(|event| *event == Event::Finished).await;
        assert_eq!(heard.texts(), [""; 0], "{engine}");
        assert!(heard.covered() >= 4 * RATE_HZ as u64, "{engine}");
    }
}

#[tokio::test]
async fn a_refusal_says_whether_the_key_the_account_or_the_service_is_at_fault() {
    let broken = |error: &EngineError| matches!(error, EngineError::Broken(_));
    let refused = |error: &EngineError| matches!(error, EngineError::Refused(_));
    let limited = |error: &EngineError| matches!(error, EngineError::Limited { .. });
    for engine in ENGINES {
        for (name, is_right) in [
            ("auth_error", &refused as &dyn Fn(&EngineError) -> bool),
            ("no_credit", &limited),
            ("rate_limit", &limited),
            ("server_error", &broken),
            ("mid_word_close", &broken),
            ("garbage", &broken),
        ] {
            let rig = Rig::start(engine, session(engine, name)).await;
            let mut heard = rig.open(64);
            heard.push(3.0);
            let error = heard.failed().await;
            assert!(is_right(&error), "{engine}/{name}: {error:?}");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
            assert_eq!(heard.push(0.1), 0, "a stream that failed takes nothing");
            assert_eq!(heard.events.recv().await, None, "nothing follows");
            assert_eq!(rig.service.sessions().len(), 1, "{engine}/{name}: one stream connects once");
        }
    }
}

#[tokio::test]
async fn the_wait_that_a_service_asks_for_is_told() {
    let rig = Rig::start("deepgram", session("deepgram", "rate_limit")).await;
    let mut heard = rig.open(64);
    heard.push(0.1);
    let wanted = EngineError::Limited {
        text: "deepgram is asked too much by this account (429 TOO_MANY_REQUESTS)".to_owned(),
        retry_after: Some(Duration::from_secs(7)),
    };
    assert_eq!(heard.failed().await, wanted);
}

#[tokio::test]
async fn a_service_that_never_answers_fails_in_time_and_holds_a_bounded_backlog() {
    let numbers = CloudNumbers {
        connect_max: Duration::from_millis(300),
        backlog_secs_max: 2,
        ..CloudNumbers::default()
    };
    let rig = Rig::with("deepgram", SpeechScript::BlackHole, numbers).await;
    let mut heard = rig.open(64);
    assert_eq!(heard.push(5.0), 100, "two seconds of twenty milliseconds");
    assert_eq!(rig.config.account.bytes(), 2 * 2 * RATE_HZ);
    let error = heard.failed().await;
    assert_eq!(error, EngineError::Broken("deepgram did not answer the connection within 300ms".to_owned()));
    rig.service.when(|sessions| sessions.len() == 1).await;
    assert_eq!(rig.config.account.bytes(), 0, "what failed holds nothing");
}

#[tokio::test]
async fn nobody_there_is_told_at_once() {
    let rig = Rig::start("speechmatics", SpeechScript::Deaf).await;
    drop(rig.service);
    let (sender, events) = mpsc::channel(8);
    let stream = rig.engine.open(spec(), sender).unwrap();
    let mut heard = Heard { stream, events, seen: Vec::new() };
    heard.push(0.1);
    let EngineError::Broken(text) = heard.failed().await else { panic!("not broken") };
    assert!(text.starts_with("speechmatics cannot be reached:"), "{text}");
}

#[tokio::test]
async fn a_service_that_does_not_speak_tls_is_an_error_and_no_panic() {
    let service = SpeechStandIn::start(SpeechScript::BlackHole).await.unwrap();
    let (url, key) = (service.url().replace("ws://", "wss://"), Some(ApiKey::new("secret-key-1")));
    let numbers = CloudNumbers { connect_max: Duration::from_secs(2), ..CloudNumbers::default() };
    let config = SpeechConfig {
        engine: "soniox".to_owned(),
        soniox: SonioxConfig { url, key, ..SonioxConfig::default() },
        cloud: CloudConfig { numbers, key_terms: Vec::new() },
        ..SpeechConfig::default()
    };
    let engine = build(&config).unwrap();
    let checked = tokio::task::spawn_blocking(move || engine.check());
    // It greets us with something else than a handshake.
    service.when(|sessions| sessions.len() == 1).await;
    drop(service);
    let Err(EngineError::Broken(text)) = checked.await.unwrap() else { panic!("not broken") };
    assert!(text.starts_with("soniox cannot be reached:"), "{text}");
}

#[tokio::test]
async fn a_service_that_reads_nothing_costs_no_more_than_the_backlog() {
    let numbers = CloudNumbers { backlog_secs_max: 2, ..CloudNumbers::default() };
    let rig = Rig::with("deepgram", SpeechScript::Deaf, numbers).await;
    let mut heard = rig.open(64);
    heard.push(0.1);
    rig.service.when(|sessions| sessions.first().is_some_and(|s| !s.target.is_empty())).await;
    // More than the system buffers for a socket, in any case.
    let mut refused = false;
    for _ in 0..2_000 {
        refused |= heard.push(1.0) < 50;
        assert!(rig.config.account.bytes() <= 2 * 2 * RATE_HZ);
        tokio::task::yield_now().await;
    }
    assert!(refused);
}

#[tokio::test]
async fn a_half_open_connection_is_given_up() {
    let numbers = CloudNumbers { silent_max: Duration::from_millis(600), ..CloudNumbers::default() };
    let rig = Rig::with("deepgram", SpeechScript::Deaf, numbers).await;
    let mut heard = rig.open(64);
    heard.push(0.5);
    let error = heard.failed().await;
    assert_eq!(error, EngineError::Broken("deepgram has said nothing for 600ms".to_owned()));
}

#[tokio::test]
async fn a_service_that_answers_pings_may_be_silent() {
    let numbers = CloudNumbers { silent_max: Duration::from_secs(2), ..CloudNumbers::default() };
    let words = SpeechScript::Words { every_secs: 1.0, first_secs: 60.0, word_secs: 0.3 };
    let rig = Rig::with("deepgram", words, numbers).await;
    let mut heard = rig.open(64);
    heard.push(0.5);
    let quiet = tokio::time::timeout(Duration::from_secs(3), heard.events.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    heard.stream.finish();
    heard.until(|event| *event == Event::Finished).await;
}

#[tokio::test]
async fn what_does_not_fit_is_skipped_told_and_counted_into_what_follows() {
    let numbers = CloudNumbers { backlog_secs_max: 2, ..CloudNumbers::default() };
    let words = SpeechScript::Words { every_secs: 10.0, first_secs: 2.2, word_secs: 0.3 };
    let rig = Rig::with("deepgram", words, numbers).await;
    let mut heard = rig.open(64);
    // The stand-in lives on this thread: nothing is sent while this thread pushes. Two seconds fit, one does not.
    assert_eq!(heard.push(3.0), 100);
    let taken = 2 * RATE_HZ as u64;
    rig.service.when(|sessions| sessions.first().is_some_and(|s| s.audio_bytes == 2 * taken)).await;
    assert_eq!(heard.push(1.0), 50);
    let wanted = Event::Skipped { from_sample: taken, samples: RATE_HZ as u64 };
    heard.until(|event| *event == wanted).await;
    let Event::Words(words) = heard.until(|event| matches!(event, Event::Words(_))).await else {
        unreachable!()
    };
    assert!((words[0].start - 3.2).abs() < 1e-6, "{words:?}");
}

#[tokio::test]
async fn a_session_that_takes_nothing_makes_the_connection_wait_and_loses_nothing() {
    let words = SpeechScript::Words { every_secs: 0.1, first_secs: 0.0, word_secs: 0.05 };
    let rig = Rig::start("deepgram", words).await;
    let mut heard = rig.open(1);
    heard.push(30.0);
    heard.stream.finish();
    // The service has said what it had to say long before anybody listens.
    rig.service.when(|sessions| sessions.first().is_some_and(|s| s.audio_bytes == 60 * RATE_HZ as u64)).await;
    heard.until(|event| *event == Event::Finished).await;
    let words: Vec<String> = (0..300).map(|number| format!("w{number}.")).collect();
    assert_eq!(heard.texts(), words);
}

#[tokio::test]
async fn a_stream_that_is_dropped_leaves_the_service() {
    for engine in ENGINES {
        let rig = Rig::start(engine, session(engine, "success")).await;
        let mut heard = rig.open(64);
        heard.push(1.0);
        rig.service
            .when(|sessions| sessions.first().is_some_and(|s| s.audio_bytes > 0 || !s.texts.is_empty()))
            .await;
        drop(heard);
        rig.service.when(|sessions| sessions[0].ended).await;
        assert_eq!(rig.config.account.bytes(), 0, "{engine}");
    }
}

#[tokio::test]
async fn nothing_is_connected_for_a_stream_without_audio() {
    let rig = Rig::start("soniox", session("soniox", "success")).await;
    let mut heard = rig.open(8);
    heard.stream.finish();
    assert_eq!(heard.until(|event| *event == Event::Finished).await, Event::Finished);
    assert!(rig.service.sessions().is_empty());
}

#[tokio::test]
async fn a_check_is_a_real_handshake() {
    for (engine, name, wanted) in [
        ("deepgram", "auth_error", Err("deepgram refused the key (401 INVALID_AUTH)")),
        ("soniox", "rate_limit", Err("soniox is asked too much by this account (429)")),
        ("speechmatics", "no_credit", Err("speechmatics has no credit left (timelimit_exceeded)")),
        ("deepgram", "talks", Ok("nova-3 at ws://127.0.0.1:")),
    ] {
        let words = SpeechScript::Words { every_secs: 1.0, first_secs: 60.0, word_secs: 0.3 };
        let script = if name == "talks" { words } else { session(engine, name) };
        let rig = Rig::start(engine, script).await;
        let checked = tokio::task::spawn_blocking(move || (rig.engine.check(), rig.service)).await.unwrap().0;
        match (checked, wanted) {
            (Ok(finding), Ok(begins)) => assert!(finding.starts_with(begins), "{finding}"),
            (Err(error), Err(begins)) => assert!(error.to_string().starts_with(begins), "{error}"),
            (checked, wanted) => panic!("{engine}: {checked:?} is not {wanted:?}"),
        }
    }
}
