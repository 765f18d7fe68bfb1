//! `auricle export`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use crate::client::{Target, block_on};
use crate::{download, output};

/// Write everything a user has into a folder.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The folder; it is made if absent.
    folder: PathBuf,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let folder = &args.folder;
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let part = folder.join("export.zip.part");
    let unpacked = block_on(download(&args.target, &part)).and_then(|()| unpack(&part, folder));
    std::fs::remove_file(&part).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    let files = unpacked?;
    output::line(&format!("{files} files are in {}", folder.display()));
    if folder.join("errors.json").exists() {
        output::note("some conversations could not be read: errors.json names them");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

async fn download(target: &Target, part: &Path) -> anyhow::Result<()> {
    let answer = target.open("/v1/users/me/export").await?;
    let file = File::create(part).with_context(|| format!("make {}", part.display()))?;
    download::save(answer, file).await.context("nothing was unpacked")
}

/// Returns how many files there were. No name leads out of the folder.
fn unpack(part: &Path, folder: &Path) -> anyhow::Result<usize> {
    let file = File::open(part).with_context(|| format!("read {}", part.display()))?;
    let mut archive = zip::ZipArchive::new(file).context("the export is not whole")?;
    archive.extract(folder).with_context(|| format!("unpack into {}", folder.display()))?;
    Ok(archive.len())
}
