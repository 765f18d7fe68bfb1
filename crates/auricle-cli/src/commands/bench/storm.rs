//! `auricle bench storm`: many clients are dropped all at once and return on their timers, whatever they are told.
//!
//! Live sessions stream beside them, driven by a thread of its own. The clients run at lower priority, since in life they
//! are other machines. What a refusal costs is measured on a second server that has no room, what a bad token costs on a third.

mod clients;
mod report;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::runtime::Runtime;

use self::clients::{Clients, Return};
use super::load::{Load, Seen};
use super::prober::{self, Health, Prober};
use super::process::{Server, stolen};
use super::{ANSWER_MAX, FAST_EVERY, talker};
use crate::output;

/// A bearer token that begins with it names the user that follows.
const KEY: &str = "a-key-for-this-bench-only:";
/// A storm is given up after this long.
const STORM_MAX: Duration = Duration::from_secs(120);
/// How often a live session says a word.
const WORD_EVERY_SECS: f64 = 0.5;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct StormArgs {
    /// Clients that are dropped at once.
    #[arg(long, default_value_t = 1_320)]
    clients: usize,
    /// Sessions that stream Opus meanwhile.
    #[arg(long, default_value_t = 100)]
    live: usize,
    /// A client's timer: it tries again this often, whatever it is told.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    retry_ms: u64,
    /// Clients come back spread over this long; 0: all at the same moment. Without it: over one round of their timer.
    #[arg(long)]
    spread_ms: Option<u64>,
    /// Of a hundred clients, how many have a token that is not valid any more.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=100))]
    expired_percent: u8,
    /// How long live sessions are watched before the storm and after it.
    #[arg(long, default_value_t = 5)]
    calm_secs: u64,
    /// Refusals that are timed.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    refusals: u32,
    /// For scripts.
    #[arg(long)]
    json: bool,
}

/// What live sessions felt, and how health answered.
#[derive(Serialize)]
struct Felt {
    segments: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    dropped: u64,
    /// How late a frame was sent, at the worst: above some ms the load itself was starved.
    load_late_ms_max: f64,
    /// CPU time that the machine's host took.
    stolen_ms: f64,
    livez: Health,
}

/// What the server counted from the drop to the end: clients with bad tokens go on trying.
#[derive(Default, Serialize)]
struct Counted {
    refused: std::collections::BTreeMap<String, u64>,
    /// Upgrades with a token that is not valid, and how many of them were refused from memory.
    bad_tokens: u64,
    from_memory: u64,
}

/// All figures.
#[derive(Serialize)]
struct Figures {
    clients: usize,
    expired: usize,
    live: usize,
    retry_ms: u64,
    spread_ms: u64,
    back: Return,
    server_cpu_share_of_a_core: f64,
    counted: Counted,
    calm: Felt,
    storm: Felt,
    after: Felt,
    refusal_cpu_us: f64,
    denial_cpu_us: f64,
    /// Of a core, while those with bad tokens went on trying.
    denials_cpu_share_of_a_core: f64,
}

pub(super) fn run(args: &StormArgs) -> anyhow::Result<ExitCode> {
    let bar = output::is_terminal().then(ProgressBar::new_spinner);
    if let Some(bar) = &bar {
        bar.enable_steady_tick(Duration::from_millis(100));
    }
    let say = |text: String| bar.iter().for_each(|bar| bar.set_message(text.clone()));
    let (load_runtime, clients_runtime) =
        (super::one_thread(super::SPEAKERS_NICE)?, super::one_thread(super::OTHERS_NICE)?);
    let figures = storm(args, &load_runtime, &clients_runtime, &say)?;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    if args.json {
        output::json(&figures)?;
    } else {
        report::print(&figures);
    }
    anyhow::ensure!(figures.back.missing == 0, "{} clients did not come back", figures.back.missing);
    let dropped = figures.calm.dropped + figures.storm.dropped + figures.after.dropped;
    anyhow::ensure!(dropped == 0, "{dropped} live sessions were dropped");
    Ok(ExitCode::SUCCESS)
}

