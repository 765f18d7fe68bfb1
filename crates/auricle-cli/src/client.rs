//! Talking REST to a server.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use auricle_server::config::{Config, FileSource, ProcessEnv, Shape, Sources};
use auricle_wire::rest::Problem;
use serde::de::DeserializeOwned;

/// Longest wait for an answer; finalising may take a while.
const ANSWER_MAX: Duration = Duration::from_secs(90);

/// Which server, and as whom.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Target {
    /// The server; without it, the one that runs on the data folder, else http://127.0.0.1:8080.
    #[arg(long, env = "AURICLE_URL")]
    url: Option<String>,
    /// Bearer token; on loopback the local user needs none.
    #[arg(long, env = "AURICLE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Folder in which to look for a running server's address.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Target {
    /// `http://HOST:PORT`, without a slash at the end.
    pub(crate) fn base(&self) -> String {
        let base =
            self.url.clone().or_else(|| self.running()).unwrap_or_else(|| "http://127.0.0.1:8080".into());
        let base = base.trim_end_matches('/').to_owned();
        match base.split_once("://") {
            Some(("ws", rest)) => format!("http://{rest}"),
            Some(("wss", rest)) => format!("https://{rest}"),
            Some(_) => base,
            None => format!("http://{base}"),
        }
    }

    /// The same for sockets.
    pub(crate) fn socket_base(&self) -> String {
        let base = self.base();
        base.strip_prefix("https")
            .map(|rest| format!("wss{rest}"))
            .unwrap_or_else(|| base.replacen("http", "ws", 1))
    }

    /// The same as somebody else.
    pub(crate) fn with_token(&self, token: String) -> Self {
        Self { token: Some(token), ..self.clone() }
    }

    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    fn running(&self) -> Option<String> {
        let folder =
            self.data_dir.clone().or_else(|| Some(load(None, Vec::new(), Shape::Embedded).ok()?.data_dir))?;
        let text = std::fs::read_to_string(folder.join("addresses.json")).ok()?;
        let addresses: serde_json::Value = serde_json::from_str(&text).ok()?;
        Some(format!("http://{}", addresses.get("public")?.as_str()?))
    }

    /// Asks for `path` and reads the JSON answer.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.call(reqwest::Method::GET, path, None).await?.context("the server's answer is empty")
    }

    /// Asks for `path` and hands over the answer unread; its length is nobody's guess, so no deadline holds for the whole.
    pub(crate) async fn open(&self, path: &str) -> anyhow::Result<reqwest::Response> {
        let base = self.base();
        let client = reqwest::Client::builder().read_timeout(ANSWER_MAX).no_proxy().build()?;
        let mut request = client.get(format!("{base}{path}"));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.map_err(|error| unreachable(&base, &error))?;
        let status = answer.status();
        if !status.is_success() {
            bail!("{} (HTTP {})", detail(answer.text().await.unwrap_or_default()), status.as_u16());
        }
        Ok(answer)
    }

    /// Sends `length` bytes as they come, and reads the JSON answer. No deadline holds for the whole.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        path: &str,
        body: reqwest::Body,
        length: u64,
    ) -> anyhow::Result<T> {
        let base = self.base();
        let client = reqwest::Client::builder().read_timeout(ANSWER_MAX).no_proxy().build()?;
        let mut request = client
            .post(format!("{base}{path}"))
            .header("content-type", "application/octet-stream")
            .header("content-length", length)
            .body(body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.map_err(|error| unreachable(&base, &error))?;
        let status = answer.status();
        let text = answer.text().await.context("read the server's answer")?;
        if !status.is_success() {
            bail!("{} (HTTP {})", detail(text), status.as_u16());
        }
        serde_json::from_str(&text).context("the server's answer is not what this version expects")
    }

    /// Sends a request; `None` if the answer has no body.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> anyhow::Result<Option<T>> {
        let text = self.text(method, path, body).await?;
        if text.is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&text).map(Some).context("the server's answer is not what this version expects")
    }

    /// Sends a request; the answer as it is.
    pub(crate) async fn text(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> anyhow::Result<String> {
        let base = self.base();
        let client = reqwest::Client::builder().timeout(ANSWER_MAX).no_proxy().build()?;
        let mut request = client.request(method, format!("{base}{path}"));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.map_err(|error| unreachable(&base, &error))?;
        let status = answer.status();
        let text = answer.text().await.context("read the server's answer")?;
        if !status.is_success() {
            bail!("{} (HTTP {})", detail(text), status.as_u16());
        }
        Ok(text)
    }
}

fn unreachable(base: &str, error: &reqwest::Error) -> anyhow::Error {
    anyhow::anyhow!(
        "cannot reach a server at {base} ({}); start one with `auricle serve`, or name it with --url",
        root(error)
    )
}

/// What an error's answer says.
fn detail(text: String) -> String {
    serde_json::from_str::<Problem>(&text).map_or(text, |problem| problem.detail)
}

fn root(error: &dyn std::error::Error) -> String {
    let mut source = error;
    while let Some(cause) = source.source() {
        source = cause;
    }
    source.to_string()
}

/// The configuration of a process of this shape, from file, environment and flags.
pub(crate) fn load(
    file: Option<PathBuf>,
    flags: Vec<(String, String)>,
    shape: Shape,
) -> anyhow::Result<Config> {
    let file = match file {
        Some(path) => {
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            Some(FileSource { path, text })
        }
        None => None,
    };
    Ok(Config::load(Sources { file, env: &ProcessEnv, flags, shape })?)
}

/// Runs an async command.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Text in a URL.
pub(crate) fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
