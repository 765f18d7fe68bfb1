//! What works in the background: attempts, deliveries, sweeping, repair, and whom they ask.

use std::sync::Arc;
use std::time::Duration;

use auricle_process::embed::EmbedServerConfig;
use auricle_process::openai::{OpenAiConfig, Output};
use auricle_process::{
    Days, Deliver, EmbedServer, Embedder, OpenAi, Outbox, PlainDays, SummariseDay, Understand, Worker,
};
use auricle_store::{ClaimRule, Sensitive, Store};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{BuildError, Hearing, Parts};
use crate::clock::monotonic;
use crate::config::{Config, LlmFallback, LlmOutput, Shape};
use crate::outgoing::Outgoing;
use crate::realtime::Triggers;
use crate::translation::Translations;
use crate::{link, loops, notify, repair, sweeper, webhook};

/// What webhooks and triggers go out by.
pub(super) fn outgoing(config: &Config, parts: &Parts) -> Result<Arc<Outgoing>, BuildError> {
    Outgoing::open(config.webhooks.allow_private, &parts.limits, Arc::new(parts.clock))
        .map_err(|error| BuildError::Webhooks(error.to_string()))
}

/// The language model, if one is configured.
pub(super) fn model(config: &Config, parts: &Parts) -> Result<Option<Arc<OpenAi>>, BuildError> {
    let Some(url) = &config.llm.url else { return Ok(None) };
    let llm = &config.llm;
    let ours = OpenAiConfig {
        url: url.clone(),
        model: llm.model.clone(),
        model_long: llm.model_long.clone(),
        model_translation: config.translation.model.clone(),
        key: llm.key.as_ref().map(|key| key.expose().to_owned()),
        key_header: llm.key_header.clone(),
        output: match llm.output {
            LlmOutput::Auto => None,
            LlmOutput::JsonSchema => Some(Output::JsonSchema),
            LlmOutput::JsonObject => Some(Output::JsonObject),
            LlmOutput::Text => Some(Output::Text),
        },
        window_tokens: llm.window_tokens.0,
        price_input: llm.price_input.0,
        price_output: llm.price_output.0,
    };
    let model = OpenAi::new(&ours, Arc::clone(&parts.limits), Arc::new(parts.clock))?;
    Ok(Some(Arc::new(model)))
}

/// The embedding server, if one is configured.
pub(super) fn embed_server(config: &Config, parts: &Parts) -> Result<Option<Arc<EmbedServer>>, BuildError> {
    let ours = &config.embeddings;
    let Some(url) = &ours.url else { return Ok(None) };
    let theirs = EmbedServerConfig {
        url: url.clone(),
        model: ours.model.clone(),
        key: ours.key.as_ref().map(|key| key.expose().to_owned()),
        dimensions: Some(ours.dimensions).filter(|dimensions| *dimensions > 0),
    };
    let server = EmbedServer::new(&theirs, Arc::clone(&parts.limits), Arc::new(parts.clock))?;
    Ok(Some(Arc::new(server)))
}

/// The loop that embeds records and transcripts.
pub(super) fn embedder(parts: &Parts, embed: Arc<EmbedServer>) -> Arc<Embedder> {
    Arc::new(Embedder {
        store: Arc::clone(&parts.store) as Arc<dyn Store>,
        embed,
        limits: Arc::clone(&parts.limits),
        process: parts.process.clone(),
        clock: Arc::new(parts.clock),
        // Nobody waits for it: it looks by itself.
        wake: Arc::default(),
    })
}

/// What `/readyz` tells of others. Never asked for: what is known already.
pub(super) fn dependencies(
    parts: &Parts,
    links: Option<Arc<link::Links>>,
    model: Option<Arc<OpenAi>>,
    embed: Option<Arc<EmbedServer>>,
) -> Arc<dyn Fn() -> serde_json::Value + Send + Sync> {
    let hearing = parts.hearing.clone();
    Arc::new(move || {
        let mut known = serde_json::Map::new();
        if let Some(Hearing { spool, engine, .. }) = &hearing {
            known.insert("speech".into(), speech(engine));
            let lag = u64::try_from(spool.silent_for().as_millis()).unwrap_or(u64::MAX);
            let held = serde_json::json!({ "lag_ms": lag, "bytes": spool.disk_bytes() });
            known.insert("spool".into(), held);
        }
        if let Some(links) = &links {
            known.insert("pusher".into(), links.describe());
        }
        if let Some(model) = &model {
            let (model, breaker) = model.describe();
            known.insert(
                "llm".into(),
                serde_json::json!({ "model": model, "breaker": link::breaker_name(breaker) }),
            );
        }
        if let Some(embed) = &embed {
            let (model, breaker) = embed.describe();
            known.insert(
                "embeddings".into(),
                serde_json::json!({ "model": model, "breaker": link::breaker_name(breaker) }),
            );
        }
        known.into()
    })
}

