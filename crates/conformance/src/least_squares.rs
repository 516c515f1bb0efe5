//! Least-squares merges: `manifest.json` with the rules, checkpoints, calibration files of ids and weights, expected tensors.

use crate::merge::with_folders;
use crate::saliency::{ids, json};
use crate::tolerance::Tolerance;
use crate::{Report, UnreadableError};
use rolegraft_checkpoint::Tensors;
use rolegraft_least_squares::{Calibration, Means, Sample, Sets, merge};
use rolegraft_merge::{Execution, Plan, PlanOptions, Recipe};
use serde_json::{Value, json};
use std::path::Path;

/// Largest difference, where a case names no other.
const TOLERANCE: f64 = 2e-5;
const EXPECTED: &str = "a manifest.json whose cases name `models`, or folders that have one, is expected";

/// Replays every least-squares merge recorded under `folder`.
///
/// # Errors
/// If there are none, or a manifest cannot be read.
pub fn least_squares(folder: &Path) -> Result<Report, UnreadableError> {
    let mut report = Report::default();
    for set in with_folders(folder) {
        let path = set.join("manifest.json");
        if !path.exists() {
            continue;
        }
        let name = set.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let manifest = json(&path)?;
        let Some(cases) = manifest.as_array() else {
            return Err(UnreadableError::Format { path, reason: "it must be a list of cases".into() });
        };
        for case in cases.iter().filter(|case| case["models"].is_array()) {
            report.add(format!("{name}/{}", case["name"].as_str().unwrap_or("?")), replay(&set, case));
        }
    }
    if report.verdicts.is_empty() {
        return Err(UnreadableError::Nothing { path: folder.to_owned(), expected: EXPECTED });
    }
    Ok(report)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// What a line of a calibration file says: ids, weights, and positions that predict the model's own tokens.
struct Line {
    ids: Vec<u32>,
    weights: Vec<f64>,
    predicts: Vec<u32>,
}

type Lines = Vec<Line>;

fn sample(line: &Line) -> Sample<'_> {
    Sample { ids: &line.ids, weights: line.weights.clone(), predicts: line.predicts.clone() }
}

fn replay(set: &Path, case: &Value) -> Result<(), String> {
    let names: Vec<&str> = case["models"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut parameters = serde_json::Map::new();
    for key in ["ridge", "off_diagonal", "sequential", "anchor", "rest", "embedding", "only", "rho", "alpha", "theta"] {
        if !case[key].is_null() {
            parameters.insert(key.to_owned(), case[key].clone());
        }
    }
    let mut recipe = json!({
        "merge_method": case["method"].as_str().unwrap_or("regmean"), "dtype": "float32", "parameters": parameters,
        "models": names.iter().map(|name| json!({"model": name})).collect::<Vec<_>>(),
    });
    if set.join("base").is_dir() {
        recipe["base_model"] = json!("base");
    }
    let recipe = Recipe::parse(&recipe.to_string(), Path::new("case.yaml"))?;
    let plan = Plan::new(recipe, &[set], &PlanOptions::default()).map_err(text)?;
    // One file beside the recording by name, or those that the case names.
    let files = |name: &str| -> Vec<String> {
        let named = case["calibration"][name].as_array().into_iter().flatten().filter_map(Value::as_str);
        let named: Vec<String> = named.map(str::to_owned).collect();
        if named.is_empty() { vec![format!("{name}.calibration.jsonl")] } else { named }
    };
    let read = |name: &&str| files(name).iter().map(|file| lines(&set.join(file))).collect::<Result<Vec<Lines>, _>>();
    let lines: Vec<Vec<Lines>> = names.iter().map(read).collect::<Result<_, _>>()?;
    let of = names.iter().zip(&lines).map(|(name, lines)| {
        let samples = lines.iter().map(|set| set.iter().map(sample).collect()).collect();
        ((*name).to_owned(), Calibration::Samples(samples))
    });
    let sets: Sets<'_> = of.collect();
    let dir = tempfile::tempdir().map_err(text)?;
    let out = dir.path().join("merged");
    let means = Means { memory: usize::MAX, progress: &|_| {} };
    merge(&plan, sets, &out, &Execution::default(), &means).map_err(text)?;
    let ours = Tensors::open(&out).map_err(text)?;
    let expected = case["expected"].as_str().ok_or("the case names no `expected` tensors")?;
    let theirs = Tensors::open(set.join(expected)).map_err(text)?;
    let tolerance = Tolerance::Absolute(case["tolerance"].as_f64().unwrap_or(TOLERANCE));
    for (tensor, _) in theirs.tensors() {
        let (ours, theirs) = (ours.f32(tensor).map_err(text)?, theirs.f32(tensor).map_err(text)?);
        if ours.len() != theirs.len() {
            return Err(format!("`{tensor}` has {} values, recorded are {}", ours.len(), theirs.len()));
        }
        let wrong = ours.iter().zip(&theirs).position(|(a, b)| !tolerance.accepts(*a, *b));
        if let Some(at) = wrong {
            return Err(format!("`{tensor}`, value {at}: {}, recorded is {}", ours[at], theirs[at]));
        }
    }
    Ok(())
}

fn lines(path: &Path) -> Result<Lines, String> {
    let file = std::fs::read_to_string(path).map_err(|e| format!("cannot read `{}`: {e}", path.display()))?;
    let line = |(at, line): (usize, &str)| {
        let row: Value =
            serde_json::from_str(line).map_err(|e| format!("`{}`, line {}: {e}", path.display(), at + 1))?;
        let weights = row["weights"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        Ok(Line { ids: ids(&row["ids"]), weights, predicts: ids(&row["predicts"]) })
    };
    file.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(line).collect()
}
