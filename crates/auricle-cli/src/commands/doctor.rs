//! `auricle doctor`: what is wrong, and how to mend it.

use std::net::TcpListener;
use std::process::ExitCode;

use auricle_server::config::Config;
use auricle_speech::EngineError;
use serde::Serialize;

use super::serve::Settings;
use crate::output;

/// Check everything a server needs.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: Settings,
    /// For scripts.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    Warn,
    Fail,
}

#[derive(Serialize)]
struct Check {
    what: &'static str,
    state: State,
    /// What was found, and for trouble what to do.
    finding: String,
}

fn ok(what: &'static str, finding: impl Into<String>) -> Check {
    Check { what, state: State::Ok, finding: finding.into() }
}

fn warn(what: &'static str, finding: impl Into<String>) -> Check {
    Check { what, state: State::Warn, finding: finding.into() }
}

fn fail(what: &'static str, finding: impl Into<String>) -> Check {
    Check { what, state: State::Fail, finding: finding.into() }
}

/// Less free space than this is worth a warning: an hour of spooled PCM of some twenty sessions.
const FREE_BYTES_MIN: u64 = 2 * 1024 * 1024 * 1024;
/// Files that `limits.sessions_max` sessions may need beside their sockets.
const FILES_A_SESSION: u64 = 2;

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.settings.load(auricle_server::config::Shape::Embedded)?;
    let checks = vec![
        ok("configuration", format!("right (hash {})", config.hash())),
        data_dir(&config),
        store(&config),
        speech(&config),
        understanding(&config),
        meaning(&config),
        port("public port", config.bind, "--bind", &config),
        port("probe port", config.probe_bind, "--probe-bind", &config),
        files(&config),
        zone(&config),
    ];
    if args.json {
        output::json(&checks)?;
    } else {
        let rows = checks.iter().map(|check| {
            let mark = match check.state {
                State::Ok => "ok",
                State::Warn => "warn",
                State::Fail => "FAIL",
            };
            vec![mark.to_owned(), check.what.to_owned(), check.finding.clone()]
        });
        output::line(&output::table(&["", "check", "finding"], rows.collect()));
    }
    let failed = checks.iter().any(|check| check.state == State::Fail);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn data_dir(config: &Config) -> Check {
    const WHAT: &str = "data folder";
    let folder = &config.data_dir;
    let shown = folder.display();
    if let Err(error) = std::fs::create_dir_all(folder) {
        return fail(WHAT, format!("cannot make {shown}: {error}; choose another with --data-dir"));
    }
    let trial = folder.join(".doctor");
    if let Err(error) = std::fs::write(&trial, b"trial") {
        return fail(
            WHAT,
            format!(
                "cannot write to {shown}: {error}; mend its permissions or choose another with --data-dir"
            ),
        );
    }
    let _ = std::fs::remove_file(trial);
    match rustix::fs::statvfs(folder) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let finding = format!("{shown}, {:.1} GiB free", free as f64 / (1024.0 * 1024.0 * 1024.0));
            if free < FREE_BYTES_MIN {
                warn(WHAT, format!("{finding}; free some, words are refused when it is full"))
            } else {
                ok(WHAT, finding)
            }
        }
        Err(_) => ok(WHAT, shown.to_string()),
    }
}

fn store(config: &Config) -> Check {
    const WHAT: &str = "store";
    let path = config.data_dir.join("auricle.db");
    if !path.exists() {
        return ok(WHAT, "none yet; the server makes it");
    }
    let ring = match auricle_server::protection::keyring(config) {
        Ok(ring) => ring,
        Err(error) => return fail(WHAT, error.to_string()),
    };
    let protected = match ring.current() {
        Some(key) => format!("sealed under key {key}"),
        None => "not sealed".to_owned(),
    };
    match auricle_store::SqliteStore::check(&path, &auricle_store::SqliteOptions::from(&config.limits)) {
        Ok(()) => ok(WHAT, format!("{} is sound, {protected}", path.display())),
        Err(error) => fail(WHAT, format!("{error}")),
    }
}

