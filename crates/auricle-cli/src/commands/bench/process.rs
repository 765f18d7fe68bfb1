//! The servers that are measured, as child processes, and what the system says of them.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;

/// A server under test. A child is stopped, and its folder removed, when this is dropped.
pub(super) struct Server {
    pub(super) url: String,
    pub(super) probe: Option<SocketAddr>,
    pid: Option<u32>,
    child: Option<Child>,
    folder: Option<PathBuf>,
}

/// What the system says of a process.
pub(super) struct Measured {
    pub(super) cpu: Duration,
    pub(super) resident_kib: u64,
}

impl Server {
    pub(super) fn floor() -> anyhow::Result<Self> {
        let mut child = Self::spawn(Command::new(std::env::current_exe()?).args(["bench", "floor-server"]))?;
        let address = first_line(&mut child)?;
        Ok(Self {
            url: format!("ws://{address}/"),
            probe: None,
            pid: Some(child.id()),
            child: Some(child),
            folder: None,
        })
    }

    pub(super) fn own(sessions: usize) -> anyhow::Result<Self> {
        let room = (sessions + 8).to_string();
        let connections = (sessions + 64).to_string();
        Self::with("sessions", |command, _| {
            command.args(["--limits-sessions-max", &room, "--limits-sessions-per-user-max", &room]);
            command.args(["--limits-connections-max", &connections]);
            Ok(())
        })
    }

    /// A server with the scripted engine in a folder of its own, set up by `configure`, which is given that folder.
    pub(super) fn with(
        name: &str,
        configure: impl FnOnce(&mut Command, &std::path::Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        Self::with_speech(name, "scripted", configure)
    }

    /// The same with other engines.
    pub(super) fn with_speech(
        name: &str,
        engines: &str,
        configure: impl FnOnce(&mut Command, &std::path::Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("auricle-bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").arg("--data-dir").arg(&folder);
        command.args([
            "--bind",
            "127.0.0.1:0",
            "--probe-bind",
            "127.0.0.1:0",
            "--speech",
            engines,
            "--log-level",
            "warn",
        ]);
        configure(&mut command, &folder)?;
        let mut child = Self::spawn(&mut command)?;
        let line = first_line(&mut child)?;
        let mut addresses =
            line.split_whitespace().map(|word| word.trim_end_matches(',')).filter(|word| word.contains(':'));
        let (public, probe) =
            (addresses.next().context("no address in the server's first line")?, addresses.next());
        Ok(Self {
            url: format!("ws://{public}/v4/listen?codec=opus_fs320&sample_rate=16000&language=en"),
            probe: probe.and_then(|address| address.parse().ok()),
            pid: Some(child.id()),
            child: Some(child),
            folder: Some(folder),
        })
    }

    pub(super) fn running(url: &str, probe: Option<SocketAddr>, pid: Option<u32>) -> Self {
        let base = url.trim_end_matches('/').replacen("http", "ws", 1);
        let url = format!("{base}/v4/listen?codec=opus_fs320&sample_rate=16000&language=en");
        Self { url, probe, pid, child: None, folder: None }
    }

    fn spawn(command: &mut Command) -> anyhow::Result<Child> {
        command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().context("start a child process")
    }

    pub(super) fn measured(&self) -> anyhow::Result<Measured> {
        let Some(pid) = self.pid else { return Ok(Measured { cpu: Duration::ZERO, resident_kib: 0 }) };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the server has ended")?;
        // Fields count from behind the name, which stands in parentheses: utime is the 12th, stime the 13th there.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        let a_second = rustix::param::clock_ticks_per_second().max(1);
        let status =
            std::fs::read_to_string(format!("/proc/{pid}/status")).context("the server has ended")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident_kib =
            resident.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0);
        Ok(Measured {
            cpu: Duration::from_secs_f64((ticks(11) + ticks(12)) as f64 / a_second as f64),
            resident_kib,
        })
    }
}

/// CPU time that the machine's own host gave to others, all cores together; zero where the system does not say. While it
/// grows nothing that is timed here means much.
pub(super) fn stolen() -> Duration {
    // The first line is the sum of all cores: user, nice, system, idle, iowait, irq, softirq, steal. Source: proc_stat(5).
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = stat.split_whitespace().nth(8).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second().max(1) as f64)
}

pub(super) fn first_line(child: &mut Child) -> anyhow::Result<String> {
    let mut output = BufReader::new(child.stdout.take().context("the child's output")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    anyhow::ensure!(!line.trim().is_empty(), "the server did not start; its error stands above");
    // Kept open, so that the child does not fail when it writes again.
    child.stdout = Some(output.into_inner());
    Ok(line.trim().to_owned())
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}
