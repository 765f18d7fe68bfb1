//! `auricle days`.

use std::process::ExitCode;

use anyhow::Context as _;
use auricle_wire::rest::Day;
use reqwest::Method;

use crate::client::{Target, block_on, encoded};
use crate::output;

/// List, show and make summaries of days.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// List days, the latest first.
    List {
        /// How many.
        #[arg(long, default_value_t = 30)]
        limit: usize,
        #[command(flatten)]
        target: Target,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Show a day.
    Show {
        /// YYYY-MM-DD.
        date: String,
        #[command(flatten)]
        target: Target,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Make a day's summary, or make it again.
    Summarise {
        /// YYYY-MM-DD.
        date: String,
        #[command(flatten)]
        target: Target,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    block_on(async {
        match command {
            Command::List { limit, target, json } => {
                let found: Vec<Day> = target.get(&format!("/v1/days?limit={limit}")).await?;
                if *json {
                    return output::json(&found);
                }
                if found.is_empty() {
                    output::line(
                        "no summaries yet: the server makes them by itself with `days.summary`, or `auricle days summarise DATE`",
                    );
                    return Ok(());
                }
                let rows = found.iter().map(|day| {
                    let headline = day.summary_json.as_ref().and_then(|summary| summary["headline"].as_str());
                    vec![
                        day.date.clone(),
                        day.state.clone(),
                        day.conversations.to_string(),
                        headline.unwrap_or_default().to_owned(),
                    ]
                });
                output::line(&output::table(&["date", "state", "conversations", "headline"], rows.collect()));
            }
            Command::Show { date, target, json } => {
                let day: Day = target.get(&format!("/v1/days/{}", encoded(date))).await?;
                if *json {
                    return output::json(&day);
                }
                shown(&day);
            }
            Command::Summarise { date, target, json } => {
                let path = format!("/v1/days/{}/summarise", encoded(date));
                let day: Option<Day> = target.call(Method::POST, &path, None).await?;
                let day = day.context("the server's answer is empty")?;
                if *json {
                    return output::json(&day);
                }
                output::line(&format!("{} is being summarised: `auricle days show {}`", day.date, day.date));
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn shown(day: &Day) {
    let Some(summary) = &day.summary_json else {
        let why = day.last_error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
        return output::line(&format!("{}: {}{why}", day.date, day.state));
    };
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    output::line(&format!("{} {}", text(&summary["day_emoji"]), text(&summary["headline"])));
    output::line(&format!(
        "{} · {}, by {}\n",
        day.date,
        day.state,
        day.provider.as_deref().unwrap_or("nobody")
    ));
    output::line(&text(&summary["overview"]));
    for part in summary["highlights"].as_array().into_iter().flatten() {
        output::line(&format!(
            "\n{} {}\n  {}",
            text(&part["emoji"]),
            text(&part["topic"]),
            text(&part["summary"])
        ));
    }
    let items = summary["action_items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !items.is_empty() {
        output::line("");
    }
    for item in items {
        let mark = if item["completed"] == true { "x" } else { " " };
        output::line(&format!("[{mark}] {}", text(&item["description"])));
    }
}
