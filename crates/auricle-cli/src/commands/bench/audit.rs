//! What became of conversations: the server's records against what clients were shown and receivers were told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::talker::{Shown, count};
use super::told::{Targets, Told};

/// Two segments of one voice that overlap by more seconds than this hold the same audio. Words are 0.3 s long.
const OVERLAP_SECS: f64 = 0.15;

/// A server that has no handler to spare.
const BUSY: u16 = 503;
/// How long an ending's answer is waited for before looking whether it was heard.
const END_WAIT: Duration = Duration::from_millis(500);
/// Between two looks at records that are being made.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The sum over conversations.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Audit {
    /// With at least one word shown.
    pub(super) conversations: usize,
    pub(super) completed: usize,
    /// Visible as failed, transcript and all.
    pub(super) failed: usize,
    /// Gone, or in no terminal state when the audit ended.
    pub(super) lost: usize,
    /// With more than one job.
    pub(super) doubled: usize,
    pub(super) words_shown: usize,
    /// Shown and not in the record.
    pub(super) words_lost: usize,
    /// Segments that stand where another one does.
    pub(super) words_doubled: usize,
    /// Completed, and nobody was told.
    pub(super) effects_lost: usize,
    /// Told under more than one key.
    pub(super) effects_doubled: usize,
    /// Told again under the same key, which receivers can tell: at least once.
    pub(super) effects_repeated: usize,
    /// Completed, and a user's own webhook did nothing: of the one that acts on a key once, and of the one that always acts.
    pub(super) once_lost: usize,
    pub(super) always_lost: usize,
    /// The one that acts on a key once acted twice.
    pub(super) once_doubled: usize,
    /// The one that always acts did so again: at least once is what it was promised.
    pub(super) always_repeated: usize,
}

impl Audit {
    /// Whether nothing was lost or doubled.
    pub(super) fn is_clean(&self) -> bool {
        let Self { lost, doubled, words_lost, words_doubled, effects_lost, effects_doubled, .. } = self;
        let Self { once_lost, always_lost, once_doubled, .. } = self;
        [lost, doubled, words_lost, words_doubled, effects_lost, effects_doubled]
            .into_iter()
            .chain([once_lost, always_lost, once_doubled])
            .all(|count| *count == 0)
    }
}

/// One user's way to their records.
pub(super) struct Reader {
    http: reqwest::Client,
    base: String,
}

