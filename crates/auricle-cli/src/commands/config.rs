//! `auricle config`.

use std::process::ExitCode;

use super::serve::Settings;
use crate::output;

/// Show or check the configuration.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Print every key with its effective value and where it came from; secrets are hidden.
    Show {
        #[command(flatten)]
        settings: Settings,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Say whether the configuration is right; exit code 64 if not.
    Check {
        #[command(flatten)]
        settings: Settings,
    },
}

pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Show { settings, json } => {
            let rows = settings.load()?.show();
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
        Command::Check { settings } => {
            let config = settings.load()?;
            output::line(&format!("the configuration is right (hash {})", config.hash()));
        }
    }
    Ok(ExitCode::SUCCESS)
}
