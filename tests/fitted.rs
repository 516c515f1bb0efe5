//! The loop with least-squares candidates, dev scores that decide, a projected graft, and without a word of candidates.

use serde_json::Value;
use std::path::Path;

use crate::miniature::{miniature, rolegraft, run, sandbox_missing, text};

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn fits_are_candidates_and_dev_scores_may_decide() {
    if sandbox_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let experiment = miniature(dir.path(), |t| {
        let fit =
            "operator = \"regmean\"\nparameters = { ridge = 0.003, weights = { context = 0.3 }, embedding = 1.0 }";
        t.replace("operator = \"ram\"", fit)
            .replace("[saliency]", "[selection]\nby = \"dev\"\n[saliency]")
            .replace("protect = \"strict\"", "protect = \"strict\"\ngraft = \"projected\"\nridge = 0.01")
    });
    let results = dir.path().join("results");
    let output = run(&experiment, &results);
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("by scores on dev tasks") && said.contains("fit …"), "{said}");
    let of_run = results.join("runs/nano");
    let selection = &json(&of_run.join("selection.json"))["content"];
    let dev = selection["dev"].as_array().unwrap();
    assert_eq!((dev.len(), dev[0][0].as_array().unwrap().len()), (2, 4));
    let best = if dev[1][1].as_f64() > dev[0][1].as_f64() { 1 } else { 0 };
    assert_eq!(selection["selection"]["chosen"], selection["selection"]["rows"][best][0]);
    let table = std::fs::read_to_string(of_run.join("tables/aos.md")).unwrap();
    assert!(table.contains("dev AVG"), "{table}");
    // With a weak benchmark the graft is projected, and what survives is said.
    let weak = json(&of_run.join("diagnosis.json"))["content"]["diagnosis"]["weak"].as_array().unwrap().len();
    assert_eq!(said.matches("survives protection").count(), weak, "{said}");
    let models = std::fs::read_dir(of_run.join("arm")).unwrap().count();
    assert!(models > 3);
    // Nothing is done twice.
    let again = text(&run(&experiment, &results));
    assert!(!again.contains("layer 4 of 4: equations"), "{again}");
}

#[test]
fn without_a_word_of_candidates_a_pool_is_merged_as_recommended() {
    if sandbox_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let without = |t: String| {
        let (head, rest) = t.split_once("[[candidate]]").unwrap();
        format!("{head}{}", &rest[rest.find("[saliency]").unwrap()..])
    };
    let experiment = miniature(dir.path(), without);
    let planned = text(&rolegraft(&["plan", experiment.to_str().unwrap()]).output().unwrap());
    assert!(planned.contains("4 candidates") && planned.contains("fit"), "{planned}");
    // An empty list asks for the pool as it is.
    let alone = miniature(dir.path(), |t| format!("candidate = []\n{}", without(t)));
    let planned = text(&rolegraft(&["plan", alone.to_str().unwrap()]).output().unwrap());
    assert!(!planned.contains("candidate"), "{planned}");
}

#[test]
fn rules_that_contradict_themselves_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&str, &str, &str); 4] = [
        ("protect = \"strict\"", "protect = \"none\"\ngraft = \"projected\"", "would be the donor itself"),
        ("protect = \"strict\"", "ridge = 0.0", "transplant.ridge is 0"),
        ("operator = \"ram\"", "operator = \"regmean\"\nparameters = { rigde = 1.0 }", "did you mean `ridge`?"),
        (
            "operator = \"ram\"",
            "operator = \"regmean\"\nparameters = { calibration = { tau = \"t.jsonl\" } }",
            "leave `calibration` out",
        ),
    ];
    for (from, to, expected) in cases {
        let experiment = miniature(dir.path(), |t| t.replace(from, to));
        let output = run(&experiment, &dir.path().join("results"));
        let said = text(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}
