//! Two halves on one folder, with a network between them that fails in every way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use auricle_server::config::Shape;
use auricle_testkit::{Act, Fault, FaultyProxy, Received, ScriptedServer, SinkMode, WebhookSink};
use auricle_wire::pusher as wire;
use serde_json::Value;
use tempfile::TempDir;

use crate::rig::{Rig, eventually, texts_of};

/// A listening half that leaves jobs to the pusher for as long as a test may take.
const NEVER: (&str, &str) = ("limits.fallback_after", "10m");
/// … or takes them soon.
const SOON: (&str, &str) = ("limits.fallback_after", "300ms");
/// A link that comes back in a test's time.
const QUICK: [(&str, &str); 5] = [
    ("limits.link_leave_max", "200ms"),
    ("limits.link_backoff_first", "50ms"),
    ("limits.link_backoff_max", "200ms"),
    ("limits.link_degraded_for", "200ms"),
    ("limits.link_flush_every", "50ms"),
];

/// How much audio it takes to the end of each sentence of the script.
const SENTENCES: [f64; 4] = [2.0, 2.0, 5.6, 2.0];

pub(crate) struct Halves {
    pub(crate) listen: Rig,
    pub(crate) pusher: Rig,
    pub(crate) network: FaultyProxy,
}

impl Halves {
    pub(crate) async fn start(listening: &[(&str, &str)], fault: Fault) -> Self {
        let dir = Arc::new(TempDir::new().unwrap());
        let pusher = Rig::start_as(Shape::Pusher, Arc::clone(&dir), &[]).await;
        let network = FaultyProxy::start(pusher.public()).await.unwrap();
        network.set(fault);
        let url = format!("http://{}", network.address());
        let settings = [listening, &QUICK, &[("pusher.url", &url)]].concat();
        let listen = Rig::start_as(Shape::Listen, dir, &settings).await;
        Self { listen, pusher, network }
    }

    /// What the listening half knows of its links.
    pub(crate) async fn links(&self) -> Value {
        self.listen.probe("/readyz").await.1["dependencies"]["pusher"].clone()
    }

    pub(crate) async fn linked(&self) {
        eventually("a link", async || (self.links().await["connected"] == 1).then_some(())).await;
    }
}

/// A listening half whose pusher plays `scripts`, one for each link.
async fn listen_to(scripts: Vec<Vec<Act>>, settings: &[(&str, &str)]) -> (Rig, ScriptedServer) {
    let pusher = ScriptedServer::start(scripts, HashMap::new()).await.unwrap();
    let url = pusher.url();
    let settings = [settings, &QUICK, &[("pusher.url", &url)]].concat();
    let listen = Rig::start_as(Shape::Listen, Arc::new(TempDir::new().unwrap()), &settings).await;
    (listen, pusher)
}

/// Says two sentences and ends the conversation; its id.
pub(crate) async fn converse(rig: &Rig) -> String {
    let mut device = rig.device().await;
    let id = device.conversation().await;
    device.speak(4.0).await;
    device.texts_up_to("tomorrow").await;
    end(rig, &id).await;
    device.client.close().await;
    id
}

/// Ends the conversation without waiting for its record.
pub(crate) async fn end(rig: &Rig, id: &str) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let asked = client.post(format!("http://{}/v1/conversations", rig.public())).send();
    let path = format!("/v1/conversations/{id}");
    let ended =
        eventually("its end", async || (rig.get(&path).await.1["status"] != "in_progress").then_some(()));
    tokio::select! {
        () = ended => {}
        () = async { let _ = asked.await; std::future::pending::<()>().await } => {}
    }
}

/// Waits until the attempts of this test's processes have completed so many jobs, and no more: they are counted after their
/// record is there.
pub(crate) async fn completed_exactly(rig: &Rig, jobs: u64) {
    const COUNT: &str = "auricle_job_attempts_total{outcome=\"completed\"} ";
    let counted = async || -> u64 {
        let metrics = rig.metrics().await;
        metrics.lines().find_map(|line| line.strip_prefix(COUNT)).map_or(0, |count| count.parse().unwrap())
    };
    let reached = async || Some(counted().await).filter(|count| *count >= jobs);
    assert_eq!(eventually("the attempts", reached).await, jobs);
}

