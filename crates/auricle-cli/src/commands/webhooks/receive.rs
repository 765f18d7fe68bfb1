//! `auricle webhooks receive`: a receiver for whoever builds one, or wants to see what is told.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use auricle_server::clock::SystemClock;
use auricle_wire::rest::Webhook;
use auricle_wire::signature::{self, SignatureError};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Uri};
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::client::{Target, block_on, encoded};
use crate::output;

/// Longest delivery that is taken.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Deliveries that are not printed yet. Full: they wait.
const UNPRINTED_MAX: usize = 64;
/// Characters of a text that are shown to people.
const SHOWN_CHARS: usize = 60;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to listen; port 0 lets the system choose, and the first line says which.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    bind: SocketAddr,
    /// By which deliveries must be signed; without it signatures are not checked.
    #[arg(long, env = "AURICLE_WEBHOOK_SECRET", hide_env_values = true, conflicts_with = "add")]
    secret: Option<String>,
    /// Add itself to a server as a webhook, and remove it at the end. The server must be able to reach it: on one machine it
    /// runs with --webhooks-allow-private.
    #[arg(long)]
    add: bool,
    /// With --add: what it hears of; may be repeated.
    #[arg(long = "trigger", value_name = "TRIGGER", default_value = "memory_created", requires = "add")]
    triggers: Vec<String>,
    /// End after so many deliveries.
    #[arg(long, value_name = "NUMBER")]
    count: Option<usize>,
    #[command(flatten)]
    target: Target,
    /// For scripts: one object a line.
    #[arg(long)]
    json: bool,
}

/// What arrived, as scripts see it.
#[derive(Serialize)]
struct Arrived {
    path: String,
    query: Option<String>,
    trigger: Option<String>,
    idempotency_key: Option<String>,
    /// `good`, `unchecked`, or why it is not believed.
    signature: String,
    bytes: usize,
    /// The body, if it is JSON.
    body: Option<Value>,
}

struct Receiver {
    secret: std::sync::OnceLock<String>,
    arrived: mpsc::Sender<Arrived>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    block_on(receive(args))
}

async fn receive(args: &Args) -> anyhow::Result<ExitCode> {
    let listener = tokio::net::TcpListener::bind(args.bind)
        .await
        .with_context(|| format!("listen on {}; choose another address with --bind", args.bind))?;
    let address = listener.local_addr()?;
    let (arrived, mut arrivals) = mpsc::channel(UNPRINTED_MAX);
    let receiver = Arc::new(Receiver { secret: std::sync::OnceLock::new(), arrived });
    if let Some(secret) = &args.secret {
        let _ = receiver.secret.set(secret.clone());
    }
    let router = Router::new()
        .fallback(take)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Arc::clone(&receiver));
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let added = if args.add { Some(add(args, address, &receiver).await?) } else { None };
    output::line(&format!("receiving on http://{address}"));
    let ended = show(args, &mut arrivals).await;
    if let Some(id) = added {
        let path = format!("/v1/webhooks/{}", encoded(&id));
        args.target.call::<Value>(Method::DELETE, &path, None).await.context("remove the webhook again")?;
    }
    serving.abort();
    ended
}

/// Registers the receiver; its id.
async fn add(args: &Args, address: SocketAddr, receiver: &Receiver) -> anyhow::Result<String> {
    let new = json!({
        "url": format!("http://{address}/"), "name": "auricle webhooks receive", "triggers": args.triggers,
    });
    let made: Option<Webhook> = args.target.call(Method::POST, "/v1/webhooks", Some(new)).await?;
    let made = made.context("the server's answer is empty")?;
    if let Some(secret) = made.secret {
        let _ = receiver.secret.set(secret);
    }
    Ok(made.id)
}

/// Prints until there are enough, or Ctrl-C or SIGTERM.
async fn show(args: &Args, arrivals: &mut mpsc::Receiver<Arrived>) -> anyhow::Result<ExitCode> {
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut all_good = true;
    let mut left = args.count.unwrap_or(usize::MAX);
    while left > 0 {
        let arrived = tokio::select! {
            arrived = arrivals.recv() => arrived,
            _ = tokio::signal::ctrl_c() => None,
            _ = terminated.recv() => None,
        };
        let Some(arrived) = arrived else { break };
        left -= 1;
        all_good &= matches!(arrived.signature.as_str(), "good" | "unchecked");
        if args.json {
            output::line(&serde_json::to_string(&arrived)?);
        } else {
            print(&arrived);
        }
    }
    Ok(if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn take(
    State(receiver): State<Arc<Receiver>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> &'static str {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let signature = match (receiver.secret.get(), text(signature::HEADER)) {
        (None, _) => "unchecked".to_owned(),
        (Some(_), None) => SignatureError::Malformed.to_string(),
        (Some(secret), Some(header)) => {
            let now = SystemClock.wall().0.div_euclid(1_000_000);
            match signature::verify(secret, &header, &body, now, signature::TOLERANCE) {
                Ok(()) => "good".to_owned(),
                Err(error) => error.to_string(),
            }
        }
    };
    let arrived = Arrived {
        path: uri.path().to_owned(),
        query: uri.query().map(str::to_owned),
        trigger: text("x-auricle-trigger"),
        idempotency_key: text("idempotency-key"),
        signature,
        bytes: body.len(),
        body: serde_json::from_slice(&body).ok(),
    };
    let _ = receiver.arrived.send(arrived).await;
    "{}"
}

/// For people: what it is about, in a few lines.
fn print(arrived: &Arrived) {
    let query = arrived.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let trigger = arrived.trigger.as_deref().unwrap_or("a delivery");
    output::line(&format!("\n{trigger}  POST {}{query}  {} bytes", arrived.path, arrived.bytes));
    output::line(&format!("   signature  {}", arrived.signature));
    if let Some(key) = &arrived.idempotency_key {
        output::line(&format!("   key        {key}"));
    }
    let Some(body) = &arrived.body else { return };
    let field = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
    let said = body["segments"].as_array().and_then(|segments| segments.last()?["text"].as_str());
    let lines = [
        ("title", field("/structured/title")),
        ("overview", field("/structured/overview")),
        ("summary", field("/summary")),
        ("said", said),
    ];
    for (what, text) in lines.into_iter().filter_map(|(what, text)| Some((what, text?))) {
        output::line(&format!("   {what:<10} {}", shortened(text)));
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((at, _)) => format!("{}…", text[..at].trim_end()),
        None => text.to_owned(),
    }
}
