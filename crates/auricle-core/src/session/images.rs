//! Pictures that arrive in pieces. Source: listen-protocol 3.1 (B, C).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::limits::Limits;

use super::ImageChunk;

/// What a chunk led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ImageOutcome {
    /// More is to come, or it was dropped for a bound.
    Incomplete,
    /// The picture's text is whole.
    Complete { temp_id: String, base64: String },
    /// The chunk cannot be; the connection is closed with 1008.
    Invalid,
}

#[derive(Debug)]
struct Upload {
    id: String,
    total: u32,
    begun: Instant,
    chunks: BTreeMap<u32, String>,
    bytes: usize,
}

/// Unfinished pictures, oldest first.
#[derive(Debug)]
pub(super) struct Images {
    limits: Arc<Limits>,
    uploads: VecDeque<Upload>,
}

impl Images {
    pub(super) fn new(limits: Arc<Limits>) -> Self {
        Self { limits, uploads: VecDeque::new() }
    }

    pub(super) fn chunk(&mut self, now: Instant, chunk: ImageChunk) -> ImageOutcome {
        let in_range = chunk.index < chunk.total && chunk.total <= self.limits.image_chunks_max;
        if chunk.id.is_empty() || chunk.data.is_empty() || !in_range {
            return ImageOutcome::Invalid;
        }
        let at = match self.uploads.iter().position(|upload| upload.id == chunk.id) {
            Some(at) => at,
            None => self.begin(now, &chunk),
        };
        let upload = &mut self.uploads[at];
        if upload.total != chunk.total {
            return ImageOutcome::Invalid;
        }
        // Repeated indexes are ignored: the first wins.
        if !upload.chunks.contains_key(&chunk.index) {
            upload.bytes += chunk.data.len();
            upload.chunks.insert(chunk.index, chunk.data);
        }
        if upload.bytes > self.limits.image_bytes_max {
            self.uploads.remove(at);
            return ImageOutcome::Incomplete;
        }
        if upload.chunks.len() as u32 == upload.total {
            let upload = self.uploads.remove(at).expect("found above");
            let base64 = upload.chunks.into_values().collect();
            return ImageOutcome::Complete { temp_id: upload.id, base64 };
        }
        while self.bytes() > self.limits.image_uploads_bytes_max {
            self.uploads.pop_front();
        }
        ImageOutcome::Incomplete
    }

    fn begin(&mut self, now: Instant, chunk: &ImageChunk) -> usize {
        if self.uploads.len() >= self.limits.image_uploads_max {
            self.uploads.pop_front();
        }
        self.uploads.push_back(Upload {
            id: chunk.id.clone(),
            total: chunk.total,
            begun: now,
            chunks: BTreeMap::new(),
            bytes: 0,
        });
        self.uploads.len() - 1
    }

    /// Of all unfinished pictures.
    pub(super) fn bytes(&self) -> usize {
        self.uploads.iter().map(|upload| upload.bytes).sum()
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.uploads.front().map(|upload| upload.begun + self.limits.image_upload_age_max)
    }

    pub(super) fn expire(&mut self, now: Instant) {
        while self.next_expiry().is_some_and(|at| now >= at) {
            self.uploads.pop_front();
        }
    }
}
