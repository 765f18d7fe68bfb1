//! Files of a request, from the network onto the disk, never whole in memory.
//!
//! Bounded: a file by `limits.upload_bytes_max`, fields by a few KiB, a body that stalls by `limits.upload_stall_max`. A request
//! that breaks off leaves nothing.

use std::collections::HashMap;
use std::time::Duration;

use auricle_core::{Limits, UploadId, UserId};
use auricle_store::vault::{Kept, Vault, VaultError};
use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Pieces of a file that wait to be written.
const PIECES_MAX: usize = 4;
/// Bytes of a field that is no file.
const FIELD_BYTES_MAX: usize = 16 * 1024;
/// Fields that are no files.
const FIELDS_MAX: usize = 50;
/// Bytes of a file's name that are looked at.
const NAME_BYTES_MAX: usize = 512;

/// Why a request's files were not taken. Nothing of them is kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    /// Not the kind of body that was asked for, or not to its end.
    #[error("{0}")]
    Malformed(String),
    /// More than may be sent.
    #[error("{0}")]
    TooMuch(String),
    /// It brought nothing for too long.
    #[error("the body brought nothing for {0:?}; send it again")]
    Stalled(Duration),
    /// There is no room.
    #[error("{0}")]
    Full(String),
    /// Trouble of our own.
    #[error("write the file: {0}")]
    Io(std::io::Error),
}

impl From<VaultError> for ReceiveError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Full(_) => Self::Full(error.to_string()),
            VaultError::TooLong(_) => Self::TooMuch(error.to_string()),
            VaultError::Io(error) => Self::Io(error),
        }
    }
}

/// A file that is in the vault. Dropped without [`Received::settle`], it goes again.
pub(super) struct Received {
    pub(super) id: UploadId,
    /// As the sender named it; empty if it has none.
    pub(super) name: String,
    pub(super) kept: Kept,
    vault: Vault,
    user: UserId,
    settled: bool,
}

impl Received {
    /// Somebody else answers for the file from now on.
    pub(super) fn settle(mut self) {
        self.settled = true;
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if !self.settled
            && let Err(error) = self.vault.remove(&self.user, &self.id)
        {
            tracing::warn!(%error, "remove a file that nobody needs");
        }
    }
}

/// What a request brought.
#[derive(Default)]
pub(super) struct Form {
    pub(super) files: Vec<Received>,
    fields: HashMap<String, Vec<String>>,
}

impl Form {
    /// A field's last value.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).and_then(|values| values.last()).map(String::as_str)
    }

    /// All values of a field, which may also be named as a list.
    pub(super) fn list(&self, name: &str) -> Vec<&str> {
        let names = [name.to_owned(), format!("{name}[]")];
        names.iter().filter_map(|name| self.fields.get(name)).flatten().map(String::as_str).collect()
    }
}

/// Where files of `user` go, and how much of them.
pub(super) struct Receiver<'a> {
    pub(super) vault: &'a Vault,
    pub(super) user: &'a UserId,
    pub(super) limits: &'a Limits,
    /// Files of one request.
    pub(super) files_max: usize,
}

enum Piece {
    Bytes(Bytes),
    Whole,
}