impl Reader {
    pub(super) fn new(base: String) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
        Ok(Self { http, base })
    }

    /// `None` for 404.
    pub(super) async fn get(&self, token: &str, path: &str) -> anyhow::Result<Option<Value>> {
        loop {
            let answer = self.http.get(format!("{}{path}", self.base)).bearer_auth(token).send().await;
            let answer = match answer {
                // A kept connection that the server had closed meanwhile.
                Err(error) if error.is_request() && !error.is_connect() => continue,
                answer => answer?,
            };
            match answer.status().as_u16() {
                404 => return Ok(None),
                BUSY => tokio::time::sleep(LOOK_EVERY).await,
                _ => return Ok(Some(answer.error_for_status()?.json().await?)),
            }
        }
    }

    /// Adds a webhook of this user.
    pub(super) async fn add_webhook(&self, token: &str, url: &str) -> anyhow::Result<()> {
        let new = serde_json::json!({ "url": url });
        let request = self.http.post(format!("{}/v1/webhooks", self.base)).bearer_auth(token).json(&new);
        request.send().await?.error_for_status().context("add a webhook")?;
        Ok(())
    }

    /// Ends a conversation, and does not wait for its record: asks until it was heard. Errors: the server is not there.
    pub(super) async fn end(&self, token: &str, id: &str) -> anyhow::Result<()> {
        let path = format!("{}/v1/conversations?conversation_id={id}", self.base);
        loop {
            match self.http.post(&path).bearer_auth(token).timeout(END_WAIT).send().await {
                // Its handlers are all taken.
                Ok(answer) if answer.status().as_u16() == BUSY => tokio::time::sleep(LOOK_EVERY).await,
                Ok(_) => return Ok(()),
                Err(error) if error.is_connect() => return Err(error.into()),
                // It waits for the record, or has not come to this request yet, or the connection was an old one.
                Err(_) => {
                    let record = self.get(token, &format!("/v1/conversations/{id}")).await?;
                    if record.is_none_or(|record| record["status"] != "in_progress") {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Waits until every conversation is in a terminal state and, if it is completed, its receiver was told, for `wait` at
    /// most; counts.
    pub(super) async fn audit(
        &self,
        seen: &[(String, BTreeMap<String, Shown>)],
        told: Option<&Told>,
        targets: Option<&Targets>,
        wait: Duration,
    ) -> anyhow::Result<Audit> {
        let deadline = Instant::now() + wait;
        let (mut audit, mut ids) = (Audit::default(), Vec::new());
        for (token, conversations) in seen {
            let jobs = self.get(token, "/v1/jobs?limit=200").await?.context("the list of jobs")?;
            for (id, shown) in conversations.iter().filter(|(_, shown)| !shown.words().is_empty()) {
                audit.conversations += 1;
                let record = self.terminal(token, id, deadline).await?;
                audit.count(record.as_ref(), &shown.words());
                let of = |job: &&Value| job["conversation_id"] == **id;
                audit.doubled +=
                    usize::from(jobs.as_array().is_some_and(|jobs| jobs.iter().filter(of).count() > 1));
                let completed = record.is_some_and(|record| record["status"] == "completed");
                if completed {
                    ids.push(id);
                }
            }
        }
        if let Some(told) = told {
            while Instant::now() < deadline && ids.iter().any(|id| told.keys(id).is_empty()) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            ids.iter().for_each(|id| audit.count_effects(&told.keys(id)));
        }
        if let Some(targets) = targets {
            let missing = |id: &&String| targets.acted(id).contains(&0);
            while Instant::now() < deadline && ids.iter().any(missing) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            ids.iter().for_each(|id| audit.count_targets(targets.acted(id)));
        }
        Ok(audit)
    }

    async fn terminal(&self, token: &str, id: &str, deadline: Instant) -> anyhow::Result<Option<Value>> {
        loop {
            let record = self.get(token, &format!("/v1/conversations/{id}")).await?;
            let ended = record.as_ref().is_none_or(|r| r["status"] == "completed" || r["status"] == "failed");
            if ended || Instant::now() >= deadline {
                return Ok(record);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Audit {
    fn count(&mut self, record: Option<&Value>, shown: &BTreeMap<String, usize>) {
        match record.and_then(|record| record["status"].as_str()) {
            Some("completed") => self.completed += 1,
            Some("failed") => self.failed += 1,
            _ => self.lost += 1,
        }
        let segments = record.and_then(|record| record["transcript_segments"].as_array());
        let segments: Vec<&Value> = segments.into_iter().flatten().collect();
        let stored = count(segments.iter().filter_map(|segment| segment["text"].as_str()));
        self.words_shown += shown.values().sum::<usize>();
        let missing =
            |(word, count): (&String, &usize)| count.saturating_sub(stored.get(word).copied().unwrap_or(0));
        self.words_lost += shown.iter().map(missing).sum::<usize>();
        let mut times: Vec<(f64, f64)> = segments
            .iter()
            .filter_map(|segment| Some((segment["start"].as_f64()?, segment["end"].as_f64()?)))
            .collect();
        times.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.words_doubled += times.windows(2).filter(|pair| pair[0].1 - pair[1].0 > OVERLAP_SECS).count();
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let row = |what: &str, of: String, lost: usize, doubled: usize| {
            vec![what.to_owned(), of, lost.to_string(), doubled.to_string()]
        };
        let made = match self.failed {
            0 => format!("{} of {} completed", self.completed, self.conversations),
            failed => format!("{} of {} completed, {failed} failed", self.completed, self.conversations),
        };
        let told = format!("{} repeated under their key", self.effects_repeated);
        let once = "a receiver that acts on a key once".to_owned();
        let always = format!("one that always acts: {} times again", self.always_repeated);
        crate::output::table(
            &["", "", "lost", "doubled"],
            vec![
                row("conversations", made, self.lost, self.doubled),
                row("words", format!("{} shown", self.words_shown), self.words_lost, self.words_doubled),
                row("effects", told, self.effects_lost, self.effects_doubled),
                row("users' webhooks", once, self.once_lost, self.once_doubled),
                row("", always, self.always_lost, 0),
            ],
        )
    }

    fn count_targets(&mut self, [once, always]: [usize; 2]) {
        self.once_lost += usize::from(once == 0);
        self.once_doubled += usize::from(once > 1);
        self.always_lost += usize::from(always == 0);
        self.always_repeated += always.saturating_sub(1);
    }

    fn count_effects(&mut self, keys: &[String]) {
        let distinct: BTreeSet<&String> = keys.iter().collect();
        self.effects_lost += usize::from(distinct.is_empty());
        self.effects_doubled += usize::from(distinct.len() > 1);
        self.effects_repeated += keys.len() - distinct.len();
    }
}
