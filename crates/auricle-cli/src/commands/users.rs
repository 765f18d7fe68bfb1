//! `auricle users`.

use std::process::ExitCode;

use anyhow::bail;
use auricle_wire::rest::Status;

use crate::client::{Target, block_on, encoded};
use crate::output;

/// Delete a user.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Delete a user with everything that is theirs: conversations, records, audio, keys. It cannot be undone.
    Delete {
        /// The user's id; with `AURICLE_ADMIN_KEY` set, anybody's, else one's own.
        uid: String,
        /// Yes, everything.
        #[arg(long)]
        yes: bool,
        /// The admin key, with which the command acts for that user.
        #[arg(long, env = "AURICLE_ADMIN_KEY", hide = true, hide_env_values = true)]
        admin_key: Option<String>,
        #[command(flatten)]
        target: Target,
    },
}

pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    let Command::Delete { uid, yes, admin_key, target } = command;
    if !yes {
        bail!(
            "this deletes everything of {uid} for good; `auricle export DIR` keeps a copy. Say --yes if that is meant"
        );
    }
    let target = match admin_key {
        Some(key) if target.token().is_none() => target.with_token(format!("{key}{uid}")),
        _ => target.clone(),
    };
    let path = format!("/v1/users/me?confirm={}", encoded(uid));
    block_on(target.call::<Status>(reqwest::Method::DELETE, &path, None))?;
    output::line("being deleted: live sessions are closed, and everything is gone within seconds");
    Ok(ExitCode::SUCCESS)
}
