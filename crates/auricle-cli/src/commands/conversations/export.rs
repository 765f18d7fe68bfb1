//! Conversations as files.

use std::path::Path;

use anyhow::Context as _;
use auricle_wire::conversation::Conversation;
use auricle_wire::export;
use indicatif::{ProgressBar, ProgressStyle};

use crate::client::{Target, encoded};
use crate::output;

/// Conversations of one page of the list.
const PAGE: usize = 100;

/// Forms of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Markdown: record and transcript.
    #[value(alias = "markdown")]
    Md,
    /// Everything, as the REST interface has it.
    Json,
    /// SubRip subtitles.
    Srt,
    /// WebVTT subtitles.
    Vtt,
    /// Plain text: the transcript.
    #[value(alias = "text")]
    Txt,
}

impl From<Format> for export::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Md => Self::Markdown,
            Format::Json => Self::Json,
            Format::Srt => Self::Srt,
            Format::Vtt => Self::Vtt,
            Format::Txt => Self::Text,
        }
    }
}

pub(super) fn write(conversation: &Conversation, format: Format) -> String {
    export::write(conversation, format.into(), &output::when)
}

/// Writes every conversation into a file of its own. Returns how many.
pub(super) async fn all(target: &Target, format: Format, folder: &Path) -> anyhow::Result<usize> {
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let mut ids = Vec::new();
    loop {
        let path = format!("/v1/conversations?limit={PAGE}&offset={}", ids.len());
        let page: Vec<Conversation> = target.get(&path).await?;
        let last = page.len() < PAGE;
        ids.extend(page.into_iter().map(|conversation| conversation.id));
        if last {
            break;
        }
    }
    // Newer ones may have pushed some onto the next page.
    ids.sort();
    ids.dedup();
    let bar = bar(ids.len() as u64);
    for id in &ids {
        let conversation = super::fetch(target, id).await?;
        let name =
            format!("{}.{}", encoded(id).replace("%2D", "-"), export::Format::from(format).extension());
        let path = folder.join(name);
        std::fs::write(&path, write(&conversation, format) + "\n")
            .with_context(|| format!("write {}", path.display()))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(ids.len())
}

fn bar(length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} conversations");
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
