//! `auricle jobs`.

use std::process::ExitCode;

use auricle_wire::rest::Job;

use crate::client::{Target, block_on, encoded};
use crate::output;

/// List, show and retry the jobs that make records.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// List jobs, newest first.
    List {
        #[command(flatten)]
        target: Target,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Show one job.
    Show {
        /// The job's id.
        id: String,
        #[command(flatten)]
        target: Target,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Revive a failed job.
    Retry {
        /// The job's id.
        id: String,
        #[command(flatten)]
        target: Target,
    },
}

pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    block_on(async {
        match command {
            Command::List { target, json } => {
                let jobs: Vec<Job> = target.get("/v1/jobs").await?;
                if *json {
                    return output::json(&jobs);
                }
                if jobs.is_empty() {
                    output::line("no jobs yet: one appears when a conversation ends");
                    return Ok(());
                }
                let rows = jobs.iter().map(|job| {
                    let error = job.last_error.clone().unwrap_or_default();
                    vec![
                        job.id.clone(),
                        job.state.clone(),
                        format!("{}/{}", job.attempts, job.attempts_max),
                        output::when(job.created_at),
                        error,
                    ]
                });
                output::line(&output::table(
                    &["job", "state", "tries", "created", "last error"],
                    rows.collect(),
                ));
            }
            Command::Show { id, target, json } => {
                let job: Job = target.get(&format!("/v1/jobs/{}", encoded(id))).await?;
                if *json {
                    return output::json(&job);
                }
                let mut rows = vec![
                    vec!["job".into(), job.id],
                    vec!["conversation".into(), job.conversation_id],
                    vec!["revision".into(), job.revision.to_string()],
                    vec!["why".into(), job.reason],
                    vec!["state".into(), job.state],
                    vec!["tries".into(), format!("{} of {}", job.attempts, job.attempts_max)],
                    vec!["due".into(), output::when(job.run_at)],
                ];
                rows.extend(job.last_error.map(|error| vec!["last error".into(), error]));
                output::line(&output::table(&["", ""], rows));
            }
            Command::Retry { id, target } => {
                let path = format!("/v1/jobs/{}/retry", encoded(id));
                target.call::<serde_json::Value>(reqwest::Method::POST, &path, None).await?;
                output::line("queued again");
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
