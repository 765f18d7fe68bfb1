//! One attempt to hear a stretch: its frames through an engine's stream, its words into the store, run by run.

use std::time::Duration;

use auricle_core::Word;
use auricle_speech::{Engine, EngineError, Event, StreamSpec};
use auricle_store::InsertRecovered;
use tokio::sync::mpsc;

use super::joined::Stretch;
use super::sound::Sound;
use super::{PROGRESS_MAX, Repair, RepairError, segments};
use crate::clock::monotonic;
use crate::speech::AHEAD_SECS;
use crate::vitals::Pulse;

/// How far an attempt has come, in samples from the stretch's first frame.
struct Hearing {
    given: u64,
    covered: u64,
    words: Vec<Word>,
    /// Whose they are.
    engine: Option<&'static str>,
}

impl Repair {
    pub(super) async fn hear(&self, stretch: &mut Stretch, pulse: &Pulse) -> Result<(), RepairError> {
        let header = stretch.header().clone();
        let rate = header.sample_rate_hz;
        let mut sound = Sound::of(stretch).map_err(RepairError::Decode)?;
        let (sender, mut events) = mpsc::channel(64);
        let spec = StreamSpec {
            sample_rate_hz: rate,
            language: header.language.clone().unwrap_or_else(|| "en".into()),
            label: header.run.clone(),
            key_terms: Vec::new(),
            interim: false,
        };
        let mut stream = self.engine.open(spec, sender).map_err(RepairError::Engine)?;
        let mut heard = Hearing { given: 0, covered: 0, words: Vec::new(), engine: None };
        while let Some(piece) = sound.next_piece() {
            stream.push(&piece.pcm);
            heard.given += piece.samples;
            while heard.given > heard.covered + AHEAD_SECS * u64::from(rate) {
                self.next_event(&mut events, &mut heard, stretch, pulse).await?;
            }
        }
        stream.finish();
        while !self.next_event(&mut events, &mut heard, stretch, pulse).await? {}
        self.store_words(&mut heard, stretch).await
    }

    /// Takes one event. True when the engine has finished.
    async fn next_event(
        &self,
        events: &mut mpsc::Receiver<Event>,
        heard: &mut Hearing,
        stretch: &mut Stretch,
        pulse: &Pulse,
    ) -> Result<bool, RepairError> {
        let deadline = monotonic() + PROGRESS_MAX;
        let event = loop {
            pulse.beat(monotonic());
            match tokio::time::timeout(Duration::from_secs(5), events.recv()).await {
                Ok(event) => break event,
                Err(_) if monotonic() >= deadline => return Err(RepairError::Stuck),
                Err(_) => {}
            }
        };
        match event {
            Some(Event::Words(words)) => heard.words.extend(words),
            Some(Event::Covered { until_sample }) => {
                heard.covered = heard.covered.max(until_sample);
                if !heard.words.is_empty() {
                    self.store_words(heard, stretch).await?;
                }
            }
            Some(Event::Failed(error)) => return Err(RepairError::Engine(error)),
            Some(Event::Finished) => {
                heard.covered = heard.given;
                return Ok(true);
            }
            Some(Event::Serving { engine }) => heard.engine = Some(engine),
            Some(
                Event::Interim(_)
                | Event::Busy { .. }
                | Event::Resumed
                | Event::Skipped { .. }
                | Event::Degraded { .. }
                | Event::Recovered { .. },
            ) => {}
            None => return Err(RepairError::Engine(EngineError::Broken("the speech engine stopped".into()))),
        }
        Ok(false)
    }

    /// Stores the words of each run that they begin in, up to what is covered.
    async fn store_words(&self, heard: &mut Hearing, stretch: &mut Stretch) -> Result<(), RepairError> {
        let rate = f64::from(stretch.header().sample_rate_hz.max(1));
        let mut words = std::mem::take(&mut heard.words);
        if let Some(from) = stretch.yields_from() {
            // The stream that took over has heard them too.
            words.retain(|word| (word.start + word.end) / 2.0 * rate < from as f64);
        }
        let last = stretch.parts.len() - 1;
        for (number, part) in stretch.parts.iter_mut().enumerate() {
            let ends = if number == last { f64::INFINITY } else { part.end as f64 / rate };
            let own = words.partition_point(|word| word.start < ends);
            let own: Vec<Word> = words.drain(..own).collect();
            if own.is_empty() && (heard.covered <= part.begin || number < last && part.is_covered()) {
                continue;
            }
            let header = part.run.header();
            let until = part.first + heard.covered.min(part.end).saturating_sub(part.begin);
            let offset = (part.first as f64 - part.begin as f64) / rate;
            let insert = InsertRecovered {
                conversation: header.conversation.clone(),
                run: header.run.clone(),
                until_sample: until,
                zero_at: header.first_audio_at,
                segments: segments(own, offset, heard.engine, header.role.as_deref()),
                gap: None,
            };
            self.store.insert_recovered(insert).await.map_err(RepairError::Store)?;
            // Stored before it is freed: a crash between the two is told apart by (run, position).
            part.run.cover(until).map_err(RepairError::Read)?;
        }
        Ok(())
    }
}
