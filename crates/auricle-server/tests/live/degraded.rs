//! Speech engines that fail: the session stays, the client is told, and every word is there in the end, where it was said.
//!
//! The words are tones in the audio, so that whoever hears a stretch hears what was said in it.

use std::path::PathBuf;
use std::time::Duration;

use auricle_speech::scripted::tones;
use auricle_wire::event::Event;
use serde_json::Value;

use crate::rig::{Device, Rig, eventually};

const RATE: usize = 16_000;
/// One word every half second.
const WORD_EVERY: usize = RATE / 2;

/// A server whose engine can be troubled, quick to notice and to try again.
struct Troubled {
    rig: Rig,
    trouble: PathBuf,
    _dir: tempfile::TempDir,
}

impl Troubled {
    async fn start(engines: &str, settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::TempDir::new().unwrap();
        let (script, trouble) = (dir.path().join("tones.json"), dir.path().join("trouble"));
        let text = serde_json::json!({ "hears": "tones", "trouble_file": trouble });
        std::fs::write(&script, text.to_string()).unwrap();
        let script = script.display().to_string();
        let mut all = vec![
            ("speech.engine", engines),
            ("speech.script", script.as_str()),
            ("limits.speech_silent_max", "1s"),
            ("limits.speech_breaker_open_first", "200ms"),
            ("limits.speech_breaker_open_max", "500ms"),
            ("limits.speech_limited_for", "500ms"),
            ("limits.speech_return_within", "500ms"),
            ("limits.engine_reopen_first", "200ms"),
            ("limits.engine_reopen_max", "500ms"),
        ];
        all.retain(|(key, _)| !settings.iter().any(|(other, _)| other == key));
        all.extend_from_slice(settings);
        Self { rig: Rig::start(&all).await, trouble, _dir: dir }
    }

    fn set(&self, mode: &str) {
        std::fs::write(&self.trouble, mode).unwrap();
    }

    /// The conversation once it has `count` words: each once, in order, and as far apart as they were said.
    async fn has_all(&self, id: &str, count: usize) -> Value {
        let path = format!("/v1/conversations/{id}");
        let conversation = eventually(&format!("{count} words"), async || {
            let (_, conversation) = self.rig.get(&path).await;
            (words(&conversation).len() >= count).then_some(conversation)
        })
        .await;
        let heard = words(&conversation);
        let said: Vec<String> = (0..count).map(|n| format!("w{n}.")).collect();
        assert_eq!(heard.iter().map(|(text, _)| text.clone()).collect::<Vec<_>>(), said);
        // What repair hears before the first live word may move the zero: words keep their distances.
        let zero = heard[0].1;
        for (n, (text, start)) in heard.iter().enumerate() {
            let Some(start) = start else { continue };
            let said = (n * WORD_EVERY) as f64 / RATE as f64;
            let at = start - zero.unwrap();
            assert!((at - said).abs() < 0.5, "{text} said at {said}, stored at {at}");
            assert!(*start >= 0.0, "{text} at {start}");
        }
        conversation
    }
}

/// The words in order, with the start of each that begins a segment.
fn words(conversation: &Value) -> Vec<(String, Option<f64>)> {
    let mut segments: Vec<&Value> =
        conversation["transcript_segments"].as_array().into_iter().flatten().collect();
    segments.sort_by(|a, b| a["start"].as_f64().unwrap().total_cmp(&b["start"].as_f64().unwrap()));
    let of = |segment: &Value| {
        let start = segment["start"].as_f64();
        let text = segment["text"].as_str().unwrap().to_owned();
        let words: Vec<_> = text.split(' ').map(str::to_owned).collect();
        words
            .into_iter()
            .enumerate()
            .map(move |(n, word)| (word, start.filter(|_| n == 0)))
            .collect::<Vec<_>>()
    };
    segments.into_iter().flat_map(of).collect()
}

/// Somebody who speaks without a pause.
struct Voice {
    pcm: Vec<i16>,
    at: usize,
}

impl Voice {
    fn new() -> Self {
        let mut pcm = tones::voice(40.0);
        (0..79).for_each(|n| tones::say(&mut pcm, RATE / 5 + n * WORD_EVERY, n as u32));
        Self { pcm, at: 0 }
    }

    /// Words that were said as a whole.
    fn said(&self) -> usize {
        (self.at - RATE / 5 - tones::WORD_SAMPLES) / WORD_EVERY + 1
    }

