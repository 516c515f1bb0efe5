//! Greedy decoding as transformers recorded it, under both engines.

use crate::saliency::{ids, json, model_folder};
use crate::{ConformanceError, Report};
use rolegraft_checkpoint::Checkpoint;
use rolegraft_saliency::Decoder;
use rolegraft_serve::InProcess;
use rolegraft_trajectory::ChatArguments;
use serde_json::Value;
use std::path::Path;
use tokio::runtime::Runtime;

/// Where the two best logits came closer than this, another engine may rightly pick the other.
const GAP: f64 = 1e-3;
/// The model's folder in recordings of one model.
const ONLY: &str = "model";

/// Replays recorded decodings: `cases.json`, a list of cases of the model in `model/`, or of models with their cases.
/// `data` is where model folders are that do not lie beside the recordings.
///
/// # Errors
/// If there are no recordings, or the asynchronous runtime does not start.
pub fn engine(traces: &Path, data: Option<&Path>) -> Result<Report, ConformanceError> {
    let recorded = json(&traces.join("cases.json"))?;
    let runtime = Runtime::new().map_err(|e| ConformanceError::Data(Box::new(e)))?;
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
        let checkpoint = dir.clone().and_then(|dir| Checkpoint::open(dir).map_err(|e| e.to_string()));
        let candle = checkpoint.and_then(|checkpoint| Decoder::load(&checkpoint).map_err(|e| e.to_string()));
        let mistralrs = dir.and_then(|dir| {
            let opened = runtime.block_on(InProcess::open(&dir, 1, &ChatArguments::default()));
            opened.map_err(|e| e.to_string())
        });
        for (i, case) in cases.iter().enumerate() {
            let (prompt, theirs) = (ids(&case["prompt_ids"]), ids(&case["greedy_ids"]));
            let ours = candle.as_ref().map_err(Clone::clone).and_then(|decoder| greedy(decoder, &prompt, theirs.len()));
            report.add(format!("candle, {name} {i}"), ours.and_then(|ours| compare(&ours, &theirs, case)));
            let ours = mistralrs
                .as_ref()
                .map_err(Clone::clone)
                .and_then(|served| runtime.block_on(served.greedy(&prompt, theirs.len())).map_err(|e| e.to_string()));
            report.add(format!("mistralrs, {name} {i}"), ours.and_then(|ours| compare(&ours, &theirs, case)));
        }
    }
    Ok(report)
}

/// The likeliest ids after a prompt.
fn greedy(decoder: &Decoder, prompt: &[u32], count: usize) -> Result<Vec<u32>, String> {
    let (mut cache, mut next, mut ids) = (decoder.cache(), prompt.to_vec(), Vec::new());
    while ids.len() < count {
        let logits = decoder.forward(&next, &mut cache).map_err(|e| e.to_string())?;
        let best = (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best }) as u32;
        ids.push(best);
        next = vec![best];
    }
    Ok(ids)
}

fn compare(ours: &[u32], theirs: &[u32], case: &Value) -> Result<(), String> {
    let gap = case["min_top2_margin"].as_f64().or(case["smallest_gap"].as_f64()).unwrap_or(f64::INFINITY);
    if ours == theirs || gap < GAP {
        return Ok(());
    }
    let at = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
    Err(format!("id {at} is {:?}, recorded is {:?}", ours.get(at), theirs.get(at)))
}