/// The chain in order; one engine that works is enough, each that does not is worth a warning.
fn speech(config: &Config) -> Check {
    const WHAT: &str = "speech";
    let names = config.speech.engines.names();
    let chain = match auricle_speech::build_chain(&auricle_server::speech(config), &names) {
        Ok(chain) => chain,
        Err(error) => return fail(WHAT, error.to_string()),
    };
    let checks = chain.checks();
    let (works, count) = (checks.iter().filter(|(_, result)| result.is_ok()).count(), checks.len());
    let findings: Vec<_> = checks
        .iter()
        .map(|(name, result)| match result {
            Ok(finding) => format!("{name}: {finding}"),
            Err(error) if count > 1 => format!("{name} FAILS: {}", with_mend(error)),
            Err(error) => format!("{name}: {}", with_mend(error)),
        })
        .collect();
    let finding = findings.join("; then ");
    let clear = config.speech.cloud.in_the_clear().next();
    match (works, clear) {
        (0, _) => fail(WHAT, finding),
        (_, Some(key)) => {
            warn(WHAT, format!("{finding}; audio and the key travel unencrypted to {key}, use wss"))
        }
        _ if works < count => warn(WHAT, finding),
        _ => ok(WHAT, finding),
    }
}

fn with_mend(error: &EngineError) -> String {
    match error {
        EngineError::Limited { text, retry_after: Some(after) } => {
            format!("{text}; it asks to be left alone for {after:?}")
        }
        EngineError::Limited { text, .. } => {
            format!("{text}; see to the account's credit and its limit of streams")
        }
        error => error.to_string(),
    }
}

fn port(what: &'static str, address: std::net::SocketAddr, flag: &str, config: &Config) -> Check {
    match TcpListener::bind(address) {
        Ok(_) => ok(what, format!("{address} is free")),
        Err(_) if config.data_dir.join("addresses.json").exists() => {
            ok(what, format!("{address} is taken, probably by the server that runs on this data folder"))
        }
        Err(error) => {
            fail(what, format!("{address}: {error}; stop what uses it or choose another with {flag}"))
        }
    }
}

fn files(config: &Config) -> Check {
    const WHAT: &str = "open files";
    let wanted = config.limits.connections_max as u64 + config.limits.sessions_max as u64 * FILES_A_SESSION;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    if limit >= wanted {
        return ok(WHAT, format!("{limit} allowed"));
    }
    warn(
        WHAT,
        format!(
            "{limit} allowed, a full house needs {wanted}; raise it (`ulimit -n {wanted}`) or lower limits.sessions_max"
        ),
    )
}

/// What the configuration says: a call would cost its owner something.
fn understanding(config: &Config) -> Check {
    const WHAT: &str = "understanding";
    let Some(url) = &config.llm.url else {
        return ok(WHAT, "local rules; set llm.url for a language model");
    };
    let finding =
        format!("{} at {url}, {} tokens (llm.window_tokens)", config.llm.model, config.llm.window_tokens.0);
    if url.starts_with("http://") && config.llm.key.is_some() {
        return warn(WHAT, format!("{finding}; transcripts and the key travel unencrypted, use https"));
    }
    ok(WHAT, finding)
}

/// The same of the embedding server.
fn meaning(config: &Config) -> Check {
    const WHAT: &str = "search by meaning";
    let ours = &config.embeddings;
    let Some(url) = &ours.url else {
        return ok(WHAT, "off: words alone; set embeddings.url for an embedding server");
    };
    let finding = format!("{} at {url}", ours.model);
    if url.starts_with("http://") && ours.key.is_some() {
        return warn(WHAT, format!("{finding}; transcripts and the key travel unencrypted, use https"));
    }
    ok(WHAT, finding)
}

fn zone(config: &Config) -> Check {
    let zone = config.time_zone();
    match zone.iana_name() {
        Some(name) => ok("time zone", name),
        None => warn("time zone", "unknown, dates are taken as UTC; set user.time_zone"),
    }
}