fn requests(heard: &[Vec<u8>]) -> Vec<wire::ProcessRequest> {
    let request = |message: &Vec<u8>| match wire::decode(message) {
        Ok(wire::Frame::ProcessRequest(request)) => Some(request),
        _ => None,
    };
    heard.iter().filter_map(request).collect()
}

#[tokio::test]
async fn while_the_pusher_is_there_it_makes_the_records_and_the_client_hears_of_them() {
    let halves = Halves::start(&[NEVER], Fault::None).await;
    let mut device = halves.listen.device().await;
    let id = device.conversation().await;
    halves.linked().await;
    device.speak(4.0).await;
    device.texts_up_to("tomorrow").await;
    end(&halves.listen, &id).await;
    device
        .event("memory_created", |event| {
            matches!(event, auricle_wire::event::Event::MemoryCreated { memory, .. } if memory.id == id)
        })
        .await;
    completed_exactly(&halves.listen, 1).await;
}

#[tokio::test]
async fn l02_l29_with_the_pusher_black_holed_from_the_start_sessions_are_ready_and_records_are_made() {
    let halves = Halves::start(&[NEVER], Fault::BlackHole).await;
    let id = converse(&halves.listen).await;
    assert_eq!(halves.links().await["connected"], 0);
    halves.listen.conversation_when(&id, "completed").await;
}

#[tokio::test]
async fn l01_a_request_into_a_dead_connection_costs_only_the_patience() {
    let halves = Halves::start(&[SOON], Fault::None).await;
    let mut device = halves.listen.device().await;
    let id = device.conversation().await;
    halves.linked().await;
    halves.network.set(Fault::HalfOpen);
    device.speak(4.0).await;
    let shown = device.texts_up_to("tomorrow").await;
    end(&halves.listen, &id).await;
    let record = halves.listen.conversation_when(&id, "completed").await;
    assert_eq!(texts_of(&record), shown);
}

#[tokio::test]
async fn p2_p4_a_network_that_flaps_and_cuts_frames_costs_no_session_and_no_record() {
    let (up, down) = (Duration::from_millis(60), Duration::from_millis(60));
    // One count for the process, whose three rigs come one after the other.
    let mut completed = 0;
    for fault in [Fault::Flap { up, down }, Fault::ResetAfter(300), Fault::Slow { bytes_a_second: 100 }] {
        let halves = Halves::start(&[SOON, ("pusher.audio", "true")], fault).await;
        let mut device = halves.listen.device().await;
        for secs in SENTENCES.into_iter().take(3) {
            let id = device.conversation().await;
            device.speak(secs).await;
            device.until("words", Received::is_segments).await;
            end(&halves.listen, &id).await;
            halves.listen.conversation_when(&id, "completed").await;
            device.seen.clear();
            device.conversation().await;
        }
        completed += 3;
        completed_exactly(&halves.listen, completed).await;
    }
}

#[tokio::test]
async fn l28_a_pusher_that_throws_everybody_out_at_once_opens_the_breaker() {
    let scripts = vec![vec![Act::Close(1011, "Dirty state")]; 50];
    let settings = [NEVER, ("limits.breaker_failures", "3")];
    let (listen, pusher) = listen_to(scripts, &settings).await;
    let _device = listen.device().await;
    eventually("an open breaker", async || {
        let links = listen.probe("/readyz").await.1["dependencies"]["pusher"].clone();
        (links["breaker"] == "open").then_some(())
    })
    .await;
    // Nobody is let through while it is open.
    let tries = pusher.sessions().len();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!((tries, pusher.sessions().len()), (3, 3));
}

