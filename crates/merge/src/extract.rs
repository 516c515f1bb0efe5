//! A fine-tuned checkpoint as a LoRA adapter to its base: the nearest one of a rank, map by map.
//!
//! Δ = W − W₀ (out, in) of every linear map of a layer, Δ ≈ B A by the r largest singular values (Eckart and Young), both factors with the
//! square root of these: the adapter's α is r. What is no linear map of a layer and differs (embedding, head, norms) is saved whole,
//! biases of maps with it.

use crate::MergeError;
use crate::model::{HEAD, Model, is_vocabulary, layer_of};
use faer::{Mat, MatRef, Side};
use rolegraft_checkpoint::{Dtype, Header, Scratch, WriteError, folder};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// What became of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Extracted {
    /// Its name.
    pub tensor: String,
    /// The rank of its adapter; nothing where it is saved whole.
    pub rank: Option<usize>,
    /// ‖Δ − BA‖ / ‖Δ‖.
    pub error: f64,
    /// The largest difference.
    pub max_abs: f64,
}

/// An adapter's tensors before they are written.
#[derive(Default)]
struct Parts {
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
    targets: BTreeSet<String>,
    saved: BTreeSet<String>,
    biases: bool,
}

impl Parts {
    fn add(&mut self, name: String, dtype: Dtype, shape: Vec<usize>, bytes: Vec<u8>) {
        self.tensors.push((format!("base_model.model.{name}"), dtype, shape, bytes));
    }
}

fn read(model: &Model, tensor: &str) -> Result<Vec<f32>, MergeError> {
    model.tensors.f32(tensor).map_err(|source| MergeError::Model { model: model.name.clone(), source })
}

/// Writes the adapter of at most a rank that is nearest to what `tuned` changed of `base`, as PEFT reads it. `progress` is told
/// how many tensors are done, and of how many.
///
/// # Errors
/// If the checkpoints differ in shape, nothing differs, `out` is there, or the disk refuses.
pub fn extract_adapter(
    base: &Model,
    tuned: &Model,
    rank: usize,
    out: &Path,
    stop: &AtomicBool,
    progress: &dyn Fn(usize, usize),
) -> Result<Vec<Extracted>, MergeError> {
    if std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) || out.is_file() {
        let why = "is there already and not empty; remove it, or give another place";
        return Err(MergeError::File { path: out.to_owned(), reason: why.into() });
    }
    faer::set_global_parallelism(faer::Par::rayon(0));
    let names: Vec<String> = tuned.tensors.tensors().map(|(name, _)| name.to_owned()).collect();
    let (mut parts, mut all) = (Parts::default(), Vec::new());
    for (done, name) in names.iter().enumerate() {
        if stop.load(Ordering::Relaxed) {
            return Err(MergeError::Interrupted);
        }
        all.extend(one(base, tuned, name, rank, &mut parts)?);
        progress(done + 1, names.len());
    }
    if all.is_empty() {
        return Err(MergeError::Recipe(format!("`{}` is `{}`: there is nothing to extract", tuned.name, base.name)));
    }
    save_alike(tuned, &mut parts)?;
    write(base, rank, &mut parts, out)?;
    Ok(all)
}

