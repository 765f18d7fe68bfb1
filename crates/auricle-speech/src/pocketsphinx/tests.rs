use std::time::Duration;

use tokio::sync::mpsc;

use super::*;
use crate::engine::Event;

fn config(decoders: usize) -> PocketSphinxConfig {
    PocketSphinxConfig { decoders: NonZeroUsize::new(decoders), ..PocketSphinxConfig::default() }
}

fn spec(rate: u32, language: &str) -> StreamSpec {
    StreamSpec {
        sample_rate_hz: rate,
        language: language.into(),
        label: "test".into(),
        key_terms: Vec::new(),
        interim: false,
    }
}

/// "Please send the report before Friday." by flite's voice `slt`, then a pause and "Thank you very much."
fn speech() -> Vec<i16> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/please-send.wav");
    auricle_audio::file::read(std::fs::File::open(path).unwrap(), 16_000).unwrap()
}

async fn hear(engine: &PocketSphinx, pcm: &[i16], rate: u32) -> Vec<Event> {
    let (sender, mut events) = mpsc::channel(64);
    let mut stream = engine.open(spec(rate, "en"), sender).unwrap();
    for chunk in pcm.chunks(rate as usize / 50) {
        stream.push(chunk);
    }
    stream.finish();
    let mut all = Vec::new();
    while let Some(event) = tokio::time::timeout(Duration::from_secs(60), events.recv()).await.unwrap() {
        let last = matches!(event, Event::Finished | Event::Failed(_));
        all.push(event);
        if last {
            break;
        }
    }
    all
}

fn sentences(events: &[Event]) -> Vec<String> {
    let words = events.iter().filter_map(|event| match event {
        Event::Words(words) => {
            Some(words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" "))
        }
        _ => None,
    });
    words.collect()
}

#[tokio::test]
async fn speech_becomes_sentences_with_times_and_all_of_it_is_covered() {
    let engine = PocketSphinx::new(&config(1));
    let pcm = speech();
    let events = hear(&engine, &pcm, 16_000).await;
    let said = sentences(&events);
    assert!(said.len() >= 2, "{said:?}");
    assert!(said[0].contains("report") && said[0].starts_with(char::is_uppercase), "{said:?}");
    assert!(said.iter().all(|sentence| sentence.ends_with(['.', '?'])), "{said:?}");
    let mut time = 0.0;
    for event in &events {
        if let Event::Words(words) = event {
            for word in words {
                assert!(word.start >= time - 0.01 && word.end >= word.start, "{word:?}");
                time = word.start;
            }
        }
    }
    let Some(Event::Covered { until_sample }) = events.iter().rfind(|e| matches!(e, Event::Covered { .. }))
    else {
        panic!("no coverage in {events:?}");
    };
    assert_eq!(*until_sample, pcm.len() as u64);
    assert_eq!(events.last(), Some(&Event::Finished));
}

#[tokio::test]
async fn each_sentence_has_its_own_time_however_many_the_recogniser_has_heard() {
    let engine = PocketSphinx::new(&config(1));
    let mut once = speech();
    once.resize(once.len() + 16_000, 0);
    let period = once.len() as f64 / 16_000.0;
    let events = hear(&engine, &once.repeat(3), 16_000).await;
    let starts: Vec<f64> = events
        .iter()
        .filter_map(|event| match event {
            Event::Words(words) if words[0].text.starts_with("Please") => Some(words[0].start),
            _ => None,
        })
        .collect();
    assert_eq!(starts.len(), 3, "{events:?}");
    for (turn, start) in starts.iter().enumerate() {
        let expected = starts[0] + turn as f64 * period;
        assert!((start - expected).abs() < 0.15, "sentence {turn} at {start:.2} s, expected {expected:.2} s");
    }
}

#[tokio::test]
async fn more_streams_than_recognisers_are_all_heard() {
    let engine = Arc::new(PocketSphinx::new(&config(1)));
    let pcm = Arc::new(speech());
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (engine, pcm) = (Arc::clone(&engine), Arc::clone(&pcm));
            tokio::spawn(async move { sentences(&hear(&engine, &pcm, 16_000).await).len() })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap() >= 2);
    }
}

