//! Which crate may use which: the arrows of the design, and the dependencies that a crate exists to keep out.
//!
//! A new arrow is a decision: write it here, with its reason in the change that adds it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Our crates that each of ours may use in production code.
const ARROWS: &[(&str, &[&str])] = &[
    ("auricle-wire", &[]),
    ("auricle-core", &[]),
    ("auricle-audio", &[]),
    ("auricle-speech", &["auricle-audio", "auricle-core"]),
    ("auricle-store", &["auricle-core"]),
    ("auricle-process", &["auricle-core", "auricle-store"]),
    (
        "auricle-server",
        &[
            "auricle-audio",
            "auricle-core",
            "auricle-process",
            "auricle-speech",
            "auricle-store",
            "auricle-wire",
        ],
    ),
    // The binary encodes what it streams, examines the store, measures sessions: it may use every part it assembles. `bench`
    // is the fault harness that its users run, so the binary carries the test kit's network, stand-ins and client (ADR 6).
    (
        "auricle-cli",
        &[
            "auricle-audio",
            "auricle-core",
            "auricle-server",
            "auricle-speech",
            "auricle-store",
            "auricle-testkit",
            "auricle-wire",
        ],
    ),
    ("auricle-testkit", &["auricle-speech", "auricle-wire"]),
];

/// More of ours that tests may use. The test kit's own dependencies must not use it, or they would be built twice.
const TEST_ARROWS: &[(&str, &[&str])] =
    &[("auricle-process", &["auricle-testkit"]), ("auricle-server", &["auricle-testkit"])];

/// What a crate keeps out of its production code; that is why it is a crate.
const KEPT_OUT: &[(&str, &[&str])] = &[
    ("auricle-wire", &["tokio", "axum", "hyper", "reqwest", "rusqlite"]),
    (
        "auricle-core",
        &[
            "tokio",
            "axum",
            "serde",
            "serde_json",
            "async-trait",
            "futures-util",
            "rusqlite",
            "reqwest",
            "jiff",
            "tracing",
        ],
    ),
    ("auricle-audio", &["tokio", "axum", "hyper", "reqwest", "rusqlite", "serde"]),
    ("auricle-speech", &["axum", "rusqlite"]),
    ("auricle-store", &["axum", "hyper", "reqwest", "tokio-tungstenite"]),
    ("auricle-process", &["axum", "hyper", "rusqlite", "tokio-tungstenite"]),
    ("auricle-server", &["rusqlite", "opus", "lc3-codec", "symphonia", "libloading", "clap", "anyhow"]),
];

/// Dependencies of one crate by kind: `normal`, `dev` or `build`.
type Dependencies = BTreeMap<String, BTreeSet<String>>;

fn workspace() -> BTreeMap<String, Dependencies> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root)
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    read(&metadata)
}

fn read(metadata: &Value) -> BTreeMap<String, Dependencies> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter().map(|package| {
        let mut dependencies = Dependencies::new();
        for dependency in package["dependencies"].as_array().unwrap() {
            let kind = dependency["kind"].as_str().unwrap_or("normal").to_owned();
            dependencies.entry(kind).or_default().insert(text(&dependency["name"]));
        }
        (text(&package["name"]), dependencies)
    });
    packages.collect()
}

fn of<'a>(table: &[(&str, &'a [&'a str])], name: &str) -> &'a [&'a str] {
    table.iter().find(|(key, _)| *key == name).map_or(&[], |(_, list)| list)
}

/// Every broken rule, as a sentence.
fn breaches(workspace: &BTreeMap<String, Dependencies>) -> Vec<String> {
    let mut breaches = Vec::new();
    for (name, dependencies) in workspace {
        if !ARROWS.iter().any(|(known, _)| known == name) {
            breaches.push(format!("{name} is not in the table of arrows"));
        }
        let kept_out = of(KEPT_OUT, name);
        for (kind, list) in dependencies {
            for used in list {
                let allowed = of(ARROWS, name).contains(&used.as_str())
                    || (kind == "dev" && of(TEST_ARROWS, name).contains(&used.as_str()));
                if workspace.contains_key(used) && used != name && !allowed {
                    breaches.push(format!("{name} uses {used} ({kind}), which is no arrow of the design"));
                }
                if kind != "dev" && kept_out.contains(&used.as_str()) {
                    breaches.push(format!("{name} uses {used} ({kind}), which it keeps out"));
                }
            }
        }
    }
    breaches
}

#[test]
fn crates_use_only_what_the_design_lets_them_use() {
    let breaches = breaches(&workspace());
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn every_crate_of_the_table_exists() {
    let workspace = workspace();
    for (name, _) in ARROWS {
        assert!(workspace.contains_key(*name), "{name} is in the table but not in the workspace");
    }
}

#[test]
fn a_forbidden_arrow_and_a_kept_out_dependency_are_found() {
    let metadata = serde_json::json!({"packages": [
        {"name": "auricle-core", "dependencies": [{"name": "auricle-store", "kind": null}, {"name": "tokio", "kind": null},
            {"name": "auricle-testkit", "kind": "dev"}, {"name": "serde", "kind": "dev"}]},
        {"name": "auricle-store", "dependencies": [{"name": "auricle-core", "kind": null}]},
        {"name": "auricle-server", "dependencies": [{"name": "auricle-testkit", "kind": "dev"}]},
        {"name": "auricle-testkit", "dependencies": []},
        {"name": "auricle-novel", "dependencies": []},
    ]});
    let breaches = breaches(&read(&metadata));
    let found = |what: &str| breaches.iter().filter(|breach| breach.contains(what)).count();
    assert_eq!(breaches.len(), 4, "{breaches:?}");
    assert_eq!(found("auricle-core uses auricle-store (normal)"), 1);
    assert_eq!(found("auricle-core uses tokio (normal)"), 1);
    assert_eq!(found("auricle-core uses auricle-testkit (dev)"), 1);
    assert_eq!(found("auricle-novel is not in the table"), 1);
}
