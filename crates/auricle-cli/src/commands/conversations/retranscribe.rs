//! `auricle conversations retranscribe` and `revisions`.

use std::time::Duration;

use anyhow::bail;
use auricle_wire::conversation::Conversation;
use auricle_wire::retranscription::{Retranscription, Revision, RevisionSummary};

use crate::client::{Target, encoded};
use crate::output;

/// How often a server is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Failed questions in a row after which the command gives up.
const FAILURES_MAX: u32 = 20;

/// Asks for it; with `wait` until the new record is there.
///
/// Errors: it was refused, or it failed.
pub(super) async fn ask(
    target: &Target,
    id: &str,
    engine: Option<&str>,
    wait: bool,
    json: bool,
) -> anyhow::Result<()> {
    let path = format!("/v1/conversations/{}/retranscribe", encoded(id));
    let body = engine.map(|engine| serde_json::json!({ "engine": engine }));
    let asked = target.call::<Retranscription>(reqwest::Method::POST, &path, body).await?;
    let Some(mut work) = asked else { bail!("the server's answer is empty") };
    if wait {
        work = settled(target, &path, work, |work| matches!(work.status.as_str(), "done" | "failed")).await?;
    }
    if work.status == "failed" {
        bail!("{}", work.error.unwrap_or_else(|| "it failed".to_owned()));
    }
    if wait {
        let path = format!("/v1/conversations/{}", encoded(id));
        let first: Conversation = target.get(&path).await?;
        settled(target, &path, first, |now: &Conversation| now.status.as_deref() != Some("processing"))
            .await?;
    }
    if json {
        return output::json(&work);
    }
    output::line(&match work.revision {
        Some(revision) => format!(
            "{} heard {:.0} s of it again: it is revision {revision} now; `auricle conversations revisions {id}` lists the others",
            work.engine, work.heard_secs
        ),
        None => format!("{} will hear it again; it is {}", work.engine, work.status),
    });
    Ok(())
}

/// Asks until it is as wanted. A server that starts again goes on with it.
async fn settled<T: serde::de::DeserializeOwned>(
    target: &Target,
    path: &str,
    mut found: T,
    wanted: impl Fn(&T) -> bool,
) -> anyhow::Result<T> {
    let mut failures = 0;
    while !wanted(&found) {
        tokio::time::sleep(ASK_EVERY).await;
        match target.get::<T>(path).await {
            Ok(now) => (found, failures) = (now, 0),
            Err(_) if failures < FAILURES_MAX => failures += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Lists the transcripts of a conversation, or shows one of them.
pub(super) async fn revisions(
    target: &Target,
    id: &str,
    number: Option<u32>,
    json: bool,
) -> anyhow::Result<()> {
    let path = format!("/v1/conversations/{}/revisions", encoded(id));
    if let Some(number) = number {
        let found: Revision = target.get(&format!("{path}/{number}")).await?;
        if json {
            return output::json(&found);
        }
        output::line(if found.title.is_empty() { "(no title)" } else { &found.title });
        output::line("");
        output::transcript(&found.transcript_segments);
        return Ok(());
    }
    let found: Vec<RevisionSummary> = target.get(&path).await?;
    if json {
        return output::json(&found);
    }
    let rows = found.iter().map(|each| {
        let replaced = each.replaced_at.map_or_else(|| "the present one".to_owned(), output::when);
        vec![each.revision.to_string(), each.engines.join(", "), each.segments.to_string(), replaced]
    });
    output::line(&output::table(&["revision", "engines", "segments", "replaced"], rows.collect()));
    Ok(())
}
