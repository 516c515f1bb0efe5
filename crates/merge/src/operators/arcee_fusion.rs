//! `arcee_fusion` (mergekit): importance I = |W₁ − W₀| ⊙ KL with KL = Σ p·ln(p/q) over the last axis, p and q the softmax of W₁
//! and W₀ plus 1e-8; θ = q₂ + 1.5(q₃ − q₁) with quartiles at index ⌊f·(n−1)⌋; W₁ where I ≥ θ, W₀ elsewhere.
//!
//! KL is a difference of nearly equal numbers and is computed in F64. Above a million elements mergekit estimates the
//! quartiles from a random sample; ours are exact.

use crate::MergeError;
use crate::arithmetic::{Arithmetic, with_arithmetic};
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
    let divergences = source.scan(Rows::Whole, usize::MAX, Vec::new, |rows, view| {
        for start in (0..view.len).step_by(row) {
            let part = |i: usize| &view.input(i)[start..start + row];
            rows.push(divergence::<R>(part(expert), part(base)));
        }
    })?;
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
            for (i, key) in keys.iter_mut().enumerate() {
                *key = ordered(fusion.importance(view, i));
            }
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
fn divergence<R: Arithmetic>(expert: &[f32], base: &[f32]) -> f64 {
    let exponentials = |row: &[f32]| {
        let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let all: Vec<f64> = row.iter().map(|w| f64::from(w - top).exp()).collect();
        let sum: f64 = all.iter().sum();
        (all, sum)
    };
    let ((p, sum_p), (q, sum_q)) = (exponentials(expert), exponentials(base));
    let terms = p.iter().zip(&q).map(|(p, q)| {
        let (p, q) = (p / sum_p, q / sum_q);
        if !R::ROUNDS {
            let (p, q) = (p + 1e-8, q + 1e-8);
            return p * (p / q).ln();
        }
        let (p, q) = (R::r(R::r64(p) + 1e-8), R::r(R::r64(q) + 1e-8));
        f64::from(R::r(p * R::r(R::r(p / q).ln())))
    });
    let sum: f64 = terms.sum();
    if R::ROUNDS { f64::from(R::r64(sum)) } else { sum }
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
    #[inline(always)]
    fn importance(&self, view: &View<'_>, i: usize) -> f32 {
        let change = f64::from(R::r(view.input(self.expert)[i] - view.input(self.base)[i]).abs());
        R::r64(change * self.divergences[(view.start + i) / self.row])
    }
}

impl<R: Arithmetic> Kernel for Fusion<R> {
    fn apply(&self, view: &View<'_>, out: &mut [f32]) {
        let (base, expert) = (view.input(self.base), view.input(self.expert));
        for (i, o) in out.iter_mut().enumerate() {
            let taken = self.importance(view, i) >= self.threshold;
            *o = R::r(if taken { base[i] + R::r(expert[i] - base[i]) } else { base[i] });
        }
    }
}
