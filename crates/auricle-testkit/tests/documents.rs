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