/// The chain's engines, in order.
fn speech(chain: &auricle_speech::Chain) -> serde_json::Value {
    let engines: Vec<_> = chain
        .status()
        .into_iter()
        .map(|status| {
            serde_json::json!({
                "engine": status.engine,
                "breaker": link::breaker_name(status.breaker),
                "works": status.works,
                "attempts": status.attempts,
            })
        })
        .collect();
    serde_json::json!({ "engines": engines, "replay_bytes": chain.replay_bytes() })
}

pub(super) fn processors(
    config: &Config,
    parts: &Parts,
    (wake, effects): (Arc<Notify>, Arc<Notify>),
    links: Option<Arc<link::Links>>,
    model: Option<Arc<OpenAi>>,
    outgoing: Arc<Outgoing>,
) -> (Arc<Worker>, Arc<Outbox>) {
    let store = Arc::clone(&parts.store) as Arc<dyn Store>;
    let clock: Arc<dyn auricle_process::Clock> = Arc::new(parts.clock);
    let mut deliverers: Vec<Arc<dyn Deliver>> = Vec::new();
    if parts.hearing.is_some() {
        deliverers.push(Arc::new(notify::NotifyClient {
            store: Arc::clone(&store),
            hub: Arc::clone(&parts.hub),
            clock: Arc::clone(&clock),
        }));
    }
    let mut records = vec![notify::MEMORY_CREATED];
    let url = config.webhooks.conversation.as_deref().and_then(|text| reqwest::Url::parse(text).ok());
    if let Some(url) = url {
        records.push(webhook::MEMORY_CREATED);
        deliverers.push(Arc::new(webhook::Webhook {
            store: Arc::clone(&store),
            outgoing: Arc::clone(&outgoing),
            url,
            secret: config.webhooks.secret.as_ref().map(|secret| Sensitive::new(secret.expose())),
        }));
    }
    deliverers.push(Arc::new(webhook::Targets {
        store: Arc::clone(&store),
        outgoing,
        clock: Arc::clone(&clock),
        answer_bytes_max: parts.limits.webhook_answer_bytes_max,
    }));
    let outbox = Arc::new(Outbox::new(
        Arc::clone(&store),
        deliverers,
        Arc::clone(&parts.limits),
        parts.process.clone(),
        Arc::clone(&clock),
        Arc::clone(&effects),
    ));
    let worker = Arc::new(Worker {
        store,
        understand: match model {
            Some(model) => model as Arc<dyn Understand>,
            None => Arc::new(auricle_process::Local),
        },
        limits: Arc::clone(&parts.limits),
        process: parts.process.clone(),
        clock,
        time_zone: config.time_zone(),
        wake,
        effects,
        records,
        fallback_after: fallback_after(config),
        rule: claim_when(config, links),
    });
    (worker, outbox)
}

/// What is said, translated by the model, if it is to be.
pub(super) fn translations(
    config: &Config,
    parts: &Parts,
    model: Option<Arc<OpenAi>>,
    (processing, tail, stop): (&Runtime, &TaskTracker, &CancellationToken),
) -> Option<Arc<Translations>> {
    let store = Arc::clone(&parts.store) as Arc<dyn Store>;
    let bounds = (Arc::clone(&parts.limits), parts.clock);
    let ends = (processing.handle().clone(), tail.clone(), stop.clone());
    Translations::new(&config.translation, store, model?, bounds, ends)
}

/// The loop that summarises days.
pub(super) fn days(
    config: &Config,
    parts: &Parts,
    model: Option<Arc<OpenAi>>,
    effects: Arc<Notify>,
) -> Arc<Days> {
    Arc::new(Days {
        store: Arc::clone(&parts.store) as Arc<dyn Store>,
        summarise: match model {
            Some(model) => model as Arc<dyn SummariseDay>,
            None => Arc::new(PlainDays),
        },
        limits: Arc::clone(&parts.limits),
        process: parts.process.clone(),
        clock: Arc::new(parts.clock),
        time_zone: config.time_zone(),
        hour: config.days_summary.0,
        fallback_after: fallback_after(config),
        effects,
    })
}

