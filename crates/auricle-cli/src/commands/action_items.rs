//! `auricle action-items`.

use std::process::ExitCode;

use anyhow::Context as _;
use auricle_wire::rest::{ActionItem, ActionItemChange};
use auricle_wire::time::WireTime;
use reqwest::Method;

use crate::client::{Target, block_on, encoded};
use crate::output;

/// List, complete, edit, delete and export what conversations left to do.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// List action items, newest first.
    List {
        /// Also those that are done.
        #[arg(long)]
        all: bool,
        /// Only those of this conversation.
        #[arg(long, value_name = "ID")]
        conversation: Option<String>,
        /// How many.
        #[arg(long, default_value_t = 50)]
        limit: usize,
        #[command(flatten)]
        target: Target,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Tick an action item off.
    Complete {
        /// The action item's id.
        id: String,
        #[command(flatten)]
        target: Target,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Take the tick away again.
    Reopen {
        /// The action item's id.
        id: String,
        #[command(flatten)]
        target: Target,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Change the words or the time of an action item; no reprocessing changes them afterwards.
    Edit {
        /// The action item's id.
        id: String,
        /// Its words.
        #[arg(required_unless_present = "due")]
        description: Option<String>,
        /// When it is due, e.g. 2026-02-01T09:00:00Z, or `none`.
        #[arg(long, value_name = "TIME", value_parser = due)]
        due: Option<Due>,
        #[command(flatten)]
        target: Target,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Delete an action item.
    Delete {
        /// The action item's id.
        id: String,
        #[command(flatten)]
        target: Target,
    },
    /// Print all action items in another form.
    Export {
        /// Which form.
        #[arg(long, value_enum, default_value_t = Format::Markdown)]
        format: Format,
        #[command(flatten)]
        target: Target,
    },
}

/// A time, or none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Due(Option<WireTime>);

fn due(text: &str) -> Result<Due, String> {
    if text == "none" {
        return Ok(Due(None));
    }
    let at: Result<WireTime, _> = serde_json::from_value(text.into());
    at.map(|at| Due(Some(at))).map_err(|_| "expected a time such as 2026-02-01T09:00:00Z, or none".to_owned())
}

/// Forms of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A list to tick off.
    Markdown,
    /// Everything, as the REST interface has it.
    Json,
    /// A table.
    Csv,
}

pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    block_on(async {
        match command {
            Command::List { all, conversation, limit, target, json } => {
                let mut path = format!("/v1/action-items?limit={limit}");
                if !all {
                    path += "&completed=false";
                }
                if let Some(id) = conversation {
                    path += &format!("&conversation_id={}", encoded(id));
                }
                let found: Vec<ActionItem> = target.get(&path).await?;
                if *json {
                    return output::json(&found);
                }
                if found.is_empty() {
                    output::line("nothing to do");
                    return Ok(());
                }
                let rows = found.iter().map(|item| {
                    let mark = if item.completed { "done" } else { "open" };
                    let due = item.due_at.map(output::when).unwrap_or_default();
                    vec![item.id.clone(), mark.to_owned(), due, item.description.clone()]
                });
                output::line(&output::table(&["id", "state", "due", "what"], rows.collect()));
            }
            Command::Complete { id, target, json } => {
                let change = ActionItemChange { completed: Some(true), ..ActionItemChange::default() };
                changed(target, id, &change, *json, "completed").await?;
            }
            Command::Reopen { id, target, json } => {
                let change = ActionItemChange { completed: Some(false), ..ActionItemChange::default() };
                changed(target, id, &change, *json, "open again").await?;
            }
            Command::Edit { id, description, due, target, json } => {
                let due_at = due.map(|Due(at)| at);
                let change = ActionItemChange { description: description.clone(), completed: None, due_at };
                changed(target, id, &change, *json, "changed").await?;
            }
            Command::Delete { id, target } => {
                let path = format!("/v1/action-items/{}", encoded(id));
                target.call::<serde_json::Value>(Method::DELETE, &path, None).await?;
                output::line("deleted");
            }
            Command::Export { format, target } => {
                let format = match format {
                    Format::Markdown => "markdown",
                    Format::Json => "json",
                    Format::Csv => "csv",
                };
                let path = format!("/v1/action-items/export?format={format}");
                output::line(target.text(Method::GET, &path, None).await?.trim_end());
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn changed(
    target: &Target,
    id: &str,
    change: &ActionItemChange,
    json: bool,
    done: &str,
) -> anyhow::Result<()> {
    let path = format!("/v1/action-items/{}", encoded(id));
    let body = serde_json::to_value(change)?;
    let item: Option<ActionItem> = target.call(Method::PATCH, &path, Some(body)).await?;
    let item = item.context("the server's answer is empty")?;
    if json {
        return output::json(&item);
    }
    output::line(&format!("{done}: {}", item.description));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_due_time_is_a_moment_or_none() {
        assert_eq!(due("none"), Ok(Due(None)));
        assert_eq!(due("1970-01-01T00:00:01Z"), Ok(Due(Some(WireTime(1_000_000)))));
        assert!(due("tomorrow").is_err());
    }
}
