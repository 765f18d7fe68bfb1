//! `auricle memories`.

use std::process::ExitCode;

use anyhow::Context as _;
use auricle_wire::rest::Memory;
use reqwest::Method;

use crate::client::{Target, block_on, encoded};
use crate::output;

/// List, add, edit, delete and export what is known about you.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// List memories, newest first.
    List {
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
    /// Keep a memory of your own.
    Add {
        /// Its words.
        text: String,
        #[command(flatten)]
        target: Target,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Reword a memory; no reprocessing changes it afterwards.
    Edit {
        /// The memory's id.
        id: String,
        /// Its words.
        text: String,
        #[command(flatten)]
        target: Target,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Delete a memory.
    Delete {
        /// The memory's id.
        id: String,
        #[command(flatten)]
        target: Target,
    },
    /// Print all memories in another form.
    Export {
        /// Which form.
        #[arg(long, value_enum, default_value_t = Format::Markdown)]
        format: Format,
        #[command(flatten)]
        target: Target,
    },
}

/// Forms of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A list.
    Markdown,
    /// Everything, as the REST interface has it.
    Json,
}

pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    block_on(async {
        match command {
            Command::List { conversation, limit, target, json } => {
                let mut path = format!("/v1/memories?limit={limit}");
                if let Some(id) = conversation {
                    path += &format!("&conversation_id={}", encoded(id));
                }
                let found: Vec<Memory> = target.get(&path).await?;
                if *json {
                    return output::json(&found);
                }
                if found.is_empty() {
                    output::line("no memories yet: a language model makes them (`llm.url`)");
                    return Ok(());
                }
                let rows = found.iter().map(|memory| {
                    vec![memory.id.clone(), output::when(memory.created_at), memory.text.clone()]
                });
                output::line(&output::table(&["id", "since", "what"], rows.collect()));
            }
            Command::Add { text, target, json } => {
                written(target, Method::POST, "/v1/memories", text, (*json, "kept")).await?;
            }
            Command::Edit { id, text, target, json } => {
                let path = format!("/v1/memories/{}", encoded(id));
                written(target, Method::PATCH, &path, text, (*json, "changed")).await?;
            }
            Command::Delete { id, target } => {
                let path = format!("/v1/memories/{}", encoded(id));
                target.call::<serde_json::Value>(Method::DELETE, &path, None).await?;
                output::line("deleted");
            }
            Command::Export { format, target } => {
                let format = match format {
                    Format::Markdown => "markdown",
                    Format::Json => "json",
                };
                let path = format!("/v1/memories/export?format={format}");
                output::line(target.text(Method::GET, &path, None).await?.trim_end());
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn written(
    target: &Target,
    method: Method,
    path: &str,
    text: &str,
    (json, done): (bool, &str),
) -> anyhow::Result<()> {
    let memory: Option<Memory> = target.call(method, path, Some(serde_json::json!({ "text": text }))).await?;
    let memory = memory.context("the server's answer is empty")?;
    if json {
        return output::json(&memory);
    }
    output::line(&format!("{done}: {}", memory.text));
    Ok(())
}
