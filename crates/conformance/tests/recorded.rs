//! Everything recorded of the reference implementations that this project has.
#![allow(missing_docs, clippy::print_stderr)]

use std::path::PathBuf;

fn recordings(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("ROLEGRAFT_CONFORMANCE")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let path = root.join(folder);
    if !path.exists() {
        eprintln!("skipped: recordings `{folder}` not found (set ROLEGRAFT_CONFORMANCE)");
        return None;
    }
    Some(path)
}

#[test]
fn merges_match_their_references() {
    let Some(folder) = recordings("merge-golden") else { return };
    let report = rolegraft_conformance::merge(&folder).unwrap();
    assert_eq!(report.failed(), 0, "{report}");
    assert!(report.verdicts.len() >= 150, "{}", report.verdicts.len());
}

#[test]
fn tau_episodes_match_upstream() {
    let Some(data) = recordings("tau-bench") else { return };
    let report = rolegraft_conformance::tau(&data.join("golden.jsonl.gz"), &data).unwrap();
    assert_eq!(report.failed(), 0, "{report}");
    assert_eq!(report.verdicts.len(), 1645);
}

#[test]
fn officebench_matches_upstream() {
    let Some(data) = recordings("officebench") else { return };
    for (file, cases) in [
        ("golden/args.jsonl", 733),
        ("golden/malformed.jsonl", 203),
        ("golden/readers.jsonl", 64),
        ("golden/evalfn.jsonl", 165),
        ("golden/untouched.jsonl", 137),
        ("golden/episodes.jsonl", 115),
        ("golden/episodes-1app.jsonl", 55),
        ("golden/original-parse.jsonl", 20),
        ("golden.jsonl", 229),
    ] {
        let report = rolegraft_conformance::officebench(&data.join(file), &data).unwrap();
        assert_eq!(report.failed(), 0, "{file}: {report}");
        assert_eq!(report.verdicts.len() + report.skipped.len(), cases, "{file}");
        for skipped in &report.skipped {
            eprintln!("skipped: {skipped}");
        }
    }
}
