//! `arcee_fusion` (mergekit): importance I = |W₁ − W₀| ⊙ KL with KL = Σ p·ln(p/q) over the last axis, p and q the softmax of W₁
//! and W₀ plus 1e-8; θ = q₂ + 1.5(q₃ − q₁) with quartiles at index ⌊f·(n−1)⌋; W₁ where I ≥ θ, W₀ elsewhere.
//!
//! KL is a difference of nearly equal numbers and is computed in F64. Above a million elements mergekit estimates the
//! quartiles from a random sample; ours are exact.

use crate::MergeError;
use crate::arithmetic::{Arithmetic, simd, with_arithmetic};
use crate::method::{Base, Method, Resolved, Spec};
use crate::rank::{ordered, places};
use crate::source::{Kernel, Rows, Source, View};

pub(crate) struct ArceeFusion;

impl Method for ArceeFusion {
    fn spec(&self) -> &Spec {
        const {
            &Spec {
                name: "arcee_fusion",
                summary: "the expert's most important changes on the base",
                base: Base::Required,
                experts: (1, 1),
                parameters: &[],
            }
        }
    }
    fn prepare(&self, _: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
        with_arithmetic!(source.compute, prepare(source))
    }
}

fn prepare<R: Arithmetic>(source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
    let base = source.base()?;
    let (expert, row) = (1 - base.min(1), source.row());
    let divergences = source.scan(
        Rows::Whole,
        usize::MAX,
        Vec::new,
        #[inline(always)]
        |rows, view| {
            for start in (0..view.len).step_by(row) {
                let part = |i: usize| &view.input(i)[start..start + row];
                rows.push(divergence::<R>(part(expert), part(base)));
            }
        },
    )?;
    let divergences = divergences.concat();
    let mut fusion =
        Fusion::<R> { base, expert, row, divergences, threshold: 0.0, precision: std::marker::PhantomData };
    // upstream: the index is computed in float32.
    let rank = |share: f32| (share * (source.len().saturating_sub(1)) as f32) as u64;
    let last = source.len().saturating_sub(1) as u64;
    let ranks = vec![[0.25, 0.5, 0.75].map(|s| rank(s).min(last)).to_vec()];
    let quartiles = places(
        source,
        &ranks,
        #[inline(always)]
        |view: &View<'_>, _: usize, keys: &mut [u32]| {
            fusion.importances(view, |i, importance| keys[i] = ordered(importance));
        },
    )?;
    let value = |i: usize| unordered(quartiles[0][i].key);
    if source.len() > 0 {
        fusion.threshold = R::r(value(1) + R::r(1.5 * R::r(value(2) - value(0))));
    }
    Ok(Box::new(fusion))
}

fn unordered(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & 0x7FFF_FFFF } else { !key })
}

/// Σ p·ln(p/q) over a row.
#[inline(always)]
fn divergence<R: Arithmetic>(expert: &[f32], base: &[f32]) -> f64 {
    let (mut p, mut q) = (exponentials(expert), exponentials(base));
    let (sum_p, sum_q) = (sum(&p), sum(&q));
    if R::ROUNDS {
        let terms = p.iter().zip(&q).map(|(p, q)| {
            let (p, q) = (R::r(R::r64(p / sum_p) + 1e-8), R::r(R::r64(q / sum_q) + 1e-8));
            f64::from(R::r(p * R::r(R::r(p / q).ln())))
        });
        return f64::from(R::r64(terms.sum()));
    }
    // ln(p/q) = 2·artanh(z), z = (p − q)/(p + q), small where the models are close.
    let mut largest = 0.0f64;
    for (p, q) in p.iter_mut().zip(&mut q) {
        *p = *p / sum_p + 1e-8;
        *q = *q / sum_q + 1e-8;
        let z = (*p - *q) / (*p + *q);
        largest = if z.abs() > largest { z.abs() } else { largest };
        *q = z;
    }
    for (p, z) in p.iter_mut().zip(&q) {
        let square = z * z;
        let series = (1..=7).rev().fold(1.0 / 15.0, |sum, k| sum * square + 1.0 / f64::from(2 * k - 1));
        *p *= 2.0 * z * series;
    }
    if largest > 0.1 {
        for ((p, z), w) in p.iter_mut().zip(&q).zip(exponentials(expert)) {
            *p = (w / sum_p + 1e-8) * 2.0 * z.atanh();
        }
    }
    sum(&p)
}

