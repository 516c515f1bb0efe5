//! `resmerge` (arXiv 2606.02252; sunyd0303-cpu/ResMerge-release@e990128:resmerge-main.py): the leading singular part of every task
//! vector apart, the residues merged by direction.
//!
//! Hᵢ = rank-K part of Δᵢ, Rᵢ = Δᵢ − Hᵢ, ε = 1e-8, qᵢ = Rᵢ/(‖Rᵢ‖+ε), q = Σqᵢ/(‖Σqᵢ‖+ε), c = clip₀₁(mean cos(qᵢ, q)), score the mean of
//! clip₀₁((pair+1)/2) and clip₀₁((c+1)/2) with pair the mean pairwise cosine (score 0 outside attention and MLP),
//! β = β_max − (β_max − β_min)·score; A = mean Rᵢ if c ≤ 1/√N or ‖Σqᵢ‖ ≤ ε, else q·c^β·mean‖Rᵢ‖;
//! W = W₀ + A + budget·S·‖A‖·H̄/‖H̄‖ with S the mean over pairs of max(0, cos(Hᵢ, Hⱼ)). Everything but matrices: mean of the experts.

use super::subspace::{Added, flat, is_matrix, mean_of_experts, one_thread_each, task_vectors};
use crate::MergeError;
use crate::arithmetic::Compute;
use crate::method::{Base, Fallback, Method, Parameter, Resolved, Spec};
use crate::source::{Kernel, Source};
use faer::{Col, Mat};

const EPSILON: f64 = 1e-8;
/// Matrices up to this size are decomposed whole; larger ones by power iteration where one triplet is asked for.
const SMALL: usize = 256;
const ITERATIONS: usize = 2000;

pub(crate) struct ResMerge;

impl Method for ResMerge {
    fn spec(&self) -> &Spec {
        const {
            &Spec {
                name: "resmerge",
                summary: "residues of task vectors merged by direction, their leading singular part apart",
                base: Base::Required,
                experts: (1, usize::MAX),
                parameters: &[
                    Parameter::shared("rank_topk", Fallback::Number(1.0)),
                    Parameter::shared("src_beta_min", Fallback::Number(0.7)),
                    Parameter::shared("src_beta_max", Fallback::Number(1.0)),
                    Parameter::shared("head_ratio_budget", Fallback::Number(0.2)),
                ],
            }
        }
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
        let heads: Vec<Mat<f64>> = deltas
            .iter()
            .map(|d| head(d, p.number("rank_topk").max(0.0) as usize))
            .collect::<Option<_>>()
            .ok_or_else(failed)?;
        let mut residues = deltas;
        residues.iter_mut().zip(&heads).for_each(|(r, h)| *r -= h);
        let scored = source.name.contains("attn") || source.name.contains("mlp");
        let spread = (p.number("src_beta_min"), p.number("src_beta_max"));
        let mut merged = merge_residues(&residues, scored, spread);
        let mean_head = mean(&heads);
        let (length, head_length) = (merged.norm_l2(), mean_head.norm_l2());
        if length > EPSILON && head_length > EPSILON {
            let share = p.number("head_ratio_budget") * agreement(&heads) * length / head_length;
            merged += mean_head * faer::Scale(share);
        }
        Ok(Box::new(Added { base, delta: flat(merged.as_ref()), compute: source.compute }))
    }
}

fn mean(all: &[Mat<f64>]) -> Mat<f64> {
    all[1..].iter().fold(all[0].clone(), |sum, m| sum + m) * faer::Scale(1.0 / all.len() as f64)
}

fn dot(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
    a.col_iter().zip(b.col_iter()).map(|(x, y)| x.transpose() * y).sum()
}

/// Mean over pairs of f(i, j); `alone` if there are none.
fn over_pairs(n: usize, alone: f64, f: impl Fn(usize, usize) -> f64) -> f64 {
    let pairs: Vec<f64> = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).map(|(i, j)| f(i, j)).collect();
    if pairs.is_empty() { alone } else { pairs.iter().sum::<f64>() / pairs.len() as f64 }
}

/// S: how much the heads point the same way; 1 if fewer than two are not zero.
fn agreement(heads: &[Mat<f64>]) -> f64 {
    let heads: Vec<(&Mat<f64>, f64)> = heads.iter().map(|h| (h, h.norm_l2())).filter(|(_, n)| *n > EPSILON).collect();
    over_pairs(heads.len(), 1.0, |i, j| (dot(heads[i].0, heads[j].0) / (heads[i].1 * heads[j].1)).max(0.0))
}

fn merge_residues(residues: &[Mat<f64>], scored: bool, (low, high): (f64, f64)) -> Mat<f64> {
    let n = residues.len();
    let norms: Vec<f64> = residues.iter().map(|r| r.norm_l2()).collect();
    let average = || mean(residues);
    if norms.iter().all(|n| *n == 0.0) {
        return average();
    }
    let cosine = |i: usize, j: usize| dot(&residues[i], &residues[j]) / ((norms[i] + EPSILON) * (norms[j] + EPSILON));
    let mut sum = Mat::<f64>::zeros(residues[0].nrows(), residues[0].ncols());
    for (residue, norm) in residues.iter().zip(&norms) {
        sum += residue * faer::Scale(1.0 / (norm + EPSILON));
    }
    let length = sum.norm_l2();
    let direction = sum * faer::Scale(1.0 / (length + EPSILON));
    let toward = |i: usize| dot(&residues[i], &direction) / (norms[i] + EPSILON);
    let c = ((0..n).map(toward).sum::<f64>() / n as f64).clamp(0.0, 1.0);
    if c <= 1.0 / (n as f64).sqrt() || length <= EPSILON {
        return average();
    }
    let half = |x: f64| ((x + 1.0) / 2.0).clamp(0.0, 1.0);
    let score = if scored { (half(over_pairs(n, 1.0, cosine)) + half(c)) / 2.0 } else { 0.0 };
    let beta = high - (high - low) * score;
    direction * faer::Scale(c.powf(beta) * norms.iter().sum::<f64>() / n as f64)
}

/// The part of a matrix in its first `rank` singular directions.
fn head(matrix: &Mat<f64>, rank: usize) -> Option<Mat<f64>> {
    let most = matrix.nrows().min(matrix.ncols());
    if rank == 1 && most > SMALL {
        return Some(leading(matrix));
    }
    let svd = matrix.thin_svd().ok()?;
    let rank = rank.min(most);
    let (u, v) = (svd.U().subcols(0, rank), svd.V().subcols(0, rank));
    let scaled = Mat::from_fn(matrix.nrows(), rank, |i, j| u[(i, j)] * svd.S()[j]);
    Some(scaled * v.transpose())
}

/// σ₁u₁v₁ᵀ by power iteration, until v₁ stands still.
fn leading(matrix: &Mat<f64>) -> Mat<f64> {
    let mut v = Col::<f64>::from_fn(matrix.ncols(), |j| 1.0 + (j as f64 * 0.618_034).fract());
    v = &v * faer::Scale(1.0 / v.norm_l2());
    let mut u = matrix * &v;
    for _ in 0..ITERATIONS {
        let next = matrix.transpose() * &u;
        let length = next.norm_l2();
        if length == 0.0 {
            break;
        }
        let next = next * faer::Scale(1.0 / length);
        let moved = (&next - &v).norm_l2();
        v = next;
        u = matrix * &v;
        if moved < 1e-9 {
            break;
        }
    }
    u * v.transpose()
}
