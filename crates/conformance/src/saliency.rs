//! Saliency as PyTorch recorded it.

use crate::{Report, UnreadableError};
use rolegraft_checkpoint::{Architecture, Checkpoint, Header};
use rolegraft_decoder::{Decoder, DeviceName, Place, Precision};
use rolegraft_saliency::{NeuronSet, Saliency, Tracing, Trajectory, aos, trace_as};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const EXPECTED: &str = "a folder with cases.json, and expected.safetensors or saliency.safetensors";
/// Largest relative difference of a saliency or a logit; below [`FLOOR`], of this.
const TOLERANCE: f64 = 1e-4;
const FLOOR: f64 = 1e-6;

/// Recorded tensors by name, in F32.
type Tensors = BTreeMap<String, Vec<f32>>;

/// Replays recorded traces. `data` is where model folders are that do not lie beside the recordings; `device` is
/// where models are traced.
///
/// # Errors
/// If there are no recordings, or the device is not there.
pub fn saliency(traces: &Path, data: Option<&Path>, device: DeviceName) -> Result<Report, UnreadableError> {
    let place = Place::open(device, Precision::F32).map_err(|e| UnreadableError::Data(e.into()))?;
    let cases = json(&traces.join("cases.json"))?;
    let mut report = Report::default();
    let models = |name: &str| model_folder(traces, data, name);
    if traces.join("expected.safetensors").exists() {
        by_role(&cases, &tensors(&traces.join("expected.safetensors"))?, &models, &place, &mut report);
    } else {
        by_length(&cases, &tensors(&traces.join("saliency.safetensors"))?, &models, &place, &mut report);
    }
    Ok(report)
}

/// The folder of a recording's model: beside the recording, or in the folder of models.
pub(crate) fn model_folder(traces: &Path, data: Option<&Path>, name: &str) -> Result<PathBuf, String> {
    // Some recordings are of models that lie with the recorded merges.
    let merged = |folder: &Path| folder.join("merge-golden/f32");
    let places = [Some(traces.to_owned()), data.map(Path::to_owned), data.map(merged), traces.parent().map(merged)];
    let found =
        places.into_iter().flatten().map(|folder| folder.join(name)).find(|dir| dir.join("config.json").exists());
    found
        .ok_or_else(|| format!("no folder of model `{name}` beside the recording, nor in the folder given with --data"))
}

/// A recording's JSON.
pub(crate) fn json(path: &Path) -> Result<Value, UnreadableError> {
    let read = std::fs::read(path).map_err(|source| UnreadableError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&read)
        .map_err(|e| UnreadableError::Format { path: path.to_owned(), reason: format!("{e}; {EXPECTED} is expected") })
}

fn tensors(path: &Path) -> Result<Tensors, UnreadableError> {
    let bytes = std::fs::read(path).map_err(|source| UnreadableError::Read { path: path.to_owned(), source })?;
    let wrong = |reason: String| UnreadableError::Format { path: path.to_owned(), reason };
    let header = Header::parse(&bytes, bytes.len() as u64).map_err(|e| wrong(e.to_string()))?;
    let one = |t: &rolegraft_checkpoint::TensorInfo| {
        let values = bytes.get(t.start as usize..t.end as usize).and_then(|bytes| t.dtype.to_f32(bytes));
        Ok((t.name.clone(), values.ok_or_else(|| wrong(format!("tensor `{}` is not of numbers", t.name)))?))
    };
    header.tensors.iter().map(one).collect()
}

pub(crate) fn ids(value: &Value) -> Vec<u32> {
    value.as_array().into_iter().flatten().filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect()
}

fn positions(value: &Value) -> Vec<usize> {
    ids(value).into_iter().map(|id| id as usize).collect()
}

fn close(ours: impl Iterator<Item = f64>, theirs: Option<&Vec<f32>>) -> Result<(), String> {
    let theirs = theirs.ok_or("it is not in the recording")?;
    let ours: Vec<f64> = ours.collect();
    if ours.len() != theirs.len() {
        return Err(format!("{} values, recorded are {}", ours.len(), theirs.len()));
    }
    let mut pairs = ours.iter().zip(theirs).map(|(a, b)| (*a, f64::from(*b))).enumerate();
    let apart = |a: f64, b: f64| (a - b).abs() > TOLERANCE * b.abs().max(FLOOR) || (a - b).is_nan();
    match pairs.find(|(_, (a, b))| apart(*a, *b)) {
        Some((at, (a, b))) => Err(format!("value {at}: {a}, recorded is {b}")),
        None => Ok(()),
    }
}

