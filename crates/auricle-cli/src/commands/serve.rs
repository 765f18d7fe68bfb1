//! `auricle serve`, `auricle listen` and `auricle pusher`: the same program with both halves or one.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use auricle_server::config::{Config, LogFormat, Shape};
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};

use crate::{client, output};

/// A flag for every key of the configuration, made from its table.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `--config FILE`.
    pub(crate) file: Option<PathBuf>,
    /// Flags that were given, as (key, text).
    pub(crate) flags: Vec<(String, String)>,
}

impl Settings {
    /// The effective configuration of a process of this shape.
    pub(crate) fn load(&self, shape: Shape) -> anyhow::Result<Config> {
        client::load(self.file.clone(), self.flags.clone(), shape)
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let file = matches.get_one::<PathBuf>("config").cloned();
        let mut flags = Vec::new();
        for key in auricle_server::config::keys() {
            if let Ok(Some(value)) = matches.try_get_one::<String>(&key.name) {
                flags.push((key.name.clone(), value.clone()));
            }
        }
        Ok(Self { file, flags })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for Settings {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .env("AURICLE_CONFIG")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("Configuration file (TOML); every option below is also a key of it");
        let mut command = command.arg(file).next_line_help(true);
        for key in auricle_server::config::keys() {
            let mut flags = key.flags.iter().map(|flag| flag.trim_start_matches("--"));
            let Some(long) = flags.next() else { continue };
            let mut arg = Arg::new(key.name.as_str())
                .long(long)
                .value_name("VALUE")
                .action(ArgAction::Set)
                .hide(key.name.starts_with("limits."))
                .help(match key.default.as_str() {
                    "" => format!("{} Value: {}.", key.doc, key.form),
                    default => format!("{} Value: {}. [default: {default}]", key.doc, key.form),
                });
            for alias in flags {
                arg = arg.alias(alias);
            }
            if key.is_switch() {
                arg = arg.num_args(0..=1).default_missing_value("true");
            }
            command = command.arg(arg);
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Every key of the configuration is a flag; limits are in `auricle config show`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: Settings,
}

pub(crate) fn run(args: &Args, shape: Shape) -> anyhow::Result<ExitCode> {
    let config = args.settings.load(shape)?;
    log(&config);
    let app = auricle_server::build(config).context("cannot start")?;
    app.run(|addresses| {
        // The first line, which scripts read.
        output::line(&format!("listening on {}, probes on {}", addresses.public, addresses.probe));
    })?;
    Ok(ExitCode::SUCCESS)
}

fn log(config: &Config) {
    let level = config.log.level.as_str();
    let filter = tracing_subscriber::EnvFilter::new(level);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Json => log.json().init(),
        LogFormat::Text => log.init(),
    }
}
