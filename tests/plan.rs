//! What `rolegraft plan` says before a run.

use std::path::Path;
use std::process::{Command, Output};

fn plan(experiment: &Path, results: &Path) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rolegraft"));
    let output = command.arg("plan").arg(experiment).arg("--results").arg(results).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output, text)
}

fn nano() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benchmarks/experiments/nano.toml")
}

#[test]
fn every_stage_has_its_figures_and_nothing_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (_, text) = plan(&nano(), &dir.path().join("results"));
    for stage in ["merge", "calibrate", "trace", "select", "diagnose", "transplant", "evaluate"] {
        let row =
            text.lines().find(|line| line.starts_with(&format!("| {stage} "))).unwrap_or_else(|| panic!("{text}"));
        assert!(row.trim_end_matches(['|', ' ']).ends_with('s') || row.contains(" min"), "{row} has no time");
    }
    assert!(text.contains("6 candidates") && !text.contains("pool."), "{text}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a plan keeps nothing");
}

#[test]
fn all_that_is_missing_is_said_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let suites = nano().parent().unwrap().parent().unwrap().canonicalize().unwrap();
    let text = std::fs::read_to_string(nano()).unwrap();
    let suites = format!("suites = {suites:?}\ndata = \"none\"\n[compute]\nmemory = \"1MB\"\ndevice = \"cuda:0\"\n");
    let own = dir.path().join("own.toml");
    std::fs::write(&own, text.replacen("suites = \"..\"\n", &suites, 1)).unwrap();
    let (output, text) = plan(&own, &dir.path().join("results"));
    assert_eq!(output.status.code(), Some(3), "{text}");
    for what in ["pool.base", "pool.experts.", "tau-retail", "cuda:0"] {
        assert!(text.contains(what), "`{what}` is not named: {text}");
    }
}