    /// As it is spoken: real time, since an engine that hangs is found by the clock.
    async fn speak(&mut self, device: &mut Device, secs: f64) {
        let begun = tokio::time::Instant::now();
        for frame in 0..(secs * 50.0) as u32 {
            let bytes =
                self.pcm[self.at..self.at + 320].iter().flat_map(|sample| sample.to_le_bytes()).collect();
            assert!(device.client.send_audio(bytes).await, "the connection is gone");
            self.at += 320;
            tokio::time::sleep_until(begun + Duration::from_millis(20) * frame).await;
        }
    }
}

fn is_degraded(event: &Event) -> bool {
    matches!(event, Event::SttDegraded { .. })
}

fn is_recovered(event: &Event) -> bool {
    matches!(event, Event::SttRecovered { .. })
}

#[tokio::test]
async fn p2_p4_every_way_of_failing_leaves_the_session_and_every_word() {
    let ways = ["refuse", "limit", "accept_then_refuse", "hang", "drop"].map(async |mode| {
        let troubled = Troubled::start("scripted", &[]).await;
        let (mut device, mut voice) = (troubled.rig.device().await, Voice::new());
        let id = device.conversation().await;
        voice.speak(&mut device, 2.0).await;
        troubled.set(mode);
        voice.speak(&mut device, 4.0).await;
        troubled.set("none");
        voice.speak(&mut device, 6.0).await;
        let told = device.event("stt_degraded", is_degraded).await;
        let Event::SttDegraded { engine, since, next, .. } = told else { unreachable!() };
        assert_eq!((engine.as_deref(), next), (Some("scripted"), None), "{mode}");
        assert!(since.is_some());
        device.event("stt_recovered", is_recovered).await;
        let conversation = troubled.has_all(&id, voice.said()).await;
        let providers = conversation["transcript_segments"].as_array().unwrap();
        assert!(providers.iter().all(|segment| segment["stt_provider"] == "scripted"), "{mode}");
        // An Omi app knows the statuses around it.
        let statuses: Vec<_> = device
            .seen
            .iter()
            .filter_map(|received| match received.event() {
                Some(Event::ServiceStatus { status, .. }) => Some(status.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(statuses[statuses.len() - 2..], ["stt_initiating", "ready"], "{mode}: {statuses:?}");
    });
    futures_util::future::join_all(ways).await;
}

/// The engine is black-holed in mid-speech for longer than memory bridges, as with 60 s and the default of 30 s: the session stays, and
/// every word is in its conversation, in order, within half a second of where it was said.
#[tokio::test]
async fn p4_an_outage_longer_than_memory_keeps_is_heard_from_disk_in_its_place() {
    let troubled = Troubled::start("scripted", &[("limits.speech_replay_secs_max", "2")]).await;
    let (mut device, mut voice) = (troubled.rig.device().await, Voice::new());
    let id = device.conversation().await;
    voice.speak(&mut device, 2.0).await;
    troubled.set("hang");
    voice.speak(&mut device, 7.0).await;
    troubled.set("none");
    voice.speak(&mut device, 5.0).await;
    troubled.has_all(&id, voice.said()).await;
    device.event("stt_recovered", is_recovered).await;
    assert_eq!(device.conversation().await, id, "the session stayed in its conversation");
    let told = device.seen.iter().filter(|received| received.event().is_some_and(is_degraded)).count();
    assert!(told <= 1, "told {told} times");
}

#[tokio::test]
async fn l32_what_was_said_while_no_engine_heard_from_the_beginning_is_there_once_one_does() {
    let settings = [("limits.speech_replay_secs_max", "1"), ("limits.record_wait", "500ms")];
    let troubled = Troubled::start("scripted", &settings).await;
    troubled.set("refuse");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (mut device, mut voice) = (troubled.rig.device().await, Voice::new());
    let id = device.conversation().await;
    voice.speak(&mut device, 4.0).await;
    // Ended while nothing could be heard: it is not empty.
    let (code, _) = troubled.rig.post("/v1/conversations").await;
    assert!(code < 500, "{code}");
    let said = voice.said();
    troubled.set("none");
    troubled.has_all(&id, said).await;
}

#[tokio::test]
async fn the_next_engine_hears_on_and_the_first_again_once_it_works() {
    let troubled = Troubled::start("scripted,scripted_spare", &[]).await;
    let (mut device, mut voice) = (troubled.rig.device().await, Voice::new());
    let id = device.conversation().await;
    voice.speak(&mut device, 2.0).await;
    troubled.set("refuse");
    voice.speak(&mut device, 3.0).await;
    let told = device.event("stt_degraded", is_degraded).await;
    let Event::SttDegraded { next, .. } = told else { unreachable!() };
    assert_eq!(next.as_deref(), Some("scripted_spare"));
    let Event::SttRecovered { engine, .. } = device.event("stt_recovered", is_recovered).await else {
        unreachable!()
    };
    assert_eq!(engine.as_deref(), Some("scripted_spare"));
    let (_, ready) = troubled.rig.probe("/readyz").await;
    let engines =
        ready["dependencies"]["speech"]["engines"].as_array().unwrap_or_else(|| panic!("{ready}")).clone();
    assert_eq!(engines[1]["works"], true, "{ready}");
    troubled.set("none");
    voice.speak(&mut device, 12.0).await;
    let conversation = troubled.has_all(&id, voice.said()).await;
    let segments = conversation["transcript_segments"].as_array().unwrap().clone();
    let mut whose: Vec<_> =
        segments.iter().map(|segment| segment["stt_provider"].as_str().unwrap().to_owned()).collect();
    whose.dedup();
    assert!(whose.contains(&"scripted_spare".to_owned()), "{whose:?}");
}

#[tokio::test]
async fn a_conversation_of_a_session_that_left_in_the_outage_is_heard_when_the_engine_is_back() {
    let troubled = Troubled::start("scripted", &[("limits.speech_replay_secs_max", "1")]).await;
    let (mut device, mut voice) = (troubled.rig.device().await, Voice::new());
    let id = device.conversation().await;
    voice.speak(&mut device, 2.0).await;
    troubled.set("refuse");
    voice.speak(&mut device, 3.0).await;
    let said = voice.said();
    device.client.close().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    troubled.set("none");
    troubled.has_all(&id, said).await;
}

#[tokio::test]
async fn p4_no_word_is_cut_in_two_where_memory_ends_streams_fail_or_the_live_stream_takes_over() {
    // Words come twice a second: each server's outage begins and ends at another place in them.
    let outages = (0..8).map(async |n| {
        let mode = if n % 2 == 0 { "hang" } else { "refuse" };
        let troubled = Troubled::start("scripted", &[("limits.speech_replay_secs_max", "2")]).await;
        let (mut device, mut voice) = (troubled.rig.device().await, Voice::new());
        let id = device.conversation().await;
        voice.speak(&mut device, 2.0 + 0.06 * f64::from(n)).await;
        troubled.set(mode);
        voice.speak(&mut device, 10.0 + 0.02 * f64::from(n)).await;
        troubled.set("none");
        voice.speak(&mut device, 6.0).await;
        troubled.has_all(&id, voice.said()).await;
    });
    futures_util::future::join_all(outages).await;
}

#[tokio::test]
async fn p4_an_outage_that_is_kept_is_heard_again_whole_and_each_word_once() {
    let settings = [("limits.speech_replay_secs_max", "2"), ("audio.keep", "1d")];
    let troubled = Troubled::start("scripted", &settings).await;
    let (mut device, mut voice) = (troubled.rig.device().await, Voice::new());
    let id = device.conversation().await;
    voice.speak(&mut device, 2.0).await;
    troubled.set("hang");
    voice.speak(&mut device, 7.0).await;
    troubled.set("none");
    voice.speak(&mut device, 5.0).await;
    let said = voice.said();
    troubled.has_all(&id, said).await;
    assert_eq!(troubled.rig.post("/v1/conversations").await.0, 200);
    device.client.close().await;
    troubled.rig.conversation_when(&id, "completed").await;
    let spool = troubled.rig.data().join("spool");
    eventually("all audio is kept", async || (std::fs::read_dir(&spool).unwrap().count() == 0).then_some(()))
        .await;
    let path = format!("/v1/conversations/{id}/retranscribe");
    assert_eq!(troubled.rig.post(&path).await.0, 202);
    let done = eventually("it is heard again", async || {
        let (_, work) = troubled.rig.get(&path).await;
        matches!(work["status"].as_str(), Some("done" | "failed")).then_some(work)
    })
    .await;
    assert_eq!(done["status"], "done", "{done}");
    let conversation = troubled.has_all(&id, said).await;
    assert_eq!(conversation["revision"], 2);
}