fn fallback_after(config: &Config) -> Option<Duration> {
    match config.llm.fallback {
        LlmFallback::Wait => None,
        LlmFallback::Local => Some(config.limits.llm_fallback_after),
    }
}

/// Which jobs this process takes (design 5, "The fallback, done right"). A listening process stands in for the pusher: at
/// once when it cannot be reached, else for what nobody took in time. One at a time for each user, so that nobody's backlog
/// holds the others up.
fn claim_when(config: &Config, links: Option<Arc<link::Links>>) -> auricle_process::ClaimWhen {
    let (shape, patience) = (config.shape, config.limits.fallback_after);
    Arc::new(move || match shape {
        Shape::Embedded => ClaimRule { one_per_user: true, ..ClaimRule::default() },
        Shape::Pusher => ClaimRule::default(),
        Shape::Listen => {
            let reachable = links.as_ref().is_none_or(|links| links.is_healthy());
            let waited = if reachable { patience } else { Duration::ZERO };
            ClaimRule { waited, one_per_user: true }
        }
    })
}

/// Starts every background loop under its watchdog.
#[expect(clippy::too_many_arguments, reason = "one call, in the function where all parts meet")]
pub(super) fn run_loops(
    parts: &Parts,
    (worker, outbox, embedder, days): (Arc<Worker>, Arc<Outbox>, Option<Arc<Embedder>>, Arc<Days>),
    triggers: &Arc<Triggers>,
    wake: &Arc<dyn Fn() + Send + Sync>,
    background: &Runtime,
    processing: &Runtime,
    stop_work: &CancellationToken,
    stop_loops: &CancellationToken,
    tail: &TaskTracker,
    metrics: Option<PrometheusHandle>,
    keep: Option<Duration>,
) {
    let held = parts.hearing.as_ref().map(|hearing| Arc::clone(&hearing.held));
    let sweeper = Arc::new(sweeper::Sweeper {
        // Audio that a listening process still holds becomes words first, if it lives.
        patience: if parts.hearing.is_some() { Duration::ZERO } else { parts.limits.sweep_others_after },
        strays: std::sync::Mutex::default(),
        hub: Arc::clone(&parts.hub),
        store: Arc::clone(&parts.store) as Arc<dyn Store>,
        held: held.clone(),
        process: parts.process.clone(),
        limits: Arc::clone(&parts.limits),
        clock: parts.clock,
        wake_jobs: Arc::clone(wake),
        repair: parts.hearing.as_ref().map(|hearing| Arc::clone(&hearing.repair)),
    });
    let watch = background.handle();
    let start = |name, runtime: &Runtime, make: loops::MakeLoop| {
        let stall_max = parts.limits.loop_stall_max;
        loops::supervise(name, runtime.handle(), watch, &parts.vitals, stall_max, stop_loops.clone(), make);
    };
    let announcer = Arc::clone(&sweeper);
    start("announcer", background, Box::new(move |pulse| Box::pin(Arc::clone(&announcer).announce(pulse))));
    start("sweeper", background, Box::new(move |pulse| Box::pin(Arc::clone(&sweeper).sweep(pulse))));
    if let (Some(hearing), Some(held)) = (&parts.hearing, held) {
        let repairer = Arc::new(repair::Repair {
            store: Arc::clone(&parts.store) as Arc<dyn Store>,
            spool: hearing.spool.clone(),
            held,
            engine: Arc::clone(&hearing.engine),
            tried: std::sync::Mutex::default(),
            at_once: repair::at_once(&hearing.engine, &parts.limits),
            limits: Arc::clone(&parts.limits),
            wake: Arc::clone(&hearing.repair),
        });
        start("repair", background, Box::new(move |pulse| Box::pin(Arc::clone(&repairer).run(pulse))));
    }
    if let Some(hearing) = &parts.hearing {
        let eraser = Arc::new(crate::eraser::Eraser {
            store: Arc::clone(&parts.store) as Arc<dyn Store>,
            spool: hearing.spool.clone(),
            vault: hearing.files.vault.clone(),
            kept: hearing.audio.kept.clone(),
            hub: Arc::clone(&parts.hub),
            limits: Arc::clone(&parts.limits),
            wake: Arc::clone(&hearing.erase),
        });
        let uploader = Arc::new(crate::uploads::Uploader {
            store: Arc::clone(&parts.store) as Arc<dyn Store>,
            vault: hearing.files.vault.clone(),
            kept: keep.is_some().then(|| hearing.audio.kept.clone()),
            engine: Arc::clone(&hearing.engine) as _,
            limits: Arc::clone(&parts.limits),
            process: parts.process.clone(),
            clock: parts.clock,
            wake: Arc::clone(&hearing.files.wake),
            wake_jobs: Arc::clone(wake),
        });
        let run = move |stop, beat| Arc::clone(&uploader).run(stop, beat);
        start("uploader", processing, until_stopped(stop_work, tail.clone(), run));
        let retranscriber = Arc::new(crate::retranscribe::Retranscriber {
            store: Arc::clone(&parts.store) as Arc<dyn Store>,
            kept: hearing.audio.kept.clone(),
            vault: hearing.files.vault.clone(),
            spool: hearing.spool.clone(),
            held: Arc::clone(&hearing.held),
            engine: Arc::clone(&hearing.engine),
            limits: Arc::clone(&parts.limits),
            process: parts.process.clone(),
            clock: parts.clock,
            wake: Arc::clone(&hearing.audio.wake),
            wake_jobs: Arc::clone(wake),
        });
        let run = move |stop, beat| Arc::clone(&retranscriber).run(stop, beat);
        start("retranscriber", processing, until_stopped(stop_work, tail.clone(), run));
        let keeper = Arc::new(crate::keeper::Keeper {
            store: Arc::clone(&parts.store) as Arc<dyn Store>,
            kept: hearing.audio.kept.clone(),
            keep,
            limits: Arc::clone(&parts.limits),
        });
        let protector = Arc::new(crate::protection::AudioProtector {
            store: Arc::clone(&parts.store) as Arc<dyn Store>,
            kept: hearing.audio.kept.clone(),
            limits: Arc::clone(&parts.limits),
        });
        let run = move |pulse| Box::pin(Arc::clone(&protector).run(pulse)) as _;
        start("audio_protector", background, Box::new(run));
        start("keeper", background, Box::new(move |pulse| Box::pin(Arc::clone(&keeper).run(pulse))));
        start("eraser", background, Box::new(move |pulse| Box::pin(Arc::clone(&eraser).run(pulse))));
    }
    start(
        "metrics",
        background,
        Box::new(move |pulse| Box::pin(crate::metrics::upkeep(metrics.clone(), pulse))),
    );
    let following = Arc::clone(triggers);
    start(
        "targets",
        background,
        Box::new(move |pulse| {
            let (triggers, beat) = (Arc::clone(&following), beat(pulse));
            Box::pin(async move { triggers.follow_changes(|| beat()).await })
        }),
    );
    let protector = Arc::new(crate::protection::Protector {
        store: Arc::clone(&parts.store),
        limits: Arc::clone(&parts.limits),
    });
    start("protector", background, Box::new(move |pulse| Box::pin(Arc::clone(&protector).run(pulse))));
    let outbox_ends = tail.clone();
    start(
        "outbox",
        background,
        until_stopped(stop_work, outbox_ends, move |stop, beat| Arc::clone(&outbox).run(stop, beat)),
    );
    start(
        "worker",
        processing,
        until_stopped(stop_work, tail.clone(), move |stop, beat| Arc::clone(&worker).run(stop, beat)),
    );
    let run = move |stop, beat| Arc::clone(&days).run(stop, beat);
    start("days", processing, until_stopped(stop_work, tail.clone(), run));
    if let Some(embedder) = embedder {
        let run = move |stop, beat| Arc::clone(&embedder).run(stop, beat);
        start("embedder", processing, until_stopped(stop_work, tail.clone(), run));
    }
}

/// A loop that ends by itself once `stop` is cancelled: it is part of the process's tail until then.
fn until_stopped<F>(
    stop: &CancellationToken,
    tail: TaskTracker,
    run: impl Fn(CancellationToken, auricle_process::Beat) -> F + Send + Sync + 'static,
) -> loops::MakeLoop
where
    F: Future<Output = ()> + Send + 'static,
{
    let stop = stop.clone();
    Box::new(move |pulse| {
        let running = tail.track_future(run(stop.clone(), beat(pulse)));
        let stop = stop.clone();
        Box::pin(async move {
            running.await;
            if stop.is_cancelled() {
                // Stay until the loops are stopped: an ended loop would be started again.
                std::future::pending::<()>().await;
            }
        })
    })
}

fn beat(pulse: Arc<crate::vitals::Pulse>) -> Arc<dyn Fn() + Send + Sync> {
    Arc::new(move || pulse.beat(monotonic()))
}
