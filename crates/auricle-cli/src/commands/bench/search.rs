//! `auricle bench search`: a search of one user's archive, by words and by meaning, beside bare dot products over the same
//! vectors in memory.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use auricle_core::{
    ConversationId, FinaliseReason, JobId, ProcessId, Provenance, Segment, Source, Structured, UnixMicros,
    UserId,
};
use auricle_store::{
    AppendSegments, Choice, ClaimRule, Completion, Embedded, Finalise, OpenConversation, SqliteOptions,
    SqliteStore, Store,
};
use auricle_testkit::EmbeddingsStandIn;
use hdrhistogram::Histogram;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use super::process::Server;
use super::{now, progress};
use crate::client::encoded;
use crate::output;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct SearchArgs {
    /// Transcript chunks of the one user.
    #[arg(long, default_value_t = 100_000)]
    chunks: usize,
    /// Numbers of a vector.
    #[arg(long, default_value_t = 768)]
    dimensions: usize,
    /// Searches measured, after ten that are not.
    #[arg(long, default_value_t = 300)]
    searches: u64,
    /// For scripts.
    #[arg(long)]
    json: bool,
}

const USER: &str = "local";
/// Who has little, beside the user who has all the rest.
const NEIGHBOUR: &str = "neighbour";
const NEIGHBOURS_CHUNKS: usize = 100;
/// A word of nine chunks in ten.
const COMMON: &str = "commonly";
const COMMON_SHARE: f64 = 0.9;
const MODEL: &str = "bench";
/// Chunks of one conversation: five hours of talk.
const CHUNKS_EACH: usize = 100;
/// Words of a chunk's text, of so many there are. Fewer than a real chunk has, so that filling takes a minute; more of them
/// are rare.
const WORDS_EACH: usize = 40;
const VOCABULARY: f64 = 20_000.0;
const WARM_UP: u64 = 10;
const LEASE: Duration = Duration::from_secs(60);

/// How long one kind of search takes.
#[derive(Serialize)]
struct Figures {
    what: &'static str,
    first_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

#[derive(Serialize)]
struct Report {
    chunks: usize,
    dimensions: usize,
    searches: u64,
    store_mib: u64,
    server_resident_mib: u64,
    figures: Vec<Figures>,
}

pub(super) fn run(args: &SearchArgs) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(args.chunks > 0 && args.dimensions > 0, "there must be something to search");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let stand_in = runtime.block_on(EmbeddingsStandIn::start()).context("start an embedding server")?;
    let (mut figures, mut store_mib) = (Vec::new(), 0);
    let server = Server::with("search", |command, folder| {
        figures = runtime.block_on(in_process(args, folder))?;
        store_mib = std::fs::metadata(folder.join("auricle.db"))?.len() >> 20;
        command.args([
            "--auth-local-user",
            USER,
            "--embeddings-url",
            &stand_in.url(),
            "--embeddings-model",
            MODEL,
        ]);
        command.args(["--embeddings-dimensions", &args.dimensions.to_string()]);
        Ok(())
    })?;
    figures.push(runtime.block_on(end_to_end("GET /v1/search", args, &server, words_of))?);
    figures.push(runtime.block_on(end_to_end(
        "the same, with a word of most chunks",
        args,
        &server,
        common,
    ))?);
    figures.push(runtime.block_on(end_to_end("the same, while a word is typed", args, &server, typed))?);
    let server_resident_mib = server.measured()?.resident_kib >> 10;
    let SearchArgs { chunks, dimensions, searches, json } = *args;
    let report = Report { chunks, dimensions, searches, store_mib, server_resident_mib, figures };
    if json {
        output::json(&report)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::line(&format!(
        "{chunks} chunks of one user, {dimensions} dimensions, {searches} searches each; the store is {store_mib} MiB, the server \
         resides in {server_resident_mib} MiB\n"
    ));
    let ms = |value: f64| format!("{value:.1}");
    let row = |each: &Figures| {
        vec![each.what.into(), ms(each.first_ms), ms(each.p50_ms), ms(each.p99_ms), ms(each.max_ms)]
    };
    let rows = report.figures.iter().map(row).collect();
    output::line(&output::table(&["", "first, ms", "p50, ms", "p99, ms", "max, ms"], rows));
    Ok(ExitCode::SUCCESS)
}

/// Measures `search`, called with a number from 0.
async fn measured<F>(what: &'static str, searches: u64, search: impl Fn(u64) -> F) -> anyhow::Result<Figures>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let mut times = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3)?;
    let mut first_ms = 0.0;
    let bar = progress(searches, "search");
    for number in 0..searches + WARM_UP {
        let begun = now();
        search(number).await?;
        let took = begun.elapsed();
        if number == 0 {
            first_ms = took.as_secs_f64() * 1e3;
        }
        if number >= WARM_UP {
            times.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1))?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let ms = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Figures { what, first_ms, p50_ms: ms(0.5), p99_ms: ms(0.99), max_ms: times.max() as f64 / 1e3 })
}

