//! `auricle bench outage --speech`: the speech engine refuses, or hears and says nothing, in the middle of what all sessions say.
//!
//! The words are tones in the audio (`auricle_speech::scripted::tones`), below a voice, so that what was kept, played again,
//! or heard from disk is known by its sound and not by where it came. At the end each word of each session is looked for in its
//! record: once, in order, where it was said.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use auricle_speech::scripted::tones;
use serde::Serialize;
use serde_json::Value;
use tokio::runtime::Handle;

use super::audit::Reader;
use super::load::{Load, encoded};
use super::outage::{Network, OutageArgs};
use super::prober::{Health, Prober};
use super::process::{Measured, Server};
use super::talker;
use crate::output;

/// Where a word's tone begins after its turn, so that it ends where the load thinks a word does.
const WORD_AFTER_SECS: f64 = 0.3;
/// Sessions settle before the calm is measured.
const WARM_UP: Duration = Duration::from_secs(8);
/// How long all sessions may take to be heard again.
const BACK_MAX: Duration = Duration::from_secs(180);
/// How long audio may take to be heard from disk at the end.
const REPAIR_MAX: Duration = Duration::from_secs(300);
/// A word is where it was said if it is no further off.
const NEAR_SECS: f64 = 0.5;
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Words shown to their clients may be this late in what was measured before.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// One phase.
#[derive(Serialize)]
struct Phase {
    seconds: f64,
    words_shown: u64,
    latency_p50_ms: f64,
    latency_p99_ms: f64,
    latency_max_ms: f64,
    cpu_share_of_a_core: f64,
    resident_mib: f64,
    sessions_dropped: u64,
    attempts: f64,
    attempts_per_minute: f64,
    livez: Health,
}

#[derive(Serialize)]
struct Figures {
    sessions: usize,
    calm: Phase,
    outage: Phase,
    after: Phase,
    /// From the engine's return until a word said after it was shown, of the session that waited longest and of the median one.
    back_p50_secs: f64,
    back_max_secs: f64,
    not_back: usize,
    /// From the engine's return until the last word of the outage stood in its record.
    whole_after_secs: f64,
    words_said: usize,
    words_lost: usize,
    words_doubled: usize,
    words_out_of_order: usize,
    /// Segments, each with the time of its first word; those that stand more than [`NEAR_SECS`] from where that was said; and how
    /// far at the worst.
    segments: usize,
    segments_misplaced: usize,
    misplaced_secs_max: f64,
}

struct Bench<'a> {
    args: &'a OutageArgs,
    server: Server,
    probe: std::net::SocketAddr,
    http: reqwest::Client,
    load: Load,
}

