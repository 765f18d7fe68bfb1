//! Real processes of both halves on loopback, in a folder of their own: started, killed, asked to stop, started again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use super::process::first_line;

/// How long a process may take to end by itself before it is killed.
const STOP_MAX: Duration = Duration::from_secs(60);

/// A folder for one measurement. Removed when dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(what: &str) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("auricle-{what}-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One process: `listen`, `pusher` or `serve`. Killed when dropped.
pub(super) struct Process {
    command: &'static str,
    data: PathBuf,
    /// Settings as (variable without `AURICLE_`, value).
    settings: Vec<(String, String)>,
    child: Option<Child>,
    pub(super) public: SocketAddr,
    pub(super) probe: SocketAddr,
}

impl Process {
    /// On free ports.
    pub(super) fn start(
        command: &'static str,
        data: &Path,
        settings: Vec<(String, String)>,
    ) -> anyhow::Result<Self> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut process = Self { command, data: data.into(), settings, child: None, public: any, probe: any };
        process.start_again()?;
        Ok(process)
    }

    /// On the ports it had.
    pub(super) fn start_again(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AURICLE_"))
        {
            command.env_remove(name);
        }
        command
            .arg(self.command)
            .arg("--data-dir")
            .arg(&self.data)
            .args(["--bind", &self.public.to_string(), "--probe-bind", &self.probe.to_string()])
            .args(["--log-level", "error"])
            .envs(self.settings.iter().map(|(name, value)| (format!("AURICLE_{name}"), value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start `auricle {}`", self.command))?;
        let line = first_line(&mut child)?;
        self.child = Some(child);
        let mut addresses =
            line.split_whitespace().filter_map(|word| word.trim_end_matches(',').parse::<SocketAddr>().ok());
        self.public = addresses.next().context("no address in the process's first line")?;
        self.probe = addresses.next().context("no probe address in the process's first line")?;
        Ok(())
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, and waits for its end; its exit code.
    pub(super) fn terminate(&mut self) -> anyhow::Result<Option<i32>> {
        let Some(mut child) = self.child.take() else { return Ok(None) };
        kill_process(Pid::from_child(&child), Signal::TERM)?;
        let tries = STOP_MAX.as_millis() / 10;
        for _ in 0..tries {
            if let Some(status) = child.try_wait()? {
                return Ok(status.code());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = (child.kill(), child.wait());
        anyhow::bail!("`auricle {}` did not end within {STOP_MAX:?} of SIGTERM", self.command)
    }

    /// Whether it ended without being asked to.
    pub(super) fn has_died(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// `[("BIND", …)]` from pairs.
pub(super) fn settings(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