/// Fills a store, and measures the floor and each half of a search in this process.
async fn in_process(args: &SearchArgs, folder: &Path) -> anyhow::Result<Vec<Figures>> {
    let mut random = StdRng::seed_from_u64(7);
    let store = SqliteStore::open(folder.join("auricle.db"), SqliteOptions::default())?;
    let matrix = fill(&store, (USER, args.chunks), args.dimensions, &mut random).await?;
    fill(&store, (NEIGHBOUR, NEIGHBOURS_CHUNKS), args.dimensions, &mut random).await?;
    let matrix = Arc::new(matrix);
    let queries: Arc<Vec<Vec<f32>>> =
        Arc::new((0..16).map(|_| vector(&mut random, args.dimensions)).collect());
    let query = |number: u64| queries[number as usize % queries.len()].clone();
    let user = UserId::from(USER);
    let model = format!("{MODEL}@{}", args.dimensions);
    let floor = measured("floor: bare dot products", args.searches, |number| {
        let (matrix, query, dimensions) = (Arc::clone(&matrix), query(number), args.dimensions);
        async move {
            std::hint::black_box(best(&matrix, &query, dimensions));
            Ok(())
        }
    });
    let floor = floor.await?;
    let meaning = measured("by meaning, in the store", args.searches, |number| {
        let (store, user, model, query) = (&store, &user, &model, query(number));
        async move {
            let found = store.nearest(user, model, query, 100).await?;
            anyhow::ensure!(!found.is_empty(), "nothing was found by meaning");
            Ok(())
        }
    });
    let meaning = meaning.await?;
    let neighbour = UserId::from(NEIGHBOUR);
    let by_words = async |what, user: &UserId, query: fn(u64) -> String| {
        let search = |number| {
            let (store, text) = (&store, query(number));
            async move {
                let found = store.search(user, &text, 100, 0).await?;
                anyhow::ensure!(!found.is_empty(), "nothing was found by words");
                Ok(())
            }
        };
        measured(what, args.searches, search).await
    };
    let words = by_words("by words, 100 hits with snippets", &user, words_of).await?;
    let ranks = measured("by words, the ranking alone", args.searches, |number| {
        let (store, user, text) = (&store, &user, words_of(number));
        async move {
            anyhow::ensure!(!store.search_ranks(user, &text, 100, 0).await?.is_empty(), "nothing was ranked");
            Ok(())
        }
    });
    let ranks = ranks.await?;
    let beside = by_words("by words, of a user with 100 chunks", &neighbour, common).await?;
    store.close().await;
    Ok(vec![floor, meaning, words, ranks, beside])
}

/// The whole way: request, embedding, both searches, fusion, answer.
async fn end_to_end(
    what: &'static str,
    args: &SearchArgs,
    server: &Server,
    query: fn(u64) -> String,
) -> anyhow::Result<Figures> {
    let base = server.url.split("/v4").next().unwrap_or_default().replacen("ws", "http", 1);
    let client = reqwest::Client::builder().no_proxy().build()?;
    measured(what, args.searches, |number| {
        let url = format!("{base}/v1/search?query={}", encoded(&query(number)));
        let request = client.get(url);
        async move {
            let answer: serde_json::Value = request.send().await?.error_for_status()?.json().await?;
            anyhow::ensure!(
                answer["meaning"] == "on",
                "the search was not by meaning: {}",
                answer["meaning"]
            );
            Ok(())
        }
    })
    .await
}

/// The floor: the greatest dot product over all rows.
fn best(matrix: &[f32], query: &[f32], dimensions: usize) -> f32 {
    const LANES: usize = 8;
    let mut best = f32::MIN;
    for row in matrix.chunks_exact(dimensions) {
        let mut sums = [0.0_f32; LANES];
        for (a, b) in row.chunks_exact(LANES).zip(query.chunks_exact(LANES)) {
            for lane in 0..LANES {
                sums[lane] += a[lane] * b[lane];
            }
        }
        best = best.max(sums.iter().sum());
    }
    best
}

