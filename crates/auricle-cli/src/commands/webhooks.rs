//! `auricle webhooks`.

mod receive;

use std::process::ExitCode;

use anyhow::Context as _;
use auricle_wire::rest::{Delivery, Replayed, Tested, Webhook};
use reqwest::Method;
use serde_json::json;

use crate::client::{Target, block_on, encoded};
use crate::output;

/// Add, list, test and look after webhooks and apps, and receive what they are told.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Add a webhook: an address that is told of records, words or audio.
    Add {
        /// Where deliveries are posted.
        #[arg(value_name = "URL")]
        address: String,
        /// What it hears of: memory_created, realtime_transcript, audio_bytes or day_summary; may be repeated.
        #[arg(long = "trigger", value_name = "TRIGGER", default_value = "memory_created")]
        triggers: Vec<String>,
        /// As an app: it takes a delivery with 200, and its answer may hold a message for you.
        #[arg(long)]
        app: bool,
        /// For people; the address's host without it.
        #[arg(long)]
        name: Option<String>,
        /// Seconds of audio in one delivery.
        #[arg(long, value_name = "SECONDS")]
        audio_seconds: Option<u32>,
        #[command(flatten)]
        whose: Whose,
    },
    /// List webhooks and apps.
    List {
        #[command(flatten)]
        whose: Whose,
    },
    /// Show one.
    Show(One),
    /// Post a sample now and show the answer.
    Test(One),
    /// Hold deliveries of records back until it is resumed.
    Pause(One),
    /// Go on, also after failures have switched it off.
    Resume(One),
    /// Make a new secret; the old one is worth nothing from then on.
    Rotate(One),
    /// Remove it, and what waits for it.
    Remove(One),
    /// Show what it was told, and what waits.
    Deliveries(One),
    /// Deliver again what has failed, or one delivery.
    Replay {
        #[command(flatten)]
        one: One,
        /// This delivery alone, whatever became of it.
        #[arg(long, value_name = "ID")]
        delivery: Option<String>,
    },
    /// Receive deliveries on this machine: print each and check its signature.
    Receive(receive::Args),
}

#[derive(clap::Args)]
pub(crate) struct Whose {
    #[command(flatten)]
    target: Target,
    /// For scripts.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(crate) struct One {
    /// The webhook's id.
    id: String,
    #[command(flatten)]
    whose: Whose,
}

impl One {
    fn path(&self, rest: &str) -> String {
        format!("/v1/webhooks/{}{rest}", encoded(&self.id))
    }

    /// Sends a request about it; the answer has a body.
    async fn call<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        rest: &str,
        body: Option<serde_json::Value>,
    ) -> anyhow::Result<T> {
        let answer = self.whose.target.call(method, &self.path(rest), body).await?;
        answer.context("the server's answer is empty")
    }

    async fn set(&self, state: &str) -> anyhow::Result<Webhook> {
        self.call(Method::PATCH, "", Some(json!({ "state": state }))).await
    }
}

pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    if let Command::Receive(args) = command {
        return receive::run(args);
    }
    block_on(dispatch(command))
}

