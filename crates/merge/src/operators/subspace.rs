//! `tsv_m` (task singular vectors, arXiv 2412.00081) and `iso_c` (isotropic merging, arXiv 2502.04959), as in
//! tanganke/fusion_bench@54c9e8c:fusion_bench/method.
//!
//! `tsv_m`: with Δᵢ = UᵢSᵢVᵢᵀ and k = ⌊min(out, in)/N⌋, the first k singular triplets of every expert side by side, U and V then
//! replaced by their polar factors: W = W₀ + α·U⊥ S V⊥ᵀ. `iso_c`: Σ Δᵢ = U S Vᵀ, W = W₀ + α·mean(S)·U Vᵀ. Vectors, embeddings and
//! the head (what `exclude` names): the mean of Δᵢ.
//!
//! Full decompositions of whole tensors: at 8B parameters a matter of hours on a CPU.

use super::Combination;
use crate::MergeError;
use crate::arithmetic::Compute;
use crate::method::{Base, Fallback, Method, Parameter, Resolved, Spec};
use crate::source::{Kernel, Source, View};
use faer::{Mat, MatRef};

pub(crate) struct Subspace {
    spec: Spec,
    isotropic: bool,
}

pub(crate) static TSV_M: Subspace = Subspace {
    spec: Spec {
        name: "tsv_m",
        summary: "task vectors' leading singular directions, made orthogonal",
        base: Base::Required,
        experts: (1, usize::MAX),
        parameters: &[Parameter::shared("alpha", Fallback::Number(1.0))],
    },
    isotropic: false,
};
pub(crate) static ISO_C: Subspace = Subspace {
    spec: Spec {
        name: "iso_c",
        summary: "the summed task vector with all singular values equal",
        base: Base::Required,
        experts: (1, usize::MAX),
        parameters: &[Parameter::shared("scaling_factor", Fallback::Number(1.0))],
    },
    isotropic: true,
};

impl Method for Subspace {
    fn spec(&self) -> &Spec {
        &self.spec
    }
    fn holds_tensors(&self, _: Compute) -> bool {
        true
    }
    fn prepare(&self, p: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
        let (base, experts) = (source.base()?, source.experts());
        if !is_matrix(source) {
            return Ok(mean_of_experts(source));
        }
        one_thread_each();
        let deltas = task_vectors(source, base, &experts)?;
        let failed = || MergeError::tensor(source.name, "its singular value decomposition does not converge");
        let merged = if self.isotropic {
            isotropic(&deltas).ok_or_else(failed)? * faer::Scale(p.number("scaling_factor"))
        } else {
            singular_vectors(&deltas).ok_or_else(failed)? * faer::Scale(p.number("alpha"))
        };
        Ok(Box::new(Added { base, delta: flat(merged.as_ref()), compute: source.compute }))
    }
}

/// Tensors are worked on side by side, so a decomposition keeps to its thread; its bytes do not depend on how many there are.
pub(super) fn one_thread_each() {
    faer::set_global_parallelism(faer::Par::Seq);
}

/// Matrices that are neither embedding nor head.
pub(super) fn is_matrix(source: &Source<'_>) -> bool {
    let excluded = ["embed", "lm_head", "wte", "wpe", "norm"];
    source.shape.len() == 2 && !excluded.iter().any(|e| source.name.contains(e))
}

/// W₀ + mean Δᵢ, which is the mean of the experts.
pub(super) fn mean_of_experts(source: &Source<'_>) -> Box<dyn Kernel> {
    let experts = source.experts();
    let mut coefficients = vec![0.0; source.inputs.len()];
    experts.iter().for_each(|e| coefficients[*e] = 1.0 / experts.len() as f32);
    Box::new(Combination(coefficients, source.compute))
}

/// Δᵢ as matrices in F64.
pub(super) fn task_vectors(source: &Source<'_>, base: usize, experts: &[usize]) -> Result<Vec<Mat<f64>>, MergeError> {
    let all = source.whole()?;
    let (rows, columns) = (source.shape[0], source.shape[1]);
    let delta = |e: &usize| {
        Mat::from_fn(rows, columns, |i, j| f64::from(all[*e][i * columns + j] - all[base][i * columns + j]))
    };
    Ok(experts.iter().map(delta).collect())
}

/// Row by row, in F32.
pub(super) fn flat(matrix: MatRef<'_, f64>) -> Vec<f32> {
    (0..matrix.nrows()).flat_map(|i| (0..matrix.ncols()).map(move |j| matrix[(i, j)] as f32)).collect()
}

fn singular_vectors(deltas: &[Mat<f64>]) -> Option<Mat<f64>> {
    let (rows, columns) = (deltas[0].nrows(), deltas[0].ncols());
    let rank = rows.min(columns);
    let each = rank / deltas.len();
    let (mut u, mut v) = (Mat::<f64>::zeros(rows, rank), Mat::<f64>::zeros(columns, rank));
    let mut values = vec![0.0; rank];
    for (i, delta) in deltas.iter().enumerate() {
        let svd = delta.thin_svd().ok()?;
        for k in 0..each {
            let slot = i * each + k;
            u.col_mut(slot).copy_from(svd.U().col(k));
            v.col_mut(slot).copy_from(svd.V().col(k));
            values[slot] = svd.S()[k];
        }
    }
    let (u, v) = (polar(u.as_ref())?, polar(v.as_ref())?);
    let scaled = Mat::from_fn(rows, rank, |i, j| u[(i, j)] * values[j]);
    Some(scaled * v.transpose())
}

/// P Qᵀ of the decomposition P S Qᵀ.
fn polar(matrix: MatRef<'_, f64>) -> Option<Mat<f64>> {
    let svd = matrix.thin_svd().ok()?;
    Some(svd.U() * svd.V().transpose())
}

fn isotropic(deltas: &[Mat<f64>]) -> Option<Mat<f64>> {
    let sum = deltas[1..].iter().fold(deltas[0].clone(), |sum, d| sum + d);
    let svd = sum.thin_svd().ok()?;
    let rank = sum.nrows().min(sum.ncols());
    let mean = (0..rank).map(|i| svd.S()[i]).sum::<f64>() / rank.max(1) as f64;
    Some(svd.U() * svd.V().transpose() * faer::Scale(mean))
}

/// W₀ + D, with D held whole.
pub(super) struct Added {
    pub(super) base: usize,
    pub(super) delta: Vec<f32>,
    pub(super) compute: Compute,
}

impl Kernel for Added {
    fn apply(&self, view: &View<'_>, out: &mut [f32]) {
        let delta = &self.delta[view.start..view.start + view.len];
        for ((o, b), d) in out.iter_mut().zip(view.input(self.base)).zip(delta) {
            *o = self.compute.round(b + d);
        }
    }
}
