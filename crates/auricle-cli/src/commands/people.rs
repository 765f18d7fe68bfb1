//! `auricle people`.

use std::process::ExitCode;

use anyhow::Context as _;
use auricle_wire::people::Person;
use reqwest::Method;

use crate::client::{Target, block_on, encoded};
use crate::output;

const PATH: &str = "/v1/users/people";

/// List, add, rename and delete the people you know.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// List people, the first first.
    List {
        #[command(flatten)]
        target: Target,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Add a person; one of the same name is not added twice.
    Add {
        /// Their name.
        name: String,
        #[command(flatten)]
        target: Target,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Rename a person.
    Rename {
        /// The person's id.
        id: String,
        /// Their name.
        name: String,
        #[command(flatten)]
        target: Target,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Delete a person with their voices; what they said is nobody's then.
    Delete {
        /// The person's id.
        id: String,
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
            Command::List { target, json } => {
                let found: Vec<Person> = target.get(PATH).await?;
                if *json {
                    return output::json(&found);
                }
                if found.is_empty() {
                    output::line("nobody yet: whoever says their name in a conversation is added");
                    return Ok(());
                }
                let rows = found.iter().map(|person| {
                    let voices = person.voices.to_string();
                    vec![person.id.clone(), output::when(person.created_at), voices, person.name.clone()]
                });
                output::line(&output::table(&["id", "since", "voices", "name"], rows.collect()));
            }
            Command::Add { name, target, json } => {
                let body = serde_json::json!({ "name": name });
                let person: Option<Person> = target.call(Method::POST, PATH, Some(body)).await?;
                let person = person.context("the server's answer is empty")?;
                if *json {
                    return output::json(&person);
                }
                output::line(&format!("{}: {}", person.id, person.name));
            }
            Command::Rename { id, name, target, json } => {
                let path = format!("{PATH}/{}", encoded(id));
                let body = serde_json::json!({ "name": name });
                let renamed = format!("{path}/name");
                target.call::<serde_json::Value>(Method::PATCH, &renamed, Some(body)).await?;
                if *json {
                    return output::json(&target.get::<Person>(&path).await?);
                }
                output::line("renamed");
            }
            Command::Delete { id, target, json } => {
                let path = format!("{PATH}/{}", encoded(id));
                target.call::<serde_json::Value>(Method::DELETE, &path, None).await?;
                if *json {
                    return output::json(&serde_json::json!({ "deleted": id }));
                }
                output::line("deleted");
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
