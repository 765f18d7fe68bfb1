//! Documents that must keep up with the code.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(std::fs::read_to_string(path).unwrap());
        }
    }
}

/// Every `auricle_…` name between two of `quote`.
fn names(text: &str, quote: char) -> BTreeSet<String> {
    let pieces = text.split(quote).filter(|piece| piece.starts_with("auricle_"));
    let name = |piece: &&str| piece.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    pieces.filter(name).map(str::to_owned).collect()
}

#[test]
fn metrics_md_lists_every_metric_and_no_other() {
    let mut code = Vec::new();
    for entry in std::fs::read_dir(root().join("crates")).unwrap().map(Result::unwrap) {
        sources(&entry.path().join("src"), &mut code);
    }
    let code: BTreeSet<String> = code.iter().flat_map(|text| names(text, '"')).collect();
    let page = names(&std::fs::read_to_string(root().join("docs/metrics.md")).unwrap(), '`');
    // Crate names stand in quotes too.
    let crates = |name: &&String| !root().join("crates").join(name.replace('_', "-")).exists();
    let code: Vec<_> = code.iter().filter(crates).collect();
    assert!(code.len() > 20, "the search finds nothing any more: {code:?}");
    let missing: Vec<_> = code.iter().filter(|name| !page.contains(**name)).collect();
    let extra: Vec<_> = page.iter().filter(|name| !code.contains(name)).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "not on the page: {missing:?}; not in the code: {extra:?}"
    );
}

#[test]
fn links_between_documents_lead_somewhere() {
    for page in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !link.starts_with("http") {
                let target = link.split('#').next().unwrap();
                assert!(root().join(target).exists(), "{page} links to {link}, which does not exist");
            }
        }
    }
}

/// Every id, in the reference's order.
fn scenario_ids() -> Vec<String> {
    let numbered =
        |letter: &'static str, last: u32| (1..=last).map(move |number| format!("{letter}{number}"));
    let mut losses: Vec<String> = numbered("L", 39).collect();
    losses.insert(21, "L21b".into());
    losses.into_iter().chain(numbered("D", 16)).chain(numbered("S", 6)).chain(numbered("M", 7)).collect()
}

#[test]
fn scenarios_md_has_69_rows_and_each_names_a_test_that_carries_its_id() {
    let page = std::fs::read_to_string(root().join("docs/scenarios.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .filter(|cells: &Vec<&str>| !matches!(cells[0], "id" | "---"))
        .filter(|cells: &Vec<&str>| !cells[0].starts_with("---"))
        .collect();
    let ids: Vec<&str> = rows.iter().map(|cells| cells[0]).collect();
    assert_eq!((ids.len(), scenario_ids().len()), (69, 69));
    assert_eq!(ids, scenario_ids());
    let mut code = Vec::new();
    sources(&root().join("crates"), &mut code);
    let code = code.join("\n");
    for cells in &rows {
        let [id, .., test] = cells[..] else { panic!("{cells:?}") };
        let test = test.trim_matches('`');
        // `L7` is `l07` in a name.
        let digits = id[1..].trim_end_matches('b');
        let label =
            format!("{}{:0>2}{}", id[..1].to_lowercase(), digits, if id.ends_with('b') { "b" } else { "" });
        assert!(test.split('_').any(|part| part == label), "{id}: {test} does not carry {label}");
        assert!(code.contains(&format!("fn {test}(")), "{id}: there is no test {test}");
    }
}
