//! `auricle models`: the files that Whisper needs.

use std::process::ExitCode;

use anyhow::bail;
use auricle_server::config::{Config, Shape};
use auricle_server::models::{Presence, presence, pull};
use auricle_speech::whisper::catalog::{MODELS, Model, find, resolve};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::serve::Settings;
use crate::client::block_on;
use crate::output;

/// List and fetch models for speech recognition on this machine.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// List the published models, smallest first, and which are here.
    List {
        #[command(flatten)]
        settings: Settings,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Fetch a model into the data folder and check it. May be stopped and begun again at any time.
    Pull {
        /// As `auricle models list` shows it.
        name: String,
        #[command(flatten)]
        settings: Settings,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    bytes: u64,
    sha256: &'static str,
    multilingual: bool,
    state: &'static str,
    /// Of it here.
    bytes_here: u64,
    path: String,
    /// Whether the configuration names it.
    chosen: bool,
}

pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::List { settings, json } => list(&settings.load(Shape::Embedded)?, *json)?,
        Command::Pull { name, settings, json } => {
            let config = settings.load(Shape::Embedded)?;
            let Some(model) = find(name) else {
                let names: Vec<_> = MODELS.iter().map(|model| model.name).collect();
                bail!("there is no published model `{name}`; choose one of {}", names.join(", "));
            };
            block_on(fetch(model, &config, *json))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(model: &'static Model, config: &Config) -> Row {
    let path = model.path(&config.data_dir);
    let (state, bytes_here) = match presence(model, &config.data_dir) {
        Presence::Present => ("present", model.bytes),
        Presence::Partial(bytes) => ("partial", bytes),
        Presence::Damaged(bytes) => ("damaged", bytes),
        Presence::Absent => ("absent", 0),
    };
    Row {
        name: model.name,
        bytes: model.bytes,
        sha256: model.sha256,
        multilingual: model.is_multilingual(),
        state,
        bytes_here,
        chosen: resolve(config.speech.whisper.model.as_deref(), &config.data_dir) == path,
        path: path.display().to_string(),
    }
}

fn list(config: &Config, json: bool) -> anyhow::Result<()> {
    let rows: Vec<Row> = MODELS.iter().map(|model| row(model, config)).collect();
    if json {
        return output::json(&rows);
    }
    let rows = rows.iter().map(|row| {
        let state = match row.state {
            "partial" => format!("{}% fetched", row.bytes_here * 100 / row.bytes),
            "damaged" => format!("damaged: pull {} again", row.name),
            "absent" => String::new(),
            state => state.to_owned(),
        };
        let name =
            if row.chosen { format!("{} (speech.whisper_model)", row.name) } else { row.name.to_owned() };
        let languages = if row.multilingual { "all" } else { "English" };
        vec![name, format!("{} MB", row.bytes / 1_000_000), languages.to_owned(), state]
    });
    output::line(&output::table(&["model", "size", "languages", "here"], rows.collect()));
    Ok(())
}

async fn fetch(model: &'static Model, config: &Config, json: bool) -> anyhow::Result<()> {
    // Draws on standard error, and only for people.
    let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(model.bytes) };
    let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(model.name);
    let url = &config.speech.whisper.models_url.0;
    let pulled = pull(model, url, &config.data_dir, |bytes| bar.set_position(bytes)).await;
    bar.finish_and_clear();
    let path = pulled?;
    if json {
        return output::json(&row(model, config));
    }
    output::line(&path.display().to_string());
    let chosen = resolve(config.speech.whisper.model.as_deref(), &config.data_dir) == path;
    let name = model.name;
    let how = if chosen { String::new() } else { format!(" --speech-whisper-model {name}") };
    output::note(&format!("use it with: auricle serve --speech whisper{how}"));
    Ok(())
}
