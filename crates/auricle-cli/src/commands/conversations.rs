//! `auricle conversations`.

mod audio;
mod export;
mod retranscribe;

use std::path::Path;
use std::process::ExitCode;

use auricle_wire::conversation::Conversation;
use auricle_wire::rest::{SearchResponse, SearchResult, Snippet};

use crate::client::{Target, block_on, encoded};
use crate::output;

/// List, show, search, export, rename, delete and hear conversations again.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// List conversations, newest first.
    List {
        #[command(flatten)]
        target: Target,
        /// How many.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Show one conversation: its record and its transcript.
    Show {
        /// The conversation's id.
        id: String,
        #[command(flatten)]
        target: Target,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Search titles, overviews and transcripts: by words, which are and-ed (quotes make phrases), and by meaning, if the server
    /// has an embedding server.
    Search {
        /// What to look for.
        #[arg(required = true)]
        query: Vec<String>,
        /// Also in action items and memories.
        #[arg(long)]
        all: bool,
        /// How many.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        #[command(flatten)]
        target: Target,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Print a conversation in another form, or write all of them into a folder.
    Export {
        /// The conversation's id; with `--all` the folder.
        #[arg(value_name = "ID|DIR")]
        what: String,
        /// Every conversation, each in a file of its own.
        #[arg(long)]
        all: bool,
        /// Which form.
        #[arg(long, value_enum, default_value_t = export::Format::Md)]
        format: export::Format,
        #[command(flatten)]
        target: Target,
    },
    /// Give a conversation another title.
    Rename {
        /// The conversation's id.
        id: String,
        /// The title.
        title: String,
        #[command(flatten)]
        target: Target,
    },
    /// Save what is kept of a conversation's audio (`audio.keep`) as a WAV file. Its times are those of the transcript.
    Audio(audio::Args),
    /// Hear a conversation again, by another engine, from the audio that is kept of it (`audio.keep`). The transcript becomes a new
    /// revision; the old one stays readable.
    Retranscribe {
        /// The conversation's id.
        id: String,
        /// One of the server's engines; without it the preferred one.
        #[arg(long, value_name = "NAME")]
        engine: Option<String>,
        /// Wait until the new record is there.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        target: Target,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// List the transcripts of a conversation that was heard again, or show one.
    Revisions {
        /// The conversation's id.
        id: String,
        /// Show this one.
        #[arg(long, value_name = "N")]
        revision: Option<u32>,
        #[command(flatten)]
        target: Target,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Delete a conversation with its transcript, photos and audio.
    Delete {
        /// The conversation's id.
        id: String,
        #[command(flatten)]
        target: Target,
    },
}

pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    block_on(async {
        match command {
            Command::List { target, limit, json } => {
                let found: Vec<Conversation> =
                    target.get(&format!("/v1/conversations?limit={limit}")).await?;
                if *json {
                    return output::json(&found);
                }
                if found.is_empty() {
                    output::line("no conversations yet: `auricle stream FILE.wav --wait` makes one");
                    return Ok(());
                }
                let rows = found.iter().map(|conversation| {
                    let made = &conversation.structured;
                    let title = if made.title.is_empty() { "(no title)".into() } else { made.title.clone() };
                    let status = if conversation.discarded {
                        "set aside"
                    } else {
                        conversation.status.as_deref().unwrap_or("")
                    };
                    vec![
                        conversation.id.clone(),
                        output::when(conversation.created_at),
                        status.to_owned(),
                        title,
                    ]
                });
                output::line(&output::table(&["id", "when", "status", "title"], rows.collect()));
            }
            Command::Show { id, target, json } => {
                let conversation = fetch(target, id).await?;
                if *json {
                    return output::json(&conversation);
                }
                output::line(&output::record(&conversation));
                output::line("");
                output::transcript(&conversation.transcript_segments);
            }
            Command::Search { query, all, limit, target, json } => {
                let query = query.join(" ");
                let kinds = if *all { "conversations,action_items,memories" } else { "conversations" };
                let path = format!("/v1/search?query={}&limit={limit}&kinds={kinds}", encoded(&query));
                let found: SearchResponse = target.get(&path).await?;
                if *json {
                    return output::json(&found);
                }
                if found.meaning == "away" {
                    output::note("searched by words alone: the embedding server does not answer");
                }
                if found.results.is_empty() {
                    output::line("nothing found");
                }
                for result in &found.results {
                    let (head, id) = headed(result);
                    output::line(&head);
                    output::line(&format!("   {id}  ·  {}", why(result)));
                    for snippet in &result.snippets {
                        let at = snippet
                            .start
                            .map(|start| format!("{}  ", output::clock(start)))
                            .unwrap_or_default();
                        output::line(&format!("   {at}{}", highlighted(snippet, output::is_terminal())));
                    }
                }
            }
            Command::Export { what: folder, all: true, format, target } => {
                let number = export::all(target, *format, Path::new(folder)).await?;
                output::line(&format!("{number} conversations are in {folder}"));
            }
            Command::Export { what: id, all: false, format, target } => {
                let conversation = fetch(target, id).await?;
                output::line(&export::write(&conversation, *format));
            }
            Command::Rename { id, title, target } => {
                let path = format!("/v1/conversations/{}/title", encoded(id));
                let body = serde_json::json!({ "title": title });
                target.call::<serde_json::Value>(reqwest::Method::PATCH, &path, Some(body)).await?;
                output::line("renamed");
            }
            Command::Audio(args) => audio::fetch(args).await?,
            Command::Retranscribe { id, engine, wait, target, json } => {
                retranscribe::ask(target, id, engine.as_deref(), *wait, *json).await?;
            }
            Command::Revisions { id, revision, target, json } => {
                retranscribe::revisions(target, id, *revision, *json).await?;
            }
            Command::Delete { id, target } => {
                let path = format!("/v1/conversations/{}", encoded(id));
                target.call::<serde_json::Value>(reqwest::Method::DELETE, &path, None).await?;
                output::line("deleted");
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn fetch(target: &Target, id: &str) -> anyhow::Result<Conversation> {
    target.get(&format!("/v1/conversations/{}", encoded(id))).await
}

/// What a hit is, and its id.
fn headed(result: &SearchResult) -> (String, &str) {
    if let Some(conversation) = &result.conversation {
        let made = &conversation.structured;
        let when = output::when(conversation.created_at);
        return (format!("{} {}  ({when})", made.emoji, made.title), &conversation.id);
    }
    if let Some(item) = &result.action_item {
        let mark = if item.completed { "x" } else { " " };
        return (format!("[{mark}] to do  ({})", output::when(item.created_at)), &item.id);
    }
    let memory = result.memory.as_ref();
    let when = memory.map(|memory| output::when(memory.created_at)).unwrap_or_default();
    (format!("•  memory  ({when})"), memory.map_or("", |memory| &memory.id))
}

/// Why it was found.
fn why(result: &SearchResult) -> String {
    let words = result.words_rank.map(|rank| format!("words #{rank}"));
    let meaning = result.meaning_rank.map(|rank| {
        let near = result.similarity.map(|near| format!(" ({near:.2})")).unwrap_or_default();
        format!("meaning #{rank}{near}")
    });
    words.into_iter().chain(meaning).collect::<Vec<_>>().join(", ")
}

/// Matches in bold on a terminal, between stars elsewhere.
fn highlighted(snippet: &Snippet, bold: bool) -> String {
    let (on, off) = if bold { ("\u{1b}[1m", "\u{1b}[0m") } else { ("*", "*") };
    let mut text = String::new();
    for (index, letter) in snippet.text.chars().enumerate() {
        if snippet.highlights.iter().any(|(from, _)| *from == index) {
            text.push_str(on);
        }
        text.push(letter);
        if snippet.highlights.iter().any(|(_, to)| *to == index + 1) {
            text.push_str(off);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_are_marked() {
        let snippet = Snippet {
            text: "the review is on".into(),
            highlights: vec![(4, 10)],
            segment_id: None,
            start: None,
        };
        assert_eq!(highlighted(&snippet, false), "the *review* is on");
    }
}
