//! LoRA adapters: `manifest.json` with their names, folders and the tensors that they change; a base; what these become, in F32.

use crate::saliency::json;
use crate::tolerance::Tolerance;
use crate::{Report, UnreadableError};
use rolegraft_checkpoint::{Location, Tensors, open_tensors};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// Largest difference, where a case names no other.
const TOLERANCE: f64 = 1e-6;
const EXPECTED: &str = "a manifest.json whose cases name an `adapter`, or folders that have one, is expected";

/// Applies every adapter recorded under `folder` to its base.
///
/// # Errors
/// If there are none, or a manifest cannot be read.
pub fn lora(folder: &Path) -> Result<Report, UnreadableError> {
    let mut report = Report::default();
    for set in crate::merge::with_folders(folder) {
        let path = set.join("manifest.json");
        if !path.exists() {
            continue;
        }
        let manifest = json(&path)?;
        let cases = manifest.as_array().map(Vec::as_slice).unwrap_or_default();
        for case in cases.iter().filter(|case| case["adapter"].is_string()) {
            let name = case["name"].as_str().unwrap_or("?");
            report.add(name.to_owned(), replay(&set, name, case));
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

fn replay(set: &Path, name: &str, case: &Value) -> Result<(), String> {
    let field = |key: &str, otherwise: &str| set.join(case[key].as_str().unwrap_or(otherwise));
    let location = Location { dir: field("base", "base"), adapter: Some(field("adapter", name)) };
    let ours = open_tensors(&location.path()).map_err(text)?;
    let base = Tensors::open(&location.dir).map_err(text)?;
    let expected = Tensors::open(field("expected", &format!("{name}.safetensors"))).map_err(text)?;
    let named = case["changed"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let changed: BTreeSet<&str> = named.chain(expected.tensors().map(|(tensor, _)| tensor)).collect();
    let tolerance = Tolerance::Absolute(case["tolerance"].as_f64().unwrap_or(TOLERANCE));
    for tensor in &changed {
        // A tied head is recorded by both of its names.
        let stands_for = |tensors: &Tensors| match tensors.tensor(tensor) {
            None if *tensor == "lm_head.weight" => "model.embed_tokens.weight",
            _ => tensor,
        };
        let (ours, theirs) = (ours.f32(stands_for(&ours)).map_err(text)?, expected.f32(tensor).map_err(text)?);
        if ours.len() != theirs.len() {
            return Err(format!("`{tensor}` has {} values, recorded are {}", ours.len(), theirs.len()));
        }
        if let Some(at) = ours.iter().zip(&theirs).position(|(a, b)| !tolerance.accepts(*a, *b)) {
            return Err(format!("`{tensor}`, value {at}: {}, recorded is {}", ours[at], theirs[at]));
        }
    }
    for (tensor, _) in base.tensors().filter(|(tensor, _)| !changed.contains(tensor)) {
        if ours.f32(tensor).map_err(text)? != base.f32(tensor).map_err(text)? {
            return Err(format!("`{tensor}` is changed, recorded is that it is not"));
        }
    }
    Ok(())
}
