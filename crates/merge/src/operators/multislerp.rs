//! `multislerp` (goddard.blog; mergekit): xᵢ = Wᵢ (− W₀), uᵢ = xᵢ/(‖xᵢ‖+ε), m = μ/‖μ‖ with μ = Σ wᵢuᵢ, W = m·Σ wᵢ‖xᵢ‖ (+ W₀).
//!
//! The reference then moves along the tangent Σ wᵢ(uᵢ − ⟨uᵢ,m⟩m), which is zero by construction of m: what it adds is
//! rounding noise, and is left out. Where ‖μ‖ < ε, or two models are opposed, two are interpolated linearly and more are
//! refused. One expert comes back as it is.

use super::Combination;
use crate::MergeError;
use crate::arithmetic::{Arithmetic, Compute, Single, with_arithmetic};
use crate::method::{Base, Fallback, Method, Parameter, Resolved, Spec};
use crate::source::{Kernel, Rows, Source, View};

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
        if source.compute != Compute::F32 {
            return with_arithmetic!(
                source.compute,
                stepwise(source, experts, &weights, p.flag("normalize_weights"), eps)
            );
        }
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

/// The formula step by step, every step rounded, for 16-bit precisions: one pass for each norm it needs.
fn stepwise<R: Arithmetic>(
    source: &Source<'_>,
    experts: Vec<usize>,
    weights: &[f64],
    normalize: bool,
    eps: f64,
) -> Result<Box<dyn Kernel>, MergeError> {
    let n = experts.len();
    let mut weights: Vec<f32> = weights.iter().map(|w| R::r64(*w)).collect();
    if normalize {
        let sum = R::r(weights.iter().sum());
        weights.iter_mut().for_each(|w| *w = R::r(*w / sum));
    }
    let mut steps = Steps::<R> {
        base: source.base,
        experts,
        weights,
        norms: vec![0.0; n],
        length: 1.0,
        dots: vec![0.0; n],
        turn: (1.0, 0.0),
        scale: 1.0,
        precision: std::marker::PhantomData,
    };
    let each = |steps: &Steps<R>, count: usize, add: &(dyn Fn(&mut [f64], &[f32]) + Sync)| {
        source.sums(Rows::Any, count, |sums, view| {
            let mut vectors = vec![0.0; n];
            for i in 0..view.len {
                steps.fill(view, i, &mut vectors);
                add(sums, &vectors);
            }
        })
    };
    let square = |x: f32| f64::from(x) * f64::from(x);
    let squares = each(&steps, n, &|sums, x| sums.iter_mut().zip(x).for_each(|(s, x)| *s += square(*x)))?;
    let lengths: Vec<f32> = squares.iter().map(|s| R::r64(s.sqrt())).collect();
    steps.norms = lengths.iter().map(|l| R::r(l + eps as f32)).collect();
    let squares = each(&steps, 1, &|sums, x| sums[0] += square(steps.mean(x)))?;
    steps.length = R::r64(squares[0].sqrt());
    if f64::from(steps.length) < eps {
        let reason = "the weighted directions cancel out, so there is no mean direction; change the weights";
        return Err(MergeError::tensor(source.name, reason));
    }
    let dots = each(&steps, n, &|sums, x| {
        let mean = R::r(steps.mean(x) / steps.length);
        (0..n).for_each(|i| sums[i] += f64::from(R::r(steps.unit(x, i) * mean)));
    })?;
    steps.dots = dots.into_iter().map(R::r64).collect();
    let squares = each(&steps, 1, &|sums, x| sums[0] += square(steps.tangent(x).1))?;
    let angle = R::r(R::r64(squares[0].sqrt()) + eps as f32);
    steps.turn = (R::r(angle.cos()), R::r(R::r(angle.sin()) / angle));
    steps.scale = R::r(lengths.iter().zip(&steps.weights).map(|(l, w)| R::r(l * w)).sum());
    Ok(Box::new(steps))
}

struct Steps<R> {
    base: Option<usize>,
    experts: Vec<usize>,
    weights: Vec<f32>,
    /// ‖xᵢ‖ + ε.
    norms: Vec<f32>,
    /// ‖μ‖.
    length: f32,
    /// ⟨uᵢ, m⟩.
    dots: Vec<f32>,
    /// cos τ and sin τ/τ.
    turn: (f32, f32),
    /// Σ wᵢ‖xᵢ‖.
    scale: f32,
    precision: std::marker::PhantomData<R>,
}

impl<R: Arithmetic> Steps<R> {
    /// xᵢ at an element.
    fn fill(&self, view: &View<'_>, at: usize, out: &mut [f32]) {
        let origin = self.base.map_or(0.0, |b| view.input(b)[at]);
        out.iter_mut().zip(&self.experts).for_each(|(o, e)| *o = R::r(view.input(*e)[at] - origin));
    }
    /// uᵢ.
    fn unit(&self, x: &[f32], i: usize) -> f32 {
        R::r(x[i] / self.norms[i])
    }
    /// μ.
    fn mean(&self, x: &[f32]) -> f32 {
        R::r((0..x.len()).map(|i| R::r(self.unit(x, i) * self.weights[i])).sum())
    }
    /// m and T.
    fn tangent(&self, x: &[f32]) -> (f32, f32) {
        let mean = R::r(self.mean(x) / self.length);
        let part = |i: usize| R::r(R::r(self.unit(x, i) - R::r(self.dots[i] * mean)) * self.weights[i]);
        (mean, R::r((0..x.len()).map(part).sum()))
    }
}

impl<R: Arithmetic> Kernel for Steps<R> {
    fn apply(&self, view: &View<'_>, out: &mut [f32]) {
        let mut x = vec![0.0; self.experts.len()];
        for (i, o) in out.iter_mut().enumerate() {
            self.fill(view, i, &mut x);
            let (mean, tangent) = self.tangent(&x);
            let turned = R::r(R::r(R::r(mean * self.turn.0) + R::r(tangent * self.turn.1)) * self.scale);
            *o = self.base.map_or(turned, |b| R::r(view.input(b)[i] + turned));
        }
    }
}

/// W₀ + Σ cᵢ(Wᵢ − W₀).
struct AroundBase {
    base: usize,
    coefficients: Vec<f32>,
    compute: Compute,
}

impl Kernel for AroundBase {
    fn apply(&self, view: &View<'_>, out: &mut [f32]) {
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
