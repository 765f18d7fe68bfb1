//! `auricle config`.

use std::process::ExitCode;

use auricle_server::config::Shape;

use super::serve::Settings;
use crate::output;

/// Show or check the configuration.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Print every key with its effective value and where it came from; secrets are hidden.
    Show {
        #[command(flatten)]
        settings: Settings,
        /// Of which command.
        #[arg(long = "for", value_enum, default_value_t, value_name = "COMMAND")]
        command: Runs,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Say whether the configuration is right; exit code 64 if not.
    Check {
        #[command(flatten)]
        settings: Settings,
        /// For which command.
        #[arg(long = "for", value_enum, default_value_t, value_name = "COMMAND")]
        command: Runs,
    },
}

/// The commands that run a server.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default)]
pub(crate) enum Runs {
    #[default]
    Serve,
    Listen,
    Pusher,
}

impl From<Runs> for Shape {
    fn from(runs: Runs) -> Self {
        match runs {
            Runs::Serve => Self::Embedded,
            Runs::Listen => Self::Listen,
            Runs::Pusher => Self::Pusher,
        }
    }
}

pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Show { settings, command: runs, json } => {
            let rows = settings.load((*runs).into())?.show();
            if *json {
                let rows: Vec<_> = rows
                    .iter()
                    .map(|row| serde_json::json!({"key": row.key, "value": row.value, "origin": row.origin}))
                    .collect();
                output::json(&rows)?;
            } else {
                let rows = rows.into_iter().map(|row| vec![row.key.into(), row.value, row.origin]);
                output::line(&output::table(&["key", "value", "from"], rows.collect()));
            }
        }
        Command::Check { settings, command: runs } => {
            let config = settings.load((*runs).into())?;
            output::line(&format!("the configuration is right (hash {})", config.hash()));
        }
    }
    Ok(ExitCode::SUCCESS)
}
