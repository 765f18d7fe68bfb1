//! Translations of what is said, while it is said: `translating` events.
//!
//! Each session that has a target has a task beside it, on the runtime of processing. The session hands it what was committed and
//! never waits: a full inbox is a drop that is counted. The task gathers (`auricle_core::translation`), asks the language model
//! within a deadline and a process-wide bound, stores what came back beside the text that it is of, and only then hands the event
//! to its session, which sends it if its client keeps up. A model that is away, slow or mad costs translations, and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use auricle_core::job::Backoff;
use auricle_core::translation::{Batcher, Dropped, Item};
use auricle_core::{ConversationId, Limits, Segment, SegmentId, Translation, UserId};
use auricle_process::UnderstandError;
use auricle_process::translate::Translate;
use auricle_store::{Store, StoreError};
use auricle_wire::event::Event;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::SystemClock;
use crate::config::{TranslationConfig, TranslationWhen};
use crate::convert;

/// What a client asks for that speaks more than one language.
const MULTI: &str = "multi";
/// When the process ends, what waits has this part of `limits.drain_max`.
const STOP_PART: u32 = 4;

/// What all sessions' translations share.
pub(crate) struct Translations {
    store: Arc<dyn Store>,
    translate: Arc<dyn Translate>,
    limits: Arc<Limits>,
    clock: SystemClock,
    when: TranslationWhen,
    /// For those who speak more than one language and have not said which is theirs.
    language: Option<String>,
    /// `limits.translations_running_max` calls at once.
    places: Semaphore,
    runtime: Handle,
    tail: TaskTracker,
    /// The process ends.
    stop: CancellationToken,
}

/// A session's end. The session's own is dropped with it; its task then finishes what waits, within a deadline.
#[derive(Clone)]
pub(crate) struct TranslationHandle {
    inbox: mpsc::Sender<Told>,
}

/// What is stored and can be shown.
pub(crate) struct Translated {
    /// The event.
    pub(crate) text: String,
    /// The same segments.
    pub(crate) segments: Vec<Segment>,
}

/// What was committed.
struct Told {
    items: Vec<Item>,
    deleted: Vec<SegmentId>,
}

impl TranslationHandle {
    /// Hands over what was committed, and does not wait. What brings translations of its own is left alone.
    pub(crate) fn give(&self, conversation: &ConversationId, upsert: &[Segment], deleted: &[SegmentId]) {
        let own = upsert.iter().filter(|segment| segment.translations.is_empty());
        let items: Vec<_> = own
            .map(|segment| Item {
                conversation: conversation.clone(),
                segment: segment.id.clone(),
                text: segment.text.clone(),
            })
            .collect();
        let number = items.len();
        let told = Told { items, deleted: deleted.to_vec() };
        match self.inbox.try_send(told) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => dropped(Dropped::Full.as_str(), number),
            // The process ends.
            Err(mpsc::error::TrySendError::Closed(_)) => dropped(Dropped::Ended.as_str(), number),
        }
    }
}

/// Counts segments that were not translated, or whose translation was not shown.
pub(crate) fn dropped(reason: &'static str, number: usize) {
    if number > 0 {
        metrics::counter!("auricle_translation_drops_total", "reason" => reason).increment(number as u64);
    }
}

fn called(outcome: &'static str) {
    metrics::counter!("auricle_translation_calls_total", "outcome" => outcome).increment(1);
}

/// How a call ended.
enum Called {
    /// Into this language.
    Answered(String, Vec<Option<String>>),
    /// Why, for metrics, and how long no other is to be made at least.
    Failed(&'static str, Duration),
    /// Nobody was asked: the user has not said into which language.
    NoLanguage,
}

impl Translations {
    pub(crate) fn new(
        config: &TranslationConfig,
        store: Arc<dyn Store>,
        translate: Arc<dyn Translate>,
        (limits, clock): (Arc<Limits>, SystemClock),
        (runtime, tail, stop): (Handle, TaskTracker, CancellationToken),
    ) -> Option<Arc<Self>> {
        let places = Semaphore::new(limits.translations_running_max.min(Semaphore::MAX_PERMITS));
        let (when, language) = (config.when, config.language.clone());
        let all = Self { store, translate, limits, clock, when, language, places, runtime, tail, stop };
        (when != TranslationWhen::Off).then(|| Arc::new(all))
    }

    /// For a session of this language; `None` if nothing of it is to be translated.
    pub(crate) fn open(
        self: &Arc<Self>,
        user: &UserId,
        language: &str,
    ) -> Option<(TranslationHandle, mpsc::Receiver<Translated>)> {
        let target = match self.when {
            _ if language == MULTI => None,
            TranslationWhen::Always => Some(language.to_owned()),
            TranslationWhen::Multi | TranslationWhen::Off => return None,
        };
        let (inbox, told) = mpsc::channel(self.limits.translation_inbox_max.max(1));
        let (events, ready) = mpsc::channel(self.limits.translation_events_max.max(1));
        let (all, user) = (Arc::clone(self), user.clone());
        self.tail.spawn_on(async move { all.run(user, target, told, events).await }, &self.runtime);
        Some((TranslationHandle { inbox }, ready))
    }

