//! `auricle bench crash`: `kill -9` of either half at random moments under load, again and again, and then the count of what
//! was lost or doubled.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use auricle_testkit::Connect;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::audit::{Audit, Reader};
use super::fleet::{Folder, Process, settings};
use super::talker::{self, Talker};
use super::told::{Targets, Told};
use crate::output;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct CrashArgs {
    /// How often a process is killed.
    #[arg(long, default_value_t = 100)]
    trials: u32,
    /// Sessions at once.
    #[arg(long, default_value_t = 8)]
    sessions: usize,
    /// Two halves, or both in one process.
    #[arg(long, value_enum, default_value_t)]
    shape: Shape,
    /// Which process each trial ends; of one process, that one.
    #[arg(long, value_enum, default_value_t)]
    target: Target,
    /// How it is ended.
    #[arg(long, value_enum, default_value_t)]
    signal: Ending,
    /// The longest time between two trials, in milliseconds; the shortest is a fifth of it.
    #[arg(long, default_value_t = 1_500)]
    pause_ms: u64,
    /// Of the moments and the choices; printed, so that a run can be repeated.
    #[arg(long)]
    seed: Option<u64>,
    /// For scripts.
    #[arg(long)]
    json: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Shape {
    /// `auricle listen` and `auricle pusher`.
    #[default]
    Split,
    /// `auricle serve`.
    Embedded,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Target {
    Listen,
    Pusher,
    /// One of the two, by chance.
    #[default]
    Either,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Ending {
    /// `kill -9`.
    #[default]
    Kill,
    /// SIGTERM: a rolling restart.
    Term,
}

/// One word every so many seconds.
const WORD_EVERY_SECS: f64 = 0.5;
/// A client without its server tries again after this long.
const RETRY: Duration = Duration::from_millis(250);
/// How long records may take to be made at the end. Leases of the killed run out first.
const RECORDS_MAX: Duration = Duration::from_secs(120);

#[derive(Serialize)]
struct Figures {
    seed: u64,
    trials: u32,
    listen_ended: u32,
    pusher_ended: u32,
    exit_codes_not_zero: u32,
    reconnects: u64,
    refused: u64,
    #[serde(flatten)]
    audit: Audit,
}

pub(super) fn run(args: &CrashArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let figures = runtime.block_on(measure(args))?;
    if args.json {
        output::json(&figures)?;
    } else {
        print(&figures);
    }
    Ok(if figures.audit.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(args: &CrashArgs) -> anyhow::Result<Figures> {
    let seed = args.seed.unwrap_or_else(|| rand::rng().random());
    let mut chance = StdRng::seed_from_u64(seed);
    let folder = Folder::new("crash")?;
    let script = folder.path().join("script.json");
    std::fs::write(&script, talker::script(WORD_EVERY_SECS, 1, None))?;
    let (data, key) = (folder.path().join("data"), format!("crash-{seed:016x}-"));
    let (told, targets) = (Told::start().await?, Targets::start().await?);
    let shared = [
        ("WEBHOOKS_CONVERSATION", told.url()),
        // Users' webhooks are on this machine.
        ("WEBHOOKS_ALLOW_PRIVATE", "true".into()),
        ("LIMITS_JOBS_RUNNING_MAX", "2".into()),
    ];
    let mut pusher = match args.shape {
        Shape::Split => Some(Process::start("pusher", &data, settings_of(&shared))?),
        Shape::Embedded => None,
    };
    let mut listening = settings_of(&shared);
    listening.extend(settings(&[
        ("AUTH_ADMIN_KEY", &key),
        ("SPEECH_ENGINE", "scripted"),
        ("SPEECH_SCRIPT", &script.display().to_string()),
        // Conversations whose client left end soon.
        ("LIMITS_CONVERSATION_TIMEOUT_MIN", "3s"),
        ("LIMITS_SESSIONS_PER_USER_MAX", "100"),
    ]));
    let url = pusher.as_ref().map(|pusher| format!("http://{}", pusher.public));
    listening.extend(url.map(|url| ("PUSHER_URL".to_owned(), url)));
    let mut listen = Process::start(if pusher.is_some() { "listen" } else { "serve" }, &data, listening)?;

    let stop = CancellationToken::new();
    let packets = Arc::new(talker::packets()?);
    let base = format!("ws://{}", listen.public);
    let reader = Arc::new(Reader::new(format!("http://{}", listen.public))?);
    let mut clients = Vec::new();
    for index in 0..args.sessions {
        let token = format!("{key}u{index}");
        for url in targets.urls() {
            reader.add_webhook(&token, &url).await?;
        }
        let connect =
            Connect::new(&base).param("codec", "opus_fs320").param("sample_rate", 16_000).token(&token);
        let talker = Talker::new(connect, Arc::clone(&packets), WORD_EVERY_SECS);
        let seen = talker.seen();
        let (reader, chance) = (Arc::clone(&reader), StdRng::seed_from_u64(chance.random()));
        let task = tokio::spawn(Client { token: token.clone(), talker, reader, chance }.run(stop.clone()));
        clients.push((token, seen, task));
    }

    let bar = super::progress(u64::from(args.trials), "trials");
    let mut figures = Figures {
        seed,
        trials: args.trials,
        listen_ended: 0,
        pusher_ended: 0,
        exit_codes_not_zero: 0,
        reconnects: 0,
        refused: 0,
        audit: Audit::default(),
    };
    for _ in 0..args.trials {
        let pause = chance.random_range(args.pause_ms / 5..=args.pause_ms.max(1));
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let of_listen = match args.target {
            Target::Listen => true,
            Target::Pusher => false,
            Target::Either => chance.random_bool(0.5),
        };
        let (process, ended) = match &mut pusher {
            Some(pusher) if !of_listen => (pusher, &mut figures.pusher_ended),
            _ => (&mut listen, &mut figures.listen_ended),
        };
        anyhow::ensure!(!process.has_died(), "a process ended by itself; seed {seed}");
        match args.signal {
            Ending::Kill => process.kill()?,
            Ending::Term => {
                // Clients go on: they run on a thread of their own.
                let code = process.terminate()?;
                figures.exit_codes_not_zero += u32::from(code != Some(0));
            }
        }
        process.start_again()?;
        *ended += 1;
        bar.inc(1);
    }
    stop.cancel();
    let mut all = Vec::new();
    for (token, seen, task) in clients {
        task.await?;
        let seen = std::mem::take(&mut *talker::lock(&seen));
        figures.reconnects += seen.dropped;
        figures.refused += seen.refused;
        all.push((token, seen.ledger.conversations));
    }
    bar.set_message("records");
    figures.audit = reader.audit(&all, Some(&told), Some(&targets), RECORDS_MAX).await?;
    bar.finish_and_clear();
    Ok(figures)
}

fn settings_of(pairs: &[(&str, String)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

/// One user: conversations of some seconds one after the other, each ended in one of the ways there are.
struct Client {
    token: String,
    talker: Talker,
    reader: Arc<Reader>,
    chance: StdRng,
}

impl Client {
    async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let id = auricle_core::ids::random_uuid(&mut self.chance);
            let length = Duration::from_millis(self.chance.random_range(1_000..8_000));
            let deadline = tokio::time::Instant::now() + length;
            // Until it has said what it had to say, whatever happens in between.
            while tokio::time::Instant::now() < deadline && !stop.is_cancelled() {
                let until = async {
                    tokio::select! {
                        () = tokio::time::sleep_until(deadline) => {}
                        () = stop.cancelled() => {}
                    }
                };
                match self.talker.talk(Some(&id), until).await {
                    Some(connection) => self.end(&id, connection).await,
                    None => tokio::time::sleep(RETRY).await,
                }
            }
        }
    }

    /// By request, by leaving, or by vanishing; the sweeper ends the last two.
    async fn end(&mut self, id: &str, connection: auricle_testkit::Client) {
        match self.chance.random_range(0..3) {
            0 => {
                // Refused by a process that is being killed: then the sweeper ends this one too.
                let _ = self.reader.end(&self.token, id).await;
            }
            1 => connection.close().await,
            _ => drop(connection),
        }
    }
}

fn print(figures: &Figures) {
    let Figures { audit, .. } = figures;
    output::line(&format!(
        "{} trials, {} of them on the process with clients; seed {}; {} reconnects, {} refused tries\n",
        figures.trials, figures.listen_ended, figures.seed, figures.reconnects, figures.refused
    ));
    output::line(&audit.table());
}
