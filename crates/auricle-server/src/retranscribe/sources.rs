//! What of the kept audio belongs to a conversation: stretches of runs, and uploaded files.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use auricle_audio::file::FileError;
use auricle_audio::recording::{Form, Recording};
use auricle_core::{Conversation, UnixMicros};
use auricle_store::Upload;
use auricle_store::spool::StoredRun;
use auricle_store::vault::Vault;

use crate::repair::joined::{Part, Stretch, stretches};
use crate::repair::sound::Sound;
use crate::rest::opener;
use crate::speech::file::Pcm;

/// Rate at which ordinary files are heard.
const RATE_HZ: u32 = 16_000;
/// A file whose words are of several conversations: what is this far from one is another's. Half of what parts them.
const APART: Duration = Duration::from_secs(60);

/// When a conversation was.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    /// Zero of its transcript's clock.
    pub(crate) started_at: UnixMicros,
    pub(crate) finished_at: UnixMicros,
}

impl From<&Conversation> for Span {
    fn from(conversation: &Conversation) -> Self {
        Self { started_at: conversation.started_at, finished_at: conversation.finished_at }
    }
}

/// One stream for an engine.
pub(crate) enum Source {
    Runs(Arc<Stretch<StoredRun>>),
    File(Box<Upload>, Form, Vault),
}

/// Runs that adjoin are one, the oldest first. Blocks: reads each run.
pub(crate) fn of_runs(runs: Vec<StoredRun>) -> Vec<Source> {
    stretches(runs.into_iter().filter_map(Part::of).collect())
        .into_iter()
        .map(|stretch| Source::Runs(Arc::new(stretch)))
        .collect()
}

impl Source {
    /// `None` if the file is in none of the vaults.
    pub(crate) fn of_upload(upload: Upload, vaults: [&Vault; 2]) -> Option<Self> {
        let form = Form::parse(&upload.form)?;
        let vault = vaults.into_iter().find(|vault| vault.has(&upload.user, &upload.id))?.clone();
        Some(Self::File(Box::new(upload), form, vault))
    }

    /// The same as long as its audio is the same.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Runs(stretch) => format!("run:{}:{}", stretch.header().run, stretch.end()),
            Self::File(upload, ..) => format!("upload:{}", upload.id),
        }
    }

    pub(crate) fn zero_at(&self) -> UnixMicros {
        match self {
            Self::Runs(stretch) => stretch.zero_at(),
            Self::File(upload, ..) => upload.recorded_at,
        }
    }

    pub(crate) fn rate_hz(&self) -> u32 {
        match self {
            Self::Runs(stretch) => stretch.header().sample_rate_hz,
            Self::File(_, Form::Frames { rate_hz, .. }, _) => *rate_hz,
            Self::File(_, Form::File, _) => RATE_HZ,
        }
    }

    pub(crate) fn language(&self) -> Option<&str> {
        match self {
            Self::Runs(stretch) => stretch.header().language.as_deref(),
            Self::File(upload, ..) => upload.language.as_deref(),
        }
    }

    /// Which stream of a multi-channel session.
    pub(crate) fn role(&self) -> Option<&str> {
        match self {
            Self::Runs(stretch) => stretch.header().role.as_deref(),
            Self::File(..) => None,
        }
    }

    /// Whether it holds audio of other conversations too.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::File(upload, ..) if upload.conversations.len() > 1)
    }

    /// Where audio of the conversation is, in seconds from [`Self::zero_at`]; `secs` is what was heard.
    pub(crate) fn there(&self, span: Span, secs: f64) -> Vec<(f64, f64)> {
        match self {
            Self::Runs(stretch) => {
                let rate = f64::from(self.rate_hz().max(1));
                let there = stretch.there().into_iter();
                there.map(|(from, until)| (from as f64 / rate, until as f64 / rate)).collect()
            }
            Self::File(upload, ..) if self.is_shared() => {
                let at = |time: UnixMicros| time.seconds_since(upload.recorded_at);
                let apart = APART.as_secs_f64();
                let from = (at(span.started_at) - apart).max(0.0);
                let until = (at(span.finished_at) + apart).min(secs);
                vec![(from, until.max(from))]
            }
            Self::File(..) => vec![(0.0, secs)],
        }
    }

    /// What of it is the conversation's, in seconds from [`Self::zero_at`]: from the first audio to the last. `None`: nothing, or
    /// nobody knows how long it is.
    pub(crate) fn extent(&self, span: Span) -> Option<(f64, f64)> {
        let secs = match self {
            Self::Runs(stretch) => stretch.end() as f64 / f64::from(self.rate_hz().max(1)),
            Self::File(upload, ..) => upload.audio_secs?,
        };
        let there = self.there(span, secs);
        let (from, until) = (there.first()?.0, there.last()?.1);
        (from < until).then_some((from, until))
    }

    /// Whether it can be read.
    pub(crate) fn check(&self) -> std::io::Result<()> {
        match self {
            // Its header was read, with the same key.
            Self::Runs(_) => Ok(()),
            Self::File(upload, _, vault) => {
                vault.read(&upload.user, &upload.id).and_then(|mut file| file.read_exact(&mut [0]))
            }
        }
    }

    pub(crate) fn opener(
        &self,
        secs_max: u32,
    ) -> impl FnOnce() -> Result<Box<dyn Pcm>, FileError> + Send + 'static {
        let open: Box<dyn FnOnce() -> Result<Box<dyn Pcm>, FileError> + Send> = match self {
            Self::Runs(stretch) => {
                let (stretch, second) = (Arc::clone(stretch), self.rate_hz() as usize);
                Box::new(move || {
                    let sound = Sound::of(&stretch).map_err(FileError::Unsupported)?;
                    Ok(Box::new(Runs { sound, second }) as Box<dyn Pcm>)
                })
            }
            Self::File(upload, form, vault) => {
                let open = opener(vault, &upload.user, &upload.id, *form, secs_max);
                Box::new(move || open().map(|recording: Recording| Box::new(recording) as Box<dyn Pcm>))
            }
        };
        open
    }
}

struct Runs {
    sound: Sound,
    /// Samples.
    second: usize,
}

impl Pcm for Runs {
    fn read(&mut self, out: &mut Vec<i16>) -> Result<bool, FileError> {
        let before = out.len();
        while out.len() - before < self.second {
            let Some(piece) = self.sound.next_piece() else { return Ok(false) };
            out.extend_from_slice(&piece.pcm);
        }
        Ok(true)
    }
}
