//! `auricle bench`: what a session costs, beside a floor measured in the same run.

mod audit;
mod crash;
mod engines;
mod fleet;
mod floor;
mod load;
mod outage;
mod prober;
mod process;
mod search;
mod speech;
mod storm;
mod talker;
mod told;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use self::load::Load;
use self::prober::{Health, Prober};
use self::process::{Measured, Server};
use crate::output;

/// Measure.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// N Opus sessions with the scripted engine: CPU a frame, memory a session, and how health answers meanwhile.
    Sessions(SessionsArgs),
    /// The pusher dead, every model call hanging, a conversation of each session ending: health, live words and records.
    Outage(outage::OutageArgs),
    /// `kill -9` of either half at random moments under load: what is lost and what is doubled.
    Crash(crash::CrashArgs),
    /// Clients that are dropped all at once and return on a fixed timer: when all are back, and what live sessions feel.
    Storm(storm::StormArgs),
    /// Searches of one user's archive, by words and by meaning, beside bare dot products over the same vectors.
    Search(search::SearchArgs),
    /// The floor that `sessions` is compared with: reads frames, decodes them, does nothing else.
    #[command(hide = true)]
    FloorServer,
}

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct SessionsArgs {
    /// Sessions at once.
    #[arg(long, default_value_t = 200)]
    sessions: usize,
    /// Seconds measured, after a warm-up of five.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// A server that runs already, on this machine; without it one is started in a folder of its own.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Its probe address.
    #[arg(long, value_name = "HOST:PORT", requires = "url")]
    probe: Option<std::net::SocketAddr>,
    /// Its process, for CPU and memory.
    #[arg(long, requires = "url")]
    pid: Option<u32>,
    /// Measure with this engine: CPU, and how long after the end of a word its segment is at the client. A server of its own
    /// is started.
    #[arg(long, value_name = "NAME", conflicts_with = "url")]
    engine: Option<engines::EngineName>,
    /// With `--engine pocketsphinx`: the recording that is spoken; the repository's own if none is named.
    #[arg(long, value_name = "FILE", requires = "engine")]
    audio: Option<std::path::PathBuf>,
    /// For scripts.
    #[arg(long)]
    json: bool,
}

/// Time for sessions to settle before measuring.
const WARM_UP: Duration = Duration::from_secs(5);

/// Between two probes of health, and how long an answer may take.
const FAST_EVERY: Duration = Duration::from_millis(10);
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// One server under the load.
#[derive(Serialize)]
struct Figures {
    sessions: usize,
    frames: u64,
    cpu_us_a_frame: f64,
    cpu_share_of_a_core: f64,
    resident_kib_a_session: f64,
    segments: u64,
    /// How late a frame was sent, at the worst: above 20 ms the load itself was starved.
    load_late_ms_max: f64,
}

pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::FloorServer => floor::serve(),
        Command::Sessions(args) => match args.engine {
            Some(engine) => engines::run(args, engine),
            None => sessions(args),
        },
        Command::Outage(args) if args.speech => speech::run(args),
        Command::Outage(args) => outage::run(args),
        Command::Crash(args) => crash::run(args),
        Command::Storm(args) => storm::run(args),
        Command::Search(args) => search::run(args),
    }
}

