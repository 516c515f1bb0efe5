//! Ablations of the miniature: what they share with a run, kill and resume, what one pass reads, wrong flags.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use crate::miniature::{count, killed_when, miniature, rolegraft, root, run, sandbox_missing, text};

const GRID: [&str; 12] = [
    "--k",
    "0.1,0.5",
    "--protect",
    "strict,none",
    "--jitter",
    "-1..1",
    "--calibration",
    "0.5,1",
    "--seeds",
    "2",
    "--tasks",
    "2",
];

fn ablate(experiment: &Path, results: &Path) -> Command {
    let mut command = rolegraft(&["ablate", experiment.to_str().unwrap(), "--results", results.to_str().unwrap()]);
    command.args(GRID);
    command
}

fn done(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    output
}

/// The files right below a directory, with what they hold.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: std::path::PathBuf| {
        (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap())
    };
    entries.filter(|path| path.is_file()).map(named).collect()
}

fn says(output: &Output, parts: &[&str]) {
    for part in parts {
        assert!(text(output).contains(part), "`{part}` is missing from {}", text(output));
    }
}

#[test]
fn ablations_share_the_store_resume_and_repeat() {
    if sandbox_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let experiment = miniature(dir.path(), |t| t);
    let results = dir.path().join("after-a-run");
    assert!(run(&experiment, &results).status.success());
    let of_run = files(&results.join("cache"));
    let output = done(ablate(&experiment, &results));
    // 12 models on a benchmark (4 experts, 2 candidates on 4 each); 5 readings each (role, reply, moved twice, halves with two
    // seeds), of which the run has the experts' roles and replies and the candidates' roles.
    says(
        &output,
        &[
            "72 traces: 6 of each of 12 models on a benchmark; 16 are in the store, 56 are made in 12 passes",
            "forward passes: 12 of a model over a calibration set, 0 of them again",
            "AOS is 1 and nothing is transplanted for 3 of 3 experts",
        ],
    );
    let after = files(&results.join("cache"));
    for (name, bytes) in &of_run {
        assert!(after.get(name) == Some(bytes), "{name} was made again");
    }
    let found = results.join("runs/nano/ablation");
    let first = files(&found);
    let names: Vec<&str> = first.keys().map(String::as_str).collect();
    let expected = "ablation.html ablation.json calibration.csv figure3.csv figure3.svg figure4.csv figure4.svg figure5.csv \
                    figure5.svg jitter.csv one-expert.csv tokens.csv";
    assert_eq!(names, expected.split_whitespace().collect::<Vec<_>>());
    let page = String::from_utf8_lossy(&first["ablation.html"]);
    assert!(page.matches("<svg").count() == 3 && page.matches("<table>").count() == 7);
    let value: Value = serde_json::from_slice(&first["ablation.json"]).unwrap();
    let schema = std::fs::read(root().join("docs/artefacts/ablation.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&serde_json::from_slice(&schema).unwrap()).unwrap();
    let wrong: Vec<String> = validator.iter_errors(&value).map(|e| format!("{e} at {}", e.instance_path())).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    // Nothing moved and all trajectories: nothing changed.
    for changed in [&value["content"]["jitter"][1][1], &value["content"]["calibration"][2][2]] {
        assert_eq!((&changed["rank"], &changed["sets"]), (&Value::from(1.0), &Value::from(1.0)), "{changed}");
    }

    let again = done(ablate(&experiment, &results));
    says(&again, &["72 are in the store, 0 are made", "0 are played", "forward passes: 0 of a model"]);
    assert!(files(&found) == first && files(&results.join("cache")).len() == after.len());

    // Without a run before them, and killed again and again, they come to the same end, and the run finds its part.
    let killed = dir.path().join("killed");
    let (cached, mut kills) = (after.len(), 0);
    for fifth in 0..5 {
        kills += usize::from(killed_when(ablate(&experiment, &killed), || count(&killed) > cached * fifth / 5));
    }
    assert!(kills >= 3, "{kills}");
    says(&done(ablate(&experiment, &killed)), &["0 of them again"]);
    assert!(files(&killed.join("runs/nano/ablation")) == first);
    let saliencies = |results: &Path| -> BTreeMap<String, Vec<u8>> {
        files(&results.join("cache")).into_iter().filter(|(name, _)| name.starts_with("saliency-")).collect()
    };
    let before = saliencies(&killed);
    assert!(before == saliencies(&results));
    assert!(run(&experiment, &killed).status.success());
    assert!(saliencies(&killed) == before);

    // A file that cannot be written is named.
    std::fs::remove_file(found.join("figure4.svg")).unwrap();
    std::fs::create_dir_all(found.join("figure4.svg/in-the-way")).unwrap();
    let output = ablate(&experiment, &results).output().unwrap();
    assert!(!output.status.success());
    says(&output, &["figure4.svg"]);
}

#[test]
fn wrong_flags_are_named_with_the_mend() {
    for (flag, value, parts) in [
        ("--k", "0.1,1.5", &["`1.5` must lie in (0, 1]"][..]),
        ("--k", "0.1,0.1", &["`0.1` is given twice"]),
        ("--calibration", "0", &["`0` must lie in (0, 1]"]),
        ("--protect", "strikt", &["did you mean `strict`?", "other-donors"]),
        ("--tokens", "roles", &["did you mean `role`?"]),
        ("--jitter", "2..-2", &["write `-2..2`"]),
        ("--seeds", "0", &["at least 1"]),
        ("--tasks", "0", &["at least 1"]),
    ] {
        let output = rolegraft(&["ablate", "benchmarks/experiments/nano.toml", flag, value]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{flag} {value}: {}", text(&output));
        says(&output, parts);
    }
}
