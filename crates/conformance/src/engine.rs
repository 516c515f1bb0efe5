//! Greedy decoding as transformers recorded it: one list of cases, which every engine is held to.

use crate::runner::{Decoded, Runner};
use crate::saliency::{ids, json, model_folder};
use crate::{Report, UnreadableError};
use rolegraft_trajectory::Vocabulary;
use serde_json::Value;
use std::path::Path;

/// Where the two best logits came closer than this, another engine may rightly pick the other.
const GAP: f64 = 1e-3;
/// The model's folder in recordings of one model.
const ONLY: &str = "model";

/// Replays recorded decodings under each of `runners`: `cases.json`, a list of cases of the model in `model/`, or of models
/// with their cases. `data` is where model folders are that do not lie beside the recordings.
///
/// # Errors
/// If there are no recordings.
pub fn engine(traces: &Path, data: Option<&Path>, runners: &[Box<dyn Runner>]) -> Result<Report, UnreadableError> {
    let recorded = json(&traces.join("cases.json"))?;
    let rows: Vec<&Value> = recorded.as_array().into_iter().flatten().collect();
    let mut models: Vec<(&str, Vec<&Value>)> = Vec::new();
    if rows.iter().all(|row| row["model"].is_string()) {
        for row in rows {
            let cases = row["cases"].as_array().into_iter().flatten().collect();
            models.push((row["model"].as_str().unwrap_or_default(), cases));
        }
    } else {
        models.push((ONLY, rows));
    }
    let mut report = Report::default();
    for (name, cases) in models {
        let dir = model_folder(traces, data, name);
        for runner in runners {
            let loaded = dir.clone().and_then(|dir| runner.load(&dir, name));
            for (i, case) in cases.iter().enumerate() {
                let (prompt, theirs) = (ids(&case["prompt_ids"]), ids(&case["greedy_ids"]));
                let ours = loaded.as_ref().map_err(Clone::clone).and_then(|model| model.greedy(&prompt, theirs.len()));
                let same = ours.and_then(|ours| match ours {
                    Decoded::Ids(ours) => compare(&ours, &theirs, case),
                    Decoded::Text(text) => compare_text(&text, &theirs, case, dir.as_deref()),
                });
                let by = loaded.as_ref().ok().and_then(|model| model.stand_in());
                let by = by.map(|by| format!(" ({by})")).unwrap_or_default();
                report.add(format!("{}{by}, {name} {i}", runner.name()), same);
            }
        }
    }
    Ok(report)
}

/// A server that gives no ids is held to the text.
fn compare_text(ours: &str, theirs: &[u32], case: &Value, dir: Result<&Path, &String>) -> Result<(), String> {
    let vocabulary = Vocabulary::read(dir.map_err(Clone::clone)?).map_err(|e| e.to_string())?;
    let theirs = vocabulary.decode(theirs);
    if ours == theirs || gap(case) < GAP { Ok(()) } else { Err(format!("text is {ours:?}, recorded is {theirs:?}")) }
}

fn compare(ours: &[u32], theirs: &[u32], case: &Value) -> Result<(), String> {
    if ours == theirs || gap(case) < GAP {
        return Ok(());
    }
    let at = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
    Err(format!("id {at} is {:?}, recorded is {:?}", ours.get(at), theirs.get(at)))
}

/// The smallest difference of a case's two best logits.
fn gap(case: &Value) -> f64 {
    case["min_top2_margin"].as_f64().or(case["smallest_gap"].as_f64()).unwrap_or(f64::INFINITY)
}