fn vector(random: &mut StdRng, dimensions: usize) -> Vec<f32> {
    let vector: Vec<f32> = (0..dimensions).map(|_| random.random_range(-1.0..1.0)).collect();
    let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
    vector.into_iter().map(|number| number / length).collect()
}

/// Two words that some chunks hold.
fn words_of(number: u64) -> String {
    format!("word{} word{} ", 20 + number % 16, 45 + number % 7)
}

/// One word of most chunks and one of some.
fn common(number: u64) -> String {
    format!("{COMMON} word{} ", number % 16)
}

/// The beginning of some words, and one of some chunks.
fn typed(number: u64) -> String {
    format!("word{} word10{}", 20 + number % 16, number % 10)
}

/// Words as talk has them: few often, many rarely.
fn text(random: &mut StdRng) -> String {
    let word = |random: &mut StdRng| {
        let rank = (VOCABULARY * random.random_range(0.0_f64..1.0).powi(3)) as u64;
        format!("word{rank}")
    };
    let mut words: Vec<_> = (0..WORDS_EACH).map(|_| word(random)).collect();
    if random.random_bool(COMMON_SHARE) {
        COMMON.clone_into(&mut words[0]);
    }
    words.join(" ")
}

/// Makes conversations as the server makes them. All their chunks' vectors, side by side.
async fn fill(
    store: &SqliteStore,
    (user, chunks): (&str, usize),
    dimensions: usize,
    random: &mut StdRng,
) -> anyhow::Result<Vec<f32>> {
    let process = ProcessId::from("bench");
    let mut clock = 1_700_000_000_000_000;
    let mut tick = || {
        clock += 1_000_000;
        UnixMicros(clock)
    };
    store.process_alive(&process, tick() + Duration::from_secs(86_400 * 365)).await?;
    let mut matrix = Vec::with_capacity(chunks * dimensions);
    let bar = progress(chunks as u64, "fill");
    let mut left = chunks;
    while left > 0 {
        let size = left.min(CHUNKS_EACH);
        left -= size;
        let opening = OpenConversation {
            user: user.into(),
            process: process.clone(),
            source: Source::Omi,
            language: Some("en".into()),
            timeout: Duration::from_secs(120),
            choice: Choice::New,
            fresh_id: ConversationId::random(random),
            call_id: None,
            now: tick(),
        };
        let owner = store.open_conversation(opening).await?.ownership;
        let segments: Vec<_> = (0..size).map(|number| segment(number, text(random))).collect();
        let ids: Vec<_> = segments.iter().map(|segment| segment.id.clone()).collect();
        let batch = AppendSegments {
            ownership: owner.clone(),
            upsert: segments,
            delete: Vec::new(),
            started_at: None,
            now: tick(),
        };
        store.append_segments(batch).await?;
        let ending = Finalise {
            conversation: owner.conversation.clone(),
            owner: Some(owner.clone()),
            reason: FinaliseReason::Silence,
            job_id: JobId::random(random),
            now: tick(),
        };
        store.finalise(ending).await?;
        let job =
            store.claim_job(&process, tick(), LEASE, ClaimRule::default()).await?.context("no job is due")?;
        let structured =
            Structured { title: format!("Talk {left}"), overview: text(random), ..Structured::default() };
        let done = Completion {
            lease: job.lease,
            structured,
            provenance: Provenance { provider: "bench".into(), version: "1".into() },
            discarded: None,
            memories: Vec::new(),
            effects: Vec::new(),
            now: tick(),
        };
        store.complete_job(done).await?;
        let claim =
            store.claim_embedding(&process, tick(), LEASE).await?.context("nothing is to be embedded")?;
        let embedded = ids.into_iter().map(|id| {
            let vector = vector(random, dimensions);
            matrix.extend_from_slice(&vector);
            Embedded { segments: Some((id.clone(), id)), vector }
        });
        let embedded = embedded.collect();
        store.complete_embedding(&claim, &format!("{MODEL}@{dimensions}"), embedded).await?;
        bar.inc(size as u64);
    }
    bar.finish_and_clear();
    Ok(matrix)
}

fn segment(number: usize, text: String) -> Segment {
    Segment {
        id: format!("s{number}").into(),
        text,
        speaker: None,
        is_user: false,
        person_id: None,
        start: number as f64 * 2.0,
        end: number as f64 * 2.0 + 1.0,
        translations: Vec::new(),
        speech_profile_processed: true,
        stt_provider: None,
    }
}
