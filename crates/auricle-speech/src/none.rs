//! No engine: for deployments whose clients send transcripts themselves (`custom_stt`).

use crate::{Engine, EngineError, EventSender, Stream, StreamSpec};

/// Opens nothing and says why.
pub(crate) struct NoEngine;

impl Engine for NoEngine {
    fn name(&self) -> &'static str {
        "none"
    }

    fn open(&self, _: StreamSpec, _: EventSender) -> Result<Box<dyn Stream>, EngineError> {
        Err(EngineError::Unavailable(
            "this server has no speech recognition: send transcripts (`custom_stt=enabled`), or set `--speech`".to_owned(),
        ))
    }

    fn check(&self) -> Result<String, EngineError> {
        Ok("no speech recognition: transcripts come from clients".to_owned())
    }
}
