//! The figures as people read them.

use super::{Felt, Figures};
use crate::output;

pub(super) fn print(figures: &Figures) {
    let Figures { clients, expired, live, retry_ms, spread_ms, back, counted, .. } = figures;
    output::line(&format!(
        "{clients} clients dropped at once, {expired} of them with tokens no longer valid; they return within {spread_ms} ms \n\
         and then every {retry_ms} ms whatever they are told; {live} live sessions stream Opus meanwhile\n"
    ));
    let refused = match counted.refused.iter().filter(|(_, count)| **count > 0).collect::<Vec<_>>() {
        none if none.is_empty() => "none".to_owned(),
        some => some.iter().map(|(reason, count)| format!("{count} {reason}")).collect::<Vec<_>>().join(", "),
    };
    let looked_up = counted.bad_tokens - counted.from_memory.min(counted.bad_tokens);
    let rows = [
        (
            "all back after",
            format!("{:.2} s  (p50 {:.2} s, p99 {:.2} s)", back.secs, back.p50_secs, back.p99_secs),
        ),
        ("not back", back.missing.to_string()),
        ("attempts", format!("{}, {} without an answer", back.attempts, back.failed)),
        ("refused", format!("{refused}; Retry-After up to {} s", back.retry_after_secs_max)),
        ("attempts with bad tokens", format!("{}, {looked_up} of them looked up", counted.bad_tokens)),
        (
            "server's CPU in the storm",
            format!("{:.0} % of a core", figures.server_cpu_share_of_a_core * 100.0),
        ),
        ("CPU of a refusal", format!("{:.0} µs", figures.refusal_cpu_us)),
        (
            "CPU of a bad token",
            format!(
                "{:.0} µs, {:.1} % of a core in all",
                figures.denial_cpu_us,
                figures.denials_cpu_share_of_a_core * 100.0
            ),
        ),
    ];
    let rows = rows.map(|(what, value)| vec![what.to_owned(), value]).to_vec();
    output::line(&output::table(&["", ""], rows));
    let of = |what: &str, figure: &dyn Fn(&Felt) -> String| {
        vec![what.to_owned(), figure(&figures.calm), figure(&figures.storm), figure(&figures.after)]
    };
    let ms = |value: f64| format!("{value:.1}");
    let rows = vec![
        of("segments received", &|felt| felt.segments.to_string()),
        of("word to segment p50, ms", &|felt| ms(felt.p50_ms)),
        of("word to segment p99, ms", &|felt| ms(felt.p99_ms)),
        of("word to segment max, ms", &|felt| ms(felt.max_ms)),
        of("live sessions dropped", &|felt| felt.dropped.to_string()),
        of("frame sent late at worst, ms", &|felt| ms(felt.load_late_ms_max)),
        of("CPU taken by the machine's host, ms", &|felt| format!("{:.0}", felt.stolen_ms)),
        of("/livez p50, ms", &|felt| format!("{:.2}", felt.livez.p50_ms)),
        of("/livez p99.9, ms", &|felt| format!("{:.2}", felt.livez.p999_ms)),
        of("/livez max, ms", &|felt| format!("{:.2}", felt.livez.max_ms)),
        of("/livez missed", &|felt| format!("{} of {}", felt.livez.missed, felt.livez.probes)),
    ];
    output::line("");
    output::line(&output::table(&["live sessions", "calm", "storm", "after"], rows));
}