impl Receiver<'_> {
    /// Reads a `multipart/form-data` body to its end.
    pub(super) async fn form(&self, headers: &HeaderMap, body: Body) -> Result<Form, ReceiveError> {
        let kind =
            headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let boundary = multer::parse_boundary(kind).map_err(|_| {
            ReceiveError::Malformed("the body is not multipart/form-data with a boundary".into())
        })?;
        let mut parts = multer::Multipart::new(body.into_data_stream(), boundary);
        let (mut form, mut fields) = (Form::default(), 0);
        while let Some(mut part) = self.in_time(parts.next_field()).await?.map_err(broken)? {
            let name = part.name().unwrap_or_default().to_owned();
            let file_name = part.file_name().map(|name| truncated(name, NAME_BYTES_MAX));
            match file_name {
                Some(file_name) => {
                    if form.files.len() >= self.files_max {
                        return Err(ReceiveError::TooMuch(format!(
                            "more than {} files in one request; send them in several",
                            self.files_max
                        )));
                    }
                    let mut draft = self.draft()?;
                    while let Some(piece) = self.in_time(part.chunk()).await?.map_err(broken)? {
                        draft.write(piece).await?;
                    }
                    form.files.push(draft.keep(file_name).await?);
                }
                None => {
                    fields += 1;
                    if fields > FIELDS_MAX {
                        return Err(ReceiveError::TooMuch(format!("more than {FIELDS_MAX} fields")));
                    }
                    let mut value = Vec::new();
                    while let Some(piece) = self.in_time(part.chunk()).await?.map_err(broken)? {
                        value.extend_from_slice(&piece);
                        if value.len() > FIELD_BYTES_MAX {
                            return Err(ReceiveError::TooMuch(format!(
                                "a field of more than {FIELD_BYTES_MAX} bytes; a file needs a file name"
                            )));
                        }
                    }
                    let value = String::from_utf8_lossy(&value).into_owned();
                    form.fields.entry(name).or_default().push(value);
                }
            }
        }
        Ok(form)
    }

    /// Reads a body that is one file.
    pub(super) async fn file(&self, name: String, body: Body) -> Result<Received, ReceiveError> {
        let mut draft = self.draft()?;
        let mut pieces = body.into_data_stream();
        while let Some(piece) = self.in_time(pieces.next()).await? {
            let piece = piece.map_err(|_| ReceiveError::Malformed("the body broke off".into()))?;
            draft.write(piece).await?;
        }
        draft.keep(truncated(&name, NAME_BYTES_MAX)).await
    }

    async fn in_time<T>(&self, coming: impl Future<Output = T>) -> Result<T, ReceiveError> {
        let most = self.limits.upload_stall_max;
        tokio::time::timeout(most, coming).await.map_err(|_| ReceiveError::Stalled(most))
    }

    fn draft(&self) -> Result<Writing, ReceiveError> {
        let id = UploadId::random(&mut rand::rng());
        let (pieces, mut inbox) = mpsc::channel(PIECES_MAX);
        let (vault, user, most) = (self.vault.clone(), self.user.clone(), self.limits.upload_bytes_max);
        let named = id.clone();
        // Writing and syncing block. A sender that is gone without the last word leaves a draft that is dropped.
        let written = tokio::task::spawn_blocking(move || {
            let mut draft = vault.create(&user, &named, most)?;
            while let Some(piece) = inbox.blocking_recv() {
                match piece {
                    Piece::Bytes(bytes) => draft.write(&bytes)?,
                    Piece::Whole => return draft.keep().map(Some),
                }
            }
            Ok(None)
        });
        Ok(Writing { id, vault: self.vault.clone(), user: self.user.clone(), pieces, written })
    }
}

fn broken(error: multer::Error) -> ReceiveError {
    match error {
        multer::Error::StreamReadFailed(_) | multer::Error::IncompleteStream => {
            ReceiveError::Malformed("the body broke off".into())
        }
        error => ReceiveError::Malformed(format!("the multipart body is malformed: {error}")),
    }
}

fn truncated(name: &str, most: usize) -> String {
    name[..name.floor_char_boundary(most)].to_owned()
}

/// A file on its way to the disk.
struct Writing {
    id: UploadId,
    vault: Vault,
    user: UserId,
    pieces: mpsc::Sender<Piece>,
    written: JoinHandle<Result<Option<Kept>, VaultError>>,
}

impl Writing {
    async fn write(&mut self, bytes: Bytes) -> Result<(), ReceiveError> {
        if self.pieces.send(Piece::Bytes(bytes)).await.is_err() {
            return Err(self.failure().await);
        }
        Ok(())
    }

    /// Why the writing thread is gone.
    async fn failure(&mut self) -> ReceiveError {
        match (&mut self.written).await {
            Ok(Err(error)) => error.into(),
            _ => ReceiveError::Io(std::io::Error::other("writing ended before the file did")),
        }
    }

    async fn keep(mut self, name: String) -> Result<Received, ReceiveError> {
        if self.pieces.send(Piece::Whole).await.is_err() {
            return Err(self.failure().await);
        }
        match (&mut self.written).await {
            Ok(Ok(Some(kept))) => {
                Ok(Received { id: self.id, name, kept, vault: self.vault, user: self.user, settled: false })
            }
            Ok(Err(error)) => Err(error.into()),
            _ => Err(ReceiveError::Io(std::io::Error::other("writing ended before the file did"))),
        }
    }
}