/// One set of trajectories for all models, role tokens and all tokens, salient sets and their overlap.
fn by_role(
    cases: &Value,
    expected: &Tensors,
    folder: &dyn Fn(&str) -> Result<PathBuf, String>,
    place: &Place,
    report: &mut Report,
) {
    let rows = || cases["trajectories"].as_array().into_iter().flatten();
    let runs = |all: bool| -> Vec<Trajectory> {
        let one = |row: &Value| {
            let ids = ids(&row["input_ids"]);
            let role = if all { (0..ids.len() as u32).collect() } else { self::ids(&row["role_positions"]) };
            vec![(ids, role)]
        };
        rows().map(one).collect()
    };
    let names: BTreeSet<&str> = expected.keys().filter_map(|key| key.strip_suffix(".saliency")).collect();
    let mut traced: BTreeMap<&str, Saliency> = BTreeMap::new();
    for name in names {
        let checkpoint = match folder(name).and_then(|dir| Checkpoint::open(dir).map_err(|e| e.to_string())) {
            Ok(checkpoint) => checkpoint,
            Err(reason) => {
                report.skipped.push(format!("{name}: {reason}"));
                continue;
            }
        };
        let mut compared = |what: &str, all: bool| {
            let outcome = trace_as(&on(place), &checkpoint, &runs(all)).map_err(|e| e.to_string());
            let key = format!("{name}.{what}");
            let verdict = outcome
                .as_ref()
                .map_err(Clone::clone)
                .and_then(|ours| close(ours.mean().into_iter().flatten(), expected.get(&key)));
            report.add(key, verdict);
            outcome.ok()
        };
        compared("saliency_all_tokens", true);
        if let Some(ours) = compared("saliency", false) {
            traced.insert(name, ours);
        }
        let key = format!("{name}.last_logits");
        let last = rows().next_back().map(|row| ids(&row["input_ids"])).unwrap_or_default();
        report.add(
            key.clone(),
            logits(&checkpoint, &last, place).and_then(|ours| close(ours.into_iter(), expected.get(&key))),
        );
    }
    for (key, recorded) in cases["salient_sets"].as_object().into_iter().flatten() {
        let Some((name, k)) = key.split_once('@') else { continue };
        let (Some(ours), Ok(k)) = (traced.get(name), k.parse::<f64>()) else { continue };
        let layers = recorded.as_array().into_iter().flatten().map(|layer| positions(layer).into_iter().collect());
        report.add(format!("set {key}"), same_set(ours, k, &NeuronSet { layers: layers.collect() }));
    }
    for (key, recorded) in cases["aos"].as_object().into_iter().flatten() {
        let Some((pair, k)) = key.split_once('@') else { continue };
        let (Some((a, b)), Ok(k)) = (pair.split_once('|'), k.parse::<f64>()) else { continue };
        let (Some(a), Some(b)) = (traced.get(a), traced.get(b)) else { continue };
        let (ours, theirs) = (aos(&a.top(k), &b.top(k)), recorded.as_f64().unwrap_or(f64::NAN));
        let outcome = if (ours - theirs).abs() < 1e-9 { Ok(()) } else { Err(format!("{ours}, recorded is {theirs}")) };
        report.add(format!("aos {key}"), outcome);
    }
}

/// Sets may differ where two saliencies are closer than the tolerance.
fn same_set(ours: &Saliency, k: f64, recorded: &NeuronSet) -> Result<(), String> {
    let set = ours.top(k);
    let differ = set.difference(recorded).union(&recorded.difference(&set));
    for (layer, neurons) in differ.layers.iter().enumerate() {
        let values = ours.sums.get(layer);
        let edge = set.layers.get(layer).into_iter().flatten().filter_map(|j| values?.get(*j)).copied();
        let edge = edge.fold(f64::INFINITY, f64::min);
        let tied =
            |j: &usize| values.and_then(|v| v.get(*j)).is_some_and(|v| (v - edge).abs() <= TOLERANCE * edge.abs());
        if let Some(neuron) = neurons.iter().find(|j| !tied(j)) {
            return Err(format!("layer {layer}, neuron {neuron} is in one of the sets alone"));
        }
    }
    Ok(())
}

/// Logits after the last of some ids, in two steps with a cache between.
fn logits(checkpoint: &Checkpoint, ids: &[u32], place: &Place) -> Result<Vec<f64>, String> {
    let decoder = Decoder::load(checkpoint, place).map_err(|e| e.to_string())?;
    let mut cache = decoder.cache();
    let (first, rest) = ids.split_at(ids.len().min(5));
    decoder.forward(first, &mut cache).map_err(|e| e.to_string())?;
    let logits = decoder.forward(rest, &mut cache).map_err(|e| e.to_string())?;
    Ok(logits.into_iter().map(f64::from).collect())
}

/// A trace at some place.
fn on(place: &Place) -> Tracing<'static> {
    Tracing { place: place.clone(), ..Tracing::unbounded() }
}

/// Each model's own prompts, known by their length.
fn by_length(
    cases: &Value,
    expected: &Tensors,
    folder: &dyn Fn(&str) -> Result<PathBuf, String>,
    place: &Place,
    report: &mut Report,
) {
    for model in cases.as_array().into_iter().flatten() {
        let name = model["model"].as_str().unwrap_or_default();
        let checkpoint = folder(name).and_then(|dir| Checkpoint::open(dir).map_err(|e| e.to_string()));
        for case in model["cases"].as_array().into_iter().flatten() {
            let ids = ids(&case["prompt_ids"]);
            let key = format!("{name}.{}", ids.len());
            let role = match self::ids(&case["role_positions"]).as_slice() {
                [first, last] => (*first..=*last).collect(),
                _ => Vec::new(),
            };
            let runs = [vec![(ids, role)]];
            let agrees = |cast: bool| {
                let checkpoint = checkpoint.as_ref().map_err(Clone::clone)?;
                let mut architecture = Architecture::of(checkpoint).map_err(|e| e.to_string())?;
                architecture.rope.cast = cast;
                let tracing = Tracing { architecture: Some(architecture), ..on(place) };
                let ours = trace_as(&tracing, checkpoint, &runs).map_err(|e| e.to_string())?;
                close(ours.mean().into_iter().flatten(), expected.get(&key))
            };
            let plain = agrees(false);
            // Recorded of a model that was cast to BF16 before its weights were saved: its rotary frequencies, which are not
            // saved, were cast with them.
            if plain.is_err() && agrees(true).is_ok() {
                report.add(format!("{key} (recorded with rotary frequencies in BF16)"), Ok(()));
            } else {
                report.add(key, plain);
            }
        }
    }
}