async fn dispatch(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Add { address, triggers, app, name, audio_seconds, whose } => {
            let kind = if *app { "app" } else { "developer" };
            let new = json!({
                "url": address, "kind": kind, "name": name, "triggers": triggers, "audio_seconds": audio_seconds,
            });
            let made: Option<Webhook> = whose.target.call(Method::POST, "/v1/webhooks", Some(new)).await?;
            let made = made.context("the server's answer is empty")?;
            show_secret(&made, whose.json)?;
        }
        Command::List { whose } => {
            let all: Vec<Webhook> = whose.target.get("/v1/webhooks").await?;
            if whose.json {
                output::json(&all)?;
            } else if all.is_empty() {
                output::line("no webhooks yet: add one with `auricle webhooks add URL`");
            } else {
                let rows = all.iter().map(|one| {
                    vec![
                        one.id.clone(),
                        one.name.clone(),
                        one.state.clone(),
                        one.triggers.join(" "),
                        format!("{} / {}", one.delivered, one.failed),
                        one.waiting.to_string(),
                    ]
                });
                let head = ["webhook", "name", "state", "hears of", "taken / failed", "waits"];
                output::line(&output::table(&head, rows.collect()));
            }
        }
        Command::Show(one) => show(&one.call(Method::GET, "", None).await?, one.whose.json)?,
        Command::Test(one) => {
            let tested: Tested = one.call(Method::POST, "/test", None).await?;
            let code = if tested.taken { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            if one.whose.json {
                output::json(&tested)?;
                return Ok(code);
            }
            let status = tested.status.map_or("no answer".to_owned(), |status| format!("HTTP {status}"));
            let verdict = if tested.taken { "taken" } else { "not taken" };
            output::line(&format!("{verdict}: {status} after {} ms", tested.latency_ms));
            if let Some(error) = &tested.error {
                output::line(error);
            }
            if !tested.answer.is_empty() {
                output::line(&format!("its answer begins with: {}", tested.answer));
            }
            return Ok(code);
        }
        Command::Pause(one) => {
            let set = one.set("paused").await?;
            let text = "paused: records wait for it until `auricle webhooks resume`";
            if one.whose.json { output::json(&set)? } else { output::line(text) }
        }
        Command::Resume(one) => {
            let set = one.set("on").await?;
            let text = "on: what waited is delivered now; what failed waits for `auricle webhooks replay`";
            if one.whose.json { output::json(&set)? } else { output::line(text) }
        }
        Command::Rotate(one) => {
            show_secret(&one.call(Method::POST, "/rotate", None).await?, one.whose.json)?;
        }
        Command::Remove(one) => {
            one.whose.target.call::<serde_json::Value>(Method::DELETE, &one.path(""), None).await?;
            if one.whose.json {
                output::json(&json!({ "removed": one.id }))?
            } else {
                output::line("removed")
            }
        }
        Command::Deliveries(one) => deliveries(one).await?,
        Command::Replay { one, delivery } => {
            let body = delivery.as_ref().map(|id| json!({ "delivery_id": id }));
            let answer: Replayed = one.call(Method::POST, "/replay", body).await?;
            if one.whose.json {
                output::json(&answer)?;
            } else {
                let number = answer.replayed;
                let what = if number == 1 { "delivery" } else { "deliveries" };
                output::line(&format!("{number} {what} queued again"));
            }
        }
        Command::Receive(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn show_secret(made: &Webhook, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(made);
    }
    output::line(&format!("webhook {}", made.id));
    output::line(&format!("secret  {}", made.secret.as_deref().unwrap_or_default()));
    output::line(
        "Keep the secret: it is not shown again. Deliveries are signed by it, see docs/webhooks.md.",
    );
    Ok(())
}

fn show(one: &Webhook, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(one);
    }
    let mut rows = vec![
        vec!["webhook".into(), one.id.clone()],
        vec!["name".into(), one.name.clone()],
        vec!["kind".into(), one.kind.clone()],
        vec!["address".into(), one.url.clone()],
        vec!["hears of".into(), one.triggers.join(" ")],
        vec!["state".into(), one.state.clone()],
        vec!["taken".into(), one.delivered.to_string()],
        vec!["failed".into(), one.failed.to_string()],
        vec!["waits".into(), one.waiting.to_string()],
    ];
    if one.triggers.iter().any(|trigger| trigger == "audio_bytes") {
        rows.push(vec!["audio".into(), format!("{} s in one delivery", one.audio_seconds)]);
    }
    let times = [
        ("last taken", one.last_delivery_at),
        ("failing since", one.failing_since),
        ("switched off", one.off_at),
    ];
    rows.extend(times.into_iter().filter_map(|(what, at)| Some(vec![what.into(), output::when(at?)])));
    rows.extend(one.last_error.clone().map(|error| vec!["last error".into(), error]));
    output::line(&output::table(&["", ""], rows));
    Ok(())
}

async fn deliveries(one: &One) -> anyhow::Result<()> {
    let all: Vec<Delivery> = one.call(Method::GET, "/deliveries", None).await?;
    if one.whose.json {
        return output::json(&all);
    }
    if all.is_empty() {
        output::line("no deliveries yet: one appears with the next record");
        return Ok(());
    }
    let rows = all.into_iter().map(|delivery| {
        vec![
            delivery.id,
            delivery.state,
            delivery.attempts.to_string(),
            output::when(delivery.created_at),
            delivery.last_error.unwrap_or_default(),
        ]
    });
    output::line(&output::table(&["delivery", "state", "tries", "recorded", "last error"], rows.collect()));
    Ok(())
}