fn storm(
    args: &StormArgs,
    load_runtime: &Runtime,
    clients_runtime: &Runtime,
    say: &dyn Fn(String),
) -> anyhow::Result<Figures> {
    let calm_time = Duration::from_secs(args.calm_secs);
    let expired = args.clients * usize::from(args.expired_percent) / 100;
    let server = server("storm", args.clients + args.live)?;
    let probe = server.probe.context("the server has no probe port")?;
    say(format!("opening {} live sessions", args.live));
    let token = |index: usize| Some(format!("{KEY}live-{index}"));
    let load = load_runtime.block_on(async {
        // On the runtime's own thread, as all that follows.
        let url = server.url.clone();
        let live = args.live;
        tokio::spawn(async move { Load::start(&url, live, WORD_EVERY_SECS, token).await }).await?
    })?;
    let clients = Clients::new(&server.url, args.clients, expired);
    let clients = Arc::new(clients);
    let connected = clients_runtime.block_on({
        let clients = Arc::clone(&clients);
        async move { tokio::spawn(async move { clients.open(KEY).await }).await? }
    })?;
    say(format!("{} clients are connected; watching {} s of calm", args.clients, args.calm_secs));
    let calm = watch(&load, probe, || std::thread::sleep(calm_time));
    let (counted, cpu) = (counters(probe)?, server.measured()?.cpu);
    let spread = Duration::from_millis(args.spread_ms.unwrap_or(args.retry_ms));
    let retry = Duration::from_millis(args.retry_ms);
    say(format!("{} clients are dropped and return every {} ms", args.clients, args.retry_ms));
    let mut back = None;
    let storm = watch(&load, probe, || {
        back = Some(clients_runtime.block_on({
            let clients = Arc::clone(&clients);
            async move {
                tokio::spawn(async move { clients.storm(connected, retry, spread, STORM_MAX).await }).await
            }
        }));
    });
    let (back, clients) = back.context("the storm did not run")??;
    let cpu = server.measured()?.cpu.saturating_sub(cpu);
    say(format!("all are back; watching {} s more", args.calm_secs));
    let after = watch(&load, probe, || std::thread::sleep(calm_time));
    let counted = counters(probe)?.since(&counted);
    load_runtime.block_on(load.stop());
    drop((clients, server));
    say(format!("timing {} refusals and denials", args.refusals));
    let denial_cpu_us = denial_cost(clients_runtime, expired.max(1), args.refusals as usize)?;
    let denials_a_sec = counted.bad_tokens as f64 / (back.secs + calm_time.as_secs_f64());
    Ok(Figures {
        clients: args.clients,
        expired,
        live: args.live,
        retry_ms: args.retry_ms,
        spread_ms: spread.as_millis() as u64,
        server_cpu_share_of_a_core: cpu.as_secs_f64() / back.secs.max(0.001),
        back,
        counted,
        calm,
        storm,
        after,
        denial_cpu_us,
        denials_cpu_share_of_a_core: denial_cpu_us / 1e6 * denials_a_sec,
        refusal_cpu_us: refusal_cost(clients_runtime, args.refusals as usize)?,
    })
}

/// With the limits that it has by itself, unless those are too narrow for `sessions`.
fn server(name: &str, sessions: usize) -> anyhow::Result<Server> {
    server_with(name, sessions, &[])
}

fn server_with(name: &str, sessions: usize, settings: &[(&str, u32)]) -> anyhow::Result<Server> {
    let limits = auricle_core::Limits::default();
    Server::with(name, |command, folder| {
        let script = folder.join("script.json");
        // Two people in turn, so that segments stay short.
        std::fs::write(&script, talker::script(WORD_EVERY_SECS, 2, None))?;
        command.arg("--speech-script").arg(script);
        command.env("AURICLE_ADMIN_KEY", KEY).env("AURICLE_AUTH_API_KEYS", "true");
        command.envs(settings.iter().map(|(name, value)| (name, value.to_string())));
        if sessions > limits.sessions_max || sessions == 1 {
            command.args(["--limits-sessions-max", &sessions.to_string()]);
        }
        if sessions * 2 > limits.connections_max {
            command.args(["--limits-connections-max", &(sessions * 2).to_string()]);
        }
        Ok(())
    })
}

