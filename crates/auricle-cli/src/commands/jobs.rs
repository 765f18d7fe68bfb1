//! `auricle jobs`.

use std::process::ExitCode;

use anyhow::Context as _;
use auricle_wire::rest::{Job, Revived};

use crate::client::{Target, block_on, encoded};
use crate::output;

/// List, show and retry the jobs that make records and hear conversations again.
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
    /// Revive what failed: one job, all failed jobs, or all effects (such as webhooks) that nobody took.
    Retry {
        /// The job's id.
        #[arg(required_unless_present_any = ["failed", "effects"])]
        id: Option<String>,
        /// All failed jobs that make records.
        #[arg(long, conflicts_with_all = ["id", "effects"])]
        failed: bool,
        /// All failed effects: they are delivered again, under the same keys.
        #[arg(long, conflicts_with = "id")]
        effects: bool,
        /// Of every user, not only one's own; for the admin key and the local user.
        #[arg(long, conflicts_with = "id")]
        everybody: bool,
        #[command(flatten)]
        target: Target,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
}

/// What it does.
fn kind(job: &Job) -> String {
    match &job.engine {
        Some(engine) => format!("heard again by {engine}"),
        None => job.kind.clone(),
    }
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
                        kind(job),
                        job.state.clone(),
                        format!("{}/{}", job.attempts, job.attempts_max),
                        output::when(job.created_at),
                        error,
                    ]
                });
                output::line(&output::table(
                    &["job", "what", "state", "tries", "created", "last error"],
                    rows.collect(),
                ));
            }
            Command::Show { id, target, json } => {
                let job: Job = target.get(&format!("/v1/jobs/{}", encoded(id))).await?;
                if *json {
                    return output::json(&job);
                }
                let what = kind(&job);
                let mut rows = vec![
                    vec!["job".into(), job.id],
                    vec!["what".into(), what],
                    vec!["conversation".into(), job.conversation_id],
                    vec!["revision".into(), job.revision.to_string()],
                    vec!["why".into(), job.reason],
                    vec!["state".into(), job.state],
                    vec!["tries".into(), format!("{} of {}", job.attempts, job.attempts_max)],
                    vec!["due".into(), output::when(job.run_at)],
                ];
                rows.extend(job.heard_secs.map(|secs| vec!["heard".into(), format!("{secs:.0} s")]));
                rows.extend(job.last_error.map(|error| vec!["last error".into(), error]));
                output::line(&output::table(&["", ""], rows));
            }
            Command::Retry { id: Some(id), target, json, .. } => {
                let path = format!("/v1/jobs/{}/retry", encoded(id));
                let job: Option<Job> = target.call(reqwest::Method::POST, &path, None).await?;
                if *json {
                    return output::json(&job);
                }
                output::line("queued again");
            }
            Command::Retry { id: None, effects, everybody, target, json, .. } => {
                let (what, one, many) =
                    if *effects { ("effects", "effect", "effects") } else { ("jobs", "job", "jobs") };
                let path = format!("/v1/{what}/retry?everybody={everybody}");
                let answer: Option<Revived> = target.call(reqwest::Method::POST, &path, None).await?;
                let answer = answer.context("the server's answer is empty")?;
                if *json {
                    return output::json(&answer);
                }
                let number = answer.revived;
                output::line(&format!("{number} {} queued again", if number == 1 { one } else { many }));
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