fn one(
    base: &Model,
    tuned: &Model,
    name: &str,
    rank: usize,
    parts: &mut Parts,
) -> Result<Option<Extracted>, MergeError> {
    let tensor = tuned.tensors.tensor(name).filter(|tensor| tensor.dtype.is_float());
    let Some(tensor) = tensor else { return Ok(None) };
    let stands_for =
        base.stand_in(name).ok_or_else(|| MergeError::tensor(name, format!("`{}` does not have it", base.name)))?;
    let like = base.tensors.tensor(&stands_for).map(|t| t.shape).unwrap_or_default();
    if like != tensor.shape {
        let (ours, theirs) = (&tensor.shape, &base.name);
        return Err(MergeError::tensor(
            name,
            format!("its shape is {ours:?}, but {like:?} in `{theirs}`; they are no pair"),
        ));
    }
    let (ours, theirs) = (read(tuned, name)?, read(base, &stands_for)?);
    if ours == theirs {
        return Ok(None);
    }
    let module = name.strip_suffix(".weight").or_else(|| name.strip_suffix(".bias")).unwrap_or(name);
    let is_map =
        tensor.shape.len() == 2 && name.ends_with(".weight") && layer_of(name).is_some() && !is_vocabulary(name);
    if is_map {
        let change: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect();
        let factors = factors(&change, (tensor.shape[0], tensor.shape[1]), rank);
        let (b, a) = factors.ok_or_else(|| MergeError::tensor(name, "its eigenvalues cannot be computed"))?;
        let (mut missed, mut whole, mut max_abs) = (0.0, 0.0, 0.0_f64);
        let product = &b * &a;
        for (at, change) in change.iter().enumerate() {
            let off = change - product[(at / tensor.shape[1], at % tensor.shape[1])];
            (missed, whole, max_abs) = (missed + off * off, whole + change * change, max_abs.max(off.abs()));
        }
        let bytes = |matrix: &Mat<f64>| -> Vec<u8> {
            let row = |row: usize| (0..matrix.ncols()).map(move |column| matrix[(row, column)] as f32);
            (0..matrix.nrows()).flat_map(row).flat_map(f32::to_le_bytes).collect()
        };
        parts.targets.insert(module.rsplit('.').next().unwrap_or(module).to_owned());
        parts.add(format!("{module}.lora_A.weight"), Dtype::F32, vec![a.nrows(), a.ncols()], bytes(&a));
        parts.add(format!("{module}.lora_B.weight"), Dtype::F32, vec![b.nrows(), b.ncols()], bytes(&b));
        let error = (missed / whole).sqrt();
        return Ok(Some(Extracted { tensor: name.to_owned(), rank: Some(a.nrows()), error, max_abs }));
    }
    if name.ends_with(".bias") && layer_of(name).is_some() {
        parts.biases = true;
    } else {
        let last = layer_of(module).map_or(module, |(.., after)| after.trim_start_matches('.'));
        parts.saved.insert(last.to_owned());
    }
    Ok(Some(Extracted { tensor: name.to_owned(), rank: None, error: 0.0, max_abs: 0.0 }))
}

/// B (out, r) and A (r, in) of the largest singular values of a matrix (out, in).
fn factors(change: &[f64], (outputs, inputs): (usize, usize), rank: usize) -> Option<(Mat<f64>, Mat<f64>)> {
    let change = MatRef::from_row_major_slice(change, outputs, inputs);
    let tall = outputs > inputs;
    // Of the smaller side; its eigenvectors are singular vectors.
    let square = if tall { change.transpose() * change } else { change * change.transpose() };
    let eigen = square.self_adjoint_eigen(Side::Lower).ok()?;
    let (width, rank) = (square.nrows(), rank.min(square.nrows()));
    let vectors = Mat::from_fn(width, rank, |row, at| eigen.U()[(row, width - 1 - at)]);
    let (mut b, mut a) = if tall {
        (change * &vectors, vectors.transpose().to_owned())
    } else {
        (vectors.clone(), vectors.transpose() * change)
    };
    for at in 0..rank {
        // Singular values are the lengths of what is projected.
        let value = if tall { b.col(at).norm_l2() } else { a.row(at).norm_l2() };
        let root = value.sqrt();
        let (of_b, of_a) = if tall {
            (if value > 0.0 { 1.0 / root } else { 0.0 }, root)
        } else {
            (root, if value > 0.0 { 1.0 / root } else { 0.0 })
        };
        b.col_mut(at).iter_mut().for_each(|x| *x *= of_b);
        a.row_mut(at).iter_mut().for_each(|x| *x *= of_a);
    }
    Some((b, a))
}