/// exp(wᵢ − max w): by a polynomial of a 64th of the exponent, squared six times, where exponents are small.
#[inline(always)]
fn exponentials(row: &[f32]) -> Vec<f64> {
    let (low, top) = row.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, top), w| (low.min(*w), top.max(*w)));
    if top - low > 8.0 {
        return row.iter().map(|w| (f64::from(*w) - f64::from(top)).exp()).collect();
    }
    let mut out = vec![0.0; row.len()];
    for (o, w) in out.iter_mut().zip(row) {
        let y = (f64::from(*w) - f64::from(top)) / 64.0;
        let mut e = (1..=9).rev().fold(1.0, |sum, k| 1.0 + sum * y / f64::from(k));
        for _ in 0..6 {
            e *= e;
        }
        *o = e;
    }
    out
}

/// Σ, sixteen partial sums side by side.
#[inline(always)]
fn sum(values: &[f64]) -> f64 {
    let mut lanes = [0.0; 16];
    let (chunks, tail) = values.as_chunks::<16>();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += v;
        }
    }
    lanes.iter().sum::<f64>() + tail.iter().sum::<f64>()
}

struct Fusion<R> {
    base: usize,
    expert: usize,
    row: usize,
    /// KL of every row.
    divergences: Vec<f64>,
    threshold: f32,
    precision: std::marker::PhantomData<R>,
}

impl<R: Arithmetic> Fusion<R> {
    /// Importances of a run, row by row.
    #[inline(always)]
    fn importances(&self, view: &View<'_>, mut take: impl FnMut(usize, f32)) {
        let (base, expert) = (view.input(self.base), view.input(self.expert));
        let mut at = 0;
        while at < view.len {
            let row = (view.start + at) / self.row;
            let end = ((row + 1) * self.row - view.start).min(view.len);
            let divergence = self.divergences[row];
            for (i, (w, b)) in (at..end).zip(expert[at..end].iter().zip(&base[at..end])) {
                take(i, R::r64(f64::from(R::r(w - b).abs()) * divergence));
            }
            at = end;
        }
    }
}

impl<R: Arithmetic> Kernel for Fusion<R> {
    fn apply(&self, view: &View<'_>, out: &mut [f32]) {
        let (base, expert) = (view.input(self.base), view.input(self.expert));
        simd(
            #[inline(always)]
            || {
                self.importances(view, |i, importance| {
                    let taken = R::r(base[i] + R::r(expert[i] - base[i]));
                    out[i] = if importance >= self.threshold { taken } else { R::r(base[i]) };
                });
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arithmetic::Single;

    #[test]
    fn divergence_agrees_with_the_library_functions() {
        for (scale, change) in [(0.02f32, 1e-3f32), (1.0, 0.1), (3.0, 2.0), (30.0, 0.5)] {
            let wave = |i: usize, f: f32| ((i as f32 * f).sin() * scale, (i as f32 * 1.7).cos() * change);
            let base: Vec<f32> = (0..300).map(|i| wave(i, 0.37).0).collect();
            let expert: Vec<f32> = (0..300).map(|i| wave(i, 0.37).0 + wave(i, 0.37).1).collect();
            let softmax = |row: &[f32]| {
                let all: Vec<f64> = row.iter().map(|w| f64::from(*w).exp()).collect();
                let sum: f64 = all.iter().sum();
                all.into_iter().map(|e| e / sum + 1e-8).collect::<Vec<f64>>()
            };
            let (p, q) = (softmax(&expert), softmax(&base));
            let expected: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
            let ours = divergence::<Single>(&expert, &base);
            assert!((ours - expected).abs() <= 1e-12 + 1e-9 * expected.abs(), "{scale}: {ours} against {expected}");
        }
    }
}
