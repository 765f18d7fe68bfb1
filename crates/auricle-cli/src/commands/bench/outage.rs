//! `auricle bench outage`: the failure that Auricle was born of, on demand. Sessions talk, the pusher dies, every call to the
//! language model hangs, and a conversation of each session ends; health and live words are watched all the while.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use auricle_testkit::{Connect, Fault, FaultyProxy, LlmMode, LlmStandIn, Received};
use auricle_wire::event::Event;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::audit::{Audit, Reader};
use super::fleet::{Folder, Process, settings};
use super::prober::{Health, Prober};
use super::talker::{self, Seen, Shown, Talker};
use super::told::Told;
use crate::output;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct OutageArgs {
    /// Live sessions; 22 is what one of Omi's pods carries.
    #[arg(long, default_value_t = 22)]
    sessions: usize,
    /// Seconds of the calm and of the outage.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How long each call to the language model hangs during the outage.
    #[arg(long, default_value_t = 30)]
    hang_secs: u64,
    /// A word is said, stored and shown every so many seconds of each session.
    #[arg(long, default_value_t = 0.5)]
    word_every_secs: f64,
    /// What is dead in the outage.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Dead::Pusher, Dead::Model])]
    dead: Vec<Dead>,
    /// How the pusher is gone.
    #[arg(long, value_enum, default_value_t)]
    network: Network,
    /// For scripts.
    #[arg(long)]
    json: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Dead {
    /// Its process and the way to it.
    Pusher,
    /// Each call hangs.
    Model,
    /// Each delivery hangs.
    Webhooks,
    /// The recogniser says nothing more, and does not say that.
    Speech,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Network {
    /// Its process is killed, and connections are refused.
    #[default]
    Refuse,
    /// Its process is killed, and connections are swallowed.
    BlackHole,
}

/// As Kubernetes probes Omi's pods. Source: listen-protocol 8.2.
const KUBERNETES_EVERY: Duration = Duration::from_secs(10);
const KUBERNETES_WAIT: Duration = Duration::from_secs(5);
const KUBERNETES_FAILURES: u64 = 5;
/// Sessions that come and go at the beginning of a phase.
const NEWCOMERS: usize = 20;
/// When in a phase conversations end.
const END_AFTER_SECS: u64 = 2;
/// A session without its server tries again after this long.
const RETRY: Duration = Duration::from_millis(250);
/// Sessions settle before the calm is measured.
const WARM_UP: Duration = Duration::from_secs(5);
/// How long records may take to be made at the end.
const RECORDS_MAX: Duration = Duration::from_secs(300);

/// One phase.
#[derive(Serialize)]
struct Phase {
    words: u64,
    latency_p50_ms: f64,
    latency_p99_ms: f64,
    latency_max_ms: f64,
    livez: Health,
    kubernetes: Health,
    would_be_killed: bool,
    sessions_dropped: u64,
    /// Of sessions that were opened in it, one after the other: from connecting to `ready`.
    ready_p50_ms: f64,
    ready_max_ms: f64,
}

#[derive(Serialize)]
struct Figures {
    sessions: usize,
    calm: Phase,
    outage: Phase,
    extra_latency_p50_ms: f64,
    extra_latency_p99_ms: f64,
    /// Calls to the language model that hung.
    model_calls: usize,
    /// From the end of the outage to the last record.
    records_after_secs: f64,
    #[serde(flatten)]
    audit: Audit,
}

pub(super) fn run(args: &OutageArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let figures = runtime.block_on(measure(args))?;
    if args.json {
        output::json(&figures)?;
    } else {
        print(args, &figures);
    }
    let held =
        figures.audit.is_clean() && figures.outage.sessions_dropped == 0 && !figures.outage.would_be_killed;
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(args: &OutageArgs) -> anyhow::Result<Figures> {
    let folder = Folder::new("outage")?;
    let script = folder.path().join("script.json");
    let is_dead = |what| args.dead.contains(&what);
    let hangs_after = is_dead(Dead::Speech).then(|| WARM_UP + Duration::from_secs(args.seconds));
    std::fs::write(&script, talker::script(args.word_every_secs, hangs_after))?;
    let (data, key) = (folder.path().join("data"), format!("outage-{:016x}-", rand::random::<u64>()));
    let (model, told) = (LlmStandIn::start().await?, Told::start().await?);
    let shared = settings(&[("LLM_URL", &model.url()), ("WEBHOOKS_CONVERSATION", &told.url())]);
    let mut pusher = Process::start("pusher", &data, shared.clone())?;
    let network = FaultyProxy::start(pusher.public).await?;
    let mut listening = shared;
    listening.extend(settings(&[
        ("AUTH_ADMIN_KEY", &key),
        ("SPEECH_ENGINE", "scripted"),
        // What sessions say after their last ending is a conversation too, and ends soon.
        ("LIMITS_CONVERSATION_TIMEOUT_MIN", "5s"),
        ("SPEECH_SCRIPT", &script.display().to_string()),
        ("PUSHER_URL", &format!("http://{}", network.address())),
    ]));
    let mut listen = Process::start("listen", &data, listening)?;
    let reader = Arc::new(Reader::new(format!("http://{}", listen.public))?);
    let live = Live::start(args, &listen, &key, &reader)?;
    let bar = super::progress(WARM_UP.as_secs() + 2 * args.seconds, "calm");
    pass(WARM_UP.as_secs(), &bar).await;
    live.reset();

    let calm = live.phase(args.seconds, &listen, &bar).await;

    bar.set_message("outage");
    if is_dead(Dead::Pusher) {
        network.set(match args.network {
            Network::Refuse => Fault::Refuse,
            Network::BlackHole => Fault::BlackHole,
        });
        pusher.kill()?;
    }
    let hang = Duration::from_secs(args.hang_secs);
    if is_dead(Dead::Model) {
        model.set(LlmMode::Hang(hang));
    }
    if is_dead(Dead::Webhooks) {
        told.hang(hang);
    }
    let calls_before = model.calls();
    let outage = live.phase(args.seconds, &listen, &bar).await;
    let model_calls = model.calls() - calls_before;

    bar.set_message("records");
    let ended = super::now();
    model.set(LlmMode::Answer);
    told.take();
    if is_dead(Dead::Pusher) {
        network.set(Fault::None);
        pusher.start_again()?;
    }
    anyhow::ensure!(!listen.has_died(), "the listening process died");
    let seen = live.stop().await?;
    let audit = reader.audit(&seen, Some(&told), None, RECORDS_MAX).await?;
    bar.finish_and_clear();
    Ok(Figures {
        sessions: args.sessions,
        extra_latency_p50_ms: outage.latency_p50_ms - calm.latency_p50_ms,
        extra_latency_p99_ms: outage.latency_p99_ms - calm.latency_p99_ms,
        calm,
        outage,
        model_calls,
        records_after_secs: ended.elapsed().as_secs_f64(),
        audit,
    })
}

async fn pass(seconds: u64, bar: &indicatif::ProgressBar) {
    for _ in 0..seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        bar.inc(1);
    }
}

/// All live sessions, each a user of its own.
struct Live {
    reader: Arc<Reader>,
    /// The token of a user who comes and goes.
    newcomer: String,
    sessions: Vec<(String, Arc<Mutex<Seen>>, JoinHandle<()>)>,
    stop: CancellationToken,
}

impl Live {
    fn start(args: &OutageArgs, listen: &Process, key: &str, reader: &Arc<Reader>) -> anyhow::Result<Self> {
        let (stop, packets) = (CancellationToken::new(), Arc::new(talker::packets()?));
        let base = format!("ws://{}", listen.public);
        let start = |index: usize| {
            let token = format!("{key}u{index}");
            let connect =
                Connect::new(&base).param("codec", "opus_fs320").param("sample_rate", 16_000).token(&token);
            let mut talker = Talker::new(connect, Arc::clone(&packets), args.word_every_secs);
            let (seen, stop) = (talker.seen(), stop.clone());
            let task = tokio::spawn(async move {
                // A session that is dropped comes back, as its device would; the report tells.
                while !stop.is_cancelled() && talker.talk(None, stop.cancelled()).await.is_none() {
                    tokio::time::sleep(RETRY).await;
                }
            });
            (token, seen, task)
        };
        let sessions = (0..args.sessions).map(start).collect();
        Ok(Self { reader: Arc::clone(reader), newcomer: format!("{key}newcomer"), sessions, stop })
    }

    /// Forgets what was measured so far.
    fn reset(&self) {
        for (_, seen, _) in &self.sessions {
            let mut seen = talker::lock(seen);
            seen.latencies.clear();
            (seen.dropped, seen.refused) = (0, 0);
        }
    }

    /// Ends each session's conversation; it talks on in the next. The answers, which wait for records, are not awaited.
    fn end_conversations(&self) {
        for (token, seen, _) in &self.sessions {
            let Some(id) = talker::lock(seen).current.clone() else { continue };
            let (reader, token) = (Arc::clone(&self.reader), token.clone());
            tokio::spawn(async move {
                let _ = reader.end(&token, &id).await;
            });
        }
    }

    /// Lets the sessions talk on, ends a conversation of each early in it, and watches.
    async fn phase(&self, seconds: u64, listen: &Process, bar: &indicatif::ProgressBar) -> Phase {
        let livez = Prober::start(listen.probe, "/livez", super::FAST_EVERY, KUBERNETES_WAIT);
        let kubernetes = Prober::start(listen.public, "/health", KUBERNETES_EVERY, KUBERNETES_WAIT);
        let ready = tokio::spawn(ready_times(listen.public, self.newcomer.clone()));
        pass(END_AFTER_SECS, bar).await;
        self.end_conversations();
        pass(seconds.saturating_sub(END_AFTER_SECS), bar).await;
        let ready = ready.await.unwrap_or_default();
        let (livez, kubernetes) = (livez.stop(), kubernetes.stop());
        let mut times = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3).expect("valid bounds");
        let mut sessions_dropped = 0;
        for (_, seen, _) in &self.sessions {
            let seen = talker::lock(seen);
            seen.latencies.iter().for_each(|latency| times.saturating_record(*latency));
            sessions_dropped += seen.dropped + seen.refused;
        }
        self.reset();
        let ms = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1e3;
        Phase {
            words: times.len(),
            latency_p50_ms: ms(0.5),
            latency_p99_ms: ms(0.99),
            latency_max_ms: times.max() as f64 / 1e3,
            would_be_killed: kubernetes.missed_in_a_row >= KUBERNETES_FAILURES,
            livez,
            kubernetes,
            sessions_dropped,
            ready_p50_ms: ready.get(ready.len() / 2).copied().unwrap_or(f64::NAN),
            ready_max_ms: ready.last().copied().unwrap_or(f64::NAN),
        }
    }

    /// Ends every conversation and every session.
    async fn stop(self) -> anyhow::Result<Vec<(String, BTreeMap<String, Shown>)>> {
        self.end_conversations();
        // Words that are being stored are shown before the connection goes.
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.stop.cancel();
        let mut all = Vec::new();
        for (token, seen, task) in self.sessions {
            task.await?;
            all.push((token, std::mem::take(&mut talker::lock(&seen).conversations)));
        }
        Ok(all)
    }
}

/// How long it takes from connecting to `ready`, in milliseconds, least first.
async fn ready_times(server: SocketAddr, token: String) -> Vec<f64> {
    let connect =
        Connect::new(&format!("ws://{server}")).param("codec", "opus_fs320").param("sample_rate", 16_000);
    let connect = connect.token(&token);
    let mut times = Vec::new();
    for _ in 0..NEWCOMERS {
        let begun = super::now();
        let Ok(mut client) = connect.open().await else { continue };
        let is_ready = |received: &Received| matches!(received.event(), Some(Event::ServiceStatus { status, .. }) if status == "ready");
        if client.until(KUBERNETES_WAIT, is_ready).await.1 {
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        client.close().await;
    }
    times.sort_by(f64::total_cmp);
    times
}

fn print(args: &OutageArgs, figures: &Figures) {
    let Figures { calm, outage, .. } = figures;
    output::line(&format!(
        "{} sessions, {} s of calm, then {} s with {} dead, each call hanging {} s\n",
        figures.sessions,
        args.seconds,
        args.seconds,
        args.dead.iter().map(|dead| format!("{dead:?}").to_lowercase()).collect::<Vec<_>>().join(", "),
        args.hang_secs
    ));
    let row = |what: &str, of: fn(&Phase) -> String| vec![what.to_owned(), of(calm), of(outage)];
    let rows = vec![
        row("sessions dropped", |p| p.sessions_dropped.to_string()),
        row("words shown", |p| p.words.to_string()),
        row("a new session is ready, p50, ms", |p| format!("{:.2}", p.ready_p50_ms)),
        row("a new session is ready, max, ms", |p| format!("{:.2}", p.ready_max_ms)),
        row("word latency p50, ms", |p| format!("{:.2}", p.latency_p50_ms)),
        row("word latency p99, ms", |p| format!("{:.2}", p.latency_p99_ms)),
        row("word latency max, ms", |p| format!("{:.2}", p.latency_max_ms)),
        row("/livez every 10 ms: missed", |p| format!("{} of {}", p.livez.missed, p.livez.probes)),
        row("/livez p50, ms", |p| format!("{:.2}", p.livez.p50_ms)),
        row("/livez p99, ms", |p| format!("{:.2}", p.livez.p99_ms)),
        row("/livez p99.9, ms", |p| format!("{:.2}", p.livez.p999_ms)),
        row("/livez max, ms", |p| format!("{:.2}", p.livez.max_ms)),
        row("Kubernetes' probes missed", |p| format!("{} of {}", p.kubernetes.missed, p.kubernetes.probes)),
        row("would be killed", |p| if p.would_be_killed { "yes" } else { "no" }.into()),
    ];
    output::line(&output::table(&["", "calm", "outage"], rows));
    output::line(&format!(
        "\nextra word latency in the outage: p50 {:+.2} ms, p99 {:+.2} ms; {} model calls made in it; all records {:.1} s \
         after it\n",
        figures.extra_latency_p50_ms,
        figures.extra_latency_p99_ms,
        figures.model_calls,
        figures.records_after_secs
    ));
    output::line(&figures.audit.table());
}
