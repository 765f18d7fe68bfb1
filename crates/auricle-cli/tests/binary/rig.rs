//! A server process in a folder of its own, and commands against it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// Longest that anything here may take: only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn auricle() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_auricle"));
    // Nothing of the developer's own configuration.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AURICLE_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

pub(crate) fn run(args: &[&str]) -> Output {
    auricle().args(args).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file of this repository.
pub(crate) fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

pub(crate) struct Server {
    process: Child,
    pub(crate) address: SocketAddr,
    settings: Vec<(String, String)>,
    pub(crate) folder: TempDir,
}

impl Server {
    /// Settings as (variable without `AURICLE_`, value).
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let settings: Vec<_> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (process, address) = spawn(folder.path(), &settings, "127.0.0.1:0");
        Self { process, address, settings, folder }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts again, on the same folder and port.
    pub(crate) fn start_again(&mut self) {
        let (process, address) = spawn(self.folder.path(), &self.settings, &self.address.to_string());
        self.process = process;
        assert_eq!(address, self.address);
    }

    /// A setting for the next start, as in [`Self::start`].
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// SIGTERM; the exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let id = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        self.process.wait().unwrap().code()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A command of the client side against this server; its standard output.
    pub(crate) fn ask(&self, args: &[&str]) -> String {
        let output = auricle().args(args).args(["--url", &self.url()]).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    pub(crate) fn ask_json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ask(&[args, &["--json"]].concat())).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts a server and reads its first line.
fn spawn(folder: &Path, settings: &[(String, String)], bind: &str) -> (Child, SocketAddr) {
    let mut process = auricle()
        .args(["serve", "--bind", bind, "--probe-bind", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(folder.join("data"))
        .envs(settings.iter().map(|(name, value)| (format!("AURICLE_{name}"), value)))
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.strip_prefix("listening on ").and_then(|rest| rest.split(',').next());
    let address = address.unwrap_or_else(|| panic!("the server did not start: {line:?}"));
    (process, address.parse().unwrap())
}

/// Asks again and again until there is an answer; panics with `what` after [`PATIENCE`].
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let tries = PATIENCE.as_millis() / 50;
    for _ in 0..tries {
        if let Some(found) = ask() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("never came: {what}");
}
