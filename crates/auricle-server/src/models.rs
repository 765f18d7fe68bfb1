//! Fetching Whisper models: resumable, checked, and never half there.
//!
//! A model is written to `NAME.part` beside its place and renamed once its size and SHA-256 are right.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use auricle_speech::whisper::catalog::Model;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Response, StatusCode};
use sha2::{Digest, Sha256};

/// How long a server may take to answer or to send more. Full: the attempt is over.
const SILENT_MAX: Duration = Duration::from_secs(30);
/// Attempts in a row that brought nothing new. Full: it is given up; the next `pull` goes on where this one ended.
const ATTEMPTS_MAX: u32 = 5;
/// Wait before the second attempt; doubled before each further one.
const WAIT_FIRST: Duration = Duration::from_millis(500);
/// Bytes of a file that are read at once while it is checked.
const BLOCK: usize = 1 << 20;

/// Why a model could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// Folder or file cannot be written.
    #[error("cannot write {}: {source}; mend its permissions or free some space, then pull again", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// Another process fetches the same model.
    #[error("another process is fetching {}: wait for it", .0.display())]
    Busy(PathBuf),
    /// The server does not have it, or does not give it.
    #[error("{url} answered {status}: look at speech.models_url")]
    Refused {
        /// What was asked for.
        url: String,
        /// What it said.
        status: StatusCode,
    },
    /// The connection failed again and again.
    #[error("{url}: {reason}; {have} of {bytes} bytes are kept, pull again to go on")]
    Lost {
        /// What was asked for.
        url: String,
        /// What happened last.
        reason: String,
        /// Bytes on disk.
        have: u64,
        /// Bytes of the whole.
        bytes: u64,
    },
    /// What came is not the published file.
    #[error(
        "{url} is not the published model: {bytes} bytes with SHA-256 {found}, expected {expected}; nothing was kept"
    )]
    Wrong {
        /// What was asked for.
        url: String,
        /// How much came.
        bytes: u64,
        /// Of what came.
        found: String,
        /// As published.
        expected: &'static str,
    },
}

/// How a model stands on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Of the right size; [`pull`] also checks its content.
    Present,
    /// So many bytes were fetched so far.
    Partial(u64),
    /// Of another size than published.
    Damaged(u64),
    /// Not there.
    Absent,
}

/// Looks, and reads nothing.
pub fn presence(model: &Model, data_dir: &Path) -> Presence {
    let path = model.path(data_dir);
    let size = |path: &Path| std::fs::metadata(path).map(|about| about.len()).ok();
    match (size(&path), size(&part_of(&path))) {
        (Some(bytes), _) if bytes == model.bytes => Presence::Present,
        (Some(bytes), _) => Presence::Damaged(bytes),
        (None, Some(bytes)) => Presence::Partial(bytes),
        (None, None) => Presence::Absent,
    }
}

/// Where a model is while it is fetched.
fn part_of(path: &Path) -> PathBuf {
    path.with_extension("bin.part")
}

/// Fetches `model` from `base_url` into `data_dir` and gives its path; at once if it is there and right.
///
/// `progress` is told how many bytes are on disk. Cancellation: what was fetched stays and is gone on from.
pub async fn pull(
    model: &Model,
    base_url: &str,
    data_dir: &Path,
    mut progress: impl FnMut(u64),
) -> Result<PathBuf, PullError> {
    let path = model.path(data_dir);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| PullError::File { path, source }
    };
    if presence(model, data_dir) == Presence::Present {
        let mut file = File::open(&path).map_err(failed(&path))?;
        if hash_of(&mut file).map_err(failed(&path))?.1 == model.sha256 {
            progress(model.bytes);
            return Ok(path);
        }
    }
    let folder = path.parent().unwrap_or(data_dir);
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    let part = part_of(&path);
    let mut fetch = Fetch::open(model, base_url, &part).map_err(|error| match error {
        error if error.kind() == io::ErrorKind::WouldBlock => PullError::Busy(part.clone()),
        error => failed(&part)(error),
    })?;
    fetch.all(&mut progress).await?;
    let found = hex(&fetch.hash.clone().finalize());
    if found != model.sha256 {
        let bytes = fetch.have;
        std::fs::remove_file(&part).map_err(failed(&part))?;
        return Err(PullError::Wrong { url: fetch.url, bytes, found, expected: model.sha256 });
    }
    fetch.file.sync_all().map_err(failed(&part))?;
    std::fs::rename(&part, &path).map_err(failed(&path))?;
    // The rename itself is on disk once its folder is.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))?;
    Ok(path)
}