pub(super) fn run(args: &OutageArgs) -> anyhow::Result<ExitCode> {
    let (load, others) = (super::one_thread(0)?, super::one_thread(10)?);
    let figures = others.block_on(measure(args, load.handle()))?;
    if args.json {
        output::json(&figures)?;
    } else {
        print(args, &figures);
    }
    let dropped = [&figures.calm, &figures.outage, &figures.after]
        .iter()
        .map(|phase| phase.sessions_dropped)
        .sum::<u64>();
    let held = figures.words_lost + figures.words_doubled + figures.words_out_of_order + figures.not_back
        == 0
        && dropped == 0
        && figures.segments_misplaced == 0;
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All that is said, as frames.
fn frames(args: &OutageArgs) -> anyhow::Result<Vec<Vec<u8>>> {
    let secs = (WARM_UP + BACK_MAX).as_secs_f64() + 3.0 * args.seconds as f64 + 60.0;
    let mut pcm = tones::voice(secs);
    for number in 0..tones::NUMBERS {
        let at = (f64::from(number) * args.word_every_secs + WORD_AFTER_SECS) * f64::from(tones::RATE_HZ);
        tones::say(&mut pcm, at as usize, number);
    }
    encoded(&pcm)
}

async fn measure(args: &OutageArgs, on: &Handle) -> anyhow::Result<Figures> {
    let key = format!("speech-{:016x}-", rand::random::<u64>());
    let room = (args.sessions + 8).to_string();
    let mut trouble = std::path::PathBuf::new();
    let engines = if args.spare { "scripted,scripted_spare" } else { "scripted" };
    let server = Server::with_speech("speech", engines, |command, folder| {
        trouble = folder.join("trouble");
        let script = folder.join("tones.json");
        std::fs::write(
            &script,
            serde_json::json!({ "hears": "tones", "trouble_file": trouble }).to_string(),
        )?;
        command.args(["--limits-sessions-max", &room]);
        command.args(["--limits-connections-max", &(args.sessions + 64).to_string()]);
        command.env("AURICLE_SPEECH_SCRIPT", &script).env("AURICLE_AUTH_ADMIN_KEY", &key);
        Ok(())
    })?;
    let probe = server.probe.context("the server has no probe port")?;
    let base = server.url.split("/v4").next().unwrap_or_default().replacen("ws", "http", 1);
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
    let (url, sessions, every, frames) =
        (server.url.clone(), args.sessions, args.word_every_secs, frames(args)?);
    let tokens: Vec<String> = (0..sessions).map(|index| format!("{key}u{index}")).collect();
    let theirs = tokens.clone();
    let load = on.spawn(async move {
        Load::start_with(&url, sessions, every, frames, |index| Some(theirs[index].clone())).await
    });
    let bench = Bench { args, server, probe, http, load: load.await?? };
    let bar = super::progress(WARM_UP.as_secs() + 3 * args.seconds, "calm");
    tokio::time::sleep(WARM_UP).await;
    bench.load.reset();
    let calm = bench.phase(&bar).await?;

    bar.set_message("outage");
    std::fs::write(&trouble, if args.network == Network::Refuse { "refuse" } else { "hang" })?;
    let outage = bench.phase(&bar).await?;

    bar.set_message("after");
    std::fs::write(&trouble, "none")?;
    let returned = super::now();
    let (after, back) = tokio::join!(bench.phase(&bar), bench.back());
    let after = after?;
    let mut back: Vec<f64> = back;
    back.sort_by(f64::total_cmp);

    bar.set_message("records");
    let said = bench.load.said();
    let ledgers = bench.load.ledgers().to_vec();
    // Words that are being decided are shown before the connections go.
    tokio::time::sleep(Duration::from_secs(2)).await;
    bench.load.stop().await;
    let reader = Reader::new(base)?;
    let mut figures = Figures {
        sessions,
        calm,
        outage,
        after,
        back_p50_secs: back.get(back.len() / 2).copied().unwrap_or(f64::NAN),
        back_max_secs: back.last().copied().unwrap_or(f64::NAN),
        not_back: sessions - back.len(),
        whole_after_secs: 0.0,
        words_said: 0,
        words_lost: 0,
        words_doubled: 0,
        words_out_of_order: 0,
        segments: 0,
        segments_misplaced: 0,
        misplaced_secs_max: 0.0,
    };
    let deadline = super::now() + REPAIR_MAX;
    for ((token, ledger), frames) in tokens.iter().zip(ledgers).zip(said) {
        let id = talker::lock(&ledger).current.clone().context("a session without a conversation")?;
        let words = words_in(frames, every);
        let record = loop {
            let record = reader.get(token, &format!("/v1/conversations/{id}")).await?.unwrap_or_default();
            if holds(&record, words) || super::now() >= deadline {
                break record;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        figures.count(&record, words, every);
    }
    figures.whole_after_secs = returned.elapsed().as_secs_f64();
    bar.finish_and_clear();
    Ok(figures)
}

/// Words whose end lies within so many frames, and a second for them to be decided.
fn words_in(frames: usize, every: f64) -> usize {
    (((frames as f64 * 0.02 - 1.5) / every).floor() as usize + 1).min(tones::NUMBERS as usize)
}

/// The words of a record in order of time, with the start of those that begin a segment.
fn stored(record: &Value) -> Vec<(u32, Option<f64>)> {
    let mut segments: Vec<(f64, &str)> = record["transcript_segments"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|segment| Some((segment["start"].as_f64()?, segment["text"].as_str()?)))
        .collect();
    segments.sort_by(|a, b| a.0.total_cmp(&b.0));
    let words = segments.iter().flat_map(|(start, text)| {
        let numbers = text.split_whitespace().filter_map(|word| word.trim_matches(['w', '.']).parse().ok());
        numbers.enumerate().map(|(place, number)| (number, (place == 0).then_some(*start)))
    });
    words.collect()
}

/// Whether the first `words` words are there. Later ones may be as well, and do not stand in for one that is still missing.
fn holds(record: &Value, words: usize) -> bool {
    let there: std::collections::BTreeSet<u32> =
        stored(record).into_iter().map(|(number, _)| number).collect();
    (0..words as u32).all(|number| there.contains(&number))
}

impl Figures {
    fn count(&mut self, record: &Value, words: usize, every: f64) {
        let stored = stored(record);
        self.words_said += words;
        for number in 0..words as u32 {
            match stored.iter().filter(|(other, _)| *other == number).count() {
                0 => self.words_lost += 1,
                times => self.words_doubled += times - 1,
            }
        }
        self.words_out_of_order += stored.windows(2).filter(|pair| pair[0].0 >= pair[1].0).count();
        let Some((first, Some(zero))) = stored.first().copied() else { return };
        let of = |number: u32| f64::from(number - first.min(number)) * every;
        for (number, start) in &stored {
            let Some(start) = start else { continue };
            let misplaced = (start - zero - of(*number)).abs();
            self.segments += 1;
            self.segments_misplaced += usize::from(misplaced > NEAR_SECS);
            self.misplaced_secs_max = self.misplaced_secs_max.max(misplaced);
        }
    }
}

impl Bench<'_> {
    async fn phase(&self, bar: &indicatif::ProgressBar) -> anyhow::Result<Phase> {
        let livez = Prober::start(self.probe, "/livez", super::FAST_EVERY, ANSWER_MAX);
        let (before, attempts_before, begun) =
            (self.server.measured()?, self.attempts().await?, super::now());
        for _ in 0..self.args.seconds {
            tokio::time::sleep(Duration::from_secs(1)).await;
            bar.inc(1);
        }
        let seen = self.load.seen();
        let (seconds, attempts) = (begun.elapsed().as_secs_f64(), self.attempts().await? - attempts_before);
        let Measured { cpu, resident_kib } = self.server.measured()?;
        self.load.reset();
        let ms = |quantile: f64| seen.latency_us.value_at_quantile(quantile) as f64 / 1e3;
        Ok(Phase {
            seconds,
            words_shown: seen.latency_us.len(),
            latency_p50_ms: ms(0.5),
            latency_p99_ms: ms(0.99),
            latency_max_ms: seen.latency_us.max() as f64 / 1e3,
            cpu_share_of_a_core: (cpu - before.cpu).as_secs_f64() / seconds,
            resident_mib: resident_kib as f64 / 1024.0,
            sessions_dropped: seen.dropped,
            attempts,
            attempts_per_minute: attempts * 60.0 / seconds,
            livez: livez.stop(),
        })
    }

    /// Attempts at the first engine, as the server counts them when it opens a stream.
    async fn attempts(&self) -> anyhow::Result<f64> {
        let url = format!("http://{}/metrics", self.probe);
        let text = self.http.get(url).send().await?.text().await?;
        let line =
            text.lines().find(|line| line.starts_with("auricle_speech_attempts_total{engine=\"scripted\"}"));
        Ok(line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0))
    }

    /// How long each session took until a word that was said from now on was shown.
    async fn back(&self) -> Vec<f64> {
        let (begun, every) = (super::now(), self.args.word_every_secs);
        let mut waiting: Vec<(usize, usize)> =
            self.load.said().into_iter().map(|frames| words_in(frames + 75, every)).enumerate().collect();
        let mut back = Vec::new();
        while !waiting.is_empty() && begun.elapsed() < BACK_MAX.min(Duration::from_secs(self.args.seconds)) {
            tokio::time::sleep(LOOK_EVERY).await;
            waiting.retain(|(session, next)| {
                let shown = talker::lock(&self.load.ledgers()[*session]).last_shown();
                let is_back = shown.is_some_and(|word| word >= *next);
                if is_back {
                    back.push(begun.elapsed().as_secs_f64());
                }
                !is_back
            });
        }
        back
    }
}

fn print(args: &OutageArgs, figures: &Figures) {
    let Figures { calm, outage, after, .. } = figures;
    let how = if args.network == Network::Refuse { "refusing" } else { "hearing and saying nothing" };
    output::line(&format!(
        "{} sessions, a word every {} s of each; the engine {how} for {:.0} s\n",
        figures.sessions, args.word_every_secs, outage.seconds
    ));
    let row = |what: &str, of: fn(&Phase) -> String| vec![what.to_owned(), of(calm), of(outage), of(after)];
    let rows = vec![
        row("sessions dropped", |p| p.sessions_dropped.to_string()),
        row("attempts at the engine", |p| format!("{:.0}", p.attempts)),
        row("attempts a minute", |p| format!("{:.1}", p.attempts_per_minute)),
        row("words shown", |p| p.words_shown.to_string()),
        row("word latency p50, ms", |p| format!("{:.1}", p.latency_p50_ms)),
        row("word latency p99, ms", |p| format!("{:.1}", p.latency_p99_ms)),
        row("word latency max, ms", |p| format!("{:.1}", p.latency_max_ms)),
        row("CPU, % of a core", |p| format!("{:.1}", p.cpu_share_of_a_core * 100.0)),
        row("memory, MiB", |p| format!("{:.0}", p.resident_mib)),
        row("/livez every 10 ms: missed", |p| format!("{} of {}", p.livez.missed, p.livez.probes)),
        row("/livez p99.9, ms", |p| format!("{:.2}", p.livez.p999_ms)),
    ];
    output::line(&output::table(&["", "calm", "outage", "after"], rows));
    output::line(&format!(
        "\nheard again after the engine's return: p50 {:.1} s, all but {} within {:.1} s; every word in its record {:.1} s after it\n\
         words: {} said, {} lost, {} doubled, {} out of order\n\
         segments: {}, {} of them more than {NEAR_SECS} s from where they were said, the worst {:.3} s",
        figures.back_p50_secs,
        figures.not_back,
        figures.back_max_secs,
        figures.whole_after_secs,
        figures.words_said,
        figures.words_lost,
        figures.words_doubled,
        figures.words_out_of_order,
        figures.segments,
        figures.segments_misplaced,
        figures.misplaced_secs_max
    ));
}
