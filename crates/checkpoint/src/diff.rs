//! Comparing the tensors of two checkpoints, number by number.

use crate::{OpenError, Tensor, Tensors};
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How one tensor differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The tensor.
    pub tensor: String,
    /// In what way.
    pub kind: DifferenceKind,
}

/// Ways to differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DifferenceKind {
    /// Only the first has it.
    Missing,
    /// Only the second has it.
    Extra,
    /// Shapes differ; values are not compared.
    Shape {
        /// In the first.
        a: Vec<usize>,
        /// In the second.
        b: Vec<usize>,
    },
    /// Both have it.
    Values {
        /// Elements.
        elements: usize,
        /// Elements that are not equal.
        differing: usize,
        /// Largest |a − b|; infinite where one is NaN and the other is not.
        max_abs: f64,
        /// Largest |a − b| / max(|a|, |b|).
        max_rel: f64,
        /// Element types, where they differ.
        dtypes: Option<(String, String)>,
    },
}

impl DifferenceKind {
    /// Whether it goes beyond a tolerance on |a − b|.
    #[must_use]
    pub fn exceeds(&self, tolerance: f64) -> bool {
        match self {
            Self::Values { max_abs, .. } => *max_abs > tolerance,
            _ => true,
        }
    }
}

/// Bytes of a tensor compared at a time.
const CHUNK: usize = 1 << 18;

/// Compares all tensors of two checkpoints, by name; all cores are used, memory is bounded.
///
/// # Errors
/// If a tensor cannot be read.
pub fn diff(a: &Tensors, b: &Tensors) -> Result<Vec<Difference>, OpenError> {
    let names: BTreeSet<&str> = a.tensors().chain(b.tensors()).map(|(name, _)| name).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let found: Mutex<Vec<(usize, Result<Difference, OpenError>)>> = Mutex::default();
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(name) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    names.get(at).map(|name| (at, *name))
                } {
                    let (at, name) = name;
                    let difference = compare(a, b, name).map(|kind| Difference { tensor: name.to_owned(), kind });
                    found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((at, difference));
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, difference)| difference).collect()
}

fn compare(a: &Tensors, b: &Tensors, name: &str) -> Result<DifferenceKind, OpenError> {
    let (first, second) = match (a.tensor(name), b.tensor(name)) {
        (Some(first), Some(second)) => (first, second),
        (Some(_), None) => return Ok(DifferenceKind::Missing),
        _ => return Ok(DifferenceKind::Extra),
    };
    if first.shape != second.shape {
        return Ok(DifferenceKind::Shape { a: first.shape, b: second.shape });
    }
    let elements = first.shape.iter().product::<usize>();
    let (mut differing, mut max_abs, mut max_rel) = (0, 0f64, 0f64);
    for at in (0..elements).step_by(CHUNK / 8) {
        let len = (elements - at).min(CHUNK / 8);
        let (x, y) = (values(a, name, &first, at, len)?, values(b, name, &second, at, len)?);
        for (x, y) in x.iter().zip(&y) {
            if x == y || (x.is_nan() && y.is_nan()) {
                continue;
            }
            let off = (x - y).abs();
            let off = if off.is_nan() { f64::INFINITY } else { off };
            differing += 1;
            max_abs = max_abs.max(off);
            max_rel = max_rel.max(off / x.abs().max(y.abs()));
        }
    }
    let same = first.dtype == second.dtype;
    let dtypes = (!same).then(|| (first.dtype.as_str().to_owned(), second.dtype.as_str().to_owned()));
    Ok(DifferenceKind::Values { elements, differing, max_abs, max_rel, dtypes })
}

/// Some elements as numbers.
fn values(tensors: &Tensors, name: &str, tensor: &Tensor, at: usize, len: usize) -> Result<Vec<f64>, OpenError> {
    let size = tensor.dtype.size();
    let mut bytes = vec![0; len * size];
    tensors.read(name, (at * size) as u64, &mut bytes)?;
    Ok(match tensor.dtype.to_f32(&bytes) {
        Some(values) => values.into_iter().map(f64::from).collect(),
        // Integers, little-endian; sign does not matter for being equal, and ids and masks are positive.
        None => bytes
            .chunks_exact(size)
            .map(|b| b.iter().rev().fold(0u64, |n, byte| n << 8 | u64::from(*byte)) as f64)
            .collect(),
    })
}

/// A tensor's name with `*` for the layer: what all layers have in common.
#[must_use]
pub fn module_of(tensor: &str) -> String {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    tensor.split('.').map(|part| if number(part) { "*" } else { part }).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dtype, Header};
    use std::path::Path;

    fn file(dir: &Path, name: &str, tensors: &[(&str, &[f32])]) -> Tensors {
        let layout: Vec<_> = tensors.iter().map(|(n, v)| ((*n).to_owned(), Dtype::F32, vec![v.len()])).collect();
        let mut bytes = Header::encode(&layout);
        tensors.iter().for_each(|(_, v)| bytes.extend(v.iter().flat_map(|v| v.to_le_bytes())));
        std::fs::write(dir.join(name), bytes).unwrap();
        Tensors::open(dir.join(name)).unwrap()
    }

    #[test]
    fn every_way_to_differ_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let a = file(
            dir.path(),
            "a",
            &[("gone", &[1.0]), ("long", &[1.0, 2.0]), ("same", &[f32::NAN]), ("w", &[1.0, 2.0, 4.0])],
        );
        let b =
            file(dir.path(), "b", &[("long", &[1.0]), ("new", &[1.0]), ("same", &[f32::NAN]), ("w", &[1.0, 2.5, 3.0])]);
        let found = diff(&a, &b).unwrap();
        let kinds: Vec<_> = found.iter().map(|d| (d.tensor.as_str(), d.kind.clone())).collect();
        let values = |elements, differing, max_abs, max_rel| DifferenceKind::Values {
            elements,
            differing,
            max_abs,
            max_rel,
            dtypes: None,
        };
        assert_eq!(
            kinds,
            [
                ("gone", DifferenceKind::Missing),
                ("long", DifferenceKind::Shape { a: vec![2], b: vec![1] }),
                ("new", DifferenceKind::Extra),
                ("same", values(1, 0, 0.0, 0.0)),
                ("w", values(3, 2, 1.0, 0.25)),
            ]
        );
        assert!(!found[3].kind.exceeds(0.0) && found[4].kind.exceeds(0.9) && !found[4].kind.exceeds(1.0));
        assert_eq!(module_of("model.layers.12.mlp.up_proj.weight"), "model.layers.*.mlp.up_proj.weight");
    }
}