    /// The language that a user of more than one wants to read.
    async fn target(&self, user: &UserId) -> Option<String> {
        let own = self.store.language(user).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "read a user's language");
            None
        });
        own.or_else(|| self.language.clone())
    }

    /// `named`: into this language, whichever the user reads.
    async fn run(
        self: Arc<Self>,
        user: UserId,
        named: Option<String>,
        mut told: mpsc::Receiver<Told>,
        events: mpsc::Sender<Translated>,
    ) {
        let mut batcher = Batcher::new(&self.limits);
        let mut call: Option<BoxFuture<'_, (Vec<Item>, Called)>> = None;
        let mut failures = 0;
        let (mut is_over, mut is_stopping) = (false, false);
        let mut ends_at: Option<Instant> = None;
        loop {
            let now = self.clock.mono();
            // Its time is up, or a pause lasts longer than that.
            let is_late =
                |at| at <= now || (call.is_none() && batcher.timeout().is_some_and(|next| next >= at));
            let gives_up = ends_at.is_some_and(is_late);
            if gives_up {
                batcher.give_up();
            } else if call.is_none()
                && let Some(batch) = batcher.poll(now)
            {
                call = Some(self.call(&user, named.as_deref(), batch).boxed());
            }
            for (why, number) in batcher.take_dropped() {
                dropped(why.as_str(), number);
            }
            if gives_up || (is_over && batcher.is_idle()) {
                return;
            }
            let wake_at = [batcher.timeout(), ends_at].into_iter().flatten().min();
            let timer = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let answer = async {
                match &mut call {
                    Some(call) => call.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                said = told.recv(), if !is_over => match said {
                    Some(Told { items, deleted }) => {
                        let now = self.clock.mono();
                        deleted.iter().for_each(|segment| batcher.deleted(segment));
                        items.into_iter().for_each(|item| batcher.heard(now, item));
                    }
                    None => {
                        is_over = true;
                        batcher.end();
                        let at = self.clock.mono() + self.limits.translation_call_max;
                        ends_at = Some(ends_at.map_or(at, |earlier| earlier.min(at)));
                    }
                },
                () = self.stop.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    batcher.end();
                    let at = self.clock.mono() + self.limits.drain_max / STOP_PART;
                    ends_at = Some(ends_at.map_or(at, |earlier| earlier.min(at)));
                }
                (batch, ended) = answer => {
                    call = None;
                    match ended {
                        Called::Answered(target, found) => {
                            called("answered");
                            failures = 0;
                            let wanted = batcher.answered();
                            let found = batch.into_iter().zip(found).filter(|(item, _)| wanted.contains(item));
                            self.keep(&user, &target, found.collect(), &events).await;
                        }
                        Called::Failed(outcome, after) => {
                            called(outcome);
                            failures += 1;
                            let pause = self.pause(failures).max(after).min(self.limits.translation_pause_max);
                            batcher.failed(Dropped::Failed, self.clock.mono() + pause);
                        }
                        Called::NoLanguage => {
                            let again = self.clock.mono() + self.limits.translation_pause_max;
                            batcher.failed(Dropped::NoLanguage, again);
                        }
                    }
                }
                () = timer => {}
            }
        }
    }

    fn pause(&self, failures: u32) -> Duration {
        let limits = &self.limits;
        let backoff = Backoff { first: limits.translation_quiet, max: limits.translation_pause_max };
        backoff.delay(failures, &mut rand::rng())
    }

    /// Asks for one batch, within the deadline that also holds for its place.
    async fn call(&self, user: &UserId, named: Option<&str>, batch: Vec<Item>) -> (Vec<Item>, Called) {
        let texts: Vec<_> = batch.iter().map(|item| item.text.clone()).collect();
        let id = batch.first().map(|item| format!("translate:{}", item.conversation)).unwrap_or_default();
        let asked = async {
            let target = match named {
                Some(named) => Some(named.to_owned()),
                None => self.target(user).await,
            };
            let Some(target) = target else { return Called::NoLanguage };
            let _place = self.places.acquire().await;
            match self.translate.translate(&target, &texts, &id).await {
                Ok(found) => Called::Answered(target, found),
                Err(UnderstandError::Away { after, .. }) => Called::Failed("away", after),
                Err(error) => {
                    tracing::debug!(%error, "translate");
                    Called::Failed("senseless", Duration::ZERO)
                }
            }
        };
        let asked = tokio::time::timeout(self.limits.translation_call_max, asked).await;
        (batch, asked.unwrap_or(Called::Failed("late", Duration::ZERO)))
    }

    /// Stores, and only then shows.
    async fn keep(
        &self,
        user: &UserId,
        target: &str,
        found: Vec<(Item, Option<String>)>,
        events: &mpsc::Sender<Translated>,
    ) {
        let same = found.iter().filter(|(_, text)| text.is_none()).count();
        metrics::counter!("auricle_translations_total", "outcome" => "same").increment(same as u64);
        let mut found: Vec<_> = found.into_iter().filter_map(|(item, text)| Some((item, text?))).collect();
        while let Some((first, _)) = found.first() {
            let conversation = first.conversation.clone();
            let (here, later): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|(item, _)| item.conversation == conversation);
            found = later;
            let number = here.len();
            let here = here
                .into_iter()
                .map(|(item, text)| (item.segment, item.text, Translation { lang: target.to_owned(), text }));
            match self.store.translate_segments(user, &conversation, here.collect()).await {
                Ok(segments) => {
                    metrics::counter!("auricle_translations_total", "outcome" => "stored")
                        .increment(segments.len() as u64);
                    dropped(Dropped::Superseded.as_str(), number - segments.len());
                    if segments.is_empty() {
                        continue;
                    }
                    let shown = segments.iter().map(convert::segment).collect();
                    let text = Event::Translating { segments: shown }.to_text();
                    let stored = segments.len();
                    if events.try_send(Translated { text, segments }).is_err() {
                        dropped("unsent", stored);
                    }
                }
                Err(StoreError::NotFound(_)) => dropped(Dropped::Deleted.as_str(), number),
                Err(error) => {
                    tracing::warn!(%error, conversation.id = %conversation, "store translations");
                    dropped("store", number);
                }
            }
        }
    }
}
