//! Runs of the spool whose every frame tells its number.

use auricle_core::{Source, UnixMicros};
use auricle_store::spool::{RunHeader, RunWriter};

pub(crate) const FRAME_SAMPLES: u32 = 320;

pub(crate) fn header(run: &str, conversation: &str) -> RunHeader {
    RunHeader {
        run: run.into(),
        user: "ann".into(),
        conversation: conversation.into(),
        process: "p1".into(),
        codec: "opus_fs320".into(),
        sample_rate_hz: 16_000,
        channels: 1,
        language: Some("en".into()),
        source: Source::Omi,
        role: None,
        first_audio_at: UnixMicros(1_700_000_000_000_000),
    }
}

pub(crate) fn frame(number: u64) -> Vec<u8> {
    (0..80).map(|byte| (number as u8).wrapping_mul(31).wrapping_add(byte)).collect()
}

pub(crate) fn feed(run: &mut RunWriter, numbers: std::ops::Range<u64>) {
    for number in numbers {
        run.append(&frame(number), FRAME_SAMPLES);
    }
}

pub(crate) fn sample(frame: u64) -> u64 {
    frame * u64::from(FRAME_SAMPLES)
}
