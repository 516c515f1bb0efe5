//! Who may import whom: the map in README.md, enforced.

use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

/// Crate → the crates of ours that it may use, tests excepted.
const EDGES: [(&str, &[&str]); 30] = [
    ("files", &[]),
    ("checkpoint", &["files"]),
    ("spans", &[]),
    ("python", &["spans"]),
    ("jinja", &[]),
    ("merge", &["checkpoint"]),
    ("trajectory", &["files", "jinja", "spans"]),
    ("decoder", &["checkpoint"]),
    ("saliency", &["checkpoint", "decoder"]),
    ("graft", &["checkpoint", "saliency"]),
    ("least-squares", &["checkpoint", "decoder", "merge"]),
    ("suite", &["files", "spans", "trajectory"]),
    ("suite-echo", &["spans", "suite", "trajectory"]),
    ("suite-tau", &["python", "spans", "suite", "trajectory"]),
    ("suite-office", &["files", "python", "spans", "suite", "trajectory"]),
    ("suite-os", &["python", "spans", "suite", "trajectory"]),
    ("suite-remote", &["spans", "suite", "trajectory"]),
    ("suite-db", &["python", "spans", "suite", "trajectory"]),
    ("suite-webshop", &["files", "python", "spans", "suite", "trajectory"]),
    ("suite-alfworld", &["python", "spans", "suite", "trajectory"]),
    (
        "suites",
        &[
            "suite",
            "suite-alfworld",
            "suite-db",
            "suite-office",
            "suite-os",
            "suite-remote",
            "suite-tau",
            "suite-webshop",
        ],
    ),
    ("model", &["trajectory"]),
    ("serve", &["checkpoint", "files", "model", "trajectory"]),
    ("servers", &["files"]),
    ("evaluate", &["model", "suite", "trajectory"]),
    ("report", &["spans", "trajectory"]),
    ("nano", &["checkpoint", "trajectory"]),
    (
        "pipeline",
        &[
            "checkpoint",
            "decoder",
            "evaluate",
            "files",
            "graft",
            "least-squares",
            "merge",
            "model",
            "report",
            "saliency",
            "serve",
            "servers",
            "spans",
            "suites",
            "trajectory",
        ],
    ),
    (
        "conformance",
        &[
            "checkpoint",
            "decoder",
            "least-squares",
            "merge",
            "model",
            "saliency",
            "serve",
            "spans",
            "suites",
            "trajectory",
        ],
    ),
    ("cli", &["conformance", "files", "nano", "pipeline", "report", "spans", "suites"]),
];

#[test]
fn imports_follow_the_map() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let short = |name: &Value| name.as_str().and_then(|n| n.strip_prefix("rolegraft-")).map(str::to_owned);
        let Some(name) = short(&package["name"]) else { continue };
        let normal = package["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"].is_null());
        let mut ours: Vec<String> = normal.filter_map(|d| short(&d["name"])).collect();
        ours.sort();
        found.insert(name, ours);
    }
    let map: BTreeMap<String, Vec<String>> =
        EDGES.iter().map(|(name, uses)| ((*name).into(), uses.iter().map(|u| (*u).into()).collect())).collect();
    assert_eq!(found, map);
}
