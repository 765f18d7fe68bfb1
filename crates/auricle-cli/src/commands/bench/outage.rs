//! `auricle bench outage`: the failure that Auricle was born of, on demand. Sessions talk, the pusher dies, every call to the
//! language model hangs, and a conversation of each session ends; health and live words are watched all the while.
//!
//! Sessions are driven by a thread of their own (`load`). What stands in for other machines (the language model, who is told)
//! runs at lower priority; the pusher is a process of this machine, on the same file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use auricle_testkit::{Connect, Fault, FaultyProxy, LlmMode, LlmStandIn, Received};
use auricle_wire::event::Event;
use serde::Serialize;
use tokio::runtime::Handle;

use super::audit::{Audit, Reader};
use super::fleet::{Folder, Process, settings};
use super::load::Load;
use super::prober::{Health, Prober};
use super::process::stolen;
use super::talker::{self, Shown};
use super::told::Told;
use crate::output;

/// What to measure.
#[derive(clap::Args, Clone)]
pub(crate) struct OutageArgs {
    /// Live sessions; 22 is what one of Omi's pods carries.
    #[arg(long, default_value_t = 22)]
    pub(super) sessions: usize,
    /// Seconds of the calm and of the outage.
    #[arg(long, default_value_t = 60)]
    pub(super) seconds: u64,
    /// How long each call to the language model hangs during the outage.
    #[arg(long, default_value_t = 30)]
    hang_secs: u64,
    /// Something is said, stored and shown every so many seconds of each session; recognisers decide about as often.
    #[arg(long, default_value_t = 2.0)]
    pub(super) word_every_secs: f64,
    /// Another measurement: the speech engine alone is away, as `--network` says, and comes back. Every word is looked for at
    /// the end.
    #[arg(long)]
    pub(super) speech: bool,
    /// With `--speech`: a second engine takes over.
    #[arg(long, requires = "speech")]
    pub(super) spare: bool,
    /// What is dead in the outage.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Dead::Pusher, Dead::Model])]
    dead: Vec<Dead>,
    /// How the pusher, or the speech engine, is gone.
    #[arg(long, value_enum, default_value_t)]
    pub(super) network: Network,
    /// For scripts.
    #[arg(long)]
    pub(super) json: bool,
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
pub(super) enum Network {
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
/// Between two requests to end a conversation: 22 end at once, as on the day, and a thousand within 20 s.
const ENDING_EVERY: Duration = Duration::from_millis(20);
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
    /// How late a frame was sent, at the worst: above some ms the load itself was starved.
    load_late_ms_max: f64,
    /// CPU time that the machine's host took.
    stolen_ms: f64,
    livez: Health,
    kubernetes: Health,
    would_be_killed: bool,
    sessions_dropped: u64,
    /// Requests to end a conversation, each repeated until it was heard.
    conversations_ended: usize,
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
    let (load, others) = (super::one_thread(super::SPEAKERS_NICE)?, super::one_thread(super::OTHERS_NICE)?);
    let figures = others.block_on(async {
        let (args, load) = (args.clone(), load.handle().clone());
        // On the runtime's own thread, as all that follows.
        tokio::spawn(async move { measure(&args, &load).await }).await?
    })?;
    if args.json {
        output::json(&figures)?;
    } else {
        print(args, &figures);
    }
    let held =
        figures.audit.is_clean() && figures.outage.sessions_dropped == 0 && !figures.outage.would_be_killed;
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(args: &OutageArgs, load: &Handle) -> anyhow::Result<Figures> {
    let folder = Folder::new("outage")?;
    let script = folder.path().join("script.json");
    let is_dead = |what| args.dead.contains(&what);
    let hangs_after = is_dead(Dead::Speech).then(|| WARM_UP + Duration::from_secs(args.seconds));
    std::fs::write(&script, talker::script(args.word_every_secs, 2, hangs_after))?;
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
    let live = Live::start(args, load, &listen, &key, &reader).await?;
    let bar = super::progress(WARM_UP.as_secs() + 2 * args.seconds, "calm");
    pass(WARM_UP.as_secs(), &bar).await;
    live.load.reset();

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
    let seen = live.stop().await;
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
    /// Of each session.
    tokens: Vec<String>,
    load: Load,
}

impl Live {
    async fn start(
        args: &OutageArgs,
        on: &Handle,
        listen: &Process,
        key: &str,
        reader: &Arc<Reader>,
    ) -> anyhow::Result<Self> {
        let url = format!("ws://{}/v4/listen?codec=opus_fs320&sample_rate=16000", listen.public);
        let tokens: Vec<String> = (0..args.sessions).map(|index| format!("{key}u{index}")).collect();
        let (sessions, every_secs, theirs) = (args.sessions, args.word_every_secs, tokens.clone());
        let load = on.spawn(async move {
            Load::start(&url, sessions, every_secs, |index| Some(theirs[index].clone())).await
        });
        let load = load.await??;
        Ok(Self { reader: Arc::clone(reader), newcomer: format!("{key}newcomer"), tokens, load })
    }

