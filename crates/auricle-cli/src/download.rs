//! Files that come from a server.

use std::io::Write;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

/// How often a bar moves by itself.
const TICK: Duration = Duration::from_millis(100);

/// Writes what comes, with a bar on a terminal.
///
/// Errors: it broke off, or the disk is full. What was written is not whole then.
pub(crate) async fn save(mut answer: reqwest::Response, mut out: impl Write) -> anyhow::Result<()> {
    let bar = match answer.content_length() {
        Some(length) => ProgressBar::new(length).with_style(
            ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        ),
        None => ProgressBar::new_spinner().with_style(
            ProgressStyle::with_template("{spinner} {bytes} received")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        ),
    };
    bar.enable_steady_tick(TICK);
    let written = async {
        while let Some(piece) = answer.chunk().await.context("it broke off; it is not whole")? {
            out.write_all(&piece).context("write it")?;
            bar.inc(piece.len() as u64);
        }
        out.flush().context("write it")
    };
    let written = written.await;
    bar.finish_and_clear();
    written
}
