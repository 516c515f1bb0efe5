//! `karcher` (mergekit): the Karcher mean of the models' directions, times the mean of their norms. The base is an input
//! like any other.
//!
//! Everything the iteration needs is in the Gram matrix, so it runs on coefficients: one pass gathers the matrix, another
//! combines the tensors.

use super::Combination;
use crate::MergeError;
use crate::arithmetic::Single;
use crate::method::{Base, Fallback, Method, Parameter, Resolved, Spec};
use crate::source::{Kernel, Source};

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
    fn prepare(&self, p: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
        let count = source.inputs.len();
        if count == 1 {
            return Ok(Box::new(Combination(vec![1.0], source.compute)));
        }
        let gram = source.gram::<Single>(
            count,
            #[inline(always)]
            |view, i, out| out.copy_from_slice(view.input(i)),
        )?;
        let coefficients = mean(&gram, p.number("max_iter").max(0.0) as usize, p.number("tol"));
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
