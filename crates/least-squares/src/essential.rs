//! ESM: task vectors' parts along what moves outputs most, made orthogonal (arXiv 2602.20208;
//! kiddo127/ESM@fc82fe7:ESM-RoBERTa/merge.py).
//!
//! Δᵢ (out, in) is expert i's task vector, G = E[x xᵀ] of its own inputs. Eᵢ holds the eigenvectors of Δᵢ G Δᵢᵀ of the k = ⌊out/N⌋ largest
//! eigenvalues λ; g = (λ / mean λ)^0.15, divided by its mean. U stacks the columns of Eᵢ g, V the rows of g Eᵢᵀ Δᵢ, of all experts; for
//! M = P Σ Qᵀ, w(M) = mean(Σ) P Qᵀ: Δ = w(U) w(V), times (‖Δ‖ / mean ‖Δ‖)² over the layers' maps of its kind: W = W₀ + α Δ.
//!
//! Upstream searches α on tasks and makes embeddings of their singular vectors; here α is what the recipe says and all but the linear
//! maps is the rest's. Directions of no length are left out, which upstream fills with whatever its decomposition gives.

use crate::error::{LeastSquaresError, Result};
use crate::gram::Gram;
use crate::solve::add_product;
use crate::target::{Target, weight_of};
use faer::{Mat, MatRef, Scale, Side};
use rolegraft_checkpoint::{Architecture, Map};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// What is less, as a share of the largest, is rounding.
const NOTHING: f64 = 1e-7;
/// The power of eigenvalues.
const POWER: f64 = 0.15;

/// One expert's part in a map: (out, k) and (k, in).
pub(crate) struct Part {
    outputs: Mat<f64>,
    inputs: Mat<f64>,
}

impl Part {
    /// Of a task vector Δᵀ, (in, out) column after column, of one of `experts` experts. Nothing where it moves nothing.
    pub(crate) fn new(gram: &Gram, change: &[f64], experts: usize) -> Option<Self> {
        let (width, outputs) = (gram.width, change.len() / gram.width);
        let transposed = MatRef::from_column_major_slice(change, width, outputs);
        let mut seen = vec![0.0; change.len()];
        add_product(&mut seen, gram, change, 1.0);
        let square = transposed.transpose() * MatRef::from_column_major_slice(&seen, width, outputs);
        let eigen = square.self_adjoint_eigen(Side::Lower).ok()?;
        let taken = (outputs / experts).max(1);
        // Ascending.
        let values: Vec<f64> = (0..taken).map(|at| eigen.S()[outputs - 1 - at].max(0.0)).collect();
        let mean = values.iter().sum::<f64>() / taken as f64;
        if mean <= 0.0 {
            return None;
        }
        let powers: Vec<f64> = values.iter().map(|value| (value / mean).powf(POWER)).collect();
        let mean = powers.iter().sum::<f64>() / taken as f64;
        let basis = Mat::from_fn(outputs, taken, |row, at| eigen.U()[(row, outputs - 1 - at)]);
        let mut inputs = basis.transpose() * transposed.transpose();
        let mut basis = basis;
        for (at, power) in powers.iter().enumerate() {
            basis.col_mut(at).iter_mut().for_each(|value| *value *= power / mean);
            inputs.row_mut(at).iter_mut().for_each(|value| *value *= power / mean);
        }
        Some(Self { outputs: basis, inputs })
    }
}

/// Δᵀ of all experts' parts, (in, out) column after column; nothing if it cannot be computed.
pub(crate) fn join(parts: &[Part], (inputs, outputs): (usize, usize)) -> Option<Vec<f32>> {
    let stacked: usize = parts.iter().map(|part| part.outputs.ncols()).sum();
    if stacked == 0 {
        return Some(vec![0.0; inputs * outputs]);
    }
    let (mut left, mut right) = (Mat::<f64>::zeros(outputs, stacked), Mat::<f64>::zeros(stacked, inputs));
    let mut at = 0;
    for part in parts {
        let taken = part.outputs.ncols();
        left.subcols_mut(at, taken).copy_from(&part.outputs);
        right.subrows_mut(at, taken).copy_from(&part.inputs);
        at += taken;
    }
    let joined = whitened(&left)? * whitened(&right)?;
    Some((0..outputs).flat_map(|row| joined.row(row).iter().map(|value| *value as f32).collect::<Vec<_>>()).collect())
}

