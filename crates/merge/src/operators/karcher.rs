//! `karcher` (mergekit): the Karcher mean of the models' directions, times the mean of their norms. The base is an input
//! like any other.
//!
//! Everything the iteration needs is in the Gram matrix, so it runs on coefficients: one pass gathers the matrix, another
//! combines the tensors.

use super::Combination;
use crate::MergeError;
use crate::arithmetic::{Arithmetic, Compute, Single, with_arithmetic};
use crate::method::{Base, Fallback, Method, Parameter, Resolved, Spec};
use crate::source::{Kernel, Source, View};

pub(crate) struct Karcher;

impl Method for Karcher {
    fn spec(&self) -> &Spec {
        const {
            &Spec {
                name: "karcher",
                summary: "Riemannian mean of the models' directions",
                base: Base::Ignored,
                experts: (1, usize::MAX),
                parameters: &[
                    Parameter::shared("max_iter", Fallback::Number(10.0)),
                    Parameter::shared("tol", Fallback::Number(1e-5)),
                ],
            }
        }
    }
    /// With every step rounded, the mean must be at hand.
    fn holds_tensors(&self, compute: Compute) -> bool {
        compute != Compute::F32
    }
    fn prepare(&self, p: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
        let count = source.inputs.len();
        if count == 1 {
            return Ok(Box::new(Combination(vec![1.0], source.compute)));
        }
        let (iterations, tolerance) = (p.number("max_iter").max(0.0) as usize, p.number("tol"));
        if source.compute != Compute::F32 {
            let merged = with_arithmetic!(source.compute, stepwise(&source.whole()?, iterations, tolerance));
            return Ok(Box::new(Held(merged)));
        }
        let gram = source.gram::<Single>(
            count,
            #[inline(always)]
            |view, i, out| out.copy_from_slice(view.input(i)),
        )?;
        let coefficients = mean(&gram, iterations, tolerance);
        Ok(Box::new(Combination(coefficients.iter().map(|c| *c as f32).collect(), source.compute)))
    }
}

/// Coefficients of the mean in terms of the tensors whose Gram matrix is given.
fn mean(gram: &[Vec<f64>], iterations: usize, tolerance: f64) -> Vec<f64> {
    let count = gram.len();
    let norms: Vec<f64> = (0..count).map(|i| gram[i][i].sqrt()).collect();
    let valid: Vec<usize> = (0..count).filter(|i| norms[*i] > tolerance).collect();
    if valid.is_empty() {
        return vec![0.0; count];
    }
    let alpha = 1.0 / valid.len() as f64;
    let cosine = |a: usize, b: usize| gram[valid[a]][valid[b]] / (norms[valid[a]] * norms[valid[b]]);
    let n = valid.len();
    // Coefficients of unit vectors.
    let dot =
        |x: &[f64], y: &[f64]| -> f64 { (0..n).map(|i| (0..n).map(|j| x[i] * y[j] * cosine(i, j)).sum::<f64>()).sum() };
    let unit = |i: usize| (0..n).map(|j| if i == j { 1.0 } else { 0.0 }).collect::<Vec<f64>>();
    let scaled = |x: &[f64], s: f64| x.iter().map(|v| v * s).collect::<Vec<f64>>();
    let mut mean = vec![alpha; n];
    let length = dot(&mean, &mean).max(0.0).sqrt();
    mean = if length < tolerance { unit(0) } else { scaled(&mean, 1.0 / length) };
    for _ in 0..iterations {
        let mut tangent = vec![0.0; n];
        for i in 0..n {
            let d = dot(&mean, &unit(i)).clamp(-1.0, 1.0);
            let theta = d.acos();
            if theta < tolerance {
                continue;
            }
            let factor = alpha * theta / theta.sin();
            for (j, t) in tangent.iter_mut().enumerate() {
                *t += factor * (if i == j { 1.0 } else { 0.0 } - d * mean[j]);
            }
        }
        let length = dot(&tangent, &tangent).max(0.0).sqrt();
        if length < tolerance {
            break;
        }
        mean = (0..n).map(|j| length.cos() * mean[j] + length.sin() * tangent[j] / length).collect();
        let length = dot(&mean, &mean).max(0.0).sqrt();
        if length > tolerance {
            mean = scaled(&mean, 1.0 / length);
        }
    }
    let scale = norms.iter().sum::<f64>() / count as f64;
    let mut out = vec![0.0; count];
    for (i, m) in valid.iter().zip(mean) {
        out[*i] = scale * m / norms[*i];
    }
    out
}

/// A tensor that is merged already.
struct Held(Vec<f32>);

impl Kernel for Held {
    fn apply(&self, view: &View<'_>, out: &mut [f32]) {
        out.copy_from_slice(&self.0[view.start..view.start + view.len]);
    }
}

/// The iteration with every elementwise step rounded, for 16-bit precisions. Norms are float32, as upstream's.
fn stepwise<R: Arithmetic>(inputs: &[Vec<f32>], iterations: usize, tolerance: f64) -> Vec<f32> {
    let norm = |x: &[f32]| x.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt() as f32;
    let divided = |x: &[f32], by: f32| x.iter().map(|v| R::r(v / by)).collect::<Vec<f32>>();
    let small = |x: f32| f64::from(x) < tolerance;
    let norms: Vec<f32> = inputs.iter().map(|x| norm(x)).collect();
    let units: Vec<Vec<f32>> =
        inputs.iter().zip(&norms).filter(|(_, n)| f64::from(**n) > tolerance).map(|(x, n)| divided(x, *n)).collect();
    let Some(first) = units.first() else { return vec![0.0; inputs[0].len()] };
    let alpha = (1.0 / units.len() as f64) as f32;
    let mut mean = vec![0.0f32; first.len()];
    for unit in &units {
        mean.iter_mut().zip(unit).for_each(|(m, u)| *m = R::r(*m + R::r(alpha * u)));
    }
    let length = norm(&mean);
    mean = if small(length) { first.clone() } else { divided(&mean, length) };
    for _ in 0..iterations {
        let mut tangent = vec![0.0f32; mean.len()];
        for unit in &units {
            let dot: f64 = mean.iter().zip(unit).map(|(m, u)| f64::from(*m) * f64::from(*u)).sum();
            let dot = R::r64(dot).clamp(-1.0, 1.0);
            let theta = R::r(dot.acos());
            if small(theta) {
                continue;
            }
            let factor = R::r(alpha * R::r(theta / R::r(theta.sin())));
            for ((t, u), m) in tangent.iter_mut().zip(unit).zip(&mean) {
                *t = R::r(*t + R::r(factor * R::r(u - R::r(dot * m))));
            }
        }
        let length = norm(&tangent);
        if small(length) {
            break;
        }
        for (m, t) in mean.iter_mut().zip(&tangent) {
            *m = R::r(R::r(length.cos() * *m) + R::r(length.sin() * R::r(t / length)));
        }
        let length = norm(&mean);
        if !small(length) {
            mean = divided(&mean, length);
        }
    }
    let scale: f32 = norms.iter().map(|n| n / norms.len() as f32).sum();
    mean.iter().map(|m| R::r(scale * m)).collect()
}