/// PEFT saves all modules of a name, so all of them are written.
fn save_alike(tuned: &Model, parts: &mut Parts) -> Result<(), MergeError> {
    let saved = |name: &str| {
        let module = name.strip_suffix(".weight").or_else(|| name.strip_suffix(".bias")).unwrap_or(name);
        parts.saved.iter().any(|saved| module == saved || module.ends_with(&format!(".{saved}")))
    };
    let bias = |name: &str| {
        let module = name.strip_suffix(".bias").unwrap_or_default();
        parts.biases && parts.targets.contains(module.rsplit('.').next().unwrap_or_default())
    };
    let names: Vec<String> = tuned.tensors.tensors().map(|(name, _)| name.to_owned()).collect();
    let wanted: Vec<(String, String)> = names
        .into_iter()
        .filter_map(|name| match (saved(&name), bias(&name)) {
            (true, _) => Some((name.clone(), name)),
            (_, true) => Some((name.clone(), name.replace(".bias", ".base_layer.bias"))),
            _ => None,
        })
        .collect();
    let tied = tuned.tensors.tensor(HEAD).is_none();
    for (name, place) in wanted {
        let Some(tensor) = tuned.tensors.tensor(&name) else { continue };
        let mut bytes = vec![0; tensor.dtype.size() * tensor.shape.iter().product::<usize>()];
        let of = |source| MergeError::Model { model: tuned.name.clone(), source };
        tuned.tensors.read(&name, 0, &mut bytes).map_err(of)?;
        if tied && name.ends_with("embed_tokens.weight") {
            parts.add(HEAD.to_owned(), tensor.dtype, tensor.shape.clone(), bytes.clone());
        }
        parts.add(place, tensor.dtype, tensor.shape, bytes);
    }
    Ok(())
}

fn write(base: &Model, rank: usize, parts: &mut Parts, out: &Path) -> Result<(), MergeError> {
    parts.tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let layout: Vec<_> =
        parts.tensors.iter().map(|(name, dtype, shape, _)| (name.clone(), *dtype, shape.clone())).collect();
    let mut bytes = Header::encode_with(&layout, &[("format".to_owned(), "pt".to_owned())].into());
    parts.tensors.drain(..).for_each(|(.., tensor)| bytes.extend(tensor));
    let ranks = layout.iter().filter(|(name, ..)| name.ends_with(".lora_A.weight")).map(|(.., shape)| shape[0]);
    let rank = ranks.max().unwrap_or(rank);
    let tied = base.tensors.tensor(HEAD).is_none();
    let config = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base.title(), "inference_mode": true,
        "r": rank, "lora_alpha": rank, "lora_dropout": 0.0, "fan_in_fan_out": false, "init_lora_weights": true,
        "bias": if parts.biases { "lora_only" } else { "none" },
        // Where a map is smaller than the rank, its own.
        "rank_pattern": smaller(&layout, rank), "alpha_pattern": smaller(&layout, rank),
        "target_modules": parts.targets, "modules_to_save": if parts.saved.is_empty() { None } else { Some(&parts.saved) },
        "ensure_weight_tying": tied && parts.saved.iter().any(|name| name.ends_with("embed_tokens")),
    });
    let write = || {
        std::fs::create_dir_all(folder(out))?;
        let scratch = Scratch::create(out)?;
        std::fs::write(scratch.path().join("adapter_model.safetensors"), &bytes)?;
        std::fs::write(scratch.path().join("adapter_config.json"), format!("{config:#}\n"))?;
        scratch.persist()
    };
    write().map_err(|e| WriteError::at(out)(e).into())
}

/// Modules of less than the rank.
fn smaller(layout: &[(String, Dtype, Vec<usize>)], rank: usize) -> serde_json::Map<String, serde_json::Value> {
    let of = |(name, _, shape): &(String, Dtype, Vec<usize>)| {
        let module = name.strip_prefix("base_model.model.")?.strip_suffix(".lora_A.weight")?;
        (shape[0] < rank).then(|| (module.replace('.', r"\."), shape[0].into()))
    };
    layout.iter().filter_map(of).collect()
}
