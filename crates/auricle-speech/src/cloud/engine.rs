//! The engine, and the session's side of a stream.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use auricle_core::Account;
use tokio::sync::mpsc;

use super::backlog::Backlog;
use super::driver::{Driver, Shared, now};
use super::machine::{LEAST, Machine, samples};
use super::{CloudConfig, CloudNumbers, Provider, threads};
use crate::{Engine, EngineError, Event, EventSender, Stream, StreamSpec};

/// Events of a trial that wait.
const TRIAL_EVENTS: usize = 16;
/// A trial's rate and its silence in samples: half a second.
const TRIAL_RATE_HZ: u32 = 16_000;
const TRIAL_SAMPLES: usize = 8_000;

/// A service as an engine: a connection for each stream, opened when its first audio comes.
pub struct CloudEngine<P> {
    provider: P,
    config: CloudConfig,
    account: Account,
}

impl<P: Provider> CloudEngine<P> {
    /// Connects to nothing yet. Audio that waits is counted in `account`.
    pub fn new(provider: P, config: CloudConfig, account: Account) -> Self {
        Self { provider, config, account }
    }
}

impl<P: Provider> Engine for CloudEngine<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn is_paid(&self) -> bool {
        true
    }

    fn open(&self, mut spec: StreamSpec, events: EventSender) -> Result<Box<dyn Stream>, EngineError> {
        super::add_configured(&mut spec.key_terms, &self.config.key_terms);
        let adapter = self.provider.adapter(&spec)?;
        let numbers = self.config.numbers.clone();
        let threads = threads::handle()?;
        let samples_max = numbers.backlog_secs_max as usize * spec.sample_rate_hz as usize;
        let shared = Shared::new(Backlog::new(samples_max, self.account.share()));
        let machine = Machine::new(P::NAME, adapter, numbers.clone(), spec.sample_rate_hz, now());
        let driver = Driver { engine: P::NAME, machine, numbers, shared: Arc::clone(&shared), events };
        threads.spawn(driver.run());
        Ok(Box::new(CloudStream { shared, least: samples(LEAST, spec.sample_rate_hz) }))
    }

    /// Lets it hear half a second of silence, as a session would: that is a real handshake, and costs as good as nothing.
    fn check(&self) -> Result<String, EngineError> {
        let spec = StreamSpec {
            sample_rate_hz: TRIAL_RATE_HZ,
            language: "en".to_owned(),
            label: "check".to_owned(),
            key_terms: Vec::new(),
            interim: false,
        };
        let (events, mut heard) = mpsc::channel(TRIAL_EVENTS);
        let mut stream = self.open(spec, events)?;
        stream.push(&[0; TRIAL_SAMPLES]);
        stream.finish();
        let (told, outcome) = std::sync::mpsc::sync_channel(1);
        threads::handle()?.spawn(async move {
            let outcome = loop {
                match heard.recv().await {
                    Some(Event::Finished) => break Ok(()),
                    Some(Event::Failed(error)) => break Err(error),
                    Some(_) => {}
                    None => break Err(EngineError::Broken(format!("{} stopped", P::NAME))),
                }
            };
            let _ = told.send(outcome);
        });
        let CloudNumbers { connect_max, finish_max, .. } = self.config.numbers;
        let patience = connect_max + finish_max + Duration::from_secs(1);
        outcome
            .recv_timeout(patience)
            .map_err(|_| EngineError::Broken(format!("{} was silent for {patience:?}", P::NAME)))??;
        Ok(format!("{}, the key is accepted", self.provider.about()))
    }
}

/// The session's side.
struct CloudStream {
    shared: Arc<Shared>,
    /// Samples for which it is worth to wake the connection.
    least: usize,
}

impl Stream for CloudStream {
    fn push(&mut self, pcm: &[i16]) -> bool {
        let (taken, waiting) = {
            let mut backlog = self.shared.backlog();
            (backlog.push(pcm), backlog.waiting())
        };
        if waiting >= self.least {
            self.shared.wake.notify_one();
        }
        taken
    }

    fn finish(&mut self) {
        self.shared.backlog().finish();
        self.shared.wake.notify_one();
    }

    fn flush(&mut self) {
        self.shared.backlog().flush();
        self.shared.wake.notify_one();
    }
}

impl Drop for CloudStream {
    fn drop(&mut self) {
        self.shared.backlog().close();
        self.shared.dropped.store(true, Ordering::Relaxed);
        self.shared.wake.notify_one();
    }
}