fn sessions(args: &SessionsArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (floor, _) = {
        let server = Server::floor().context("start the floor server")?;
        runtime.block_on(measure(&server, args, "floor"))?
    };
    let server = match &args.url {
        Some(url) => Server::running(url, args.probe, args.pid),
        None => Server::own(args.sessions).context("start a server")?,
    };
    let (ours, health) = runtime.block_on(measure(&server, args, "auricle"))?;
    drop(server);
    if args.json {
        output::json(&serde_json::json!({ "auricle": ours, "floor": floor, "livez": health }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let ratio = |a: f64, b: f64| if b > 0.0 { format!("{:.2} ×", a / b) } else { "-".into() };
    let row =
        |what: &str, a: f64, b: f64| vec![what.to_owned(), format!("{a:.1}"), format!("{b:.1}"), ratio(a, b)];
    let rows = vec![
        row("CPU a frame, µs", ours.cpu_us_a_frame, floor.cpu_us_a_frame),
        row("CPU, % of a core", ours.cpu_share_of_a_core * 100.0, floor.cpu_share_of_a_core * 100.0),
        row("memory a session, KiB", ours.resident_kib_a_session, floor.resident_kib_a_session),
        row("frame sent late at worst, ms", ours.load_late_ms_max, floor.load_late_ms_max),
    ];
    output::line(&format!(
        "{} sessions, Opus 20 ms at 16 kHz, {} s; floor: the same frames read and decoded, nothing else\n",
        args.sessions, args.seconds
    ));
    output::line(&output::table(&["", "auricle", "floor", "ratio"], rows));
    output::line(&format!("\nsegments received: {}", ours.segments));
    if let Some(health) = health {
        output::line(&format!(
            "/livez every 10 ms: {} probes, {} missed, p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
            health.probes, health.missed, health.p50_ms, health.p99_ms, health.p999_ms, health.max_ms
        ));
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(
    server: &Server,
    args: &SessionsArgs,
    what: &'static str,
) -> anyhow::Result<(Figures, Option<Health>)> {
    let idle = server.measured()?;
    let bar = progress(args.seconds, what);
    // Their scripts are their own: nothing is timed.
    let load = Load::start(&server.url, args.sessions, 1.0, |_| None).await?;
    tokio::time::sleep(WARM_UP).await;
    load.reset();
    let before = server.measured()?;
    let prober = server.probe.map(|address| Prober::start(address, "/livez", FAST_EVERY, ANSWER_MAX));
    for _ in 0..args.seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        bar.inc(1);
    }
    let after = server.measured()?;
    let health = prober.map(Prober::stop);
    let seen = load.stop().await;
    bar.finish_and_clear();
    anyhow::ensure!(
        seen.dropped == 0,
        "{} of {} sessions were dropped during the run",
        seen.dropped,
        args.sessions
    );
    Ok((figures(args, &idle, &before, &after, &seen), health))
}

fn figures(
    args: &SessionsArgs,
    idle: &Measured,
    before: &Measured,
    after: &Measured,
    seen: &load::Seen,
) -> Figures {
    let cpu = (after.cpu - before.cpu).as_secs_f64();
    Figures {
        sessions: args.sessions,
        frames: seen.frames,
        cpu_us_a_frame: cpu * 1e6 / seen.frames.max(1) as f64,
        cpu_share_of_a_core: cpu / args.seconds.max(1) as f64,
        resident_kib_a_session: after.resident_kib.saturating_sub(idle.resident_kib) as f64
            / args.sessions.max(1) as f64,
        segments: seen.segments,
        load_late_ms_max: seen.late_us_max as f64 / 1e3,
    }
}

/// The priority of what speaks: that of the session workers that hear it, or a busy machine would keep it from speaking.
/// Needs privilege; done without if refused.
const SPEAKERS_NICE: i32 = -5;
/// The priority of who comes and goes.
const OTHERS_NICE: i32 = 10;

/// A runtime of one thread at a priority of its own: for what stands in for other machines.
fn one_thread(nice: i32) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .on_thread_start(move || {
            let _ = rustix::process::setpriority_process(None, nice);
        })
        .enable_all()
        .build()
}

/// A bar for a person who looks.
fn progress(length: u64, what: &'static str) -> indicatif::ProgressBar {
    let bar = if output::is_terminal() {
        indicatif::ProgressBar::new(length)
    } else {
        indicatif::ProgressBar::hidden()
    };
    let style = indicatif::ProgressStyle::with_template("{msg:<10} {wide_bar} {pos}/{len} {elapsed}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.with_message(what)
}

#[expect(clippy::disallowed_methods, reason = "the clock of a measurement")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