#[tokio::test]
async fn positions_are_in_the_streams_own_rate() {
    let engine = PocketSphinx::new(&config(1));
    let pcm = auricle_audio::resample::whole(&speech(), 16_000, 8_000);
    let events = hear(&engine, &pcm, 8_000).await;
    let covered = events.iter().rev().find_map(|event| match event {
        Event::Covered { until_sample } => Some(*until_sample),
        _ => None,
    });
    let seconds = covered.unwrap() as f64 / 8_000.0;
    assert!((seconds - pcm.len() as f64 / 8_000.0).abs() < 0.1, "{seconds}");
    assert!(!sentences(&events).is_empty());
}

#[tokio::test]
async fn what_it_cannot_hear_is_refused_with_what_it_can() {
    let (sender, _events) = mpsc::channel(1);
    let engine = PocketSphinx::new(&config(1));
    let refused = engine.open(spec(16_000, "fr"), sender.clone()).err().unwrap();
    assert!(refused.to_string().contains("English only"), "{refused}");
    let elsewhere = PocketSphinxConfig { model_dir: Some("/nowhere".into()), ..config(1) };
    let missing = PocketSphinx::new(&elsewhere).open(spec(16_000, "en"), sender).err().unwrap();
    assert!(missing.to_string().contains("apt-get install"), "{missing}");
}

#[tokio::test]
async fn a_dropped_stream_frees_its_recogniser() {
    let engine = PocketSphinx::new(&config(1));
    let (sender, _events) = mpsc::channel(64);
    let mut abandoned = engine.open(spec(16_000, "en"), sender).unwrap();
    let pcm = speech();
    abandoned.push(&pcm[..pcm.len() / 3]);
    drop(abandoned);
    assert!(!sentences(&hear(&engine, &pcm, 16_000).await).is_empty());
}

#[tokio::test]
async fn audio_that_waits_for_a_recogniser_is_counted_until_it_is_decided() {
    let account = Account::default();
    let engine = PocketSphinx::new(&config(1)).counted_in(account.clone());
    let (sender, mut events) = mpsc::channel(64);
    let mut stream = engine.open(spec(16_000, "en"), sender).unwrap();
    let mut most = 0;
    for chunk in speech().chunks(320) {
        stream.push(chunk);
        most = most.max(account.bytes());
    }
    assert!(most > 16_000, "half a second of speech at least: {most} bytes");
    stream.finish();
    let finished =
        async { while !matches!(events.recv().await.unwrap(), Event::Finished | Event::Failed(_)) {} };
    tokio::time::timeout(Duration::from_secs(60), finished).await.unwrap();
    // The recogniser's thread counts just behind the event.
    drop((stream, engine));
    tokio::time::timeout(Duration::from_secs(60), async {
        while account.bytes() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn words_are_told_while_they_are_spoken_if_that_was_asked_for() {
    let engine = PocketSphinx::new(&config(1));
    let (sender, mut events) = mpsc::channel(64);
    let spec = StreamSpec { interim: true, ..spec(16_000, "en") };
    let mut stream = engine.open(spec, sender).unwrap();
    let pcm = speech();
    let (begun, rest) = pcm.split_at(16_000 * 3 / 2);
    for chunk in begun.chunks(320) {
        assert!(stream.push(chunk));
    }
    let mut next =
        async || tokio::time::timeout(Duration::from_secs(60), events.recv()).await.unwrap().unwrap();
    // The sentence has not ended, so nothing can be final.
    let changing = loop {
        match next().await {
            Event::Interim(words) => break words,
            Event::Covered { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(changing[0].text.starts_with(char::is_uppercase) && changing[0].start < 1.5, "{changing:?}");
    assert!(changing.iter().all(|word| !word.text.ends_with(['.', '?']) && word.end <= 1.6), "{changing:?}");
    for chunk in rest.chunks(320) {
        assert!(stream.push(chunk));
    }
    stream.finish();
    let (mut said, mut last) = (Vec::new(), None);
    while last != Some(Event::Finished) {
        let event = next().await;
        said.push(event.clone());
        last = Some(event);
    }
    let sentences = sentences(&said);
    assert!(sentences[0].contains("report") && sentences[0].ends_with(['.', '?']), "{sentences:?}");
}
