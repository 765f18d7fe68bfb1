//! The binary `auricle`: commands, what they print, exit codes. Logic lives in the crates it uses.

mod client;
mod commands;
mod download;
mod output;

use std::process::ExitCode;

use auricle_server::config::Shape;
use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Wrong usage or configuration. Source: sysexits.h.
const EX_USAGE: u8 = 64;

/// A live-listening server: audio in, transcript live, records out.
#[derive(Parser)]
#[command(
    name = "auricle",
    version,
    about,
    after_help = "Begin with `auricle serve`, then `auricle stream FILE.wav --wait` in another terminal."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server: sockets, REST, processing, probes, in one process.
    Serve(commands::serve::Args),
    /// Run the listening half alone: sockets, REST, probes; records are made by a pusher, or here if it is gone.
    Listen(commands::serve::Args),
    /// Run the processing half alone: realtime triggers and records, for any number of listening processes.
    Pusher(commands::serve::Args),
    /// Play audio files to a server as a device would, and show the transcript.
    Stream(commands::stream::Args),
    /// Send recordings as files, to be transcribed into conversations.
    Upload(commands::upload::Args),
    /// List, show, search, export, rename and delete conversations.
    #[command(subcommand)]
    Conversations(commands::conversations::Command),
    /// List, complete, edit, delete and export what conversations left to do.
    #[command(subcommand)]
    ActionItems(commands::action_items::Command),
    /// List, add, edit, delete and export what is known about you.
    #[command(subcommand)]
    Memories(commands::memories::Command),
    /// List, show and make summaries of days.
    #[command(subcommand)]
    Days(commands::days::Command),
    /// List, add, rename and delete the people you know.
    #[command(subcommand)]
    People(commands::people::Command),
    /// Write everything a user has into a folder: conversations in each form, and all other records.
    Export(commands::export::Args),
    /// List, show and retry the jobs that make records.
    #[command(subcommand)]
    Jobs(commands::jobs::Command),
    /// Add, list, test and look after webhooks and apps, and receive what they are told.
    #[command(subcommand)]
    Webhooks(commands::webhooks::Command),
    /// Delete a user.
    #[command(subcommand)]
    Users(commands::users::Command),
    /// Show and change the key under which texts are stored.
    #[command(subcommand)]
    Protect(commands::protect::Command),
    /// List and fetch models for speech recognition on this machine.
    #[command(subcommand)]
    Models(commands::models::Command),
    /// Check configuration, engine, store and ports, and say how to mend what is wrong.
    Doctor(commands::doctor::Args),
    /// Show or check the configuration.
    #[command(subcommand)]
    Config(commands::config::Command),
    /// Measure.
    #[command(subcommand)]
    Bench(commands::bench::Command),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let wrong = error.use_stderr();
            let _ = error.print();
            return if wrong { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    // Fails only if a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let done = match cli.command {
        Command::Serve(args) => commands::serve::run(&args, Shape::Embedded),
        Command::Listen(args) => commands::serve::run(&args, Shape::Listen),
        Command::Pusher(args) => commands::serve::run(&args, Shape::Pusher),
        Command::Stream(args) => commands::stream::run(&args),
        Command::Upload(args) => commands::upload::run(&args),
        Command::Conversations(command) => commands::conversations::run(&command),
        Command::ActionItems(command) => commands::action_items::run(&command),
        Command::Memories(command) => commands::memories::run(&command),
        Command::Days(command) => commands::days::run(&command),
        Command::People(command) => commands::people::run(&command),
        Command::Jobs(command) => commands::jobs::run(&command),
        Command::Webhooks(command) => commands::webhooks::run(&command),
        Command::Export(args) => commands::export::run(&args),
        Command::Users(command) => commands::users::run(&command),
        Command::Protect(command) => commands::protect::run(&command),
        Command::Models(command) => commands::models::run(&command),
        Command::Doctor(args) => commands::doctor::run(&args),
        Command::Config(command) => commands::config::run(&command),
        Command::Bench(command) => commands::bench::run(&command),
    };
    match done {
        Ok(code) => code,
        Err(error) if error.is::<auricle_server::config::ConfigError>() => {
            output::error(&format!("{error:#}"));
            ExitCode::from(EX_USAGE)
        }
        Err(error) => {
            output::error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