/// The nearest matrix all of whose singular values are 1, times their mean.
fn whitened(matrix: &Mat<f64>) -> Option<Mat<f64>> {
    let svd = matrix.thin_svd().ok()?;
    let values: Vec<f64> = svd.S().column_vector().iter().copied().collect();
    let (most, mean) = (values.first().copied().unwrap_or(0.0), values.iter().sum::<f64>() / values.len() as f64);
    let kept = values.iter().take_while(|value| **value > NOTHING * most).count();
    Some(svd.U().subcols(0, kept) * svd.V().subcols(0, kept).transpose() * Scale(mean))
}

/// Every layer's Δᵀ in F32, in a file of the bench until all are there.
pub(crate) struct Changes {
    file: File,
    path: PathBuf,
    maps: Vec<Map>,
    architecture: Architecture,
}

impl Changes {
    pub(crate) fn open(target: &Target<'_>, architecture: &Architecture, maps: Vec<Map>) -> Result<Self> {
        let path = target.bench.dir.join("changes");
        let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = opened.map_err(|source| LeastSquaresError::Scratch { path: path.clone(), source })?;
        Ok(Self { file, path, maps, architecture: architecture.clone() })
    }

    /// Where a map's lies, and its length in elements.
    fn place(&self, layer: usize, map: Map) -> (u64, usize) {
        let len = |map: &Map| self.architecture.widths(*map).0 * self.architecture.widths(*map).1;
        let of_layer: usize = self.maps.iter().map(len).sum();
        let before: usize = self.maps.iter().take_while(|other| **other != map).map(len).sum();
        ((size_of::<f32>() * (layer * of_layer + before)) as u64, len(&map))
    }

    pub(crate) fn write(&self, layer: usize, map: Map, change: &[f32]) -> Result<()> {
        let bytes: Vec<u8> = change.iter().flat_map(|value| value.to_le_bytes()).collect();
        let written = self.file.write_all_at(&bytes, self.place(layer, map).0).and_then(|()| self.file.sync_data());
        written.map_err(|source| LeastSquaresError::Scratch { path: self.path.clone(), source })
    }

    fn read(&self, layer: usize, map: Map) -> Result<Vec<f32>> {
        let (at, len) = self.place(layer, map);
        let mut bytes = vec![0; size_of::<f32>() * len];
        let read = self.file.read_exact_at(&mut bytes, at);
        read.map_err(|source| LeastSquaresError::Scratch { path: self.path.clone(), source })?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    /// Adds all to the base, which is the target's anchor: α Δ, times how its length stands to those of other layers.
    pub(crate) fn finish(self, scale: f64, target: &Target<'_>) -> Result<()> {
        let layers = self.architecture.num_hidden_layers;
        for map in &self.maps {
            let length = |layer| {
                let squares = self.read(layer, *map)?.into_iter().map(|value| f64::from(value).powi(2));
                Ok(squares.sum::<f64>().sqrt())
            };
            let lengths: Vec<f64> = (0..layers).map(length).collect::<Result<_>>()?;
            let mean = lengths.iter().sum::<f64>() / layers as f64;
            for (layer, length) in lengths.iter().enumerate() {
                let factor = if mean > 0.0 { scale * (length / mean).powi(2) } else { 0.0 };
                let tensor = weight_of(layer, *map);
                let base = target.anchor(&tensor)?;
                let change = self.read(layer, *map)?;
                let merged = base
                    .iter()
                    .zip(change)
                    .map(|(base, change)| (f64::from(*base) + factor * f64::from(change)) as f32);
                target.store(&tensor, &merged.collect::<Vec<_>>())?;
            }
        }
        Ok(())
    }
}
