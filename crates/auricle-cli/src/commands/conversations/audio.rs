//! `auricle conversations audio`.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::client::{Target, encoded};
use crate::{download, output};

/// Which part, and where it goes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The conversation's id.
    id: String,
    /// The file; `-` for standard output. Without it, ID.wav.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// One of its channels, e.g. `mic`; without it all of them.
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// Where it begins, in seconds of the conversation; without it at the first word. Negative: what was kept from before.
    #[arg(long, value_name = "SECS", allow_hyphen_values = true)]
    from: Option<f64>,
    /// Where it ends, in seconds of the conversation.
    #[arg(long, value_name = "SECS")]
    until: Option<f64>,
    #[command(flatten)]
    target: Target,
}

/// Errors: it was refused, or broke off; then there is no file.
pub(super) async fn fetch(args: &Args) -> anyhow::Result<()> {
    let mut asked: Vec<String> = Vec::new();
    asked.extend(args.channel.as_ref().map(|channel| format!("channel={}", encoded(channel))));
    asked.extend(args.from.map(|from| format!("from={from}")));
    asked.extend(args.until.map(|until| format!("until={until}")));
    let path = format!("/v1/conversations/{}/audio?{}", encoded(&args.id), asked.join("&"));
    let answer = args.target.open(&path).await?;
    let file = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{}.wav", args.id)));
    if file == Path::new("-") {
        return download::save(answer, std::io::stdout().lock()).await;
    }
    let mut part = file.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let made = File::create(&part).with_context(|| format!("make {}", part.display()))?;
    let saved = download::save(answer, made).await;
    let saved = saved.and_then(|()| Ok(std::fs::rename(&part, &file)?));
    if saved.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    saved.with_context(|| format!("save {}", file.display()))?;
    output::line(&format!("its audio is in {}", file.display()));
    Ok(())
}
