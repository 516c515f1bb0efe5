//! `multislerp` (goddard.blog; mergekit): xᵢ = Wᵢ (− W₀), uᵢ = xᵢ/(‖xᵢ‖+ε), m = μ/‖μ‖ with μ = Σ wᵢuᵢ, W = m·Σ wᵢ‖xᵢ‖ (+ W₀).
//!
//! The reference then moves along the tangent Σ wᵢ(uᵢ − ⟨uᵢ,m⟩m), which is zero by construction of m: what it adds is
//! rounding noise, and is left out. Where ‖μ‖ < ε, or two models are opposed, two are interpolated linearly and more are
//! refused. One expert comes back as it is.

use super::Combination;
use crate::MergeError;
use crate::arithmetic::{Compute, Single};
use crate::method::{Base, Fallback, Method, Parameter, Resolved, Spec};
use crate::source::{Kernel, Source};

pub(crate) struct MultiSlerp;

impl Method for MultiSlerp {
    fn spec(&self) -> &Spec {
        const {
            &Spec {
                name: "multislerp",
                summary: "weighted mean direction of several models, or of their task vectors, on the sphere",
                base: Base::Optional,
                experts: (1, usize::MAX),
                parameters: &[
                    Parameter::expert("weight", Fallback::Required),
                    Parameter::shared("normalize_weights", Fallback::Bool(true)),
                    Parameter::shared("eps", Fallback::Number(1e-8)),
                ],
            }
        }
    }
    fn prepare(&self, p: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
        let experts = source.experts();
        let mut coefficients = vec![0.0f32; source.inputs.len()];
        if let [only] = experts[..] {
            coefficients[only] = 1.0;
            return Ok(Box::new(Combination(coefficients, source.compute)));
        }
        let eps = p.number("eps");
        let mut weights: Vec<f64> = experts.iter().map(|e| p.of(*e, "weight").unwrap_or(0.0)).collect();
        if p.flag("normalize_weights") {
            let sum: f64 = weights.iter().sum();
            if sum == 0.0 {
                return Err(MergeError::tensor(source.name, "the weights sum to zero and cannot be normalized"));
            }
            weights.iter_mut().for_each(|w| *w /= sum);
        }
        let gram = source.gram::<Single>(
            experts.len(),
            #[inline(always)]
            |view, i, out| {
                out.copy_from_slice(view.input(experts[i]));
                if let Some(base) = source.base {
                    out.iter_mut().zip(view.input(base)).for_each(|(o, b)| *o -= b);
                }
            },
        )?;
        let norms: Vec<f64> = (0..experts.len()).map(|i| gram[i][i].sqrt()).collect();
        let pull: Vec<f64> = weights.iter().zip(&norms).map(|(w, n)| w / (n + eps)).collect();
        let square: f64 = (0..pull.len())
            .flat_map(|i| (0..pull.len()).map(move |j| (i, j)))
            .map(|(i, j)| pull[i] * pull[j] * gram[i][j])
            .sum();
        let length = square.max(0.0).sqrt();
        let opposed =
            experts.len() == 2 && gram[0][1] < (-1.0 + 1e-6) * norms[0] * norms[1] && norms[0] * norms[1] > 0.0;
        let of_vectors: Vec<f64> = if length < eps || opposed {
            if experts.len() > 2 {
                let reason = "the weighted directions cancel out, so there is no mean direction; change the weights";
                return Err(MergeError::tensor(source.name, reason));
            }
            weights
        } else {
            let scale = weights.iter().zip(&norms).map(|(w, n)| w * n).sum::<f64>() / length;
            pull.iter().map(|p| p * scale).collect()
        };
        for (expert, c) in experts.iter().zip(&of_vectors) {
            coefficients[*expert] = *c as f32;
        }
        Ok(match source.base {
            Some(base) => Box::new(AroundBase { base, coefficients, compute: source.compute }),
            None => Box::new(Combination(coefficients, source.compute)),
        })
    }
}

/// W₀ + Σ cᵢ(Wᵢ − W₀).
struct AroundBase {
    base: usize,
    coefficients: Vec<f32>,
    compute: Compute,
}

impl Kernel for AroundBase {
    fn apply(&self, view: &crate::source::View<'_>, out: &mut [f32]) {
        let base = view.input(self.base);
        out.fill(0.0);
        for (i, c) in self.coefficients.iter().enumerate().filter(|(i, _)| *i != self.base) {
            for ((o, w), b) in out.iter_mut().zip(view.input(i)).zip(base) {
                *o += c * (w - b);
            }
        }
        out.iter_mut().zip(base).for_each(|(o, b)| *o = self.compute.round(*o + b));
    }
}