/// Bytes and SHA-256 from here to the end.
fn hash_of(file: &mut File) -> io::Result<(u64, String)> {
    let (bytes, hash) = hash_on(file)?;
    Ok((bytes, hex(&hash.finalize())))
}

fn hash_on(file: &mut File) -> io::Result<(u64, Sha256)> {
    let (mut block, mut hash, mut bytes) = (vec![0; BLOCK], Sha256::new(), 0);
    loop {
        match file.read(&mut block)? {
            0 => return Ok((bytes, hash)),
            read => {
                hash.update(&block[..read]);
                bytes += read as u64;
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One file on its way.
struct Fetch<'a> {
    model: &'a Model,
    url: String,
    part: &'a Path,
    file: File,
    hash: Sha256,
    have: u64,
}

/// How one attempt ended.
enum Attempt {
    Done,
    /// May go better the next time.
    Lost(String),
    Over(PullError),
}

impl<'a> Fetch<'a> {
    fn open(model: &'a Model, base_url: &str, part: &'a Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(part)?;
        file.try_lock()?;
        let (have, hash) = hash_on(&mut file)?;
        let url = format!("{}/{}", base_url.trim_end_matches('/'), model.file());
        let mut fetch = Self { model, url, part, file, hash, have };
        if have > model.bytes {
            fetch.start_over()?;
        }
        Ok(fetch)
    }

    fn start_over(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.hash = Sha256::new();
        self.have = 0;
        Ok(())
    }

    async fn all(&mut self, progress: &mut impl FnMut(u64)) -> Result<(), PullError> {
        let client = reqwest::Client::builder().connect_timeout(SILENT_MAX).read_timeout(SILENT_MAX).build();
        let client = client.map_err(|error| self.lost(crate::chain(&error)))?;
        let (mut fruitless, mut wait) = (0, WAIT_FIRST);
        loop {
            progress(self.have);
            let before = self.have;
            let reason = match self.attempt(&client, progress).await {
                Attempt::Done => return Ok(()),
                Attempt::Over(error) => return Err(error),
                Attempt::Lost(reason) => reason,
            };
            if self.have > before {
                (fruitless, wait) = (0, WAIT_FIRST);
            } else {
                fruitless += 1;
            }
            if fruitless >= ATTEMPTS_MAX {
                return Err(self.lost(reason));
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
    }

    async fn attempt(&mut self, client: &reqwest::Client, progress: &mut impl FnMut(u64)) -> Attempt {
        if self.have == self.model.bytes {
            return Attempt::Done;
        }
        let mut request = client.get(&self.url);
        if self.have > 0 {
            request = request.header(RANGE, format!("bytes={}-", self.have));
        }
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Attempt::Lost(crate::chain(&error.without_url())),
        };
        match response.status() {
            StatusCode::PARTIAL_CONTENT if begins_at(&response, self.have) => {}
            // It does not resume, or what it has is shorter: from the beginning.
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                let whole = response.status() == StatusCode::OK;
                if let Err(source) = self.start_over() {
                    return Attempt::Over(self.unwritable(source));
                }
                if !whole {
                    return Attempt::Lost(format!("the server resumed elsewhere ({})", response.status()));
                }
            }
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Attempt::Lost(format!("the server answered {status}"));
            }
            status => return Attempt::Over(PullError::Refused { url: self.url.clone(), status }),
        }
        loop {
            match response.chunk().await {
                Ok(None) if self.have >= self.model.bytes => return Attempt::Done,
                Ok(None) => return Attempt::Lost("the connection ended early".to_owned()),
                Err(error) => return Attempt::Lost(crate::chain(&error.without_url())),
                Ok(Some(bytes)) => {
                    if let Err(source) = self.file.write_all(&bytes) {
                        return Attempt::Over(self.unwritable(source));
                    }
                    self.hash.update(&bytes);
                    self.have += bytes.len() as u64;
                    progress(self.have);
                    // More than there should be is wrong already.
                    if self.have > self.model.bytes {
                        return Attempt::Done;
                    }
                }
            }
        }
    }

    fn unwritable(&self, source: io::Error) -> PullError {
        PullError::File { path: self.part.to_owned(), source }
    }

    fn lost(&self, reason: String) -> PullError {
        PullError::Lost { url: self.url.clone(), reason, have: self.have, bytes: self.model.bytes }
    }
}

fn begins_at(response: &Response, position: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {position}-")))
}
