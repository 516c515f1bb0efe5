//! The operators. Notation: base W₀, experts Wᵢ, task vectors Δᵢ = Wᵢ − W₀.

mod model_stock;
mod ram;
mod sparse;

use crate::random::Stream;
use serde::{Deserialize, Serialize};

/// A merge method, named as mergekit names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// W = Σ wᵢWᵢ / Σ wᵢ over the experts.
    Average,
    /// W = W₀ + λ Σ wᵢΔᵢ (Ilharco et al. 2023).
    TaskArithmetic,
    /// Trim, elect signs, disjoint mean (Yadav et al. 2023; arcee-ai/mergekit 0.1.5 `ties`).
    Ties,
    /// Random drop, rescale, elect signs (Yu et al. 2024; mergekit `dare_ties`).
    DareTies,
    /// Interpolation by the angle between task vectors (Jang et al. 2024; mergekit `model_stock`).
    ModelStock,
    /// Averages where several experts changed, keeps what only one changed (arXiv 2601.13572; mergekit `ram`).
    Ram,
}

impl Operator {
    /// Every operator with the name used in files.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("average", Self::Average),
        ("task_arithmetic", Self::TaskArithmetic),
        ("ties", Self::Ties),
        ("dare_ties", Self::DareTies),
        ("model_stock", Self::ModelStock),
        ("ram", Self::Ram),
    ];
}

/// Parameters of a merge; what an operator does not use is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Weight of every expert.
    pub weight: f32,
    /// Factor on the merged task vector.
    pub lambda: f32,
    /// Share of elements kept (`ties`, `dare_ties`).
    pub density: f64,
    /// Whether consensus divides by the weights that agree; the operator's own default if absent.
    pub normalize: Option<bool>,
    /// Smallest change that counts (`ram`).
    pub epsilon: f32,
    /// Seed of random operators.
    pub seed: u64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { weight: 1.0, lambda: 1.0, density: 1.0, normalize: None, epsilon: 1e-5, seed: 0 }
    }
}

impl Operator {
    /// Merges one tensor. `experts` all have the length of `base`.
    #[must_use]
    pub fn apply(self, p: &Parameters, name: &str, base: &[f32], experts: &[Vec<f32>]) -> Vec<f32> {
        let deltas = || experts.iter().map(|e| e.iter().zip(base).map(|(w, b)| w - b).collect::<Vec<f32>>());
        match self {
            Self::Average => {
                let sum: f32 = experts.iter().map(|_| p.weight).sum();
                let mut out = vec![0.0f32; base.len()];
                for expert in experts {
                    out.iter_mut().zip(expert).for_each(|(o, w)| *o = p.weight.mul_add(*w, *o));
                }
                out.iter_mut().for_each(|o| *o /= sum);
                out
            }
            Self::TaskArithmetic => {
                let weighted: Vec<Vec<f32>> = deltas().map(|d| scaled(d, p.weight)).collect();
                add(base, &sum(&weighted, base.len()), p.lambda)
            }
            Self::Ties => {
                let trimmed: Vec<Vec<f32>> = deltas().map(|d| scaled(sparse::trim(d, p.density), p.weight)).collect();
                let merged = sparse::consensus(&trimmed, p.weight, p.normalize.unwrap_or(true));
                add(base, &merged, p.lambda)
            }
            Self::DareTies => {
                let dropped: Vec<Vec<f32>> = deltas()
                    .enumerate()
                    .map(|(i, d)| scaled(sparse::drop_random(d, p.density, Stream::new(p.seed, name, i)), p.weight))
                    .collect();
                let merged = sparse::consensus(&dropped, p.weight, p.normalize.unwrap_or(false));
                add(base, &merged, p.lambda)
            }
            Self::ModelStock => model_stock::merge(base, experts, &deltas().collect::<Vec<_>>()),
            Self::Ram => add(base, &ram::merge(&deltas().collect::<Vec<_>>(), p.epsilon), 1.0),
        }
    }
}

fn scaled(mut delta: Vec<f32>, weight: f32) -> Vec<f32> {
    if weight != 1.0 {
        delta.iter_mut().for_each(|d| *d *= weight);
    }
    delta
}

fn sum(deltas: &[Vec<f32>], len: usize) -> Vec<f32> {
    let mut out = vec![0.0; len];
    for delta in deltas {
        out.iter_mut().zip(delta).for_each(|(o, d)| *o += d);
    }
    out
}

fn add(base: &[f32], delta: &[f32], lambda: f32) -> Vec<f32> {
    base.iter().zip(delta).map(|(b, d)| b + lambda * d).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_expert_comes_back() {
        let (base, expert) = (vec![1.0, -2.0, 0.5, 0.0], vec![1.5, -2.0, 0.25, 3.0]);
        for (name, operator) in Operator::NAMES.iter().filter(|(n, _)| *n != "model_stock") {
            let out = operator.apply(&Parameters::default(), "t", &base, std::slice::from_ref(&expert));
            assert_eq!(out, expert, "{name}");
        }
    }

    #[test]
    fn zero_task_vectors_give_the_base() {
        let base = vec![1.0, -2.0, 0.5];
        for (name, operator) in Operator::NAMES {
            let out = operator.apply(&Parameters::default(), "t", &base, &[base.clone(), base.clone()]);
            assert_eq!(out, base, "{name}");
        }
    }

    #[test]
    fn dare_keeps_the_share_it_is_told_and_the_norm() {
        let delta: Vec<f32> = (0..20_000).map(|i| ((i % 17) as f32 - 8.0) / 8.0).collect();
        let stream = Stream::new(1, "t", 0);
        let kept = sparse::drop_random(delta.clone(), 0.3, stream);
        assert_eq!(kept, sparse::drop_random(delta.clone(), 0.3, stream));
        let share = kept.iter().zip(&delta).filter(|(k, d)| **k != 0.0 && **d != 0.0).count() as f64
            / delta.iter().filter(|d| **d != 0.0).count() as f64;
        assert!((share - 0.3).abs() < 4.0 * (0.3f64 * 0.7 / 20_000.0).sqrt(), "{share}");
        let norm = |v: &[f32]| v.iter().map(|x| f64::from(x.abs())).sum::<f64>();
        assert!((norm(&kept) / norm(&delta) - 1.0).abs() < 1e-4);
    }
}