    /// Ends each session's conversation; it talks on in the next. How many were, once all are.
    fn end_conversations(&self) -> impl Future<Output = usize> + Send + 'static {
        let current: Vec<(String, String)> = self
            .tokens
            .iter()
            .zip(self.load.ledgers())
            .filter_map(|(token, ledger)| Some((token.clone(), talker::lock(ledger).current.clone()?)))
            .collect();
        let reader = Arc::clone(&self.reader);
        async move {
            let mut endings = tokio::task::JoinSet::new();
            for (token, id) in current {
                let reader = Arc::clone(&reader);
                endings.spawn(async move { reader.end(&token, &id).await.is_ok() });
                tokio::time::sleep(ENDING_EVERY).await;
            }
            endings.join_all().await.into_iter().filter(|ended| *ended).count()
        }
    }

    /// Lets the sessions talk on, ends a conversation of each early in it, and watches.
    async fn phase(&self, seconds: u64, listen: &Process, bar: &indicatif::ProgressBar) -> Phase {
        let stolen_before = stolen();
        let livez = Prober::start(listen.probe, "/livez", super::FAST_EVERY, KUBERNETES_WAIT);
        let kubernetes = Prober::start(listen.public, "/health", KUBERNETES_EVERY, KUBERNETES_WAIT);
        let ready = tokio::spawn(ready_times(listen.public, self.newcomer.clone()));
        pass(END_AFTER_SECS, bar).await;
        let ended = tokio::spawn(self.end_conversations());
        pass(seconds.saturating_sub(END_AFTER_SECS), bar).await;
        let seen = self.load.seen();
        let (livez, kubernetes) = (livez.stop(), kubernetes.stop());
        // The time for it is over: with these still under way the next phase would not be what it says.
        let (ready, conversations_ended) = (ready.await.unwrap_or_default(), ended.await.unwrap_or_default());
        self.load.reset();
        let ms = |quantile: f64| seen.latency_us.value_at_quantile(quantile) as f64 / 1e3;
        Phase {
            words: seen.latency_us.len(),
            latency_p50_ms: ms(0.5),
            latency_p99_ms: ms(0.99),
            latency_max_ms: seen.latency_us.max() as f64 / 1e3,
            load_late_ms_max: seen.late_us_max as f64 / 1e3,
            stolen_ms: stolen().saturating_sub(stolen_before).as_secs_f64() * 1e3,
            would_be_killed: kubernetes.missed_in_a_row >= KUBERNETES_FAILURES,
            livez,
            kubernetes,
            sessions_dropped: seen.dropped,
            conversations_ended,
            ready_p50_ms: ready.get(ready.len() / 2).copied().unwrap_or(f64::NAN),
            ready_max_ms: ready.last().copied().unwrap_or(f64::NAN),
        }
    }

    /// Ends every conversation and every session.
    async fn stop(self) -> Vec<(String, BTreeMap<String, Shown>)> {
        self.end_conversations().await;
        // Words that are being stored are shown before the connection goes.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let ledgers = self.load.ledgers().to_vec();
        self.load.stop().await;
        let shown = ledgers.iter().map(|ledger| std::mem::take(&mut talker::lock(ledger).conversations));
        self.tokens.into_iter().zip(shown).collect()
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
        row("conversations ended", |p| p.conversations_ended.to_string()),
        row("words shown", |p| p.words.to_string()),
        row("a new session is ready, p50, ms", |p| format!("{:.2}", p.ready_p50_ms)),
        row("a new session is ready, max, ms", |p| format!("{:.2}", p.ready_max_ms)),
        row("word latency p50, ms", |p| format!("{:.2}", p.latency_p50_ms)),
        row("word latency p99, ms", |p| format!("{:.2}", p.latency_p99_ms)),
        row("word latency max, ms", |p| format!("{:.2}", p.latency_max_ms)),
        row("frame sent late at worst, ms", |p| format!("{:.2}", p.load_late_ms_max)),
        row("CPU taken by the machine's host, ms", |p| format!("{:.0}", p.stolen_ms)),
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