/// What is felt while `during` runs.
fn watch(load: &Load, probe: SocketAddr, during: impl FnOnce()) -> Felt {
    load.reset();
    let prober = Prober::start(probe, "/livez", FAST_EVERY, ANSWER_MAX);
    let stolen_before = stolen();
    during();
    let Seen { segments, dropped, late_us_max, latency_us, .. } = load.seen();
    let ms = |quantile: f64| latency_us.value_at_quantile(quantile) as f64 / 1e3;
    Felt {
        segments,
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        max_ms: latency_us.max() as f64 / 1e3,
        dropped,
        load_late_ms_max: late_us_max as f64 / 1e3,
        stolen_ms: stolen().saturating_sub(stolen_before).as_secs_f64() * 1e3,
        livez: prober.stop(),
    }
}

/// What a refusal costs a server that has no room: its CPU, divided by refusals.
fn refusal_cost(runtime: &Runtime, refusals: usize) -> anyhow::Result<f64> {
    let server = server("refusals", 1)?;
    let clients = Arc::new(Clients::new(&server.url, 1, 0));
    let _taken = runtime.block_on(clients.open(KEY))?;
    let cpu = server.measured()?.cpu;
    let refused = runtime.block_on(async move {
        tokio::spawn(async move { clients.be_refused(&format!("{KEY}nobody"), refusals).await }).await
    })?;
    let cpu = server.measured()?.cpu.saturating_sub(cpu);
    anyhow::ensure!(refused == refusals, "{refused} of {refusals} were refused");
    Ok(cpu.as_secs_f64() * 1e6 / refusals as f64)
}

/// What an attempt with a token that is not valid costs: of `expired` clients in turn, each looked up once and then
/// refused from memory.
fn denial_cost(runtime: &Runtime, expired: usize, denials: usize) -> anyhow::Result<f64> {
    let limits = [("AURICLE_LIMITS_ACCEPT_RATE", 100_000)];
    let server = server_with("denials", expired, &limits)?;
    let clients = Clients::new(&server.url, expired, expired);
    let cpu = server.measured()?.cpu;
    let denied = runtime
        .block_on(async move { tokio::spawn(async move { clients.be_denied(denials).await }).await })?;
    let cpu = server.measured()?.cpu.saturating_sub(cpu);
    anyhow::ensure!(denied == denials, "{denied} of {denials} were denied");
    Ok(cpu.as_secs_f64() * 1e6 / denials as f64)
}

fn counters(probe: SocketAddr) -> anyhow::Result<Counted> {
    let text = prober::ask(probe, "/metrics", ANSWER_MAX).context("read /metrics")?;
    let mut counted = Counted::default();
    for line in text.lines() {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let value = value.parse::<f64>().unwrap_or(0.0) as u64;
        let label = || name.split('"').nth(1).unwrap_or_default().to_owned();
        if name.starts_with("auricle_sessions_refused_total") {
            counted.refused.insert(label(), value);
        } else if name.starts_with("auricle_auth_attempts_total")
            && ["invalid", "expired", "revoked"].contains(&&*label())
        {
            counted.bad_tokens += value;
        } else if name.starts_with("auricle_auth_repeats_refused_total") {
            counted.from_memory = value;
        }
    }
    Ok(counted)
}

impl Counted {
    fn since(mut self, before: &Self) -> Self {
        for (reason, count) in &mut self.refused {
            *count -= before.refused.get(reason).copied().unwrap_or(0).min(*count);
        }
        self.bad_tokens -= before.bad_tokens.min(self.bad_tokens);
        self.from_memory -= before.from_memory.min(self.from_memory);
        self
    }
}
