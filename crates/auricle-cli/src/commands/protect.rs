//! `auricle protect`: works on the data folder, beside a running server or without one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use auricle_server::config::{Config, Shape};
use auricle_server::protection::{AudioPass, AudioSealing};
use auricle_store::kept::KeptAudio;
use auricle_store::protect::Keyring;
use auricle_store::{KeyUse, Sealing, SqliteOptions, SqliteStore, Store as _};
use indicatif::{ProgressBar, ProgressStyle};

use super::serve::Settings;
use crate::client::block_on;
use crate::output;

/// Longest one step may wait for the store: another process may be busy, and writing a large file anew takes its time.
const WAIT_MAX: Duration = Duration::from_secs(3_600);
/// Steps of the progress bar.
const BAR: u64 = 1_000;

/// Show and change the key under which texts are stored.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Count the stored texts and files of kept audio under each key.
    Status {
        #[command(flatten)]
        settings: Settings,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Bring every stored text and, while no server runs, kept audio to the present key: seal, seal anew, or open for good if none is configured. A running server
    /// does the same by itself, slowly. May be stopped and begun again at any time.
    Rotate {
        #[command(flatten)]
        settings: Settings,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Status { settings, json } => status(&settings.load(Shape::Embedded)?, *json)?,
        Command::Rotate { settings, json } => {
            let config = settings.load(Shape::Embedded)?;
            block_on(rotate(&config, *json))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn database(config: &Config) -> anyhow::Result<PathBuf> {
    let path = config.data_dir.join("auricle.db");
    if !path.exists() {
        bail!("there is no store in {}; name its folder with --data-dir", config.data_dir.display());
    }
    Ok(path)
}

fn options(config: &Config) -> anyhow::Result<SqliteOptions> {
    let ring = auricle_server::protection::keyring(config)?;
    Ok(SqliteOptions { ring, wait_max: WAIT_MAX, ..SqliteOptions::from(&config.limits) })
}

fn name(key: Option<auricle_store::protect::KeyId>) -> String {
    key.map_or_else(|| "plain".to_owned(), |key| key.to_string())
}

fn status(config: &Config, json: bool) -> anyhow::Result<()> {
    let (path, options) = (database(config)?, options(config)?);
    let mut uses = SqliteStore::key_uses(&path, &options).context("count stored texts")?;
    uses.extend(KeptAudio::key_uses(&config.data_dir.join("audio")).context("look at kept audio")?);
    let present = options.ring.current();
    if json {
        let uses: Vec<_> = uses
            .iter()
            .map(|KeyUse { what, key, values }| {
                serde_json::json!({"what": what, "key": key.map(|key| key.to_string()), "values": values})
            })
            .collect();
        return output::json(
            &serde_json::json!({"present": present.map(|key| key.to_string()), "uses": uses}),
        );
    }
    output::line(&match present {
        Some(key) => format!("the present key is {key}"),
        None => "there is no present key: new texts are stored as they are".to_owned(),
    });
    let mut sums = BTreeMap::<_, u64>::new();
    for each in &uses {
        *sums.entry(each.key).or_default() += each.values;
    }
    let others: u64 = sums.iter().filter(|(key, _)| **key != present).map(|(_, values)| values).sum();
    let rows = uses.iter().map(|each| vec![each.what.clone(), name(each.key), each.values.to_string()]);
    output::line(&output::table(&["what", "key", "values"], rows.collect()));
    if others > 0 {
        output::line(&format!(
            "{others} values are not under the present key yet: `auricle protect rotate` changes that, as a server does by itself"
        ));
    }
    Ok(())
}

/// Held while no server runs on the folder, so that none begins.
fn lock(config: &Config) -> anyhow::Result<Option<std::fs::File>> {
    let path = config.data_dir.join("lock");
    let file = std::fs::File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    Ok(file.try_lock().is_ok().then_some(file))
}

async fn rotate(config: &Config, json: bool) -> anyhow::Result<()> {
    let (path, options) = (database(config)?, options(config)?);
    let lock = lock(config)?;
    if lock.is_none()
        && let Some(key) = options.ring.current()
        && !SqliteStore::knows_key(&path, &options, key).unwrap_or(false)
    {
        bail!(
            "a server runs on this folder and does not know key {key}: it could not read what is sealed under it. Restart it \
             with the same configuration first; it then does this by itself"
        );
    }
    let store = SqliteStore::open(&path, options.clone()).context("open the store")?;
    let bar = ProgressBar::new(BAR).with_style(
        ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    // A pass that was begun goes on; one that is done begins again, for what a process without the key may have written since.
    if store.seal_some().await?.done {
        store.seal_again().await?;
    }
    let done = loop {
        let now = store.seal_some().await?;
        bar.set_position((now.share * BAR as f64) as u64);
        bar.set_message(format!("{} texts", now.resealed));
        if now.done {
            break now;
        }
        if now.needs_compacting {
            bar.set_message("writing the database anew");
            let bytes_max =
                if lock.is_some() { u64::MAX } else { config.limits.protection_compact_bytes_max };
            break store.compact(bytes_max).await.context("write the database anew")?;
        }
    };
    // A server that runs does it by itself.
    let audio = match &lock {
        Some(_) => Some(rotate_audio(config, &store, options.ring, &bar).await?),
        None => None,
    };
    bar.finish_and_clear();
    store.close().await;
    told(done, audio, json)
}

async fn rotate_audio(
    config: &Config,
    store: &SqliteStore,
    ring: Keyring,
    bar: &ProgressBar,
) -> anyhow::Result<AudioSealing> {
    let kept = KeptAudio::open(config.data_dir.join("audio"), ring, config.limits.audio_kept_bytes_max)
        .context("open kept audio")?;
    let mut pass = AudioPass::begin(kept, store).await?;
    loop {
        let now = pass.step().await?;
        bar.set_position((now.share * BAR as f64) as u64);
        bar.set_message(format!("{} files of kept audio", now.resealed));
        if now.done {
            return Ok(now);
        }
    }
}

fn told(done: Sealing, audio: Option<AudioSealing>, json: bool) -> anyhow::Result<()> {
    let Sealing { done: whole, resealed, damaged, .. } = done;
    let (files, left) = audio.map_or((0, 0), |audio| (audio.resealed, audio.left));
    if json {
        output::json(&serde_json::json!({
            "done": whole, "resealed": resealed, "damaged": damaged,
            "audio": audio.map(|audio| serde_json::json!({"resealed": audio.resealed, "left": audio.left})),
        }))?;
    } else {
        output::line(&format!("{resealed} texts were brought to the present key"));
        match audio {
            Some(_) => output::line(&format!("{files} files of kept audio were too")),
            None => output::line("the server that runs does the same with kept audio"),
        }
        if !whole {
            output::line(
                "the database is too large to be written anew while a server runs: its free space may hold deleted texts. \
                 Stop the server and run this again",
            );
        }
    }
    if left > 0 {
        output::note(&format!(
            "{left} files of kept audio could not be opened and are as they were: they are damaged, or their key is not configured"
        ));
    }
    if damaged > 0 {
        bail!("{damaged} texts could not be opened and are as they were; their keys stay needed");
    }
    Ok(())
}
