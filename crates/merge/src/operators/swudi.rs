//! `swudi` (WalkerWorldPeace/MLLMerging@8c46d1f:LLaMA-Factory/swudi_aswudi.py): least squares with each task vector's own rows in the
//! place of its inputs, filtered by eigenvalue. No data is needed.
//!
//! wᵢ = 1/‖Δᵢ‖², C = Σ wᵢ ΔᵢᵀΔᵢ = V Λ Vᵀ, D = Σ wᵢ ΔᵢΔᵢᵀΔᵢ, fⱼ = 1 − exp(−t λⱼ) on the ⌈r·in⌉ largest eigenvalues, else 0, Δ₀ = Σ Δᵢ:
//! W = W₀ + s (Δ₀ − Δ₀ V f Vᵀ + D V diag(f / max(λ, 10⁻⁸)) Vᵀ).
//!
//! s = 1/N unless a recipe says otherwise. Vectors and the head: the mean of Δᵢ, which upstream scales by s as well; that would
//! leave out most of what the experts did to norms and biases.

use super::subspace::{Added, flat, mean_of_experts, one_thread_each, task_vectors};
use crate::MergeError;
use crate::arithmetic::Compute;
use crate::method::{Base, Fallback, Method, Parameter, Resolved, Spec};
use crate::source::{Kernel, Source};
use faer::{Mat, Scale, Side};

pub(crate) struct Swudi;

static SPEC: Spec = Spec {
    name: "swudi",
    summary: "task vectors fitted to their own rows, filtered by eigenvalue",
    base: Base::Required,
    experts: (1, usize::MAX),
    parameters: &[
        Parameter::shared("scaling_coefficient", Fallback::Absent),
        Parameter::shared("exp_time", Fallback::Number(300.0)),
        Parameter::shared("truncate_rank_ratio", Fallback::Number(0.85)),
    ],
};

/// Eigenvalues count as no less.
const LEAST: f64 = 1e-8;
/// Task vectors whose squares sum to less are none.
const NONE: f64 = 1e-12;

impl Method for Swudi {
    fn spec(&self) -> &Spec {
        &SPEC
    }
    fn holds_tensors(&self, _: Compute) -> bool {
        true
    }
    fn prepare(&self, p: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
        let (base, experts) = (source.base()?, source.experts());
        if source.shape.len() != 2 || source.name.contains("lm_head") {
            return Ok(mean_of_experts(source));
        }
        one_thread_each();
        let deltas = task_vectors(source, base, &experts)?;
        if deltas.iter().all(|delta| delta.squared_norm_l2() < NONE) {
            return Ok(mean_of_experts(source));
        }
        let failed = || MergeError::tensor(source.name, "its eigenvalues cannot be computed");
        let merged = fitted(&deltas, p.number("exp_time"), p.number("truncate_rank_ratio")).ok_or_else(failed)?;
        let given = p.shared.contains_key("scaling_coefficient");
        let scale = if given { p.number("scaling_coefficient") } else { 1.0 / experts.len() as f64 };
        let merged = merged * Scale(scale);
        Ok(Box::new(Added { base, delta: flat(merged.as_ref()), compute: source.compute }))
    }
}

fn fitted(deltas: &[Mat<f64>], time: f64, ratio: f64) -> Option<Mat<f64>> {
    let (rows, columns) = (deltas[0].nrows(), deltas[0].ncols());
    let (mut c, mut d) = (Mat::<f64>::zeros(columns, columns), Mat::<f64>::zeros(rows, columns));
    let mut sum = Mat::<f64>::zeros(rows, columns);
    for delta in deltas {
        let weight = Scale(1.0 / delta.squared_norm_l2().max(NONE));
        let square = delta.transpose() * delta;
        d += (delta * &square) * weight;
        c += square * weight;
        sum += delta;
    }
    let eigen = c.self_adjoint_eigen(Side::Lower).ok()?;
    let kept = ((columns as f64 * ratio).ceil() as usize).clamp(1, columns);
    // Ascending.
    let filter = |at: usize| {
        let value = eigen.S()[at].max(LEAST);
        if at + kept < columns { (0.0, value) } else { (1.0 - (-value * time).exp(), value) }
    };
    // Both parts go through V: D V diag(f/λ) − Δ₀ V f.
    let (dv, sv) = (&d * eigen.U(), &sum * eigen.U());
    let turned = Mat::from_fn(rows, columns, |i, j| {
        let (filter, value) = filter(j);
        filter * (dv[(i, j)] / value - sv[(i, j)])
    });
    Some(sum + turned * eigen.U().transpose())
}
