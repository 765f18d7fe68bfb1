//! `auricle upload`: recordings as files, to be transcribed into conversations.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use auricle_wire::upload::Upload;
use futures_util::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};

use crate::client::{Target, block_on, encoded};
use crate::output;

/// Bytes read from a file at once.
const PIECE_BYTES: usize = 64 * 1024;
/// How often a server is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Failed questions in a row after which the command gives up.
const FAILURES_MAX: u32 = 20;

/// Send recordings to a server, which makes conversations of them.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  auricle upload meeting.m4a --wait\n  auricle upload audio_omi_opus_fs320_16000_1_fs320_1767225600.bin"
)]
pub(crate) struct Args {
    /// WAV, Ogg Opus, FLAC, MP3, M4A or WebM files, or a device's recordings (`….bin`).
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    target: Target,
    /// Language of the speech.
    #[arg(long)]
    language: Option<String>,
    /// Kind of device, e.g. `omi`, `phone`, `desktop`.
    #[arg(long)]
    source: Option<String>,
    /// When the recording began, as ISO 8601; without it, what the file's name says, else when the file was last changed.
    #[arg(long, value_name = "TIME")]
    recorded_at: Option<String>,
    /// Wait until they are transcribed.
    #[arg(long)]
    wait: bool,
    /// Print one JSON list of the uploads instead of text.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    block_on(upload(args))
}

async fn upload(args: &Args) -> anyhow::Result<ExitCode> {
    for file in &args.files {
        // Before anything is sent.
        std::fs::File::open(file).with_context(|| format!("read {}", file.display()))?;
    }
    let mut uploads = Vec::new();
    for file in &args.files {
        let upload = send(args, file).await?;
        if !args.json && !args.wait {
            output::line(&format!("{}  {}  {}", upload.id, upload.status, file.display()));
        }
        uploads.push(upload);
    }
    if args.wait {
        for (upload, file) in uploads.iter_mut().zip(&args.files) {
            wait(args, upload, file).await?;
            if !args.json {
                let what = match &upload.error {
                    Some(error) if upload.status == "failed" => error.clone(),
                    _ if upload.conversations.is_empty() => "nobody speaks in it".to_owned(),
                    _ => upload.conversations.join(" "),
                };
                output::line(&format!("{}  {}  {}  {what}", upload.id, upload.status, file.display()));
            }
        }
    }
    if args.json {
        output::json(&uploads)?;
    }
    let failed = uploads.iter().any(|upload| upload.status == "failed");
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn bar(args: &Args, length: u64, template: &str) -> ProgressBar {
    if args.json {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}

fn shown(file: &Path) -> String {
    file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// When the file was last changed, less what nobody knows: its length. Good enough to sort by.
fn changed_at(file: &Path) -> Option<String> {
    let changed = std::fs::metadata(file).ok()?.modified().ok()?;
    let since = changed.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(auricle_wire::time::WireTime(i64::try_from(since.as_micros()).ok()?).to_string())
}

async fn send(args: &Args, file: &Path) -> anyhow::Result<Upload> {
    let name = shown(file);
    let mut path = format!("/v1/uploads?name={}", encoded(&name));
    let recorded_at = match &args.recorded_at {
        Some(at) => Some(at.clone()),
        None if name.ends_with(".bin") => None,
        None => changed_at(file),
    };
    let asked = [("language", &args.language), ("source", &args.source), ("recorded_at", &recorded_at)];
    for (key, value) in asked.iter().filter_map(|(key, value)| value.as_ref().map(|value| (key, value))) {
        path.push_str(&format!("&{key}={}", encoded(value)));
    }
    let length = std::fs::metadata(file).with_context(|| format!("read {}", file.display()))?.len();
    let bar = bar(args, length, "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}").with_message(name);
    let body = reqwest::Body::wrap_stream(pieces(file, bar.clone())?);
    let answer = args.target.send(&path, body, length).await;
    bar.finish_and_clear();
    answer.with_context(|| format!("send {}", file.display()))
}

/// A file's bytes, read as they are sent.
fn pieces(
    file: &Path,
    bar: ProgressBar,
) -> anyhow::Result<impl futures_util::Stream<Item = std::io::Result<Vec<u8>>> + Send + 'static> {
    use std::io::Read as _;
    let mut file = std::fs::File::open(file)?;
    Ok(futures_util::stream::iter(std::iter::from_fn(move || {
        let mut piece = vec![0; PIECE_BYTES];
        match file.read(&mut piece) {
            Ok(0) => None,
            Ok(read) => {
                piece.truncate(read);
                bar.inc(read as u64);
                Some(Ok(piece))
            }
            Err(error) => Some(Err(error)),
        }
    }))
    .boxed())
}

async fn wait(args: &Args, upload: &mut Upload, file: &Path) -> anyhow::Result<()> {
    let bar = bar(args, 0, "{msg} transcribing {pos} s {spinner}").with_message(shown(file));
    let path = format!("/v1/uploads/{}", upload.id);
    let mut failures = 0;
    while !matches!(upload.status.as_str(), "done" | "failed") {
        tokio::time::sleep(ASK_EVERY).await;
        match args.target.get::<Upload>(&path).await {
            Ok(found) => (*upload, failures) = (found, 0),
            // A server that starts again goes on with it.
            Err(_) if failures < FAILURES_MAX => failures += 1,
            Err(error) => bail!(error),
        }
        bar.set_position(upload.heard_secs as u64);
        bar.tick();
    }
    bar.finish_and_clear();
    Ok(())
}