#[tokio::test]
async fn an_answer_or_some_time_says_that_the_pusher_is_there_and_half_open_ends() {
    // Of a link that stays and says nothing, or one that answers at once.
    for lasting in ["300ms", "10m"] {
        let mut said = Vec::new();
        let result = wire::ProcessResult { conversation_id: "any".into(), ..Default::default() };
        wire::Frame::ProcessResult(result).encode(&mut said);
        let stays = if lasting == "10m" { vec![Act::SayBinary(said), Act::Stay] } else { vec![Act::Stay] };
        let scripts = vec![vec![Act::Vanish], stays];
        let settings = [
            NEVER,
            ("limits.breaker_failures", "1"),
            ("limits.breaker_open_for", "200ms"),
            ("limits.link_stable_after", lasting),
        ];
        let (listen, pusher) = listen_to(scripts, &settings).await;
        let _device = listen.device().await;
        eventually("a closed breaker", async || {
            let links = listen.probe("/readyz").await.1["dependencies"]["pusher"].clone();
            (pusher.sessions().len() == 2 && links["breaker"] == "closed").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn l03_l17_a_pusher_that_never_answers_costs_only_the_patience() {
    let (listen, pusher) = listen_to(vec![vec![Act::Stay], vec![Act::Stay]], &[SOON]).await;
    let id = converse(&listen).await;
    listen.conversation_when(&id, "completed").await;
    let heard = eventually("the request", async || {
        pusher.sessions().first().map(|link| requests(&link.binary)).filter(|asked| !asked.is_empty())
    })
    .await;
    assert_eq!(heard[0].conversation_id, id);
    completed_exactly(&listen, 1).await;
}

#[tokio::test]
async fn l15_a_pusher_that_answers_with_an_error_ends_the_request_and_not_the_conversation() {
    let id = "0f6c2c1e-6a0b-4a53-9d0e-3a7e5f3a9b11";
    let mut no = Vec::new();
    let error = Some("division by zero".to_owned());
    let result = wire::ProcessResult { conversation_id: id.into(), error, ..Default::default() };
    wire::Frame::ProcessResult(result).encode(&mut no);
    let script = vec![Act::HearUntil(vec![104, 0, 0, 0]), Act::SayBinary(no), Act::Stay];
    let (listen, pusher) = listen_to(vec![script], &[SOON]).await;
    let mut device = listen.device_as(listen.connect().param("client_conversation_id", id)).await;
    assert_eq!(device.conversation().await, id);
    device.speak(2.0).await;
    device.texts_up_to("report").await;
    end(&listen, id).await;
    listen.conversation_when(id, "completed").await;
    assert_eq!(requests(&pusher.sessions()[0].binary).len(), 1);
}

#[tokio::test]
async fn l04_more_requests_than_a_link_holds_are_all_processed() {
    let settings = [SOON, ("limits.link_requests_max", "1")];
    let (listen, _pusher) = listen_to(vec![vec![Act::Stay]], &settings).await;
    let mut device = listen.device().await;
    let mut ids = Vec::new();
    for secs in SENTENCES {
        let id = device.conversation().await;
        device.speak(secs).await;
        device.until("words", Received::is_segments).await;
        end(&listen, &id).await;
        ids.push(id);
        device.seen.clear();
        device.conversation().await;
    }
    for id in &ids {
        listen.conversation_when(id, "completed").await;
    }
    completed_exactly(&listen, 4).await;
}

#[tokio::test]
async fn l05_a_session_that_ends_with_its_request_unanswered_leaves_the_row_to_whoever_looks() {
    let (listen, _pusher) = listen_to(vec![vec![Act::Stay]], &[SOON]).await;
    let mut device = listen.device_as(listen.connect().param("source", "desktop")).await;
    let id = device.conversation().await;
    device.speak(4.0).await;
    device.texts_up_to("tomorrow").await;
    device.client.close().await;
    listen.conversation_when(&id, "completed").await;
}

#[tokio::test]
async fn l09_without_a_pusher_configured_records_are_made_here() {
    let listen = Rig::start_as(Shape::Listen, Arc::new(TempDir::new().unwrap()), &[SOON]).await;
    let id = converse(&listen).await;
    listen.conversation_when(&id, "completed").await;
}

#[tokio::test]
async fn l11_a_request_outlives_the_link_that_brought_it() {
    let halves = Halves::start(&[NEVER], Fault::None).await;
    let mut device = halves.listen.device_as(halves.listen.connect().param("source", "desktop")).await;
    let id = device.conversation().await;
    halves.linked().await;
    device.speak(4.0).await;
    device.texts_up_to("tomorrow").await;
    // Its close ends the conversation and, once the request is sent, the link.
    device.client.close().await;
    halves.listen.conversation_when(&id, "completed").await;
    eventually("the link's end", async || (halves.links().await["connected"] == 0).then_some(())).await;
    completed_exactly(&halves.listen, 1).await;
}

#[tokio::test]
async fn l06_l22_losing_all_forwarded_audio_and_words_loses_no_word_of_the_transcript() {
    let settings = [SOON, ("pusher.audio", "true"), ("limits.link_audio_bytes_max", "1KiB")];
    let halves = Halves::start(&settings, Fault::Refuse).await;
    let id = converse(&halves.listen).await;
    let record = halves.listen.conversation_when(&id, "completed").await;
    assert_eq!(texts_of(&record), "Please send the report before Friday. I will send it tomorrow morning.");
}

#[tokio::test]
async fn d03_d05_a_new_session_asks_for_nothing_that_it_did_not_end_itself() {
    let (listen, pusher) = listen_to(vec![vec![Act::Stay]; 3], &[NEVER]).await;
    let first = converse(&listen).await;
    let second = converse(&listen).await;
    let third = listen.device().await;
    let links = eventually("three links", async || {
        let links = pusher.sessions();
        (links.iter().filter(|link| !requests(&link.binary).is_empty()).count() == 2 && links.len() == 3)
            .then_some(links)
    })
    .await;
    let asked: Vec<_> = links.iter().flat_map(|link| requests(&link.binary)).collect();
    let ids: Vec<_> = asked.iter().map(|request| request.conversation_id.as_str()).collect();
    assert_eq!(ids, [first.as_str(), second.as_str()]);
    drop(third);
}

#[tokio::test]
async fn s03_p7_a_pusher_that_drains_in_the_middle_is_replaced_without_loss_or_repetition() {
    let mut halves = Halves::start(&[SOON], Fault::None).await;
    let mut ids = vec![converse(&halves.listen).await];
    halves.pusher.stop().await;
    ids.push(converse(&halves.listen).await);
    halves.pusher.restart().await;
    ids.push(converse(&halves.listen).await);
    for id in &ids {
        halves.listen.conversation_when(id, "completed").await;
    }
    completed_exactly(&halves.listen, 3).await;
}

#[tokio::test]
async fn an_omi_pusher_of_the_second_generation_gets_the_bare_request_once() {
    let scripts = vec![vec![Act::Stay], vec![Act::Stay]];
    let (listen, pusher) = listen_to(scripts, &[NEVER, ("pusher.protocol", "omi-r2")]).await;
    let id = converse(&listen).await;
    let body = eventually("the request", async || {
        let links = pusher.sessions();
        let frame =
            links.first()?.binary.iter().find(|message| message.starts_with(&[104, 0, 0, 0]))?.clone();
        Some(String::from_utf8(frame[4..].to_vec()).unwrap())
    })
    .await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body, serde_json::json!({"conversation_id": id, "language": "en"}));
    assert!(pusher.sessions()[0].head.starts_with("GET /v1/trigger/listen?uid=local&sample_rate=16000 "));
}

#[tokio::test]
async fn an_omi_pusher_of_the_third_generation_gets_the_request_bound_to_its_job() {
    let scripts = vec![vec![Act::Stay], vec![Act::Stay]];
    let (listen, pusher) = listen_to(scripts, &[NEVER, ("pusher.protocol", "omi-r3")]).await;
    let id = converse(&listen).await;
    let asked = eventually("the request", async || {
        pusher.sessions().first().map(|link| requests(&link.binary)).filter(|asked| !asked.is_empty())
    })
    .await;
    let jobs = listen.get("/v1/jobs").await.1;
    assert_eq!((asked.len(), asked[0].conversation_id.as_str()), (1, id.as_str()));
    assert_eq!(asked[0].finalization_job_id.as_deref(), jobs[0]["id"].as_str());
    assert_eq!(asked[0].dispatch_generation, jobs[0]["revision"].as_u64());
    assert_eq!(asked[0].finalization_result_protocol, Some(2));
}

#[tokio::test]
async fn l07_what_the_clients_of_a_listening_half_that_is_gone_left_is_ended_by_the_pusher() {
    use auricle_store::Store;
    let dir = Arc::new(TempDir::new().unwrap());
    let patience = [("limits.sweep_others_after", "200ms")];
    let pusher = Rig::start_as(Shape::Pusher, Arc::clone(&dir), &patience).await;
    let short = [NEVER, ("limits.conversation_timeout_min", "1s")];
    let mut listen = Rig::start_as(Shape::Listen, dir, &short).await;
    let mut device = listen.device().await;
    let id = device.conversation().await;
    device.speak(4.0).await;
    device.texts_up_to("tomorrow").await;
    listen.stop().await;
    let store = Arc::clone(pusher.running().store());
    eventually("the record", async || {
        let found = store.conversation(&"local".into(), &id.as_str().into()).await.unwrap().unwrap();
        (found.status == auricle_core::ConversationStatus::Completed).then_some(())
    })
    .await;
}

/// Everything that a scripted pusher heard on its first link, once `wanted` holds of it.
async fn heard(pusher: &ScriptedServer, what: &str, wanted: impl Fn(&[Vec<u8>]) -> bool) -> Vec<Vec<u8>> {
    eventually(what, async || {
        pusher.sessions().first().map(|link| link.binary.clone()).filter(|heard| wanted(heard))
    })
    .await
}

#[tokio::test]
async fn m04_forwarded_audio_has_its_own_times_also_where_the_client_transcribes() {
    const BYTES: usize = 3 * 32_000;
    let (listen, pusher) = listen_to(vec![vec![Act::Stay]], &[NEVER, ("pusher.audio", "true")]).await;
    let mut device = listen.device_as(listen.connect().param("custom_stt", "enabled")).await;
    device.conversation().await;
    device.speak(3.0).await;
    let audio = |heard: &[Vec<u8>]| -> Vec<(f64, usize)> {
        let frame = |message: &Vec<u8>| match wire::decode(message) {
            Ok(wire::Frame::Audio { first_sample_at, pcm }) => Some((first_sample_at, pcm.len())),
            _ => None,
        };
        heard.iter().filter_map(frame).collect()
    };
    let all = |heard: &[Vec<u8>]| audio(heard).iter().map(|(_, bytes)| bytes).sum::<usize>() == BYTES;
    let frames = audio(&heard(&pusher, "the audio", all).await);
    for pair in frames.windows(2) {
        let end = pair[0].0 + pair[0].1 as f64 / 32_000.0;
        assert!((pair[1].0 - end).abs() < 0.001, "{frames:?}");
    }
}

#[tokio::test]
async fn l18_the_last_words_of_a_client_that_is_gone_reach_the_pusher() {
    let (listen, pusher) = listen_to(vec![vec![Act::Stay]], &[NEVER]).await;
    let mut device = listen.device().await;
    device.conversation().await;
    eventually("the link", async || (pusher.sessions().len() == 1).then_some(())).await;
    device.speak(4.0).await;
    // Gone before it was shown anything.
    drop(device);
    let last = |heard: &[Vec<u8>]| heard.iter().any(|m| String::from_utf8_lossy(m).contains("tomorrow"));
    heard(&pusher, "the last words", last).await;
}

#[tokio::test]
async fn p7_d16_a_delivery_under_way_is_finished_by_a_drain_and_not_repeated() {
    use auricle_store::Store;
    let sink = WebhookSink::start().await.unwrap();
    sink.set(SinkMode::Slow(Duration::from_millis(300)));
    let mut rig = Rig::start(&[("webhooks.conversation", &sink.url())]).await;
    let id = converse(&rig).await;
    sink.arrived(1).await;
    rig.restart().await;
    let store = rig.running().store();
    let told = eventually("the end of the delivery", async || {
        let effects = store.effects(&id.as_str().into()).await.unwrap();
        effects.into_iter().find(|effect| effect.key.name.starts_with("webhook:"))
    })
    .await;
    assert_eq!((told.state, told.attempts), (auricle_core::EffectState::Delivered, 1), "{told:?}");
    assert_eq!(sink.deliveries().len(), 1);
}
